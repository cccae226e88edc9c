"""What one setting is worth: a run beside another that differs in it alone, and is named after it, NAME-WHAT after NAME."""

from itertools import permutations

import numpy as np

from common.command import as_flag
from common.exit_curve import STOPPING
from common.runs import EXTENSIBLE
from report.tables import difference_cells, mean_and_deviation
from results.stored import compared, correct_of

FREE = {*EXTENSIBLE, *STOPPING, "timed_examples", "output", "download", "strategy"}  # may differ: no model is another by them


def settings_table(runs):
    """Rows of strings, header first: the models of runs, and how much they lose when one setting of theirs is another.

    Models that answer alike in both runs have nothing to do with the setting, and are left out.
    """
    table = [["run", "its setting", "instead", "model", "seeds", "accuracy %", "instead %", "points", "95 % interval", "p"]]
    for name, other, key in variants(runs):
        if key == "precision":  # has a table of its own
            continue
        results, changed = runs[name], runs[other]
        values = [" ".join(as_flag(key, each["settings"].get(key))) for each in (results, changed)]
        table += [[name, *values, *cells] for cells, alike in models_compared(results, changed) if not alike]
    return table


def variants(runs):
    """[(name of a run, name of one that is named after it, the only setting in which they differ)]."""
    found = []
    for (name, results), (other, changed) in permutations(runs.items(), 2):
        keys = differing(results, changed)
        if other.startswith(f"{name}-") and keys and len(keys) == 1:
            found.append((name, other, *keys))
    return found


def differing(results, others):
    """Settings in which two runs differ, but for FREE ones; None if they are of two scripts, or tested on other texts.

    A run of an older version does not have the settings that came after it: they were off.
    """
    if (results["script"], results["data"]["test_fingerprint"]) != (others["script"], others["data"]["test_fingerprint"]):
        return None
    settings, other = results["settings"], others["settings"]
    both = {key for key in settings.keys() & other.keys() if settings[key] != other[key]}
    one = {key for key in settings.keys() ^ other.keys() if settings.get(key) or other.get(key)}
    return (both | one) - FREE


def models_compared(results, others):
    """What two runs have of each model, over the seeds that both have: ([cells], whether both answer alike) one after another.

    The cells are the model, how many seeds, its accuracy in either run, and the difference. Models that stop early are left
    out: their speeds differ.
    """
    for model in dict.fromkeys(record["name"] for record in results["models"] if "exits" not in record):
        pair = correct_of(results, model), correct_of(others, model)
        if comparison := compared(*pair):
            seeds = comparison["seeds"]
            means = [mean_and_deviation([correct[seed].mean() for seed in seeds], 100) for correct in pair]
            alike = all(np.array_equal(pair[0][seed], pair[1][seed]) for seed in seeds)
            yield [model, str(len(seeds)), *means, *difference_cells(comparison)], alike
