"""data.augmentation: what is made of a text is the text with masks, or a piece of it, and never a text that scores rest on."""

import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, chisquare

from common import InputError
from data import berts, texts
from data.augmentation import augment, check_augmentable, with_augmented
from data.parts import UNLABELLED, Parts, split
from tests import tiny

MASK = "[MASK]"
WORDS = [f"w{i}" for i in range(8)]
def all_of(*given, **more):
    return [*augment(*given, **more)]


line = st.lists(st.sampled_from(WORDS), min_size=1, max_size=9).map(" ".join)
lines, couples = (st.lists(each, min_size=1, max_size=8) for each in (line, st.tuples(line, line)))


def matches(made, words):
    """Whether words are those of a text, or five at most that stand side by side there, but for masks."""
    sizes = {len(words)} if len(made) == len(words) else {len(made)} & {1, 2, 3, 4, 5}
    return any(
        all(new in (MASK, old) for new, old in zip(made, words[start : start + size], strict=True))
        for size in sizes for start in range(len(words) - size + 1)
    )


@given(lines, lines, st.integers(0, 2**32 - 1), st.integers(1, 6))
def test_a_text_is_masked_or_a_piece_of_one(training, hidden, seed, count):
    made = all_of(training + hidden, np.arange(len(training)), count, MASK, seed)
    assert len(made) <= count * len(training)
    for text in made:
        assert set(text.split()) - {MASK}
        assert any(matches(text.split(), original.split()) for original in training)
    assert not set(made) & {*training, *hidden} and len(set(made)) == len(made)
    assert made == all_of(training + hidden, np.arange(len(training)), count, MASK, seed)


@given(couples, couples, st.integers(0, 2**32 - 1), st.integers(1, 6))
def test_a_pair_has_one_part_changed_or_both_and_one_cut(training, hidden, seed, count):
    made = all_of(training + hidden, np.arange(len(training)), count, MASK, seed)
    for pair in made:
        assert all(set(part.split()) - {MASK} for part in pair)
        assert any(
            all(matches(part.split(), whole.split()) for part, whole in zip(pair, original, strict=True))
            and any(len(part.split()) == len(whole.split()) for part, whole in zip(pair, original, strict=True))
            for original in training
        )
    assert not set(made) & {*training, *hidden} and len(set(made)) == len(made)


@given(lines, st.integers(0, 99), st.integers(1, 4))
def test_without_a_mask_words_are_left_out(training, seed, count):
    for text in all_of(training, np.arange(len(training)), count, "", seed):
        left = text.split(" ")
        assert left and all(left)

        def is_subsequence(words, left=left):
            rest = iter(words)
            return all(word in rest for word in left)

        assert any(is_subsequence(original.split()) for original in training)


def test_turns_of_a_pair_are_the_papers():
    """The first part alone, the second alone, both: of one pair, without n-grams, by what is masked."""
    pair = " ".join(f"a{i}" for i in range(200)), " ".join(f"b{i}" for i in range(200))
    made = all_of([pair], np.arange(1), 6, MASK, seed=0)
    assert len(made) == 6  # with 200 words each is masked somewhere
    changed = [tuple(new != old for new, old in zip(each, pair, strict=True)) for each in made]
    assert changed == 2 * [(True, False), (False, True), (True, True)]


def test_shares_are_the_papers():
    original = [f"w{i}" for i in range(60)]
    made = [text.split() for text in all_of([" ".join(original)], np.arange(1), 4000, MASK, seed=1)]
    whole = [words for words in made if len(words) == 60]
    masked = sum(words.count(MASK) for words in whole)
    assert binomtest(masked, 60 * len(whole), 0.1).pvalue > 0.001
    assert len(whole) > 2900  # three quarters of 4000; of these only one in 500 has no mask and is dropped
    pieces = Counter(len(words) for words in made if len(words) < 60)
    assert set(pieces) == {1, 2, 3, 4, 5}
    starts = [original.index(words[0]) for words in made if len(words) == 5 and words[0] != MASK]
    assert min(starts) == 0 and max(starts) == 55


def test_pieces_of_all_lengths_are_equally_likely():
    """Of texts that share no word, so that few pieces are dropped as duplicates."""
    originals = [" ".join(f"t{text}w{i}" for i in range(40)) for text in range(2000)]
    made = all_of(originals, np.arange(2000), 1, MASK, seed=3)
    sizes = [len(text.split()) for text in made if len(text.split()) < 40]
    counts = np.bincount(sizes, minlength=6)[1:] / (1 - 0.1 ** np.arange(1, 6))  # masks alone are dropped
    assert chisquare(counts).pvalue > 0.001
    assert binomtest(round(counts.sum()), 2000, 0.25).pvalue > 0.001


def test_seeds_differ_and_a_text_does_not_hang_on_the_others():
    training = [text for text, _ in tiny.texts(20)]
    one, other = (all_of(training, np.arange(20), 5, MASK, seed) for seed in (0, 1))
    assert len(set(one) & set(other)) < 0.3 * len(one)
    assert set(all_of(training, np.array([7, 3]), 5, MASK, 0)) <= set(one)


def test_nothing_is_made_of_hidden_texts_nor_equal_to_one():
    """Hidden ones are all the pieces that there could be of the training texts, in other case and with other spaces."""
    training = ["a b c d e f", "g h i j k l"]
    pieces = [text.split()[i:j] for text in training for i in range(6) for j in range(i + 1, 7)]
    hidden = ["  ".join(piece).upper() for piece in pieces] + ["x y z"]
    made = all_of(training + hidden, np.arange(2), 200, MASK, seed=0)
    assert made and all(MASK in text for text in made)
    assert not set("xyzABCDEFGHIJKL") & set("".join(made).replace(MASK, ""))
    without = all_of(training, np.arange(2), 200, MASK, seed=0)
    assert {text for text in without if MASK in text} == set(made) and len(without) > len(made)


def test_chinese_is_masked_by_characters_and_cut_by_twos():
    training = ["今天天气很好，我们去iPhone app看书吧，明天再说", "这本书不错 很有意思 我喜欢它的故事和人物呢"]
    made = all_of(training, np.arange(2), 400, MASK, seed=0)
    unit = re.compile(r"\[MASK\]|[\u3400-\u9fff]|[^\s\u3400-\u9fff\[]+")
    sizes = Counter()
    for text in made:
        bare = text.replace(MASK, "?")
        pattern = "".join(r"(?:[\u3400-\u9fff]|[^\s\u3400-\u9fff]+)" if sign == "?" else re.escape(sign) for sign in bare)
        source = next(original for original in training if re.search(pattern, original))  # spaces are where they were
        sizes[len(unit.findall(text)) if not re.fullmatch(pattern, source) else "whole"] += 1
    assert sizes.keys() == {"whole", 2, 4, 6, 8, 10}
    assert any(f"去{MASK} app" in text for text in made)
    assert not any(f"i{MASK}" in text or f"{MASK}Phone" in text for text in made)


# With a corpus


def corpus_of(lines):
    labels = np.arange(len(lines), dtype=np.int32) % 2
    return texts.Corpus("made", lines, labels, ["a", "b"], {}, np.arange(0), np.arange(0), np.arange(0), ["a note"])


def test_they_stand_after_the_texts_of_the_corpus(bert_folder, data_folder):
    corpus, tokenizer = texts.load(str(data_folder)), berts.load(str(bert_folder)).tokenizer
    parts = split(corpus, 0, train=30, unlabelled=10, validation=20)
    more, new_parts, made = with_augmented(corpus, parts, 4, tokenizer, seed=0)
    assert more.texts == corpus.texts + made and len(made) == len(new_parts.augmented) > 60
    assert [more.texts[index] for index in new_parts.augmented] == made
    assert (more.labels[new_parts.augmented] == UNLABELLED).all() and more.labels.dtype == corpus.labels.dtype
    np.testing.assert_array_equal(more.labels[: len(corpus.labels)], corpus.labels)
    for part in ("train", "unlabelled", "validation", "test"):
        np.testing.assert_array_equal(getattr(new_parts, part), getattr(parts, part))
    assert len(parts.augmented) == 0 and len(corpus.notes) + 1 == len(more.notes)  # what was given is as it was
    assert more.notes[-1] == f"of 30 training texts {len(made)} others were made by masks and n-grams"
    assert made == all_of(corpus.texts, parts.train, 4, MASK, seed=0)


def test_texts_of_one_word_make_none(bert_folder):
    corpus, nothing = corpus_of(["w1", "w2", "w3 w4 w5", "w6"]), np.arange(0)
    parts = Parts(np.array([0, 1]), nothing, np.array([2]), np.array([2, 3]))
    bert = berts.load(str(bert_folder))
    with pytest.raises(InputError, match="made: augmentation of nothing: the training texts are too short; leave the rows"):
        check_augmentable(20, corpus, bert, 0, parts)
    assert with_augmented(corpus, parts, 20, bert.tokenizer, seed=0)[2] == []
    check_augmentable(20, corpus, bert, 0, Parts(np.array([0, 2]), nothing, nothing, nothing))  # of one text some are made
