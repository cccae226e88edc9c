"""A BERT that may stop after any of its layers: its pieces, the graph that really stops, what it answers and costs.

How sure a branch is of a text, what a branch looks like and how it is taught is the script's story.
"""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from common import InputError
from common.backend import keras, tf
from common.bert import TEXT_SIGNATURE, build_encoder, embeddings_of, inputs_and_mask, swap_pad_id
from common.cost import cls_layer_flops, encoder_flops, head_flops
from common.criteria import criterion_of, fit_temperatures, uncertainty_of_exits
from common.evaluation import pack_bits, scores
from common.files import read_file, write_array
from common.promise import GRID, before_first_failure, fastest_kept, needed
from data.berts import keep_layers
from data.students import PROMISE, promise_in_words

EXIT_SIGNATURE = (*TEXT_SIGNATURE, tf.TensorSpec((), tf.float32, name="speed"))
STOPPING = (  # settings of a script that has exits: which of them texts leave by. They change no weights
    "criterion", "exit_patience", "uncertainty_top_k", "calibrate", "speeds", "accuracy_drop", "latency_budget",
    "max_disagreement", "confidence", "calibration_examples",
)


@dataclass(frozen=True)
class ExitModel:
    """The pieces of a BERT with exits, in their order. A branch stands after each layer; after the last, the teacher's head."""

    embeddings: keras.Model  # of (token ids, segment ids)
    layers: list  # Keras models of hidden states with their mask
    branches: list  # as many, to logits
    encoder: object = None  # the bert4keras transformer that embeddings and layers are pieces of
    branch_headed: bool = True  # whether the teacher's head has the shape of a branch


def all_exits(pieces):
    """The model that computes every layer and every branch: (token ids, segment ids) -> logits (batch, layers, classes)."""
    inputs, mask = inputs_and_mask()
    hidden, logits = pieces.embeddings(inputs), []
    for layer, branch in zip(pieces.layers, pieces.branches, strict=True):
        hidden = layer(hidden, mask=mask)
        logits.append(branch(hidden, mask=mask))  # a branch reads its layer's OUTPUT
    return keras.Model(inputs, keras.layers.Lambda(lambda z: tf.stack(z, axis=1), dtype="float32")(logits))


def branches_alone(pieces):
    """The branches as one model, without the teacher and its head: what self-distillation trains, and a stage's file holds."""
    hidden = keras.Input(pieces.branches[0].input_shape[1:])
    return keras.Model(hidden, [branch(hidden) for branch in pieces.branches[:-1]])


def with_embeddings(pieces, bert):
    """The ExitModel with the embeddings of a `data.berts.Bert`, which may have other tokens; the layers stay."""
    return replace(pieces, embeddings=embeddings_of(build_encoder(keep_layers(bert, [0]), dropout=0.0)))


def with_temperatures(pieces, temperatures):
    """The same ExitModel, whose branches' logits are divided by a temperature each: their last weights are.

    temperatures: (layers,), of which the last, that of the teacher's head, is 1
    """
    for branch, temperature in zip(pieces.branches[:-1], temperatures, strict=False):
        branch.layers[-1].set_weights([weight / np.float32(temperature) for weight in branch.layers[-1].get_weights()])
    return pieces


# Settings --------------------------------------------------------------------------------------------------------------


def check(settings):
    """Raise InputError for STOPPING settings that do not go together."""
    if settings.uncertainty_top_k == 1:
        raise InputError("--uncertainty-top-k 1: one probability has no entropy; 2 or more, or 0 for all")
    if settings.uncertainty_top_k and settings.criterion != "entropy":
        raise InputError(f"--uncertainty-top-k {settings.uncertainty_top_k}: is for --criterion entropy; leave it at 0")
    if settings.exit_patience > 1 and settings.criterion == "patience":
        raise InputError(f"--exit-patience {settings.exit_patience}: with --criterion patience the speed says how many layers "
                         "in a row must agree; leave it at 1")
    if settings.latency_budget and settings.max_disagreement is not None:
        raise InputError(f"--latency-budget {settings.latency_budget:g} --max-disagreement {settings.max_disagreement:g}: "
                         "each chooses the speed; give one of them")


def needs_of(settings):
    """What `runs.open_text_runs` is to draw and to refuse by STOPPING settings: arguments of it."""
    return {
        "check_bert": partial(check_branches, settings),
        "check_drawn": lambda corpus, bert, seed, parts: check_texts(settings, len(parts.calibration)),
        "calibration": None if settings.max_disagreement is None else settings.calibration_examples,
    }


def check_branches(settings, bert):
    """Raise InputError if more layers in a row must be sure than the teacher has branches, which is made of a BERT."""
    layers = settings.teacher_layers or bert.layers
    if settings.exit_patience > layers - 1:
        raise InputError(f"--exit-patience {settings.exit_patience}: a teacher of {layers} layers has {layers - 1} branches "
                         f"that texts can leave by; {layers - 1} at most")


def check_texts(settings, texts):
    """Raise InputError if the calibration part has too few texts for what the settings promise. texts: how many"""
    if settings.max_disagreement is None:
        return
    least = needed(settings.max_disagreement, settings.confidence)
    if texts < least:
        raise InputError(
            f"--max-disagreement {settings.max_disagreement:g} --confidence {settings.confidence:g}: there are {texts:,} "
            f"calibration texts, and {least:,} are needed at least; raise --calibration-examples, or leave more texts by a "
            "lower --unlabelled-examples or --train-examples"
        )


# The graph -------------------------------------------------------------------------------------------------------------


def early_exit_graph(pieces, criterion, pad_id=0):
    """One graph: (token ids, segment ids, speed) -> {"probabilities", "layers_used", "uncertainty"} of each text.

    token ids, segment ids: (texts, tokens) int32, padded with pad_id. speed: a float32; a text leaves after the first layer
    whose branch has u < speed, so that at 0 every text has the teacher's answer. probabilities: (texts, classes) float32.
    layers_used: (texts,) int32, how many were computed. uncertainty: (texts,) float32, of the answer. After each layer the
    batch shrinks to the texts that are undecided; when none is left, nothing above is computed.

    pieces: the ExitModel
    criterion: of `common.criteria`
    pad_id: for a graph that is given away: it takes ids as the tokenizer makes them (see `bert.swap_pad_id`)
    """
    depth, classes = len(pieces.layers), pieces.branches[-1].output_shape[-1]

    def step(number, hidden, mask, places, answers, speed, *state):
        """Layer `number` and its branch, for the undecided: what it takes, of those who still are.

        places: which text of the batch each is. answers: of the whole batch, (texts, classes + 2): probabilities, u, layers.
        state: the criterion's.
        """
        hidden = pieces.layers[number - 1](hidden, mask=mask, training=False)  # (undecided, tokens, hidden)
        p = tf.nn.softmax(pieces.branches[number - 1](hidden, mask=mask, training=False))  # (undecided, classes)
        u, state = criterion(p, *state)  # (undecided,)
        update = tf.concat([p, tf.stack([u, tf.fill(tf.shape(u), float(number))], axis=1)], axis=1)
        answers = tf.tensor_scatter_nd_update(answers, places[:, None], update)  # a later layer may write over them
        # Not ~(u < speed), which TensorFlow's optimizer turns into u >= speed, and so lets NaN go.
        staying = tf.where((u >= speed) | tf.math.is_nan(u - speed))[:, 0]
        hidden, mask, places, *state = (tf.gather(x, staying) for x in (hidden, mask, places, *state))
        return hidden, mask, places, answers, speed, *state

    def rest_from(number):
        """The model from layer `number` on: (hidden, mask, places, answers, speed, *state) -> answers."""
        deeper = rest_from(number + 1) if number < depth else None

        # Not inlined: TensorFlow would walk through every layer, if only to find that it is not to be computed.
        @tf.function(autograph=False, experimental_attributes={"_noinline": True})
        def rest(*given):
            left = step(number, *given)
            _, _, places, answers, *_ = left
            return tf.cond(tf.size(places) > 0, lambda: deeper(*left), lambda: answers) if deeper else answers

        return rest

    whole = rest_from(1)

    def answer(token_ids, segment_ids, speed):
        token_ids = swap_pad_id(token_ids, pad_id)
        hidden, mask = pieces.embeddings([token_ids, segment_ids], training=False), tf.not_equal(token_ids, 0)
        count = tf.shape(token_ids)[0]
        answers = whole(hidden, mask, tf.range(count), tf.zeros((count, classes + 2)), speed)
        p, u, layers = tf.split(answers, [classes, 1, 1], axis=1)
        return {"probabilities": p, "layers_used": tf.cast(layers[:, 0], tf.int32), "uncertainty": u[:, 0]}

    return tf.function(answer, input_signature=EXIT_SIGNATURE, autograph=False)


# What it answers: `exits` are (logits (texts, layers, classes), uncertainty (texts, layers)) of all exits ---------------------


def load_exits(run, name, part, uncertainty):
    """The exits of a finished model on a part, as its stage left them, at the temperatures of `exit_temperatures`.

    run: `training.Run` of its seed
    name: of the model, whose stage is `name`-branches
    part: "validation" or "test"
    uncertainty: (probabilities (…, classes), top_k) -> u (…), from 0 to 1: the entropy, for the settings' criterion
    """
    return exits_of(run, name, read_file(run.stage(f"{name}-branches") / f"{part}_logits.npy"), uncertainty)


def exits_of(run, name, logits, uncertainty):
    """The exits of a finished model of logits (texts, layers, classes) that it gave. See `load_exits`."""
    logits = (logits / exit_temperatures(run, name)[:, None]).astype(np.float32)
    return logits, uncertainty_of_exits(logits, criterion_of(run.settings, logits.shape[1], uncertainty))


def exit_temperatures(run, name):
    """The temperatures of a finished model's exits, (layers,): fitted to the labels of the validation part, or all 1."""
    logits = read_file(run.stage(f"{name}-branches") / "validation_logits.npy")
    if not run.settings.calibrate:
        return np.ones(logits.shape[1])
    return fit_temperatures(run.corpus.labels[run.parts.validation], logits)


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


def exit_curve(exits, labels, speeds, flops):
    """What each speed gives: [{"speed", "accuracy", "macro_f1", "mean_layers", "flops_speedup"}].

    exits: see above
    labels: (texts,) int
    speeds: from 0 to 1
    flops: (the teacher's, (layers,) those of leaving after each layer) for one text
    """
    teacher_flops, flops_through = flops
    points = []
    for speed in speeds:
        layers, logits, _ = exit_outputs(exits, speed)
        points.append({
            "speed": speed, **scores(labels, logits), "mean_layers": float(layers.mean()),
            "flops_speedup": float(teacher_flops / flops_through[layers - 1].mean()),
        })
    return points


def answers_at(exits, speeds):
    """The class that each text has at each of these speeds, (speeds, texts) int. exits: see above"""
    logits, u = exits
    answers, texts = logits.argmax(axis=-1), np.arange(len(u))
    return np.stack([answers[texts, exit_layers(u, speed) - 1] for speed in speeds])


def speeds_tried(settings):
    """The speeds that are chosen from, from the slowest on: those of the curve among others. settings: with speeds"""
    return sorted({*GRID, *settings.speeds})


def highest_speed(exits, labels, settings):
    """(the highest speed up to which no more accuracy is lost than may be, in words why, None: nothing is promised).

    That is the last before the first that loses more: higher ones may lose less again, but by chance.

    exits: on the validation part
    labels: (texts,) int
    settings: with speeds and accuracy_drop, points of accuracy that may be lost against all layers
    """
    speeds, drop = speeds_tried(settings), settings.accuracy_drop
    accuracy = (answers_at(exits, speeds) == labels).mean(axis=1)  # at 0 that of all layers
    place = before_first_failure(accuracy >= accuracy[0] - drop / 100 - 1e-9)
    return speeds[place], f"the highest that loses at most {drop:g} points", None


def promised_speed(exits, settings):
    """(the highest speed that keeps what the settings promise, in words why, the promise).

    exits: on the calibration part, of as many texts as `check_texts` demands
    settings: with speeds, max_disagreement and confidence

    The promise is {"max_disagreement", "confidence", "texts", "disagreements"}, see `common.promise`.
    """
    wanted, speeds = (settings.max_disagreement, settings.confidence), speeds_tried(settings)
    given = answers_at(exits, speeds)
    others, texts = (given != given[0]).sum(axis=1), given.shape[1]  # at 0 all layers answer
    place, flag = fastest_kept(others, texts, *wanted), f"--max-disagreement {wanted[0]:g}"
    promise = dict(zip(PROMISE, (*wanted, texts, int(others[place])), strict=True))
    why = f"the highest that keeps {flag}" if place else f"all layers answer, as no speed above 0 keeps {flag}"
    return speeds[place], f"{why}: {promise_in_words(promise)}", promise


def speed_within(budget, points, timed):
    """(the lowest speed at which a text by itself takes no longer than it may, in words why, None: nothing is promised).

    budget: ms
    points: `exit_curve` of the validation part, speeds ascending
    timed: of the same speeds, {batch size: {"ms", "mean_layers"}} measured on other texts: from it come the ms per layer
    """
    ms = [point["mean_layers"] * at["1"]["ms"] / at["1"]["mean_layers"] for point, at in zip(points, timed, strict=True)]
    fit = [point["speed"] for point, time in zip(points, ms, strict=True) if time <= budget]
    if fit:
        return min(fit), f"the lowest within {budget:g} ms a text", None
    return points[int(np.argmin(ms))]["speed"], f"the fastest, though none keeps within {budget:g} ms a text", None


def exit_record(validation, test, labels, settings, flops, timed, teacher, chosen=None):
    """What a record says of a model that stops early, and its logits (texts, classes) of either part at the speed chosen.

    validation: its exits on the validation part
    test: its exits on the test part
    labels: of either part, a pair
    settings: with speeds and latency_budget
    flops: as `exit_curve` takes them
    timed: of each speed, {"latency_ms" and "int8_latency_ms": {batch size: {"ms", "flops_speedup", "mean_layers"}}}; last, of
        the chosen one, too, if it is none of them
    teacher: its record
    chosen: of `highest_speed` or `promised_speed`; without it the speed is chosen by the latency budget
    """
    own = timed[len(settings.speeds) :]  # of a speed that is none of the curve's
    timed = timed[: len(settings.speeds)]
    if not chosen:
        points = exit_curve(validation, labels[0], settings.speeds, flops)
        chosen = speed_within(settings.latency_budget, points, [at["latency_ms"] for at in timed])
    speed, why, promise = chosen
    exits = [
        point | {
            "wall_speedup": {size: teacher["latency_ms"][size] / at["latency_ms"][size]["ms"] for size in at["latency_ms"]},
            "int8_wall_speedup": {size: teacher["latency_ms"][size] / it["ms"] for size, it in at["int8_latency_ms"].items()},
            "timed": at["latency_ms"],
            "correct": pack_bits(exit_outputs(test, point["speed"])[1].argmax(-1) == labels[1]),
        }
        for point, at in zip(exit_curve(test, labels[1], settings.speeds, flops), timed, strict=True)
    ]
    times, (layers, logits, _) = own[0] if own else timed[settings.speeds.index(speed)], exit_outputs(test, speed)
    on_validation = exit_outputs(validation, speed)[1]
    return {
        "speed": speed, "chosen": why, **({"promise": promise} if promise else {}),
        "validation_accuracy": scores(labels[0], on_validation)["accuracy"], **scores(labels[1], logits),
        "layers": float(layers.mean()), "flops": float(flops[1][layers - 1].mean()),
        **{key: {size: each["ms"] for size, each in of_key.items()} for key, of_key in times.items()},
        "exits": exits, "leaving": np.bincount(layers - 1, minlength=len(flops[1])).tolist(),
        "branch_accuracy": [scores(labels[1], branch)["accuracy"] for branch in test[0].swapaxes(0, 1)],
        "median_uncertainty": np.median(test[1], axis=0).tolist(),
    }, {"validation": on_validation, "test": logits}


# A seed as a whole -------------------------------------------------------------------------------------------------------


def exit_costs(bert, classes, tokens, branch, branch_headed):
    """FLOPs of one text's parts, a multiply-add counting as two: {"layer", "last" of the layers, "branch", "head"}.

    bert: the teacher's `data.berts.Bert`
    classes: how many
    tokens: of the text
    branch: FLOPs of a branch
    branch_headed: whether the teacher's head is one too, and so needs all states of the last layer, not that of [CLS] alone
    """
    layer = encoder_flops(bert.config | {"num_hidden_layers": 1}, tokens)
    last, head = (layer, branch) if branch_headed else (cls_layer_flops(bert.config, tokens), head_flops(bert, classes))
    return {"layer": layer, "last": last, "branch": branch, "head": head}


def exit_flops(costs, layers):
    """(the teacher's FLOPs, (layers,) those of leaving after each layer) for one text; a multiply-add counts as two.

    costs: of `exit_costs`
    layers: of the teacher
    """
    through = np.arange(1, layers + 1) * (costs["layer"] + costs["branch"])
    through[-1] += costs["last"] - costs["layer"] + costs["head"] - costs["branch"]
    return (layers - 1) * costs["layer"] + costs["last"] + costs["head"], through


def exit_records(run, depths, stopping, uncertainty, costs, times, chosen):
    """The records of a seed: of teacher and shallow models with their cost, and of each model that stops early.

    run: `training.Run` of the seed, its stages finished
    depths: {name: layers} of the teacher, named "teacher", and the shallow models
    stopping: names of the models that stop early
    uncertainty: (probabilities (…, classes), top_k) -> u (…), from 0 to 1
    costs: tokens of a text -> those of `exit_costs`
    times: of `export.exits.exit_times`
    chosen: {name of a stopping one: of `highest_speed` or `promised_speed`}; empty if the latency budget chooses
    """
    settings, parts, depth, records = run.settings, run.parts, depths["teacher"], []
    whole = costs(settings.maxlen)
    flops = exit_flops(whole, depth)
    for name, layers in depths.items():
        cost = {"layers": layers, "flops": flops[0] - (depth - layers) * whole["layer"]} | times[name]
        records.append(run.record(name) | cost | {"timed_tokens": times["tokens"]})
    for name in stopping:
        validation, test = (load_exits(run, name, part, uncertainty) for part in ("validation", "test"))
        labels = run.corpus.labels[parts.validation], run.corpus.labels[parts.test]
        record, logits = exit_record(validation, test, labels, settings, flops, times[name], records[0], chosen.get(name))
        for part, of_part in logits.items():
            write_array(run.stage(name) / f"{part}_logits.npy", of_part)
        record |= {"temperatures": exit_temperatures(run, name).tolist()} if settings.calibrate else {}
        record["median_entropy"] = np.median(uncertainty(tf.nn.softmax(test[0]), 0), axis=0).tolist()
        stage = run.record(f"{name}-branches")
        del stage["measured"]  # of the branches' mean
        records.append(stage | {"name": name} | record)
    return records
