"""A search's bar: it ends where it was to end, counts what need not be trained, and goes on while networks train."""

import joblib
import numpy as np
import pytest
import torch
import tqdm.auto
from searches import run
from sklearn.datasets import load_iris
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdnn import MLPDeepClassifier
from skdnn.model_selection import VectorizedGridSearchCV, _candidates
from skdnn.model_selection._progress import Progress, ProgressBar

X, Y = load_iris(return_X_y=True)
RATES = [0.05, 0.01]


def make(**params):
    return MLPDeepClassifier(
        **{"hidden_layer_sizes": (6,), "max_iter": 5, "n_iter_no_change": np.inf, "random_state": 0} | params
    )


class Bar:
    """Keeps what tqdm is told."""

    def __init__(self, total, unit):
        assert unit == "epoch"
        self.total, self.n, self.seen, self.is_closed = total, 0, [], False
        Bar.made.append(self)

    def update(self, n):
        assert n >= 0
        self.n += n
        if n:
            self.seen.append(self.n)

    def close(self):
        self.is_closed = True


@pytest.fixture
def bars(monkeypatch):
    Bar.made = []
    monkeypatch.setattr(tqdm.auto, "tqdm", Bar)
    return Bar.made


def search(estimator, grid, **settings):
    """Fit a search of two folds that shows its progress; return it or its error."""
    return run(VectorizedGridSearchCV, estimator, grid, X, Y, **{"cv": 2, "progress": True} | settings)[0]


CASES = {
    "one_group": (make(), {"learning_rate_init": RATES}, [2, 4, 6, 8, 10, 12, 14, 16, 18, 20]),
    "two_groups": (
        make(max_iter=2),
        {"hidden_layer_sizes": [(6,), (4,)], "learning_rate_init": RATES},
        [2, 4, 6, 8, 10, 12, 14, 16],
    ),
    "epochs": (make(), {"max_iter": [1, 3]}, [2, 3, 4, 6, 7, 8]),
    "fitted_alone": (make(max_iter=3), {"optimizer": [torch.optim.RAdam, torch.optim.SGD]}, [3, 6, 9, 12]),
    "alone_and_together": (make(max_iter=2), {"optimizer": ["sgd", "sgd", torch.optim.SGD]}, None),
    "callbacks": (make(max_iter=3), {"callbacks": [None, []], "verbose": [0, 2]}, None),
    "wrong": (make(max_iter=3), {"learning_rate_init": [0.1, -1.0]}, None),
    "wrong_epochs": (make(max_iter=3), {"max_iter": [2, "many"]}, None),
    "pipeline": (
        make_pipeline(StandardScaler(), make(max_iter=2)),
        {"standardscaler__with_mean": [True, False], "mlpdeepclassifier__dropout": [0.0, 0.2]},
        [2, 4, 6, 8, 10, 12, 14, 16],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_bar_ends_where_it_was_to_end(name, bars, capsys):
    estimator, grid, positions = CASES[name]
    search(estimator, grid)
    (bar,) = bars
    assert bar.is_closed
    assert bar.n == bar.total
    assert bar.seen == sorted(bar.seen)
    assert len(bar.seen) >= 2
    if positions is not None:
        assert bar.seen == positions


def test_epochs_of_networks_that_stop_early_count_when_they_stop(bars):
    clf = make(max_iter=30, early_stopping=True, batch_size=20)
    grid = {"n_iter_no_change": [1, np.inf]}
    fitted = search(clf, grid, refit=False, scoring=lambda estimator, X, y: estimator.n_iter_)
    n_epochs = [int(fitted.cv_results_[f"split{k}_test_score"][0]) for k in range(2)]
    assert max(n_epochs) < 30
    (bar,) = bars
    # At the end of its last epoch a network counts 30, and the other one more epoch.
    expected = [[*range(2, 2 * n, 2), *range(30 + n, 61)] for n in n_epochs]
    assert bar.seen == [*expected[0], *(60 + position for position in expected[1])]


def test_what_is_kept_counts_at_once(bars, tmp_path):
    grid = {"learning_rate_init": RATES}
    for _ in range(2):
        search(make(), grid, resume_from=tmp_path)
    search(make(), {"learning_rate_init": [*RATES, 0.02]}, resume_from=tmp_path)
    assert bars[0].seen == list(range(2, 21, 2))
    assert bars[1].seen == [10, 20]
    assert bars[2].seen == [10, 11, 12, 13, 14, 15, 25, 26, 27, 28, 29, 30]


def test_tasks_count_when_they_are_over(bars):
    with joblib.parallel_config(backend="threading"):
        search(make(), {"learning_rate_init": [0.1, 0.05, 0.02, 0.01]}, n_jobs=2)
    (bar,) = bars
    assert (bar.seen, bar.total) == ([20, 40], 40)


def test_an_interrupt_closes_the_bar(bars, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(_candidates, "train_in_lockstep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        search(make(), {"learning_rate_init": RATES})
    (bar,) = bars
    assert (bar.is_closed, bar.n) == (True, 0)


def test_the_bar_is_tqdms_and_only_where_it_is_asked_for(capsys):
    search(make(), {"learning_rate_init": RATES}, progress=False)
    assert capsys.readouterr().err == ""
    search(make(), {"learning_rate_init": RATES})
    assert "20/20" in capsys.readouterr().err


def test_what_shows_nothing_takes_what_a_bar_takes():
    for name in ("advance", "fit_begins"):
        getattr(Progress(), name)(3)
    assert Progress().follow([])(()) is None
    assert {name for name in vars(ProgressBar) if name[0] != "_"} <= set(vars(Progress))


@pytest.mark.parametrize("value", [1.5, "yes", None])
def test_other_values_are_refused(value):
    assert "The 'progress' parameter" in str(search(make(), {"learning_rate_init": RATES}, progress=value))
