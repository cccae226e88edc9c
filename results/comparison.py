"""One teacher, all methods: the rows, the tables and the plot of the runs whose teachers are the same model."""

from dataclasses import dataclass
from itertools import combinations, cycle

import numpy as np

from common.evaluation import compare
from report.plots import MARKERS, figure
from report.tables import by_name, count, difference_cells, mean_and_deviation
from results.methods import method_of
from results.stored import compared, correct_of, exit_at

SIZES = ("1", "32")  # texts together, by which speed is timed


@dataclass(frozen=True)
class Row:
    """A model beside the others."""

    title: str  # what it is called here
    alone: bool  # whether it is the student trained alone
    speed: float | None  # of a model that stops early
    correct: dict  # {seed: (examples,) bool}
    speedup: dict  # {"1", "32"}: times as fast as the teacher that was timed beside it
    layers: float  # that a text takes, the mean over texts and seeds; a linear model has none
    parameters: int
    steps: int  # of training, in batches; a linear model has none
    seconds: float  # of training, the least of the seeds'


def one_teacher(runs):
    """The scripts' runs whose teachers answer every test example alike in every common seed: {name: results}, one a script."""

    def alike(one, other):
        if one["data"]["test_fingerprint"] != other["data"]["test_fingerprint"]:
            return False
        a, b = (correct_of(results, method_of(results).teacher) for results in (one, other))
        return bool(a.keys() & b.keys()) and all(np.array_equal(a[seed], b[seed]) for seed in a.keys() & b.keys())

    groups = []
    for name, results in runs.items():
        group = next((group for group in groups if alike(next(iter(group.values())), results)), None)
        if group is None:
            groups.append(group := {})
        group.setdefault(name, results)
    chosen = [{results["script"]: name for name, results in reversed(group.items())} for group in groups]
    return {name: runs[name] for name in runs if name in max(chosen, key=len).values()}


def comparison_rows(group):
    """`Row`s of a group's models over the seeds that all its runs have, the teacher first; none if there is no such seed.

    A model that stops early is at the speeds at which it comes nearest to the shallow students' speedup, for one text and in
    batches; the clock alone chooses.
    """
    seeds = set.intersection(*({record["seed"] for record in results["models"]} for results in group.values()))
    if not seeds:
        return []
    rows, stopping = [], []
    for results in group.values():
        method = method_of(results)
        results = results | {"models": [record for record in results["models"] if record["seed"] in seeds]}
        models = dict(by_name(results["models"]))
        teacher = models[method.teacher]
        if not rows:
            rows.append(_row("teacher", results, teacher, dict.fromkeys(SIZES, 1.0)))
        for name, title in method.compared.items():
            if name in models and "exits" in models[name][0]:
                stopping.append((title, results, models[name]))
            elif name in models:
                speedup = {size: teacher[0]["latency_ms"][size] / models[name][0]["latency_ms"][size] for size in SIZES}
                row = _row(title, results, models[name], speedup)
                # trained alike in two scripts, it is right and wrong about the same examples, and stands once
                if not any(all(np.array_equal(row.correct[s], other.correct[s]) for s in seeds) for other in rows):
                    rows.append(row)
    shallow = {size: np.mean([row.speedup[size] for row in rows[1:] if row.layers] or [1.0]) for size in SIZES}
    for title, results, records in stopping:
        speedups = exit_speedups(records)
        for place in sorted({int(np.abs(np.log(speedups[size] / shallow[size])).argmin()) for size in SIZES}):
            speed = records[0]["exits"][place]["speed"]
            speedup = {size: speedups[size][place] for size in SIZES}
            rows.append(_row(f"{title}, speed {speed:g}", results, records, speedup, speed))
    return rows


def _row(title, results, records, speedup, speed=None):
    method, name, data = method_of(results), records[0]["name"], results["data"]
    layers = [record["layers"] if speed is None else exit_at(record, speed)["mean_layers"] for record in records]
    texts = data["train"] + (name in method.unlabelled) * data["unlabelled"]
    passes = records[0]["epochs"] * -(-texts // results["settings"]["batch_size"])  # of a run that did not count its steps
    return Row(
        title, name == method.alone, speed, correct_of(results, name, speed), speedup, np.mean(layers),
        records[0]["parameters"], records[0].get("steps", passes), min(record["train_seconds"] for record in records),
    )


def exit_speedups(records):
    """{"1", "32": (speeds,)}: times as fast as the teacher by the clock, the mean over a stopping model's seeds."""
    return {
        size: np.mean([[point["wall_speedup"][size] for point in record["exits"]] for record in records], axis=0)
        for size in SIZES
    }


def methods_table(rows):
    """Rows of strings, header first: what each method reaches and costs, and its gain over the student trained alone."""
    alone = next(row for row in rows if row.alone)
    table = [["method", "accuracy %", "x @1", "x @32", "layers", "params", "steps", "train s", "over alone",
              "95 % interval", "p"]]
    for row in rows:
        accuracy = mean_and_deviation([correct.mean() for correct in row.correct.values()], 100)
        cells = [f"{row.speedup[size]:.2f}" for size in SIZES]
        cells += [f"{row.layers:.3g}", count(row.parameters), f"{row.steps:,}" if row.steps else "", f"{row.seconds:.0f}"]
        comparison = None if row is alone else compared(row.correct, alone.correct)
        table.append([row.title, accuracy, *cells, *difference_cells(comparison)])
    return table


def pairs_table(rows):
    """Rows of strings, header first: every method against every other, but for teacher and student trained alone."""
    others = [row for row in rows[1:] if not row.alone]
    return [["A - B", "points", "95 % interval", "p"]] + [
        [f"{a.title} - {b.title}", *difference_cells(compared(a.correct, b.correct))] for b, a in combinations(others, 2)
    ]


def plot_comparison(path, group, rows):
    """Accuracy against the speed-up by the clock, each method with the 95 % interval of its accuracy.

    path: of the PNG
    group: {name: results} of the runs
    rows: its `comparison_rows`
    """
    titled = [
        (title, [record for record in results["models"] if record["name"] == name])
        for results in group.values() for name, title in method_of(results).compared.items()
    ]
    shallow = sum(row.speed is None and row.layers > 0 for row in rows[1:])  # about as fast as each other: drawn side by side
    with figure(path, 10, 4.4) as drawn:
        panels = drawn.subplots(1, 2, sharex=True, sharey=True)
        for panel, size in zip(panels, SIZES, strict=True):
            for title, records in titled:
                if records and "exits" in records[0]:
                    accuracy = np.mean([[point["accuracy"] for point in record["exits"]] for record in records], axis=0)
                    panel.plot(exit_speedups(records)[size], 100 * accuracy, color="black", lw=1, label=f"{title}, all speeds")
            for number, (row, marker) in enumerate(zip(rows, cycle(MARKERS), strict=False)):
                accuracy = 100 * np.mean([correct.mean() for correct in row.correct.values()])
                if not row.layers:  # many times as fast as all others: a line, since only its accuracy is in question
                    panel.axhline(accuracy, color="gray", linestyle=":", label=row.title)
                    continue
                x = row.speedup[size] * (1 + 0.025 * (number - (shallow + 1) / 2) * (0 < number <= shallow))
                color = "black" if row.speed is not None else f"C{number}"
                margin = half_width(row.correct)
                panel.errorbar(x, accuracy, margin, fmt=marker, color=color, capsize=3, label=row.title)
            panel.set(xlabel=f"times as fast as the teacher, {'one text' if size == '1' else '32 together'}", xscale="log")
            panel.set_xticks([1, 1.5, 2, 3, 4, 5], ["1", "1.5", "2", "3", "4", "5"])
            panel.minorticks_off()
        panels[0].set(ylabel="test accuracy, % (bars: 95 % interval)")
        drawn.legend(
            *panels[1].get_legend_handles_labels(), loc="outside right upper", title_fontsize=8,
            title="shallow models are equally fast:\nthey are drawn side by side",
        )


def half_width(correct):
    """Half of the 95 % interval of a model's mean accuracy, in points: seeds and test examples both count as chance."""
    values = np.stack([*correct.values()])
    comparison = compare(values, np.zeros_like(values))
    return 100 * (comparison["ci95"][1] - comparison["difference"])
