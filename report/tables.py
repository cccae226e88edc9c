"""Tables as rows of strings, the header first, and the two ways to show them: aligned, and in Markdown."""

import re

import numpy as np
from matplotlib.ticker import EngFormatter

from common import visible

WORTHWHILE = 1.1  # times as fast as the teacher; less is hardly worth a second way to ask
MEASURES = {"macro_f1": "macro-F1 %", "ece": "ECE %"}  # that may stand beside accuracy
_MARKUP = re.compile(  # where CommonMark, or GitHub's tables and strikethrough, would take it for markup
    r"\\(?=[!-/:-@\[-`{-~]|$)|[`|]|\*(?=\S)|(?<=\S)\*|(?<![^\W_])_|_(?![^\W_])|~(?=~)|(?<=~)~"
    r"|<(?=[A-Za-z/!?])|&(?=#?\w+;)|(?<=\])[(\[:]|^#+(?=\s|$)|^[>\[]|^[*+-](?=\s)"
)

count = EngFormatter(places=2)  # 22570000 -> "22.57 M"


def by_name(records):
    """[(name, its records over the seeds)], in the order of first appearance."""
    groups = {}
    for record in records:
        groups.setdefault(record["name"], []).append(record)
    return [*groups.items()]


def mean_and_deviation(values, scale=1.0, decimals=2):
    """The mean as text, and with several values ± their standard deviation.

    values: floats, one per seed
    scale: what they are multiplied by; 100 makes fractions per cent
    decimals: places after the point
    """
    values = np.asarray(values) * scale
    mean = f"{values.mean():.{decimals}f}"
    return mean if len(values) == 1 else f"{mean} ± {values.std(ddof=1):.{decimals}f}"


def models_table(records, measure="macro_f1"):
    """What each model is, costs and reaches, over the seeds.

    records: of finished stages, with their cost
    measure: one of MEASURES, which stands beside accuracy
    """
    timed = {"latency_ms": "ms"} | ({"int8_latency_ms": "int8"} if any("int8_latency_ms" in each for each in records) else {})
    times = [f"{word} @{size}" for word in timed.values() for size in ("1", "32")]
    rows = [["model", "layers", "params", "FLOPs", *times, "accuracy %", MEASURES[measure], "train s"]]
    for name, group in by_name(records):
        layers, flops, seconds = (np.mean([record[key] for record in group]) for key in ("layers", "flops", "train_seconds"))
        latencies = [mean_latency(group, key, size) for key in timed for size in ("1", "32")]
        reached = (mean_and_deviation([record[key] for record in group], 100) for key in ("accuracy", measure))
        rows.append([
            name, f"{layers:.3g}", count(group[0]["parameters"]), count(flops), *latencies, *reached, f"{seconds:.0f}",
        ])
    return rows


def mean_latency(group, key, size):
    """The mean of the records' milliseconds as a cell, empty for models that are not timed so.

    key: "latency_ms" or "int8_latency_ms"
    size: "1" or "32" together
    """
    return f"{np.mean([record[key][size] for record in group]):.3g}" if key in group[0] else ""


def comparisons_table(comparisons):
    """Differences A - B in points, with 95 % interval and p-value. comparisons: of `evaluation.compare`, with a and b."""
    rows = [["A - B", "points", "95 % interval", "p"]]
    return rows + [[f"{each['a']} - {each['b']}", *difference_cells(each)] for each in comparisons]


def difference_cells(comparison):
    """Points, interval and p-value of a comparison as cells; empty ones if it is None."""
    if comparison is None:
        return ["", "", ""]
    low, high = (100 * bound for bound in comparison["ci95"])
    p = "< 0.0001" if comparison["p_value"] < 0.0001 else f"{comparison['p_value']:.4f}"
    return [f"{100 * comparison['difference']:+.2f}", f"{low:+.2f} to {high:+.2f}", p]


def student_table(teacher, student, files, linear=None):
    """What the student costs and reaches, as trained and as its files, and the last of these as a share of the teacher.

    teacher: record of the teacher; None if it has not been here
    student: record of the student
    files: of the student, {"name", "bytes", "parameters", "accuracy", "latency_ms"} each
    linear: record of the linear model, if there is one, which stands above them
    """
    def named(role, record):
        name = f"{role}: {record['name']}" if record["name"] != role else role
        return {"bytes": 4 * record["parameters"]} | record | {"name": name}

    shown = [named("linear", linear)] if linear else []
    shown += [named("teacher", teacher)] if teacher else []
    shown += [named("student", student), *files]
    rows = [["model", "accuracy %", "MB", "params", "ms @1", "ms @32"]]
    for each in shown:
        rows.append([each["name"], f"{100 * each['accuracy']:.2f}", f"{each['bytes'] / 1e6:.3g}", count(each["parameters"]),
                     *(f"{each['latency_ms'][batch]:.3g}" for batch in ("1", "32"))])
    if teacher:
        last, whole = shown[-1], named("teacher", teacher)
        rows.append([f"{last['name']} against the teacher", f"{100 * (last['accuracy'] - whole['accuracy']):+.2f}",
                     f"{whole['bytes'] / last['bytes']:.1f} x smaller",
                     f"{whole['parameters'] / last['parameters']:.1f} x fewer",
                     *(f"{whole['latency_ms'][batch] / last['latency_ms'][batch]:.1f} x faster" for batch in ("1", "32"))])
    return rows


def aligned(rows):
    """Rows of strings as lines of text: first column left, the others right, a rule under the header."""
    rows = [[*map(visible, row)] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def as_markdown(text):
    """A text of others as Markdown that shows it as it is: what would be markup or HTML in it is escaped, and nothing else."""
    return _MARKUP.sub(r"\\\g<0>", visible(text))


def markdown(rows, cell=as_markdown):
    """The same rows as a Markdown table.

    rows: of strings, the header first
    cell: what makes Markdown of a cell; `str` if they are Markdown already
    """
    rule = ["---"] + ["---:"] * (len(rows[0]) - 1)
    head, *body = [[*map(cell, row)] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, rule, *body])
