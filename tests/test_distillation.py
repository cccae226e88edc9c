"""The equations against numpy and scipy, in every float type, and the cache of soft labels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import log_softmax, rel_entr

from common.backend import tf
from common.distillation import cached_logits, hard_loss, noise_labels, soft_loss, soften

LOGITS = arrays(np.float32, (5, 7), elements=st.floats(-1e4, 1e4, width=32))
TEMPERATURES = st.floats(0.05, 100)


def naive_softmax(logits, temperature):
    powers = np.exp(np.asarray(logits, np.float64) / temperature)
    return powers / powers.sum(axis=-1, keepdims=True)


def test_soften_is_equation_1():
    logits = np.random.default_rng(0).normal(0, 3, (6, 5))
    for temperature in (0.5, 1, 3, 20):
        np.testing.assert_allclose(soften(logits, temperature), naive_softmax(logits, temperature), rtol=1e-6)


@given(LOGITS, TEMPERATURES)
def test_soft_labels_are_distributions_and_keep_the_order(logits, temperature):
    soft = soften(logits, temperature)
    assert np.isfinite(soft).all() and (soft >= 0).all()
    np.testing.assert_allclose(soft.sum(axis=-1), 1, atol=1e-5)
    best = np.take_along_axis(soft, logits.argmax(-1)[:, None], 1)[:, 0]
    np.testing.assert_array_equal(best, soft.max(axis=-1))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_hard_loss_is_cross_entropy(dtype):
    rng = np.random.default_rng(1)
    logits = tf.cast(rng.normal(0, 4, (8, 5)), dtype)
    labels = rng.integers(0, 5, (8, 1))
    expected = -log_softmax(logits.numpy().astype(np.float64), axis=-1)[np.arange(8), labels[:, 0]]
    found = hard_loss(labels, logits)
    assert found.dtype == tf.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_soft_loss_is_the_divergence(dtype):
    rng = np.random.default_rng(2)
    logits = tf.cast(rng.normal(0, 4, (8, 5)), dtype)
    p = soften(rng.normal(0, 4, (8, 5)), 3)
    p[0] = [1, 0, 0, 0, 0]  # 0 · log 0 is 0
    expected = rel_entr(p, naive_softmax(logits.numpy().astype(np.float64), 1)).sum(axis=-1)
    found = soft_loss(p, logits)
    assert found.dtype == tf.float32
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@given(LOGITS, LOGITS, TEMPERATURES)
def test_soft_loss_is_finite_not_negative_and_zero_for_equals(teacher, student, temperature):
    p = soften(teacher, temperature)
    assert np.isfinite(soft_loss(p, student / np.float32(temperature))).all()
    assert (soft_loss(p, student / np.float32(temperature)).numpy() > -1e-4).all()
    np.testing.assert_allclose(soft_loss(p, teacher / np.float32(temperature)), 0, atol=1e-3)


def test_gradients_of_the_losses_are_finite_at_extremes():
    logits = tf.constant([[1e4, -1e4, 0.0], [0.0, 0.0, 0.0]])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = soft_loss([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], logits) + hard_loss([[1], [2]], logits)
    assert np.isfinite(tape.gradient(loss, logits)).all()


def test_t_squared_keeps_the_gradient_of_the_soft_loss():
    """Hinton et al., equation 4: at high T the gradient is (z - v) / (N T²) for zero-mean logits, so T² evens it out."""
    rng = np.random.default_rng(3)
    teacher, student = (z - z.mean() for z in rng.normal(0, 1, (2, 6)))
    for temperature in (50.0, 100.0):
        z = tf.constant(student[None], tf.float32)
        with tf.GradientTape() as tape:
            tape.watch(z)
            loss = temperature**2 * soft_loss(soften(teacher[None], temperature), z / temperature)
        np.testing.assert_allclose(tape.gradient(loss, z)[0], (student - teacher) / 6, atol=0.02)


def test_noise_labels_know_only_the_label():
    labels = np.arange(10).repeat(200)
    soft = noise_labels(labels, 10, temperature=3.0, seed=0)
    assert soft.shape == (2000, 10)
    np.testing.assert_allclose(soft.sum(-1), 1, atol=1e-5)
    # log q_label - log q_other is (1 + noise - noise') / T
    gap = np.log(soft[np.arange(2000), labels]) - np.log(soft[np.arange(2000), (labels + 1) % 10])
    assert gap.mean() == pytest.approx(1 / 3, abs=0.01)
    assert gap.std() == pytest.approx(0.1 * 2**0.5 / 3, rel=0.1)
    assert not np.array_equal(soft, noise_labels(labels, 10, 3.0, seed=1))


class Teacher:
    """Logits by example, and a count of how many were asked for."""

    def __init__(self, keys):
        self.keys, self.computed = keys, 0

    def __call__(self, missing):
        self.computed += len(missing)
        return np.stack([[len(key), hash(key) % 7, 1.0] for key in self.keys[missing]])


def test_logits_are_computed_once_and_found_by_example(tmp_path):
    path = tmp_path / "soft_labels.npz"
    keys = np.array(["a", "bb", "ccc", "a"])
    teacher = Teacher(keys)
    first, computed = cached_logits(path, "model", keys, teacher)
    assert computed == 4
    again, computed = cached_logits(path, "model", keys[::-1], teacher)
    assert computed == 0 and teacher.computed == 4
    np.testing.assert_array_equal(again, first[::-1])

    more = np.array(["ccc", "dddd", "a"])
    teacher = Teacher(more)
    found, computed = cached_logits(path, "model", more, teacher)
    assert computed == 1 and teacher.computed == 1
    np.testing.assert_array_equal(found[[0, 2]], first[[2, 0]])
    np.testing.assert_array_equal(found[1], teacher(np.array([1]))[0])


def test_another_model_computes_anew(tmp_path):
    path = tmp_path / "soft_labels.npz"
    keys = np.array(["a", "bb"])
    cached_logits(path, "model", keys, Teacher(keys))
    assert cached_logits(path, "another model", keys, Teacher(keys))[1] == 2
