"""Run each script on a disk that is full at one place after another, and hold what it leaves against a run left alone.

    mkdir /tmp/small; mount -t tmpfs -o size=100m tmpfs /tmp/small      # as root; any small file system will do
    python -m tests.full_disk /tmp/small

Each start has a little more room than the one before. One that runs out of it must end in one line, with nothing half-written.
"""

import importlib
import re
import shutil
import sys
import tempfile
from pathlib import Path

from common.locking import LOCK
from tests.starting import start
from tests.survival import SAME, STAGES, differences, flags, left_alone, prepare

PLACES = 12  # where the disk is full, about: what a start needs is given in so many steps
REFUSED = re.compile(r"error: .*: (No space left on device|Disk quota exceeded).*\n")


def ballast(disk, room):
    """Fill a disk with a file until there is only so much room. room: bytes"""
    file = disk / "ballast"
    file.unlink(missing_ok=True)
    with open(file, "wb") as filled:
        filled.write(bytes(max(0, shutil.disk_usage(disk).free - room)))


def refused(script, place, disk, step):
    """A run that has `step` bytes of room, and at each further start as much more, until it ends. Returns how often it did not.

    script: its name
    place: Path with what `survival.flags` names
    disk: Path, the small file system, empty
    """
    count, words = 0, flags(script, place, "run", ["--output", disk / "run"])
    while True:
        ballast(disk, (count + 1) * step)
        done = start(importlib.import_module(script), *words)
        if done.returncode == 0:
            return count
        assert done.returncode == 2 and REFUSED.fullmatch(done.stderr), done.stderr
        left = [path for path in disk.glob("run/**/.*") if path.name != LOCK]
        assert not left, left
        count += 1


if __name__ == "__main__":
    small = Path(sys.argv[1])
    for name in STAGES:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            prepare(folder)
            left_alone(name, folder)
            whole = sum(path.stat().st_size for path in (folder / "alone").glob("**/*") if path.is_file())
            times = refused(name, folder, small, whole // PLACES)
            outcome = ", ".join(differences(folder / "alone", small / "run")) or SAME
            shutil.rmtree(small / "run")
            print(f"{name:<40}  a full disk {times} times: {outcome}", flush=True)
