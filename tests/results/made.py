"""Small results.json files that are made up, and how to find things on the pages that are built of them."""

import json

import numpy as np

from common.evaluation import pack_bits

TEST = 40  # examples
TEACHERS = ("teacher", "predecessor", "guide")


def right(seed, share, salt=0):
    """A fixed random choice of the test examples."""
    return np.random.default_rng((seed, salt)).random(TEST) < share


def right_of(name, share):
    """(seeds, examples) of the model `name` of `run`."""
    return np.stack([right(seed, share, sum(map(ord, name))) for seed in (0, 1)])


def model(name, seed, correct, layers=3, ms=10.0, **more):
    return {
        "name": name, "seed": seed, "layers": layers, "parameters": int(1000 * layers), "flops": 1e6 * layers,
        "latency_ms": {"1": ms, "32": 10 * ms}, "accuracy": float(correct.mean()), "macro_f1": float(correct.mean()),
        "validation_accuracy": float(correct.mean()) - 0.01,
        "train_seconds": 36.0, "epochs": 4, "correct": pack_bits(correct), **more,
    }


def run(script, models, seeds=(0, 1), fingerprint="same", **more):
    """A results.json. models: {name: (share of right answers, layers, ms)}."""
    records = []
    for seed in seeds:
        for name, (share, layers, ms) in models.items():
            correct = right(seed, 0.9) if name in TEACHERS else right(seed, share, sum(map(ord, name)))  # the teacher is one
            records.append(model(name, seed, correct, layers, ms))
    return {
        "schema": 1, "script": script, "preset": "demo", "command": f"python {script}.py --seeds 0 1",
        "settings": {"seeds": list(seeds), "precision": "float32", "output": "", "uncertainty_top_k": None, "omit_class": "",
                     "batch_size": 32},
        "environment": {"python": "3.11.7", "machine": "a machine, 2 cores"},
        "data": {"name": "posts", "classes": 4, "train": 100, "unlabelled": 50, "validation": 20, "test": TEST,
                 "chosen_on": "validation", "test_fingerprint": fingerprint, "notes": [], "descriptions": {}},
        "models": records, "comparisons": [], **more,
    }


def stopping(name, seed, share, teacher_ms=20.0):
    """A model that stops early, at two speeds: the slower as good as the teacher, the faster a little worse."""
    answers = {0.1: right(seed, 0.9), 0.5: right(seed, share, 7)}
    exits = [{
        "speed": speed, "accuracy": float(correct.mean()), "macro_f1": 0.5, "mean_layers": layers, "flops_speedup": 6 / layers,
        "wall_speedup": {"1": wall + 0.8, "32": wall},
        "timed": {size: {"flops_speedup": wall, "ms": 1} for size in ("1", "32")}, "int8_timed": {},
        "correct": pack_bits(correct),
    } for (speed, correct), layers, wall in zip(answers.items(), (5.0, 2.5), (1.1, 2.1), strict=True)]
    return model(name, seed, answers[0.1], layers=5.0, ms=teacher_ms / 1.1, exits=exits, speed=0.1, leaving=[1, 2, 3],
                 branch_accuracy=[0.5, 0.6, 0.9], median_uncertainty=[0.1, 0.1, 0.1], median_entropy=[0.1, 0.1, 0.1],
                 uncertainty_top_k=2)


def written(folder, runs):
    """Run folders in `folder`. runs: {name: results}."""
    for name, results in runs.items():
        (folder / name).mkdir()
        (folder / name / "results.json").write_text(json.dumps(results))
    return [folder / name for name in runs]


def make_folders(folder):
    """Run folders with results of three scripts of one teacher, and of one on other data."""
    bert, theseus = "knowledge_distillation_bert", "knowledge_distillation_bert_of_theseus"
    runs = {
        "posts-bert": run(bert, {"teacher": (0.9, 6, 20.0), "alone": (0.5, 3, 10.0), "distilled": (0.75, 3, 10.0),
                                 "distilled-unlabelled": (0.7, 3, 10.0)}),
        "posts-theseus": run(theseus, {
            "predecessor": (0.9, 6, 20.0), "successor": (0.5, 3, 10.0), "theseus-additive": (0.85, 3, 10.0)}),
        "posts-fastbert": run("knowledge_distillation_fastbert", {"teacher": (0.9, 6, 20.0)}),
        "iflytek-partial-bert": run(bert, {"teacher": (0.6, 12, 40.0), "alone": (0.5, 3, 10.0)}, (0,), "other"),
    }
    runs["posts-fastbert"]["models"] += [stopping("fastbert", seed, 0.8) for seed in (0, 1)]
    runs["posts-fastbert"] |= {"branch_comparisons": []}
    runs["iflytek-partial-bert"]["data"]["name"] = "../iflytek-partial"
    folders = written(folder, runs)
    (folder / "posts-theseus" / "replacing.png").write_bytes(b"a plot")
    (folder / "posts-theseus" / "curves.png").write_bytes(b"a plot that stays in the run's folder")
    return folders


def table_rows(text, start):
    """The cells of the table rows whose first cell is `start`."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith(f"| {start} |")]
    return [[cell.strip() for cell in line] for line in lines]


def section(text, title):
    return text.split(f"## {title}\n")[1].split("\n## ")[0]
