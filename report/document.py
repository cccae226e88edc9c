"""results.json, log.csv and report.md of a run, and what is printed at its end."""

import contextlib
import csv
import io
import platform
import textwrap
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

import numpy as np

from common import visible
from common.command import as_dict, command_line
from common.evaluation import compare, pack_bits
from common.files import fingerprint, write_json, write_text
from common.linear import LINEAR
from common.training import ADVICE
from report.plots import plot_curves, plot_tradeoff
from report.tables import aligned, as_markdown, comparisons_table, difference_cells, markdown, models_table

PACKAGES = ("tensorflow", "tf_keras", "bert4keras", "numpy", "tokenizers", "onnxruntime")
SCHEMA = 1  # of results.json; a higher one where an entry that `results.form` asks for means something else, or is gone
RUNTIMES = {True: "of model.onnx in onnxruntime, in float32 and in int8.", False: "in TensorFlow, in float32."}


@dataclass(frozen=True)
class Section:
    """A part of the report beside what every report has: a table under a title, a note on it, and a remark or "".

    Title, table and remark are printed, too.
    """

    title: str
    table: list
    note: str
    remark: str = ""


def describe(record):
    """A finished stage in one line."""
    more = f", soft labels {record['soft_label_accuracy']:.1%} right" if "soft_label_accuracy" in record else ""
    more += f", {record['measured']}" if "measured" in record else ""
    if "diverged_in_epoch" in record:
        more += f"\n    its loss was not finite in epoch {record['diverged_in_epoch']}: the best one before is kept; {ADVICE}"
    trained = f"{record['epochs']:>2} epochs" if record["epochs"] else f"{'fitted':>9}"
    trained = f"{'given':>19}" if "given" in record else f"{trained} in {record['train_seconds']:>4.0f} s"
    return (
        f"  seed {record['seed']}  {record['name']:<29}  {trained}"
        f"   validation {record['validation_accuracy']:.1%}   test {record['accuracy']:.1%}{more}"
    )


def show_stages(records):
    """Print each finished stage in one line, as soon as it is there. records: iterable. Returns a list of them."""
    shown = []
    for record in records:
        print(describe(record))
        shown.append(record)
    return shown


def environment():
    """Versions of what the figures depend on, and the processor they were measured on."""
    versions, machine = {}, f"{platform.system()} {platform.machine()}"
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):  # TensorFlow and onnxruntime go by other names, too
            versions[name] = metadata.version(name)
    with contextlib.suppress(OSError, StopIteration), open("/proc/cpuinfo", encoding="utf-8") as file:
        lines = [*file]
        name = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
        machine = f"{name}, {sum(line.startswith('processor') for line in lines)} cores"
    return {"python": platform.python_version()} | versions | {"machine": machine}


def correct_answers(run, name, part="test"):
    """Which examples of a part the stage `name` of this run's seed got right: (examples,) bool."""
    return run.logits(name, part).argmax(-1) == run.corpus.labels[getattr(run.parts, part)]


def comparisons(run, records, pairs, correct=correct_answers):
    """A - B for each pair whose models were trained, over all seeds, on the same test examples.

    run: of any seed
    records: of the finished stages
    pairs: [(A, B)], names
    correct: (run of one seed, name) -> (examples,) what to compare the means of
    """
    names, seeds = {record["name"] for record in records}, run.settings.seeds

    def of_seeds(name):
        return np.stack([correct(replace(run, seed=seed), name) for seed in seeds])

    return [
        {"a": a, "b": b, **compare(of_seeds(a), of_seeds(b)), "seeds": list(seeds)} for a, b in pairs if {a, b} <= names
    ]


def results_of(run, script, preset, default, records, pairs):
    """results.json of a run, with its command, and with each model which test examples it got right (see `pack_bits`).

    run: of any seed
    script: its name
    preset: the same
    default: the preset's settings
    records: of the finished stages, with their cost
    pairs: [(A, B)], names of the models to compare
    """
    corpus, parts = run.corpus, run.parts
    return {
        "schema": SCHEMA, "script": script, "preset": preset, "command": command_line(script, preset, default, run.settings),
        "settings": as_dict(run.settings), "environment": environment(),
        "data": {
            "name": corpus.name, "classes": len(corpus.classes), "train": len(parts.train),
            "unlabelled": len(parts.unlabelled), "validation": len(parts.validation), "test": len(parts.test),
            **({"calibration": len(parts.calibration)} if len(parts.calibration) else {}),
            "chosen_on": "test" if parts.validation is parts.test else "validation",
            "test_fingerprint": fingerprint(corpus.labels[parts.test]),
            "notes": corpus.notes, "descriptions": corpus.descriptions,
        },
        "models": [
            {key: value for key, value in record.items() if key != "history"}
            | {"correct": pack_bits(correct_answers(replace(run, seed=record["seed"]), record["name"]))}
            for record in records
        ],
        "comparisons": comparisons(run, records, pairs),
    }


def write_report(folder, results, records, example, take_away, measure="macro_f1", sections=(), plots=(), plotted=None,
                 first=""):
    """Write log.csv, curves.png, tradeoff.png, results.json and report.md, and print the tables and where they are.

    folder: the run's
    results: what `results_of` says of it
    records: of the finished stages, with their histories
    example: what one example is, for which costs are told
    take_away: {name of a folder in it with a model to take away: which it is, in words}
    measure: what stands beside accuracy, see `models_table`
    sections: further `Section`s
    plots: names of further plots in the folder, already there
    plotted: names of the models in the first two plots; None takes all
    first: what stands above everything, if anything has to
    """
    write_log(folder / "log.csv", records)
    shown = [record for record in records if plotted is None or record["name"] in plotted]
    plot_curves(folder / "curves.png", [record for record in shown if record["history"]])
    plot_tradeoff(folder / "tradeoff.png", shown, results.get("student", {}).get("files", []))
    write_json(folder / "results.json", results)
    write_text(folder / "report.md", document(results, example, take_away, measure, sections, plots, first))
    if first:
        print(f"\n{textwrap.fill(first, 100)}")
    print(summary(results, measure))
    for section in sections:
        remark = [textwrap.fill(section.remark, 100)] if section.remark else []
        print("\n" + "\n\n".join([visible(section.title), aligned(section.table), *remark]))
    files = "  ".join(["report.md", "results.json", "curves.png", "tradeoff.png", *plots])
    print(f"\n{folder}/  {files}  {'  '.join(f'{name}/ ({words})' for name, words in take_away.items())}")


def write_log(path, records):
    """log.csv: a line per model, seed and epoch, from the histories in the records."""
    lines = [{"model": record["name"], "seed": record["seed"]} | epoch for record in records for epoch in record["history"]]
    columns = list(dict.fromkeys(column for line in lines for column in line))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    write_text(path, text.getvalue())


def summary(results, measure="macro_f1"):
    """The two tables as they are printed, and what is to be said of the linear model."""
    blocks = [aligned(models_table(results["models"], measure))]
    if results["comparisons"]:
        blocks.append(aligned(comparisons_table(results["comparisons"])))
    return "\n" + "\n\n".join([*blocks, *linear_remark(results)])


def linear_remark(results):
    """[A line for whom a linear model may do], or none where the teacher, or else the best student, is measurably above it.

    results: of a run; the first comparison with the linear model is the teacher's, if there is one
    """
    linear = {record["name"] for record in results["models"] if not record["layers"]}
    judged, who = [each for each in results["comparisons"] if each["b"] == LINEAR and each["a"] not in linear], "the "
    if results["settings"].get("soft_labels"):  # which come from elsewhere
        judged, who = sorted(judged, key=lambda each: -each["difference"]), "the best student, "
    if not judged or judged[0]["ci95"][0] > 0:
        return []
    comparison = judged[0]
    points, interval, _ = difference_cells(comparison)
    advice = "try more tokens (--maxlen), more labels (--train-examples), more epochs, or no BERT at all"
    if results["settings"].get("teacher"):  # which is not trained here
        advice = "is it fine-tuned for these labels and such texts? Try more tokens (--maxlen), or no BERT at all"
    return [textwrap.fill(
        f"The linear model is not measurably below {who}{comparison['a']} ({points} points, {interval}): {advice}.", 100,
    )]


def document(results, example, take_away, measure="macro_f1", sections=(), plots=(), first=""):
    """report.md: what was run, the tables, the plots, the settings and the environment (see `write_report`)."""
    counts = ", ".join(f"{value:,} {key}" for key, value in results["data"].items() if isinstance(value, int) and value)
    seeds = len(results["settings"]["seeds"])
    spread, test = "One seed.", "p is McNemar's exact test on the same examples."
    if seeds > 1:
        spread = f"± is the standard deviation over {seeds} seeds."
        test = "The interval and the two-sided p count the draw of the test part and of the seeds as chance."
    blocks = [
        f"# {results['script']}, preset {results['preset']}",
        *([f"**{first}**"] if first else []),
        f"{as_markdown(results['data']['name'])}: {counts}.",
        *map(as_markdown, results["data"]["notes"]),
        f"Epochs were chosen on the {results['data']['chosen_on']} part. FLOPs count a multiply-add as two and are those of "
        f"{example}; \"ms @32\" is the latency of 32 of them together, "
        f"{RUNTIMES['int8_latency_ms' in results['models'][0]]} {spread}",
        markdown(models_table(results["models"], measure)),
        *(f"Not finite: the loss of {m['name']}, seed {m['seed']}, in epoch {m['diverged_in_epoch']}; the best before is kept."
          for m in results["models"] if "diverged_in_epoch" in m),
    ]
    if results["comparisons"]:
        blocks += [f"Differences in points of accuracy. {test}", markdown(comparisons_table(results["comparisons"]))]
    blocks += linear_remark(results)
    for section in sections:
        blocks += [f"## {as_markdown(section.title)}", section.note, markdown(section.table), *filter(None, [section.remark])]
    blocks += [
        "![training curves](curves.png)",
        "![accuracy against latency and size](tradeoff.png)",
        *(f"![{Path(plot).stem}]({plot})" for plot in plots),
        *(f"`{name}/` holds {words}." for name, words in take_away.items()),
    ]
    lists = {"Classes": results["data"]["descriptions"], "Settings": results["settings"], "Environment": results["environment"]}
    for title, entries in lists.items():
        if entries:
            lines = (f"- {as_markdown(f'{name}: {value}')}" for name, value in entries.items())
            blocks += [f"## {title}", "\n".join(lines)]
    return "\n\n".join(blocks) + "\n"
