"""knowledge_distillation_bert.py: its losses and models, its errors, and the script started as a user does."""

import csv
import json
import shutil
import weakref
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import log_softmax, rel_entr, softmax

import knowledge_distillation_bert as script
from common import data, distillation, pretrained, texts, training
from common.backend import keras
from common.evaluation import predict
from tests import tiny
from tests.alone import check_student
from tests.starting import refused, run_script, start

ALL = tuple(script.EXPERIMENTS)


# Losses and models


@pytest.fixture(scope="module")
def bert(bert_folder):
    return pretrained.load(str(bert_folder))


@pytest.fixture(scope="module")
def batch(bert):
    """Eight texts: token ids, and with them segment ids."""
    encoded = data.encode([text for text, _ in tiny.texts(8)], bert.tokenizer, maxlen=16)
    return encoded.inputs(np.arange(8))


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_the_loss_is_hintons(bert, batch, precision, policy):
    """hard_weight · CE + soft_weight · T² · KL, the mean over the batch; without a label only the second part."""
    precision(policy)
    classifier = texts.build_classifier(bert, classes=4, dropout=0.1)[1]
    model = distillation.compile_distilled(classifier, "sgd", 2.5, 0.7, 0.3)
    labels = np.array([0, 1, 2, 3, data.UNLABELLED, 1, data.UNLABELLED, 0], np.int32)
    teacher = softmax(np.random.default_rng(0).normal(0, 2, (8, 4)), axis=-1).astype(np.float32)

    logits = classifier.predict_on_batch(batch)
    assert logits.dtype == np.float32
    hard = -log_softmax(logits, axis=-1)[np.arange(8), labels] * (labels >= 0)
    soft = rel_entr(teacher, softmax(logits / 2.5, axis=-1)).sum(axis=-1)
    expected = 0.7 * hard.mean() + 0.3 * 2.5**2 * soft.mean()
    targets, weights = distillation.distillation_targets(labels, teacher)
    found = model.test_on_batch(batch, targets, weights, return_dict=True)
    assert found["loss"] == pytest.approx(expected, rel=1e-4)


def test_one_training_step_follows_the_gradient_of_that_loss(bert, batch):
    """The classifier's bias moves by -rate · d loss / d bias, which is simple enough to write down."""
    classifier = texts.build_classifier(bert, classes=4, dropout=0)[1]
    model = distillation.compile_distilled(classifier, keras.optimizers.SGD(0.1), 2.0, 1.0, 0.5)
    labels = np.array([0, 1, 2, 3, -1, 1, -1, 0], np.int32)
    teacher = softmax(np.random.default_rng(0).normal(0, 2, (8, 4)), axis=-1).astype(np.float32)
    logits = classifier.predict_on_batch(batch)
    one_hot = np.eye(4)[labels]
    hard = (softmax(logits, axis=-1) - one_hot) * (labels >= 0)[:, None]
    soft = 0.5 * 2.0**2 * (softmax(logits / 2, axis=-1) - teacher) / 2
    bias = classifier.get_layer("Classifier").get_weights()[1]
    targets, weights = distillation.distillation_targets(labels, teacher)
    model.train_on_batch(batch, targets, weights)
    moved = classifier.get_layer("Classifier").get_weights()[1]
    np.testing.assert_allclose(moved, bias - 0.1 * (hard + soft).mean(axis=0), atol=1e-5)


def test_a_teacher_is_out_of_memory_before_its_student_trains(bert, data_folder, tmp_path, monkeypatch):
    corpus = data.load(str(data_folder))
    settings = replace(script.PRESETS["demo"], student_layers=1, teacher_epochs=1, student_epochs=1)
    encoded = data.encode(corpus.texts, bert.tokenizer, 16)
    run = texts.Run(settings, 0, corpus, encoded, data.split(corpus, 0, train=64, validation=16), tmp_path, bert)
    script.train(run, "teacher")
    built, alive, trained, train_stage = [], [], script.trained, training.train_stage

    def watched(*words):
        found = trained(*words)
        built.append(weakref.ref(found[2]))
        return found

    def counted(*words, **more):
        alive.extend(model() is not None for model in built)
        return train_stage(*words, **more)

    monkeypatch.setattr(script, "trained", watched)
    monkeypatch.setattr(training, "train_stage", counted)
    script.train(run, "distilled")
    assert alive == [False]


def test_the_logits_read_the_cls_token(bert, batch):
    encoder, classifier = texts.build_classifier(bert, classes=4, dropout=0.1)
    kernel, bias = classifier.get_layer("Classifier").get_weights()
    hidden = encoder.model.predict_on_batch(batch)
    np.testing.assert_allclose(classifier.predict_on_batch(batch), hidden[:, 0] @ kernel + bias, atol=1e-5)


@pytest.mark.parametrize(
    ("init", "kept"), [("first", [0, 1]), ("spread", [1, 3]), ("teacher-first", [0, 1]), ("teacher-spread", [1, 3])]
)
def test_where_the_student_starts(bert, data_folder, tmp_path, init, kept):
    settings = replace(script.PRESETS["demo"], student_layers=2, student_init=init)
    run = texts.Run(settings, 0, data.load(str(data_folder)), None, None, tmp_path, bert)
    teacher = script.build(run, "teacher")[2]
    teacher.set_weights([value + 1 for value in teacher.get_weights()])  # as if fine-tuned
    script.training.save_weights(teacher, run.stage("teacher") / "weights.npz")
    start, encoder, _ = script.build(run, "distilled")
    shift = 1 if init.startswith("teacher") else 0
    built = pretrained.read_encoder(encoder, start).weights
    for new, old in enumerate(kept):
        name = "bert/encoder/layer_{}/intermediate/dense/kernel"
        np.testing.assert_allclose(built[name.format(new)], bert.weights[name.format(old)] + shift, atol=1e-6)
    name = "bert/embeddings/word_embeddings"
    np.testing.assert_allclose(built[name], bert.weights[name] + shift, atol=1e-6)


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
        (["--hard-weight", "0", "--soft-weight", "0"], "nothing would be learnt; one must be above 0"),
        (["--teacher-dropout", "1"], "--teacher-dropout 1.0: must be 0 or more and below 1"),
        (["--batch-size", "0"], "--batch-size 0: must be 1 or more"),
        (["--seeds", "0", "-1"], "--seeds -1: must be 0 or more"),
        (["--seeds", "4294967296"], "--seeds 4294967296: must be 0 or more and below 2**32"),
        (["--test-examples", "1"], "1 in the test part; at least 2 are needed"),
        (["--seeds"], "at least one is needed, and none twice"),
        (["--seeds", "1", "1"], "--seeds 1 1: at least one is needed, and none twice"),
        (["--student-layers", "7"], "hugging-face has 4 layers, so 1 to 4 can be taken"),
        (["--maxlen", "41"], "has 40 positions"),
        (["--maxlen", "2"], "--maxlen 2: must be 3 or more"),
        (["--train-examples", "20", "--unlabelled-examples", "9"], "20 training examples are fewer than a batch"),
        (["--train-examples", "1000"], "leaves none without labels; lower --train-examples, add"),
        (["--unlabelled-examples", "0"], "distilled-unlabelled needs --unlabelled-examples above 0"),
        (["--experiments", "teacher", "magic"], "--experiments magic: expected some of teacher alone"),
        (["paper"], "'paper' is not a preset; expected demo or original"),
        (["original", "--bert", "minilm-l6", "--data", "iflytek"], "iflytek is not here"),
        (["original", "--bert", "chinese-bert-base"], "chinese-bert-base is not here"),
    ],
)
def test_bad_settings_end_in_one_line(capsys, monkeypatch, bert_folder, data_folder, tmp_path, words, message):
    sane = ["--data", data_folder, "--bert", bert_folder, "--maxlen", 16, "--train-examples", 64, "--unlabelled-examples", 16]
    sane += ["--validation-examples", 16, "--test-examples", 0]
    assert message in refused(script, capsys, monkeypatch, tmp_path / "run", sane, words)


def test_original_says_what_to_fetch_and_what_to_give_instead(capsys, monkeypatch):
    _, error = start(script, capsys, monkeypatch, "original")
    assert error == (
        "error: chinese-bert-base and iflytek are not here: python -m data fetch chinese-bert-base iflytek, or --download, "
        "fetches them (about 0.4 GB, 6.51 MB); or give your own with --bert PATH and --data PATH\n"
    )
    _, error = start(script, capsys, monkeypatch, "original", "--bert", "minilm-l6", "--student-layers", "3")
    assert "iflytek is not here: python -m data fetch iflytek" in error and error.endswith("give your own with --data PATH\n")


def test_a_folder_with_another_run_is_refused(capsys, monkeypatch, bert_folder, data_folder, tmp_path):
    (tmp_path / "settings.json").write_text(json.dumps({"settings": {"temperature": 9}, "inputs": {}}))
    words = ["--data", data_folder, "--bert", bert_folder, "--maxlen", 16, "--train-examples", 64, "--unlabelled-examples", 16,
             "--validation-examples", 16, "--student-layers", 2, "--test-examples", 0, "--output", tmp_path]
    status, error = start(script, capsys, monkeypatch, *words)
    assert status == 2 and "holds a run with another" in error


def test_output_that_cannot_be_written(capsys, monkeypatch, bert_folder, data_folder, tmp_path):
    (tmp_path / "file").write_text("")
    words = ["--data", data_folder, "--bert", bert_folder, "--maxlen", 16, "--train-examples", 64, "--unlabelled-examples", 16,
             "--validation-examples", 16, "--student-layers", 2, "--test-examples", 0, "--output", tmp_path / "file" / "run"]
    status, error = start(script, capsys, monkeypatch, *words)
    assert status == 2 and "cannot be written" in error and error.count("\n") == 1


# The script as a user starts it


@pytest.fixture(scope="module")
def finished(tmp_path_factory, bert_folder):
    """One run of all experiments; returns (the words it was started with, its folder, what it printed)."""
    folder = tmp_path_factory.mktemp("smoke")
    tiny.write_data(folder / "data", train=400, test=200)
    words = [
        "--data", folder / "data", "--bert", bert_folder, "--output", folder / "run", "--experiments", *ALL, "--maxlen", 16,
        "--train-examples", 256, "--unlabelled-examples", 64, "--validation-examples", 64, "--test-examples", 0,
        "--student-layers", 2, "--teacher-epochs", 6, "--student-epochs", 6, "--unlabelled-epochs", 5,
        "--teacher-learning-rate", 2e-3, "--student-learning-rate", 2e-3,
    ]
    done = run_script(script.__name__, *words)
    assert done.returncode == 0, done.stderr
    return words, folder / "run", done


def test_smoke_results(finished):
    folder = finished[1]
    results = json.loads((folder / "results.json").read_text())
    assert results["schema"] == 1 and results["script"] == "knowledge_distillation_bert" and results["preset"] == "demo"
    assert results["settings"]["temperature"] == 6.0
    assert {"python", "tensorflow", "tf_keras", "bert4keras", "numpy", "machine"} <= results["environment"].keys()
    counts = {"classes": 4, "train": 256, "unlabelled": 64, "validation": 64, "test": 200}
    assert counts.items() <= results["data"].items()
    models = {model["name"]: model for model in results["models"]}
    assert tuple(models) == ALL
    for name, model in models.items():
        deep = name.startswith("teacher")
        assert model["layers"] == (4 if deep else 2)
        assert model["epochs"] == (5 if name == "distilled-unlabelled" else 6)
        assert model["accuracy"] > 0.40, f"{name} did not learn: chance is 0.25"  # five standard errors above chance
        assert 0 < model["macro_f1"] <= 1 and model["train_seconds"] > 0 and model["flops"] > 0
        assert model["latency_ms"].keys() == {"1", "32"}
    assert models["teacher"]["flops"] > 1.9 * models["alone"]["flops"]
    assert models["teacher"]["parameters"] > models["alone"]["parameters"]
    assert models["noise"]["soft_label_accuracy"] == 1.0 and 0.5 < models["distilled"]["soft_label_accuracy"] <= 1
    logits = np.load(folder / "seed-0" / "distilled" / "test_logits.npy")
    alone = np.load(folder / "seed-0" / "alone" / "test_logits.npy")
    right = np.array([i % 4 for i in range(200)])
    assert models["distilled"]["accuracy"] == pytest.approx((logits.argmax(-1) == right).mean())
    pair = next(c for c in results["comparisons"] if (c["a"], c["b"]) == ("distilled", "alone"))
    gain = (logits.argmax(-1) == right).mean() - (alone.argmax(-1) == right).mean()
    assert pair["difference"] == pytest.approx(gain) and pair["seeds"] == [0]
    assert len(results["comparisons"]) == len(script.COMPARISONS)


def test_smoke_output(finished):
    _, folder, done = finished
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    table = next(i for i, line in enumerate(lines) if line.startswith("model "))
    assert max(map(len, lines[table:-1])) <= 100
    assert str(folder) in lines[-1]
    assert sum("soft labels" in line and "% right" in line for line in lines) == 5
    for name in ("settings.json", "results.json", "log.csv", "report.md", "curves.png", "tradeoff.png"):
        assert (folder / name).stat().st_size > 0
    assert len(list((folder / "tensorboard").rglob("events.out*"))) >= len(ALL)
    with open(folder / "log.csv", newline="") as file:
        log = list(csv.DictReader(file))
    assert len(log) == 6 * 6 + 5 and float(log[0]["loss"]) > 0


def test_smoke_best_epoch_is_kept(finished):
    """The weights that were saved have the best validation accuracy of the log, not the last one."""
    _, folder, _ = finished
    for name in ALL:
        record = json.loads((folder / "seed-0" / name / "record.json").read_text())
        assert record["validation_accuracy"] == max(epoch["val_accuracy"] for epoch in record["history"])
    bert = pretrained.load(str(json.loads((folder / "settings.json").read_text())["settings"]["bert"]))
    corpus = data.load(str(folder.parent / "data"))
    settings = replace(script.PRESETS["demo"], student_layers=2)
    parts = data.split(corpus, 0, 256, 64, 64, 0)
    encoded = data.encode(corpus.texts, bert.tokenizer, 16)
    run = texts.Run(settings, 0, corpus, encoded, parts, folder, bert)
    for name in ("teacher", "distilled"):
        record = json.loads((folder / "seed-0" / name / "record.json").read_text())
        logits = predict(script.trained(run, name)[2], encoded, parts.validation)
        assert (logits.argmax(-1) == corpus.labels[parts.validation]).mean() == record["validation_accuracy"]


def test_smoke_the_student_is_the_model_that_was_tested(finished, tmp_path):
    check_student(finished[1], tmp_path)


def test_smoke_the_student_comes_with_a_card_and_a_table(finished):
    _, folder, done = finished
    card = (folder / "student" / "README.md").read_text(encoding="utf-8")
    models = json.loads((folder / "results.json").read_text())["models"]
    best = max((m for m in models if m["layers"] == 2), key=lambda m: m["validation_accuracy"])
    size = (folder / "student" / "model.safetensors").stat().st_size / 1e6
    row = f"| student: {best['name']} | {100 * best['accuracy']:.2f} | {size:.3g} | "
    assert row in card and row in (folder / "report.md").read_text(encoding="utf-8")
    assert card.startswith("---\n") and "Licences: those of" in card and "soft labels at temperature T" in card
    assert "The student to take away" in done.stdout and "x smaller" in done.stdout


def test_smoke_a_second_start_trains_nothing_and_a_lost_stage_is_made_again(finished, tmp_path):
    words, folder, first = finished
    again = run_script(script.__name__, *words)
    assert again.returncode == 0, again.stderr
    assert [line for line in again.stdout.splitlines() if "epochs in" in line] == [
        line for line in first.stdout.splitlines() if "epochs in" in line
    ]
    before = json.loads((folder / "results.json").read_text())
    other = run_script(script.__name__, *words, "--temperature", 5)
    assert other.returncode == 2 and other.stderr.count("\n") == 1
    assert "holds a run with another temperature" in other.stderr
    shutil.rmtree(folder / "seed-0" / "noise")
    assert run_script(script.__name__, *words).returncode == 0
    after = json.loads((folder / "results.json").read_text())
    for old, new in zip(before["models"], after["models"], strict=True):
        if old["name"] == "noise":  # trained anew, from the same seed
            assert new["train_seconds"] != old["train_seconds"]
            assert new["accuracy"] == old["accuracy"]
        else:
            assert new == old
