"""Files of texts as rows {field: value}: JSON lines, tables and Orange's .tab, plain or packed, and the texts of a row.

What a row lacks or a file breaks ends in an `InputError` that names file and line.
"""

import csv
import gzip
import itertools
import json
import re
import shlex
import sys
import zlib

from common import InputError

TEXT_COLUMNS = (("sentence1", "sentence2"), ("text", "text_pair"), ("sentence",), ("text",))  # a pair of texts, or one
HALVES = {"sentence1": "sentence2", "sentence2": "sentence1", "text_pair": "text"}  # fields that only a pair has, and the other
DESCRIPTION_COLUMNS = ("label_des", "label_desc")  # what the class means; IFLYTEK has the first, TNEWS the second
COLUMNS = {"label", *DESCRIPTION_COLUMNS, *itertools.chain(*TEXT_COLUMNS)}  # all that is read of a table
DELIMITERS = {".tsv": "\t", ".csv": ","}
SUFFIXES = (".jsonl", ".json", ".ndjson", *DELIMITERS)
STRAY = "tabs and line breaks within quotes; if they part rows, the quotes are to be doubled"
UNPACKED = 100  # times its own size that a .gz may unpack to
SURROGATE = re.compile("[\ud800-\udfff]")  # which JSON can escape, but UTF-8 cannot hold


def suffix_of(path):
    """What a file's name says of its content, packed or not, in small letters."""
    return (path.with_suffix("") if _is_packed(path) else path).suffix.lower()


def _is_packed(path):
    return path.suffix.lower() == ".gz"


def rows_of(path):
    """(number of the line, {field: value}) of a file, in the format that its name tells; JSON lines unless it tells another."""
    readers = {".tab": _orange_rows} | dict.fromkeys(DELIMITERS, _table_rows)
    return readers.get(suffix_of(path), json_rows)(path)


def stray_quotes(path):
    """Whether the texts of a row, a list, look like rows from one stray quote to the next: a function of them, for one file."""
    tabs_part = DELIMITERS.get(suffix_of(path)) == "\t"
    return lambda texts: tabs_part and any("\t" in text and "\n" in text for text in texts)


def texts_of(row, where):
    """The texts of a row {field: value}, a list of one or, of a pair, two. where: the row is, for errors."""
    columns = next((columns for columns in TEXT_COLUMNS if columns[0] in row and columns[-1] in row), ())
    if len(columns) < 2 and (halves := HALVES.keys() & row.keys()):
        half = min(halves)
        raise InputError(f"{where}: {half!r} without {HALVES[half]!r}; expected both texts of a pair")
    if not columns:
        raise InputError(f"{where}: no text; expected a field 'sentence' or 'text', or 'sentence1' and 'sentence2'")
    for column in columns:
        if not isinstance(row[column], str):
            raise InputError(f"{where}: {column!r} must be a string, found {kind_of(row[column])}")
        check_characters(column, row[column], where)
    return [row[column] for column in columns]


def as_text(parts):
    """What `texts_of` gives as a corpus holds it: a string, or of a pair a tuple."""
    return tuple(parts) if len(parts) > 1 else parts[0]


def check_characters(name, value, where):
    if SURROGATE.search(value):
        raise InputError(f"{where}: {name!r} holds half of a surrogate pair, which is no character")


def kind_of(value):
    """What a JSON value is, in words."""
    kinds = {bool: "true or false", int: "a number", float: "a fraction", list: "a list", dict: "an object"}
    return kinds.get(type(value), "null")


def lines_of(path):
    """(number, line) of a text file, from 1, decoded from UTF-8 with or without its mark, ends of lines kept.

    A file whose name ends in .gz is unpacked on the way, up to UNPACKED times its size.
    """
    packed = _is_packed(path)
    try:
        with (gzip.open if packed else open)(path, "rb") as file:
            yield from decoded(file, path, UNPACKED * path.stat().st_size if packed else sys.maxsize - 1)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None


def decoded(file, path, left=sys.maxsize - 1):
    """(number, line) of an open binary file, as `lines_of` gives them. path: what it is called. left: bytes it may have."""
    number = 0
    try:
        while line := file.readline(left + 1):
            number += 1
            left -= len(line)
            if left < 0:
                raise InputError(f"{path}, line {number}: over {UNPACKED} times as large as packed; unpack it yourself")
            if number == 1 and not line.endswith(b"\n") and b"\r" in line.rstrip():
                raise InputError(f"{path}, line 1: old Macintosh line ends, CR alone; save it with LF or CR LF")
            try:
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise InputError(f"{path}, line {number}: not UTF-8; {_conversion(path, line, error.start)}") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}, line {number + 1}: damaged gzip ({error})") from None


def _conversion(path, line, start):
    """What to do with a file that has this line, which is not UTF-8 from byte `start` on."""
    if line.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "UTF-16"
    elif _is_gb18030(line):
        encoding = "GB18030"
    else:
        return f"byte {start + 1} of the line is {line[start]:#04x}; save the file as UTF-8"
    command = f"iconv -f {encoding} -t UTF-8"
    if path.is_file():
        name = shlex.quote(str(path))
        command = f"gunzip -c {name} | {command}" if _is_packed(path) else f"{command} {name}"
        command += f" > utf8{suffix_of(path)}"
    return f"it looks like {encoding}; save it as UTF-8, or: {command}"


def _is_gb18030(line):
    """Whether bytes are GB18030 (GBK, GB2312): almost all that is not ASCII is its punctuation or its common characters."""
    try:
        foreign = [sign.encode("gb18030") for sign in line.decode("gb18030") if ord(sign) > 127]
    except UnicodeError:
        return False
    common = [b for b in foreign if len(b) == 2 and b[1] > 0xA0 and (0xA1 <= b[0] <= 0xA3 or 0xB0 <= b[0] <= 0xD7)]
    return len(common) > 0.8 * len(foreign)  # which accents in Latin-1, taken for pairs with the letters after them, are not


def json_rows(path):
    """(number, object) of a file of JSON lines."""
    for line, row in lines_of(path):
        if row.strip():
            try:
                row = json.loads(row)
            except (ValueError, RecursionError) as error:
                raise InputError(f"{path}, line {line}: broken JSON ({error}); expected one object a line") from None
            if not isinstance(row, dict):
                raise InputError(f"{path}, line {line}: expected a JSON object like {{'text': …, 'label': …}} a line")
            yield line, row


def _table_rows(path):
    csv.field_size_limit(2**31 - 1)
    reader = csv.reader((text for _, text in lines_of(path)), delimiter=DELIMITERS[suffix_of(path)], strict=True)
    header = None
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise InputError(f"{path}, line {line}: {error}; quotes inside a quoted field are doubled") from None
        if header is None:
            header = [name.strip() for name in row]
            if not any(columns[0] in header and columns[-1] in header for columns in TEXT_COLUMNS):
                raise InputError(f"{path}, line {line}: the header {str(header[:9])[:99]} has no column 'text' or 'sentence', "
                                 "nor both 'sentence1' and 'sentence2'")
            if twice := sorted(name for name in COLUMNS if header.count(name) > 1):
                raise InputError(f"{path}, line {line}: {header.count(twice[0])} columns {twice[0]!r}; expected one")
        elif len(row) == len(header):
            yield line, dict(zip(header, row, strict=True))
        elif row:
            raise InputError(f"{path}, line {line}: {len(row)} columns, the header has {len(header)}")


def _orange_rows(path):
    """Orange's .tab, as the bundled data sets come: three header lines (names, types, roles), then label and text."""
    for line, row in itertools.islice(lines_of(path), 3, None):
        if row := row.rstrip("\n"):
            label, text = row.split("\t")
            yield line, {"label": label, "text": text}
