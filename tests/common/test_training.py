"""common.training: what a finished stage has left is read whole, or refused in a line that says what to delete."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from common import InputError, training
from common.backend import keras, tf
from common.training import UNFINISHED, Run, adam, load_stage, save_weights
from report.document import correct_answers
from tests.common.test_files import JUNK


@pytest.fixture
def run(tmp_path):
    return Run(None, 3, None, None, None, tmp_path)


@pytest.fixture
def model():
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])


def refused(run, read):
    """What is said when `read` refuses a file of the stage `alone`: the one line."""
    with pytest.raises(InputError) as error:
        read()
    assert str(error.value).endswith(f"delete the folder {run.stage('alone')}, and the same command makes it again")
    return str(error.value)


@pytest.mark.parametrize(("schedule", "falls"), [("linear", 1), ("constant", 0)])
def test_the_rate_falls_to_0_over_all_steps_or_stays(schedule, falls):
    """Where the gradient is always 1, a step of Adam is the rate."""
    optimizer, variable, places = adam(0.1, 10, schedule), tf.Variable(0.0), [0.0]
    for _ in range(10):
        optimizer.apply_gradients([(tf.ones(()), variable)])
        places.append(float(variable))
    np.testing.assert_allclose(-np.diff(places), [0.1 * (1 - falls * step / 10) for step in range(10)], rtol=1e-3)


def test_fine_tuning_follows_the_schedule_of_the_settings(tmp_path, monkeypatch):
    """Over all its steps: 40 texts in batches of 16, three a round, for five epochs."""
    seen = []
    run = Run(SimpleNamespace(schedule="as set", batch_size=16), 3, SimpleNamespace(labels=np.zeros(40)), None,
              SimpleNamespace(train=np.arange(40)), tmp_path)
    monkeypatch.setattr(training, "adam", lambda *words: seen.append(words))
    monkeypatch.setattr(training, "train_stage", lambda *words, **more: None)
    training.fine_tune(run, "alone", None, 5, 1e-3, 0.1, 0.7)
    assert seen == [(1e-3, 15, "as set", 0.1, 0.7)]


def test_a_stage_that_is_not_finished_has_no_record(run):
    assert run.record("alone") is None
    run.stage("alone").mkdir(parents=True)
    assert run.record("alone") is None


def test_a_finished_stage_has_nothing_unfinished(run):
    stage = run.stage("alone")
    stage.mkdir(parents=True)
    for name in (UNFINISHED, "weights.npz"):
        (stage / name).write_bytes(b"")
    (stage / "record.json").write_text('{"name": "alone"}')
    assert run.record("alone") == {"name": "alone"}
    assert sorted(path.name for path in stage.iterdir()) == ["record.json", "weights.npz"]


@pytest.mark.parametrize("junk", [*JUNK, "half", "folder"])
def test_a_damaged_record_is_refused(run, junk):
    """Else the stage would be trained again, over what it has left, or a traceback would end all."""
    path = run.stage("alone") / "record.json"
    path.parent.mkdir(parents=True)
    whole = json.dumps({"name": "alone", "accuracy": 0.5}).encode()
    path.mkdir() if junk == "folder" else path.write_bytes(JUNK.get(junk, whole[:20]))
    assert str(path) in refused(run, lambda: run.record("alone"))


@pytest.mark.parametrize("junk", [*JUNK, "half", "folder", "gone"])
def test_damaged_weights_are_refused_and_leave_the_model_as_it_is(run, model, junk):
    path, before = run.stage("alone") / "weights.npz", model.get_weights()
    save_weights(model, path)
    assert load_stage(run, "alone", model) is model
    whole = path.read_bytes()
    path.unlink()
    if junk == "folder":
        path.mkdir()
    elif junk != "gone":
        path.write_bytes(JUNK.get(junk, whole[: len(whole) // 2]))
    assert str(path) in refused(run, lambda: load_stage(run, "alone", model))
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_damaged_logits_are_refused_where_the_report_reads_them(run):
    path = run.stage("alone") / "test_logits.npy"
    path.parent.mkdir(parents=True)
    path.write_bytes(JUNK["pickled"])
    assert str(path) in refused(run, lambda: correct_answers(run, "alone"))
