"""Fetched data sets in formats of their own, made into JSON lines, one file a part, that the readers know."""

import hashlib
import json

from common.files import write_text
from data.downloading import Damaged


def from_oos_eval(folder):
    """CLINC150: one JSON object of lists of [text, intent]; those that are out of scope are left out."""
    (path,) = folder.iterdir()
    try:
        parts = json.loads(path.read_text(encoding="utf-8"))
        rows = {part: [(label, text) for text, label in parts[key]] for part, key in
                (("train", "train"), ("dev", "val"), ("test", "test"))}
    except (ValueError, KeyError, TypeError) as error:
        raise Damaged(f"{path.name} is not what it was: {error!r}") from None
    _write(folder, rows)
    path.unlink()


def from_uer(folder):
    """A data set of UER-py: TSV files of label and text, nothing quoted."""
    rows, paths = {}, sorted(folder.iterdir())
    for path in paths:
        try:
            lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
            rows[path.stem] = [(label, text) for label, text in (line.rstrip("\r").split("\t") for line in lines[1:])]
        except ValueError as error:
            raise Damaged(f"{path.name} is not what it was: {error}") from None
    _write(folder, rows)
    for path in paths:
        path.unlink()


FORMATS = {"oos-eval": from_oos_eval, "uer": from_uer}  # name in the registry: folder of downloads -> None, files in it


def _write(folder, rows):
    for part, pairs in rows.items():
        lines = (json.dumps({"sentence": text, "label": label}, ensure_ascii=False) for label, text in pairs)
        write_text(folder / f"{part}.jsonl", "".join(f"{line}\n" for line in lines))


def content_sha256(path):
    """SHA-256 of the labels and texts of a file of JSON lines, whatever their order, spaces and format."""
    rows = (json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line)
    content = sorted(f"{row['label']}\t{''.join(row['sentence'].split())}\n" for row in rows)
    return hashlib.sha256("".join(content).encode()).hexdigest()
