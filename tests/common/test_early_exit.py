"""common.early_exit: where texts leave, what the speeds give, what the clock is held against."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from scipy.special import softmax

from common.backend import tf
from common.batches import TokenizedTexts
from common.early_exit import exit_curve, exit_layers, exit_outputs, expected_speedup, time_exits

FLOPS = 400, np.array([110, 220, 330, 410])  # of the teacher, and of leaving after each of its four layers


@given(arrays(np.float32, (6, 4), elements=st.floats(0, 1, width=32)), st.floats(0, 1))
def test_exit_layers(u, speed):
    """The first layer whose uncertainty is below speed, else the last; at speed 0 nobody leaves; NaN never decides."""
    u[0, 1] = np.nan
    expected = [next((i + 1 for i in range(3) if row[i] < speed), 4) for row in u]
    before = u.copy()
    assert exit_layers(u, speed).tolist() == expected
    assert (exit_layers(u, 0) == 4).all()
    np.testing.assert_array_equal(u, before)


def test_what_a_text_takes_with_it():
    logits, u = np.arange(24).reshape(3, 4, 2), np.array([[0.9, 0.1, 0, 0], [0.2, 0, 0, 0], [0.9, 0.9, 0.9, 0.9]])
    layers, answers, doubts = exit_outputs((logits, u), 0.5)
    assert layers.tolist() == [2, 1, 4] and doubts.tolist() == [0.1, 0.2, 0.9]
    assert answers.tolist() == [[2, 3], [8, 9], [22, 23]]


def test_the_curve():
    """At speed 0 it is the teacher, at 1 the first branch (but for those that have no idea), computed by hand at 0.5."""
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(0, 3, (50, 4, 4)).astype(np.float32), rng.integers(0, 4, 50)
    u = stats.entropy(softmax(logits.astype(float), -1), axis=-1) / np.log(4)
    first, middle, last = exit_curve((logits, u), labels, (0.0, 0.5, 1.0), FLOPS)
    assert first["accuracy"] == (logits[:, 3].argmax(-1) == labels).mean() and first["mean_layers"] == 4
    assert last["accuracy"] == (logits[:, 0].argmax(-1) == labels).mean() and last["mean_layers"] == 1
    layers = np.array([next((i for i in range(3) if row[i] < 0.5), 3) for row in u])
    assert middle["accuracy"] == (logits[np.arange(50), layers].argmax(-1) == labels).mean()
    assert middle["flops_speedup"] == pytest.approx(400 / np.mean(FLOPS[1][layers]))
    assert first["flops_speedup"] == pytest.approx(400 / 410) and last["flops_speedup"] == pytest.approx(400 / 110)


def test_what_the_clock_is_held_against():
    """Each batch counts at the length it is padded to; a text of 8 tokens that leaves first, one of 16 that stays."""
    batches = [(tf.zeros((1, 8), tf.int32),), (tf.zeros((1, 16), tf.int32),)]

    def answer(batch):
        return {"layers_used": tf.constant([1 if batch[0].shape[1] == 8 else 4])}

    found = expected_speedup(batches, answer, lambda tokens: (tokens * FLOPS[0], tokens * FLOPS[1]))
    assert found["mean_layers"] == 2.5
    assert found["flops_speedup"] == pytest.approx((8 + 16) * 400 / (8 * 110 + 16 * 410))


def test_all_models_are_timed_on_the_same_texts():
    """By themselves and in batches of 32, the last of which is filled up."""
    examples = TokenizedTexts(np.arange(1, 241, dtype=np.int32), np.arange(0, 241, 6))
    seen = {"teacher": [], "fast": []}

    def teacher(token_ids, segment_ids):
        seen["teacher"].append(token_ids.numpy())
        return token_ids

    def fast(token_ids, segment_ids, speed):
        seen["fast"].append(token_ids.numpy())
        return {"layers_used": tf.fill(tf.shape(token_ids)[:1], 1 if speed == 1 else 4)}

    flops = lambda tokens: FLOPS  # noqa: E731
    found = time_exits({"teacher": teacher}, {"fast": fast}, (0.0, 1.0), examples, np.arange(40), flops)
    assert found["teacher"].keys() == found["fast"][0].keys() == {"1", "32"}
    assert [at_speed["32"]["mean_layers"] for at_speed in found["fast"]] == [4, 1]
    assert found["fast"][1]["1"]["flops_speedup"] == pytest.approx(400 / 110) and found["fast"][1]["1"]["ms"] > 0
    for size, count in ((1, 10), (32, 40)):
        read = [np.unique(np.concatenate([ids for ids in some if len(ids) == size])[:, 0]) for some in seen.values()]
        np.testing.assert_array_equal(*read)
        assert len(read[0]) == count
