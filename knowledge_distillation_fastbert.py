"""FastBERT: a BERT that stops early, layer by layer, as soon as it is sure of a text.

A teacher (all layers and its classifier) is fine-tuned and frozen. A small classifier, a branch, is then put after every layer
but the last and learns what the teacher answers: self-distillation, for which texts need no labels. At inference a text leaves
after the first layer whose branch is sure enough, and the layers above are not computed for it. How sure, `speed` says.

    Liu, Zhou, Zhao, Wang, Deng, Ju: FastBERT: a Self-distilling BERT with Adaptive Inference Time, 2020, arXiv 2004.02178

    python knowledge_distillation_fastbert.py                       # bundled model and data, minutes on two cores
    python knowledge_distillation_fastbert.py --accuracy-drop 1     # faster: a point of validation accuracy may be lost
    python knowledge_distillation_fastbert.py original              # IFLYTEK and Chinese BERT-base, as the original script
    python knowledge_distillation_fastbert.py paper                 # the same data and model, trained as the paper does
"""

import re
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np

from common import InputError, command, data, distillation, evaluation, exits, export, pretrained, report, texts, training
from common.backend import MultiHeadAttention, fresh_session, inference_graph, keras, only_the_chief_goes_on, set_seed, tf
from common.command import start
from common.evaluation import scores
from common.export import TEXTS, exchange
from common.files import fingerprint, kept, write_array

# Settings --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Settings:
    # Data
    data: str = "reuters-r8"  # a named data set, or your own file or folder
    download: bool = False  # fetch the named data set and BERT if they are not here
    train_examples: int = 2000  # labelled training texts at most; 0 takes all
    unlabelled_examples: int = 1000  # further texts at most, labels unseen, that branches learn from
    validation_examples: int = 400  # held out to choose epochs and speed, a fifth at most; 0 chooses on test
    test_examples: int = 0  # of the test part at most, read once at the end; 0 takes all

    # Models
    bert: str = "minilm-l6"  # the teacher: a named BERT, or your own folder
    maxlen: int = 64  # tokens a text is cut to
    teacher_layers: int = 0  # the first layers of the BERT that the teacher has; 0 takes all
    teacher_head: Literal["branch", "dense"] = "branch"  # its classifier: shaped as a branch is, or one linear layer
    student_layers: tuple[int, ...] = (1,)  # shallow models of so many layers, fine-tuned directly, for comparison

    # Self-distillation
    experiments: tuple[str, ...] = ("fastbert",)  # rows: this, or it with -plain -labels -labels-only -shuffled -joint added
    direction: Literal["student-teacher", "teacher-student"] = "student-teacher"  # KL(student || teacher), or the reverse
    soft_weight: float = 1.0  # of the KL divergence between branch and teacher
    hard_weight: float = 0.0  # of each branch's cross-entropy with the labels
    shuffle_sentences: bool = False  # half of the texts are copies with their sentences doubled and shuffled

    # Stopping early
    uncertainty_top_k: int = 0  # entropy of the k highest probabilities, for many classes; 0 takes all
    speeds: tuple[float, ...] = (0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.0)  # of the curve
    accuracy_drop: float = 0.2  # choose the highest speed that loses at most so many points on the validation part
    latency_budget: float = 0.0  # above 0, instead: the lowest speed at which a text by itself takes at most so many ms
    timed_examples: int = 128  # test texts that are timed in batches of 32; a quarter of them by themselves

    # Training
    batch_size: int = 32  # texts a step
    teacher_epochs: int = 3
    branch_epochs: int = 4
    student_epochs: int = 6  # of the shallow models
    teacher_learning_rate: float = 1e-4
    branch_learning_rate: float = 5e-4
    student_learning_rate: float = 2e-4
    schedule: Literal["linear", "constant"] = "linear"  # learning rate falling to 0, or staying
    teacher_dropout: float = 0.1  # in hidden states and attention, while the teacher is fine-tuned
    student_dropout: float = 0.0  # the same of the shallow models

    # Run
    seeds: tuple[int, ...] = (0,)  # one whole run each: parts, order, initial classifiers, dropout
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    strategy: Literal["none", "mirrored", "multiworker"] = "none"  # train on one device, all of them, those of TF_CONFIG
    export: tuple[Literal["onnx"], ...] = ()  # what student/ is to hold besides; onnx needs tf2onnx and onnxruntime
    output: str = ""  # the run's folder; default runs/knowledge_distillation_fastbert-PRESET


ORIGINAL = Settings(
    data="iflytek", train_examples=0, unlabelled_examples=0, validation_examples=0, test_examples=0,
    bert="chinese-bert-base", maxlen=128, teacher_layers=6, teacher_head="dense", student_layers=(),
    direction="teacher-student", soft_weight=1.0, hard_weight=1.0, shuffle_sentences=True,
    speeds=(0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0), accuracy_drop=0.5,
    batch_size=32, teacher_epochs=5, branch_epochs=20, teacher_learning_rate=2e-5, branch_learning_rate=1e-5,
    schedule="constant", teacher_dropout=0.1,
)
PRESETS = {
    "demo": Settings(),
    "original": ORIGINAL,
    "paper": replace(
        ORIGINAL, validation_examples=1000, unlabelled_examples=1_000_000,  # if there is a file of them
        teacher_layers=0, teacher_head="branch", direction="student-teacher", hard_weight=0.0,
        shuffle_sentences=False, teacher_epochs=3, branch_epochs=5, branch_learning_rate=2e-4, schedule="linear",
    ),
}

JOINT = "fastbert-joint"  # no self-distillation: teacher and branches are fine-tuned together, on the labels
FASTBERT = {  # a row of each: what of the settings is another there
    "fastbert": {},
    "fastbert-plain": {"soft_weight": 1.0, "hard_weight": 0.0, "shuffle_sentences": False},
    "fastbert-labels": {"soft_weight": 1.0, "hard_weight": 1.0},
    "fastbert-labels-only": {"soft_weight": 0.0, "hard_weight": 1.0},
    "fastbert-shuffled": {"shuffle_sentences": True},
    JOINT: {},
}


# Branches --------------------------------------------------------------------------------------------------------------

WIDTH, HEADS = 128, 2  # of a branch


def draw_weights(shape, dtype=None, **_):
    """Glorot's initial weights, drawn anew at every call: bert4keras hands one initializer to four matrices.

    BERT's own spread of 0.02 is too small for a branch 128 wide: the teacher then never learns more than the largest class.
    """
    return keras.initializers.GlorotUniform()(shape, dtype or tf.float32)


def build_branch(hidden_size, classes, name):
    """A branch (paper, section 3.1) as a model: hidden states (batch, tokens, hidden) -> logits (batch, classes) float32.

    Dense 128 - tanh - self-attention of 2 heads of 64 that does not see the padding - [CLS] - Dense 128 - tanh - Dense.
    Attention asks for [CLS] alone: what the other tokens would get from it is never used.
    """
    hidden = keras.Input((None, hidden_size))
    narrow = keras.layers.Dense(WIDTH, activation="tanh", kernel_initializer=draw_weights)(hidden)
    first = keras.layers.Lambda(lambda states: states[:, :1])(narrow)
    attention = MultiHeadAttention(HEADS, WIDTH // HEADS, kernel_initializer=draw_weights)
    attended = texts.cls(attention([first, narrow, narrow]))
    mixed = keras.layers.Dense(WIDTH, activation="tanh", kernel_initializer=draw_weights)(attended)
    logits = keras.layers.Dense(classes, kernel_initializer=draw_weights, dtype="float32")(mixed)
    return keras.Model(hidden, logits, name=name)


def build_dense(hidden_size, classes, name, initializer):
    """The original's classifier of the teacher, and that of the other scripts: [CLS] - Dense; as a model, like a branch."""
    hidden = keras.Input((None, hidden_size))
    return keras.Model(hidden, texts.build_head(classes, initializer)(texts.cls(hidden)), name=name)


def build_teacher(run, layers, dropout):
    """(bert4keras transformer, head, model (token ids, segment ids) -> logits (batch, classes)) of so many layers."""
    bert = pretrained.shallow(run.bert, range(layers))
    encoder = pretrained.build_encoder(bert, dropout)
    shape = encoder.hidden_size, len(run.corpus.classes), "teacher_head"
    head = build_branch(*shape) if run.settings.teacher_head == "branch" else build_dense(*shape, encoder.initializer)
    inputs, mask = texts.inputs_and_mask()
    return encoder, head, keras.Model(inputs, head(encoder.model(inputs), mask=mask))


@dataclass(frozen=True)
class FastBert:
    """The pieces in their order. A branch stands after each layer; after the last layer, the teacher's own head.

    embeddings: model of (token ids, segment ids). layers, branches: as many models of hidden states with their mask. encoder:
    the bert4keras transformer that embeddings and layers are pieces of.
    """

    embeddings: keras.Model
    layers: list
    branches: list
    encoder: object = None


def build_fastbert(run, joint=False):
    """The fine-tuned teacher taken to pieces, frozen and without dropout, and new branches; for `joint`, nothing is frozen."""
    depth, classes = teacher_depth(run), len(run.corpus.classes)
    encoder, head, teacher = build_teacher(run, depth, run.settings.teacher_dropout if joint else 0.0)
    branches = [build_branch(encoder.hidden_size, classes, f"branch_{i}") for i in range(1, depth)]
    layers = [pretrained.layers_of(encoder, [i]) for i in range(depth)]
    if not joint:
        training.load_weights(teacher, run.stage("teacher") / "weights.npz")
        encoder.model.trainable = head.trainable = False
    return FastBert(pretrained.embeddings_of(encoder), layers, [*branches, head], encoder)


def teacher_depth(run):
    return run.settings.teacher_layers or run.bert.layers


def all_exits(fast):
    """The model that computes every layer and every branch: (token ids, segment ids) -> logits (batch, layers, classes)."""
    inputs, mask = texts.inputs_and_mask()
    hidden, logits = fast.embeddings(inputs), []
    for layer, branch in zip(fast.layers, fast.branches, strict=True):
        hidden = layer(hidden, mask=mask)
        logits.append(branch(hidden, mask=mask))  # a branch reads its layer's OUTPUT
    return keras.Model(inputs, keras.layers.Lambda(lambda z: tf.stack(z, axis=1), dtype="float32")(logits))


def branches_alone(fast):
    """The branches as one model, without the teacher and its head: what self-distillation trains, and a row's file holds."""
    hidden = keras.Input(fast.branches[0].input_shape[1:])
    return keras.Model(hidden, [branch(hidden) for branch in fast.branches[:-1]])


# Training --------------------------------------------------------------------------------------------------------------


def self_distillation_loss(direction, soft_weight, hard_weight):
    """Σ over branches of soft_weight · KL(branch || teacher) + hard_weight · CE(label, branch)  (paper, equations 5 and 6).

    Returns (labels (batch,) int, logits (batch, layers, classes)) -> (batch,) float32. The teacher's logits are the last of
    them and get no gradient; a label that is UNLABELLED has no part in the cross-entropy. direction: "student-teacher" as
    above, as the paper has it, or "teacher-student", KL(teacher || branch), as its code and the original have it.
    """

    def loss(labels, logits):
        teacher, branches = tf.stop_gradient(logits[:, -1:]), logits[:, :-1]
        if direction == "student-teacher":
            divergence = distillation.soft_loss(tf.nn.softmax(branches), teacher)
        else:
            divergence = distillation.soft_loss(tf.nn.softmax(teacher), branches)
        return soft_weight * tf.reduce_sum(divergence, axis=1) + hard_weight * labels_loss(labels, branches)

    return loss


def labels_loss(labels, logits):
    """Σ over exits of CE(label, exit), 0 where there is no label. labels: (batch,); logits: (batch, exits, classes)."""
    labels = tf.reshape(labels, [-1])
    known = tf.cast(labels != data.UNLABELLED, tf.float32)
    losses = [distillation.hard_loss(tf.maximum(labels, 0), exit_logits) for exit_logits in tf.unstack(logits, axis=1)]
    return known * tf.add_n(losses)


def mean_scores(labels, logits):
    """The mean scores of some exits; logits (texts, exits, classes)."""
    found = [scores(labels, exit_logits) for exit_logits in logits.swapaxes(0, 1)]
    return {key: float(np.mean([score[key] for score in found])) for key in found[0]}


def sentences_of(text):
    """A text parted after its Chinese or English punctuation and at the ends of lines."""
    return [part for part in re.split(r"(?<=[。！？；])|(?<=[.!?;])\s+|\n+", text) if part.strip()]


def shuffle_sentences(text, rng):
    """The original's augmentation: the sentences of a text twice, in random order."""
    return " ".join(rng.permutation(np.array(2 * sentences_of(text), dtype=object)))


def with_shuffled_copies(run, rows):
    """(the run with a shuffled copy of every text of `rows` among its examples, the rows and after them their copies)."""
    bert, rng, settings = run.bert, np.random.default_rng(run.seed), run.settings
    copies = [shuffle_sentences(run.corpus.texts[row], rng) for row in rows]
    several = np.mean([len(sentences_of(run.corpus.texts[row])) > 1 for row in rows])
    if several < 0.5:
        print(f"  only {several:.0%} of the texts have punctuation that parts them into sentences: little is shuffled")
    examples = run.examples.joined(data.encode(copies, bert.tokenizer, settings.maxlen, bert.pad_id))
    return replace(run, examples=examples), np.append(rows, len(run.corpus.texts) + np.arange(len(rows)))


def train_alone(run, name):
    """Fine-tune the teacher, or a shallow model beside it, on the labels. Returns the record of the stage."""
    if found := run.record(name):
        return found
    settings, rows = run.settings, run.parts.train
    if name == "teacher":
        epochs, rate, dropout = settings.teacher_epochs, settings.teacher_learning_rate, settings.teacher_dropout
    else:
        epochs, rate, dropout = settings.student_epochs, settings.student_learning_rate, settings.student_dropout
    with fresh_session(run.seed):
        classifier, steps = build_teacher(run, depths_of(run)[name], dropout)[2], run.steps(rows)
        model = distillation.compile_alone(classifier, training.adam(rate, steps * epochs, settings.schedule))
        return training.train_stage(run, name, classifier, model, rows, (run.corpus.labels[rows],), epochs, steps)


def train_branches(run, name):
    """Train the branches of the row `name`, or read what an earlier start left. Returns the record of the stage."""
    stage = f"{name}-branches"
    if found := run.record(stage):
        return found
    with fresh_session(run.seed):
        return train_jointly(run, stage) if name == JOINT else self_distill(run, stage)


def self_distill(run, stage):
    """Teach the branches what the frozen teacher answers."""
    settings, parts = run.settings, run.parts
    fast = build_fastbert(run)
    model = all_exits(fast)
    rows = np.concatenate([parts.train, parts.unlabelled])
    steps = run.steps(rows)  # in every row as many, whatever it learns from
    if not settings.soft_weight:
        rows = parts.train
    labels = np.where(np.isin(rows, parts.unlabelled), data.UNLABELLED, run.corpus.labels[rows])
    if settings.shuffle_sentences:
        run, rows = with_shuffled_copies(run, rows)
        labels = np.tile(labels, 2)
    optimizer = training.adam(settings.branch_learning_rate, steps * settings.branch_epochs, settings.schedule)
    model.compile(
        optimizer, loss=self_distillation_loss(settings.direction, settings.soft_weight, settings.hard_weight)
    )
    return training.train_stage(
        run, stage, model, model, rows, (labels,), settings.branch_epochs, steps,
        measure=lambda labels, logits: mean_scores(labels, logits[:, :-1]), measured="mean of the branches",
        saved=branches_alone(fast),
    )


def train_jointly(run, stage):
    """Fine-tune all layers and all exits together on the labels: the paper's ablation, without self-distillation.

    For as many epochs as teacher and branches have one after the other.
    """
    settings, rows = run.settings, run.parts.train
    model, steps = all_exits(build_fastbert(run, joint=True)), run.steps(rows)
    epochs = settings.teacher_epochs + settings.branch_epochs
    model.compile(training.adam(settings.teacher_learning_rate, steps * epochs, settings.schedule), loss=labels_loss)
    return training.train_stage(
        run, stage, model, model, rows, (run.corpus.labels[rows],), epochs, steps,
        measure=mean_scores, measured="mean of all exits",
    )


# Stopping early --------------------------------------------------------------------------------------------------------

SIGNATURE = (*TEXTS, tf.TensorSpec((), tf.float32, name="speed"))


def uncertainty(probabilities, top_k=0):
    """u = -Σ p log p / log N, from 0 to 1  (paper, equation 7). probabilities: (…, classes), any float. Returns (…) float32.

    0 · log 0 is 0 here, where the original gets NaN. top_k: only the k highest probabilities, scaled to sum to 1, and N = k:
    among many classes the few that are likely say how sure an answer is, while the rest, each of them hardly possible, keep
    the plain entropy high.
    """
    p = tf.cast(probabilities, tf.float32)
    if top_k:
        p = tf.math.top_k(p, min(top_k, p.shape[-1])).values
    p = p / tf.reduce_sum(p, axis=-1, keepdims=True)
    log_p = tf.math.log(tf.maximum(p, np.finfo(np.float32).tiny))  # not xlogy, which ONNX has no word for
    entropy = -tf.reduce_sum(p * log_p, axis=-1) / np.log(p.shape[-1])
    return tf.where(tf.math.is_nan(entropy), entropy, tf.clip_by_value(entropy, 0.0, 1.0))  # clipping may lose a NaN


def early_exit(fast, top_k=0, pad_id=0, flat=False):
    """One graph: (token ids, segment ids, speed) -> {"probabilities", "layers_used", "uncertainty"} of each text.

    token ids, segment ids: (texts, tokens) int32, padded with 0. speed: a float32; a text leaves after the first layer whose
    branch has u < speed, so that at 0 every text has the teacher's answer. probabilities: (texts, classes) float32.
    layers_used: (texts,) int32, how many were computed. uncertainty: (texts,) float32, of the answer. After each layer the
    batch shrinks to the texts that are undecided; when none is left, nothing above is computed. pad_id: for a graph that is
    given away; it takes ids as the tokenizer makes them, padded with pad_id, which `data.encode` exchanges with 0. flat: a
    graph for tf2onnx, slower in TensorFlow.
    """
    depth, classes = len(fast.layers), fast.branches[-1].output_shape[-1]

    def step(number, hidden, mask, rows, answers, speed):
        """Layer `number` and its branch, for the undecided: (hidden, mask, rows) of those who still are, and the answers.

        rows: which text of the batch each is. answers: of the whole batch, (texts, classes + 2): probabilities, u, layers.
        """
        hidden = fast.layers[number - 1](hidden, mask=mask, training=False)  # (undecided, tokens, hidden)
        p = tf.nn.softmax(fast.branches[number - 1](hidden, mask=mask, training=False))  # (undecided, classes)
        u = uncertainty(p, top_k)  # (undecided,)
        found = tf.concat([p, tf.stack([u, tf.fill(tf.shape(u), float(number))], axis=1)], axis=1)
        answers = tf.tensor_scatter_nd_update(answers, rows[:, None], found)  # a later layer may write over them
        # Not ~(u < speed), which TensorFlow's optimizer turns into u >= speed, and so lets NaN go.
        staying = tf.where((u >= speed) | tf.math.is_nan(u - speed))[:, 0]
        return *(tf.gather(x, staying) for x in (hidden, mask, rows)), answers

    def rest_from(number):
        """The model from layer `number` on: (hidden, mask, rows, answers, speed) -> answers."""
        deeper = rest_from(number + 1) if number < depth else None

        # Not inlined: TensorFlow would walk through every layer, if only to find that it is not to be computed.
        @tf.function(autograph=False, experimental_attributes={"_noinline": True})
        def rest(hidden, mask, rows, answers, speed):
            hidden, mask, rows, answers = step(number, hidden, mask, rows, answers, speed)
            if not deeper:
                return answers
            return tf.cond(tf.size(rows) > 0, lambda: deeper(hidden, mask, rows, answers, speed), lambda: answers)

        return rest

    def one_after_another(hidden, mask, rows, answers, speed):
        """The same without nesting, which tf2onnx would take minutes to unfold."""
        state = hidden, mask, rows, answers
        for number in range(1, depth + 1):
            state = tf.cond(tf.size(state[2]) > 0, lambda: step(number, *state, speed), lambda: state)  # noqa: B023
        return state[-1]

    whole = one_after_another if flat else rest_from(1)

    def answer(token_ids, segment_ids, speed):
        token_ids = exchange(token_ids, pad_id)
        hidden, mask = fast.embeddings([token_ids, segment_ids], training=False), tf.not_equal(token_ids, 0)
        count = tf.shape(token_ids)[0]
        answers = whole(hidden, mask, tf.range(count), tf.zeros((count, classes + 2)), speed)
        p, u, layers = tf.split(answers, [classes, 1, 1], axis=1)
        return {"probabilities": p, "layers_used": tf.cast(layers[:, 0], tf.int32), "uncertainty": u[:, 0]}

    return inference_graph(answer, *SIGNATURE)


def uncertainties(logits, top_k):
    """The uncertainty of every branch: logits (texts, layers, classes) -> (texts, layers) float32."""
    return uncertainty(tf.nn.softmax(logits), top_k).numpy()


# What it costs and what it saves ---------------------------------------------------------------------------------------


def costs(run, tokens):
    """FLOPs of one text of so many tokens: {"layer", "branch", "head"}; a multiply-add counts as two, [CLS] alone attends."""
    hidden, classes = run.bert.config["hidden_size"], len(run.corpus.classes)
    layer = evaluation.encoder_flops(run.bert.config | {"num_hidden_layers": 1}, tokens)
    for_each_token = hidden * WIDTH + 2 * WIDTH * WIDTH + 2 * WIDTH  # narrow, key, value; attention asks and gathers
    branch = 2 * (tokens * for_each_token + 3 * WIDTH * WIDTH + WIDTH * classes)  # query, output, the second Dense, the last
    return {"layer": layer, "branch": branch, "head": branch if run.settings.teacher_head == "branch" else 2 * hidden * classes}


def exit_flops(run, tokens):
    """(the teacher's FLOPs, (layers,) those of leaving after each layer) for one text of so many tokens."""
    cost, depth = costs(run, tokens), teacher_depth(run)
    through = np.arange(1, depth + 1) * (cost["layer"] + cost["branch"])
    through[-1] += cost["head"] - cost["branch"]
    return depth * cost["layer"] + cost["head"], through


def trained(run, name):
    """The FastBert of a finished row, with its best weights."""
    joint = name == JOINT
    fast = build_fastbert(run, joint)
    model = all_exits(fast) if joint else branches_alone(fast)
    training.load_weights(model, run.stage(f"{name}-branches") / "weights.npz")
    return fast


def straight(fast):
    """The teacher of a FastBert as a graph: all layers, no branch, (token ids, segment ids) -> logits (batch, classes)."""
    inputs, mask = texts.inputs_and_mask()
    hidden = fast.embeddings(inputs)
    for layer in fast.layers:
        hidden = layer(hidden, mask=mask)
    return graph_of(keras.Model(inputs, fast.branches[-1](hidden, mask=mask)))


def graph_of(model):
    """A model as a graph for texts of any number and length, as that of `early_exit` is."""
    return inference_graph(lambda token_ids, segment_ids: model([token_ids, segment_ids], training=False), *TEXTS)


def clock_of(run, names):
    """What all models of a seed take on the same test texts (see `exits.time_exits`), and "tokens" of these texts."""
    plain, stopping = {}, {}
    with export.in_float32(run.settings.precision):
        set_seed(run.seed)
        for name in names:
            fast = trained(row_of(run, name), name)
            plain.setdefault("teacher", straight(fast))
            stopping[name] = early_exit(fast, run.settings.uncertainty_top_k)
        alone = {name: depth for name, depth in depths_of(run).items() if name != "teacher"}
        plain |= {name: graph_of(build_teacher(run, depth, 0.0)[2]) for name, depth in alone.items()}
    rows = np.random.default_rng(run.seed).permutation(run.parts.test)[: run.settings.timed_examples]
    times = exits.time_exits(plain, stopping, run.settings.speeds, run.examples, rows, lambda tokens: exit_flops(run, tokens))
    return times | {"tokens": float(run.examples.lengths(rows).mean())}


def choose_speed(settings, rows, clock, teacher_accuracy):
    """(which of the settings' speeds to use, judged on the validation part; in words, why).

    rows: `exits.curve` of the validation part, speeds ascending. clock: what `exits.time_exits` found of the row, on other
    texts: from it come the ms per layer. teacher_accuracy: on the validation part, as a fraction.
    """
    if settings.latency_budget:  # a text by itself takes the ms per layer of those that were timed, times its layers
        ms = [row["mean_layers"] * timed["1"]["ms"] / timed["1"]["mean_layers"] for row, timed in zip(rows, clock, strict=True)]
        fit = [row["speed"] for row, time in zip(rows, ms, strict=True) if time <= settings.latency_budget]
        if fit:
            return min(fit), f"the lowest within {settings.latency_budget:g} ms a text"
        fastest = rows[int(np.argmin(ms))]["speed"]
        return fastest, f"the fastest, though none keeps within {settings.latency_budget:g} ms a text"
    wanted = teacher_accuracy - settings.accuracy_drop / 100 - 1e-9
    fit = [row["speed"] for row in rows if row["accuracy"] >= wanted]
    if fit:
        return max(fit), f"the highest that loses at most {settings.accuracy_drop:g} points"
    best = max(rows, key=lambda row: (row["accuracy"], row["speed"]))
    return best["speed"], f"the most accurate, though none loses only {settings.accuracy_drop:g} points"


def said(run, name, part):
    """(logits (texts, layers, classes), uncertainty (texts, layers)) of all exits of a finished row, on a part."""
    logits = np.load(run.stage(f"{name}-branches") / f"{part}_logits.npy")
    return logits, uncertainties(logits, run.settings.uncertainty_top_k)


def measure(run, names):
    """The records of a seed: of teacher and shallow models with their cost, and of each FastBERT row with its exits."""
    settings = run.settings
    asked = [settings.speeds, settings.uncertainty_top_k, settings.timed_examples, settings.student_layers, names]
    # One clock for all of them: other models or speeds are timed together with these, anew.
    clock = kept(run.folder / f"seed-{run.seed}" / f"clock-{fingerprint(*asked)}.json", lambda: clock_of(run, names))
    whole, layer = exit_flops(run, settings.maxlen)[0], costs(run, settings.maxlen)["layer"]
    models = []
    for name, depth in depths_of(run).items():
        cost = {"layers": depth, "flops": whole - (teacher_depth(run) - depth) * layer, "latency_ms": clock[name]}
        models.append(run.record(name) | cost | {"timed_tokens": clock["tokens"]})
    teacher = models[0]
    return models + [record_of(run, name, teacher, clock[name]) for name in names]


def record_of(run, name, teacher, clock):
    """The record of a FastBERT row: its exits at every speed, and what it is at the speed chosen. Writes its answers."""
    settings, parts, labels, flops = run.settings, run.parts, run.corpus.labels, exit_flops(run, run.settings.maxlen)
    stage = run.record(f"{name}-branches")
    del stage["measured"]  # its scores were the branches' mean
    judged, tested = said(run, name, "validation"), said(run, name, "test")
    on_validation = exits.curve(*judged, labels[parts.validation], settings.speeds, flops)
    speed, why = choose_speed(settings, on_validation, clock, teacher["validation_accuracy"])
    at_speeds = [
        row | {
            "wall_speedup": {size: teacher["latency_ms"][size] / timed[size]["ms"] for size in timed}, "timed": timed,
            "correct": report.bits(exits.leave(*tested, row["speed"])[1].argmax(-1) == labels[parts.test]),
        }
        for row, timed in zip(exits.curve(*tested, labels[parts.test], settings.speeds, flops), clock, strict=True)
    ]
    place, through = settings.speeds.index(speed), flops[1]
    layers, answers, _ = exits.leave(*tested, speed)
    write_array(run.stage(name) / "test_logits.npy", answers)
    logits, u = tested
    branches = [scores(labels[parts.test], branch)["accuracy"] for branch in logits.swapaxes(0, 1)]
    doubts = {"median_uncertainty": u, "median_entropy": uncertainties(logits, top_k=0)}
    return stage | {
        "name": name, "speed": speed, "chosen": why, "validation_accuracy": on_validation[place]["accuracy"],
        "accuracy": at_speeds[place]["accuracy"], "macro_f1": at_speeds[place]["macro_f1"],
        "layers": at_speeds[place]["mean_layers"], "flops": float(through[layers - 1].mean()),
        "latency_ms": {size: timed["ms"] for size, timed in clock[place].items()},
        "train_seconds": stage["train_seconds"] + (0 if name == JOINT else teacher["train_seconds"]),
        "exits": at_speeds, "leaving": np.bincount(layers - 1, minlength=len(through)).tolist(),
        "branch_accuracy": branches, **{key: np.median(doubt, axis=0).tolist() for key, doubt in doubts.items()},
    }


# The whole run ---------------------------------------------------------------------------------------------------------

SCRIPT = "knowledge_distillation_fastbert"
EXTENSIBLE = (  # settings that change no finished stage: they may differ in a later start
    "experiments", "seeds", "student_layers", "uncertainty_top_k", "speeds", "accuracy_drop", "latency_budget",
    "timed_examples", "export",
)


def main(preset, settings):
    """Read settings and data, train teacher, shallow models and branches for every seed, measure, report."""
    wanted = check(settings)
    settings = replace(settings, speeds=tuple(sorted(map(float, settings.speeds))))
    runs = texts.open_runs(
        SCRIPT, preset, settings, settings.unlabelled_examples, unlabelled_needed=False,
        depths=("teacher_layers", "student_layers"), fewest=2,
        extensible=EXTENSIBLE,
    )
    for run in runs:
        for name in depths_of(run):
            print(report.describe(train_alone(run, name)))
        for name in wanted:
            print(report.describe(train_branches(row_of(run, name), name)))
    only_the_chief_goes_on()
    report_run(preset, settings, runs, wanted)


def row_of(run, name):
    """The run with the settings of the row `name`."""
    return replace(run, settings=replace(run.settings, **FASTBERT[name]))


def depths_of(run):
    """{name: layers} of the teacher and the shallow models beside it."""
    return {"teacher": teacher_depth(run)} | {f"alone-{depth}": depth for depth in run.settings.student_layers}


def check(settings):
    """Refuse settings that cannot be, before anything is read. Returns the rows to train."""
    command.check_positive(settings, "teacher_learning_rate", "branch_learning_rate", "student_learning_rate")
    command.check_at_least(
        settings, maxlen=3, batch_size=1, teacher_layers=0, student_layers=1, teacher_epochs=1, branch_epochs=1,
        student_epochs=1, train_examples=0, unlabelled_examples=0, validation_examples=0, test_examples=0,
        uncertainty_top_k=0, accuracy_drop=0, latency_budget=0, timed_examples=1,
    )
    command.check_dropout(settings, "teacher_dropout", "student_dropout")
    command.check_fraction(settings, "speeds")
    command.check_seeds(settings.seeds)
    command.check_known("--experiments", settings.experiments, FASTBERT)
    command.check_none_twice(settings, "speeds", "student_layers", "experiments")
    for name in ("speeds", "experiments"):
        if not getattr(settings, name):
            raise InputError(f"--{name}: at least one is needed")
    if settings.teacher_layers == 1:
        raise InputError("--teacher-layers 1: a teacher of one layer has no branches; 2 or more, or 0 for all")
    if settings.uncertainty_top_k == 1:
        raise InputError("--uncertainty-top-k 1: one probability has no entropy; 2 or more, or 0 for all")
    wanted = [name for name in FASTBERT if name in settings.experiments]
    rows = {name: replace(settings, **FASTBERT[name]) for name in wanted if name != JOINT}
    for place, (name, row) in enumerate(rows.items()):
        command.check_weights(row)
        for other in [*rows][:place]:
            if rows[other] == row:
                raise InputError(f"--experiments {name}: with these settings it is the same as {other}; leave one out")
    return wanted


def report_run(preset, settings, runs, names):
    """Measure; write the report, the plot of the exits and the student; print the tables."""
    run = runs[0]
    models = [model for each in runs for model in measure(each, names)]
    pairs = [(name, other) for other in depths_of(run) for name in names]
    results = report.results_of(run, SCRIPT, preset, PRESETS[preset], models, pairs)
    results["branch_comparisons"] = report.comparisons(
        run, models, [(name, names[0]) for name in names[1:]], correct=branches_correct
    )
    results["costs"] = costs(run, settings.maxlen)
    stopping = [model for model in models if model["name"] in names]
    sections = []
    for name, group in report.by_name(stopping):
        chosen = "; ".join(f"seed {model['seed']}: {model['speed']:g}, {model['chosen']}" for model in group)
        chosen = f"Chosen on the {results['data']['chosen_on']} part: {chosen}."
        sections.append((f"{name}: speeds", exits.speeds_table(group), f"{chosen} {exits.SPEEDS_NOTE}"))
    table = exits.branches_table(stopping, settings.uncertainty_top_k)
    sections.append(("Each branch by itself", table, branches_note(results["costs"])))
    if results["branch_comparisons"]:
        sections.append((
            "Mean accuracy of the branches", report.comparisons_table(results["branch_comparisons"]),
            "So rows of different speeds are compared at the same cost; p is that of a sign test if there is one seed.",
        ))
    sections.append((f"First and last to leave, {names[0]}, seed {run.seed}", leavers(run, stopping[0]), exits.LEAVERS_NOTE))
    for model in stopping:
        print(f"  seed {model['seed']}  {model['name']:<20}  speed {model['speed']:g} chosen on the "
              f"{results['data']['chosen_on']} part: {model['chosen']}")
    exits.plot_exits(run.folder / "exits.png", models)
    taken, section = write_best_student(runs, models, names)
    sections.append(section)
    example = f"one text of {settings.maxlen} tokens (timed: test texts, of {models[0]['timed_tokens']:.0f} tokens on average)"
    report.write_report(run.folder, results, models, example, taken, sections=sections, plots=["exits.png"])


def branches_correct(run, name):
    """The share of the branches that got each test text right: (texts,) float."""
    logits = said(run, name, "test")[0][:, :-1]
    return (logits.argmax(-1) == run.corpus.labels[run.parts.test][:, None]).mean(axis=1)


def branches_note(cost):
    return (
        f"A layer takes {report.count(cost['layer'])}FLOPs, a branch {report.count(cost['branch'])}FLOPs "
        f"({cost['branch'] / cost['layer']:.1%} of a layer), the teacher's own classifier {report.count(cost['head'])}FLOPs."
    )


def leavers(run, model):
    """The table of the test texts that leave first and last, of the row and seed that the record `model` is of."""
    left = exits.leave(*said(run, model["name"], "test"), model["speed"])
    rows = run.parts.test
    return exits.leavers_table([run.corpus.texts[row] for row in rows], run.corpus.labels[rows], run.corpus.classes, left)


def write_best_student(runs, models, names):
    """Write to student/ the FastBERT that was best on the validation part (see `texts.write_student`)."""
    best = max((model for model in models if model["name"] in names), key=lambda model: model["validation_accuracy"])
    teacher = next(model for model in models if model["name"] == "teacher" and model["seed"] == best["seed"])
    run = row_of(next(each for each in runs if each.seed == best["seed"]), best["name"])
    with export.in_float32(run.settings.precision):
        fast = trained(run, best["name"])
        bert = pretrained.read_encoder(fast.encoder, pretrained.shallow(run.bert, range(teacher_depth(run))))
        graph, flat = (
            partial(early_exit, fast, run.settings.uncertainty_top_k, bert.pad_id, flat=flat) for flat in (False, True)
        )
        section = texts.write_student(
            run, best, teacher, __doc__, bert, graph(), signature=SIGNATURE, for_onnx=flat, speed=best["speed"],
        )
    return f"{best['name']}, seed {best['seed']}, speed {best['speed']:g}", section


if __name__ == "__main__":
    start(main, PRESETS, __doc__.split("\n\n")[0])
