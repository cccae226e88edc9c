"""A FastBERT's ONNX graph, whose texts leave early, against its teacher's, which computes all layers, in onnxruntime."""

import numpy as np

import knowledge_distillation_fastbert as script
from common.bert import BertClassifier
from export.exits import expected_speedup, teacher_onnx, text_model
from export.onnx_files import asking
from export.onnx_int8 import quantized
from export.timing import turns
from tests.benchmarks.early_exit import prepare

TITLE = "64 newswires, 64 tokens, leaving after 1.5 of 6 layers, in onnxruntime"
COUNT = 64
DEPTHS = (1.0, 1.5, 2.0, 6.0)  # mean layers


def graphs_of(case):
    """(the teacher, the FastBERT) of a `early_exit.Case` as onnx.ModelProtos in float32."""
    fast, bert = case.fast, case.run.bert
    student = text_model(fast, bert, script.uncertainty, script.HEADS, {"speed": 0.0, "uncertainty_top_k": 0})
    teacher = BertClassifier(bert, fast.encoder, fast.branches[-1], None)
    return teacher_onnx(script.HEADS * fast.branch_headed, teacher), student.onnx_graph(student.bert)


def check(starts, batch, tolerance):
    """At speed 0 both answer alike."""
    teacher, early = (start() for start in starts)
    found = teacher(batch)[0], early((*batch, np.array(0, np.float32)))[0]
    np.testing.assert_allclose(*found, atol=tolerance)


def timed(case, starts, size, depths):
    """[(promise, teacher's ms, FastBERT's ms)] of a batch at each of some mean depths.

    case: `early_exit.Case`
    starts: () -> what asks the teacher, and the FastBERT
    size: texts in a batch
    """
    batches = [tuple(map(np.asarray, batch)) for batch in case.batches[size]]
    speeds = [np.array(case.speed_for(size, depth), np.float32) for depth in depths]
    at_speeds = [(*batch, speed) for speed in speeds for batch in batches]
    seconds = turns(dict(zip(("teacher", "early"), starts, strict=True)), {"teacher": batches, "early": at_speeds})
    ms, ask = 1000 * seconds["early"].reshape(-1, len(batches)).mean(axis=1), starts[1]()
    promises = [expected_speedup(batches, lambda batch, speed=speed: ask((*batch, speed)), case.flops) for speed in speeds]
    return [(promise, 1000 * seconds["teacher"].mean(), taken) for promise, taken in zip(promises, ms, strict=True)]


def measure():
    """(the teacher, early exit), seconds of a batch of 32 at a mean of 1.5 layers, in float32."""
    case = prepare(COUNT)
    (_, teacher, early), = timed(case, [*map(asking, graphs_of(case))], 32, (1.5,))
    return teacher / 1000, early / 1000


def detail():
    """A table, header first: times as fast as the teacher by FLOPs and by the clock, with either last exit and weights."""
    rows = [["last exit", "weights", "batch", "layers", "FLOPs x", "early exit x", "of the promise", "ms", "teacher, ms"]]
    for head in ("branch", "dense"):
        case = prepare(COUNT, head)
        graphs = graphs_of(case)
        for weights, models in (("float32", graphs), ("int8", [*map(quantized, graphs)])):
            starts = [*map(asking, models)]
            batch = tuple(map(np.asarray, case.batches[32][0]))
            check(starts, batch, 1e-5 if weights == "float32" else 0.02)  # int8: one scale for all texts of a call
            for size in case.batches:
                for promise, teacher, early in timed(case, starts, size, DEPTHS):
                    faster, promised = teacher / early, promise["flops_speedup"]
                    cells = promise["mean_layers"], promised, faster, faster / promised, early, teacher
                    rows.append([head, weights, str(size), *(f"{cell:.2f}" for cell in cells)])
    yield rows
