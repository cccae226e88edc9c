"""A BiLSTM as an ONNX graph, built of its weights with `onnx` alone. See `onnx_graph`, whose inputs and outputs it has."""

from functools import partial

import numpy as np
from onnx import TensorProto, helper

from data.berts import OUTPUT
from data.bilstms import DENSE, DIRECTIONS
from data.vocabulary import EMBEDDINGS
from export.onnx_graph import TEXTS, add_node, graph_of, model_of

GATES = (0, 3, 1, 2)  # in ONNX's order input, output, forget, cell: their places in input, forget, cell, output


def bilstm_graph(bilstm):
    """A BiLSTM as an onnx.ModelProto: token_ids, segment_ids -> probabilities. It takes segments as a BERT does, and has no use
    for them; what it is told otherwise, `onnx_graph.text_graph` says.

    bilstm: a `data.berts.Bert` of `data.bilstms`
    """
    nodes, units = [], bilstm.config["lstm_units"]
    add = partial(add_node, nodes)
    words = add("Gather", EMBEDDINGS, add("Transpose", "token_ids", perm=(1, 0)))  # (tokens, texts, width)
    mask = add("Cast", add("Not", add("Equal", "token_ids", "pad_id")), to=TensorProto.INT32)
    last = add("ArgMax", mask, axis=1, keepdims=0, select_last_index=1)  # token of each text that is no padding
    lengths = add("Cast", add("Add", last, "one"), to=TensorProto.INT32)  # (texts,)
    states = add("LSTM", words, "lstm/kernels", "lstm/recurrent_kernels", "lstm/biases", lengths, hidden_size=units,
                 direction="bidirectional")  # (directions, texts, units)
    both = add("Reshape", add("Transpose", states, perm=(1, 0, 2)), "joined")  # (texts, 2 units)
    dense = add("Relu", add("Add", add("MatMul", both, DENSE[0]), DENSE[1]))
    logits = add("Add", add("MatMul", dense, "classifier"), OUTPUT[1])
    nodes.append(helper.make_node("Softmax", [logits], ["probabilities"], axis=-1))
    outputs = [("probabilities", TensorProto.FLOAT, ("texts", len(bilstm.weights[OUTPUT[1]])))]
    constants = {"pad_id": np.int32(bilstm.pad_id), "one": np.int64(1), "joined": np.array([-1, 2 * units])}
    arrays = bilstm.weights | lstm_arrays(bilstm.weights) | {"classifier": bilstm.weights[OUTPUT[0]].T}
    return model_of(graph_of(nodes, "classifier", TEXTS, outputs, constants | arrays))


def lstm_arrays(weights):
    """{name: array} of the weights of both directions as ONNX's LSTM has them.

    kernels: (directions, 4 units, width). recurrent_kernels: (directions, 4 units, units). biases: (directions, 8 units), of
    the first and of the second kernel, which ONNX has and Keras has not.

    weights: of a BiLSTM
    """
    def of_both(array):
        return np.stack([_in_onnx_order(weights[f"lstm/{direction}/{array}"]) for direction in DIRECTIONS])

    biases = of_both("bias")
    return {"lstm/kernels": of_both("kernel"), "lstm/recurrent_kernels": of_both("recurrent_kernel"),
            "lstm/biases": np.concatenate([biases, np.zeros_like(biases)], axis=1)}


def _in_onnx_order(array):
    """An array (…, 4 units), turned around, its gates in ONNX's order: (4 units, …)."""
    return np.concatenate([np.split(array.T, 4)[gate] for gate in GATES])


def bilstm_flops(bilstm, classes, tokens):
    """Floating-point operations of a BiLSTM for one text: its matrix products; a multiply-add counts as two.

    bilstm: of `data.bilstms`
    classes: how many
    tokens: of the text
    """
    width, units, dense = (bilstm.config[key] for key in ("hidden_size", "lstm_units", "dense_units"))
    return 2 * (2 * tokens * 4 * units * (width + units) + dense * (2 * units + classes))
