"""A step of module replacing that computes only the module it has drawn, against one that computes both and adds them."""

from dataclasses import replace

import numpy as np

import knowledge_distillation_bert_of_theseus as script
from common import data, distillation, pretrained, texts
from common.backend import keras, set_seed, tf
from tests.benchmarks.timing import medians

TITLE = "10 steps of replacing, p = 0.5, 6 -> 3 layers"
RATES = (0.0, 0.25, 0.5, 0.75, 1.0)


def stepper():
    """(replacing, p) -> a function that takes ten training steps on 32 posts of 64 tokens."""
    corpus, bert = data.load("20newsgroups"), pretrained.load("minilm-l6")
    encoded = data.encode(corpus.texts[:2000], bert.tokenizer, maxlen=64)
    full = np.flatnonzero(encoded.lengths(np.arange(2000)) == 64)[:32]
    inputs, labels = encoded.inputs(full), corpus.labels[full]
    predecessor, judge = texts.build_classifier(bert, len(corpus.classes), dropout=0.1)

    def steps(replacing, p):
        set_seed(0)
        successor = pretrained.build_encoder(pretrained.shallow(bert, range(3)), dropout=0.0)
        settings = replace(script.PRESETS["demo"], replacing=replacing)
        model = script.mix(predecessor, successor, judge.get_layer("Classifier"), settings, lambda: tf.constant(p))
        distillation.compile_alone(model, keras.optimizers.Adam(1e-5))
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
