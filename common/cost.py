"""What a model costs: floating-point operations and latency."""

import itertools
import time

import numpy as np

from common.backend import in_float32, tf
from common.bert import build_classifier
from data.berts import keep_layers


def graph_flops(model):
    """Floating-point operations of `model` for one example, as TensorFlow's profiler counts them; a multiply-add is two.

    The profiler does not count Einsum, so BERTs, whose attention is made of it, have `encoder_flops`.
    """
    inputs = [tf.TensorSpec([1, *x.shape[1:]], x.dtype) for x in model.inputs]
    graph = tf.function(lambda *x: model(x[0] if len(x) == 1 else list(x))).get_concrete_function(*inputs).graph
    options = tf.compat.v1.profiler.ProfileOptionBuilder.float_operation() | {"output": "none"}
    return tf.compat.v1.profiler.profile(graph, cmd="op", options=options).total_float_ops


def encoder_flops(config, tokens):
    """Floating-point operations of a BERT encoder for one text of `tokens` tokens; a multiply-add counts as two.

    Counted are the matrix products of the layers, which are nearly all of the work: four hidden x hidden ones, the
    two of attention, and the two of the feed-forward part.

    config: the entries of config.json
    tokens: of the text
    """
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    layer = 4 * tokens * hidden * hidden + 2 * tokens * tokens * hidden + 2 * tokens * hidden * inner
    return 2 * config["num_hidden_layers"] * layer


def head_flops(bert, classes):
    """Floating-point operations of the classifier upon [CLS], and of its pooler if `bert` has one; a multiply-add is two."""
    hidden = bert.config["hidden_size"]
    return 2 * hidden * (classes + hidden * bert.has_pooler)


def latency(models, inputs):
    """Milliseconds of one forward pass, by batch size: {name: {"1": ms, "32": ms}}. How: see `wall_clock`.

    models: {name: model}
    inputs: batch size -> their inputs
    """
    graphs = {name: tf.function(lambda x, model=model: model(x)) for name, model in models.items()}
    times = {size: wall_clock(graphs, [inputs(size)], rounds=15) for size in (1, 32)}
    return {name: {str(size): 1000 * float(of_size[name][0]) for size, of_size in times.items()} for name in models}


def wall_clock(functions, batches, rounds):
    """Median wall-clock seconds of each batch over `rounds` rounds: {name: (batches,) float64}.

    Functions take turns at every batch in an order of its own, so that a busy moment of the machine falls on all of them, and
    what one leaves in the cache serves none more than another; two first rounds, in which graphs are built and memory is
    claimed, do not count.

    functions: {name: function of a batch that returns tensors or arrays}
    batches: list of what they take
    rounds: how many count
    """
    names, order = [*functions], np.random.default_rng(0)
    seconds = {name: np.zeros((rounds + 2, len(batches))) for name in names}
    for turn, (place, batch) in itertools.product(range(rounds + 2), enumerate(batches)):
        for name in map(names.__getitem__, order.permutation(len(names))):
            function = functions[name]
            start = time.perf_counter()
            tf.nest.map_structure(np.asarray, function(batch))  # all of it is there
            seconds[name][turn, place] = time.perf_counter() - start
    return {name: np.median(rounds[2:], axis=0) for name, rounds in seconds.items()}


def text_costs(run, depths):
    """What classifiers of texts cost, trained or not: {str(depth): {"layers", "flops", "latency_ms"}}.

    Timed in float32, as student/ has it, whatever they are trained in.

    run: `training.Run` on texts
    depths: numbers of layers
    """
    classes, tokens = len(run.corpus.classes), run.settings.maxlen
    berts = {str(depth): keep_layers(run.bert, range(depth)) for depth in depths}
    with in_float32(run.settings.precision):
        classifiers = {depth: build_classifier(bert, classes, 0).model for depth, bert in berts.items()}
        times = latency(classifiers, lambda size: (tf.ones((size, tokens), tf.int32), tf.zeros((size, tokens), tf.int32)))
    head = head_flops(run.bert, classes)
    return {
        depth: {"layers": bert.layers, "flops": encoder_flops(bert.config, tokens) + head, "latency_ms": times[depth]}
        for depth, bert in berts.items()
    }


def image_costs(run, builders):
    """What classifiers of images cost, trained or not: {name: {"layers", "flops", "latency_ms"}}. See `text_costs`.

    run: `training.Run` on images
    builders: {name: () -> Keras model}
    """
    with in_float32(run.settings.precision):
        models = {name: build() for name, build in builders.items()}
        times = latency(models, lambda size: tf.zeros((size, *run.corpus.pixels.shape[1:])))
    layers = {name: sum(bool(layer.weights) for layer in model.layers) for name, model in models.items()}
    return {
        name: {"layers": layers[name], "flops": graph_flops(model), "latency_ms": times[name]} for name, model in models.items()
    }
