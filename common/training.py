"""Training one model as a stage of a run: optimizer, progress bar, the best epoch kept, and what the stage leaves behind.

What is fitted to what is the scripts' story: they bring a model, its losses and its targets.
"""

import json
import shutil
import time
import zipfile
import zlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from common import InputError, data
from common.backend import barrier, distributed, drawn_by_step, is_chief, keras
from common.distillation import cached_logits, example_keys
from common.evaluation import parameters, predict, scores
from common.files import fingerprint, wait_for, write_array, write_json, write_whole

UNFINISHED = "unfinished.npz"  # in a stage's folder: all that its next epoch needs
ADVICE = "try a lower learning rate, --precision float32, or another seed"  # to whoever's training diverged


@dataclass(frozen=True)
class Run:
    """What all stages of one seed share; each leaves its weights and its record in a folder of its own.

    settings: the script's. corpus: labels and classes. examples: what models read of it (Encoded or Images).
    """

    settings: object
    seed: int
    corpus: object
    examples: object
    parts: data.Parts
    folder: Path

    def stage(self, name):
        return self.folder / f"seed-{self.seed}" / name

    def steps(self, rows):
        """Steps of an epoch over the examples `rows`."""
        return -(-len(rows) // self.settings.batch_size)

    def record(self, name):
        """What the stage `name` left, or None if it has not been finished."""
        path = self.stage(name) / "record.json"
        if not path.is_file():
            return None
        if is_chief():
            for left in (self.stage(name) / UNFINISHED, *self.stage(name).glob(".*")):  # by a process that was killed
                left.unlink(missing_ok=True)
        return json.loads(path.read_text(encoding="utf-8"))


class KeepBest(keras.callbacks.Callback):
    """After each epoch the accuracy on the validation part is measured; at the end the best epoch's weights are back.

    classifier: the model whose logits are judged. labels: (rows,) int. measure: (labels, logits) -> scores, "accuracy" among
    them. history: a dict per epoch of losses and scores. best_logits: what the best epoch's model says of the part. An epoch
    whose loss or logits are not finite is the last, and counts for nothing; diverged is its number.
    """

    def __init__(self, classifier, examples, rows, labels, measure=scores):
        super().__init__()
        self.classifier, self.examples, self.rows, self.labels, self.measure = classifier, examples, rows, labels, measure
        self.history, self.best, self.diverged = [], -1.0, None

    def on_epoch_end(self, epoch, logs=None):
        logits = predict(self.classifier, self.examples, self.rows)
        if not (np.isfinite(logs["loss"]) and np.isfinite(logits).all()):
            self.diverged, self.model.stop_training = epoch + 1, True
            return
        found = self.measure(self.labels, logits)
        logs |= {f"val_{name}": value for name, value in found.items()}  # for the callbacks that come after this one
        numbers = {name: float(value) if np.isfinite(value) else None for name, value in logs.items()}  # JSON has no NaN
        self.history.append({"epoch": epoch + 1} | numbers)
        if found["accuracy"] > self.best:
            self.best, self.best_weights, self.best_logits = found["accuracy"], self.model.get_weights(), logits

    def on_train_end(self, logs=None):
        if self.history:
            self.model.set_weights(self.best_weights)


class Backup(keras.callbacks.Callback):
    """After each epoch all that the next one needs is written to a file, whole or not at all, and read by a later start.

    That is the weights, the optimizer's state, and what `keep_best` has kept (tf_keras's BackupAndRestore knows nothing of
    the latter, and the two would not be written at once). epoch: how many there were. seconds: of training until then.
    """

    def __init__(self, path, keep_best, model):
        super().__init__()
        self.path, self.keep_best, self.epoch, self.seconds = path, keep_best, 0, 0.0
        if is_chief():
            for file in path.parent.glob(".*"):  # half-written by a process that was killed
                file.unlink()
        model.optimizer.build(model.trainable_variables)
        held, told = self.read()
        if held:
            model.set_weights(held["weights"])
            for variable, value in zip(state_of(model.optimizer), held["optimizer"], strict=True):
                variable.assign(value)
            self.epoch, self.seconds = told["epoch"], told["seconds"]
            keep_best.history, keep_best.best = told["history"], told["best"]
            keep_best.best_weights, keep_best.best_logits = held["best_weights"], held["best_logits"][0]
        self.start = time.perf_counter() - self.seconds

    def read(self):
        """(arrays, what is told of them) that an earlier start left; both empty if there is nothing, or nothing whole."""
        if not self.path.is_file():
            return {}, {}
        try:
            with np.load(self.path) as stored:
                told = json.loads(str(stored["told"]))
                return {name: [stored[f"{name}{i}"] for i in range(n)] for name, n in told["counts"].items()}, told
        except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile, zlib.error):
            print(f"  {self.path} is damaged: the stage begins anew")
            return {}, {}

    def on_epoch_end(self, epoch, logs=None):
        keep = self.keep_best
        if keep.diverged or not is_chief():
            return
        held = {
            "weights": self.model.get_weights(), "optimizer": [v.numpy() for v in state_of(self.model.optimizer)],
            "best_weights": keep.best_weights, "best_logits": [keep.best_logits],
        }
        told = {"epoch": epoch + 1, "seconds": time.perf_counter() - self.start, "history": keep.history, "best": keep.best,
                "counts": {name: len(values) for name, values in held.items()}}
        arrays = {f"{name}{i}": value for name, values in held.items() for i, value in enumerate(values)}
        write_whole(self.path, lambda file: np.savez(file, told=json.dumps(told), **arrays))


def state_of(optimizer):
    """The variables that an optimizer has beside the model's own; with mixed_float16 those of the loss scale, too."""
    scale = getattr(optimizer, "_loss_scale", None)  # which `variables` leaves out
    return [*optimizer.variables, *([scale.current_loss_scale, scale.counter] if scale else [])]


class ProgressBar(keras.callbacks.Callback):
    """One bar for a whole stage, gone when the stage is done; none where standard error is not a terminal."""

    def __init__(self, title, first):
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


def adam(learning_rate, steps, schedule, weight_decay=0, clip_norm=0):
    """Adam with a constant learning rate, or (`linear`) one that falls to 0 over `steps` steps.

    weight_decay: above 0 makes it AdamW; biases and layer norms do not decay. clip_norm: above 0 clips the gradients to this
    global norm.
    """
    if schedule == "linear":
        learning_rate = keras.optimizers.schedules.PolynomialDecay(learning_rate, steps, end_learning_rate=0.0)
    clip = {"global_clipnorm": clip_norm} if clip_norm else {}
    if not weight_decay:
        return keras.optimizers.Adam(learning_rate, **clip)
    optimizer = keras.optimizers.AdamW(learning_rate, weight_decay=weight_decay, **clip)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta", "Norm"])
    return optimizer


def train_stage(
    run, name, classifier, model, rows, targets, epochs, steps, callbacks=(), measure=scores, saved=None, **told
):
    """Train the compiled `model` and leave `classifier` with the weights of its best epoch on the validation part.

    model: the classifier, or a model around it with the outputs that `targets` are for, as `data.batches` takes them.
    steps: a length of epoch. callbacks: further ones, whose logs enter the history. measure: (labels, logits) -> scores, by
    whose "accuracy" the epoch is chosen. saved: the part of the classifier that is trained, if the rest lies elsewhere. told:
    more for the record. A loss that is not finite ends the training with the best epoch before it, and the record says so;
    InputError if there is none. Training that was broken off goes on after its last whole epoch, and ends as if it had not
    been. Writes weights, logits of validation and test part, TensorBoard events and, last, the record, which is returned; of
    several processes only the chief writes.
    """
    labels, parts, seed = run.corpus.labels, run.parts, run.seed
    events = run.folder / "tensorboard" / f"seed-{seed}-{name}"
    keep_best = KeepBest(classifier, run.examples, parts.validation, labels[parts.validation], measure)
    backup = Backup(run.stage(name) / UNFINISHED, keep_best, model)
    if not backup.epoch and is_chief():
        shutil.rmtree(events, ignore_errors=True)  # of a start that was broken off
    first = backup.epoch * steps
    with drawn_by_step(seed, model.optimizer.iterations):
        model.fit(
            distributed(partial(data.batches, run.examples, rows, targets, run.settings.batch_size, seed, first)),
            steps_per_epoch=steps,
            initial_epoch=backup.epoch,
            epochs=epochs,
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
    logits = predict(classifier, run.examples, parts.test)
    if not keep_best.history or not np.isfinite(logits).all():
        raise InputError(f"seed {seed} {name}: training diverged in epoch {keep_best.diverged or epochs}; {ADVICE}")
    told |= {"diverged_in_epoch": keep_best.diverged} if keep_best.diverged else {}
    record = {
        "name": name,
        "seed": seed,
        "parameters": parameters(classifier),
        **measure(labels[parts.test], logits),
        "validation_accuracy": keep_best.best,
        "train_seconds": seconds,
        "epochs": len(keep_best.history),
        **told,
        "history": keep_best.history,
    }
    if is_chief():
        save_weights(saved or classifier, run.stage(name) / "weights.npz")
        for part, found in (("validation", keep_best.best_logits), ("test", logits)):
            write_array(run.stage(name) / f"{part}_logits.npy", found)
        write_json(run.stage(name) / "record.json", record)
        backup.path.unlink(missing_ok=True)
    barrier()
    if not is_chief():  # another processor may have rounded otherwise, and so chosen another epoch
        wait_for(run.stage(name) / "record.json")
        load_weights(saved or classifier, run.stage(name) / "weights.npz")
    return record


def logits_of(run, name, classifier, rows):
    """Logits (rows, classes) of the finished stage `name` to make soft labels of, each example computed once in a run."""
    logits, _ = cached_logits(
        run.stage(name) / "soft_labels.npz",
        weights_fingerprint(classifier),
        example_keys(run.examples, rows),
        lambda missing: predict(classifier, run.examples, rows[missing]),
    )
    return logits


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
