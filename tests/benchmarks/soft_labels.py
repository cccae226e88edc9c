"""An epoch of distillation with cached soft labels against one in which the teacher runs in every step."""

import numpy as np

import knowledge_distillation_bert as script
from common.backend import keras
from common.bert import build_classifier
from common.distillation import distillation_loss, distillation_targets, soften
from common.evaluation import predict
from data import berts, texts
from data.bucketing import by_length
from data.parts import split
from tests import tiny
from tests.benchmarks.timing import medians

TITLE = "distilling 512 posts, an epoch"


def measure():
    """(teacher in every step, cached), seconds of an epoch: 512 texts of 20newsgroups, 64 tokens, 6 layers -> 3."""
    settings = script.PRESETS["demo"]
    corpus = texts.load("20newsgroups")
    bert = berts.load("minilm-l6")
    indices = split(corpus, seed=0, train=512).train
    examples = tiny.tokenized(corpus.texts, bert, maxlen=64)
    teacher = build_classifier(bert, len(corpus.classes), dropout=0).model
    student = build_classifier(berts.keep_layers(bert, range(3)), len(corpus.classes), dropout=0.1).model
    student.compile(keras.optimizers.Adam(1e-5), loss=distillation_loss(settings.temperature, 1, 1))
    cached = soften(predict(teacher, examples, indices), settings.temperature)
    batches = by_length(examples.lengths(indices), 32, np.random.default_rng(0))

    def epoch(soft_labels):
        for chosen in batches:
            inputs = examples.inputs(indices[chosen])
            student.train_on_batch(inputs, distillation_targets(corpus.labels[indices[chosen]], soft_labels(chosen, inputs)))

    return medians(
        lambda: epoch(lambda _, inputs: soften(teacher.predict_on_batch(inputs), settings.temperature)),
        lambda: epoch(lambda chosen, _: cached[chosen]),
        rounds=3,
    )
