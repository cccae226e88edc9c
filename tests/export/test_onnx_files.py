"""export.onnx_files: model.onnx is the trained model; when model.int8.onnx is written; and the card tells how to ask them."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.special import softmax

import knowledge_distillation_from_scratch as scratch
from common import InputError
from common.backend import inference_graph, tf
from common.report.tables import student_table
from data import berts
from data.parts import Parts
from export import onnx_files
from export import student as export
from tests import tiny
from tests.alone import ask_card
from tests.numpy_bert import numpy_bert
from tests.taken import CLASSES, LINES

onnx, onnxruntime, onnx_graph = map(pytest.importorskip, ("onnx", "onnxruntime", "export.onnx_graph"))


@pytest.mark.slow
def test_onnx(taken, tmp_path):
    """onnxruntime takes texts of any number and length."""
    examples, model = tiny.tokenized(LINES, taken.bert), export.text_model(taken.classifier)
    token_ids, segment_ids = examples.inputs(np.arange(4))
    inputs = {"token_ids": token_ids, "segment_ids": segment_ids}
    onnx_files.write_onnx(tmp_path, onnx_files.onnx_of(model), model.graph, inputs)
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    couples = [(a, b) for a in LINES[:2] for b in LINES[2:5]]
    token_ids, segment_ids = tiny.tokenized(couples, taken.bert).inputs(np.arange(6))
    found = session.run(["probabilities"], {"token_ids": token_ids, "segment_ids": segment_ids})[0]
    np.testing.assert_allclose(found, taken.probabilities(couples), atol=1e-5)
    for indices in (np.arange(1), np.arange(len(LINES))):
        token_ids, segment_ids = examples.inputs(indices)
        found = session.run(["probabilities"], {"token_ids": token_ids, "segment_ids": segment_ids})[0]
        np.testing.assert_allclose(found, taken.probabilities([LINES[index] for index in indices]), atol=1e-5)


def test_a_model_of_images_is_converted(tmp_path):
    """By tf2onnx; it takes images of any number."""
    pytest.importorskip("tf2onnx")
    model = scratch.build_teacher((8, 8, 1), 3, dropout=0.5)
    pixels = np.random.default_rng(0).random((9, 8, 8, 1), np.float32)
    signature = (tf.TensorSpec((None, 8, 8, 1), tf.float32, name="images"),)
    graph = inference_graph(lambda images: {"probabilities": tf.nn.softmax(model(images, training=False))}, *signature)
    onnx_files.write_onnx(tmp_path, lambda: onnx_files.convert(graph, signature), graph, {"images": pixels[:4]})
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    found = session.run(["probabilities"], {"images": pixels})[0]
    np.testing.assert_allclose(found, softmax(model.predict_on_batch(pixels), axis=-1), atol=1e-5)


def test_a_rounding_may_send_a_text_on():
    """Of five texts: alike; left by a hair, here and there; left by more than that; left elsewhere at another uncertainty."""
    one = {"layers_used": np.array([1, 1, 3, 1, 2]), "uncertainty": np.array([0.2, 0.499999, 0.1, 0.4999, 0.3])}
    other = {"layers_used": np.array([1, 2, 2, 2, 1]), "uncertainty": np.array([0.2, 0.1, 0.499999, 0.1, 0.3])}
    assert onnx_files.on_the_edge(one, other, 0.5).tolist() == [False, True, True, False, False]
    assert onnx_files.on_the_edge(other, one, 0.5).tolist() == [False, True, True, False, False]


def test_what_cannot_be_made_ends_in_one_line(tmp_path):
    with pytest.raises(InputError, match="--export onnx: model.onnx cannot be made or not be asked") as error:
        onnx_files.write_onnx(tmp_path, lambda: 1 / 0, None, {})
    assert "\n" not in str(error.value)
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(InputError, match="--export onnx: model.int8.onnx cannot be made or not be asked"):
        onnx_files.write_int8(tmp_path, SimpleNamespace(parts=SimpleNamespace(validation=np.arange(2))), 0)


# int8: whether it may be written


def answers(count, others, right, gained=0):
    """(labels, classes by float32, by int8) of so many texts.

    others: on how many the two differ
    right: how many float32 gets right
    gained: how many more int8 gets right, of those on which they differ
    """
    labels, expected = np.zeros(count, int), np.repeat([0, 1], [right, count - right])
    found = expected.copy()
    found[right - max(-gained, 0) : right] = 2
    found[right : right + max(gained, 0)] = 0
    found[count - others + abs(gained) :] = 2
    assert (found != expected).sum() == others and (found == labels).sum() == right + gained
    return labels, expected, found


@pytest.mark.parametrize(
    ("made_up", "disagreement", "allowed", "words"),
    [
        (answers(400, 3, 300, 2), 5.0, True, "answers as float32 on 99.25 % of the validation texts, +0.50 points there"),
        (answers(400, 0, 300), 0.0, True, "answers as float32 on 100.00 % of the validation texts, +0.00 points there"),
        (answers(400, 20, 300, -2), 5.0, True, "answers as float32 on 95.00 % of the validation texts, -0.50 points there"),
        (answers(400, 28, 300), 7.0, True, "answers as float32 on 93.00 % of the validation texts, +0.00 points there"),
        (answers(400, 21, 300, 1), 5.0, False, "answers as float32 on 94.75 % of the validation texts (95 % needed, see "
                                               "--int8-disagreement), +0.25 points there"),
        (answers(400, 3, 300, -3), 5.0, False, "answers as float32 on 99.25 % of the validation texts, -0.75 points there "
                                               "(0.5 points may be lost)"),
        (answers(400, 40, 300, -3), 2.5, False, "answers as float32 on 90.00 % of the validation texts (97.5 % needed, see "
                                                "--int8-disagreement), -0.75 points there (0.5 points may be lost)"),
    ],
)
def test_how_well_int8_must_answer(made_up, disagreement, allowed, words):
    assert onnx_files.judge(*made_up, disagreement, "validation texts") == (allowed, words)


@pytest.mark.parametrize(("wrong", "bits"), [((0, 0), 8), ((0, 9), 8), ((5, 0), 8), ((6, 0), 7), ((30, 20), 8), ((40, 5), 7)])
def test_weights_have_7_bits_where_8_measurably_answer_worse(wrong, bits):
    """wrong: how many texts 8 and 7 bits class otherwise, none of them both; of 6 to 0 p is 2 / 2^6, of 5 to 0 twice that."""
    expected, found = np.arange(400) % 3, {8: np.arange(400) % 3, 7: np.arange(400) % 3}
    found[8][: wrong[0]] += 1
    found[7][400 - wrong[1] :] += 1
    assert onnx_files.bits_of_weights(expected, found) == bits


# int8: the file


@dataclass(frozen=True)
class Padded:
    """A folder with model.onnx of a classifier that pads with 4, which no text has; its run; the logits of all texts."""

    folder: Path
    run: SimpleNamespace
    logits: np.ndarray


@pytest.fixture(scope="module")
def padded(tmp_path_factory):
    folder, texts = tmp_path_factory.mktemp("student"), [text for text, _ in tiny.texts(100)]
    bert = berts.load(str(tiny.write_classifier(tmp_path_factory.mktemp("bert"))), classifier=True)
    logits = []
    for text in texts:
        cls = numpy_bert(bert.weights, bert.config, np.array([bert.tokenizer.encode(text).ids]))[-1][0, 0]
        pooled = np.tanh(cls @ bert.weights[berts.POOLER[0]] + bert.weights[berts.POOLER[1]])
        logits.append(pooled @ bert.weights[berts.OUTPUT[0]].T)
    bias = -np.mean(logits, axis=0)  # so that all classes occur
    bert = replace(bert, weights=bert.weights | {berts.OUTPUT[1]: bias.astype(np.float32)}, pad_id=4)
    onnx.save(onnx_graph.text_graph(bert), folder / "model.onnx")
    parts = Parts(np.arange(0), np.arange(0), np.arange(99, 29, -1), np.arange(30))
    corpus = SimpleNamespace(labels=np.arange(100) % 4, pairs=False)
    settings = SimpleNamespace(int8_disagreement=100.0)
    run = SimpleNamespace(bert=bert, parts=parts, corpus=corpus, examples=tiny.tokenized(texts, bert), settings=settings)
    return Padded(folder, run, logits + bias)


def test_decisions_are_those_of_numpy_text_by_text(padded):
    model, asked = onnx.load(padded.folder / "model.onnx"), padded.run.parts.validation
    found, unswapped = (onnx_files.decisions(model, padded.run.examples, asked, pad_id) for pad_id in (4, 0))
    np.testing.assert_array_equal(found, padded.logits[asked].argmax(-1))
    assert len(set(found)) == 4 and (unswapped != found).any()


def test_what_is_said_of_int8_is_what_the_files_answer(padded, monkeypatch):
    monkeypatch.setattr(onnx_files, "MAX_LOSS", 100)
    folder, run = padded.folder, padded.run
    asked, labels = run.parts.validation, run.corpus.labels[run.parts.validation]
    line = onnx_files.write_int8(folder, run, 4)
    size = (folder / "model.int8.onnx").stat().st_size
    assert size * 2 < (folder / "model.onnx").stat().st_size
    expected, found = (
        onnx_files.decisions(onnx.load(folder / name), run.examples, asked, 4)
        for name in ("model.onnx", "model.int8.onnx")
    )
    assert (expected == found).mean() > 0.5
    same, gained = 100 * (expected == found).mean(), 100 * ((found == labels).mean() - (expected == labels).mean())
    said = f"answers as float32 on {same:.2f} % of the validation texts, {gained:+.2f} points there"
    assert line in [f"int8 ({bits} bits): {size / 1e6:.3g} MB, {said}" for bits in (7, 8)]


@pytest.mark.parametrize(
    ("others", "part", "line"),
    [
        (0, "validation", "{} MB, answers as float32 on 100.00 % of the validation pairs, +0.00 points there"),
        (7, "test", "not written, answers as float32 on 90.00 % of the test pairs (95 % needed, see --int8-disagreement), "
                    "-10.00 points there (0.5 points may be lost)"),
    ],
)
def test_of_how_many_bits_and_whether_the_answers_say(padded, tmp_path, monkeypatch, others, part, line):
    """Made-up answers: float32 is always right, 8 bits in half of the texts, 7 bits but for `others`."""
    run = padded.run
    shutil.copy(padded.folder / "model.onnx", tmp_path)
    wrong = iter([0, 35, others])
    monkeypatch.setattr(onnx_files, "decisions", lambda *words: (np.arange(70) < next(wrong)).astype(int))
    parts = run.parts if part == "validation" else replace(run.parts, test=run.parts.validation)
    corpus, settings = SimpleNamespace(labels=np.zeros(100, int), pairs=True), SimpleNamespace(int8_disagreement=5.0)
    found = onnx_files.write_int8(tmp_path, SimpleNamespace(parts=parts, corpus=corpus, settings=settings, examples=None), 4)
    path = tmp_path / "model.int8.onnx"
    assert path.exists() == (part == "validation")
    assert found == "int8 (7 bits): " + line.format(f"{path.stat().st_size / 1e6:.3g}" if path.exists() else "")
    if path.exists():
        arrays = map(onnx.numpy_helper.to_array, onnx.load(path).graph.initializer)
        assert max(np.abs(array.astype(int)).max() for array in arrays if array.dtype == np.int8) == 64


# The card


@pytest.fixture(scope="module", params=[False, True], ids=["texts", "pairs"])
def carded(request, taken, tmp_path_factory):
    """(a student's folder with model.onnx, its run, what writes its card): of texts, of pairs."""
    folder = shutil.copytree(taken.folder, tmp_path_factory.mktemp("run") / "student")
    onnx.save(onnx_graph.text_graph(taken.classifier.bert), folder / "model.onnx")
    couples = [*zip(LINES, LINES[::-1], strict=True)]
    corpus = SimpleNamespace(name="a", classes=CLASSES, labels=np.zeros(len(LINES), int), pairs=request.param,
                             texts=couples if request.param else LINES)
    parts = Parts(np.arange(8), np.arange(0), np.arange(len(LINES)), np.arange(2))
    run = SimpleNamespace(bert=taken.bert, parts=parts, corpus=corpus, examples=tiny.tokenized(corpus.texts, taken.bert),
                          settings=SimpleNamespace(maxlen=16, int8_disagreement=100.0))
    best = {"name": "alone", "seed": 0, "layers": 2, "accuracy": 0.5, "parameters": 9, "latency_ms": {"1": 1.0, "32": 2.0}}
    table = student_table(None, best, (None, 9))

    def write_card():
        card = export.model_card("One.\n\nTwo.", run, best, table, folder)
        (folder / "README.md").write_text(card, encoding="utf-8")

    return folder, run, write_card


@pytest.mark.slow
def test_the_lines_of_the_card_answer_as_the_trained_model(taken, carded, tmp_path, monkeypatch):
    """As they stand, and with other texts; by float32 to 1e-5, by int8 nearly."""
    folder, run, write_card = carded
    for int8 in (False, True):
        if int8:
            monkeypatch.setattr(onnx_files, "judge", lambda *words: (True, ""))
            onnx_files.write_int8(folder, run, taken.bert.pad_id)
        write_card()
        for texts in (None, run.corpus.texts):
            asked, found, printed = ask_card(folder, tmp_path, texts)
            assert len(asked) == len(found) == len(printed) and isinstance(asked[0], tuple) == run.corpus.pairs
            expected = taken.probabilities(asked)
            error = np.abs(found - expected).max()
            assert 1e-5 < error < 0.05 if int8 else error < 1e-5
            for text, p, line in zip(asked, found, printed, strict=True):
                assert line == f"{p.max():.1%} {CLASSES[p.argmax()]}: {text}"


def test_a_card_says_only_what_is_there(carded, tmp_path):
    folder, run, _ = carded
    section = "".join(export.onnx_section(run, {"speed": 0.3}, folder))
    assert '"speed": np.array(0.3, np.float32)}' in section and ("type_ids" in section) == run.corpus.pairs
    assert "speed" not in "".join(export.onnx_section(run, {}, folder))
    assert export.onnx_section(run, {}, tmp_path) == []
