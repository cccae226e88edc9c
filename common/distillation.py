"""The equations of distillation (Hinton et al. 2015, arXiv 1503.02531), and soft labels that are computed once.

All of it in float32 whatever the precision of the model, on logits rather than probabilities: no logarithm of a rounded
zero. What teacher and student are, and how they are trained, is not this module's business.
"""

import numpy as np
from scipy.special import softmax

from common.backend import Lambda, is_chief, keras, tf
from common.data import UNLABELLED
from common.files import fingerprint, write_whole


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


def compile_alone(classifier, optimizer):
    """Cross-entropy with the true labels."""
    classifier.compile(optimizer, loss=hard_loss)
    return classifier


def compile_distilled(classifier, optimizer, temperature, hard_weight, soft_weight):
    """One classifier, two outputs: its logits z for the labels, z / T for the soft labels.

    loss = hard_weight · CE(label, softmax(z)) + soft_weight · T² · KL(teacher_T || softmax(z / T))   (Hinton, section 2)
    """
    logits = classifier.output  # (batch, classes)
    outputs = {
        "hard": keras.layers.Activation("linear", dtype="float32", name="hard")(logits),
        "soft": Lambda(lambda z: z / temperature, dtype="float32", name="soft")(logits),
    }
    model = keras.Model(classifier.inputs, outputs)
    model.compile(
        optimizer,
        loss={"hard": hard_loss, "soft": soft_loss},
        loss_weights={"hard": hard_weight, "soft": soft_weight * temperature**2},
    )
    return model


def distillation_targets(labels, soft_labels):
    """(labels, weights) for the two outputs; where there is no label only the soft loss counts."""
    labelled = labels != UNLABELLED
    targets = {"hard": np.where(labelled, labels, 0), "soft": soft_labels}
    weights = {"hard": labelled.astype(np.float32), "soft": np.ones(len(labels), np.float32)}
    return targets, weights


def example_keys(examples, rows):
    """One digest per example, of its token ids or pixels: what a soft label is filed under. Returns (rows,) strings."""
    return np.array([fingerprint(examples.example(row)) for row in rows])


def cached_logits(path, model_fingerprint, keys, compute_logits):
    """A teacher's logits for the examples with `keys`; those not yet in the file `path` are computed and added.

    The file counts only if it was made by the same model; within it an example is found by its key, never by its position.
    It holds logits rather than soft labels, so that it serves every temperature. compute_logits: indices into `keys` ->
    logits (indices, classes). Returns (logits (examples, classes) float32, how many were computed now).
    """
    stored = {}
    if path.is_file():
        with np.load(path) as file:
            if str(file["fingerprint"]) == model_fingerprint:
                stored = dict(zip(file["keys"], file["logits"], strict=True))
    missing = np.flatnonzero([key not in stored for key in keys])
    if len(missing):
        stored |= dict(zip(keys[missing], np.asarray(compute_logits(missing), np.float32), strict=True))
        arrays = {"fingerprint": model_fingerprint, "keys": np.array([*stored]), "logits": np.stack([*stored.values()])}
        if is_chief():
            write_whole(path, lambda file: np.savez(file, **arrays))
    return np.stack([stored[key] for key in keys]), len(missing)
