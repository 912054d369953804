"""scikit-learn's successive halving over epochs, with candidates that train on from rung to rung."""

from functools import partial
from math import floor, log
from numbers import Integral

import numpy as np
from sklearn.experimental import enable_halving_search_cv  # noqa: F401 (the next line needs it)
from sklearn.model_selection import HalvingGridSearchCV, HalvingRandomSearchCV

from skdnn._together import trained_by
from skdnn.exceptions import InvalidParameterError
from skdnn.model_selection._evaluation import Evaluation
from skdnn.model_selection._preprocessing import last_step
from skdnn.model_selection._rungs import RungCandidates
from skdnn.model_selection._search import OF_GROUPS, TrainsTogether


class _TrainsOn(TrainsTogether):
    """What makes a halving of scikit-learn train its candidates together, and on from rung to rung where these are epochs."""

    def fit(self, X, y=None, **params):
        given = self.resource, self.max_resources
        epochs = _name_of_epochs(self.estimator)
        try:
            if epochs is not None and self.resource in ("epochs", epochs):
                self.resource = epochs
                if self.max_resources == "auto":
                    self.max_resources = _max_iter(self.estimator)
            return super().fit(X, y, **params)
        finally:
            self.resource, self.max_resources = given

    def _run_search(self, evaluate_candidates, callback_ctx=None):
        if not hasattr(self, "_call") or self.resource != _name_of_epochs(self.estimator):
            super()._run_search(evaluate_candidates, callback_ctx=callback_ctx)
            return
        call = self._call

        def evaluate(parameters, cv, **kwargs):
            if call.candidates is None:
                n_epochs = self._epochs_of_last_rung(len(parameters))
                call.candidates = RungCandidates(
                    self.estimator, parameters, self.resource, n_epochs, self.n_splits_, self.max_group_memory, call.memory
                )
            call.candidates.begin_rung(parameters, self.n_resources_[-1])
            call.tasks.run = partial(Evaluation(call.candidates, call.memory, call.is_heard).run, n_folds=self.n_splits_)
            with trained_by(call.candidates):
                return evaluate_candidates(parameters, cv, **kwargs)

        try:
            # Not by way of the processes of several jobs: what is suspended is in this one.
            super(TrainsTogether, self)._run_search(evaluate, callback_ctx=callback_ctx)
        finally:
            call.memory.close()
            if call.candidates is not None:
                call.candidates.close()

    def _epochs_of_last_rung(self, n_candidates):
        """What the last entry of `n_resources_` is going to be."""
        n_required, n_possible = (
            1 + floor(log(ratio, self.factor)) for ratio in (n_candidates, self.max_resources_ // self.min_resources_)
        )
        power = (n_possible if self.aggressive_elimination else min(n_required, n_possible)) - 1
        return min(int(self.factor**power * self.min_resources_), self.max_resources_)


def _name_of_epochs(estimator):
    """The parameter that is the number of epochs of the last step, or None where that has none."""
    final = last_step(estimator)
    if not hasattr(final, "max_iter"):
        return None
    return "max_iter" if final is estimator else f"{estimator.steps[-1][0]}__max_iter"


def _max_iter(estimator):
    final = last_step(estimator)
    if not isinstance(final.max_iter, Integral) or final.max_iter < 1:
        raise InvalidParameterError(
            f"max_resources='auto' means max_iter of {type(final).__name__}, which must then be an int in [1, inf). Got "
            f"{final.max_iter!r} instead. Give max_resources a number of epochs."
        )
    return final.max_iter


class VectorizedHalvingGridSearchCV(_TrainsOn, HalvingGridSearchCV):
    """`HalvingGridSearchCV` over epochs, with candidates that train on, together, from rung to rung.

    The first rung trains all candidates for a few epochs. Each rung after it keeps the best of them and trains these on, with
    their weights and their optimizers' state, where scikit-learn's refits from zero; the others leave. Attributes and results
    are those of `sklearn.model_selection.HalvingGridSearchCV`.

    A rung of e epochs scores what a fit with ``max_iter=e`` would be, but that a schedule of the learning rate which depends on
    `max_iter`, such as a cosine, sees the epochs of the last rung: for such a one it is only that rung which scores what a fit
    of its own would be. A candidate that stops early (`early_stopping`, `n_iter_no_change`) does so at its epoch, and stays as
    it is. One that fails is fitted alone and gets its `error_score`.

    The candidates of all folds are suspended between rungs, so that their networks, the optimizers' state and the rows of each
    fold are in memory at once. Candidates with `callbacks` or `verbose` are fitted from zero at each rung.

    Parameters
    ----------
    estimator : estimator
        One of skdnn, or a `Pipeline` that ends with one; any other is searched as scikit-learn does.

    param_grid : dict or list of dict
        Names of parameters and the values to try, or several such grids.

    factor : int or float in (0, inf), default=3
        One of so many candidates goes on to the next rung, which has so many times the epochs.

    resource : str, default="epochs"
        What rungs have more and more of: epochs, which is `max_iter` of the last step by its own name or this one; or, as
        scikit-learn has it, "n_samples" or another parameter of `estimator`. Candidates train on from rung to rung where it is
        epochs, and from zero otherwise.

    max_resources : int in (0, inf) or "auto", default="auto"
        What a candidate gets at most; by default the last step's own `max_iter`, or all rows.

    min_resources : {"exhaust", "smallest"} or int in (0, inf), default="exhaust"
        What a candidate gets in the first rung: "smallest" is 1 epoch, "exhaust" as many as let the last rung come as near as
        possible to `max_resources`.

    aggressive_elimination : bool, default=False
        Whether to repeat the first rung, which then costs no training, until few enough candidates are left.

    cv : int, cross-validation generator or iterable, default=5
        The splits, which must be the same each time that they are asked for.

    scoring : str or callable, default=None
        What to score candidates by; None for the estimator's own score.

    refit : bool or callable, default=True
        Whether to fit the best candidate of the last rung to all rows, with the epochs of that rung, or what chooses it.

    error_score : "raise" or float, default=nan
        The score of a candidate whose fit fails.

    return_train_score : bool, default=True
        Whether to score the training rows, too.

    random_state : int, RandomState or None, default=None
        What rows are drawn where the resource is "n_samples",  by.

    n_jobs : int or None, default=None
        Processes that folds and groups of candidates are divided among where the resource is not epochs. Candidates that train
        on from rung to rung do so in this process, whatever `n_jobs`.

    verbose : int, default=0
        How much to tell.

    max_group_memory : int in [1, inf), or "auto", default="auto"
        As of `VectorizedGridSearchCV`, of each fold where these are suspended.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skdnn import MLPDeepClassifier
    >>> from skdnn.model_selection import VectorizedHalvingGridSearchCV
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = MLPDeepClassifier((8,), max_iter=27, n_iter_no_change=27, random_state=0)
    >>> grid = {"learning_rate_init": [1e-5, 1e-4, 1e-2], "max_norm": [None, 2.0, 4.0]}
    >>> search = VectorizedHalvingGridSearchCV(clf, grid, cv=3).fit(X, y)
    >>> search.n_candidates_, search.n_resources_
    ([9, 3, 1], [3, 9, 27])
    >>> search.best_params_["learning_rate_init"]
    0.01
    """

    _parameter_constraints: dict = {**HalvingGridSearchCV._parameter_constraints, **OF_GROUPS}

    def __init__(
        self,
        estimator,
        param_grid,
        *,
        factor=3,
        resource="epochs",
        max_resources="auto",
        min_resources="exhaust",
        aggressive_elimination=False,
        cv=5,
        scoring=None,
        refit=True,
        error_score=np.nan,
        return_train_score=True,
        random_state=None,
        n_jobs=None,
        verbose=0,
        max_group_memory="auto",
    ):
        super().__init__(
            estimator,
            param_grid,
            factor=factor,
            resource=resource,
            max_resources=max_resources,
            min_resources=min_resources,
            aggressive_elimination=aggressive_elimination,
            cv=cv,
            scoring=scoring,
            refit=refit,
            error_score=error_score,
            return_train_score=return_train_score,
            random_state=random_state,
            n_jobs=n_jobs,
            verbose=verbose,
        )
        self.max_group_memory = max_group_memory


class VectorizedHalvingRandomSearchCV(_TrainsOn, HalvingRandomSearchCV):
    """`HalvingRandomSearchCV` over epochs, with candidates that train on, together, from rung to rung.

    Attributes and results are those of `sklearn.model_selection.HalvingRandomSearchCV`. See `VectorizedHalvingGridSearchCV` for
    what a rung is.

    Parameters
    ----------
    estimator : estimator
        One of skdnn, or a `Pipeline` that ends with one; any other is searched as scikit-learn does.

    param_distributions : dict or list of dict
        Names of parameters and the values or distributions to draw from, or several such.

    n_candidates : int in (0, inf) or "exhaust", default="exhaust"
        Candidates of the first rung, by default as many as let the last rung come to `max_resources`.

    factor : int or float in (0, inf), default=3
        One of so many candidates goes on to the next rung, which has so many times the epochs.

    resource : str, default="epochs"
        What rungs have more and more of: epochs, which is `max_iter` of the last step by its own name or this one; or, as
        scikit-learn has it, "n_samples" or another parameter of `estimator`. Candidates train on from rung to rung where it is
        epochs, and from zero otherwise.

    max_resources : int in (0, inf) or "auto", default="auto"
        What a candidate gets at most; by default the last step's own `max_iter`, or all rows.

    min_resources : {"exhaust", "smallest"} or int in (0, inf), default="smallest"
        What a candidate gets in the first rung: "smallest" is 1 epoch, "exhaust" as many as let the last rung come as near as
        possible to `max_resources`.

    aggressive_elimination : bool, default=False
        Whether to repeat the first rung, which then costs no training, until few enough candidates are left.

    cv : int, cross-validation generator or iterable, default=5
        The splits, which must be the same each time that they are asked for.

    scoring : str or callable, default=None
        What to score candidates by; None for the estimator's own score.

    refit : bool or callable, default=True
        Whether to fit the best candidate of the last rung to all rows, with the epochs of that rung, or what chooses it.

    error_score : "raise" or float, default=nan
        The score of a candidate whose fit fails.

    return_train_score : bool, default=True
        Whether to score the training rows, too.

    random_state : int, RandomState or None, default=None
        What candidates are drawn, and rows where the resource is "n_samples",  by.

    n_jobs : int or None, default=None
        Processes that folds and groups of candidates are divided among where the resource is not epochs. Candidates that train
        on from rung to rung do so in this process, whatever `n_jobs`.

    verbose : int, default=0
        How much to tell.

    max_group_memory : int in [1, inf), or "auto", default="auto"
        As of `VectorizedGridSearchCV`, of each fold where these are suspended.

    Examples
    --------
    >>> from scipy.stats import loguniform
    >>> from sklearn.datasets import load_iris
    >>> from skdnn import MLPDeepClassifier
    >>> from skdnn.model_selection import VectorizedHalvingRandomSearchCV
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = MLPDeepClassifier((8,), max_iter=9, n_iter_no_change=9, random_state=0)
    >>> rates = {"learning_rate_init": loguniform(1e-4, 1e-1)}
    >>> search = VectorizedHalvingRandomSearchCV(clf, rates, cv=3, random_state=0).fit(X, y)
    >>> search.n_candidates_, search.n_resources_
    ([9, 3, 1], [1, 3, 9])
    """

    _parameter_constraints: dict = {**HalvingRandomSearchCV._parameter_constraints, **OF_GROUPS}

    def __init__(
        self,
        estimator,
        param_distributions,
        *,
        n_candidates="exhaust",
        factor=3,
        resource="epochs",
        max_resources="auto",
        min_resources="smallest",
        aggressive_elimination=False,
        cv=5,
        scoring=None,
        refit=True,
        error_score=np.nan,
        return_train_score=True,
        random_state=None,
        n_jobs=None,
        verbose=0,
        max_group_memory="auto",
    ):
        super().__init__(
            estimator,
            param_distributions,
            n_candidates=n_candidates,
            factor=factor,
            resource=resource,
            max_resources=max_resources,
            min_resources=min_resources,
            aggressive_elimination=aggressive_elimination,
            cv=cv,
            scoring=scoring,
            refit=refit,
            error_score=error_score,
            return_train_score=return_train_score,
            random_state=random_state,
            n_jobs=n_jobs,
            verbose=verbose,
        )
        self.max_group_memory = max_group_memory
