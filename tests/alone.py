"""A SavedModel asked where nothing but TensorFlow is: neither this project nor any Keras can be imported."""

import subprocess
import sys

import numpy as np

from common import data, export, pretrained

_ASK = """
import sys, numpy as np, tensorflow as tf
sys.modules |= dict.fromkeys(["keras", "tf_keras", "bert4keras", "common", "data"])  # none of these can be imported
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


def both_ways(student, texts, folder):
    """Probabilities (texts, classes) that a student/ gives: with TensorFlow alone, and by Hugging Face's formula."""
    bert = pretrained.load(str(student))
    token_ids, segment_ids = data.encode(texts, bert.tokenizer, 16, bert.pad_id).inputs(np.arange(len(texts)))
    found = ask_alone(student / "saved_model", folder, token_ids=token_ids, segment_ids=segment_ids)
    return found["probabilities"], export.hugging_face_answer(student, token_ids, segment_ids)
