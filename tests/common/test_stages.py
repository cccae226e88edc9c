"""common.training.train_stage, with the student of images: which epoch is kept, when a stage ends, what diverges."""

from dataclasses import replace

import numpy as np
import pytest

import knowledge_distillation_from_scratch as script
from common import InputError, callbacks, training
from common.backend import keras
from common.devices import fresh_session
from common.distillation import distillation_loss, distillation_metrics, distillation_targets, hard_loss
from common.evaluation import predict
from common.training import train_stage
from report.document import describe
from report.plots import plot_curves
from tests.test_knowledge_distillation_from_scratch import run_on_images


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return run_on_images(tmp_path_factory.mktemp("run"))


def test_training_that_diverges_at_once_ends_in_one_line_and_leaves_no_stage(run, tmp_path):
    run = replace(run, folder=tmp_path)
    student = script.build(run, "alone")
    student.set_weights([np.full_like(weight, np.nan) for weight in student.get_weights()])
    indices = run.parts.train
    with pytest.raises(InputError, match="seed 3 alone: training diverged in epoch 1; try a lower learning rate, --precision"):
        train_stage(run, "alone", student, hard_loss, "sgd", indices, run.corpus.labels[indices], 1, 2)
    assert run.record("alone") is None


def test_a_stage_draws_by_the_seed_of_its_run(run, tmp_path, monkeypatch):
    """The order of its examples, and dropout."""
    seen, batches, drawn = [], training.training_batches, training.drawn_by_step
    monkeypatch.setattr(training, "training_batches", lambda *words, **more: seen.append(words[4]) or batches(*words, **more))
    monkeypatch.setattr(training, "drawn_by_step", lambda seed, step: seen.append(seed) or drawn(seed, step))
    train_patiently(replace(run, folder=tmp_path), patience=1)
    assert seen and {*seen} == {run.seed} and run.seed != 0


@pytest.mark.parametrize(("bad", "moment"), [(np.nan, "begin"), (np.inf, "begin"), (np.nan, "end")])
def test_training_that_diverges_later_keeps_the_best_epoch_before(run, tmp_path, bad, moment):
    """In epoch 3 of 5 the weights are spoilt, in the last step if its loss is not to show it: what is left is the best of
    epochs 1 and 2, and the record says so."""
    class Spoil(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.spoil(epoch, "begin")

        def on_epoch_end(self, epoch, logs=None):
            self.spoil(epoch, "end")

        def spoil(self, epoch, now):
            if epoch == 2 and now == moment:
                seen.append(student.get_weights())
                student.set_weights([np.full_like(weight, bad) for weight in student.get_weights()])

    seen, run = [], replace(run, folder=tmp_path)
    student, indices = script.build(run, "alone"), run.parts.train
    optimizer, targets = keras.optimizers.SGD(0.1), run.corpus.labels[indices]
    record = train_stage(run, "alone", student, hard_loss, optimizer, indices, targets, 5, 2, callbacks=[Spoil()])
    assert record["diverged_in_epoch"] == 3 and record["epochs"] == len(record["history"]) == 2
    assert record["validation_accuracy"] == max(epoch["val_accuracy"] for epoch in record["history"])
    kept = predict(student, run.examples, run.parts.test)
    np.testing.assert_array_equal(kept, np.load(run.stage("alone") / "test_logits.npy"))
    assert np.isfinite(kept).all() and len(seen) == 1
    assert "its loss was not finite in epoch 3: the best one before is kept; try a lower" in describe(record)
    plot_curves(tmp_path / "curves.png", [record, record | {"seed": 4, "history": record["history"] * 2}])


REACHED = (0.3, 0.5, 0.4, 0.5, 0.6, 0.6, 0.1, 0.2, 0.9)  # on validation after each epoch; an equal one is no gain


@pytest.mark.parametrize(("patience", "epochs", "best"), [(0, 9, 9), (1, 3, 2), (2, 4, 2), (3, 8, 5), (4, 9, 9)])
def test_a_stage_ends_when_validation_has_not_gained_for_some_epochs(run, tmp_path, patience, epochs, best):
    """By hand from REACHED. The best epoch's weights are kept, whichever was last."""
    after, record, student, _ = train_patiently(replace(run, folder=tmp_path), patience)
    assert record["epochs"] == epochs and record["validation_accuracy"] == REACHED[best - 1]
    for kept, then in zip(student.get_weights(), after[best - 1], strict=True):
        np.testing.assert_array_equal(kept, then)


@pytest.mark.parametrize(("last", "share", "backed_up"), [(3, 1, 3), (4, 1, 4), (4, 1e-9, 1)])
def test_patience_is_the_same_after_an_interruption(run, tmp_path, monkeypatch, last, share, backed_up):
    """Killed after its third epoch, or after the fourth, with which patience has ended: no further epoch is trained then.

    Where backups may take next to no time the first epoch's is the only one.
    """
    whole = train_patiently(replace(run, folder=tmp_path / "whole"), patience=2)
    monkeypatch.setattr(callbacks, "BACKUP_SHARE", share)
    run = replace(run, folder=tmp_path / "killed")
    with pytest.raises(KeyboardInterrupt):
        train_patiently(run, patience=2, killed_after=last)
    assert run.record("alone") is None
    _, record, student, trained = train_patiently(run, patience=2, reached=REACHED[backed_up:])
    assert trained == 4 - backed_up
    assert record["history"] == whole[1]["history"]
    for kept, other in zip(student.get_weights(), whole[2].get_weights(), strict=True):
        np.testing.assert_array_equal(kept, other)


@pytest.mark.parametrize(("first", "patience", "epochs", "best"), [(2, 0, 9, 9), (2, 3, 8, 5), (5, 2, 8, 6), (6, 9, 9, 9)])
def test_epochs_that_learn_no_answers_are_not_chosen(run, tmp_path, first, patience, epochs, best):
    """By hand from REACHED: only what comes after the first ones counts, for the choice and for patience; so it does after an
    interruption among them."""
    after, record, student, _ = train_patiently(replace(run, folder=tmp_path / "whole"), patience, first=first)
    assert (record["epochs"], record["validation_accuracy"]) == (epochs, REACHED[best - 1])
    run = replace(run, folder=tmp_path / "killed")
    with pytest.raises(KeyboardInterrupt):
        train_patiently(run, patience, killed_after=1, first=first)
    resumed = train_patiently(run, patience, reached=REACHED[1:], first=first)[2]
    for kept, then, other in zip(student.get_weights(), after[best - 1], resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(kept, then)
        np.testing.assert_array_equal(kept, other)


def test_backups_take_no_more_than_their_share(run, tmp_path, monkeypatch):
    """An epoch takes a second here and a backup two: after the first and then one in 38 seconds, a twentieth of the time."""
    now, written = [0.0], []

    def write(path, _):
        written.append(now[0])
        now[0] += 2

    class Second(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            now[0] += 1

    monkeypatch.setattr(callbacks, "write_atomic", write)
    monkeypatch.setattr(callbacks.time, "perf_counter", lambda: now[0])
    run = replace(run, folder=tmp_path, settings=replace(run.settings, patience=0))
    student, indices = script.build(run, "alone"), run.parts.train
    optimizer, targets = keras.optimizers.SGD(0.1), run.corpus.labels[indices]
    train_stage(run, "alone", student, hard_loss, optimizer, indices, targets, 80, 1, callbacks=[Second()])
    assert written == [1, 41, 81]


def test_a_stage_that_diverges_before_it_has_learned_answers_is_refused(run, tmp_path):
    """Though it had epochs, and accuracies, none of them may be chosen."""
    student, indices = script.build(run, "alone"), run.parts.train
    spoilt = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: epoch == 2 and student.set_weights(
        [np.full_like(weight, np.nan) for weight in student.get_weights()]))
    with pytest.raises(InputError, match="seed 3 alone: training diverged in epoch 3"):
        train_stage(
            replace(run, folder=tmp_path), "alone", student, hard_loss, keras.optimizers.SGD(0.1), indices,
            run.corpus.labels[indices], 5, 2, callbacks=[spoilt], first=2,
        )


def train_patiently(run, patience, reached=REACHED, killed_after=None, first=0):
    """(weights after each epoch, record, student, epochs trained) of a stage whose scores on validation are given."""
    run = replace(run, settings=replace(run.settings, patience=patience))
    scored, after = iter([*reached, *[0.0] * 9]), []

    class Remember(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            after.append(self.model.get_weights())

        def on_epoch_begin(self, epoch, logs=None):
            if epoch == killed_after:
                raise KeyboardInterrupt

        def on_train_end(self, logs=None):
            if killed_after is not None and len(after) == killed_after:
                raise KeyboardInterrupt

    with fresh_session(run.seed):
        student = script.build(run, "alone")
        indices, optimizer = run.parts.train, keras.optimizers.SGD(0.1)
        record = train_stage(
            run, "alone", student, hard_loss, optimizer, indices, run.corpus.labels[indices], len(REACHED), 2,
            callbacks=[Remember()], measure=lambda labels, logits: {"accuracy": next(scored), "macro_f1": 0.0}, first=first,
        )
    return after, record, student, len(after)


def test_a_step_is_traced_once(run, tmp_path):
    """Also with metrics, which Keras would make while it traces; then it has to trace again, seconds for a BERT."""
    run, traced = replace(run, folder=tmp_path), []
    indices = run.parts.train
    labels = run.corpus.labels[indices]
    whole = distillation_loss(2.0, 1.0, 1.0)

    def loss(targets, logits):
        traced.append(1)
        return whole(targets, logits)

    targets = distillation_targets(labels, np.full((len(labels), 3), 1 / 3, np.float32))
    record = train_stage(
        run, "alone", script.build(run, "alone"), loss, keras.optimizers.SGD(0.1), indices, targets, 2,
        metrics=distillation_metrics(2.0),
    )
    assert len(traced) == 1 and {"hard_loss", "soft_loss"} <= record["history"][1].keys()
