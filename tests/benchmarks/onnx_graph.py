"""A student's ONNX graph made of its weights, in float32 and in int8, against tf2onnx's and against TensorFlow."""

import tempfile
from pathlib import Path

import numpy as np
import onnxruntime

from common.backend import forget_models, tf
from common.bert import TEXT_SIGNATURE, build_classifier
from data import berts, texts
from export import student as export
from export.checks import TOLERANCE
from export.onnx_files import convert
from export.onnx_graph import text_graph
from export.onnx_int8 import quantized
from tests import tiny
from tests.benchmarks.timing import medians

TITLE = "answering 32 posts, 48 tokens, 3 layers, in onnxruntime"
COUNT, TOKENS = 32, 48


def session(model):
    """An onnxruntime session of an onnx.ModelProto, whose threads sleep between calls.

    Unless told so they go on spinning for a while, ready for the next call, and take the cores from whoever has his turn then.
    """
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def prepare():
    """({way: function of token ids and segment ids}, {way: MB on disk}, (token ids, segment ids) of COUNT posts)."""
    forget_models()
    corpus, bert = texts.load("20newsgroups"), berts.keep_layers(berts.load("minilm-l6"), range(3))
    examples = tiny.tokenized(corpus.texts[: 4 * COUNT], bert, TOKENS)
    full = np.flatnonzero(examples.lengths(np.arange(4 * COUNT)) == TOKENS)[:COUNT]
    assert len(full) == COUNT, f"{len(full)} posts have {TOKENS} tokens, {COUNT} are needed"
    model = export.text_model(build_classifier(bert, len(corpus.classes), dropout=0.0))
    ours = text_graph(model.bert)
    models = {"tf2onnx": convert(model.graph, TEXT_SIGNATURE), "ours": ours, "ours, int8": quantized(ours)}
    size = {way: model.ByteSize() / 1e6 for way, model in models.items()}
    with tempfile.TemporaryDirectory() as folder:
        export.write_saved_model(Path(folder), model.graph)
        answer = tf.saved_model.load(f"{folder}/saved_model").signatures["serving_default"]
        size["TensorFlow"] = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file()) / 1e6

    def in_tensorflow(token_ids, segment_ids):
        found = answer(token_ids=tf.constant(token_ids), segment_ids=tf.constant(segment_ids))
        return found["probabilities"].numpy()

    def in_onnxruntime(session):
        return lambda token_ids, segment_ids: session.run(None, {"token_ids": token_ids, "segment_ids": segment_ids})[0]

    ways = {"TensorFlow": in_tensorflow} | {way: in_onnxruntime(session(model)) for way, model in models.items()}
    inputs = tuple(map(np.asarray, examples.inputs(full)))
    expected = in_tensorflow(*inputs)
    for way, ask in ways.items():
        np.testing.assert_allclose(ask(*inputs), expected, atol=0.02 if "int8" in way else TOLERANCE)
    return ways, size, inputs


def seconds(ways, inputs, batch_size, rounds):
    """{way: median seconds of a call} of all texts in batches of this size, the ways taking turns."""
    batches = [[array[i : i + batch_size] for array in inputs] for i in range(0, COUNT, batch_size)]
    runs = [lambda ask=ask: [ask(*batch) for batch in batches] for ask in ways.values()]
    return {way: taken / len(batches) for way, taken in zip(ways, medians(*runs, rounds=rounds), strict=True)}


def measure():
    """(tf2onnx's graph, ours), seconds of a call with 32 texts in float32."""
    ways, _, inputs = prepare()
    times = seconds({way: ways[way] for way in ("tf2onnx", "ours")}, inputs, COUNT, rounds=9)
    return times["tf2onnx"], times["ours"]


def detail():
    """A table, header first: milliseconds of a call with one text and with 32, and the size on disk."""
    ways, size, inputs = prepare()
    one, many = (seconds(ways, inputs, batch_size, rounds=9) for batch_size in (1, COUNT))
    rows = [["48 tokens, 3 layers of 384", "1 text, ms", "32 texts, ms", "MB"]]
    for way in ways:
        rows.append([way, f"{1000 * one[way]:.1f}", f"{1000 * many[way]:.0f}", f"{size[way]:.1f}"])
    yield rows
