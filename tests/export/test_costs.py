"""export.costs: on which texts models are timed, and that all take the same ones."""

from types import SimpleNamespace

import numpy as np
import pytest
from onnx import TensorProto

from common.batches import TokenizedTexts
from export import costs
from export.costs import in_words, text_costs, timed_batches
from export.onnx_graph import text_graph
from tests.export.test_onnx_graph import classifier


def run_of(lengths, test, maxlen=16):
    """A run with examples of these lengths; example i is made of the token id i + 1."""
    ids = np.repeat(np.arange(1, len(lengths) + 1, dtype=np.int32), lengths)
    return SimpleNamespace(
        seed=0, examples=TokenizedTexts(ids, np.append(0, np.cumsum(lengths))), parts=SimpleNamespace(test=np.array(test)),
        bert=SimpleNamespace(pad_id=0), settings=SimpleNamespace(maxlen=maxlen), corpus=SimpleNamespace(classes=["a", "b"]),
    )


def test_batches_are_of_test_texts_as_long_as_they_are():
    """40 of 50 test texts: 10 by themselves, all in two batches, whose last 24 are the first again."""
    lengths = np.random.default_rng(0).integers(3, 17, 60)
    batches, tokens = timed_batches(run_of(lengths, range(10, 60)), 40)
    assert [*batches] == [1, 32] and [len(of_size) for of_size in batches.values()] == [10, 2]
    read = {size: np.concatenate([ids[:, 0] for ids, _ in of_size]) for size, of_size in batches.items()}
    assert len({*read[1]}) == 10 and len({*read[32]}) == 40 and min(read[32]) > 10  # example 10 is of the id 11
    np.testing.assert_array_equal(read[32][40:], read[32][:24])
    np.testing.assert_array_equal(read[1], read[32][:10])
    for ids, segments in batches[1] + batches[32]:
        assert ids.shape == segments.shape and ids.shape[1] >= lengths[ids[:, 0] - 1].max() and not segments.any()
        np.testing.assert_array_equal((ids > 0).sum(axis=1), lengths[ids[:, 0] - 1])
    assert tokens == lengths[read[32][:40] - 1].mean()


def test_all_models_are_asked_the_same_and_each_has_its_own_mean(monkeypatch):
    """A batch takes a ms for each of its tokens by one model, twice as many by the other, a tenth in int8."""
    def turns(makers, batches, rounds):
        factors = {"float32": 1.0, "int8": 0.1}
        return {(name, key): np.array([layers * factors[form] * ids.size / 1000 for ids, _ in batches])
                for (name, key), (layers, form) in makers.items()}

    monkeypatch.setattr(costs, "turns", turns)
    monkeypatch.setattr(costs, "asking", lambda graph: graph)
    forms = {"latency_ms": lambda graph: graph, "int8_latency_ms": lambda graph: (graph[0], "int8")}
    monkeypatch.setattr(costs, "FORMS", forms)
    graphs = {"bert": (lambda bert: (bert.layers, "float32"), lambda bert, classes, tokens: classes * tokens)}
    monkeypatch.setattr(costs, "GRAPHS", graphs)
    models = {name: SimpleNamespace(kind="bert", is_classifier=True, layers=int(name)) for name in ("1", "2")}
    run = run_of([6] * 80, range(80))
    found = text_costs(run, models)
    padded = {size: of_size[0][0].size for size, of_size in timed_batches(run, costs.TIMED)[0].items()}
    for name, factor in (("1", 1), ("2", 2)):
        assert found[name].keys() == {"layers", "flops", "timed_tokens", "latency_ms", "int8_latency_ms"}
        assert found[name]["layers"] == factor and found[name]["flops"] == 2 * 16 and found[name]["timed_tokens"] == 6
        for key, share in (("latency_ms", 1), ("int8_latency_ms", 0.1)):
            expected = {str(size): pytest.approx(factor * share * count) for size, count in padded.items()}
            assert found[name][key] == expected
    assert in_words(run, 6.4) == "one text of 16 tokens (timed: test texts, 6 tokens on average)"


def test_float32_is_timed_as_it_is_and_int8_in_integers():
    graph = text_graph(classifier())
    forms = {key: form(graph) for key, form in costs.FORMS.items()}
    assert [*forms] == ["latency_ms", "int8_latency_ms"] and forms["latency_ms"] is graph
    assert TensorProto.INT8 in {array.data_type for array in forms["int8_latency_ms"].graph.initializer}
