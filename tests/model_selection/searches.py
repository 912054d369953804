"""A search of skdnn's and scikit-learn's own on the same data, held against each other."""

import contextlib
import copy
import re
import warnings
from dataclasses import dataclass

import numpy as np
import pytest
from joblib.parallel import BACKENDS, get_active_backend
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV

from skdnn.model_selection import VectorizedGridSearchCV, VectorizedRandomizedSearchCV, _candidates
from skdnn.training import TrainingRun

GRID = VectorizedGridSearchCV, GridSearchCV
RANDOM = VectorizedRandomizedSearchCV, RandomizedSearchCV
# In the traceback of an error of preprocessing: what a pipeline remembers it by is not the same.
_FRAMES_OF_MEMORY = re.compile(r' *File ".*(joblib.memory|model_selection._preprocessing)\.py".*\n(?: {4}.*\n)+')
TIMES = {f"{kind}_{what}_time" for kind in ("mean", "std") for what in ("fit", "score")}


@dataclass
class Trainings:
    """How many networks trained together, population by population, and how many alone."""

    populations: list
    alone: int = 0

    @property
    def total(self):
        return sum(self.populations) + self.alone


@contextlib.contextmanager
def counted():
    """Count what is trained in this process."""
    counts, together, alone = Trainings([]), _candidates.train_in_lockstep, TrainingRun.train

    def train_in_lockstep(nets, *args):
        counts.populations.append(len(nets))
        return together(nets, *args)

    def train(net, *args, **kwargs):
        counts.alone += 1
        return alone(net, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_candidates, "train_in_lockstep", train_in_lockstep)
        patch.setattr(TrainingRun, "train", train)
        yield counts


def run(cls, estimator, grid, X, y, fit_params=None, **settings):
    """Fit a search; return it, or the error it raised, and the warnings it gave, sorted."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        # loky's idle processes end after five minutes, which may be just now.
        warnings.filterwarnings("ignore", message="A worker stopped while some jobs were given to the executor")
        search = cls(estimator, grid, **settings)
        try:
            search.fit(X, y, **fit_params or {})
        except Exception as error:
            search = error
    # What a message shows of the search itself depends on the length of its class' name.
    said = (_FRAMES_OF_MEMORY.sub("", str(warning.message).split(f" {cls.__name__}(")[0]) for warning in caught)
    return search, sorted(zip((warning.category.__name__ for warning in caught), said, strict=True))


def run_both(estimator, grid, X, y, fit_params=None, *, classes=GRID, **settings):
    """Fit both searches and return the results of `run` of each, and what the first has trained.

    What has a state, such as a splitter's generator, is for each search as it was given.
    """
    ours, theirs = classes
    own = {name: copy.deepcopy(value) if name in ("cv", "random_state") else value for name, value in settings.items()}
    with counted() as counts:
        mine = run(ours, estimator, grid, X, y, fit_params, **own)
    return mine, run(theirs, estimator, grid, X, y, fit_params, **settings), counts


def compare(estimator, grid, X, y, fit_params=None, *, tolerance=1e-9, **settings):
    """Fit both searches, hold one against the other, and return them and what the first has trained."""
    (ours, said), (theirs, expected), counts = run_both(estimator, grid, X, y, fit_params, **settings)
    for result in (theirs, ours):
        if isinstance(result, Exception):
            raise result
    if not isinstance(get_active_backend()[0], BACKENDS["threading"]):
        assert said == expected, f"{said} and not {expected}"
    # In threads it is a matter of chance which of them catches a warning, in scikit-learn's search as in ours: what
    # `warnings.catch_warnings` changes is the process'.
    assert_same_search(ours, theirs, X, tolerance)
    return ours, theirs, counts


def assert_same_error(estimator, grid, X, y, fit_params=None, **settings):
    """Fit both searches, of which both must raise the same."""
    (mine, said), (error, expected), _ = run_both(estimator, grid, X, y, fit_params, **settings)
    assert isinstance(error, Exception)
    assert isinstance(mine, Exception), f"no {type(error).__name__}"
    assert type(mine) is type(error)
    names = (cls.__name__ for cls in settings.get("classes", GRID))
    assert str(mine).replace(*names) == str(error)
    assert said == expected
    return error


def same(a, b):
    """Whether two values of a parameter are the same."""
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return np.array_equal(a, b)
    return a is b or bool(a == b)


def assert_same_results(mine, theirs, tolerance):
    """Hold one ``cv_results_`` against another: keys, types, parameters, scores, ranks."""
    assert list(mine) == list(theirs)
    for name, expected in theirs.items():
        values = mine[name]
        assert type(values) is type(expected), name
        if name == "params":
            assert [list(candidate) for candidate in values] == [list(candidate) for candidate in expected]
            for candidate, other in zip(values, expected, strict=True):
                assert all(same(candidate[key], other[key]) for key in other)
            continue
        assert values.dtype == expected.dtype, name
        assert values.shape == expected.shape, name
        if name in TIMES:
            assert (values >= 0).all(), name
        elif name.startswith("param_"):
            assert np.array_equal(values.mask, expected.mask), name
            assert all(same(a, b) for a, b in zip(values.compressed(), expected.compressed(), strict=True)), name
        elif not name.startswith("rank_"):
            np.testing.assert_allclose(values, expected, rtol=0.0, atol=tolerance, err_msg=name)
        elif tolerance < 1e-6:
            np.testing.assert_array_equal(values, expected, err_msg=name)


def own_parameters(ours, theirs):
    """The parameters that a search has beside those of scikit-learn's."""
    return ours.get_params(deep=False).keys() - theirs.get_params(deep=False).keys()


def assert_same_search(ours, theirs, X, tolerance=1e-9):
    """Hold a fitted search against another of the same parameters."""
    assert vars(ours).keys() - own_parameters(ours, theirs) == vars(theirs).keys()
    assert_same_results(ours.cv_results_, theirs.cv_results_, tolerance)
    assert (ours.n_splits_, ours.multimetric_) == (theirs.n_splits_, theirs.multimetric_)
    if tolerance > 1e-6:
        return
    assert hasattr(ours, "best_index_") == hasattr(theirs, "best_index_")
    if hasattr(ours, "best_index_"):
        assert ours.best_index_ == theirs.best_index_
        assert type(ours.best_index_) is type(theirs.best_index_)
        assert all(same(value, theirs.best_params_[name]) for name, value in ours.best_params_.items())
        if hasattr(theirs, "best_score_"):
            assert ours.best_score_ == pytest.approx(theirs.best_score_, abs=tolerance, nan_ok=True)
            assert type(ours.best_score_) is type(theirs.best_score_)
    assert hasattr(ours, "best_estimator_") == hasattr(theirs, "best_estimator_")
    if hasattr(ours, "best_estimator_"):
        # What is refitted is fitted alone.
        np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))
        assert getattr(ours, "n_features_in_", None) == getattr(theirs, "n_features_in_", None)
