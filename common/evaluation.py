"""What a model is worth: accuracy and macro-F1, paired comparisons, parameters, FLOPs and latency.

Functions take arrays and models and return values; choosing models by these values is the training module's work.
"""

import itertools
import time

import numpy as np
from scipy import stats
from scipy.special import log_softmax
from sklearn.metrics import accuracy_score, f1_score

from common.backend import tf
from common.data import by_length


def predict(model, examples, rows, batch_size=None):
    """Logits of `model` for the examples `rows`: (rows, …) float32 as the model gives them, in the order of `rows`.

    Batches are formed by length, so that short texts do not pay for long ones. examples: Encoded or Images. batch_size: as
    many as suit the examples, unless given.
    """
    if not hasattr(model, "answer"):  # traced once, on the model's own device: predict_on_batch would share a batch out
        model.answer = tf.function(lambda inputs: model(inputs, training=False), input_signature=[examples.spec])
    found = None
    for chosen in by_length(examples.lengths(rows), batch_size or examples.at_once):
        batch = model.answer(examples.inputs(rows[chosen])).numpy()
        if found is None:
            found = np.empty((len(rows), *batch.shape[1:]), np.float32)
        found[chosen] = batch
    return found


def scores(labels, logits):
    """{"accuracy", "macro_f1"} of the most probable classes, as fractions. labels: (rows,); logits: (rows, classes)."""
    predicted = logits.argmax(axis=-1)
    return {
        "accuracy": float(accuracy_score(labels, predicted)),
        "macro_f1": float(f1_score(labels, predicted, average="macro", zero_division=0)),
    }


def calibration(labels, logits, bins=15):
    """{"ece", "nll"}: how far the probabilities at T = 1 can be taken at their word. labels: (rows,); logits: (rows, classes).

    ece: expected calibration error Σ_b n_b / n · |accuracy_b - confidence_b| over `bins` equal intervals of the highest
    probability (Guo et al. 2017, arXiv 1706.04599, equation 3), as a fraction. nll: mean -log of the true label's
    probability, in nats.
    """
    log_p = log_softmax(np.asarray(logits, np.float64), axis=-1)
    confidence = np.exp(log_p.max(axis=-1))
    right = logits.argmax(axis=-1) == labels
    held = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(held, right - confidence, minlength=bins)
    return {"ece": float(np.abs(gaps).sum() / len(labels)), "nll": float(-log_p[np.arange(len(labels)), labels].mean())}


def compare(correct_a, correct_b, confidence=0.95):
    """Is A more accurate than B, on the same texts or images?

    correct_a, correct_b: (seeds, texts) bool, whether each was classified rightly.
    Returns {"difference", "ci95", "p_value"}: A's accuracy less B's, its interval, and the two-sided p-value.

    One seed: the exact McNemar test, and the normal interval for paired proportions. Several: a t-test in which both the
    draw of the texts and the seeds of training count as chance. The variance of the difference is that of its mean over
    texts plus that of its mean over seeds (which counts their interaction twice, so the test is on the careful side), the
    degrees of freedom are Satterthwaite's.
    """
    difference = np.asarray(correct_a, float) - np.asarray(correct_b, float)
    seeds, texts = difference.shape
    mean = difference.mean()
    over_texts = difference.mean(axis=0).var(ddof=1) / texts
    if seeds == 1:
        better, worse = int((difference > 0).sum()), int((difference < 0).sum())
        p_value = stats.binomtest(better, better + worse).pvalue if better + worse else 1.0
        margin = stats.norm.ppf(0.5 + confidence / 2) * over_texts**0.5
    else:
        over_seeds = difference.mean(axis=1).var(ddof=1) / seeds
        variance = over_texts + over_seeds
        if variance == 0:
            p_value, margin = float(mean == 0), 0.0
        else:
            freedom = variance**2 / (over_texts**2 / (texts - 1) + over_seeds**2 / (seeds - 1))
            p_value = 2 * stats.t.sf(abs(mean) / variance**0.5, freedom)
            margin = stats.t.ppf(0.5 + confidence / 2, freedom) * variance**0.5
    return {
        "difference": float(mean),
        "ci95": [float(mean - margin), float(mean + margin)],
        "p_value": float(p_value),
    }


def parameters(model):
    """Number of weights, trainable or not."""
    return int(sum(np.prod(weight.shape) for weight in model.weights))


def graph_flops(model):
    """Floating-point operations of `model` for one example, as TensorFlow's profiler counts them; a multiply-add is two.

    The profiler does not count Einsum, so BERTs, whose attention is made of it, have `encoder_flops`.
    """
    inputs = [tf.TensorSpec([1, *x.shape[1:]], x.dtype) for x in model.inputs]
    graph = tf.function(lambda *x: model(x[0] if len(x) == 1 else list(x))).get_concrete_function(*inputs).graph
    options = tf.compat.v1.profiler.ProfileOptionBuilder.float_operation() | {"output": "none"}
    return tf.compat.v1.profiler.profile(graph, cmd="op", options=options).total_float_ops


def encoder_flops(config, tokens):
    """Floating-point operations of a BERT encoder for one text of `tokens` tokens; a multiply-add counts as two.

    Counted are the matrix products of the layers, which are nearly all of the work: four hidden x hidden ones, the
    two of attention, and the two of the feed-forward part. config: the entries of config.json.
    """
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    layer = 4 * tokens * hidden * hidden + 2 * tokens * tokens * hidden + 2 * tokens * hidden * inner
    return 2 * config["num_hidden_layers"] * layer


def latency(models, inputs, batch_sizes=(1, 32), rounds=15):
    """Median wall-clock time of one forward pass: {name: {str(batch size): milliseconds}}.

    models: {name: model}. inputs: batch size -> their inputs. How it is measured: see `wall_clock`.
    """
    runs = {name: tf.function(lambda x, model=model: model(x)) for name, model in models.items()}
    times = {size: wall_clock(runs, [inputs(size)], rounds) for size in batch_sizes}
    return {name: {str(size): 1000 * float(times[size][name][0]) for size in batch_sizes} for name in models}


def wall_clock(runs, batches, rounds):
    """Median wall-clock seconds of each batch over `rounds` rounds: {name: (batches,) float64}.

    runs: {name: function of a batch that returns tensors}. They take turns at every batch in an order of its own, so that a
    busy moment of the machine falls on all of them, and what one leaves in the cache serves none more than another; two
    first rounds, in which graphs are built and memory is claimed, do not count.
    """
    names, order = [*runs], np.random.default_rng(0)
    seconds = {name: np.zeros((rounds + 2, len(batches))) for name in names}
    for turn, (place, batch) in itertools.product(range(rounds + 2), enumerate(batches)):
        for name in map(names.__getitem__, order.permutation(len(names))):
            run = runs[name]
            start = time.perf_counter()
            tf.nest.map_structure(lambda tensor: tensor.numpy(), run(batch))  # all of it is there
            seconds[name][turn, place] = time.perf_counter() - start
    return {name: np.median(found[2:], axis=0) for name, found in seconds.items()}
