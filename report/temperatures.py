"""What temperature, scarce data and an unseen class have to do with distillation: plots and a table of the script on images."""

import numpy as np

from common.distillation import soften
from common.evaluation import predict
from report.document import Section
from report.plots import figure
from report.tables import by_name, mean_and_deviation

TEMPERATURES = (1, 5, 10, 20, 35, 50)  # of the notebook's plot


def plots_of_run(run, records, logits, sweep):
    """Draw temperature.png and, if anything was varied, sweeps.png in the run's folder. Returns the names of the plots.

    run: `training.Run` on images
    records: of all models
    logits: (classes,) of the teacher for the validation image that the settings name
    sweep: {name of a student: the temperature it was distilled at}, of those beside `distilled`
    """
    settings, corpus, validation = run.settings, run.corpus, run.parts.validation
    index = validation[settings.image]
    part = "test" if validation is run.parts.test else "validation"
    title = f"{part} image {settings.image}: {corpus.classes[corpus.labels[index]]}"
    plot_temperatures(run.folder / "temperature.png", corpus.pixels[index], title, logits, corpus.classes)
    panels = []
    if sweep:
        values = sweep | {"distilled": settings.temperature}
        panels += [("temperature T", measure, {"distilled": values}) for measure in ("accuracy", "ece")]
    if settings.train_examples_sweep:
        panels.append(("training images of the student", "accuracy", {
            kind: {f"{kind}-{count}-images": count for count in settings.train_examples_sweep} | {kind: len(run.parts.train)}
            for kind in ("alone", "distilled")
        }))
    if not panels:
        (run.folder / "sweeps.png").unlink(missing_ok=True)  # of an earlier start
        return ["temperature.png"]
    plot_sweeps(run.folder / "sweeps.png", records, panels)
    return ["temperature.png", "sweeps.png"]


def plot_temperatures(path, pixels, title, logits, classes):
    """One image, and beside it what its teacher says of the classes at rising temperatures.

    path: of the PNG
    pixels: (height, width, channels) float32, of the image
    title: of the image
    logits: (classes,) of the teacher
    classes: names
    """
    with figure(path, 10, 3.6) as drawn:
        image, panel = drawn.subplots(1, 2, width_ratios=(1, 2.6))
        image.imshow(pixels if pixels.shape[-1] == 3 else pixels[..., 0], cmap="gray", vmin=0, vmax=1)
        image.set_title(title, parse_math=False)
        image.axis("off")
        for temperature in TEMPERATURES:
            panel.plot(soften(logits, temperature), marker="o", markersize=3, label=f"T = {temperature}")
        narrow = len(classes) * max(map(len, classes)) < 40
        panel.set_xticks(
            range(len(classes)), classes, rotation=0 if narrow else 30 if len(classes) < 20 else 90,
            fontsize=min(10, 400 / len(classes)), parse_math=False,
        )
        panel.set(ylabel="probability", title="the teacher's distribution")
        panel.legend()


def plot_sweeps(path, records, panels):
    """A measure of students against what was varied: the mean over seeds and its standard deviation.

    path: of the PNG
    records: of all models; of `alone` a line is drawn where temperature varies
    panels: [(what is varied, "accuracy" or "ece", {kind of student: {name of a model: value}})]
    """
    groups = dict(by_name(records))
    with figure(path, 3.4 * len(panels) + 1, 3.4) as drawn:
        for panel, (title, key, kinds) in zip(np.ravel(drawn.subplots(1, len(panels))), panels, strict=True):
            for kind, values in kinds.items():
                values = {name: value for name, value in values.items() if name in groups}
                names = sorted(values, key=values.get)
                measured = 100 * np.array([[record[key] for record in groups[name]] for name in names])  # (values, seeds)
                deviation = measured.std(axis=1, ddof=1) if measured.shape[1] > 1 else None
                panel.errorbar(sorted(values.values()), measured.mean(axis=1), deviation, marker="o", capsize=3, label=kind)
            if title.startswith("temperature") and "alone" in groups:
                panel.axhline(100 * np.mean([record[key] for record in groups["alone"]]), color="gray", ls="--", label="alone")
            panel.set_xscale("log")
            panel.set_xticks(sorted({value for values in kinds.values() for name, value in values.items() if name in groups}))
            panel.xaxis.set_major_formatter("{x:g}")
            panel.minorticks_off()
            panel.set(xlabel=title, ylabel={"accuracy": "test accuracy, %", "ece": "calibration error (ECE), %"}[key])
            panel.legend()


def raised(logits, omitted, bias):
    """Logits (images, classes) with `bias` added to those of the class `omitted`."""
    return logits + bias * np.eye(logits.shape[-1])[omitted]


def recognitions(run, experiments, trained, bias_for):
    """How models recognise the omitted class on the test part: records; of those that never saw it also with its bias raised.

    The bias is chosen on the validation part, which has images of the class.

    run: `training.Run` on images
    experiments: {name of a model: the script's Experiment}
    trained: (run, name) -> the finished Keras model
    bias_for: (logits (images, classes), labels (images,), number of the class) -> what to add to its logit
    """
    omitted, validation = run.corpus.classes.index(run.settings.omit_class), run.parts.validation
    tested = run.corpus.labels[run.parts.test]
    for name, experiment in experiments.items():
        biases = {name: 0.0} if name in ("teacher", "alone", "distilled") else {}
        if experiment.without is not None:
            logits = predict(trained(run, name), run.examples, validation)
            biases = {name: 0.0, f"{name}, bias raised": bias_for(logits, run.corpus.labels[validation], omitted)}
        for title, bias in biases.items():
            logits = raised(run.logits(name, "test"), omitted, bias)
            right = logits.argmax(axis=-1) == tested
            yield {
                "name": title, "seed": run.seed, "bias": bias, "accuracy": float(right.mean()),
                "recall": float(right[tested == omitted].mean()), "recall_of_others": float(right[tested != omitted].mean()),
            }


def recognition_section(name, recognitions):
    """The section of the report on the class `name` that some students have not seen. recognitions: records as above."""
    note = ("`teacher`, `alone` and `distilled` have seen it, the others not. Its bias is raised by what is best on the "
            "validation part.")
    return Section(f"Class {name}, left out of what the students see", recognition_table(recognitions), note)


def recognition_table(recognitions):
    """How models recognise a class that some have not seen, over the seeds. recognitions: as results.json's omit_class."""
    rows = [["model", "bias", "accuracy %", "of the class %", "of the others %"]]
    for name, group in by_name(recognitions):
        shares = [[each[key] for each in group] for key in ("accuracy", "recall", "recall_of_others")]
        bias = mean_and_deviation([each["bias"] for each in group], decimals=1)
        rows.append([name, bias, *(mean_and_deviation(share, 100) for share in shares)])
    return rows
