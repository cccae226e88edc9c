"""common.files: written atomically or not at all; what is computed once; digests."""

import os
import resource

import numpy as np
import pytest

from common import InputError, files
from common.files import fingerprint, write_array, write_atomic, write_json, write_text


def test_an_atomic_folder_takes_the_place_of_the_old_one_or_leaves_it(tmp_path):
    path = tmp_path / "student"
    for word in ("first", "second"):
        with files.atomic_folder(path) as folder:
            write_text(folder / f"{word}.txt", word)
    assert [found.name for found in path.iterdir()] == ["second.txt"]
    with pytest.raises(ZeroDivisionError), files.atomic_folder(path) as folder:
        write_text(folder / "third.txt", "half written")
        1 / 0  # noqa: B018
    assert [found.name for found in path.iterdir()] == ["second.txt"] and [*tmp_path.iterdir()] == [path]


def test_a_write_replaces_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "deep" / "file.txt"
    before = os.umask(0o027)
    try:
        write_text(path, "old")
        write_text(path, "neu: ü")
    finally:
        os.umask(before)
    assert path.read_bytes() == "neu: ü".encode() and os.listdir(path.parent) == ["file.txt"]
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.txt"
    write_text(path, "old")

    def half(file):
        file.write(b"new")
        raise ValueError

    with pytest.raises(ValueError):
        write_atomic(path, half)
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["file.txt"]


def test_a_full_disk_is_one_line_and_leaves_the_old_file(tmp_path):
    """A limit on file sizes fails the write as a full disk does: in the middle of it, with an OSError."""
    path = tmp_path / "file.npy"
    write_atomic(path, lambda file: np.save(file, np.arange(3)))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(InputError, match="file.npy cannot be written: ") as error:
            write_atomic(path, lambda file: file.write(bytes(100_000)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(error.value)
    assert np.load(path).tolist() == [0, 1, 2] and os.listdir(tmp_path) == ["file.npy"]


def test_a_folder_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written: "):
        write_text(tmp_path / "file" / "below", "")


def test_what_is_there_is_not_computed_again(tmp_path):
    computed = []

    def compute():
        computed.append(1)
        return {"latency_ms": 1.5}

    path = tmp_path / "deep" / "cost.json"
    for _ in range(2):
        assert files.load_or_compute(path, compute) == {"latency_ms": 1.5} and computed == [1]


def test_json_refuses_nan(tmp_path):
    with pytest.raises(ValueError):
        write_json(tmp_path / "file.json", {"loss": float("nan")})


def test_an_array_comes_back(tmp_path):
    write_array(tmp_path / "logits.npy", np.eye(3, dtype=np.float32))
    np.testing.assert_array_equal(np.load(tmp_path / "logits.npy"), np.eye(3))


def test_a_fingerprint_is_that_of_what_is_there_and_how():
    """Not of how it lies in memory; a list's is that of its items, in order."""
    array = np.arange(6, dtype=np.int32).reshape(2, 3)
    assert fingerprint(array) == fingerprint(array.copy(order="F")) == fingerprint(array)
    others = [array.astype(np.int64), array.reshape(3, 2), array + 1, ["a", "bc"], ["ab", "c"], ["a, bc"], "abc", 1, 1.5]
    assert len({fingerprint(other) for other in others} | {fingerprint(array)}) == len(others) + 1
    assert len(fingerprint("a", 1)) == 16 and fingerprint("a", 1) != fingerprint(1, "a")
