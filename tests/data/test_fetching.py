"""data.fetching from a server that misbehaves: nothing half-written is taken for whole, and a second try succeeds."""

import hashlib
import json
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from data import downloading, fetching
from data.sources import SOURCES
from tests import serving
from tests.data.archives import LINES, zipped
from tests.data.published import ARCHIVE, FILES, publish, published, refused, succeeds
from tests.starting import ROOT


@pytest.fixture
def server(monkeypatch, tmp_path):
    with published(monkeypatch, tmp_path) as server:
        yield server


# A server that misbehaves


BREAKS = {
    "404": (serving.status(404), "404 Not Found"),
    "403": (serving.status(403), "403 Forbidden"),
    "500": (serving.status(500), "500 Internal Server Error"),
    "wrong length": (serving.wrong_length, "bytes long, expected [0-9,]+; it is not the published file"),
    "too long": (serving.too_long, "bytes came, expected [0-9,]+; nothing of them is kept"),
    "wrong content": (serving.wrong_content, "sha256 is [0-9a-f]{64}, expected .* nothing of it is kept"),
    "a login page": (serving.login_page, "is 43 bytes long, expected"),
    "endless redirect": (serving.redirect, "redirected again and again, 30 times"),
    "slow drip": (serving.drip, "bytes a second came, too few to wait for"),
    "silence": (serving.silent, "[Tt]imed out"),
    "no ranges, and cut": (serving.no_ranges_cut, "bytes that came are kept"),
    "no length, and cut": (serving.no_length_cut, "the connection ended after [0-9,]+ of [0-9,]+ bytes"),
}


@pytest.mark.parametrize("case", BREAKS)
def test_a_server_that_misbehaves_and_then_does_not(server, case):
    way, message = BREAKS[case]
    server.behave(way)
    assert server.address in refused(message)
    server.behave(serving.fine)
    succeeds()


UNKNOWN = {
    "wrong length": (serving.wrong_length, "not a zip archive that can be unpacked"),
    "wrong content": (serving.wrong_content, "not a zip archive that can be unpacked"),
    "a login page": (serving.login_page, "a web page came, perhaps of a network that wants a login; nothing of it is kept"),
    "no length, and cut": (serving.no_length_cut, "not a zip archive that can be unpacked"),
    "no ranges, and cut": (serving.no_ranges_cut, "IncompleteRead\\([0-9]+ bytes read, [0-9]+ more expected\\)$"),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_the_same_without_a_published_digest(server, monkeypatch, case):
    publish(server, monkeypatch, ARCHIVE, known=False)
    way, message = UNKNOWN[case]
    server.behave(way)
    refused(message)
    server.behave(serving.fine)
    succeeds()


def test_a_server_error_that_passes(server):
    server.behave(serving.status(500), serving.status(503), serving.status(429), serving.fine)
    succeeds()
    assert len(server.asked) == 4


@pytest.mark.parametrize("known", [True, False])
def test_a_connection_cut_at_every_tenth_is_resumed(server, monkeypatch, known):
    publish(server, monkeypatch, ARCHIVE, known)
    server.behave(serving.cut(0.1))
    succeeds()
    begins = [int((wanted or "bytes=0-")[6:-1]) for _, wanted in server.asked]
    assert begins == [i * int(0.1 * len(ARCHIVE)) for i in range(len(begins))] and len(begins) in (10, 11)


def test_a_later_start_resumes_where_an_earlier_one_ended(server):
    server.behave(serving.cut(0.3), serving.status(500))
    assert f"the {int(0.3 * len(ARCHIVE)):,} bytes that came are kept" in refused("500 Internal Server Error")
    server.behave(serving.fine)
    succeeds()
    assert server.asked == [("/iflytek_public.zip", f"bytes={int(0.3 * len(ARCHIVE))}-")]


def test_a_file_that_changed_between_two_starts_is_fetched_anew(server, monkeypatch):
    publish(server, monkeypatch, ARCHIVE[::-1], known=False)
    server.behave(serving.cut(0.3), serving.status(500))
    refused("500 Internal Server Error")
    publish(server, monkeypatch, ARCHIVE, known=False)
    server.behave(serving.fine)
    succeeds()


def test_a_server_without_ranges_starts_again(server):
    server.behave(serving.no_ranges_cut, serving.no_ranges)
    succeeds()
    assert len(server.asked) == 2


def test_all_of_it_had_come_already(server, monkeypatch):
    """Killed between the last byte and the check: nothing is fetched again, whether its size is published or not."""
    for known in (True, False):
        publish(server, monkeypatch, ARCHIVE, known)
        wanted = SOURCES["iflytek"].downloads[0]
        part = fetching.FOLDER / ".fetching" / "iflytek" / "iflytek_public.zip.part"
        part.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(ARCHIVE)
        tag = f'"{hashlib.sha256(ARCHIVE).hexdigest()[:8]}"'
        part.with_name(f"{part.name}.json").write_text(json.dumps({"address": wanted.address, "validator": tag}))
        server.asked.clear()
        succeeds()
        assert server.asked == [("/iflytek_public.zip", f"bytes={len(ARCHIVE)}-")]
        shutil.rmtree(fetching.FOLDER)


def test_more_than_the_file_is_left_of_another_one(server):
    part = fetching.FOLDER / ".fetching" / "iflytek" / "iflytek_public.zip.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"!" * 2 * len(ARCHIVE))
    address = f"{server.address}/iflytek_public.zip"
    part.with_name(f"{part.name}.json").write_text(json.dumps({"address": address, "validator": None}))
    succeeds()
    assert [wanted for _, wanted in server.asked] == [f"bytes={2 * len(ARCHIVE)}-", None]


def test_no_server_at_all(server):
    address = server.address.replace(str(server.server_port), "9")
    refused("Connection refused", copy=f"{address}/iflytek_public.zip")
    refused("not an address that starts with http", copy="ftp://127.0.0.1/iflytek_public.zip")


# Archives that are not to be trusted


BAD = {
    "out of the folder": (zipped(FILES | {"../evil.txt": "x"}), r"'../evil.txt' leads out of its folder"),
    "hidden in the middle": (zipped(FILES | {"a/../../evil.txt": "x"}), "leads out of its folder"),
    "an absolute path": (zipped(FILES | {"/tmp/evil.txt": "x"}), "'/tmp/evil.txt' leads out of its folder"),
    "of Windows": (zipped(FILES | {"C:\\evil.txt": "x"}), "leads out of its folder"),
    "with its slashes": (zipped(FILES | {"..\\evil.txt": "x"}), "leads out of its folder"),
    "a link": (zipped(FILES | {"link": "/etc/passwd"}, link=stat.S_IFLNK | 0o777), "'link' is a link or a device"),
    "a bomb": (zipped(FILES | {"zeros": "0" * 20_000_000}), "that would become 20,[0-9,]+; not unpacked"),
    "half of it": (zipped({"train.json": LINES}), "there is no dev.json in what came"),
    "damaged": (ARCHIVE[:-3000] + bytes(2000) + ARCHIVE[-1000:], "not a zip archive that can be unpacked"),
    "not a zip": (b"Rar!" * 5000, "not a zip archive that can be unpacked"),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("known", [True, False])
def test_a_bad_archive(server, monkeypatch, tmp_path, case, known):
    content, message = BAD[case]
    publish(server, monkeypatch, content, known)
    refused(message)
    assert sorted(os.listdir(tmp_path)) == ["data"] and not (Path("/tmp") / "evil.txt").exists()
    publish(server, monkeypatch, ARCHIVE, known)
    succeeds()


# A disk that is full


@pytest.fixture
def largest_file():
    """A function that lets no file of this process grow beyond so many bytes, as a full disk would, until it is undone."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size or limits[0], limits[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_no_room_for_the_download(server, largest_file):
    largest_file(30_000)
    refused("iflytek_public.zip.part cannot be written: File too large; what came is kept")
    largest_file(0)
    server.behave(serving.fine)
    succeeds()
    assert server.asked == [("/iflytek_public.zip", "bytes=30000-")]


def test_no_room_to_unpack(server, largest_file):
    largest_file(len(ARCHIVE) + 10_000)
    refused("iflytek_public.zip cannot be unpacked into .*: File too large")
    largest_file(0)
    server.behave(serving.status(404))
    succeeds()  # what was downloaded is not thrown away
    assert server.asked == []


def test_too_little_room_is_known_beforehand(server, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(downloading.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
        refused("bytes when unpacked, but .* has room for 1,000")
    succeeds()


def test_a_folder_that_may_not_be_written_to(server):
    fetching.FOLDER.write_text("a file")
    refused("Not a directory|File exists")
    fetching.FOLDER.unlink()
    succeeds()


# Two at once, and processes that die


def test_two_fetches_at_once(server, capsys):
    def slow(handler, content):
        time.sleep(0.2)
        serving.fine(handler, content)

    server.behave(slow)
    failures = []

    def fetch():
        try:
            succeeds()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=fetch) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == [] and len(server.asked) == 1
    assert "another process is fetching it; waiting for that one" in capsys.readouterr().err


def test_a_process_that_is_killed_leaves_what_the_next_one_resumes_from(server):
    def stalls(handler, content):
        handler.head(200, {"Content-Length": len(content), "ETag": f'"{hashlib.sha256(content).hexdigest()[:8]}"'})
        handler.wfile.write(content[:40_000])
        handler.wfile.flush()
        time.sleep(30)

    server.behave(stalls)
    code = (
        "import sys; from dataclasses import replace; from data import fetching; from data.sources import SOURCES, Download;"
        "SOURCES['iflytek'] = replace(SOURCES['iflytek'], downloads=(Download(sys.argv[1], int(sys.argv[2]),"
        " sha256=sys.argv[3]),)); fetching.fetch('iflytek')"
    )
    wanted = SOURCES["iflytek"].downloads[0]
    process = subprocess.Popen(
        [sys.executable, "-c", code, wanted.address, str(wanted.size), wanted.sha256], cwd=ROOT, stderr=subprocess.PIPE,
        env=os.environ | {"DISTILLATION_DATA": str(fetching.FOLDER)},
    )
    part = fetching.FOLDER / ".fetching" / "iflytek" / "iflytek_public.zip.part"
    until = time.monotonic() + 60
    while not (part.is_file() and part.stat().st_size == 40_000):
        assert time.monotonic() < until and process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not fetching.is_here("iflytek")
    server.behave(serving.fine)
    succeeds()
    assert server.asked == [("/iflytek_public.zip", "bytes=40000-")]
