"""The student to take away, student/: Hugging Face's files, a SavedModel, a model card, ONNX; read back and checked.

What is written here must work where this repository is not.
"""

import importlib.util
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from safetensors import safe_open
from scipy.special import softmax

from common import InputError
from common.backend import in_float32, inference_graph, tf
from common.bert import build_encoder, classifier_graph, read_encoder, swap_pad_id
from common.evaluation import plainest
from common.files import atomic_folder, write_json, write_text
from common.linear import LINEAR
from common.report.document import Section, correct_answers
from common.report.tables import by_name, markdown, student_table
from data import berts, teachers
from data.sources import SOURCES
from data.students import ask, load
from export.checks import TOLERANCE, check_equal, check_weights
from export.onnx_files import FLOAT32, INT8, convert, onnx_of, write_int8, write_onnx


def check_packages(settings, *packages):
    """Raise InputError, before anything is trained, if what `export` among the settings asks for is not installed.

    packages: what --export onnx needs of this script's students
    """
    for package in packages if "onnx" in settings.export else ():
        if importlib.util.find_spec(package) is None:
            raise InputError(f"--export onnx needs the package {package}: pip install {' '.join(packages)}")


def write_student(runs, records, names, teacher, write, story=""):
    """Write to student/ the `plainest` of the models that are best on the validation part; delete it if there is none.

    Of the chosen model's seeds it is the best one there.

    runs: of all seeds, each with its own validation part
    records: of the finished stages
    names: of the students, the plainest first
    teacher: name of the teacher, which the report holds the student against
    write: of `text_writer` or `image_writer`
    story: the script's docstring, for the model card; without it there is none

    Returns (which it is, in words; sections of the report).
    """
    groups = dict(by_name(records))
    students = {name: groups[name] for name in names if name in groups}
    if not students:
        shutil.rmtree(runs[0].folder / "student", ignore_errors=True)  # of an earlier start
        return "none: no student in the table", []
    chosen, choice = plainest({name: np.stack([correct_answers(run, name, "validation") for run in runs]) for name in students})
    best = max(students[chosen], key=lambda record: record["validation_accuracy"])
    beside = {record["name"]: record for record in records if record["seed"] == best["seed"]}
    run, deep = run_of_seed(runs, best), beside.get(teacher)
    with in_float32(run.settings.precision), atomic_folder(run.folder / "student") as folder:
        size, remark = write(folder, run, best)
        sizes = deep and (run.stage(teacher) / "weights.npz").stat().st_size, size
        table = student_table(deep, best, sizes, beside.get(LINEAR))
        if story:
            write_text(folder / "README.md", model_card(story, run, best, table, folder))
    words = f"{chosen}, seed {best['seed']}" + (f", speed {best['speed']:g}" if "speed" in best else "")
    note = ("Of one seed; bytes of the weights in float32. `student/` was read back and asked 32 test texts or images: its "
            f"probabilities are those of the trained model to {TOLERANCE:.0e}.")
    if choice["best"] != chosen:
        note += (f" On the validation part {choice['best']} leads {chosen} by {100 * choice['lead']:.2f} points, within the "
                 f"standard error of this difference, {100 * choice['noise']:.2f}: so the plainer one is taken.")
    return words, [Section("The student to take away", table, note, remark)]


def run_of_seed(runs, record):
    """The run of a record's seed, with its own parts."""
    return next(run for run in runs if run.seed == record["seed"])


# Students of texts -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TextModel:
    """A trained model of texts, as it is given away."""

    bert: berts.Bert  # with the trained weights; without a classifier's, if it has exits instead
    graph: Callable  # a `backend.inference_graph`, to {"probabilities", …}
    onnx_graph: Callable | None = None  # () -> its onnx.ModelProto, if `bert` is no classifier
    config: dict = field(default_factory=dict)  # further entries of config.json


def text_model(classifier):
    """The TextModel of a `bert.BertClassifier`."""
    return TextModel(classifier.bert, classifier_graph(classifier))


def text_writer(build):
    """What writes a model of texts for `write_student`, and checks it.

    What TensorFlow, Hugging Face's formula and ONNX make of the files is what the model answers; of int8, nearly.

    build: (run of its seed, its record) -> TextModel, in float32

    Returns (folder, run, record) -> (bytes of the weights, what is to be said of int8, or "").
    """
    def write(folder, run, best):
        model, tested = build(run, best), run.parts.test[:32]
        token_ids, segment_ids = run.examples.inputs(tested)
        inputs = {"token_ids": np.array(swap_pad_id(token_ids, model.bert.pad_id)), "segment_ids": segment_ids}
        inputs |= {"speed": np.array(model.config["speed"], np.float32)} if "speed" in model.config else {}
        expected = model.graph(*inputs.values())["probabilities"].numpy()
        berts.save(folder, model.bert, run.corpus.classes, **reads(run), **model.config)
        written = berts.load(str(folder))
        check_weights(written, {name: model.bert.weights[name] for name in berts.expected_shapes(model.bert.config)})
        write_saved_model(folder, model.graph)
        answers = ask(load(folder), [run.corpus.texts[index] for index in tested])["probabilities"]
        check_equal(f"{folder.name}/saved_model", answers, expected)
        weights = (folder / "saved_model").rglob("*")
        if model.bert.is_classifier:
            weights = [folder / "model.safetensors"]
            answers = hugging_face_answer(folder, written, token_ids, segment_ids)
            check_equal(f"{folder.name}/model.safetensors", answers, expected)
        remark = ""
        if "onnx" in run.settings.export:
            write_onnx(folder, onnx_of(model), model.graph, inputs)
            if model.bert.is_classifier:
                remark = write_int8(folder, run, model.bert.pad_id)
        return sum(file.stat().st_size for file in weights), remark

    return write


def write_teacher(runs, records, name, build, linear_head=True):
    """Write to teacher/ the teacher that is best on the validation part, as --teacher takes it; delete it if there is none.

    runs: of all seeds
    records: of the finished stages
    name: of the teacher
    build: (run of its seed, its name) -> BertClassifier with the trained weights
    linear_head: whether its head is a `bert.build_head`. Hugging Face's layout has no place for another: then --teacher cannot
        take it, but the SavedModel of it can be asked, as that of a student
    """
    candidates = [record for record in records if record["name"] == name]
    if not candidates:
        return shutil.rmtree(runs[0].folder / "teacher", ignore_errors=True)
    run = run_of_seed(runs, max(candidates, key=lambda record: record["validation_accuracy"]))
    with in_float32(run.settings.precision), atomic_folder(run.folder / "teacher") as folder:
        classifier = build(run, name)
        if not linear_head:
            model = TextModel(read_encoder(classifier.encoder, classifier.start), classifier_graph(classifier))
            return text_writer(lambda *_: model)(folder, replace(run, settings=replace(run.settings, export=())), None)
        bert = classifier.bert
        berts.save(folder, bert, run.corpus.classes, **reads(run))
        check_weights(teachers.load(str(folder), run.corpus), bert.weights)


def reads(run):
    """Entries of config.json that say what texts a model of this run reads."""
    return {"maxlen": run.settings.maxlen} | ({"pairs": True} if run.corpus.pairs else {})


def hugging_face_answer(folder, bert, token_ids, segment_ids):
    """What BertForSequenceClassification makes of the files that `berts.save` wrote: probabilities (texts, classes) float32.

    softmax(W · tanh(P h_[CLS] + p) + b), read back and computed here.

    folder: Path
    bert: read from there
    token_ids, segment_ids: (texts, tokens) int32, as bert4keras takes them
    """
    encoder = build_encoder(bert, dropout=0.0)
    with safe_open(folder / "model.safetensors", framework="np") as file:
        pooler, classifier = (
            [file.get_tensor(f"{name}.{part}") for part in ("weight", "bias")] for name in ("bert.pooler.dense", "classifier")
        )
    hidden = encoder.model.predict_on_batch([token_ids, segment_ids])[:, 0]
    pooled = np.tanh(hidden @ pooler[0].T + pooler[1])
    return softmax(pooled @ classifier[0].T + classifier[1], axis=-1)


def model_card(story, run, best, table, folder):
    """README.md of a student of texts, in Markdown.

    story: the script's docstring, whose first two paragraphs say what was done
    run: of the student's seed
    best: its record
    table: rows of `student_table`
    folder: the student's; what of ONNX is there the card tells how to ask
    """
    base, data = (Path(name).name for name in (run.bert.source, run.corpus.name))
    licences = {name: SOURCES[name].licence for name in (run.bert.source, run.corpus.name) if name in SOURCES}
    licence = licences.get(run.bert.source)
    speed = f", speed=tf.constant({best['speed']:g})" if "speed" in best else ""
    kind, asked, segments = "texts", '"a text"', "tf.zeros_like(ids)"
    if run.corpus.pairs:
        kind, asked, segments = "pairs of texts", '{"text": "a text", "text_pair": "another"}', "type_ids"
    code = ['answer = tf.saved_model.load("saved_model").signatures["serving_default"]',
            f"answer(token_ids=ids, segment_ids={segments}{speed})  # int32 ({kind}, tokens), padding {run.bert.pad_id}"]
    if not speed:
        code = [f'transformers.pipeline("text-classification", ".", truncation=True)({asked})', *code]
    front = ["---", "pipeline_tag: text-classification", "tags: [knowledge-distillation, bert]",
             *([f"license: {licence.lower()}"] if licence else []), "---"]
    return "\n\n".join([
        "\n".join(front),
        f"# {best['name']} of {base} on {data}",
        *(" ".join(paragraph.split()) for paragraph in story.split("\n\n")[:2]),
        f"This is `{best['name']}` of seed {best['seed']}: {best['layers']:.3g} layers of {base}, taught on "
        f"{len(run.parts.train):,} labelled {kind} of {data}, {len(run.corpus.classes)} classes, up to {run.settings.maxlen} "
        "tokens.",
        f"Licences: {'; '.join(f'{name}: {text}' for name, text in licences.items()) or 'those of ' + base}. The model's own "
        "licence is that of the model it was made from.",
        f"Accuracy on {len(run.parts.test):,} test {kind}; latency of one and of 32 together, in milliseconds:",
        markdown(table),
        "```python\n" + "\n".join(code) + "\n```",
        *onnx_section(run, best, folder),
    ]) + "\n"


def onnx_section(run, best, folder):
    """[How the smallest ONNX file in `folder` is asked with onnxruntime, tokenizers and numpy alone], or [] if there is none.

    run: of the student's seed
    best: its record
    folder: Path
    """
    there = [name for name in (INT8, FLOAT32) if (folder / name).is_file()]
    if not there:
        return []
    texts, segments = '["a text", "another, which is longer"]', "np.zeros_like(token_ids)"
    if run.corpus.pairs:
        texts = '[("a text", "another"), ("a third, which is longer", "a fourth")]'
        segments = "np.array([encoding.type_ids for encoding in encodings], np.int32)"
    speed = f', "speed": np.array({best["speed"]:g}, np.float32)' if "speed" in best else ""
    whole = f"; `{FLOAT32}` is the same in float32, where no answer depends on what else is asked" if len(there) > 1 else ""
    return [f"Without TensorFlow, by `{there[0]}`{whole}:", f"""```python
import json, numpy as np, onnxruntime, tokenizers

texts = {texts}
names = json.load(open("config.json", encoding="utf-8"))["id2label"]
tokenizer = tokenizers.Tokenizer.from_file("tokenizer.json")
tokenizer.enable_truncation({run.settings.maxlen})
tokenizer.enable_padding(pad_id={run.bert.pad_id})
encodings = tokenizer.encode_batch(texts)
token_ids = np.array([encoding.ids for encoding in encodings], np.int32)
inputs = {{"token_ids": token_ids, "segment_ids": {segments}{speed}}}
session = onnxruntime.InferenceSession("{there[0]}", providers=["CPUExecutionProvider"])
probabilities = session.run(["probabilities"], inputs)[0]  # (texts, classes)
for text, p in zip(texts, probabilities):
    print(f"{{p.max():.1%}} {{names[str(p.argmax())]}}: {{text}}")
```"""]


# Students of images ----------------------------------------------------------------------------------------------------


def image_writer(build):
    """What writes a model of images for `write_student`, as `text_writer` does.

    build: (run of its seed, its record) -> Keras model, in float32
    """
    def write(folder, run, best):
        classifier, pixels = build(run, best), run.examples.inputs(run.parts.test[:32])
        signature = (tf.TensorSpec((None, *pixels.shape[1:]), tf.float32, name="images"),)
        graph = inference_graph(lambda images: {"probabilities": tf.nn.softmax(classifier(images, training=False))}, *signature)
        write_saved_model(folder, graph)
        answer = tf.saved_model.load(str(folder / "saved_model")).signatures["serving_default"]
        expected = tf.nn.softmax(classifier.predict_on_batch(pixels)).numpy()
        check_equal(f"{folder.name}/saved_model", answer(images=tf.constant(pixels))["probabilities"].numpy(), expected)
        if "onnx" in run.settings.export:
            write_onnx(folder, lambda: convert(graph, signature), graph, {"images": pixels})
        kind = f"float32 (batch, {run.corpus.size}), from 0 to 1"
        write_json(folder / "classes.json", {"images": kind, "classes": run.corpus.classes})
        return (run.stage(best["name"]) / "weights.npz").stat().st_size, ""

    return write


# Both ------------------------------------------------------------------------------------------------------------------


def write_saved_model(folder, graph):
    """Write a `backend.inference_graph` as the SavedModel `folder`/saved_model, which TensorFlow alone can load."""
    tf.saved_model.save(tf.Module(), str(folder / "saved_model"), signatures=graph)  # a bare module: no Keras is needed
