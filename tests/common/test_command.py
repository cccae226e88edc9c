"""common.command: the bounds that stand on the fields of settings, and that every number of every script has one."""

import os
import shlex
import subprocess
import sys
from dataclasses import dataclass, fields, make_dataclass, replace
from typing import Annotated, Literal, get_args, get_origin, get_type_hints

import pytest
import tyro
from hypothesis import example, given
from hypothesis import strategies as st

import knowledge_distillation_bert
import knowledge_distillation_bert_of_theseus
import knowledge_distillation_fastbert
import knowledge_distillation_from_scratch
from common import InputError
from common.command import (
    NOT_EMPTY,
    Bound,
    Count,
    Dropout,
    Fraction,
    LearningRate,
    NonNegative,
    PositiveInt,
    Seeds,
    Temperature,
    at_least,
    check_bounds,
    command_line,
    none_twice,
)
from tests.starting import ROOT

SCRIPTS = (
    knowledge_distillation_bert, knowledge_distillation_bert_of_theseus, knowledge_distillation_fastbert,
    knowledge_distillation_from_scratch,
)
NAN, INFINITY = float("nan"), float("inf")
ONCE = none_twice("each only once")
EVEN = Bound("even", lambda number: number % 2 == 0)
KINDS = {  # of a field: (its type, what is allowed, {what is not: the words after the flag})
    "count": (Count, (0, 7), {-1: " -1: must be 0 or more"}),
    "positive": (PositiveInt, (1, 10**9), {0: " 0: must be 1 or more"}),
    "maxlen": (Annotated[int, at_least(3)], (3,), {2: " 2: must be 3 or more"}),
    "weight": (NonNegative, (0.0, 1e9), {
        -0.5: " -0.5: must be 0 or more", INFINITY: " inf: must be 0 or more", NAN: " nan: must be 0 or more"}),
    "learning_rate": (LearningRate, (1e-9, 5.0), {
        0.0: " 0.0: must be above 0", -1.0: " -1.0: must be above 0", INFINITY: " inf: must be above 0",
        NAN: " nan: must be above 0"}),
    "fraction": (Fraction, (0.0, 0.5, 1.0), {
        -0.1: " -0.1: must be from 0 to 1", 1.1: " 1.1: must be from 0 to 1", NAN: " nan: must be from 0 to 1"}),
    "dropout": (Dropout, (0.0, 0.99), {1.0: " 1.0: must be 0 or more and below 1", NAN: " nan: must be 0 or more and below 1"}),
    "seeds": (Seeds, ((0,), (3, 1, 2**32 - 1)), {
        (): ": at least one is needed, and none twice", (1, 2, 1): " 1 2 1: at least one is needed, and none twice",
        (0, 2**32): " 4294967296: must be 0 or more and below 2**32", (-1,): " -1: must be 0 or more and below 2**32"}),
    "not_empty": (Annotated[tuple[str, ...], NOT_EMPTY], (("a", "a"),), {(): ": at least one is needed"}),
    "once": (Annotated[tuple[str, ...], ONCE], ((), ("a", "b")), {("a", "b", "a"): " a b a: each only once"}),
    "both": (Annotated[tuple[str, ...], ONCE, NOT_EMPTY], (("a",),), {
        (): ": at least one is needed", ("a", "a"): " a a: each only once"}),
    "of_each": (tuple[PositiveInt, ...], ((), (1, 1)), {(3, 0): " 0: must be 1 or more"}),
    "nested": (Annotated[tuple[PositiveInt, ...], ONCE], ((), (2, 1)), {
        (2, 2): " 2 2: each only once", (2, 0): " 0: must be 1 or more"}),
    "two_bounds": (Annotated[PositiveInt, EVEN], (2,), {3: " 3: must be even", 0: " 0: must be 1 or more"}),
    "no_bound": (int, (-1,), {}),
    "words": (Literal["a", "b"], ("a",), {}),
}


def settings(**values):
    """Settings with a field for each kind, all of them allowed but for `values`."""
    made = make_dataclass("Settings", [(name, kind) for name, (kind, _, _) in KINDS.items()], frozen=True)
    return made(**{name: allowed[0] for name, (_, allowed, _) in KINDS.items()} | values)


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_bound_allows(kind):
    for value in KINDS[kind][1]:
        check_bounds(settings(**{kind: value}))


@pytest.mark.parametrize(
    ("kind", "value", "words"), [(kind, value, words) for kind, (_, _, bad) in KINDS.items() for value, words in bad.items()]
)
def test_what_a_bound_refuses_and_how(kind, value, words):
    with pytest.raises(InputError) as error:
        check_bounds(settings(**{kind: value}))
    assert str(error.value) == f"--{kind.replace('_', '-')}{words}"


@pytest.mark.parametrize("kind", [Temperature, tuple[Temperature, ...], Annotated[tuple[Temperature, ...], ONCE]])
def test_a_temperature_is_called_one_whatever_its_flag(kind):
    made = make_dataclass("Settings", [("temperature_sweep", kind)])
    for value in (0.01, 1, 1000.0):
        check_bounds(made(value if kind is Temperature else (value,)))
    for value in (0.0, 0.009, 1000.1, NAN, INFINITY):
        with pytest.raises(InputError) as error:
            check_bounds(made(value if kind is Temperature else (5.0, value)))
        assert str(error.value) == f"temperature {value}: must be from 0.01 to 1000"


def test_the_first_field_that_is_out_of_bounds_is_named():
    with pytest.raises(InputError, match=r"^--count -1: must be 0 or more$"):
        check_bounds(settings(count=-1, positive=0))


# Every number of every script


def numbers_in(hint):
    """Whether a type has numbers in it: int, float, a tuple of them, any of these annotated. A bool is none."""
    if get_origin(hint) is Literal:
        return False
    return hint in (int, float) or any(map(numbers_in, get_args(hint)))


def bounds_on(hint):
    """The bounds of a type by a walk of its own, innermost last."""
    inside = [bound for inner in get_args(hint) for bound in bounds_on(inner)]
    return [each for each in getattr(hint, "__metadata__", ()) if isinstance(each, Bound)] + inside


def unbounded(kind):
    """Names of the numeric fields of a dataclass whose numbers have no bound; one on a tuple as a whole is none of theirs."""
    hints = get_type_hints(kind, include_extras=True)
    assert hints.keys() == {field.name for field in fields(kind)}
    return [name for name, hint in hints.items() if numbers_in(hint) and all(bound.whole for bound in bounds_on(hint))]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_every_number_of_every_script_has_a_bound(script):
    assert unbounded(script.Settings) == []
    hints = get_type_hints(script.Settings, include_extras=True)
    assert sum(map(numbers_in, hints.values())) > 10  # the walk does find them
    for preset in script.PRESETS.values():
        check_bounds(preset)


def test_a_new_number_without_a_bound_would_be_found():
    @dataclass
    class New:
        epochs: int
        rate: float = 0.1
        depths: tuple[int, ...] = ()
        once: Annotated[tuple[float, ...], ONCE, NOT_EMPTY] = (1.0,)
        either: int | None = None
        good: PositiveInt = 1
        seeds: Seeds = (0,)
        nested: Annotated[tuple[Fraction, ...], ONCE] = ()
        download: bool = False
        words: Annotated[tuple[str, ...], ONCE] = ()
        choice: Literal[1, 2] = 1

    assert unbounded(New) == ["epochs", "rate", "depths", "once", "either"]


# The command that a report prints


NUMBERS = st.floats(1e-12, 1e20)
WORDS = st.text(max_size=9).filter(lambda words: not words.startswith("-"))


@given(NUMBERS, st.lists(NUMBERS, max_size=3), WORDS, st.integers(), st.booleans(), st.none() | st.integers(0, 9))
@example(1.23456789e-4, [1e16, 5.0], "it's 中文.0", -7, False, None)
def test_the_command_that_is_printed_gives_the_settings_again(rate, several, words, count, switch, perhaps):
    """Each number to its last digit: else the folder of the run would refuse the command that describes it."""
    @dataclass(frozen=True)
    class Settings:
        rate: float = 0.5
        several: tuple[float, ...] = (1.0, 2.5)
        words: str = "some"
        count: int = 3
        switch: bool = True
        perhaps: int | None = 4

    default = Settings()
    settings = replace(default, rate=rate, several=tuple(several), words=words, count=count, switch=switch, perhaps=perhaps)
    _, script, *flags = shlex.split(command_line("script", "demo", default, settings))
    assert script == "script.py" and tyro.cli(Settings, default=default, args=flags) == settings


@pytest.mark.parametrize(
    ("changed", "flags"),
    [
        ({"temperature": 4.0}, "--temperature 4"),
        ({"teacher_learning_rate": 2e-5}, "--teacher-learning-rate 2e-05"),
        ({"teacher_learning_rate": 1.23456789e-4}, "--teacher-learning-rate 0.000123456789"),
        ({"unlabelled_examples": None, "linear": False}, "--unlabelled-examples None --no-linear"),
    ],
)
def test_how_numbers_are_printed(changed, flags):
    demo = knowledge_distillation_bert.PRESETS["demo"]
    assert command_line("script", "demo", demo, replace(demo, **changed)) == f"python script.py {flags}"


# The last words

WORDS = "this start was killed or crashed; the same command resumes from its last backup\n"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("os.abort()", WORDS), ("os.kill(os.getpid(), 9)", WORDS), ("os.kill(os.getpid(), 11)", WORDS), ("pass", ""),
        ("sys.exit(3)", ""), ("raise InputError('no')", "error: no\n"), ("os.kill(os.getpid(), 2)", "\nstopped\n"),
    ],
)
def test_a_signal_that_ends_a_start_is_followed_by_what_to_do(code, said):
    """What ends by itself has said what there is to say."""
    block = f"with last_words(), errors_in_one_line('stopped'):\n    {code}"
    code = f"import os, sys\nfrom common import InputError\nfrom common.command import errors_in_one_line, last_words\n{block}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr == said and done.stdout == ""


def test_a_start_whose_error_output_is_closed():
    script = ROOT / "knowledge_distillation_from_scratch.py"
    done = subprocess.run(["sh", "-c", f"{sys.executable} {script} --data nowhere.npz 2>&-"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "error: --data nowhere.npz: there is no such file\n")  # where it can be read


def test_a_start_whose_output_is_closed_or_cannot_hold_a_name():
    """It is refused for its data, in one line, and not for where it writes."""
    script = ROOT / "knowledge_distillation_from_scratch.py"
    done = subprocess.run(["sh", "-c", f"{sys.executable} {script} --data 不存在 >&-"], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("error: --data 不存在") and done.stderr.count("\n") == 1
    code = ("import sys, tyro, common.command as command\nfrom dataclasses import dataclass\n"
            "@dataclass\nclass Settings:\n    batch_size: int = 1\n    strategy: str = 'none'\n"
            "command.start(lambda *_: print('小说'), {'demo': Settings()}, 'd')")
    ascii_alone = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, env=ascii_alone)
    assert (done.returncode, done.stdout) == (0, b"\\u5c0f\\u8bf4\n")
