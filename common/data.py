"""Text data sets as plain records: reading, splitting, tokenizing once, and batches bucketed by length as `tf.data`.

What a batch is for (labels, soft labels) the caller says; models and training are not this module's business.
"""

import csv
import gzip
import itertools
import json
import re
import shlex
import sys
import zlib
from array import array
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import data
from common import InputError
from common.backend import tf

UNLABELLED = -1  # the label of a text that has none
TEXT_COLUMNS = ("sentence", "text")
DESCRIPTION_COLUMNS = ("label_des", "label_desc")  # what the class means; IFLYTEK has the first, TNEWS the second
DELIMITERS = {".tsv": "\t", ".csv": ","}
SUFFIXES = (".jsonl", ".json", *DELIMITERS)
UNPACKED = 100  # times its own size that a .gz may unpack to
MEMORY = 50  # bytes that reading takes at most for each byte of the (unpacked) files; tests/test_data.py tries to exceed it
SURROGATE = re.compile("[\ud800-\udfff]")  # which JSON can escape, but UTF-8 cannot hold
_POOL = 32  # batches that are sorted by length together: enough to save padding


@dataclass(frozen=True)
class Corpus:
    """A data set as read. Parts are arrays of row numbers into `texts` and `labels`.

    texts: list of strings. labels: (texts,) int32 class numbers, UNLABELLED where there is none. classes: class names in
    the order of their numbers. descriptions: {class name: what it means}, empty if the files do not say. pool: rows that
    training and unlabelled texts are drawn from; dev: rows of a validation part that came with the data, or none; test:
    rows of the test part. notes: a line each on what was dropped or split.
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


@dataclass(frozen=True)
class Parts:
    """What one run uses: row numbers into a corpus. The labels of `unlabelled` are never looked at."""

    train: np.ndarray
    unlabelled: np.ndarray
    validation: np.ndarray
    test: np.ndarray


@dataclass(frozen=True)
class Encoded:
    """Tokenized texts, ragged and held once: text i is `ids[offsets[i]:offsets[i + 1]]`, int32; 0 is kept for padding.

    What batches, predictions and soft labels need to know of examples is `spec`, `at_once`, `example`, `lengths` and
    `inputs`; images have the same five (`common.images`).
    """

    ids: np.ndarray
    offsets: np.ndarray

    spec = (tf.TensorSpec((None, None), tf.int32), tf.TensorSpec((None, None), tf.int32))
    at_once = 64  # texts that are predicted together

    def example(self, row):
        """The token ids of one text, (tokens,) int32."""
        return self.ids[self.offsets[row] : self.offsets[row + 1]]

    def lengths(self, rows):
        """Tokens of each text, special ones included."""
        return self.offsets[rows + 1] - self.offsets[rows]

    def joined(self, others):
        """These texts, and after them those of `others`."""
        return Encoded(np.concatenate([self.ids, others.ids]), np.append(self.offsets, self.offsets[-1] + others.offsets[1:]))

    def inputs(self, rows):
        """(token ids, segment ids) of the texts `rows` as a model takes them, both int32 (rows, tokens).

        Padded with 0; tokens is a multiple of 8, for few graph shapes. Segment ids are all 0.
        """
        lengths = self.lengths(rows)
        token_ids = np.zeros((len(rows), -(-int(lengths.max()) // 8) * 8), np.int32)
        for line, row, length in zip(token_ids, rows, lengths, strict=True):
            line[:length] = self.example(row)
        return token_ids, np.zeros_like(token_ids)


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

    A folder may also hold `unlabelled.*`. With both dev and a labelled test, dev is the validation part; with dev alone it
    is the test part. Takes at most MEMORY bytes for each byte of the files. Raises InputError with file and line for whatever
    cannot be read.
    """
    notes = []
    if name_or_path in data.SOURCES and data.SOURCES[name_or_path].kind == "texts":
        files = data.locate(name_or_path, "--data")
    else:
        files = _files_of(Path(name_or_path))
    if "train" not in files:
        return _corpus(str(name_or_path), {"train": _one_file_a_class(files, notes)}, notes)
    parts = {part: _read(path, notes, labelled=part != "unlabelled") for part, path in files.items()}
    if "test" in parts and "dev" in parts and not parts["test"].labelled():
        notes.append(f"{files['test']} has no labels: {files['dev'].name} is the test part")
        del parts["test"]
    for name, part in parts.items():
        if name != "unlabelled" and None in part.labels:
            line = part.lines[part.labels.index(None)]
            raise InputError(f"{part.path}, line {line}: no label; expected a field 'label'")
    return _corpus(str(name_or_path), parts, notes)


def _files_of(path):
    expected = f"ending in one of {' '.join(SUFFIXES)} (or that and .gz)"
    if path.is_file():
        if _suffix(path) not in SUFFIXES:
            raise InputError(f"{path}: expected a name {expected}")
        return {"train": path}
    if not path.is_dir():
        names = ", ".join(name for name, source in data.SOURCES.items() if source.kind == "texts")
        raise InputError(f"--data {path}: neither a file, nor a folder, nor one of {names}")
    files = {}
    for part in ("train", "dev", "test", "unlabelled"):
        candidates = (path / f"{part}{suffix}{packed}" for suffix in SUFFIXES for packed in ("", ".gz"))
        found = [file for file in candidates if file.is_file()]
        if len(found) > 1:
            raise InputError(f"{path}: both {found[0].name} and {found[1].name}; keep one of them")
        if found:
            files[part] = found[0]
    if "train" not in files or not {"dev", "test"} & set(files):
        raise InputError(f"{path}: expected train.* and dev.* or test.* in it, {expected}")
    return files


def _suffix(path):
    """What a file's name says of its content, packed or not."""
    return (path.with_suffix("") if path.suffix == ".gz" else path).suffix


def _read(path, notes, labelled):
    """The _Part that a file holds. labelled: refuse a file without any label, unless it is called test."""
    readers = {".tab": _orange_rows} | dict.fromkeys(DELIMITERS, _table_rows)
    part, known, empty = _Part(path), {}, 0
    for line, row in readers.get(_suffix(path), _json_rows)(path):
        where = f"{path}, line {line}"
        column = next((name for name in TEXT_COLUMNS if name in row), None)
        if column is None:
            raise InputError(f"{where}: no text; expected a field {' or '.join(map(repr, TEXT_COLUMNS))}")
        text, label = row[column], row.get("label")
        if not isinstance(text, str):
            raise InputError(f"{where}: {column!r} must be a string, found {_kind(text)}")
        if not isinstance(label, (str, int, type(None))):
            raise InputError(f"{where}: 'label' must be a string or a whole number, found {_kind(label)}")
        label = "" if label is None else str(label).strip()
        meaning = next((row[name] for name in DESCRIPTION_COLUMNS if isinstance(row.get(name), str)), "")
        for name, value in ((column, text), ("label", label), ("label_des", meaning)):
            if SURROGATE.search(value):
                raise InputError(f"{where}: {name!r} holds half of a surrogate pair, which is no character")
        if not text.strip():
            empty += 1
            continue
        part.add(line, text.strip(), known.setdefault(label, label) if label else None)  # each label once in memory
        if label and meaning:
            part.descriptions.setdefault(label, meaning)
    if empty:
        notes.append(f"{empty} empty text{'s' * (empty > 1)} in {path.name} dropped")
    if not part.texts:
        raise InputError(f"{path}: no text in it")
    if labelled and not path.name.startswith("test.") and not part.labelled():
        raise InputError(f"{path}, line {part.lines[0]}: no label; expected a field 'label'")
    return part


def _kind(value):
    """What a JSON value is, in words."""
    kinds = {bool: "true or false", int: "a number", float: "a fraction", list: "a list", dict: "an object"}
    return kinds.get(type(value), "null")


def lines_of(path):
    """(number, line) of a text file, from 1, decoded from UTF-8 with or without its mark, ends of lines kept.

    A file whose name ends in .gz is unpacked on the way, up to UNPACKED times its size.
    """
    packed = path.suffix == ".gz"
    try:
        with (gzip.open if packed else open)(path, "rb") as file:
            yield from decoded(file, path, UNPACKED * path.stat().st_size if packed else sys.maxsize - 1)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None


def decoded(file, path, left=sys.maxsize - 1):
    """(number, line) of an open binary file, as `lines_of` gives them. path: what it is called. left: bytes it may have."""
    number = 0
    try:
        while line := file.readline(left + 1):
            number += 1
            left -= len(line)
            if left < 0:
                raise InputError(f"{path}, line {number}: over {UNPACKED} times as large as packed; unpack it yourself")
            try:
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise InputError(f"{path}, line {number}: not UTF-8; {_conversion(path, line, error.start)}") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}, line {number + 1}: damaged gzip ({error})") from None


def _conversion(path, line, start):
    """What to do with a file that has this line, which is not UTF-8 from byte `start` on."""
    if line.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "UTF-16"
    elif _is_gb18030(line):
        encoding = "GB18030"
    else:
        return f"byte {start + 1} of the line is {line[start]:#04x}; save the file as UTF-8"
    command = f"iconv -f {encoding} -t UTF-8"
    if path.is_file():
        name = shlex.quote(str(path))
        command = f"gunzip -c {name} | {command}" if path.suffix == ".gz" else f"{command} {name}"
        command += f" > utf8{_suffix(path)}"
    return f"it looks like {encoding}; save it as UTF-8, or: {command}"


def _is_gb18030(line):
    """Whether bytes are GB18030 (GBK, GB2312): almost all that is not ASCII is its punctuation or its common characters."""
    try:
        foreign = [sign.encode("gb18030") for sign in line.decode("gb18030") if ord(sign) > 127]
    except UnicodeError:
        return False
    common = [b for b in foreign if len(b) == 2 and b[1] > 0xA0 and (0xA1 <= b[0] <= 0xA3 or 0xB0 <= b[0] <= 0xD7)]
    return len(common) > 0.8 * len(foreign)  # which accents in Latin-1, taken for pairs with the letters after them, are not


def _json_rows(path):
    for line, row in lines_of(path):
        if row.strip():
            try:
                row = json.loads(row)
            except (ValueError, RecursionError) as error:
                raise InputError(f"{path}, line {line}: broken JSON ({error}); expected one object a line") from None
            if not isinstance(row, dict):
                raise InputError(f"{path}, line {line}: expected a JSON object like {{'text': …, 'label': …}} a line")
            yield line, row


def _table_rows(path):
    csv.field_size_limit(2**31 - 1)
    reader = csv.reader((text for _, text in lines_of(path)), delimiter=DELIMITERS[_suffix(path)], strict=True)
    header = None
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise InputError(f"{path}, line {line}: {error}; quotes inside a quoted field are doubled") from None
        if header is None:
            header = [name.strip() for name in row]
            if not set(header) & set(TEXT_COLUMNS):
                raise InputError(f"{path}, line {line}: the header {str(header[:9])[:99]} has no column 'text' or 'sentence'")
        elif len(row) == len(header):
            yield line, dict(zip(header, row, strict=True))
        elif row:
            raise InputError(f"{path}, line {line}: {len(row)} columns, the header has {len(header)}")


def _orange_rows(path):
    """Orange's .tab, as the bundled data sets come: three header lines (names, types, roles), then label and text."""
    for line, row in itertools.islice(lines_of(path), 3, None):
        if row := row.rstrip("\n"):
            label, text = row.split("\t")
            yield line, {"label": label, "text": text}


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


def in_order(labels):
    """Class labels in the order of their numbers: by value if all are numbers, else by name."""
    numbers = all(isinstance(label, int) or (label.isdecimal() and len(label) < 10) for label in labels)
    return sorted(sorted(labels), key=int if numbers else None)


def _corpus(name, parts, notes):
    """One table of all parts, with class numbers for labels; the checks that need more than one part."""
    train = parts["train"]
    classes = in_order(set(train.labels))
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
        group[draw(np.arange(len(texts)), labels, len(texts) // 5, seed=0)[1]] = 2
        notes.append(f"{train.path.name} has been split: a fifth of it is the test part")
    held_out = {texts[row] for row in np.flatnonzero(group)}
    kept = np.array([use > 0 or text not in held_out for text, use in zip(texts, group, strict=True)])
    if not kept.all():
        notes.append(f"dropped from training, because they stand in the test or dev part too: {(~kept).sum():,} texts")
    rows = np.flatnonzero(kept)
    rows = rows[np.argsort(group[rows], kind="stable")]
    pool, dev, test = (np.flatnonzero(group[rows] == use) for use in range(3))
    if len(test) == 0:
        dev, test = test, dev
    return Corpus(name, [texts[row] for row in rows], labels[rows], classes, train.descriptions, pool, dev, test, notes)


# Splitting, tokenizing, batching ---------------------------------------------------------------------------------------


def split(corpus, seed, train=0, unlabelled=0, validation=0, test=0):
    """Draw the Parts of one run. Counts are upper bounds: a small data set gives what it has.

    train, test: 0 takes all there are. validation: rows of the corpus's own dev part, or else drawn from the training pool,
    of which it takes a fifth at most; 0 takes all of the dev part, or without one the test part, as the original programs
    did. unlabelled: drawn from what training leaves over, labels ignored. The test part is the same for every seed.
    """
    labels = corpus.labels
    labelled = corpus.pool[labels[corpus.pool] != UNLABELLED]
    if len(corpus.dev):
        held_out = draw(corpus.dev, labels, validation or len(corpus.dev), seed)[1]
    else:
        labelled, held_out = draw(labelled, labels, min(validation, len(labelled) // 5), seed)
    rest, chosen = draw(labelled, labels, train or len(labelled), seed)
    given = corpus.pool[labels[corpus.pool] == UNLABELLED]
    spare = np.concatenate([np.random.default_rng(seed).permutation(rows) for rows in (given, rest)])
    tested = np.sort(draw(corpus.test, labels, test or len(corpus.test), seed=0)[1])  # in the order of the file
    return Parts(chosen, spare[:unlabelled], held_out if validation or len(corpus.dev) else tested, tested)


def remarks(corpus, parts):
    """What a user should know of the data: a line each."""
    taught = len(np.unique(corpus.labels[parts.train]))
    return corpus.notes + ([f"only {taught} of the classes occur in training"] if taught < len(corpus.classes) else [])


def check_parts(corpus, parts, batch_size):
    """Raise InputError if there are too few examples to train on, to choose epochs by, or to compare models with."""
    if len(parts.train) < batch_size:
        raise InputError(
            f"{corpus.name}: {len(parts.train)} training examples are fewer than a batch; lower --batch-size {batch_size}"
        )
    if len(parts.validation) == 0:
        raise InputError(f"{corpus.name}: too few to hold some out; --validation-examples 0 chooses on the test part")
    if len(parts.test) < 2:
        raise InputError(f"{corpus.name}: {len(parts.test)} in the test part; at least 2 are needed to compare models")


def draw(rows, labels, count, seed):
    """(rest, drawn): at most `count` of `rows`, each class in its share. labels: indexed by row."""
    shuffled = np.random.default_rng(seed).permutation(rows)
    # A text's place within its class, over the size of the class: the lowest places are the same share of every class.
    _, labels, sizes = np.unique(np.asarray(labels)[shuffled], return_inverse=True, return_counts=True)
    by_class = np.argsort(labels, kind="stable")
    place = np.empty(len(rows))
    place[by_class] = np.concatenate([(np.arange(size) + 0.5) / size for size in sizes]) if len(rows) else 0
    order = np.argsort(place, kind="stable")
    return np.sort(shuffled[order[count:]]), shuffled[order[:count]]


def encode(texts, tokenizer, maxlen, pad_id=0):
    """Tokenize `texts` once, special tokens included, cut to `maxlen` tokens. Segment ids are all 0, so they are not kept.

    bert4keras takes id 0 for padding; where the vocabulary's padding is another id, the two change places
    (`pretrained.build_encoder` does the same to the embeddings).
    """
    tokenizer.enable_truncation(maxlen)
    ids, lengths = array("i"), array("q")  # which grow in place, at 4 bytes a token
    for start in range(0, len(texts), 10_000):  # in slices, so that the tokenizer's own objects do not pile up
        whole = texts[start : start + 10_000]
        begun = [_beginning(text, maxlen) for text in whole]
        for text, cut, encoding in zip(whole, begun, tokenizer.encode_batch_fast(begun), strict=True):
            if len(encoding) < maxlen and len(cut) < len(text):  # words of which nothing was left
                encoding = tokenizer.encode(text)
            ids.extend(encoding.ids)
            lengths.append(len(encoding))
    ids = np.frombuffer(ids, np.int32)
    if pad_id:
        ids = np.select([ids == 0, ids == pad_id], [pad_id, 0], ids).astype(np.int32)
    return Encoded(ids, np.concatenate([[0], np.cumsum(lengths)]))


def _beginning(text, words):
    """The first `words` words of a text, as they stand: a word is a token or more, so what follows would be cut off anyway."""
    parts = text.split(maxsplit=words)
    return text[: len(text) - len(parts[-1])] if len(parts) > words else text


def by_length(lengths, batch_size, rng=None):
    """Index arrays of one epoch's batches, texts of like length together so that little is padding.

    With `rng` the order is random: shuffled, then sorted by length only within pools of batches, then the batches
    shuffled. Without, all is sorted, for inference.
    """
    pool = _POOL * batch_size if rng else len(lengths)
    order = rng.permutation(len(lengths)) if rng else np.arange(len(lengths))
    pools = (order[start : start + pool] for start in range(0, len(order), pool))
    order = np.concatenate([part[np.argsort(lengths[part], kind="stable")] for part in pools])
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    return [batches[i] for i in rng.permutation(len(batches))] if rng else batches


def batches(examples, rows, targets, batch_size, seed, first=0, pieces=(0,), of=1):
    """An endless `tf.data.Dataset` of training batches (inputs, *targets), epoch after epoch; from the batch `first` on.

    examples: Encoded or Images. rows: (examples,) int. targets: (targets,) or (targets, weights), arrays or dicts of arrays
    whose first axis is that of `rows`. The order of epoch e depends on (seed, e) alone. An epoch has ceil(rows / batch_size)
    batches. of: devices that share a batch; then there follow, batch by batch, those `pieces` of it that are named. All have
    one length and weights under which the mean of the pieces' mean losses is the mean loss of the batch.
    """
    targets = tf.nest.map_structure(np.asarray, targets)
    lengths = examples.lengths(rows)

    def cut(chosen, targets, piece):
        """The examples of a piece, and their targets."""
        size = -(-len(chosen) // of)
        own = np.arange(piece * size, (piece + 1) * size)
        weight = (own < len(chosen)) * np.float32(size * of / len(chosen))  # 0 for what fills up the last pieces
        own = np.minimum(own, len(chosen) - 1)
        targets = tf.nest.map_structure(lambda x: x[own], targets)
        given = targets[1] if len(targets) > 1 else np.ones(size, np.float32)
        return chosen[own], (targets[0], tf.nest.map_structure(lambda x: x * weight, given))

    def stream():
        begun, skipped = divmod(first, -(-len(rows) // batch_size))
        for epoch in itertools.count(begun):
            order = by_length(lengths, batch_size, np.random.default_rng((seed, epoch)))
            for chosen in order[skipped:]:
                taught = tf.nest.map_structure(lambda x: x[chosen], targets)  # noqa: B023
                for piece in pieces:
                    own, told = cut(chosen, taught, piece) if of > 1 else (chosen, taught)
                    yield examples.inputs(rows[own]), *told
            skipped = 0

    def spec(x):
        return tf.TensorSpec((None, *x.shape[1:]), x.dtype)

    signature = (examples.spec, *tf.nest.map_structure(spec, targets))
    if of > 1 and len(targets) == 1:
        signature += (tf.TensorSpec((None,), tf.float32),)
    # There is nothing to tune, and who lets go of a tuned dataset waits until its tuner wakes, in the end once a minute.
    options = tf.data.Options()
    options.autotune.enabled = False
    return tf.data.Dataset.from_generator(stream, output_signature=signature).prefetch(2).with_options(options)
