"""A classifier of texts as an ONNX graph, built of its weights with `onnx` alone.

The graph is for onnxruntime: where that has an operator of its own for several of ONNX's (domain com.microsoft), it is made
of those. Of the last layer it computes [CLS] alone. Its pieces serve the graph of a FastBERT as well: `exit_graph.exit_graph`.
With weights in int8 it comes from `export.onnx_int8`. Writing it beside a student, and checking it, is the work of
`export.onnx_files`, where models of images are converted from TensorFlow.
"""

from functools import partial

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from common import InputError
from data.berts import ACTIVATIONS, OUTPUT, POOLER

OPSET, IR_VERSION = 17, 8  # of 2022: the newest that are needed, so that an older onnxruntime reads the graph, too
FUSED = ("Attention", "BiasGelu", "FastGelu", "FusedMatMul")  # onnxruntime's own operators
TEXTS = [(name, TensorProto.INT32, ("texts", "tokens")) for name in ("token_ids", "segment_ids")]  # inputs
MASKED = float(np.finfo(np.float32).min)  # score of a token that is padding


def text_graph(bert):
    """A classifier of texts as an onnx.ModelProto: token_ids, segment_ids -> probabilities.

    token_ids, segment_ids: (texts, tokens) int32, as the tokenizer makes them and pads them with `pad_id`; one text or more, as
        many tokens as the model has positions for or fewer
    probabilities: (texts, classes) float32

    bert: a `data.berts.Bert` that is a classifier

    Raises InputError if `bert` has an activation that is not in `data.berts.ACTIVATIONS`.
    """
    nodes = []
    add, (*layers, last) = partial(add_node, nodes), layers_of(bert)
    hidden, mask = embeddings(add, bert)
    for layer in layers:
        hidden = whole_layer(add, bert, layer, hidden, mask)
    logits = classify(add, bert, last, hidden, mask)
    nodes.append(helper.make_node("Softmax", [logits], ["probabilities"], axis=-1))
    outputs = [("probabilities", TensorProto.FLOAT, ("texts", len(bert.weights[OUTPUT[1]])))]
    return model_of(graph_of(nodes, "classifier", TEXTS, outputs, constants_of(bert) | weights_of(bert)))


def layers_of(bert):
    """The prefixes of the names of each layer. Raises InputError if its activation is none of those that are known."""
    if str(bert.config["hidden_act"]) not in ACTIVATIONS:
        raise InputError(f"{bert.source}: hidden_act {bert.config['hidden_act']} is none of {', '.join(ACTIVATIONS)}")
    return [f"bert/encoder/layer_{number}" for number in range(bert.layers)]


# Pieces: each appends its nodes by `add`, a partial `add_node`, and returns the name of what it computes -------------------


def add_node(nodes, operator, *inputs, scope="", **attributes):
    """Append a node of this operator to `nodes`. Returns the name of its output, which is the node's own as well.

    scope: what the name begins with: no name may stand twice in a graph and the graphs within it
    """
    name = f"{scope}{operator}_{len(nodes)}"
    outputs = {"TopK": [name, f"{name}_places"], "LSTM": ["", name]}.get(operator, [name])  # of an LSTM its last states
    domain = "com.microsoft" if operator in FUSED else ""
    nodes.append(helper.make_node(operator, inputs, outputs, name, domain=domain, **attributes))
    return name


def embeddings(add, bert):
    """(normalized sum of three embeddings (texts, tokens, hidden), mask (texts, tokens) int32, 0 where there is padding)."""
    mask = add("Cast", add("Not", add("Equal", "token_ids", "pad_id")), to=TensorProto.INT32)
    words, segments = (
        add("Gather", f"bert/embeddings/{name}_embeddings", ids)  # (texts, tokens, hidden)
        for name, ids in (("word", "token_ids"), ("token_type", "segment_ids"))
    )
    tokens = add("Shape", "token_ids", start=1)
    positions = add("Slice", "bert/embeddings/position_embeddings", "start", tokens)  # (tokens, hidden)
    return _norm_of_sum(add, bert, "bert/embeddings/LayerNorm", words, positions, segments), mask


def _norm_of_sum(add, bert, norm, *states):
    """A layer normalization of a sum. norm: prefix of its names

    onnxruntime has operators for both at once, EmbedLayerNormalization and SkipLayerNormalization, of which it would make the
    latter of an Add before a LayerNormalization, though not of a Sum: they take four times as long.
    """
    epsilon = bert.config.get("layer_norm_eps", 1e-12)
    return add("LayerNormalization", add("Sum", *states), f"{norm}/gamma", f"{norm}/beta", epsilon=epsilon)


def whole_layer(add, bert, layer, hidden, mask):
    """A layer of all tokens: (texts, tokens, hidden).

    layer: prefix of its names
    hidden: (texts, tokens, hidden) before the layer
    mask: as of `embeddings`
    """
    attended = add("Attention", hidden, f"{layer}/attention/self/kernel", f"{layer}/attention/self/bias", mask,
                   num_heads=bert.config["num_attention_heads"], mask_filter_value=MASKED)
    return _after_attention(add, bert, layer, hidden, attended)


def classify(add, bert, layer, hidden, mask):
    """The last layer of a classifier, of [CLS] alone, and its head: logits (texts, classes). Arguments as of `whole_layer`."""
    cls = add("Gather", hidden, "first", axis=1)  # (texts, hidden)
    head_size = bert.config["hidden_size"] // bert.config["num_attention_heads"]
    attended = attention_of_cls(add, f"{layer}/attention/self", head_size, cls, hidden, mask)
    cls = _after_attention(add, bert, layer, cls, attended)
    if bert.has_pooler:
        cls = add("Tanh", add("Add", add("MatMul", cls, POOLER[0]), POOLER[1]))
    return add("Add", add("MatMul", cls, "classifier"), OUTPUT[1])


def attention_of_cls(add, own, head_size, cls, hidden, mask):
    """What a self-attention gives [CLS], (texts, heads · head_size), without making keys and values of all tokens.

    With W, b of a head, scores are q·(W_k x + b_k) = (W_kᵀ q)·x + q·b_k, and softmax does not see q·b_k, which is the same
    for all tokens. As its weights p sum to 1, Σ p (W_v x + b_v) = W_v (Σ p x) + b_v. So W_k and W_v see one vector a head.

    own: prefix of its names; among the arrays are those of `_for_attention_of_cls`
    head_size: of each head's query
    cls: (texts, hidden) that asks
    hidden: (texts, tokens, hidden) that are asked
    mask: as of `embeddings`
    """
    q = add("Add", add("MatMul", cls, f"{own}/query/kernel"), f"{own}/query/bias")
    q = add("Transpose", add("Reshape", q, f"{own}/split heads"), perm=(1, 0, 2))  # (heads, texts, head_size)
    q = add("Transpose", add("MatMul", q, f"{own}/keys"), perm=(1, 0, 2))  # (texts, heads, hidden)
    scores = add("FusedMatMul", q, hidden, transB=1, alpha=head_size**-0.5)  # (texts, heads, tokens)
    p = masked_softmax(add, scores, mask)
    mean = add("Transpose", add("MatMul", p, hidden), perm=(1, 0, 2))  # (heads, texts, hidden)
    values = add("Transpose", add("MatMul", mean, f"{own}/values"), perm=(1, 0, 2))  # (texts, heads, head_size)
    return add("Add", add("Reshape", values, f"{own}/join heads"), f"{own}/value/bias")


def masked_softmax(add, scores, mask):
    """What a query's scores (texts, heads, tokens) give to each token that is no padding. mask: as of `embeddings`"""
    seen = add("Unsqueeze", add("Cast", mask, to=TensorProto.BOOL), "heads' axis")
    return add("Softmax", add("Where", seen, scores, "masked"), axis=-1)


def _after_attention(add, bert, layer, hidden, attended):
    """The rest of a layer, of all tokens (texts, tokens, hidden) or of one (texts, hidden).

    layer: prefix of its names
    hidden: states before the layer
    attended: what its self-attention gives
    """
    def project(states, residual, name):
        projected = add("MatMul", states, f"{name}/dense/kernel")
        return _norm_of_sum(add, bert, f"{name}/LayerNorm", projected, residual, f"{name}/dense/bias")

    hidden = project(attended, hidden, f"{layer}/attention/output")
    inner = add("MatMul", hidden, f"{layer}/intermediate/dense/kernel"), f"{layer}/intermediate/dense/bias"
    activation = ACTIVATIONS[bert.config["hidden_act"]]
    if activation == "relu":
        inner = add("Relu", add("Add", *inner))
    else:
        inner = add({"gelu_erf": "BiasGelu", "gelu_tanh": "FastGelu"}[activation], *inner)
    return project(inner, hidden, f"{layer}/output")


# Put together ----------------------------------------------------------------------------------------------------------


def constants_of(bert):
    """{name: array} of what the pieces name beside weights."""
    return {"pad_id": np.int32(bert.pad_id), "masked": np.float32(MASKED), "first": np.int64(0), "start": np.array([0]),
            "heads' axis": np.array([1])}


def weights_of(bert):
    """{name: array} of all weights that the pieces of `bert` name, some of them packed; each serves one node."""
    heads, layers, arrays = bert.config["num_attention_heads"], layers_of(bert), dict(bert.weights)
    if bert.is_classifier:
        arrays["classifier"] = bert.weights[OUTPUT[0]].T
        arrays |= _for_attention_of_cls(arrays, f"{layers.pop()}/attention/self", heads)
    for layer in layers:
        own = f"{layer}/attention/self"
        for part in ("kernel", "bias"):  # (hidden, 3 hidden), (3 hidden,)
            parts = [arrays[f"{own}/{name}/{part}"] for name in ("query", "key", "value")]
            arrays[f"{own}/{part}"] = np.concatenate(parts, axis=-1)
    return arrays


def _for_attention_of_cls(arrays, own, heads):
    """{name: array} of what `attention_of_cls` names beside the weights of query and the bias of value.

    arrays: with the kernels of key and value, (hidden, heads · head_size)
    own: prefix of their names
    """
    hidden, width = arrays[f"{own}/key/kernel"].shape
    keys, values = (arrays[f"{own}/{name}/kernel"].reshape(hidden, heads, -1) for name in ("key", "value"))
    return {
        f"{own}/keys": keys.transpose(1, 2, 0),  # (heads, head_size, hidden)
        f"{own}/values": values.transpose(1, 0, 2),  # (heads, hidden, head_size)
        f"{own}/split heads": np.array([-1, heads, width // heads]), f"{own}/join heads": np.array([-1, width]),
    }


def graph_of(nodes, name, inputs, outputs, arrays):
    """The nodes as an onnx.GraphProto, with those of the arrays that they name, or that graphs within them name and lack.

    inputs, outputs: [(name, ONNX's number of its type, shape)]
    arrays: {name: array}
    """
    named = {*_named(nodes)}
    return helper.make_graph(
        nodes, name, *([helper.make_tensor_value_info(*value) for value in values] for values in (inputs, outputs)),
        [numpy_helper.from_array(np.asarray(array, order="C"), name) for name, array in arrays.items() if name in named],
    )


def _named(nodes):
    """The names of all that the nodes take, and that graphs within them take and do not hold."""
    for node in nodes:
        yield from node.input
        for attribute in node.attribute:
            yield from {*_named(attribute.g.node)} - {array.name for array in attribute.g.initializer}


def model_of(graph):
    """An onnx.GraphProto as an onnx.ModelProto."""
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
