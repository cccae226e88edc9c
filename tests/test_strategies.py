"""`--strategy`: two devices of one process, and two processes, learn what one learns; only the chief writes."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import knowledge_distillation_bert as bert
import knowledge_distillation_bert_of_theseus as theseus
import knowledge_distillation_fastbert as fastbert
import knowledge_distillation_from_scratch as scratch
from common.backend import tf
from tests import tiny
from tests.starting import ROOT, start

pytestmark = pytest.mark.slow

# On two devices of this process ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def on_texts(data_folder):
    """Flags of a tiny run whose batches do not all divide evenly."""
    return {
        "data": str(data_folder), "maxlen": 16, "train_examples": 90, "validation_examples": 16,
        "batch_size": 16, "student_layers": 1, "linear": False,
    }


def histories(folder):
    """{stage: history} of the seed 0 of a run."""
    return {path.parent.name: json.loads(path.read_text("utf-8"))["history"] for path in folder.glob("seed-0/*/record.json")}


def weights(folder):
    """{stage: its weights} of the seed 0 of a run."""
    return {path.parent.name: [*np.load(path).values()] for path in folder.glob("seed-0/*/weights.npz")}


CASES = {
    "from_scratch": (scratch, {
        "train_examples": 201, "validation_examples": 40, "teacher_epochs": 2, "student_epochs": 2, "teacher_dropout": 0.0,
        "experiments": ("distilled",), "train_examples_sweep": (), "seeds": (0,), "batch_size": 32,
    }),
    "bert": (bert, {
        "experiments": ("distilled-unlabelled",), "unlabelled_examples": 17, "teacher_epochs": 1, "unlabelled_steps": 10,
        "teacher_dropout": 0.0,
    }),
    "theseus": (theseus, {
        "experiments": ("theseus-random-linear",), "middle_layers": 1, "predecessor_epochs": 1, "mixed_epochs": 1,
        "successor_epochs": 0, "predecessor_dropout": 0.0, "clip_norm": 0.5, "weight_decay": 0.01, "mix_embeddings": True,
    }),
    "fastbert": (fastbert, {
        "experiments": ("fastbert",), "student_layers": (), "unlabelled_examples": 16, "teacher_epochs": 1, "branch_epochs": 1,
        "hard_weight": 1.0, "teacher_dropout": 0.0, "teacher_head": "dense",
    }),
}


@pytest.mark.parametrize("case", CASES)
def test_two_devices_learn_what_one_learns(tmp_path, devices, on_texts, case, capsys, monkeypatch):
    """Batch, rate, clipping, weights of the losses, draws of replacing: all of the whole batch, not of a device's share."""
    script, flags = CASES[case]
    if script is not scratch:
        config = tiny.CONFIG | {"num_hidden_layers": 2 if script is fastbert else 1}
        flags = on_texts | {"bert": str(tiny.write_bert(tmp_path / "bert", config=config))} | flags
    name = "report_texts" if hasattr(script, "report_texts") else "report"
    report = script.report if script is scratch else lambda *words, **more: print("The student to take away")

    def on_one_device(*words, **more):
        assert not tf.distribute.has_strategy()  # which the report builds models without: other processes have ended by then
        report(*words, **more)

    settings = replace(script.PRESETS["demo"], **flags)
    monkeypatch.setattr(bert, "CHECKS", 2)  # epochs of what is counted in steps
    monkeypatch.setattr(script, name, on_one_device)
    for strategy in ("none", "mirrored"):
        devices(strategy, settings.batch_size)
        script.main("demo", replace(settings, strategy=strategy, output=str(tmp_path / strategy)))
    one, two = histories(tmp_path / "none"), histories(tmp_path / "mirrored")
    assert one.keys() == two.keys() and len(one) > 1
    for stage, epochs in one.items():
        for epoch, other in zip(epochs, two[stage], strict=True):
            assert epoch["loss"] == pytest.approx(other["loss"], rel=3e-3)  # in its mean an odd batch counts for one more
            assert epoch["val_accuracy"] == pytest.approx(other["val_accuracy"], abs=1 / 16 + 1e-9)
    for stage, arrays in weights(tmp_path / "none").items():
        for array, other in zip(arrays, weights(tmp_path / "mirrored")[stage], strict=True):
            np.testing.assert_allclose(array, other, atol=2e-3)
    assert capsys.readouterr().out.count("The student to take away") == 2


# Two processes ---------------------------------------------------------------------------------------------------------

# What a process does that must not write: whatever it changes below the run's folder ends it.
READ_ONLY = """
import os, runpy, sys
folder = sys.argv.pop(1)
def watch(event, words):
    writing = event == "open" and isinstance(words[1], str) and set(words[1]) & set("wxa+")
    changing = event in ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.truncate", "shutil.rmtree")
    if (writing or changing) and str(words[0]).startswith(folder):
        os.write(2, f"written by a worker: {event} {words[0]}".encode())
        os._exit(9)
sys.addaudithook(watch)
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def start_workers(tmp_path, flags):
    """Start the script on images as two processes that train together, each with its flags; both when done, chief first."""
    with socket.socket() as one, socket.socket() as two:
        for taken in (one, two):
            taken.bind(("localhost", 0))
        workers = [f"localhost:{taken.getsockname()[1]}" for taken in (one, two)]
    processes = []
    for index, own in enumerate(flags):
        task = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
        begin = ["-c", READ_ONLY, tmp_path / "run"] if index else []
        words = [sys.executable, *begin, ROOT / "knowledge_distillation_from_scratch.py", "--strategy", "multiworker", *own]
        processes.append(subprocess.Popen(
            list(map(str, words)), cwd=ROOT, env=os.environ | {"TF_CONFIG": json.dumps(task)}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ))
    return [(process.communicate(timeout=200), process.returncode) for process in processes]


def test_two_processes_learn_what_one_learns_and_only_the_chief_writes(tmp_path):
    flags = [
        "--train-examples", 200, "--validation-examples", 40, "--teacher-epochs", 2, "--student-epochs", 2, "--seeds", 0,
        "--teacher-dropout", 0, "--experiments", "distilled", "--batch-size", 40, "--patience", 1, "--output", tmp_path / "run",
        "--train-examples-sweep",
    ]
    chief, worker = start_workers(tmp_path, (flags, flags))
    for (_, said), status in (chief, worker):
        assert status == 0, said
    assert "The student to take away" in chief[0][0] and worker[0][0] == ""
    alone = start(scratch, *flags, "--output", tmp_path / "alone")
    assert alone.returncode == 0, alone.stderr
    one, two = histories(tmp_path / "alone"), histories(tmp_path / "run")
    assert one.keys() == two.keys() == {"teacher", "distilled"}
    for stage, epochs in one.items():
        assert [epoch["loss"] for epoch in epochs] == pytest.approx([epoch["loss"] for epoch in two[stage]], rel=1e-4)
    kept = json.loads(Path(tmp_path, "run", "settings.json").read_text("utf-8"))["settings"]
    assert "strategy" not in kept  # so the run may be resumed on whatever there is

    events = [*Path(tmp_path, "run", "tensorboard").rglob("events*")]  # by TensorFlow's C++, unseen by the hook above
    assert events and len({path.name.split(".")[-3] for path in events}) == 1  # of one process

    # Who starts with other settings, even such as may be added later, is told, and the others end too, each in a line.
    ended = "error: another process of --strategy multiworker has ended"
    chief, worker = start_workers(tmp_path, (flags, [*flags, "--seeds", 0, 1]))
    assert worker[1] == 2 and "holds a run with another seeds" in worker[0][1]
    assert chief[1] == 2 and chief[0][1].splitlines()[-1].startswith(ended)
    chief, worker = start_workers(tmp_path, ([*flags, "--student-units", 8], flags))
    assert chief[1] == 2 and "holds a run with another student units" in chief[0][1]
    assert worker[1] == 2 and worker[0][1].splitlines()[-1].startswith(ended)


def test_a_port_that_is_taken_is_named():
    with socket.socket() as taken:
        taken.bind(("localhost", 0))
        taken.listen()
        here = f"localhost:{taken.getsockname()[1]}"
        task = {"cluster": {"worker": [here, "localhost:1"]}, "task": {"type": "worker", "index": 0}}
        done = subprocess.run(
            [sys.executable, str(ROOT / "knowledge_distillation_from_scratch.py"), "--strategy", "multiworker"], cwd=ROOT,
            env=os.environ | {"TF_CONFIG": json.dumps(task)}, capture_output=True, text=True, timeout=100)
    assert done.returncode == 2 and done.stdout == ""
    assert f"--strategy multiworker: {here} cannot be opened here" in done.stderr.splitlines()[-1]
