"""Labelling texts as `python -m common.predict` does, in batches of like length, against one text after another."""

import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from data import berts, students, texts
from export import predict
from export.onnx_graph import text_graph
from tests.benchmarks.timing import medians
from tests.starting import ROOT

TITLE = "labelling 512 posts, 64 tokens, 3 layers"


def write_student(folder, data):
    """Write a student of 3 layers, whose head is drawn at random, to `folder`. Returns the texts of the data."""
    corpus, bert = texts.load(data), berts.keep_layers(berts.load("minilm-l6"), range(3))
    head = np.random.default_rng(0).normal(0, 0.1, (len(corpus.classes), bert.config["hidden_size"])).astype(np.float32)
    bert = replace(bert, weights=bert.weights | dict(zip(berts.OUTPUT, (head, np.zeros(len(head), np.float32)), strict=True)))
    berts.save(Path(folder), bert, corpus.classes, maxlen=64)
    (Path(folder) / students.FLOAT32).write_bytes(text_graph(bert).SerializeToString())
    return corpus.texts


def measure():
    """(one by one, batched), seconds for 512 texts of 20newsgroups of up to 64 tokens, a 3-layer student in float32."""
    with tempfile.TemporaryDirectory() as folder:
        lines = write_student(folder, "20newsgroups")[:512]
        student = students.load(folder)
    return medians(
        lambda: [students.ask(student, [line]) for line in lines],
        lambda: list(predict.answers(student, lines, top=1, speed=None, batch_size=32)),
        rounds=3,
    )


def detail():
    """A table, header first: what the start costs, and how much of the rest is not the graph's own time."""
    with tempfile.TemporaryDirectory() as folder:
        made = write_student(folder, "reuters-r8")
        words = [sys.executable, "-m", "common.predict", folder]
        start, = medians(lambda: subprocess.run([*words, "oil", "grain"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL))
        Path(folder, "lines.txt").write_text("\n".join(" ".join(made[i % len(made)].split()) for i in range(10_000)))
        with open(Path(folder, "answers"), "wb") as file:
            begin = time.perf_counter()
            subprocess.run([*words, "--file", f"{folder}/lines.txt"], cwd=ROOT, check=True, stdout=file)
            whole = time.perf_counter() - begin
        student, graph = students.load(folder), 0.0

        def timed(**inputs):
            nonlocal graph
            begin = time.perf_counter()
            answers = student.answer(**inputs)
            graph += time.perf_counter() - begin
            return answers

        lines = Path(folder, "lines.txt").read_text("utf-8").split("\n")
        for first in range(0, len(lines), predict.CHUNK_SIZE):
            students.ask(replace(student, answer=timed), lines[first : first + predict.CHUNK_SIZE])
    yield [["python -m common.predict", ""], ["2 texts, from the start of the process, s", f"{start:.2f}"],
           ["10,000 lines, s", f"{whole:.1f}"], ["of the same batches the graph alone, s", f"{graph:.1f}"]]
