"""knowledge_distillation_from_scratch.py: its models and soft labels, its errors, and the script started as a user does."""

import contextlib
import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from scipy.special import log_softmax, rel_entr, softmax

import knowledge_distillation_from_scratch as script
from common.backend import keras
from common.batches import Pixels
from common.distillation import distillation_loss, distillation_targets
from common.evaluation import predict
from common.files import write_array
from common.training import Run, save_weights
from data import fetching, images
from data.parts import split
from report import temperatures
from tests.alone import ask_alone
from tests.starting import refused, run_to_the_end, start

DEMO = script.PRESETS["demo"]


def write_images(path, train=240, test=90, shape=(8, 8), classes=3):
    """An .npz of noisy images: a bright row, a bright column or a bright corner."""
    rng = np.random.default_rng(0)

    def part(count):
        labels = np.arange(count) % classes
        pixels = rng.integers(0, 120, (count, *shape))
        for image, label in zip(pixels, labels, strict=True):
            place = rng.integers(0, 8)
            image[(place, slice(0, 4 * (label == 2) or 8), slice(0, 4))[label], (slice(None), place, slice(0, 4))[label]] += 90
        return pixels.astype(np.uint8), np.array(["row", "column", "corner"])[labels]

    (x_train, y_train), (x_test, y_test) = part(train), part(test)
    np.savez(path, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    return path


# Teacher and student


def test_models_of_cifar10_have_the_notebooks_parameters():
    assert script.build_teacher((32, 32, 3), 10, 0.5).count_params() == 1_060_074
    assert script.build_student((32, 32, 3), 10, script.PRESETS["original"].student_units).count_params() == 197_322


def numpy_convolution(x, kernel, bias):
    """2 x 2, stride 1, `same`: TensorFlow pads below and to the right. x: (height, width, channels)."""
    padded = np.pad(x, ((0, 1), (0, 1), (0, 0)))
    height, width = x.shape[:2]
    shifted = [padded[i : i + height, j : j + width] for i in (0, 1) for j in (0, 1)]
    kernels = kernel.reshape(4, *kernel.shape[2:])
    return np.maximum(sum(np.tensordot(x, k, 1) for x, k in zip(shifted, kernels, strict=True)) + bias, 0)


def numpy_pooling(x):
    height, width = x.shape[0] // 2, x.shape[1] // 2
    return x[: 2 * height, : 2 * width].reshape(height, 2, width, 2, -1).max(axis=(1, 3))


@pytest.mark.parametrize("shape", [(8, 8, 1), (9, 12, 3)])
def test_the_teacher_is_the_notebooks_layer_for_layer(shape):
    teacher = script.build_teacher(shape, 4, 0.5)
    x = np.random.default_rng(0).random(shape).astype(np.float32)
    k1, b1, k2, b2, k3, b3, k4, b4 = teacher.get_weights()
    assert (k1.shape, k2.shape, k3.shape[1]) == ((2, 2, shape[2], 32), (2, 2, 32, 64), 256)
    hidden = numpy_pooling(numpy_convolution(numpy_pooling(numpy_convolution(x, k1, b1)), k2, b2))
    logits = np.maximum(hidden.ravel() @ k3 + b3, 0) @ k4 + b4
    np.testing.assert_allclose(teacher.predict_on_batch(x[None])[0], logits, atol=1e-5)
    dropped = [layer for layer in teacher.layers if isinstance(layer, keras.layers.Dropout)]
    assert [layer.rate for layer in dropped] == [0.5] and teacher.layers.index(dropped[0]) == len(teacher.layers) - 2


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_the_students_loss_is_hintons(precision, policy):
    """0.5 · CE + 0.5 · 3.25² · KL, as in the notebook, computed in numpy from the student's logits."""
    precision(policy)
    settings = script.PRESETS["original"]
    student = script.build_student((4, 4, 1), 5, 6)
    student.compile("sgd", loss=distillation_loss(settings.temperature, settings.hard_weight, settings.soft_weight))
    rng = np.random.default_rng(0)
    x, labels = rng.random((7, 4, 4, 1)).astype(np.float32), rng.integers(0, 5, 7)
    teacher = softmax(rng.normal(0, 2, (7, 5)), axis=-1).astype(np.float32)
    logits = student.predict_on_batch(x).astype(np.float64)
    hard = -log_softmax(logits, axis=-1)[np.arange(7), labels].mean()
    soft = rel_entr(teacher, softmax(logits / 3.25, axis=-1)).sum(axis=-1).mean()
    found = student.test_on_batch(x, distillation_targets(labels, teacher), return_dict=True)
    assert found["loss"] == pytest.approx(0.5 * hard + 0.5 * 3.25**2 * soft, rel=1e-4)


# Soft labels


@given(st.integers(2, 12), st.integers(1, 30), st.floats(0.5, 50), st.integers(0, 99))
def test_soft_labels(classes, count, temperature, seed):
    rng = np.random.default_rng(seed)
    logits, labels = rng.normal(0, 3, (count, classes)), rng.integers(0, classes, count)
    softened = softmax(logits / temperature, axis=-1)
    np.testing.assert_allclose(script.soft_labels_of("teacher", logits, labels, temperature), softened, atol=1e-6)

    decisions = script.soft_labels_of("decisions", logits, labels, temperature)
    assert (decisions.argmax(-1) == logits.argmax(-1)).all() and (decisions.sum(-1) == 1).all()
    assert set(decisions.ravel()) == {0, 1}

    smoothing = script.soft_labels_of("smoothing", logits, labels, temperature)
    np.testing.assert_allclose(smoothing.sum(axis=-1), 1, atol=1e-5)
    own = smoothing[np.arange(count), labels]
    np.testing.assert_allclose(own, softened[np.arange(count), labels].mean(), atol=1e-5)  # as much doubt as the teacher
    others = smoothing[np.arange(classes) != labels[:, None]]
    np.testing.assert_allclose(others, (1 - own[0]) / (classes - 1), atol=1e-5)  # and none of what it knows


def test_a_raised_bias_makes_up_for_a_class_never_seen():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 500)
    logits = 4 * np.eye(4)[labels] + rng.normal(0, 0.5, (500, 4))
    assert script.bias_for(logits, labels, 2) == 0  # nothing to make up for
    low = temperatures.raised(logits, 2, -7.0)
    np.testing.assert_allclose(low[:, [0, 1, 3]], logits[:, [0, 1, 3]])
    assert (low.argmax(-1) == labels)[labels == 2].mean() < 0.05
    bias = script.bias_for(low, labels, 2)
    right = (temperatures.raised(low, 2, bias).argmax(-1) == labels).mean()
    assert 3 < bias < 11 and right > 0.99
    assert script.bias_for(temperatures.raised(logits, 2, -70.0), labels, 2) == pytest.approx(bias + 63, abs=0.01)
    for other in np.arange(0, 30, 0.5):
        assert (temperatures.raised(low, 2, other).argmax(-1) == labels).mean() <= right


def test_the_raised_bias_is_chosen_on_the_validation_part_and_judged_on_the_test_part(run, tmp_path):
    run = replace(run, folder=tmp_path, settings=replace(DEMO, omit_class="corner"))
    student, omitted, seen = script.build(run, "alone"), run.corpus.classes.index("corner"), []
    test_logits = np.random.default_rng(0).normal(size=(len(run.parts.test), 3)).astype(np.float32)
    write_array(run.stage("alone-without-corner") / "test_logits.npy", test_logits)

    def bias_for(*given):
        seen.append(given)
        return 0.7

    experiment = {"alone-without-corner": script.Experiment(None, without=omitted)}
    plain, higher = temperatures.recognitions(run, experiment, lambda run, name: student, bias_for)
    (logits, labels, number), = seen
    np.testing.assert_array_equal(labels, run.corpus.labels[run.parts.validation])
    np.testing.assert_allclose(logits, predict(student, run.examples, run.parts.validation))
    assert number == omitted and (plain["bias"], higher["bias"]) == (0, 0.7)
    test_logits[:, omitted] += 0.7
    right = test_logits.argmax(-1) == run.corpus.labels[run.parts.test]
    assert higher["accuracy"] == right.mean()


def test_live_units(run, tmp_path):
    """A unit whose bias keeps it below 0 for every image is not counted; the count is that of the model's own ReLU layer."""
    run = replace(run, folder=tmp_path)
    student = script.build(run, "alone")
    kernel, bias, *rest = student.get_weights()
    bias[[0, 3, 4]] = -1e6
    student.set_weights([kernel, bias, *rest])
    save_weights(student, run.stage("alone") / "weights.npz")
    hidden = keras.Model(student.inputs, student.layers[1].output).predict_on_batch(run.examples.inputs(run.parts.validation))
    expected = int((hidden.max(axis=0) > 0).sum())
    assert script.live_units(run, "alone") == expected <= DEMO.student_units - 3


# What an experiment sees


def run_on_images(folder):
    """Of few of them, with the settings of the demo; nothing is trained."""
    corpus = images.load(str(write_images(folder / "images.npz")))
    return Run(DEMO, 3, corpus, Pixels(corpus.pixels), split(corpus, 3, validation=40), folder)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return run_on_images(tmp_path_factory.mktemp("run"))


def test_images_that_an_experiment_does_not_see(run):
    whole = script.parts_for(run, script.Experiment(None))
    assert whole is run.parts
    few = script.parts_for(run, script.Experiment(None, images=30))
    assert np.bincount(run.corpus.labels[few.train]).tolist() == [10, 10, 10] and set(few.train) < set(whole.train)
    assert few.validation is whole.validation and few.test is whole.test
    without = script.parts_for(run, script.Experiment(None, without=1))
    for part in ("train", "validation"):
        seen = {index for index in getattr(whole, part) if run.corpus.labels[index] != 1}
        assert set(getattr(without, part)) == seen
    assert without.test is whole.test and 1 in run.corpus.labels[without.test]


@pytest.mark.slow
def test_students_of_a_seed_start_alike_and_see_images_in_the_same_order(run):
    """So that they differ by their soft labels alone; the two losses compute the same where the soft one weighs nothing."""
    settings = replace(DEMO, soft_weight=0.0, hard_weight=1.0, teacher_epochs=1, student_epochs=2, batch_size=16)
    run = replace(run, settings=settings)
    wanted, _ = script.experiments(run.settings, run.corpus.classes)
    for name in ("teacher", "alone", "distilled"):
        script.train(run, name, wanted[name])
    alone, distilled = (script.trained(run, name).get_weights() for name in ("alone", "distilled"))
    for a, b in zip(alone, distilled, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "kind", "temperature"),
    [("distilled", "teacher", 3.25), ("distilled-T10", "teacher", 10.0), ("label-smoothing", "smoothing", 3.25),
     ("teacher-decisions", "decisions", 1.0)],
)
def test_each_student_learns_at_its_own_temperature(run, tmp_path, monkeypatch, name, kind, temperature):
    """Soft labels and the loss of a row; a control has as much doubt as the teacher at the temperature of what it controls."""
    wanted = {"temperature": 3.25, "hard_weight": 0.4, "soft_weight": 0.6, "temperature_sweep": (10.0,)}
    run, seen = replace(run, folder=tmp_path, settings=replace(run.settings, **wanted)), []
    teacher = script.build(run, "teacher")
    save_weights(teacher, run.stage("teacher") / "weights.npz")
    monkeypatch.setattr(script, "train_stage", lambda *words, **more: seen.extend(words))
    script.train(run, name, script.experiments(run.settings, run.corpus.classes)[0][name])
    loss, _, indices, targets = seen[3:7]
    labels = run.corpus.labels[indices]
    soft_labels = script.soft_labels_of(kind, predict(teacher, run.examples, indices), labels, temperature)
    np.testing.assert_allclose(targets, distillation_targets(labels, soft_labels), atol=1e-5)
    own = np.random.default_rng(0).normal(0, 2, soft_labels.shape).astype(np.float32)
    np.testing.assert_allclose(loss(targets, own), distillation_loss(temperature, 0.4, 0.6)(targets, own), rtol=1e-4)


def test_an_epoch_is_as_many_steps_however_few_the_images(run, monkeypatch, tmp_path):
    """So a student of few images, or of all classes but one, has the same budget."""
    steps = {}
    monkeypatch.setattr(script, "train_stage", lambda run, name, *given, **_: steps.update({name: given[6]}))
    for name, experiment in {
        "alone": script.Experiment(None), "few": script.Experiment(None, images=30), "less": script.Experiment(None, without=1),
    }.items():
        script.train(replace(run, folder=tmp_path), name, experiment)
    assert steps == {"alone": 2, "few": 2, "less": 2}  # of 128 in 200 images


def test_experiments_and_comparisons_follow_the_settings():
    sweeps = {"temperature_sweep": (1.0, 10.0), "train_examples_sweep": (50,)}
    settings = replace(DEMO, omit_class="b", experiments=("distilled",), **sweeps)
    wanted, pairs = script.experiments(settings, ["a", "b", "c"])
    assert [*wanted] == [
        "teacher", "distilled", "distilled-T1", "distilled-T10", "alone-50-images", "distilled-50-images",
        "alone-without-b", "distilled-without-b",
    ]
    assert wanted["distilled-T10"].temperature == 10 and wanted["distilled-50-images"].images == 50
    assert wanted["distilled-without-b"] == script.Experiment("teacher", DEMO.temperature, without=1)
    assert ("distilled-50-images", "alone-50-images") in pairs and ("distilled-T1", "alone") in pairs
    assert script.at_temperature(2.0000001) != script.at_temperature(2.0) == "distilled-T2"  # each has a folder of its own


@pytest.mark.parametrize("name", ["a b", "猫/狗", "..", "长" * 30, "long " * 60, "长" * 200])
def test_a_class_of_any_name_can_be_omitted(run, tmp_path, name):
    """Its name is a part of the names of stages, and so of folders; each has one of its own."""
    classes = ["a", name, f"{name}{name[-1]}"]
    stages = [[*script.experiments(replace(DEMO, omit_class=each), classes)[0]][-2:] for each in classes]
    assert len({stage for pair in stages for stage in pair}) == 6
    for stage in stages[1]:
        folder = replace(run, folder=tmp_path).stage(stage)
        folder.mkdir(parents=True)
        assert folder.parent == tmp_path / "seed-3" and folder.name.split("-")[1] == "without"


# Errors


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "nowhere"], "--data nowhere: neither an .npz file, nor a folder"),
        (["--temperature", "-1"], "temperature -1.0: must be from 0.01 to 1000"),
        (["--temperature-sweep", "1", "0"], "temperature 0.0: must be from 0.01 to 1000"),
        (["--train-examples-sweep", "0"], "--train-examples-sweep 0: must be 1 or more"),
        (["--train-examples-sweep", "200"], "must be below the 200 training images; --train-examples-sweep without a"),
        (["--hard-weight", "0", "--soft-weight", "0"], "nothing would be learned; one must be above 0"),
        (["--omit-class", "row", "--validation-examples", "0"], "--omit-class needs --validation-examples above 0"),
        (["--omit-class", "row", "--validation-examples", "1"], "1 validation images are of this class; there must be some"),
        (["--temperature-sweep", "2", "2"], "--temperature-sweep 2.0 2.0: none may stand twice"),
        (["--omit-class", "x"], "--omit-class x: expected some of column corner row"),
        (["--experiments", "noise"], "--experiments noise: expected some of teacher alone distilled"),
        (["--student-units", "0"], "--student-units 0: must be 1 or more"),
        (["--teacher-dropout", "1"], "--teacher-dropout 1.0: must be 0 or more and below 1"),
        (["--seeds", "-1"], "--seeds -1: must be 0 or more"),
        (["--image", "40"], "--image 40: there are 40 validation images, counted from 0"),
        (["--batch-size", "500"], "200 training examples are fewer than a batch; lower --batch-size 500"),
        (["--test-examples", "1"], "1 in the test part; at least 2 are needed"),
        (["original", "--data", "cifar10"], "cifar10 is not here: python -m data fetch cifar10, or --download, fetches it"),
    ],
)
def test_bad_settings_end_in_one_line(monkeypatch, tmp_path, words, message):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(fetching, "FOLDER", tmp_path / "data")
    sane = ["--data", write_images(tmp_path / "images.npz"), "--validation-examples", 40]
    assert message in refused(script, tmp_path / "run", sane, words)


def test_images_too_small_for_the_teacher(tmp_path):
    np.savez(tmp_path / "small.npz", x_train=np.random.default_rng(0).random((20, 3, 8)), y_train=np.arange(20) % 2)
    done = start(script, "--data", tmp_path / "small.npz", "--batch-size", 8)
    assert done.returncode == 2 and "images of 3 x 8 x 1; the teacher needs 4 x 4 or more" in done.stderr


# The script as a user starts it


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One run with everything asked for; returns (the words it was started with, its folder, what it printed)."""
    folder = tmp_path_factory.mktemp("smoke")
    words = [
        "--data", write_images(folder / "images.npz"), "--output", folder / "run", "--validation-examples", 40, "--seeds", 0, 1,
        "--batch-size", 32, "--student-epochs", 4, "--teacher-epochs", 6, "--student-units", 16,
        "--teacher-learning-rate", 3e-3, "--student-learning-rate", 1e-2,
        "--temperature-sweep", 1, 10, "--train-examples-sweep", 30, "--omit-class", "corner",
    ]
    return words, folder / "run", run_to_the_end(script.__name__, *words)


NAMES = [
    "teacher", "alone", "distilled", "label-smoothing", "teacher-decisions", "distilled-T1", "distilled-T10", "alone-30-images",
    "distilled-30-images", "alone-without-corner", "distilled-without-corner",
]


@pytest.mark.slow
def test_smoke_results(finished):
    _, folder, _ = finished
    results = json.loads((folder / "results.json").read_text("utf-8"))
    assert results["schema"] == 1 and results["script"] == "knowledge_distillation_from_scratch" and results["preset"] == "demo"
    assert results["data"]["train"] == 200 and results["data"]["validation"] == 40 and results["data"]["test"] == 90
    trained = [(model["seed"], model["name"]) for model in results["models"]]
    assert trained == [(seed, name) for seed in (0, 1) for name in NAMES]
    labels = np.array(["column", "corner", "row"])
    right = np.searchsorted(labels, np.array(["row", "column", "corner"])[np.arange(90) % 3])
    for model in results["models"]:
        logits = np.load(folder / f"seed-{model['seed']}" / model["name"] / "test_logits.npy").astype(np.float64)
        assert model["accuracy"] == pytest.approx((logits.argmax(-1) == right).mean())
        assert model["nll"] == pytest.approx(-log_softmax(logits, axis=-1)[np.arange(90), right].mean())
        assert model["layers"] == (4 if model["name"] == "teacher" else 2)
        assert model["name"] == "teacher" or 0 < model["live_units"] <= 16
        assert model["latency_ms"].keys() == {"1", "32"} and model["flops"] > 0
    by_name = {model["name"]: model for model in results["models"]}
    assert by_name["teacher"]["accuracy"] > 0.6  # of three classes: it has learned
    assert by_name["alone"]["parameters"] == 64 * 16 + 16 + 16 * 3 + 3
    pairs = [(c["a"], c["b"]) for c in results["comparisons"]]
    assert ("distilled", "alone") in pairs and ("distilled-30-images", "alone-30-images") in pairs and len(pairs) == 9


@pytest.mark.slow
def test_smoke_a_class_never_seen(finished):
    """The student alone never names it; what is reported are the test logits, and the bias raised."""
    _, folder, _ = finished
    found = json.loads((folder / "results.json").read_text("utf-8"))["omit_class"]
    assert [(f["seed"], f["name"]) for f in found][:7] == [(0, name) for name in ("teacher", "alone", "distilled")] + [
        (0, f"{name}-without-corner{told}") for name in ("alone", "distilled") for told in ("", ", bias raised")
    ]
    right = np.array([2, 0, 1])[np.arange(90) % 3]
    for record in found:
        name = record["name"].removesuffix(", bias raised")
        logits = np.load(folder / f"seed-{record['seed']}" / name / "test_logits.npy")
        logits[:, 1] += record["bias"]
        assert record["recall"] == pytest.approx((logits.argmax(-1) == 1)[right == 1].mean())
        assert record["accuracy"] == pytest.approx((logits.argmax(-1) == right).mean())
        assert record["bias"] == 0 or record["name"].endswith("bias raised")
    assert all(record["recall"] == 0 for record in found if record["name"] == "alone-without-corner")


def reopened(folder, seed):
    """The Run of a finished folder's seed, as the script made it."""
    settings = json.loads((folder / "settings.json").read_text("utf-8"))["settings"]
    settings = script.Settings(**{key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()})
    corpus = images.load(settings.data)
    return Run(settings, seed, corpus, Pixels(corpus.pixels), split(corpus, seed, validation=40), folder)


@pytest.mark.slow
def test_smoke_nothing_is_chosen_on_the_test_part(finished):
    """The epoch and the raised bias are what the validation images say."""
    _, folder, _ = finished
    found = json.loads((folder / "results.json").read_text("utf-8"))["omit_class"]
    for seed in (0, 1):
        run = reopened(folder, seed)
        for name in ("teacher", "distilled", "distilled-without-corner"):
            validation = run.parts.validation
            labels = run.corpus.labels[validation]
            logits = predict(script.trained(run, name), run.examples, validation)
            if name == "distilled-without-corner":
                raised = next(f for f in found if f["seed"] == seed and f["name"] == f"{name}, bias raised")
                assert raised["bias"] == pytest.approx(script.bias_for(logits, labels, 1), abs=1e-4)
                logits, labels = logits[labels != 1], labels[labels != 1]
            record = run.record(name)
            assert record["validation_accuracy"] == pytest.approx((logits.argmax(-1) == labels).mean())
            assert record["validation_accuracy"] == max(epoch["val_accuracy"] for epoch in record["history"])


@pytest.mark.slow
def test_smoke_the_plots_show_what_they_say(finished, monkeypatch):
    _, folder, _ = finished
    run, drawn = reopened(folder, 0), []

    @contextlib.contextmanager
    def kept(path, width, height):
        drawn.append(Figure(figsize=(width, height)))
        yield drawn[-1]

    monkeypatch.setattr(temperatures, "figure", kept)
    models = json.loads((folder / "results.json").read_text("utf-8"))["models"]
    assert script.plot(run, models) == ["temperature.png", "sweeps.png"]
    index = run.parts.validation[[run.settings.image]]
    logits = predict(script.trained(run, "teacher"), run.examples, index)[0].astype(float)
    lines = drawn[0].axes[1].lines
    assert [line.get_label() for line in lines] == [f"T = {t}" for t in (1, 5, 10, 20, 35, 50)]
    for line, temperature in zip(lines, (1, 5, 10, 20, 35, 50), strict=True):
        np.testing.assert_allclose(line.get_ydata(), softmax(logits / temperature), atol=1e-5)

    def means(names, key):
        return [100 * np.mean([model[key] for model in models if model["name"] == name]) for name in names]

    at = ["distilled-T1", "distilled", "distilled-T10"]
    for panel, key in zip(drawn[1].axes[:2], ("accuracy", "ece"), strict=True):
        assert panel.lines[0].get_xdata().tolist() == [1, 3.25, 10]
        np.testing.assert_allclose(panel.lines[0].get_ydata(), means(at, key))
    few = next(line for line in drawn[1].axes[2].lines if list(line.get_xdata()) == [30, 200])
    np.testing.assert_allclose(few.get_ydata(), means(["alone-30-images", "alone"], "accuracy"))


@pytest.mark.slow
def test_smoke_output(finished):
    _, folder, done = finished
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    table = next(i for i, line in enumerate(lines) if line.startswith("model "))
    assert max(map(len, lines[table:-1])) <= 110 and "ECE %" in lines[table]
    assert str(folder) in lines[-1] and "Class corner, left out of what the students see" in lines
    for name in ("settings.json", "results.json", "log.csv", "report.md"):
        assert (folder / name).stat().st_size > 0
    for name in ("curves.png", "tradeoff.png", "temperature.png", "sweeps.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG") and name in lines[-1]
        assert f"({name})" in (folder / "report.md").read_text("utf-8")
    with open(folder / "log.csv", newline="") as file:
        log = list(csv.DictReader(file))
    assert len(log) == 2 * (6 + 10 * 4)


@pytest.mark.slow
def test_smoke_the_student_to_take_away(finished, tmp_path):
    """TensorFlow alone loads it, and it gives the probabilities of the run's test logits."""
    _, folder, _ = finished
    name, seed = (folder / "report.md").read_text("utf-8").split("`student/` holds ")[1].split(".")[0].split(", seed ")
    results = json.loads((folder / "results.json").read_text("utf-8"))
    corpus = images.load(str(folder.parent / "images.npz"))
    settings, right, drawn = results["settings"], {}, []
    for each in settings["seeds"]:
        part = split(corpus, each, settings["train_examples"], 0, settings["validation_examples"]).validation
        drawn.append(part)
        for student in NAMES[1:5]:
            answers = np.load(folder / f"seed-{each}" / student / "validation_logits.npy").argmax(-1)
            right.setdefault(student, []).append(answers == corpus.labels[part])
    drawn, best = np.array(drawn), max(right, key=lambda student: np.mean(right[student]))
    for student in NAMES[1:5]:  # the first that is not more than a standard error below the best
        lead = np.array(right[best], float) - np.array(right[student])
        of_image = [(lead - lead.mean())[drawn == image].sum() for image in np.unique(drawn)]
        noise = np.var(of_image, ddof=1) * len(of_image) / lead.size**2 + lead.mean(axis=1).var(ddof=1) / len(lead)
        if lead.mean() <= noise**0.5:
            break
    models = [model for model in results["models"] if model["name"] == student]
    assert (name, int(seed)) == (student, max(models, key=lambda model: model["validation_accuracy"])["seed"])
    assert (f"leads {student} by" in (folder / "report.md").read_text("utf-8")) == (student != best)
    found = ask_alone(folder / "student" / "saved_model", tmp_path, images=corpus.pixels[corpus.test])
    logits = np.load(folder / f"seed-{seed}" / name / "test_logits.npy")
    np.testing.assert_allclose(found["probabilities"], softmax(logits, axis=-1), atol=1e-5)
    told = json.loads((folder / "student" / "classes.json").read_text("utf-8"))
    assert told == {"images": "float32 (batch, 8 x 8 x 1), from 0 to 1", "classes": ["column", "corner", "row"]}


@pytest.mark.slow
def test_smoke_a_finished_folder_is_extended_and_nothing_trained_again(finished):
    words, folder, first = finished
    before = json.loads((folder / "results.json").read_text("utf-8"))
    place = words.index("--temperature-sweep")
    again = start(script, *words[:place], "--temperature-sweep", 1, 10, 20, *words[place + 3 :])
    assert again.returncode == 0, again.stderr
    after = json.loads((folder / "results.json").read_text("utf-8"))
    new = [model for model in after["models"] if model["name"] == "distilled-T20"]
    assert [model for model in after["models"] if model not in new] == before["models"] and len(new) == 2
    assert [line for line in again.stdout.splitlines() if "epochs in" in line and "T20" not in line] == [
        line for line in first.stdout.splitlines() if "epochs in" in line
    ]
    other = start(script, *words, "--student-units", 17)
    assert other.returncode == 2 and "holds a run with another student units" in other.stderr and other.stderr.count("\n") == 1


@pytest.mark.slow
def test_smoke_original(tmp_path):
    """The preset's own models and weights on images of one's own, in colour; one seed has McNemar's test."""
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 4
    pixels = (rng.random((400, 12, 12, 3)) * 0.5 + 0.15 * labels[:, None, None, None] * [1, 0.5, 0]).astype(np.float32)
    np.savez(tmp_path / "colour.npz", x_train=pixels[:320], y_train=labels[:320], x_test=pixels[320:], y_test=labels[320:])
    done = start(script, "original", "--data", tmp_path / "colour.npz", "--output", tmp_path / "run",
                 "--teacher-epochs", 3, "--student-epochs", 3, "--experiments", "alone", "distilled")
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "run" / "results.json").read_text("utf-8"))
    assert results["settings"]["temperature"] == 3.25 and results["settings"]["student_units"] == 64
    assert [model["name"] for model in results["models"]] == ["teacher", "alone", "distilled"]
    assert "McNemar" in (tmp_path / "run" / "report.md").read_text("utf-8")
    other = start(script, "original", "--data", tmp_path / "colour.npz", "--output", tmp_path / "run",
                  "--teacher-epochs", 3, "--student-epochs", 3, "--experiments", "teacher")
    assert other.returncode == 0 and "student/ (none: no student in the table)" in other.stdout
    assert not (tmp_path / "run" / "student").exists()


@pytest.mark.slow
def test_smoke_mixed_precision_and_the_choice_on_test(tmp_path):
    done = start(script, "--data", write_images(tmp_path / "images.npz"), "--output", tmp_path / "run",
                 "--train-examples-sweep", "--teacher-epochs", 1, "--student-epochs", 1, "--seeds", 0,
                 "--precision", "mixed_bfloat16", "--validation-examples", 0, "--experiments", "alone", "distilled")
    assert done.returncode == 0, done.stderr
    assert "Epochs were chosen on the test part." in (tmp_path / "run" / "report.md").read_text("utf-8")
