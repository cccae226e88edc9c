"""The original FastBERT's augmentation: copies of texts with their sentences twice, in random order."""

import re

import numpy as np

from common import InputError


def check_shufflable(corpus):
    """Raise InputError for pairs of texts, whose sentences are not shuffled."""
    if corpus.pairs:
        raise InputError(f"{corpus.name} has pairs of texts, whose sentences are not shuffled: --no-shuffle-sentences, and no "
                         "fastbert-shuffled among --experiments")


def shuffled_copies(texts, indices, seed):
    """Of each of these texts a copy by `shuffle_sentences`, as a list; says where that does little.

    texts: strings
    indices: (texts,) int, which of them
    seed: of the order
    """
    originals, rng = [texts[index] for index in indices], np.random.default_rng(seed)
    several = np.mean([len(sentences_of(text)) > 1 for text in originals])
    if several < 0.5:
        print(f"  only {several:.0%} of the texts have punctuation that parts them into sentences: little is shuffled")
    return [shuffle_sentences(text, rng) for text in originals]


def shuffle_sentences(text, rng):
    """The sentences of a text twice, in random order. rng: numpy's."""
    return " ".join(rng.permutation(np.array(2 * sentences_of(text), dtype=object)))


def sentences_of(text):
    """A text parted after its Chinese or English punctuation and at the ends of lines."""
    return [part for part in re.split(r"(?<=[。！？；])|(?<=[.!?;])\s+|\n+", text) if part.strip()]
