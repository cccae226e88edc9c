"""Starting a script: in this process, which is fast, or in one of its own as a user does."""

import contextlib
import io
import subprocess
import sys
from pathlib import Path

import pytest

from common import command
from common.backend import keras, set_precision
from export.timing import turns

ROOT = Path(__file__).parent.parent


def briefly(makers, batches, rounds):
    """`export.timing.turns`, but each way has one turn, and one round that counts: the clock is not in question."""
    return turns(makers, batches, rounds=1, count=1)


def start(script, *words, traced=True):
    """Start the module `script` in this process, where what is timed is timed `briefly`. Returns what `run_script` does.

    traced: whether each model becomes a graph before it is trained and asked, as it does for users; where there are few steps,
        to trace them takes longer than all the rest; with modules drawn at random a step may be without any gradient then
    """
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    status, words = 0, [f"{script.__name__}.py", *map(str, words)]
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr(sys, "argv", words)
        for module in ("costs", "exits"):
            patch.setattr(f"export.{module}.turns", briefly)
        if not traced:
            patch.setattr(keras.Model, "run_eagerly", True)
        try:
            command.start(script.main, script.PRESETS, script.__doc__.split("\n\n")[0])
        except SystemExit as stop:
            status = stop.code
        finally:
            set_precision("float32")
    printed = (file.buffer.getvalue().decode("utf-8") for file in (out, err))
    return subprocess.CompletedProcess(words, status, *printed)


def no_files(monkeypatch, module="export.reporting"):
    """For a later start of a finished run, of which the files are not in question: student/ and teacher/ stay as they are."""
    monkeypatch.setattr(f"{module}.write_teacher", lambda *words, **more: None)
    monkeypatch.setattr(f"{module}.write_student", lambda *words: ("", [], {"student": {"seed": 0, "files": []}}))


def refused(script, output, sane, words):
    """What the module `script` says when it refuses `words`, flags after others that are `sane`; the first may be a preset.

    It must end with status 2 and one line, before there is a folder `output`.
    """
    preset, flags = ([], words) if words[0].startswith("-") else (words[:1], words[1:])
    done = start(script, *preset, *sane, "--output", output, *flags)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert not output.exists()
    return done.stderr


def run_to_the_end(name, *words):
    """The same as `run_script`, of a start that must end well."""
    done = run_script(name, *words)
    assert done.returncode == 0, done.stderr
    return done


def run_script(name, *words, timeout=300):
    """Start a script in a process of its own; the finished process with what it printed."""
    return subprocess.run(
        [sys.executable, str(ROOT / f"{name}.py"), *map(str, words)],
        capture_output=True, text=True, timeout=timeout, cwd=ROOT,
    )
