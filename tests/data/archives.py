"""Zip archives of made-up files, and lines as IFLYTEK has them to put into one."""

import io
import json
import stat
import zipfile

import numpy as np

LINES = "".join(
    json.dumps({"label": str(i % 3), "label_des": "类", "sentence": f"第{i}个 {bytes(words).hex()}"}, ensure_ascii=False) + "\n"
    for i, words in enumerate(np.random.default_rng(0).integers(0, 256, (600, 150), np.uint8))
)


def zipped(files, **kinds):
    """A zip of {path: text}; kinds: {path: mode} of what is no plain file."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, text in files.items():
            member = zipfile.ZipInfo(path)
            member.external_attr = kinds.get(path, stat.S_IFREG | 0o644) << 16
            member.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(member, text)
    return packed.getvalue()
