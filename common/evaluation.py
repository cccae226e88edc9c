"""What a model answers and how good that is: predictions, accuracy and macro-F1, calibration, paired comparisons."""

import numpy as np
from scipy import stats
from scipy.special import log_softmax
from sklearn.metrics import accuracy_score, f1_score

from common.backend import tf
from data.bucketing import by_length


def prediction_graph(model, examples):
    """`model` as a graph on its own device, for several calls of `predict`; predict_on_batch would share a batch out."""
    return tf.function(lambda inputs: model(inputs, training=False), input_signature=[examples.spec])


def predict(model, examples, indices, graph=None):
    """Logits of `model` for some examples: (examples, …) float32 as the model gives them, in the order of `indices`.

    Batches are formed by length, so that short texts do not pay for long ones.

    model: Keras model
    examples: TokenizedTexts or Pixels
    indices: (examples,) int, which of them
    graph: what `prediction_graph` made of the two; traced anew unless given
    """
    graph, logits = graph or prediction_graph(model, examples), None
    for batch in by_length(examples.lengths(indices), examples.predict_batch_size):
        answers = graph(examples.inputs(indices[batch])).numpy()
        if logits is None:
            logits = np.empty((len(indices), *answers.shape[1:]), np.float32)
        logits[batch] = answers
    return logits


def scores(labels, logits):
    """{"accuracy", "macro_f1"} of the most probable classes, as fractions.

    macro_f1 is the mean over the classes that occur in `labels`: the same for all models, whatever else they answer.

    labels: (examples,) int
    logits: (examples, classes)
    """
    predicted = logits.argmax(axis=-1)
    return {
        "accuracy": float(accuracy_score(labels, predicted)),
        "macro_f1": float(f1_score(labels, predicted, labels=np.unique(labels), average="macro", zero_division=0)),
    }


def calibration(labels, logits, bins=15):
    """{"ece", "nll"}: how far the probabilities at T = 1 can be taken at their word.

    ece: expected calibration error Σ_b n_b / n · |accuracy_b - confidence_b| over equal intervals of the highest probability
    (Guo et al. 2017, arXiv 1706.04599, equation 3), as a fraction. nll: mean -log of the true label's probability, in nats.

    labels: (examples,) int
    logits: (examples, classes)
    bins: how many intervals
    """
    log_p = log_softmax(np.asarray(logits, np.float64), axis=-1)
    confidence = np.exp(log_p.max(axis=-1))
    right = logits.argmax(axis=-1) == labels
    held = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(held, right - confidence, minlength=bins)
    return {"ece": float(np.abs(gaps).sum() / len(labels)), "nll": float(-log_p[np.arange(len(labels)), labels].mean())}


def compare(correct_a, correct_b):
    """Is A more accurate than B, on the same texts or images?

    correct_a: (seeds, texts) bool, whether A classified each rightly
    correct_b: the same of B

    Returns {"difference", "ci95", "p_value"}: A's accuracy less B's, its 95 % interval, and the two-sided p-value.

    One seed: the exact McNemar test, and the normal interval for paired proportions. Several: a t-test in which both the
    draw of the texts and the seeds of training count as chance. The variance of the difference is that of its mean over
    texts plus that of its mean over seeds (which counts their interaction twice, so where that is most of it the test is
    careful), the degrees of freedom are Satterthwaite's. Where that of the seeds is several times that of the texts, three
    seeds reject up to 8 % of the true hypotheses at 5 %, and five 6 % (simulated): by chance their variance looks small, and
    the degrees of freedom then many. Where both are 0 there is no noise to hold the difference against: the sign test of as
    many seeds, or texts if they are fewer, all of which agree, and the interval that it implies (Miettinen 1976).
    """
    difference = np.asarray(correct_a, float) - np.asarray(correct_b, float)
    seeds, texts = difference.shape
    mean = difference.mean()
    over_texts, over_seeds = variances(difference)
    variance = over_texts + over_seeds
    if seeds == 1:
        better, worse = int((difference > 0).sum()), int((difference < 0).sum())
        p_value = stats.binomtest(better, better + worse).pvalue if better + worse else 1.0
        margin = stats.norm.ppf(0.975) * variance**0.5
    elif variance < 1e-15:  # no text and no seed differs from another; what there is beyond 0 is rounding
        p_value = 0.5 ** (min(seeds, texts) - 1) if mean else 1.0
        margin = abs(mean) * stats.norm.isf(0.025) / stats.norm.isf(p_value / 2) if mean else 0.0
    else:
        freedom = variance**2 / (over_texts**2 / (texts - 1) + over_seeds**2 / (seeds - 1))
        p_value = 2 * stats.t.sf(abs(mean) / variance**0.5, freedom)
        margin = stats.t.ppf(0.975, freedom) * variance**0.5
    return {"difference": float(mean), "ci95": [float(mean - margin), float(mean + margin)], "p_value": float(p_value)}


def variances(difference, examples=None):
    """Variances of the mean of (seeds, texts) differences, by the draw of the texts and by that of the seeds (0 for one).

    Where seeds have texts of their own the latter counts their draw, too, which is on the careful side.

    difference: (seeds, texts) float
    examples: (seeds, texts) int, which text each is; None: all seeds have the same in the same order
    """
    seeds, texts = difference.shape
    over_seeds = difference.mean(axis=1).var(ddof=1) / seeds if seeds > 1 else 0.0
    if examples is None:
        return difference.mean(axis=0).var(ddof=1) / texts, over_seeds
    _, place = np.unique(examples, return_inverse=True)  # what a text adds to the mean, in all seeds that have it
    shares = np.bincount(place.ravel(), (difference - difference.mean()).ravel()) / difference.size
    return (shares**2).sum() * len(shares) / max(len(shares) - 1, 1), over_seeds


def plainest(correct, examples):
    """Which of some models to take: the first that the most accurate one does not lead by more than the noise.

    The noise is one standard error of the paired difference (the one-standard-error rule, Breiman et al. 1984, section 3.4.3).

    correct: {name: (seeds, texts) bool}, the plainest first: whether it classified each validation text rightly
    examples: (seeds, texts) int, which text each is: seeds have them in orders of their own, or others

    Returns (its name, {"best", "lead", "noise"}): the most accurate, its lead over the first, its standard error, as fractions.
    """
    best = max(correct, key=lambda name: correct[name].mean())
    for name in correct:
        difference = correct[best].astype(float) - correct[name]
        lead, noise = float(difference.mean()), float(sum(variances(difference, examples)) ** 0.5)
        if lead <= noise:
            return name, {"best": best, "lead": lead, "noise": noise}


def pack_bits(correct):
    """(examples,) bool as text, four to a hexadecimal digit; `unpack_bits` has them back."""
    return np.packbits(correct).tobytes().hex()


def unpack_bits(text, count):
    """What `pack_bits` made of `count` examples."""
    return np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8), count=count).astype(bool)
