"""A BiLSTM as a Keras model: what it is made of is the work of `data.bilstms`."""

from dataclasses import dataclass, replace

from common.backend import Lambda, keras, tf
from common.bert import swap_pad_embedding
from data.berts import OUTPUT, Bert
from data.bilstms import DENSE, LSTM
from data.vocabulary import EMBEDDINGS


@dataclass(frozen=True)
class BilstmClassifier:
    """A BiLSTM with its head; the same as `bert.BertClassifier` to whoever trains it or gives it away."""

    start: Bert  # that it was built from
    model: keras.Model  # (token ids, segment ids) -> logits (batch, classes) float32

    @property
    def bert(self):
        """The record with the present weights."""
        weights = dict(zip((EMBEDDINGS, *LSTM, *DENSE, *OUTPUT), self.model.get_weights(), strict=True))
        weights |= {OUTPUT[0]: weights[OUTPUT[0]].T}
        return replace(self.start, weights=swap_pad_embedding(weights, self.start.pad_id))


def build_bilstm(bilstm):
    """The BilstmClassifier of a BiLSTM (Tang et al. 2019, arXiv 1903.12136, section 3.1); segments it does not look at.

    bilstm: of `data.bilstms.draw`, or with trained weights
    """
    inputs = [keras.Input((None,), dtype="int32", name=name) for name in ("token_ids", "segment_ids")]
    table, kernel = bilstm.weights[EMBEDDINGS], bilstm.weights[OUTPUT[0]]
    words = keras.layers.Embedding(*table.shape)(inputs[0])  # (batch, tokens, width)
    mask = Lambda(lambda ids: tf.cumsum(tf.cast(ids != 0, tf.int32), axis=1, reverse=True) > 0)(inputs[0])  # to the last token
    both = keras.layers.Bidirectional(keras.layers.LSTM(bilstm.config["lstm_units"]))(words, mask=mask)  # (batch, 2 units)
    dense = keras.layers.Dense(bilstm.config["dense_units"], "relu")(both)
    model = keras.Model(inputs, keras.layers.Dense(len(kernel), dtype="float32")(dense))
    weights = swap_pad_embedding(bilstm.weights, bilstm.pad_id) | {OUTPUT[0]: kernel.T}
    model.set_weights([weights[name] for name in (EMBEDDINGS, *LSTM, *DENSE, *OUTPUT)])
    return BilstmClassifier(bilstm, model)
