"""report.document: what is printed, log.csv and report.md."""

import pytest

from report.document import (
    Section,
    describe,
    document,
    environment,
    linear_remark,
    show_stages,
    summary,
    write_log,
    write_report,
)
from tests.report.records import comparison, model, results


def test_tables_are_aligned_and_fit_100_columns():
    printed = summary(results(seeds=(0, 1, 2)))
    lines = printed.splitlines()
    assert max(map(len, lines)) <= 100
    rows = [line for line in lines if line.startswith(("model", "teacher", "alone"))]
    assert len({len(row) for row in rows}) == 1 and len(rows) == 4
    assert "77.00 ± 1.00" in rows[1] and "74.00 ± 1.00" in rows[2]
    assert "+1.23  -10.00 to +12.46    0.0432" in printed and "< 0.0001" in printed


def test_one_seed_has_no_deviation():
    assert "±" not in summary(results())


def test_report_says_what_was_done():
    text = document(results(), "one text of 64 tokens", {"student": "alone, seed 0"})
    assert "Epochs were chosen on the validation part." in text and "McNemar" in text and "curves.png" in text
    assert "| alone | 3 | 22.57 M | 1.40 G | 5.8 | 33.3 | 73.00 | 72.00 | 123 |" in text


def test_the_report_says_what_diverged():
    found = results()
    assert "Not finite" not in document(found, "one text", {"student": "alone"})
    found["models"][1]["diverged_in_epoch"] = 3
    line = f"Not finite: the loss of {found['models'][1]['name']}, seed 0, in epoch 3; the best before is kept."
    assert line in document(found, "one text", {"student": "alone"}).splitlines()


def test_what_others_have_named_is_no_markup():
    hostile = results()
    hostile["data"] |= {"name": "a<b>\x1b", "notes": ["[n](http://x) dropped"], "descriptions": {"*c*": "<img src=x>\nz"}}
    section = Section("Class `d`", [["text"], ["</td><b>|"]], "A `note`.")
    text = document(hostile, "one text of 64 tokens", {"student": "alone, seed 0"}, sections=[section])
    for line in (r"a\<b>\u001b: 4 classes", r"\[n]\(http://x) dropped", r"- \*c\*: \<img src=x>\u000az", r"## Class \`d\`",
                 r"| \</td>\<b>\| |", "A `note`.", "- seeds: [0]"):
        assert f"\n{line}" in text


def test_a_package_of_another_name_has_no_version(monkeypatch):
    """As tensorflow-cpu and onnxruntime-gpu, which bring the same modules."""
    monkeypatch.setattr("report.document.PACKAGES", ("numpy", "no-such-package"))
    assert [*environment()] == ["python", "numpy", "machine"]


def test_log_has_a_line_per_epoch(tmp_path):
    write_log(tmp_path / "log.csv", [model("teacher"), model("alone", accuracy=0.5)])
    lines = (tmp_path / "log.csv").read_text("utf-8").splitlines()
    assert lines[0] == "model,seed,epoch,loss,val_accuracy"
    assert lines[1].split(",")[:4] == ["teacher", "0", "1", "2.0"] and len(lines) == 5


@pytest.mark.parametrize(
    ("low", "high", "said"), [(0.001, 0.1, False), (0.0, 0.1, True), (-0.2, 0.1, True), (-0.2, -0.1, True)],
)
def test_whoever_needs_no_bert_is_told(low, high, said):
    found = results()
    teacher = comparison(a="teacher", b="linear", difference=(low + high) / 2, ci95=[low, high])
    found["comparisons"] += [teacher, comparison(a="alone", b="linear", ci95=[-1.0, -0.5])]  # the teacher's counts
    assert bool(linear_remark(found)) == said
    for text in (summary(found), document(found, "one text", {"student": "alone"})):
        assert ("not measurably below the teacher" in text) == ("or no BERT at all" in " ".join(text.split())) == said
    assert max(map(len, summary(found).splitlines())) <= 100
    found["comparisons"] = [comparison()]
    assert linear_remark(found) == []  # without such a row


def test_a_teacher_that_is_given_is_asked_for_what_it_was_fine_tuned_on():
    """It is not trained here: more labels and epochs would not help it."""
    found = results()
    found["comparisons"] = [comparison(a="teacher", b="linear", difference=-0.05, ci95=[-0.1, 0.0])]
    for given in ("folder", ["folder"], ""):
        found["settings"]["teacher"] = given
        said = " ".join(linear_remark(found)[0].split())
        assert said.endswith("or no BERT at all.") and ("for these labels and such texts?" in said) == bool(given)
        assert ("more epochs" in said) != bool(given)


def test_without_a_teacher_the_best_student_is_held_against_the_linear_model():
    found = results()
    found["settings"]["soft_labels"] = ["answers.jsonl"]
    found["comparisons"] = [comparison(a=name, b="linear", difference=points, ci95=[points - 0.02, points + 0.02])
                            for name, points in (("alone", -0.05), ("distilled", 0.01))]
    assert "not measurably below the best student, distilled (+1.00 points" in linear_remark(found)[0].replace("\n", " ")
    found["comparisons"][1]["ci95"] = [0.001, 0.02]
    assert linear_remark(found) == []


def test_a_linear_model_is_fitted_and_has_no_epochs(tmp_path):
    linear = model("linear") | {"epochs": 0, "history": [], "validation_accuracy": 0.5}
    assert "fitted in  123 s" in describe(linear)
    assert " 2 epochs in  123 s" in describe(model("alone") | {"validation_accuracy": 0.5})
    write_log(tmp_path / "log.csv", [linear, model("alone")])
    assert "linear" not in (tmp_path / "log.csv").read_text("utf-8")


def test_a_stage_is_shown_before_the_next_one_is_trained(capsys):
    """Whoever waits for a long run sees each stage as it ends; what it is then made of are the records themselves."""
    records = [model(name) | {"validation_accuracy": 0.5} for name in ("teacher", "alone")]

    def training():
        for place, record in enumerate(records):
            assert capsys.readouterr().out == "".join(f"{describe(before)}\n" for before in records[max(0, place - 1) : place])
            yield record

    assert show_stages(training()) == records
    assert capsys.readouterr().out == f"{describe(records[1])}\n"
    assert show_stages([]) == [] and capsys.readouterr().out == ""


def test_what_has_to_be_said_first_stands_first(tmp_path, capsys):
    """Above every table, in the report and in what is printed."""
    write_report(tmp_path, results(), results()["models"], "one text", {"student": "alone"}, first="It does not pay.")
    assert (tmp_path / "report.md").read_text("utf-8").split("\n\n")[1] == "**It does not pay.**"
    assert capsys.readouterr().out.strip().startswith("It does not pay.")
    assert "****" not in document(results(), "one text", {"student": "alone"})
