"""data.students: a student that was taken away is read, and answers as the classifier it was made from, or is refused."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from common import InputError
from common.backend import tf
from data import students
from tests.taken import CLASSES, LINES


def test_a_student_answers_as_the_trained_classifier(taken):
    student = students.load(taken.folder.parent)  # the run's folder does as well
    assert student.classes == CLASSES and not student.stops_early
    np.testing.assert_allclose(students.ask(student, LINES)["probabilities"], taken.probabilities(LINES), atol=1e-6)


def test_a_student_of_pairs_answers_as_the_trained_classifier(taken_pairs):
    student = students.load(taken_pairs.folder)
    couples = [*((a, b) for a in LINES[:3] for b in LINES[:12]), ("w1 " * 40, "w2 " * 41), ("w1", "w2 " * 60)]
    assert student.pairs
    expected = taken_pairs.probabilities(couples)
    np.testing.assert_allclose(students.ask(student, couples)["probabilities"], expected, atol=1e-6)
    np.testing.assert_allclose(students.ask(student, couples[1:2])["probabilities"], expected[1:2], atol=1e-6)
    turned = students.ask(student, [(b, a) for a, b in couples[1:9]])["probabilities"]
    assert np.abs(turned - expected[1:9]).max(axis=1).min() > 1e-4


def test_a_student_of_pairs_pads_as_its_tokenizer_does(taken_pairs):
    """With another padding id too: what goes into the graph is what the library makes of the pairs."""
    couples, seen = [("w1 w2", "w3"), ("w4", "w5 w6 w7 w8 w9 w10"), ("w1 " * 40, "w2 " * 41)], {}
    for pad_id in (0, 4):
        student = students.load(taken_pairs.folder)
        student.tokenizer.enable_padding(pad_id=pad_id, pad_to_multiple_of=8)
        theirs = student.tokenizer.encode_batch(couples)
        answer = lambda **inputs: seen.update(inputs) or {}  # noqa: E731
        students.ask(replace(student, answer=answer, config=student.config | {"pad_token_id": pad_id}), couples)
        assert seen["token_ids"].numpy().tolist() == [each.ids for each in theirs]
        assert seen["segment_ids"].numpy().tolist() == [each.type_ids for each in theirs]
        assert {inputs.dtype for inputs in seen.values()} == {tf.int32}


def damage(folder, name, change):
    path = folder / name
    value = json.loads(path.read_text(encoding="utf-8"))
    change(value)
    path.write_text(json.dumps(value))


DAMAGES = {
    "no config": (lambda f: (f / "config.json").unlink(), "no config.json in it; expected a run's folder, or its student/"),
    "of images": (lambda f: (f / "config.json").rename(f / "classes.json"), "one that takes images; expected a run's folder"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "tokenizer.json is missing"),
    "no model": (lambda f: shutil.rmtree(f / "saved_model"), "saved_model.pb is missing"),
    "a broken config": (lambda f: (f / "config.json").write_text("{"), "config.json: not that of a student"),
    "no labels": (lambda f: damage(f, "config.json", lambda c: c.pop("id2label")), "of a student \\('id2label' is missing\\)"),
    "other labels": (
        lambda f: damage(f, "config.json", lambda c: c["id2label"].popitem()),
        "the model gives probabilities of 4 classes, config.json names 3; they are not of one model"),
    "a broken tokenizer": (lambda f: (f / "tokenizer.json").write_text("{}"), "tokenizer.json: not a tokenizer"),
    "another vocabulary": (
        lambda f: damage(f, "config.json", lambda c: c.update(vocab_size=100)),
        "the tokenizer's ids go up to 119, the model has 100 embeddings; they are not of one model"),
    "a broken model": (lambda f: (f / "saved_model" / "saved_model.pb").write_bytes(b"no"), "not a readable SavedModel"),
    "an empty model": (lambda f: (f / "saved_model" / "saved_model.pb").write_bytes(b""), "not a readable SavedModel"),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_what_does_not_fit_is_refused_in_one_line(taken, tmp_path, case):
    change, message = DAMAGES[case]
    folder = tmp_path / "student"
    shutil.copytree(taken.folder, folder)
    change(folder)
    with pytest.raises(InputError, match=message) as error:
        students.load(folder)
    assert "\n" not in str(error.value) and str(folder) in str(error.value)
