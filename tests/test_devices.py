"""`--strategy`: a batch cut into pieces teaches what the whole one teaches; only the chief writes; refusals; `--precision`."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import knowledge_distillation_bert as bert
import knowledge_distillation_bert_of_theseus as theseus
import knowledge_distillation_fastbert as fastbert
import knowledge_distillation_from_scratch as scratch
from common import InputError, backend, data, files
from common.backend import tf
from tests.starting import ROOT, run_script


def fake_texts(count):
    """Texts of 1 to 5 tokens."""
    lengths = np.arange(count) % 5 + 1
    return data.Encoded(np.ones(lengths.sum(), np.int32), np.append(0, np.cumsum(lengths)))


@given(st.integers(1, 40), st.integers(1, 12), st.integers(2, 5), st.integers(0, 3), st.booleans())
def test_the_pieces_of_a_batch_have_its_mean_loss(count, size, of, first, weighted):
    if size < of:
        return
    rng, texts = np.random.default_rng(0), fake_texts(count)
    losses, weights = rng.random(count, np.float32), rng.random(count, np.float32)
    targets = (losses, weights) if weighted else (losses,)
    shared = data.batches(texts, np.arange(count), targets, size, seed=3, first=first, pieces=range(of), of=of)
    whole = data.batches(texts, np.arange(count), (losses, weights if weighted else np.ones_like(losses)), size, 3, first)
    shared, whole = shared.as_numpy_iterator(), whole.as_numpy_iterator()
    for _ in range(4):
        _, values, given_weights = next(whole)
        pieces = [next(shared) for _ in range(of)]
        assert len({len(values) for _, values, _ in pieces}) == 1
        found = np.mean([(values * piece_weights).mean() for _, values, piece_weights in pieces])
        np.testing.assert_allclose(found, (values * given_weights).mean(), rtol=1e-5)


def test_each_process_gets_its_own_pieces():
    texts, numbers = fake_texts(8), np.arange(8.0, dtype=np.float32)
    dealt = [data.batches(texts, np.arange(8), (numbers,), 4, seed=0, pieces=pieces, of=4) for pieces in ((0, 1), (2, 3))]
    whole = data.batches(texts, np.arange(8), (numbers,), 4, seed=0)
    dealt, whole = [iter(dataset) for dataset in dealt], iter(whole)
    for _ in range(2):
        found = [float(value) for dataset in dealt for _ in range(2) for value in next(dataset)[1]]
        assert found == next(whole)[1].numpy().tolist()


# On two devices of this process ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def on_texts(bert_folder, data_folder):
    """Flags of a tiny run whose batches do not all divide evenly."""
    return {
        "data": str(data_folder), "bert": str(bert_folder), "maxlen": 16, "train_examples": 90, "validation_examples": 16,
        "batch_size": 16, "student_layers": 2,
    }


def histories(folder):
    """{stage: history} of the seed 0 of a run."""
    return {path.parent.name: json.loads(path.read_text())["history"] for path in folder.glob("seed-0/*/record.json")}


def weights(folder):
    """{stage: its weights} of the seed 0 of a run."""
    return {path.parent.name: [*np.load(path).values()] for path in folder.glob("seed-0/*/weights.npz")}


CASES = {
    "from_scratch": (scratch, {
        "train_examples": 201, "validation_examples": 40, "teacher_epochs": 2, "student_epochs": 2, "teacher_dropout": 0.0,
        "experiments": ("distilled",), "train_examples_sweep": (), "seeds": (0,), "batch_size": 32,
    }),
    "bert": (bert, {
        "experiments": ("distilled-unlabelled",), "unlabelled_examples": 17, "teacher_epochs": 1, "unlabelled_epochs": 1,
        "teacher_dropout": 0.0,
    }),
    "theseus": (theseus, {
        "experiments": ("theseus-random-linear",), "middle_layers": 2, "predecessor_epochs": 1, "mixed_epochs": 1,
        "successor_epochs": 0, "predecessor_dropout": 0.0, "clip_norm": 0.5, "weight_decay": 0.01, "mix_embeddings": True,
    }),
    "fastbert": (fastbert, {
        "experiments": ("fastbert",), "student_layers": (), "unlabelled_examples": 16, "teacher_epochs": 1, "branch_epochs": 1,
        "hard_weight": 1.0, "teacher_dropout": 0.0, "teacher_layers": 3, "timed_examples": 2, "speeds": (0.0, 0.5),
    }),
}


@pytest.mark.parametrize("case", CASES)
def test_two_devices_learn_what_one_learns(tmp_path, devices, on_texts, case, capsys, monkeypatch):
    """Batch, rate, clipping, weights of the losses, draws of replacing: all of the whole batch, not of a device's share."""
    script, flags = CASES[case]
    if script is not scratch:
        flags = on_texts | flags
    if script in (bert, theseus):  # the others go all the way
        monkeypatch.setattr(script, "report_run", lambda *words: print("The student to take away"))
    if script is fastbert:  # whose report builds models
        trained = fastbert.trained

        def on_one_device(*words):
            assert not tf.distribute.has_strategy()  # other processes have ended by then
            return trained(*words)

        monkeypatch.setattr(fastbert, "trained", on_one_device)
    settings = replace(script.PRESETS["demo"], **flags)
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


def test_dropout_differs_on_each_device_and_what_is_drawn_for_the_batch_does_not(devices):
    devices("mirrored", 2)
    strategy, step = backend._devices["strategy"], tf.Variable(0, dtype=tf.int64)
    layer = backend.keras.layers.Dropout(0.5)

    @tf.function
    def drawn():
        return strategy.run(lambda: (layer(tf.ones((2000,)), training=True), backend.draw()))

    with backend.drawn_by_step(0, step):
        masks, draws = drawn()
    one, two = (mask.numpy() for mask in masks.values)
    assert 0.4 < (one == two).mean() < 0.6
    assert len({float(value) for value in draws.values}) == 1


# Refusals --------------------------------------------------------------------------------------------------------------


def test_mirrored_needs_two_devices(devices, monkeypatch):
    only = tf.config.LogicalDevice("/device:CPU:0", "CPU")
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: [only] * (kind == "CPU"))
    with pytest.raises(InputError, match=r"there is one device here, /device:CPU:0; leave --strategy out"):
        devices("mirrored", 32)


def test_a_batch_must_have_an_example_for_each_device(devices):
    with pytest.raises(InputError, match="--batch-size 1: fewer examples a step than the 2 devices"):
        devices("mirrored", 1)


@pytest.mark.parametrize("config", [
    None, "", "{", "[]", '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 0}}',
    '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 2}}', '{"cluster": {}, "task": {}}',
    '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "ps", "index": 0}}',
    '{"cluster": {"worker": "a:1,b:1"}, "task": {"type": "worker", "index": 0}}',
    '{"cluster": {"worker": ["a", "b:1"]}, "task": {"type": "worker", "index": 0}}',
    '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": "0"}}',
    '{"cluster": {"chief": ["c:1"], "worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}',
])
def test_multiworker_needs_to_know_who_takes_part(devices, monkeypatch, config):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if config is not None:
        monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(InputError, match="the variable TF_CONFIG must say who takes part"):
        devices("multiworker", 32)


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


def test_a_file_that_another_machine_wrote_is_waited_for_but_not_for_ever(tmp_path):
    with pytest.raises(InputError, match="must be a folder that all share"):
        files.wait_for(tmp_path / "record.json", seconds=0.01)
    (tmp_path / "record.json").touch()
    files.wait_for(tmp_path / "record.json", seconds=0)


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
        "--teacher-dropout", 0, "--experiments", "distilled", "--batch-size", 40, "--output", tmp_path / "run",
        "--train-examples-sweep",
    ]
    chief, worker = start_workers(tmp_path, (flags, flags))
    for (_, said), status in (chief, worker):
        assert status == 0, said
    assert "The student to take away" in chief[0][0] and worker[0][0] == ""
    alone = run_script("knowledge_distillation_from_scratch", *flags, "--output", tmp_path / "alone")
    assert alone.returncode == 0, alone.stderr
    one, two = histories(tmp_path / "alone"), histories(tmp_path / "run")
    assert one.keys() == two.keys() == {"teacher", "distilled"}
    for stage, epochs in one.items():
        assert [epoch["loss"] for epoch in epochs] == pytest.approx([epoch["loss"] for epoch in two[stage]], rel=1e-4)
    kept = json.loads(Path(tmp_path, "run", "settings.json").read_text())["settings"]
    assert "strategy" not in kept  # so the run may go on, on whatever there is

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


# --precision -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("flags", "told"), [("avx2 avx512_bf16", False), ("avx2", True)])
def test_a_processor_that_does_not_reckon_in_a_precision_is_named(monkeypatch, tmp_path, flags, told):
    (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags : fpu {flags}\n")
    opened = open
    monkeypatch.setattr("builtins.open", lambda path, *more, **named: opened(
        tmp_path / "cpuinfo" if path == "/proc/cpuinfo" else path, *more, **named))
    monkeypatch.setattr(backend.platform, "system", lambda: "Linux")
    assert backend.precision_remarks("float32") == []
    assert bool(backend.precision_remarks("mixed_bfloat16")) == told
    assert "does not reckon in float16, so it is slower" in backend.precision_remarks("mixed_float16")[0]


@pytest.mark.parametrize(("capability", "told"), [((7, 5), True), ((8, 0), False)])
def test_a_gpu_that_does_not_is_named(monkeypatch, capability, told):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["gpu"] * (kind == "GPU"))
    details = {"compute_capability": capability, "device_name": "Some GPU"}
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: details)
    remarks = ["--precision mixed_bfloat16: Some GPU does not reckon in bfloat16, so this gains nothing"]
    assert backend.precision_remarks("mixed_bfloat16") == (remarks if told else [])
    assert backend.precision_remarks("mixed_float16") == []
