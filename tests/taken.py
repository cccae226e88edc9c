"""A student that was taken away, for the tests of what is written of it, read again and asked."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy.special import softmax

from common.backend import set_seed
from common.bert import BertClassifier, build_classifier
from data import berts
from data.students import FLOAT32
from export.onnx_graph import text_graph
from tests import tiny

CLASSES = ["猫", "b c", "d", "e"]
LINES = [text for text, _ in tiny.texts(12)] + ["", "w1 " * 40]


@dataclass(frozen=True)
class Taken:
    """folder: of the student, whose head is drawn at random. classifier: what it was made from."""

    folder: Path
    classifier: BertClassifier
    known: dict = field(default_factory=dict)  # what it has answered

    @property
    def bert(self):
        return self.classifier.start

    def probabilities(self, lines):
        """Of each line by itself, from the classifier that was trained."""
        asked = [line for line in dict.fromkeys(lines) if line not in self.known]
        for line in asked:
            inputs = tiny.tokenized([line], self.bert).inputs(np.array([0]))
            self.known[line] = softmax(self.classifier.model.predict_on_batch(inputs)[0])
        return np.stack([self.known[line] for line in lines])


def take_student(folder, bert_folder):
    """Write a student of layers 0 and 2 of the BERT in `bert_folder` to `folder`, without a SavedModel."""
    set_seed(0)
    bert = berts.keep_layers(berts.load(str(bert_folder)), [0, 2])
    classifier = build_classifier(bert, 4, dropout=0.1)
    head = [np.random.default_rng(i).normal(0, 1, shape).astype(np.float32) for i, shape in enumerate([(32, 4), (4,)])]
    classifier.head.set_weights(head)
    berts.save(folder, classifier.bert, CLASSES, maxlen=16)
    (folder / FLOAT32).write_bytes(text_graph(classifier.bert).SerializeToString())
    return Taken(folder, classifier)
