"""A classifier of texts as an ONNX graph, built of its weights with `onnx` alone; and such a graph with weights in int8.

The graph is for onnxruntime: where that has an operator of its own for several of ONNX's (domain com.microsoft), it is made
of those. Of the last layer it computes [CLS] alone. Writing it beside a student, and checking it, is the work of
`export.onnx_files`; a FastBERT and models of images are converted there from TensorFlow.
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
MASKED = float(np.finfo(np.float32).min)  # score of a token that is padding


def text_graph(bert):
    """A classifier of texts as an onnx.ModelProto: token_ids, segment_ids -> probabilities.

    token_ids, segment_ids: (texts, tokens) int32, as the tokenizer makes them and pads them with `pad_id`; one text or more, as
        many tokens as the model has positions for or fewer
    probabilities: (texts, classes) float32

    bert: a `data.berts.Bert` that is a classifier

    Raises InputError if `bert` has an activation that is not in `data.berts.ACTIVATIONS`.
    """
    config, nodes = bert.config, []
    if str(config["hidden_act"]) not in ACTIVATIONS:
        raise InputError(f"{bert.source}: hidden_act {config['hidden_act']} is none of {', '.join(ACTIVATIONS)}")
    add, layers = partial(_add, nodes), [f"bert/encoder/layer_{number}" for number in range(bert.layers)]
    padding = add("Equal", "token_ids", "pad_id")  # (texts, tokens)
    mask = add("Cast", add("Not", padding), to=TensorProto.INT32)
    hidden = _embeddings(add, config)  # (texts, tokens, hidden)
    for layer in layers[:-1]:
        attended = add("Attention", hidden, f"{layer}/attention/self/kernel", f"{layer}/attention/self/bias", mask,
                       num_heads=config["num_attention_heads"], mask_filter_value=MASKED)
        hidden = _after_attention(add, config, layer, hidden, attended)
    cls = add("Gather", hidden, "first", axis=1)  # (texts, hidden)
    attended = _attention_of_cls(add, config, layers[-1], cls, hidden, padding)
    cls = _after_attention(add, config, layers[-1], cls, attended)
    if bert.has_pooler:
        cls = add("Tanh", add("Add", add("MatMul", cls, POOLER[0]), POOLER[1]))
    logits = add("Add", add("MatMul", cls, "classifier"), OUTPUT[1])  # (texts, classes)
    nodes.append(helper.make_node("Softmax", [logits], ["probabilities"], axis=-1))
    return _model(nodes, _arrays(bert, layers))


def _add(nodes, operator, *inputs, **attributes):
    """Append a node of this operator to `nodes`. Returns the name of its output, which is the node's own as well."""
    name = f"{operator}_{len(nodes)}"
    outputs = [name, "mask_index"] if operator == "EmbedLayerNormalization" else [name]  # it must have two: one is not used
    domain = "com.microsoft" if operator in FUSED else ""
    nodes.append(helper.make_node(operator, inputs, outputs, name, domain=domain, **attributes))
    return name


def _embeddings(add, config):
    """The sum of the three embeddings, normalized: (texts, tokens, hidden)."""
    tables = (f"bert/embeddings/{name}_embeddings" for name in ("word", "position", "token_type"))
    norm = (f"bert/embeddings/LayerNorm/{name}" for name in ("gamma", "beta"))
    return add("EmbedLayerNormalization", "token_ids", "segment_ids", *tables, *norm, **_epsilon(config))


def _epsilon(config):
    return {"epsilon": config.get("layer_norm_eps", 1e-12)}


def _attention_of_cls(add, config, layer, cls, hidden, padding):
    """What the self-attention of a layer gives [CLS], (texts, hidden), without making keys and values of all tokens.

    With W, b of a head, scores are q·(W_k x + b_k) = (W_kᵀ q)·x + q·b_k, and softmax does not see q·b_k, which is the same
    for all tokens. As its weights p sum to 1, Σ p (W_v x + b_v) = W_v (Σ p x) + b_v. So W_k and W_v see one vector a head.

    layer: prefix of its names
    cls: (texts, hidden) before the layer
    hidden: (texts, tokens, hidden) before the layer
    padding: (texts, tokens) bool
    """
    own = f"{layer}/attention/self"
    q = add("Add", add("MatMul", cls, f"{own}/query/kernel"), f"{own}/query/bias")
    q = add("Transpose", add("Reshape", q, "split heads"), perm=(1, 0, 2))  # (heads, texts, hidden / heads)
    q = add("Transpose", add("MatMul", q, f"{own}/keys"), perm=(1, 0, 2))  # (texts, heads, hidden)
    scale = (config["hidden_size"] // config["num_attention_heads"]) ** -0.5
    scores = add("FusedMatMul", q, hidden, transB=1, alpha=scale)  # (texts, heads, tokens)
    p = add("Softmax", add("Where", add("Unsqueeze", padding, "heads' axis"), "masked", scores), axis=-1)
    mean = add("Transpose", add("MatMul", p, hidden), perm=(1, 0, 2))  # (heads, texts, hidden)
    values = add("Transpose", add("MatMul", mean, f"{own}/values"), perm=(1, 0, 2))  # (texts, heads, hidden / heads)
    return add("Add", add("Reshape", values, "join heads"), f"{own}/value/bias")


def _after_attention(add, config, layer, hidden, attended):
    """The rest of a layer, of all tokens (texts, tokens, hidden) or of one (texts, hidden).

    layer: prefix of its names
    hidden: states before the layer
    attended: what its self-attention gives
    """
    def project(states, residual, name):
        projected, norm = add("MatMul", states, f"{name}/dense/kernel"), f"{name}/LayerNorm"
        return add("SkipLayerNormalization", projected, residual, f"{norm}/gamma", f"{norm}/beta", f"{name}/dense/bias",
                   **_epsilon(config))

    hidden = project(attended, hidden, f"{layer}/attention/output")
    inner = add("MatMul", hidden, f"{layer}/intermediate/dense/kernel"), f"{layer}/intermediate/dense/bias"
    activation = ACTIVATIONS[config["hidden_act"]]
    if activation == "relu":
        inner = add("Relu", add("Add", *inner))
    else:
        inner = add({"gelu_erf": "BiasGelu", "gelu_tanh": "FastGelu"}[activation], *inner)
    return project(inner, hidden, f"{layer}/output")


def _arrays(bert, layers):
    """{name: array} of all that the nodes of `bert` name: its weights, some of them packed, and constants."""
    hidden, heads = bert.config["hidden_size"], bert.config["num_attention_heads"]
    arrays = bert.weights | {
        "classifier": bert.weights[OUTPUT[0]].T,
        "pad_id": np.int32(bert.pad_id), "masked": np.float32(MASKED), "first": np.int64(0), "heads' axis": np.array([1]),
        "split heads": np.array([-1, heads, hidden // heads]), "join heads": np.array([-1, hidden]),
    }
    for layer in layers[:-1]:
        own = f"{layer}/attention/self"
        for part in ("kernel", "bias"):  # (hidden, 3 hidden), (3 hidden,)
            parts = [arrays[f"{own}/{name}/{part}"] for name in ("query", "key", "value")]
            arrays[f"{own}/{part}"] = np.concatenate(parts, axis=-1)
    own = f"{layers[-1]}/attention/self"
    keys, values = (arrays[f"{own}/{name}/kernel"].reshape(hidden, heads, -1) for name in ("key", "value"))
    return arrays | {
        f"{own}/keys": keys.transpose(1, 2, 0),  # (heads, hidden / heads, hidden)
        f"{own}/values": values.transpose(1, 0, 2),  # (heads, hidden, hidden / heads)
    }


def _model(nodes, arrays):
    """The nodes as an onnx.ModelProto, with those of the arrays that they name."""
    named = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info(name, TensorProto.INT32, ("texts", "tokens")) for name in ("token_ids", "segment_ids")],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ("texts", len(arrays[OUTPUT[1]])))],
        [numpy_helper.from_array(np.asarray(array, order="C"), name) for name, array in arrays.items() if name in named],
        # `onnx` infers types, which `quantized` needs, but not those of onnxruntime's operators.
        value_info=[helper.make_tensor_value_info(node.name, TensorProto.FLOAT, None) for node in nodes if node.domain],
    )
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

    # The head is small, and rounding it costs most; of the matrices of `_attention_of_cls` onnxruntime wants two axes.
    kept = {array.name for array in model.graph.initializer if len(array.dims) > 2} | {"classifier", POOLER[0]}
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    helper.set_model_props(whole, {"onnx.quant.pre_process": "onnxruntime.quant"})  # else it warns: but all is fused already
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        quantize_dynamic(whole, path, per_channel=True, reduce_range=reduce_range,
                         nodes_to_exclude=[node.name for node in model.graph.node if kept & {*node.input}])
        return onnx.load(path)
