"""Texts as token ids: tokenized once for a whole run, pairs of texts joined and cut as BERT has them."""

import contextlib
import sys
from array import array

import numpy as np

from common import InputError, reason

CHARACTERS = 1_000  # of a text that are looked at for each token it is cut to: only one made for that has fewer tokens in them
SLICE = 1_000_000  # characters of texts that are tokenized together: the tokenizer takes over a hundred bytes for each
MASKS = ("[MASK]", "<mask>")  # as WordPiece and SentencePiece tokenizers call the token of a word that is not shown


def tokenize(texts, tokenizer, maxlen, pad_id=0):
    """Tokenize texts once: (ids (tokens of all texts,) int32, offsets (texts + 1,), first_segments (texts,) int32 or None).

    Text i is ids[offsets[i]:offsets[i + 1]]. Of a pair first_segments[i] tokens are segment 0, the others segment 1; of single
    texts all are segment 0, and first_segments is None. bert4keras takes id 0 for padding; where the vocabulary's padding is
    another id, the two change places (`common.bert` does the same to the embeddings).

    texts: list of strings, or of pairs of strings
    tokenizer: of the `tokenizers` library
    maxlen: tokens a text or a pair is cut to, special ones included; CHARACTERS for each of them are looked at
    pad_id: the id that the tokenizer pads with
    """
    pairs = bool(texts) and isinstance(texts[0], tuple)
    ids, lengths, first_segments = array("i"), array("q"), array("i")  # which grow in place, at 4 bytes a token
    with tokenizers_errors("the tokenizer breaks down over a text"):  # which may be the first of its kind
        for own_ids, first_segment in (encode_pairs if pairs else _encode_texts)(texts, tokenizer, maxlen):
            ids.extend(own_ids)
            lengths.append(len(own_ids))
            first_segments.append(first_segment)
    ids = np.frombuffer(ids, np.int32)
    if pad_id:
        ids = np.select([ids == 0, ids == pad_id], [pad_id, 0], ids).astype(np.int32)
    return ids, np.concatenate([[0], np.cumsum(lengths)]), np.frombuffer(first_segments, np.int32) if pairs else None


@contextlib.contextmanager
def tokenizers_errors(message):
    """A block in which what the `tokenizers` library raises is an InputError: bare Exceptions, and panics, which are none."""
    try:
        yield
    except (InputError, KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:
        raise InputError(f"{message} ({reason(error)})") from None


def _encode_texts(texts, tokenizer, maxlen):
    """(token ids, how many: all are segment 0) of each text."""
    tokenizer.enable_truncation(maxlen)
    whole = (_cut(text, maxlen) for text in texts)
    for beginnings in slices(_first_words(_cut(text, maxlen), maxlen) for text in texts):
        for beginning, encoding, text in zip(beginnings, tokenizer.encode_batch_fast(beginnings), whole, strict=False):
            if len(encoding) < maxlen and len(beginning) < len(text):  # words of which nothing was left
                encoding = tokenizer.encode(text)
            yield encoding.ids, len(encoding)


def encode_pairs(pairs, tokenizer, maxlen):
    """(token ids, how many of them are segment 0) of each pair of texts: [CLS] a [SEP] b [SEP], as the tokenizer joins them.

    What is too long loses tokens of the longer text first: the shorter one keeps half of the room, rounded down, or all it has.
    The tokenizer cuts in the same way, but it also makes every piece of a with every piece of b, for two long texts gigabytes.

    For the parameters see `tokenize`, and `check_pairs` for what the tokenizer must be.
    """
    tokenizer.no_truncation()
    tokenizer.no_padding()
    frame = tokenizer.encode("a", "b")
    a, b = frame.sequence_ids.index(0), frame.sequence_ids.index(1)
    special = [place for place, sequence in enumerate(frame.sequence_ids) if sequence is None]
    before, between, after = ([frame.ids[place] for place in special if low <= place < high]
                              for low, high in ((0, a), (a, b), (b, len(frame))))
    room, ones = maxlen - len(special), sum(frame.type_ids[place] for place in special)
    for some in slices(tuple(_cut(text, maxlen) for text in pair) for pair in pairs):  # not by words: their lengths decide
        firsts, seconds = (tokenizer.encode_batch_fast(side, add_special_tokens=False)
                           for side in map(list, zip(*some, strict=True)))
        for first, second in zip(firsts, seconds, strict=True):
            kept = min(len(first), len(second), room // 2)
            cut = (room - kept, kept) if len(first) > len(second) else (kept, room - kept)
            first, second = first.ids[: cut[0]], second.ids[: cut[1]]
            ids = [*before, *first, *between, *second, *after]
            yield ids, len(ids) - ones - frame.type_ids[a] * len(first) - frame.type_ids[b] * len(second)


def slices(texts, count=10_000, characters=SLICE):
    """Lists of texts that follow each other, each as short as `count` or `characters` make it; what is one text stays one.

    Where the next text cannot be had, for an InputError, those before it come first.

    texts: strings or pairs of strings, iterable
    count: texts in a list, at most
    characters: with which a list ends
    """
    some, size = [], 0
    try:
        for text in texts:
            some.append(text)
            size += len(text) if isinstance(text, str) else sum(map(len, text))
            if len(some) == count or size >= characters:
                yield some
                some, size = [], 0
    except InputError:
        if some:
            yield some
        raise
    if some:
        yield some


def padded(ids, offsets, first_segments, indices, pad_id=0, multiple=1, positions=sys.maxsize):
    """(token ids, segment ids) of some of the texts that `tokenize` returned, padded: both (texts, tokens) int32.

    The segment is 1 where the first of a pair has ended and the pair has not, else 0.

    ids, offsets, first_segments: as of `tokenize`
    indices: (texts,) int, which of them
    pad_id: what to pad with
    multiple: tokens are padded to a multiple of it
    positions: but to no more than these, which the model has
    """
    lengths = offsets[indices + 1] - offsets[indices]
    width = min(-(-int(lengths.max()) // multiple) * multiple, positions)
    token_ids = np.full((len(indices), width), pad_id, np.int32)
    for row, index, length in zip(token_ids, indices, lengths, strict=True):
        row[:length] = ids[offsets[index] :][:length]
    if first_segments is None:
        return token_ids, np.zeros_like(token_ids)
    places = np.arange(token_ids.shape[1])
    return token_ids, ((places >= first_segments[indices][:, None]) & (places < lengths[:, None])).astype(np.int32)


def mask_token(tokenizer):
    """What stands in a text for a word that is not shown, as one token; "" if the tokenizer has no such token."""
    def is_one(mask):
        return tokenizer.encode(mask, add_special_tokens=False).ids == [tokenizer.token_to_id(mask)]

    return next(filter(is_one, MASKS), "")


def check_pairs(bert, maxlen):
    """Raise InputError unless a `berts.Bert` can read pairs of texts, cut to `maxlen` tokens.

    Its tokenizer must put something between the two; the segments that it gives them, 0 and then 1, or all 0, must be among
    those that the model has.
    """
    special, of_one = (bert.tokenizer.num_special_tokens_to_add(is_pair) for is_pair in (True, False))
    if special <= of_one:
        raise InputError(f"{bert.source}: its tokenizer has no template for pairs of texts, as [CLS] a [SEP] b [SEP]")
    segments, known = bert.tokenizer.encode("a", "b").type_ids, bert.config.get("type_vocab_size", 2)
    if segments != sorted(segments) or segments[-1] >= min(2, known):
        raise InputError(f"{bert.source}: its tokenizer gives a pair the segments {segments}, its model has {known}; "
                         "expected 0 and then 1, or 0 throughout")
    if maxlen < special + 2:
        raise InputError(f"--maxlen {maxlen}: a pair of texts has {special} special tokens; {special + 2} or more are needed")


def _cut(text, maxlen):
    """As much of a text as is looked at."""
    return text[: CHARACTERS * maxlen]


def _first_words(text, count):
    """The first `count` words of a text, as they stand: a word is a token or more, so what follows would be cut off anyway."""
    parts = text.split(maxsplit=count)
    return text[: len(text) - len(parts[-1])] if len(parts) > count else text
