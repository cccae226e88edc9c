"""report.exits: the tables of a model that stops early."""

from types import SimpleNamespace

import numpy as np
import pytest

from common.training import Run
from data.parts import Parts
from report.exits import branch_results, branches_table, first_and_last_exits, looked_at, speeds_table, verdict
from tests.report.records import model


def record(name, **more):
    point = {"speed": 0.5, "accuracy": 0.9, "mean_layers": 1.5, "flops_speedup": 3.8, "wall_speedup": {"1": 1.9, "32": 2.85}}
    return {"name": name, "exits": [point | more], "branch_accuracy": [0.8, 0.9], "median_uncertainty": [0.5, 0.25],
            "median_entropy": [0.7, 0.6], "uncertainty_top_k": 3}


def test_the_tables():
    header, row = speeds_table([record("fast"), record("fast", accuracy=0.8)])
    assert header[0] == "speed" and row == ["0.5", "85.00 ± 7.07", "1.50", "3.80", "1.90", "2.85", "0.50", "0.75"]
    header, row = speeds_table([record("fast", int8_wall_speedup={"1": 4, "32": 5.5})])
    assert header[-2:] == ["int8 x @1", "int8 x @32"] and row[-2:] == ["4.00", "5.50"]
    header, row = speeds_table([record("fast", disagreement=0.02), record("fast", disagreement=0.03)])
    assert header[2] == "otherwise %" and row[2] == "2.50"
    header, first, last = branches_table([record("fast")])
    assert header == ["branch after layer", "fast %", "median u", "of all classes"]
    assert first == ["1", "80.00", "0.500", "0.700"] and last[0] == "2, the last"
    assert len(branches_table([record("fast") | {"uncertainty_top_k": 0}])[0]) == 3


@pytest.mark.parametrize(("top_k", "words"), [(0, "all"), (2, "the 2 highest")])
def test_the_uncertainty_in_words(top_k, words):
    assert looked_at({"uncertainty_top_k": top_k}) == words


def test_the_first_and_the_last_to_leave():
    left = np.array([1, 4, 1, 2]), np.eye(2)[[0, 1, 1, 0]], np.array([0.02, 0.9, 0.01, 0.3])
    rows = first_and_last_exits(["a | b", "long " * 40, "c\nd", "e"], [0, 1, 1, 1], ["x", "y"], left, count=1)
    assert rows[1:] == [["c d", "y", "y", "1", "0.010"], [("long " * 40)[:59] + "…", "y", "y", "4", "0.900"]]
    rows = first_and_last_exits([("a\nb", "c"), ("d | e", "f" * 60), *"gh"], [0] * 4, ["x", "y"], left)
    assert [row[0] for row in rows[1:]] == ["g", "a b | c", "h", f"d | e | {'f' * 27}…"]
    assert [row[0] for row in first_and_last_exits(list("abcd"), [0] * 4, ["x", "y"], left)[1:]] == list("cadb")


def test_branches_are_compared_on_the_test_part(tmp_path):
    """`a` is right there and wrong on validation, `b` the other way round."""
    labels, parts = np.arange(30) % 2, Parts(*map(np.array, ([0], [], range(10), range(10, 30))))
    run = Run(SimpleNamespace(seeds=(0,)), 0, SimpleNamespace(labels=labels), None, parts, tmp_path)
    for name, good in (("a", "test"), ("b", "validation")):
        logits = {part: np.eye(2)[labels[getattr(parts, part)] ^ (part != good)][:, None].repeat(3, axis=1)
                  for part in ("validation", "test")}
        run.write_logits(f"{name}-branches", **logits)
    (comparison,) = branch_results(run, [{"name": "a"}, {"name": "b"}], ["b", "a"])["branch_comparisons"]
    assert (comparison["a"], comparison["b"], comparison["difference"]) == ("a", "b", 1.0)


def test_what_does_not_pay_is_said_first():
    """5.88 of 6 layers and 7.3 ms where the teacher takes 5.0: by the mean over seeds, and where only one size is slow."""
    def records(one, many):
        exits = [model("fast", seed, layers=layers, latency_ms={"1": one + way, "32": many})
                 for seed, layers, way in ((0, 5.8, -1), (1, 5.96, 1))]
        return [model("teacher", seed, deep=True, latency_ms={"1": 5.0, "32": 100.0}) for seed in (0, 1)] + exits

    chosen = {"latency_budget": 0.0, "max_disagreement": None}

    def said(one, many, **changed):
        return verdict(records(one, many), ["fast"], SimpleNamespace(**chosen | changed))

    line = said(7.3, 110)
    assert line.startswith("fast does not pay for one text nor for 32 together: at the speed chosen it computes 5.88 of 6 ")
    assert "takes 7.3 ms and the teacher 5 for one text, 110 ms and the teacher 100 for 32 together." in line
    assert "the choice a higher --accuracy-drop; or take a student of fewer layers" in line and "common.cascade" in line
    assert "a higher --max-disagreement; " in said(7.3, 110, max_disagreement=1.0)
    assert "a lower --latency-budget; " in said(7.3, 110, latency_budget=5.0)
    assert said(4, 95).startswith("fast does not pay for 32 together: ")
    assert said(4, 50) == ""
