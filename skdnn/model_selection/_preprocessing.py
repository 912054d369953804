"""What stands before the last step of a pipeline, fitted once for equal rows however many candidates ask for it."""

import contextlib
import copy
import hashlib
import pickle
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
from skdnn.model_selection._rows import KnownRows


def last_step(estimator):
    """Return the last step of a pipeline, or the estimator itself."""
    return estimator.steps[-1][1] if isinstance(estimator, Pipeline) and estimator.steps else estimator


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
        Of transformed rows that are kept. Beyond it those go that have not been asked for longest, and are made anew. Of copies
        of rows by which others are known again, half as much.
    """

    def __init__(self, max_bytes):
        self.max_bytes = max_bytes
        self._rows = KnownRows(max_bytes // 2)
        self._n_bytes = 0
        self._kept = OrderedDict()  # from key to (outputs, fitted transformer)
        self._keys = {}  # from the id of rows that are kept to their key
        self._key_of_call = {}  # from what is quick to compute
        self._noted = None

    def __sklearn_clone__(self):
        return self

    def __reduce__(self):
        return type(None), ()  # whoever leaves the search does without

    def close(self):
        """Let go of everything, and keep nothing from now on."""
        self.max_bytes = 0
        self._make_room(0)
        self._rows.close()
        self._key_of_call = {}

    def key_of(self, X):
        """Return what says how rows have come about, where they are kept, or None."""
        return self._keys.get(id(X))

    def key_of_content(self, *arrays):
        """Return a key of arrays that is the same for the same content, or the same way in which rows have come about."""
        return tuple(self.key_of(array) or self._rows.key_of(array) for array in arrays)

    def cache(self, func, ignore=()):
        """Return `func`, which fits a transformer, with a memory; the interface of `joblib.Memory`."""
        return partial(self._fit, func, frozenset(ignore))

    @contextlib.contextmanager
    def noted(self):
        """Yield a list of the keys of what is asked for within this context, None of what is not kept."""
        self._noted = keys = []
        try:
            yield keys
        finally:
            self._noted = None

    def _fit(self, func, ignore, transformer, X, *args, message=None, **kwargs):
        call = partial(func, transformer, X, *args, message=message, **kwargs)
        key = content = None
        if self.max_bytes and message is None:
            given = {name: value for name, value in kwargs.items() if name not in ignore}
            with contextlib.suppress(Exception):  # something that cannot be pickled
                origin = self.key_of(X)
                content = None if origin else self._rows.key_of(X)
                key = self._make_key(transformer, origin or content, args, given)
        if key in self._kept:
            self._kept.move_to_end(key)
            outputs, fitted = self._kept[key]
            result = *outputs, copy.deepcopy(fitted)
        elif key is None or _differs_each_time(transformer):
            result = call()
        else:
            result = self._fit_and_keep(key, call, X, content)
        if self._noted is not None:
            self._noted.append(key if key in self._kept else None)
        return result

    def _fit_and_keep(self, key, call, X, content):
        content = self._rows.key_of(X) if content is None else content
        generators = _global_generators()
        with warnings.catch_warnings(record=True) as said:
            *outputs, fitted = call()
        for warning in said:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
        if self._rows.key_of(X) != content:
            self._drop(self.key_of(X))
        elif _global_generators() == generators and not said and not any(_may_share_memory(rows, X) for rows in outputs):
            self._keep(key, outputs, fitted)
        return *outputs, fitted

    def transform_once(self, place, keys, make_rows):
        """Return rows as transformers that are kept hand them on, computed for the first who asks; the rest of `make_rows` too.

        Parameters
        ----------
        place : hashable
            What the rows are known by.
        keys : list
            Of the transformers, one after the other.
        make_rows : callable
            Returns the rows and what belongs to them.

        Raises
        ------
        LookupError
            Something is not kept any more, or it matters how often rows are transformed.
        """
        if place in self._kept:
            self._kept.move_to_end(place)
            return self._kept[place][0]
        transformers = [self._kept[key][1] for key in keys]
        rows, *others = make_rows()
        before = _global_generators()
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            for transformer in transformers:
                rows = copy.deepcopy(transformer).transform(rows)
        if said or _global_generators() != before:
            raise LookupError
        self._keep(place, [rows, *others], None)
        return [rows, *others]

    def drop(self, keys):
        """Let go of what is kept by some keys, where nobody is likely to ask for it again."""
        for key in keys:
            self._drop(key)

    def _make_key(self, transformer, rows, args, given):
        """Return a key of a call on rows of a key: of what is pickled, but not of the order in which that comes."""
        arrays = [self._rows.key_of(value) if isinstance(value, np.ndarray) else value for value in args]
        quick = hashlib.sha1(pickle.dumps((rows, transformer, arrays, given))).digest()
        if quick not in self._key_of_call:
            self._key_of_call[quick] = joblib.hash((rows, transformer, arrays, given))
        return self._key_of_call[quick]

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
    return pickle.dumps((np.random.get_state(), random.getstate(), torch.get_rng_state().numpy()))  # noqa: NPY002


def _may_share_memory(rows, X):
    """Whether a change of X, which is not ours, might show in other rows."""
    arrays = isinstance(rows, np.ndarray) and isinstance(X, np.ndarray)
    return rows is X or (arrays and np.may_share_memory(rows, X))


def _n_bytes(rows):
    if scipy.sparse.issparse(rows):
        return sum(getattr(rows, name).nbytes for name in ("data", "indices", "indptr") if hasattr(rows, name))
    return getattr(rows, "nbytes", 8 * np.size(rows))
