"""The run folder: settings.json, results.json, log.csv, the tables, the plots and report.md. RESULTS.md of many of them:

    python -m common.report [RUN …]      # folders of finished runs, say runs/*; without any it is built anew from results/

Everything here is made from the records that the stages leave; nothing is trained or measured.
"""

import csv
import io
import json
import platform
import warnings
from dataclasses import replace
from importlib import metadata
from itertools import cycle, groupby
from pathlib import Path

import matplotlib
import numpy as np
import tyro
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from common import InputError
from common.backend import barrier, is_chief
from common.command import as_dict, ending_in_one_line, typed
from common.evaluation import compare
from common.files import fingerprint, wait_for, write_json, write_text, write_whole
from common.training import ADVICE

PACKAGES = ("tensorflow", "tf_keras", "bert4keras", "numpy", "tokenizers")
MARKERS = "os^DvPX*"

# Class names may be Chinese: a font that has the characters, where there is one; boxes without a word otherwise.
CHINESE = ("Noto Sans CJK SC", "Source Han Sans SC", "Microsoft YaHei", "SimHei", "PingFang SC", "WenQuanYi Zen Hei")
matplotlib.rcParams["font.family"] = ["DejaVu Sans", *(set(CHINESE) & set(font_manager.get_font_names()))]
warnings.filterwarnings("ignore", message="Glyph .* missing from font")


def open_folder(folder, settings, inputs, extensible=("experiments", "seeds")):
    """Make the run's folder, or go on in one with the same settings.

    settings: as JSON. inputs: {what: fingerprint} of the data and the model, so that changed files are noticed too.
    extensible: settings that may differ, because they only say which stages there are: more seeds or experiments join those
    that are finished. Raises InputError if the folder holds another run or something else, or cannot be written to.
    """
    path = folder / "settings.json"
    if not is_chief():
        barrier()  # the chief has made it
        wait_for(path)
    wanted = {"settings": settings, "inputs": inputs}
    if path.is_file():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            pairs = [(found[group], wanted[group]) for group in wanted]
            changed = [key for old, new in pairs for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InputError(f"{path}: not the settings of a run; give another folder with --output") from None
        changed = [key for key in changed if key not in extensible or not is_chief()]  # whose settings these are, just written
        if changed:
            raise InputError(
                f"{folder} holds a run with another {changed[0].replace('_', ' ')}; "
                "give another folder with --output, or delete this one"
            )
    elif folder.exists() and not (folder.is_dir() and {file.name[:15] for file in folder.iterdir()} <= {".settings.json."}):
        raise InputError(f"{folder} is there already and is not a run; give another folder with --output")
    if is_chief():
        write_json(path, wanted)
        barrier()


def describe(model):
    """A finished stage in one line."""
    told = f", soft labels {model['soft_label_accuracy']:.1%} right" if "soft_label_accuracy" in model else ""
    told += f", {model['measured']}" if "measured" in model else ""
    if "diverged_in_epoch" in model:
        told += f"\n    its loss was not finite in epoch {model['diverged_in_epoch']}: the best one before is kept; {ADVICE}"
    return (
        f"  seed {model['seed']}  {model['name']:<29}  {model['epochs']:>2} epochs in {model['train_seconds']:>4.0f} s"
        f"   validation {model['validation_accuracy']:.1%}   test {model['accuracy']:.1%}{told}"
    )


def environment():
    """Versions of what the figures depend on, and the processor they were measured on."""
    versions = {name: metadata.version(name) for name in PACKAGES}
    return {"python": platform.python_version()} | versions | {"machine": _processor()}


def _processor():
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            name = next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
            file.seek(0)
            return f"{name}, {sum(line.startswith('processor') for line in file)} cores"
    except (OSError, StopIteration):
        return f"{platform.system()} {platform.machine()}"


def write_log(path, models):
    """log.csv: a line per model, seed and epoch, from the histories in the models' records."""
    rows = [{"model": m["name"], "seed": m["seed"]} | epoch for m in models for epoch in m["history"]]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


# The table -------------------------------------------------------------------------------------------------------------


def by_name(models):
    """[(name, its records over the seeds)], in the order of first appearance."""
    order = {name: i for i, name in enumerate(dict.fromkeys(m["name"] for m in models))}
    return [(name, list(group)) for name, group in groupby(sorted(models, key=lambda m: order[m["name"]]), lambda m: m["name"])]


count = EngFormatter(places=2)  # 22570000 -> "22.57 M"


def spread(values, scale=1.0, decimals=2):
    """Mean, and with several values ± their standard deviation."""
    values = np.asarray(values) * scale
    mean = f"{values.mean():.{decimals}f}"
    return mean if len(values) == 1 else f"{mean} ± {values.std(ddof=1):.{decimals}f}"


MEASURES = {"macro_f1": "macro-F1 %", "ece": "ECE %"}  # that may stand beside accuracy


def models_table(models, beside="macro_f1"):
    """Rows of strings, header first: what each model is, costs and reaches. beside: one of MEASURES."""
    rows = [["model", "layers", "params", "FLOPs", "ms @1", "ms @32", "accuracy %", MEASURES[beside], "train s"]]
    for name, group in by_name(models):
        first = group[0]
        rows.append([
            name,
            f"{np.mean([m['layers'] for m in group]):.3g}",
            count(first["parameters"]),
            count(np.mean([m["flops"] for m in group])),
            f"{np.mean([m['latency_ms']['1'] for m in group]):.3g}",
            f"{np.mean([m['latency_ms']['32'] for m in group]):.3g}",
            spread([m["accuracy"] for m in group], 100),
            spread([m[beside] for m in group], 100),
            f"{np.mean([m['train_seconds'] for m in group]):.0f}",
        ])
    return rows


def comparisons_table(found):
    """Rows of strings, header first: differences in points of accuracy, with interval and p-value."""
    rows = [["A - B", "points", "95 % interval", "p"]]
    for c in found:
        low, high = (100 * bound for bound in c["ci95"])
        p = "< 0.0001" if c["p_value"] < 0.0001 else f"{c['p_value']:.4f}"
        rows.append([f"{c['a']} - {c['b']}", f"{100 * c['difference']:+.2f}", f"{low:+.2f} to {high:+.2f}", p])
    return rows


def recognition_table(records):
    """Rows of strings, header first, of how models recognise a class that some have not seen, over the seeds."""
    rows = [["model", "bias", "accuracy %", "of the class %", "of the others %"]]
    for name, group in by_name(records):
        rows.append([name, spread([record["bias"] for record in group], decimals=1)])
        for key in ("accuracy", "recall", "recall_of_others"):
            rows[-1].append(spread([record[key] for record in group], 100))
    return rows


def aligned(rows):
    """Rows of strings as lines of text: first column left, the others right, a rule under the header."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def markdown(rows):
    """The same rows as a Markdown table."""
    rule = ["---"] + ["---:"] * (len(rows[0]) - 1)
    return "\n".join("| " + " | ".join(row) + " |" for row in [rows[0], rule, *rows[1:]])


def summary(results, beside="macro_f1"):
    """The two tables as they are printed."""
    tables = [models_table(results["models"], beside)]
    if results["comparisons"]:
        tables.append(comparisons_table(results["comparisons"]))
    return "\n" + "\n\n".join(map(aligned, tables))


def _classes(descriptions):
    """A section on what the classes mean, if the data says."""
    lines = "\n".join(f"- {name}: {meaning}" for name, meaning in descriptions.items())
    return ["## Classes", lines] if lines else []


def correct(run, name):
    """Which test examples the stage `name` of this run's seed got right: (examples,) bool."""
    return np.load(run.stage(name) / "test_logits.npy").argmax(-1) == run.corpus.labels[run.parts.test]


def comparisons(run, models, pairs, correct=correct):
    """A - B for each of the (A, B) `pairs` whose models were trained, over all seeds, on the same test examples.

    correct: (run of one seed, name) -> (examples,) what to compare the means of.
    """
    names, seeds = {model["name"] for model in models}, run.settings.seeds

    def of_seeds(name):
        return np.stack([correct(replace(run, seed=seed), name) for seed in seeds])

    return [
        {"a": a, "b": b, **compare(of_seeds(a), of_seeds(b)), "seeds": list(seeds)} for a, b in pairs if {a, b} <= names
    ]


def results_of(run, script, preset, default, models, pairs):
    """results.json of a run, as design.md describes it. default: the preset's settings. pairs: the comparisons to make.

    Beside design.md's: the command, and with each model which test examples it got right, so that models of different runs on
    the same examples can be compared (see `bits`).
    """
    corpus, parts = run.corpus, run.parts
    return {
        "schema": 1,
        "script": script,
        "preset": preset,
        "command": typed(script, preset, default, run.settings),
        "settings": as_dict(run.settings),
        "environment": environment(),
        "data": {
            "name": corpus.name, "classes": len(corpus.classes), "train": len(parts.train),
            "unlabelled": len(parts.unlabelled), "validation": len(parts.validation), "test": len(parts.test),
            "chosen_on": "test" if parts.validation is parts.test else "validation",
            "test_fingerprint": fingerprint(corpus.labels[parts.test]),
            "notes": corpus.notes, "descriptions": corpus.descriptions,
        },
        "models": [
            {key: value for key, value in model.items() if key != "history"}
            | {"correct": bits(correct(replace(run, seed=model["seed"]), model["name"]))}
            for model in models
        ],
        "comparisons": comparisons(run, models, pairs),
    }


def bits(correct):
    """(examples,) bool as text, four to a hexadecimal digit; `unpacked` has them back."""
    return np.packbits(correct).tobytes().hex()


def unpacked(text, count):
    """What `bits` made of `count` examples."""
    return np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8), count=count).astype(bool)


def write_report(folder, results, models, example, student, beside="macro_f1", sections=(), plots=(), plotted=None):
    """Write log.csv, curves.png, tradeoff.png, results.json and report.md, and print the tables and where they are.

    models: the records with their histories. example: what one example is, for which costs are told. student: what
    `student/` holds. beside: what stands beside accuracy. sections: further (title, rows of a table, note). plots: further
    plots in `folder`, already there. plotted: names of the models in the first two plots; None takes all.
    """
    write_log(folder / "log.csv", models)
    shown = [model for model in models if plotted is None or model["name"] in plotted]
    plot_curves(folder / "curves.png", shown)
    plot_tradeoff(folder / "tradeoff.png", shown)
    write_json(folder / "results.json", results)
    write_text(folder / "report.md", document(results, example, student, beside, sections, plots))
    print(summary(results, beside))
    for title, rows, _ in sections:
        print(f"\n{title}\n\n{aligned(rows)}")
    files = "  ".join(["report.md", "results.json", "curves.png", "tradeoff.png", *plots])
    print(f"\n{folder}/  {files}  student/ ({student})")


def document(results, example, student, beside="macro_f1", sections=(), plots=()):
    """report.md: what was run, the tables, the plots, the settings and the environment (see `write_report`)."""
    counts = ", ".join(f"{value:,} {key}" for key, value in results["data"].items() if isinstance(value, int) and value)
    seeds = len(results["settings"]["seeds"])
    lines = [
        f"# {results['script']}, preset {results['preset']}",
        f"{results['data']['name']}: {counts}.",
        *results["data"]["notes"],
        f"Epochs were chosen on the {results['data']['chosen_on']} part. FLOPs count a multiply-add as two and are those of "
        f"{example}; \"ms @32\" is the latency of 32 of them together, in float32. "
        + (f"± is the standard deviation over {seeds} seeds." if seeds > 1 else "One seed."),
        markdown(models_table(results["models"], beside)),
        *(f"Not finite: the loss of {m['name']}, seed {m['seed']}, in epoch {m['diverged_in_epoch']}; the best before is kept."
          for m in results["models"] if "diverged_in_epoch" in m),
    ]
    if results["comparisons"]:
        test = (
            "The interval and the two-sided p count the draw of the test part and of the seeds as chance."
            if seeds > 1
            else "p is McNemar's exact test on the same examples."
        )
        lines += [f"Differences in points of accuracy. {test}", markdown(comparisons_table(results["comparisons"]))]
    for title, rows, note in sections:
        lines += [f"## {title}", note, markdown(rows)]
    lines += [
        "![training curves](curves.png)",
        "![accuracy against latency and size](tradeoff.png)",
        *(f"![{Path(plot).stem}]({plot})" for plot in plots),
        f"`student/` holds {student}.",
        *_classes(results["data"]["descriptions"]),
        "## Settings",
        "\n".join(f"- {name}: {value}" for name, value in results["settings"].items()),
        "## Environment",
        "\n".join(f"- {name}: {value}" for name, value in results["environment"].items()),
    ]
    return "\n\n".join(lines) + "\n"


# Plots -----------------------------------------------------------------------------------------------------------------


def by_epoch(models, key):
    """A figure out of the models' histories: (models, epochs) float, NaN where there is none, as after one that diverged."""
    histories = [[epoch.get(key) for epoch in model["history"]] for model in models]
    longest = max(map(len, histories))
    return np.array([history + [None] * (longest - len(history)) for history in histories], float)


def plot_curves(path, models):
    """Training loss and validation accuracy against the epoch: a line per model, the mean over seeds, and their range."""
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    panels = figure.subplots(1, 2)
    for panel, key, title, scale in zip(
        panels, ("loss", "val_accuracy"), ("training loss", "validation accuracy, %"), (1, 100), strict=True
    ):
        for (name, group), marker in zip(by_name(models), cycle(MARKERS), strict=False):
            values = scale * by_epoch(group, key)
            epochs = np.arange(1, values.shape[1] + 1)
            panel.plot(epochs, values.mean(axis=0), marker=marker, markersize=4, label=name)
            panel.fill_between(epochs, values.min(axis=0), values.max(axis=0), alpha=0.15, linewidth=0)
        panel.set(xlabel="epoch", title=title)
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.grid(alpha=0.3)
    panels[0].set_yscale("log")
    figure.legend(*panels[1].get_legend_handles_labels(), fontsize=8, loc="outside right upper")
    save_figure(figure, path)


def plot_tradeoff(path, models):
    """Test accuracy against latency at batch 32 and against the number of parameters; bars are the seeds' range.

    Models of the same cost stand side by side, a little apart.
    """
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    groups = by_name(models)
    costs = np.array([(group[0]["latency_ms"]["32"], group[0]["parameters"] / 1e6) for _, group in groups])
    for place, ((name, group), marker) in enumerate(zip(groups, cycle(MARKERS), strict=False)):
        accuracy = 100 * np.array([m["accuracy"] for m in group])
        reach = [[accuracy.mean() - accuracy.min()], [accuracy.max() - accuracy.mean()]]
        for panel, x in zip(panels, costs.T, strict=True):
            apart = 0.02 * x.max() * (x[:place] == x[place]).sum()
            panel.errorbar(x[place] + apart, accuracy.mean(), reach, marker=marker, linestyle="none", capsize=3, label=name)
    panels[0].set(xlabel="latency of 32 together, ms", ylabel="test accuracy, %")
    panels[1].set(xlabel="parameters, millions")
    for panel in panels:
        panel.set_xlim(0, 1.15 * panel.get_xlim()[1])
        panel.margins(y=0.1)
        panel.grid(alpha=0.3)
    figure.legend(*panels[1].get_legend_handles_labels(), fontsize=8, loc="outside right upper")
    save_figure(figure, path)


def save_figure(figure, path):
    """Write a figure to `path` as PNG."""
    write_whole(path, lambda file: figure.savefig(file, format="png", dpi=130))


def main(runs: tyro.conf.Positional[tuple[Path, ...]] = (), store: Path = Path("results"), output: Path = Path("RESULTS.md")):
    """Take the results of runs into a folder, and build RESULTS.md of all that are there.

    Args:
        runs: folders of finished runs; a name that is there already is replaced
        store: the folder: results of runs, what benchmarks printed, plots
        output: the file to build
    """
    from common import results  # which imports this module

    results.take_in(runs, store)
    results.build(store, output)
    print(output)


if __name__ == "__main__":
    with ending_in_one_line("stopped"):
        tyro.cli(main, prog="python -m common.report")
