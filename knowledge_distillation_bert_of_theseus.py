"""BERT-of-Theseus: compress a fine-tuned BERT by replacing its modules, more and more of them, while it is at work.

The predecessor (all layers) is fine-tuned and frozen. Each layer of the successor then learns inside it, in the place of a
module of several layers: at a replacing rate p the successor's layer computes, otherwise the predecessor's module. At p = 1 the
successor stands alone. No loss of distillation is needed. Beside it stands what it must be measured against: the same successor
fine-tuned directly, and a model of a depth between.

    Xu, Zhou, Ge, Wei, Zhou: BERT-of-Theseus: Compressing BERT by Progressive Module Replacing, 2020, arXiv 2002.02925

    python knowledge_distillation_bert_of_theseus.py                # bundled model and data, minutes on two cores
    python knowledge_distillation_bert_of_theseus.py --replacing random --replacing-schedule constant --replacing-base 0.5
    python knowledge_distillation_bert_of_theseus.py original       # IFLYTEK and Chinese BERT-base, as the original script
    python knowledge_distillation_bert_of_theseus.py paper          # the same data and model, trained as the paper does
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from matplotlib.figure import Figure

from common import command, distillation, pretrained, report, texts, training
from common.backend import draw, fresh_session, keras, only_the_chief_goes_on, set_seed, tf
from common.command import start
from common.files import kept

# Settings --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Settings:
    # Data
    data: str = "20newsgroups"  # a named data set, or your own file or folder
    download: bool = False  # fetch the named data set and BERT if they are not here
    train_examples: int = 600  # labelled training texts at most; 0 takes all
    validation_examples: int = 400  # held out to choose epochs, a fifth at most; 0 chooses on test, as the original did
    test_examples: int = 2000  # of the test part at most, read once at the end; 0 takes all

    # Models
    bert: str = "minilm-l6"  # the predecessor: a named BERT, or your own folder
    maxlen: int = 48  # tokens a text is cut to
    student_layers: int = 3  # layers of the successor, each in the place of a module of the predecessor
    middle_layers: int = 4  # layers of `middle`, fine-tuned for comparison
    successor_init: Literal["pretrained", "predecessor"] = "predecessor"  # whose first layers it starts from

    # Replacing
    experiments: tuple[str, ...] = ("predecessor", "middle", "successor", "theseus")  # rows; see EXPERIMENTS for more
    replacing: Literal["additive", "random"] = "additive"  # a weighted sum of both modules, or one of them, drawn
    replacing_schedule: Literal["constant", "linear"] = "constant"  # the rate p stays at its base, or rises to 1
    replacing_base: float = 0.5  # p at the start
    replacing_share: float = 0.5  # of the mixed steps, after which a linear p has reached 1
    mix_embeddings: bool = False  # replace the embeddings too, as the original does; else share the predecessor's, frozen

    # Training
    batch_size: int = 32  # texts a step
    predecessor_epochs: int = 5
    mixed_epochs: int = 6  # of progressive replacing
    successor_epochs: int = 6  # of the successor alone after it, all of it trained; a p that never reaches 1 needs them
    direct_epochs: int = 12  # of `successor` and `middle`
    predecessor_learning_rate: float = 2e-4
    successor_learning_rate: float = 2e-4  # of all that is shallow
    schedule: Literal["linear", "constant"] = "linear"  # learning rate falling to 0, or staying
    weight_decay: float = 0.0  # above 0: AdamW
    clip_norm: float = 1.0  # the gradients' global norm at most; 0 does not clip
    predecessor_dropout: float = 0.1  # in hidden states and attention
    successor_dropout: float = 0.0  # the same of all that is shallow

    # Run
    seeds: tuple[int, ...] = (0,)  # one whole run each: parts, order, initial classifier, dropout, draws
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    strategy: Literal["none", "mirrored", "multiworker"] = "none"  # train on one device, all of them, those of TF_CONFIG
    export: tuple[Literal["onnx"], ...] = ()  # what student/ is to hold besides; onnx needs tf2onnx and onnxruntime
    output: str = ""  # the run's folder; default runs/knowledge_distillation_bert_of_theseus-PRESET


ORIGINAL = Settings(
    data="iflytek", train_examples=0, validation_examples=0, test_examples=0,
    bert="chinese-bert-base", maxlen=128, student_layers=3, middle_layers=6, successor_init="pretrained",
    replacing="additive", replacing_schedule="constant", replacing_base=0.5, mix_embeddings=True,
    batch_size=32, predecessor_epochs=5, mixed_epochs=10, successor_epochs=5, direct_epochs=5,
    predecessor_learning_rate=2e-5, successor_learning_rate=2e-5, schedule="constant", clip_norm=0,
    predecessor_dropout=0.1, successor_dropout=0.1,
)
PRESETS = {
    "demo": Settings(),
    "original": ORIGINAL,
    "paper": replace(
        ORIGINAL, validation_examples=1000,
        student_layers=6, middle_layers=9, successor_init="predecessor", mix_embeddings=False,
        replacing="random", replacing_schedule="linear", replacing_base=0.3, replacing_share=0.5,
        mixed_epochs=10, successor_epochs=0, direct_epochs=10, schedule="linear", weight_decay=0.01, clip_norm=1.0,
    ),
}

THESEUS = {  # a row of each: what of the settings is another there
    "theseus": {},
    "theseus-additive": {"replacing": "additive", "replacing_schedule": "constant", "replacing_base": 0.5},
    "theseus-random": {"replacing": "random", "replacing_schedule": "constant", "replacing_base": 0.5},
    "theseus-random-linear": {"replacing": "random", "replacing_schedule": "linear", "replacing_base": 0.3},
}
UNMIXED = "unmixed"  # a control: starts as theseus does, trained as long, but nothing is replaced
FROM_PREDECESSOR = (UNMIXED, *THESEUS)
EXPERIMENTS = ("predecessor", "middle", "successor", *FROM_PREDECESSOR)
COMPARISONS = (
    *((name, "successor") for name in FROM_PREDECESSOR), *((name, UNMIXED) for name in THESEUS),
    ("middle", "successor"), *(("predecessor", name) for name in THESEUS),
)


# Replacing -------------------------------------------------------------------------------------------------------------


class Replacing(keras.layers.Layer):
    """A module of the predecessor, and the successor's module that learns to take its place.

    random: y = r · successor(x) + (1 - r) · predecessor(x), r ~ Bernoulli(p): one draw for the whole batch in each step, and
    the module that is not drawn is not computed (paper, equations 3 and 4). additive: y = p · successor(x) + (1 - p) ·
    predecessor(x), which is steadier and computes both. Outside training it is the successor's module alone, at the scale at
    which it was trained; the original halves both sums once more, and so ships other weights than it has chosen.
    """

    def __init__(self, predecessor, successor, replacing, rate, **named):
        """predecessor, successor: Keras models of the same input and output. rate: () -> p, a float32 scalar."""
        super().__init__(**named)
        self.predecessor, self.successor, self.replacing, self.rate = predecessor, successor, replacing, rate

    def call(self, x, mask=None, training=None):
        """x: hidden states (batch, tokens, hidden) with their mask (batch, tokens), or what the embeddings take."""

        def old():
            return self.predecessor(x, mask=mask, training=training)

        def new():
            return self.successor(x, mask=mask, training=training)

        if not training:
            return new()
        if self.replacing == "random":
            return tf.cond(draw() < self.rate(), new, old)
        before, after = old(), new()
        p = tf.cast(self.rate(), after.dtype)
        return (1 - p) * before + p * after


def replacing_rate(settings, steps):
    """p(t) of step t: constant at its base b, or linear min(1, k · t + b) (paper, equation 6), 1 after a share of `steps`."""
    if settings.replacing_schedule == "constant":
        return lambda step: tf.constant(settings.replacing_base)
    reached = max(1, round(settings.replacing_share * steps))
    return keras.optimizers.schedules.PolynomialDecay(settings.replacing_base, reached, end_learning_rate=1.0)


def cut(layers, modules):
    """The predecessor's layers as modules, one a successor layer; if they do not divide evenly, the first are longer."""
    return [part.tolist() for part in np.array_split(np.arange(layers), modules)]


def mix(predecessor, successor, head, settings, rate):
    """The mixed model: (token ids, segment ids) -> logits (batch, classes); outside training they are the successor's.

    predecessor, successor: bert4keras transformers. head: the classifier's last layer, shared. What is trained of it: the
    successor's layers, and its embeddings if they are mixed.
    """
    inputs, mask = texts.inputs_and_mask()
    old, new = pretrained.embeddings_of(predecessor), pretrained.embeddings_of(successor)
    old.trainable, new.trainable, head.trainable = False, settings.mix_embeddings, False
    hidden = (Replacing(old, new, settings.replacing, rate, name="embeddings") if settings.mix_embeddings else new)(inputs)
    for layer, replaced in enumerate(cut(predecessor.num_hidden_layers, successor.num_hidden_layers)):
        old, new = pretrained.layers_of(predecessor, replaced), pretrained.layers_of(successor, [layer])
        old.trainable = False
        hidden = Replacing(old, new, settings.replacing, rate, name=f"module_{layer}")(hidden, mask=mask)
    return keras.Model(inputs, head(texts.cls(hidden)))


class LogRate(keras.callbacks.Callback):
    """Puts the replacing rate p that an epoch has ended at into its logs."""

    def __init__(self, rate):
        super().__init__()
        self.rate = rate

    def on_epoch_end(self, epoch, logs=None):
        logs["replacing_rate"] = float(self.rate())


# One experiment --------------------------------------------------------------------------------------------------------


def build(run, name):
    """(the BERT it starts from, bert4keras transformer, classifier) of a row, not trained yet."""
    settings, classes = run.settings, len(run.corpus.classes)
    if name == "predecessor":
        return run.bert, *texts.build_classifier(run.bert, classes, settings.predecessor_dropout)
    depth = settings.middle_layers if name == "middle" else settings.student_layers
    bert = pretrained.shallow(run.bert, range(depth))
    return bert, *texts.build_classifier(bert, classes, settings.successor_dropout)


def trained(run, name):
    """(BERT, transformer, classifier) of a finished stage, with its best weights."""
    bert, encoder, classifier = build(run, name)
    training.load_weights(classifier, run.stage(name) / "weights.npz")
    return bert, encoder, classifier


def successor_start(run, predecessor):
    """The BERT that the successor starts from. predecessor: the fine-tuned BERT.

    Where embeddings are shared they are the predecessor's, whatever the layers start from.
    """
    settings = run.settings
    whole = predecessor if settings.successor_init == "predecessor" else run.bert
    successor = pretrained.shallow(whole, range(settings.student_layers))
    if settings.mix_embeddings:
        return successor
    shared = {name: value for name, value in predecessor.weights.items() if name.startswith("bert/embeddings/")}
    return replace(successor, weights=successor.weights | shared)


def train(run, name):
    """Train one row of the table, or read what an earlier start left of it. Returns the records of its stages, in order."""
    settings = settings_of(run.settings, name)
    run = replace(run, settings=settings)
    stages = (f"{name}-mixed", name) if name in THESEUS and settings.successor_epochs else (name,)
    records = [run.record(stage) for stage in stages]
    if all(records):
        return records
    with fresh_session(run.seed):
        return compress(run, name, stages, records) if name in FROM_PREDECESSOR else [fine_tune(run, name)]


def fine_tune(run, name):
    """Fine-tune the predecessor, or a shallow model beside it, on the labels. Returns the record of the stage."""
    settings, classifier = run.settings, build(run, name)[2]
    epochs, rate = settings.direct_epochs, settings.successor_learning_rate
    if name == "predecessor":
        epochs, rate = settings.predecessor_epochs, settings.predecessor_learning_rate
    return fit(run, name, classifier, classifier, optimizer_for(run, epochs, rate), epochs)


def compress(run, name, stages, records):
    """Train the successor inside the predecessor, then by itself. Returns `records`, those that were None made now."""
    settings = run.settings
    bert, predecessor, judge = trained(run, "predecessor")
    head = judge.get_layer("Classifier")
    beginning = successor_start(run, pretrained.read_encoder(predecessor, bert))
    set_seed(run.seed)
    successor = pretrained.build_encoder(beginning, settings.successor_dropout)
    classifier = keras.Model(successor.model.inputs, head(texts.cls(successor.model.output)))
    if records[0]:
        training.load_weights(classifier, run.stage(stages[0]) / "weights.npz")
    elif settings.mixed_epochs:
        records[0] = train_mixed(run, stages[0], predecessor, successor, head, classifier)
    if settings.successor_epochs:
        for layer in classifier.layers:  # now the embeddings and the classifier learn too
            layer.trainable = True
        optimizer = optimizer_for(run, settings.successor_epochs, settings.successor_learning_rate)
        records[-1] = fit(run, name, classifier, classifier, optimizer, settings.successor_epochs)
    return records


def settings_of(settings, name):
    """The settings of the row `name`."""
    if name == UNMIXED:
        return replace(settings, mixed_epochs=0, successor_epochs=settings.mixed_epochs + settings.successor_epochs)
    return replace(settings, **THESEUS.get(name, {}))


def train_mixed(run, name, predecessor, successor, head, classifier):
    """Train the successor inside the predecessor. What is judged after each epoch is the successor by itself."""
    settings = run.settings
    optimizer = optimizer_for(run, settings.mixed_epochs, settings.successor_learning_rate)
    at_step = replacing_rate(settings, run.steps(run.parts.train) * settings.mixed_epochs)

    def rate():
        return at_step(optimizer.iterations)

    mixed = mix(predecessor, successor, head, settings, rate)
    return fit(run, name, classifier, mixed, optimizer, settings.mixed_epochs, [LogRate(rate)])


def optimizer_for(run, epochs, learning_rate):
    """Adam as the settings want it, for so many epochs."""
    settings, steps = run.settings, run.steps(run.parts.train) * epochs
    return training.adam(learning_rate, steps, settings.schedule, settings.weight_decay, settings.clip_norm)


def fit(run, name, classifier, model, optimizer, epochs, callbacks=()):
    """Train `model` on the labels by cross-entropy, as the stage `name`; `classifier` is what is judged and kept."""
    rows = run.parts.train
    model, labels = distillation.compile_alone(model, optimizer), run.corpus.labels[rows]
    return training.train_stage(run, name, classifier, model, rows, (labels,), epochs, run.steps(rows), callbacks=callbacks)


# The whole run ---------------------------------------------------------------------------------------------------------


def main(preset, settings):
    """Read settings and data, train every row for every seed, report."""
    wanted = check(settings)
    runs = texts.open_runs(SCRIPT, preset, settings, depths=("student_layers", "middle_layers"))
    modules = cut(runs[0].bert.layers, settings.student_layers)
    print("modules: " + ", ".join(f"{span(part)} -> {i}" for i, part in enumerate(modules)))
    models = []
    for run in runs:
        for name in wanted:
            stages = train(run, name)
            for stage in stages:
                print(report.describe(stage))
            models.append(joined(stages))
    only_the_chief_goes_on()
    report_run(preset, settings, runs[0], models)


SCRIPT = "knowledge_distillation_bert_of_theseus"


def check(settings):
    """Refuse settings that cannot be, before anything is read. Returns the rows to train, dependencies included."""
    command.check_positive(settings, "predecessor_learning_rate", "successor_learning_rate")
    command.check_at_least(
        settings, maxlen=3, batch_size=1, student_layers=1, middle_layers=1, predecessor_epochs=1, mixed_epochs=1,
        successor_epochs=0, direct_epochs=1, train_examples=0, validation_examples=0, test_examples=0,
        weight_decay=0, clip_norm=0,
    )
    command.check_dropout(settings, "predecessor_dropout", "successor_dropout")
    command.check_fraction(settings, "replacing_base", "replacing_share")
    command.check_seeds(settings.seeds)
    command.check_known("--experiments", settings.experiments, EXPERIMENTS)
    return [name for name in EXPERIMENTS if name in ("predecessor", *settings.experiments)]


def span(layers):
    """[2, 3, 4] as "2-4"."""
    return f"{layers[0]}-{layers[-1]}" if len(layers) > 1 else str(layers[0])


def joined(stages):
    """One record of a row's stages: the last one's figures, the time and the epochs of all."""
    history = [epoch for stage in stages for epoch in stage["history"]]
    diverged = [stage["diverged_in_epoch"] for stage in stages if "diverged_in_epoch" in stage]
    return stages[-1] | ({"diverged_in_epoch": diverged[0]} if diverged else {}) | {
        "train_seconds": sum(stage["train_seconds"] for stage in stages),
        "epochs": sum(stage["epochs"] for stage in stages),
        "history": [epoch | {"epoch": number} for number, epoch in enumerate(history, 1)],
    }


def report_run(preset, settings, run, models):
    """Write the report, the plot of the replacing rate and the student; print the tables."""
    depths = {"predecessor": run.bert.layers, "middle": settings.middle_layers}
    depth = {model["name"]: depths.get(model["name"], settings.student_layers) for model in models}
    cost = kept(run.folder / "cost.json", lambda: texts.costs(run, {*depths.values(), settings.student_layers}))
    models = [model | cost[str(depth[model["name"]])] for model in models]
    results = report.results_of(run, SCRIPT, preset, PRESETS[preset], models, COMPARISONS)
    shown = [model for model in models if model["name"] in THESEUS]
    plots = ["replacing.png"] if shown else []
    if shown:
        plot_replacing(run.folder / "replacing.png", models)
    shallow = ("successor", *FROM_PREDECESSOR)
    taken, sections = texts.write_best_student(run, models, shallow, trained, "predecessor", __doc__)
    example = f"one text of {settings.maxlen} tokens"
    report.write_report(run.folder, results, models, example, taken, sections=sections, plots=plots)


def plot_replacing(path, models):
    """The replacing rate p by epoch, and below it what the successor by itself reaches on the validation part."""
    figure = Figure(figsize=(7, 5.4), layout="constrained")
    rate, accuracy = figure.subplots(2, 1, sharex=True, height_ratios=(1, 2))
    for name, group in report.by_name(models):
        if name not in ("successor", *FROM_PREDECESSOR):
            continue
        values, rates = 100 * report.by_epoch(group, "val_accuracy").mean(axis=0), report.by_epoch(group, "replacing_rate")[0]
        epochs = np.arange(1, len(values) + 1)
        line = accuracy.plot(epochs, values, marker="o", markersize=3, label=name, ls="-" if name in THESEUS else "--")[0]
        rate.plot(epochs, rates, marker="o", markersize=3, color=line.get_color())
    rate.set(ylabel="replacing rate p", ylim=(0, 1.05))
    accuracy.set(ylabel="validation accuracy, %", xlabel="epoch")
    accuracy.xaxis.get_major_locator().set_params(integer=True)
    for panel in (rate, accuracy):
        panel.grid(alpha=0.3)
    accuracy.legend(fontsize=8)
    report.save_figure(figure, path)


if __name__ == "__main__":
    start(main, PRESETS, __doc__.split("\n\n")[0])
