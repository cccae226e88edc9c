"""What a model is worth: accuracy and macro-F1, paired comparisons, parameters, FLOPs and latency.

Functions take arrays and models and return values; choosing models by these values is the training module's work.
"""

import time

import numpy as np
from scipy import stats
from sklearn.metrics import accuracy_score, f1_score

from common.backend import tf
from common.data import by_length


def predict(model, encoded, rows, batch_size=64):
    """Logits of `model` for the texts `rows`: (rows, classes) float32, in the order of `rows`.

    Batches are formed by length, so that short texts do not pay for long ones. `model`: (token ids, segment ids) -> logits.
    """
    found = None
    for chosen in by_length(encoded.lengths(rows), batch_size):
        token_ids = encoded.take(rows[chosen])
        batch = model.predict_on_batch([token_ids, np.zeros_like(token_ids)])
        if found is None:
            found = np.empty((len(rows), batch.shape[1]), np.float32)
        found[chosen] = batch
    return found


def scores(labels, logits):
    """{"accuracy", "macro_f1"} of the most probable classes, as fractions. labels: (texts,); logits: (texts, classes)."""
    predicted = logits.argmax(axis=-1)
    return {
        "accuracy": float(accuracy_score(labels, predicted)),
        "macro_f1": float(f1_score(labels, predicted, average="macro", zero_division=0)),
    }


def compare(correct_a, correct_b, confidence=0.95):
    """Is A more accurate than B, on the same texts?

    correct_a, correct_b: (seeds, texts) bool, whether each text was classified rightly.
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


def encoder_flops(config, tokens):
    """Floating-point operations of a BERT encoder for one text of `tokens` tokens; a multiply-add counts as two.

    Counted are the matrix products of the layers, which are nearly all of the work: four hidden x hidden ones, the
    two of attention, and the two of the feed-forward part. config: the entries of config.json.
    """
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    layer = 4 * tokens * hidden * hidden + 2 * tokens * tokens * hidden + 2 * tokens * hidden * inner
    return 2 * config["num_hidden_layers"] * layer


def latency(models, tokens, batch_sizes=(1, 32), rounds=15):
    """Median wall-clock time of one forward pass: {name: {str(batch size): milliseconds}}.

    models: {name: model}. They take turns within each round, so that a busy moment of the machine falls on all of them;
    the first passes, in which graphs are built and memory is claimed, do not count. tokens: length of every text.
    """
    runs = {name: tf.function(lambda ids, model=model: model((ids, tf.zeros_like(ids)))) for name, model in models.items()}
    times = {name: {} for name in models}
    for size in batch_sizes:
        token_ids = tf.ones((size, tokens), tf.int32)
        seconds = {name: [] for name in models}
        for turn in range(rounds + 2):
            for name, run in runs.items():
                start = time.perf_counter()
                run(token_ids).numpy()
                if turn >= 2:
                    seconds[name].append(time.perf_counter() - start)
        for name in models:
            times[name][str(size)] = 1000 * float(np.median(seconds[name]))
    return times
