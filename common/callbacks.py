"""What happens around the epochs of a stage: the best one is kept, all is backed up, a bar shows how far it is."""

import json
import time

import numpy as np
from tqdm import tqdm

from common import InputError
from common.backend import keras
from common.devices import is_chief, of_chief
from common.evaluation import predict, prediction_graph
from common.files import read_file, write_atomic


class KeepBest(keras.callbacks.Callback):
    """After each epoch the accuracy on the validation part is measured; at the end the best epoch's weights are back.

    An epoch whose loss or logits are not finite is the last, and counts for nothing. The last, too, is that after which a
    number of epochs have not gained (tf_keras's EarlyStopping would begin to count anew after an interruption).
    """

    def __init__(self, run, classifier, measure, patience=0, first=0):
        """Keep the best epoch of a model.

        run: the `training.Run`
        classifier: the model whose logits are measured
        measure: (labels, logits) -> scores, "accuracy" among them
        patience: epochs without a gain that end the training; 0: none do
        first: epochs at the beginning that are not chosen, whatever they reach, because they learn no answers yet
        """
        super().__init__()
        self.run, self.classifier, self.measure, self.patience, self.first = run, classifier, measure, patience, first
        self.graph = prediction_graph(classifier, run.examples)
        self.history = []  # a dict per epoch of losses and scores
        self.best = -1.0  # accuracy of the best epoch; best_weights and best_logits are its model's
        self.diverged = None  # the number of the epoch that was not finite

    def predict(self, indices):
        """The classifier's logits for some examples."""
        return predict(self.classifier, self.run.examples, indices, graph=self.graph)

    def out_of_patience(self):
        """Whether the last epochs have not gained, on the chief, whose weights are kept."""
        reached = [epoch["val_accuracy"] for epoch in self.history[self.first :]]
        return self.patience and of_chief(bool(reached) and len(reached) - 1 - reached.index(max(reached)) >= self.patience)

    def on_epoch_end(self, epoch, logs=None):
        logits = self.predict(self.run.parts.validation)
        if not (np.isfinite(logs["loss"]) and np.isfinite(logits).all()):
            self.diverged, self.model.stop_training = epoch + 1, True
            return
        measured = self.measure(self.run.corpus.labels[self.run.parts.validation], logits)
        logs |= {f"val_{name}": value for name, value in measured.items()}  # for the callbacks that come after this one
        numbers = {name: float(value) if np.isfinite(value) else None for name, value in logs.items()}  # JSON has no NaN
        self.history.append({"epoch": epoch + 1} | numbers)
        chosen = epoch >= self.first and measured["accuracy"] > self.best
        if chosen or epoch < self.first:
            self.best_weights, self.best_logits = self.model.get_weights(), logits
        if chosen:
            self.best = measured["accuracy"]
        self.model.stop_training |= self.out_of_patience()

    def on_train_end(self, logs=None):
        if self.history:
            self.model.set_weights(self.best_weights)


BACKUP_SHARE = 0.05  # of the time from one backup to the next, at most: they are hundreds of MB, where an epoch takes seconds


class Backup(keras.callbacks.Callback):
    """After an epoch all that the next one needs is written to a file, atomically, and read by a later start.

    That is the weights, the optimizer's state, and what `keep_best` has kept (tf_keras's BackupAndRestore knows nothing of
    the latter, and the two would not be written at once). After the first epoch of a start, and then as often as BACKUP_SHARE
    allows.
    """

    def __init__(self, path, keep_best, model):
        """Restore what the file holds, if there is one.

        path: of the file
        keep_best: the KeepBest of the stage
        model: the compiled model
        """
        super().__init__()
        self.path, self.keep_best = path, keep_best
        self.epoch, self.seconds = 0, 0.0  # finished before this start, and how long they took
        self.due = 0.0  # when the next backup may be written, by `time.perf_counter`
        model.optimizer.build(model.trainable_variables)
        arrays, metadata = self.read()
        if arrays:
            model.set_weights(arrays["weights"])
            for variable, value in zip(state_of(model.optimizer), arrays["optimizer"], strict=True):
                variable.assign(value)
            self.epoch, self.seconds = metadata["epoch"], metadata["seconds"]
            keep_best.history, keep_best.best = metadata["history"], metadata["best"]
            keep_best.best_weights, keep_best.best_logits = arrays["best_weights"], arrays["best_logits"][0]
        self.start = time.perf_counter() - self.seconds

    def read(self):
        """(arrays, metadata) that an earlier start left; both empty if there is nothing, or nothing whole."""
        if self.path.is_file():
            try:
                stored = read_file(self.path)
                metadata = json.loads(str(stored["metadata"]))
                return {name: [stored[f"{name}{i}"] for i in range(n)] for name, n in metadata["counts"].items()}, metadata
            except (InputError, ValueError, KeyError):
                print(f"  {self.path} is damaged: the stage begins anew")
        return {}, {}

    def on_epoch_end(self, epoch, logs=None):
        keep = self.keep_best
        began = time.perf_counter()
        if keep.diverged or not is_chief() or began < self.due:
            return
        arrays = {
            "weights": self.model.get_weights(), "optimizer": [v.numpy() for v in state_of(self.model.optimizer)],
            "best_weights": keep.best_weights, "best_logits": [keep.best_logits],
        }
        metadata = {
            "epoch": epoch + 1, "seconds": began - self.start, "history": keep.history, "best": keep.best,
            "counts": {name: len(values) for name, values in arrays.items()},
        }
        numbered = {f"{name}{i}": value for name, values in arrays.items() for i, value in enumerate(values)}
        write_atomic(self.path, lambda file: np.savez(file, metadata=json.dumps(metadata), **numbered))
        ended = time.perf_counter()
        self.due = ended + (ended - began) * (1 / BACKUP_SHARE - 1)


def state_of(optimizer):
    """The variables that an optimizer has beside the model's own; with mixed_float16 those of the loss scale, too."""
    scale = getattr(optimizer, "_loss_scale", None)  # which `variables` leaves out
    return [*optimizer.variables, *([scale.current_loss_scale, scale.counter] if scale else [])]


class ProgressBar(keras.callbacks.Callback):
    """One bar for a whole stage, gone when the stage is done; none where standard error is not a terminal."""

    def __init__(self, title, first):
        """title: what stands before the bar. first: epochs that are done already."""
        super().__init__()
        self.title, self.first = title, first

    def on_train_begin(self, logs=None):
        steps = self.params["steps"]
        self.bar = tqdm(
            total=self.params["epochs"] * steps, initial=self.first * steps, desc=self.title, unit="batch", leave=False,
            disable=None, dynamic_ncols=True,
        )

    def on_train_batch_end(self, batch, logs=None):
        self.bar.update()

    def on_epoch_end(self, epoch, logs=None):
        self.bar.set_postfix_str(f"epoch {epoch + 1}: validation {logs.get('val_accuracy', np.nan):.1%}")

    def on_train_end(self, logs=None):
        self.bar.close()
