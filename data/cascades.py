"""A cascade: a student that is sure of most texts, with a teacher behind it who is asked for the rest.

Both are whole models (CascadeBERT: Li et al. 2021, arXiv 2012.14682), each a `data.students.Student`, which loads and asks
them. `export.cascade` says how sure is sure enough, and writes the folder: a student/, a teacher/ and CASCADE.
"""

from dataclasses import replace

import numpy as np

from common import InputError

CASCADE, ENTRIES = "cascade.json", ("threshold", "criterion", "promise")  # a file, and what it says of the two


def cascade_of(student, teacher, config):
    """A student that asks a teacher where its uncertainty is not below the threshold: a `Student`.

    student: a `Student` that does not stop early
    teacher: another, of the same classes in any order; one that stops early is asked at speed 0, for all layers
    config: with ENTRIES: threshold, from 0 (the teacher answers everything) to 1; criterion, of UNCERTAINTY; promise

    Raises InputError unless they go together.
    """
    if student.stops_early:
        raise InputError(f"{student.source}: a FastBERT, which stops early by itself; as the student of a cascade any other")
    if len(student.classes) < 2:
        raise InputError(f"{student.source}: of one class there is nothing to be unsure of")
    reads = [f"{each.source} reads {'pairs of texts' if each.pairs else 'single texts'}" for each in (student, teacher)]
    if student.pairs != teacher.pairs:
        raise InputError(f"{', '.join(reads)}: they make no cascade")
    if sorted(student.classes) != sorted(teacher.classes) or len({*student.classes}) < len(student.classes):
        others = sorted({*student.classes} ^ {*teacher.classes}) or ["a name that stands twice"]
        raise InputError(f"{teacher.source}: its {len(teacher.classes)} classes are not the {len(student.classes)} of "
                         f"{student.source}; a difference is {others[0]!r}")
    order = [teacher.classes.index(name) for name in student.classes]

    def answer(**inputs):
        return {"probabilities": teacher.answer(**inputs)["probabilities"][:, order]}

    whole = {"speed": 0.0} if teacher.stops_early else {}
    behind = replace(teacher, answer=answer, classes=student.classes, config=teacher.config | whole)
    return replace(student, teacher=behind, config=student.config | {name: config[name] for name in ENTRIES})


# How unsure the student is, in numpy: TensorFlow would take seconds to load -----------------------------------------------


def confidence(p):
    """u = (1 - max p) · N / (N - 1) of p (…, N), from 0 to 1."""
    classes = p.shape[-1]
    return np.minimum((p.sum(axis=-1) - p.max(axis=-1)) * np.float32(classes / (classes - 1)), 1)


def entropy(p):
    """u = -Σ p log p / log N of p (…, N), from 0 to 1; 0 · log 0 is 0, and NaN stays."""
    u = -(p * np.log(np.maximum(p, np.finfo(np.float32).tiny))).sum(axis=-1) / np.float32(np.log(p.shape[-1]))
    return np.clip(u, 0, 1)


UNCERTAINTY = {"confidence": confidence, "entropy": entropy}
