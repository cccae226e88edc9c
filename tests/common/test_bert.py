"""common.bert: the models that are built, against a BERT written in numpy and against PyTorch's figures."""

import numpy as np
import pytest

from common.backend import LayerNormalization, keras, tf
from common.bert import (
    build_encoder,
    cls,
    cls_state,
    embeddings_of,
    inputs_and_mask,
    layers_of,
    read_encoder,
    states_of,
    swap_pad_id,
)
from data import berts
from tests import tiny
from tests.numpy_bert import numpy_bert

SHALLOW = tiny.CONFIG | {"num_hidden_layers": 2}


def activations(bert, token_ids, encoder=None, segment_ids=None):
    """Hidden states after the embeddings and after each layer, from the built model."""
    encoder = encoder or build_encoder(bert, dropout=0.1)
    names = ["Embedding-Norm", *(f"Transformer-{i}-FeedForward-Norm" for i in range(bert.layers))]
    model = keras.Model(encoder.model.inputs, [encoder.layers[name].output for name in names])
    segment_ids = np.zeros_like(token_ids) if segment_ids is None else segment_ids
    return [x.numpy() for x in model([token_ids, segment_ids], training=False)]


def some_ids(config, seed=0):
    rng = np.random.default_rng(seed)
    token_ids = rng.integers(1, config["vocab_size"], (4, 16)).astype(np.int32)
    token_ids[1, 9:] = 0
    token_ids[2, 2:] = 0
    return token_ids


@pytest.mark.parametrize("layout", ["hugging-face", "google", "float16"])
def test_activations_are_those_of_numpy(bert_folder, google_folder, tmp_path, layout):
    if layout == "float16":
        folder = tiny.write_bert(tmp_path / "half", config=SHALLOW, dtype=np.float16)
    else:
        folder = google_folder if layout == "google" else bert_folder
    bert = berts.load(str(folder))
    bert = berts.keep_layers(bert, [0, 3]) if layout == "google" else bert  # faster
    token_ids = some_ids(bert.config)
    for found, expected in zip(activations(bert, token_ids), numpy_bert(bert.weights, bert.config, token_ids), strict=True):
        np.testing.assert_allclose(found[token_ids > 0], expected[token_ids > 0], atol=1e-5)


def test_pairs_have_the_activations_of_numpy(tmp_path):
    bert = berts.load(str(tiny.write_bert(tmp_path / "bert", config=SHALLOW)))
    couples = [couple for couple, _ in tiny.pairs(4)]
    token_ids, segment_ids = tiny.tokenized(couples, bert, maxlen=24).inputs(np.arange(4))
    expected = numpy_bert(bert.weights, bert.config, token_ids, segment_ids=segment_ids)
    for found, states in zip(activations(bert, token_ids, segment_ids=segment_ids), expected, strict=True):
        np.testing.assert_allclose(found[token_ids > 0], states[token_ids > 0], atol=1e-5)
    without = numpy_bert(bert.weights, bert.config, token_ids)[-1]
    assert np.abs(without - expected[-1])[:, 0].max(axis=1).min() > 0.05  # segments are part of the answer


@pytest.mark.slow
def test_minilm_has_the_activations_of_pytorch():
    reference, bert = tiny.minilm_reference(), berts.load("minilm-l6")
    states = activations(bert, np.array(reference["token_ids"], np.int32))
    for where, index in (("embeddings", 0), ("first_layer", 1), ("last_hidden_state", -1)):
        for row, token, values in reference[where]:
            np.testing.assert_allclose(states[index][row, token, : len(values)], values, atol=1e-4)


@pytest.mark.parametrize("dropout", [0, 0.1])
def test_states_are_what_the_layers_compute(bert_folder, dropout):
    """Hidden states of the embeddings and every layer, and the scores of every head, against numpy."""
    bert = berts.load(str(bert_folder))
    token_ids, encoder = some_ids(bert.config), build_encoder(bert, dropout)
    model = keras.Model(encoder.model.inputs, states_of(encoder))
    hidden, scores = model([token_ids, np.zeros_like(token_ids)], training=False)
    expected, seen = numpy_bert(bert.weights, bert.config, token_ids), token_ids > 0
    assert len(hidden) == bert.layers + 1 and len(scores) == bert.layers
    for found, wanted in zip(hidden, expected, strict=True):
        np.testing.assert_allclose(found.numpy()[seen], wanted[seen], atol=1e-5)
    for layer, found in enumerate(scores):
        own = f"bert/encoder/layer_{layer}/attention/self"
        dense = [(bert.weights[f"{own}/{part}/kernel"], bert.weights[f"{own}/{part}/bias"]) for part in ("query", "key")]
        q, k = ((expected[layer] @ kernel + bias).reshape(4, 16, 4, 8) for kernel, bias in dense)
        wanted = np.einsum("bqhd,bkhd->bhqk", q, k) / 8**0.5
        pairs = np.broadcast_to(seen[:, None, :, None] & seen[:, None, None, :], wanted.shape)
        np.testing.assert_allclose(found.numpy()[pairs], wanted[pairs], atol=1e-5)


def test_layer_norm_epsilon_of_the_config(tmp_path):
    bert = berts.load(str(tiny.write_bert(tmp_path / "bert", config=SHALLOW | {"layer_norm_eps": 0.5})))
    token_ids = some_ids(bert.config)
    expected = numpy_bert(bert.weights, bert.config, token_ids)[-1]
    np.testing.assert_allclose(activations(bert, token_ids)[-1][token_ids > 0], expected[token_ids > 0], atol=1e-5)


def test_padding_with_another_id(tmp_path):
    """With id 4 for padding and id 0 an ordinary word, hidden states are still those of numpy."""
    folder = tiny.write_bert(tmp_path / "bert", config=SHALLOW | {"pad_token_id": 0})  # the tokenizer knows better
    words = (folder / "vocab.txt").read_text("utf-8").split("\n")
    words[0], words[4] = words[4], words[0]  # [MASK] is id 0, here a word like others
    (folder / "vocab.txt").write_text("\n".join(words))
    bert = berts.load(str(folder))
    token_ids, _ = tiny.tokenized(["w1 [MASK] w2", "w3"], bert).inputs(np.arange(2))
    assert token_ids.tolist() == [[2, 6, 4, 7, 3, 0, 0, 0], [2, 8, 3, 0, 0, 0, 0, 0]]
    states = numpy_bert(bert.weights, bert.config, np.array([[2, 6, 0, 7, 3]]), mask=False)
    encoder = build_encoder(bert, dropout=0)
    for found, expected in zip(activations(bert, token_ids, encoder), states, strict=True):
        np.testing.assert_allclose(found[0, :5], expected[0], atol=1e-5)
    back = read_encoder(encoder, bert)
    name = "bert/embeddings/word_embeddings"
    np.testing.assert_array_equal(back.weights[name], bert.weights[name])


def test_kept_layers_compute_what_they_did(bert_folder):
    small = berts.keep_layers(berts.load(str(bert_folder)), [1, 3])
    token_ids = some_ids(small.config)
    states = numpy_bert(small.weights, small.config, token_ids)
    assert len(states) == 3
    np.testing.assert_allclose(activations(small, token_ids)[-1][token_ids > 0], states[-1][token_ids > 0], atol=1e-5)


def test_read_encoder_gives_back_what_was_built(bert_folder):
    bert = berts.keep_layers(berts.load(str(bert_folder)), [0, 2])
    back = read_encoder(build_encoder(bert, dropout=0), bert)
    assert back.weights.keys() == berts.expected_shapes(bert.config).keys()
    for name, value in back.weights.items():
        np.testing.assert_array_equal(value, bert.weights[name])


def test_a_classifier_is_its_linear_layer_of_the_first_token(taken):
    bert, classifier = taken.bert, taken.classifier
    token_ids = some_ids(bert.config)
    kernel, bias = classifier.head.get_weights()
    expected = numpy_bert(bert.weights, bert.config, token_ids)[-1][:, 0] @ kernel + bias
    np.testing.assert_allclose(classifier.model([token_ids, np.zeros_like(token_ids)], training=False), expected, atol=1e-4)
    head = {"output_weights": kernel.T, "output_bias": bias}
    assert classifier.bert.weights.keys() == bert.weights.keys() | head.keys()
    for name, value in classifier.bert.weights.items():
        np.testing.assert_array_equal(value, head[name] if name in head else bert.weights[name])


@pytest.mark.parametrize("dropout", [0, 0.1])
@pytest.mark.parametrize("depth", [1, 3])
def test_cls_is_what_the_whole_last_layer_gives_and_learns_the_same(bert_folder, depth, dropout):
    """And nothing else of the last layer is computed: its feed-forward part sees one token a text."""
    bert = berts.keep_layers(berts.load(str(bert_folder)), range(depth))
    encoder, token_ids = build_encoder(bert, dropout), some_ids(bert.config)
    whole = keras.Model(encoder.model.inputs, cls(encoder.model.output))
    alone, weights = keras.Model(encoder.model.inputs, cls_state(encoder)), whole.trainable_weights
    found = []
    for model in (whole, alone):
        with tf.GradientTape() as tape:
            state = model([token_ids, 0 * token_ids], training=False)
            gradients = tape.gradient(tf.reduce_sum(state * tf.range(32.0)), weights)
        found.append([state, *map(tf.convert_to_tensor, gradients)])
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)
    assert len(alone.trainable_weights) == len(weights)
    seen = keras.Model(encoder.model.inputs, encoder.layers[f"Transformer-{depth - 1}-FeedForward"].get_input_at(1))
    assert seen([token_ids, 0 * token_ids]).shape == (len(token_ids), 1, 32)


def test_parameters(taken):
    expected = sum(np.prod(shape) for shape in berts.expected_shapes(taken.bert.config).values()) + 32 * 4 + 4
    assert taken.classifier.model.count_params() == expected


def test_padding_and_0_change_places():
    token_ids = np.array([[0, 3, 1], [3, 2, 0]], np.int32)
    assert np.array(swap_pad_id(token_ids, 3)).tolist() == [[3, 0, 1], [0, 2, 3]]
    assert swap_pad_id(token_ids, 0) is token_ids


@pytest.mark.parametrize("narrow", ["mixed_bfloat16", "mixed_float16"])
def test_layer_norm_is_taken_in_float32(precision, narrow):
    """Far from 0, where 1000 + 1 is 1000 in a narrow precision; also in a graph, where TensorFlow may fuse it or not."""
    precision(narrow)
    layer, x = LayerNormalization(), np.random.default_rng(0).normal(1000, 1, (4, 32)).astype(np.float32)
    expected = (x - x.mean(axis=-1, keepdims=True)) / x.std(axis=-1, keepdims=True)
    for call in (layer, tf.function(lambda x: layer(x))):
        np.testing.assert_allclose(call(tf.constant(x)).numpy(), expected, atol=1e-3)


@pytest.mark.parametrize("narrow", ["mixed_bfloat16", "mixed_float16"])
def test_a_model_in_pieces_is_the_model(precision, bert_folder, narrow):
    """To the last bit, in graphs too: exits are of pieces, and their last answers as the teacher, which is whole."""
    precision(narrow)
    encoder = build_encoder(berts.keep_layers(berts.load(str(bert_folder)), [0, 1]), dropout=0.0)
    layers = [layers_of(encoder, [i]) for i in range(encoder.num_hidden_layers)]
    inputs, mask = inputs_and_mask()
    hidden = embeddings_of(encoder)(inputs)
    for layer in layers:
        hidden = layer(hidden, mask=mask)
    pieces, token_ids = keras.Model(inputs, hidden), some_ids(tiny.CONFIG)
    whole, cut = (model.predict([token_ids, 0 * token_ids], verbose=0) for model in (encoder.model, pieces))
    assert (whole == cut).all() and np.isfinite(whole).all()
