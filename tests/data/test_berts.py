"""data.berts: BERTs from disk in each layout, their tokenizers, and what is refused; classifiers as Hugging Face has them."""

import json
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

from common import InputError
from data import berts
from tests import tiny
from tests.taken import CLASSES, LINES


@pytest.mark.parametrize("layout", ["hugging-face", "google", "float16"])
def test_weights_are_those_that_were_written(bert_folder, google_folder, tmp_path, layout):
    if layout == "float16":
        folder = tiny.write_bert(tmp_path / "half", dtype=np.float16)
    else:
        folder = google_folder if layout == "google" else bert_folder
    bert = berts.load(str(folder))
    wanted = {name: value.astype("float16" if layout == "float16" else "float32") for name, value in tiny.weights().items()}
    for name, value in wanted.items():
        assert bert.weights[name].dtype == np.float32
        np.testing.assert_array_equal(bert.weights[name], value, err_msg=name)


def test_minilm_has_the_tokens_of_the_reference_tokenizer():
    reference = tiny.minilm_reference()["tokens"]
    examples = tiny.tokenized([entry["text"] for entry in reference], berts.load("minilm-l6"), maxlen=24)
    for i, entry in enumerate(reference):
        assert examples.example(i).tolist() == entry["ids"]


def test_padding_id_is_the_tokenizers(bert_folder, google_folder, tmp_path):
    assert berts.load(str(google_folder)).pad_id == 0
    folder = shutil.copytree(bert_folder, tmp_path / "bert")
    tokenizer = berts.load(str(bert_folder)).tokenizer
    tokenizer.enable_padding(pad_id=4, pad_token="[MASK]")
    tokenizer.save(str(folder / "tokenizer.json"))
    assert berts.load(str(folder)).pad_id == 4
    google = shutil.copytree(google_folder, tmp_path / "google")
    words = (google / "vocab.txt").read_text("utf-8").split("\n")
    words[0], words[4] = words[4], words[0]
    (google / "vocab.txt").write_text("\n".join(words))
    assert berts.load(str(google)).pad_id == 4


def test_a_tokenizer_json_counts_before_vocab_txt(bert_folder, tmp_path):
    folder = shutil.copytree(bert_folder, tmp_path / "bert")
    tokenizer = berts.load(str(bert_folder)).tokenizer
    tokenizer.enable_padding(length=40)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "vocab.txt").unlink()
    assert berts.load(str(folder)).tokenizer.encode("w1 w2").ids == [2, 6, 7, 3]


# Layers


@pytest.mark.parametrize(
    ("layers", "count", "spread", "expected"),
    [(12, 3, False, [0, 1, 2]), (12, 3, True, [3, 7, 11]), (6, 3, True, [1, 3, 5]), (6, 4, True, [0, 2, 3, 5]),
     (6, 6, True, [0, 1, 2, 3, 4, 5]), (6, 1, True, [5])],
)
def test_layers_to_keep(layers, count, spread, expected):
    assert berts.layers_to_keep(layers, count, spread) == expected


def test_the_layers_asked_for_are_kept(bert_folder):
    bert = berts.load(str(bert_folder))
    small = berts.keep_layers(bert, [1, 3])
    assert small.layers == 2 and small.weights.keys() == berts.expected_shapes(small.config).keys()
    for new, old in enumerate((1, 3)):
        name = "bert/encoder/layer_{}/output/dense/kernel"
        np.testing.assert_array_equal(small.weights[name.format(new)], bert.weights[name.format(old)])


def test_names_there_and_back():
    for name in berts.expected_shapes(tiny.CONFIG):
        assert berts.google_name(berts.hugging_face_name(name)) == name
    assert berts.google_name("bert.pooler.dense.weight") is None
    assert berts.google_name("embeddings.position_ids") is None


# Written


def bert_for_sequence_classification(layers, hidden, inner, vocabulary, positions, classes):
    """{name: shape} of what transformers' BertForSequenceClassification.state_dict() holds (version 5.23), but position_ids."""
    norm = {"weight": (hidden,), "bias": (hidden,)}

    def dense(into, out):
        return {"weight": (out, into), "bias": (out,)}

    parts = {
        "bert.embeddings.word_embeddings": {"weight": (vocabulary, hidden)},
        "bert.embeddings.position_embeddings": {"weight": (positions, hidden)},
        "bert.embeddings.token_type_embeddings": {"weight": (2, hidden)}, "bert.embeddings.LayerNorm": norm,
        "bert.pooler.dense": dense(hidden, hidden), "classifier": dense(hidden, classes),
    }
    for i in range(layers):
        layer = f"bert.encoder.layer.{i}"
        parts |= {f"{layer}.attention.self.{part}": dense(hidden, hidden) for part in ("query", "key", "value")}
        parts |= {
            f"{layer}.attention.output.dense": dense(hidden, hidden), f"{layer}.attention.output.LayerNorm": norm,
            f"{layer}.intermediate.dense": dense(hidden, inner), f"{layer}.output.dense": dense(inner, hidden),
            f"{layer}.output.LayerNorm": norm,
        }
    return {f"{part}.{name}": shape for part, shapes in parts.items() for name, shape in shapes.items()}


def test_tensors_are_those_of_transformers(taken):
    tensors = load_file(taken.folder / "model.safetensors")
    assert {name: tensor.shape for name, tensor in tensors.items()} == bert_for_sequence_classification(2, 32, 64, 120, 40, 4)
    assert {str(tensor.dtype) for tensor in tensors.values()} == {"float32"}


def test_config_and_tokenizer(taken):
    folder, bert = taken.folder, taken.bert
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == ["BertForSequenceClassification"] and config["model_type"] == "bert"
    assert config["num_hidden_layers"] == 2 and config["maxlen"] == 16 and config["pad_token_id"] == 0
    assert config["id2label"] == {str(i): name for i, name in enumerate(CLASSES)}
    assert config["label2id"] == {name: i for i, name in enumerate(CLASSES)}
    names = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert names["model_max_length"] == 16
    assert [names[f"{name}_token"] for name in ("cls", "sep", "pad", "unk", "mask")] == [
        "[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]"]
    assert (folder / "vocab.txt").read_text(encoding="utf-8").split() == tiny.SPECIAL + tiny.WORDS
    whole = Tokenizer.from_str(bert.tokenizer.to_str())
    whole.no_truncation()  # whoever tokenized with it last, it cuts to what they wanted
    assert Tokenizer.from_file(str(folder / "tokenizer.json")).encode(LINES[0]).ids == whole.encode(LINES[0]).ids


@given(arrays(np.float32, (3, 16), elements=st.floats(-20, 20, width=32)),
       arrays(np.float32, (16, 5), elements=st.floats(-0.25, 0.25, width=32)))
def test_the_pooler_changes_nothing_that_counts(hidden, kernel):
    """tanh(ε h) / ε is h but for ε² h³ / 3, for hidden states of up to 20 and classifiers as large as they come."""
    scale = np.float32(berts.POOLER_SCALE)
    found = np.tanh(scale * hidden) @ (kernel / scale)
    cubic = berts.POOLER_SCALE**2 / 3 * np.abs(hidden.astype(float)) ** 3 @ np.abs(kernel)
    rounding = 1e-5 * (1 + np.abs(hidden) @ np.abs(kernel))
    assert (np.abs(found - hidden @ kernel) <= cubic + rounding).all()


def test_a_vocabulary_with_holes_is_written_as_tokenizer_json_alone(tmp_path, bert_folder):
    for file in bert_folder.iterdir():
        shutil.copy(file, tmp_path / file.name)
    lines = (tmp_path / "vocab.txt").read_text("utf-8").splitlines()
    (tmp_path / "vocab.txt").write_text("\n".join([*lines[:50], "", *lines[51:]]))
    bert = berts.load(str(tmp_path))
    berts.save(tmp_path / "out", bert, CLASSES, maxlen=16)
    assert not (tmp_path / "out" / "vocab.txt").exists()
    again = Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    assert again.encode(LINES[0]).ids == bert.tokenizer.encode(LINES[0]).ids


def test_without_a_head_only_the_encoder_is_written(bert_folder, tmp_path):
    bert = berts.load(str(bert_folder))
    berts.save(tmp_path, bert, CLASSES, maxlen=16, speed=0.5)
    again = berts.load(str(tmp_path))
    assert load_file(tmp_path / "model.safetensors").keys() == {berts.hugging_face_name(name) for name in bert.weights}
    for name, value in bert.weights.items():
        np.testing.assert_array_equal(again.weights[name], value)
    assert again.config["architectures"] == ["BertModel"] and again.config["speed"] == 0.5


# What is refused


def test_no_such_bert(tmp_path):
    with pytest.raises(InputError, match="neither a folder nor one of minilm-l6, chinese-bert-base"):
        berts.load(str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="neither config.json nor bert_config.json"):
        berts.load(str(tmp_path))


def test_too_few_positions(bert_folder):
    with pytest.raises(InputError, match="--maxlen 41: .* has 40 positions"):
        berts.load(str(bert_folder), maxlen=41)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": None}, "hidden_size is missing"),
        ({"hidden_size": "32"}, "hidden_size is '32', expected a whole number from 1 to 100,000"),
        ({"layer_norm_eps": None}, "layer_norm_eps is None, expected a number from 1e-30 to 1"),
        ({"num_attention_heads": 5}, "hidden_size is not a multiple of num_attention_heads"),
        ({"model_type": "roberta"}, "model_type is roberta; only bert"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type is relative_key"),
        ({"hidden_act": "mish"}, "hidden_act mish is none of gelu"),
        ({"num_hidden_layers": 5}, r"the checkpoint has no bert/encoder/layer_4.* \(bert.encoder.layer.4"),
        ({"intermediate_size": 128}, r"has shape \(32, 64\), its config says \(32, 128\)"),
        ({"vocab_size": 100}, r"word_embeddings has shape \(120, 32\)"),
    ],
)
def test_configs_that_do_not_fit(bert_folder, tmp_path, change, message):
    folder = shutil.copytree(bert_folder, tmp_path / "bert")
    config = {key: value for key, value in (tiny.CONFIG | change).items() if (key, value) != ("hidden_size", None)}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=message):
        berts.load(str(folder))


def test_damaged_files(bert_folder, google_folder, tmp_path):
    folder = shutil.copytree(bert_folder, tmp_path / "bert")
    tensors = load_file(folder / "model.safetensors")
    del tensors["bert.embeddings.LayerNorm.bias"]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(InputError, match="the checkpoint has no bert/embeddings/LayerNorm/beta"):
        berts.load(str(folder))
    (folder / "model.safetensors").write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match="not a readable safetensors file"):
        berts.load(str(folder))
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"neither model.safetensors nor bert_model.ckpt.index in it$"):
        berts.load(str(folder))
    (folder / "pytorch_model.bin").write_bytes(b"of an older transformers")
    with pytest.raises(InputError, match=r"in it; of pytorch_model.bin transformers makes the former: from_pretrained"):
        berts.load(str(folder))
    folder = shutil.copytree(google_folder, tmp_path / "google")
    data = folder / "bert_model.ckpt.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[: data.stat().st_size // 2])
    with pytest.raises(InputError, match="bert_model.ckpt: not a readable TensorFlow checkpoint"):
        berts.load(str(folder))
    (folder / "bert_model.ckpt.index").write_bytes(b"not an index")
    with pytest.raises(InputError, match="not a readable TensorFlow checkpoint"):
        berts.load(str(folder))
    for broken in ("[", "[]", "3"):
        (folder / "bert_config.json").write_text(broken)
        with pytest.raises(InputError, match="not a JSON object|is missing"):
            berts.load(str(folder))


def test_vocabularies_that_do_not_fit(bert_folder, tmp_path):
    folder = shutil.copytree(bert_folder, tmp_path / "bert")
    vocabulary = folder / "vocab.txt"
    words = vocabulary.read_text("utf-8")
    vocabulary.write_text(words + "one more\n")
    with pytest.raises(InputError, match="the tokenizer's ids go up to 120, the model has 120 embeddings"):
        berts.load(str(folder))
    vocabulary.write_text(words.replace("[SEP]\n", ""))
    with pytest.raises(InputError, match=r"no line \[SEP\]"):
        berts.load(str(folder))
    vocabulary.write_text(words)
    (folder / "tokenizer_config.json").write_text("[1]")
    with pytest.raises(InputError, match="tokenizer_config.json: not a JSON object"):
        berts.load(str(folder))
    (folder / "tokenizer_config.json").unlink()
    vocabulary.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="not UTF-8"):
        berts.load(str(folder))
    vocabulary.unlink()
    with pytest.raises(InputError, match=r"neither tokenizer.json nor vocab.txt"):
        berts.load(str(folder))


def test_vocab_txt_is_read_as_the_tokenizer_config_says(bert_folder, tmp_path):
    """Accents and Chinese characters; the word pieces of another kind of tokenizer cannot be had of it."""
    folder = shutil.copytree(bert_folder, tmp_path / "bert")
    words = (folder / "vocab.txt").read_text("utf-8").split("\n")
    words[20:23] = "über", "uber", "東京"
    (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")

    def tokens(**said):
        (folder / "tokenizer_config.json").write_text(json.dumps(said))
        return berts.load(str(folder)).tokenizer.encode("Über 東京").tokens[1:-1]

    assert tokens()[0] == "uber" and "東京" not in tokens() and tokens(tokenizer_class="BertTokenizer") == tokens()
    assert tokens(strip_accents=False)[0] == "über" and tokens(strip_accents="yes") == tokens()
    assert tokens(tokenize_chinese_chars=False) == ["uber", "東京"]
    with pytest.raises(InputError, match="vocab.txt: its tokenizer is a BertJapaneseTokenizer, which splits texts otherwise"):
        tokens(tokenizer_class="BertJapaneseTokenizer")
    (folder / "tokenizer_config.json").unlink()
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"tokenizer_class": "BertJapaneseTokenizer"}))
    with pytest.raises(InputError, match="vocab.txt: its tokenizer is a BertJapaneseTokenizer"):
        berts.load(str(folder))


def test_a_vocabulary_with_capitals_is_cased(google_folder, tmp_path):
    folder = shutil.copytree(google_folder, tmp_path / "google")
    words = (folder / "vocab.txt").read_text("utf-8")
    (folder / "vocab.txt").write_text(words.replace("w1\n", "W1\n").replace("w2\n", "W2\n"))
    assert berts.load(str(folder)).tokenizer.encode("W1 w1 w3").ids == [2, 6, 1, 8, 3]
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    assert berts.load(str(folder)).tokenizer.encode("W1 w1 W3").ids == [2, 1, 1, 8, 3]


def test_a_student_made_from_a_student_says_nothing_of_the_first(bert_folder, tmp_path):
    bert = berts.keep_layers(berts.load(str(bert_folder)), [0])
    stopping = {"speed": 0.5, "uncertainty_top_k": 3, "promise": {"texts": 1000}}
    berts.save(tmp_path / "first", bert, ["a", "b"], maxlen=16, pairs=True, **stopping)
    berts.save(tmp_path / "second", berts.load(str(tmp_path / "first")), ["a", "b"], maxlen=8)
    first, second = (json.loads((tmp_path / name / "config.json").read_text("utf-8")) for name in ("first", "second"))
    assert second == {key: value for key, value in first.items() if key not in {"pairs", *stopping}} | {"maxlen": 8}


def test_several_checkpoints(google_folder, tmp_path):
    folder = shutil.copytree(google_folder, tmp_path / "google")
    for path in folder.glob("bert_model.ckpt.*"):
        shutil.copy(path, folder / path.name.replace("bert_model.ckpt", "model.ckpt-2000"))
    berts.load(str(folder))  # the one with the published name
    for path in folder.glob("bert_model.ckpt.*"):
        path.rename(folder / path.name.replace("bert_model.ckpt", "model.ckpt-1000"))
    with pytest.raises(InputError, match="several checkpoints"):
        berts.load(str(folder))
