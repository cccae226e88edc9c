"""knowledge_distillation_bert.py: its losses and models, its errors, and the script started as a user does."""

import csv
import json
import math
import shutil
import weakref
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import log_softmax, rel_entr, softmax
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.svm import LinearSVC
from tokenizers import Tokenizer, models, processors

import knowledge_distillation_bert as script
from common import callbacks, soft_labels
from common.backend import keras
from common.bert import build_classifier
from common.distillation import distillation_loss, distillation_targets
from common.evaluation import predict
from common.linear import LINEAR
from common.training import Run, save_weights, trained
from data import berts, texts
from data.narrowing import narrow
from data.parts import UNLABELLED, split
from data.students import ask, load
from tests import tiny
from tests.alone import check_student
from tests.starting import no_files, refused, run_to_the_end, start

LAYERS, WITHOUT_LABELS = ("--experiments", "distilled-layers"), ("--experiments", "distilled-unlabelled")
ALL = tuple(name for name in script.EXPERIMENTS if name != "distilled-ensemble")  # which needs several teachers
NETWORKS = tuple(name for name in ALL if script.EXPERIMENTS[name].model != LINEAR)


# Losses and models


@pytest.fixture(scope="module")
def bert(bert_folder):
    return berts.load(str(bert_folder))


@pytest.fixture(scope="module")
def shallow(bert):
    """A single layer, for what has nothing to do with depth."""
    return berts.keep_layers(bert, [0])


@pytest.fixture(scope="module")
def two_layers(bert):
    """For a teacher of a student of one, where more would show no more."""
    return berts.keep_layers(bert, [0, 1])


@pytest.fixture(scope="module")
def batch(bert):
    """Eight texts: token ids, and with them segment ids."""
    return tiny.tokenized([text for text, _ in tiny.texts(8)], bert).inputs(np.arange(8))


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_the_loss_is_hintons(shallow, batch, precision, policy):
    """hard_weight · CE + soft_weight · T² · KL, the mean over the batch; without a label only the second part."""
    precision(policy)
    model = build_classifier(shallow, classes=4, dropout=0.1).model
    model.compile("sgd", loss=distillation_loss(2.5, 0.7, 0.3), run_eagerly=True)
    labels = np.array([0, 1, 2, 3, UNLABELLED, 1, UNLABELLED, 0], np.int32)
    teacher = softmax(np.random.default_rng(0).normal(0, 2, (8, 4)), axis=-1).astype(np.float32)

    logits = model.predict_on_batch(batch)
    assert logits.dtype == np.float32
    hard = -log_softmax(logits, axis=-1)[np.arange(8), labels] * (labels >= 0)
    soft = rel_entr(teacher, softmax(logits / 2.5, axis=-1)).sum(axis=-1)
    expected = 0.7 * hard.mean() + 0.3 * 2.5**2 * soft.mean()
    found = model.test_on_batch(batch, distillation_targets(labels, teacher), return_dict=True)
    assert found["loss"] == pytest.approx(expected, rel=1e-4)


def test_one_training_step_follows_the_gradient_of_that_loss(shallow, batch):
    """The classifier's bias moves by -rate · d loss / d bias, which is simple enough to write down."""
    classifier = build_classifier(shallow, classes=4, dropout=0)
    model = classifier.model
    model.compile(keras.optimizers.SGD(0.1), loss=distillation_loss(2.0, 1.0, 0.5), run_eagerly=True)
    labels = np.array([0, 1, 2, 3, -1, 1, -1, 0], np.int32)
    teacher = softmax(np.random.default_rng(0).normal(0, 2, (8, 4)), axis=-1).astype(np.float32)
    logits = model.predict_on_batch(batch)
    one_hot = np.eye(4)[labels]
    hard = (softmax(logits, axis=-1) - one_hot) * (labels >= 0)[:, None]
    soft = 0.5 * 2.0**2 * (softmax(logits / 2, axis=-1) - teacher) / 2
    bias = classifier.head.get_weights()[1]
    model.train_on_batch(batch, distillation_targets(labels, teacher))
    moved = classifier.head.get_weights()[1]
    np.testing.assert_allclose(moved, bias - 0.1 * (hard + soft).mean(axis=0), atol=1e-5)


def test_a_teacher_is_out_of_memory_before_its_student_trains(shallow, data_folder, tmp_path, monkeypatch):
    corpus = texts.load(str(data_folder))
    settings = replace(script.PRESETS["demo"], student_layers=1, teacher_epochs=1, student_epochs=1)
    parts = split(corpus, 0, train=64, validation=16)
    run = Run(settings, 0, corpus, tiny.tokenized(corpus.texts, shallow), parts, tmp_path, shallow)
    save_weights(script.build(run, "teacher").model, run.stage("teacher") / "weights.npz")
    built, alive, trained = [], [], soft_labels.trained

    def watched(*words):
        classifier = trained(*words)
        built.append(weakref.ref(classifier.model))
        return classifier

    monkeypatch.setattr(soft_labels, "trained", watched)
    monkeypatch.setattr(script, "train_stage", lambda *words, **more: alive.extend(model() is not None for model in built))
    script.train(run, "distilled")
    assert alive == [False]


@pytest.mark.parametrize("further", [("augmented",), ("unlabelled", "augmented")])
def test_augmented_texts_are_learned_by_the_teachers_word_alone(shallow, data_folder, tmp_path, monkeypatch, further):
    """Indices, token ids and targets of a student of labelled texts, unlabelled ones if it wants them, and augmented ones."""
    corpus = texts.load(str(data_folder))
    settings = replace(script.PRESETS["demo"], student_layers=1, augmentations=3, maxlen=16, unlabelled_steps=15)
    parts = split(corpus, 0, train=40, unlabelled=30, validation=16)
    examples = tiny.tokenized(corpus.texts, shallow)
    run = script.augmented(Run(settings, 0, corpus, examples, parts, tmp_path, shallow))
    assert 40 < len(run.parts.augmented) <= 120 and len(run.corpus.texts) == len(corpus.texts) + len(run.parts.augmented)
    masked = 0
    for index in run.parts.augmented:
        ids = run.examples.example(index)
        np.testing.assert_array_equal(ids, tiny.tokenized([run.corpus.texts[index]], shallow).ids)
        masked += (ids == tiny.SPECIAL.index("[MASK]")).any()
    assert masked > len(run.parts.augmented) / 3
    np.testing.assert_array_equal(run.examples.inputs(parts.test)[0], examples.inputs(parts.test)[0])

    classifier, learned = script.build(run, "teacher").model, {}
    save_weights(classifier, run.stage("teacher") / "weights.npz")
    name = "distilled-augmented"
    monkeypatch.setitem(script.EXPERIMENTS, name, replace(script.EXPERIMENTS[name], further=further))
    monkeypatch.setattr(script, "train_stage", lambda *words, **more: learned.update(words=words))
    script.train(run, name)
    *_, indices, targets, epochs, steps = learned["words"]
    assert (epochs, steps) == (10, 2)  # 15 steps, and a whole number of them between two measurements
    assert indices.tolist() == [*parts.train, *(parts.unlabelled if "unlabelled" in further else []), *run.parts.augmented]
    soft = softmax(predict(classifier, run.examples, indices) / settings.temperature, axis=-1)
    labels = np.append(corpus.labels[parts.train], np.full(len(indices) - 40, UNLABELLED))
    np.testing.assert_allclose(targets, distillation_targets(labels, soft), atol=1e-6)


def test_every_row_has_the_epochs_and_the_rate_of_its_model(shallow, data_folder, tmp_path, monkeypatch):
    """Alone and distilled alike; what learns further texts too has its steps, in ten measurements."""
    own = {"teacher_epochs": 2, "teacher_learning_rate": 1e-4, "student_epochs": 5, "student_learning_rate": 3e-4,
           "bilstm_learning_rate": 4e-3, "schedule": "constant"}
    run, seen, budget = layers_run(shallow, data_folder, tmp_path, student_layers=1, **own), {}, []
    monkeypatch.setattr(script, "fine_tune", lambda run, name, model, *pace: seen.update({name: pace}))
    monkeypatch.setattr(script, "adam", lambda *words: budget.append(words))
    monkeypatch.setattr(script, "train_stage", lambda run, name, *words, **more: seen.update({name: budget.pop()}))
    wanted = ("teacher", "alone", "bilstm-alone", "distilled", "teacher-self-distilled", "noise", "distilled-unlabelled")
    for name in wanted:
        script.train(run, name)
    of_labelled = run.steps(run.parts.train)
    assert seen == {
        "teacher": (2, 1e-4), "alone": (5, 3e-4), "bilstm-alone": (5, 4e-3),
        "distilled": (3e-4, 5 * of_labelled, "constant"), "noise": (3e-4, 5 * of_labelled, "constant"),
        "teacher-self-distilled": (1e-4, 2 * of_labelled, "constant"), "distilled-unlabelled": (3e-4, 20, "constant"),
    }


@pytest.mark.parametrize(
    ("name", "of"), [("distilled", "teacher"), ("alone-self-distilled", "alone"), ("teacher-self-distilled", "teacher")]
)
def test_whose_soft_labels_a_row_learns(two_layers, data_folder, tmp_path, monkeypatch, name, of):
    run, seen = layers_run(two_layers, data_folder, tmp_path, student_layers=1), []
    save_weights(script.build(run, "alone").model, run.stage("alone") / "weights.npz")
    monkeypatch.setattr(script, "train_stage", lambda *words, **more: seen.extend(words))
    script.train(run, name)
    indices, targets = seen[5:7]
    soft = softmax(predict(trained(run, of, script.build).model, run.examples, indices) / 6, axis=-1)
    np.testing.assert_allclose(targets, distillation_targets(run.corpus.labels[indices], soft), atol=1e-5)


@pytest.mark.parametrize("kind", ["mse", "kl"])
def test_what_a_bilstm_learns_of_the_teacher(shallow, data_folder, tmp_path, monkeypatch, kind):
    """Its logits, by their squared distance, as in the paper; or, as a setting, its soft labels, as any other student."""
    weights = {"hard_weight": 0.7, "soft_weight": 0.2, "temperature": 3.0}
    run, learned = layers_run(shallow, data_folder, tmp_path, student_layers=1, bilstm_loss=kind, **weights), {}
    monkeypatch.setattr(script, "train_stage", lambda *words, **more: learned.update(words=words, **more))
    script.train(run, "bilstm-distilled")
    _, _, _, loss, _, indices, targets, *_ = learned["words"]
    logits = predict(script.trained(run, "teacher", script.build).model, run.examples, indices)
    own = np.random.default_rng(0).normal(0, 2, logits.shape).astype(np.float32)
    labels = np.append(run.corpus.labels[run.parts.train], np.full(30, UNLABELLED))
    hard = np.where(labels >= 0, -log_softmax(own, axis=-1)[np.arange(70), labels], 0)
    if kind == "mse":
        soft = ((own - logits) ** 2).sum(axis=-1)
    else:
        soft = 9 * rel_entr(softmax(logits / 3, axis=-1), softmax(own / 3, axis=-1)).sum(axis=-1)
    np.testing.assert_allclose(loss(targets, own), 0.7 * hard + 0.2 * soft, rtol=2e-4)
    assert len(learned["metrics"]) == (0 if kind == "mse" else 2)


def layers_run(bert, data_folder, folder, student_layers=2, **settings):
    """A run of this BERT with a teacher that is there, untrained."""
    corpus = texts.load(str(data_folder))
    settings = replace(script.PRESETS["demo"], student_layers=student_layers, maxlen=16, unlabelled_steps=20, patience=1,
                       batch_size=32, **settings)
    parts = split(corpus, 0, train=40, unlabelled=30, validation=16)
    run = Run(settings, 0, corpus, tiny.tokenized(corpus.texts, bert), parts, folder, bert)
    save_weights(script.build(run, "teacher").model, run.stage("teacher") / "weights.npz")
    return run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("until", "since", "unlabelled"), [(0.5, 0.5, True), (0.3, 0.2, True), (0.5, 0.5, False), (1.0, 0.0, False)]
)
def test_layers_and_labels_are_learned_in_their_shares_of_the_training(
    two_layers, data_folder, tmp_path, until, since, unlabelled
):
    """The loss of each epoch is made of what is learned in it; those without labels are not chosen.

    Steps are counted where there are texts without labels, and patience does not end that; else epochs are.
    """
    shares = {"layers_until": until, "labels_from": since, "hard_weight": 0.7, "soft_weight": 0.2}
    run = layers_run(two_layers, data_folder, tmp_path, student_layers=1, **shares)
    if not unlabelled:
        run = replace(run, parts=replace(run.parts, unlabelled=run.parts.unlabelled[:0]),
                      settings=replace(run.settings, student_epochs=3, patience=0))
    record = script.train(run, "distilled-layers")
    epochs = 10 if unlabelled else 3
    assert record["epochs"] == epochs and record["steps"] == (20 if unlabelled else 3 * 2)
    layers_end, labels_begin = math.ceil(round(epochs * until, 9)), math.floor(round(epochs * since, 9))
    for place, epoch in enumerate(record["history"]):
        assert (epoch["layer_loss"] > 0) == (place < layers_end)
        labels = (place >= labels_begin) * (0.7 * epoch["hard_loss"] + 0.2 * 6.0**2 * epoch["soft_loss"])
        assert epoch["loss"] == pytest.approx(epoch["layer_loss"] + labels, rel=1e-4)
    assert record["validation_accuracy"] == max(epoch["val_accuracy"] for epoch in record["history"][labels_begin:])


def test_what_is_trained_by_default_needs_no_texts_without_labels_and_with_answers_alone_no_layers():
    demo = script.PRESETS["demo"]
    assert script.check(replace(demo, unlabelled_examples=None)) == [*script.DEFAULT]
    of_answers = script.check(replace(demo, soft_labels=("answers.jsonl",)))
    assert of_answers == ["alone", "distilled", "distilled-unlabelled", "linear-distilled"]
    without = script.check(replace(demo, soft_labels=("answers.jsonl",), unlabelled_examples=None))
    assert without == ["alone", "distilled", "linear-distilled"]
    several = script.check(replace(demo, soft_labels=("a", "b"), experiments=("linear-distilled",)))
    assert several == ["distilled-ensemble", "linear-distilled"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, ["teacher", "student"]), ({"student_hidden": 16}, ["teacher"]), ({"experiments": ("bilstm-alone",)}, ["teacher"]),
        ({"teacher": ("given",)}, ["student"]),
        ({"teacher": ("given",), "experiments": ("teacher-self-distilled",)}, ["teacher"]),
    ],
)
def test_what_a_user_should_know_before_training(bert_folder, data_folder, tmp_path, monkeypatch, capsys, changes, told):
    """The rates by which layers of a wide BERT are trained, no others, and steps that are too few: printed and reported."""
    monkeypatch.setattr("common.runs.WIDE", 32)
    given = tiny.write_classifier(tmp_path / "given", labels={str(i): f"class {i}" for i in range(4)})
    settings = replace(
        script.PRESETS["demo"], data=str(data_folder), bert=str(bert_folder), maxlen=16, train_examples=40, student_layers=1,
        unlabelled_steps=1, output=str(tmp_path / "run"), **changes,
    )
    settings = replace(settings, teacher=tuple(str(given) for _ in settings.teacher))
    (run,) = script.open_runs("demo", settings, script.check(settings))
    printed = capsys.readouterr().out
    for name in ("teacher", "student"):
        line = f"--{name}-learning-rate"
        assert (line in printed) == any(note.startswith(line) for note in run.corpus.notes) == (name in told)
    counted = any(script.EXPERIMENTS[name].layers for name in script.check(settings))
    assert ("--unlabelled-steps 1 reads 16 of " in printed) == counted


@pytest.mark.parametrize(("given", "taught"), [((), [2, 4]), ((1, 3), [1, 3])])
def test_a_layer_learns_the_layer_that_is_named_or_those_spread_evenly(bert, data_folder, tmp_path, monkeypatch, given, taught):
    run, seen = layers_run(bert, data_folder, tmp_path, layer_mapping=given, hidden_loss="cls", attention_weight=0.5), []
    monkeypatch.setattr(script, "with_layer_loss", lambda *words, **more: seen.append(words))
    monkeypatch.setattr(script, "train_stage", lambda *words, **more: None)
    script.train(run, "distilled-layers")
    mapping, *rest = seen[0][2:]
    assert [*mapping] == taught and rest == ["cls", 1.0, 0.5]


@pytest.mark.slow
def test_nothing_of_the_teacher_is_saved_with_a_student_that_learns_its_layers(two_layers, data_folder, tmp_path, monkeypatch):
    run, sizes, backup = layers_run(two_layers, data_folder, tmp_path, student_layers=1), [], callbacks.write_atomic

    def watched(path, write):
        backup(path, write)
        sizes.append(path.stat().st_size)

    monkeypatch.setattr(callbacks, "write_atomic", watched)
    monkeypatch.setattr(callbacks, "BACKUP_SHARE", 1)  # after each epoch
    script.train(run, "distilled-layers")
    layers = sizes.copy()
    script.train(run, "distilled-unlabelled")
    assert len(layers) == 10 and layers[-1] < 1.05 * sizes[-1]


@pytest.mark.parametrize(("weight", "taught"), [(1.0, False), (0.0, True)])
def test_a_linear_student_learns_labels_unless_they_weigh_nothing(
    two_layers, data_folder, tmp_path, monkeypatch, weight, taught
):
    run, seen = layers_run(two_layers, data_folder, tmp_path, student_layers=1, hard_weight=weight), {}
    monkeypatch.setattr(script, "fit_linear", lambda run, name, indices, classes, **more: seen.update(classes=classes))
    script.train(run, "linear-distilled")
    teacher = trained(run, "teacher", script.build).model
    answers = predict(teacher, run.examples, np.append(run.parts.train, run.parts.unlabelled)).argmax(-1)
    labels = run.corpus.labels[run.parts.train]
    assert (answers[:40] != labels).any()
    np.testing.assert_array_equal(seen["classes"], [*(answers[:40] if taught else labels), *answers[40:]])


def test_texts_too_short_to_make_others_of(bert_folder, tmp_path):
    pairs = [(word, f"class {i % 2}") for i, word in enumerate(tiny.WORDS)]
    tiny.write_jsonl(tmp_path / "data.jsonl", pairs)
    done = start(script, "--data", tmp_path / "data.jsonl", "--bert", bert_folder, "--maxlen", 16, "--student-layers", 1,
                 "--train-examples", 32, "--experiments", "distilled-augmented", "--output", tmp_path / "run")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "augmentation of nothing: the training" in done.stderr
    assert not (tmp_path / "run").exists()


def test_the_logits_read_the_cls_token(shallow, batch):
    classifier = build_classifier(shallow, classes=4, dropout=0.1)
    kernel, bias = classifier.head.get_weights()
    hidden = classifier.encoder.model.predict_on_batch(batch)
    np.testing.assert_allclose(classifier.model.predict_on_batch(batch), hidden[:, 0] @ kernel + bias, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("init", "kept"), [("first", [0, 1]), ("spread", [1, 3]), ("teacher-first", [0, 1]), ("teacher-spread", [1, 3])]
)
def test_where_the_student_starts(bert, data_folder, tmp_path, init, kept):
    """What learns layers starts as --layers-init says, what does not as --student-init; a teacher hands its classifier on."""
    others = {"distilled": ("student_init", "layers_init"), "distilled-layers": ("layers_init", "student_init")}
    fine_tuned, demo = init.startswith("teacher"), replace(script.PRESETS["demo"], student_layers=2)
    run = Run(demo, 0, texts.load(str(data_folder)), None, None, tmp_path, bert)
    teacher = script.build(run, "teacher")
    teacher.model.set_weights([value + 1 for value in teacher.model.get_weights()])
    save_weights(teacher.model, run.stage("teacher") / "weights.npz")
    for name, (own, other) in others.items():
        settings = replace(demo, **{own: init, other: "first" if kept[0] else "spread"})
        student = script.build(replace(run, settings=settings), name)
        for new, old in enumerate(kept):
            layer = "bert/encoder/layer_{}/intermediate/dense/kernel"
            expected = bert.weights[layer.format(old)] + fine_tuned
            np.testing.assert_allclose(student.bert.weights[layer.format(new)], expected, atol=1e-6)
        words = "bert/embeddings/word_embeddings"
        np.testing.assert_allclose(student.bert.weights[words], bert.weights[words] + fine_tuned, atol=1e-6)
        assert fine_tuned == np.allclose(student.head.get_weights()[0], teacher.head.get_weights()[0])


@pytest.mark.parametrize("init", ["first", "teacher-spread"])
def test_a_narrower_student_starts_from_the_narrowed_layers(bert, data_folder, tmp_path, init):
    """And a classifier that is given is narrowed with them."""
    rng = np.random.default_rng(0)
    given = replace(bert, weights=bert.weights | {
        berts.OUTPUT[0]: rng.normal(size=(4, 32)).astype(np.float32), berts.OUTPUT[1]: rng.normal(size=4).astype(np.float32)})
    settings = replace(script.PRESETS["demo"], student_layers=2, student_init=init, student_hidden=16, student_heads=4,
                       narrowing="least-squares")
    for whole in (bert, given):
        run = Run(settings, 0, texts.load(str(data_folder)), None, None, tmp_path / init, whole)
        save_weights(script.build(run, "teacher").model, run.stage("teacher") / "weights.npz")
        built = script.build(run, "distilled").bert
        kept = berts.keep_layers(whole, [0, 1] if init == "first" else [1, 3])
        expected = narrow(kept, 16, 4, "least-squares")
        assert script.shape_of(run, "distilled").config == built.config == expected.config
        assert script.shape_of(run, "teacher").config == bert.config
        for name, value in expected.weights.items():
            np.testing.assert_allclose(built.weights[name], value, atol=1e-6, err_msg=name)
        assert built.weights[berts.OUTPUT[0]].shape == (4, 16)


# Errors


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "nowhere"], "--data nowhere: neither a file, nor a folder, nor one of 20newsgroups"),
        (["--bert", "nowhere"], "--bert nowhere: neither a folder nor one of minilm-l6"),
        (["--temperature", "0"], "temperature 0.0: must be from 0.01 to 1000"),
        (["--temperature", "nan"], "temperature nan: must be from 0.01 to 1000"),
        (["--student-learning-rate", "-1"], "--student-learning-rate -1.0: must be above 0"),
        (["--hard-weight", "-1"], "--hard-weight -1.0: must be 0 or more"),
        (["--hard-weight", "0", "--soft-weight", "0"], "nothing would be learned; one must be above 0"),
        (["--int8-disagreement", "-1"], "--int8-disagreement -1.0: must be 0 or more"),
        (["--teacher-dropout", "1"], "--teacher-dropout 1.0: must be 0 or more and below 1"),
        (["--batch-size", "0"], "--batch-size 0: must be 1 or more"),
        (["--seeds", "0", "-1"], "--seeds -1: must be 0 or more"),
        (["--seeds", "4294967296"], "--seeds 4294967296: must be 0 or more and below 2**32"),
        (["--test-examples", "1"], "1 in the test part; at least 2 are needed"),
        (["--seeds"], "at least one is needed, and none twice"),
        (["--seeds", "1", "1"], "--seeds 1 1: at least one is needed, and none twice"),
        (["--student-layers", "7"], "hugging-face has 4 layers, so 1 to 4 can be taken"),
        (["--student-hidden", "64"], "has a width of 32, so 1 to 32 can be taken"),
        (["--student-hidden", "20"], "has 4 heads of 8 dimensions, so a width is a multiple of 8; or give --student-heads"),
        (["--student-hidden", "16", "--student-heads", "3"], "--student-hidden 16: not a multiple of --student-heads 3"),
        (["--student-heads", "2"], "--student-heads 2 needs --student-hidden"),
        (["--layers-init", "magic"], "--layers-init magic: expected first, spread, teacher-first, teacher-spread"),
        (["--student-init", "magic"], "magic: expected first, spread, teacher-first, teacher-spread or theseus:RUN"),
        (["--student-init", "theseus:nowhere"], "theseus:nowhere: there is no such folder"),
        (["--student-init", "theseus:tests"], "theseus:tests: not the folder of a run of"),
        (["--student-init", "theseus:runs", "--student-hidden", "16"], "--student-hidden 16: a successor of Theseus"),
        (["--maxlen", "41"], "has 40 positions"),
        (["--maxlen", "2"], "--maxlen 2: must be 3 or more"),
        (["--train-examples", "10", "--unlabelled-examples", "9"], "10 training examples are fewer than a batch"),
        (["--train-examples", "1000", *WITHOUT_LABELS], "--train-examples, or add a file of unlabelled texts\n"),
        (["--train-examples", "1000", *WITHOUT_LABELS, "alone"], "or do without: --experiments teacher alone\n"),
        (["--soft-labels", "x", "--experiments", "linear-distilled"], "no student among --experiments to take away; add one"),
        (["--soft-labels", "x", "--experiments", "teacher", "linear-distilled"], "no student among --experiments to take"),
        (["--unlabelled-examples", "None", *WITHOUT_LABELS], "distilled-unlabelled needs --unlabelled-examples; 0 takes"),
        (["--experiments", "distilled-augmented", "--augmentations", "0"], "--augmentations 0: must be 1 or more"),
        (["--experiments", "distilled-augmented", "--soft-labels", "x"], "with --soft-labels there is no teacher to label"),
        (["--narrowing", "least-squares"], "--narrowing least-squares needs --student-hidden"),
        (["--layer-mapping", "1", "2", *LAYERS], "--layer-mapping 1 2: the student has 3 layers, and each needs a layer"),
        (["--layer-mapping", "1", "2", "5", *LAYERS], "--layer-mapping 5: "),
        (["--layers-until", "0", *LAYERS], "--layers-until 0 --labels-from 0: the former must be above 0"),
        (["--layers-until", "0.2", "--labels-from", "0.8", *LAYERS], "must be above 0, the latter not above it"),
        (["--layers-until", "1", "--labels-from", "0.99", *LAYERS], "and 0.9 or less"),
        (["--hidden-weight", "0", "--attention-weight", "0", *LAYERS], "distilled-layers: no layer would be learned; raise"),
        (["--soft-labels", "answers.jsonl", *LAYERS], "distilled-layers: with --soft-labels there is no teacher whose layers"),
        (["--student-hidden", "16", "--attention-weight", "1", *LAYERS], "has 2 heads, "),
        (["--soft-weight", "0", *WITHOUT_LABELS], "--soft-weight 0: distilled-unlabelled learns texts without labels by soft"),
        (["--soft-weight", "0", "--experiments", "distilled-augmented"], "--soft-weight 0: distilled-augmented learns texts"),
        (["--hidden-loss", "cls", *WITHOUT_LABELS], "--hidden-loss cls: no row reads it; add distilled-layers to --exp"),
        (["--layer-mapping", "1", "2", "--soft-labels", "x"], "--layer-mapping 1 2: no row reads it; add distilled-layers"),
        (["--layers-init", "theseus:nowhere", *WITHOUT_LABELS], "--layers-init theseus:nowhere: no row reads it; add disti"),
        (["--student-init", "theseus:nowhere", *LAYERS], "--student-init theseus:nowhere: no row reads it; add alone to"),
        (["--bilstm-learning-rate", "0.1"], "--bilstm-learning-rate 0.1: no row reads it; add bilstm-alone to --experiments"),
        (["--augmentations", "3"], "--augmentations 3: no row reads it; add distilled-augmented to --experiments"),
        (["--experiments", "teacher", "magic"], "--experiments magic: expected some of teacher alone"),
        (["paper"], "'paper' is not a preset; expected demo or original or 20newsgroups or "),
        (["original", "--bert", "minilm-l6", "--data", "iflytek"], "iflytek is not here"),
        (["original", "--bert", "chinese-bert-base"], "chinese-bert-base is not here"),
    ],
)
def test_bad_settings_end_in_one_line(bert_folder, data_folder, tmp_path, words, message):
    sane = ["--data", data_folder, "--bert", bert_folder, "--maxlen", 16, "--train-examples", 64, "--unlabelled-examples", 16]
    sane += ["--validation-examples", 16, "--test-examples", 0]
    assert message in refused(script, tmp_path / "run", sane, words)


def test_a_tokenizer_that_cannot_be_trimmed_is_refused_before_training(bert_folder, data_folder, tmp_path):
    folder = shutil.copytree(bert_folder, tmp_path / "bert")
    (folder / "vocab.txt").unlink()
    tokenizer = Tokenizer(models.WordLevel({"[CLS]": 0, "[UNK]": 1}, unk_token="[UNK]"))
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A", special_tokens=[("[CLS]", 0)])
    tokenizer.save(str(folder / "tokenizer.json"))
    words = ["--data", data_folder, "--bert", folder, "--maxlen", 16]
    message = "has a WordLevel tokenizer, and only WordPiece and Unigram ones can be trimmed; --vocabulary 0 does without"
    assert message in refused(script, tmp_path / "run", words, ["--vocabulary", 80])


def test_original_says_what_to_fetch_and_what_to_give_instead():
    assert start(script, "original").stderr == (
        "error: chinese-bert-base and iflytek are not here: python -m data fetch chinese-bert-base iflytek, or --download, "
        "fetches them (about 0.4 GB, 6.51 MB); or give your own with --bert PATH and --data PATH\n"
    )
    error = start(script, "original", "--bert", "minilm-l6", "--student-layers", "3").stderr
    assert "iflytek is not here: python -m data fetch iflytek" in error and error.endswith("give your own with --data PATH\n")


def test_a_folder_with_another_run_is_refused(bert_folder, data_folder, tmp_path):
    (tmp_path / "settings.json").write_text(json.dumps({"settings": {"temperature": 9}, "inputs": {}}))
    words = ["--data", data_folder, "--bert", bert_folder, "--maxlen", 16, "--train-examples", 64, "--unlabelled-examples", 16,
             "--validation-examples", 16, "--student-layers", 2, "--test-examples", 0, "--output", tmp_path]
    done = start(script, *words)
    assert done.returncode == 2 and "holds a run with another" in done.stderr


def test_output_that_cannot_be_written(bert_folder, data_folder, tmp_path):
    (tmp_path / "file").write_text("")
    words = ["--data", data_folder, "--bert", bert_folder, "--maxlen", 16, "--train-examples", 64, "--unlabelled-examples", 16,
             "--validation-examples", 16, "--student-layers", 2, "--test-examples", 0, "--output", tmp_path / "file" / "run"]
    done = start(script, *words)
    assert done.returncode == 2 and "cannot be written" in done.stderr and done.stderr.count("\n") == 1


# The script as a user starts it


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One run of all experiments; returns (the words it was started with, its folder, what it printed)."""
    folder = tmp_path_factory.mktemp("smoke")
    tiny.write_data(folder / "data", train=400, test=200)
    tiny.write_bert(folder / "bert", config=tiny.CONFIG | {"num_hidden_layers": 2})
    words = [
        "--data", folder / "data", "--bert", folder / "bert", "--output", folder / "run", "--experiments", *ALL, "--maxlen", 16,
        "--train-examples", 256, "--unlabelled-examples", 64, "--validation-examples", 64, "--test-examples", 0,
        "--batch-size", 32, "--student-layers", 1, "--teacher-epochs", 6, "--student-epochs", 6, "--unlabelled-steps", 50,
        "--augmentations", 2,
        "--teacher-learning-rate", 2e-3, "--student-learning-rate", 2e-3,
    ]
    return words, folder / "run", run_to_the_end(script.__name__, *words)


@pytest.mark.slow
def test_smoke_results(finished):
    folder = finished[1]
    results = json.loads((folder / "results.json").read_text("utf-8"))
    assert results["schema"] == 1 and results["script"] == "knowledge_distillation_bert" and results["preset"] == "demo"
    assert results["settings"]["temperature"] == 6.0
    assert {"python", "tensorflow", "tf_keras", "bert4keras", "numpy", "machine"} <= results["environment"].keys()
    counts = {"classes": 4, "train": 256, "unlabelled": 64, "validation": 64, "test": 200}
    assert counts.items() <= results["data"].items()
    models = {model["name"]: model for model in results["models"]}
    assert tuple(models) == (*NETWORKS, "linear", "linear-distilled")
    for name in ("linear", "linear-distilled"):
        assert models[name]["layers"] == models[name]["epochs"] == 0 and models[name]["bytes"] > 1000
    assert models["linear-distilled"]["soft_label_accuracy"] == models["distilled"]["soft_label_accuracy"]
    assert models["linear-distilled"]["parameters"] > models["linear"]["parameters"]  # unlabelled texts' words too
    for name, model in models.items():
        assert model["accuracy"] > 0.40, f"{name} did not learn: chance is 0.25"  # five standard errors above chance
        assert 0 < model["macro_f1"] <= 1 and model["train_seconds"] > 0 and model["flops"] > 0
        assert model["latency_ms"].keys() == {"1", "32"}
    for name in NETWORKS:
        model, deep = models[name], name.startswith("teacher")
        assert model["layers"] == (2 if deep else 1)
        assert model["epochs"] == (10 if script.EXPERIMENTS[name].further else 6)
    assert models["teacher"]["flops"] > 1.9 * models["alone"]["flops"]
    assert models["teacher"]["parameters"] > models["alone"]["parameters"]
    for key in ("flops", "latency_ms", "parameters"):
        assert models["bilstm-alone"][key] == models["bilstm-distilled"][key] != models["alone"][key]
    assert [models[name]["unlabelled"] for name in ("distilled", "distilled-unlabelled", "linear-distilled")] == [0, 64, 64]
    assert models["noise"]["soft_label_accuracy"] == 1.0 and 0.5 < models["distilled"]["soft_label_accuracy"] <= 1
    logits = np.load(folder / "seed-0" / "distilled" / "test_logits.npy")
    alone = np.load(folder / "seed-0" / "alone" / "test_logits.npy")
    right = np.array([i % 4 for i in range(200)])
    assert models["distilled"]["accuracy"] == pytest.approx((logits.argmax(-1) == right).mean())
    pair = next(c for c in results["comparisons"] if (c["a"], c["b"]) == ("distilled", "alone"))
    gain = (logits.argmax(-1) == right).mean() - (alone.argmax(-1) == right).mean()
    assert pair["difference"] == pytest.approx(gain) and pair["seeds"] == [0]
    assert len(results["comparisons"]) == sum("distilled-ensemble" not in pair for pair in script.COMPARISONS)


@pytest.mark.slow
def test_smoke_output(finished):
    _, folder, done = finished
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    table = next(i for i, line in enumerate(lines) if line.startswith("model "))
    assert max(map(len, lines[table:-1])) <= 120
    assert str(folder) in lines[-1]
    taught = sum(bool(script.EXPERIMENTS[name].soft_labels) for name in ALL)
    assert sum("soft labels" in line and "% right" in line for line in lines) == taught
    assert sum("of 256 training texts" in line and "made by masks and n-grams, such as '" in line for line in lines) == 1
    for name in ("settings.json", "results.json", "log.csv", "report.md", "curves.png", "tradeoff.png"):
        assert (folder / name).stat().st_size > 0
    assert len(list((folder / "tensorboard").rglob("events.out*"))) >= len(NETWORKS)
    with open(folder / "log.csv", newline="") as file:
        log = list(csv.DictReader(file))
    longer = sum(bool(script.EXPERIMENTS[name].further) for name in NETWORKS)
    assert len(log) == 6 * (len(NETWORKS) - longer) + 10 * longer and float(log[0]["loss"]) > 0


@pytest.mark.slow
def test_smoke_best_epoch_is_kept(finished):
    """The weights that were saved have the best validation accuracy of the log, not the last one."""
    _, folder, _ = finished
    for name in NETWORKS:
        record = json.loads((folder / "seed-0" / name / "record.json").read_text("utf-8"))
        assert record["validation_accuracy"] == max(epoch["val_accuracy"] for epoch in record["history"])
    bert = berts.load(str(folder.parent / "bert"))
    corpus = texts.load(str(folder.parent / "data"))
    settings = replace(script.PRESETS["demo"], student_layers=1)
    parts = split(corpus, 0, 256, 64, 64, 0)
    examples = tiny.tokenized(corpus.texts, bert)
    run = Run(settings, 0, corpus, examples, parts, folder, bert)
    for name in ("teacher", "distilled"):
        record = json.loads((folder / "seed-0" / name / "record.json").read_text("utf-8"))
        logits = predict(trained(run, name, script.build).model, examples, parts.validation)
        assert (logits.argmax(-1) == corpus.labels[parts.validation]).mean() == record["validation_accuracy"]


@pytest.mark.slow
def test_smoke_the_distilled_linear_model_is_fitted_to_what_the_teacher_says(finished):
    """Put together otherwise: the stage's own teacher asked for classes, terms and machine of scikit-learn."""
    folder = finished[1]
    bert, corpus = berts.load(str(folder.parent / "bert")), texts.load(str(folder.parent / "data"))
    settings, parts = replace(script.PRESETS["demo"], student_layers=1), split(corpus, 0, 256, 64, 64, 0)
    examples = tiny.tokenized(corpus.texts, bert)
    run = Run(settings, 0, corpus, examples, parts, folder, bert)
    said = predict(trained(run, "teacher", script.build).model, examples, parts.unlabelled).argmax(-1)
    assert (said != corpus.labels[parts.unlabelled]).any()  # else it might have seen their labels
    lines = np.array(corpus.texts)
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b", dtype=np.float32)
    x = words.fit_transform(lines[np.append(parts.train, parts.unlabelled)])
    record = run.record("linear-distilled")
    machine = LinearSVC(C=record["strength"], random_state=0).fit(x, np.append(corpus.labels[parts.train], said))
    found = np.load(run.stage("linear-distilled") / "test_logits.npy")
    np.testing.assert_allclose(found, machine.decision_function(words.transform(lines[parts.test])), atol=1e-4)
    assert record["accuracy"] == (found.argmax(-1) == corpus.labels[parts.test]).mean()
    best = max(("linear", "linear-distilled"), key=lambda name: run.record(name)["validation_accuracy"])
    given, answers = load(folder / "linear"), np.load(run.stage(best) / "test_logits.npy")  # as users ask it
    found = ask(given, [corpus.texts[i] for i in parts.test])["probabilities"].argmax(axis=-1)
    np.testing.assert_array_equal(found, answers.argmax(axis=-1))


@pytest.mark.slow
def test_smoke_the_student_is_the_model_that_was_tested(finished):
    check_student(finished[1], layers=1)


@pytest.mark.slow
def test_smoke_the_student_comes_with_a_card_and_a_table(finished):
    _, folder, done = finished
    card = (folder / "student" / "README.md").read_text(encoding="utf-8")
    results = json.loads((folder / "results.json").read_text("utf-8"))
    best = next(model for model in results["models"] if model["name"] == results["student"]["name"])
    highest = max(model["validation_accuracy"] for model in results["models"] if model["layers"] == 1)
    assert best["validation_accuracy"] > highest - 0.1  # the plainest of those within the noise
    size = (folder / "student" / "model.onnx").stat().st_size / 1e6
    timed = {"model.onnx": "latency_ms", "model.int8.onnx": "int8_latency_ms"}
    for file in results["student"]["files"]:
        assert file["latency_ms"] == best[timed[file["name"]]]
    accuracy = results["student"]["accuracy"]["model.onnx"]
    rows = f"| student: {best['name']} | {100 * best['accuracy']:.2f} |", f"| model.onnx | {100 * accuracy:.2f} | {size:.3g} |"
    for row in rows:
        assert row in card and row in (folder / "report.md").read_text(encoding="utf-8")
    assert card.startswith("---\n") and "soft labels at temperature T" in card
    assert ": its own; data: its own. The model's own licence" in card
    assert "The student to take away" in done.stdout and "x smaller" in done.stdout


@pytest.mark.slow
def test_smoke_a_second_start_trains_nothing_but_a_lost_stage(finished, monkeypatch):
    no_files(monkeypatch)
    words, folder, first = finished
    before = json.loads((folder / "results.json").read_text("utf-8"))
    other = start(script, *words, "--temperature", 5)
    assert other.returncode == 2 and other.stderr.count("\n") == 1
    assert "holds a run with another temperature" in other.stderr
    shutil.rmtree(folder / "seed-0" / "noise")
    shutil.rmtree(folder / "seed-0" / "linear-distilled" / "model")  # as an older version left it
    again = start(script, *words)
    assert again.returncode == 0, again.stderr

    def lines(printed):
        return [line for line in printed.splitlines() if "epochs in" in line and " noise " not in line]

    assert lines(again.stdout) == lines(first.stdout) and len(lines(first.stdout)) == len(NETWORKS) - 1
    after = json.loads((folder / "results.json").read_text("utf-8"))
    for old, new in zip(before["models"], after["models"], strict=True):
        if old["name"] in ("noise", "linear-distilled"):  # trained anew, from the same seed
            assert new["train_seconds"] != old["train_seconds"]
            assert new["accuracy"] == old["accuracy"]
        else:
            assert new == old


@pytest.mark.slow
def test_smoke_a_narrower_student(tmp_path):
    """Up to its files, which are a narrower BERT's, and what it costs."""
    tiny.write_data(tmp_path / "data")
    tiny.write_bert(tmp_path / "bert", config=tiny.CONFIG | {"num_hidden_layers": 2})
    words = [
        "--data", tmp_path / "data", "--bert", tmp_path / "bert", "--output", tmp_path / "run", "--maxlen", 16, "--no-linear",
        "--experiments", "distilled", "--train-examples", 96, "--validation-examples", 32, "--test-examples", 0,
        "--student-layers", 1, "--student-hidden", 16, "--teacher-epochs", 2, "--student-epochs", 2,
        "--int8-disagreement", 100,
    ]
    done = start(script, *words, traced=False)
    assert done.returncode == 0, done.stderr
    check_student(tmp_path / "run", layers=1)
    config = json.loads((tmp_path / "run" / "student" / "config.json").read_text("utf-8"))
    assert [config[key] for key in berts.CONFIG_KEYS[1:5]] == [16, 1, 2, 32]
    assert (tmp_path / "run" / "student" / "model.int8.onnx").is_file()
    assert (tmp_path / "run" / "times-2-1x16.json").is_file()
    teacher, student = json.loads((tmp_path / "run" / "results.json").read_text("utf-8"))["models"]
    assert student["parameters"] == sum(
        np.prod(shape) for shape in berts.expected_shapes(config | {"vocab_size": 120}).values()) + 4 * 16 + 4
    assert student["flops"] < teacher["flops"] / 4
    other = start(script, *words, "--student-hidden", 8)
    assert other.returncode == 2 and "holds a run with another student hidden" in other.stderr
