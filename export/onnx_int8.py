"""An ONNX graph of `onnx_graph` or `exit_graph` with most of its weights in integers, those of graphs within it as well.

Graphs within the graph hold nearly all that a FastBERT is made of. onnxruntime's own tool leaves them as they are, or, told to
enable them (EnableSubgraph, in version 1.32), makes of them a graph that onnxruntime does not load.
"""

from functools import partial

import numpy as np
import onnx
from onnx import helper, numpy_helper

from data.berts import POOLER

KEPT = ("classifier", POOLER[0])  # kernels of heads: they are small, and rounding them costs most
TABLES = [f"bert/embeddings/{name}_embeddings" for name in ("word", "position", "token_type")]


def quantized(model, reduce_range=False):
    """A graph with embeddings in uint8, a scale a table, and kernels in int8, those of an LSTM too, a scale a column.

    Kernels stay as they are in heads, and in a branch if they see a single vector of each text, those of Gemm. Those of three
    axes, in `onnx_graph.attention_of_cls`, are int8 in the file, and onnxruntime makes floats of them when it loads it. What
    any other int8 kernel is multiplied with is rounded to uint8 as it comes, with one scale for all texts asked together: so
    the answer to a text depends a little on which they are.

    model: onnx.ModelProto in float32
    reduce_range: kernels of 7 bits, for CPUs without VNNI, whose sums of two products in 16 bits overflow with 8

    Returns an onnx.ModelProto.
    """
    small = onnx.ModelProto()
    small.CopyFrom(model)
    others = [entry for entry in model.metadata_props if entry.key != "promise"]  # which is made of float32 alone
    del small.metadata_props[:]
    small.metadata_props.extend(others)
    _in_integers(small.graph, 64 if reduce_range else 127)
    return small


def _in_integers(graph, largest):
    """Change an onnx.GraphProto and the graphs within it. largest: absolute value of an int8"""
    arrays = {array.name: numpy_helper.to_array(array) for array in graph.initializer}
    of_lstms = {name for node in graph.node if node.op_type == "LSTM" for name in node.input}
    packed = [name for name in arrays if arrays[name].ndim == 3 and name not in of_lstms]
    nodes = [node for name in packed for node in _into_floats(name, arrays)]
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                _in_integers(attribute.g, largest)
        nodes += _of_integers(node, arrays, largest)
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())


def _into_floats(name, arrays):
    """The nodes that make the floats `name` of the int8 that `arrays` then has instead: none depends on an input.

    name: of an array of three axes, which has a scale for each of the first and the last
    arrays: {name: array} of its graph's
    """
    integers, scales, floats = (f"{name}/{part}" for part in ("integers", "scales", "floats"))
    rounded = [signed(matrix, 127) for matrix in arrays.pop(name)]
    arrays[integers], arrays[scales] = np.stack([matrix for matrix, _ in rounded]), np.stack([s[None] for _, s in rounded])
    return [helper.make_node("Cast", [integers], [floats], floats, to=onnx.TensorProto.FLOAT),
            helper.make_node("Mul", [floats, scales], [name], name)]


def _of_integers(node, arrays, largest):
    """The nodes that stand in the place of one: itself, or some that take integers, which `arrays` then has in their place.

    arrays: {name: array} of its graph's
    largest: as of `_in_integers`
    """
    first, second, *others = [*node.input, "", ""]
    theirs = partial(helper.make_node, domain="com.microsoft")  # onnxruntime's own operators
    if node.op_type in ("Gather", "Slice") and first in TABLES:
        looked_up, scale, zero = (f"{node.name}/{part}" for part in ("integers", "scale", "zero"))
        arrays[first], arrays[scale], arrays[zero] = unsigned(arrays[first])
        return [
            helper.make_node(node.op_type, node.input, [looked_up], looked_up, **_attributes(node)),
            helper.make_node("DequantizeLinear", [looked_up, scale, zero], node.output, node.name),
        ]
    if node.op_type == "Attention":
        bias, mask = others[:2]
        rounded, scale, zero, scales = (f"{node.name}/{part}" for part in ("rounded", "scale", "zero", "scales"))
        arrays[second], arrays[scales] = signed(arrays[second], largest)
        inputs = [rounded, second, bias, scale, scales, mask, zero]
        return [
            helper.make_node("DynamicQuantizeLinear", [first], [rounded, scale, zero], rounded),
            theirs("QAttention", inputs, node.output, node.name, **_attributes(node)),
        ]
    if node.op_type == "LSTM":
        inputs = [*node.input, "", "", ""]  # no states to begin with, no peepholes
        for name in (second, others[0]):
            directions = [signed(kernel.T, largest) for kernel in arrays[name]]  # (inputs, 4 units) and (4 units,) of each
            arrays[name], arrays[f"{name}/scales"] = (np.stack(parts) for parts in zip(*directions, strict=True))
            arrays[f"{name}/zeros"] = np.zeros(arrays[f"{name}/scales"].shape, np.int8)
            inputs += [f"{name}/scales", f"{name}/zeros"]
        return [theirs("DynamicQuantizeLSTM", inputs, node.output, node.name, **_attributes(node))]
    if node.op_type == "MatMul" and second in arrays and arrays[second].ndim == 2 and second not in KEPT:
        scales = f"{node.name}/scales"
        arrays[second], arrays[scales] = signed(arrays[second], largest)
        return [theirs("DynamicQuantizeMatMul", [first, second, scales], node.output, node.name)]
    return [node]


def _attributes(node):
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def signed(kernel, largest):
    """(int8 (…, columns), scales (columns,) float32) whose product a matrix nearly is. largest: absolute value of an int8"""
    scales = np.maximum(np.abs(kernel).max(axis=0), np.finfo(np.float32).tiny) / np.float32(largest)
    return np.rint(kernel / scales).astype(np.int8), scales


def unsigned(table):
    """(uint8, scale, zero point) of an array that is nearly scale · (uint8 - zero point)."""
    low, high = np.minimum(table.min(), 0), np.maximum(table.max(), 0)
    scale = np.maximum(high - low, np.finfo(np.float32).tiny) / np.float32(255)
    zero = np.rint(-low / scale)
    return np.clip(np.rint(table / scale) + zero, 0, 255).astype(np.uint8), np.float32(scale), np.uint8(zero)
