"""How long models take that must not be alive together, such as sessions of onnxruntime. Needs no TensorFlow."""

import gc
import time

import numpy as np


def turns(makers, batches, rounds=5, count=3):
    """Median wall-clock seconds of each batch by each way: {name: (batches,) float64}.

    After a call onnxruntime's threads go on spinning for a while, ready for the next one, and take the cores from whoever is
    asked then. So each way in turn makes its model, is warmed up, answers all batches `rounds` times, and is dropped before the
    next one makes its own. Every turn has an order of its own, so that a busy moment of the machine falls on all of them;
    medians are over all rounds of all turns.

    makers: {name: () -> function of a batch, which returns when the answer is there, as an array}; what it holds is released
        with it
    batches: list of what they take; or {name: such a list}, if they differ
    rounds: of all batches that count, in a turn; two before them do not: memory is claimed, and threads wake
    count: of turns
    """
    names, order = [*makers], np.random.default_rng(0)
    batches = batches if isinstance(batches, dict) else dict.fromkeys(names, batches)
    seconds = {name: [] for name in names}
    for _ in range(count):
        for name in map(names.__getitem__, order.permutation(len(names))):
            seconds[name] += _one_turn(makers[name], batches[name], rounds)
    return {name: np.median(taken, axis=0) for name, taken in seconds.items()}


def _one_turn(make, batches, rounds):
    """Seconds of each batch in each round that counts: [(batches,) list] * rounds. Nothing that was made is left."""
    ask, seconds = make(), []
    for _ in range(rounds + 2):
        seconds.append([])
        for batch in batches:
            start = time.perf_counter()
            ask(batch)
            seconds[-1].append(time.perf_counter() - start)
    del ask
    gc.collect()  # where what it held refers to itself
    return seconds[2:]
