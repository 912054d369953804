"""A search that trains candidates together ends with what scikit-learn's own search ends with."""

import inspect
import pickle
import re
import unittest
import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import sklearn
import torch
from scipy.stats import loguniform
from searches import GRID, RANDOM, assert_same_error, assert_same_search, compare, counted, own_parameters, run, run_both
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.callback import ScoringMonitor
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.datasets import load_diabetes, load_iris
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning, FitFailedWarning, NotFittedError
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, make_scorer
from sklearn.model_selection import (
    GroupKFold,
    KFold,
    ParameterGrid,
    PredefinedSplit,
    ShuffleSplit,
    StratifiedKFold,
    cross_val_score,
    cross_validate,
)
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.utils import estimator_html_repr
from sklearn.utils.estimator_checks import (
    check_dataframe_column_names_consistency,
    check_n_features_in_after_fitting,
    check_param_validation,
    parametrize_with_checks,
)
from skorch.callbacks import EpochScoring

from skdnn import MLPDeepClassifier, MLPDeepRegressor
from skdnn.components import (
    ELU,
    L1,
    L1L2,
    L2,
    Adam,
    BatchNorm,
    ClipValue,
    Cosine,
    Exponential,
    Glorot,
    Huber,
    LeakyReLU,
    MaxNorm,
    Momentum,
    Nesterov,
    Optimizer,
    Orthogonal,
    TorchOptimizer,
)
from skdnn.model_selection import VectorizedGridSearchCV, VectorizedRandomizedSearchCV, _candidates
from skdnn.training import memory

X, _NUMBERS = load_iris(return_X_y=True)
X = StandardScaler().fit_transform(X)
Y = np.array(["rose", "lily", "iris"])[_NUMBERS]
X_NUMBERS, Y_NUMBERS = load_diabetes(return_X_y=True)
X_NUMBERS, Y_NUMBERS = X_NUMBERS[:120] * 20, Y_NUMBERS[:120]
LABELS = np.stack([_NUMBERS == 0, X[:, 0] > 0, X[:, 1] > 0], 1).astype(int)
WEIGHTS = np.random.RandomState(0).uniform(0.5, 3.0, len(X))
RATES = [0.05, 0.01]
N_FOLDS = 2

COMMON = {
    "hidden_layer_sizes": (8,),
    "batch_size": 32,
    "max_iter": 3,
    "n_iter_no_change": np.inf,
    "learning_rate_init": 0.02,
    "random_state": 0,
}


def make(**params):
    return MLPDeepClassifier(**COMMON | params)


def make_regressor(**params):
    return MLPDeepRegressor(**COMMON | params)


def make_pipe(*, estimator=None, **params):
    return Pipeline([("scaler", StandardScaler()), ("mlp", estimator or make(**params))])


def assert_trained(counts, *group_sizes, n_folds=N_FOLDS, refits=1):
    """Candidates were trained in groups of these sizes in each fold, those of size 1 alone, and the best once more."""
    together = [size for size in group_sizes if size > 1]
    assert sorted(counts.populations) == sorted(together * n_folds)
    assert counts.alone == (len(group_sizes) - len(together)) * n_folds + refits


@pytest.fixture
def _routing():
    with sklearn.config_context(enable_metadata_routing=True):
        yield


# grids --------------------------------------------------------------------------------------------------------------------

DEEP = {"hidden_layer_sizes": (8, 6)}
STOPPING = {"early_stopping": True, "validation_fraction": 0.2, "max_iter": 15}

# What the estimator has, the grid, and the sizes of the groups that can train together.
GRIDS = {
    "learning_rate_init": ({}, {"learning_rate_init": [0.1, 0.01, 0.001]}, [3]),
    "initializer": (
        {},
        {"initializer": ["auto", "glorot_uniform", Glorot("normal"), Orthogonal(), torch.nn.init.xavier_normal_]},
        [5],
    ),
    "regularizer": ({}, {"regularizer": [None, L1(0.01), "l2", L1L2(0.001, 0.01), L2(0.1)]}, [5]),
    "nested_regularizer": ({"regularizer": L1()}, {"regularizer__l1": [0.0, 0.001, 0.1]}, [3]),
    "max_norm": ({}, {"max_norm": [None, 0.5, MaxNorm(1.0)]}, [3]),
    "max_norm_axis": ({}, {"max_norm": [1.0, MaxNorm(0.5), MaxNorm(1.0, axis="outgoing")]}, [3]),
    "momentum": ({}, {"optimizer": [Momentum(0.0), "momentum", Momentum(0.5)]}, [3]),
    "nested_momentum": ({"optimizer": Momentum()}, {"optimizer__momentum": [0.0, 0.5, 0.9]}, [3]),
    "nested_in_candidates": (
        {},
        {"optimizer": [Momentum(), Nesterov()], "optimizer__momentum": [0.2, 0.5]},
        [4],
    ),
    "nested_in_candidates_and_lists": (
        {},
        [
            {"optimizer": [Momentum(), Nesterov()], "optimizer__momentum": [0.2, 0.9]},
            {"optimizer": ["momentum", "adam"]},
        ],
        [6],
    ),
    "dropout": ({}, {"dropout": [0.0, 0.3], "input_dropout": [0.0, 0.2]}, [4]),
    "all_numbers": (
        {"activation": "elu"},
        {
            "learning_rate_init": RATES,
            "initializer": ["glorot_normal", "he_normal"],
            "regularizer": ["l1", None],
            "max_norm": [0.8],
        },
        [8],
    ),
    "activation": ({}, {"activation": ["relu", "elu", LeakyReLU(0.2)], "learning_rate_init": RATES}, [6]),
    "activation_number": ({"activation": ELU()}, {"activation__alpha": [1.0, 0.5], "max_norm": [None, 1.0]}, [4]),
    "callable_activation": ({}, {"activation": [torch.sin, torch.nn.Softsign], "learning_rate_init": RATES}, [4]),
    "optimizer": ({}, {"optimizer": ["sgd", "adagrad", "nadam", "amsgrad"], "max_norm": [None, 1.0]}, [8]),
    "torch_optimizer": (
        {},
        {"optimizer": [torch.optim.RAdam, TorchOptimizer(torch.optim.SGD, momentum=0.9)], "learning_rate_init": RATES},
        [1] * 4,
    ),
    "per_layer": (
        DEEP,
        {
            "dropout": [[0.0, 0.2], (0.3, 0.0)],
            "max_norm": [[None, 1.0], [0.5, None]],
            "regularizer": [["l1", None, L2()], None],
            "initializer": [["he_normal", "lecun_normal"]],
        },
        [8],
    ),
    "per_layer_activation": (
        DEEP,
        {"activation": [["relu", "tanh"], ["elu", LeakyReLU()]], "learning_rate_init": RATES},
        [4],
    ),
    "hidden_layer_sizes": (
        {},
        {"hidden_layer_sizes": [(8,), (6,), (8, 4), ()], "learning_rate_init": RATES},
        [2, 2, 2, 2],
    ),
    "equal_hidden_layer_sizes": ({}, {"hidden_layer_sizes": [(8,), [8], 8, np.array([8])]}, [4]),
    "batch_size": ({}, {"batch_size": [16, 32, "auto"], "learning_rate_init": RATES}, [2, 2, 2]),
    "batches_of_all_rows": ({"batch_size": 500}, {"dropout": [0.0, 0.2, 0.5]}, [3]),
    "max_iter": ({}, {"max_iter": [1, 4, 2], "learning_rate_init": RATES}, [6]),
    "early_stopping": (STOPPING, {"n_iter_no_change": [1, 3], "learning_rate_init": [0.1, 0.01]}, [4]),
    "early_stopping_by_loss": (
        STOPPING,
        {"monitor": ["loss", "auto"], "tol": [0.1, 0.001], "n_iter_no_change": [2]},
        [4],
    ),
    "stopping_on_the_training_loss": ({"max_iter": 15}, {"n_iter_no_change": [1, 2], "tol": [0.05, 0.2]}, [4]),
    "early_stopping_or_not": (STOPPING, {"early_stopping": [True, False], "learning_rate_init": RATES}, [2, 2]),
    "validation_fraction": (STOPPING, {"validation_fraction": [0.2, 0.3], "n_iter_no_change": [2, 4]}, [2, 2]),
    "learning_rate": (
        {},
        {"learning_rate": ["constant", "adaptive", "one_cycle", "invscaling", Exponential(0.5, 1), Cosine()]},
        [6],
    ),
    "plateaus": (
        {"learning_rate": "adaptive", "max_iter": 15, "n_iter_no_change": 1},
        {"tol": [0.05, 0.2], "learning_rate_init": RATES},
        [4],
    ),
    "batch_norm": ({}, {"batch_norm": [True, False, BatchNorm(0.5)], "learning_rate_init": RATES}, [4, 2]),
    "class_weight": ({}, {"class_weight": [None, {"rose": 3.0}], "learning_rate_init": RATES}, [2, 2]),
    "balanced": ({"class_weight": "balanced"}, {"learning_rate_init": RATES}, [2]),
    "label_smoothing": ({}, {"label_smoothing": [0.0, 0.1], "learning_rate_init": RATES}, [2, 2]),
    "gradient_clipping": ({}, {"gradient_clipping": [None, 1.0, 0.1, ClipValue(0.1)]}, [4]),
    "random_state": ({"dropout": 0.2}, {"random_state": [0, 1, 2]}, [3]),
    "random_state_and_early_stopping": (STOPPING, {"random_state": [0, 1], "learning_rate_init": RATES}, [2, 2]),
    "shuffle": ({}, {"shuffle": [True, False], "learning_rate_init": RATES}, [2, 2]),
    "warm_start": ({"warm_start": True}, {"learning_rate_init": RATES}, [2]),
    "several_grids": (
        {},
        [{"learning_rate_init": RATES}, {"learning_rate_init": [0.05], "activation": ["tanh"], "dropout": [0.0, 0.2]}],
        [4],
    ),
    "an_empty_grid_beside_another": ({}, [{}, {"learning_rate_init": RATES}], [3]),
    "the_same_candidate_twice": ({}, {"learning_rate_init": [0.05, 0.01, 0.05]}, [2]),
    "the_estimators_own_value": ({}, [{"learning_rate_init": [0.02]}, {"dropout": [0.0, 0.2]}], [2]),
    "one_candidate": ({}, {"learning_rate_init": [0.05]}, [1]),
}


@pytest.mark.parametrize("name", GRIDS)
def test_grids_in_double_precision(name):
    params, grid, group_sizes = GRIDS[name]
    *_, counts = compare(make(**params), grid, X, Y, cv=N_FOLDS, scoring="neg_log_loss")
    assert_trained(counts, *group_sizes)


# Where the number of epochs does not hang on a comparison of rounded numbers.
SINGLE = [
    "learning_rate_init",
    "regularizer",
    "max_norm",
    "dropout",
    "per_layer",
    "batch_norm",
    "learning_rate",
]


@pytest.mark.parametrize("name", SINGLE)
def test_grids_in_single_precision(name):
    params, grid, group_sizes = GRIDS[name]
    one_vote = 1.0 / (len(X) // N_FOLDS) + 1e-12
    *_, counts = compare(make(**params), grid, X.astype(np.float32), Y, cv=N_FOLDS, tolerance=one_vote)
    assert_trained(counts, *group_sizes)


@pytest.mark.parametrize("name", ["early_stopping", "activation"])
def test_default_scores_are_the_same_to_the_last_vote(name):
    params, grid, _ = GRIDS[name]
    compare(make(**params), grid, X, Y, cv=3, tolerance=1e-12)


def test_precision_may_be_in_the_grid():
    grid = {"dtype": ["float64", "float32"], "learning_rate_init": RATES}
    *_, counts = compare(make(), grid, X, Y, cv=N_FOLDS, scoring="neg_log_loss", tolerance=1e-4)
    assert_trained(counts, 2, 2)


def test_early_stopped_networks_do_leave_at_epochs_of_their_own():
    params, grid, _ = GRIDS["early_stopping"]
    epochs = {make(**params, **candidate).fit(X, Y).n_iter_ for candidate in ParameterGrid(grid)}
    assert len(epochs) > 1


@pytest.mark.parametrize("others", [{}, {"dropout": [0.0, 0.2]}, {"max_iter": [2, 3]}], ids=["alone", "numbers", "epochs"])
def test_candidates_that_come_to_the_same_have_the_same_rank(others):
    compare(make(), {"tol": [1e-4, 1e-3, 1e-2], **others}, X, Y, cv=N_FOLDS, scoring="neg_log_loss")


def test_every_candidate_has_the_fitted_attributes_of_its_own_fit():
    seen = {}

    def look(estimator, X_test, y_test):
        attributes = {name: value for name, value in vars(estimator).items() if name.endswith("_") and name[0] != "_"}
        seen.setdefault(repr(estimator), []).append((attributes, estimator.predict_proba(X_test), estimator.net_))
        return estimator.score(X_test, y_test)

    grid = {"learning_rate_init": RATES, "n_iter_no_change": [1, 4]}
    compare(make(**STOPPING), grid, X, Y, cv=N_FOLDS, scoring=look)
    assert len(seen) == 4
    for mine, theirs in ((runs[k], runs[k + N_FOLDS]) for runs in seen.values() for k in range(N_FOLDS)):
        assert mine[0].keys() == theirs[0].keys()
        np.testing.assert_allclose(mine[1], theirs[1], rtol=1e-9, atol=1e-9)
        assert len(mine[2].history) == len(theirs[2].history) == mine[0]["n_iter_"]
        for name in ("n_iter_", "t_", "best_epoch_", "n_features_in_", "n_layers_", "n_outputs_", "out_activation_"):
            assert mine[0][name] == theirs[0][name]
        for name in ("loss_curve_", "validation_scores_", "loss_", "best_validation_score_"):
            np.testing.assert_allclose(mine[0][name], theirs[0][name], rtol=1e-9)


def test_groups_are_bounded_in_size(monkeypatch):
    monkeypatch.setattr(memory, "MAX_GROUP", 2)
    *_, counts = compare(make(), {"learning_rate_init": [0.1, 0.05, 0.02, 0.01, 0.005]}, X, Y, cv=N_FOLDS)
    assert_trained(counts, 2, 2, 1)


# randomized searches ------------------------------------------------------------------------------------------------------


def test_a_randomized_search_over_distributions():
    distributions = {
        "learning_rate_init": loguniform(1e-3, 1e-1),
        "dropout": [0.0, 0.2],
        "max_norm": [None, 1.0],
        "activation": ["relu"],
    }
    settings = {"n_iter": 6, "random_state": 0, "cv": N_FOLDS, "scoring": "neg_log_loss"}
    *_, counts = compare(make(), distributions, X, Y, classes=RANDOM, **settings)
    assert_trained(counts, 6)
    generator = np.random.RandomState(3)
    compare(make(), distributions, X, Y, classes=RANDOM, **settings | {"random_state": generator})


def test_a_randomized_search_over_lists_and_pipelines():
    distributions = [
        {"mlp__learning_rate_init": [0.1, 0.05, 0.01], "scaler": [StandardScaler(), "passthrough"]},
        {"mlp__optimizer": [Momentum()], "mlp__optimizer__momentum": [0.5, 0.9]},
    ]
    compare(make_pipe(), distributions, X, Y, classes=RANDOM, n_iter=6, random_state=0, cv=N_FOLDS, scoring="neg_log_loss")


def test_a_randomized_search_of_more_candidates_than_there_are():
    compare(make(), {"learning_rate_init": RATES}, X, Y, classes=RANDOM, n_iter=5, random_state=0, cv=N_FOLDS)


# pipelines ----------------------------------------------------------------------------------------------------------------


class NoisyCopy(TransformerMixin, BaseEstimator):
    """Adds noise that is drawn anew at every call."""

    def fit(self, X, y=None):
        self.random_ = np.random.RandomState(np.random.SeedSequence().generate_state(1)[0])
        return self

    def transform(self, X):
        return X + self.random_.normal(scale=1e-9, size=X.shape)


class Columns(TransformerMixin, BaseEstimator):
    """Takes some columns of a frame."""

    def __init__(self, columns=None):
        self.columns = columns

    def fit(self, X, y=None):
        return self

    def __sklearn_is_fitted__(self):
        return True

    def transform(self, X):
        return X[self.columns]


class Probabilities(TransformerMixin, BaseEstimator):
    """Replaces the features by an estimator's probabilities."""

    def __init__(self, estimator=None):
        self.estimator = estimator

    def fit(self, X, y=None):
        self.estimator_ = clone(self.estimator).fit(X, y)
        return self

    def transform(self, X):
        return self.estimator_.predict_proba(X)


RATES_OF_STEP = {"mlp__learning_rate_init": RATES}
PIPELINES = {
    "last_step": ({**RATES_OF_STEP, "mlp__regularizer": [None, "l1"]}, [4]),
    "numbers_of_preprocessing": ({**RATES_OF_STEP, "scaler__with_mean": [True, False]}, [2, 2]),
    "preprocessing_replaced": ({**RATES_OF_STEP, "scaler": [StandardScaler(), MinMaxScaler(), "passthrough"]}, [2, 2, 2]),
    "passthrough": ({**RATES_OF_STEP, "scaler": ["passthrough", None]}, [2]),  # the same rows
    "preprocessing_only": ({"scaler__with_mean": [True, False]}, [1, 1]),
    "overlapping_grids": (
        [
            {"scaler": ["passthrough"], "mlp__learning_rate_init": [0.05]},
            {"scaler": [StandardScaler()], "mlp__learning_rate_init": [0.05, 0.01, 0.1]},
        ],
        [3, 3],
    ),
    "nested_in_the_last_step": (
        {"mlp__optimizer": [Momentum(), Nesterov()], "mlp__optimizer__momentum": [0.2, 0.5], "scaler__with_std": [True, False]},
        [4, 4],
    ),
    "last_step_replaced": ({"mlp": [make(), make(learning_rate_init=0.1), make(activation="tanh")]}, None),
    "last_step_replaced_and_set": (
        {"mlp": [make(activation="tanh"), make(activation="elu")], **RATES_OF_STEP},
        [4],
    ),
    "last_step_of_other_libraries": (
        [{"mlp": [LogisticRegression()], "mlp__C": [0.1, 1.0]}, {"mlp": [make()], **RATES_OF_STEP}, RATES_OF_STEP],
        None,
    ),
    "last_step_passthrough": ({"mlp": ["passthrough", make()]}, None),
}


@pytest.mark.parametrize("name", PIPELINES)
def test_pipelines(name):
    grid, group_sizes = PIPELINES[name]
    settings = {"error_score": np.nan} if name == "last_step_passthrough" else {}
    *_, counts = compare(make_pipe(), grid, X * 5 + 2, Y, cv=N_FOLDS, scoring="neg_log_loss", **settings)
    if group_sizes is not None:
        assert_trained(counts, *group_sizes)


def test_a_pipeline_of_one_step_and_one_made_by_name():
    for pipeline, name in ((Pipeline([("mlp", make())]), "mlp"), (make_pipeline(PCA(2), make()), "mlpdeepclassifier")):
        grid = {f"{name}__learning_rate_init": RATES, f"{name}__dropout": [0.0, 0.2]}
        *_, counts = compare(pipeline, grid, X, Y, cv=N_FOLDS, scoring="neg_log_loss")
        assert_trained(counts, 4)


def test_a_pipeline_that_keeps_what_it_fits(tmp_path):
    pipeline = make_pipe().set_params(memory=joblib.Memory(tmp_path, verbose=0))
    *_, counts = compare(pipeline, {**RATES_OF_STEP, "scaler__with_mean": [True, False]}, X, Y, cv=N_FOLDS)
    assert_trained(counts, 2, 2)


def test_a_pipeline_in_a_pipeline():
    inner = Pipeline([("pca", PCA(2)), ("mlp", make())])
    pipeline = Pipeline([("scaler", StandardScaler()), ("inner", inner)])
    compare(pipeline, {"inner__mlp__learning_rate_init": RATES}, X, Y, cv=N_FOLDS, scoring="neg_log_loss")


@pytest.mark.parametrize("rate", [0.02, 0.05])
def test_another_network_in_the_preprocessing_is_not_taken_for_a_candidate(rate):
    before = Probabilities(make(hidden_layer_sizes=(5,), learning_rate_init=rate, activation="tanh", max_iter=2))
    pipeline = Pipeline([("network", before), ("mlp", make())])
    compare(pipeline, {"mlp__learning_rate_init": [0.05, 0.02]}, X, Y, cv=N_FOLDS, scoring="neg_log_loss")
    grid = {"network__estimator__activation": ["tanh", "elu"], "mlp__learning_rate_init": [0.05, 0.02]}
    compare(pipeline, grid, X, Y, cv=N_FOLDS, scoring="neg_log_loss")


def test_preprocessing_that_never_comes_out_the_same_costs_no_more_than_twice():
    grid = {"mlp__learning_rate_init": [0.1, 0.05, 0.02, 0.01, 0.005, 0.002]}
    pipeline = Pipeline([("noise", NoisyCopy()), ("mlp", make())])
    *_, counts = compare(pipeline, grid, X, Y, cv=N_FOLDS, tolerance=1.0)
    assert counts.total <= 2 * 6 * N_FOLDS + 1


def test_parameters_that_have_no_single_truth_value():
    frame = pd.DataFrame(X, columns=list("abcd"))
    pipeline = Pipeline([("columns", Columns()), ("mlp", make())])
    grid = {"columns__columns": [pd.Index(["a", "b"]), pd.Index(["b", "c"])], **RATES_OF_STEP}
    *_, counts = compare(pipeline, grid, frame, Y, cv=N_FOLDS, scoring="neg_log_loss")
    assert_trained(counts, 2, 2)


# targets, weights, inputs -------------------------------------------------------------------------------------------------


def test_regressors():
    grid = {
        "loss": ["squared_error", "absolute_error", Huber(0.5), "quantile"],
        "learning_rate_init": RATES,
    }
    *_, counts = compare(make_regressor(), grid, X_NUMBERS, Y_NUMBERS, cv=N_FOLDS)
    assert_trained(counts, 2, 2, 2, 2)
    grid = {"loss": ["poisson"], "learning_rate_init": RATES}
    *_, counts = compare(make_regressor(), grid, X_NUMBERS, Y_NUMBERS, cv=N_FOLDS, scoring="neg_mean_absolute_error")
    assert_trained(counts, 2)


def test_regressors_of_several_targets_in_a_pipeline():
    pipeline = make_pipe(estimator=make_regressor(early_stopping=True))
    grid = {"mlp__learning_rate_init": RATES, "mlp__standardize_target": [True, False], "mlp__dropout": [0.0, 0.2]}
    y = np.stack([Y_NUMBERS, X_NUMBERS[:, 0]], 1)
    *_, counts = compare(pipeline, grid, X_NUMBERS, y, cv=N_FOLDS)
    assert_trained(counts, 4, 4)


def test_a_regressor_within_another_estimator():
    estimator = TransformedTargetRegressor(make_regressor(), func=np.log1p, inverse_func=np.expm1)
    compare(estimator, {"regressor__learning_rate_init": RATES}, X_NUMBERS, Y_NUMBERS, cv=N_FOLDS)


def test_multilabel_targets():
    *_, counts = compare(make(), {"learning_rate_init": RATES, "dropout": [0.0, 0.2]}, X, LABELS, cv=N_FOLDS)
    assert_trained(counts, 4)
    compare(make(), {"learning_rate_init": RATES}, X, LABELS, cv=N_FOLDS, scoring="f1_macro")


def test_two_classes():
    y = Y == "rose"
    *_, counts = compare(make(), {"learning_rate_init": RATES, "dropout": [0.0, 0.2]}, X, y, cv=N_FOLDS, scoring="roc_auc")
    assert_trained(counts, 4)


def test_weights_without_routing():
    grid = {"learning_rate_init": RATES, "batch_norm": [True, False], "early_stopping": [True, False]}
    *_, counts = compare(make(), grid, X, Y, {"sample_weight": WEIGHTS}, cv=N_FOLDS, scoring="neg_log_loss")
    assert_trained(counts, 2, 2, 2, 2)
    compare(make(), {"learning_rate_init": RATES}, X, Y, {"sample_weight": WEIGHTS.tolist()}, cv=N_FOLDS)
    compare(make_pipe(), RATES_OF_STEP, X, Y, {"mlp__sample_weight": WEIGHTS}, cv=N_FOLDS, scoring="neg_log_loss")


def test_weights_that_the_scorer_does_not_take_are_warned_of_as_often():
    def score(estimator, X_test, y_test):
        return estimator.score(X_test, y_test)

    compare(make(), {"learning_rate_init": RATES}, X, Y, {"sample_weight": WEIGHTS}, cv=N_FOLDS, scoring=score)


@pytest.mark.usefixtures("_routing")
@pytest.mark.parametrize("is_scored", [True, False])
def test_weights_with_routing(is_scored):
    clf = make().set_fit_request(sample_weight=True).set_score_request(sample_weight=is_scored)
    given = {"sample_weight": WEIGHTS}
    for estimator, prefix in ((clf, ""), (make_pipe(estimator=clf), "mlp__")):
        if prefix:
            estimator.named_steps["scaler"].set_fit_request(sample_weight=False)
        grid = {f"{prefix}learning_rate_init": RATES, f"{prefix}max_norm": [None, 1.0]}
        *_, counts = compare(estimator, grid, X, Y, given, cv=N_FOLDS)
        assert_trained(counts, 4)
    scorer = make_scorer(accuracy_score).set_score_request(sample_weight=is_scored)
    compare(clf, {"learning_rate_init": RATES}, X, Y, given, cv=N_FOLDS, scoring=scorer)


@pytest.mark.usefixtures("_routing")
def test_metadata_that_nobody_asked_for_is_refused():
    assert_same_error(make(), {"learning_rate_init": RATES}, X, Y, {"sample_weight": WEIGHTS}, cv=N_FOLDS)


@pytest.mark.usefixtures("_routing")
def test_validation_data_are_routed():
    X_val, y_val = X[::4] * 1.1, Y[::4]
    clf = make(max_iter=15, n_iter_no_change=2).set_fit_request(X_val=True, y_val=True)
    given = {"X_val": X_val, "y_val": y_val}
    *_, counts = compare(clf, {"learning_rate_init": RATES, "dropout": [0.0, 0.2]}, X, Y, given, cv=N_FOLDS)
    assert_trained(counts, 4)
    pipeline = Pipeline([("scaler", StandardScaler()), ("mlp", clf)], transform_input=["X_val"])
    grid = {**RATES_OF_STEP, "scaler__with_mean": [True, False]}
    *_, counts = compare(pipeline, grid, X, Y, given, cv=N_FOLDS, scoring="neg_log_loss")
    assert_trained(counts, 2, 2)


def test_validation_data_without_routing():
    given = {"X_val": X[::4], "y_val": Y[::4], "sample_weight_val": WEIGHTS[::4]}
    *_, counts = compare(make(max_iter=9), {"learning_rate_init": RATES}, X, Y, given, cv=N_FOLDS, scoring="neg_log_loss")
    assert_trained(counts, 2)


@pytest.mark.parametrize("make_sparse", [scipy.sparse.csr_matrix, scipy.sparse.csr_array, scipy.sparse.csc_array])
def test_sparse_rows(make_sparse):
    rows = make_sparse(np.where(np.abs(X) > 0.5, X, 0.0))
    *_, counts = compare(make(), {"learning_rate_init": RATES, "dropout": [0.0, 0.2]}, rows, Y, cv=N_FOLDS)
    assert_trained(counts, 4)


def test_frames():
    frame = pd.DataFrame(X, columns=["a", "b", "c", "d"], index=np.arange(len(X)) + 1000)
    y = pd.Series(Y, index=frame.index)
    ours, theirs, counts = compare(make(), {"learning_rate_init": RATES}, frame, y, cv=N_FOLDS, scoring="neg_log_loss")
    assert_trained(counts, 2)
    assert ours.feature_names_in_.tolist() == theirs.feature_names_in_.tolist() == ["a", "b", "c", "d"]
    columns = ColumnTransformer([("scaled", StandardScaler(), ["a", "b"])], remainder="passthrough")
    pipeline = Pipeline([("columns", columns), ("mlp", make())])
    grid = {**RATES_OF_STEP, "columns__scaled": [StandardScaler(), MinMaxScaler()]}
    *_, counts = compare(pipeline, grid, frame, y, cv=N_FOLDS, scoring="neg_log_loss")
    assert_trained(counts, 2, 2)


@pytest.mark.parametrize("convert", [np.ndarray.tolist, np.asfortranarray, lambda array: array[::-1]])
def test_other_layouts(convert):
    *_, counts = compare(make(), {"learning_rate_init": RATES}, convert(X), convert(Y), cv=N_FOLDS)
    assert_trained(counts, 2)


def test_the_callers_arrays_are_as_they_were():
    rows, y, weights = X.copy(), Y.copy(), WEIGHTS.copy()
    for array in (rows, y, weights):
        array.setflags(write=False)
    compare(make_pipe(), RATES_OF_STEP, rows, y, {"mlp__sample_weight": weights}, cv=N_FOLDS)
    np.testing.assert_array_equal(rows, X)


# scores -------------------------------------------------------------------------------------------------------------------


def own_score(estimator, X_test, y_test):
    return float(estimator.predict_proba(X_test).max(1).mean())


def several_scores(estimator, X_test, y_test):
    return {"own": own_score(estimator, X_test, y_test), "accuracy": estimator.score(X_test, y_test)}


def middle(results):
    """The candidate in the middle."""
    return int(np.argsort(results[next(name for name in results if name.startswith("mean_test"))])[len(results["params"]) // 2])


SCORES = {
    "name": {"scoring": "balanced_accuracy"},
    "callable": {"scoring": own_score},
    "scorer": {"scoring": make_scorer(accuracy_score)},
    "names": {"scoring": ["accuracy", "neg_log_loss"], "refit": "neg_log_loss"},
    "dict": {"scoring": {"mine": own_score, "theirs": "neg_log_loss"}, "refit": "mine"},
    "callable_of_several": {"scoring": several_scores, "refit": "own"},
    "refit_callable": {"scoring": "neg_log_loss", "refit": middle},
    "refit_callable_of_several": {"scoring": ["accuracy", "neg_log_loss"], "refit": middle},
    "no_refit": {"scoring": "neg_log_loss", "refit": False},
    "several_and_no_refit": {"scoring": ["accuracy", "neg_log_loss"], "refit": False},
    "train_scores": {"return_train_score": True, "scoring": ["accuracy", "neg_log_loss"], "refit": "accuracy"},
}


@pytest.mark.parametrize("name", SCORES)
def test_scores(name):
    settings = SCORES[name]
    *_, counts = compare(make(), {"learning_rate_init": [0.1, 0.02, 0.001]}, X, Y, cv=N_FOLDS, **settings)
    assert_trained(counts, 3, refits=0 if settings.get("refit") is False else 1)


def test_a_score_that_fits_an_estimator_of_its_own():
    def score(estimator, X_test, y_test):
        return clone(estimator).set_params(max_iter=2).fit(X_test, y_test).predict_proba(X_test)[0, 0]

    compare(make(), {"learning_rate_init": RATES, "dropout": [0.0, 0.2]}, X, Y, cv=N_FOLDS, scoring=score)


def test_a_score_that_fits_the_candidate_again():
    def score(estimator, X_test, y_test):
        return cross_val_score(clone(estimator), X_test, y_test, cv=2, scoring="neg_log_loss").mean()

    compare(make(), {"learning_rate_init": RATES}, X, Y, cv=N_FOLDS, scoring=score)


# splits -------------------------------------------------------------------------------------------------------------------

GROUPS = np.arange(len(X)) % 7


def test_groups_without_routing():
    *_, counts = compare(make(), {"learning_rate_init": RATES}, X, Y, {"groups": GROUPS}, cv=GroupKFold(3))
    assert_trained(counts, 2, n_folds=3)


@pytest.mark.usefixtures("_routing")
def test_groups_with_routing():
    compare(make_pipe(), RATES_OF_STEP, X, Y, {"groups": GROUPS}, cv=GroupKFold(3), scoring="neg_log_loss")


def test_missing_groups_are_missed():
    assert_same_error(make(), {"learning_rate_init": RATES}, X, Y, cv=GroupKFold(3))


class CountedKFold(KFold):
    """Notes how often its splits are asked for."""

    calls = 0

    def split(self, *args, **kwargs):
        type(self).calls += 1
        return super().split(*args, **kwargs)


@pytest.mark.parametrize("prefix", ["", "mlp__"])
def test_splits_are_drawn_once(prefix):
    def splitter():
        return CountedKFold(3, shuffle=True, random_state=np.random.RandomState(0))

    estimator, cv = make_pipe() if prefix else make(), splitter()
    search = VectorizedGridSearchCV(estimator, {f"{prefix}learning_rate_init": RATES}, cv=cv)
    before = CountedKFold.calls
    search.fit(X, Y)
    assert CountedKFold.calls == before + 1
    theirs = GRID[1](estimator, search.param_grid, cv=splitter()).fit(X, Y)
    assert_same_search(search, theirs, X)
    # A second fit draws other splits, as scikit-learn's does.
    again = VectorizedGridSearchCV(estimator, search.param_grid, cv=cv).fit(X, Y)
    own = theirs.set_params(cv=theirs.cv).fit(X, Y)
    assert_same_search(again, own, X)
    assert not np.array_equal(again.cv_results_["split0_test_score"], search.cv_results_["split0_test_score"])


SPLITTERS = {
    "shuffled": KFold(3, shuffle=True, random_state=np.random.RandomState(0)),
    "stratified": StratifiedKFold(3, shuffle=True, random_state=1),
    "overlapping": ShuffleSplit(3, test_size=0.3, random_state=np.random.RandomState(1)),
    "predefined": PredefinedSplit(np.arange(len(X)) % 4 - 1),
    "list": list(KFold(3, shuffle=True, random_state=0).split(X)),
    "the_same_fold_twice": [(np.arange(0, 150, 2), np.arange(1, 150, 2))] * 2,
}


@pytest.mark.parametrize("name", SPLITTERS)
def test_splitters(name):
    compare(make(), {"learning_rate_init": RATES}, X, Y, cv=SPLITTERS[name], scoring="neg_log_loss")


def test_default_splits():
    *_, counts = compare(make(), {"learning_rate_init": RATES}, X, Y)
    assert_trained(counts, 2, n_folds=5)


def test_splits_from_a_generator():
    def splits():
        return KFold(2, shuffle=True, random_state=0).split(X)

    ours, theirs = (cls(make(), {"learning_rate_init": RATES}, cv=splits()).fit(X, Y) for cls in GRID)
    assert_same_search(ours, theirs, X)


# candidates that are wrong ------------------------------------------------------------------------------------------------

WRONG = {
    "name": {"activation": ["relu", "relo", "elu"]},
    "range": {"learning_rate_init": [0.1, -0.1, 0.01]},
    "type": {"learning_rate_init": [0.1, "fast", 0.01]},
    "first": {"max_iter": [0, 3, 2]},
    "equal_to_a_right_one": {"batch_size": [32, 32.0, 16]},
    "equal_to_a_right_one_too": {"dropout": [0.0, False, 0.2]},
    "nested": {"optimizer": [Adam()], "optimizer__beta_1": [0.9, 2.0, 0.5]},
    "list": {"dropout": [[0.1], [0.1, 0.2, 0.3], 0.2]},
    "class": {"optimizer": [Momentum(), Momentum, "momentum"]},
    "monitor": {"monitor": ["auto", "neg_log_lose"], "early_stopping": [True]},
    "solver": {"optimizer": ["adam", torch.optim.LBFGS, "sgd"]},
    "for_the_data": {"class_weight": [None, {"rose": 0.0, "lily": 0.0, "iris": 0.0}]},
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_candidate_gets_the_error_score(name):
    error_score = -7.0 if name in ("first", "range") else np.nan
    ours, *_ = compare(make(), WRONG[name], X, Y, cv=N_FOLDS, error_score=error_score)
    scores = ours.cv_results_["mean_test_score"]
    assert (np.isnan(scores) if np.isnan(error_score) else scores == error_score).sum() == 1


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_candidate_raises_on_demand(name):
    error = assert_same_error(make(), WRONG[name], X, Y, cv=N_FOLDS, error_score="raise")
    assert isinstance(error, ValueError | TypeError)


@pytest.mark.parametrize("error_score", [np.nan, "raise"], ids=str)
@pytest.mark.parametrize(
    "grid", [{"no_such": [1]}, {"learning_rate_init": RATES, "no_such": [1]}, {"optimizer__momentum": [0.5]}]
)
def test_an_unknown_parameter_always_raises(grid, error_score):
    assert_same_error(make(), grid, X, Y, cv=N_FOLDS, error_score=error_score)
    nested = {f"mlp__{name}": values for name, values in grid.items()}
    assert_same_error(make_pipe(), nested, X, Y, cv=N_FOLDS, error_score=error_score)


def test_where_all_are_wrong():
    error = assert_same_error(make(), {"activation": ["relo", "elo"]}, X, Y, cv=N_FOLDS)
    assert "did you mean 'relu'?" in str(error)


def test_a_wrong_one_costs_the_others_nothing():
    *_, counts = compare(make(), {"learning_rate_init": [0.1, -1.0, 0.05, 0.01]}, X, Y, cv=N_FOLDS)
    assert_trained(counts, 3)


def test_wrong_preprocessing():
    grid = {**RATES_OF_STEP, "scaler__copy": [True, "no"]}
    *_, counts = compare(make_pipe(), grid, X, Y, cv=N_FOLDS)
    assert_trained(counts, 2)


def test_a_fold_that_cannot_be_learned():
    # In the first fold the validation split has a class of one row.
    y = np.array([0, 1, 2] * 50)
    y[y == 2] = 0
    y[0] = 2
    compare(make(early_stopping=True), {"learning_rate_init": RATES}, X, y, cv=KFold(3), refit=False, error_score=-1.0)


@pytest.mark.parametrize("rows", [np.where(X > 2.0, np.nan, X), np.array([["a"] * 4] * len(X))], ids=["nan", "strings"])
def test_rows_that_cannot_be_learned(rows):
    assert_same_error(make(), {"learning_rate_init": RATES}, rows, Y, cv=N_FOLDS, error_score="raise")
    assert_same_error(make(), {"learning_rate_init": RATES}, rows, Y, cv=N_FOLDS)


def test_a_score_that_raises():
    def score(estimator, X_test, y_test):
        if estimator.learning_rate_init == 0.05:
            raise OSError("disk full")
        return 1.0

    compare(make(), {"learning_rate_init": RATES}, X, Y, cv=N_FOLDS, scoring=score)
    assert_same_error(make(), {"learning_rate_init": RATES}, X, Y, cv=N_FOLDS, scoring=score, error_score="raise")


@pytest.mark.parametrize("error_score", [np.nan, "raise"], ids=str)
def test_one_that_diverges_costs_only_itself(error_score):
    grid = {"learning_rate_init": [0.05, 1e6, 0.01, 0.1], "optimizer": ["sgd"], "activation": ["identity"]}
    rows = X * 1e30
    *_, counts = compare(make(), grid, X, Y, cv=N_FOLDS, error_score=error_score)
    assert_trained(counts, 4)
    pipeline = make_pipe()
    grid = {f"mlp__{name}": values for name, values in grid.items()} | {"scaler": ["passthrough", StandardScaler()]}
    compare(pipeline, grid, rows, Y, cv=N_FOLDS, error_score=-1.0)


def test_one_that_does_diverge():
    with pytest.warns(ConvergenceWarning, match=r"Training (diverged|ended with a loss of 2\.)"):
        make(learning_rate_init=1e6, optimizer="sgd", activation="identity").fit(X, Y)


def test_warnings_are_those_of_the_fits():
    (_, said), _, _ = run_both(make(n_iter_no_change=2), {"learning_rate_init": RATES}, X, Y, cv=N_FOLDS)
    assert [name for name, _ in said] == ["ConvergenceWarning"] * 5
    compare(make(n_iter_no_change=2), {"learning_rate_init": RATES, "max_iter": [2, 3]}, X, Y, cv=N_FOLDS)


def test_warnings_that_are_errors_are_the_candidates_own():
    grid = {"n_iter_no_change": [2, 3], "learning_rate_init": RATES}
    search = VectorizedGridSearchCV(make(), grid, cv=N_FOLDS, refit=False, error_score=-1.0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "\n4 fits failed out of a total of 8", FitFailedWarning)  # others are errors
        search.fit(X, Y)
    scores = search.cv_results_["mean_test_score"]
    assert (scores[::2] == -1.0).all()
    assert (scores[1::2] > 0.0).all()


MISUSES = {
    "no_candidates": ({"learning_rate_init": []}, {}),
    "scalar": ({"learning_rate_init": 0.1}, {}),
    "string": ({"activation": "relu"}, {}),
    "no_splits": ({"learning_rate_init": RATES}, {"cv": []}),
    "too_many_splits": ({"learning_rate_init": RATES}, {"cv": 100}),
    "unknown_scoring": ({"learning_rate_init": RATES}, {"scoring": "accurate"}),
    "refit_of_several": ({"learning_rate_init": RATES}, {"scoring": ["accuracy", "f1_macro"]}),
    "refit_out_of_range": ({"learning_rate_init": RATES}, {"refit": lambda results: 9}),
    "refit_not_a_number": ({"learning_rate_init": RATES}, {"refit": lambda results: "first"}),
    "error_score": ({"learning_rate_init": RATES}, {"error_score": "ignore"}),
    "n_jobs": ({"learning_rate_init": RATES}, {"n_jobs": "many"}),
    "no_jobs": ({"learning_rate_init": RATES}, {"n_jobs": 0}),
    "verbose": ({"learning_rate_init": RATES}, {"verbose": "much"}),
    "pre_dispatch": ({"learning_rate_init": RATES}, {"pre_dispatch": None}),
    "lengths": ({"learning_rate_init": RATES}, {"fit_params": {"sample_weight": WEIGHTS[:-1]}}),
    "unknown_fit_parameter": ({"learning_rate_init": RATES}, {"fit_params": {"no_such": 1}}),
}


@pytest.mark.parametrize("name", MISUSES)
def test_misuse_is_refused_alike(name):
    grid, settings = MISUSES[name]
    assert_same_error(make(), grid, X, Y, **{"cv": N_FOLDS, "error_score": "raise"} | settings)


def test_rows_and_targets_of_other_lengths_are_refused():
    assert_same_error(make(), {"learning_rate_init": RATES}, X, Y[:-1], cv=N_FOLDS)


def test_a_search_without_a_target():
    assert_same_error(make(), {"learning_rate_init": RATES}, X, None, cv=N_FOLDS, error_score="raise")


# what is fitted alone -----------------------------------------------------------------------------------------------------


def test_estimators_with_callbacks_are_fitted_alone():
    grid = {"learning_rate_init": RATES, "callbacks": [None, [EpochScoring("accuracy", name="accuracy", on_train=True)]]}
    *_, counts = compare(make(), grid, X, Y, cv=N_FOLDS)
    assert_trained(counts, 2, 1, 1)


def test_estimators_that_print_are_fitted_alone(capsys):
    *_, counts = compare(make(), {"learning_rate_init": RATES, "verbose": [0, 2]}, X, Y, cv=N_FOLDS)
    assert_trained(counts, 2, 1, 1)
    text = capsys.readouterr()
    assert text.out or text.err


def test_estimators_with_callbacks_of_scikit_learn_are_fitted_alone():
    clf = make().set_callbacks(ScoringMonitor(scoring="accuracy"))
    with counted() as counts:
        ours, theirs = (cls(clone(clf), {"learning_rate_init": RATES}, cv=N_FOLDS).fit(X, Y) for cls in GRID)
    assert counts.populations == []
    assert_same_search(ours, theirs, X)


def test_callbacks_of_the_search_see_what_they_see_in_scikit_learns():
    class Recorder:
        """Keeps the names of the tasks."""

        events = []

        def setup(self, estimator, context):
            pass

        def teardown(self, estimator, context):
            pass

        def on_fit_task_begin(self, estimator, context):
            self.events.append(f"begin {context.task_name}")

        def on_fit_task_end(self, estimator, context):
            self.events.append(f"end {context.task_name}")

    events = []
    for cls in GRID:
        Recorder.events.clear()
        cls(make(), {"learning_rate_init": RATES}, cv=N_FOLDS).set_callbacks(Recorder()).fit(X, Y)
        events.append(list(Recorder.events))
    assert events[0] == events[1] != []


class Cautious(Optimizer):
    """A user's own rule, whose formula takes numbers only."""

    def __init__(self, share=0.5):
        self.share = share

    def update(self, parameters, gradient, state, learning_rate, step):
        share = self.share if self.share < 0.9 else 0.9
        parameters.sub_(gradient, alpha=learning_rate * float(share))


def test_techniques_that_take_no_stacked_numbers_are_fitted_alone():
    grid = {"optimizer": [Cautious(0.2), Cautious(0.5), Cautious(0.95)]}
    compare(make(), grid, X, Y, cv=N_FOLDS, scoring="neg_log_loss")
    compare(make(optimizer=Cautious()), {"learning_rate_init": RATES}, X, Y, cv=N_FOLDS, scoring="neg_log_loss")


@pytest.mark.parametrize("error", [MemoryError("no room"), RuntimeError("not here")], ids=lambda error: type(error).__name__)
def test_where_training_together_fails_each_is_fitted_alone(error, monkeypatch):
    def fail(*args):
        raise error

    theirs, _ = run(GRID[1], make(), {"learning_rate_init": RATES}, X, Y, cv=N_FOLDS)
    monkeypatch.setattr(_candidates, "train_in_lockstep", fail)
    ours, said = run(GRID[0], make(), {"learning_rate_init": RATES}, X, Y, cv=N_FOLDS)
    assert said == []
    assert_same_search(ours, theirs, X)


def test_estimators_of_other_libraries():
    compare(LogisticRegression(), {"C": [0.1, 1.0]}, X, Y, cv=N_FOLDS)
    compare(make_pipeline(StandardScaler(), Ridge()), {"ridge__alpha": [0.1, 1.0]}, X_NUMBERS, Y_NUMBERS, cv=N_FOLDS)
    compare(LogisticRegression(), {"C": loguniform(0.1, 10)}, X, Y, classes=RANDOM, n_iter=3, random_state=0, cv=N_FOLDS)


def test_estimators_of_other_libraries_around_a_network():
    compare(OneVsRestClassifier(make()), {"estimator__learning_rate_init": RATES}, X, Y, cv=N_FOLDS)


# randomness ---------------------------------------------------------------------------------------------------------------


def test_a_generator_as_random_state():
    clf = make(random_state=np.random.RandomState(3), dropout=0.2)
    *_, counts = compare(clf, {"learning_rate_init": RATES, "max_norm": [None, 1.0]}, X, Y, cv=N_FOLDS, scoring="neg_log_loss")
    assert_trained(counts, 4)


def test_without_a_random_state_each_candidate_draws_its_own():
    search = VectorizedGridSearchCV(
        make(random_state=None), {"learning_rate_init": [0.05, 0.02, 0.01]}, cv=N_FOLDS, scoring="neg_log_loss"
    )
    with counted() as counts:
        first, second = (clone(search).fit(X, Y).cv_results_["mean_test_score"] for _ in range(2))
    assert_trained(counts, 3, 3, refits=2)
    assert np.isfinite(first).all()
    assert not np.isclose(first, second).any()


def test_without_a_random_state_the_same_candidate_twice_is_two_draws():
    search = VectorizedGridSearchCV(make(random_state=None), {"max_iter": [3, 3, 3]}, cv=N_FOLDS, scoring="neg_log_loss")
    assert len(set(search.fit(X, Y).cv_results_["mean_test_score"])) == 3


def test_a_search_leaves_global_state_as_it_was():
    torch_state, numpy_state = torch.get_rng_state(), joblib.hash(np.random.get_state())  # noqa: NPY002
    VectorizedGridSearchCV(make(dropout=0.2), {"learning_rate_init": RATES}, cv=N_FOLDS).fit(X, Y)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert joblib.hash(np.random.get_state()) == numpy_state  # noqa: NPY002


# jobs ---------------------------------------------------------------------------------------------------------------------

JOBS_GRID = {
    "mlp__learning_rate_init": [0.05, 0.01],
    "mlp__activation": ["relu", "relo"],
    "mlp__dropout": [0.0, 0.2],
    "scaler__with_mean": [True, False],
}


def test_two_processes():
    frame = pd.DataFrame(X, columns=["a", "b", "c", "d"])
    ours, _, counts = compare(make_pipe(), JOBS_GRID, frame, Y, cv=N_FOLDS, scoring="neg_log_loss", n_jobs=2)
    assert (counts.populations, counts.alone) == ([], 1)  # all in the other processes, but the best once more
    assert not hasattr(ours, "_call")


@pytest.mark.parametrize("copies", [1, 300], ids=["strided", "memory_mapped"])
def test_two_processes_and_validation_data(copies):
    # As they come out of another process, arrays have another layout, and large ones are memory-mapped.
    X_val, y_val = (X[::4], Y[::4]) if copies == 1 else (np.repeat(X, copies, axis=0), np.repeat(Y, copies))
    search = VectorizedGridSearchCV(make(max_iter=2), {"learning_rate_init": RATES}, cv=N_FOLDS, refit=False, n_jobs=2)
    with counted() as counts:
        search.fit(X, Y, X_val=X_val, y_val=y_val)
    assert counts.total == 0


def test_two_threads():
    with joblib.parallel_config(backend="threading", n_jobs=2):
        *_, counts = compare(make_pipe(), JOBS_GRID, X, Y, cv=N_FOLDS, scoring="neg_log_loss")
        assert counts.total == 16 + 1
        compare(make(), {"learning_rate_init": [0.1, 0.05, 0.01]}, X, Y, cv=N_FOLDS, n_jobs=2)
        compare(make(random_state=1), {"optimizer": ["adam", torch.optim.RAdam]}, X, Y, cv=N_FOLDS, n_jobs=2)
        compare(LogisticRegression(), {"C": [0.1, 1.0]}, X, Y, cv=N_FOLDS, n_jobs=2)


def test_jobs_train_nothing_twice():
    with joblib.parallel_config(backend="threading"):
        *_, counts = compare(make(), {"optimizer": [torch.optim.RAdam, torch.optim.SGD]}, X, Y, cv=N_FOLDS, n_jobs=2)
    assert counts.total == 4 + 1


def test_jobs_and_a_wrong_first_candidate_train_nothing_twice():
    with joblib.parallel_config(backend="threading"):
        *_, counts = compare(make(), {"learning_rate_init": [-1.0, 0.1, 0.05, 0.01, 0.02]}, X, Y, cv=N_FOLDS, n_jobs=2)
    assert counts.total == 8 + 1


# an estimator like any other ----------------------------------------------------------------------------------------------


def make_search(**settings):
    return VectorizedGridSearchCV(make(), {"learning_rate_init": RATES}, **{"cv": N_FOLDS} | settings)


def test_parameters_clone_and_text():
    search = make_search(scoring="accuracy", n_jobs=1)
    theirs = GRID[1](make(), {"learning_rate_init": RATES}, cv=N_FOLDS, scoring="accuracy", n_jobs=1)
    assert search.get_params().keys() - own_parameters(search, theirs) == theirs.get_params().keys()
    assert "".join(repr(search).split()) == "Vectorized" + "".join(repr(theirs).split())
    copied = clone(search.set_params(estimator__dropout=0.1, cv=3))
    assert (copied.estimator.dropout, copied.cv) == (0.1, 3)
    assert "VectorizedGridSearchCV" in estimator_html_repr(search)
    assert "VectorizedRandomizedSearchCV" in repr(VectorizedRandomizedSearchCV(make(), {}))


def test_a_fitted_search_is_pickled_and_cloned():
    search = make_search().fit(X, Y)
    again = pickle.loads(pickle.dumps(search))
    np.testing.assert_array_equal(again.predict_proba(X), search.predict_proba(X))
    assert_same_search(again, search, X)
    with pytest.raises(NotFittedError):
        clone(search).predict(X)
    assert_same_search(clone(search).fit(X, Y), search, X)


def test_a_fitted_search_fits_again():
    search = make_search().fit(X, Y)
    search.fit(X[:, :2], LABELS)
    assert_same_search(search, GRID[1](make(), {"learning_rate_init": RATES}, cv=N_FOLDS).fit(X[:, :2], LABELS), X[:, :2])


def test_methods_and_scores():
    ours, theirs, _ = compare(make(), {"learning_rate_init": RATES}, X, Y, cv=N_FOLDS, scoring="neg_log_loss")
    assert ours.score(X, Y) == theirs.score(X, Y)
    np.testing.assert_array_equal(ours.classes_, theirs.classes_)
    np.testing.assert_array_equal(ours.predict_log_proba(X), theirs.predict_log_proba(X))
    assert not hasattr(ours, "transform")
    assert sklearn.base.is_classifier(ours)
    assert sklearn.base.is_regressor(VectorizedGridSearchCV(make_regressor(), {}))


def test_a_search_within_cross_validation():
    scores = [cross_val_score(cls(make(), {"learning_rate_init": RATES}, cv=N_FOLDS), X, Y, cv=3) for cls in GRID]
    np.testing.assert_array_equal(*scores)


def test_a_search_within_a_search():
    grid = {"estimator__dropout": [0.0, 0.3]}
    outer = [cls(cls(make(), {"learning_rate_init": RATES}, cv=N_FOLDS), grid, cv=N_FOLDS).fit(X, Y) for cls in GRID]
    assert_same_search(*outer, X)


def test_a_search_within_cross_validation_of_jobs():
    with joblib.parallel_config(backend="threading"):
        scores = [
            cross_validate(cls(make(), {"learning_rate_init": RATES}, cv=N_FOLDS, n_jobs=2), X, Y, cv=2, n_jobs=2)["test_score"]
            for cls in GRID
        ]
    np.testing.assert_array_equal(*scores)


def test_verbose_says_the_same(capsys):
    texts = []
    for cls in GRID:
        cls(make(), {"learning_rate_init": RATES}, cv=N_FOLDS, verbose=10, return_train_score=True).fit(X, Y)
        texts.append(re.sub(r"\.+ ?|time=.*", "", capsys.readouterr().out))
    assert texts[0] == texts[1] != ""


@pytest.mark.parametrize("where", ["score", "training"])
def test_an_interrupt_is_raised_on_and_leaves_nothing_behind(where, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    search = make_search(scoring=interrupt if where == "score" else None)
    if where == "training":
        monkeypatch.setattr(_candidates, "train_in_lockstep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        search.fit(X, Y)
    assert vars(search).keys() >= {"estimator", "param_grid"}
    assert not hasattr(search, "_call")
    assert not hasattr(search, "cv_results_")
    monkeypatch.undo()
    with counted() as counts:
        make(learning_rate_init=0.05).fit(X, Y)  # nobody asks for what was trained together
    assert (counts.populations, counts.alone) == ([], 1)


def make_searches(estimator, grid):
    """Searches as scikit-learn makes its own for its checks."""
    settings = {"cv": 2, "error_score": "raise"}
    return [
        VectorizedGridSearchCV(estimator, grid, **settings),
        VectorizedRandomizedSearchCV(estimator, grid, **settings, n_iter=2, random_state=0),
    ]


CHECKED = {"max_iter": 15, "n_iter_no_change": np.inf, "learning_rate_init": 0.1, "random_state": 0}
CLASSIFIERS = make_searches(MLPDeepClassifier((16,), **CHECKED), {"regularizer": [None, "l2"]})
REGRESSORS = make_searches(
    Pipeline([("pca", PCA()), ("mlp", MLPDeepRegressor((16,), **CHECKED))]), {"mlp__dropout": [0.0, 0.01]}
)
MORE_SEARCHES = [
    CLASSIFIERS[1],
    *REGRESSORS,
    *make_searches(Ridge(), {"alpha": [0.1, 1.0]}),
    *make_searches(LogisticRegression(), {"C": [0.1, 1.0]}),
    *make_searches(Pipeline([("pca", PCA()), ("ridge", Ridge())]), {"ridge__alpha": [0.1, 1.0]}),
    *make_searches(Pipeline([("pca", PCA()), ("logistic", LogisticRegression())]), {"logistic__C": [0.1, 1.0]}),
]
# Of scikit-learn's own estimators, and of NumPy's casts of what is not finite.
_other_warnings = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::RuntimeWarning")


def assert_passes_where_theirs_does(search, check):
    """A check fails for a search exactly where it fails for scikit-learn's own over the same estimator."""
    (theirs,) = (cls for ours, cls in (GRID, RANDOM) if type(search) is ours)
    try:
        check(search)
    except unittest.SkipTest:
        raise
    except Exception as error:
        known = inspect.signature(theirs).parameters
        given = {name: value for name, value in search.get_params(deep=False).items() if name in known}
        with pytest.raises(type(error)):
            check(theirs(**given))


@_other_warnings
@parametrize_with_checks(CLASSIFIERS[:1])
def test_searches_keep_the_contract(estimator, check):
    check(estimator)


@pytest.mark.slow
@_other_warnings
@parametrize_with_checks(MORE_SEARCHES)
def test_more_searches_keep_the_contract(estimator, check):
    assert_passes_where_theirs_does(estimator, check)


@_other_warnings
@pytest.mark.parametrize(
    "check", [check_param_validation, check_dataframe_column_names_consistency, check_n_features_in_after_fitting]
)
@pytest.mark.parametrize("search", [CLASSIFIERS[0], REGRESSORS[1]], ids=["grid", "random"])
def test_searches_pass_the_checks_beside_the_suite(search, check):
    check(type(search).__name__, clone(search))
