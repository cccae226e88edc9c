"""common.soft_labels: a teacher's logits, computed once, and found again by example."""

import numpy as np

from common.batches import Pixels
from common.soft_labels import cached_logits, example_keys
from data import berts
from tests import tiny


class Teacher:
    """Logits by example, and a count of how many were asked for."""

    def __init__(self, keys):
        self.keys, self.computed = keys, 0

    def __call__(self, missing):
        self.computed += len(missing)
        return np.stack([[len(key), hash(key) % 7, 1.0] for key in self.keys[missing]])


def test_logits_are_computed_once_and_found_by_example(tmp_path):
    path = tmp_path / "soft_labels.npz"
    keys = np.array(["a", "bb", "ccc", "a"])
    teacher = Teacher(keys)
    first, computed = cached_logits(path, "model", keys, teacher)
    assert computed == 4
    again, computed = cached_logits(path, "model", keys[::-1], teacher)
    assert computed == 0 and teacher.computed == 4
    np.testing.assert_array_equal(again, first[::-1])

    more = np.array(["ccc", "dddd", "a"])
    teacher = Teacher(more)
    found, computed = cached_logits(path, "model", more, teacher)
    assert computed == 1 and teacher.computed == 1
    np.testing.assert_array_equal(found[[0, 2]], first[[2, 0]])
    np.testing.assert_array_equal(found[1], teacher(np.array([1]))[0])


def test_another_model_computes_anew(tmp_path):
    path = tmp_path / "soft_labels.npz"
    keys = np.array(["a", "bb"])
    cached_logits(path, "model", keys, Teacher(keys))
    assert cached_logits(path, "another model", keys, Teacher(keys))[1] == 2


def test_a_key_is_the_examples_own(bert_folder):
    """Two texts or images have one key if and only if a model takes the same for both, wherever they stand."""
    bert = berts.load(str(bert_folder))
    examples = tiny.tokenized(["w1 w2", "w1", "w1 w2", "W1  w2", "w2 w1"], bert)
    keys = example_keys(examples, np.arange(5))
    assert keys.shape == (5,) and keys[0] == keys[2] == keys[3] and len(set(keys)) == 3
    assert example_keys(examples, np.array([4, 0])).tolist() == [keys[4], keys[0]]
    pixels = np.zeros((3, 2, 2, 1), np.float32)
    pixels[1, 0, 0] = 1
    keys = example_keys(Pixels(pixels), np.arange(3))
    assert keys[0] == keys[2] != keys[1]
