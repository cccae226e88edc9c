"""Further texts made of the training texts, for a teacher to label; they have no label of their own. No model is needed.

    Tang et al.: Distilling Task-Specific Knowledge from BERT into Simple Neural Networks, 2019, arXiv 1903.12136, section 3.2

Of its three rules masking and n-grams are here. The third, another word of the same part of speech, needs a tagger, whose model
would have to be fetched for each language.
"""

import re
from dataclasses import replace

import numpy as np

from common import InputError
from data.parts import UNLABELLED
from data.texts import CHINESE, is_chinese
from data.tokenizing import mask_token

P_MASK = 0.1  # of each word: how much it says the teacher shows by answering without it
P_NGRAM = 0.25  # of each text: that n words of it are left, in their order
MOST_WORDS = 5  # n is drawn from 1 to it
CHARACTERS = 2  # that stand for a word in Chinese, as most words there have two: of a single one a teacher can say nothing
WORD = re.compile(rf"\s*(?:[{CHINESE}]|[^\s{CHINESE}]+)")  # with the space before it; a Chinese character is one
TURNS = {1: ((0,),), 2: ((0,), (1,), (0, 1))}  # of a text, and of a pair: which parts are changed, in turns


def with_augmented(corpus, parts, count, tokenizer, seed):
    """A corpus with augmented texts after its own, as `Parts.augmented`.

    corpus: the `texts.Corpus`
    parts: its Parts; of `train` texts are made, and of nothing else
    count: texts made of each, at most
    tokenizer: whose mask stands for a masked word; where it has none, the word is left out
    seed: of the draws

    Returns (corpus, parts, the augmented texts).
    """
    mask = mask_token(tokenizer)
    made = [*augment(corpus.texts, parts.train, count, mask, seed)]
    labels = np.concatenate([corpus.labels, np.full(len(made), UNLABELLED, corpus.labels.dtype)])
    means = f"{'masks' if mask else 'leaving words out'} and n-grams"
    note = f"of {len(parts.train):,} training texts {len(made):,} others were made by {means}"
    corpus = replace(corpus, texts=corpus.texts + made, labels=labels, notes=[*corpus.notes, note])
    return corpus, replace(parts, augmented=np.arange(len(labels) - len(made), len(labels))), made


def check_augmentable(count, corpus, bert, seed, parts):
    """Raise InputError if `with_augmented` would make no text. bert: whose tokenizer it is; for the others see there"""
    if not any(augment(corpus.texts, parts.train, count, mask_token(bert.tokenizer), seed)):
        raise InputError(f"{corpus.name}: augmentation of nothing: the training texts are too short; leave the rows with "
                         "augmented texts out of --experiments")


def augment(texts, indices, count, mask, seed):
    """Yield texts made of some texts; what comes of a text depends on itself, its index and the seed.

    None is made twice. None is a text that was there already, of whatever part, even if it differs in case and spaces: scores
    rest on texts that no model has learned from.

    texts: strings or pairs of strings, of all parts
    indices: (texts,) int, of which to make others
    count: texts made of each, at most
    mask: what stands for a masked word; "" leaves it out
    seed: of the draws
    """
    length = CHARACTERS if is_chinese(part for index in indices for part in _parts(texts[index])) else 1
    known = {_same(text) for text in texts}
    for index in indices:
        rng, parts = np.random.default_rng((seed, index)), [WORD.findall(part) for part in _parts(texts[index])]
        for turn in range(count):
            text = _variant(parts, turn, mask, length, rng)
            if text and _same(text) not in known:
                known.add(_same(text))
                yield text


def _variant(parts, turn, mask, length, rng):
    """One text, or pair, made of lists of words; None if it has a part that is left without a word."""
    parts, places = [*parts], TURNS[len(parts)][turn % len(TURNS[len(parts)])]
    for place in places:
        hidden = rng.random(len(parts[place])) < P_MASK
        parts[place] = [_masked(word, mask) if hide else word for word, hide in zip(parts[place], hidden, strict=True)]
    if rng.random() < P_NGRAM:  # of one part alone: two that are cut have hardly anything to do with each other
        place, size = rng.choice(places), length * rng.integers(1, MOST_WORDS + 1)
        start = rng.integers(max(len(parts[place]) - size, 0) + 1)
        parts[place] = parts[place][start : start + size]
    if any(all(word.strip() == mask for word in words) for words in parts):
        return None
    joined = tuple("".join(words).strip() for words in parts)
    return joined if len(joined) > 1 else joined[0]


def _masked(word, mask):
    """The mask in place of a word of `WORD`, after the same space; without a mask nothing."""
    return word[: len(word) - len(word.lstrip())] + mask if mask else ""


def _parts(text):
    """A text as a tuple of one, a pair as it is."""
    return (text,) if isinstance(text, str) else text


def _same(text):
    """What two texts have in common that a tokenizer may read alike."""
    return tuple("".join(part.casefold().split()) for part in _parts(text))
