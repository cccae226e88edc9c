"""Fixtures: a tiny BERT in each layout and a folder of texts, written once for the whole session."""

import os

import pytest
from hypothesis import settings

from common.backend import set_precision
from tests import tiny

for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
    del os.environ[name]  # the tests' servers are on this machine

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


@pytest.fixture
def precision():
    """set_precision for one test; float32 again after it."""
    yield set_precision
    set_precision("float32")
