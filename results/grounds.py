"""Which data a teacher is worth having on: each run's teacher beside the linear model on the same texts."""

from pathlib import Path

from common.linear import LINEAR
from common.report.tables import difference_cells, mean_and_deviation
from results.methods import method_of
from results.stored import compared, correct_of

MARGIN = 3  # points that a teacher must be above the linear model


def grounds_table(runs):
    """Rows of strings, header first: teachers and linear models of the runs that have both, and whether claims may be made."""
    table = [["run", "data", "labels", "tokens", "seeds", "linear %", "teacher %", "gain", "95 % interval", "p", "here"]]
    seen = set()
    for name, results in runs.items():
        ground = results["data"]["test_fingerprint"], results["data"]["train"], results["settings"].get("maxlen")
        if ground in seen:  # runs of other scripts, or of another precision, say it again
            continue
        pair = correct_of(results, method_of(results).teacher), correct_of(results, LINEAR)
        if comparison := compared(*pair):
            seen.add(ground)
            teacher, linear = (
                mean_and_deviation([correct[seed].mean() for seed in comparison["seeds"]], 100) for correct in pair
            )
            table.append([
                name, Path(results["data"]["name"]).name, f"{results['data']['train']:,}", str(results["settings"]["maxlen"]),
                str(len(comparison["seeds"])), linear, teacher, *difference_cells(comparison),
                "a ground" if 100 * comparison["difference"] >= MARGIN else "for trying only",
            ])
    return table
