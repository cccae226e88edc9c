"""export.exit_graph: what the graph of a FastBERT answers, against one written in numpy; what it computes, and for whom."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from scipy.special import softmax

from common import InputError
from data.berts import OUTPUT, POOLER
from tests.export.test_onnx_graph import classifier, examples
from tests.numpy_bert import numpy_bert, numpy_branch, numpy_head
from tests.tiny import CONFIG, without

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
exit_graph = pytest.importorskip("export.exit_graph")
quantized = pytest.importorskip("export.onnx_int8").quantized

CLASSES, WIDTH, HEADS = 5, 16, 2
KINDS = (  # of last exits, depths, paddings and activations
    {"last": "branch"}, {"last": "linear"}, {"last": "pooler"}, {"last": "branch", "layers": 4, "pad_id": 3},
    {"last": "linear", "layers": 4, "hidden_act": "relu"}, {"last": "pooler", "layers": 4, "pad_id": 3},
)


def fastbert(last, layers=2, pad_id=0, classes=CLASSES, **config):
    """(`data.berts.Bert`, weights of its branches) of a tiny random FastBERT. last: its last exit"""
    bert = classifier(pooler=last == "pooler", pad_id=pad_id, num_hidden_layers=layers, **config)
    if last == "branch":
        bert = without(bert, *POOLER, *OUTPUT)
    rng, hidden = np.random.default_rng(6), bert.config["hidden_size"]
    shapes = [(hidden, WIDTH), *[(WIDTH, WIDTH)] * 5, (WIDTH, classes)]
    branches = [
        [rng.normal(0, 0.5, part).astype(np.float32) for shape in shapes for part in (shape, shape[1:])]
        for _ in range(layers - (last != "branch"))
    ]
    return bert, branches


def numpy_exits(bert, branches, token_ids, segment_ids):
    """Probabilities (texts, layers, classes) of all exits."""
    states = numpy_bert(bert.weights, bert.config, token_ids, segment_ids=segment_ids, pad_id=bert.pad_id)[1:]
    mask = token_ids != bert.pad_id
    logits = [numpy_branch(weights, hidden, mask, HEADS) for weights, hidden in zip(branches, states, strict=False)]
    if bert.is_classifier:
        logits.append(numpy_head(bert.weights, states[-1]))
    return softmax(np.stack(logits, axis=1), axis=-1)


def numpy_uncertainty(p, top_k=0):
    """Of probabilities (…, classes)."""
    kept = np.sort(p, axis=-1)[..., -top_k:]
    return stats.entropy(kept, axis=-1) / np.log(kept.shape[-1])


def session(model, profile=None):
    options = onnxruntime.SessionOptions()
    if profile:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def ask(session, token_ids, segment_ids, speed):
    """{name: array} of all that it answers."""
    inputs = {"token_ids": token_ids, "segment_ids": segment_ids, "speed": np.array(speed, np.float32)}
    return dict(zip((output.name for output in session.get_outputs()), session.run(None, inputs), strict=True))


@cache
def asked(kind, top_k):
    """(session of such a FastBERT, (token ids, segment ids) of 9 texts, probabilities and uncertainty of all exits)."""
    bert, branches = fastbert(**dict(kind))
    model = exit_graph.exit_graph(bert, branches, HEADS, top_k)
    onnx.checker.check_model(model, full_check=True)
    inputs = examples(bert, count=9)
    p = numpy_exits(bert, branches, *inputs)
    return session(model), inputs, p, numpy_uncertainty(p, top_k)


def check(found, p, u, speed):
    """The answers `found` at a speed are those of the exits (texts, layers, …) that the texts are to leave by."""
    assert [found[name].dtype for name in ("probabilities", "layers_used", "uncertainty")] == [np.float32, np.int32, np.float32]
    with np.errstate(invalid="ignore"):
        leaving = u < speed
    leaving[:, -1] = True
    clear = ~(np.abs(u[:, :-1] - speed) < 1e-5).any(axis=1)  # elsewhere a rounding may decide
    rows = np.arange(len(u))
    assert (found["layers_used"] == leaving.argmax(axis=1) + 1)[clear].all()
    np.testing.assert_allclose(found["probabilities"], p[rows, found["layers_used"] - 1], atol=1e-5)
    np.testing.assert_allclose(found["uncertainty"], u[rows, found["layers_used"] - 1], atol=1e-5)
    return found["layers_used"]


@pytest.mark.parametrize("top_k", [0, 2])
@pytest.mark.parametrize("kind", [tuple(kind.items()) for kind in KINDS], ids=str)
def test_each_answer_is_that_of_its_exit_in_numpy(kind, top_k):
    """Whatever the speed; all texts together, and one by itself."""
    asking, inputs, p, u = asked(kind, top_k)
    assert np.ptp(p, axis=0).min() > 0.01  # they tell the texts apart
    depths = []
    for speed in (0.0, *np.quantile(u, np.linspace(0.02, 0.98, 9)), 1.0, np.nan):
        used = check(ask(asking, *inputs, speed), p, u, speed)
        depths.append(used)
        assert speed > 0 or (used == p.shape[1]).all()
        for row in (0, 4, 8):
            one = [array[row : row + 1] for array in inputs]
            check(ask(asking, *one, speed), p[row : row + 1], u[row : row + 1], speed)
    assert max(len(set(some)) for some in depths) == p.shape[1]  # at one of the speeds they leave by all exits


def test_a_branch_does_not_see_padding():
    """A text of one token alone, and padded: neither its branches nor its layers tell the two apart."""
    asking, inputs, *_ = asked(tuple(KINDS[3].items()), 0)
    for speed in (0.0, 1.0):
        padded, alone = (ask(asking, *(array[-1:, :tokens] for array in inputs), speed) for tokens in (12, 1))
        assert (inputs[0][-1] != 3).sum() == 1
        for name, answer in padded.items():
            np.testing.assert_allclose(alone[name], answer, atol=1e-6)


def test_branches_and_last_exit_are_not_the_same():
    """What the first test would not notice if the graph mixed them up."""
    for kind in KINDS:
        p = asked(tuple(kind.items()), 0)[2]
        for depth in range(1, p.shape[1]):
            assert np.abs(p[:, depth] - p[:, depth - 1]).max() > 0.05


@pytest.mark.parametrize("last", ["branch", "linear", "pooler"])
def test_what_has_left_is_not_computed(last, tmp_path):
    """Layer by layer, onnxruntime's own profile has as many texts as are undecided, and nothing above the last of them."""
    bert, branches = fastbert(last, layers=4)
    model, inputs = exit_graph.exit_graph(bert, branches, HEADS), examples(bert, count=9)
    u = numpy_uncertainty(numpy_exits(bert, branches, *inputs))[:, :-1]
    for number, speed in enumerate((0.0, np.quantile(u.min(axis=1), 0.3), np.quantile(u, 0.5), np.quantile(u, 0.9), 1.0)):
        asking = session(model, tmp_path / f"profile_{number}")
        used = ask(asking, *inputs, speed)["layers_used"]
        expected = {depth: int((used >= depth).sum()) for depth in range(1, used.max() + 1)}
        assert texts_computed(asking.end_profiling()) == expected


def texts_computed(profile):
    """{layer: texts whose states it normalized} of a file that onnxruntime wrote while it answered once."""
    found = {}
    for event in json.loads(Path(profile).read_text(encoding="utf-8")):
        layer, _, node = event["name"].partition("/")
        if layer.startswith("layer_") and node.endswith("_kernel_time") and "LayerNormalization" in node:
            (shape, *_), = (kind.values() for kind in event["args"]["input_type_shape"][:1])
            found.setdefault(int(layer.removeprefix("layer_")), set()).add(shape[0])
    assert all(len(texts) == 1 for texts in found.values())
    return {layer: texts.pop() for layer, texts in found.items()}


@pytest.mark.parametrize("last", ["branch", "linear"])
def test_nobody_leaves_by_an_exit_of_nan(last):
    """A NaN in the first branch hands all texts on, whatever the speed; one in the last layer reaches those who come there."""
    bert, branches = fastbert(last, layers=4)
    inputs, p = examples(bert, count=9), numpy_exits(bert, branches, *examples(bert, count=9))
    p[:, 0] = np.nan
    broken = [[*branches[0][:-1], np.full(CLASSES, np.nan)], *branches[1:]]
    one_class = [[*branches[0][:-1], np.where(np.arange(CLASSES) == 1, np.nan, branches[0][-1])], *branches[1:]]
    for some in (broken, one_class):
        for top_k in (0, 2):
            u = numpy_uncertainty(p, top_k)
            asking = session(exit_graph.exit_graph(bert, some, HEADS, top_k))
            for speed in (0.0, np.nanquantile(u, 0.4), 1.0):
                check(ask(asking, *inputs, speed), p, u, speed)
    p = numpy_exits(bert, branches, *inputs)
    p[:, -1] = np.nan
    bert.weights["bert/encoder/layer_3/output/dense/bias"][:] = np.nan
    u = numpy_uncertainty(p)
    speed = np.quantile(u[:, :-1].min(axis=1), 0.6)
    used = check(ask(session(exit_graph.exit_graph(bert, branches, HEADS)), *inputs, speed), p, u, speed)
    assert 0 < (used == 4).sum() < 9


@pytest.mark.parametrize("top_k", [0, 2, 9])
def test_uncertainty_at_its_ends(top_k):
    """Of answers that are sure of one class, know nothing, and stand between two: from 0 to 1, where roundings come out above.

    At a speed of 0 not even a text with an uncertainty of 0 leaves early.
    """
    bert, branches = fastbert("branch", classes=7)
    between = np.log(2) / np.log(top_k if top_k == 2 else 7)
    for bias, at_end in (([200, *[0] * 6], 0), ([3] * 7, 1), ([90, 90, *[0] * 5], between)):
        for weights in branches:
            weights[-2][:], weights[-1][:] = 0, bias
        found = ask(session(exit_graph.exit_graph(bert, branches, HEADS, top_k)), *examples(bert), 0.0)
        u = found["uncertainty"]
        assert u.min() >= 0 and u.max() <= 1 and (found["layers_used"] == 2).all()
        np.testing.assert_allclose(u, at_end, atol=1e-6)


def test_an_activation_that_no_bert_here_has():
    with pytest.raises(InputError, match="hidden_act swish is none of gelu"):
        exit_graph.exit_graph(*fastbert("linear", hidden_act="swish"), HEADS)


@pytest.mark.parametrize("last", ["branch", "pooler"])
def test_it_holds_each_weight_once_where_it_is_read(last):
    """None is packed twice, or left in that nothing reads; what a layer reads stands in its own graph, not in one around it."""
    bert, branches = fastbert(last, layers=4)
    graphs = [*graphs_within(exit_graph.exit_graph(bert, branches, HEADS).graph)]
    weights = [array for graph in graphs for array in graph.initializer if len(array.dims) > 1]
    narrow, mixing, logits = CONFIG["hidden_size"] * WIDTH, 2 * HEADS * WIDTH**2, WIDTH * CLASSES
    of_bert = sum(weight.size for weight in bert.weights.values() if weight.ndim > 1)
    assert sum(int(np.prod(array.dims)) for array in weights) == of_bert + len(branches) * (narrow + mixing + logits)
    for graph in graphs:
        held = {array.name for array in graph.initializer if len(array.dims) > 1}
        assert held == {name for node in graph.node for name in node.input} & {array.name for array in weights}


def graphs_within(graph):
    """It, and all graphs that its nodes hold."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from graphs_within(attribute.g)


# The teacher


@pytest.mark.parametrize("last", ["branch", "linear", "pooler"])
def test_the_teacher_answers_as_the_last_exit_does(last):
    bert, branches = fastbert(last, layers=4, pad_id=3)
    model = exit_graph.teacher_graph(bert, branches[-1], HEADS)
    onnx.checker.check_model(model, full_check=True)
    inputs = examples(bert, count=9)
    found, = session(model).run(None, dict(zip(("token_ids", "segment_ids"), inputs, strict=True)))
    np.testing.assert_allclose(found, numpy_exits(bert, branches, *inputs)[:, -1], atol=1e-5)


# int8


@pytest.mark.parametrize(("top_k", "reduce_range"), [(0, False), (2, True)])
@pytest.mark.parametrize("kind", [tuple(kind.items()) for kind in KINDS], ids=str)
def test_int8_leaves_and_answers_nearly_as_float32(kind, top_k, reduce_range):
    """Where no uncertainty is near the speed after the same layer; with nearly the probabilities of the layer it says."""
    _, inputs, p, u = asked(kind, top_k)
    assert min(np.abs(p[:, depth] - p[:, depth - 1]).mean() for depth in range(1, p.shape[1])) > 0.1
    bert, branches = fastbert(**dict(kind))
    asking = session(quantized(exit_graph.exit_graph(bert, branches, HEADS, top_k), reduce_range))
    rows, depths = np.arange(len(u)), []
    for speed in (0.0, *np.quantile(u, np.linspace(0.1, 0.9, 5)), 1.0, np.nan):
        found = ask(asking, *inputs, speed)
        used, leaving = found["layers_used"], u < speed
        leaving[:, -1] = True
        clear = ~(np.abs(u[:, :-1] - speed) < 0.2).any(axis=1)
        assert (used == leaving.argmax(axis=1) + 1)[clear].all()
        for name, of_exits in (("probabilities", p), ("uncertainty", u)):
            off = np.abs(found[name] - of_exits[rows, used - 1])
            assert off.max() < 0.2 and 1e-5 < off.mean() < 0.03
        depths.append({*used[clear]})
    assert depths[0] == depths[-1] == {p.shape[1]} and len(set.union(*depths)) > 1


@pytest.mark.parametrize("reduce_range", [False, True])
@pytest.mark.parametrize("last", ["branch", "linear", "pooler"])
def test_int8_reaches_the_graphs_within(last, reduce_range):
    """Each layer's kernels are int8 in its own graph, embeddings uint8; of matrices only those of exits are float32."""
    bert, branches = fastbert(last, layers=4)
    small = quantized(exit_graph.exit_graph(bert, branches, HEADS), reduce_range)
    onnx.checker.check_model(small)
    held = [graph.initializer for graph in graphs_within(small.graph) if graph.initializer]
    kinds = [{array.name: onnx.numpy_helper.to_array(array) for array in arrays if len(array.dims) > 1} for arrays in held]
    dense = ("attention/output/dense/kernel", "intermediate/dense/kernel", "output/dense/kernel")
    for depth, arrays in enumerate(kinds):
        layer, own = f"bert/encoder/layer_{depth}", f"branch_{depth + 1}"
        expected = {np.int8: {f"{layer}/{name}" for name in dense}, np.float32: set(), np.uint8: set()}
        if depth == len(branches):
            expected[np.int8] |= {f"{layer}/attention/self/query/kernel"}
            expected[np.int8] |= {f"{layer}/attention/self/{name}/integers" for name in ("keys", "values")}
            expected[np.float32] |= {f"{layer}/attention/self/{name}/scales" for name in ("keys", "values")} | {"classifier"}
            expected[np.float32] |= {POOLER[0]} if last == "pooler" else set()
        else:
            expected[np.int8] |= {f"{layer}/attention/self/kernel", f"{own}/narrow/kernel"}
            expected[np.float32] |= {f"{own}/{name}/kernel" for name in ("asks", "mixed", "logits")}
        if depth == 0:
            expected[np.uint8] |= {f"bert/embeddings/{name}_embeddings" for name in ("word", "position", "token_type")}
        assert {kind: {name for name, array in arrays.items() if array.dtype == kind} for kind in expected} == expected
        for name in expected[np.int8]:
            wanted = 64 if reduce_range and not name.endswith("/integers") else 127  # those meet nothing in integers
            assert np.abs(arrays[name].astype(int)).max() == wanted
    assert len(kinds) == 4


@pytest.mark.parametrize("last", ["branch", "linear"])
def test_nobody_leaves_int8_by_an_exit_of_nan(last):
    bert, branches = fastbert(last, layers=4)
    broken = [[*branches[0][:-1], np.full(CLASSES, np.nan)], *branches[1:]]
    for top_k in (0, 2):
        asking = session(quantized(exit_graph.exit_graph(bert, broken, HEADS, top_k)))
        for speed in (0.0, 0.5, 1.0):
            found = ask(asking, *examples(bert, count=9), speed)
            assert (found["layers_used"] > 1).all() and np.isfinite(found["probabilities"]).all()
        assert (ask(asking, *examples(bert, count=9), np.nan)["layers_used"] == 4).all()


def test_int8_is_a_third_in_size():
    bert, branches = fastbert("branch", layers=4, vocab_size=2000, hidden_size=128, intermediate_size=512)
    model = exit_graph.exit_graph(bert, branches, HEADS)
    assert quantized(model).ByteSize() * 3 < model.ByteSize()
