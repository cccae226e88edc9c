"""Imports run one way: a module of `data`, `common`, `report` or `export` only from those above it; nobody imports a script."""

import ast
import subprocess
import sys

import pytest

from tests.starting import ROOT

ORDER = (
    "common", "common.parsing", "common.files", "common.locking", "common.backend",
    "data", "data.sources", "data.downloading", "data.converting", "data.fetching", "data.parts", "data.rows", "data.texts",
    "data.tokenizing", "data.augmentation", "data.shuffling", "data.bucketing", "data.images", "data.soft_labels",
    "data.successors", "data.model_folders", "data.linear_models", "data.berts", "data.narrowing", "data.vocabulary",
    "data.bilstms", "data.teachers", "data.grounds", "data.cascades", "data.students", "data.__main__",
    "common.devices", "common.command", "common.batches", "common.bert", "common.bilstm", "common.distillation",
    "common.layer_distillation", "common.evaluation", "common.cost", "common.linear", "common.callbacks", "common.training",
    "common.soft_labels", "common.starting", "common.early_exit", "common.promise", "common.exit_curve", "common.runs",
    "report", "report.tables", "report.plots", "report.document", "report.exits", "report.temperatures",
    "export", "export.timing", "export.checks", "export.onnx_graph", "export.bilstm_graph", "export.onnx_int8",
    "export.exit_graph", "export.onnx_files", "export.costs", "export.deployed", "export.exits", "export.card",
    "export.student", "export.reporting", "export.predict", "export.cascade",
    "common.predict", "common.cascade",  # commands alone, which nothing imports
)
OURS = ("common", "data", "export", "report", "results", "tests")


def module_of(path):
    """The name of the module in a file of the repository."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def modules_in(folder):
    return {module_of(path): path for path in (ROOT / folder).rglob("*.py")}


def imported_by(path, known):
    """The modules of ours that the file imports anywhere, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in known else node.module for name in whole]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] in OURS or name.startswith("knowledge_distillation"))


def test_every_module_imports_only_from_those_above_it():
    known = {name: path for folder in ("common", "data", "report", "export") for name, path in modules_in(folder).items()}
    assert set(known) == set(ORDER), "a module is not in ORDER, or is no longer there"
    for name, path in known.items():
        for other in imported_by(path, known):
            assert other in ORDER and ORDER.index(other) < ORDER.index(name), f"{name} imports {other}"


def test_a_way_back_would_be_found(tmp_path):
    path = tmp_path / "files.py"
    path.write_text("def late():\n    from report import tables\n    import data.texts\n")
    assert [*imported_by(path, ORDER)] == ["report.tables", "data.texts"]


@pytest.mark.parametrize("words", [["list"], ["path", "digits"]])
def test_data_answers_without_tensorflow(words):
    code = f"import runpy, sys; sys.argv = ['data', *{words}]; runpy.run_module('data', run_name='__main__')"
    check = "import atexit, sys; atexit.register(lambda: print('tensorflow' in sys.modules, file=sys.stderr)); "
    done = subprocess.run([sys.executable, "-c", check + code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0 and done.stderr == "False\n"
