"""A BERT of fewer dimensions, which starts from the weights of the wide one.

What flows through a BERT from layer to layer, its stream, keeps the dimensions that vary most. So each matrix that writes the
stream loses columns, each that reads it rows, and LayerNorms what belongs to the dimensions that go. Attention heads and units
of the feed-forward layers are left out by the norm of their weights. This module loads no TensorFlow; the choice of layers is
that of `data.berts`.
"""

from dataclasses import replace

import numpy as np

from common import InputError
from data.berts import OUTPUT, POOLER

WORDS, POSITIONS, SEGMENTS = (f"bert/embeddings/{kind}_embeddings" for kind in ("word", "position", "token_type"))


def width_of(bert, hidden, heads):
    """(width, attention heads) of a BERT that is to be made of `bert`.

    hidden: its width
    heads: how many; 0: as many as there are heads of the old size in this width

    Raises InputError, in terms of the scripts' settings, if `narrow` cannot make it.
    """
    wide, old_heads = bert.config["hidden_size"], bert.config["num_attention_heads"]
    size, flag = wide // old_heads, f"--student-hidden {hidden}"
    has = f"{bert.source} has {old_heads} heads of {size} dimensions"
    if hidden > wide:
        raise InputError(f"{flag}: {bert.source} has a width of {wide}, so 1 to {wide} can be taken")
    if not heads and hidden % size:
        raise InputError(f"{flag}: {has}, so a width is a multiple of {size}; or give --student-heads")
    heads = heads or hidden // size
    if heads > old_heads:
        raise InputError(f"--student-heads {heads}: {has}, so 1 to {old_heads} can be taken")
    if hidden % heads:
        raise InputError(f"{flag}: not a multiple of --student-heads {heads}")
    if hidden // heads > size:
        raise InputError(f"--student-heads {heads}: of {hidden // heads} dimensions each in a width of {hidden}, but {has}; "
                         f"at least {-(-hidden // size)} heads are needed")
    return hidden, heads


def narrow(bert, hidden, heads, how):
    """`bert` with fewer dimensions, attention heads and, in proportion to its width, feed-forward units.

    "cut" takes weights as they are. "least-squares" lets what reads the stream make up for the dimensions that are gone, as far
    as those that are left tell of them in the embeddings of the vocabulary; and where heads get smaller, the products that they
    are made of, query · key and value · output, become the nearest ones of the smaller size. With all dimensions and heads both
    give back what `bert` is.

    bert: a `data.berts.Bert`; its classifier, if it has one, is narrowed with it
    hidden: the width
    heads: how many; for what can be wanted see `width_of`
    how: "cut" or "least-squares"
    """
    wide, old_heads = bert.config["hidden_size"], bert.config["num_attention_heads"]
    units, old = round(bert.config["intermediate_size"] * hidden / wide) or 1, bert.weights
    kept = _dimensions(bert, hidden)
    stream, shrink = (_reconstruction(bert, kept), _truncated) if how == "least-squares" else (_selection(wide, kept), _cut)

    def reads(kernel, bias):
        return stream @ np.vstack([kernel, bias])

    def attention(layer):
        parts = [f"{layer}/attention/{part}" for part in ("self/query", "self/key", "self/value", "output/dense")]
        query, key, value = (  # (heads, hidden + 1, their size) each: the last row is the bias
            np.stack(np.split(reads(old[f"{part}/kernel"], old[f"{part}/bias"]), old_heads, axis=1)) for part in parts[:3]
        )
        output = np.stack(np.split(old[f"{parts[3]}/kernel"][:, kept], old_heads))  # (heads, their size, hidden)
        strongest = _largest(np.linalg.norm(value @ output, axis=(1, 2)), heads)
        query, key, value, output = (part[strongest] for part in (query, key, value, output))
        size, new_size = wide // old_heads, hidden // heads
        if new_size < size:
            query, key = shrink(query, key.swapaxes(1, 2), new_size)
            value, output = shrink(value, output, new_size)
            query, key = query * (new_size / size) ** 0.5, key.swapaxes(1, 2)  # scores are divided by the root of the size
        made = {}
        for part, arrays in zip(parts, (query, key, value), strict=False):
            made |= _dense(part, np.concatenate(arrays, axis=1))
        return made | _dense(parts[3], np.vstack([*output, old[f"{parts[3]}/bias"][kept]]))

    weights = {name: old[name][:, kept] for name in (WORDS, POSITIONS, SEGMENTS)}
    weights |= {name: value[kept] for name, value in old.items() if name.endswith(("LayerNorm/gamma", "LayerNorm/beta"))}
    for layer in (f"bert/encoder/layer_{i}" for i in range(bert.layers)):
        weights |= attention(layer)
        into, out = f"{layer}/intermediate/dense", f"{layer}/output/dense"
        first, last = _cut(reads(old[f"{into}/kernel"], old[f"{into}/bias"]), old[f"{out}/kernel"][:, kept], units)
        weights |= _dense(into, first) | _dense(out, np.vstack([last, old[f"{out}/bias"][kept]]))
    if bert.has_pooler:
        pooler, output = _cut(reads(*map(old.get, POOLER)), old[OUTPUT[0]].T, hidden)
        weights |= dict(zip((*POOLER, *OUTPUT), (pooler[:-1], pooler[-1], output.T, old[OUTPUT[1]]), strict=True))
    elif bert.is_classifier:
        output = reads(old[OUTPUT[0]].T, old[OUTPUT[1]])
        weights |= dict(zip(OUTPUT, (output[:-1].T, output[-1]), strict=True))
    config = {"hidden_size": hidden, "num_attention_heads": heads, "intermediate_size": units}
    weights = {name: np.ascontiguousarray(value, np.float32) for name, value in weights.items()}
    return replace(bert, config=bert.config | config, weights=weights)


def _dense(name, array):
    """A kernel and below it its bias, as one array, by their names."""
    return {f"{name}/kernel": array[:-1], f"{name}/bias": array[-1]}


def _dimensions(bert, count):
    """Numbers of the dimensions to keep, ascending: (count,) int.

    A LayerNorm gives a dimension the variance gamma², about; those with the largest sum of it over all LayerNorms are kept.
    """
    return _largest(sum(value**2 for name, value in bert.weights.items() if name.endswith("LayerNorm/gamma")), count)


def _largest(values, count):
    """Places of the `count` largest along the last axis, ascending; of equal ones the first."""
    return np.sort(np.argsort(-values, axis=-1, kind="stable")[..., :count], axis=-1)


def _selection(wide, kept):
    """What makes [kernel; bias] (hidden + 1, …) for the kept dimensions of the same (wide + 1, …) for all."""
    return np.eye(wide + 1, dtype=np.float32)[[*kept, wide]]


def _reconstruction(bert, kept):
    """`_selection`, and with it what the dimensions that go add to it: they are about a linear function of those kept.

    It is that of least squares over the vocabulary's embeddings x after their LayerNorm: x = c + x_kept A, about, and so
    x W + b = x_kept A W + (c W + b).
    """
    weights = bert.weights
    states = weights[WORDS] + weights[POSITIONS].mean(axis=0) + weights[SEGMENTS][0]
    states = states - states.mean(axis=-1, keepdims=True)
    gamma, beta = (weights[f"bert/embeddings/LayerNorm/{name}"] for name in ("gamma", "beta"))
    epsilon = bert.config.get("layer_norm_eps", 1e-12)
    states = gamma * states / np.sqrt((states**2).mean(axis=-1, keepdims=True) + epsilon) + beta
    mean = states.mean(axis=0)
    covariance = ((states - mean).T @ (states - mean)).astype(np.float64)
    stream = _selection(states.shape[1], kept).astype(np.float64)
    lost = np.setdiff1d(np.arange(states.shape[1]), kept)
    stream[:-1, lost] = np.linalg.pinv(covariance[np.ix_(kept, kept)], hermitian=True) @ covariance[np.ix_(kept, lost)]
    stream[-1, lost] = mean[lost] - mean[kept] @ stream[:-1, lost]
    return stream


def _cut(left, right, count):
    """Matrices (…, n, d) and (…, d, m) with `count` of their d common dimensions: those with the largest product of norms."""
    kept = _largest(np.linalg.norm(left, axis=-2) * np.linalg.norm(right, axis=-1), count)
    return np.take_along_axis(left, kept[..., None, :], axis=-1), np.take_along_axis(right, kept[..., None], axis=-2)


def _truncated(left, right, count):
    """Matrices (…, n, count) and (…, count, m) whose product is the nearest to left @ right: its truncated SVD."""
    u, values, v = np.linalg.svd(left @ right, full_matrices=False)
    root = np.sqrt(values[..., :count])
    return u[..., :count] * root[..., None, :], v[..., :count, :] * root[..., None]
