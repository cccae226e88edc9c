"""data.rows: files of texts in the formats that are read, as `data.texts` has them, and what is said of broken ones."""

import csv
import gzip
import io
import json
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import InputError
from data import texts
from data.rows import DELIMITERS
from tests.data.test_texts import pairs


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
@given(st.lists(st.tuples(st.text(min_size=1), st.sampled_from(["a", "b, \"c\"", "ü\nd"])), min_size=1))
def test_tables_give_back_what_csv_wrote(tmp_path_factory, suffix, rows):
    rows = [("first", "a"), ("second", "ü\nd"), *rows]
    path = tmp_path_factory.mktemp("table") / f"train{suffix}"
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=DELIMITERS[suffix])
        try:
            writer.writerows([("label", "text"), *((label, text) for text, label in rows)])
        except (UnicodeEncodeError, csv.Error):  # surrogates and NUL cannot be written in the first place
            return
    notes = []
    part = texts._read(path, notes, labelled=True)
    expected = [(text.strip(), label.strip()) for text, label in rows if text.strip()]
    assert list(zip(part.texts, part.labels, strict=True)) == expected
    assert len(notes) == (len(expected) < len(rows))


def test_columns_that_are_not_read_may_share_a_name(tmp_path):
    (tmp_path / "train.csv").write_text(",text,,label\n1,a,2,b\n3,c,4,d\n")
    part = texts._read(tmp_path / "train.csv", [], labelled=True)
    assert (part.texts, part.labels) == (["a", "c"], ["b", "d"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("label,words\na,b\n", "line 1: the header ['label', 'words'] has no column 'text' or 'sentence'"),
        ("text,kind\na,b\n", "line 2: no label"),
        ("text,label\na,b\nc\n", "line 3: 1 columns, the header has 2"),
        ("text,label, text\na,b,c\n", "line 1: 2 columns 'text'; expected one"),
        ("label,text,label\na,b,c\n", "line 1: 2 columns 'label'; expected one"),
        ('text,label\na,b\n"c,d\n', "line 3: unexpected end of data"),
        ("", "no text in it"),
        ("text,label\ra,b\rc,d\r", "line 1: old Macintosh line ends, CR alone; save it with LF or CR LF"),
    ],
)
def test_bad_tables_are_named(tmp_path, content, message):
    (tmp_path / "train.csv").write_text(content, newline="")
    with pytest.raises(InputError, match="train.csv") as error:
        texts.load(str(tmp_path / "train.csv"))
    assert message in str(error.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".tsv"])
def test_tables_with_quotes_and_line_breaks(tmp_path, encoding, ends, suffix):
    rows = [("text", "label"), ('she said "no"', "a"), ("two\nlines", "b"), ("a, b\tc", "a"), ("  ", "b"), ("d", " b ")]
    written = io.StringIO()
    csv.writer(written, delimiter="\t" if suffix == ".tsv" else ",", lineterminator=ends).writerows(rows)
    content = written.getvalue().encode(encoding)
    (tmp_path / f"train{suffix}").write_bytes(gzip.compress(content) if suffix.endswith(".gz") else content)
    (tmp_path / "test.csv").write_text("text,label\nx,a\n")
    corpus = texts.load(str(tmp_path))
    assert pairs(corpus, corpus.pool) == [('she said "no"', "a"), ("two\nlines", "b"), ("a, b\tc", "a"), ("d", "b")]
    assert corpus.notes == [f"1 empty text in train{suffix} dropped"]


def test_rows_that_a_stray_quote_joins_are_told(tmp_path):
    (tmp_path / "train.tsv").write_text('text\tlabel\n"I came\t0\nb\t1\nand left"\t1\n"two\nlines"\t0\n')
    notes = []
    assert texts._read(tmp_path / "train.tsv", notes, labelled=True).texts == ["I came\t0\nb\t1\nand left", "two\nlines"]
    assert notes == ["train.tsv, 1 time, first in line 2: tabs and line breaks within quotes; if they part rows, the quotes "
                     "are to be doubled"]


def packed(content):
    return gzip.compress(content, mtime=0)  # so that all workers of pytest give a test the same name


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"text": "a", "label": 1}\n' * 9, "line 1: damaged gzip (Not a gzipped file"),
        (packed(b'{"text": "a", "label": 1}\n' * 9)[:-12], "damaged gzip (Compressed file ended before"),
        (packed(b'{"text": "a", "label": 1}\n' * 10**5), "over 100 times as large as packed; unpack it yourself"),
        (packed(b"0" * 10**7), "line 1: over 100 times as large as packed; unpack it yourself"),
        (packed('{"text": "你好，世界"}'.encode("gbk")),
         "train.jsonl.gz | iconv -f GB18030 -t UTF-8 > utf8.jsonl"),
    ],
)
def test_packed_files_that_cannot_be_read(tmp_path, content, message):
    (tmp_path / "train.jsonl.gz").write_bytes(content)
    with pytest.raises(InputError, match="train.jsonl.gz, line [0-9]+: ") as error:
        texts.load(str(tmp_path / "train.jsonl.gz"))
    assert message in str(error.value)


@pytest.mark.parametrize("text", ["Herr Müller kam zu spät nach Größe", "très bon hôtel", "Straße", "señor, ¿qué?", "Größe"])
def test_latin_letters_are_not_taken_for_chinese(tmp_path, text):
    (tmp_path / "train.jsonl").write_bytes(json.dumps({"text": text, "label": 1}, ensure_ascii=False).encode("latin-1"))
    with pytest.raises(InputError, match="not UTF-8; byte [0-9]+ of the line is 0x..; save the file as UTF-8"):
        texts.load(str(tmp_path / "train.jsonl"))


@pytest.mark.parametrize("text", ["你好，世界", "质量还不错，内容只适合边上厕所便消遣了", "iPhone 手机：¥5000，性价比高！"])
@pytest.mark.parametrize("encoding", ["gb2312", "gbk", "gb18030"])
def test_the_command_for_a_chinese_file_converts_it(tmp_path, text, encoding):
    path = tmp_path / "my texts.csv"
    lines = f"text,label\n{text.replace('¥', '￥')},a\nb,b\n"
    path.write_bytes(lines.encode(encoding))
    with pytest.raises(InputError, match="line 2: not UTF-8; it looks like GB18030") as error:
        texts.load(str(path))
    subprocess.run(str(error.value).split(", or: ")[1], shell=True, check=True, cwd=tmp_path)
    assert (tmp_path / "utf8.csv").read_text(encoding="utf-8") == lines
