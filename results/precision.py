"""What a narrow precision costs: runs that differ in nothing else, held against each other."""

from itertools import permutations

from results.settings import differing, models_compared


def precision_table(runs):
    """Rows of strings, header first: models in float32 and in a narrow precision, seed by seed against each other."""
    table = [["run in float32", "and in", "model", "seeds", "float32 %", "narrow %", "float32 - narrow", "95 % interval", "p"]]
    for (name, wide), (_, narrow) in permutations(runs.items(), 2):
        if differing(wide, narrow) == {"precision"} and wide["settings"]["precision"] == "float32":
            precision = narrow["settings"]["precision"]
            table += [[name, precision, *cells] for cells, _ in models_compared(wide, narrow)]
    return table
