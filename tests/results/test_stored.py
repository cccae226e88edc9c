"""results.stored: what is read of runs that an older version left."""

import copy
import json

import pytest

from results.stored import read_all
from tests.results.made import run, stopping


def left(store, records, **more):
    """A store with one run of FastBERT: a teacher of 20 ms and 6 operations, and these records of a model that stops early."""
    results = run("knowledge_distillation_fastbert", {"teacher": (0.9, 6, 20.0)}, (0,), branch_comparisons=[], **more)
    results["models"][0] |= {"flops": 6.0, "latency_ms": {"1": 20.0, "32": 400.0}}
    results["models"] += records
    (store / "runs" / "fast").mkdir(parents=True)
    (store / "runs" / "fast" / "results.json").write_text(json.dumps(results))
    return read_all(store)["fast"]


def test_times_of_the_few_texts_that_were_timed_become_those_of_all(tmp_path):
    """The clock shows half of the FLOPs of these texts for one, all of them for 32: so it does of those of all texts.

    What was chosen lies half-way between two speeds of the curve; the files of the student have its times.
    """
    record = stopping("fastbert", 0, 0.8) | {"speed": 0.3, "flops": 2.0, "int8_latency_ms": {"1": 1.0, "32": 1.0}}
    for point, (timed, all_texts) in zip(record["exits"], ((2.0, 1.5), (4.0, 3.0)), strict=True):
        del point["int8_timed"]
        point |= {"flops_speedup": all_texts, "timed": {size: {"flops_speedup": timed, "ms": 1} for size in ("1", "32")},
                  "wall_speedup": {"1": timed / 2, "32": timed}, "int8_wall_speedup": {"1": 2 * timed, "32": 3 * timed}}
    files = [{"name": name, "bytes": 1, "latency_ms": {"1": 9, "32": 9}} for name in ("model.onnx", "model.int8.onnx")]
    student = {"name": "fastbert", "seed": 0, "files": files, "tokens": 9, "differences": {}}
    results = left(tmp_path, [record], student=student)
    found = results["models"][1]
    assert [point["wall_speedup"] for point in found["exits"]] == [{"1": 0.75, "32": 1.5}, {"1": 1.5, "32": 3.0}]
    assert [point["int8_wall_speedup"] for point in found["exits"]] == [{"1": 3.0, "32": 4.5}, {"1": 6.0, "32": 9.0}]
    assert found["latency_ms"] == pytest.approx({"1": 20 / 3 / 0.5, "32": 400 / 3})  # a third of the FLOPs
    assert found["int8_latency_ms"] == pytest.approx({"1": 20 / 3 / 2, "32": 400 / 3 / 3})
    assert [file["latency_ms"] for file in results["student"]["files"]] == [found["latency_ms"], found["int8_latency_ms"]]


def test_runs_that_tell_of_all_texts_stay_as_they_are(tmp_path):
    record = stopping("fastbert", 0, 0.8)
    assert left(tmp_path, [copy.deepcopy(record)])["models"][1] == json.loads(json.dumps(record))
