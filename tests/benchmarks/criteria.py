"""python -m tests.benchmarks.criteria RUN …: criteria for leaving early side by side, on what finished runs of FastBERT stored.

At equal layers: the accuracy that is lost against all layers, where texts take a share of the layers on average; between two
speeds it is interpolated. By promise: how many layers the fastest speed takes that keeps --max-disagreement 1 at 95 %, and how
often that is broken, over 500 calibration parts drawn from the test texts: of all texts like these, of which they are drawn
with replacement; and of the texts that a split leaves over, whose own number adds chance to it.
"""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from common import InputError, errors_in_one_line
from common.backend import tf
from common.criteria import criterion_of, fit_temperatures, uncertainty_of_exits
from common.early_exit import answers_at, exit_layers
from common.files import fingerprint
from common.promise import GRID, fastest_kept
from data import texts
from data.parts import split
from knowledge_distillation_fastbert import uncertainty
from report.tables import aligned, mean_and_deviation

CRITERIA = {
    "entropy": {},
    "entropy of 2": {"uncertainty_top_k": 2},
    "entropy of 5": {"uncertainty_top_k": 5},
    "confidence": {"criterion": "confidence"},
    "entropy, 2 in a row": {"exit_patience": 2},
    "confidence, 2 in a row": {"criterion": "confidence", "exit_patience": 2},
    "patience": {"criterion": "patience"},
}
SHARES = 1 / 4, 1 / 3, 1 / 2, 2 / 3  # of the layers, on average
PROMISED = 1, 95  # per cent of texts, with a confidence
DRAWS, CALIBRATION = 500, 1000


def stored_exits(folder):
    """[(labels, logits (texts, layers, classes), the same calibrated) of each seed's test texts] of a finished run."""
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    settings = SimpleNamespace(**results["settings"])
    corpus, found = texts.load(settings.data), []
    for seed in settings.seeds:
        wanted = settings.train_examples, settings.unlabelled_examples, settings.validation_examples, settings.test_examples
        parts = split(corpus, seed, *wanted)
        if fingerprint(corpus.labels[parts.test]) != results["data"]["test_fingerprint"]:
            raise InputError(f"{folder}: its test texts are not those of {settings.data} as it is now")
        stage = folder / f"seed-{seed}" / "fastbert-branches"
        validation, test = (np.load(stage / f"{part}_logits.npy") for part in ("validation", "test"))
        temperatures = fit_temperatures(corpus.labels[parts.validation], validation)
        found.append((corpus.labels[parts.test], test, (test / temperatures[:, None]).astype(np.float32)))
    return found


def doubts(logits, **differing):
    """u of all exits by a criterion of CRITERIA, (texts, layers)."""
    settings = SimpleNamespace(**{"criterion": "entropy", "exit_patience": 1, "uncertainty_top_k": 0} | differing)
    return uncertainty_of_exits(tf.constant(logits), criterion_of(settings, logits.shape[1], uncertainty))


def lost_at(shares, labels, given, taken):
    """Points of accuracy that all layers have more, where texts take these shares of them on average.

    given: of `answers_at` the speeds of GRID
    taken: at each of them the share of the layers
    """
    accuracy = (given == labels).mean(axis=1)
    taken, first = np.unique(taken, return_index=True)
    return 100 * (accuracy[0] - np.interp(shares, taken, accuracy[first]))


def promised(given, layers, rng):
    """(mean layers, whether it is broken by all texts, by those that are left over) of each of DRAWS calibration parts.

    given: of `answers_at` the speeds of GRID
    layers: that texts take at each of them on average
    """
    others, count = given != given[0], given.shape[1]  # (speeds, texts); at 0 all layers answer
    size, limit, found = min(CALIBRATION, count // 2), PROMISED[0] / 100, []
    for _ in range(DRAWS):
        drawn, order = rng.integers(count, size=size), rng.permutation(count)
        place = max(0, fastest_kept(others[:, drawn].sum(axis=1), size, *PROMISED))
        after_split = max(0, fastest_kept(others[:, order[:size]].sum(axis=1), size, *PROMISED))
        found.append((layers[place], others[place].mean() > limit, others[after_split, order[size:]].mean() > limit))
    return np.array(found, float)


def table(exits):
    """The criteria on one run, as rows of strings. exits: of `stored_exits`"""
    at = [f"at {100 * share:.0f} %" for share in SHARES]
    rows = [["criterion", *at, "layers promised", "broken %", "by the rest %"]]
    for name, differing in CRITERIA.items():
        for calibrated in (False, True) if differing.get("criterion") != "patience" else (False,):
            lost, kept = [], []
            for seed, (labels, *both) in enumerate(exits):
                logits = both[calibrated]
                u = doubts(logits, **differing)
                given, layers = answers_at((logits, u), GRID), np.array([exit_layers(u, speed).mean() for speed in GRID])
                lost.append(lost_at(SHARES, labels, given, layers / logits.shape[1]))
                kept.append(promised(given, layers, np.random.default_rng(seed)).mean(axis=0))
            layers, *broken = np.transpose(kept)
            rows.append([
                f"{name}{', calibrated' if calibrated else ''}", *map(mean_and_deviation, np.transpose(lost)),
                mean_and_deviation(layers), *(f"{100 * np.mean(share):.1f}" for share in broken),
            ])
    return rows


def main(folders):
    """Print a table for each run."""
    for folder in map(Path, folders):
        if not (folder / "results.json").is_file():
            raise InputError(f"{folder}: no finished run")
        exits = stored_exits(folder)
        tested, depth, classes = exits[0][1].shape
        print(f"{folder.name}: {tested:,} test texts, {classes} classes, {depth} layers, {len(exits)} seeds; points lost at "
              "shares of the layers")
        print(aligned(table(exits)), flush=True)


if __name__ == "__main__":
    with errors_in_one_line("stopped"):
        main(sys.argv[1:])
