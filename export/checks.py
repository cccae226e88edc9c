"""What is written of a model must be the model: what is read back is held against the weights and probabilities trained."""

import numpy as np
from safetensors import safe_open
from scipy.special import softmax

from common.bert import build_encoder
from common.bilstm import build_bilstm

TOLERANCE = 1e-5  # of probabilities, between the trained model and what stands in student/


def check_weights(written, weights):
    """Raise RuntimeError unless `written`, a BERT read back, has these weights. weights: {Google variable name: array}"""
    if not all(np.array_equal(written.weights[name], value) for name, value in weights.items()):
        raise RuntimeError(f"{written.source} does not hold the weights of the trained model")


def check_equal(what, answer, expected):
    """Raise RuntimeError (it is a bug here) if what stands in student/ answers otherwise than the model that was trained.

    what: stands there
    answer: probabilities, an array
    expected: of the trained model, the same shape
    """
    difference = float(np.abs(np.asarray(answer, np.float64) - expected).max())
    if not difference <= TOLERANCE:
        raise RuntimeError(f"{what} differs by {difference:.1e} from the trained model; at most {TOLERANCE:.0e} was expected")


def check_promise(promise, others):
    """Raise RuntimeError if a file answers more of its calibration texts otherwise than its promise was made for.

    promise: of `exit_curve.promised_speed`, in which texts that may be answered otherwise count, too
    others: how many the file does
    """
    if others > promise["disagreements"]:
        raise RuntimeError(f"model.onnx answers {others:,} of {promise['texts']:,} calibration texts otherwise than all "
                           f"layers; its promise allows {promise['disagreements']:,}")


def hugging_face_answer(folder, bert, token_ids, segment_ids):
    """What BertForSequenceClassification makes of the files that `berts.save` wrote: probabilities (texts, classes) float32.

    softmax(W · tanh(P h_[CLS] + p) + b), read back and computed here.

    folder: Path
    bert: read from there
    token_ids, segment_ids: (texts, tokens) int32, as bert4keras takes them
    """
    encoder = build_encoder(bert, dropout=0.0)
    with safe_open(folder / "model.safetensors", framework="np") as file:
        pooler, classifier = (
            [file.get_tensor(f"{name}.{part}") for part in ("weight", "bias")] for name in ("bert.pooler.dense", "classifier")
        )
    hidden = encoder.model.predict_on_batch([token_ids, segment_ids])[:, 0]
    pooled = np.tanh(hidden @ pooler[0].T + pooler[1])
    return softmax(pooled @ classifier[0].T + classifier[1], axis=-1)


def rebuilt_answer(bilstm, token_ids, segment_ids):
    """Probabilities (texts, classes) float32 of a BiLSTM that was read back. See `hugging_face_answer`."""
    return softmax(build_bilstm(bilstm).model.predict_on_batch([token_ids, segment_ids]), axis=-1)
