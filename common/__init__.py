"""What the four scripts share. Imports run one way, in the order that tests/test_imports.py has and holds them to."""

import contextlib
import os
import re
import sys

# Since 1.29 onnxruntime tells Microsoft of every graph that it loads, unless this is set before it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# What a terminal obeys or ends a line at, and what turns the direction of writing around: to be shown, never sent.
_CONTROLS = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def _stop_in_one_line(kind, error, traceback, otherwise=sys.excepthook):
    """An excepthook that says in a line that Ctrl-C has ended the process; Python then ends it as a signal does."""
    if issubclass(kind, KeyboardInterrupt):
        print("\nstopped", file=sys.stderr)
    else:
        otherwise(kind, error, traceback)


sys.excepthook = _stop_in_one_line  # set on import, for the seconds in which TensorFlow is imported: no block is open yet


class InputError(Exception):
    """Something the user gave cannot be used.

    The message is one line: what is wrong, where (file and line), what was expected, what to do.
    A script prints it on standard error and ends with exit status 2.
    """


def reason(error):
    """The first line of what an exception says, or its name if it says nothing."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def visible(text):
    """A text of others as it may go to a terminal or a document: control characters as JSON escapes them, \\u001b and so on."""
    return _CONTROLS.sub(lambda control: f"\\u{ord(control[0]):04x}", text)


def utf8_output():
    """Let this process write any text: a file or a pipe gets UTF-8, as what is read; a terminal may lack a sign."""
    if sys.stdout and sys.stdout.isatty():
        sys.stdout.reconfigure(errors="backslashreplace")
    elif sys.stdout:
        sys.stdout.reconfigure(encoding="utf-8")


@contextlib.contextmanager
def errors_in_one_line(stopped):
    """A block whose errors end the process: status 2 and one line on standard error if the input cannot be used, 130 on Ctrl-C.

    Quietly, if whoever reads the output has enough of it, as `head` has.

    stopped: the line to print on Ctrl-C
    """
    try:
        try:
            yield
        finally:
            if sys.stdout:  # which may be closed
                sys.stdout.flush()
    except InputError as error:
        print(f"error: {visible(str(error))}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it once more at the end
    except OSError as error:  # a file or folder that may not be read
        print(f"error: {visible(str(error.filename or 'a file'))}: {error.strerror or error}", file=sys.stderr)
        sys.exit(2)
    except MemoryError as error:
        print(f"error: not enough memory: {visible(reason(error))}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(f"\n{stopped}", file=sys.stderr)
        sys.exit(130)
