"""data.bucketing: every example is in one batch, and batches of like length hold less padding."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from data.bucketing import by_length


@given(st.lists(st.integers(1, 40), min_size=1, max_size=200), st.integers(1, 16), st.booleans())
def test_every_text_is_in_one_batch(lengths, batch_size, random):
    lengths = np.array(lengths)
    batches = by_length(lengths, batch_size, np.random.default_rng(0) if random else None)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    assert len(batches) == -(-len(lengths) // batch_size)
    assert all(0 < len(batch) <= batch_size for batch in batches)


def test_batches_by_length_hold_less_padding():
    lengths = np.random.default_rng(0).integers(3, 65, 2000)

    def padded(batches):
        return sum(len(batch) * lengths[batch].max() for batch in batches)

    plain = np.split(np.random.default_rng(1).permutation(2000), range(32, 2000, 32))
    assert padded(by_length(lengths, 32, np.random.default_rng(1))) < 0.6 * padded(plain)
