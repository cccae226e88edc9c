"""export.onnx_files: model.onnx is the trained model; when model.int8.onnx is made."""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import onnx
import onnxruntime
import pytest
from scipy.special import softmax

import knowledge_distillation_from_scratch as scratch
from common import InputError
from common.backend import tf
from common.batches import TokenizedTexts
from data import berts
from export import onnx_files, onnx_graph
from export.deployed import text_model
from tests import tiny
from tests.numpy_bert import numpy_bert
from tests.taken import LINES


@pytest.mark.slow
def test_onnx(taken, tmp_path):
    """onnxruntime takes texts of any number and length."""
    examples, model = tiny.tokenized(LINES, taken.bert), text_model(taken.classifier)
    token_ids, segment_ids = examples.inputs(np.arange(4))
    inputs = {"token_ids": token_ids, "segment_ids": segment_ids}
    expected = {"probabilities": taken.probabilities(LINES[:4])}
    onnx_files.write_onnx(tmp_path, lambda: model.onnx_graph(model.bert).SerializeToString(), inputs, expected)
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    couples = [(a, b) for a in LINES[:2] for b in LINES[2:5]]
    token_ids, segment_ids = tiny.tokenized(couples, taken.bert).inputs(np.arange(6))
    found = session.run(["probabilities"], {"token_ids": token_ids, "segment_ids": segment_ids})[0]
    np.testing.assert_allclose(found, taken.probabilities(couples), atol=1e-5)
    for indices in (np.arange(1), np.arange(len(LINES))):
        token_ids, segment_ids = examples.inputs(indices)
        found = session.run(["probabilities"], {"token_ids": token_ids, "segment_ids": segment_ids})[0]
        np.testing.assert_allclose(found, taken.probabilities([LINES[index] for index in indices]), atol=1e-5)


def test_a_model_of_images_is_converted(tmp_path):
    """By tf2onnx; it takes images of any number."""
    pytest.importorskip("tf2onnx")
    model = scratch.build_teacher((8, 8, 1), 3, dropout=0.5)
    pixels = np.random.default_rng(0).random((9, 8, 8, 1), np.float32)
    signature = (tf.TensorSpec((None, 8, 8, 1), tf.float32, name="images"),)
    graph = tf.function(lambda images: {"probabilities": tf.nn.softmax(model(images, training=False))})
    expected = {"probabilities": softmax(model.predict_on_batch(pixels[:4]), axis=-1)}
    content = onnx_files.convert(graph, signature).SerializeToString()
    onnx_files.write_onnx(tmp_path, lambda: content, {"images": pixels[:4]}, expected)
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    found = session.run(["probabilities"], {"images": pixels})[0]
    np.testing.assert_allclose(found, softmax(model.predict_on_batch(pixels), axis=-1), atol=1e-5)


def test_a_rounding_may_send_a_text_on():
    """Of five texts: alike; left by a hair, here and there; left by more than that; left elsewhere at another uncertainty."""
    one = {"layers_used": np.array([1, 1, 3, 1, 2]), "uncertainty": np.array([0.2, 0.499999, 0.1, 0.4999, 0.3])}
    other = {"layers_used": np.array([1, 2, 2, 2, 1]), "uncertainty": np.array([0.2, 0.1, 0.499999, 0.1, 0.3])}
    assert onnx_files.on_the_edge(one, other, 0.5).tolist() == [False, True, True, False, False]
    assert onnx_files.on_the_edge(other, one, 0.5).tolist() == [False, True, True, False, False]


def test_what_cannot_be_made_ends_in_one_line(tmp_path):
    with pytest.raises(InputError, match="student/: model.onnx cannot be made or not be asked") as error:
        onnx_files.write_onnx(tmp_path, lambda: 1 / 0, {}, {})
    assert "\n" not in str(error.value)


def test_int8_that_onnxruntime_does_not_have_is_left_out_and_said(monkeypatch, taken):
    def elsewhere(graph, reduce_range):
        other = onnx.ModelProto()
        other.CopyFrom(graph)
        other.graph.node[0].domain = "ai.elsewhere"
        return other

    monkeypatch.setattr(onnx_files, "quantized", elsewhere)
    decide = partial(onnx_files.decisions, examples=tiny.tokenized(LINES, taken.bert), pad_id=0)
    graph = onnx_graph.text_graph(taken.classifier.bert).SerializeToString()
    int8, bits, words = onnx_files.choose_int8(graph, decide, np.zeros(len(LINES), int), 5.0, "texts")
    assert int8 is None and bits == 8 and "not a graph that onnxruntime" in words


# int8: whether it may be written


def answers(count, others, right, gained=0):
    """(labels, classes by float32, by int8) of so many texts.

    others: on how many the two differ
    right: how many float32 gets right
    gained: how many more int8 gets right, of those on which they differ
    """
    labels, expected = np.zeros(count, int), np.repeat([0, 1], [right, count - right])
    found = expected.copy()
    found[right - max(-gained, 0) : right] = 2
    found[right : right + max(gained, 0)] = 0
    found[count - others + abs(gained) :] = 2
    assert (found != expected).sum() == others and (found == labels).sum() == right + gained
    return labels, expected, found


@pytest.mark.parametrize(
    ("made_up", "disagreement", "allowed", "words"),
    [
        (answers(400, 3, 300, 2), 5.0, True, "answers as float32 on 99.25 % of the validation texts, +0.50 points there"),
        (answers(400, 0, 300), 0.0, True, "answers as float32 on 100.00 % of the validation texts, +0.00 points there"),
        (answers(400, 20, 300, -2), 5.0, True, "answers as float32 on 95.00 % of the validation texts, -0.50 points there"),
        (answers(400, 28, 300), 7.0, True, "answers as float32 on 93.00 % of the validation texts, +0.00 points there"),
        (answers(400, 21, 300, 1), 5.0, False, "answers as float32 on 94.75 % of the validation texts (95 % needed, see "
                                               "--int8-disagreement), +0.25 points there"),
        (answers(400, 3, 300, -3), 5.0, False, "answers as float32 on 99.25 % of the validation texts, -0.75 points there "
                                               "(0.5 points may be lost)"),
        (answers(400, 40, 300, -3), 2.5, False, "answers as float32 on 90.00 % of the validation texts (97.5 % needed, see "
                                                "--int8-disagreement), -0.75 points there (0.5 points may be lost)"),
    ],
)
def test_how_well_int8_must_answer(made_up, disagreement, allowed, words):
    assert onnx_files.judge(*made_up, disagreement, "validation texts") == (allowed, words)


@pytest.mark.parametrize(("wrong", "bits"), [((0, 0), 8), ((0, 9), 8), ((5, 0), 8), ((6, 0), 7), ((30, 20), 8), ((40, 5), 7)])
def test_weights_have_7_bits_where_8_measurably_answer_worse(wrong, bits):
    """wrong: how many texts 8 and 7 bits class otherwise, none of them both; of 6 to 0 p is 2 / 2^6, of 5 to 0 twice that."""
    expected, found = np.arange(400) % 3, {8: np.arange(400) % 3, 7: np.arange(400) % 3}
    found[8][: wrong[0]] += 1
    found[7][400 - wrong[1] :] += 1
    assert onnx_files.bits_of_weights(expected, found) == bits


# int8: the file


@dataclass(frozen=True)
class Padded:
    """A classifier that pads with 4, which no text has, as a graph; texts; the logits that numpy gives them."""

    graph: bytes
    texts: TokenizedTexts
    logits: np.ndarray


@pytest.fixture(scope="module")
def padded(tmp_path_factory):
    texts, logits = [text for text, _ in tiny.texts(70)], []
    bert = berts.load(str(tiny.write_classifier(tmp_path_factory.mktemp("bert"))), classifier=True)
    for text in texts:
        cls = numpy_bert(bert.weights, bert.config, np.array([bert.tokenizer.encode(text).ids]))[-1][0, 0]
        pooled = np.tanh(cls @ bert.weights[berts.POOLER[0]] + bert.weights[berts.POOLER[1]])
        logits.append(pooled @ bert.weights[berts.OUTPUT[0]].T)
    bias = -np.mean(logits, axis=0)  # so that all classes occur
    bert = replace(bert, weights=bert.weights | {berts.OUTPUT[1]: bias.astype(np.float32)}, pad_id=4)
    return Padded(onnx_graph.text_graph(bert).SerializeToString(), tiny.tokenized(texts, bert), logits + bias)


def test_decisions_are_those_of_numpy_text_by_text(padded):
    found, unswapped = (onnx_files.decisions(padded.graph, padded.texts, pad_id) for pad_id in (4, 0))
    np.testing.assert_array_equal(found, padded.logits.argmax(-1))
    assert len(set(found)) == 4 and (unswapped != found).any()


def test_what_is_said_of_int8_is_what_the_graph_answers(padded, monkeypatch):
    monkeypatch.setattr(onnx_files, "MAX_LOSS", 100)
    decide, labels = partial(onnx_files.decisions, examples=padded.texts, pad_id=4), np.arange(70) % 4
    int8, bits, words = onnx_files.choose_int8(padded.graph, decide, labels, 100.0, "texts")
    assert len(int8) * 2 < len(padded.graph) and bits in (7, 8)
    expected, found = decide(padded.graph), decide(int8)
    assert (expected == found).mean() > 0.5
    same, gained = 100 * (expected == found).mean(), 100 * ((found == labels).mean() - (expected == labels).mean())
    assert words == f"answers as float32 on {same:.2f} % of the texts, {gained:+.2f} points there"


@pytest.mark.parametrize(
    ("others", "line"),
    [
        (0, "answers as float32 on 100.00 % of the pairs, +0.00 points there"),
        (7, "answers as float32 on 90.00 % of the pairs (95 % needed, see --int8-disagreement), -10.00 points there "
            "(0.5 points may be lost)"),
    ],
)
def test_of_how_many_bits_and_whether_the_answers_say(padded, others, line):
    """Made-up answers: float32 is always right, 8 bits in half of the texts, 7 bits but for `others`."""
    wrong = iter([0, 35, others])
    labels = np.zeros(70, int)
    found = onnx_files.choose_int8(padded.graph, lambda _: (np.arange(70) < next(wrong)).astype(int), labels, 5.0, "pairs")
    assert found[1:] == (7, line) and (found[0] is None) == (others > 0)
    if found[0]:
        arrays = map(onnx.numpy_helper.to_array, onnx.load_from_string(found[0]).graph.initializer)
        assert max(np.abs(array.astype(int)).max() for array in arrays if array.dtype == np.int8 and array.ndim == 2) == 64
