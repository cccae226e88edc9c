"""The row `linear`: TF-IDF and a linear support vector machine, fitted in seconds: whether a task needs a BERT at all.

A BERT that is not above it on the same texts has not learned enough, or the texts are answered by their words alone. Fitted to
what a teacher says of texts without labels, it is a student too: the one without a network.
"""

import time
import warnings
from dataclasses import replace

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.svm import LinearSVC

from common import InputError
from common.cost import wall_clock
from common.devices import is_chief
from common.evaluation import scores
from common.files import atomic_folder, write_json
from data import linear_models
from data.texts import has_no_spaces

LINEAR = "linear"  # the row's name
MODEL = "model"  # in the folder of its stage: what `data.linear_models` writes
STRENGTHS = (0.1, 0.3, 1.0, 3.0, 10.0)  # C of the machine, the inverse of its regularization, chosen on validation
MOST_SURE = 10.0  # the highest inverse temperature: where no validation text is answered wrongly it would be infinite
MOST_TERMS, MOST_WEIGHTS = 200_000, 25_000_000  # the most frequent terms are taken: a few hundred MB while they are fitted


def linear_records(runs):
    """The records of the linear models of some runs, fitted now unless they have been; none if the settings want none."""
    return [fit_linear(run) for run in runs if run.settings.linear]


def linear_record(run, name):
    """What the stage of a linear model left, or None if it has not been finished, or by a version that kept no MODEL."""
    return run.record(name) if (run.stage(name) / MODEL).is_dir() else None


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
    if record := linear_record(run, name):
        return record
    start, parts, labels, texts = time.perf_counter(), run.parts, run.corpus.labels, run.corpus.texts
    indices = parts.train if indices is None else indices
    classes = labels[indices] if classes is None else classes
    taught, validation, test = ([texts[i] for i in of_part] for of_part in (indices, parts.validation, parts.test))
    joined = linear_models.as_one(taught, run.corpus.pairs)
    without = "--no-linear" if name == LINEAR else f"--experiments without {name}"
    most = min(MOST_TERMS, MOST_WEIGHTS // len(run.corpus.classes))
    terms = linear_models.vectorizer(has_no_spaces(joined), max_features=most)
    try:
        counted = terms.fit_transform(joined)
    except ValueError:  # of scikit-learn, about an empty vocabulary
        raise InputError(f"{run.corpus.name}: no words in the training texts; {without} does without counting them") from None
    if len(set(classes)) == 1:
        raise InputError(f"{run.corpus.name}: all texts that {name} is to learn are of one class; take more, or {without}")
    reached = -1.0
    for tried in STRENGTHS:
        with warnings.catch_warnings():  # of scikit-learn, where classes are many and texts few
            warnings.simplefilter("ignore")
            machine = LinearSVC(C=tried, random_state=run.seed).fit(counted, classes)
        weights, biases = (np.array(values.T, np.float32, order="C") for values in (machine.coef_, machine.intercept_))
        candidate = linear_models.LinearModel(
            terms, weights, biases, machine.classes_, run.corpus.classes, bool(run.corpus.pairs))
        its_logits = candidate.logits(validation)
        accuracy = scores(labels[parts.validation], its_logits)["accuracy"]
        if accuracy > reached:  # of equals the one that is held tightest
            reached, strength, model, validation_logits = accuracy, tried, candidate, its_logits
    seconds, logits = time.perf_counter() - start, model.logits(test)
    asked = {name: model.logits}
    one = wall_clock(asked, [[text] for text in test[:32]], rounds=5)[name].mean()
    together = wall_clock(asked, [(test * 32)[:32]], rounds=15)[name][0]
    parameters = model.weights.size + model.biases.size
    record = {
        "name": name, "seed": run.seed, "layers": 0, "parameters": parameters,
        "bytes": 4 * (parameters + counted.shape[1]) + sum(len(term.encode()) for term in terms.vocabulary_),  # and idf, terms
        "flops": 2 * len(model.biases) * model.counted(test).nnz / len(test),
        "latency_ms": {"1": 1000 * float(one), "32": 1000 * float(together)},
        **scores(labels[parts.test], logits), "validation_accuracy": reached, "train_seconds": seconds,
        "epochs": 0, "strength": strength, "terms": "characters" if terms.analyzer == "char" else "words",
        **metadata, "history": [],
    }
    if is_chief():
        run.stage(name).mkdir(parents=True, exist_ok=True)
        fitted = inverse_temperature(validation_logits, labels[parts.validation])
        with atomic_folder(run.stage(name) / MODEL) as folder:
            linear_models.save(folder, replace(model, inverse_temperature=fitted))
        run.write_logits(name, validation_logits, logits)
        write_json(run.stage(name) / "record.json", record)
    return record


def inverse_temperature(logits, labels):
    """What distances are multiplied by so that their softmax says best how likely the labels of the validation part are.

    The temperature scaling of Guo et al., On Calibration of Modern Neural Networks, 2017, arXiv 1706.04599: 1 / T.

    logits: (texts, classes) float32, -inf for a class that no training text had; such labels are left out
    labels: (texts,) int
    """
    places = np.arange(len(labels))
    seen = np.isfinite(logits[places, labels])

    def mean_loss(exponent):
        return -log_softmax(np.exp(exponent) * logits[seen].astype(float), axis=1)[places[: seen.sum()], labels[seen]].mean()

    if not seen.any():
        return 1.0
    return float(np.exp(minimize_scalar(mean_loss, bounds=np.log([0.01, MOST_SURE]), method="bounded").x))
