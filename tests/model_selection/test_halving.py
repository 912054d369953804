"""Halving over epochs scores what scikit-learn's scores, and trains each epoch once."""

import contextlib
import re
import time
import warnings

import numpy as np
import pytest
import torch
from scipy.stats import loguniform
from searches import assert_same_error, assert_same_search, compare
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.datasets import load_diabetes, load_iris
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.experimental import enable_halving_search_cv  # noqa: F401 (the import of the classes needs it)
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    HalvingGridSearchCV,
    HalvingRandomSearchCV,
    KFold,
    cross_val_score,
)
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.utils import check_random_state
from sklearn.utils.estimator_checks import check_param_validation, parametrize_with_checks
from skorch.callbacks import EpochScoring

from skdnn import MLPDeepClassifier, MLPDeepRegressor
from skdnn.components import Adam, Momentum, Optimizer, TorchOptimizer
from skdnn.exceptions import InvalidParameterError
from skdnn.model_selection import VectorizedGridSearchCV, VectorizedHalvingGridSearchCV, VectorizedHalvingRandomSearchCV
from skdnn.training import Session, lockstep
from skdnn.training.population import SideBySide, Stacked

GRID = VectorizedHalvingGridSearchCV, HalvingGridSearchCV
RANDOM = VectorizedHalvingRandomSearchCV, HalvingRandomSearchCV

X, _NUMBERS = load_iris(return_X_y=True)
X = StandardScaler().fit_transform(X)
Y = np.array(["rose", "lily", "iris"])[_NUMBERS]
X_NUMBERS, Y_NUMBERS = load_diabetes(return_X_y=True)
X_NUMBERS, Y_NUMBERS = X_NUMBERS[:120] * 20, Y_NUMBERS[:120]
WEIGHTS = np.random.RandomState(0).uniform(0.5, 3.0, len(X))

RATES = [0.1, 0.05, 0.01, 0.001]
N_FOLDS = 2
COMMON = {
    "hidden_layer_sizes": (8,),
    "batch_size": 32,
    "max_iter": 4,
    "n_iter_no_change": np.inf,
    "learning_rate_init": 0.02,
    "random_state": 0,
}
POPULATIONS = SideBySide, Stacked

# Rungs of 1, 2 and 4 epochs, with 4, 2 and 1 candidates.
HALVED = {"factor": 2, "max_resources": 4, "cv": N_FOLDS, "scoring": "neg_log_loss"}


def make(**params):
    return MLPDeepClassifier(**COMMON | params)


def make_regressor(**params):
    return MLPDeepRegressor(**COMMON | params)


def make_pipe(*, estimator=None, **params):
    return Pipeline([("scaler", StandardScaler()), ("mlp", estimator or make(**params))])


@contextlib.contextmanager
def epochs_counted():
    """Note, of each epoch that a population trains, the number of its networks, and how often one trains alone."""
    sizes, alone = [], []
    begin_epoch = Session.begin_epoch

    def begin_alone(session, *args):
        alone.append(1)
        return begin_epoch(session, *args)

    with pytest.MonkeyPatch.context() as patch:
        for kind in POPULATIONS:

            def train_population(population, train=kind.train):
                sizes.append(len(population._lanes))
                return train(population)

            patch.setattr(kind, "train", train_population)
        patch.setattr(Session, "begin_epoch", begin_alone)
        yield sizes, alone


def halve(estimator, grid, X=X, y=Y, **settings):
    """Fit a halving and return it, with the sizes of populations, epoch by epoch, and the epochs that were trained alone."""
    with epochs_counted() as (sizes, alone):
        search = VectorizedHalvingGridSearchCV(estimator, grid, **HALVED | {"refit": False} | settings).fit(X, y)
    return search, sizes, len(alone)


def compare_halvings(estimator, grid, X=X, y=Y, fit_params=None, **settings):
    resource = "mlp__max_iter" if isinstance(estimator, Pipeline) else "max_iter"
    return compare(estimator, grid, X, y, fit_params, **{"classes": GRID, "resource": resource} | HALVED | settings)


# scores -------------------------------------------------------------------------------------------------------------------

STOPPING = {"early_stopping": True, "validation_fraction": 0.2}

# What the estimator has, and the grid.
GRIDS = {
    "adam": ({}, {"learning_rate_init": RATES}),
    "momentum": ({"optimizer": Momentum()}, {"optimizer__momentum": [0.0, 0.5, 0.9], "learning_rate_init": [0.05, 0.01]}),
    "optimizers": ({}, {"optimizer": ["sgd", "adagrad", "nadam", "amsgrad", "rmsprop"], "learning_rate_init": [0.05, 0.01]}),
    "torch_optimizer": ({}, {"optimizer": [torch.optim.RAdam, TorchOptimizer(torch.optim.SGD, momentum=0.9), Adam()]}),
    "batch_norm": ({"batch_norm": True}, {"learning_rate_init": RATES}),
    "dropout": ({}, {"dropout": [0.0, 0.1, 0.3], "input_dropout": [0.0, 0.2]}),
    "random_state": ({"dropout": 0.2}, {"random_state": [0, 1, 2, 3]}),
    "penalties": ({}, {"regularizer": [None, "l1", "l2"], "max_norm": [None, 0.5]}),
    "shapes": ({}, {"hidden_layer_sizes": [(8,), (6, 4), ()], "activation": ["relu", "tanh"]}),
    "batch_size": ({}, {"batch_size": [16, 32], "learning_rate_init": [0.05, 0.01]}),
    "adaptive": ({"learning_rate": "adaptive", "n_iter_no_change": 1, "tol": 0.1}, {"learning_rate_init": RATES}),
    "inverse_scaling": ({"learning_rate": "invscaling"}, {"learning_rate_init": RATES}),
    "early_stopping": (STOPPING, {"n_iter_no_change": [1, 2], "learning_rate_init": [0.1, 0.001]}),
    "early_stopping_by_loss": (STOPPING | {"monitor": "loss"}, {"n_iter_no_change": [1, 2], "tol": [0.01, 0.5]}),
    "the_same_candidate_twice": ({}, {"learning_rate_init": [0.05, 0.01, 0.05]}),
    "several_grids": ({}, [{"learning_rate_init": RATES}, {"dropout": [0.1, 0.2]}]),
}


# Rungs of 2, 4 and 8 epochs.
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("name", GRIDS)
def test_every_rung_scores_what_fits_of_its_epochs_score(name):
    params, grid = GRIDS[name]
    ours, theirs = (cls(make(**params), grid, resource="max_iter", **HALVED | {"max_resources": 8}).fit(X, Y) for cls in GRID)
    assert_same_search(ours, theirs, X)
    assert len(ours.n_resources_) > 1


def test_single_precision():
    compare_halvings(make(), {"learning_rate_init": RATES}, X.astype(np.float32), scoring="accuracy", tolerance=0.014)


def test_the_survivors_score_what_they_score_in_a_grid_search():
    halving, *_ = halve(make(dropout=0.1), {"learning_rate_init": RATES})
    (at_end,) = np.flatnonzero(halving.cv_results_["iter"] == 2)
    best = halving.cv_results_["params"][at_end]
    assert best["max_iter"] == 4
    grid = {name: [value] for name, value in best.items()}
    for cls in (GridSearchCV, VectorizedGridSearchCV):
        alone = cls(make(dropout=0.1), grid, cv=N_FOLDS, scoring="neg_log_loss", return_train_score=True).fit(X, Y)
        for name in ("split0_test_score", "split1_test_score", "split1_train_score"):
            assert halving.cv_results_[name][at_end] == pytest.approx(alone.cv_results_[name][0], abs=1e-12)


@pytest.mark.parametrize("schedule", ["cosine", "one_cycle"])
@pytest.mark.parametrize("settings", [{}, {"max_resources": 7}, {"aggressive_elimination": True, "min_resources": 2}])
def test_a_schedule_ends_with_the_last_rung(schedule, settings):
    clf = make(learning_rate=schedule)
    halving, *_ = halve(clf, {"learning_rate_init": RATES}, **settings)
    best = halving.cv_results_["params"][halving.best_index_]
    assert best["max_iter"] == halving.n_resources_[-1]
    score = cross_val_score(clone(clf).set_params(**best), X, Y, cv=N_FOLDS, scoring="neg_log_loss").mean()
    assert halving.best_score_ == pytest.approx(score, abs=1e-12)


def test_pipelines():
    grid = {"scaler": [StandardScaler(), MinMaxScaler(), "passthrough"], "mlp__learning_rate_init": [0.1, 0.01]}
    compare_halvings(make_pipe(), grid)
    compare_halvings(make_pipe(), [{"mlp": [make(), make(dropout=0.1)]}, {"mlp__learning_rate_init": [0.1, 0.01]}])


def test_regressors():
    compare_halvings(make_regressor(), {"learning_rate_init": RATES}, X_NUMBERS, Y_NUMBERS, scoring=None)
    pipe = make_pipe(estimator=make_regressor(optimizer=Momentum()))
    grid = {"mlp__optimizer__momentum": [0.0, 0.5, 0.9, 0.95]}
    compare_halvings(pipe, grid, X_NUMBERS, np.stack([Y_NUMBERS, -Y_NUMBERS], 1), scoring="r2")


def test_weights_and_groups():
    grid = {"learning_rate_init": RATES}
    compare_halvings(make(), grid, fit_params={"sample_weight": WEIGHTS})
    compare_halvings(make(), grid, fit_params={"groups": np.arange(len(X)) % 7}, cv=GroupKFold(3))


def test_random_candidates():
    settings = {"resource": "max_iter", "max_resources": 9, "cv": N_FOLDS, "random_state": 0}
    ours, _, counts = compare(make(), {"learning_rate_init": loguniform(1e-3, 0.5)}, X, Y, classes=RANDOM, **settings)
    assert ours.n_candidates_ == [9, 3, 1]
    assert counts.alone == 1  # the refit


@pytest.mark.parametrize("prefix", ["", "mlp__"])
def test_epochs_are_max_iter_of_the_last_step(prefix):
    estimator, grid = make_pipe() if prefix else make(), {f"{prefix}learning_rate_init": RATES}
    halved = {name: value for name, value in HALVED.items() if name != "max_resources"}
    ours = VectorizedHalvingGridSearchCV(estimator, grid, **halved).fit(X, Y)
    theirs = HalvingGridSearchCV(estimator, grid, resource=f"{prefix}max_iter", **HALVED).fit(X, Y)
    assert_same_search(ours, theirs, X)
    assert (ours.max_resources_, ours.n_resources_, ours.n_candidates_) == (4, [1, 2, 4], [4, 2, 1])
    assert (ours.n_iterations_, ours.n_remaining_candidates_) == (3, 1)
    assert ours.best_params_[f"{prefix}max_iter"] == 4
    assert (ours.resource, ours.max_resources) == ("epochs", "auto")


@pytest.mark.parametrize(
    "settings",
    [
        {"min_resources": "smallest", "max_resources": 20},
        {"min_resources": 3, "max_resources": 20, "factor": 3},
        {"max_resources": 5, "min_resources": 5},
        {"max_resources": 5, "min_resources": 2, "aggressive_elimination": True},
        {"max_resources": 30, "factor": 2.5},
        {"refit": False, "return_train_score": False},
        {"refit": lambda results: 0},
        {"scoring": None, "verbose": 1},
    ],
    ids=lambda settings: "-".join(settings),
)
def test_settings_of_a_halving(settings, capsys):
    ours, theirs, _ = compare_halvings(make(), {"learning_rate_init": RATES}, **settings)
    for name in ("n_resources_", "n_candidates_", "n_iterations_", "n_possible_iterations_", "n_remaining_candidates_"):
        assert getattr(ours, name) == getattr(theirs, name)
    said = capsys.readouterr().out.splitlines()
    assert said[: len(said) // 2] == said[len(said) // 2 :]


@pytest.mark.parametrize("resource", ["n_samples", "batch_size"])
def test_other_resources_are_scikit_learns(resource):
    compare_halvings(
        make(), {"learning_rate_init": RATES}, resource=resource, max_resources=100, min_resources=20, random_state=0
    )


# training -----------------------------------------------------------------------------------------------------------------


def test_each_epoch_is_trained_once_and_dropped_candidates_leave():
    _, sizes, alone = halve(make(), {"learning_rate_init": RATES})
    # All folds of a rung, one after the other: 1 epoch of 4 candidates, 1 more of 2, 2 more of 1.
    assert sizes == [4, 4, 2, 2, 1, 1, 1, 1]
    assert alone == 0


def test_repeated_rungs_train_nothing():
    halving, sizes, alone = halve(
        make(), {"learning_rate_init": RATES}, max_resources=2, min_resources=2, aggressive_elimination=True
    )
    assert halving.n_resources_ == [2, 2, 2]
    assert sizes == [4] * 4
    assert alone == 0


def test_what_cannot_train_with_others_trains_on_by_itself():
    _, sizes, alone = halve(make(), {"optimizer": [torch.optim.RAdam, "sgd"], "hidden_layer_sizes": [(4,), (5,)]})
    assert len(sizes) == N_FOLDS * (4 + 2 + 2)
    assert set(sizes) == {1}
    assert alone == 0


def test_preprocessing_has_populations_of_its_own():
    grid = {"scaler": [StandardScaler(), "passthrough"], "mlp__learning_rate_init": [0.1, 0.0001]}
    halving, sizes, alone = halve(make_pipe(), grid)
    left = [params["mlp__learning_rate_init"] for params in halving.cv_results_["params"][4:]]
    assert left == [0.1, 0.1, 0.1]  # of each, that with the greater rate
    assert sizes == [2] * 4 + [1] * 4 + [1] * 4
    assert alone == 0


def test_populations_that_nobody_goes_on_with_are_let_go(monkeypatch):
    closed = []

    class Watched(lockstep.Lockstep):
        """Notes who leaves."""

        def leave(self, nets):
            closed.extend((self.n_epochs, net) for net in nets)
            super().leave(nets)

    monkeypatch.setattr("skdnn.model_selection._rungs.Lockstep", Watched)
    halve(make(), {"hidden_layer_sizes": [(8,), (3,)], "learning_rate_init": [0.1, 0.00001]})
    assert sorted(n_epochs for n_epochs, _ in closed) == [1] * 4 + [2] * 2 + [4] * 2
    assert all(net.session is None for _, net in closed)


def test_an_early_stopped_candidate_stays_as_it_is():
    grid = {"n_iter_no_change": [1, np.inf], "tol": [0.0, 100.0]}
    clf = make(**STOPPING, max_iter=16)
    with epochs_counted() as (sizes, alone):
        ours = VectorizedHalvingGridSearchCV(clf, grid, factor=1.5, cv=N_FOLDS, min_resources=5, max_resources=16)
        ours.set_params(refit=False, scoring="neg_log_loss").fit(X, Y)
    theirs = HalvingGridSearchCV(clf, grid, factor=1.5, cv=N_FOLDS, min_resources=5, max_resources=16, resource="max_iter")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        theirs.set_params(refit=False, scoring="neg_log_loss").fit(X, Y)
    assert_same_search(ours, theirs, X)
    assert sizes[:5] == [4, 4, 4, 3, 3]  # that of tol=100 and one epoch of patience is over after three
    assert alone == []


def test_only_the_end_of_a_fit_is_warned_of():
    clf = make(n_iter_no_change=3)
    with pytest.warns(ConvergenceWarning, match="max_iter=4") as caught:
        halve(clf, {"learning_rate_init": RATES})
    assert len(caught) == N_FOLDS


def test_candidates_have_the_fitted_attributes_of_their_own_fit():
    seen = []

    def score(estimator, X, y):
        seen.append(estimator)
        return -estimator.get_params()["dropout"]

    halve(make(), {"dropout": [0.0, 0.2, 0.5]}, scoring=score, cv=[(np.arange(0, 150, 2), np.arange(1, 150, 2))])
    rows = X[::2], Y[::2]
    assert [clf.max_iter for clf in seen] == [2, 2, 2, 2, 2, 2, 4, 4, 4, 4]
    for clf in seen[::2]:
        alone = clone(clf).fit(*rows)
        assert vars(clf).keys() == vars(alone).keys()
        assert clf.loss_curve_ == pytest.approx(alone.loss_curve_)
        for name in ("n_iter_", "t_", "best_epoch_", "best_loss_", "loss_"):
            assert getattr(clf, name) == pytest.approx(getattr(alone, name)), name
        np.testing.assert_allclose(clf.predict_proba(X), alone.predict_proba(X), atol=1e-12)
        assert [list(row) for row in clf.history_] == [list(row) for row in alone.history_]
        assert len(clf.net_.history) == clf.n_iter_


def test_each_candidate_is_charged_with_its_own_training(monkeypatch):
    for kind in POPULATIONS:

        def train_slowly(population, train=kind.train):
            time.sleep(0.1)
            return train(population)

        monkeypatch.setattr(kind, "train", train_slowly)
    halving, *_ = halve(make(), {"learning_rate_init": RATES}, min_resources=4)
    assert (halving.cv_results_["mean_fit_time"] > 0.09).all()  # a quarter of four epochs
    assert (halving.cv_results_["mean_fit_time"][1:] < 0.3).all()


def test_several_jobs_train_in_this_process():
    one, sizes, _ = halve(make(), {"learning_rate_init": RATES})
    two, sizes_of_two, _ = halve(make(), {"learning_rate_init": RATES}, n_jobs=2)
    assert sizes == sizes_of_two
    assert_same_search(two, one, X)


@pytest.mark.parametrize("given", ["verbose", "callbacks"])
def test_estimators_that_are_listened_to_are_fitted_from_zero(given, capsys):
    params = {"verbose": {"verbose": 2}, "callbacks": {"callbacks": [EpochScoring("accuracy")]}}[given]
    _, sizes, alone = halve(make(**params), {"learning_rate_init": RATES})
    assert sizes == []
    assert alone == N_FOLDS * (4 * 1 + 2 * 2 + 1 * 4)
    assert (capsys.readouterr().out != "") == (given == "verbose")


# what goes wrong ----------------------------------------------------------------------------------------------------------


def test_one_that_diverges_costs_only_itself():
    ours, theirs, counts = compare_halvings(
        make(optimizer="sgd"), {"learning_rate_init": [0.1, 1e300, 0.01, 0.001]}, scoring="accuracy"
    )
    assert (counts.alone, ours.best_params_["learning_rate_init"]) == (1, theirs.best_params_["learning_rate_init"])


WRONG = {
    "a_value": {"dropout": [0.1, 2.0, 0.2, 0.3]},
    "a_name": {"activation": ["relu", "relo", "tanh", "elu"]},
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("error_score", [np.nan, -100.0])
def test_a_wrong_candidate_gets_the_error_score(name, error_score):
    ours, *_ = compare_halvings(make(), WRONG[name], error_score=error_score)
    assert len(ours.n_candidates_) == 3
    _, sizes, alone = halve_silently(make(), WRONG["a_value"])
    assert (sizes, alone) == ([3, 3, 2, 2, 1, 1, 1, 1], 0)


def halve_silently(*given):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return halve(*given)


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_candidate_raises_on_demand(name):
    assert_same_error(
        make(), WRONG[name], X, Y, classes=GRID, **HALVED | {"error_score": "raise", "cv": KFold(3), "resource": "max_iter"}
    )


class Failing(Optimizer):
    """Fails after some steps."""

    def __init__(self, n_steps=5):
        self.n_steps = n_steps

    def update(self, parameters, gradient, state, learning_rate, step):
        if step > self.n_steps:
            raise RuntimeError("too many steps")
        parameters.sub_(gradient, alpha=float(learning_rate))


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::sklearn.exceptions.FitFailedWarning")
def test_one_that_fails_in_a_later_rung_gets_the_error_score():
    # Three batches an epoch: it fails in the second rung.
    grid = [{"optimizer": [Failing()], "learning_rate_init": [0.1]}, {"learning_rate_init": [0.001, 0.0001, 0.00001]}]
    ours, theirs = (cls(make(), grid, resource="max_iter", **HALVED).fit(X, Y) for cls in GRID)
    assert_same_search(ours, theirs, X)
    assert np.isnan(ours.cv_results_["mean_test_score"]).sum() == 1


@pytest.mark.parametrize("error", [MemoryError("no room"), RuntimeError("not here")], ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("where", ["__init__", "train"])
def test_where_training_together_fails_each_is_fitted_alone(where, error, monkeypatch):
    theirs = HalvingGridSearchCV(make(), {"learning_rate_init": RATES}, resource="max_iter", **HALVED).fit(X, Y)

    def fail(population, *given):
        raise error

    for kind in POPULATIONS:
        monkeypatch.setattr(kind, where, fail)
    ours = VectorizedHalvingGridSearchCV(make(), {"learning_rate_init": RATES}, **HALVED).fit(X, Y)
    assert_same_search(ours, theirs, X)


@pytest.mark.parametrize("n_epochs", [0, 1, 5])
def test_an_interrupt_is_raised_on_and_leaves_nothing_suspended(n_epochs, monkeypatch):
    nets = []
    for kind in POPULATIONS:

        def interrupt(population, train=kind.train):
            if len(nets) == n_epochs:
                raise KeyboardInterrupt
            nets.append(population._lanes[0])
            return train(population)

        monkeypatch.setattr(kind, "train", interrupt)
    search = VectorizedHalvingGridSearchCV(make(), {"learning_rate_init": RATES}, **HALVED)
    with pytest.raises(KeyboardInterrupt):
        search.fit(X, Y)
    assert not hasattr(search, "cv_results_")
    assert (search.resource, search.max_resources) == ("epochs", 4)
    assert all(lane.data is None for lane in nets)


class Noisy(TransformerMixin, BaseEstimator):
    """Never gives the same rows twice."""

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return X + check_random_state(None).normal(0.0, 1e-9, X.shape)


def test_preprocessing_that_never_comes_out_the_same():
    pipe = Pipeline([("noise", Noisy()), ("mlp", make())])
    ours, sizes, _ = halve(pipe, {"mlp__learning_rate_init": RATES})
    theirs = HalvingGridSearchCV(pipe, ours.param_grid, resource="mlp__max_iter", **HALVED).fit(X, Y)
    np.testing.assert_allclose(ours.cv_results_["mean_test_score"], theirs.cv_results_["mean_test_score"], atol=1e-4)
    assert len(sizes) == N_FOLDS


@pytest.mark.parametrize("random_state", [None, np.random.RandomState(0)], ids=["none", "generator"])
def test_other_seeds_train_on_too(random_state):
    _, sizes, alone = halve(make(random_state=random_state), {"learning_rate_init": RATES})
    assert (sizes, alone) == ([4, 4, 2, 2, 1, 1, 1, 1], 0)


def test_without_a_seed_the_same_candidate_twice_is_two_draws():
    halving, *_ = halve(make(random_state=None), {"learning_rate_init": [0.01, 0.01]})
    scores = halving.cv_results_["split0_test_score"][:2]
    assert scores[0] != scores[1]


MISUSE = {
    "an_unknown_resource": {"resource": "nothing"},
    "no_number": {"max_resources": 0},
    "too_few": {"max_resources": 2, "min_resources": 3},
    "splits_that_change": {"cv": KFold(2, shuffle=True)},
    "several_scores": {"scoring": ["accuracy", "neg_log_loss"]},
}


@pytest.mark.parametrize("name", MISUSE)
def test_misuse_is_refused_alike(name):
    settings = {"resource": "max_iter"} | HALVED | MISUSE[name]
    assert_same_error(make(), {"learning_rate_init": RATES}, X, Y, classes=GRID, **settings)


def test_epochs_that_cannot_be_told():
    search = VectorizedHalvingGridSearchCV(Ridge(), {"alpha": [0.1, 1.0]})
    message = "max_resources='auto' means max_iter of Ridge, which must then be an int in [1, inf). Got None instead."
    with pytest.raises(InvalidParameterError, match=re.escape(message)):
        search.fit(X_NUMBERS, Y_NUMBERS)
    search.set_params(estimator=PCA(), param_grid={"n_components": [1, 2]}, max_resources=3)
    with pytest.raises(ValueError, match="Cannot use resource=epochs which is not supported by estimator PCA"):
        search.fit(X_NUMBERS)
    search.set_params(estimator=make(), param_grid={"max_iter": [3, 4]})
    with pytest.raises(ValueError, match="Cannot use parameter max_iter as the resource"):
        search.fit(X, Y)


# the rest of the contract -------------------------------------------------------------------------------------------------


def test_estimators_of_other_libraries():
    grid = {"C": [0.1, 1.0, 10.0]}
    ours = VectorizedHalvingGridSearchCV(LogisticRegression(max_iter=90), grid, cv=N_FOLDS).fit(X, Y)
    theirs = HalvingGridSearchCV(LogisticRegression(), grid, cv=N_FOLDS, resource="max_iter", max_resources=90).fit(X, Y)
    assert_same_search(ours, theirs, X)


def test_parameters_clone_and_text():
    for ours, theirs in (GRID, RANDOM):
        mine, other = ours(make(), {"learning_rate_init": RATES}), theirs(make(), {"learning_rate_init": RATES})
        given = mine.get_params(deep=False)
        assert {"max_group_memory": "auto", "resource": "epochs"}.items() <= given.items()
        expected = other.get_params(deep=False) | {"resource": "epochs", "max_group_memory": "auto"}
        assert {**given, "estimator": None} == {**expected, "estimator": None}
        assert "".join(repr(mine).split()) == "Vectorized" + "".join(repr(other).split())
        copied = clone(mine.set_params(factor=2, resource="max_iter", max_resources=7, max_group_memory=10**6))
        assert (copied.factor, copied.resource, copied.max_resources, copied.max_group_memory) == (2, "max_iter", 7, 10**6)


def test_a_fitted_halving_fits_again():
    search = VectorizedHalvingGridSearchCV(make(), {"learning_rate_init": RATES}, **HALVED).fit(X, Y)
    before = search.cv_results_["mean_test_score"]
    np.testing.assert_array_equal(search.fit(X, Y).cv_results_["mean_test_score"], before)
    assert search.predict_proba(X[:3]).shape == (3, 3)
    assert search.best_estimator_.n_iter_ == 4


def make_halvings(estimator, grid, **settings):
    settings = {"cv": 2, "error_score": "raise", "factor": 2} | settings
    return [
        VectorizedHalvingGridSearchCV(estimator, grid, **settings),
        VectorizedHalvingRandomSearchCV(estimator, grid, **settings, n_candidates=2, random_state=0),
    ]


CHECKED = {"max_iter": 16, "n_iter_no_change": np.inf, "learning_rate_init": 0.1, "random_state": 0}
CLASSIFIERS = make_halvings(MLPDeepClassifier((16,), **CHECKED), {"regularizer": [None, "l2"]}, min_resources=8)
REGRESSORS = make_halvings(
    Pipeline([("pca", PCA()), ("mlp", MLPDeepRegressor((16,), **CHECKED))]), {"mlp__dropout": [0.0, 0.01]}, min_resources=8
)
OTHERS = make_halvings(Ridge(), {"alpha": [0.1, 1.0]}, resource="n_samples", min_resources="smallest")
# What scikit-learn expects to fail for its own halvings.
EXPECTED = {
    "check_supervised_y_2d": "DataConversionWarning not caught",
    "check_requires_y_none": "Doesn't fail gracefully",
}
_other_warnings = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::RuntimeWarning")


@pytest.mark.slow
@_other_warnings
@parametrize_with_checks(CLASSIFIERS[:1], expected_failed_checks=lambda search: EXPECTED)
def test_halvings_keep_the_contract(estimator, check):
    check(estimator)


@pytest.mark.slow
@_other_warnings
@parametrize_with_checks([CLASSIFIERS[1], *REGRESSORS], expected_failed_checks=lambda search: EXPECTED)
def test_more_halvings_keep_the_contract(estimator, check):
    check(estimator)


@pytest.mark.parametrize("search", [CLASSIFIERS[0], REGRESSORS[1]], ids=["grid", "random"])
def test_halvings_validate_their_parameters(search):
    check_param_validation(type(search).__name__, clone(search))
