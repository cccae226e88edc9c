"""export.onnx_int8: how arrays are rounded, and what a classifier of texts answers then. FastBERTs: test_exit_graph."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from data.berts import POOLER
from tests.export.test_onnx_graph import ask, classifier, examples, expected

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
onnx_graph = pytest.importorskip("export.onnx_graph")
onnx_int8 = pytest.importorskip("export.onnx_int8")

MATRICES = arrays(np.float32, st.tuples(st.integers(1, 6), st.integers(1, 6)), elements=st.floats(-1e3, 1e3, width=32))


@given(MATRICES, st.sampled_from([64, 127]))
def test_a_kernel_is_off_by_half_a_step_of_its_column_at_most(kernel, largest):
    integers, scales = onnx_int8.signed(kernel, largest)
    assert integers.dtype == np.int8 and scales.dtype == np.float32 and scales.shape == kernel.shape[1:]
    assert np.abs(integers.astype(int)).max() <= largest
    column = np.abs(kernel).max(axis=0)
    assert (np.abs(integers.astype(int)).max(axis=0)[column > 1e-30] == largest).all()
    assert (np.abs(integers * scales.astype(float) - kernel) <= 0.5001 * column / largest + 1e-37).all()


@given(MATRICES)
def test_a_table_is_off_by_a_step_at_most_and_not_where_it_is_0(table):
    integers, scale, zero = onnx_int8.unsigned(table)
    assert (integers.dtype, scale.dtype, zero.dtype) == (np.uint8, np.float32, np.uint8)
    found = float(scale) * (integers.astype(float) - float(zero))
    step = max(float(table.max()), 0.0) - min(float(table.min()), 0.0)
    assert (np.abs(found - table) <= 1.0001 * step / 255 + 1e-37).all()
    assert (found[table == 0] == 0).all()


@pytest.mark.parametrize("reduce_range", [False, True])
@pytest.mark.parametrize("kind", [{"pooler": True, "pad_id": 3}, {"hidden_act": "relu"}, {"num_hidden_layers": 1}], ids=str)
def test_it_answers_nearly_alike(kind, reduce_range):
    """Within 0.02; the model it was made of is as before."""
    bert = classifier(**kind)
    model = onnx_graph.text_graph(bert)
    before = model.SerializeToString()
    small = onnx_int8.quantized(model, reduce_range)
    onnx.checker.check_model(small)
    assert model.SerializeToString() == before
    token_ids, segment_ids = examples(bert)
    probabilities = expected(bert, token_ids, segment_ids)
    assert 1e-5 < np.abs(ask(small, token_ids, segment_ids) - probabilities).max() < 0.02


@pytest.mark.parametrize("reduce_range", [False, True])
def test_which_arrays_are_integers(reduce_range):
    bert = classifier(pooler=True)
    small = onnx_int8.quantized(onnx_graph.text_graph(bert), reduce_range)
    found = {array.name: onnx.numpy_helper.to_array(array) for array in small.graph.initializer}
    kinds = {kind: {name for name, array in found.items() if array.dtype == kind and array.ndim > 1}
             for kind in (np.float32, np.int8, np.uint8)}
    own = [f"bert/encoder/layer_{layer}" for layer in (0, 1)]
    of_cls = [f"{own[1]}/attention/self/{name}" for name in ("keys", "values")]
    assert kinds[np.float32] == {"classifier", POOLER[0], *(f"{name}/scales" for name in of_cls)}
    assert kinds[np.uint8] == {f"bert/embeddings/{name}_embeddings" for name in ("word", "position", "token_type")}
    kernels = ("attention/output/dense/kernel", "intermediate/dense/kernel", "output/dense/kernel")
    packed = {f"{own[0]}/attention/self/kernel", f"{own[1]}/attention/self/query/kernel"}
    assert kinds[np.int8] == {f"{layer}/{kernel}" for layer in own for kernel in kernels} | packed | {
        f"{name}/integers" for name in of_cls}
    floats = {array.name: onnx.numpy_helper.to_array(array) for array in onnx_graph.text_graph(bert).graph.initializer}
    for name in of_cls:  # which meet nothing in integers, and so keep 8 bits
        again = found[f"{name}/integers"] * found[f"{name}/scales"]
        assert (np.abs(again - floats[name]) <= 0.501 * np.abs(floats[name]).max(axis=1, keepdims=True) / 127).all()
        kinds[np.int8].remove(f"{name}/integers")
    for name in kinds[np.int8]:
        assert np.abs(found[name].astype(int)).max() == (64 if reduce_range else 127)
    whole = bert.weights[f"{own[0]}/intermediate/dense/kernel"]
    node = next(node for node in small.graph.node if f"{own[0]}/intermediate/dense/kernel" in node.input)
    again = found[node.input[1]] * found[node.input[2]]
    assert 0 < np.abs(again - whole).max() < 0.51 * np.abs(whole).max() / (64 if reduce_range else 127)


def test_it_is_a_third_in_size():
    bert = classifier(vocab_size=2000, hidden_size=128, intermediate_size=512)
    model = onnx_graph.text_graph(bert)
    assert onnx_int8.quantized(model).ByteSize() * 3 < model.ByteSize()
