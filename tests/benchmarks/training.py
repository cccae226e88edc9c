"""Training and inference against the original's way; where a step's time goes; narrow precisions."""

import time
from statistics import median

import numpy as np
from bert4keras.snippets import sequence_padding
from bert4keras.tokenizers import Tokenizer

from common.backend import drawn_by_step, keras, precision_remarks, set_precision, tf
from common.batches import training_batches
from common.bert import build_classifier
from common.devices import fresh_session
from common.distillation import distillation_loss, distillation_targets, hard_loss, soften
from common.evaluation import predict
from common.training import adam
from data import berts, fetching, texts
from data.parts import split
from tests import tiny
from tests.benchmarks.timing import medians

TITLE = "distilling 512 posts, an epoch, all differences"
EXAMPLES, TOKENS, BATCH, TEMPERATURE = 512, 64, 32, 6.0
STEPS = EXAMPLES // BATCH


class Ground:
    """What all measurements share: 512 labelled posts of 20newsgroups, MiniLM, its first 3 layers for a student."""

    def __init__(self):
        self.corpus, self.bert = texts.load("20newsgroups"), berts.load("minilm-l6")
        self.indices = split(self.corpus, seed=0, train=EXAMPLES).train
        self.labels = self.corpus.labels[self.indices]
        self.examples = tiny.tokenized(self.corpus.texts, self.bert, TOKENS)
        self.tokenizer = Tokenizer(str(fetching.locate("minilm-l6", "--bert")["vocabulary"]), do_lower_case=True)

    def classifier(self, layers, dropout=0.1):
        bert = berts.keep_layers(self.bert, range(layers))
        return build_classifier(bert, len(self.corpus.classes), dropout).model

    def plain_batches(self):
        """(places in `indices`, inputs): in random order, each text tokenized anew, each batch as long as its longest text."""
        order = np.random.default_rng(0).permutation(EXAMPLES)
        for chosen in (order[i : i + BATCH] for i in range(0, len(order), BATCH)):
            ids = [self.tokenizer.encode(self.corpus.texts[index], maxlen=TOKENS)[0] for index in self.indices[chosen]]
            token_ids = sequence_padding(ids)
            yield chosen, [token_ids, np.zeros_like(token_ids)]


def fit(model, batches):
    with drawn_by_step(0, model.optimizer.iterations):
        model.fit(batches, steps_per_epoch=STEPS, epochs=1, verbose=0)


def teacher_epoch(ground):
    """(plain, ours): functions that train a teacher for an epoch."""
    model = ground.classifier(6)
    model.compile(keras.optimizers.Adam(1e-5), loss=hard_loss)
    plain = ((inputs, ground.labels[chosen]) for _ in iter(int, 1) for chosen, inputs in ground.plain_batches())
    ours = training_batches(ground.examples, ground.indices, ground.labels, BATCH, seed=0)
    return lambda: fit(model, plain), lambda: fit(model, ours)


def student_epoch(ground):
    """(plain, ours): functions that distil a student for an epoch; plain asks the teacher in every step."""
    teacher, student = ground.classifier(6, dropout=0), ground.classifier(3, dropout=0)
    student.compile(keras.optimizers.Adam(1e-5), loss=distillation_loss(TEMPERATURE, 1, 1))

    def asked():
        while True:
            for chosen, inputs in ground.plain_batches():
                soft_labels = soften(teacher.predict_on_batch(inputs), TEMPERATURE)
                yield inputs, distillation_targets(ground.labels[chosen], soft_labels)

    plain = asked()
    cached = soften(predict(teacher, ground.examples, ground.indices), TEMPERATURE)
    ours = training_batches(ground.examples, ground.indices, distillation_targets(ground.labels, cached), BATCH, seed=0)
    return lambda: fit(student, plain), lambda: fit(student, ours)


def inference(ground):
    """(plain, ours): functions that label all posts with a student."""
    student = ground.classifier(3, dropout=0)

    def plain():
        for _, inputs in ground.plain_batches():
            student.predict_on_batch(inputs)

    def ours():
        examples = tiny.tokenized([ground.corpus.texts[index] for index in ground.indices], ground.bert, TOKENS)
        predict(student, examples, np.arange(EXAMPLES))

    return plain, ours


WORK = {
    "teacher training, 6 layers": teacher_epoch, "student training, 3 layers": student_epoch, "inference, 3 layers": inference,
}


def measure():
    """(plain, ours), seconds: an epoch of distillation."""
    with fresh_session(0):
        return medians(*student_epoch(Ground()), rounds=2)


def detail():
    yield throughput()
    yield step_table()
    yield precision_table()


def throughput():
    """Examples a second, the original's way and ours."""
    rows = [["512 posts, 64 tokens, batch 32", "the plain way, texts / s", "this way, texts / s", "times as fast"]]
    ground = Ground()
    for title, make in WORK.items():
        with fresh_session(0):
            plain, ours = medians(*make(ground), rounds=2)
        rows.append([title, f"{EXAMPLES / plain:.0f}", f"{EXAMPLES / ours:.0f}", f"{plain / ours:.1f}"])
    return rows


def step_table():
    """Where the time of a training step goes; from `forward` on each row has what the one above has, and more."""
    rows, columns, ground = [["a step of 32 posts", "teacher ms", "student ms"]], [], Ground()
    for layers in (6, 3):
        with fresh_session(0):
            columns.append(step_times(ground, layers))
    for title, *times in zip(columns[0], *(column.values() for column in columns), strict=True):
        rows.append([title, *(f"{1000 * value:.1f}" for value in times)])
    return rows


def step_times(ground, layers):
    """{what is computed: median seconds over an epoch's batches} of training on the labels, with dropout."""
    classifier = ground.classifier(layers)
    classifier.compile(keras.optimizers.Adam(1e-5), loss=hard_loss)
    dataset = training_batches(ground.examples, ground.indices, ground.labels, BATCH, seed=0)

    def loss(inputs, labels):
        return tf.reduce_mean(hard_loss(labels, classifier(inputs, training=True)))

    def gradients(inputs, labels):
        with tf.GradientTape() as tape:
            value = loss(inputs, labels)
        found = tf.nest.flatten(tape.gradient(value, classifier.trainable_variables), expand_composites=True)
        # An element of each, so that TensorFlow's optimizer leaves none out.
        return value + tf.add_n([tf.reshape(gradient, [-1])[0] for gradient in found if gradient.dtype.is_floating])

    def update(inputs, labels):
        classifier.optimizer.minimize(lambda: loss(inputs, labels), classifier.trainable_variables)
        return classifier.optimizer.iterations

    signature = dataset.element_spec
    parts = {"forward": loss, "and backward": gradients, "and Adam": update}
    start = time.perf_counter()
    batches = list(dataset.take(STEPS))
    found = {"making its batch, meanwhile": (time.perf_counter() - start) / STEPS}
    graphs = {title: tf.function(part, input_signature=signature, autograph=False) for title, part in parts.items()}
    seconds = {title: [] for title in graphs}
    for turn in range(2):
        for batch in batches:
            for title, graph in graphs.items():
                start = time.perf_counter()
                with drawn_by_step(0, classifier.optimizer.iterations):
                    graph(*batch).numpy()
                seconds[title] += [time.perf_counter() - start] * turn
    found |= {title: median(taken) for title, taken in seconds.items()}
    fit(classifier, dataset)
    start = time.perf_counter()
    fit(classifier, dataset)
    return found | {"in fit, all told": (time.perf_counter() - start) / STEPS}


def precision_table(epochs=6):
    """Training and inference in each precision that the hardware computes in, and what a student reaches in it."""
    precisions = [name for name in ("float32", "mixed_bfloat16", "mixed_float16") if not precision_remarks(name)]
    ground, seconds, accuracy = Ground(), {}, {}
    test = split(ground.corpus, seed=0, train=EXAMPLES, test=2000).test
    for title, make in WORK.items():
        with fresh_session(0):
            runs = []
            for precision in precisions:
                set_precision(precision)
                _, ours = make(ground)
                ours()  # traced while its precision is set
                runs.append(ours)
            seconds[title] = dict(zip(precisions, medians(*runs, rounds=4), strict=True))
    for precision in precisions:
        set_precision(precision)
        with fresh_session(0):
            classifier = ground.classifier(3, dropout=0)
            classifier.compile(adam(2e-4, epochs * STEPS, "linear"), loss=hard_loss)
            classifier.fit(
                training_batches(ground.examples, ground.indices, ground.labels, BATCH, seed=0),
                steps_per_epoch=STEPS, epochs=epochs, verbose=0,
            )
            accuracy[precision] = (predict(classifier, ground.examples, test).argmax(-1) == ground.corpus.labels[test]).mean()
    set_precision("float32")
    rows = [["precision", *(f"{title.split(',')[0]} x" for title in WORK), "test accuracy %"]]
    for precision, share in accuracy.items():
        times = [f"{seconds[title]['float32'] / seconds[title][precision]:.2f}" for title in WORK]
        rows.append([precision, *times, f"{share:.1%} ± {(share * (1 - share) / len(test)) ** 0.5:.1%}"])
    return rows
