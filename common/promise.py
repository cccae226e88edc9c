"""How fast a model may stop early, so that hardly a text is answered otherwise than by all its layers: a tested promise.

Of n texts by which nothing was chosen, k are answered otherwise at some speed. If the share of such texts were more than α,
as few would be seen with a probability of P(Bin(n, α) ≤ k) at most; where that is at most δ, the share is said to be at most
α (an exact binomial test, wrong with probability δ). Speeds are tested in an order that was fixed before, from slow to fast,
each at the whole δ, up to the first that fails: with probability 1 - δ all that passed keep the promise, however many were
tried (fixed sequence testing: Angelopoulos et al. 2021, arXiv 2110.01052; of early exits Schuster et al. 2022, 2207.07061, and
Jazbec et al. 2024, 2405.20915). Texts need no labels, but must be drawn like those that are asked later.
"""

from math import ceil, log

import numpy as np
from scipy import stats

GRID = tuple(number / 1000 for number in range(1001))  # speeds that are tested, besides those of the settings


def keeps(disagreements, texts, max_disagreement, confidence):
    """Whether texts show that at most `max_disagreement` per cent of all that are like them are answered otherwise.

    disagreements: how many of them are: an int, or an array of any shape
    texts: how many there are
    max_disagreement: per cent, from 0.001 to 99.999
    confidence: the same, of the one-sided exact binomial test

    Returns bool of that shape.
    """
    return stats.binom.cdf(disagreements, texts, max_disagreement / 100) <= (100 - confidence) / 100


def needed(max_disagreement, confidence):
    """The least number of texts that can show it: where none of them is answered otherwise. See `keeps`."""
    texts = max(1, ceil(log((100 - confidence) / 100) / log(1 - max_disagreement / 100)) - 1)
    while not keeps(0, texts, max_disagreement, confidence):  # once or twice: the logarithms are rounded
        texts += 1
    return texts


def fastest_kept(disagreements, texts, max_disagreement, confidence):
    """The place of the last speed before the first that fails; -1 if that is the first of all.

    disagreements: (speeds,) int, of each speed, from the slowest on
    texts, max_disagreement, confidence: as of `keeps`
    """
    return before_first_failure(keeps(np.asarray(disagreements), texts, max_disagreement, confidence))


def before_first_failure(passed):
    """The place of the last before the first that fails; -1 if that is the first of all. passed: (speeds,) bool"""
    return int(np.append(passed, False).argmin()) - 1
