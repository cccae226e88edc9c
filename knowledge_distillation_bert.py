"""Knowledge distillation of a fine-tuned BERT into its first few layers, by hard labels and softened logits.

A teacher (all layers) is fine-tuned; its logits over the training texts, computed once, become soft labels at temperature T;
a student (3 layers) learns the labels and the soft labels together. Beside it stands what it must be measured against: the
same student trained alone, self-distilled, distilled from noise, and distilled with further texts that have no label.

    Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, 2015, arXiv 1503.02531
    Tang et al.: Distilling Task-Specific Knowledge from BERT into Simple Neural Networks, 2019, arXiv 1903.12136
    Turc et al.: Well-Read Students Learn Better, 2019, arXiv 1908.08962 (soft labels on unlabelled texts)

    python knowledge_distillation_bert.py                 # bundled model and data, minutes on two cores
    python knowledge_distillation_bert.py --temperature 4 --seeds 0 1 2
    python knowledge_distillation_bert.py original        # IFLYTEK and Chinese BERT-base, as the original script
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from common import InputError, command, data, distillation, pretrained, report, texts, training
from common.backend import fresh_session, only_the_chief_goes_on
from common.command import start
from common.files import kept

# Settings --------------------------------------------------------------------------------------------------------------

DEFAULT = ("teacher", "alone", "distilled", "distilled-unlabelled")


@dataclass(frozen=True)
class Settings:
    # Data
    data: str = "20newsgroups"  # a named data set, or your own file or folder
    download: bool = False  # fetch the named data set and BERT if they are not here
    train_examples: int = 600  # labelled training texts at most; 0 takes all
    unlabelled_examples: int = 1400  # further texts at most, labels unseen, for `distilled-unlabelled`
    validation_examples: int = 400  # held out to choose epochs, a fifth at most; 0 chooses on test, as the original did
    test_examples: int = 2000  # of the test part at most, read once at the end; 0 takes all

    # Models
    bert: str = "minilm-l6"  # the teacher: a named BERT, or your own folder
    maxlen: int = 48  # tokens a text is cut to
    student_layers: int = 3  # layers of the student
    student_init: Literal["first", "spread", "teacher-first", "teacher-spread"] = "first"  # the layers it starts from

    # Distillation
    experiments: tuple[str, ...] = DEFAULT  # rows: these, alone-self-distilled, teacher-self-distilled, noise
    temperature: float = 6.0  # T
    hard_weight: float = 1.0  # of the cross-entropy with the labels
    soft_weight: float = 1.0  # of T² · KL(teacher || student)

    # Training
    batch_size: int = 32  # texts a step
    teacher_epochs: int = 5  # of the teacher, and of `teacher-self-distilled`
    student_epochs: int = 12  # of every student but the next
    unlabelled_epochs: int = 5  # of `distilled-unlabelled`, whose epochs are longer
    teacher_learning_rate: float = 2e-4  # of Adam, for the deep models
    student_learning_rate: float = 2e-4  # of Adam, for the shallow ones
    schedule: Literal["linear", "constant"] = "linear"  # learning rate falling to 0, or staying
    teacher_dropout: float = 0.1  # in hidden states and attention
    student_dropout: float = 0.0  # the same of the shallow models, which underfit as it is

    # Run
    seeds: tuple[int, ...] = (0,)  # one whole run each: parts, order, initial classifier, dropout
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    strategy: Literal["none", "mirrored", "multiworker"] = "none"  # train on one device, all of them, those of TF_CONFIG
    export: tuple[Literal["onnx"], ...] = ()  # what student/ is to hold besides; onnx needs tf2onnx and onnxruntime
    output: str = ""  # the run's folder; default runs/knowledge_distillation_bert-PRESET


PRESETS = {
    "demo": Settings(),
    "original": Settings(
        data="iflytek", train_examples=0, unlabelled_examples=0, validation_examples=0, test_examples=0,
        bert="chinese-bert-base", maxlen=128, student_layers=3, student_init="first",
        experiments=("teacher", "alone", "distilled", "alone-self-distilled", "teacher-self-distilled", "noise"),
        temperature=3.0, hard_weight=1.0, soft_weight=1.0,
        batch_size=32, teacher_epochs=5, student_epochs=10, teacher_learning_rate=2e-5, student_learning_rate=2e-5,
        schedule="constant", teacher_dropout=0.1, student_dropout=0.1,
    ),
}


@dataclass(frozen=True)
class Experiment:
    """A row of the original's table: how deep the model is, whose soft labels it learns, and on which texts."""

    deep: bool
    soft_labels: str | None  # of another experiment's model, "noise", or None: hard labels alone
    unlabelled: bool = False


EXPERIMENTS = {
    "teacher": Experiment(deep=True, soft_labels=None),
    "alone": Experiment(deep=False, soft_labels=None),
    "distilled": Experiment(deep=False, soft_labels="teacher"),
    "distilled-unlabelled": Experiment(deep=False, soft_labels="teacher", unlabelled=True),
    "alone-self-distilled": Experiment(deep=False, soft_labels="alone"),
    "teacher-self-distilled": Experiment(deep=True, soft_labels="teacher"),
    "noise": Experiment(deep=False, soft_labels="noise"),
}
COMPARISONS = (
    ("distilled", "alone"), ("distilled-unlabelled", "alone"), ("distilled-unlabelled", "distilled"),
    ("alone-self-distilled", "alone"), ("noise", "alone"), ("distilled", "noise"), ("teacher-self-distilled", "teacher"),
)


# One experiment --------------------------------------------------------------------------------------------------------


def build(run, name):
    """(the BERT it starts from, bert4keras transformer, classifier) of an experiment, not trained yet."""
    settings, deep = run.settings, EXPERIMENTS[name].deep
    if deep:
        bert = run.bert
    else:
        kept = pretrained.take_layers(run.bert.layers, settings.student_layers, settings.student_init.endswith("spread"))
        bert = pretrained.shallow(
            trained_bert(run, "teacher") if settings.student_init.startswith("teacher") else run.bert, kept
        )
    dropout = settings.teacher_dropout if deep else settings.student_dropout
    return bert, *texts.build_classifier(bert, len(run.corpus.classes), dropout)


def trained(run, name):
    """(BERT, transformer, classifier) of a finished experiment, with its best weights."""
    bert, encoder, classifier = build(run, name)
    training.load_weights(classifier, run.stage(name) / "weights.npz")
    return bert, encoder, classifier


def trained_bert(run, name):
    """The fine-tuned encoder of a finished experiment, for another to start from or to be taken away."""
    bert, encoder, _ = trained(run, name)
    return pretrained.read_encoder(encoder, bert)


def soft_labels_of(run, name, rows):
    """Soft labels (rows, classes) at temperature T for the texts `rows`, from noise or from a finished experiment's model."""
    temperature = run.settings.temperature
    if name == "noise":
        return distillation.noise_labels(run.corpus.labels[rows], len(run.corpus.classes), temperature, run.seed)
    return distillation.soften(training.logits_of(run, name, trained(run, name)[2], rows), temperature)


def train(run, name):
    """Run one experiment, or read what an earlier start left of it. Returns its record."""
    if found := run.record(name):
        return found
    settings, experiment, parts, labels = run.settings, EXPERIMENTS[name], run.parts, run.corpus.labels
    rows = np.concatenate([parts.train, parts.unlabelled]) if experiment.unlabelled else parts.train
    hidden = np.concatenate([labels[parts.train], np.full(len(rows) - len(parts.train), data.UNLABELLED, np.int32)])
    told = {}
    if experiment.soft_labels:
        soft_labels = soft_labels_of(run, experiment.soft_labels, rows)
        told["soft_label_accuracy"] = float((soft_labels.argmax(-1) == labels[rows])[: len(parts.train)].mean())
    epochs = settings.teacher_epochs if experiment.deep else settings.student_epochs
    epochs = settings.unlabelled_epochs if experiment.unlabelled else epochs
    rate = settings.teacher_learning_rate if experiment.deep else settings.student_learning_rate
    steps = run.steps(rows)
    with fresh_session(run.seed):
        _, _, classifier = build(run, name)
        optimizer = training.adam(rate, steps * epochs, settings.schedule)
        if experiment.soft_labels:
            # hard_weight · CE(label, softmax(z)) + soft_weight · T² · KL(teacher_T || softmax(z / T))
            weights = settings.temperature, settings.hard_weight, settings.soft_weight
            model = distillation.compile_distilled(classifier, optimizer, *weights)
            targets = distillation.distillation_targets(hidden, soft_labels)
        else:
            model, targets = distillation.compile_alone(classifier, optimizer), (hidden,)
        return training.train_stage(run, name, classifier, model, rows, targets, epochs, steps, **told)


# The whole run ---------------------------------------------------------------------------------------------------------


def main(preset, settings):
    """Read settings and data, run every experiment for every seed, report."""
    wanted = check(settings)
    unlabelled = settings.unlabelled_examples if "distilled-unlabelled" in wanted else 0
    runs, models = texts.open_runs("knowledge_distillation_bert", preset, settings, unlabelled), []
    for run in runs:
        for name in wanted:
            models.append(train(run, name))
            print(report.describe(models[-1]))
    only_the_chief_goes_on()
    report_run(preset, settings, runs[0], models)


def check(settings):
    """Refuse settings that cannot be, before anything is read. Returns the experiments to run, dependencies included."""
    command.check_positive(settings, "teacher_learning_rate", "student_learning_rate")
    command.check_temperatures(settings.temperature)
    command.check_weights(settings)
    command.check_at_least(
        settings, maxlen=3, batch_size=1, student_layers=1, teacher_epochs=1, student_epochs=1, unlabelled_epochs=1,
        train_examples=0, unlabelled_examples=0, validation_examples=0, test_examples=0,
    )
    command.check_dropout(settings, "teacher_dropout", "student_dropout")
    command.check_seeds(settings.seeds)
    command.check_known("--experiments", settings.experiments, EXPERIMENTS)
    if "distilled-unlabelled" in settings.experiments and not settings.unlabelled_examples:
        raise InputError("--experiments distilled-unlabelled needs --unlabelled-examples above 0")
    needed = {"teacher", *settings.experiments} | {EXPERIMENTS[name].soft_labels for name in settings.experiments}
    return [name for name in EXPERIMENTS if name in needed]


def report_run(preset, settings, run, models):
    """Write the report and the student; print the tables."""
    depths = (run.bert.layers, settings.student_layers)
    cost = kept(run.folder / "cost.json", lambda: texts.costs(run, depths))
    models = [model | cost[str(depths[not EXPERIMENTS[model["name"]].deep])] for model in models]
    results = report.results_of(run, "knowledge_distillation_bert", preset, PRESETS[preset], models, COMPARISONS)
    shallow = [name for name, experiment in EXPERIMENTS.items() if not experiment.deep]
    taken, sections = texts.write_best_student(run, models, shallow, trained, "teacher", __doc__)
    report.write_report(run.folder, results, models, f"one text of {settings.maxlen} tokens", taken, sections=sections)


if __name__ == "__main__":
    start(main, PRESETS, __doc__.split("\n\n")[0])
