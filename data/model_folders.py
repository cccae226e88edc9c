"""What stands beside the weights in a model's folder: config.json and the tokenizer. A folder is data, whoever it came from.

What does not fit is refused in one line before anything is made of it, for students, teachers and BERTs alike.
"""

import json
import re

from tokenizers import Tokenizer
from tokenizers.implementations import BertWordPieceTokenizer

from common import InputError, reason
from data.tokenizing import tokenizers_errors

ENTRIES = {  # of config.json and the like: kind, least, most; beyond the most, what is derived from it fills the memory
    "vocab_size": (int, 1, 10**7),
    "hidden_size": (int, 1, 10**5),
    "num_hidden_layers": (int, 1, 1000),
    "num_attention_heads": (int, 1, 10**5),
    "intermediate_size": (int, 1, 10**6),
    "max_position_embeddings": (int, 1, 10**6),
    "type_vocab_size": (int, 1, 1000),
    "layer_norm_eps": (float, 1e-30, 1),
    "pad_token_id": (int, 0, 10**7),
    "maxlen": (int, 3, 10**6),
    "speed": (float, 0, 1),
    "inverse_temperature": (float, 1e-6, 1e6),  # of a linear model
    "threshold": (float, 0, 1),  # of a cascade.json
    "pairs": (bool, False, True),
}
KINDS = {int: "a whole number from {:,} to {:,}", float: "a number from {:g} to {:g}", bool: "true or false"}
TERMS = "terms.json"  # by which the folder of a linear model is known; see `data.linear_models`
OF_WORD_PIECES = ("BertTokenizer", "BertTokenizerFast", "PreTrainedTokenizerFast")  # that a vocab.txt alone tells all of
NO_WORD = "𓂀𐎀𖠀"  # of three scripts, so no vocabulary has it


def read_json(path):
    """The JSON object in a file. Raises InputError if there is none in it."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a JSON object ({reason(error)})") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: not a JSON object")
    return value


def _no_number(name):
    """Refuse NaN and Infinity, which Python reads and writes, but JSON does not have."""
    raise ValueError(f"{name} is no number")


def classes_of(config):
    """The names of the classes in a config.json, in their order."""
    return [config["id2label"][str(number)] for number in range(len(config["id2label"]))]


def entries_of(classes):
    """The entries of a config.json that name classes, in their order."""
    return {"id2label": {str(number): name for number, name in enumerate(classes)},
            "label2id": {name: number for number, name in enumerate(classes)}}


def check_entries(config, needed, path):
    """Raise InputError unless the ENTRIES that a config has are what they must be.

    config: what its JSON holds
    needed: names of entries that it must have
    path: of the config, for errors
    """
    for name in needed:
        if name not in config:
            raise InputError(f"{path}: {name} is missing")
    for name, (kind, least, most) in ENTRIES.items():
        value = config.get(name)
        if name not in config or (value is None and name == "pad_token_id" and name not in needed):  # it may have no padding
            continue
        if type(value) not in ((int, float) if kind is float else (kind,)) or not least <= value <= most:
            shown = {list: "a list", dict: "an object"}.get(type(value)) or repr(value)[:50]
            raise InputError(f"{path}: {name} is {shown}, expected {KINDS[kind].format(least, most)}")


def read_tokenizer(folder, config, maxlen):
    """(tokenizer, id of padding) in a folder: tokenizer.json as it is, else WordPiece over vocab.txt as Google's BERT does it.

    The id of padding is what the tokenizer says: its padding section, or its token [PAD] or <pad>; else the config's, else 0.

    folder: Path
    config: the entries of its config.json
    maxlen: tokens that texts may be cut to

    Raises InputError if there is none, or for `check_tokenizer`.
    """
    pad_id = None
    if (folder / "tokenizer.json").is_file():
        tokenizer = read_tokenizer_file(folder / "tokenizer.json")
        if tokenizer.padding:
            pad_id = tokenizer.padding["pad_id"]
        tokenizer.no_padding()
        tokenizer.no_truncation()
    elif (folder / "vocab.txt").is_file():
        tokenizer = _word_piece(folder)
    else:
        raise InputError(f"{folder}: neither tokenizer.json nor vocab.txt in it")
    candidates = (pad_id, *map(tokenizer.token_to_id, ("[PAD]", "<pad>")), config.get("pad_token_id"), 0)
    pad_id = next(candidate for candidate in candidates if candidate is not None)
    check_tokenizer(tokenizer, pad_id, config["vocab_size"], maxlen, folder)
    return tokenizer, pad_id


def read_tokenizer_file(path):
    """The tokenizer in a tokenizer.json. Raises InputError if there is none in it."""
    with tokenizers_errors(f"{path}: not a tokenizer"):
        return Tokenizer.from_file(str(path))


def check_tokenizer(tokenizer, pad_id, vocab_size, maxlen, folder):
    """Raise InputError unless any text has tokens of a model, [CLS] or the like among them.

    tokenizer: of the `tokenizers` library, which neither cuts nor pads
    pad_id: what it pads with
    vocab_size: embeddings of the model
    maxlen: tokens that texts are cut to
    folder: where both are from, for errors

    Returns token ids that its model must take: those of an empty text, and the highest.
    """
    named = _template_ids(tokenizer, folder)
    with tokenizers_errors(f"{folder}: the tokenizer has no token for a word that it does not know"):
        special, pair, _ = tokenizer.encode("").ids, tokenizer.encode("", "").ids, tokenizer.encode(NO_WORD)
    if not 0 < len(special) < maxlen:
        raise InputError(f"{folder}: the tokenizer gives an empty text {len(special)} tokens; expected [CLS], or a few, fewer "
                         f"than maxlen, {maxlen}")
    if not tokenizer.get_vocab(with_added_tokens=False):
        raise InputError(f"{folder}: the tokenizer has no words, all texts would be the same to it")
    highest = max(pad_id, *special, *pair, *named, *tokenizer.get_vocab().values())
    if highest >= vocab_size:
        raise InputError(f"{folder}: the tokenizer's ids go up to {highest}, the model has {vocab_size} embeddings; "
                         "they are not of one model")
    return [*special, highest]


def _template_ids(tokenizer, folder):
    """The ids that templates of a tokenizer name, used or not. InputError for one that uses a token it does not name: asked, it
    would panic."""
    if tokenizer.post_processor is None:
        return []
    inside, ids = [json.loads(tokenizer.post_processor.__getstate__())], []
    for each in inside:
        inside += each.get("processors", [])  # of a sequence, in which there may be others
        if each["type"] != "TemplateProcessing":
            continue
        tokens = each["special_tokens"]
        used = {part["SpecialToken"]["id"] for part in (*each["single"], *each["pair"]) if "SpecialToken" in part}
        if missing := sorted(used - {*tokens}):
            raise InputError(f"{folder}: the tokenizer's template has the token {missing[0]!r}, but no id for it")
        ids += [number for token in tokens.values() for number in token["ids"]]
    return ids


def _tokens_beside(folder, said):
    """Tokens that transformers keeps beside a vocab.txt: of added_tokens.json and tokenizer_config.json, which is `said`."""
    file, decoder = folder / "added_tokens.json", said.get("added_tokens_decoder")
    tokens = decoder.values() if isinstance(decoder, dict) else ()
    tokens = (token.get("content") if isinstance(token, dict) else token for token in tokens)
    return [*(read_json(file) if file.is_file() else ()), *map(str, tokens)]


def _word_piece(folder):
    path, settings = folder / "vocab.txt", folder / "tokenizer_config.json"
    try:
        words = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 ({error.reason} at byte {error.start})") from None
    vocabulary = {word.rstrip("\r"): number for number, word in enumerate(words) if word.strip("\r")}
    for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]"):
        if token not in vocabulary:
            raise InputError(f"{path}: no line {token}, which every BERT vocabulary has")
    # Google's folders do not say whether the model is cased; a vocabulary with many capitals (not [CLS] and the like) is.
    capitals = sum(bool(re.search("[A-Z]", word)) and not word.startswith("[") for word in vocabulary)
    lowercase = capitals < 0.01 * len(vocabulary)
    said = read_json(settings) if settings.is_file() else {}
    config = folder / "config.json"
    kind = said.get("tokenizer_class") or (read_json(config).get("tokenizer_class") if config.is_file() else None)
    if kind not in (None, *OF_WORD_PIECES):
        raise InputError(f"{path}: its tokenizer is a {kind}, which splits texts otherwise than BERT's WordPiece; give a "
                         "folder with a tokenizer.json")
    if others := [token for token in _tokens_beside(folder, said) if token not in vocabulary]:
        raise InputError(f"{path}: the model has one token more, {others[0]!r}; a tokenizer.json has them all: "
                         "AutoTokenizer.from_pretrained(…).save_pretrained(…)")
    accents = said.get("strip_accents")  # None: where letters are made small
    return BertWordPieceTokenizer(
        vocabulary, lowercase=bool(said.get("do_lower_case", lowercase)),
        strip_accents=accents if accents is None else bool(accents),
        handle_chinese_chars=bool(said.get("tokenize_chinese_chars", True)),
    )._tokenizer
