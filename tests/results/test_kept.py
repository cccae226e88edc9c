"""What students keep of their teachers, computed here once more from the same small runs."""

import numpy as np

from common.evaluation import compare
from report.tables import markdown
from results.kept import HEADER, all_students, best_table, students_of
from results.pages import build
from results.stored import take_in
from tests.results.made import right, right_of, run, section, table_rows, written

BERT = "knowledge_distillation_bert"
TEACHER, LINEAR = {"teacher": (0.9, 6, 20.0)}, {"linear": (0.4, 0, 0.5)}
SHALLOW = {"alone": (0.5, 3, 10.0), "distilled": (0.8, 3, 8.0), "distilled-unlabelled": (0.7, 3, 10.1)}
QUICK = {"alone": (0.45, 1, 4.0), "bilstm-distilled": (0.6, 1, 1.0)}


def ground(**models):
    return {name: run(BERT, TEACHER | LINEAR | students) for name, students in models.items()}


def test_at_each_speed_the_best_on_validation_stands_whatever_its_test_part_says():
    runs = ground(shallow=SHALLOW, quick=QUICK)
    for record in runs["shallow"]["models"]:  # better on test texts than `distilled`, which is to be kept
        record["validation_accuracy"] += 0.5 * (record["name"] == "distilled")
        record["accuracy"] = record["accuracy"] if record["name"] != "alone" else 1.0
    header, *rows = best_table(all_students(runs))
    assert header == ["data", "at least", *HEADER]
    assert [row[:5] for row in rows] == [
        ["posts", "2 x", "distilled", "shallow", "2"],
        ["posts", "5 and 15 x", "bilstm-distilled", "quick", "2"],  # of the shallow ones none is that fast
    ]
    for record in runs["quick"]["models"]:
        record["validation_accuracy"] += record["name"] == "bilstm-distilled"
    _, *rows = best_table(all_students(runs))
    assert [row[:4] for row in rows] == [["posts", "2 and 5 and 15 x", "bilstm-distilled", "quick"]]  # one line for all three


def test_students_of_fewer_seeds_are_not_held_against_those_of_more():
    """Their validation texts are others; among all students they stand."""
    runs = {"whole": run(BERT, TEACHER | LINEAR | SHALLOW), "one": run(BERT, TEACHER | LINEAR | QUICK, seeds=(0,))}
    for record in runs["one"]["models"]:
        record["validation_accuracy"] = 1.0
    assert {row[3] for row in best_table(all_students(runs))[1:]} == {"whole"}
    assert {row[1] for row in students_of(all_students(runs))[0][1][1:]} == {"whole", "one"}


def test_students_of_other_validation_texts_are_not_held_against_the_others():
    """Their linear model, of the same seeds and training texts, shows it: it reaches something else there."""
    runs = ground(shallow=SHALLOW, quick={"bilstm-distilled": (0.6, 1, 1.0)})
    for record in runs["quick"]["models"]:
        record["validation_accuracy"] = 1.0
    assert {row[3] for row in best_table(all_students(runs))[1:]} == {"shallow"}


def test_the_figures_are_those_of_the_run():
    (students,), teacher = all_students(ground(shallow=SHALLOW)).values(), np.stack([right(seed, 0.9) for seed in (0, 1)])
    cells = dict(zip(HEADER, next(each.cells for each in students if each.cells[0] == "distilled"), strict=True))
    correct = right_of("distilled", 0.8)
    less, over = compare(correct, teacher), compare(correct, right_of("linear", 0.4))
    assert cells["accuracy %"].startswith(f"{100 * correct.mean():.2f} ±")
    assert cells["of the teacher's"] == f"{100 * correct.mean() / teacher.mean():.1f} %"
    assert cells["less the teacher"] == f"{100 * less['difference']:+.2f}"
    assert cells["95 % interval"] == " to ".join(f"{100 * bound:+.2f}" for bound in less["ci95"])
    assert cells["over linear"] == f"{100 * over['difference']:+.2f}"
    assert (cells["x @1"], cells["x @32"]) == ("2.5", "2.5")


def test_linear_models_are_held_against_no_linear_model_but_their_students_are():
    students, = all_students(ground(run={"linear-distilled": (0.8, 0, 0.5)})).values()
    assert [student.cells[0] for student in students] == ["linear-distilled"]


def test_a_ground_is_one_whatever_the_runs_and_no_ground_is_left_out():
    runs = ground(shallow=SHALLOW, quick=QUICK) | {
        "poor": run(BERT, TEACHER | {"linear": (1.0, 0, 0.5)} | SHALLOW, fingerprint="other"),
        "no-linear": run(BERT, TEACHER | SHALLOW, fingerprint="third"),
        "exits": run("knowledge_distillation_fastbert", TEACHER | LINEAR | SHALLOW, fingerprint="fourth"),
    }
    (data, (header, *rows)), = students_of(all_students(runs))
    assert data == "posts" and len(rows) == 5 and header[-1] == "validation %"
    assert [float(row[-1]) for row in rows] == sorted((float(row[-1]) for row in rows), reverse=True)


def test_the_pages_have_them(tmp_path):
    take_in(written(tmp_path, ground(shallow=SHALLOW, quick=QUICK)), tmp_path / "store")
    build(tmp_path / "store", tmp_path / "RESULTS.md")
    overview, page = (tmp_path / "RESULTS.md").read_text("utf-8"), (tmp_path / "store" / "students.md").read_text("utf-8")
    assert "[All students](store/students.md)" in section(overview, "What the best students keep")
    assert len(table_rows(overview, "posts")) == 2 and len(table_rows(page, "alone")) == 2
    assert markdown(best_table(all_students(ground(shallow=SHALLOW, quick=QUICK)))) in overview
