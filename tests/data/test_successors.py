"""data.successors: which stage of a run of Theseus a student goes on from, and which runs are refused."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

import knowledge_distillation_bert_of_theseus as theseus
from common import InputError
from common.files import write_json
from data.successors import STAGES, best_stage, check_successors, folder_of

SHARED = {"train_examples": 64, "validation_examples": None, "maxlen": 16, "student_layers": 1}
SETTINGS = SHARED | {"successor_init": "predecessor"}
INPUTS = {"data": "d", "bert": "b"}
OURS = SimpleNamespace(**SHARED, seeds=(0, 1))


def leave(folder, seed, name, accuracy, value=0.0):
    """A finished stage."""
    stage = folder / f"seed-{seed}" / name
    write_json(stage / "record.json", {"name": name, "validation_accuracy": accuracy})
    np.savez(stage / "weights.npz", **{"0": np.full(3, value, np.float32), "1": np.zeros((2, 2), np.float32)})


@pytest.fixture
def folder(tmp_path):
    """A run of two seeds, each with a successor, a control and a predecessor that are better than any Theseus."""
    write_json(tmp_path / "settings.json", {"settings": SETTINGS, "inputs": INPUTS})
    for seed, best in ((0, "theseus-random"), (1, "theseus-additive")):
        for name in ("predecessor", "middle", "successor", "unmixed", "theseus-mixed", "theseus-random-mixed"):
            leave(tmp_path, seed, name, 0.9)
        for name in ("theseus", "theseus-additive", "theseus-random"):
            leave(tmp_path, seed, name, 0.7 if name == best else 0.6)
    return tmp_path


def test_the_stages_are_the_rows_of_theseus():
    assert tuple(theseus.THESEUS) == STAGES
    assert SETTINGS.keys() <= vars(theseus.PRESETS["demo"]).keys()


def test_which_folder_is_named():
    assert str(folder_of("theseus:runs/a:b")) == "runs/a:b"
    assert folder_of("first") is None and folder_of("teacher-first") is None


def test_the_best_on_validation_is_taken_and_of_equal_ones_the_plainest(folder):
    assert [best_stage(folder, seed) for seed in (0, 1)] == ["theseus-random", "theseus-additive"]
    leave(folder, 0, "theseus", 0.7)
    assert best_stage(folder, 0) == "theseus"
    (folder / "seed-1" / "theseus-additive" / "record.json").unlink()  # not finished
    assert best_stage(folder, 1) == "theseus"


def test_the_fingerprints_are_of_the_weights_taken(folder):
    before = check_successors(folder, OURS, INPUTS | {"soft_labels": "s"})
    assert [*before] == ["successor of seed 0", "successor of seed 1"]
    leave(folder, 0, "theseus", 0.6, value=1.0)  # which is not taken
    assert check_successors(folder, OURS, INPUTS) == before
    leave(folder, 0, "theseus-random", 0.7, value=1.0)
    after = check_successors(folder, OURS, INPUTS)
    assert after["successor of seed 0"] != before["successor of seed 0"]
    assert after["successor of seed 1"] == before["successor of seed 1"]


@pytest.mark.parametrize(
    ("settings", "inputs", "message"),
    [
        ({}, {"data": "e"}, "it has another data; its successors"),
        ({}, {"bert": "c"}, "it has another BERT or teacher; its successors"),
        ({"train_examples": 65}, {}, "it has --train-examples 65, this run 64; expected the same"),
        ({"validation_examples": 0}, {}, "it has --validation-examples 0, this run None; expected the same"),
        ({"maxlen": 17}, {}, "it has --maxlen 17, this run 16; expected the same"),
        ({"student_layers": 2}, {}, "it has --student-layers 2, this run 1; expected the same"),
    ],
)
def test_other_runs_are_refused(folder, settings, inputs, message):
    write_json(folder / "settings.json", {"settings": SETTINGS | settings, "inputs": INPUTS | inputs})
    with pytest.raises(InputError, match=message):
        check_successors(folder, OURS, INPUTS)


def test_seeds_without_a_successor_are_refused(folder):
    with pytest.raises(InputError, match="no finished theseus or theseus-additive .* of seed 2 in it"):
        check_successors(folder, SimpleNamespace(**vars(OURS) | {"seeds": (0, 2)}), INPUTS)


def test_what_is_no_run_of_theseus_is_refused(folder):
    with pytest.raises(InputError, match="theseus:nowhere: there is no such folder"):
        check_successors(folder_of("theseus:nowhere"), OURS, INPUTS)
    without_inputs, another_script = {"settings": SETTINGS, "inputs": {}}, {"settings": SHARED, "inputs": INPUTS}
    for text in ("{", "[]", '"settings"', "{}", '{"settings": [], "inputs": {}}', without_inputs, another_script):
        (folder / "settings.json").write_text(text if isinstance(text, str) else json.dumps(text))
        with pytest.raises(InputError, match="not the folder of a run of knowledge_distillation_bert_of_theseus.py"):
            check_successors(folder, OURS, INPUTS)
    (folder / "settings.json").unlink()
    with pytest.raises(InputError, match="not the folder of a run"):
        check_successors(folder, OURS, INPUTS)


def test_files_that_were_damaged_are_refused(folder):
    weights, record = (folder / "seed-0" / "theseus-random" / name for name in ("weights.npz", "record.json"))
    whole = weights.read_bytes()
    for damaged in (b"", b"x" * 100, whole[: len(whole) // 2]):
        weights.write_bytes(damaged)
        with pytest.raises(InputError, match="weights.npz: not the weights of a stage"):
            check_successors(folder, OURS, INPUTS)
    for damaged in ("{", "[]", "{}"):
        record.write_text(damaged)
        with pytest.raises(InputError, match="a record.json of seed 0 is not that of a stage"):
            best_stage(folder, 0)
