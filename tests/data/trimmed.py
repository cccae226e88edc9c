"""Small tokenizers, BERTs that are little more, and what holds of a trimmed one."""

import json

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from tokenizers.implementations import BertWordPieceTokenizer

from data import berts, vocabulary

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
ROUND = ["<s>", "<pad>", "</s>", "<unk>"]  # in the order of XLM-R


def bert_with(tokenizer, pad_id=0, rows=None, **config):
    """A BERT that is no more than a tokenizer and embeddings, of which each has its own number in it."""
    rows = rows or max(tokenizer.get_vocab().values()) + 1
    weights = {vocabulary.EMBEDDINGS: np.arange(rows, dtype=np.float32)[:, None], "other": np.ones(3, np.float32)}
    return berts.Bert({"vocab_size": rows, "hidden_size": 1} | config, weights, tokenizer, pad_id, "my-bert")


def word_piece(*tokens):
    return BertWordPieceTokenizer({token: i for i, token in enumerate(tokens)})._tokenizer


def unigram(pieces, special=ROUND, **settings):
    """A tokenizer as XLM-R has it, of [(token, score)]; the special tokens come first."""
    tokenizer = Tokenizer(models.Unigram([(token, 0.0) for token in special] + pieces, special.index("<unk>"), **settings))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(special)
    ends = [(token, special.index(token)) for token in ("<s>", "</s>")]
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A </s>", "<s> $A </s> </s> $B </s>", ends)
    return tokenizer


def tokens_of(bert):
    """Its tokens by id, each of which must be there."""
    return [bert.tokenizer.id_to_token(number) for number in range(bert.config["vocab_size"])]


def reader(bert):
    """text -> (tokens, {places in the text that it cannot read})."""
    model = json.loads(bert.tokenizer.to_str())["model"]
    unknown = model["unk_id"] if model["type"] == "Unigram" else model["vocab"][model["unk_token"]]

    def read(text):
        encoding = bert.tokenizer.encode(text)
        places = {place for number, (begin, end) in zip(encoding.ids, encoding.offsets, strict=True) if number == unknown
                  for place in range(begin, end)}
        return [bert.tokenizer.id_to_token(number) for number in encoding.ids], places

    return read


def check_trimmed(before, after):
    """No holes, the order of before, the rows and the special ids of before."""
    tokens, old = tokens_of(after), before.tokenizer.get_vocab()
    assert len(set(tokens)) == len(tokens) == len(after.tokenizer.get_vocab()) and None not in tokens
    assert [old[token] for token in tokens] == sorted(old[token] for token in tokens)
    rows = after.weights[vocabulary.EMBEDDINGS]
    np.testing.assert_array_equal(rows, before.weights[vocabulary.EMBEDDINGS][[old[token] for token in tokens]])
    assert rows.dtype == np.float32 and after.weights.keys() == before.weights.keys()
    assert all(after.weights[name] is before.weights[name] for name in before.weights if name != vocabulary.EMBEDDINGS)
    assert tokens[after.pad_id] == before.tokenizer.id_to_token(before.pad_id)
    assert vocabulary.original_ids(before, after).tolist() == [old[token] for token in tokens]
    described = json.loads(after.tokenizer.to_str())
    assert {entry["content"]: entry["id"] for entry in described["added_tokens"]}.items() <= after.tokenizer.get_vocab().items()
