"""The plot of progressive module replacing."""

import numpy as np

from common.report.plots import by_epoch, figure
from common.report.tables import by_name


def plot_replacing(path, records, mixed):
    """The replacing rate p by epoch, and below it what the successor by itself reaches on the validation part.

    path: of the PNG
    records: of successors, with their histories
    mixed: names of those that learned inside the predecessor; the others' lines are dashed
    """
    with figure(path, 7, 5.4) as drawn:
        rate, accuracy = drawn.subplots(2, 1, sharex=True, height_ratios=(1, 2))
        for name, group in by_name(records):
            values, rates = 100 * by_epoch(group, "val_accuracy").mean(axis=0), by_epoch(group, "replacing_rate")[0]
            epochs = np.arange(1, len(values) + 1)
            style = "-" if name in mixed else "--"
            line = accuracy.plot(epochs, values, marker="o", markersize=3, label=name, ls=style)[0]
            rate.plot(epochs, rates, marker="o", markersize=3, color=line.get_color())
        rate.set(ylabel="replacing rate p", ylim=(0, 1.05))
        accuracy.set(ylabel="validation accuracy, %", xlabel="epoch")
        accuracy.xaxis.get_major_locator().set_params(integer=True)
        accuracy.legend()
