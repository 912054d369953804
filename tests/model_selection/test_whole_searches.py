"""Searches as users run them, over real digits: ranks, best parameters and scores are those of scikit-learn's search."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import loguniform, uniform
from searches import compare
from sklearn.datasets import load_digits
from sklearn.model_selection import ParameterSampler, StratifiedKFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from skdnn import MLPDeepClassifier
from skdnn.components import L1L2, Nesterov

N_CANDIDATES, N_FOLDS = 24, 3
NUMBERS = {
    "mlp__learning_rate_init": loguniform(1e-3, 1e-1),
    "mlp__initializer": ["glorot_uniform", "he_normal", "lecun_uniform", "orthogonal"],
    "mlp__regularizer__l1": loguniform(1e-6, 1e-3),
    "mlp__regularizer__l2": loguniform(1e-5, 1e-2),
    "mlp__max_norm": [None, 1.0, 2.0, 4.0],
    "mlp__dropout": uniform(0.0, 0.5),
}
ACTIVATIONS = {"mlp__activation": ["relu", "tanh", "elu"]}
KINDS = {
    "numbers": NUMBERS | {"mlp__optimizer__momentum": uniform(0.5, 0.45)},
    # Rates that suit each: at 0.03 and more, RMSProp makes a loss of 1 of a rounding error of 1e-16.
    "techniques": [
        NUMBERS | ACTIVATIONS,
        NUMBERS | ACTIVATIONS | {"mlp__optimizer": ["adam", "rmsprop"], "mlp__learning_rate_init": loguniform(1e-4, 1e-2)},
    ],
}
DTYPES = ["float64", "float32"]


def compare_on(X, y, kind, dtype, **params):
    """Run both searches over the candidates of a kind, and hold one against the other."""
    estimator = MLPDeepClassifier(
        regularizer=L1L2(), optimizer=Nesterov(), n_iter_no_change=np.inf, random_state=0, dtype=dtype, **params
    )
    candidates = ParameterSampler(KINDS[kind], N_CANDIDATES, random_state=0)
    *_, counts = compare(
        Pipeline([("scaler", StandardScaler()), ("mlp", estimator)]),
        [{name: [value] for name, value in candidate.items()} for candidate in candidates],
        X.astype(dtype),
        y,
        cv=StratifiedKFold(N_FOLDS),
        tolerance=1e-6 if dtype == "float64" else 1.0 / (len(X) // N_FOLDS) + 1e-12,
    )
    assert sum(counts.populations) > N_CANDIDATES * N_FOLDS / 2


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_some_epochs_on_some_digits(kind, dtype):
    X, y = load_digits(return_X_y=True)
    compare_on(X[::3], y[::3], kind, dtype, hidden_layer_sizes=(16,), max_iter=2)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_digits(kind, dtype):
    compare_on(*load_digits(return_X_y=True), kind, dtype, hidden_layer_sizes=(64,), batch_size=32, max_iter=20)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_subset_of_mnist(kind, dtype, mnist):
    compare_on(*mnist, kind, dtype, hidden_layer_sizes=(64,), max_iter=5)


@pytest.fixture(scope="module")
def mnist():
    """10,000 rows, as the examples load them."""
    path = Path(__file__).parents[2] / "examples" / "_mnist.py"
    spec = importlib.util.spec_from_file_location("_mnist", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    try:
        data = module.load_mnist()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    return data.X_train[:10_000], data.y_train[:10_000]
