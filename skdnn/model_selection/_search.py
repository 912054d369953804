"""scikit-learn's searches, with candidates that train together."""

import joblib
from joblib import Parallel, delayed
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.utils import indexable

from skdnn._together import trained_by
from skdnn._validation import check_method_params, split_safely
from skdnn.model_selection._candidates import Candidates

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
        def evaluate(candidate_params, cv=None, **kwargs):
            parameters = list(candidate_params)
            X, y, params, parallel, n_jobs = self._call
            X, y = indexable(X, y)
            routed = self._get_routed_params_for_fit(check_method_params(X, params=params))
            splits = list((cv or self._checked_cv_orig).split(X, y, **routed.splitter.split))
            candidates = Candidates(clone(self.estimator), parameters, _MAX_GROUP)
            if parallel is not None:
                tasks = (
                    delayed(_train_ahead)(clone(self.estimator), parameters, members, X, y, train, routed.estimator.fit)
                    for train, _ in splits
                    for members in candidates.divide(n_jobs)
                )
                for learned in parallel(tasks):
                    candidates.add(learned)
            with trained_by(candidates):
                return evaluate_candidates(parameters, cv=_Splits(splits), **kwargs)

        super()._run_search(evaluate, callback_ctx=callback_ctx)


def _train_ahead(estimator, parameters, members, X, y, train, fit_params):
    """Train some candidates on a fold, which differ in the last step only, and return what they have learned."""
    candidates = Candidates(estimator, parameters, _MAX_GROUP, members)
    X_train, y_train = split_safely(estimator, X, y, train)
    fit_params = check_method_params(X, params=fit_params, indices=train)
    with trained_by(candidates):
        try:
            first = clone(estimator).set_params(**clone(parameters[members[0]], safe=False))
            first.fit(X_train, **fit_params) if y_train is None else first.fit(X_train, y_train, **fit_params)
        except Exception:  # the search meets it again, and does with it what it was told to
            pass
    return candidates.learned()


class VectorizedGridSearchCV(_TrainsTogether, GridSearchCV):
    """`GridSearchCV` that trains candidates in lockstep."""


class VectorizedRandomizedSearchCV(_TrainsTogether, RandomizedSearchCV):
    """`RandomizedSearchCV` that trains candidates in lockstep."""
