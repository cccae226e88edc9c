"""Knowledge distillation of a fine-tuned BERT into its first few layers, by hard labels and softened logits.

A teacher (all layers) is fine-tuned; its logits over the training texts, computed once, become soft labels at temperature T;
a student (3 layers) learns the labels and the soft labels together. Beside it stands what it must be measured against: the
same student trained alone, self-distilled, distilled from noise, and distilled with further texts that have no label.

    Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, 2015, arXiv 1503.02531
    Tang et al.: Distilling Task-Specific Knowledge from BERT into Simple Neural Networks, 2019, arXiv 1903.12136
    Turc et al.: Well-Read Students Learn Better, 2019, arXiv 1908.08962 (soft labels on unlabelled texts)

    python knowledge_distillation_bert.py                 # bundled model and data, minutes on two cores
    python knowledge_distillation_bert.py --temperature 4 --seeds 0 1 2
    python knowledge_distillation_bert.py original        # IFLYTEK and Chinese BERT-base, as the original script
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from common import InputError, data, distillation, pretrained, report, training
from common.backend import Lambda, keras, set_precision, set_seed
from common.command import as_dict, check_at_least, check_positive, start
from common.evaluation import compare, encoder_flops, latency, parameters, predict, scores
from common.files import write_json, write_text, write_whole

# Settings --------------------------------------------------------------------------------------------------------------

DEFAULT = ("teacher", "alone", "distilled", "distilled-unlabelled")


@dataclass(frozen=True)
class Settings:
    # Data
    data: str = "20newsgroups"  # a named data set, or your own file or folder
    train_examples: int = 600  # labelled training texts at most; 0 takes all
    unlabelled_examples: int = 1400  # further texts at most, labels unseen, for `distilled-unlabelled`
    validation_examples: int = 400  # held out to choose epochs, a fifth at most; 0 chooses on test, as the original did
    test_examples: int = 2000  # of the test part at most, read once at the end; 0 takes all

    # Models
    bert: str = "minilm-l6"  # the teacher: a named BERT, or your own folder
    maxlen: int = 48  # tokens a text is cut to
    student_layers: int = 3  # layers of the student
    student_init: Literal["first", "spread", "teacher-first", "teacher-spread"] = "first"  # the layers it starts from

    # Distillation
    experiments: tuple[str, ...] = DEFAULT  # rows: these, alone-self-distilled, teacher-self-distilled, noise
    temperature: float = 6.0  # T
    hard_weight: float = 1.0  # of the cross-entropy with the labels
    soft_weight: float = 1.0  # of T² · KL(teacher || student)

    # Training
    batch_size: int = 32  # texts a step
    teacher_epochs: int = 5  # of the teacher, and of `teacher-self-distilled`
    student_epochs: int = 12  # of every student but the next
    unlabelled_epochs: int = 5  # of `distilled-unlabelled`, whose epochs are longer
    teacher_learning_rate: float = 2e-4  # of Adam, for the deep models
    student_learning_rate: float = 2e-4  # of Adam, for the shallow ones
    schedule: Literal["linear", "constant"] = "linear"  # learning rate falling to 0, or staying
    teacher_dropout: float = 0.1  # in hidden states and attention
    student_dropout: float = 0.0  # the same of the shallow models, which underfit as it is

    # Run
    seeds: tuple[int, ...] = (0,)  # one whole run each: parts, order, initial classifier, dropout
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    output: str = ""  # the run's folder; default runs/knowledge_distillation_bert-PRESET


PRESETS = {
    "demo": Settings(),
    "original": Settings(
        data="iflytek", train_examples=0, unlabelled_examples=0, validation_examples=0, test_examples=0,
        bert="chinese-bert-base", maxlen=128, student_layers=3, student_init="first",
        experiments=("teacher", "alone", "distilled", "alone-self-distilled", "teacher-self-distilled", "noise"),
        temperature=3.0, hard_weight=1.0, soft_weight=1.0,
        batch_size=32, teacher_epochs=5, student_epochs=10, teacher_learning_rate=2e-5, student_learning_rate=2e-5,
        schedule="constant", teacher_dropout=0.1, student_dropout=0.1,
    ),
}


@dataclass(frozen=True)
class Experiment:
    """A row of the original's table: how deep the model is, whose soft labels it learns, and on which texts."""

    deep: bool
    soft_labels: str | None  # of another experiment's model, "noise", or None: hard labels alone
    unlabelled: bool = False


EXPERIMENTS = {
    "teacher": Experiment(deep=True, soft_labels=None),
    "alone": Experiment(deep=False, soft_labels=None),
    "distilled": Experiment(deep=False, soft_labels="teacher"),
    "distilled-unlabelled": Experiment(deep=False, soft_labels="teacher", unlabelled=True),
    "alone-self-distilled": Experiment(deep=False, soft_labels="alone"),
    "teacher-self-distilled": Experiment(deep=True, soft_labels="teacher"),
    "noise": Experiment(deep=False, soft_labels="noise"),
}
COMPARISONS = (
    ("distilled", "alone"), ("distilled-unlabelled", "alone"), ("distilled-unlabelled", "distilled"),
    ("alone-self-distilled", "alone"), ("noise", "alone"), ("distilled", "noise"), ("teacher-self-distilled", "teacher"),
)


# Teacher and student ---------------------------------------------------------------------------------------------------


def build_classifier(bert, classes, dropout):
    """(bert4keras transformer, Keras model (token ids, segment ids) -> logits (batch, classes) float32)."""
    encoder = pretrained.build_encoder(bert, dropout)
    cls = Lambda(lambda hidden: hidden[:, 0], name="CLS")(encoder.model.output)  # (batch, hidden)
    head = keras.layers.Dense(classes, kernel_initializer=encoder.initializer, dtype="float32", name="Classifier")
    return encoder, keras.Model(encoder.model.inputs, head(cls))


# Distillation ----------------------------------------------------------------------------------------------------------


def compile_alone(classifier, optimizer):
    """Cross-entropy with the true labels."""
    classifier.compile(optimizer, loss=distillation.hard_loss)
    return classifier


def compile_distilled(classifier, optimizer, settings):
    """One classifier, two outputs: its logits z for the labels, z / T for the soft labels.

    loss = hard_weight · CE(label, softmax(z)) + soft_weight · T² · KL(teacher_T || softmax(z / T))   (Hinton, section 2)
    """
    temperature = settings.temperature
    logits = classifier.output
    outputs = {
        "hard": keras.layers.Activation("linear", dtype="float32", name="hard")(logits),
        "soft": Lambda(lambda z: z / temperature, dtype="float32", name="soft")(logits),
    }
    model = keras.Model(classifier.inputs, outputs)
    model.compile(
        optimizer,
        loss={"hard": distillation.hard_loss, "soft": distillation.soft_loss},
        loss_weights={"hard": settings.hard_weight, "soft": settings.soft_weight * temperature**2},
    )
    return model


def distillation_targets(labels, soft_labels):
    """(labels, weights) for the two outputs; where there is no label only the soft loss counts."""
    labelled = labels != data.UNLABELLED
    targets = {"hard": np.where(labelled, labels, 0), "soft": soft_labels}
    weights = {"hard": labelled.astype(np.float32), "soft": np.ones(len(labels), np.float32)}
    return targets, weights


# One experiment --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """What all experiments of one seed share; each experiment leaves its weights and its record in a folder of its own."""

    settings: Settings
    seed: int
    bert: pretrained.Bert
    corpus: data.Corpus
    encoded: data.Encoded
    parts: data.Parts
    folder: Path

    def stage(self, name):
        return self.folder / f"seed-{self.seed}" / name


def build(run, name):
    """(the BERT it starts from, bert4keras transformer, classifier) of an experiment, not trained yet."""
    settings, deep = run.settings, EXPERIMENTS[name].deep
    if deep:
        bert = run.bert
    else:
        kept = pretrained.take_layers(run.bert.layers, settings.student_layers, settings.student_init.endswith("spread"))
        bert = pretrained.shallow(
            trained_bert(run, "teacher") if settings.student_init.startswith("teacher") else run.bert, kept
        )
    dropout = settings.teacher_dropout if deep else settings.student_dropout
    return bert, *build_classifier(bert, len(run.corpus.classes), dropout)


def trained(run, name):
    """(BERT, transformer, classifier) of a finished experiment, with its best weights."""
    bert, encoder, classifier = build(run, name)
    training.load_weights(classifier, run.stage(name) / "weights.npz")
    return bert, encoder, classifier


def trained_bert(run, name):
    """The fine-tuned encoder of a finished experiment, for another to start from or to be taken away."""
    bert, encoder, _ = trained(run, name)
    return pretrained.read_encoder(encoder, bert)


def soft_labels_of(run, name, rows):
    """Soft labels (rows, classes) for the texts `rows` from a finished experiment's model, each text computed once."""
    temperature = run.settings.temperature
    if name == "noise":
        return distillation.noise_labels(run.corpus.labels[rows], len(run.corpus.classes), temperature, run.seed)
    classifier = trained(run, name)[2]
    soft_labels, _ = distillation.cached_soft_labels(
        run.stage(name) / "soft_labels.npz",
        training.weights_fingerprint(classifier),
        distillation.example_keys(run.encoded, rows),
        temperature,
        lambda missing: predict(classifier, run.encoded, rows[missing]),
    )
    return soft_labels


def train(run, name):
    """Run one experiment, or read what an earlier start left of it. Returns its record."""
    record = run.stage(name) / "record.json"
    if record.is_file():
        return json.loads(record.read_text(encoding="utf-8"))
    settings, experiment, parts, labels = run.settings, EXPERIMENTS[name], run.parts, run.corpus.labels
    rows = np.concatenate([parts.train, parts.unlabelled]) if experiment.unlabelled else parts.train
    hidden = np.concatenate([labels[parts.train], np.full(len(rows) - len(parts.train), data.UNLABELLED, np.int32)])
    extra = {}
    if experiment.soft_labels:
        soft_labels = soft_labels_of(run, experiment.soft_labels, rows)
        extra["soft_label_accuracy"] = float((soft_labels.argmax(-1) == labels[rows])[: len(parts.train)].mean())
    keras.backend.clear_session()  # the soft labels' model is not needed any more
    set_seed(run.seed)
    _, _, classifier = build(run, name)

    epochs = settings.teacher_epochs if experiment.deep else settings.student_epochs
    epochs = settings.unlabelled_epochs if experiment.unlabelled else epochs
    rate = settings.teacher_learning_rate if experiment.deep else settings.student_learning_rate
    steps = -(-len(rows) // settings.batch_size)
    optimizer = training.adam(rate, steps * epochs, settings.schedule)
    if experiment.soft_labels:
        model = compile_distilled(classifier, optimizer, settings)
        targets = distillation_targets(hidden, soft_labels)
    else:
        model, targets = compile_alone(classifier, optimizer), (hidden,)
    batches = data.batches(run.encoded, rows, targets, settings.batch_size, run.seed)
    keep_best = training.KeepBest(classifier, run.encoded, parts.validation, labels[parts.validation])
    events = run.folder / "tensorboard" / f"seed-{run.seed}-{name}"
    history, seconds = training.fit(model, batches, steps, epochs, keep_best, f"seed {run.seed} {name}", str(events))

    logits = predict(classifier, run.encoded, parts.test)
    found = {
        "name": name,
        "seed": run.seed,
        "parameters": parameters(classifier),
        **scores(labels[parts.test], logits),
        "validation_accuracy": keep_best.best,
        "train_seconds": seconds,
        "epochs": epochs,
        **extra,
        "history": history,
    }
    training.save_weights(classifier, run.stage(name) / "weights.npz")
    write_whole(run.stage(name) / "test_logits.npy", lambda file: np.save(file, logits))
    write_json(record, found)
    return found


# The whole run ---------------------------------------------------------------------------------------------------------


def main(preset, settings):
    """Read settings and data, run every experiment for every seed, report."""
    wanted = check(settings)
    bert = pretrained.load(settings.bert, settings.maxlen)
    pretrained.take_layers(bert.layers, settings.student_layers, spread=False)  # are there that many?
    corpus = data.load(settings.data)
    all_parts = {seed: split(corpus, settings, wanted, seed) for seed in settings.seeds}
    folder = Path(settings.output or f"runs/knowledge_distillation_bert-{preset}")
    inputs = {
        "data": distillation.fingerprint(corpus.texts, corpus.labels, corpus.classes, corpus.pool, corpus.dev, corpus.test),
        "bert": distillation.fingerprint(bert.config, *bert.weights.values(), bert.tokenizer.to_str(), bert.pad_id),
    }
    report.open_folder(folder, as_dict(replace(settings, output="")), inputs)
    set_precision(settings.precision)

    parts = next(iter(all_parts.values()))
    unlabelled = f"{len(parts.unlabelled):,} unlabelled, " if len(parts.unlabelled) else ""
    print(f"{corpus.name}: {len(corpus.classes)} classes, {len(parts.train):,} training, {unlabelled}"
          f"{len(parts.validation):,} validation, {len(parts.test):,} test texts of up to {settings.maxlen} tokens")
    print(f"{bert.source}: teacher {bert.layers} layers, student {settings.student_layers}")
    taught = len(np.unique(corpus.labels[parts.train]))
    missing = [f"only {taught} of the classes occur in the training texts"] if taught < len(corpus.classes) else []
    for note in corpus.notes + missing:
        print(note)
    encoded = data.encode(corpus.texts, bert.tokenizer, settings.maxlen, bert.pad_id)

    models = []
    for seed, parts in all_parts.items():
        run = Run(settings, seed, bert, corpus, encoded, parts, folder)
        for name in wanted:
            models.append(train(run, name))
            print(describe(models[-1]))
    report_run(preset, settings, run, models)


def check(settings):
    """Refuse settings that cannot be, before anything is read. Returns the experiments to run, dependencies included."""
    check_positive(settings, "temperature", "teacher_learning_rate", "student_learning_rate")
    check_at_least(
        settings, maxlen=3, batch_size=1, student_layers=1, teacher_epochs=1, student_epochs=1, unlabelled_epochs=1,
        train_examples=0, unlabelled_examples=0, validation_examples=0, test_examples=0,
        hard_weight=0, soft_weight=0, teacher_dropout=0, student_dropout=0, seeds=0,
    )
    for name in ("teacher_dropout", "student_dropout"):
        if getattr(settings, name) >= 1:
            raise InputError(f"--{name.replace('_', '-')} {getattr(settings, name)}: must be below 1")
    if not settings.seeds or len(set(settings.seeds)) < len(settings.seeds):
        raise InputError(f"--seeds {' '.join(map(str, settings.seeds))}: at least one is needed, and none twice")
    if max(settings.seeds) >= 2**32:
        raise InputError(f"--seeds {max(settings.seeds)}: must be below 2**32")
    unknown = [name for name in settings.experiments if name not in EXPERIMENTS]
    if unknown:
        raise InputError(f"--experiments {unknown[0]}: expected some of {' '.join(EXPERIMENTS)}")
    if "distilled-unlabelled" in settings.experiments and not settings.unlabelled_examples:
        raise InputError("--experiments distilled-unlabelled needs --unlabelled-examples above 0")
    needed = {"teacher", *settings.experiments} | {EXPERIMENTS[name].soft_labels for name in settings.experiments}
    return [name for name in EXPERIMENTS if name in needed]


def split(corpus, settings, wanted, seed):
    """The texts one seed uses. Raises InputError if there are too few."""
    unlabelled = settings.unlabelled_examples if "distilled-unlabelled" in wanted else 0
    parts = data.split(corpus, seed, settings.train_examples, unlabelled, settings.validation_examples, settings.test_examples)
    if len(parts.train) < settings.batch_size:
        raise InputError(
            f"{corpus.name}: {len(parts.train)} training texts are fewer than a batch; lower --batch-size {settings.batch_size}"
        )
    if unlabelled and not len(parts.unlabelled):
        raise InputError(
            f"{corpus.name}: training takes all {len(parts.train):,} texts and leaves none for distilled-unlabelled; lower "
            "--train-examples, add a file of unlabelled texts, or leave it out of --experiments"
        )
    if len(parts.validation) == 0:
        raise InputError(f"{corpus.name}: too few texts to hold some out; --validation-examples 0 chooses on the test part")
    if len(parts.test) < 2:
        raise InputError(f"{corpus.name}: {len(parts.test)} test texts; at least 2 are needed to compare models")
    return parts


def describe(model):
    """A finished experiment in one line."""
    told = f", soft labels {model['soft_label_accuracy']:.1%} right" if "soft_label_accuracy" in model else ""
    return (
        f"  seed {model['seed']}  {model['name']:<22}  {model['epochs']:>2} epochs in {model['train_seconds']:>4.0f} s"
        f"   validation {model['validation_accuracy']:.1%}   test {model['accuracy']:.1%}{told}"
    )


def measure(run):
    """What does not depend on training: {"teacher" or "student": {"layers", "flops", "latency_ms"}}; measured once."""
    path = run.folder / "cost.json"
    if not path.is_file():
        keras.backend.clear_session()
        berts = {"teacher": run.bert, "student": pretrained.shallow(run.bert, range(run.settings.student_layers))}
        classifiers = {name: build_classifier(bert, len(run.corpus.classes), 0)[1] for name, bert in berts.items()}
        times = latency(classifiers, run.settings.maxlen)
        head = 2 * run.bert.config["hidden_size"] * len(run.corpus.classes)
        write_json(path, {
            name: {
                "layers": bert.layers,
                "flops": encoder_flops(bert.config, run.settings.maxlen) + head,
                "latency_ms": times[name],
            }
            for name, bert in berts.items()
        })
    return json.loads(path.read_text(encoding="utf-8"))


def comparisons(run, models):
    """A - B for each pair of COMPARISONS that was run, over all seeds, on the same test texts."""
    names = {model["name"] for model in models}

    def correct(name):
        logits = [np.load(run.folder / f"seed-{seed}" / name / "test_logits.npy") for seed in run.settings.seeds]
        return np.stack([z.argmax(-1) == run.corpus.labels[run.parts.test] for z in logits])  # (seeds, texts)

    return [
        {"a": a, "b": b, **compare(correct(a), correct(b)), "seeds": list(run.settings.seeds)}
        for a, b in COMPARISONS
        if {a, b} <= names
    ]


def report_run(preset, settings, run, models):
    """Write results.json, log.csv, plots, report.md and the student; print the table."""
    cost = measure(run)
    models = [model | cost["teacher" if EXPERIMENTS[model["name"]].deep else "student"] for model in models]
    parts, folder = run.parts, run.folder
    results = {
        "schema": 1,
        "script": "knowledge_distillation_bert",
        "preset": preset,
        "settings": as_dict(settings),
        "environment": report.environment(),
        "data": {
            "name": run.corpus.name, "classes": len(run.corpus.classes), "train": len(parts.train),
            "unlabelled": len(parts.unlabelled), "validation": len(parts.validation), "test": len(parts.test),
            "chosen_on": "test" if parts.validation is parts.test else "validation",
            "notes": run.corpus.notes, "descriptions": run.corpus.descriptions,
        },
        "models": [{key: value for key, value in model.items() if key != "history"} for model in models],
        "comparisons": comparisons(run, models),
    }
    taken = write_best_student(run, models)
    report.write_log(folder / "log.csv", models)
    report.plot_curves(folder / "curves.png", models)
    report.plot_tradeoff(folder / "tradeoff.png", models)
    write_json(folder / "results.json", results)
    write_text(folder / "report.md", report.document(results, taken))
    print(report.summary(results))
    print(f"\n{folder}/  report.md  results.json  curves.png  tradeoff.png  student/ ({taken})")


def write_best_student(run, models):
    """Write to student/ the shallow model, of all experiments and seeds, that was best on the validation part."""
    shallow = [model for model in models if not EXPERIMENTS[model["name"]].deep]
    if not shallow:
        return "none: no shallow model was trained"
    best = max(shallow, key=lambda model: model["validation_accuracy"])
    run = replace(run, seed=best["seed"])
    bert, encoder, classifier = trained(run, best["name"])
    kernel, bias = classifier.get_layer("Classifier").get_weights()
    report.write_student(run.folder / "student", pretrained.read_encoder(encoder, bert), kernel, bias, run.corpus.classes)
    return f"{best['name']}, seed {best['seed']}"


if __name__ == "__main__":
    start(main, PRESETS, __doc__.split("\n\n")[0])
