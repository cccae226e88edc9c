"""A BERT by name or folder: its configuration, its weights under Google's variable names, and its tokenizer.

A checkpoint is here a plain dict {Google variable name: array}, which bert4keras loads as it is. So a Google checkpoint, a
Hugging Face one, the first layers of either and a fine-tuned teacher are all the same thing. Building a model of it is the
work of `common.bert`.
"""

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as save_tensors
from tokenizers import Tokenizer

from common import InputError
from common.files import write_bytes, write_json, write_text
from data import fetching
from data.downloading import check_sha256
from data.model_folders import check_entries, entries_of, read_json, read_tokenizer
from data.sources import SOURCES
from data.tokenizing import MASKS

POOLER_SCALE = 2.0**-12  # a power of two, so that dividing by it loses nothing; narrow floats can still hold both factors
OUTPUT = ("output_weights", "output_bias")  # of a classifier: (classes, hidden) and (classes,)
POOLER = ("bert/pooler/dense/kernel", "bert/pooler/dense/bias")
CLASSIFIER = dict(zip(("classifier.weight", "classifier.bias", "bert.pooler.dense.weight", "bert.pooler.dense.bias"),
                      (*OUTPUT, *POOLER), strict=True))  # what Hugging Face calls them
# Entries of a student's config.json: not of one that is made from it in turn.
OURS = ("maxlen", "speed", "pairs", "uncertainty_top_k", "promise")
ACTIVATIONS = {"gelu": "gelu_erf", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "relu": "relu"}
CONFIG_KEYS = (
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act",
    "max_position_embeddings",
)


@dataclass(frozen=True)
class Bert:
    """A BERT encoder that is not built yet, or a whole classifier.

    config: the entries of its config.json
    weights: {Google variable name: float32 array}; a classifier's among them if it has been fine-tuned (see `data.teachers`)
    tokenizer: makes token ids, with the special tokens that the model was trained with
    pad_id: the id it pads with
    source: name or folder
    """

    config: dict
    weights: dict
    tokenizer: Tokenizer
    pad_id: int
    source: str

    @property
    def kind(self):
        """The model_type of its config: "bert", which Google's do not say, or that of a record in the same form."""
        return self.config.get("model_type", "bert")

    @property
    def layers(self):
        return self.config["num_hidden_layers"]

    @property
    def is_classifier(self):
        return OUTPUT[0] in self.weights

    @property
    def has_pooler(self):
        """Whether it is a classifier with one: a pooler that was pretrained alone is not used."""
        return self.is_classifier and POOLER[0] in self.weights


def load(name_or_folder, maxlen=0, classifier=False):
    """Read a BERT.

    name_or_folder: a name in `data.sources`, or a folder in Google's or Hugging Face's format
    maxlen: tokens of the texts it is to read; 0 asks for no number of them
    classifier: read what the checkpoint has of a pooler and a classifier too

    Raises InputError if it cannot be read, does not fit its own configuration, or has fewer positions than `maxlen`.
    """
    if name_or_folder in SOURCES and SOURCES[name_or_folder].kind == "bert":
        source = SOURCES[name_or_folder]
        paths = fetching.locate(name_or_folder, "--bert")
        for role, digest in source.sha256.items():
            check_sha256(paths[role], digest)
        folder = paths["config"].parent
    else:
        folder = Path(name_or_folder)
        if not folder.is_dir():
            names = ", ".join(name for name, source in SOURCES.items() if source.kind == "bert")
            raise InputError(f"--bert {name_or_folder}: neither a folder nor one of {names}")
    config = _read_config(folder)
    if maxlen > config["max_position_embeddings"]:
        raise InputError(f"--maxlen {maxlen}: {name_or_folder} has {config['max_position_embeddings']} positions")
    checkpoints = sorted(folder.glob("*.ckpt*.index"))
    weights = _read_google(folder, checkpoints, classifier) if checkpoints else _read_safetensors(folder, classifier)
    check_shapes(weights, expected_shapes(config), folder)
    tokenizer, pad_id = read_tokenizer(folder, config, maxlen or config["max_position_embeddings"])
    return Bert(config, weights, tokenizer, pad_id, str(name_or_folder))


def layers_to_keep(layers, count, spread):
    """Which layers a student starts from, as a list of numbers.

    layers: how many there are
    count: how many to keep
    spread: an even choice that ends with the last layer (3 of 12: 3, 7, 11), instead of the first ones
    """
    return [(i + 1) * layers // count - 1 for i in range(count)] if spread else list(range(count))


def keep_layers(bert, layers):
    """`bert` reduced to the layers with these numbers, in their order."""
    weights = {name: value for name, value in bert.weights.items() if "/layer_" not in name}
    for new, old in enumerate(layers):
        prefix = f"bert/encoder/layer_{old}/"
        weights |= {
            name.replace(prefix, f"bert/encoder/layer_{new}/"): value
            for name, value in bert.weights.items()
            if name.startswith(prefix)
        }
    return replace(bert, config=bert.config | {"num_hidden_layers": len(layers)}, weights=weights)


def save(folder, bert, classes, **config):
    """Write config.json, model.safetensors and the tokenizer of a text classifier, as Hugging Face lays them out.

    BertForSequenceClassification always has a pooler, tanh(P h_[CLS] + p). Of a classifier without one P = ε I, p = 0 and
    weights / ε are written, which hands on h but for ε² h³ / 3: less than a hundred-thousandth of h while |h| < 22.

    folder: Path
    bert: with the trained weights; without a classifier among them only the encoder is written
    classes: names
    config: further entries of config.json
    """
    weights, hidden = bert.weights, bert.config["hidden_size"]
    if bert.is_classifier and not bert.has_pooler:
        detour = POOLER_SCALE * np.eye(hidden, dtype=np.float32), np.zeros(hidden, np.float32)
        weights = weights | dict(zip(POOLER, detour, strict=True)) | {OUTPUT[0]: weights[OUTPUT[0]] / POOLER_SCALE}
    tensors = {hugging_face_name(name): value.T if name.endswith("/kernel") else value for name, value in weights.items()}
    theirs = {"model_type": "bert", "architectures": ["BertForSequenceClassification" if bert.is_classifier else "BertModel"],
              "problem_type": "single_label_classification", "dtype": "float32", "torch_dtype": "float32"}
    save_files(folder, bert, tensors, classes, **theirs, **config)


def save_files(folder, bert, tensors, classes, **config):
    """Write the files of a text classifier, whatever it is made of: config.json, model.safetensors and the tokenizer.

    folder: Path
    bert: whose config and tokenizer they are
    tensors: {name: array} of model.safetensors
    classes: names
    config: further entries of config.json
    """
    tensors = {name: np.ascontiguousarray(value, np.float32) for name, value in tensors.items()}
    write_bytes(folder / "model.safetensors", save_tensors(tensors, {"format": "pt"}))
    own = {name: value for name, value in bert.config.items() if name not in OURS}
    write_json(folder / "config.json", own | {"pad_token_id": bert.pad_id, **entries_of(classes)} | config)
    _write_tokenizer(folder, bert, config.get("maxlen"))


def _write_tokenizer(folder, bert, maxlen):
    """Write tokenizer.json, tokenizer_config.json and, for a WordPiece, vocab.txt. maxlen: tokens a text is to be cut to."""
    tokenizer = Tokenizer.from_str(bert.tokenizer.to_str())
    tokenizer.no_truncation()  # the cut is the user's: tokenizer_config.json says how long texts were in training
    write_text(folder / "tokenizer.json", tokenizer.to_str())
    model, empty = json.loads(tokenizer.to_str())["model"], tokenizer.encode("").tokens
    unknown = model.get("unk_token") or (tokenizer.id_to_token(model["unk_id"]) if model.get("unk_id") is not None else None)
    named = {"cls_token": empty[0], "sep_token": empty[-1], "pad_token": tokenizer.id_to_token(bert.pad_id),
             "unk_token": unknown, "mask_token": next(filter(tokenizer.token_to_id, MASKS), None)}
    write_json(folder / "tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": maxlen,
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
        **{name: token for name, token in named.items() if token},
    })
    words = sorted(model["vocab"], key=model["vocab"].get) if model["type"] == "WordPiece" else []
    if words and model["vocab"][words[-1]] == len(words) - 1:  # a file of lines can have no holes
        write_text(folder / "vocab.txt", "\n".join(words) + "\n")


def _read_config(folder):
    for name in ("config.json", "bert_config.json"):
        if (folder / name).is_file():
            break
    else:
        raise InputError(f"{folder}: neither config.json nor bert_config.json in it, so this is not a BERT's folder")
    config = read_json(folder / name)
    for key, value in (("model_type", "bert"), ("position_embedding_type", "absolute")):
        if config.get(key, value) != value:
            raise InputError(f"{folder / name}: {key} is {config[key]}; only {value} can be read")
    check_entries(config, CONFIG_KEYS, folder / name)
    if config["hidden_size"] % config["num_attention_heads"]:
        raise InputError(f"{folder / name}: hidden_size is not a multiple of num_attention_heads")
    if str(config["hidden_act"]) not in ACTIVATIONS:
        raise InputError(f"{folder / name}: hidden_act {config['hidden_act']} is none of {', '.join(ACTIVATIONS)}")
    return config


def _read_google(folder, checkpoints, classifier):
    from common.backend import tf  # which takes seconds, and nothing else here needs

    if len(checkpoints) > 1 and folder / "bert_model.ckpt.index" not in checkpoints:
        names = ", ".join(path.name for path in checkpoints)
        raise InputError(f"{folder}: several checkpoints ({names}); keep one, or name it bert_model.ckpt.*")
    prefix = str(folder / "bert_model.ckpt" if len(checkpoints) > 1 else checkpoints[0].with_suffix(""))
    try:
        reader = tf.train.load_checkpoint(prefix)
        wanted = ("bert/", *(OUTPUT if classifier else ()))
        names = [name for name in reader.get_variable_to_shape_map() if name.startswith(wanted) and "adam" not in name]
        return {name: reader.get_tensor(name) for name in names}
    except (tf.errors.OpError, RuntimeError, IndexError) as error:  # the last, of one that is cut short
        raise InputError(f"{prefix}: not a readable TensorFlow checkpoint ({str(error).splitlines()[0]})") from None


def _read_safetensors(folder, classifier):
    path = folder / "model.safetensors"
    if not path.is_file():
        converted = "; of pytorch_model.bin transformers makes the former: from_pretrained(…).save_pretrained(…)"
        converted *= any(folder.glob("pytorch_model*.bin"))
        raise InputError(f"{folder}: neither model.safetensors nor bert_model.ckpt.index in it{converted}")
    try:
        with safe_open(path, framework="np") as file:
            more = CLASSIFIER if classifier else {}
            names = {name: google_name(name) or more.get(name) for name in file.keys()}  # noqa: SIM118
            tensors = {google: file.get_tensor(name) for name, google in names.items() if google}
    except (SafetensorError, TypeError) as error:
        raise InputError(f"{path}: not a readable safetensors file of floats ({error})") from None
    tensors = {name: value.astype(np.float32) for name, value in tensors.items()}
    return {name: value.T if name.endswith("/kernel") else value for name, value in tensors.items()}


def google_name(name):
    """Google's variable name for a Hugging Face BertModel tensor; None for one that is not part of the encoder."""
    name = re.sub(r"^bert\.", "", name)
    if not name.startswith(("embeddings.", "encoder.")) or name.endswith("position_ids"):
        return None
    name = re.sub(r"encoder\.layer\.(\d+)\.", r"encoder/layer_\1/", name)
    for old, new in (("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta")):
        name = name.replace(old, new)
    name = name.replace("embeddings.weight", "embeddings")  # the three embeddings
    name = re.sub(r"\.weight$", ".kernel", name)
    return "bert/" + name.replace(".", "/")


def hugging_face_name(name):
    """The Hugging Face name of a Google variable of the encoder (the reverse of `google_name`) or the classifier."""
    if name in CLASSIFIER.values():
        return next(theirs for theirs, ours in CLASSIFIER.items() if ours == name)
    name = re.sub(r"encoder/layer_(\d+)/", r"encoder/layer/\1/", name).replace("/", ".")
    name = name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
    name = re.sub(r"(word|position|token_type)_embeddings$", r"\1_embeddings.weight", name)
    return re.sub(r"\.kernel$", ".weight", name)


def expected_shapes(config):
    """{Google variable name: shape} of the encoder that `config` describes."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    shapes = {
        "bert/embeddings/word_embeddings": (config["vocab_size"], hidden),
        "bert/embeddings/position_embeddings": (config["max_position_embeddings"], hidden),
        "bert/embeddings/token_type_embeddings": (config.get("type_vocab_size", 2), hidden),
        "bert/embeddings/LayerNorm/gamma": (hidden,),
        "bert/embeddings/LayerNorm/beta": (hidden,),
    }
    dense = {f"attention/self/{part}": (hidden, hidden) for part in ("query", "key", "value")}
    dense |= {
        "attention/output/dense": (hidden, hidden), "intermediate/dense": (hidden, inner), "output/dense": (inner, hidden),
    }
    for i in range(config["num_hidden_layers"]):
        prefix = f"bert/encoder/layer_{i}/"
        for name, shape in dense.items():
            shapes |= {f"{prefix}{name}/kernel": shape, f"{prefix}{name}/bias": shape[1:]}
        for norm in ("attention/output/LayerNorm", "output/LayerNorm"):
            shapes |= {f"{prefix}{norm}/gamma": (hidden,), f"{prefix}{norm}/beta": (hidden,)}
    return shapes


def check_shapes(weights, shapes, folder):
    """Raise InputError unless the weights, read from `folder`, have all these. shapes: {Google variable name: shape}"""
    for name, shape in shapes.items():
        if name not in weights:
            raise InputError(f"{folder}: the checkpoint has no {name} ({hugging_face_name(name)}), which its config needs")
        if weights[name].shape != shape:
            raise InputError(f"{folder}: {name} has shape {weights[name].shape}, its config says {shape}")
