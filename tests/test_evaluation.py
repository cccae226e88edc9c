"""Scores, paired tests, FLOPs and latency."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.special import softmax

from common import data, evaluation, pretrained
from common.backend import keras, tf
from common.evaluation import (
    calibration,
    compare,
    encoder_flops,
    graph_flops,
    latency,
    parameters,
    predict,
    scores,
    wall_clock,
)
from tests import tiny


@pytest.fixture(scope="module")
def bert(bert_folder):
    return pretrained.load(str(bert_folder))


@pytest.fixture(scope="module")
def encoded(bert):
    return data.encode([text for text, _ in tiny.texts(41)], bert.tokenizer, maxlen=16)


@pytest.fixture(scope="module")
def classifier(bert):
    encoder = pretrained.build_encoder(bert, dropout=0.1)
    return keras.Model(encoder.model.inputs, keras.layers.Dense(3)(encoder.model.output[:, 0]))


def test_predictions_are_in_the_order_of_the_rows_and_do_not_depend_on_the_batch(classifier, encoded):
    rows = np.random.default_rng(0).permutation(41)
    whole = predict(classifier, encoded, rows)
    assert whole.shape == (41, 3)
    for i, row in enumerate(rows[:5]):
        one = classifier(encoded.inputs(np.array([row])), training=False).numpy()[0]
        np.testing.assert_allclose(whole[i], one, atol=1e-5)
    np.testing.assert_allclose(predict(classifier, encoded, rows, batch_size=7), whole, atol=1e-5)


def test_scores():
    logits = np.eye(3)[[0, 0, 1, 2]]
    found = scores(np.array([0, 1, 1, 1]), logits)
    assert found["accuracy"] == 0.5
    # class 0: precision 1/2, recall 1; class 1: 1, 1/3; class 2: never right
    assert found["macro_f1"] == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)


def test_calibration_by_hand():
    """Two bins: four answers at 0.6 of which two are right, one at 0.9 that is right."""
    p = np.array([[0.6, 0.4], [0.6, 0.4], [0.6, 0.4], [0.4, 0.6], [0.1, 0.9]])
    labels = np.array([0, 1, 0, 0, 1])
    found = calibration(labels, np.log(p) + 7, bins=10)
    assert found["ece"] == pytest.approx(4 / 5 * abs(2 / 4 - 0.6) + 1 / 5 * abs(1 - 0.9))
    assert found["nll"] == pytest.approx(-np.log([0.6, 0.4, 0.6, 0.4, 0.9]).mean())


def test_a_model_that_can_be_taken_at_its_word_has_no_calibration_error():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (100_000, 5))
    p = softmax(logits, axis=-1)
    labels = (p.cumsum(axis=-1) < rng.random((100_000, 1))).sum(axis=-1)
    assert calibration(labels, logits)["ece"] < 0.01
    assert calibration(labels, 3 * logits)["ece"] > 0.1  # too sure of itself


@given(st.integers(1, 30), st.integers(2, 6), st.floats(0, 1e4), st.integers(0, 99))
def test_calibration_is_finite_whatever_the_logits(rows, classes, scale, seed):
    rng = np.random.default_rng(seed)
    labels, logits = rng.integers(0, classes, rows), (scale * rng.normal(size=(rows, classes))).astype(np.float32)
    found = calibration(labels, logits)
    assert 0 <= found["ece"] <= 1 and 0 <= found["nll"] < np.inf
    probability = softmax(logits.astype(float), axis=-1).max(axis=-1)
    edges = np.linspace(0, 1, 16)
    expected = 0.0
    for low, high in pairwise(edges):
        held = (probability >= low) & ((probability < high) | (high == 1.0))
        if held.any():
            expected += held.mean() * abs((logits.argmax(-1) == labels)[held].mean() - probability[held].mean())
    if np.abs(probability[:, None] - edges).min() > 1e-6:  # at an edge rounding decides
        assert found["ece"] == pytest.approx(expected, abs=1e-9)


def test_one_seed_is_mcnemars_exact_test():
    better, worse, same = 21, 9, 170
    a = np.array([1] * better + [0] * worse + [1] * same)[None]
    b = np.array([0] * better + [1] * worse + [1] * same)[None]
    found = compare(a, b)
    assert found["difference"] == pytest.approx(12 / 200)
    tail = sum(stats.binom.pmf(k, 30, 0.5) for k in range(10))
    assert found["p_value"] == pytest.approx(2 * tail)
    error = np.sqrt((30 - 12**2 / 200) / 199 / 200)
    np.testing.assert_allclose(found["ci95"], [0.06 - 1.96 * error, 0.06 + 1.96 * error], atol=1e-5)


def test_several_seeds_count_texts_and_seeds_as_chance():
    rng = np.random.default_rng(0)
    a, b = rng.random((5, 400)) < 0.8, rng.random((5, 400)) < 0.7
    difference = a.astype(float) - b
    found = compare(a, b)
    over_texts = stats.sem(difference.mean(axis=0)) ** 2
    over_seeds = stats.sem(difference.mean(axis=1)) ** 2
    low, high = found["ci95"]
    assert found["difference"] == pytest.approx(difference.mean())
    assert high - low > 2 * 1.96 * (over_texts + over_seeds) ** 0.5
    assert high - low < 2 * stats.t.ppf(0.975, 4) * (over_texts + over_seeds) ** 0.5


def test_the_test_for_several_seeds_keeps_its_level():
    """Two equal models, whose accuracy changes with the text and with the seed: p < 0.05 in no more than 5 % or so."""
    rng = np.random.default_rng(1)
    false_alarms = 0
    for _ in range(400):
        chance = 1 / (1 + np.exp(-(rng.normal(1, 2, 300) + rng.normal(0, 0.2, (2, 5, 1)))))  # (models, seeds, texts)
        a, b = rng.random((2, 5, 300)) < chance
        false_alarms += compare(a, b)["p_value"] < 0.05
    assert false_alarms <= 30


@given(st.integers(1, 4), st.integers(2, 30), st.integers(0, 99))
def test_comparisons_are_antisymmetric(seeds, texts, seed):
    a, b = np.random.default_rng(seed).random((2, seeds, texts)) < 0.5
    ab, ba = compare(a, b), compare(b, a)
    assert ab["difference"] == pytest.approx(-ba["difference"])
    assert ab["p_value"] == pytest.approx(ba["p_value"]) and 0 <= ab["p_value"] <= 1
    np.testing.assert_allclose(ab["ci95"], [-ba["ci95"][1], -ba["ci95"][0]])
    assert ab["ci95"][0] <= ab["difference"] <= ab["ci95"][1]


def test_a_model_against_itself():
    a = np.random.default_rng(0).random((3, 50)) < 0.5
    assert compare(a, a) == {"difference": 0.0, "ci95": [0.0, 0.0], "p_value": 1.0}


def test_flops_are_those_tensorflow_counts(bert):
    encoder = pretrained.build_encoder(bert, dropout=0)
    tokens, config = 24, bert.config
    graph = tf.function(lambda *x: encoder.model(list(x))).get_concrete_function(*[tf.TensorSpec((1, tokens))] * 2).graph
    options = tf.compat.v1.profiler.ProfileOptionBuilder.float_operation() | {"output": "none"}
    profile = tf.compat.v1.profiler.profile(graph, cmd="op", options=options)
    while profile.name != "MatMul":
        profile = profile.children[0]
    # TensorFlow does not count Einsum, in which bert4keras does the two products of attention.
    attention = config["num_hidden_layers"] * 2 * 2 * tokens * tokens * config["hidden_size"]
    assert encoder_flops(config, tokens) == profile.float_ops + attention


def test_flops_of_a_network_without_attention():
    """A product of n x m weights is 2 n m operations; adding the biases and ReLU are one each."""
    layers = [keras.Input((6,)), keras.layers.Dense(5, activation="relu"), keras.layers.Dense(3)]
    found = graph_flops(keras.Sequential(layers))
    assert 2 * (6 * 5 + 5 * 3) + 5 + 3 <= found <= 2 * (6 * 5 + 5 * 3) + 5 + 3 + 5


def test_flops_of_bert_base_are_the_published_ones():
    """FastBERT (2004.02178) gives 21,785 M for BERT-base at 128 tokens, a multiply-add counting as two; with its classifier."""
    config = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12}
    assert encoder_flops(config, 128) == pytest.approx(21_785e6, rel=0.04)


def test_parameters(bert, classifier):
    expected = sum(np.prod(shape) for shape in pretrained.expected_shapes(bert.config).values()) + 32 * 3 + 3
    assert parameters(classifier) == expected


def test_latency_is_measured_for_each_model_and_batch(classifier, encoded):
    times = latency({"a": classifier, "b": classifier}, lambda n: encoded.inputs(np.arange(n)), batch_sizes=(1, 4), rounds=3)
    assert times.keys() == {"a", "b"}
    assert all(time.keys() == {"1", "4"} and min(time.values()) > 0 for time in times.values())


def test_wall_clock_takes_turns_in_an_order_of_its_own_and_counts_the_last_rounds(monkeypatch):
    called, now = [], [0.0]
    monkeypatch.setattr(evaluation.time, "perf_counter", lambda: now[0])

    def timed(name, seconds):
        def run(batch):
            called.append((name, batch))
            now[0] += 9 if len(called) <= 8 else seconds[batch] + (len(called) == 12)  # two slow rounds, then a stall
            return tf.constant(0)

        return run

    found = wall_clock({"slow": timed("slow", {"x": 3, "y": 4}), "quick": timed("quick", {"x": 1, "y": 2})}, ["x", "y"], 3)
    assert [batch for _, batch in called] == ["x", "x", "y", "y"] * 5
    assert len({tuple(name for name, _ in called[i : i + 2]) for i in range(0, 20, 2)}) == 2  # both orders occur
    assert found["slow"].tolist() == [3, 4] and found["quick"].tolist() == [1, 2]
