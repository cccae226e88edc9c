"""data.students: a student that was taken away is read, and answers as the classifier it was made from, or is refused."""

import json
import shutil

import numpy as np
import pytest

from common import InputError
from data import students
from tests.taken import CLASSES, LINES


def test_a_student_answers_as_the_trained_classifier(taken):
    student = students.load(taken.folder.parent)  # the run's folder does as well
    assert student.classes == CLASSES and not student.stops_early
    np.testing.assert_allclose(students.ask(student, LINES)["probabilities"], taken.probabilities(LINES), atol=1e-6)


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
