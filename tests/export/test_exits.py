"""export.exits: what a speed is chosen by, which texts are timed, and what the clock is held against."""

from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from common.batches import TokenizedTexts
from common.training import Run
from export import exits
from export.exits import calibration_logits, expected_speedup, time_exits
from export.onnx_files import asking
from knowledge_distillation_fastbert import uncertainty
from tests.common.test_exit_curve import spread_and_tied

FLOPS = 400, np.array([110, 220, 330, 410])  # of the teacher, and of leaving after each of its four layers


def test_what_the_clock_is_held_against():
    """Each batch counts at the length it is padded to; a text of 8 tokens that leaves first, one of 16 that stays."""
    batches = [(np.zeros((1, 8), np.int32),), (np.zeros((1, 16), np.int32),)]

    def ask(batch):
        return [None, np.array([1 if batch[0].shape[1] == 8 else 4])]

    found = expected_speedup(batches, ask, lambda tokens: (tokens * FLOPS[0], tokens * FLOPS[1]))
    assert found["mean_layers"] == 2.5
    assert found["flops_speedup"] == pytest.approx((8 + 16) * 400 / (8 * 110 + 16 * 410))


def graph(stops_early):
    """A graph that answers nothing: layers_used is 1 for speed 1 and 4 for less."""
    texts = [helper.make_tensor_value_info(name, TensorProto.INT32, (None, None)) for name in ("token_ids", "segment_ids")]
    nodes = [helper.make_node("Cast", ["token_ids"], ["probabilities"], to=TensorProto.FLOAT)]
    outputs = [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, (None, None))]
    arrays = [onnx.numpy_helper.from_array(np.array(value, dtype), name)
              for name, value, dtype in (("one", 1, np.float32), ("first", 1, np.int32), ("last", 4, np.int32),
                                         ("place", 0, np.int64), ("nothing", 0, np.int32))]
    if stops_early:
        texts.append(helper.make_tensor_value_info("speed", TensorProto.FLOAT, ()))
        nodes += [helper.make_node("Equal", ["speed", "one"], ["at once"]),
                  helper.make_node("Where", ["at once", "first", "last"], ["layers"]),
                  helper.make_node("Gather", ["segment_ids", "place"], ["column"], axis=1),
                  helper.make_node("Mul", ["column", "nothing"], ["zeros"]),
                  helper.make_node("Add", ["zeros", "layers"], ["layers_used"])]
        outputs.append(helper.make_tensor_value_info("layers_used", TensorProto.INT32, (None,)))
    model = helper.make_graph(nodes, "made up", texts, outputs, arrays)
    return helper.make_model(model, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_all_models_are_timed_on_the_same_test_texts(monkeypatch):
    """By themselves and in batches of 32, the last of which is filled up; in either precision, at each speed.

    No graph is built before the one before it has been written down.
    """
    seen, done = [], []

    def turns(makers, batches, rounds):
        seen.append(batches["teacher", "latency_ms"])
        assert batches["fast", "latency_ms"] == [(*batch, speed) for speed in (0.0, 1.0) for batch in seen[-1]]
        return {name: np.full(len(batches[name]), 0.001 * len(seen[-1][0][0])) for name in makers}

    monkeypatch.setattr("export.exits.turns", turns)
    monkeypatch.setattr("export.costs.FORMS", {"latency_ms": lambda made: made, "int8_latency_ms": lambda made: made})
    examples = TokenizedTexts(np.arange(1, 241, dtype=np.int32), np.arange(0, 241, 6))
    run = SimpleNamespace(
        seed=0, examples=examples, bert=SimpleNamespace(pad_id=3), parts=SimpleNamespace(test=np.arange(1, 40)),
        settings=SimpleNamespace(timed_examples=36, precision="float32"),
    )
    monkeypatch.setattr("export.costs.asking", lambda made: done.append("written") or asking(made))
    models = {"teacher": lambda: done.append("built") or graph(False)}, {"fast": lambda: done.append("built") or graph(True)}
    found = time_exits(run, *models, lambda tokens: FLOPS, {"fast": (0.0, 1.0)})
    assert done == 2 * ["built", "written", "written"]
    assert found["tokens"] == 6
    assert found["teacher"] == {key: {"1": 1.0, "32": 32.0} for key in ("latency_ms", "int8_latency_ms")}
    for key in ("latency_ms", "int8_latency_ms"):
        assert [at_speed[key]["32"]["mean_layers"] for at_speed in found["fast"]] == [4, 1]
        assert found["fast"][1][key]["1"] == {"ms": 1.0, "flops_speedup": pytest.approx(400 / 110), "mean_layers": 1.0}
    for batches, size, count in zip(seen, (1, 32), (9, 36), strict=True):
        assert {len(ids) for ids, _ in batches} == {size}
        read = np.unique(np.concatenate([ids for ids, _ in batches])[:, 0])
        assert len(read) == count and 1 not in read  # the first text is not of the test part
        assert all((ids[:, 6:] == 3).all() for ids, _ in batches)  # padded as the tokenizer pads


def test_times_are_read_again_but_for_another_uncertainty(tmp_path, monkeypatch):
    measured = []

    def time_exits(run, plain, stopping, flops, speeds):
        measured.append(({name: build() for name, build in stopping.items()}, speeds))
        return {"tokens": 6.0}

    monkeypatch.setattr(exits, "time_exits", time_exits)
    monkeypatch.setattr(exits, "whole_graph", lambda model: model)
    run = SimpleNamespace(seed=0, folder=tmp_path, settings=SimpleNamespace(timed_examples=4))
    for top_k in (0, 2, 0, 2):
        exits.exit_times(run, {}, {"fast": (top_k, (0.0, 0.5))}, lambda record: record["uncertainty_top_k"], None)
    assert measured == [({"fast": 0}, {"fast": (0.0, 0.5)}), ({"fast": 2}, {"fast": (0.0, 0.5)})]


def test_calibration_logits_are_computed_once_and_anew_where_they_are_damaged(tmp_path, monkeypatch):
    asked = []

    def predict(model, examples, indices):
        asked.append(indices)
        return np.arange(12, dtype=np.float32).reshape(2, 3, 2)

    monkeypatch.setattr("export.exits.predict", predict)
    monkeypatch.setattr("export.exits.all_exits", lambda pieces: pieces)
    monkeypatch.setattr("export.exits.trimmed", lambda run, bert: bert)
    settings = SimpleNamespace(vocabulary=0, precision="float32")
    run = SimpleNamespace(settings=settings, bert="bert", examples=None, parts=SimpleNamespace(calibration=np.arange(2)),
                          stage=lambda name: tmp_path / name)
    for times, cut in enumerate((None, -9, 0), 1):
        if cut is not None:
            (path,) = (tmp_path / "fast-branches").iterdir()
            path.write_bytes(path.read_bytes()[:cut])
        for _ in range(2):
            logits, expected = calibration_logits(run, "fast", lambda name: name)
            np.testing.assert_array_equal(logits, np.arange(12).reshape(2, 3, 2))
            assert expected.tolist() == [1, 1] and len(asked) == times


def choices(folder, monkeypatch, labels, logits, **changed):
    """(what is timed, turn by turn, what is chosen) for a model of a run.

    logits: {part: (texts, layers, classes)}, all of these labels
    """
    settings = {"speeds": (0.0, 0.5), "accuracy_drop": 1.0, "latency_budget": 0.0, "max_disagreement": None, "confidence": 90.0,
                "uncertainty_top_k": 0}
    parts = SimpleNamespace(validation=np.arange(len(labels)), test=np.arange(len(labels), 2 * len(labels)))
    run = Run(SimpleNamespace(**settings | changed), 0, SimpleNamespace(labels=np.tile(labels, 2)), None, parts, folder)
    run.stage("fastbert-branches").mkdir(parents=True)
    run.write_logits("fastbert-branches", logits["validation"], logits["test"])
    timed = []

    def exit_times(run, plain, asked, student, flops):
        timed.append(([*plain], asked["fastbert"]))
        return {"tokens": 6.0, "teacher": {}} | {"fastbert": [{} for _ in asked["fastbert"][1]]}

    monkeypatch.setattr(exits, "exit_times", exit_times)
    monkeypatch.setattr(exits, "exit_records", lambda *given: given[-2:])
    monkeypatch.setattr(exits, "calibration_logits", lambda run, name, trained: (
        logits["calibration"], logits["calibration"][:, -1].argmax(-1)))
    depths, plain = {"teacher": 4, "alone-1": 1}, {"teacher": None, "alone-1": None}
    times, chosen = exits.measure_exits(run, depths, plain, ["fastbert"], None, None, uncertainty, None)
    assert len(times["fastbert"]) == sum(len(speeds) for _, (_, speeds) in timed)
    return timed, chosen["fastbert"]


@pytest.mark.parametrize("good_early", ["validation", "test"])
def test_the_speed_is_chosen_on_the_validation_part(tmp_path, monkeypatch, good_early):
    """The first layer is right on one part and wrong on the other; all layers are right on both."""
    labels = np.arange(20) % 2
    logits = {part: 5 * np.repeat(np.eye(2, dtype=np.float32)[labels][:, None], 4, axis=1) for part in ("validation", "test")}
    for part in {*logits} - {good_early}:
        logits[part][:, 0] = logits[part][:, 0, ::-1]
    timed, chosen = choices(tmp_path, monkeypatch, labels, logits)
    assert chosen["speed"] == 1.0 if good_early == "validation" else 0 < chosen["speed"] < 0.1
    assert timed == [(["teacher", "alone-1"], (0, (0.0, 0.5)))]


@pytest.mark.parametrize("changed", [{}, {"max_disagreement": 10.0}, {"latency_budget": 5.0}], ids=str)
@pytest.mark.parametrize("agreeing", ["spread", "tied"])
def test_the_uncertainty_is_chosen_on_the_validation_part(tmp_path, monkeypatch, agreeing, changed):
    """Test part and calibration part say the opposite. The speed of a promise is then chosen with it on the latter."""
    other = {"spread": "tied", "tied": "spread"}[agreeing]
    logits, labels = spread_and_tied(agreeing, 100)
    of_others = spread_and_tied(other, 100)[0]
    parts = {"validation": logits, "test": of_others, "calibration": of_others}
    timed, chosen = choices(tmp_path, monkeypatch, labels, parts, uncertainty_top_k=None, **changed)
    assert {top_k for _, (top_k, _) in timed} == {chosen["uncertainty_top_k"]} == {2 if agreeing == "spread" else 0}
    assert ("speed" in chosen) == ("latency_budget" not in changed) and len(timed) == 1
    if "promise" in chosen:  # by the other parts the surer half answers otherwise
        assert chosen["promise"]["texts"] == 100 and chosen["promise"]["disagreements"] == 0 and 0 < chosen["speed"] < 0.65
    else:
        assert "max_disagreement" not in changed
