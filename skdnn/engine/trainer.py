"""One epoch of training: shuffled rows are gathered in chunks of batches, and each batch makes one update."""

import torch

# A chunk holds this many batches, fewer where they are large: enough that gathering costs one call in some tens of steps.
_CHUNK_BATCHES = 32
_CHUNK_ELEMENTS = 2**21


def split_into_batches(n_rows, batch_size, smallest=1):
    """Say how an epoch of `n_rows` rows is cut.

    Parameters
    ----------
    n_rows : int
    batch_size : int
    smallest : int, default=1
        A last batch of fewer rows than this joins the one before it.

    Returns
    -------
    runs : list of (n_batches, n_rows_of_a_batch)

    Examples
    --------
    >>> split_into_batches(100, 32)
    [(3, 32), (1, 4)]
    >>> split_into_batches(97, 32, smallest=2)
    [(2, 32), (1, 33)]
    """
    n_full, rest = divmod(n_rows, batch_size)
    runs = [(n_full, batch_size)]
    if 0 < rest < smallest and n_full:
        runs = [(n_full - 1, batch_size), (1, batch_size + rest)]
    elif rest:
        runs.append((1, rest))
    return [run for run in runs if run[0]]


class Trainer:
    """Runs epochs of K networks in lockstep.

    Parameters
    ----------
    network : Network
    update : Update
    loss : Loss
    batch_size : int
    """

    def __init__(self, network, update, loss, batch_size):
        self._network = network
        self._update = update
        self._loss = loss
        self._batch_size = batch_size
        self._smallest = 2 if network.plans[0].uses_batch_norm else 1
        self._gathered = {}

    def n_updates(self, n_rows):
        """Return how many updates an epoch of `n_rows` rows makes."""
        return sum(n_batches for n_batches, _ in split_into_batches(n_rows, self._batch_size, self._smallest))

    def run_epoch(self, X, y, order, rates, watcher=None):
        """Train on every row of `order` once.

        Nothing waits for the device: read the result when it is needed.

        Parameters
        ----------
        X : Tensor of shape (n_samples, n_features)
        y : Tensor of shape (n_samples,)
        order : Tensor of shape (n_rows,) or (n_networks, n_rows)
            Indices of the rows to train on, in their order; one a network where they see different batches.
        rates : sequence of float or of Tensor of shape (n_networks,)
            The learning rate of each update.
        watcher : object, default=None
            Told of every batch: ``batch_begins(x, y)``, ``gradient_is_ready(x, y)`` before the update and
            ``batch_ends(x, y, outputs, loss)`` after it.

        Returns
        -------
        loss : Tensor of shape (n_networks,)
            Mean loss of the rows, each taken just before the update it was part of, without penalties.
        """
        n_rows = order.shape[-1]
        total = torch.zeros(self._network.n_networks, dtype=self._network.dtype, device=X.device)
        rates = iter(rates)
        start = 0
        with torch.inference_mode():
            for n_batches, size in split_into_batches(n_rows, self._batch_size, self._smallest):
                longest = max(1, min(_CHUNK_BATCHES, _CHUNK_ELEMENTS // (size * X.shape[1])))
                for first in range(0, n_batches, longest):
                    count = min(longest, n_batches - first)
                    rows = order[..., start : start + count * size]
                    start += count * size
                    total += self._run_chunk(X, y, rows, count, size, rates, watcher).mul_(size)
            return total.div_(n_rows)

    def _run_chunk(self, X, y, rows, n_batches, size, rates, watcher):
        """Make one update for each of some batches of one size; return the sum of their losses, a network each."""
        network, loss, update = self._network, self._loss, self._update
        weight = 1.0 / size
        x = self._gather(X, rows, n_batches, size)
        y = self._by_batch(y[rows.reshape(-1)], rows, n_batches, size)
        targets = loss.prepare(y, network.n_outputs, weight, network.dtype)
        leading = () if network.n_networks == 1 else (network.n_networks,)
        outputs = torch.empty(n_batches, *leading, size, network.n_outputs, dtype=network.dtype, device=X.device)
        network.begin_chunk(n_batches, size)
        for batch, labels, target, output in zip(x.unbind(0), y.unbind(0), targets.unbind(0), outputs.unbind(0), strict=True):
            if watcher is not None:
                watcher.batch_begins(batch, labels)
            network.forward(batch, output)
            network.backward(loss.gradient(output, target, weight))
            if watcher is not None:
                watcher.gradient_is_ready(batch, labels)
            update.step(next(rates))
            if watcher is not None:
                watcher.batch_ends(batch, labels, output, loss.value(output, target, weight))
        return loss.value(outputs, targets, weight).view(n_batches, -1).sum(0)

    def _gather(self, X, rows, n_batches, size):
        """The chunk's rows, of shape (n_batches, [n_networks,] size, n_features), in a buffer that chunks share."""
        shape = (rows.numel(), X.shape[1])
        if shape not in self._gathered:
            self._gathered[shape] = torch.empty(shape, dtype=X.dtype, device=X.device)
        x = torch.index_select(X, 0, rows.reshape(-1), out=self._gathered[shape])
        return x.view(n_batches, size, -1) if rows.dim() == 1 else x.view(len(rows), n_batches, size, -1).transpose(0, 1)

    def _by_batch(self, values, rows, n_batches, size):
        """The chunk's targets, of shape (n_batches, [n_networks or 1,] size)."""
        if rows.dim() == 2:
            return values.view(len(rows), n_batches, size).transpose(0, 1)
        return values.view(n_batches, size) if self._network.n_networks == 1 else values.view(n_batches, 1, size)
