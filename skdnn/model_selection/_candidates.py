"""The candidates of a search, trained in lockstep for each fold and preprocessing."""

import joblib
from sklearn.base import clone
from sklearn.pipeline import Pipeline

from skdnn._base import BaseMLPDeep
from skdnn.components._component import _same
from skdnn.training import Lane, can_share_a_population, train_in_lockstep


class Candidates:
    """Estimators that a search is going to fit, once for each fold.

    Parameters
    ----------
    estimator : estimator
        An estimator of skdnn, or a pipeline that ends with one; what else there is, is left alone.
    parameters : list of dict
        The candidates.
    max_size : int
        Networks that train together at most.
    members : list of int, default=None
        Numbers of the candidates to train, by default all.
    """

    def __init__(self, estimator, parameters, max_size, members=None):
        self._prefix = f"{estimator.steps[-1][0]}__" if isinstance(estimator, Pipeline) and estimator.steps else ""
        self._final = estimator.steps[-1][1] if self._prefix else estimator
        self._max_size = max_size
        self._own, self._others = [], []
        for candidate in parameters if isinstance(self._final, BaseMLPDeep) else []:
            own = {name.removeprefix(self._prefix): v for name, v in candidate.items() if name.startswith(self._prefix)}
            self._own.append(own)
            self._others.append({name: v for name, v in candidate.items() if not name.startswith(self._prefix)})
        self._members = range(len(self._own)) if members is None else members
        self._fitted = {}

    def divide(self, n_parts):
        """Return lists of the numbers of candidates that can train together, each such group in up to `n_parts` parts."""
        groups = []
        for j in self._members:
            group = next((group for group in groups if self._can_join(j, group[0])), None)
            if group is None:
                groups.append([j])
            else:
                group.append(j)
        return [group[i::n_parts] for group in groups for i in range(min(n_parts, len(group)))]

    def learned(self):
        """Return what was trained and not taken, for `add`."""
        return {key: fitted for key, fitted in self._fitted.items() if fitted is not None}

    def add(self, learned):
        """Take over what was trained elsewhere."""
        self._fitted |= learned

    def take(self, estimator, X, y, sample_weight, validation):
        """Return the fitted estimator of a candidate, and train all that can be trained with it if it is the first."""
        index = self._index_of(estimator)
        if index is None:
            return None
        rows = joblib.hash((X, y, sample_weight, validation))
        if (index, rows) not in self._fitted:
            members = [j for j in self._members if self._can_join(j, index) and (j, rows) not in self._fitted]
            self._fitted |= {(j, rows): None for j in members}
            self._fitted |= {(j, rows): fitted for j, fitted in self._train(members, (X, y, sample_weight), validation)}
        return self._fitted[index, rows]

    def _index_of(self, estimator):
        """The candidate that an estimator is, or None."""
        if type(estimator) is not type(self._final) or not _can_be_trained_with_others(estimator):
            return None
        parameters = estimator.get_params()
        for index, own in enumerate(self._own):
            if all(name in parameters and _same(parameters[name], value) for name, value in own.items()):
                return index
        return None

    def _can_join(self, j, index):
        """Whether two candidates differ in parameters of the last step only."""
        mine, theirs = self._others[j], self._others[index]
        return mine.keys() == theirs.keys() and all(_same(mine[name], theirs[name]) for name in mine)

    def _train(self, members, given, validation):
        """Train candidates on the same rows and yield the number and the estimator of those that could be."""
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
        for group in groups:
            if len(group) > 1:
                yield from _train_group(group)

    def _prepare(self, j, given, validation):
        """Return a candidate's number, estimator and net, or None where something is wrong, which its own fit will tell."""
        try:
            estimator = clone(self._final).set_params(**clone(self._own[j], safe=False))
            if not _can_be_trained_with_others(estimator):
                return None
            estimator._check_parameters()
            return j, estimator, estimator._prepare(given, given_validation=validation, session_type=Lane)
        except Exception:
            return None


def _can_be_trained_with_others(estimator):
    """Whether nobody listens to the estimator's epochs."""
    return not estimator.callbacks and not estimator.verbose and not hasattr(estimator, "_skl_callbacks")


def _takes(group, session, max_size):
    return len(group) < max_size and can_share_a_population(group[0][2].session, session)


def _train_group(group):
    """Train prepared candidates in lockstep and yield the number and the fitted estimator of each."""
    nets = [net for _, _, net in group]
    sessions = [net.session for net in nets]
    try:
        trained = train_in_lockstep(nets)
    except ValueError:  # techniques that have no common form
        return
    for (j, estimator, net), session in zip(group, sessions, strict=True):
        if net in trained:
            estimator._store(net, session, continues=False, is_stream=False)
            yield j, estimator
