"""common.runs: the folder of a run, opened again by the same settings and by no others."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import knowledge_distillation_bert as script
from common import InputError, files
from common.backend import keras
from common.files import write_atomic, write_text
from common.locking import unlocking_folders
from common.runs import answers_learned, check_depths, open_folder, open_text_runs, rate_remarks, read_inputs, steps_remarks
from data import texts
from tests import tiny
from tests.starting import ROOT


@pytest.fixture(autouse=True)
def given_free():
    """Each test is a process of its own, as far as folders go."""
    with unlocking_folders():
        yield


def opened(settings, **wanted):
    """The runs of a script on texts. wanted: further arguments of `open_text_runs`"""
    return open_text_runs("script", "demo", settings, read_inputs(settings), **wanted)


def test_a_run_computes_in_its_precision(bert_folder, data_folder, tmp_path, precision):
    settings = replace(script.PRESETS["demo"], data=str(data_folder), bert=str(bert_folder), maxlen=8, train_examples=32,
                       validation_examples=12, output=str(tmp_path / "run"), precision="mixed_bfloat16")
    opened(settings)
    assert keras.mixed_precision.global_policy().name == "mixed_bfloat16"


@pytest.mark.parametrize(
    ("given", "wanted", "least", "line"),
    [
        ("", 3, 2, None), ("", (1, 3), 1, None), ("", 0, 3, None),
        ("", 4, 1, "--student-layers 4: small has 3 layers, so 1 to 3 can be taken"),
        ("", (2, 5), 1, "--student-layers 5: small has 3 layers, so 1 to 3 can be taken"),
        ("", 0, 4, "--bert small: layers: 3; at least 4 are needed"),
        ("teacher", 0, 4, "--teacher small: layers: 3; at least 4 are needed"),
    ],
)
def test_a_bert_with_too_few_layers_is_refused(given, wanted, least, line):
    settings, bert = SimpleNamespace(teacher=given, student_layers=wanted), SimpleNamespace(layers=3, source="small")
    if line is None:
        return check_depths(settings, bert, "student_layers", least=least)
    with pytest.raises(InputError, match=f"^{line}$"):
        check_depths(settings, bert, "student_layers", least=least)


@pytest.mark.parametrize(
    ("width", "rates", "flags"),
    [
        (384, {"teacher_learning_rate": 2e-4}, []),
        (768, {"teacher_learning_rate": 1e-4, "student_learning_rate": 2e-5}, []),
        (768, {"teacher_learning_rate": 2e-4, "student_learning_rate": 5e-4},
         ["--teacher-learning-rate 0.0002", "--student-learning-rate 0.0005"]),
    ],
)
def test_a_rate_for_narrow_berts_is_told_of_a_wide_one(width, rates, flags):
    told = rate_remarks(SimpleNamespace(**rates), SimpleNamespace(config={"hidden_size": width}), [*rates])
    assert told == [f"{flag}: for a BERT that is {width} wide 2e-5 to 5e-5 is usual" for flag in flags]


@pytest.mark.parametrize(
    ("train", "unlabelled", "line"),
    [
        (200, 1800, None), (5119, 1, None), (9000, 0, None),
        (20000, 121, "--unlabelled-steps 160 reads 2,560 of 20,121 texts, with labels and without: 1,258 steps read each once"),
    ],
)
def test_too_few_steps_for_the_texts_are_told(train, unlabelled, line):
    parts = SimpleNamespace(train=np.arange(train), unlabelled=np.arange(unlabelled))
    run = SimpleNamespace(settings=SimpleNamespace(unlabelled_steps=160, batch_size=16), parts=parts)
    assert steps_remarks(run) == ([line] if line else [])


def test_the_same_settings_resume_and_others_are_refused(tmp_path):
    folder = tmp_path / "run"
    open_folder(folder, {"temperature": 3.0, "seeds": [0]}, {"data": "abc"})
    open_folder(folder, {"temperature": 3.0, "seeds": [0, 1]}, {"data": "abc"})
    assert json.loads((folder / "settings.json").read_text("utf-8"))["settings"]["seeds"] == [0, 1]  # more of the same
    with pytest.raises(InputError, match="holds a run with another temperature"):
        open_folder(folder, {"temperature": 4.0, "seeds": [0]}, {"data": "abc"})
    with pytest.raises(InputError, match="holds a run with another data; give another folder with --output"):
        open_folder(folder, {"temperature": 3.0, "seeds": [0]}, {"data": "abd"})
    open_folder(folder, {"temperature": 3.0, "seeds": [0], "int8_disagreement": 5.0}, {"data": "abc"})  # of a later version


@pytest.mark.parametrize("junk", [b"", b"{", b"[]", b"null", b'{"settings": 1, "inputs": 2}', b"\x80\xff", None])
def test_settings_that_are_damaged_are_one_line(tmp_path, junk):
    """Nothing says then whose stages these are. None: a folder in their place."""
    path = tmp_path / "run" / "settings.json"
    open_folder(path.parent, {"seeds": [0]}, {})
    path.unlink()
    path.mkdir() if junk is None else path.write_bytes(junk)
    with pytest.raises(InputError, match="settings.json: not the settings of a run; give another --output, or delete"):
        open_folder(path.parent, {"seeds": [0]}, {})


def test_a_start_that_was_killed_before_it_had_settings_is_none(tmp_path):
    (tmp_path / ".settings.json.0123").write_text("{")
    (tmp_path / ".lock").write_text("process 1 on earth")
    open_folder(tmp_path, {"seeds": [0]}, {})
    assert json.loads((tmp_path / "settings.json").read_text("utf-8"))["settings"] == {"seeds": [0]}


def test_what_a_killed_start_left_half_written_is_deleted_and_nothing_else(tmp_path):
    open_folder(tmp_path, {"seeds": [0]}, {})
    for name in (".notes.md", ".student.settings", "seed-0/.weights.npz.copy", ".photo.raw.0a1b2c3d"):
        write_text(tmp_path / name, "of somebody else")
    before = {*tmp_path.rglob("*")}
    for name in ("log.csv", "results.json", "seed-0/times-1.json", "seed-0/fastbert/test_logits.npy"):
        write_atomic(tmp_path / name, lambda file: shutil.copy(file.name, file.name.replace(".half", "0.half")))
        (tmp_path / name).unlink()
    with pytest.raises(KeyboardInterrupt), files.atomic_folder(tmp_path / "student") as folder:
        write_text(folder / "config.json", "{")
        shutil.copytree(folder.parent, str(folder.parent).replace(".half", "0.half"))
        raise KeyboardInterrupt
    assert len({*tmp_path.rglob("*")} - before) == 4 + 3 + 1  # files, the folder with what is in it, seed-0/fastbert
    open_folder(tmp_path, {"seeds": [0]}, {})
    assert {*tmp_path.rglob("*")} - before == {tmp_path / "seed-0" / "fastbert"}


def test_a_folder_that_another_process_has_is_refused_and_left_alone(tmp_path):
    code = ("import sys; from pathlib import Path; from common.locking import lock_folder; lock_folder(Path(sys.argv[1])); "
            "print(flush=True); sys.stdin.read()")
    words = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        with pytest.raises(InputError, match=f"in use by process {process.pid} on "):
            open_folder(tmp_path, {"seeds": [0]}, {})
        assert os.listdir(tmp_path) == [".lock"]
        process.stdin.close()
    open_folder(tmp_path, {"seeds": [0]}, {})


@pytest.mark.parametrize("changed", ["training", "unlabelled", "other"])
def test_answers_may_be_added_but_not_changed_where_they_were_learned_from(tmp_path, changed):
    """As texts can be labelled in pieces: for one more seed, or for the texts without labels, which a further row learns."""
    parts = SimpleNamespace(train=np.array([0, 1]), unlabelled=np.array([2]))
    answers = np.full((5, 2), np.nan)
    answers[:3] = 0.5
    fingerprints = answers_learned((answers,), 0, parts)
    first = answers_learned((answers,), 0, SimpleNamespace(train=parts.train, unlabelled=np.array([], int)))
    assert len(fingerprints) == 2 and first.items() < fingerprints.items()
    open_folder(tmp_path / "run", {}, first)
    open_folder(tmp_path / "run", {}, fingerprints)
    answers[{"training": 1, "unlabelled": 2, "other": 4}[changed]] = 0.25
    later = answers_learned((answers,), 0, parts) | answers_learned((answers,), 1, parts)
    if changed == "other":
        open_folder(tmp_path / "run", {}, later)
    else:
        with pytest.raises(InputError, match=f"holds a run with another soft labels of seed 0, {changed} texts; give another"):
            open_folder(tmp_path / "run", {}, later)


@pytest.mark.parametrize("maxlen", [12, 16])
def test_a_teacher_that_reads_other_lengths_than_in_its_training_is_told(data_folder, tmp_path, maxlen):
    labels = {str(number): name for number, name in enumerate(texts.load(str(data_folder)).classes)}
    folder = tiny.write_classifier(tmp_path / "teacher", labels=labels, maxlen=16)
    settings = replace(script.PRESETS["demo"], data=str(data_folder), teacher=(str(folder),), maxlen=maxlen)
    line = f"{folder} was trained on texts of up to 16 tokens and reads {maxlen} here; see --maxlen"
    assert (line in read_inputs(settings).corpus.notes) == (maxlen != 16)


def test_files_of_another_seed_join_those_that_are_known(tmp_path):
    """And are held against them ever after."""
    folder = tmp_path / "run"
    open_folder(folder, {"seeds": [0]}, {"data": "abc", "successor of seed 0": "a"})
    open_folder(folder, {"seeds": [1]}, {"data": "abc", "successor of seed 1": "b"})
    inputs = {"data": "abc", "successor of seed 0": "a", "successor of seed 1": "b"}
    assert json.loads((folder / "settings.json").read_text("utf-8"))["inputs"] == inputs
    for seed in (0, 1):
        with pytest.raises(InputError, match=f"holds a run with another successor of seed {seed}"):
            open_folder(folder, {"seeds": [0, 1]}, inputs | {f"successor of seed {seed}": "c"})


def test_a_folder_that_is_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="is there already and is not a run"):
        open_folder(tmp_path, {}, {})
    assert os.listdir(tmp_path) == ["thesis.tex"]


@pytest.mark.parametrize("pairs", [False, True])
def test_texts_that_a_model_reads_alike_are_told_and_drawn_as_before(bert_folder, tmp_path, capsys, pairs):
    """Test texts that differ from training texts beyond the cut, in case or in spaces alone: the same, by the token ids."""
    made = tiny.texts(64)
    words = [text.split() for text, _ in made]
    others = [("  ".join(words[0]).upper(), made[0][1]), (" ".join([*words[1][:6], "further"]), made[1][1])]
    others += tiny.texts(6, seed=9)
    if pairs:
        made, others = ([((text, "the same"), label) for text, label in each] for each in (made, others))
    tiny.write_jsonl(tmp_path / "train.jsonl", made)
    tiny.write_jsonl(tmp_path / "test.jsonl", others)
    settings = replace(script.PRESETS["demo"], data=str(tmp_path), bert=str(bert_folder), maxlen=8, validation_examples=12,
                       train_examples=0, student_layers=1, layer_mapping=(), output=str(tmp_path / "run"))
    run, = opened(settings)
    assert len(run.parts.train) == 52 and len(run.parts.test) == 8  # nothing was dropped
    token_ids, segment_ids = (ids.tolist() for ids in run.examples.inputs(np.append(run.parts.train, run.parts.test)))
    read = list(zip(map(tuple, token_ids), map(tuple, segment_ids), strict=True))
    twins = sum(each in read[:52] for each in read[52:])
    note = f"as a model reads them, in 8 tokens, texts stand in two parts: {twins} test texts in training"
    assert twins >= 2 and run.corpus.notes == [note] and note in capsys.readouterr().out.splitlines()


def test_an_unlabelled_text_that_stands_in_the_test_part_is_told(bert_folder, tmp_path):
    made = tiny.texts(80)
    tiny.write_jsonl(tmp_path / "train.jsonl", made)
    settings = replace(script.PRESETS["demo"], data=str(tmp_path), bert=str(bert_folder), validation_examples=12,
                       maxlen=16, train_examples=32, student_layers=1, layer_mapping=())
    tiny.write_jsonl(tmp_path / "test.jsonl", tiny.texts(6, seed=9))
    run, = opened(replace(settings, output=str(tmp_path / "run")), unlabelled=20)
    assert not run.corpus.notes
    twin = run.corpus.texts[run.parts.unlabelled[0]].upper()
    tiny.write_jsonl(tmp_path / "test.jsonl", [*tiny.texts(6, seed=9), (twin, made[0][1])])
    again, = opened(replace(settings, output=str(tmp_path / "again")), unlabelled=20)
    np.testing.assert_array_equal(run.parts.unlabelled, again.parts.unlabelled)
    assert again.corpus.notes == ["as a model reads them, in 16 tokens, texts stand in two parts: 1 test text in training"]


def test_a_name_of_others_sends_nothing_to_the_terminal(bert_folder, tmp_path, capsys):
    folder = tmp_path / "my \x1b[2J data"
    folder.mkdir()
    tiny.write_jsonl(folder / "train.jsonl", tiny.texts(64))
    tiny.write_jsonl(folder / "test.jsonl", tiny.texts(8, seed=9))
    settings = replace(script.PRESETS["demo"], data=str(folder), bert=str(bert_folder), validation_examples=12,
                       maxlen=16, train_examples=32, student_layers=1, layer_mapping=(), output=str(tmp_path / "run"))
    opened(settings)
    said = capsys.readouterr().out
    assert "my \\u001b[2J data: " in said and "\x1b" not in said


def test_a_promise_is_not_tested_on_texts_that_other_parts_have(bert_folder, tmp_path):
    """Half of all texts are a copy of another but for their case: calibration has none that are in another part, too."""
    made = tiny.texts(60)
    tiny.write_jsonl(tmp_path / "train.jsonl", [*made, *((text.upper(), label) for text, label in made)])
    tiny.write_jsonl(tmp_path / "test.jsonl", tiny.texts(6, seed=9))
    settings = replace(script.PRESETS["demo"], data=str(tmp_path), bert=str(bert_folder), maxlen=8, validation_examples=12,
                       train_examples=32, student_layers=1, layer_mapping=(), output=str(tmp_path / "run"))
    drawn = []
    run, = opened(settings, unlabelled=20, calibration=0, check=lambda seed, parts: drawn.append(len(parts.calibration)))
    others = np.concatenate([run.parts.train, run.parts.unlabelled, run.parts.validation])
    known = {run.examples.example(index).tobytes() for index in others}
    calibration = [run.examples.example(index).tobytes() for index in run.parts.calibration]
    assert 0 < len(calibration) < 120 - len(others) and drawn == [len(calibration)] and not known & {*calibration}
    assert not any("calibration" in note for note in run.corpus.notes)
