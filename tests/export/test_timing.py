"""export.timing: medians over turns, by a clock that the test sets; one model alive at a time."""

import subprocess
import sys
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export import timing
from export.timing import turns
from tests.starting import ROOT


class Model:
    """What a maker makes: something that can be seen to be gone, and that refers to itself."""

    def __init__(self, ask):
        self.ask, self.itself = ask, self

    def __call__(self, batch):
        return self.ask(batch)


@pytest.fixture
def clock(monkeypatch):
    """A list of one number: the seconds that the clock shows."""
    now = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    return now


def takes(clock, seconds):
    """A maker whose model takes, of an endless iterator, so many seconds for each answer."""
    def ask(batch):
        clock[0] += next(seconds)

    return lambda: ask


def test_medians_are_of_the_rounds_that_count_in_all_turns(clock):
    """Two batches: per turn two rounds of warming up, which are slow, and three that count."""
    turn = [[99, 99], [99, 99]]
    counted = [[[1, 10], [2, 20], [9, 90]], [[3, 30], [4, 40], [5, 50]]]
    seconds = [taken for rounds in counted for both in turn + rounds for taken in both]
    found = turns({"slow": takes(clock, iter(seconds)), "fast": takes(clock, iter([0.5] * 20))}, ["a", "b"], rounds=3, count=2)
    assert [*found] == ["slow", "fast"]
    np.testing.assert_allclose(found["slow"], [3.5, 35])
    np.testing.assert_allclose(found["fast"], [0.5, 0.5])


@settings(max_examples=20)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3))
def test_one_model_is_alive_and_asked_everything_in_each_turn(ways, batches, rounds, count):
    alive, asked, made = weakref.WeakSet(), [], []

    def maker(name):
        def make():
            assert not len(alive)
            model = Model(lambda batch: asked.append((name, batch)))
            alive.add(model)
            made.append(name)
            return model

        return make

    found = turns({name: maker(name) for name in range(ways)}, [*range(batches)], rounds, count)
    assert not len(alive)
    assert {name: values.shape for name, values in found.items()} == dict.fromkeys(range(ways), (batches,))
    rows = [[*range(ways)]] * count
    assert [sorted(made[i : i + ways]) for i in range(0, len(made), ways)] == rows
    assert asked == [(name, batch) for name in made for _ in range(rounds + 2) for batch in range(batches)]


def test_turns_do_not_all_begin_with_the_same():
    made = []
    makers = {name: lambda name=name: made.append(name) or (lambda batch: None) for name in range(5)}
    turns(makers, [0], rounds=1, count=4)
    assert len({*zip(*[iter(made)] * 5, strict=True)}) > 1


def test_what_fails_in_a_model_is_not_hidden():
    def broken(batch):
        raise ValueError(f"no answer to {batch}")

    with pytest.raises(ValueError, match="no answer to 7"):
        turns({"broken": lambda: broken}, [7])


def test_it_needs_no_tensorflow():
    code = "import sys, export.timing; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
