"""data.tokenizing: the tokens of texts and of pairs of texts."""

import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from bert4keras.tokenizers import Tokenizer
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, models, pre_tokenizers, processors
from tokenizers import Tokenizer as FastTokenizer
from tokenizers.implementations import BertWordPieceTokenizer

from common import InputError
from data import berts
from data.tokenizing import check_pairs, mask_token, slices, tokenize
from tests import tiny
from tests.starting import ROOT

# Single texts


@pytest.fixture(scope="module")
def tokenizer(bert_folder):
    return berts.load(str(bert_folder)).tokenizer


def tokenized(lines, tokenizer, maxlen, pad_id=0):
    """The token ids of each text, from the flat arrays that `tokenize` makes of them all."""
    ids, offsets, segments = tokenize(lines, tokenizer, maxlen, pad_id)
    assert segments is None and ids.dtype == np.int32 and offsets[0] == 0 and offsets[-1] == len(ids)
    return [ids[begin:end].tolist() for begin, end in pairwise(offsets)]


def test_tokens_are_those_of_bert4keras(bert_folder, tokenizer):
    reference = Tokenizer(str(bert_folder / "vocab.txt"), do_lower_case=True)
    made = [text for text, _ in tiny.texts(50)] + ["W1 w2, unknown w3!", "中文 w4", ""]
    assert tokenized(made, tokenizer, maxlen=12) == [reference.encode(text, maxlen=12)[0] for text in made]


def test_long_texts_give_the_tokens_of_the_whole_text(tokenizer):
    """Only the beginning of a long text is tokenized, unless its words vanish, as control characters do."""
    made = [" ".join(text for text, _ in tiny.texts(20)), "\x07 " * 30 + "w1 w2", "中文" * 40, "w1, " * 40, " \n w3" * 40]
    found = tokenized(made, tokenizer, maxlen=12)
    assert found == [tokenizer.encode(text).ids for text in made]
    assert tokenizer.encode(made[1]).ids == [2, 6, 7, 3]


@pytest.mark.parametrize("pairs", [False, True])
def test_a_tokenizer_that_breaks_down_over_a_text_ends_in_one_line(pairs):
    """It has no token for what it does not know, which no other text had."""
    tokenizer = FastTokenizer(models.WordPiece({"[CLS]": 0, "[SEP]": 1, "a": 2, "b": 3}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 1), ("[CLS]", 0))
    made = [("a", "b"), ("b", "qqq")] if pairs else ["a", "b qqq"]
    tokenize(made[:1], tokenizer, 8)
    with pytest.raises(InputError, match="the tokenizer breaks down over a text .*WordPiece error") as error:
        tokenize(made, tokenizer, 8)
    assert "\n" not in str(error.value)


MEMORY = """
import resource, sys
from tokenizers import Tokenizer
from data.tokenizing import tokenize

def most():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

length, tokenizer = 4_000_000, Tokenizer.from_file(sys.argv[1])
texts = ["中" * length, "a" * length, "w1 " * (length // 3), "\\x07 " * (length // 2) + "w1", "a" + "\\u0301" * length]
couples = [(text, "w1") for text in texts]
before = most()
tokenize(texts, tokenizer, 64), tokenize(couples, tokenizer, 64), tokenize(["中" * 50_000] * 40, tokenizer, 64)
print(most() - before)
"""


def test_memory_does_not_grow_with_the_text(tokenizer, tmp_path):
    """Of four million characters without a space the tokenizer itself makes 700 MB."""
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    words = [sys.executable, "-c", MEMORY, str(tmp_path / "tokenizer.json")]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0 and int(done.stdout) < 300e6, done


@given(st.lists(st.integers(0, 9)), st.integers(1, 5), st.integers(1, 20))
def test_slices_are_all_texts_in_their_order(lengths, count, characters):
    texts = [(i % 2 * "x" + "y" * length, "z" * (length % 3)) if i % 3 else "y" * length for i, length in enumerate(lengths)]
    made = [*slices(iter(texts), count, characters)]
    assert [text for some in made for text in some] == texts
    for some, following in pairwise([*made, [""]]):
        sizes = [len("".join(text)) for text in some]
        assert 0 < len(some) <= count and sum(sizes[:-1]) < characters and following
    for some in made[:-1]:
        assert len(some) == count or len("".join(map("".join, some))) >= characters


def test_what_comes_before_an_error_is_in_a_slice():
    def texts():
        yield from "abc"
        raise InputError("line 4")

    made = slices(texts(), 2)
    assert next(made) == ["a", "b"] and next(made) == ["c"]
    with pytest.raises(InputError, match="line 4"):
        next(made)


def test_another_padding_id_changes_places_with_0(tmp_path):
    words = ["w0", "[PAD]", "[UNK]", "[CLS]", "[SEP]", "w1"]
    tokenizer = BertWordPieceTokenizer({word: i for i, word in enumerate(words)})._tokenizer
    assert tokenize(["w0 w1", "[PAD]"], tokenizer, maxlen=8, pad_id=1)[0].tolist() == [3, 1, 5, 4, 3, 0, 4]


def test_a_mask_in_a_text_is_one_token(tokenizer):
    assert mask_token(tokenizer) == "[MASK]"
    ids = tokenized(["w1 [MASK] w2[MASK]"], tokenizer, maxlen=12)[0]
    assert ids == [2, tokenizer.token_to_id("w1"), 4, tokenizer.token_to_id("w2"), 4, 3]


def test_which_mask_a_tokenizer_has():
    pieces = [("<unk>", 0.0), ("▁", -1.0), ("a", -2.0), ("[MASK]", -3.0)]
    unigram = FastTokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=False))
    unigram.pre_tokenizer = pre_tokenizers.Metaspace()
    assert mask_token(unigram) == ""  # a piece that is read after others is no token by itself
    unigram.add_special_tokens([AddedToken("<mask>", lstrip=True)])
    assert mask_token(unigram) == "<mask>"
    assert unigram.encode("a <mask> a<mask>").ids.count(unigram.token_to_id("<mask>")) == 2
    words = BertWordPieceTokenizer({word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "mask"])})
    assert mask_token(words._tokenizer) == ""


# Pairs


def encoded(couples, tokenizer, maxlen, pad_id=0):
    """[(token ids, segment ids)] from the flat arrays that `tokenize` makes of all pairs."""
    ids, offsets, first = tokenize(couples, tokenizer, maxlen, pad_id)
    assert ids.dtype == first.dtype == np.int32 and len(first) == len(couples)
    return [(ids[begin:end].tolist(), [int(place >= length) for place in range(end - begin)])
            for (begin, end), length in zip(pairwise(offsets), first, strict=True)]


def with_template(tokenizer, *template):
    other = FastTokenizer.from_str(tokenizer.to_str())
    tokens = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    other.post_processor = processors.TemplateProcessing(*template, special_tokens=tokens)
    return other


@given(st.integers(1, 40), st.integers(1, 40), st.integers(5, 30))
def test_the_longer_text_of_a_pair_is_cut_first(tokenizer, first, second, maxlen):
    """Token by token off the longer one; of two equal ones off that which was the longer one, or else off the first."""
    kept = [first, second]
    while sum(kept) > maxlen - 3:
        longer = int(kept[1] > kept[0]) if kept[0] != kept[1] else int(first > second)
        kept[longer] -= 1
    a, b = (" ".join(words) for words in (tiny.WORDS[:first], tiny.WORDS[50 : 50 + second]))
    ((ids, segments),) = encoded([(a, b)], tokenizer, maxlen)
    assert ids == [2, *range(5, 5 + kept[0]), 3, *range(55, 55 + kept[1]), 3] and len(ids) <= maxlen  # 2: [CLS], 3: [SEP]
    assert segments == [0] * (kept[0] + 2) + [1] * (kept[1] + 1)
    theirs = FastTokenizer.from_str(tokenizer.to_str())
    theirs.enable_truncation(maxlen, strategy="longest_first")
    assert (ids, segments) == (theirs.encode(a, b).ids, theirs.encode(a, b).type_ids)


def test_any_pair_has_the_tokens_of_the_library(tokenizer):
    made = [text for text, _ in tiny.texts(40)] + ["W1 w2, unknown w3!", "中文 w4", "w1 [SEP] w2", "\x07", "w1 " * 300]
    couples = [(a, b) for a in made[::3] for b in made[::2]]
    theirs = FastTokenizer.from_str(tokenizer.to_str())
    for maxlen in (5, 12, 13):
        found = encoded(couples, tokenizer, maxlen)
        theirs.enable_truncation(maxlen)
        assert found == [(each.ids, each.type_ids) for each in theirs.encode_batch(couples)]


def test_single_texts_are_cut_as_ever_after_pairs(tokenizer):
    expected = tokenized(["w1 w2 w3 w4", "w5"], tokenizer, 5)
    encoded([("w1", "w2")], tokenizer, 6)
    assert tokenized(["w1 w2 w3 w4", "w5"], tokenizer, 5) == expected == [[2, 6, 7, 8, 3], [2, 10, 3]]


def test_segments_are_those_of_the_tokenizer(tokenizer):
    other = with_template(tokenizer, "[CLS] $A [SEP]", "[CLS] $A [SEP] [SEP] $B [SEP]")
    expected = [2, 6, 3, 3, 7, 8, 3]
    assert encoded([("w1", "w2 w3")], other, 8) == [(expected, [0] * 7)]
    check_pairs(bert_with(other, type_vocab_size=1), 6)
    other = with_template(tokenizer, "[CLS] $A [SEP]", "[CLS] $A:1 [SEP]:1 $B:1 [SEP]:1")
    assert encoded([("w1", "w2 w3")], other, 8) == [([2, 6, 3, 7, 8, 3], [0, 1, 1, 1, 1, 1])]  # nor need they part the two


def test_pairs_with_another_padding_id():
    words = ["w0", "[PAD]", "[UNK]", "[CLS]", "[SEP]", "w1"]
    tokenizer = BertWordPieceTokenizer({word: i for i, word in enumerate(words)})._tokenizer
    assert encoded([("w0 w1", "w0")], tokenizer, 8, pad_id=1) == [([3, 1, 5, 4, 1, 4], [0, 0, 0, 0, 1, 1])]


def bert_with(tokenizer, **config):
    return berts.Bert(config, {}, tokenizer, 0, "my-bert")


@pytest.mark.parametrize(
    ("template", "config", "maxlen", "message"),
    [
        (["[CLS] $A [SEP]"], {}, 16, "my-bert: its tokenizer has no template for pairs of texts, as [CLS] a [SEP] b [SEP]"),
        (["[CLS] $A [SEP]", "[CLS] $A $B:1 [SEP]:1"], {}, 16, "no template for pairs"),
        (["[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]"], {}, 16, "the segments [0, 0, 0, 1, 0], its model has 2; "),
        (["[CLS] $A [SEP]", "[CLS] $A [SEP] $B:2 [SEP]:2"], {"type_vocab_size": 3}, 16, "segments [0, 0, 0, 2, 2], its model"),
        (["[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1"], {"type_vocab_size": 1}, 16, "its model has 1; expected 0 and then"),
        (["[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1"], {}, 4, "--maxlen 4: a pair of texts has 3 special"),
    ],
)
def test_tokenizers_that_cannot_join_pairs(tokenizer, template, config, maxlen, message):
    check_pairs(bert_with(tokenizer), 5)
    with pytest.raises(InputError) as error:
        check_pairs(bert_with(with_template(tokenizer, *template), **config), maxlen)
    assert message in str(error.value) and "\n" not in str(error.value)
