"""A file of the network onto the disk, whole and checked or not at all, and zip archives unpacked without trusting them.

What came before a connection broke is kept, and a download resumes there. Proxies (HTTPS_PROXY, NO_PROXY), certificates
(REQUESTS_CA_BUNDLE) and a mirror of the Hugging Face hub (HF_ENDPOINT) are taken from the environment.
"""

import hashlib
import json
import os
import shutil
import stat
import time
import zipfile
from pathlib import PurePosixPath
from urllib.parse import urljoin

from tqdm import tqdm

from common import InputError
from common.files import sync, write_json

PATIENCE = 60  # seconds without an answer, or seconds to be slower than the next
SLOWEST = 1000  # bytes a second; below it a connection counts as broken
TRIES = 4  # connections in a row that bring nothing worth the name
PAUSE = 1  # seconds before the next connection; twice as long after each
RATIO = 50  # times its own size that an archive may unpack to
LARGEST = 2_000_000_000  # bytes of a download whose size is not known
_HUB = "https://huggingface.co"


class Damaged(InputError):
    """A file that is not what it should be, and is of no use."""


class _Broken(Exception):
    """A connection that another may succeed."""


def download(address, path, size=None, sha256=None):
    """Fetch a file, under the name PATH.part until it is whole and checked.

    A broken connection is resumed where it broke (HTTP ranges), in this call and in later ones, unless the file has changed
    since. Raises InputError if it cannot be had, Damaged (one of these) if what came is not what was expected.

    address: http or https
    path: Path of the file
    size: bytes, where it is known
    sha256: hex digits, where they are known
    """
    import requests  # which take a while, and most commands have their files already
    import urllib3

    if not address.startswith(("http://", "https://")):
        raise InputError(f"{address}: not an address that starts with http:// or https://")
    address = address.replace(_HUB, (os.environ.get("HF_ENDPOINT") or _HUB).rstrip("/"), 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    part, state = path.with_name(f"{path.name}.part"), path.with_name(f"{path.name}.part.json")
    if not (part.is_file() and _read(state).get("address") == address):  # nothing, or of another place
        _forget(part, state)
    failures, reached = 0, _size(part)
    with (
        requests.Session() as session,
        tqdm(desc=path.name, total=size, initial=reached, unit="B", unit_scale=True, disable=None, leave=False) as bar,
    ):
        while True:
            try:
                _receive(session, address, part, state, size, sha256, bar)
                break
            except requests.TooManyRedirects:
                raise InputError(f"{address}: redirected again and again, {session.max_redirects} times") from None
            except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema) as error:  # also of a proxy
                raise InputError(f"{address}: {_reason(error)}; is the proxy of the environment an address?") from None
            except (_Broken, requests.RequestException, urllib3.exceptions.HTTPError, ConnectionError, TimeoutError) as error:
                gained, reached = _size(part) - reached, max(reached, _size(part))
                failures = 1 if gained >= SLOWEST * PATIENCE else failures + 1
                if failures == TRIES:
                    kept = f"; the {_size(part):,} bytes that came are kept, the same command goes on from them"
                    some = _size(part) and _can_go_on(state, sha256)
                    raise InputError(f"{address}: {_reason(error)}{kept if some else ''}") from None
                time.sleep(PAUSE * 2 ** (failures - 1))
    if size is not None and _size(part) != size:
        found = _size(part)
        _forget(part, state)
        raise Damaged(f"{address}: {found:,} bytes came, expected {size:,}; nothing of them is kept")
    with open(part, "rb") as file:
        if file.read(512).lstrip().lower().startswith((b"<!doctype html", b"<html")):
            _forget(part, state)
            raise Damaged(f"{address}: a web page came, perhaps of a network that wants a login; nothing of it is kept")
    if sha256:
        try:
            check_sha256(part, sha256)
        except Damaged as error:
            _forget(part, state)
            raise Damaged(f"{address}: {str(error).partition(': ')[2]}; nothing of it is kept") from None
    sync(part)
    os.replace(part, path)
    _forget(state)


def _receive(session, address, part, state, size, sha256, bar):
    """Append to `part` what is missing, over one connection; from the beginning if the server cannot go on."""
    have, known = _size(part) if _can_go_on(state, sha256) else 0, _read(state)
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if known.get("validator"):
            headers["If-Range"] = known["validator"]
    with session.get(address, headers=headers, stream=True, timeout=PATIENCE, hooks={"response": _stay_secure}) as response:
        status = f"{response.status_code} {response.reason}"
        if response.status_code == 416:  # what is here is longer than the file, or all of it
            if have == size or response.headers.get("Content-Range") == f"bytes */{have}":
                return
            _forget(part, state)
            raise _Broken(status)
        if response.status_code in (408, 425, 429) or response.status_code >= 500:
            raise _Broken(status)
        if response.status_code not in (200, 206):
            raise InputError(f"{address}: {status}")
        begin = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
        if response.status_code == 206 and begin != str(have):
            _forget(part, state)
            raise _Broken(f"the server answers with a part that begins at {begin or 'an unknown place'}")
        have = have if response.status_code == 206 else 0
        length = response.headers.get("Content-Length", "")
        total = have + int(length) if length.isdecimal() else None
        if None not in (total, size) and total != size:
            raise InputError(f"{address} is {total:,} bytes long, expected {size:,}; it is not the published file")
        write_json(state, {"address": address, "validator": _validator(response)})
        bar.total = size or total
        bar.n = have
        bar.refresh()
        with open(part, "ab" if have else "wb", buffering=0) as file:
            began, arrived = time.monotonic(), 0
            while block := response.raw.read1(1 << 18):
                _write(file, block)
                have += len(block)
                arrived += len(block)
                bar.update(len(block))
                if size is not None and have > size:
                    return
                if size is None and have > LARGEST:
                    _forget(part, state)
                    raise Damaged(f"{address}: over {LARGEST:,} bytes; nothing of them is kept")
                waited = time.monotonic() - began
                if waited > PATIENCE:
                    if arrived < SLOWEST * PATIENCE:
                        raise _Broken(f"{arrived / waited:.0f} bytes a second came, too few to wait for")
                    began, arrived = time.monotonic(), 0
        whole = size if total is None else total
        if whole is not None and have < whole:
            raise _Broken(f"the connection ended after {have:,} of {whole:,} bytes")


def _stay_secure(response, **_):
    """Refuse to be sent from https to anything else, where anybody on the way can put another file in its place."""
    target = urljoin(response.url, response.headers.get("Location", ""))
    if response.url.startswith("https:") and not target.startswith("https:"):
        raise InputError(f"{response.url}: redirected to {target}, which is not https")


def _write(file, block):
    try:
        rest = memoryview(block)
        while rest:
            rest = rest[file.write(rest) :]
    except OSError as error:
        raise InputError(f"{file.name} cannot be written: {error.strerror}; what came is kept") from None


def _can_go_on(state, sha256):
    """Whether something can tell that what came and what is to come are of one file."""
    return bool(sha256 or _read(state).get("validator"))


def _validator(response):
    """What tells one version of the file from another, as If-Range takes it: a strong ETag, or the date."""
    tag = response.headers.get("ETag", "")
    return tag if tag.startswith('"') else response.headers.get("Last-Modified")


def _read(state):
    """What an earlier connection left word of; nothing if it did not, or not legibly."""
    try:
        found = json.loads(state.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = {}
    return found if isinstance(found, dict) else {}


def _size(path):
    return path.stat().st_size if path.is_file() else 0


def _forget(*paths):
    for path in paths:
        path.unlink(missing_ok=True)


def _reason(error):
    """What went wrong with a connection, in a few words: the innermost reason that says something."""
    while inner := getattr(error, "reason", None) or next((x for x in error.args if isinstance(x, Exception)), None):
        if not isinstance(inner, Exception):
            break
        error = inner
    words = " ".join(str(error).split())
    return words.rpartition(">: ")[2].rpartition("): ")[2] or type(error).__name__


def unpack(archive, folder):
    """Unpack a zip into the new folder `folder`, which is left half-filled if that fails.

    Raises Damaged if it is broken, holds a path that leads out of the folder or a link, or would become larger than RATIO
    times its own size; InputError if it does not fit on the disk.
    """
    folder.mkdir(parents=True)
    try:
        with zipfile.ZipFile(archive) as file:
            members = file.infolist()
            for member in members:
                _check_member(archive, member)
            total = sum(member.file_size for member in members)  # which zipfile holds each member to
            if total > RATIO * (_size(archive) + 10_000):
                raise Damaged(f"{archive}: {_size(archive):,} bytes that would become {total:,}; not unpacked")
            free = shutil.disk_usage(folder).free
            if total > free:
                raise InputError(f"{archive}: {total:,} bytes when unpacked, but {folder.parent} has room for {free:,}")
            for member in members:
                file.extract(member, folder)
    except InputError:
        raise
    except Exception as error:  # a damaged archive fails in as many ways as zip has fields and ways to pack
        alike = isinstance(error, (FileExistsError, NotADirectoryError, IsADirectoryError))  # files and folders of one name
        if isinstance(error, OSError) and error.errno and not alike:  # bz2 has no number for data that is damaged
            raise InputError(f"{archive} cannot be unpacked into {folder}: {error.strerror or error}") from None
        raise Damaged(f"{archive}: not a zip archive that can be unpacked ({error})") from None


def _check_member(archive, member):
    path = PurePosixPath(member.filename.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in member.filename:
        raise Damaged(f"{archive}: {member.filename!r} leads out of its folder; not unpacked")
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise Damaged(f"{archive}: {member.filename!r} is a link or a device; not unpacked")


def sha256_of(path):
    """SHA-256 of a file, 64 hex digits."""
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def check_sha256(path, expected):
    """Raise Damaged unless the file at `path` has the SHA-256 `expected`."""
    found = sha256_of(path)
    if found != expected:
        raise Damaged(f"{path}: sha256 is {found}, expected {expected}; the file is damaged or not the published one")
