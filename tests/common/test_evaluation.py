"""common.evaluation: predictions, scores, calibration, paired tests."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.special import softmax

from common.evaluation import calibration, compare, plainest, predict, prediction_graph, scores, variances
from tests import tiny


def test_predictions_are_in_the_order_of_the_indices_and_do_not_depend_on_the_batch(taken, monkeypatch):
    classifier, examples = taken.classifier.model, tiny.tokenized([text for text, _ in tiny.texts(41)], taken.bert)
    indices = np.random.default_rng(0).permutation(41)
    whole = predict(classifier, examples, indices)
    assert whole.shape == (41, 4) and whole.dtype == np.float32
    for i, index in enumerate(indices[:5]):
        one = classifier(examples.inputs(np.array([index])), training=False).numpy()[0]
        np.testing.assert_allclose(whole[i], one, atol=1e-5)
    graph = prediction_graph(classifier, examples)
    monkeypatch.setattr(type(examples), "predict_batch_size", 7)
    for _ in range(2):
        np.testing.assert_allclose(predict(classifier, examples, indices, graph), whole, atol=1e-5)
    assert graph.experimental_get_tracing_count() == 1  # whatever the size of a batch and the length of its texts


def test_scores():
    logits = np.eye(3)[[0, 0, 1, 2]]
    found = scores(np.array([0, 1, 1, 1]), logits)
    assert found["accuracy"] == 0.5
    # class 0: precision 1/2, recall 1; class 1: 1, 1/3; class 2 does not occur
    assert found["macro_f1"] == pytest.approx((2 / 3 + 1 / 2) / 2)


@given(st.integers(1, 40), st.integers(2, 6), st.integers(0, 99))
def test_macro_f1_is_the_mean_over_the_same_classes_for_all_models(examples, classes, seed):
    """Those of the labels, by the definition; what a model answers beside them lowers their recall, and is no class more."""
    rng = np.random.default_rng(seed)
    labels, answers = rng.integers(0, classes, examples), rng.integers(0, classes, examples)
    of_class = [2 * ((answers == c) & (labels == c)).sum() / ((answers == c).sum() + (labels == c).sum()) for c in set(labels)]
    assert scores(labels, np.eye(classes)[answers])["macro_f1"] == pytest.approx(np.mean(of_class))


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
def test_calibration_is_finite_whatever_the_logits(examples, classes, scale, seed):
    rng = np.random.default_rng(seed)
    labels, logits = rng.integers(0, classes, examples), (scale * rng.normal(size=(examples, classes))).astype(np.float32)
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


@pytest.mark.parametrize("of_seeds", [True, False])
def test_where_seeds_or_texts_alone_differ_it_is_the_t_test_over_them(of_seeds):
    """scipy's, of one sample: five seeds that each give all texts the same difference, or texts that all seeds agree on."""
    means = np.array([1, 1, 0, 1, 1]) if of_seeds else np.random.default_rng(0).integers(-1, 2, 30)
    difference = np.broadcast_to(means[:, None], (5, 30)) if of_seeds else np.broadcast_to(means, (5, 30))
    found, expected = compare(difference > 0, difference < 0), stats.ttest_1samp(means, 0)
    assert found["p_value"] == pytest.approx(expected.pvalue)
    np.testing.assert_allclose(found["ci95"], expected.confidence_interval(0.95))


@given(st.integers(2, 6), st.integers(2, 60), st.integers(0, 10**6))
def test_degrees_of_freedom_are_those_of_welch(seeds, texts, seed):
    """Welch's t-test of the texts' means against the seeds' means about 0 has this variance and Satterthwaite's degrees."""
    a, b = np.random.default_rng(seed).random((2, seeds, texts)) < 0.5
    difference = a.astype(float) - b
    of_texts, of_seeds = difference.mean(axis=0), difference.mean(axis=1) - difference.mean()
    if min(of_texts.var(), of_seeds.var()) < 1e-12:
        return  # where one has nothing of chance, scipy's rounding decides
    expected, found = stats.ttest_ind(of_texts, of_seeds, equal_var=False), compare(a, b)
    assert found["p_value"] == pytest.approx(expected.pvalue, abs=1e-9)
    np.testing.assert_allclose(found["ci95"], expected.confidence_interval(), atol=1e-9)


@pytest.mark.parametrize(("seeds", "spread", "most"), [(5, 0.2, 0.07), (5, 1.0, 0.08), (3, 1.0, 0.1)])
def test_the_test_for_several_seeds_keeps_its_level(seeds, spread, most):
    """Two equal models, whose accuracy changes with the text and with the seed: p < 0.05 in no more than 5 % or so.

    Of three seeds that differ much in no more than 8 % or so: see `compare`.
    """
    rng = np.random.default_rng(1)
    false_alarms = 0
    for _ in range(400):
        chance = 1 / (1 + np.exp(-(rng.normal(1, 2, 300) + rng.normal(0, spread, (2, seeds, 1)))))  # (models, seeds, texts)
        a, b = rng.random((2, seeds, 300)) < chance
        false_alarms += compare(a, b)["p_value"] < 0.05
    assert false_alarms / 400 <= most


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


@pytest.mark.parametrize(
    ("a", "b", "difference", "p_value"),
    [
        (np.ones((5, 40)), np.zeros((5, 40)), 1.0, 2 * 0.5**5),  # five seeds that agree, as five heads of five throws
        (np.zeros((2, 9)), np.ones((2, 9)), -1.0, 2 * 0.5**2),
        (np.eye(3), np.zeros((3, 3)), 1 / 3, 2 * 0.5**3),  # each seed and each text differ by a third
        (np.eye(2), 1 - np.eye(2), 0.0, 1.0),
    ],
)
def test_without_any_noise_to_estimate_nothing_is_certain(a, b, difference, p_value):
    found = compare(a, b)
    assert found["difference"] == pytest.approx(difference) and found["p_value"] == pytest.approx(p_value)
    low, high = found["ci95"]
    assert low <= 0 <= high  # as these p-values are above 0.05
    if difference:  # the normal interval whose test of 0 has this p-value
        error = (high - low) / 2 / 1.959964
        assert 2 * stats.norm.sf(abs(difference) / error) == pytest.approx(p_value, rel=1e-5)


def test_ten_seeds_that_agree_are_enough():
    found = compare(np.ones((10, 40)), np.zeros((10, 40)))
    assert found["p_value"] == pytest.approx(2 / 1024) and 0 < found["ci95"][0] < 1


def test_the_plainest_is_taken_within_one_standard_error():
    """By hand: of 100 texts B is right about 4 more than A: a lead of 0.04 with a standard error of sqrt(0.0384 / 99)."""
    a = np.arange(100) < 80
    b = np.arange(100) < 84
    same = np.arange(100)[None]
    name, choice = plainest({"a": a[None], "b": b[None]}, same)
    assert name == "b" and choice == {"best": "b", "lead": 0.0, "noise": 0.0}
    worse_too = np.where(np.arange(100) < 3, False, b)  # now 4 better, 3 worse
    name, choice = plainest({"a": a[None], "b": worse_too[None]}, same)
    difference = worse_too.astype(float) - a
    assert name == "a" and choice["best"] == "b" and choice["lead"] == pytest.approx(0.01)
    assert choice["noise"] == pytest.approx((difference.var(ddof=1) / 100) ** 0.5)
    assert plainest({"b": worse_too[None], "a": a[None]}, same)[0] == "b"  # of equals the first


@given(st.integers(1, 4), st.integers(2, 40), st.integers(1, 5), st.integers(0, 999))
def test_who_is_taken_is_not_led_by_more_than_the_noise_and_all_before_are(seeds, texts, models, seed):
    rng = np.random.default_rng(seed)
    correct = {f"model {i}": rng.random((seeds, texts)) < 0.3 + 0.1 * i for i in range(models)}
    same = np.tile(np.arange(texts), (seeds, 1))
    name, choice = plainest(correct, same)
    best = max(correct, key=lambda each: correct[each].mean())
    assert choice["best"] == best and 0 <= choice["lead"] <= choice["noise"]
    for other in [*correct][: [*correct].index(name)]:
        difference = correct[best].astype(float) - correct[other]
        over_seeds = difference.mean(axis=1).var(ddof=1) / seeds if seeds > 1 else 0
        assert difference.mean() > (difference.mean(axis=0).var(ddof=1) / texts + over_seeds) ** 0.5


@given(st.integers(2, 5), st.integers(2, 40), st.integers(0, 999))
def test_the_noise_is_that_of_the_texts_in_whatever_order_a_seed_has_them(seeds, texts, seed):
    """Each text counts once for its share in all seeds: else the texts that all seeds find hard would even out."""
    rng = np.random.default_rng(seed)
    hard = rng.random(texts)
    correct = {name: rng.random((seeds, texts)) < hard + shift for name, shift in (("a", 0.0), ("b", 0.2))}
    orders = np.array([rng.permutation(texts) for _ in range(seeds)])
    shuffled = {name: np.take_along_axis(of_all, orders, axis=1) for name, of_all in correct.items()}
    name, choice = plainest(correct, np.tile(np.arange(texts), (seeds, 1)))
    other, found = plainest(shuffled, orders)
    assert (other, found["best"]) == (name, choice["best"]) and found["noise"] == pytest.approx(choice["noise"], abs=1e-12)


def test_the_noise_of_texts_that_each_seed_draws_anew():
    """By hand: all pairs of seed and text are texts of their own then."""
    rng = np.random.default_rng(0)
    difference = rng.normal(0.1, 1, (3, 20))
    over_texts, over_seeds = variances(difference, np.arange(60).reshape(3, 20))
    assert over_texts == pytest.approx(difference.var(ddof=1) / 60)
    assert over_seeds == pytest.approx(difference.mean(axis=1).var(ddof=1) / 3)
