"""The successors that a finished run of knowledge_distillation_bert_of_theseus.py has left, for students that start as one.

A successor has learned the labels of its run's training texts, and its epochs were chosen on its validation texts. So a run
that goes on from it must have the same of both: else it would choose its own epochs by texts whose labels were learned.
"""

import json
import zipfile
from pathlib import Path

import numpy as np

from common import InputError
from common.files import fingerprint

PREFIX = "theseus:"  # of a --student-init, before the run's folder
STAGES = ("theseus", "theseus-additive", "theseus-random", "theseus-random-linear")  # the rows that replace, the plainest first
SAME_SETTINGS = ("train_examples", "validation_examples", "maxlen", "student_layers")  # which a run shares with that of Theseus
SAME_INPUTS = {"data": "data", "bert": "BERT or teacher"}  # fingerprints, and what they are of


def folder_of(student_init):
    """The folder of the run that a --student-init names; None if it names none."""
    return Path(student_init.removeprefix(PREFIX)) if student_init.startswith(PREFIX) else None


def best_stage(folder, seed):
    """The stage of this seed that is best on the validation part among the finished ones of STAGES; of equal ones the first.

    folder: of the run, a Path
    seed: of both runs

    Raises InputError if none is finished.
    """
    paths = {name: folder / f"seed-{seed}" / name / "record.json" for name in STAGES}
    try:
        records = [json.loads(path.read_text(encoding="utf-8")) for path in paths.values() if path.is_file()]
        accuracies = {record["name"]: record["validation_accuracy"] for record in records}
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{PREFIX}{folder}: a record.json of seed {seed} is not that of a stage") from None
    if not accuracies:
        raise InputError(f"{PREFIX}{folder}: no finished {' or '.join(STAGES)} of seed {seed} in it")
    return max(accuracies, key=accuracies.get)


def check_successors(folder, settings, inputs):
    """Refuse a run of Theseus from whose successors a run cannot go on, or whose texts are others.

    folder: of the run of Theseus, a Path
    settings: of the run that is to go on from it
    inputs: {what: fingerprint} of the data and the BERT that it has read

    Returns {what: fingerprint} of the weights it starts from, one a seed. Raises InputError.
    """
    flag, path = f"{PREFIX}{folder}", folder / "settings.json"
    if not folder.is_dir():
        raise InputError(f"{flag}: there is no such folder")
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        theirs, read = stored["settings"], stored["inputs"]
        known = {"successor_init", *SAME_SETTINGS} <= theirs.keys() and SAME_INPUTS.keys() <= read.keys()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        known = False
    if not known:
        raise InputError(f"{flag}: not the folder of a run of knowledge_distillation_bert_of_theseus.py")
    for name, what in SAME_INPUTS.items():
        if read[name] != inputs[name]:
            raise InputError(f"{flag}: it has another {what}; its successors can go on with their own alone")
    for name in SAME_SETTINGS:
        if theirs[name] != getattr(settings, name):
            given = f"--{name.replace('_', '-')}"
            raise InputError(f"{flag}: it has {given} {theirs[name]}, this run {getattr(settings, name)}; expected the same")
    return {f"successor of seed {seed}": _fingerprint(folder, seed) for seed in settings.seeds}


def _fingerprint(folder, seed):
    path = folder / f"seed-{seed}" / best_stage(folder, seed) / "weights.npz"
    try:
        with np.load(path) as stored:
            return fingerprint(*(stored[str(i)] for i in range(len(stored.files))))
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
        raise InputError(f"{path}: not the weights of a stage") from None
