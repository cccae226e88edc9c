"""Files that are written whole or not at all."""

import json
import os
import tempfile

from common import InputError


def write_whole(path, write):
    """Create or replace `path` with what `write(file)` writes into an open binary file.

    Written beside it under a temporary name and moved into place, so that a run that dies leaves the old file or none.
    Raises InputError if the disk is full or the folder cannot be written to.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = file.name
            write(file)
        os.chmod(temporary, 0o666 & ~_umask())  # a temporary file is private, a result need not be
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from None
    finally:
        if temporary and os.path.exists(temporary):
            os.remove(temporary)


def write_text(path, text):
    """`write_whole` for text, as UTF-8."""
    write_whole(path, lambda file: file.write(text.encode()))


def write_json(path, value):
    """`write_whole` for JSON; NaN is refused, because other languages cannot read it."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask
