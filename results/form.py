"""What a results.json must have for the pages to be built of it. It may have more."""

import re
from math import isfinite

from report.document import SCHEMA
from results.methods import METHODS

_BY_SIZE = {"1": float, "32": float}  # of a batch
_COMPARISON = {"difference": float, "ci95": [float], "p_value": float}
_NAMED = {"a": str, "b": str, "seeds": [int]} | _COMPARISON
_MODEL = {
    "name": str, "seed": int, "layers": float, "parameters": int, "flops": float, "latency_ms": _BY_SIZE, "accuracy": float,
    "macro_f1": float, "validation_accuracy": float, "train_seconds": float, "epochs": int, "correct": str,
}
_RUN = {
    "schema": int, "script": str, "preset": str, "command": str,
    "settings": {"seeds": [int], "precision": str, "batch_size": int},
    "environment": {"python": str, "machine": str},
    "data": {"name": str, "classes": int, "train": int, "unlabelled": int, "validation": int, "test": int, "chosen_on": str,
             "test_fingerprint": str, "notes": [str], "descriptions": {}},
    "models": [_MODEL], "comparisons": [_NAMED],
}
_EXIT = {
    "speed": float, "accuracy": float, "mean_layers": float, "flops_speedup": float, "wall_speedup": _BY_SIZE,
    "timed": {"1": {"flops_speedup": float}, "32": {"flops_speedup": float}}, "correct": str,
}
_STOPPING = {  # further ones of a model that stops early, and of its run
    "exits": [_EXIT], "speed": float, "branch_accuracy": [float], "median_uncertainty": [float], "median_entropy": [float],
}
_TOP_K = {"uncertainty_top_k": int}  # of such a model, unless the settings have one for all, as in older results
_BRANCHES = {"branch_comparisons": [_NAMED]}
_STUDENT = {"student": {"name": str, "seed": int, "files": [{"name": str, "bytes": int, "latency_ms": _BY_SIZE}]}}
_TAKEN = {"student": {"tokens": int, "differences": {}}}  # further ones of a student with files
_DIFFERENCES = {"student": {"differences": {}}}
_OMITTED = {"omit_class": [{"name": str, "bias": float, "accuracy": float, "recall": float, "recall_of_others": float}]}
_KINDS = {str: "a string", int: "a whole number", float: "a number", dict: "an object", list: "a list"}


def mismatch(results):
    """What in a results.json is not as it should be, in words, the first of it; None if all is.

    results: what its JSON holds
    """
    return next(filter(None, _mismatches(results)), None)


def _mismatches(results):
    """Each of its checks in words, or None where it holds; a later one is for what has passed those before it."""
    yield _differs(results, _RUN)
    for name, known in (("schema", (SCHEMA,)), ("script", METHODS)):
        yield None if results[name] in known else f"{name} is {results[name]!r}, not {' or '.join(map(str, known))}"
    examples, models = results["data"]["test"], {f"models[{n}]": model for n, model in enumerate(results["models"])}
    digits = 2 * -(-examples // 8)  # of whole bytes, as `pack_bits` fills them up
    yield None if models else "models is empty"
    if "student" in results:
        yield _differs(results, _STUDENT)
        yield _differs(results, _TAKEN) if results["student"]["files"] else None
        yield _differs(results, _DIFFERENCES) if "differences" in results["student"] else None
        for name, difference in results["student"].get("differences", {}).items():
            yield _differs(difference, _COMPARISON, f"student.differences.{name}")
    if "omit_class" in results:
        yield _differs(results, _OMITTED)
    if "branch_comparisons" in results:
        yield _differs(results, _BRANCHES)
    for where, model in models.items():
        if "exits" in model:
            yield _differs(model, _STOPPING if _differs(results["settings"], _TOP_K) is None else _STOPPING | _TOP_K, where)
        for each in (model, *model.get("exits", ())):
            if len(each["correct"]) != digits or not re.fullmatch("[0-9a-f]*", each["correct"]):
                yield f"{where}.correct is not {digits} hexadecimal digits, of {examples:,} test examples"


def _differs(value, form, where=""):
    """`mismatch` of a part. form: a kind, or a dict or list of forms. where: the value is, as one writes it down."""
    kind = form if isinstance(form, type) else type(form)
    fits = isinstance(value, (int, float) if kind is float else kind) and not isinstance(value, bool)
    if not fits or (kind is float and not isfinite(value)):  # JSON has no NaN, but Python reads one
        return f"{where or 'the whole'} is not {_KINDS[kind]}"
    if isinstance(form, list):
        parts = [(each, form[0], f"{where}[{place}]") for place, each in enumerate(value)]
    elif isinstance(form, dict):
        inside = f"{where}." if where else ""
        for name in form:
            if name not in value:
                return f"{inside}{name} is missing"
        parts = [(value[name], part, f"{inside}{name}") for name, part in form.items()]
    else:
        parts = []
    return next(filter(None, (_differs(*part) for part in parts)), None)
