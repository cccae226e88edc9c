"""One process to a run's folder: a lock that is gone when its process is, and word of a start that did not end by itself."""

import contextlib
import os
import platform

from common import InputError, visible

try:
    import fcntl
except ImportError:  # on Windows, whose locks would also keep others from reading who it is that holds one
    fcntl = None

LOCK = ".lock"  # in a run's folder, where it stays; empty, unless a process is there or ended without a word
_held = {}  # {path: open file} of this process; to close one gives it free


def lock_folder(folder):
    """Make a run's folder, and keep other processes from running in it until `unlocking_folders`, or the end of this one.

    The lock is `lockf`'s, which belongs to the process, where `flock`'s belongs to the open file and may outlive it in a child.
    On NFS the server knows of it, so that it counts for all machines. On Windows there is none.

    folder: Path. Raises InputError if another process has it, or it cannot be written to
    """
    path = folder / LOCK
    if path in _held:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+b", buffering=0)  # noqa: SIM115  open as long as the lock is to last
        free = _lock(file)
        file.seek(0)
        last = visible(file.read(200).decode(errors="replace").partition("\n")[0])
        if free:
            file.truncate(0)
            file.write(f"process {os.getpid()} on {platform.node()}\n".encode())
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from None
    if not free:
        file.close()
        raise InputError(f"{folder} is in use by {last or 'a process'}; wait for its end, or give another folder with --output")
    _held[path] = file
    if last:
        print(f"{folder}: the last start, {last}, was killed or crashed; this one resumes where it stopped")


def _lock(file):
    """Lock an open file. Returns whether no other process has."""
    try:
        if fcntl:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # which of the two, POSIX leaves open
        return False
    except OSError as error:
        print(f"{file.name}: no locks on this drive ({error.strerror}); see to it yourself that no other process runs there")
    return True


@contextlib.contextmanager
def unlocking_folders():
    """A block at whose end, be it an error, this process gives the folders free: it has ended by itself."""
    try:
        yield
    finally:
        while _held:
            with contextlib.suppress(OSError), _held.popitem()[1] as file:  # of a disk that can no longer be written to
                file.truncate(0)
