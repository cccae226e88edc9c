"""What the tests make for themselves: a tiny random BERT on disk, in each format, and texts with a pattern to learn."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from common.backend import tf
from common.batches import TokenizedTexts
from data import berts

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
CONFIG = {
    "model_type": "bert", "vocab_size": 120, "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4,
    "intermediate_size": 64, "hidden_act": "gelu", "max_position_embeddings": 40, "type_vocab_size": 2,
    "layer_norm_eps": 1e-12, "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1,
}
CLASSES = 4
CHINESE_CONFIG = CONFIG | {"hidden_size": 16, "intermediate_size": 32, "max_position_embeddings": 128}
WORDS = [f"w{i}" for i in range(CONFIG["vocab_size"] - len(SPECIAL))]
CHINESE = [*"，。", *map(chr, range(0x4E00, 0x4E00 + len(WORDS) - 2))]  # as many characters


def weights(config=CONFIG, seed=0):
    """Random arrays under Google's names, with the spread that BERT starts from."""
    rng = np.random.default_rng(seed)
    return {
        name: (rng.normal(0, 0.1, shape) + name.endswith("gamma")).astype(np.float32)
        for name, shape in berts.expected_shapes(config).items()
    }


def without(bert, *names):
    """A `data.berts.Bert` without the weights of these names."""
    return replace(bert, weights={name: value for name, value in bert.weights.items() if name not in names})


def write_bert(folder, layout="hugging-face", config=CONFIG, dtype=np.float32, words=WORDS, head=None):
    """Write a tiny BERT to `folder` as Hugging Face ("hugging-face") or Google ("google") lay it out. head: further arrays."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join([*SPECIAL, *words]) + "\n", encoding="utf-8")
    arrays = weights(config) | (head or {})
    if layout == "google":
        config = {key: value for key, value in config.items() if key not in ("model_type", "layer_norm_eps")}
        (folder / "bert_config.json").write_text(json.dumps(config))
        with tf.Graph().as_default(), tf.compat.v1.Session() as session:
            variables = [tf.compat.v1.get_variable(name, initializer=value) for name, value in arrays.items()]
            variables.append(tf.compat.v1.get_variable("cls/predictions/output_bias", initializer=np.zeros(9, np.float32)))
            session.run(tf.compat.v1.global_variables_initializer())
            tf.compat.v1.train.Saver(variables).save(session, str(folder / "bert_model.ckpt"), write_meta_graph=False)
    else:
        (folder / "config.json").write_text(json.dumps(config))
        tensors = {
            berts.hugging_face_name(name): np.ascontiguousarray((v.T if name.endswith("/kernel") else v).astype(dtype))
            for name, v in arrays.items()
        }
        save_file({"bert.pooler.dense.weight": np.zeros((32, 32), dtype)} | tensors, folder / "model.safetensors")
    return folder


def classifier_weights(classes=CLASSES, seed=1):
    """Random arrays of a pooler and a classifier under Google's names."""
    rng, hidden = np.random.default_rng(seed), CONFIG["hidden_size"]
    shapes = dict(zip(berts.OUTPUT + berts.POOLER, ((classes, hidden), (classes,), (hidden, hidden), (hidden,)), strict=True))
    return {name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}


def write_classifier(folder, layout="hugging-face", labels=None, dtype=np.float32, leave_out=(), **config):
    """`write_bert`, fine-tuned: with a pooler and a classifier.

    labels: of its config, {"0": name, …}; none unless given
    leave_out: names of variables that its checkpoint has not
    config: other or further entries of its config
    """
    config = CONFIG | ({"id2label": labels} if labels else {}) | config
    count = len(labels) if labels else CLASSES
    head = {name: value for name, value in classifier_weights(count).items() if name not in leave_out}
    return write_bert(folder, layout, config, dtype, head=head)


def texts(count, seed=0, classes=CLASSES):
    """[(text, label)]: a third of each text's 6 to 14 words come from its class's own ten, the rest from common ones."""
    rng = np.random.default_rng(seed)
    common = WORDS[10 * classes :]
    made = []
    for i in range(count):
        label = i % classes
        words = rng.choice(common, rng.integers(4, 10)).tolist()
        words += rng.choice(WORDS[10 * label : 10 * label + 10], rng.integers(2, 5)).tolist()
        made.append((" ".join(rng.permutation(words)), f"class {label}"))
    return made


def pairs(count, seed=0):
    """[((first, second), label)]: "same" where both are `texts` of one class, as in half of the pairs, else "other"."""
    made = texts(2 * count, seed)
    couples = [(made[i], made[count + (i + i // CLASSES % 2) % count]) for i in range(count)]
    return [((a, b), "same" if one == another else "other") for (a, one), (b, another) in couples]


def tokenized(lines, bert, maxlen=16):
    """Texts as examples for a `berts.Bert`."""
    return TokenizedTexts.of(lines, bert, maxlen)


def minilm_reference():
    """minilm-l6.json: a few of the numbers that PyTorch transformers computes for minilm-l6, with what it was asked."""
    return json.loads(Path(__file__).with_name("minilm-l6.json").read_text(encoding="utf-8"))


def write_jsonl(path, pairs):
    """Write (text, label) pairs as JSON lines; a text may be a pair of texts."""
    fields = ("text", "text_pair")
    rows = [dict(zip(fields, (text,) if isinstance(text, str) else text, strict=False)) for text, _ in pairs]
    lines = [json.dumps(row | {"label": label}) for row, (_, label) in zip(rows, pairs, strict=True)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_data(folder, train=160, test=80):
    """A folder with train.jsonl and test.jsonl of made-up texts."""
    folder.mkdir(parents=True, exist_ok=True)
    write_jsonl(folder / "train.jsonl", texts(train, seed=1))
    write_jsonl(folder / "test.jsonl", texts(test, seed=2))
    return folder


def write_chinese_bert(folder, layers):
    """A tiny BERT that reads CHINESE, with the positions that 128 tokens need, as Google lays it out."""
    return write_bert(folder, layout="google", config=CHINESE_CONFIG | {"num_hidden_layers": layers}, words=CHINESE)


def write_iflytek(folder, classes=119, each=3):
    """A folder as CLUE's IFLYTEK comes: train.json and dev.json of Chinese texts, test.json without labels, labels.json."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)

    def write(name, count, labelled):
        records = []
        for i in range(classes * count):
            own = CHINESE[2 + i % classes % 100] + CHINESE[2 + i % classes // 100]
            sentences = ["".join(rng.choice(CHINESE[2:], rng.integers(3, 12))) + own for _ in range(rng.integers(2, 12))]
            label = {"label": str(i % classes), "label_des": f"类{own}"} if labelled else {"id": i}
            records.append(label | {"sentence": "，".join(sentences) + "。"})
        lines = (json.dumps(record, ensure_ascii=False) for record in records)
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")

    write("train.json", each, labelled=True)
    write("dev.json", 1, labelled=True)
    write("test.json", 1, labelled=False)
    (folder / "labels.json").write_text("".join(f'{{"label": "{i}"}}\n' for i in range(classes)))
    return folder
