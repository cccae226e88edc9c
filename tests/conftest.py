"""Loads the fixtures where tests run; the process that only hands them out to others need not wait for TensorFlow."""

import gc
import os
from collections import Counter

# There is a process for each core: numpy's further threads would only wait for one another, at full speed.
os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


def pytest_configure(config):
    if hasattr(config, "workerinput") or config.option.collectonly or not getattr(config.option, "numprocesses", None):
        config.pluginmanager.import_plugin("tests.fixtures")


def pytest_collection_modifyitems(items):
    """Files that take long come first, so that no worker is left alone with one at the end."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])  # stable: a file stays together


def pytest_collection_finish():
    """What is imported by now stays: the scripts collect garbage often, and to walk through all that takes half a second."""
    gc.collect()
    gc.freeze()
