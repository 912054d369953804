"""Candidates that train on from rung to rung of a successive halving."""

import contextlib
import copy
import time

from skdnn.model_selection._candidates import Candidates
from skdnn.training import Lockstep


class _Group:
    """Candidates that are in training together, on the same rows.

    Parameters
    ----------
    prepared : list of tuple
        Number, estimator and net of each.
    """

    def __init__(self, prepared):
        self._prepared = {j: (estimator, net, net.session) for j, estimator, net in prepared}
        self._lockstep = Lockstep([net for _, _, net in prepared])

    def train(self, n_epochs, keep):
        """Go on until so many epochs are over in all, with those whose numbers are in `keep`; return who has trained."""
        if self._lockstep.n_epochs >= n_epochs:
            return []
        try:
            self.leave([j for j in self._prepared if j not in keep])
            self._lockstep.train(n_epochs)
        except Exception:  # techniques that have no common form, too little memory: each is then fitted alone
            self.close()
        return list(self._prepared)

    def leave(self, members):
        """Go on without some of them."""
        nets = [self._prepared.pop(j)[1] for j in members]
        self._lockstep.leave([net for net in self._lockstep.running if net in nets])

    def close(self):
        """Let go of everything."""
        self.leave(list(self._prepared))

    def fitted(self, j):
        """Return a candidate as it stands, a fitted estimator, or None where its training has failed."""
        estimator, net, session = self._prepared.get(j, (None,) * 3)
        if net in self._lockstep.running:
            net, session = net.as_if_over()
        elif net not in self._lockstep.ended:
            return None
        fitted = copy.copy(estimator)
        fitted._store(net, session, continues=False, is_stream=False)
        return fitted


class RungCandidates(Candidates):
    """Candidates that are fitted once for each fold and rung, with more epochs at each rung.

    What trains on the same rows is suspended between rungs, with its weights, its optimizer's state and its random streams.

    Parameters
    ----------
    estimator : estimator
        An estimator of skdnn, or a pipeline that ends with one.
    parameters : list of dict
        The candidates.
    resource : str
        The parameter of `estimator` that is the number of epochs.
    n_epochs : int
        Those of the last rung, where a schedule ends.
    n_folds : int
        Those that are suspended at the same time.
    max_memory : int or "auto"
        Bytes that networks which train together may take.
    memory : FittedOnce
        Of the pipeline.
    """

    def __init__(self, estimator, parameters, resource, n_epochs, n_folds, max_memory, memory):
        at_end = [candidate | {resource: n_epochs} for candidate in parameters]
        super().__init__(estimator, at_end, memory, max_memory, n_folds, trains_single=True)
        self.allow_runs(n_folds)
        self._parameters, self._resource, self._n_epochs_at_end = parameters, resource, n_epochs
        self._groups, self._asked = {}, set()

    def begin_rung(self, parameters, n_epochs):
        """Go on with those candidates that are left, up to so many epochs in all."""
        asked = {self._groups[key] for key in self._asked}
        for group in set(self._groups.values()) - asked:
            group.close()
        self._groups = {key: group for key, group in self._groups.items() if group in asked}
        self._asked, self._n_epochs = set(), n_epochs
        self._left = [j for j, given in enumerate(self._parameters) if any(self._is(given, left) for left in parameters)]
        self._n_left, self._seconds, self.corrections = len(parameters), {}, {}

    def __len__(self):
        return self._n_left

    def setting_of(self, j):
        return None  # each fit has its candidate train on: none finds it trained

    def _is(self, given, left):
        """Whether a candidate of a rung is the one that was given: the search copies the dict, but not its values."""
        names = given.keys() - {self._resource}
        return names == left.keys() - {self._resource} and all(left[name] is given[name] for name in names)

    def close(self):
        """End what is suspended."""
        for group in set(self._groups.values()):
            group.close()
        self._groups = {}

    def take(self, estimator, X, y, sample_weight, validation):
        if getattr(estimator, "max_iter", None) != self._n_epochs:
            return None
        asked = copy.copy(estimator)
        asked.max_iter = self._n_epochs_at_end
        return super().take(asked, X, y, sample_weight, validation)

    def _train(self, groups, rows, content):
        for prepared in groups:
            with contextlib.suppress(Exception):  # each is then fitted alone
                group = _Group(prepared)
                self._groups |= {(j, rows): group for j, _, _ in prepared}
        # They train when they are asked for; till then, each has cost the same.
        return {j: 1 for prepared in groups for j, _, _ in prepared}

    def _hand_out(self, index, rows, estimator):
        key = index, rows
        if key not in self._groups or (estimator.random_state is None and key in self._asked):
            return None  # without a seed, each fit is a draw of its own
        self._asked.add(key)
        begin, group = time.time(), self._groups[key]
        trained = group.train(self._n_epochs, keep=self._left_beside(index))
        self._share(time.time() - begin, rows, dict.fromkeys(trained, 1))
        return copy.deepcopy(group.fitted(index))  # which is to go on, or is asked for at later rungs

    def _left_beside(self, index):
        """The candidates that are left and may have the rows of one with this last step."""
        settings = {self._settings[j] for j in self._left if self._first[j] == index}
        return {self._first[j] for j in self._left if self._settings[j] in settings}
