"""Batches of examples of like length, so that little of them is padding. Texts or images, for training or not."""

import numpy as np

POOL = 32  # batches that are sorted by length together: enough to save padding


def by_length(lengths, batch_size, rng=None):
    """Index arrays of one epoch's batches, texts of like length together so that little is padding.

    lengths: (examples,) int
    batch_size: examples a batch
    rng: for training, a random order: shuffled, then sorted by length only within pools of batches, then the batches
        shuffled; without one all is sorted, for inference
    """
    pool = POOL * batch_size if rng else len(lengths)
    order = rng.permutation(len(lengths)) if rng else np.arange(len(lengths))
    pools = (order[start : start + pool] for start in range(0, len(order), pool))
    order = np.concatenate([part[np.argsort(lengths[part], kind="stable")] for part in pools])
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    return [batches[i] for i in rng.permutation(len(batches))] if rng else batches
