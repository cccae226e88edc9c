"""A FastBERT as an ONNX graph, built of its weights with `onnx` alone: it stops early, as the SavedModel does.

What stands above a layer is a graph within the graph, run only if a text is undecided there, and for the undecided alone. The
pieces of the BERT are those of `export.onnx_graph`; what a branch is, the script says.
"""

from functools import partial

import numpy as np
from onnx import TensorProto, helper

from export.onnx_graph import (
    TEXTS,
    add_node,
    arrays_of,
    attention_of_cls,
    classify,
    embeddings,
    for_attention_of_cls,
    graph_of,
    layers_of,
    model_of,
    whole_layer,
)

BRANCH = (  # a branch's weights in the order that Keras has them in
    "narrow/kernel", "narrow/bias", "query/kernel", "query/bias", "key/kernel", "key/bias", "value/kernel", "value/bias",
    "output/kernel", "output/bias", "mixed/kernel", "mixed/bias", "logits/kernel", "logits/bias",
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
    branches: weights of a branch for each layer but the last, in Keras's order (see BRANCH); and for the last, too, where
        `bert` is no classifier
    heads: of a branch's self-attention
    top_k: of the highest probabilities that u looks at; 0: all

    Returns an onnx.ModelProto. Raises InputError as `onnx_graph.text_graph` does.
    """
    layers, classes = layers_of(bert), len(branches[0][-1])
    arrays = arrays_of(bert) | _constants(classes, top_k)
    for number, weights in enumerate(branches, 1):
        arrays |= branch_arrays(f"branch_{number}", weights, heads)

    def answer_from(number, nodes, hidden, padding):
        """Append layer `number`, its exit and, for the undecided, all that is above. Returns (logits, layers used) by name.

        hidden: states (texts, tokens, hidden) before the layer
        padding: (texts, tokens) bool
        """
        add, layer = partial(add_node, nodes, scope=f"layer_{number}/"), layers[number - 1]
        if number > len(branches):
            logits = classify(add, bert, layer, hidden, padding)
        else:
            hidden = whole_layer(add, bert, layer, hidden, padding)
            logits = branch_logits(add, f"branch_{number}", arrays, hidden, padding)
        value = helper.make_tensor("layers", TensorProto.INT32, [1], [number])
        found = logits, add("ConstantOfShape", add("Shape", logits, end=1), value=value)  # (texts, classes), (texts,)
        if number == bert.layers:
            return found
        # Not u >= speed, which would let NaN go.
        undecided = add("Not", add("Less", _uncertainty(add, logits, top_k), "speed"))  # (texts,)
        places = add("Transpose", add("NonZero", undecided))  # (undecided, 1): which of the texts they are
        above = []
        add_above = partial(add_node, above, scope=f"above_{number}/")
        deeper = answer_from(number + 1, above, *(add_above("GatherND", states, places) for states in (hidden, padding)))
        merged = [add_above("ScatterND", of_all, places, of_some) for of_all, of_some in zip(found, deeper, strict=True)]
        return _if(nodes, f"layer_{number}", places, (above, merged), found)

    nodes = []
    add = partial(add_node, nodes)
    padding = add("Equal", "token_ids", "pad_id")
    logits, used = answer_from(1, nodes, embeddings(add, bert), padding)
    u = _uncertainty(add, logits, top_k)
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
    return model_of(graph_of(nodes, "FastBERT", [*TEXTS, ("speed", TensorProto.FLOAT, ())], outputs, arrays))


def _if(nodes, scope, places, above, found):
    """Append what says which answers count: those with what is above, if there are `places` of the undecided, or `found`.

    above: (nodes, names of logits and layers used)
    found: names of both without it

    Returns the names of both.
    """
    add = partial(add_node, nodes, scope=f"{scope}/")
    some = add("Cast", add("Size", places), to=TensorProto.BOOL)
    here = []
    kept = [add_node(here, "Identity", name, scope=f"here_{scope}/") for name in found]
    types = TensorProto.FLOAT, TensorProto.INT32
    branches = {
        name: graph_of(part, f"{scope} {name}", [], [(*output, None) for output in zip(names, types, strict=True)], {})
        for name, part, names in (("then_branch", *above), ("else_branch", here, kept))
    }
    outputs = [f"{scope}/logits", f"{scope}/layers"]
    nodes.append(helper.make_node("If", [some], outputs, scope, **branches))
    return outputs


def branch_logits(add, own, arrays, hidden, padding):
    """A branch of hidden states (texts, tokens, hidden): logits (texts, classes). own: prefix of its names"""
    def dense(states, name):
        return add("Add", add("MatMul", states, f"{own}/{name}/kernel"), f"{own}/{name}/bias")

    narrow = add("Tanh", dense(hidden, "narrow"))  # (texts, tokens, width)
    head_size = arrays[f"{own}/keys"].shape[1]
    attended = attention_of_cls(add, own, head_size, add("Gather", narrow, "first", axis=1), narrow, padding)  # (texts, width)
    return dense(add("Tanh", dense(dense(attended, "output"), "mixed")), "logits")


def branch_arrays(own, weights, heads):
    """{name: array} of all that `branch_logits` names. own: prefix of the names"""
    arrays = {f"{own}/{name}": np.asarray(weight, np.float32) for name, weight in zip(BRANCH, weights, strict=True)}
    return arrays | for_attention_of_cls(arrays, own, heads)


def _constants(classes, top_k):
    """{name: array} of all that uncertainties name."""
    looked_at = min(top_k or classes, classes)
    return {"one": np.float32(1), "log N": np.log(looked_at).astype(np.float32), "top k": np.array([looked_at])}


def _uncertainty(add, logits, top_k):
    """u = -Σ p log p / log N of logits (texts, classes): (texts,), at least 0; above 1 by no more than a rounding.

    Of no class p log p is above 0, so that the sum of absolute values is that with the sign changed. As logarithms are at hand,
    0 · log 0 needs no care; one NaN makes all of a text's NaN.
    """
    log_p = add("LogSoftmax", logits, axis=-1)
    if top_k:
        log_p = add("LogSoftmax", add("TopK", log_p, "top k"), axis=-1)  # scaled to sum to 1
    return add("Div", add("ReduceL1", add("Mul", add("Exp", log_p), log_p), axes=[-1], keepdims=0), "log N")
