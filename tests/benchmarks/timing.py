"""Medians of alternating rounds, so that a busy moment of the machine falls on both sides."""

import time
from pathlib import Path
from statistics import median


def medians(plain, ours, rounds=5):
    """Median seconds of `plain()` and of `ours()`; one round of each before the clock counts."""
    seconds = ([], [])
    for turn in range(rounds + 1):
        for run, taken in zip((plain, ours), seconds, strict=True):
            start = time.perf_counter()
            run()
            if turn:
                taken.append(time.perf_counter() - start)
    return median(seconds[0]), median(seconds[1])


def peak_memory(process="self"):
    """The most memory that a process has held until now, in MB. Not `ru_maxrss`, which starts at its parent's."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6
