"""RESULTS.md: the results.json of many runs side by side, with what the originals and the papers report. See `build`.

Every figure comes from a results.json, from what a benchmark printed, or, where it is another's, from `common.published`
with its source. Nothing is trained or measured here.
"""

import json
import shutil
from itertools import combinations, permutations
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from common import InputError, exits, report
from common.evaluation import compare
from common.files import write_json, write_text
from common.published import CLAIMS, FASTBERT, PUBLISHED

REMARKS = {  # on data that is not what its name says: by the last part of its path
    "iflytek-partial": "**Part of the training set** of IFLYTEK (5,753 of 12,133 lines, rare classes over-represented); the "
    "test part is the complete dev part.",
    "cifar10_jpeg": "**JPEG-compressed copies** of CIFAR-10's images, so figures can differ a little from those of "
    "the originals.",
}
SCRIPTS = {
    "knowledge_distillation_from_scratch": "Distillation from scratch, on images",
    "knowledge_distillation_bert": "A BERT's soft labels",
    "knowledge_distillation_bert_of_theseus": "BERT-of-Theseus",
    "knowledge_distillation_fastbert": "FastBERT",
}

# Reading ---------------------------------------------------------------------------------------------------------------


PLOTS = ("temperature", "sweeps", "replacing", "exits")  # of a run, that RESULTS.md shows; the others are in its folder


def take_in(folders, store):
    """Copy results.json and plots of each run folder to `store`/NAME.json and NAME-PLOT.png, NAME being the folder's.

    Raises InputError if there is none, or it is not what the scripts write now.
    """
    for folder in folders:
        if not (folder / "results.json").is_file():
            raise InputError(f"{folder}: there is no results.json; a run has it when it is finished")
        found = read(folder / "results.json")
        found["settings"]["output"] = ""
        name = folder.resolve().name
        write_json(store / f"{name}.json", found)
        for plot in PLOTS:
            (store / f"{name}-{plot}.png").unlink(missing_ok=True)
            if (folder / f"{plot}.png").is_file():
                shutil.copyfile(folder / f"{plot}.png", store / f"{name}-{plot}.png")


def read(path):
    """A results.json. Raises InputError if it is not what the scripts write now."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        known = found["script"] in SCRIPTS and found["command"] and found["models"][0]["correct"]
    except (ValueError, KeyError, TypeError, IndexError):
        known = False
    if not known:
        raise InputError(f"{path}: not the results of one of the scripts, or of an older one; start the run again")
    return found


def stored(store):
    """{name: results} of all that were taken in, by script and name."""
    found = {path.stem: read(path) for path in store.glob("*.json")}
    return dict(sorted(found.items(), key=lambda item: ([*SCRIPTS].index(item[1]["script"]), item[0])))


def correct_of(results, name, speed=None):
    """Which test examples a model got right: {seed: (examples,) bool}; a FastBERT's at `speed`, if one is given."""
    found = {}
    for model in results["models"]:
        if model["name"] == name:
            told = model if speed is None else next(row for row in model["exits"] if row["speed"] == speed)
            found[model["seed"]] = report.unpacked(told["correct"], results["data"]["test"])
    return found


def compared(a, b):
    """`compare` of two models over the seeds that both have, as a record; None if there is none."""
    seeds = sorted(a.keys() & b.keys())
    if not seeds:
        return None
    return compare(np.stack([a[s] for s in seeds]), np.stack([b[s] for s in seeds])) | {"seeds": seeds}


# One teacher, many methods ---------------------------------------------------------------------------------------------

TEACHERS = ("teacher", "predecessor")
ALONE = "trained alone"
METHODS = {  # rows of the comparison: {model: what it is called there}
    "alone": ALONE, "distilled": "soft labels", "distilled-unlabelled": "soft labels, unlabelled texts too",
    "successor": f"{ALONE}, as a successor", "unmixed": "started from the teacher", "theseus": "theseus",
    "theseus-additive": "theseus, additive", "theseus-random": "theseus, random",
    "theseus-random-linear": "theseus, random, linear",
}


def one_teacher(runs):
    """The scripts' runs whose teachers answer every test example alike in every common seed: {name: results}, one a script."""

    def teacher(results):
        return next(correct_of(results, name) for name in TEACHERS if correct_of(results, name))

    def alike(one, other):
        if one["data"]["test_fingerprint"] != other["data"]["test_fingerprint"]:
            return False
        a, b = teacher(one), teacher(other)  # {seed: right or wrong}
        return bool(a.keys() & b.keys()) and all(np.array_equal(a[seed], b[seed]) for seed in a.keys() & b.keys())

    groups = {}
    for name, results in runs.items():
        first = next((key for key, group in groups.items() if alike(group[key], results)), name)
        groups.setdefault(first, {})[name] = results
    found = [{results["script"]: (name, results) for name, results in reversed(group.items())} for group in groups.values()]
    return dict(sorted(max(found, key=len, default={}).values(), key=lambda item: [*runs].index(item[0])))


def methods_of(group):
    """Rows of the comparison, of the seeds that all runs have: dicts with what `_row` puts into one.

    speedup: {"1", "32"}: times as fast as the teacher that was timed beside it. A FastBERT is at the speeds at which it comes
    nearest to the shallow student's speedup, for one text and in batches; the clock alone chooses.
    """
    seeds = set.intersection(*({model["seed"] for model in results["models"]} for results in group.values()))
    if not seeds:
        return []
    group = {
        name: results | {"models": [model for model in results["models"] if model["seed"] in seeds]}
        for name, results in group.items()
    }
    rows, fast = [], []
    for results in group.values():
        deep = next(m for m in results["models"] if m["name"] in TEACHERS)
        if not rows:
            rows.append(_row("teacher", results, deep["name"], dict.fromkeys(("1", "32"), 1.0)))
        for name, models in report.by_name(results["models"]):
            if name in METHODS and not any(same_answers(row, name, results) for row in rows):
                speedup = {size: deep["latency_ms"][size] / models[0]["latency_ms"][size] for size in ("1", "32")}
                rows.append(_row(METHODS[name], results, name, speedup))
            elif "exits" in models[0]:
                fast.append((results, name, models))
    shallow = {size: np.mean([row["speedup"][size] for row in rows[1:]] or [1.0]) for size in ("1", "32")}
    for results, name, models in fast:
        wall = exit_speedups(models)
        nearest = {int(np.abs(np.log(wall[size] / shallow[size])).argmin()) for size in shallow}
        for place in sorted(nearest):
            speed = models[0]["exits"][place]["speed"]
            speedup = {size: wall[size][place] for size in wall}
            rows.append(_row(f"{name}, speed {speed:g}", results, name, speedup, speed))
    return rows


def same_answers(row, name, results):
    """Whether a model of another script is a row already: trained alike, it is right and wrong about the same examples."""
    correct = correct_of(results, name)
    return all(np.array_equal(row["correct"][seed], correct[seed]) for seed in row["correct"])


def exit_speedups(models):
    """{"1", "32": (speeds,)}: times as fast as the teacher by the clock, the mean over a FastBERT's seeds."""
    return {size: np.mean([[e["wall_speedup"][size] for e in m["exits"]] for m in models], axis=0) for size in ("1", "32")}


def _row(title, results, name, speedup, speed=None):
    models = [model for model in results["models"] if model["name"] == name]
    layers = [m["layers"] if speed is None else _exit(m, speed)["mean_layers"] for m in models]
    return {
        "title": title, "speed": speed, "correct": correct_of(results, name, speed), "speedup": speedup,
        "layers": np.mean(layers), "parameters": models[0]["parameters"], "epochs": models[0]["epochs"],
        "texts": texts_of(name, results["data"]),
        "seconds": min(m["train_seconds"] for m in models),
    }


def texts_of(name, counts):
    """How many texts a method learns from: a student named so and branches also learn from those without labels."""
    also = name.endswith("-unlabelled") or (name.startswith("fastbert") and not name.endswith(("-labels-only", "-joint")))
    return counts["train"] + also * counts["unlabelled"]


def _exit(model, speed):
    return next(row for row in model["exits"] if row["speed"] == speed)


def comparison(group, rows):
    """The lines of the comparison's section. rows: what `methods_of` the group says."""
    teacher, alone = rows[0], next(row for row in rows if row["title"].startswith(ALONE))
    header = "method, accuracy %, x @1, x @32, layers, params, epochs x texts, train s, less alone, interval, p"
    table = [header.split(", ")]
    for row in rows:
        accuracy = report.spread([correct.mean() for correct in row["correct"].values()], 100)
        cells = [f"{row['speedup'][size]:.2f}" for size in ("1", "32")]
        cells += [f"{row['layers']:.3g}", report.count(row["parameters"])]
        cells += [f"{row['epochs']} x {row['texts']:,}", f"{row['seconds']:.0f}"]
        found = None if row is alone else compared(row["correct"], alone["correct"])
        table.append([row["title"], accuracy, *cells, *_difference(found)])
    pairs = [["A - B", "points", "95 % interval", "p"]]
    for b, a in combinations(rows[2:], 2):
        found = compared(a["correct"], b["correct"])
        pairs += [[f"{a['title']} - {b['title']}", *_difference(found)]] if found else []
    first = next(iter(group.values()))
    seeds = sorted(teacher["correct"])
    return [
        "## One teacher, all methods",
        f"{first['data']['name']}, {first['data']['train']:,} labelled training texts, {first['data']['test']:,} test texts; "
        f"the runs {', '.join(f'`{name}`' for name in group)} below. Their teachers are one: in each of the seeds "
        f"{', '.join(map(str, seeds))} they answer every test text alike, because they were trained alike to the last bit. So "
        "is what is trained alone in two scripts; it stands here once.",
        "\"x @1\", \"x @32\": times as fast as this teacher by the clock, for one text and for 32 together, each timed beside "
        "it. \"epochs x texts\": passes over so many texts, those without labels counted where a method learns from them (a "
        "FastBERT's are its branches', which are all that it trains beside the teacher); \"train s\" is the least "
        "of the seeds', since other work held up some; a FastBERT's includes its teacher, which it keeps, the others' teacher "
        "comes on top. A FastBERT stands at the speeds at which it comes nearest "
        "to the shallow models' x @1 and x @32, which the clock alone decides. \"less alone\": points of accuracy above the "
        "student trained alone, with their 95 % interval.",
        report.markdown(table),
        "![accuracy against speed](results/comparison.png)",
        "Every method against every other:",
        report.markdown(pairs),
    ]


def _difference(found):
    """Points, interval and p of a comparison as cells; empty ones without it."""
    return report.comparisons_table([found | {"a": "", "b": ""}])[1][1:] if found else ["", "", ""]


def plot_comparison(path, group, rows):
    """Accuracy against the speed-up by the clock, each method with the 95 % interval of its accuracy."""
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    named = [pair for results in group.values() for pair in report.by_name(results["models"])]
    curves = [(name, models) for name, models in named if "exits" in models[0]]
    shallow = sum(row["speed"] is None for row in rows[1:])  # as fast as each other: drawn side by side
    for panel, size in zip(panels, ("1", "32"), strict=True):
        for name, models in curves:
            accuracy = 100 * np.mean([[row["accuracy"] for row in model["exits"]] for model in models], axis=0)
            panel.plot(exit_speedups(models)[size], accuracy, color="black", lw=1, label=f"{name}, all speeds")
        for number, (row, marker) in enumerate(zip(rows, report.MARKERS * 2, strict=False)):
            values = 100 * np.array([correct.mean() for correct in row["correct"].values()])
            margin = half_width(row["correct"])
            x = row["speedup"][size] * (1 + 0.035 * (number - (shallow + 1) / 2) * (0 < number <= shallow))
            color = "black" if row["speed"] is not None else f"C{number}"
            panel.errorbar(x, values.mean(), margin, fmt=marker, color=color, capsize=3, label=row["title"])
        panel.set(xlabel=f"times as fast as the teacher, {'one text' if size == '1' else '32 together'}", xscale="log")
        panel.set_xticks([1, 1.5, 2, 3, 4, 5], ["1", "1.5", "2", "3", "4", "5"])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    panels[0].set(ylabel="test accuracy, % (bars: 95 % interval)")
    figure.legend(
        *panels[1].get_legend_handles_labels(), fontsize=8, loc="outside right upper", title_fontsize=8,
        title="shallow models are equally fast:\nthey are drawn side by side",
    )
    report.save_figure(figure, path)


def half_width(correct):
    """Half of the 95 % interval of a model's mean accuracy, in points: seeds and test examples both count as chance."""
    values = np.stack([*correct.values()])
    found = compare(values, np.zeros_like(values))
    return 100 * (found["ci95"][1] - found["difference"])


# What is claimed -------------------------------------------------------------------------------------------------------


def claims_table(runs):
    """Rows of strings, header first: each claim held against each run that has both of its models."""
    rows = [["claim", "of", "reported", "run", "seeds", "A - B", "points", "95 % interval", "p", "here"]]
    who = what = ""
    for source, claim, a, b, reported in CLAIMS:
        who, what = source or who, claim or what
        for name, results in runs.items():
            found = compared(correct_of(results, a), correct_of(results, b))
            if a.startswith("fastbert") and b.startswith("fastbert"):  # at the speed chosen they differ in cost, too
                pairs = {(c["a"], c["b"]): c for c in results.get("branch_comparisons", ())}
                found = pairs.get((a, b)) or reversed_(pairs.get((b, a)))
            if found:
                seeds = str(len(found["seeds"]))
                rows.append([what, who, reported, name, seeds, f"{a} - {b}", *_difference(found), verdict(found)])
    return rows


def reversed_(found):
    """B - A of a comparison A - B."""
    return found and {
        "difference": -found["difference"], "ci95": [-bound for bound in found["ci95"][::-1]], "p_value": found["p_value"],
        "seeds": found["seeds"],
    }


def verdict(found):
    """In a word whether A is better than B."""
    low, high = found["ci95"]
    word = "holds" if low > 0 else "does not hold: the reverse does" if high < 0 else "open"
    return word if len(found["seeds"]) > 1 or word == "open" else f"{word}, of these two models"


# The same in another precision -----------------------------------------------------------------------------------------

FREE = {"precision", "seeds", "experiments", "output", "download", "strategy", "export"}  # settings that may differ


def precision_table(runs):
    """Rows of strings, header first: models of runs that differ in nothing but precision, seed by seed against each other."""
    rows = [["run in float32", "and in", "model", "seeds", "float32 %", "narrow %", "float32 - narrow", "95 % interval", "p"]]
    for (wide_name, wide), (_, narrow) in permutations(runs.items(), 2):
        one, other = (
            {key: value for key, value in results["settings"].items() if key not in FREE}
            | {"script": results["script"], "test part": results["data"]["test_fingerprint"]}
            for results in (wide, narrow)
        )
        precision = narrow["settings"]["precision"]
        if one != other or not wide["settings"]["precision"] == "float32" != precision:
            continue
        for name in dict.fromkeys(model["name"] for model in wide["models"] if "exits" not in model):  # whose speeds differ
            a, b = correct_of(wide, name), correct_of(narrow, name)
            if found := compared(a, b):
                means = [report.spread([correct[seed].mean() for seed in found["seeds"]], 100) for correct in (a, b)]
                seeds = " ".join(map(str, found["seeds"]))
                rows.append([wide_name, precision, name, seeds, *means, *_difference(found)])
    return rows


# A run -----------------------------------------------------------------------------------------------------------------


def section(name, results):
    """The lines on one run: what it was, its tables, and what others report."""
    data, settings, models = results["data"], results["settings"], results["models"]
    words = {"train": "training", "unlabelled": "unlabelled", "validation": "validation", "test": "test"}
    counts = [f"{data[part]:,} {word}" for part, word in words.items() if data[part]]
    seeds = len(settings["seeds"])
    remark = next((text for end, text in REMARKS.items() if Path(data["name"]).name == end), "")
    machine = ", ".join(f"{key} {value}" for key, value in results["environment"].items() if key != "machine")
    deep = {model["seed"]: model["train_seconds"] for model in models if model["name"] in TEACHERS}
    shared = sum(deep[model["seed"]] for model in models if "exits" in model and model["name"] != "fastbert-joint")
    seconds = sum(model["train_seconds"] for model in models) - shared  # a FastBERT's has its teacher's in it
    source, figures = PUBLISHED.get(results["script"], ("", {}))
    beside = "ece" if "ece" in models[0] else "macro_f1"
    table = report.models_table(models, beside)
    if figures.keys() & {model["name"] for model in models}:
        table = [[*row, "original %" if i == 0 else figures.get(row[0], "")] for i, row in enumerate(table)]
    else:
        source = ""
    lines = [
        f"### {name}",
        f"    {results['command']}",
        f"{Path(data['name']).name}: {data['classes']} classes; {', '.join(counts)}; epochs chosen on the "
        f"{data['chosen_on']} part. {remark}".strip(),
        f"{'One seed' if seeds == 1 else f'{seeds} seeds'}, trained in {settings['precision']}, timed in float32; "
        f"{results['environment']['machine']}; {machine}. Training took {seconds / 3600:.1f} h in all.",
        report.markdown(table),
    ]
    lines += [f"\"original %\": {source}"] if source else []
    lines += [report.markdown(report.comparisons_table(results["comparisons"]))] if results["comparisons"] else []
    lines += [line for group_name, group in report.by_name(models) if "exits" in group[0] for line in speeds(group_name, group)]
    stopping = [model for model in models if "exits" in model]
    if stopping:
        lines += ["Each branch by itself:", report.markdown(exits.branches_table(stopping, settings["uncertainty_top_k"]))]
        lines += published_speeds(stopping)
    if results.get("branch_comparisons"):
        lines += ["Mean accuracy of the branches:", report.markdown(report.comparisons_table(results["branch_comparisons"]))]
    if results.get("omit_class"):
        lines += [f"Class {settings['omit_class']}, left out of what students `-without-` see, its bias then raised by what is "
                  "best on validation:", report.markdown(report.recognition_table(results["omit_class"]))]
    return lines


def speeds(name, group):
    """The lines on a FastBERT's speeds."""
    chosen = ", ".join(f"{model['speed']:g}" for model in group)
    return [f"`{name}` at each speed; chosen on validation: {chosen}.", report.markdown(exits.speeds_table(group))]


def published_speeds(stopping):
    """The lines that hold the first of the FastBERTs against the paper's figures, at the speeds that both have."""
    name, group = report.by_name(stopping)[0]
    if group[0]["exits"][0]["speed"] != 0:  # at which all answers are the teacher's
        return []
    table = [["speed", "here", *FASTBERT]]
    for speed in next(iter(FASTBERT.values())):
        if any(speed not in [row["speed"] for row in model["exits"]] for model in group):
            continue
        rows = [(_exit(model, speed), model["exits"][0]) for model in group]
        points = np.mean([100 * (row["accuracy"] - last["accuracy"]) for row, last in rows])
        here = points, np.mean([row["flops_speedup"] for row, _ in rows])
        published = [figures[speed] for figures in FASTBERT.values()]
        table.append([f"{speed:g}", *(f"{points:+.2f}, {times:.3g} x" for points, times in (here, *published))])
    if len(table) == 1:
        return []
    return [
        f"Beside the paper's figures (12-layer BERT-base, other data): accuracy of `{name}` less its teacher's, and FLOPs "
        f"speed-up, which cannot be above {max(row['flops_speedup'] for row in group[0]['exits']):.3g} here.",
        report.markdown(table),
    ]


# The whole -------------------------------------------------------------------------------------------------------------

HEAD = """# Results

Built by `python -m common.report` from what stands in `results/`: the results.json of each run, as the command above its
table left it, and what each benchmark printed. `make results` does the runs that need no further data anew. Figures of
others are in columns of their own, with their source. What stands under "Tried" is written by hand: what was looked at
before the settings of a run were what they are, and what it means.

± is the standard deviation over seeds; intervals and p-values of several seeds count both the draw of the test examples
and the seeds of training as chance, those of one seed (McNemar) the examples only. Seeds also draw the training and
validation examples; the test examples are the same for all. FLOPs are of one example, a multiply-add counting as two;
"ms @32" is the latency of 32 together, on a machine that does nothing else. Runs were trained beside other work, and each
stage then still waited up to a minute for TensorFlow after its last epoch, so `train s` is longer than it is now."""


def build(store, path):
    """Write `path` (RESULTS.md) and `store`/comparison.png from all that stands in `store`.

    store: a folder of NAME.json and its plots (`take_in`), NAME.md (what was tried for the run NAME) and NAME.txt (what a
    benchmark printed; its first line is its command). Raises InputError if there is no run.
    """
    runs = stored(store)
    if not runs:
        raise InputError(f"{store}: no results there yet; name the folders of finished runs")
    lines, group = [HEAD], one_teacher(runs)
    methods = methods_of(group)
    if len(group) > 1 and any(row["title"].startswith(ALONE) for row in methods):
        lines += comparison(group, methods)
        plot_comparison(store / "comparison.png", group, methods)
    claims = claims_table(runs)
    if len(claims) > 1:
        lines += [
            "## What is claimed, and what was found",
            "\"holds\": the whole interval is above 0; \"open\": 0 is in it, so neither the claim nor its reverse is borne out "
            "by these runs. With one seed, what is said is said of two models, not two ways to train. FastBERTs are compared "
            "by the mean accuracy of their branches.",
            report.markdown(claims),
        ]
    precision = precision_table(runs)
    if len(precision) > 1:
        lines += ["## What a narrow precision costs", report.markdown(precision)]
    for script, title in SCRIPTS.items():
        found = {name: results for name, results in runs.items() if results["script"] == script}
        lines += [f"## {title}: {script}.py"] if found else []
        for name, results in found.items():
            lines += section(name, results)
            lines += [f"![{plot}](results/{name}-{plot}.png)" for plot in PLOTS if (store / f"{name}-{plot}.png").is_file()]
            tried = store / f"{name}.md"
            lines += ["#### Tried", tried.read_text(encoding="utf-8").strip()] if tried.is_file() else []
    printed = [file.read_text(encoding="utf-8").partition("\n") for file in sorted(store.glob("*.txt"))]
    lines += ["## Benchmarks"] if printed else []
    for command, _, output in printed:
        lines += [f"    {command.removeprefix('$ ')}", f"```\n{output.strip()}\n```"]
    write_text(path, "\n\n".join(lines) + "\n")
