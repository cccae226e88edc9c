"""An epoch with batches of like length against one with batches as they come, each padded to its longest text."""

import numpy as np

from common import data, distillation, pretrained, texts
from common.backend import keras
from tests.benchmarks.timing import medians

TITLE = "an epoch of 512 newswires, 128 tokens"


def measure():
    """(unbucketed, bucketed), seconds of an epoch: 512 texts of reuters-r8, up to 128 tokens, a 3-layer student."""
    corpus = data.load("reuters-r8")
    bert = pretrained.load("minilm-l6", maxlen=128)
    rows = data.split(corpus, seed=0, train=512).train
    encoded = data.encode(corpus.texts, bert.tokenizer, maxlen=128)
    classifier = texts.build_classifier(pretrained.shallow(bert, range(3)), len(corpus.classes), dropout=0.1)[1]
    model = distillation.compile_alone(classifier, keras.optimizers.Adam(1e-5))
    batches = data.by_length(encoded.lengths(rows), 32, np.random.default_rng(0))
    shuffled = np.split(np.random.default_rng(0).permutation(len(rows)), len(rows) // 32)

    def epoch(order):
        for chosen in order:
            model.train_on_batch(encoded.inputs(rows[chosen]), corpus.labels[rows[chosen]])

    return medians(lambda: epoch(shuffled), lambda: epoch(batches), rounds=3)
