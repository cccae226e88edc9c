"""`--strategy`: a batch that is shared out teaches what the whole one teaches; refusals; `--precision` and the hardware."""

import re
import resource

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import common.devices
from common import InputError, backend, files
from common.backend import tf
from common.batches import TokenizedTexts, training_batches


def fake_texts(count):
    """Texts of 1 to 5 tokens."""
    lengths = np.arange(count) % 5 + 1
    return TokenizedTexts(np.ones(lengths.sum(), np.int32), np.append(0, np.cumsum(lengths)))


@pytest.mark.slow
@given(st.integers(1, 40), st.integers(1, 12), st.integers(2, 5), st.integers(0, 3))
def test_the_shards_of_a_batch_have_its_mean_loss(count, size, num_replicas, first):
    if size < num_replicas:
        return
    examples, losses = fake_texts(count), np.random.default_rng(0).random(count, np.float32)
    shared = training_batches(examples, np.arange(count), losses, size, 3, first, range(num_replicas), num_replicas)
    whole = training_batches(examples, np.arange(count), losses, size, 3, first)
    shared, whole = shared.as_numpy_iterator(), whole.as_numpy_iterator()
    for _ in range(4):
        _, values = next(whole)
        shards = [next(shared) for _ in range(num_replicas)]
        assert len({len(values) for _, values, _ in shards}) == 1
        found = np.mean([(values * weights).mean() for _, values, weights in shards])
        np.testing.assert_allclose(found, values.mean(), rtol=1e-5)


def test_another_seed_starts_from_other_weights():
    def kernel(seed):
        with common.devices.fresh_session(seed):
            return backend.keras.Sequential([backend.keras.Input((4,)), backend.keras.layers.Dense(3)]).get_weights()[0]

    np.testing.assert_array_equal(kernel(1), kernel(1))
    assert not np.array_equal(kernel(1), kernel(2))


def test_each_process_gets_its_own_shards():
    examples, numbers = fake_texts(8), np.arange(8.0, dtype=np.float32)
    dealt = [
        training_batches(examples, np.arange(8), numbers, 4, seed=0, replicas=own, num_replicas=4) for own in ((0, 1), (2, 3))
    ]
    whole = training_batches(examples, np.arange(8), numbers, 4, seed=0)
    dealt, whole = [iter(dataset) for dataset in dealt], iter(whole)
    for _ in range(2):
        found = [float(value) for dataset in dealt for _ in range(2) for value in next(dataset)[1]]
        assert found == next(whole)[1].numpy().tolist()


def test_dropout_differs_on_each_device_and_what_is_drawn_for_the_batch_does_not(devices, both):
    devices("mirrored", 2)
    step, layer = tf.Variable(0, dtype=tf.int64), backend.keras.layers.Dropout(0.5)

    @tf.function
    def drawn():
        return both.run(lambda: (layer(tf.ones((2000,)), training=True), backend.uniform()))

    with backend.drawn_by_step(0, step):
        masks, draws = drawn()
    one, two = (mask.numpy() for mask in masks.values)
    assert 0.4 < (one == two).mean() < 0.6
    assert len({float(value) for value in draws.values}) == 1


# Refusals --------------------------------------------------------------------------------------------------------------


def test_mirrored_needs_two_devices(devices, monkeypatch):
    only = tf.config.LogicalDevice("/device:CPU:0", "CPU")
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: [only] * (kind == "CPU"))
    with pytest.raises(InputError, match=r"there is one device here, /device:CPU:0; leave --strategy out"):
        devices("mirrored", 32)


def test_a_batch_must_have_an_example_for_each_device(devices):
    with pytest.raises(InputError, match="--batch-size 1: fewer examples a step than the 2 devices"):
        devices("mirrored", 1)


@pytest.mark.parametrize("config", [
    None, "", "{", "[]", '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 0}}',
    '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 2}}', '{"cluster": {}, "task": {}}',
    '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "ps", "index": 0}}',
    '{"cluster": {"worker": "a:1,b:1"}, "task": {"type": "worker", "index": 0}}',
    '{"cluster": {"worker": ["a", "b:1"]}, "task": {"type": "worker", "index": 0}}',
    '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": "0"}}',
    '{"cluster": {"chief": ["c:1"], "worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}',
])
def test_multiworker_needs_to_know_who_takes_part(devices, monkeypatch, config):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if config is not None:
        monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(InputError, match="the variable TF_CONFIG must say who takes part"):
        devices("multiworker", 32)


def test_a_file_that_another_machine_wrote_is_waited_for_but_not_for_ever(tmp_path):
    with pytest.raises(InputError, match="must be a folder that all share"):
        files.wait_for(tmp_path / "record.json", seconds=0.01)
    (tmp_path / "record.json").touch()
    files.wait_for(tmp_path / "record.json", seconds=0)


# --precision -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("flags", "told"), [("avx2 avx512_bf16", False), ("avx2", True)])
def test_a_processor_that_does_not_compute_in_a_precision_is_named(monkeypatch, tmp_path, flags, told):
    (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags : fpu {flags}\n")
    opened = open
    monkeypatch.setattr("builtins.open", lambda path, *more, **named: opened(
        tmp_path / "cpuinfo" if path == "/proc/cpuinfo" else path, *more, **named))
    monkeypatch.setattr(backend.platform, "system", lambda: "Linux")
    assert backend.precision_remarks("float32") == []
    assert bool(backend.precision_remarks("mixed_bfloat16")) == told
    assert "does not compute in float16, so it is slower" in backend.precision_remarks("mixed_float16")[0]


@pytest.mark.parametrize(("capability", "told"), [((7, 5), True), ((8, 0), False)])
def test_a_gpu_that_does_not_is_named(monkeypatch, capability, told):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["gpu"] * (kind == "GPU"))
    details = {"compute_capability": capability, "device_name": "Some GPU"}
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: details)
    remarks = ["--precision mixed_bfloat16: Some GPU does not compute in bfloat16, so this gains nothing"]
    assert backend.precision_remarks("mixed_bfloat16") == (remarks if told else [])
    assert backend.precision_remarks("mixed_float16") == []


# TensorFlow's errors ---------------------------------------------------------------------------------------------------


def saved_model(folder):
    weights = tf.Variable(tf.zeros((100, 100)))
    module = tf.Module()
    module.weights = weights
    tf.saved_model.save(module, str(folder), signatures=tf.function(
        lambda x: {"y": x @ weights}, input_signature=[tf.TensorSpec((None, 100), tf.float32, name="x")]))


def events(folder):
    tf.summary.create_file_writer(str(folder))


@pytest.mark.parametrize("write", [saved_model, events])
def test_a_disk_that_is_full_where_tensorflow_writes_is_one_line(tmp_path, write):
    """A limit on file sizes fails the write as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        with pytest.raises(InputError) as error, common.devices.tensorflow_errors_in_one_line():
            write(tmp_path / "full")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert re.fullmatch(rf"{tmp_path}/full/\S+ cannot be written: File too large", str(error.value))
    with common.devices.tensorflow_errors_in_one_line():
        write(tmp_path / "roomy")


@pytest.mark.parametrize("words", ["No space left on device", "Read-only file system", "Disk quota exceeded"])
def test_what_keeps_tensorflow_from_writing_is_told(words):
    """Its messages, as those of `CreateSummaryFileWriter` and of a folder that it makes."""
    for message in (f"{{{{function_node x}}}} /a b/events; {words}\n\tFailed to flush [Op:X]", f"/a b/events; {words}"):
        with pytest.raises(InputError) as error, common.devices.tensorflow_errors_in_one_line():
            raise tf.errors.ResourceExhaustedError(None, None, message)
        assert str(error.value) == f"/a b/events cannot be written: {words}"


def test_other_errors_of_tensorflow_keep_their_traceback():
    with pytest.raises(tf.errors.ResourceExhaustedError), common.devices.tensorflow_errors_in_one_line():
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor with shape[9,9]; type float")
