"""A step of module replacing that computes only the module it has drawn, against one that computes both and adds them."""

from dataclasses import replace

import numpy as np

import knowledge_distillation_bert_of_theseus as script
from common.backend import keras, set_seed, tf
from common.bert import build_classifier, build_encoder
from common.distillation import hard_loss
from data import berts, texts
from tests import tiny
from tests.benchmarks.timing import medians

TITLE = "10 steps of replacing, p = 0.5, 6 -> 3 layers"
RATES = (0.0, 0.25, 0.5, 0.75, 1.0)


def stepper():
    """(replacing, p) -> a function that takes ten training steps on 32 posts of 64 tokens."""
    corpus, bert = texts.load("20newsgroups"), berts.load("minilm-l6")
    examples = tiny.tokenized(corpus.texts[:2000], bert, maxlen=64)
    full = np.flatnonzero(examples.lengths(np.arange(2000)) == 64)[:32]
    inputs, labels = examples.inputs(full), corpus.labels[full]
    predecessor = build_classifier(bert, len(corpus.classes), dropout=0.1)

    def steps(replacing, p):
        set_seed(0)
        successor = build_encoder(berts.keep_layers(bert, range(3)), dropout=0.0)
        settings = replace(script.PRESETS["demo"], replacing=replacing)
        model = script.mix(predecessor.encoder, successor, predecessor.head, settings, lambda: tf.constant(p))
        model.compile(keras.optimizers.Adam(1e-5), loss=hard_loss)
        return lambda: [model.train_on_batch(inputs, labels) for _ in range(10)]

    return steps


def measure():
    """(additive, random), seconds of ten steps at p = 0.5."""
    steps = stepper()
    return medians(steps("additive", 0.5), steps("random", 0.5))


def detail():
    """A table, header first: mean milliseconds of a random step against p, beside the additive one."""
    steps = stepper()
    additive = steps("additive", 0.5)
    rows = [["p", "random, ms a step", "additive, ms a step", "times as fast"]]
    for p in RATES:
        both, drawn = medians(additive, steps("random", p), rounds=2)
        rows.append([f"{p:.2f}", f"{100 * drawn:.0f}", f"{100 * both:.0f}", f"{both / drawn:.1f}"])
    yield rows
