"""Tokenizing with the tokenizers library against bert4keras's own Tokenizer, as the original scripts use it."""

from bert4keras.tokenizers import Tokenizer

import data as sources
from common import data, pretrained
from tests.benchmarks.timing import medians

TITLE = "tokenizing 2,000 posts"


def measure():
    """(bert4keras, tokenizers), seconds for 2,000 texts of 20newsgroups, cut to 64 tokens."""
    texts = data.load("20newsgroups").texts[:2000]
    plain = Tokenizer(str(sources.locate("minilm-l6", "--bert")["vocabulary"]), do_lower_case=True)
    ours = pretrained.load("minilm-l6").tokenizer
    return medians(
        lambda: [plain.encode(text, maxlen=64) for text in texts],
        lambda: data.encode(texts, ours, maxlen=64),
    )
