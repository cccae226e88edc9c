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
from common.files import write_atomic, write_json
from data.model_folders import TERMS, check_entries, read_json

KIND, WEIGHTS = "tf-idf-linear", "model.safetensors"
WORDS = {"ngram_range": (1, 2), "token_pattern": r"(?u)\b\w+\b"}
CHARACTERS = {"analyzer": "char", "ngram_range": (1, 3)}


def counter(characters, **more):
    """A TfidfVectorizer, not fitted yet, of words and pairs of words, or of 1 to 3 characters. more: for it"""
    return TfidfVectorizer(sublinear_tf=True, dtype=np.float32, **(CHARACTERS if characters else WORDS), **more)


@dataclass(frozen=True)
class LinearModel:
    """A fitted counter of terms, and of each class how far on its side of the border their weights put a text."""

    terms: TfidfVectorizer
    weights: np.ndarray  # (borders, terms) float32; between two classes there is one border, else each has its own
    biases: np.ndarray  # (borders,) float32
    learned: np.ndarray  # (classes,) int, those that training texts had
    classes: list  # names of all, in order
    pairs: bool = False  # whether a text is a pair of texts, which are joined
    sharpness: float = 1.0  # what distances are multiplied by before their softmax

    def logits(self, texts):
        """Distances from each class's border, (texts, classes) float32; of a class that no training text had -inf.

        texts: list of strings, or of pairs of strings
        """
        counted = self.terms.transform([" ".join(text) for text in texts] if self.pairs else texts)
        distances = counted @ self.weights.T + self.biases
        if len(self.biases) == 1:
            distances = np.concatenate([-distances, distances], axis=1)
        logits = np.full((len(texts), len(self.classes)), -np.inf, np.float32)
        logits[:, self.learned] = distances
        return logits

    def probabilities(self, texts):
        """softmax(sharpness · distances), (texts, classes) float32. texts: as above"""
        return softmax(self.sharpness * self.logits(texts), axis=1)


def save(folder, model):
    """Write a LinearModel to a folder."""
    names = dict(enumerate(model.classes))
    write_json(folder / "config.json", {
        "model_type": KIND, "id2label": names, "label2id": {name: number for number, name in names.items()},
        "pairs": model.pairs, "sharpness": model.sharpness, "learned": model.learned.tolist(),
    })
    terms = {"characters": model.terms.analyzer == "char", "terms": model.terms.get_feature_names_out().tolist()}
    write_json(folder / TERMS, terms)
    arrays = {"idf": model.terms.idf_, "weights": model.weights, "biases": model.biases}
    content = save_tensors({name: np.ascontiguousarray(value, np.float32) for name, value in arrays.items()})
    write_atomic(folder / WEIGHTS, lambda file: file.write(content))


def load(folder):
    """Read a LinearModel from a folder. Raises InputError if anything is missing, cannot be read, or does not fit."""
    folder = Path(folder)
    for name in ("config.json", TERMS, WEIGHTS):
        if not (folder / name).is_file():
            raise InputError(f"{folder / name} is missing; a linear model has it")
    config, terms = (read_json(folder / name) for name in ("config.json", TERMS))
    check_entries(config, ["sharpness"], folder / "config.json")
    try:
        arrays = load_tensors((folder / WEIGHTS).read_bytes())
    except (SafetensorError, ValueError) as error:
        raise InputError(f"{folder / WEIGHTS}: not a safetensors file ({reason(error)})") from None
    try:
        counts = counter(terms["characters"] is True, vocabulary=terms["terms"])
        classes = [config["id2label"][str(number)] for number in range(len(config["id2label"]))]
        "".join([*classes, *terms["terms"]]).encode()  # they are strings, without halves of surrogate pairs
        learned, borders = np.array(config["learned"], int), 1 if len(config["learned"]) == 2 else len(config["learned"])
        if len(set(config["learned"]) & {*range(len(classes))}) != len(config["learned"]) or borders < 1:
            raise ValueError(f"learned is not of its {len(classes)} classes")
        shapes = {"idf": (len(terms["terms"]),), "weights": (borders, len(terms["terms"])), "biases": (borders,)}
        found = {name: array.shape for name, array in arrays.items()}
        if found != shapes or any(array.dtype != np.float32 or not np.isfinite(array).all() for array in arrays.values()):
            raise ValueError(f"{WEIGHTS} has {found}, expected finite float32 of {shapes}")
        counts.idf_ = arrays["idf"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        why = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else reason(error)
        raise InputError(f"{folder}: not a linear model ({why})") from None
    pairs = config.get("pairs", False)
    return LinearModel(counts, arrays["weights"], arrays["biases"], learned, classes, pairs, config["sharpness"])
