"""The successors that a finished run of knowledge_distillation_bert_of_theseus.py has left, for students that start as one.

A successor has learned the labels of its run's training texts, and its epochs were chosen on its validation texts. So a run
that goes on from it must have the same of both: else it would choose its own epochs by texts whose labels were learned.
"""

from pathlib import Path

from common import InputError
from common.files import fingerprint, read_file

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
        records = [read_file(path) for path in paths.values() if path.is_file()]
        accuracies = {record["name"]: float(record["validation_accuracy"]) for record in records}
    except (InputError, ValueError, KeyError, TypeError):
        raise InputError(f"{PREFIX}{folder}: a record.json of seed {seed} is not that of a stage") from None
    if not accuracies:
        raise InputError(f"{PREFIX}{folder}: no finished {' or '.join(STAGES)} of seed {seed} in it")
    return max(accuracies, key=accuracies.get)


def stage_of(folder, seed, run_folder):
    """The stage of a run of Theseus that another run has started from: it stays the same if Theseus gets better rows later.

    folder: of the run of Theseus, a Path
    seed: of both runs
    run_folder: of the other one, which `check_successors` has let start
    """
    return _started_from(run_folder)[_key(folder, seed)].split()[0]


def check_successors(folder, settings, fingerprints, run_folder):
    """Refuse a run of Theseus from whose successors a run cannot go on, or whose texts are others.

    folder: of the run of Theseus, a Path
    settings: of the run that is to go on from it
    fingerprints: {what: fingerprint} of the data and the BERT that it has read
    run_folder: its folder, a Path; if it is there already it goes on from the stages that it started from

    Returns {what: name and fingerprint} of the stages it starts from, one a seed. Raises InputError.
    """
    flag, path = f"{PREFIX}{folder}", folder / "settings.json"
    if not folder.is_dir():
        raise InputError(f"{flag}: there is no such folder")
    try:
        stored = read_file(path)
        theirs, read = stored["settings"], stored["inputs"]
        known = {"successor_init", *SAME_SETTINGS} <= theirs.keys() and SAME_INPUTS.keys() <= read.keys()
    except (InputError, OSError, KeyError, TypeError, AttributeError):
        known = False
    if not known:
        raise InputError(f"{flag}: not the folder of a run of knowledge_distillation_bert_of_theseus.py")
    for name, what in SAME_INPUTS.items():
        if read[name] != fingerprints[name]:
            raise InputError(f"{flag}: it has another {what}; its successors can go on with their own alone")
    for name in SAME_SETTINGS:
        if theirs[name] != getattr(settings, name):
            given = f"--{name.replace('_', '-')}"
            raise InputError(f"{flag}: it has {given} {theirs[name]}, this run {getattr(settings, name)}; expected the same")
    chosen = _started_from(run_folder)
    stages = {seed: chosen[_key(folder, seed)].split()[0] if _key(folder, seed) in chosen else best_stage(folder, seed)
              for seed in settings.seeds}
    return {_key(folder, seed): f"{name} {_fingerprint(folder, seed, name)}" for seed, name in stages.items()}


def _key(folder, seed):
    return f"successor of seed {seed} in {folder}"


def _started_from(run_folder):
    """What the settings of a run say that it was started with; nothing if it has none, or what `runs.open_folder` refuses."""
    try:
        return dict(read_file(run_folder / "settings.json")["inputs"])
    except (InputError, OSError, ValueError, KeyError, TypeError):
        return {}


def _fingerprint(folder, seed, stage):
    path = folder / f"seed-{seed}" / stage / "weights.npz"
    try:
        stored = read_file(path)
        return fingerprint(*(stored[str(i)] for i in range(len(stored))))
    except (InputError, OSError, KeyError):
        raise InputError(f"{path}: not the weights of a stage") from None
