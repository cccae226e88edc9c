"""A student asked elsewhere: neither this project nor any Keras can be imported, nor TensorFlow where its card does without."""

import json
import re
import subprocess
import sys

import numpy as np
from scipy.special import softmax

from common.backend import tf
from data import berts, bilstms, texts
from export.checks import hugging_face_answer
from tests import tiny
from tests.numpy_lstm import numpy_bilstm

_ASK = """
import sys, numpy as np, tensorflow as tf
hidden = ["keras", "tf_keras", "bert4keras", "common", "data", "report", "export"]
sys.modules |= dict.fromkeys(hidden)  # none of these can be imported
answer = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
with np.load(sys.argv[2]) as inputs:
    found = answer(**{name: tf.constant(inputs[name]) for name in inputs.files})
np.savez(sys.argv[3], **{name: value.numpy() for name, value in found.items()})
"""


def ask_alone(saved_model, folder, **inputs):
    """{name: array} that the SavedModel answers to the arrays `inputs`, in a process of its own, started in `folder`."""
    np.savez(folder / "inputs.npz", **inputs)
    words = [sys.executable, "-c", _ASK, saved_model, folder / "inputs.npz", folder / "found.npz"]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    with np.load(folder / "found.npz") as found:
        return {name: found[name] for name in found.files}


BLOCK = """
import sys
names = ["tensorflow", "keras", "tf_keras", "bert4keras", "common", "data", "report", "export"]
sys.modules |= dict.fromkeys(names)  # none of these can be imported
"""
_KEEP = """
np.save(sys.argv[1], probabilities)
json.dump(texts, open(sys.argv[2], "w"))
"""


def ask_card(student, folder, texts=None):
    """What the lines on the card that ask ONNX answer and print, in a process of its own.

    student: folder with the card
    folder: for what they answer
    texts: that the lines are to ask, instead of those on the card

    Returns (texts, probabilities (texts, classes) float32, lines printed).
    """
    card = (student / "README.md").read_text(encoding="utf-8")
    lines = card.split("```python\n")[1].split("```")[0]
    assert "onnxruntime.InferenceSession(" in lines
    if texts is not None:
        lines, changed = re.subn(r"^texts = .*$", lambda _: f"texts = {texts!r}", lines, flags=re.MULTILINE)
        assert changed == 1
    words = [sys.executable, "-c", BLOCK + lines + _KEEP, folder / "found.npy", folder / "texts.json"]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, cwd=student)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    asked = json.loads((folder / "texts.json").read_text(encoding="utf-8"))
    asked = [tuple(text) if isinstance(text, list) else text for text in asked]
    return asked, np.load(folder / "found.npy"), done.stdout.splitlines()


def name_of_student(run):
    """Which model the report of a run's folder says that student/ holds."""
    return (run / "report.md").read_text(encoding="utf-8").split("`student/` holds ")[1].split(",")[0]


def check_student(run, layers):
    """The student of a run's folder is the model that was tested: its SavedModel, and its files by Hugging Face's formula, or
    those of a BiLSTM by numpy's.
    """
    expected = softmax(np.load(run / "seed-0" / name_of_student(run) / "test_logits.npy")[:20], axis=-1)
    corpus, folder = texts.load(str(run.parent / "data")), run / "student"
    is_bilstm = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"] == bilstms.KIND
    bert = bilstms.load(folder) if is_bilstm else berts.load(str(folder))
    examples = tiny.tokenized([corpus.texts[index] for index in corpus.test[:20]], bert)
    token_ids, segment_ids = examples.inputs(np.arange(20))
    answer = tf.saved_model.load(str(folder / "saved_model")).signatures["serving_default"]
    given_away = answer(token_ids=tf.constant(token_ids), segment_ids=tf.constant(segment_ids))["probabilities"]
    if is_bilstm:
        of_files = softmax(numpy_bilstm(bert.weights, token_ids, bert.pad_id), axis=-1)
    else:
        of_files = hugging_face_answer(folder, bert, token_ids, segment_ids)
    for found in (given_away, of_files):
        np.testing.assert_allclose(found, expected, atol=1e-5)
    assert bert.layers == layers  # as --bert takes it
