"""Labelling texts as `python -m common.predict` does, in batches of like length, against one text after another."""

import tempfile
from pathlib import Path

from common.bert import build_classifier
from data import berts, students, texts
from export import predict
from export import student as export
from tests.benchmarks.timing import medians

TITLE = "labelling 512 posts, 64 tokens, 3 layers"


def measure():
    """(one by one, batched), seconds for 512 texts of 20newsgroups of up to 64 tokens, a 3-layer student in float32."""
    corpus = texts.load("20newsgroups")
    lines = corpus.texts[:512]
    bert = berts.keep_layers(berts.load("minilm-l6"), range(3))
    model = export.text_model(build_classifier(bert, len(corpus.classes), dropout=0.0))
    with tempfile.TemporaryDirectory() as folder:
        berts.save(Path(folder), model.bert, corpus.classes, maxlen=64)
        export.write_saved_model(Path(folder), model.graph)
        student = students.load(folder)
    return medians(
        lambda: [students.ask(student, [line]) for line in lines],
        lambda: predict.answers(student, lines, top=1, speed=None, batch_size=32),
        rounds=3,
    )
