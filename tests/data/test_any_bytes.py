"""data.texts: whatever bytes a file holds, it loads or ends in one line, in little memory."""

import gzip
import re
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common import InputError
from data import texts

PIECES = [
    b'{"text": "a b", "label": "x"}\n', b'{"text": "c", "label": 2}\n', b'{"sentence": "', b'"label": "', b'{"text": "d", "lab',
    b"{", b"}", b"[", b"]", b"{},", b"[],", b"[[", b'{"a":', b"1", b"-1e999", b"null", b"true", b"NaN", b"\\", b"\\u00",
    b"\\ud800", b" ", b"words ",
    b"text,label\n", b"text\tlabel\n", b"a,x\n", b"b\ty\n", b'"c\nd",x\n', b'"e""f",y\n', b'"', b",", b",,", b"\t",
    b"\n", b"\r", b"\r\n", b"\x00", b"\x0b", b"\x1c", b"\xc2\x85", b"\xe2\x80\xa8", b"\x1f\x8b", b"\xff\xfe", b"\xef\xbb\xbf",
    b'{"sentence1": "a", "sentence2": "b", "label": 1}\n', b'{"text": "c", "text_pair": "d", "label": 2}\n', b'"sentence2": "',
    b"sentence1,sentence2,label\n", b"text\ttext_pair\tlabel\n", b"a,b,x\n", b"c\td\ty\n",
    b"\xe4\xbd\xa0", b"\xe4\xbd", b"\xc4\xe3\xba\xc3", b"\xf0\x9f\x98\x80", b"\xff",
]
SUFFIXES = [".jsonl", ".csv", ".tsv", ".jsonl.gz", ".csv.gz"]


def loads_or_says_why(path, content, pack):
    """Load `content` from the file `path`, or end in one line that names it; within texts.MEMORY bytes for each of it."""
    path.write_bytes(gzip.compress(content) if pack else content)
    tracemalloc.start()
    try:
        corpus = texts.load(str(path))
        assert len(corpus.texts) == len(corpus.labels) > 0 and len(corpus.classes) > 1
        loaded = True
    except InputError as error:
        assert len(str(error).splitlines()) == 1 and str(path) in str(error) and len(str(error)) < 1000
        whole = "no text in it", "every text has the label"
        assert re.search(r", line [1-9]", str(error)) or any(message in str(error) for message in whole)
        loaded = False
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < texts.MEMORY * len(content) + 500_000  # the latter for what reading needs at any size
    return loaded


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(max_examples=100, deadline=10_000)
@given(st.one_of(st.binary(max_size=200), st.lists(st.sampled_from(PIECES), max_size=12).map(b"".join)), st.booleans())
def test_any_bytes_load_or_end_in_one_line(tmp_path_factory, suffix, content, pack):
    path = tmp_path_factory.getbasetemp() / f"any{suffix}"
    loads_or_says_why(path, content, pack and suffix.endswith(".gz"))


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".tsv"])
@settings(max_examples=25, deadline=20_000)
@given(*[st.lists(st.sampled_from(PIECES), max_size=3).map(b"".join)] * 3)
def test_many_bytes_too(tmp_path_factory, suffix, begin, middle, end):
    """What is short on disk and long in memory, over and over: 150 kB of it."""
    path = tmp_path_factory.getbasetemp() / f"many{suffix}"
    loads_or_says_why(path, begin + middle * (150_000 // max(1, len(middle))) + end, pack=False)


@pytest.mark.parametrize(
    ("suffix", "content"),
    {
        "empty objects": (".jsonl", b"[" + b"{}," * 70_000),
        "nested": (".jsonl", b'{"text":' + b"[" * 200_000),
        "a nested label": (".jsonl", b'{"text": "a", "label": ' + b"[" * 900 + b"]" * 900 + b"}\n"),
        "a nested meaning": (".jsonl", b'{"text": "a", "label_des": ' + b"[" * 900 + b"]" * 900 + b"}\n"),
        "a long number": (".jsonl", b'{"text": ' + b"1" * 200_000 + b"}\n"),
        "keys": (".jsonl", b"{" + b",".join(b'"%d":0' % i for i in range(20_000)) + b"}\n"),
        "columns": (".csv", b"text," + b",".join(b"%d" % i for i in range(30_000)) + b"\n" + b"," * 30_000 + b"\n"),
        "an open quote": (".csv", b'text,label\n"' + "😀".encode() * 50_000),
        "an empty line": (".csv", b"text,label\n" + b"\n" * 60_000),
        "short texts": (".csv", b"text,label\n" + b"".join(b"%x,%d\n" % (i, i % 2) for i in range(10_000))),
        "a class a text": (".csv", b"text,label\n" + b"".join(b"%x,%d\n" % (i, i) for i in range(10_000))),
        "short pairs": (".csv", b"text,text_pair,label\n" + b"".join(b"%x,%x,%d\n" % (i, i, i % 2) for i in range(10_000))),
        "a class a pair": (".csv", b"text,text_pair,label\n" + b"".join(b"%x,%x,%d\n" % (i, i, i) for i in range(10_000))),
        "the shortest pairs": (".tsv", b"text\ttext_pair\tlabel\n" + b"a\tb\t1\na\tb\t2\n" * 8_000),
        "a long header": (".csv", b"word," * 40_000),
    }.values(),
)
def test_what_is_meant_to_be_costly(tmp_path, suffix, content):
    loads_or_says_why(tmp_path / f"costly{suffix}", content, pack=False)
