"""scikit-learn's tasks of a search in other processes: they end as they do in this one, and say so here."""

import re
import threading
import warnings

import joblib
import numpy as np
import pytest
from searches import GRID, assert_same_error, assert_same_results, compare, counted
from sklearn.datasets import load_iris
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from skdnn import MLPDeepClassifier
from skdnn.model_selection import VectorizedGridSearchCV, VectorizedHalvingGridSearchCV
from skdnn.model_selection._members import TaskOutcome, _pickle, _run
from skdnn.model_selection._tasks import TakesTasks

X, Y = load_iris(return_X_y=True)
RATES = [0.05, 0.02, 0.01]
N_FOLDS = 2


def make(**params):
    settings = {"batch_size": 32, "max_iter": 3, "n_iter_no_change": np.inf, "random_state": 0}
    return MLPDeepClassifier((8,), **settings | params)


def make_search(**settings):
    settings = {"cv": N_FOLDS, "n_jobs": 2, "refit": False} | settings
    return VectorizedGridSearchCV(make(), {"learning_rate_init": RATES}, **settings)


# a backend of joblib ------------------------------------------------------------------------------------------------------


def call_in(backend, n_jobs=2):
    with joblib.parallel_config(backend=backend):
        return joblib.Parallel(n_jobs=n_jobs)(joblib.delayed(pow)(i, 2) for i in range(20))


def test_the_tasks_of_one_call_are_handed_over_at_once():
    seen = []

    def run(tasks):
        seen.append([args for _, args, _ in tasks])
        # Whatever runs in between stays in this process.
        return (function(*args) + call_in(backend)[1] for function, args, _ in tasks)

    backend = TakesTasks()
    assert call_in(backend) == [i**2 for i in range(20)]
    backend.run = run
    assert call_in(backend) == [i**2 + 1 for i in range(20)]
    assert seen == [[(i, 2) for i in range(20)]]
    assert call_in(backend) == [i**2 for i in range(20)]


def test_an_error_of_a_task_is_raised_by_the_call():
    backend = TakesTasks()
    backend.run = lambda tasks: (1 // 0 for _ in tasks)
    with pytest.raises(ZeroDivisionError):
        call_in(backend)
    assert call_in(backend) == [i**2 for i in range(20)]


# outcomes -----------------------------------------------------------------------------------------------------------------


def warn_print_and(end):
    warnings.warn("careful", UserWarning, stacklevel=1)
    print("here")
    return end()


def test_an_outcome_warns_prints_and_returns_where_it_is_replayed(capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        outcome = _run(warn_print_and, lambda: 7)
    assert capsys.readouterr().out == ""
    with pytest.warns(UserWarning, match="careful") as caught:
        assert outcome.replay() == 7
    assert caught[0].filename == __file__
    assert capsys.readouterr().out == "here\n"


def test_an_outcome_raises_where_it_is_replayed():
    with pytest.raises(ZeroDivisionError, match="modulo by zero") as caught:
        _run(lambda: 1 % 0).replay()
    assert str(caught.value) == "integer modulo by zero"
    assert "in _run" in caught.value.__notes__[0]


def test_a_warning_that_is_an_error_ends_the_task():
    with pytest.raises(UserWarning, match="careful"):
        _run(warn_print_and, lambda: 7).replay()


class TwoArgumentsError(Exception):
    def __init__(self, first, second):
        super().__init__(f"{first}: {second}")


@pytest.mark.parametrize("result", [threading.Lock(), TwoArgumentsError(1, 2)], ids=["to_pickle", "to_unpickle"])
def test_what_cannot_be_sent_is_known_beforehand(result):
    assert _pickle(TaskOutcome(result, None, [], "")) is None


# searches -----------------------------------------------------------------------------------------------------------------


def says(estimator, X, y):
    print(f"rate {estimator.learning_rate_init}")
    warnings.warn(f"{len(y)} rows", UserWarning, stacklevel=1)
    return estimator.score(X, y)


def fails_with_one(estimator, X, y):
    if estimator.learning_rate_init == RATES[1]:
        raise TwoArgumentsError("rate", RATES[1])
    return estimator.score(X, y)


@pytest.mark.parametrize(
    "settings",
    [
        {"scoring": ["accuracy", "neg_log_loss"], "refit": "neg_log_loss", "return_train_score": True},
        {"scoring": lambda estimator, X, y: {"a": estimator.score(X, y), "b": float(len(y))}, "refit": "b"},
    ],
    ids=["several_scores", "a_function"],
)
def test_scores_are_those_of_scikit_learn(settings):
    grid = {"mlp__learning_rate_init": RATES, "scaler": [StandardScaler(), "passthrough"]}
    pipe = Pipeline([("scaler", StandardScaler()), ("mlp", make())])
    *_, counts = compare(pipe, grid, X, Y, cv=N_FOLDS, n_jobs=2, **settings)
    assert (counts.populations, counts.alone) == ([], 1)


def test_what_tasks_say_is_said_here_in_order(capsys):
    said, texts = [], []
    for n_jobs in (1, 2):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            make_search(n_jobs=n_jobs, scoring=says, verbose=10).fit(X, Y)
        said.append([(warning.category, str(warning.message), warning.lineno) for warning in caught])
        texts.append(re.sub(r"\.+ ?|time=.*", "", capsys.readouterr().out))
    assert said[0] == said[1]
    assert len(said[0]) == N_FOLDS * len(RATES)
    assert texts[0] == texts[1]
    assert texts[0].count("rate 0") == N_FOLDS * len(RATES)


@pytest.mark.filterwarnings("ignore:Scoring failed", "ignore:One or more of the test scores")
def test_errors_of_scoring_are_scikit_learns():
    search = make_search(scoring=fails_with_one).fit(X, Y)
    assert np.isnan(search.cv_results_["mean_test_score"]).tolist() == [False, True, False]
    # An error that cannot be sent comes up when this process fits the candidate.
    with counted() as counts, pytest.raises(TwoArgumentsError):
        make_search(scoring=fails_with_one, error_score="raise").fit(X, Y)
    assert (counts.populations, counts.alone) == ([], 1)
    grid = {"learning_rate_init": [0.01, -1.0]}
    assert_same_error(make(), grid, X, Y, cv=N_FOLDS, n_jobs=2, error_score="raise")


def test_a_scorer_that_cannot_be_sent_scores_here():
    lock = threading.Lock()

    def score(estimator, X, y):
        with lock:
            return estimator.score(X, y)

    with counted() as counts:
        search = make_search(scoring=score).fit(X, Y)
    assert counts.total == 0
    assert_same_results(search.cv_results_, make_search(n_jobs=1).fit(X, Y).cv_results_, tolerance=1e-9)


class Noting:
    """A callback that notes the tasks of a search."""

    def __init__(self):
        self.seen = []

    def setup(self, estimator, context):
        pass

    def teardown(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context):
        self.seen.append((context.task_name, context.task_id))

    def on_fit_task_end(self, estimator, context):
        pass


def test_callbacks_listen_here():
    seen = []
    for n_jobs in (1, 2):
        callback = Noting()
        with counted() as counts:
            make_search(n_jobs=n_jobs).set_callbacks(callback).fit(X, Y)
        seen.append(callback.seen)
    assert counts.total == 0
    assert seen[0] == seen[1]
    assert ("candidate-split-evaluation", N_FOLDS * len(RATES) - 1) in seen[0]


def test_candidates_that_listeners_hear_are_fitted_here():
    grid = {"learning_rate_init": RATES, "verbose": [0, 1]}
    with counted() as counts:
        search = VectorizedGridSearchCV(make(), grid, cv=N_FOLDS, n_jobs=2, refit=False).fit(X, Y)
    assert (counts.populations, counts.alone) == ([], N_FOLDS * len(RATES))
    assert_same_results(
        search.cv_results_, GRID[1](make(), grid, cv=N_FOLDS, refit=False).fit(X, Y).cv_results_, tolerance=1e-9
    )


def test_each_rung_of_a_halving_over_rows_goes_to_the_jobs():
    def halve(n_jobs):
        search = VectorizedHalvingGridSearchCV(
            make(),
            {"learning_rate_init": RATES},
            cv=N_FOLDS,
            n_jobs=n_jobs,
            refit=False,
            resource="n_samples",
            factor=2,
            random_state=0,
        )
        return search.fit(X, Y)

    with counted() as counts:
        search = halve(2)
    assert counts.total == 0
    assert search.n_iterations_ > 1
    assert_same_results(search.cv_results_, halve(1).cv_results_, tolerance=1e-9)
    assert (search.cv_results_["mean_fit_time"] > 0).all()
