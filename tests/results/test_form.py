"""results.form: what is missing or of another kind in a results.json is named, and what is not asked for is not needed."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import InputError
from results.form import mismatch
from results.pages import build
from results.stored import read_all, take_in
from tests.results.made import run, stopping, written
from tests.starting import ROOT

COMPARISON = {"a": "x", "b": "y", "difference": 0.1, "ci95": [0, 0.2], "p_value": 0.1, "seeds": [0]}

STUDENT = {"name": "fastbert", "seed": 0, "tokens": 9, "differences": {"model.onnx": COMPARISON},
           "files": [{"name": "model.onnx", "bytes": 9000, "latency_ms": {"1": 1.0, "32": 8}}]}


def whole():
    """Results with all that a page may show."""
    results = run("knowledge_distillation_fastbert", {"teacher": (0.9, 6, 20.0), "linear": (0.4, 0, 0.5)}, (0,))
    results["models"].append(stopping("fastbert", 0, 0.8))
    omitted = [{"name": "a", "seed": 0, "bias": 1.0, "accuracy": 0.5, "recall": 0.5, "recall_of_others": 0.5}]
    more = {"comparisons": [COMPARISON], "branch_comparisons": [COMPARISON], "student": STUDENT, "omit_class": omitted}
    return json.loads(json.dumps(results | more))  # a copy in which nothing is one and the same object


def places(value, *path):
    """Paths of all that is in a JSON value, of lists of what is in the first."""
    inside = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for name, each in inside:
        yield *path, name
        yield from places(each, *path, name)


def holder(results, path):
    for name in path[:-1]:
        results = results[name]
    return results


ENTRIES = [path for path in (*places(whole()), *places(whole()["models"][-1], "models", -1)) if isinstance(path[-1], str)]


def test_what_is_whole_fits():
    assert mismatch(whole()) is None
    for results in read_all(ROOT / "results").values():
        assert mismatch(results) is None


@pytest.mark.parametrize("path", ENTRIES, ids=lambda path: ".".join(map(str, path)))
def test_an_entry_that_is_missing_is_named_or_not_needed(tmp_path, path):
    results = whole()
    del holder(results, path)[path[-1]]
    wrong = mismatch(results)
    assert wrong is None or f"{path[-1]} is missing" in wrong
    if not wrong:
        take_in(written(tmp_path, {"fastbert": results}), tmp_path / "store")
        build(tmp_path / "store", tmp_path / "RESULTS.md")


def test_older_results_have_one_uncertainty_for_all_models(tmp_path):
    """That of the settings; where these leave it to each model, a model without one is refused."""
    results = whole()
    del results["models"][2]["uncertainty_top_k"]
    assert mismatch(results) == "models[2].uncertainty_top_k is missing"
    results["settings"]["uncertainty_top_k"] = 5
    take_in(written(tmp_path, {"fastbert": results}), tmp_path / "store")
    assert read_all(tmp_path / "store")["fastbert"]["models"][2]["uncertainty_top_k"] == 5


@given(st.sampled_from(ENTRIES), st.sampled_from([None, True, [], [[]], {}, "a", -1]))
def test_an_entry_of_another_kind_never_breaks_the_check(path, value):
    results = whole()
    holder(results, path)[path[-1]] = value
    wrong = mismatch(results)
    assert wrong is None or ("\n" not in wrong and str(path[-1]) in wrong)


@pytest.mark.parametrize(("path", "value", "message"), [
    (("schema",), 2, "schema is 2, not 1"),
    (("script",), "other", "script is 'other', not .*knowledge_distillation_bert"),
    (("models",), [], "models is empty"),
    (("models", 0, "seed"), "0", r"models\[0\].seed is not a whole number"),
    (("models", 0, "seed"), True, r"models\[0\].seed is not a whole number"),
    (("models", 1, "accuracy"), float("nan"), r"models\[1\].accuracy is not a number"),
    (("models", 1, "accuracy"), None, r"models\[1\].accuracy is not a number"),
    (("models", 0, "correct"), "ff" * 4, r"models\[0\].correct is not 10 hexadecimal digits, of 40 test examples"),
    (("models", 0, "correct"), "gg" * 5, r"models\[0\].correct is not 10 hexadecimal digits"),
    (("models", 2, "exits", 1, "correct"), "ff" * 6, r"models\[2\].correct is not 10 hexadecimal digits"),
    (("data",), [], "data is not an object"),
    (("data", "test"), 10**12, r"models\[0\].correct is not 250000000000 hexadecimal digits"),
    (("student", "differences", "model.onnx"), {}, "student.differences.model.onnx.difference is missing"),
    (("settings", "seeds"), [0, "1"], r"settings.seeds\[1\] is not a whole number"),
])
def test_what_does_not_fit_leaves_what_is_stored_as_it_is(tmp_path, path, value, message):
    """Nor is anything stored of a run that is named before it."""
    first, = written(tmp_path, {"fastbert": whole()})
    take_in([first], tmp_path / "store")
    stored = tmp_path / "store" / "runs" / "fastbert" / "results.json"
    before, results = stored.read_text("utf-8"), whole()
    holder(results, path)[path[-1]] = value
    (first / "results.json").write_text(json.dumps(results))
    other, = written(tmp_path, {"other": whole()})
    with pytest.raises(InputError, match=f"{message}.*start the run again") as error:
        take_in([other, first], tmp_path / "store")
    assert "\n" not in str(error.value) and stored.read_text("utf-8") == before
    assert [folder.name for folder in stored.parents[1].iterdir()] == ["fastbert"]


def test_json_that_is_nested_deeply_ends_in_one_line(tmp_path):
    (tmp_path / "results.json").write_text("[" * 200_000)
    with pytest.raises(InputError, match="not the results of one of the scripts"):
        take_in([tmp_path], tmp_path / "store")
