"""How a script is started: settings from presets and the command line, and the bounds that stand on their fields."""

import contextlib
import dataclasses
import faulthandler
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal, get_args, get_type_hints

import tyro

from common import InputError, errors_in_one_line
from common.devices import is_chief, set_devices, tensorflow_errors_in_one_line
from common.locking import unlocking_folders
from common.parsing import parse

# Bounds ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bound:
    """What a setting must be. It stands on its field, `Annotated[int, at_least(1)]`, and `check_bounds` reads it there."""

    words: str  # what must be, as the error says it
    allows: Callable  # value -> whether it may be
    whole: bool = False  # whether `allows` takes a tuple as a whole, instead of each of its numbers
    noun: str = ""  # what the error calls the number, instead of the flag

    def check(self, flag, value):
        """Raise InputError unless the value of the setting `flag` is within the bound."""
        if self.whole:
            if not self.allows(value):
                raise InputError(f"{flag}{''.join(f' {number}' for number in value)}: {self.words}")
            return
        for number in value if isinstance(value, tuple) else (value,):
            if number is not None and not self.allows(number):
                raise InputError(f"{self.noun or flag} {number}: must be {self.words}")


def at_least(minimum):
    """The bound of a number from below."""
    return Bound(f"{minimum} or more", lambda number: minimum <= number < float("inf"))


def none_twice(words):
    """The bound of a tuple in which no value may stand twice. words: of the error."""
    return Bound(words, lambda values: len(set(values)) == len(values), whole=True)


NOT_EMPTY = Bound("at least one is needed", bool, whole=True)

# Kinds of settings, and below them those that all scripts have, with the same meaning.
Count = Annotated[int, at_least(0)]
PositiveInt = Annotated[int, at_least(1)]
NonNegative = Annotated[float, at_least(0)]
LearningRate = Annotated[float, Bound("above 0", lambda rate: 0 < rate < float("inf"))]
Fraction = Annotated[float, Bound("from 0 to 1", lambda fraction: 0 <= fraction <= 1)]
Percent = Annotated[float, Bound("from 0.001 to 99.999, per cent", lambda share: 0.001 <= share <= 99.999)]  # of a promise
Dropout = Annotated[float, Bound("0 or more and below 1", lambda rate: 0 <= rate < 1)]
Temperature = Annotated[float, Bound("from 0.01 to 1000", lambda t: 0.01 <= t <= 1000, noun="temperature")]  # for float32

Seeds = Annotated[
    tuple[int, ...],
    Bound("at least one is needed, and none twice", lambda seeds: 0 < len(set(seeds)) == len(seeds), whole=True),
    Bound("0 or more and below 2**32", lambda seed: 0 <= seed < 2**32),  # which numpy takes
]
Precision = Literal["float32", "mixed_bfloat16", "mixed_float16"]
Strategy = Literal["none", "mirrored", "multiworker"]
Export = tuple[Literal["onnx"], ...]


def check_bounds(settings):
    """Raise InputError unless every setting is within the bounds on its field. settings: a dataclass instance."""
    for name, hint in get_type_hints(type(settings), include_extras=True).items():
        for bound in _bounds(hint):
            bound.check(f"--{name.replace('_', '-')}", getattr(settings, name))


def _bounds(hint):
    """The bounds of a type: those that it is annotated with, and those of what it is a tuple of."""
    return [bound for inner in get_args(hint) for bound in ([inner] if isinstance(inner, Bound) else _bounds(inner))]


def check_loss_weights(settings):
    """Raise InputError if hard and soft loss both weigh 0."""
    if settings.hard_weight == settings.soft_weight == 0:
        raise InputError("--hard-weight 0 --soft-weight 0: nothing would be learned; one must be above 0")


def check_known(flag, names, known):
    """Raise InputError unless each of `names`, the value of `flag`, is one of the names `known`."""
    for name in names:
        if name not in known:
            raise InputError(f"{flag} {name}: expected some of {' '.join(known)}")


# Start -----------------------------------------------------------------------------------------------------------------


LAST_WORDS = """
import signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Windows Ctrl-C is for all processes of a console
if not sys.stdin.read():
    print("this start was killed or crashed; the same command resumes from its last backup", file=sys.stderr)
"""


@contextlib.contextmanager
def last_words():
    """A block during which a second process waits for the end of this one, to say in a line what to do if a signal ends it.

    A crash in TensorFlow leaves Python no time to say anything, nor does whoever kills a process that takes too much memory.
    """
    try:
        words = [sys.executable, "-I", "-S", "-c", LAST_WORDS]
        waiting = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True)
    except OSError:  # no room for one more process: this one can do without
        yield
        return
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # it may have been killed itself
            waiting.communicate(b"ended by itself")


def start(main, presets, description):
    """Run a script with settings from the command line, as `script.py [PRESET] [--flag value …]`.

    main: (preset name, settings) -> None
    presets: {name: settings dataclass instance}, the first of them the default
    description: what `--help` says of the script

    Errors end the process as `errors_in_one_line` does.
    """
    if sys.stdout:  # which may be closed. So that a log file shows a finished stage at once, and in any encoding all there is
        sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")
    words = sys.argv[1:]
    named = bool(words) and not words[0].startswith("-")
    preset = words[0] if named else next(iter(presets))
    if sys.__stderr__ and not faulthandler.is_enabled():
        faulthandler.enable(sys.__stderr__)  # a crash inside TensorFlow at least says where
    stopped = "stopped; the same command resumes from its last backup"
    with errors_in_one_line(stopped), unlocking_folders(), tensorflow_errors_in_one_line():
        if preset not in presets:
            raise InputError(f"{preset!r} is not a preset; expected {' or '.join(presets)} as the first word, then --flags")
        settings = parse(
            tyro.cli, type(presets[preset]),
            default=presets[preset],
            args=words[named:],
            prog=f"{sys.argv[0]} [{'|'.join(presets)}]",
            description=f"{description} Defaults shown are those of the preset {preset!r}.",
        )
        check_bounds(settings)
        set_devices(settings.strategy, settings.batch_size)
        if not is_chief():
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115  what there is to say the chief says
        with last_words():
            main(preset, settings)


def command_line(script, preset, default, settings):
    """The command that starts a script with these settings, but for where the run lies.

    script: its name, without .py
    preset: its preset
    default: settings of the preset; what differs from them is written as flags
    settings: those of the run; numbers are written to their last digit, so that the folder of the run takes the command
    """
    words = ["python", f"{script}.py", *([preset] if preset != "demo" else [])]
    for name, value in vars(settings).items():
        if value != getattr(default, name) and name not in ("output", "download", "strategy"):
            words += as_flag(name, value)
    return " ".join(words)


def as_flag(name, value):
    """The words that give a setting its value, one or several, as in a shell; numbers to their last digit."""
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no-{flag}"]
    values = value if isinstance(value, tuple | list) else (value,)
    digits = [str(each).removesuffix(".0") if isinstance(each, float) else str(each) for each in values]
    return [f"--{flag}", *map(shlex.quote, digits)]


def as_dict(settings):
    """The settings as JSON holds them (tuples become lists)."""
    return json.loads(json.dumps(dataclasses.asdict(settings)))
