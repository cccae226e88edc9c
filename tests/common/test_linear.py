"""common.linear: the row of a linear model, held against scikit-learn put together otherwise, and against dishonesty."""

import json
import shutil

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer
from sklearn.svm import LinearSVC

from common import InputError
from common.linear import STRENGTHS, fit_linear, inverse_temperature, linear_records
from common.training import Run
from data import linear_models
from data.parts import UNLABELLED, Parts
from data.texts import Corpus, has_no_spaces
from tests import tiny


class Settings:
    linear = True


def corpus_of(pairs):
    classes = sorted({label for _, label in pairs})
    labels = np.array([classes.index(label) for _, label in pairs], np.int32)
    nothing = np.arange(0)
    return Corpus("made", [text for text, _ in pairs], labels, classes, {}, nothing, nothing, nothing, [])


def run_of(folder, pairs, train, validation, test, seed=3):
    parts = Parts(np.asarray(train), np.arange(0), np.asarray(validation), np.asarray(test))
    return Run(Settings, seed, corpus_of(pairs), None, parts, folder)


@pytest.fixture
def run(tmp_path):
    return run_of(tmp_path, tiny.texts(300, seed=5), range(100), range(100, 160), range(160, 300))


def test_it_is_tf_idf_and_a_linear_machine(run):
    """Terms counted apart, weighted apart, and the strength searched by hand."""
    record = fit_linear(run)
    texts, labels, parts = np.array(run.corpus.texts), run.corpus.labels, run.parts
    words = CountVectorizer(ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b").fit(texts[parts.train])
    weigh = TfidfTransformer(sublinear_tf=True).fit(words.transform(texts[parts.train]))
    x = {name: weigh.transform(words.transform(texts[getattr(parts, name)])) for name in ("train", "validation", "test")}
    y = {name: labels[getattr(parts, name)] for name in x}
    fitted = {c: LinearSVC(C=c, random_state=3).fit(x["train"], y["train"]) for c in STRENGTHS}
    reached = {c: machine.score(x["validation"], y["validation"]) for c, machine in fitted.items()}
    assert record["validation_accuracy"] == pytest.approx(max(reached.values()), abs=0.02)
    assert record["accuracy"] == pytest.approx(fitted[record["strength"]].score(x["test"], y["test"]), abs=0.02)
    assert record["accuracy"] > 0.6 and record["terms"] == "words"  # chance is 0.25
    terms = len(words.vocabulary_)
    assert record["parameters"] == 4 * terms + 4
    assert record["bytes"] == 4 * (record["parameters"] + terms) + sum(map(len, words.vocabulary_))
    assert record["flops"] == pytest.approx(2 * 4 * x["test"].nnz / 140)
    assert min(record["latency_ms"].values()) > 0
    logits = np.load(run.stage("linear") / "test_logits.npy")
    assert (logits.argmax(-1) == y["test"]).mean() == record["accuracy"]


def test_a_second_start_reads_what_the_first_has_left(run):
    record = fit_linear(run)
    path = run.stage("linear") / "record.json"
    path.write_text(json.dumps(record | {"accuracy": 0.125}))
    assert fit_linear(run)["accuracy"] == 0.125
    assert linear_records([run]) == [record | {"accuracy": 0.125}]
    Settings.linear = False
    try:
        assert linear_records([run]) == []
    finally:
        Settings.linear = True


def test_one_that_an_older_version_left_without_its_model_is_fitted_again(run):
    record = fit_linear(run)
    shutil.rmtree(run.stage("linear") / "model")
    assert fit_linear(run)["accuracy"] == record["accuracy"] and (run.stage("linear") / "model").is_dir()


def test_the_model_that_is_left_answers_as_was_measured(run):
    fit_linear(run)
    model = linear_models.load(run.stage("linear") / "model")
    texts = [run.corpus.texts[i] for i in run.parts.test]
    np.testing.assert_array_equal(model.logits(texts), np.load(run.stage("linear") / "test_logits.npy"))
    assert model.classes == run.corpus.classes


def test_the_inverse_temperature_is_that_of_the_least_loss():
    """Held against a grid; labels of a class that no training text had have no part."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1, (200, 4)).astype(np.float32)
    labels = (3 * logits + rng.gumbel(0, 1, logits.shape)).argmax(axis=1)
    losses = {a: -np.log(softmax(a * logits, axis=1)[np.arange(200), labels]).mean() for a in np.arange(1, 6, 0.01)}
    found = inverse_temperature(logits, labels)
    assert found == pytest.approx(min(losses, key=losses.get), abs=0.02) and 2 < found < 4
    unseen = np.insert(logits, 4, -np.inf, axis=1)
    some = inverse_temperature(unseen, np.where(np.arange(200) < 20, 4, labels))
    assert some == pytest.approx(inverse_temperature(logits[20:], labels[20:]))
    assert inverse_temperature(unseen, np.full(200, 4)) == 1.0


def test_the_temperature_is_fitted_on_validation(run):
    stage, parts, rng = run.stage("linear"), run.parts, np.random.default_rng(0)
    for part, wrong in ((parts.validation, 0.2), (parts.test, 0.6)):  # so that it is finite, and differs
        run.corpus.labels[part[rng.random(len(part)) < wrong]] = 0
    fit_linear(run)
    expected = inverse_temperature(np.load(stage / "validation_logits.npy"), run.corpus.labels[parts.validation])
    assert linear_models.load(stage / "model").inverse_temperature == pytest.approx(expected, rel=1e-6)
    other = inverse_temperature(np.load(stage / "test_logits.npy"), run.corpus.labels[parts.test])
    assert abs(other - expected) > 0.01  # else it would not show


def test_the_strength_is_not_chosen_on_the_test_part(tmp_path):
    """With the test labels turned round the model is the same, and so is what it reaches on validation."""
    pairs = tiny.texts(300, seed=5)
    turned = pairs[:160] + [(text, f"class {(int(label[-1]) + 1) % 4}") for text, label in pairs[160:]]
    parts = range(100), range(100, 160), range(160, 300)
    one, other = (fit_linear(run_of(tmp_path / name, made, *parts)) for name, made in (("a", pairs), ("b", turned)))
    assert [one[key] for key in ("strength", "validation_accuracy", "bytes")] == [
        other[key] for key in ("strength", "validation_accuracy", "bytes")]
    assert one["accuracy"] > 0.6 and other["accuracy"] < 0.25
    np.testing.assert_array_equal(*(np.load(tmp_path / x / "seed-3/linear/test_logits.npy") for x in "ab"))


def test_it_sees_the_labels_of_the_training_part_only(tmp_path):
    run = run_of(tmp_path, tiny.texts(300, seed=5), range(100), range(100, 160), range(160, 300))
    seen = fit_linear(run)["accuracy"]
    hidden = run_of(tmp_path / "hidden", tiny.texts(300, seed=5), range(100), range(100, 160), range(160, 300))
    hidden.corpus.labels[160:] = UNLABELLED
    assert fit_linear(hidden)["accuracy"] == 0.0 < seen
    np.testing.assert_array_equal(*(np.load(each.stage("linear") / "test_logits.npy") for each in (run, hidden)))


def test_a_student_learns_the_classes_it_is_told_of_further_texts(tmp_path):
    """With the labels of a training part that is larger by these texts it is the row `linear` of that."""
    pairs, parts = tiny.texts(300, seed=5), (range(100, 160), range(160, 300))
    run = run_of(tmp_path / "few", pairs, range(40), *parts)
    told = np.where(np.arange(100) % 10, run.corpus.labels[:100], 0)
    found = fit_linear(run, "taught", np.arange(100), told, soft_label_accuracy=0.5)
    wrong = [(text, f"class {label}") for (text, _), label in zip(pairs, told, strict=False)] + pairs[100:]
    expected = fit_linear(run_of(tmp_path / "many", wrong, range(100), *parts))
    for key in ("accuracy", "validation_accuracy", "parameters", "bytes", "strength", "terms", "layers", "epochs"):
        assert found[key] == expected[key]
    assert (found["name"], found["soft_label_accuracy"]) == ("taught", 0.5)
    assert json.loads((run.stage("taught") / "record.json").read_text("utf-8")) == found and not run.stage("linear").exists()
    for part in ("validation", "test"):
        np.testing.assert_array_equal(*(np.load(tmp_path / name / f"{part}_logits.npy")
                                        for name in ("few/seed-3/taught", "many/seed-3/linear")))
    assert fit_linear(run)["parameters"] < found["parameters"]  # the row itself is another


@pytest.mark.parametrize(
    ("texts", "analyzer"),
    [
        (["the cat", "a dog"], "word"),
        (["今天天气很好", "这本书不错"], "char"),
        (["今天天气很好 app", "我喜欢 iphone"], "char"),  # half of the letters
        (["a book called 书"], "word"),
        (["この商品はとても良かった", "サイズが合わない"], "char"),
        (["สินค้าดีมาก ส่งเร็ว"], "char"),
        (["이 제품은 정말 좋아요", "очень хорошо"], "word"),
        (["12 %", "!"], "word"),
    ],
)
def test_scripts_without_spaces_are_told_from_the_texts(texts, analyzer):
    terms = linear_models.vectorizer(has_no_spaces(texts))
    assert terms.analyzer == analyzer
    assert terms.ngram_range == ((1, 3) if analyzer == "char" else (1, 2))


def test_two_classes_and_a_class_that_is_not_taught(tmp_path):
    pairs = [(f"{word} {i}", label) for i in range(20) for word, label in (("good", "1"), ("bad", "0"))]
    run = run_of(tmp_path, pairs, range(20), range(20, 30), range(30, 40))
    assert fit_linear(run)["accuracy"] == 1.0
    assert np.load(run.stage("linear") / "test_logits.npy").shape == (10, 2)
    third = run_of(tmp_path / "third", [*pairs, ("other", "2")], range(20), range(20, 30), range(30, 41))
    assert fit_linear(third)["accuracy"] == pytest.approx(10 / 11)
    assert (np.load(third.stage("linear") / "test_logits.npy")[:, 2] == -np.inf).all()


def test_a_pair_of_texts_is_counted_as_one(tmp_path):
    joined = [(" ".join(couple), label) for couple, label in tiny.pairs(200)]
    parts = range(100), range(100, 150), range(150, 200)
    one, other = (fit_linear(run_of(tmp_path / name, made, *parts)) for name, made in (("a", tiny.pairs(200)), ("b", joined)))
    for key in ("accuracy", "validation_accuracy", "parameters", "flops", "bytes"):
        assert one[key] == other[key]
    np.testing.assert_array_equal(*(np.load(tmp_path / x / "seed-3/linear/test_logits.npy") for x in "ab"))


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([("!", "a"), ("?", "b")] * 4, "no words in the training texts; --no-linear"),
        ([("a text", "a"), ("b text", "a")] * 4 + [("c", "b")],
         "all texts that linear is to learn are of one class; take more, or --no-linear"),
    ],
)
def test_what_cannot_be_fitted_is_said(tmp_path, pairs, message):
    with pytest.raises(InputError, match=message):
        fit_linear(run_of(tmp_path, pairs, range(4), range(4, 6), range(4, 8)))
    assert not (tmp_path / "seed-3" / "linear" / "record.json").exists()


def test_many_classes_leave_room_for_fewer_terms(tmp_path, monkeypatch):
    """Five weights at most: two classes have two terms each, the most frequent ones."""
    monkeypatch.setattr("common.linear.MOST_WEIGHTS", 5)
    texts = [("x y", "a"), ("x z", "b")] * 6
    assert fit_linear(run_of(tmp_path, texts, range(6), range(6, 8), range(8, 12)))["parameters"] == 2 + 1


def test_what_a_student_cannot_be_fitted_to_is_said(tmp_path):
    run = run_of(tmp_path, [("!", "a"), ("?", "b")] * 4, range(4), range(4, 6), range(4, 8))
    with pytest.raises(InputError, match="no words in the training texts; --experiments without taught does without"):
        fit_linear(run, "taught", np.arange(4), np.array([0, 1, 0, 1]))
