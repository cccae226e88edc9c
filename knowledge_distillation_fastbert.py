"""FastBERT: a BERT that stops early, layer by layer, as soon as it is sure of a text.

A teacher (all layers and its classifier) is fine-tuned and frozen. A small classifier, a branch, is then put after every layer
but the last and learns what the teacher answers: self-distillation, for which texts need no labels. At inference a text leaves
after the first layer whose branch is sure enough, and the layers above are not computed for it. How sure, `speed` says.

    Liu, Zhou, Zhao, Wang, Deng, Ju: FastBERT: a Self-distilling BERT with Adaptive Inference Time, 2020, arXiv 2004.02178

    python knowledge_distillation_fastbert.py                       # bundled model and data, minutes on two cores
    python knowledge_distillation_fastbert.py --accuracy-drop 2     # faster: two points of accuracy may be lost
    python knowledge_distillation_fastbert.py --max-disagreement 1  # a promise: 1 % of texts at most are answered otherwise
    python knowledge_distillation_fastbert.py original              # IFLYTEK and Chinese BERT-base, as the original script
    python knowledge_distillation_fastbert.py paper                 # the same, trained as the paper does, without its warm-up
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Literal

import numpy as np

from common import InputError, command, exit_curve, training
from common.backend import MultiHeadAttention, keras, tf
from common.batches import TokenizedTexts
from common.bert import BertClassifier, build_classifier, build_encoder, cls, embeddings_of, inputs_and_mask, layers_of
from common.command import NOT_EMPTY, Count, Dropout, Fraction, LearningRate, NonNegative, PositiveInt, at_least, none_twice
from common.cost import exit_costs
from common.devices import exit_unless_chief, fresh_session
from common.distillation import hard_loss, soft_loss
from common.early_exit import ExitModel, all_exits, branches_alone
from common.linear import LINEAR, linear_records
from common.runs import EXTENSIBLE, check_depths, open_text_runs, rate_remarks, read_inputs
from data import shuffling
from data.berts import keep_layers
from data.grounds import on_grounds
from data.parts import UNLABELLED
from export.costs import in_words
from export.exits import exit_model, measure_exits, teacher_onnx
from export.student import text_writer, write_linear, write_student, write_teacher
from report.document import results_of, show_stages, write_report
from report.exits import branch_results, exit_sections, plot_exits, verdict

# Settings --------------------------------------------------------------------------------------------------------------

SCRIPT = "knowledge_distillation_fastbert"
ONCE = none_twice("each only once")


@dataclass(frozen=True)
class Settings:
    # Data
    data: str = "reuters-r8"  # a named data set, or your own file or folder
    download: bool = False  # fetch the named data set and BERT if they are not here
    train_examples: Count = 200  # labelled training texts at most; 0 takes all
    unlabelled_examples: Count | None = 2800  # further texts at most, labels unseen, for branches; 0: all there are; None: none
    validation_examples: Count | None = None  # for epochs and speed: None: dev part, or 400 held out; 0: dev or else test part
    calibration_examples: Count | None = 1000  # held back, labels unseen, for --max-disagreement; 0: all left; None: none
    test_examples: Count = 0  # of the test part at most, read once at the end; 0 takes all

    # Models
    bert: str = "minilm-l6"  # the teacher: a named BERT, or your own folder
    teacher: str = ""  # in its place: a classifier fine-tuned already, a folder or, beside --bert, a file
    maxlen: Annotated[int, at_least(3)] = 64  # tokens a text is cut to
    teacher_layers: Count = 0  # the first layers of the BERT that the teacher has; 0 takes all
    teacher_head: Literal["branch", "dense"] = "branch"  # its classifier: shaped as a branch is, or one linear layer
    student_layers: Annotated[tuple[PositiveInt, ...], ONCE] = (1,)  # of shallow models, fine-tuned directly, for comparison
    linear: bool = True  # the row of a linear model, which says whether the task needs a BERT

    # Self-distillation
    experiments: Annotated[tuple[str, ...], ONCE, NOT_EMPTY] = ("fastbert",)  # or -plain -labels -labels-only -shuffled -joint
    direction: Literal["student-teacher", "teacher-student"] = "student-teacher"  # KL(student || teacher), or the reverse
    soft_weight: NonNegative = 1.0  # of the KL divergence between branch and teacher
    hard_weight: NonNegative = 0.0  # of each branch's cross-entropy with the labels
    shuffle_sentences: bool = False  # half of the texts are copies with their sentences doubled and shuffled

    # Stopping early
    uncertainty_top_k: Count | None = None  # entropy of the k highest probabilities; 0 takes all; None: chosen on validation
    speeds: Annotated[tuple[Fraction, ...], ONCE, NOT_EMPTY] = (0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.0)  # of the curve
    accuracy_drop: NonNegative = 0.5  # choose the highest speed that loses at most so many points of validation accuracy
    latency_budget: NonNegative = 0.0  # above 0, instead: the lowest speed at which a text by itself takes at most so many ms
    max_disagreement: command.Percent | None = None  # instead: per cent of texts answered otherwise than by the teacher
    confidence: command.Percent = 95.0  # per cent, with which that is promised
    timed_examples: PositiveInt = 64  # test texts that are timed in batches of 32; a quarter of them by themselves

    # Training
    batch_size: PositiveInt = 32  # texts a step
    patience: Count = 10  # epochs without a gain on the validation part that end a stage; 0: all epochs
    teacher_epochs: PositiveInt = 15
    branch_epochs: PositiveInt = 4
    student_epochs: PositiveInt = 25  # of the shallow models
    teacher_learning_rate: LearningRate = 2e-4
    branch_learning_rate: LearningRate = 5e-4
    student_learning_rate: LearningRate = 5e-4
    schedule: Literal["linear", "constant"] = "linear"  # learning rate falling to 0, or staying
    teacher_dropout: Dropout = 0.1  # in hidden states and attention, while the teacher is fine-tuned
    student_dropout: Dropout = 0.0  # the same of the shallow models

    # Run
    seeds: command.Seeds = (0,)  # one whole run each: parts, order, initial classifiers, dropout
    precision: command.Precision = "float32"
    strategy: command.Strategy = "none"  # train on one device, all of them, those of TF_CONFIG
    vocabulary: Count | None = None  # tokens of the student to take away; 0: all; None: 8,000 or more, with a promise all
    int8_disagreement: NonNegative = 5.0  # per cent of validation texts that its int8 form may class otherwise, to be written
    output: str = ""  # the run's folder; default runs/knowledge_distillation_fastbert-PRESET


ORIGINAL = Settings(
    data="iflytek", train_examples=0, unlabelled_examples=None, validation_examples=0, test_examples=0,
    bert="chinese-bert-base", maxlen=128, teacher_layers=6, teacher_head="dense", student_layers=(),
    direction="teacher-student", soft_weight=1.0, hard_weight=1.0, shuffle_sentences=True, uncertainty_top_k=0,
    speeds=(0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0), calibration_examples=None, batch_size=32,
    patience=0, teacher_epochs=5, branch_epochs=20, teacher_learning_rate=2e-5, branch_learning_rate=1e-5,
    schedule="constant", teacher_dropout=0.1, vocabulary=0,
)
PRESETS = {
    "demo": Settings(),
    "original": ORIGINAL,
    "paper": replace(
        ORIGINAL, validation_examples=1000, unlabelled_examples=0,  # if there is a file of them
        teacher_layers=0, teacher_head="branch", direction="student-teacher", hard_weight=0.0,
        shuffle_sentences=False, teacher_epochs=3, branch_epochs=5, branch_learning_rate=2e-4, schedule="linear",
    ),
    **on_grounds(Settings(teacher_head="dense")),  # the teacher of the other scripts
}

JOINT = "fastbert-joint"  # no self-distillation: teacher and branches are fine-tuned together, on the labels
EXPERIMENTS = {  # what of the settings is another in each
    "fastbert": {},
    "fastbert-plain": {"soft_weight": 1.0, "hard_weight": 0.0, "shuffle_sentences": False},
    "fastbert-labels": {"soft_weight": 1.0, "hard_weight": 1.0},
    "fastbert-labels-only": {"soft_weight": 0.0, "hard_weight": 1.0},
    "fastbert-shuffled": {"shuffle_sentences": True},
    JOINT: {},
}
MAY_DIFFER = {*EXTENSIBLE, *exit_curve.STOPPING, "student_layers", "timed_examples"}  # they change no finished stage


# Models: a branch after every layer --------------------------------------------------------------------------------------

WIDTH, HEADS = 128, 2  # of a branch


def glorot(shape, dtype=None, **_):
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
    narrow = keras.layers.Dense(WIDTH, activation="tanh", kernel_initializer=glorot)(hidden)
    first = keras.layers.Lambda(lambda states: states[:, :1])(narrow)
    attended = cls(MultiHeadAttention(HEADS, WIDTH // HEADS, kernel_initializer=glorot)([first, narrow, narrow]))
    mixed = keras.layers.Dense(WIDTH, activation="tanh", kernel_initializer=glorot)(attended)
    logits = keras.layers.Dense(classes, kernel_initializer=glorot, dtype="float32")(mixed)
    return keras.Model(hidden, logits, name=name)


def has_branch(run):
    """Whether the teacher's classifier has the shape of a branch; a teacher that is given brings its own."""
    return run.settings.teacher_head == "branch" and not run.bert.is_classifier


def build_teacher(run, layers, dropout):
    """(bert4keras transformer, head, model (token ids, segment ids) -> logits (batch, classes)) of so many layers."""
    bert, classes = keep_layers(run.bert, range(layers)), len(run.corpus.classes)
    if has_branch(run):
        encoder, (inputs, mask) = build_encoder(bert, dropout), inputs_and_mask()
        head = build_branch(encoder.hidden_size, classes, "teacher_head")
        return encoder, head, keras.Model(inputs, head(encoder.model(inputs), mask=mask))
    classifier = build_classifier(bert, classes, dropout)  # the original's, and to the last bit that of the other scripts
    hidden = keras.Input((None, classifier.encoder.hidden_size))
    head = keras.Model(hidden, classifier.head(cls(hidden)), name="teacher_head")  # a model, as a branch is
    return classifier.encoder, head, classifier.model


def build_fastbert(run, joint=False):
    """The fine-tuned teacher taken to pieces, frozen and without dropout, and new branches; for `joint`, nothing is frozen."""
    depth, classes = depths_of(run)["teacher"], len(run.corpus.classes)
    encoder, head, teacher = build_teacher(run, depth, run.settings.teacher_dropout if joint else 0.0)
    branches = [build_branch(encoder.hidden_size, classes, f"branch_{i}") for i in range(1, depth)]
    layers = [layers_of(encoder, [i]) for i in range(depth)]
    if not joint:
        training.load_stage(run, "teacher", teacher)
        encoder.model.trainable = head.trainable = False
    return ExitModel(embeddings_of(encoder), layers, [*branches, head], encoder, has_branch(run))


def depths_of(run):
    """{name: layers} of the teacher and the shallow models beside it."""
    teacher = run.settings.teacher_layers or run.bert.layers
    return {"teacher": teacher} | {f"alone-{depth}": depth for depth in run.settings.student_layers}


def trained_fastbert(run, name):
    """The ExitModel of a finished experiment, with its best weights."""
    joint = name == JOINT
    fastbert = build_fastbert(run, joint)
    training.load_stage(run, f"{name}-branches", all_exits(fastbert) if joint else branches_alone(fastbert))
    return fastbert


def trained_teacher(run, name):
    """The BertClassifier of the teacher, whatever its head, or of a shallow model beside it."""
    encoder, head, model = build_teacher(run, depths_of(run)[name], 0.0)
    training.load_stage(run, name, model)
    return BertClassifier(keep_layers(run.bert, range(depths_of(run)[name])), encoder, head, model)


def uncertainty(probabilities, top_k=0):
    """u = -Σ p log p / log N, from 0 to 1  (paper, equation 7); 0 · log 0 is 0, not the original's NaN. Returns (…) float32.

    probabilities: (…, classes), any float
    top_k: only the k highest, scaled to sum to 1, and N = k; 0 takes all. Among many classes the few that are likely say how
        sure an answer is, while the rest, each of them hardly possible, keep the plain entropy high
    """
    p = tf.cast(probabilities, tf.float32)
    if top_k:
        p = tf.math.top_k(p, min(top_k, p.shape[-1])).values
    p = p / tf.reduce_sum(p, axis=-1, keepdims=True)
    log_p = tf.math.log(tf.maximum(p, np.finfo(np.float32).tiny))
    entropy = -tf.reduce_sum(p * log_p, axis=-1) / np.log(p.shape[-1])
    return tf.where(tf.math.is_nan(entropy), entropy, tf.clip_by_value(entropy, 0.0, 1.0))  # clipping may lose a NaN


# Loss --------------------------------------------------------------------------------------------------------------------


def self_distillation_loss(direction, soft_weight, hard_weight):
    """Σ over branches of soft_weight · KL(branch || teacher) + hard_weight · CE(label, branch)  (paper, equations 5 and 6).

    direction: "student-teacher" as above, as the paper has it, or "teacher-student", KL(teacher || branch), as its code and
        the original have it
    soft_weight: of the divergence
    hard_weight: of the cross-entropy, in which a label that is UNLABELLED has no part

    Returns (labels (batch,) int, logits (batch, layers, classes)) -> (batch,) float32. The teacher's logits are the last of
    them and get no gradient.
    """
    def loss(labels, logits):
        teacher, branches = tf.stop_gradient(logits[:, -1:]), logits[:, :-1]
        if direction == "student-teacher":
            divergence = soft_loss(tf.nn.softmax(branches), teacher)
        else:
            divergence = soft_loss(tf.nn.softmax(teacher), branches)
        return soft_weight * tf.reduce_sum(divergence, axis=1) + hard_weight * exits_hard_loss(labels, branches)

    return loss


def exits_hard_loss(labels, logits):
    """Σ over exits of CE(label, exit), 0 where there is no label. labels: (batch,); logits: (batch, exits, classes)."""
    return tf.add_n([hard_loss(labels, exit_logits) for exit_logits in tf.unstack(logits, axis=1)])


# Training ----------------------------------------------------------------------------------------------------------------


def train_alone(run, name):
    """Fine-tune the teacher, or a shallow model beside it, on the labels. Returns the record of the stage."""
    if record := run.record(name):
        return record
    settings, depth, role = run.settings, depths_of(run)[name], "teacher" if name == "teacher" else "student"
    epochs, rate, dropout = (getattr(settings, f"{role}_{what}") for what in ("epochs", "learning_rate", "dropout"))
    with fresh_session(run.seed):
        if name == "teacher" and settings.teacher:
            return training.measure_given(run, name, build_teacher(run, depth, dropout)[2])
        return training.fine_tune(run, name, build_teacher(run, depth, dropout)[2], epochs, rate)


def train_branches(run, name):
    """Train the branches of the experiment `name`, or read what an earlier start left. Returns the record of the stage."""
    stage = f"{name}-branches"
    if record := run.record(stage):
        return record
    with fresh_session(run.seed):
        return train_jointly(run, stage) if name == JOINT else self_distil(run, stage)


def self_distil(run, stage):
    """Teach the branches what the frozen teacher answers."""
    settings, parts = run.settings, run.parts
    fastbert = build_fastbert(run)
    model = all_exits(fastbert)
    indices = np.concatenate([parts.train, parts.unlabelled])
    steps = run.steps(indices)  # in every experiment as many, whatever it learns from
    if not settings.soft_weight:
        indices = parts.train
    labels = np.where(np.isin(indices, parts.unlabelled), UNLABELLED, run.corpus.labels[indices])
    unlabelled = int((labels == UNLABELLED).sum())
    if settings.shuffle_sentences:  # the original's: of each text a copy too, its sentences doubled and shuffled
        copies = TokenizedTexts.of(shuffling.shuffled_copies(run.corpus.texts, indices, run.seed), run.bert, settings.maxlen)
        run, labels = replace(run, examples=run.examples.joined(copies)), np.tile(labels, 2)
        indices = np.append(indices, len(run.corpus.texts) + np.arange(len(indices)))
    loss = self_distillation_loss(settings.direction, settings.soft_weight, settings.hard_weight)
    optimizer = training.adam(settings.branch_learning_rate, steps * settings.branch_epochs, settings.schedule)
    return training.train_stage(
        run, stage, model, loss, optimizer, indices, labels, settings.branch_epochs, steps, saved=branches_alone(fastbert),
        measure=lambda labels, logits: exit_curve.mean_scores(labels, logits[:, :-1]), measured="mean of the branches",
        unlabelled=unlabelled,
    )


def train_jointly(run, stage):
    """Fine-tune all layers and exits together on the labels, the paper's ablation, for the epochs of teacher and branches."""
    settings, indices = run.settings, run.parts.train
    model, epochs = all_exits(build_fastbert(run, joint=True)), settings.teacher_epochs + settings.branch_epochs
    optimizer = training.adam(settings.teacher_learning_rate, run.steps(indices) * epochs, settings.schedule)
    return training.train_stage(
        run, stage, model, exits_hard_loss, optimizer, indices, run.corpus.labels[indices], epochs,
        measure=exit_curve.mean_scores, measured="mean of all exits",
    )


# What came out -----------------------------------------------------------------------------------------------------------


def main(preset, settings):
    """Read settings and data, train teacher, shallow models and branches for every seed, measure, report."""
    wanted = check(settings)
    settings = replace(settings, speeds=tuple(sorted(map(float, settings.speeds))))
    if settings.max_disagreement is not None and settings.vocabulary is None:
        settings = replace(settings, vocabulary=0)  # fewer tokens change answers, too
    fixed = {"calibration_examples"} if settings.unlabelled_examples == 0 else set()  # which takes what calibration leaves
    shuffles = any(replace(settings, **EXPERIMENTS[name]).shuffle_sentences for name in wanted if name != JOINT)
    inputs = read_inputs(settings)
    check_depths(settings, inputs.bert, "teacher_layers", "student_layers", least=2)
    if shuffles:
        shuffling.check_shufflable(inputs.corpus)
    rates = ([] if settings.teacher else ["teacher_learning_rate"]) + ["student_learning_rate"] * bool(settings.student_layers)
    inputs.corpus.notes.extend(rate_remarks(settings, inputs.bert, rates))
    runs = open_text_runs(  # calibration texts are held back in any case: a promise may be asked for later
        SCRIPT, preset, settings, inputs, settings.unlabelled_examples, settings.calibration_examples,
        check=lambda seed, parts: exit_curve.check_calibration(settings, parts), extensible=MAY_DIFFER - fixed,
    )
    linear = show_stages(linear_records(runs))
    for run in runs:
        show_stages(train_alone(run, name) for name in depths_of(run))
        show_stages(train_branches(run_of(run, name), name) for name in wanted)
    exit_unless_chief()
    report(preset, settings, runs, wanted, linear)


def run_of(run, name):
    """The run with the settings of the experiment `name`."""
    return replace(run, settings=replace(run.settings, **EXPERIMENTS[name]))


def check(settings):
    """Refuse settings that cannot be together. Returns the experiments to run."""
    command.check_known("--experiments", settings.experiments, EXPERIMENTS)
    if settings.teacher_layers == 1:
        raise InputError("--teacher-layers 1: a teacher of one layer has no branches; 2 or more, or 0 for all")
    if settings.teacher and JOINT in settings.experiments:
        raise InputError(f"--experiments {JOINT}: it trains all layers anew, and a teacher that is given is not trained")
    if settings.teacher and settings.teacher_layers:
        raise InputError(f"--teacher-layers {settings.teacher_layers}: a teacher that is given keeps its layers; leave it at 0")
    exit_curve.check(settings)
    wanted = [name for name in EXPERIMENTS if name in settings.experiments]
    varied = {name: replace(settings, **EXPERIMENTS[name]) for name in wanted if name != JOINT}
    for place, (name, its_settings) in enumerate(varied.items()):
        command.check_loss_weights(its_settings)
        for other in [*varied][:place]:
            if varied[other] == its_settings:
                raise InputError(f"--experiments {name}: with these settings it is the same as {other}; leave one out")
    return wanted


def costs(run, tokens):
    """FLOPs of one text of so many tokens, as `cost.exit_costs` has them; of a branch as `export.exit_graph` makes it."""
    hidden, classes = run.bert.config["hidden_size"], len(run.corpus.classes)
    for_each_token = hidden * WIDTH + 2 * HEADS * WIDTH  # narrow; [CLS] alone asks and gathers, once a head
    branch = 2 * (tokens * for_each_token + 2 * HEADS * WIDTH * WIDTH + WIDTH * classes)
    return exit_costs(run.bert, classes, tokens, branch, has_branch(run))


def measure(run, names):
    """The records of a seed: of teacher and shallow models with their cost, and of each FastBERT with its exits."""
    depths = depths_of(run)
    plain = {name: lambda name=name: teacher_onnx(HEADS * has_branch(run), trained_teacher(run, name)) for name in depths}
    of_run = (partial(function, run) for function in (student_model, trained_fastbert))
    records = measure_exits(run, depths, plain, names, *of_run, uncertainty, partial(costs, run))
    for record in records:
        if record["name"] in names and record["name"] != JOINT:
            record["train_seconds"] += records[0]["train_seconds"]  # of the teacher that its branches learned from
    return records


def report(preset, settings, runs, names, linear):
    """Measure; write the report, the plot of the exits and the student; print the tables."""
    run, records = runs[0], [record for each in runs for record in measure(each, names)] + linear
    pairs = [("teacher", LINEAR), *((name, other) for other in (*depths_of(run), LINEAR) for name in names)]
    results = results_of(run, SCRIPT, preset, PRESETS[preset], records, pairs)
    results |= branch_results(run, records, names) | {"costs": costs(run, settings.maxlen)}
    sections = exit_sections(results, [record for record in records if record["name"] in names], run, uncertainty)
    student, section, told = write_student(runs, records, names, "teacher", text_writer(student_model), __doc__)
    branch_graph = partial(teacher_onnx, HEADS) if has_branch(run) else None
    write_teacher(runs, records, "teacher", trained_teacher, told["student"]["seed"], branch_graph)
    plot_exits(run.folder / "exits.png", records, told["student"]["files"])
    example = in_words(run, records[0]["timed_tokens"])
    more = {"sections": sections + section, "plots": ["exits.png"], "first": verdict(records, names, run.settings)}
    write_report(run.folder, results | told, records, example, {"student": student} | write_linear(runs, linear), **more)


def student_model(run, record):
    """The TextModel of a FastBERT, given its record."""
    return exit_model(run, trained_fastbert(run, record["name"]), record, uncertainty, HEADS)


if __name__ == "__main__":
    command.start(main, PRESETS, __doc__.split("\n\n")[0])
