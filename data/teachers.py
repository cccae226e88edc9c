"""A BERT classifier that was fine-tuned elsewhere, read from its folder or file.

It is a `data.berts.Bert` whose weights have, beside the encoder's, those of the classifier: Google's `output_weights` and
`output_bias`, and `bert/pooler/dense/…` where it has a pooler, tanh(P h_[CLS] + p), in between. So the first layers of it are
a classifier too.
"""

import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np

from common import InputError, reason
from data import berts
from data.berts import OUTPUT, POOLER, POOLER_SCALE
from data.rows import SURROGATE

READ = "expected a folder of BertForSequenceClassification or of Google's run_classifier, or a weights file of bert4keras"
SHOWN = 5  # labels that an error message names at most
DENSE = ("kernel", "bias")
BERT4KERAS = {  # layers of bert4keras and the weights of each, in their order, as Google's variables
    "Embedding-Token": ["embeddings/word_embeddings"],
    "Embedding-Segment": ["embeddings/token_type_embeddings"],
    "Embedding-Position": ["embeddings/position_embeddings"],
    "Embedding-Norm": ["embeddings/LayerNorm/beta", "embeddings/LayerNorm/gamma"],
}
BERT4KERAS_BLOCK = {  # the same of Transformer-i-…, in encoder/layer_i/…
    "MultiHeadSelfAttention": [
        f"attention/{part}/{weight}" for part in ("self/query", "self/key", "self/value", "output/dense") for weight in DENSE
    ],
    "MultiHeadSelfAttention-Norm": ["attention/output/LayerNorm/beta", "attention/output/LayerNorm/gamma"],
    "FeedForward": [f"{part}/dense/{weight}" for part in ("intermediate", "output") for weight in DENSE],
    "FeedForward-Norm": ["output/LayerNorm/beta", "output/LayerNorm/gamma"],
}
ATTRIBUTES = ("embeddings", "beta", "gamma", "kernel", "bias", *(  # of a layer in TensorFlow's format, in the same order
    f"{part}_dense/{weight}" for part in ("q", "k", "v", "i0", "o") for weight in DENSE
))


def is_whole(path):
    """Whether a teacher is a folder with a configuration and a tokenizer of its own, and needs no BERT beside it."""
    return bool(path) and Path(path).is_dir()


def load(path, corpus, bert="", maxlen=0):
    """`read` a classifier, and put its classes into the order of the data's.

    corpus: the `texts.Corpus` whose labels it must have

    Returns a `berts.Bert`. Raises InputError if it has other labels, too.
    """
    start, classes = read(path, bert, maxlen)
    return _in_order_of(start, named(classes, corpus.classes), corpus, path)


def read(path, bert="", maxlen=0):
    """Read a classifier.

    path: a folder of Hugging Face's BertForSequenceClassification, of Google's run_classifier or of ours, or a weights file
        that bert4keras saved for BERT + [CLS] + Dense
    bert: for a weights file, name or folder of the BERT whose configuration and tokenizer it has
    maxlen: tokens of the texts it is to read; 0 asks for no number of them

    Returns (`berts.Bert`, names of its classes in order, LABEL_0, LABEL_1, … if it has none). Raises InputError if it cannot be
    read, or is no classifier of one class a text.
    """
    folder = Path(path)
    if is_whole(path):
        start = berts.load(str(folder.resolve()), maxlen, classifier=True)  # not a named BERT that is called the same
        start = _checked(replace(start, source=str(path)), folder)
        classes = _classes_of(start.config, start.weights["output_bias"].size, folder)
    elif folder.is_file() or Path(f"{folder}.index").is_file():
        start = berts.load(bert, maxlen)
        depth, weights = _read_bert4keras(folder, start.config)
        start = replace(start, config=start.config | {"num_hidden_layers": depth}, weights=weights, source=str(path))
        classes = [f"LABEL_{number}" for number in range(start.weights["output_bias"].size)]
    else:
        raise InputError(f"--teacher {path}: there is no such folder or file; {READ}")
    return start, classes


def _checked(bert, folder):
    """`bert` as it was read from the folder, if it is a classifier of one class a text."""
    kind = bert.config.get("problem_type") or "single_label_classification"
    if kind != "single_label_classification":
        raise InputError(f"{folder}: its problem_type is {kind}; expected a classifier of one class a text")
    for names, what in ((OUTPUT, "classifier"), (POOLER, "pooler")):
        if not {*names} <= bert.weights.keys():
            raise InputError(f"{folder}: no {what} in its checkpoint; {READ}")
    hidden, classes = bert.config["hidden_size"], bert.weights[OUTPUT[1]].size
    shapes = ((classes, hidden), (classes,), (hidden, hidden), (hidden,))
    berts.check_shapes(bert.weights, dict(zip((*OUTPUT, *POOLER), shapes, strict=True)), folder)
    if classes < 2:
        raise InputError(f"{folder}: its classifier has one output, so it is a regression; expected two classes or more")
    kernel, bias = (bert.weights[name] for name in POOLER)
    if np.array_equal(kernel, POOLER_SCALE * np.eye(hidden)) and not bias.any():  # the detour of `berts.save`, taken back
        weights = {name: value for name, value in bert.weights.items() if name not in POOLER}
        return replace(bert, weights=weights | {OUTPUT[0]: weights[OUTPUT[0]] * np.float32(POOLER_SCALE)})
    return bert


def _classes_of(config, count, folder):
    """The names of the classes, in order: those of id2label."""
    numbers = list(map(str, range(count)))
    names = config.get("id2label") or {number: f"LABEL_{number}" for number in numbers}
    if not isinstance(names, dict) or sorted(names) != sorted(numbers):
        raise InputError(f"{folder / 'config.json'}: id2label must name {count} labels, as many as its classifier has")
    names = [str(names[number]).strip() for number in numbers]
    if SURROGATE.search("".join(names)):
        raise InputError(f"{folder / 'config.json'}: id2label holds half of a surrogate pair, which is no character")
    return names


def named(classes, wanted=()):
    """The names of classes; their numbers, "0", "1", …, of those that have no better names than LABEL_0, LABEL_1, …

    wanted: names that some data, or another model, has: if they are the same, in any order, they stay
    """
    numbers = list(map(str, range(len(classes))))
    plain = classes == [f"LABEL_{number}" for number in numbers] and {*classes} != {*wanted}
    return numbers if plain else classes


def _in_order_of(bert, classes, corpus, path):
    """`bert` with the rows of its classifier in the order of the corpus's classes."""
    missing = [[name for name in names if name not in others]
               for names, others in ((corpus.classes, classes), (classes, corpus.classes))]
    if any(missing) or len(classes) != len(corpus.classes):
        sides = [f"{side} has not {_some(names)}" for side, names in zip(("it", corpus.name), missing, strict=True) if names]
        raise InputError(f"--teacher {path}: its {len(classes)} labels are not the {len(corpus.classes)} of {corpus.name}: "
                         f"{'; '.join(sides) or 'one stands there twice'}")
    order = [classes.index(name) for name in corpus.classes]
    return replace(bert, weights=bert.weights | {name: bert.weights[name][order] for name in OUTPUT})


def _some(names):
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(map(repr, names[:SHOWN])) + more


# A weights file of bert4keras ----------------------------------------------------------------------------------------------


def _read_bert4keras(path, config):
    """BERT + [CLS] + Dense as bert4keras saved it, in HDF5 or TensorFlow's format, perhaps of the first layers of a BERT alone.

    Returns (how many layers it has, {Google variable name: float32 array}).
    """
    try:
        layers = _hdf5_layers(path) if path.is_file() else _tensorflow_layers(path)
        depth = min(sum("MultiHeadSelfAttention-Norm" in layer for layer in layers) or sys.maxsize, config["num_hidden_layers"])
        wanted = _bert4keras_layers(depth)
    except (OSError, LookupError, AttributeError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{path}: not a weights file that bert4keras saved ({reason(error)})") from None
    others = [layer for layer in layers if layer not in wanted]
    uneven = [layer for layer in wanted if len(layers.get(layer, ())) != len(wanted[layer])]
    if uneven or len(others) != 1 or len(layers[others[0]]) != 2:
        found = f"no whole {uneven[0]}" if uneven else f"{', '.join(others) or 'nothing'} beside the BERT"
        most = config["num_hidden_layers"]
        raise InputError(f"{path}: {found}; expected a BERT of {most} layers or fewer and one Dense on [CLS]")
    kernel, bias = layers[others[0]]
    weights = {f"bert/{variable}": value for layer, variables in wanted.items()
               for variable, value in zip(variables, layers[layer], strict=True)}
    weights |= dict(zip(OUTPUT, (kernel.T, bias), strict=True))
    head = dict(zip(OUTPUT, ((bias.size, config["hidden_size"]), (bias.size,)), strict=True))
    berts.check_shapes(weights, berts.expected_shapes(config | {"num_hidden_layers": depth}) | head, path)
    return depth, {name: np.asarray(value, np.float32) for name, value in weights.items()}


def _bert4keras_layers(depth):
    """{layer of bert4keras: Google's names of its weights, without "bert/"} of a BERT of so many layers, in their order."""
    layers = dict(BERT4KERAS)
    for i in range(depth):
        layers |= {f"Transformer-{i}-{layer}": [f"encoder/layer_{i}/{variable}" for variable in variables]
                   for layer, variables in BERT4KERAS_BLOCK.items()}
    return layers


def _hdf5_layers(path):
    """{layer: its arrays} of an HDF5 file that Keras saved, without layers that have none and without bert4keras's prefix.

    The original programs call their layers Teacher-Embedding-Token, Predecessor-Embedding-Token and so on.
    """
    with h5py.File(path) as file:
        root = file.get("model_weights", file)  # of a file that holds the model too
        groups = {name: root[name] for name in map(_decoded, root.attrs["layer_names"])}
        first = next((name for name in groups if name.endswith("Embedding-Token")), "")
        prefix = first.removesuffix("Embedding-Token")
        return {name.removeprefix(prefix): [group[_decoded(weight)][()] for weight in group.attrs["weight_names"]]
                for name, group in groups.items() if len(group.attrs["weight_names"])}


def _tensorflow_layers(path):
    """The same of TensorFlow's format, which has numbers for names: those of a BERT's layers, in order, and one more."""
    from common.backend import tf  # see `berts`

    layers = {}
    try:
        reader = tf.train.load_checkpoint(str(path))
        stored = reader.get_variable_to_shape_map()
        count = len({name.split("/")[0] for name in stored if name.startswith("layer_with_weights-")})
        names = iter([*_bert4keras_layers((count - len(BERT4KERAS) - 1) // len(BERT4KERAS_BLOCK)), "Dense"])
        for number in range(count):
            paths = [f"layer_with_weights-{number}/{attribute}/.ATTRIBUTES/VARIABLE_VALUE" for attribute in ATTRIBUTES]
            layers[next(names, f"layer {number}")] = [reader.get_tensor(path) for path in paths if path in stored]
    except tf.errors.OpError as error:
        raise ValueError(reason(error)) from None
    return layers


def _decoded(name):
    return name.decode() if isinstance(name, bytes) else name  # older Keras wrote bytes
