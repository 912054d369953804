"""What the picture of a comparison shows."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.model_selection import ParameterGrid

from skdnn.components import ELU
from skdnn.displays import TechniqueComparisonDisplay
from skdnn.model_selection import technique_effects

GRID = {"mlp__activation": ["relu", ELU()], "mlp__max_norm": [None, 1.0, 2.0]}


@pytest.fixture
def results():
    params = list(ParameterGrid(GRID))
    scores = np.random.default_rng(0).uniform(0.8, 0.9, size=(3, len(params)))
    return {"params": params, **{f"split{f}_test_score": row for f, row in enumerate(scores)}}


def test_init_stores_and_plot_returns_itself(results):
    effects = technique_effects(results)
    display = TechniqueComparisonDisplay(effects=effects)
    assert display.effects is effects
    assert display.plot() is display
    assert display.figure_ is display.ax_.figure


def test_a_row_has_effect_interval_and_dots(results):
    display = TechniqueComparisonDisplay.from_search(results, confidence=0.8)
    effects = {(e.parameter, e.value): e for e in technique_effects(results, confidence=0.8) if not e.is_reference}
    assert display.intervals_.keys() == display.dots_.keys() == effects.keys()
    for key, effect in effects.items():
        point, _, (bar,) = display.intervals_[key].lines
        (row,) = point.get_ydata()
        assert point.get_xdata() == [effect.effect]
        np.testing.assert_allclose(bar.get_segments()[0], [[effect.low, row], [effect.high, row]])
        x, y = display.dots_[key].get_offsets().T
        np.testing.assert_allclose(x, effect.differences.mean(1))
        assert (np.abs(y - row) < 0.5).all()


def test_rows_are_named_without_the_step_of_the_pipeline(results):
    ax = TechniqueComparisonDisplay.from_search(results).ax_
    assert [label.get_text() for label in ax.get_yticklabels()] == ["relu", "ELU()", "None", "1.0", "2.0"]
    shown = [text.get_text() for text in ax.texts]
    assert {"activation", "max_norm"} <= set(shown)
    assert sum("of 3" in text for text in shown) == 1
    assert sum("of 2" in text for text in shown) == 2
    assert "95% interval" in ax.get_xlabel()


def test_names_stay_whole_where_they_share_no_step():
    params = list(ParameterGrid({"scaler__with_std": [False, True], "mlp__batch_norm": [False, True]}))
    results = {"params": params, "split0_test_score": np.arange(4.0)}
    shown = [text.get_text() for text in TechniqueComparisonDisplay.from_search(results).ax_.texts]
    assert {"scaler__with_std", "mlp__batch_norm"} <= set(shown)


def test_effects_of_very_different_size_get_a_scale_for_both():
    params = list(ParameterGrid({"a": [0, 1], "b": [0, 1], "c": [0, 1], "d": [0, 1]}))
    scores = [0.5 * p["a"] + 0.003 * p["b"] + 0.002 * p["c"] + 0.001 * p["d"] for p in params]
    results = {"params": params, "split0_test_score": scores, "split1_test_score": scores}
    assert TechniqueComparisonDisplay.from_search(results).ax_.get_xscale() == "symlog"
    assert TechniqueComparisonDisplay.from_search(results, xscale="linear").ax_.get_xscale() == "linear"


def test_axes_may_be_given(results):
    _, ax = plt.subplots()
    assert TechniqueComparisonDisplay.from_search(results, ax=ax).ax_ is ax
    assert ax.get_xscale() == "linear"


def test_values_without_pairs_and_no_values_at_all_can_be_drawn():
    alone = {"params": [{"a": 0, "b": 0}, {"a": 1, "b": 1}], "split0_test_score": [0.5, 0.6]}
    display = TechniqueComparisonDisplay.from_search(alone)
    assert sum(text.get_text() == "no pairs" for text in display.ax_.texts) == 2
    display.figure_.canvas.draw()
    TechniqueComparisonDisplay.from_search({"params": [{"a": 0}], "split0_test_score": [0.5]}).figure_.canvas.draw()


def test_a_wrong_scale_is_refused(results):
    with pytest.raises(ValueError, match="xscale must be 'auto', 'linear' or 'symlog'"):
        TechniqueComparisonDisplay.from_search(results, xscale="log")
