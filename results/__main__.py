"""python -m results [RUN …]: take finished runs in and build RESULTS.md and the pages of `results/` anew."""

from pathlib import Path

import tyro

from common import errors_in_one_line
from common.parsing import deferred, parse
from results.pages import build
from results.stored import take_in


def main(runs: tyro.conf.Positional[tuple[Path, ...]] = (), store: Path = Path("results"), output: Path = Path("RESULTS.md")):
    """Take the results of runs into a folder, and build RESULTS.md and a page for each of all that are there.

    Args:
        runs: folders of finished runs; a name that is there already is replaced
        store: the folder: results and notes of runs, what benchmarks printed
        output: the file to build; the pages it links to are written to the folder
    """
    take_in(runs, store)
    build(store, output)
    print(output)


if __name__ == "__main__":
    with errors_in_one_line("stopped"):
        parse(tyro.cli, deferred(main), prog="python -m results")()
