"""One epoch of training: shuffled rows are gathered in chunks of batches, and each batch makes one update."""

import functools
import itertools
from functools import cached_property, partial

import torch

from skdnn.engine.chunks import Chunks
from skdnn.engine.program import compile_steps, instruction_set

# Steps are made by programs from the epoch on in which there are this many of them, and more than one on batches of their size:
# to make a program takes as long. How many epochs are to come must not matter, or a network's bits would depend on it.
FIRST_COMPILED_STEP = 8

# Multiplications in products of a batch with all kernels that one call of a program may make: some hundredths of a second, for
# Python sees an interrupt only between calls.
_WORK_OF_CALL = 2**30


@functools.lru_cache(maxsize=64)
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
    runs : tuple of (n_batches, n_rows_of_a_batch)

    Examples
    --------
    >>> split_into_batches(100, 32)
    ((3, 32), (1, 4))
    >>> split_into_batches(97, 32, smallest=2)
    ((2, 32), (1, 33))
    """
    n_full, rest = divmod(n_rows, batch_size)
    runs = [(n_full, batch_size)]
    if 0 < rest < smallest and n_full:
        runs = [(n_full - 1, batch_size), (1, batch_size + rest)]
    elif rest:
        runs.append((1, rest))
    return tuple(run for run in runs if run[0])


def can_be_compiled(network_plans, update_plans, loss, device):
    """Say whether steps of such networks, one by one, are programs of skdnn's own kernels where one thread is used.

    Parameters
    ----------
    network_plans : sequence of NetworkPlan
    update_plans : sequence of UpdatePlan
    loss : Loss
    device : torch.device
    """
    parts = [*network_plans, *update_plans, loss]
    return instruction_set() is not None and device.type == "cpu" and not any(part.calls_users_code for part in parts)


def run_epoch_together(trainers, X, y, order, rates, weights=None, watcher=None, *, sample_weight=None, twins=None):
    """Train networks on the same batches: each chunk of them is gathered once, and each network then trains on all of it.

    Nothing waits for the device: read the result when it is needed.

    Parameters
    ----------
    trainers : list of Trainer
        Of the same `chunks` and batch size.
    rates : list of sequence
        Of each, as of `Trainer.run_epoch`, which has the other parameters, too.

    Returns
    -------
    losses : list of Tensor of shape (n_networks,)
    """
    first = trainers[0]
    if first.network.n_networks == 1:
        order = order.reshape(-1)
    n_rows = order.shape[-1]
    rates = [iter(own) for own in rates]
    with torch.inference_mode():
        like = first.network.gradient
        totals = [like.new_zeros(trainer.network.n_networks) for trainer in trainers]
        runs = split_into_batches(n_rows, first.batch_size, first.smallest_batch)
        are_compiled = [trainer.sizes_of_programs(runs) for trainer in trainers]
        for chunk, count in first.chunks.gather(runs, X, y, order, weights, sample_weight, twins):
            for trainer, own, total, sizes in zip(trainers, rates, totals, are_compiled, strict=True):
                chunk.add_up(trainer.train_on(chunk, count, own, watcher, is_compiled=chunk.size in sizes), total)
        for trainer in trainers:
            trainer.n_epochs += 1
        n_counted = n_rows if sample_weight is None else sample_weight[order].sum((-2, -1))
        return [total.div_(n_counted) for total in totals]


class Trainer:
    """Runs epochs of K networks in lockstep.

    Parameters
    ----------
    network : Network
    update : Update
    loss : Loss
    batch_size : int
    chunks : Chunks, default=None
        Of all networks that train together; by default its own.
    n_epochs : int, default=0
        Epochs that the network has been trained for before.

    Attributes
    ----------
    network : Network
    chunks : Chunks
    batch_size : int
        May change between epochs.
    smallest_batch : int
    n_epochs : int
        Epochs so far.
    """

    def __init__(self, network, update, loss, batch_size, chunks=None, n_epochs=0):
        self.network = network
        self._update = update
        self._loss = loss
        self.chunks = Chunks(network, loss) if chunks is None else chunks
        self.batch_size = batch_size
        self.smallest_batch = network.plans[0].smallest_batch
        self.n_epochs = n_epochs
        self._steps = {}

    def n_updates(self, n_rows):
        """Return how many updates an epoch of `n_rows` rows makes."""
        return sum(n_batches for n_batches, _ in split_into_batches(n_rows, self.batch_size, self.smallest_batch))

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
        (loss,) = run_epoch_together([self], X, y, order, [rates], weights, watcher, sample_weight=sample_weight, twins=twins)
        return loss

    def sizes_of_programs(self, runs):
        """Return the sizes of batches whose steps are made by programs in an epoch of such runs, the next one."""
        n_steps = (self.n_epochs + 1) * sum(n_batches for n_batches, _ in runs)
        if n_steps < FIRST_COMPILED_STEP or not self._can_compile or torch.get_num_threads() > 1:
            return ()
        return [size for n_batches, size in runs if (self.n_epochs + 1) * n_batches > 1]

    def train_on(self, chunk, count, rates, watcher=None, *, is_compiled=False):
        """Train on the first batches of a chunk.

        Parameters
        ----------
        chunk : Chunk
        count : int
            Batches.
        rates : iterator
            Gives the learning rate of each update. Who watches may change it from batch to batch.
        watcher : object, default=None
        is_compiled : bool, default=False
            Whether steps are made by a program, if they can be.

        Returns
        -------
        losses : Tensor of shape (count, n_networks)
            Mean loss of each batch.
        """
        if chunk not in self._steps:
            self._steps[chunk] = _Steps(self.network, self._update, self._loss, chunk)
        steps = self._steps[chunk]
        steps.draw_masks(count)
        return (steps.run_compiled if is_compiled else steps.run)(count, rates, watcher)

    @cached_property
    def _can_compile(self):
        network = self.network
        return network.n_networks == 1 and can_be_compiled(network.plans, self._update.plans, self._loss, network.device)


class _Steps:
    """The steps of a network, or of several in lockstep, on the batches of a chunk.

    Parameters
    ----------
    network : Network
    update : Update
    loss : Loss
    chunk : Chunk
    """

    def __init__(self, network, update, loss, chunk):
        self._network, self._update, self._loss, self._chunk = network, update, loss, chunk
        self._masks = network.make_masks(chunk.n_batches, chunk.size)
        self._recorded = {}
        work = network.plans[0].n_products * chunk.size
        self._steps_a_call = max(1, _WORK_OF_CALL // work)

    def draw_masks(self, count):
        """Draw what is random about the first `count` batches."""
        for masks in self._masks:
            masks.draw(count, self._chunk.twins)

    def run(self, count, rates, watcher=None):
        """Make the steps of the first `count` batches one by one, and return each batch's loss."""
        for i in range(count):
            self._tell(watcher, "batch_begins", i)
            self._differentiate(i)
            self._tell(watcher, "gradient_is_ready", i)
            self._update.step(next(rates))
            self._tell_end(watcher, i)
        return self._chunk.losses(slice(count))

    def run_compiled(self, count, rates, watcher=None):
        """Do as `run` does by programs, where there can be any."""
        update = self._update
        if watcher is None and self._whole is not None:
            numbers = update.next_coefficients(itertools.islice(rates, count))
            for start in range(0, count, self._steps_a_call):
                self._whole(numbers[start : start + self._steps_a_call], start)
            update.n_updates += count
        elif watcher is None or None in self._halves:
            return self.run(count, rates, watcher)
        else:
            differentiate, apply = self._halves
            for i in range(count):
                self._tell(watcher, "batch_begins", i)
                differentiate([()], i)
                self._tell(watcher, "gradient_is_ready", i)
                apply(update.next_coefficients([next(rates)]), i)
                update.n_updates += 1
                self._tell_end(watcher, i)
        return self._chunk.batch_losses[:count]

    def _tell(self, watcher, event, i):
        if watcher is not None:
            getattr(watcher, event)(self._chunk.x[i], self._chunk.y[i])

    def _tell_end(self, watcher, i):
        if watcher is not None:
            chunk = self._chunk
            watcher.batch_ends(chunk.x[i], chunk.y[i], chunk.outputs[i], chunk.losses(slice(i, i + 1)).sum(0))

    def _differentiate(self, i):
        """Fill the network's gradient by batch `i`."""
        for call in self._calls_of(i):
            call()

    def _calls_of(self, i):
        """The calls from a batch's rows to the gradient, recorded when they are made for the first time."""
        if i not in self._recorded:
            chunk = self._chunk
            outputs, gradient = chunk.outputs[i], chunk.output_gradient
            self._recorded[i] = self._network.record(
                chunk.x[i],
                outputs,
                gradient,
                partial(self._loss.gradient, outputs, chunk.targets[i], chunk.weights_of(i), gradient),
                chunk.row_weights(i),
                [masks.of(i) for masks in self._masks],
            )
        return self._recorded[i]

    @cached_property
    def _whole(self):
        """The program of whole steps, or None."""

        def step(i, coefficients):
            self._differentiate_and_note(i)
            self._update.apply(coefficients)

        return self._compile(step, self._update.coefficients)

    @cached_property
    def _halves(self):
        """The programs of the steps up to the gradient, and from there on."""
        return (
            self._compile(lambda i, _: self._differentiate_and_note(i)),
            self._compile(lambda i, coefficients: self._update.apply(coefficients), self._update.coefficients),
        )

    def _differentiate_and_note(self, i):
        self._differentiate(i)
        self._chunk.note_loss(i)

    def _compile(self, step, *coefficients):
        for i in range(min(2, self._chunk.n_batches)):
            self._calls_of(i)  # recording makes tensors, which is not part of a step
        self._chunk.note_loss(0)
        return compile_steps(step, self._chunk.n_batches, *coefficients)
