"""A classifier of texts as an ONNX graph, built of its weights with `onnx` alone; and such a graph with weights in int8.

The graph is for onnxruntime: where that has an operator of its own for several of ONNX's (domain com.microsoft), it is made
of those. Of the last layer it computes [CLS] alone. Its pieces serve the graph of a FastBERT as well: `exit_graph.exit_graph`.
Writing it beside a student, and checking it, is the work of `export.onnx_files`, where models of images are converted from
TensorFlow.
"""

import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from common import InputError
from data.berts import ACTIVATIONS, OUTPUT, POOLER

OPSET, IR_VERSION = 17, 8  # of 2022: the newest that are needed, so that an older onnxruntime reads the graph, too
FUSED = ("EmbedLayerNormalization", "Attention", "SkipLayerNormalization", "BiasGelu", "FastGelu", "FusedMatMul")
TWO_OUTPUTS = ("EmbedLayerNormalization", "TopK")  # of which the first alone is used
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
    padding = add("Equal", "token_ids", "pad_id")  # (texts, tokens)
    hidden = embeddings(add, bert)  # (texts, tokens, hidden)
    for layer in layers:
        hidden = whole_layer(add, bert, layer, hidden, padding)
    logits = classify(add, bert, last, hidden, padding)
    nodes.append(helper.make_node("Softmax", [logits], ["probabilities"], axis=-1))
    outputs = [("probabilities", TensorProto.FLOAT, ("texts", len(bert.weights[OUTPUT[1]])))]
    return model_of(graph_of(nodes, "classifier", TEXTS, outputs, arrays_of(bert)))


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
    outputs = [name, f"{name}_unused"] if operator in TWO_OUTPUTS else [name]
    domain = "com.microsoft" if operator in FUSED else ""
    nodes.append(helper.make_node(operator, inputs, outputs, name, domain=domain, **attributes))
    return name


def embeddings(add, bert):
    """The sum of the three embeddings, normalized: (texts, tokens, hidden)."""
    tables = (f"bert/embeddings/{name}_embeddings" for name in ("word", "position", "token_type"))
    norm = (f"bert/embeddings/LayerNorm/{name}" for name in ("gamma", "beta"))
    return add("EmbedLayerNormalization", "token_ids", "segment_ids", *tables, *norm, **_epsilon(bert))


def _epsilon(bert):
    return {"epsilon": bert.config.get("layer_norm_eps", 1e-12)}


def whole_layer(add, bert, layer, hidden, padding):
    """A layer of all tokens: (texts, tokens, hidden).

    layer: prefix of its names
    hidden: (texts, tokens, hidden) before the layer
    padding: (texts, tokens) bool
    """
    mask = add("Cast", add("Not", padding), to=TensorProto.INT32)
    attended = add("Attention", hidden, f"{layer}/attention/self/kernel", f"{layer}/attention/self/bias", mask,
                   num_heads=bert.config["num_attention_heads"], mask_filter_value=MASKED)
    return _after_attention(add, bert, layer, hidden, attended)


def classify(add, bert, layer, hidden, padding):
    """The last layer of a classifier, of [CLS] alone, and its head: logits (texts, classes). Arguments as of `whole_layer`."""
    cls = add("Gather", hidden, "first", axis=1)  # (texts, hidden)
    head_size = bert.config["hidden_size"] // bert.config["num_attention_heads"]
    attended = attention_of_cls(add, f"{layer}/attention/self", head_size, cls, hidden, padding)
    cls = _after_attention(add, bert, layer, cls, attended)
    if bert.has_pooler:
        cls = add("Tanh", add("Add", add("MatMul", cls, POOLER[0]), POOLER[1]))
    return add("Add", add("MatMul", cls, "classifier"), OUTPUT[1])


def attention_of_cls(add, own, head_size, cls, hidden, padding):
    """What a self-attention gives [CLS], (texts, heads · head_size), without making keys and values of all tokens.

    With W, b of a head, scores are q·(W_k x + b_k) = (W_kᵀ q)·x + q·b_k, and softmax does not see q·b_k, which is the same
    for all tokens. As its weights p sum to 1, Σ p (W_v x + b_v) = W_v (Σ p x) + b_v. So W_k and W_v see one vector a head.

    own: prefix of its names; among the arrays are those of `for_attention_of_cls`
    head_size: of each head's query
    cls: (texts, hidden) that asks
    hidden: (texts, tokens, hidden) that are asked
    padding: (texts, tokens) bool, of those that are not
    """
    q = add("Add", add("MatMul", cls, f"{own}/query/kernel"), f"{own}/query/bias")
    q = add("Transpose", add("Reshape", q, f"{own}/split heads"), perm=(1, 0, 2))  # (heads, texts, head_size)
    q = add("Transpose", add("MatMul", q, f"{own}/keys"), perm=(1, 0, 2))  # (texts, heads, hidden)
    scores = add("FusedMatMul", q, hidden, transB=1, alpha=head_size**-0.5)  # (texts, heads, tokens)
    p = add("Softmax", add("Where", add("Unsqueeze", padding, "heads' axis"), "masked", scores), axis=-1)
    mean = add("Transpose", add("MatMul", p, hidden), perm=(1, 0, 2))  # (heads, texts, hidden)
    values = add("Transpose", add("MatMul", mean, f"{own}/values"), perm=(1, 0, 2))  # (texts, heads, head_size)
    return add("Add", add("Reshape", values, f"{own}/join heads"), f"{own}/value/bias")


def _after_attention(add, bert, layer, hidden, attended):
    """The rest of a layer, of all tokens (texts, tokens, hidden) or of one (texts, hidden).

    layer: prefix of its names
    hidden: states before the layer
    attended: what its self-attention gives
    """
    def project(states, residual, name):
        projected, norm = add("MatMul", states, f"{name}/dense/kernel"), f"{name}/LayerNorm"
        return add("SkipLayerNormalization", projected, residual, f"{norm}/gamma", f"{norm}/beta", f"{name}/dense/bias",
                   **_epsilon(bert))

    hidden = project(attended, hidden, f"{layer}/attention/output")
    inner = add("MatMul", hidden, f"{layer}/intermediate/dense/kernel"), f"{layer}/intermediate/dense/bias"
    activation = ACTIVATIONS[bert.config["hidden_act"]]
    if activation == "relu":
        inner = add("Relu", add("Add", *inner))
    else:
        inner = add({"gelu_erf": "BiasGelu", "gelu_tanh": "FastGelu"}[activation], *inner)
    return project(inner, hidden, f"{layer}/output")


# Put together ----------------------------------------------------------------------------------------------------------


def arrays_of(bert):
    """{name: array} of all that the pieces of `bert` name: its weights, some of them packed, and constants."""
    heads, layers = bert.config["num_attention_heads"], layers_of(bert)
    arrays = bert.weights | {
        "pad_id": np.int32(bert.pad_id), "masked": np.float32(MASKED), "first": np.int64(0), "heads' axis": np.array([1]),
    }
    if bert.is_classifier:
        arrays["classifier"] = bert.weights[OUTPUT[0]].T
        arrays |= for_attention_of_cls(arrays, f"{layers.pop()}/attention/self", heads)
    for layer in layers:
        own = f"{layer}/attention/self"
        for part in ("kernel", "bias"):  # (hidden, 3 hidden), (3 hidden,)
            parts = [arrays[f"{own}/{name}/{part}"] for name in ("query", "key", "value")]
            arrays[f"{own}/{part}"] = np.concatenate(parts, axis=-1)
    return arrays


def for_attention_of_cls(arrays, own, heads):
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
    """The nodes as an onnx.GraphProto, with those of the arrays that they or graphs within them name.

    inputs, outputs: [(name, ONNX's number of its type, shape)]
    arrays: {name: array}
    """
    named = {*_named(nodes)}
    return helper.make_graph(
        nodes, name, *([helper.make_tensor_value_info(*value) for value in values] for values in (inputs, outputs)),
        [numpy_helper.from_array(np.asarray(array, order="C"), name) for name, array in arrays.items() if name in named],
        # `onnx` infers types, which `quantized` needs, but not those of onnxruntime's operators.
        value_info=[helper.make_tensor_value_info(node.name, TensorProto.FLOAT, None) for node in nodes if node.domain],
    )


def _named(nodes):
    """The names of all that the nodes take, and the graphs within them."""
    for node in nodes:
        yield from node.input
        for attribute in node.attribute:
            yield from _named(attribute.g.node)


def model_of(graph):
    """An onnx.GraphProto as an onnx.ModelProto."""
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)


def quantized(model, reduce_range=False):
    """A `text_graph` with embeddings in uint8, a scale a table, and most other weights in int8, a scale a column.

    What they are multiplied with is rounded to uint8 as it comes, with one scale for all texts asked together: so the
    answer to a text depends a little on which they are.

    model: onnx.ModelProto in float32
    reduce_range: weights of 7 bits, for CPUs without VNNI, whose sums of two products in 16 bits overflow with 8

    Returns an onnx.ModelProto.
    """
    from onnxruntime.quantization import quantize_dynamic

    # The head is small, and rounding it costs most; of the matrices of `attention_of_cls` onnxruntime wants two axes.
    kept = {array.name for array in model.graph.initializer if len(array.dims) > 2} | {"classifier", POOLER[0]}
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    helper.set_model_props(whole, {"onnx.quant.pre_process": "onnxruntime.quant"})  # else it warns: but all is fused already
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        quantize_dynamic(whole, path, per_channel=True, reduce_range=reduce_range,
                         nodes_to_exclude=[node.name for node in model.graph.node if kept & {*node.input}])
        return onnx.load(path)
