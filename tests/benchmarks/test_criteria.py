"""tests.benchmarks.criteria: each uncertainty against one written in numpy, text by text; the temperatures of exits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.special import log_softmax, softmax

from common import InputError
from common.backend import tf
from common.exit_curve import exit_layers
from knowledge_distillation_fastbert import uncertainty
from tests.benchmarks import criteria
from tests.benchmarks.criteria import confidence, criterion_of, fit_temperatures, patience_steps, uncertainty_of_exits


def of_settings(logits, *given):
    return uncertainty_of_exits(logits, criterion_of(logits.shape[1], *given))


def numpy_leaving(logits, criterion, exit_patience, speed):
    """After how many layers each text leaves, by the papers' counters, a text and a layer at a time.

    logits: (texts, layers, classes). For patience, `speed` is the number of layers that must agree with the one before.
    """
    left = []
    for text in logits.astype(np.float64):
        counter, before, number = 0, None, 0
        for of_layer in text[:-1]:
            number += 1
            p = softmax(of_layer)
            if criterion == "patience":
                answer = None if np.isnan(p).any() else int(np.argmax(of_layer))
                counter, before = (counter + 1 if answer is not None and answer == before else 0), answer
                if counter and counter >= speed:
                    break
                continue
            u = stats.entropy(p) / np.log(len(p)) if criterion == "entropy" else (1 - p.max()) * len(p) / (len(p) - 1)
            counter = counter + 1 if u < speed else 0
            if counter == exit_patience:
                break
        else:
            number = len(text)
        left.append(number)
    return np.array(left)


LOGITS = st.integers(0, 10**6).flatmap(lambda seed: st.builds(
    lambda *given: made_up(seed, *given), st.sampled_from([0.3, 2, 9]), st.integers(2, 6), st.booleans(),
))


def made_up(seed, scale, layers, ties):
    """(8 texts, layers, 4 classes) float32, a layer of NaN here and there; with ties, of few values."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, scale, (8, 1, 4)) + rng.normal(0, scale / 2, (8, layers, 4))
    logits = np.rint(logits / scale) * scale if ties else logits
    logits[rng.random((8, layers)) < 0.1] = np.nan
    return logits.astype(np.float32)


@given(LOGITS, st.sampled_from(["entropy", "confidence"]), st.integers(1, 4), st.sampled_from([0.0, 0.1, 0.4, 0.8, 0.95, 1.0]))
def test_so_many_layers_in_a_row_must_be_sure(logits, criterion, exit_patience, speed):
    """As PCEE's counter has it, which starts anew at each layer that is not sure; at both ends of the speeds, too."""
    u = of_settings(logits, criterion, exit_patience)
    alone = of_settings(logits, criterion)
    clear = ~(np.abs(alone - speed) < 1e-5).any(axis=1)  # elsewhere a rounding decides
    expected = numpy_leaving(logits, criterion, exit_patience, speed)
    assert (exit_layers(u, speed) == expected)[clear].all()
    assert speed or (exit_layers(u, speed) == logits.shape[1]).all()
    assert ((u >= 0) & (u <= 1) | np.isnan(u)).all() and (np.isnan(u) == np.isnan(logits).any(axis=-1)).all()


@given(LOGITS, st.integers(1, 5))
def test_patience_is_the_papers_counter(logits, patience):
    """At the speed that stands for a patience the very texts leave that it lets leave; none at speed 0."""
    layers = logits.shape[1]
    u, speed = of_settings(logits, "patience"), 1 - (patience - 1) / (layers - 1)
    if patience < layers:
        assert exit_layers(u, speed).tolist() == numpy_leaving(logits, "patience", 1, patience).tolist()
    assert (exit_layers(u, 0.0) == layers).all() and (np.isnan(u) == np.isnan(logits).any(axis=-1)).all()
    assert np.isin(u[~np.isnan(u)], patience_steps(layers)).all()


def test_patience_by_hand():
    """Answers 1 1 0 0 0, ties that go to the first, and a layer of NaN, after which the count starts anew."""
    one, other, tie, nan = [0, 5, 0], [5, 0, 0], [3, 3, 0], [np.nan, 0, 0]
    logits = np.array([[one, one, other, other, other], [other, tie, tie, one, one], [one, one, nan, one, one],
                       [one, nan, nan, one, one]], np.float32)
    expected = [[1, 0.75, 1, 0.75, 0.5], [1, 0.75, 0.5, 1, 0.75], [1, 0.75, np.nan, 1, 0.75], [1, np.nan, np.nan, 1, 0.75]]
    np.testing.assert_array_equal(of_settings(logits, "patience"), np.array(expected, np.float32))


@given(LOGITS)
def test_one_layer_alone_is_the_plain_entropy(logits):
    for top_k in (0, 2):
        np.testing.assert_array_equal(of_settings(logits, "entropy", 1, top_k), uncertainty(tf.nn.softmax(logits), top_k))


def test_confidence_at_its_ends():
    p = np.array([[1, 0, 0, 0], [0.25] * 4, [0.7, 0.1, 0.1, 0.1], [np.nan, 0, 0, 0], [0, 0.5, 0.5, 0]], np.float32)
    np.testing.assert_allclose(confidence(p), [0, 1, 0.4, np.nan, 2 / 3], atol=1e-6)
    assert confidence(np.full((1, 7), np.float32(1 / 7))).numpy()[0] <= 1


def test_a_state_belongs_to_its_text():
    """Asked layer by layer for a batch that shrinks, each text has the u that it has when it is alone."""
    logits = made_up(3, 2, 6, False)
    for given_settings in (("patience",), ("entropy", 3), ("confidence", 2)):
        whole, criterion = of_settings(logits, *given_settings), criterion_of(6, *given_settings)
        staying, state = np.arange(8), ()
        for layer in range(6):
            u, state = criterion(tf.nn.softmax(logits[staying, layer]), *state)
            np.testing.assert_array_equal(u, whole[staying, layer])
            keep = np.arange(0, len(staying), 2) if layer in (1, 3) else np.arange(len(staying))
            staying, state = staying[keep], tuple(tf.gather(each, keep) for each in state)


# Temperatures


def test_temperatures_are_the_best_of_a_fine_grid():
    """Branches that are too sure, or not sure enough, by a factor; the teacher's exit stays as it is."""
    rng = np.random.default_rng(0)
    true = rng.normal(0, 2, (3000, 4))
    labels = (true + rng.gumbel(size=true.shape)).argmax(axis=-1)  # drawn with the probabilities softmax(true)
    logits = np.stack([true * 3, true / 2, true, true * 5], axis=1).astype(np.float32)
    found = fit_temperatures(labels, logits)
    assert found[-1] == 1 and found[:-1] == pytest.approx([3, 0.5, 1], rel=0.1)
    for of_exit, temperature in zip(logits.swapaxes(0, 1)[:-1], found, strict=False):
        def nll(t, of_exit=of_exit):
            return -log_softmax(of_exit / t, axis=-1)[np.arange(3000), labels].mean()

        assert nll(temperature) <= min(map(nll, np.geomspace(0.06, 19, 200))) + 1e-6


def test_a_branch_that_is_always_right_has_the_lowest_temperature():
    """Where no temperature is the best, it is the end of the range, not a number that overflows."""
    logits = np.eye(3, dtype=np.float32)[[0, 1, 2, 0]][:, None].repeat(3, axis=1)
    found = fit_temperatures(np.array([0, 1, 2, 0]), logits)
    assert found == pytest.approx([0.05, 0.05, 1], rel=0.05)


@pytest.mark.parametrize(("share", "layers", "lost"), [(0.0, 2, 0), (0.5, 1, -3), (1.0, 1, -3)])
def test_what_a_drop_costs(monkeypatch, share, layers, lost):
    """The first of two layers gets 2 % of the texts wrong that the second gets right, and 5 % the other way round: a choice by
    losses alone takes both layers; with half of the gains taken off, or all of them, the first.
    """
    monkeypatch.setattr(criteria, "DRAWS", 50)
    number = np.arange(10_000) % 100
    given = np.stack([number >= 95, number < 2, number < 2]).astype(int)  # 1 is wrong; above speed 0 all leave at once
    taken = np.repeat([[2], [1], [1]], len(number), axis=1)
    found = criteria.by_drop(np.zeros(len(number), int), given, taken, 5_000, share, np.random.default_rng(0))
    assert found.shape == (50, 2) and np.median(found, axis=0) == pytest.approx([layers, lost], abs=0.3)


def test_the_table_of_a_run(monkeypatch):
    """A row for each criterion, and but for patience one of calibrated exits. The first of four layers is right about the 1,800
    texts that it is sure of, and wrong about the 200 that it is not: those stay, so nothing is lost, and nothing is broken.
    """
    monkeypatch.setattr(criteria, "DRAWS", 20)
    rng = np.random.default_rng(0)
    labels, sure = rng.integers(0, 3, 2000), np.arange(2000) >= 200
    logits = np.repeat(6 * np.eye(3, dtype=np.float32)[labels][:, None], 4, axis=1)
    logits[~sure, 0] = 0.1 * np.eye(3, dtype=np.float32)[(labels[~sure] + 1) % 3]
    part = labels, logits, logits
    found = criteria.measured([{"validation": part, "test": part}])
    header, *rows = criteria.table(found)
    assert [row[0] for row in rows if "calibrated" not in row[0]] == [
        "entropy", "entropy of 2", "entropy of 5", "entropy, k by validation (0)", "confidence", "entropy, 2 in a row",
        "confidence, 2 in a row", "patience"]
    assert len(rows) == 2 * 8 - 1 and {len(row) for row in rows} == {len(header)} == {8}
    (entropy,) = (row for row in rows if row[0] == "entropy")
    assert float(entropy[5]) == pytest.approx(0.9 + 0.1 * 2, abs=0.01) and entropy[6] == "0.0"
    (patience,) = (row for row in rows if row[0] == "patience")
    assert float(patience[5]) > 1.9  # no layer agrees with one before it earlier than the second
    assert patience[1] == patience[2] == "" and float(patience[4]) == 0  # so it cannot take a third of four layers
    assert float(entropy[1]) > 0 and float(entropy[2]) == 0  # a quarter is one layer for all: the wrong answers are given
    header, *promised, broken = criteria.promised_table({"a": found, "b": found})
    assert header[1:] == ["a", "b"] and [row[0] for row in promised] == [*criteria.CRITERIA] and broken[1:] == 2 * ["0.0"]
    assert promised[0][1:] == 2 * [f"{entropy[5]} / {entropy[5]}"] and promised[-1][1:] == 2 * [patience[5]]
    other = criteria.measured([{"validation": part, "test": part}])
    criteria.check_promise({"a": other, "b": found})
    found["patience", False]["kept"][:, 1] = 0.3
    with pytest.raises(InputError, match=r"broken in more than 5.0% of the draws: b \(30.0%\)$"):
        criteria.check_promise({"a": other, "b": found})
