"""What candidates of a search share: preprocessing, memory and time."""

import itertools
import pickle
import threading
import time
import warnings

import joblib
import numpy as np
import pytest
from searches import GRID, assert_same_search, compare, counted, run
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.datasets import load_iris
from sklearn.exceptions import DataConversionWarning
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.utils import check_random_state

from skdnn import MLPDeepClassifier
from skdnn.model_selection import VectorizedGridSearchCV, VectorizedRandomizedSearchCV, _candidates, _preprocessing
from skdnn.model_selection._preprocessing import FittedOnce
from skdnn.training import memory

X, Y = load_iris(return_X_y=True)
RATES = [0.05, 0.02, 0.01, 0.005]
N_FOLDS = 2


def make(**params):
    settings = {"batch_size": 32, "max_iter": 3, "n_iter_no_change": np.inf, "random_state": 0}
    return MLPDeepClassifier((8,), **settings | params)


def make_pipe(*transformers, **params):
    steps = [(f"step{i}", transformer) for i, transformer in enumerate(transformers)]
    return Pipeline([*steps, ("mlp", make(**params))])


class Counted(TransformerMixin, BaseEstimator):
    """Scales, and counts how often it is fitted."""

    fits = 0

    def __init__(self, factor=1.0, warns=False):
        self.factor = factor
        self.warns = warns

    def fit(self, X, y=None):
        type(self).fits += 1
        if self.warns:
            warnings.warn("these are integers", DataConversionWarning, stacklevel=2)
        self.scale_ = np.abs(X).max()
        return self

    def transform(self, X):
        return X * self.factor / self.scale_


class Noise(Counted):
    """Adds noise, whose generator goes on from call to call."""

    fits = 0

    def __init__(self, random_state=None):
        self.random_state = random_state

    def fit(self, X, y=None):
        type(self).fits += 1
        self.random_ = check_random_state(self.random_state)
        return self

    def transform(self, X):
        return X + self.random_.normal(size=X.shape)


def fits_of(cls, pipeline, grid, **settings):
    """Fit a search and return how often transformers of a class were fitted before the best was."""
    before = cls.fits
    search = VectorizedGridSearchCV(pipeline, grid, cv=N_FOLDS, refit=False, **settings).fit(X, Y)
    return cls.fits - before, search


def test_preprocessing_is_fitted_once_for_each_fold_and_setting():
    grid = {"mlp__learning_rate_init": RATES, "step1__factor": [1.0, 2.0], "step1__warns": [False]}
    n_fits, search = fits_of(Counted, make_pipe(StandardScaler(), Counted()), grid)
    assert n_fits == N_FOLDS * 2
    assert_same_search(search, GRID[1](search.estimator, grid, cv=N_FOLDS, refit=False).fit(X, Y), X)


def test_preprocessing_that_leads_to_different_ones_is_shared_too():
    grid = {"mlp__learning_rate_init": RATES, "step1": [StandardScaler(), MinMaxScaler(), "passthrough"]}
    assert fits_of(Counted, make_pipe(Counted(), StandardScaler()), grid)[0] == N_FOLDS
    compare(make_pipe(Counted(), StandardScaler()), grid, X, Y, cv=N_FOLDS, scoring="neg_log_loss")


def test_candidates_that_are_fitted_alone_share_preprocessing():
    grid = {"mlp__hidden_layer_sizes": [(4,), (5,), (6,)]}
    assert fits_of(Counted, make_pipe(Counted()), grid)[0] == N_FOLDS


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_folds_that_train_on_the_same_rows_share_what_is_learned(n_jobs):
    rows = np.random.default_rng(0).permutation(len(X))
    cv = [(rows[:80], rows[80:100]), (rows[:80], rows[100:])]
    with joblib.parallel_config(backend="threading"):
        *_, counts = compare(make(), {"learning_rate_init": RATES}, X, Y, cv=cv, scoring="neg_log_loss", n_jobs=n_jobs)
    assert counts.alone == 1
    assert counts.populations == [4] * n_jobs  # two jobs do not know of one another


def spoils(estimator, X, y):
    score = estimator.score(X, y)
    estimator.coefs_[0][:] = estimator.classes_[:] = 0
    estimator.history_.clear()
    return score


@pytest.mark.parametrize("grid", [{"learning_rate_init": RATES}, {"learning_rate_init": [0.01, 0.01]}], ids=["one", "equal"])
def test_what_is_done_to_one_candidate_is_not_done_to_others(grid):
    compare(make(), grid, X, Y, cv=N_FOLDS, scoring=spoils)


@pytest.mark.parametrize("settings", [{"memory": None, "verbose": True}, {"memory": "own"}], ids=["verbose", "memory"])
def test_pipelines_that_keep_or_print_are_left_alone(settings, capsys):
    class Own:
        calls = 0

        def cache(self, func, ignore=()):
            type(self).calls += 1
            return func

        def __sklearn_clone__(self):
            return self

    own = {name: Own() if value == "own" else value for name, value in settings.items()}
    grid = {"mlp__learning_rate_init": RATES}
    assert fits_of(Counted, make_pipe(Counted()).set_params(**own), grid)[0] == N_FOLDS * len(RATES)
    assert capsys.readouterr().out.count("Processing step0") == (N_FOLDS * len(RATES) if "verbose" in settings else 0)
    assert Own.calls == (0 if "verbose" in settings else N_FOLDS * len(RATES))


def test_transformers_that_draw_from_the_global_generator_draw_anew():
    grid = {"mlp__learning_rate_init": RATES}
    assert fits_of(Noise, make_pipe(Noise()), grid)[0] == N_FOLDS * len(RATES)
    assert fits_of(Noise, make_pipe(Noise(0)), grid)[0] == N_FOLDS


@pytest.mark.parametrize("draws_here", [True, False])
def test_what_jobs_have_trained_is_found_when_another_thread_draws_meanwhile(draws_here, monkeypatch):
    here, states = threading.current_thread(), itertools.count()

    def state():
        return next(states) if (threading.current_thread() is here) == draws_here else "as before"

    monkeypatch.setattr(_preprocessing, "_global_generators", state)
    with joblib.parallel_config(backend="threading"), counted() as counts:
        search = VectorizedGridSearchCV(make_pipe(StandardScaler()), {"mlp__dropout": [0.0, 0.1]}, cv=N_FOLDS, n_jobs=2)
        search.fit(X, Y)
    assert (counts.populations, counts.alone) == ([2] * N_FOLDS, 1)


def test_candidates_do_not_see_what_others_have_done_to_a_transformer():
    # Its generator moves on with each call of transform.
    compare(make_pipe(Noise(0)), {"mlp__learning_rate_init": RATES}, X, Y, cv=N_FOLDS, scoring="neg_log_loss")
    grid = {"mlp__hidden_layer_sizes": [(4,), (5,)]}
    compare(make_pipe(Noise(np.random.RandomState(0))), grid, X, Y, cv=N_FOLDS, scoring="neg_log_loss")


def test_transformers_that_work_in_place_change_nothing_that_is_kept():
    pipeline = make_pipe(MinMaxScaler(), StandardScaler(with_std=False))
    grid = {"mlp__learning_rate_init": RATES[:2], "step1__with_mean": [True, False], "step0__feature_range": [(0, 1), (1, 3)]}
    for step in (0, 1):
        in_place = clone(pipeline).set_params(**{f"step{k}__copy": k != step for k in (0, 1)})
        # Without refitting, for that would change the rows that were given.
        compare(in_place, grid, X, Y, cv=N_FOLDS, scoring="neg_log_loss", return_train_score=True, refit=False)


def test_warnings_of_transformers_are_given_as_often():
    *_, counts = compare(make_pipe(Counted(warns=True)), {"mlp__learning_rate_init": RATES}, X, Y, cv=N_FOLDS)
    assert counts.populations == [4, 4]
    _, said = run(GRID[0], make_pipe(Counted(warns=True)), {"mlp__learning_rate_init": RATES}, X, Y, cv=N_FOLDS)
    assert [name for name, _ in said] == ["DataConversionWarning"] * (N_FOLDS * len(RATES) + 1)


def test_a_memory_has_bounds():
    rows = np.ones((10, 10))

    def fit(transformer, X, y=None, message=None):
        return transformer.fit_transform(X), transformer

    memo = FittedOnce(rows.nbytes * 2)
    remembering, before = memo.cache(fit), Counted.fits
    outputs = [remembering(Counted(factor), rows)[0] for factor in (1.0, 2.0, 1.0, 3.0, 1.0, 2.0)]
    assert Counted.fits == before + 4  # the second was let go when the third came
    assert outputs[0] is outputs[2] is outputs[4]
    assert memo.key_of(outputs[0]) != memo.key_of(outputs[5]) is not None
    assert memo.key_of(outputs[1]) is None
    memo.close()
    assert memo.key_of(outputs[0]) is None
    assert remembering(Counted(1.0), rows)[0] is not outputs[0]
    small = FittedOnce(rows.nbytes - 1)
    assert small.key_of(small.cache(fit)(Counted(), rows)[0]) is None
    assert pickle.loads(pickle.dumps(memo)) is None


@pytest.mark.parametrize("settings", [{}, {"error_score": "raise", "scoring": "no_such"}, {"cv": 1000}])
def test_the_estimator_is_as_it_was(settings):
    pipeline = make_pipe(Counted())
    before = dict(vars(pipeline))
    search = VectorizedGridSearchCV(pipeline, {"mlp__learning_rate_init": RATES}, **{"cv": N_FOLDS} | settings)
    if settings:
        with pytest.raises(ValueError, match=r"scoring|n_splits"):
            search.fit(X, Y)
    else:
        assert search.fit(X, Y).best_estimator_.memory is None
    assert search.estimator is pipeline
    assert vars(pipeline) == before
    assert not hasattr(search, "_skl_callbacks")
    assert not hasattr(search, "_call")


# time ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_each_candidate_is_charged_with_its_own_epochs(monkeypatch, n_jobs):
    together, seconds = _candidates.train_in_lockstep, 0.3

    def slowly(*args):
        time.sleep(seconds)
        return together(*args)

    monkeypatch.setattr(_candidates, "train_in_lockstep", slowly)
    grid = {"max_iter": [2, 4, 4], "learning_rate_init": [0.01]}
    search = VectorizedGridSearchCV(make(), grid, cv=N_FOLDS, refit=False, n_jobs=n_jobs)
    with joblib.parallel_config(backend="threading"):
        begin = time.time()
        results = search.fit(X, Y).cv_results_
    total = results["mean_fit_time"].sum() * N_FOLDS
    assert N_FOLDS * seconds <= total <= (time.time() - begin) * n_jobs
    # Candidates that are equal are trained once, and the first pays.
    np.testing.assert_allclose(results["mean_fit_time"][:2], [seconds / 3, seconds * 2 / 3], atol=0.1)
    assert results["mean_fit_time"][2] < 0.1
    assert (results["std_fit_time"] < 0.1).all()


# memory -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("max_group_memory", "sizes"), [(1, []), (250, [2, 2]), (399, [3]), (400, [4]), ("auto", [4])])
def test_groups_are_bounded_by_memory(max_group_memory, sizes, monkeypatch):
    monkeypatch.setattr(memory, "_bytes_of_network", lambda session: 100)
    grid = {"learning_rate_init": RATES}
    search = VectorizedGridSearchCV(make(), grid, cv=N_FOLDS, scoring="neg_log_loss", max_group_memory=max_group_memory)
    with counted() as counts:
        search.fit(X, Y)
    assert counts.populations == sizes * N_FOLDS
    assert_same_search(search, GRID[1](make(), grid, cv=N_FOLDS, scoring="neg_log_loss").fit(X, Y), X)


@pytest.mark.parametrize("cls", [VectorizedGridSearchCV, VectorizedRandomizedSearchCV])
@pytest.mark.parametrize("max_group_memory", [0, -1, 1e9, None, "all"])
def test_a_bound_must_be_bytes(cls, max_group_memory):
    search = cls(make(), {"learning_rate_init": RATES}, max_group_memory=max_group_memory)
    with pytest.raises(ValueError, match="max_group_memory"):
        search.fit(X, Y)
