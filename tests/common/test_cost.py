"""common.cost: floating-point operations and latency."""

import numpy as np
import pytest

from common import cost
from common.backend import keras, tf
from common.cost import (
    classifier_flops,
    cls_layer_flops,
    encoder_flops,
    exit_costs,
    exit_flops,
    graph_flops,
    head_flops,
    wall_clock,
)
from data import berts
from export.onnx_graph import text_graph


def test_flops_are_those_tensorflow_counts(taken):
    tokens, config, model = 24, taken.bert.config, taken.classifier.encoder.model
    graph = tf.function(lambda *x: model(list(x))).get_concrete_function(*[tf.TensorSpec((1, tokens))] * 2).graph
    options = tf.compat.v1.profiler.ProfileOptionBuilder.float_operation() | {"output": "none"}
    profile = tf.compat.v1.profiler.profile(graph, cmd="op", options=options)
    while profile.name != "MatMul":
        profile = profile.children[0]
    # TensorFlow does not count Einsum, in which bert4keras does the two products of attention.
    attention = config["num_hidden_layers"] * 2 * 2 * tokens * tokens * config["hidden_size"]
    assert encoder_flops(config, tokens) == profile.float_ops + attention


def test_flops_of_a_network_without_attention():
    """A product of n x m weights is 2 n m operations; adding the biases and ReLU are one each."""
    layers = [keras.Input((6,)), keras.layers.Dense(5, activation="relu"), keras.layers.Dense(3)]
    found = graph_flops(keras.Sequential(layers))
    assert 2 * (6 * 5 + 5 * 3) + 5 + 3 <= found <= 2 * (6 * 5 + 5 * 3) + 5 + 3 + 5


def test_flops_of_bert_base_are_the_published_ones():
    """FastBERT (2004.02178) gives 21,785 M for BERT-base at 128 tokens, a multiply-add counting as two; with its classifier."""
    config = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12}
    assert encoder_flops(config, 128) == pytest.approx(21_785e6, rel=0.04)


def test_flops_of_a_layer_of_cls_alone_are_those_of_the_products_that_its_graph_has(taken):
    """Two for each number of a weight that [CLS] meets, in every MatMul of the ONNX graph; and what all tokens are asked."""
    config, tokens = taken.bert.config, 24
    graph = text_graph(taken.classifier.bert)
    shapes = {array.name: list(array.dims) for array in graph.graph.initializer}
    hidden, heads, last = config["hidden_size"], config["num_attention_heads"], f"layer_{taken.bert.layers - 1}/"
    weights = [name for node in graph.graph.node if node.op_type == "MatMul" for name in node.input if last in name]
    assert len(weights) == 6  # query, keys, values, output, and the feed-forward part's two
    asked_of_all = [node for node in graph.graph.node if node.op_type == "FusedMatMul"]
    assert len(asked_of_all) == 1  # the weights; their mean is a MatMul of no weight
    expected = sum(2 * np.prod(shapes[name]) for name in weights) + 2 * 2 * heads * tokens * hidden
    assert cls_layer_flops(config, tokens) == expected
    whole = encoder_flops(config | {"num_hidden_layers": 1}, tokens)
    assert classifier_flops(taken.bert, 4, tokens) == whole + expected + head_flops(taken.bert, 4)


def test_wall_clock_takes_turns_in_an_order_of_its_own_and_counts_the_last_rounds(monkeypatch):
    called, now = [], [0.0]
    monkeypatch.setattr(cost.time, "perf_counter", lambda: now[0])

    def timed(name, seconds):
        def run(batch):
            called.append((name, batch))
            now[0] += 9 if len(called) <= 8 else seconds[batch] + (len(called) == 12)  # two slow rounds, then a stall
            return tf.constant(0)

        return run

    found = wall_clock({"slow": timed("slow", {"x": 3, "y": 4}), "quick": timed("quick", {"x": 1, "y": 2})}, ["x", "y"], 3)
    assert [batch for _, batch in called] == ["x", "x", "y", "y"] * 5
    assert len({tuple(name for name, _ in called[i : i + 2]) for i in range(0, 20, 2)}) == 2  # both orders occur
    assert found["slow"].tolist() == [3, 4] and found["quick"].tolist() == [1, 2]


def test_what_leaving_after_each_layer_costs(bert_folder):
    """Layer and branch for each layer passed; the last one's head in place of a branch, of [CLS] alone if it is linear."""
    bert, tokens = berts.load(str(bert_folder)), 16
    layer = encoder_flops(bert.config | {"num_hidden_layers": 1}, tokens)
    teacher, through = exit_flops(exit_costs(bert, 5, tokens, branch=1000, branch_headed=True), 4)
    assert teacher == 4 * layer + 1000 and through.tolist() == [i * (layer + 1000) for i in range(1, 5)]
    teacher, through = exit_flops(exit_costs(bert, 5, tokens, branch=1000, branch_headed=False), 4)
    assert teacher == classifier_flops(bert, 5, tokens) < 3 * layer + 0.5 * layer
    assert through.tolist() == [*(i * (layer + 1000) for i in range(1, 4)), teacher + 3000]
