"""The words of a command line, as tyro parses them: what it cannot parse is said in one line, as all other errors are."""

import contextlib
import io
import re
from functools import partial, wraps
from itertools import groupby

from common import InputError


def parse(parser, *given, **more):
    """What a function of tyro makes of the command line, as `parser(*given, **more)`.

    Raises InputError for words that it cannot parse; SystemExit after --help.
    """
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            return parser(*given, **more)
    except SystemExit as stop:
        if not stop.code:
            raise
    raise InputError(f"{reason_in(printed.getvalue())}; --help tells what can be given")


def deferred(function):
    """A function with the same parameters, for tyro, that only gives back the call: what is said in it is not tyro's."""
    return wraps(function)(lambda *given, **named: partial(function, *given, **named))


def reason_in(box):
    """The reason that tyro gives in its box of lines, below a title, and the flag that it takes to be meant, if it does.

    Parts of a box end at a rule, which is made of - if standard output does not take UTF-8.
    """
    lines = [line.strip("│╰╯ ") for line in re.sub(r"\x1b\[[\d;]*m|╭.*", "", box).splitlines()]
    parts = [" ".join(part) for is_rule, part in groupby(lines, lambda line: set(line) <= {*"─-"}) if not is_rule]
    reason, *others = parts if "╭" in box else parts[1:]
    meant = [re.findall(r"--[\w-]+", part)[:1] for part in others if part.startswith("Perhaps you meant")]
    return reason.rstrip(".:") + "".join(f"; perhaps {flag}" for flags in meant for flag in flags)
