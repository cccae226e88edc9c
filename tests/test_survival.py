"""Runs that are killed and resume: the weights and figures of runs left alone. Every script, and oftener: tests/survival.py."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

import knowledge_distillation_bert_of_theseus as theseus
from common import callbacks, training
from common.backend import drawn_by_step, keras, set_seed, tf
from data import berts, parts, texts
from tests import survival, tiny

SHALLOW = tiny.CONFIG | {"num_hidden_layers": 1}  # of what resumes a layer is as good as several


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "kills", "more"),
    [
        ("knowledge_distillation_from_scratch", 2, ["--train-examples-sweep", "--seeds", 0]),
        ("knowledge_distillation_bert", 1, ["--experiments", "distilled", "--student-layers", 1]),
    ],
)
def test_a_run_that_is_killed_ends_as_one_that_is_not(tmp_path, script, kills, more):
    survival.prepare(tmp_path, SHALLOW)
    survival.left_alone(script, tmp_path, more)
    assert survival.killed(script, tmp_path, kills, more=more) == kills
    assert survival.differences(tmp_path / "alone", tmp_path / "killed") == []


@pytest.mark.slow
def test_a_run_whose_files_are_damaged_is_mended_as_it_says_and_ends_as_one_that_is_not(tmp_path):
    more = ["--train-examples-sweep", "--seeds", 0, "--experiments", "distilled", "--teacher-epochs", 1, "--student-epochs", 1]
    survival.left_alone("knowledge_distillation_from_scratch", tmp_path, more)
    shutil.copytree(tmp_path / "alone", tmp_path / "damaged")
    lines = survival.mended("knowledge_distillation_from_scratch", tmp_path, "damaged", more)
    assert len(lines) == 2  # a stage each
    assert survival.differences(tmp_path / "alone", tmp_path / "damaged") == []


class Broken(Exception):
    pass


class Watch(keras.callbacks.Callback):
    """Which epochs were trained."""

    def __init__(self):
        super().__init__()
        self.epochs = []

    def on_epoch_begin(self, epoch, logs=None):
        self.epochs.append(epoch)


class Break(keras.callbacks.Callback):
    """Ends the training in the middle of an epoch."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        self.now = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.now == self.epoch and batch == 1:
            raise Broken


@pytest.fixture(scope="module")
def run(data_folder, tmp_path_factory):
    """A run of one seed with its predecessor trained."""
    folder = tmp_path_factory.mktemp("run")
    bert, corpus = berts.load(str(tiny.write_bert(folder / "bert", config=SHALLOW))), texts.load(str(data_folder))
    settings = replace(
        theseus.PRESETS["demo"], student_layers=1, batch_size=16, replacing="random", replacing_schedule="linear",
        replacing_base=0.3, predecessor_epochs=1, mixed_epochs=4, successor_epochs=2, successor_dropout=0.2,
        successor_learning_rate=1e-3, weight_decay=0.01, clip_norm=1.0,
    )
    drawn = parts.split(corpus, 5, train=96, validation=16)
    run = training.Run(settings, 5, corpus, tiny.tokenized(corpus.texts, bert), drawn, folder, bert)
    theseus.train(run, "predecessor")
    return run


@pytest.mark.slow
@pytest.mark.parametrize(("epoch", "narrow"), [(0, "float32"), (3, "mixed_float16")])
def test_a_stage_resumes_from_its_last_backup(run, tmp_path, monkeypatch, precision, epoch, narrow):
    """Dropout, draws, order of texts, learning rate, AdamW's state, loss scale, the best epoch: as if nothing had been.

    Broken in its first epoch, when there is nothing to resume from, or in its last; then a stage comes after it, too.
    """
    precision(narrow)
    monkeypatch.setattr(callbacks, "BACKUP_SHARE", 1)  # after each epoch
    run = replace(run, settings=replace(run.settings, successor_epochs=2 if epoch else 0))
    stages = ["theseus-mixed", "theseus"] if epoch else ["theseus"]

    def train(folder, callbacks):
        keras.backend.clear_session()
        whole = training.train_stage

        def with_more(*words, **more):
            more["callbacks"] = [*more.get("callbacks", ()), *callbacks]
            return whole(*words, **more)

        with monkeypatch.context() as patch:
            for module in (training, theseus):  # fine_tune calls the one, the mixed stage the other
                patch.setattr(module, "train_stage", with_more)
            return theseus.train(replace(run, folder=folder), "theseus")

    for name in ("alone", "broken"):
        shutil.copytree(run.folder / "seed-5", tmp_path / name / "seed-5")
    alone = train(tmp_path / "alone", [])
    with pytest.raises(Broken):
        train(tmp_path / "broken", [Break(epoch)])
    assert (tmp_path / "broken" / "seed-5" / stages[0] / "unfinished.npz").is_file() == (epoch > 0)
    watch = Watch()
    again = train(tmp_path / "broken", [watch])
    assert watch.epochs == [*range(epoch, 4), *([0, 1] if epoch else [])]  # of the mixed stage those that are left
    for one, other in zip(alone, again, strict=True):
        assert one.pop("train_seconds") > 0 and other.pop("train_seconds") > 0
        assert one == other
    for stage in stages:
        stored = [np.load(tmp_path / name / "seed-5" / stage / "weights.npz") for name in ("alone", "broken")]
        assert all(np.array_equal(stored[0][key], stored[1][key]) for key in stored[0].files)
    assert not list((tmp_path / "broken").rglob("unfinished.npz"))


def test_dropout_differs_between_steps_places_and_seeds_and_repeats_otherwise():
    def masks(seed, steps):
        step = tf.Variable(0, dtype=tf.int64)
        layers = [keras.layers.Dropout(0.5), keras.layers.Dropout(0.5)]

        @tf.function
        def drop():
            return tf.stack([layer(tf.ones((2000,)), training=True) for layer in layers])

        found = []
        with drawn_by_step(seed, step):
            for number in steps:
                step.assign(number)
                found.append(drop().numpy())
        return np.array(found)  # (steps, layers, 2000)

    set_seed(0)
    found = masks(7, [0, 1, 2, 1])
    assert set(np.unique(found)) == {0, 2} and abs((found == 0).mean() - 0.5) < 0.02
    np.testing.assert_array_equal(found[1], found[3])
    np.testing.assert_array_equal(found[2:], masks(7, [2, 1]))  # whatever came before
    different = [found[0, 0], found[0, 1], found[1, 0], found[1, 1], found[2, 0], masks(8, [0])[0, 0]]
    for i, one in enumerate(different):
        for other in different[:i]:
            assert 0.4 < (one == other).mean() < 0.6


@pytest.mark.slow
def test_a_stage_whose_backup_is_damaged_begins_anew(run, tmp_path, capsys):
    here = replace(run, folder=tmp_path)
    stage = here.stage("predecessor")
    stage.mkdir(parents=True)
    (stage / training.UNFINISHED).write_bytes(b"PK half of it")
    keras.backend.clear_session()
    assert theseus.train(here, "predecessor")[0]["epochs"] == 1
    assert f"{stage / training.UNFINISHED} is damaged: the stage begins anew" in capsys.readouterr().out
    assert sorted(path.name for path in stage.iterdir()) == [
        "record.json", "test_logits.npy", "validation_logits.npy", "weights.npz"]
