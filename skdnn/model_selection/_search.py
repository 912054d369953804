"""scikit-learn's searches, with candidates that train together."""

import os
import warnings
from dataclasses import dataclass
from functools import partial
from numbers import Integral
from typing import Any

import joblib
import numpy as np
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.utils import indexable

from skdnn._base import BaseMLPDeep
from skdnn._together import trained_by
from skdnn._validation import Interval, StrOptions, check_method_params
from skdnn.exceptions import InvalidParameterError
from skdnn.model_selection._candidates import Candidates
from skdnn.model_selection._evaluation import Evaluation
from skdnn.model_selection._jobs import has_lone_processes
from skdnn.model_selection._kept_groups import KeptGroups
from skdnn.model_selection._members import Members
from skdnn.model_selection._preprocessing import FittedOnce, has_callbacks, last_step, with_memory
from skdnn.model_selection._progress import Progress, ProgressBar
from skdnn.model_selection._tasks import Division, TakesTasks
from skdnn.training import free_memory

# Of the parameters that scikit-learn's searches do not have.
OF_GROUPS = {"max_group_memory": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")]}
OWN_CONSTRAINTS = {
    **OF_GROUPS,
    "resume_from": [None, str, os.PathLike],
    "progress": ["boolean"],
}

# Of the memory that is free, what transformed rows may take that are kept for candidates to come.
_SHARE_OF_MEMORY = 0.25


@dataclass
class _Call:
    """A call of `fit` that is under way.

    Attributes
    ----------
    X, y, params : as `fit` was given them
    backend : joblib.parallel.ParallelBackendBase
        That several jobs run on.
    n_jobs : int
    tasks : TakesTasks
        Of scikit-learn.
    is_heard : bool
        Whether callbacks listen to fits in this process.
    memory : FittedOnce
    estimator : estimator
        As it was given, without the memory.
    candidates : Candidates or None
        Those that are evaluated; none where a subclass does without.
    """

    X: Any
    y: Any
    params: dict
    backend: Any
    n_jobs: int
    tasks: TakesTasks
    is_heard: bool
    memory: FittedOnce
    estimator: Any
    candidates: Candidates | None = None


class _Splits:
    """Splits that have been drawn, so that candidates are trained and scored on the same."""

    def __init__(self, splits):
        self._splits = splits

    def split(self, X=None, y=None, groups=None, **params):
        return iter(self._splits)


class TrainsTogether:
    """What makes a search of scikit-learn train its candidates together.

    The search itself is scikit-learn's: splits, parameters, scores and what becomes of errors. While it runs, the first fit of
    a fold trains all candidates that can be trained with it in lockstep, and the others find themselves done. With several
    jobs, each fold's candidates are divided among them: processes fit and score them by scikit-learn's own tasks. Where others
    must not run these, as those of threads, or of callbacks that listen in this process, jobs train candidates only, before the
    search goes through its fits.
    """

    # Parameters that not all of these searches have.
    resume_from = None
    progress = False

    def fit(self, X, y=None, **params):
        if not isinstance(last_step(self.estimator), BaseMLPDeep) or not isinstance(self.n_jobs, Integral | None):
            return super().fit(X, y, **params)
        # What candidates have learned is here: going through them must not leave this process.
        outer, _ = joblib.parallel.get_active_backend()
        n_jobs = joblib.effective_n_jobs(self.n_jobs)
        memory = FittedOnce(int(free_memory() * _SHARE_OF_MEMORY))
        tasks, is_heard = TakesTasks(), has_callbacks(self, self.estimator)
        self._call = call = _Call(X, y, params, outer, n_jobs, tasks, is_heard, memory, self.estimator)
        if not hasattr(self, "_skl_callbacks"):  # which may want to see transformers fitted
            self.estimator = with_memory(call.estimator, memory)
        try:
            with joblib.parallel_config(backend=tasks):
                super().fit(X, y, **params)
        finally:
            memory.close()
            self.estimator = call.estimator
            del self._call
        if getattr(getattr(self, "best_estimator_", None), "memory", None) is memory:
            self.best_estimator_.memory = None
        return self

    def _run_search(self, evaluate_candidates, callback_ctx=None):
        if not hasattr(self, "_call"):
            if self.resume_from is not None:
                raise InvalidParameterError(
                    "resume_from keeps what estimators of skdnn learn, alone or as the last step of a pipeline. The estimator "
                    f"is {self.estimator!r}; set resume_from=None."
                )
            super()._run_search(evaluate_candidates, callback_ctx=callback_ctx)
            return
        call = self._call
        kept = None if self.resume_from is None else KeptGroups(self.resume_from)

        def evaluate(candidate_params, cv=None, **kwargs):
            parameters = list(candidate_params)
            data, splits = self._split(cv or self._checked_cv_orig)
            call.candidates = candidates = Candidates(
                self.estimator,
                parameters,
                call.memory,
                self.max_group_memory,
                has_distinct_folds=len({np.asarray(train).tobytes() for train, _ in splits}) == len(splits),
                kept=kept,
            )
            candidates.allow_runs(self.n_splits_)
            if kept is not None:
                kept.check(candidates.estimators())
            with ProgressBar(self.n_splits_ * candidates.n_epochs()) if self.progress else Progress() as progress:
                candidates.report_to(progress)
                evaluation = Evaluation(candidates, call.memory, call.is_heard)
                call.tasks.run = partial(evaluation.run, n_folds=self.n_splits_)
                if call.n_jobs > 1:
                    members = Members(call.estimator, self.max_group_memory, call.n_jobs, call.memory.max_bytes, kept)
                    folds = [train for train, _ in splits]
                    division = Division(members, parameters, candidates, data, folds, evaluation, call.backend, progress)
                    if has_lone_processes(call.backend) and not call.is_heard:
                        call.tasks.run = division.score
                    else:
                        division.train()
                with trained_by(candidates):
                    return evaluate_candidates(parameters, cv=_Splits(splits), **kwargs)

        super()._run_search(evaluate, callback_ctx=callback_ctx)
        call.memory.close()  # what is refitted is fitted to other rows

    def _split(self, cv):
        """Return X, y and what `fit` of the estimator is given beside them, and the splits that are to be used."""
        call = self._call
        X, y = indexable(call.X, call.y)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the search has said it
            routed = self._get_routed_params_for_fit(check_method_params(X, params=call.params))
        return (X, y, routed.estimator.fit), list(cv.split(X, y, **routed.splitter.split))

    def _format_results(self, candidate_params, n_splits, out, more_results=None):
        if hasattr(self, "_call") and self._call.candidates is not None:
            turns = len(out) - len(self._call.candidates) * n_splits
            for turn, seconds in self._call.candidates.corrections.items():
                fit = out[turns + turn]
                fit["fit_time"] = max(0.0, fit["fit_time"] + seconds)
        return super()._format_results(candidate_params, n_splits, out, more_results)


class VectorizedGridSearchCV(TrainsTogether, GridSearchCV):
    """`GridSearchCV` that trains candidates together.

    Parameters but the last three, attributes and results are those of `sklearn.model_selection.GridSearchCV`. Candidates of an
    estimator of skdnn, alone or as the last step of a pipeline, that have the same layer sizes and batches train together on
    each fold; others are fitted one by one. What stands before the last step is fitted once for each fold and
    setting, unless the pipeline has a `memory` of its own, and so are rows to score transformed, for scorers of scikit-learn;
    the fit times of a group are shared by the epochs of each.

    Parameters
    ----------
    estimator : estimator
        One of skdnn, or a `Pipeline` that ends with one; any other is searched as scikit-learn does.

    param_grid : dict or list of dict
        Names of parameters and the values to try, or several such grids.

    scoring : str, callable, list, tuple or dict, default=None
        What to score candidates by; None for the estimator's own score.

    n_jobs : int or None, default=None
        Processes that folds and groups of candidates are divided among, as joblib understands it.

    refit : bool, str or callable, default=True
        Whether to fit the best candidate to all rows, by which of several scores, or what chooses it.

    cv : int, cross-validation generator or iterable, default=None
        The splits; None for five folds.

    verbose : int, default=0
        How much to tell.

    pre_dispatch : int or str, default="2*n_jobs"
        Jobs that are handed out ahead.

    error_score : "raise" or float, default=nan
        The score of a candidate whose fit fails.

    return_train_score : bool, default=False
        Whether to score the training rows, too.

    max_group_memory : int in [1, inf), or "auto", default="auto"
        Bytes of memory, or of the GPU's, that networks which train together may take; more candidates than that make several
        groups, and results are the same but for rounding. By default half of what is free, divided among the jobs.

    resume_from : str, PathLike or None, default=None
        A folder, made where it is not there, in which each group of candidates is kept once it has been trained on a fold: as
        JSON, with the candidates' parameters and their epochs' losses, and as safetensors. A search that finds what it needs
        there goes on with the rest. So after an interrupt, or when the process was killed, the same search with the same folder
        ends with the results that it would have had. Of other software versions, other rows or other parameters nothing is
        taken. Nothing is kept of candidates whose fits are draws of their own (``random_state=None``), or that are fitted alone
        because they have callbacks or are verbose. Of functions of your own their code is compared, but not that of what they
        call: take another folder when you change that.

    progress : bool, default=False
        Whether to show a bar over the epochs of all candidates on all folds, with the time that is left. With several jobs it
        moves when one is done.

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

    _parameter_constraints: dict = {**GridSearchCV._parameter_constraints, **OWN_CONSTRAINTS}

    def __init__(
        self,
        estimator,
        param_grid,
        *,
        scoring=None,
        n_jobs=None,
        refit=True,
        cv=None,
        verbose=0,
        pre_dispatch="2*n_jobs",
        error_score=np.nan,
        return_train_score=False,
        max_group_memory="auto",
        resume_from=None,
        progress=False,
    ):
        super().__init__(
            estimator,
            param_grid,
            scoring=scoring,
            n_jobs=n_jobs,
            refit=refit,
            cv=cv,
            verbose=verbose,
            pre_dispatch=pre_dispatch,
            error_score=error_score,
            return_train_score=return_train_score,
        )
        self.max_group_memory = max_group_memory
        self.resume_from = resume_from
        self.progress = progress


class VectorizedRandomizedSearchCV(TrainsTogether, RandomizedSearchCV):
    """`RandomizedSearchCV` that trains candidates together; see `VectorizedGridSearchCV`.

    Parameters but the last three, attributes and results are those of `sklearn.model_selection.RandomizedSearchCV`.

    Parameters
    ----------
    estimator : estimator
        One of skdnn, or a `Pipeline` that ends with one; any other is searched as scikit-learn does.

    param_distributions : dict or list of dict
        Names of parameters and the values or distributions to draw from, or several such.

    n_iter : int in [1, inf), default=10
        Candidates that are drawn.

    scoring : str, callable, list, tuple or dict, default=None
        What to score candidates by; None for the estimator's own score.

    n_jobs : int or None, default=None
        Processes that folds and groups of candidates are divided among, as joblib understands it.

    refit : bool, str or callable, default=True
        Whether to fit the best candidate to all rows, by which of several scores, or what chooses it.

    cv : int, cross-validation generator or iterable, default=None
        The splits; None for five folds.

    verbose : int, default=0
        How much to tell.

    pre_dispatch : int or str, default="2*n_jobs"
        Jobs that are handed out ahead.

    random_state : int, RandomState or None, default=None
        What candidates are drawn by.

    error_score : "raise" or float, default=nan
        The score of a candidate whose fit fails.

    return_train_score : bool, default=False
        Whether to score the training rows, too.

    max_group_memory : int in [1, inf), or "auto", default="auto"
        As of `VectorizedGridSearchCV`.

    resume_from : str, PathLike or None, default=None
        As of `VectorizedGridSearchCV`.

    progress : bool, default=False
        As of `VectorizedGridSearchCV`.

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

    _parameter_constraints: dict = {**RandomizedSearchCV._parameter_constraints, **OWN_CONSTRAINTS}

    def __init__(
        self,
        estimator,
        param_distributions,
        *,
        n_iter=10,
        scoring=None,
        n_jobs=None,
        refit=True,
        cv=None,
        verbose=0,
        pre_dispatch="2*n_jobs",
        random_state=None,
        error_score=np.nan,
        return_train_score=False,
        max_group_memory="auto",
        resume_from=None,
        progress=False,
    ):
        super().__init__(
            estimator,
            param_distributions,
            n_iter=n_iter,
            scoring=scoring,
            n_jobs=n_jobs,
            refit=refit,
            cv=cv,
            verbose=verbose,
            pre_dispatch=pre_dispatch,
            random_state=random_state,
            error_score=error_score,
            return_train_score=return_train_score,
        )
        self.max_group_memory = max_group_memory
        self.resume_from = resume_from
        self.progress = progress
