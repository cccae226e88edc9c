"""Which data a teacher is worth having on: each run's teacher beside the linear model on the same texts."""

from pathlib import Path

from common.linear import LINEAR
from report.tables import difference_cells, mean_and_deviation
from results.methods import method_of
from results.stored import compared, correct_of

TRIED = "for trying only"
MARGIN = 3  # points that a teacher must be above the linear model


def grounds_table(runs):
    """Rows of strings, header first: teachers and linear models of the runs that have both, and whether claims may be made."""
    header = ["run", "data", "labels", "tokens", "seeds", "linear %", "teacher %", "gain", "95 % interval", "p", "here"]
    return [header, *rows_by_ground(runs).values()]


def tried_only(runs):
    """Names of the runs, of whatever script, whose texts are no ground to test a claim on."""
    verdicts = {ground: row[-1] for ground, row in rows_by_ground(runs).items()}
    return {name for name, results in runs.items() if verdicts.get(ground_of(results)) == TRIED}


def ground_of(results):
    """What makes two runs stand on one ground: the test texts, the number of labels and of tokens."""
    return results["data"]["test_fingerprint"], results["data"]["train"], results["settings"].get("maxlen")


def rows_by_ground(runs):
    """{`ground_of`: row}: of several runs on one, as of other scripts or in another precision, that with the most seeds."""
    grounds = {}
    for name, results in runs.items():
        data, maxlen = results["data"], results["settings"].get("maxlen")
        pair = correct_of(results, method_of(results).teacher), correct_of(results, LINEAR)
        if comparison := compared(*pair):
            seeds = comparison["seeds"]
            teacher, linear = (mean_and_deviation([correct[seed].mean() for seed in seeds], 100) for correct in pair)
            row = [
                name, Path(data["name"]).name, f"{data['train']:,}", str(maxlen), str(len(seeds)), linear, teacher,
                *difference_cells(comparison), "a ground" if 100 * comparison["difference"] >= MARGIN else TRIED,
            ]
            if len(seeds) > int(grounds.get(ground_of(results), [0] * 5)[4]):
                grounds[ground_of(results)] = row
    return grounds
