"""Searches over hyperparameters: candidates that train in lockstep, and candidates that are fitted one by one."""

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from joblib.externals.loky import get_reusable_executor
from sklearn.model_selection import ParameterGrid
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MinMaxScaler

from benchmarks.measure import in_turn, summary, timed
from benchmarks.workloads import MISSING, WORKLOADS, Task, Workload, load
from skdnn.components import L1, L2, Momentum

N_FOLDS = 3


@dataclass(frozen=True)
class Search:
    """Candidates for one workload, each a pipeline of a `MinMaxScaler` and an estimator.

    Attributes
    ----------
    workload : Workload
        What its candidates have in common; its band is for the best candidate's mean score over the folds.
    grid : dict or list of dict
        As scikit-learn's `ParameterGrid` takes it. The names are those of `MLPClassifier` as far as that has the parameter.
    contestants : tuple of str
        Names in `SEARCHERS`.
    """

    workload: Workload
    grid: dict | list
    contestants: tuple

    @property
    def candidates(self):
        """The candidates, a list of dict."""
        return list(ParameterGrid(self.grid))

    def quickened(self):
        """Return the same search with fewer rows and epochs, and one round."""
        n_rows = min(self.workload.n_rows or np.inf, 1_500)
        epochs = max(1, self.workload.epochs // 4)
        workload = replace(self.workload, n_rows=n_rows, epochs=epochs, rounds=1, band=self.workload.band - 0.2)
        return replace(self, workload=workload)


@dataclass(frozen=True)
class Searcher:
    """One way to search.

    Attributes
    ----------
    name : str
    search : str
        The class of the search, as "module:class".
    estimator : str
        The function that makes the estimator of a task and a seed, as "module:function" in `benchmarks.contestants`.
    needs : str
        The package without which it is left out.
    translate : callable
        From a name, a value and the batch size to the estimator's own name and value.
    n_candidates : int or None
        How many of the candidates it is given where all of them would take too long; its time is then told as if it had been
        given all.
    settings : dict
        Of the search, beside estimator, candidates, ``cv`` and ``n_jobs``.
    is_exact : bool
        Whether its scores are to be those of the first contestant.
    """

    name: str
    search: str
    estimator: str
    needs: str
    translate: Callable
    n_candidates: int | None = None
    settings: dict = field(default_factory=dict)
    is_exact: bool = False

    @property
    def is_installed(self):
        """Whether the package that it needs is there."""
        return importlib.util.find_spec(self.needs) is not None

    def choose(self, candidates):
        """Return the candidates that it is given: all, or some that are spread evenly over them."""
        if self.n_candidates is None or self.n_candidates >= len(candidates):
            return candidates
        return [candidates[i] for i in np.linspace(0, len(candidates) - 1, self.n_candidates).round().astype(int)]

    def make(self, task, candidates, seed=0, n_jobs=None):
        """Return the search over candidates for a task, not fitted."""
        batch_size = task.workload.batch_size
        translated = [
            {f"net__{name}": [value] for name, value in (self.translate(*item, batch_size) for item in candidate.items())}
            for candidate in candidates
        ]
        estimator = _load(f"benchmarks.contestants.{self.estimator}")(task, seed)
        pipeline = Pipeline([("scaler", MinMaxScaler()), ("net", estimator)])
        return _load(self.search)(pipeline, translated, cv=N_FOLDS, n_jobs=n_jobs, **self.settings)


def _load(path):
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def _for_mlp_classifier(name, value, batch_size):
    return name, value


def _for_skdnn(name, value, batch_size):
    if name == "alpha":
        return "regularizer", L2(value / batch_size)
    return ("optimizer", Momentum(value)) if name == "momentum" else (name, value)


def _for_skorch(name, value, batch_size):
    return {
        "learning_rate_init": ("lr", value),
        "momentum": ("optimizer__momentum", value),
        "alpha": ("optimizer__weight_decay", value / batch_size),
    }[name]


OURS = "VectorizedGridSearchCV"
_ONE_BY_ONE = "sklearn.model_selection:GridSearchCV"

# What others are compared with comes first.
SEARCHERS = {
    searcher.name: searcher
    for searcher in [
        Searcher(OURS, "skdnn.model_selection:VectorizedGridSearchCV", "estimators:make_skdnn", "skdnn", _for_skdnn),
        Searcher("GridSearchCV(MLPDeepClassifier)", _ONE_BY_ONE, "estimators:make_skdnn", "skdnn", _for_skdnn, is_exact=True),
        Searcher("GridSearchCV(MLPClassifier)", _ONE_BY_ONE, "estimators:make_mlp_classifier", "sklearn", _for_mlp_classifier),
        Searcher("GridSearchCV(skorch)", _ONE_BY_ONE, "skorch_net:make_skorch", "skorch", _for_skorch, n_candidates=4),
    ]
}

SEARCHES = {
    search.workload.name: search
    for search in [
        Search(
            replace(WORKLOADS["digits"], rounds=9, band=0.93),
            {"learning_rate_init": [0.01, 0.02, 0.05, 0.1], "momentum": [0.0, 0.5, 0.9], "alpha": [3e-4, 3e-2]},
            tuple(SEARCHERS),
        ),
        Search(
            replace(WORKLOADS["MNIST b50"], name="MNIST, 10,000 rows", n_rows=10_000, epochs=1, rounds=9, band=0.85),
            [
                grid | {"learning_rate_init": [0.01, 0.03]}
                for grid in (
                    {"momentum": [0.5, 0.9], "initializer": ["he_normal", "glorot_uniform"]},
                    {"momentum": [0.9], "regularizer": [L1(1e-5), L1(1e-4), L2(1e-4), L2(1e-3)]},
                    {"momentum": [0.9], "max_norm": [1.0, 3.0], "dropout": [0.0, 0.2]},
                )
            ],
            (OURS, "GridSearchCV(MLPDeepClassifier)"),
        ),
    ]
}


def search_times(searches=tuple(SEARCHES), quick=False, log=print):
    """Search in turn, with all candidates on three folds and a last fit of the best one on all rows.

    Returns
    -------
    results : dict
        From search to what `search_one` returns.
    """
    results = {}
    for name in searches:
        search = SEARCHES[name].quickened() if quick else SEARCHES[name]
        task = _task(search.workload)
        if task is None:
            log(f"{name}: left out, {MISSING[search.workload.data]}")
            continue
        results[name] = search_one(search, task)
        log(_line(name, results[name]))
    return results


def _task(workload):
    """Return the task of all rows that there are: the folds set some aside."""
    data = load(workload.data)
    if data is None:
        return None
    return Task.with_data(workload, np.concatenate([data.X, data.X_test]), np.concatenate([data.y, data.y_test]))


def search_one(search, task):
    """Search for one task in turn.

    Returns
    -------
    result : dict
        ``"contestants"``: from name to ``{"seconds", "n_cores", "best_score"}`` and, for those that are to agree with the first
        one, what `compare` returns; ``"n_rows"``, ``"n_candidates"``, ``"n_folds"`` and
        ``"band"``.
    """
    candidates = search.candidates
    searchers = [SEARCHERS[name] for name in search.contestants if SEARCHERS[name].is_installed]
    runs = {searcher.name: {"seconds": [], "n_cores": []} for searcher in searchers}
    calls = {
        searcher.name: lambda _, searcher=searcher: lambda: _fit(searcher, task, searcher.choose(candidates))
        for searcher in searchers
    }
    for searcher in searchers:
        _warm_up(searcher, task, candidates)
    fitted = {}
    for name, found, seconds, n_cores in in_turn(calls, task.workload.rounds, n_warm=0):
        share = len(candidates) / len(SEARCHERS[name].choose(candidates))
        # As if it had been given all candidates: the last fit is one all the same.
        runs[name]["seconds"].append((seconds - found.refit_time_) * share + found.refit_time_)
        runs[name]["n_cores"].append(n_cores)
        fitted[name] = found
    for searcher in searchers:
        run, found = runs[searcher.name], fitted[searcher.name]
        run |= {"n_given": len(searcher.choose(candidates)), "best_score": float(found.best_score_)}
        if searcher.is_exact:
            run |= compare(fitted[searchers[0].name], found, len(task.X))
    return {
        "contestants": runs,
        "n_rows": len(task.X),
        "n_candidates": len(candidates),
        "n_folds": N_FOLDS,
        "band": task.workload.band,
    }


def _fit(searcher, task, candidates, **settings):
    return searcher.make(task, candidates, **settings).fit(task.X, task.y)


def _warm_up(searcher, task, candidates, **settings):
    """Search a little, which loads and starts what there is to load and start."""
    few = Task.with_data(replace(task.workload, epochs=1), task.X[:500], task.y[:500])
    _fit(searcher, few, [candidates[0], candidates[-1]], **settings)


def compare(ours, theirs, n_rows):
    """Say whether two fitted searches over the same candidates agree.

    Returns
    -------
    comparison : dict
        ``"same_best"``: whether both found the same candidate; ``"difference"``: the largest of an accuracy of any candidate on
        any fold; ``"votes"``: the rows of a fold that make it.
    """
    names = [f"split{i}_test_score" for i in range(N_FOLDS)]
    difference = float(max(np.abs(ours.cv_results_[name] - theirs.cv_results_[name]).max() for name in names))
    votes = round(difference * n_rows / N_FOLDS)
    return {"same_best": bool(ours.best_index_ == theirs.best_index_), "difference": difference, "votes": votes}


def process_times(search="digits", n_processes=2, quick=False, log=print):
    """Search in lockstep in one process and in several, in turn, each on one thread.

    Returns
    -------
    results : dict
        From search to ``{"seconds": {"1": of each round, str(n_processes): of each round}, "cold"}`` and what `compare`
        returns; cold are the seconds of the first search in several processes, which starts them.
    """
    chosen = SEARCHES[search].quickened() if quick else SEARCHES[search]
    task, searcher = _task(chosen.workload), SEARCHERS[OURS]
    if task is None:
        return {}
    candidates = chosen.candidates
    calls = {str(n): lambda _, n=n: lambda: _fit(searcher, task, candidates, n_jobs=n) for n in (1, n_processes)}
    _warm_up(searcher, task, candidates)
    get_reusable_executor().shutdown(wait=True)
    _, cold, _ = timed(calls[str(n_processes)](0))
    seconds, fitted = {name: [] for name in calls}, {}
    for name, found, duration, _ in in_turn(calls, chosen.workload.rounds, n_warm=0):
        seconds[name].append(duration)
        fitted[name] = found
    result = {"seconds": seconds, "cold": cold} | compare(*fitted.values(), len(task.X))
    log(f"{search}: " + ", ".join(f"{n} processes {np.median(s):.2f} s" for n, s in seconds.items()) + f", cold {cold:.2f} s")
    return {search: result}


def _line(name, result):
    parts = [
        f"{contestant} {summary(run['seconds'])['median']:.2f} s ({run['best_score']:.3f})"
        for contestant, run in result["contestants"].items()
    ]
    return f"{name}: " + ", ".join(parts)
