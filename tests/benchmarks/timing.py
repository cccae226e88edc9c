"""Medians of alternating rounds, so that a busy moment of the machine falls on all sides."""

import time
from pathlib import Path
from statistics import median


def medians(*runs, rounds=5):
    """Median seconds of each of the functions `runs`, called in turn; one round before the clock counts."""
    seconds = [[] for _ in runs]
    for turn in range(rounds + 1):
        for run, taken in zip(runs, seconds, strict=True):
            start = time.perf_counter()
            run()
            if turn:
                taken.append(time.perf_counter() - start)
    return [median(taken) for taken in seconds]


def peak_memory():
    """The most memory that this process has held until now, in MB. Not `ru_maxrss`, which starts at its parent's."""
    status = Path("/proc/self/status").read_text("utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6
