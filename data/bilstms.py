"""A BiLSTM that reads texts as a BERT does: word embeddings, one bidirectional LSTM, a ReLU layer, a linear classifier.

It is a `data.berts.Bert` of the kind "bilstm", with its own entries in the config and its own weights under its own names, so
that what counts, trims or hands on a BERT's tokens serves it as well. Building a model of it is the work of `common.bilstm`.
No library knows the files that it is written to but this one: the student's ONNX graph is what others ask.

    Tang et al.: Distilling Task-Specific Knowledge from BERT into Simple Neural Networks, 2019, arXiv 1903.12136, section 3.1
"""

import json
from dataclasses import replace

import numpy as np
from safetensors.numpy import load_file

from data.berts import OUTPUT, Bert, save_files
from data.model_folders import read_tokenizer
from data.vocabulary import EMBEDDINGS

KIND = "bilstm"  # model_type of its config
DIRECTIONS = ("forward", "backward")
ARRAYS = ("kernel", "recurrent_kernel", "bias")  # of each direction, for the gates input, forget, cell, output in this order
LSTM = [f"lstm/{direction}/{array}" for direction in DIRECTIONS for array in ARRAYS]
DENSE = ("dense/kernel", "dense/bias")
RANDOM = 0.05  # embeddings that are drawn lie between this and its negative


def draw(bert, classes, units, dense, embeddings, seed):
    """A BiLSTM that is not trained yet, for the tokens of a BERT.

    Kernels are drawn as Keras draws them: evenly (Glorot), of the recurrent ones orthogonal; biases are 0, of forget gates 1.

    bert: the `data.berts.Bert` whose tokenizer it has
    classes: how many
    units: of each direction of the LSTM
    dense: units of the ReLU layer
    embeddings: "bert", a copy of the BERT's own word embeddings, or "random", of the same width
    seed: of what is drawn

    Returns a `data.berts.Bert` with weights under EMBEDDINGS, LSTM, DENSE and `data.berts.OUTPUT`.
    """
    rng, table = np.random.default_rng(seed), bert.weights[EMBEDDINGS]

    def even(rows, columns):
        limit = (6 / (rows + columns)) ** 0.5
        return rng.uniform(-limit, limit, (rows, columns)).astype(np.float32)

    def orthogonal():  # rows of length 1, at right angles to each other
        return np.linalg.qr(rng.normal(size=(4 * units, units)))[0].T.astype(np.float32)

    forget = np.repeat(np.array([0, 1, 0, 0], np.float32), units)
    if embeddings == "random":
        table = rng.uniform(-RANDOM, RANDOM, table.shape).astype(np.float32)
    width, weights = table.shape[1], {EMBEDDINGS: table}
    for direction in DIRECTIONS:
        arrays = even(width, 4 * units), orthogonal(), forget
        weights |= {f"lstm/{direction}/{name}": array for name, array in zip(ARRAYS, arrays, strict=True)}
    weights |= dict(zip(DENSE, (even(2 * units, dense), np.zeros(dense, np.float32)), strict=True))
    weights |= dict(zip(OUTPUT, (even(dense, classes).T, np.zeros(classes, np.float32)), strict=True))
    config = {"model_type": KIND, "vocab_size": len(table), "hidden_size": width, "num_hidden_layers": 1,
              "lstm_units": units, "dense_units": dense}
    return replace(bert, config=config, weights=weights)


def save(folder, bilstm, classes, **config):
    """Write config.json, model.safetensors and the tokenizer of a BiLSTM. For the parameters see `data.berts.save`.

    Tensors have the names of its weights, with dots for strokes, and their shapes.
    """
    tensors = {name.replace("/", "."): value for name, value in bilstm.weights.items()}
    save_files(folder, bilstm, tensors, classes, **config)


def load(folder):
    """The BiLSTM that `save` has written to a folder, as a `data.berts.Bert`. folder: Path"""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    tensors = load_file(folder / "model.safetensors")
    tokenizer, pad_id = read_tokenizer(folder, config, config["maxlen"])
    weights = {name: tensors[name.replace("/", ".")] for name in (EMBEDDINGS, *LSTM, *DENSE, *OUTPUT)}
    return Bert(config, weights, tokenizer, pad_id, str(folder))
