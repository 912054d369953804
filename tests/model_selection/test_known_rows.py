"""Rows that are known again have the key that they were given."""

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_array

from skdnn.model_selection import _rows
from skdnn.model_selection._rows import KnownRows, hash_rows

ROWS = np.random.default_rng(0).normal(size=(50, 3))


@pytest.fixture
def hashed(monkeypatch):
    """What has been hashed so far."""
    seen = []

    def note(array):
        seen.append(array)
        return hash_rows(array)

    monkeypatch.setattr(_rows, "hash_rows", note)
    return seen


def change(array, row):
    changed = array.copy()
    changed[row] += 1
    return changed


ARRAYS = {
    "float64": ROWS,
    "first_differs": change(ROWS, 0),
    "last_differs": change(ROWS, -1),
    "float32": ROWS.astype(np.float32),
    "other_shape": ROWS.reshape(3, 50),
    "columns_first": np.asfortranarray(ROWS[:20]),
    "odd_bytes": (ROWS[:5, :1] > 0).ravel(),
    "text": np.array(["a", "bc"]),
    "zero": np.zeros(3),
    "minus_zero": -np.zeros(3),
    "nan": np.full(3, np.nan),
    "one_number": np.array(1.5),
}


def test_arrays_are_known_without_hashing(hashed):
    known = KnownRows(10**6)
    keys = [[known.key_of(array.copy(order="K")) for array in ARRAYS.values()] for _ in range(2)]
    assert not hashed
    assert keys[0] == keys[1]
    assert len(set(keys[0])) == len(ARRAYS)


def test_the_order_of_numbers_in_memory_does_not_matter():
    known = KnownRows(10**6)
    assert known.key_of(ROWS) == known.key_of(np.asfortranarray(ROWS)) == known.key_of(np.repeat(ROWS, 2, axis=0)[::2])


def test_arrays_that_are_changed_are_others():
    known, rows = KnownRows(10**6), ROWS.copy()
    before = known.key_of(rows)
    rows[-1] = 0.0
    assert known.key_of(rows) == known.key_of(rows.copy()) != before
    assert known.key_of(ROWS) == before


@pytest.mark.parametrize(
    "array",
    [pd.Series([1, 2]), csr_array(ROWS), [1.0, 2.0], np.array([1, "a"], dtype=object), np.empty((0, 3))],
    ids=["series", "sparse", "list", "objects", "empty"],
)
def test_what_cannot_be_compared_is_hashed(array, hashed):
    known = KnownRows(10**6)
    assert known.key_of(array) == known.key_of(array) == hash_rows(array)
    assert len(hashed) == 2


def test_nothing_has_no_key():
    assert KnownRows(10**6).key_of(None) is None


def test_copies_have_bounds(hashed):
    known, first, second = KnownRows(ROWS.nbytes), ROWS, ARRAYS["last_differs"]
    keys = [[known.key_of(array) for array in (first, second)] for _ in range(2)]
    assert keys[0] == keys[1]
    assert keys[0][0] != keys[0][1] == hash_rows(second)
    assert len(hashed) == 2
    known.close()
    assert known.key_of(first) == hash_rows(first)
