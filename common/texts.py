"""What the scripts on texts do alike around their method: opening a run, the classifier on a BERT, its cost, the student.

How models are taught is the scripts' story, not this module's.
"""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import data as sources
from common import InputError, data, pretrained, report, training
from common.backend import Lambda, keras, set_precision, tf
from common.command import as_dict
from common.evaluation import encoder_flops, latency
from common.files import fingerprint


@dataclass(frozen=True)
class Run(training.Run):
    """A seed's run, and the BERT that its models start from."""

    bert: pretrained.Bert


def open_runs(
    script, preset, settings, unlabelled=0, unlabelled_needed=True, depths=("student_layers",), fewest=1,
    extensible=("experiments", "seeds"),
):
    """Read BERT and data, refuse what does not fit, make the run's folder, say what there is, tokenize: a Run for each seed.

    unlabelled: texts without labels wanted beside the training texts; unlabelled_needed: refuse if none is left for them.
    depths: the settings that say how many layers of the BERT a model is to have; fewest: how many it must have. extensible:
    see `report.open_folder`. settings: needs data, bert, download, maxlen, seeds, batch_size, precision, output and the counts
    of examples. Raises InputError before anything is written.
    """
    sources.provide({"--bert": settings.bert, "--data": settings.data}, settings.download)
    bert = pretrained.load(settings.bert, settings.maxlen)
    if bert.layers < fewest:
        raise InputError(f"--bert {bert.source}: layers: {bert.layers}; at least {fewest} are needed")
    for name in depths:
        wanted = getattr(settings, name)
        for depth in wanted if isinstance(wanted, tuple) else (wanted,):
            if depth > bert.layers:
                flag = f"--{name.replace('_', '-')} {depth}"
                raise InputError(f"{flag}: {bert.source} has {bert.layers} layers, so 1 to {bert.layers} can be taken")
    corpus = data.load(settings.data)
    counts = settings.train_examples, unlabelled, settings.validation_examples, settings.test_examples
    all_parts = {seed: data.split(corpus, seed, *counts) for seed in settings.seeds}
    for parts in all_parts.values():
        data.check_parts(corpus, parts, settings.batch_size)
        if unlabelled and unlabelled_needed and not len(parts.unlabelled):
            raise InputError(
                f"{corpus.name}: training takes all {len(parts.train):,} texts and leaves none without labels; lower "
                "--train-examples, add a file of unlabelled texts, or leave their experiment out of --experiments"
            )
    folder = Path(settings.output or f"runs/{script}-{preset}")
    inputs = {
        "data": fingerprint(corpus.texts, corpus.labels, corpus.classes, corpus.pool, corpus.dev, corpus.test),
        "bert": fingerprint(bert.config, *bert.weights.values(), bert.tokenizer.to_str(), bert.pad_id),
    }
    report.open_folder(folder, as_dict(replace(settings, output="", download=False)), inputs, extensible)
    set_precision(settings.precision)

    parts = next(iter(all_parts.values()))
    spare = f"{len(parts.unlabelled):,} unlabelled, " if len(parts.unlabelled) else ""
    print(f"{corpus.name}: {len(corpus.classes)} classes, {len(parts.train):,} training, {spare}{len(parts.validation):,} "
          f"validation, {len(parts.test):,} test texts of up to {settings.maxlen} tokens")
    print(f"{bert.source}: {bert.layers} layers")
    for remark in data.remarks(corpus, parts):
        print(remark)
    encoded = data.encode(corpus.texts, bert.tokenizer, settings.maxlen, bert.pad_id)
    return [Run(settings, seed, corpus, encoded, parts, folder, bert) for seed, parts in all_parts.items()]


def build_classifier(bert, classes, dropout):
    """(bert4keras transformer, Keras model (token ids, segment ids) -> logits (batch, classes) float32)."""
    encoder = pretrained.build_encoder(bert, dropout)
    logits = build_head(classes, encoder.initializer)(cls(encoder.model.output))
    return encoder, keras.Model(encoder.model.inputs, logits)


def inputs_and_mask():
    """([token ids, segment ids], mask of the tokens that are not padding) of a model that is put together of parts."""
    inputs = [keras.Input((None,), dtype="int32", name=name) for name in ("token_ids", "segment_ids")]
    return inputs, Lambda(lambda ids: tf.not_equal(ids, 0), name="mask")(inputs[0])


def cls(hidden):
    """The first token's hidden state: (batch, tokens, hidden) -> (batch, hidden)."""
    return Lambda(lambda states: states[:, 0], name="CLS")(hidden)


def build_head(classes, initializer):
    """The linear layer from a text's hidden state to its logits."""
    return keras.layers.Dense(classes, kernel_initializer=initializer, dtype="float32", name="Classifier")


def costs(run, layers):
    """What classifiers of these depths cost, trained or not: {str(depth): {"layers", "flops", "latency_ms"}}."""
    keras.backend.clear_session()
    classes, tokens = len(run.corpus.classes), run.settings.maxlen
    berts = {str(depth): pretrained.shallow(run.bert, range(depth)) for depth in layers}
    classifiers = {depth: build_classifier(bert, classes, 0)[1] for depth, bert in berts.items()}
    times = latency(classifiers, lambda size: (tf.ones((size, tokens), tf.int32), tf.zeros((size, tokens), tf.int32)))
    head = 2 * run.bert.config["hidden_size"] * classes
    return {
        depth: {"layers": bert.layers, "flops": encoder_flops(bert.config, tokens) + head, "latency_ms": times[depth]}
        for depth, bert in berts.items()
    }


def write_best_student(run, models, names, trained):
    """Write to student/ the model, of all seeds and of the experiments `names`, that was best on the validation part.

    trained: (run, name) -> (BERT, transformer, classifier) of a finished stage. Returns which it is, in words.
    """
    candidates = [model for model in models if model["name"] in names]
    if not candidates:
        shutil.rmtree(run.folder / "student", ignore_errors=True)  # of an earlier start
        return "none: no shallow model among these"
    best = max(candidates, key=lambda model: model["validation_accuracy"])
    bert, encoder, classifier = trained(replace(run, seed=best["seed"]), best["name"])
    kernel, bias = classifier.get_layer("Classifier").get_weights()
    report.write_student(run.folder / "student", pretrained.read_encoder(encoder, bert), kernel, bias, run.corpus.classes)
    return f"{best['name']}, seed {best['seed']}"
