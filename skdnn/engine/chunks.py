"""Batches of an epoch, gathered some tens at a time: a batch is then a view, and gathering costs one call for all of them."""

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

    def of(self, n_batches, size, has_own_batches, weights, sample_weight):
        """Return the `Chunk` for batches of one size, which is made when the first of them comes.

        Parameters
        ----------
        n_batches : int
            That are to come.
        size : int
            Rows of a batch.
        has_own_batches : bool
            Whether each of several networks in lockstep has batches of its own.
        weights, sample_weight : Tensor or None
            As of `Trainer.run_epoch`.
        """
        n_weights = 0 if weights is None else weights.shape[1]
        key = size, has_own_batches, n_weights, sample_weight is not None
        if key not in self._chunks:
            n_features = self._network.plans[0].layers[0].n_in
            n_batches = min(n_batches, _CHUNK_BATCHES, max(1, _CHUNK_ELEMENTS // (size * n_features)))
            self._chunks[key] = Chunk(self._network, self._loss, n_batches, *key)
        return self._chunks[key]


class Chunk:
    """Static buffers for some batches of one size.

    Parameters
    ----------
    network : Network
        Whose shape, dtype and device they have.
    loss : Loss
    n_batches, size : int
    has_own_batches : bool
        Whether each network sees batches of its own.
    n_weights : int
        Factors of a row's loss: 0 for none, 1, or one an output.
    has_sample_weight : bool

    Attributes
    ----------
    n_batches, size : int
    x : Tensor of shape (n_batches, [n_networks,] size, n_features)
    y : Tensor of shape (count, [n_networks or 1,] size)
        Targets of the batches that were filled in last.
    twins : Tensor of shape ([n_networks or 1,] n_rows) or None
        Of their rows; see `Trainer.run_epoch`.
    targets : Tensor of shape (n_batches, [n_networks or 1,] size, n_outputs)
        What the loss has made of them.
    outputs : Tensor of shape (n_batches, [n_networks,] size, n_outputs)
    output_gradient : Tensor of shape ([n_networks,] size, n_outputs)
    batch_losses : Tensor of shape (n_batches, 1)
        Of one network, as `note_loss` has written them.
    """

    def __init__(self, network, loss, n_batches, size, has_own_batches, n_weights, has_sample_weight):
        self.n_batches, self.size = n_batches, size
        self._loss = loss
        leading = () if network.n_networks == 1 else (network.n_networks,)
        self._own = leading if has_own_batches else ()
        self._shared = self._own if has_own_batches or not leading else (1,)
        self.y = self.twins = None
        with torch.inference_mode(False):
            empty = network.gradient.new_empty
            self.x = empty(n_batches, *self._own, size, network.plans[0].layers[0].n_in)
            own = network.gradient, network.n_networks, size, network.n_outputs
            self.outputs = empty_for_each(*own, before=(n_batches,))
            self.targets = empty(n_batches, *self._shared, size, network.n_outputs)
            self.output_gradient = empty_for_each(*own)
            self.batch_losses = empty(n_batches, 1)
            # What a row is of its batch, whose shares sum to 1, and what the batch counts.
            self._shares = empty(n_batches, *self._shared, size, 1) if has_sample_weight else None
            self._counts = empty(n_batches, *self._shared, 1, 1) if has_sample_weight else None
            self._weights = empty(n_batches, *self._shared, size, n_weights) if n_weights else self._shares

    def weights_of(self, batches):
        """What each row counts in the loss of its batch: one number, or a tensor that broadcasts against the outputs."""
        return 1.0 / self.size if self._weights is None else self._weights[batches]

    def row_weights(self, i):
        """What each row is of batch `i` and how many rows the batch counts as, or None where all count the same."""
        return None if self._shares is None else (self._shares[i], self._counts[i])

    def fill(self, X, y, rows, count, weights, sample_weight, twins):
        """Gather the rows of the next `count` batches; see `Trainer.run_epoch`."""
        if self._own:
            rows = rows.view(-1, count, self.size).transpose(0, 1).reshape(-1)
        gather_rows(X, rows, self.x[:count].view(-1, self.x.shape[-1]))
        self.y = y[rows].view(count, *self._shared, self.size, *y.shape[1:])
        share = 1.0 / self.size
        if sample_weight is not None:
            own = sample_weight[rows].view(self._shares[:count].shape)
            torch.sum(own, -2, keepdim=True, out=self._counts[:count])
            share = torch.div(own, self._counts[:count], out=self._shares[:count])
        if weights is not None:
            torch.mul(weights[rows].view(self._weights[:count].shape), share, out=self._weights[:count])
        n_outputs = self.outputs.shape[-1]
        self.targets[:count] = self._loss.prepare(self.y, n_outputs, self.weights_of(slice(count)), self.x.dtype)
        self.twins = None if twins is None else twins[rows].view(-1, self.size)

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

    def total_loss(self, losses):
        """Return the sum of the rows' losses in the first batches.

        Parameters
        ----------
        losses : Tensor of shape (n_batches, n_networks)
            Mean loss of each batch.

        Returns
        -------
        loss : Tensor of shape (n_networks,)
        """
        if self._counts is None:
            return losses.sum(0).mul_(self.size)
        return losses.mul(self._counts[: len(losses)].view(len(losses), -1)).sum(0)
