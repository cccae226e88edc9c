"""python -m common.predict runs/… "text" …: what a student answers to texts.

From the command line, from a file or from standard input, a text a line; the student comes out of a run's folder, or its
student/. Nothing of the training is needed.
"""

import itertools
import json
import os
import sys
from pathlib import Path

import numpy as np
import tyro
from tqdm import tqdm

from common import InputError, data, export
from common.command import ending_in_one_line

AT_ONCE = 4096  # texts that are sorted by length together


def predict(
    folder: tyro.conf.Positional[str],
    texts: tyro.conf.Positional[tuple[str, ...]] = (),
    /,
    file: str = "",
    top: int = 1,
    speed: float | None = None,
    json: bool = False,
    batch_size: int = 32,
) -> None:
    """Label texts with the student of a finished run: a line each, in their order.

    Args:
        folder: a run's folder, or its student/
        texts: the texts; without any, those of --file or of standard input, a text a line
        file: a file of texts, UTF-8, plain or .gz
        top: how many labels to tell, the most probable first
        speed: of a FastBERT, from 0 (as its teacher) to 1; without it that which was chosen after training
        json: tell it as JSON, an object a line
        batch_size: texts that are computed together
    """
    if top < 1 or batch_size < 1:
        raise InputError(f"{'--top' if top < 1 else '--batch-size'}: must be 1 or more")
    if texts and file:
        raise InputError(f"--file {file}: give texts or a file of them, not both")
    for text in texts:
        if data.SURROGATE.search(text):
            raise InputError(f"{text!r}: not UTF-8; give such texts in a file, converted")
    student = export.load(folder)
    if speed is not None and not student.stops_early:
        raise InputError(f"--speed {speed:g}: {folder} has no early exit; only a FastBERT has")
    if speed is not None and not 0 <= speed <= 1:
        raise InputError(f"--speed {speed:g}: must be from 0 to 1")
    write = as_json if json else as_columns
    given = texts or read(file)
    with tqdm(desc="texts", unit="", disable=None if file else True, leave=False) as bar:
        for some in chunks(given):
            for text, answer in zip(some, answers(student, some, top, speed, batch_size), strict=True):
                print(write(student, text, answer))
            bar.update(len(some))
    sys.stdout.flush()


def read(file):
    """The lines of a file, or of standard input. Raises InputError for one that is not UTF-8."""
    if not file:
        if sys.stdin.isatty():
            raise InputError("no text: give texts, --file FILE, or lines on standard input")
        return (text.rstrip("\r\n") for _, text in data.decoded(sys.stdin.buffer, Path("standard input")))
    if not Path(file).exists() or Path(file).is_dir():
        raise InputError(f"--file {file}: there is no such file")
    return (text.rstrip("\r\n") for _, text in data.lines_of(Path(file)))


def chunks(texts):
    """Lists of AT_ONCE texts."""
    texts = iter(texts)
    while some := list(itertools.islice(texts, AT_ONCE)):
        yield some


def answers(student, texts, top, speed, batch_size):
    """What the student says of each text: {"labels": [{"label", "probability"}], a FastBERT "layers_used", "uncertainty" too}.

    Texts of like length are computed together.
    """
    found = [None] * len(texts)
    for rows in data.by_length(np.array([len(text) for text in texts]), batch_size):
        told = export.ask(student, [texts[row] for row in rows], speed)
        best = np.argsort(-told["probabilities"], axis=1, kind="stable")[:, :top]
        for place, row in enumerate(rows):
            labels = [
                {"label": student.classes[label], "probability": float(told["probabilities"][place, label])}
                for label in best[place]
            ]
            more = {name: told[name][place].item() for name in ("layers_used", "uncertainty") if name in told}
            found[row] = {"labels": labels} | more
    return found


def as_json(student, text, answer):
    """An answer as a line of JSON."""
    return json.dumps({"text": text} | answer, ensure_ascii=False)


def as_columns(student, text, answer):
    """An answer as aligned columns: labels with their probabilities, the layer a FastBERT stopped at, the text's beginning."""
    width = max(map(len, student.classes))
    cells = [f"{label['label']:<{width}} {label['probability']:6.1%}" for label in answer["labels"]]
    if "layers_used" in answer:
        cells.append(f"layer {answer['layers_used']:>2} of {student.config['num_hidden_layers']}")
    text = " ".join(text.split())
    return "  ".join([*cells, text if len(text) <= 60 else f"{text[:59]}…"])


if __name__ == "__main__":
    if not sys.stdout.isatty():  # for a file or a pipe, as what is read
        sys.stdout.reconfigure(encoding="utf-8")
    with ending_in_one_line("stopped"):
        try:
            tyro.cli(predict, prog="python -m common.predict")
        except BrokenPipeError:  # whoever read the answers has enough of them, as `head` has
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
