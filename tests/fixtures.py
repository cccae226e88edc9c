"""Fixtures: a tiny BERT in each layout, a folder of texts and a student, written once for the whole session; two devices."""

import json
import os
import shutil
from dataclasses import replace

import pytest
from hypothesis import settings

import common.devices
from common.backend import set_precision, tf
from tests import tiny
from tests.taken import take_student

for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
    del os.environ[name]  # the tests' servers are on this machine

# The processor as two devices, for --strategy mirrored; everything else takes the first of them.
processor = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(processor, 2 * [tf.config.LogicalDeviceConfiguration()])

settings.register_profile("project", deadline=None, max_examples=50)
settings.load_profile("project")


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory):
    return tiny.write_bert(tmp_path_factory.mktemp("bert") / "hugging-face")


@pytest.fixture(scope="session")
def google_folder(tmp_path_factory):
    return tiny.write_bert(tmp_path_factory.mktemp("bert") / "google", layout="google")


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory):
    return tiny.write_data(tmp_path_factory.mktemp("data") / "texts")


@pytest.fixture(scope="session")
def taken(tmp_path_factory, bert_folder):
    return take_student(tmp_path_factory.mktemp("run") / "student", bert_folder)


@pytest.fixture(scope="session")
def taken_pairs(tmp_path_factory, taken):
    """The same student, called one of pairs: its graph takes their segments."""
    folder = shutil.copytree(taken.folder, tmp_path_factory.mktemp("run") / "student")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"pairs": True}), encoding="utf-8")
    return replace(taken, folder=folder, known={})


@pytest.fixture(scope="session")
def both():
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


@pytest.fixture
def devices(monkeypatch, both):
    """set_devices for one test; one device again after it. In one process there can be one MirroredStrategy only."""
    monkeypatch.setattr(common.devices, "_devices", {"strategy": None})
    monkeypatch.setattr(tf.distribute, "MirroredStrategy", lambda devices: both)
    return common.devices.set_devices


@pytest.fixture
def precision():
    """set_precision for one test; float32 again after it."""
    yield set_precision
    set_precision("float32")
