"""Settings in which a search could easily go astray, and does not: each ends as scikit-learn's does."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import polars
import pytest
import scipy.sparse
import sklearn
import torch
from scipy.stats import loguniform, uniform
from searches import GRID, RANDOM, assert_same_error, assert_same_search, compare, counted, run
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris
from sklearn.decomposition import PCA
from sklearn.ensemble import BaggingClassifier
from sklearn.feature_selection import SelectKBest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_validate
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, StandardScaler

from skdnn import MLPDeepClassifier
from skdnn.components import L2, Adam, LeakyReLU, MaxNorm, Momentum
from skdnn.model_selection import VectorizedGridSearchCV

X, y = load_iris(return_X_y=True)
order = np.random.RandomState(0).permutation(len(X))
X, y = X[order], y[order]
GROUPS = np.arange(len(X)) % 5
WEIGHTS = np.random.RandomState(1).uniform(0.5, 2.0, len(X))
RATES = [0.1, 0.02]
COMMON = {
    "hidden_layer_sizes": (6,),
    "batch_size": 25,
    "max_iter": 3,
    "n_iter_no_change": np.inf,
    "learning_rate_init": 0.05,
    "random_state": 0,
}
SETTINGS = {"cv": 2, "scoring": "neg_log_loss"}


def make(**params):
    return MLPDeepClassifier(**COMMON | params)


def make_pipe(*steps, **params):
    return Pipeline([*steps, ("mlp", make(**params))])


SCALER = ("scaler", StandardScaler())

# An estimator, a grid, and how many networks may be trained alone, the refitted one included.
CASES = {
    "scaling_and_components": (
        make_pipe(("scaler", "passthrough"), ("pca", PCA())),
        {
            "scaler": [StandardScaler(), MinMaxScaler(), "passthrough"],
            "pca__n_components": [2, 3],
            "mlp__learning_rate_init": RATES,
            "mlp__dropout": [0.0, 0.2],
        },
        1,
    ),
    "steps_that_are_dropped": (
        make_pipe(SCALER, ("pca", PCA(2))),
        {"scaler": [None, "passthrough"], "pca": ["passthrough", PCA(3)], "mlp__learning_rate_init": RATES},
        1,
    ),
    "supervised_preprocessing": (
        make_pipe(SCALER, ("select", SelectKBest(k=2))),
        {"select__k": [2, "all"], "mlp__learning_rate_init": RATES},
        1,
    ),
    "a_union_of_preprocessing": (
        make_pipe(("union", FeatureUnion([("pca", PCA(2)), ("scaled", StandardScaler())]))),
        {"union__pca__n_components": [1, 2], "union__transformer_weights": [None, {"pca": 0.5}], "mlp__max_norm": [None, 1.0]},
        1,
    ),
    "columns": (
        make_pipe(("columns", ColumnTransformer([("scaled", StandardScaler(), [0, 1])], remainder="passthrough"))),
        {"columns__remainder": ["drop", "passthrough"], "mlp__learning_rate_init": RATES},
        1,
    ),
    "functions": (
        make_pipe(("log", FunctionTransformer(np.log1p))),
        {"log__func": [np.log1p, np.sqrt, None], "mlp__learning_rate_init": RATES},
        1,
    ),
    "kinds_of_last_steps": (
        make_pipe(SCALER),
        {"mlp": [make(), LogisticRegression(), make(learning_rate_init=0.1), make(activation="tanh")]},
        0,
    ),
    "a_last_step_that_is_none_yet": (
        Pipeline([SCALER, ("mlp", None)]),
        {"mlp": [make(), make(dropout=0.2)], "mlp__learning_rate_init": RATES},
        9,  # what is searched is no network: nothing trains together
    ),
    "layers_and_techniques": (
        make(),
        {
            "hidden_layer_sizes": [(6,), (4, 4), (4, 3, 4)],
            "activation": ["relu", LeakyReLU(0.1)],
            "optimizer": ["momentum", Adam(beta_1=0.8)],
        },
        1,
    ),
    "nested_parameters_of_several_techniques": (
        make(optimizer=Momentum(), regularizer=L2(), max_norm=MaxNorm(), activation=LeakyReLU()),
        {
            "optimizer__momentum": [0.5, 0.9],
            "regularizer__l2": [0.0, 0.1],
            "max_norm__max_value": [0.5, 5.0],
            "activation__alpha": [0.01, 0.3],
        },
        1,
    ),
    "seeds": (make(dropout=0.2), {"random_state": [0, 1, 2**32 - 1], "learning_rate_init": RATES}, 1),
    "generators": (
        make(dropout=0.2),
        {"random_state": [np.random.RandomState(0), np.random.RandomState(1)], "learning_rate_init": RATES},
        1,
    ),
    "numbers_of_numpy": (
        make(),
        {"learning_rate_init": np.logspace(-3, -1, 3), "max_iter": np.arange(1, 3), "dropout": np.array([0.0, 0.2], "float32")},
        1,
    ),
    "numbers_that_are_whole": (make(), {"learning_rate_init": [1, 0.1], "dropout": [0, 0.2], "max_norm": [1, 2.5]}, 1),
    "class_weights_and_stopping": (
        make(early_stopping=True, max_iter=12, validation_fraction=0.2),
        {"class_weight": [None, "balanced", {0: 2.0}], "n_iter_no_change": [1, 2, 6], "tol": [0.0, 0.1]},
        1,
    ),
    "weights_kept_of_the_best_epoch": (
        make(early_stopping=True, max_iter=12, n_iter_no_change=12),
        {"learning_rate_init": [0.5, 0.05], "monitor": ["auto", "loss", "balanced_accuracy"]},
        1,
    ),
    "going_on": (make(warm_start=True), {"learning_rate_init": RATES, "warm_start": [True, False]}, 1),
    "some_print": (make(optimizer="momentum"), {"verbose": [0, 0, 2], "learning_rate_init": RATES}, 5),
    "bagged": (BaggingClassifier(make(), n_estimators=2, random_state=0), {"estimator__learning_rate_init": RATES}, None),
    "calibrated_in_a_pipeline": (
        Pipeline([SCALER, ("calibrated", CalibratedClassifierCV(make(), cv=2))]),
        {"calibrated__estimator__learning_rate_init": RATES, "scaler__with_mean": [True, False]},
        None,
    ),
    "no_parameters": (make(), {}, 3),
    "everything_alike": (make(), {"callbacks": [None, []], "verbose": [False, 0]}, 1),
}


@pytest.mark.parametrize("name", CASES)
def test_as_scikit_learn(name):
    estimator, grid, alone = CASES[name]
    *_, counts = compare(estimator, grid, X, y, **SETTINGS)
    if alone is not None:
        assert counts.alone == alone


# what else goes on ---------------------------------------------------------------------------------------------------------


def test_warnings_about_the_data():
    # A column of targets is warned of by each fit.
    compare(make(), {"learning_rate_init": RATES}, X, y[:, None], **SETTINGS)


def test_a_score_that_trains_the_candidate_further():
    # Candidates that are equal are trained once, but do not learn from each other.
    def score(estimator, X_test, y_test):
        before = estimator.score(X_test, y_test)
        estimator.partial_fit(X_test, y_test)
        return before + estimator.score(X_test, y_test)

    compare(make(), {"max_iter": [3, 3], "learning_rate_init": RATES}, X, y, cv=2, scoring=score)


def test_a_score_that_changes_the_candidate():
    def score(estimator, X_test, y_test):
        before = estimator.score(X_test, y_test)
        estimator.coefs_[0][:] = 0.0
        estimator.loss_curve_.append(1.0)
        return before + len(estimator.loss_curve_)

    compare(make(), {"max_iter": [3, 3], "learning_rate_init": RATES}, X, y, cv=2, scoring=score)


def test_two_threads_search_at_once():
    expected = [run(GRID[1], make(), {"learning_rate_init": RATES}, rows, y, **SETTINGS)[0] for rows in (X, -X)]
    with ThreadPoolExecutor(2) as pool:
        found = list(
            pool.map(
                lambda rows: VectorizedGridSearchCV(make(), {"learning_rate_init": RATES}, **SETTINGS).fit(rows, y), (X, -X)
            )
        )
    for mine, theirs in zip(found, expected, strict=True):
        assert_same_search(mine, theirs, X)


def test_a_search_of_ones_own():
    def own(cls):
        class Search(cls):
            """Looks around the best of a coarse grid."""

            def _run_search(self, evaluate):
                results = evaluate([{"learning_rate_init": rate} for rate in (0.1, 0.01)])
                best = results["params"][np.argmax(results["mean_test_score"])]["learning_rate_init"]
                evaluate([{"learning_rate_init": best * factor} for factor in (0.5, 2.0)])

        return Search(make(), {}, **SETTINGS).fit(X, y)

    with counted():
        ours = own(GRID[0])
    assert_same_search(ours, own(GRID[1]), X)


def test_a_random_search_of_a_pipeline_with_groups_and_weights():
    distributions = {
        "mlp__learning_rate_init": loguniform(1e-3, 1e-1),
        "mlp__dropout": uniform(0.0, 0.4),
        "pca__n_components": [2, 3, None],
    }
    given = {"groups": GROUPS, "mlp__sample_weight": WEIGHTS}
    settings = SETTINGS | {"cv": GroupKFold(3), "n_iter": 8, "random_state": 0, "return_train_score": True}
    compare(make_pipe(SCALER, ("pca", PCA())), distributions, X, y, given, classes=RANDOM, **settings)


def test_rows_of_weight_zero():
    weights = np.where(np.arange(len(X)) % 3 == 0, 0.0, WEIGHTS)
    compare(make(), {"learning_rate_init": RATES, "batch_norm": [True, False]}, X, y, {"sample_weight": weights}, **SETTINGS)
    assert_same_error(make(), {"learning_rate_init": RATES}, X, y, {"sample_weight": np.zeros(len(X))}, **SETTINGS)


CONTEXTS = {
    "no_gradients": torch.no_grad,
    "inference": torch.inference_mode,
    "frames_between_steps": lambda: sklearn.config_context(transform_output="pandas"),
    "finite_is_assumed": lambda: sklearn.config_context(assume_finite=True),
    "parameters_are_not_checked": lambda: sklearn.config_context(skip_parameter_validation=True),
    "deterministic": lambda: torch.random.fork_rng(),
}


@pytest.mark.parametrize("name", CONTEXTS)
def test_in_a_context(name):
    frame = pd.DataFrame(X, columns=list("abcd"))
    grid = {"mlp__learning_rate_init": [0.1, 0.02, -1.0], "scaler__with_mean": [True, False]}
    with CONTEXTS[name]():
        compare(make_pipe(SCALER), grid, frame, y, **SETTINGS)


INPUTS = {
    "integers": (np.round(X * 10).astype(int), y),
    "single": (X.astype("float32"), y),
    "objects": (X.astype(object), y.astype(str).astype(object)),
    "frame_of_several_dtypes": (pd.DataFrame({"a": X[:, 0].astype("float32"), "b": (X[:, 1] * 10).astype(int)}), pd.Series(y)),
    "categories": (X, pd.Series(y).map({0: "rose", 1: "lily", 2: "iris"}).astype("category")),
    "polars": (polars.DataFrame(X, schema=list("abcd")), y),
    "sparse": (scipy.sparse.csr_array(np.where(X > 3.0, X, 0.0)), y),
    "strided": (np.repeat(X, 2, axis=1)[:, ::2], y[::-1]),
    "two_classes": (X, y == 1),
    "negative_classes": (X, y - 5),
}


@pytest.mark.parametrize("name", INPUTS)
def test_input(name):
    grid = {"learning_rate_init": RATES, "early_stopping": [True, False]}
    compare(make(), grid, *INPUTS[name], tolerance=1e-6 if name == "single" else 1e-9, **SETTINGS)


@pytest.mark.slow
def test_cross_validation_in_processes():
    scores = [
        cross_validate(cls(make_pipe(SCALER), {"mlp__learning_rate_init": RATES}, cv=2), X, y, cv=2, n_jobs=2)["test_score"]
        for cls in GRID
    ]
    np.testing.assert_array_equal(*scores)


@pytest.mark.slow
def test_jobs_change_nothing():
    grid = CASES["scaling_and_components"][1]
    one, two = (
        VectorizedGridSearchCV(CASES["scaling_and_components"][0], grid, n_jobs=n_jobs, **SETTINGS).fit(X, y)
        for n_jobs in (1, 2)
    )
    assert_same_search(two, one, X)


def test_a_fitted_search_after_a_trip():
    ours, theirs, _ = compare(make_pipe(SCALER), {"mlp__learning_rate_init": RATES}, X, y, **SETTINGS)
    again = pickle.loads(pickle.dumps(ours))
    assert_same_search(again, theirs, X)
    np.testing.assert_array_equal(again.predict_proba(X), theirs.predict_proba(X))
    assert_same_search(clone(again).fit(X, y), theirs, X)
