"""scikit-learn's searches, with candidates that train together."""

import warnings
from numbers import Integral

import joblib
from joblib import Parallel, delayed
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.utils import indexable

from skdnn._base import BaseMLPDeep
from skdnn._together import trained_by
from skdnn._validation import check_method_params, split_safely
from skdnn.model_selection._candidates import Candidates, last_step

# Networks that train together at most: beyond it a network's share of a step hardly falls.
_MAX_GROUP = 64


class _Splits:
    """Splits that have been drawn, so that candidates are trained and scored on the same."""

    def __init__(self, splits):
        self._splits = splits

    def split(self, X=None, y=None, groups=None, **params):
        return iter(self._splits)


class _TrainsTogether:
    """What makes a search of scikit-learn train its candidates together.

    The search itself is scikit-learn's: splits, parameters, scores and what becomes of errors. While it runs, the first fit of
    a fold trains all candidates that can be trained with it in lockstep, and the others find themselves done. With several
    jobs, each fold's candidates are divided among them and trained before the search goes through its fits.
    """

    def fit(self, X, y=None, **params):
        if not isinstance(last_step(self.estimator), BaseMLPDeep) or not isinstance(self.n_jobs, Integral | None):
            return super().fit(X, y, **params)
        # What candidates have learned is here: going through them must not leave this process.
        outer, _ = joblib.parallel.get_active_backend()
        n_jobs = joblib.effective_n_jobs(self.n_jobs)
        self._call = X, y, params, Parallel(n_jobs=self.n_jobs, backend=outer) if n_jobs > 1 else None, n_jobs
        try:
            with joblib.parallel_config(backend="sequential"):
                return super().fit(X, y, **params)
        finally:
            del self._call

    def _run_search(self, evaluate_candidates, callback_ctx=None):
        if not hasattr(self, "_call"):
            super()._run_search(evaluate_candidates, callback_ctx=callback_ctx)
            return

        def evaluate(candidate_params, cv=None, **kwargs):
            parameters = list(candidate_params)
            candidates = Candidates(self.estimator, parameters, _MAX_GROUP)
            candidates.allow_runs(self.n_splits_)
            if self._call[3] is not None:
                cv = self._train_ahead(parameters, candidates, cv or self._checked_cv_orig)
            with trained_by(candidates):
                return evaluate_candidates(parameters, cv=cv, **kwargs)

        super()._run_search(evaluate, callback_ctx=callback_ctx)

    def _train_ahead(self, parameters, candidates, cv):
        """Train the candidates of all folds in several processes, and return the splits that were used."""
        X, y, params, parallel, n_jobs = self._call
        X, y = indexable(X, y)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the search has said it
            routed = self._get_routed_params_for_fit(check_method_params(X, params=params))
        splits = list(cv.split(X, y, **routed.splitter.split))
        tasks = (
            delayed(_train_members)(self.estimator, parameters, members, X, y, train, routed.estimator.fit)
            for train, _ in splits
            for members in candidates.divide(n_jobs)
        )
        for learned in parallel(tasks):
            candidates.add(learned)
        return _Splits(splits)


def _train_members(estimator, parameters, members, X, y, train, fit_params):
    """Train some candidates on a fold, which differ in the last step only, and return what they have learned."""
    candidates = Candidates(estimator, parameters, _MAX_GROUP, members=members)
    X_train, y_train = split_safely(estimator, X, y, train)
    fit_params = check_method_params(X, params=fit_params, indices=train)
    first = clone(estimator).set_params(**clone(parameters[members[0]], safe=False))
    with trained_by(candidates):
        try:
            first.fit(X_train, y_train, **fit_params)
        except Exception:  # the search meets it again, and does with it what it was told to
            return {}
    return candidates.learned()


class VectorizedGridSearchCV(_TrainsTogether, GridSearchCV):
    """`GridSearchCV` that trains candidates in lockstep.

    Constructor, attributes and results are those of `sklearn.model_selection.GridSearchCV`. Candidates of an estimator of
    skdnn, alone or as the last step of a pipeline, that have the same layer sizes and batches train together on
    each fold; others are fitted one by one. Times in `cv_results_` are those of a group at its first candidate.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skdnn import MLPDeepClassifier
    >>> from skdnn.model_selection import VectorizedGridSearchCV
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = MLPDeepClassifier((8,), max_iter=20, n_iter_no_change=20, random_state=0)
    >>> search = VectorizedGridSearchCV(clf, {"learning_rate_init": [1e-4, 1e-2], "max_norm": [None, 2.0]}, cv=3).fit(X, y)
    >>> search.best_params_["learning_rate_init"]
    0.01
    """


class VectorizedRandomizedSearchCV(_TrainsTogether, RandomizedSearchCV):
    """`RandomizedSearchCV` that trains candidates in lockstep.

    Constructor, attributes and results are those of `sklearn.model_selection.RandomizedSearchCV`; see `VectorizedGridSearchCV`.

    Examples
    --------
    >>> from scipy.stats import loguniform
    >>> from sklearn.datasets import load_iris
    >>> from skdnn import MLPDeepClassifier
    >>> from skdnn.model_selection import VectorizedRandomizedSearchCV
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = MLPDeepClassifier((8,), max_iter=20, n_iter_no_change=20, random_state=0)
    >>> rates = {"learning_rate_init": loguniform(1e-4, 1e-1)}
    >>> search = VectorizedRandomizedSearchCV(clf, rates, n_iter=5, cv=3, random_state=0).fit(X, y)
    >>> search.cv_results_["mean_test_score"].shape
    (5,)
    """
