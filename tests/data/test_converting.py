"""data.converting: data sets in formats of their own become JSON lines, held to the labels and texts that were registered."""

import json
from dataclasses import replace

import pytest

from common import InputError
from data import downloading, fetching, texts
from data.converting import content_sha256
from data.sources import SOURCES, Download
from tests import serving

UER = "label\ttext_a\n1\t很\"好\n0\t不 好\n"  # a quotation mark is a character like others
OOS_EVAL = {
    "train": [["hello there", "greeting"], ["good bye", "goodbye"]], "val": [["hi", "greeting"]],
    "test": [["bye", "goodbye"]], "oos_train": [["what is love", "oos"]],
}


@pytest.fixture
def served(tmp_path, monkeypatch):
    """(name, files) -> None: publishes files {name: text} as the downloads of a source, with the digests of what they hold."""
    monkeypatch.setattr(fetching, "FOLDER", tmp_path / "data")
    monkeypatch.setattr(downloading, "PAUSE", 0)
    with serving.serving() as server:
        def publish(name, files, parts):
            for file, text in files.items():
                server.files[f"/{file}"] = text.encode()
            content = {}
            for part, pairs in parts.items():
                path = tmp_path / f"{part}.jsonl"
                path.write_text("".join(json.dumps({"sentence": t, "label": label}) + "\n" for t, label in pairs))
                content[part] = content_sha256(path)
            downloads = tuple(Download(f"{server.address}/{file}", to=file) for file in files)
            monkeypatch.setitem(SOURCES, name, replace(SOURCES[name], downloads=downloads, content=content))
        yield publish


def test_clinc150_is_read_as_it_is_published(served):
    parts = {"train": OOS_EVAL["train"], "dev": OOS_EVAL["val"], "test": OOS_EVAL["test"]}
    served("clinc150", {"data_full.json": json.dumps(OOS_EVAL)}, parts)
    fetching.fetch("clinc150")
    corpus = texts.load("clinc150")
    assert corpus.classes == ["goodbye", "greeting"] and len(corpus.dev) == len(corpus.test) == 1
    assert [corpus.texts[i] for i in corpus.pool] == ["hello there", "good bye"]
    assert {path.name for path in (fetching.FOLDER / "clinc150").iterdir()} == {"train.jsonl", "dev.jsonl", "test.jsonl"}


def test_book_review_is_read_as_it_is_published(served):
    parts = {part: [("很\"好", "1"), ("不 好", "0")] for part in ("train", "dev", "test")}
    files = {f"{part}.tsv": UER for part in parts}
    files["dev.tsv"] = UER.replace("\n", "\r\n")
    served("book-review", files, parts)
    fetching.fetch("book-review")
    lines = (fetching.FOLDER / "book-review" / "dev.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [{"sentence": "很\"好", "label": "1"}, {"sentence": "不 好", "label": "0"}]


def test_several_files_are_taken_from_a_folder(served, tmp_path):
    """What was published and not what is made of it, since it is held to the same; it is left as it was."""
    files = dict.fromkeys(("train.tsv", "dev.tsv", "test.tsv"), UER)
    served("book-review", files, dict.fromkeys(("train", "dev", "test"), ()))
    copies = tmp_path / "copies"
    copies.mkdir()
    (copies / "train.tsv").write_text(UER)
    with pytest.raises(InputError, match="dev.tsv: there is no such file"):
        fetching.fetch("book-review", copies)
    for part in ("dev", "test"):
        (copies / f"{part}.tsv").write_text(UER)
    with pytest.raises(InputError, match="not the labels and texts that"):
        fetching.fetch("book-review", copies)
    served("book-review", files, dict.fromkeys(("train", "dev", "test"), (("很\"好", "1"), ("不 好", "0"))))
    fetching.fetch("book-review", copies)
    assert len(texts.load("book-review").texts) == 2 and len([*copies.iterdir()]) == 3


@pytest.mark.parametrize(
    ("name", "files", "message"),
    [
        ("clinc150", {"data_full.json": "{"}, "data_full.json is not what it was"),
        ("clinc150", {"data_full.json": '{"train": [["a", "b", "c"]]}'}, "data_full.json is not what it was"),
        ("clinc150", {"data_full.json": json.dumps(OOS_EVAL | {"val": [["hi", "goodbye"]]})},
         "dev.jsonl: not the labels and texts that"),
        ("book-review", {"train.tsv": UER, "dev.tsv": "label\ttext_a\nno tab\n", "test.tsv": UER},
         "dev.tsv is not what it was"),
        ("book-review", {"train.tsv": UER, "dev.tsv": UER, "test.tsv": UER + "1\t再来\n"},
         "test.jsonl: not the labels and texts that"),
    ],
)
def test_what_is_published_otherwise_is_refused(served, name, files, message):
    pairs = [("很\"好", "1"), ("不 好", "0")]
    parts = dict.fromkeys(("train", "dev", "test"), pairs)
    if name == "clinc150":
        parts = {"train": OOS_EVAL["train"], "dev": OOS_EVAL["val"], "test": OOS_EVAL["test"]}
    served(name, files, parts)
    with pytest.raises(InputError, match=message) as error:
        fetching.fetch(name)
    assert "\n" not in str(error.value) and not (fetching.FOLDER / name).exists()


def test_the_digest_is_of_labels_and_texts_alone(tmp_path):
    def digest(*rows):
        path = tmp_path / "part.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return content_sha256(path)

    one, other = {"sentence": "a b", "label": "x"}, {"label": "y", "sentence": "c"}
    assert digest(one, other) == digest(other, {"label": "x", "sentence": " a  b"})
    assert digest(one, other) != digest(one, other | {"label": "x"})
    assert digest(one, other) != digest(one, other, other)
