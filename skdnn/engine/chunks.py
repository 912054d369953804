"""Batches of an epoch, gathered some tens at a time: a batch is then a view, and gathering costs one call for all of them."""

import math
import operator
from functools import cached_property

import torch

from skdnn.engine.rows import gather_rows
from skdnn.engine.storage import empty_for_each

# A chunk holds this many batches, fewer where they are large.
_CHUNK_BATCHES = 64
_CHUNK_ELEMENTS = 2**21


class Chunks:
    """The buffers of batches, which networks of one shape that see the same batches share.

    Parameters
    ----------
    network : Network
        One of them.
    loss : Loss
    """

    def __init__(self, network, loss):
        self._network = network
        self._loss = loss
        self._chunks = {}

    def gather(self, runs, X, y, order, weights, sample_weight, twins):
        """Gather the rows of an epoch, as many batches at a time as there are buffers for.

        Parameters
        ----------
        runs : sequence of (n_batches, n_rows_of_a_batch)
            The batches, as `split_into_batches` returns them.
        X, y, order, weights, sample_weight, twins
            As of `Trainer.run_epoch`.

        Yields
        ------
        parts : list of (Chunk, int)
            Those that have been filled with the next batches, and how many these are.
        """
        fills = []
        for chunk, (n_batches, _) in zip(self._of(runs, order, weights, sample_weight), runs, strict=True):
            for first in range(0, n_batches, chunk.n_batches):
                fills.append([(chunk, min(chunk.n_batches, n_batches - first))])
        if len(fills) > 1 and fills[-1][0][0].follows(*fills[-2][0]):
            fills[-2:] = [fills[-2] + fills[-1]]
        start = 0
        for parts in fills:
            n_rows = sum(chunk.size * count for chunk, count in parts)
            parts[0][0].store.fill(parts, X, y, order[..., start : start + n_rows], weights, sample_weight, twins)
            yield parts
            start += n_rows

    def _of(self, runs, order, weights, sample_weight):
        """Return the `Chunk` for each run of batches; it is made when the first batches of its size come."""
        kind = order.dim() == 2, 0 if weights is None else weights.shape[1], sample_weight is not None
        missing = [(n_batches, size) for n_batches, size in runs if (size, *kind) not in self._chunks]
        if missing:
            n_features = self._network.plans[0].layers[0].n_in
            held = [
                (min(n_batches, _CHUNK_BATCHES, max(1, _CHUNK_ELEMENTS // (size * n_features))), size)
                for n_batches, size in missing
            ]
            # A last batch of another size has its place behind the others, so that all can be gathered at once.
            store = _Store(self._network, self._loss, sum(n_batches * size for n_batches, size in held), *kind)
            begin = 0
            for n_batches, size in held:
                self._chunks[size, *kind] = Chunk(self._network, self._loss, n_batches, size, store, begin)
                begin += n_batches * size
        return [self._chunks[size, *kind] for _, size in runs]


class _Store:
    """Buffers for the rows of batches of one or two sizes, one after the other.

    Parameters
    ----------
    network : Network
        Whose shape, dtype and device they have.
    loss : Loss
    n_rows : int
        Of each network, where each has batches of its own.
    has_own_batches : bool
        Whether each network sees batches of its own.
    n_weights : int
        Factors of a row's loss: 0 for none, 1, or one an output.
    has_sample_weight : bool
    """

    def __init__(self, network, loss, n_rows, has_own_batches, n_weights, has_sample_weight):
        self.kind = has_own_batches, n_weights, has_sample_weight
        leading = () if network.n_networks == 1 else (network.n_networks,)
        self.own = leading if has_own_batches else ()
        self.shared = self.own if has_own_batches or not leading else (1,)
        self.is_weighted = bool(n_weights) or has_sample_weight
        self.has_sample_weight = has_sample_weight
        self._loss = loss
        n_rows *= math.prod(self.own)
        with torch.inference_mode(False):
            empty = network.gradient.new_empty
            self.x = empty(n_rows, network.plans[0].layers[0].n_in)
            self.targets = empty(n_rows, network.n_outputs)
            # What a row is of its batch, whose shares sum to 1, and what it counts in the loss.
            self.shares = empty(n_rows, 1)
            self.weights = empty(n_rows, n_weights) if n_weights else self.shares

    def part(self, tensor, begin, n_batches, size, leading):
        """View the rows of some batches, from row `begin` of each network on, batch by batch."""
        scale = math.prod(self.own)
        rows = tensor[begin * scale : (begin + n_batches * size) * scale]
        return rows.view(n_batches, *leading, size, *tensor.shape[1:])

    def fill(self, parts, X, y, order, weights, sample_weight, twins):
        """Gather the rows of the next batches.

        Parameters
        ----------
        parts : list of (Chunk, int)
            Where the batches belong, and how many there are of each size.
        X, y, order, weights, sample_weight, twins
            As of `Trainer.run_epoch`.
        """
        if self.own:
            sizes = [chunk.size * count for chunk, count in parts]
            order = torch.cat(
                [
                    own.view(*self.own, count, chunk.size).transpose(0, 1).reshape(-1)
                    for own, (chunk, count) in zip(order.split(sizes, -1), parts, strict=True)
                ]
            )
        begin = parts[0][0].begin * math.prod(self.own)
        rows = slice(begin, begin + len(order))
        gather_rows(X, order, self.x[rows])
        y = y.index_select(0, order)
        start = 0
        for chunk, count in parts:
            n_rows = count * chunk.size * math.prod(self.own)
            own = slice(start, start + n_rows)
            chunk.begin_filling(y, own, None if twins is None else twins[order[own]])
            if sample_weight is not None:
                chunk.share(sample_weight[order[own]], count)
            start += n_rows
        if weights is not None:
            torch.mul(weights[order], self.shares[rows], out=self.weights[rows])
        targets = self.targets[rows]
        self._loss.prepare(y, targets.shape[-1], self.weights[rows], targets.dtype, out=targets)


class Chunk:
    """Static buffers for some batches of one size.

    Parameters
    ----------
    network : Network
        Whose shape, dtype and device they have.
    loss : Loss
    n_batches, size : int
    store : _Store
        That has their rows.
    begin : int
        The first of these.

    Attributes
    ----------
    n_batches, size, store, begin
        As given.
    x : Tensor of shape (n_batches, [n_networks,] size, n_features)
    y : Tensor of shape (count, [n_networks or 1,] size, ...)
        Targets of the batches that were filled in last.
    twins : Tensor of shape ([n_networks or 1,] n_rows) or None
        Of their rows; see `Trainer.run_epoch`.
    targets : Tensor of shape (n_batches, [n_networks or 1,] size, n_outputs)
        What the loss has made of them.
    outputs : Tensor of shape (n_batches, [n_networks,] size, n_outputs)
    output_gradient : Tensor of shape ([n_networks,] size, n_outputs)
    batch_losses : Tensor of shape (n_batches, 1)
        Of one network, as `note_loss` has written them.
    n_fillings : int
        How often it has been filled.
    """

    def __init__(self, network, loss, n_batches, size, store, begin):
        self.n_batches, self.size, self.store, self.begin = n_batches, size, store, begin
        self._loss = loss
        self.twins = None
        self.n_fillings = 0
        with torch.inference_mode(False):
            self.x = store.part(store.x, begin, n_batches, size, store.own)
            self.targets, self._shares, self._weights = (
                store.part(tensor, begin, n_batches, size, store.shared)
                for tensor in (store.targets, store.shares, store.weights)
            )
            own = network.gradient, network.n_networks, size, network.n_outputs
            self.outputs = empty_for_each(*own, before=(n_batches,))
            self.output_gradient = empty_for_each(*own)
            self.batch_losses = network.gradient.new_empty(n_batches, 1)
            self._shares.fill_(1.0 / size)
            # What each batch counts.
            self._counts = network.gradient.new_empty(n_batches, *store.shared, 1, 1) if store.has_sample_weight else None

    @property
    def kind(self):
        """What is equal for chunks that a program serves, over the memory of each: how batches look, and how they follow."""
        return self.size, self.store.kind, self.n_batches > 1

    def memory(self):
        """Return the tensors that batches of a network are in, each without a gap."""
        counts = () if self._counts is None else (self._counts,)
        own = self.x, self.targets, self._shares, self._weights, self.outputs, self.output_gradient, self.batch_losses
        return [*own, *counts]

    def follows(self, other, count):
        """Whether this chunk's rows lie behind those of the first `count` batches of another."""
        return self.store is other.store and self.begin == other.begin + count * other.size

    def begin_filling(self, y, rows, twins):
        """Note the targets, which are some rows of `y`, and perhaps twins of rows that are filled in."""
        self._y = y, rows
        self.n_fillings += 1
        self.twins = None if twins is None else twins.view(-1, self.size)

    @property
    def y(self):
        y, rows = self._y
        return y[rows].view(-1, *self.store.shared, self.size, *y.shape[1:])

    def share(self, sample_weight, count):
        """Note what the rows of the first batches are of them."""
        shares, counts = self._shares[:count], self._counts[:count]
        own = sample_weight.view(shares.shape)
        torch.div(own, torch.sum(own, -2, keepdim=True, out=counts), out=shares)

    def weights_of(self, batches):
        """What each row counts in the loss of its batch: one number, or a tensor that broadcasts against the outputs."""
        return self._weights[batches] if self.store.is_weighted else 1.0 / self.size

    def row_weights(self, i):
        """What each row is of batch `i` and how many rows the batch counts as, or None where all count the same."""
        return None if self._counts is None else (self._shares[i], self._counts[i])

    def losses(self, batches):
        """Return the mean loss of each batch of a slice, a tensor of shape (n_batches, n_networks)."""
        losses = self._loss.value(self.outputs[batches], self.targets[batches], self.weights_of(batches))
        return losses.view(len(losses), -1)

    def note_loss(self, i):
        """Write the mean loss of a batch of one network into `batch_losses`."""
        out, *given = self._places_of_losses[i]
        out.copy_(self._loss.value(*given))

    @cached_property
    def _places_of_losses(self):
        return [(self.batch_losses[i], self.outputs[i], self.targets[i], self.weights_of(i)) for i in range(self.n_batches)]

    def sum_of_losses(self, count):
        """Return the sum of the rows' losses in the first batches, a tensor of shape (n_networks,)."""
        losses = self.losses(slice(count))
        if self._counts is None:
            return losses.sum(0).mul_(self.size)
        return losses.mul(self._counts[:count].view(count, -1)).sum(0)

    def sum_of_noted_losses(self, count):
        """Return it for one network, by what `note_loss` has noted, as a float."""
        noted = self._noted[:count].tolist()
        if self._counts is None:
            return self.size * math.fsum(noted)
        return math.fsum(map(operator.mul, noted, self._counts[:count].view(-1).tolist()))

    @cached_property
    def _noted(self):
        return self.batch_losses.view(-1).numpy()
