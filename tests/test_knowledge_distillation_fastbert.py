"""knowledge_distillation_fastbert.py: branches, uncertainty, early exit, what is trained, its errors."""

import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from scipy.special import log_softmax

import knowledge_distillation_bert as bert
import knowledge_distillation_fastbert as script
from common import InputError, training
from common.backend import keras, set_seed, tf
from common.cost import exit_flops
from common.early_exit import ExitModel, all_exits, early_exit_graph
from common.training import Run
from data import berts, shuffling, texts
from data.parts import UNLABELLED, split
from tests import tiny
from tests.numpy_bert import numpy_branch
from tests.starting import refused

DEMO = replace(
    script.PRESETS["demo"], maxlen=16, train_examples=96, unlabelled_examples=32, validation_examples=30, batch_size=16,
    teacher_epochs=6, branch_epochs=4, student_layers=(1,), teacher_learning_rate=2e-3, branch_learning_rate=3e-3,
)



def write_bert(folder, layout="hugging-face"):
    return tiny.write_bert(folder, layout, tiny.CONFIG | {"num_hidden_layers": 3})


# Uncertainty


@given(st.integers(2, 120).flatmap(lambda n: arrays(np.float64, n, elements=st.floats(0, 1))), st.booleans())
def test_uncertainty_of_every_distribution_is_finite_and_from_0_to_1(values, narrow):
    """Zeros and one-hot rows included, and whatever float16 makes of a distribution."""
    p = values / values.sum() if values.sum() > 0 else np.eye(len(values))[0]
    p = p.astype(np.float16 if narrow else np.float32)
    if not p.any():
        return  # underflown as a whole: no distribution any more
    for top_k in (0, 2, 5):
        u = float(script.uncertainty(p[None], top_k)[0])
        kept = np.sort(p.astype(np.float64))[::-1][: top_k or None]
        assert 0 <= u <= 1
        assert u == pytest.approx(stats.entropy(kept) / np.log(len(kept)), abs=1e-5)


def test_uncertainty_at_its_ends():
    assert script.uncertainty(np.eye(4, dtype=np.float16)).numpy().tolist() == [0, 0, 0, 0]
    assert script.uncertainty(np.full((1, 7), 1 / 7)).numpy()[0] == pytest.approx(1)
    assert np.isnan(script.uncertainty(np.full((1, 3), np.nan)).numpy()[0])


def test_with_many_classes_the_plain_entropy_hardly_falls():
    """An answer that is 70 % sure of one of 119 classes, the rest spread evenly: 0.43 of log 119, but 0.06 of log 5."""
    p = np.full((1, 119), 0.3 / 118)
    p[0, 0] = 0.7
    assert script.uncertainty(p).numpy()[0] > 0.4 and script.uncertainty(p, 5).numpy()[0] < 0.06


# Branches and their losses


def test_a_branch_is_the_papers():
    """Dense - tanh - self-attention over all tokens that are not padding - [CLS] - Dense - tanh - Dense, in numpy."""
    rng, branch = np.random.default_rng(0), script.build_branch(32, 4, "branch")
    weights = [rng.normal(0, 0.2, weight.shape) for weight in branch.get_weights()]
    branch.set_weights(weights)
    hidden, mask = rng.normal(size=(5, 7, 32)).astype(np.float32), np.arange(7) < np.array([7, 3, 1, 5, 7])[:, None]
    np.testing.assert_allclose(branch(hidden, mask=tf.constant(mask)), numpy_branch(weights, hidden, mask), atol=1e-4)


def test_the_matrices_of_a_branch_start_apart():
    """bert4keras gives query, key, value and output one initializer, which would draw the same four times."""
    set_seed(0)
    kernels = [weight for weight in script.build_branch(32, 4, "branch").get_weights() if weight.shape == (128, 128)]
    assert len(kernels) == 5
    for i in range(5):
        for j in range(i):
            assert abs(np.corrcoef(kernels[i].ravel(), kernels[j].ravel())[0, 1]) < 0.05


@given(st.integers(0, 10**6), st.sampled_from(["student-teacher", "teacher-student"]), st.floats(0, 2), st.floats(0, 2))
def test_the_loss_is_the_equation(seed, direction, soft_weight, hard_weight):
    rng = np.random.default_rng(seed)
    logits, labels = rng.normal(0, 3, (5, 4, 3)).astype(np.float32), np.array([0, 2, UNLABELLED, 1, UNLABELLED])
    found = script.self_distillation_loss(direction, soft_weight, hard_weight)(labels[:, None], logits).numpy()
    logs = log_softmax(logits.astype(np.float64), axis=-1)
    for text, label in enumerate(labels):
        expected = 0.0
        for branch in range(3):
            s, t = logs[text, branch], logs[text, 3]
            divergence = np.exp(s) @ (s - t) if direction == "student-teacher" else np.exp(t) @ (t - s)
            expected += soft_weight * divergence - (hard_weight * s[label] if label >= 0 else 0)
        assert found[text] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("direction", ["student-teacher", "teacher-student"])
def test_no_gradient_reaches_the_teacher(direction):
    logits = tf.Variable(np.random.default_rng(0).normal(size=(5, 4, 3)).astype(np.float32))
    with tf.GradientTape() as tape:
        loss = script.self_distillation_loss(direction, 1.0, 1.0)(np.zeros(5, int), logits)
    gradient = tape.gradient(loss, logits).numpy()
    assert (gradient[:, -1] == 0).all() and (gradient[:, :-1] != 0).any(axis=-1).all()


# Sentences


SENTENCES = st.lists(st.text("ab 一二", min_size=1).map(str.strip).filter(bool), min_size=1, max_size=6)


@pytest.mark.parametrize("pairs", [False, True])
def test_pairs_have_no_sentences_to_shuffle(pairs):
    corpus = SimpleNamespace(pairs=pairs, name="answers")
    if not pairs:
        return shuffling.check_shufflable(corpus)
    with pytest.raises(InputError, match="^answers has pairs of texts, whose sentences are not shuffled: --no-shuffle-sent"):
        shuffling.check_shufflable(corpus)


@given(SENTENCES, st.sampled_from("。！.?\n"))
def test_shuffled_text_has_every_sentence_twice(sentences, end):
    text = "".join(f"{sentence}{end}{' ' if end in '.?' else ''}" for sentence in sentences)
    shuffled = shuffling.shuffle_sentences(text, np.random.default_rng(0))
    assert sorted(shuffled.replace(" ", "").replace("\n", "")) == sorted(2 * text.replace(" ", "").replace("\n", ""))
    for sentence in sentences:
        assert shuffled.count(sentence) >= 2


def test_sentences_are_shuffled_whole():
    text = "Version 3.5 is out. 很好用！Is it? Yes"
    found = {shuffling.shuffle_sentences(text, np.random.default_rng(seed)) for seed in range(20)}
    assert len(found) > 10
    for shuffled in found:
        for sentence in ("Version 3.5 is out.", "很好用！", "Is it?", "Yes"):
            assert shuffled.count(sentence) == 2


# The graph that stops early


def counting(counts, doubt):
    """An ExitModel of three layers on 'hidden states' that are token ids; `counts` gets (piece, rows) of all it computes.

    A text with first token i is sure after layer i; doubt: the logits of a branch that is not sure.
    """
    embeddings = keras.Model(inputs := [keras.Input((None,), dtype="int32"), keras.Input((None,), dtype="int32")],
                             keras.layers.Lambda(lambda ids: tf.cast(ids, tf.float32)[..., None])(inputs[0]))

    def piece(name, compute):
        def counted(x):
            counts.append((name, len(x)))
            return compute(x)

        x = keras.Input((None, 1))
        y = keras.layers.Lambda(lambda x: tf.ensure_shape(tf.py_function(counted, [x], tf.float32), shapes[name[0]]))(x)
        return keras.Model(x, y)

    shapes = {"l": (None, None, 1), "b": (None, 2)}
    layers = [piece(f"layer {i}", lambda x: x) for i in (1, 2, 3)]
    branches = [
        piece(f"branch {i}", lambda x, i=i: tf.where(x[:, 0] <= i, [[99.0, 0.0]], tf.constant([doubt]))) for i in (1, 2, 3)
    ]
    return ExitModel(embeddings, layers, branches)


@pytest.mark.parametrize("doubt", [[0.0, 0.0], [np.nan, np.nan]])
def test_what_has_left_is_not_computed(doubt):
    """The batch shrinks layer by layer, and when it is empty nothing runs; a branch that says NaN lets nobody go."""
    counts = []
    answer = early_exit_graph(counting(counts, doubt), script.uncertainty)
    ids = np.array([[2, 9], [1, 9], [1, 9], [3, 9], [2, 0]], np.int32)
    found = answer(ids, ids, 0.5)
    assert found["layers_used"].numpy().tolist() == [2, 1, 1, 3, 2]
    assert counts == [("layer 1", 5), ("branch 1", 5), ("layer 2", 3), ("branch 2", 3), ("layer 3", 1), ("branch 3", 1)]
    counts.clear()
    assert answer(ids[1:3], ids[1:3], 0.5)["layers_used"].numpy().tolist() == [1, 1]
    assert counts == [("layer 1", 2), ("branch 1", 2)]


def test_a_speed_of_nan_lets_nobody_leave():
    ids = np.array([[1, 9], [2, 9]])
    answer = early_exit_graph(counting([], [0.0, 0.0]), script.uncertainty)
    assert answer(ids, ids, np.nan)["layers_used"].numpy().tolist() == [3, 3]


def test_at_a_speed_that_is_the_uncertainty_nobody_leaves():
    """u is 1 where a branch has no idea, and 0 where it is quite sure."""
    ids = np.array([[1, 9], [2, 9], [7, 9]])
    answer = early_exit_graph(counting([], [0.0, 0.0]), script.uncertainty)
    assert answer(ids, ids, 1.0)["layers_used"].numpy().tolist() == [1, 2, 3]
    assert answer(ids, ids, 0.0)["layers_used"].numpy().tolist() == [3, 3, 3]


def test_an_answer_of_nan_leaves_last():
    answer = early_exit_graph(counting([], [np.nan, np.nan]), script.uncertainty)
    found = answer(np.array([[7, 7]]), np.array([[7, 7]]), 1.0)
    assert found["layers_used"].numpy() == [3] and np.isnan(found["probabilities"].numpy()).all()


# What is trained


@pytest.fixture(scope="module")
def untaught(tmp_path_factory):
    """A run of which there is a teacher alone, with the weights that it starts from."""
    folder = tmp_path_factory.mktemp("teacher")
    corpus = texts.load(str(tiny.write_data(folder / "data")))
    bert = berts.load(str(write_bert(folder / "bert")))
    parts = split(corpus, 0, DEMO.train_examples, DEMO.unlabelled_examples, DEMO.validation_examples)
    run = Run(DEMO, 0, corpus, tiny.tokenized(corpus.texts, bert), parts, folder, bert)
    training.save_weights(script.build_teacher(run, 3, 0.0)[2], run.stage("teacher") / "weights.npz")
    return run


@pytest.fixture
def taught(untaught, tmp_path):
    """A copy of it, to train branches in."""
    shutil.copytree(untaught.stage("teacher"), tmp_path / "run" / "seed-0" / "teacher")
    return replace(untaught, folder=tmp_path / "run")


@pytest.fixture
def moved(taught, monkeypatch):
    """name -> which weights training that row changes: {"teacher": a bool of each, "branches": a bool of each}."""
    train_stage, found = training.train_stage, {"teacher": [], "branches": []}

    def watched(run, stage, classifier, *given, **named):
        own = {id(weight) for i in (1, 2) for weight in classifier.get_layer(f"branch_{i}").weights}
        before = classifier.get_weights()
        record = train_stage(run, stage, classifier, *given, **named)
        for weight, old, new in zip(classifier.weights, before, classifier.get_weights(), strict=True):
            found["branches" if id(weight) in own else "teacher"].append(not np.array_equal(old, new))
        return record

    def train(name):
        monkeypatch.setattr(training, "train_stage", watched)
        short = replace(taught, settings=replace(taught.settings, teacher_epochs=1, branch_epochs=1))
        script.train_branches(script.run_of(short, name), name)
        return found

    return train


@pytest.mark.slow
def test_the_teacher_stays_as_it_is(moved):
    found = moved("fastbert-labels")
    assert not any(found["teacher"]) and sum(found["branches"]) >= len(found["branches"]) - 2  # the biases of the keys cancel


def test_a_shallow_model_has_the_epochs_the_rate_and_the_dropout_of_a_student(untaught, monkeypatch, tmp_path):
    own = {"teacher_epochs": 2, "teacher_learning_rate": 1e-4, "teacher_dropout": 0.3, "student_epochs": 5,
           "student_learning_rate": 3e-4, "student_dropout": 0.0}
    run, seen = replace(untaught, folder=tmp_path, settings=replace(DEMO, **own)), {}
    monkeypatch.setattr(script, "build_teacher", lambda run, *shape: (None, None, shape))
    monkeypatch.setattr(training, "fine_tune", lambda run, name, shape, *pace: seen.update({name: (*shape, *pace)}))
    for name in ("teacher", "alone-1"):
        script.train_alone(run, name)
    assert seen == {"teacher": (3, 0.3, 2, 1e-4), "alone-1": (1, 0.0, 5, 3e-4)}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "budget"), [("fastbert", (3e-4, 4 * 8)), ("fastbert-joint", (1e-4, (2 + 4) * 6))])
def test_branches_learn_at_the_rate_of_their_settings(untaught, monkeypatch, name, budget):
    """The control of all layers together at the teacher's, as long as teacher and branches take one after the other."""
    own = {"teacher_epochs": 2, "teacher_learning_rate": 1e-4, "branch_learning_rate": 3e-4, "schedule": "constant"}
    run, seen, adam = replace(untaught, settings=replace(DEMO, **own)), [], training.adam
    monkeypatch.setattr(training, "adam", lambda *words: seen.append(words) or adam(*words))
    monkeypatch.setattr(training, "train_stage", lambda *words, **more: None)
    script.train_branches(script.run_of(run, name), name)
    assert seen == [(*budget, "constant")]


def test_each_is_timed_as_itself_and_a_fastbert_includes_its_teacher(monkeypatch):
    seen, took = {}, {"teacher": 10.0, "alone-1": 3.0, "fastbert": 4.0, "fastbert-joint": 20.0}

    def measure_exits(run, depths, plain, *rest):
        seen.update({name: build() for name, build in plain.items()})
        return [{"name": name, "train_seconds": seconds} for name, seconds in took.items()]

    monkeypatch.setattr(script, "measure_exits", measure_exits)
    monkeypatch.setattr(script, "teacher_onnx", lambda heads, classifier: classifier)
    monkeypatch.setattr(script, "trained_teacher", lambda run, name: name)
    run = SimpleNamespace(settings=DEMO, bert=SimpleNamespace(layers=3, is_classifier=False))
    records = script.measure(run, ["fastbert", "fastbert-joint"])
    assert seen == {"teacher": "teacher", "alone-1": "alone-1"}
    assert [record["train_seconds"] for record in records] == [10, 3, 14, 20]


@pytest.mark.slow
def test_a_dense_teacher_is_that_of_the_other_scripts(untaught, tmp_path):
    """To the last bit, dropout and all: so what the scripts make of it can be compared."""
    same, answers = {"batch_size": 16, "teacher_epochs": 1, "teacher_dropout": 0.1, "teacher_learning_rate": 2e-3}, []
    for train, preset in ((script.train_alone, replace(DEMO, teacher_head="dense")), (bert.train, bert.PRESETS["demo"])):
        one_layer = berts.keep_layers(untaught.bert, [0])
        run = replace(untaught, settings=replace(preset, **same), bert=one_layer, folder=tmp_path / str(len(answers)))
        train(run, "teacher")
        answers.append(np.load(run.stage("teacher") / "test_logits.npy"))
    np.testing.assert_array_equal(*answers)


def check_loss(name, loss):
    """Each row's loss, on made-up logits, is made of the two terms with the weights that its name says."""
    rng = np.random.default_rng(0)
    labels, logits = np.array([0, 2, 1]), rng.normal(0, 2, (3, 4, 4)).astype(np.float32)
    logs = log_softmax(logits.astype(np.float64), axis=-1)
    entropies = -logs[np.arange(3), :, labels]  # (texts, exits)
    divergences = (np.exp(logs[:, :-1]) * (logs[:, :-1] - logs[:, -1:])).sum(axis=(1, 2))
    if name == "fastbert-joint":
        expected = entropies.sum(axis=1)
    else:
        soft, hard = {"fastbert-labels": (1, 1), "fastbert-labels-only": (0, 1)}.get(name, (1, 0))
        expected = soft * divergences + hard * entropies[:, :-1].sum(axis=1)
    np.testing.assert_allclose(loss(labels, logits), expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("preset", "soft", "hard", "direction", "shuffled"),
    [("original", 1, 1, "teacher-student", True), ("paper", 1, 0, "student-teacher", False)],
)
def test_what_the_presets_teach(preset, soft, hard, direction, shuffled):
    chosen = script.PRESETS[preset]
    assert (chosen.soft_weight, chosen.hard_weight, chosen.direction) == (soft, hard, direction)
    assert chosen.shuffle_sentences == shuffled


@pytest.fixture(scope="module")
def built():
    """What `build_fastbert` and `all_exits` have built for rows of which nothing is trained; the joint row has its own."""
    return {}


@pytest.mark.slow
@pytest.mark.parametrize("name", script.EXPERIMENTS)
def test_what_branches_learn_from(taught, monkeypatch, built, name):
    """Labelled and unlabelled texts, whose labels are never seen; but for the joint one, rows have as many steps."""
    seen, joint = [], name == "fastbert-joint"
    if joint not in built:
        fastbert = script.build_fastbert(taught, joint)
        built[joint] = fastbert, all_exits(fastbert)
    monkeypatch.setattr(script, "build_fastbert", lambda run, joint=False: built[joint][0])
    monkeypatch.setattr(script, "all_exits", lambda fastbert: built[joint][1])
    monkeypatch.setattr(training, "train_stage", lambda *given, **named: seen.append(given))
    script.train_branches(script.run_of(taught, name), name)
    (run, _, model, loss, _, indices, labels, epochs, *steps), parts = seen[0], taught.parts
    inputs = run.examples.inputs(parts.train[:8])
    same = np.allclose(model(inputs, training=True), model(inputs, training=False))
    assert same == (not joint)  # but for the joint one, no dropout anywhere
    check_loss(name, loss)
    own, copies = indices[indices < len(run.corpus.texts)], indices[indices >= len(run.corpus.texts)]
    labelled_only = name in ("fastbert-joint", "fastbert-labels-only")
    assert set(own) == set(parts.train) | (set() if labelled_only else set(parts.unlabelled))
    assert len(copies) == (len(own) if name == "fastbert-shuffled" else 0)
    steps = steps[0] if steps else run.steps(indices)
    assert (epochs, steps) == ((6 + 4, 96 // 16) if joint else (4, (96 + 32) // 16))
    hidden = np.isin(np.concatenate([own, own[: len(copies)]]), parts.unlabelled)
    assert (labels[hidden] == UNLABELLED).all()
    np.testing.assert_array_equal(labels[: len(own)][~hidden[: len(own)]], run.corpus.labels[parts.train])
    for row, original in zip(copies[:5], own, strict=False):
        words = [taught.bert.tokenizer.decode(run.examples.example(i)).split() for i in (row, original)]
        assert set(words[0]) <= set(taught.corpus.texts[original].split()) and len(words[0]) >= len(words[1])


# Cost, and the choice of a speed


@pytest.fixture(scope="module")
def untrained(bert_folder):
    """A run of which nothing is there but its settings, its BERT and its classes."""
    corpus = texts.Corpus("", [], np.zeros(0), list("abcd"), {}, *[np.zeros(0, int)] * 3, [])
    return Run(DEMO, 0, corpus, None, None, None, berts.load(str(bert_folder)))


def test_flops_are_those_of_the_matrix_products(untrained):
    """Counted one product at a time: (rows, inner, columns), a multiply-add as two."""
    tokens, hidden, inner = 11, 32, 64
    layer = [(tokens, hidden, hidden)] * 4 + [(tokens, hidden, tokens)] * 2 + [(tokens, hidden, inner)] * 2
    # Narrow; what each of 2 heads asks with, sees and gathers; from what they gathered to 128, and to the classes.
    branch = [(tokens, hidden, 128), (1, 128, 2 * 128), (2, 128, tokens), (2, tokens, 128), (1, 2 * 128, 128), (1, 128, 4)]

    def flops(products):
        return sum(2 * a * b * c for a, b, c in products)

    found = script.costs(untrained, tokens)
    assert found == {"layer": flops(layer), "last": flops(layer), "branch": flops(branch), "head": flops(branch)}
    dense = script.costs(replace(untrained, settings=replace(DEMO, teacher_head="dense")), tokens)
    assert dense["head"] == flops([(1, hidden, 4)]) and dense["branch"] == found["branch"]
    heads = 4
    cls_alone = [(1, hidden, hidden)] * 4 + [(heads, hidden, tokens)] * 2 + [(1, hidden, inner)] * 2
    assert dense["last"] == flops(cls_alone)
    whole, through = exit_flops(dense, 4)
    assert whole == 3 * found["layer"] + flops([*cls_alone, (1, hidden, 4)])
    assert through.tolist() == [(found["layer"] + found["branch"]) * k for k in (1, 2, 3)] + [whole + 3 * found["branch"]]


# Errors


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--speeds", "0.1", "1.5"], "--speeds 1.5: must be from 0 to 1"),
        (["--speeds", "0.1", "0.1"], "--speeds 0.1 0.1: each only once"),
        (["--speeds"], "--speeds: at least one is needed"),
        (["--experiments"], "--experiments: at least one is needed"),
        (["--experiments", "fastbert", "fastbert-plain"], "fastbert-plain: with these settings it is the same as fastbert"),
        (["--uncertainty-top-k", "1"], "--uncertainty-top-k 1: one probability has no entropy"),
        (["--uncertainty-top-k", "-1"], "--uncertainty-top-k -1: must be 0 or more"),
        (["--max-disagreement", "0"], "--max-disagreement 0.0: must be from 0.001 to 99.999, per cent"),
        (["--max-disagreement", "100"], "--max-disagreement 100.0: must be from 0.001 to 99.999, per cent"),
        (["--max-disagreement", "1", "--confidence", "100"], "--confidence 100.0: must be from 0.001 to 99.999, per cent"),
        (["--max-disagreement", "1", "--latency-budget", "5"], "--latency-budget 5 --max-disagreement 1: each chooses"),
        (["--max-disagreement", "1"], "--max-disagreement 1 --confidence 95: there are 0 calibration texts, and 299 are"),
        (["--max-disagreement", "1", "--calibration-examples", "None", "--train-examples", "40", "--unlabelled-examples", "9"],
         "there are 0 calibration texts, and 299 are needed at least; raise --calibration-examples, add a file"),
        (["--max-disagreement", "5", "--calibration-examples", "58", "--train-examples", "40", "--unlabelled-examples", "9"],
         "there are 58 calibration texts, and 59 are needed"),
        (["--teacher-layers", "5"], "--teacher-layers 5: "),
        (["--teacher-layers", "1"], "--teacher-layers 1: a teacher of one layer has no branches"),
        (["--student-layers", "2", "9"], "--student-layers 9: "),
        (["--student-layers", "2", "2"], "--student-layers 2 2: each only once"),
        (["--soft-weight", "0"], "--hard-weight 0 --soft-weight 0: nothing would be learned"),
        (["--experiments", "theseus"], "--experiments theseus: expected some of fastbert fastbert-plain"),
        (["--branch-learning-rate", "0"], "--branch-learning-rate 0.0: must be above 0"),
        (["--latency-budget", "-1"], "--latency-budget -1.0: must be 0 or more"),
        (["--timed-examples", "0"], "--timed-examples 0: must be 1 or more"),
        (["paper", "--data", "iflytek"], "iflytek is not here"),
    ],
)
def test_bad_settings_end_in_one_line(bert_folder, data_folder, tmp_path, words, message):
    sane = ["--data", data_folder, "--bert", bert_folder, "--maxlen", 16]
    assert message in refused(script, tmp_path / "run", sane, words)
