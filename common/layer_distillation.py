"""A student that learns its teacher's layers: hidden states and attention scores, which the teacher computes in every step.

The losses of two layers are equations of `common.distillation`; here is which layer learns from which, and the model of it.
"""

from math import ceil, floor

from common import InputError
from common.backend import keras, tf
from common.bert import cls, mask_of, states_of
from common.distillation import HIDDEN_LOSSES, attention_loss, hidden_loss


class LayerLoss(keras.layers.Layer):
    """L_layers = hidden_weight · (L_embd + Σ_m L_hidn(m)) + attention_weight · Σ_m L_attn(m), per text: (batch, 1) float32.

    Layer m of the student learns layer g(m) of the teacher (TinyBERT, 1909.10351, equations 6 to 9 and 11). Where the teacher
    is wider, its states are compared with H^S W; W, one for the embeddings and one for all layers, is learned with the student.
    """

    def __init__(self, teacher, student, mapping, hidden="mse", hidden_weight=1.0, attention_weight=1.0, active=lambda: True):
        """Put the teacher, which learns nothing, beside its student.

        teacher: bert4keras transformer
        student: the same, with as many heads if attention_weight is above 0
        mapping: g(1), g(2), …, counted from 1
        hidden: name of the loss of hidden states in `distillation.HIDDEN_LOSSES`; embeddings are always compared by "mse"
        hidden_weight: of hidden states and embeddings
        attention_weight: of attention scores; 0 does not compute them
        active: () -> bool scalar, whether layers are learned in this step; if not, the teacher rests, and the loss is 0
        """
        super().__init__(name="layer_loss", autocast=False)  # narrow floats cannot hold all token ids
        frozen = keras.Model(teacher.model.inputs, states_of(teacher))
        frozen.trainable = False
        self.ask_teacher = lambda texts: frozen(texts, training=False)  # out of Keras's sight, which would save it, too
        self.mapping, self.compare, self.active = mapping, HIDDEN_LOSSES[hidden], active
        self.hidden_weight, self.attention_weight = hidden_weight, attention_weight
        wide, narrow = teacher.hidden_size, student.hidden_size
        of_both = [keras.layers.Dense(wide, use_bias=False) if narrow != wide else tf.identity for _ in range(2)]
        self.of_embeddings, self.of_layers = of_both

    def call(self, inputs):
        """inputs: ([token ids, segment ids], mask (batch, tokens), the student's hidden states, its scores): `states_of`."""
        texts, mask, hidden, scores = inputs

        def loss():
            taught, attended = tf.nest.map_structure(tf.stop_gradient, self.ask_teacher(texts))
            of_hidden = hidden_loss(taught[0], self.of_embeddings(hidden[0]), mask)
            of_scores = tf.zeros_like(of_hidden)
            for g, states, attention in zip(self.mapping, hidden[1:], scores, strict=True):
                of_hidden += self.compare(taught[g], self.of_layers(states), mask)
                if self.attention_weight:
                    of_scores += attention_loss(attended[g - 1], attention, mask)
            return self.hidden_weight * of_hidden + self.attention_weight * of_scores

        losses = tf.cond(tf.convert_to_tensor(self.active()), loss, lambda: tf.zeros(tf.shape(mask)[:1]))
        return losses[:, None]


def layer_loss(targets, outputs):
    """The layer loss of what `with_layer_loss` gives, per text: (batch,) float32."""
    del targets
    return outputs[:, 0]


def beside_layers(function):
    """A loss or a metric of (targets, logits) as one of what `with_layer_loss` gives."""
    def beside(targets, outputs):
        return function(targets, outputs[:, 1:])

    beside.__name__ = function.__name__
    return beside


def with_layer_loss(teacher, student, mapping, *words, **more):
    """A student as a model of (token ids, segment ids) -> [layer loss | logits], (batch, 1 + classes) float32.

    teacher, student: `bert.BertClassifier`
    mapping, words, more: see `LayerLoss`
    """
    inputs, logits = student.model.inputs, student.head(cls(student.encoder.model.output))  # all states are wanted here
    layer = LayerLoss(teacher.encoder, student.encoder, mapping, *words, **more)
    losses = layer((inputs, mask_of(inputs[0]), *states_of(student.encoder)))
    return keras.Model(inputs, keras.layers.Concatenate(dtype="float32")([losses, logits]))


def windows(settings, epochs):
    """(epochs after which layers are learned no longer, epochs after which labels are): whole ones, the former 1 or more.

    epochs: of the whole training
    """
    until, since = (round(epochs * share, 6) for share in (settings.layers_until, settings.labels_from))
    return ceil(until), floor(since)


def check_layers(settings, name):
    """Raise InputError for settings with which the experiment `name`, which learns layers, would learn none, or no labels."""
    if settings.soft_labels:
        raise InputError(f"--experiments {name}: with --soft-labels there is no teacher whose layers could be learned")
    if settings.hidden_weight == settings.attention_weight == 0:
        raise InputError(f"--experiments {name}: no layer would be learned; raise --hidden-weight or --attention-weight")
    if settings.layer_mapping and len(settings.layer_mapping) != settings.student_layers:
        raise InputError(f"--layer-mapping{''.join(f' {g}' for g in settings.layer_mapping)}: the student has "
                         f"{settings.student_layers} layers, and each needs a layer of the teacher")
    if settings.layers_until == 0 or settings.labels_from > min(settings.layers_until, 0.9):
        raise InputError(f"--layers-until {settings.layers_until:g} --labels-from {settings.labels_from:g}: the former must be "
                         "above 0, the latter not above it, and 0.9 or less")
