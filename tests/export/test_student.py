"""export.student: the student to take away, by Hugging Face's formula, with TensorFlow alone; and what is refused."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file
from scipy.special import softmax
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from common import InputError
from common.bert import build_classifier, classifier_graph
from common.files import write_array
from common.training import Run
from data import berts, linear_models, students
from data.parts import Parts
from export import checks
from export import student as export
from export.onnx_graph import text_graph
from tests import tiny
from tests.alone import ask_alone
from tests.data.test_linear_models import MODELS as LINEAR_MODELS
from tests.numpy_bert import numpy_bert
from tests.taken import LINES


def test_its_own_formula_gives_the_probabilities_of_the_classifier(taken):
    """softmax(W tanh(P h + p) + b), with hidden states from a BERT written in numpy."""
    folder, bert = taken.folder, taken.bert
    tensors = load_file(folder / "model.safetensors")
    again = berts.load(str(folder))  # as --bert takes it
    bert.tokenizer.enable_truncation(16)
    for line, expected in zip(LINES, taken.probabilities(LINES), strict=True):
        ids = np.array([bert.tokenizer.encode(line).ids])
        hidden = numpy_bert(again.weights, again.config, ids)[-1][:, 0]
        pooled = np.tanh(hidden @ tensors["bert.pooler.dense.weight"].T + tensors["bert.pooler.dense.bias"])
        logits = pooled @ tensors["classifier.weight"].T + tensors["classifier.bias"]
        np.testing.assert_allclose(softmax(logits[0]), expected, atol=checks.TOLERANCE)


def test_its_own_formula_gives_the_probabilities_of_pairs(taken):
    """The same for pairs of texts, with their segments, and as `hugging_face_answer` computes it."""
    folder, bert, couples = taken.folder, taken.bert, [(a, b) for a in LINES[:3] for b in LINES[3:6]]
    token_ids, segment_ids = tiny.tokenized(couples, bert).inputs(np.arange(9))
    tensors, again = load_file(folder / "model.safetensors"), berts.load(str(folder))
    hidden = numpy_bert(again.weights, again.config, token_ids, segment_ids=segment_ids)[-1][:, 0]
    pooled = np.tanh(hidden @ tensors["bert.pooler.dense.weight"].T + tensors["bert.pooler.dense.bias"])
    expected = softmax(pooled @ tensors["classifier.weight"].T + tensors["classifier.bias"], axis=-1)
    np.testing.assert_allclose(taken.probabilities(couples), expected, atol=checks.TOLERANCE)
    found = checks.hugging_face_answer(folder, again, token_ids, segment_ids)
    np.testing.assert_allclose(found, expected, atol=checks.TOLERANCE)


@pytest.mark.slow
def test_another_padding_and_another_kind_of_tokenizer(tmp_path, bert_folder):
    """Unigram, <pad> 3, no vocab.txt: ids as this tokenizer makes them go into the graph, and give the same answers."""
    words = [("<s>", 0.0), ("</s>", 0.0), ("<unk>", -9.0), ("<pad>", 0.0), *((f"▁w{i}", -1.0 - i / 100) for i in range(60))]
    tokenizer = Tokenizer(models.Unigram(words, unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)])
    bert = replace(berts.keep_layers(berts.load(str(bert_folder)), [0]), tokenizer=tokenizer, pad_id=3)
    classifier = build_classifier(bert, 3, dropout=0.0)
    berts.save(tmp_path, classifier.bert, ["a", "b", "c"], maxlen=8)
    (tmp_path / students.FLOAT32).write_bytes(text_graph(classifier.bert).SerializeToString())
    names = json.loads((tmp_path / "tokenizer_config.json").read_text(encoding="utf-8"))
    named = [names.get(f"{name}_token") for name in ("cls", "sep", "pad", "unk", "mask")]
    assert named == ["<s>", "</s>", "<pad>", "<unk>", None]
    assert not (tmp_path / "vocab.txt").exists()
    inputs = tiny.tokenized(["w1 w2 w3", "w4"], bert, maxlen=8).inputs(np.arange(2))
    expected = softmax(classifier.model.predict_on_batch(inputs), axis=-1)
    found = students.ask(students.load(tmp_path), ["w1 w2 w3", "w4"])["probabilities"]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    found = checks.hugging_face_answer(tmp_path, berts.load(str(tmp_path)), *inputs)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_every_seed_has_its_own_validation_part(tmp_path):
    """By the labels of another seed's part `plain` would be the better one; the student's run has the part of its seed."""
    labels, runs = np.arange(40) % 2, []
    for seed, validation in ((3, np.arange(0, 20)), (4, np.arange(39, 19, -1))):
        parts = Parts(np.arange(8), np.arange(0), validation, np.arange(8))
        settings = SimpleNamespace(seeds=(3, 4), precision="float32")
        runs.append(Run(settings, seed, SimpleNamespace(labels=labels), None, parts, tmp_path))
        for name, right in (("plain", 10), ("better", 20 if seed == 4 else 19)):
            given = np.where(np.arange(20) < right, labels[validation], 1 - labels[validation])
            write_array(runs[-1].stage(name) / "validation_logits.npy", np.eye(2)[given])
    records = [{"name": name, "seed": seed, "validation_accuracy": value, "accuracy": 0.5, "parameters": 9,
                "latency_ms": {"1": 1.0, "32": 2.0}}
               for seed, name, value in ((3, "plain", 0.5), (3, "better", 0.95), (4, "plain", 0.5), (4, "better", 1.0))]
    asked = []
    words, _, told = export.write_student(
        runs, records, ("plain", "better"), "teacher", lambda folder, seeds, *_: asked.append(seeds) or export.Written([]),
    )
    assert words == "better, seed 4" and told["student"] == {"name": "better", "seed": 4, "files": []}
    assert asked == [[(runs[1], records[3]), (runs[0], records[1])]] and (tmp_path / "student").is_dir()


@pytest.mark.parametrize(("promised", "words"), [(True, "good, seed 4"), (False, "fast, seed 3")])
def test_the_best_of_several_promises_is_not_taken(tmp_path, promised, words):
    """At its speed `fast` of seed 3 is the best, but with a promise the calibration texts have chosen that speed: there it is
    the branches that count, whose texts have chosen nothing.
    """
    labels, runs, records = np.arange(40) % 2, [], []

    def answers(right):
        return np.eye(2)[np.where(np.arange(40) < right, labels, 1 - labels)]

    for seed in (3, 4):
        settings, parts = SimpleNamespace(seeds=(3, 4), precision="float32"), Parts(*4 * [np.arange(40)])
        runs.append(Run(settings, seed, SimpleNamespace(labels=labels), None, parts, tmp_path))
        for name, at_speed, of_branches in (("fast", 40 if seed == 3 else 39, 10), ("good", 10, 30 + seed)):
            write_array(runs[-1].stage(name) / "validation_logits.npy", answers(at_speed))
            exits = np.stack([answers(of_branches), answers(of_branches - 2), answers(20)], axis=1)
            write_array(runs[-1].stage(f"{name}-branches") / "validation_logits.npy", exits)
            records.append({"name": name, "seed": seed, "accuracy": 0.5, "parameters": 9, "latency_ms": {"1": 1.0, "32": 2.0}}
                           | ({"promise": {}} if promised else {}))
    taken, _, _ = export.write_student(runs, records, ("fast", "good"), "teacher", lambda *_: export.Written([]))
    assert taken == words


def test_the_teacher_beside_a_student_is_its_own(tmp_path, monkeypatch):
    """And not the best of another seed, which neither taught it nor is what its promise is held against."""
    saved = []
    monkeypatch.setattr(export.berts, "save", lambda folder, bert, *_, **__: saved.append(bert.weights))
    monkeypatch.setattr(export.teachers, "load", lambda folder, corpus: SimpleNamespace(weights=saved[-1]))
    corpus, settings = SimpleNamespace(classes=["a", "b"], pairs=False), SimpleNamespace(precision="float32", maxlen=9)
    runs = [Run(settings, seed, corpus, None, None, tmp_path) for seed in (0, 1)]
    records = [{"name": "teacher", "seed": seed, "validation_accuracy": 0.5 + seed / 9} for seed in (0, 1)]
    for seed in (None, 0, 1):
        export.write_teacher(runs, records, "teacher", lambda run, name: SimpleNamespace(
            bert=SimpleNamespace(weights={"of": np.array(run.seed)})), seed)
    assert [weights["of"] for weights in saved] == [1, 0, 1]


@pytest.mark.parametrize("best", [0, 1])
def test_the_linear_model_to_take_away_is_the_best_on_validation(tmp_path, best):
    """Of the seeds, whatever the test part says; where there is none any more, an earlier start's is deleted."""
    (texts, model), runs, records = LINEAR_MODELS["one that is not learned"], [], []
    corpus = SimpleNamespace(texts=texts, name="texts", classes=model.classes, pairs=False)
    for seed in (0, 1):
        runs.append(Run(None, seed, corpus, None, Parts(*4 * [np.arange(5)]), tmp_path))
        of_seed = replace(model, biases=model.biases + seed)
        (runs[-1].stage("linear") / "model").mkdir(parents=True)
        linear_models.save(runs[-1].stage("linear") / "model", of_seed)
        write_array(runs[-1].stage("linear") / "test_logits.npy", of_seed.logits(texts))
        records.append({"name": "linear", "seed": seed, "validation_accuracy": float(seed == best),
                        "accuracy": float(seed != best), "terms": "words"})
    assert export.write_linear(runs, records) == {"linear": f"linear, seed {best}"}
    written = linear_models.load(tmp_path / "linear")
    np.testing.assert_array_equal(written.biases, model.biases + best)
    assert written.classes == model.classes
    assert f"Accuracy on 5 test texts: {0:.2%}" in (tmp_path / "linear" / "README.md").read_text("utf-8")
    write_array(runs[best].stage("linear") / "test_logits.npy", model.logits(texts) + np.eye(4)[2])
    with pytest.raises(RuntimeError, match="linear differs by"):
        export.write_linear(runs, records)
    (runs[best].stage("linear") / "model" / "terms.json").write_text("half")
    with pytest.raises(InputError, match="seed-./linear/model is damaged; delete the folder .*seed-./linear, and the same"):
        export.write_linear(runs, records)
    assert export.write_linear(runs, []) == {} and not (tmp_path / "linear").exists()


# Elsewhere


@pytest.mark.slow
def test_tensorflow_alone(taken, tmp_path):
    tokenizer = Tokenizer.from_file(str(taken.folder / "tokenizer.json"))
    tokenizer.enable_truncation(16)
    ids = [tokenizer.encode(line).ids for line in LINES[:4]]
    longest = max(map(len, ids))
    ids = np.array([text + [0] * (longest - len(text)) for text in ids], np.int32)
    export.write_saved_model(tmp_path, classifier_graph(taken.classifier))
    found = ask_alone(tmp_path / "saved_model", tmp_path, token_ids=ids, segment_ids=np.zeros_like(ids))
    assert found.keys() == {"probabilities"}
    np.testing.assert_allclose(found["probabilities"], taken.probabilities(LINES[:4]), atol=1e-6)


def test_onnx_of_images_without_its_package(monkeypatch):
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="--export onnx needs the package tf2onnx: pip install tf2onnx"):
        export.check_packages(SimpleNamespace(export=("onnx",)))
    export.check_packages(SimpleNamespace(export=()))


def test_what_differs_is_not_called_done():
    checks.check_promise(promise := {"texts": 1000, "disagreements": 4}, 4)
    with pytest.raises(RuntimeError, match="answers 5 of 1,000 calibration texts otherwise than .*; its promise allows 4"):
        checks.check_promise(promise, 5)
    checks.check_equal("it", [0.5, 0.5], np.array([0.5, 0.5 + 5e-6]))
    with pytest.raises(RuntimeError, match="it differs by 1.0e-03 from the trained model; at most 1e-05 was expected"):
        checks.check_equal("it", [0.5], np.array([0.501]))
    with pytest.raises(RuntimeError, match="differs by nan"):
        checks.check_equal("it", [np.nan], np.array([0.5]))


def test_weights_that_are_not_those_of_the_trained_model(taken):
    bert, read = taken.bert, berts.load(str(taken.folder))
    checks.check_weights(read, bert.weights)
    other = bert.weights | {"bert/embeddings/LayerNorm/beta": bert.weights["bert/embeddings/LayerNorm/beta"] + 1}
    with pytest.raises(RuntimeError, match="does not hold the weights of the trained model"):
        checks.check_weights(read, other)
