"""Drawing the parts of a data set, texts or images, that a run uses: training, unlabelled, validation, test, calibration."""

import re
from dataclasses import dataclass, field, replace
from itertools import combinations, islice

import numpy as np

from common import InputError

UNLABELLED = -1  # the label of a text that has none
HELD_OUT = 400  # training examples that are held out for validation, unless said otherwise
NUMBER = re.compile(r"[+-]?\d{1,15}(\.\d{1,15})?")  # a label that is one, and that a float can tell from others


@dataclass(frozen=True)
class Parts:
    """What one run uses: indices into a corpus. The labels of `unlabelled` and `calibration` are never looked at."""

    train: np.ndarray
    unlabelled: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    augmented: np.ndarray = field(default_factory=lambda: np.arange(0))  # made of `train`, see `data.augmentation`
    calibration: np.ndarray = field(default_factory=lambda: np.arange(0))  # that nothing learns from or is chosen by


def split(corpus, seed, train=0, unlabelled=None, validation=0, test=0, calibration=None, read=None):
    """Draw the Parts of one run. Counts are upper bounds: a small data set gives what it has.

    corpus: `texts.Corpus` or `images.Images`
    seed: of the draws; the test part is the same for every seed
    train: labelled training examples; 0 takes all there are
    unlabelled: examples drawn from what training leaves over, labels ignored; 0 takes all there are but those of calibration,
        None takes none
    validation: examples of the corpus's own dev part, or else of the training pool, of which it takes a fifth at most; None
        takes all of the dev part, or without one HELD_OUT; 0 takes all of the dev part, or without one the test part, as the
        original programs did
    test: examples of the test part; 0 takes all there are
    calibration: examples drawn from what all of these leave over, labels ignored; 0 takes all there are, None takes none. Where
        unlabelled would take all, a quarter of these at most. Those of validation would not do: epochs and the uncertainty are
        chosen by them
    read: index -> what a model reads of that example, hashable. Calibration then has none that it reads in training, unlabelled
        or validation, too
    """
    labels = corpus.labels
    if validation is None:
        validation = len(corpus.dev) or HELD_OUT
    labelled = corpus.pool[labels[corpus.pool] != UNLABELLED]
    if len(corpus.dev):
        held_out = stratified_sample(corpus.dev, labels, validation or len(corpus.dev), seed)[1]
    else:
        labelled, held_out = stratified_sample(labelled, labels, min(validation, len(labelled) // 5), seed)
    rest, chosen = stratified_sample(labelled, labels, train or len(labelled), seed)
    without_label = corpus.pool[labels[corpus.pool] == UNLABELLED]
    spare = np.concatenate([np.random.default_rng(seed).permutation(indices) for indices in (without_label, rest)])
    tested = stratified_sample(corpus.test, labels, test or len(corpus.test), seed=0)[1]
    tested = np.sort(tested)  # in the order of the file
    most = 0 if calibration is None else calibration or len(spare)
    spare, left = np.split(spare, [0 if unlabelled is None else unlabelled or len(spare) - min(most, len(spare) // 4)])
    parts = Parts(chosen, spare, held_out if validation or len(corpus.dev) else tested, tested)
    if read and most:
        known = {read(index) for index in np.concatenate([chosen, spare, parts.validation])}
        left = np.array([*islice((index for index in left if read(index) not in known), most)], int)
    return replace(parts, calibration=left[:most])


def stratified_sample(indices, labels, count, seed):
    """(rest, sample): at most `count` of `indices`, each class in its share.

    indices: (examples,) int, to draw from
    labels: class numbers of all examples, indexed by `indices`
    count: how many to draw at most
    seed: of the draw
    """
    shuffled = np.random.default_rng(seed).permutation(indices)
    # An example's place within its class, over the size of the class: the lowest places are the same share of every class.
    _, labels, sizes = np.unique(np.asarray(labels)[shuffled], return_inverse=True, return_counts=True)
    by_class = np.argsort(labels, kind="stable")
    place = np.empty(len(indices))
    place[by_class] = np.concatenate([(np.arange(size) + 0.5) / size for size in sizes]) if len(indices) else 0
    order = np.argsort(place, kind="stable")
    return np.sort(shuffled[order[count:]]), shuffled[order[:count]]


def remarks(corpus, parts):
    """What a user should know of the data: a line each."""
    taught = len(np.unique(corpus.labels[parts.train]))
    return corpus.notes + ([f"only {taught} of the classes occur in training"] if taught < len(corpus.classes) else [])


def notes_on_twins(all_parts, read, maxlen):
    """A line, if texts of one part stand in another as a model reads them; they stay where they were drawn. A list of it.

    all_parts: the Parts of each seed; of several the most is told
    read: index -> what a model reads of that text, hashable
    maxlen: tokens it is cut to
    """
    most = {}
    for parts in all_parts:
        learned = np.append(parts.train, parts.unlabelled)
        drawn = {"training": learned, "calibration": parts.calibration, "validation": parts.validation, "test": parts.test}
        as_read = {name: {index: read(index) for index in indices} for name, indices in drawn.items()}
        for (one, there), (other, own) in combinations(as_read.items(), 2):
            known = {*there.values()}
            twins = sum(text in known for index, text in own.items() if index not in there)  # validation may be the test part
            most[other, one] = max(most.get((other, one), 0), twins)
    told = [f"{count:,} {other} text{'s' * (count > 1)} in {one}" for (other, one), count in most.items() if count]
    up_to = "up to " * (len(all_parts) > 1)
    return [f"as a model reads them, in {maxlen} tokens, texts stand in two parts: {up_to}{', '.join(told)}"] if told else []


def check_parts(corpus, parts, batch_size):
    """Raise InputError if there are too few examples to train on, to choose epochs by, or to compare models with."""
    if len(parts.train) == 0:
        raise InputError(f"{corpus.name}: no example is left to train on{''.join(f'; {note}' for note in corpus.notes)}")
    if len(parts.train) < batch_size:
        raise InputError(
            f"{corpus.name}: {len(parts.train)} training examples are fewer than a batch; lower --batch-size {batch_size}"
        )
    if len(parts.validation) == 0:
        raise InputError(f"{corpus.name}: too few to hold some out; --validation-examples 0 chooses on the test part")
    if len(parts.test) < 2:
        raise InputError(f"{corpus.name}: {len(parts.test)} in the test part; at least 2 are needed to compare models")


def sort_labels(labels):
    """Class labels in the order of their numbers: by value if all are numbers such as 7, -2 or 1.5, else by name."""
    numbers = all(isinstance(label, int) or NUMBER.fullmatch(label) for label in labels)
    return sorted(sorted(labels), key=float if numbers else None)
