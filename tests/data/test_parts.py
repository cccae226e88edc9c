"""data.parts: which examples a run uses, and for what."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import InputError
from data import texts
from data.parts import HELD_OUT, UNLABELLED, Parts, check_parts, notes_on_twins, sort_labels, split
from tests import tiny


@given(
    st.integers(0, 3), st.integers(20, 60), st.one_of(st.none(), st.integers(0, 30)), st.integers(1, 20), st.integers(0, 20),
)
def test_parts_are_disjoint_and_as_large_as_asked(seed, train, unlabelled, validation, test):
    labels = np.arange(160, dtype=np.int32) % 5
    corpus = texts.Corpus("", [""] * 160, labels, list("abcde"), {}, np.arange(120), np.arange(0), np.arange(120, 160), [])
    parts = split(corpus, seed, train, unlabelled, validation, test)
    indices = np.concatenate([parts.train, parts.unlabelled, parts.validation, parts.test])
    assert len(set(indices.tolist())) == len(indices)
    spare = {None: 0, 0: 120 - train - validation}.get(unlabelled, unlabelled)
    assert (len(parts.train), len(parts.unlabelled), len(parts.validation)) == (train, spare, validation)
    assert len(parts.test) == (test or 40)
    sizes = np.bincount(labels[parts.train], minlength=5)
    assert sizes.max() - sizes.min() <= 2  # each class in its share
    np.testing.assert_array_equal(parts.test, split(corpus, seed + 1, train, 0, validation, test).test)


@given(
    st.integers(0, 3), st.sampled_from([0, 20, 60]), st.sampled_from([None, 0, 15, 1000]),
    st.sampled_from([None, 0, 1, 30, 1000]),
)
def test_calibration_examples_are_of_what_is_left(seed, train, unlabelled, calibration):
    """All other parts are as they are without, but for `unlabelled` that takes all, which gives up a quarter at most.

    Labels in none of it count, and each is a text that no other part has.
    """
    labels = np.arange(160, dtype=np.int32) % 5
    labels[[3, 30, 90]] = UNLABELLED
    corpus = texts.Corpus("", [""] * 160, labels, list("abcde"), {}, np.arange(120), np.arange(0), np.arange(120, 160), [])
    parts, plain = split(corpus, seed, train, unlabelled, 20, 0, calibration), split(corpus, seed, train, unlabelled, 20)
    names = ("train", "unlabelled", "validation", "test")
    for name in names:
        wanted = getattr(plain, name)
        if name == "unlabelled" and unlabelled == 0 and calibration is not None:
            wanted = wanted[: len(wanted) - min(calibration or 120, len(wanted) // 4)]
        np.testing.assert_array_equal(getattr(parts, name), wanted)
    others, found = np.concatenate([getattr(parts, name) for name in names]), parts.calibration
    left = np.setdiff1d(np.arange(120), others)
    assert len(plain.calibration) == 0 and len(set(found)) == len(found) and np.isin(found, left).all()
    assert len(found) == (0 if calibration is None else min(calibration or 120, len(left)))
    if unlabelled == 0:
        assert len(left) == len(found)


@given(st.integers(0, 99), st.sampled_from([None, 0, 20]), st.sampled_from([0, 5, 30]))
def test_calibration_has_nothing_that_other_parts_have_as_a_model_reads_it(seed, unlabelled, calibration):
    """Every third text is read as one of 30 others. What takes its place is what is left, and no other part changes."""
    labels = np.arange(160, dtype=np.int32) % 5
    corpus = texts.Corpus("", [""] * 160, labels, list("abcde"), {}, np.arange(120), np.arange(0), np.arange(120, 160), [])
    wanted = corpus, seed, 20, unlabelled, 20, 0, calibration
    parts, plain = split(*wanted, read=lambda index: index % 90 if index % 3 == 0 else index), split(*wanted)
    for name in ("train", "unlabelled", "validation", "test"):
        np.testing.assert_array_equal(getattr(parts, name), getattr(plain, name))
    known = np.concatenate([parts.train, parts.unlabelled, parts.validation])
    twins = {*known} | {index - 90 for index in known} | {index + 90 for index in known}
    left = {*range(120)} - {*known}
    allowed = {index for index in left if index % 3 or index not in twins}
    assert {*parts.calibration} <= allowed and len(parts.calibration) == min(calibration or 120, len(allowed))


def test_no_validation_chooses_on_the_test_part(data_folder):
    parts = split(texts.load(str(data_folder)), seed=0, validation=0)
    np.testing.assert_array_equal(parts.validation, parts.test)


def test_counts_are_upper_bounds(data_folder):
    corpus = texts.load(str(data_folder))  # 160 for training, 80 for the test, a few of both
    pool = len(corpus.pool)
    parts = split(corpus, seed=0, train=10_000, unlabelled=10_000, validation=10_000, test=10_000)
    assert len(parts.test) == 80 and len(parts.validation) == pool // 5
    assert len(parts.train) == pool - pool // 5 and len(parts.unlabelled) == 0


def test_a_dev_part_is_used_whole_unless_limited(tmp_path, data_folder):
    def validation(folder, wanted):
        return split(texts.load(str(folder)), seed=0, train=20, validation=wanted).validation

    own = tiny.write_data(tmp_path / "own", train=600)
    tiny.write_jsonl(own / "dev.jsonl", tiny.texts(450, seed=9))
    corpus = texts.load(str(own))
    for wanted, count in ((None, 450), (0, 450), (100, 100), (1000, 450)):
        held_out = validation(own, wanted)
        assert len(held_out) == count and np.isin(held_out, corpus.dev).all()
    assert len(validation(data_folder, None)) == 160 // 5  # without one a fifth of the training texts, HELD_OUT at most
    large = tiny.write_data(tmp_path / "large", train=2400)
    assert len(validation(large, None)) == HELD_OUT == 400


def test_where_no_text_is_left_to_train_on_it_is_said_why(tmp_path):
    """All of them stand in the test part, too; a smaller batch would not help."""
    for name in ("train", "test"):
        tiny.write_jsonl(tmp_path / f"{name}.jsonl", [(f"w{i}", "ab"[i % 2]) for i in range(40)])
    corpus = texts.load(str(tmp_path))
    with pytest.raises(InputError, match="no example is left to train on; dropped from training, .*: 40 texts"):
        check_parts(corpus, split(corpus, 0), 16)


def test_texts_that_a_model_reads_alike_are_counted_between_all_parts():
    """By hand: of these two letters are read, in either case."""
    read = ["ABx", "aby", "abz", "cd", "CD", "ef", "ghi", "ghj", "kl", "cdd"]
    parts = Parts(*map(np.array, ([0, 3], [5], [1, 6], [2, 4, 7, 8])), calibration=np.array([9]))
    assert notes_on_twins([parts], lambda index: read[index][:2].lower(), 2) == [
        "as a model reads them, in 2 tokens, texts stand in two parts: 1 calibration text in training, "
        "1 validation text in training, 2 test texts in training, 1 test text in calibration, 2 test texts in validation"
    ]


@given(st.lists(st.one_of(st.integers(-(10**15) + 1, 10**15 - 1).map(str), st.floats(-1e6, 1e6).map("{:.3f}".format))))
def test_labels_that_are_numbers_stand_by_value(labels):
    """As the lists of soft labels have them: also below 0 and with decimals."""
    values = [float(label) for label in sort_labels(labels)]
    assert values == sorted(values) and {*sort_labels(labels)} == {*labels}


def test_other_labels_stand_by_name():
    assert sort_labels(["10", "9", "-2", "1.5"]) == ["-2", "1.5", "9", "10"] and sort_labels([3, -1]) == [-1, 3]
    assert sort_labels(["10", "9", "b"]) == ["10", "9", "b"] and sort_labels(["1e3", "2"]) == ["1e3", "2"]


def test_of_several_seeds_the_most_twins_are_told_and_a_part_is_no_twin_of_itself():
    read, test = list("abcdeabc"), np.arange(5, 8)
    several = [Parts(np.array(train), np.arange(0), test, test) for train in ([0, 1], [2, 3], [3, 4])]
    assert notes_on_twins(several, read.__getitem__, 9) == [
        "as a model reads them, in 9 tokens, texts stand in two parts: up to 2 validation texts in training, "
        "2 test texts in training"
    ]
    assert notes_on_twins(several[2:], read.__getitem__, 9) == []
