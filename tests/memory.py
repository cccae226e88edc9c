"""How much memory the demos take at most, each from its start to its end, and how long.

    python -m tests.memory [SCRIPT …]       # of from_scratch, bert, bert_of_theseus, fastbert; without a name, all

A start in a folder of its own, as a user makes it; what takes long is not shortened, for it may be what takes memory.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from report.tables import aligned

ROOT = Path(__file__).parent.parent  # not that of `tests.starting`, which imports TensorFlow: see `peak`
SCRIPTS = "from_scratch", "bert", "bert_of_theseus", "fastbert"


def peak(words):
    """(GB, seconds) of a command, the memory that it held at most; RuntimeError with what it said, if it fails.

    It is never less than this process itself holds, which Linux counts as the other's until that has begun; but what a process
    has held by itself, as `benchmarks.timing.peak_memory` reads it, cannot be asked of one that has ended.
    """
    with tempfile.TemporaryFile() as said:
        start = time.monotonic()
        process = subprocess.Popen(words, cwd=ROOT, stdout=said, stderr=said)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise RuntimeError(f"{' '.join(words)} ended with {process.returncode}: {said.read().decode(errors='replace')}")
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return usage.ru_maxrss * unit / 1e9, time.monotonic() - start


def main(names):
    """Start the demos one after another and print the table. names: of SCRIPTS"""
    if unknown := set(names) - set(SCRIPTS):
        raise SystemExit(f"{', '.join(sorted(unknown))}: no such script; there are {', '.join(SCRIPTS)}")
    rows = [["demo", "memory at most, GB", "minutes"]]
    for name in names or SCRIPTS:
        script = f"knowledge_distillation_{name}.py"
        with tempfile.TemporaryDirectory() as folder:
            size, seconds = peak([sys.executable, script, "--output", str(Path(folder) / "run")])
        rows.append([script, f"{size:.1f}", f"{seconds / 60:.1f}"])
    print(aligned(rows))


if __name__ == "__main__":
    main(sys.argv[1:])
