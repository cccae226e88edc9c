"""A student read from its folder, and asked. Nothing of the training is needed."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from common import InputError, reason
from common.backend import tf
from data.berts import read_tokenizer_file
from data.tokenizing import encode_pairs, segment_ids


@dataclass(frozen=True)
class Student:
    """What a student/ holds."""

    answer: Callable  # its graph
    tokenizer: Tokenizer
    classes: list  # names, in order
    config: dict  # entries of config.json; among them maxlen, for a FastBERT speed, and pairs if it reads these

    @property
    def stops_early(self):
        return "speed" in self.config

    @property
    def pairs(self):
        """Whether it reads pairs of texts."""
        return self.config.get("pairs", False)


def load(folder):
    """Read the text classifier in a run's folder or its student/. Raises InputError if anything is missing or does not fit."""
    folder = Path(folder)
    if (folder / "student").is_dir():
        folder = folder / "student"
    if not (folder / "config.json").is_file():
        found = "one that takes images" if (folder / "classes.json").is_file() else "no config.json in it"
        raise InputError(f"{folder}: {found}; expected a run's folder, or its student/, with a classifier of texts")
    for name in ("tokenizer.json", "saved_model/saved_model.pb"):
        if not (folder / name).is_file():
            raise InputError(f"{folder / name} is missing")
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        classes = [config["id2label"][str(i)] for i in range(len(config["id2label"]))]
        vocabulary, maxlen, pad_id = (int(config[key]) for key in ("vocab_size", "maxlen", "pad_token_id"))
    except (ValueError, KeyError, TypeError) as error:
        why = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else error
        raise InputError(f"{folder / 'config.json'}: not that of a student ({why})") from None
    tokenizer = read_tokenizer_file(folder / "tokenizer.json")
    highest = max(tokenizer.get_vocab().values())
    if highest >= vocabulary:
        raise InputError(f"{folder}: the tokenizer's ids go up to {highest}, the model has {vocabulary} embeddings; "
                         "they are not of one model")
    try:
        answer = tf.saved_model.load(str(folder / "saved_model")).signatures["serving_default"]
    except (OSError, KeyError, ValueError, tf.errors.OpError) as error:
        raise InputError(f"{folder / 'saved_model'}: not a readable SavedModel ({reason(error)})") from None
    known = answer.structured_outputs.get("probabilities")
    if known is None or known.shape[-1] != len(classes):
        found = "no probabilities" if known is None else f"probabilities of {known.shape[-1]} classes"
        raise InputError(f"{folder}: the model gives {found}, config.json names {len(classes)}; they are not of one model")
    return student(answer, tokenizer, classes, config, maxlen, pad_id)


def student(answer, tokenizer, classes, config, maxlen, pad_id):
    """A `Student` whose tokenizer cuts texts to `maxlen` tokens and pads them with `pad_id`."""
    tokenizer.enable_truncation(maxlen)
    tokenizer.enable_padding(pad_id=pad_id, pad_token=tokenizer.id_to_token(pad_id), pad_to_multiple_of=8)
    return Student(answer, tokenizer, classes, config)


def ask(student, texts, speed=None):
    """What a `Student` answers to texts: {"probabilities": (texts, classes) float32, for a FastBERT "layers_used" (texts,)
    int32 and "uncertainty" (texts,) float32}.

    student: as `load` reads it
    texts: list of strings, or of pairs of strings where the student reads these
    speed: of a FastBERT; None takes that of its config
    """
    if student.pairs:
        inputs = _pair_inputs(student, texts)
    else:
        ids = tf.constant([encoding.ids for encoding in student.tokenizer.encode_batch_fast(texts)], tf.int32)
        inputs = {"token_ids": ids, "segment_ids": tf.zeros_like(ids)}
    if student.stops_early:
        inputs["speed"] = tf.constant(student.config["speed"] if speed is None else speed, tf.float32)
    return {name: value.numpy() for name, value in student.answer(**inputs).items()}


def _pair_inputs(student, pairs):
    """{"token_ids", "segment_ids"} of pairs of texts, (pairs, tokens) int32 each."""
    ids, first_segments = zip(*encode_pairs(pairs, student.tokenizer, student.config["maxlen"]), strict=True)
    lengths = np.array([*map(len, ids)])
    token_ids = np.full((len(ids), -(-lengths.max() // 8) * 8), student.config["pad_token_id"], np.int32)
    for row, own in zip(token_ids, ids, strict=True):
        row[: len(own)] = own
    segments = segment_ids(np.array(first_segments), lengths, token_ids.shape[1])
    return {"token_ids": tf.constant(token_ids), "segment_ids": tf.constant(segments)}
