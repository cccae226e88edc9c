"""python -m data list | fetch NAME … [--from FILE] | path NAME: the named data sets and models, by hand."""

from pathlib import Path
from typing import Annotated

import tyro

from common import InputError, errors_in_one_line
from common.parsing import deferred, parse
from data import fetching
from data.sources import SOURCES


def fetch(
    names: tyro.conf.Positional[tuple[str, ...]], /, copy: Annotated[str, tyro.conf.arg(name="from")] = ""
) -> None:
    """Download data sets or models.

    Args:
        names: which ones, as `list` shows them
        copy: a file that you have, a folder with all its files, or the address of a mirror, to take one of them from; they must
            be the published ones
    """
    if not names:
        raise InputError(f"fetch what? Some of {', '.join(name for name, source in SOURCES.items() if source.downloads)}")
    for name in map(_known, names):
        if fetching.is_here(name):
            print(f"{name} is here: {_folder(name)}")
        elif copy and len(names) > 1:
            raise InputError(f"--from {copy}: only one name at a time can be taken from it")
        else:
            fetching.fetch(name, copy if "://" in copy else Path(copy) if copy else None)


def list_() -> None:
    """Show what there is, whether it is here, how large it is, and where it comes from."""
    rows = [("name", "kind", "here", "size", "what", "from")]
    for name, source in SOURCES.items():
        here = fetching.is_here(name)
        if here and source.files:
            size = fetching.in_bytes(sum(file.stat().st_size for file in fetching.locate(name, "").values()))
        else:
            size = fetching.size_of(name)
        origin = f"package {source.package}" if source.package else source.downloads[-1].address
        rows.append((name, source.kind, "yes" if here else "no", size, source.what, origin))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    print("\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]]))


def path(name: tyro.conf.Positional[str], /) -> None:
    """Print the folder that a data set or model lies in.

    Args:
        name: which one, as `list` shows it
    """
    fetching.locate(_known(name), "--data" if SOURCES[name].kind != "bert" else "--bert")
    print(_folder(name))


def _known(name):
    if name not in SOURCES:
        raise InputError(f"{name}: none of {', '.join(SOURCES)}")
    return name


def _folder(name):
    files = fetching.locate(name, "").values()
    return next((file.parent for file in files), "inside scikit-learn")


if __name__ == "__main__":
    with errors_in_one_line("stopped; the same command resumes from what has come"):
        commands = {"list": deferred(list_), "fetch": deferred(fetch), "path": deferred(path)}
        parse(tyro.extras.subcommand_cli_from_dict, commands, prog="python -m data")()
