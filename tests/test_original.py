"""The originals' own setting, end to end as a user takes it: 119 classes of Chinese texts, a BERT of Google's."""

import hashlib
import io
import json
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import softmax

import knowledge_distillation_bert as bert
import knowledge_distillation_bert_of_theseus as theseus
import knowledge_distillation_fastbert as fastbert
from data import downloading, fetching, texts
from data.sources import SOURCES, Download
from tests import serving, tiny
from tests.alone import ask_card
from tests.starting import no_files, start

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def iflytek(tmp_path_factory):
    return tiny.write_iflytek(tmp_path_factory.mktemp("data") / "iflytek", each=1)


def check_run(folder, names):
    """What every run of this preset must leave."""
    results = json.loads((folder / "results.json").read_text("utf-8"))
    assert [model["name"] for model in results["models"]] == [*names, "linear"]
    assert results["data"]["classes"] == 119 and results["data"]["chosen_on"] == "test"
    if "costs" in results:  # FastBERT: the original's classifier is one linear layer
        assert results["costs"]["head"] == 2 * tiny.CHINESE_CONFIG["hidden_size"] * 119
    assert all(0 <= model["accuracy"] <= 1 for model in results["models"])
    assert "类" in (folder / "report.md").read_text(encoding="utf-8")  # what the classes mean


@pytest.mark.parametrize(
    ("script", "layers", "smaller", "names"),
    [
        (theseus, 2, ["--predecessor-epochs", 1, "--mixed-epochs", 1, "--direct-epochs", 1, "--successor-epochs", 1,
                   "--middle-layers", 1, "--student-layers", 1], ["predecessor", "middle", "successor", "theseus"]),
        (fastbert, 3, ["--teacher-epochs", 1, "--branch-epochs", 1, "--timed-examples", 8, "--teacher-layers", 2],
         ["teacher", "fastbert"]),
    ],
)
def test_original_on_data_and_a_model_in_the_originals_formats(iflytek, tmp_path, script, layers, smaller, names):
    chinese_bert = tiny.write_chinese_bert(tmp_path / "chinese-bert", layers)
    done = start(script, "original", "--data", iflytek, "--bert", chinese_bert, *smaller, "--output", tmp_path / "run",
                 traced=False)
    assert done.returncode == 0, done.stderr
    assert "119 classes, 119 training, " in done.stdout and "119 test texts of up to 128 tokens" in done.stdout
    assert f"{iflytek / 'test.json'} has no labels: dev.json is the test part" in done.stdout
    check_run(tmp_path / "run", names)
    student = tmp_path / "run" / "student"
    assert (student / "model.onnx").is_file()
    said, = (line for line in done.stdout.splitlines() if line.startswith("int8 ("))  # all tokens are kept
    assert (student / "model.int8.onnx").is_file() == (" MB, " in said) and "% of the test texts" in said
    if script is fastbert:
        corpus = texts.load(str(iflytek))
        _, found, _ = ask_card(student, tmp_path, [corpus.texts[index] for index in corpus.test[:8]])
        logits = np.load(tmp_path / "run" / "seed-0" / "fastbert" / "test_logits.npy")[:8]
        np.testing.assert_allclose(found, softmax(logits, axis=-1), atol=0.01 if " MB, " in said else 1e-5)


def test_original_fetches_what_it_needs_when_allowed(iflytek, tmp_path, monkeypatch):
    """From a server, through the archives' checks, to the report; then again with nothing left to fetch."""
    monkeypatch.setattr(fetching, "FOLDER", tmp_path / "data")
    monkeypatch.setattr(downloading, "PAUSE", 0)
    chinese_bert = tiny.write_chinese_bert(tmp_path / "chinese-bert", layers=2)
    words = ["original", "--download", "--output", tmp_path / "run", "--student-layers", 1, "--experiments", "teacher", "alone"]
    words += ["--teacher-epochs", 1, "--student-epochs", 1]
    no_files(monkeypatch)
    with serving.serving() as server:
        for name, folder, root in (
            ("iflytek", iflytek, ""), ("chinese-bert-base", chinese_bert, "chinese_L-12_H-768_A-12/"),
        ):
            packed = io.BytesIO()
            with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
                for file in folder.iterdir():
                    archive.write(file, root + file.name)
            source = SOURCES[name]
            address = f"{server.address}/{source.downloads[0].address.rpartition('/')[2]}"
            server.files[address.removeprefix(server.address)] = packed.getvalue()
            digest = hashlib.sha256(packed.getvalue()).hexdigest() if source.downloads[0].sha256 else None
            inside = {role: hashlib.sha256((folder / source.files[role]).read_bytes()).hexdigest() for role in source.sha256}
            here = replace(source, downloads=(Download(address, sha256=digest),), sha256=inside)
            monkeypatch.setitem(SOURCES, name, here)
        server.behave(serving.cut(0.6))
        done = start(bert, *words, traced=False)
        assert done.returncode == 0, done.stderr
        assert "; licence: Apache-2.0; cite Devlin et al.: BERT" in done.stdout
        assert "iflytek: 119 classes, 119 training, 119 validation, 119 test texts of up to 128 tokens" in done.stdout
        check_run(tmp_path / "run", ["teacher", "alone"])
        server.behave(serving.status(404))
        monkeypatch.setattr(bert, "report_texts", lambda *words, **more: None)
        assert start(bert, *words).returncode == 0
        assert server.asked == []
