"""Examples as models take them: texts tokenized once, or pixels; batches bucketed by length, as `tf.data`.

What a batch is for (labels, soft labels) the caller says; models and training are not this module's business.
"""

import itertools
import sys
from dataclasses import dataclass

import numpy as np

from common.backend import tf
from data.bucketing import by_length
from data.tokenizing import padded, tokenize


@dataclass(frozen=True)
class TokenizedTexts:
    """Tokenized texts, ragged and held once: text i is `ids[offsets[i]:offsets[i + 1]]`, int32; 0 is kept for padding.

    What batches, predictions and soft labels need to know of examples is `spec`, `predict_batch_size`, `example`, `lengths` and
    `inputs`; `Pixels` has the same five.
    """

    ids: np.ndarray
    offsets: np.ndarray
    first_segments: np.ndarray | None = None  # of pairs: (texts,) int32, tokens of segment 0, before those of segment 1
    positions: int = sys.maxsize  # that the model has: no text may be padded to more tokens

    spec = (tf.TensorSpec((None, None), tf.int32), tf.TensorSpec((None, None), tf.int32))
    predict_batch_size = 64

    @classmethod
    def of(cls, texts, bert, maxlen):
        """Texts, or pairs of texts, as the tokenizer of a `berts.Bert` cuts them to `maxlen` tokens."""
        positions = bert.config.get("max_position_embeddings", sys.maxsize)  # a BiLSTM has none
        return cls(*tokenize(texts, bert.tokenizer, maxlen, bert.pad_id), positions)

    def example(self, index):
        """What a model is told of one text: its token ids (tokens,) int32; of a pair its segment ids too, (2, tokens)."""
        token_ids = self.ids[self.offsets[index] : self.offsets[index + 1]]
        if self.first_segments is None:
            return token_ids
        return np.stack([token_ids, np.arange(len(token_ids), dtype=np.int32) >= self.first_segments[index]])

    def lengths(self, indices):
        """Tokens of each text, special ones included."""
        return self.offsets[indices + 1] - self.offsets[indices]

    def joined(self, others):
        """These texts, and after them those of `others`."""
        offsets, first_segments = np.append(self.offsets, self.offsets[-1] + others.offsets[1:]), None
        if self.first_segments is not None:
            first_segments = np.concatenate([self.first_segments, others.first_segments])
        return TokenizedTexts(np.concatenate([self.ids, others.ids]), offsets, first_segments, self.positions)

    def inputs(self, indices):
        """(token ids, segment ids) of these texts as a model takes them, both int32 (texts, tokens).

        Padded with 0; tokens is a multiple of 8, for few graph shapes, or `positions`. Segment ids of single texts are all 0.
        """
        return padded(self.ids, self.offsets, self.first_segments, indices, multiple=8, positions=self.positions)


@dataclass(frozen=True)
class Pixels:
    """Images as examples: (images, height, width, channels) float32. See `TokenizedTexts`."""

    pixels: np.ndarray

    @property
    def spec(self):
        return tf.TensorSpec((None, *self.pixels.shape[1:]), tf.float32)

    @property
    def predict_batch_size(self):
        return min(1024, 1 + 2**21 // self.pixels[0].size)  # a call costs milliseconds, a batch memory

    def example(self, index):
        return self.pixels[index]

    def lengths(self, indices):
        return np.ones(len(indices), np.int32)  # no image is longer than another

    def inputs(self, indices):
        return self.pixels[indices]


def training_batches(examples, indices, targets, batch_size, seed, first=0, replicas=(0,), num_replicas=1):
    """An endless `tf.data.Dataset` of training batches (inputs, targets), epoch after epoch.

    The order of epoch e depends on (seed, e) alone. An epoch has ceil(examples / batch_size) batches. Where several replicas
    share a batch it is cut into as many shards, all of one length, each with weights (inputs, targets, weights) under which
    the mean of the shards' mean losses is the mean loss of the batch.

    examples: TokenizedTexts or Pixels
    indices: (examples,) int, which of them to train on
    targets: array whose first axis is that of `indices`
    batch_size: examples a batch, over all replicas
    seed: of the order
    first: the batch to begin with
    replicas: those whose shards this dataset has, batch by batch
    num_replicas: how many share a batch
    """
    targets = np.asarray(targets)
    lengths = examples.lengths(indices)

    def shard(batch, replica):
        """(examples, weights) of one replica's share of a batch."""
        size = -(-len(batch) // num_replicas)
        places = np.arange(replica * size, (replica + 1) * size)
        weights = (places < len(batch)) * np.float32(size * num_replicas / len(batch))  # 0 for what fills up the last shards
        return batch[np.minimum(places, len(batch) - 1)], weights

    def stream():
        epochs_done, skipped = divmod(first, -(-len(indices) // batch_size))
        for epoch in itertools.count(epochs_done):
            order = by_length(lengths, batch_size, np.random.default_rng((seed, epoch)))
            for batch in order[skipped:]:
                for replica in replicas:
                    own, *weights = (batch,) if num_replicas == 1 else shard(batch, replica)
                    yield examples.inputs(indices[own]), targets[own], *weights
            skipped = 0

    signature = (examples.spec, tf.TensorSpec((None, *targets.shape[1:]), targets.dtype))
    if num_replicas > 1:
        signature += (tf.TensorSpec((None,), tf.float32),)
    # There is nothing to tune, and who lets go of a tuned dataset waits until its tuner wakes, in the end once a minute.
    options = tf.data.Options()
    options.autotune.enabled = False
    return tf.data.Dataset.from_generator(stream, output_signature=signature).prefetch(2).with_options(options)
