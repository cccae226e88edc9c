"""data.fetching: what a download is held to, and where else it may come from: copies, mirrors, proxies."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from common import InputError
from data import fetching
from data.sources import SOURCES
from tests import serving
from tests.data.archives import LINES, zipped
from tests.data.published import ARCHIVE, FILES, publish, published, refused, succeeds


@pytest.fixture
def server(monkeypatch, tmp_path):
    with published(monkeypatch, tmp_path) as server:
        yield server


def test_the_first_download_is_what_later_ones_are_held_to(server, monkeypatch):
    publish(server, monkeypatch, ARCHIVE, known=False)
    succeeds()
    kept = fetching.FOLDER / "iflytek.sha256"
    assert kept.read_text("utf-8") == f"{hashlib.sha256(ARCHIVE).hexdigest()}  iflytek_public.zip\n"
    for path in (fetching.FOLDER / "iflytek").iterdir():
        path.unlink()
    publish(server, monkeypatch, zipped(FILES | {"readme": "new"}), known=False)
    with pytest.raises(InputError, match=r"sha256 is .* delete .*iflytek.sha256 if that has rightly changed"):
        fetching.fetch("iflytek")
    assert not fetching.is_here("iflytek")
    publish(server, monkeypatch, ARCHIVE, known=False)
    succeeds()


def test_a_list_of_digests_that_cannot_be_read(server):
    fetching.FOLDER.mkdir()
    (fetching.FOLDER / "iflytek.sha256").write_text("\nnot a digest\n")
    with pytest.raises(InputError, match=r"iflytek.sha256, line 1: not a sha256 and a name; delete the file to trust anew"):
        fetching.fetch("iflytek")


def test_a_proxy_that_is_no_address(server, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://:9")
    monkeypatch.setenv("no_proxy", "")
    refused("; is the proxy of the environment an address?")


def test_a_copy_of_ones_own(server, tmp_path):
    server.behave(serving.status(404))
    copy = tmp_path / "downloaded.zip"
    refused("downloaded.zip: there is no such file", copy)
    copy.write_bytes(ARCHIVE[:-1])
    refused("bytes long, expected .*; it is not the published file", copy)
    copy.write_bytes(ARCHIVE[:-1] + b"!")
    refused("sha256 is [0-9a-f]{64}, expected", copy)
    copy.write_bytes(ARCHIVE)
    succeeds(copy)
    assert server.asked == [] and copy.read_bytes() == ARCHIVE


def test_a_mirror(server, monkeypatch):
    server.files = {"/elsewhere/iflytek_public.zip": ARCHIVE}
    refused("404 Not Found")
    succeeds(f"{server.address}/elsewhere/iflytek_public.zip")


def test_a_proxy_of_the_environment(server, monkeypatch):
    wanted = replace(SOURCES["iflytek"].downloads[0], address="http://nowhere.invalid/iflytek_public.zip")
    monkeypatch.setitem(SOURCES, "iflytek", replace(SOURCES["iflytek"], downloads=(wanted,)))
    server.files[wanted.address] = ARCHIVE
    monkeypatch.setenv("http_proxy", server.address)
    monkeypatch.setenv("no_proxy", "")
    succeeds()
    assert server.asked == [(wanted.address, None)]


def test_a_mirror_of_the_hub_and_several_files(server, monkeypatch):
    source, weights = SOURCES["bert-base-chinese"], b"weights" * 9
    digest = hashlib.sha256(weights).hexdigest()
    downloads = tuple(replace(d, sha256=digest if d.sha256 else None) for d in source.downloads)
    monkeypatch.setitem(SOURCES, "bert-base-chinese", replace(source, downloads=downloads))
    monkeypatch.setenv("HF_ENDPOINT", f"{server.address}/")
    server.files = {
        f"/google-bert/bert-base-chinese/resolve/main/{name}": content
        for name, content in {"config.json": b"{}", "vocab.txt": b"[PAD]", "model.safetensors": weights}.items()
    }
    server.behave(serving.login_page)
    with pytest.raises(InputError, match=r"config.json: a web page came"):
        fetching.fetch("bert-base-chinese")
    server.behave(serving.fine, serving.fine, serving.status(404))
    with pytest.raises(InputError, match=r"model.safetensors: 404 Not Found"):
        fetching.fetch("bert-base-chinese")
    assert not fetching.is_here("bert-base-chinese")
    server.behave(serving.fine)
    fetching.fetch("bert-base-chinese")
    assert [Path(path).name for path, _ in server.asked] == ["model.safetensors"]  # the others had come
    assert fetching.locate("bert-base-chinese", "--bert")["weights"].read_bytes() == weights
    with pytest.raises(InputError, match="is 3 files, not one: give the folder that has config.json, vocab.txt, "):
        (fetching.FOLDER / "bert-base-chinese" / "vocab.txt").unlink()
        fetching.fetch("bert-base-chinese", Path("model.safetensors"))


def test_files_inside_are_held_to_their_digests(server, monkeypatch):
    source = SOURCES["iflytek"]
    right = hashlib.sha256(LINES.encode()).hexdigest()
    monkeypatch.setitem(SOURCES, "iflytek", replace(source, sha256={"train": "0" * 64}))
    refused("train.json: sha256 is .*, expected 0000")
    monkeypatch.setitem(SOURCES, "iflytek", replace(source, sha256={"train": right}))
    succeeds()


def test_a_folder_of_something_else_is_left_alone(server):
    (fetching.FOLDER / "iflytek").mkdir(parents=True)
    (fetching.FOLDER / "iflytek" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="iflytek is there without train.json: move it away or delete it first"):
        fetching.fetch("iflytek")
    assert (fetching.FOLDER / "iflytek" / "notes.txt").read_text("utf-8") == "mine"
    (fetching.FOLDER / "iflytek" / "notes.txt").unlink()
    succeeds()


def test_an_archive_may_bring_a_folder_of_its_own(server, monkeypatch):
    publish(server, monkeypatch, zipped({f"iflytek_public/{name}": text for name, text in FILES.items()}))
    fetching.fetch("iflytek")
    assert fetching.locate("iflytek", "--data")["train"].parent == fetching.FOLDER / "iflytek" / "iflytek_public"
