"""dtype in the grid of a search: networks whose products are rounded train together, apart from the others."""

import numpy as np
import pytest
import torch
from searches import counted
from sklearn.datasets import load_digits
from sklearn.exceptions import FitFailedWarning
from sklearn.model_selection import GridSearchCV

from skdnn import MLPDeepClassifier
from skdnn.engine import rounded
from skdnn.model_selection import VectorizedGridSearchCV

X, Y = load_digits(return_X_y=True)
X, Y = X[:300] / 16, Y[:300]
GRID = {"dtype": ["float32", "bfloat16"], "learning_rate_init": [1e-3, 1e-2]}


@pytest.fixture(autouse=True)
def cpu_has_it(monkeypatch):
    """Makes networks that are small enough to train together round all of their products, too."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    monkeypatch.setattr(rounded, "_PRODUCTS_THAT_PAY", 1)
    monkeypatch.setattr(rounded, "_ROWS_THAT_PAY", 1)


@pytest.mark.parametrize("params", [{}, {"batch_norm": True, "dropout": 0.2, "early_stopping": True}], ids=["plain", "rich"])
def test_candidates_are_what_they_are_alone(params):
    clf = MLPDeepClassifier((16,), batch_size=32, max_iter=4, n_iter_no_change=4, random_state=0, device="cpu", **params)
    with counted() as trained:
        together = VectorizedGridSearchCV(clf, GRID, cv=2).fit(X, Y)
    assert (trained.populations, trained.alone) == ([2, 2] * 2, 1)
    one_by_one = GridSearchCV(clf, GRID, cv=2).fit(X, Y)
    for name in ("split0_test_score", "split1_test_score"):
        np.testing.assert_array_equal(together.cv_results_[name], one_by_one.cv_results_[name])
    for kernel, expected in zip(together.best_estimator_.coefs_, one_by_one.best_estimator_.coefs_, strict=True):
        np.testing.assert_array_equal(kernel, expected)


def test_what_is_refused_is_an_error_of_its_own_candidates(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    clf = MLPDeepClassifier((16,), max_iter=2, n_iter_no_change=2, random_state=0, device="cpu")
    search = VectorizedGridSearchCV(clf, GRID, cv=2)
    refused = pytest.warns(FitFailedWarning, match="dtype='bfloat16' needs a CPU")
    with refused, pytest.warns(UserWarning, match="scores are non-finite"):
        search.fit(X, Y)
    failed = np.isnan(search.cv_results_["mean_test_score"])
    assert failed.tolist() == [dtype == "bfloat16" for dtype in search.cv_results_["param_dtype"]]
