"""The equations of distillation (Hinton et al. 2015, arXiv 1503.02531, where they do not name others).

All of it in float32 whatever the precision of the model, on logits rather than probabilities: no logarithm of a rounded
zero. What teacher and student are, and how they are trained, is not this module's business.
"""

import numpy as np
from scipy.special import softmax

from common.backend import tf
from data.parts import UNLABELLED


def soften(logits, temperature):
    """Soft labels q_i = exp(z_i / T) / Σ_j exp(z_j / T)  (Hinton et al. 2015, equation 1).

    logits: z, (…, classes), any float
    temperature: T

    Returns float32 of the same shape, rows summing to 1.
    """
    return softmax(np.asarray(logits, np.float64) / temperature, axis=-1).astype(np.float32)


def noise_labels(labels, classes, temperature, seed):
    """The original's control: soft labels softmax((one-hot + N(0, 0.1²)) / T) that know nothing but the label.

    labels: (texts,) int
    classes: how many
    temperature: T
    seed: of the noise

    Returns (texts, classes) float32.
    """
    noise = np.random.default_rng(seed).normal(0, 0.1, (len(labels), classes))
    return soften(np.eye(classes)[labels] + noise, temperature)


def hard_loss(labels, logits):
    """Cross-entropy CE(y, softmax(z)) = -log softmax(z)_y with the true labels, per example; 0 where there is no label.

    labels: y, (batch,) or (batch, 1), whole numbers, UNLABELLED where there is none
    logits: z, (batch, classes), any float

    Returns (batch,) float32.
    """
    labels = tf.reshape(tf.cast(labels, tf.int32), [-1])
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.maximum(labels, 0), tf.cast(logits, tf.float32))
    return tf.cast(labels != UNLABELLED, tf.float32) * losses


def soft_loss(soft_labels, logits_at_temperature):
    """KL(p || q) = Σ p log(p / q) with p the teacher's soft labels and q = softmax(z / T), per example.

    soft_labels: p, (…, classes), rows summing to 1, zeros allowed
    logits_at_temperature: z / T, (…, classes), any float

    Returns (…) float32, not below 0 but for rounding.
    """
    p = tf.cast(soft_labels, tf.float32)
    log_q = tf.nn.log_softmax(tf.cast(logits_at_temperature, tf.float32))
    return tf.reduce_sum(tf.math.xlogy(p, p) - p * log_q, axis=-1)


def distillation_loss(temperature, hard_weight, soft_weight):
    """Hinton's loss: hard_weight · CE(y, softmax(z)) + soft_weight · T² · KL(teacher_T || softmax(z / T))  (section 2).

    The gradient of the soft loss scales with 1/T², hence the factor T².

    temperature: T
    hard_weight: of the hard loss
    soft_weight: of the soft loss

    Returns (targets as `distillation_targets` makes them, logits z (batch, classes)) -> (batch,) float32.
    """
    def loss(targets, logits):
        labels, soft_labels = targets[:, 0], targets[:, 1:]
        soft = temperature**2 * soft_loss(soft_labels, logits / temperature)
        return hard_weight * hard_loss(labels, logits) + soft_weight * soft

    return loss


def attention_loss(teacher, student, mask):
    """L_attn = 1/h Σ_i MSE(A_i^S, A_i^T) over the heads' scores before the softmax, per text  (TinyBERT, 1909.10351, eq. 7).

    Scores with padding, on either side, are left out.

    teacher, student: A, (batch, heads, tokens, tokens), any float
    mask: (batch, tokens) bool, True where there is a token

    Returns (batch,) float32.
    """
    seen = tf.cast(mask[:, None, :, None] & mask[:, None, None, :], tf.float32)
    squares = tf.reduce_mean(_squares(teacher, student), axis=1, keepdims=True)
    return tf.reduce_sum(seen * squares, axis=[1, 2, 3]) / tf.reduce_sum(seen, axis=[1, 2, 3])


def hidden_loss(teacher, student, mask):
    """L_hidn = MSE(H^S W, H^T) over a text's tokens, per text; of the embeddings it is L_embd  (TinyBERT, eqs. 8 and 9).

    teacher: H^T, (batch, tokens, hidden), any float
    student: H^S W, the same shape
    mask: (batch, tokens) bool, True where there is a token

    Returns (batch,) float32.
    """
    return _mean_of_tokens(tf.reduce_mean(_squares(teacher, student), axis=-1), mask)


def cosine_loss(teacher, student, mask):
    """1 - cos(H^S W, H^T) over a text's tokens, per text  (DistilBERT, 1910.01108, section 2). See `hidden_loss`."""
    cosines = tf.reduce_sum(_unit(teacher) * _unit(student), axis=-1)
    return _mean_of_tokens(1 - cosines, mask)


def cls_loss(teacher, student, mask):
    """|h^S/|h^S| - h^T/|h^T||² of [CLS], per text  (Patient Knowledge Distillation, 1908.09355, eq. 7). See `hidden_loss`."""
    del mask  # the first token is never padding
    return tf.reduce_sum(_squares(_unit(teacher[:, 0]), _unit(student[:, 0])), axis=-1)


def _squares(a, b):
    return tf.math.squared_difference(tf.cast(a, tf.float32), tf.cast(b, tf.float32))


def _unit(states):
    return tf.math.l2_normalize(tf.cast(states, tf.float32), axis=-1)


def _mean_of_tokens(losses, mask):
    mask = tf.cast(mask, tf.float32)
    return tf.reduce_sum(mask * losses, axis=-1) / tf.reduce_sum(mask, axis=-1)


HIDDEN_LOSSES = {"mse": hidden_loss, "cls": cls_loss, "cosine": cosine_loss}


def distillation_metrics(temperature):
    """Hard and soft loss by themselves, unweighted, for the log: what `distillation_loss` takes -> (batch,) float32 each."""
    def hard(targets, logits):
        return hard_loss(targets[:, 0], logits)

    def soft(targets, logits):
        return soft_loss(targets[:, 1:], logits / temperature)

    hard.__name__, soft.__name__ = "hard_loss", "soft_loss"  # which Keras logs
    return [hard, soft]


def logit_loss(hard_weight, soft_weight):
    """Tang et al.'s loss: hard_weight · CE(y, softmax(z)) + soft_weight · ||z_teacher - z||²  (arXiv 1903.12136, eq. 3 and 4).

    The squares are summed over the classes, as the paper writes it. For the parameters and what is returned see
    `distillation_loss`; in the place of soft labels the targets have the teacher's logits.
    """
    def loss(targets, logits):
        squares = tf.math.squared_difference(targets[:, 1:], tf.cast(logits, tf.float32))
        return hard_weight * hard_loss(targets[:, 0], logits) + soft_weight * tf.reduce_sum(squares, axis=-1)

    return loss


def distillation_targets(labels, soft_labels):
    """Label and soft labels side by side, [y | p]: (examples, 1 + classes) float32.

    labels: (examples,) int, UNLABELLED where there is none
    soft_labels: (examples, classes) float32; or logits, for `logit_loss`
    """
    return np.concatenate([labels[:, None], soft_labels], axis=1, dtype=np.float32)
