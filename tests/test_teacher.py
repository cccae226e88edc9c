"""A teacher that was fine-tuned elsewhere, through the three scripts that take one."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import softmax

import knowledge_distillation_bert
import knowledge_distillation_bert_of_theseus
import knowledge_distillation_fastbert
from common.command import as_dict
from common.training import Run
from data import berts, teachers, texts
from data.parts import split
from tests import tiny
from tests.alone import check_student
from tests.numpy_bert import numpy_bert
from tests.starting import refused, start

LABELS = {str(i): f"class {3 - i}" for i in range(4)}  # not in the order of the data
CONFIG = tiny.CONFIG | {"num_hidden_layers": 2}
SANE = ["--maxlen", 16, "--train-examples", 64, "--validation-examples", 20, "--no-linear", "--student-layers", 1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.write_classifier(tmp_path_factory.mktemp("teacher") / "given", labels=LABELS, **CONFIG)


def run(script, tmp_path, folder, *flags):
    """The records of a finished run by model name."""
    given, data = folder if isinstance(folder, list) else [folder], tiny.write_data(tmp_path / "data")
    words = ["--teacher", *given, "--data", data, *SANE, *flags, "--output", tmp_path / "run"]
    done = start(script, *words, traced=False)
    assert done.returncode == 0, done.stderr
    assert "given: 2 layers, fine-tuned\n" in done.stdout and "given teacher: if it was fine-tuned on" in done.stdout
    return {record["name"]: record for record in json.loads((tmp_path / "run" / "results.json").read_text("utf-8"))["models"]}


def check_given(run, record, folder):
    """The record and the logits of a teacher of the run's folder are those of what stands in `folder`; nothing was trained."""
    assert (record["train_seconds"], record["epochs"], record["given"]) == (0, 0, True)
    head = tiny.classifier_weights()
    examples = tiny.tokenized([text for text, _ in tiny.texts(80, seed=2)], berts.load(str(folder)))
    hidden = numpy_bert(tiny.weights(CONFIG), CONFIG, examples.inputs(np.arange(80))[0])[-1][:, 0]
    pooled = np.tanh(hidden @ head["bert/pooler/dense/kernel"] + head["bert/pooler/dense/bias"])
    expected = softmax(pooled @ head["output_weights"].T + head["output_bias"], axis=-1)[:, ::-1]
    logits = np.load(run / "seed-0" / record["name"] / "test_logits.npy")
    np.testing.assert_allclose(softmax(logits, axis=-1), expected, atol=1e-5)
    assert record["accuracy"] == np.mean(expected.argmax(-1) == np.arange(80) % 4)


def check_written_teacher(run, folder):
    """teacher/ of a run is the classifier that was given, as the scripts and transformers take it."""
    written, given = (berts.load(str(path), classifier=True) for path in (run / "teacher", folder))
    for name, value in given.weights.items():
        order = slice(None, None, -1) if name in berts.OUTPUT else slice(None)  # the order of the data's classes
        np.testing.assert_array_equal(written.weights[name], value[order], err_msg=name)
    assert written.config["id2label"] == {str(i): f"class {i}" for i in range(4)}


@pytest.mark.slow
def test_soft_labels_are_its_own_and_of_several_their_mean(tmp_path, folder):
    """Their probabilities are averaged once softened, not their logits; each reads the texts with its own tokenizer."""
    config, words = CONFIG | {"id2label": LABELS}, [*reversed(tiny.WORDS)]
    other = tiny.write_bert(tmp_path / "other", config=config, words=words, head=tiny.classifier_weights())
    flags = ["--experiments", "teacher", "distilled", "--student-epochs", 1, "--temperature", 3]
    records = run(knowledge_distillation_bert, tmp_path, [folder, other], *flags)
    assert [*records] == ["teacher", "distilled", "distilled-ensemble"]
    check_given(tmp_path / "run", records["teacher"], folder)
    check_written_teacher(tmp_path / "run", folder)
    assert records["distilled"]["soft_label_accuracy"] < 0.6  # it was drawn at random
    check_student(tmp_path / "run", layers=1)
    student = berts.load(str(tmp_path / "run" / "student"), classifier=True)
    moved = np.abs(student.weights[berts.POOLER[0]] - tiny.classifier_weights()[berts.POOLER[0]])
    assert 0 < moved.max() < 0.01  # its pooler, trained on for a few steps: no detour

    corpus = texts.load(str(tmp_path / "data"))
    given = [teachers.load(str(path), corpus) for path in (folder, other)]
    settings = replace(knowledge_distillation_bert.Settings(), maxlen=16, temperature=3.0)
    examples = tiny.tokenized(corpus.texts, given[0])
    one = Run(settings, 0, corpus, examples, split(corpus, 0, 64), tmp_path / "run", given[0], (given[1],))
    indices = one.parts.train[:8]
    found = knowledge_distillation_bert.soft_labels_of(one, "ensemble", indices)
    logits = []
    for bert in given:
        ids = tiny.tokenized([corpus.texts[index] for index in indices], bert).inputs(np.arange(8))[0]
        hidden = numpy_bert(bert.weights, bert.config, ids)[-1][:, 0]
        pooled = np.tanh(hidden @ bert.weights[berts.POOLER[0]] + bert.weights[berts.POOLER[1]])
        logits.append(pooled @ bert.weights["output_weights"].T + bert.weights["output_bias"])
    assert np.abs(logits[0] - logits[1]).max() > 0.1
    np.testing.assert_allclose(found, np.mean([softmax(z / 3, axis=-1) for z in logits], axis=0), atol=1e-5)


@pytest.mark.slow
def test_the_last_exit_is_its_head(tmp_path, folder):
    flags = ["--branch-epochs", 1, "--student-epochs", 1, "--speeds", 0, 1, "--timed-examples", 4]
    records = run(knowledge_distillation_fastbert, tmp_path, folder, *flags)
    check_given(tmp_path / "run", records["teacher"], folder)
    exits, teacher = (np.load(tmp_path / "run" / "seed-0" / name / "test_logits.npy")
                      for name in ("fastbert-branches", "teacher"))
    np.testing.assert_allclose(exits[:, -1], teacher, atol=1e-4)
    check_written_teacher(tmp_path / "run", folder)
    layer = 4 * 16 * 32 * 32 + 2 * 16 * 16 * 32 + 2 * 16 * 32 * 64
    of_cls = 4 * 32 * 32 + 2 * 4 * 16 * 32 + 2 * 32 * 64  # of the last of two layers
    assert records["teacher"]["flops"] == 2 * (layer + of_cls + 32 * 32 + 32 * 4)


@pytest.mark.slow
def test_soft_labels_of_a_file_need_no_teacher(tmp_path, bert_folder):
    """Without a weight on the labels the student learns what stands in the file, and nothing else of a teacher is there."""
    data = tiny.write_data(tmp_path / "data")
    rows = [{"text": text, "probabilities": {f"class {i}": float(i == j % 4) for i in range(4)}}
            for j, (text, _) in enumerate(tiny.texts(160, seed=1))]
    (tmp_path / "answers.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    words = ["--bert", bert_folder, "--data", data, *SANE, "--soft-labels", tmp_path / "answers.jsonl", "--hard-weight", 0,
             "--unlabelled-examples", 64, "--unlabelled-steps", 80, "--patience", 0, "--student-learning-rate", "3e-3",
             "--student-epochs", 1, "--experiments", "alone", "distilled-unlabelled", "linear-distilled",
             "--output", tmp_path / "run"]
    done = start(knowledge_distillation_bert, *words)
    assert done.returncode == 0, done.stderr
    assert f"soft labels from {tmp_path / 'answers.jsonl'}: no teacher is trained or timed" in done.stdout
    results = json.loads((tmp_path / "run" / "results.json").read_text("utf-8"))
    records = {record["name"]: record for record in results["models"]}
    assert [*records] == ["alone", "distilled-unlabelled", "linear-distilled"]
    assert records["linear-distilled"]["soft_label_accuracy"] == 1 and records["linear-distilled"]["accuracy"] > 0.5
    assert records["distilled-unlabelled"]["soft_label_accuracy"] == 1 and records["distilled-unlabelled"]["accuracy"] > 0.5
    assert "teacher  " not in done.stdout and not (tmp_path / "run" / "seed-0" / "teacher").exists()


@pytest.mark.slow
def test_the_teachers_of_all_seeds_are_an_ensemble(tmp_path, monkeypatch):
    """Every seed's teacher answers the texts of every seed, computed once and kept beside it."""
    records = []
    monkeypatch.setattr(knowledge_distillation_bert, "report_texts", lambda *words, **more: records.extend(words[4]))
    bert = tiny.write_bert(tmp_path / "bert", config=tiny.CONFIG | {"num_hidden_layers": 1})
    words = ["--bert", bert, "--data", tiny.write_data(tmp_path / "data"), *SANE, "--seeds", 0, 1, "--ensemble",
             "--experiments", "teacher", "--teacher-epochs", 1, "--student-epochs", 1, "--output", tmp_path / "run"]
    done = start(knowledge_distillation_bert, *words, traced=False)
    assert done.returncode == 0, done.stderr
    assert "teachers of all seeds: together they have learned the labels of all seeds" in done.stdout
    assert [(record["name"], record["seed"]) for record in records] == [
        (name, seed) for seed in (0, 1) for name in ("teacher", "distilled-ensemble")]
    corpus = texts.load(str(tmp_path / "data"))
    learned = {corpus.texts[index] for seed in (0, 1) for index in split(corpus, seed, 64, 0, 20).train}
    for seed in (0, 1):
        with np.load(tmp_path / "run" / f"seed-{seed}" / "teacher" / "soft_labels.npz") as file:
            assert len(file["keys"]) == len(learned)


def test_soft_labels_that_have_no_logits_are_refused_before_training(tmp_path, bert_folder, data_folder):
    path, corpus = tmp_path / "answers.jsonl", texts.load(str(data_folder))
    lines = [json.dumps({"text": text, "probabilities": [0, 0, 0, 1]}) for text in corpus.texts]
    path.write_text("\n".join(lines), encoding="utf-8")
    sane = ["--bert", bert_folder, "--data", data_folder, *SANE, "--soft-labels", path, "--no-linear"]
    words = ["--experiments", "bilstm-distilled", "alone"]
    done = start(knowledge_distillation_bert, *sane, *words, "--output", tmp_path / "run")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert f"{path}: a probability is 0, or nearly, for " in done.stderr and "--bilstm-loss kl" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--soft-labels", "a", "--teacher", "b"], "--soft-labels and --teacher: give one of the two"),
        (["--soft-labels", "a", "--ensemble"], "--soft-labels and --ensemble: give one of the two"),
        (["--teacher", "a", "--ensemble"], "--teacher and --ensemble: with a given teacher all seeds have the same"),
        (["--ensemble"], "--ensemble needs several --seeds, whose teachers it is made of"),
        (["--experiments", "distilled-ensemble"], "--experiments distilled-ensemble needs several --teacher"),
        (["--soft-labels", "a", "--student-init", "teacher-first"], "--student-init teacher-first: with --soft-labels there"),
        (["--soft-labels", "nowhere.jsonl"], "nowhere.jsonl: No such file"),
        (["--soft-labels", "a", "--experiments", "teacher-self-distilled"], "--experiments teacher-self-distilled: with"),
        (["--soft-labels", "a", "--experiments", "teacher"], "--experiments teacher: with --soft-labels there is no"),
        (["--teacher", ""], "--teacher and --soft-labels: a name is empty"),
    ],
)
def test_teachers_that_cannot_be_together(tmp_path, bert_folder, data_folder, words, message):
    sane = ["--bert", bert_folder, "--data", data_folder, *SANE]
    assert message in refused(knowledge_distillation_bert, tmp_path / "run", sane, words)


@pytest.mark.parametrize(
    ("script", "words", "message"),
    [
        (knowledge_distillation_bert, ["--teacher", "nowhere"], "--teacher nowhere: there is no such folder or file"),
        (knowledge_distillation_bert, ["--maxlen", "41"], "--maxlen 41: .* has 40 positions"),
        (knowledge_distillation_bert_of_theseus, ["--student-layers", "3"], "--student-layers 3: .* has 2 layers"),
        (knowledge_distillation_bert, ["--teacher", "FOLDER", "nowhere"], "--teacher nowhere: there is no such folder or file"),
        (knowledge_distillation_bert_of_theseus, ["--successor-init", "pretrained"], "--successor-init pretrained: a --teac"),
        (knowledge_distillation_fastbert, ["--experiments", "fastbert-joint"], "--experiments fastbert-joint: it trains all"),
        (knowledge_distillation_fastbert, ["--teacher-layers", "2"], "--teacher-layers 2: a teacher that is given keeps its"),
    ],
)
def test_what_does_not_fit_a_given_teacher(tmp_path, data_folder, folder, script, words, message):
    sane = ["--teacher", folder, "--data", data_folder, *SANE]
    words = [folder if word == "FOLDER" else word for word in words]
    assert re.search(message, refused(script, tmp_path / "run", sane, words))


def test_a_run_with_an_ensemble_of_other_seeds_is_another_run(tmp_path, bert_folder, data_folder):
    """Its seeds cannot be added to: the row would be the mean over ensembles of different size."""
    sane = ["--bert", bert_folder, "--data", data_folder, *SANE, "--ensemble"]
    (tmp_path / "run").mkdir()
    settings = replace(knowledge_distillation_bert.Settings(), seeds=(0, 1), ensemble=True)
    (tmp_path / "run" / "settings.json").write_text(json.dumps({"settings": as_dict(settings), "inputs": {}}))
    done = start(knowledge_distillation_bert, *sane, "--output", tmp_path / "run", "--seeds", 0, 1, 2)
    assert done.returncode == 2 and "holds a run with another" in done.stderr
    changed = json.loads((tmp_path / "run" / "settings.json").read_text("utf-8"))["settings"]["seeds"]
    assert changed == [0, 1]
