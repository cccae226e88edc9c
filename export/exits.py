"""A model that stops early as it is deployed: its graphs, its promise, and the clock beside models that compute all layers."""

import contextlib
import json
from dataclasses import replace
from functools import partial

import numpy as np
from onnx import helper

from common import InputError
from common.backend import forget_models, in_float32
from common.bert import read_encoder, swap_pad_id, with_head
from common.cost import exit_flops
from common.early_exit import all_exits, early_exit_graph, with_embeddings
from common.evaluation import predict
from common.exit_curve import chosen_top_k, exit_records, exits_of, highest_speed, load_logits, promised_speed
from common.files import fingerprint, load_or_compute, read_file, write_atomic
from data import vocabulary
from data.berts import keep_layers
from export import exit_graph
from export.costs import FORMS, in_forms, timed_batches
from export.deployed import TextModel, examples_of, trimmed, whole_graph
from export.timing import turns


def exit_model(run, pieces, record, uncertainty, heads):
    """The trained model of a record as a TextModel.

    run: `training.Run` of its seed
    pieces: its `early_exit.ExitModel`
    record: with its name, its uncertainty_top_k, its speed and, if it has one, its promise
    uncertainty: as of `text_model`
    heads: of a branch's self-attention
    """
    config = {key: record[key] for key in ("speed", "uncertainty_top_k", "promise") if key in record}
    expected = calibration_logits(run, record["name"], None)[1] if "promise" in record else None
    return text_model(pieces, keep_layers(run.bert, range(len(pieces.layers))), uncertainty, heads, config, expected)


def text_model(pieces, start, uncertainty, heads, config, expected=None):
    """A trained `early_exit.ExitModel` as a TextModel.

    pieces: the ExitModel
    start: the `data.berts.Bert` that its encoder was built from
    uncertainty: (probabilities (…, classes), top_k) -> u (…), from 0 to 1: the entropy
    heads: of a branch's self-attention
    config: further entries of config.json, among them speed and uncertainty_top_k; they are metadata of the ONNX graph, too
    expected: of the TextModel
    """
    whole, top_k = read_encoder(pieces.encoder, start), config["uncertainty_top_k"]

    def graph(bert):
        own = pieces if bert is whole else with_embeddings(pieces, bert)
        return early_exit_graph(own, partial(uncertainty, top_k=top_k), pad_id=bert.pad_id)

    def onnx_of(bert):
        branches = pieces.branches
        if not pieces.branch_headed:
            *branches, head = branches
            bert = with_head(bert, head)
        model = exit_graph.exit_graph(bert, [branch.get_weights() for branch in branches], heads, top_k)
        helper.set_model_props(model, {key: json.dumps(value) for key, value in config.items()})
        return model

    return TextModel(whole, graph, onnx_of, config, expected)


def teacher_onnx(heads, classifier, bert=None):
    """A BertClassifier whose head is a branch, or linear, as an onnx.ModelProto that computes all its layers.

    heads: of the branch's self-attention; 0 says that the head is linear
    classifier: the BertClassifier
    bert: its encoder, if not just as it is
    """
    bert = bert or read_encoder(classifier.encoder, classifier.start)
    if not heads:
        bert = with_head(bert, classifier.head)
    return exit_graph.teacher_graph(bert, classifier.head.get_weights(), heads)


def measure_exits(run, depths, plain, names, student, trained, uncertainty, costs):
    """The records of a seed, as `exit_curve.exit_records` has them.

    run: `training.Run`
    depths: {name: layers} of the teacher and the shallow models
    plain: {name: () -> onnx.ModelProto} of these
    names: of models that take a speed
    student: the record of one of those -> its TextModel
    trained: name of one of those -> its ExitModel
    uncertainty: (probabilities (…, classes), top_k) -> u (…), from 0 to 1: the entropy
    costs: tokens of a text -> those of `cost.exit_costs`
    """
    settings, labels, exits, chosen = run.settings, run.corpus.labels[run.parts.validation], {}, {}
    for name in names:
        logits = {part: load_logits(run, name, part) for part in ("validation", "test")}
        top_k = chosen_top_k(logits["validation"], settings, uncertainty)
        exits[name] = {part: exits_of(of_part, uncertainty, top_k) for part, of_part in logits.items()}
        chosen[name] = {"uncertainty_top_k": top_k}
        if settings.max_disagreement is not None:
            kept, expected = calibration_logits(run, name, trained)
            chosen[name] |= promised_speed(exits_of(kept, uncertainty, top_k), expected, settings)
        elif not settings.latency_budget:  # which needs the clock
            chosen[name] |= highest_speed(exits[name]["validation"], labels, settings.speeds, settings.accuracy_drop)
    curve = {name: (each["uncertainty_top_k"], settings.speeds) for name, each in chosen.items()}
    times = exit_times(run, plain, curve, student, lambda tokens: exit_flops(costs(tokens), depths["teacher"]))
    return exit_records(run, depths, exits, uncertainty, costs, times, chosen)


def calibration_logits(run, name, trained):
    """What a finished model answers to the calibration part in float32: computed once, and then read.

    run: `training.Run`
    name: of the model, whose stage is `name`-branches
    trained: name -> its ExitModel; not asked where they are there already

    Returns (logits (texts, layers, classes) of all exits, the texts read with the tokens that the student keeps; classes
    (texts,) int that all layers answer, read with all tokens).
    """
    indices, tokens = run.parts.calibration, (run.settings.vocabulary, vocabulary.LEAST, vocabulary.KEPT)
    path = run.stage(f"{name}-branches") / f"calibration-{fingerprint(indices, tokens)}.npz"
    with contextlib.suppress(InputError, KeyError):  # if it is not there whole, it is computed anew
        stored = read_file(path)
        return stored["logits"], stored["expected"]
    with in_float32(run.settings.precision):
        model, bert = all_exits(trained(name)), trimmed(run, run.bert)
        whole = predict(model, run.examples, indices)
        own = whole if bert is run.bert else predict(model, read_as(run, bert, indices), np.arange(len(indices)))
    arrays = {"logits": own, "expected": whole[:, -1].argmax(axis=-1)}
    write_atomic(path, lambda file: np.savez(file, **arrays))
    return arrays["logits"], arrays["expected"]


def read_as(run, bert, indices):
    """Texts of a run as a trimmed BERT's tokenizer reads them, in the ids of the whole one: TokenizedTexts."""
    examples, whole = examples_of(run, bert, indices), run.bert
    ids = vocabulary.original_ids(whole, bert)[np.array(swap_pad_id(examples.ids, bert.pad_id))].astype(np.int32)
    return replace(examples, ids=np.array(swap_pad_id(ids, whole.pad_id)))


def exit_times(run, plain, asked, student, flops):
    """How long models take on test texts of a run: measured once, and anew only where the settings ask for other times.

    run: `training.Run`
    plain: {name: () -> onnx.ModelProto} of models that compute all their layers
    asked: {name of one that takes a speed: (its uncertainty_top_k, its speeds)}
    student: the record of one of those -> its TextModel
    flops: tokens of a text -> as `exit_curve.exit_curve` takes them

    Returns {"tokens": of these texts on average, name of a plain one: {"latency_ms", "int8_latency_ms": {"1": ms, "32": ms}},
    name of a stopping one: [{"latency_ms", "int8_latency_ms": {"1": {"ms", "flops_speedup", "mean_layers"}, "32": …}} of each
    of its speeds]}. ms are means over batches; the other two are computed for the very texts and lengths that were timed: what
    the time is to be held against.
    """
    def early(name, top_k):
        return whole_graph(student({"name": name, "speed": 0.0, "uncertainty_top_k": top_k}))

    def measure():
        stopping = {name: partial(early, name, top_k) for name, (top_k, _) in asked.items()}
        return time_exits(run, plain, stopping, flops, {name: speeds for name, (_, speeds) in asked.items()})

    of = fingerprint(run.settings.timed_examples, sorted(plain), sorted(asked.items()))
    return load_or_compute(run.folder / f"seed-{run.seed}" / f"times-{of}.json", measure)


def time_exits(run, plain, stopping, flops, speeds):
    """The same measured now, the models taking turns: a quarter of the texts by themselves ("1"), all in batches of 32 ("32").

    plain: {name: () -> onnx.ModelProto} of models that compute all their layers
    stopping: {name: () -> onnx.ModelProto} of models that take a speed
    """
    speeds, makers = {name: [np.array(speed, np.float32) for speed in speeds[name]] for name in stopping}, {}
    with in_float32(run.settings.precision):
        for name, build in (plain | stopping).items():
            makers |= in_forms(name, build())
            forget_models()  # one is alive at a time
    of_size, tokens = timed_batches(run, run.settings.timed_examples)
    times = {name: {key: {} for key in FORMS} for name in plain}
    times |= {name: [{key: {} for key in FORMS} for _ in speeds[name]] for name in stopping}
    for size, batches in of_size.items():
        at_speeds = {name: [(*batch, speed) for speed in speeds[name] for batch in batches] for name in stopping}
        asked = {(name, key): at_speeds.get(name, batches) for name, key in makers}
        for (name, key), seconds in turns(makers, asked, rounds=3).items():
            ms = 1000 * seconds.reshape(-1, len(batches)).mean(axis=1)  # at each speed
            if name in plain:
                times[name][key][str(size)] = float(ms[0])
                continue
            ask = makers[name, key]()
            for place, speed in enumerate(speeds[name]):
                expected = expected_speedup(batches, lambda batch, ask=ask, speed=speed: ask((*batch, speed)), flops)
                times[name][place][key][str(size)] = {"ms": float(ms[place])} | expected
    return times | {"tokens": tokens}


def expected_speedup(batches, ask, flops):
    """{"flops_speedup", "mean_layers"} of these batches, at the lengths that they are padded to.

    batches: [(token ids, segment ids)]
    ask: batch -> [probabilities, layers used, …]
    flops: tokens of a text -> as `exit_curve.exit_curve` takes them
    """
    all_layers, computed, layers = 0, 0, []
    for batch in batches:
        whole, through = flops(batch[0].shape[1])
        layers.append(ask(batch)[1])
        all_layers += whole * len(layers[-1])
        computed += through[layers[-1] - 1].sum()
    return {"flops_speedup": float(all_layers / computed), "mean_layers": float(np.concatenate(layers).mean())}
