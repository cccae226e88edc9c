"""Training one model as a stage of a run: optimizer, the best epoch kept, and what the stage leaves behind.

What is fitted to what is the scripts' story: they bring a model, its loss and its targets.
"""

import shutil
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from common import InputError
from common.backend import drawn_by_step, keras
from common.batches import training_batches
from common.callbacks import Backup, KeepBest, ProgressBar
from common.devices import barrier, distributed, is_chief
from common.distillation import hard_loss
from common.evaluation import predict, scores
from common.files import read_file, wait_for, write_array, write_atomic, write_json
from data.berts import Bert
from data.parts import Parts

UNFINISHED = "unfinished.npz"  # in a stage's folder: all that its next epoch needs
ADVICE = "try a lower learning rate, --precision float32, or another seed"  # to whoever's training diverged


@dataclass(frozen=True)
class Run:
    """What all stages of one seed share; each leaves its weights and its record in a folder of its own."""

    settings: object  # the script's
    seed: int
    corpus: object  # `data.texts.Corpus` or `data.images.Images`
    examples: object  # what models read of it, TokenizedTexts or Pixels
    parts: Parts  # which examples are for what
    folder: Path  # the run's, for all seeds
    bert: Bert | None = None  # that its models start from, if they do
    other_teachers: tuple = ()  # further classifiers that are given beside it, `data.berts.Bert`s
    answers: tuple = ()  # of teachers elsewhere: logits (texts, classes) each, NaN where there is none

    def stage(self, name):
        """The folder of the stage `name`."""
        return self.folder / f"seed-{self.seed}" / name

    def logits(self, name, part):
        """What the model of the finished stage `name` answers to a part, "validation" or "test": (examples, …) float32."""
        return read_file(self.stage(name) / f"{part}_logits.npy")

    def write_logits(self, name, validation, test):
        """Leave them for `logits`."""
        for part, logits in (("validation", validation), ("test", test)):
            write_array(self.stage(name) / f"{part}_logits.npy", logits)

    def steps(self, indices):
        """Steps of an epoch over these examples."""
        return -(-len(indices) // self.settings.batch_size)

    def record(self, name):
        """What the stage `name` left, or None if it has not been finished."""
        path = self.stage(name) / "record.json"
        if not path.exists():
            return None
        if is_chief():
            (self.stage(name) / UNFINISHED).unlink(missing_ok=True)  # of a process that was killed just then
        return read_file(path)


def adam(learning_rate, steps, schedule, weight_decay=0, clip_norm=0):
    """Adam as the settings want it.

    learning_rate: at the first step
    steps: of the whole training
    schedule: `constant`, or `linear`, falling to 0 over these steps
    weight_decay: above 0 makes it AdamW; biases and layer norms do not decay
    clip_norm: above 0 clips the gradients to this global norm
    """
    if schedule == "linear":
        learning_rate = keras.optimizers.schedules.PolynomialDecay(learning_rate, steps, end_learning_rate=0.0)
    if not weight_decay:
        return keras.optimizers.Adam(learning_rate, global_clipnorm=clip_norm or None)
    optimizer = keras.optimizers.AdamW(learning_rate, weight_decay=weight_decay, global_clipnorm=clip_norm or None)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta", "Norm"])
    return optimizer


def fine_tune(run, name, classifier, epochs, learning_rate, weight_decay=0, clip_norm=0):
    """Train a classifier on the labels of the training part, by cross-entropy, as the stage `name`. Returns its record.

    run: the Run
    name: of the stage
    classifier: Keras model of the examples, to logits
    epochs: how many at most
    learning_rate: of Adam, with the settings' schedule
    weight_decay: see `adam`
    clip_norm: see `adam`
    """
    indices = run.parts.train
    optimizer = adam(learning_rate, run.steps(indices) * epochs, run.settings.schedule, weight_decay, clip_norm)
    return train_stage(run, name, classifier, hard_loss, optimizer, indices, run.corpus.labels[indices], epochs)


def train_stage(
    run, name, classifier, loss, optimizer, indices, targets, epochs, steps=None, model=None, callbacks=(), measure=scores,
    saved=None, metrics=None, patience=None, first=0, **metadata,
):
    """Train a model, and leave `classifier` with the weights of its best epoch on the validation part. Returns the record.

    Training that was interrupted resumes from its last backup, and ends as if it had not been. Writes weights, logits of
    validation and test part, TensorBoard events and, last, the record; of several processes only the chief writes. A loss that
    is not finite ends the training with the best epoch before it, and the record says so; InputError if there is none.

    run: the Run
    name: of the stage
    classifier: Keras model of the examples, to logits
    loss: (targets, logits) -> (batch,) float32
    optimizer: a Keras optimizer
    indices: (examples,) int, to train on
    targets: array whose first axis is that of `indices`
    epochs: how many at most; fewer if the settings' patience ends first
    steps: a length of epoch, unless it is one pass over the examples
    model: what is trained, where it is not the classifier itself but shares its weights
    callbacks: further ones, whose logs enter the history
    measure: (labels, logits) -> scores, by whose "accuracy" the epoch is chosen
    saved: the part of the classifier that is trained, if the rest lies elsewhere
    metrics: functions like the loss, whose means enter the history
    patience: epochs without a gain that end the training, unless it is the settings'; 0: none do
    first: epochs at the beginning that are not chosen, because they learn no answers yet
    metadata: more for the record
    """
    labels, parts, seed, model = run.corpus.labels, run.parts, run.seed, model or classifier
    steps, saved = steps or run.steps(indices), saved or classifier
    model.compile(optimizer, loss=loss, weighted_metrics=metrics)  # weighted: see `training_batches`
    if metrics:  # made now; else Keras makes them in its first step, and so has to trace it twice
        model.compiled_metrics.build(model.output, targets)
    events = run.folder / "tensorboard" / f"seed-{seed}-{name}"
    keep_best = KeepBest(run, classifier, measure, run.settings.patience if patience is None else patience, first)
    backup = Backup(run.stage(name) / UNFINISHED, keep_best, model)
    if not backup.epoch and is_chief():
        shutil.rmtree(events, ignore_errors=True)  # of a start that was interrupted
    first_batch = backup.epoch * steps
    with drawn_by_step(seed, model.optimizer.iterations):
        model.fit(
            distributed(partial(training_batches, run.examples, indices, targets, run.settings.batch_size, seed, first_batch)),
            steps_per_epoch=steps,
            initial_epoch=backup.epoch,
            epochs=backup.epoch if keep_best.out_of_patience() else epochs,
            verbose=0,
            callbacks=[
                keras.callbacks.TerminateOnNaN(),
                *callbacks,
                keep_best,
                backup,
                ProgressBar(f"seed {seed} {name}", backup.epoch),
                *([keras.callbacks.TensorBoard(str(events), write_graph=False)] if is_chief() else []),
            ],
        )
    seconds = time.perf_counter() - backup.start
    logits = keep_best.predict(parts.test)
    if keep_best.best < 0 or not np.isfinite(logits).all():
        raise InputError(f"seed {seed} {name}: training diverged in epoch {keep_best.diverged or epochs}; {ADVICE}")
    metadata |= {"diverged_in_epoch": keep_best.diverged} if keep_best.diverged else {}
    record = {
        "name": name, "seed": seed, "parameters": classifier.count_params(), **measure(labels[parts.test], logits),
        "validation_accuracy": keep_best.best, "train_seconds": seconds, "epochs": len(keep_best.history),
        "steps": steps * len(keep_best.history), **metadata,
        "history": keep_best.history,
    }
    leave_stage(run, name, saved, keep_best.best_logits, logits, record)
    if is_chief():
        backup.path.unlink(missing_ok=True)
    return record


def measure_given(run, name, classifier):
    """Leave a classifier that was fine-tuned elsewhere as the stage `name`, as `train_stage` would. Returns the record."""
    validation, test = (predict(classifier, run.examples, indices) for indices in (run.parts.validation, run.parts.test))
    if not all(np.isfinite(logits).all() for logits in (validation, test)):
        raise InputError(f"--teacher: what {run.bert.source} answers is not finite; try --precision float32")
    chosen_on = scores(run.corpus.labels[run.parts.validation], validation)["accuracy"]
    record = {
        "name": name, "seed": run.seed, "parameters": classifier.count_params(),
        **scores(run.corpus.labels[run.parts.test], test), "validation_accuracy": chosen_on,
        "train_seconds": 0.0, "epochs": 0, "steps": 0, "given": True, "history": [],
    }
    leave_stage(run, name, classifier, validation, test, record)
    return record


def leave_stage(run, name, model, validation_logits, test_logits, record):
    """Write what a finished stage leaves: weights, logits and, last, its record; of several processes only the chief writes.

    run: the Run
    name: of the stage
    model: whose weights they are; of a process that is not the chief it gets the chief's, which may have chosen another epoch
        because its processor rounds otherwise
    validation_logits, test_logits: of the two parts, (examples, …) float32
    record: as JSON
    """
    folder = run.stage(name)
    if is_chief():
        save_weights(model, folder / "weights.npz")
        run.write_logits(name, validation_logits, test_logits)
        write_json(folder / "record.json", record)
    barrier()
    if not is_chief():
        wait_for(folder / "record.json")
        load_stage(run, name, model)


def load_stage(run, name, model):
    """Give `model` the weights that the finished stage `name` left, and return it."""
    stored = read_file(run.stage(name) / "weights.npz")
    model.set_weights([stored[str(i)] for i in range(len(stored))])
    return model


def trained(run, name, build):
    """The BertClassifier of a finished stage, with its best weights. build: (run, name) -> the same, not trained yet."""
    classifier = build(run, name)
    load_stage(run, name, classifier.model)
    return classifier


def save_weights(model, path):
    """Write all weights of `model` to `path` (.npz), atomically."""
    weights = {str(i): value for i, value in enumerate(model.get_weights())}
    write_atomic(path, lambda file: np.savez(file, **weights))
