"""knowledge_distillation_bert.py --student-init theseus:RUN: a run of Theseus, and one whose students go on from it."""

import json
import shutil

import numpy as np
import pytest

import knowledge_distillation_bert as script
import knowledge_distillation_bert_of_theseus as theseus
from common.evaluation import predict
from data import berts, texts
from data.parts import split
from tests import tiny
from tests.alone import check_student
from tests.starting import refused, start
from tests.test_teacher import LABELS, check_given, check_written_teacher

SAME = ["--maxlen", 16, "--train-examples", 96, "--validation-examples", 32, "--test-examples", 0, "--student-layers", 1,
        "--no-linear"]
TWO_LAYERS = tiny.CONFIG | {"num_hidden_layers": 2}


def run_of_theseus(folder, says, epochs, *words):
    """Returns (words that a run going on from it must have too, its folder).

    says: what it prints of what it starts from
    epochs: of the successors by themselves
    """
    words = ["--data", tiny.write_data(folder / "data"), *SAME, *words]
    done = start(theseus, *words, "--output", folder / "theseus", "--experiments", "theseus", "theseus-random",
                 "--middle-layers", 1, "--predecessor-epochs", 1, "--mixed-epochs", 1, "--successor-epochs", epochs,
                 "--successor-learning-rate", 2e-3)
    assert done.returncode == 0, done.stderr
    assert says in done.stdout
    return words, folder / "theseus"


@pytest.fixture(scope="module")
def successors(tmp_path_factory):
    """Of its own predecessor, up to the report."""
    folder = tmp_path_factory.mktemp("theseus")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(theseus, "report_texts", lambda *words, **more: None)
        bert = tiny.write_bert(folder / "bert", config=TWO_LAYERS)
        return run_of_theseus(folder, "bert: 2 layers\n", 1, "--bert", bert)


@pytest.fixture(scope="module")
def successors_of_given(tmp_path_factory):
    """Of a teacher that is given, and has a pooler."""
    folder = tmp_path_factory.mktemp("theseus")
    given = tiny.write_classifier(folder / "given", labels=LABELS, **TWO_LAYERS)
    return run_of_theseus(folder, "given: 2 layers, fine-tuned\n", 0, "--teacher", given)


@pytest.mark.slow
def test_the_predecessor_is_it_and_the_successor_has_its_classifier(successors_of_given):
    """Of the run of Theseus itself."""
    folder = successors_of_given[1]
    given, models = folder.parent / "given", json.loads((folder / "results.json").read_text("utf-8"))["models"]
    check_given(folder, next(model for model in models if model["name"] == "predecessor"), given)
    check_student(folder, layers=1)
    student = berts.load(str(folder / "student"), classifier=True)
    wanted = tiny.classifier_weights() | {name: tiny.classifier_weights()[name][::-1] for name in berts.OUTPUT}
    for name, value in wanted.items():  # frozen in the mixed stage
        np.testing.assert_array_equal(student.weights[name], value, err_msg=name)
    check_written_teacher(folder, given)


def stages_of(folder):
    """Where the two rows of a run of Theseus are, the better one first."""
    stages = [folder / "seed-0" / name for name in ("theseus", "theseus-random")]
    return sorted(stages, key=lambda stage: -json.loads((stage / "record.json").read_text("utf-8"))["validation_accuracy"])


@pytest.mark.slow
@pytest.mark.parametrize("of", ["successors", "successors_of_given"])
def test_a_student_goes_on_from_the_best_successor(of, request, monkeypatch):
    """Before training every student has its weights, to the bit, and so its answers; then it learns, and its files are its."""
    (words, folder), seen = request.getfixturevalue(of), {}
    best, _ = stages_of(folder)

    def watched(train):
        def watch(run, name, classifier, *rest, **more):
            seen[name] = classifier.get_weights(), predict(classifier, run.examples, run.parts.test)
            return train(run, name, classifier, *rest, **more)

        return watch

    monkeypatch.setattr(script, "CHECKS", 2)  # epochs of what is counted in steps
    for name in ("train_stage", "fine_tune"):  # with soft labels, and without
        monkeypatch.setattr(script, name, watched(getattr(script, name)))
    words = [*words, "--output", folder.parent / "run", "--student-init", f"theseus:{folder}", "--unlabelled-examples", 32,
             "--teacher-epochs", 1, "--student-epochs", 1, "--unlabelled-steps", 10, "--experiments", "alone",
             "distilled-unlabelled"]
    done = start(script, *words, traced=False)
    assert done.returncode == 0, done.stderr
    assert f"seed 0: students start as {best.name} of {folder}" in done.stdout.splitlines()
    with np.load(best / "weights.npz") as stored:
        expected = [stored[str(i)] for i in range(len(stored.files))]
    for name in ("alone", "distilled-unlabelled"):
        weights, logits = seen[name]
        for mine, theirs in zip(weights, expected, strict=True):
            np.testing.assert_array_equal(mine, theirs)
        np.testing.assert_allclose(logits, np.load(best / "test_logits.npy"), atol=1e-5)
        with np.load(folder.parent / "run" / "seed-0" / name / "weights.npz") as after:
            assert any(not np.array_equal(after[str(i)], value) for i, value in enumerate(expected))
    check_student(folder.parent / "run", layers=1)


@pytest.mark.slow
def test_a_run_keeps_to_the_successor_that_it_started_from(successors, tmp_path, monkeypatch):
    """What Theseus does afterwards does not move it: a row that is better now is left alone, other weights are refused."""
    folder = shutil.copytree(successors[1], tmp_path / "theseus")
    words = [*successors[0], "--output", tmp_path / "run", "--student-init", f"theseus:{folder}", "--teacher-epochs", 1,
             "--student-epochs", 1, "--experiments", "alone"]
    monkeypatch.setattr(script, "report_texts", lambda *words, **more: None)
    best, other = stages_of(folder)
    begun = f"seed 0: students start as {best.name} of {folder}"
    assert begun in start(script, *words, traced=False).stdout.splitlines()
    record = json.loads((other / "record.json").read_text("utf-8"))
    (other / "record.json").write_text(json.dumps(record | {"validation_accuracy": 1.1}))
    again = start(script, *words)
    assert again.returncode == 0 and begun in again.stdout.splitlines()
    with np.load(best / "weights.npz") as stored:
        np.savez(best / "weights.npz", **{name: stored[name] + 1 for name in stored.files})
    again = start(script, *words)
    assert again.returncode == 2 and "holds a run with another successor of seed 0" in again.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--train-examples", 64], "it has --train-examples 96, this run 64; expected the same"),
        (["--validation-examples", 16], "it has --validation-examples 32, this run 16; expected the same"),
        (["--maxlen", 12], "it has --maxlen 16, this run 12; expected the same"),
        (["--student-layers", 2], "it has --student-layers 1, this run 2; expected the same"),
        (["--seeds", 0, 1], "no finished theseus or theseus-additive or theseus-random or theseus-random-linear of seed 1"),
    ],
)
def test_a_run_of_theseus_on_other_texts_is_refused(successors, tmp_path, words, message):
    sane, folder = successors
    sane = [*sane, "--student-init", f"theseus:{folder}", "--experiments", "alone"]
    assert message in refused(script, tmp_path / "run", sane, words)


@pytest.mark.slow
@pytest.mark.parametrize("of", ["successors", "successors_of_given"])
def test_a_run_of_theseus_on_other_data_or_another_bert_is_refused(of, request, bert_folder, tmp_path):
    sane, folder = request.getfixturevalue(of)
    sane = [*sane, "--student-init", f"theseus:{folder}", "--experiments", "alone"]
    other = ["--data", tiny.write_data(tmp_path / "data", train=161)]
    assert "it has another data; its successors" in refused(script, tmp_path / "run", sane, other)
    given = sane.index("--teacher") if "--teacher" in sane else sane.index("--bert")
    sane[given : given + 2] = ["--bert", bert_folder]
    assert "it has another BERT or teacher; its successors" in refused(script, tmp_path / "run", sane, ["--patience", 4])


def test_with_other_counts_of_texts_validation_would_have_been_learned(data_folder):
    """Why the settings must be the same: with the same no text is both, with others some are."""
    corpus = texts.load(str(data_folder))
    learned = split(corpus, 0, train=96, validation=16).train
    same = split(corpus, 0, train=96, unlabelled=0, validation=16, test=20)
    np.testing.assert_array_equal(learned, same.train)
    assert not {*learned} & {*same.validation}
    assert {*learned} & {*split(corpus, 0, train=96, validation=32).validation}
    assert {*learned} & {*split(corpus, 1, train=96, validation=16).validation}  # and why each seed has its own
