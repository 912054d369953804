"""Arrays as tensors, without a copy where none is needed and never with a write."""

import numpy as np
import torch
from sklearn.model_selection import train_test_split


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


def to_tensor(array):
    """Return a tensor that shares the memory of a C-contiguous array of a native dtype."""
    array = np.asarray(array)
    return torch.from_numpy(array if array.flags.writeable else np.asarray(_Writable(array)))


def split_rows(n_samples, y, validation_fraction, seed):
    """Split the indices of the rows, stratified by class where there are classes.

    Parameters
    ----------
    n_samples : int
    y : ndarray of shape (n_samples,) or (n_samples, n_targets)
        Class indices, by which the split is stratified, or targets of another kind.
    validation_fraction : float in (0.0, 1.0)
    seed : int

    Returns
    -------
    training_rows, validation_rows : Tensor of int64
    """
    try:
        training, validation = train_test_split(
            np.arange(n_samples), test_size=validation_fraction, random_state=seed, stratify=y if y.ndim == 1 else None
        )
    except ValueError as error:
        raise ValueError(
            f"early_stopping=True cannot set aside validation_fraction={validation_fraction!r} of {n_samples} rows"
            f"{', stratified by class' if y.ndim == 1 else ''}: {error}"
        ) from error
    return torch.from_numpy(training), torch.from_numpy(validation)


def seed_sequence(random_state):
    """Return a `numpy.random.SeedSequence` for what scikit-learn calls a random state.

    Parameters
    ----------
    random_state : int, RandomState or None
        None takes fresh entropy from the operating system: the global generator is neither read nor moved.
    """
    if random_state is None:
        return np.random.SeedSequence()
    if isinstance(random_state, np.random.RandomState):
        return np.random.SeedSequence(random_state.randint(2**32, size=4, dtype=np.uint32).tolist())
    return np.random.SeedSequence(int(random_state))


def draw_seeds(sequence, n_seeds, *, after=0):
    """Return `n_seeds` independent int seeds in [0, 2**63), others for each value of `after`."""
    child = np.random.SeedSequence(sequence.entropy, spawn_key=(after,))
    return [int(word >> np.uint64(1)) for word in child.generate_state(n_seeds, np.uint64)]
