"""What is written of a model must be the model: what is read back is held against the weights and probabilities trained."""

import numpy as np

TOLERANCE = 1e-5  # of probabilities, between the trained model and what stands in student/


def check_weights(written, weights):
    """Raise RuntimeError unless `written`, a BERT read back, has these weights. weights: {Google variable name: array}"""
    if not all(np.array_equal(written.weights[name], value) for name, value in weights.items()):
        raise RuntimeError(f"{written.source} does not hold the weights of the trained model")


def check_equal(what, answer, expected):
    """Raise RuntimeError (it is a bug here) if what stands in student/ answers otherwise than the model that was trained.

    what: stands there
    answer: probabilities, an array
    expected: of the trained model, the same shape
    """
    difference = float(np.abs(np.asarray(answer, np.float64) - expected).max())
    if not difference <= TOLERANCE:
        raise RuntimeError(f"{what} differs by {difference:.1e} from the trained model; at most {TOLERANCE:.0e} was expected")
