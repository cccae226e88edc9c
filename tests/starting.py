"""Starting a script: in this process for its errors, in one of its own as a user does."""

import subprocess
import sys
from pathlib import Path

import pytest

from common import command

ROOT = Path(__file__).parent.parent


def start(script, capsys, monkeypatch, *words):
    """Start the main of the module `script` in this process, where it must end itself; (exit status, standard error)."""
    monkeypatch.setattr(sys, "argv", [f"{script.__name__}.py", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        command.start(script.main, script.PRESETS, "")
    return stop.value.code, capsys.readouterr().err


def refused(script, capsys, monkeypatch, output, sane, words):
    """What the module `script` says when it refuses `words`, flags after others that are `sane`; the first may be a preset.

    It must end with status 2 and one line, before there is a folder `output`.
    """
    preset, flags = ([], words) if words[0].startswith("-") else (words[:1], words[1:])
    status, error = start(script, capsys, monkeypatch, *preset, *sane, "--output", output, *flags)
    assert status == 2
    assert error.startswith("error: ") and error.count("\n") == 1
    assert not output.exists()
    return error


def run_script(name, *words, timeout=300):
    """Start a script in a process of its own; the finished process with what it printed."""
    return subprocess.run(
        [sys.executable, str(ROOT / f"{name}.py"), *map(str, words)],
        capture_output=True, text=True, timeout=timeout, cwd=ROOT,
    )
