"""The ONNX files of a student: model.onnx, and model.int8.onnx if validation allows it.

Graphs of texts are made by `onnx_graph` and `exit_graph`, those of images by tf2onnx; here they are written, asked and judged.
"""

import tempfile

import numpy as np
import onnx

from common import InputError, reason
from common.bert import swap_pad_id
from common.evaluation import compare
from common.files import write_bytes
from data.bucketing import by_length
from data.students import FLOAT32, session_of
from export.checks import TOLERANCE, check_equal
from export.onnx_int8 import quantized

MAX_LOSS = 0.5  # points of accuracy on the validation part that int8 may cost
CHANCE = 0.05  # below this p-value two ways to make int8 differ in how often they answer as float32


def asking(model):
    """() -> a session of its own that is asked: function of a batch, its inputs in their order -> its outputs in theirs.

    Until then it is kept on the disk: many are timed in turns, and but for the one that is asked they need no memory.

    model: onnx.ModelProto
    """
    file = tempfile.TemporaryFile()  # noqa: SIM115  closed with the function
    file.write(model.SerializeToString())

    def start():
        file.seek(0)
        return _asked(file.read())

    return start


def _asked(content):
    """What `asking` starts, of the bytes of a graph."""
    session = session_of(content, "a graph made here")
    names = [value.name for value in session.get_inputs()]
    return lambda batch: session.run(None, dict(zip(names, batch, strict=True)))


# float32 ---------------------------------------------------------------------------------------------------------------


def convert(graph, signature):
    """A tf.function as an onnx.ModelProto, by tf2onnx. signature: its inputs"""
    import tf2onnx

    return tf2onnx.convert.from_function(graph, input_signature=signature, opset=17)[0]


def write_onnx(folder, build, examples, expected):
    """Write a model as `folder`/model.onnx, and check that onnxruntime answers as the trained model does.

    folder: Path
    build: () -> bytes of its graph
    examples: arrays to ask it, by input name
    expected: what it is to answer, arrays by output name; with those of `on_the_edge` if it takes a speed

    Raises InputError if it cannot be built, or onnxruntime cannot take it.
    """
    path = folder / FLOAT32
    try:
        write_bytes(path, build())
        session = session_of(path.read_bytes(), path)
        answers = dict(zip((output.name for output in session.get_outputs()), session.run(None, examples), strict=True))
    except InputError:  # of a full disk, say, which says what it is itself
        raise
    except Exception as error:  # neither tf2onnx nor onnxruntime has a common base of its own
        raise InputError(f"student/: {FLOAT32} cannot be made or not be asked ({reason(error)})") from None
    compared = ~on_the_edge(answers, expected, examples["speed"]) if "speed" in examples else slice(None)
    for name, answer in answers.items():
        check_equal(f"{folder.name}/{FLOAT32}, {name}", answer[compared], expected[name][compared])


def on_the_edge(answers, others, speed):
    """Which texts leave two graphs of one FastBERT after other layers only because of a rounding: (texts,) bool.

    The one that leaves earlier does so by an uncertainty within TOLERANCE of the speed.

    answers, others: {"layers_used": (texts,) int, "uncertainty": (texts,) float32} of each graph
    speed: from 0 to 1
    """
    earlier = np.where(answers["layers_used"] < others["layers_used"], answers["uncertainty"], others["uncertainty"])
    return (answers["layers_used"] != others["layers_used"]) & (np.abs(earlier - speed) < TOLERANCE)


# int8 ------------------------------------------------------------------------------------------------------------------


def choose_int8(content, decide, labels, disagreement, texts):
    """An ONNX graph in int8, if it answers well enough: see `judge`.

    Where a processor has no VNNI, weights of 8 bits overflow in sums, and those of 7 answer better; where it has, 8 do. Which
    it is here, the answers say: see `bits_of_weights`.

    content: bytes of the graph in float32
    decide: bytes of a graph -> its most probable classes of the texts it is judged by, (texts,) int
    labels: of these, (texts,) int
    disagreement: per cent of them that it may class otherwise
    texts: what they are, in words

    Returns (bytes of the graph or None, bits of its weights, in words how it answers or why it does not).
    """
    expected = decide(content)
    graphs = {bits: in_int8(content, bits) for bits in (8, 7)}
    try:
        found = {bits: decide(graph) for bits, graph in graphs.items()}
    except InputError as error:  # of onnxruntime, which may not have such operators here; float32 it has
        return None, 8, str(error)
    bits = bits_of_weights(expected, found)
    allowed, words = judge(labels, expected, found[bits], disagreement, texts)
    return graphs[bits] if allowed else None, bits, words


def in_int8(content, bits):
    """The bytes of `onnx_int8.quantized` of a graph. A session is made of bytes: no ModelProto need lie beside them in memory.

    content: bytes of the graph in float32
    bits: of its weights in integers, 8 or 7
    """
    return quantized(onnx.load_from_string(content), reduce_range=bits < 8).SerializeToString()


def decisions(content, examples, pad_id, speed=None):
    """The most probable classes of texts by an ONNX graph, (texts,) int; in the batches of `evaluation.predict`.

    Of int8 the answer to a text depends a little on which texts are asked with it.

    content: bytes of the graph
    examples: TokenizedTexts, all of which are asked
    pad_id: of the tokenizer that made them
    speed: of a FastBERT, from 0 to 1
    """
    ask, indices = _asked(content), np.arange(len(examples.offsets) - 1)
    found, more = np.empty(len(indices), int), [] if speed is None else [np.array(speed, np.float32)]
    for batch in by_length(examples.lengths(indices), examples.predict_batch_size):
        token_ids, segment_ids = examples.inputs(indices[batch])
        found[batch] = ask((np.array(swap_pad_id(token_ids, pad_id)), segment_ids, *more))[0].argmax(-1)
    return found


def bits_of_weights(expected, found):
    """7, if int8 with weights of 7 bits measurably more often gives the class that float32 gives, by McNemar's test; else 8.

    expected: (texts,) int, most probable classes by float32
    found: {8: (texts,) int, 7: (texts,) int}, the same by int8 with weights of so many bits
    """
    gain = compare(*((found[bits] == expected)[None] for bits in (7, 8)))
    return 7 if gain["difference"] > 0 and gain["p_value"] < CHANCE else 8


def judge(labels, expected, found, disagreement, texts):
    """Whether int8 answers well enough to be given away, and how it answers, in words.

    Its class may be another than float32's on at most `disagreement` per cent of the texts, and its accuracy at most MAX_LOSS
    points lower.

    labels: (texts,) int, true classes
    expected: (texts,) int, most probable classes by float32
    found: (texts,) int, the same by int8
    disagreement: per cent
    texts: what the texts are, in words

    Returns (bool, str).
    """
    count, others = len(labels), int((found != expected).sum())
    gained = int((found == labels).sum()) - int((expected == labels).sum())
    differs, loses = 100 * others > disagreement * count, 100 * -gained > MAX_LOSS * count
    words = f"answers as float32 on {100 - 100 * others / count:.2f} % of the {texts}"
    words += f" ({100 - disagreement:g} % needed, see --int8-disagreement)" if differs else ""
    words += f", {100 * gained / count:+.2f} points there"
    words += f" ({MAX_LOSS} points may be lost)" if loses else ""
    return not differs and not loses, words
