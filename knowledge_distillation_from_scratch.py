"""Knowledge distillation from scratch: a convolutional teacher, a small student, on images.

A teacher is trained on the labels; its logits over the training images, softened by a temperature T, become the targets that a
student learns beside the labels. Beside it stands what it must be measured against: the same student trained alone, with the
teacher's bare decisions, and with labels smoothed as much as the teacher's but alike for all images. And what temperature,
scarce data and a class that the student never sees have to do with it.

    Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, 2015, arXiv 1503.02531

    python knowledge_distillation_from_scratch.py                 # scikit-learn's digits, five seeds, a minute or two
    python knowledge_distillation_from_scratch.py --temperature-sweep 1 2 5 10 20 --train-examples-sweep 50 100 200 400
    python knowledge_distillation_from_scratch.py --omit-class 3
    python knowledge_distillation_from_scratch.py original --download      # CIFAR-10, as the original notebook
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Literal
from urllib.parse import quote

import numpy as np

from common import InputError, command
from common.backend import keras
from common.command import Count, Dropout, LearningRate, NonNegative, PositiveInt, Temperature, none_twice
from common.devices import exit_unless_chief, fresh_session
from common.distillation import distillation_loss, distillation_metrics, distillation_targets, hard_loss, soften
from common.evaluation import calibration, predict
from common.files import fingerprint, load_or_compute, read_file
from common.runs import open_image_runs
from common.soft_labels import stage_logits
from common.training import adam, load_stage, train_stage
from data.images import check_omitted
from data.parts import stratified_sample
from export.costs import image_costs
from export.student import check_packages, image_writer, write_student
from report.document import results_of, show_stages, write_report
from report.temperatures import plots_of_run, raised, recognition_section, recognitions

# Settings --------------------------------------------------------------------------------------------------------------

SCRIPT = "knowledge_distillation_from_scratch"
ONCE = none_twice("none may stand twice")
DEFAULT = ("teacher", "alone", "distilled", "label-smoothing", "teacher-decisions")


@dataclass(frozen=True)
class Settings:
    # Data
    data: str = "digits"  # digits, cifar10, or your own: an .npz file, or a folder with train/CLASS/ and test/CLASS/
    download: bool = False  # fetch cifar10 (170 MB) if it is not here
    train_examples: Count = 0  # training images at most; 0 takes all
    validation_examples: Count = 200  # held out to choose epochs, a fifth at most; 0 chooses on test
    test_examples: Count = 0  # of the test part at most, read once at the end; 0 takes all

    # Models
    teacher_dropout: Dropout = 0.5  # before the teacher's last layer
    student_units: PositiveInt = 16  # of the student's one hidden layer

    # Distillation
    experiments: tuple[str, ...] = DEFAULT  # rows of the table: some of these
    temperature: Temperature = 3.25  # T
    hard_weight: NonNegative = 0.5  # of the cross-entropy with the labels
    soft_weight: NonNegative = 0.5  # of T² · KL(teacher || student)

    # What else to show
    image: Count = 0  # which validation image the plot of temperatures shows
    temperature_sweep: Annotated[tuple[Temperature, ...], ONCE] = ()  # students distilled at other temperatures
    train_examples_sweep: Annotated[tuple[PositiveInt, ...], ONCE] = (50, 100)  # students that see so few; their teacher all
    omit_class: str = ""  # a class of which the students see no image

    # Training
    batch_size: PositiveInt = 128  # images a step
    patience: Count = 0  # epochs without a gain on the validation part that end a stage; 0: all epochs
    teacher_epochs: PositiveInt = 40
    student_epochs: PositiveInt = 50  # of every student; an epoch is as many steps, however few its images
    teacher_learning_rate: LearningRate = 3e-3  # of Adam
    student_learning_rate: LearningRate = 1e-2  # of Adam
    schedule: Literal["linear", "constant"] = "linear"  # learning rate falling to 0, or staying

    # Run
    seeds: command.Seeds = (0, 1, 2, 3, 4)  # one whole run each: parts, order, initial weights, dropout
    precision: command.Precision = "float32"
    strategy: command.Strategy = "none"  # train on one device, all of them, those of TF_CONFIG
    export: command.Export = ()  # what student/ is to hold besides; onnx needs tf2onnx
    output: str = ""  # the run's folder; default runs/knowledge_distillation_from_scratch-PRESET


PRESETS = {
    "demo": Settings(),
    "original": Settings(
        data="cifar10", train_examples=0, validation_examples=7500, test_examples=0,
        teacher_dropout=0.5, student_units=64, temperature=3.25, hard_weight=0.5, soft_weight=0.5, train_examples_sweep=(),
        batch_size=128, teacher_epochs=20, student_epochs=50, teacher_learning_rate=1e-3, student_learning_rate=1e-3,
        schedule="constant", seeds=(0,),
    ),
}
EXTENSIBLE = (  # settings of a finished run that may differ in a later start
    "experiments", "seeds", "temperature_sweep", "train_examples_sweep", "omit_class", "image", "export",
)


@dataclass(frozen=True)
class Experiment:
    """A model to train: what its soft labels are made of, at which temperature, and which training images it sees."""

    soft_labels: Literal["teacher", "decisions", "smoothing"] | None  # None: the labels alone
    temperature: float = 1.0
    images: int = 0  # at most; 0 takes all
    without: int | None = None  # the class left out


def experiments(settings, classes):
    """({name: Experiment} of all that the settings ask for, teacher first; [(A, B)] to compare). classes: their names."""
    temperature = settings.temperature
    known = {
        "teacher": Experiment(None),
        "alone": Experiment(None),
        "distilled": Experiment("teacher", temperature),
        "label-smoothing": Experiment("smoothing", temperature),
        "teacher-decisions": Experiment("decisions"),
    }
    wanted = {name: experiment for name, experiment in known.items() if name in ("teacher", *settings.experiments)}
    pairs = [
        ("distilled", "alone"), ("label-smoothing", "alone"), ("teacher-decisions", "alone"),
        ("distilled", "label-smoothing"), ("distilled", "teacher-decisions"),
    ]
    for value in settings.temperature_sweep:
        if value != temperature or "distilled" not in wanted:
            wanted[at_temperature(value)] = Experiment("teacher", value)
            pairs.append((at_temperature(value), "alone"))
    limits = {f"{count}-images": {"images": count} for count in settings.train_examples_sweep}  # Hinton et al., section 6
    if settings.omit_class:  # section 3
        limits[f"without-{as_file_name(settings.omit_class)}"] = {"without": classes.index(settings.omit_class)}
    for limit, fields in limits.items():  # of the students: the teacher has seen all images
        wanted[f"alone-{limit}"] = Experiment(None, **fields)
        wanted[f"distilled-{limit}"] = Experiment("teacher", temperature, **fields)
        pairs.append((f"distilled-{limit}", f"alone-{limit}"))
    return wanted, pairs


def as_file_name(name):
    """The name of a class as a part of a file's name, which has 255 bytes at most: of a long one the beginning and a digest."""
    quoted = quote(name, safe=" ")
    return quoted if len(quoted) < 100 else f"{quoted[:60]}~{fingerprint(name)}"


def at_temperature(value):
    """The name of the student distilled at another temperature."""
    return f"distilled-T{np.format_float_positional(value, trim='-')}"


# Models ----------------------------------------------------------------------------------------------------------------


def build_teacher(shape, classes, dropout):
    """The notebook's network: images (batch, *shape) -> logits (batch, classes). 1,060,074 parameters on CIFAR-10."""
    layers = keras.layers
    return keras.Sequential([
        keras.Input(shape),  # (batch, height, width, channels)
        layers.Conv2D(32, 2, padding="same", activation="relu"),
        layers.MaxPooling2D(2),  # (batch, height / 2, width / 2, 32)
        layers.Conv2D(64, 2, padding="same", activation="relu"),
        layers.MaxPooling2D(2),  # (batch, height / 4, width / 4, 64)
        layers.Flatten(),
        layers.Dense(256, activation="relu"),
        layers.Dropout(dropout),
        layers.Dense(classes, dtype="float32", name="logits"),
    ])


def build_student(shape, classes, units):
    """One hidden layer: images (batch, *shape) -> logits (batch, classes). 197,322 parameters on CIFAR-10 with 64 units."""
    layers = keras.layers
    return keras.Sequential([
        keras.Input(shape),
        layers.Flatten(),
        layers.Dense(units, activation="relu"),
        layers.Dense(classes, dtype="float32", name="logits"),
    ])


def build(run, name):
    """The model of an experiment, not trained yet."""
    shape, classes = run.corpus.pixels.shape[1:], len(run.corpus.classes)
    if name == "teacher":
        return build_teacher(shape, classes, run.settings.teacher_dropout)
    return build_student(shape, classes, run.settings.student_units)


def trained(run, name):
    """The model of a finished experiment, with its best weights."""
    return load_stage(run, name, build(run, name))


# Soft labels, for the loss `distillation.distillation_loss` -----------------------------------------------------------------


def soft_labels_of(kind, logits, labels, temperature):
    """What a student learns beside the labels: (images, classes) float32.

    "teacher": softmax(z / T), equation 1 of Hinton et al. "decisions": the teacher's most probable class and nothing more.
    "smoothing": as much doubt as the teacher has at T on average, spread evenly over the other classes, alike for all images;
    a student that gains as much from it has gained nothing from what the teacher knows.

    kind: one of these
    logits: the teacher's, (images, classes)
    labels: (images,) int
    temperature: T
    """
    softened = soften(logits, temperature)
    classes = softened.shape[1]
    if kind == "decisions":
        return np.eye(classes, dtype=np.float32)[logits.argmax(axis=-1)]
    if kind == "smoothing":
        doubt = 1 - softened[np.arange(len(labels)), labels].mean()
        return np.where(np.eye(classes)[labels] == 1, 1 - doubt, doubt / (classes - 1)).astype(np.float32)
    return softened


# Training --------------------------------------------------------------------------------------------------------------


def train(run, name, experiment):
    """Train one model, or read what an earlier start left of it. Returns its record."""
    if record := run.record(name):
        return record
    settings, steps = run.settings, run.steps(run.parts.train)  # of an epoch, however few images it sees
    epochs, rate = settings.student_epochs, settings.student_learning_rate
    if name == "teacher":
        epochs, rate = settings.teacher_epochs, settings.teacher_learning_rate
    run = replace(run, parts=parts_for(run, experiment))
    indices, loss, metadata = run.parts.train, hard_loss, {}
    targets = labels = run.corpus.labels[indices]
    if experiment.soft_labels:
        logits = stage_logits(run, "teacher", trained(run, "teacher"), indices)
        soft_labels = soft_labels_of(experiment.soft_labels, logits, labels, experiment.temperature)
        targets = distillation_targets(labels, soft_labels)
        loss = distillation_loss(experiment.temperature, settings.hard_weight, settings.soft_weight)
        right = float((soft_labels.argmax(-1) == labels).mean())
        metadata = {"metrics": distillation_metrics(experiment.temperature), "soft_label_accuracy": right}
    with fresh_session(run.seed):  # all students of a seed start from the same weights and see the images in the same order
        classifier = build(run, name)
        optimizer = adam(rate, steps * epochs, settings.schedule)
        return train_stage(run, name, classifier, loss, optimizer, indices, targets, epochs, steps, **metadata)


def parts_for(run, experiment):
    """The parts of the run, less the training images that the experiment does not see.

    A class that is left out is left out of the choice of epoch too.
    """
    parts, labels = run.parts, run.corpus.labels
    if experiment.images:
        parts = replace(parts, train=stratified_sample(parts.train, labels, experiment.images, run.seed)[1])
    if experiment.without is not None:
        train, validation = (part[labels[part] != experiment.without] for part in (parts.train, parts.validation))
        parts = replace(parts, train=train, validation=validation)
    return parts


# A class that the student has never seen (Hinton et al., section 3) ----------------------------------------------------


def bias_for(logits, labels, omitted):
    """What to add to the logit of the class `omitted`, 0 or more, for the best accuracy on these images; the least that will.

    A student that never saw the class has learned that there is none; Hinton et al. raise its bias too.
    """
    lacking = np.delete(logits, omitted, axis=1).max(axis=1) - logits[:, omitted]  # with more than this the class is chosen
    biases = [0.0, *np.sort(lacking[lacking >= 0] + 1e-3)]
    return float(max(biases, key=lambda bias: (raised(logits, omitted, bias).argmax(axis=-1) == labels).mean()))


# What came out ---------------------------------------------------------------------------------------------------------


def main(preset, settings):
    """Read settings and data, train every model for every seed, report."""
    check(settings)
    runs = open_image_runs(SCRIPT, preset, settings, check_data, EXTENSIBLE)
    wanted, pairs = experiments(settings, runs[0].corpus.classes)
    records = show_stages(train(run, name, experiment) for run in runs for name, experiment in wanted.items())
    exit_unless_chief()
    report(preset, settings, runs, records, wanted, pairs)


def check(settings):
    """Refuse settings that cannot be together, before anything is read."""
    check_packages(settings)
    command.check_loss_weights(settings)
    if settings.omit_class and not settings.validation_examples:
        raise InputError("--omit-class needs --validation-examples above 0: a bias is chosen on them")
    command.check_known("--experiments", settings.experiments, DEFAULT)


def check_data(settings, corpus, parts):
    """Refuse images that the settings do not fit, or too few of them."""
    if min(corpus.pixels.shape[1:3]) < 4:
        raise InputError(f"--data {corpus.name}: images of {corpus.size}; the teacher needs 4 x 4 or more")
    if settings.omit_class:
        command.check_known("--omit-class", [settings.omit_class], corpus.classes)
        check_omitted(corpus, parts, settings.omit_class)
    for count in settings.train_examples_sweep:
        if count >= (most := len(parts.train)):
            raise InputError(f"--train-examples-sweep {count}: must be below the {most:,} training images; "
                             "--train-examples-sweep without a number leaves the sweep out")
    if settings.image >= len(parts.validation):
        raise InputError(f"--image {settings.image}: there are {len(parts.validation)} validation images, counted from 0")


def live_units(run, name):
    """How many of a finished student's hidden units are active on any validation image. One that never is, is lost."""
    weights = read_file(run.stage(name) / "weights.npz")
    kernel, bias = weights["0"], weights["1"]
    pixels = run.corpus.pixels[run.parts.validation]
    return int((pixels.reshape(len(pixels), -1) @ kernel + bias > 0).any(axis=0).sum())


def measure(run, record, costs):
    """A record with what its model costs, how far its probabilities can be taken at their word, and how many units live."""
    name, labels = record["name"], run.corpus.labels[run.parts.test]
    record = record | costs["teacher" if name == "teacher" else "student"]
    record |= calibration(labels, run.logits(name, "test"))
    return record if name == "teacher" else record | {"live_units": live_units(run, name)}


def report(preset, settings, runs, records, wanted, pairs):
    """Write the report, its plots and the student; print the tables."""
    run, seeded = runs[0], {run.seed: run for run in runs}
    builders = {name: partial(build, run, name) for name in ("teacher", "student")}
    costs = load_or_compute(run.folder / "cost.json", lambda: image_costs(run, builders))
    records = [measure(seeded[record["seed"]], record, costs) for record in records]
    results, sections = results_of(run, SCRIPT, preset, PRESETS[preset], records, pairs), []
    if settings.omit_class:
        results["omit_class"] = [record for run in runs for record in recognitions(run, wanted, trained, bias_for)]
        sections.append(recognition_section(settings.omit_class, results["omit_class"]))
    write = image_writer(lambda run, best: trained(run, best["name"]))
    student, section, told = write_student(runs, records, [name for name in DEFAULT if name != "teacher"], "teacher", write)
    write_report(
        run.folder, results | told, records, f"one image of {run.corpus.size}", {"student": student}, "ece",
        sections + section, plot(run, records), plotted=DEFAULT,
    )


def plot(run, records):
    """Draw what temperature and scarce data do. Returns the names of the plots."""
    sweep = {at_temperature(value): value for value in run.settings.temperature_sweep}
    image = run.parts.validation[[run.settings.image]]
    return plots_of_run(run, records, predict(trained(run, "teacher"), run.examples, image)[0], sweep)


if __name__ == "__main__":
    command.start(main, PRESETS, __doc__.split("\n\n")[0])
