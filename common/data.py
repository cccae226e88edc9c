"""Text data sets as plain records: reading, splitting, tokenizing once, and batches bucketed by length as `tf.data`.

What a batch is for (labels, soft labels) the caller says; models and training are not this module's business.
"""

import csv
import io
import itertools
import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import data
from common import InputError
from common.backend import tf

UNLABELLED = -1  # the label of a text that has none
TEXT_COLUMNS = ("sentence", "text")
DELIMITERS = {".tsv": "\t", ".csv": ","}
SUFFIXES = (".jsonl", ".json", *DELIMITERS)
_SURROGATE = re.compile("[\ud800-\udfff]")  # which JSON can escape, but UTF-8 cannot hold
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


def load(name_or_path):
    """Read a data set by name (see data/) or path: a file, which is split, or a folder with `train.*` and `dev.*`/`test.*`.

    A folder may also hold `unlabelled.*`. With both dev and a labelled test, dev is the validation part; with dev alone it
    is the test part. Raises InputError with file and line for whatever cannot be read.
    """
    notes = []
    if name_or_path in data.SOURCES and data.SOURCES[name_or_path].kind == "texts":
        files = data.locate(name_or_path, "--data")
    else:
        files = _files_of(Path(name_or_path))
    parts = {part: _read(path, notes, labelled=part != "unlabelled") for part, path in files.items()}
    if "test" in parts and "dev" in parts and not any("label" in record for record in parts["test"]):
        notes.append(f"{files['test']} has no labels: {files['dev'].name} is the test part")
        del parts["test"]
    for part, records in parts.items():
        for record in records:
            if part != "unlabelled" and "label" not in record:
                raise InputError(f"{files[part]}, line {record['line']}: no label; expected a field 'label'")
    return _corpus(str(name_or_path), files, parts, notes)


def _files_of(path):
    if path.is_file():
        if path.suffix not in SUFFIXES:
            raise InputError(f"{path}: its name must end in one of {' '.join(SUFFIXES)}")
        return {"train": path}
    if not path.is_dir():
        names = ", ".join(name for name, source in data.SOURCES.items() if source.kind == "texts")
        raise InputError(f"--data {path}: neither a file, nor a folder, nor one of {names}")
    files = {}
    for part in ("train", "dev", "test", "unlabelled"):
        found = [path / f"{part}{suffix}" for suffix in SUFFIXES if (path / f"{part}{suffix}").is_file()]
        if len(found) > 1:
            raise InputError(f"{path}: both {found[0].name} and {found[1].name}; keep one of them")
        if found:
            files[part] = found[0]
    if "train" not in files or not {"dev", "test"} & set(files):
        raise InputError(f"{path}: expected train.* and dev.* or test.* in it, ending in one of {' '.join(SUFFIXES)}")
    return files


def _read(path, notes, labelled):
    """The records of a file: [{"text", "line", "label" (a string; absent if there is none), "description"}]."""
    readers = {".tab": _orange_rows} | dict.fromkeys(DELIMITERS, _table_rows)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = path.read_bytes().count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}, line {line}: not UTF-8; convert the file, e.g. iconv -f GB18030 -t UTF-8") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    records, empty = [], 0
    for line, row in readers.get(path.suffix, _json_rows)(path, text):
        where = f"{path}, line {line}"
        column = next((name for name in TEXT_COLUMNS if name in row), None)
        if column is None:
            raise InputError(f"{where}: no text; expected a field {' or '.join(map(repr, TEXT_COLUMNS))}")
        if not isinstance(row[column], str):
            raise InputError(f"{where}: {column!r} must be a string, found {json.dumps(row[column])[:40]}")
        for name in (column, "label", "label_des"):
            if _SURROGATE.search(str(row.get(name))):
                raise InputError(f"{where}: {name!r} holds half of a surrogate pair, which is no character")
        record = {"text": row[column].strip(), "line": line}
        label = row.get("label")
        if label is not None and label != "":
            if not isinstance(label, (str, int)):
                raise InputError(f"{where}: 'label' must be a string or a whole number, found {json.dumps(label)[:40]}")
            record |= {"label": str(label), "description": str(row.get("label_des") or "")}
        if record["text"]:
            records.append(record)
        else:
            empty += 1
    if empty:
        notes.append(f"{empty} empty text{'s' * (empty > 1)} in {path.name} dropped")
    if not records:
        raise InputError(f"{path}: no text in it")
    if labelled and path.stem != "test" and not any("label" in record for record in records):
        raise InputError(f"{path}, line {records[0]['line']}: no label; expected a field 'label'")
    return records


def _json_rows(path, text):
    for line, row in enumerate(text.split("\n"), 1):
        if row.strip():
            try:
                row = json.loads(row)
            except (ValueError, RecursionError) as error:
                raise InputError(f"{path}, line {line}: broken JSON ({error}); expected one object a line") from None
            if not isinstance(row, dict):
                raise InputError(f"{path}, line {line}: expected a JSON object like {{'text': …, 'label': …}} a line")
            yield line, row


def _table_rows(path, text):
    csv.field_size_limit(max(len(text), 131072))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=DELIMITERS[path.suffix], strict=True)
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
                raise InputError(f"{path}, line {line}: the header {header} has no column 'text' or 'sentence'")
        elif len(row) == len(header):
            yield line, dict(zip(header, row, strict=True))
        elif row:
            raise InputError(f"{path}, line {line}: {len(row)} columns, the header has {len(header)}")


def _orange_rows(path, text):
    """Orange's .tab, as the bundled data sets come: three header lines (names, types, roles), then label and text."""
    for line, row in enumerate(text.split("\n")[3:], 4):
        if row:
            label, text = row.split("\t")
            yield line, {"label": label, "text": text}


def in_order(labels):
    """Class labels in the order of their numbers: by value if all are numbers, else by name."""
    numbers = all(isinstance(label, int) or (label.isdecimal() and len(label) < 10) for label in labels)
    return sorted(labels, key=int if numbers else None)


def _corpus(name, files, parts, notes):
    """One table of all parts, with class numbers for labels; the checks that need more than one part."""
    named = {record["label"] for record in parts["train"]}
    classes = in_order(named)
    if len(classes) < 2:
        raise InputError(f"{files['train']}: every text has the label {classes[0]!r}; expected at least two classes")
    number = {label: i for i, label in enumerate(classes)}
    for part in ("dev", "test"):
        for record in parts.get(part, ()):
            if record["label"] not in number:
                raise InputError(
                    f"{files[part]}, line {record['line']}: label {record['label']!r} does not occur in {files['train']}"
                )
    if not {"dev", "test"} & set(parts):
        whole = parts["train"]
        rest, drawn = draw(np.arange(len(whole)), [number[record["label"]] for record in whole], len(whole) // 5, seed=0)
        parts |= {"train": [whole[i] for i in rest], "test": [whole[i] for i in np.sort(drawn)]}
        notes.append(f"{files['train'].name} has been split: a fifth of it is the test part")
    held_out = {record["text"] for part in ("dev", "test") for record in parts.get(part, ())}
    pool = parts["train"] + parts.get("unlabelled", [])
    kept = [record for record in pool if record["text"] not in held_out]
    if len(kept) < len(pool):
        notes.append(f"dropped from training, because they stand in the test or dev part too: {len(pool) - len(kept):,} texts")
    records = kept + parts.get("dev", []) + parts.get("test", [])
    labels = np.array([number[record["label"]] if "label" in record else UNLABELLED for record in records], np.int32)
    pool, dev, test = np.split(np.arange(len(records)), np.cumsum([len(kept), len(parts.get("dev", []))]))
    if len(test) == 0:
        dev, test = test, dev
    texts = [record["text"] for record in records]
    descriptions = {record["label"]: record["description"] for record in parts["train"] if record["description"]}
    return Corpus(name, texts, labels, classes, descriptions, pool, dev, test, notes)


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
    labels, shuffled = np.asarray(labels), np.random.default_rng(seed).permutation(rows)
    # A text's place within its class, over the size of the class: the lowest places are the same share of every class.
    place = np.zeros(len(rows))
    for label in np.unique(labels[shuffled]):
        members = np.flatnonzero(labels[shuffled] == label)
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    order = np.argsort(place, kind="stable")
    return np.sort(shuffled[order[count:]]), shuffled[order[:count]]


def encode(texts, tokenizer, maxlen, pad_id=0):
    """Tokenize `texts` once, special tokens included, cut to `maxlen` tokens. Segment ids are all 0, so they are not kept.

    bert4keras takes id 0 for padding; where the vocabulary's padding is another id, the two change places
    (`pretrained.build_encoder` does the same to the embeddings).
    """
    tokenizer.enable_truncation(maxlen)
    ids, lengths = [], []
    for start in range(0, len(texts), 10_000):  # in slices, so that the tokenizer's own objects do not pile up
        whole = texts[start : start + 10_000]
        begun = [_beginning(text, maxlen) for text in whole]
        for text, cut, encoding in zip(whole, begun, tokenizer.encode_batch_fast(begun), strict=True):
            if len(encoding) < maxlen and len(cut) < len(text):  # words of which nothing was left
                encoding = tokenizer.encode(text)
            ids.append(np.array(encoding.ids, np.int32))
            lengths.append(len(ids[-1]))
    ids = np.concatenate(ids)
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


def batches(examples, rows, targets, batch_size, seed):
    """An endless `tf.data.Dataset` of training batches (inputs, *targets), epoch after epoch.

    examples: Encoded or Images. rows: (examples,) int. targets: a tuple of arrays or dicts of arrays whose first axis is
    that of `rows`. The order of epoch e depends on (seed, e) alone. An epoch has ceil(rows / batch_size) batches.
    """
    targets = tf.nest.map_structure(np.asarray, targets)
    lengths = examples.lengths(rows)

    def stream():
        for epoch in itertools.count():
            for chosen in by_length(lengths, batch_size, np.random.default_rng((seed, epoch))):
                yield examples.inputs(rows[chosen]), *tf.nest.map_structure(lambda x: x[chosen], targets)  # noqa: B023

    def spec(x):
        return tf.TensorSpec((None, *x.shape[1:]), x.dtype)

    signature = (examples.spec, *tf.nest.map_structure(spec, targets))
    return tf.data.Dataset.from_generator(stream, output_signature=signature).prefetch(tf.data.AUTOTUNE)
