"""A linear model of a text's words as a folder, linear/ of a run: written, read and asked, without TensorFlow.

config.json names the classes, terms.json has the terms in their order, model.safetensors how rare each of them is, and the
weights. A folder is data, whoever it came from: what does not fit is refused in one line.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors
from scipy.special import softmax
from sklearn.feature_extraction.text import TfidfVectorizer

from common import InputError, reason
from common.files import write_bytes, write_json
from data.model_folders import TERMS, check_entries, classes_of, entries_of, read_json

KIND, WEIGHTS = "tf-idf-linear", "model.safetensors"
LONGEST = 1_000_000  # characters that are looked at of a text, here and while it is fitted: each may be three terms
LARGEST = 1e20  # of a weight that is read: sums of larger ones might not be finite
WORDS = {"ngram_range": (1, 2), "token_pattern": r"(?u)\b\w+\b"}
CHARACTERS = {"analyzer": "char", "ngram_range": (1, 3)}


def vectorizer(characters, **settings):
    """A TfidfVectorizer, not fitted yet, of words and pairs of words, or of 1 to 3 characters. settings: further ones of it"""
    return TfidfVectorizer(sublinear_tf=True, dtype=np.float32, **(CHARACTERS if characters else WORDS), **settings)


def as_one(texts, pairs):
    """Each text as its terms are counted in it: a pair as one, the two joined, and what is endless cut. A list of strings."""
    return [(" ".join(text) if pairs else text)[:LONGEST] for text in texts]


@dataclass(frozen=True)
class LinearModel:
    """A fitted vectorizer of terms, and how far on each class's side of its border their weights put a text."""

    terms: TfidfVectorizer
    weights: np.ndarray  # (terms, borders) float32; between two classes there is one border, else each has its own
    biases: np.ndarray  # (borders,) float32
    learned: np.ndarray  # (classes,) int, those that training texts had, two or more
    classes: list  # names of all, in order
    pairs: bool = False  # whether a text is a pair of texts, which are joined by a space
    inverse_temperature: float = 1.0  # what distances are multiplied by before their softmax

    def counted(self, texts):
        """Their terms, (texts, terms) float32, a sparse matrix. texts: list of strings, or of pairs of strings"""
        return self.terms.transform(as_one(texts, self.pairs))

    def logits(self, texts):
        """Distances from each class's border, (texts, classes) float32; of a class that no training text had -inf.

        texts: list of strings, or of pairs of strings
        """
        distances = self.counted(texts) @ self.weights + self.biases
        if len(self.biases) == 1:
            distances = np.concatenate([-distances, distances], axis=1)
        logits = np.full((len(texts), len(self.classes)), -np.inf, np.float32)
        logits[:, self.learned] = distances
        return logits

    def probabilities(self, texts):
        """softmax(inverse temperature · distances), (texts, classes) float32. texts: as above"""
        return softmax(self.inverse_temperature * self.logits(texts), axis=1)


def save(folder, model):
    """Write a LinearModel to a folder."""
    write_json(folder / "config.json", {
        "model_type": KIND, **entries_of(model.classes),
        "pairs": model.pairs, "inverse_temperature": model.inverse_temperature, "learned": model.learned.tolist(),
    })
    terms = {"characters": model.terms.analyzer == "char", "terms": model.terms.get_feature_names_out().tolist()}
    write_json(folder / TERMS, terms)
    arrays = {"idf": model.terms.idf_, "weights": model.weights, "biases": model.biases}
    content = save_tensors({name: np.ascontiguousarray(value, np.float32) for name, value in arrays.items()})
    write_bytes(folder / WEIGHTS, content)


def load(folder):
    """Read a LinearModel from a folder. Raises InputError if anything is missing, cannot be read, or does not fit."""
    folder = Path(folder)
    for name in ("config.json", TERMS, WEIGHTS):
        if not (folder / name).is_file():
            raise InputError(f"{folder / name} is missing; a linear model has it")
    config, terms = (read_json(folder / name) for name in ("config.json", TERMS))
    check_entries(config, ["inverse_temperature"], folder / "config.json")
    try:
        arrays = load_tensors((folder / WEIGHTS).read_bytes())
    except (SafetensorError, ValueError, KeyError, TypeError) as error:  # the latter for a type that numpy has not
        raise InputError(f"{folder / WEIGHTS}: not a safetensors file of float32 ({reason(error)})") from None
    try:
        return _fitted(config, terms, arrays)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        why = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else reason(error)
        raise InputError(f"{folder}: not a linear model ({why})") from None


def _fitted(config, terms, arrays):
    """The LinearModel of what its files hold; ValueError, KeyError, TypeError or AttributeError if it does not fit."""
    names, characters, learned = terms["terms"], terms["characters"], config["learned"]
    classes = classes_of(config)
    if not (isinstance(names, list) and isinstance(characters, bool)):
        raise ValueError(f"{TERMS}: terms is to be a list, and characters true or false")
    "".join([*classes, *names]).encode()  # they are strings, without halves of surrogate pairs
    whole = len(learned) > 1 and all(type(number) is int for number in learned)
    if not whole or len({*learned} & {*range(len(classes))}) != len(learned):
        raise ValueError(f"learned is to name two or more of its {len(classes)} classes")
    borders = 1 if len(learned) == 2 else len(learned)
    wanted = {"idf": (len(names),), "weights": (len(names), borders), "biases": (borders,)}
    shapes = {name: array.shape for name, array in arrays.items()}
    if shapes != wanted or not all(array.dtype == np.float32 and (abs(array) < LARGEST).all() for array in arrays.values()):
        raise ValueError(f"{WEIGHTS} has {shapes}, expected float32 below {LARGEST:g} of {wanted}")
    counts = vectorizer(characters, vocabulary=names)
    counts.idf_ = arrays["idf"]
    return LinearModel(counts, arrays["weights"], arrays["biases"], np.array(learned), classes, config.get("pairs", False),
                       config["inverse_temperature"])
