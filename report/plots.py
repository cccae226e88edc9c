"""Plots made from records: training curves, accuracy against cost, and what progressive module replacing did."""

import contextlib
import warnings
from itertools import cycle, zip_longest

import matplotlib
import numpy as np
from matplotlib import font_manager
from matplotlib.figure import Figure

from common.files import write_atomic
from report.tables import by_name

MARKERS = "os^DvPX*"
# Class names may be Chinese: a font that has the characters, where there is one; boxes without a word otherwise.
CHINESE = ("Noto Sans CJK SC", "Source Han Sans SC", "Microsoft YaHei", "SimHei", "PingFang SC", "WenQuanYi Zen Hei")


@contextlib.contextmanager
def figure(path, width, height):
    """A block that draws a figure of so many inches, which is then written to `path` as PNG."""
    fonts = ["DejaVu Sans", *(set(CHINESE) & set(font_manager.get_font_names()))]
    style = {"font.family": fonts, "axes.grid": True, "grid.alpha": 0.3, "legend.fontsize": 8}
    with matplotlib.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        drawn = Figure(figsize=(width, height), layout="constrained")
        yield drawn
        write_atomic(path, lambda file: drawn.savefig(file, format="png", dpi=130))


def by_epoch(records, key):
    """A figure out of the records' histories: (records, epochs) float, NaN where there is none, as after one that diverged."""
    histories = [[epoch.get(key) for epoch in record["history"]] for record in records]
    return np.array([*zip_longest(*histories)], float).T


def over_seeds(values):
    """(lowest, mean, highest) of each epoch over those of the seeds that have it; NaN where none has. values: of `by_epoch`"""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="All-NaN|Mean of empty", category=RuntimeWarning)
        return np.nanmin(values, axis=0), np.nanmean(values, axis=0), np.nanmax(values, axis=0)


def plot_curves(path, records):
    """Training loss and validation accuracy against the epoch: a line per model, the mean over seeds, and their range.

    Seeds may end at different epochs: what is drawn is of those that have come there.
    """
    with figure(path, 10, 3.6) as drawn:
        panels = drawn.subplots(1, 2)
        for panel, key, title, scale in zip(
            panels, ("loss", "val_accuracy"), ("training loss", "validation accuracy, %"), (1, 100), strict=True
        ):
            for (name, group), marker in zip(by_name(records), cycle(MARKERS), strict=False):
                values = scale * by_epoch(group, key)
                epochs = np.arange(1, values.shape[1] + 1)
                low, mean, high = over_seeds(values)
                panel.plot(epochs, mean, marker=marker, markersize=4, label=name)
                panel.fill_between(epochs, low, high, alpha=0.15, linewidth=0)
            panel.set(xlabel="epoch", title=title)
            panel.xaxis.get_major_locator().set_params(integer=True)
        panels[0].set_yscale("log")
        drawn.legend(*panels[1].get_legend_handles_labels(), loc="outside right upper")


def plot_tradeoff(path, records, files=()):
    """Test accuracy against latency at batch 32 and against the number of parameters; bars are the seeds' range.

    Models of the same cost stand side by side, a little apart.

    path: of the PNG
    records: of models, over the seeds
    files: of the student to take away, as `tables.student_table` takes them; hollow, joined by a line
    """
    with figure(path, 10, 3.6) as drawn:
        panels = drawn.subplots(1, 2, sharey=True)
        groups = by_name(records)
        costs = np.array([(group[0]["latency_ms"]["32"], group[0]["parameters"] / 1e6) for _, group in groups])
        for place, ((name, group), marker) in enumerate(zip(groups, cycle(MARKERS), strict=False)):
            accuracy = 100 * np.array([record["accuracy"] for record in group])
            reach = [[accuracy.mean() - accuracy.min()], [accuracy.max() - accuracy.mean()]]
            for panel, x in zip(panels, costs.T, strict=True):
                apart = 0.02 * x.max() * (x[:place] == x[place]).sum()
                panel.errorbar(
                    x[place] + apart, accuracy.mean(), reach, marker=marker, linestyle="none", capsize=3, label=name
                )
        accuracies = [100 * file["accuracy"] for file in files]
        of_files = [file["latency_ms"]["32"] for file in files], [file["parameters"] / 1e6 for file in files]
        for panel, x in zip(panels, of_files, strict=True):
            panel.plot(x, accuracies, "k:", linewidth=1)
            for place, file in enumerate(files):
                panel.plot(x[place], accuracies[place], "o*"[place], color="k", markerfacecolor="none", markersize=9,
                           label=f"student/{file['name']}")
        panels[0].set(xlabel="latency of 32 together, ms", ylabel="test accuracy, %")
        panels[1].set(xlabel="parameters, millions")
        for panel in panels:
            panel.set_xlim(0, 1.15 * panel.get_xlim()[1])
            panel.margins(y=0.1)
        drawn.legend(*panels[1].get_legend_handles_labels(), loc="outside right upper")


def plot_replacing(path, records, mixed):
    """The replacing rate p by epoch, and below it what the successor by itself reaches on the validation part.

    path: of the PNG
    records: of successors, with their histories
    mixed: names of those that learned inside the predecessor; the others' lines are dashed
    """
    with figure(path, 7, 5.4) as drawn:
        rate, accuracy = drawn.subplots(2, 1, sharex=True, height_ratios=(1, 2))
        for name, group in by_name(records):
            _, values, _ = over_seeds(100 * by_epoch(group, "val_accuracy"))
            _, rates, _ = over_seeds(by_epoch(group, "replacing_rate"))
            epochs = np.arange(1, len(values) + 1)
            style = "-" if name in mixed else "--"
            line = accuracy.plot(epochs, values, marker="o", markersize=3, label=name, ls=style)[0]
            rate.plot(epochs, rates, marker="o", markersize=3, color=line.get_color())
        rate.set(ylabel="replacing rate p", ylim=(0, 1.05))
        accuracy.set(ylabel="validation accuracy, %", xlabel="epoch")
        accuracy.xaxis.get_major_locator().set_params(integer=True)
        accuracy.legend()
