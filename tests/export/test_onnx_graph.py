"""export.onnx_graph: probabilities of the graph against a BERT written in numpy; what is refused."""

import numpy as np
import pytest
from scipy.special import softmax

from common import InputError
from data.berts import OUTPUT, POOLER, Bert
from tests import tiny
from tests.numpy_bert import numpy_bert, numpy_head

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
onnx_graph = pytest.importorskip("export.onnx_graph")

LAYERS = {"num_hidden_layers": 2}


def classifier(pooler=False, pad_id=0, **config):
    """A tiny random classifier; config: other entries than those of `tiny.CONFIG`."""
    config = tiny.CONFIG | LAYERS | config
    rng, hidden = np.random.default_rng(2), config["hidden_size"]
    shapes = {OUTPUT[0]: (5, hidden), OUTPUT[1]: (5,)} | ({POOLER[0]: (hidden, hidden), POOLER[1]: (hidden,)} if pooler else {})
    head = {name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}
    return Bert(config, tiny.weights(config) | head, None, pad_id, "a folder")


def examples(bert, count=7, tokens=12):
    """(token ids, segment ids) of texts that are padded but for the first, and whose second halves are of segment 1."""
    rng = np.random.default_rng(3)
    words = [number for number in range(bert.config["vocab_size"]) if number != bert.pad_id]
    token_ids = rng.choice(words, (count, tokens)).astype(np.int32)
    lengths = np.linspace(tokens, 1, count).astype(int)
    token_ids[np.arange(tokens) >= lengths[:, None]] = bert.pad_id
    return token_ids, (np.arange(tokens) >= lengths[:, None] // 2).astype(np.int32)


def expected(bert, token_ids, segment_ids):
    """Probabilities straight from the papers."""
    states = numpy_bert(bert.weights, bert.config, token_ids, segment_ids=segment_ids, pad_id=bert.pad_id)
    return softmax(numpy_head(bert.weights, states[-1]), axis=-1)


def ask(model, token_ids, segment_ids):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["probabilities"], {"token_ids": token_ids, "segment_ids": segment_ids})[0]


@pytest.mark.parametrize(
    "kind",
    [
        {}, {"pooler": True}, {"pad_id": 3, "pooler": True}, {"hidden_act": "gelu_new"}, {"hidden_act": "relu"},
        {"layer_norm_eps": 0.5}, {"num_hidden_layers": 1}, {"num_hidden_layers": 4}, {"num_attention_heads": 1},
        {"hidden_size": 36, "num_attention_heads": 3, "intermediate_size": 20, "type_vocab_size": 3},
    ],
    ids=str,
)
def test_the_graph_has_the_probabilities_of_numpy(kind):
    """Of padded texts with segments 0 and 1, and of one text; no text's answer depends on the others."""
    bert = classifier(**kind)
    model = onnx_graph.text_graph(bert)
    onnx.checker.check_model(model, full_check=True)
    token_ids, segment_ids = examples(bert)
    probabilities = expected(bert, token_ids, segment_ids)
    assert np.ptp(probabilities, axis=0).min() > 0.01  # they tell the texts apart
    found = ask(model, token_ids, segment_ids)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, probabilities, atol=1e-5)
    for row, tokens in ((0, 12), (6, 12), (6, 1)):  # full; one token and padding; one token alone
        found = ask(model, token_ids[row : row + 1, :tokens], segment_ids[row : row + 1, :tokens])
        np.testing.assert_allclose(found, probabilities[row : row + 1], atol=1e-5)


def test_gelus_and_epsilons_are_not_the_same():
    """What the test above would not notice if numpy's BERT did not look at its config either."""
    kinds = [{}, {"hidden_act": "gelu_new"}, {"hidden_act": "relu"}, {"layer_norm_eps": 0.5}, {"pooler": True}]
    answers = [expected(bert, *examples(bert)) for bert in (classifier(**kind) for kind in kinds)]
    for i, one in enumerate(answers):
        assert all(np.abs(one - other).max() > 2e-5 for other in answers[:i])


def test_padding_is_masked_whatever_the_scores_are():
    """A text of one token, which gives itself a score of less than -10,000, the usual one of padding."""
    bert = classifier()
    for layer in ("bert/encoder/layer_0/attention/self", "bert/encoder/layer_1/attention/self"):
        bert.weights[f"{layer}/key/kernel"] = -1e5 * bert.weights[f"{layer}/query/kernel"]
        bert.weights.update({f"{layer}/{part}/bias": np.zeros(32, np.float32) for part in ("query", "key")})
    inputs = [array[-1:] for array in examples(bert)]
    assert (inputs[0] != bert.pad_id).sum() == 1
    np.testing.assert_allclose(ask(onnx_graph.text_graph(bert), *inputs), expected(bert, *inputs), atol=1e-5)


def test_an_activation_that_no_bert_here_has():
    with pytest.raises(InputError, match="a folder: hidden_act swish is none of gelu, gelu_new, gelu_pytorch_tanh, relu"):
        onnx_graph.text_graph(classifier(hidden_act="swish"))
