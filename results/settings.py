"""What one setting is worth: a run beside another that differs in it alone, and is named after it, NAME-WHAT after NAME."""

from itertools import permutations

import numpy as np

from report.tables import difference_cells, mean_and_deviation
from results.precision import FREE
from results.stored import compared, correct_of


def settings_table(runs):
    """Rows of strings, header first: the models of runs, and how much they lose when one setting of theirs is another.

    Models that answer alike in both runs have nothing to do with the setting, and are left out.
    """
    table = [["run", "its setting", "instead", "model", "seeds", "accuracy %", "instead %", "points", "95 % interval", "p"]]
    for (name, results), (other, changed) in permutations(runs.items(), 2):
        differing = _differing(results, changed)
        if not other.startswith(f"{name}-") or len(differing) != 1:
            continue
        key, = differing
        for model in dict.fromkeys(record["name"] for record in results["models"] if "exits" not in record):
            pair = correct_of(results, model), correct_of(changed, model)
            comparison = compared(*pair)
            if not comparison or all(np.array_equal(pair[0][seed], pair[1][seed]) for seed in comparison["seeds"]):
                continue
            seeds = comparison["seeds"]
            means = [mean_and_deviation([correct[seed].mean() for seed in seeds], 100) for correct in pair]
            values = [in_words(key, each["settings"].get(key)) for each in (results, changed)]
            table.append([name, *values, model, str(len(seeds)), *means, *difference_cells(comparison)])
    return table


def _differing(results, changed):
    """Settings in which two runs of one script on the same test texts differ, but for those that may; none of other runs."""
    ground, other = ((each["script"], each["data"]["test_fingerprint"]) for each in (results, changed))
    if ground != other:
        return set()
    settings = results["settings"], changed["settings"]
    return {key for key in settings[0].keys() | settings[1].keys() if settings[0].get(key) != settings[1].get(key)} - FREE


def in_words(key, value):
    """A setting as its flag: ("student_init", "first") as "--student-init first"."""
    flag = key.replace("_", "-")
    if isinstance(value, bool):
        return f"--{flag}" if value else f"--no-{flag}"
    return " ".join([f"--{flag}", *map(str, value if isinstance(value, list) else [value])])
