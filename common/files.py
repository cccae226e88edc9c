"""Files that are written atomically and read with care, and digests of what is in memory."""

import contextlib
import errno
import glob
import hashlib
import json
import os
import secrets
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np

from common import InputError, reason

HALF_WRITTEN = ".half-written"  # end of the names of what is being written; whatever has it is ours, left by a killed process


def write_atomic(path, write):
    """Create or replace `path` with what `write(file)` writes into an open binary file.

    Written beside it under a temporary name and moved into place, so that a run that dies leaves the old file or none; so does
    a machine that does, and of two files the one written first. Raises InputError if the disk is full or the folder cannot be
    written to.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{HALF_WRITTEN}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as file:  # not of `tempfile`, whose files are private: a result need not be
            write(file)
            file.flush()
            os.fsync(file.fileno())  # or the new name may outlive a power cut, and what it names may not
        os.replace(temporary, path)
        sync(path.parent)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from None
    finally:
        with contextlib.suppress(OSError):  # it is in its place; or the folder can no longer be written to
            os.remove(temporary)


def sync(path):
    """Have a file, or the names in a folder, on the disk before what comes after, where it can be told to."""
    with contextlib.suppress(OSError):  # Windows and some network drives have no such call
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_bytes(path, content):
    """`write_atomic` for bytes."""
    write_atomic(path, lambda file: file.write(content))


def write_text(path, text):
    """`write_atomic` for text, as UTF-8."""
    write_bytes(path, text.encode())


def write_json(path, value):
    """`write_atomic` for JSON; NaN is refused, because other languages cannot read it."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def write_array(path, value):
    """`write_atomic` for a numpy array, as .npy."""
    write_atomic(path, lambda file: np.save(file, value))


@contextlib.contextmanager
def atomic_folder(path):
    """A new folder to fill, which takes the place of `path` when the block has ended without an error.

    As with `write_atomic`, what is in it is on the disk before its name is.
    """
    remove_half_written(path.parent.glob(f".{glob.escape(path.name)}.*"))
    with tempfile.TemporaryDirectory(HALF_WRITTEN, f".{path.name}.", path.parent) as temporary:
        folder = Path(temporary, path.name)
        folder.mkdir()
        yield folder
        for inside in (*folder.rglob("*"), folder):
            sync(inside)
        with contextlib.suppress(FileNotFoundError):
            path.rename(Path(temporary, "old"))
        folder.rename(path)
    sync(path.parent)


def remove_half_written(paths):
    """Delete those of these files and folders that a process that was killed was writing, and no others."""
    for left in paths:
        if left.name.endswith(HALF_WRITTEN):
            shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)


PASSING = errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ESTALE, errno.ETIMEDOUT  # of no file in particular
READERS = {  # open file -> what is in it
    ".json": lambda file: dict(json.load(file).items()),
    ".npy": np.lib.format.read_array,  # which unpickles nothing, nor does the next
    ".npz": lambda file: dict(np.load(file, allow_pickle=False).items()),
}


def read_file(path):
    """What was written to a stage's folder: the dict of a .json, the array of a .npy, the {name: array} of an .npz.

    Raises InputError, which says what to delete, if it is not there whole; MemoryError or OSError for what may pass, and says
    nothing of the file.
    """
    reader = READERS[path.suffix]
    try:
        with open(path, "rb") as file:
            return reader(file)
    except PermissionError:  # nothing to delete
        raise
    except MemoryError as error:
        raise MemoryError(f"{path}: {reason(error)}") from None
    except Exception as error:  # what json, zipfile and numpy raise for junk has no common base
        if getattr(error, "errno", None) in PASSING:
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise InputError(f"{path} is damaged or not there; {delete_advice(path.parent)}") from None


def delete_advice(folder):
    """What to do about a stage whose files are damaged, in words."""
    return f"delete the folder {folder}, and the same command makes it again"


def load_or_compute(path, compute):
    """What `compute()` returned the first time, as a dict of JSON: read from `path`, or computed now and written there."""
    with contextlib.suppress(InputError):
        return read_file(path)
    write_json(path, compute())
    return read_file(path)


def wait_for(path, seconds=90):
    """Until a file shows here that another machine has written: on a network drive that takes a while. InputError if not."""
    end = time.monotonic() + seconds
    while not path.is_file():
        if time.monotonic() > end:
            raise InputError(f"{path} is not here, though the chief has written it; --output must be a folder that all share")
        time.sleep(0.5)


def fingerprint(*parts):
    """A short digest of arrays, strings and numbers, in order: equal if and only if (for all that matters) they are."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(f"{part.dtype}{part.shape}".encode())
            digest.update(np.ascontiguousarray(part))
        elif isinstance(part, list):  # item by item: a long one's repr would be a second copy of it
            digest.update(b"[")
            for i, item in enumerate(part):
                digest.update(f"{', ' * (i > 0)}{item!r}".encode())
            digest.update(b"]")
        else:
            digest.update(repr(part).encode())
    return digest.hexdigest()[:16]
