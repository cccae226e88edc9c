"""Knowledge distillation of a fine-tuned BERT into a small student, by hard labels and softened logits.

A teacher (all layers) is fine-tuned; its logits over the training texts, computed once, become soft labels at temperature T;
a student (some of the layers, or a BiLSTM) learns the labels and the soft labels together. It may learn them of further texts
that have no label, found or made of the training texts, and beside them its teacher's layers. With it stands what it must be
measured against: the same student trained alone, self-distilled and distilled from noise; and linear models.

    Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, 2015, arXiv 1503.02531
    Turc et al.: Well-Read Students Learn Better, 2019, arXiv 1908.08962 (soft labels on unlabelled texts)
    Jiao et al.: TinyBERT: Distilling BERT for Natural Language Understanding, 2019, arXiv 1909.10351 (hidden states, attention)
    Sun et al.: Patient Knowledge Distillation for BERT Model Compression, 2019, arXiv 1908.09355 (states of [CLS])
    Sanh et al.: DistilBERT, a distilled version of BERT, 2019, arXiv 1910.01108 (cosine of hidden states)
    Tang et al.: Distilling Task-Specific Knowledge from BERT into Simple Neural Networks, 2019, arXiv 1903.12136 (a BiLSTM, and
        texts made of the training texts)

    python knowledge_distillation_bert.py                 # bundled model and data, minutes on two cores
    python knowledge_distillation_bert.py --temperature 4 --output runs/temperature-4
    python knowledge_distillation_bert.py --teacher FOLDER --data FILE --output runs/mine    # a BERT that is fine-tuned already
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
from common.bilstm import build_bilstm
from common.command import Count, Dropout, Fraction, LearningRate, NonNegative, PositiveInt, Temperature, at_least
from common.devices import exit_unless_chief, fresh_session
from common.distillation import (
    distillation_loss,
    distillation_metrics,
    distillation_targets,
    logit_loss,
    noise_labels,
    soften,
)
from common.layer_distillation import beside_layers, check_layers, layer_loss, windows, with_layer_loss
from common.linear import LINEAR, fit_linear, linear_record, linear_records
from common.runs import (
    EXTENSIBLE,
    check_depths,
    check_unlabelled,
    open_text_runs,
    rate_remarks,
    read_inputs,
    run_folder,
    steps_remarks,
)
from common.soft_labels import OF_ALL_SEEDS, check_answers, check_teachers, stage_logits, teacher_logits
from common.starting import build_student, check_names, check_start, is_fine_tuned, part_of, remarks
from common.training import adam, fine_tune, measure_given, train_stage, trained
from data import bilstms
from data.augmentation import check_augmentable, with_augmented
from data.berts import layers_to_keep
from data.grounds import on_grounds
from data.parts import UNLABELLED
from data.soft_labels import as_logits, check_complete
from data.texts import in_one_line
from export.reporting import report_texts
from report.document import show_stages

# Settings --------------------------------------------------------------------------------------------------------------

SCRIPT = "knowledge_distillation_bert"
DEFAULT = ("teacher", "alone", "distilled", "distilled-layers", "linear-distilled")
OF_ANSWERS = ("alone", "distilled", "distilled-unlabelled", "linear-distilled")  # the default with --soft-labels: no layers


@dataclass(frozen=True)
class Settings:
    # Data
    data: str = "reuters-r8"  # a named data set, or your own file or folder
    download: bool = False  # fetch the named data set and BERT if they are not here
    train_examples: Count = 200  # labelled training texts at most; 0 takes all
    unlabelled_examples: Count | None = 1800  # further texts at most, labels unseen; 0: all there are; None: none
    augmentations: PositiveInt = 20  # texts made of each training text, for distilled-augmented, at most
    validation_examples: Count | None = None  # for epochs: None: dev part, or 400 held out; 0: dev or else test part
    test_examples: Count = 2000  # of the test part at most, read once at the end; 0 takes all

    # Models
    bert: str = "minilm-l6"  # the teacher: a named BERT, or your own folder
    teacher: tuple[str, ...] = ()  # in its place: a classifier fine-tuned already (folder, or file beside --bert), or several
    soft_labels: tuple[str, ...] = ()  # instead of a teacher: a file of what it answered, or several
    ensemble: bool = False  # the teachers of all seeds are a teacher too, for `distilled-ensemble`
    maxlen: Annotated[int, at_least(3)] = 48  # tokens a text is cut to
    student_layers: PositiveInt = 3  # layers of the student
    student_init: str = "first"  # the layers it starts from: first, spread, teacher-first, teacher-spread, or theseus:RUN
    student_hidden: Count = 0  # its width, cut out of the BERT's; 0: as wide as the BERT
    student_heads: Count = 0  # its attention heads, where it is narrower; 0: in proportion to its width
    narrowing: Literal["cut", "least-squares"] = "cut"  # what becomes of the weights: see `data.narrowing`
    linear: bool = True  # the row of a linear model, which says whether the task needs a BERT

    # Distillation
    experiments: tuple[str, ...] = DEFAULT  # rows; see EXPERIMENTS for more
    temperature: Temperature = 6.0  # T
    hard_weight: NonNegative = 1.0  # of the cross-entropy with the labels
    soft_weight: NonNegative = 1.0  # of T² · KL(teacher || student)

    # The teacher's layers, for `distilled-layers`
    layers_init: str = "teacher-spread"  # what this student starts from, as in --student-init
    layer_mapping: tuple[PositiveInt, ...] = ()  # the layer that each of the student's learns, from 1; (): spread evenly
    layers_until: Fraction = 1.0  # share of the training after which layers are no longer learned
    labels_from: Fraction = 0.0  # the same after which labels are learned; 0: beside the layers from the first step
    hidden_loss: Literal["mse", "cls", "cosine"] = "mse"  # of hidden states, as in TinyBERT, PKD or DistilBERT
    hidden_weight: NonNegative = 1.0  # of it, and of the embeddings' mean squared error
    attention_weight: NonNegative = 0.0  # of the attention scores' mean squared error

    # The BiLSTM of Tang et al.
    bilstm_units: PositiveInt = 150  # of the LSTM, in each direction
    bilstm_dense: PositiveInt = 200  # of the ReLU layer above it
    bilstm_embeddings: Literal["bert", "random"] = "bert"  # what its embeddings start from: the BERT's (or given teacher's)
    bilstm_loss: Literal["mse", "kl"] = "mse"  # squared distance to the teacher's logits, as in the paper, or T² · KL
    bilstm_learning_rate: LearningRate = 2e-3  # of Adam

    # Training
    batch_size: PositiveInt = 16  # texts a step
    patience: Count = 10  # epochs without a gain on validation that end a stage, unless it counts steps; 0: all epochs
    teacher_epochs: PositiveInt = 8  # of the teacher, and of `teacher-self-distilled`
    student_epochs: PositiveInt = 14  # of every student but the next
    unlabelled_steps: PositiveInt = 160  # of what learns from texts without labels, however many; ten measurements
    teacher_learning_rate: LearningRate = 2e-4  # of Adam, for the deep models
    student_learning_rate: LearningRate = 5e-4  # of Adam, for the shallow ones
    schedule: Literal["linear", "constant"] = "linear"  # learning rate falling to 0, or staying
    teacher_dropout: Dropout = 0.1  # in hidden states and attention
    student_dropout: Dropout = 0.0  # the same of the shallow models, which underfit as it is; a BiLSTM has none

    # Run
    seeds: command.Seeds = (0,)  # one whole run each: parts, order, initial classifier, dropout
    precision: command.Precision = "float32"
    strategy: command.Strategy = "none"  # train on one device, all of them, those of TF_CONFIG
    vocabulary: Count | None = None  # tokens of the student to take away; 0: all; None: 8,000, or more if its texts want them
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

DEEP, SHALLOW, BILSTM = "the whole BERT", "some of its layers", "a BiLSTM"  # what a row trains; or LINEAR
PACES = {  # settings: epochs on the labelled texts, learning rate
    DEEP: ("teacher_epochs", "teacher_learning_rate"), SHALLOW: ("student_epochs", "student_learning_rate"),
    BILSTM: ("student_epochs", "bilstm_learning_rate"),
}

CHECKS = 10  # epochs of what counts its steps, however many texts there are: so often it is measured on validation


@dataclass(frozen=True)
class Experiment:
    """A row: which model, whose soft labels it learns, and on which texts."""

    model: str
    soft_labels: str | None = None  # of another experiment's model, several teachers, noise, or None: hard labels alone
    further: tuple[str, ...] = ()  # texts beside the labelled ones: "unlabelled", "augmented"
    optional: bool = False  # whether it does without these where there are none
    layers: bool = False  # whether it learns its teacher's hidden states and attention, too

    @property
    def needs_unlabelled(self):
        """Whether it cannot do without texts that have no labels."""
        return "unlabelled" in self.further and not self.optional


EXPERIMENTS = {
    "teacher": Experiment(DEEP),
    "alone": Experiment(SHALLOW),
    "distilled": Experiment(SHALLOW, "teacher"),
    "distilled-ensemble": Experiment(SHALLOW, "ensemble"),
    "distilled-unlabelled": Experiment(SHALLOW, "teacher", further=("unlabelled",)),
    "distilled-layers": Experiment(SHALLOW, "teacher", further=("unlabelled",), optional=True, layers=True),
    "distilled-augmented": Experiment(SHALLOW, "teacher", further=("augmented",)),
    "linear-distilled": Experiment(LINEAR, "teacher", further=("unlabelled",), optional=True),
    "bilstm-alone": Experiment(BILSTM),
    "bilstm-distilled": Experiment(BILSTM, "teacher", further=("unlabelled",), optional=True),
    "alone-self-distilled": Experiment(SHALLOW, "alone"),
    "teacher-self-distilled": Experiment(DEEP, "teacher"),
    "noise": Experiment(SHALLOW, "noise"),
}
OF_LAYERS = ("layers_init", "layer_mapping", "layers_until", "labels_from", "hidden_loss", "hidden_weight", "attention_weight")
OF_BILSTM = ("bilstm_units", "bilstm_dense", "bilstm_embeddings", "bilstm_loss", "bilstm_learning_rate")
READ_BY = {  # settings that some rows alone read: whether a row does
    "augmentations": lambda row: "augmented" in row.further,
    "student_init": lambda row: row.model == SHALLOW and not row.layers,
    **dict.fromkeys(OF_LAYERS, lambda row: row.layers),
    **dict.fromkeys(OF_BILSTM, lambda row: row.model == BILSTM),
}
STUDENTS = [name for name in EXPERIMENTS if EXPERIMENTS[name].model in (SHALLOW, BILSTM)]
COMPARISONS = (
    *((name, LINEAR) for name in (*DEFAULT, "distilled-unlabelled", "distilled-augmented", "bilstm-distilled")),
    ("distilled", "alone"), ("distilled-ensemble", "alone"), ("distilled-ensemble", "distilled"),
    ("distilled-unlabelled", "alone"), ("distilled-unlabelled", "distilled"),
    ("distilled-augmented", "alone"), ("distilled-augmented", "distilled"), ("distilled-unlabelled", "distilled-augmented"),
    ("distilled-layers", "teacher"), ("distilled-layers", "alone"), ("distilled-layers", "distilled"),
    ("distilled-layers", "distilled-unlabelled"),
    ("linear-distilled", "alone"), ("linear-distilled", "distilled"), ("distilled-unlabelled", "linear-distilled"),
    ("bilstm-distilled", "bilstm-alone"), ("bilstm-distilled", "alone"), ("bilstm-distilled", "distilled"),
    ("alone-self-distilled", "alone"), ("noise", "alone"), ("distilled", "noise"), ("teacher-self-distilled", "teacher"),
)


# Models ----------------------------------------------------------------------------------------------------------------


def shape_of(run, name):
    """What an experiment's model looks like before it has learned anything: a `data.berts.Bert`, also of a BiLSTM."""
    settings = run.settings
    if EXPERIMENTS[name].model == BILSTM:
        units = settings.bilstm_units, settings.bilstm_dense
        return bilstms.draw(run.bert, len(run.corpus.classes), *units, settings.bilstm_embeddings, run.seed)
    return run.bert if EXPERIMENTS[name].model == DEEP else part_of(settings, init_of(settings, name), run.bert)


def init_of(settings, name):
    """What an experiment's student starts from: see `common.starting`."""
    return settings.layers_init if EXPERIMENTS[name].layers else settings.student_init


def build(run, name):
    """The BertClassifier, or the BilstmClassifier, of an experiment, not trained yet."""
    if EXPERIMENTS[name].model == BILSTM:
        return build_bilstm(shape_of(run, name))
    if EXPERIMENTS[name].model == DEEP:
        return build_classifier(run.bert, len(run.corpus.classes), run.settings.teacher_dropout)
    return build_student(run, init_of(run.settings, name), partial(trained, run, "teacher", build))


# Training: the losses are those of `common.distillation` -----------------------------------------------------------------


def train(run, name):
    """Run one experiment, or read what an earlier start left of it. Returns its record."""
    settings, experiment = run.settings, EXPERIMENTS[name]
    if record := linear_record(run, name) if experiment.model == LINEAR else run.record(name):
        return record
    if experiment.soft_labels:
        return distil(run, name)
    with fresh_session(run.seed):
        if name == "teacher" and settings.teacher:
            return measure_given(run, name, build(run, name).model)
        epochs, rate = (getattr(settings, field) for field in PACES[experiment.model])
        return fine_tune(run, name, build(run, name).model, epochs, rate)


def distil(run, name):
    """Train a model on hard and soft labels together, and on its teacher's layers if it is to. Returns the stage's record."""
    settings, experiment, parts = run.settings, EXPERIMENTS[name], run.parts
    indices = np.concatenate([parts.train, *(getattr(parts, further) for further in experiment.further)])
    labels = np.where(np.isin(indices, parts.train), run.corpus.labels[indices], UNLABELLED)
    by_logits = learns_logits(settings, name)
    answers = logits_of(run, indices) if by_logits else soft_labels_of(run, experiment.soft_labels, indices)
    hidden = labels == UNLABELLED
    told = {"soft_label_accuracy": float((answers.argmax(-1) == labels)[~hidden].mean()), "unlabelled": int(hidden.sum())}
    if experiment.model == LINEAR:  # learns classes: where there is no label, or none is to count, the teacher's first
        classes = np.where(hidden | (settings.hard_weight == 0), answers.argmax(-1), labels)
        return fit_linear(run, name, indices, classes, **told)
    (epochs, rate), steps = (getattr(settings, field) for field in PACES[experiment.model]), run.steps(indices)
    counted = len(indices) > len(parts.train)  # in steps, the same for all such rows; patience would make them differ
    if counted:
        epochs, steps = CHECKS, -(-settings.unlabelled_steps // CHECKS)
    weights = settings.hard_weight, settings.soft_weight
    loss = logit_loss(*weights) if by_logits else distillation_loss(settings.temperature, *weights)
    metrics = [] if by_logits else distillation_metrics(settings.temperature)
    with fresh_session(run.seed):
        student = build(run, name)
        optimizer = adam(rate, epochs * steps, settings.schedule)
        more = {"patience": 0 if counted else None} | told
        if experiment.layers:
            more["first"], more["model"], loss, metrics = learn_layers(run, student, loss, metrics, optimizer, epochs, steps)
        return train_stage(
            run, name, student.model, loss, optimizer, indices, distillation_targets(labels, answers), epochs, steps,
            metrics=metrics, **more,
        )


def learn_layers(run, student, loss, metrics, optimizer, epochs, steps):
    """The same with the layers: L = [t < layers_until] · L_layers + [t ≥ labels_from] · L_labels, t being the share of epochs.

    PKD and DistilBERT learn both together; TinyBERT learns layers first and labels afterwards (equation 11).

    Returns (epochs before the first that learns labels, model to train, its loss, its metrics).
    """
    settings = run.settings
    until, since = windows(settings, epochs)
    mapping = settings.layer_mapping or [g + 1 for g in layers_to_keep(run.bert.layers, settings.student_layers, spread=True)]
    model = with_layer_loss(
        trained(run, "teacher", build), student, mapping, settings.hidden_loss, settings.hidden_weight,
        settings.attention_weight, active=lambda: optimizer.iterations < until * steps,
    )
    loss, *metrics = map(beside_layers, (loss, *metrics))

    def both(targets, outputs):
        return layer_loss(targets, outputs) + tf.where(optimizer.iterations < since * steps, 0.0, loss(targets, outputs))

    return since, model, both, [layer_loss, *metrics]


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


def learns_logits(settings, name):
    """Whether an experiment learns the teacher's logits rather than its soft labels."""
    return EXPERIMENTS[name].model == BILSTM and EXPERIMENTS[name].soft_labels and settings.bilstm_loss == "mse"


def logits_of(run, indices):
    """The teacher's logits (texts, classes) float32, as `distillation.logit_loss` takes them."""
    if run.answers:
        return as_logits(run.settings.soft_labels[0], run.answers[0], run.corpus.texts, indices)
    return next(teacher_logits(run, build, indices))


# What came out ---------------------------------------------------------------------------------------------------------


def main(preset, settings):
    """Read settings and data, run every experiment for every seed, report."""
    wanted = check(settings)
    runs = open_runs(preset, settings, wanted)
    linear = show_stages(linear_records(runs))
    for run in runs if settings.ensemble else ():
        train(run, "teacher")  # all of them, before the first student learns from all
    records = show_stages(train(run, name) for run in runs for name in wanted)
    exit_unless_chief()
    linear += [record for record in records if EXPERIMENTS[record["name"]].model == LINEAR]
    records = [record for record in records if EXPERIMENTS[record["name"]].model != LINEAR]
    shapes = {name: shape_of(runs[0], name) for name in dict.fromkeys(record["name"] for record in records)}
    report_texts(
        SCRIPT, preset, PRESETS[preset], runs, records, linear, shapes,
        pairs=COMPARISONS, teacher="teacher", students=STUDENTS, build=build, story=__doc__,
    )


def open_runs(preset, settings, wanted):
    """Read what the settings name, and refuse what the experiments `wanted` cannot use. Returns a run for each seed."""
    further = [EXPERIMENTS[name] for name in wanted if "unlabelled" in EXPERIMENTS[name].further]
    compared = [name for name in wanted if EXPERIMENTS[name].layers and settings.attention_weight]
    inits = dict.fromkeys(init_of(settings, name) for name in wanted if EXPERIMENTS[name].model == SHALLOW)
    augments = any("augmented" in EXPERIMENTS[name].further for name in wanted)
    inputs, folder = read_inputs(settings), run_folder(SCRIPT, preset, settings)
    check_depths(settings, inputs.bert, "student_layers", "layer_mapping")
    starts = check_start(settings, inits, next(iter(compared), None), inputs.bert, inputs.fingerprints, folder)
    check_first = as_logits if any(learns_logits(settings, name) for name in wanted) else check_complete

    def check_parts(seed, parts):
        if augments:
            check_augmentable(settings.augmentations, inputs.corpus, inputs.bert, seed, parts)
        check_answers(settings, inputs, parts, check_first)
        if any(each.needs_unlabelled for each in further):
            others = [name for name in wanted if not EXPERIMENTS[name].needs_unlabelled]
            check_unlabelled(inputs.corpus, parts, others if {*others} & {*STUDENTS} else [])

    trained = [EXPERIMENTS[name].model for name in wanted if name != "teacher" or not settings.teacher]
    as_wide = (DEEP,) if settings.student_hidden else (DEEP, SHALLOW)
    rates = dict.fromkeys(PACES[model][1] for model in trained if model in as_wide)
    inputs.corpus.notes.extend(rate_remarks(settings, inputs.bert, rates))
    unlabelled, extensible = settings.unlabelled_examples if further else None, EXTENSIBLE
    if settings.ensemble:
        inputs.corpus.notes.append(OF_ALL_SEEDS)
        extensible = [name for name in EXTENSIBLE if name != "seeds"]  # with one more it would be another
    runs = open_text_runs(
        SCRIPT, preset, settings, inputs, unlabelled, check=check_parts, further_fingerprints=starts, extensible=extensible,
    )
    if augments:
        runs = [augmented(run) for run in runs]
    counted = any(each.model != LINEAR for each in further)
    said = remarks(runs, inits) + (steps_remarks(runs[0]) if counted else [])
    if "linear-distilled" in wanted and settings.hard_weight and not any(len(run.parts.unlabelled) for run in runs):
        said.append("there are no texts without labels: linear-distilled is fitted to the labels, as linear is")
    for remark in said:
        print(remark)
        runs[0].corpus.notes.append(remark)
    return runs


def augmented(run):
    """The run with texts made of its training texts, as `Parts.augmented`; says how many there are."""
    corpus, parts, made = with_augmented(run.corpus, run.parts, run.settings.augmentations, run.bert.tokenizer, run.seed)
    print(f"seed {run.seed}: {corpus.notes[-1]}, such as {in_one_line(made[0])!r}")
    examples = run.examples.joined(TokenizedTexts.of(made, run.bert, run.settings.maxlen))
    return replace(run, corpus=corpus, parts=parts, examples=examples)


def check(settings):
    """Refuse settings that cannot be together. Returns the experiments to run, dependencies included."""
    command.check_loss_weights(settings)
    if settings.soft_labels and settings.experiments == DEFAULT:
        left_out = "distilled-unlabelled" if settings.unlabelled_examples is None else ""
        settings = replace(settings, experiments=tuple(name for name in OF_ANSWERS if name != left_out))
    command.check_known("--experiments", settings.experiments, EXPERIMENTS)
    for name in settings.experiments:
        if EXPERIMENTS[name].needs_unlabelled and settings.unlabelled_examples is None:
            raise InputError(f"--experiments {name} needs --unlabelled-examples; 0 takes all there are")
        if "augmented" in EXPERIMENTS[name].further and settings.soft_labels:
            raise InputError(f"--experiments {name}: with --soft-labels there is no teacher to label the texts that are made")
        if EXPERIMENTS[name].layers:
            check_layers(settings, name)
        elif EXPERIMENTS[name].further and EXPERIMENTS[name].model != LINEAR and not settings.soft_weight:
            raise InputError(f"--soft-weight 0: {name} learns texts without labels by soft labels alone; raise it above 0")
    check_names(settings)
    deep = [name for name in EXPERIMENTS if EXPERIMENTS[name].model == DEEP]
    several = check_teachers(settings, deep, is_fine_tuned(settings.student_init))
    wanted = {"teacher", *settings.experiments, *(["distilled-ensemble"] if several else [])}
    wanted |= {EXPERIMENTS[name].soft_labels for name in wanted}
    rows = [row for name, row in EXPERIMENTS.items() if name in wanted]
    for field, reads in READ_BY.items():
        value = getattr(settings, field)
        if value != getattr(PRESETS["demo"], field) and not any(map(reads, rows)):
            first = next(name for name, row in EXPERIMENTS.items() if reads(row))
            raise InputError(f"{' '.join(command.as_flag(field, value))}: no row reads it; add {first} to --experiments")
    wanted = [name for name in EXPERIMENTS if name in wanted and not (settings.soft_labels and name in deep)]
    if not {*wanted} & {"teacher", *STUDENTS}:  # with soft labels alone
        raise InputError("--soft-labels: no student among --experiments to take away; add one, such as alone")
    return wanted


if __name__ == "__main__":
    command.start(main, PRESETS, __doc__.split("\n\n")[0])
