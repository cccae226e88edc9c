"""What a narrow precision costs: runs that differ in nothing else, held against each other."""

from itertools import permutations

from report.tables import difference_cells, mean_and_deviation
from results.stored import compared, correct_of

FREE = {  # settings that may differ
    "precision", "seeds", "experiments", "output", "download", "strategy", "export", "vocabulary", "int8_disagreement",
}


def precision_table(runs):
    """Rows of strings, header first: models in float32 and in a narrow precision, seed by seed against each other."""
    table = [["run in float32", "and in", "model", "seeds", "float32 %", "narrow %", "float32 - narrow", "95 % interval", "p"]]
    for (name, wide), (_, narrow) in permutations(runs.items(), 2):
        precision = narrow["settings"]["precision"]
        if _but_for_free(wide) != _but_for_free(narrow) or not wide["settings"]["precision"] == "float32" != precision:
            continue
        models = dict.fromkeys(record["name"] for record in wide["models"] if "exits" not in record)  # whose speeds differ
        for model in models:
            pair = correct_of(wide, model), correct_of(narrow, model)
            if comparison := compared(*pair):
                seeds = comparison["seeds"]
                means = [mean_and_deviation([correct[seed].mean() for seed in seeds], 100) for correct in pair]
                table.append([name, precision, model, str(len(seeds)), *means, *difference_cells(comparison)])
    return table


def _but_for_free(results):
    # What is off is left out, too: a run of an older version does not have the settings that came after it.
    settings = {key: value for key, value in results["settings"].items() if value and key not in FREE}
    return results["script"], results["data"]["test_fingerprint"], settings
