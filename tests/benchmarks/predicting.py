"""Labelling texts as `python -m common.predict` does, in batches of like length, against one text after another."""

import tempfile
from pathlib import Path

from common import data, export, predict, pretrained, texts
from tests.benchmarks.timing import medians

TITLE = "labelling 512 posts, 64 tokens, 3 layers"


def measure():
    """(one by one, batched), seconds for 512 texts of 20newsgroups of up to 64 tokens, a 3-layer student in float32."""
    corpus = data.load("20newsgroups")
    lines = corpus.texts[:512]
    bert = pretrained.shallow(pretrained.load("minilm-l6"), range(3))
    classifier = texts.build_classifier(bert, len(corpus.classes), dropout=0.0)[1]
    head = classifier.get_layer("Classifier").get_weights()
    with tempfile.TemporaryDirectory() as folder:
        export.write_encoder(Path(folder), bert, corpus.classes, head, maxlen=64)
        export.write_saved_model(Path(folder), export.classifying_graph(classifier, bert.pad_id))
        student = export.load(folder)
    return medians(
        lambda: [export.ask(student, [line]) for line in lines],
        lambda: predict.answers(student, lines, top=1, speed=None, batch_size=32),
        rounds=3,
    )
