"""Reading, tokenizing and batching a large file: lines a second and memory at 10,000, 100,000 and 1,000,000 lines.

Against the way of the original: every record a tuple in memory, every text tokenized anew in each epoch by bert4keras.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from bert4keras.tokenizers import Tokenizer

from common.batches import TokenizedTexts, training_batches
from data import berts, fetching, texts
from data.tokenizing import tokenize
from tests.benchmarks.timing import medians, peak_memory

TITLE = "an epoch of 10,000 lines from the file"
MAXLEN = 64
SIZES = (10_000, 100_000, 1_000_000)


def measure():
    """(original's way, this way), seconds from the file to the last batch of an epoch, 10,000 texts of up to 64 tokens."""
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder), SIZES[0])
        plain = Tokenizer(str(fetching.locate("minilm-l6", "--bert")["vocabulary"]), do_lower_case=True)
        ours = berts.load("minilm-l6").tokenizer
        return medians(lambda: originals_way(path, plain), lambda: our_way(path, ours), rounds=3)


def detail():
    """Each size in a process of its own: seconds of each step, lines a second, the process's greatest memory."""
    rows = [["lines", "file MB", "read s", "tokenize s", "batch s", "lines / s", "peak memory MB"]]
    for size in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            path = write(Path(folder), size)
            command = [sys.executable, "-m", "tests.benchmarks.reading", str(path)]
            found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
            steps = found["seconds"]
            megabytes = f"{path.stat().st_size / 1e6:.0f}"
            speed = f"{size / sum(steps):,.0f}"
            times = (f"{step:.2f}" for step in steps)
            rows.append([f"{size:,}", megabytes, *times, speed, f"{found['peak']:,.0f}"])
    return [rows]


def write(folder, lines):
    """A file of so many JSON lines of 8 to 40 words each from the bundled newsgroups, of 20 classes."""
    corpus, rng = texts.load("20newsgroups"), np.random.default_rng(0)
    words = " ".join(corpus.texts[:2000]).split()
    path = folder / "train.jsonl"
    with open(path, "w", encoding="utf-8") as file:
        for begin, length, label in rng.integers((0, 8, 0), (len(words) - 40, 41, 20), (lines, 3)).tolist():
            file.write(json.dumps({"text": " ".join(words[begin : begin + length]), "label": label}) + "\n")
    return path


def originals_way(path, tokenizer):
    with open(path, encoding="utf-8") as file:
        records = [(record["text"], record["label"]) for record in map(json.loads, file)]
    for start in range(0, len(records), 32):
        ids = [tokenizer.encode(text, maxlen=MAXLEN)[0] for text, _ in records[start : start + 32]]
        longest = max(map(len, ids))
        np.array([text + [0] * (longest - len(text)) for text in ids])


def our_way(path, tokenizer):
    """Seconds of reading, tokenizing, and batching an epoch."""
    times = [time.perf_counter()]
    corpus = texts.load(str(path))
    times.append(time.perf_counter())
    examples = TokenizedTexts(*tokenize(corpus.texts, tokenizer, MAXLEN))
    times.append(time.perf_counter())
    indices = np.arange(len(corpus.texts))
    for _ in training_batches(examples, indices, corpus.labels, 32, seed=0).take(-(-len(indices) // 32)):
        pass
    times.append(time.perf_counter())
    return np.diff(times).tolist()


if __name__ == "__main__":
    seconds = our_way(Path(sys.argv[1]), berts.load("minilm-l6").tokenizer)
    print(json.dumps({"seconds": seconds, "peak": peak_memory()}))
