"""A BERT with fewer tokens: those that a task's texts use, and those that keep any other text readable.

Most parameters of a small student are embeddings of tokens, and most of these its texts never use. Which of them go is decided
here, and both the embeddings and the tokenizer are made anew without them. This module loads no TensorFlow; reading a BERT is
the work of `data.berts`.
"""

import json
import re
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
from tokenizers import Tokenizer

from common import InputError
from data.tokenizing import SLICE, slices, tokenize

EMBEDDINGS = "bert/embeddings/word_embeddings"
LEAST, KEPT = 8000, 0.98  # tokens that are kept unless told otherwise; more, until held-out texts keep this share of theirs
WORD_START = "▁"  # which a Unigram puts where a word begins
BYTE = re.compile("<0x[0-9A-F]{2}>")  # how a Unigram with byte_fallback writes a character that it does not have


def trim(bert, texts, size, held_out=()):
    """A BERT with `size` tokens of its vocabulary, which keep their order and their embeddings; all else is as it was.

    Kept are, in this order, (1) the tokens that the tokenizer itself names, such as [CLS], [UNK] and padding, and all single
    characters, even where these are more than `size`; (2) the tokens that the texts use, the most frequent first; (3) those
    that come first in the vocabulary, which is about the order of frequency in what the BERT was pretrained on.

    So a text of tokens that are kept has the same tokens as before, and any other is read in shorter pieces. None of its words
    becomes unknown, provided that each character in the vocabulary is also a token by itself, as BERTs have it.

    bert: a `berts.Bert` whose tokenizer is a WordPiece or a Unigram
    texts: strings or pairs of strings: training and unlabelled ones. Never those of validation or test: scores would rest on
        having seen them
    size: tokens, special ones included; 0, or as many as there are: the BERT comes back as it is; None: LEAST, or as many more
        as it takes until of all tokens that held-out texts have KEPT are there
    held_out: strings or pairs of strings of the validation part, which say how many tokens are kept then, not which

    Raises InputError for a tokenizer of another kind.
    """
    check_trimmable(bert, size)
    if _fits(bert, size):
        return bert
    settings = json.loads(bert.tokenizer.to_str())
    model, mentions = settings["model"], _mentions(settings)
    tokens, ids = _vocabulary(model)
    known = set(tokens)
    outside = {entry["content"]: entry["id"] for entry in settings["added_tokens"] if entry["content"] not in known}
    named = {holder[key] for holder, key in mentions} | {bert.pad_id}
    named |= {number for token, number in zip(tokens, ids, strict=True) if token == model.get("unk_token")}
    others = [*outside.values(), *sorted(named - {*ids, *outside.values()})]  # the library numbers added tokens in this order
    order, needed = _preferred(bert.tokenizer, model, tokens, ids, named, count_tokens(texts, bert.tokenizer))
    if size is None:
        counts = count_tokens(held_out, bert.tokenizer)
        reached = np.cumsum([counts[ids[place]] for place in order])
        size = max(LEAST, len(others) + 1 + int(np.searchsorted(reached, KEPT * reached[-1])))
        if size >= bert.config["vocab_size"]:
            return bert
    kept = np.sort(order[: max(size - len(others), needed)])
    rows = [ids[place] for place in kept] + others
    new_ids = {old: new for new, old in enumerate(rows)}

    for holder, key in mentions:
        holder[key] = new_ids[holder[key]]
    if model["type"] == "WordPiece":
        model["vocab"] = {tokens[place]: new for new, place in enumerate(kept)}
    else:
        model["vocab"] = [model["vocab"][place] for place in kept]
    config = bert.config | {"vocab_size": len(rows)}
    config |= {key: new_ids.get(value) if isinstance(value, int) else None
               for key, value in config.items() if key.endswith("_token_id")}
    tokenizer = Tokenizer.from_str(json.dumps(settings, ensure_ascii=False))
    weights = bert.weights | {EMBEDDINGS: bert.weights[EMBEDDINGS][rows]}
    return replace(bert, config=config, weights=weights, tokenizer=tokenizer, pad_id=new_ids[bert.pad_id])


def _fits(bert, size):
    return size == 0 or bert.config["vocab_size"] <= (LEAST if size is None else size)


def check_trimmable(bert, size):
    """Raise InputError if `trim` would have to refuse the tokenizer of a `berts.Bert`."""
    kind = json.loads(bert.tokenizer.to_str())["model"]["type"]
    if not _fits(bert, size) and kind not in ("WordPiece", "Unigram"):
        flag = "" if size is None else f"--vocabulary {size}: "
        raise InputError(f"{flag}{bert.source} has a {kind} tokenizer, and only WordPiece and Unigram ones can be trimmed; "
                         "--vocabulary 0 does without")


def count_tokens(texts, tokenizer):
    """How often texts use each token, special ones left out: a Counter {token id: times}.

    texts: strings or pairs of strings, counted whole: what follows where a text is cut off tells of the others' words too
    tokenizer: of the `tokenizers` library
    """
    tokenizer = _uncut(tokenizer)
    texts = [part for text in texts for part in ((text,) if isinstance(text, str) else text)]
    pieces = (text[start : start + SLICE] for text in texts for start in range(0, len(text), SLICE))
    counts = Counter()
    for some in slices(pieces):  # of a long text, too, so many characters at a time
        for encoding in tokenizer.encode_batch_fast(some, add_special_tokens=False):
            counts.update(encoding.ids)
    return counts


def changed(before, after, texts, maxlen):
    """Which texts are tokenized otherwise by a trimmed BERT: (texts,) bool.

    before: a `berts.Bert`
    after: what `trim` has made of it
    texts: strings, or pairs of strings
    maxlen: tokens that texts are cut to: what comes later is not compared
    """
    new_ids = _new_ids(before, after)
    old, old_offsets, _ = tokenize(texts, _uncut(before.tokenizer), maxlen)
    new, new_offsets, _ = tokenize(texts, _uncut(after.tokenizer), maxlen)
    spans = zip(pairwise(old_offsets), pairwise(new_offsets), strict=True)
    return np.array([not np.array_equal(new_ids[old[a:b]], new[c:d]) for (a, b), (c, d) in spans], bool)


def lost(before, after, texts, maxlen):
    """The share of these texts' tokens that a trimmed BERT no longer has, as a fraction. For the parameters see `changed`."""
    ids, _, _ = tokenize(texts, _uncut(before.tokenizer), maxlen)
    return float((_new_ids(before, after)[ids] < 0).mean())


def original_ids(before, after):
    """The id before trimming of each token, by its id after: (tokens,) int; -1 for what is no token. See `changed`."""
    new_ids = _new_ids(before, after)
    kept, ids = np.flatnonzero(new_ids >= 0), np.full(after.config["vocab_size"], -1)
    ids[new_ids[kept]] = kept
    ids[after.pad_id] = before.pad_id  # which need not be a token
    return ids


def _new_ids(before, after):
    """The id that each token has after trimming, by its id before; -1 if it is gone: (tokens,) int."""
    new_ids = np.full(before.config["vocab_size"], -1)
    for token, number in before.tokenizer.get_vocab().items():
        new = after.tokenizer.token_to_id(token)
        new_ids[number] = -1 if new is None else new
    return new_ids


def _uncut(tokenizer):
    """A copy that neither cuts nor pads: to set that on a tokenizer itself would change it for whoever else has it."""
    tokenizer = Tokenizer.from_str(tokenizer.to_str())
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _vocabulary(model):
    """(tokens, their ids), lists in the order of the ids. model: that of a tokenizer.json"""
    if model["type"] == "Unigram":
        return [token for token, _ in model["vocab"]], list(range(len(model["vocab"])))
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    return tokens, [model["vocab"][token] for token in tokens]


def _mentions(settings):
    """[(dict or list, key)] of the token ids that the content of a tokenizer.json has outside its vocabulary."""
    mentions = [(entry, "id") for entry in settings["added_tokens"]]
    if settings["padding"]:
        mentions.append((settings["padding"], "pad_id"))
    if settings["model"].get("unk_id") is not None:
        mentions.append((settings["model"], "unk_id"))
    processors = [settings["post_processor"] or {}]
    for processor in processors:  # which grows: a Sequence has more of them
        processors += processor.get("processors", [])
        mentions += [(processor[end], 1) for end in ("cls", "sep") if end in processor]
        for special in processor.get("special_tokens", {}).values():
            mentions += [(special["ids"], i) for i in range(len(special["ids"]))]
    return mentions


def _preferred(tokenizer, model, tokens, ids, named, counts):
    """(places in `tokens` in the order in which they are kept, (tokens,) int; how many are in any case). See `trim`.

    named: ids that are kept in any case
    counts: of `count_tokens`
    """
    prefix = model.get("continuing_subword_prefix", "")  # of WordPiece: "##"
    isolated, bytes_needed = _isolated_by(tokenizer), model.get("byte_fallback", False)

    def single(token):
        return len(token.removeprefix(prefix or WORD_START)) <= 1

    def inside_isolated(token):
        """Whether it is "##c" of a character c that is always a word of its own, as Chinese ones are."""
        return bool(prefix) and token.startswith(prefix) and single(token) and isolated(token[-1])

    never = np.array([  # used by any text: of two pieces of one name a Unigram reads the last
        token.startswith("[unused") or inside_isolated(token) or tokenizer.token_to_id(token) != number
        for token, number in zip(tokens, ids, strict=True)
    ], bool)
    needed = np.array([
        number in named or (single(token) and not useless) or (bytes_needed and bool(BYTE.fullmatch(token)))
        for token, number, useless in zip(tokens, ids, never, strict=True)
    ], bool)
    used = np.array([counts[number] for number in ids])
    rarity = [-score for _, score in model["vocab"]] if model["type"] == "Unigram" else ids
    order = np.lexsort((rarity, never, -used, ~needed))  # the last key counts first; of equal ones the lower id
    return order, needed.sum()


def _isolated_by(tokenizer):
    """character -> whether the tokenizer always makes it a word of its own, by what it does with one among others."""
    normalizer, pre_tokenizer = tokenizer.normalizer, tokenizer.pre_tokenizer

    def isolated(character):
        text = f"a{character}1{character}{character}"
        text = normalizer.normalize_str(text) if normalizer else text
        words = [word for word, _ in pre_tokenizer.pre_tokenize_str(text)] if pre_tokenizer else [text]
        return words == ["a", character, "1", character, character]

    return isolated
