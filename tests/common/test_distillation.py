"""common.distillation: the equations against numpy and scipy, in every float type; one loss against two outputs of Keras."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import log_softmax, rel_entr, softmax

from common.backend import keras, set_seed, tf
from common.distillation import (
    HIDDEN_LOSSES,
    attention_loss,
    distillation_loss,
    distillation_metrics,
    distillation_targets,
    hard_loss,
    logit_loss,
    noise_labels,
    soft_loss,
    soften,
)
from data.parts import UNLABELLED

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


# Hinton's loss: one function of [y | p] and the logits


WEIGHTS = [(6.0, 1.0, 1.0), (3.25, 0.5, 0.5), (20.0, 0.0, 1.0), (2.0, 1.0, 0.0)]  # T, hard, soft
BATCH = 7  # not a power of two, so that a mean over it rounds


@pytest.fixture(params=["labelled", "some unlabelled"])
def batch(request):
    """(inputs, labels, the teacher's logits) of a batch."""
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 5, BATCH)
    if request.param == "some unlabelled":
        labels[[0, 2, 6]] = UNLABELLED
    return rng.normal(0, 1, (BATCH, 6)).astype(np.float32), labels, rng.normal(0, 3, (BATCH, 5))


def hinton(labels, teacher, logits, temperature, hard_weight, soft_weight):
    """hard_weight · CE + soft_weight · T² · KL of each example, in float64 and with nothing of `common.distillation`."""
    p, log_p = (function(teacher / temperature, axis=-1) for function in (naive, log_softmax))
    divergence = (p * (log_p - log_softmax(logits / temperature, axis=-1))).sum(axis=-1)
    entropy = -log_softmax(logits, axis=-1)[np.arange(len(labels)), labels]
    return hard_weight * np.where(labels == UNLABELLED, 0, entropy) + soft_weight * temperature**2 * divergence


def naive(values, axis):
    powers = np.exp(values)
    return powers / powers.sum(axis=axis, keepdims=True)


@pytest.mark.parametrize(("temperature", "hard_weight", "soft_weight"), WEIGHTS)
def test_distillation_loss_is_hintons(batch, temperature, hard_weight, soft_weight):
    _, labels, teacher = batch
    logits = np.random.default_rng(5).normal(0, 4, (BATCH, 5)).astype(np.float32)
    targets = distillation_targets(labels, soften(teacher, temperature))
    assert targets.shape == (BATCH, 6) and targets.dtype == np.float32
    found = distillation_loss(temperature, hard_weight, soft_weight)(targets, logits)
    assert found.shape == (BATCH,) and found.dtype == tf.float32
    expected = hinton(labels, teacher, logits.astype(float), temperature, hard_weight, soft_weight)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    hard, soft = distillation_metrics(temperature)
    assert [hard.__name__, soft.__name__] == ["hard_loss", "soft_loss"]
    np.testing.assert_allclose(
        hard_weight * hard(targets, logits) + soft_weight * temperature**2 * soft(targets, logits), found, rtol=1e-5, atol=1e-5
    )


def test_an_unlabelled_text_has_the_soft_loss_alone():
    logits, soft_labels = np.array([[1.0, -1, 0], [2, 0, 1]], np.float32), soften([[3, 0, 1], [0, 1, 2]], 2.0)
    unlabelled = distillation_targets(np.array([UNLABELLED, UNLABELLED]), soft_labels)
    labelled = distillation_targets(np.array([0, 2]), soft_labels)
    soft_alone = 4 * soft_loss(soft_labels, logits / 2)
    np.testing.assert_array_equal(distillation_loss(2.0, 1.0, 1.0)(unlabelled, logits), soft_alone)
    np.testing.assert_array_equal(distillation_loss(2.0, 0.0, 1.0)(labelled, logits), soft_alone)
    assert (distillation_loss(2.0, 1.0, 1.0)(labelled, logits) > soft_alone).numpy().all()
    np.testing.assert_array_equal(hard_loss(np.array([UNLABELLED, 1]), logits)[0], 0)


@pytest.mark.parametrize(("hard_weight", "soft_weight"), [(1.0, 1.0), (0.3, 0.7), (0.0, 1.0), (2.0, 0.0)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_logit_loss_is_that_of_tang_and_others(batch, hard_weight, soft_weight, dtype):
    """hard_weight · CE + soft_weight · ||z_teacher - z||² of each example; without a label the second part alone."""
    _, labels, teacher = batch
    logits = tf.cast(np.random.default_rng(5).normal(0, 4, (BATCH, 5)), dtype)
    z = logits.numpy().astype(float)
    entropy = np.where(labels == UNLABELLED, 0, -log_softmax(z, axis=-1)[np.arange(BATCH), labels])
    expected = hard_weight * entropy + soft_weight * np.linalg.norm(teacher - z, axis=-1) ** 2
    targets = tf.constant(distillation_targets(labels, teacher))
    found = logit_loss(hard_weight, soft_weight)(targets, logits)
    assert found.shape == (BATCH,) and found.dtype == tf.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_the_gradient_of_logit_loss_does_not_fade_with_confidence():
    """Of z it is softmax(z) - y + 2 (z - z_teacher); that of the cross-entropy alone nearly vanishes."""
    z, teacher = tf.constant([[20.0, 0.0, 0.0], [1.0, 2.0, 3.0]]), np.array([[12.0, 3.0, -1.0], [1.0, 2.0, 3.0]], np.float32)
    with tf.GradientTape() as tape:
        tape.watch(z)
        loss = logit_loss(1.0, 1.0)(distillation_targets(np.array([0, UNLABELLED]), teacher), z)
    entropy = [softmax(z.numpy()[0]) - [1, 0, 0], [0, 0, 0]]
    np.testing.assert_allclose(tape.gradient(loss, z), 2 * (z.numpy() - teacher) + entropy, atol=1e-5)


def classifier():
    """The same weights at each call."""
    set_seed(0)
    layers = [keras.Input((6,)), keras.layers.Dense(8, activation="tanh"), keras.layers.Dense(5)]
    return keras.Sequential(layers)


def of_two_outputs(model, temperature, hard_weight, soft_weight):
    """The loss as it was before it was one: Keras weighs the losses of two outputs, z and z / T."""
    outputs = {
        "hard": keras.layers.Activation("linear", name="hard")(model.output),
        "soft": keras.layers.Lambda(lambda z: z / temperature, name="soft")(model.output),
    }
    two = keras.Model(model.inputs, outputs)
    losses = {
        "hard": lambda y, z: tf.nn.sparse_softmax_cross_entropy_with_logits(tf.reshape(tf.cast(y, tf.int32), [-1]), z),
        "soft": lambda p, z: tf.reduce_sum(tf.math.xlogy(p, p) - p * tf.nn.log_softmax(z), axis=-1),
    }
    loss_weights = {"hard": hard_weight, "soft": soft_weight * temperature**2}
    two.compile(keras.optimizers.SGD(0.1), loss=losses, loss_weights=loss_weights, run_eagerly=True)
    return two


def step(model, inputs, targets, weights=None):
    """(loss, gradients of all weights) of the batch; and, of a step of training, the loss that Keras logs."""
    inputs, targets, weights = tf.nest.map_structure(lambda x: x if x is None else tf.constant(x), (inputs, targets, weights))
    with tf.GradientTape() as tape:
        loss = model.compute_loss(inputs, targets, model(inputs, training=True), weights)
    gradients = tape.gradient(loss, model.trainable_variables)
    logged = model.train_on_batch(inputs, targets, weights, return_dict=True)["loss"]
    return float(loss), [np.array(gradient) for gradient in gradients], float(logged)


@pytest.mark.parametrize(("temperature", "hard_weight", "soft_weight"), WEIGHTS)
def test_it_trains_as_two_weighted_outputs_do(batch, temperature, hard_weight, soft_weight):
    inputs, labels, teacher = batch
    soft_labels, labelled = soften(teacher, temperature), labels != UNLABELLED
    model, before = classifier(), classifier()
    loss = distillation_loss(temperature, hard_weight, soft_weight)
    model.compile(keras.optimizers.SGD(0.1), loss=loss, run_eagerly=True)
    loss, gradients, logged = step(model, inputs, distillation_targets(labels, soft_labels))
    two = of_two_outputs(before, temperature, hard_weight, soft_weight)
    targets = {"hard": np.where(labelled, labels, 0), "soft": soft_labels}
    weights = {"hard": labelled.astype(np.float32), "soft": np.ones(BATCH, np.float32)}
    old_loss, old_gradients, old_logged = step(two, inputs, targets, weights)
    np.testing.assert_allclose([loss, logged], [old_loss, old_logged], rtol=1e-6)
    assert loss == pytest.approx(logged, rel=1e-6)
    for found, expected, kernel in zip(gradients, old_gradients, model.trainable_variables, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7 * np.abs(expected).max(), err_msg=kernel.name)
    for found, expected in zip(model.get_weights(), before.get_weights(), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)  # after the step


# Layers


TOKENS = np.array([5, 1, 3])  # of three texts, of which the longest fills its row
MASK = np.arange(5) < TOKENS[:, None]


def states(seed, dtype="float32", width=4):
    return tf.cast(np.random.default_rng(seed).normal(0, 2, (3, 5, width)), dtype)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_losses_of_hidden_states_are_those_of_the_papers(dtype):
    """Text by text, with its own tokens alone: TinyBERT's equation 8, PKD's equation 7 and DistilBERT's cosine."""
    teacher, student = states(0, dtype), states(1, dtype)
    for name, of_one in {
        "mse": lambda t, s: ((t - s) ** 2).mean(),
        "cls": lambda t, s: ((unit(t[0]) - unit(s[0])) ** 2).sum(),
        "cosine": lambda t, s: 1 - (unit(t) * unit(s)).sum(axis=-1).mean(),
    }.items():
        found = HIDDEN_LOSSES[name](teacher, student, MASK)
        assert found.dtype == tf.float32
        pairs = zip(teacher.numpy().astype(np.float64), student.numpy().astype(np.float64), TOKENS, strict=True)
        np.testing.assert_allclose(found, [of_one(t[:count], s[:count]) for t, s, count in pairs], rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_loss_of_attention_scores_is_equation_7_of_tinybert(dtype):
    teacher, student = (tf.cast(np.random.default_rng(seed).normal(0, 3, (3, 2, 5, 5)), dtype) for seed in (0, 1))
    found = attention_loss(teacher, student, tf.constant(MASK))
    expected = []
    for t, s, count in zip(teacher.numpy().astype(np.float64), student.numpy().astype(np.float64), TOKENS, strict=True):
        heads = [((t[head, :count, :count] - s[head, :count, :count]) ** 2).mean() for head in range(2)]
        expected.append(np.mean(heads))
    assert found.dtype == tf.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("name", HIDDEN_LOSSES)
def test_a_student_with_its_teachers_states_has_nothing_to_learn(name):
    """And where it has, the loss falls along its gradient, which is finite for a state of nothing but 0, too."""
    teacher = states(0)
    np.testing.assert_allclose(HIDDEN_LOSSES[name](teacher, teacher, MASK), 0, atol=1e-6)
    student = tf.Variable(np.concatenate([states(1)[:2], np.zeros((1, 5, 4), np.float32)]))
    with tf.GradientTape() as tape:
        before = tf.reduce_sum(HIDDEN_LOSSES[name](teacher, student, MASK))
    gradient = tape.gradient(before, student)
    assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0
    assert not np.asarray(gradient)[~MASK].any()  # padding is nobody's business
    student[:2].assign(student[:2] - 1e-3 * gradient[:2])
    assert tf.reduce_sum(HIDDEN_LOSSES[name](teacher, student, MASK)) < before
