"""common.parsing: what tyro cannot parse is said in one line, by every command, and what is said in a command is its own."""

import io
import sys
from dataclasses import dataclass
from typing import Literal

import pytest
import tyro

import knowledge_distillation_bert
import knowledge_distillation_bert_of_theseus
import knowledge_distillation_fastbert
import knowledge_distillation_from_scratch
from common import InputError
from common.parsing import deferred, parse, reason_in
from export import cascade, predict
from tests.starting import start

SCRIPTS = (
    knowledge_distillation_bert, knowledge_distillation_bert_of_theseus, knowledge_distillation_fastbert,
    knowledge_distillation_from_scratch,
)
HINT = "; --help tells what can be given"


@dataclass(frozen=True)
class Settings:
    temperature: float = 6.0  # T
    schedule: Literal["linear", "constant"] = "linear"
    seeds: tuple[int, ...] = (0,)
    limit: int | None = 3


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])  # of which the second has no signs to draw a box with
@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--temprature", "3"], "Unrecognized options: --temprature, 3; perhaps --temperature"),
        (["three"], "Unrecognized options: three"),
        (["--temperature", "hot"], "Error parsing --temperature: could not convert string to float: 'hot'"),
        (["--temperature"], "Missing value for argument '--temperature'. Expected 1 values"),
        (["--schedule", "cosine"], "invalid choice 'cosine' for argument '--schedule'. Expected one of ('linear', 'constant')"),
        (["--seeds", "0", "one"], "Error parsing --seeds: Could not find valid parse for arguments: ['0', 'one']"),
        (["--limit", "few"], "Error parsing --limit: no type matching {None}|INT could be instantiated from ['few']"),
    ],
)
def test_what_cannot_be_parsed_is_one_line(monkeypatch, encoding, words, reason):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding))
    with pytest.raises(InputError) as error:
        parse(tyro.cli, Settings, args=words, prog="script.py [demo|original]")
    assert str(error.value) == reason + HINT


def test_colours_are_left_out():
    box = "\x1b[31m╭─\x1b[0m \x1b[1mTitle ─╮\x1b[0m\n\x1b[31m│\x1b[0m One - two \x1b[31m│\x1b[0m\n│ three.    │\n╰───────────╯"
    assert reason_in(box) == "One - two three"


def test_what_can_be_parsed_is_given_back_and_help_is_shown(capsys):
    assert parse(tyro.cli, Settings, args=["--seeds", "2", "3"]) == Settings(seeds=(2, 3))
    with pytest.raises(SystemExit) as stop:
        parse(tyro.cli, Settings, args=["--help"])
    out, error = capsys.readouterr()
    assert not stop.value.code and "--temperature FLOAT" in out and error == ""


def test_what_a_command_says_and_how_it_ends_is_its_own(capsys):
    def command(count: int, /, loud: bool = False):
        """Say something.

        Args:
            count: how often
            loud: in capitals
        """
        print("told", file=sys.stderr)
        sys.exit(count)

    call = parse(tyro.cli, deferred(command), args=["3", "--loud"])
    assert capsys.readouterr() == ("", "") and call.args == (3,) and call.keywords == {"loud": True}
    with pytest.raises(SystemExit) as stop:
        call()
    assert stop.value.code == 3 and capsys.readouterr() == ("", "told\n")
    with pytest.raises(SystemExit):
        parse(tyro.cli, deferred(command), args=["--help"])
    out = capsys.readouterr().out
    assert "Say something." in out and "in capitals" in out


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_every_script_says_it_in_one_line(script):
    done = start(script, "--teacher-learning", "fast")
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: Unrecognized options: --teacher-learning, fast")
    assert done.stderr.endswith(f"{HINT}\n")


@pytest.mark.parametrize(
    ("module", "words", "reason"),
    [
        (predict, [], "Missing from python -m common.predict: STR a run's folder, "),
        (predict, ["run", "--top", "all"], "Error parsing --top: invalid literal for int() with base 10: 'all'"),
        (cascade, ["a", "b", "c"], "Missing from python -m common.cascade: --file STR "),
    ],
)
def test_what_asks_and_what_joins_models_say_it_in_one_line(monkeypatch, capsys, module, words, reason):
    monkeypatch.setattr(sys, "argv", ["it", *words])
    with pytest.raises(SystemExit) as stop:
        module.start()
    out, error = capsys.readouterr()
    assert stop.value.code == 2 and out == "" and error.count("\n") == 1
    assert error.startswith(f"error: {reason}") and error.endswith(f"{HINT}\n")
