"""One epoch of training: shuffled rows are gathered in chunks of batches, and each batch makes one update."""

import itertools
from functools import cached_property, partial

import torch

from skdnn.engine.rows import gather_rows
from skdnn.engine.script import compile_steps, pattern_of
from skdnn.engine.storage import empty_for_each

# A chunk holds this many batches, fewer where they are large: enough that gathering costs one call in some tens of steps.
_CHUNK_BATCHES = 32
_CHUNK_ELEMENTS = 2**21

# Steps of one batch size after which they are worth a script, and parameters up to which Python is what steps wait for.
_STEPS_BEFORE_SCRIPT = 100
_SCRIPT_PARAMETERS = 2**20


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

    Attributes
    ----------
    batch_size : int
        May change between epochs.
    """

    def __init__(self, network, update, loss, batch_size):
        self._network = network
        self._update = update
        self._loss = loss
        self.batch_size = batch_size
        self._smallest = network.plans[0].smallest_batch
        self._chunks = {}

    def n_updates(self, n_rows):
        """Return how many updates an epoch of `n_rows` rows makes."""
        return sum(n_batches for n_batches, _ in split_into_batches(n_rows, self.batch_size, self._smallest))

    def run_epoch(self, X, y, order, rates, weights=None, watcher=None, *, sample_weight=None, twins=None):
        """Train on every row of `order` once.

        Nothing waits for the device: read the result when it is needed.

        Parameters
        ----------
        X : Tensor of shape (n_samples, n_features), or scipy CSR array or matrix of that shape
        y : Tensor of shape (n_samples,) or (n_samples, n_targets)
        order : Tensor of shape (n_rows,) or (n_networks, n_rows)
            Indices of the rows to train on, in their order; one a network where they see different batches.
        rates : sequence of float or of tuple of float
            The learning rate of each update; a tuple has one a network.
        weights : Tensor of shape (n_samples, 1) or (n_samples, n_outputs), default=None
            What the loss of a row, or of each of its outputs, is multiplied with; 1 by default.
        watcher : object, default=None
            Told of every batch: ``batch_begins(x, y)``, ``gradient_is_ready(x, y)`` before the update and
            ``batch_ends(x, y, outputs, loss)`` after it.
        sample_weight : Tensor of shape (n_samples, 1), default=None
            How often a row counts, above 0 for all in `order`: a batch's loss and its statistics are weighted means. 1 by
            default.
        twins : Tensor of int of shape (n_samples,), default=None
            Rows of the same number, counted from 0, share their dropout masks; for epochs of one batch only. By default each
            row has masks of its own.

        Returns
        -------
        loss : Tensor of shape (n_networks,)
            Mean loss of the rows, each taken just before the update it was part of, without penalties.
        """
        if self._network.n_networks == 1:
            order = order.reshape(-1)
        n_rows = order.shape[-1]
        total = torch.zeros(self._network.n_networks, dtype=self._network.dtype, device=self._network.device)
        rates = iter(rates)
        start = 0
        with torch.inference_mode():
            for n_batches, size in split_into_batches(n_rows, self.batch_size, self._smallest):
                chunk = self._chunk(n_batches, size, order.dim() == 2, weights, sample_weight)
                while n_batches:
                    count = min(n_batches, chunk.n_batches)
                    chunk.fill(X, y, order[..., start : start + count * size], count, weights, sample_weight, twins)
                    self._train(chunk, count, rates, watcher)
                    total += chunk.total_loss(count)
                    start += count * size
                    n_batches -= count
            return total.div_(n_rows if sample_weight is None else sample_weight[order].sum((-2, -1)))

    def _chunk(self, n_batches, size, has_own_batches, weights, sample_weight):
        """The buffers and calls for batches of one size, made when the first of them comes."""
        n_weights = 0 if weights is None else weights.shape[1]
        key = size, has_own_batches, n_weights, sample_weight is not None
        if key not in self._chunks:
            n_features = self._network.plans[0].layers[0].n_in
            n_batches = min(n_batches, _CHUNK_BATCHES, max(1, _CHUNK_ELEMENTS // (size * n_features)))
            self._chunks[key] = _Chunk(self._network, self._loss, n_batches, *key)
        return self._chunks[key]

    def _train(self, chunk, count, rates, watcher):
        """Make one update for each of the chunk's first `count` batches."""
        step = self._update.step
        if watcher is None:
            rates = list(itertools.islice(rates, count))
            script = self._script(chunk, rates)
            if script is not None:
                script(rates, self._update.n_updates)
                self._update.n_updates += count
                return
            for program, rate in zip(chunk.programs[:count], rates, strict=True):
                for call in program:
                    call()
                step(rate)
            return
        for i, program in enumerate(chunk.programs[:count]):
            batch = chunk.x[i], chunk.y[i]
            watcher.batch_begins(*batch)
            for call in program:
                call()
            watcher.gradient_is_ready(*batch)
            step(next(rates))
            watcher.batch_ends(*batch, chunk.outputs[i], chunk.losses(slice(i, i + 1)).sum(0))

    def _script(self, chunk, rates):
        """The chunk's steps as one call, once there have been enough of them; None where they are made one by one."""
        chunk.n_steps += len(rates)
        if chunk.n_steps < _STEPS_BEFORE_SCRIPT or len(rates) < min(2, chunk.n_batches) or not self._is_scriptable:
            return None
        pattern, *others = {pattern_of(rate) for rate in dict.fromkeys(rates)}
        if others:
            return None
        network, update = self._network, self._update
        update.adapt_to(rates[0])
        states = [{"parameters": network.parameters.data, "statistics": network.statistics.data}, *update.states]
        # A script is of tensors: that of rules which have been divided since is no longer of use.
        key = pattern, len(states)
        if key != chunk.key:
            chunk.key = key
            chunk.script = compile_steps(partial(self._step, chunk), chunk.n_batches, states, update.n_updates, pattern)
        return chunk.script

    @cached_property
    def _is_scriptable(self):
        network = self._network
        return (
            network.device.type == "cpu"
            and network.parameters.data.numel() <= _SCRIPT_PARAMETERS
            and not any(plan.calls_users_code for plan in network.plans)
            and not self._update.calls_users_code
            and not self._loss.calls_users_code
        )

    def _step(self, chunk, i, learning_rate, n):
        for call in chunk.programs[i]:
            call()
        self._update.apply(learning_rate, n)


class _Chunk:
    """Static buffers for some batches of one size, and the calls that train on each of them.

    Parameters
    ----------
    network : Network
    loss : Loss
    n_batches, size : int
    has_own_batches : bool
        Whether each network sees batches of its own.
    n_weights : int
        Factors of a row's loss: 0 for none, 1, or one an output.
    has_sample_weight : bool

    Attributes
    ----------
    n_batches : int
    n_steps : int
        Steps made without a watcher.
    key : tuple or None
        What the script is of.
    script : callable or None
        See `compile_steps`.
    x : Tensor of shape (n_batches, [n_networks,] size, n_features)
    y : Tensor of shape (count, [n_networks or 1,] size)
        Targets of the batches that were filled in last.
    outputs : Tensor of shape (n_batches, [n_networks,] size, n_outputs)
    programs : list of list of callable
        For each batch, the calls from its rows to the gradient.
    """

    def __init__(self, network, loss, n_batches, size, has_own_batches, n_weights, has_sample_weight):
        self.n_batches = n_batches
        self.n_steps, self.key, self.script = 0, None, None
        self._loss = loss
        self._size = size
        leading = () if network.n_networks == 1 else (network.n_networks,)
        self._own = leading if has_own_batches else ()
        self._shared = self._own if has_own_batches or not leading else (1,)
        with torch.inference_mode(False):
            empty = network.gradient.new_empty
            self.x = empty(n_batches, *self._own, size, network.plans[0].layers[0].n_in)
            own = network.gradient, network.n_networks, size, network.n_outputs
            self.outputs = empty_for_each(*own, before=(n_batches,))
            self._targets = empty(n_batches, *self._shared, size, network.n_outputs)
            output_gradient = empty_for_each(*own)
            # What a row is of its batch, whose shares sum to 1, and what the batch counts.
            self._shares = empty(n_batches, *self._shared, size, 1) if has_sample_weight else None
            self._counts = empty(n_batches, *self._shared, 1, 1) if has_sample_weight else None
            self._weights = empty(n_batches, *self._shared, size, n_weights) if n_weights else self._shares
        self._draw_masks = network.reserve_masks(n_batches, size)
        self.programs = [
            network.record(
                self.x[i],
                self.outputs[i],
                output_gradient,
                partial(loss.gradient, self.outputs[i], self._targets[i], self._weights_of(i), output_gradient),
                None if self._shares is None else (self._shares[i], self._counts[i]),
            )
            for i in range(n_batches)
        ]

    def _weights_of(self, batches):
        """What each row counts in the loss of its batch: one number, or a tensor that broadcasts against the outputs."""
        return 1.0 / self._size if self._weights is None else self._weights[batches]

    def fill(self, X, y, rows, count, weights, sample_weight, twins):
        """Gather the rows of the next `count` batches, and draw what is random about them; see `Trainer.run_epoch`."""
        if self._own:
            rows = rows.view(-1, count, self._size).transpose(0, 1).reshape(-1)
        gather_rows(X, rows, self.x[:count].view(-1, self.x.shape[-1]))
        self.y = y[rows].view(count, *self._shared, self._size, *y.shape[1:])
        share = 1.0 / self._size
        if sample_weight is not None:
            own = sample_weight[rows].view(self._shares[:count].shape)
            torch.sum(own, -2, keepdim=True, out=self._counts[:count])
            share = torch.div(own, self._counts[:count], out=self._shares[:count])
        if weights is not None:
            torch.mul(weights[rows].view(self._weights[:count].shape), share, out=self._weights[:count])
        self._targets[:count] = self._loss.prepare(self.y, self.outputs.shape[-1], self._weights_of(slice(count)), self.x.dtype)
        twins = None if twins is None else twins[rows].view(-1, self._size)
        for draw in self._draw_masks:
            draw(count, twins)

    def losses(self, batches):
        """Return the mean loss of each batch of a slice, a tensor of shape (n_batches, n_networks)."""
        losses = self._loss.value(self.outputs[batches], self._targets[batches], self._weights_of(batches))
        return losses.view(len(losses), -1)

    def total_loss(self, count):
        """Return the sum of the rows' losses in the first `count` batches, a tensor of shape (n_networks,)."""
        losses = self.losses(slice(count))
        if self._counts is None:
            return losses.sum(0).mul_(self._size)
        return losses.mul_(self._counts[:count].view(count, -1)).sum(0)
