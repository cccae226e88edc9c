"""A model that stops early as it is deployed: its graphs, and the clock beside models that compute all their layers."""

import numpy as np

from common.backend import in_float32
from common.bert import read_encoder, swap_pad_id, with_head
from common.early_exit import early_exit_graph, with_embeddings
from common.files import fingerprint, load_or_compute
from export import exit_graph, onnx_int8
from export.costs import SIZES
from export.deployed import TextModel, whole_graph
from export.onnx_files import asking
from export.timing import turns

FORMS = {"latency_ms": lambda graph: graph, "int8_latency_ms": onnx_int8.quantized}  # of a graph, timed under these names


def exit_model(pieces, start, uncertainty, top_k, heads, speed):
    """A trained `early_exit.ExitModel` as a TextModel.

    pieces: the ExitModel
    start: the `data.berts.Bert` that its encoder was built from
    uncertainty: probabilities (texts, classes) -> u (texts,), from 0 to 1
    top_k: of the highest probabilities that it looks at; 0: all
    heads: of a branch's self-attention
    speed: from 0 to 1, unless it is asked at another
    """
    whole = read_encoder(pieces.encoder, start)

    def graph(bert):
        own = pieces if bert is whole else with_embeddings(pieces, bert)
        return early_exit_graph(own, uncertainty, pad_id=bert.pad_id)

    def onnx_of(bert):
        branches = pieces.branches
        if not pieces.branch_headed:
            *branches, head = branches
            bert = with_head(bert, head)
        weights = [branch.get_weights() for branch in branches]
        return exit_graph.exit_graph(bert, weights, heads, top_k)

    return TextModel(whole, graph, onnx_of, config={"speed": speed})


def teacher_onnx(heads, classifier, bert=None):
    """A BertClassifier whose head is a branch, or linear, as an onnx.ModelProto that computes all its layers.

    heads: of the branch's self-attention; 0 says that the head is linear
    classifier: the BertClassifier
    bert: its encoder, if not just as it is
    """
    bert = bert or read_encoder(classifier.encoder, classifier.start)
    if not heads:
        bert = with_head(bert, classifier.head)
    return exit_graph.teacher_graph(bert, classifier.head.get_weights(), heads)


def exit_times(run, plain, stopping, flops):
    """How long models take on test texts of a run: measured once, and anew only where the settings ask for other times.

    run: `training.Run`
    plain: {name: () -> onnx.ModelProto} of models that compute all their layers
    stopping: {name: () -> TextModel} of models that take a speed
    flops: tokens of a text -> as `early_exit.exit_curve` takes them

    Returns {"tokens": of these texts on average, name of a plain one: {"latency_ms", "int8_latency_ms": {"1": ms, "32": ms}},
    name of a stopping one: [{"latency_ms", "int8_latency_ms": {"1": {"ms", "flops_speedup", "mean_layers"}, "32": …}} of each
    speed]}. ms are means over batches; the other two are computed for the very texts and lengths that were timed: what the time
    is to be held against.
    """
    def measure():
        with in_float32(settings.precision):
            graphs = {name: build() for name, build in plain.items()}
            early = {name: whole_graph(build()) for name, build in stopping.items()}
        return time_exits(run, graphs, early, flops)

    settings = run.settings
    of = fingerprint(settings.speeds, settings.uncertainty_top_k, settings.timed_examples, sorted(plain), sorted(stopping))
    return load_or_compute(run.folder / f"seed-{run.seed}" / f"times-{of}.json", measure)


def time_exits(run, plain, stopping, flops):
    """The same measured now, the models taking turns: a quarter of the texts by themselves ("1"), all in batches of 32 ("32").

    plain: {name: onnx.ModelProto} of models that compute all their layers
    stopping: {name: onnx.ModelProto} of models that take a speed
    """
    speeds, settings = [np.array(speed, np.float32) for speed in run.settings.speeds], run.settings
    makers = {(name, key): asking(form(graph)) for name, graph in (plain | stopping).items() for key, form in FORMS.items()}
    indices = np.random.default_rng(run.seed).permutation(run.parts.test)[: settings.timed_examples]
    times = {name: {key: {} for key in FORMS} for name in plain}
    times |= {name: [{key: {} for key in FORMS} for _ in speeds] for name in stopping}
    for size in SIZES:
        some = indices[: -(-len(indices) // 4)] if size == 1 else np.resize(indices, -(-len(indices) // size) * size)
        batches = [_inputs(run, some[i : i + size]) for i in range(0, len(some), size)]
        at_speeds = [(*batch, speed) for speed in speeds for batch in batches]
        asked = {(name, key): batches if name in plain else at_speeds for name, key in makers}
        for (name, key), seconds in turns(makers, asked, rounds=3).items():
            ms = 1000 * seconds.reshape(-1, len(batches)).mean(axis=1)  # at each speed
            if name in plain:
                times[name][key][str(size)] = float(ms[0])
                continue
            ask = makers[name, key]()
            for place, speed in enumerate(speeds):
                expected = expected_speedup(batches, lambda batch, ask=ask, speed=speed: ask((*batch, speed)), flops)
                times[name][place][key][str(size)] = {"ms": float(ms[place])} | expected
    return times | {"tokens": float(run.examples.lengths(indices).mean())}


def _inputs(run, indices):
    """(token ids, segment ids) of examples as the tokenizer pads them."""
    token_ids, segment_ids = run.examples.inputs(indices)
    return np.array(swap_pad_id(token_ids, run.bert.pad_id)), segment_ids


def expected_speedup(batches, ask, flops):
    """{"flops_speedup", "mean_layers"} of these batches, at the lengths that they are padded to.

    batches: [(token ids, segment ids)]
    ask: batch -> [probabilities, layers used, …]
    flops: tokens of a text -> as `early_exit.exit_curve` takes them
    """
    teacher_flops, exit_flops, layers = 0, 0, []
    for batch in batches:
        whole, through = flops(batch[0].shape[1])
        layers.append(ask(batch)[1])
        teacher_flops += whole * len(layers[-1])
        exit_flops += through[layers[-1] - 1].sum()
    return {"flops_speedup": float(teacher_flops / exit_flops), "mean_layers": float(np.concatenate(layers).mean())}
