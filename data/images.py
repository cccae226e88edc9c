"""Image data sets as plain records: the named ones, `.npz` files, and folders of image files.

`data.parts` splits them as it splits texts.
"""

import hashlib
import pickle
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from common import InputError, reason
from data import fetching
from data.downloading import check_sha256
from data.parts import sort_labels, stratified_sample
from data.rows import UNPACKED
from data.sources import SOURCES

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


@dataclass(frozen=True)
class Images:
    """A data set of images.

    name: the data set's name or path
    pixels: (images, height, width, channels) float32 from 0 to 1
    labels: (images,) int32 class numbers
    classes: names in the order of their numbers
    pool: indices that training images are drawn from
    test: indices of the test part; dev, those of a validation part, is empty
    notes: a line each on what was dropped or split
    """

    name: str
    pixels: np.ndarray
    labels: np.ndarray
    classes: list
    pool: np.ndarray
    test: np.ndarray
    notes: list
    dev = np.arange(0)
    descriptions = {}  # noqa: RUF012  images have none, as texts may

    @property
    def size(self):
        """Height, width and channels in words."""
        return " x ".join(map(str, self.pixels.shape[1:]))


def load(name_or_path, download=False):
    """Read images. Without a test part a third of them becomes one.

    Raises InputError for whatever cannot be read or does not fit together.

    name_or_path: `digits` or `cifar10`; an `.npz` of x_train y_train x_test y_test, and class_names if it likes; or a folder
        with train/CLASS/ and test/CLASS/
    download: whether CIFAR-10 may be fetched
    """
    path = Path(name_or_path)
    if name_or_path == "digits":
        digits = load_digits()
        arrays = {"x_train": digits.images / 16, "y_train": digits.target}
    elif name_or_path == "cifar10":
        arrays = _cifar10(download)
    elif path.is_dir():
        arrays = _folder(path)
    elif path.suffix.lower() == ".npz":
        arrays = _npz(path)
    else:
        names = ", ".join(name for name, source in SOURCES.items() if source.kind == "images")
        raise InputError(f"--data {path}: neither an .npz file, nor a folder with train/CLASS/ in it, nor one of {names}")
    return _images(str(name_or_path), arrays)


# Reading ---------------------------------------------------------------------------------------------------------------


def check_omitted(corpus, parts, name):
    """Raise InputError unless each part has images of the class that is to be left out of training, and others.

    corpus: Images
    parts: `data.parts.Parts`
    name: of the class
    """
    for part in ("train", "validation", "test"):
        omitted = corpus.labels[getattr(parts, part)] == corpus.classes.index(name)
        if omitted.all() or not omitted.any():
            raise InputError(
                f"--omit-class {name}: {omitted.sum()} of the {len(omitted)} {part} images are of this class; "
                "there must be some, and some others"
            )


def _cifar10(download):
    """The arrays of CIFAR-10, out of the archive in data/cifar10 or, if Keras has left it there, ~/.keras/datasets.

    Its files are pickles, which can run anything: they are read out of an archive that has the published digest, and from
    nowhere else.
    """
    archive = next((path for path in _of_keras() if path.is_file()), None)
    if fetching.is_here("cifar10") or not archive:
        fetching.ensure_available([("--data", "images", "cifar10")], download)
        archive = fetching.locate("cifar10", "--data")["archive"]
    check_sha256(archive, SOURCES["cifar10"].downloads[0].sha256)
    with tarfile.open(archive) as file:
        batches = {Path(member.name).name: pickle.load(file.extractfile(member), encoding="bytes")
                   for member in file if "_batch" in Path(member.name).name}
    arrays = {"class_names": CIFAR10}
    for part, names in (("train", [f"data_batch_{number}" for number in range(1, 6)]), ("test", ["test_batch"])):
        pixels = np.concatenate([batches[name][b"data"] for name in names])  # (images, 3 * 32 * 32) uint8
        arrays[f"x_{part}"] = pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        arrays[f"y_{part}"] = np.concatenate([batches[name][b"labels"] for name in names])
    return arrays


def _of_keras():
    """Where Keras 2 and Keras 3 leave the archive of CIFAR-10."""
    folder = Path.home() / ".keras" / "datasets"
    return folder / "cifar-10-batches-py.tar.gz", folder / "cifar-10-batches-py-target_archive"


def _npz(path):
    if not path.is_file():
        raise InputError(f"--data {path}: there is no such file")
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("not a zip archive")
        with zipfile.ZipFile(path) as file:
            unpacked = sum(member.file_size for member in file.infolist())  # to which zipfile holds each member
        if unpacked > UNPACKED * (path.stat().st_size + 10_000):
            raise ValueError(f"over {UNPACKED} times as large as packed; save it with np.savez")
        with np.load(path) as file:
            arrays = {name: file[name] for name in ("x_train", "y_train", "x_test", "y_test", "class_names") if name in file}
    except Exception as error:  # a damaged archive fails in as many ways as zip and npy have fields
        raise InputError(f"{path}: not a readable .npz of plain arrays ({reason(error)})") from None
    wanted = {"x_train", "y_train"} | ({"x_test", "y_test"} if {"x_test", "y_test"} & set(arrays) else set())
    if missing := sorted(wanted - set(arrays)):
        raise InputError(f"{path}: {missing[0]} is missing; expected x_train y_train x_test y_test")
    return arrays | {"path": path}


def _folder(path):
    parts = ("train", "test") if (path / "test").is_dir() else ("train",)
    ignored = sorted(folder.name for folder in path.iterdir() if folder.is_dir() and folder.name not in parts)
    arrays, first, known = {"path": path, "notes": [f"{path / name} is not used" for name in ignored]}, None, None
    for part in parts:
        classes = sorted(folder for folder in (path / part).glob("*") if folder.is_dir())
        if len(classes) < 2:
            raise InputError(f"{path / part}: expected a folder for each class in it, at least two; found {len(classes)}")
        known = known or {folder.name for folder in classes}
        pixels, labels = [], []
        for folder in classes:
            if folder.name not in known:
                raise InputError(f"{folder}: there is no such class in {path / 'train'}")
            files = sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES)
            if not files:
                raise InputError(f"{folder}: no image in it ending in one of {' '.join(SUFFIXES)}")
            for file in files:
                pixels.append(_image(file))
                first = pixels[0] if first is None else first
                if pixels[-1].shape != first.shape:
                    found, wanted = ("x".join(map(str, image.shape[1::-1])) for image in (pixels[-1], first))
                    raise InputError(f"{file}: {found} pixels, the first image has {wanted}; all must have one size")
            labels += [folder.name] * len(files)
        arrays |= {f"x_{part}": np.stack(pixels), f"y_{part}": np.array(labels)}
    if all((arrays[f"x_{part}"][..., :1] == arrays[f"x_{part}"]).all() for part in parts):  # grey throughout
        arrays |= {f"x_{part}": arrays[f"x_{part}"][..., :1] for part in parts}
    return arrays


def _image(file):
    """The image as uint8 (height, width, 3); what is transparent is white, 16 bits become 8."""
    try:
        with Image.open(file) as image:
            if image.mode.startswith("I;16"):
                return np.repeat((np.asarray(image) // 257).astype(np.uint8)[..., None], 3, axis=-1)
            if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
            if image.mode not in ("1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr"):
                raise ValueError(f"pixels of kind {image.mode}; expected grey or RGB")
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{file}: not a readable image ({reason(error)})") from None


# Checking --------------------------------------------------------------------------------------------------------------


def _images(name, arrays):
    """One table of both parts, with class numbers for labels; the checks."""
    path = arrays.get("path", name)
    parts = [part for part in ("train", "test") if f"x_{part}" in arrays]
    pixels = {part: _pixels(arrays[f"x_{part}"], f"{path}: x_{part}") for part in parts}
    if len(parts) == 2 and pixels["train"].shape[1:] != pixels["test"].shape[1:]:
        shapes = [str(pixels[part].shape[1:]) for part in parts]
        raise InputError(f"{path}: images of x_train are {shapes[0]}, those of x_test {shapes[1]}; they must be alike")
    labels = {part: _labels(arrays[f"y_{part}"], len(pixels[part]), f"{path}: y_{part}") for part in parts}
    values, classes = _classes(labels["train"], arrays.get("class_names"), path)
    known = {value: number for number, value in enumerate(values)}
    for part in parts:
        for row, label in enumerate(labels[part].tolist()):
            if label not in known:
                where = "has no name in class_names" if "class_names" in arrays else "does not occur in y_train"
                raise InputError(f"{path}: y_{part}[{row}] is {label!r}, which {where}")
        labels[part] = np.array([known[label] for label in labels[part].tolist()], np.int32)
    notes = list(arrays.get("notes", ()))
    scales = [_scale(pixels[part]) for part in parts]
    if len(set(scales)) > 1:
        tops = " and ".join(f"{pixels[part].max():g}" for part in parts)
        raise InputError(f"{path}: values of x_train and x_test go up to {tops}; both must be of 1, or both of 255")
    scale = scales[0]
    if scale == 255 and pixels["train"].max() < 128:
        notes.append(f"values of x_train go up to {pixels['train'].max():g} only and are taken to be of 255")
    pixels = {part: np.ascontiguousarray(pixels[part], np.float32) / scale for part in parts}
    if len(parts) == 1:
        rest, test = stratified_sample(np.arange(len(labels["train"])), labels["train"], len(labels["train"]) // 3, seed=0)
        pixels = {"train": pixels["train"][rest], "test": pixels["train"][test]}
        labels = {"train": labels["train"][rest], "test": labels["train"][test]}
        notes.append("a third of the images is the test part")
    if not len(pixels["test"]):
        raise InputError(f"{path}: {len(pixels['train'])} images are too few to split a test part off")
    held_out = {hashlib.sha256(image).digest() for image in pixels["test"]}
    kept = np.array([hashlib.sha256(image).digest() not in held_out for image in pixels["train"]])
    if not kept.all():
        notes.append(f"dropped from training, because they stand in the test part too: {(~kept).sum():,} images")
    count = int(kept.sum())
    for label in classes:
        if any("\ud800" <= sign <= "\udfff" for sign in label):
            raise InputError(f"{path}: the class name {label!r} is not UTF-8")
    if len(np.unique(labels["train"][kept])) < 2:
        raise InputError(f"{path}: expected training images of at least two classes that do not stand in the test part too")
    return Images(
        name,
        np.concatenate([pixels["train"][kept], pixels["test"]]),
        np.concatenate([labels["train"][kept], labels["test"]]),
        classes,
        pool=np.arange(count),
        test=np.arange(count, count + len(labels["test"])),
        notes=notes,
    )


def _pixels(array, where):
    """The images as (images, height, width, channels), any number type."""
    array = np.asarray(array)
    if array.dtype.kind not in "buif":
        raise InputError(f"{where} holds {array.dtype}; expected numbers from 0 to 255 or from 0 to 1")
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim != 4 or 0 in array.shape:
        raise InputError(f"{where} has shape {array.shape}; expected (images, height, width) or (…, channels), none empty")
    bad = np.flatnonzero(~np.isfinite(array).all(axis=(1, 2, 3)))
    if len(bad):
        raise InputError(f"{where}: image {bad[0]} holds NaN or infinity")
    if array.min() < 0 or array.max() > 255 or (array.dtype.kind == "f" and 1 < array.max() < 2):
        raise InputError(f"{where}: values from {array.min():g} to {array.max():g}; expected 0 to 255 or 0 to 1")
    return array


def _scale(array):
    """What its white is: 1 or 255."""
    return 255 if array.max() > 1 else 1


def _labels(array, images, where):
    array = np.asarray(array)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.shape != (images,):
        raise InputError(f"{where} has shape {array.shape} for {images} images; expected one label each")
    if array.dtype.kind not in "uiU":
        raise InputError(f"{where} holds {array.dtype}; expected whole numbers or strings")
    if array.dtype.kind == "i" and array.min() < 0:
        raise InputError(f"{where}[{array.argmin()}] is {array.min()}; expected class numbers from 0")
    return array


def _classes(train, names, path):
    """(label values in the order of their class numbers, class names)."""
    if names is None:
        values = sort_labels(np.unique(train).tolist())
        return values, [str(value) for value in values]
    names = np.asarray(names)
    if names.ndim != 1 or names.dtype.kind != "U" or len(set(names.tolist())) < max(2, len(names)):
        raise InputError(f"{path}: class_names must be at least two different strings")
    return names.tolist() if train.dtype.kind == "U" else range(len(names)), names.tolist()
