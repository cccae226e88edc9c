"""A BERT as Keras models, built by bert4keras: the encoder, its pieces, and a classifier on top of [CLS].

Reading one from disk is the work of `data.berts`.
"""

from dataclasses import dataclass, replace

from common.backend import K, Lambda, LayerNormalization, build_transformer_model, keras, tf
from data.berts import ACTIVATIONS, CONFIG_KEYS, OUTPUT, POOLER, Bert

TEXT_SIGNATURE = tuple(tf.TensorSpec((None, None), tf.int32, name=name) for name in ("token_ids", "segment_ids"))


def build_encoder(bert, dropout):
    """The bert4keras transformer of a `data.berts.Bert` with its weights loaded.

    Its `.model` maps token ids and segment ids (batch, tokens) to hidden states (batch, tokens, hidden); id 0 is padding.

    bert: configuration and weights
    dropout: rate in hidden states and attention
    """
    config = {key: bert.config[key] for key in CONFIG_KEYS}
    config["hidden_act"] = ACTIVATIONS[config["hidden_act"]]
    transformer = build_transformer_model(
        model="bert",
        return_keras_model=False,
        segment_vocab_size=bert.config.get("type_vocab_size", 2),
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        **config,
    )
    transformer.load_weights_from_checkpoint(swap_pad_embedding(bert.weights, bert.pad_id))
    for layer in transformer.layers.values():
        if isinstance(layer, LayerNormalization):
            layer.epsilon = bert.config.get("layer_norm_eps", 1e-12)  # bert4keras knows 1e-12 only
    return transformer


def read_encoder(transformer, bert):
    """`bert` with the present weights of its built `transformer` (the reverse of `build_encoder`)."""
    weights = {}
    for name, variables in transformer.variable_mapping().items():
        if name in transformer.layers:
            values = keras.backend.batch_get_value(transformer.layers[name].weights)
            weights |= dict(zip(variables, values, strict=True))
    return replace(bert, weights=swap_pad_embedding(weights, bert.pad_id))


def swap_pad_embedding(weights, pad_id):
    """The embeddings of ids 0 and pad_id change places: bert4keras takes id 0 for padding (see `tokenizing.tokenize`)."""
    if pad_id == 0:
        return weights
    words = weights["bert/embeddings/word_embeddings"].copy()
    words[[0, pad_id]] = words[[pad_id, 0]]
    return weights | {"bert/embeddings/word_embeddings": words}


def swap_pad_id(token_ids, pad_id):
    """Token ids as the tokenizer makes them -> as bert4keras takes them: pad_id and 0 change places. A tensor of int32."""
    return tf.where(token_ids == 0, pad_id, tf.where(token_ids == pad_id, 0, token_ids)) if pad_id else token_ids


def embeddings_of(transformer):
    """The embeddings of a built transformer as a model of (token ids, segment ids); weights are shared."""
    return keras.Model(transformer.model.inputs, transformer.apply_embeddings(transformer.model.inputs))


def layers_of(transformer, numbers):
    """These layers of a built transformer as a model of hidden states (batch, tokens, hidden); weights are shared.

    It is called with the texts' mask beside the hidden states: (batch, tokens), True where there is a token.
    """
    hidden = states = keras.Input((None, transformer.hidden_size))
    for number in numbers:
        states = transformer.apply_main_layers(states, number)
    return keras.Model(hidden, states)


def cls_state(transformer):
    """The hidden state of [CLS] after the last layer of a built transformer, (batch, hidden), as a tensor of its `.model`.

    The last layer is applied a second time, to [CLS] alone: it attends to all tokens, but what they themselves would get from
    that layer is read by nobody, and is not computed. That is a quarter of the work of 3 layers.
    """
    layer = f"Transformer-{transformer.num_hidden_layers - 1}"
    states = transformer.layers[f"{layer}-MultiHeadSelfAttention"].get_input_at(0)[0]  # of the first call
    first = Lambda(lambda states: states[:, :1], name="first_token")(states)

    def sublayer(name, x, inputs):
        """Norm(x + Dropout(f(inputs))): the half of a layer that bert4keras calls `name`."""
        name = f"{layer}-{name}"
        dropout = transformer.layers.get(f"{name}-Dropout", tf.identity)  # none is made for a rate of 0
        x = transformer.layers[f"{name}-Add"]([x, dropout(transformer.layers[name](inputs))])
        return transformer.layers[f"{name}-Norm"](x)

    attended = sublayer("MultiHeadSelfAttention", first, [first, states, states])
    return cls(sublayer("FeedForward", attended, attended))


def states_of(transformer):
    """What the layers of a built transformer compute, as tensors of its `.model`: (hidden states, attention scores).

    hidden states: H^0 after the embeddings and H^l after each layer l, (batch, tokens, hidden) each
    attention scores: A^l = Q Kᵀ / √d of each layer before the softmax, (batch, heads, tokens, tokens) each
    """
    numbers = range(transformer.num_hidden_layers)
    attentions = [transformer.layers[f"Transformer-{number}-MultiHeadSelfAttention"] for number in numbers]
    hidden = [attention.get_input_at(0)[0] for attention in attentions]  # of the first call, which made the model
    scores = [Scores(attention)(states) for attention, states in zip(attentions, hidden, strict=True)]
    return [*hidden, transformer.model.output], scores


class Scores(keras.layers.Layer):
    """The scores of a bert4keras attention before the softmax, A = Q Kᵀ / √d, which it computes but does not give away."""

    def __init__(self, attention):
        super().__init__()
        self.attention = attention  # whose weights these are

    def call(self, states):
        """Hidden states (batch, tokens, hidden) -> A (batch, heads, tokens, tokens)."""
        heads, size = self.attention.heads, self.attention.key_size
        q, k = (K.reshape(dense(states), (heads, size), -1) for dense in (self.attention.q_dense, self.attention.k_dense))
        return tf.einsum("bjhd,bkhd->bhjk", q, k) / size**0.5


def inputs_and_mask():
    """([token ids, segment ids], mask of the tokens that are not padding) of a model that is put together of parts."""
    inputs = [keras.Input((None,), dtype="int32", name=name) for name in ("token_ids", "segment_ids")]
    return inputs, mask_of(inputs[0])


def mask_of(token_ids):
    """Where there is a token rather than padding, in the inputs of a model: (batch, tokens) bool."""
    return Lambda(lambda ids: tf.not_equal(ids, 0), name="mask")(token_ids)


def cls(hidden):
    """The first token's hidden state: (batch, tokens, hidden) -> (batch, hidden)."""
    return Lambda(lambda states: states[:, 0], name="CLS")(hidden)


def build_head(bert, classes, initializer):
    """What makes logits (batch, classes) float32 of the hidden state of [CLS] (batch, hidden), as a Keras layer.

    A linear layer, drawn at random; or the classifier that `bert` has, with its pooler if it has one.

    bert: the `data.berts.Bert` below it
    classes: how many
    initializer: of the linear layer
    """
    linear = keras.layers.Dense(classes, kernel_initializer=initializer, dtype="float32", name="Classifier")
    if not bert.is_classifier:
        return linear
    hidden, weights = bert.config["hidden_size"], [bert.weights[OUTPUT[0]].T, bert.weights[OUTPUT[1]]]
    layers = [keras.Input((hidden,)), linear]
    if bert.has_pooler:
        layers.insert(1, keras.layers.Dense(hidden, "tanh"))
        weights = [*map(bert.weights.get, POOLER), *weights]
    head = keras.Sequential(layers)
    head.set_weights(weights)
    return head


def with_head(bert, head):
    """`bert` as a classifier, with the present weights of its head (the reverse of `build_head`)."""
    *pooler, kernel, bias = head.get_weights()
    weights = dict(zip(POOLER, pooler, strict=False)) | dict(zip(OUTPUT, (kernel.T, bias), strict=True))
    return replace(bert, weights=bert.weights | weights)


@dataclass(frozen=True)
class BertClassifier:
    """BERT + [CLS] + Dense, or what stands in the place of the Dense: see `build_head`."""

    start: Bert  # that it was built from
    encoder: object  # its bert4keras transformer
    head: keras.layers.Layer  # of `build_head`
    model: keras.Model  # (token ids, segment ids) -> logits (batch, classes) float32

    @property
    def bert(self):
        """The `data.berts.Bert` with the present weights, and among them those of the classifier."""
        return with_head(read_encoder(self.encoder, self.start), self.head)


def classifier_graph(classifier):
    """A BertClassifier as a graph: (token ids as its tokenizer makes and pads them, segment ids) -> {"probabilities"}."""
    def classify(token_ids, segment_ids):
        logits = classifier.model([swap_pad_id(token_ids, classifier.start.pad_id), segment_ids], training=False)
        return {"probabilities": tf.nn.softmax(logits)}

    return tf.function(classify, input_signature=TEXT_SIGNATURE, autograph=False)


def build_classifier(bert, classes, dropout):
    """The BertClassifier of a BERT, whose own classifier it goes on from, if there is one.

    bert: the `data.berts.Bert` that it starts from
    classes: how many
    dropout: rate in hidden states and attention
    """
    encoder = build_encoder(bert, dropout)
    head = build_head(bert, classes, encoder.initializer)
    return BertClassifier(bert, encoder, head, keras.Model(encoder.model.inputs, head(cls_state(encoder))))
