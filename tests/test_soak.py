"""tests.soak: what counts as a crash, the log that is resumed, the bound. Stand-ins are started, no real script."""

import importlib
import json
import os
import signal
import sys
from fractions import Fraction
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data import berts
from tests import soak
from tests.starting import start


def stand_in(code):
    return [sys.executable, "-X", "faulthandler", "-c", code]


STARTS = {
    "aborts": stand_in("import os; os.abort()"), "fails": stand_in("raise SystemExit(1)"),
    "ends": stand_in("import os, pathlib; pathlib.Path(os.environ['OUTPUT']).mkdir()"),
}


@pytest.fixture
def count(tmp_path):
    """soak.soak with the log and the output of this test."""
    def count(starts, number, full=False, **variables):
        variables = os.environ | {"OUTPUT": str(tmp_path / "run")} | variables
        return soak.soak(starts, number, tmp_path / "soak.jsonl", variables, full, tmp_path / "run")

    return count


def test_what_ends_by_a_signal_is_counted_apart_from_what_fails(count, tmp_path):
    records = count(STARTS, 6)
    assert [(record["start"], record["outcome"], record["status"]) for record in records] == 2 * [
        ("aborts", "signal", -signal.SIGABRT), ("fails", "failure", 1), ("ends", "ok", 0)]
    assert "Fatal Python error: Aborted" in records[0]["said"] and records[2]["said"] == ""  # faulthandler's word
    assert not (tmp_path / "run").exists()  # else the second would have found that of the first
    header, *rows = soak.table(records)
    assert header[1:6] == ["start", "starts", "by a signal", "other failures", "rate %"]
    assert [row[1:6] for row in rows] == [
        ["aborts", "2", "2", "0", "100.00"], ["ends", "2", "0", "0", "0.00"], ["fails", "2", "0", "2", "0.00"],
        ["all", "6", "2", "2", "50.00"]]  # what fails otherwise shows nothing
    assert [row[6] for row in rows] == ["100.00", "77.64", "100.00", "90.24"]  # 1 - 0.05^(1/2) where none of two has ended so


def test_an_interrupted_soak_goes_on_where_it_was(count, tmp_path):
    log = tmp_path / "soak.jsonl"
    first = count(STARTS, 2)
    with open(log, "a") as file:
        file.write('{"environment": "half of a li')
    records = count(STARTS, 4)
    assert records[:2] == first and [record["start"] for record in records] == ["aborts", "fails", "ends", "aborts"]
    assert [json.loads(line) for line in log.read_text("utf-8").splitlines()] == records
    assert count(STARTS, 4) == records  # enough: nothing is started


def test_each_environment_is_counted_by_itself(count):
    count(STARTS, 1)
    count(STARTS, 1, **{soak.ONEDNN: "0"})
    records = count(STARTS, 1, **{soak.ONEDNN: "0", "MALLOC_CHECK_": "3"})
    assert [record["environment"].partition(" ")[2] for record in records] == [
        os.environ.get(soak.ONEDNN, "unset"), "0", "0, MALLOC_CHECK_ 3"]
    assert [row[1:3] for row in soak.table(records)[1:]] == 3 * [["aborts", "1"], ["all", "1"]]


def test_an_end_by_our_own_signal_is_no_crash_and_a_hang_is_a_failure(count, monkeypatch):
    monkeypatch.setattr(soak, "MINUTE", 3)
    monkeypatch.setattr(soak, "GRACE", 0.1)
    trains = "import os, pathlib; f = pathlib.Path(os.environ['OUTPUT'], 'tensorboard', 'seed-0-teacher', 'train'); " \
             "f.mkdir(parents=True); (f / 'events.1').touch(); "
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    starts = {"trains": stand_in(trains + "import time; time.sleep(60)"), "deaf": stand_in(trains + deaf),
              "aborts": STARTS["aborts"], "never trains": stand_in("import time; time.sleep(60)")}
    records = count(starts, 4, full=True)
    assert [(record["outcome"], record["status"], record["ours"]) for record in records] == [
        ("ok", -signal.SIGTERM, True), ("ok", -signal.SIGKILL, True), ("signal", -signal.SIGABRT, False),
        ("failure", -signal.SIGTERM, True)]
    monkeypatch.setattr(soak, "HANGS", 0.1)
    assert count({"trains": starts["trains"]}, 1)[-1]["outcome"] == "failure"


@given(st.integers(1, 200), st.integers(0, 200), st.sampled_from((0.5, 0.95, 0.99)))
def test_the_bound_is_the_rate_at_which_so_few_would_be_seen_no_oftener_than_that(starts, ended, confidence):
    """P(Bin(n, bound) <= k) = 1 - confidence, in exact fractions; where all have ended so, nothing is ruled out."""
    ended = min(ended, starts)
    bound = soak.upper_bound(ended, starts, confidence)
    if ended == starts:
        assert bound == 1
        return
    p = Fraction(bound)
    seen = sum(comb(starts, i) * p**i * (1 - p) ** (starts - i) for i in range(ended + 1))
    assert float(seen) == pytest.approx(1 - confidence, rel=1e-6) and bound > ended / starts - 1e-9 * (confidence > 0.5)


def test_the_scripts_take_the_flags(tmp_path, monkeypatch):
    """Up to their `main`: each script is started on one device and on two, on real texts or images."""
    seen = []
    for name, words in soak.starts_of(tmp_path).items():
        place = next(i for i, word in enumerate(words) if word.endswith(".py"))
        script = importlib.import_module(words[place].removesuffix(".py"))
        monkeypatch.setattr(script, "main", lambda preset, settings: seen.append(settings))
        monkeypatch.setattr("common.command.set_devices", lambda *words: None)
        done = start(script, *words[place + 1 :])
        assert done.returncode == 0, done.stderr
        assert name.endswith(seen[-1].strategy) and seen[-1].output == str(tmp_path / "run")
        assert ("-c" in words) == (seen[-1].strategy == "mirrored") and words[1:3] == ["-X", "faulthandler"]
    assert [settings.data for settings in seen] == 6 * ["reuters-r8"] + 2 * ["digits"]
    for settings in seen[:6]:
        berts.load(settings.bert, settings.maxlen)  # which refuses a BERT of fewer positions
    assert soak.starts_of(tmp_path, "fastbert")["fastbert, demo"][3:] == [
        "knowledge_distillation_fastbert.py", "--output", str(tmp_path / "run")]
