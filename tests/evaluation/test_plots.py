import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from evaluation import plots
from evaluation.protocols import evaluate


def drawn(figure):
    """(H, W, 3): the figure as pixels."""
    return np.asarray(Image.open(io.BytesIO(plots.png(figure))).convert("RGB"))


@pytest.mark.parametrize("theme", [plots.LIGHT, plots.DARK])
def test_the_scatter_shows_points_fit_and_numbers(answers, theme):
    figure = plots.scatter(answers, "quality", theme, bars=True)
    axes = figure.axes[0]
    metrics = evaluate(answers)["quality"]
    detail = next(t.get_text() for t in axes.texts if "SRCC" in t.get_text())
    assert f"SRCC {metrics['srcc']:.3f}" in detail
    assert f"PLCC {metrics['plcc']:.3f}" in detail
    legend = [t.get_text() for t in figure.legends[0].get_texts()]
    assert legend == ["blur", "compression", "noise", "clean", "logistic fit"]
    assert sum(len(c.get_offsets()) for c in axes.collections if c.get_label() in legend) == 47
    pixels = drawn(figure)
    assert pixels.shape[:2] == (1100, 1040)
    assert pixels[0, 0].tolist() == [int(theme.surface[i : i + 2], 16) for i in (1, 3, 5)]


def test_no_fit_is_drawn_where_there_is_none(answers):
    figure = plots.scatter(answers[:8], "quality")
    assert "logistic fit" not in [t.get_text() for t in figure.legends[0].get_texts()]


def test_a_type_keeps_its_colour_and_no_hue_is_used_twice():
    names = [f"type-{i:02}" for i in range(10)]
    colours = plots.colours([*names, "clean"], plots.LIGHT)
    assert len({colours[n] for n in names[:7]}) == 7
    assert {colours[n] for n in names[7:]} == {plots.LIGHT.faint}
    assert colours["clean"] == plots.LIGHT.neutral


def test_the_confusion_matrix_shows_shares_of_rows_and_counts():
    figure = plots.confusion_matrix([[3, 1, 0], [0, 2, 0], [0, 0, 0]], ["blur", "noise", "unparsed"], "Types")
    axes = figure.axes[0]
    texts = {t.get_text() for t in axes.texts}
    assert {"75%", "3", "25%", "1", "100%", "2"} <= texts
    assert [t.get_text() for t in axes.get_yticklabels()] == ["blur", "noise"]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["blur", "noise", "unparsed"]
    with pytest.raises(ValueError, match="is empty"):
        plots.confusion_matrix([], [], "Types")


def test_the_control_stands_beside_the_model(answers):
    figure = plots.control_bars(evaluate(answers))
    metrics = evaluate(answers)
    texts = [t.get_text() for t in figure.axes[0].texts]
    assert f"{metrics['quality']['srcc']:.3f}" in texts
    assert "none" in texts  # the control of importance is constant


def test_calibration_bins_hold_equally_many_regions(answers):
    table = answers.assign(importance_std=np.linspace(0.1, 0.3, len(answers)), importance_pred=answers["importance"] + 0.2)
    figure = plots.calibration(table, "importance", bins=4)
    line = next(x for x in figure.axes[0].lines if len(x.get_xdata()) == 4)
    assert np.all(np.diff(line.get_xdata()) > 0)
    assert line.get_ydata() == pytest.approx([0.2] * 4)
    with pytest.raises(ValueError, match="no uncertainty to calibrate"):
        plots.calibration(answers, "importance")


def test_curves_show_only_what_exists(tmp_path):
    csv = tmp_path / "metrics.csv"
    columns = {"step": [0, 1, 2], "epoch": 0, "train/loss": [3, 2, 1], "val/loss": [np.nan, np.nan, 2], "lr-AdamW": np.nan}
    pd.DataFrame(columns).to_csv(csv)
    figure = plots.learning_curves(csv)
    assert [a.get_title("left") for a in figure.axes] == ["Loss"]
    assert [t.get_text() for t in figure.axes[0].get_legend().get_texts()] == ["train/loss", "val/loss"]


def test_long_noisy_losses_are_smoothed_and_decades_are_logarithmic(tmp_path):
    csv = tmp_path / "metrics.csv"
    step = np.arange(500)
    pd.DataFrame({"step": step, "train/loss": np.exp(-step / 80), "val/srcc": step / 500, "lr-AdamW": 1e-4}).to_csv(csv)
    figure = plots.learning_curves(csv)
    assert [a.get_title("left") for a in figure.axes] == ["Loss", "Correlation", "Learning rate"]
    assert figure.axes[0].get_yscale() == "log"
    assert [len(a.lines) for a in figure.axes] == [2, 1, 1]


def test_a_csv_without_curves_is_refused(tmp_path):
    csv = tmp_path / "metrics.csv"
    csv.write_text("step,other\n1,2\n")
    with pytest.raises(ValueError, match="expected `step` and at least one loss"):
        plots.learning_curves(csv)


def test_the_lighter_picture_is_the_same_picture():
    drawn = plots.png(plots.confusion_matrix([[3, 1], [0, 2]], ["blur", "noise"], "Types"))
    light = plots.webp(drawn)
    assert len(light) < 0.7 * len(drawn)
    assert np.array_equal(*(np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in (light, drawn)))
