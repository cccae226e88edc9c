"""From settings to runs: data and BERT read and held against the settings, the parts drawn, the run's folder opened."""

import json
from dataclasses import dataclass
from pathlib import Path

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
WIDE, USUAL = 768, 1e-4  # BERT-base, fine-tuned at 5e-5, 3e-5 or 2e-5 (Devlin et al. 2019, arXiv 1810.04805, appendix A.3)
EXTENSIBLE = (  # settings of a finished run that may differ in a later start; export is one of older versions
    "experiments", "seeds", "linear", "vocabulary", "int8_disagreement", "export",
)


def open_folder(folder, settings, fingerprints, extensible=EXTENSIBLE):
    """Make the run's folder, or resume in one with the same settings.

    folder: Path
    settings: as JSON
    fingerprints: {what: fingerprint} of the data and the model, so that changed files are noticed too
    extensible: settings that may differ, because they only say which stages there are: more seeds or experiments join those
        that are finished

    Raises InputError if the folder holds another run or something else, is in use by another process, or cannot be written to.
    """
    path = folder / "settings.json"
    if not is_chief():
        barrier()  # the chief has made it
        wait_for(path)
    wanted = {"settings": settings, "inputs": fingerprints}
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
            known = sorted(read.keys() & fingerprints.keys())  # settings say which there are
            changed += [key for key in known if read[key] != fingerprints[key]]
            wanted["inputs"] = read | fingerprints  # some are of one seed, and there may be others now
        except (IsADirectoryError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise InputError(f"{path}: not the settings of a run; give another --output, or delete this folder") from None
        changed = [key for key in changed if key not in extensible or not is_chief()]  # whose settings these are, just written
        if changed:
            what = "BERT or teacher" if changed[0] == "bert" else changed[0].replace("_", " ")
            raise InputError(f"{folder} holds a run with another {what}; give another folder with --output, or delete this one")
    if is_chief():
        remove_half_written([*folder.rglob(".*")])
        write_json(path, wanted)
        barrier()


@dataclass(frozen=True)
class Inputs:
    """What the settings of a script on texts name."""

    corpus: texts.Corpus
    bert: berts.Bert  # that models start from; of several teachers that are given the first
    other_teachers: tuple  # the others
    answers: tuple  # of --soft-labels: logits (texts, classes) each, NaN where there is none
    fingerprints: dict  # {what: fingerprint} of all but the answers: of these see `answers_learned`


def read_inputs(settings):
    """Read what the settings name and refuse what does not go together: an `Inputs`.

    What they name as `teacher` takes the place of the BERT. Some scripts have `soft_labels` besides.

    Raises InputError.
    """
    given = [settings.teacher] if isinstance(settings.teacher, str) else settings.teacher
    given, answered = [*filter(None, given)], getattr(settings, "soft_labels", ())
    needed = [] if given and all(map(teachers.is_whole, given)) else [("--bert", "bert", settings.bert)]
    fetching.ensure_available([*needed, ("--data", "texts", settings.data)], settings.download)
    all_berts = [] if given else [berts.load(settings.bert, settings.maxlen)]
    corpus = texts.load(settings.data)
    all_berts += [teachers.load(path, corpus, settings.bert, settings.maxlen) for path in given]
    for bert in all_berts if corpus.pairs else ():
        check_pairs(bert, settings.maxlen)
    bert, *others = all_berts
    vocabulary.check_trimmable(bert, settings.vocabulary)
    answers = tuple(soft_labels.load(path, corpus) for path in answered)
    corpus.notes.extend(f"soft labels from {path}: no teacher is trained or timed" for path in answered)
    corpus.notes.extend([GIVEN] if given else [])
    lengths = {each.source: each.config["maxlen"] for each in all_berts if given and "maxlen" in each.config}
    corpus.notes.extend(f"{source} was trained on texts of up to {tokens} tokens and reads {settings.maxlen} here; see --maxlen"
                        for source, tokens in lengths.items() if tokens != settings.maxlen)
    fingerprints = {
        "data": fingerprint(corpus.texts, corpus.labels, corpus.classes, corpus.pool, corpus.dev, corpus.test),
        "bert": fingerprint_of(bert),
    }
    fingerprints |= {"other teachers": fingerprint(*map(fingerprint_of, others))} if others else {}
    return Inputs(corpus, bert, tuple(others), answers, fingerprints)


def check_depths(settings, bert, *names, least=1):
    """Raise InputError if a BERT has too few layers.

    settings: the script's
    bert: the `berts.Bert`
    names: of the settings that say how many of its layers a model is to have, each a number or several
    least: how many it must have in any case
    """
    if bert.layers < least:
        flag = "--teacher" if settings.teacher else "--bert"
        raise InputError(f"{flag} {bert.source}: layers: {bert.layers}; at least {least} are needed")
    for name in names:
        wanted = getattr(settings, name)
        for depth in wanted if isinstance(wanted, tuple) else (wanted,):
            if depth > bert.layers:
                flag = f"--{name.replace('_', '-')} {depth}"
                raise InputError(f"{flag}: {bert.source} has {bert.layers} layers, so 1 to {bert.layers} can be taken")


def check_unlabelled(corpus, parts, others):
    """Raise InputError if no text is left for the unlabelled part. others: experiments that do without, to be named, or none"""
    if not len(parts.unlabelled):
        without = f", or do without: --experiments {' '.join(others)}" if others else ""
        raise InputError(
            f"{corpus.name}: training takes all {len(parts.train):,} texts and leaves none without labels; lower "
            f"--train-examples, or add a file of unlabelled texts{without}"
        )


def rate_remarks(settings, bert, names):
    """A line for each learning rate that fits a narrow BERT, as the demo's, and is far above what is usual for a wide one.

    bert: `berts.Bert`
    names: of the settings, those by which layers as wide as its own are trained
    """
    width, rates = bert.config["hidden_size"], {name: getattr(settings, name) for name in names}
    return [f"--{name.replace('_', '-')} {rate:g}: for a BERT that is {width} wide 2e-5 to 5e-5 is usual"
            for name, rate in rates.items() if width >= WIDE and rate > USUAL]


def steps_remarks(run):
    """A line if what counts its steps reads not even half of its texts in them, in a list. run: `training.Run`"""
    settings, texts = run.settings, len(run.parts.train) + len(run.parts.unlabelled)
    read = settings.unlabelled_steps * settings.batch_size
    if not len(run.parts.unlabelled) or 2 * read >= texts:
        return []
    return [f"--unlabelled-steps {settings.unlabelled_steps} reads {read:,} of {texts:,} texts, with labels and without: "
            f"{-(-texts // settings.batch_size):,} steps read each once"]


def open_text_runs(
    script, preset, settings, inputs, unlabelled=None, calibration=None, check=lambda seed, parts: None,
    further_fingerprints=None, extensible=EXTENSIBLE,
):
    """Draw the parts, tokenize, make the run's folder, say what there is: a Run for each seed.

    script: its name, of which the default folder is made
    preset: the same
    settings: the script's
    inputs: of `read_inputs`
    unlabelled: texts without labels wanted beside the training texts; 0: all there are, None: none
    calibration: texts wanted besides, whose labels are not looked at; 0: all that are left, None: none
    check: (seed, its Parts) -> None, which raises InputError for what the script cannot use of them
    further_fingerprints: {what: fingerprint} of what else the runs start from
    extensible: see `open_folder`

    Raises InputError before anything is written.
    """
    corpus, bert = inputs.corpus, inputs.bert
    kind = f"{'pairs' if corpus.pairs else 'texts'} of up to {settings.maxlen} tokens\n{bert.source}: {bert.layers} layers"
    kind += ", fine-tuned" if bert.is_classifier else ""
    examples = TokenizedTexts.of(corpus.texts, bert, settings.maxlen)

    def read(index):
        return examples.example(index).tobytes()

    spare, fingerprints = (unlabelled, calibration), inputs.fingerprints | (further_fingerprints or {})
    more = read, inputs.answers
    all_parts, folder = _open(script, preset, settings, corpus, spare, check, fingerprints, kind, extensible, *more)
    for note in notes_on_twins(all_parts.values(), read, settings.maxlen):
        print(note)
        corpus.notes.append(note)
    more = folder, bert, inputs.other_teachers, inputs.answers
    return [Run(settings, seed, corpus, examples, parts, *more) for seed, parts in all_parts.items()]


def answers_learned(answers, seed, parts):
    """{what: fingerprint} of the soft labels that a seed learns from; of others there may be more in a later start.

    answers: of `Inputs`
    seed: which
    parts: its Parts
    """
    learned = {"training": parts.train, "unlabelled": parts.unlabelled}
    return {f"soft_labels of seed {seed}, {part} texts": fingerprint(*(logits[indices] for logits in answers))
            for part, indices in learned.items() if answers and len(indices)}


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
    fingerprints = {"data": fingerprint(corpus.pixels, corpus.labels, corpus.classes, corpus.pool, corpus.test)}
    def check_one(seed, parts):
        check(settings, corpus, parts)

    kind = f"images of {corpus.size}"
    all_parts, folder = _open(script, preset, settings, corpus, (None, None), check_one, fingerprints, kind, extensible)
    return [Run(settings, seed, corpus, Pixels(corpus.pixels), parts, folder) for seed, parts in all_parts.items()]


def _open(script, preset, settings, corpus, spare, check, fingerprints, kind, extensible, read=None, answers=()):
    """({seed: Parts}, the run's folder), both checked and what there is said.

    spare: how many unlabelled and how many calibration examples are wanted
    kind: of the examples, in words
    read: see `split`
    answers: of `Inputs`
    """
    unlabelled, calibration = spare
    counts = settings.train_examples, unlabelled, settings.validation_examples, settings.test_examples, calibration
    all_parts = {seed: split(corpus, seed, *counts, read) for seed in settings.seeds}
    for seed, parts in all_parts.items():
        check_parts(corpus, parts, settings.batch_size)
        check(seed, parts)
        fingerprints = fingerprints | answers_learned(answers, seed, parts)
    folder = run_folder(script, preset, settings)
    identity = as_dict(settings) | {"output": ""}  # not where the run lies or is computed, nor what may be fetched
    del identity["download"], identity["strategy"]
    open_folder(folder, identity, fingerprints, extensible)
    set_precision(settings.precision)
    parts = next(iter(all_parts.values()))
    more = {"unlabelled": parts.unlabelled, "calibration": parts.calibration}
    spare = "".join(f"{len(indices):,} {name}, " for name, indices in more.items() if len(indices))
    print(f"{visible(corpus.name)}: {len(corpus.classes)} classes, {len(parts.train):,} training, {spare}"
          f"{len(parts.validation):,} validation, {len(parts.test):,} test {kind}")
    for remark in [*precision_remarks(settings.precision), *remarks(corpus, parts)]:
        print(visible(remark))
    return all_parts, folder
