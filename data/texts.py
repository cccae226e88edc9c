"""Text data sets as plain records: the named ones, JSON lines, tables, and folders of these.

A text is a string, a pair of texts a tuple of two. Splitting them is the work of `data.parts`.
"""

import re
from array import array
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from common import InputError, visible
from data import fetching
from data.parts import UNLABELLED, sort_labels, stratified_sample
from data.rows import (
    DESCRIPTION_COLUMNS,
    STRAY,
    SUFFIXES,
    as_text,
    check_characters,
    kind_of,
    lines_of,
    rows_of,
    stray_quotes,
    suffix_of,
    texts_of,
)
from data.sources import SOURCES

MEMORY = 50  # bytes that reading takes at most for each byte of the unpacked files; see tests/data/test_any_bytes.py
CHINESE = "\u3400-\u9fff"  # characters, as a regular expression has them within brackets
WITHOUT_SPACES = CHINESE + "\u3040-\u30ff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # and kana, Thai, Lao, Burmese, Khmer
NAMES = {"dev": ("dev", "validation", "val"), "unlabelled": ("unlabelled", "unlabeled")}  # of the files of a part


@dataclass(frozen=True)
class Corpus:
    """A data set as read.

    name: the data set's name or path
    texts: list of strings, or of pairs of strings
    labels: (texts,) int32 class numbers, UNLABELLED where there is none
    classes: class names in the order of their numbers
    descriptions: {class name: what it means}, empty if the files do not say
    pool: indices that training and unlabelled texts are drawn from
    dev: indices of a validation part that came with the data, or none
    test: indices of the test part
    notes: a line each on what was dropped or split
    """

    name: str
    texts: list
    labels: np.ndarray
    classes: list
    descriptions: dict
    pool: np.ndarray
    dev: np.ndarray
    test: np.ndarray
    notes: list

    @property
    def pairs(self):
        """Whether its texts are pairs."""
        return isinstance(self.texts[0], tuple)


# Reading ---------------------------------------------------------------------------------------------------------------


@dataclass
class _Part:
    """The texts of a file, in columns: texts, class labels (strings; None where there is none), line numbers."""

    path: Path
    texts: list = field(default_factory=list)
    labels: list = field(default_factory=list)
    lines: array = field(default_factory=lambda: array("q"))
    descriptions: dict = field(default_factory=dict)

    def add(self, line, text, label):
        self.texts.append(text)
        self.labels.append(label)
        self.lines.append(line)

    def labelled(self):
        return any(label is not None for label in self.labels)


def load(name_or_path):
    """Read a data set by name (see data/) or path: a file, which is split, or a folder with `train.*` and `dev.*`/`test.*`.

    A folder may also hold `unlabelled.*`, whose labels, if it has any, are not used. With both dev and a labelled test, dev is
    the validation part; with dev alone it is the test part. Takes at most MEMORY bytes for each byte of the files. Raises
    InputError with file and line for whatever cannot be read.
    """
    notes = []
    if name_or_path in SOURCES and SOURCES[name_or_path].kind == "texts":
        files = fetching.locate(name_or_path, "--data")
    else:
        files = _files_of(Path(name_or_path), notes)
    if "train" not in files:
        return _corpus(str(name_or_path), {"train": _one_file_a_class(files, notes)}, notes)
    parts = {part: _read(path, notes, labelled=part != "unlabelled") for part, path in files.items()}
    if "test" in parts and "dev" in parts and not parts["test"].labelled():
        notes.append(f"{files['test']} has no labels: {files['dev'].name} is the test part")
        del parts["test"]
    if "unlabelled" in parts and parts["unlabelled"].labelled():
        notes.append(f"the labels of {files['unlabelled'].name} are not used")
        parts["unlabelled"].labels = [None] * len(parts["unlabelled"].labels)
    for name, part in parts.items():
        if name != "unlabelled" and None in part.labels:
            line = part.lines[part.labels.index(None)]
            raise InputError(f"{part.path}, line {line}: no label; expected a field 'label'")
    return _corpus(str(name_or_path), parts, notes)


def _files_of(path, notes):
    """{part: path of its file}; of what else stands beside them, and could be read, a note is made."""
    expected = f"ending in one of {' '.join(SUFFIXES)} (or that and .gz)"
    if path.is_file():
        if suffix_of(path) not in SUFFIXES:
            raise InputError(f"{path}: expected a name {expected}")
        return {"train": path}
    if not path.is_dir():
        names = ", ".join(name for name, source in SOURCES.items() if source.kind == "texts")
        raise InputError(f"--data {path}: neither a file, nor a folder, nor one of {names}")
    files = {}
    for part in ("train", "dev", "test", "unlabelled"):
        stems = NAMES.get(part, (part,))
        names = {f"{stem}{suffix}{packed}" for stem in stems for suffix in SUFFIXES for packed in ("", ".gz")}
        found = [file for file in sorted(path.iterdir()) if file.name.lower() in names and file.is_file()]
        if len(found) > 1:
            raise InputError(f"{path}: both {found[0].name} and {found[1].name}; keep one of them")
        if found:
            files[part] = found[0]
    if "train" not in files or not {"dev", "test"} & set(files):
        raise InputError(f"{path}: expected train.* and dev.* or test.* in it, {expected}")
    others = sorted(file.name for file in {*path.iterdir()} - {*files.values()} if suffix_of(file) in SUFFIXES)
    notes.extend(f"{path / name} is not used" for name in others)
    return files


def _read(path, notes, labelled):
    """The _Part that a file holds. labelled: refuse a file without any label, unless it is called test."""
    part, known, empty, broken, joins_rows = _Part(path), {}, 0, [], stray_quotes(path)
    for line, row in rows_of(path):
        where = f"{path}, line {line}"
        texts, label = [text.strip() for text in texts_of(row, where)], row.get("label")
        if type(label) not in (str, int, type(None)):  # True would be an int
            raise InputError(f"{where}: 'label' must be a string or a whole number, found {kind_of(label)}")
        label = "" if label is None else str(label).strip()
        meaning = next((row[name] for name in DESCRIPTION_COLUMNS if isinstance(row.get(name), str)), "")
        for name, value in (("label", label), ("label_des", meaning)):
            check_characters(name, value, where)
        if not all(texts):
            empty += 1
            continue
        label = known.setdefault(label, label) if label else None  # each label once in memory
        part.add(line, as_text(texts), label)
        if label and meaning:
            part.descriptions.setdefault(label, meaning)
        if joins_rows(texts):
            broken.append(line)
    if broken:
        notes.append(f"{path.name}, {len(broken):,} time{'s' * (len(broken) > 1)}, first in line {broken[0]}: {STRAY}")
    if empty:
        notes.append(f"{empty} empty text{'s' * (empty > 1)} in {path.name} dropped")
    if not part.texts:
        raise InputError(f"{path}: no text in it")
    if labelled and not path.name.lower().startswith("test.") and not part.labelled():
        raise InputError(f"{path}, line {part.lines[0]}: no label; expected a field 'label'")
    return part


def _one_file_a_class(files, notes):
    """The _Part of files {label: path} that hold a text a line: each text once, none that stands under two labels."""
    labels, repeats, part = {}, 0, _Part(next(iter(files.values())).parent)
    for label, path in files.items():
        for line, text in lines_of(path):
            if text := text.strip():
                repeats += text in labels
                labels.setdefault(text, []).append((label, line))
    for text, found in labels.items():
        if len({label for label, _ in found}) == 1:
            part.add(found[0][1], text, found[0][0])
    notes.append(f"dropped: {repeats:,} repeats, and {len(labels) - len(part.texts):,} texts that stand under both labels")
    return part


def _corpus(name, parts, notes):
    """One table of all parts, with class numbers for labels; the checks that need more than one part."""
    train = parts["train"]
    pairs = isinstance(train.texts[0], tuple)
    kinds = ("a single text", "a pair of texts")
    for part in parts.values():
        for line, text in zip(part.lines, part.texts, strict=True):
            if isinstance(text, tuple) != pairs:
                raise InputError(f"{part.path}, line {line}: {kinds[not pairs]}; expected {kinds[pairs]}, as {train.path} has "
                                 f"in line {train.lines[0]}")
    classes = sort_labels(set(train.labels))
    if len(classes) < 2:
        raise InputError(f"{train.path}: every text has the label {classes[0]!r}; expected at least two classes")
    number = {label: i for i, label in enumerate(classes)}
    for part in (parts[part] for part in ("dev", "test") if part in parts):
        for line, label in zip(part.lines, part.labels, strict=True):
            if label not in number:
                raise InputError(f"{part.path}, line {line}: label {label!r} does not occur in {train.path}")
    texts, labels, group = [], [], []
    for use, names in enumerate((("train", "unlabelled"), ("dev",), ("test",))):  # 0: the pool, 1: dev, 2: test
        for part in (parts[name] for name in names if name in parts):
            texts += part.texts
            labels += [number.get(label, UNLABELLED) for label in part.labels]
            group += [use] * len(part.texts)
    labels, group = np.array(labels, np.int32), np.array(group, np.int8)
    if not group.any():
        group[stratified_sample(np.arange(len(texts)), labels, len(texts) // 5, seed=0)[1]] = 2
        notes.append(f"{train.path.name} has been split: a fifth of it is the test part")
    after = [{texts[i] for i in np.flatnonzero(group > use)} for use in range(3)]  # a text stays in the last part that has it
    kept = np.array([text not in after[use] for text, use in zip(texts, group, strict=True)])
    for use, (part, others) in enumerate((("training", "test or dev"), ("the dev part", "test"))):
        if dropped := (~kept[group == use]).sum():
            notes.append(f"dropped from {part}, because they stand in the {others} part too: {dropped:,} texts")
    indices = np.flatnonzero(kept)
    indices = indices[np.argsort(group[indices], kind="stable")]
    pool, dev, test = (np.flatnonzero(group[indices] == use) for use in range(3))
    if len(test) == 0:
        dev, test = test, dev
    return Corpus(name, [texts[i] for i in indices], labels[indices], classes, train.descriptions, pool, dev, test, notes)


# Showing, and characters ------------------------------------------------------------------------------------------------


def in_one_line(text, width=60):
    """The beginning of a text in one line of at most `width` characters; of a pair those of both, with | between."""
    if isinstance(text, tuple):
        return " | ".join(in_one_line(part, (width - 3) // 2) for part in text)
    text = visible(" ".join(text.split(maxsplit=width)[:width])[: width + 1])  # without more parts of a long text than needed
    return text if len(text) <= width else f"{text[: width - 1]}…"


def is_chinese(texts, characters=CHINESE):
    """Whether at least half of the letters of these strings are Chinese characters, or of `characters`."""
    joined = "".join(texts)
    return len(re.findall(f"[{characters}]", joined)) >= 0.5 * sum(map(str.isalpha, joined)) > 0


def has_no_spaces(texts):
    """Whether these strings are of a script that puts no spaces between words, such as that of Chinese, Japanese or Thai."""
    return is_chinese(texts, WITHOUT_SPACES)
