"""python -m common.predict of a classifier that others, or a run here, have fine-tuned."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.special import softmax

from common import InputError
from data import berts, soft_labels
from export import predict
from tests import tiny
from tests.numpy_bert import numpy_bert


@pytest.mark.parametrize("layout", ["hugging-face", "google"])
def test_predict_asks_a_teacher_and_writes_what_soft_labels_reads(tmp_path, capsys, layout):
    """Its probabilities are those of numpy, by label; what is written is read back as soft labels of these texts."""
    names = "0123" if layout == "google" else "dbac"
    labels = None if layout == "google" else {str(i): name for i, name in enumerate(names)}
    folder = tiny.write_classifier(tmp_path / "teacher", layout, labels)
    lines = [text for text, _ in tiny.texts(9)]
    predict.predict(str(folder), tuple(lines), json=True, all=True)
    printed = capsys.readouterr().out
    head, bert = tiny.classifier_weights(), berts.load(str(folder))
    for line, text in zip(printed.splitlines(), lines, strict=True):
        hidden = numpy_bert(tiny.weights(), tiny.CONFIG, np.array([bert.tokenizer.encode(text).ids]))[-1][:, 0]
        pooled = np.tanh(hidden @ head[berts.POOLER[0]] + head[berts.POOLER[1]])
        expected = softmax((pooled @ head["output_weights"].T + head["output_bias"])[0])
        answer = json.loads(line)
        assert answer["text"] == text and [answer["probabilities"][name] for name in names] == pytest.approx(expected, abs=1e-5)
    (tmp_path / "answers.jsonl").write_text(printed, encoding="utf-8")
    logits = soft_labels.load(tmp_path / "answers.jsonl", SimpleNamespace(texts=lines[::-1], classes=sorted(names)))
    p = json.loads(printed.splitlines()[0])["probabilities"]
    np.testing.assert_allclose(softmax(logits[-1]), [p[name] for name in sorted(names)], rtol=1e-5)


@pytest.mark.parametrize("graph", ["model.onnx", "saved_model"])
def test_a_classifier_that_has_a_graph_of_others_is_a_teacher(tmp_path, capsys, graph):
    """As Optimum or transformers leave one beside the weights: what is asked is made of the weights."""
    folder = tiny.write_classifier(tmp_path / "teacher")
    predict.predict(str(folder), ("a red fox",))
    alone = capsys.readouterr().out
    (folder / graph).mkdir() if graph == "saved_model" else (folder / graph).write_bytes(b"of others")
    predict.predict(str(folder), ("a red fox",))
    assert capsys.readouterr().out == alone != ""


def test_a_teacher_cuts_texts_where_it_is_told_to(tmp_path, capsys):
    folder = tiny.write_classifier(tmp_path / "teacher")
    predict.predict(str(folder), ("w1 w2 w3 w4 w5 w6", "w1 w2"), json=True, maxlen=4)
    one, two = (json.loads(line)["labels"] for line in capsys.readouterr().out.splitlines())
    assert one[0]["label"] == two[0]["label"] and one[0]["probability"] == pytest.approx(two[0]["probability"], abs=1e-5)
    with pytest.raises(InputError, match="--maxlen 41: .* has 40 positions"):
        predict.predict(str(folder), ("a",), maxlen=41)


def test_a_teacher_reads_as_many_tokens_as_it_has_positions(tmp_path, capsys):
    """And no more by padding, though 37 is no round number."""
    folder = tiny.write_classifier(tmp_path / "teacher", max_position_embeddings=37)
    predict.predict(str(folder), ("w1 " * 50, "w1 " * 35), json=True)
    one, two = (json.loads(line)["labels"] for line in capsys.readouterr().out.splitlines())
    assert one[0]["probability"] == pytest.approx(two[0]["probability"], abs=1e-6)


def test_a_teacher_of_pairs(tmp_path, capsys):
    """Its answers to two pairs that differ only in where the second text begins are numpy's, and differ."""
    folder, head = tiny.write_classifier(tmp_path / "teacher"), tiny.classifier_weights()
    predict.predict(str(folder), ("w1 w2\tw3", "w1\tw2 w3"), json=True, all=True, pairs=True, maxlen=12)
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(answer["text"], answer["text_pair"]) for answer in answers] == [("w1 w2", "w3"), ("w1", "w2 w3")]
    w1, w2, w3 = (5 + number for number in (1, 2, 3))
    for answer, ids, first in zip(answers, ([2, w1, w2, 3, w3, 3], [2, w1, 3, w2, w3, 3]), (4, 3), strict=True):
        segments = (np.arange(6) >= first).astype(int)[None]
        hidden = numpy_bert(tiny.weights(), tiny.CONFIG, np.array([ids]), segment_ids=segments)[-1][:, 0]
        pooled = np.tanh(hidden @ head[berts.POOLER[0]] + head[berts.POOLER[1]])
        expected = softmax((pooled @ head["output_weights"].T + head["output_bias"])[0])
        assert [answer["probabilities"][name] for name in "0123"] == pytest.approx(expected, abs=1e-5)


def test_a_teacher_made_here_has_the_labels_of_its_data(tmp_path, capsys):
    """Also where these are called as those of a teacher that has no names; of another they are numbers, as data has them."""
    names = {str(number): f"LABEL_{number}" for number in range(4)}
    for more, expected in (({"maxlen": 16}, {*names.values()}), ({}, {*names})):
        folder = tiny.write_classifier(tmp_path / str(len(more)), labels=names, **more)
        predict.predict(str(folder), ("w1",), json=True, all=True)
        assert json.loads(capsys.readouterr().out)["probabilities"].keys() == expected
