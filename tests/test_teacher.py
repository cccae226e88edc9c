"""A teacher that was fine-tuned elsewhere, through the three scripts that take one."""

import json
import re

import numpy as np
import pytest
from scipy.special import softmax

import knowledge_distillation_bert
import knowledge_distillation_bert_of_theseus
import knowledge_distillation_fastbert
from data import berts
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
    words = ["--teacher", folder, "--data", tiny.write_data(tmp_path / "data"), *SANE, *flags, "--output", tmp_path / "run"]
    done = start(script, *words)
    assert done.returncode == 0, done.stderr
    assert "given: 2 layers, fine-tuned\n" in done.stdout
    return {record["name"]: record for record in json.loads((tmp_path / "run" / "results.json").read_text())["models"]}


def check_given(tmp_path, record, folder):
    """The record and the logits of a teacher are those of what stands in the folder; nothing was trained."""
    assert (record["train_seconds"], record["epochs"], record["given"]) == (0, 0, True)
    head = tiny.classifier_weights()
    texts = [text for text, _ in tiny.texts(80, seed=2)]
    examples = tiny.tokenized(texts, berts.load(str(folder)))
    hidden = numpy_bert(tiny.weights(CONFIG), CONFIG, examples.inputs(np.arange(80))[0])[-1][:, 0]
    pooled = np.tanh(hidden @ head["bert/pooler/dense/kernel"] + head["bert/pooler/dense/bias"])
    expected = softmax(pooled @ head["output_weights"].T + head["output_bias"], axis=-1)[:, ::-1]
    logits = np.load(tmp_path / "run" / "seed-0" / record["name"] / "test_logits.npy")
    np.testing.assert_allclose(softmax(logits, axis=-1), expected, atol=1e-5)
    assert record["accuracy"] == np.mean(expected.argmax(-1) == np.arange(80) % 4)


@pytest.mark.slow
def test_soft_labels_are_its_own(tmp_path, folder):
    flags = ["--experiments", "teacher", "distilled", "--student-epochs", 1, "--temperature", 1]
    records = run(knowledge_distillation_bert, tmp_path, folder, *flags)
    check_given(tmp_path, records["teacher"], folder)
    assert records["distilled"]["soft_label_accuracy"] < 0.6  # it was drawn at random
    check_student(tmp_path / "run", tmp_path, layers=1)
    student = berts.load(str(tmp_path / "run" / "student"), classifier=True)
    moved = np.abs(student.weights[berts.POOLER[0]] - tiny.classifier_weights()[berts.POOLER[0]])
    assert 0 < moved.max() < 0.01  # its pooler, trained on for a few steps: no detour


@pytest.mark.slow
def test_the_predecessor_is_it_and_the_successor_has_its_classifier(tmp_path, folder):
    flags = ["--experiments", "theseus", "--middle-layers", 1, "--mixed-epochs", 1, "--successor-epochs", 0]
    records = run(knowledge_distillation_bert_of_theseus, tmp_path, folder, *flags)
    check_given(tmp_path, records["predecessor"], folder)
    check_student(tmp_path / "run", tmp_path, layers=1)
    student = berts.load(str(tmp_path / "run" / "student"), classifier=True)
    wanted = tiny.classifier_weights() | {name: tiny.classifier_weights()[name][::-1] for name in berts.OUTPUT}
    for name, value in wanted.items():  # frozen in the mixed stage
        np.testing.assert_array_equal(student.weights[name], value, err_msg=name)


@pytest.mark.slow
def test_the_last_exit_is_its_head(tmp_path, folder):
    flags = ["--branch-epochs", 1, "--student-epochs", 1, "--speeds", 0, 1, "--timed-examples", 4]
    records = run(knowledge_distillation_fastbert, tmp_path, folder, *flags)
    check_given(tmp_path, records["teacher"], folder)
    exits, teacher = (np.load(tmp_path / "run" / "seed-0" / name / "test_logits.npy")
                      for name in ("fastbert-branches", "teacher"))
    np.testing.assert_allclose(exits[:, -1], teacher, atol=1e-4)
    layer = 4 * 16 * 32 * 32 + 2 * 16 * 16 * 32 + 2 * 16 * 32 * 64
    assert records["teacher"]["flops"] == 2 * (2 * layer + 32 * 32 + 32 * 4)


@pytest.mark.parametrize(
    ("script", "words", "message"),
    [
        (knowledge_distillation_bert, ["--teacher", "nowhere"], "--teacher nowhere: there is no such folder or file"),
        (knowledge_distillation_bert, ["--maxlen", "41"], "--maxlen 41: .* has 40 positions"),
        (knowledge_distillation_bert_of_theseus, ["--student-layers", "3"], "--student-layers 3: .* has 2 layers"),
        (knowledge_distillation_fastbert, ["--teacher-layers", "2"], "--teacher-layers 2: a teacher that is given keeps its"),
    ],
)
def test_what_does_not_fit_a_given_teacher(tmp_path, data_folder, folder, script, words, message):
    sane = ["--teacher", folder, "--data", data_folder, *SANE]
    assert re.search(message, refused(script, tmp_path / "run", sane, words))
