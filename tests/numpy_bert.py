"""A BERT written in numpy, to hold the models against."""

import numpy as np
from scipy.special import erf, softmax

from data.berts import OUTPUT, POOLER

ACTIVATIONS = {
    "gelu": lambda x: 0.5 * x * (1 + erf(x / np.sqrt(2))),
    "gelu_new": lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    "relu": lambda x: np.maximum(x, 0),
}


def numpy_bert(weights, config, token_ids, mask=True, segment_ids=0, pad_id=0):
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
    x = norm(x + w["bert/embeddings/token_type_embeddings"][segment_ids], "bert/embeddings/LayerNorm")
    states = [x]
    for i in range(config["num_hidden_layers"]):
        layer = f"bert/encoder/layer_{i}"
        q, k, v = (split(dense(x, f"{layer}/attention/self/{part}")) for part in ("query", "key", "value"))
        scores = q @ k.transpose(0, 1, 3, 2) / np.sqrt(hidden // heads)
        if mask:
            scores = np.where(token_ids[:, None, None] != pad_id, scores, -np.inf)
        attended = (softmax(scores, axis=-1) @ v).transpose(0, 2, 1, 3).reshape(batch, tokens, hidden)
        x = norm(x + dense(attended, f"{layer}/attention/output/dense"), f"{layer}/attention/output/LayerNorm")
        inner = ACTIVATIONS[config["hidden_act"]](dense(x, f"{layer}/intermediate/dense"))
        x = norm(x + dense(inner, f"{layer}/output/dense"), f"{layer}/output/LayerNorm")
        states.append(x)
    return states


def numpy_head(weights, hidden):
    """Logits (batch, classes) of a classifier's head: W h_[CLS] + b, with a pooler W tanh(P h_[CLS] + p) + b.

    weights: {Google variable name: array}, with a pooler's if it has one
    hidden: states (batch, tokens, hidden) after the last layer
    """
    cls = hidden[:, 0]
    if POOLER[0] in weights:
        cls = np.tanh(cls @ weights[POOLER[0]] + weights[POOLER[1]])
    return cls @ weights[OUTPUT[0]].T + weights[OUTPUT[1]]


def numpy_branch(weights, hidden, mask, heads=2):
    """Logits (batch, classes) of FastBERT's branch, straight from the paper (Liu et al. 2020); weights: in Keras's order.

    hidden: states (batch, tokens, hidden)
    mask: (batch, tokens) bool, False where there is padding
    """
    narrow, bias, *attention, kernel2, bias2, kernel3, bias3 = weights
    x = np.tanh(hidden @ narrow + bias)  # (batch, tokens, width)
    q, k, v = (np.reshape(x @ attention[2 * i] + attention[2 * i + 1], (*mask.shape, heads, -1)) for i in range(3))
    scores = np.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(q.shape[-1]) + np.where(mask, 0, -np.inf)[:, None, None]
    attended = np.einsum("bhqk,bkhd->bqhd", softmax(scores, axis=-1), v).reshape(x.shape) @ attention[6] + attention[7]
    return np.tanh(attended[:, 0] @ kernel2 + bias2) @ kernel3 + bias3
