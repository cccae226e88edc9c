"""What soft labels are made of: the logits of a teacher over the texts to learn, computed once; of several; or of a file."""

import contextlib
from dataclasses import replace

import numpy as np
from tqdm import tqdm

from common import InputError
from common.batches import TokenizedTexts
from common.bert import build_classifier
from common.devices import is_chief
from common.evaluation import predict, prediction_graph
from common.files import fingerprint, read_file, write_atomic
from common.training import trained
from data.soft_labels import check_complete

SLICE = 10_000  # examples whose logits are computed before they are written: a teacher may need hours for all
OF_ALL_SEEDS = ("teachers of all seeds: together they have learned the labels of all seeds' training texts, among them "
                "validation texts of the other seeds")


def check_teachers(settings, deep, from_teacher):
    """Refuse settings that name teachers in two ways, or want a teacher's model where there are but answers.

    settings: the script's
    deep: names of the experiments whose models have all layers, the teacher among them
    from_teacher: whether students start from the teacher's layers

    Returns whether there are several teachers, to be averaged.
    """
    if not all((*settings.teacher, *settings.soft_labels)):
        raise InputError("--teacher and --soft-labels: a name is empty")
    if settings.soft_labels and (settings.teacher or settings.ensemble):
        raise InputError(f"--soft-labels and {'--teacher' if settings.teacher else '--ensemble'}: give one of the two")
    if settings.teacher and settings.ensemble:
        raise InputError("--teacher and --ensemble: with a given teacher all seeds have the same; give several with --teacher")
    if settings.ensemble and len(settings.seeds) < 2:
        raise InputError("--ensemble needs several --seeds, whose teachers it is made of")
    several = settings.ensemble or len(settings.teacher) > 1 or len(settings.soft_labels) > 1
    if "distilled-ensemble" in settings.experiments and not several:
        raise InputError("--experiments distilled-ensemble needs several --teacher, several --soft-labels, or --ensemble")
    if settings.soft_labels:
        others = [name for name in settings.experiments if name != "teacher"]
        if from_teacher:
            raise InputError(f"--student-init {settings.student_init}: with --soft-labels there is no teacher to start from")
        if models := [name for name in others if name in deep]:
            raise InputError(f"--experiments {models[0]}: with --soft-labels there is no teacher's model")
        if not (others or several):
            raise InputError("--experiments teacher: with --soft-labels there is no teacher to train; name a student")
    return several


def check_answers(settings, inputs, parts, check_first):
    """Raise InputError unless --soft-labels answer every text that is learned.

    settings: the script's
    inputs: `runs.Inputs`
    parts: of a seed
    check_first: `data.soft_labels.check_complete` or, if a student learns logits, `as_logits`; of further files, whose soft
        labels are averaged, the former is asked
    """
    learned = np.append(parts.train, parts.unlabelled)
    for number, (path, logits) in enumerate(zip(settings.soft_labels, inputs.answers, strict=True)):
        (check_complete if number else check_first)(path, logits, inputs.corpus.texts, learned)


def stage_logits(run, name, classifier, indices):
    """Logits (examples, classes) of a finished stage to make soft labels of, each example computed once in a run.

    They are kept beside the stage, each SLICE as it is done, and count only if the same weights made them. An example is found
    by a digest of its token ids or pixels, never by its position; and logits, rather than soft labels, serve every
    temperature.

    run: the Run
    name: of the stage
    classifier: its model, with the stage's weights
    indices: (examples,) int, which of them
    """
    path, stored = run.stage(name) / "soft_labels.npz", {}
    weights = fingerprint(run.bert and run.bert.config, *classifier.get_weights())
    keys = np.array([fingerprint(run.examples.example(index)) for index in indices])
    with contextlib.suppress(InputError, KeyError):  # if it is not there whole, it is computed anew
        file = read_file(path)
        if str(file["fingerprint"]) == weights:
            stored = dict(zip(file["keys"], file["logits"], strict=True))
    missing = np.flatnonzero([key not in stored for key in keys])
    graph, title = prediction_graph(classifier, run.examples), f"seed {run.seed} {name}: soft labels"
    with tqdm(total=len(missing), desc=title, unit="", disable=None, leave=False) as bar:
        for start in range(0, len(missing), SLICE):
            some = missing[start : start + SLICE]
            stored |= dict(zip(keys[some], predict(classifier, run.examples, indices[some], graph), strict=True))
            arrays = {"fingerprint": weights, "keys": np.array([*stored]), "logits": np.stack([*stored.values()])}
            if is_chief():
                write_atomic(path, lambda file, arrays=arrays: np.savez(file, **arrays))
            bar.update(len(some))
    return np.stack([stored[key] for key in keys])


def teacher_logits(run, build, indices):
    """The logits (texts, classes) of each teacher of a run over some examples, one after another, the row `teacher` first.

    They are what the files of --soft-labels say; or else the teacher of this seed, with --ensemble those of the other seeds
    too, and the further ones of --teacher.

    run: the Run, its teachers trained
    build: (run, name) -> the BertClassifier of a stage
    indices: (examples,) int, which of them
    """
    settings = run.settings
    if run.answers:
        yield from (logits[indices] for logits in run.answers)
        return
    for seed in sorted(settings.seeds if settings.ensemble else [run.seed], key=lambda seed: seed != run.seed):
        one = replace(run, seed=seed)
        yield stage_logits(one, "teacher", trained(one, "teacher", build).model, indices)
    for number, bert in enumerate(run.other_teachers, 2):
        lines = [run.corpus.texts[index] for index in indices]
        examples = TokenizedTexts.of(lines, bert, settings.maxlen)
        classifier = build_classifier(bert, len(run.corpus.classes), dropout=0.0).model
        one = replace(run, bert=bert, examples=examples)
        yield stage_logits(one, f"teacher-{number}", classifier, np.arange(len(lines)))
