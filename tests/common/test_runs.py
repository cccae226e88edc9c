"""common.runs: the folder of a run, opened again by the same settings and by no others."""

import json
import os

import pytest

from common import InputError
from common.runs import open_folder


def test_the_same_settings_resume_and_others_are_refused(tmp_path):
    folder = tmp_path / "run"
    open_folder(folder, {"temperature": 3.0, "seeds": [0]}, {"data": "abc"})
    open_folder(folder, {"temperature": 3.0, "seeds": [0, 1]}, {"data": "abc"})
    assert json.loads((folder / "settings.json").read_text())["settings"]["seeds"] == [0, 1]  # more of the same
    with pytest.raises(InputError, match="holds a run with another temperature"):
        open_folder(folder, {"temperature": 4.0, "seeds": [0]}, {"data": "abc"})
    with pytest.raises(InputError, match="holds a run with another data; give another folder with --output"):
        open_folder(folder, {"temperature": 3.0, "seeds": [0]}, {"data": "abd"})
    open_folder(folder, {"temperature": 3.0, "seeds": [0], "int8_disagreement": 5.0}, {"data": "abc"})  # of a later version
    (folder / "settings.json").write_text("{")
    with pytest.raises(InputError, match="not the settings of a run"):
        open_folder(folder, {}, {})


def test_files_of_another_seed_join_those_that_are_known(tmp_path):
    """And are held against them ever after."""
    folder = tmp_path / "run"
    open_folder(folder, {"seeds": [0]}, {"data": "abc", "successor of seed 0": "a"})
    open_folder(folder, {"seeds": [1]}, {"data": "abc", "successor of seed 1": "b"})
    inputs = {"data": "abc", "successor of seed 0": "a", "successor of seed 1": "b"}
    assert json.loads((folder / "settings.json").read_text())["inputs"] == inputs
    for seed in (0, 1):
        with pytest.raises(InputError, match=f"holds a run with another successor of seed {seed}"):
            open_folder(folder, {"seeds": [0, 1]}, inputs | {f"successor of seed {seed}": "c"})


def test_a_folder_that_is_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="is there already and is not a run"):
        open_folder(tmp_path, {}, {})
    assert os.listdir(tmp_path) == ["thesis.tex"]
