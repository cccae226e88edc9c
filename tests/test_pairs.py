"""Pairs of texts, from a file of them to a student that is asked; and where they are refused before anything is trained."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import softmax
from tokenizers import processors

import knowledge_distillation_bert
import knowledge_distillation_fastbert
from common.training import Run
from data import berts, texts
from data.parts import split
from export import predict
from tests import tiny
from tests.alone import ask_card
from tests.numpy_bert import numpy_bert
from tests.starting import refused, start

CONFIG = tiny.CONFIG | {"num_hidden_layers": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """bert/ and data.jsonl, 200 pairs."""
    folder = tmp_path_factory.mktemp("pairs")
    tiny.write_bert(folder / "bert", config=CONFIG)
    tiny.write_jsonl(folder / "data.jsonl", tiny.pairs(200))
    return folder


@pytest.mark.slow
def test_smoke_from_a_file_of_pairs_to_an_answer(folder, tmp_path, capsys):
    done = start(
        knowledge_distillation_bert, "--data", folder / "data.jsonl", "--bert", folder / "bert", "--output", tmp_path / "run",
        "--maxlen", 20, "--train-examples", 64, "--validation-examples", 24, "--experiments", "distilled",
        "--student-layers", 1, "--teacher-epochs", 1, "--student-epochs", 1, "--no-linear", "--int8-disagreement",
        20, traced=False,
    )
    assert done.returncode == 0, done.stderr
    assert "2 classes, 64 training, 24 validation, 40 test pairs of up to 20 tokens" in done.stdout
    student, corpus = tmp_path / "run" / "student", texts.load(str(folder / "data.jsonl"))
    assert json.loads((student / "config.json").read_text(encoding="utf-8"))["pairs"] is True
    card = (student / "README.md").read_text(encoding="utf-8")
    assert '({"text": "a text", "text_pair": "another"})' in card and "64 labelled pairs of texts" in card

    report = (tmp_path / "run" / "report.md").read_text(encoding="utf-8").splitlines()
    said = next(line for line in report if line.startswith("int8 ("))
    assert said in " ".join(done.stdout.split()) and "% of the validation pairs" in said
    name = "model.int8.onnx" if (student / "model.int8.onnx").is_file() else "model.onnx"
    assert f'"{name}"' in card and (" MB, " in said) == (name == "model.int8.onnx")

    tested = [corpus.texts[index] for index in corpus.test]
    (tmp_path / "pairs.txt").write_text("\n".join(map("\t".join, tested)), encoding="utf-8")
    capsys.readouterr()
    predict.predict(str(tmp_path / "run"), file=str(tmp_path / "pairs.txt"), top=2, json=True)
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(answer["text"], answer["text_pair"]) for answer in answers] == tested
    by_class = [{each["label"]: each["probability"] for each in answer["labels"]} for answer in answers]
    found = np.array([[answer[name] for name in corpus.classes] for answer in by_class])

    logits = np.load(tmp_path / "run" / "seed-0" / "distilled" / "test_logits.npy")
    np.testing.assert_allclose(found, softmax(logits, axis=-1), atol=1e-5)
    _, probabilities, _ = ask_card(student, tmp_path, tested)
    np.testing.assert_allclose(probabilities, found, atol=0.05 if "int8" in name else 1e-5)
    bert = berts.load(str(student), classifier=True)  # its formula, with tokens and segments of the library
    bert.tokenizer.enable_truncation(20)
    for pair, expected in zip(tested[:8], found, strict=False):
        encoding = bert.tokenizer.encode(*pair)
        ids, segments = np.array([encoding.ids]), np.array([encoding.type_ids])
        pooled = np.tanh(numpy_bert(bert.weights, bert.config, ids, segment_ids=segments)[-1][0, 0]
                         @ bert.weights[berts.POOLER[0]] + bert.weights[berts.POOLER[1]])
        logits = pooled @ bert.weights[berts.OUTPUT[0]].T + bert.weights[berts.OUTPUT[1]]
        np.testing.assert_allclose(softmax(logits), expected, atol=1e-5)


def test_augmented_pairs_are_read_as_pairs(folder, tmp_path):
    bert, corpus = berts.load(str(folder / "bert")), texts.load(str(folder / "data.jsonl"))
    settings = replace(knowledge_distillation_bert.PRESETS["demo"], maxlen=20, augmentations=3)
    parts = split(corpus, 0, train=30, validation=20)
    run = Run(settings, 0, corpus, tiny.tokenized(corpus.texts, bert, 20), parts, tmp_path, bert)
    run = knowledge_distillation_bert.augmented(run)
    made = [run.corpus.texts[index] for index in run.parts.augmented]
    assert len(made) > 60 and all(isinstance(pair, tuple) for pair in made) and any("[MASK]" in pair[1] for pair in made)
    token_ids, segment_ids = tiny.tokenized(made, bert, 20).inputs(np.arange(len(made)))
    for found, expected in zip(run.examples.inputs(run.parts.augmented), (token_ids, segment_ids), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("words", [["--shuffle-sentences"], ["--experiments", "fastbert-shuffled"], ["original"]])
def test_sentences_of_pairs_are_not_shuffled(folder, tmp_path, words):
    sane = ["--data", folder / "data.jsonl", "--bert", folder / "bert", "--maxlen", 16, "--teacher-layers", 0]
    message = refused(knowledge_distillation_fastbert, tmp_path / "run", sane, words)
    assert "has pairs of texts, whose sentences are not shuffled: --no-shuffle-sentences, and no fastbert-shuffled" in message


def test_a_bert_that_does_not_join_pairs(folder, tmp_path):
    sane = ["--data", folder / "data.jsonl", "--bert", folder / "bert"]
    assert "--maxlen 4: a pair of texts" in refused(knowledge_distillation_bert, tmp_path / "run", sane, ["--maxlen", "4"])
    bert = berts.load(str(folder / "bert"))
    bert.tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A", special_tokens=[("[CLS]", 2)])
    berts.save(tmp_path / "other", bert, ["a"])
    sane = ["--data", folder / "data.jsonl", "--maxlen", 16]
    words = ["--bert", str(tmp_path / "other")]
    assert "other: its tokenizer has no template for pairs" in refused(
        knowledge_distillation_bert, tmp_path / "run", sane, words)
