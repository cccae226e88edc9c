"""Files whole or not at all, the run folder, the tables and the student folder."""

import json
import os
import resource

import numpy as np
import pytest

from common import InputError, files, report
from common.files import write_json, write_text, write_whole


def model(name, seed=0, accuracy=0.75, deep=False, **changed):
    """A record as a script hands it to the report."""
    latency = {"1": 9.8, "32": 64.4} if deep else {"1": 5.8, "32": 33.3}
    return {
        "name": name, "seed": seed, "layers": 6 if deep else 3, "parameters": 22_570_000, "flops": 1.4e9,
        "latency_ms": latency, "accuracy": accuracy, "macro_f1": accuracy - 0.01, "train_seconds": 123.4,
        "epochs": 2, "history": [{"epoch": e, "loss": 2.0 / e, "val_accuracy": accuracy - 0.1 / e} for e in (1, 2)], **changed,
    }


def comparison(**changed):
    found = {"difference": 0.0123, "ci95": [-0.1, 0.1246], "p_value": 0.04321}
    return {"a": "distilled-unlabelled", "b": "distilled"} | found | changed


# Files


def test_whole_folder_takes_the_place_of_the_old_one_or_leaves_it(tmp_path):
    path = tmp_path / "student"
    for word in ("first", "second"):
        with files.whole_folder(path) as folder:
            write_text(folder / f"{word}.txt", word)
    assert [found.name for found in path.iterdir()] == ["second.txt"]
    with pytest.raises(ZeroDivisionError), files.whole_folder(path) as folder:
        write_text(folder / "third.txt", "half written")
        1 / 0  # noqa: B018
    assert [found.name for found in path.iterdir()] == ["second.txt"] and [*tmp_path.iterdir()] == [path]


def test_write_whole_replaces_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "deep" / "file.txt"
    write_text(path, "old")
    write_text(path, "neu: ü")
    assert path.read_bytes() == "neu: ü".encode() and os.listdir(path.parent) == ["file.txt"]
    assert path.stat().st_mode & 0o777 == 0o666 & ~files._umask()


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.txt"
    write_text(path, "old")

    def half(file):
        file.write(b"new")
        raise ValueError

    with pytest.raises(ValueError):
        write_whole(path, half)
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["file.txt"]


def test_a_full_disk_is_one_line_and_leaves_the_old_file(tmp_path):
    """A limit on file sizes fails the write as a full disk does: in the middle of it, with an OSError."""
    path = tmp_path / "file.npy"
    write_whole(path, lambda file: np.save(file, np.arange(3)))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(InputError, match="file.npy cannot be written: ") as error:
            write_whole(path, lambda file: file.write(bytes(100_000)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(error.value)
    assert np.load(path).tolist() == [0, 1, 2] and os.listdir(tmp_path) == ["file.npy"]


def test_a_folder_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written: "):
        write_text(tmp_path / "file" / "below", "")


def test_what_is_kept_is_made_once(tmp_path):
    made = []

    def make():
        made.append(1)
        return {"latency_ms": 1.5}

    path = tmp_path / "deep" / "cost.json"
    assert files.kept(path, make) == files.kept(path, make) == {"latency_ms": 1.5} and made == [1]


def test_sha256(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert files.sha256_of(tmp_path / "file") == known
    files.check_sha256(tmp_path / "file", known)
    with pytest.raises(InputError, match="sha256 is ba7816bf.* the file is damaged or not the published one"):
        files.check_sha256(tmp_path / "file", "0" * 64)


def test_json_refuses_nan(tmp_path):
    with pytest.raises(ValueError):
        write_json(tmp_path / "file.json", {"loss": float("nan")})


# The run folder


def test_the_same_settings_go_on_and_others_are_refused(tmp_path):
    folder = tmp_path / "run"
    report.open_folder(folder, {"temperature": 3.0, "seeds": [0]}, {"data": "abc"})
    report.open_folder(folder, {"temperature": 3.0, "seeds": [0, 1]}, {"data": "abc"})
    assert json.loads((folder / "settings.json").read_text())["settings"]["seeds"] == [0, 1]  # more of the same
    with pytest.raises(InputError, match="holds a run with another temperature"):
        report.open_folder(folder, {"temperature": 4.0, "seeds": [0]}, {"data": "abc"})
    with pytest.raises(InputError, match="holds a run with another data; give another folder with --output"):
        report.open_folder(folder, {"temperature": 3.0, "seeds": [0]}, {"data": "abd"})
    (folder / "settings.json").write_text("{")
    with pytest.raises(InputError, match="not the settings of a run"):
        report.open_folder(folder, {}, {})


def test_a_folder_that_is_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="is there already and is not a run"):
        report.open_folder(tmp_path, {}, {})
    assert os.listdir(tmp_path) == ["thesis.tex"]


def test_log_has_a_line_per_epoch(tmp_path):
    report.write_log(tmp_path / "log.csv", [model("teacher"), model("alone", accuracy=0.5)])
    lines = (tmp_path / "log.csv").read_text().splitlines()
    assert lines[0] == "model,seed,epoch,loss,val_accuracy"
    assert lines[1].split(",")[:4] == ["teacher", "0", "1", "2.0"] and len(lines) == 5


# Tables and plots


def results(seeds=(0,)):
    models = [
        model(name, seed, accuracy + seed / 100, deep=name == "teacher")
        for seed in seeds
        for name, accuracy in (("teacher", 0.76), ("alone", 0.73), ("teacher-self-distilled", 0.75))
    ]
    return {
        "script": "script", "preset": "demo", "settings": {"seeds": list(seeds), "maxlen": 64}, "environment": {"python": "3"},
        "data": {"name": "texts", "classes": 4, "train": 9, "chosen_on": "validation", "notes": [], "descriptions": {}},
        "models": models,
        "comparisons": [comparison(), comparison(p_value=1e-9)],
    }


def test_tables_are_aligned_and_fit_100_columns():
    printed = report.summary(results(seeds=(0, 1, 2)))
    lines = printed.splitlines()
    assert max(map(len, lines)) <= 100
    rows = [line for line in lines if line.startswith(("model", "teacher", "alone"))]
    assert len({len(row) for row in rows}) == 1 and len(rows) == 4
    assert "77.00 ± 1.00" in rows[1] and "74.00 ± 1.00" in rows[2]
    assert "+1.23  -10.00 to +12.46    0.0432" in printed and "< 0.0001" in printed


def test_one_seed_has_no_deviation():
    assert "±" not in report.summary(results())


def test_report_says_what_was_done():
    text = report.document(results(), "one text of 64 tokens", "alone, seed 0")
    assert "Epochs were chosen on the validation part." in text and "McNemar" in text and "curves.png" in text
    assert "| alone | 3 | 22.57 M | 1.40 G | 5.8 | 33.3 | 73.00 | 72.00 | 123 |" in text


def test_plots_are_pngs(tmp_path):
    models = results(seeds=(0, 1))["models"]
    models[0]["history"][0]["loss"] = None  # a loss that was not finite
    for plot in (report.plot_curves, report.plot_tradeoff):
        plot(tmp_path / "plot.png", models)
        assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG") and (tmp_path / "plot.png").stat().st_size > 10_000
