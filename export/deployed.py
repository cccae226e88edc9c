"""A student as its ONNX files have it: its vocabulary trimmed, in float32 and in int8; and what that costs in points.

The files are those of one seed. What they cost is measured for all of them, on the test part, after every choice has been made.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from common.batches import TokenizedTexts
from common.bert import build_classifier, classifier_graph
from common.bilstm import BilstmClassifier, build_bilstm
from common.evaluation import compare
from data import berts, vocabulary
from data.students import FLOAT32, INT8, promise_in_words
from export.bilstm_graph import bilstm_graph
from export.onnx_files import choose_int8, decisions, in_int8
from export.onnx_graph import text_graph
from report.document import correct_answers
from report.tables import difference_cells


@dataclass(frozen=True)
class TextModel:
    """A trained model of texts, as it is given away; the graphs are made of `bert`, or of it with fewer tokens."""

    bert: berts.Bert  # with the trained weights; without a classifier's, if it has exits instead
    graph: Callable  # Bert -> tf.function with an input_signature, to {"probabilities", …}
    onnx_graph: Callable = text_graph  # Bert -> onnx.ModelProto
    config: dict = field(default_factory=dict)  # further entries of config.json
    expected: np.ndarray | None = None  # classes that all layers, with all tokens, give the calibration part; with a promise


def text_model(classifier):
    """The TextModel of a `bert.BertClassifier`, or of a `bilstm.BilstmClassifier`."""
    whole, classes = classifier.bert, classifier.model.output_shape[-1]
    build, onnx_graph = partial(build_classifier, classes=classes, dropout=0.0), text_graph
    if isinstance(classifier, BilstmClassifier):
        build, onnx_graph = build_bilstm, bilstm_graph
    return TextModel(whole, lambda bert: classifier_graph(classifier if bert is whole else build(bert)), onnx_graph)


def whole_graph(model):
    """The onnx.ModelProto of a TextModel with all its tokens."""
    return model.onnx_graph(model.bert)


@dataclass(frozen=True)
class Deployed:
    """What the ONNX files of a student hold."""

    model: TextModel
    bert: berts.Bert  # that of the model, its vocabulary trimmed
    graphs: dict  # {FLOAT32: bytes of its graph, INT8: the same, if it is allowed}
    bits: int  # of the weights of int8
    words: str  # how int8 answers the validation part


def deploy(run, model, like=None):
    """A TextModel of a run as `Deployed`.

    run: `training.Run` of its seed
    model: the TextModel
    like: another seed's, which is to have the same files; without it the validation part says whether int8 is allowed
    """
    parts, settings = run.parts, run.settings
    bert = trimmed(run, model.bert)
    graph = model.onnx_graph(bert).SerializeToString()
    if like:
        int8 = {INT8: in_int8(graph, like.bits)} if INT8 in like.graphs else {}
        return Deployed(model, bert, {FLOAT32: graph} | int8, like.bits, "")
    decide = partial(decisions, examples=examples_of(run, bert, parts.validation), pad_id=bert.pad_id, speed=speed_of(model))
    texts = f"{'test' if parts.validation is parts.test else 'validation'} {'pairs' if run.corpus.pairs else 'texts'}"
    labels = run.corpus.labels[parts.validation]
    int8, bits, words = choose_int8(graph, decide, labels, settings.int8_disagreement, texts)
    return Deployed(model, bert, {FLOAT32: graph} | ({INT8: int8} if int8 else {}), bits, words)


def trimmed(run, bert):
    """A BERT of a run with the tokens that its student keeps. Where validation is the test part it has no say in how many."""
    parts = run.parts
    held_out = [] if parts.validation is parts.test else run_texts(run, parts.validation)
    texts = run_texts(run, np.append(parts.train, parts.unlabelled))
    return vocabulary.trim(bert, texts, run.settings.vocabulary, held_out)


def speed_of(model):
    """The speed of a TextModel that stops early, or None."""
    return model.config.get("speed")


def run_texts(run, indices):
    """The texts of a run with these numbers, strings or pairs."""
    return [run.corpus.texts[index] for index in indices]


def examples_of(run, bert, indices):
    """The same as the tokenizer of `bert` has them, TokenizedTexts."""
    return TokenizedTexts.of(run_texts(run, indices), bert, run.settings.maxlen)


def right_on_test(run, deployed):
    """Which test texts each graph of a Deployed gets right: {name: (texts,) bool}."""
    labels = run.corpus.labels[run.parts.test]
    return {name: answers == labels for name, answers in answers_of(run, deployed, run.parts.test).items()}


def answers_of(run, deployed, indices):
    """What each graph of a Deployed answers to these texts: {name: (texts,) int}."""
    examples, speed = examples_of(run, deployed.bert, indices), speed_of(deployed.model)
    return {name: decisions(graph, examples, deployed.bert.pad_id, speed) for name, graph in deployed.graphs.items()}


def other_answers(run, deployed):
    """How many calibration texts each graph of a Deployed answers otherwise than all layers: {name: int}; {} without promise.

    Than all layers with all tokens in float32: what leaving early, fewer tokens and int8 change together. That of model.onnx is
    promised.
    """
    expected = deployed.model.expected
    if expected is None:
        return {}
    found = answers_of(run, deployed, run.parts.calibration)
    return {name: int((answers != expected).sum()) for name, answers in found.items()}


def deployment_figures(seeds, deployed, build):
    """What trimming and int8 change on the test part, over all seeds of a model.

    seeds: [(`training.Run`, its record)] of the model, those of `deployed` first
    deployed: the `Deployed` of the first
    build: (run, record) -> TextModel of another

    Returns {"tokens", "all_tokens", "tokenized_otherwise" and "lost_tokens", fractions of the test texts and of their tokens,
    "accuracy": {name of a file: as a fraction}, "differences": {name: `evaluation.compare` of the file's graph with the model
    as trained, of int8 with float32}}; all but the last are of the first seed.
    """
    (run, record), *others = seeds
    right = {name: [correct] for name, correct in right_on_test(run, deployed).items()}
    trained = [correct_answers(run, record["name"])]
    for run_of_other, its_record in others:
        other = deploy(run_of_other, build(run_of_other, its_record), deployed)
        answers = right_on_test(run_of_other, other)
        for name in right:
            right[name].append(answers[name])
        trained.append(correct_answers(run_of_other, record["name"]))
    whole = deployed.model.bert
    trimmed = whole, deployed.bert, run_texts(run, run.parts.test), run.settings.maxlen
    beside = {FLOAT32: trained, INT8: right[FLOAT32]}
    return {
        "tokens": deployed.bert.config["vocab_size"], "all_tokens": whole.config["vocab_size"],
        "tokenized_otherwise": float(vocabulary.changed(*trimmed).mean()), "lost_tokens": vocabulary.lost(*trimmed),
        "accuracy": {name: float(of_seeds[0].mean()) for name, of_seeds in right.items()},
        "differences": {name: compare(np.stack(of_seeds), np.stack(beside[name])) for name, of_seeds in right.items()},
    }


def remark_on(figures, deployed, size):
    """What trimming and int8 cost, in words.

    figures: of `deployment_figures`; with "promise" and "disagreements", of `other_answers`, if something is promised
    deployed: the same
    size: bytes of model.int8.onnx, or None if it is not written
    """
    def points(name):
        cells = difference_cells(figures["differences"][name])
        return f"{cells[0]} points ({cells[1]})"

    said = []
    if figures["tokens"] < figures["all_tokens"]:
        said.append(f"Vocabulary: {figures['tokens']:,} of {figures['all_tokens']:,} tokens. Of the test texts' tokens "
                    f"{figures['lost_tokens']:.1%} are read in pieces, in {figures['tokenized_otherwise']:.0%} of the texts "
                    f"one or more: {points(FLOAT32)}.")
    written = f"{size / 1e6:.3g} MB" if size else "not written"
    tested = f"; on the test part {points(INT8)}" if size else ""
    said.append(f"int8 ({deployed.bits} bits): {written}, {deployed.words}{tested}.")
    if "promise" in figures:
        said.append(f"A promise of {FLOAT32}: {promise_of_files(figures['promise'], figures['disagreements'])}.")
    return " ".join(said)


def promise_of_files(promise, disagreements):
    """A promise as one sentence, and beside it what the files make of these texts; of int8 nothing is promised.

    promise: of `exit_curve.promised_speed`
    disagreements: of `other_answers`
    """
    counts = ", ".join(f"{name} {count:,}" for name, count in disagreements.items())
    words = promise_in_words(promise)
    return f"{words}. Of these texts the files answer otherwise: {counts}"
