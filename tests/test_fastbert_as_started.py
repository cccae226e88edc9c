"""knowledge_distillation_fastbert.py as a user starts it, and what the models that it leaves answer, in every form."""

import json
import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

import knowledge_distillation_fastbert as script
from common import InputError, training
from common.backend import tf
from common.bert import build_encoder, read_encoder
from common.devices import fresh_session
from common.early_exit import all_exits, early_exit_graph
from common.evaluation import predict
from common.exit_curve import chosen_top_k, exit_layers
from common.promise import keeps
from common.training import Run
from data import berts, students, teachers, texts
from data.parts import split
from export import onnx_int8
from export.exits import teacher_onnx
from export.onnx_files import asking
from export.predict import predict as ask
from report.exits import looked_at
from tests import tiny
from tests.alone import ask_alone, name_of_student
from tests.starting import no_files, run_to_the_end, start
from tests.test_knowledge_distillation_fastbert import DEMO, write_bert


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One run with the settings DEMO; returns (the words it was started with, its folder, what it printed)."""
    folder = tmp_path_factory.mktemp("smoke")
    tiny.write_data(folder / "data", train=400, test=200)
    words = [
        "--data", folder / "data", "--bert", write_bert(folder / "bert"), "--output", folder / "run", "--maxlen", 16,
        "--train-examples", 96, "--unlabelled-examples", 32, "--validation-examples", 30, "--batch-size", 16,
        "--student-layers", 1, "--teacher-epochs", 6, "--branch-epochs", 4, "--student-epochs", 6,
        "--teacher-learning-rate", 2e-3, "--branch-learning-rate", 3e-3, "--student-learning-rate", 2e-3,
        "--speeds", 0, 0.1, 0.5, 1, "--timed-examples", 12, "--experiments", "fastbert", "fastbert-joint",
    ]
    return words, folder / "run", run_to_the_end(script.__name__, *words)


@pytest.fixture(scope="module")
def run(finished):
    """That run, of which the stages `teacher` and `fastbert-branches` are read here."""
    _, folder, _ = finished
    bert, corpus = berts.load(str(folder.parent / "bert")), texts.load(str(folder.parent / "data"))
    parts = split(corpus, 0, DEMO.train_examples, DEMO.unlabelled_examples, DEMO.validation_examples)
    return Run(DEMO, 0, corpus, tiny.tokenized(corpus.texts, bert), parts, folder, bert)


@pytest.fixture(scope="module")
def fast(run):
    return script.trained_fastbert(run, "fastbert")


@pytest.fixture(scope="module")
def answers(fast):
    """The graph that stops early, by the number of classes that its uncertainty looks at."""
    return {top_k: early_exit_graph(fast, partial(script.uncertainty, top_k=top_k)) for top_k in (0, 2)}


@pytest.fixture(scope="module")
def answer(answers):
    return answers[0]


@pytest.fixture(scope="module")
def plain(run, fast):
    """Logits (texts, layers, classes) of the test texts, each exit computed the plain way."""
    return predict(all_exits(fast), run.examples, run.parts.test)


def uncertainties(logits, top_k=0):
    """Of logits (…, classes)."""
    return script.uncertainty(tf.nn.softmax(logits), top_k).numpy()


# What its models answer


@pytest.mark.slow
def test_the_last_exit_is_the_teacher(run, plain):
    np.testing.assert_allclose(plain[:, -1], np.load(run.stage("teacher") / "test_logits.npy"), atol=1e-5)
    np.testing.assert_allclose(plain, np.load(run.stage("fastbert-branches") / "test_logits.npy"), atol=1e-5)


@pytest.mark.slow
def test_a_row_keeps_its_branches_alone(run, fast):
    """The teacher lies in its own stage already."""
    with np.load(run.stage("fastbert-branches") / "weights.npz") as stored:
        assert len(stored.files) == sum(len(branch.weights) for branch in fast.branches[:-1])


@pytest.mark.slow
def test_a_branch_reads_the_output_of_its_layer(run, fast, plain):
    """The original's branches read the input."""
    encoder, _, teacher = script.build_teacher(run, 3, 0.0)
    training.load_stage(run, "teacher", teacher)
    tuned = read_encoder(encoder, run.bert)
    inputs = run.examples.inputs(run.parts.test[:9])
    for depth in (1, 2):
        hidden = build_encoder(berts.keep_layers(tuned, range(depth)), 0.0).model(inputs)
        logits = fast.branches[depth - 1](hidden, mask=tf.constant(inputs[0] != 0))
        np.testing.assert_allclose(logits, plain[:9, depth - 1], atol=1e-4)


SPEEDS = (0.0, 0.05, 0.3, 0.5, 0.7, 0.9, 1.0)


def near(u, speed):
    """Rows in which a rounding may decide."""
    return (np.abs(u - speed) < 1e-4).any(axis=1)


@pytest.mark.slow
@given(st.sampled_from(SPEEDS), st.integers(1, 40), st.integers(0, 10**6), st.sampled_from((0, 2)))
@settings(max_examples=40)
def test_each_answer_is_that_of_its_exit_branch(run, answers, plain, speed, batch_size, seed, top_k):
    """Whatever the speed, the size of the batch and the order of its rows; at speed 0 it is the teacher's own."""
    chosen = np.random.default_rng(seed).permutation(len(run.parts.test))[:batch_size]
    answer = answers[top_k]
    found = {key: value.numpy() for key, value in answer(*run.examples.inputs(run.parts.test[chosen]), speed).items()}
    u = uncertainties(plain[chosen], top_k)
    layers = exit_layers(u, speed)
    assert (found["layers_used"] == layers)[~near(u, speed)].all()
    rows = np.arange(batch_size)
    np.testing.assert_allclose(found["probabilities"], softmax(plain[chosen][rows, found["layers_used"] - 1], -1), atol=1e-5)
    np.testing.assert_allclose(found["uncertainty"], u[rows, found["layers_used"] - 1], atol=1e-4)
    if speed == 0:
        assert (found["layers_used"] == 3).all()


@pytest.mark.slow
def test_the_teacher_that_is_timed_is_the_last_exit(run, plain):
    ask = asking(teacher_onnx(script.HEADS, script.trained_teacher(run, "teacher")))()
    found, = ask(run.examples.inputs(run.parts.test[:20]))
    np.testing.assert_allclose(found, softmax(plain[:20, -1], axis=-1), atol=1e-5)


@pytest.mark.slow
def test_texts_do_leave_at_different_layers(plain):
    """Else the tests above would show little; and where only two classes are looked at, they leave elsewhere."""
    layers = [exit_layers(uncertainties(plain, top_k), 0.8) for top_k in (0, 2)]
    assert (layers[0] != layers[1]).any()
    assert max(len(set(exit_layers(uncertainties(plain, 0), speed))) for speed in SPEEDS) >= 3


@pytest.mark.slow
def test_a_graph_to_give_away_takes_the_tokenizers_own_padding(run, fast, answer):
    """Where the vocabulary pads with 7, ids 0 and 7 have changed places within the project, and change back in the graph."""
    token_ids, segment_ids = run.examples.inputs(run.parts.test[:9])
    theirs = np.select([token_ids == 0, token_ids == 7], [7, 0], token_ids)
    ours = answer(token_ids, segment_ids, 0.5)
    given_away = early_exit_graph(fast, script.uncertainty, pad_id=7)(theirs, segment_ids, 0.5)
    np.testing.assert_array_equal(ours["probabilities"], given_away["probabilities"])


@pytest.mark.slow
def test_no_text_no_answer(answer):
    found = answer(np.zeros((0, 8), np.int32), np.zeros((0, 8), np.int32), 0.5)
    assert found["probabilities"].shape == (0, 4) and found["layers_used"].shape == (0,)


@pytest.mark.slow
@pytest.mark.parametrize("narrow", ["mixed_bfloat16", "mixed_float16"])
def test_in_narrow_precision(run, precision, narrow):
    precision(narrow)
    fast = script.trained_fastbert(run, "fastbert")
    inputs = run.examples.inputs(run.parts.test[:20])
    logits = all_exits(fast)(inputs, training=False).numpy()
    found = {key: value.numpy() for key, value in early_exit_graph(fast, script.uncertainty)(*inputs, 0.5).items()}
    assert logits.dtype == found["probabilities"].dtype == np.float32
    expected = softmax(logits[np.arange(20), found["layers_used"] - 1], -1)
    np.testing.assert_allclose(found["probabilities"], expected, atol=0.05)


@pytest.mark.slow
def test_joint_training_moves_everything_and_is_read_as_it_was(run):
    before, same = [], []
    for weights in (before, same):
        with fresh_session(run.seed):  # in which it began
            weights += all_exits(script.build_fastbert(run, joint=True)).get_weights()
    assert all(map(np.array_equal, before, same))
    model = all_exits(script.trained_fastbert(run, "fastbert-joint"))
    moved = [not np.array_equal(old, new) for old, new in zip(before, model.get_weights(), strict=True)]
    assert np.mean(moved) > 0.85  # but for biases of keys, unused positions
    logits = predict(model, run.examples, run.parts.test)
    np.testing.assert_allclose(logits, np.load(run.stage("fastbert-joint-branches") / "test_logits.npy"), atol=1e-5)


# What the run leaves


@pytest.mark.slow
def test_smoke_results(finished):
    _, folder, done = finished
    assert done.stderr == ""
    results = json.loads((folder / "results.json").read_text("utf-8"))
    models = {model["name"]: model for model in results["models"]}
    assert [*models] == ["teacher", "alone-1", "fastbert", "fastbert-joint", "linear"]
    right = np.arange(200) % 4
    for name, model in models.items():
        logits = np.load(folder / "seed-0" / name / "test_logits.npy")
        assert model["accuracy"] == pytest.approx((logits.argmax(-1) == right).mean())
        assert model["accuracy"] > 0.4 and set(model["latency_ms"]) == {"1", "32"}
    assert models["fastbert"]["unlabelled"] == results["data"]["unlabelled"] and "unlabelled" not in models["fastbert-joint"]
    for name in ("fastbert", "fastbert-joint"):
        rows, logits = models[name]["exits"], np.load(folder / "seed-0" / f"{name}-branches" / "test_logits.npy")
        assert [row["speed"] for row in rows] == [0, 0.1, 0.5, 1] and logits.shape == (200, 3, 4)
        assert rows[0]["accuracy"] == (logits[:, 2].argmax(-1) == right).mean() and rows[0]["mean_layers"] == 3
        assert rows[3]["accuracy"] == (logits[:, 0].argmax(-1) == right).mean() and rows[3]["mean_layers"] == 1
        assert rows[1]["mean_layers"] >= rows[2]["mean_layers"] > 1
        for row in rows:
            for size, timed in row["timed"].items():
                speedup = models["teacher"]["latency_ms"][size] / timed["ms"] / timed["flops_speedup"] * row["flops_speedup"]
                assert row["wall_speedup"][size] == pytest.approx(speedup) and timed["flops_speedup"] > 0
        assert [[timed["mean_layers"] for timed in rows[i]["timed"].values()] for i in (0, 3)] == [[3, 3], [1, 1]]
        u = uncertainties(logits, models[name]["uncertainty_top_k"])
        layers = np.where(u[:, 0] < models[name]["speed"], 1, np.where(u[:, 1] < models[name]["speed"], 2, 3))
        assert models[name]["accuracy"] == (logits[np.arange(200), layers - 1].argmax(-1) == right).mean()
        assert models[name]["leaving"] == np.bincount(layers, minlength=4)[1:].tolist()
        assert models[name]["layers"] == pytest.approx(np.dot(models[name]["leaving"], [1, 2, 3]) / 200)
    assert [(c["a"], c["b"]) for c in results["comparisons"]] == [
        ("teacher", "linear"),
        *((name, other) for other in ("teacher", "alone-1", "linear") for name in ("fastbert", "fastbert-joint"))]
    assert results["branch_comparisons"][0]["a"] == "fastbert-joint"
    assert models["fastbert"]["exits"][0]["accuracy"] == models["teacher"]["accuracy"]
    for name in ("curves.png", "tradeoff.png", "exits.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG") and name in done.stdout.splitlines()[-1]
    document = (folder / "report.md").read_text("utf-8")
    for heading in ("fastbert: speeds", "Each branch by itself", "Mean accuracy of the branches", "First and last to leave"):
        assert heading in document and heading in done.stdout


@pytest.mark.slow
def test_smoke_the_student_answers_with_tensorflow_alone(finished, tmp_path):
    """In a process that knows neither this project nor Keras: the probabilities and layers of the run, from one graph."""
    _, folder, done = finished
    config = json.loads((folder / "student" / "config.json").read_text("utf-8"))
    name = done.stdout.split("student/ (")[1].split(",")[0]
    corpus, bert = texts.load(str(folder.parent / "data")), berts.load(str(folder / "student"))
    assert bert.layers == config["num_hidden_layers"] == 3 and config["architectures"] == ["BertModel"]
    token_ids, segment_ids = tiny.tokenized([corpus.texts[index] for index in corpus.test[:40]], bert).inputs(np.arange(40))
    speed = np.array(config["speed"], np.float32)
    found = ask_alone(folder / "student" / "saved_model", tmp_path, token_ids=token_ids, segment_ids=segment_ids, speed=speed)
    logits = np.load(folder / "seed-0" / name / "test_logits.npy")[:40]
    plain = np.load(folder / "seed-0" / f"{name}-branches" / "test_logits.npy")[:40]
    np.testing.assert_allclose(found["probabilities"], softmax(logits, -1), atol=1e-4)
    u = uncertainties(plain, config["uncertainty_top_k"])
    assert (found["layers_used"] == exit_layers(u, config["speed"]))[~near(u, config["speed"])].all()


@pytest.mark.slow
def test_smoke_predict_tells_the_layers(finished, capsys):
    _, folder, _ = finished
    corpus = texts.load(str(folder.parent / "data"))
    lines = tuple(corpus.texts[index] for index in corpus.test[:40])
    told = {}
    for speed in (0.0, None, 1.0):
        ask(str(folder), lines, json=True, speed=speed)
        told[speed] = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [row["text"] for row in told[speed]] == [*lines]
        assert all(0 <= row["uncertainty"] <= 1 for row in told[speed])
    assert {row["layers_used"] for row in told[0.0]} == {3} and {row["layers_used"] for row in told[1.0]} == {1}
    last = np.load(folder / "seed-0" / f"{name_of_student(folder)}-branches" / "test_logits.npy")[:40, -1].argmax(-1)
    assert [row["labels"][0]["label"] for row in told[0.0]] == [corpus.classes[label] for label in last]
    ask(str(folder), lines[:1], speed=1.0)
    assert "  layer  1 of 3  " in capsys.readouterr().out
    with pytest.raises(InputError, match="--speed 2: must be from 0 to 1"):
        ask(str(folder), lines, speed=2.0)


@pytest.mark.slow
@pytest.mark.parametrize("top_k", [0, 2])
def test_onnxruntime_answers_alike(run, answers, plain, top_k):
    """A trained FastBERT's graph of the script's own making; one with a dense head is asked in the tests of `original`."""
    model = script.student_model(run, {"name": "fastbert", "speed": 0.5, "uncertainty_top_k": top_k})
    ask, (token_ids, segment_ids) = asking(model.onnx_graph(model.bert))(), run.examples.inputs(run.parts.test[:30])
    for speed in SPEEDS:
        outputs = ask((token_ids, segment_ids, np.array(speed, np.float32)))
        clear = ~near(uncertainties(plain[:30], top_k), speed)
        for name, found in zip(("probabilities", "layers_used", "uncertainty"), outputs, strict=True):
            expected = answers[top_k](token_ids, segment_ids, speed)[name].numpy()
            np.testing.assert_allclose(found[clear], expected[clear], atol=1e-5)


def modified(folder, pattern):
    return {path: path.stat().st_mtime_ns for path in folder.glob(pattern)}


@pytest.mark.slow
def test_smoke_the_teacher_can_be_asked(finished, run):
    """Its classifier is a branch, which Hugging Face's files do not hold: ONNX and the SavedModel do."""
    folder = finished[1]
    teacher, asked = students.load(folder / "teacher"), run.parts.test[:20]
    found = students.ask(teacher, [run.corpus.texts[index] for index in asked])["probabilities"]
    expected = softmax(np.load(folder / "seed-0" / "teacher" / "test_logits.npy")[:20], axis=-1)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    with pytest.raises(InputError, match="no classifier in its checkpoint"):
        teachers.load(str(folder / "teacher"), run.corpus)


@pytest.mark.slow
def test_smoke_other_speeds_train_nothing(finished, monkeypatch):
    """What only says how to look at a finished run may be changed; what would train other weights is refused."""
    no_files(monkeypatch, script.__name__)
    words, folder, _ = finished
    stages, clocks = modified(folder, "seed-0/*/record.json"), modified(folder, "seed-0/times-*.json")
    chosen = start(script, *words, "--accuracy-drop", 50)  # speed 1, timed already
    assert chosen.returncode == 0 and "the highest that loses at most 50 points" in chosen.stdout
    assert modified(folder, "seed-0/times-*.json") == clocks
    words = [*words, "--experiments", "fastbert"]  # one row less to time
    monkeypatch.setattr(script, "verdict", lambda *_: "It does not pay.")
    again = start(script, *words, "--accuracy-drop", 50, "--speeds", 0, 0.3, 1, "--uncertainty-top-k", 2)
    assert again.returncode == 0, again.stderr
    report = (folder / "report.md").read_text(encoding="utf-8")
    assert "**It does not pay.**" in report and "It does not pay." in again.stdout.splitlines()
    assert modified(folder, "seed-0/*/record.json") == stages
    assert "of all classes" in again.stdout
    assert len(modified(folder, "seed-0/times-*.json")) == len(clocks) + 1
    told = json.loads((folder / "results.json").read_text("utf-8"))["models"][2]
    u = uncertainties(np.load(folder / "seed-0" / "fastbert-branches" / "test_logits.npy"), 2)
    assert told["exits"][1]["mean_layers"] == pytest.approx(exit_layers(u, 0.3).mean())
    models = json.loads((folder / "results.json").read_text("utf-8"))["models"]
    assert models[2]["speed"] == 1 and [row["speed"] for row in models[2]["exits"]] == [0, 0.3, 1]
    assert "speed 1: on the validation part the highest that loses at most 50 points" in again.stdout
    other = start(script, *words, "--branch-epochs", 5)
    assert other.returncode == 2 and "holds a run with another branch epochs" in other.stderr and other.stderr.count("\n") == 1


# A promise

CHOSEN = "speed", "uncertainty_top_k", "promise"  # of a record, in config.json and in the graph


@pytest.fixture(scope="module")
def promising(finished):
    """(folder, what it printed) of a copy of that run, started again with a promise; and what its stages were before."""
    words, folder, _ = finished
    copy = shutil.copytree(folder, folder.parent / "promising")
    before = modified(copy, "seed-0/*/record.json") | modified(copy, "seed-0/*/weights.npz")
    more = ["--experiments", "fastbert", "--confidence", 90, "--max-disagreement", 30, "--calibration-examples", 200,
            "--vocabulary", 117, "--output", copy]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(script, "write_teacher", lambda *words, **more: None)  # of which nothing is promised
        done = start(script, *words, *more)
    assert done.returncode == 0, done.stderr
    return copy, done.stdout, before


def calibrated(run):
    """The Parts of that run, with those texts that its promise was tested on."""
    return split(run.corpus, 0, 96, 32, 30, 0, 200, read=lambda index: run.examples.example(index).tobytes())


@pytest.mark.slow
def test_smoke_a_promise_trains_nothing(promising):
    folder, printed, before = promising
    assert modified(folder, "seed-0/*/record.json") | modified(folder, "seed-0/*/weights.npz") == before and len(before) > 6
    assert "200 calibration, 30 validation" in printed
    assert ": on the calibration part the highest that keeps --max-disagreement 30: with 90 % confidence" in printed


@pytest.mark.slow
def test_smoke_the_promise_is_what_the_texts_show(promising, run):
    """Counted anew, from logits that the whole model gives for texts that no other part has."""
    folder = promising[0]
    record = json.loads((folder / "results.json").read_text("utf-8"))["models"][2]
    parts = calibrated(run)
    assert not set(parts.calibration) & {*parts.train, *parts.unlabelled, *parts.validation, *parts.test}
    fast = script.trained_fastbert(replace(run, folder=folder), "fastbert")
    whole = predict(all_exits(fast), run.examples, parts.calibration)
    expected = whole[:, -1].argmax(axis=-1)
    path, = (folder / "seed-0" / "fastbert-branches").glob("calibration-*.npz")
    stored = np.load(path)
    np.testing.assert_array_equal(stored["expected"], expected)
    gone = (np.abs(stored["logits"] - whole) > 1e-4).any(axis=(1, 2))
    assert 0 < gone.mean() < 1  # some texts have tokens that the student does not keep
    choosing = replace(run.settings, max_disagreement=30.0)
    top_k = chosen_top_k(np.load(path.with_name("validation_logits.npy")), choosing, script.uncertainty)
    assert record["uncertainty_top_k"] == top_k
    u, given = uncertainties(stored["logits"], top_k), stored["logits"].argmax(axis=-1)

    def answered_otherwise(speed):
        """Counted where an uncertainty may be rounded across the speed, too."""
        near = (exit_layers(u, speed + shift if speed else 0) - 1 for shift in (-1e-5, 0, 1e-5))
        return int(np.any([given[np.arange(200), layers] != expected for layers in near], axis=0).sum())

    promise, speed = record["promise"], record["speed"]
    assert promise == {"max_disagreement": 30, "confidence": 90, "texts": 200, "disagreements": answered_otherwise(speed)}
    assert speed > 0 and keeps(promise["disagreements"], 200, 30, 90)
    assert answered_otherwise(0.0) > 0  # fewer tokens alone change answers, which is counted
    assert speed == 1 or not keeps(answered_otherwise(speed + 0.001), 200, 30, 90)
    tested = np.load(path.with_name("test_logits.npy"))
    assert record["layers"] == pytest.approx(exit_layers(uncertainties(tested, top_k), speed).mean())


@pytest.mark.slow
def test_smoke_what_is_given_away_carries_the_promise(promising, run, capsys):
    """config.json, the graph's metadata, the card, the report, what `predict` says; and the files keep it."""
    folder = promising[0]
    results = json.loads((folder / "results.json").read_text("utf-8"))
    record, student = results["models"][2], results["student"]
    config = json.loads((folder / "student" / "config.json").read_text("utf-8"))
    assert [config[key] for key in CHOSEN] == [record[key] for key in CHOSEN] and record["promise"] == student["promise"]
    graph = onnx.load(folder / "student" / "model.onnx")
    named = {entry.key: json.loads(entry.value) for entry in graph.metadata_props}
    assert named == {key: config[key] for key in CHOSEN}
    assert not any(entry.key == "promise" for entry in onnx_int8.quantized(graph).metadata_props)  # it is of float32
    words = students.promise_in_words(record["promise"])
    assert words in (folder / "student" / "README.md").read_text("utf-8") and words in (folder / "report.md").read_text("utf-8")
    entropy_of = f"the entropy of probabilities, chosen on the validation part: seed 0: {looked_at(record)}. "
    assert entropy_of in (folder / "report.md").read_text("utf-8")
    lines = tuple(run.corpus.texts[index] for index in calibrated(run).calibration)
    told = students.ask(students.load(folder), lines)
    path, = (folder / "seed-0" / "fastbert-branches").glob("calibration-*.npz")
    others = int((told["probabilities"].argmax(-1) != np.load(path)["expected"]).sum())
    assert others == student["disagreements"]["model.onnx"] <= record["promise"]["disagreements"]
    assert others == pytest.approx(record["promise"]["disagreements"], abs=1)
    ask(str(folder), lines[:3])
    out, err = capsys.readouterr()
    assert out.count("  uncertainty 0.") + out.count("  uncertainty 1.") == 3 and err.endswith(f"; {words}\n")
    ask(str(folder), lines[:3], speed=0.0)
    assert "nothing is promised but of model.onnx at its own speed" in capsys.readouterr().err


@pytest.mark.slow
def test_smoke_paper(tmp_path, monkeypatch):
    """Up to the report, on a BERT in Google's layout, with the paper's head."""
    reported = []
    monkeypatch.setattr(script, "report", lambda *words: reported.extend(words))
    tiny.write_data(tmp_path / "data", train=96, test=60)
    google_folder = write_bert(tmp_path / "google", "google")
    words = ["--data", tmp_path / "data", "--bert", google_folder, "--output", tmp_path / "run", "--maxlen", 16,
             "--teacher-layers", 2, "--teacher-epochs", 1, "--branch-epochs", 1, "--timed-examples", 8, "--speeds", 0, 0.5]
    done = start(script, "paper", *words, traced=False)
    assert done.returncode == 0, done.stderr
    preset, _, (run,), names, (linear,) = reported
    assert (preset, names, linear["name"]) == ("paper", ["fastbert"], "linear")
    assert set(run.parts.validation) <= set(run.corpus.pool) and not set(run.parts.validation) & set(run.parts.train)
    costs = script.costs(run, 16)
    assert costs["head"] == costs["branch"]
    logits = {name: np.load(run.stage(name) / "test_logits.npy") for name in ("teacher", "fastbert-branches")}
    np.testing.assert_allclose(logits["fastbert-branches"][:, -1], logits["teacher"], atol=1e-5)
