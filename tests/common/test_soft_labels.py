"""common.soft_labels: a teacher's logits, computed once, and found again by example."""

from types import SimpleNamespace

import numpy as np
import pytest

from common import soft_labels, training
from common.batches import Pixels
from data import berts
from tests import tiny


class Teacher:
    """Logits by what stands in an example, and a count of how many were asked for."""

    def __init__(self, weight=1.0):
        self.weight, self.computed = weight, 0

    def get_weights(self):
        return [np.array(self.weight)]

    def logits(self, examples, indices):
        self.computed += len(indices)
        return np.array([[hash(examples.example(i).tobytes()) % 7, len(examples.example(i)), self.weight] for i in indices])


@pytest.fixture
def ask(tmp_path, monkeypatch):
    """(teacher, examples, indices) -> (logits, how many were computed now)."""
    monkeypatch.setattr(soft_labels, "predict", lambda teacher, examples, indices, graph: teacher.logits(examples, indices))

    def asked(teacher, examples, indices):
        run, before = training.Run(SimpleNamespace(), 0, None, examples, None, tmp_path), teacher.computed
        logits = soft_labels.stage_logits(run, "teacher", teacher, np.array(indices))
        np.testing.assert_array_equal(logits, Teacher(teacher.weight).logits(examples, indices))
        return logits, teacher.computed - before

    return asked


@pytest.fixture
def texts(bert_folder):
    return tiny.tokenized(["w1 w2", "w1", "w1 w2", "W1  w2", "w2 w1", "w3"], berts.load(str(bert_folder)))


def test_logits_are_computed_once_and_found_by_example(ask, texts):
    teacher = Teacher()
    first, computed = ask(teacher, texts, [0, 1, 4])
    assert computed == 3
    again, computed = ask(teacher, texts, [4, 1, 0])
    assert computed == 0
    np.testing.assert_array_equal(again, first[::-1])
    assert ask(teacher, texts, [4, 5, 0])[1] == 1
    assert ask(teacher, texts, [5, 0, 1, 4])[1] == 0


def test_a_slice_that_is_done_is_kept(ask, texts, monkeypatch):
    """A start that is killed in the third of three slices; the next one computes that alone."""
    monkeypatch.setattr(soft_labels, "SLICE", 2)

    class Killed(Teacher):
        def logits(self, examples, indices):
            if self.computed == 4:
                raise KeyboardInterrupt
            return super().logits(examples, indices)

    with pytest.raises(KeyboardInterrupt):
        ask(Killed(), texts, [0, 1, 4, 5, 0])  # the first of these twice
    assert ask(Teacher(), texts, [5, 4, 1, 0])[1] == 0


def test_two_pairs_that_differ_in_their_segments_alone_are_two(ask, bert_folder):
    couples = [("w1 [SEP] w2", "w3"), ("w1", "w2 [SEP] w3"), ("w1", "w2 [SEP]  w3")]
    examples, teacher = tiny.tokenized(couples, berts.load(str(bert_folder))), Teacher()
    token_ids, segment_ids = examples.inputs(np.arange(3))
    assert (token_ids[0] == token_ids[1]).all() and (segment_ids[0] != segment_ids[1]).any()
    assert ask(teacher, examples, [0])[1] == 1
    assert ask(teacher, examples, [1])[1] == 1
    assert ask(teacher, examples, [2, 0])[1] == 0


def test_another_model_computes_anew(ask, texts):
    assert ask(Teacher(), texts, [0, 1])[1] == 2
    assert ask(Teacher(2.0), texts, [0, 1])[1] == 2
    assert ask(Teacher(2.0), texts, [0, 1])[1] == 0


def test_an_example_is_what_a_model_takes_wherever_it_stands(ask, texts):
    """Two texts or images are one if and only if a model takes the same for both."""
    teacher = Teacher()
    assert ask(teacher, texts, [0])[1] == 1
    assert ask(teacher, texts, [2, 3])[1] == 0
    assert ask(teacher, texts, [1, 4])[1] == 2
    pixels = np.zeros((3, 2, 2, 1), np.float32)
    pixels[1, 0, 0] = 1
    assert ask(teacher, Pixels(pixels), [0])[1] == 1
    assert ask(teacher, Pixels(pixels), [2, 1])[1] == 1


@pytest.mark.parametrize("junk", [b"", b"PK half of it", None])
def test_what_is_damaged_is_computed_anew(ask, texts, tmp_path, junk):
    """None: cut short, as a machine that died may leave it."""
    path = tmp_path / "seed-0" / "teacher" / "soft_labels.npz"
    assert ask(Teacher(), texts, [0, 1])[1] == 2
    path.write_bytes(path.read_bytes()[:-30] if junk is None else junk)
    assert ask(Teacher(), texts, [0, 1])[1] == 2
    assert ask(Teacher(), texts, [0, 1])[1] == 0
