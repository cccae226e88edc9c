"""What the scripts on texts do alike around their method: opening a run, the classifier on a BERT, its cost, the student.

How models are taught is the scripts' story, not this module's.
"""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import data as sources
from common import InputError, data, export, pretrained, report, training
from common.backend import Lambda, keras, precision_remarks, set_precision, tf
from common.command import identity
from common.evaluation import encoder_flops, latency
from common.files import fingerprint, whole_folder, write_text


@dataclass(frozen=True)
class Run(training.Run):
    """A seed's run, and the BERT that its models start from."""

    bert: pretrained.Bert


def open_runs(
    script, preset, settings, unlabelled=0, unlabelled_needed=True, depths=("student_layers",), fewest=1,
    extensible=("experiments", "seeds", "export"),
):
    """Read BERT and data, refuse what does not fit, make the run's folder, say what there is, tokenize: a Run for each seed.

    unlabelled: texts without labels wanted beside the training texts; unlabelled_needed: refuse if none is left for them.
    depths: the settings that say how many layers of the BERT a model is to have; fewest: how many it must have. extensible:
    see `report.open_folder`. settings: needs data, bert, download, maxlen, seeds, batch_size, precision, output and the counts
    of examples. Raises InputError before anything is written.
    """
    sources.provide([("--bert", "bert", settings.bert), ("--data", "texts", settings.data)], settings.download)
    export.check_packages(settings)
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
    report.open_folder(folder, identity(settings), inputs, extensible)
    set_precision(settings.precision)

    parts = next(iter(all_parts.values()))
    spare = f"{len(parts.unlabelled):,} unlabelled, " if len(parts.unlabelled) else ""
    print(f"{corpus.name}: {len(corpus.classes)} classes, {len(parts.train):,} training, {spare}{len(parts.validation):,} "
          f"validation, {len(parts.test):,} test texts of up to {settings.maxlen} tokens")
    print(f"{bert.source}: {bert.layers} layers")
    for remark in [*precision_remarks(settings.precision), *data.remarks(corpus, parts)]:
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
    """What classifiers of these depths cost, trained or not: {str(depth): {"layers", "flops", "latency_ms"}}.

    Timed in float32, as student/ has it, whatever they are trained in.
    """
    classes, tokens = len(run.corpus.classes), run.settings.maxlen
    berts = {str(depth): pretrained.shallow(run.bert, range(depth)) for depth in layers}
    with export.in_float32(run.settings.precision):
        classifiers = {depth: build_classifier(bert, classes, 0)[1] for depth, bert in berts.items()}
        times = latency(classifiers, lambda size: (tf.ones((size, tokens), tf.int32), tf.zeros((size, tokens), tf.int32)))
    head = 2 * run.bert.config["hidden_size"] * classes
    return {
        depth: {"layers": bert.layers, "flops": encoder_flops(bert.config, tokens) + head, "latency_ms": times[depth]}
        for depth, bert in berts.items()
    }


def write_best_student(run, models, names, trained, teacher, story):
    """Write to student/ the model, of all seeds and of the experiments `names`, that was best on the validation part.

    trained: (run, name) -> (BERT, transformer, classifier) of a finished stage. teacher: the experiment that the report holds
    it against. story: the script's docstring. Returns (which it is, in words; sections of the report).
    """
    candidates = [model for model in models if model["name"] in names]
    if not candidates:
        shutil.rmtree(run.folder / "student", ignore_errors=True)  # of an earlier start
        return "none: no shallow model among these", []
    best = max(candidates, key=lambda model: model["validation_accuracy"])
    teacher = next(model for model in models if model["name"] == teacher and model["seed"] == best["seed"])
    run = replace(run, seed=best["seed"])
    with export.in_float32(run.settings.precision):
        bert, encoder, classifier = trained(run, best["name"])
        bert, head = pretrained.read_encoder(encoder, bert), classifier.get_layer("Classifier").get_weights()
        section = write_student(run, best, teacher, story, bert, export.classifying_graph(classifier, bert.pad_id), head)
    return f"{best['name']}, seed {best['seed']}", [section]


def write_student(run, best, teacher, story, bert, graph, head=None, signature=export.TEXTS, for_onnx=None, **more):
    """Write student/ and check it: what TensorFlow, Hugging Face's formula and ONNX make of the files is what `graph` answers.

    run: of the seed of `best`. best, teacher: records. story: the script's docstring. bert: with the trained weights. graph:
    inputs as `signature` says. for_onnx: makes the graph that ONNX is to have, if not the same. head, more: see
    `export.write_encoder`; among `more`, a FastBERT's speed. Returns the section of the report that holds the student against
    its teacher.
    """
    rows, settings = run.parts.test[:32], run.settings
    token_ids, segment_ids = run.examples.inputs(rows)
    inputs = {"token_ids": np.array(export.exchange(token_ids, bert.pad_id)), "segment_ids": segment_ids}
    inputs |= {"speed": np.array(more["speed"], np.float32)} if "speed" in more else {}
    expected = {name: value.numpy() for name, value in graph(*inputs.values()).items()}
    with whole_folder(run.folder / "student") as folder:
        export.write_encoder(folder, bert, run.corpus.classes, head, maxlen=settings.maxlen, **more)
        read = pretrained.load(str(folder))
        export.check_encoder(read, bert)
        export.write_saved_model(folder, graph)
        taken = export.load(folder)
        found = export.ask(taken, [run.corpus.texts[row] for row in rows])["probabilities"]
        export.check_equal(f"{folder.name}/saved_model", found, expected["probabilities"])
        if head:
            found = export.hugging_face_answer(folder, read, token_ids, segment_ids)
            export.check_equal(f"{folder.name}/model.safetensors", found, expected["probabilities"])
        if "onnx" in settings.export:
            export.write_onnx(folder, for_onnx() if for_onnx else graph, signature, inputs)
        weights = [folder / "model.safetensors"] if head else (folder / "saved_model").rglob("*")
        sizes = (run.stage(teacher["name"]) / "weights.npz").stat().st_size, sum(file.stat().st_size for file in weights)
        table = export.against_teacher(teacher, best, sizes)
        write_text(folder / "README.md", _card(run, best, story, table, head))
    return "The student to take away", table, export.NOTE


def _card(run, best, story, table, head):
    """The model card of student/."""
    corpus, tokens = run.corpus, run.settings.maxlen
    base, texts = (Path(name).name for name in (run.bert.source, corpus.name))
    licences = {name: sources.SOURCES[name].licence for name in (run.bert.source, corpus.name) if name in sources.SOURCES}
    paragraphs = [" ".join(paragraph.split()) for paragraph in story.split("\n\n")[:2]] + [
        f"This is `{best['name']}` of seed {best['seed']}: {best['layers']:.3g} layers of {base}, taught on "
        f"{len(run.parts.train):,} labelled texts of {texts}, {len(corpus.classes)} classes, up to {tokens} tokens.",
        f"Licences: {'; '.join(f'{name}: {licence}' for name, licence in licences.items()) or 'those of ' + base}. The model's "
        "own licence is that of the model it was made from.",
        f"Accuracy on {len(run.parts.test):,} test texts; latency of one text and of 32 together, in milliseconds:",
    ]
    speed = f", speed=tf.constant({best['speed']:g})" if "speed" in best else ""
    uses = ['answer = tf.saved_model.load("saved_model").signatures["serving_default"]',
            f"answer(token_ids=ids, segment_ids=tf.zeros_like(ids){speed})  # int32 (texts, tokens), padding {run.bert.pad_id}"]
    if head:
        uses = ['transformers.pipeline("text-classification", ".", truncation=True)("a text")', *uses]
    return export.model_card(f"{best['name']} of {base} on {texts}", paragraphs, table, licences.get(run.bert.source), uses)
