"""BERTs from disk: activations against a BERT written in numpy here, against PyTorch's figures, and what is refused."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from scipy.special import erf, softmax

from common import InputError, data, pretrained
from common.backend import keras
from tests import tiny


def numpy_bert(weights, config, token_ids, mask=True):
    """Hidden states after the embeddings and after each layer, straight from the paper (Devlin et al. 2018; no dropout)."""
    heads, hidden = config["num_attention_heads"], config["hidden_size"]
    w = {name: value.astype(np.float64) for name, value in weights.items()}
    batch, tokens = token_ids.shape

    def norm(x, name):
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + config.get("layer_norm_eps", 1e-12))
        return scaled * w[f"{name}/gamma"] + w[f"{name}/beta"]

    def dense(x, name):
        return x @ w[f"{name}/kernel"] + w[f"{name}/bias"]

    def split(x):
        return x.reshape(batch, tokens, heads, hidden // heads).transpose(0, 2, 1, 3)

    x = w["bert/embeddings/word_embeddings"][token_ids] + w["bert/embeddings/position_embeddings"][:tokens]
    x = norm(x + w["bert/embeddings/token_type_embeddings"][0], "bert/embeddings/LayerNorm")
    states = [x]
    for i in range(config["num_hidden_layers"]):
        layer = f"bert/encoder/layer_{i}"
        q, k, v = (split(dense(x, f"{layer}/attention/self/{part}")) for part in ("query", "key", "value"))
        scores = q @ k.transpose(0, 1, 3, 2) / np.sqrt(hidden // heads)
        if mask:
            scores = np.where(token_ids[:, None, None] > 0, scores, -np.inf)
        attended = (softmax(scores, axis=-1) @ v).transpose(0, 2, 1, 3).reshape(batch, tokens, hidden)
        x = norm(x + dense(attended, f"{layer}/attention/output/dense"), f"{layer}/attention/output/LayerNorm")
        inner = dense(x, f"{layer}/intermediate/dense")
        inner = 0.5 * inner * (1 + erf(inner / np.sqrt(2)))
        x = norm(x + dense(inner, f"{layer}/output/dense"), f"{layer}/output/LayerNorm")
        states.append(x)
    return states


def activations(bert, token_ids):
    """The same from the built model."""
    encoder = pretrained.build_encoder(bert, dropout=0.1)
    names = ["Embedding-Norm", *(f"Transformer-{i}-FeedForward-Norm" for i in range(bert.layers))]
    model = keras.Model(encoder.model.inputs, [encoder.layers[name].output for name in names])
    return [x.numpy() for x in model([token_ids, np.zeros_like(token_ids)], training=False)]


def some_ids(config, seed=0):
    rng = np.random.default_rng(seed)
    token_ids = rng.integers(1, config["vocab_size"], (4, 16)).astype(np.int32)
    token_ids[1, 9:] = 0
    token_ids[2, 2:] = 0
    return token_ids


@pytest.mark.parametrize("layout", ["hugging-face", "google", "float16"])
def test_activations_are_those_of_numpy(bert_folder, google_folder, tmp_path, layout):
    if layout == "float16":
        folder = tiny.write_bert(tmp_path / "half", dtype=np.float16)
    else:
        folder = google_folder if layout == "google" else bert_folder
    bert = pretrained.load(str(folder))
    token_ids = some_ids(bert.config)
    for found, expected in zip(activations(bert, token_ids), numpy_bert(bert.weights, bert.config, token_ids), strict=True):
        np.testing.assert_allclose(found[token_ids > 0], expected[token_ids > 0], atol=1e-5)
    wanted = {name: value.astype("float16" if layout == "float16" else "float32") for name, value in tiny.weights().items()}
    for name, value in wanted.items():
        np.testing.assert_array_equal(bert.weights[name], value, err_msg=name)


def test_minilm_has_the_activations_of_pytorch():
    """tests/minilm-l6.json: a few of the numbers that PyTorch transformers computes, with what it was asked."""
    with open(__file__.replace("test_pretrained.py", "minilm-l6.json"), encoding="utf-8") as file:
        reference = json.load(file)
    bert = pretrained.load("minilm-l6")
    states = activations(bert, np.array(reference["token_ids"], np.int32))
    for where, index in (("embeddings", 0), ("first_layer", 1), ("last_hidden_state", -1)):
        for row, token, values in reference[where]:
            np.testing.assert_allclose(states[index][row, token, : len(values)], values, atol=1e-4)


def test_minilm_has_the_tokens_of_the_reference_tokenizer():
    with open(__file__.replace("test_pretrained.py", "minilm-l6.json"), encoding="utf-8") as file:
        reference = json.load(file)["tokens"]
    encoded = data.encode([entry["text"] for entry in reference], pretrained.load("minilm-l6").tokenizer, maxlen=24)
    for row, entry in enumerate(reference):
        assert encoded.ids[encoded.offsets[row] : encoded.offsets[row + 1]].tolist() == entry["ids"]


def test_layer_norm_epsilon_of_the_config(tmp_path):
    bert = pretrained.load(str(tiny.write_bert(tmp_path / "bert", config=tiny.CONFIG | {"layer_norm_eps": 0.5})))
    token_ids = some_ids(bert.config)
    expected = numpy_bert(bert.weights, bert.config, token_ids)[-1]
    np.testing.assert_allclose(activations(bert, token_ids)[-1][token_ids > 0], expected[token_ids > 0], atol=1e-5)


def test_padding_with_another_id(tmp_path):
    """With id 4 for padding and id 0 an ordinary word, hidden states are still those of numpy."""
    folder = tiny.write_bert(tmp_path / "bert", config=tiny.CONFIG | {"pad_token_id": 0})  # the tokenizer knows better
    words = (folder / "vocab.txt").read_text().split("\n")
    words[0], words[4] = words[4], words[0]  # [MASK] is id 0, here a word like others
    (folder / "vocab.txt").write_text("\n".join(words))
    bert = pretrained.load(str(folder))
    texts = ["w1 [MASK] w2", "w3"]
    encoded = data.encode(texts, bert.tokenizer, 16, bert.pad_id)
    token_ids, _ = encoded.inputs(np.arange(2))
    assert token_ids.tolist() == [[2, 6, 4, 7, 3, 0, 0, 0], [2, 8, 3, 0, 0, 0, 0, 0]]
    states = numpy_bert(bert.weights, bert.config, np.array([[2, 6, 0, 7, 3]]), mask=False)
    for found, expected in zip(activations(bert, token_ids), states, strict=True):
        np.testing.assert_allclose(found[0, :5], expected[0], atol=1e-5)
    back = pretrained.read_encoder(pretrained.build_encoder(bert, dropout=0), bert)
    name = "bert/embeddings/word_embeddings"
    np.testing.assert_array_equal(back.weights[name], bert.weights[name])


def test_padding_id_is_the_tokenizers(bert_folder, google_folder, tmp_path):
    assert pretrained.load(str(google_folder)).pad_id == 0
    folder = shutil.copytree(bert_folder, tmp_path / "bert")
    tokenizer = pretrained.load(str(bert_folder)).tokenizer
    tokenizer.enable_padding(pad_id=4, pad_token="[MASK]")
    tokenizer.save(str(folder / "tokenizer.json"))
    assert pretrained.load(str(folder)).pad_id == 4
    google = shutil.copytree(google_folder, tmp_path / "google")
    words = (google / "vocab.txt").read_text().split("\n")
    words[0], words[4] = words[4], words[0]
    (google / "vocab.txt").write_text("\n".join(words))
    assert pretrained.load(str(google)).pad_id == 4


def test_a_tokenizer_json_counts_before_vocab_txt(bert_folder, tmp_path):
    folder = shutil.copytree(bert_folder, tmp_path / "bert")
    tokenizer = pretrained.load(str(bert_folder)).tokenizer
    tokenizer.enable_padding(length=40)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "vocab.txt").unlink()
    assert pretrained.load(str(folder)).tokenizer.encode("w1 w2").ids == [2, 6, 7, 3]


# Layers


@pytest.mark.parametrize(
    ("layers", "count", "spread", "expected"),
    [(12, 3, False, [0, 1, 2]), (12, 3, True, [3, 7, 11]), (6, 3, True, [1, 3, 5]), (6, 4, True, [0, 2, 3, 5]),
     (6, 6, True, [0, 1, 2, 3, 4, 5]), (6, 1, True, [5])],
)
def test_take_layers(layers, count, spread, expected):
    assert pretrained.take_layers(layers, count, spread) == expected


def test_shallow_keeps_the_layers_asked_for(bert_folder):
    bert = pretrained.load(str(bert_folder))
    small = pretrained.shallow(bert, [1, 3])
    token_ids = some_ids(bert.config)
    states = numpy_bert(small.weights, small.config, token_ids)
    assert len(states) == 3 and small.layers == 2
    for new, old in enumerate((1, 3)):
        name = "bert/encoder/layer_{}/output/dense/kernel"
        np.testing.assert_array_equal(small.weights[name.format(new)], bert.weights[name.format(old)])
    np.testing.assert_allclose(activations(small, token_ids)[-1][token_ids > 0], states[-1][token_ids > 0], atol=1e-5)


def test_read_encoder_gives_back_what_was_built(bert_folder):
    bert = pretrained.load(str(bert_folder))
    back = pretrained.read_encoder(pretrained.build_encoder(bert, dropout=0), bert)
    assert back.weights.keys() == pretrained.expected_shapes(bert.config).keys()
    for name, value in back.weights.items():
        np.testing.assert_array_equal(value, bert.weights[name])


def test_names_there_and_back():
    for name in pretrained.expected_shapes(tiny.CONFIG):
        assert pretrained.google_name(pretrained.hugging_face_name(name)) == name
    assert pretrained.google_name("bert.pooler.dense.weight") is None
    assert pretrained.google_name("embeddings.position_ids") is None


# What is refused


def test_no_such_bert(tmp_path):
    with pytest.raises(InputError, match="neither a folder nor one of minilm-l6, chinese-bert-base"):
        pretrained.load(str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="neither config.json nor bert_config.json"):
        pretrained.load(str(tmp_path))


def test_too_few_positions(bert_folder):
    with pytest.raises(InputError, match="--maxlen 41: .* has 40 positions"):
        pretrained.load(str(bert_folder), maxlen=41)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": None}, "hidden_size is missing"),
        ({"hidden_size": "32"}, "hidden_size must be a whole number from 1, found '32'"),
        ({"layer_norm_eps": None}, "layer_norm_eps must be between 0 and 1, found None"),
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
        pretrained.load(str(folder))


def test_damaged_files(bert_folder, google_folder, tmp_path):
    folder = shutil.copytree(bert_folder, tmp_path / "bert")
    tensors = load_file(folder / "model.safetensors")
    del tensors["bert.embeddings.LayerNorm.bias"]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(InputError, match="the checkpoint has no bert/embeddings/LayerNorm/beta"):
        pretrained.load(str(folder))
    (folder / "model.safetensors").write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match="not a readable safetensors file"):
        pretrained.load(str(folder))
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"neither model.safetensors nor bert_model.ckpt.index"):
        pretrained.load(str(folder))
    folder = shutil.copytree(google_folder, tmp_path / "google")
    (folder / "bert_model.ckpt.index").write_bytes(b"not an index")
    with pytest.raises(InputError, match="not a readable TensorFlow checkpoint"):
        pretrained.load(str(folder))
    for broken in ("[", "[]", "3"):
        (folder / "bert_config.json").write_text(broken)
        with pytest.raises(InputError, match="not a JSON object|is missing"):
            pretrained.load(str(folder))


def test_vocabularies_that_do_not_fit(bert_folder, tmp_path):
    folder = shutil.copytree(bert_folder, tmp_path / "bert")
    vocabulary = folder / "vocab.txt"
    words = vocabulary.read_text()
    vocabulary.write_text(words + "one more\n")
    with pytest.raises(InputError, match="the tokenizer's ids go up to 120, the model has 120 embeddings"):
        pretrained.load(str(folder))
    vocabulary.write_text(words.replace("[SEP]\n", ""))
    with pytest.raises(InputError, match=r"no line \[SEP\]"):
        pretrained.load(str(folder))
    vocabulary.write_text(words)
    (folder / "tokenizer_config.json").write_text("[1]")
    with pytest.raises(InputError, match="tokenizer_config.json: not a JSON object"):
        pretrained.load(str(folder))
    (folder / "tokenizer_config.json").unlink()
    vocabulary.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="not UTF-8"):
        pretrained.load(str(folder))
    vocabulary.unlink()
    with pytest.raises(InputError, match=r"neither tokenizer.json nor vocab.txt"):
        pretrained.load(str(folder))


def test_a_vocabulary_with_capitals_is_cased(google_folder, tmp_path):
    folder = shutil.copytree(google_folder, tmp_path / "google")
    words = (folder / "vocab.txt").read_text()
    (folder / "vocab.txt").write_text(words.replace("w1\n", "W1\n").replace("w2\n", "W2\n"))
    assert pretrained.load(str(folder)).tokenizer.encode("W1 w1 w3").ids == [2, 6, 1, 8, 3]
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    assert pretrained.load(str(folder)).tokenizer.encode("W1 w1 W3").ids == [2, 1, 1, 8, 3]


def test_several_checkpoints(google_folder, tmp_path):
    folder = shutil.copytree(google_folder, tmp_path / "google")
    for path in folder.glob("bert_model.ckpt.*"):
        shutil.copy(path, folder / path.name.replace("bert_model.ckpt", "model.ckpt-2000"))
    pretrained.load(str(folder))  # the one with the published name
    for path in folder.glob("bert_model.ckpt.*"):
        path.rename(folder / path.name.replace("bert_model.ckpt", "model.ckpt-1000"))
    with pytest.raises(InputError, match="several checkpoints"):
        pretrained.load(str(folder))
