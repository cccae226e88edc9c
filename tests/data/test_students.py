"""data.students: a student that was taken away is read, and answers as the classifier it was made from, or is refused."""

import json
import os
import shutil
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, processors

from common import InputError
from data import berts, model_folders, students
from export.exit_graph import exit_graph
from export.onnx_int8 import quantized
from tests import tiny
from tests.export.test_exit_graph import CLASSES as EXIT_CLASSES
from tests.export.test_exit_graph import HEADS, fastbert, numpy_exits, numpy_uncertainty
from tests.taken import CLASSES, LINES


def test_a_student_answers_as_the_trained_classifier(taken):
    student = students.load(taken.folder.parent)  # the run's folder does as well
    assert student.classes == CLASSES and not student.stops_early and student.source == str(taken.folder)
    expected = taken.probabilities(LINES)
    for batch_size in (1, 5, 100):  # in their order, whichever are computed together
        answers = students.ask(student, LINES, batch_size=batch_size)
        assert answers.keys() == {"probabilities"} and answers["probabilities"].dtype == np.float32
        np.testing.assert_allclose(answers["probabilities"], expected, atol=1e-5)


def test_a_student_of_pairs_answers_as_the_trained_classifier(taken_pairs):
    student = students.load(taken_pairs.folder)
    couples = [*((a, b) for a in LINES[:3] for b in LINES[:12]), ("w1 " * 40, "w2 " * 41), ("w1", "w2 " * 60)]
    assert student.pairs
    expected = taken_pairs.probabilities(couples)
    np.testing.assert_allclose(students.ask(student, couples)["probabilities"], expected, atol=1e-5)
    np.testing.assert_allclose(students.ask(student, couples[1:2])["probabilities"], expected[1:2], atol=1e-5)
    turned = students.ask(student, [(b, a) for a, b in couples[1:9]])["probabilities"]
    assert np.abs(turned - expected[1:9]).max(axis=1).min() > 1e-4


@pytest.mark.parametrize("pad_id", [0, 4])
def test_what_goes_into_the_graph_is_what_the_tokenizer_makes(taken_pairs, pad_id):
    """Of the library itself: cut, joined and padded by it."""
    couples, seen = [("w1 w2", "w3"), ("w4", "w5 w6 w7 w8 w9 w10"), ("w1 " * 40, "w2 " * 41)], {}
    student = students.load(taken_pairs.folder)
    answer = lambda **inputs: seen.update(inputs) or {}  # noqa: E731
    for texts, pairs in ((couples, True), ([a for a, _ in couples], False)):
        config = student.config | {"pad_token_id": pad_id, "pairs": pairs}
        students.ask(replace(student, answer=answer, config=config), texts)
        student.tokenizer.enable_truncation(16)
        student.tokenizer.enable_padding(pad_id=pad_id)
        theirs = sorted(student.tokenizer.encode_batch(texts), key=lambda each: sum(each.attention_mask))
        student.tokenizer.no_padding()
        assert seen["token_ids"].tolist() == [each.ids for each in theirs]
        assert seen["segment_ids"].tolist() == [each.type_ids for each in theirs]
        assert {inputs.dtype for inputs in seen.values()} == {np.dtype(np.int32)}


@pytest.fixture(scope="module")
def stopping(taken, tmp_path_factory):
    """(folder of a tiny FastBERT at speed 0.6, probabilities (texts, layers, classes) of LINES by numpy)."""
    folder, (bert, branches) = tmp_path_factory.mktemp("fastbert"), fastbert("branch")
    bert = replace(bert, tokenizer=taken.bert.tokenizer)
    berts.save(folder, bert, [f"class {number}" for number in range(EXIT_CLASSES)], maxlen=16, speed=0.6)
    (folder / "model.onnx").write_bytes(exit_graph(bert, branches, HEADS).SerializeToString())
    inputs = [tiny.tokenized([line], bert).inputs(np.array([0])) for line in LINES]
    return folder, np.concatenate([numpy_exits(bert, branches, *each) for each in inputs])


def test_a_fastbert_stops_at_its_own_speed_or_another(stopping):
    folder, p = stopping
    student, u, depths = students.load(folder), numpy_uncertainty(p), []
    assert student.stops_early
    for speed in (None, 0.0, 1.0, float(np.median(u[:, 0]))):
        answers = students.ask(student, LINES, speed, batch_size=4)
        used = np.where(u[:, 0] < (0.6 if speed is None else speed), 1, 2)
        assert answers["layers_used"].tolist() == used.tolist()
        rows = np.arange(len(LINES))
        np.testing.assert_allclose(answers["probabilities"], p[rows, used - 1], atol=1e-5)
        np.testing.assert_allclose(answers["uncertainty"], u[rows, used - 1], atol=1e-5)
        depths.append(used.mean())
    assert depths[1] == 2 and depths[2] == 1 and 1 < depths[3] < 2


PROMISE = {"max_disagreement": 1.0, "confidence": 95.0, "texts": 1000, "disagreements": 3}


def test_a_promise_is_read(stopping, tmp_path):
    folder = shutil.copytree(stopping[0], tmp_path / "student")
    assert "promise" not in students.load(folder).config
    damage(folder, "config.json", lambda config: config.update(promise=PROMISE))
    promise = students.load(folder).config["promise"]
    assert students.promise_in_words(promise) == (
        "with 95 % confidence at most 1 % of texts like the 1,000 it was calibrated on are answered otherwise than by all "
        "layers with all tokens (3 of those were)")


@pytest.mark.parametrize(
    ("promise", "message"),
    [
        ({}, "'max_disagreement' is missing"),
        (PROMISE | {"texts": "1000"}, "texts of the promise is '1000', expected a number"),
        (PROMISE | {"confidence": None}, "confidence of the promise is None"), (PROMISE | {"disagreements": True}, "is True"),
        (["a"], "not that of a student"), (1, "not that of a student"),
    ],
)
def test_a_promise_that_is_none_is_refused(stopping, tmp_path, promise, message):
    folder = shutil.copytree(stopping[0], tmp_path / "student")
    damage(folder, "config.json", lambda config: config.update(promise=promise))
    with pytest.raises(InputError, match="config.json: not that of a student") as error:
        students.load(folder)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_int8_is_asked_where_it_is_wanted(taken, tmp_path):
    """It answers nearly as float32 does."""
    folder = shutil.copytree(taken.folder, tmp_path / "student")
    with pytest.raises(InputError, match="int8.onnx is missing: validation did not allow it, or it is a teacher.s folder; "):
        students.load(folder, int8=True)
    (folder / "model.int8.onnx").write_bytes(quantized(onnx.load(folder / "model.onnx"), True).SerializeToString())
    found, expected = students.ask(students.load(folder, int8=True), LINES)["probabilities"], taken.probabilities(LINES)
    assert 1e-5 < np.abs(found - expected).max() < 0.1
    np.testing.assert_allclose(students.ask(students.load(folder), LINES)["probabilities"], expected, atol=1e-5)


# What is refused


ONES = numpy_helper.from_array(np.ones((1, 4), np.float32), "ones")


def graph_bytes(operator="Identity", taken=("ones",), output="probabilities", shape=("texts", 4), kind=TensorProto.INT32,
                inputs=("token_ids", "segment_ids"), arrays=(ONES,), opset=17, **attributes):
    """An ONNX file of one node, which makes its output of what it has `taken`: an array, or the inputs."""
    node = helper.make_node(operator, taken, [output], **attributes)
    graph = helper.make_graph(
        [node], "any", [helper.make_tensor_value_info(name, kind, ("texts", "tokens")) for name in inputs],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)], [*arrays])
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("ai.elsewhere", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


def kept_elsewhere(location, in_a_node=False):
    """An ONNX file that gives 4 numbers, which are kept in another file, for any texts."""
    tensor = TensorProto(name="kept", data_type=TensorProto.FLOAT, dims=[1, 4], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", "0"), ("length", "16")):
        tensor.external_data.add(key=key, value=value)
    return graph_bytes("Constant", [], arrays=[], value=tensor) if in_a_node else graph_bytes(taken=["kept"], arrays=[tensor])


def wider(folder):
    """Four tokens more in tokenizer and config than the graph has embeddings for."""
    tokenizer = model_folders.read_tokenizer_file(folder / "tokenizer.json")
    tokenizer.add_tokens([f"more{number}" for number in range(4)])
    tokenizer.save(str(folder / "tokenizer.json"))
    damage(folder, "config.json", lambda config: config.update(vocab_size=124))


def without_cls(folder):
    tokenizer = model_folders.read_tokenizer_file(folder / "tokenizer.json")
    tokenizer.post_processor = processors.TemplateProcessing("$A", special_tokens=[])
    tokenizer.save(str(folder / "tokenizer.json"))


def damage(folder, name, change):
    path = folder / name
    value = json.loads(path.read_text(encoding="utf-8"))
    change(value)
    path.write_text(json.dumps(value))


def config_with(**entries):
    return lambda folder: damage(folder, "config.json", lambda config: config.update(entries))


def config_without(name):
    return lambda folder: damage(folder, "config.json", lambda config: config.pop(name))


def model_of(content):
    return lambda folder: (folder / "model.onnx").write_bytes(content)


def only_a_saved_model(folder):
    (folder / "model.onnx").unlink()
    (folder / "saved_model").mkdir()


def a_folder_for_a_model(folder):
    (folder / "model.onnx").unlink()
    (folder / "model.onnx").mkdir()


TEXTS = "token_ids (tensor(int32), 2 axes), segment_ids (tensor(int32), 2 axes)"
PROBABILITIES = "probabilities (tensor(float), 2 axes)"
DAMAGES = {
    "no config": (lambda f: (f / "config.json").unlink(), "no config.json in it; expected a run's folder, its student/ or"),
    "of images": (lambda f: (f / "config.json").rename(f / "classes.json"), "one that takes images; expected a run's folder"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "tokenizer.json is missing"),
    "no model": (only_a_saved_model, "model.onnx is missing: older versions wrote a SavedModel alone; start the script of its "
                                     "run again, which writes student/ anew"),
    "a folder": (a_folder_for_a_model, "model.onnx is missing"),
    "a broken config": (lambda f: (f / "config.json").write_text("{"), "config.json: not a JSON object ("),
    "a deep config": (lambda f: (f / "config.json").write_text('{"a":' * 100_000), "config.json: not a JSON object ("),
    "a list for a config": (lambda f: (f / "config.json").write_text("[]"), "config.json: not a JSON object"),
    "no labels": (config_without("id2label"), "of a student ('id2label' is missing)"),
    "numbers for labels": (config_with(id2label={"0": 1, "1": 2}), "config.json: not that of a student"),
    "half a surrogate pair": (config_with(id2label={"0": "\ud800", "1": "b"}), "config.json: not that of a student"),
    "no maxlen": (config_without("maxlen"), "config.json: maxlen is missing"),
    "another maxlen": (config_with(maxlen=2), "maxlen is 2, expected a whole number from 3 to 1,000,000"),
    "maxlen in words": (config_with(maxlen="16"), "maxlen is '16', expected a whole number from 3 to 1,000,000"),
    "more than positions": (config_with(maxlen=41), "maxlen is 41, of 40 positions"),
    "an odd speed": (config_with(speed="fast"), "speed is 'fast', expected a number from 0 to 1"),
    "odd pairs": (config_with(pairs="yes"), "pairs is 'yes', expected true or false"),
    "other labels": (
        lambda f: damage(f, "config.json", lambda c: c["id2label"].popitem()),
        "the model gives probabilities of 4 classes, config.json names 3; they are not of one model"),
    "a run that has not ended": (
        lambda f: ((f / "config.json").unlink(), (f / "settings.json").write_text("{}")), "the same command goes on"),
    "a broken tokenizer": (lambda f: (f / "tokenizer.json").write_text("{}"), "tokenizer.json: not a tokenizer"),
    "an empty vocabulary": (lambda f: Tokenizer(models.WordPiece()).save(str(f / "tokenizer.json")), "for a word that it does"),
    "no [CLS]": (without_cls, "the tokenizer gives an empty text 0 tokens; expected [CLS], or a few, fewer than maxlen, 16"),
    "another vocabulary": (config_with(vocab_size=100), "ids go up to 119, the model has 100 embeddings; they are not of"),
    "another padding": (config_with(pad_token_id=120), "ids go up to 120, the model has 120 embeddings; they are not"),
    "fewer embeddings": (wider, "within the inclusive range [-120,119]); it was asked [2, 3, 123], the last of which"),
    "an empty file": (model_of(b""), "model.onnx: not a graph that onnxruntime"),
    "no graph": (model_of(b"no graph at all"), "model.onnx: not a graph that onnxruntime"),
    "an unknown operator": (
        model_of(graph_bytes("Elsewhere", ["token_ids"], domain="ai.elsewhere")),
        "model.onnx: not a graph that onnxruntime"),
    "of a newer ONNX": (model_of(graph_bytes(opset=127)), "model.onnx: not a graph that onnxruntime"),
    "other inputs": (
        model_of(graph_bytes(inputs=["input_ids", "attention_mask"])),
        "model.onnx: a graph from input_ids (tensor(int32), 2 axes), attention_mask (tensor(int32), 2 axes) to "
        f"{PROBABILITIES}; expected one from {TEXTS} to {PROBABILITIES}, as a student's is"),
    "inputs of another type": (model_of(graph_bytes(kind=TensorProto.INT64)), "a graph from token_ids (tensor(int64), 2 axes)"),
    "other outputs": (model_of(graph_bytes(output="logits")), f"from {TEXTS} to logits (tensor(float), 2 axes); expected"),
    "one axis": (
        model_of(graph_bytes("ReduceMax", shape=("texts",), axes=[1], keepdims=0)),
        "probabilities (tensor(float), 1 axes); expected"),
    "classes that it does not tell": (
        model_of(graph_bytes("Cast", ["token_ids"], shape=("texts", "any"), to=TensorProto.FLOAT)),
        "the model gives probabilities of 3 classes, config.json names 4"),
    "no early exit": (
        config_with(speed=0.5),
        f"a graph from {TEXTS} to {PROBABILITIES}; expected one from {TEXTS}, speed (tensor(float), 0 axes) to "
        f"{PROBABILITIES}, layers_used (tensor(int32), 1 axes), uncertainty (tensor(float), 1 axes)"),
    "weights elsewhere": (model_of(kept_elsewhere("kept.bin")), "it keeps weights in other files, which are not read"),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_what_does_not_fit_is_refused_in_one_line(taken, tmp_path, capfd, case):
    change, message = DAMAGES[case]
    folder = tmp_path / "student"
    shutil.copytree(taken.folder, folder)
    change(folder)
    with pytest.raises(InputError) as error:
        students.load(folder)
    assert message in str(error.value) and "\n" not in str(error.value) and str(folder) in str(error.value)
    assert capfd.readouterr() == ("", "")  # nor does onnxruntime say anything by itself


@given(st.data())
def test_a_model_that_was_cut_or_is_random_is_refused(taken, data):
    whole = (taken.folder / "model.onnx").read_bytes()
    cut = st.integers(0, len(whole) - 1).map(lambda length: whole[:length])
    with pytest.raises(InputError, match="^here: (not a graph|a graph from|it keeps weights)") as error:
        students.ask_by(students.session_of(data.draw(st.binary(max_size=200) | cut), "here"), "here")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("in_a_node", [False, True])
@pytest.mark.parametrize("place", ["kept.bin", "../kept.bin", "whole path", "*/_ORT_MEM_ADDR_/*"])
def test_no_other_file_is_read(tmp_path, monkeypatch, place, in_a_node):
    """Not even one in the working folder, which onnxruntime itself would read."""
    (tmp_path / "here").mkdir()
    for path in (tmp_path / "kept.bin", tmp_path / "here" / "kept.bin"):
        path.write_bytes(np.array([1, 2, 3, 4], np.float32).tobytes())
    monkeypatch.chdir(tmp_path / "here")
    model = kept_elsewhere(str(tmp_path / "kept.bin") if place == "whole path" else place, in_a_node)
    if place == "kept.bin":
        inputs = {name: np.zeros((1, 3), np.int32) for name in students.INPUTS}
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        assert onnxruntime.InferenceSession(model, options).run(None, inputs)[0].tolist() == [[1, 2, 3, 4]]
    with pytest.raises(InputError, match="it keeps weights in other files, which are not read"):
        students.session_of(model, "here")


def test_a_file_in_the_format_of_onnxruntime_itself_is_refused(taken, tmp_path):
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "model.ort")
    options.add_session_config_entry("session.save_model_format", "ORT")
    onnxruntime.InferenceSession((taken.folder / "model.onnx").read_bytes(), options)
    model = (tmp_path / "model.ort").read_bytes()
    assert onnxruntime.InferenceSession(model).get_outputs()[0].name == "probabilities"
    with pytest.raises(InputError, match="here: not a graph that onnxruntime .* can read"):
        students.session_of(model, "here")


def test_what_fails_as_it_is_asked_ends_in_one_line(taken, tmp_path, capfd):
    """Short texts go; of a long one the graph has not enough positions, whatever the config says."""
    folder = shutil.copytree(taken.folder, tmp_path / "student")
    damage(folder, "config.json", lambda config: config.update(maxlen=64, max_position_embeddings=64))
    student = students.load(folder)
    assert students.ask(student, LINES[:3])["probabilities"].shape == (3, 4)
    with pytest.raises(InputError, match=r"model.onnx: the graph cannot compute an answer \(") as error:
        students.ask(student, ["w1 " * 60])
    assert "\n" not in str(error.value) and capfd.readouterr() == ("", "")


def test_onnxruntime_tells_nobody_of_it():
    """`common` sets what it looks at when it is imported; users may still say otherwise."""
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
