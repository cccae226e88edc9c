"""python -m tests.benchmarks.criteria RUN …: criteria for leaving early side by side, on what finished runs of FastBERT stored.

At equal layers: the accuracy that is lost against all layers, where texts take a share of the layers on average; between two
speeds it is interpolated; empty where a criterion cannot leave so early. By promise: how many layers the fastest speed takes
that keeps --max-disagreement 1 at 95 %, and how often that is broken, over 500 calibration parts drawn from the test texts: of
all texts like these, of which they are drawn with replacement; and of the texts that a split leaves over, whose own number adds
chance to it.

By --accuracy-drop 0.5, where as many test texts as the run has validation texts, half of them at most, choose the speed: the
layers and what is lost on the others, over as many draws, if what leaving early gains is not taken off what it loses, by half,
as it is, or wholly.

FastBERT itself has the entropy alone, and chooses on the validation part of how many probabilities. The others are here, as an
uncertainty u from 0 to 1 that may rest on the layers before: a function (probabilities (texts, classes), *state) -> (u
(texts,), state), asked layer by layer, whose state is a tuple of (texts,) tensors, empty before the first layer. A text leaves
after the first layer whose u < speed. NaN among probabilities makes u NaN.
"""

import json
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from scipy.optimize import minimize_scalar
from tqdm import tqdm

from common import InputError, errors_in_one_line
from common.backend import tf
from common.evaluation import calibration
from common.exit_curve import answers_at, chosen_top_k, exit_layers
from common.files import fingerprint
from common.promise import GRID, before_first_failure, fastest_kept
from data import texts
from data.parts import split
from knowledge_distillation_fastbert import uncertainty
from report.tables import aligned, mean_and_deviation

PROMISED = 1, 95  # per cent of texts, with a confidence
CHOOSING = SimpleNamespace(uncertainty_top_k=None, speeds=())  # as `chosen_top_k` takes it
CRITERIA = {
    "entropy": {},
    "entropy of 2": {"top_k": 2},
    "entropy of 5": {"top_k": 5},
    "entropy, k by validation": {"top_k": CHOOSING},
    "confidence": {"criterion": "confidence"},
    "entropy, 2 in a row": {"exit_patience": 2},
    "confidence, 2 in a row": {"criterion": "confidence", "exit_patience": 2},
    "patience": {"criterion": "patience"},
}
DROP, TAKEN_OFF = 0.5, (0.0, 0.5, 1.0)  # points that may be lost; which share of the gains is taken off
SHARES = 1 / 4, 1 / 3, 1 / 2, 2 / 3  # of the layers, on average
DRAWS, CALIBRATION = 500, 1000
TEMPERATURES = 0.05, 20.0  # between which one is fitted


# Criteria ----------------------------------------------------------------------------------------------------------------


def confidence(p):
    """u = (1 - max p) · N / (N - 1) of p (…, N), from 0 to 1. As Σ p - max p, so that NaN stays."""
    classes, p = p.shape[-1], tf.cast(p, tf.float32)
    u = (tf.reduce_sum(p, axis=-1) - tf.reduce_max(p, axis=-1)) * np.float32(classes / (classes - 1))
    return tf.where(u > 1, tf.ones_like(u), u)  # rounding; clipping may lose a NaN


def agreement(layers):
    """The criterion of patience (Zhou et al. 2020, arXiv 2006.04152): layers in a row that give the same answer.

    u = 1 - c / (layers - 1), where c, the paper's counter, is of the layers just before that gave this layer's answer. So c
    reaches a patience of t where u < 1 - (t - 1) / (layers - 1). A layer of NaN has no answer: c is 0 at the next.

    layers: of the model
    """
    steps = patience_steps(layers)

    def criterion(p, *state):
        total = tf.reduce_sum(p, axis=-1)
        answers = tf.where(tf.math.is_nan(total), -1, tf.argmax(p, axis=-1, output_type=tf.int32))
        counts = tf.zeros_like(answers)
        if state:
            before, counts = state
            counts = tf.where(answers == before, counts + 1, 0)
        return tf.where(tf.math.is_nan(total), total, tf.gather(steps, counts)), (answers, counts)

    return criterion


def patience_steps(layers):
    """u of each count from 0 to layers - 1, (layers,) float32: a table, so that all graphs have the very same numbers."""
    return (1 - np.arange(layers) / (layers - 1)).astype(np.float32)


def in_a_row(uncertainty, layers_in_a_row):
    """The criterion that so many layers in a row must be sure (PCEE: Zhang et al. 2022, Findings of NAACL, pp. 327-338).

    u is the highest of the last `layers_in_a_row` uncertainties, and 1 where there have not been as many: it is below a speed
    just where all of them are. A layer of NaN is not sure.

    uncertainty: probabilities (texts, classes) -> u (texts,)
    layers_in_a_row: 1 or more
    """
    def criterion(p, *state):
        own = uncertainty(p)
        state = (*state, tf.where(tf.math.is_nan(own), tf.ones_like(own), own))
        highest = tf.reduce_max(state, axis=0) if len(state) == layers_in_a_row else tf.ones_like(own)
        return tf.where(tf.math.is_nan(own), own, highest), state[max(0, len(state) - layers_in_a_row + 1) :]

    return criterion


def criterion_of(layers, criterion="entropy", exit_patience=1, top_k=0):
    """The criterion of a model of so many layers. exit_patience: how many in a row must be sure; top_k: of the entropy"""
    if criterion == "patience":
        return agreement(layers)
    return in_a_row(confidence if criterion == "confidence" else partial(uncertainty, top_k=top_k), exit_patience)


def uncertainty_of_exits(logits, criterion):
    """u of all exits, (texts, layers) float32, of their logits (texts, layers, classes)."""
    state, found = (), []
    for p in tf.unstack(tf.nn.softmax(logits), axis=1):
        u, state = criterion(p, *state)
        found.append(u)
    return tf.stack(found, axis=1).numpy()


def fit_temperatures(labels, logits):
    """The temperature of each exit by which its probabilities softmax(logits / T) fit labels best: (layers,) float.

    That of the least negative log-likelihood (Guo et al. 2017, arXiv 1706.04599). The last exit's, the teacher's, is 1.

    labels: (texts,) int
    logits: (texts, layers, classes)
    """
    def nll(log_temperature, of_exit):
        return calibration(labels, of_exit / np.exp(log_temperature))["nll"]

    branches = logits[:, :-1].astype(np.float64).swapaxes(0, 1)
    fitted = [minimize_scalar(nll, bounds=np.log(TEMPERATURES), args=(branch,), method="bounded").x for branch in branches]
    return np.exp([*fitted, 0.0])


# Side by side ------------------------------------------------------------------------------------------------------------


def stored_exits(folder):
    """[{part: (labels, logits (texts, layers, classes), the same calibrated)} of each seed] of a finished run."""
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    settings = SimpleNamespace(**results["settings"])
    corpus, found = texts.load(settings.data), []
    for seed in settings.seeds:
        wanted = settings.train_examples, settings.unlabelled_examples, settings.validation_examples, settings.test_examples
        parts = split(corpus, seed, *wanted)
        if fingerprint(corpus.labels[parts.test]) != results["data"]["test_fingerprint"]:
            raise InputError(f"{folder}: its test texts are not those of {settings.data} as it is now")
        stage = folder / f"seed-{seed}" / "fastbert-branches"
        labels = {"validation": corpus.labels[parts.validation], "test": corpus.labels[parts.test]}
        found.append(calibrated(labels, {part: np.load(stage / f"{part}_logits.npy") for part in labels}))
    return found


def calibrated(labels, logits):
    """{part: (labels, logits, these at temperatures fitted on the validation part)}. labels, logits: {part: its own}"""
    temperatures = fit_temperatures(labels["validation"], logits["validation"])[:, None]
    return {part: (labels[part], logits[part], (logits[part] / temperatures).astype(np.float32)) for part in labels}


def lost_at(shares, labels, given, taken):
    """Points of accuracy that all layers have more, where texts take these shares of them on average; NaN where no speed does.

    given: of `answers_at` the speeds of GRID
    taken: at each of them the share of the layers
    """
    accuracy = (given == labels).mean(axis=1)
    taken, first = np.unique(taken, return_index=True)
    return 100 * (accuracy[0] - np.interp(shares, taken, accuracy[first], left=np.nan))


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


def by_drop(labels, given, layers, count, share, rng):
    """(mean layers, points lost) on the other texts, of each of DRAWS choices by `count` of them.

    given: of `answers_at` the speeds of GRID
    layers: that each text takes at each of them
    share: of the gains, that is taken off the losses
    """
    right, found = given == labels, []  # (speeds, texts); at 0 all layers answer
    lost = (right[0] & ~right).astype(np.float32) - share * (~right[0] & right)
    for _ in range(DRAWS):
        chosen, others = np.split(rng.permutation(len(labels)), [count])
        place = before_first_failure(lost[:, chosen].mean(axis=1) <= DROP / 100 + 1e-9)
        found.append((layers[place, others].mean(), 100 * (right[0, others].mean() - right[place, others].mean())))
    return np.array(found)


def drop_table(exits):
    """What is lost by --accuracy-drop, as rows of strings. exits: of `stored_exits`"""
    rows = [[f"--accuracy-drop {DROP:g}, gains taken off", "layers", "points lost", f"over {DROP:g}, % of draws"]]
    found = {share: [] for share in TAKEN_OFF}
    for seed, parts in enumerate(exits):
        (validation, of_validation, _), (labels, logits, _) = parts["validation"], parts["test"]
        u = uncertainty(tf.nn.softmax(logits), chosen_top_k(of_validation, CHOOSING, uncertainty)).numpy()
        given, layers = answers_at((logits, u), GRID), np.stack([exit_layers(u, speed) for speed in GRID])
        count = min(len(validation), len(labels) // 2)
        for share, draws in found.items():  # the same ones
            draws.append(by_drop(labels, given, layers, count, share, np.random.default_rng(seed)))
    for share, draws in found.items():
        layers, lost = np.concatenate(draws).T
        rows.append([f"{share:.0%}", f"{layers.mean():.2f}", mean_and_deviation(lost), f"{100 * (lost > DROP).mean():.1f}"])
    return rows


def measured(exits):
    """{(name, whether calibrated): what a criterion gives on one run}, see `table`. exits: of `stored_exits`

    It is {"chosen": [top_k of each seed that validation chose], "lost": (seeds, SHARES), "kept": (seeds, 3) of `promised`}.
    """
    found = {}
    for name, differing in CRITERIA.items():
        for form in (0, 1) if differing.get("criterion") != "patience" else (0,):  # as it is, calibrated
            lost, kept, chosen = [], [], []
            for seed, parts in enumerate(exits):
                (_, *of_validation), (labels, *of_test), given = parts["validation"], parts["test"], differing
                if given.get("top_k") is CHOOSING:
                    chosen.append(chosen_top_k(of_validation[form], CHOOSING, uncertainty))
                    given = {"top_k": chosen[-1]}
                logits = of_test[form]
                u = uncertainty_of_exits(logits, criterion_of(logits.shape[1], **given))
                answers, layers = answers_at((logits, u), GRID), np.array([exit_layers(u, speed).mean() for speed in GRID])
                lost.append(lost_at(SHARES, labels, answers, layers / logits.shape[1]))
                kept.append(promised(answers, layers, np.random.default_rng(seed)).mean(axis=0))
            found[name, bool(form)] = {"chosen": chosen, "lost": np.array(lost), "kept": np.array(kept)}
    return found


def table(found):
    """The criteria on one run, as rows of strings. found: of `measured`"""
    rows = [["criterion", *(f"at {100 * share:.0f} %" for share in SHARES), "layers promised", "broken %", "by the rest %"]]
    for (name, calibrated), each in found.items():
        which = f" ({' '.join(map(str, each['chosen']))})" if each["chosen"] else ""
        layers, *broken = each["kept"].T
        rows.append([
            f"{name}{which}{', calibrated' if calibrated else ''}",
            *("" if np.isnan(lost).any() else mean_and_deviation(lost) for lost in each["lost"].T),
            mean_and_deviation(layers), *(f"{100 * np.mean(share):.1f}" for share in broken),
        ])
    return rows


def promised_table(runs):
    """Rows of strings: the layers that the promise takes in a run, as it is / calibrated; last, how often all texts break it.

    runs: {name: of `measured`}
    """
    rows = [["layers promised, as it is / calibrated", *runs]]
    for name in CRITERIA:
        of_runs = ([f"{found[key]['kept'][:, 0].mean():.2f}" for key in ((name, False), (name, True)) if key in found]
                   for found in runs.values())
        rows.append([name, *map(" / ".join, of_runs)])
    return [*rows, ["promise broken, % of draws, at most", *(f"{100 * broken(found):.1f}" for found in runs.values())]]


def broken(found):
    """The share of draws in which all texts break the promise, by the criterion of which it is most. found: of `measured`"""
    return max(each["kept"][:, 1].mean() for each in found.values())


def check_promise(runs):
    """Raise InputError where it is broken more often than its confidence allows. runs: {name: of `measured`}"""
    bar = 1 - PROMISED[1] / 100
    if too_often := [f"{run} ({broken(found):.1%})" for run, found in runs.items() if broken(found) > bar]:
        raise InputError(f"the promise is broken in more than {bar:.1%} of the draws: {', '.join(too_often)}")


def main(folders):
    """Print one table of all runs, and one for each."""
    folders, runs, tables = [Path(folder) for folder in folders], {}, []
    for folder in folders:
        if not (folder / "results.json").is_file():
            raise InputError(f"{folder}: no finished run")
    for folder in tqdm(folders, desc="runs", disable=None, leave=False):
        exits = stored_exits(folder)
        tested, depth, classes = exits[0]["test"][1].shape
        runs[folder.name] = measured(exits)
        title = f"{folder.name}: {tested:,} test texts, {classes} classes, {depth} layers, {len(exits)} seeds"
        tables.append(f"{title}; points lost at shares of the layers\n{aligned(table(runs[folder.name]))}")
        tables.append(f"{folder.name}\n{aligned(drop_table(exits))}")
    if runs:
        print(aligned(promised_table(runs)), *tables, sep="\n\n")
        check_promise(runs)


if __name__ == "__main__":
    with errors_in_one_line("stopped"):
        main(sys.argv[1:])
