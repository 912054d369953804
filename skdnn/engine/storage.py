"""Flat storage: every parameter of K networks is a view of one tensor, and every gradient of another."""

import math

import torch

# What is a network's begins at a multiple of this, and other networks' do not follow it at once. Kernels round by where a
# number is: apart from cache lines, and left over from pairs of vectors (of up to 64 bytes), as it would be in a tensor alone.
_ALIGNMENT = 128


def empty_for_each(like, n_networks, *shape, before=()):
    """Return an uninitialised tensor with a part for each network, in which kernels round as in a tensor of its own.

    Parameters
    ----------
    like : Tensor
        Of the dtype and device.
    n_networks : int
    *shape : int
        Of a network's part.
    before : tuple of int, default=()
        Axes before that of the networks.

    Returns
    -------
    tensor : Tensor of shape (*before, [n_networks,] *shape)
    """
    if n_networks == 1:
        return like.new_empty(*before, *shape)
    size = math.prod(shape)
    return like.new_empty(*before, n_networks, _stride(size, like.dtype))[..., :size].unflatten(-1, shape)


def _stride(size, dtype):
    """How many elements a network's part of so many takes."""
    unit = _ALIGNMENT // dtype.itemsize
    return -(-size // unit) * unit


class FlatStorage:
    """The tensors of K networks of one shape, network by network in a flat tensor.

    What a network has lies together, as it does where it is alone, so that an update rule runs over the same vector. A layer
    sees the kernels of all as one batch of shape (K, *shape), whose leading axis has a stride. With one network it is left out.

    Parameters
    ----------
    shapes : sequence of tuple of int
        Of one network's tensors.
    n_networks : int
    dtype : torch.dtype
    device : torch.device

    Attributes
    ----------
    data : Tensor of shape (n_networks * stride,)
        The stride is a network's number of elements, and more where there are several networks.
    """

    def __init__(self, shapes, n_networks, dtype, device):
        self.shapes = [tuple(shape) for shape in shapes]
        self.n_networks = n_networks
        self.sizes = [math.prod(shape) for shape in self.shapes]
        self._n_elements = sum(self.sizes)
        stride = _stride(self._n_elements, dtype) if n_networks > 1 else self._n_elements
        with torch.inference_mode(False):  # an ordinary tensor whatever the caller's mode: users differentiate through it
            self.data = torch.zeros(n_networks * stride, dtype=dtype, device=device)

    def _blocks(self, flat):
        """The named tensors in a flat tensor like `data`, each of shape (K, size), or size where K is 1."""
        if not self.sizes:
            return []
        return (flat if self.n_networks == 1 else self._matrix(flat)).split_with_sizes(self.sizes, dim=-1)

    def _matrix(self, flat):
        """A flat tensor like `data` as one of shape (n_networks, n_elements)."""
        return flat.view(self.n_networks, -1)[:, : self._n_elements]

    def rows(self, networks, flat=None):
        """Return what a slice of the networks has in `flat` (`data` by default).

        Parameters
        ----------
        networks : slice
        flat : Tensor like `data`, default=None

        Returns
        -------
        rows : Tensor of shape (n, n_elements)
            A view of `flat`; a single network's vector has no leading axis.
        """
        flat = self.data if flat is None else flat
        if self.n_networks == 1:
            return flat
        rows = self._matrix(flat)[networks]
        return rows[0] if len(rows) == 1 else rows

    def views(self, flat=None):
        """Return the tensors as views of `flat` (`data` by default), of shape (K, *shape), or shape where K is 1."""
        leading = () if self.n_networks == 1 else (self.n_networks,)
        flat = self.data if flat is None else flat
        return [block.view(*leading, *shape) for block, shape in zip(self._blocks(flat), self.shapes, strict=True)]

    def network(self, k, flat=None):
        """Return the tensors of network `k` as views of `flat` (`data` by default)."""
        flat = self.data if flat is None else flat
        blocks = self._blocks(flat)
        own = blocks if self.n_networks == 1 else [block[k] for block in blocks]
        return [block.view(shape) for block, shape in zip(own, self.shapes, strict=True)]

    def copy(self):
        """Return a copy of `data`, or itself where it has no elements."""
        return self.data.clone() if self.shapes else self.data

    def select(self, indices, flat=None):
        """Return what some networks have in `flat` (`data` by default), in the layout of a storage of these alone.

        Parameters
        ----------
        indices : list of int
        flat : Tensor like `data`, default=None
        """
        flat = self.data if flat is None else flat
        if len(indices) == 1:
            return self._matrix(flat)[indices[0]].clone()
        return flat.view(self.n_networks, -1)[indices].view(-1) if len(flat) else flat.clone()

    def assign(self, k, flat):
        """Write the tensors of network `k`, given in the layout of a storage of one network."""
        self.rows(slice(k, k + 1)).copy_(flat)

    def norms(self, flat):
        """Return the Euclidean norm of each network's part of `flat`, a tensor of shape (n_networks,)."""
        if self.n_networks == 1:
            return torch.linalg.vector_norm(flat, dim=-1, keepdim=True)
        return torch.linalg.vector_norm(self._matrix(flat), dim=1)
