import math

import numpy as np
import pytest
from sklearn.neural_network import MLPClassifier

from skdnn.training.stopping import ProgressMonitor

SEQUENCES = {
    "falling": [1.0, 0.8, 0.6, 0.5, 0.45],
    "rising": [0.1, 0.3, 0.5, 0.6, 0.65],
    "flat": [0.5] * 8,
    "slow": [1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7],
    "with_a_gap": [1.0, 1.2, 1.1, 0.5, 0.6, 0.7, 0.8, 0.9],
    "negative": [-3.0, -2.0, -2.5, -1.0, -4.0, -4.0, -4.0, -0.5],
    "from_zero": [0.0, 0.0, -1.0, 0.0, 1.0],
}


def follow_with_scikit_learn(values, tol, patience, greater_is_better):
    """The epoch at which `MLPClassifier` stops, and its best value, by its own method."""
    model = MLPClassifier(tol=tol, n_iter_no_change=patience, early_stopping=greater_is_better)
    model._no_improvement_count = 0
    model.loss_curve_, model.best_loss_ = [], np.inf
    model.validation_scores_, model.best_validation_score_ = [], -np.inf
    model._score_with_function = lambda *args, **kwargs: score
    model.coefs_ = model.intercepts_ = []
    model._score = lambda *args, **kwargs: score
    for score in values:
        model.loss_curve_.append(score)
        model._update_no_improvement_count(greater_is_better, None, None, None)
        if model._no_improvement_count > patience:
            break
    return len(model.loss_curve_), model.best_validation_score_ if greater_is_better else model.best_loss_


def follow(values, monitor):
    for epoch, value in enumerate(values, 1):
        monitor.record(value, epoch)
        if monitor.has_stalled:
            break
    return epoch


@pytest.mark.parametrize("greater_is_better", [False, True], ids=["loss", "score"])
@pytest.mark.parametrize("patience", [1, 2, 4])
@pytest.mark.parametrize("tol", [0.0, 0.0625, 0.25])  # exact in binary: both rules round alike
@pytest.mark.parametrize("values", SEQUENCES.values(), ids=SEQUENCES)
def test_stops_where_mlp_classifier_stops(values, tol, patience, greater_is_better):
    monitor = ProgressMonitor(tol, patience, greater_is_better)
    epoch = follow(values, monitor)
    assert (epoch, monitor.best_value) == follow_with_scikit_learn(values, tol, patience, greater_is_better)
    seen = values[:epoch]
    best = max(seen) if greater_is_better else min(seen)
    assert monitor.best_epoch == 1 + seen.index(best)


def test_record_says_whether_the_epoch_is_the_best():
    monitor = ProgressMonitor(0.5, 10, greater_is_better=True)
    # Better by less than tol is still the best; as good as the best is not.
    assert [monitor.record(value, epoch) for epoch, value in enumerate([-2.0, -2.0, -1.9, -3.0, 0.0], 1)] == [
        True,
        False,
        True,
        False,
        True,
    ]


def test_tol_of_zero_counts_an_equal_value_as_progress():
    monitor = ProgressMonitor(0.0, 1, greater_is_better=False)
    assert follow([1.0] * 50, monitor) == 50
    assert monitor.best_epoch == 1


def test_infinite_patience_never_stalls():
    monitor = ProgressMonitor(1e-4, math.inf, greater_is_better=False)
    assert follow([1.0] * 1000, monitor) == 1000


def test_patience_starts_anew():
    monitor = ProgressMonitor(1e-4, 2, greater_is_better=False)
    assert follow([1.0] * 10, monitor) == 4
    monitor.be_patient_again()
    assert not monitor.has_stalled
    assert follow([1.0] * 10, monitor) == 3
    assert monitor.best_epoch == 1


def test_nothing_recorded():
    monitor = ProgressMonitor(1e-4, 2, greater_is_better=True)
    assert (monitor.best_epoch, monitor.best_value, monitor.has_stalled) == (0, -math.inf, False)


def test_a_value_that_is_not_a_number_is_no_progress():
    monitor = ProgressMonitor(1e-4, 1, greater_is_better=False)
    monitor.record(1.0, 1)
    assert follow([math.nan] * 5, monitor) == 2
    assert monitor.best_value == 1.0
