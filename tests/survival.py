"""Kill a script again and again, start it again with the same command, and hold what it leaves against a run left alone.

    python -m tests.survival [KILLS]      # every script, on tiny models; 20 kills each unless told otherwise
"""

import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tests import tiny
from tests.starting import ROOT

TIMINGS = {"latency_ms", "train_seconds", "wall_speedup", "timed", "environment", "output"}
STAGES = {
    "knowledge_distillation_bert": [
        "--student-layers", 2, "--teacher-epochs", 3, "--student-epochs", 3, "--unlabelled-epochs", 2, "--train-examples", 96,
        "--unlabelled-examples", 16, "--validation-examples", 16, "--student-dropout", 0.1,
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


def command(script, folder, output):
    """How a user would start the script on what `folder` holds."""
    words = [sys.executable, ROOT / f"{script}.py", "--output", folder / output, *STAGES[script]]
    if script != "knowledge_distillation_from_scratch":
        words += ["--data", folder / "data", "--bert", folder / "bert", "--maxlen", 16]
    return list(map(str, words))


def prepare(folder):
    """The texts and the tiny BERT that `command` names."""
    tiny.write_bert(folder / "bert")
    tiny.write_data(folder / "data")


def left_alone(script, folder):
    """A run that nobody disturbs."""
    subprocess.run(command(script, folder, "alone"), check=True, capture_output=True, cwd=ROOT)


def killed(script, folder, kills, seed=0):
    """A run that is killed `kills` times, each time after a few more files have changed and a moment more, and then finished.

    Returns how many times it was killed, which is less if it was finished before.
    """
    rng = random.Random(seed)
    for count in range(kills):
        words = command(script, folder, "killed")
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=ROOT)
        wanted, seen = rng.randint(1, 2), changes(folder / "killed")
        while process.poll() is None and len(changes(folder / "killed") - seen) < wanted:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.5))
        if process.poll() is not None:
            assert process.returncode == 0, process.stderr.read().decode()
            return count
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(command(script, folder, "killed"), check=True, capture_output=True, cwd=ROOT)
    return kills


def changes(folder):
    """What has been written in the folders of the seeds, file by file."""
    found = set()
    for path in folder.glob("seed-*/**/*"):
        try:
            found.add((path, path.stat().st_mtime_ns))
        except FileNotFoundError:
            continue
    return found


def differences(folder):
    """What the killed run left otherwise than the one left alone: names of files; results.json but for timings."""
    found = []
    for path in sorted((folder / "alone").glob("seed-*/**/*.np[yz]")):
        other = folder / "killed" / path.relative_to(folder / "alone")
        if not other.is_file() or not same_arrays(path, other):
            found.append(str(path.relative_to(folder / "alone")))
    results = [json.loads((folder / run / "results.json").read_text()) for run in ("alone", "killed")]
    if without_timings(results[0]) != without_timings(results[1]):
        found.append("results.json")
    found += [str(path.relative_to(folder)) for path in (folder / "killed").rglob("unfinished.npz")]
    found += [str(path.relative_to(folder)) for path in (folder / "killed" / "seed-0").rglob(".*")]
    return found


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
            count, found = 0, []
            while count < wanted and not found:  # a run that is finished before is begun anew, to be killed at other moments
                shutil.rmtree(place / "killed", ignore_errors=True)
                count += killed(name, place, wanted - count, seed=count)
                found = differences(place)
            told = ", ".join(found) or "the same in every weight and figure"
            print(f"{name:<40}  killed {count} times: {told}", flush=True)
