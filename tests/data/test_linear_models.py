"""data.linear_models: a linear model comes back from its folder, and a folder that does not fit is refused in one line."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from scipy.special import softmax

from common import InputError
from data import linear_models
from data.linear_models import LinearModel

CHINESE, PAIRS = ["今天天气很好", "这本书不错"], [("oil", "wheat"), ("a bank", "oil")]
TEXTS = ["oil prices rose", "wheat prices fell", "the bank rose", "net profit fell", "oil and wheat"]


def model_of(texts, borders, learned, classes, characters=False, **more):
    terms = linear_models.vectorizer(characters).fit([" ".join(text) for text in texts] if more.get("pairs") else texts)
    rng, size = np.random.default_rng(0), len(terms.vocabulary_)
    weights, biases = (rng.normal(0, 1, shape).astype(np.float32) for shape in ((size, borders), borders))
    return LinearModel(terms, weights, biases, np.array(learned), classes, **more)


MODELS = {
    "two classes": (TEXTS, model_of(TEXTS, 1, [0, 1], ["a", "b"])),
    "one that is not learned": (TEXTS, model_of(TEXTS, 3, [0, 2, 3], [*"abcd"], inverse_temperature=2.5)),
    "two of three": (TEXTS, model_of(TEXTS, 1, [0, 2], [*"abc"])),
    "characters": (CHINESE, model_of(CHINESE, 3, [0, 1, 2], [*"abc"], characters=True)),
    "pairs": (PAIRS, model_of(PAIRS, 1, [0, 1], ["a", "b"], pairs=True)),
}


@pytest.mark.parametrize("name", MODELS)
def test_it_comes_back(tmp_path, name):
    texts, model = MODELS[name]
    linear_models.save(tmp_path, model)
    again = linear_models.load(tmp_path)
    np.testing.assert_array_equal(again.logits(texts), model.logits(texts))
    assert again.weights.flags.c_contiguous == model.weights.flags.c_contiguous is True  # as scipy multiplies without a copy
    assert (again.classes, again.pairs, again.inverse_temperature) == (model.classes, model.pairs, model.inverse_temperature)
    p = again.probabilities(texts)
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-5)
    assert (p[:, [*{*range(len(model.classes))} - {*model.learned}]] == 0).all()


def test_a_text_by_hand():
    """1 + log(count), times idf, of length 1; a word that training texts have not is not counted."""
    model = model_of(["oil oil wheat", "wheat"], 3, [0, 1, 2], [*"abc"], inverse_temperature=2.0)
    counts = {"oil": 2, "oil oil": 1, "oil wheat": 1, "wheat": 1}
    idf = {term: np.log(3 / (2 if term == "wheat" else 1 + 1)) + 1 for term in counts} | {"wheat": np.log(3 / 3) + 1}
    row = np.array([(1 + np.log(counts[term])) * idf[term] for term in sorted(counts)])
    distances = (row / np.linalg.norm(row)) @ model.weights + model.biases
    np.testing.assert_allclose(model.logits(["Oil, oil: wheat"])[0], distances, rtol=1e-5)
    np.testing.assert_allclose(model.probabilities(["oil oil wheat"])[0], softmax(2 * distances), rtol=1e-5)
    np.testing.assert_allclose(model.logits(["gold"])[0], model.biases)


@pytest.mark.parametrize("pairs", [False, True])
def test_an_endless_text_is_cut_before_its_terms_are_counted(monkeypatch, pairs):
    monkeypatch.setattr(linear_models, "LONGEST", 10)
    model = MODELS["pairs"][1] if pairs else MODELS["two classes"][1]
    text, longer, other = "oil wheat ", "oil wheat bank rose", "oil bank"
    if pairs:
        text, longer, other = (tuple(each.split(" ", 1)) for each in (text, longer, other))
    found = model.logits([text, longer, other])
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


def entries(**changed):
    def change(folder):
        config = json.loads((folder / "config.json").read_text("utf-8"))
        (folder / "config.json").write_text(json.dumps({k: v for k, v in (config | changed).items() if v is not None}))
    return change


def terms(**changed):
    return lambda folder: (folder / "terms.json").write_text(
        json.dumps(json.loads((folder / "terms.json").read_text("utf-8")) | changed))


def arrays(**changed):
    def change(folder):
        found = load_file(folder / "model.safetensors")
        save_file({name: changed.get(name, lambda x: x)(array) for name, array in found.items()}, folder / "model.safetensors")
    return change


def bfloat16(folder):
    """The same weights' header, of a type of two bytes."""
    content = (folder / "model.safetensors").read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = {name: entry | {"dtype": "BF16", "data_offsets": [end // 2 for end in entry["data_offsets"]]}
              for name, entry in json.loads(content[8 : 8 + size]).items()}
    text = json.dumps(header).encode()
    half = len(content[8 + size :]) // 2
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + content[8 + size :][:half])


DAMAGES = {
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors is missing"),
    "junk for weights": (lambda folder: (folder / "model.safetensors").write_bytes(b"junk"), "not a safetensors file"),
    "junk for terms": (lambda folder: (folder / "terms.json").write_bytes(b"\xff"), "terms.json: not a JSON object"),
    "no temperature": (entries(inverse_temperature=None), "inverse_temperature is missing"),
    "a negative one": (entries(inverse_temperature=-1.0), "inverse_temperature is -1.0, expected a number"),
    "no classes": (entries(id2label=None), "'id2label' is missing"),
    "classes of another kind": (entries(id2label=[1]), "not a linear model"),
    "a class that is no string": (entries(id2label={"0": 1, "1": "b", "2": "c", "3": "d"}), "not a linear model"),
    "half of a surrogate pair": (entries(id2label={"0": "\ud800", "1": "b", "2": "c", "3": "d"}), "not a linear model"),
    "a class that is not there": (entries(learned=[0, 2, 7]), "learned is to name two or more of its 4 classes"),
    "a class twice": (entries(learned=[0, 2, 2]), "learned is to name two or more of its 4 classes"),
    "half a class": (entries(learned=[0, 2, 0.5]), "learned is to name two or more of its 4 classes"),
    "a class beyond all": (entries(learned=[0, 10**30]), "learned is to name two or more of its 4 classes"),
    "one class": (entries(learned=[0]), "learned is to name two or more of its 4 classes"),
    "none": (entries(learned=[]), "learned is to name two or more of its 4 classes"),
    "pairs of another kind": (entries(pairs="yes"), "pairs is 'yes', expected true or false"),
    "no terms": (terms(terms=[]), "not a linear model"),
    "a term twice": (terms(terms=["oil", "oil"]), "not a linear model"),
    "a term that is no string": (terms(terms=[1]), "not a linear model"),
    "terms as one string": (terms(terms="oil"), "terms is to be a list"),
    "terms as an object": (terms(terms={"oil": 0}), "terms is to be a list"),
    "characters in words": (terms(characters="yes"), "characters true or false"),
    "fewer terms": (terms(terms=["oil"]), "expected float32 below 1e+20 of"),
    "fewer borders": (arrays(biases=lambda x: x[:2]), "expected float32 below 1e+20 of"),
    "not finite": (arrays(weights=lambda x: x * np.inf), "expected float32 below 1e+20 of"),
    "too large": (arrays(weights=lambda x: x * 1e30), "expected float32 below 1e+20 of"),
    "a type that numpy has not": (bfloat16, "not a safetensors file of float32"),
    "another type": (arrays(idf=lambda x: x.astype(np.float64)), "expected float32 below 1e+20 of"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_folder_that_does_not_fit_is_refused_in_one_line(tmp_path, name):
    damage, message = DAMAGES[name]
    linear_models.save(tmp_path, MODELS["one that is not learned"][1])
    damage(tmp_path)
    with pytest.raises(InputError) as error:
        linear_models.load(tmp_path)
    assert message in str(error.value) and str(tmp_path) in str(error.value) and "\n" not in str(error.value)
