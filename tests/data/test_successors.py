"""data.successors: which stage of a run of Theseus a student goes on from, and which runs are refused."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

import knowledge_distillation_bert_of_theseus as theseus
from common import InputError
from common.files import write_json
from data.successors import STAGES, best_stage, check_successors, folder_of, stage_of

SHARED = {"train_examples": 64, "validation_examples": None, "maxlen": 16, "student_layers": 1}
SETTINGS = SHARED | {"successor_init": "predecessor"}
INPUTS = {"data": "d", "bert": "b"}
OURS = SimpleNamespace(**SHARED, seeds=(0, 1))


def leave(folder, seed, name, accuracy, value=0.0):
    """A finished stage."""
    stage = folder / f"seed-{seed}" / name
    write_json(stage / "record.json", {"name": name, "validation_accuracy": accuracy})
    np.savez(stage / "weights.npz", **{"0": np.full(3, value, np.float32), "1": np.zeros((2, 2), np.float32)})


def check(folder, settings, inputs, run="none yet"):
    """check_successors, for a run in a folder beside that of Theseus."""
    return check_successors(folder, settings, inputs, folder.parent / run)


@pytest.fixture
def folder(tmp_path):
    """A run of two seeds, each with a successor, a control and a predecessor that are better than any Theseus."""
    folder = tmp_path / "theseus"
    write_json(folder / "settings.json", {"settings": SETTINGS, "inputs": INPUTS})
    for seed, best in ((0, "theseus-random"), (1, "theseus-additive")):
        for name in ("predecessor", "middle", "successor", "unmixed", "theseus-mixed", "theseus-random-mixed"):
            leave(folder, seed, name, 0.9)
        for name in ("theseus", "theseus-additive", "theseus-random"):
            leave(folder, seed, name, 0.7 if name == best else 0.6)
    return folder


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
    before = check(folder, OURS, INPUTS | {"soft_labels": "s"})
    assert [*before] == [f"successor of seed {seed} in {folder}" for seed in (0, 1)]
    assert [name.split()[0] for name in before.values()] == ["theseus-random", "theseus-additive"]
    leave(folder, 0, "theseus", 0.6, value=1.0)  # which is not taken
    assert check(folder, OURS, INPUTS) == before
    leave(folder, 0, "theseus-random", 0.7, value=1.0)
    after = check(folder, OURS, INPUTS)
    assert [after[key] == before[key] for key in before] == [False, True]


def test_a_run_goes_on_from_the_stage_it_started_from_whatever_theseus_has_got_since(folder):
    """Its settings say which; a seed that joins later, and another run, start from what is best then."""
    one_seed, mine = SimpleNamespace(**vars(OURS) | {"seeds": (0,)}), folder.parent / "mine"
    first = check(folder, one_seed, INPUTS, "mine")
    write_json(mine / "settings.json", {"settings": {}, "inputs": INPUTS | first})
    for seed in (0, 1):
        leave(folder, seed, "theseus", 0.8, value=2.0)
    again = check(folder, OURS, INPUTS, "mine")
    assert [name.split()[0] for name in again.values()] == ["theseus-random", "theseus"]
    assert first.items() <= again.items() and stage_of(folder, 0, mine) == "theseus-random"
    assert check(folder, one_seed, INPUTS, "another") != first
    leave(folder, 0, "theseus-random", 0.7, value=1.0)  # trained again: `runs.open_folder` refuses another fingerprint
    after = check(folder, one_seed, INPUTS, "mine")
    assert after.keys() == first.keys() and after != first and stage_of(folder, 0, mine) == "theseus-random"


def test_students_of_two_runs_of_theseus_have_each_their_own(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("theseus") / "other"
    write_json(other / "settings.json", {"settings": SETTINGS, "inputs": INPUTS})
    for seed in (0, 1):
        leave(other, seed, "theseus", 0.5)
    started = check(folder, OURS, INPUTS) | check(other, OURS, INPUTS)
    write_json(folder.parent / "mine" / "settings.json", {"settings": {}, "inputs": started})
    assert [stage_of(each, 0, folder.parent / "mine") for each in (folder, other)] == ["theseus-random", "theseus"]


@pytest.mark.parametrize("content", ["{", "[]", '{"inputs": 3}', "{}"])
def test_a_run_whose_settings_are_damaged_has_started_from_nothing(folder, content):
    (folder.parent / "mine").mkdir()
    (folder.parent / "mine" / "settings.json").write_text(content)
    assert check(folder, OURS, INPUTS, "mine") == check(folder, OURS, INPUTS)


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
        check(folder, OURS, INPUTS)


def test_seeds_without_a_successor_are_refused(folder):
    with pytest.raises(InputError, match="no finished theseus or theseus-additive .* of seed 2 in it"):
        check(folder, SimpleNamespace(**vars(OURS) | {"seeds": (0, 2)}), INPUTS)


def test_what_is_no_run_of_theseus_is_refused(folder):
    with pytest.raises(InputError, match="theseus:nowhere: there is no such folder"):
        check(folder_of("theseus:nowhere"), OURS, INPUTS)
    without_inputs, another_script = {"settings": SETTINGS, "inputs": {}}, {"settings": SHARED, "inputs": INPUTS}
    for text in ("{", "[]", '"settings"', "{}", '{"settings": [], "inputs": {}}', without_inputs, another_script):
        (folder / "settings.json").write_text(text if isinstance(text, str) else json.dumps(text))
        with pytest.raises(InputError, match="not the folder of a run of knowledge_distillation_bert_of_theseus.py"):
            check(folder, OURS, INPUTS)
    (folder / "settings.json").unlink()
    with pytest.raises(InputError, match="not the folder of a run"):
        check(folder, OURS, INPUTS)


def test_files_that_were_damaged_are_refused(folder):
    weights, record = (folder / "seed-0" / "theseus-random" / name for name in ("weights.npz", "record.json"))
    whole = weights.read_bytes()
    for damaged in (b"", b"x" * 100, whole[: len(whole) // 2]):
        weights.write_bytes(damaged)
        with pytest.raises(InputError, match="weights.npz: not the weights of a stage"):
            check(folder, OURS, INPUTS)
    for damaged in ("{", "[]", "{}"):
        record.write_text(damaged)
        with pytest.raises(InputError, match="a record.json of seed 0 is not that of a stage"):
            best_stage(folder, 0)
