"""A server on the loopback that publishes an archive as `iflytek`, and what fetching must do with it."""

import contextlib
import hashlib
import os
from dataclasses import replace

import pytest

from common import InputError
from data import downloading, fetching
from data.sources import SOURCES, Download
from tests import serving
from tests.data.archives import LINES, zipped

FILES = {"train.json": LINES, "dev.json": LINES[:5000], "labels.json": "{}"}
ARCHIVE = zipped(FILES)


@contextlib.contextmanager
def published(monkeypatch, folder):
    """A server of ARCHIVE as `iflytek`, with its size and digest published; patience is short, data/ an empty folder."""
    monkeypatch.setattr(fetching, "FOLDER", folder / "data")
    monkeypatch.setattr(downloading, "PATIENCE", 0.3)
    monkeypatch.setattr(downloading, "PAUSE", 0)
    with serving.serving() as server:
        publish(server, monkeypatch, ARCHIVE)
        yield server


def publish(server, monkeypatch, content, known=True):
    server.files["/iflytek_public.zip"] = content
    digest = hashlib.sha256(content).hexdigest() if known else None
    wanted = Download(f"{server.address}/iflytek_public.zip", len(content) if known else None, sha256=digest)
    monkeypatch.setitem(SOURCES, "iflytek", replace(SOURCES["iflytek"], downloads=(wanted,)))


def refused(message, copy=None):
    """Fetching must fail with one line that says `message`, and leave nothing that could be taken for the data set."""
    with pytest.raises(InputError, match=message) as error:
        fetching.fetch("iflytek", copy)
    assert "\n" not in str(error.value)
    assert not fetching.is_here("iflytek") and not (fetching.FOLDER / "iflytek").exists()
    assert not (fetching.FOLDER / "iflytek.sha256").exists()
    return str(error.value)


def succeeds(copy=None):
    fetching.fetch("iflytek", copy)
    paths = fetching.locate("iflytek", "--data")
    assert paths["train"].read_text(encoding="utf-8") == LINES and paths["dev"].read_text(encoding="utf-8") == LINES[:5000]
    assert sorted(path.name for path in (fetching.FOLDER / "iflytek").iterdir()) == ["dev.json", "labels.json", "train.json"]
    assert sorted(os.listdir(fetching.FOLDER / ".fetching")) == ["iflytek.lock"]
