"""A BERT that may stop after any of its layers: its pieces, the graph that really stops, what it answers and costs.

How sure a branch is of a text, what a branch looks like and how it is taught is the script's story.
"""

from dataclasses import dataclass, replace

import numpy as np

from common.backend import inference_graph, keras, tf
from common.bert import TEXT_SIGNATURE, build_encoder, embeddings_of, inputs_and_mask, swap_pad_id
from common.cost import cls_layer_flops, encoder_flops, head_flops
from common.evaluation import pack_bits, scores
from common.files import write_array
from data.berts import keep_layers

EXIT_SIGNATURE = (*TEXT_SIGNATURE, tf.TensorSpec((), tf.float32, name="speed"))


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


# The graph -------------------------------------------------------------------------------------------------------------


def early_exit_graph(pieces, uncertainty, pad_id=0):
    """One graph: (token ids, segment ids, speed) -> {"probabilities", "layers_used", "uncertainty"} of each text.

    token ids, segment ids: (texts, tokens) int32, padded with pad_id. speed: a float32; a text leaves after the first layer
    whose branch has u < speed, so that at 0 every text has the teacher's answer. probabilities: (texts, classes) float32.
    layers_used: (texts,) int32, how many were computed. uncertainty: (texts,) float32, of the answer. After each layer the
    batch shrinks to the texts that are undecided; when none is left, nothing above is computed.

    pieces: the ExitModel
    uncertainty: probabilities (texts, classes) -> u (texts,), from 0 to 1
    pad_id: for a graph that is given away: it takes ids as the tokenizer makes them (see `bert.swap_pad_id`)
    """
    depth, classes = len(pieces.layers), pieces.branches[-1].output_shape[-1]

    def step(number, hidden, mask, places, answers, speed):
        """Layer `number` and its branch, for the undecided: (hidden, mask, places) of those who still are, and the answers.

        places: which text of the batch each is. answers: of the whole batch, (texts, classes + 2): probabilities, u, layers.
        """
        hidden = pieces.layers[number - 1](hidden, mask=mask, training=False)  # (undecided, tokens, hidden)
        p = tf.nn.softmax(pieces.branches[number - 1](hidden, mask=mask, training=False))  # (undecided, classes)
        u = uncertainty(p)  # (undecided,)
        update = tf.concat([p, tf.stack([u, tf.fill(tf.shape(u), float(number))], axis=1)], axis=1)
        answers = tf.tensor_scatter_nd_update(answers, places[:, None], update)  # a later layer may write over them
        # Not ~(u < speed), which TensorFlow's optimizer turns into u >= speed, and so lets NaN go.
        staying = tf.where((u >= speed) | tf.math.is_nan(u - speed))[:, 0]
        return *(tf.gather(x, staying) for x in (hidden, mask, places)), answers

    def rest_from(number):
        """The model from layer `number` on: (hidden, mask, places, answers, speed) -> answers."""
        deeper = rest_from(number + 1) if number < depth else None

        # Not inlined: TensorFlow would walk through every layer, if only to find that it is not to be computed.
        @tf.function(autograph=False, experimental_attributes={"_noinline": True})
        def rest(hidden, mask, places, answers, speed):
            hidden, mask, places, answers = step(number, hidden, mask, places, answers, speed)
            if not deeper:
                return answers
            return tf.cond(tf.size(places) > 0, lambda: deeper(hidden, mask, places, answers, speed), lambda: answers)

        return rest

    whole = rest_from(1)

    def answer(token_ids, segment_ids, speed):
        token_ids = swap_pad_id(token_ids, pad_id)
        hidden, mask = pieces.embeddings([token_ids, segment_ids], training=False), tf.not_equal(token_ids, 0)
        count = tf.shape(token_ids)[0]
        answers = whole(hidden, mask, tf.range(count), tf.zeros((count, classes + 2)), speed)
        p, u, layers = tf.split(answers, [classes, 1, 1], axis=1)
        return {"probabilities": p, "layers_used": tf.cast(layers[:, 0], tf.int32), "uncertainty": u[:, 0]}

    return inference_graph(answer, *EXIT_SIGNATURE)


# What it answers: `exits` are (logits (texts, layers, classes), uncertainty (texts, layers)) of all exits ---------------------


def load_exits(run, name, part, uncertainty):
    """The exits of a finished model on a part, as its stage left them.

    run: `training.Run` of its seed
    name: of the model, whose stage is `name`-branches
    part: "validation" or "test"
    uncertainty: (probabilities (…, classes), top_k) -> u (…), from 0 to 1
    """
    logits = np.load(run.stage(f"{name}-branches") / f"{part}_logits.npy")
    return logits, uncertainty(tf.nn.softmax(logits), run.settings.uncertainty_top_k).numpy()


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


def choose_speed(points, timed, teacher_accuracy, accuracy_drop, latency_budget):
    """(which speed to use, judged on the validation part; in words, why).

    points: `exit_curve` of the validation part, speeds ascending
    timed: of the same speeds, {batch size: {"ms", "mean_layers"}} measured on other texts: from it come the ms per layer
    teacher_accuracy: on the validation part, as a fraction
    accuracy_drop: points of accuracy that may be lost; the highest speed that keeps to it
    latency_budget: above 0, instead: ms that a text by itself may take; the lowest speed that keeps to it
    """
    if latency_budget:  # a text by itself takes the ms per layer of those that were timed, times its layers
        ms = [point["mean_layers"] * at["1"]["ms"] / at["1"]["mean_layers"] for point, at in zip(points, timed, strict=True)]
        fit = [point["speed"] for point, time in zip(points, ms, strict=True) if time <= latency_budget]
        if fit:
            return min(fit), f"the lowest within {latency_budget:g} ms a text"
        fastest = points[int(np.argmin(ms))]["speed"]
        return fastest, f"the fastest, though none keeps within {latency_budget:g} ms a text"
    wanted = teacher_accuracy - accuracy_drop / 100 - 1e-9
    fit = [point["speed"] for point in points if point["accuracy"] >= wanted]
    if fit:
        return max(fit), f"the highest that loses at most {accuracy_drop:g} points"
    best = max(points, key=lambda point: (point["accuracy"], point["speed"]))
    return best["speed"], f"the most accurate, though none loses only {accuracy_drop:g} points"


def exit_record(validation, test, labels, settings, flops, timed, teacher):
    """What a record says of a model that stops early, and its logits (texts, classes) of either part at the speed chosen.

    validation: its exits on the validation part
    test: its exits on the test part
    labels: of either part, a pair
    settings: with speeds, accuracy_drop and latency_budget
    flops: as `exit_curve` takes them
    timed: of each speed, {"latency_ms" and "int8_latency_ms": {batch size: {"ms", "flops_speedup", "mean_layers"}}}
    teacher: its record
    """
    points, plain = exit_curve(validation, labels[0], settings.speeds, flops), [at["latency_ms"] for at in timed]
    speed, why = choose_speed(points, plain, teacher["validation_accuracy"], settings.accuracy_drop, settings.latency_budget)
    exits = [
        point | {
            "wall_speedup": {size: teacher["latency_ms"][size] / at["latency_ms"][size]["ms"] for size in at["latency_ms"]},
            "int8_wall_speedup": {size: teacher["latency_ms"][size] / it["ms"] for size, it in at["int8_latency_ms"].items()},
            "timed": at["latency_ms"],
            "correct": pack_bits(exit_outputs(test, point["speed"])[1].argmax(-1) == labels[1]),
        }
        for point, at in zip(exit_curve(test, labels[1], settings.speeds, flops), timed, strict=True)
    ]
    place, (layers, logits, _) = settings.speeds.index(speed), exit_outputs(test, speed)
    return {
        "speed": speed, "chosen": why, "validation_accuracy": points[place]["accuracy"],
        "accuracy": exits[place]["accuracy"], "macro_f1": exits[place]["macro_f1"],
        "layers": exits[place]["mean_layers"], "flops": float(flops[1][layers - 1].mean()),
        **{key: {size: each["ms"] for size, each in of_key.items()} for key, of_key in timed[place].items()},
        "exits": exits, "leaving": np.bincount(layers - 1, minlength=len(flops[1])).tolist(),
        "branch_accuracy": [scores(labels[1], branch)["accuracy"] for branch in test[0].swapaxes(0, 1)],
        "median_uncertainty": np.median(test[1], axis=0).tolist(),
    }, {"validation": exit_outputs(validation, speed)[1], "test": logits}


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


def exit_records(run, depths, stopping, uncertainty, costs, times):
    """The records of a seed: of teacher and shallow models with their cost, and of each model that stops early.

    run: `training.Run` of the seed, its stages finished
    depths: {name: layers} of the teacher, named "teacher", and the shallow models
    stopping: names of the models that stop early
    uncertainty: (probabilities (…, classes), top_k) -> u (…), from 0 to 1
    costs: tokens of a text -> those of `exit_costs`
    times: of `export.exits.exit_times`
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
        record, logits = exit_record(validation, test, labels, settings, flops, times[name], records[0])
        for part, of_part in logits.items():
            write_array(run.stage(name) / f"{part}_logits.npy", of_part)
        record["median_entropy"] = np.median(uncertainty(tf.nn.softmax(test[0]), 0), axis=0).tolist()
        stage = run.record(f"{name}-branches")
        del stage["measured"]  # of the branches' mean
        records.append(stage | {"name": name} | record)
    return records
