"""common.report.document: what is printed, log.csv and report.md."""

from common.report.document import document, summary, write_log
from tests.common.report.records import model, results


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
    text = document(results(), "one text of 64 tokens", "alone, seed 0")
    assert "Epochs were chosen on the validation part." in text and "McNemar" in text and "curves.png" in text
    assert "| alone | 3 | 22.57 M | 1.40 G | 5.8 | 33.3 | 73.00 | 72.00 | 123 |" in text


def test_log_has_a_line_per_epoch(tmp_path):
    write_log(tmp_path / "log.csv", [model("teacher"), model("alone", accuracy=0.5)])
    lines = (tmp_path / "log.csv").read_text().splitlines()
    assert lines[0] == "model,seed,epoch,loss,val_accuracy"
    assert lines[1].split(",")[:4] == ["teacher", "0", "1", "2.0"] and len(lines) == 5
