"""Fitting one model: optimizer, progress bar, and the callback that evaluates each epoch and keeps the best weights.

What is fitted to what is the scripts' story: they bring a model, its losses and its batches.
"""

import shutil
import time

import numpy as np
from tqdm import tqdm

from common.backend import keras
from common.distillation import fingerprint
from common.evaluation import predict, scores
from common.files import write_whole


class KeepBest(keras.callbacks.Callback):
    """After each epoch the accuracy on the validation texts is measured; at the end the best epoch's weights are back.

    classifier: the model whose logits are judged. labels: (rows,) int. history: a dict per epoch of losses and scores.
    """

    def __init__(self, classifier, encoded, rows, labels):
        super().__init__()
        self.classifier, self.encoded, self.rows, self.labels = classifier, encoded, rows, labels
        self.history, self.best, self.best_weights = [], -1.0, None

    def on_epoch_end(self, epoch, logs=None):
        found = scores(self.labels, predict(self.classifier, self.encoded, self.rows))
        logs |= {f"val_{name}": value for name, value in found.items()}  # for the callbacks that come after this one
        numbers = {name: float(value) if np.isfinite(value) else None for name, value in logs.items()}  # JSON has no NaN
        self.history.append({"epoch": epoch + 1} | numbers)
        if found["accuracy"] > self.best:
            self.best, self.best_weights = found["accuracy"], self.model.get_weights()

    def on_train_end(self, logs=None):
        self.model.set_weights(self.best_weights)


class ProgressBar(keras.callbacks.Callback):
    """One bar for a whole stage, gone when the stage is done; none where standard error is not a terminal."""

    def __init__(self, title):
        super().__init__()
        self.title = title

    def on_train_begin(self, logs=None):
        total = self.params["epochs"] * self.params["steps"]
        self.bar = tqdm(total=total, desc=self.title, unit="batch", leave=False, disable=None, dynamic_ncols=True)

    def on_train_batch_end(self, batch, logs=None):
        self.bar.update()

    def on_epoch_end(self, epoch, logs=None):
        self.bar.set_postfix_str(f"epoch {epoch + 1}: validation {logs['val_accuracy']:.1%}")

    def on_train_end(self, logs=None):
        self.bar.close()


def adam(learning_rate, steps, schedule):
    """Adam with a constant learning rate, or (`linear`) one that falls to 0 over `steps` steps."""
    if schedule == "linear":
        learning_rate = keras.optimizers.schedules.PolynomialDecay(learning_rate, steps, end_learning_rate=0.0)
    return keras.optimizers.Adam(learning_rate)


def fit(model, batches, steps_per_epoch, epochs, keep_best, title, events):
    """Train a compiled `model`, leave it with its best weights, and return (history, seconds).

    batches: an endless dataset. keep_best: a KeepBest. events: folder for TensorBoard, replaced.
    """
    shutil.rmtree(events, ignore_errors=True)  # of a start that was broken off
    start = time.perf_counter()
    model.fit(
        batches,
        steps_per_epoch=steps_per_epoch,
        epochs=epochs,
        verbose=0,
        callbacks=[keep_best, ProgressBar(title), keras.callbacks.TensorBoard(events, write_graph=False)],
    )
    return keep_best.history, time.perf_counter() - start


def save_weights(model, path):
    """Write all weights of `model` to `path` (.npz), whole or not at all."""
    weights = {str(i): value for i, value in enumerate(model.get_weights())}
    write_whole(path, lambda file: np.savez(file, **weights))


def load_weights(model, path):
    """Give `model` the weights that `save_weights` wrote."""
    with np.load(path) as stored:
        model.set_weights([stored[str(i)] for i in range(len(stored.files))])


def weights_fingerprint(model):
    """A short digest of all weights of `model`."""
    return fingerprint(*model.get_weights())
