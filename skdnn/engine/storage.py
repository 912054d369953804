"""Flat storage: every parameter of K networks is a view of one tensor, and every gradient of another."""

import math

import torch


class FlatStorage:
    """The tensors of K networks of one shape, one after the other in a flat tensor.

    Each named tensor is a contiguous block of shape (K, *shape), so that a layer sees its K kernels as one batch and an
    update rule sees everything as one vector. With one network the leading axis is left out.

    Parameters
    ----------
    shapes : sequence of tuple of int
        Of one network's tensors.
    n_networks : int
    dtype : torch.dtype
    device : torch.device

    Attributes
    ----------
    data : Tensor of shape (n_networks * n_elements,)
    """

    def __init__(self, shapes, n_networks, dtype, device):
        self.shapes = [tuple(shape) for shape in shapes]
        self.n_networks = n_networks
        self.sizes = [math.prod(shape) for shape in self.shapes]
        with torch.inference_mode(False):  # an ordinary tensor whatever the caller's mode: users differentiate through it
            self.data = torch.zeros(n_networks * sum(self.sizes), dtype=dtype, device=device)

    def _blocks(self, flat):
        """The blocks of a flat tensor like `data`, each of shape (K, size)."""
        return [block.view(self.n_networks, -1) for block in flat.split([self.n_networks * size for size in self.sizes])]

    def views(self, flat=None):
        """Return the tensors as views of `flat` (`data` by default), of shape (K, *shape), or shape where K is 1."""
        leading = () if self.n_networks == 1 else (self.n_networks,)
        flat = self.data if flat is None else flat
        return [block.view(*leading, *shape) for block, shape in zip(self._blocks(flat), self.shapes, strict=True)]

    def network(self, k, flat=None):
        """Return the tensors of network `k` as views of `flat` (`data` by default)."""
        flat = self.data if flat is None else flat
        return [block[k].view(shape) for block, shape in zip(self._blocks(flat), self.shapes, strict=True)]

    def select(self, indices, flat=None):
        """Return what some networks have in `flat` (`data` by default), in the layout of a storage of these alone.

        Parameters
        ----------
        indices : list of int
        flat : Tensor like `data`, default=None
        """
        blocks = self._blocks(self.data if flat is None else flat)
        return torch.cat([block[indices].reshape(-1) for block in blocks]) if blocks else self.data.clone()

    def assign(self, k, flat):
        """Write the tensors of network `k`, given in the layout of a storage of one network."""
        parts = flat.split(self.sizes)
        for block, part in zip(self._blocks(self.data), parts, strict=True):
            block[k].copy_(part)

    def spread(self, values):
        """Return a tensor like `data` that holds, at every element, the value of the network it belongs to.

        Parameters
        ----------
        values : Tensor of shape (n_networks,)
        """
        spread = torch.empty_like(self.data)
        for block in self._blocks(spread):
            block.copy_(values.view(-1, 1))
        return spread

    def norms(self, flat):
        """Return the Euclidean norm of each network's part of `flat`, a tensor of shape (n_networks,)."""
        if self.n_networks == 1:
            return torch.linalg.vector_norm(flat).view(1)
        norms = torch.stack([torch.linalg.vector_norm(block, dim=1) for block in self._blocks(flat)])
        return torch.linalg.vector_norm(norms, dim=0)
