"""A student, read from its folder and asked by onnxruntime: neither TensorFlow nor anything of the training is needed.

A folder is data, whoever it came from: its graph is taken from memory and has no other files, code in it is never run, and what
does not fit is refused in one line. A teacher is asked in the same way: `export.predict` makes a `Student` of it.
Of the two together see `data.cascades`; a linear model is asked by scikit-learn, see `data.linear_models`.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

from common import InputError, reason
from data import bilstms
from data.bucketing import by_length
from data.cascades import CASCADE, UNCERTAINTY, cascade_of
from data.model_folders import TERMS, check_entries, check_tokenizer, classes_of, read_json, read_tokenizer_file
from data.tokenizing import check_pairs, padded, tokenize

FLOAT32, INT8 = "model.onnx", "model.int8.onnx"
MISSING = {  # what is to be said where one of them is
    FLOAT32: ": older versions wrote a SavedModel alone; start the script of its run again, which writes student/ anew; where "
             f"{INT8} is there, ask with --int8",
    INT8: ": validation did not allow it, or it is a teacher's folder; ask without --int8",
}
INPUTS = dict.fromkeys(("token_ids", "segment_ids"), ("tensor(int32)", 2))  # type and how many axes
OUTPUTS = {"probabilities": ("tensor(float)", 2)}
EXIT_INPUTS = {"speed": ("tensor(float)", 0)}  # of a FastBERT, too
EXIT_OUTPUTS = {"layers_used": ("tensor(int32)", 1), "uncertainty": ("tensor(float)", 1)}
PROMISE = "max_disagreement", "confidence", "texts", "disagreements"  # of a FastBERT, if it has one; see `common.promise`
NEEDED = "vocab_size", "num_hidden_layers", "maxlen", "pad_token_id"  # of config.json
POSITIONS = "max_position_embeddings"  # another of these, unless it is a BiLSTM, which reads texts of any length


@dataclass(frozen=True)
class Student:
    """What a student/ holds, or a teacher that is asked like one."""

    answer: Callable  # its graph: of arrays by name, as of `ask_by`; of a linear model its probabilities, of texts
    tokenizer: Tokenizer | None  # None: a linear model, which reads texts by itself
    classes: list  # names, in order
    config: dict  # entries of config.json; among them NEEDED, for a FastBERT speed; pairs if it reads these
    source: str  # its folder
    teacher: "Student | None" = None  # of a cascade: who is asked where it is unsure; config then has `cascades.ENTRIES`, too

    @property
    def stops_early(self):
        return "speed" in self.config

    @property
    def pairs(self):
        """Whether it reads pairs of texts."""
        return self.config.get("pairs", False)


def load(folder, int8=False):
    """Read the text classifier in a run's folder, its student/ or its linear/, or the cascade in a folder with its two models.

    folder: which
    int8: its graph in int8, instead of that in float32

    Returns a `Student`. Raises InputError if anything is missing, cannot be read, or does not fit.
    """
    folder = Path(folder)
    if (folder / TERMS).is_file():
        return _load_linear(folder, int8)
    if (folder / CASCADE).is_file():
        if int8:
            raise InputError(f"--int8: {folder} is a cascade, whose promise is of {FLOAT32}; ask it without")
        config = _read_cascade(folder / CASCADE)
        linear = (folder / "student" / TERMS).is_file()
        student = _load_linear(folder / "student") if linear else _load_one(folder / "student", in_turn=True)
        return cascade_of(student, _load_one(folder / "teacher", in_turn=True), config)
    return _load_one(folder / "student" if (folder / "student").is_dir() else folder, int8)


def _load_one(folder, int8=False, in_turn=False):
    """`load` for the very folder of one model. in_turn: see `session_of`"""
    if not (folder / "config.json").is_file():
        if (folder / "settings.json").is_file():
            raise InputError(f"{folder}: this run has left no student of texts yet; the same command goes on")
        found = "one that takes images" if (folder / "classes.json").is_file() else "no config.json in it"
        raise InputError(f"{folder}: {found}; expected a run's folder, its student/ or its linear/, with a classifier of texts")
    path = folder / (INT8 if int8 else FLOAT32)
    for file in (folder / "tokenizer.json", path):
        if not file.is_file():
            raise InputError(f"{file} is missing{MISSING.get(file.name, '')}")
    config = _read_config(folder / "config.json")
    tokenizer = read_tokenizer_file(folder / "tokenizer.json")
    tokenizer.no_padding()
    tokenizer.no_truncation()
    ids = check_tokenizer(tokenizer, config["pad_token_id"], config["vocab_size"], config["maxlen"], folder)
    answer = ask_by(session_of(path.read_bytes(), path, in_turn), path, "speed" in config)
    student = Student(answer, tokenizer, classes_of(config), config, str(folder))
    if student.pairs:
        check_pairs(student, config["maxlen"])
    _check_answer(student, path, ids)
    return student


def _load_linear(folder, int8=False):
    """A linear model as a `Student`."""
    from data import linear_models  # which needs scikit-learn: other students do without, and start sooner

    if int8:
        raise InputError(f"--int8: {folder} is a linear model, which has no such form")
    model = linear_models.load(folder)
    return Student(model.probabilities, None, model.classes, {"pairs": model.pairs}, str(folder))


def _read_config(path):
    """The entries of a student's config.json, as a `Student` has them."""
    config = read_json(path)
    positions = [] if config.get("model_type") == bilstms.KIND else [POSITIONS]
    check_entries(config, [*NEEDED, *positions], path)
    if positions and config["maxlen"] > config[POSITIONS]:
        raise InputError(f"{path}: maxlen is {config['maxlen']}, of {config[POSITIONS]} positions")
    with _refused(path, "student"):
        "".join(classes_of(config)).encode()  # they are strings, without halves of surrogate pairs
        if "promise" in config:
            _check_promise(config["promise"])
    return config


def _read_cascade(path):
    """The entries of CASCADE, as `cascade_of` takes them."""
    config = read_json(path)
    check_entries(config, ["threshold"], path)
    with _refused(path, "cascade"):
        if config["criterion"] not in UNCERTAINTY:
            raise ValueError(f"criterion is {config['criterion']!r}, expected {' or '.join(UNCERTAINTY)}")
        _check_promise(config["promise"])
    return config


@contextlib.contextmanager
def _refused(path, kind):
    """A block in which what JSON of another kind causes is an InputError. kind: of what the file is to be"""
    try:
        yield
    except (ValueError, KeyError, TypeError) as error:
        why = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else reason(error)
        raise InputError(f"{path}: not that of a {kind} ({why})") from None


def _check_promise(promise):
    for name in PROMISE:
        if type(promise[name]) not in (int, float):
            raise ValueError(f"{name} of the promise is {promise[name]!r}, expected a number")


def _check_answer(student, path, ids):
    """Raise InputError unless the graph takes these token ids, of one text, and has as many classes as there are names."""
    token_ids, speed = np.array([ids], np.int32), {"speed": np.array(1, np.float32)} if student.stops_early else {}
    try:
        found = student.answer(token_ids=token_ids, segment_ids=np.zeros_like(token_ids), **speed)["probabilities"]
    except InputError as error:
        raise InputError(f"{error}; it was asked {ids}, the last of which is its tokenizer's highest id") from None
    if found.shape != (1, len(student.classes)):
        raise InputError(f"{path}: the model gives probabilities of {found.shape[-1]} classes, config.json names "
                         f"{len(student.classes)}; they are not of one model")


def session_of(model, source, in_turn=False):
    """What asks an ONNX graph on the processor: an onnxruntime.InferenceSession.

    model: bytes of the graph
    source: where they are from, for errors
    in_turn: whether another session is asked in turn with it. Its threads then rest after each call; else they go on spinning
        for a while, ready for the next one, and take the cores from the other model

    Raises InputError if onnxruntime cannot read it, or if it wants to read other files.
    """
    # A tensor may be kept in a file of its own, even one in the working folder. It says in which under the key "location".
    if b"location" in model:
        raise InputError(f"{source}: it keeps weights in other files, which are not read; expected them in the graph itself")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # its exceptions say it
    options.add_session_config_entry("session.load_model_format", "ONNX")  # not its own, which it would take as well
    options.add_session_config_entry("session.force_spinning_stop", str(int(in_turn)))
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its own have no common base
        version = onnxruntime.__version__
        raise InputError(f"{source}: not a graph that onnxruntime {version} can read ({reason(error)})") from None


def ask_by(session, source, stops_early=False):
    """A function that asks a session: token_ids, segment_ids and a FastBERT's speed by name -> {name: array} of the answer.

    session: as of `session_of`
    source: of its graph, for errors
    stops_early: whether it is a FastBERT's

    Raises InputError unless it takes and gives what a student does; the function, if the graph fails.
    """
    wanted = INPUTS | (EXIT_INPUTS if stops_early else {}), OUTPUTS | (EXIT_OUTPUTS if stops_early else {})
    found = [{value.name: (value.type, len(value.shape)) for value in values}
             for values in (session.get_inputs(), session.get_outputs())]
    if found[0] != wanted[0] or not wanted[1].items() <= found[1].items():
        sides = [f"{_in_words(inputs)} to {_in_words(outputs)}" for inputs, outputs in (found, wanted)]
        raise InputError(f"{source}: a graph from {sides[0]}; expected one from {sides[1]}, as a student's is")

    def answer(**inputs):
        try:
            return dict(zip(wanted[1], session.run([*wanted[1]], inputs), strict=True))
        except Exception as error:  # see `session_of`
            raise InputError(f"{source}: the graph cannot compute an answer ({reason(error)})") from None

    return answer


def _in_words(values):
    """Inputs or outputs of a graph: {name: (type, axes)} in words."""
    return ", ".join(f"{name} ({kind}, {axes} axes)" for name, (kind, axes) in values.items()) or "nothing"


def ask(student, texts, speed=None, batch_size=32):
    """What a `Student` answers to texts, in their order: {"probabilities": (texts, classes) float32, for a FastBERT
    "layers_used" (texts,) int32 and "uncertainty" (texts,) float32; for a cascade "answered_by" (texts,) str, "student" or
    "teacher", and "uncertainty", that of the student}.

    student: as `load` reads it
    texts: list of strings, or of pairs of strings where the student reads these; one or more
    speed: of a FastBERT; None takes that of its config
    batch_size: texts of like length that are computed together
    """
    if student.tokenizer is None:
        answers = {"probabilities": student.answer(texts)}
    else:
        answers = _ask_graph(student, texts, student.config.get("speed") if speed is None else speed, batch_size)
    if not student.teacher:
        return answers
    u = UNCERTAINTY[student.config["criterion"]](answers["probabilities"])
    sure = u < student.config["threshold"]  # NaN is not
    unsure = np.flatnonzero(~sure)
    if unsure.size:  # each reads texts in its own way
        answer = ask(student.teacher, [texts[place] for place in unsure], batch_size=batch_size)
        answers["probabilities"][unsure] = answer["probabilities"]
    return answers | {"answered_by": np.where(sure, "student", "teacher"), "uncertainty": u}


def _ask_graph(student, texts, speed, batch_size):
    """What the graph of a `Student` answers. For the parameters see `ask`."""
    *tokens, pad_id = *tokenize(texts, student.tokenizer, student.config["maxlen"]), student.config["pad_token_id"]
    more, answers = {"speed": np.array(speed, np.float32)} if student.stops_early else {}, {}
    for batch in by_length(np.diff(tokens[1]), batch_size):
        token_ids, segment_ids = padded(*tokens, batch, pad_id)
        for name, value in student.answer(token_ids=token_ids, segment_ids=segment_ids, **more).items():
            answers.setdefault(name, np.empty((len(texts), *value.shape[1:]), value.dtype))[batch] = value
    return answers


def promise_in_words(promise, whole="all layers with all tokens"):
    """A promise as one sentence.

    promise: {"max_disagreement" and "confidence", per cent; "texts" that it was calibrated on; "disagreements", how many of
        these are answered otherwise than by the whole}
    whole: what that is
    """
    return (f"with {promise['confidence']:g} % confidence at most {promise['max_disagreement']:g} % of texts like the "
            f"{promise['texts']:,} it was calibrated on are answered otherwise than by {whole} "
            f"({promise['disagreements']:,} of those were)")
