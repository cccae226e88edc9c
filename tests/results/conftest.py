"""What the tests of the pages read: small runs, and the pages that are built of them."""

import pytest

from results.pages import build
from results.stored import take_in
from tests.results.made import make_folders


@pytest.fixture
def folders(tmp_path):
    return make_folders(tmp_path)


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A folder with store/ and RESULTS.md, to read only."""
    folder = tmp_path_factory.mktemp("pages")
    take_in(make_folders(folder), folder / "store")
    (folder / "store" / "runs" / "posts-bert" / "notes.md").write_text("We tried T = 4.\n")
    (folder / "store" / "benchmarks").mkdir()
    (folder / "store" / "benchmarks" / "reading.txt").write_text(
        "$ python -m tests.benchmarks reading\nlines  s\n\na second\n\na third\n")
    (folder / "store" / "benchmarks" / "speed.txt").write_text(
        "$ python -m tests.benchmarks speed\nbenchmark       the plain way, s  this way, s  times as fast\n----\n"
        "two posts, wow             3.500        1.750            2.0\n\nmore\n")
    build(folder / "store", folder / "RESULTS.md")
    return folder


@pytest.fixture(scope="module")
def page(pages):
    return (pages / "RESULTS.md").read_text("utf-8")
