"""A FastBERT as an ONNX graph, built of its weights with `onnx` alone: it stops early, as the SavedModel does.

What stands above a layer is a graph within the graph, run only if a text is undecided there, and for the undecided alone. It
holds the weights of its layer itself: those of a graph around it onnxruntime would lay out anew at every call. The pieces of
the BERT are those of `export.onnx_graph`; what a branch is, and when it is sure enough, the script says.
"""

from functools import partial

import numpy as np
from onnx import TensorProto, helper

from export.onnx_graph import (
    TEXTS,
    add_node,
    classify,
    constants_of,
    embeddings,
    graph_of,
    layers_of,
    masked_softmax,
    model_of,
    text_graph,
    weights_of,
    whole_layer,
)


def exit_graph(bert, branches, heads, top_k=0):
    """A FastBERT as an onnx.ModelProto: token_ids, segment_ids, speed -> probabilities, layers_used, uncertainty.

    token_ids, segment_ids: as of `onnx_graph.text_graph`
    speed: a float32; a text leaves after the first layer whose branch has u < speed, so that at 0 every text has the last
        exit's answer; none leaves early where one of the two is NaN
    probabilities: (texts, classes) float32
    layers_used: (texts,) int32, how many were computed
    uncertainty: (texts,) float32, of the answer, from 0 to 1

    bert: a `data.berts.Bert` of two layers or more; where it is a classifier, its own head is the last exit
    branches: weights of a branch for each layer but the last, in Keras's order (see `branch_weights`); and for the last, too,
        where `bert` is no classifier
    heads: of a branch's self-attention
    top_k: of how many highest probabilities the uncertainty is; 0: of all

    Returns an onnx.ModelProto. Raises InputError as `onnx_graph.text_graph` does.
    """
    layers, classes, weights = layers_of(bert), len(branches[0][-1]), weights_of(bert)
    for number, branch in enumerate(branches, 1):
        weights |= branch_weights(f"branch_{number}", branch, heads)

    def answer_from(number, nodes, hidden, mask):
        """Append layer `number`, its exit and, for the undecided, all that is above.

        hidden: states (texts, tokens, hidden) before the layer
        mask: as of `onnx_graph.embeddings`

        Returns (logits, layers used, uncertainty) by name.
        """
        add, layer = partial(add_node, nodes, scope=f"layer_{number}/"), layers[number - 1]
        if number > len(branches):
            logits = classify(add, bert, layer, hidden, mask)
        else:
            hidden = whole_layer(add, bert, layer, hidden, mask)
            logits = branch_logits(add, f"branch_{number}", hidden, mask)
        value = helper.make_tensor("layers", TensorProto.INT32, [1], [number])
        used = add("ConstantOfShape", add("Shape", logits, end=1), value=value)
        u = _entropy(add, logits, top_k)
        found = logits, used, u  # (texts, classes), (texts,), (texts,)
        if number == bert.layers:
            return found
        undecided = add("Not", add("Less", u, "speed"))  # (texts,); not u >= speed, which would let NaN go
        places = add("NonZero", undecided)  # (1, undecided): which of the texts they are
        above = []
        add_above = partial(add_node, above, scope=f"above_{number}/")
        some = (add_above("Compress", states, undecided, axis=0) for states in (hidden, mask))
        deeper = answer_from(number + 1, above, *some)
        rows = add_above("Transpose", places)
        merged = [add_above("ScatterND", of_all, rows, of_some) for of_all, of_some in zip(found, deeper, strict=True)]
        return _if(nodes, f"layer_{number}", places, (above, merged, weights), found)

    nodes = []
    add = partial(add_node, nodes)
    logits, used, u = answer_from(1, nodes, *embeddings(add, bert))
    for operator, inputs, output in (
        ("Softmax", [logits], "probabilities"),
        ("Identity", [used], "layers_used"),
        ("Where", [add("Greater", u, "one"), "one", u], "uncertainty"),  # rounding; Clip may lose a NaN
    ):
        nodes.append(helper.make_node(operator, inputs, [output]))
    outputs = [
        ("probabilities", TensorProto.FLOAT, ("texts", classes)), ("layers_used", TensorProto.INT32, ("texts",)),
        ("uncertainty", TensorProto.FLOAT, ("texts",)),
    ]
    looked_at = min(top_k or classes, classes)
    arrays = constants_of(bert) | weights | {
        "one": np.float32(1), "log N": np.log(looked_at).astype(np.float32), "top k": np.array([looked_at]),
    }
    return model_of(graph_of(nodes, "FastBERT", [*TEXTS, ("speed", TensorProto.FLOAT, ())], outputs, arrays))


def teacher_graph(bert, branch, heads):
    """The teacher of a FastBERT alone, all layers and the last exit, as an onnx.ModelProto: see `onnx_graph.text_graph`.

    bert: a `data.berts.Bert`; where it is a classifier, its own head is the exit
    branch: else the weights of the branch that is, in Keras's order (see `branch_weights`)
    heads: of its self-attention

    Raises InputError as `onnx_graph.text_graph` does.
    """
    if bert.is_classifier:
        return text_graph(bert)
    nodes = []
    add = partial(add_node, nodes)
    hidden, mask = embeddings(add, bert)
    for layer in layers_of(bert):
        hidden = whole_layer(add, bert, layer, hidden, mask)
    nodes.append(helper.make_node("Softmax", [branch_logits(add, "head", hidden, mask)], ["probabilities"]))
    outputs = [("probabilities", TensorProto.FLOAT, ("texts", len(branch[-1])))]
    arrays = constants_of(bert) | weights_of(bert) | branch_weights("head", branch, heads)
    return model_of(graph_of(nodes, "teacher", TEXTS, outputs, arrays))


def _if(nodes, scope, places, above, found):
    """Append what says which answers count: those with what is above, if there are `places` of the undecided, or `found`.

    above: (nodes, names of logits, layers used and uncertainty, {name: array} of weights that they may name)
    found: names of these without it

    Returns the names of all three.
    """
    some = add_node(nodes, "Cast", add_node(nodes, "Size", places, scope=f"{scope}/"), scope=f"{scope}/", to=TensorProto.BOOL)
    here = []
    kept = [add_node(here, "Identity", name, scope=f"here_{scope}/") for name in found]
    types = TensorProto.FLOAT, TensorProto.INT32, TensorProto.FLOAT
    branches = {
        name: graph_of(part, f"{scope} {name}", [], [(*output, None) for output in zip(names, types, strict=True)], arrays)
        for name, part, names, arrays in (("then_branch", *above), ("else_branch", here, kept, {}))
    }
    outputs = [f"{scope}/logits", f"{scope}/layers", f"{scope}/uncertainty"]
    nodes.append(helper.make_node("If", [some], outputs, scope, **branches))
    return outputs


def branch_logits(add, own, hidden, mask):
    """A branch of hidden states (texts, tokens, hidden): logits (texts, classes).

    own: prefix of its names, those of `branch_weights`
    mask: as of `onnx_graph.embeddings`
    """
    def dense(states, name):
        return add("Gemm", states, f"{own}/{name}/kernel", f"{own}/{name}/bias")

    narrow = add("Tanh", add("Add", add("MatMul", hidden, f"{own}/narrow/kernel"), f"{own}/narrow/bias"))
    asks = dense(add("Gather", narrow, "first", axis=1), "asks")  # (texts, heads · width)
    asks = add("Reshape", asks, f"{own}/split heads")  # (texts, heads, width)
    p = masked_softmax(add, add("FusedMatMul", asks, narrow, transB=1), mask)  # (texts, heads, tokens)
    mean = add("Reshape", add("MatMul", p, narrow), f"{own}/join heads")  # (texts, heads · width)
    return dense(add("Tanh", dense(mean, "mixed")), "logits")


def branch_weights(own, weights, heads):
    """{name: array} of all that `branch_logits` names.

    As in `onnx_graph.attention_of_cls` each head sees tokens as they are, and what is linear one after the other is one matrix:
    query and keys, with the scale of the scores, are "asks"; values, output and the second Dense are "mixed".

    own: prefix of the names
    weights: of a branch in Keras's order: kernels and biases of narrow, query, key, value, output, mixed, logits
    heads: of its self-attention
    """
    (narrow, query, key, value, output, mixed, logits), biases = (
        [np.asarray(weight, np.float64) for weight in weights[part::2]] for part in (0, 1)
    )
    width = len(query)
    head_size = width // heads
    keys = key.reshape(width, heads, head_size)
    values, rest = value.reshape(width, heads, head_size), (output @ mixed).reshape(heads, head_size, width)

    def asked(queries):
        """Of (…, width) the (…, heads · width) that each head's keys make of them."""
        asks = np.einsum("ahs,whs->ahw", queries.reshape(-1, heads, head_size), keys) / np.sqrt(head_size)
        return asks.reshape(*queries.shape[:-1], heads * width)

    dense = {
        "narrow": (narrow, biases[0]),
        "asks": (asked(query), asked(biases[1])),
        "mixed": (
            np.einsum("whs,hsm->hwm", values, rest).reshape(heads * width, width),
            (biases[3] @ output + biases[4]) @ mixed + biases[5],
        ),
        "logits": (logits, biases[6]),
    }
    arrays = {
        f"{own}/{name}/{part}": array.astype(np.float32)
        for name, pair in dense.items() for part, array in zip(("kernel", "bias"), pair, strict=True)
    }
    return arrays | {f"{own}/split heads": np.array([-1, heads, width]), f"{own}/join heads": np.array([-1, heads * width])}


def _entropy(add, logits, top_k):
    """Append the uncertainty (texts,) of logits (texts, classes), -Σ p log p / log N: from 0 to 1 but for a rounding above.

    Of no class p log p is above 0, so that the sum of absolute values is that with the sign changed. As logarithms are at hand,
    0 · log 0 needs no care; one NaN makes all of a text's NaN.
    """
    log_p = add("LogSoftmax", logits)
    if top_k:
        log_p = add("LogSoftmax", add("TopK", log_p, "top k"))  # scaled to sum to 1
    return add("Div", add("ReduceL1", add("Mul", add("Exp", log_p), log_p), axes=[-1], keepdims=0), "log N")
