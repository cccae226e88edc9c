"""common.backend: graphs for inference, which hold their weights as constants; oneDNN without its cache of primitives."""

import os
import platform
import subprocess
import sys

import numpy as np
import pytest

from common.backend import inference_graph, keras, set_seed, tf
from tests.starting import ROOT

# What attention with one query learns by: keys and values get products of the same size, (64, 1) x (1, 64), of other strides.
# Two threads make them at once, for 200 sizes of batch. With oneDNN's cache twelve of twelve such processes died, by SIGSEGV or
# SIGABRT.
ONE_QUERY = """
from common.backend import tf
tf.config.threading.set_inter_op_parallelism_threads(2)
tf.config.threading.set_intra_op_parallelism_threads(2)

@tf.function(reduce_retracing=True)
def gradients(attended, weights):
    return tf.einsum("bjhd,bhjk->bkhd", attended, weights), tf.einsum("bhjk,bjhd->bkhd", weights, attended)

for batch in range(1, 201):
    gradients(tf.ones((batch, 1, 2, 64)), tf.ones((batch, 2, 1, 64)))
"""

SIGNATURE = tf.TensorSpec((None, 3), tf.float32, name="pixels"), tf.TensorSpec((), tf.float32, name="scale")


@pytest.fixture
def model():
    set_seed(0)
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])


def test_an_inference_graph_gives_what_the_function_gives(model):
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    plain = inference_graph(lambda pixels, scale: scale * model(pixels), *SIGNATURE)(x, 2.0)
    named = inference_graph(lambda pixels, scale: {"z": scale * model(pixels), "a": tf.shape(pixels)}, *SIGNATURE)(x, 2.0)
    kernel, bias = model.get_weights()
    np.testing.assert_allclose(plain, 2 * (x @ kernel + bias), atol=1e-5)
    np.testing.assert_allclose(named["z"], plain)
    assert named.keys() == {"a", "z"} and named["a"].numpy().tolist() == [5, 3]


def test_an_inference_graph_keeps_the_weights_it_was_made_with(model):
    x, graph = np.ones((1, 3), np.float32), inference_graph(lambda pixels, scale: scale * model(pixels), *SIGNATURE)
    before = graph(x, 1.0).numpy()
    model.set_weights([2 * weight + 1 for weight in model.get_weights()])
    np.testing.assert_array_equal(graph(x, 1.0), before)
    assert not np.allclose(model(x), before)
    assert not graph.get_concrete_function().captured_inputs


def test_an_inference_graph_is_saved_under_its_names(model, tmp_path):
    graph = inference_graph(lambda pixels, scale: {"z": scale * model(pixels)}, *SIGNATURE)
    tf.saved_model.save(tf.Module(), str(tmp_path), signatures=graph)
    answer = tf.saved_model.load(str(tmp_path)).signatures["serving_default"]
    x = np.ones((1, 3), np.float32)
    found = answer(pixels=tf.constant(x), scale=tf.constant(3.0))
    np.testing.assert_allclose(found["z"], graph(x, 3.0)["z"])


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="TensorFlow has oneDNN on these machines")
def test_products_of_one_size_and_other_strides_do_not_share_what_onednn_made():
    wanted = {"TF_ENABLE_ONEDNN_OPTS": "1", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "1024", "ONEDNN_VERBOSE": "profile_create"}
    words = [sys.executable, "-c", ONE_QUERY]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, env=os.environ | wanted)
    assert done.returncode == 0, done.stderr
    made = [line for line in done.stdout.splitlines() if "create:" in line and "matmul" in line]
    assert made and not [line for line in made if "create:cache_hit" in line]
