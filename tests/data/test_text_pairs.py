"""data.texts: files of pairs of texts."""

import csv
import json

import pytest

from data import texts
from data.rows import DELIMITERS
from tests import tiny
from tests.data.test_texts import pairs, refusal


@pytest.fixture
def folder(tmp_path):
    """Of single texts."""
    tiny.write_jsonl(tmp_path / "train.jsonl", [("red apple", "fruit"), ("blue car", "thing")])
    tiny.write_jsonl(tmp_path / "dev.jsonl", [("a plum", "fruit")])
    return tmp_path


COUPLES = [("red apple", "green apple"), ("blue car", "red apple"), ("a plum", "two plums")]


def write_pairs(path, names, rows):
    """Write rows ((first, second), label) under these field names, as the path's suffix says."""
    if path.suffix == ".jsonl":
        lines = [json.dumps(dict(zip((*names, "label"), (*couple, label), strict=True))) for couple, label in rows]
        path.write_text("\n".join(lines), encoding="utf-8")
        return
    with open(path, "w", encoding="utf-8", newline="") as file:
        table = [(*names, "label"), *((*couple, label) for couple, label in rows)]
        csv.writer(file, delimiter=DELIMITERS[path.suffix]).writerows(table)


@pytest.mark.parametrize("names", [("sentence1", "sentence2"), ("text", "text_pair")])
@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".tsv"])
def test_pairs_of_texts(tmp_path, suffix, names):
    rows = [(COUPLES[0], "1"), ((f" {COUPLES[1][0]} ", COUPLES[1][1]), "0"), (("", "a text"), "1"), (("a text", " "), "0")]
    write_pairs(tmp_path / f"train{suffix}", names, rows)
    write_pairs(tmp_path / f"dev{suffix}", names, [(COUPLES[2], "1")])
    corpus = texts.load(str(tmp_path))
    assert corpus.pairs and corpus.classes == ["0", "1"]
    assert pairs(corpus, corpus.pool) == [(COUPLES[0], "1"), (COUPLES[1], "0")]
    assert pairs(corpus, corpus.test) == [(COUPLES[2], "1")]
    assert corpus.notes == [f"2 empty texts in train{suffix} dropped"]


def test_afqmc_as_clue_has_it(tmp_path):
    def row(i, **more):
        return json.dumps({"sentence1": f"问题 {i}", "sentence2": f"另一个 {i}"} | more, ensure_ascii=False)

    (tmp_path / "train.json").write_text("\n".join([row(1, label="0"), row(2, label="1")]), encoding="utf-8")
    (tmp_path / "dev.json").write_text(row(3, label="1"), encoding="utf-8")
    (tmp_path / "test.json").write_text(row(4, id=0), encoding="utf-8")
    corpus = texts.load(str(tmp_path))
    assert pairs(corpus, corpus.test) == [(("问题 3", "另一个 3"), "1")] and "no labels" in corpus.notes[0]


def test_one_pair_of_texts_is_another_if_turned_round_or_half_changed(tmp_path):
    first, second = COUPLES[0]
    rows = [(COUPLES[0], "1"), ((second, first), "1"), ((first, "a pear"), "0"), ((f"{first} {second}", "x"), "0")]
    write_pairs(tmp_path / "train.jsonl", ("text", "text_pair"), rows)
    write_pairs(tmp_path / "test.jsonl", ("sentence1", "sentence2"), [(COUPLES[0], "1")])  # names may differ
    corpus = texts.load(str(tmp_path))
    assert [corpus.texts[index] for index in corpus.pool] == [couple for couple, _ in rows[1:]]
    assert corpus.notes == ["dropped from training, because they stand in the test or dev part too: 1 texts"]


def test_a_single_text_is_no_pair(folder):
    assert not texts.load(str(folder)).pairs


PAIR = b'{"sentence1": "a", "sentence2": "b", "label": 1}\n'


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("train.jsonl", PAIR + b'{"sentence1": "c", "label": 2}\n',
         "train.jsonl, line 2: 'sentence1' without 'sentence2'; expected both texts of a pair"),
        ("train.jsonl", PAIR + b'{"sentence2": "c", "label": 2}\n', "line 2: 'sentence2' without 'sentence1'"),
        ("train.jsonl", b'{"text_pair": "c", "label": 2}\n', "line 1: 'text_pair' without 'text'"),
        ("train.jsonl", b'{"text": "a", "sentence2": "c", "label": 2}\n', "line 1: 'sentence2' without 'sentence1'"),
        ("train.jsonl", b'{"text": "a", "text_pair": null, "label": 2}\n', "'text_pair' must be a string, found null"),
        ("train.jsonl", b'{"text": "a", "text_pair": "\\ud800", "label": 2}\n', "'text_pair' holds half of a surrogate"),
        ("train.jsonl", PAIR + b'\n{"text": "c", "label": 2}\n',
         "train.jsonl, line 3: a single text; expected a pair of texts, as "),
        ("train.jsonl", b'{"text": "c", "label": 2}\n' + PAIR, "line 2: a pair of texts; expected a single text, as "),
        ("test.jsonl", PAIR, "test.jsonl, line 1: a pair of texts; expected a single text, as "),
        ("unlabelled.jsonl", b"\n" + PAIR, "unlabelled.jsonl, line 2: a pair of texts; expected a single text, as "),
        ("test.csv", b"sentence1,label\na,fruit\n", "has no column 'text' or 'sentence', nor both 'sentence1' and 'sentence2'"),
        ("test.csv", b"text,sentence2,label\na,b,fruit\n", "test.csv, line 2: 'sentence2' without 'sentence1'"),
    ],
)
def test_half_pairs_and_pairs_among_single_texts(folder, file, content, message):
    assert message in refusal(folder, file, content)
