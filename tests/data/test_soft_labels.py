"""data.soft_labels: what some other model said of the texts, from a file; and what is refused."""

import gzip
import json
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax

from common import InputError
from common.distillation import soften
from data import soft_labels
from data.texts import MEMORY

CORPUS = SimpleNamespace(texts=["a", "b", "a", "未标注"], classes=["no", "yes"])


def load(tmp_path, *rows, corpus=CORPUS):
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return soft_labels.load(path, corpus)


def test_answers_are_found_by_text_in_the_order_of_the_classes(tmp_path):
    found = load(
        tmp_path, {"text": " 未标注 ", "probabilities": {"yes": 0.75, "no": 0.25}}, {"text": "of other data", "logits": [1, 2]},
        {"sentence": "a", "logits": {"yes": 3.0, "no": -1}}, "",
    )
    assert found.dtype == np.float32 and np.isnan(found[1]).all()
    np.testing.assert_allclose(softmax(found[3]), [0.25, 0.75], rtol=1e-6)
    np.testing.assert_array_equal(found[[0, 2]], [[-4, 0], [-4, 0]])  # the text stands there twice


def test_logits_of_what_is_nearly_certain(tmp_path):
    """A mean of 0, whatever the file says; of a probability of 0 there are none, nor of what no float32 can be squared to."""
    indices = np.array([3, 0])
    found = load(tmp_path, {"text": "a", "probabilities": [0.001, 0.999]}, {"text": "未标注", "logits": [3, 7]})
    logits = soft_labels.as_logits("answers.jsonl", found, CORPUS.texts, indices)
    expected = np.log(0.999 / 0.001) / 2
    np.testing.assert_allclose(logits, [[-2, 2], [-expected, expected]], rtol=1e-5)
    assert logits.dtype == np.float32
    for row in ({"probabilities": [0, 1]}, {"logits": [0, 1e30]}):
        found = load(tmp_path, {"text": "a"} | row, {"text": "未标注", "logits": [3, 7]})
        with pytest.raises(InputError, match="^answers.jsonl: a probability is 0, or nearly, for 'a', so .*--bilstm-loss kl"):
            soft_labels.as_logits("answers.jsonl", found, CORPUS.texts, indices)
        assert len(soft_labels.as_logits("answers.jsonl", found, CORPUS.texts, indices[:1])) == 1
    with pytest.raises(InputError, match="^answers.jsonl: no soft labels for 1 of the 1 texts to learn from, among them 'b'"):
        soft_labels.as_logits("answers.jsonl", found, CORPUS.texts, np.array([1]))


def test_pairs_of_texts(tmp_path):
    corpus = SimpleNamespace(texts=[("a", "b"), ("b", "a")], classes=["no", "yes"])
    rows = {"sentence1": "b", "sentence2": " a", "logits": [3, 6]}, {"text": "a", "text_pair": "b", "logits": [1, 2]}
    np.testing.assert_array_equal(load(tmp_path, *rows, corpus=corpus), [[-1, 0], [-3, 0]])


def test_a_packed_file(tmp_path):
    path = tmp_path / "answers.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"text": "a", "logits": [1, 2]}\n'))
    np.testing.assert_array_equal(soft_labels.load(path, CORPUS)[0], [-1, 0])


def test_logits_that_float32_could_not_hold(tmp_path):
    np.testing.assert_array_equal(softmax(load(tmp_path, {"text": "a", "logits": [1e300, 0]})[0]), [1, 0])


def test_a_text_that_is_repeated_with_its_answer(tmp_path):
    """As `python -m common.predict` writes it for data with repeats: rounded otherwise in another batch."""
    found = load(tmp_path, {"text": "b", "probabilities": [0.25, 0.75]}, {"text": "b", "probabilities": [0.2500001, 0.7499999]})
    np.testing.assert_allclose(softmax(found[1]), [0.25, 0.75], atol=1e-6)


@given(st.lists(st.floats(0.01, 1), min_size=2, max_size=6), st.floats(0.5, 20))
def test_probabilities_are_softened_as_their_powers(tmp_path_factory, weights, temperature):
    """p^(1/T) / Σ p^(1/T), which is what a temperature does to log p."""
    p = np.array(weights) / np.sum(weights)
    corpus = SimpleNamespace(texts=["a"], classes=[*"abcdef"[: len(p)]])
    found = load(tmp_path_factory.getbasetemp(), {"text": "a", "probabilities": p.tolist()}, corpus=corpus)
    expected = p ** (1 / temperature)
    np.testing.assert_allclose(soften(found, temperature)[0], expected / expected.sum(), rtol=1e-4)


def test_a_probability_of_0_stays_0(tmp_path):
    found = load(tmp_path, {"text": "a", "probabilities": [0, 1]})
    np.testing.assert_array_equal(soften(found[:1], 7), [[0, 1]])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "answers.jsonl: no line in it; expected JSON lines with 'text'"),
        (["{"], "line 1: broken JSON"),
        (["[]"], "line 1: expected a JSON object"),
        ([{"label": 1}], "line 1: no text; expected a field 'sentence' or 'text', or"),
        ([{"text": "a"}], "line 1: neither of probabilities and logits"),
        ([{"text": "a", "logits": [1, 2], "probabilities": [0, 1]}], "line 1: probabilities and logits; expected one"),
        ([{"text": "x", "logits": [1, 2]}, {"text": "a", "logits": [1, 2, 3]}], "line 2: logits must be .* 2 numbers.* 3 of"),
        ([{"text": "a", "logits": "0.1"}], "line 1: logits must be a list or an object of 2 numbers, one a class, found some"),
        ([{"text": "a", "logits": {"no": 1}}], "line 1: no 'yes' among the logits; the classes of the data are 'no', 'yes'"),
        ([{"text": "a", "logits": {"no": 1, "yes": 1, "maybe": 1}}], "line 1: 'maybe' among the logits; the classes"),
        ([{"text": "a", "logits": [1, None]}], "line 1: logits must be finite numbers"),
        ([{"text": "a", "logits": [1, True]}], "line 1: logits must be finite numbers"),
        ([f'{{"text": "a", "logits": [1{"0" * 400}, 1]}}'], "line 1: logits must be finite numbers"),
        (['{"text": "a", "logits": [NaN, 1]}'], "line 1: logits must be finite numbers"),
        (['{"text": "a", "probabilities": [Infinity, 1]}'], "line 1: probabilities must be finite numbers"),
        ([{"text": "a", "probabilities": [-0.25, 1.25]}], "line 1: a probability is negative, -0.25"),
        ([{"text": "a", "probabilities": [0.5, 0.25]}], "line 1: the probabilities sum to 0.75, not to 1"),
        ([{"text": "a", "logits": [1, 2]}, {"text": "b", "logits": [1, 2]}, {"text": "a ", "logits": [1, 3]}],
         "line 3: this text stands in line 1 already, with another answer"),
    ],
)
def test_files_that_are_refused(tmp_path, rows, message):
    with pytest.raises(InputError, match=message) as refusal:
        load(tmp_path, *rows)
    assert "\n" not in str(refusal.value)


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(InputError, match="nowhere.jsonl: No such file"):
        soft_labels.load(tmp_path / "nowhere.jsonl", CORPUS)


def test_every_text_that_is_learned_from_needs_an_answer(tmp_path):
    logits = load(tmp_path, {"text": "a", "logits": [1, 2]})
    soft_labels.check_complete("answers.jsonl", logits, CORPUS.texts, np.array([0, 2]))
    with pytest.raises(InputError, match="answers.jsonl: no soft labels for 2 of the 3 texts to learn from, among them 'b'"):
        soft_labels.check_complete("answers.jsonl", logits, CORPUS.texts, np.array([0, 1, 3]))


def test_a_large_file_is_read_in_pieces(tmp_path):
    """Lines of other texts leave nothing behind: memory stays far below the size of the file."""
    path = tmp_path / "answers.jsonl"
    with open(path, "w") as file:
        file.writelines(f'{{"text": "text {i}", "probabilities": [0.5, 0.5], "note": "{"x" * 400}"}}\n' for i in range(20_000))
    tracemalloc.start()
    soft_labels.load(path, CORPUS)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < path.stat().st_size / 10 < MEMORY * path.stat().st_size
