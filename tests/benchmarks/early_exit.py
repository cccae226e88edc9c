"""Texts that leave early, against a teacher that computes all layers, and against the original's way: compute all and mask."""

import numpy as np

import knowledge_distillation_fastbert as script
from common import data, pretrained, texts
from common.backend import set_seed, tf
from common.evaluation import wall_clock

TITLE = "256 newswires, 64 tokens, leaving after 1.5 of 6 layers"
TEXTS, TOKENS = 256, 64
DEPTHS = (1.0, 1.25, 1.5, 2.0, 3.0, 6.0)  # mean layers


def masked(fast):
    """As the original does it: every layer and branch is computed for every text, and a mask tells which answer counts."""
    ids = tf.TensorSpec((None, None), tf.int32)

    @tf.function(input_signature=[ids, ids, tf.TensorSpec((), tf.float32)])
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

    return answer


def prepare():
    """(run, FastBert, batches by size): MiniLM with untrained branches, whose doubts are as good as any for the clock."""
    set_seed(0)
    settings = script.PRESETS["demo"]
    bert, corpus = pretrained.load(settings.bert), data.load(settings.data)
    encoded = data.encode([corpus.texts[row] for row in corpus.test], bert.tokenizer, TOKENS)
    full = np.flatnonzero(encoded.lengths(np.arange(len(corpus.test))) == TOKENS)[:TEXTS]
    run = texts.Run(settings, 0, corpus, encoded, None, None, bert)
    encoder, head, _ = script.build_teacher(run, bert.layers, 0.0)
    layers = [pretrained.layers_of(encoder, [i]) for i in range(bert.layers)]
    branches = [script.build_branch(encoder.hidden_size, len(corpus.classes), f"branch_{i}") for i in range(1, bert.layers)]
    fast = script.FastBert(pretrained.embeddings_of(encoder), layers, [*branches, head])
    batches = {
        size: [tuple(map(tf.constant, encoded.inputs(full[i : i + size]))) for i in range(0, count, size)]
        for size, count in ((32, TEXTS), (1, TEXTS // 8))
    }
    return run, fast, batches


def speed_for(fast, batches, depth):
    """The speed at which these texts leave after `depth` layers on average, as nearly as there is one."""
    model = script.all_exits(fast)
    u = np.concatenate([script.uncertainties(model.predict_on_batch(list(batch)), 0) for batch in batches])
    candidates = np.quantile(u[:, :-1], np.linspace(0, 1, 400))
    depths = [script.exits_at(u, speed).mean() for speed in candidates] + [1.0]
    return float([*candidates, 1.01][np.abs(np.array(depths) - depth).argmin()])


def measure():
    """(masked, early exit), seconds of all batches of 32 at a mean of 1.5 layers."""
    _, fast, batches = prepare()
    speed = speed_for(fast, batches[32], 1.5)
    ways = {"masked": masked(fast), "early": script.early_exit(fast)}
    runs = {name: lambda batch, answer=answer: answer(*batch, speed) for name, answer in ways.items()}
    times = wall_clock(runs, batches[32], rounds=3)
    return times["masked"].sum(), times["early"].sum()


def detail():
    """Rows of strings, header first: times as fast as the teacher, by FLOPs and by the clock, at mean depths."""
    run, fast, batches = prepare()
    early, plain, teach = script.early_exit(fast), masked(fast), script.straight(fast)
    rows = [["batch", "layers", "FLOPs x", "early exit x", "of the promise", "masked x"]]
    for size, some in batches.items():
        for depth in DEPTHS:
            speed = speed_for(fast, some, depth)
            times = wall_clock(
                {
                    "teacher": lambda batch: teach(*batch),
                    "early": lambda batch, speed=speed: early(*batch, speed),
                    "masked": lambda batch, speed=speed: plain(*batch, speed),
                },
                some, rounds=3,
            )
            promise = script.promised(run, some, lambda batch, speed=speed: early(*batch, speed))
            ours, theirs = (times["teacher"].sum() / times[way].sum() for way in ("early", "masked"))
            by_flops = promise["flops_speedup"]
            cells = promise["mean_layers"], by_flops, ours, ours / by_flops, theirs
            rows.append([str(size), *(f"{cell:.2f}" for cell in cells)])
    return rows
