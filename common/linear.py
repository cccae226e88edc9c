"""The row `linear`: TF-IDF and a linear support vector machine, fitted in seconds: whether a task needs a BERT at all.

A BERT that is not above it on the same texts has not learned enough, or the texts are answered by their words alone.
"""

import re
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

LINEAR = "linear"  # the row's name
STRENGTHS = (0.1, 0.3, 1.0, 3.0, 10.0)  # C of the machine, the inverse of its regularization, chosen on validation
MOST_TERMS = 200_000  # the most frequent are taken: with 100 classes they are 200 MB while they are fitted


def terms_of(texts):
    """What a text is counted as: a TfidfVectorizer, not fitted yet; words and pairs of words, or in Chinese 1 to 3 characters.

    texts: list of strings; Chinese if at least half of their letters are
    """
    joined = "".join(texts)
    chinese = len(re.findall("[\u3400-\u9fff]", joined)) >= 0.5 * sum(map(str.isalpha, joined)) > 0
    kind = {"analyzer": "char", "ngram_range": (1, 3)} if chinese else {"ngram_range": (1, 2), "token_pattern": r"(?u)\b\w+\b"}
    return TfidfVectorizer(sublinear_tf=True, max_features=MOST_TERMS, dtype=np.float32, **kind)


def linear_records(runs):
    """The records of the linear models of some runs, fitted now unless they have been; none if the settings want none."""
    return [fit_linear(run) for run in runs if run.settings.linear]


def fit_linear(run):
    """Fit the linear model of a run to the whole texts of its training part. Returns its record, as other stages have one.

    A pair of texts is counted as one, the two joined.

    Writes logits of validation and test part and, last, the record. Times are from the text to the classes: its tokenizing is
    part of the model.

    run: `training.Run` on texts
    """
    if record := run.record(LINEAR):
        return record
    start, parts, labels, classes = time.perf_counter(), run.parts, run.corpus.labels, len(run.corpus.classes)
    whole = [*map(" ".join, run.corpus.texts)] if run.corpus.pairs else run.corpus.texts
    texts = {part: [whole[i] for i in getattr(parts, part)] for part in ("train", "validation", "test")}
    terms = terms_of(texts["train"])
    try:
        counted = terms.fit_transform(texts["train"])
    except ValueError:  # of scikit-learn, about an empty vocabulary
        raise InputError(f"{run.corpus.name}: no words in the training texts; --no-linear does without counting them") from None
    if len(set(labels[parts.train])) == 1:
        raise InputError(f"{run.corpus.name}: all training texts are of one class; raise --train-examples")

    def answers(machine, texts):
        """Distances from each class's border, (texts, classes) float32; of a class without a training text -inf."""
        distances = machine.decision_function(terms.transform(texts))
        distances = distances if distances.ndim > 1 else np.stack([-distances, distances], axis=1)
        logits = np.full((len(texts), classes), -np.inf, np.float32)
        logits[:, machine.classes_] = distances
        return logits

    reached = -1.0
    for tried in STRENGTHS:
        with warnings.catch_warnings():  # of scikit-learn, where classes are many and texts few
            warnings.simplefilter("ignore")
            candidate = LinearSVC(C=tried, random_state=run.seed).fit(counted, labels[parts.train])
        its_logits = answers(candidate, texts["validation"])
        accuracy = scores(labels[parts.validation], its_logits)["accuracy"]
        if accuracy > reached:  # of equals the one that is held tightest
            reached, strength, machine, validation_logits = accuracy, tried, candidate, its_logits
    seconds, logits = time.perf_counter() - start, answers(machine, texts["test"])
    asked = {LINEAR: lambda texts: answers(machine, texts)}
    one = wall_clock(asked, [[text] for text in texts["test"][:32]], rounds=5)[LINEAR].mean()
    together = wall_clock(asked, [(texts["test"] * 32)[:32]], rounds=15)[LINEAR][0]
    weights = machine.coef_.size + machine.intercept_.size
    record = {
        "name": LINEAR, "seed": run.seed, "layers": 0, "parameters": weights,
        "bytes": 4 * (weights + counted.shape[1]) + sum(len(term.encode()) for term in terms.vocabulary_),  # and idf, terms
        "flops": 2 * len(machine.coef_) * terms.transform(texts["test"]).nnz / len(texts["test"]),
        "latency_ms": {"1": 1000 * float(one), "32": 1000 * float(together)},
        **scores(labels[parts.test], logits), "validation_accuracy": reached, "train_seconds": seconds,
        "epochs": 0, "strength": strength, "terms": "characters" if terms.analyzer == "char" else "words",
        "history": [],
    }
    if is_chief():
        write_array(run.stage(LINEAR) / "validation_logits.npy", validation_logits)
        write_array(run.stage(LINEAR) / "test_logits.npy", logits)
        write_json(run.stage(LINEAR) / "record.json", record)
    return record
