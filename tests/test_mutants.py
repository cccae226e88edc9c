"""tests.mutants on a project of one function: which mutants are caught, and what is said of the others."""

import shutil
import subprocess

import pytest

from tests import mutants
from tests.starting import ROOT

pytestmark = pytest.mark.skipif(not shutil.which("git"), reason="patches are applied by git, which is not here")

PATCH = """test_double.py::test_double
{does}

diff --git a/double.py b/double.py
--- a/double.py
+++ b/double.py
@@ -1,2 +1,2 @@
 def double(x):
-    return {old}
+    return {new}
"""


@pytest.fixture
def project(tmp_path):
    """(its working tree, a function that writes a patch of it into a folder, that folder)."""
    tree, folder = tmp_path / "tree", tmp_path / "patches"
    folder.mkdir()
    tree.mkdir()
    (tree / "double.py").write_text("def double(x):\n    return 2 * x\n")
    (tree / "test_double.py").write_text("from double import double\n\n\ndef test_double():\n    assert double(2) == 4\n")
    for words in (["init", "-q"], ["add", "."]):
        subprocess.run(["git", *words], cwd=tree, check=True)

    def write(name, new, old="2 * x", does="what it does"):
        (folder / f"{name}.patch").write_text(PATCH.format(new=new, old=old, does=does))

    return tree, write, folder


def test_what_becomes_of_mutants(project, capsys):
    tree, write, folder = project
    write("wrong", "3 * x", does="it is tripled")
    write("as-good", "x + x")
    write("gone", "4 * x", old="two * x")
    write("broken", "2 * * x")
    assert mutants.main([], folder, tree) == 1
    said = capsys.readouterr().out
    lines = [line.rsplit(maxsplit=1)[0] for line in said.split("\n\n")[1].splitlines()[2:6]]  # without the seconds
    assert [[*map(str.strip, line.split("  ", 1))] for line in lines] == [
        ["as-good: what it does", "survived"], ["broken: what it does", "tests do not run"],
        ["gone: what it does", "does not apply"], ["wrong: it is tripled", "caught"]]
    assert said.splitlines()[-3:] == [
        "as-good: no test failed; one is missing", "broken: tests do not run; the patch must be made anew",
        "gone: does not apply; the patch must be made anew"]
    assert (tree / "double.py").read_text("utf-8") == "def double(x):\n    return 2 * x\n"
    assert mutants.main(["wrong"], folder, tree) == 0


def test_what_is_tried_is_the_working_tree_whose_tests_pass(project, capsys):
    """Changes that are not committed count; a mutant of what fails by itself would be caught by nothing."""
    tree, write, folder = project
    write("wrong", "3 * x")
    (tree / "test_double.py").write_text("def test_double():\n    raise ValueError(\"by itself\")\n")
    assert mutants.main([], folder, tree) == 1
    said = capsys.readouterr().out
    assert "by itself" in said and "must pass as long as nothing is changed" in said and "outcome" not in said


@pytest.mark.parametrize("path", sorted(mutants.FOLDER.glob("*.patch")), ids=lambda path: path.stem)
def test_every_patch_applies_and_names_its_tests(path, tmp_path_factory):
    """What a mutant's patch changes has not changed since, and its tests are there."""
    mutant = mutants.read(path)
    changed = mutant.diff.split(" b/", 1)[1].split("\n", 1)[0]
    folder = tmp_path_factory.mktemp("copy")
    (folder / changed).parent.mkdir(parents=True, exist_ok=True)
    (folder / changed).write_text((ROOT / changed).read_text(encoding="utf-8"), encoding="utf-8")
    assert mutants.applies(mutant.diff, folder) and mutant.does
    for test in mutant.tests:
        file, _, name = test.partition("::")
        assert f"def {name.split('[')[0]}" in (ROOT / file).read_text(encoding="utf-8")
