"""The candidates of a search, trained in lockstep for each fold and preprocessing."""

from functools import partial
from numbers import Integral

import joblib
import numpy as np
from sklearn.base import clone
from sklearn.pipeline import Pipeline

from skdnn._base import BaseMLPDeep
from skdnn.model_selection._progress import Progress
from skdnn.training import Lane, can_share_a_population, train_in_lockstep


def last_step(estimator):
    """Return the last step of a pipeline, or the estimator itself."""
    return estimator.steps[-1][1] if isinstance(estimator, Pipeline) and estimator.steps else estimator


class Candidates:
    """Estimators that a search is going to fit, once for each fold.

    What has been learned is found by parameters and rows, and by nothing else: whoever fits an estimator of equal parameters to
    equal rows would have learned the same.

    Parameters
    ----------
    estimator : estimator
        An estimator of skdnn, or a pipeline that ends with one; what else there is, is left alone.
    parameters : list of dict
        The candidates.
    max_size : int
        Networks that train together at most.
    members : list of int, default=None
        Numbers of the candidates to train, which have the same preprocessing; by default all that have that of the one that
        is fitted.
    kept : KeptGroups, default=None
        Where what they learn is kept, and may be already.
    """

    def __init__(self, estimator, parameters, max_size, members=None, kept=None):
        self._max_size = max_size
        self._kept, self._progress = kept, Progress()
        self._runs_left = np.inf
        self._members = members
        self._base = last_step(estimator)
        self._final, self._others = [], []
        for candidate in parameters:
            final, others = _take_apart(estimator, candidate)
            self._final.append(final)
            self._others.append(others)
        # Candidates whose last steps are equal are one to whoever looks for what it has learned.
        self._first = [self._index_of(final) for final in self._final]
        self._tried, self._learned = set(), {}

    def divide(self, n_parts):
        """Return lists of the numbers of candidates that can train together, each such group in up to `n_parts` parts."""
        groups = []
        for j, final in enumerate(self._final):
            if final is not None:
                group = next((group for group in groups if self._have_same_rows(j, group[0])), None)
                if group is None:
                    groups.append([j])
                else:
                    group.append(j)
        return [group[i::n_parts] for group in groups for i in range(min(n_parts, len(group)))]

    def allow_runs(self, n_folds):
        """Train candidates together once for each fold and setting of all but the last step, and not more often.

        Preprocessing that never gives the same rows twice would have all of them trained for each fit.
        """
        self._runs_left = n_folds * len(self.divide(1))

    def report_to(self, progress):
        """Tell of epochs and fits."""
        self._progress = progress

    def n_epochs(self, members=None):
        """Return the number of epochs on one fold, at most, of some candidates, by default all."""
        given = self._final if members is None else [self._final[j] for j in members]
        numbers = [(self._base if final is None else final).max_iter for final in given]
        return sum(number for number in numbers if isinstance(number, Integral))

    def estimators(self):
        """Return those that can be trained together, each once."""
        return [self._final[j] for j in sorted(set(self._first) - {None})]

    def learned(self):
        """Return what was trained, for `add`."""
        return self._learned

    def add(self, learned):
        """Take over what was trained elsewhere."""
        self._learned |= learned
        self._tried |= set(learned)

    def take(self, estimator, X, y, sample_weight, validation):
        """Return the fitted estimator of a candidate, and train all that can be trained with it if it is the first."""
        fitted = self._find(estimator, X, y, sample_weight, validation)
        self._progress.fit_begins(estimator.max_iter if fitted is None else 0)
        return fitted

    def _find(self, estimator, X, y, sample_weight, validation):
        index = self._index_of(estimator)
        if index is None:
            return None
        rows = _hash_rows(X, y, sample_weight, *(validation or ()))
        if (index, rows) not in self._tried and self._runs_left > 0:
            self._train_together(index, rows, (X, y, sample_weight), validation)
        if estimator.random_state is None and not self._members:  # each fit is a draw of its own
            return self._learned.pop((index, rows), None)
        return self._learned.get((index, rows))

    def _index_of(self, estimator):
        """The first candidate with a last step of the same class and parameters, or None."""
        if not isinstance(estimator, BaseMLPDeep) or not _can_be_trained_with_others(estimator):
            return None
        return next((j for j, final in enumerate(self._final) if final is not None and _equal(estimator, final)), None)

    def _have_same_rows(self, j, k):
        """Whether two candidates differ in parameters of the last step only."""
        return self._others[k] is not None and _equal(self._others[j], self._others[k])

    def _train_together(self, index, rows, given, validation):
        """Train candidates on the same rows."""
        # The one that is fitted may be any of those with equal last steps: their neighbours are all looked at.
        alike = [j for j, first in enumerate(self._first) if first == index]
        n_candidates = range(len(self._final))
        members = self._members or [k for k in n_candidates if any(self._have_same_rows(j, k) for j in alike)]
        members = {self._first[j] for j in members if self._first[j] is not None}
        members = sorted(j for j in members if (j, rows) not in self._tried)
        self._tried |= {(j, rows) for j in members}
        groups = []
        for j in members:
            prepared = self._prepare(j, given, validation)
            if prepared is None:
                continue
            session = prepared[2].session
            group = next((group for group in groups if _takes(group, session, self._max_size)), None)
            if group is None:
                groups.append([prepared])
            else:
                session.share_data(group[0][2].session)
                group.append(prepared)
        # One alone is fitted by whoever asked for it, but where that is in another process, or it is to be kept.
        groups = [group for group in groups if len(group) > 1 or self._members or self._kept]
        self._runs_left -= bool(groups)
        # By content, however `rows` may come about: it is compared with that of other processes.
        content = None if self._kept is None else _hash_rows(*given, *(validation or ()))
        for group in groups:
            self._learned |= {(j, rows): fitted for j, fitted in self._learn(group, content)}

    def _learn(self, group, content):
        """Return the numbers and fitted estimators of a group, from where they are kept or by training."""
        note = self._progress.follow([net.session for *_, net in group])
        train = partial(_train_group, on_epoch=note)
        fitted = train(group) if self._kept is None else self._kept.complete(group, content, train)
        if fitted:
            note(())
        return fitted

    def _prepare(self, j, given, validation):
        """Return a candidate's number, estimator and net, or None where something is wrong, which its own fit will tell."""
        try:
            estimator = clone(self._final[j])
            estimator._check_parameters()
            return j, estimator, estimator._prepare(given, given_validation=validation, session_type=Lane)
        except Exception:
            return None


def _take_apart(estimator, parameters):
    """Return the last step of a candidate and the parameters of all before it; None and None where these cannot be set."""
    try:
        candidate = clone(estimator).set_params(**clone(parameters, safe=False))
    except Exception:  # the search meets it again, and says so
        return None, None
    final = last_step(candidate)
    if not isinstance(final, BaseMLPDeep) or not _can_be_trained_with_others(final):
        return None, None
    if final is candidate:
        return final, {}
    name = candidate.steps[-1][0]
    return final, {key: value for key, value in parameters.items() if key.split("__")[0] != name}


def _can_be_trained_with_others(estimator):
    """Whether nobody listens to the estimator's epochs."""
    return not estimator.callbacks and not estimator.verbose and not hasattr(estimator, "_skl_callbacks")


def _takes(group, session, max_size):
    return len(group) < max_size and can_share_a_population(group[0][2].session, session)


def _train_group(group, on_epoch=None):
    """Train prepared candidates in lockstep and return the number and the fitted estimator of each."""
    nets = [net for _, _, net in group]
    sessions = [net.session for net in nets]
    try:
        trained = train_in_lockstep(nets, on_epoch)
    except Exception:  # techniques that have no common form, too little memory: each is then fitted alone
        return []
    fitted = []
    for (j, estimator, net), session in zip(group, sessions, strict=True):
        if net in trained:
            estimator._store(net, session, continues=False, is_stream=False)
            fitted.append((j, estimator))
    return fitted


def _equal(a, b):
    """Whether two parameter values mean the same without a doubt: 0.0 and False are equal, and do not."""
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    try:
        if isinstance(a, dict):
            return a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
        if isinstance(a, list | tuple):
            return len(a) == len(b) and all(map(_equal, a, b))
        if isinstance(a, np.random.RandomState):
            return _equal(a.get_state(), b.get_state())
        if isinstance(a, np.ndarray):
            return a.dtype == b.dtype and a.shape == b.shape and bool(np.all(a == b))
        if hasattr(a, "get_params") and not isinstance(a, type):
            return _equal(a.get_params(deep=False), b.get_params(deep=False))
        return bool(a == b)
    except Exception:
        return False


def _hash_rows(*arrays):
    """A key of what is in some arrays, whatever their memory looks like."""
    plain = [np.ascontiguousarray(np.asarray(array)) if isinstance(array, np.ndarray) else array for array in arrays]
    return joblib.hash(plain)
