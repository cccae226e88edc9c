"""The equations of distillation (Hinton et al. 2015, arXiv 1503.02531), and soft labels that are computed once.

All of it in float32 whatever the precision of the model, on logits rather than probabilities: no logarithm of a rounded
zero. How a teacher computes its logits, and how a student is trained, is not this module's business.
"""

import hashlib

import numpy as np
from scipy.special import softmax

from common.backend import tf
from common.files import write_whole


def soften(logits, temperature):
    """Soft labels q_i = exp(z_i / T) / Σ_j exp(z_j / T)  (Hinton et al. 2015, equation 1).

    logits: (..., classes), any float. Returns float32 of the same shape, rows summing to 1.
    """
    return softmax(np.asarray(logits, np.float64) / temperature, axis=-1).astype(np.float32)


def noise_labels(labels, classes, temperature, seed, deviation=0.1):
    """The original's control: soft labels softmax((one-hot + N(0, deviation²)) / T) that know nothing but the label.

    labels: (texts,) int. Returns (texts, classes) float32.
    """
    noise = np.random.default_rng(seed).normal(0, deviation, (len(labels), classes))
    return soften(np.eye(classes)[labels] + noise, temperature)


def hard_loss(labels, logits):
    """Cross-entropy -log softmax(z)[label] with the true labels, per example.

    labels: (batch,) or (batch, 1) int. logits: (batch, classes), any float. Returns (batch,) float32.
    """
    labels = tf.reshape(tf.cast(labels, tf.int32), [-1])
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, tf.cast(logits, tf.float32))


def soft_loss(soft_labels, logits_at_temperature):
    """KL(teacher_T || student_T) = Σ p log(p / q) with p the teacher's soft labels and q = softmax(z / T), per example.

    Its gradient scales with 1/T², so it is weighted by T² beside the hard loss (Hinton et al. 2015, section 2).
    soft_labels: (batch, classes), rows summing to 1, zeros allowed. logits_at_temperature: z / T, (batch, classes).
    Returns (batch,) float32, not below 0 but for rounding.
    """
    p = tf.cast(soft_labels, tf.float32)
    log_q = tf.nn.log_softmax(tf.cast(logits_at_temperature, tf.float32))
    return tf.reduce_sum(tf.math.xlogy(p, p) - p * log_q, axis=-1)


def fingerprint(*parts):
    """A short digest of arrays, strings and numbers, in order: equal if and only if (for all that matters) they are."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(f"{part.dtype}{part.shape}".encode())
            digest.update(np.ascontiguousarray(part))
        else:
            digest.update(repr(part).encode())
    return digest.hexdigest()[:16]


def example_keys(encoded, rows):
    """One digest per text, of its token ids: what a soft label is filed under. Returns (rows,) strings of 16 characters."""
    return np.array([fingerprint(encoded.ids[encoded.offsets[row] : encoded.offsets[row + 1]]) for row in rows])


def cached_soft_labels(path, model_fingerprint, keys, temperature, compute_logits):
    """Soft labels at `temperature` for the texts with `keys`; those not yet in the file `path` are computed and added.

    The file counts only if it was made by the same model at the same temperature; within it a text is found by its key,
    never by its position. compute_logits: indices into `keys` -> logits (indices, classes).
    Returns (soft labels (texts, classes) float32, how many were computed now).
    """
    wanted = fingerprint(model_fingerprint, float(temperature))
    stored = {}
    if path.is_file():
        with np.load(path) as file:
            if str(file["fingerprint"]) == wanted:
                stored = dict(zip(file["keys"], file["soft_labels"], strict=True))
    missing = np.flatnonzero([key not in stored for key in keys])
    if len(missing):
        stored |= dict(zip(keys[missing], soften(compute_logits(missing), temperature), strict=True))
        arrays = {"fingerprint": wanted, "keys": np.array([*stored]), "soft_labels": np.stack([*stored.values()])}
        write_whole(path, lambda file: np.savez(file, **arrays))
    return np.stack([stored[key] for key in keys]), len(missing)
