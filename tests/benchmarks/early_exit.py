"""Texts that leave early, against a teacher that computes all layers, and against the original's way: compute all and mask.

In TensorFlow, by the SavedModel; of ONNX see `onnx_exits`.
"""

from dataclasses import dataclass, replace

import numpy as np

import knowledge_distillation_fastbert as script
from common.backend import forget_models, keras, set_seed, tf
from common.bert import TEXT_SIGNATURE, inputs_and_mask
from common.cost import exit_flops, wall_clock
from common.early_exit import EXIT_SIGNATURE, ExitModel, all_exits, early_exit_graph
from common.exit_curve import exit_layers
from common.training import Run
from data import berts, texts
from export.exits import expected_speedup
from tests import tiny

TITLE = "256 newswires, 64 tokens, leaving after 1.5 of 6 layers"
TOKENS = 64
DEPTHS = (1.0, 1.25, 1.5, 2.0, 3.0, 6.0)  # mean layers


@dataclass(frozen=True)
class Case:
    """What is timed. fast: an ExitModel with untrained branches, whose doubts are as good as any for the clock.

    batches: {batch size: [(token ids, segment ids)]} of texts of full length. u: {batch size: uncertainty of all exits, (texts,
    layers)}. flops: tokens -> as `exit_curve` takes them.
    """

    run: Run
    fast: ExitModel
    batches: dict
    u: dict
    flops: object

    def speed_for(self, size, depth):
        """The speed at which the texts leave after `depth` layers on average, as nearly as there is one; a constant."""
        candidates = [*np.quantile(self.u[size][:, :-1], np.linspace(0, 1, 400)), 1.01]
        depths = np.array([exit_layers(self.u[size], speed).mean() for speed in candidates])
        return tf.constant(candidates[np.abs(depths - depth).argmin()], tf.float32)


def prepare(count=256, head="branch"):
    """A Case of `count` newswires (an eighth of them for batches of 1).

    head: the last exit, "branch" or "dense"
    """
    forget_models()
    set_seed(0)
    settings = replace(script.PRESETS["demo"], teacher_head=head)
    bert, corpus = berts.load(settings.bert), texts.load(settings.data)
    examples = tiny.tokenized([corpus.texts[index] for index in corpus.pool], bert, TOKENS)
    full = np.flatnonzero(examples.lengths(np.arange(len(corpus.pool))) == TOKENS)[:count]
    assert len(full) == count, f"{len(full)} newswires have {TOKENS} tokens, {count} are needed"
    run = Run(settings, 0, corpus, examples, parts=None, folder=None, bert=bert)
    fast = script.build_fastbert(run, joint=True)  # which needs no teacher that has been trained
    batches = {
        size: [tuple(map(tf.constant, examples.inputs(full[i : i + size]))) for i in range(0, some, size)]
        for size, some in ((32, count), (1, count // 8))
    }
    model = all_exits(fast)
    logits = {size: np.concatenate([model.predict_on_batch(list(batch)) for batch in some]) for size, some in batches.items()}
    u = {size: script.uncertainty(tf.nn.softmax(found)).numpy() for size, found in logits.items()}
    return Case(run, fast, batches, u, lambda tokens: exit_flops(script.costs(run, tokens), bert.layers))


def masked(fast):
    """As the original does it: every layer and branch is computed for every text, and a mask tells which answer counts."""

    def answer(token_ids, segment_ids, speed):
        hidden, mask = fast.embeddings([token_ids, segment_ids]), tf.not_equal(token_ids, 0)
        undecided, answers = tf.ones(tf.shape(token_ids)[0], tf.bool), 0.0
        for layer, branch in zip(fast.layers, fast.branches, strict=True):
            hidden = layer(hidden, mask=mask)
            p = tf.nn.softmax(branch(hidden, mask=mask))
            leaving = undecided & ((script.uncertainty(p) < speed) | (branch is fast.branches[-1]))
            answers += tf.where(leaving[:, None], p, 0.0)
            undecided &= ~leaving
        return {"probabilities": answers}

    return tf.function(answer, input_signature=EXIT_SIGNATURE, autograph=False)


def whole_teacher(fast):
    """The teacher of an ExitModel in TensorFlow: all layers, no branch, (token ids, segment ids) -> logits (batch, classes)."""
    inputs, mask = inputs_and_mask()
    hidden = fast.embeddings(inputs)
    for layer in fast.layers:
        hidden = layer(hidden, mask=mask)
    model = keras.Model(inputs, fast.branches[-1](hidden, mask=mask))
    return of_texts(lambda token_ids, segment_ids: model([token_ids, segment_ids], training=False))


def of_texts(step):
    """A step, (token ids, segment ids) -> tensor, as a graph."""
    return tf.function(step, input_signature=TEXT_SIGNATURE, autograph=False)


def layers_by(ask):
    """What `expected_speedup` asks. ask: batch -> {"layers_used": tensor, …}"""
    return lambda batch: [None, ask(batch)["layers_used"].numpy()]


def measure():
    """(masked, early exit), seconds of all batches of 32 at a mean of 1.5 layers."""
    case = prepare()
    speed = case.speed_for(32, 1.5)
    ways = {"masked": masked(case.fast), "early": early_exit_graph(case.fast, script.uncertainty)}
    runs = {name: lambda batch, answer=answer: answer(*batch, speed) for name, answer in ways.items()}
    for batch in case.batches[32]:
        both = (run(batch)["probabilities"] for run in runs.values())
        np.testing.assert_allclose(*both, atol=1e-4)
    assert abs(expected_speedup(case.batches[32], layers_by(runs["early"]), case.flops)["mean_layers"] - 1.5) < 0.05
    times = wall_clock(runs, case.batches[32], rounds=3)
    return times["masked"].sum(), times["early"].sum()


def detail():
    """Tables: what early exit gains at mean depths, by FLOPs and by the clock; and where the time goes."""
    case = prepare()
    yield gains(case)
    yield pieces(case)


def gains(case, depths=DEPTHS):
    """Rows of strings, header first: times as fast as the teacher, by FLOPs and by the clock, at mean depths."""
    early, mask, teach = early_exit_graph(case.fast, script.uncertainty), masked(case.fast), whole_teacher(case.fast)
    rows = [["batch", "layers", "FLOPs x", "early exit x", "of the promise", "masked x"]]
    for size, batches in case.batches.items():
        for depth in depths:
            speed = case.speed_for(size, depth)
            ways = {
                "teacher": lambda batch: teach(*batch),
                "early": lambda batch, speed=speed: early(*batch, speed),
                "masked": lambda batch, speed=speed: mask(*batch, speed),
            }
            times = wall_clock(ways, batches, rounds=3 if size == 32 else 9)
            promise = expected_speedup(batches, layers_by(ways["early"]), case.flops)
            ours, theirs = (times["teacher"].sum() / times[way].sum() for way in ("early", "masked"))
            cells = promise["mean_layers"], promise["flops_speedup"], ours, ours / promise["flops_speedup"], theirs
            rows.append([str(size), *(f"{cell:.2f}" for cell in cells)])
    return rows


def pieces(case):
    """Rows of strings, header first: where the time goes, in ms a call; each row has what the one above has, and more."""
    fast = case.fast

    def call(token_ids, segment_ids):
        return tf.cast(token_ids, tf.float32)

    def embeddings(token_ids, segment_ids):
        return fast.embeddings([token_ids, segment_ids])

    def layer(token_ids, segment_ids):
        return fast.layers[0](embeddings(token_ids, segment_ids), mask=tf.not_equal(token_ids, 0))

    def branch(token_ids, segment_ids):
        return fast.branches[0](layer(token_ids, segment_ids), mask=tf.not_equal(token_ids, 0))

    def second_layer(token_ids, segment_ids):
        return fast.layers[1](layer(token_ids, segment_ids), mask=tf.not_equal(token_ids, 0))

    steps = {"a call that computes nothing": call, "and embeddings": embeddings, "and a layer": layer, "and its branch": branch}
    graphs = {name: of_texts(step) for name, step in steps.items()}
    everyone = tf.constant(1.01)
    early, teach, two = early_exit_graph(fast, script.uncertainty), whole_teacher(fast), of_texts(second_layer)
    ways = {name: lambda batch, graph=graph: graph(*batch) for name, graph in graphs.items()}
    ways |= {
        "and leaving there: early exit": lambda batch: early(*batch, everyone),
        "(embeddings and two layers)": lambda batch: two(*batch),
        "(the teacher)": lambda batch: teach(*batch),
    }
    times = {size: wall_clock(ways, some, rounds=15 if size == 1 else 5) for size, some in case.batches.items()}
    rows = [["what is computed", "ms @1", "ms @32"]]
    for name in ways:
        rows.append([name, *(f"{1000 * times[size][name].mean():.2f}" for size in (1, 32))])
    return rows
