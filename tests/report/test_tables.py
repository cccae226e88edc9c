"""report.tables: rows of strings, and the two ways to show them."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from common import visible
from report.tables import (
    aligned,
    as_markdown,
    by_name,
    comparisons_table,
    count,
    difference_cells,
    markdown,
    mean_and_deviation,
    models_table,
    student_table,
)
from tests.report.records import comparison, model

ROWS = [["model", "ms"], ["a", "10.5"], ["longer", "2"]]


def test_the_first_column_is_left_and_the_others_right():
    assert aligned(ROWS).splitlines() == ["model     ms", "-" * 12, "a       10.5", "longer     2"]


def test_the_same_in_markdown():
    assert markdown([["text"], ["a | b"]]).splitlines()[2] == r"| a \| b |"  # one cell
    assert markdown(ROWS).splitlines() == ["| model | ms |", "| --- | ---: |", "| a | 10.5 |", "| longer | 2 |"]


ORDINARY = [
    "theseus-random-linear", "a - b", "< 0.0001", "-0.51", "+1.23 to +2.00", "macro-F1 %", "x @1", "wall / FLOPs @32",
    "C++", "C#", "comp.os.ms-windows.misc", "train_seconds", "w1 [MASK]", "5 * 3", "AT&T", "类别 1", "what?!", "(none)", "a~b",
]


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_names_look_as_ever(text):
    assert as_markdown(text) == text and visible(text) == text


def rendered(text, kind):
    """The tokens that a reader of Markdown finds within each piece of this kind."""
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)
    inside = [tokens[place + 1] for place, token in enumerate(tokens) if token.type == kind]
    assert len(tokens) > 2 and {token.type for token in inside} == {"inline"}
    return [token.children for token in inside]


def shown(children):
    """The text of tokens which are nothing but text."""
    assert {token.type for token in children} <= {"text", "text_special"}, children
    return "".join(token.content for token in children)


@given(st.text("ab1 \\`*_[]()<>&|~#!:;/-+=\x1b\n\u202e'\"", max_size=20) | st.sampled_from(ORDINARY))
@example("<script>alert(1)</script>")
@example("[a](http://b) ![c](d) <http://e> &lt; &#60; ~~f~~ `g` **h** __i__")
@example("\\|")
@example("# a")
@example("[a]")
@example("* a")
def test_markup_in_a_text_is_shown_as_it_is(text):
    """A reader of Markdown finds no more than the text, whether in a paragraph, a list or a table."""
    text = text.strip(" ")
    (paragraph,) = rendered(f"name {as_markdown(text)}: 3.", "paragraph_open")
    assert shown(paragraph) == f"name {visible(text)}: 3."
    (paragraph,) = rendered(f"- {as_markdown(text)}: 3", "paragraph_open")
    assert shown(paragraph) == f"{visible(text)}: 3".strip()
    cells = rendered(markdown([["a", "b"], [text, "c"]]), "td_open")
    assert [shown(cell) for cell in cells] == [visible(text), "c"]


def test_control_characters_are_shown_in_both():
    rows = [["a\x1b[31m\n", "b"], ["c\u202e", "\x9b2J"]]
    assert aligned(rows).splitlines() == [
        r"a\u001b[31m\u000a         b", "-" * 27, r"c\u202e            \u009b2J"]
    assert markdown(rows).splitlines()[2] == r"| c\u202e | \u009b2J |"


@pytest.mark.parametrize(
    ("values", "more", "expected"),
    [([0.5], {}, "0.50"), ([0.5, 0.7], {}, "0.60 ± 0.14"), ([0.5, 0.7], {"scale": 100, "decimals": 1}, "60.0 ± 14.1")],
)
def test_a_deviation_stands_beside_a_mean_of_several(values, more, expected):
    assert mean_and_deviation(values, **more) == expected


def test_records_are_grouped_in_the_order_of_first_appearance():
    records = [model("b"), model("a"), model("b", seed=1), model("a", seed=1)]
    assert [(name, [record["seed"] for record in group]) for name, group in by_name(records)] == [("b", [0, 1]), ("a", [0, 1])]


def test_a_row_of_models_is_the_mean_over_seeds():
    header, row = models_table([model("alone", accuracy=0.73), model("alone", seed=1, accuracy=0.75)])
    assert header == ["model", "layers", "params", "FLOPs", "ms @1", "ms @32", "accuracy %", "macro-F1 %", "train s"]
    assert row == ["alone", "3", "22.57 M", "1.40 G", "5.8", "33.3", "74.00 ± 1.41", "73.00 ± 1.41", "123"]
    header, row = models_table([model("alone", ece=0.0321)], measure="ece")
    assert header[7] == "ECE %" and row[7] == "3.21"


def test_int8_has_columns_where_it_was_timed():
    records = [model("alone", int8_latency_ms={"1": 3.1, "32": 12.34}), model("linear")]
    header, timed, other = models_table(records)
    assert header[4:8] == ["ms @1", "ms @32", "int8 @1", "int8 @32"]
    assert timed[4:8] == ["5.8", "33.3", "3.1", "12.3"] and other[4:8] == ["5.8", "33.3", "", ""]


def test_comparisons_are_in_points():
    rows = comparisons_table([comparison(), comparison(p_value=1e-9)])
    assert rows[1] == ["distilled-unlabelled - distilled", "+1.23", "-10.00 to +12.46", "0.0432"] and rows[2][3] == "< 0.0001"
    assert difference_cells(None) == ["", "", ""]


def test_a_student_beside_its_teacher():
    teacher, student = model("teacher", accuracy=0.8, deep=True), model("alone", accuracy=0.7) | {"parameters": 11_285_000}
    file = {"name": "model.int8.onnx", "bytes": 9_028_000, "parameters": 9_000_000, "accuracy": 0.69,
            "latency_ms": {"1": 2.0, "32": 16.1}}
    _, first, second, third, shares = student_table(teacher, student, [file])
    assert first == ["teacher", "80.00", "90.3", count(22_570_000), "9.8", "64.4"]
    assert second == ["student: alone", "70.00", "45.1", count(11_285_000), "5.8", "33.3"]
    assert third == ["model.int8.onnx", "69.00", "9.03", count(9_000_000), "2", "16.1"]
    assert shares == ["model.int8.onnx against the teacher", "-11.00", "10.0 x smaller", "2.5 x fewer", "4.9 x faster",
                      "4.0 x faster"]
    *_, shares = student_table(teacher, student, [])
    assert shares[:3] == ["student: alone against the teacher", "-10.00", "2.0 x smaller"]
    assert len(student_table(None, student, [file])) == 3  # no teacher, no shares


def test_a_linear_model_stands_above_teacher_and_student():
    linear = model("linear") | {"bytes": 2_500_000}
    _, first, second, *_ = student_table(model("teacher"), model("alone"), [], linear)
    assert first[0] == "linear" and first[2] == "2.5" and second[0] == "teacher"
