"""The one place that chooses Keras: everything else takes `tf`, `keras`, `K` and bert4keras from here. Seeds, draws, precision.

bert4keras is written for Keras 2, which lives on as tf_keras; the two variables below must be set before TensorFlow and
bert4keras are first imported, and they make `keras` mean tf_keras in this process.
"""

import contextlib
import functools
import gc
import logging
import os
import platform
import sys
import tempfile
import warnings

os.environ["TF_KERAS"] = "1"  # read by bert4keras
os.environ["TF_USE_LEGACY_KERAS"] = "1"  # read by TensorFlow
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# oneDNN's cache takes products for the same that differ in the strides of an axis of 1 alone, though one may need more scratch
# memory than the other. Of two that threads make at the same time one can then write past the end of what it was given. So the
# gradients of a branch, whose attention has one query, ended 2 of 13 starts of FastBERT's demo (64 tokens, heads of 64, two
# cores). TensorFlow has a cache of its own for each thread: nothing is slower without.
os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] = "0"
logging.getLogger("tensorflow").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", message=".*distutils.*", category=DeprecationWarning)
warnings.filterwarnings("ignore", message="The initializer TruncatedNormal is unseeded")  # weights are loaded over it


@contextlib.contextmanager
def _start_up_notices_hidden():
    """TensorFlow's C++ writes to file descriptor 2 while it loads, whatever the log level; shown only if loading fails."""
    if not sys.stderr:  # which may be closed
        yield
        return
    try:
        file = tempfile.TemporaryFile()  # noqa: SIM115  closed below
    except OSError:  # a full disk has no room for one: then they are seen
        yield
        return
    sys.stderr.flush()
    kept = os.dup(2)
    with file as notices:
        os.dup2(notices.fileno(), 2)
        try:
            yield
        except BaseException:
            notices.seek(0)
            os.write(kept, notices.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


with _start_up_notices_hidden():
    import tensorflow as tf
    from bert4keras.backend import K, keras
    from bert4keras.layers import Lambda, LayerNormalization, MultiHeadAttention
    from bert4keras.models import build_transformer_model

gc.freeze()  # what is imported stays: who collects garbage need not walk through it each time, a fifth of a second
K.where = tf.where  # bert4keras's broadcasts by hand, in operations that tf2onnx cannot convert; TensorFlow's does too

__all__ = [
    "K", "Lambda", "LayerNormalization", "MultiHeadAttention", "build_transformer_model", "drawn_by_step", "forget_models",
    "in_float32", "keras", "precision_remarks", "set_precision", "set_seed", "tf", "uniform",
]


def set_seed(seed):
    """Seed Python, numpy and TensorFlow, and let TensorFlow use only operations that repeat their results."""
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()


# What is drawn while a stage is trained depends on seed, place in the graph and step alone, so that training that was
# interrupted resumes with the very draws it would have had. TensorFlow's own count their calls, in a state that no checkpoint
# holds.
_drawing = {"seed": 0, "step": None, "places": {}}  # places: by replica, how many of its graph have a key


@contextlib.contextmanager
def drawn_by_step(seed, step):
    """A block in which dropout and `uniform`, in graphs traced there, follow `seed` and the integer variable `step`."""
    _drawing.update(seed=seed, step=step, places={})
    try:
        yield
    finally:
        _drawing["step"] = None


def uniform():
    """A scalar from 0 to 1, float32, drawn anew in each step; the same one on all devices."""
    return tf.random.uniform([]) if _drawing["step"] is None else tf.random.stateless_uniform([], _key(shared=True))


def _key(shared=False):
    """The key of one place in the graph at the present step, on each device another unless `shared`: (2,) int64."""
    context = tf.distribute.get_replica_context()
    replica = int(tf.get_static_value(context.replica_id_in_sync_group)) if context else 0
    places = _drawing["places"]
    places[replica] = places.get(replica, 0) + 1
    place = places[replica] + (0 if shared else replica << 14)
    return tf.stack([tf.constant((_drawing["seed"] << 20) + place, tf.int64), tf.cast(_drawing["step"], tf.int64)])


def _dropout(generator, inputs, rate, noise_shape=None):
    if _drawing["step"] is None:
        return _keras_dropout(generator, inputs, rate, noise_shape)
    return tf.nn.experimental.stateless_dropout(inputs, rate, _key(), noise_shape=noise_shape)


# bert4keras's would take mean and variance in a narrow precision wherever TensorFlow does not happen to fuse them: answers then
# depended on how a model is cut into pieces, and were off by twenty times as much. Keras's own takes them in float32, always.
_init = LayerNormalization.__init__
LayerNormalization.__init__ = functools.partialmethod(_init, dtype="float32")

_generator = type(keras.layers.Dropout(0)._random_generator)
_keras_dropout, _generator.dropout = _generator.dropout, _dropout


# To float32, mixed_bfloat16 or mixed_float16: in the last two only activations are narrow, weights and losses stay in float32.
set_precision = keras.mixed_precision.set_global_policy

INSTRUCTIONS = {"mixed_bfloat16": ("avx512_bf16", "amx_bf16", "bf16"), "mixed_float16": ("avx512_fp16", "amx_fp16", "fphp")}
CAPABILITY = {"mixed_bfloat16": (8, 0), "mixed_float16": (7, 0)}  # of a GPU that computes in it


def precision_remarks(precision):
    """A line, in a list, if the hardware here cannot compute in this precision: it is emulated then, and gains nothing."""
    if precision == "float32":
        return []
    narrow = precision.removeprefix("mixed_")
    for gpu in tf.config.list_physical_devices("GPU"):
        details = tf.config.experimental.get_device_details(gpu)
        if details.get("compute_capability", (99, 0)) < CAPABILITY[precision]:
            return [f"--precision {precision}: {details['device_name']} does not compute in {narrow}, so this gains nothing"]
    if tf.config.list_physical_devices("GPU") or platform.system() != "Linux":
        return []  # it does, or we cannot know
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        known = set(file.read().split())
    if known.isdisjoint(INSTRUCTIONS[precision]):
        return [f"--precision {precision}: this processor does not compute in {narrow}, so it is slower than float32"]
    return []


def forget_models():
    """Free the memory of all models that nobody holds any more."""
    keras.backend.clear_session()
    gc.collect()  # models and their graphs are cycles


@contextlib.contextmanager
def in_float32(precision):
    """A block in which models are built in float32, whatever their `precision` was: what is given away, and timed."""
    forget_models()
    set_precision("float32")
    try:
        yield
    finally:
        set_precision(precision)
