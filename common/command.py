"""How a script is started: settings from presets and the command line, and errors in one line."""

import contextlib
import dataclasses
import os
import shlex
import sys

import tyro

from common import InputError
from common.backend import is_chief, set_devices, tf


@contextlib.contextmanager
def ending_in_one_line(stopped):
    """A block whose errors end the process: status 2 and one line on standard error when the input cannot be used, 130 and
    the line `stopped` on Ctrl-C."""
    try:
        yield
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:  # a file or folder that may not be read
        print(f"error: {error.filename or 'a file'}: {error.strerror or error}", file=sys.stderr)
        sys.exit(2)
    except (tf.errors.UnavailableError, tf.errors.AbortedError):  # its own message is 40 lines long
        print("error: another process of --strategy multiworker has ended, and says why; start all of them again, they go on "
              "after the last whole epoch", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(f"\n{stopped}", file=sys.stderr)
        sys.exit(130)


def start(main, presets, description):
    """Run `main(preset name, settings)` with settings from the command line, as `script.py [PRESET] [--flag value …]`.

    presets: {name: settings dataclass instance}, the first of them the default. Ends as `ending_in_one_line` does.
    """
    sys.stdout.reconfigure(line_buffering=True)  # so that a log file shows a finished stage at once
    words = sys.argv[1:]
    named = bool(words) and not words[0].startswith("-")
    preset = words[0] if named else next(iter(presets))
    with ending_in_one_line("stopped; the same command goes on after the last whole epoch"):
        if preset not in presets:
            raise InputError(f"{preset!r} is not a preset; expected {' or '.join(presets)} as the first word, then --flags")
        settings = tyro.cli(
            type(presets[preset]),
            default=presets[preset],
            args=words[named:],
            prog=f"{sys.argv[0]} [{'|'.join(presets)}]",
            description=f"{description} Defaults shown are those of the preset {preset!r}.",
        )
        check_at_least(settings, batch_size=1)
        set_devices(settings.strategy, settings.batch_size)
        if not is_chief():
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115  what there is to say the chief says
        main(preset, settings)


def check_at_least(settings, **minima):
    """Raise InputError unless each named number (or each number of a tuple) in `settings` is at least its minimum."""
    for name, minimum in minima.items():
        value = getattr(settings, name)
        for number in value if isinstance(value, tuple) else (value,):
            if not minimum <= number < float("inf"):
                raise InputError(f"--{name.replace('_', '-')} {number}: must be {minimum} or more")


def check_positive(settings, *names):
    """Raise InputError unless each named number in `settings` is above 0."""
    for name in names:
        if not 0 < getattr(settings, name) < float("inf"):
            raise InputError(f"--{name.replace('_', '-')} {getattr(settings, name)}: must be above 0")


def check_fraction(settings, *names):
    """Raise InputError unless each named number (or each number of a tuple) in `settings` is from 0 to 1."""
    for name in names:
        value = getattr(settings, name)
        for number in value if isinstance(value, tuple) else (value,):
            if not 0 <= number <= 1:
                raise InputError(f"--{name.replace('_', '-')} {number}: must be from 0 to 1")


def check_dropout(settings, *names):
    """Raise InputError unless each named number in `settings` is 0 or more and below 1."""
    for name in names:
        if not 0 <= getattr(settings, name) < 1:
            raise InputError(f"--{name.replace('_', '-')} {getattr(settings, name)}: must be 0 or more and below 1")


def check_temperatures(*temperatures):
    """Raise InputError unless each is one that float32 can reckon with, and that means anything."""
    for temperature in temperatures:
        if not 0.01 <= temperature <= 1000:
            raise InputError(f"temperature {temperature}: must be from 0.01 to 1000")


def check_weights(settings):
    """Raise InputError unless the two losses of distillation weigh 0 or more, and not both of them 0."""
    check_at_least(settings, hard_weight=0, soft_weight=0)
    if settings.hard_weight == settings.soft_weight == 0:
        raise InputError("--hard-weight 0 --soft-weight 0: nothing would be learnt; one must be above 0")


def check_seeds(seeds):
    """Raise InputError unless there is a seed, none stands twice, and each is one that numpy takes."""
    if not seeds or len(set(seeds)) < len(seeds):
        raise InputError(f"--seeds {' '.join(map(str, seeds))}: at least one is needed, and none twice")
    for seed in seeds:
        if not 0 <= seed < 2**32:
            raise InputError(f"--seeds {seed}: must be 0 or more and below 2**32")


def check_none_twice(settings, *names):
    """Raise InputError if one of the tuples named holds a value twice."""
    for name in names:
        values = getattr(settings, name)
        if len(set(values)) < len(values):
            raise InputError(f"--{name.replace('_', '-')} {' '.join(map(str, values))}: each only once")


def check_known(flag, wanted, known):
    """Raise InputError unless each of the names `wanted` is one of the names `known`."""
    for name in wanted:
        if name not in known:
            raise InputError(f"{flag} {name}: expected some of {' '.join(known)}")


def identity(settings):
    """The settings that say which run it is, as JSON holds them: not where it lies or is reckoned, nor what may be fetched."""
    shown = as_dict(dataclasses.replace(settings, output=""))
    del shown["download"], shown["strategy"]
    return shown


def typed(script, preset, default, settings):
    """The command that starts a script with these settings, all that differs from the preset's `default`; not where it lies."""
    words = ["python", f"{script}.py", *([preset] if preset != "demo" else [])]
    for name, value in vars(settings).items():
        if value == getattr(default, name) or name in ("output", "download", "strategy"):
            continue
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            values = value if isinstance(value, tuple) else (value,)
            words += [f"--{flag}", *(f"{x:g}" if isinstance(x, float) else shlex.quote(str(x)) for x in values)]
    return " ".join(words)


def as_dict(settings):
    """The settings as JSON holds them (tuples become lists)."""
    return {
        name: list(value) if isinstance(value, tuple) else value for name, value in dataclasses.asdict(settings).items()
    }
