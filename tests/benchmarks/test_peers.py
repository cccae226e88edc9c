"""tests.benchmarks.peers: what other libraries are given, and the table of what came out. None of them is needed."""

import json
import sys

import numpy as np
import pytest

from common import InputError
from common.batches import TokenizedTexts
from data import berts, texts
from data.parts import split
from tests import tiny
from tests.benchmarks import peer_loops, peers

SETTINGS = {
    "train_examples": 40, "unlabelled_examples": None, "validation_examples": 16, "test_examples": 24, "maxlen": 12,
    "student_layers": 2, "temperature": 6.0, "hard_weight": 1.0, "soft_weight": 0.5, "batch_size": 8, "student_epochs": 3,
    "student_learning_rate": 1e-3, "student_dropout": 0.0,
}


def test_all_are_given_the_texts_of_the_run_and_its_settings(tmp_path, data_folder, monkeypatch):
    bert = berts.load(str(tiny.write_bert(tmp_path / "bert")))
    monkeypatch.setattr(peers.teachers, "load", lambda path, corpus, maxlen: bert)
    settings, answers = SETTINGS | {"data": str(data_folder)}, np.arange(24) % 4
    labels = peers.write_task(tmp_path, tmp_path / "teacher", settings, 1, answers)
    task, ids, stored = peer_loops.task_of(tmp_path)
    corpus = texts.load(str(data_folder))
    parts = split(corpus, 1, 40, None, 16, 24)
    np.testing.assert_array_equal(labels, corpus.labels[parts.test])
    for part, indices in (("train", parts.train), ("test", parts.test)):
        np.testing.assert_array_equal(stored[part], corpus.labels[indices])
        examples = TokenizedTexts.of([corpus.texts[index] for index in indices], bert, 12)
        assert [its.tolist() for its in ids[part]] == [examples.example(i).tolist() for i in range(len(indices))]
    assert task == {
        "teacher": str(tmp_path / "teacher"), "teacher_answers": answers.tolist(), "classes": 4, "maxlen": 12, "layers": 2,
        "epochs": 3, "batch_size": 8, "learning_rate": 1e-3, "dropout": 0.0, "temperature": 6.0, "hard_weight": 1.0,
        "soft_weight": 0.5,
    }
    peer_loops.check_teacher(task, answers)
    with pytest.raises(SystemExit, match="answers otherwise"):
        peer_loops.check_teacher(task, answers[::-1])


def test_texts_are_padded_to_one_length_for_keras():
    found = peer_loops._fixed([np.array([5, 6, 7]), np.array([8])], 4)
    assert found["token_ids"].tolist() == [[5, 6, 7, 0], [8, 0, 0, 0]] and not found["segment_ids"].any()
    assert found["padding_mask"].tolist() == [[True, True, True, False], [True, False, False, False]]


def test_the_table_holds_each_against_this_repository():
    def row(right, seconds, peak):
        return {"correct": np.arange(10) < right, "seconds": seconds, "texts": 100, "peak_mb": peak}

    header, here, other = peers.table({peers.HERE: [row(8, 2.0, 900.0), row(9, 4.0, 1100.0)], "keras": [row(7, 10.0, 1.0)] * 2})
    assert header[:3] == ["way", "accuracy %", "here less it"]
    assert here == [peers.HERE, "85.00 ± 7.07", "", "", "", "38", "1,100"]  # 50 and 25 texts a second
    assert other[:3] == ["keras", "70.00 ± 0.00", "+15.00"] and other[-2:] == ["10", "1"]
    low, high = map(float, other[3].split(" to "))
    assert low < 15 < high


def test_a_process_is_measured_and_one_that_fails_says_why():
    holds = "import time; held = bytearray(200_000_000); time.sleep(0.5); print('done')"
    printed, peak = peers.started([sys.executable, "-c", holds])
    assert printed == "done\n" and 200 < peak < 400
    with pytest.raises(InputError, match=r"-c .*: ValueError: why"):
        peers.started([sys.executable, "-c", "raise ValueError('why')"])


def test_what_is_missing_is_said(tmp_path, capsys):
    with pytest.raises(InputError, match="--python .*: it needs accelerate, keras, keras_hub, .*torch, transformers"):
        peers.versions(sys.executable)
    with pytest.raises(InputError, match="--python nothing: it needs"):
        peers.versions("nothing")
    with pytest.raises(InputError, match="no finished run"):
        peers.main([str(tmp_path), "--python", sys.executable])
    assert json.loads(json.dumps(peers.PACKAGES)).keys() == peer_loops.WAYS.keys()
