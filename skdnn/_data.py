"""Arrays as tensors, without a copy where none is needed and never with a write."""

import contextlib
import contextvars
import math
from numbers import Real

import numpy as np
import scipy.sparse
import torch
from sklearn.model_selection import train_test_split
from sklearn.utils.validation import validate_data

from skdnn._validation import check_sample_weight

# Sample weights whose mean is within these bounds are used as they are: as counts of rows. Others have no such meaning, and
# might not even be told from 0 in float32; they are scaled to mean 1.
_COUNTS = 1.0, 1e6

# Smaller weights, relative to the mean, are not told from 0 where squares and sums of them are taken in float32.
_SMALLEST_WEIGHT = 1e-30

_known = contextvars.ContextVar("skdnn_known", default=None)


class _Writable:
    """A window on an array that does not tell that the array is read-only.

    torch warns of every read-only array that it shares. skdnn never writes to a caller's array, and a memory-mapped file must
    not be copied only to keep torch quiet.
    """

    def __init__(self, array):
        self._array = array  # keeps the memory alive as long as the tensor that is made of this
        interface = dict(array.__array_interface__)
        interface["data"] = (interface["data"][0], False)
        self.__array_interface__ = interface


def validate_rows(estimator, X, y="no_validation", *, dtypes, reset, **checks_of_y):
    """Check rows as scikit-learn's `validate_data` does, in a fifth of the time where they are arrays that need no change.

    Parameters
    ----------
    estimator : estimator
    X : array-like or sparse matrix of shape (n_samples, n_features)
    y : array-like of shape (n_samples,) or (n_samples, n_targets), default="no_validation"
        By default only X is checked.
    dtypes : list of dtype
        Those that X may keep; the first is what others are converted to.
    reset : bool
        Whether the estimator learns number and names of features, which are compared otherwise.
    **checks_of_y : dict
        As `validate_data` takes them.

    Returns
    -------
    X : C-contiguous ndarray, or CSR array or matrix, of shape (n_samples, n_features)
    y : ndarray
        Where it is given.
    """
    if _is_plain(X, dtypes) and (isinstance(y, str) or _are_plain_labels(y, len(X))):
        attributes = vars(estimator)
        if reset:
            attributes["n_features_in_"] = X.shape[1]
            attributes.pop("feature_names_in_", None)
        if attributes.get("n_features_in_") == X.shape[1] and "feature_names_in_" not in attributes:
            return X if isinstance(y, str) else (X, y)
    return validate_data(estimator, X, y, accept_sparse="csr", order="C", dtype=dtypes, reset=reset, **checks_of_y)


def _is_plain(X, dtypes):
    """Whether X is an array of numbers that are used where they lie."""
    if type(X) is not np.ndarray or X.ndim != 2 or X.dtype not in dtypes or not X.flags.c_contiguous or not X.size:
        return False
    return once(_has_finite_sum, X)


def _has_finite_sum(X):
    with np.errstate(over="ignore", invalid="ignore"):
        return math.isfinite(X.sum())


@contextlib.contextmanager
def looked_at_once(known=None):
    """Within this context, find out only once what `once` is asked for: nobody must change the arrays.

    Parameters
    ----------
    known : dict, default=None
        What has been found out before; more is added.
    """
    token = _known.set({} if known is None else known)
    try:
        yield
    finally:
        _known.reset(token)


def once(look, array):
    """Return what a function finds out about an array; nobody must change that, for others may be given it, too.

    Parameters
    ----------
    look : callable
        A function of a module.
    array : ndarray
    """
    known = _known.get()
    if known is None:
        return look(array)
    key = look, id(array)
    if key not in known:
        known[key] = look(array), array  # which lives as long as its id is looked up
    return known[key][0]


def _are_plain_labels(y, n_rows):
    """Whether y is an array of integers or bools, one a row."""
    return type(y) is np.ndarray and y.shape == (n_rows,) and y.dtype.kind in "biu" and y.flags.c_contiguous


def to_tensor(array):
    """Return a tensor that shares the memory of a C-contiguous array of a native dtype."""
    array = np.asarray(array)
    return torch.from_numpy(array if array.flags.writeable else np.asarray(_Writable(array)))


def to_rows(X, device, dtype):
    """Return the rows of a network's input: a tensor on a device, or a sparse matrix of the dtype.

    Parameters
    ----------
    X : C-contiguous ndarray, or scipy CSR array or matrix, of shape (n_samples, n_features)
    device : torch.device
    dtype : torch.dtype
    """
    if scipy.sparse.issparse(X):
        return X.astype(torch.empty(0, dtype=dtype).numpy().dtype, copy=False)
    return to_tensor(X).to(device, dtype)


def resolve_sample_weight(sample_weight, X):
    """Check the weights of the rows of `X`.

    Parameters
    ----------
    sample_weight : array-like of shape (n_samples,), float or None
    X : array of shape (n_samples, n_features)

    Returns
    -------
    sample_weight : ndarray of float64 of shape (n_samples,) or None
        None where all are 1. Those above 0 are large enough to be counted.

    Raises
    ------
    ValueError
        Weights are negative or not finite, all of them are zero, or their number is not that of the rows.
    """
    if sample_weight is None:
        return None
    if isinstance(sample_weight, Real):  # which is not checked otherwise
        sample_weight = np.full(X.shape[0], sample_weight)
    weight = check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
    if (weight == 1.0).all():
        return None
    counts = weight > 0.0
    mean = np.mean(weight[counts] / weight.max()) * weight.max()  # a sum might overflow
    if not _COUNTS[0] <= mean <= _COUNTS[1]:
        weight = weight / mean
    return np.where(counts, np.maximum(weight, _SMALLEST_WEIGHT), 0.0)


def number_equal_rows(X, rows):
    """Number rows by their values: equal rows get the same number, wherever they stand.

    Parameters
    ----------
    X : ndarray, or scipy CSR array or matrix, of shape (n_samples, n_features)
    rows : ndarray of int of shape (n_rows,)
        Indices of the rows to number.

    Returns
    -------
    numbers : ndarray of int of shape (n_rows,)
        From 0 in the order of the values, so that scaling and rounding hardly change them.

    Examples
    --------
    >>> number_equal_rows(np.array([[2.0, 1.0], [0.0, 3.0], [2.0, 1.0], [9.0, 9.0]]), np.array([0, 1, 2])).tolist()
    [1, 0, 1]
    """
    some = X[rows]
    return np.unique(some.toarray() if scipy.sparse.issparse(some) else some, axis=0, return_inverse=True)[1]


def split_rows(rows, y, validation_fraction, seed):
    """Split indices of rows, stratified by class where there are classes, and at least as many rows to set aside.

    Parameters
    ----------
    rows : ndarray of int of shape (n_rows,)
    y : ndarray of shape (n_samples,) or (n_samples, n_targets)
        Class indices of all samples, by which the split is stratified, or targets of another kind.
    validation_fraction : float in (0.0, 1.0)
    seed : int

    Returns
    -------
    training_rows, validation_rows : ndarray of int
    """
    stratify = y[rows] if y.ndim == 1 else None
    if stratify is not None:
        sizes = np.unique(stratify, return_counts=True)[1]
        if len(sizes) > math.ceil(validation_fraction * len(rows)) and sizes.min() > 1:
            stratify = None
    try:
        return train_test_split(rows, test_size=validation_fraction, random_state=seed, stratify=stratify)
    except ValueError as error:
        raise ValueError(
            f"early_stopping=True cannot set aside validation_fraction={validation_fraction!r} of {len(rows)} rows"
            f"{'' if stratify is None else ', stratified by class'}: {error}"
        ) from error


def entropy_of(random_state):
    """Return what seeds are drawn from, an int or a list of int, for what scikit-learn calls a random state.

    Parameters
    ----------
    random_state : int, RandomState or None
        None takes fresh entropy from the operating system: the global generator is neither read nor moved.
    """
    if random_state is None:
        return np.random.SeedSequence().entropy
    if isinstance(random_state, np.random.RandomState):
        return random_state.randint(2**32, size=4, dtype=np.uint32).tolist()
    return int(random_state)


def draw_seeds(entropy, n_seeds, *, after=0):
    """Return `n_seeds` independent int seeds in [0, 2**63), others for each value of `after`."""
    sequence = np.random.SeedSequence(entropy, spawn_key=(after,))
    return [word >> 1 for word in sequence.generate_state(n_seeds, np.uint64).tolist()]
