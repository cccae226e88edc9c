"""One teacher, all methods: rows, tables and plot of the runs of each data set whose teachers are the same model."""

from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path

import numpy as np

from common.evaluation import compare
from common.exit_curve import WALL
from report.plots import MARKERS, figure
from report.tables import by_name, count, difference_cells, mean_and_deviation
from results.methods import METHODS, method_of
from results.stored import compared, correct_of, exit_at

SIZES = ("1", "32")  # texts together, by which speed is timed
SIZE = "; "  # behind the name of a method whose other row has another size
ASIDE = 0.08  # of its speed-up: how far apart models of one size are drawn
TICKS = 1, 1.5, 2, 3, 5, 10, 20, 50  # times as fast


@dataclass(frozen=True, eq=False)
class Row:
    """A model beside the others."""

    method: str  # what it is called here
    alone: bool  # whether it is the student trained alone
    speed: float | None  # of a model that stops early
    correct: dict  # {seed: (examples,) bool}
    speedup: dict  # {"1", "32"}: times as fast as the teacher that was timed beside it, both in float32
    layers: float  # that a text takes, the mean over texts and seeds; a linear model has none
    parameters: int
    steps: int  # of training, in batches; a linear model has none
    seconds: float  # of training, the least of the seeds'
    int8_speedup: dict = field(default_factory=dict)  # the same of its int8 beside the teacher's float32; {}: not timed

    @property
    def title(self):
        """What a row of its own is called: a model that stops early has several."""
        return self.method if self.speed is None else f"{self.method}, speed {self.speed:g}"


@dataclass(frozen=True)
class Comparison:
    """Runs of one teacher, by two scripts at least."""

    runs: dict  # {name: results}, of the seeds that all of them have
    rows: list  # of `comparison_rows`, the student trained alone among them
    tried: bool  # whether their data is no ground for claims

    @property
    def alone(self):
        """The `Row` of the student trained alone."""
        return next(row for row in self.rows if row.alone)

    @property
    def title(self):
        """What its data is called: "clinc150, 24 tokens", with † if it was for trying only."""
        results = next(iter(self.runs.values()))
        tokens = results["settings"].get("maxlen")
        return Path(results["data"]["name"]).name + (f", {tokens} tokens" if tokens else "") + (" †" if self.tried else "")


def one_teacher(runs, tried=()):
    """A `Comparison` of the runs of each data set whose teachers answer every test example alike in every common seed.

    Where a data set has several such teachers, that of the most scripts.

    runs: {name: results}
    tried: names of those on data that is no ground for claims; one of others goes before
    """

    def alike(one, other):
        if one["data"]["test_fingerprint"] != other["data"]["test_fingerprint"]:
            return False
        a, b = (correct_of(results, method_of(results).teacher) for results in (one, other))
        return bool(a.keys() & b.keys()) and all(np.array_equal(a[seed], b[seed]) for seed in a.keys() & b.keys())

    groups, found, by_data = [], [], {}
    for name, results in runs.items():
        group = next((group for group in groups if alike(next(iter(group.values())), results)), None)
        if group is None:
            groups.append(group := {})
        group[name] = results
    for group in map(of_common_seeds, groups):
        rows = comparison_rows(group) if _scripts(group) > 1 else []
        if any(row.alone for row in rows):
            found.append(Comparison(group, rows, not group.keys().isdisjoint(tried)))
    for comparison in sorted(found, key=lambda comparison: (comparison.tried, -_scripts(comparison.runs))):
        by_data.setdefault(next(iter(comparison.runs.values()))["data"]["test_fingerprint"], comparison)
    return [*by_data.values()]


def _scripts(group):
    return len({results["script"] for results in group.values()})


def of_common_seeds(group):
    """A group's runs with the seeds that all its scripts have, {name: results}; none if there is no such seed.

    A script has those of its run with the most. A run that lacks one of the common seeds is left out.
    """
    of_runs, of_scripts = {name: {record["seed"] for record in results["models"]} for name, results in group.items()}, {}
    for name, results in group.items():
        of_scripts[results["script"]] = max(of_scripts.get(results["script"], set()), of_runs[name], key=len)
    seeds = set.intersection(*of_scripts.values())
    return {
        name: results | {"models": [record for record in results["models"] if record["seed"] in seeds]}
        for name, results in group.items() if seeds and seeds <= of_runs[name]
    }


def comparison_rows(group):
    """`Row`s of the models of runs that have one teacher and the same seeds; the teacher first.

    Of the students trained alone that one counts which is as deep as most models. A model that stops early is at the speeds at
    which it comes nearest to it, for one text and for 32 together, in this order; the clock alone chooses.
    """
    rows, stopping = [], {}
    for results in group.values():
        method, models = method_of(results), dict(by_name(results["models"]))
        teacher = models[method.teacher]
        if not rows:
            rows.append(_row("teacher", results, teacher, teacher))
        for name, title in method.compared.items():
            if name in models and "exits" in models[name][0]:
                stopping.setdefault(title, (results, models[name]))
            elif name in models:
                _join(rows, _row(title, results, models[name], teacher))
    depths = Counter(row.layers for row in rows[1:])
    alone = max((row for row in rows if row.alone), key=lambda row: depths[row.layers], default=rows[0])
    rows = [replace(row, alone=row.alone and row is alone) for row in rows]
    for title, (results, records) in stopping.items():
        speedups = exit_speedups(records)
        for place in dict.fromkeys(int(np.abs(np.log(speedups[size] / alone.speedup[size])).argmin()) for size in SIZES):
            rows.append(_row(title, results, records, None, place))
    return rows


def _join(rows, row):
    """Add a Row to others, unless it is there: trained alike in another run, or by the same method in the same size.

    Of one method in another size the name says which size that is.
    """
    sizes = {other.method: (other.layers, other.parameters) for other in rows}
    trained_alike = any(all(np.array_equal(row.correct[s], other.correct[s]) for s in row.correct) for other in rows)
    if sizes.get(row.method, (row.layers, row.parameters)) != (row.layers, row.parameters):
        size = f"layers: {row.layers:g}" if row.layers != sizes[row.method][0] else f"parameters: {count(row.parameters)}"
        _join(rows, replace(row, method=f"{row.method}{SIZE}{size}"))
    elif row.method not in sizes and not trained_alike:
        rows.append(row)


def _row(title, results, records, teachers, place=None):
    """The Row of some records.

    teachers: records of the teacher that was timed beside them
    place: of one of the speeds of those that stop early, which have times as fast as the teacher themselves
    """
    method, name, data = method_of(results), records[0]["name"], results["data"]
    if place is None:
        speed, forms = None, [timed_beside(records, teachers, key) for key in WALL]
    else:
        speed = records[0]["exits"][place]["speed"]
        forms = [{size: at[place] for size, at in exit_speedups(records, key).items()} for key in WALL.values()]
    layers = [record["layers"] if speed is None else exit_at(record, speed)["mean_layers"] for record in records]
    texts = data["train"] + (name in method.unlabelled) * data["unlabelled"]
    passes = records[0]["epochs"] * -(-texts // results["settings"]["batch_size"])  # of a run that did not count its steps
    return Row(
        title, name == method.alone, speed, correct_of(results, name, speed), forms[0], np.mean(layers),
        records[0]["parameters"], records[0].get("steps", passes), min(record["train_seconds"] for record in records), forms[1],
    )


def timed_beside(records, teachers, key):
    """{"1", "32"}: times as fast as the teacher in float32, by means over seeds; {}: not timed. key: of its milliseconds"""
    if key not in records[0]:
        return {}
    return {size: np.mean([each["latency_ms"][size] for each in teachers]) / np.mean([each[key][size] for each in records])
            for size in SIZES}


def exit_speedups(records, key="wall_speedup"):
    """{"1", "32": (speeds,)}: times as fast as the teacher by the clock, the mean over a stopping model's seeds.

    key: of a time in float32 or int8; {} for one that was not measured
    """
    if key not in records[0]["exits"][0]:
        return {}
    return {size: np.mean([[point[key][size] for point in record["exits"]] for record in records], axis=0) for size in SIZES}


def methods_table(rows):
    """Rows of strings, header first: what each method reaches and costs, and its gain over the student trained alone."""
    alone = next(row for row in rows if row.alone)
    table = [["method", "accuracy %", "x @1", "x @32", "int8 @1", "int8 @32", "layers", "params", "steps", "train s",
              "over alone", "95 % interval", "p"]]
    for row in rows:
        accuracy = mean_and_deviation([correct.mean() for correct in row.correct.values()], 100)
        cells = [times(speedup, size) for speedup in (row.speedup, row.int8_speedup) for size in SIZES]
        cells += [f"{row.layers:.3g}", count(row.parameters), f"{row.steps:,}" if row.steps else "", f"{row.seconds:.0f}"]
        comparison = None if row is alone else compared(row.correct, alone.correct)
        table.append([row.title, accuracy, *cells, *difference_cells(comparison)])
    return table


def times(speedup, size):
    """A speed-up as a cell; empty if it was not timed."""
    return f"{speedup[size]:.2f}" if speedup else ""


def overview_table(comparisons):
    """Rows of strings, header first: a method each, and of each `Comparison` its accuracy, its gain over alone, how fast it is.

    A model that stops early stands at the speed at which it comes nearest to the student trained alone for one text.
    """
    header, grounds = ["method"], []
    for comparison in comparisons:
        header += [f"{comparison.title}: %", "over alone", "x @1", "int8 @1"]
        by_method = {}
        for row in comparison.rows:
            by_method.setdefault(row.method, row)
        grounds.append({name: _overview_cells(row, comparison.alone) for name, row in by_method.items()})
    order = [title for method in METHODS.values() for title in method.compared.values()]
    names = {name: name.split(SIZE)[0] for ground in grounds for name in ground}
    names = sorted(names, key=lambda name: order.index(names[name]) if names[name] in order else -1)  # the teacher first
    return [header, *([name, *(cell for ground in grounds for cell in ground.get(name, [""] * 4))] for name in names)]


def _overview_cells(row, alone):
    """What `overview_table` says of a Row on one ground. alone: that of the student trained alone"""
    difference, interval, _ = difference_cells(None if row is alone else compared(row.correct, alone.correct))
    gain = f"{difference} ({interval})" if difference else ""
    accuracy = mean_and_deviation([correct.mean() for correct in row.correct.values()], 100)
    return [accuracy, gain, times(row.speedup, "1"), times(row.int8_speedup, "1")]


def pairs_table(rows):
    """Rows of strings, header first: every method against every other, but for teacher and student trained alone."""
    others = [row for row in rows[1:] if not row.alone]
    return [["A - B", "points", "95 % interval", "p"]] + [
        [f"{a.title} - {b.title}", *difference_cells(compared(a.correct, b.correct))] for b, a in combinations(others, 2)
    ]


def plot_comparison(path, comparisons):
    """Accuracy against the speed-up by the clock, each method with the 95 % interval of its accuracy; a `Comparison` a row.

    path: of the PNG
    """
    styles = dict.fromkeys(row.method for comparison in comparisons for row in comparison.rows)  # alike on all grounds
    styles = {method: (MARKERS[number % len(MARKERS)], f"C{number}") for number, method in enumerate(styles)}
    labelled = {}
    with figure(path, 10, 0.8 + 3.6 * len(comparisons)) as drawn:
        grid = drawn.subplots(len(comparisons), 2, squeeze=False)
        for comparison, panels in zip(comparisons, grid, strict=True):
            for panel, size in zip(panels, SIZES, strict=True):
                labelled |= _plot_ground(panel, comparison, size, styles)
                panel.set(xlabel=f"times as fast as the teacher, {'one text' if size == '1' else '32 together'}")
                panel.sharey(panels[0])
            panels[0].set(ylabel=f"{comparison.title}: test accuracy, %")
        drawn.legend(
            labelled.values(), labelled, loc="outside right upper", title_fontsize=8,
            title="bars: 95 % interval\nmodels of one size are equally\nfast: they are drawn side by side",
        )


def _plot_ground(panel, comparison, size, styles):
    """Draw one `Comparison` for one size of batches. Returns {what is in the legend: what was drawn}.

    styles: {method: (marker, color)}
    """
    labelled = {}
    for results in comparison.runs.values():
        for name, title in method_of(results).compared.items():
            records = [record for record in results["models"] if record["name"] == name]
            if records and "exits" in records[0] and f"{title}, all speeds" not in labelled:
                accuracy = np.mean([[point["accuracy"] for point in record["exits"]] for record in records], axis=0)
                labelled[f"{title}, all speeds"], = panel.plot(
                    exit_speedups(records)[size], 100 * accuracy, color=styles[title][1], lw=1)
    for row in comparison.rows:
        accuracy, (marker, color) = 100 * np.mean([correct.mean() for correct in row.correct.values()]), styles[row.method]
        if not row.layers:  # of a linear model the accuracy alone is in question: a line
            labelled[row.method] = panel.axhline(accuracy, color=color, linestyle=":")
            continue
        alike = [other for other in comparison.rows if (other.layers, other.parameters) == (row.layers, row.parameters)]
        places = np.linspace(-0.5, 0.5, len(alike)) if len(alike) > 1 else [0]
        x = row.speedup[size] * (1 + ASIDE * places[alike.index(row)])
        labelled[row.method] = panel.errorbar(x, accuracy, half_width(row.correct), fmt=marker, color=color, capsize=3)
    panel.set(xscale="log")
    lowest, highest = panel.get_xlim()
    ticks = [tick for tick in TICKS if lowest <= tick <= highest]
    panel.set_xticks(ticks, map(str, ticks))
    panel.minorticks_off()
    return labelled


def half_width(correct):
    """Half of the 95 % interval of a model's mean accuracy, in points: seeds and test examples both count as chance."""
    values = np.stack([*correct.values()])
    comparison = compare(values, np.zeros_like(values))
    return 100 * (comparison["ci95"][1] - comparison["difference"])
