"""The runs that were taken in, `results/runs/NAME/`: taking in, reading, and which test examples each model got right."""

import json

import numpy as np

from common import InputError, reason
from common.evaluation import compare, unpack_bits
from common.exit_curve import WALL, latencies, told_of_all
from common.files import write_bytes, write_json
from data.students import INT8
from results.form import mismatch
from results.methods import METHODS, method_of


def take_in(folders, store):
    """Copy results.json and the plots to show of each run folder to `store`/runs/NAME/, NAME being the folder's.

    Raises InputError, before anything is written, if one has none, or it is not what the scripts write now.
    """
    for folder in folders:
        if not (folder / "results.json").is_file():
            raise InputError(f"{folder}: there is no results.json; a run has it when it is finished")
    names = [folder.resolve().name for folder in folders]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{name}: two of these folders have this name, under which one run is kept; rename one")
    all_results = [read(folder / "results.json") for folder in folders]
    for folder, name, results in zip(folders, names, all_results, strict=True):
        results["settings"]["output"] = ""
        target = store / "runs" / name
        write_json(target / "results.json", results)
        for plot in method_of(results).plots if target.resolve() != folder.resolve() else ():
            (target / f"{plot}.png").unlink(missing_ok=True)
            if (folder / f"{plot}.png").is_file():
                write_bytes(target / f"{plot}.png", (folder / f"{plot}.png").read_bytes())


def read(path):
    """A results.json, its models that stop early with their uncertainty_top_k. Raises InputError if it is no script's."""
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        wrong = mismatch(results)
    except (ValueError, RecursionError) as error:
        wrong = f"no JSON, {reason(error)}"
    if wrong:
        raise InputError(f"{path}: not the results of one of the scripts, or of another version ({wrong}); start the run again")
    for model in results["models"]:
        if "exits" in model:  # in older results all of them had that of the settings
            model.setdefault("uncertainty_top_k", results["settings"].get("uncertainty_top_k"))
    return results


def teacher_of(results, seed):
    """The record of a seed's teacher; None if it has none."""
    wanted = method_of(results).teacher, seed
    return next((record for record in results["models"] if (record["name"], record["seed"]) == wanted), None)


def tell_of_all_texts(model, teacher, student):
    """Put times as fast of all test texts in the place of those of the few that were timed, as `exit_curve.exit_record` does.

    How early those few left was chance: on one seed of CLINC150 after 1.1 layers where all left after 1.7.

    model: the record of a model that stops early, of an older version
    teacher: that of its seed
    student: what the results say of their student; its files have the times of its record
    """
    points = model["exits"]
    shares = {key: {size: np.array([point[wall][size] / point["timed"][size]["flops_speedup"] for point in points])
                    for size in points[0][wall]} for key, wall in WALL.items() if wall in points[0]}
    model["exits"], speeds = told_of_all(points, shares), [point["speed"] for point in points]
    model |= latencies(teacher["latency_ms"], model["flops"] / teacher["flops"], speeds, model["speed"], shares)
    if (student.get("name"), student.get("seed")) == (model["name"], model["seed"]):
        for file in student["files"]:
            file["latency_ms"] = model["int8_latency_ms" if file["name"] == INT8 else "latency_ms"]


def read_all(store):
    """{name: results} of all that were taken in, by script and name; see `tell_of_all_texts`."""
    runs = {path.parent.name: read(path) for path in store.glob("runs/*/results.json")}
    for results in runs.values():
        for model in results["models"]:
            if "exits" in model and "int8_timed" not in model["exits"][0]:
                tell_of_all_texts(model, teacher_of(results, model["seed"]), results.get("student", {}))
    return dict(sorted(runs.items(), key=lambda item: ([*METHODS].index(item[1]["script"]), item[0])))


def exit_at(record, speed):
    """What a record says of a model that stops early at one of its speeds."""
    return next(point for point in record["exits"] if point["speed"] == speed)


def correct_of(results, name, speed=None):
    """Which test examples a model got right: {seed: (examples,) bool}; none if it was not trained.

    results: of a run
    name: of the model
    speed: at which, if it stops early; at the one chosen on validation, unless given
    """
    records = [record for record in results["models"] if record["name"] == name]
    answers = {each["seed"]: (each if speed is None else exit_at(each, speed))["correct"] for each in records}
    return {seed: unpack_bits(correct, results["data"]["test"]) for seed, correct in answers.items()}


def compared(a, b):
    """`compare` of two models' {seed: (examples,) bool} over the seeds that both have, and these; None if there is none."""
    seeds = sorted(a.keys() & b.keys())
    if not seeds:
        return None
    return compare(np.stack([a[seed] for seed in seeds]), np.stack([b[seed] for seed in seeds])) | {"seeds": seeds}
