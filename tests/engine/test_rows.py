"""Rows of dense tensors and of sparse matrices."""

import numpy as np
import pytest
import scipy.sparse
import torch

from skdnn.engine.rows import gather_rows, take_rows

DENSE = np.array(
    [[0.0, 1.5, 0.0, -2.0], [0.0, 0.0, 0.0, 0.0], [3.0, 0.0, 0.25, 0.0], [0.0, 0.0, 0.0, 7.0], [1.0, 2.0, 3.0, 4.0]]
)
ROWS = {"some": [4, 0, 2], "repeated": [1, 1, 3, 1], "all_backwards": [4, 3, 2, 1, 0], "one": [1], "none": []}


def unsorted(X):
    """The same matrix with the entries of each row in reverse order."""
    order = np.concatenate([np.arange(a, b)[::-1] for a, b in zip(X.indptr[:-1], X.indptr[1:], strict=True)])
    return type(X)((X.data[order], X.indices[order], X.indptr), shape=X.shape)


def in_halves(X):
    """The same matrix with every entry twice, of half its value."""
    return type(X)((np.repeat(X.data / 2, 2), np.repeat(X.indices, 2), 2 * X.indptr), shape=X.shape)


def with_zeros(X):
    """The same matrix with each of its zeros written out."""
    columns = np.tile(np.arange(X.shape[1]), X.shape[0])
    return type(X)((X.toarray().ravel(), columns, np.arange(X.shape[0] + 1) * X.shape[1]), shape=X.shape)


def long_indices(X):
    return type(X)((X.data, X.indices.astype(np.int64), X.indptr.astype(np.int64)), shape=X.shape)


FORMS = {
    "tensor": torch.from_numpy,
    "csr_array": scipy.sparse.csr_array,
    "csr_matrix": scipy.sparse.csr_matrix,
    "unsorted": lambda X: unsorted(scipy.sparse.csr_array(X)),
    "duplicates": lambda X: in_halves(scipy.sparse.csr_array(X)),
    "explicit_zeros": lambda X: with_zeros(scipy.sparse.csr_array(X)),
    "int64": lambda X: long_indices(scipy.sparse.csr_array(X)),
}
forms = pytest.mark.parametrize("form", FORMS)
dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])


@forms
@dtypes
@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
def test_rows_are_written_in_their_order(form, dtype, rows):
    X = FORMS[form](DENSE.astype(dtype))
    expected = torch.from_numpy(DENSE.astype(dtype)[rows])
    out = torch.full_like(expected, torch.nan)  # what a buffer held before is gone
    with torch.inference_mode():
        assert gather_rows(X, torch.tensor(rows, dtype=torch.int64), out) is None
        taken = take_rows(X, torch.tensor(rows, dtype=torch.int64))
    assert torch.equal(out, expected)
    assert torch.equal(taken, expected)
    assert taken.dtype == expected.dtype


@forms
def test_a_part_of_a_buffer_is_filled_and_the_rest_left(form):
    buffer = torch.full((3, 2, 4), torch.nan, dtype=torch.float64)
    gather_rows(FORMS[form](DENSE), torch.tensor([4, 1, 2, 0]), buffer[:2].view(-1, 4))
    assert torch.equal(buffer[:2].view(-1, 4), torch.from_numpy(DENSE[[4, 1, 2, 0]]))
    assert buffer[2].isnan().all()


@forms
@pytest.mark.parametrize("rows", [slice(0, 2), slice(3, 99), slice(2, 2), slice(None)], ids=str)
def test_slices(form, rows):
    assert torch.equal(take_rows(FORMS[form](DENSE), rows), torch.from_numpy(DENSE[rows]))


def test_a_slice_of_a_tensor_is_a_view():
    X = torch.from_numpy(DENSE)
    assert take_rows(X, slice(1, 3)).data_ptr() == X[1].data_ptr()


@pytest.mark.parametrize("form", [form for form in FORMS if form != "tensor"])
def test_a_sparse_matrix_is_left_as_it_is(form):
    X = FORMS[form](DENSE)
    parts = X.data, X.indices, X.indptr
    before = [part.copy() for part in parts]
    gather_rows(X, torch.tensor([3, 0]), torch.empty(2, 4, dtype=torch.float64))
    take_rows(X, slice(0, 3))
    assert all(now is part for now, part in zip((X.data, X.indices, X.indptr), parts, strict=True))
    for part, own in zip(parts, before, strict=True):
        np.testing.assert_array_equal(part, own)
