"""Start the scripts again and again, each in a process of its own, and count how often one is ended by a signal.

    python -m tests.soak N [--log FILE] [--onednn 0|1]      # short stages of all scripts: tiny models, real texts and images
    python -m tests.soak N [--log FILE] --full fastbert     # the first minute of its demo, which is then ended

N starts in all: those of this environment that stand in FILE are counted, so that a soak which was interrupted goes on. A crash
in TensorFlow or below it (SIGSEGV, SIGABRT) is none that Python could tell of; where each thread was then stands in FILE.

Leave it two cores: on one TensorFlow has one thread a pool, and what two do at the same time does not happen.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from scipy import stats

from data import texts
from report.tables import aligned
from tests import survival, tiny
from tests.starting import ROOT

ONEDNN = "TF_ENABLE_ONEDNN_OPTS"
DATA = "reuters-r8"
MINUTE, HANGS, GRACE = 60, 6 * 3600, 10  # seconds: a demo is ended after; a short start hangs after, however busy the machine
CONFIG = tiny.CONFIG | {"num_hidden_layers": 2, "max_position_embeddings": 64}
SHORTER = {  # what of the flags of `survival` is another
    "bert": "--student-layers 1 --teacher-epochs 1 --student-epochs 1 --unlabelled-steps 10 --experiments distilled-layers",
    "bert_of_theseus": "--student-layers 1 --middle-layers 1 --predecessor-epochs 1 --mixed-epochs 1 --direct-epochs 1 "
                       "--successor-epochs 1 --experiments theseus-random-linear",
    "fastbert": "--student-layers --teacher-epochs 1 --branch-epochs 1 --experiments fastbert",
    "from_scratch": "--teacher-epochs 1 --student-epochs 1 --train-examples-sweep --seeds 0 --experiments distilled",
}
# 64 tokens, as many as a head of a branch is wide: there the products that once crashed (common/backend.py) are of one size.
TEXTS = f"--data {DATA} --maxlen 64 --train-examples 96 --validation-examples 16 --test-examples 64".split()
TWO_DEVICES = """
import runpy, sys
from common.backend import tf
processor = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(processor, 2 * [tf.config.LogicalDeviceConfiguration()])
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def starts_of(folder, full=None):
    """{name of a start: the words of its command}, each of which writes into `folder`/run.

    folder: Path, where the tiny BERT of all but `full` is written
    full: a script whose demo is started; None: each script, on one device and on two
    """
    begin = [sys.executable, "-X", "faulthandler"]
    if full:
        return {f"{full}, demo": [*begin, f"knowledge_distillation_{full}.py", "--output", str(folder / "run")]}
    words = Counter(re.findall("[a-z]+", " ".join(texts.load(DATA).texts).lower()))
    tiny.write_bert(folder / "bert", config=CONFIG, words=[word for word, _ in words.most_common(len(tiny.WORDS))])
    starts = {}
    for name, shorter in SHORTER.items():
        script = f"knowledge_distillation_{name}"
        more = [*(TEXTS if name != "from_scratch" else []), *shorter.split()]
        for strategy, first in (("none", []), ("mirrored", ["-c", TWO_DEVICES])):
            flags = survival.flags(script, folder, "run", [*more, "--strategy", strategy])
            starts[f"{name}, {strategy}"] = [*begin, *first, f"{script}.py", *flags]
    return starts


def run(words, variables, limit):
    """Start a command and wait until it has ended, or end it: {"status", "ours", "seconds", "said"}.

    words: of the command
    variables: its environment
    limit: seconds after which it gets SIGTERM, and GRACE seconds later SIGKILL

    status: as subprocess has it, below 0 for a signal. ours: whether that was one of these two. said: the end of what it wrote
    to stderr, if status is not 0.
    """
    start, sent = time.perf_counter(), []
    with tempfile.TemporaryFile() as stderr:
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=stderr, cwd=ROOT, env=variables)
        try:
            for number, seconds in ((signal.SIGTERM, limit), (signal.SIGKILL, GRACE)):
                try:
                    process.wait(seconds)
                    break
                except subprocess.TimeoutExpired:
                    process.send_signal(number)
                    sent.append(-number)
            status = process.wait()
        finally:
            process.kill()  # where this soak is interrupted
        seconds = time.perf_counter() - start
        stderr.seek(0)
        said = stderr.read().decode(errors="replace")[-4000:] if status else ""
    return {"status": status, "ours": status in sent, "seconds": round(seconds, 1), "said": said}


def resumed(log):
    """The records of a log, each a line; a last one that was not written whole is taken out of it."""
    text = log.read_text(encoding="utf-8") if log.is_file() else ""
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        log.write_text(whole, encoding="utf-8")
    return [json.loads(line) for line in whole.splitlines()]


def soak(starts, count, log, variables, full, output):
    """Start some commands in turn until a log has `count` starts of this environment. Returns all its records.

    starts: {name: words of its command}
    log: Path
    variables: the environment of the commands
    full: whether they are to be ended after a minute, in which they must have begun to train; one that is not, and hangs, has
        failed
    output: Path of a folder that they write, deleted after each
    """
    set_ones = [f"{name} {variables[name]}" for name in sorted(variables) if name.startswith(("MALLOC_", "LD_PRELOAD"))]
    environment = ", ".join([f"{ONEDNN} {variables.get(ONEDNN, 'unset')}", *set_ones, *(["full size"] if full else [])])
    records = resumed(log)
    done = sum(record["environment"] == environment for record in records)
    with open(log, "a", encoding="utf-8") as file:
        for number in range(done, count):
            name = [*starts][number % len(starts)]
            end = run(starts[name], variables, MINUTE if full else HANGS)
            trains = any(output.glob("tensorboard/*/train/events*"))
            shutil.rmtree(output, ignore_errors=True)
            crashed, fine = end["status"] < 0 and not end["ours"], end["status"] == 0 or (full and end["ours"] and trains)
            outcome = "signal" if crashed else "ok" if fine else "failure"
            records.append({"environment": environment, "start": name, "outcome": outcome, **end})
            print(json.dumps(records[-1]), file=file, flush=True)
    return records


def upper_bound(ended, starts, confidence=0.95):
    """The highest rate that `ended` of `starts` starts leave possible, as a fraction (Clopper and Pearson 1934, one-sided)."""
    return 1.0 if ended == starts else float(stats.beta.ppf(confidence, ended + 1, starts - ended))


def table(records):
    """How many starts were ended by a signal: for each environment each start, and all of them. Rows of strings."""
    rows = [["environment", "start", "starts", "by a signal", "other failures", "rate %", "at most % (95 %)", "s a start"]]
    for environment in dict.fromkeys(record["environment"] for record in records):
        here = [record for record in records if record["environment"] == environment]
        groups = {name: [record for record in here if record["start"] == name] for name in sorted({r["start"] for r in here})}
        for name, group in (groups | {"all": here}).items():
            outcomes, seconds = Counter(record["outcome"] for record in group), sum(record["seconds"] for record in group)
            ended, starts = outcomes["signal"], len(group) - outcomes["failure"]  # what failed otherwise shows nothing
            rows.append([environment, name, f"{len(group):,}", str(ended), str(outcomes["failure"]),
                         f"{100 * ended / max(1, starts):.2f}", f"{100 * upper_bound(ended, starts):.2f}",
                         f"{seconds / len(group):.1f}"])
    return rows


def main(words=None):
    """Read the command line, soak, print the table. words: the command line, unless it is that of this process"""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__.split("\n\n")[0])
    parser.add_argument("count", type=int, metavar="N", help="starts in this environment, those of the log included")
    parser.add_argument("--log", type=Path, default=ROOT / "runs" / "soak.jsonl", help="where they are counted")
    parser.add_argument("--onednn", choices=("0", "1"), help=f"{ONEDNN} of the starts")
    parser.add_argument("--full", choices=("fastbert",), help="this script's demo at full size, its first minute")
    given = parser.parse_args(words)
    given.log.parent.mkdir(parents=True, exist_ok=True)
    variables = os.environ | ({ONEDNN: given.onednn} if given.onednn else {})
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        records = soak(starts_of(folder, given.full), given.count, given.log, variables, bool(given.full), folder / "run")
    print(aligned(table(records)))
    return any(record["outcome"] == "failure" for record in records)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what has been started ends too
    sys.exit(main())
