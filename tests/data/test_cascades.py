"""data.cascades: each text is answered by the one of the two that it is for, by that one's own tokenizer and classes."""

import numpy as np
import pytest
from scipy.special import softmax

from common import InputError
from data import berts
from data.cascades import UNCERTAINTY, cascade_of
from data.students import Student, ask
from knowledge_distillation_fastbert import uncertainty
from tests import tiny
from tests.benchmarks.criteria import confidence

TEXTS = [f"w{i // 100} w{i % 100}" for i in range(1000)]
NAMES = ["a", "b", "c"]
PROMISE = {"max_disagreement": 1.0, "confidence": 95.0, "texts": 1000, "disagreements": 3}
CONFIG = {"threshold": 0.5, "criterion": "confidence", "promise": PROMISE}


@pytest.mark.parametrize(("name", "by_tensorflow"), [("confidence", confidence), ("entropy", uncertainty)])
@pytest.mark.parametrize("classes", [2, 3, 50])
def test_uncertainty_is_that_of_early_exits(name, by_tensorflow, classes):
    spread = np.random.default_rng(0).normal(0, 1, (200, classes)) * np.linspace(0, 60, 200)[:, None]
    p = np.concatenate([softmax(spread, axis=-1), np.eye(classes)]).astype(np.float32)
    u = UNCERTAINTY[name](p)
    np.testing.assert_allclose(u, by_tensorflow(p).numpy(), atol=1e-6)
    assert u.dtype == np.float32 and 0 <= u.min() < 1e-6 and u.max() == pytest.approx(1) and u.max() <= 1
    p[0, 0] = np.nan
    assert np.isnan(UNCERTAINTY[name](p)[0]) and not np.isnan(UNCERTAINTY[name](p)[1:]).any()


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    """Two, of the same words under other ids."""
    folder = tmp_path_factory.mktemp("tokenizers")
    orders = {"one": tiny.WORDS, "other": tiny.WORDS[::-1]}
    return [berts.load(str(tiny.write_bert(folder / name, words=words))).tokenizer for name, words in orders.items()]


def made_up(tokenizer, p, classes=NAMES, **config):
    """A Student that answers text i of TEXTS with row i of p; (which texts, at which speed) stand in its config's "asked"."""
    asked = []

    def answer(token_ids, segment_ids, speed=None):
        words = [[int(tokenizer.id_to_token(number)[1:]) for number in ids[1:3]] for ids in token_ids.tolist()]
        numbers = [100 * a + b for a, b in words]
        asked.append((numbers, speed))
        more = {} if speed is None else {"layers_used": np.full(len(p), 2)[numbers], "uncertainty": np.zeros(len(numbers))}
        return {"probabilities": p[numbers]} | more

    config = {"maxlen": 8, "pad_token_id": 0, "num_hidden_layers": 2, "asked": asked} | config
    return Student(answer, tokenizer, classes, config, f"runs/{len(config)}")


def random_p(seed):
    return softmax(np.random.default_rng(seed).normal(0, 3, (len(TEXTS), len(NAMES))), axis=-1).astype(np.float32)


@pytest.mark.parametrize("criterion", UNCERTAINTY)
def test_a_cascade_asks_its_teacher_where_it_is_unsure(tokenizers, criterion):
    """Each text once, by its own tokenizer, in whatever order its classes stand."""
    p, theirs, order = random_p(0), random_p(1), [2, 0, 1]
    p[7] = np.nan
    student, teacher = made_up(tokenizers[0], p), made_up(tokenizers[1], theirs[:, order], [NAMES[i] for i in order])
    both = cascade_of(student, teacher, CONFIG | {"criterion": criterion, "threshold": 0.3})
    answer = ask(both, TEXTS, batch_size=30)
    u = UNCERTAINTY[criterion](p)
    sure = u < 0.3
    assert 100 < sure.sum() < 900 and not sure[7]
    assert answer.keys() == {"probabilities", "answered_by", "uncertainty"} and both.classes == NAMES
    np.testing.assert_array_equal(answer["probabilities"], np.where(sure[:, None], p, theirs))
    np.testing.assert_array_equal(answer["uncertainty"], u)
    assert answer["answered_by"].tolist() == ["student" if each else "teacher" for each in sure]
    asked = [number for numbers, _ in teacher.config["asked"] for number in numbers]
    assert sorted(asked) == np.flatnonzero(~sure).tolist()


def test_at_the_ends_of_the_threshold_one_of_the_two_answers(tokenizers):
    p, theirs = random_p(0), random_p(1)
    for threshold, expected in ((0.0, theirs), (1.0, p)):
        both = cascade_of(made_up(tokenizers[0], p), made_up(tokenizers[1], theirs), CONFIG | {"threshold": threshold})
        np.testing.assert_array_equal(ask(both, TEXTS[:50])["probabilities"], expected[:50])


def test_a_fastbert_is_a_teacher_with_all_its_layers_and_no_student(tokenizers):
    stopping = made_up(tokenizers[1], random_p(1), speed=0.6)
    both = cascade_of(made_up(tokenizers[0], random_p(0)), stopping, CONFIG)
    assert ask(both, TEXTS[:50]).keys() == {"probabilities", "answered_by", "uncertainty"}
    assert {speed.item() for _, speed in stopping.config["asked"]} == {0.0}
    with pytest.raises(InputError, match="a FastBERT, which stops early by itself; as the student of a cascade any other"):
        cascade_of(stopping, both, CONFIG)


@pytest.mark.parametrize(
    ("classes", "config", "message"),
    [
        (["a", "b", "d"], {}, "its 3 classes are not the 3 of .*; a difference is 'c'"),
        (["a", "b"], {}, "its 2 classes are not the 3 of .*; a difference is 'c'"),
        (NAMES, {"pairs": True}, "reads single texts, .* reads pairs of texts: they make no cascade"),
    ],
)
def test_models_that_make_no_cascade(tokenizers, classes, config, message):
    with pytest.raises(InputError, match=message):
        cascade_of(made_up(tokenizers[0], random_p(0)), made_up(tokenizers[1], random_p(1), classes, **config), CONFIG)


def test_one_class_makes_no_cascade(tokenizers):
    one = made_up(tokenizers[0], random_p(0)[:, :1], ["a"])
    with pytest.raises(InputError, match="of one class there is nothing to be unsure of"):
        cascade_of(one, one, CONFIG)


def test_names_that_stand_twice_make_no_cascade(tokenizers):
    twice = made_up(tokenizers[0], random_p(0), ["a", "a", "b"])
    with pytest.raises(InputError, match="a difference is 'a name that stands twice'"):
        cascade_of(twice, twice, CONFIG)
