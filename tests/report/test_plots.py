"""report.plots: PNGs of training curves and of accuracy against cost."""

import matplotlib
import numpy as np
import pytest

from report.plots import by_epoch, figure, over_seeds, plot_curves, plot_tradeoff
from tests.report.records import results


def test_plots_are_pngs(tmp_path):
    models = results(seeds=(0, 1))["models"]
    models[0]["history"][0]["loss"] = None  # a loss that was not finite
    for plot in (plot_curves, plot_tradeoff):
        plot(tmp_path / "plot.png", models)
        assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG") and (tmp_path / "plot.png").stat().st_size > 10_000


def test_the_files_to_take_away_are_in_the_plot(tmp_path):
    files = [{"name": name, "accuracy": 0.7, "parameters": 9_000_000, "latency_ms": {"32": ms}}
             for name, ms in (("model.onnx", 30), ("model.int8.onnx", 15))]
    drawn = []
    for number in (0, 1, 2):
        plot_tradeoff(tmp_path / "plot.png", results()["models"], files[:number])
        drawn.append((tmp_path / "plot.png").read_bytes())
    assert len(set(drawn)) == 3


def test_a_loss_that_is_missing_is_nan():
    records = [{"history": [{"loss": 1.0}, {"loss": None}]}, {"history": [{"loss": 2}]}, {"history": [{"val_accuracy": 0.5}]}]
    np.testing.assert_array_equal(by_epoch(records, "loss"), [[1, np.nan], [2, np.nan], [np.nan, np.nan]])


def test_seeds_that_end_earlier_leave_the_line_of_the_others():
    histories = [{"history": [{"loss": value} for value in values]} for values in ([1.0, 2.0, 3.0], [3.0], [2.0, None])]
    low, mean, high = over_seeds(by_epoch(histories, "loss"))
    assert (low.tolist(), mean.tolist(), high.tolist()) == ([1, 2, 3], [2, 2, 3], [3, 2, 3])
    assert np.isnan(over_seeds(np.full((2, 1), np.nan))).all()


def test_a_figure_leaves_no_settings_behind_and_no_file_if_it_fails(tmp_path):
    before = dict(matplotlib.rcParams)
    with pytest.raises(ZeroDivisionError), figure(tmp_path / "plot.png", 4, 3) as drawn:
        drawn.subplots().set_title("Chinese: 类")
        1 / 0  # noqa: B018
    assert dict(matplotlib.rcParams) == before and not [*tmp_path.iterdir()]
