"""Kill a script again and again, or have it crash, start it again with the same command, and hold what it leaves against a run
left alone.

    python -m tests.survival [KILLS]      # every script, on tiny models; 20 kills each unless told otherwise

Then every file that a stage has left is damaged, and the run mended by the same command, as it says.
"""

import importlib
import json
import pickle
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from itertools import cycle
from pathlib import Path

import numpy as np

from common.files import HALF_WRITTEN
from tests import tiny
from tests.starting import ROOT, start

TIMINGS = {
    "latency_ms", "int8_latency_ms", "train_seconds", "wall_speedup", "int8_wall_speedup", "timed", "int8_timed", "environment",
    "output",
}
SAME = "the same in every weight and figure"
SIGNALS = signal.SIGABRT, signal.SIGSEGV, signal.SIGKILL  # in turn: the first two end a process whose memory is damaged
CACHES = "cost*.json", "times-*.json", "soft_labels.npz", "calibration-*.npz"
STORED = "record.json", "weights.npz", "*_logits.npy"
DAMAGES = (  # of what a file holds; None: a folder in its place
    lambda content: content[: len(content) // 2], lambda content: b"", lambda content: b"\x00 junk", pickle.dumps,
    lambda content: content[:-1], None,
)
STAGES = {
    "knowledge_distillation_bert": [
        "--student-layers", 2, "--teacher-epochs", 3, "--student-epochs", 3, "--unlabelled-steps", 9, "--train-examples", 96,
        "--unlabelled-examples", 16, "--validation-examples", 16, "--student-dropout", 0.1,
        "--experiments", "distilled", "distilled-unlabelled", "distilled-layers", "distilled-augmented", "bilstm-distilled",
        "linear-distilled",
    ],
    "knowledge_distillation_bert_of_theseus": [
        "--student-layers", 2, "--middle-layers", 3, "--predecessor-epochs", 2, "--mixed-epochs", 3, "--direct-epochs", 2,
        "--successor-epochs", 2, "--train-examples", 96, "--validation-examples", 16, "--experiments", "predecessor", "theseus",
        "theseus-random-linear", "--successor-dropout", 0.1,
    ],
    "knowledge_distillation_fastbert": [
        "--teacher-epochs", 3, "--student-epochs", 2, "--branch-epochs", 3, "--train-examples", 96, "--unlabelled-examples", 16,
        "--validation-examples", 16, "--timed-examples", 8, "--speeds", 0, 0.5, 1,
        "--experiments", "fastbert", "fastbert-joint",
    ],
    "knowledge_distillation_from_scratch": [
        "--train-examples", 200, "--validation-examples", 40, "--teacher-epochs", 4, "--student-epochs", 4,
        "--train-examples-sweep", 50, "--seeds", 0, 1,
    ],
}


def flags(script, folder, output, more=()):
    """Those with which the script is started on what `folder` holds. more: further ones, which override the others."""
    words = ["--output", folder / output, *STAGES[script]]
    if script != "knowledge_distillation_from_scratch":
        words += ["--data", folder / "data", "--bert", folder / "bert", "--maxlen", 16]
    return list(map(str, [*words, *more]))


def prepare(folder, config=tiny.CONFIG):
    """The texts and the tiny BERT that `flags` names."""
    tiny.write_bert(folder / "bert", config=config)
    tiny.write_data(folder / "data")


def left_alone(script, folder, more=(), output="alone"):
    """A run, or the rest of one, that nobody disturbs. Returns what it printed."""
    done = start(importlib.import_module(script), *flags(script, folder, output, more))
    assert done.returncode == 0, done.stderr
    return done.stdout


def killed(script, folder, kills, seed=0, more=()):
    """A run that is killed `kills` times, each time after a few more files have changed and a moment more, and then finished.

    The last start must say that the one before it was killed. Returns how often that was: less if it was finished before.
    """
    rng = random.Random(seed)
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))  # no core files
    for count in range(kills):
        words = [sys.executable, str(ROOT / f"{script}.py"), *flags(script, folder, "killed", more)]
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=ROOT)
        wanted, seen = rng.randint(1, 2), changes(folder / "killed")
        while process.poll() is None and len(changes(folder / "killed") - seen) < wanted:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.5))
        if process.poll() is not None:
            assert process.returncode == 0, process.stderr.read().decode()
            return count
        process.send_signal(SIGNALS[count % len(SIGNALS)])
        said = process.communicate()[1].decode()
        assert process.returncode == -SIGNALS[count % len(SIGNALS)]
        assert "this start was killed or crashed; the same command resumes from its last backup\n" in said, said
    said = left_alone(script, folder, more, output="killed")
    assert f"{folder}/killed: the last start, process {process.pid} on " in said, said
    return kills


def mended(script, folder, output, more=()):
    """A run whose files are damaged, each in another way, and then mended as each start says. Returns the lines that said it.

    At first what can be computed anew, which must not be told.
    """
    run, lines = folder / output, []
    for names in (CACHES, STORED):
        for path, damage in zip(sorted(path for name in names for path in run.glob(f"**/{name}")), cycle(DAMAGES)):
            content = path.read_bytes()
            path.unlink()
            path.mkdir() if damage is None and names is STORED else path.write_bytes(damage(content) if damage else b"")
        while (done := start(importlib.import_module(script), *flags(script, folder, output, more))).returncode:
            assert done.returncode == 2 and names is STORED and done.stderr.count("\n") == 1, done.stderr
            lines.append(done.stderr)
            told = re.search("delete the folder (.+),|error: (.+) cannot be written: Is a directory", done.stderr)
            shutil.rmtree(told[1] or told[2])
    return lines


def changes(folder):
    """What has been written in the folders of the seeds, file by file."""
    seen = set()
    for path in folder.glob("seed-*/**/*"):
        try:
            seen.add((path, path.stat().st_mtime_ns))
        except FileNotFoundError:
            continue
    return seen


def differences(expected, actual):
    """What one run left otherwise than another: names of files; results.json but for timings; and what is half-written.

    expected: Path, the folder of the run to hold it against
    actual: Path, the folder of the run
    """
    different = []
    for path in sorted(expected.glob("seed-*/**/*.np[yz]")):
        other = actual / path.relative_to(expected)
        if not other.is_file() or not same_arrays(path, other):
            different.append(str(path.relative_to(expected)))
    results = [json.loads((folder / "results.json").read_text("utf-8")) for folder in (expected, actual)]
    if without_timings(results[0]) != without_timings(results[1]):
        different.append("results.json")
    left = [path for name in ("unfinished.npz", f"*{HALF_WRITTEN}") for path in actual.rglob(name)]
    return different + [str(path.relative_to(actual)) for path in left]


def same_arrays(path, other):
    if path.suffix == ".npy":
        return np.array_equal(np.load(path), np.load(other))
    with np.load(path) as one, np.load(other) as two:
        return one.files == two.files and all(np.array_equal(one[name], two[name]) for name in one.files)


def without_timings(value):
    if isinstance(value, dict):
        return {key: without_timings(inner) for key, inner in value.items() if key not in TIMINGS}
    return [without_timings(inner) for inner in value] if isinstance(value, list) else value


if __name__ == "__main__":
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    for name in STAGES:
        with tempfile.TemporaryDirectory() as temporary:
            place = Path(temporary)
            prepare(place)
            left_alone(name, place)
            count, different = 0, []
            while count < wanted and not different:  # one that is finished before is begun anew
                shutil.rmtree(place / "killed", ignore_errors=True)
                count += killed(name, place, wanted - count, seed=count)
                different = differences(place / "alone", place / "killed")
            shutil.copytree(place / "alone", place / "damaged")
            stages = len(mended(name, place, "damaged"))
            outcome = ", ".join(different + differences(place / "alone", place / "damaged")) or SAME
            print(f"{name:<40}  killed {count} times, {stages} stages damaged: {outcome}", flush=True)
