"""Candidates of a fold that one of several jobs takes: trained there, and scored there where that makes no difference."""

import contextlib
import io
import uuid
import warnings
from dataclasses import dataclass, field
from traceback import format_exc
from typing import Any, NamedTuple

import cloudpickle
from sklearn import config_context
from sklearn.base import clone
from sklearn.callback import CallbackSupportMixin

from skdnn._together import trained_by
from skdnn._validation import check_method_params, split_safely
from skdnn.model_selection._candidates import Candidates
from skdnn.model_selection._evaluation import Evaluation
from skdnn.model_selection._kept_groups import KeptGroups
from skdnn.model_selection._preprocessing import FittedOnce, with_memory
from skdnn.training import Kin


@dataclass
class Members:
    """What all jobs of a search are told of its candidates.

    Attributes
    ----------
    estimator : estimator
        Without the parameters of a candidate.
    max_memory : int or "auto"
        Bytes for groups; see `Candidates`.
    n_jobs : int
    max_bytes : int
        For transformed rows that are kept.
    kept : KeptGroups or None
    key : str
        Of the search.
    """

    estimator: Any
    max_memory: Any
    n_jobs: int
    max_bytes: int
    kept: KeptGroups | None
    key: str = field(default_factory=lambda: uuid.uuid4().hex)

    @contextlib.contextmanager
    def together(self, parameters, is_handed_on, kin=None):
        """Let candidates train together within this context.

        Parameters
        ----------
        parameters : list of dict
            The candidates.
        is_handed_on : bool
        kin : Kin, default=None
            As of `Candidates`.

        Yields
        ------
        candidates : Candidates
        memory : FittedOnce
        """
        memory = FittedOnce(self.max_bytes)
        candidates = Candidates(
            self.estimator,
            parameters,
            memory,
            self.max_memory,
            n_jobs=self.n_jobs,
            trains_single=True,
            is_handed_on=is_handed_on,
            kept=self.kept,
            kin=kin,
        )
        try:
            with trained_by(candidates):
                yield candidates, memory
        finally:
            memory.close()


class TaskOutcome(NamedTuple):
    """What a task has come to in another process.

    Attributes
    ----------
    result : object
    error : Exception or None
    warned : list of (message, category, filename, lineno)
    printed : str
    """

    result: Any
    error: Exception | None
    warned: list
    printed: str

    def replay(self):
        """Warn, print and return or raise as the task would have in this process."""
        for warning in self.warned:
            warnings.warn_explicit(*warning)
        print(self.printed, end="")
        if self.error is not None:
            raise self.error
        return self.result


def train_members(members, data, train, parameters):
    """Train candidates on a fold, which differ in the last step only, and return what `Candidates.add` takes over.

    Parameters
    ----------
    members : Members
    data : tuple
        X, y and what `fit` is given beside them.
    train : ndarray of int
        Rows of the fold.
    parameters : list of dict
        The candidates.
    """
    X, y, fit_params = data
    X_train, y_train = split_safely(members.estimator, X, y, train)
    fit_params = check_method_params(X, params=fit_params, indices=train)
    with members.together(parameters, is_handed_on=True) as (candidates, memory):
        for candidate in parameters:
            try:  # the first that is sound has all trained
                first = clone(with_memory(members.estimator, memory)).set_params(**clone(candidate, safe=False))
                first.fit(X_train, y_train, **fit_params)
                break
            except Exception:  # the search meets it again, and does with it what it was told to
                continue
    return candidates.learned()


# Of the search that this process, one of several, has worked for last.
_kin: dict = {}


def _kin_of(search):
    if search not in _kin:
        _kin.clear()
        _kin[search] = Kin()
    return _kin[search]


def score_members(members, parameters, tasks, config):
    """Run scikit-learn's tasks for candidates on a fold, which differ in the last step only.

    Parameters
    ----------
    members : Members
    parameters : list of dict
        The candidates.
    tasks : list of (callable, tuple, dict)
        One for each candidate: a function that fits and scores an estimator, its arguments by place, the estimator first, and
        those by name.
    config : dict
        Of scikit-learn.

    Returns
    -------
    outcomes : list of (bytes or None)
        An `TaskOutcome` each, pickled; None of tasks whose outcome cannot be, and of those after one that has raised an error.
    corrections : dict
        As of `Candidates`, by the place in the list.
    """
    outcomes, caller = [None] * len(tasks), CallbackSupportMixin()  # one that nobody listens to
    context = caller._init_callback_context(max_subtasks=len(tasks))
    kin = _kin_of(members.key)
    with config_context(**config), members.together(parameters, is_handed_on=False, kin=kin) as (candidates, memory):
        evaluation = Evaluation(candidates, memory)
        for turn, (function, (estimator, *others), named) in enumerate(tasks):
            named |= {"caller": caller, "callback_ctx": context.subcontext("candidate-split-evaluation")}
            task = function, (with_memory(estimator, memory), *others), named
            outcome = _run(evaluation.run_one, task, turn, number=turn)
            outcomes[turn] = _pickle(outcome)
            if outcome.error is not None:
                break
    return outcomes, candidates.corrections


def _run(function, *args, **kwargs):
    printed, result, failed = io.StringIO(), None, None
    # Which warnings are shown, the function itself decides.
    with warnings.catch_warnings(record=True) as caught, contextlib.redirect_stdout(printed):
        try:
            result = function(*args, **kwargs)
        except Exception as error:
            error.add_note(format_exc())  # the traceback stays here
            failed = error
    warned = [(warning.message, warning.category, warning.filename, warning.lineno) for warning in caught]
    return TaskOutcome(result, failed, warned, printed.getvalue())


def _pickle(outcome):
    """Return an outcome as bytes, or None where it would break on the way back, as errors do whose class wants arguments."""
    try:
        content = cloudpickle.dumps(outcome)  # classes of a user's script, too
        cloudpickle.loads(content)
    except Exception:
        return None
    return content
