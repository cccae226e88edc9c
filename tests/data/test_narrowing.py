"""data.narrowing: what of the wide BERT is kept, what least squares makes up for, and widths that are refused."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import InputError
from data import berts
from data.berts import OUTPUT, POOLER
from data.narrowing import WORDS, narrow, width_of
from tests.numpy_bert import numpy_bert, numpy_head
from tests.tiny import without

WIDE, HEADS, SIZE, UNITS = 32, 4, 8, 64  # of tiny.CONFIG


@pytest.fixture(scope="module")
def bert(bert_folder):
    """Two layers, and a classifier with a pooler."""
    rng, start = np.random.default_rng(3), berts.keep_layers(berts.load(str(bert_folder)), [0, 1])
    shapes = dict(zip((*POOLER, *OUTPUT), ((WIDE, WIDE), (WIDE,), (4, WIDE), (4,)), strict=True))
    return replace(start, weights=start.weights | {name: rng.normal(0, 1, shape).astype("f") for name, shape in shapes.items()})


@pytest.mark.parametrize("how", ["cut", "least-squares"])
def test_at_full_width_it_is_the_same_bert(bert, how):
    for whole in (bert, without(bert, *POOLER), without(bert, *POOLER, *OUTPUT)):
        found = narrow(whole, WIDE, HEADS, how)
        assert found.config == whole.config and found.weights.keys() == whole.weights.keys()
        for name, value in whole.weights.items():
            np.testing.assert_array_equal(found.weights[name], value, err_msg=name)


def test_what_is_cut(bert):
    """The dimensions of the largest gammas; the heads, units and the pooler's that weigh most: each made to be known here."""
    dimensions, heads, units, pooled = np.arange(1, 32, 2), [1, 3], np.arange(20, 52), np.arange(5, 21)
    weights = {name: value.copy() for name, value in bert.weights.items()}
    for name in weights:
        if name.endswith("LayerNorm/gamma"):
            weights[name][dimensions] *= -10
    for layer in ("bert/encoder/layer_0", "bert/encoder/layer_1"):
        for head in heads:
            weights[f"{layer}/attention/self/value/kernel"][:, head * SIZE : (head + 1) * SIZE] *= 10
        weights[f"{layer}/intermediate/dense/kernel"][:, units] *= 10
    weights[OUTPUT[0]][:, pooled] *= 10
    inside = np.concatenate([np.arange(head * SIZE, (head + 1) * SIZE) for head in heads])
    wide, found = replace(bert, weights=weights), narrow(replace(bert, weights=weights), 16, 2, "cut")
    assert found.config == wide.config | {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
    for name, value in wide.weights.items():
        part = name.split("/", 3)[-1]
        if part.startswith("attention/self"):
            expected = value[dimensions][:, inside] if "kernel" in name else value[inside]
        elif part == "attention/output/dense/kernel":
            expected = value[inside][:, dimensions]
        elif part.startswith("intermediate"):
            expected = value[dimensions][:, units] if "kernel" in name else value[units]
        elif part == "output/dense/kernel":
            expected = value[units][:, dimensions]
        elif name in POOLER:
            expected = value[dimensions][:, pooled] if "kernel" in name else value[pooled]
        elif name in OUTPUT:
            expected = value[:, pooled] if name == OUTPUT[0] else value
        else:  # embeddings, LayerNorms and biases: the stream's
            expected = value[..., dimensions]
        np.testing.assert_array_equal(found.weights[name], expected, err_msg=name)
    linear = narrow(without(wide, *POOLER), 16, 2, "cut")
    np.testing.assert_array_equal(linear.weights[OUTPUT[0]], weights[OUTPUT[0]][:, dimensions])
    assert not linear.has_pooler and linear.is_classifier


def test_the_wide_bert_is_left_as_it_was(bert):
    before = {name: value.copy() for name, value in bert.weights.items()}
    narrow(bert, 16, 4, "least-squares")
    assert all(np.array_equal(bert.weights[name], value) for name, value in before.items())


def test_least_squares_makes_up_for_dimensions_that_the_others_tell(bert):
    """Where half of the dimensions only repeat the others, smaller, the queries of the first layer are the same numbers."""
    weights = {name: value.copy() for name, value in bert.weights.items()}
    for name in (name for name in weights if name.endswith("_embeddings")):
        weights[name][:, 16:] = weights[name][:, :16]
    norm = "bert/embeddings/LayerNorm"
    weights[f"{norm}/gamma"][:16], weights[f"{norm}/gamma"][16:] = np.linspace(3, 4, 16), np.linspace(1, 2, 16)
    for name in weights:
        if name.endswith("LayerNorm/gamma") and "encoder" in name:
            weights[name][:16], weights[name][16:] = 2, 1
    wide = replace(bert, weights=weights)
    found = narrow(wide, 16, 2, "least-squares")
    token_ids = np.random.default_rng(0).integers(1, 120, (3, 9))
    before, after = (numpy_bert(one.weights, one.config, token_ids)[0] for one in (wide, found))
    np.testing.assert_allclose(after, before[..., :16], atol=1e-5)
    part = "bert/encoder/layer_0/attention/self/query"
    expected = before @ weights[f"{part}/kernel"] + weights[f"{part}/bias"]
    queries = after @ found.weights[f"{part}/kernel"] + found.weights[f"{part}/bias"]
    heads = [expected[..., head * SIZE : (head + 1) * SIZE] for head in range(HEADS)]
    for head in np.split(queries, 2, axis=-1):  # which two of the four is another test's
        assert min(np.abs(head - other).max() for other in heads) < 1e-3
    cut = narrow(wide, 16, 2, "cut").weights
    assert np.abs(after @ cut[f"{part}/kernel"] + cut[f"{part}/bias"] - queries).max() > 0.1


def scores_of(bert, layer):
    """[query; bias] [key; bias]ᵀ / √size and [value; bias] output of each head: (heads, hidden + 1, …) each."""
    heads, parts = bert.config["num_attention_heads"], []
    for part in ("query", "key", "value"):
        name = f"bert/encoder/layer_{layer}/attention/self/{part}"
        both = np.vstack([bert.weights[f"{name}/kernel"], bert.weights[f"{name}/bias"]]).astype(float)
        parts.append(both.reshape(len(both), heads, -1).swapaxes(0, 1))
    query, key, value = parts
    output = bert.weights[f"bert/encoder/layer_{layer}/attention/output/dense/kernel"]
    return query @ key.swapaxes(1, 2) / query.shape[-1] ** 0.5, value @ output.reshape(heads, -1, output.shape[1])


def test_smaller_heads_are_the_nearest_of_their_size(bert):
    """Eckart and Young: no matrix of rank 4 is nearer than at a distance of the root of the other singular values' squares."""
    wide_heads, small_heads = narrow(bert, 16, 2, "least-squares"), narrow(bert, 16, 4, "least-squares")
    cut_heads = narrow(bert, 16, 4, "cut"), narrow(bert, 16, 2, "cut")
    for layer in (0, 1):
        for kind in (0, 1):
            for whole in scores_of(wide_heads, layer)[kind]:
                distances = [np.linalg.norm(whole - small) for small in scores_of(small_heads, layer)[kind]]
                singular = np.linalg.svd(whole, compute_uv=False)
                assert (singular[4:8] > 1e-3).all()
                assert min(distances) == pytest.approx(np.sqrt((singular[4:] ** 2).sum()), rel=1e-3)
            for whole in scores_of(cut_heads[1], layer)[kind]:
                distances = [np.linalg.norm(whole - small) for small in scores_of(cut_heads[0], layer)[kind]]
                singular = np.linalg.svd(whole, compute_uv=False)
                assert np.sqrt((singular[4:] ** 2).sum()) < min(distances)


@given(st.integers(1, 40), st.integers(0, 6), st.sampled_from(["cut", "least-squares"]))
def test_every_width_is_refused_or_makes_a_bert(bert, hidden, heads, how):
    whole = hidden % heads == 0 and hidden // heads <= SIZE if heads else hidden % SIZE == 0
    if hidden > WIDE or heads > HEADS or not whole:
        with pytest.raises(InputError):
            width_of(bert, hidden, heads)
        return
    width, number = width_of(bert, hidden, heads)
    assert width == hidden and number == (heads or hidden // SIZE)
    found = narrow(bert, width, number, how)
    shapes = berts.expected_shapes(found.config)
    shapes |= dict(zip((*POOLER, *OUTPUT), ((hidden, hidden), (hidden,), (4, hidden), (4,)), strict=True))
    assert {name: value.shape for name, value in found.weights.items()} == shapes
    assert {value.dtype for value in found.weights.values()} == {np.dtype(np.float32)}
    states = numpy_bert(found.weights, found.config, np.array([[2, 7, 9, 3]]))[-1] if hidden > 1 else np.zeros((1, 4, 1))
    assert np.isfinite(numpy_head(found.weights, states)).all()


@pytest.mark.parametrize(
    ("hidden", "heads", "message"),
    [
        (48, 0, "--student-hidden 48: .* has a width of 32, so 1 to 32 can be taken"),
        (20, 0, "--student-hidden 20: .* has 4 heads of 8 dimensions, so a width is a multiple of 8; or give --student-heads"),
        (4, 0, "--student-hidden 4: .* or give --student-heads"),
        (20, 3, "--student-hidden 20: not a multiple of --student-heads 3"),
        (2, 4, "--student-hidden 2: not a multiple of --student-heads 4"),
        (16, 8, "--student-heads 8: .* has 4 heads of 8 dimensions, so 1 to 4 can be taken"),
        (18, 1, "--student-heads 1: of 18 dimensions each in a width of 18, but .* at least 3 heads are needed"),
    ],
)
def test_widths_that_cannot_be_made(bert, hidden, heads, message):
    with pytest.raises(InputError, match=message):
        width_of(bert, hidden, heads)


def test_narrowed_states_are_like_the_wide_ones():
    """minilm-l6 at half its width: which tokens' states are alike is mostly the same, and it is not with weights at random."""
    wide = berts.keep_layers(berts.load("minilm-l6"), [0, 1])
    some = {WORDS: wide.weights[WORDS][:5000]}  # of its 30,522 tokens
    wide = replace(wide, config=wide.config | {"vocab_size": 5000}, weights=wide.weights | some)
    token_ids = np.random.default_rng(0).integers(2000, 5000, (30, 8))
    rng = np.random.default_rng(1)

    def likeness(bert):
        states = numpy_bert(bert.weights, bert.config, token_ids)[-1].mean(axis=1)
        states = states / np.linalg.norm(states, axis=1, keepdims=True)
        return (states @ states.T)[np.triu_indices(30, 1)]

    expected = likeness(wide)
    drawn = {name: value + rng.normal(0, 1, value.shape) for name, value in narrow(wide, 192, 6, "cut").weights.items()}
    noise = replace(narrow(wide, 192, 6, "cut"), weights=drawn)
    assert np.corrcoef(expected, likeness(noise))[0, 1] < 0.3
    for how in ("cut", "least-squares"):
        assert np.corrcoef(expected, likeness(narrow(wide, 192, 6, how)))[0, 1] > 0.7
