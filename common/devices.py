"""What models are trained on, `--strategy`: one device, all of this machine, or several machines.

Everything here works, and does nothing, where there is one device only.
"""

import contextlib
import errno
import json
import os
import re
import sys

from common import InputError
from common.backend import forget_models, set_seed, tf

DISK = "|".join(map(os.strerror, (
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT, errno.ESTALE,
)))
NOT_WRITTEN = rf"(?:\{{\{{.*\}}\}} )?(.*); ({DISK})"  # what TensorFlow says of a file
_devices = {"strategy": None}
TF_CONFIG = (
    '--strategy multiworker: the variable TF_CONFIG must say who takes part, as {"cluster": {"worker": ["host0:port", '
    '"host1:port"]}, "task": {"type": "worker", "index": 0}}, on each machine with its own index'
)


def set_devices(strategy, batch_size):
    """Choose what models are trained on, before TensorFlow does anything else.

    strategy: `none`, TensorFlow's own choice of one device; `mirrored`, all of this machine; `multiworker`, all of the
        machines that the environment variable TF_CONFIG names, each of which runs this command
    batch_size: examples a step, over all devices

    Raises InputError if there is but one device, no such variable, or less than an example for each.
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
            why = error.message.strip().split("\n")[0]
            raise InputError(f"--strategy multiworker: not all of {', '.join(workers)} have come together: {why}") from None
    if _devices["strategy"] and batch_size < _devices["strategy"].num_replicas_in_sync:
        count = _devices["strategy"].num_replicas_in_sync
        raise InputError(f"--batch-size {batch_size}: fewer examples a step than the {count} devices that share it")


def is_chief():
    """Whether this process writes: the only one, or number 0 of those that train together."""
    resolver = _devices["strategy"] and _devices["strategy"].cluster_resolver
    return not (resolver and resolver.task_id)


def of_chief(flag):
    """What the chief says of a flag that processes which train together may see otherwise; all of them must ask."""
    strategy = _devices["strategy"]
    if not (strategy and strategy.cluster_resolver):
        return flag
    said, together = strategy.reduce("SUM", strategy.run(lambda: tf.constant([float(flag and is_chief()), 1.0])), axis=None)
    assert int(together) == strategy.num_replicas_in_sync
    return bool(said)


def barrier():
    """Wait until all processes that train together have come here."""
    of_chief(True)


@contextlib.contextmanager
def fresh_session(seed):
    """A block in which models are built and trained: seeds set, on all devices, and nothing in memory of those before."""
    forget_models()
    set_seed(seed)
    strategy = _devices["strategy"]
    with strategy.scope() if strategy else contextlib.nullcontext():
        yield


def exit_unless_chief():
    """Only the chief goes on from here; other processes that trained with it end."""
    barrier()
    if not is_chief():
        sys.exit(0)


def distributed(batches):
    """The batches that the steps of a stage take, for the devices there are.

    batches: (replicas, num_replicas) -> tf.data.Dataset of the shards of these replicas, out of num_replicas a batch
    """
    strategy = _devices["strategy"]
    if not strategy:
        return batches(range(1), 1)
    num_replicas = strategy.num_replicas_in_sync

    def of_worker(context):
        here = num_replicas // context.num_input_pipelines
        return batches(range(here * context.input_pipeline_id, here * (context.input_pipeline_id + 1)), num_replicas)

    return strategy.distribute_datasets_from_function(of_worker)


@contextlib.contextmanager
def tensorflow_errors_in_one_line():
    """A block in which TensorFlow's errors, 40 lines long, that another process has ended or a disk is full are InputErrors."""
    try:
        yield
    except (tf.errors.UnavailableError, tf.errors.AbortedError):
        raise InputError("another process of --strategy multiworker has ended, and says why; start all of them again, they "
                         "resume from their last backup") from None
    except tf.errors.OpError as error:
        if file := re.match(NOT_WRITTEN, error.message):
            raise InputError(f"{file[1]} cannot be written: {file[2]}") from None
        raise
