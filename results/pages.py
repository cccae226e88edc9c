"""RESULTS.md, and the pages that it links to: among them `comparison.md` and each run's README.md. See `build`."""

import os
import re
from pathlib import Path

import numpy as np

from common import InputError
from common.files import write_text
from report.exits import branches_table, speeds_note, speeds_table
from report.tables import as_markdown, by_name, comparisons_table, difference_cells, markdown, models_table
from report.temperatures import recognition_table
from results.claims import claims_table
from results.comparison import methods_table, one_teacher, overview_table, pairs_table, plot_comparison
from results.grounds import MARGIN, grounds_table, tried_only
from results.kept import all_students, best_table, students_of
from results.methods import METHODS, method_of
from results.precision import precision_table
from results.settings import settings_table, variants
from results.stored import compared, correct_of, exit_at, read_all
from results.students import students_table

PARTS = "train", "unlabelled", "validation", "test"
REMARKS = {  # on data that is not what its name says: by the last part of its path
    "iflytek-partial": "**Part of the training set** of IFLYTEK (5,753 of 12,133 lines, rare classes over-represented); the "
    "test part is the complete dev part.",
    "cifar10_jpeg": "**JPEG-compressed copies** of CIFAR-10's images, so figures can differ a little from those of "
    "the originals.",
}
SECONDS = """Runs were trained beside other work, and each stage then still waited up to a minute for TensorFlow after its last
epoch, so `train s` is longer than it is now."""
COLUMNS = """FLOPs are of one example, a multiply-add counting as two; "ms @32" is the latency of 32 together, on a machine
that does nothing else; that of a linear model, from the text on, was taken when it was fitted, beside whatever else ran."""
IN_EACH = """"in each seed": the least and the largest difference in one seed; "largest p": of the McNemar tests of each seed
alone, where all have one sign."""
TAKEN = """The best seed's smallest file, in int8 where validation allowed it, beside its teacher in float32, both in
onnxruntime: how many times smaller and faster (one text, 32 together). Over all seeds, what the files cost on the test part in
points of accuracy: the one in float32, with fewer tokens, beside the model as it was trained, in the precision of the run; and
int8 beside float32."""
HEAD = """# Results

Built by `python -m results` from what stands in `results/`: the results.json of each run and what each benchmark printed. No
figure is typed but those that others report, which have a column of their own. Each run has a page with its command, its
tables and plots and, of most by hand, how its settings were found; `make results` does the runs that need no further data anew.

± is the standard deviation over seeds; intervals and p-values of several seeds count both the draw of the test examples and
the seeds of training as chance, those of one seed (McNemar; a sign test of branches) the examples only. Where seeds differ
much, three of them are wrong up to 8 % of the time where 5 % is said (simulated), five 6 %. Seeds also draw the
training and validation examples, from one pool, so that those of two seeds overlap; the test examples are the same for all."""
COMPARISON = """The teachers of the runs that are compared are one: in each of the seeds they answer every test text alike,
because they were trained alike to the last bit. So is what is trained alone in two scripts; it stands in the table once.

"x @1", "x @32": times as fast as this teacher by the clock, for one text and for 32 together, each timed beside it (but for
linear models: from the text on, when they were fitted, the mean over seeds); "int8 @1", "int8 @32": the same of the model in
int8, beside the teacher in float32. The shallow models of different scripts are alike in
shape: where their speeds differ, so much do two timings of the same. A FastBERT stands at the speeds at which it comes nearest
to the x @1 and x @32 of the student trained alone, which the clock alone decides.

"steps": batches that a model was trained with (a FastBERT's are its branches', which are all that it trains beside the
teacher). "train s" is the least of the seeds', since other work held up some; a FastBERT's includes its teacher, which it
keeps, the others' teacher comes on top.

"over alone": points of accuracy above the student trained alone. Of two runs with one method and size
the first by name counts."""
OVERVIEW = """On each data set all models have one and the same teacher. "over alone": points above the student trained alone,
and their 95 % interval; "x @1": times as fast as the teacher for one text, both in float32; "int8 @1": in int8, beside it. What
stops early is at the speed at which it is as fast as that student, as nearly as may be. †: see below."""
GROUNDS = f"""The teacher beside `linear`, TF-IDF and a linear support vector machine, on the same texts, of which that reads
all and the BERT so many tokens. A claim is tested where the teacher is at least {MARGIN} points above it. Elsewhere, marked †
below, the BERT has not learned enough or the task needs none: figures say that the programs run, not which method is better."""
KEPT = """On each ground, of the students at least so many times as fast as their teacher for one text, the one with the best
accuracy on validation texts, of those of the most seeds that have the same ones. Each beside the teacher of its run."""
EACH = """"of the teacher's": its accuracy as a share of the teacher's; "less the teacher", "over linear": the difference in
points; "x @1", "x @32": times as fast as the teacher, both in float32 in onnxruntime, for one text and for 32 together; of a
linear model, which scikit-learn asks, from the text on, when it was fitted."""
SETTINGS = """A run beside one that is named after it and differs from it in one setting."""
PRECISION = """The same run in float32 and in a narrow precision."""
CLAIMED = """"holds": the whole interval, of this row by itself, is above 0; "open": 0 is in it, so neither the claim nor its
reverse is borne out by these runs. With one seed, what is said is said of two models, not two ways to train. Two rows differ in
all that their methods do: what learns layers, logits or branches, or texts without labels, has more texts and steps, and may
start from other layers. A run named after another is shown where it finds otherwise. Models that stop early are compared by
the mean accuracy of their branches."""


def build(store, path):
    """Write `path` (RESULTS.md), and into `store` the pages that it links to, the plot, and a README.md for each run.

    store: a folder of runs/NAME/ (as `take_in` fills them, and notes.md: what was tried) and benchmarks/NAME.txt (what one
        printed; its first line is its command)
    path: of the file

    Raises InputError if there is no run.
    """
    runs = read_all(store)
    if not runs:
        raise InputError(f"{store}: no results there yet; name the folders of finished runs")
    varied = {other: name for name, other, _ in variants(runs)}  # what their one setting is worth is all that is said of them
    every, runs = runs, {name: results for name, results in runs.items() if name not in varied}
    blocks = [HEAD]
    if comparisons := one_teacher(runs, tried_only(runs)):
        page, plot = store / "comparison.md", store / "comparison.png"
        plot_comparison(plot, comparisons)
        blocks += [
            "## One teacher, all methods",
            f"{OVERVIEW}\n[More columns, and every method against every other]({_link(path, page)})",
            *map(compared_runs, comparisons), *(line for comparison in comparisons for line in remarks(comparison.runs)),
            markdown(overview_table(comparisons)), f"![accuracy against speed]({_link(path, plot)})",
        ]
        more = f"More on the table in [RESULTS.md]({_link(page, path)})."
        _write(page, ["# One teacher, all methods", more, COMPARISON, *(block for comparison in comparisons for block in (
            f"## {comparison.title}", *([SECONDS] if any(map(waited, comparison.runs.values())) else []),
            markdown(methods_table(comparison.rows)), markdown(pairs_table(comparison.rows)),
        ))])
    blocks += _titled(grounds_table(runs), "## Is the ground worth standing on?", GROUNDS)
    if grounds := all_students(runs):
        page = store / "students.md"
        kept = f"{KEPT}\n[All students]({_link(path, page)})"
        blocks += _titled(best_table(grounds), "## What the best students keep", kept)
        tables = [block for data, table in students_of(grounds) for block in (f"## {data}", markdown(table))]
        each = f"Of the runs in [RESULTS.md]({_link(page, path)}).\n{EACH}"
        _write(page, ["# What students keep of their teachers", each, *tables])
    claims = claims_table(every, tried_only(every), varied)
    if len(claims) > 1:
        blocks += ["## What is claimed, and what was found", CLAIMED, *remarks(runs), markdown(claims)]
    if taken := _titled(students_table(runs), TAKEN):
        page = store / "taken.md"
        blocks += [f"[The student to take away: how small and fast it is, and what that costs]({_link(path, page)})"]
        _write(page, ["# The student to take away", f"Of the runs in [RESULTS.md]({_link(page, path)}).", *taken])
    if more := _titled(settings_table(every), SETTINGS) + _titled(precision_table(every), PRECISION):
        page = store / "settings.md"
        blocks += [f"[What one setting is worth, and what a narrow precision costs]({_link(path, page)})"]
        _write(page, ["# What settings are worth", f"Of the runs in [RESULTS.md]({_link(page, path)}).", *more])
    index = store / "runs" / "README.md"
    blocks += [f"[The pages of all runs, by script]({_link(path, index)})"]
    of_scripts = []
    for script, method in METHODS.items():
        names = [name for name in every if every[name]["script"] == script]
        links = [f"- [{name}]({name}/README.md): {examples_and_seeds(every[name])}" for name in names]
        of_scripts += [f"## {method.title}", f"`{script}.py`", "\n".join(links)] if names else []
        for name in names:
            page = index.parent / name / "README.md"
            _write(page, run_page(name, every[name], page.parent, _link(page, path)))
    _write(index, ["# Runs", f"What [RESULTS.md]({_link(index, path)}) is built from.", *of_scripts])
    ratios, others = benchmark_blocks(path, sorted(store.glob("benchmarks/*.txt")))
    if ratios:
        page = store / "benchmarks" / "README.md"
        others = [f"[How many times faster than the plain way this code works]({_link(path, page)})", *others]
        _write(page, ["# Benchmarks", f"Beside [RESULTS.md]({_link(page, path)}).", *ratios])
    _write(path, [*blocks, *(["## Benchmarks"] if others else []), *others])


def benchmark_blocks(path, files):
    """What benchmarks printed: (blocks of the ratios, one table on the page beside them; blocks of the others).

    Of the others a single table is shown as it is; to several there is a link.

    path: of the page of the others
    files: Paths, of which each has its command in the first line, and then tables
    """
    rows, others = [["benchmark", "the plain way, s", "this way, s", "times as fast", "all of it"]], []
    for file in files:
        command, _, printed = file.read_text(encoding="utf-8").partition("\n")
        first, *more = printed.strip().split("\n\n")
        header, *lines = first.splitlines()
        if re.split("  +", header) == rows[0][:-1]:
            link = f"[{file.stem}]({file.name})"
            rows += [[*re.split("  +", line.strip()), link] for line in lines[1:]]
            continue
        command = f"`{command.removeprefix('$ ')}`"
        others += [f"{command} ([output]({_link(path, file)}))"] if more else [command, f"```\n{first}\n```"]
    if len(rows) == 1:
        return [], others
    command = "`python -m tests.benchmarks [NAME …]`, medians of one run on a quiet machine, which the linked files name."
    return [command, markdown(rows, str)], others


def _link(page, target):
    return Path(os.path.relpath(target, page.parent)).as_posix()


def _write(path, blocks):
    write_text(path, "\n\n".join(blocks) + "\n")


def _titled(table, *title):
    """Blocks of a table under a title; none if it has no rows."""
    return [*title, markdown(table)] if len(table) > 1 else []


def compared_runs(comparison):
    """What a `Comparison` is of, in a line."""
    teacher, alone = comparison.rows[0], comparison.alone
    data, seeds = next(iter(comparison.runs.values()))["data"], ", ".join(map(str, teacher.correct))
    return (f"{comparison.title}: {teacher.layers:g} layers, {alone.layers:g} alone; {data['train']:,} labelled texts, "
            f"{data['test']:,} test texts, seeds {seeds}; {', '.join(f'`{name}`' for name in comparison.runs)}.")


def remarks(runs):
    """A line for each of `REMARKS` that the data of these runs need."""
    lines = []
    for data, text in REMARKS.items():
        names = [f"`{name}`" for name, results in runs.items() if Path(results["data"]["name"]).name == data]
        lines += [f"{', '.join(names)}: {text}"] if names else []
    return lines


# A run -----------------------------------------------------------------------------------------------------------------


def run_page(name, results, folder, overview):
    """Blocks of a run's README.md: what it was, its tables and plots, what others report, and its notes.

    name: of the run
    results: its results.json
    folder: which holds its plots and notes
    overview: RESULTS.md, as this page links to it
    """
    data, settings, method, records = results["data"], results["settings"], method_of(results), results["models"]
    table = models_table(records, "ece" if "ece" in records[0] else "macro_f1")
    figures, source = method.published.accuracy, []
    if figures.keys() & {row[0] for row in table}:
        table = [[*row, figures.get(row[0], "") if number else "reported %"] for number, row in enumerate(table)]
        source = [f"\"reported %\": {method.published.source}"]
    deployed = any("int8_latency_ms" in record for record in records)
    environment = [value if key == "machine" else f"{key} {value}" for key, value in results["environment"].items()]
    blocks = [
        f"# {name}",
        f"{method.title}, `{results['script']}.py`; one of the runs of [RESULTS.md]({overview}), which says what ± and the "
        "intervals are.",
        f"    {results['command']}",
        f"{examples_and_seeds(results)}; {data['classes']} classes, epochs chosen on the {data['chosen_on']} part, timed in "
        f"{'onnxruntime' if deployed else 'TensorFlow, in float32'}; {', '.join(environment)}. Training took "
        f"{training_seconds(results) / 3600:.1f} h in all.",
        *remarks({name: results}), markdown(table), f"{COLUMNS} {SECONDS}" if waited(results) else COLUMNS, *source,
        *_titled(differences_table(results)), *([IN_EACH] if len(settings["seeds"]) > 1 and results["comparisons"] else []),
    ]
    stopping = [record for record in records if "exits" in record]
    for row, group in by_name(stopping):
        chosen = ", ".join(f"{record['speed']:g}" for record in group)
        part = "calibration texts" if settings.get("max_disagreement") else "validation"
        blocks += [f"`{row}` at each speed; chosen on {part}: {chosen}.", markdown(speeds_table(group))]
    if stopping:
        blocks += [speeds_note(stopping), "Each branch by itself:"]
        blocks += [markdown(branches_table(stopping))]
        first, group = by_name(stopping)[0]
        curve, others = group[0]["exits"], method.published
        blocks += _titled(
            published_speeds(group, others.speeds) if curve[0]["speed"] == 0 else [],  # at 0 the teacher answers
            f"Beside the figures of {others.source}: accuracy of `{first}` less its teacher's, and FLOPs speed-up, which "
            f"cannot be above {max(point['flops_speedup'] for point in curve):.3g} here.",
        )
    blocks += _titled(comparisons_table(results.get("branch_comparisons", [])), "Mean accuracy of the branches:")
    blocks += _titled(
        recognition_table(results.get("omit_class", [])), f"Class {settings.get('omit_class')}, left out of what students "
        "`-without-` see, its bias then raised by what is best on validation:",
    )
    blocks += [f"![{plot}]({plot}.png)" for plot in method.plots if (folder / f"{plot}.png").is_file()]
    if data["notes"]:
        blocks += ["Said of the data:", "\n".join(f"- {as_markdown(note)}" for note in data["notes"])]
    notes = folder / "notes.md"
    return blocks + (["## Tried", notes.read_text(encoding="utf-8").strip()] if notes.is_file() else [])


def waited(results):
    """Whether training waited for TensorFlow at the end of each stage: it did in runs older than onnxruntime here."""
    return "onnxruntime" not in results["environment"]


def differences_table(results):
    """The comparisons of a run, and where it has several seeds each alone: the least and the largest difference, the largest p.

    Rows of strings, header first. Each alone: the exact McNemar test of `evaluation.compare`; no p where signs differ.
    """
    table = comparisons_table(results["comparisons"])
    if len(results["settings"]["seeds"]) == 1:
        return table
    table[0] += ["in each seed", "largest p"]
    for row, each in zip(table[1:], results["comparisons"], strict=True):
        a, b = (correct_of(results, each[model]) for model in ("a", "b"))
        alone = [compared({seed: a[seed]}, {seed: b[seed]}) for seed in each["seeds"]]
        low, high = (100 * pick(comparison["difference"] for comparison in alone) for pick in (min, max))
        largest = max(alone, key=lambda comparison: comparison["p_value"])
        row += [f"{low:+.2f} to {high:+.2f}", difference_cells(largest)[2] if low * high > 0 else ""]
    return table


def examples_and_seeds(results):
    """What a run had, in a line: data, examples, seeds, and a narrow precision."""
    precision, data, seeds = results["settings"]["precision"], results["data"], len(results["settings"]["seeds"])
    counts = [f"{data[part]:,} {'training' if part == 'train' else part}" for part in PARTS if data[part]]
    seeds = "one seed" if seeds == 1 else f"{seeds} seeds"
    return ", ".join([Path(data["name"]).name, *counts, seeds, *([precision] if precision != "float32" else [])])


def training_seconds(results):
    """Of all models together; a teacher counts once, though others' records may include its time."""
    method, records = method_of(results), results["models"]
    teacher = {record["seed"]: record["train_seconds"] for record in records if record["name"] == method.teacher}
    again = sum(teacher[record["seed"]] for record in records if record["name"] in method.teacher_in_seconds)
    return sum(record["train_seconds"] for record in records) - again


def published_speeds(group, published):
    """Rows of strings, header first: points less those of the teacher and speed-up, at the speeds that both have.

    group: records of a model that stops early, over the seeds; its first speed is the teacher's accuracy
    published: {data: {speed: (points, speed-up)}} of others
    """
    table = [["speed", "here", *published]]
    for speed in next(iter(published.values()), ()):
        if all(speed in [point["speed"] for point in record["exits"]] for record in group):
            points = [exit_at(record, speed) for record in group]
            teachers = [record["exits"][0]["accuracy"] for record in group]
            gain = 100 * (np.mean([point["accuracy"] for point in points]) - np.mean(teachers))
            figures = [(gain, np.mean([point["flops_speedup"] for point in points]))]
            figures += [of_speed[speed] for of_speed in published.values()]
            table.append([f"{speed:g}", *(f"{gain:+.2f}, {times:.3g} x" for gain, times in figures)])
    return table
