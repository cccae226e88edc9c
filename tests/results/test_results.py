"""The pages of results/: built from small results.json files, held against the same computed here; and the committed ones from
their own."""

import importlib
import json
import re
import runpy
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tyro
from scipy import stats

from common import InputError
from common.command import as_dict
from common.evaluation import compare, pack_bits, unpack_bits
from results.claims import claims_table, comparison_of, verdict
from results.methods import METHODS, Method
from results.pages import build, differences_table, training_seconds
from results.precision import precision_table
from results.published import Published
from results.settings import as_flag, settings_table
from results.stored import read_all, take_in
from results.students import students_table
from tests.results.made import right, right_of, run, section, stopping, table_rows, written
from tests.starting import ROOT


def run_page(pages, name):
    return (pages / "store" / "runs" / name / "README.md").read_text("utf-8")


def test_a_difference_stands_there_in_each_seed_too():
    """The least and the largest, and the largest p of the exact McNemar tests; where one seed is all there is, nothing more."""
    models = {"teacher": (0.9, 6, 20.0), "alone": (0.5, 3, 10.0), "distilled": (0.8, 3, 10.0)}
    a, b = (right_of(name, models[name][0]) for name in ("distilled", "alone"))

    def table(seeds):
        both = compare(a[list(seeds)], b[list(seeds)])
        comparison = {"a": "distilled", "b": "alone", "seeds": list(seeds)} | both
        return differences_table(run("knowledge_distillation_bert", models, seeds) | {"comparisons": [comparison]})

    assert {len(row) for row in table((0,))} == {4}
    better, worse = (a & ~b).sum(axis=1), (b & ~a).sum(axis=1)
    p = max(stats.binomtest(int(one), int(one + other)).pvalue for one, other in zip(better, worse, strict=True))
    low, high = sorted(100 * (better - worse) / a.shape[1])
    shown = table((0, 1))[1][-2:]
    assert low < high and shown == [f"{low:+.2f} to {high:+.2f}", f"{p:.4f}" if p >= 0.0001 else "< 0.0001"]


def test_bits_come_back():
    for examples in (1, 7, 8, 9, 2000):
        correct = np.random.default_rng(examples).random(examples) < 0.5
        np.testing.assert_array_equal(unpack_bits(pack_bits(correct), examples), correct)


def test_a_teacher_counts_once_in_the_time_of_training(pages):
    """Of two seeds' teachers and FastBERTs, 36 s each, in which the teacher's 36 s are: 72 s, not 144."""
    assert "Training took 0.0 h in all" in run_page(pages, "posts-fastbert")
    results = read_all(pages / "store")["posts-fastbert"]
    assert training_seconds(results) == 72
    for record in results["models"]:
        record["name"] = record["name"].replace("fastbert", "fastbert-joint")  # which trains its own
    assert training_seconds(results) == 144


def test_what_is_claimed_is_held_against_every_run_that_can_say(page):
    claim, = table_rows(page, "a student gains from its teacher's soft labels (original)")
    comparison = compare(right_of("distilled", 0.75), right_of("alone", 0.5))
    assert claim[1:5] == ["+2.0 (BERT), +0.19 (images, on validation)", "posts-bert", "2", "distilled - alone"]
    assert claim[-1] == verdict(comparison | {"seeds": [0, 1]})


def test_models_that_stop_early_are_held_against_each_other_by_their_branches(pages):
    results = read_all(pages / "store")["posts-fastbert"]
    results["models"] += [record | {"name": "fastbert-joint"} for record in results["models"] if record["name"] == "fastbert"]
    assert comparison_of(results, "fastbert", "fastbert-joint") is None  # their chosen speeds say nothing
    results["branch_comparisons"] = [
        {"a": "fastbert-joint", "b": "fastbert", "difference": 0.1, "ci95": [-0.1, 0.3], "p_value": 0.2, "seeds": [0, 1]}]
    comparison = comparison_of(results, "fastbert", "fastbert-joint")
    assert (comparison["difference"], comparison["ci95"], comparison["p_value"]) == (-0.1, [-0.3, 0.1], 0.2)


def test_what_one_setting_is_worth(folders, tmp_path):
    """A run that is named after another and differs in one setting; not one that differs in two, nor one of another name."""
    base = json.loads((folders[0] / "results.json").read_text("utf-8"))
    first = json.loads(json.dumps(base))
    first["settings"] |= {"student_init": "first", "experiments": ["distilled"], "seeds": [0, 1]}
    base["settings"] |= {"student_init": "teacher-first"}
    for record in first["models"]:
        if record["name"] == "distilled":
            record["correct"] = pack_bits(right(record["seed"], 0.4, 98))
    two = json.loads(json.dumps(first))
    two["settings"] |= {"temperature": 3}
    runs = {"best": base, "best-first": first, "best-two": two, "other": first}
    table = settings_table(runs)
    comparison = compare(right_of("distilled", 0.75), np.stack([right(seed, 0.4, 98) for seed in (0, 1)]))
    assert [row[:5] for row in table[1:]] == [
        ["best", "--student-init teacher-first", "--student-init first", "distilled", "2"]]  # the others answer alike
    assert table[1][7] == f"{100 * comparison['difference']:+.2f}"
    take_in([*folders[1:], *written(tmp_path, {name: runs[name] for name in ("best", "best-first")})], tmp_path / "store")
    build(tmp_path / "store", tmp_path / "RESULTS.md")
    assert "best-first" not in (tmp_path / "RESULTS.md").read_text("utf-8")
    assert "[best-first](best-first/README.md)" in (tmp_path / "store" / "runs" / "README.md").read_text("utf-8")
    assert (tmp_path / "store" / "runs" / "best-first" / "README.md").is_file()
    assert as_flag("linear", False) == ["--no-linear"] and as_flag("layer_mapping", [2, 4]) == ["--layer-mapping", "2", "4"]


def test_what_a_narrow_precision_costs(folders, tmp_path):
    narrow = json.loads((folders[0] / "results.json").read_text("utf-8"))
    narrow["settings"] |= {"precision": "mixed_bfloat16", "seeds": [0, 1], "experiments": ["alone"], "vocabulary": 8000}
    narrow["settings"] |= {"ensemble": False}  # which the other is too old to have
    for record in narrow["models"]:
        record["correct"] = pack_bits(right(record["seed"], 0.4, 99))
    other = json.loads(json.dumps(narrow))
    other["settings"]["batch_size"] = 16  # so it differs in more
    take_in([*folders, *written(tmp_path, {"narrow": narrow, "other": other})], tmp_path / "store")
    table = precision_table(read_all(tmp_path / "store"))
    assert [row[:4] for row in table[1:]] == [
        ["posts-bert", "mixed_bfloat16", name, "2"] for name in ("teacher", "alone", "distilled", "distilled-unlabelled")]
    comparison = compare(right_of("alone", 0.5), np.stack([right(seed, 0.4, 99) for seed in (0, 1)]))
    assert table[2][6] == f"{100 * comparison['difference']:+.2f}"


@pytest.mark.parametrize(("interval", "word"), [
    ((0.01, 0.02), "holds"), ((-0.01, 0.02), "open"), ((-0.02, -0.01), "the reverse holds"), ((0, 0), "open"),
])
def test_a_verdict_needs_the_whole_interval(interval, word):
    assert verdict({"ci95": interval, "seeds": [0, 1]}) == word
    assert verdict({"ci95": interval, "seeds": [0]}) == (word if word == "open" else f"{word}, of two models")


def test_figures_of_others_stand_in_a_column_and_partial_data_is_named(page, pages):
    for name in ("posts-bert", "iflytek-partial-bert"):
        assert [row[-1] for row in table_rows(run_page(pages, name), "alone")] == ["58.14"]
        assert "\"reported %\": the original's script" in run_page(pages, name)
        assert "python knowledge_distillation_bert.py --seeds 0 1" in run_page(pages, name)
    assert "**Part of the training set**" in run_page(pages, "iflytek-partial-bert")
    assert "`iflytek-partial-bert`: **Part of the training set**" in section(page, "What is claimed, and what was found")
    assert "**Part of" not in run_page(pages, "posts-bert")


def test_the_papers_figures_stand_beside_a_fastbert_at_its_speeds(folders, tmp_path):
    results = json.loads((folders[2] / "results.json").read_text("utf-8"))
    for record in results["models"]:
        for point in record.get("exits", ()):
            point["speed"] = {0.1: 0, 0.5: 0.5}[point["speed"]]  # at 0 the teacher answers
    take_in(written(tmp_path, {"exits": results}), tmp_path / "store")
    build(tmp_path / "store", tmp_path / "RESULTS.md")
    gain = 100 * np.mean([right(seed, 0.8, 7).mean() - right(seed, 0.9).mean() for seed in (0, 1)])
    page = run_page(tmp_path, "exits")
    assert [f"{gain:+.2f}, 2.4 x", "-3.25, 6.82 x"] in [row[1:3] for row in table_rows(page, "0.5")]
    assert "arXiv 2004.02178" in page and "cannot be above 2.4 here" in page


def test_plots_notes_and_what_benchmarks_printed_are_taken_in(page, pages):
    theseus = pages / "store" / "runs" / "posts-theseus"
    assert {path.name for path in theseus.iterdir()} == {"results.json", "README.md", "replacing.png"}
    assert "![replacing](replacing.png)" in run_page(pages, "posts-theseus")
    assert run_page(pages, "posts-bert").endswith("## Tried\n\nWe tried T = 4.\n")
    ratios = (pages / "store" / "benchmarks" / "README.md").read_text("utf-8")
    assert "| two posts, wow | 3.500 | 1.750 | 2.0 | [speed](speed.txt) |\n" in ratios
    assert "](store/benchmarks/README.md)\n\n`python" in page
    assert page.endswith(
        "`python -m tests.benchmarks reading` ([output](store/benchmarks/reading.txt))\n")


def test_a_run_taken_in_again_keeps_its_notes_and_loses_old_plots(folders, tmp_path):
    take_in(folders, tmp_path / "store")
    target = tmp_path / "store" / "runs" / "posts-theseus"
    (target / "notes.md").write_text("notes")
    (folders[1] / "replacing.png").unlink()
    take_in(folders, tmp_path / "store")
    assert {path.name for path in target.iterdir()} == {"results.json", "notes.md"}


def test_a_run_that_is_kept_already_keeps_its_plots(folders, tmp_path):
    take_in(folders, tmp_path / "store")
    target = tmp_path / "store" / "runs" / "posts-theseus"
    before = {path.name: path.read_bytes() for path in target.iterdir()}
    take_in([target], tmp_path / "store")
    assert "replacing.png" in before and {path.name: path.read_bytes() for path in target.iterdir()} == before


@pytest.mark.parametrize(("content", "message"), [
    (None, "there is no results.json"), ("{", "not the results"), ("[]", "not the results"),
    ('{"script": "other", "command": "c", "models": [{"correct": "00"}]}', "not the results"),
    ('{"script": "knowledge_distillation_bert", "models": []}', "not the results"),
])
def test_what_is_not_a_finished_run_is_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "results.json").write_text(content)
    with pytest.raises(InputError, match=message):
        take_in([tmp_path], tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_a_run_without_a_teacher_has_its_page(tmp_path):
    """As one that learned from --soft-labels; there is nothing to compare it by."""
    results = run("knowledge_distillation_bert", {"alone": (0.5, 3, 9.0), "distilled": (0.6, 3, 9.0)})
    take_in(written(tmp_path, {"answers": results}), tmp_path / "store")
    build(tmp_path / "store", tmp_path / "RESULTS.md")
    assert "](store/runs/README.md)" in (tmp_path / "RESULTS.md").read_text("utf-8")
    assert "[answers](answers/README.md)" in (tmp_path / "store" / "runs" / "README.md").read_text("utf-8")


def test_two_runs_of_one_name_are_refused(folders, tmp_path):
    other = tmp_path / "elsewhere" / folders[0].name
    shutil.copytree(folders[0], other)
    with pytest.raises(InputError, match=f"{other.name}: two of these folders have this name"):
        take_in([*folders, other], tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_a_further_method_is_one_entry(folders, tmp_path, monkeypatch):
    """Its names are like nobody's, and some are like what they are not."""
    entry = Method(
        title="Hints", teacher="guide", alone="plain", compared={"plain": "plain", "hinted": "hints", "quick": "quick hints"},
        unlabelled=("hinted",), teacher_in_seconds=("quick",), plots=("hints",),
        published=Published("its paper", {"hinted": "70.0"}, {"News": {0.5: (-1.0, 3.0)}}),
    )
    results = run("knowledge_distillation_hints", {
        "guide": (0.9, 6, 20.0), "plain": (0.4, 3, 10.0), "hinted": (0.8, 3, 8.0), "fastbert-joint-unlabelled": (0.5, 3, 10.0)})
    results["models"] += [stopping("quick", seed, 0.7) for seed in (0, 1)]
    new = written(tmp_path, {"hinting": results})
    (new[0] / "hints.png").write_bytes(b"a plot")
    with pytest.raises(InputError, match="not the results"):
        take_in(new, tmp_path / "store")
    monkeypatch.setitem(METHODS, "knowledge_distillation_hints", entry)
    take_in([*folders, *new], tmp_path / "store")
    build(tmp_path / "store", tmp_path / "RESULTS.md")
    page, own = (tmp_path / "store" / "comparison.md").read_text("utf-8"), run_page(tmp_path, "hinting")
    accuracy = 100 * right_of("hinted", 0.8).mean(axis=1)
    row, = table_rows(page, "hints")
    assert row[1:3] == [f"{accuracy.mean():.2f} ± {accuracy.std(ddof=1):.2f}", "2.50"] and row[8] == "20"
    quick, = table_rows(page, "quick hints, speed 0.5")
    assert quick[2:4] == ["2.90", "2.10"] and quick[6] == "2.5" and quick[8] == "16"
    assert not table_rows(page, "fastbert-joint-unlabelled") and table_rows(own, "fastbert-joint-unlabelled")
    runs = (tmp_path / "store" / "runs" / "README.md").read_text("utf-8")
    assert "## Hints\n\n`knowledge_distillation_hints.py`\n\n- [hinting](hinting/README.md): " in runs
    assert table_rows(own, "hinted")[0][-1] == "70.0" and "![hints](hints.png)" in own and "`quick` at each speed" in own


def command_line(monkeypatch, capsys, *words):
    """(exit status, output, errors) of python -m results, in this process."""
    monkeypatch.setattr(sys, "argv", ["results", *map(str, words)])
    status = 0
    try:
        runpy.run_module("results", run_name="__main__", alter_sys=True)
    except SystemExit as stop:
        status = stop.code
    return status, *capsys.readouterr()


def test_the_command_line(folders, tmp_path, monkeypatch, capsys):
    def rebuild(*words):
        return command_line(
            monkeypatch, capsys, *words, "--store", tmp_path / "store", "--output", tmp_path / "RESULTS.md")

    status, _, errors = rebuild()
    assert status == 2 and errors.count("\n") == 1 and "name the folders of finished runs" in errors
    status, _, errors = rebuild("--folder", "x")
    assert status == 2 and errors == "error: Unrecognized options: --folder, x; --help tells what can be given\n"
    assert rebuild(*folders) == (0, f"{tmp_path / 'RESULTS.md'}\n", "")
    first = generated(tmp_path)
    assert rebuild()[0] == 0 and generated(tmp_path) == first and len(first) == 7


@pytest.mark.skipif(not shutil.which("make"), reason="there is no make here")
def test_make_results_gives_the_commands_that_stand_in_them():
    printed = subprocess.run(["make", "--dry-run", "results"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    lines = printed.replace("\\\n", " ").splitlines()
    commands = [" ".join(line.split()).split(" --output runs/") for line in lines if "--output runs/" in line]
    made = {name: words.replace(".venv/bin/python", "python") for words, name in commands}
    stored = {name: results["command"] for name, results in read_all(ROOT / "results").items()}
    assert len(made.keys() & stored.keys()) >= 5
    for name in made.keys() & stored.keys():
        assert made[name] == stored[name]


@pytest.mark.parametrize("name", sorted(path.parent.name for path in (ROOT / "results" / "runs").glob("*/results.json")))
def test_the_command_of_a_run_still_means_its_settings(name):
    """As presets and defaults are today; of settings that have become others it can say nothing."""
    results = json.loads((ROOT / "results" / "runs" / name / "results.json").read_text("utf-8"))
    _, file, *words = shlex.split(results["command"])
    presets = importlib.import_module(file.removesuffix(".py")).PRESETS
    preset = presets[words.pop(0) if not words[0].startswith("-") else "demo"]
    means, stored = as_dict(tyro.cli(type(preset), default=preset, args=words)), results["settings"]
    free = {"output", "download", "vocabulary"}  # of the last the default was a number, and is the same number by another name
    assert {key: means[key] for key in means.keys() & stored.keys() - free} == {
        key: stored[key] for key in means.keys() & stored.keys() - free}


def generated(folder):
    """{path: text} of the Markdown that `build` writes, below a folder."""
    stored = [page for runs in folder.glob("*/runs") for page in (*runs.parent.glob("*.md"), *runs.parent.rglob("README.md"))]
    return {path.relative_to(folder).as_posix(): path.read_text("utf-8") for path in [folder / "RESULTS.md", *stored]}


def test_the_student_to_take_away_stands_beside_its_teacher():
    models = {"teacher": (0.9, 6, 20.0), "alone": (0.8, 3, 10.0)}
    cost = {"difference": -0.002, "ci95": [-0.006, 0.002], "p_value": 0.3}
    files = [{"name": name, "bytes": size, "parameters": 9, "accuracy": 0.8, "latency_ms": {"1": ms, "32": 8 * ms}}
             for name, size, ms in (("model.onnx", 9000, 10.0), ("model.int8.onnx", 2000, 4.0))]
    costs = {"model.onnx": cost, "model.int8.onnx": cost}
    taken = {"name": "alone", "seed": 1, "tokens": 8000, "files": files, "differences": costs}
    whole = run("knowledge_distillation_bert", models, student=taken)
    only = run("knowledge_distillation_bert", models, student=taken | {"files": files[:1], "differences": {"model.onnx": cost}})
    older = run("knowledge_distillation_bert", models)
    images = run("knowledge_distillation_from_scratch", models, student={"name": "alone", "seed": 0, "files": []})
    none = run("knowledge_distillation_bert", {"alone": (0.8, 3, 10.0)}, student=taken)
    runs = {"whole": whole, "only": only, "older": older, "images": images, "no-teacher": none}
    header, first, second = students_table(runs)
    points = "-0.20 (-0.60 to +0.20)"
    assert first == ["whole", "alone", "8,000", "0.002", "12.0", "5.0", "6.2", "2", points, points]
    assert second == ["only", "alone", "8,000", "0.009", "2.7", "2.0", "2.5", "2", points, "not written"]
    assert len(header) == len(first)



def test_the_committed_pages_are_what_their_runs_say(tmp_path):
    """Nothing in them is typed: they are built anew from results/, byte for byte."""
    built = shutil.ignore_patterns("*.py", "README.md", "students.md", "taken.md", "settings.md", "comparison.*")
    shutil.copytree(ROOT / "results", tmp_path / "results", ignore=built)
    build(tmp_path / "results", tmp_path / "RESULTS.md")
    anew = generated(tmp_path)
    assert len(anew) == 1 + 6 + len(read_all(ROOT / "results"))
    for page in anew.keys() - {"RESULTS.md"}:  # a reader comes to each from RESULTS.md, to a run's by way of their list
        of_run = page.count("/") == 3
        name = page.removeprefix("results/runs/" if of_run else "")
        assert f"]({name})" in anew["results/runs/README.md" if of_run else "RESULTS.md"]
    assert anew.keys() == generated(ROOT).keys()
    for path, text in anew.items():
        assert text == (ROOT / path).read_text("utf-8"), f"{path}: python -m results was not run"


def test_the_committed_page_is_short_and_its_links_lead_somewhere():
    assert len((ROOT / "RESULTS.md").read_bytes()) <= 15_000
    links = [(path, link) for path, text in generated(ROOT).items() for link in re.findall(r"\]\(([^)#:]+)\)", text)]
    assert len(links) > 30
    for path, link in links:
        assert (ROOT / path).parent.joinpath(link).exists(), f"{path}: {link}"


def test_the_ground_is_named_where_a_linear_model_stands_beside_the_teacher(folders, tmp_path):
    """Computed here once more: a teacher 3 points above it or less; of runs on one ground that with the most seeds."""
    bert, students = "knowledge_distillation_bert", {"alone": (0.5, 3, 10.0), "distilled": (0.6, 3, 10.0)}
    runs = {"fewer": run(bert, {"teacher": (0.9, 6, 20.0), "linear": (0.4, 0, 0.5)}, seeds=(0,)),
            "good": run(bert, {"teacher": (0.9, 6, 20.0), "linear": (0.4, 0, 0.5), **students}),
            "poor": run(bert, {"teacher": (0.9, 6, 20.0), "linear": (1.0, 0, 0.5), **students}, fingerprint="third")}
    for results in runs.values():
        results["settings"]["maxlen"] = 48
        for record in results["models"]:
            record["epochs"] *= record["name"] != "linear"
    (tmp_path / "new").mkdir()
    take_in([*folders, *written(tmp_path / "new", runs)], tmp_path / "store")
    build(tmp_path / "store", tmp_path / "RESULTS.md")
    part = section((tmp_path / "RESULTS.md").read_text("utf-8"), "Is the ground worth standing on?")
    (good,), (poor,) = table_rows(part, "good"), table_rows(part, "poor")
    gain = 100 * (np.mean([right(seed, 0.9).mean() for seed in (0, 1)]) - right_of("linear", 0.4).mean())
    assert good[1:5] == ["posts", "100", "48", "2"] and good[7] == f"{gain:+.2f}" and good[-1] == "a ground"
    assert poor[-1] == "for trying only"
    assert not table_rows(part, "posts-bert") and not table_rows(part, "fewer")  # the former has no linear row
    claims = section((tmp_path / "RESULTS.md").read_text("utf-8"), "What is claimed, and what was found")
    assert "| good | 2 | distilled - alone |" in claims and "| poor † | 2 | distilled - alone |" in claims


def test_of_a_claim_a_variant_says_only_what_the_run_beside_it_cannot():
    models = {"teacher": (0.9, 6, 20.0), "alone": (0.5, 3, 10.0), "distilled": (0.6, 3, 10.0)}
    layers = models | {"distilled-layers": (0.8, 3, 10.0)}
    plain, more = (run("knowledge_distillation_bert", of_run) for of_run in (models, layers))
    found = claims_table({"demo": plain, "demo-more": more}, variant_of={"demo-more": "demo"})
    assert [row[2] + row[4] for row in found[1:]] == ["demo" + "distilled - alone", "demo-more" + "distilled-layers - alone"]
