"""python -m common.predict: texts from the command line, a file or standard input; a line each, in their order."""

import csv
import gzip
import io
import json
import runpy
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from tqdm import tqdm

from common import InputError
from data import linear_models
from export import cascade, predict
from tests import tiny
from tests.data.test_linear_models import MODELS as LINEAR_MODELS
from tests.starting import ROOT
from tests.taken import CLASSES, LINES


def test_predict_gives_a_line_for_each_line(taken, tmp_path, capsys, monkeypatch):
    """More lines than are sorted together: in their order, each with its own answer."""
    monkeypatch.setattr(predict, "CHUNK_SIZE", (250, 9_000))
    lines = [LINES[i % len(LINES)] for i in np.random.default_rng(0).integers(0, 1000, 600)]
    (tmp_path / "lines.txt.gz").write_bytes(gzip.compress("\r\n".join(lines).encode("utf-8-sig")))
    predict.predict(str(taken.folder), file=str(tmp_path / "lines.txt.gz"), top=2, json=True)
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["text"] for answer in answers] == lines
    expected = dict(zip(LINES, taken.probabilities(LINES), strict=True))
    for answer in answers:
        assert answer.keys() == {"text", "labels"} and len(answer["labels"]) == 2
        p = expected[answer["text"]]
        for place, label in zip(np.argsort(-p), answer["labels"], strict=False):
            assert label["label"] == CLASSES[place] and label["probability"] == pytest.approx(p[place], abs=1e-5)


@pytest.mark.parametrize("layout", ["sentence1", "text", "tab"])
def test_predict_reads_pairs(taken_pairs, tmp_path, capsys, monkeypatch, layout):
    monkeypatch.setattr(predict, "CHUNK_SIZE", (7, 9_000))
    couples = [(a, b) for a in [*LINES[:3], "[1]"] for b in [*LINES[3:8], '{"a": 1}', "w1 " * 40]]
    names = {"sentence1": ("sentence1", "sentence2"), "text": ("text", "text_pair")}.get(layout)
    lines = [json.dumps(dict(zip(names, couple, strict=True))) if names else "\t".join(couple) for couple in couples]
    (tmp_path / "lines.txt").write_text("\n".join(lines), encoding="utf-8")
    predict.predict(str(taken_pairs.folder), file=str(tmp_path / "lines.txt"), top=9, json=True)
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(answer["text"], answer["text_pair"]) for answer in answers] == couples
    for answer, p in zip(answers, taken_pairs.probabilities(couples), strict=True):
        assert answer.keys() == {"text", "text_pair", "labels"}
        assert [label["probability"] for label in answer["labels"]] == pytest.approx(sorted(p, reverse=True), abs=1e-5)


def test_predict_shows_both_texts_of_a_pair(taken_pairs, capsys):
    predict.predict(str(taken_pairs.folder), ("w1 w2\tw3", '{"text": "w4", "text_pair": "w5"}'))
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith("%  w1 w2 | w3") and second.endswith("%  w4 | w5")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("w1 w2", "line 2: expected two texts, {'text': …, 'text_pair': …} or with a tab between"),
        ("", "line 2: expected two texts"),
        ("w1\t ", "line 2: expected two texts"),
        ("w1\tw2\tw3", "line 2: expected two texts"),
        ('["w1", "w2"]', "line 2: expected two texts"),
        ('{"text": "w1"}', "line 2: expected two texts"),
        ('{"text": "w1", "text_pair": ""}', "line 2: expected two texts"),
        ('{"sentence1": "w1"}', "line 2: 'sentence1' without 'sentence2'; expected both texts of a pair"),
        ('{"sentence1": "w1", "sentence2": 3}', "line 2: 'sentence2' must be a string, found a number"),
        ('{"text": "w1", "text_pair": "\\ud800"}', "line 2: 'text_pair' holds half of a surrogate pair"),
        ('{"a":' * 100_000, "line 2: expected two texts"),
    ],
)
def test_lines_that_are_no_pair_are_named(taken_pairs, tmp_path, line, message):
    path = tmp_path / "lines.txt"
    path.write_text(f"w1\tw2\n{line}\nw3\tw4\n", encoding="utf-8")
    with pytest.raises(InputError) as error:
        predict.predict(str(taken_pairs.folder), file=str(path))
    assert str(error.value).startswith(f"{path}, {message}") and "\n" not in str(error.value)
    with pytest.raises(InputError, match="^text 2"):
        predict.predict(str(taken_pairs.folder), ("w1\tw2", line))


def test_the_summary_of_a_model_that_stops_early():
    """Its promise is of its own speed and of float32: at another speed, or by int8, it is not told as one."""
    promise = {"max_disagreement": 1.0, "confidence": 95.0, "texts": 1000, "disagreements": 3}
    plain = SimpleNamespace(config={"speed": 0.312, "num_hidden_layers": 6})
    assert predict.summary(plain, [1, 2, 1], None, False) == "3 texts, 1.33 of 6 layers on average at speed 0.312"
    assert predict.summary(plain, [6], 0.5, True) == "1 text, 6.00 of 6 layers on average at speed 0.5"
    kept = SimpleNamespace(config=plain.config | {"promise": promise})
    for speed in (None, 0.312):
        assert predict.summary(kept, [1, 2], speed, False).endswith(
            "at speed 0.312; with 95 % confidence at most 1 % of texts like the 1,000 it was calibrated on are answered "
            "otherwise than by all layers with all tokens (3 of those were)")
    for speed, int8 in ((0.3, False), (None, True)):
        assert predict.summary(kept, [1, 2], speed, int8).endswith(
            "; nothing is promised but of model.onnx at its own speed, 0.312")


def test_predict_in_columns(taken, capsys):
    predict.predict(str(taken.folder), (LINES[0], "w2\tw3 " * 20), top=9)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and lines[0].endswith(f"%  {LINES[0]}") and lines[1].endswith("…")
    assert all(name in lines[0] for name in CLASSES) and len(lines[1].split("%  ")[-1]) == 60


def test_names_and_texts_of_others_do_nothing_to_the_terminal(taken, tmp_path, capsys):
    folder, name = shutil.copytree(taken.folder, tmp_path / "student"), "b\x1b]0;c\x9b"
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["id2label"] = dict(zip("0123", (name, "a", "c", "d"), strict=True))
    (folder / "config.json").write_text(json.dumps(config))
    predict.predict(str(folder), ("w1\x1b[2J\u202e",), top=9)
    predict.predict(str(folder), ("w1\x1b[2J\x9b",), json=True, all=True)
    columns, line = capsys.readouterr().out.splitlines()
    assert columns.isprintable() and r"b\u001b]0;c\u009b " in columns and columns.endswith(r"  w1\u001b[2J\u202e")
    assert line.isprintable() and json.loads(line)["text"] == "w1\x1b[2J\x9b" and name in json.loads(line)["probabilities"]


def test_what_stands_before_a_bad_line_is_answered(taken, tmp_path, capsys):
    path = tmp_path / "lines.txt"
    path.write_bytes(b"w1 w2\nw3\n\xff\xff\nw4\n")
    with pytest.raises(InputError, match="lines.txt, line 3: not UTF-8"):
        predict.predict(str(taken.folder), file=str(path))
    assert [line.split("%  ")[-1] for line in capsys.readouterr().out.splitlines()] == ["w1 w2", "w3"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"texts": ("a",), "top": 0}, "--top: must be 1 or more"),
        ({"texts": ("a",), "batch_size": 0}, "--batch-size: must be 1 or more"),
        ({"texts": ("a",), "file": "b"}, "--file b: give texts or a file of them, not both"),
        ({"texts": ("a",), "speed": 0.5}, "--speed 0.5: .* has no early exit; only a FastBERT has"),
        ({"file": "nowhere.txt"}, "--file nowhere.txt: there is no such file"),
    ],
)
def test_predict_refuses(taken, words, message):
    given_texts = words.pop("texts", ())
    with pytest.raises(InputError, match=message):
        predict.predict(str(taken.folder), given_texts, **words)


def test_predict_refuses_words_that_are_no_text(taken):
    with pytest.raises(InputError, match=r"'caf.udce9': not UTF-8; give such texts in a file, converted"):
        predict.predict(str(taken.folder), ("caf\udce9",))


def test_predict_reads_standard_input(taken, monkeypatch, capsys):
    class Input(io.TextIOWrapper):
        def isatty(self):
            return False

    monkeypatch.setattr(sys, "stdin", Input(io.BytesIO(b"w1 w2\n\nw3\r\n")))
    predict.predict(str(taken.folder), json=True)
    assert [json.loads(line)["text"] for line in capsys.readouterr().out.splitlines()] == ["w1 w2", "", "w3"]
    monkeypatch.setattr(sys, "stdin", Input(io.BytesIO("w1\n你好，世界".encode("gb18030"))))
    with pytest.raises(InputError, match="standard input, line 2: not UTF-8; it looks like GB18030"):
        predict.predict(str(taken.folder))
    monkeypatch.setattr(sys, "stdin", None)  # closed by whoever started it
    with pytest.raises(InputError, match="no text: give texts, --file FILE, or lines on standard input"):
        predict.predict(str(taken.folder))


@pytest.mark.slow
def test_predict_as_a_user_starts_it(taken, tmp_path):
    (tmp_path / "lines.txt").write_text("\n".join(LINES * 200))  # more than a pipe holds
    words = [sys.executable, "-m", "common.predict", str(taken.folder)]
    done = subprocess.run([*words, "w1 w2", "w3"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0 and done.stdout.count("\n") == 2 and done.stderr == ""
    piped = f"{' '.join(words)} < {tmp_path / 'lines.txt'} | head -1"
    done = subprocess.run(piped, shell=True, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.count("\n") == 1 and done.stderr == ""  # a reader that has had enough is no error


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
def test_a_folder_without_a_student_ends_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["predict.py", str(tmp_path), "w1"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("common.predict", run_name="__main__")
    out, error = capsys.readouterr()
    assert stop.value.code == 2 and out == ""
    assert error.startswith(f"error: {tmp_path}: no config.json in it") and error.count("\n") == 1


_ALONE = """
import runpy, sys
others = ["tensorflow", "keras", "tf_keras", "bert4keras", "scipy", "sklearn", *sys.argv.pop(1).split()]
sys.modules |= dict.fromkeys(others)  # none of these can be imported
runpy.run_module("common.predict", run_name="__main__")
"""


@pytest.mark.parametrize("kind", ["student", "teacher"])
def test_predict_does_without_tensorflow(taken, tmp_path, kind):
    """And a student without what else takes time to load. A SavedModel beside its graph is not looked at: here it is broken."""
    if kind == "student":
        folder, others = shutil.copytree(taken.folder, tmp_path / "student"), "h5py onnx"
        (folder / "saved_model").mkdir()
        (folder / "saved_model" / "saved_model.pb").write_bytes(b"broken")
    else:
        folder, others = tiny.write_classifier(tmp_path / "teacher"), ""
    words = [sys.executable, "-c", _ALONE, others, folder, "w1 w2", "w3"]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0 and done.stderr == "" and done.stdout.count("\n") == 2, done.stderr


def test_a_folder_with_a_saved_model_alone(taken, tmp_path):
    """As older versions left it: it says what to do, and is not taken for a teacher's."""
    folder = shutil.copytree(taken.folder, tmp_path / "student")
    (folder / "model.onnx").rename(folder / "saved_model")
    with pytest.raises(InputError, match="model.onnx is missing: older versions wrote a SavedModel alone; start the script of"):
        predict.predict(str(folder), ("a",))


def test_a_folder_with_the_int8_graph_alone(taken, tmp_path, capsys):
    """All that the README's lines read of it is enough to be asked, too."""
    folder = shutil.copytree(taken.folder, tmp_path / "student")
    (folder / "model.onnx").rename(folder / "model.int8.onnx")
    for file in folder.iterdir():
        if file.name not in ("config.json", "tokenizer.json", "model.int8.onnx"):
            shutil.rmtree(file) if file.is_dir() else file.unlink()
    predict.predict(str(folder), (LINES[0],), int8=True)
    assert capsys.readouterr().out.endswith(f"%  {LINES[0]}\n")
    with pytest.raises(InputError, match="model.onnx is missing: .*; where model.int8.onnx is there, ask with --int8"):
        predict.predict(str(folder), ("a",))


def test_int8_is_for_students_that_have_it(taken, tmp_path, capsys):
    teacher = tiny.write_classifier(tmp_path / "teacher")
    with pytest.raises(InputError, match="--int8: is for students; .* is a teacher's"):
        predict.predict(str(teacher), ("a",), int8=True)
    folder = shutil.copytree(taken.folder, tmp_path / "student")
    with pytest.raises(InputError, match="model.int8.onnx is missing: validation did not allow it, or it is a"):
        predict.predict(str(folder), ("a",), int8=True)
    other = onnx.load(folder / "model.onnx")  # with its classes in another order, so that it shows which one is asked
    for array in other.graph.initializer:
        if array.name in ("classifier", "output_bias"):
            array.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(array)[..., ::-1].copy(), array.name))
    onnx.save(other, folder / "model.int8.onnx")
    for int8 in (False, True):
        predict.predict(str(folder), (LINES[0],), json=True, all=True, int8=int8)
    one, turned = (json.loads(line)["probabilities"] for line in capsys.readouterr().out.splitlines())
    assert [turned[name] for name in CLASSES] == pytest.approx([one[name] for name in CLASSES[::-1]], abs=1e-6)


def test_predict_asks_a_linear_model(tmp_path, capsys):
    """No tokenizer, no graph; the flags that are of these are refused."""
    model = LINEAR_MODELS["one that is not learned"][1]
    linear_models.save(tmp_path, model)
    predict.predict(str(tmp_path), ("oil prices fell", "gold"), json=True, all=True)
    for text, line in zip(("oil prices fell", "gold"), capsys.readouterr().out.splitlines(), strict=True):
        expected = dict(zip("abcd", model.probabilities([text])[0].tolist(), strict=True))
        assert json.loads(line) == {"text": text, "probabilities": expected}
    for words, message in (({"int8": True}, "a linear model, which has no such form"), ({"speed": 0.5}, "has no early exit"),
                           ({"maxlen": 9}, "--maxlen: is for teachers")):
        with pytest.raises(InputError, match=message):
            predict.predict(str(tmp_path), ("a",), **words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"all": True}, "--all: is for --json"),
        ({"pairs": True}, "--pairs: is for teachers; .* says itself what it reads"),
        ({"maxlen": 8}, "--maxlen: is for teachers"),
        ({"maxlen": 2}, "--maxlen 2: must be 3 or more"),
    ],
)
def test_what_is_not_for_every_folder(taken, words, message):
    with pytest.raises(InputError, match=message):
        predict.predict(str(taken.folder), ("a",), **words)


def written(path, rows):
    """Write rows {field: value} in the format that the name of a file tells, as JSON lines or as a table. Returns the path."""
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt", encoding="utf-8", newline="") as file:
        if "json" in path.name.lower():
            file.writelines("\n" + json.dumps(row) + "\n" for row in rows)  # each after an empty line
            return path
        table = csv.DictWriter(file, rows[0], delimiter="\t" if "tsv" in path.name.lower() else ",")
        table.writeheader()
        table.writerows(rows)
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.json.gz", "a.NDJSON", "a.csv", "a.csv.gz", "a.TSV"])
def test_predict_reads_the_texts_of_files_of_data(taken, taken_pairs, tmp_path, capsys, name):
    """No header, label or other field is taken for a text; a bad row is named by its line, and a tab makes no pair."""
    lines = [LINES[0], "w1\nw2", 'w3, "w4"\tw5']
    path = written(tmp_path / name, [{"label": 1, "sentence": line, "more": "w9"} for line in lines])
    predict.predict(str(taken.folder), file=str(path), json=True)
    assert [json.loads(line)["text"] for line in capsys.readouterr().out.splitlines()] == lines
    with pytest.raises(InputError, match="line 2: one text; two are expected"):
        predict.predict(str(taken_pairs.folder), file=str(path))
    couples = [("w1", "w2\tw3"), ("w4", "w5")]
    path = written(tmp_path / name, [{"text": a, "label": 1, "text_pair": b} for a, b in couples])
    predict.predict(str(taken_pairs.folder), file=str(path), json=True)
    told = map(json.loads, capsys.readouterr().out.splitlines())
    assert [(answer["text"], answer["text_pair"]) for answer in told] == couples
    with pytest.raises(InputError, match="line 2: two texts; one is expected"):
        predict.predict(str(taken.folder), file=str(path))


def test_rows_that_a_stray_quote_joins_are_told(taken, tmp_path, capsys):
    (tmp_path / "a.tsv").write_text('text\tlabel\n"w1\t0\nw2\t1\nw3"\t1\n')
    predict.predict(str(taken.folder), file=str(tmp_path / "a.tsv"))
    out, error = capsys.readouterr()
    assert out.count("\n") == 1 and f"{tmp_path / 'a.tsv'}, line 2: tabs and line breaks within quotes" in error


@pytest.mark.parametrize(("terminal", "hidden"), [(True, True), (False, None)])
def test_no_bar_stands_among_the_answers(taken, tmp_path, monkeypatch, terminal, hidden):
    (tmp_path / "lines.txt").write_text("w1\n")
    shown = []
    monkeypatch.setattr(predict, "tqdm", lambda **words: shown.append(words["disable"]) or tqdm(**words))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    predict.predict(str(taken.folder), file=str(tmp_path / "lines.txt"))
    predict.predict(str(taken.folder), ("w1",))
    assert shown == [hidden, True]


@pytest.mark.parametrize("command", [predict, cascade])
def test_output_that_is_redirected_takes_any_text(monkeypatch, command):
    """Whatever the system writes files in: the folder of a model may be called 级联."""
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="cp1252"))
    monkeypatch.setattr(sys, "argv", ["command", "--help"])
    with pytest.raises(SystemExit):
        command.start()
    assert sys.stdout.encoding == "utf-8"
