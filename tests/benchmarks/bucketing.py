"""An epoch with batches of like length against one with batches as they come, each padded to its longest text."""

import numpy as np

from common.backend import keras
from common.bert import build_classifier
from common.distillation import hard_loss
from data import berts, texts
from data.bucketing import by_length
from data.parts import split
from tests import tiny
from tests.benchmarks.timing import medians

TITLE = "an epoch of 512 newswires, 128 tokens"


def measure():
    """(unbucketed, bucketed), seconds of an epoch: 512 texts of reuters-r8, up to 128 tokens, a 3-layer student."""
    corpus = texts.load("reuters-r8")
    bert = berts.load("minilm-l6", maxlen=128)
    indices = split(corpus, seed=0, train=512).train
    examples = tiny.tokenized(corpus.texts, bert, maxlen=128)
    model = build_classifier(berts.keep_layers(bert, range(3)), len(corpus.classes), dropout=0.1).model
    model.compile(keras.optimizers.Adam(1e-5), loss=hard_loss)
    batches = by_length(examples.lengths(indices), 32, np.random.default_rng(0))
    shuffled = np.split(np.random.default_rng(0).permutation(len(indices)), len(indices) // 32)

    def epoch(order):
        for chosen in order:
            model.train_on_batch(examples.inputs(indices[chosen]), corpus.labels[indices[chosen]])

    return medians(lambda: epoch(shuffled), lambda: epoch(batches), rounds=3)
