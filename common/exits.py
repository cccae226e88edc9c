"""A model that may stop after any of its layers: what it answers and costs at each speed, reckoned and timed; tables, a plot.

How sure an exit is of a text, and how such a model is built and taught, is the script's story.
"""

import numpy as np
from matplotlib.figure import Figure

from common import evaluation, report
from common.backend import tf

# By reckoning ----------------------------------------------------------------------------------------------------------


def exits_at(u, speed):
    """After how many layers each text leaves: the first whose uncertainty is below `speed`, else the last; NaN is never below.

    u: the uncertainty of all exits, (texts, layers). Returns (texts,) int, from 1.
    """
    leaving = u < speed
    leaving[:, -1] = True
    return leaving.argmax(axis=1) + 1


def leave(logits, u, speed):
    """(layers (texts,), logits (texts, classes) there, uncertainty (texts,) there), given those of all exits."""
    layers, rows = exits_at(u, speed), np.arange(len(u))
    return layers, logits[rows, layers - 1], u[rows, layers - 1]


def curve(logits, u, labels, speeds, flops):
    """What each speed gives: [{"speed", "accuracy", "macro_f1", "mean_layers", "flops_speedup"}].

    logits, u: of all exits, (texts, layers, classes) and (texts, layers). labels: (texts,). flops: (the teacher's, (layers,)
    those of leaving after each layer) for one text.
    """
    whole, through = flops
    rows = []
    for speed in speeds:
        layers, answers, _ = leave(logits, u, speed)
        rows.append({
            "speed": speed,
            **evaluation.scores(labels, answers),
            "mean_layers": float(layers.mean()),
            "flops_speedup": float(whole / through[layers - 1].mean()),
        })
    return rows


# By the clock ----------------------------------------------------------------------------------------------------------


def time_exits(plain, stopping, speeds, examples, rows, flops):
    """Time models on the texts `rows`, taking turns: a quarter of them by themselves ("1"), all in batches of 32 ("32").

    plain: {name: graph of (token ids, segment ids)}; stopping: {name: graph that takes a speed too}. flops: tokens of a text
    -> as `curve` takes them. Returns {name of a plain one: {"1": ms, "32": ms}, name of a stopping one: [{"1": {"ms",
    "flops_speedup", "mean_layers"}, "32": …} of each speed]}. ms are the mean over batches of the median over rounds; the
    other two are reckoned for the very texts and lengths that were timed: what the time is to be held against.
    """
    timed = {(name, None): lambda batch, graph=graph: graph(*batch) for name, graph in plain.items()}
    given = {speed: tf.constant(speed, tf.float32) for speed in speeds}
    for name, graph in stopping.items():
        timed |= {(name, speed): lambda batch, graph=graph, speed=speed: graph(*batch, given[speed]) for speed in speeds}
    found = {name: {} for name in plain} | {name: [{} for _ in speeds] for name in stopping}
    for size, some in ((1, rows[: -(-len(rows) // 4)]), (32, np.resize(rows, -(-len(rows) // 32) * 32))):
        batches = [tuple(map(tf.constant, examples.inputs(some[i : i + size]))) for i in range(0, len(some), size)]
        ms = {key: 1000 * float(seconds.mean()) for key, seconds in evaluation.wall_clock(timed, batches, rounds=3).items()}
        for name in plain:
            found[name][str(size)] = ms[name, None]
        for name in stopping:
            for speed, row in zip(speeds, found[name], strict=True):
                row[str(size)] = {"ms": ms[name, speed]} | promised(batches, timed[name, speed], flops)
    return found


def promised(batches, answer, flops):
    """{"flops_speedup", "mean_layers"} of these batches, at the lengths that they are padded to."""
    teacher, left, layers = 0, 0, []
    for batch in batches:
        whole, through = flops(batch[0].shape[1])
        layers.append(answer(batch)["layers_used"].numpy())
        teacher, left = teacher + whole * len(layers[-1]), left + through[layers[-1] - 1].sum()
    return {"flops_speedup": float(teacher / left), "mean_layers": float(np.concatenate(layers).mean())}


# Tables and a plot -----------------------------------------------------------------------------------------------------

SPEEDS_NOTE = (
    "A text leaves after the first layer whose uncertainty is below `speed`. FLOPs x, wall x: how many times as fast as the "
    "teacher, by FLOPs and by the clock, by itself (@1) and in batches of 32. FLOPs x is that of all test texts, "
    "counted as of full length; wall / FLOPs is how much the clock shows of what the FLOPs of the timed texts promise."
)
LEAVERS_NOTE = "Test texts in the order of their layers and, where these are equal, of their uncertainty: first and last three."


def speeds_table(group):
    """Rows of strings, header first: what each speed costs and gives, over the seeds of a stopping model."""
    rows = [["speed", "accuracy %", "layers", "FLOPs x", "wall x @1", "wall x @32", "wall / FLOPs @1", "wall / FLOPs @32"]]
    for found in zip(*(model["exits"] for model in group), strict=True):  # of each seed at one speed
        wall = {size: np.array([e["wall_speedup"][size] for e in found]) for size in ("1", "32")}
        share = {size: wall[size] / [e["timed"][size]["flops_speedup"] for e in found] for size in wall}
        means = [[e["mean_layers"] for e in found], [e["flops_speedup"] for e in found], *wall.values(), *share.values()]
        accuracy = report.spread([e["accuracy"] for e in found], 100)
        rows.append([f"{found[0]['speed']:g}", accuracy, *(f"{np.mean(values):.2f}" for values in means)])
    return rows


def branches_table(models, top_k):
    """Rows of strings, header first: accuracy and median uncertainty of every branch on all test texts."""
    columns = {"median_uncertainty": "median u"}
    if top_k:
        columns["median_entropy"] = "of all classes"
    groups, last = report.by_name(models), len(models[0]["branch_accuracy"])
    rows = [["branch after layer", *(cell for name, _ in groups for cell in (f"{name} %", *columns.values()))]]
    for i in range(last):
        row = [str(i + 1) if i + 1 < last else f"{last}, the last"]
        for _, group in groups:
            row.append(report.spread([model["branch_accuracy"][i] for model in group], 100))
            row += [f"{np.mean([model[key][i] for model in group]):.3f}" for key in columns]
        rows.append(row)
    return rows


def leavers_table(texts, labels, classes, left, count=3, width=60):
    """Rows of strings, header first: the `count` texts that leave first, and as many that leave last.

    texts: strings. labels: (texts,) class numbers; classes: their names. left: what `leave` returns of these texts.
    """
    layers, answers, u = left
    order = np.lexsort((u, layers))
    rows = [["text", "class", "answer", "layers", "u"]]
    for i in [*order[:count], *order[-count:]] if len(order) > 2 * count else order:
        text = " ".join(texts[i].split())
        text = text if len(text) <= width else f"{text[: width - 1]}…"
        rows.append([text.replace("|", "/"), classes[labels[i]], classes[answers[i].argmax()], str(layers[i]), f"{u[i]:.3f}"])
    return rows


def plot_exits(path, models):
    """Accuracy against speed-up, with teacher and shallow models; the layers texts leave after; each branch's accuracy.

    models: records over the seeds, teacher first; those that stop early have "exits", "leaving" and "branch_accuracy".
    """
    figure = Figure(figsize=(13, 4), layout="constrained")
    tradeoff, leaving, branches = figure.subplots(1, 3, width_ratios=(1.4, 1, 1))
    teacher = np.mean([model["latency_ms"]["32"] for model in models if model["name"] == models[0]["name"]])
    stopping = [name for name, group in report.by_name(models) if "exits" in group[0]]
    for number, (name, group) in enumerate(report.by_name(models)):
        colour = f"C{number}"
        if name not in stopping:
            speedup = teacher / np.mean([model["latency_ms"]["32"] for model in group])
            accuracy = 100 * np.mean([model["accuracy"] for model in group])
            tradeoff.plot(speedup, accuracy, "s" if number else "*", color=colour, label=name)
            continue
        curves = 100 * np.mean([[row["accuracy"] for row in model["exits"]] for model in group], axis=0)
        for key, style in (("wall_speedup", "-"), ("flops_speedup", ":")):
            values = [[row[key]["32"] if key == "wall_speedup" else row[key] for row in model["exits"]] for model in group]
            label = f"{name}, {'by the clock, batch 32' if key == 'wall_speedup' else 'by FLOPs'}"
            tradeoff.plot(np.mean(values, axis=0), curves, style, marker="o", markersize=3, color=colour, label=label)
        share = np.mean([np.array(model["leaving"]) / sum(model["leaving"]) for model in group], axis=0)
        layers, width = np.arange(1, len(share) + 1), 0.8 / len(stopping)
        leaving.bar(layers + (stopping.index(name) + 0.5) * width - 0.4, 100 * share, width, color=colour)
        alone = [model["branch_accuracy"] for model in group]
        branches.plot(layers, 100 * np.mean(alone, axis=0), marker="o", markersize=3, color=colour)
    tradeoff.set(xlabel="times as fast as the teacher", ylabel="test accuracy, %")
    leaving.set(xlabel="layers computed", ylabel="test texts at the chosen speed, %")
    branches.set(xlabel="branch after layer", ylabel="its accuracy on all test texts, %")
    for panel in (tradeoff, leaving, branches):
        panel.grid(alpha=0.3)
    for panel in (leaving, branches):
        panel.xaxis.get_major_locator().set_params(integer=True)
    figure.legend(*tradeoff.get_legend_handles_labels(), fontsize=8, loc="outside right upper")
    report.save_figure(figure, path)
