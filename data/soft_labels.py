"""What some other model, or a crowd, said of the texts: soft labels from a file of JSON lines, matched to the data by text.

    {"text": "…", "probabilities": [0.1, 0.9]}  in the order of the classes: by number if all are numbers, else by name
    {"text": "…", "logits": {"negative": -1.3, "positive": 0.4}}
    {"text": "…", "text_pair": "…", "logits": [0.1, 2.0]}  of a pair of texts
"""

import sys
from pathlib import Path

import numpy as np

from common import InputError
from data.rows import as_text, json_rows, texts_of
from data.texts import in_one_line

KINDS = ("probabilities", "logits")
LARGEST = sys.float_info.max  # infinity and NaN are not below it, nor are whole numbers that no float can hold
LARGEST_LOGIT = 1e4  # of which the squares can still be summed; e to its negative is 0 in any float
ROUNDING = 0.01  # that a sum of probabilities may be off 1: files round


def load(path, corpus):
    """What a file says of the texts of a corpus; lines with other texts are passed over.

    Read line by line: beside the result it takes at most `texts.MEMORY` bytes for each byte of the file.

    path: of JSON lines; a name that ends in .gz is unpacked
    corpus: the `texts.Corpus`

    Returns logits (texts, classes) float32, NaN where the file has no such text. Probabilities p are given as log p, which a
    temperature softens to p^(1/T), scaled to sum to 1. Raises InputError with file and line for what cannot be used.
    """
    places, lines, number = {}, {}, 0
    for index, text in enumerate(corpus.texts):
        places.setdefault(text, []).append(index)
    logits = np.full((len(corpus.texts), len(corpus.classes)), np.nan, np.float32)
    for number, row in json_rows(Path(path)):
        where = f"{path}, line {number}"
        text = as_text([part.strip() for part in texts_of(row, where)])
        answer = _logits_of(row, corpus.classes, where)
        if text in places:
            if text in lines and not np.allclose(answer, logits[places[text][0]], rtol=1e-3, atol=1e-3):
                raise InputError(f"{where}: this text stands in line {lines[text]} already, with another answer")
            lines[text] = number
            logits[places[text]] = answer
    if not number:
        raise InputError(f"{path}: no line in it; expected JSON lines with 'text' and {' or '.join(map(repr, KINDS))}")
    return logits


def _logits_of(row, classes, where):
    """The logits (classes,) float64 that a line gives."""
    kinds = [kind for kind in KINDS if kind in row]
    if len(kinds) != 1:
        raise InputError(f"{where}: {' and '.join(kinds) or 'neither of ' + ' and '.join(KINDS)}; expected one of the two")
    kind, values = kinds[0], row[kinds[0]]
    if isinstance(values, dict):
        missing = [name for name in classes if name not in values]
        if missing or len(values) > len(classes):
            others = [name for name in values if name not in classes]
            what = f"no {missing[0]!r} among the {kind}" if missing else f"{others[0]!r} among the {kind}"
            raise InputError(f"{where}: {what}; the classes of the data are {', '.join(map(repr, classes))}"[:300])
        values = [values[name] for name in classes]
    if not isinstance(values, list) or len(values) != len(classes):
        found = f"{len(values)} of them" if isinstance(values, list) else "something else"
        raise InputError(f"{where}: {kind} must be a list or an object of {len(classes)} numbers, one a class, found {found}")
    if not all(isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= LARGEST for value in values):
        raise InputError(f"{where}: {kind} must be finite numbers, found {values}"[:200])
    values = np.array(values, np.float64)
    if kind == "logits":
        return np.maximum(values - values.max(), np.finfo(np.float32).min)  # the same distribution, and all are float32s
    if values.min() < 0:
        raise InputError(f"{where}: a probability is negative, {values.min():g}")
    if abs(values.sum() - 1) > ROUNDING:
        raise InputError(f"{where}: the probabilities sum to {values.sum():g}, not to 1")
    with np.errstate(divide="ignore"):
        return np.log(values)


def as_logits(path, logits, texts, indices):
    """Logits (texts, classes) float32 of some texts, to be learned as they are rather than as distributions.

    What `load` gives are logits but for a constant of each text, which no distribution shows; here their mean is 0. InputError
    if one is missing, or is not finite: of a probability of 0 there is no logit.

    For the parameters see `check_complete`.
    """
    check_complete(path, logits, texts, indices)
    chosen = logits[indices].astype(np.float64)
    with np.errstate(invalid="ignore"):  # infinity less infinity is none of the numbers below
        chosen -= chosen.mean(axis=-1, keepdims=True)
    if len(wrong := np.flatnonzero(~(np.abs(chosen) < LARGEST_LOGIT).all(axis=-1))):
        raise InputError(f"{path}: a probability is 0, or nearly, for {in_one_line(texts[indices[wrong[0]]])!r}, so its logits "
                         "cannot be learned; --bilstm-loss kl learns probabilities")
    return chosen.astype(np.float32)


def check_complete(path, logits, texts, indices):
    """Raise InputError unless there is an answer to each of some texts.

    path: of the file
    logits: what `load` made of it
    texts: of the corpus
    indices: (texts,) int, which of them are learned from
    """
    missing = indices[np.isnan(logits[indices]).any(axis=-1)]
    if len(missing):
        raise InputError(f"{path}: no soft labels for {len(missing):,} of the {len(indices):,} texts to learn from, among them "
                         f"{in_one_line(texts[missing[0]])!r}")
