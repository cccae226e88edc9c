"""data.teachers: classifiers that were fine-tuned elsewhere, in each format, their labels, and what is refused."""

import json
import shutil
from types import SimpleNamespace

import h5py
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from scipy.special import softmax

from common import InputError
from common.bert import build_classifier
from data import berts, teachers
from tests import tiny
from tests.numpy_bert import numpy_bert

NAMES = ["a", "b", "c", "d"]
LABELS = {str(i): name for i, name in enumerate(NAMES)}


def corpus(classes):
    return SimpleNamespace(name="mine", classes=list(classes))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A classifier as Hugging Face lays it out, of the classes a to d."""
    return tiny.write_classifier(tmp_path_factory.mktemp("teacher") / "hugging-face", labels=LABELS)


@pytest.fixture(scope="module")
def dense(bert_folder):
    """BERT + [CLS] + Dense, as the original programs build it."""
    classifier = build_classifier(berts.load(str(bert_folder)), 4, dropout=0.0)
    classifier.head.set_weights([weight + 0.1 for weight in classifier.head.get_weights()])
    return classifier


def probabilities(bert, token_ids):
    """Of a classifier in numpy: softmax(W tanh(P h_[CLS] + p) + b)."""
    hidden, (kernel, bias) = numpy_bert(bert.weights, bert.config, token_ids)[-1][:, 0], map(bert.weights.get, berts.POOLER)
    pooled = np.tanh(hidden @ kernel + bias)
    return softmax(pooled @ bert.weights["output_weights"].T + bert.weights["output_bias"], axis=-1)


# What is read


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_hugging_face(tmp_path, dtype):
    folder = tiny.write_classifier(tmp_path / "bert", labels=LABELS, dtype=dtype)
    bert = teachers.load(str(folder), corpus(NAMES))
    for name, value in (tiny.weights() | tiny.classifier_weights()).items():
        assert bert.weights[name].dtype == np.float32
        np.testing.assert_array_equal(bert.weights[name], value.astype(dtype).astype(np.float32), err_msg=name)
    token_ids = np.array([[2, 7, 9, 3, 0, 0], [2, 30, 31, 32, 33, 3]], np.int32)
    found = build_classifier(bert, 4, dropout=0.0).model.predict_on_batch([token_ids, np.zeros_like(token_ids)])
    np.testing.assert_allclose(softmax(found, axis=-1), probabilities(bert, token_ids), atol=1e-5)


def test_googles_run_classifier_has_numbers_for_labels(tmp_path):
    folder = tiny.write_classifier(tmp_path / "bert", layout="google")
    bert = teachers.load(str(folder), corpus("0123"))
    for name, value in (tiny.weights() | tiny.classifier_weights()).items():
        np.testing.assert_array_equal(bert.weights[name], value, err_msg=name)


@pytest.mark.parametrize("file", ["best.h5", "best.weights"])
def test_a_weights_file_of_bert4keras(bert_folder, dense, tmp_path, file):
    """HDF5, and what tf_keras makes of a name that does not end in .h5."""
    dense.model.save_weights(str(tmp_path / file))
    bert = teachers.load(str(tmp_path / file), corpus("0123"), str(bert_folder))
    assert bert.is_classifier and not bert.has_pooler
    assert bert.weights.keys() == dense.bert.weights.keys()
    for name, value in dense.bert.weights.items():
        np.testing.assert_array_equal(bert.weights[name], value, err_msg=name)


@pytest.mark.parametrize(
    ("file", "prefix"), [("best.h5", ""), ("best.h5", "Teacher-"), ("best.h5", "Predecessor-"), ("best.weights", "")],
)
def test_a_weights_file_of_the_original_programs(bert_folder, tmp_path, file, prefix):
    """Their layers have a prefix in HDF5, and their students are the first layers of a BERT."""
    first = build_classifier(berts.keep_layers(berts.load(str(bert_folder)), [0, 1]), 4, dropout=0.0)
    first.model.save_weights(str(tmp_path / file))
    if file.endswith(".h5"):
        with h5py.File(tmp_path / file, "r+") as stored:
            names = [name for name in map(teachers._decoded, stored.attrs["layer_names"]) if "-" in name]
            for name in names if prefix else ():
                stored.move(name, prefix + name)
            others = [name for name in map(teachers._decoded, stored.attrs["layer_names"]) if "-" not in name]
            stored.attrs["layer_names"] = [prefix + name for name in names] + others
    bert = teachers.load(str(tmp_path / file), corpus("0123"), str(bert_folder))
    assert bert.layers == 2 and bert.weights.keys() == first.bert.weights.keys() | {*berts.OUTPUT}
    for name, value in first.bert.weights.items():
        np.testing.assert_array_equal(bert.weights[name], value, err_msg=name)


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_a_whole_model_of_bert4keras(bert_folder, dense, tmp_path):
    dense.model.save(str(tmp_path / "model.h5"))
    bert = teachers.load(str(tmp_path / "model.h5"), corpus("0123"), str(bert_folder))
    np.testing.assert_array_equal(bert.weights["output_weights"], dense.bert.weights["output_weights"])


@pytest.mark.parametrize("pooler", [True, False])
def test_what_we_write_is_read_without_loss(folder, dense, tmp_path, pooler):
    """With a pooler as it is; without one the detour that Hugging Face's format takes is taken back."""
    bert = teachers.load(str(folder), corpus(NAMES)) if pooler else dense.bert
    berts.save(tmp_path, bert, NAMES, maxlen=16)
    again = teachers.load(str(tmp_path), corpus(NAMES))
    assert again.has_pooler == pooler and again.weights.keys() == bert.weights.keys()
    for name, value in bert.weights.items():
        np.testing.assert_array_equal(again.weights[name], value, err_msg=name)


def test_a_pooler_is_written_as_it_is(folder, tmp_path):
    berts.save(tmp_path, teachers.load(str(folder), corpus(NAMES)), NAMES)
    written, read = (load_file(path / "model.safetensors") for path in (tmp_path, folder))
    for name in berts.CLASSIFIER:
        np.testing.assert_array_equal(written[name], read[name])


def test_classes_are_in_the_order_of_the_data(folder):
    bert = teachers.load(str(folder), corpus("dbac"))
    order = [NAMES.index(name) for name in "dbac"]
    for name in berts.OUTPUT:
        np.testing.assert_array_equal(bert.weights[name], tiny.classifier_weights()[name][order])


def test_labels_without_names_are_numbers(tmp_path):
    labels = {str(i): f"LABEL_{i}" for i in range(11)}
    folder = tiny.write_classifier(tmp_path / "bert", labels=labels)
    bert = teachers.load(str(folder), corpus(map(str, range(11))))
    np.testing.assert_array_equal(bert.weights["output_bias"], tiny.classifier_weights(11)["output_bias"])
    again = teachers.load(str(folder), corpus(sorted(labels.values())))  # unless these are the names that the data has
    assert again.weights["output_bias"][2] == bert.weights["output_bias"][10]


def test_a_folder_that_is_called_as_a_named_bert(folder, tmp_path, monkeypatch):
    shutil.copytree(folder, tmp_path / "minilm-l6")
    monkeypatch.chdir(tmp_path)
    bert = teachers.load("minilm-l6", corpus(NAMES))
    assert bert.layers == 4 and bert.source == "minilm-l6"


def test_the_first_layers_are_a_classifier_too(folder):
    bert = berts.keep_layers(teachers.load(str(folder), corpus(NAMES)), [0])
    assert bert.has_pooler
    back = build_classifier(bert, 4, dropout=0.0).bert
    assert back.weights.keys() == bert.weights.keys()
    for name, value in bert.weights.items():
        np.testing.assert_array_equal(back.weights[name], value, err_msg=name)


# What is refused


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "roberta"}, "model_type is roberta; only bert can be read"),
        ({"problem_type": "multi_label_classification"}, "problem_type is multi_label_classification; expected a classifier"),
        ({"problem_type": "regression"}, "problem_type is regression"),
        ({"labels": {"0": "a"}}, "has one output, so it is a regression"),
        ({"leave_out": berts.OUTPUT}, "no classifier in its checkpoint; expected a folder of BertForSequenceClassification"),
        ({"leave_out": berts.POOLER[1:]}, "no pooler in its checkpoint"),
        ({"leave_out": berts.OUTPUT[1:]}, "no classifier in its checkpoint"),
        ({"id2label": {"0": "a", "1": "b", "2": "c"}}, "id2label must name 4 labels, as many as its classifier has"),
        ({"id2label": ["a", "b", "c", "d"]}, "id2label must name 4 labels"),
        ({"id2label": {"0": "a", "1": "b", "2": "c", "3": "c"}}, "its 4 labels are not the 4 of mine: it has not 'd'"),
        ({"labels": LABELS | {"4": "e"}}, "its 5 labels are not the 4 of mine: mine has not 'e'"),
        ({"labels": {str(i): f"LABEL_{i}" for i in range(4)}},
         "it has not 'a', 'b', 'c', 'd'; mine has not '0', '1', '2', '3'"),
        ({"labels": {str(i): f"x{i}" for i in range(9)}}, "mine has not 'x0', 'x1', 'x2', 'x3', 'x4' and 4 more"),
    ],
)
def test_folders_that_are_no_teacher(tmp_path, change, message):
    folder = tiny.write_classifier(tmp_path / "bert", **{"labels": LABELS} | change)
    with pytest.raises(InputError, match=message) as refusal:
        teachers.load(str(folder), corpus(NAMES))
    assert "\n" not in str(refusal.value)


def test_damaged_teachers(folder, tmp_path):
    broken = shutil.copytree(folder, tmp_path / "bert")
    whole = (folder / "model.safetensors").read_bytes()
    (broken / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="model.safetensors: not a readable safetensors file"):
        teachers.load(str(broken), corpus(NAMES))
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors | {"classifier.weight": np.zeros((4, 31), np.float32)}, broken / "model.safetensors")
    with pytest.raises(InputError, match=r"output_weights has shape \(4, 31\), its config says \(4, 32\)"):
        teachers.load(str(broken), corpus(NAMES))
    shutil.copy(folder / "model.safetensors", broken)
    (broken / "vocab.txt").write_text((folder / "vocab.txt").read_text("utf-8") + "one more\n")
    with pytest.raises(InputError, match="the tokenizer's ids go up to 120, the model has 120 embeddings"):
        teachers.load(str(broken), corpus(NAMES))
    (broken / "config.json").write_text('{"model_type": "distilbert", "dim": 32}')
    with pytest.raises(InputError, match="model_type is distilbert; only bert can be read"):
        teachers.load(str(broken), corpus(NAMES))
    (broken / "config.json").write_text(json.dumps(tiny.CONFIG)[:-5])
    with pytest.raises(InputError, match="not a JSON object"):
        teachers.load(str(broken), corpus(NAMES))
    with pytest.raises(InputError, match="nowhere: there is no such folder or file; expected a folder of"):
        teachers.load(str(tmp_path / "nowhere"), corpus(NAMES))


def test_weights_files_that_do_not_fit(bert_folder, dense, tmp_path):
    def refuse(path, message, bert=bert_folder):
        with pytest.raises(InputError, match=message):
            teachers.load(str(path), corpus("0123"), str(bert))

    with h5py.File(tmp_path / "odd.h5", "w") as file:
        file.attrs["layer_names"] = 7
    refuse(tmp_path / "odd.h5", "odd.h5: not a weights file that bert4keras saved")
    (tmp_path / "text.h5").write_text("not HDF5")
    refuse(tmp_path / "text.h5", "text.h5: not a weights file that bert4keras saved")
    shallow = build_classifier(berts.keep_layers(berts.load(str(bert_folder)), [0, 1]), 4, dropout=0.0)
    shallow.model.save_weights(str(tmp_path / "shallow.h5"))
    with h5py.File(tmp_path / "shallow.h5", "r+") as file:
        file["Transformer-1-FeedForward"].attrs["weight_names"] = []
    refuse(tmp_path / "shallow.h5", "no whole Transformer-1-FeedForward; expected a BERT of 4 layers or fewer and one Dense")
    two = tiny.write_bert(tmp_path / "two", config=tiny.CONFIG | {"num_hidden_layers": 2})
    for name in ("deep.h5", "deep.weights"):
        dense.model.save_weights(str(tmp_path / name))
        refuse(tmp_path / name, "beside the BERT; expected a BERT of 2 layers or fewer and one Dense", two)
    dense.encoder.model.save_weights(str(tmp_path / "encoder.h5"))
    refuse(tmp_path / "encoder.h5", "nothing beside the BERT")
    narrow = tiny.write_bert(tmp_path / "narrow", config=tiny.CONFIG | {"intermediate_size": 48})
    refuse(tmp_path / "deep.h5", r"intermediate/dense/kernel has shape \(32, 64\), its config says \(32, 48\)", narrow)
    with pytest.raises(InputError, match="its 4 labels are not the 2 of mine: mine has not '2', '3'"):
        teachers.load(str(tmp_path / "deep.h5"), corpus("01"), str(bert_folder))
    for name, file in (("deep.h5", "deep.h5"), ("deep.weights", "deep.weights.data-00000-of-00001")):
        (tmp_path / file).write_bytes((tmp_path / file).read_bytes()[:9000])  # cut short
        refuse(tmp_path / name, f"{name}: not a weights file that bert4keras saved")
