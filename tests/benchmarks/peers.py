"""python -m tests.benchmarks.peers RUN --python PYTHON [--seeds 0 1 2]: other libraries distil the student of RUN, too.

RUN is the folder of a finished run of knowledge_distillation_bert.py. All take its teacher, training texts and settings, and
start from the teacher's first layers; the loss is cross-entropy with the labels beside T² · KL with the teacher. PYTHON has
what this repository does not require:

    python -m venv peers
    peers/bin/pip install torch transformers accelerate textbrewer keras keras-hub
    python -m tests.benchmarks.peers runs/knowledge_distillation_bert-demo --python peers/bin/python

In float32, each in a process of its own, one after another. texts a second: of training. This repository's counts the teacher's
pass, made once, and the validation part after every epoch, by which it chooses one; the others take their last. peak MB: of the
process, this repository's with its report.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from common import InputError, errors_in_one_line
from common.batches import TokenizedTexts
from common.evaluation import compare, unpack_bits
from common.files import fingerprint, write_json
from data import teachers, texts
from data.parts import split
from report.tables import aligned, difference_cells, mean_and_deviation
from tests.benchmarks.peer_loops import PACKAGES
from tests.starting import ROOT

LOOPS = ROOT / "tests" / "benchmarks" / "peer_loops.py"
HERE = "this repository"
DRAWN = "train_examples", "unlabelled_examples", "validation_examples", "test_examples"  # as `parts.split` takes them
GIVEN = (  # further settings that are those of RUN
    "data", "maxlen", "student_layers", "temperature", "hard_weight", "soft_weight", "batch_size", "student_epochs",
    "student_learning_rate", "student_dropout",
)


def ours(teacher, settings, seed, folder):
    """Distil with this repository. Returns (the row `distilled`, the classes that the teacher gives the test texts).

    teacher: Path of its folder
    settings: {name: value} of RUN
    seed: of the parts, the order and dropout
    folder: Path, where the run is left

    The row is {"seconds", "texts" that were read, "peak_mb", "correct": (texts,) bool of the test part}.
    """
    flags = [f"--{name.replace('_', '-')}={settings[name]}" for name in (*DRAWN, *GIVEN)]
    peak = started([
        sys.executable, "knowledge_distillation_bert.py", *flags, "--teacher", teacher, "--student-init=teacher-first",
        "--experiments", "teacher", "distilled", "--patience=0", "--no-linear", "--seeds", seed, "--output", folder,
    ])[1]
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    record = next(record for record in results["models"] if record["name"] == "distilled")
    row = {
        "seconds": record["train_seconds"], "texts": results["data"]["train"] * settings["student_epochs"], "peak_mb": peak,
        "correct": unpack_bits(record["correct"], results["data"]["test"]),
    }
    return row, np.load(folder / f"seed-{seed}" / "teacher" / "test_logits.npy").argmax(-1)


def started(words):
    """(what a command printed to stdout, the peak memory of its process in MB)."""
    words = [*map(str, words)]
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("TF_", "KERAS"))}  # ours are its own
    with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:
        process = subprocess.Popen(words, stdout=stdout, stderr=stderr, cwd=ROOT, env=variables)
        peak = 0
        while process.poll() is None:  # rusage would begin with the peak of this process
            held = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text("utf-8"))
            peak = int(held[1]) / 1e3 if held else peak  # nothing is held by one that has ended
            time.sleep(0.1)
        for file in (stdout, stderr):
            file.seek(0)
        if process.returncode:
            raise InputError(f"{' '.join(words[:3])}: {(stderr.read().strip().splitlines() or ['ended'])[-1]}")
        return stdout.read(), peak


def write_task(folder, teacher, settings, seed, answers):
    """Write what `peer_loops` reads. Returns the labels of the test texts.

    folder: Path
    teacher, settings, seed: as of `ours`
    answers: the classes that the teacher gives the test texts
    """
    corpus = texts.load(settings["data"])
    parts = split(corpus, seed, **{name.removesuffix("_examples"): settings[name] for name in DRAWN})
    bert = teachers.load(str(teacher), corpus, maxlen=settings["maxlen"])
    arrays = {}
    for part, indices in (("train", parts.train), ("test", parts.test)):
        examples = TokenizedTexts.of([corpus.texts[index] for index in indices], bert, settings["maxlen"])
        arrays |= {f"{part}_ids": examples.ids, f"{part}_offsets": examples.offsets, f"{part}_labels": corpus.labels[indices]}
    np.savez(folder / "texts.npz", **arrays)
    write_json(folder / "task.json", {
        "teacher": str(teacher), "teacher_answers": answers.tolist(), "classes": len(corpus.classes),
        "maxlen": settings["maxlen"], "layers": settings["student_layers"], "epochs": settings["student_epochs"],
        "batch_size": settings["batch_size"], "learning_rate": settings["student_learning_rate"],
        "dropout": settings["student_dropout"],
        **{name: settings[name] for name in ("temperature", "hard_weight", "soft_weight")},
    })
    return arrays["test_labels"]


def rows_of(run, python, seeds):
    """{way: [row of each seed]}, this repository's first; see `ours`. run: Path of RUN"""
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    settings, teacher, rows = results["settings"], run.resolve() / "teacher", {HERE: [], **{way: [] for way in PACKAGES}}
    for seed in seeds:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            row, answers = ours(teacher, settings, seed, folder / "ours")
            rows[HERE].append(row)
            labels = write_task(folder, teacher, settings, seed, answers)
            if fingerprint(labels) != results["data"]["test_fingerprint"]:
                raise InputError(f"{run}: its test texts are not those of {settings['data']} as it is now")
            for way in PACKAGES:
                printed, peak = started([python, LOOPS, way, folder, seed])
                seconds, answers = json.loads(printed.splitlines()[-1]).values()
                correct = np.equal(answers, labels)
                rows[way].append({"seconds": seconds, "texts": row["texts"], "peak_mb": peak, "correct": correct})
            for way, of_seeds in rows.items():
                accuracy, seconds = of_seeds[-1]["correct"].mean(), of_seeds[-1]["seconds"]
                print(f"  seed {seed}  {way:<16} {accuracy:.2%} in {seconds:4.0f} s", flush=True)
    return rows


def table(rows):
    """What each way reached and took, over the seeds, and this repository less it. rows: of `rows_of`"""
    here = np.stack([row["correct"] for row in rows[HERE]])
    cells = [["way", "accuracy %", "here less it", "95 % interval", "p", "texts a second", "peak MB"]]
    for way, of_seeds in rows.items():
        correct = np.stack([row["correct"] for row in of_seeds])
        difference = None if way == HERE else compare(here, correct)
        rate = np.mean([row["texts"] / row["seconds"] for row in of_seeds])
        cells.append([way, mean_and_deviation(correct.mean(axis=1), 100), *difference_cells(difference),
                      f"{rate:.0f}", f"{max(row['peak_mb'] for row in of_seeds):,.0f}"])
    return cells


def versions(python):
    """What PYTHON has, in a line; InputError for what it lacks."""
    names = sorted({package for needed in PACKAGES.values() for package in needed})
    code = "import importlib.metadata as m, sys; print(*(f'{n} {m.version(n)}' for n in sys.argv[1:]), sep=', ')"
    try:
        return started([python, "-c", code, *names])[0].strip()
    except (InputError, OSError):
        raise InputError(f"--python {python}: it needs {', '.join(names)}") from None


def main(words=None):
    """Distil by all ways and print the table. words: the command line, unless it is that of this process"""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.peers", description=__doc__.split("\n\n")[0])
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("--python", required=True, help="that has the other libraries")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    given = parser.parse_args(words)
    if not (given.run / "teacher" / "config.json").is_file() or not (given.run / "results.json").is_file():
        raise InputError(f"{given.run}: no finished run of knowledge_distillation_bert.py")
    print(versions(given.python))
    print(f"\n{aligned(table(rows_of(given.run, given.python, given.seeds)))}")


if __name__ == "__main__":
    with errors_in_one_line("stopped"):
        main()
