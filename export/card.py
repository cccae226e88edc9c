"""README.md of a student of texts: what it is, how good, and the lines that ask it elsewhere."""

from pathlib import Path

from data import bilstms
from data.sources import SOURCES
from data.students import FLOAT32, INT8
from export.deployed import promise_of_files
from report.tables import as_markdown, markdown


def model_card(story, run, best, bert, table, folder, others=None):
    """README.md of a student of texts, in Markdown.

    story: the script's docstring, whose first two paragraphs say what was done
    run: of the student's seed
    best: its record
    bert: what its files hold, a `data.berts.Bert`
    table: rows of `student_table`
    folder: the student's, with its ONNX files
    others: of `deployed.other_answers`, if it has a promise
    """
    pad_id, is_bilstm = bert.pad_id, bert.kind == bilstms.KIND
    base, data = (as_markdown(Path(name).name) for name in (run.bert.source, run.corpus.name))
    licences = {shown: SOURCES[name].licence if name in SOURCES else "its own"
                for shown, name in ((base, run.bert.source), (data, run.corpus.name))}
    licence = SOURCES[run.bert.source].licence if run.bert.source in SOURCES else None
    speed = f", speed=tf.constant({best['speed']:g})" if "speed" in best else ""
    kind, asked, segments = "texts", '"a text"', "tf.zeros_like(ids)"
    if run.corpus.pairs:
        kind, asked, segments = "pairs of texts", '{"text": "a text", "text_pair": "another"}', "type_ids"
    code = ['student = tf.saved_model.load("saved_model")  # to be kept: it holds the weights',
            'answer = student.signatures["serving_default"]',
            f"answer(token_ids=ids, segment_ids={segments}{speed})  # int32 ({kind}, tokens), padding {pad_id}"]
    if not speed and not is_bilstm:
        code = [f'transformers.pipeline("text-classification", ".", truncation=True)({asked})', *code]
    of_base = f"{bert.layers} layers of {base}"
    if "speed" in best:
        of_base += f", of which it computes {best['layers']:.3g} on average at its speed, {best['speed']:g}"
    if is_bilstm:
        of_base = (f"a BiLSTM of {bert.config['lstm_units']} units each way (Tang et al. 2019), which reads the tokens of "
                   f"{base}, and which transformers cannot load")
    front = ["---", "pipeline_tag: text-classification", f"tags: [knowledge-distillation, {bert.kind}]",
             *([f"license: {licence.lower()}"] if licence else []), "---"]
    return "\n\n".join([
        "\n".join(front),
        f"# {best['name']} of {base} on {data}",
        *(" ".join(paragraph.split()) for paragraph in story.split("\n\n")[:2]),
        f"This is `{best['name']}` of seed {best['seed']}: {of_base}, taught on "
        f"{learned_from(run, best, kind)} of {data}, {len(run.corpus.classes)} classes, up to {run.settings.maxlen} tokens.",
        f"Licences: {'; '.join(f'{name}: {text}' for name, text in licences.items())}. The model's own "
        "licence is that of the model it was made from.",
        f"Accuracy on {len(run.parts.test):,} test {kind}; latency of one and of 32 together, in milliseconds, "
        "timed with all tokens:",
        markdown(table),
        *([f"Promised of `{FLOAT32}` at its speed, {best['speed']}: {promise_of_files(best['promise'], others)}. At "
           "other speeds, of texts of another kind or in int8, nothing is."] if "promise" in best else []),
        onnx_section(run, best, pad_id, folder),
        "With TensorFlow:" if speed or is_bilstm else "With transformers, or with TensorFlow:",
        "```python\n" + "\n".join(code) + "\n```",
        "A SavedModel is a program, which can read and write files: load `saved_model/` only if you trust who made it.",
    ]) + "\n"


def linear_card(run, best):
    """README.md of a linear model, in Markdown. run: of its seed; best: its record"""
    name, pairs = run.corpus.name, run.corpus.pairs
    data, kind = as_markdown(Path(name).name), "pairs of texts" if pairs else "texts"
    text = """'{"text": "a text", "text_pair": "another"}'""" if pairs else '"a text"'
    licence = [f"Licence of {data}: {SOURCES[name].licence}.", ""] if name in SOURCES else []
    return "\n".join([
        f"# {best['name']} on {data}", "",
        f"TF-IDF of {best['terms']} and a linear support vector machine, no network; {len(run.corpus.classes)} classes.",
        f"Taught on {learned_from(run, best, kind)}.",
        f"Accuracy on {len(run.parts.test):,} test {kind}: {best['accuracy']:.2%}.", "",
        *licence,
        f"    python -m common.predict linear {text}", "",
        "`data/linear_models.py` of its repository reads and asks it: scikit-learn counts the terms of `terms.json`,",
        "`model.safetensors` has idf, weights and biases, `config.json` classes and the softmax's inverse temperature.", "",
    ])


def learned_from(run, best, kind):
    """How many examples a model has learned from, in words. best: its record; kind: of the examples"""
    more = best.get("unlabelled", 0)
    return f"{len(run.parts.train):,} labelled {kind}{f' and {more:,} without labels' * bool(more)}"


def onnx_section(run, best, pad_id, folder):
    """How an ONNX file in `folder` is asked with onnxruntime, tokenizers and numpy alone: the smallest, or that of a promise.

    See `model_card`.
    """
    there = [FLOAT32] if "promise" in best else [name for name in (INT8, FLOAT32) if (folder / name).is_file()]
    texts, segments = '["a text", "another, which is longer"]', "np.zeros_like(token_ids)"
    if run.corpus.pairs:
        texts = '[("a text", "another"), ("a third, which is longer", "a fourth")]'
        segments = "np.array([encoding.type_ids for encoding in encodings], np.int32)"
    speed = f', "speed": np.array({best["speed"]}, np.float32)' if "speed" in best else ""
    whole = f"; `{FLOAT32}` is the same in float32, where no answer depends on what else is asked" if len(there) > 1 else ""
    return f"""By `{there[0]}`{whole}:

```python
import json, numpy as np, onnxruntime, tokenizers

texts = {texts}
names = json.load(open("config.json", encoding="utf-8"))["id2label"]
tokenizer = tokenizers.Tokenizer.from_file("tokenizer.json")
tokenizer.enable_truncation({run.settings.maxlen})
tokenizer.enable_padding(pad_id={pad_id})
encodings = tokenizer.encode_batch(texts)
token_ids = np.array([encoding.ids for encoding in encodings], np.int32)
inputs = {{"token_ids": token_ids, "segment_ids": {segments}{speed}}}
session = onnxruntime.InferenceSession("{there[0]}", providers=["CPUExecutionProvider"])
probabilities = session.run(["probabilities"], inputs)[0]  # (texts, classes)
for text, p in zip(texts, probabilities):
    print(f"{{p.max():.1%}} {{names[str(p.argmax())]}}: {{text}}")
```"""
