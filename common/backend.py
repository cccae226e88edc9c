"""The one place that chooses Keras, and the devices. Everything else takes `tf`, `keras`, `K` and bert4keras from here.

bert4keras is written for Keras 2, which lives on as tf_keras; the two variables below must be set before TensorFlow and
bert4keras are first imported, and they make `keras` mean tf_keras in this process.
"""

import contextlib
import gc
import json
import logging
import os
import platform
import re
import sys
import tempfile
import warnings

from common import InputError

os.environ["TF_KERAS"] = "1"  # read by bert4keras
os.environ["TF_USE_LEGACY_KERAS"] = "1"  # read by TensorFlow
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
logging.getLogger("tensorflow").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", message=".*distutils.*", category=DeprecationWarning)
warnings.filterwarnings("ignore", message="The initializer TruncatedNormal is unseeded")  # weights are loaded over it


@contextlib.contextmanager
def _start_up_notices_hidden():
    """TensorFlow's C++ writes to file descriptor 2 while it loads, whatever the log level; shown only if loading fails."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as notices:
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
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

K.where = tf.where  # bert4keras's own broadcasts by hand, in operations that ONNX does not have; TensorFlow's does too

__all__ = [
    "K", "Lambda", "LayerNormalization", "MultiHeadAttention", "barrier", "build_transformer_model", "distributed",
    "draw", "drawn_by_step", "forget_models", "fresh_session", "inference_graph", "is_chief", "keras",
    "only_the_chief_goes_on", "precision_remarks", "set_devices", "set_precision", "set_seed", "tf",
]


def set_seed(seed):
    """Seed Python, numpy and TensorFlow, and let TensorFlow use only operations that repeat their results."""
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()


# What is drawn while a stage is trained depends on seed, place in the graph and step alone, so that training that was broken
# off goes on with the very draws it would have had. TensorFlow's own count their calls, in a state that no checkpoint holds.
_drawing = {"seed": 0, "step": None, "places": {}}  # places: by replica, how many of its graph have a key


@contextlib.contextmanager
def drawn_by_step(seed, step):
    """A block in which dropout and `draw`, in graphs that are traced there, follow `seed` and the integer variable `step`."""
    _drawing.update(seed=seed, step=step, places={})
    try:
        yield
    finally:
        _drawing["step"] = None


def draw():
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


_generator = type(keras.layers.Dropout(0)._random_generator)
_keras_dropout, _generator.dropout = _generator.dropout, _dropout


def set_precision(precision):
    """Set the Keras dtype policy: `float32`, `mixed_bfloat16` or `mixed_float16`.

    In a mixed policy the weights and every loss stay in float32; only activations are narrow.
    """
    keras.mixed_precision.set_global_policy(precision)


INSTRUCTIONS = {"mixed_bfloat16": ("avx512_bf16", "amx_bf16", "bf16"), "mixed_float16": ("avx512_fp16", "amx_fp16", "fphp")}
CAPABILITY = {"mixed_bfloat16": (8, 0), "mixed_float16": (7, 0)}  # of a GPU that reckons in it


def precision_remarks(precision):
    """A line, in a list, if the hardware here cannot reckon in this precision: it is emulated then, and gains nothing."""
    if precision == "float32":
        return []
    narrow = precision.removeprefix("mixed_")
    for gpu in tf.config.list_physical_devices("GPU"):
        details = tf.config.experimental.get_device_details(gpu)
        if details.get("compute_capability", (99, 0)) < CAPABILITY[precision]:
            return [f"--precision {precision}: {details['device_name']} does not reckon in {narrow}, so this gains nothing"]
    if tf.config.list_physical_devices("GPU") or platform.system() != "Linux":
        return []  # it does, or we cannot know
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        known = set(file.read().split())
    if known.isdisjoint(INSTRUCTIONS[precision]):
        return [f"--precision {precision}: this processor does not reckon in {narrow}, so it is slower than float32"]
    return []


# Devices: `--strategy` -------------------------------------------------------------------------------------------------

_devices = {"strategy": None}
TF_CONFIG = (
    '--strategy multiworker: the variable TF_CONFIG must say who takes part, as {"cluster": {"worker": ["host0:port", '
    '"host1:port"]}, "task": {"type": "worker", "index": 0}}, on each machine with its own index'
)


def set_devices(strategy, batch_size):
    """Choose what models are trained on: `none`, TensorFlow's own choice of one device; `mirrored`, all of this machine;
    `multiworker`, all of the machines that the environment variable TF_CONFIG names, each of which runs this command.

    Before TensorFlow does anything else. batch_size: examples a step, over all devices. Raises InputError if there is but one
    device, no such variable, or less than an example for each.
    """
    if strategy == "mirrored":
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        if len(devices) < 2:
            raise InputError(f"--strategy mirrored: there is one device here, {devices[0].name}; leave --strategy out")
        _devices["strategy"] = tf.distribute.MirroredStrategy([device.name for device in devices])
    elif strategy == "multiworker":
        try:
            config = json.loads(os.environ["TF_CONFIG"])
            cluster, task = config["cluster"], config["task"]
            workers = cluster["worker"]
            known = [*cluster] == ["worker"] and task["type"] == "worker" and task["index"] in range(len(workers))
            known = known and all(re.fullmatch(r".+:\d+", worker) for worker in workers) and isinstance(workers, list)
        except (KeyError, ValueError, TypeError):
            known = False
        if not known or len(workers) < 2:
            raise InputError(TF_CONFIG)
        print(f"waiting for all {len(workers)} processes: {', '.join(workers)}", file=sys.stderr)
        try:
            _devices["strategy"] = tf.distribute.MultiWorkerMirroredStrategy()
        except tf.errors.UnknownError:  # by TensorFlow, where its server cannot start
            here = workers[task["index"]]
            raise InputError(f"--strategy multiworker: {here} cannot be opened here; is the port taken, or not ours?") from None
        except tf.errors.OpError as error:
            told = error.message.strip().split("\n")[0]
            raise InputError(f"--strategy multiworker: not all of {', '.join(workers)} have come together: {told}") from None
    if _devices["strategy"] and batch_size < _devices["strategy"].num_replicas_in_sync:
        count = _devices["strategy"].num_replicas_in_sync
        raise InputError(f"--batch-size {batch_size}: fewer examples a step than the {count} devices that share it")


def _worker():
    """Which of the processes that train together this is; 0 is the chief."""
    strategy = _devices["strategy"]
    resolver = strategy.cluster_resolver if strategy else None
    return (resolver.task_id or 0) if resolver else 0


def is_chief():
    """Whether this process writes: the only one, or the first of those that train together."""
    return _worker() == 0


def barrier():
    """Wait until all processes that train together have come here."""
    strategy = _devices["strategy"]
    if strategy and strategy.cluster_resolver:
        total = strategy.reduce("SUM", strategy.run(lambda: tf.ones([])), axis=None)
        assert int(total) == strategy.num_replicas_in_sync


def forget_models():
    """Free the memory of all models that nobody holds any more."""
    keras.backend.clear_session()
    gc.collect()  # models and their graphs are cycles


@contextlib.contextmanager
def fresh_session(seed):
    """A block in which models are built and trained: seeds set, on all devices, and nothing in memory of those before."""
    forget_models()
    set_seed(seed)
    strategy = _devices["strategy"]
    with strategy.scope() if strategy else contextlib.nullcontext():
        yield


def only_the_chief_goes_on():
    """From here on; other processes that trained with it end."""
    barrier()
    if not is_chief():
        sys.exit(0)


def distributed(batches):
    """The batches that the steps of a stage take: `batches(pieces, of)`, a tf.data.Dataset, for the devices there are.

    Each global batch is cut into `of` pieces, one for each device; the dataset has those of this process, `pieces`, in turn.
    """
    strategy = _devices["strategy"]
    if not strategy:
        return batches(range(1), 1)
    of = strategy.num_replicas_in_sync

    def of_worker(context):
        here = of // context.num_input_pipelines
        return batches(range(here * context.input_pipeline_id, here * (context.input_pipeline_id + 1)), of)

    return strategy.distribute_datasets_from_function(of_worker)


# Inference -------------------------------------------------------------------------------------------------------------


def inference_graph(function, *signature):
    """`function` as a tf.function of inputs as `signature` says, in which the variables' present values are constants.

    It no longer depends on the variables, and a call need not hand them over one by one, which shows where a small
    model answers one short text. signature: named tf.TensorSpecs.
    """
    traced = tf.function(function, input_signature=signature, autograph=False).get_concrete_function()
    frozen = convert_variables_to_constants_v2(traced, lower_control_flow=False)
    structure = tf.nest.map_structure(lambda _: 0, traced.structured_outputs)  # without the traced graph, which has variables

    def call(*inputs):
        return tf.nest.pack_sequence_as(structure, tf.nest.flatten(frozen(*inputs)))

    return tf.function(call, input_signature=signature, autograph=False)
