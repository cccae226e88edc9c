"""common: errors that end in one line, and a reader that has had enough, which is none."""

import json
import os
import signal
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import InputError, errors_in_one_line, reason, visible
from tests.starting import ROOT


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (InputError("--seeds 0 0: none twice"), 2, "error: --seeds 0 0: none twice\n"),
        (FileNotFoundError(2, "No such file or directory", "there.txt"), 2, "error: there.txt: No such file or directory\n"),
        (PermissionError(13, "Permission denied"), 2, "error: a file: Permission denied\n"),
        (OSError("it broke"), 2, "error: a file: it broke\n"),
        (InputError("no \x1b[2J\x9b1m 'a\u202eb'\n"), 2, "error: no \\u001b[2J\\u009b1m 'a\\u202eb'\\u000a\n"),
        (FileNotFoundError(2, "None", "\x07"), 2, "error: \\u0007: None\n"),
        (MemoryError("Unable to allocate 7 GiB"), 2, "error: not enough memory: Unable to allocate 7 GiB\n"),
        (KeyboardInterrupt(), 130, "\nstopped here\n"),
    ],
)
def test_errors_end_in_one_line(capsys, error, status, line):
    with pytest.raises(SystemExit) as stop, errors_in_one_line("stopped here"):
        raise error
    assert stop.value.code == status and capsys.readouterr() == ("", line)


@given(st.text())
def test_what_is_visible_is_itself_or_escaped_as_json_has_it(text):
    assert all(map(str.isprintable, visible("".join(map(chr, range(256))).replace("\xa0", "").replace("\xad", ""))))
    shown = visible(text.replace("\\", "/").replace('"', "'"))
    assert json.loads(f'"{shown}"') == text.replace("\\", "/").replace('"', "'")
    assert visible("é 猫 \u3000\xa0 👩\u200d🔬") == "é 猫 \u3000\xa0 👩\u200d🔬"


@pytest.mark.parametrize(
    ("imported", "status", "error"),
    [
        # Its handler first: in a test run that was started in the background SIGINT is ignored, and that is inherited.
        ("signal.signal(2, signal.default_int_handler); signal.raise_signal(2)", -signal.SIGINT, "\nstopped\n"),
        ("1 / 0", 1, "ZeroDivisionError: division by zero\n"),  # a bug keeps its traceback
    ],
)
def test_ctrl_c_while_something_is_imported_ends_in_one_line(tmp_path, imported, status, error):
    """As TensorFlow, for seconds: before any script has come to the block that its errors end in."""
    (tmp_path / "tensorflow.py").write_text(f"import signal\n{imported}\n")
    paths = os.pathsep.join([str(tmp_path), str(ROOT)])
    words = [sys.executable, "-c", "import common.backend"]
    done = subprocess.run(words, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": paths})
    assert done.returncode == status and done.stdout == ""
    assert done.stderr == error if status < 0 else done.stderr.endswith(error) and "Traceback" in done.stderr


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError), errors_in_one_line("stopped"):
        1 / 0  # noqa: B018
    with pytest.raises(SystemExit) as stop, errors_in_one_line("stopped"):
        sys.exit(3)
    assert stop.value.code == 3


def test_the_first_line_is_the_reason():
    assert reason(ValueError("one\ntwo")) == "one" and reason(ValueError()) == "ValueError"


def piped(words, reader):
    """What is left of python with these words when `reader` has its output: (status, standard output, standard error)."""
    line = f"set -o pipefail; {sys.executable} {words} | {reader}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, cwd=ROOT, env=os.environ | {"COLUMNS": "80"})
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("flush", [True, False])
def test_a_reader_that_has_had_enough_is_no_error(tmp_path, flush):
    """Of more lines than a pipe holds, one; and of a line that stands in the buffer when the reader is gone, none."""
    code = "import time\nfrom common import errors_in_one_line\nwith errors_in_one_line('stopped'):\n"
    lines = "    for i in range(100_000):\n        print(i)\n" if flush else "    time.sleep(0.2)\n    print('late')\n"
    (tmp_path / "many.py").write_text(f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n{code}{lines}")
    found = piped(tmp_path / "many.py", "head -1" if flush else "true")
    assert found == (0, "0\n" if flush else "", "")


@pytest.mark.parametrize(("reader", "lines"), [("head -1", 1), ("true", 0)])
def test_data_list_may_be_cut_short(reader, lines):
    status, out, error = piped("-m data list", reader)
    assert (status, out.count("\n"), error) == (0, lines, "")


@pytest.mark.slow
def test_help_may_be_cut_short():
    """Of one script for all: what reads their words and prints their help is `command.start`."""
    status, out, error = piped("knowledge_distillation_bert.py --help", "head -1")
    assert (status, out.count("\n"), error) == (0, 1, "") and "usage" in out
