"""Run each script on a disk that is full at one place after another, then in a folder that becomes read-only now and then, and
hold what it leaves against a run left alone.

    mkdir /tmp/small; mount -t tmpfs -o size=100m tmpfs /tmp/small      # as root; any small file system will do
    python -m tests.full_disk /tmp/small [SCRIPT …]      # of the four, by their names; without a name, all

Each start has a little more room than the one before. One that runs out of it, or may no longer write, must end in one line,
and the last leaves nothing half-written. Read-only is `chattr +i`, for root cannot be kept out otherwise; a tmpfs as of Linux
6.6 has it.
"""

import contextlib
import importlib
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common.files import HALF_WRITTEN
from tests.starting import ROOT, start
from tests.survival import SAME, STAGES, differences, flags, left_alone, prepare

PLACES = 12  # where the disk is full, about: what a start needs is given in so many steps
REFUSED = re.compile(r"error: .*: (No space left on device|Disk quota exceeded).*\n")
FROZEN = re.compile(r"error: .*: Operation not permitted\n")


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
            assert count, f"{step:,} bytes were enough: nothing was tried"
            return count
        assert done.returncode == 2 and REFUSED.fullmatch(done.stderr), done.stderr
        assert not [*disk.rglob(f"*{HALF_WRITTEN}")]
        count += 1


def frozen(script, place, disk, times):
    """A run whose folder becomes read-only at random moments, and at last does not. Returns how often it ended of that.

    script, place, disk: as of `refused`
    times: how often it is tried
    """
    words, rng, count = flags(script, place, "run", ["--output", disk / "run"]), random.Random(script), 0
    command = [sys.executable, f"{script}.py", *map(str, words)]
    for _ in range(times):
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
            while process.poll() is None and not (disk / "run" / "settings.json").exists():
                time.sleep(0.1)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(rng.uniform(0, 60))
            try:
                subprocess.run(["chattr", "-R", "+i", disk / "run"], stderr=subprocess.DEVNULL)  # of files that come and go
                said = process.stderr.read().decode()
            finally:
                subprocess.run(["chattr", "-R", "-i", disk / "run"], check=True)
        assert process.returncode in (0, 2) and (not process.returncode or FROZEN.fullmatch(said)), said
        count += process.returncode == 2
    assert count, f"of {times} starts none was refused a write: nothing was tried"
    done = start(importlib.import_module(script), *words)
    assert done.returncode == 0, done.stderr
    return count


if __name__ == "__main__":
    small = Path(sys.argv[1])
    for name in sys.argv[2:] or STAGES:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            prepare(folder)
            left_alone(name, folder)
            whole = sum(path.stat().st_size for path in (folder / "alone").glob("**/*") if path.is_file())
            times = refused(name, folder, small, whole // PLACES)
            outcome = ", ".join(differences(folder / "alone", small / "run")) or SAME
            shutil.rmtree(small / "run")
            (small / "ballast").unlink()
            often = frozen(name, folder, small, PLACES)
            after = ", ".join(differences(folder / "alone", small / "run")) or SAME
            shutil.rmtree(small / "run")
            print(f"{name:<40}  a full disk {times} times: {outcome}; read-only {often} times: {after}", flush=True)
