"""data.vocabulary: which tokens a trimmed BERT keeps, that it reads texts with them as before, and that their rows are kept."""

import subprocess
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers.implementations import BertWordPieceTokenizer

from common import InputError
from common.bert import build_encoder
from data import berts, vocabulary
from data.tokenizing import tokenize
from tests import tiny
from tests.data.trimmed import ROUND, SPECIAL, bert_with, check_trimmed, reader, tokens_of, unigram, word_piece
from tests.starting import ROOT

# Texts are read as before


def check_reading(before, after, lines):
    kept, read_before, read_after = set(tokens_of(after)), reader(before), reader(after)
    for line in lines:
        (old, old_unknown), (new, new_unknown) = read_before(line), read_after(line)
        assert new_unknown <= old_unknown
        if kept.issuperset(old):
            assert new == old


lines = st.lists(st.text("abcdz中文国! ", max_size=12), max_size=6)
words = st.text("abc中", min_size=2, max_size=4)


@given(st.data(), st.sets(words), st.sets(words), lines, lines, st.integers(1, 60))
def test_word_piece_reads_as_before(data, beginnings, continuations, train, test, size):
    """Whatever the vocabulary, as long as each character that it has is there by itself; z, 文 and 国 are in none."""
    pieces = sorted({"!", *"abc中", *beginnings} | {f"##{piece}" for piece in {*"abc中", *continuations}})
    before = bert_with(word_piece(*data.draw(st.permutations(SPECIAL + pieces))))
    after = vocabulary.trim(before, train, size)
    check_trimmed(before, after)
    check_reading(before, after, train + test)
    assert {*SPECIAL, *"abc中!", "##a", "##b", "##c"} <= set(tokens_of(after))


@given(st.dictionaries(st.one_of(words, words.map("▁{}".format)), st.floats(-20, -1)), st.lists(st.floats(-20, -1), min_size=6),
       lines, lines, st.integers(1, 60))
def test_unigram_reads_as_before(pieces, scores, train, test, size):
    singles = dict(zip(["▁", *"abc中", "▁a"], scores, strict=False))
    before = bert_with(unigram([*(pieces | singles).items()]), pad_id=1)
    after = vocabulary.trim(before, train, size)
    check_trimmed(before, after)
    check_reading(before, after, train + test)
    assert {*ROUND, *singles} <= set(tokens_of(after))


def test_a_trained_unigram_reads_as_before():
    code = [(ROOT / "data" / name).read_text(encoding="utf-8") for name in ("vocabulary.py", "tokenizing.py", "texts.py")]
    sentences = [line.strip() for text in code for line in text.splitlines() if line.strip()]
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.train_from_iterator(sentences, trainers.UnigramTrainer(
        vocab_size=900, special_tokens=ROUND, unk_token="<unk>", show_progress=False))
    before = bert_with(tokenizer, pad_id=1)
    train, test = sentences[::3], sentences[1::3]
    after = vocabulary.trim(before, train, 500)
    assert after.config["vocab_size"] == 500
    check_trimmed(before, after)
    check_reading(before, after, [*train, *test, "ünknown ♥ signs"])
    otherwise = vocabulary.changed(before, after, test, 32)
    stayed, pieces = {*tokens_of(after)}, [token for text in test for token in before.tokenizer.encode(text).tokens]
    assert vocabulary.lost(before, after, test, 500) == np.mean([token not in stayed for token in pieces]) > 0
    assert vocabulary.lost(before, before, test, 500) == 0
    assert 0 < otherwise.sum() < len(test)
    # Of the pieces of more than a character none that went was used more often than one that stayed.
    uses = Counter(token for line in train for token in tokenizer.encode(line, add_special_tokens=False).tokens)
    gone = [uses[token] for token in set(tokenizer.get_vocab()) - set(tokens_of(after))]
    longer = [uses[token] for token in tokens_of(after) if len(token.removeprefix("▁")) > 1 and token not in ROUND]
    assert max(gone) <= min(longer)


sentences = st.lists(st.sampled_from(tiny.WORDS[:50]), max_size=20).map(" ".join)


@given(st.lists(st.tuples(sentences, sentences), min_size=1, max_size=5), st.integers(5, 30), st.sampled_from([0, 4]))
def test_texts_and_pairs_are_cut_as_before(bert_folder, pairs, maxlen, pad_id):
    before = replace(berts.load(str(bert_folder)), pad_id=pad_id)
    after = vocabulary.trim(before, pairs, 60)
    check_trimmed(before, after)

    def named(bert, texts):
        """What `tokenize` makes of texts, with the tokens' names; 0 and the id of padding have changed places in it."""
        ids, *rest = tokenize(texts, bert.tokenizer, maxlen, bert.pad_id)
        names = np.array(tokens_of(bert))
        names[[0, bert.pad_id]] = names[[bert.pad_id, 0]]
        return names[ids].tolist(), *(None if part is None else part.tolist() for part in rest)

    for texts in (pairs, [text for pair in pairs for text in pair]):
        assert named(before, texts) == named(after, texts)
        assert not vocabulary.changed(before, after, texts, maxlen).any()


# What is kept


KNOWN = [
    *SPECIAL, "[unused0]", "[unused1]", "the", "##s", "s", "cat", "##at", "c", "中", "##中", "##c", "house", "!", "##!", "中国",
]


@pytest.mark.parametrize(
    ("size", "texts", "kept"),
    [
        (1, [], []), (10, ["the cat"], []),  # what is kept in any case: the special tokens, and s c ##s ##c 中 !
        (11, ["the cat", "cat"], ["cat"]),
        (11, ["cat house", "house cat"], ["cat"]),  # of equal ones the lower id
        (11, [("house", "cat"), ("the", "house")], ["house"]),
        (12, ["house"], ["the", "house"]),  # then what comes first
        (15, [], ["the", "cat", "##at", "house", "中国"]),
        (17, [], ["the", "cat", "##at", "house", "中国", "[unused0]", "[unused1]"]),  # before what no text can use
    ],
)
def test_which_tokens_of_a_word_piece_are_kept(size, texts, kept):
    """中 and ! are always words of their own, so that ##中 and ##! are never read."""
    before = bert_with(word_piece(*KNOWN))
    after = vocabulary.trim(before, texts, size)
    wanted = {*SPECIAL, "##s", "s", "c", "中", "##c", "!", *kept}
    assert tokens_of(after) == [token for token in KNOWN if token in wanted]
    check_trimmed(before, after)


def test_characters_are_kept_inside_words_where_the_tokenizer_leaves_them_there():
    tokenizer = word_piece(*KNOWN)
    tokenizer.pre_tokenizer, tokenizer.normalizer = pre_tokenizers.WhitespaceSplit(), normalizers.Lowercase()
    assert {"##中", "##!"} <= set(tokens_of(vocabulary.trim(bert_with(tokenizer), [], 1)))
    tokenizer.pre_tokenizer = pre_tokenizers.Punctuation("contiguous")  # splits c! but not !!
    assert "##!" in tokens_of(vocabulary.trim(bert_with(tokenizer), [], 1))


PIECES = [("▁", -3.0), ("e", -4.0), ("▁the", -5.0), ("▁e", -9.0), ("cat", -7.0), ("▁cat", -6.0), ("x", -20.0), ("▁house", -8.0),
          *[(character, -10.0) for character in "thcaous"]]


@pytest.mark.parametrize(
    ("size", "texts", "kept"),
    [
        (1, [], []), (16, ["the house"], ["▁the"]), (16, ["cat", "house house"], ["▁house"]),
        (17, ["house"], ["▁house", "▁the"]), (17, [], ["▁the", "▁cat"]),  # then the highest scores
        (18, [], ["▁the", "▁cat", "cat"]),
    ],
)
def test_which_tokens_of_a_unigram_are_kept(size, texts, kept):
    before = bert_with(unigram(PIECES), pad_id=1)
    after = vocabulary.trim(before, texts, size)
    wanted = {*ROUND, "▁", "▁e", *"exthcaous", *kept}
    assert tokens_of(after) == [token for token in tokens_of(before) if token in wanted]
    check_trimmed(before, after)


def test_of_two_pieces_of_one_name_the_one_that_is_read_is_kept():
    before = bert_with(unigram([("▁twice", -2.0), *PIECES, ("▁twice", -9.5)]), pad_id=1)
    twice = before.tokenizer.token_to_id("▁twice")
    assert twice == before.config["vocab_size"] - 1
    for texts, size in ((["twice"], 16), ([], 20)):
        after = vocabulary.trim(before, texts, size)
        assert after.config["vocab_size"] == size and tokens_of(after).count("▁twice") == 1
        assert after.weights[vocabulary.EMBEDDINGS][after.tokenizer.token_to_id("▁twice")] == twice


def test_a_unigram_that_falls_back_on_bytes_keeps_them():
    octets = [(f"<0x{i:02X}>", -30.0) for i in range(256)]
    for fallback in (False, True):
        before = bert_with(unigram(PIECES + octets, byte_fallback=fallback), pad_id=1)
        after = vocabulary.trim(before, ["the"], 20)
        assert after.config["vocab_size"] == (256 + 15 if fallback else 20)
        check_reading(before, after, ["the q", "é中"])
    assert reader(after)("q")[0] == ["<s>", "▁", "<0x71>", "</s>"]


@pytest.mark.parametrize("size", [0, len(KNOWN), 10_000])
def test_nothing_is_done_where_nothing_has_to_go(size):
    before = bert_with(word_piece(*KNOWN))
    assert vocabulary.trim(before, ["cat"], size) is before


def test_a_long_text_is_counted_a_part_at_a_time(monkeypatch):
    """Whole it would take over a hundred bytes of memory for each character."""
    together, tokenizer = [], word_piece(*KNOWN)
    monkeypatch.setattr(vocabulary, "SLICE", 40)
    monkeypatch.setattr(vocabulary, "slices", lambda texts: ([together.append(text) or text] for text in texts))
    found = vocabulary.count_tokens(["the cat " * 100, ("cat", "")], tokenizer)
    assert found == {tokenizer.token_to_id("the"): 100, tokenizer.token_to_id("cat"): 101}
    assert [*map(len, together)] == 20 * [40] + [3]


def test_tokens_are_counted_in_whole_texts():
    tokenizer = word_piece(*KNOWN)
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=8)
    state, texts = tokenizer.to_str(), ["the cat s", ("cats", "the the the the the")] * 700
    ids = map(tokenizer.token_to_id, ("the", "cat", "s", "##s"))
    assert vocabulary.count_tokens(texts, tokenizer) == dict(zip(ids, (4200, 1400, 700, 700), strict=True))
    before = bert_with(tokenizer)
    vocabulary.changed(before, vocabulary.trim(before, texts, 12), ["cats"], 9)
    assert tokenizer.to_str() == state  # it is somebody else's too


# What names ids


def test_the_unknown_piece_of_a_unigram_may_be_any():
    tokenizer = Tokenizer(models.Unigram([("long", -2.0), ("▁", -3.0), ("<s>", 0.0), ("?", -9.0), ("a", -4.0)], 3))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 2)])
    after = vocabulary.trim(bert_with(tokenizer, pad_id=2), [], 1)
    assert tokens_of(after) == ["▁", "<s>", "?", "a"] and after.tokenizer.encode("az").ids == [1, 0, 3, 2]
    tokenizer = Tokenizer(models.Unigram([("long", -2.0), ("▁", -3.0), ("a", -4.0), ("<unk>", -9.0)], 3))
    assert tokens_of(vocabulary.trim(bert_with(tokenizer, pad_id=1), [], 1)) == ["▁", "a", "<unk>"]


TEMPLATE = processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", [("[CLS]", 8), ("[SEP]", 9)])
ENDS = ("[SEP]", 9), ("[CLS]", 8)


@pytest.mark.parametrize(
    "processor",
    [TEMPLATE, processors.BertProcessing(*ENDS), processors.RobertaProcessing(*ENDS),
     processors.Sequence([processors.ByteLevel(), TEMPLATE])],
    ids=["template", "bert", "roberta", "sequence"],
)
def test_special_tokens_have_their_new_ids_wherever_they_are_named(processor):
    words = ["b", "bb", "bbb", "a", "##b", "##a"]
    tokenizer = Tokenizer(models.WordPiece(
        {token: i for i, token in enumerate([*words, "[PAD]", "[UNK]", "[CLS]", "[SEP]"])}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processor  # [CLS] and [SEP] are no added tokens, and kept all the same
    tokenizer.enable_padding(pad_id=6, pad_token="[PAD]", length=11)
    tokenizer.enable_truncation(9)
    before = bert_with(tokenizer, pad_id=6, pad_token_id=6, bos_token_id=8, mask_token_id=2, eos_token_id=[9])
    after = vocabulary.trim(before, [], 1)
    check_trimmed(before, after)
    assert tokens_of(after) == ["b", "a", "##b", "##a", "[PAD]", "[UNK]", "[CLS]", "[SEP]"] and after.pad_id == 4
    kinds = ("pad", "bos", "mask", "eos")
    assert [after.config[f"{kind}_token_id"] for kind in kinds] == [4, 6, None, None]
    old, new = (bert.tokenizer.encode("ab z", "b") for bert in (before, after))
    assert old.tokens == new.tokens and {"[CLS]", "[SEP]", "[UNK]", "[PAD]"} < set(new.tokens)
    assert [after.tokenizer.id_to_token(number) for number in new.ids] == new.tokens
    assert (new.type_ids, new.attention_mask) == (old.type_ids, old.attention_mask)


def test_holes_spare_embeddings_and_tokens_from_outside_the_vocabulary():
    vocab = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 4, "[SEP]": 5, "word": 6, "other": 8, "w": 11}
    tokenizer = BertWordPieceTokenizer(vocab)._tokenizer
    tokenizer.add_tokens(["<mine>", "<yours>"])
    outside = [tokenizer.token_to_id(token) for token in ("<mine>", "<yours>")]
    assert outside == [7, 8]  # by the number of tokens; "other" has this id too
    before = bert_with(tokenizer, rows=64, pad_id=30)  # and no token is 30
    after = vocabulary.trim(before, ["word <mine>"], 10)
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "word", "other", "w", "<mine>", "<yours>"]
    assert [after.tokenizer.id_to_token(number) for number in range(10)] == [*tokens, None]
    rows = after.weights[vocabulary.EMBEDDINGS][:, 0]
    assert rows.tolist() == [0, 1, 4, 5, 6, 8, 11, *outside, 30] and after.pad_id == 9
    assert "word" not in vocabulary.trim(before, [], 9).tokenizer.get_vocab()
    assert after.tokenizer.encode("word <mine> q").tokens == ["[CLS]", "word", "<mine>", "[UNK]", "[SEP]"]


@given(st.integers(0, 10**6), st.floats(0.5, 1.0))
@settings(max_examples=20)
def test_as_many_tokens_are_kept_as_held_out_texts_want(seed, share):
    """One fewer, and more of theirs would be gone than may be; but never fewer than the least."""
    rng = np.random.default_rng(seed)
    letters = [*"wx0123456789", *(f"##{character}" for character in "0123456789")]
    before = bert_with(word_piece(*SPECIAL, *letters, *(f"w{i}" for i in range(20, 90))))
    texts, held_out = ([" ".join(f"w{i}" for i in 20 + (70 * rng.beta(1, 2, 6)).astype(int)) for _ in range(30)] for _ in "ab")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vocabulary, "LEAST", 30)
        patch.setattr(vocabulary, "KEPT", share)
        after, least = (vocabulary.trim(before, texts, None, lines) for lines in (held_out, []))
    size, pieces = after.config["vocab_size"], [token for text in held_out for token in reader(before)(text)[0][1:-1]]

    def still_there(bert):
        return np.isin(pieces, tokens_of(bert)).mean()

    check_trimmed(before, after)
    assert still_there(after) >= share - 1e-9
    assert size >= least.config["vocab_size"] == 30
    assert tokens_of(after) == tokens_of(vocabulary.trim(before, texts, size))
    if size > 30:
        assert still_there(vocabulary.trim(before, texts, size - 1)) < share + 1e-9


def test_no_size_leaves_a_small_vocabulary_whole():
    before = bert_with(word_piece(*SPECIAL, "the", "cat"))
    assert vocabulary.trim(before, ["the"], None, ["the"]) is before


def test_a_tokenizer_that_cannot_be_trimmed():
    for name, model in (("BPE", models.BPE({"a": 0, "b": 1}, [])), ("WordLevel", models.WordLevel({"a": 0, "b": 1}))):
        before = bert_with(Tokenizer(model))
        assert vocabulary.trim(before, [], 0) is vocabulary.trim(before, [], 2) is before
        with pytest.raises(InputError) as error:
            vocabulary.trim(before, [], 1)
        message = str(error.value)
        assert message.startswith(f"--vocabulary 1: my-bert has a {name} tokenizer")
        assert message.endswith("--vocabulary 0 does without") and "\n" not in message


# How many texts it is seen in


def test_texts_that_are_tokenized_otherwise():
    before = bert_with(word_piece(*SPECIAL, "the", "cat", "##at", "##a", "##t", "a", "c", "t", "house"))
    after = vocabulary.trim(before, ["house"], 10)
    texts = ["house", "cat", "a cat", "house house cat", "ca", "the", "t h", ""]
    assert vocabulary.changed(before, after, texts, 16).tolist() == [False, True, True, True, False, True, False, False]
    assert vocabulary.changed(before, after, texts, 4).tolist() == [False, True, True, False, False, True, False, False]
    pairs = [("house", "cat"), ("house", "a"), ("cat", "house")]
    assert vocabulary.changed(before, after, pairs, 16).tolist() == [True, False, True]
    assert vocabulary.changed(before, after, [], 16).tolist() == []
    assert not vocabulary.changed(before, before, texts, 16).any()


def test_they_are_found_where_padding_has_another_id():
    before = bert_with(unigram(PIECES), pad_id=1)
    after = vocabulary.trim(before, ["the"], 16)
    texts = ["the", "house", "the cat", "q", "the q the"]
    expected = [reader(before)(text)[0] != reader(after)(text)[0] for text in texts]
    assert vocabulary.changed(before, after, texts, 16).tolist() == expected == [False, True, True, False, False]


# Whole BERTs


def test_saved_and_read_again_and_trimmed_again(bert_folder, tmp_path):
    before, lines = berts.load(str(bert_folder)), [text for text, _ in tiny.texts(60)]
    small = vocabulary.trim(before, lines, 80)
    berts.save(tmp_path / "small", small, ["a", "b"], maxlen=16)
    again = berts.load(str(tmp_path / "small"))
    assert (tmp_path / "small" / "vocab.txt").read_text(encoding="utf-8").splitlines() == tokens_of(small) == tokens_of(again)
    assert again.config["vocab_size"] == 80 and (again.pad_id, again.config["pad_token_id"]) == (0, 0)
    for name, value in small.weights.items():
        np.testing.assert_array_equal(again.weights[name], value, err_msg=name)
    for line in lines:
        assert again.tokenizer.encode(line).ids == small.tokenizer.encode(line).ids
    (tmp_path / "small" / "tokenizer.json").unlink()  # vocab.txt alone says the same
    assert berts.load(str(tmp_path / "small")).tokenizer.encode(lines[0]).ids == small.tokenizer.encode(lines[0]).ids
    smaller = vocabulary.trim(again, lines, 40)
    check_trimmed(again, smaller)
    assert tokens_of(smaller) == tokens_of(vocabulary.trim(before, lines, 40)) and smaller.config["vocab_size"] == 40


def test_a_unigram_is_saved_and_read_again(tmp_path):
    pieces = [*PIECES, *((f"▁{word}", -15.0) for word in tiny.WORDS[: tiny.CONFIG["vocab_size"] - len(ROUND + PIECES)])]
    before = bert_with(unigram(pieces), 1, **{key: value for key, value in tiny.CONFIG.items() if key != "vocab_size"})
    before = replace(before, config=tiny.CONFIG, weights=tiny.weights())
    small = vocabulary.trim(before, ["w7 w9 the w7"], 20)
    berts.save(tmp_path, small, ["a", "b"], maxlen=16)
    again = berts.load(str(tmp_path))
    assert tokens_of(again) == tokens_of(small) and again.pad_id == 1 and not (tmp_path / "vocab.txt").exists()
    assert again.tokenizer.encode("w7 house").ids == small.tokenizer.encode("w7 house").ids
    assert vocabulary.trim(again, ["w9"], 18).config["vocab_size"] == 18


def test_hidden_states_are_those_of_before(bert_folder):
    """Of padded texts too, where the id of padding is another one than it was."""
    before = replace(berts.keep_layers(berts.load(str(bert_folder)), [0]), pad_id=33)
    lines = ["w9 w8 w7 w1", "w3", "w0 w9 w9 w9 w2 w2"]
    after = vocabulary.trim(before, lines, 20)
    states = []
    for bert in (before, after):
        inputs = tiny.tokenized(lines, bert).inputs(np.arange(len(lines)))
        states.append(build_encoder(bert, 0.0).model.predict([*inputs], verbose=0))
    assert after.pad_id not in (0, 33)
    np.testing.assert_allclose(states[1], states[0], atol=1e-6)


def test_minilm_reads_what_it_was_trimmed_for_as_before():
    before, reference = berts.load("minilm-l6"), tiny.minilm_reference()["tokens"]
    lines = [entry["text"] for entry in reference]
    after = vocabulary.trim(before, lines, 3_000)
    tokens = tokens_of(after)
    assert len(tokens) == 3_000 and tokens[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    for entry in reference:
        expected = [before.tokenizer.id_to_token(number) for number in entry["ids"]]
        ids, *_ = tokenize([entry["text"]], after.tokenizer, maxlen=24)
        assert [tokens[number] for number in ids] == expected
    check_reading(before, after, ["Antidisestablishmentarianism, 中文 naïve λόγος 東京 ♥ 𝔘 1987's #hash [unused7]"])


def test_it_needs_no_tensorflow():
    check = "import sys, data.vocabulary; print('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, cwd=ROOT).stdout == "False\n"
