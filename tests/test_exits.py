"""common.exits: where texts leave, what the speeds give, what the clock is held against, and the tables."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from scipy.special import softmax

from common import data, exits
from common.backend import tf

FLOPS = 400, np.array([110, 220, 330, 410])  # of the teacher, and of leaving after each of its four layers


@given(arrays(np.float32, (6, 4), elements=st.floats(0, 1, width=32)), st.floats(0, 1))
def test_exits(u, speed):
    """The first layer whose uncertainty is below speed, else the last; at speed 0 nobody leaves; NaN never decides."""
    u[0, 1] = np.nan
    expected = [next((i + 1 for i in range(3) if row[i] < speed), 4) for row in u]
    before = u.copy()
    assert exits.exits_at(u, speed).tolist() == expected
    assert (exits.exits_at(u, 0) == 4).all()
    np.testing.assert_array_equal(u, before)


def test_what_a_text_takes_with_it():
    logits, u = np.arange(24).reshape(3, 4, 2), np.array([[0.9, 0.1, 0, 0], [0.2, 0, 0, 0], [0.9, 0.9, 0.9, 0.9]])
    layers, answers, doubts = exits.leave(logits, u, 0.5)
    assert layers.tolist() == [2, 1, 4] and doubts.tolist() == [0.1, 0.2, 0.9]
    assert answers.tolist() == [[2, 3], [8, 9], [22, 23]]


def test_the_curve():
    """At speed 0 it is the teacher, at 1 the first branch (but for those that have no idea), reckoned by hand at 0.5."""
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(0, 3, (50, 4, 4)).astype(np.float32), rng.integers(0, 4, 50)
    u = stats.entropy(softmax(logits.astype(float), -1), axis=-1) / np.log(4)
    first, middle, last = exits.curve(logits, u, labels, (0.0, 0.5, 1.0), FLOPS)
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

    found = exits.promised(batches, answer, lambda tokens: (tokens * FLOPS[0], tokens * FLOPS[1]))
    assert found["mean_layers"] == 2.5
    assert found["flops_speedup"] == pytest.approx((8 + 16) * 400 / (8 * 110 + 16 * 410))


def test_all_models_are_timed_on_the_same_texts():
    """By themselves and in batches of 32, the last of which is filled up."""
    encoded = data.Encoded(np.arange(1, 241, dtype=np.int32), np.arange(0, 241, 6))
    seen = {"teacher": [], "fast": []}

    def teacher(token_ids, segment_ids):
        seen["teacher"].append(token_ids.numpy())
        return token_ids

    def fast(token_ids, segment_ids, speed):
        seen["fast"].append(token_ids.numpy())
        return {"layers_used": tf.fill(tf.shape(token_ids)[:1], 1 if speed == 1 else 4)}

    flops = lambda tokens: FLOPS  # noqa: E731
    found = exits.time_exits({"teacher": teacher}, {"fast": fast}, (0.0, 1.0), encoded, np.arange(40), flops)
    assert found["teacher"].keys() == found["fast"][0].keys() == {"1", "32"}
    assert [row["32"]["mean_layers"] for row in found["fast"]] == [4, 1]
    assert found["fast"][1]["1"]["flops_speedup"] == pytest.approx(400 / 110) and found["fast"][1]["1"]["ms"] > 0
    for size, count in ((1, 10), (32, 40)):
        read = [np.unique(np.concatenate([ids for ids in some if len(ids) == size])[:, 0]) for some in seen.values()]
        np.testing.assert_array_equal(*read)
        assert len(read[0]) == count


def record(name, **more):
    timed = {size: {"flops_speedup": 4.0} for size in ("1", "32")}
    row = {"speed": 0.5, "accuracy": 0.9, "mean_layers": 1.5, "flops_speedup": 3.8, "wall_speedup": {"1": 2, "32": 3},
           "timed": timed}
    return {"name": name, "exits": [row | more], "branch_accuracy": [0.8, 0.9], "median_uncertainty": [0.5, 0.25],
            "median_entropy": [0.7, 0.6]}


def test_the_tables():
    header, row = exits.speeds_table([record("fast"), record("fast", accuracy=0.8)])
    assert header[0] == "speed" and row == ["0.5", "85.00 ± 7.07", "1.50", "3.80", "2.00", "3.00", "0.50", "0.75"]
    header, first, last = exits.branches_table([record("fast")], top_k=3)
    assert header == ["branch after layer", "fast %", "median u", "of all classes"]
    assert first == ["1", "80.00", "0.500", "0.700"] and last[0] == "2, the last"
    assert len(exits.branches_table([record("fast")], top_k=0)[0]) == 3


def test_the_first_and_the_last_to_leave():
    left = np.array([1, 4, 1, 2]), np.eye(2)[[0, 1, 1, 0]], np.array([0.02, 0.9, 0.01, 0.3])
    rows = exits.leavers_table(["a | b", "long " * 40, "c\nd", "e"], [0, 1, 1, 1], ["x", "y"], left, count=1)
    assert rows[1:] == [["c d", "y", "y", "1", "0.010"], [("long " * 40)[:59] + "…", "y", "y", "4", "0.900"]]
    assert [row[0] for row in exits.leavers_table(list("abcd"), [0] * 4, ["x", "y"], left)[1:]] == list("cadb")
