"""export.bilstm_graph: probabilities of the graph against a BiLSTM written in numpy, in float32 and in int8; what it costs."""

import json

import numpy as np
import pytest
from scipy.special import softmax

from common import InputError
from data import berts, bilstms, students
from data.vocabulary import EMBEDDINGS
from export.checks import rebuilt_answer
from export.costs import GRAPHS
from tests import tiny
from tests.common.test_bilstm import padded_texts, shaken
from tests.export.test_onnx_graph import ask
from tests.numpy_lstm import numpy_bilstm

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
bilstm_graph = pytest.importorskip("export.bilstm_graph")
onnx_int8 = pytest.importorskip("export.onnx_int8")
LENGTHS = [16, 11, 8, 3, 1, 16]


@pytest.fixture(scope="module", params=[0, 3])
def bilstm(request, bert_folder):
    return shaken(berts.load(str(bert_folder)), pad_id=request.param)


@pytest.fixture(scope="module")
def asked(bilstm):
    """(token ids, segment ids, their probabilities by numpy); the last text has the padding's token within it."""
    token_ids, segment_ids = padded_texts(bilstm.pad_id, LENGTHS, 16)
    token_ids[5, 4] = bilstm.pad_id
    return token_ids, segment_ids, softmax(numpy_bilstm(bilstm.weights, token_ids, bilstm.pad_id), axis=-1)


def test_the_graph_has_the_probabilities_of_numpy(bilstm, asked):
    """No text's answer depends on the others, or on its padding."""
    model = bilstm_graph.bilstm_graph(bilstm)
    onnx.checker.check_model(model, full_check=True)
    token_ids, segment_ids, expected = asked
    found = ask(model, token_ids, segment_ids)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)
    for row, length in enumerate(LENGTHS):
        alone = ask(model, token_ids[row : row + 1, :length], segment_ids[row : row + 1, :length])
        np.testing.assert_allclose(alone, expected[row : row + 1], atol=1e-5)


def test_gates_stand_in_onnx_order(bilstm):
    """Input, output, forget, cell, of input, forget, cell, output; of the second bias, which only ONNX has, all are 0."""
    found, units = bilstm_graph.lstm_arrays(bilstm.weights), bilstm.config["lstm_units"]
    for number, direction in enumerate(("forward", "backward")):
        for array, name in (("kernels", "kernel"), ("recurrent_kernels", "recurrent_kernel"), ("biases", "bias")):
            i, f, c, o = np.split(bilstm.weights[f"lstm/{direction}/{name}"].T, 4)
            np.testing.assert_array_equal(found[f"lstm/{array}"][number][: 4 * units], np.concatenate([i, o, f, c]))
    assert not found["lstm/biases"][:, 4 * units :].any()


@pytest.mark.parametrize("reduce_range", [False, True])
def test_in_int8_it_answers_nearly_alike(bilstm, asked, reduce_range):
    """All kernels are integers but that of the classifier; the model it was made of is as before."""
    model = bilstm_graph.bilstm_graph(bilstm)
    before = model.SerializeToString()
    small = onnx_int8.quantized(model, reduce_range)
    assert model.SerializeToString() == before
    arrays = {array.name: onnx.numpy_helper.to_array(array) for array in small.graph.initializer}
    floats = {name for name, array in arrays.items() if array.dtype == np.float32 and array.ndim > 1}
    scales = {"lstm/kernels/scales", "lstm/recurrent_kernels/scales"}
    assert floats == {"classifier", "lstm/biases"} | scales
    for name in ("lstm/kernels", "lstm/recurrent_kernels"):
        whole = bilstm_graph.lstm_arrays(bilstm.weights)[name].transpose(0, 2, 1)
        assert arrays[name].dtype == np.int8 and np.abs(arrays[name].astype(int)).max() == (64 if reduce_range else 127)
        error = np.abs(arrays[name] * arrays[f"{name}/scales"][:, None] - whole)
        assert (error <= 0.501 * np.abs(whole).max(axis=1, keepdims=True) / (64 if reduce_range else 127)).all()
    token_ids, segment_ids, expected = asked
    assert 1e-5 < np.abs(ask(small, token_ids, segment_ids) - expected).max() < 0.1


def test_it_is_a_quarter_in_size(bert_folder):
    model = bilstm_graph.bilstm_graph(shaken(berts.load(str(bert_folder)), units=100))
    assert onnx_int8.quantized(model).ByteSize() * 3.5 < model.ByteSize()


def test_its_operations_are_those_of_its_kernels(bilstm):
    """Two for each number of the LSTM's kernels at each token, and of the other kernels once; words are but looked up."""
    make_graph, flops = GRAPHS[bilstm.kind]
    sizes = {array.name: np.prod(array.dims) for array in make_graph(bilstm).graph.initializer}
    of_lstm = sizes["lstm/kernels"] + sizes["lstm/recurrent_kernels"]
    assert flops(bilstm, 5, 24) == 2 * (24 * of_lstm + sizes["dense/kernel"] + sizes["classifier"])


@pytest.fixture
def student(bert_folder, tmp_path):
    bilstm = shaken(berts.load(str(bert_folder)))
    bilstms.save(tmp_path, bilstm, list("abcde"), maxlen=16)
    (tmp_path / students.FLOAT32).write_bytes(bilstm_graph.bilstm_graph(bilstm).SerializeToString())
    return tmp_path


def test_a_student_answers_as_numpy(student):
    """Texts of any length, cut to maxlen, one of which has the padding's token; by the graph and by the weights read back."""
    lines, again = [*(text for text, _ in tiny.texts(6)), "", "w1 " * 60, "w1 [PAD] w2"], bilstms.load(student)
    token_ids, segment_ids = tiny.tokenized(lines, again).inputs(np.arange(len(lines)))
    expected = softmax(numpy_bilstm(again.weights, token_ids), axis=-1)
    for found in (students.ask(students.load(student), lines, batch_size=4)["probabilities"],
                  rebuilt_answer(again, token_ids, segment_ids)):
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"maxlen": 2}, "maxlen is 2, expected a whole number from 3 to 1,000,000"),
        ({"model_type": "bert"}, "max_position_embeddings is missing"),
        ({"model_type": ["bilstm"]}, "max_position_embeddings is missing"),
        ({"vocab_size": 0}, "vocab_size is 0, expected a whole number from 1 to 10,000,000"),
        ({"id2label": {"0": "a"}}, "the model gives probabilities of 5 classes, config.json names 1"),
    ],
)
def test_a_student_that_does_not_fit_is_refused(student, entries, message):
    path = student / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(config | {"maxlen": 900} | entries))
    with pytest.raises(InputError) as error:
        students.load(student)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_tables_of_words_are_looked_up_as_integers(bilstm):
    arrays = {array.name: array.data_type for array in onnx_int8.quantized(bilstm_graph.bilstm_graph(bilstm)).graph.initializer}
    assert arrays[EMBEDDINGS] == onnx.TensorProto.UINT8
