"""Programs that are wrong or dishonest in one place, each kept as a patch of this one, and whether the tests notice.

    python -m tests.mutants [NAME …]      # those in tests/mutants/NAME.patch; all of them unless named

A patch begins with the tests that must fail, as pytest takes them, in one line; then says what it does; then comes the diff.
"""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from report.tables import aligned
from tests.starting import ROOT

FOLDER = Path(__file__).parent
PASSED, FAILED = 0, 1  # of pytest; other codes say that it could not run them


@dataclass(frozen=True)
class Mutant:
    name: str
    tests: list  # words for pytest
    does: str  # in one line
    diff: str


def read(path):
    """The Mutant in a file."""
    words, rest = path.read_text(encoding="utf-8").split("\n", 1)
    does, diff = rest.split("diff --git", 1)
    return Mutant(path.stem, shlex.split(words.lstrip("# ")), " ".join(does.replace("#", "").split()), f"diff --git{diff}")


def copy(tree, folder):
    """Copy the tracked files of a working tree, as they are now, into a folder that is not there yet."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=tree, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if (tree / name).is_file():  # else it has been deleted since
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(tree / name, folder / name)


def applies(diff, folder):
    """Change a copy by a diff; whether that was possible."""
    outside = os.environ | {"GIT_CEILING_DIRECTORIES": str(folder.parent)}  # in a repository git would pass over the files
    return not subprocess.run(["git", "apply"], input=diff, text=True, cwd=folder, env=outside, capture_output=True).returncode


def run_tests(folder, tests):
    """Run tests in a copy, up to the first that fails. Returns (pytest's code, what it printed)."""
    words = [sys.executable, "-m", "pytest", "-p", "no:xdist", "-p", "no:cacheprovider", "-o", "addopts=", "-x", "-q", *tests]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def outcome(tree, mutant):
    """What becomes of a mutant of a working tree: "caught", "survived", "does not apply" or "tests do not run"."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "copy"
        copy(tree, folder)
        if not applies(mutant.diff, folder):
            return "does not apply"
        return {PASSED: "survived", FAILED: "caught"}.get(run_tests(folder, mutant.tests)[0], "tests do not run")


def main(names, folder=FOLDER, tree=ROOT):
    """Try mutants, print a table. Returns the exit code: 1 unless all are caught.

    names: of mutants; all if empty
    folder: Path of their patches
    tree: Path of the working tree, a git checkout
    """
    mutants = [read(path) for path in sorted(folder.glob("*.patch")) if not names or path.stem in names]
    with tempfile.TemporaryDirectory() as temporary:
        copy(tree, Path(temporary) / "copy")
        words = list(dict.fromkeys(word for mutant in mutants for word in mutant.tests))
        code, said = run_tests(Path(temporary) / "copy", words)
    if code != PASSED:
        print(f"{said}\nThese tests must pass as long as nothing is changed.")
        return 1
    rows, uncaught = [["mutant", "outcome", "s"]], []
    for mutant in mutants:
        start, what = time.perf_counter(), outcome(tree, mutant)
        rows.append([f"{mutant.name}: {mutant.does}", what, f"{time.perf_counter() - start:.0f}"])
        print(*rows[-1], sep="  ", flush=True)
        if what != "caught":
            missing = "no test failed; one is missing" if what == "survived" else f"{what}; the patch must be made anew"
            uncaught.append(f"{mutant.name}: {missing}")
    print("", aligned(rows), *uncaught, sep="\n")
    return int(bool(uncaught))
