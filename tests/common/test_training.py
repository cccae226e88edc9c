"""common.training: what a finished stage has left is read whole, or refused in a line that says what to delete."""

import json

import numpy as np
import pytest

from common import InputError
from common.backend import keras
from common.training import UNFINISHED, Run, load_stage, save_weights
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
