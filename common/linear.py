"""The row `linear`: TF-IDF and a linear support vector machine, fitted in seconds: whether a task needs a BERT at all.

A BERT that is not above it on the same texts has not learned enough, or the texts are answered by their words alone. Fitted to
what a teacher says of texts without labels, it is a student too: the one without a network.
"""

import time
import warnings

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.svm import LinearSVC

from common import InputError
from common.cost import wall_clock
from common.devices import is_chief
from common.evaluation import scores
from common.files import write_array, write_json
from data.texts import is_chinese

LINEAR = "linear"  # the row's name
STRENGTHS = (0.1, 0.3, 1.0, 3.0, 10.0)  # C of the machine, the inverse of its regularization, chosen on validation
MOST_TERMS = 200_000  # the most frequent are taken: with 100 classes they are 200 MB while they are fitted


def terms_of(texts):
    """What a text is counted as: a TfidfVectorizer, not fitted yet; words and pairs of words, or in Chinese 1 to 3 characters.

    texts: list of strings; see `texts.is_chinese`
    """
    words = {"ngram_range": (1, 2), "token_pattern": r"(?u)\b\w+\b"}
    kind = {"analyzer": "char", "ngram_range": (1, 3)} if is_chinese(texts) else words
    return TfidfVectorizer(sublinear_tf=True, max_features=MOST_TERMS, dtype=np.float32, **kind)


def linear_records(runs):
    """The records of the linear models of some runs, fitted now unless they have been; none if the settings want none."""
    return [fit_linear(run) for run in runs if run.settings.linear]


def fit_linear(run, name=LINEAR, indices=None, classes=None, **metadata):
    """Fit a linear model to whole texts, those of the training part unless told otherwise. Returns its record, as of a stage.

    A pair of texts is counted as one, the two joined.

    Writes logits of validation and test part and, last, the record. Times are from the text to the classes: its tokenizing is
    part of the model.

    run: `training.Run` on texts
    name: of the stage
    indices: (texts,) int, which texts to learn; None: those of the training part
    classes: (texts,) int, what to learn of them; None: their labels
    metadata: more for the record
    """
    if record := run.record(name):
        return record
    start, parts, labels = time.perf_counter(), run.parts, run.corpus.labels
    indices = parts.train if indices is None else indices
    classes = labels[indices] if classes is None else classes
    whole = [*map(" ".join, run.corpus.texts)] if run.corpus.pairs else run.corpus.texts
    taught, validation, test = ([whole[i] for i in of_part] for of_part in (indices, parts.validation, parts.test))
    terms = terms_of(taught)
    try:
        counted = terms.fit_transform(taught)
    except ValueError:  # of scikit-learn, about an empty vocabulary
        without = "--no-linear" if name == LINEAR else f"--experiments without {name}"
        raise InputError(f"{run.corpus.name}: no words in the training texts; {without} does without counting them") from None
    if len(set(classes)) == 1:
        raise InputError(f"{run.corpus.name}: all training texts are of one class; raise --train-examples")

    def answers(machine, texts):
        """Distances from each class's border, (texts, classes) float32; of a class without a training text -inf."""
        distances = machine.decision_function(terms.transform(texts))
        distances = distances if distances.ndim > 1 else np.stack([-distances, distances], axis=1)
        logits = np.full((len(texts), len(run.corpus.classes)), -np.inf, np.float32)
        logits[:, machine.classes_] = distances
        return logits

    reached = -1.0
    for tried in STRENGTHS:
        with warnings.catch_warnings():  # of scikit-learn, where classes are many and texts few
            warnings.simplefilter("ignore")
            candidate = LinearSVC(C=tried, random_state=run.seed).fit(counted, classes)
        its_logits = answers(candidate, validation)
        accuracy = scores(labels[parts.validation], its_logits)["accuracy"]
        if accuracy > reached:  # of equals the one that is held tightest
            reached, strength, machine, validation_logits = accuracy, tried, candidate, its_logits
    seconds, logits = time.perf_counter() - start, answers(machine, test)
    asked = {name: lambda texts: answers(machine, texts)}
    one = wall_clock(asked, [[text] for text in test[:32]], rounds=5)[name].mean()
    together = wall_clock(asked, [(test * 32)[:32]], rounds=15)[name][0]
    weights = machine.coef_.size + machine.intercept_.size
    record = {
        "name": name, "seed": run.seed, "layers": 0, "parameters": weights,
        "bytes": 4 * (weights + counted.shape[1]) + sum(len(term.encode()) for term in terms.vocabulary_),  # and idf, terms
        "flops": 2 * len(machine.coef_) * terms.transform(test).nnz / len(test),
        "latency_ms": {"1": 1000 * float(one), "32": 1000 * float(together)},
        **scores(labels[parts.test], logits), "validation_accuracy": reached, "train_seconds": seconds,
        "epochs": 0, "strength": strength, "terms": "characters" if terms.analyzer == "char" else "words",
        **metadata, "history": [],
    }
    if is_chief():
        write_array(run.stage(name) / "validation_logits.npy", validation_logits)
        write_array(run.stage(name) / "test_logits.npy", logits)
        write_json(run.stage(name) / "record.json", record)
    return record
