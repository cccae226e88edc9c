"""common.promise: the exact bound, the order of the tests, and that what is promised is kept."""

from fractions import Fraction
from math import comb

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from common.exit_curve import exit_layers, exits_of
from common.promise import GRID, fastest_kept, keeps, needed
from knowledge_distillation_fastbert import uncertainty


def tail(k, n, share):
    """P(Bin(n, share) ≤ k), exactly. share: a Fraction"""
    return sum(comb(n, i) * share**i * (1 - share) ** (n - i) for i in range(k + 1))


@given(st.integers(1, 60), st.integers(0, 60), st.integers(1, 99), st.integers(1, 99))
@example(32, 15, 47, 44)  # 15 of 32 are less than 47 %, but not by enough
def test_the_bound_is_exact(n, k, max_disagreement, confidence):
    k, chance, allowed = min(k, n), tail(min(k, n), n, Fraction(max_disagreement, 100)), Fraction(100 - confidence, 100)
    if abs(float(chance - allowed)) > 1e-12:
        assert keeps(k, n, max_disagreement, confidence) == (chance < allowed)


@pytest.mark.parametrize(
    ("max_disagreement", "confidence", "texts"),
    [(1, 95, 299), (5, 95, 59), (0.1, 95, 2995), (1, 99, 459), (50, 50, 1), (99, 1, 1)],
)
def test_how_many_texts_are_needed(max_disagreement, confidence, texts):
    """(1 - α)^n ≤ δ: of 299 texts none may be answered otherwise, of 298 not even that shows 1 %."""
    assert needed(max_disagreement, confidence) == texts
    assert keeps(0, texts, max_disagreement, confidence) and not keeps(1, texts, max_disagreement, confidence)
    assert texts == 1 or not keeps(0, texts - 1, max_disagreement, confidence)


def test_the_three_of_400():
    """What a choice on 400 texts leaves open: by three that are answered otherwise 1.9 % are not ruled out, 2 % are."""
    assert not keeps(3, 400, 1.9, 95) and keeps(3, 400, 2, 95)


@given(st.lists(st.integers(0, 60), min_size=1, max_size=30))
def test_the_first_that_fails_ends_it(disagreements):
    """Whatever comes after: a speed that would pass again is never reached."""
    place = fastest_kept(disagreements, 1000, 1, 95)
    passes = [keeps(k, 1000, 1, 95) for k in disagreements]
    assert all(passes[: place + 1]) and (place + 1 == len(passes) or not passes[place + 1])
    assert fastest_kept([0, 4, 5, 0], 1000, 1, 95) == 1 and fastest_kept([5, 0], 1000, 1, 95) == -1


# Is it kept?


def stored_logits(texts=12_000, layers=6, classes=8, seed=0):
    """Made-up logits (texts, layers, classes) of all exits: easy texts and hard ones, branches surer the higher they stand."""
    rng = np.random.default_rng(seed)
    teacher = rng.normal(0, 1, (texts, 1, classes))
    teacher[np.arange(texts), 0, rng.integers(0, classes, texts)] += rng.gamma(4, 2, texts)
    noise = rng.normal(0, 1, (texts, layers, classes)).cumsum(axis=1)[:, ::-1] * rng.gamma(2, 0.2, (texts, 1, 1))
    noise[:, -1] = 0
    return (teacher + noise).astype(np.float32)


@pytest.fixture(scope="module")
def logits():
    return stored_logits()


@pytest.mark.parametrize("top_k", [0, 2])
def test_a_promise_is_kept(logits, top_k):
    """Over 500 splits into 1,000 texts to choose a speed by and 11,000 others it is broken in fewer than 5 %.

    A choice by the plain share of other answers among the 1,000 breaks it far more often: so the test could fail. And it is no
    promise of nothing: the speeds chosen save layers.
    """
    u, answers, rows = exits_of(logits, uncertainty, top_k)[1], logits.argmax(axis=-1), np.arange(len(logits))
    layers = np.stack([exit_layers(u, speed) for speed in GRID])
    others = (answers[rows, layers - 1] != answers[:, -1]).astype(np.float32)  # (speeds, texts)
    rng = np.random.default_rng(1)
    chosen = np.zeros((len(rows), 500), np.float32)
    for split in chosen.T:
        split[rng.permutation(len(rows))[:1000]] = 1
    calibration = np.rint(others @ chosen).astype(int)  # (speeds, splits)
    elsewhere = (others.sum(axis=1)[:, None] - calibration) / (len(rows) - 1000)
    tested = [fastest_kept(calibration[:, split], 1000, 1, 95) for split in range(500)]
    plain = [int((calibration[:, split] <= 10).cumprod().sum()) - 1 for split in range(500)]
    broken = [np.mean([elsewhere[place, split] > 0.01 for split, place in enumerate(places)]) for places in (tested, plain)]
    assert others[0].sum() == 0 and others[-1].mean() > 0.02
    assert broken[0] <= 0.05
    assert broken[1] > 0.4 and np.median([layers[place].mean() for place in tested]) < 3


def test_made_up_logits_are_no_special_case(logits):
    """Branches answer otherwise than the teacher now and then, the lower the more, and are less sure where they do."""
    others = logits.argmax(axis=-1) != logits[:, -1:].argmax(axis=-1)
    assert (np.diff(others.mean(axis=0)) < 0).all() and others[:, 0].mean() > 0.05
    u = exits_of(logits, uncertainty, 0)[1][:, 0]
    assert u[others[:, 0]].mean() > 1.5 * u[~others[:, 0]].mean()
