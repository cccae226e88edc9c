"""What the documents, docstrings, comments and error messages name exists: paths, flags, commands, functions."""

import ast
import dataclasses
import importlib
import inspect
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import tyro

import results.__main__ as results_command
from common import command
from data import __main__ as data_command
from data.sources import SOURCES
from export import cascade
from export.predict import predict
from tests.starting import ROOT

SCRIPTS = [importlib.import_module(path.stem) for path in sorted(ROOT.glob("knowledge_distillation_*.py"))]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("results/runs/*/*.md"), *ROOT.glob("results/*.md")])
PACKAGES = ("common", "data", "export", "report", "results", "tests")
CODE = [*ROOT.glob("*.py"), *(path for name in PACKAGES for path in (ROOT / name).rglob("*.py"))]
FOREIGN = {"--no-deps", "--help"}  # flags of pip, of every command
FUNCTIONS = (predict, cascade.build, data_command.fetch, results_command.main)
TOP = ("common", "data", "docs", "export", "report", "results", "tests")  # folders of the repository
ABSENT = re.compile(r"NAME|^data/(iflytek|cifar10)\b")  # placeholders, and what only a download brings


def flags():
    """Every flag of every command of ours."""
    known = {field.name for script in SCRIPTS for field in dataclasses.fields(script.Settings)}
    known |= {name for function in FUNCTIONS for name in inspect.signature(function).parameters} | {"from"}
    measuring = "".join(path.read_text(encoding="utf-8") for path in CODE if path.parts[len(ROOT.parts)] == "tests")
    return {f"--{name.replace('_', '-')}" for name in known} | {*re.findall(r'add_argument\("(--[a-z-]+)"', measuring)}


def strings(path):
    """The string literals of a Python file, docstrings and the constant parts of f-strings included, and its comments."""
    source = path.read_text(encoding="utf-8")
    constants = (node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant))
    return [value for value in constants if isinstance(value, str)] + re.findall(r"#\s(.*)", source)


def texts():
    """{what a reader sees: where it stands}; not of the tests, which name what is wrong on purpose."""
    seen = {path.read_text(encoding="utf-8"): path for path in DOCUMENTS}
    return seen | {text: path for path in CODE if path.parts[len(ROOT.parts)] != "tests" for text in strings(path)}


TEXTS = texts()


def named(pattern):
    """[(what matches, where)] in all texts."""
    return [(match, path) for text, path in TEXTS.items() for match in re.findall(pattern, text)]


def missing_flags(pairs):
    known = flags() | FOREIGN
    return sorted({f"{path}: {flag}" for flag, path in pairs if flag not in known})


def test_flags():
    pairs = named(r"(?<![\w-])--(?!flag|no$|no-(?!deps|mix))[a-z][a-z0-9]*(?:-[a-z0-9]+)*(?![\w-]*\{)")
    assert len(pairs) > 300
    assert missing_flags(pairs) == []
    assert missing_flags([("--no-such-flag", "README.md")]) == ["README.md: --no-such-flag"]


def missing_paths(pairs):
    """Those (path, document) that lead nowhere, seen from the document (links) or from the root."""
    def there(name, path):
        return any((base / name).exists() for base in (ROOT, path.parent))

    wrong = {(name, path) for name, path in pairs if not ABSENT.search(name) and not there(name, path)}
    return sorted(f"{path.relative_to(ROOT)}: {name}" for name, path in wrong)


def test_links():
    prose = {path: re.sub(r"^```[\s\S]*?^```$", "", path.read_text("utf-8"), flags=re.MULTILINE) for path in DOCUMENTS}
    links = [(link, path) for path, text in prose.items() for link in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", text)]
    assert len(links) > 60
    assert missing_paths(links) == []
    assert missing_paths([("docs/nothing.md", ROOT / "README.md")]) == ["README.md: docs/nothing.md"]


def test_anchors():
    for path in DOCUMENTS:
        for name, anchor in re.findall(r"\]\(([^)#:\s]*)#([^)]+)\)", path.read_text("utf-8")):
            target = (path.parent / name) if name else path
            headings = re.findall(r"^#+ (.+)$", target.read_text("utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in slugs, f"{path}: {name}#{anchor}"


def test_paths():
    """Paths that start with a folder of the repository, and files in its root, wherever they are named."""
    pairs = named(rf"(?<![\w./-])((?:{'|'.join(TOP)})/[\w./-]*\w)(?![\w(*{{])")
    pairs += named(r"(?<![\w./*-])((?:knowledge_distillation_\w+\.py|[A-Z]{4,}(?:\.zh-CN)?\.md|Makefile|pyproject\.toml))\b")
    assert len(pairs) > 100
    assert missing_paths(pairs) == []


def commands():
    """[(words after `python`, where)] of the lines that are commands."""
    found = []
    for text, path in TEXTS.items():
        joined = text.replace("\\\n", " ")
        for line in re.findall(r"^ {4}(?:[A-Z_]+=\S+ |cat \S+ \| )*(?:\.venv/bin/)?python3? (.+)$", joined, re.MULTILINE):
            found.append((shlex.split(line, comments=True), path))
    return found


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_commands_of_the_scripts_are_taken(script):
    """Parsed and held against the bounds as a start would, and the experiments against those that there are."""
    own = [words[1:] for words, _ in commands() if words[0] == f"{script.__name__}.py"]
    assert len(own) > 4
    for words in own:
        words = words[: words.index(">")] if ">" in words else words
        preset = words[0] if words and not words[0].startswith("-") else "demo"
        rest = words[preset in words :]
        if rest == ["--help"]:
            continue
        settings = tyro.cli(script.Settings, default=script.PRESETS[preset], args=rest, prog=" ".join(words))
        command.check_bounds(settings)
        script.check(settings)


def test_other_commands_exist():
    for words, path in commands():
        if words[0] == "-m" and words[1] not in ("venv", "pip", "pytest"):
            module = words[1].replace(".", "/")
            assert (ROOT / module).is_dir() or (ROOT / f"{module}.py").is_file(), (words, path)
        if words[:2] == ["-m", "data"] and len(words) > 2:
            assert words[2] in ("list", "fetch", "path")
            names = [word for word in words[3:] if "/" not in word and not word.startswith("-")]
            assert set(names) <= {*SOURCES, "NAME", "…"}, (words, path)
        if words[0].endswith(".py"):
            assert (ROOT / words[0]).is_file(), (words, path)


def test_make_targets_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    named_targets = {(match, path) for match, path in named(r"(?m)(?:^ {4}|`)make ([a-z]+)\b(?! is|s\b)") if match != "and"}
    assert {match for match, _ in named_targets} >= {"demo", "test", "quick", "results", "lock"}
    assert {match for match, _ in named_targets} <= targets


def test_functions_that_docstrings_name():
    """`module.name` of ours, and names with an underscore or a call, are in the code."""
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in CODE}
    short = {name.rpartition(".")[2]: name for name in modules if not name.startswith("tests")}
    identifiers = set()
    for path in CODE:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            identifiers |= {getattr(node, key, None) for key in ("name", "id", "attr", "arg")}
    keys = {value for path in CODE for value in strings(path) if value.isidentifier()}
    for name, path in named(r"`([A-Za-z_][\w.]*)`"):
        if path.suffix != ".py" or name.endswith((".py", ".md", ".json", ".npz", ".weights", ".h5", ".tab", ".gz")):
            continue
        head, _, last = name.rpartition(".")
        if head and (head in modules or head in short):
            whole = head if head in modules else short[head]
            assert f"{whole}.{last}" in modules or hasattr(importlib.import_module(whole), last), f"{path}: `{name}`"
        elif not head and "_" in name.strip("_"):
            assert name in identifiers | keys | set(modules), f"{path}: `{name}`"


def test_readmes_are_short_and_in_step():
    for name in ("README", "docs/methods", "docs/data", "docs/running", "docs/student", "docs/differences"):
        english, chinese = ((ROOT / f"{name}{suffix}.md").read_text("utf-8") for suffix in ("", ".zh-CN"))
        for pattern in (r"^#+ ", r"^ {4}\S.*$", r"^```[\s\S]*?^```$"):  # headings, commands, blocks of output
            one, other = re.findall(pattern, english, re.MULTILINE), re.findall(pattern, chinese, re.MULTILINE)
            one, other = ([line.partition("  #")[0].rstrip() for line in lines] for lines in (one, other))
            assert one == other, f"{name}: {set(one) ^ set(other)}"
    for name in ("README.md", "README.zh-CN.md"):
        assert Path(ROOT, name).stat().st_size <= 12_000


def test_figures_of_the_readmes_are_those_of_stored_runs():
    """A difference with its interval, rounded, stands in RESULTS.md or on a page of a run, either way round."""
    number = r"([-+]?\d+\.\d+)"
    pages = [ROOT / "RESULTS.md", *ROOT.glob("results/*.md"), *ROOT.glob("results/runs/*/*.md")]
    stored = "\n".join(page.read_text("utf-8") for page in pages)
    stored = np.array(re.findall(rf"{number}[ |(]+{number} to {number}", stored), float)
    stored, both = np.concatenate([stored, -stored[:, [0, 2, 1]]]), []
    for name, to in (("README.md", "to"), ("README.zh-CN.md", "到")):
        text = (ROOT / name).read_text("utf-8").translate(str.maketrans("（），", "(),"))
        told = re.findall(rf"{number}[^|\d,;:]*\({number} {to} {number}|\({number}, ?{number} {to} {number}", text)
        both.append([tuple(map(float, filter(None, figures))) for figures in told])
        assert len(told) == len(re.findall(rf"[(,] ?{number} {to} {number}[,;)]", text)) > 0
    assert both[0] == both[1]
    for figures in both[0]:
        assert np.abs(stored - figures).max(axis=1).min() < 0.051, f"{figures} stands nowhere"
