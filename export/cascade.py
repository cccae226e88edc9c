"""Put a teacher behind a student, to be asked for the texts that the student is unsure of: `python -m common.cascade`.

A cascade of two whole models (CascadeBERT: Li et al. 2021, arXiv 2012.14682). How sure is sure enough is tested on texts
without labels, and promised as the speed of a FastBERT is (see `common.promise`). Nothing is trained.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import tyro
from tqdm import tqdm

from common import InputError, errors_in_one_line, utf8_output
from common.files import atomic_folder, write_bytes, write_json, write_text
from common.parsing import deferred, parse
from common.promise import fastest_kept, needed
from data.cascades import CASCADE, UNCERTAINTY, cascade_of
from data.model_folders import entries_of
from data.rows import SUFFIXES, rows_of, suffix_of
from data.students import FLOAT32, PROMISE, ask, load, promise_in_words
from export.predict import is_teacher, opened, read, read_teacher
from export.timing import turns
from report.tables import WORTHWHILE, aligned

TIMED = {1: 64, 32: 4}  # texts that are asked together: how many such batches are timed
TOGETHER = {1: "for one text", 32: "for 32 together"}
CHUNK_SIZE = 256  # texts between two steps of a progress bar


def build(
    student: tyro.conf.Positional[str],
    teacher: tyro.conf.Positional[str],
    /,
    file: str,
    max_disagreement: float = 1.0,
    confidence: float = 95.0,
    criterion: Literal["confidence", "entropy"] = "confidence",
    beside: str = "",
    output: str = "",
    pairs: bool = False,
    maxlen: int = 0,
) -> None:
    """A cascade: a student answers the texts that it is sure of, its teacher the rest. Measures what that gains.

    Args:
        student: what `python -m common.predict` takes, a linear model, too; no FastBERT, which stops early by itself
        teacher: the same, but no linear model; a FastBERT with all its layers; of a run it is the folder teacher/ in it
        file: texts that neither has learned from, like those that will be asked; formats as of common.predict. Labels are not
            needed; if every line of a .jsonl, .csv or .tsv has one, accuracies are told, too
        max_disagreement: per cent of such texts that may be answered otherwise than by the teacher
        confidence: per cent, with which this is promised
        criterion: what the student's uncertainty is of: the highest probability, or the entropy of all
        beside: one more model, such as the FastBERT of this teacher, at its own speed: counted and timed in the same table
        output: a folder to write, which `python -m common.predict` takes; without it nothing is written
        pairs: of a classifier whose folder does not say it: it reads pairs of texts
        maxlen: of a classifier that is no student: tokens a text is cut to; 0: as its folder says, or as it has positions
    """
    folders = [student, teacher, *filter(None, [beside])]
    check(folders, max_disagreement, confidence, output, pairs, maxlen)
    models = [read_model(student, pairs, maxlen)]
    models += [read_model(folder, pairs, maxlen, models[0][0].classes) for folder in folders[1:]]
    sources = [Path(model.source) for model, _ in models]
    if sources[0].samefile(sources[1]):
        raise InputError(f"{sources[0]}: student and teacher are one model; a run's teacher is in its folder teacher/")
    config = {"threshold": 0.0, "criterion": criterion, "promise": None}
    if models[1][0].tokenizer is None:
        raise InputError(f"{teacher}: a linear model; as the teacher of a cascade a model with a graph")
    both, *_ = (cascade_of(models[0][0], whole, config) for whole, _ in models[1:])  # if they go together
    texts, labels = [*read(file, both.pairs)], labels_in(file, both.classes)
    if labels is None:
        texts = [text for text in texts if both.pairs or text.strip()]  # a blank line is none
    least = needed(max_disagreement, confidence)
    if len(texts) < least:
        raise InputError(f"--max-disagreement {max_disagreement:g} --confidence {confidence:g}: there are {len(texts):,} texts "
                         f"in {file}, and {least:,} are needed at least")
    p = {name: probabilities(make(), texts, name) for name, make in ways(models, config).items() if name != "cascade"}
    answers, u = {name: each.argmax(axis=-1) for name, each in p.items()}, UNCERTAINTY[criterion](p["student"])
    threshold, disagreements = highest_kept(u, answers["student"] != answers["teacher"], max_disagreement, confidence)
    promise = dict(zip(PROMISE, (max_disagreement, confidence, len(texts), disagreements), strict=True))
    config |= {"threshold": threshold, "promise": promise}
    answers["cascade"] = np.where(u < threshold, answers["student"], answers["teacher"])
    if beside:
        order = [models[2][0].classes.index(name) for name in both.classes]
        answers["beside"] = p["beside"][:, order].argmax(axis=-1)
    asked = {"teacher": 1.0, "student": 0.0, "cascade": 1 - (u < threshold).mean()}
    ms = milliseconds(ways(models, config), texts, u)
    where = f"threshold {threshold:.3g}" if threshold else "no threshold keeps it, so the teacher answers always"
    print(f"{verdict(ms)}\n\n{aligned(table(answers, labels, asked, ms))}\n\n"
          f"{where}: {promise_in_words(promise, 'the teacher')}")
    if output:
        write(Path(output), models[:2], config)
        print(f"\n{output}: python -m common.predict {output} --file {file}")


def check(folders, max_disagreement, confidence, output, pairs, maxlen):
    """Raise InputError for settings of `build` that cannot be, before anything is read."""
    for flag, share in (("max-disagreement", max_disagreement), ("confidence", confidence)):
        if not 0.001 <= share <= 99.999:
            raise InputError(f"--{flag} {share:g}: must be from 0.001 to 99.999, per cent")
    if maxlen and maxlen < 3:
        raise InputError(f"--maxlen {maxlen}: must be 3 or more")
    if (pairs or maxlen) and not any(map(is_teacher, folders)):
        flag, models = "--pairs" if pairs else "--maxlen", " and ".join(folders)
        raise InputError(f"{flag}: is for teachers; {models} say themselves what they read")
    if output and Path(output).exists() and not (Path(output).is_dir() and not any(Path(output).iterdir())):
        raise InputError(f"--output {output}: there is something already; expected a new folder or an empty one")


def read_model(folder, pairs, maxlen, classes=()):
    """What `ready` takes of a student or a teacher: (a `Student`, the bytes of its graph, or what it is if it is linear).

    classes: of the model that it goes with
    """
    if is_teacher(folder):
        return read_teacher(folder, pairs, maxlen, classes)
    model = load(folder)
    if model.teacher:
        raise InputError(f"{folder}: a cascade; expected one model")
    if model.tokenizer is None:
        from data import linear_models  # which needs scikit-learn: other students do without

        linear = linear_models.load(model.source)
        return replace(model, answer=linear.probabilities), linear
    return replace(model, answer=None), Path(model.source, FLOAT32).read_bytes()


def ready(model, graph, in_turn=False):
    """A `Student` that can be asked, of what `read_model` gives. in_turn: see `data.students.session_of`"""
    return opened(model, graph, in_turn) if isinstance(graph, bytes) else model


def labels_in(file, classes):
    """The labels of a file of data as numbers of classes, (texts,) int; None if it is another or a line has none."""
    if suffix_of(Path(file)) not in SUFFIXES:
        return None
    rows = [(line, row.get("label")) for line, row in rows_of(Path(file))]
    if any(label in (None, "") for _, label in rows):
        return None
    numbers = {name: number for number, name in enumerate(classes)}
    for line, label in rows:
        if str(label).strip() not in numbers:
            raise InputError(f"{file}, line {line}: the label {label!r} is none of the {len(classes)} classes")
    return np.array([numbers[str(label).strip()] for _, label in rows])


def ways(models, config):
    """{"teacher", "student", "cascade", "beside": () -> `Student` that can be asked}.

    models: as of `read_model`: student, teacher and, if it is wanted, the model beside them
    """
    (student, student_graph), (teacher, teacher_graph), *others = models
    found = {
        "teacher": lambda: cascade_of(student, ready(teacher, teacher_graph), config).teacher,  # with its classes in order
        "student": lambda: ready(student, student_graph),
        "cascade": lambda: cascade_of(ready(student, student_graph, True), ready(teacher, teacher_graph, True), config),
    }
    return found | ({"beside": partial(ready, *others[0])} if others else {})


def probabilities(model, texts, name):
    """What a `Student` answers, (texts, classes) float32. name: of its progress bar"""
    starts = tqdm(range(0, len(texts), CHUNK_SIZE), desc=name, unit="", disable=None, leave=False)
    return np.concatenate([ask(model, texts[start : start + CHUNK_SIZE])["probabilities"] for start in starts])


def highest_kept(u, others, max_disagreement, confidence):
    """(the highest threshold that keeps a promise, how many texts are answered otherwise there).

    Of all numbers from 0 to 1 that a threshold can be, from 0 on, each is tested at the whole confidence, up to the first that
    fails (see `common.promise`). How many texts are answered otherwise changes only where u of one of them is passed: so these
    are the only ones to look at.

    u: the student's uncertainty, (texts,), as many as are `needed`
    others: of which texts it has another answer than the teacher, (texts,) bool
    max_disagreement, confidence: as of `common.promise.keeps`
    """
    limits = np.append(np.sort(u[others & (u < 1)]), 1.0)  # up to the i-th, i texts are answered otherwise; NaN never is
    limit = limits[fastest_kept(np.arange(len(limits)), len(u), max_disagreement, confidence)]
    sure = u < limit
    if not sure.any():
        return 0.0, 0
    # Half-way down to the next text, so that rounding, which depends on what else is in a batch, does not move one across.
    threshold = float((u[sure].max() + limit) / 2)
    return threshold, int((others & (u < threshold)).sum())


def milliseconds(makers, texts, u):
    """Of each of `ways` the milliseconds from texts to answers: {name: {1: one text, 32: so many together}}.

    texts: of which those that are timed are taken evenly from the surest to the least sure, so that the teacher is asked for
        the share of them that it is asked for of all
    u: (texts,)
    """
    order, rng, found = np.argsort(u, kind="stable"), np.random.default_rng(0), {name: {} for name in makers}
    makers = {name: lambda make=make: partial(ask, make()) for name, make in makers.items()}
    for size, count in TIMED.items():
        places = order[((np.arange(size * count) + 0.5) / (size * count) * len(texts)).astype(int)]
        batches = [[texts[place] for place in some] for some in rng.permutation(places).reshape(count, size)]
        for name, seconds in turns(makers, batches, rounds=1).items():
            found[name][size] = 1000 * seconds.mean()
    return found


def verdict(ms):
    """Whether the cascade is faster than the teacher, in a line. ms: of `milliseconds`"""
    times = {size: ms["teacher"][size] / ms["cascade"][size] for size in TOGETHER}
    slow = [f"{three_digits(ms['cascade'][size])} ms {words}, the teacher alone {three_digits(ms['teacher'][size])}"
            for size, words in TOGETHER.items() if times[size] < WORTHWHILE]
    fast = [f"{times[size]:.1f} {words}" for size, words in TOGETHER.items() if times[size] >= WORTHWHILE]
    said = [f"does not pay here: the cascade takes {'; '.join(slow)}"] if slow else []
    return "; ".join([*said, f"times as fast as the teacher: {', '.join(fast)}"] if fast else said)


def table(answers, labels, asked, ms):
    """Rows for `aligned`: a model each.

    answers: {name: (texts,) int}, teacher, student, cascade and, if there is one, beside
    labels: (texts,) int, or None
    asked: {name: share of texts that the teacher is asked for}; not of beside
    ms: of `milliseconds`
    """
    header = ["model", "other answers", "%", "teacher asked %", "ms @1", "ms @32", "x @1", "x @32"]
    rows = [header + ([] if labels is None else ["accuracy %"])]
    for name in sorted(answers, key=("teacher", "student", "cascade", "beside").index):
        others = answers[name] != answers["teacher"]
        share = f"{100 * asked[name]:.1f}" if name in asked else ""
        rows.append([name, f"{others.sum():,}", f"{100 * others.mean():.2f}", share,
                     *(three_digits(ms[name][size]) for size in TIMED),
                     *(f"{ms['teacher'][size] / ms[name][size]:.1f}" for size in TIMED),
                     *([] if labels is None else [f"{100 * (answers[name] == labels).mean():.2f}"])])
    return rows


def three_digits(ms):
    """Milliseconds as a cell: "0.123", "12.3", "1,230"."""
    return f"{float(f'{ms:.3g}'):,g}"


def write(folder, models, config):
    """Write a cascade to `folder`, and read it again, so that nothing is left there that would be refused.

    models: as of `read_model`, student and teacher
    config: as of `data.cascades.cascade_of`
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(folder) as new:
        for name, (model, graph) in zip(("student", "teacher"), models, strict=True):
            if model.tokenizer is None:
                from data import linear_models

                (new / name).mkdir()
                linear_models.save(new / name, graph)
                continue
            model.tokenizer.no_truncation()  # as it was read
            write_json(new / name / "config.json", model.config | entries_of(model.classes))
            write_text(new / name / "tokenizer.json", model.tokenizer.to_str())
            write_bytes(new / name / FLOAT32, graph)
        write_json(new / CASCADE, config)
        load(new)


def start():
    """Run the command: `build` with what stands on the command line."""
    utf8_output()
    with errors_in_one_line("stopped"):
        parse(tyro.cli, deferred(build), prog="python -m common.cascade")()
