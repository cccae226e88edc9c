"""common.batches: texts of like length together, in an order of seed and epoch, each with its own targets; images too."""

import numpy as np
import pytest

from common.batches import Pixels, TokenizedTexts, training_batches
from common.bert import build_classifier
from data import berts
from tests import tiny


@pytest.fixture(scope="module")
def bert(bert_folder):
    return berts.load(str(bert_folder))


def test_batches_carry_their_own_targets_in_an_order_of_seed_and_epoch(bert):
    examples = tiny.tokenized([text for text, _ in tiny.texts(50)], bert)
    indices = np.arange(10, 50)

    def epochs(seed):
        return [list(batch) for batch in training_batches(examples, indices, indices.astype(np.float32), 8, seed).take(10)]

    first = epochs(seed=0)
    for (token_ids, segment_ids), target in first:
        assert token_ids.shape[1] % 8 == 0 and not segment_ids.numpy().any()
        for ids, index in zip(token_ids.numpy(), target.numpy().astype(int), strict=True):
            expected = examples.ids[examples.offsets[index] : examples.offsets[index + 1]]
            np.testing.assert_array_equal(ids[ids > 0], expected)
            np.testing.assert_array_equal(examples.example(index), expected)

    def order(batches):
        return np.concatenate([batch[1].numpy() for batch in batches])

    assert sorted(order(first[:5])) == sorted(order(first[5:])) == indices.tolist()
    assert order(first[:5]).tolist() != order(first[5:]).tolist()
    assert order(first).tolist() == order(epochs(seed=0)).tolist() != order(epochs(seed=1)).tolist()

    for begin in (1, 5, 7):  # the same stream from a later batch on
        later = training_batches(examples, indices, indices.astype(np.float32), 8, 0, begin).take(10 - begin)
        assert order(list(later)).tolist() == order(first[begin:]).tolist()


def test_nobody_waits_for_a_tuner_when_a_training_ends(bert):
    examples = tiny.tokenized(["a text"] * 4, bert, maxlen=8)
    assert not training_batches(examples, np.arange(4), np.zeros(4), 2, 0).options().autotune.enabled


def test_no_text_is_padded_to_more_tokens_than_the_model_has_positions(tmp_path):
    """Here 37, no round number; what the longest text makes of a batch is asked of a model, too."""
    bert = berts.load(str(tiny.write_bert(tmp_path, config=tiny.CONFIG | {"max_position_embeddings": 37})))
    examples = tiny.tokenized(["w1 " * 50, "w2", "w3 " * 20], bert, maxlen=37)
    examples = examples.joined(tiny.tokenized(["w4"], bert, maxlen=37))
    shapes = [examples.inputs(np.array(indices))[0].shape[1] for indices in ([0, 1, 3], [1, 3], [2])]
    assert shapes == [37, 8, 24]
    logits = build_classifier(bert, 3, dropout=0.0).model.predict(examples.inputs(np.arange(4)), verbose=0)
    assert logits.shape == (4, 3) and np.isfinite(logits).all()


def test_texts_can_be_joined(bert):
    words = [["w1 w2", "w3"], ["w4 w5 w6", "", "w7"]]
    joined = tiny.tokenized(words[0], bert, maxlen=8).joined(tiny.tokenized(words[1], bert, maxlen=8))
    whole = tiny.tokenized(words[0] + words[1], bert, maxlen=8)
    assert isinstance(joined, TokenizedTexts)
    np.testing.assert_array_equal(joined.ids, whole.ids)
    np.testing.assert_array_equal(joined.offsets, whole.offsets)


def test_pairs_have_their_segments(bert):
    couples = [("w1 w2", "w3"), ("w1", "w2 w3"), ("w1 " * 30, "w2"), ("w3", "w4 w5 w6")]
    examples, order = tiny.tokenized(couples, bert, maxlen=12), np.array([3, 0, 2])
    token_ids, segment_ids = examples.inputs(order)
    assert token_ids.shape == segment_ids.shape == (3, 16) and segment_ids.dtype == np.int32
    bert.tokenizer.enable_truncation(12)
    for index, ids, segments in zip(order, token_ids, segment_ids, strict=True):
        encoding = bert.tokenizer.encode(*couples[index])
        padding = [0] * (16 - len(encoding))
        assert ids.tolist() == encoding.ids + padding and segments.tolist() == encoding.type_ids + padding
        assert examples.example(index).tolist() == [encoding.ids, encoding.type_ids]
        assert examples.example(index).dtype == np.int32
    joined = tiny.tokenized(couples[:1], bert, maxlen=12).joined(tiny.tokenized(couples[1:], bert, maxlen=12))
    for found, expected in zip(joined.inputs(np.arange(4)), examples.inputs(np.arange(4)), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_batches_of_images():
    examples, labels = Pixels(np.random.default_rng(0).random((42, 5, 6, 3), np.float32)), np.arange(42) % 3
    indices = np.arange(5, 30)
    first = list(training_batches(examples, indices, labels[indices], 8, seed=0).take(4))
    assert [len(pixels) for pixels, _ in first].count(8) == 3 and sum(len(pixels) for pixels, _ in first) == 25
    seen = {pixels.tobytes(): int(label) for pixels, label in zip(examples.pixels, labels, strict=True)}
    for pixels, chosen in first:
        assert [seen[image.tobytes()] for image in pixels.numpy()] == chosen.numpy().tolist()
