"""When a model that may stop early is sure enough of a text: criteria, each as an uncertainty u from 0 to 1.

Whatever the criterion, a text leaves after the first layer whose u < speed. The u of a layer may rest on the layers before: a
criterion is a function (probabilities (texts, classes), *state) -> (u (texts,), state), asked layer by layer, whose state is a
tuple of (texts,) tensors, empty before the first layer, which shrinks with the batch. NaN among probabilities makes u NaN.
"""

from functools import partial

import numpy as np
from scipy.optimize import minimize_scalar

from common.backend import tf
from common.evaluation import calibration

CRITERIA = "entropy", "confidence", "patience"
TEMPERATURES = 0.05, 20.0  # between which one is fitted


def by_itself(uncertainty):
    """The criterion of an uncertainty that looks at one layer alone: probabilities (texts, classes) -> u (texts,)."""
    return lambda p, *_: (uncertainty(p), ())


def confidence(p):
    """u = (1 - max p) · N / (N - 1) of p (…, N), from 0 to 1. As Σ p - max p, so that NaN stays."""
    classes, p = p.shape[-1], tf.cast(p, tf.float32)
    u = (tf.reduce_sum(p, axis=-1) - tf.reduce_max(p, axis=-1)) * np.float32(classes / (classes - 1))
    return tf.where(u > 1, tf.ones_like(u), u)  # rounding; clipping may lose a NaN


def agreement(layers):
    """The criterion of patience (Zhou et al. 2020, arXiv 2006.04152): layers in a row that give the same answer.

    u = 1 - c / (layers - 1), where c, the paper's counter, is of the layers just before that gave this layer's answer. So c
    reaches a patience of t where u < 1 - (t - 1) / (layers - 1). A layer of NaN has no answer: c is 0 at the next.

    layers: of the model
    """
    steps = patience_steps(layers)

    def criterion(p, *state):
        total = tf.reduce_sum(p, axis=-1)
        answers = tf.where(tf.math.is_nan(total), -1, tf.argmax(p, axis=-1, output_type=tf.int32))
        counts = tf.zeros_like(answers)
        if state:
            before, counts = state
            counts = tf.where(answers == before, counts + 1, 0)
        return tf.where(tf.math.is_nan(total), total, tf.gather(steps, counts)), (answers, counts)

    return criterion


def patience_steps(layers):
    """u of each count from 0 to layers - 1, (layers,) float32: a table, so that all graphs have the very same numbers."""
    return (1 - np.arange(layers) / (layers - 1)).astype(np.float32)


def in_a_row(uncertainty, layers_in_a_row):
    """The criterion that so many layers in a row must be sure (PCEE: Zhang et al. 2022, Findings of NAACL, pp. 327-338).

    u is the highest of the last `layers_in_a_row` uncertainties, and 1 where there have not been as many: it is below a speed
    just where all of them are. A layer of NaN is not sure.

    uncertainty: probabilities (texts, classes) -> u (texts,)
    layers_in_a_row: 1 or more
    """
    def criterion(p, *state):
        own = uncertainty(p)
        state = (*state, tf.where(tf.math.is_nan(own), tf.ones_like(own), own))
        highest = tf.reduce_max(state, axis=0) if len(state) == layers_in_a_row else tf.ones_like(own)
        return tf.where(tf.math.is_nan(own), own, highest), state[max(0, len(state) - layers_in_a_row + 1) :]

    return criterion


def criterion_of(settings, layers, entropy):
    """The criterion that settings want.

    settings: with criterion, exit_patience and uncertainty_top_k
    layers: of the model
    entropy: (probabilities (…, classes), top_k) -> u (…), from 0 to 1
    """
    if settings.criterion == "patience":
        return agreement(layers)
    own = confidence if settings.criterion == "confidence" else partial(entropy, top_k=settings.uncertainty_top_k)
    return in_a_row(own, settings.exit_patience)


def uncertainty_of_exits(logits, criterion):
    """u of all exits, (texts, layers) float32, of their logits (texts, layers, classes)."""
    state, found = (), []
    for p in tf.unstack(tf.nn.softmax(logits), axis=1):
        u, state = criterion(p, *state)
        found.append(u)
    return tf.stack(found, axis=1).numpy()


# Temperatures of exits ---------------------------------------------------------------------------------------------------


def fit_temperatures(labels, logits):
    """The temperature of each exit by which its probabilities softmax(logits / T) fit labels best: (layers,) float.

    That of the least negative log-likelihood (Guo et al. 2017, arXiv 1706.04599). The last exit's, the teacher's, is 1.

    labels: (texts,) int
    logits: (texts, layers, classes)
    """
    def nll(log_temperature, of_exit):
        return calibration(labels, of_exit / np.exp(log_temperature))["nll"]

    branches = logits[:, :-1].astype(np.float64).swapaxes(0, 1)
    fitted = [minimize_scalar(nll, bounds=np.log(TEMPERATURES), args=(branch,), method="bounded").x for branch in branches]
    return np.exp([*fitted, 0.0])
