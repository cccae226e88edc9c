"""A student's ONNX graph made of its weights, in float32 and in int8, against what people use otherwise, and its teacher's.

Otherwise: TensorFlow, tf2onnx's graph, and what `tests.benchmarks.pytorch` has, where that is installed.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from scipy.special import softmax

from common.backend import forget_models, tf
from common.bert import TEXT_SIGNATURE, build_classifier, classifier_graph, swap_pad_id
from data import berts, texts, vocabulary
from export.checks import TOLERANCE
from export.onnx_files import convert
from export.onnx_graph import text_graph
from export.onnx_int8 import quantized
from export.student import write_saved_model
from export.timing import turns
from tests import tiny
from tests.benchmarks import pytorch

TITLE = "answering 32 posts, 48 tokens, 3 layers, in onnxruntime"
COUNT, TOKENS, DEMO_TOKENS = 32, 48, 64
TRAINED, VOCABULARY = 2000, 8000  # texts that the student of the demo learns from; tokens that are kept
INT8_TOLERANCE = 0.02  # of probabilities
HEAD_SCALE = 0.05  # of the random weights of a classifier's head


@dataclass(frozen=True)
class Way:
    """A classifier on disk and how it is asked.

    path: file or folder
    open: path -> function of inputs, {name: (texts, tokens) int array}, that returns {"probabilities" or "logits": array}
    inputs: COUNT posts of full length, which are timed, then the same cut short and padded; under the names of all ways
    """

    path: Path
    open: Callable
    inputs: dict

    def start(self):
        """What answers to a slice of the texts; it and all that it holds is gone when nobody has it any more."""
        ask = self.open(self.path)
        return lambda part: ask({name: array[part] for name, array in self.inputs.items()})

    def megabytes(self):
        """On disk."""
        files = [file for file in self.path.rglob("*") if file.is_file()] if self.path.is_dir() else [self.path]
        return sum(file.stat().st_size for file in files) / 1e6


def in_tensorflow(path):
    answer = tf.saved_model.load(str(path)).signatures["serving_default"]

    def ask(inputs):
        found = answer(**{spec.name: tf.constant(inputs[spec.name]) for spec in TEXT_SIGNATURE})
        return {"probabilities": found["probabilities"].numpy()}

    return ask


def in_onnxruntime(path):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names, output = [value.name for value in session.get_inputs()], session.get_outputs()[0].name
    return lambda inputs: {output: session.run([output], {name: inputs[name] for name in names})[0]}


def with_random_head(bert, corpus):
    """`bert` as a classifier that tells texts apart, as one with a head of Keras's small random weights hardly does."""
    weights = np.random.default_rng(0).normal(0, HEAD_SCALE, (len(corpus.classes), bert.config["hidden_size"]))
    head = dict(zip(berts.OUTPUT, (weights.astype(np.float32), np.zeros(len(weights), np.float32)), strict=True))
    return replace(bert, weights=bert.weights | head)


def student_of(teacher):
    """The `data.berts.Bert` that is taught by a teacher."""
    return berts.keep_layers(teacher, berts.layers_to_keep(teacher.layers, 3, spread=True))


def inputs_of(bert, corpus, tokens):
    """The inputs of a `Way`, by the tokenizer of a BERT: {name: (2 COUNT, tokens) array}."""
    examples = tiny.tokenized(corpus.texts[: 4 * COUNT], bert, tokens)
    full = np.flatnonzero(examples.lengths(np.arange(4 * COUNT)) == tokens)[:COUNT]
    assert len(full) == COUNT, f"{len(full)} posts have {tokens} tokens, {COUNT} are needed"
    token_ids, segment_ids = map(np.asarray, examples.inputs(full))
    token_ids = np.asarray(swap_pad_id(token_ids, bert.pad_id))
    begun = np.arange(tokens) < np.linspace(1, tokens, COUNT)[:, None]
    token_ids = np.concatenate([token_ids, np.where(begun, token_ids, bert.pad_id)]).astype(np.int32)
    segment_ids = np.concatenate([segment_ids, segment_ids])
    theirs = zip(pytorch.INPUTS, (token_ids, token_ids != bert.pad_id, segment_ids), strict=True)
    return {"token_ids": token_ids, "segment_ids": segment_ids} | {name: array.astype(np.int64) for name, array in theirs}


def ways_of(bert, corpus, tokens, folder, graphs):
    """{name: Way} of ONNX graphs of a BERT, {name: onnx.ModelProto}, which are written to a folder."""
    ways, inputs = {}, inputs_of(bert, corpus, tokens)
    for name, graph in graphs.items():
        ways[name] = Way(folder / f"{name}.onnx", in_onnxruntime, inputs)
        onnx.save(graph, ways[name].path)
    return ways


def one_student(folder):
    """{name: Way} of one student in TensorFlow, by tf2onnx and by us. Returns (them, its `data.berts.Bert`, its corpus)."""
    forget_models()
    corpus = texts.load("20newsgroups")
    bert = student_of(with_random_head(berts.load("minilm-l6"), corpus))
    graph, ours = classifier_graph(build_classifier(bert, len(corpus.classes), dropout=0.0)), text_graph(bert)
    write_saved_model(folder, graph)
    graphs = {"tf2onnx": convert(graph, TEXT_SIGNATURE), "ours": ours, "ours, int8": quantized(ours)}
    ways = ways_of(bert, corpus, TOKENS, folder, graphs)
    ways = {"TensorFlow": Way(folder / "saved_model", in_tensorflow, ways["ours"].inputs)} | ways
    check(ways)
    return ways, bert, corpus


def with_pytorch(folder, ways, bert, corpus):
    """The ways of `one_student`, and those of PyTorch before our own. Returns (them, a line about PyTorch)."""
    (name, path), *exports = pytorch.write(folder, bert, corpus.classes).items()
    inputs = ways["ours"].inputs
    theirs = {name: Way(path, pytorch.in_pytorch, inputs)} | {name: Way(path, in_onnxruntime, inputs) for name, path in exports}
    ways = {name: way for name, way in ways.items() if "ours" not in name} | theirs | ways
    check(ways)
    return ways, pytorch.about(path)


def check(ways):
    """All ways answer as the first one does, to texts of full length and to padded ones; in int8 nearly."""
    answers = {name: way.start()(slice(None)) for name, way in ways.items()}
    found = {
        name: answer["probabilities"] if "probabilities" in answer else softmax(answer["logits"], axis=-1)
        for name, answer in answers.items()
    }
    expected = next(iter(found.values()))
    assert np.ptp(expected, axis=0).min() > 0.01, "the texts are hardly told apart"
    for name, probabilities in found.items():
        allowed = INT8_TOLERANCE if "int8" in name else TOLERANCE
        np.testing.assert_allclose(probabilities, expected, rtol=0, atol=allowed, err_msg=name)


def milliseconds(ways, *sizes):
    """{name: [ms of a call with so many texts, of each size]}, the mean over all calls that it takes to ask COUNT."""
    parts = [(size, slice(i, i + size)) for size in sizes for i in range(0, COUNT, size)]
    seconds = turns({name: way.start for name, way in ways.items()}, [part for _, part in parts])
    size_of = np.array([size for size, _ in parts])
    return {name: [1000 * taken[size_of == size].mean() for size in sizes] for name, taken in seconds.items()}


def measure():
    """(tf2onnx's graph, ours), seconds of a call with 32 texts in float32."""
    with tempfile.TemporaryDirectory() as folder:
        ways, *_ = one_student(Path(folder))
        times = milliseconds({name: ways[name] for name in ("tf2onnx", "ours")}, COUNT)
    return tuple(ms / 1000 for (ms,) in times.values())


def detail():
    """Tables, header first, and a line: ms of a call with one text and with 32, and the size on disk.

    Of one student, asked in all ways there are; and of a teacher and its student, as ours are.
    """
    with tempfile.TemporaryDirectory() as folder:
        ways, bert, corpus = one_student(Path(folder))
        missing = pytorch.missing()
        if missing:
            about = f"No rows of PyTorch: {', '.join(missing)} missing; pip install {' '.join(missing)}"
        else:
            ways, about = with_pytorch(Path(folder), ways, bert, corpus)
        times = milliseconds(ways, 1, COUNT)
        yield [[f"{TOKENS} tokens, 3 layers of 384", "1 text, ms", "32 texts, ms", "MB"]] + [
            [name, f"{times[name][0]:.1f}", f"{times[name][1]:.0f}", f"{way.megabytes():.1f}"] for name, way in ways.items()
        ]
        yield about
    with tempfile.TemporaryDirectory() as folder:
        yield smaller_and_faster(Path(folder))


def smaller_and_faster(folder):
    """Rows of strings, header first: what a student gains over a teacher of six layers, by fewer layers, fewer tokens, int8."""
    corpus = texts.load("20newsgroups")
    teacher = with_random_head(berts.load("minilm-l6"), corpus)
    student = student_of(teacher)
    graph = text_graph(student)
    ways = ways_of(teacher, corpus, DEMO_TOKENS, folder, {f"teacher, {teacher.layers} layers": text_graph(teacher)})
    ways |= ways_of(student, corpus, DEMO_TOKENS, folder, {f"student, {student.layers} layers": graph})
    trimmed = vocabulary.trim(student, [corpus.texts[index] for index in corpus.pool[:TRAINED]], VOCABULARY)
    graph = text_graph(trimmed)
    ways |= ways_of(trimmed, corpus, DEMO_TOKENS, folder, {
        f"student, {VOCABULARY:,} tokens": graph, "the same, int8": quantized(graph),
    })
    times = milliseconds(ways, 1, COUNT)
    rows = [[f"{DEMO_TOKENS} tokens", "1 text, ms", "x as fast", "32 texts, ms", "x as fast", "MB", "x smaller"]]
    first = next(iter(ways))
    for name, way in ways.items():
        (one, many), (its_one, its_many), size = times[first], times[name], way.megabytes()
        rows.append([name, f"{its_one:.1f}", f"{one / its_one:.1f}", f"{its_many:.0f}", f"{many / its_many:.1f}", f"{size:.1f}",
                     f"{ways[first].megabytes() / size:.1f}"])
    return rows
