"""What a student starts from: layers of the BERT or of its fine-tuned teacher, narrower if need be; a successor of Theseus.

Which settings say so is the script's; what becomes of the weights is the work of `data.berts`, `data.narrowing` and
`data.successors`.
"""

from dataclasses import replace

from common import InputError
from common.bert import build_classifier
from common.training import load_stage
from data.berts import keep_layers, layers_to_keep
from data.narrowing import narrow, width_of
from data.successors import PREFIX, check_successors, folder_of, stage_of

STARTS = {  # of a student: (layers spread over the depth, of the fine-tuned teacher)
    "first": (False, False), "spread": (True, False), "teacher-first": (False, True), "teacher-spread": (True, True),
}
SUCCESSOR = STARTS["first"]  # a successor of Theseus is made of the first layers


def is_fine_tuned(init):
    """Whether a start is that of the teacher's fine-tuned layers, so that there must be a teacher's model."""
    return STARTS.get(init, SUCCESSOR)[1]


def part_of(settings, init, bert):
    """The layers of `bert` that a student has, as wide as it is to be: a `data.berts.Bert`."""
    spread, _ = STARTS.get(init, SUCCESSOR)
    layers = keep_layers(bert, layers_to_keep(bert.layers, settings.student_layers, spread))
    if not settings.student_hidden:
        return layers
    return narrow(layers, *width_of(layers, settings.student_hidden, settings.student_heads), settings.narrowing)


def build_student(run, init, teacher):
    """The student of a run, a `bert.BertClassifier` that is not trained yet.

    What starts from the teacher's layers, or from those of a teacher that is given, has its classifier, too.

    run: the `training.Run`
    init: what it starts from
    teacher: () -> the BertClassifier of its teacher, trained
    """
    settings, bert, classes = run.settings, run.bert, len(run.corpus.classes)
    if folder := folder_of(init):  # its classifier is the one it was trained with
        successor = build_classifier(part_of(settings, init, bert), classes, settings.student_dropout)
        load_stage(replace(run, folder=folder), stage_of(folder, run.seed, run.folder), successor.model)
        return successor
    start = teacher().bert if is_fine_tuned(init) else bert
    return build_classifier(part_of(settings, init, start), classes, settings.student_dropout)


def check_names(settings):
    """Raise InputError if the settings name no start, or a shape that it cannot have, whatever the BERT."""
    for flag, init in (("--student-init", settings.student_init), ("--layers-init", settings.layers_init)):
        if folder_of(init) is None and init not in STARTS:
            raise InputError(f"{flag} {init}: expected {', '.join(STARTS)} or {PREFIX}RUN")
    if settings.student_hidden and any(map(folder_of, (settings.student_init, settings.layers_init))):
        raise InputError(f"--student-hidden {settings.student_hidden}: a successor of Theseus is as wide as its predecessor")
    if settings.student_heads and not settings.student_hidden:
        raise InputError(f"--student-heads {settings.student_heads} needs --student-hidden, the width that they share")
    if settings.narrowing == "least-squares" and not settings.student_hidden:
        raise InputError("--narrowing least-squares needs --student-hidden: a student as wide as the BERT is not narrowed")


def check_start(settings, inits, attention, bert, fingerprints, run_folder):
    """Refuse students that cannot be made of a run's BERT.

    settings: the script's
    inits: what its students start from, each once
    attention: name of an experiment that compares attention scores, or None
    bert: the `data.berts.Bert`
    fingerprints: {what: fingerprint} of what the run has read
    run_folder: its folder, which may be there already

    Returns the same of what students start from beside it. Raises InputError.
    """
    if settings.student_hidden:
        _, heads = width_of(bert, settings.student_hidden, settings.student_heads)
        whole = bert.config["num_attention_heads"]
        if attention and heads != whole:
            raise InputError(f"--experiments {attention}: the student has {heads} heads, {bert.source} {whole}, so attention "
                             f"cannot be compared; give --student-heads {whole} or --attention-weight 0")
    read = {}
    for folder in filter(None, map(folder_of, inits)):
        read |= check_successors(folder, settings, fingerprints, run_folder)
    return read


def remarks(runs, inits):
    """A line for each run and each successor of Theseus that its students start as."""
    return [
        f"seed {run.seed}: students start as {stage_of(folder, run.seed, run.folder)} of {folder}"
        for folder in filter(None, map(folder_of, inits)) for run in runs
    ]
