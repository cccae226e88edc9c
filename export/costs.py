"""What the models of a run cost as they are deployed: operations, and milliseconds in the runtime that is to ask them.

Classifiers of texts are asked by onnxruntime, in float32 and in int8; those of images by TensorFlow. What they have learned
does not matter here.
"""

from dataclasses import replace

import numpy as np

from common.backend import in_float32, tf
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
ONES = 15  # calls of one text for each of 32: what they find in the caches is then mostly what one text leaves there


def text_costs(run, berts):
    """What classifiers of texts cost: {name: {"layers", "flops", "latency_ms", "int8_latency_ms"}}.

    Each latency is {"1": ms, "32": ms}, of one text of full length and of 32.

    run: `training.Run` on texts
    berts: {name: `data.berts.Bert` of the model's shape}; one without a classifier is given one
    """
    classes, tokens, costs, makers = len(run.corpus.classes), run.settings.maxlen, {}, {}
    for name, bert in berts.items():
        make_graph, flops = GRAPHS[bert.kind]
        costs[name] = {"layers": bert.layers, "flops": flops(bert, classes, tokens)}
        graph = make_graph(_as_classifier(bert, classes))
        makers |= {(name, "latency_ms"): asking(graph), (name, "int8_latency_ms"): asking(quantized(graph))}
    one, many = [(np.full((size, tokens), run.bert.pad_id + 1, np.int32), np.zeros((size, tokens), np.int32)) for size in SIZES]
    for (name, key), seconds in turns(makers, [one] * ONES + [many], rounds=5).items():
        costs[name][key] = by_size([seconds[:ONES].mean(), seconds[ONES]])
    return costs


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
