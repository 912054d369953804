"""Rows of a dense tensor or of a sparse matrix, some at a time: a sparse matrix is never made dense as a whole."""

import torch


def gather_rows(X, rows, out):
    """Write some rows into a buffer.

    Parameters
    ----------
    X : Tensor of shape (n_samples, n_features), or scipy CSR array or matrix of that shape
        Of the dtype of `out`; a tensor lies on its device, too.
    rows : Tensor of shape (n_rows,)
        Their indices.
    out : Tensor of shape (n_rows, n_features)
        C-contiguous.
    """
    if isinstance(X, torch.Tensor):
        torch.index_select(X, 0, rows, out=out)
        return
    some = X[rows.cpu().numpy()]
    if out.device.type == "cpu":
        some.toarray(out=out.numpy())
    else:
        out.copy_(torch.from_numpy(some.toarray()))


def take_rows(X, rows):
    """Return some rows as a dense tensor on the CPU or, where `X` is a tensor, on its device.

    Parameters
    ----------
    X : Tensor of shape (n_samples, n_features), or scipy CSR array or matrix of that shape
    rows : slice, or Tensor of shape (n_rows,)
        A slice of a tensor is a view.
    """
    if isinstance(X, torch.Tensor):
        return X[rows]
    return torch.from_numpy(X[rows if isinstance(rows, slice) else rows.cpu().numpy()].toarray())
