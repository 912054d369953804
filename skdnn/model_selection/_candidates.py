"""The candidates of a search, trained in lockstep for each fold and preprocessing."""

import copy
import time
from collections import Counter
from functools import partial
from numbers import Integral

import numpy as np
from sklearn.base import clone

from skdnn._base import BaseMLPDeep
from skdnn._data import looked_at_once
from skdnn.model_selection._preprocessing import last_step
from skdnn.model_selection._progress import Progress
from skdnn.model_selection._rows import hash_rows
from skdnn.training import Kin, Lane, can_share_a_population, free_memory, group_size, train_in_lockstep

# Of the memory that is free, what the networks of all groups that are in training at the same time may take.
_SHARE_OF_MEMORY = 0.5


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
    memory : FittedOnce
        Of the pipeline.
    max_memory : int or "auto", default="auto"
        Bytes that networks which train together may take.
    n_jobs : int, default=1
        Groups that are in training at the same time, which divide what is free by default.
    trains_single : bool, default=False
        Whether to train a candidate, too, that no other can be trained with; by default that is left to whoever fits it.
    is_handed_on : bool, default=False
        Whether all that is learned goes to the candidates of another process, by `learned` and `add`.
    has_distinct_folds : bool, default=True
        Whether no two folds have the same rows to train on.
    kept : KeptGroups, default=None
        Where what they learn is kept, and may be already.
    kin : Kin, default=None
        Of candidates of the same search before, whose networks are not in training any more.

    Attributes
    ----------
    turn : int or None
        The fit of the search that is under way.
    rows : hashable
        A key of the rows that a candidate was fitted to last; None where the last fit was not one of a candidate's.
    corrections : dict of int to float
        Seconds to add to what each turn has taken, so that each candidate is charged with its own training, whoever's turn it
        was when all were trained.
    """

    def __init__(
        self,
        estimator,
        parameters,
        memory,
        max_memory="auto",
        n_jobs=1,
        trains_single=False,
        is_handed_on=False,
        has_distinct_folds=True,
        kept=None,
        kin=None,
    ):
        self._max_memory = max_memory
        self._n_jobs = n_jobs
        self._runs_left = np.inf
        self._trains_single = trains_single or kept is not None
        self._is_handed_on = is_handed_on
        self._kept, self._progress = kept, Progress()
        self._memory = memory
        self._base = last_step(estimator)
        taken_apart = [_take_apart(estimator, candidate) for candidate in parameters]
        self._final = [final for final, _ in taken_apart]
        # Equal keys are equal preprocessing.
        self._settings = [None if final is None else _key(others) for final, others in taken_apart]
        # Candidates whose last steps are equal are one to whoever looks for what it has learned.
        keys = [None if final is None else _key(final) for final in self._final]
        self._numbers = {}
        for j, key in enumerate(keys):
            if key is not None:
                self._numbers.setdefault(key, j)
        self._first = [None if key is None else self._numbers[key] for key in keys]
        self._are_asked_once = {j for j, n in Counter(self._first).items() if n == 1 and has_distinct_folds}
        self._tried, self._learned, self._seconds, self._kin = set(), {}, {}, kin or Kin()
        self._complete = set()
        self._contents, self._has_added = {}, False  # from the keys of rows to those of what is in them, the same everywhere
        self.turn, self.rows, self.corrections = None, None, {}

    def divide(self, n_parts=1, n_folds=1):
        """Return what to train for each fold: lists of the numbers of candidates that can train together.

        Parameters
        ----------
        n_parts : int, default=1
            Those that work at the same time. Each gets as many whole groups as the others; what is left over is cut in parts.
        n_folds : int, default=1

        Returns
        -------
        tasks : list of (fold, members)
        """
        groups = {}
        for j, setting in enumerate(self._settings):
            if setting is not None:
                groups.setdefault(setting, []).append(j)
        tasks = [(fold, group) for fold in range(n_folds) for group in groups.values()]
        n_whole = len(tasks) // n_parts * n_parts
        parts = [(fold, group[i::n_parts]) for fold, group in tasks[n_whole:] for i in range(n_parts)]
        return tasks[:n_whole] + [(fold, part) for fold, part in parts if part]

    def allow_runs(self, n_folds):
        """Train candidates together once for each fold and setting of all but the last step, and not more often.

        Preprocessing that never gives the same rows twice would have all of them trained for each fit.
        """
        self._runs_left = len(self.divide(n_folds=n_folds))

    def __len__(self):
        return len(self._final)

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
        """Return what was trained, in how many seconds, and on rows of what content, for `add`."""
        return self._learned, self._seconds, self._contents

    def add(self, members, fitted, seconds, contents):
        """Take over what was trained elsewhere.

        Parameters
        ----------
        members : list of int
            The numbers that the candidates have here.
        fitted, seconds, contents : dict
            As `learned` has returned them.
        """
        self._has_added = True
        for (j, rows), estimator in fitted.items():
            key = self._first[members[j]], contents[rows]
            self._tried.add(key)
            self._learned[key], self._seconds[key] = estimator, seconds[j, rows]

    def take(self, estimator, X, y, sample_weight, validation):
        """Return the fitted estimator of a candidate, and train all that can be trained with it if it is the first."""
        fitted = self._find(estimator, X, y, sample_weight, validation)
        self._progress.fit_begins(estimator.max_iter if fitted is None else 0)
        return fitted

    def setting_of(self, j):
        """Return what is equal for candidates whose rows are preprocessed alike, None where nothing is known of one."""
        return self._settings[j]

    def are_all_trained(self, rows):
        """Whether all candidates have been trained on rows of a key, and none has its rows preprocessed in another way."""
        return rows in self._complete

    def trained(self, j, rows):
        """Return the estimator of a candidate that was trained on rows of a key, to look at, or None."""
        return self._learned.get((self._first[j], rows))

    def forget(self, j, rows):
        """Let go of what a candidate has learned on rows of a key, if nobody else asks for it."""
        if self._is_asked_once(self._first[j], self._final[j]):
            del self._learned[self._first[j], rows]

    def pass_by(self, j, rows):
        """Note that it is the turn of a candidate which was trained on rows of a key and needs no fit any more."""
        self._progress.fit_begins(0)
        self._charge(self._seconds.pop((self._first[j], rows), 0.0))

    def _is_asked_once(self, index, estimator):
        """Whether nobody else asks for what a candidate has learned: without a seed, each fit is a draw of its own."""
        return index in self._are_asked_once or estimator.random_state is None

    def _find(self, estimator, X, y, sample_weight, validation):
        index, self.rows = self._index_of(estimator), None
        if index is None:
            return None
        rows = self._memory.key_of_content(X, y, sample_weight, *(validation or ()))
        if self._has_added and (index, rows) not in self._tried:
            rows = self._content_of(rows, (X, y, sample_weight), validation)
        self.rows = rows
        if (index, rows) not in self._tried and self._runs_left > 0:
            self._train_together(index, rows, (X, y, sample_weight), validation)
        fitted = self._hand_out(index, rows, estimator)
        if self.turn is not None:
            self._charge(self._seconds.pop((index, rows), 0.0))
        return fitted

    def _content_of(self, rows, given, validation):
        """Return a key of what is in rows of a key, the same in all processes."""
        if rows not in self._contents:
            self._contents[rows] = hash_rows(*given, *(validation or ()))
        return self._contents[rows]

    def _hand_out(self, index, rows, estimator):
        """Return what an estimator asks for, to keep, where it has been trained, or None."""
        key = index, rows
        if self._is_handed_on:
            return self._learned.get(key)
        if self._is_asked_once(index, estimator):
            return self._learned.pop(key, None)  # which need not be copied
        return copy.deepcopy(self._learned.get(key))

    def _charge(self, seconds):
        """Add seconds to what the turn has taken."""
        self.corrections[self.turn] = self.corrections.get(self.turn, 0.0) + seconds

    def _index_of(self, estimator):
        """The first candidate with a last step of the same class and parameters, or None."""
        if not isinstance(estimator, BaseMLPDeep) or not _can_be_trained_with_others(estimator):
            return None
        return self._numbers.get(_key(estimator))

    def _train_together(self, index, rows, given, validation):
        """Train candidates on the same rows."""
        begin = time.time()
        # The one that is fitted may be any of those with equal last steps: their neighbours are all looked at.
        settings = {self._settings[j] for j, first in enumerate(self._first) if first == index}
        members = {self._first[j] for j, setting in enumerate(self._settings) if setting in settings}
        members = sorted(j for j in members if (j, rows) not in self._tried)
        self._tried |= {(j, rows) for j in members}
        groups, too_large, make_lane = [], set(), partial(Lane, kin=self._kin)
        self._kin.make_room()
        with looked_at_once():
            for j in members:
                shape = _key([self._final[j].hidden_layer_sizes, self._final[j].batch_size])
                if shape in too_large:
                    continue
                prepared = self._prepare(j, given, validation, make_lane)
                if prepared is None:
                    continue
                session = prepared[2].session
                group = self._find_group(groups, session)
                if group is None:
                    size = self._size_of_group(session)
                    groups.append(([prepared], size))
                    if size == 1 and not self._trains_single:
                        too_large.add(shape)
                else:
                    session.share_data(group[0][2].session)
                    group.append(prepared)
        groups = [group for group, _ in groups if len(group) > 1 or self._trains_single]
        self._runs_left -= bool(groups)
        # By content, however `rows` may have come about: it is compared with that of other processes.
        content = None
        if self._is_handed_on or self._kept is not None:
            content = self._content_of(rows, given, validation)
        n_epochs = self._train(groups, rows, content)
        if len(set(self._settings)) == 1 and n_epochs.keys() == set(self._first):
            self._complete.add(rows)
        self._share(time.time() - begin, rows, n_epochs)

    def _train(self, groups, rows, content):
        """Train groups of prepared candidates, keep what they learn, and return the epochs of each, by which time is shared."""
        fitted = dict(trained for group in groups for trained in self._learn(group, content))
        self._learned |= {(j, rows): estimator for j, estimator in fitted.items()}
        return {j: estimator.n_iter_ for j, estimator in fitted.items()}

    def _share(self, seconds, rows, n_epochs):
        """Charge each candidate with its part of some seconds when it is fitted, and not the one whose turn it is."""
        if n_epochs:
            total = sum(n_epochs.values())
            for j, n in n_epochs.items():
                self._seconds[j, rows] = self._seconds.get((j, rows), 0.0) + seconds * n / total
            if self.turn is not None:
                self._charge(-seconds)

    def _learn(self, group, content):
        """Return the numbers and fitted estimators of a group, from where they are kept or by training."""
        note = self._progress.follow([net.session for *_, net in group])
        train = partial(_train_group, on_epoch=note)
        fitted = train(group) if self._kept is None else self._kept.complete(group, content, train)
        if fitted:
            note(())
        return fitted

    def _prepare(self, j, given, validation, make_lane):
        """Return a candidate's number, estimator and net, or None where something is wrong, which its own fit will tell."""
        try:
            estimator = clone(self._final[j])
            estimator._check_parameters()
            return j, estimator, estimator._prepare(given, given_validation=validation, session_type=make_lane)
        except Exception:
            return None

    def _find_group(self, groups, session):
        for group, size in groups:
            if len(group) < size and can_share_a_population(group[0][2].session, session):
                return group
        return None

    def _size_of_group(self, session):
        """Return how many networks like that of a session may train together."""
        max_memory = self._max_memory
        if max_memory == "auto":
            max_memory = free_memory(session.plan.device) * _SHARE_OF_MEMORY / self._n_jobs
        try:
            return group_size(session, max_memory)
        except Exception:  # of a user's rule, which its own fit will meet
            return 1


def _take_apart(estimator, parameters):
    """Return the last step of a candidate and the parameters of all before it; None and None where these cannot be set."""
    try:
        own = _of_last_step(estimator, parameters)
        if own is not None:  # a whole pipeline takes some times as long to clone
            estimator, parameters = last_step(estimator), own
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


def _of_last_step(estimator, parameters):
    """Return the parameters by the names that the last step has for them, or None where it is not only they that are set."""
    if last_step(estimator) is estimator:
        return None
    prefix = f"{estimator.steps[-1][0]}__"
    if not all(name.startswith(prefix) for name in parameters):
        return None
    return {name.removeprefix(prefix): value for name, value in parameters.items()}


def _can_be_trained_with_others(estimator):
    """Whether nobody listens to the estimator's epochs."""
    return not estimator.callbacks and not estimator.verbose and not hasattr(estimator, "_skl_callbacks")


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


def _key(value):
    """Return what parameter values have in common if they mean the same without a doubt: 0.0 and False are equal, and do not.

    Where that cannot be told, the key is that of this very object.
    """
    try:
        if isinstance(value, dict):
            content = frozenset((name, _key(item)) for name, item in value.items())
        elif isinstance(value, list | tuple):
            content = tuple(map(_key, value))
        elif isinstance(value, np.random.RandomState):
            content = _key(value.get_state())
        elif isinstance(value, np.ndarray):
            content = value.shape, value.dtype.str, _key(value.tolist()) if value.dtype == object else value.tobytes()
        elif hasattr(value, "get_params") and not isinstance(value, type):
            content = _key(value.get_params(deep=False))
        else:
            content = value
        key = type(value), content
        hash(key)
    except Exception:
        return type(value), id(value)
    return key
