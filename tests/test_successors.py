"""knowledge_distillation_bert.py --student-init theseus:RUN: a run of Theseus, and one whose students go on from it."""

import json

import numpy as np
import pytest

import knowledge_distillation_bert as script
import knowledge_distillation_bert_of_theseus as theseus
from common.evaluation import predict
from data import texts
from data.parts import split
from tests import tiny
from tests.alone import check_student
from tests.starting import refused, start

SAME = ["--maxlen", 16, "--train-examples", 96, "--validation-examples", 32, "--test-examples", 0, "--student-layers", 1,
        "--no-linear"]


@pytest.fixture(scope="module", params=["its own predecessor", "a given teacher"])
def successors(request, tmp_path_factory):
    """A run of Theseus; returns (words that a run going on from it must have too, its folder)."""
    folder = tmp_path_factory.mktemp("theseus")
    words = ["--data", tiny.write_data(folder / "data"), *SAME]
    if request.param == "a given teacher":  # which has a pooler
        labels = {str(i): f"class {i}" for i in range(4)}
        words += ["--teacher", tiny.write_classifier(folder / "given", labels=labels, num_hidden_layers=2)]
    else:
        words += ["--bert", tiny.write_bert(folder / "bert", config=tiny.CONFIG | {"num_hidden_layers": 2})]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(theseus, "report_texts", lambda *words: None)
        done = start(theseus, *words, "--output", folder / "theseus", "--experiments", "theseus", "theseus-random",
                     "--middle-layers", 1, "--predecessor-epochs", 1, "--mixed-epochs", 1, "--successor-epochs", 1,
                     "--successor-learning-rate", 2e-3)
    assert done.returncode == 0, done.stderr
    return words, folder / "theseus"


@pytest.mark.slow
def test_a_student_goes_on_from_the_best_successor(successors, monkeypatch):
    """Before training every student has its weights, to the bit, and so its answers; then it learns, and its files are its."""
    words, folder = successors
    stages = [folder / "seed-0" / name for name in ("theseus", "theseus-random")]
    best = max(stages, key=lambda stage: json.loads((stage / "record.json").read_text())["validation_accuracy"])
    seen = {}

    def watched(train):
        def watch(run, name, classifier, *rest, **more):
            seen[name] = classifier.get_weights(), predict(classifier, run.examples, run.parts.test)
            return train(run, name, classifier, *rest, **more)

        return watch

    for name in ("train_stage", "fine_tune"):  # with soft labels, and without
        monkeypatch.setattr(script, name, watched(getattr(script, name)))
    words = [*words, "--output", folder.parent / "run", "--student-init", f"theseus:{folder}", "--unlabelled-examples", 32,
             "--teacher-epochs", 1, "--student-epochs", 1, "--unlabelled-steps", 10, "--experiments", "alone",
             "distilled-unlabelled"]
    done = start(script, *words)
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

    other, = (stage / "record.json" for stage in stages if stage != best)
    before = other.read_text()
    try:  # as if Theseus had got a better row since
        other.write_text(json.dumps(json.loads(before) | {"validation_accuracy": 1.1}))
        again = start(script, *words, "teacher")
    finally:
        other.write_text(before)
    assert again.returncode == 0 and f"seed 0: students start as {best.name} of {folder}" in again.stdout.splitlines()

    path = best / "weights.npz"
    before = path.read_bytes()
    try:  # as if Theseus had been trained again
        np.savez(path, **{str(i): value + 1 for i, value in enumerate(expected)})
        again = start(script, *words)
    finally:
        path.write_bytes(before)
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
def test_a_run_of_theseus_on_other_data_or_another_bert_is_refused(successors, bert_folder, tmp_path):
    sane, folder = successors
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
