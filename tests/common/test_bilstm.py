"""common.bilstm, data.bilstms: the model against one in numpy, whatever the padding; weights in, out and on disk."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from common import InputError
from common.backend import keras
from common.bert import swap_pad_id
from common.bilstm import build_bilstm
from common.distillation import logit_loss
from data import berts, bilstms, vocabulary
from tests import tiny
from tests.numpy_lstm import numpy_bilstm

EMBEDDINGS = vocabulary.EMBEDDINGS


@pytest.fixture(scope="module")
def bert(bert_folder):
    return berts.load(str(bert_folder))


def shaken(bert, pad_id=0, **shape):
    """A BiLSTM of other units in each place, all of whose weights are random, so that no gate is like another."""
    bilstm = bilstms.draw(replace(bert, pad_id=pad_id), 5, **{"units": 6, "dense": 7, "embeddings": "bert", "seed": 0} | shape)
    rng = np.random.default_rng(1)
    weights = {name: rng.normal(0, 0.7, value.shape).astype(np.float32) for name, value in bilstm.weights.items()}
    return replace(bilstm, weights=weights)


@pytest.fixture(scope="module", params=[0, 3])
def bilstm(request, bert):
    return shaken(bert, pad_id=request.param)


@pytest.fixture(scope="module")
def built(bilstm):
    return build_bilstm(bilstm)


def padded_texts(pad_id, lengths, tokens, seed=0):
    """(token ids, segment ids) of texts of these lengths, as a tokenizer makes them."""
    words = [number for number in range(120) if number != pad_id]
    token_ids = np.random.default_rng(seed).choice(words, (len(lengths), tokens)).astype(np.int32)
    token_ids[np.arange(tokens) >= np.array(lengths)[:, None]] = pad_id
    return token_ids, (np.arange(tokens) > 3).astype(np.int32) * np.ones((len(lengths), 1), np.int32)


def answer(built, token_ids, segment_ids):
    """Logits of what the tokenizer made."""
    return built.model.predict_on_batch([np.array(swap_pad_id(token_ids, built.start.pad_id)), segment_ids])


def test_the_logits_are_those_of_numpy(bilstm, built):
    """Of a full text, of padded ones, of a single token, and where the padding's token stands within a text."""
    token_ids, segment_ids = padded_texts(bilstm.pad_id, [16, 11, 8, 3, 1, 16], 16)
    token_ids[5, 4] = bilstm.pad_id
    expected = numpy_bilstm(bilstm.weights, token_ids, bilstm.pad_id)
    assert np.ptp(expected, axis=0).min() > 0.1  # they tell the texts apart
    found = answer(built, token_ids, segment_ids)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)
    for name in (*bilstms.LSTM, *bilstms.DENSE):  # all of which numpy looks at
        other = bilstm.weights | {name: bilstm.weights[name][::-1] if name.endswith("kernel") else bilstm.weights[name] + 1}
        assert np.abs(numpy_bilstm(other, token_ids, bilstm.pad_id) - expected).max() > 1e-3


@settings(max_examples=15)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(0, 7), st.integers(0, 9))
def test_no_answer_depends_on_padding_or_on_other_texts(built, lengths, more, seed):
    pad_id = built.start.pad_id
    token_ids, segment_ids = padded_texts(pad_id, lengths, max(lengths), seed)
    wider = np.pad(token_ids, ((0, 0), (0, more)), constant_values=pad_id)
    found = answer(built, wider, np.zeros_like(wider))
    for row, length in enumerate(lengths):
        alone = answer(built, token_ids[row : row + 1, :length], segment_ids[row : row + 1, :length])
        np.testing.assert_allclose(found[row : row + 1], alone, atol=1e-6)


def test_the_record_has_the_weights_that_the_model_has_now(bilstm, built):
    assert built.bert.config == bilstm.config and built.bert.weights.keys() == bilstm.weights.keys()
    for name, value in built.bert.weights.items():
        np.testing.assert_array_equal(value, bilstm.weights[name], err_msg=name)
    trained = build_bilstm(bilstm)
    trained.model.compile(keras.optimizers.SGD(0.1), loss=logit_loss(1.0, 1.0), run_eagerly=True)  # a graph of it takes long
    batch = padded_texts(bilstm.pad_id, [9, 5], 9)
    inputs = [np.array(swap_pad_id(batch[0], bilstm.pad_id)), batch[1]]
    trained.model.train_on_batch(inputs, np.array([[1, 0, 1, 2, 3, 4], [-1, 3, 2, 1, 0, 0]], np.float32))
    after = trained.bert
    assert all(np.abs(after.weights[name] - value).max() > 0 for name, value in bilstm.weights.items())  # all of it learns
    moved = np.flatnonzero(np.abs(after.weights[EMBEDDINGS] - bilstm.weights[EMBEDDINGS]).max(axis=1))
    assert set(moved) == set(batch[0].ravel()) - {bilstm.pad_id}  # of the words it was taught, and not of padding
    expected = numpy_bilstm(after.weights, batch[0], bilstm.pad_id)
    np.testing.assert_allclose(trained.model.predict_on_batch(inputs), expected, atol=1e-5)


def test_what_is_drawn(bert):
    one = bilstms.draw(bert, 5, units=6, dense=7, embeddings="bert", seed=0)
    assert one.kind == "bilstm" and one.layers == 1 and one.is_classifier and one.tokenizer is bert.tokenizer
    np.testing.assert_array_equal(one.weights[EMBEDDINGS], bert.weights[EMBEDDINGS])
    for direction in ("forward", "backward"):
        recurrent = one.weights[f"lstm/{direction}/recurrent_kernel"]
        assert recurrent.shape == (6, 24)
        np.testing.assert_allclose(recurrent @ recurrent.T, np.eye(6), atol=1e-6)
        assert one.weights[f"lstm/{direction}/bias"].tolist() == [0] * 6 + [1] * 6 + [0] * 12
        assert np.abs(one.weights[f"lstm/{direction}/kernel"]).max() <= (6 / (32 + 24)) ** 0.5
    again, other = (bilstms.draw(bert, 5, 6, 7, "random", seed) for seed in (0, 1))
    table = again.weights[EMBEDDINGS]
    assert table.shape == bert.weights[EMBEDDINGS].shape and np.abs(table).max() <= 0.05 and table.std() > 0.02
    assert all(np.any(again.weights[name] != other.weights[name]) for name in again.weights if "bias" not in name)


def test_it_keeps_its_answers_with_fewer_tokens(bert):
    """Those of texts whose tokens are all kept."""
    whole = shaken(bert)
    lines = ["w1 w2 w3", "w4"]
    small = vocabulary.trim(whole, lines, 60)
    assert small.config["vocab_size"] == len(small.weights[EMBEDDINGS]) < 120 and small.kind == "bilstm"
    answers = [build_bilstm(each).model(tiny.tokenized(lines, each).inputs(np.arange(2))) for each in (whole, small)]
    np.testing.assert_allclose(*answers, atol=1e-6)


def test_its_files_hold_all_of_it(bilstm, tmp_path):
    bilstms.save(tmp_path, bilstm, list("abcde"), maxlen=16)
    again = bilstms.load(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert config["model_type"] == "bilstm" and config["maxlen"] == 16 and config["id2label"]["4"] == "e"
    assert "architectures" not in config  # no library has one
    assert again.weights.keys() == bilstm.weights.keys() and bilstm.config.items() <= again.config.items()
    assert all(np.array_equal(again.weights[name], value) for name, value in bilstm.weights.items())
    assert "lstm.backward.recurrent_kernel" in load_file(tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="config.json: model_type is bilstm; only bert can be read"):
        berts.load(str(tmp_path))  # as --bert and --teacher take it
