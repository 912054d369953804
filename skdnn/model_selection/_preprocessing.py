"""What stands before the last step of a pipeline, fitted once for equal rows however many candidates ask for it."""

import contextlib
import copy
import random
import warnings
from collections import OrderedDict
from functools import partial

import joblib
import numpy as np
import scipy.sparse
import torch
from sklearn.pipeline import Pipeline

from skdnn._base import BaseMLPDeep


def last_step(estimator):
    """Return the last step of a pipeline, or the estimator itself."""
    return estimator.steps[-1][1] if isinstance(estimator, Pipeline) and estimator.steps else estimator


def hash_rows(*arrays):
    """Return a key of what is in some arrays, whatever their memory looks like."""
    plain = [np.ascontiguousarray(np.asarray(array)) if isinstance(array, np.ndarray) else array for array in arrays]
    return joblib.hash(plain, hash_name="sha1")


def has_callbacks(*estimators):
    """Whether callbacks of scikit-learn listen to one of some estimators, or to one within it."""
    parts = (part for estimator in estimators for part in (estimator, *estimator.get_params().values()))
    return any(hasattr(part, "_skl_callbacks") for part in parts)


def with_memory(estimator, memory):
    """Return a pipeline like `estimator` that has a memory; what has one, prints or needs none is returned itself."""
    if not isinstance(estimator, Pipeline) or estimator.memory is not None or estimator.verbose:
        return estimator
    remembering = copy.copy(estimator)
    remembering.memory = memory
    return remembering


class FittedOnce:
    """The `memory` of a pipeline within this process: equal transformers are fitted to equal rows once.

    What depends on more than transformer and rows is fitted each time, as it would be without: transformers that draw from a
    global generator, warn, work in place or have callbacks; and so are those that hand on the rows that they are given.

    Parameters
    ----------
    max_bytes : int
        Of transformed rows that are kept. Beyond it those go that have not been asked for longest, and are made anew.
    """

    def __init__(self, max_bytes):
        self.max_bytes = max_bytes
        self._n_bytes = 0
        self._kept = OrderedDict()  # from key to (outputs, fitted transformer)
        self._keys = {}  # from the id of rows that are kept to their key

    def __sklearn_clone__(self):
        return self

    def __reduce__(self):
        return type(None), ()  # whoever leaves the search does without

    def close(self):
        """Let go of everything, and keep nothing from now on."""
        self.max_bytes = 0
        self._make_room(0)

    def key_of(self, X):
        """Return what says how rows have come about, where they are kept, or None."""
        return self._keys.get(id(X))

    def cache(self, func, ignore=()):
        """Return `func`, which fits a transformer, with a memory; the interface of `joblib.Memory`."""
        return partial(self._fit, func, frozenset(ignore))

    def _fit(self, func, ignore, transformer, X, *args, message=None, **kwargs):
        call = partial(func, transformer, X, *args, message=message, **kwargs)
        if not self.max_bytes or message is not None or _differs_each_time(transformer):
            return call()
        given = {name: value for name, value in kwargs.items() if name not in ignore}
        try:
            key = joblib.hash((self.key_of(X) or hash_rows(X), transformer, args, given))
        except Exception:  # something that cannot be pickled
            return call()
        if key in self._kept:
            self._kept.move_to_end(key)
            outputs, fitted = self._kept[key]
            return *outputs, copy.deepcopy(fitted)
        before = hash_rows(X), _global_generators()
        with warnings.catch_warnings(record=True) as said:
            *outputs, fitted = call()
        for warning in said:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
        content, generators = hash_rows(X), _global_generators()
        if content != before[0]:
            self._drop(self.key_of(X))
        elif generators == before[1] and not said and not any(_may_share_memory(rows, X) for rows in outputs):
            self._keep(key, outputs, fitted)
        return *outputs, fitted

    def _keep(self, key, outputs, fitted):
        n_bytes = sum(map(_n_bytes, outputs))
        if n_bytes > self.max_bytes:
            return
        with contextlib.suppress(Exception):  # something that cannot be copied
            fitted = copy.deepcopy(fitted)  # what it does for one candidate must not show with the next
            self._make_room(self.max_bytes - n_bytes)
            self._kept[key] = outputs, fitted
            self._keys |= {id(rows): key for rows in outputs}
            self._n_bytes += n_bytes

    def _make_room(self, max_bytes):
        while self._kept and self._n_bytes > max_bytes:
            self._drop(next(iter(self._kept)))

    def _drop(self, key):
        if key in self._kept:
            outputs, _ = self._kept.pop(key)
            for rows in outputs:
                self._keys.pop(id(rows), None)
            self._n_bytes -= sum(map(_n_bytes, outputs))


def _differs_each_time(transformer):
    """Whether a transformer, or one within it, is seen by callbacks or is a network that draws a seed of its own."""
    parts = [transformer, *transformer.get_params().values()]
    return has_callbacks(transformer) or any(isinstance(part, BaseMLPDeep) and part.random_state is None for part in parts)


def _global_generators():
    """The states of the global generators, to tell whether something has been drawn: also from NumPy's old one."""
    return joblib.hash((np.random.get_state(), random.getstate(), torch.get_rng_state().numpy()))  # noqa: NPY002


def _may_share_memory(rows, X):
    """Whether a change of X, which is not ours, might show in other rows."""
    arrays = isinstance(rows, np.ndarray) and isinstance(X, np.ndarray)
    return rows is X or (arrays and np.may_share_memory(rows, X))


def _n_bytes(rows):
    if scipy.sparse.issparse(rows):
        return sum(getattr(rows, name).nbytes for name in ("data", "indices", "indptr") if hasattr(rows, name))
    return getattr(rows, "nbytes", 8 * np.size(rows))
