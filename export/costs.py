"""What the models of a run cost as they are deployed: operations, and milliseconds in the runtime that is to ask them.

Classifiers of texts are asked by onnxruntime, in float32 and in int8; those of images by TensorFlow. What they have learned
does not matter here.
"""

from dataclasses import replace

import numpy as np

from common.backend import in_float32, tf
from common.bert import swap_pad_id
from common.cost import classifier_flops, graph_flops, wall_clock
from data import bilstms
from data.berts import OUTPUT
from export.bilstm_graph import bilstm_flops, bilstm_graph
from export.onnx_files import asking
from export.onnx_graph import text_graph
from export.onnx_int8 import quantized
from export.timing import turns

SIZES = (1, 32)  # examples that are asked together
GRAPHS = {"bert": (text_graph, classifier_flops), bilstms.KIND: (bilstm_graph, bilstm_flops)}  # by the kind of the model
FORMS = {"latency_ms": lambda graph: graph, "int8_latency_ms": quantized}  # of a graph, timed under these names
TIMED = 64  # test texts, where no setting says how many


def text_costs(run, berts):
    """What classifiers of texts cost: {name: {"layers", "flops", "latency_ms", "int8_latency_ms", "timed_tokens"}}.

    FLOPs are of a text of full length. Each latency is {"1": ms, "32": ms}, means over test texts by themselves and over
    batches of 32; timed_tokens is how many tokens these have on average.

    run: `training.Run` on texts
    berts: {name: `data.berts.Bert` of the model's shape}; one without a classifier is given one
    """
    classes, costs, makers, (batches, tokens) = len(run.corpus.classes), {}, {}, timed_batches(run, TIMED)
    for name, bert in berts.items():
        make_graph, flops = GRAPHS[bert.kind]
        costs[name] = {"layers": bert.layers, "flops": flops(bert, classes, run.settings.maxlen), "timed_tokens": tokens}
        makers |= in_forms(name, make_graph(_as_classifier(bert, classes)))
    times = {size: turns(makers, of_size, rounds=3) for size, of_size in batches.items()}
    for name, key in makers:
        costs[name][key] = by_size([times[size][name, key].mean() for size in SIZES])
    return costs


def in_forms(name, graph):
    """Makers as `timing.turns` takes them, {(name, key): maker}, of an onnx.ModelProto in each of FORMS."""
    return {(name, key): asking(form(graph)) for key, form in FORMS.items()}


def timed_batches(run, count):
    """Test texts of a run that models are timed on, drawn at random, and how many tokens they have on average.

    run: `training.Run` on texts
    count: of texts at most

    Returns ({1: [(token ids, segment ids)] of a quarter of them, each by itself, 32: the same of all, in batches that are
    padded to their longest; the last is filled up with the first}, tokens).
    """
    indices = np.random.default_rng(run.seed).permutation(run.parts.test)[:count]
    drawn = {1: indices[: -(-len(indices) // 4)], 32: np.resize(indices, -(-len(indices) // 32) * 32)}
    batches = {size: [_inputs(run, some[i : i + size]) for i in range(0, len(some), size)] for size, some in drawn.items()}
    return batches, float(run.examples.lengths(indices).mean())


def _inputs(run, indices):
    """(token ids, segment ids) of examples as the tokenizer pads them."""
    token_ids, segment_ids = run.examples.inputs(indices)
    return np.array(swap_pad_id(token_ids, run.bert.pad_id)), segment_ids


def in_words(run, tokens):
    """Of what examples the costs of a run are told. tokens: of the texts that were timed, on average"""
    return f"one text of {run.settings.maxlen} tokens (timed: test texts, {tokens:.0f} tokens on average)"


def _as_classifier(bert, classes):
    """`bert`, with a linear classifier if it has none."""
    if bert.is_classifier:
        return bert
    head = np.zeros((classes, bert.config["hidden_size"]), np.float32), np.zeros(classes, np.float32)
    return replace(bert, weights=bert.weights | dict(zip(OUTPUT, head, strict=True)))


def image_costs(run, builders):
    """What classifiers of images cost: {name: {"layers", "flops", "latency_ms"}}. See `text_costs`.

    run: `training.Run` on images
    builders: {name: () -> Keras model}
    """
    with in_float32(run.settings.precision):
        models = {name: build() for name, build in builders.items()}
        graphs = {name: tf.function(lambda x, model=model: model(x)) for name, model in models.items()}
        batches = [tf.zeros((size, *run.corpus.pixels.shape[1:])) for size in SIZES]
        times = wall_clock(graphs, batches, rounds=15)
    layers = {name: sum(bool(layer.weights) for layer in model.layers) for name, model in models.items()}
    return {
        name: {"layers": layers[name], "flops": graph_flops(model), "latency_ms": by_size(times[name])}
        for name, model in models.items()
    }


def by_size(seconds):
    """{"1": ms, "32": ms} of the seconds that each of SIZES takes."""
    return {str(size): 1000 * float(time) for size, time in zip(SIZES, seconds, strict=True)}
