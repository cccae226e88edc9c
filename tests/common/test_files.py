"""common.files: written atomically or not at all; read whole or not at all; what is computed once; digests."""

import io
import json
import os
import resource

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import InputError, files
from common.files import fingerprint, read_file, write_array, write_atomic, write_json, write_text


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


def test_an_atomic_folder_deletes_what_a_killed_process_left_of_it_and_nothing_else(tmp_path):
    """`--output config` in a home must leave ~/.config.settings alone."""
    names = [".student.settings", ".student.bak", ".student.json.0a1b2c3d", ".other.0a1b2c3d.half-written"]
    for name in names:
        (tmp_path / name).mkdir()
    with pytest.raises(KeyboardInterrupt), files.atomic_folder(tmp_path / "student") as folder:
        folder.parent.rename(str(folder.parent).replace(".half", "0.half"))
        raise KeyboardInterrupt
    assert len([*tmp_path.glob(".student.*.half-written")]) == 1
    with files.atomic_folder(tmp_path / "student"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*names, "student"])


def test_the_name_of_an_atomic_folder_is_no_pattern(tmp_path):
    (tmp_path / ".run[1].0a1b2c3d.half-written").mkdir()
    with files.atomic_folder(tmp_path / "run[1]"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["run[1]"]


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
    assert path.read_text("utf-8") == "old" and os.listdir(tmp_path) == ["file.txt"]


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


def test_a_write_is_on_the_disk_before_its_name_is_and_its_name_before_the_next_write(tmp_path, monkeypatch):
    """In this order, or a machine that dies may leave the name of a file and nothing in it."""
    path, done, fsync, replace = tmp_path / "file.txt", [], os.fsync, os.replace

    def synced(descriptor):
        place = os.readlink(f"/proc/self/fd/{descriptor}")
        done.append(("synced", place, os.path.isfile(place) and open(place).read()))  # noqa: SIM115
        fsync(descriptor)

    def renamed(old, new):
        done.append(("renamed", str(old), str(new)))
        replace(old, new)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    write_text(path, "all of it")
    temporary = done[0][1]
    assert done == [
        ("synced", temporary, "all of it"), ("renamed", temporary, str(path)), ("synced", str(tmp_path), False)]


def test_a_folder_that_cannot_be_synced_is_written_to_all_the_same(tmp_path, monkeypatch):
    """On Windows none can, on some drives neither."""
    fsync = os.fsync

    def refuse(descriptor):
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(22, "Invalid argument")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse)
    write_text(tmp_path / "file.txt", "new")
    assert (tmp_path / "file.txt").read_text("utf-8") == "new"


def test_a_disk_that_is_full_when_it_is_synced_leaves_the_old_file(tmp_path, monkeypatch):
    """Some drives say so only then."""
    path = tmp_path / "file.txt"
    write_text(path, "old")

    def fsync(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(InputError, match="file.txt cannot be written: No space left on device"):
        write_text(path, "new")
    assert path.read_text("utf-8") == "old" and os.listdir(tmp_path) == ["file.txt"]


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


# Reading ---------------------------------------------------------------------------------------------------------------

STORED = {  # what is written, and by what
    "record.json": ({"name": "teacher", "history": [1, 2]}, write_json),
    "logits.npy": (np.arange(12, dtype=np.float32).reshape(4, 3), write_array),
    "weights.npz": ({"0": np.eye(3), "1": np.array(["a", "b"])}, lambda path, value: write_atomic(
        path, lambda file: np.savez(file, **value))),
}


class Trap:
    """What executes code when it is unpickled."""

    def __reduce__(self):
        return os.abort, ()


def in_memory(save, *words):
    file = io.BytesIO()
    save(file, *words)
    return file.getvalue()


JUNK = {
    "empty": b"", "junk": b"\x00\xff junk" * 20, "text": b"junk", "null": b"null", "list": b"[1]",
    "zip": b"PK\x03\x04" + bytes(40),
    "pickled": in_memory(lambda file: np.save(file, np.array([Trap()]), allow_pickle=True)),
    "pickle": np.array([Trap()]).dumps(), "pickles": in_memory(lambda file: np.savez(file, np.array([Trap()]))),
}


def stored(folder):
    """The files of STORED, written there: [(path, value)]."""
    for name, (value, write) in STORED.items():
        write(folder / name, value)
    return [(folder / name, value) for name, (value, _) in STORED.items()]


def check_refused(path):
    """It must be refused in one line that names it, and the folder to delete."""
    with pytest.raises(InputError) as error:
        read_file(path)
    assert str(error.value) == (
        f"{path} is damaged or not there; delete the folder {path.parent}, and the same command makes it again")


def test_what_was_written_comes_back(tmp_path):
    for path, value in stored(tmp_path):
        np.testing.assert_equal(read_file(path), value)


@pytest.mark.parametrize("junk", JUNK)
def test_junk_is_refused_and_nothing_is_unpickled(tmp_path, junk):
    for path, _ in stored(tmp_path):
        path.write_bytes(JUNK[junk])
        check_refused(path)


def test_what_is_not_there_and_a_folder_in_its_place_are_refused(tmp_path):
    for path, _ in stored(tmp_path):
        path.unlink()
        check_refused(path)
        path.mkdir()
        check_refused(path)


@given(st.data())
def test_what_is_cut_short_is_refused(tmp_path_factory, data):
    for path, _ in stored(tmp_path_factory.mktemp("stage")):
        whole = path.read_bytes()
        kept = data.draw(st.integers(0, len(whole.rstrip()) - 1))
        path.write_bytes(whole[:kept])
        check_refused(path)


@given(st.data())
def test_a_changed_byte_is_an_array_or_a_refusal_never_another_error(tmp_path_factory, data):
    """Of .npz its checksums show what the arrays' bytes are; a .npy and a .json have none."""
    for path, value in stored(tmp_path_factory.mktemp("stage")):
        content = bytearray(path.read_bytes())
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        path.write_bytes(content)
        try:
            found = read_file(path)
        except InputError:
            continue
        if path.suffix == ".npz":
            for name in found.keys() & value.keys():
                np.testing.assert_array_equal(found[name], value[name])


@pytest.mark.parametrize("error", [MemoryError("Unable to allocate 7 GiB"), OSError(5, "Input/output error")], ids=repr)
def test_what_says_nothing_of_the_file_is_no_reason_to_delete_it(tmp_path, monkeypatch, error):
    """Nor to begin a stage anew: it is raised as it is, with the file's name."""
    def fail(file):
        raise error

    (tmp_path / "weights.npz").write_bytes(b"whole")
    monkeypatch.setitem(files.READERS, ".npz", fail)
    with pytest.raises(type(error), match="weights.npz"):
        read_file(tmp_path / "weights.npz")


def test_a_file_that_may_not_be_read_is_not_to_be_deleted(tmp_path, monkeypatch):
    def refuse(*words):
        raise PermissionError(13, "Permission denied", "record.json")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(PermissionError):
        read_file(tmp_path / "record.json")


@pytest.mark.parametrize("junk", [b"", b"{", b"[]", b"\x80", b'{"latency_ms": 1.'])
def test_what_is_damaged_is_computed_again(tmp_path, junk):
    path = tmp_path / "cost.json"
    path.write_bytes(junk)
    assert files.load_or_compute(path, lambda: {"latency_ms": 1.5}) == {"latency_ms": 1.5}
    assert json.loads(path.read_text("utf-8")) == {"latency_ms": 1.5}


def test_a_folder_in_the_place_of_what_is_computed_is_one_line(tmp_path):
    (tmp_path / "cost.json").mkdir()
    with pytest.raises(InputError, match="cost.json cannot be written: Is a directory"):
        files.load_or_compute(tmp_path / "cost.json", dict)


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
