"""A BERT that may stop after any of its layers: its pieces, and the graph that really stops.

How sure a branch is of a text, what a branch looks like and how it is taught is the script's story.
"""

from dataclasses import dataclass, replace

from common.backend import keras, tf
from common.bert import TEXT_SIGNATURE, build_encoder, embeddings_of, inputs_and_mask, swap_pad_id
from data.berts import keep_layers

EXIT_SIGNATURE = (*TEXT_SIGNATURE, tf.TensorSpec((), tf.float32, name="speed"))


@dataclass(frozen=True)
class ExitModel:
    """The pieces of a BERT with exits, in their order. A branch stands after each layer; after the last, the teacher's head."""

    embeddings: keras.Model  # of (token ids, segment ids)
    layers: list  # Keras models of hidden states with their mask
    branches: list  # as many, to logits
    encoder: object = None  # the bert4keras transformer that embeddings and layers are pieces of
    branch_headed: bool = True  # whether the teacher's head has the shape of a branch


def all_exits(pieces):
    """The model that computes every layer and every branch: (token ids, segment ids) -> logits (batch, layers, classes)."""
    inputs, mask = inputs_and_mask()
    hidden, logits = pieces.embeddings(inputs), []
    for layer, branch in zip(pieces.layers, pieces.branches, strict=True):
        hidden = layer(hidden, mask=mask)
        logits.append(branch(hidden, mask=mask))  # a branch reads its layer's OUTPUT
    return keras.Model(inputs, keras.layers.Lambda(lambda z: tf.stack(z, axis=1), dtype="float32")(logits))


def branches_alone(pieces):
    """The branches as one model, without the teacher and its head: what self-distillation trains, and a stage's file holds."""
    hidden = keras.Input(pieces.branches[0].input_shape[1:])
    return keras.Model(hidden, [branch(hidden) for branch in pieces.branches[:-1]])


def with_embeddings(pieces, bert):
    """The ExitModel with the embeddings of a `data.berts.Bert`, which may have other tokens; the layers stay."""
    return replace(pieces, embeddings=embeddings_of(build_encoder(keep_layers(bert, [0]), dropout=0.0)))


def early_exit_graph(pieces, uncertainty, pad_id=0):
    """One graph: (token ids, segment ids, speed) -> {"probabilities", "layers_used", "uncertainty"} of each text.

    token ids, segment ids: (texts, tokens) int32, padded with pad_id. speed: a float32; a text leaves after the first layer
    whose branch has u < speed, so that at 0 every text has the teacher's answer. probabilities: (texts, classes) float32.
    layers_used: (texts,) int32, how many were computed. uncertainty: (texts,) float32, of the answer. After each layer the
    batch shrinks to the texts that are undecided; when none is left, nothing above is computed.

    pieces: the ExitModel
    uncertainty: probabilities (texts, classes) -> u (texts,), from 0 to 1; NaN where one of them is
    pad_id: for a graph that is given away: it takes ids as the tokenizer makes them (see `bert.swap_pad_id`)
    """
    depth, classes = len(pieces.layers), pieces.branches[-1].output_shape[-1]

    def step(number, hidden, mask, places, answers, speed):
        """Layer `number` and its branch, for the undecided: what it takes, of those who still are.

        places: which text of the batch each is. answers: of the whole batch, (texts, classes + 2): probabilities, u, layers.
        """
        hidden = pieces.layers[number - 1](hidden, mask=mask, training=False)  # (undecided, tokens, hidden)
        p = tf.nn.softmax(pieces.branches[number - 1](hidden, mask=mask, training=False))  # (undecided, classes)
        u = uncertainty(p)  # (undecided,)
        update = tf.concat([p, tf.stack([u, tf.fill(tf.shape(u), float(number))], axis=1)], axis=1)
        answers = tf.tensor_scatter_nd_update(answers, places[:, None], update)  # a later layer may write over them
        # Not ~(u < speed), which TensorFlow's optimizer turns into u >= speed, and so lets NaN go.
        staying = tf.where((u >= speed) | tf.math.is_nan(u - speed))[:, 0]
        return *(tf.gather(x, staying) for x in (hidden, mask, places)), answers, speed

    def rest_from(number):
        """The model from layer `number` on: (hidden, mask, places, answers, speed) -> answers."""
        deeper = rest_from(number + 1) if number < depth else None

        # Not inlined: TensorFlow would walk through every layer, if only to find that it is not to be computed.
        @tf.function(autograph=False, experimental_attributes={"_noinline": True})
        def rest(*given):
            left = step(number, *given)
            _, _, places, answers, _ = left
            return tf.cond(tf.size(places) > 0, lambda: deeper(*left), lambda: answers) if deeper else answers

        return rest

    whole = rest_from(1)

    def answer(token_ids, segment_ids, speed):
        token_ids = swap_pad_id(token_ids, pad_id)
        hidden, mask = pieces.embeddings([token_ids, segment_ids], training=False), tf.not_equal(token_ids, 0)
        count = tf.shape(token_ids)[0]
        answers = whole(hidden, mask, tf.range(count), tf.zeros((count, classes + 2)), speed)
        p, u, layers = tf.split(answers, [classes, 1, 1], axis=1)
        return {"probabilities": p, "layers_used": tf.cast(layers[:, 0], tf.int32), "uncertainty": u[:, 0]}

    return tf.function(answer, input_signature=EXIT_SIGNATURE, autograph=False)
