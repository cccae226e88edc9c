"""The student to take away, student/: Hugging Face's files, ONNX, a SavedModel, a model card; and linear/. All read back.

What is written here must work where this repository is not.
"""

import importlib.util
import shutil
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from common import InputError
from common.backend import forget_models, in_float32, tf
from common.bert import classifier_graph, read_encoder, swap_pad_id
from common.evaluation import plainest
from common.exit_curve import right_exits
from common.files import atomic_folder, delete_advice, write_bytes, write_json, write_text
from common.linear import LINEAR, MODEL
from data import berts, bilstms, linear_models, teachers, vocabulary
from data.students import FLOAT32, INT8
from export.card import linear_card, model_card
from export.checks import TOLERANCE, check_equal, check_promise, check_weights, hugging_face_answer, rebuilt_answer
from export.deployed import (
    Deployed,
    TextModel,
    deploy,
    deployment_figures,
    examples_of,
    other_answers,
    remark_on,
    run_texts,
    speed_of,
)
from export.onnx_files import convert, on_the_edge, write_onnx
from report.document import Section, correct_answers
from report.tables import by_name, student_table


def check_packages(settings):
    """Raise InputError, before anything is trained, if what --export onnx needs for images is asked for and not installed."""
    if "onnx" in settings.export and importlib.util.find_spec("tf2onnx") is None:
        raise InputError("--export onnx needs the package tf2onnx: pip install tf2onnx")


@dataclass(frozen=True)
class Written:
    """What was written of a student."""

    files: list  # rows of `student_table`, {"name", "bytes", "parameters", "accuracy", "latency_ms"} each
    remark: str = ""  # on them, in words
    figures: dict = field(default_factory=dict)  # of `deployment_figures`, for results.json


def write_student(runs, records, names, teacher, write, story=""):
    """Write to student/ the `plainest` of the models that are best on the validation part; delete it if there is none.

    Of the chosen model's seeds it is the best one there. Models that promise something are held against each other by their
    exits, not by what they answer at their speeds, which the calibration texts chose: the best of several promises keeps none.

    runs: of all seeds, each with its own validation part
    records: of the finished stages
    names: of the students, the plainest first
    teacher: name of the teacher, which the report holds the student against
    write: of `text_writer` or `image_writer`
    story: the script's docstring, for the model card

    Returns (which it is, in words; sections of the report; entries of results.json).
    """
    groups = dict(by_name(records))
    students = {name: groups[name] for name in names if name in groups}
    if not students:
        shutil.rmtree(runs[0].folder / "student", ignore_errors=True)  # of an earlier start
        return "none: no student in the table", [], {}
    promises = any("promise" in record for record in records)
    right_of = right_exits if promises else correct_answers
    right = {name: np.stack([right_of(run, name, "validation") for run in runs]) for name in students}
    chosen, choice = plainest(right, np.stack([run.parts.validation for run in runs]))
    reached = dict(zip((run.seed for run in runs), right[chosen].mean(axis=1), strict=True))
    ranked = sorted(students[chosen], key=lambda record: -reached[record["seed"]])
    seeds = [(run_of_seed(runs, record), record) for record in ranked]
    (run, best), beside = seeds[0], {record["name"]: record for record in records if record["seed"] == ranked[0]["seed"]}
    table = partial(student_table, beside.get(teacher), best, linear=beside.get(LINEAR))  # of its files
    with in_float32(run.settings.precision), atomic_folder(run.folder / "student") as folder:
        written = write(folder, seeds, table, story)
    words = f"{chosen}, seed {best['seed']}" + (f", speed {best['speed']:g}" if "speed" in best else "")
    note = ("Of one seed; MB of what is not yet a file are 4 bytes a parameter, times are those with all tokens. `student/` "
            f"was read back and asked 32 test texts or images: its probabilities are the trained model's to {TOLERANCE:.0e}.")
    if choice["best"] != chosen:
        part = f"validation part{', in the mean of their branches,' if promises else ''}"
        note += (f" On the {part} {choice['best']} leads {chosen} by {100 * choice['lead']:.2f} points, within the "
                 f"standard error of this difference, {100 * choice['noise']:.2f}: so the plainer one is taken.")
    told = {"student": {"name": chosen, "seed": best["seed"], "files": written.files} | written.figures}
    return words, [Section("The student to take away", table(written.files), note, written.remark)], told


def write_linear(runs, records):
    """Write to linear/ the linear model that is best on the validation part; delete it if there is none.

    runs: of all seeds
    records: of the linear models

    Returns {"linear": which it is, in words}, or {}.
    """
    target = runs[0].folder / "linear"
    if not records:
        shutil.rmtree(target, ignore_errors=True)  # of an earlier start
        return {}
    best = max(records, key=lambda record: record["validation_accuracy"])
    run, name = run_of_seed(runs, best), best["name"]
    stage = run.stage(name)
    with atomic_folder(target) as folder:
        try:
            stored, logits = linear_models.load(stage / MODEL), run.logits(name, "test")[:32]
        except InputError:
            raise InputError(f"{stage / MODEL} is damaged; {delete_advice(stage)}") from None
        linear_models.save(folder, stored)
        written = linear_models.load(folder)
        answer = written.probabilities(run_texts(run, run.parts.test[:32]))
        check_equal(folder.name, answer, tf.nn.softmax(written.inverse_temperature * logits).numpy())
        write_text(folder / "README.md", linear_card(run, best))
    return {folder.name: f"{name}, seed {best['seed']}"}


def run_of_seed(runs, record):
    """The run of a record's seed, with its own parts."""
    return next(run for run in runs if run.seed == record["seed"])


# Of texts --------------------------------------------------------------------------------------------------------------


def text_writer(build):
    """What writes a model of texts for `write_student`, and checks it.

    What TensorFlow, Hugging Face's formula and ONNX make of the files is what the trained model answers to the same tokens; of
    int8, nearly.

    build: (run of its seed, its record) -> TextModel, in float32
    """
    def write(folder, seeds, table, story):
        (run, best), *_ = seeds
        deployed = deploy(run, build(run, best))
        write_files(folder, run, deployed)
        size = (folder / INT8).stat().st_size if INT8 in deployed.graphs else None
        measured, others = deployment_figures(seeds, deployed, build), other_answers(run, deployed)
        if others:
            check_promise(best["promise"], others[FLOAT32])
            measured |= {"promise": best["promise"], "disagreements": others}
        removed = (measured["all_tokens"] - measured["tokens"]) * deployed.bert.config["hidden_size"]
        files = [
            {"name": name, "bytes": (folder / name).stat().st_size, "parameters": best["parameters"] - removed,
             "accuracy": measured["accuracy"][name], "latency_ms": best[key]}
            for name, key in ((FLOAT32, "latency_ms"), (INT8, "int8_latency_ms")) if name in deployed.graphs
        ]
        write_text(folder / "README.md", model_card(story, run, best, deployed.bert, table(files), folder, others))
        return Written(files, remark_on(measured, deployed, size), measured)

    return write


def write_files(folder, run, deployed):
    """Write the files of a `Deployed` to `folder`, and hold them against the trained model: RuntimeError if they differ."""
    model, bert, tested = deployed.model, deployed.bert, run.parts.test[:32]
    examples = examples_of(run, bert, tested)
    token_ids, segment_ids = examples.inputs(np.arange(len(tested)))
    speed = [] if speed_of(model) is None else [np.array(speed_of(model), np.float32)]
    inputs = [np.array(swap_pad_id(token_ids, bert.pad_id)), segment_ids, *speed]
    named = dict(zip(("token_ids", "segment_ids", "speed"), inputs, strict=False))
    expected = answers_as_trained(deployed, inputs)
    write_saved_model(folder, model.graph(bert))
    answers = ask_saved_model(folder, named)
    alike = ~on_the_edge(answers, expected, *speed) if speed else slice(None)
    check_equal(f"{folder.name}/saved_model", answers["probabilities"][alike], expected["probabilities"][alike])
    write_weights(folder, run, deployed, expected["probabilities"])
    forget_models()
    write_onnx(folder, lambda: deployed.graphs[FLOAT32], named, expected)
    if INT8 in deployed.graphs:
        write_bytes(folder / INT8, deployed.graphs[INT8])


def write_weights(folder, run, deployed, probabilities):
    """Write config, weights and tokenizer of a `Deployed`, and hold them against the trained model, as `write_files` does.

    probabilities: (texts, classes) of the trained model, of the first test texts
    """
    bert, tested = deployed.bert, run.parts.test[: len(probabilities)]
    written = save_and_load(folder, bert, run.corpus.classes, **reads(run), **deployed.model.config)
    if bert.is_classifier:
        answer_of_files = rebuilt_answer if bert.kind == bilstms.KIND else partial(hugging_face_answer, folder)
        found = answer_of_files(written, *examples_of(run, written, tested).inputs(np.arange(len(tested))))
        check_equal(f"{folder.name}/model.safetensors", found, probabilities)


def save_and_load(folder, bert, classes, **config):
    """Write config, weights and tokenizer of a model to `folder`, and read them back: RuntimeError if the weights differ.

    For the parameters see `data.berts.save`. Returns what was read: a `data.berts.Bert`, without a BERT's classifier.
    """
    if bert.kind == bilstms.KIND:
        bilstms.save(folder, bert, classes, **config)
        written, names = bilstms.load(folder), bert.weights
    else:
        berts.save(folder, bert, classes, **config)
        written, names = berts.load(str(folder)), berts.expected_shapes(bert.config)
    check_weights(written, {name: bert.weights[name] for name in names})
    return written


def answers_as_trained(deployed, inputs):
    """What the trained model, with all its tokens, answers to the tokens that the trimmed one has: {name: array}.

    deployed: the Deployed
    inputs: token ids as its tokenizer makes them, segment ids, and speed if it takes one
    """
    model = deployed.model
    token_ids = vocabulary.original_ids(model.bert, deployed.bert)[inputs[0]]
    answers = model.graph(model.bert)(token_ids.astype(np.int32), *inputs[1:])
    return {name: value.numpy() for name, value in answers.items()}


def write_teacher(runs, records, name, build, seed=None, branch_graph=None):
    """Write to teacher/ the student's own teacher, as --teacher takes it; delete it if there is none.

    runs: of all seeds
    records: of the finished stages
    name: of the teacher
    build: (run of its seed, its name) -> BertClassifier with the trained weights
    seed: of the student that is written; None, without one, takes the best on the validation part
    branch_graph: (BertClassifier, Bert) -> onnx.ModelProto of one whose head is no `bert.build_head`. Hugging Face's layout has
        no place for such a head: --teacher cannot take it, but it can be asked as a student can
    """
    candidates = [record for record in records if record["name"] == name and seed in (None, record["seed"])]
    if not candidates:
        return shutil.rmtree(runs[0].folder / "teacher", ignore_errors=True)
    run = run_of_seed(runs, max(candidates, key=lambda record: record["validation_accuracy"]))
    with in_float32(run.settings.precision), atomic_folder(run.folder / "teacher") as folder:
        classifier = build(run, name)
        if branch_graph:
            bert = read_encoder(classifier.encoder, classifier.start)
            model = TextModel(bert, lambda _: classifier_graph(classifier), partial(branch_graph, classifier))
            return write_files(folder, run, Deployed(model, bert, {FLOAT32: model.onnx_graph(bert).SerializeToString()}, 0, ""))
        bert = classifier.bert
        berts.save(folder, bert, run.corpus.classes, **reads(run))
        check_weights(teachers.load(str(folder), run.corpus), bert.weights)


def reads(run):
    """Entries of config.json that say what texts a model of this run reads."""
    return {"maxlen": run.settings.maxlen} | ({"pairs": True} if run.corpus.pairs else {})


# Of images -------------------------------------------------------------------------------------------------------------


def image_writer(build):
    """What writes a model of images for `write_student`, as `text_writer` does.

    build: (run of its seed, its record) -> Keras model, in float32
    """
    def write(folder, seeds, table, story):
        (run, best), *_ = seeds
        classifier, pixels = build(run, best), run.examples.inputs(run.parts.test[:32])
        signature = (tf.TensorSpec((None, *pixels.shape[1:]), tf.float32, name="images"),)
        classify = tf.function(lambda images: {"probabilities": tf.nn.softmax(classifier(images, training=False))},
                               input_signature=signature, autograph=False)
        write_saved_model(folder, classify)
        expected = {"probabilities": tf.nn.softmax(classifier.predict_on_batch(pixels)).numpy()}
        answers = ask_saved_model(folder, {"images": pixels})
        check_equal(f"{folder.name}/saved_model", answers["probabilities"], expected["probabilities"])
        if "onnx" in run.settings.export:
            write_onnx(folder, lambda: convert(classify, signature).SerializeToString(), {"images": pixels}, expected)
        kind = f"float32 (batch, {run.corpus.size}), from 0 to 1"
        write_json(folder / "classes.json", {"images": kind, "classes": run.corpus.classes})
        return Written([])

    return write


# Both ------------------------------------------------------------------------------------------------------------------


def write_saved_model(folder, graph):
    """Write a tf.function as the SavedModel `folder`/saved_model, which TensorFlow alone can load.

    graph: with an input_signature. Its variables stay variables: of constants TensorFlow holds seven copies, and as many more
        in whoever loads and asks them
    """
    module = tf.Module()  # a bare one: no Keras is needed
    module.weights = graph.get_concrete_function().variables
    tf.saved_model.save(module, str(folder / "saved_model"), signatures=graph)


def ask_saved_model(folder, inputs):
    """What the SavedModel in `folder` answers to arrays: {name: array}. inputs: the same"""
    answer = tf.saved_model.load(str(folder / "saved_model")).signatures["serving_default"]
    return {name: value.numpy() for name, value in answer(**tf.nest.map_structure(tf.constant, inputs)).items()}
