"""The student to take away: its files against what Hugging Face expects, refusals, `python -m common.predict`, ONNX."""

import gzip
import io
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from safetensors.numpy import load_file
from scipy.special import softmax
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from common import InputError, data, export, predict, pretrained, texts
from common.backend import set_seed
from tests import tiny
from tests.alone import ask_alone
from tests.starting import ROOT
from tests.test_pretrained import numpy_bert

CLASSES = ["猫", "b c", "d", "e"]
LINES = [text for text, _ in tiny.texts(30)] + ["", "w1 " * 40]


@pytest.fixture(scope="module")
def taken(tmp_path_factory, bert_folder):
    """(folder of a student with a random head, its BERT, head, classifier)."""
    folder = tmp_path_factory.mktemp("run") / "student"
    set_seed(0)
    bert = pretrained.shallow(pretrained.load(str(bert_folder)), [0, 2])
    classifier = texts.build_classifier(bert, 4, 0.0)[1]
    head = [np.random.default_rng(i).normal(0, 1, shape).astype(np.float32) for i, shape in enumerate([(32, 4), (4,)])]
    classifier.get_layer("Classifier").set_weights(head)
    export.write_encoder(folder, bert, CLASSES, head, maxlen=16)
    export.write_saved_model(folder, export.classifying_graph(classifier, bert.pad_id))
    return folder, bert, head, classifier


def probabilities(taken, lines):
    """Of each line by itself, from the classifier that was trained."""
    _, bert, _, classifier = taken
    encoded = data.encode(lines, bert.tokenizer, 16)
    logits = [classifier.predict_on_batch(encoded.inputs(np.array([row])))[0] for row in range(len(lines))]
    return softmax(logits, axis=-1)


# Hugging Face's files


def bert_for_sequence_classification(layers, hidden, inner, vocabulary, positions, classes):
    """{name: shape} of what transformers' BertForSequenceClassification.state_dict() holds (version 5.23), but position_ids."""
    norm = {"weight": (hidden,), "bias": (hidden,)}

    def dense(into, out):
        return {"weight": (out, into), "bias": (out,)}

    parts = {
        "bert.embeddings.word_embeddings": {"weight": (vocabulary, hidden)},
        "bert.embeddings.position_embeddings": {"weight": (positions, hidden)},
        "bert.embeddings.token_type_embeddings": {"weight": (2, hidden)}, "bert.embeddings.LayerNorm": norm,
        "bert.pooler.dense": dense(hidden, hidden), "classifier": dense(hidden, classes),
    }
    for i in range(layers):
        layer = f"bert.encoder.layer.{i}"
        parts |= {f"{layer}.attention.self.{part}": dense(hidden, hidden) for part in ("query", "key", "value")}
        parts |= {
            f"{layer}.attention.output.dense": dense(hidden, hidden), f"{layer}.attention.output.LayerNorm": norm,
            f"{layer}.intermediate.dense": dense(hidden, inner), f"{layer}.output.dense": dense(inner, hidden),
            f"{layer}.output.LayerNorm": norm,
        }
    return {f"{part}.{name}": shape for part, shapes in parts.items() for name, shape in shapes.items()}


def test_tensors_are_those_of_transformers(taken):
    tensors = load_file(taken[0] / "model.safetensors")
    assert {name: tensor.shape for name, tensor in tensors.items()} == bert_for_sequence_classification(2, 32, 64, 120, 40, 4)
    assert {str(tensor.dtype) for tensor in tensors.values()} == {"float32"}


def test_config_and_tokenizer(taken):
    folder, bert, _, _ = taken
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == ["BertForSequenceClassification"] and config["model_type"] == "bert"
    assert config["num_hidden_layers"] == 2 and config["maxlen"] == 16 and config["pad_token_id"] == 0
    assert config["id2label"] == {str(i): name for i, name in enumerate(CLASSES)}
    assert config["label2id"] == {name: i for i, name in enumerate(CLASSES)}
    told = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert told["model_max_length"] == 16
    assert [told[f"{name}_token"] for name in ("cls", "sep", "pad", "unk", "mask")] == [
        "[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]"]
    assert (folder / "vocab.txt").read_text(encoding="utf-8").split() == tiny.SPECIAL + tiny.WORDS
    assert Tokenizer.from_file(str(folder / "tokenizer.json")).encode(LINES[0]).ids == bert.tokenizer.encode(LINES[0]).ids


def test_its_own_formula_gives_the_probabilities_of_the_classifier(taken):
    """softmax(W tanh(P h + p) + b), with hidden states from a BERT written in numpy."""
    folder, bert, _, _ = taken
    tensors = load_file(folder / "model.safetensors")
    again = pretrained.load(str(folder))  # as --bert takes it
    for line, expected in zip(LINES, probabilities(taken, LINES), strict=True):
        ids = np.array([bert.tokenizer.encode(line).ids])
        hidden = numpy_bert(again.weights, again.config, ids)[-1][:, 0]
        pooled = np.tanh(hidden @ tensors["bert.pooler.dense.weight"].T + tensors["bert.pooler.dense.bias"])
        logits = pooled @ tensors["classifier.weight"].T + tensors["classifier.bias"]
        np.testing.assert_allclose(softmax(logits[0]), expected, atol=export.TOLERANCE)


@given(arrays.arrays(np.float32, (3, 16), elements=st.floats(-20, 20, width=32)),
       arrays.arrays(np.float32, (16, 5), elements=st.floats(-0.25, 0.25, width=32)))
def test_the_pooler_changes_nothing_that_counts(hidden, kernel):
    """tanh(ε h) / ε is h but for ε² h³ / 3, for hidden states of up to 20 and classifiers as large as they come."""
    scale = np.float32(export.POOLER_SCALE)
    found = np.tanh(scale * hidden) @ (kernel / scale)
    cubic = export.POOLER_SCALE**2 / 3 * np.abs(hidden.astype(float)) ** 3 @ np.abs(kernel)
    rounding = 1e-5 * (1 + np.abs(hidden) @ np.abs(kernel))
    assert (np.abs(found - hidden @ kernel) <= cubic + rounding).all()


def test_another_padding_and_another_kind_of_tokenizer(tmp_path, bert_folder):
    """Unigram, <pad> 3, no vocab.txt: ids as this tokenizer makes them go into the graph, and give the same answers."""
    words = [("<s>", 0.0), ("</s>", 0.0), ("<unk>", -9.0), ("<pad>", 0.0), *((f"▁w{i}", -1.0 - i / 100) for i in range(60))]
    tokenizer = Tokenizer(models.Unigram(words, unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)])
    bert = replace(pretrained.load(str(bert_folder)), tokenizer=tokenizer, pad_id=3)
    classifier = texts.build_classifier(bert, 3, 0.0)[1]
    head = classifier.get_layer("Classifier").get_weights()
    export.write_encoder(tmp_path, bert, ["a", "b", "c"], head, maxlen=8)
    export.write_saved_model(tmp_path, export.classifying_graph(classifier, 3))
    told = json.loads((tmp_path / "tokenizer_config.json").read_text(encoding="utf-8"))
    named = [told.get(f"{name}_token") for name in ("cls", "sep", "pad", "unk", "mask")]
    assert named == ["<s>", "</s>", "<pad>", "<unk>", None]
    assert not (tmp_path / "vocab.txt").exists()
    encoded = data.encode(["w1 w2 w3", "w4"], tokenizer, 8, pad_id=3)
    expected = softmax(classifier.predict_on_batch(encoded.inputs(np.arange(2))), axis=-1)
    found = export.ask(export.load(tmp_path), ["w1 w2 w3", "w4"])["probabilities"]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    found = export.hugging_face_answer(tmp_path, pretrained.load(str(tmp_path)), *encoded.inputs(np.arange(2)))
    np.testing.assert_allclose(found, expected, atol=1e-5)


# Elsewhere


def test_tensorflow_alone(taken, tmp_path):
    tokenizer = Tokenizer.from_file(str(taken[0] / "tokenizer.json"))
    tokenizer.enable_truncation(16)
    ids = [tokenizer.encode(line).ids for line in LINES[:4]]
    longest = max(map(len, ids))
    ids = np.array([row + [0] * (longest - len(row)) for row in ids], np.int32)
    found = ask_alone(taken[0] / "saved_model", tmp_path, token_ids=ids, segment_ids=np.zeros_like(ids))
    assert found.keys() == {"probabilities"}
    np.testing.assert_allclose(found["probabilities"], probabilities(taken, LINES[:4]), atol=1e-6)


def test_onnx(taken, tmp_path):
    """onnxruntime takes texts of any number and length; without tf2onnx one line says what to install."""
    onnxruntime = pytest.importorskip("onnxruntime")
    _, bert, _, classifier = taken
    encoded = data.encode(LINES, bert.tokenizer, 16)
    graph = export.classifying_graph(classifier, 0)
    token_ids, segment_ids = encoded.inputs(np.arange(4))
    export.write_onnx(tmp_path, graph, export.TEXTS, {"token_ids": token_ids, "segment_ids": segment_ids})
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    for rows in (np.arange(1), np.arange(len(LINES))):
        token_ids, segment_ids = encoded.inputs(rows)
        found = session.run(["probabilities"], {"token_ids": token_ids, "segment_ids": segment_ids})[0]
        np.testing.assert_allclose(found, probabilities(taken, [LINES[row] for row in rows]), atol=1e-5)


def test_onnx_without_its_packages(taken, tmp_path, monkeypatch):
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else name)
    with pytest.raises(InputError, match="--export onnx needs the package onnxruntime: pip install tf2onnx onnxruntime"):
        export.check_packages(SimpleNamespace(export=("onnx",)))
    export.check_packages(SimpleNamespace(export=()))
    monkeypatch.undo()
    with pytest.raises(InputError, match="--export onnx: model.onnx cannot be made or not be asked") as error:
        export.write_onnx(tmp_path, lambda *_: 1 / 0, export.TEXTS, {})
    assert "\n" not in str(error.value)


def test_what_differs_is_not_called_done():
    export.check_equal("it", [0.5, 0.5], np.array([0.5, 0.5 + 5e-6]))
    with pytest.raises(RuntimeError, match="it differs by 1.0e-03 from the trained model; at most 1e-05 was expected"):
        export.check_equal("it", [0.5], np.array([0.501]))
    with pytest.raises(RuntimeError, match="differs by nan"):
        export.check_equal("it", [np.nan], np.array([0.5]))


# Reading back, and what does not fit


def test_a_student_answers_as_the_trained_classifier(taken):
    student = export.load(taken[0].parent)  # the run's folder does as well
    assert student.classes == CLASSES and not student.stops_early
    np.testing.assert_allclose(export.ask(student, LINES)["probabilities"], probabilities(taken, LINES), atol=1e-6)


def damage(folder, name, change):
    path = folder / name
    value = json.loads(path.read_text(encoding="utf-8"))
    change(value)
    path.write_text(json.dumps(value))


DAMAGES = {
    "no config": (lambda f: (f / "config.json").unlink(), "no config.json in it; expected a run's folder, or its student/"),
    "of images": (lambda f: (f / "config.json").rename(f / "classes.json"), "one that takes images; expected a run's folder"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "tokenizer.json is missing"),
    "no model": (lambda f: shutil.rmtree(f / "saved_model"), "saved_model.pb is missing"),
    "a broken config": (lambda f: (f / "config.json").write_text("{"), "config.json: not that of a student"),
    "no labels": (lambda f: damage(f, "config.json", lambda c: c.pop("id2label")), "of a student \\('id2label' is missing\\)"),
    "other labels": (
        lambda f: damage(f, "config.json", lambda c: c["id2label"].popitem()),
        "the model gives probabilities of 4 classes, config.json names 3; they are not of one model"),
    "a broken tokenizer": (lambda f: (f / "tokenizer.json").write_text("{}"), "tokenizer.json: not a tokenizer"),
    "another vocabulary": (
        lambda f: damage(f, "config.json", lambda c: c.update(vocab_size=100)),
        "the tokenizer's ids go up to 119, the model has 100 embeddings; they are not of one model"),
    "a broken model": (lambda f: (f / "saved_model" / "saved_model.pb").write_bytes(b"no"), "not a readable SavedModel"),
    "an empty model": (lambda f: (f / "saved_model" / "saved_model.pb").write_bytes(b""), "not a readable SavedModel"),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_what_does_not_fit_is_refused_in_one_line(taken, tmp_path, case):
    change, message = DAMAGES[case]
    folder = tmp_path / "student"
    shutil.copytree(taken[0], folder)
    change(folder)
    with pytest.raises(InputError, match=message) as error:
        export.load(folder)
    assert "\n" not in str(error.value) and str(folder) in str(error.value)


# python -m common.predict


def test_predict_gives_a_line_for_each_line(taken, tmp_path, capsys):
    """10,000 lines, more than are sorted together: in their order, each with its own answer."""
    lines = [LINES[i % len(LINES)] for i in np.random.default_rng(0).integers(0, 1000, 10_000)]
    (tmp_path / "lines.txt.gz").write_bytes(gzip.compress("\r\n".join(lines).encode("utf-8-sig")))
    predict.predict(str(taken[0]), file=str(tmp_path / "lines.txt.gz"), top=2, json=True)
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["text"] for row in told] == lines
    expected = dict(zip(LINES, probabilities(taken, LINES), strict=True))
    for row in told:
        assert row.keys() == {"text", "labels"} and len(row["labels"]) == 2
        p = expected[row["text"]]
        for place, label in zip(np.argsort(-p), row["labels"], strict=False):
            assert label["label"] == CLASSES[place] and label["probability"] == pytest.approx(p[place], abs=1e-5)


def test_predict_in_columns(taken, capsys):
    predict.predict(str(taken[0]), (LINES[0], "w2\tw3 " * 20), top=9)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and lines[0].endswith(f"%  {LINES[0]}") and lines[1].endswith("…")
    assert all(name in lines[0] for name in CLASSES) and len(lines[1].split("%  ")[-1]) == 60


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"texts": ("a",), "top": 0}, "--top: must be 1 or more"),
        ({"texts": ("a",), "batch_size": 0}, "--batch-size: must be 1 or more"),
        ({"texts": ("a",), "file": "b"}, "--file b: give texts or a file of them, not both"),
        ({"texts": ("a",), "speed": 0.5}, "--speed 0.5: .* has no early exit; only a FastBERT has"),
        ({"file": "nowhere.txt"}, "--file nowhere.txt: there is no such file"),
    ],
)
def test_predict_refuses(taken, words, message):
    given_texts = words.pop("texts", ())
    with pytest.raises(InputError, match=message):
        predict.predict(str(taken[0]), given_texts, **words)


def test_predict_refuses_words_that_are_no_text(taken):
    with pytest.raises(InputError, match=r"'caf.udce9': not UTF-8; give such texts in a file, converted"):
        predict.predict(str(taken[0]), ("caf\udce9",))


def test_a_vocabulary_with_holes_is_written_as_tokenizer_json_alone(tmp_path, bert_folder):
    for file in bert_folder.iterdir():
        shutil.copy(file, tmp_path / file.name)
    lines = (tmp_path / "vocab.txt").read_text().splitlines()
    (tmp_path / "vocab.txt").write_text("\n".join([*lines[:50], "", *lines[51:]]))
    bert = pretrained.load(str(tmp_path))
    export.write_tokenizer(tmp_path / "out", bert, 16)
    assert not (tmp_path / "out" / "vocab.txt").exists()
    again = Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    assert again.encode(LINES[0]).ids == bert.tokenizer.encode(LINES[0]).ids


def test_weights_that_are_not_those_of_the_trained_model(taken, tmp_path):
    folder, bert, _, _ = taken
    read = pretrained.load(str(folder))
    export.check_encoder(read, bert)
    other = bert.weights | {"bert/embeddings/LayerNorm/beta": bert.weights["bert/embeddings/LayerNorm/beta"] + 1}
    with pytest.raises(RuntimeError, match="does not hold the weights of the trained model"):
        export.check_encoder(read, replace(bert, weights=other))


def test_predict_reads_standard_input(taken, monkeypatch, capsys):
    class Input(io.TextIOWrapper):
        def isatty(self):
            return False

    monkeypatch.setattr(sys, "stdin", Input(io.BytesIO(b"w1 w2\n\nw3\r\n")))
    predict.predict(str(taken[0]), json=True)
    assert [json.loads(line)["text"] for line in capsys.readouterr().out.splitlines()] == ["w1 w2", "", "w3"]
    monkeypatch.setattr(sys, "stdin", Input(io.BytesIO("w1\n你好，世界".encode("gb18030"))))
    with pytest.raises(InputError, match="standard input, line 2: not UTF-8; it looks like GB18030"):
        predict.predict(str(taken[0]))


def test_predict_as_a_user_starts_it(taken, tmp_path):
    (tmp_path / "lines.txt").write_text("\n".join(LINES * 300))
    words = [sys.executable, "-m", "common.predict", str(taken[0])]
    done = subprocess.run([*words, "w1 w2", "w3"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0 and done.stdout.count("\n") == 2 and done.stderr == ""
    piped = f"{' '.join(words)} < {tmp_path / 'lines.txt'} | head -1"
    done = subprocess.run(piped, shell=True, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.count("\n") == 1 and done.stderr == ""  # a reader that has had enough is no error
    done = subprocess.run([*words[:-1], str(tmp_path), "w1"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2 and done.stderr.startswith(f"error: {tmp_path}: no config.json in it")
    assert done.stderr.count("\n") == 1
