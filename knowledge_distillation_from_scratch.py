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

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import numpy as np
from matplotlib.figure import Figure

from common import InputError, command, data, distillation, export, images, report, training
from common.backend import fresh_session, inference_graph, keras, only_the_chief_goes_on, precision_remarks, set_precision, tf
from common.command import start
from common.evaluation import calibration, graph_flops, latency, predict
from common.files import fingerprint, kept, whole_folder, write_json

# Settings --------------------------------------------------------------------------------------------------------------

DEFAULT = ("teacher", "alone", "distilled", "label-smoothing", "teacher-decisions")


@dataclass(frozen=True)
class Settings:
    # Data
    data: str = "digits"  # digits, cifar10, or your own: an .npz file, or a folder with train/CLASS/ and test/CLASS/
    download: bool = False  # fetch cifar10 (170 MB) if it is not here
    train_examples: int = 0  # training images at most; 0 takes all
    validation_examples: int = 200  # held out to choose epochs, a fifth at most; 0 chooses on test
    test_examples: int = 0  # of the test part at most, read once at the end; 0 takes all

    # Models
    teacher_dropout: float = 0.5  # before the teacher's last layer
    student_units: int = 16  # of the student's one hidden layer

    # Distillation
    experiments: tuple[str, ...] = DEFAULT  # rows of the table: some of these
    temperature: float = 3.25  # T
    hard_weight: float = 0.5  # of the cross-entropy with the labels
    soft_weight: float = 0.5  # of T² · KL(teacher || student)

    # What else to show
    image: int = 0  # which validation image the plot of temperatures shows
    temperature_sweep: tuple[float, ...] = ()  # students distilled at other temperatures: accuracy and calibration
    train_examples_sweep: tuple[int, ...] = (50, 100)  # students that see only so many images, their teacher all
    omit_class: str = ""  # a class of which the students see no image

    # Training
    batch_size: int = 128  # images a step
    teacher_epochs: int = 40
    student_epochs: int = 50  # of every student; an epoch is as many steps, however few its images
    teacher_learning_rate: float = 3e-3  # of Adam
    student_learning_rate: float = 1e-2  # of Adam
    schedule: Literal["linear", "constant"] = "linear"  # learning rate falling to 0, or staying

    # Run
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)  # one whole run each: parts, order, initial weights, dropout
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    strategy: Literal["none", "mirrored", "multiworker"] = "none"  # train on one device, all of them, those of TF_CONFIG
    export: tuple[Literal["onnx"], ...] = ()  # what student/ is to hold besides; onnx needs tf2onnx and onnxruntime
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
    rows = {
        "teacher": Experiment(None),
        "alone": Experiment(None),
        "distilled": Experiment("teacher", temperature),
        "label-smoothing": Experiment("smoothing", temperature),
        "teacher-decisions": Experiment("decisions"),
    }
    wanted = {name: experiment for name, experiment in rows.items() if name in ("teacher", *settings.experiments)}
    pairs = [
        ("distilled", "alone"), ("label-smoothing", "alone"), ("teacher-decisions", "alone"),
        ("distilled", "label-smoothing"), ("distilled", "teacher-decisions"),
    ]
    for value in settings.temperature_sweep:
        if value == temperature and "distilled" in wanted:
            continue
        wanted[at_temperature(value)] = Experiment("teacher", value)
        pairs.append((at_temperature(value), "alone"))
    for count in settings.train_examples_sweep:  # the teacher has seen all images (Hinton et al., section 6)
        wanted[f"alone-{count}-images"] = Experiment(None, images=count)
        wanted[f"distilled-{count}-images"] = Experiment("teacher", temperature, images=count)
        pairs.append((f"distilled-{count}-images", f"alone-{count}-images"))
    if settings.omit_class:  # section 3
        omitted, name = classes.index(settings.omit_class), quote(settings.omit_class, safe=" ")
        wanted[f"alone-without-{name}"] = Experiment(None, without=omitted)
        wanted[f"distilled-without-{name}"] = Experiment("teacher", temperature, without=omitted)
        pairs.append((f"distilled-without-{name}", f"alone-without-{name}"))
    return wanted, pairs


def at_temperature(value):
    """The name of the student distilled at another temperature."""
    return f"distilled-T{np.format_float_positional(value, trim='-')}"


# Teacher and student ---------------------------------------------------------------------------------------------------


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


# Soft labels -----------------------------------------------------------------------------------------------------------


def soft_labels_of(kind, logits, labels, temperature):
    """What a student learns beside the labels: (images, classes) float32. logits: the teacher's; labels: (images,) int.

    "teacher": softmax(z / T), equation 1 of Hinton et al. "decisions": the teacher's most probable class and nothing more.
    "smoothing": as much doubt as the teacher has at T on average, spread evenly over the other classes, alike for all images;
    a student that gains as much from it has gained nothing from what the teacher knows.
    """
    softened = distillation.soften(logits, temperature)
    classes = softened.shape[1]
    if kind == "decisions":
        return np.eye(classes, dtype=np.float32)[logits.argmax(axis=-1)]
    if kind == "smoothing":
        doubt = 1 - softened[np.arange(len(labels)), labels].mean()
        return np.where(np.eye(classes)[labels] == 1, 1 - doubt, doubt / (classes - 1)).astype(np.float32)
    return softened


# One experiment --------------------------------------------------------------------------------------------------------


def build(run, name):
    """The model of an experiment, not trained yet."""
    shape, classes = run.corpus.pixels.shape[1:], len(run.corpus.classes)
    if name == "teacher":
        return build_teacher(shape, classes, run.settings.teacher_dropout)
    return build_student(shape, classes, run.settings.student_units)


def trained(run, name):
    """The model of a finished experiment, with its best weights."""
    classifier = build(run, name)
    training.load_weights(classifier, run.stage(name) / "weights.npz")
    return classifier


def parts_for(run, experiment):
    """The parts of the run, less the training images that the experiment does not see.

    A class that is left out is left out of the choice of epoch too.
    """
    parts, labels = run.parts, run.corpus.labels
    if experiment.images:
        parts = replace(parts, train=data.draw(parts.train, labels, experiment.images, run.seed)[1])
    if experiment.without is not None:
        seen = {part: getattr(parts, part) for part in ("train", "validation")}
        parts = replace(parts, **{part: rows[labels[rows] != experiment.without] for part, rows in seen.items()})
    return parts


def train(run, name, experiment):
    """Train one model, or read what an earlier start left of it. Returns its record."""
    if found := run.record(name):
        return found
    settings, told = run.settings, {}
    parts = parts_for(run, experiment)
    labels = run.corpus.labels[parts.train]
    if experiment.soft_labels:
        logits = training.logits_of(run, "teacher", trained(run, "teacher"), parts.train)
        soft_labels = soft_labels_of(experiment.soft_labels, logits, labels, experiment.temperature)
        told["soft_label_accuracy"] = float((soft_labels.argmax(-1) == labels).mean())
    epochs, rate = settings.student_epochs, settings.student_learning_rate
    if name == "teacher":
        epochs, rate = settings.teacher_epochs, settings.teacher_learning_rate
    steps = run.steps(run.parts.train)
    with fresh_session(run.seed):  # all students of a seed start from the same weights and see the images in the same order
        classifier = build(run, name)
        optimizer = training.adam(rate, steps * epochs, settings.schedule)
        if experiment.soft_labels:
            # hard_weight · CE(label, softmax(z)) + soft_weight · T² · KL(teacher_T || softmax(z / T))
            weights = experiment.temperature, settings.hard_weight, settings.soft_weight
            model = distillation.compile_distilled(classifier, optimizer, *weights)
            targets = distillation.distillation_targets(labels, soft_labels)
        else:
            model, targets = distillation.compile_alone(classifier, optimizer), (labels,)
        run = replace(run, parts=parts)
        return training.train_stage(run, name, classifier, model, parts.train, targets, epochs, steps, **told)


def live_units(run, name):
    """How many of a finished student's hidden units are active on any validation image. One that never is, is lost."""
    with np.load(run.stage(name) / "weights.npz") as weights:
        kernel, bias = weights["0"], weights["1"]
    pixels = run.corpus.pixels[run.parts.validation]
    return int((pixels.reshape(len(pixels), -1) @ kernel + bias > 0).any(axis=0).sum())


# A class that the student has never seen (Hinton et al., section 3) ----------------------------------------------------


def bias_for(logits, labels, omitted):
    """What to add to the logit of the class `omitted`, 0 or more, for the best accuracy on these images; the least that will.

    A student that never saw the class has learnt that there is none; Hinton et al. raise its bias too.
    """
    lacking = np.delete(logits, omitted, axis=1).max(axis=1) - logits[:, omitted]  # with more than this the class is chosen
    biases = [0.0, *np.sort(lacking[lacking >= 0] + 1e-3)]
    return float(max(biases, key=lambda bias: (raised(logits, omitted, bias).argmax(axis=-1) == labels).mean()))


def raised(logits, omitted, bias):
    """Logits (images, classes) with `bias` added to those of the class `omitted`."""
    return logits + bias * np.eye(logits.shape[-1])[omitted]


def recognition(run, name, omitted, raising):
    """How a model recognises the class on the test part: its record, and with `raising` another with the class's bias raised.

    The bias is chosen on the validation part, which has images of the class.
    """
    labels, tested = run.corpus.labels, run.corpus.labels[run.parts.test]
    logits, biases = np.load(run.stage(name) / "test_logits.npy"), {name: 0.0}
    if raising:
        validation = run.parts.validation
        known = predict(trained(run, name), run.examples, validation)
        biases[f"{name}, bias raised"] = bias_for(known, labels[validation], omitted)
    found = []
    for title, bias in biases.items():
        right = raised(logits, omitted, bias).argmax(axis=-1) == tested
        found.append({
            "name": title, "seed": run.seed, "bias": bias, "accuracy": float(right.mean()),
            "recall": float(right[tested == omitted].mean()), "recall_of_others": float(right[tested != omitted].mean()),
        })
    return found


# The whole run ---------------------------------------------------------------------------------------------------------


def main(preset, settings):
    """Read settings and data, train every model for every seed, report."""
    check(settings)
    export.check_packages(settings)
    corpus = images.load(settings.data, settings.download)
    if min(corpus.pixels.shape[1:3]) < 4:
        raise InputError(f"--data {corpus.name}: images of {size_of(corpus)}; the teacher needs 4 x 4 or more")
    if settings.omit_class:
        command.check_known("--omit-class", [settings.omit_class], corpus.classes)
    wanted, pairs = experiments(settings, corpus.classes)
    all_parts = {seed: split(corpus, settings, seed) for seed in settings.seeds}
    folder = Path(settings.output or f"runs/{SCRIPT}-{preset}")
    inputs = {"data": fingerprint(corpus.pixels, corpus.labels, corpus.classes, corpus.pool, corpus.test)}
    report.open_folder(folder, command.identity(settings), inputs, EXTENSIBLE)
    set_precision(settings.precision)

    parts = next(iter(all_parts.values()))
    print(f"{corpus.name}: {len(corpus.classes)} classes, {len(parts.train):,} training, {len(parts.validation):,} validation, "
          f"{len(parts.test):,} test images of {size_of(corpus)}")
    for remark in [*precision_remarks(settings.precision), *data.remarks(corpus, parts)]:
        print(remark)
    runs = [training.Run(settings, seed, corpus, corpus, parts, folder) for seed, parts in all_parts.items()]
    records = []
    for run in runs:
        for name, experiment in wanted.items():
            records.append(train(run, name, experiment))
            print(report.describe(records[-1]))
    only_the_chief_goes_on()
    report_run(preset, settings, runs, records, wanted, pairs)


SCRIPT = "knowledge_distillation_from_scratch"
EXTENSIBLE = (  # settings of a finished run that may differ in a later start
    "experiments", "seeds", "temperature_sweep", "train_examples_sweep", "omit_class", "image", "export",
)


def size_of(corpus):
    """Height, width and channels in words."""
    return " x ".join(map(str, corpus.pixels.shape[1:]))


def check(settings):
    """Refuse settings that cannot be, before anything is read."""
    command.check_positive(settings, "teacher_learning_rate", "student_learning_rate")
    command.check_temperatures(settings.temperature, *settings.temperature_sweep)
    command.check_weights(settings)
    command.check_at_least(
        settings, train_examples=0, validation_examples=0, test_examples=0, student_units=1, image=0, train_examples_sweep=1,
        batch_size=1, teacher_epochs=1, student_epochs=1,
    )
    command.check_dropout(settings, "teacher_dropout")
    if settings.omit_class and not settings.validation_examples:
        raise InputError("--omit-class needs --validation-examples above 0: a bias is chosen on them")
    for name in ("temperature_sweep", "train_examples_sweep"):
        values = getattr(settings, name)
        if len(set(values)) < len(values):
            raise InputError(f"--{name.replace('_', '-')} {' '.join(map(str, values))}: none may stand twice")
    command.check_seeds(settings.seeds)
    command.check_known("--experiments", settings.experiments, DEFAULT)


def split(corpus, settings, seed):
    """The images one seed uses. Raises InputError if there are too few."""
    parts = data.split(corpus, seed, settings.train_examples, 0, settings.validation_examples, settings.test_examples)
    data.check_parts(corpus, parts, settings.batch_size)
    for count in settings.train_examples_sweep:
        if count >= len(parts.train):
            there = f"{len(parts.train):,} training images"
            raise InputError(f"--train-examples-sweep {count}: must be below the {there}, or left out")
    if settings.omit_class:
        for part in ("train", "validation", "test"):
            held = corpus.labels[getattr(parts, part)] == corpus.classes.index(settings.omit_class)
            if held.all() or not held.any():
                raise InputError(
                    f"--omit-class {settings.omit_class}: {held.sum()} of the {len(held)} {part} images are of this class; "
                    "there must be some, and some others"
                )
    if settings.image >= len(parts.validation):
        raise InputError(f"--image {settings.image}: there are {len(parts.validation)} validation images, counted from 0")
    return parts


def measure(run):
    """What does not depend on training: {"teacher" or "student": {"layers", "flops", "latency_ms"}}."""
    with export.in_float32(run.settings.precision):
        models = {"teacher": build(run, "teacher"), "student": build(run, "alone")}
        times = latency(models, lambda size: tf.zeros((size, *run.corpus.pixels.shape[1:])))
    return {
        name: {
            "layers": sum(bool(layer.weights) for layer in model.layers),
            "flops": graph_flops(model),
            "latency_ms": times[name],
        }
        for name, model in models.items()
    }


def report_run(preset, settings, runs, records, wanted, pairs):
    """Write the report, its plots and the student; print the tables."""
    run, seeded = runs[0], {run.seed: run for run in runs}
    cost = kept(run.folder / "cost.json", lambda: measure(run))
    labels = run.corpus.labels[run.parts.test]
    records = [
        record
        | cost["teacher" if record["name"] == "teacher" else "student"]
        | calibration(labels, np.load(seeded[record["seed"]].stage(record["name"]) / "test_logits.npy"))
        | ({} if record["name"] == "teacher" else {"live_units": live_units(seeded[record["seed"]], record["name"])})
        for record in records
    ]
    results = report.results_of(run, SCRIPT, preset, PRESETS[preset], records, pairs)
    sections, plots = [], ["temperature.png"]
    (run.folder / "sweeps.png").unlink(missing_ok=True)  # of an earlier start
    plot_temperatures(run.folder / plots[0], run)
    if settings.temperature_sweep or settings.train_examples_sweep:
        plots.append("sweeps.png")
        plot_sweeps(run.folder / plots[1], run, dict(report.by_name(records)))
    if settings.omit_class:
        omitted = run.corpus.classes.index(settings.omit_class)
        raising = {name: experiment.without is not None for name, experiment in wanted.items()}
        results["omit_class"] = [
            found
            for run in runs
            for name in wanted
            if raising[name] or name in ("teacher", "alone", "distilled")
            for found in recognition(run, name, omitted, raising[name])
        ]
        sections.append((
            f"Class {settings.omit_class}, left out of what the students see",
            report.recognition_table(results["omit_class"]),
            "`teacher`, `alone` and `distilled` have seen it, the others not. Its bias is raised by what is best on the "
            "validation part.",
        ))
    taken, taken_section = write_best_student(run, [record for record in records if record["name"] in DEFAULT])
    sections += taken_section
    example = f"one image of {size_of(run.corpus)}"
    report.write_report(run.folder, results, records, example, taken, "ece", sections, plots, plotted=DEFAULT)


def write_best_student(run, rows):
    """Write to student/ the one that was best on the validation part, as a SavedModel: images -> probabilities at T = 1.

    Returns (which it is, in words; sections of the report).
    """
    students = [record for record in rows if record["name"] != "teacher"]
    if not students:
        shutil.rmtree(run.folder / "student", ignore_errors=True)  # of an earlier start
        return "none: no student in the table", []
    best = max(students, key=lambda record: record["validation_accuracy"])
    teacher = next(record for record in rows if record["name"] == "teacher" and record["seed"] == best["seed"])
    run, shape = replace(run, seed=best["seed"]), run.corpus.pixels.shape[1:]
    with export.in_float32(run.settings.precision):
        classifier = trained(run, best["name"])

    def classify(images):
        return {"probabilities": tf.nn.softmax(classifier(images, training=False))}

    signature = (tf.TensorSpec((None, *shape), tf.float32, name="images"),)
    graph, pixels = inference_graph(classify, *signature), run.corpus.inputs(run.parts.test[:32])
    with whole_folder(run.folder / "student") as folder:
        export.write_saved_model(folder, graph)
        found = tf.saved_model.load(str(folder / "saved_model")).signatures["serving_default"](images=tf.constant(pixels))
        expected = tf.nn.softmax(classifier.predict_on_batch(pixels)).numpy()
        export.check_equal("student/saved_model", found["probabilities"].numpy(), expected)
        if "onnx" in run.settings.export:
            export.write_onnx(folder, graph, signature, {"images": pixels})
        write_json(folder / "classes.json", {"images": f"float32 (batch, {size_of(run.corpus)}), from 0 to 1",
                                             "classes": run.corpus.classes})
    sizes = [(run.stage(record["name"]) / "weights.npz").stat().st_size for record in (teacher, best)]
    section = "The student to take away", export.against_teacher(teacher, best, sizes), export.NOTE
    return f"{best['name']}, seed {best['seed']}", [section]


# Plots -----------------------------------------------------------------------------------------------------------------

TEMPERATURES = (1, 5, 10, 20, 35, 50)  # of the notebook's plot


def plot_temperatures(path, run):
    """One validation image, and beside it what its teacher says of the classes at rising temperatures."""
    row = run.parts.validation[run.settings.image]
    logits = predict(trained(run, "teacher"), run.examples, np.array([row]))[0]
    pixels, classes = run.corpus.pixels[row], run.corpus.classes
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    image, panel = figure.subplots(1, 2, width_ratios=(1, 2.6))
    image.imshow(pixels if pixels.shape[-1] == 3 else pixels[..., 0], cmap="gray", vmin=0, vmax=1)
    part = "test" if run.parts.validation is run.parts.test else "validation"
    image.set_title(f"{part} image {run.settings.image}: {classes[run.corpus.labels[row]]}", parse_math=False)
    image.axis("off")
    for temperature in TEMPERATURES:
        panel.plot(distillation.soften(logits, temperature), marker="o", markersize=3, label=f"T = {temperature}")
    narrow = len(classes) * max(map(len, classes)) < 40
    panel.set_xticks(
        range(len(classes)), classes, rotation=0 if narrow else 30 if len(classes) < 20 else 90,
        fontsize=min(10, 400 / len(classes)), parse_math=False,
    )
    panel.set(ylabel="probability", title="the teacher's distribution")
    panel.grid(alpha=0.3)
    panel.legend(fontsize=8)
    report.save_figure(figure, path)


def plot_sweeps(path, run, groups):
    """The students' test accuracy and calibration against temperature, and accuracy against how many images they saw."""
    settings, lines = run.settings, []
    if settings.temperature_sweep:
        names = {at_temperature(value): value for value in settings.temperature_sweep} | {"distilled": settings.temperature}
        points = {"distilled": {name: value for name, value in names.items() if name in groups}}
        lines += [("temperature T", "accuracy", points), ("temperature T", "ece", points)]
    if settings.train_examples_sweep:
        points = {}
        for kind in ("alone", "distilled"):
            names = {f"{kind}-{count}-images": count for count in settings.train_examples_sweep} | {kind: len(run.parts.train)}
            points[kind] = {name: count for name, count in names.items() if name in groups}
        lines.append(("training images of the student", "accuracy", points))
    figure = Figure(figsize=(3.4 * len(lines) + 1, 3.4), layout="constrained")
    for panel, (title, key, kinds) in zip(np.ravel(figure.subplots(1, len(lines))), lines, strict=True):
        for kind, points in kinds.items():
            names = sorted(points, key=points.get)
            values = 100 * np.array([[record[key] for record in groups[name]] for name in names])  # (points, seeds)
            deviation = values.std(axis=1, ddof=1) if values.shape[1] > 1 else None
            panel.errorbar(sorted(points.values()), values.mean(axis=1), deviation, marker="o", capsize=3, label=kind)
        if title.startswith("temperature") and "alone" in groups:
            panel.axhline(100 * np.mean([record[key] for record in groups["alone"]]), color="gray", ls="--", label="alone")
        panel.set_xscale("log")
        panel.set_xticks(sorted(set().union(*(points.values() for points in kinds.values()))))
        panel.xaxis.set_major_formatter("{x:g}")
        panel.minorticks_off()
        panel.set(xlabel=title, ylabel={"accuracy": "test accuracy, %", "ece": "calibration error (ECE), %"}[key])
        panel.grid(alpha=0.3)
        panel.legend(fontsize=8)
    report.save_figure(figure, path)


if __name__ == "__main__":
    start(main, PRESETS, __doc__.split("\n\n")[0])
