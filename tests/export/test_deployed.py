"""export.deployed: a student with fewer tokens and in int8, and what that costs over the seeds."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from common.backend import tf
from common.bert import build_classifier
from common.evaluation import compare
from common.files import write_array
from common.training import Run
from data import berts
from data.parts import Parts
from data.students import FLOAT32
from export import deployed as deploying
from export.deployed import Deployed, deploy, deployment_figures, remark_on, text_model
from export.onnx_files import decisions
from export.student import write_files
from tests import tiny

LETTERS = [*"wx0123456789", *(f"##{character}" for character in "wx0123456789")]
WORDS = LETTERS + [f"w{i}" for i in range(20, 99)]


@pytest.fixture(scope="module")
def spelled(tmp_path_factory):
    """A run of texts of some words: those of training have w20 to w49, those of the test part now and then w90 to w98."""
    bert = berts.load(str(tiny.write_bert(tmp_path_factory.mktemp("bert"), words=WORDS)))
    rng = np.random.default_rng(0)
    texts = [" ".join(f"w{i}" for i in rng.integers(20, 50, 6)) for _ in range(60)]
    texts[48:52] = ["w20 w91 w22", "w98", "w21 x", "w22 w97"]
    parts = Parts(np.arange(20), np.arange(20, 24), np.arange(24, 40), np.arange(40, 60))
    corpus = SimpleNamespace(texts=texts, labels=np.arange(60) % 3, classes=["a", "b", "c"], pairs=False)
    settings = SimpleNamespace(vocabulary=60, int8_disagreement=100.0, maxlen=16, precision="float32")
    run = Run(settings, 0, corpus, tiny.tokenized(texts, bert), parts, tmp_path_factory.mktemp("run"), bert)
    return run, text_model(classifier_of(bert))


def classifier_of(bert, seed=0):
    classifier = build_classifier(berts.keep_layers(bert, [0]), 3, dropout=0.0)
    rng = np.random.default_rng(seed)
    classifier.head.set_weights([rng.normal(0, 1, shape).astype(np.float32) for shape in ((32, 3), (3,))])
    return classifier


def test_files_of_fewer_tokens_answer_as_the_trained_model(spelled, tmp_path):
    """write_files itself holds them against it, token for token; texts of w9x are read in pieces."""
    run, model = spelled
    trimmed = deploy(run, model)
    assert trimmed.bert.config["vocab_size"] == 60 and model.bert.config["vocab_size"] == 120
    for word in ("w20", "w49", "##7", "x", "[CLS]"):
        assert trimmed.bert.tokenizer.token_to_id(word) is not None, word
    assert trimmed.bert.tokenizer.token_to_id("w98") is None
    write_files(tmp_path, run, trimmed)
    again = berts.load(str(tmp_path), classifier=True)
    assert again.config["vocab_size"] == 60 and again.tokenizer.encode("w98").tokens == ["[CLS]", "w", "##9", "##8", "[SEP]"]


def test_weights_in_a_savedmodel_are_variables(spelled, tmp_path):
    """Of a constant TensorFlow holds seven copies."""
    run, model = spelled
    deployed = deploy(run, model)
    write_files(tmp_path, run, deployed)
    graph = tf.saved_model.load(str(tmp_path / "saved_model")).signatures["serving_default"].graph.as_graph_def()
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    constants = [tf.make_ndarray(node.attr["value"].tensor) for node in nodes if node.op == "Const"]
    assert constants and max(constant.size for constant in constants) < 10
    saved = {name for name, _ in tf.train.list_variables(str(tmp_path / "saved_model" / "variables" / "variables"))}
    assert len([name for name in saved if name.startswith("weights/")]) == len(deployed.bert.weights)


def test_files_are_held_against_it_where_every_text_is_read_in_pieces(spelled, tmp_path):
    run, model = spelled
    texts = [*run.corpus.texts[:40], *(f"w9{i % 9} w9{i % 7} w20" for i in range(20))]
    run = replace(run, corpus=SimpleNamespace(**vars(run.corpus) | {"texts": texts}))
    trimmed = deploy(run, model)
    assert deploying.vocabulary.changed(model.bert, trimmed.bert, texts[40:], 16).all()
    write_files(tmp_path, run, trimmed)


def test_another_model_in_the_files_is_noticed(spelled, tmp_path):
    """The trained model has another head than the files; the ONNX graph is of another model than the SavedModel."""
    run, model = spelled
    right = deploy(run, model)
    other = text_model(classifier_of(run.bert, seed=1))
    with pytest.raises(RuntimeError, match="saved_model differs"):
        trained = replace(model, graph=lambda bert: (other if bert is model.bert else model).graph(
            other.bert if bert is model.bert else bert))
        write_files(tmp_path, run, Deployed(trained, right.bert, right.graphs, 8, ""))
    with pytest.raises(RuntimeError, match="model.onnx, probabilities differs"):
        graphs = {FLOAT32: other.onnx_graph(other.bert).SerializeToString()}
        write_files(tmp_path, run, Deployed(model, model.bert, graphs, 8, ""))


def test_the_vocabulary_never_rests_on_validation_or_test_texts(spelled, monkeypatch):
    """But for how many tokens there are, where the settings do not say it."""
    seen = []
    monkeypatch.setattr(deploying.vocabulary, "trim", lambda bert, *words: seen.append(words) or bert)
    run, model = spelled
    deploy(run, model)
    assert seen == [(run.corpus.texts[:24], 60, run.corpus.texts[24:40])]


def test_where_validation_is_the_test_part_it_has_no_say_in_how_many_tokens(spelled, monkeypatch):
    seen = []
    monkeypatch.setattr(deploying.vocabulary, "trim", lambda bert, *words: seen.append(words[-1]) or bert)
    run, model = spelled
    deploy(replace(run, parts=replace(run.parts, validation=run.parts.test)), model)
    assert seen == [[]]


def test_int8_is_judged_by_the_validation_part_alone(spelled, monkeypatch):
    run, model = spelled
    asked = []

    def choose(graph, decide, labels, disagreement, texts):
        asked.append((decide(graph), labels, disagreement, texts))
        return None, 7, "words"

    monkeypatch.setattr(deploying, "choose_int8", choose)
    found = deploy(run, model)
    assert [*found.graphs] == ["model.onnx"] and (found.bits, found.words) == (7, "words")
    decided, labels, disagreement, texts = asked[0]
    np.testing.assert_array_equal(labels, run.corpus.labels[24:40])
    assert len(decided) == 16 and (disagreement, texts) == (100.0, "validation texts")


def test_what_it_costs_is_measured_over_all_seeds(spelled, monkeypatch):
    """Made-up answers: float32 loses one of 20 in seed 1, int8 one more in either."""
    run, model = spelled
    runs = [replace(run, seed=seed) for seed in (1, 0)]
    labels = run.corpus.labels[run.parts.test]
    for each in runs:
        write_array(each.stage("alone") / "test_logits.npy", np.eye(3)[labels])
    wrong = iter([1, 2, 0, 1])
    made = Deployed(model, model.bert, {"model.onnx": "32", "model.int8.onnx": "8"}, 7, "")
    asked = []
    monkeypatch.setattr(deploying, "deploy", lambda run, model, like: asked.append((run.seed, model, like)) or made)
    monkeypatch.setattr(deploying, "decisions", lambda *_: (labels + (np.arange(20) < next(wrong))) % 3)
    record = {"name": "alone"}
    found = deployment_figures(
        [(each, record) for each in runs], made, lambda run, record: (run.seed, record["name"]))
    assert asked == [(0, (0, "alone"), made)]
    assert found["tokens"] == found["all_tokens"] == 120 and found["tokenized_otherwise"] == found["lost_tokens"] == 0
    assert found["accuracy"] == {"model.onnx": 0.95, "model.int8.onnx": 0.9}
    float32, int8 = (np.array([np.arange(20) >= n for n in counts]) for counts in ((1, 0), (2, 1)))
    expected = {"model.onnx": compare(float32, np.ones((2, 20), bool)), "model.int8.onnx": compare(int8, float32)}
    assert found["differences"] == expected


def test_what_is_said_of_it():
    cost = {"difference": -0.0012, "ci95": [-0.004, 0.0016], "p_value": 0.4}
    measured = {"tokens": 8000, "all_tokens": 30522, "tokenized_otherwise": 0.674, "lost_tokens": 0.0372,
                "differences": {"model.onnx": cost, "model.int8.onnx": cost}}
    made = Deployed(None, None, {}, 8, "answers as float32 on 99.75 % of the validation texts, +0.00 points there")
    assert remark_on(measured, made, 8_912_000) == (
        "Vocabulary: 8,000 of 30,522 tokens. Of the test texts' tokens 3.7% are read in pieces, in 67% of the texts one or "
        "more: -0.12 points (-0.40 to +0.16). int8 (8 bits): 8.91 MB, answers as float32 on 99.75 % of the validation texts, "
        "+0.00 points there; on the test part -0.12 points (-0.40 to +0.16).")
    said = remark_on(measured | {"tokens": 30522}, made, None)
    assert said == "int8 (8 bits): not written, answers as float32 on 99.75 % of the validation texts, +0.00 points there."
    promise = {"max_disagreement": 1.0, "confidence": 95.0, "texts": 1000, "disagreements": 3}
    for disagreements, more in (({"model.onnx": 17, "model.int8.onnx": 21}, True), ({"model.onnx": 17}, False)):
        said = remark_on(measured | {"promise": promise, "disagreements": disagreements}, made, None)
        assert said.split("there. ")[1] == (
            "A promise of model.onnx: with 95 % confidence at most 1 % of texts like the 1,000 it was calibrated on are "
            "answered otherwise than by all layers with all tokens (3 of those were)"
            ". Of these texts the files answer otherwise: model.onnx 17" + ", model.int8.onnx 21" * more + ".")


def test_the_files_are_held_against_what_all_layers_answer(spelled):
    """On the calibration texts, as their own tokenizer reads them; without a promise nothing is asked."""
    run, model = spelled
    run = replace(run, parts=replace(run.parts, calibration=np.arange(40, 60)))
    deployed = deploy(run, model)
    assert deploying.other_answers(run, deployed) == {}
    float32 = decisions(deployed.graphs[FLOAT32], deploying.examples_of(run, deployed.bert, np.arange(40, 60)), 0)
    for wrong in (0, 3):
        expected = (float32 + (np.arange(20) < wrong)) % 3
        promising = replace(deployed, model=replace(model, expected=expected))
        found = deploying.other_answers(run, promising)
        assert found[FLOAT32] == wrong and found.keys() == deployed.graphs.keys()
