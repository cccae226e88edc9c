"""Knowledge distillation of a fine-tuned BERT into its first few layers, by hard labels and softened logits.

A teacher (all layers) is fine-tuned; its logits over the training texts, computed once, become soft labels at temperature T;
a student (3 layers) learns the labels and the soft labels together. Beside it stands what it must be measured against: the
same student trained alone, self-distilled, distilled from noise, and distilled with further texts that have no label, found or
made of the training texts; and a linear model that learns from the teacher.

    Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, 2015, arXiv 1503.02531
    Tang et al.: Distilling Task-Specific Knowledge from BERT into Simple Neural Networks, 2019, arXiv 1903.12136
        (section 3.2: texts made of the training texts)
    Turc et al.: Well-Read Students Learn Better, 2019, arXiv 1908.08962 (soft labels on unlabelled texts)

    python knowledge_distillation_bert.py                 # bundled model and data, minutes on two cores
    python knowledge_distillation_bert.py --temperature 4 --output runs/temperature-4
    python knowledge_distillation_bert.py --teacher FOLDER --data FILE    # distil a BERT that is fine-tuned already
    python knowledge_distillation_bert.py original        # IFLYTEK and Chinese BERT-base, as the original script
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Literal

import numpy as np

from common import InputError, command
from common.backend import tf
from common.batches import TokenizedTexts
from common.bert import build_classifier
from common.command import Count, Dropout, Fraction, LearningRate, NonNegative, PositiveInt, Temperature, at_least
from common.devices import exit_unless_chief, fresh_session
from common.distillation import distillation_loss, distillation_metrics, distillation_targets, noise_labels, soften
from common.layer_distillation import beside_layers, layer_loss, with_layer_loss
from common.linear import LINEAR, fit_linear, linear_records
from common.report.document import show_stages
from common.runs import open_text_runs
from common.soft_labels import check_teachers, stage_logits, teacher_logits
from common.training import adam, fine_tune, load_stage, measure_given, train_stage, trained
from data.augmentation import with_augmented
from data.berts import keep_layers, layers_to_keep, without_classifier
from data.grounds import on_grounds
from data.narrowing import narrow, width_of
from data.parts import UNLABELLED
from data.successors import PREFIX, best_stage, check_successors, folder_of
from data.texts import in_one_line
from export.reporting import report_texts

# Settings --------------------------------------------------------------------------------------------------------------

SCRIPT = "knowledge_distillation_bert"
DEFAULT = ("teacher", "alone", "distilled", "distilled-unlabelled")


@dataclass(frozen=True)
class Settings:
    # Data
    data: str = "reuters-r8"  # a named data set, or your own file or folder
    download: bool = False  # fetch the named data set and BERT if they are not here
    train_examples: Count = 200  # labelled training texts at most; 0 takes all
    unlabelled_examples: Count | None = 1800  # further texts at most, labels unseen; 0: all there are; None: none
    augmentations: PositiveInt = 20  # texts made of each training text, for distilled-augmented, at most
    validation_examples: Count | None = None  # for epochs: None: the dev part, or 400 held out; 0: test part
    test_examples: Count = 2000  # of the test part at most, read once at the end; 0 takes all

    # Models
    bert: str = "minilm-l6"  # the teacher: a named BERT, or your own folder
    teacher: tuple[str, ...] = ()  # in its place: a classifier fine-tuned already (folder, or file beside --bert), or several
    soft_labels: tuple[str, ...] = ()  # instead of a teacher: a file of what it answered, or several
    ensemble: bool = False  # the teachers of all seeds are a teacher too, for `distilled-ensemble`
    maxlen: Annotated[int, at_least(3)] = 64  # tokens a text is cut to
    student_layers: PositiveInt = 3  # layers of the student
    student_init: str = "first"  # the layers it starts from: first, spread, teacher-first, teacher-spread, or theseus:RUN
    student_hidden: Count = 0  # its width, cut out of the BERT's; 0: as wide as the BERT
    student_heads: Count = 0  # its attention heads, where it is narrower; 0: in proportion to its width
    narrowing: Literal["cut", "least-squares"] = "cut"  # what becomes of the weights: see `data.narrowing`
    linear: bool = True  # the row of a linear model, which says whether the task needs a BERT

    # Distillation
    experiments: tuple[str, ...] = DEFAULT  # rows: these, -ensemble, alone-self-distilled, teacher-self-distilled, noise, …
    temperature: Temperature = 6.0  # T
    hard_weight: NonNegative = 1.0  # of the cross-entropy with the labels
    soft_weight: NonNegative = 1.0  # of T² · KL(teacher || student)

    # The teacher's layers, for `distilled-layers`
    layer_mapping: tuple[PositiveInt, ...] = ()  # the layer that each of the student's learns, from 1; (): spread evenly
    layers_until: Fraction = 0.5  # share of the steps after which layers are no longer learnt
    labels_from: Fraction = 0.5  # share of the steps after which labels are learnt; 0: beside the layers
    hidden_loss: Literal["mse", "cls", "cosine"] = "mse"  # of hidden states, as in TinyBERT, PKD or DistilBERT
    hidden_weight: NonNegative = 1.0  # of it, in the embeddings too
    attention_weight: NonNegative = 1.0  # of the attention scores' mean squared error

    # Training
    batch_size: PositiveInt = 32  # texts a step
    patience: Count = 5  # epochs without a gain on the validation part that end a stage; 0: all epochs
    teacher_epochs: PositiveInt = 15  # of the teacher, and of `teacher-self-distilled`
    student_epochs: PositiveInt = 25  # of every student but the next
    unlabelled_steps: PositiveInt = 320  # of what learns from texts without labels, however many; measured at every tenth
    teacher_learning_rate: LearningRate = 2e-4  # of Adam, for the deep models
    student_learning_rate: LearningRate = 5e-4  # of Adam, for the shallow ones
    schedule: Literal["linear", "constant"] = "linear"  # learning rate falling to 0, or staying
    teacher_dropout: Dropout = 0.1  # in hidden states and attention
    student_dropout: Dropout = 0.0  # the same of the shallow models, which underfit as it is

    # Run
    seeds: command.Seeds = (0,)  # one whole run each: parts, order, initial classifier, dropout
    precision: command.Precision = "float32"
    strategy: command.Strategy = "none"  # train on one device, all of them, those of TF_CONFIG
    vocabulary: Count = 8000  # tokens that the student to take away keeps, those its texts use first; 0 keeps all
    int8_disagreement: NonNegative = 5.0  # per cent of validation texts that its int8 form may class otherwise, to be written
    output: str = ""  # the run's folder; default runs/knowledge_distillation_bert-PRESET


PRESETS = {
    "demo": Settings(),
    "original": Settings(
        data="iflytek", train_examples=0, unlabelled_examples=None, validation_examples=0, test_examples=0,
        bert="chinese-bert-base", maxlen=128, student_layers=3, student_init="first",
        experiments=("teacher", "alone", "distilled", "alone-self-distilled", "teacher-self-distilled", "noise"),
        temperature=3.0, hard_weight=1.0, soft_weight=1.0,
        batch_size=32, patience=0, teacher_epochs=5, student_epochs=10, teacher_learning_rate=2e-5, student_learning_rate=2e-5,
        schedule="constant", teacher_dropout=0.1, student_dropout=0.1, vocabulary=0,
    ),
    **on_grounds(Settings()),
}
STARTS = {  # of a student: (layers spread over the depth, of the fine-tuned teacher)
    "first": (False, False), "spread": (True, False), "teacher-first": (False, True), "teacher-spread": (True, True),
}
SUCCESSOR = (False, False)  # the same of a student that starts as the successor in the folder of a run of Theseus


DEEP, SHALLOW = "the whole BERT", "its first layers"  # and LINEAR
CHECKS = 10  # how often a model that learns from texts without labels is measured on validation


@dataclass(frozen=True)
class Experiment:
    """A row: which model, whose soft labels it learns, and on which texts."""

    model: str
    soft_labels: str | None = None  # of another experiment's model, several teachers, noise, or None: hard labels alone
    further: tuple[str, ...] = ()  # texts beside the labelled ones: "unlabelled", "augmented"
    layers: bool = False  # whether it learns its teacher's hidden states and attention, too


EXPERIMENTS = {
    "teacher": Experiment(DEEP),
    "alone": Experiment(SHALLOW),
    "distilled": Experiment(SHALLOW, "teacher"),
    "distilled-ensemble": Experiment(SHALLOW, "ensemble"),
    "distilled-unlabelled": Experiment(SHALLOW, "teacher", further=("unlabelled",)),
    "distilled-layers": Experiment(SHALLOW, "teacher", further=("unlabelled",), layers=True),
    "distilled-augmented": Experiment(SHALLOW, "teacher", further=("augmented",)),
    "linear-distilled": Experiment(LINEAR, "teacher", further=("unlabelled",)),
    "alone-self-distilled": Experiment(SHALLOW, "alone"),
    "teacher-self-distilled": Experiment(DEEP, "teacher"),
    "noise": Experiment(SHALLOW, "noise"),
    "bilstm-alone": Experiment(BILSTM),
    "bilstm-distilled": Experiment(BILSTM, "teacher", further=("unlabelled",), optional=True),
}
STUDENTS = [name for name in EXPERIMENTS if EXPERIMENTS[name].model not in (DEEP, LINEAR)]
COMPARISONS = (
    *((name, LINEAR) for name in DEFAULT),
    ("distilled", "alone"), ("distilled-ensemble", "alone"), ("distilled-ensemble", "distilled"),
    ("distilled-unlabelled", "alone"), ("distilled-unlabelled", "distilled"),
    ("distilled-augmented", "alone"), ("distilled-augmented", "distilled"), ("distilled-unlabelled", "distilled-augmented"),
    ("linear-distilled", LINEAR), ("linear-distilled", "alone"), ("distilled-unlabelled", "linear-distilled"),
    ("alone-self-distilled", "alone"), ("noise", "alone"), ("distilled", "noise"), ("teacher-self-distilled", "teacher"),
    ("bilstm-distilled", "bilstm-alone"), ("bilstm-distilled", "alone"), ("bilstm-distilled", LINEAR),
    ("bilstm-alone", "alone"),
)


# Models ----------------------------------------------------------------------------------------------------------------


def shape_of(run, name):
    """What has the shape of an experiment's model: the run's BERT, those of its layers a student starts from, or a BiLSTM."""
    if EXPERIMENTS[name].model == DEEP:
        return run.bert
    if EXPERIMENTS[name].model == BILSTM:
        return bilstm_of(run)
    return shallow(run.settings, run.bert)


def shallow(settings, bert):
    """The layers of `bert` that a student starts from, as wide as it is to be."""
    spread, _ = STARTS.get(settings.student_init, SUCCESSOR)
    layers = keep_layers(bert, layers_to_keep(bert.layers, settings.student_layers, spread))
    if not settings.student_hidden:
        return layers
    return narrow(layers, *width_of(layers, settings.student_hidden, settings.student_heads), settings.narrowing)


def bilstm_of(run):
    """The BiLSTM of a run, not trained yet."""
    settings = run.settings
    shape = settings.bilstm_units, settings.bilstm_dense
    return bilstms.draw(run.bert, len(run.corpus.classes), *shape, settings.bilstm_embeddings, run.seed)


def build(run, name):
    """The BertClassifier, or the BilstmClassifier, of an experiment, not trained yet."""
    if EXPERIMENTS[name].model == BILSTM:
        return build_bilstm(bilstm_of(run))
    settings, bert, classes = run.settings, run.bert, len(run.corpus.classes)
    if EXPERIMENTS[name].model == DEEP:
        return build_classifier(bert, classes, settings.teacher_dropout)
    if folder := folder_of(settings.student_init):  # its classifier is the one it was trained with
        successor = build_classifier(shallow(settings, bert), classes, settings.student_dropout)
        load_stage(replace(run, folder=folder), best_stage(folder, run.seed), successor.model)
        return successor
    _, fine_tuned = STARTS[settings.student_init]
    start = trained(run, "teacher", build).bert if fine_tuned else bert
    if not bert.is_classifier:  # a teacher that is given hands its classifier on, one that is trained here does not
        start = without_classifier(start)
    return build_classifier(shallow(settings, start), classes, settings.student_dropout)


# Training: the loss is `distillation.distillation_loss`, of the BiLSTM `distillation.logit_loss` ----------------------------


def soft_labels_of(run, name, indices):
    """Soft labels (texts, classes) at temperature T, from noise, several teachers, or the model of a finished experiment."""
    temperature = run.settings.temperature
    if name == "noise":
        return noise_labels(run.corpus.labels[indices], len(run.corpus.classes), temperature, run.seed)
    if name == "ensemble":  # the mean of the teachers' soft labels (Hinton et al., section 1)
        return np.mean([soften(logits, temperature) for logits in teacher_logits(run, build, indices)], axis=0)
    if name == "teacher":
        return soften(next(teacher_logits(run, build, indices)), temperature)
    return soften(stage_logits(run, name, trained(run, name, build).model, indices), temperature)


def logits_to_learn(run, indices):
    """What `distillation.logit_loss` holds a BiLSTM against: the teacher's logits (texts, classes) float32."""
    if run.answers:
        return as_logits(run.settings.soft_labels[0], run.answers[0], run.corpus.texts, indices)
    return next(teacher_logits(run, build, indices))


def train(run, name):
    """Run one experiment, or read what an earlier start left of it. Returns its record."""
    if record := run.record(name):
        return record
    settings, experiment = run.settings, EXPERIMENTS[name]
    epochs, rate = {
        DEEP: (settings.teacher_epochs, settings.teacher_learning_rate),
        SHALLOW: (settings.student_epochs, settings.student_learning_rate),
        BILSTM: (settings.student_epochs, settings.bilstm_learning_rate),
    }[experiment.model]
    if experiment.soft_labels:
        return distil(run, name, epochs, rate)
    with fresh_session(run.seed):
        if name == "teacher" and settings.teacher:
            return measure_given(run, name, build(run, name).model)
        return fine_tune(run, name, build(run, name).model, epochs, rate)


def by_logits(settings, name):
    """Whether an experiment learns the teacher's logits rather than its soft labels."""
    return EXPERIMENTS[name].model == BILSTM and EXPERIMENTS[name].soft_labels and settings.bilstm_loss == "mse"


def distil(run, name, epochs, learning_rate):
    """Train a model on hard and soft labels together, or on its teacher's layers too. Returns the record of the stage."""
    settings, experiment, parts = run.settings, EXPERIMENTS[name], run.parts
    indices = np.concatenate([parts.train, *(getattr(parts, further) for further in experiment.further)])
    labels = np.where(np.isin(indices, parts.train), run.corpus.labels[indices], UNLABELLED)
    steps = run.steps(indices)
    if len(indices) > len(parts.train):
        epochs, steps = CHECKS, -(-settings.unlabelled_steps // CHECKS)
    soft_labels = soft_labels_of(run, experiment.soft_labels, indices)
    accuracy = {"soft_label_accuracy": float((soft_labels.argmax(-1) == labels)[labels != UNLABELLED].mean())}
    if experiment.model == LINEAR:  # learns classes: where there is no label, the teacher's most probable one
        return fit_linear(run, name, indices, np.where(labels == UNLABELLED, soft_labels.argmax(-1), labels), **accuracy)
    with fresh_session(run.seed):
        student = build(run, name)
        loss = distillation_loss(settings.temperature, settings.hard_weight, settings.soft_weight)
        metrics, optimizer = distillation_metrics(settings.temperature), adam(learning_rate, steps * epochs, settings.schedule)
        rest = (optimizer, indices, distillation_targets(labels, soft_labels), epochs, steps)
        if experiment.layers:
            return learn_layers(run, name, student, loss, metrics, *rest, **accuracy)
        return train_stage(run, name, student.model, loss, *rest, metrics=metrics, **accuracy)


def learn_layers(run, name, student, loss, metrics, optimizer, indices, targets, epochs, steps, **metadata):
    """The same with the layers: L = [t < layers_until] · L_layers + [t ≥ labels_from] · L_labels, t being the share of steps.

    TinyBERT learns layers first and labels afterwards (equation 11), PKD and DistilBERT learn both together.
    """
    settings = run.settings
    until, since = (round(share * epochs * steps) for share in (settings.layers_until, settings.labels_from))
    mapping = settings.layer_mapping or [g + 1 for g in layers_to_keep(run.bert.layers, settings.student_layers, spread=True)]
    model = with_layer_loss(
        trained(run, "teacher", build), student, mapping, settings.hidden_loss, settings.hidden_weight,
        settings.attention_weight, active=lambda: optimizer.iterations < until,
    )
    loss, *metrics = map(beside_layers, (loss, *metrics))

    def both(targets, outputs):
        return layer_loss(targets, outputs) + tf.where(optimizer.iterations < since, 0.0, loss(targets, outputs))

    if since:  # accuracy begins to count when labels are learnt
        run = replace(run, settings=replace(settings, patience=0))
    return train_stage(
        run, name, student.model, both, optimizer, indices, targets, epochs, steps, model, metrics=[layer_loss, *metrics],
        **metadata,
    )


# What came out ---------------------------------------------------------------------------------------------------------


def main(preset, settings):
    """Read settings and data, run every experiment for every seed, report."""
    wanted = check(settings)
    further = {texts for name in wanted for texts in EXPERIMENTS[name].further}
    unlabelled = settings.unlabelled_examples if "unlabelled" in further else None
    runs = open_text_runs(
        SCRIPT, preset, settings, unlabelled, depths=("student_layers", "layer_mapping"),
        further_inputs=partial(check_start, settings),
    )
    if "augmented" in further:
        runs = [augmented(run) for run in runs]
    for run in runs:
        if folder := folder_of(settings.student_init):
            print(f"seed {run.seed}: students start as {best_stage(folder, run.seed)} of {folder}")
    linear = show_stages(linear_records(runs))
    for run in runs if settings.ensemble else ():
        train(run, "teacher")  # all of them, before the first student learns from all
    records = show_stages(train(run, name) for run in runs for name in wanted)
    exit_unless_chief()
    linear += [record for record in records if EXPERIMENTS[record["name"]].model == LINEAR]
    records = [record for record in records if EXPERIMENTS[record["name"]].model != LINEAR]
    shapes = {name: shape_of(runs[0], name) for name in EXPERIMENTS if EXPERIMENTS[name].model != LINEAR}
    report_texts(
        SCRIPT, preset, PRESETS[preset], runs, records, linear, shapes, COMPARISONS, "teacher", STUDENTS, build, __doc__,
    )


def augmented(run):
    """The run with texts made of its training texts, as `Parts.augmented`; says how many there are."""
    corpus, parts, made = with_augmented(run.corpus, run.parts, run.settings.augmentations, run.bert.tokenizer, run.seed)
    print(f"seed {run.seed}: {corpus.notes[-1]}, such as {in_one_line(made[0])!r}")
    examples = run.examples.joined(TokenizedTexts.of(made, run.bert, run.settings.maxlen))
    return replace(run, corpus=corpus, parts=parts, examples=examples)


def check_start(settings, bert, inputs):
    """Refuse students that cannot be made of the run's BERT. Returns what they start from beside it: {what: fingerprint}."""
    if settings.student_hidden:
        _, heads = width_of(bert, settings.student_hidden, settings.student_heads)
        layers = [name for name in settings.experiments if EXPERIMENTS[name].layers]
        if layers and settings.attention_weight and heads != bert.config["num_attention_heads"]:
            raise InputError(f"--experiments {layers[0]}: the student has {heads} heads, {bert.source} "
                             f"{bert.config['num_attention_heads']}, so attention cannot be compared; give --student-heads "
                             f"{bert.config['num_attention_heads']} or --attention-weight 0")
    folder = folder_of(settings.student_init)
    return check_successors(folder, settings, inputs) if folder else {}


def check(settings):
    """Refuse settings that cannot be together. Returns the experiments to run, dependencies included."""
    command.check_loss_weights(settings)
    command.check_known("--experiments", settings.experiments, EXPERIMENTS)
    for name in settings.experiments:
        wants = "unlabelled" in EXPERIMENTS[name].further and not EXPERIMENTS[name].optional
        if wants and settings.unlabelled_examples is None:
            raise InputError(f"--experiments {name} needs --unlabelled-examples; 0 takes all there are")
        if "augmented" in EXPERIMENTS[name].further and settings.soft_labels:
            raise InputError(f"--experiments {name}: with --soft-labels there is no teacher to label the texts that are made")
        if EXPERIMENTS[name].layers:
            check_layers(settings, name)
    folder = folder_of(settings.student_init)
    if folder is None and settings.student_init not in STARTS:
        raise InputError(f"--student-init {settings.student_init}: expected {', '.join(STARTS)} or {PREFIX}RUN")
    if folder and settings.student_hidden:
        raise InputError(f"--student-hidden {settings.student_hidden}: a successor of Theseus is as wide as its predecessor")
    if settings.student_heads and not settings.student_hidden:
        raise InputError(f"--student-heads {settings.student_heads} needs --student-hidden, the width that they share")
    deep = [name for name in EXPERIMENTS if EXPERIMENTS[name].model == DEEP]
    several = check_teachers(settings, deep, from_teacher=STARTS.get(settings.student_init, SUCCESSOR)[1])
    wanted = {"teacher", *settings.experiments, *(["distilled-ensemble"] if several else [])}
    wanted |= {EXPERIMENTS[name].soft_labels for name in wanted}
    return [name for name in EXPERIMENTS if name in wanted and not (settings.soft_labels and name in deep)]


def check_layers(settings, name):
    """Refuse settings with which the experiment `name`, which learns layers, would learn none or no labels."""
    if settings.soft_labels:
        raise InputError(f"--experiments {name}: with --soft-labels there is no teacher whose layers could be learnt")
    if settings.layers_until == 0 or settings.hidden_weight == settings.attention_weight == 0:
        raise InputError(f"--experiments {name}: no layer would be learnt; raise --layers-until, --hidden-weight or "
                         "--attention-weight above 0")
    if settings.labels_from == 1:
        raise InputError("--labels-from 1: no label would be learnt; give less, such as 0.5")
    if settings.layer_mapping and len(settings.layer_mapping) != settings.student_layers:
        raise InputError(f"--layer-mapping{''.join(f' {g}' for g in settings.layer_mapping)}: the student has "
                         f"{settings.student_layers} layers, and each needs a layer of the teacher")


if __name__ == "__main__":
    command.start(main, PRESETS, __doc__.split("\n\n")[0])
