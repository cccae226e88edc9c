"""data.model_folders: what is broken or hostile beside the weights ends in one line, whoever reads the folder."""

import json
import shutil
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, processors

from common import InputError
from data import berts, model_folders, students, teachers
from export import predict
from tests import tiny
from tests.taken import CLASSES

DEEP = 200_000
READERS = {
    "a student": students.load,
    "--bert": lambda folder: berts.load(str(folder), maxlen=16),
    "--teacher": lambda folder: teachers.load(str(folder), SimpleNamespace(name="mine", classes=CLASSES), maxlen=16),
    "predict of a teacher": predict.load_teacher,
}


def written(folder, tokenizer):
    tokenizer.save(str(folder / "tokenizer.json"))


def templated(template, identifier):
    """What gives a tokenizer.json another template for single texts, with this id for [CLS]."""
    def change(folder):
        tokenizer = model_folders.read_tokenizer_file(folder / "tokenizer.json")
        special = [("[CLS]", identifier), ("[SEP]", 3)]
        pair = "[CLS] $A [SEP] $B [SEP]"
        tokenizer.post_processor = processors.TemplateProcessing(single=template, pair=pair, special_tokens=special)
        written(folder, tokenizer)
    return change


def entries(**changed):
    def change(folder):
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changed))
    return change


def nested(folder):
    whole = (folder / "config.json").read_text(encoding="utf-8").rstrip().removesuffix("}")
    (folder / "config.json").write_text(f'{whole}, "more": {"[" * DEEP}{"]" * DEEP}}}')


def without_unknown(folder):
    settings = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    del settings["model"]["vocab"]["[UNK]"]
    settings["added_tokens"] = [entry for entry in settings["added_tokens"] if entry["content"] != "[UNK]"]
    (folder / "tokenizer.json").write_text(json.dumps(settings))


def of_template(deep=0, **changed):
    """What gives the template in a tokenizer.json other special tokens; None takes one away. deep: in so many sequences"""
    def change(folder):
        settings = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        tokens = settings["post_processor"]["special_tokens"]
        for name, number in changed.items():
            if number is None:
                del tokens[f"[{name}]"]
            else:
                tokens[f"[{name}]"] = {"id": f"[{name}]", "ids": [number], "tokens": [f"[{name}]"]}
        for _ in range(deep):
            settings["post_processor"] = {"type": "Sequence", "processors": [settings["post_processor"]]}
        (folder / "tokenizer.json").write_text(json.dumps(settings))

    return lambda folder: (templated("[CLS] $A [SEP]", 2)(folder), change(folder))


def without_words(folder):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.add_special_tokens(["[PAD]", "[CLS]", "[SEP]"])
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    written(folder, tokenizer)


HOSTILE = {
    "maxlen below 0": (entries(maxlen=-1), "maxlen is -1, expected a whole number from 3 to 1,000,000"),
    "a vast maxlen": (entries(maxlen=10**30), "maxlen is 1000000000000000000000000000000, expected"),
    "a speed in words": (entries(speed="fast"), "speed is 'fast', expected a number from 0 to 1"),
    "a speed of many": (entries(speed=[0.5]), "speed is a list, expected a number"),
    "a speed that is none": (entries(speed=float("nan")), "config.json: not a JSON object (NaN is no number)"),
    "pairs in words": (entries(pairs="no"), "pairs is 'no', expected true or false"),
    "vast layers": (entries(num_hidden_layers=30_000_000), "num_hidden_layers is 30000000, expected a whole number from 1 to"),
    "true layers": (entries(num_hidden_layers=True), "num_hidden_layers is True, expected a whole number"),
    "padding of another kind": (entries(pad_token_id="0"), "pad_token_id is '0', expected a whole number from 0"),
    "padding below 0": (entries(pad_token_id=-1), "pad_token_id is -1, expected a whole number from 0"),
    "deep JSON": (nested, "config.json: not a JSON object ("),
    "a list": (lambda folder: (folder / "config.json").write_text("[]"), "config.json: not a JSON object"),
    "no UTF-8": (lambda folder: (folder / "config.json").write_bytes(b"\xff{}"), "config.json: not a JSON object ("),
    "no unknown token": (without_unknown, "has no token for a word that it does not know (WordPiece error: Missing [UNK]"),
    "no words at all": (lambda folder: written(folder, Tokenizer(models.WordPiece())), "for a word that it does not know ("),
    "no words but special ones": (without_words, "the tokenizer has no words, all texts would be the same to it"),
    "ids beyond the embeddings": (
        templated("[CLS] $A [SEP]", 120), "the tokenizer's ids go up to 120, the model has 120 embeddings; they are not"),
    "a long template": (templated("[CLS] " * 40 + "$A", 2), "gives an empty text 40 tokens; expected [CLS], or a few"),
    "no [CLS]": (templated("$A", 2), "gives an empty text 0 tokens; expected [CLS]"),
    "the same in a sequence in another": (of_template(2, SEP=None), "template has the token '[SEP]', but no id for it"),
    "a token of the template without an id": (of_template(SEP=None), "template has the token '[SEP]', but no id for it"),
    "an unused id beyond the embeddings": (of_template(NEW=500), "the tokenizer's ids go up to 500, the model has 120"),
    "a deep tokenizer": (lambda folder: (folder / "tokenizer.json").write_text('{"model":' * DEEP), "not a tokenizer ("),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_folder_ends_in_one_line(taken, tmp_path, case, reader):
    change, message = HOSTILE[case]
    folder = shutil.copytree(taken.folder, tmp_path / "folder")
    READERS[reader](folder)
    change(folder)
    with pytest.raises(InputError) as error:
        READERS[reader](folder)
    assert message in str(error.value) and str(folder) in str(error.value) and "\n" not in str(error.value)
    assert len(str(error.value)) < 400


def test_a_template_that_is_longer_than_the_texts_of_a_teacher(taken, tmp_path):
    """Though the model has positions for it; whether the folder or --maxlen says how long these are."""
    folder = shutil.copytree(taken.folder, tmp_path / "folder")
    templated("[CLS] " * 12 + "$A", 2)(folder)
    assert predict.load_teacher(folder).config["maxlen"] == 16
    with pytest.raises(InputError, match="gives an empty text 12 tokens; .* fewer than maxlen, 12"):
        predict.load_teacher(folder, maxlen=12)
    entries(maxlen=12)(folder)
    with pytest.raises(InputError, match="gives an empty text 12 tokens; .* fewer than maxlen, 12"):
        predict.load_teacher(folder)


ADDED = {"5": {"content": "[表情]", "special": False}, "2": {"content": "[CLS]", "special": True}}


@pytest.mark.parametrize(
    ("file", "said"), [("added_tokens.json", {"[表情]": 120}), ("tokenizer_config.json", {"added_tokens_decoder": ADDED})])
def test_a_token_that_stands_beside_the_vocabulary_is_not_left_out(bert_folder, tmp_path, file, said):
    """A slow tokenizer of transformers keeps it there; without it the model would be given other tokens than it has learned."""
    folder = shutil.copytree(bert_folder, tmp_path / "bert")
    (folder / "tokenizer.json").unlink(missing_ok=True)
    berts.load(str(folder))
    (folder / file).write_text(json.dumps(said), encoding="utf-8")
    with pytest.raises(InputError, match=r"the model has one token more, '\[表情\]'; a tokenizer.json has them all: Auto"):
        berts.load(str(folder))


def test_padding_that_counts_for_nothing_is_not_looked_at(bert_folder, tmp_path):
    """Where a tokenizer says itself what it pads with; and null, which models without padding have."""
    folder = shutil.copytree(bert_folder, tmp_path / "folder")
    for value in (10**6, None):
        entries(pad_token_id=value)(folder)
        assert berts.load(str(folder)).pad_id == 0
    words = (folder / "vocab.txt").read_text("utf-8").replace("[PAD]", "[PAT]")
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words.split())}, unk_token="[UNK]"))
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    written(folder, tokenizer)
    entries(pad_token_id=120)(folder)
    with pytest.raises(InputError, match="ids go up to 120, the model has 120 embeddings"):
        berts.load(str(folder))


def test_a_teacher_has_no_speed_whatever_its_config_says(tmp_path):
    folder = tiny.write_classifier(tmp_path / "teacher", speed=0.5)
    assert not predict.load_teacher(folder).stops_early


def test_labels_that_cannot_be_written(tmp_path):
    folder = tiny.write_classifier(tmp_path / "teacher", labels={str(i): f"{i}\ud800" for i in range(4)})
    with pytest.raises(InputError, match="id2label holds half of a surrogate pair"):
        predict.load_teacher(folder)


@given(st.dictionaries(st.sampled_from([*model_folders.ENTRIES]), st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=3), st.lists, max_leaves=3)))
def test_any_entries_fit_or_are_named(config):
    """Held against what each kind of an entry is, said otherwise."""
    def fits(name, value):
        kind, least, most = model_folders.ENTRIES[name]
        if kind is bool:
            return value in (True, False) and isinstance(value, bool)
        number = isinstance(value, int) or (kind is float and isinstance(value, float))
        return number and not isinstance(value, bool) and value == min(max(value, least), most)

    wrong = [name for name, value in config.items() if not fits(name, value) and (name, value) != ("pad_token_id", None)]
    if not wrong:
        return model_folders.check_entries(config, (), "here")
    with pytest.raises(InputError, match=f"^here: ({'|'.join(wrong)}) is .*, expected ") as error:
        model_folders.check_entries(config, (), "here")
    assert "\n" not in str(error.value)
