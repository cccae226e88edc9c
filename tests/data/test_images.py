"""data.images: named, from `.npz` and from folders; and what is said when they cannot be read."""

import hashlib
import io
import pickle
import tarfile
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from common import InputError
from common.batches import Pixels
from data import downloading, fetching, images
from data.parts import Parts
from data.sources import SOURCES
from tests import serving


def arrays(train=30, test=12, shape=(5, 6, 3), classes=3, seed=0):
    """Random images as an .npz holds them."""
    rng = np.random.default_rng(seed)
    return {
        "x_train": rng.integers(0, 256, (train, *shape), np.uint8), "y_train": np.arange(train) % classes,
        "x_test": rng.integers(0, 256, (test, *shape), np.uint8), "y_test": np.arange(test) % classes,
    }


def write(path, changed=(), without=()):
    """Write an .npz of random images with some arrays changed or left out; returns its path as a string."""
    held = arrays() | dict(changed)
    np.savez(path, **{name: value for name, value in held.items() if name not in without})
    return str(path)


# What is read


def test_digits():
    corpus = images.load("digits")
    assert corpus.pixels.shape[1:] == (8, 8, 1) and corpus.pixels.dtype == np.float32
    assert corpus.pixels.min() == 0 and corpus.pixels.max() == 1
    assert corpus.classes == [str(i) for i in range(10)]
    assert len(corpus.test) == 599 and len(corpus.pool) == 1198
    shares = [np.bincount(corpus.labels[part]) / len(part) for part in (corpus.pool, corpus.test)]
    np.testing.assert_allclose(*shares, atol=0.005)


def test_npz(tmp_path):
    held = arrays()
    corpus = images.load(write(tmp_path / "images.npz"))
    np.testing.assert_allclose(corpus.pixels[corpus.pool], held["x_train"] / 255, atol=1e-6)
    np.testing.assert_allclose(Pixels(corpus.pixels).inputs(corpus.test), held["x_test"] / 255, atol=1e-6)
    assert corpus.labels[corpus.test].tolist() == held["y_test"].tolist()
    assert corpus.classes == ["0", "1", "2"] and corpus.notes == [] and len(corpus.dev) == 0


@pytest.mark.parametrize("changed", [
    {"y_train": np.arange(30)[:, None] % 3, "y_test": np.arange(12, dtype=np.uint8)[:, None] % 3},
    {"class_names": np.array(["0", "1", "2"])},
    {"y_train": (np.arange(30) % 3).astype(str), "y_test": (np.arange(12) % 3).astype(str)},
    {"y_train": (np.arange(30) % 3).astype(str), "y_test": (np.arange(12) % 3).astype(str),
     "class_names": np.array(["0", "1", "2"])},
])
def test_labels_may_be_a_column_or_strings(tmp_path, changed):
    corpus = images.load(write(tmp_path / "images.npz", changed))
    assert corpus.classes == ["0", "1", "2"] and corpus.labels.tolist() == [*(np.arange(30) % 3), *(np.arange(12) % 3)]


def test_class_names_name_the_numbers(tmp_path):
    corpus = images.load(write(tmp_path / "images.npz", {"class_names": np.array(["b", "a", "c", "never seen"])}))
    assert corpus.classes == ["b", "a", "c", "never seen"] and corpus.labels[:3].tolist() == [0, 1, 2]


@given(st.integers(2, 6), st.integers(2, 6), st.sampled_from([None, 1, 3]), st.sampled_from(["uint8", "float32", "float64"]))
def test_whatever_the_shape_and_type_pixels_are_float32_from_0_to_1(tmp_path_factory, height, width, channels, dtype):
    shape = (height, width) if channels is None else (height, width, channels)
    held = arrays(shape=shape)
    held["x_train"][0, 0, 0] = 255
    scale = 1 if dtype == "uint8" else 255
    path = tmp_path_factory.mktemp("property") / "images.npz"
    corpus = images.load(write(path, {name: (held[name] / scale).astype(dtype) for name in ("x_train", "x_test")}))
    assert corpus.pixels.shape == (42, height, width, channels or 1) and corpus.pixels.dtype == np.float32
    np.testing.assert_allclose(corpus.pixels[corpus.pool].ravel(), held["x_train"].ravel() / 255, atol=1e-6)


def test_without_a_test_part_a_third_becomes_one(tmp_path):
    corpus = images.load(write(tmp_path / "images.npz", without=("x_test", "y_test")))
    assert len(corpus.test) == 10 and len(corpus.pool) == 20 and "a third of the images is the test part" in corpus.notes


def test_training_images_that_stand_in_the_test_part_are_dropped(tmp_path):
    held = arrays()
    held["x_train"][[3, 17]] = held["x_test"][5]
    corpus = images.load(write(tmp_path / "images.npz", held))
    assert len(corpus.pool) == 28 and len(corpus.test) == 12
    assert corpus.notes == ["dropped from training, because they stand in the test part too: 2 images"]


def test_dark_images_are_noted(tmp_path):
    held = arrays()
    corpus = images.load(write(tmp_path / "images.npz", {part: held[part] % 17 for part in ("x_train", "x_test")}))
    assert corpus.notes == ["values of x_train go up to 16 only and are taken to be of 255"]


def write_folder(folder, held, mode="RGB", suffix=".png"):
    for part in ("train", "test"):
        for number, (pixels, label) in enumerate(zip(held[f"x_{part}"], held[f"y_{part}"], strict=True)):
            path = folder / part / f"class {label}" / f"{number:03}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).convert(mode).save(path)
    return folder


def test_folders_of_images(tmp_path):
    held = arrays()
    (write_folder(tmp_path, held) / "train" / "class 0" / "notes.txt").write_text("not an image")
    corpus = images.load(str(tmp_path))
    assert corpus.classes == ["class 0", "class 1", "class 2"] and corpus.pixels.shape == (42, 5, 6, 3)
    order = np.argsort(held["y_train"], kind="stable")
    np.testing.assert_allclose(corpus.pixels[corpus.pool], held["x_train"][order] / 255, atol=1e-6)


def test_grey_images_keep_one_channel(tmp_path):
    corpus = images.load(str(write_folder(tmp_path, arrays(shape=(5, 6)), mode="L")))
    assert corpus.pixels.shape == (42, 5, 6, 1)


def test_a_size_in_words(tmp_path):
    assert images.load(write(tmp_path / "images.npz")).size == "5 x 6 x 3"


# What is refused


CASES = {
    "labels that training does not have": ({"y_test": np.arange(12) % 4}, r"y_test\[3\] is 3, which does not occur in y_train"),
    "labels without a name": ({"class_names": np.array(["a", "b"])}, r"y_train\[2\] is 2, which has no name in class_names"),
    "negative labels": ({"y_train": np.arange(30) % 3 - 1}, r"y_train\[0\] is -1; expected class numbers from 0"),
    "fractions": ({"y_train": np.arange(30) / 3}, "y_train holds float64; expected whole numbers or strings"),
    "one-hot labels": ({"y_train": np.eye(3)[np.arange(30) % 3]}, r"y_train has shape \(30, 3\) for 30 images"),
    "too few labels": ({"y_train": np.arange(29) % 3}, r"y_train has shape \(29,\) for 30 images; expected one label each"),
    "one class": (
        {"y_train": np.zeros(30, int), "y_test": np.zeros(12, int)}, "expected training images of at least two classes"),
    "other shapes": ({"x_test": np.zeros((12, 6, 5, 3))}, r"x_train are \(5, 6, 3\), those of x_test \(6, 5, 3\)"),
    "flat images": ({"x_train": np.zeros((30, 90))}, r"x_train has shape \(30, 90\); expected \(images, height, width\)"),
    "no images": ({"x_train": np.zeros((0, 5, 6, 3))}, "none empty"),
    "strings": ({"x_train": np.full((30, 5, 6, 3), "dark")}, "x_train holds <U4; expected numbers"),
    "NaN": ({"x_test": np.full((12, 5, 6, 3), np.nan)}, "x_test: image 0 holds NaN or infinity"),
    "too bright": ({"x_train": np.full((30, 5, 6, 3), 256)}, "values from 256 to 256; expected 0 to 255 or 0 to 1"),
    "centred": ({"x_train": np.full((30, 5, 6, 3), -0.5)}, "values from -0.5 to -0.5; expected 0 to 255 or 0 to 1"),
    "two scales": ({"x_train": np.full((30, 5, 6, 3), 0.5)}, "x_train and x_test go up to 0.5 and 25[0-9]; both must be"),
    "the other way": ({"x_test": np.full((12, 5, 6, 3), 0.5)}, "x_train and x_test go up to 25[0-9] and 0.5; both must be"),
    "a little over": ({"x_train": np.full((30, 5, 6, 3), 1.01)}, "values from 1.01 to 1.01; expected 0 to 255 or 0 to 1"),
    "names twice": ({"class_names": np.array(["a", "b", "a"])}, "class_names must be at least two different strings"),
    "a name that is no text": ({"class_names": np.array(["a", "caf\udce9", "b"])}, r"the class name 'caf.udce9' is not UTF-8"),
    "no names": ({"class_names": np.array([])}, "class_names must be at least two different strings"),
    "one class with two names": (
        {"y_train": np.zeros(30, int), "y_test": np.zeros(12, int), "class_names": np.array(["a", "b"])},
        "expected training images of at least two classes",
    ),
    "the test part again": (
        {"x_test": arrays()["x_train"], "y_test": arrays()["y_train"]}, "classes that do not stand in the test part too"),
    "objects": ({"x_train": np.array([None] * 30)}, "not a readable .npz of plain arrays"),
}


@pytest.mark.parametrize("case", CASES)
def test_npz_that_does_not_fit(tmp_path, case):
    changed, message = CASES[case]
    with pytest.raises(InputError, match=message) as error:
        images.load(write(tmp_path / "images.npz", changed))
    assert str(tmp_path / "images.npz") in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("missing", ["x_train", "y_train", "x_test", "y_test"])
def test_npz_without_an_array(tmp_path, missing):
    with pytest.raises(InputError, match=f"{missing} is missing; expected x_train y_train x_test y_test"):
        images.load(write(tmp_path / "images.npz", without=(missing,)))


@pytest.mark.parametrize(
    "damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"text", lambda b: b[:999] + b"!" + b[1000:]]
)
def test_a_damaged_npz(tmp_path, damage):
    path = tmp_path / "images.npz"
    write(path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match="images.npz: not a readable .npz of plain arrays") as error:
        images.load(str(path))
    assert "\n" not in str(error.value)


def test_an_array_that_is_no_npz(tmp_path):
    with open(tmp_path / "images.npz", "wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(InputError, match=r"not a readable .npz of plain arrays \(not a zip archive\)"):
        images.load(str(tmp_path / "images.npz"))


def test_an_npz_that_would_fill_the_memory(tmp_path):
    """Of 20 million zeros 20 kB are left; and of an array whose header alone says that it is large nothing is read."""
    np.savez_compressed(tmp_path / "images.npz", **arrays() | {"x_train": np.zeros((20, 1000, 1000), np.uint8)})
    with pytest.raises(InputError, match="over 100 times as large as packed; save it with np.savez"):
        images.load(str(tmp_path / "images.npz"))
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (10**15,)})
    with zipfile.ZipFile(tmp_path / "images.npz", "w") as file:
        file.writestr("x_train.npy", header.getvalue())
    with pytest.raises(InputError, match="not a readable .npz"):
        images.load(str(tmp_path / "images.npz"))


@pytest.mark.slow
def test_an_npz_with_any_byte_changed_loads_or_ends_in_one_line(tmp_path):
    path = tmp_path / "images.npz"
    np.savez_compressed(path, **arrays(train=6, test=3, shape=(2, 2)))
    content, refused = path.read_bytes(), 0
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        try:
            images.load(str(path))
        except InputError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > len(content) / 2


@given(st.binary(max_size=300))
def test_any_bytes_end_in_one_line(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("bytes") / "images.npz"
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        images.load(str(path))
    assert "\n" not in str(error.value)


def test_folders_that_do_not_fit(tmp_path):
    folder = write_folder(tmp_path, arrays())
    Image.new("RGB", (7, 5)).save(folder / "train" / "class 1" / "wide.png")
    with pytest.raises(InputError, match="wide.png: 7x5 pixels, the first image has 6x5; all must have one size"):
        images.load(str(folder))
    (folder / "train" / "class 1" / "wide.png").write_bytes(b"not an image")
    with pytest.raises(InputError, match="wide.png: not a readable image"):
        images.load(str(folder))
    (folder / "train" / "class 1" / "wide.png").unlink()
    (folder / "train" / "class 8").mkdir()
    with pytest.raises(InputError, match="class 8: no image in it ending in one of .png"):
        images.load(str(folder))
    (folder / "train" / "class 8").rmdir()
    (folder / "test" / "class 9").mkdir()
    with pytest.raises(InputError, match=r"test/class 9: there is no such class in .*/train"):
        images.load(str(folder))
    with pytest.raises(InputError, match="expected a folder for each class in it, at least two; found 0"):
        images.load(str(folder / "train"))


def test_a_folder_that_is_not_used_is_named(tmp_path):
    folder = write_folder(tmp_path, arrays())
    (folder / "val").mkdir()
    assert images.load(str(folder)).notes == [f"{folder / 'val'} is not used"]


@pytest.mark.parametrize(("mode", "ink", "expected"), [
    ("1", 1, [255] * 3), ("L", 7, [7] * 3), ("RGB", (1, 2, 3), [1, 2, 3]), ("RGBA", (9, 9, 9, 0), [255] * 3),
    ("RGBA", (1, 2, 3, 255), [1, 2, 3]), ("LA", (5, 0), [255] * 3), ("I;16", 25700, [100] * 3),
])
def test_kinds_of_pixels(tmp_path, mode, ink, expected):
    Image.new(mode, (2, 3), ink).save(tmp_path / "image.png")
    assert (images._image(tmp_path / "image.png") == expected).all()


def test_pixels_of_another_kind_are_refused(tmp_path):
    Image.new("F", (2, 3), 0.5).save(tmp_path / "image.tiff")
    with pytest.raises(InputError, match="pixels of kind F; expected grey or RGB"):
        images._image(tmp_path / "image.tiff")


def test_numbers_as_strings_are_in_the_order_of_their_values(tmp_path):
    labels = np.array(["1", "2", "10"])
    changed = {"y_train": labels[np.arange(30) % 3], "y_test": labels[np.arange(12) % 3]}
    assert images.load(write(tmp_path / "images.npz", changed)).classes == ["1", "2", "10"]


def test_a_name_that_is_nothing(tmp_path):
    with pytest.raises(InputError, match="none.npz: there is no such file"):
        images.load(str(tmp_path / "none.npz"))
    np.savez(tmp_path / "two.npz", x_train=np.ones((2, 5, 5)), y_train=np.arange(2))
    with pytest.raises(InputError, match="2 images are too few to split a test part off"):
        images.load(str(tmp_path / "two.npz"))
    with pytest.raises(InputError, match="nor a folder with train/CLASS/ in it, nor one of digits, cifar10"):
        images.load("mnist")


# CIFAR-10, from a server on the loopback


@pytest.fixture(scope="module")
def archive():
    """A .tar.gz laid out as CIFAR-10's, all images of one colour each, 200 in each of its files."""
    labels = np.arange(200) % 10
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as file:
        for number, name in enumerate(("test_batch", *(f"data_batch_{i}" for i in range(5, 0, -1)), "batches.meta")):
            pixels = (labels * 20 + number)[:, None] + np.repeat([0, 1, 2], 1024)  # red, green, blue
            pixels[:, 1] += 3  # the second of the first row of red
            content = pickle.dumps({b"data": pixels.astype(np.uint8), b"labels": labels.tolist()})
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    return packed.getvalue()


@pytest.fixture
def server(archive, tmp_path, monkeypatch):
    """A server of `archive` as CIFAR-10; data/ and ~ are empty folders."""
    monkeypatch.setattr(fetching, "FOLDER", tmp_path / "data")
    monkeypatch.setattr(downloading, "PAUSE", 0)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with serving.serving() as served:
        wanted = replace(SOURCES["cifar10"].downloads[0], address=f"{served.address}/cifar", size=len(archive),
                         sha256=hashlib.sha256(archive).hexdigest())
        monkeypatch.setitem(SOURCES, "cifar10", replace(SOURCES["cifar10"], downloads=(wanted,)))
        served.files["/cifar"] = archive
        yield served


def test_cifar10_is_fetched_on_request_and_only_once(server):
    with pytest.raises(InputError, match=r"cifar10 is not here: python -m data fetch cifar10, or --download, fetches it \("):
        images.load("cifar10")
    corpus = images.load("cifar10", download=True)
    assert corpus.pixels.shape[1:] == (32, 32, 3) and corpus.classes[3] == "cat" and len(corpus.test) == 200
    image = corpus.pixels[corpus.test[3]]
    np.testing.assert_array_equal(image[0, 1] * 255, [63, 61, 62])
    np.testing.assert_array_equal(image[1, 0] * 255, [60, 61, 62])
    np.testing.assert_array_equal(corpus.pixels[corpus.pool[200]][1, 0] * 255, [4, 5, 6])  # in data_batch_2
    assert corpus.labels[corpus.test[3]] == 3
    server.behave(serving.status(404))
    assert len(images._cifar10(download=False)["x_test"]) == 200 and server.asked == []


def test_cifar10_that_cannot_be_fetched(server):
    server.behave(serving.status(404))
    with pytest.raises(InputError, match="/cifar: 404 Not Found"):
        images.load("cifar10", download=True)
    server.behave(serving.wrong_content)
    with pytest.raises(InputError, match="sha256 is .* nothing of it is kept"):
        images.load("cifar10", download=True)
    with pytest.raises(InputError, match="cifar10 is not here"):
        images.load("cifar10")
    server.behave(serving.fine)
    assert len(images._cifar10(download=True)["x_test"]) == 200  # the second try succeeds


class Runs:
    def __reduce__(self):
        return pytest.fail, ("code in a pickle was run",)


@pytest.mark.parametrize("home", [None, "cifar-10-batches-py.tar.gz", "cifar-10-batches-py-target_archive"])
def test_cifar10_is_read_from_the_checked_archive_alone(server, archive, tmp_path, home):
    """Not from what lies unpacked beside it, as Keras leaves it; nor from another archive. home: what Keras 2 and 3 call it"""
    folder = tmp_path / "home" / ".keras" / "datasets" if home else fetching.FOLDER / "cifar10" / "datasets"
    if home:
        folder.mkdir(parents=True)
        (folder / home).write_bytes(archive)
    assert len(images._cifar10(download=not home)["x_test"]) == 200
    (folder / "cifar-10-batches-py").mkdir()
    for name in ("test_batch", *(f"data_batch_{i}" for i in range(1, 6))):
        (folder / "cifar-10-batches-py" / name).write_bytes(pickle.dumps(Runs()))
    assert len(images._cifar10(download=False)["x_train"]) == 1000
    (folder / (home or "cifar-10-batches-py.tar.gz")).write_bytes(archive[:-1] + b"!")
    with pytest.raises(InputError, match="sha256 is .* the file is damaged or not the published one"):
        images._cifar10(download=False)


@pytest.mark.parametrize("part", ["train", "validation", "test"])
@pytest.mark.parametrize(("labels", "share"), [([0, 0, 2], "0 of the 3"), ([1, 1], "2 of the 2")])
def test_a_class_to_leave_out_must_be_in_each_part_and_not_alone_there(tmp_path, part, labels, share):
    corpus = images.load(str(write(tmp_path / "images.npz")))
    numbers = {label: np.flatnonzero(corpus.labels == label) for label in range(3)}
    good = np.array([numbers[0][0], numbers[1][0]])
    parts = Parts(train=good, unlabelled=np.arange(0), validation=good, test=good)
    images.check_omitted(corpus, parts, corpus.classes[1])
    bad = np.array([numbers[label][place] for place, label in enumerate(labels)])
    message = f"--omit-class {corpus.classes[1]}: {share} {part} images are of this class; there must be some, and some others"
    with pytest.raises(InputError, match=message):
        images.check_omitted(corpus, replace(parts, **{part: bad}), corpus.classes[1])
