"""knowledge_distillation_bert_of_theseus.py: replacing, what is trained when, its errors, and the script as started."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import knowledge_distillation_bert_of_theseus as script
from common.backend import keras, set_seed, tf
from common.bert import build_classifier, build_encoder, cls, read_encoder
from common.evaluation import predict
from common.training import Run, adam, save_weights, trained
from data import berts, texts
from data.parts import split
from tests import tiny
from tests.alone import check_student
from tests.starting import no_files, refused, run_to_the_end, start

DEMO = replace(script.PRESETS["demo"], maxlen=16, student_layers=2, middle_layers=2, batch_size=16,
               predecessor_epochs=1, mixed_epochs=1, successor_epochs=0, direct_epochs=1,
               predecessor_learning_rate=1e-3, successor_learning_rate=1e-2)


# Replacing


def module(factor, counted=None):
    """A module of one input that multiplies by `factor`, and counts in the list `counted` how often it is computed."""

    def compute(x):
        counted.append(1)
        return x * factor

    return lambda x, mask, training: tf.py_function(compute, [x], tf.float32) if counted is not None else x * factor


HIDDEN = np.random.default_rng(0).normal(size=(5, 4, 3)).astype(np.float32)


def replaced(replacing, p, old=2.0, new=5.0, counted=(None, None)):
    """The layer as a function of hidden states, as it is computed in training."""
    layer = script.Replacing(module(old, counted[0]), module(new, counted[1]), replacing, lambda: tf.constant(p))
    return layer, tf.function(lambda x: layer(x, training=True))


@given(st.floats(0, 1), st.floats(-3, 3), st.floats(-3, 3))
def test_additive_is_the_weighted_sum_and_nothing_is_halved(p, old, new):
    """The original's (0.5 · old + 0.5 · new) / 2 would ship a successor at another scale than the one it was chosen at."""
    layer, compute = replaced("additive", p, old, new)
    np.testing.assert_allclose(compute(HIDDEN), HIDDEN * ((1 - p) * old + p * new), atol=1e-4)
    np.testing.assert_allclose(layer(HIDDEN, training=False), HIDDEN * new, atol=1e-5)


def test_random_draws_once_for_the_whole_batch_with_probability_p():
    """r ~ Bernoulli(p) per module and step: the batch comes from one module or the other, never from both."""
    set_seed(0)
    layer, compute = replaced("random", 0.3)
    drawn = []
    for _ in range(1000):
        ratio = np.unique(np.round(compute(HIDDEN) / HIDDEN, 3))
        assert ratio.tolist() in ([2.0], [5.0])
        drawn.append(ratio[0] == 5)
    assert np.mean(drawn) == pytest.approx(0.3, abs=4 * (0.3 * 0.7 / 1000) ** 0.5)
    assert np.mean(np.array(drawn[1:]) & drawn[:-1]) == pytest.approx(0.09, abs=0.04)  # draws are independent
    np.testing.assert_allclose(layer(HIDDEN, training=False), HIDDEN * 5)


@pytest.mark.parametrize(("p", "counts"), [(0.0, (20, 0)), (1.0, (0, 20))])
def test_the_module_that_is_not_drawn_is_not_computed(p, counts):
    counted = [], []
    _, compute = replaced("random", p, counted=counted)
    for _ in range(20):
        compute(HIDDEN)
    assert tuple(map(len, counted)) == counts


@given(st.floats(0, 1), st.floats(0.01, 1), st.integers(2, 500))
def test_linear_rate_is_the_papers(base, share, steps):
    """p = min(1, k · t + b), with k so that 1 is reached after a share of the steps; never falling."""
    settings = replace(DEMO, replacing_schedule="linear", replacing_base=base, replacing_share=share)
    rate = script.replacing_rate(settings, steps)
    reached = max(1, round(share * steps))
    found = [float(rate(tf.constant(step))) for step in range(0, steps + 1, max(1, steps // 20))]
    expected = [min(1.0, (1 - base) / reached * step + base) for step in range(0, steps + 1, max(1, steps // 20))]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_constant_rate():
    rate = script.replacing_rate(replace(DEMO, replacing_schedule="constant", replacing_base=0.4), 100)
    assert [float(rate(tf.constant(step))) for step in (0, 50, 100)] == pytest.approx([0.4] * 3)


def test_the_rate_is_that_of_the_step(monkeypatch):
    """In training p rises with the optimizer's steps, here from 0.3 to 1 in 4 of 8."""
    seen = {}
    settings = replace(DEMO, replacing_schedule="linear", replacing_base=0.3, replacing_share=0.5, mixed_epochs=2)
    parts, labels = SimpleNamespace(train=np.arange(64)), np.zeros(64, int)
    run = Run(settings, 0, SimpleNamespace(labels=labels), None, parts, None)
    monkeypatch.setattr(script, "mix", lambda *words: seen.update(rate=words[-1]))
    monkeypatch.setattr(script, "train_stage", lambda *words, **more: seen.update(optimizer=words[4]))
    script.train_mixed(run, "theseus-mixed", SimpleNamespace(encoder=None, head=None), None, None)
    found = []
    for step in (0, 2, 4, 7):
        seen["optimizer"].iterations.assign(step)
        found.append(float(seen["rate"]()))
    assert found == pytest.approx([0.3, 0.65, 1, 1])


@pytest.mark.parametrize(("layers", "modules", "expected"), [
    (12, 3, [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]), (6, 2, [[0, 1, 2], [3, 4, 5]]), (6, 4, [[0, 1], [2, 3], [4], [5]]),
])
def test_how_layers_are_split_into_modules(layers, modules, expected):
    assert script.split_into_modules(layers, modules) == expected


@given(st.integers(1, 24), st.data())
def test_modules_cover_all_layers_in_order_and_are_alike(layers, drawn):
    modules = script.split_into_modules(layers, drawn.draw(st.integers(1, layers)))
    assert [layer for module in modules for layer in module] == list(range(layers))
    assert max(map(len, modules)) - min(map(len, modules)) <= 1


# The mixed model


def write_bert(folder, layout="hugging-face"):
    """Three layers: two modules, one of two layers and one of one."""
    return tiny.write_bert(folder, layout, tiny.CONFIG | {"num_hidden_layers": 3})


@pytest.fixture(scope="module")
def run(tmp_path_factory, data_folder):
    """A run of one seed that holds its predecessor, with the weights that it starts from."""
    folder = tmp_path_factory.mktemp("theseus")
    settings = replace(DEMO, data=str(data_folder), bert=str(write_bert(folder / "bert")))
    bert, corpus = berts.load(settings.bert), texts.load(settings.data)
    made = Run(settings, 0, corpus, tiny.tokenized(corpus.texts, bert), split(corpus, 0, validation=30), folder, bert)
    save_weights(script.build(made, "predecessor").model, made.stage("predecessor") / "weights.npz")
    return made


@pytest.fixture(scope="module")
def predecessor(run):
    """Without dropout: what is put together of it computes the same in training and outside."""
    return trained(replace(run, settings=replace(run.settings, predecessor_dropout=0.0)), "predecessor", script.build)


def models(run, predecessor, rate=0.5, **changed):
    """(predecessor, successor, head, classifier of the successor, mixed model) before training. rate: p, or its variable."""
    run = replace(run, settings=replace(run.settings, **changed))
    successor = build_encoder(script.successor_start(run, predecessor.bert), 0.0)
    classifier = keras.Model(successor.model.inputs, predecessor.head(cls(successor.model.output)))
    mixed = script.mix(predecessor.encoder, successor, predecessor.head, run.settings, lambda: tf.convert_to_tensor(rate))
    return predecessor.encoder, successor, predecessor.head, classifier, mixed


VARIANTS = [{"replacing": kind, "mix_embeddings": mixed} for kind in ("additive", "random") for mixed in (True, False)]


@pytest.mark.slow
@pytest.mark.parametrize("variant", (VARIANTS[0], VARIANTS[3]))
def test_outside_training_the_mixed_model_is_the_successor(run, predecessor, variant):
    """The weights that are chosen on the mixed graph give the same logits in the successor that is shipped."""
    _, successor, _, classifier, mixed = models(run, predecessor, **variant)
    rng = np.random.default_rng(0)
    classifier.set_weights([weight + 0.1 * rng.normal(size=weight.shape) for weight in classifier.get_weights()])
    inputs = run.examples.inputs(run.parts.test[:20])
    logits = mixed(inputs, training=False)
    np.testing.assert_allclose(logits, classifier(inputs, training=False), atol=1e-5)
    start = script.successor_start(run, run.bert)
    exported = build_classifier(read_encoder(successor, start), 4, 0.0)
    exported.head.set_weights(classifier.get_layer("Classifier").get_weights())
    np.testing.assert_allclose(logits, exported.model(inputs, training=False), atol=1e-5)


@pytest.mark.slow
def test_at_rate_0_training_computes_the_predecessor_and_at_rate_1_the_successor(run, predecessor):
    """Padding included: the modules see the same mask as inside their own BERTs."""
    inputs = run.examples.inputs(run.parts.test[:20])
    assert (inputs[0] == 0).any()
    for variant in (VARIANTS[0], VARIANTS[3]):
        p = tf.Variable(0.0)
        whole, _, head, classifier, mixed = models(run, predecessor, p, **variant)
        np.testing.assert_allclose(mixed(inputs, training=True), head(whole.model(inputs)[:, 0]), atol=1e-5)
        p.assign(1.0)
        np.testing.assert_allclose(mixed(inputs, training=True), classifier(inputs), atol=1e-5)


def moved(model, before):
    return [not np.array_equal(now, then) for now, then in zip(model.get_weights(), before, strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_what_moves_in_mixed_training(run, predecessor, variant):
    """The successor's layers alone; with the original's mixed embeddings these too. Never predecessor or classifier."""
    set_seed(0)
    whole, successor, head, _, mixed = models(run, predecessor, 0.8, **variant)
    before = whole.model.get_weights(), successor.model.get_weights(), head.get_weights()
    mixed.compile("sgd", loss="mse", run_eagerly=True)
    for _ in range(8):  # so that each random module is drawn
        mixed.train_on_batch(run.examples.inputs(run.parts.train[:8]), np.eye(4)[run.corpus.labels[run.parts.train[:8]]])
    assert not any(moved(whole.model, before[0])) and not any(moved(head, before[2]))
    changed = dict(zip((id(weight) for weight in successor.model.weights), moved(successor.model, before[1]), strict=True))
    for layer in successor.model.layers:
        for place, weight in enumerate(layer.weights):
            if not layer.name.endswith("Attention") or place != 3:  # a bias common to all keys cancels in the softmax
                assert changed[id(weight)] == (variant["mix_embeddings"] or "Embedding" not in layer.name), weight.name


@pytest.mark.slow
def test_unmixed_starts_as_theseus_does_and_nothing_is_replaced(run, tmp_path, monkeypatch):
    """The control: the predecessor's first layers and classifier, all of them trained, for as many epochs as theseus has."""
    run = replace(run, folder=shutil.copytree(run.folder, tmp_path / "run"), settings=replace(run.settings, successor_epochs=2))
    seen = {}

    def watched(name, classifier, epochs, trainable):
        seen[name] = classifier.get_weights(), epochs, [weight.name for weight in trainable]

    def mixed(run, name, classifier, loss, optimizer, indices, targets, epochs, model, callbacks, patience):
        watched(name, classifier, epochs, model.trainable_weights)

    def alone(run, name, classifier, epochs, *rest):
        watched(name, classifier, epochs, classifier.trainable_weights)

    monkeypatch.setattr(script, "train_stage", mixed)
    monkeypatch.setattr(script, "fine_tune", alone)
    for name in ("unmixed", "theseus"):
        script.train(run, name)
    for mine, theirs in zip(seen["unmixed"][0], seen["theseus-mixed"][0], strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert [seen[name][1] for name in ("unmixed", "theseus-mixed", "theseus")] == [3, 1, 2]
    assert seen["unmixed"][2] == seen["theseus"][2] and len(seen["unmixed"][2]) == len(seen["unmixed"][0])


def test_every_row_has_the_epochs_and_the_rate_that_the_settings_name(run, monkeypatch, tmp_path):
    """So that a control is trained as what it is held against: as long, as fast, as much decayed and clipped."""
    own = {"predecessor_epochs": 2, "direct_epochs": 5, "mixed_epochs": 3, "successor_epochs": 4, "clip_norm": 0.7,
           "predecessor_learning_rate": 1e-4, "successor_learning_rate": 3e-4, "weight_decay": 0.02}
    folder = shutil.copytree(run.folder, tmp_path / "run")
    (folder / "seed-0" / "predecessor" / "record.json").unlink(missing_ok=True)
    there, seen = replace(run, folder=folder, settings=replace(run.settings, **own)), {}
    monkeypatch.setattr(script, "fine_tune", lambda run, name, model, *budget: seen.update({name: budget}))
    monkeypatch.setattr(script, "adam", lambda *budget: seen.update(mixed=budget) or adam(*budget))
    monkeypatch.setattr(script, "train_stage", lambda *words, **more: {})
    for name in ("predecessor", "middle", "successor", "unmixed", "theseus"):
        script.train(there, name)
    shallow = (3e-4, 0.02, 0.7)
    assert seen == {
        "predecessor": (2, 1e-4, 0.02, 0.7), "middle": (5, *shallow), "successor": (5, *shallow), "unmixed": (7, *shallow),
        "mixed": (3e-4, 3 * there.steps(there.parts.train), "linear", 0.02, 0.7), "theseus": (4, *shallow),
    }


def test_rows_replace_as_their_names_say():
    flags = replace(DEMO, replacing="random", replacing_schedule="linear", replacing_base=0.9)
    rows = {name: script.settings_of(flags, name) for name in script.THESEUS}
    assert {name: (row.replacing, row.replacing_schedule, row.replacing_base) for name, row in rows.items()} == {
        "theseus": ("random", "linear", 0.9), "theseus-additive": ("additive", "constant", 0.5),
        "theseus-random": ("random", "constant", 0.5), "theseus-random-linear": ("random", "linear", 0.3),
    }


def test_what_the_successor_starts_from(run):
    fine_tuned = replace(run.bert, weights={name: value + 1 for name, value in run.bert.weights.items()})
    layer, words = "bert/encoder/layer_1/output/dense/kernel", "bert/embeddings/word_embeddings"
    for init, mixed, shifts in (("predecessor", False, (1, 1)), ("predecessor", True, (1, 1)),
                                ("pretrained", False, (0, 1)), ("pretrained", True, (0, 0))):
        changed = replace(run, settings=replace(run.settings, successor_init=init, mix_embeddings=mixed))
        found = script.successor_start(changed, fine_tuned).weights
        for name, shift in zip((layer, words), shifts, strict=True):
            np.testing.assert_array_equal(found[name], run.bert.weights[name] + shift)


def test_clipping_and_decay(run):
    """AdamW decays kernels, but neither biases nor layer norms; the gradients' global norm is at most the clip's."""
    classifier = script.build(run, "successor").model
    before = {weight.name: weight.numpy() for weight in classifier.trainable_weights}
    optimizer = adam(0.1, 10, "constant", weight_decay=0.5, clip_norm=1.0)
    optimizer.apply_gradients([(tf.zeros(weight.shape), weight) for weight in classifier.trainable_weights])
    kept = [weight.name for weight in classifier.trainable_weights if "norm" in weight.name.lower() or "bias" in weight.name]
    assert 0 < len(kept) < len(before)
    for weight in classifier.trainable_weights:
        factor = 1 if weight.name in kept else 1 - 0.1 * 0.5
        np.testing.assert_allclose(weight.numpy(), factor * before[weight.name], rtol=1e-6)
    assert optimizer.global_clipnorm == 1.0 and adam(0.1, 10, "constant").global_clipnorm is None


# Errors


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--replacing-base", "1.5"], "--replacing-base 1.5: must be from 0 to 1"),
        (["--replacing-share", "-0.1"], "--replacing-share -0.1: must be from 0 to 1"),
        (["--student-layers", "5"], "has 4 layers, so 1 to 4 can be taken"),
        (["--middle-layers", "9"], "--middle-layers 9: "),
        (["--mixed-epochs", "0"], "--mixed-epochs 0: must be 1 or more"),
        (["--successor-dropout", "1"], "--successor-dropout 1.0: must be 0 or more and below 1"),
        (["--clip-norm", "-1"], "--clip-norm -1.0: must be 0 or more"),
        (["--experiments", "distilled"], "--experiments distilled: expected some of predecessor middle successor unmixed"),
        (["--predecessor-learning-rate", "0"], "--predecessor-learning-rate 0.0: must be above 0"),
        (["--replacing", "random", "--replacing-base", "0", "--successor-epochs", "0"], "theseus would train nothing; one"),
        (["--replacing-base", "0", "--successor-epochs", "0", "--experiments", "unmixed", "theseus"], "theseus would train"),
        (["original", "--bert", "chinese-bert-base"], "chinese-bert-base is not here"),
        (["paper", "--data", "iflytek", "--maxlen", "16"], "iflytek is not here"),
    ],
)
def test_bad_settings_end_in_one_line(bert_folder, data_folder, tmp_path, words, message):
    sane = ["--data", data_folder, "--bert", bert_folder, "--maxlen", 16, "--student-layers", 2, "--middle-layers", 3]
    sane += ["--validation-examples", 30]
    assert message in refused(script, tmp_path / "run", sane, words)


@pytest.mark.parametrize(
    "changed",
    [
        {"successor_epochs": 1}, {"replacing_base": 0.1}, {"replacing_schedule": "linear"},
        {"experiments": ("theseus-random", "unmixed")},  # the one has a rate of its own, the other trains by itself
    ],
)
def test_nothing_need_be_replaced_where_something_is_trained_all_the_same(changed):
    nothing = replace(script.PRESETS["demo"], replacing_base=0.0, successor_epochs=0)
    assert script.check(replace(nothing, **changed))[0] == "predecessor"


# The script as a user starts it


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One run of all rows; returns (the words it was started with, its folder, what it printed)."""
    folder = tmp_path_factory.mktemp("smoke")
    tiny.write_data(folder / "data", train=400, test=200)
    words = [
        "--data", folder / "data", "--bert", write_bert(folder / "bert"), "--output", folder / "run", "--maxlen", 16,
        "--train-examples", 256, "--validation-examples", 64, "--test-examples", 0, "--student-layers", 1, "--middle-layers", 2,
        "--experiments", "middle", "successor", "unmixed", "theseus", "theseus-random-linear",
        "--predecessor-epochs", 4, "--mixed-epochs", 3, "--successor-epochs", 1, "--direct-epochs", 4,
        "--predecessor-learning-rate", 2e-3, "--successor-learning-rate", 2e-3,
    ]
    return words, folder / "run", run_to_the_end(script.__name__, *words)


NAMES = ["predecessor", "middle", "successor", "unmixed", "theseus", "theseus-random-linear"]


@pytest.mark.slow
def test_smoke_results(finished):
    _, folder, done = finished
    assert done.stderr == "" and "modules: 0-2 -> 0" in done.stdout.splitlines()
    results = json.loads((folder / "results.json").read_text("utf-8"))
    assert [model["name"] for model in results["models"]] == [*NAMES, "linear"]
    assert [model["layers"] for model in results["models"]] == [3, 2, 1, 1, 1, 1, 0]
    right = np.arange(200) % 4
    for model in results["models"]:
        logits = np.load(folder / "seed-0" / model["name"] / "test_logits.npy")
        assert model["accuracy"] == pytest.approx((logits.argmax(-1) == right).mean())
        assert model["accuracy"] > 0.4  # of four classes: it has learned
    assert [(c["a"], c["b"]) for c in results["comparisons"]] == [
        *((name, "linear") for name in ("predecessor", "successor", "theseus", "theseus-random-linear")),
        ("unmixed", "successor"), ("theseus", "successor"), ("theseus-random-linear", "successor"), ("theseus", "unmixed"),
        ("theseus-random-linear", "unmixed"), ("middle", "successor"), ("predecessor", "theseus"),
        ("predecessor", "theseus-random-linear"),
    ]
    for name in ("curves.png", "tradeoff.png", "replacing.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG") and name in done.stdout.splitlines()[-1]


@pytest.mark.slow
def test_smoke_the_predecessor_alone(finished, tmp_path):
    """No successor is in the report, none is timed, and none is given away."""
    words, folder, _ = finished
    shutil.copytree(folder, tmp_path / "run")
    done = start(script, *words, "--experiments", "predecessor", "--output", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "run" / "results.json").read_text("utf-8"))
    assert [model["name"] for model in results["models"]] == ["predecessor", "linear"]
    assert not (tmp_path / "run" / "student").exists() and "none: no student in the table" in done.stdout


@pytest.mark.slow
def test_smoke_the_rate_is_logged(finished):
    """0.5 throughout, or from 0.3 to 1 after half of the mixed steps."""
    _, folder, _ = finished
    records = {name: json.loads((folder / "seed-0" / f"{name}-mixed" / "record.json").read_text("utf-8")) for name in NAMES[4:]}
    rates = {name: [epoch["replacing_rate"] for epoch in record["history"]] for name, record in records.items()}
    assert rates["theseus"] == [0.5] * 3
    assert rates["theseus-random-linear"] == pytest.approx([0.3 + 0.7 * 8 / 12, 1, 1], abs=1e-5)


@pytest.mark.slow
def test_smoke_every_row_is_trained_for_as_many_epochs(finished):
    _, folder, _ = finished
    models = json.loads((folder / "results.json").read_text("utf-8"))["models"]
    assert {model["name"]: model["epochs"] for model in models} == dict.fromkeys(NAMES, 4) | {"linear": 0}


@pytest.mark.slow
def test_smoke_the_student_is_the_successor_that_was_tested(finished):
    """Its files give the answers of the run: embeddings, layers and classifier at one scale."""
    check_student(finished[1], layers=1)


@pytest.mark.slow
def test_smoke_after_mixed_training_everything_is_trained(finished):
    """Classifier and embeddings, the predecessor's until then, learn in the last stage."""
    _, folder, _ = finished
    weights = [np.load(folder / "seed-0" / name / "weights.npz") for name in ("predecessor", "theseus-mixed", "theseus")]
    predecessor, first, last = ([stored["0"], stored[stored.files[-2]]] for stored in weights)
    for whole, mixed, alone in zip(predecessor, first, last, strict=True):
        np.testing.assert_array_equal(whole, mixed)
        assert not np.array_equal(mixed, alone)


@pytest.mark.slow
def test_smoke_a_second_start_trains_nothing_and_a_lost_stage_is_made_again_alike(finished, monkeypatch):
    """The last stage of a row, which starts from the mixed one."""
    no_files(monkeypatch)
    words, folder, _ = finished
    before, lost = json.loads((folder / "results.json").read_text("utf-8"))["models"], folder / "seed-0" / "theseus"
    weights = [*np.load(lost / "weights.npz").values()]
    shutil.rmtree(lost)
    again = start(script, *words)
    assert again.returncode == 0, again.stderr
    for old, new in zip(weights, np.load(lost / "weights.npz").values(), strict=True):
        np.testing.assert_array_equal(old, new)
    after = json.loads((folder / "results.json").read_text("utf-8"))["models"]
    for old, new in zip(before, after, strict=True):
        if old["name"] == "theseus":
            assert new["train_seconds"] != old["train_seconds"]
            old["train_seconds"] = new["train_seconds"]
        assert new == old
    other = start(script, *words, "--replacing", "random")
    assert other.returncode == 2 and "holds a run with another replacing" in other.stderr and other.stderr.count("\n") == 1


@pytest.mark.slow
def test_smoke_paper(tmp_path, monkeypatch):
    """Up to the report, on a BERT in Google's layout: its stages, and that the epochs and weights kept are the best ones."""
    records = []
    monkeypatch.setattr(script, "report_texts", lambda *words, **more: records.extend(words[4]))
    tiny.write_data(tmp_path / "data", train=120, test=60)
    google_folder = write_bert(tmp_path / "google", layout="google")
    words = ["--data", tmp_path / "data", "--bert", google_folder, "--output", tmp_path / "run", "--maxlen", 16,
             "--student-layers", 2, "--middle-layers", 2, "--predecessor-epochs", 1, "--mixed-epochs", 2, "--direct-epochs", 1,
             "--successor-learning-rate", 1e-3, "--experiments", "theseus"]
    done = start(script, "paper", *words)
    assert done.returncode == 0, done.stderr
    assert "modules: 0-1 -> 0, 2 -> 1" in done.stdout.splitlines()
    stages = {folder.name for folder in (tmp_path / "run" / "seed-0").iterdir()}
    assert stages == {"predecessor", "theseus", "linear"}  # nothing after p = 1
    assert [(record["name"], record["epochs"]) for record in records] == [("predecessor", 1), ("theseus", 2)]
    record = json.loads((tmp_path / "run" / "seed-0" / "theseus" / "record.json").read_text("utf-8"))
    assert record["validation_accuracy"] == max(epoch["val_accuracy"] for epoch in record["history"])
    bert, corpus = berts.load(str(google_folder)), texts.load(str(tmp_path / "data"))
    settings = replace(script.PRESETS["paper"], student_layers=2, middle_layers=2)
    parts = split(corpus, 0, validation=settings.validation_examples)
    made = Run(settings, 0, corpus, tiny.tokenized(corpus.texts, bert), parts, tmp_path / "run", bert)
    logits = predict(trained(made, "theseus", script.build).model, made.examples, parts.test)
    np.testing.assert_allclose(logits, np.load(tmp_path / "run" / "seed-0" / "theseus" / "test_logits.npy"), atol=1e-5)
