"""data.downloading: archives unpacked without trusting them, and digests of files; downloads are in test_fetching."""

import os

import pytest

from common import InputError
from data import downloading
from tests.data.archives import LINES, zipped


def test_any_byte_changed_in_a_small_archive(tmp_path):
    """It is unpacked as it should be, or refused in one line; zip holds no digest of some bytes, such as dates."""
    content, refusals = zipped({"train.json": LINES[:250], "dev.json": LINES[:150]}), 0
    for place in range(len(content)):
        (tmp_path / "a.zip").write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        try:
            downloading.unpack(tmp_path / "a.zip", tmp_path / str(place))
        except InputError as error:
            refusals += 1
            assert "\n" not in str(error)
    assert refusals > len(content) / 2
    assert all(name == "a.zip" or name.isdecimal() for name in os.listdir(tmp_path))


def test_sha256(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert downloading.sha256_of(tmp_path / "file") == known
    downloading.check_sha256(tmp_path / "file", known)
    with pytest.raises(InputError, match="sha256 is ba7816bf.* the file is damaged or not the published one"):
        downloading.check_sha256(tmp_path / "file", "0" * 64)
