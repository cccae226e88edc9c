"""A BiLSTM written in numpy, to hold the models against."""

import numpy as np
from scipy.special import expit

from data.berts import OUTPUT


def numpy_bilstm(weights, token_ids, pad_id=0):
    """Logits (batch, classes) float64, straight from the papers: Tang et al. 2019, Hochreiter and Schmidhuber 1997, Gers 2000.

    weights: of a `data.bilstms` record
    token_ids: (batch, tokens) int, padded behind with `pad_id`; each text is read without its padding
    """
    w = {name: value.astype(np.float64) for name, value in weights.items()}
    logits = []
    for row in token_ids:
        words = w["bert/embeddings/word_embeddings"][row[: np.flatnonzero(row != pad_id)[-1] + 1]]
        ends = [_last_state(w, f"lstm/{name}", read) for name, read in (("forward", words), ("backward", words[::-1]))]
        dense = np.maximum(np.concatenate(ends) @ w["dense/kernel"] + w["dense/bias"], 0)
        logits.append(w[OUTPUT[0]] @ dense + w[OUTPUT[1]])
    return np.stack(logits)


def _last_state(w, name, words):
    """h after the last of the words (tokens, width) that are read."""
    units = len(w[f"{name}/recurrent_kernel"])
    h = c = np.zeros(units)
    for word in words:
        gates = word @ w[f"{name}/kernel"] + h @ w[f"{name}/recurrent_kernel"] + w[f"{name}/bias"]
        i, f, g, o = gates.reshape(4, units)
        c = expit(f) * c + expit(i) * np.tanh(g)
        h = expit(o) * np.tanh(c)
    return h
