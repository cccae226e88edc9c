"""What a model that stops early answers at each speed, by what its exits said of stored texts; how its speed is chosen.

`exits` are (logits (texts, layers, classes), uncertainty (texts, layers)) of all exits. What is chosen is a part of the model's
record: "uncertainty_top_k", "speed", "chosen" (why, in words) and, where something is promised, "promise".
"""

import numpy as np

from common import InputError
from common.backend import tf
from common.cost import exit_flops
from common.evaluation import pack_bits, scores
from common.promise import GRID, before_first_failure, fastest_kept, needed
from data.students import PROMISE, promise_in_words

TOP_K = 0, 2, 3, 5, 10  # of how many highest probabilities the uncertainty may be, if it is chosen; 0: of all
DISAGREEMENT = 1.0  # per cent of texts answered otherwise than by all layers, at which these are compared
ROUNDED = 1e-5  # how far from it an uncertainty may be in the student's file, which computes in another order
WALL = {"latency_ms": "wall_speedup", "int8_latency_ms": "int8_wall_speedup"}  # what the clock says, and in times as fast
STOPPING = (  # settings of a script that has exits: which of them texts leave by. They change no weights
    "uncertainty_top_k", "speeds", "accuracy_drop", "latency_budget", "max_disagreement", "confidence", "calibration_examples",
)


# Settings --------------------------------------------------------------------------------------------------------------


def check(settings):
    """Raise InputError for STOPPING settings that do not go together."""
    if settings.uncertainty_top_k == 1:
        raise InputError("--uncertainty-top-k 1: one probability has no entropy; 2 or more, 0 for all, or None to choose")
    if settings.latency_budget and settings.max_disagreement is not None:
        raise InputError(f"--latency-budget {settings.latency_budget:g} --max-disagreement {settings.max_disagreement:g}: "
                         "each chooses the speed; give one of them")


def check_calibration(settings, parts):
    """Raise InputError if the calibration part has too few texts for what the settings promise. parts: `data.parts.Parts`"""
    if settings.max_disagreement is None:
        return
    texts, least = len(parts.calibration), needed(settings.max_disagreement, settings.confidence)
    if texts < least:
        wanted = settings.calibration_examples
        raised = "raise --calibration-examples, " if wanted is None or 0 < wanted < least else ""
        raise InputError(
            f"--max-disagreement {settings.max_disagreement:g} --confidence {settings.confidence:g}: there are {texts:,} "
            f"calibration texts, and {least:,} are needed at least; {raised}add a file of unlabelled texts, or train with "
            "fewer --train-examples or --unlabelled-examples (0 takes all), in another --output"
        )


# What exits answer -------------------------------------------------------------------------------------------------------


def load_logits(run, name, part):
    """Logits (texts, layers, classes) of a finished model's exits, as its stage, `name`-branches, left them.

    run: `training.Run` of its seed
    name: of the model
    part: "validation" or "test"
    """
    return run.logits(f"{name}-branches", part)


def exits_of(logits, uncertainty, top_k):
    """The exits of their logits. uncertainty: (probabilities (…, classes), top_k) -> u (…), from 0 to 1"""
    return logits, uncertainty(tf.nn.softmax(logits), top_k).numpy()


def right_exits(run, name, part):
    """The share of the exits but the last, the teacher's, that get each text right: (texts,) float. See `load_logits`"""
    labels = run.corpus.labels[getattr(run.parts, part)]
    return (load_logits(run, name, part)[:, :-1].argmax(axis=-1) == labels[:, None]).mean(axis=1)


def mean_scores(labels, logits):
    """The mean scores of some exits.

    labels: (texts,) int
    logits: (texts, exits, classes)
    """
    of_exits = [scores(labels, exit_logits) for exit_logits in logits.swapaxes(0, 1)]
    return {key: float(np.mean([each[key] for each in of_exits])) for key in of_exits[0]}


def exit_layers(u, speed):
    """After how many layers each text leaves: the first whose uncertainty is below `speed`, else the last; NaN is never below.

    u: the uncertainty of all exits, (texts, layers)
    speed: from 0 to 1

    Returns (texts,) int, from 1.
    """
    leaving = u < speed
    leaving[:, -1] = True
    return leaving.argmax(axis=1) + 1


def exit_outputs(exits, speed):
    """(layers (texts,), logits (texts, classes) there, uncertainty (texts,) there) at a speed from 0 to 1."""
    logits, u = exits
    layers, texts = exit_layers(u, speed), np.arange(len(u))
    return layers, logits[texts, layers - 1], u[texts, layers - 1]


def answers_at(exits, speeds):
    """The class that each text has at each of these speeds, (speeds, texts) int. exits: see above"""
    logits, u = exits
    answers, texts = logits.argmax(axis=-1), np.arange(len(u))
    return np.stack([answers[texts, exit_layers(u, speed) - 1] for speed in speeds])


def exit_curve(exits, labels, speeds, flops):
    """What each speed gives: [{"speed", "accuracy", "macro_f1", "disagreement", "mean_layers", "flops_speedup"}].

    disagreement is the share of texts that are answered otherwise than by all layers.

    exits: see above
    labels: (texts,) int
    speeds: from 0 to 1
    flops: (the teacher's, (layers,) those of leaving after each layer) for one text
    """
    teacher_flops, flops_through = flops
    points, whole = [], exits[0][:, -1].argmax(axis=-1)
    for speed in speeds:
        layers, logits, _ = exit_outputs(exits, speed)
        points.append({
            "speed": speed, **scores(labels, logits), "disagreement": float((logits.argmax(axis=-1) != whole).mean()),
            "mean_layers": float(layers.mean()),
            "flops_speedup": float(teacher_flops / flops_through[layers - 1].mean()),
        })
    return points


# What is chosen ----------------------------------------------------------------------------------------------------------


def chosen_top_k(logits, settings, uncertainty):
    """Of how many highest probabilities the uncertainty is to be: that of TOP_K whose speed takes the fewest layers.

    The speed is the `highest_speed` at which DISAGREEMENT per cent of texts are answered otherwise than by all layers. Errors
    are not counted: of these the few that a speed adds are chance. A promise's own texts choose nothing but the speed that is
    promised. Of equal ones all probabilities, then the fewest.

    logits: of the exits on the validation part
    settings: with uncertainty_top_k, which is kept unless it is None, and speeds
    uncertainty: as `exits_of` takes it
    """
    if settings.uncertainty_top_k is not None:
        return settings.uncertainty_top_k
    whole = logits[:, -1].argmax(axis=-1)

    def layers(top_k):
        exits = exits_of(logits, uncertainty, top_k)
        return exit_layers(exits[1], highest_speed(exits, whole, settings.speeds, DISAGREEMENT)["speed"]).mean()

    return min((top_k for top_k in TOP_K if top_k < logits.shape[-1]), key=layers)


def speeds_tried(speeds):
    """The speeds that are chosen from, from the slowest on: a fine grid, and those of the curve, which are given."""
    return sorted({*GRID, *speeds})


def highest_speed(exits, labels, speeds, drop):
    """{"speed": the highest up to which no more is lost than may be, "chosen"}.

    Lost are the texts that all layers get right and an earlier exit wrong, less half of the reverse: of the best of many speeds
    on a few hundred texts the other half would be chance. That speed is the last before the first that loses more.

    exits: on the validation part
    labels: (texts,) int
    speeds: tried besides those of a grid
    drop: points of accuracy, per cent of the texts, that may be lost
    """
    speeds = speeds_tried(speeds)
    right = answers_at(exits, speeds) == labels  # (speeds, texts); at 0 that of all layers
    lost = (right[0] & ~right).mean(axis=1) - (~right[0] & right).mean(axis=1) / 2
    place = before_first_failure(lost <= drop / 100 + 1e-9)
    return {"speed": speeds[place], "chosen": f"the highest that loses at most {drop:g} points"}


def maybe_otherwise(wrong, u, speed):
    """Which texts are answered otherwise than expected, or may be by the student's file, whose uncertainties are ROUNDED.

    wrong: which exits answer otherwise, (texts, layers) bool
    u: the uncertainty of all exits, (texts, layers)
    speed: from 0 to 1

    Returns (texts,) bool.
    """
    may_leave = u < speed + ROUNDED if speed else np.zeros(u.shape, bool)  # no uncertainty is below 0
    may_leave[:, -1] = True
    reached = np.arange(1, u.shape[1] + 1) <= exit_layers(u, speed - ROUNDED)[:, None]
    return (may_leave & reached & wrong).any(axis=1)


def promised_speed(exits, expected, settings):
    """{"speed": the highest that keeps what the settings promise, "chosen", "promise"}.

    exits: on the calibration part, of as many texts as `check_calibration` demands, read with the tokens that the student keeps
    expected: (texts,) int, what all layers answer to them, read with all tokens
    settings: with speeds, max_disagreement and confidence

    The promise is {"max_disagreement", "confidence", "texts", "disagreements"}, see `common.promise`. There is none where fewer
    tokens alone break it.
    """
    wanted, speeds = (settings.max_disagreement, settings.confidence), speeds_tried(settings.speeds)
    wrong, texts = exits[0].argmax(axis=-1) != expected[:, None], len(expected)
    others = np.array([maybe_otherwise(wrong, exits[1], speed).sum() for speed in speeds])
    place, flag = fastest_kept(others, texts, *wanted), f"--max-disagreement {wanted[0]:g}"
    if place < 0:  # at 0 all layers answer
        why = (f"all layers answer, and nothing is promised: with fewer tokens than all they answer {others[0]:,} of {texts:,} "
               f"texts otherwise, which breaks {flag}; --vocabulary 0 keeps all")
        return {"speed": speeds[0], "chosen": why}
    promise = dict(zip(PROMISE, (*wanted, texts, int(others[place])), strict=True))
    why = f"the highest that keeps {flag}" if place else f"all layers answer, as no speed above 0 keeps {flag}"
    return {"speed": speeds[place], "chosen": f"{why}: {promise_in_words(promise)}", "promise": promise}


def speed_within(budget, points, timed):
    """{"speed": the lowest at which a text by itself takes no longer than it may, "chosen"}.

    budget: ms
    points: `exit_curve` of the validation part, speeds ascending
    timed: of the same speeds, {batch size: {"ms", "mean_layers"}} measured on other texts: from it come the ms per layer
    """
    ms = [point["mean_layers"] * at["1"]["ms"] / at["1"]["mean_layers"] for point, at in zip(points, timed, strict=True)]
    fit = [point["speed"] for point, time in zip(points, ms, strict=True) if time <= budget]
    if fit:
        return {"speed": min(fit), "chosen": f"the lowest within {budget:g} ms a text"}
    fastest = points[int(np.argmin(ms))]["speed"]
    return {"speed": fastest, "chosen": f"the fastest, though none keeps within {budget:g} ms a text"}


# Records -----------------------------------------------------------------------------------------------------------------


def shares_of_flops(timed, teacher):
    """How much of the speed-up by FLOPs the clock shows at each speed: {key of WALL: {batch size: (speeds,) float64}}.

    Held against the FLOPs of the very texts that were timed: how early these few leave is chance, what a layer takes is not. So
    speeds are told of all test texts, as FLOPs times this share.

    timed: of each speed, as of `exit_record`
    teacher: its record
    """
    return {key: {size: np.array([ms / at[key][size]["ms"] / at[key][size]["flops_speedup"] for at in timed])
                  for size, ms in teacher["latency_ms"].items()} for key in WALL}


def told_of_all(points, shares):
    """Points of a curve with how fast they are by the clock: {key of WALL.values(): {batch size: times as fast}} besides.

    points: of `exit_curve`, with "flops_speedup"
    shares: of `shares_of_flops`
    """
    return [
        point | {WALL[key]: {size: float(point["flops_speedup"] * share[place]) for size, share in of_form.items()}
                 for key, of_form in shares.items()}
        for place, point in enumerate(points)
    ]


def exit_record(exits, labels, settings, flops, timed, teacher, chosen):
    """What a record says of a model that stops early, and its logits at the speed chosen: {part: (texts, classes)}.

    exits: {"validation", "test": exits}
    labels: of the same parts
    settings: with speeds and latency_budget
    flops: as `exit_curve` takes them
    timed: of each speed, {"latency_ms" and "int8_latency_ms": {batch size: {"ms", "flops_speedup", "mean_layers"}}}
    teacher: its record
    chosen: see above; without a speed it is chosen by the latency budget
    """
    if "speed" not in chosen:
        points = exit_curve(exits["validation"], labels["validation"], settings.speeds, flops)
        chosen = chosen | speed_within(settings.latency_budget, points, [at["latency_ms"] for at in timed])
    shares, points = shares_of_flops(timed, teacher), exit_curve(exits["test"], labels["test"], settings.speeds, flops)
    points = [
        point | {
            "timed": at["latency_ms"], "int8_timed": at["int8_latency_ms"],
            "correct": pack_bits(exit_outputs(exits["test"], point["speed"])[1].argmax(-1) == labels["test"]),
        }
        for point, at in zip(told_of_all(points, shares), timed, strict=True)
    ]
    layers = exit_layers(exits["test"][1], chosen["speed"])
    computed = float(flops[1][layers - 1].mean())
    logits = {part: exit_outputs(of_part, chosen["speed"])[1] for part, of_part in exits.items()}
    return chosen | {
        "validation_accuracy": scores(labels["validation"], logits["validation"])["accuracy"],
        **scores(labels["test"], logits["test"]), "layers": float(layers.mean()), "flops": computed,
        **latencies(teacher["latency_ms"], computed / flops[0], settings.speeds, chosen["speed"], shares),
        "exits": points, "leaving": np.bincount(layers - 1, minlength=len(flops[1])).tolist(),
        "branch_accuracy": [scores(labels["test"], branch)["accuracy"] for branch in exits["test"][0].swapaxes(0, 1)],
        "median_uncertainty": np.median(exits["test"][1], axis=0).tolist(),
    }, logits


def latencies(teacher_ms, computed, speeds, speed, shares):
    """ms of a model at one speed: {key of WALL: {batch size: ms}}.

    teacher_ms: the teacher's, {batch size: ms}
    computed: the share of its FLOPs that are computed
    speeds: those of the curve, ascending
    speed: which; between two of the curve, the share of FLOPs that the clock shows is between theirs
    shares: of `shares_of_flops`
    """
    return {key: {size: float(teacher_ms[size] * computed / np.interp(speed, speeds, share)) for size, share in of_form.items()}
            for key, of_form in shares.items()}


def exit_records(run, depths, exits, uncertainty, costs, times, chosen):
    """The records of a seed: of teacher and shallow models with their cost, and of each model that stops early.

    run: `training.Run` of the seed, its stages finished
    depths: {name: layers} of the teacher, named "teacher", and the shallow models
    exits: {name of a model that stops early: {"validation", "test": exits}}
    uncertainty: as `exits_of` takes it
    costs: tokens of a text -> those of `cost.exit_costs`
    times: of `export.exits.exit_times`
    chosen: {name of a stopping one: see above}
    """
    settings, depth, whole, records = run.settings, depths["teacher"], costs(run.settings.maxlen), []
    labels = {part: run.corpus.labels[getattr(run.parts, part)] for part in ("validation", "test")}
    flops = exit_flops(whole, depth)
    for name, layers in depths.items():
        cost = {"layers": layers, "flops": flops[0] - (depth - layers) * whole["layer"]} | times[name]
        records.append(run.record(name) | cost | {"timed_tokens": times["tokens"]})
    for name, of_parts in exits.items():
        record, logits = exit_record(of_parts, labels, settings, flops, times[name], records[0], chosen[name])
        run.write_logits(name, **logits)
        record["median_entropy"] = np.median(exits_of(of_parts["test"][0], uncertainty, 0)[1], axis=0).tolist()
        stage = run.record(f"{name}-branches")
        del stage["measured"]  # of the branches' mean
        records.append(stage | {"name": name} | record)
    return records
