"""The originals' own setting, end to end as a user takes it: 119 classes of Chinese texts, a 12-layer BERT of Google's."""

import hashlib
import io
import json
import zipfile
from dataclasses import replace

import pytest

import data
import knowledge_distillation_bert as script
from common import command
from data import downloading
from data.sources import Download
from tests import serving, tiny
from tests.starting import run_script


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("original")
    return {"--data": tiny.write_iflytek(folder / "iflytek"), "--bert": tiny.write_chinese_bert(folder / "chinese-bert")}


@pytest.mark.parametrize(
    ("name", "epochs", "rows"),
    [
        ("knowledge_distillation_bert", ["--teacher-epochs", 1, "--student-epochs", 1],
         ["teacher", "alone", "distilled", "alone-self-distilled", "teacher-self-distilled", "noise"]),
        ("knowledge_distillation_bert_of_theseus",
         ["--predecessor-epochs", 1, "--mixed-epochs", 1, "--direct-epochs", 1, "--successor-epochs", 1],
         ["predecessor", "middle", "successor", "theseus"]),
        ("knowledge_distillation_fastbert", ["--teacher-epochs", 1, "--branch-epochs", 1, "--timed-examples", 8],
         ["teacher", "fastbert"]),
    ],
)
def test_original_on_data_and_a_model_in_the_originals_formats(folders, tmp_path, name, epochs, rows):
    words = [word for pair in folders.items() for word in pair]
    done = run_script(name, "original", *words, *epochs, "--output", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "119 classes, 357 training, " in done.stdout and "119 test texts of up to 128 tokens" in done.stdout
    assert f"{folders['--data'] / 'test.json'} has no labels: dev.json is the test part" in done.stdout
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert [model["name"] for model in results["models"]] == rows
    assert results["data"]["classes"] == 119 and results["data"]["chosen_on"] == "test"
    if "costs" in results:  # FastBERT: the original's classifier is one linear layer
        assert results["costs"]["head"] == 2 * tiny.CONFIG["hidden_size"] * 119
    assert all(0 <= model["accuracy"] <= 1 for model in results["models"])
    assert "类" in (tmp_path / "run" / "report.md").read_text(encoding="utf-8")  # what the classes mean


def test_original_fetches_what_it_needs_when_allowed(folders, tmp_path, monkeypatch, capsys):
    """From a server, through the archives' checks, to the report; then again with nothing left to fetch."""
    monkeypatch.setattr(data, "FOLDER", tmp_path / "data")
    monkeypatch.setattr(downloading, "PAUSE", 0)
    words = ["script", "original", "--download", "--output", str(tmp_path / "run"), "--experiments", "teacher", "alone"]
    monkeypatch.setattr("sys.argv", [*words, "--teacher-epochs", "1", "--student-epochs", "1"])
    with serving.serving() as server:
        for name, flag, root in (("iflytek", "--data", ""), ("chinese-bert-base", "--bert", "chinese_L-12_H-768_A-12/")):
            packed = io.BytesIO()
            with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
                for file in folders[flag].iterdir():
                    archive.write(file, root + file.name)
            source = data.SOURCES[name]
            address = f"{server.address}/{source.downloads[0].address.rpartition('/')[2]}"
            server.files[address.removeprefix(server.address)] = packed.getvalue()
            digest = hashlib.sha256(packed.getvalue()).hexdigest() if source.downloads[0].sha256 else None
            inside = {
                role: hashlib.sha256((folders[flag] / source.files[role]).read_bytes()).hexdigest() for role in source.sha256
            }
            here = replace(source, downloads=(Download(address, sha256=digest),), sha256=inside)
            monkeypatch.setitem(data.SOURCES, name, here)
        server.behave(serving.cut(0.6))
        command.start(script.main, script.PRESETS, "")
        printed = capsys.readouterr().out
        assert "; licence: Apache-2.0; cite Devlin et al.: BERT" in printed
        assert "iflytek: 119 classes, 357 training, 119 validation, 119 test texts" in printed
        server.behave(serving.status(404))
        command.start(script.main, script.PRESETS, "")
        assert server.asked == []
