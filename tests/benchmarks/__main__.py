"""python -m tests.benchmarks [NAME …]: each way of working against the way of the original, as a ratio within one run."""

import sys

from report.tables import aligned
from tests.benchmarks import (
    bucketing,
    early_exit,
    onnx_exits,
    onnx_graph,
    predicting,
    reading,
    replacing,
    soft_labels,
    tokenizing,
    training,
)

BENCHMARKS = {
    "reading": reading, "tokenizing": tokenizing, "bucketing": bucketing, "soft-labels": soft_labels, "replacing": replacing,
    "early-exit": early_exit, "predicting": predicting, "onnx-graph": onnx_graph, "onnx-exits": onnx_exits,
    "training": training,
}

if __name__ == "__main__":
    rows = [["benchmark", "the plain way, s", "this way, s", "times as fast"]]
    for name in sys.argv[1:] or BENCHMARKS:
        plain, ours = BENCHMARKS[name].measure()
        rows.append([BENCHMARKS[name].TITLE, f"{plain:.3f}", f"{ours:.3f}", f"{plain / ours:.1f}"])
    print(aligned(rows))
    for name in sys.argv[1:]:  # a benchmark asked for by name may have more to tell
        if hasattr(BENCHMARKS[name], "detail"):
            for table in BENCHMARKS[name].detail():  # or a line about one
                print(f"\n{table if isinstance(table, str) else aligned(table)}", flush=True)
