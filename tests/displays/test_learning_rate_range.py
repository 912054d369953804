"""What the picture of a range test shows."""

import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdnn import MLPDeepClassifier
from skdnn.displays import LearningRateRangeDisplay
from skdnn.model_selection import learning_rate_range_test

RATES = np.array([1e-3, 1e-2, 1e-1, 1.0, 10.0])
LOSSES = np.array([2.0, 1.5, 0.5, 400.0, np.inf])


def texts(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_init_stores_and_plot_returns_itself():
    display = LearningRateRangeDisplay(learning_rates=RATES, losses=LOSSES, best_learning_rate=0.1, estimator_name="net")
    assert display.losses is LOSSES
    assert not hasattr(display, "ax_")
    assert display.plot() is display
    assert display.figure_ is display.ax_.figure
    assert display.ax_.get_xscale() == "log"


def test_losses_are_drawn_and_those_far_off_are_marked():
    display = LearningRateRangeDisplay(learning_rates=RATES, losses=LOSSES, best_learning_rate=0.1).plot()
    np.testing.assert_array_equal(display.line_.get_xdata(), RATES)
    np.testing.assert_array_equal(display.line_.get_ydata(), [2.0, 1.5, 0.5, np.nan, np.nan])
    np.testing.assert_array_equal(display.diverged_.get_xdata(), [1.0, 10.0])
    low, high = display.ax_.get_ylim()
    assert low < 0.5
    assert 2.0 < high < 4.0
    assert display.best_line_.get_xdata()[0] == 0.1
    assert texts(display.ax_) == ["loss", "diverged, or far off", "suggested: 0.1"]


@pytest.mark.parametrize(
    "losses",
    [[1.0, 1.0, 1.0], [0.0, 0.0, 0.0], [1.0, 2.0, 3.0], [np.inf] * 3, [-3.0, -2.0, np.nan], [np.nan, -3.0, -1.0]],
    ids=str,
)
def test_any_losses_can_be_drawn(losses):
    display = LearningRateRangeDisplay(learning_rates=RATES[:3], losses=np.array(losses), best_learning_rate=np.nan).plot()
    display.figure_.canvas.draw()
    low, high = display.ax_.get_ylim()
    assert np.isfinite([low, high]).all()
    assert low < high
    assert display.best_line_ is None
    assert np.nanmin([*losses, np.inf]) >= low


def test_axes_and_style_may_be_given():
    _, ax = plt.subplots()
    display = LearningRateRangeDisplay(learning_rates=RATES, losses=LOSSES).plot(ax, name="mine", color="red", linestyle=":")
    assert display.ax_ is ax
    assert display.line_.get_color() == "red"
    assert display.line_.get_linestyle() == ":"
    assert texts(ax)[0] == "mine"


def test_from_estimator_draws_the_test():
    X, y = load_iris(return_X_y=True)
    clf = make_pipeline(StandardScaler(), MLPDeepClassifier((5,), batch_size=30, random_state=0))
    display = LearningRateRangeDisplay.from_estimator(clf, X, y, learning_rates=RATES[:3], max_iter=2)
    result = learning_rate_range_test(clf, X, y, learning_rates=RATES[:3], max_iter=2)
    np.testing.assert_array_equal(display.losses, result.losses)
    assert display.best_learning_rate == result.best_learning_rate
    assert texts(display.ax_)[0] == "MLPDeepClassifier"
    again = LearningRateRangeDisplay.from_result(result, name="again")
    np.testing.assert_array_equal(again.line_.get_ydata(), display.line_.get_ydata())
    assert again.figure_ is not display.figure_


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"LearningRateRangeDisplay.plot needs matplotlib.*skdnn\[plot\]"):
        LearningRateRangeDisplay(learning_rates=RATES, losses=LOSSES).plot()
