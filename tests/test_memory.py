"""tests.memory: what a process held at most, and what it says if it fails."""

import subprocess
import sys

import pytest

from tests import memory
from tests.starting import ROOT

LETS_GO = "held = b'x' * 300_000_000; del held; import time; time.sleep(0.5)"


def test_the_most_that_a_process_held_though_it_let_go_of_it():
    """Asked by a small process: this one holds TensorFlow."""
    ask = f"import sys; from tests.memory import peak; print(*peak([sys.executable, '-c', {LETS_GO!r}]))"
    size, seconds = map(float, subprocess.check_output([sys.executable, "-c", ask], cwd=ROOT).split())
    assert 0.3 < size < 0.4 and 0.5 < seconds < 30


def test_a_process_that_fails_says_why():
    with pytest.raises(RuntimeError, match="(?s)ended with 1: .*ValueError: no such demo"):
        memory.peak([sys.executable, "-c", "raise ValueError('no such demo')"])


def test_a_script_that_there_is_not():
    with pytest.raises(SystemExit, match="frombert: no such script; there are from_scratch, bert, bert_of_theseus, fastbert"):
        memory.main(["bert", "frombert"])


def test_a_line_for_each_demo(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(memory, "peak", lambda words: asked.append(words) or (1.26, 90.0))
    memory.main(["bert", "fastbert"])
    assert [words[1] for words in asked] == ["knowledge_distillation_bert.py", "knowledge_distillation_fastbert.py"]
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[2:] == [["knowledge_distillation_bert.py", "1.3", "1.5"], ["knowledge_distillation_fastbert.py", "1.3", "1.5"]]
