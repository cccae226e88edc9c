"""What a model costs: floating-point operations, and seconds of several functions that take turns."""

import itertools
import time

import numpy as np

from common.backend import tf


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


def cls_layer_flops(config, tokens):
    """Floating-point operations of a layer of which [CLS] alone is computed, as in `export.onnx_graph.attention_of_cls`.

    Four hidden x hidden products and the two of the feed-forward part, of one token; and two with the states of all tokens,
    one a head: their weights, and their mean.

    config: the entries of config.json
    tokens: of the text
    """
    hidden, inner, heads = (config[key] for key in ("hidden_size", "intermediate_size", "num_attention_heads"))
    return 2 * (4 * hidden * hidden + 2 * heads * tokens * hidden + 2 * hidden * inner)


def head_flops(bert, classes):
    """Floating-point operations of the classifier upon [CLS], and of its pooler if `bert` has one; a multiply-add is two."""
    hidden = bert.config["hidden_size"]
    return 2 * hidden * (classes + hidden * bert.has_pooler)


def classifier_flops(bert, classes, tokens):
    """Floating-point operations of a classifier of one text as it is deployed: of its last layer [CLS] alone is computed.

    bert: `data.berts.Bert`
    classes: how many
    tokens: of the text
    """
    below = encoder_flops(bert.config | {"num_hidden_layers": bert.layers - 1}, tokens)
    return below + cls_layer_flops(bert.config, tokens) + head_flops(bert, classes)


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
    return {name: np.median(taken[2:], axis=0) for name, taken in seconds.items()}
