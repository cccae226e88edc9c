"""Ask the student of a finished run, a teacher or a cascade: `python -m common.predict`. Nothing is trained or written here.

All are asked by onnxruntime, a linear model by scikit-learn: a command that answers two texts cannot wait for TensorFlow.
"""

import sys
from dataclasses import replace
from json import dumps, loads
from pathlib import Path

import numpy as np
import tyro
from tqdm import tqdm

from common import InputError, errors_in_one_line, utf8_output, visible
from common.parsing import deferred, parse
from data.model_folders import TERMS, check_tokenizer, read_json
from data.rows import STRAY, SUFFIXES, SURROGATE, as_text, decoded, lines_of, rows_of, stray_quotes, suffix_of, texts_of
from data.students import FLOAT32, INT8, Student, ask, ask_by, load, promise_in_words, session_of
from data.texts import in_one_line
from data.tokenizing import check_pairs, slices

CHUNK_SIZE = 4096, 10_000_000  # texts that are sorted by length together, or characters of them


def predict(
    folder: tyro.conf.Positional[str],
    texts: tyro.conf.Positional[tuple[str, ...]] = (),
    /,
    file: str = "",
    top: int = 1,
    all: bool = False,
    speed: float | None = None,
    int8: bool = False,
    json: bool = False,
    pairs: bool = False,
    maxlen: int = 0,
    batch_size: int = 32,
) -> None:
    """Label texts with the student of a finished run, or with a teacher: a line each, in their order.

    Args:
        folder: a run's folder, its student/ or linear/, a classifier that --teacher of the scripts takes, or a cascade of
            common.cascade
        texts: the texts; without any, those of --file or of standard input, a text a line; a pair of texts is JSON, or two with
            a tab between; answers come when the input ends, or after 4,096 lines
        file: a file of texts, UTF-8, plain or .gz: of one that ends as data does, in .jsonl, .csv or .tsv, the fields of texts,
            of any other each line
        top: how many labels to tell, the most probable first
        all: with --json: the probabilities of all labels, as --soft-labels of knowledge_distillation_bert.py reads them
        speed: of a FastBERT, from 0 (all layers) to 1; without it that which was chosen after training
        int8: of a student, ask model.int8.onnx, smaller and mostly faster; texts that are computed together are rounded on one
            scale, so that the answer to one then depends a little on the others
        json: tell it as JSON, an object a line
        pairs: of a teacher, whose folder does not say it: it reads pairs of texts
        maxlen: of a teacher: tokens a text is cut to; 0: as in its training here, or as many as it has positions
        batch_size: texts that are computed together
    """
    if top < 1 or batch_size < 1:
        raise InputError(f"{'--top' if top < 1 else '--batch-size'}: must be 1 or more")
    if maxlen and maxlen < 3:
        raise InputError(f"--maxlen {maxlen}: must be 3 or more")
    if texts and file:
        raise InputError(f"--file {file}: give texts or a file of them, not both")
    for text in texts:
        if SURROGATE.search(text):
            raise InputError(f"{text!r}: not UTF-8; give such texts in a file, converted")
    if all and not json:
        raise InputError("--all: is for --json")
    teacher = is_teacher(folder)
    if (pairs or maxlen) and not teacher:
        raise InputError(f"{'--pairs' if pairs else '--maxlen'}: is for teachers; {folder} says itself what it reads")
    if int8 and teacher:
        raise InputError(f"--int8: is for students; {folder} is a teacher's")
    student = load_teacher(folder, pairs, maxlen) if teacher else load(folder, int8)
    if speed is not None and not student.stops_early:
        raise InputError(f"--speed {speed:g}: {folder} has no early exit; only a FastBERT has")
    if speed is not None and not 0 <= speed <= 1:
        raise InputError(f"--speed {speed:g}: must be from 0 to 1")
    top, told = len(student.classes) if all else top, []
    column = "layers_used" if student.stops_early else "answered_by" if student.teacher else None  # that the last line sums up
    width = max(len(visible(name)) for name in student.classes)
    hidden = not file or (sys.stdout and sys.stdout.isatty()) or None  # it would stand among the answers; None: as stderr is
    with tqdm(desc="texts", unit="", disable=hidden, leave=False) as bar:
        remaining = of_lines(enumerate(texts, 1), student.pairs, "text") if texts else read(file, student.pairs)
        for some in slices(remaining, *CHUNK_SIZE):
            for text, answer in zip(some, answers(student, some, top, speed, batch_size), strict=True):
                if all:
                    labels = answer.pop("labels")
                    answer = {"probabilities": {label["label"]: label["probability"] for label in labels}} | answer
                said = dict(zip(("text", "text_pair"), text if student.pairs else (text,), strict=False)) | answer
                print(visible(dumps(said, ensure_ascii=False)) if json else as_columns(student, text, answer, width))
                told += [answer[column]] if column else []
            bar.update(len(some))
    if told:  # apart from the answers, of which each has a line
        words = summary(student, told, speed, int8) if student.stops_early else cascade_summary(student, told)
        print(words, file=sys.stderr)


def is_teacher(folder):
    """Whether a folder is a classifier's as others lay it out: a BERT's, and neither a run's nor a student's.

    Others have graphs beside the weights, too, which have other inputs: a student's config.json says what it is cut to.
    """
    path = Path(folder)
    files = {file.name for file in path.iterdir()} if path.is_dir() else set()
    if "bert_config.json" in files or files.isdisjoint({FLOAT32, INT8, "saved_model", TERMS}):
        return not files.isdisjoint({"config.json", "bert_config.json"})
    return "config.json" in files and TERMS not in files and "maxlen" not in read_json(path / "config.json")


def load_teacher(folder, pairs=False, maxlen=0):
    """A fine-tuned classifier as a `Student`, its graph built in memory. For the parameters see `predict`."""
    return opened(*read_teacher(folder, pairs, maxlen))


def opened(student, graph, in_turn=False):
    """A `Student` that can be asked, of one whose answer is None and the bytes of its graph. in_turn: see `session_of`"""
    return replace(student, answer=ask_by(session_of(graph, student.source, in_turn), student.source, student.stops_early))


def read_teacher(folder, pairs=False, maxlen=0, wanted=()):
    """What `opened` takes of a fine-tuned classifier. wanted: see `teachers.named`; for the other parameters see `predict`."""
    from data import teachers
    from export.onnx_graph import text_graph  # which needs the package onnx: students do without, and start sooner

    bert, classes = teachers.read(folder, maxlen=maxlen)
    positions = bert.config["max_position_embeddings"]
    own = bert.config.get("maxlen", positions)
    maxlen = maxlen or min(own, positions)
    check_tokenizer(bert.tokenizer, bert.pad_id, bert.config["vocab_size"], maxlen, folder)
    config = bert.config | {"maxlen": maxlen, "pad_token_id": bert.pad_id, "pairs": pairs or bert.config.get("pairs", False)}
    config.pop("speed", None)  # it has no exits, whatever its config says
    if config["pairs"]:
        check_pairs(bert, maxlen)
    classes = classes if "maxlen" in bert.config else teachers.named(classes, wanted)  # ours have the names of the data
    return Student(None, bert.tokenizer, classes, config, folder), text_graph(bert).SerializeToString()


def read(file, pairs):
    """The texts of a file, or of standard input: a string each, or a pair of them as a tuple.

    file: a path; of JSON lines and of tables the fields that hold texts, of any other each line; "": standard input, as lines
    pairs: whether pairs are wanted

    Raises InputError for a line that is not UTF-8, or not what a data set has.
    """
    if not file and (sys.stdin is None or sys.stdin.isatty()):
        raise InputError("no text: give texts, --file FILE, or lines on standard input")
    path = Path(file or "standard input")
    if file and (not path.exists() or path.is_dir()):
        raise InputError(f"--file {file}: there is no such file")
    if file and suffix_of(path) in SUFFIXES:
        return of_rows(path, pairs)
    lines = lines_of(path) if file else decoded(sys.stdin.buffer, path)
    return of_lines(((number, text.rstrip("\r\n")) for number, text in lines), pairs, f"{path}, line")


def of_rows(path, pairs):
    """The text of each row of a file of data, or its pair of texts."""
    joins_rows = stray_quotes(path)
    for number, row in rows_of(path):
        where = f"{path}, line {number}"
        texts = texts_of(row, where)
        if joins_rows(texts):
            print(visible(f"{where}: {STRAY}"), file=sys.stderr)
        if (len(texts) > 1) != pairs:
            raise InputError(f"{where}: {'one text; two are' if pairs else 'two texts; one is'} expected")
        yield as_text(texts)


def of_lines(lines, pairs, source):
    """The text of each line (number, string), or its pair of texts: JSON with the fields of data, or two with a tab between.

    source: what a line's number is to follow in errors
    """
    for number, text in lines:
        if pairs:
            try:
                row = loads(text)
            except (ValueError, RecursionError):
                row = None
            text = tuple(texts_of(row, f"{source} {number}") if isinstance(row, dict) else text.split("\t"))
            if len(text) != 2 or not all(map(str.strip, text)):
                raise InputError(f"{source} {number}: expected two texts, {{'text': …, 'text_pair': …}} or with a tab between")
        yield text


def answers(student, texts, top, speed, batch_size):
    """What the student says of each text, one by one: {"labels": [{"label", "probability"}]}, and what else `ask` gives of it.

    For the parameters see `predict`.
    """
    outputs = ask(student, texts, speed, batch_size)
    probabilities = outputs.pop("probabilities")
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
    for place, (p, labels) in enumerate(zip(probabilities, best, strict=True)):
        told = [{"label": student.classes[label], "probability": float(p[label])} for label in labels]
        yield {"labels": told} | {name: values[place].item() for name, values in outputs.items()}


def as_columns(student, text, answer, width):
    """An answer as aligned columns: labels and probabilities; of a FastBERT the layer, of a cascade the model that answered, of
    either the uncertainty; the text's beginning. width: of the column of labels"""
    cells = [f"{visible(label['label']):<{width}} {label['probability']:6.1%}" for label in answer["labels"]]
    if "layers_used" in answer:
        cells.append(f"layer {answer['layers_used']:>2} of {student.config['num_hidden_layers']}")
    if "answered_by" in answer:
        cells.append(answer["answered_by"])
    if "uncertainty" in answer:
        cells.append(f"uncertainty {answer['uncertainty']:.3f}")
    return "  ".join([*cells, in_one_line(text)])


def summary(student, layers, speed, int8):
    """How early texts left a FastBERT, and what is promised of its answers, in a line.

    layers: how many were computed for each text
    speed: at which it was asked, unless it is its own
    int8: whether it was its graph in int8
    """
    own, promise = student.config["speed"], student.config.get("promise")
    mean, depth = np.mean(layers), student.config["num_hidden_layers"]
    line = f"{len(layers):,} text{'s' * (len(layers) > 1)}, {mean:.2f} of {depth} layers on average at speed "
    line += f"{own if speed is None else speed:g}"
    if not promise:
        return line
    if int8 or speed not in (None, own):
        return f"{line}; nothing is promised but of {FLOAT32} at its own speed, {own:g}"
    return f"{line}; {promise_in_words(promise)}"


def cascade_summary(student, answered_by):
    """How many texts the teacher of a cascade answered, and what is promised of its answers, in a line.

    answered_by: "student" or "teacher" for each text
    """
    texts, asked = len(answered_by), answered_by.count("teacher")
    return (f"{texts:,} text{'s' * (texts > 1)}, {asked:,} ({asked / texts:.1%}) answered by the teacher; "
            f"{promise_in_words(student.config['promise'], 'the teacher')}")


def start():
    """Run the command: `predict` with what stands on the command line."""
    utf8_output()
    with errors_in_one_line("stopped"):
        parse(tyro.cli, deferred(predict), prog="python -m common.predict")()
