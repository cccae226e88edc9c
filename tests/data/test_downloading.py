"""data.downloading: archives unpacked without trusting them, and digests of files; downloads are in test_fetching."""

import io
import os

import pytest
import requests

from common import InputError
from data import downloading
from tests import serving
from tests.data.archives import LINES, zipped


def test_any_byte_changed_in_a_small_archive(tmp_path):
    """It is unpacked as it should be, or refused in one line; zip holds no digest of some bytes, such as dates."""
    content, refusals = zipped({"train.json": LINES[:250], "dev.json": LINES[:150]}), 0
    for place in range(len(content)):
        (tmp_path / "a.zip").write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        try:
            downloading.unpack(tmp_path / "a.zip", tmp_path / str(place))
        except InputError as error:
            refusals += 1
            assert "\n" not in str(error)
    assert refusals > len(content) / 2
    assert all(name == "a.zip" or name.isdecimal() for name in os.listdir(tmp_path))


@pytest.mark.parametrize(("place", "target"), [
    ("http://there.invalid/a", "http://there.invalid/a"), ("//there.invalid/a", ""), ("/a", ""),
    ("https://there.invalid/a", ""), ("ftp://there.invalid/a", "ftp://there.invalid/a"),
])
def test_https_stays_https(tmp_path, monkeypatch, place, target):
    """A redirection to http or ftp is refused, another one followed: there is no such host."""
    def send(_, request, **__):
        if request.url != "https://here.invalid/file":
            raise requests.ConnectionError("no such host")
        response = requests.Response()
        response.status_code, response.url, response.request, response.raw = 302, request.url, request, io.BytesIO()
        response.headers["Location"] = place
        return response

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", send)
    monkeypatch.setattr(downloading, "PAUSE", 0)
    message = f"https://here.invalid/file: redirected to {target}, which is not https" if target else "no such host"
    with pytest.raises(InputError, match=message):
        downloading.download("https://here.invalid/file", tmp_path / "file")
    assert not (tmp_path / "file").exists()


@pytest.mark.parametrize("way", [serving.fine, serving.no_ranges])
def test_a_download_of_unknown_size_has_a_bound(tmp_path, monkeypatch, way):
    monkeypatch.setattr(downloading, "LARGEST", 1_000_000)
    with serving.serving() as server:
        server.behave(way)
        server.files = {"/file": b"a" * 1_000_001, "/other": b"a" * 1_000_000}
        with pytest.raises(InputError, match="file: over 1,000,000 bytes; nothing of them is kept"):
            downloading.download(f"{server.address}/file", tmp_path / "file")
        downloading.download(f"{server.address}/other", tmp_path / "other")
        downloading.download(f"{server.address}/file", tmp_path / "known", size=1_000_001)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["known", "other"]


def test_sha256(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert downloading.sha256_of(tmp_path / "file") == known
    downloading.check_sha256(tmp_path / "file", known)
    with pytest.raises(InputError, match="sha256 is ba7816bf.* the file is damaged or not the published one"):
        downloading.check_sha256(tmp_path / "file", "0" * 64)
