"""An epoch of distillation with cached soft labels against one in which the teacher runs in every step."""

import numpy as np

import knowledge_distillation_bert as script
from common import data, distillation, pretrained, texts
from common.backend import keras
from common.evaluation import predict
from tests.benchmarks.timing import medians

TITLE = "distilling 512 posts, an epoch"


def measure():
    """(teacher in every step, cached), seconds of an epoch: 512 texts of 20newsgroups, 64 tokens, 6 layers -> 3."""
    settings = script.PRESETS["demo"]
    corpus = data.load("20newsgroups")
    bert = pretrained.load("minilm-l6")
    rows = data.split(corpus, seed=0, train=512).train
    encoded = data.encode(corpus.texts, bert.tokenizer, maxlen=64)
    teacher = texts.build_classifier(bert, len(corpus.classes), dropout=0)[1]
    student = texts.build_classifier(pretrained.shallow(bert, range(3)), len(corpus.classes), dropout=0.1)[1]
    model = distillation.compile_distilled(student, keras.optimizers.Adam(1e-5), settings.temperature, 1, 1)
    cached = distillation.soften(predict(teacher, encoded, rows), settings.temperature)
    batches = data.by_length(encoded.lengths(rows), 32, np.random.default_rng(0))

    def epoch(soft_labels):
        for chosen in batches:
            inputs = encoded.inputs(rows[chosen])
            targets = distillation.distillation_targets(corpus.labels[rows[chosen]], soft_labels(chosen, inputs))
            model.train_on_batch(inputs, *targets)

    return medians(
        lambda: epoch(lambda _, inputs: distillation.soften(teacher.predict_on_batch(inputs), settings.temperature)),
        lambda: epoch(lambda chosen, _: cached[chosen]),
        rounds=3,
    )
