"""Tasks of which only the scores are computed: whose they are, and that they come to what scikit-learn's function comes to."""

import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
from searches import compare
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.datasets import load_iris
from sklearn.metrics import accuracy_score, make_scorer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, StandardScaler

from skdnn import MLPDeepClassifier
from skdnn.model_selection import VectorizedGridSearchCV, VectorizedHalvingGridSearchCV
from skdnn.model_selection._candidates import Candidates
from skdnn.model_selection._evaluation import Evaluation

X, Y = load_iris(return_X_y=True)
RATES = [0.05, 0.02, 0.01]
N_FOLDS = 2
IN_FULL = N_FOLDS * len(RATES)


@pytest.fixture
def in_full(monkeypatch):
    """How many tasks scikit-learn's function has run."""
    seen, call = [], Evaluation._call

    def note(evaluation, task, place):
        seen.append(place)
        return call(evaluation, task, place)

    monkeypatch.setattr(Evaluation, "_call", note)
    return seen


def make(cls=MLPDeepClassifier, **params):
    settings = {"batch_size": 32, "max_iter": 3, "n_iter_no_change": np.inf, "random_state": 0}
    return cls((8,), **settings | params)


def make_pipe(*transformers, cls=Pipeline, **settings):
    steps = [(f"step{i}", transformer) for i, transformer in enumerate(transformers)]
    return cls([*steps, ("mlp", make())], **settings)


class Scaler(TransformerMixin, BaseEstimator):
    """Divides rows, and does more when it transforms."""

    def fit(self, X, y=None):
        self.scale_ = np.abs(X).max()
        self.n_transformed_ = 0
        return self

    def transform(self, X):
        self.n_transformed_ += 1
        self.do_more()
        return X / self.scale_ + 0.1 * self.n_transformed_

    def do_more(self):
        pass


class Noise(Scaler):
    def transform(self, X):
        return super().transform(X) + np.random.normal(size=X.shape)  # noqa: NPY002


class Warns(Scaler):
    def fit(self, X, y=None):
        self.is_fitted_ = False
        return super().fit(X, y)

    def do_more(self):
        if self.n_transformed_ > 1:
            warnings.warn("again", UserWarning, stacklevel=2)


class OwnPipeline(Pipeline):
    def score(self, X, y=None, sample_weight=None, **params):
        return super().score(X, y, sample_weight, **params) / 2


class OwnFit(MLPDeepClassifier):
    def fit(self, X, y, **others):
        return super().fit(X, y, **others)


class OwnScore(MLPDeepClassifier):
    def score(self, X, y, sample_weight=None):
        return -super().score(X, y, sample_weight)


def count_and_compare(in_full, estimator, grid=None, X=X, **settings):
    """Compare with scikit-learn's search and return how many tasks were run in full."""
    prefix = "mlp__" if isinstance(estimator, Pipeline) else ""
    compare(estimator, grid or {f"{prefix}learning_rate_init": RATES}, X, Y, cv=N_FOLDS, **settings)
    return len(in_full)


SCORED = {
    "alone": (make(), {}),
    "own_score": (make(OwnScore), {}),
    "pipeline": (make_pipe(StandardScaler(), "passthrough", MinMaxScaler()), {}),
    "stateful": (make_pipe(Scaler()), {}),
    "a_metric": (make(), {"scoring": make_scorer(accuracy_score, greater_is_better=False)}),
    "probabilities": (make_pipe(StandardScaler()), {"scoring": "neg_log_loss"}),
    "several": (make_pipe(StandardScaler()), {"scoring": ["accuracy", "roc_auc_ovr"], "refit": "accuracy"}),
    "verbose": (make(), {"verbose": 1}),
}


@pytest.mark.parametrize("name", SCORED)
def test_all_but_the_first_of_each_fold_are_only_scored(name, in_full):
    estimator, settings = SCORED[name]
    assert count_and_compare(in_full, estimator, **settings) == N_FOLDS


def test_each_setting_of_other_steps_has_a_first(in_full):
    grid = {"mlp__learning_rate_init": RATES, "step0": [StandardScaler(), MinMaxScaler(), "passthrough"]}
    assert count_and_compare(in_full, make_pipe(StandardScaler()), grid) == 3 * N_FOLDS


def score(estimator, X, y):
    return float(len(X) + estimator.score(X, y))


def flawed(y, predictions):
    raise ZeroDivisionError


def vague(y, predictions):
    warnings.warn("uncertain", UserWarning, stacklevel=2)
    return accuracy_score(y, predictions)


UNUSUAL = {
    "own_scorer": (make(), {"scoring": score}),
    "train_scores": (make(), {"return_train_score": True}),
    "says_more": (make(), {"verbose": 2}),
    "own_fit": (make(OwnFit), {}),
    "own_pipeline": (make_pipe(StandardScaler(), cls=OwnPipeline), {}),
    "own_messages": (make_pipe(StandardScaler(), verbose=True), {}),
    "rows_as_they_were": (make_pipe(FunctionTransformer()), {}),
    "warns_when_it_transforms": (make_pipe(Warns()), {}),
    "warns_when_it_scores": (make(), {"scoring": make_scorer(vague)}),
}


@pytest.mark.filterwarnings("ignore:again")  # by the estimators that are compared in the end
@pytest.mark.parametrize("name", UNUSUAL)
def test_what_is_unusual_is_left_to_scikit_learn(name, in_full):
    estimator, settings = UNUSUAL[name]
    assert count_and_compare(in_full, estimator, **settings) == IN_FULL


@pytest.mark.filterwarnings("ignore:Scoring failed", "ignore:One or more of the test scores")
def test_a_metric_that_fails_fails_as_it_does_there(in_full):
    assert count_and_compare(in_full, make(), scoring=make_scorer(flawed)) == IN_FULL


def test_transformers_that_draw_do_so_for_each_candidate(in_full):
    VectorizedGridSearchCV(make_pipe(Noise()), {"mlp__learning_rate_init": RATES}, cv=N_FOLDS).fit(X, Y)
    assert len(in_full) == IN_FULL


def test_a_candidate_that_fails_is_not_a_first(in_full):
    grid = {"learning_rate_init": [-1.0, *RATES]}
    assert count_and_compare(in_full, make(), grid, error_score=0.5) == 2 * N_FOLDS


def test_candidates_that_are_alike_are_scored_alike(in_full):
    assert count_and_compare(in_full, make(), {"learning_rate_init": [*RATES, RATES[0]]}) == N_FOLDS


def test_candidates_that_train_on_from_rung_to_rung_are_scored_once_each(in_full):
    scored = []

    def note(y, predictions):
        scored.append(len(y))
        return accuracy_score(y, predictions)

    settings = {"scoring": make_scorer(note), "return_train_score": False, "cv": N_FOLDS, "factor": 2, "refit": False}
    search = VectorizedHalvingGridSearchCV(make(max_iter=4), {"learning_rate_init": RATES}, **settings).fit(X, Y)
    assert len(scored) == len(in_full) == N_FOLDS * sum(search.n_candidates_)


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_frames_keep_their_names(n_jobs, in_full):
    frame = pd.DataFrame(X, columns=list("abcd"))
    with sklearn.config_context(transform_output="pandas"):
        count_and_compare(in_full, make_pipe(StandardScaler()), X=frame, n_jobs=n_jobs)
    assert len(in_full) == (N_FOLDS if n_jobs == 1 else 0)  # in other processes


def test_jobs_in_threads_leave_scores_to_this_one(in_full):
    with joblib.parallel_config(backend="threading"):
        assert count_and_compare(in_full, make_pipe(StandardScaler()), n_jobs=2) == N_FOLDS


def test_a_metric_that_warns_of_one_candidate_is_tried_once_before_it_is_left_to_scikit_learn(in_full):
    scored = []

    def note(y, predictions):
        scored.append(len(y))
        if len(scored) == 3:  # the first is scored both ways
            warnings.warn("uncertain", UserWarning, stacklevel=2)
        return accuracy_score(y, predictions)

    settings = {"scoring": make_scorer(note), "cv": N_FOLDS, "refit": False}
    VectorizedGridSearchCV(make(), {"learning_rate_init": RATES}, **settings).fit(X, Y)
    assert len(in_full) == N_FOLDS + 1
    # What scikit-learn's function runs is scored again to compare, and the one that is left was tried before.
    assert len(scored) == IN_FULL + N_FOLDS + 1 + 1


def test_candidates_of_a_fold_are_scored_and_let_go_with_its_first(in_full, monkeypatch):
    turns, forget = [], Candidates.forget

    def note(candidates, *args):
        turns.append(candidates.turn)
        forget(candidates, *args)
        assert len(candidates._learned) == len(RATES) - 1 - turns.count(candidates.turn)

    monkeypatch.setattr(Candidates, "forget", note)
    assert count_and_compare(in_full, make()) == N_FOLDS
    assert turns == [fold for fold in range(N_FOLDS) for _ in RATES[1:]]


@pytest.mark.parametrize("are_forgotten", [False, True], ids=["known", "forgotten"])
def test_transformed_rows_are_let_go_when_all_candidates_are_trained(are_forgotten, in_full, monkeypatch):
    kept, call = [], Evaluation._call

    def note(evaluation, task, place):
        result = call(evaluation, task, place)
        kept.append(set(evaluation._memory._kept))
        if are_forgotten:  # other candidates have to find what was learned all the same
            evaluation._places.clear()
        return result

    monkeypatch.setattr(Evaluation, "_call", note)
    n_in_full = count_and_compare(in_full, make_pipe(StandardScaler(), MinMaxScaler()))
    if are_forgotten:
        assert n_in_full == IN_FULL
    else:
        assert [len(keys) for keys in kept] == [1, 2]  # of rows to test alone


def test_rows_for_which_there_is_no_room_are_transformed_again(in_full, monkeypatch):
    monkeypatch.setattr("skdnn.model_selection._search._SHARE_OF_MEMORY", 0.0)
    assert count_and_compare(in_full, make_pipe(StandardScaler())) == IN_FULL
    in_full.clear()
    monkeypatch.setattr("skdnn.model_selection._search.free_memory", lambda: X[:75].nbytes + 10)
    monkeypatch.setattr("skdnn.model_selection._search._SHARE_OF_MEMORY", 1.0)
    assert N_FOLDS <= count_and_compare(in_full, make_pipe(StandardScaler())) <= IN_FULL
