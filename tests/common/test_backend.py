"""common.backend: oneDNN without its cache of primitives."""

import os
import platform
import subprocess
import sys

import pytest

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

@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="TensorFlow has oneDNN on these machines")
def test_products_of_one_size_and_other_strides_do_not_share_what_onednn_made():
    wanted = {"TF_ENABLE_ONEDNN_OPTS": "1", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "1024", "ONEDNN_VERBOSE": "profile_create"}
    words = [sys.executable, "-c", ONE_QUERY]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, env=os.environ | wanted)
    assert done.returncode == 0, done.stderr
    made = [line for line in done.stdout.splitlines() if "create:" in line and "matmul" in line]
    assert made and not [line for line in made if "create:cache_hit" in line]
