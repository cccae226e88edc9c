"""Tables and a plot of a model that stops early: what each speed gives, each exit by itself, who leaves first and last."""

from functools import partial

import numpy as np

from common.exit_curve import exit_outputs, exits_of, load_logits, right_exits
from data.texts import in_one_line
from report.document import Section, comparisons
from report.plots import figure
from report.tables import WORTHWHILE, by_name, comparisons_table, count, mean_and_deviation

SPEEDS_NOTE = (
    "A text leaves after the first layer whose uncertainty is below `speed`. FLOPs x, wall x: how many times as fast as the "
    "teacher, by FLOPs and by the clock, by itself (@1) and in batches of 32, for all test texts. FLOPs are counted as of full "
    "length. wall / FLOPs is how much the clock shows of what the FLOPs of those texts promise that were timed; wall x is this "
    "share of FLOPs x."
)
ASKED = {"1": "one text", "32": "32 together"}
INSTEAD = ("Branches may need more unlabelled texts or --branch-epochs, the choice a {}; or take a student of fewer layers "
           "(knowledge_distillation_bert.py), before its teacher if need be (python -m common.cascade).")
OTHERWISE_NOTE = " otherwise % is how many test texts are answered otherwise than by all layers."
INT8_NOTE = " int8 x is the clock of the model's int8 form at the same speed, held against the teacher in float32."


def branch_results(run, records, names):
    """{"branch_comparisons": of the branches' mean accuracy, of the first of these models with each other one}.

    run: of any seed
    records: of the finished stages
    names: of the models that stop early
    """
    pairs = [(name, names[0]) for name in names[1:]]
    return {"branch_comparisons": comparisons(run, records, pairs, partial(right_exits, part="test"))}


def verdict(records, names, settings):
    """What is to be said first: where models that stop early are hardly faster than their teacher by the clock; "" if nowhere.

    records: over the seeds, the teacher's first, with "latency_ms"
    names: of the models that stop early
    settings: by which their speeds were chosen
    """
    groups, said = dict(by_name(records)), []

    def ms(name, size):
        return np.mean([record["latency_ms"][size] for record in groups[name]])

    teacher = records[0]["name"]
    for name in names:
        slow = [size for size in ASKED if ms(teacher, size) < WORTHWHILE * ms(name, size)]
        layers = np.mean([record["layers"] for record in groups[name]])
        compared = [f"{ms(name, size):.3g} ms and the teacher {ms(teacher, size):.3g} for {ASKED[size]}" for size in slow]
        if slow:
            said.append(f"{name} does not pay for {' nor for '.join(map(ASKED.get, slow))}: at the speed chosen it computes "
                        f"{layers:.2f} of {records[0]['layers']} layers on average and takes {', '.join(compared)}.")
    faster = "lower --latency-budget" if settings.latency_budget else "higher --accuracy-drop"
    if settings.max_disagreement is not None:
        faster = "higher --max-disagreement"
    return " ".join([*said, INSTEAD.format(faster)] if said else [])


def exit_sections(results, records, run, uncertainty):
    """The sections of the report on models that stop early; their speeds are printed, too.

    results: of the run, as `document.results_of` makes them, with "branch_comparisons" and "costs"
    records: of these models
    run: of the first record's seed
    uncertainty: as `exit_curve.exits_of` takes it
    """
    validation, costs, sections, first = results["data"]["chosen_on"], results["costs"], [], records[0]
    part = validation if run.settings.max_disagreement is None else "calibration"
    how = "" if run.settings.uncertainty_top_k is not None else f", chosen on the {validation} part"
    exits = exits_of(load_logits(run, first["name"], "test"), uncertainty, first["uncertainty_top_k"])
    for record in records:
        print(f"  seed {record['seed']}  {record['name']:<20}  speed {record['speed']:g}: on the {part} part "
              f"{record['chosen']}; u of {looked_at(record)} probabilities")
    for name, group in by_name(records):
        chosen = "; ".join(f"seed {record['seed']}: {record['speed']:g}, {record['chosen']}" for record in group)
        entropy_of = "; ".join(f"seed {record['seed']}: {looked_at(record)}" for record in group)
        note = f"Chosen on the {part} part: {chosen}. Uncertainty, the entropy of probabilities{how}: {entropy_of}. "
        sections.append(Section(f"{name}: speeds", speeds_table(group), note + speeds_note(group)))
    sections.append(Section("Each branch by itself", branches_table(records), (
        f"A layer takes {count(costs['layer'])}FLOPs, a branch {count(costs['branch'])}FLOPs "
        f"({costs['branch'] / costs['layer']:.1%} of a layer), the teacher's own classifier {count(costs['head'])}FLOPs."
    )))
    if results["branch_comparisons"]:
        sections.append(Section("Mean accuracy of the branches", comparisons_table(results["branch_comparisons"]), (
            "So rows of different speeds are compared at the same cost; p is that of a sign test if there is one seed."
        )))
    tested, corpus = run.parts.test, run.corpus
    outputs, of_test = exit_outputs(exits, first["speed"]), [corpus.texts[index] for index in tested]
    table = first_and_last_exits(of_test, corpus.labels[tested], corpus.classes, outputs)
    title = f"First and last to leave, {first['name']}, seed {first['seed']}"
    note = "Test texts in the order of their layers and, where these are equal, of their uncertainty: first and last three."
    return [*sections, Section(title, table, note)]


def looked_at(record):
    """Of which probabilities the uncertainty of a record's model is, in words."""
    top_k = record["uncertainty_top_k"]
    return f"the {top_k} highest" if top_k else "all"


def speeds_note(group):
    """What the columns of `speeds_table` are. group: the same"""
    return SPEEDS_NOTE + OTHERWISE_NOTE * says_otherwise(group) + INT8_NOTE * in_int8(group)


def says_otherwise(group):
    """Whether these records say how many texts are answered otherwise than by all layers: those of older runs do not."""
    return "disagreement" in group[0]["exits"][0]


def in_int8(group):
    """Whether these records were timed in int8, too: those of older runs were not."""
    return "int8_wall_speedup" in group[0]["exits"][0]


def speeds_table(group):
    """What each speed costs and gives, over the seeds. group: records of a model that stops early."""
    rows = [["speed", "accuracy %", *["otherwise %"] * says_otherwise(group), "layers", "FLOPs x", "wall x @1", "wall x @32",
             "wall / FLOPs @1", "wall / FLOPs @32", *(["int8 x @1", "int8 x @32"] if in_int8(group) else [])]]
    for points in zip(*(record["exits"] for record in group), strict=True):  # of each seed at one speed
        wall = {size: np.array([point["wall_speedup"][size] for point in points]) for size in ("1", "32")}
        share = {size: wall[size] / [point["flops_speedup"] for point in points] for size in wall}
        reached = [[point[key] for point in points] for key in ("mean_layers", "flops_speedup")]
        int8 = [[point["int8_wall_speedup"][size] for point in points] for size in wall] if in_int8(group) else []
        accuracy = mean_and_deviation([point["accuracy"] for point in points], 100)
        means = (f"{np.mean(values):.2f}" for values in (*reached, *wall.values(), *share.values(), *int8))
        others = [f"{100 * np.mean([point['disagreement'] for point in points]):.2f}"] if says_otherwise(group) else []
        rows.append([f"{points[0]['speed']:g}", accuracy, *others, *means])
    return rows


def branches_table(records):
    """Accuracy and median uncertainty of every branch on all test texts; where it is not of all classes, that stands beside.

    records: of models that stop early
    """
    of_all = {"median_entropy": "of all classes"} if any(record["uncertainty_top_k"] for record in records) else {}
    columns = {"median_uncertainty": "median u"} | of_all
    groups, last = by_name(records), len(records[0]["branch_accuracy"])
    rows = [["branch after layer", *(cell for name, _ in groups for cell in (f"{name} %", *columns.values()))]]
    for i in range(last):
        row = [str(i + 1) if i + 1 < last else f"{last}, the last"]
        for _, group in groups:
            row.append(mean_and_deviation([record["branch_accuracy"][i] for record in group], 100))
            row += [f"{np.mean([record[key][i] for record in group]):.3f}" for key in columns]
        rows.append(row)
    return rows


def first_and_last_exits(texts, labels, classes, outputs, count=3):
    """The table of the texts that leave first, and of those that leave last.

    texts: strings, or pairs of strings
    labels: (texts,) class numbers
    classes: their names
    outputs: what `exit_curve.exit_outputs` returns of these texts
    count: how many of either
    """
    layers, logits, u = outputs
    order = np.lexsort((u, layers))
    rows = [["text", "class", "answer", "layers", "u"]]
    for i in [*order[:count], *order[-count:]] if len(order) > 2 * count else order:
        rows.append([in_one_line(texts[i]), classes[labels[i]], classes[logits[i].argmax()], str(layers[i]), f"{u[i]:.3f}"])
    return rows


def plot_exits(path, records, files=()):
    """Accuracy against speed-up, with teacher and shallow models; the layers texts leave after; each branch's accuracy.

    path: of the PNG
    records: over the seeds, teacher first; those that stop early have "exits", "leaving" and "branch_accuracy"
    files: of the student to take away, as `tables.student_table` takes them; hollow
    """
    with figure(path, 13, 4) as drawn:
        tradeoff, leaving, branches = drawn.subplots(1, 3, width_ratios=(1.4, 1, 1))
        groups = by_name(records)
        teacher = np.mean([record["latency_ms"]["32"] for record in groups[0][1]])
        stopping = [name for name, group in groups if "exits" in group[0]]
        for number, (name, group) in enumerate(groups):
            colour, accuracy = f"C{number}", 100 * np.mean([record["accuracy"] for record in group])
            if not group[0]["layers"]:  # a linear model is off the scale: only its accuracy is in question
                tradeoff.axhline(accuracy, color="gray", linestyle=":", label=name)
                continue
            if name not in stopping:
                speedup = teacher / np.mean([record["latency_ms"]["32"] for record in group])
                tradeoff.plot(speedup, accuracy, "s" if number else "*", color=colour, label=name)
                continue
            curve = 100 * np.mean([[point["accuracy"] for point in record["exits"]] for record in group], axis=0)
            wall = np.mean([[point["wall_speedup"]["32"] for point in record["exits"]] for record in group], axis=0)
            flops = np.mean([[point["flops_speedup"] for point in record["exits"]] for record in group], axis=0)
            for speedups, style, measure in ((wall, "-", "by the clock, batch 32"), (flops, ":", "by FLOPs")):
                label = f"{name}, {measure}"
                tradeoff.plot(speedups, curve, style, marker="o", markersize=3, color=colour, label=label)
            share = np.mean([np.array(record["leaving"]) / sum(record["leaving"]) for record in group], axis=0)
            layers, width = np.arange(1, len(share) + 1), 0.8 / len(stopping)
            leaving.bar(layers + (stopping.index(name) + 0.5) * width - 0.4, 100 * share, width, color=colour)
            alone = np.mean([record["branch_accuracy"] for record in group], axis=0)
            branches.plot(layers, 100 * alone, marker="o", markersize=3, color=colour)
        for file, marker in zip(files, "o*", strict=False):
            tradeoff.plot(teacher / file["latency_ms"]["32"], 100 * file["accuracy"], marker, color="k", markerfacecolor="none",
                          markersize=9, label=f"student/{file['name']}")
        tradeoff.set(xlabel="times as fast as the teacher", ylabel="test accuracy, %")
        leaving.set(xlabel="layers computed", ylabel="test texts at the chosen speed, %")
        branches.set(xlabel="branch after layer", ylabel="its accuracy on all test texts, %")
        for panel in (leaving, branches):
            panel.xaxis.get_major_locator().set_params(integer=True)
        drawn.legend(*tradeoff.get_legend_handles_labels(), loc="outside right upper")
