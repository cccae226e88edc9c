"""A teacher's logits, computed once for each example and kept beside the teacher: what soft labels are made of."""

import numpy as np

from common.devices import is_chief
from common.files import fingerprint, write_atomic


def example_keys(examples, indices):
    """One digest per example, of its token ids or pixels: what a soft label is filed under. Returns (examples,) strings."""
    return np.array([fingerprint(examples.example(index)) for index in indices])


def cached_logits(path, model_fingerprint, keys, compute_logits):
    """A teacher's logits for the examples with `keys`; those not yet in the file `path` are computed and added.

    The file counts only if it was made by the same model; within it an example is found by its key, never by its position.
    It holds logits rather than soft labels, so that it serves every temperature.

    path: of an .npz file
    model_fingerprint: a string that no other model has
    keys: (examples,) strings
    compute_logits: indices into `keys` -> logits (indices, classes)

    Returns (logits (examples, classes) float32, how many were computed now).
    """
    stored = {}
    if path.is_file():
        with np.load(path) as file:
            if str(file["fingerprint"]) == model_fingerprint:
                stored = dict(zip(file["keys"], file["logits"], strict=True))
    missing = np.flatnonzero([key not in stored for key in keys])
    if len(missing):
        stored |= dict(zip(keys[missing], np.asarray(compute_logits(missing), np.float32), strict=True))
        arrays = {"fingerprint": model_fingerprint, "keys": np.array([*stored]), "logits": np.stack([*stored.values()])}
        if is_chief():
            write_atomic(path, lambda file: np.savez(file, **arrays))
    return np.stack([stored[key] for key in keys]), len(missing)
