"""common.layer_distillation: the loss of all layers against numpy, who learns and who does not, when the teacher rests."""

from dataclasses import replace

import numpy as np
import pytest

from common.backend import keras, tf
from common.bert import build_classifier
from common.layer_distillation import LayerLoss, with_layer_loss
from data import berts
from tests import tiny
from tests.numpy_bert import numpy_bert

NARROW = tiny.CONFIG | {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}


@pytest.fixture(scope="module")
def bert(bert_folder):
    return berts.load(str(bert_folder))


@pytest.fixture(scope="module")
def shallow(bert):
    """For what needs no layer that is left out."""
    return berts.keep_layers(bert, [0, 1])


@pytest.fixture(scope="module")
def batch(bert):
    return tiny.tokenized([text for text, _ in tiny.texts(4)], bert).inputs(np.arange(4))


def narrow_bert(bert):
    return berts.Bert(NARROW, tiny.weights(NARROW, seed=5), bert.tokenizer, bert.pad_id, "narrow")


def mean_square(teacher, student, ids):
    """Of hidden states, text by text."""
    counts = (ids > 0).sum(axis=1)
    return np.array([((t[:n] - s[:n]) ** 2).mean() for t, s, n in zip(teacher, student, counts, strict=True)])


def scores_of(bert, hidden, layer):
    """A of one layer, (batch, heads, tokens, tokens), in numpy."""
    own, heads = f"bert/encoder/layer_{layer}/attention/self", bert.config["num_attention_heads"]
    dense = [(bert.weights[f"{own}/{part}/kernel"], bert.weights[f"{own}/{part}/bias"]) for part in ("query", "key")]
    q, k = ((hidden @ kernel + bias).reshape(*hidden.shape[:2], heads, -1) for kernel, bias in dense)
    return np.einsum("bqhd,bkhd->bhqk", q, k) / q.shape[-1] ** 0.5


def test_the_loss_is_the_sum_of_tinyberts_over_the_layers(bert, batch):
    """Layers 1 and 2 of the student learn 2 and 4 of the teacher; embeddings learn embeddings."""
    small, ids = berts.keep_layers(bert, [1, 2]), batch[0]
    teacher, student = build_classifier(bert, 4, dropout=0.1), build_classifier(small, 4, dropout=0.0)
    both = with_layer_loss(teacher, student, [2, 4], hidden_weight=0.7, attention_weight=0.3)
    found = both.predict_on_batch(batch)
    taught, learned = (numpy_bert(each.weights, each.config, ids) for each in (bert, small))
    hidden = mean_square(taught[0], learned[0], ids) + mean_square(taught[2], learned[1], ids)
    hidden += mean_square(taught[4], learned[2], ids)
    attention = np.zeros(4)
    for old, new in ((1, 0), (3, 1)):  # a layer's scores are of the states before it
        wanted, given = scores_of(bert, taught[old], old), scores_of(small, learned[new], new)
        for text, n in enumerate((ids > 0).sum(axis=1)):
            attention[text] += ((wanted - given)[text, :, :n, :n] ** 2).mean()
    np.testing.assert_allclose(found[:, 0], 0.7 * hidden + 0.3 * attention, rtol=1e-4)
    np.testing.assert_allclose(found[:, 1:], student.model.predict_on_batch(batch), atol=1e-6)


def test_a_narrower_student_learns_through_a_projection(bert, batch):
    teacher, student = build_classifier(bert, 4, dropout=0.1), build_classifier(narrow_bert(bert), 4, dropout=0.0)
    both = with_layer_loss(teacher, student, [2, 4], attention_weight=0)
    layer = both.get_layer("layer_loss")
    w, v = layer.of_embeddings.get_weights()[0], layer.of_layers.get_weights()[0]
    assert w.shape == v.shape == (16, 32)
    learned = numpy_bert(narrow_bert(bert).weights, NARROW, batch[0])
    taught = numpy_bert(bert.weights, bert.config, batch[0])
    expected = mean_square(taught[0], learned[0] @ w, batch[0])
    expected += mean_square(taught[2], learned[1] @ v, batch[0]) + mean_square(taught[4], learned[2] @ v, batch[0])
    np.testing.assert_allclose(both.predict_on_batch(batch)[:, 0], expected, rtol=1e-4)


@pytest.mark.parametrize("hidden", ["cls", "cosine"])
def test_states_of_cls_and_directions_are_compared_through_the_projection_too(bert, batch, hidden):
    """PKD's normalized states of [CLS], DistilBERT's 1 - cosine of each token; embeddings are compared as in TinyBERT."""
    teacher, student = build_classifier(bert, 4, 0.0), build_classifier(narrow_bert(bert), 4, 0.0)
    both = with_layer_loss(teacher, student, [2, 4], hidden, attention_weight=0)
    layer = both.get_layer("layer_loss")
    w, v = layer.of_embeddings.get_weights()[0], layer.of_layers.get_weights()[0]
    learned, taught = (numpy_bert(each.weights, each.config, batch[0]) for each in (narrow_bert(bert), bert))

    def unit(states):
        return states / np.linalg.norm(states, axis=-1, keepdims=True)

    expected = mean_square(taught[0], learned[0] @ w, batch[0])
    for g, m in ((2, 1), (4, 2)):
        wanted, given = unit(taught[g]), unit(learned[m] @ v)
        if hidden == "cls":
            expected += ((wanted - given)[:, 0] ** 2).sum(axis=-1)
        else:
            apart, counts = 1 - (wanted * given).sum(axis=-1), (batch[0] > 0).sum(axis=1)
            expected += [text[:n].mean() for text, n in zip(apart, counts, strict=True)]
    np.testing.assert_allclose(both.predict_on_batch(batch)[:, 0], expected, rtol=1e-4)


def test_no_gradient_reaches_the_teacher(shallow, batch):
    """Even if its weights were trainable; the student and the projections get theirs."""
    teacher, student = build_classifier(shallow, 4, 0.0), build_classifier(narrow_bert(shallow), 4, 0.0)
    both = with_layer_loss(teacher, student, [1, 2])
    teacher.model.trainable = teacher.encoder.model.trainable = True
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(both(batch, training=True)[:, 0])
    reached = tape.gradient(loss, [*teacher.model.trainable_variables, *both.trainable_variables])
    count = len(teacher.model.trainable_variables)
    assert count and all(gradient is None for gradient in reached[:count])
    assert sum(gradient is not None for gradient in reached[count:]) > 20


def test_the_student_and_the_projections_learn_and_the_teacher_does_not(shallow, batch):
    teacher, student = build_classifier(shallow, 4, dropout=0.1), build_classifier(narrow_bert(shallow), 4, dropout=0.0)
    both = with_layer_loss(teacher, student, [1, 2])
    before = teacher.model.get_weights()
    mine = {id(variable) for variable in teacher.model.variables}
    assert not any(id(variable) in mine for variable in both.trainable_variables)
    assert len(both.trainable_variables) == len(student.model.trainable_variables) + 2
    both.compile(keras.optimizers.SGD(0.1), loss=lambda targets, outputs: outputs[:, 0])
    losses = [both.train_on_batch(batch, np.zeros(4)) for _ in range(20)]
    assert losses[-1] < 0.8 * losses[0]
    for old, new in zip(before, teacher.model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_the_teacher_is_asked_without_dropout(shallow, batch):
    teacher, student = (build_classifier(shallow, 4, dropout) for dropout in (0.5, 0.0))
    both = with_layer_loss(teacher, student, [1, 2])
    np.testing.assert_allclose(both(batch, training=True)[:, 0], 0, atol=1e-8)


def test_token_ids_are_exact_in_bfloat16(shallow, batch, precision):
    """Which holds whole numbers up to 256 alone: the teacher must not be asked other tokens than its student."""
    words = np.random.default_rng(0).normal(0, 1, (1000, 32)).astype(np.float32)
    bert = replace(shallow, config=shallow.config | {"vocab_size": 1000},
                   weights=shallow.weights | {"bert/embeddings/word_embeddings": words})
    precision("mixed_bfloat16")
    teacher, student = (build_classifier(bert, 4, 0.0) for _ in range(2))
    both = with_layer_loss(teacher, student, [1, 2])
    ids = np.where(batch[0] > 0, batch[0] + 801, 0)
    np.testing.assert_allclose(both((ids, batch[1]), training=False)[:, 0], 0, atol=1e-6)


def test_where_layers_are_not_learned_the_teacher_rests(shallow, batch):
    """The loss is 0 then, and weights that would make it infinite are never used."""
    teacher, student = (build_classifier(bert, 4, dropout=0.0) for bert in (shallow, berts.keep_layers(shallow, [0])))
    active = tf.Variable(True)
    both = with_layer_loss(teacher, student, [2], active=lambda: active)
    both.compile("sgd", loss=lambda targets, outputs: outputs[:, 0])
    teacher.model.set_weights([np.full_like(value, np.inf) for value in teacher.model.get_weights()])
    assert not np.isfinite(both.test_on_batch(batch, np.zeros(4)))
    active.assign(False)
    assert both.test_on_batch(batch, np.zeros(4)) == 0


def test_attention_of_other_heads_is_not_asked_for_without_a_weight(shallow, batch):
    other = narrow_bert(shallow)
    student = build_classifier(replace(other, config=other.config | {"num_attention_heads": 2}), 4, 0.0)
    both = with_layer_loss(build_classifier(shallow, 4, 0.0), student, [1, 2], attention_weight=0)
    assert np.isfinite(both(batch, training=False)).all()
    assert isinstance(both.get_layer("layer_loss"), LayerLoss)
