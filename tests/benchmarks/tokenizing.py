"""Tokenizing with the tokenizers library against bert4keras's own Tokenizer, as the original scripts use it."""

from bert4keras.tokenizers import Tokenizer

from data import berts, fetching, texts
from data.tokenizing import tokenize
from tests.benchmarks.timing import medians

TITLE = "tokenizing 2,000 posts"


def measure():
    """(bert4keras, tokenizers), seconds for 2,000 texts of 20newsgroups, cut to 64 tokens."""
    posts = texts.load("20newsgroups").texts[:2000]
    plain = Tokenizer(str(fetching.locate("minilm-l6", "--bert")["vocabulary"]), do_lower_case=True)
    ours = berts.load("minilm-l6").tokenizer
    return medians(
        lambda: [plain.encode(post, maxlen=64) for post in posts],
        lambda: tokenize(posts, ours, maxlen=64),
    )
