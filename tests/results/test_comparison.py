"""results.comparison: which runs stand beside each other, and what is said of them, held against the same computed here."""

import numpy as np
import pytest

from common.evaluation import compare, pack_bits
from results.comparison import (
    Comparison,
    comparison_rows,
    methods_table,
    one_teacher,
    overview_table,
    pairs_table,
    plot_comparison,
)
from results.methods import METHODS
from results.stored import read_all, take_in
from tests.results.made import model, right, right_of, run, section, table_rows

BERT, THESEUS = "knowledge_distillation_bert", "knowledge_distillation_bert_of_theseus"
FASTBERT = "fastbert, unlabelled texts too"


@pytest.fixture
def stored(pages):
    """The runs of one teacher, {name: results}, anew for each test."""
    return {name: results for name, results in read_all(pages / "store").items() if name.startswith("posts")}


def names(comparisons):
    """Of the runs of each."""
    return [[*comparison.runs] for comparison in comparisons]


def comparison_page(pages):
    return (pages / "store" / "comparison.md").read_text("utf-8")


# Which runs


def test_only_runs_of_one_teacher_stand_in_the_comparison(page, stored):
    comparison = section(page, "One teacher, all methods")
    assert "`posts-bert`, `posts-theseus`, `posts-fastbert`" in comparison and "iflytek" not in comparison
    for record in stored["posts-theseus"]["models"]:
        if record["name"] == "predecessor":
            record["correct"] = pack_bits(~right(record["seed"], 0.9))
    assert names(one_teacher(stored)) == [["posts-bert", "posts-fastbert"]]


def test_runs_of_one_script_are_no_comparison_of_methods(stored):
    assert one_teacher({"posts-bert": stored["posts-bert"], "more": stored["posts-bert"]}) == []


def test_each_data_set_has_one_comparison_of_most_scripts_and_a_ground_goes_before(stored):
    """Of the posts there are two teachers, one of which three scripts have; and there are other data."""
    deep, replaced = {"teacher": (0.9, 6, 20.0), "alone": (0.5, 3, 10.0)}, {"predecessor": (0.9, 6, 20.0)}
    other = {"deep": run(BERT, deep, fingerprint="other"), "replaced": run(THESEUS, replaced, fingerprint="other")}
    second = {"deep-again": run(BERT, deep), "replaced-again": run(THESEUS, replaced)}
    for record in [record for results in second.values() for record in results["models"] if record["name"] != "alone"]:
        record["correct"] = pack_bits(right(record["seed"], 0.3))  # of another teacher

    runs = second | other | stored
    assert names(one_teacher(runs)) == [["posts-bert", "posts-theseus", "posts-fastbert"], ["deep", "replaced"]]
    assert names(one_teacher(runs, {"posts-theseus"})) == [["deep-again", "replaced-again"], ["deep", "replaced"]]
    assert [comparison.tried for comparison in one_teacher(runs, {"replaced"})] == [False, True]  # it has no other


def test_a_group_without_a_student_trained_alone_is_no_comparison(stored):
    """Another of the same data goes in its place, though of fewer scripts."""
    for results in stored.values():
        results["models"] = [record for record in results["models"] if record["name"] not in ("alone", "successor")]
    deep, replaced = {"teacher": (0.9, 6, 20.0), "alone": (0.5, 3, 10.0)}, {"predecessor": (0.9, 6, 20.0)}
    second = {"deep-again": run(BERT, deep), "replaced-again": run(THESEUS, replaced)}
    for record in [record for results in second.values() for record in results["models"] if record["name"] != "alone"]:
        record["correct"] = pack_bits(right(record["seed"], 0.3))  # of another teacher
    assert names(one_teacher(stored | second)) == [["deep-again", "replaced-again"]]


def test_what_two_scripts_train_alike_stands_once(stored):
    both = {"trained alone", "trained alone, as a successor"}
    assert both <= {row.title for row in comparison_rows(stored)}  # they are trained otherwise
    alone = {record["seed"]: record for record in stored["posts-bert"]["models"] if record["name"] == "alone"}
    for record in stored["posts-theseus"]["models"]:
        if record["name"] == "successor":
            record["correct"] = alone[record["seed"]]["correct"]
    assert both & {row.title for row in comparison_rows(stored)} == {"trained alone"}


def test_a_second_run_of_a_script_adds_what_the_first_does_not_have(stored):
    """The same method in another number of layers has a name of its own; in as many it stands once, of the first run."""
    again = {"teacher": (0.9, 6, 20.0), "distilled": (0.6, 1, 4.0), "distilled-unlabelled": (0.4, 3, 10.0),
             "distilled-layers": (0.8, 3, 10.0)}
    rows = {row.title: row for row in comparison_rows(stored | {"posts-more": run(BERT, again)})}
    added = rows.keys() - {row.title for row in comparison_rows(stored)}
    assert added == {"soft labels; layers: 1", "the same, after the layers"}
    one, unlabelled = rows["soft labels; layers: 1"], rows["soft labels, unlabelled texts too"]
    np.testing.assert_array_equal(one.correct[0], right_of("distilled", 0.6)[0])
    assert one.speedup == {"1": 5.0, "32": 5.0}
    np.testing.assert_array_equal(unlabelled.correct[1], right_of("distilled-unlabelled", 0.7)[1])


def test_of_one_depth_another_size_has_a_name_of_its_own(stored):
    narrow = run(BERT, {"teacher": (0.9, 6, 20.0), "distilled": (0.6, 3, 4.0)})
    for record in narrow["models"]:
        record["parameters"] = 1_500
    titles = [row.title for row in comparison_rows(stored | {"posts-narrow": narrow})]
    assert titles.count("soft labels") == 1 and "soft labels; parameters: 1.50 k" in titles


def test_the_student_trained_alone_is_as_deep_as_most(stored):
    """Another depth's is a method like others, though its run comes first."""
    shallow = run(BERT, {"teacher": (0.9, 6, 20.0), "alone": (0.3, 1, 4.0)})
    rows = comparison_rows({"a": shallow} | stored)
    assert [row.title for row in rows if row.alone] == ["trained alone; layers: 3"]
    assert "trained alone" in [row.title for row in rows]


def test_all_rows_are_of_the_seeds_that_all_scripts_have(stored):
    """A script has those of its run with the most; another run that lacks one of the common seeds is left out everywhere."""
    models = {"teacher": (0.9, 6, 20.0), "distilled-layers": (0.8, 3, 10.0)}
    few, others = (run(BERT, models, seeds=seeds) for seeds in ((0,), (2, 3)))
    comparison, = one_teacher(stored | {"few": few, "others": others})
    assert [*comparison.runs] == [*stored]
    assert {tuple(row.correct) for row in comparison.rows} == {(0, 1)}
    stored["posts-fastbert"]["models"] = [record for record in stored["posts-fastbert"]["models"] if record["seed"] == 0]
    comparison, = one_teacher(stored | {"few": few, "others": others})
    assert [*comparison.runs] == [*stored, "few"] and "the same, after the layers" in {row.title for row in comparison.rows}
    assert {tuple(row.correct) for row in comparison.rows} == {(0,)}


def test_runs_without_a_common_seed_are_no_comparison(stored):
    for record in stored["posts-bert"]["models"]:
        record["seed"] += 2
    assert names(one_teacher(stored)) in ([["posts-theseus", "posts-fastbert"]], [])
    assert names(one_teacher({name: stored[name] for name in ("posts-bert", "posts-theseus")})) == []


# What is said of them


def test_the_figures_are_those_of_the_runs(page, pages):
    correct, base = right_of("theseus-additive", 0.85), right_of("alone", 0.5)
    comparison, accuracy = compare(correct, base), 100 * correct.mean(axis=1)
    (short,), (row,) = (table_rows(text, "theseus, additive") for text in (page, comparison_page(pages)))
    assert short[1] == row[1] == f"{accuracy.mean():.2f} ± {accuracy.std(ddof=1):.2f}"
    assert row[2:7] == ["2.00", "2.00", "", "", "3"] and short[3] == "2.00"  # 20 ms of the teacher over 10; no int8
    interval = " to ".join(f"{100 * bound:+.2f}" for bound in comparison["ci95"])
    assert row[10:12] == [f"{100 * comparison['difference']:+.2f}", interval] and short[2] == f"{row[10]} ({interval})"


def test_every_method_is_held_against_every_other(pages):
    comparison = compare(right_of("theseus-additive", 0.85), right_of("distilled", 0.75))
    row, = table_rows(comparison_page(pages), "theseus, additive - soft labels")
    assert row[1] == f"{100 * comparison['difference']:+.2f}"
    assert (pages / "store" / "comparison.png").read_bytes().startswith(b"\x89PNG")


def test_steps_count_texts_without_labels_where_a_method_learns_from_them(pages, stored):
    """4 epochs of 100 or 150 texts in batches of 32; what counted its steps itself is believed."""
    steps = {title: table_rows(comparison_page(pages), title)[0][8] for title in (
        "trained alone", "soft labels", "soft labels, unlabelled texts too", "theseus, additive",
        "fastbert, unlabelled texts too, speed 0.1")}
    assert [*steps.values()] == ["16", "16", "20", "16", "20"]
    for record in stored["posts-bert"]["models"]:
        record["steps"] = 7
    assert {row.steps for row in comparison_rows({"posts-bert": stored["posts-bert"]})} == {7}
    fastbert = METHODS["knowledge_distillation_fastbert"]
    assert set(fastbert.compared) - set(fastbert.unlabelled) == {"fastbert-labels-only", "fastbert-joint", "linear"}


def test_a_fastbert_stands_at_the_speeds_nearest_to_the_student_trained_alone(pages):
    (slower,), (faster,) = (table_rows(comparison_page(pages), f"{FASTBERT}, speed {speed}") for speed in (0.1, 0.5))
    accuracy = 100 * np.array([right(seed, 0.8, 7).mean() for seed in (0, 1)])
    assert slower[2:4] == ["1.90", "1.10"] and slower[6] == "5"  # of 1.9 and 2.9 the nearer to 2, for one text
    assert faster[2:4] == ["2.90", "2.10"] and faster[6] == "2.5"  # of 1.1 and 2.1, in batches
    assert faster[1] == f"{accuracy.mean():.2f} ± {accuracy.std(ddof=1):.2f}"


def test_other_models_are_no_measure_of_the_speed_that_a_fastbert_is_held_at(folders, tmp_path):
    """Some are many times as fast; with them or without, the FastBERT stands at the speeds of the student trained alone."""
    take_in(folders, tmp_path / "store")
    runs = {name: results for name, results in read_all(tmp_path / "store").items() if name.startswith("posts")}
    before = comparison_rows(runs)
    for seed in (0, 1):
        runs["posts-bert"]["models"].append(model("linear", seed, right(seed, 0.4), layers=0, ms=0.01, epochs=0))
        runs["posts-bert"]["models"].append(model("bilstm-distilled", seed, right(seed, 0.5), layers=1, ms=0.5))
    after = comparison_rows(runs)
    others = {"linear, no BERT", "BiLSTM, logits, unlabelled texts too"}
    assert [row.title for row in after if row.title not in others] == [row.title for row in before]
    assert len(after) == len(before) + 2


def test_in_the_overview_a_fastbert_is_at_the_speed_for_one_text(stored):
    """Which may be the faster of the two."""
    for record in stored["posts-fastbert"]["models"]:
        for point in record.get("exits", ()):
            point["wall_speedup"] = {"1": {0.1: 1.1, 0.5: 2.1}[point["speed"]], "32": {0.1: 1.9, 0.5: 2.9}[point["speed"]]}
    rows = comparison_rows(stored)
    assert [row.speed for row in rows if row.speed is not None] == [0.5, 0.1]
    figures = {row[0]: row for row in overview_table([Comparison(stored, rows, tried=False)])}
    assert figures[FASTBERT][3] == "2.10"


def test_a_second_run_of_a_fastbert_stands_once(stored, tmp_path):
    runs = stored | {"quick": stored["posts-fastbert"]}
    assert [row.title for row in comparison_rows(runs)] == [row.title for row in comparison_rows(stored)]
    plot_comparison(tmp_path / "plot.png", one_teacher(runs))


def test_int8_stands_beside_the_teacher_in_float32(stored):
    for name in ("posts-bert", "posts-fastbert"):
        for record in stored[name]["models"]:
            record["int8_latency_ms"] = {size: ms / 4 for size, ms in record["latency_ms"].items()}
            for point in record.get("exits", ()):
                point["int8_wall_speedup"] = {"1": 7.5, "32": 6.5}
    cells = {row[0]: row[4:6] for row in methods_table(comparison_rows(stored))}
    assert cells["teacher"] == ["4.00", "4.00"] and cells["soft labels"] == ["8.00", "8.00"]
    assert cells["theseus, additive"] == ["", ""] and cells[f"{FASTBERT}, speed 0.5"] == ["7.50", "6.50"]


def test_the_overview_has_a_ground_beside_the_other(stored, tmp_path):
    """A method that one ground lacks has no figures there."""
    other = {"deep": run(BERT, {"teacher": (0.9, 6, 20.0), "alone": (0.5, 3, 5.0), "bilstm-alone": (0.2, 1, 2.0)}),
             "replaced": run(THESEUS, {"predecessor": (0.9, 6, 20.0), "theseus": (0.7, 3, 5.0)})}
    for results in other.values():
        results["data"]["name"], results["settings"]["maxlen"] = "../letters", 24
    comparisons = [Comparison(runs, comparison_rows(runs), tried) for runs, tried in ((stored, False), (other, True))]
    header, *rows = overview_table(comparisons)
    assert header[0] == "method" and header[1::4] == ["posts: %", "letters, 24 tokens †: %"]
    assert [row[0] for row in rows] == [
        "teacher", "trained alone", "soft labels", "soft labels, unlabelled texts too", "BiLSTM",
        "trained alone, as a successor", "theseus", "theseus, additive", FASTBERT,
    ]
    rows = {row[0]: row[1:] for row in rows}
    assert rows["BiLSTM"][:4] == [""] * 4 and rows["theseus, additive"][4:] == [""] * 4
    gain = compare(right_of("theseus", 0.7), right_of("alone", 0.5))
    assert rows["theseus"][5].startswith(f"{100 * gain['difference']:+.2f} (") and rows["theseus"][6] == "4.00"
    assert rows[FASTBERT][2] == "1.90" and rows["trained alone"][1] == rows["trained alone"][5] == ""
    plot_comparison(tmp_path / "plot.png", comparisons)
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_teacher_and_student_alone_are_not_held_against_methods(stored):
    held = {title for row in pairs_table(comparison_rows(stored))[1:] for title in row[0].split(" - ")}
    assert held == {row.title for row in comparison_rows(stored)} - {"teacher", "trained alone"}
