"""BERT-of-Theseus: compress a fine-tuned BERT by replacing its modules, more and more of them, while it is at work.

The predecessor (all layers) is fine-tuned and frozen. Each layer of the successor then learns inside it, in the place of a
module of several layers: at a replacing rate p the successor's layer computes, otherwise the predecessor's module. At p = 1 the
successor stands alone. No loss of distillation is needed. Beside it stands what it must be measured against: the same successor
fine-tuned directly, and a model of a depth between.

    Xu, Zhou, Ge, Wei, Zhou: BERT-of-Theseus: Compressing BERT by Progressive Module Replacing, 2020, arXiv 2002.02925

    python knowledge_distillation_bert_of_theseus.py                # bundled model and data, minutes on two cores
    python knowledge_distillation_bert_of_theseus.py --replacing random --output runs/random
    python knowledge_distillation_bert_of_theseus.py original       # IFLYTEK and Chinese BERT-base, as the original script
    python knowledge_distillation_bert_of_theseus.py paper          # the same data and model, trained as the paper does
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Literal

import numpy as np

from common import InputError, command
from common.backend import keras, set_seed, tf, uniform
from common.bert import build_classifier, build_encoder, cls, embeddings_of, inputs_and_mask, layers_of
from common.command import Count, Dropout, Fraction, LearningRate, NonNegative, PositiveInt, at_least
from common.devices import exit_unless_chief, fresh_session
from common.distillation import hard_loss
from common.linear import LINEAR, linear_records
from common.runs import check_depths, open_text_runs, rate_remarks, read_inputs
from common.training import adam, fine_tune, load_stage, measure_given, train_stage, trained
from data.berts import keep_layers
from data.grounds import on_grounds
from export.reporting import report_texts
from report.document import show_stages
from report.plots import plot_replacing

# Settings --------------------------------------------------------------------------------------------------------------

SCRIPT = "knowledge_distillation_bert_of_theseus"


@dataclass(frozen=True)
class Settings:
    # Data
    data: str = "reuters-r8"  # a named data set, or your own file or folder
    download: bool = False  # fetch the named data set and BERT if they are not here
    train_examples: Count = 200  # labelled training texts at most; 0 takes all
    validation_examples: Count | None = None  # for epochs: None: dev part, or 400 held out; 0: dev or else test part
    test_examples: Count = 2000  # of the test part at most, read once at the end; 0 takes all

    # Models
    bert: str = "minilm-l6"  # the predecessor: a named BERT, or your own folder
    teacher: str = ""  # in its place: a classifier fine-tuned already, a folder or, beside --bert, a file
    maxlen: Annotated[int, at_least(3)] = 64  # tokens a text is cut to
    student_layers: PositiveInt = 3  # layers of the successor, each in the place of a module of the predecessor
    middle_layers: PositiveInt = 4  # layers of `middle`, fine-tuned for comparison
    successor_init: Literal["pretrained", "predecessor"] = "predecessor"  # whose first layers it starts from
    linear: bool = True  # the row of a linear model, which says whether the task needs a BERT

    # Replacing
    experiments: tuple[str, ...] = ("predecessor", "middle", "successor", "theseus")  # rows; see EXPERIMENTS for more
    replacing: Literal["additive", "random"] = "additive"  # a weighted sum of both modules, or one of them, drawn
    replacing_schedule: Literal["constant", "linear"] = "constant"  # the rate p stays at its base, or rises to 1
    replacing_base: Fraction = 0.5  # p at the start
    replacing_share: Fraction = 0.5  # of the mixed steps, after which a linear p has reached 1
    mix_embeddings: bool = False  # replace the embeddings too, as the original does; else share the predecessor's, frozen

    # Training
    batch_size: PositiveInt = 32  # texts a step
    patience: Count = 5  # epochs without a gain on the validation part that end a stage; 0: all epochs
    predecessor_epochs: PositiveInt = 15
    mixed_epochs: PositiveInt = 12  # of progressive replacing
    successor_epochs: Count = 12  # of the successor alone after it, all of it trained; a p that never reaches 1 needs them
    direct_epochs: PositiveInt = 25  # of `successor` and `middle`
    predecessor_learning_rate: LearningRate = 2e-4
    successor_learning_rate: LearningRate = 5e-4  # of all that is shallow
    schedule: Literal["linear", "constant"] = "linear"  # learning rate falling to 0, or staying
    weight_decay: NonNegative = 0.0  # above 0: AdamW
    clip_norm: NonNegative = 1.0  # the gradients' global norm at most; 0 does not clip
    predecessor_dropout: Dropout = 0.1  # in hidden states and attention
    successor_dropout: Dropout = 0.0  # the same of all that is shallow

    # Run
    seeds: command.Seeds = (0,)  # one whole run each: parts, order, initial classifier, dropout, draws
    precision: command.Precision = "float32"
    strategy: command.Strategy = "none"  # train on one device, all of them, those of TF_CONFIG
    vocabulary: Count | None = None  # tokens of the student to take away; 0: all; None: 8,000, or more if its texts want them
    int8_disagreement: NonNegative = 5.0  # per cent of validation texts that its int8 form may class otherwise, to be written
    output: str = ""  # the run's folder; default runs/knowledge_distillation_bert_of_theseus-PRESET


ORIGINAL = Settings(
    data="iflytek", train_examples=0, validation_examples=0, test_examples=0,
    bert="chinese-bert-base", maxlen=128, student_layers=3, middle_layers=6, successor_init="pretrained",
    replacing="additive", replacing_schedule="constant", replacing_base=0.5, mix_embeddings=True,
    batch_size=32, patience=0, predecessor_epochs=5, mixed_epochs=10, successor_epochs=5, direct_epochs=5,
    predecessor_learning_rate=2e-5, successor_learning_rate=2e-5, schedule="constant", clip_norm=0,
    predecessor_dropout=0.1, successor_dropout=0.1, vocabulary=0,
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
    **on_grounds(Settings(), teacher_epochs="predecessor_epochs", teacher_learning_rate="predecessor_learning_rate"),
}

THESEUS = {  # what of the settings is another in each
    "theseus": {},
    "theseus-additive": {"replacing": "additive", "replacing_schedule": "constant", "replacing_base": 0.5},
    "theseus-random": {"replacing": "random", "replacing_schedule": "constant", "replacing_base": 0.5},
    "theseus-random-linear": {"replacing": "random", "replacing_schedule": "linear", "replacing_base": 0.3},
}
UNMIXED = "unmixed"  # a control: starts as theseus does, trained as long, but nothing is replaced
FROM_PREDECESSOR = (UNMIXED, *THESEUS)
EXPERIMENTS = ("predecessor", "middle", "successor", *FROM_PREDECESSOR)
COMPARISONS = (
    ("predecessor", LINEAR), ("successor", LINEAR), *((name, LINEAR) for name in THESEUS),
    *((name, "successor") for name in FROM_PREDECESSOR), *((name, UNMIXED) for name in THESEUS),
    ("middle", "successor"), *(("predecessor", name) for name in THESEUS),
)


# Models: what replaces what ----------------------------------------------------------------------------------------------


class Replacing(keras.layers.Layer):
    """A module of the predecessor, and the successor's module that learns to take its place.

    random: y = r · successor(x) + (1 - r) · predecessor(x), r ~ Bernoulli(p): one draw for the whole batch in each step, and
    the module that is not drawn is not computed (paper, equations 3 and 4). additive: y = p · successor(x) + (1 - p) ·
    predecessor(x), which is steadier and computes both. Outside training it is the successor's module alone, at the scale at
    which it was trained; the original halves both sums once more, and so ships other weights than it has chosen.
    """

    def __init__(self, predecessor, successor, replacing, rate, **named):
        """Put two modules of the same input and output in one place.

        predecessor: Keras model
        successor: Keras model
        replacing: "random" or "additive"
        rate: () -> p, a float32 scalar
        named: the layer's name
        """
        super().__init__(**named)
        self.predecessor, self.successor, self.replacing, self.rate = predecessor, successor, replacing, rate

    def call(self, x, mask=None, training=None):
        """x: hidden states (batch, tokens, hidden) with their mask (batch, tokens), or what the embeddings take."""
        old = partial(self.predecessor, x, mask=mask, training=training)
        new = partial(self.successor, x, mask=mask, training=training)
        if not training:
            return new()
        if self.replacing == "random":
            return tf.cond(uniform() < self.rate(), new, old)
        before, after = old(), new()
        p = tf.cast(self.rate(), after.dtype)
        return (1 - p) * before + p * after


def replacing_rate(settings, steps):
    """p(t) of step t: constant at its base b, or linear min(1, k · t + b) (paper, equation 6), 1 after a share of `steps`."""
    if settings.replacing_schedule == "constant":
        return lambda step: tf.constant(settings.replacing_base)
    reached = max(1, round(settings.replacing_share * steps))
    return keras.optimizers.schedules.PolynomialDecay(settings.replacing_base, reached, end_learning_rate=1.0)


def split_into_modules(layers, modules):
    """The predecessor's layers as modules, one a successor layer; if they do not divide evenly, the first are longer."""
    return [part.tolist() for part in np.array_split(np.arange(layers), modules)]


def mix(predecessor, successor, head, settings, rate):
    """The mixed model: (token ids, segment ids) -> logits (batch, classes); outside training they are the successor's.

    What is trained of it: the successor's layers, and its embeddings if they are mixed.

    predecessor: bert4keras transformer
    successor: bert4keras transformer
    head: the classifier's last layer, shared
    settings: of the experiment
    rate: () -> p, a float32 scalar
    """
    inputs, mask = inputs_and_mask()
    old, new = embeddings_of(predecessor), embeddings_of(successor)
    old.trainable, new.trainable, head.trainable = False, settings.mix_embeddings, False
    hidden = (Replacing(old, new, settings.replacing, rate, name="embeddings") if settings.mix_embeddings else new)(inputs)
    for layer, replaced in enumerate(split_into_modules(predecessor.num_hidden_layers, successor.num_hidden_layers)):
        old, new = layers_of(predecessor, replaced), layers_of(successor, [layer])
        old.trainable = False
        hidden = Replacing(old, new, settings.replacing, rate, name=f"module_{layer}")(hidden, mask=mask)
    return keras.Model(inputs, head(cls(hidden)))


def start_of(run, name):
    """The layers that the model of an experiment has, as they are in the pretrained BERT."""
    depths = {"predecessor": run.bert.layers, "middle": run.settings.middle_layers}
    return keep_layers(run.bert, range(depths.get(name, run.settings.student_layers)))


def build(run, name):
    """The BertClassifier of an experiment, not trained yet."""
    settings = run.settings
    dropout = settings.predecessor_dropout if name == "predecessor" else settings.successor_dropout
    return build_classifier(start_of(run, name), len(run.corpus.classes), dropout)


def successor_start(run, predecessor):
    """The BERT that the successor starts from. predecessor: the fine-tuned BERT.

    Where embeddings are shared they are the predecessor's, whatever the layers start from.
    """
    settings = run.settings
    whole = predecessor if settings.successor_init == "predecessor" else run.bert
    successor = keep_layers(whole, range(settings.student_layers))
    if settings.mix_embeddings:
        return successor
    shared = {name: value for name, value in predecessor.weights.items() if name.startswith("bert/embeddings/")}
    return replace(successor, weights=successor.weights | shared)


# Training: the loss is the labels' cross-entropy -------------------------------------------------------------------------


def train(run, name):
    """Run one experiment, or read what an earlier start left of it. Returns the records of its stages, in order."""
    settings = settings_of(run.settings, name)
    run = replace(run, settings=settings)
    stages = (f"{name}-mixed", name) if name in THESEUS and settings.successor_epochs else (name,)
    records = [run.record(stage) for stage in stages]
    if all(records):
        return records
    with fresh_session(run.seed):
        if name == "predecessor" and settings.teacher:
            return [measure_given(run, name, build(run, name).model)]
        if name in FROM_PREDECESSOR:
            return compress(run, name, stages, records)
        epochs, rate = settings.direct_epochs, settings.successor_learning_rate
        if name == "predecessor":
            epochs, rate = settings.predecessor_epochs, settings.predecessor_learning_rate
        return [fine_tune(run, name, build(run, name).model, epochs, rate, settings.weight_decay, settings.clip_norm)]


def settings_of(settings, name):
    """The settings of the experiment `name`."""
    if name == UNMIXED:
        return replace(settings, mixed_epochs=0, successor_epochs=settings.mixed_epochs + settings.successor_epochs)
    return replace(settings, **THESEUS.get(name, {}))


def compress(run, name, stages, records):
    """Train the successor inside the predecessor, then by itself. Returns `records`, those that were None made now."""
    settings, predecessor = run.settings, trained(run, "predecessor", build)
    start = successor_start(run, predecessor.bert)
    set_seed(run.seed)
    successor = build_encoder(start, settings.successor_dropout)
    classifier = keras.Model(successor.model.inputs, predecessor.head(cls(successor.model.output)))
    if records[0]:
        load_stage(run, stages[0], classifier)
    elif settings.mixed_epochs:
        records[0] = train_mixed(run, stages[0], predecessor, successor, classifier)
    if settings.successor_epochs:
        for layer in classifier.layers:  # now the embeddings and the classifier learn too
            layer.trainable = True
        epochs, rate = settings.successor_epochs, settings.successor_learning_rate
        records[-1] = fine_tune(run, name, classifier, epochs, rate, settings.weight_decay, settings.clip_norm)
    return records


def train_mixed(run, name, predecessor, successor, classifier):
    """Train the successor inside the predecessor. What is measured after each epoch is the successor by itself."""
    settings, indices = run.settings, run.parts.train
    epochs, steps = settings.mixed_epochs, run.steps(indices) * settings.mixed_epochs
    optimizer = adam(settings.successor_learning_rate, steps, settings.schedule, settings.weight_decay, settings.clip_norm)
    rate = partial(replacing_rate(settings, steps), optimizer.iterations)
    mixed = mix(predecessor.encoder, successor, predecessor.head, settings, rate)
    log_rate = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: logs.update(replacing_rate=float(rate())))
    return train_stage(
        run, name, classifier, hard_loss, optimizer, indices, run.corpus.labels[indices], epochs, model=mixed,
        callbacks=[log_rate], patience=0 if settings.replacing_schedule == "linear" else None,  # a rising p comes to its end
    )


# What came out ---------------------------------------------------------------------------------------------------------


def main(preset, settings):
    """Read settings and data, run every experiment for every seed, report."""
    wanted = check(settings)
    inputs = read_inputs(settings)
    check_depths(settings, inputs.bert, "student_layers", *(["middle_layers"] if "middle" in wanted else []))
    rates = ["successor_learning_rate"] if settings.teacher else ["predecessor_learning_rate", "successor_learning_rate"]
    inputs.corpus.notes.extend(rate_remarks(settings, inputs.bert, rates))
    runs = open_text_runs(SCRIPT, preset, settings, inputs)
    modules = split_into_modules(runs[0].bert.layers, settings.student_layers)
    spans = ("-".join(map(str, sorted({part[0], part[-1]}))) for part in modules)  # [2, 3, 4] as "2-4"
    print("modules: " + ", ".join(f"{span} -> {i}" for i, span in enumerate(spans)))
    linear = show_stages(linear_records(runs))
    records = [joined(show_stages(train(run, name))) for run in runs for name in wanted]
    exit_unless_chief()
    students, plots = ("successor", *FROM_PREDECESSOR), []
    shapes = {name: start_of(runs[0], name) for name in wanted}
    if any(record["name"] in THESEUS for record in records):
        plots = ["replacing.png"]
        plot_replacing(runs[0].folder / plots[0], [record for record in records if record["name"] in students], THESEUS)
    report_texts(
        SCRIPT, preset, PRESETS[preset], runs, records, linear, shapes,
        pairs=COMPARISONS, teacher="predecessor", students=students, build=build, story=__doc__, plots=plots,
    )


def check(settings):
    """Refuse settings that cannot be together. Returns the experiments to run, dependencies included."""
    command.check_known("--experiments", settings.experiments, EXPERIMENTS)
    if settings.teacher and settings.successor_init == "pretrained":
        raise InputError("--successor-init pretrained: a --teacher has no pretrained layers beside it; predecessor")
    never = settings.replacing_schedule == "constant" and settings.replacing_base == 0  # is anything replaced
    if never and "theseus" in settings.experiments and not settings.successor_epochs:
        raise InputError("--replacing-base 0 --successor-epochs 0: theseus would train nothing; one must be above 0")
    return [name for name in EXPERIMENTS if name in ("predecessor", *settings.experiments)]


def joined(stages):
    """One record of the stages of an experiment: the last one's figures, the time, epochs and steps of all."""
    history = [epoch for stage in stages for epoch in stage["history"]]
    diverged = [stage["diverged_in_epoch"] for stage in stages if "diverged_in_epoch" in stage]
    return stages[-1] | ({"diverged_in_epoch": diverged[0]} if diverged else {}) | {
        **{total: sum(stage[total] for stage in stages) for total in ("train_seconds", "epochs", "steps")},
        "history": [epoch | {"epoch": number} for number, epoch in enumerate(history, 1)],
    }


if __name__ == "__main__":
    command.start(main, PRESETS, __doc__.split("\n\n")[0])
