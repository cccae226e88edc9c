"""common.exit_curve: where texts leave, what the speeds give, which uncertainty and speed are chosen."""

from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from scipy.special import softmax

from common.exit_curve import (
    TOP_K,
    chosen_top_k,
    exit_curve,
    exit_layers,
    exit_outputs,
    exit_record,
    highest_speed,
    maybe_otherwise,
    promised_speed,
    speed_within,
)
from knowledge_distillation_fastbert import uncertainty

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
    assert first["disagreement"] == 0 and 0 < middle["disagreement"] <= last["disagreement"]
    assert middle["disagreement"] == (logits[np.arange(50), layers].argmax(-1) != logits[:, 3].argmax(-1)).mean()
    assert middle["flops_speedup"] == pytest.approx(400 / np.mean(FLOPS[1][layers]))
    assert first["flops_speedup"] == pytest.approx(400 / 410) and last["flops_speedup"] == pytest.approx(400 / 110)


def timed_at(*speeds):
    """What the clock says of each speed, given its layers: 2 ms each. float32 is as fast as int8."""
    return [{key: {"1": {"ms": 2.0 * layers, "flops_speedup": 400 / FLOPS[1][int(layers) - 1], "mean_layers": layers}}
             for key in ("latency_ms", "int8_latency_ms")} for layers in speeds]


@pytest.mark.parametrize("early", [True, False])
def test_a_record_is_of_the_speed_that_was_chosen(early):
    """At 0.5 all texts leave after one layer, which is right on validation and wrong on test; the last is right on both."""
    labels, speeds = np.arange(20) % 2, (0.0, 0.5)
    logits = np.repeat(np.eye(2, dtype=np.float32)[labels][:, None], 4, axis=1)
    wrong, u = logits.copy(), np.full((20, 4), 0.3, np.float32)
    wrong[:, 0] = logits[:, 0, ::-1]
    timed = timed_at(4.0, 1.0)
    wanted, teacher = SimpleNamespace(speeds=speeds, latency_budget=0.0), {"latency_ms": {"1": 8.0}}
    chosen = {"uncertainty_top_k": 2, "speed": 0.5 if early else 0.0, "chosen": "why"}
    exits, of_parts = {"validation": (logits, u), "test": (wrong, u)}, {"validation": labels, "test": labels}
    record, given = exit_record(exits, of_parts, wanted, FLOPS, timed, teacher, chosen)
    assert chosen.items() <= record.items() and "promise" not in record and record["layers"] == (1 if early else 4)
    assert record["validation_accuracy"] == 1 and record["accuracy"] == (0 if early else 1)
    assert record["latency_ms"] == record["int8_latency_ms"] == {"1": pytest.approx(2.0 if early else 8.0)}
    assert [point["accuracy"] for point in record["exits"]] == [1, 0]  # the curve is that of the test part
    assert (given["test"].argmax(-1) == labels).all() != early


def test_speeds_are_told_of_all_test_texts_not_of_the_few_that_were_timed():
    """Of these half leave after one layer where a quarter of all does, so their time says too much; what a layer takes stays.

    The clock: 1 ms and 2 ms a layer. At 0.4, between two speeds of the curve, as much of the FLOPs is shown as between them.
    """
    u = np.repeat(np.where(np.arange(20) < 5, 0.3, 0.9)[:, None], 4, axis=1)
    exits = {part: (np.zeros((20, 4, 2), np.float32), u) for part in ("validation", "test")}
    labels = dict.fromkeys(exits, np.zeros(20, int))
    wanted, teacher = SimpleNamespace(speeds=(0.0, 0.2, 0.6), latency_budget=0.0), {"latency_ms": {"1": 4.4}}
    speedups = 400 / 410, 400 / 410, 400 / np.mean([110, 410])

    def at(each, speedup):
        return {key: {"1": {"ms": each * ms, "flops_speedup": speedup, "mean_layers": 9}}
                for key, ms in (("latency_ms", 1.0), ("int8_latency_ms", 0.5))}

    timed = [at(ms, speedup) for ms, speedup in zip((4.4, 4.0, 2.0), speedups, strict=True)]
    chosen = {"speed": 0.4, "uncertainty_top_k": 0, "chosen": "why"}
    record, _ = exit_record(exits, labels, wanted, FLOPS, timed, teacher, chosen)
    of_all, shares = 400 / np.mean([110] * 5 + [410] * 15), 4.4 / np.array([4.4, 4.0, 2.0]) / speedups
    assert record["exits"][2]["wall_speedup"]["1"] == pytest.approx(of_all * shares[2])
    assert record["exits"][2]["int8_wall_speedup"]["1"] == pytest.approx(2 * of_all * shares[2])
    assert record["exits"][1]["wall_speedup"]["1"] == pytest.approx(4.4 / 4.0)  # all stay, of these as of those
    assert record["latency_ms"]["1"] == pytest.approx(4.4 / (of_all * (shares[1] + shares[2]) / 2))
    assert record["int8_latency_ms"]["1"] == pytest.approx(record["latency_ms"]["1"] / 2)


def test_a_budget_is_kept_by_validation_texts():
    """There all leave after one layer at 0.5, which keeps within 3 ms; of the test part none would."""
    labels = np.arange(20) % 2
    logits = np.repeat(np.eye(2, dtype=np.float32)[labels][:, None], 4, axis=1)
    exits = {"validation": (logits, np.full((20, 4), 0.3)), "test": (logits, np.full((20, 4), 0.9))}
    wanted = SimpleNamespace(speeds=(0.0, 0.5), latency_budget=3.0)
    labels = {"validation": labels, "test": labels}
    record, _ = exit_record(exits, labels, wanted, FLOPS, timed_at(4.0, 1.0), {"latency_ms": {"1": 8.0}}, {})
    assert record["speed"] == 0.5 and record["chosen"] == "the lowest within 3 ms a text"


# Which speed is chosen


@given(st.integers(0, 2**32), st.floats(0, 30))
def test_the_highest_speed_is_the_last_before_one_that_loses_more(seed, drop):
    """Found by walking from 0 up, text by text; what leaving early gains makes up for half as much."""
    rng = np.random.default_rng(seed)
    logits, labels = rng.normal(0, 2, (30, 3, 4)).astype(np.float32), rng.integers(0, 4, 30)
    u = rng.uniform(0, 1, (30, 3)).round(2).astype(np.float32)
    right, best = logits.argmax(-1) == labels[:, None], 0.0
    for step in range(1001):
        leaving = [next((i for i in range(2) if row[i] < step / 1000), 2) for row in u]
        lost = [(row[2] > row[i]) - (row[2] < row[i]) / 2 for row, i in zip(right, leaving, strict=True)]
        if 100 * np.mean(lost) > drop + 1e-7:
            break
        best = step / 1000
    found = highest_speed((logits, u), labels, (0.0, 0.5), drop)
    assert found == {"speed": best, "chosen": f"the highest that loses at most {drop:g} points"}


def spread_and_tied(agreeing, texts=20):
    """(logits (texts, 2, 10), what all layers answer): branches whose plain entropy and that of few say the opposite.

    Every other text is "spread", (0.6, 0.05, 0.05, …), the rest "tied", (0.5, 0.5, 0, …). By the entropy of 2 or of 3 those are
    the surer ones, by that of 5 or of all these. Only the branches of the `agreeing` half answer as all layers do, by the last.
    """
    spread, tied = np.array([0.6, *[0.05] * 8, 1e-9]), np.array([0.5, 0.5, *[1e-9] * 8])
    answers = np.array([0 if kind == agreeing else 1 for kind in ("spread", "tied")] * (texts // 2))
    branch = np.tile(np.log([spread, tied]), (texts // 2, 1))
    return np.stack([branch, 9 * np.eye(10)[answers]], axis=1).astype(np.float32), answers


def choosing(**changed):
    return SimpleNamespace(**{"uncertainty_top_k": None, "speeds": ()} | changed)


@pytest.mark.parametrize(("agreeing", "top_k"), [("spread", 2), ("tied", 0)])
def test_the_uncertainty_is_the_one_that_takes_the_fewest_layers(agreeing, top_k):
    """Of equal ones that of all probabilities, then that of the fewest; what is set is kept."""
    logits, _ = spread_and_tied(agreeing)
    assert chosen_top_k(logits, choosing(), uncertainty) == top_k
    for fixed in (0, 3, 40):
        assert chosen_top_k(logits, choosing(uncertainty_top_k=fixed), uncertainty) == fixed


@given(st.integers(0, 10**6), st.integers(2, 12))
@settings(max_examples=10)
def test_no_other_uncertainty_takes_fewer_layers(seed, classes):
    """Layers counted speed by speed, up to the first at which more than 1 % of the texts are answered otherwise than by the
    last exit; there are as many choices as there are classes for."""
    rng = np.random.default_rng(seed)
    likely = rng.integers(0, classes, 30)
    logits = (rng.normal(0, 1, (30, 3, classes)) + np.linspace(1, 4, 3)[:, None] * np.eye(classes)[likely][:, None])
    answers, layers = logits.argmax(-1), {}
    for top_k in (k for k in TOP_K if k < classes):
        u = uncertainty(softmax(logits, -1), top_k).numpy()
        for speed in np.arange(1001) / 1000:
            left = np.where(u[:, 0] < speed, 0, np.where(u[:, 1] < speed, 1, 2))
            if 100 * (answers[np.arange(30), left] != answers[:, 2]).mean() > 1.0 + 1e-7:
                break
            layers[top_k] = left.mean()
    chosen = chosen_top_k(logits.astype(np.float32), choosing(), uncertainty)
    assert layers[chosen] <= min(layers.values()) + 1 / 30 + 1e-9  # of a text that a rounding decides


POINTS = [{"speed": 0.0, "mean_layers": 6.0}, {"speed": 0.1, "mean_layers": 3.0}, {"speed": 0.5, "mean_layers": 1.5},
          {"speed": 1.0, "mean_layers": 1.0}]
TIMED = [{"1": {"ms": 2.0 * layers, "mean_layers": layers}} for layers in (6.0, 4.0, 1.5, 1.0)]


@pytest.mark.parametrize(
    ("budget", "speed", "why"),
    [
        (6.5, 0.1, "the lowest within 6.5 ms a text"),
        (5.9, 0.5, "the lowest within 5.9 ms a text"),
        (1.0, 1.0, "the fastest, though none keeps within 1 ms a text"),
    ],
)
def test_the_speed_within_a_budget(budget, speed, why):
    assert speed_within(budget, POINTS, TIMED) == {"speed": speed, "chosen": why}


# The promise


def exits_of(wrong_at):
    """Exits of texts that leave after one layer at any speed above their u, of two.

    wrong_at: u of the texts that the first layer answers otherwise
    """
    u = np.concatenate([wrong_at, np.linspace(0.001, 0.999, 1000 - len(wrong_at))])
    logits = np.zeros((1000, 2, 2), np.float32)
    logits[:, 1, 0] = 1
    logits[np.arange(1000), 0, (np.arange(1000) < len(wrong_at)).astype(int)] = 1
    return logits, np.stack([u, u], axis=1).astype(np.float32)


def promised(exits, expected=None, **changed):
    """(speed, why, promise) that is chosen; all layers answer as expected, unless told otherwise."""
    expected = exits[0][:, -1].argmax(-1) if expected is None else expected
    wanted = {"speeds": (0.0, 0.5), "max_disagreement": 1.0, "confidence": 95.0} | changed
    found = promised_speed(exits, expected, SimpleNamespace(**wanted))
    return found["speed"], found["chosen"], found.get("promise")


def test_the_speed_that_keeps_a_promise():
    """Of 1,000 texts 4 may be answered otherwise: up to where the fifth would leave, on a grid finer than the curve's."""
    speed, why, promise = promised(exits_of([0.1, 0.2, 0.25, 0.3, 0.4565, 0.9]))
    assert speed == 0.456 and promise == {"max_disagreement": 1.0, "confidence": 95.0, "texts": 1000, "disagreements": 4}
    assert why == ("the highest that keeps --max-disagreement 1: with 95 % confidence at most 1 % of texts like the 1,000 it "
                   "was calibrated on are answered otherwise than by all layers with all tokens (4 of those were)")
    assert promised(exits_of([0.1, 0.2, 0.25, 0.3, 0.4565]), speeds=(0.4561,))[0] == 0.4561
    assert promised(exits_of([0.5]))[0] == 1.0
    assert promised(exits_of([0.1] * 5), confidence=90.0)[0] == 1.0  # five are enough for less confidence


def test_a_promise_allows_for_what_the_file_rounds():
    """The fifth text has an uncertainty so near 0.25 that the student's file may have it on the other side."""
    for u, speed in ((0.25 + 5e-6, 0.249), (0.25 - 5e-6, 0.249), (0.25 + 2e-5, 0.25), (0.25 - 2e-5, 0.249)):
        assert promised(exits_of([0.1, 0.1, 0.1, 0.1, u]))[0] == speed
    assert promised(exits_of([0.0] * 9))[0] == 0  # below which there is nothing
    for u, speed in ((0.25 - 5e-6, 0.249), (0.25 - 2e-5, 1.0)):  # the other way round: right early alone, with fewer tokens
        exits = exits_of([0.2495, 0.2495, 0.2495, 0.2495, u])
        expected = np.where(np.arange(1000) == 4, 1, exits[0][:, -1].argmax(-1))
        assert promised(exits, expected)[0] == speed


def test_what_a_file_may_answer_by_a_walk_through_its_layers():
    """Each uncertainty for itself may be rounded up or down: all ways to leave are tried."""
    rng = np.random.default_rng(0)
    logits, expected = rng.normal(0, 1, (200, 4, 3)), rng.integers(0, 3, 200)
    u = 0.5 + rng.choice([-2e-5, -5e-6, 5e-6, 2e-5, np.nan], (200, 4))
    for speed in (0.5, 0.0):
        shifted = u if speed else u - 0.5 + 2e-5
        found = maybe_otherwise(logits.argmax(-1) != expected[:, None], shifted, speed)
        for text in range(200):
            answers = set()
            for rounded in product((-1e-5, 1e-5), repeat=4):
                near = np.maximum(shifted[text] + rounded, 0)
                answers.add(logits[text, next((i for i in range(3) if near[i] < speed), 3)].argmax())
            assert found[text] == bool(answers - {expected[text]})


def test_a_promise_that_no_speed_keeps():
    """All layers answer, and it is said."""
    speed, why, promise = promised(exits_of([0.0] * 9))
    assert speed == 0 and why.startswith("all layers answer, as no speed above 0 keeps --max-disagreement 1: with 95 %")
    assert promise["disagreements"] == 0


def test_a_promise_counts_what_fewer_tokens_change():
    """The same exits as `expected` has them, but for texts that all layers answer otherwise: with 4 of these no text may leave
    at another answer; with 5 there is no promise, and a line says how to have one.
    """
    exits = exits_of([0.3])
    expected = exits[0][:, -1].argmax(-1)
    speed, _, promise = promised(exits, np.where(np.arange(1000) >= 996, 1 - expected, expected))
    assert speed == 0.299 and promise["disagreements"] == 4
    speed, why, promise = promised(exits, np.where(np.arange(1000) >= 995, 1 - expected, expected))
    assert speed == 0 and promise is None
    assert why == ("all layers answer, and nothing is promised: with fewer tokens than all they answer 5 of 1,000 texts "
                   "otherwise, which breaks --max-disagreement 1; --vocabulary 0 keeps all")
