"""RESULTS.md: built from small results.json files, held against the same reckoned here; and the committed one from its own."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from common import InputError, report, results
from common.evaluation import compare
from tests.starting import ROOT

TEST = 40  # examples


def right(seed, share, salt=0):
    """A fixed random choice of the test examples."""
    return np.random.default_rng((seed, salt)).random(TEST) < share


def model(name, seed, correct, layers=3, ms=10.0, **more):
    return {
        "name": name, "seed": seed, "layers": layers, "parameters": 1000 * layers, "flops": 1e6 * layers,
        "latency_ms": {"1": ms, "32": 10 * ms}, "accuracy": float(correct.mean()), "macro_f1": float(correct.mean()),
        "train_seconds": 36.0, "epochs": 4, "correct": report.bits(correct), **more,
    }


def run(script, rows, seeds=(0, 1), fingerprint="same", **more):
    """A results.json. rows: {name: (share of right answers, layers, ms)}."""
    models = [
        model(name, seed, right(seed, share, salt=sum(map(ord, name))), layers, ms)
        for seed in seeds for name, (share, layers, ms) in rows.items()
    ]
    for found in models:
        if found["name"] in results.TEACHERS:  # one teacher, whatever the script calls it
            found["correct"] = report.bits(right(found["seed"], 0.9))
    return {
        "schema": 1, "script": script, "preset": "demo", "command": f"python {script}.py --seeds 0 1",
        "settings": {"seeds": list(seeds), "precision": "float32", "output": "", "uncertainty_top_k": 0, "omit_class": ""},
        "environment": {"python": "3.11.7", "machine": "a machine, 2 cores"},
        "data": {"name": "posts", "classes": 4, "train": 100, "unlabelled": 0, "validation": 20, "test": TEST,
                 "chosen_on": "validation", "test_fingerprint": fingerprint, "notes": [], "descriptions": {}},
        "models": models, "comparisons": [], **more,
    }


def stopping(seed, share, teacher_ms=20.0):
    """A FastBERT of two speeds: the slower as good as the teacher, the faster a little worse."""
    answers = {0.1: right(seed, 0.9), 0.5: right(seed, share, 7)}
    exits = [{
        "speed": speed, "accuracy": float(correct.mean()), "macro_f1": 0.5, "mean_layers": layers, "flops_speedup": 6 / layers,
        "wall_speedup": {"1": wall + 0.8, "32": wall},
        "timed": {size: {"flops_speedup": wall, "ms": 1} for size in ("1", "32")},
        "correct": report.bits(correct),
    } for (speed, correct), layers, wall in zip(answers.items(), (5.0, 2.5), (1.1, 2.1), strict=True)]
    return model("fastbert", seed, answers[0.1], layers=5.0, ms=teacher_ms / 1.1, exits=exits, speed=0.1, leaving=[1, 2, 3],
                 branch_accuracy=[0.5, 0.6, 0.9], median_uncertainty=[0.1, 0.1, 0.1], median_entropy=[0.1, 0.1, 0.1])


@pytest.fixture
def folders(tmp_path):
    """Run folders with results of three scripts of one teacher, and of one on other data."""
    bert, theseus = "knowledge_distillation_bert", "knowledge_distillation_bert_of_theseus"
    found = {
        "posts-bert": run(bert, {"teacher": (0.9, 6, 20.0), "alone": (0.5, 3, 10.0), "distilled": (0.75, 3, 10.0)}),
        "posts-theseus": run(theseus, {
            "predecessor": (0.9, 6, 20.0), "successor": (0.5, 3, 10.0), "theseus-additive": (0.85, 3, 10.0)}),
        "posts-fastbert": run("knowledge_distillation_fastbert", {"teacher": (0.9, 6, 20.0)}),
        "iflytek-partial-bert": run(bert, {"teacher": (0.6, 12, 40.0), "alone": (0.5, 3, 10.0)}, (0,), "other"),
    }
    found["posts-fastbert"]["models"] += [stopping(seed, 0.8) for seed in (0, 1)]
    found["iflytek-partial-bert"]["data"]["name"] = "../iflytek-partial"
    for name, value in found.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(json.dumps(value))
    (tmp_path / "posts-theseus" / "replacing.png").write_bytes(b"a plot")
    return [tmp_path / name for name in found]


@pytest.fixture
def built(folders, tmp_path):
    results.take_in(folders, tmp_path / "store")
    results.build(tmp_path / "store", tmp_path / "RESULTS.md")
    return (tmp_path / "RESULTS.md").read_text()


def table_rows(text, start):
    """The cells of the table rows whose first cell is `start`."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith(f"| {start} |")]
    return [[cell.strip() for cell in line] for line in lines]


def test_bits_come_back():
    for count in (1, 7, 8, 9, 2000):
        correct = np.random.default_rng(count).random(count) < 0.5
        np.testing.assert_array_equal(report.unpacked(report.bits(correct), count), correct)


def test_the_figures_are_those_of_the_runs(built):
    correct = np.stack([right(seed, 0.85, sum(map(ord, "theseus-additive"))) for seed in (0, 1)])
    base = np.stack([right(seed, 0.5, sum(map(ord, "alone"))) for seed in (0, 1)])
    found, accuracy = compare(correct, base), 100 * correct.mean(axis=1)
    row, = table_rows(built, "theseus, additive")
    assert row[1] == f"{accuracy.mean():.2f} ± {accuracy.std(ddof=1):.2f}"
    assert row[2:5] == ["2.00", "2.00", "3"]  # 20 ms of the teacher over 10
    assert row[8] == f"{100 * found['difference']:+.2f}"
    assert row[9] == " to ".join(f"{100 * bound:+.2f}" for bound in found["ci95"])


@pytest.mark.parametrize("name, texts", [
    ("alone", 10), ("distilled-unlabelled", 15), ("fastbert", 15), ("fastbert-labels", 15), ("fastbert-labels-only", 10),
    ("fastbert-joint", 10),
])
def test_texts_without_labels_count_where_a_method_learns_from_them(name, texts):
    assert results.texts_of(name, {"train": 10, "unlabelled": 5}) == texts


def test_a_fastbert_stands_at_the_speeds_nearest_to_the_shallow_models(built):
    (slower,), (faster,) = (table_rows(built, f"fastbert, speed {speed}") for speed in (0.1, 0.5))
    accuracy = 100 * np.array([right(seed, 0.8, 7).mean() for seed in (0, 1)])
    assert slower[2:5] == ["1.90", "1.10", "5"]  # of 1.9 and 2.9 the nearer to 2, for one text
    assert faster[2:5] == ["2.90", "2.10", "2.5"]  # of 1.1 and 2.1, in batches
    assert faster[1] == f"{accuracy.mean():.2f} ± {accuracy.std(ddof=1):.2f}"


def test_only_runs_of_one_teacher_stand_in_the_comparison(built, folders, tmp_path):
    comparison = built[built.index("## One teacher"):built.index("## What is claimed")]
    assert "`posts-bert`, `posts-theseus`, `posts-fastbert`" in comparison and "iflytek" not in comparison
    other = json.loads((folders[1] / "results.json").read_text())
    for found in other["models"]:
        if found["name"] == "predecessor":
            found["correct"] = report.bits(~right(found["seed"], 0.9))
    (folders[1] / "results.json").write_text(json.dumps(other))
    results.take_in(folders, tmp_path / "store")
    results.build(tmp_path / "store", tmp_path / "RESULTS.md")
    again = (tmp_path / "RESULTS.md").read_text()
    assert "`posts-theseus`" not in again[again.index("## One teacher"):again.index("## What is claimed")]


def test_what_is_claimed_is_held_against_every_run_that_can_say(built):
    claims = table_rows(built, "a student gains from its teacher's soft labels")
    assert [row[3] for row in claims] == ["posts-bert"] and claims[0][2] == "+2.0 (BERT), +0.19 (images)"
    found = compare(*(np.stack([right(seed, share, sum(map(ord, name))) for seed in (0, 1)])
                      for name, share in (("distilled", 0.75), ("alone", 0.5))))
    assert claims[0][-1] == results.verdict(found | {"seeds": [0, 1]}) and claims[0][4] == "2"


def test_what_a_narrow_precision_costs(folders, tmp_path):
    narrow = json.loads((folders[0] / "results.json").read_text())
    narrow["settings"] |= {"precision": "mixed_bfloat16", "seeds": [0, 1], "experiments": ["alone"]}
    for found in narrow["models"]:
        found["correct"] = report.bits(right(found["seed"], 0.4, 99))
    other = json.loads(json.dumps(narrow))
    other["settings"]["batch_size"] = 16  # so it differs in more
    for name, value in (("narrow", narrow), ("other", other)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(json.dumps(value))
    results.take_in([*folders, tmp_path / "narrow", tmp_path / "other"], tmp_path / "store")
    rows = results.precision_table(results.stored(tmp_path / "store"))
    assert [row[:4] for row in rows[1:]] == [
        ["posts-bert", "mixed_bfloat16", name, "0 1"] for name in ("teacher", "alone", "distilled")]
    found = compare(np.stack([right(s, 0.5, sum(map(ord, "alone"))) for s in (0, 1)]),
                    np.stack([right(s, 0.4, 99) for s in (0, 1)]))
    assert rows[2][6] == f"{100 * found['difference']:+.2f}"


@pytest.mark.parametrize(("interval", "word"), [
    ((0.01, 0.02), "holds"), ((-0.01, 0.02), "open"), ((-0.02, -0.01), "does not hold: the reverse does"), ((0, 0), "open"),
])
def test_a_verdict_needs_the_whole_interval(interval, word):
    assert results.verdict({"ci95": interval, "seeds": [0, 1]}) == word
    alone = results.verdict({"ci95": interval, "seeds": [0]})
    assert alone == (word if word == "open" else f"{word}, of these two models")


def test_original_figures_stand_in_a_column_and_partial_data_is_named(built):
    assert [row[-1] for row in table_rows(built, "alone")] == ["58.14", "58.14"]
    assert "![replacing](results/posts-theseus-replacing.png)" in built
    iflytek = built[built.index("### iflytek-partial-bert"):]
    assert "**Part of the training set**" in iflytek.split("###")[1]
    assert "python knowledge_distillation_bert.py --seeds 0 1" in iflytek


def test_notes_and_what_benchmarks_printed_are_taken_in(built, tmp_path):
    (tmp_path / "store" / "posts-bert.md").write_text("We tried T = 4.\n")
    (tmp_path / "store" / "reading.txt").write_text("$ python -m tests.benchmarks reading\nlines  s\n")
    results.build(tmp_path / "store", tmp_path / "RESULTS.md")
    text = (tmp_path / "RESULTS.md").read_text()
    assert text.index("### posts-bert") < text.index("#### Tried\n\nWe tried T = 4.") < text.index("### posts-theseus")
    assert text.endswith("    python -m tests.benchmarks reading\n\n```\nlines  s\n```\n")
    assert (tmp_path / "store" / "comparison.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("content", "message"), [
    (None, "there is no results.json"), ("{", "not the results"), ("[]", "not the results"),
    ('{"script": "other", "command": "c", "models": [{"correct": "00"}]}', "not the results"),
    ('{"script": "knowledge_distillation_bert", "models": []}', "not the results"),
])
def test_what_is_not_a_finished_run_is_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "results.json").write_text(content)
    with pytest.raises(InputError, match=message):
        results.take_in([tmp_path], tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_the_command_line(folders, tmp_path):
    def rebuild(*words):
        return subprocess.run(
            [sys.executable, "-m", "common.report", *map(str, words), "--store", tmp_path / "store", "--output",
             tmp_path / "RESULTS.md"], cwd=ROOT, capture_output=True, text=True)

    empty = rebuild()
    assert empty.returncode == 2 and empty.stderr.count("\n") == 1 and "name the folders of finished runs" in empty.stderr
    done = rebuild(*folders)
    assert done.returncode == 0 and done.stdout == f"{tmp_path / 'RESULTS.md'}\n"
    first = (tmp_path / "RESULTS.md").read_bytes()
    assert rebuild().returncode == 0 and (tmp_path / "RESULTS.md").read_bytes() == first


@pytest.mark.skipif(not shutil.which("make"), reason="there is no make here")
def test_make_results_gives_the_commands_that_stand_in_them():
    printed = subprocess.run(["make", "--dry-run", "results"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    lines = printed.replace("\\\n", " ").splitlines()
    commands = [" ".join(line.split()).split(" --output runs/") for line in lines if "--output runs/" in line]
    made = {name: words.replace(".venv/bin/python", "python") for words, name in commands}
    stored = {path.stem: json.loads(path.read_text())["command"] for path in Path(ROOT, "results").glob("*.json")}
    assert len(made.keys() & stored.keys()) >= 5
    for name in made.keys() & stored.keys():
        assert made[name] == stored[name]


def test_the_committed_results_are_what_their_runs_say(tmp_path):
    """Nothing in RESULTS.md is typed: it is built anew from results/, byte for byte."""
    store = tmp_path / "results"
    store.mkdir()
    for path in Path(ROOT, "results").iterdir():
        (store / path.name).write_bytes(path.read_bytes())
    results.build(store, tmp_path / "RESULTS.md")
    assert (tmp_path / "RESULTS.md").read_text() == Path(ROOT, "RESULTS.md").read_text()
