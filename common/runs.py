"""From settings to runs: data and BERT read and held against the settings, the parts drawn, the run's folder opened."""

import json
from pathlib import Path

import numpy as np

from common import InputError, visible
from common.backend import precision_remarks, set_precision
from common.batches import Pixels, TokenizedTexts
from common.command import as_dict
from common.devices import barrier, is_chief
from common.files import fingerprint, remove_half_written, wait_for, write_json
from common.locking import LOCK, lock_folder
from common.training import Run
from data import berts, fetching, images, soft_labels, teachers, texts, vocabulary
from data.parts import check_parts, notes_on_twins, remarks, split
from data.tokenizing import check_pairs

GIVEN = ("given teacher: if it was fine-tuned on validation, test or calibration texts, the figures and promises that rest on "
         "them are too good")
OF_ALL_SEEDS = ("teachers of all seeds: together they have learned the labels of all seeds' training texts, among them "
                "validation texts of the other seeds")
EXTENSIBLE = (  # settings of a finished run that may differ in a later start; export is one of older versions
    "experiments", "seeds", "linear", "vocabulary", "int8_disagreement", "export",
)


def open_folder(folder, settings, inputs, extensible=EXTENSIBLE):
    """Make the run's folder, or resume in one with the same settings.

    folder: Path
    settings: as JSON
    inputs: {what: fingerprint} of the data and the model, so that changed files are noticed too
    extensible: settings that may differ, because they only say which stages there are: more seeds or experiments join those
        that are finished

    Raises InputError if the folder holds another run or something else, is in use by another process, or cannot be written to.
    """
    path = folder / "settings.json"
    if not is_chief():
        barrier()  # the chief has made it
        wait_for(path)
    wanted = {"settings": settings, "inputs": inputs}
    started = folder.is_dir() and {file.name[:15] for file in folder.iterdir()} <= {LOCK, ".settings.json."}
    if folder.exists() and not (path.exists() or started):
        raise InputError(f"{folder} is there already and is not a run; give another folder with --output")
    if is_chief():
        lock_folder(folder)
    if path.exists():
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            old, read = stored["settings"], stored["inputs"]
            changed = [key for key in sorted(old.keys() | settings.keys()) if old.get(key) != settings.get(key)]
            changed += [key for key in sorted(read.keys() & inputs.keys()) if read[key] != inputs[key]]  # settings say which
            wanted["inputs"] = read | inputs  # some are of one seed, and there may be others now
        except (IsADirectoryError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise InputError(f"{path}: not the settings of a run; give another --output, or delete this folder") from None
        changed = [key for key in changed if key not in extensible or not is_chief()]  # whose settings these are, just written
        if changed:
            raise InputError(
                f"{folder} holds a run with another {changed[0].replace('_', ' ')}; "
                "give another folder with --output, or delete this one"
            )
    if is_chief():
        remove_half_written([*folder.rglob(".*")])
        write_json(path, wanted)
        barrier()


def open_text_runs(
    script, preset, settings, unlabelled=None, unlabelled_needed=True, depths=("student_layers",), min_layers=1,
    extensible=EXTENSIBLE, check_corpus=lambda corpus: None,
    check_answers=soft_labels.check_complete, further_inputs=lambda bert, inputs, folder: {}, calibration=None,
    check_drawn=lambda corpus, bert, seed, parts: None,
):
    """Read BERT and data, tokenize, refuse what does not fit, make the run's folder, say what there is: a Run for each seed.

    What the settings name as `teacher` takes the place of the BERT. Some scripts have `soft_labels` and `ensemble` besides.

    script: its name, of which the default folder is made
    preset: the same
    settings: the script's
    unlabelled: texts without labels wanted beside the training texts; 0: all there are, None: none
    unlabelled_needed: refuse if none is left for them
    depths: names of the settings that say how many layers of the BERT a model is to have
    min_layers: how many the BERT must have
    extensible: see `open_folder`
    check_corpus: corpus -> None, which raises InputError for one that the script cannot use
    check_answers: like `soft_labels.check_complete`, which raises it for those of the first of several --soft-labels
    further_inputs: (bert, {what: fingerprint} of what was read, the run's folder) -> the same of what else the runs start from;
        raises InputError for a BERT that the script cannot use
    calibration: texts wanted besides, whose labels are not looked at; 0: all that are left, None: none
    check_drawn: (corpus, bert, seed, its Parts) -> None, which raises InputError for what the script cannot use of them

    Raises InputError before anything is written.
    """
    given = [settings.teacher] if isinstance(settings.teacher, str) else settings.teacher
    given, answered = [*filter(None, given)], getattr(settings, "soft_labels", ())
    notes = [GIVEN] if given else []
    if getattr(settings, "ensemble", False):  # of all seeds: with one more it would be another
        notes, extensible = [OF_ALL_SEEDS], [name for name in extensible if name != "seeds"]
    needed = [] if given and all(map(teachers.is_whole, given)) else [("--bert", "bert", settings.bert)]
    fetching.ensure_available([*needed, ("--data", "texts", settings.data)], settings.download)
    all_berts = [] if given else [berts.load(settings.bert, settings.maxlen)]
    corpus = texts.load(settings.data)
    all_berts += [teachers.load(path, corpus, settings.bert, settings.maxlen) for path in given]
    check_corpus(corpus)
    for bert in all_berts if corpus.pairs else ():
        check_pairs(bert, settings.maxlen)
    bert, *others = all_berts
    vocabulary.check_trimmable(bert, settings.vocabulary)
    if bert.layers < min_layers:
        flag = "--teacher" if given else "--bert"
        raise InputError(f"{flag} {bert.source}: layers: {bert.layers}; at least {min_layers} are needed")
    for name in depths:
        wanted = getattr(settings, name)
        for depth in wanted if isinstance(wanted, tuple) else (wanted,):
            if depth > bert.layers:
                flag = f"--{name.replace('_', '-')} {depth}"
                raise InputError(f"{flag}: {bert.source} has {bert.layers} layers, so 1 to {bert.layers} can be taken")

    answers = tuple(soft_labels.load(path, corpus) for path in answered)
    corpus.notes.extend(f"soft labels from {path}: no teacher is trained or timed" for path in answered)
    corpus.notes.extend(notes)

    def check(seed, parts):
        check_drawn(corpus, bert, seed, parts)
        for number, (path, logits) in enumerate(zip(answered, answers, strict=True)):
            check_one = soft_labels.check_complete if number else check_answers
            check_one(path, logits, corpus.texts, np.append(parts.train, parts.unlabelled))
        if unlabelled is not None and unlabelled_needed and not len(parts.unlabelled):
            raise InputError(
                f"{corpus.name}: training takes all {len(parts.train):,} texts and leaves none without labels; lower "
                "--train-examples, add a file of unlabelled texts, or leave their experiment out of --experiments"
            )

    inputs = {
        "data": fingerprint(corpus.texts, corpus.labels, corpus.classes, corpus.pool, corpus.dev, corpus.test),
        "bert": fingerprint_of(bert),
    }
    inputs |= {"other teachers": fingerprint(*map(fingerprint_of, others))} if others else {}
    inputs |= {"soft_labels": fingerprint(*answers)} if answers else {}
    inputs |= further_inputs(bert, inputs, run_folder(script, preset, settings))
    kind = f"{'pairs' if corpus.pairs else 'texts'} of up to {settings.maxlen} tokens\n{bert.source}: {bert.layers} layers"
    kind += ", fine-tuned" if bert.is_classifier else ""
    spare = unlabelled, calibration
    examples = TokenizedTexts.of(corpus.texts, bert, settings.maxlen)

    def read(index):
        return examples.example(index).tobytes()

    all_parts, folder = _open(script, preset, settings, corpus, spare, check, inputs, kind, extensible, read)
    for note in notes_on_twins(all_parts.values(), read, settings.maxlen):
        print(note)
        corpus.notes.append(note)
    more = folder, bert, tuple(others), answers
    return [Run(settings, seed, corpus, examples, parts, *more) for seed, parts in all_parts.items()]


def run_folder(script, preset, settings):
    """Where a run lies."""
    return Path(settings.output or f"runs/{script}-{preset}")


def fingerprint_of(bert):
    """A digest of all that a `berts.Bert` is."""
    return fingerprint(bert.config, *bert.weights.values(), bert.tokenizer.to_str(), bert.pad_id)


def open_image_runs(script, preset, settings, check, extensible):
    """Read images, refuse what does not fit, make the run's folder, say what there is: a Run for each seed.

    script: its name, of which the default folder is made
    preset: the same
    settings: the script's
    check: (settings, corpus, parts) -> None, which raises InputError for what the script cannot use
    extensible: see `open_folder`

    Raises InputError before anything is written.
    """
    corpus = images.load(settings.data, settings.download)
    inputs = {"data": fingerprint(corpus.pixels, corpus.labels, corpus.classes, corpus.pool, corpus.test)}
    def check_one(seed, parts):
        check(settings, corpus, parts)

    kind = f"images of {corpus.size}"
    all_parts, folder = _open(script, preset, settings, corpus, (None, None), check_one, inputs, kind, extensible)
    return [Run(settings, seed, corpus, Pixels(corpus.pixels), parts, folder) for seed, parts in all_parts.items()]


def _open(script, preset, settings, corpus, spare, check, inputs, kind, extensible, read=None):
    """({seed: Parts}, the run's folder), both checked and what there is said.

    spare: how many unlabelled and how many calibration examples are wanted
    kind: of the examples, in words
    read: see `split`
    """
    unlabelled, calibration = spare
    counts = settings.train_examples, unlabelled, settings.validation_examples, settings.test_examples, calibration
    all_parts = {seed: split(corpus, seed, *counts, read) for seed in settings.seeds}
    for seed, parts in all_parts.items():
        check_parts(corpus, parts, settings.batch_size)
        check(seed, parts)
    folder = run_folder(script, preset, settings)
    identity = as_dict(settings) | {"output": ""}  # not where the run lies or is computed, nor what may be fetched
    del identity["download"], identity["strategy"]
    open_folder(folder, identity, inputs, extensible)
    set_precision(settings.precision)
    parts = next(iter(all_parts.values()))
    more = {"unlabelled": parts.unlabelled, "calibration": parts.calibration}
    spare = "".join(f"{len(indices):,} {name}, " for name, indices in more.items() if len(indices))
    print(f"{visible(corpus.name)}: {len(corpus.classes)} classes, {len(parts.train):,} training, {spare}"
          f"{len(parts.validation):,} validation, {len(parts.test):,} test {kind}")
    for remark in [*precision_remarks(settings.precision), *remarks(corpus, parts)]:
        print(visible(remark))
    return all_parts, folder
