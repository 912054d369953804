"""One epoch of training: shuffled rows are gathered in chunks of batches, and each batch makes one update."""

import functools
import itertools
from functools import cached_property, partial

import torch

from skdnn.engine.chunks import Chunks
from skdnn.engine.program import Pattern, compile_steps, instruction_set

# Steps are made by programs from the epoch on in which there are this many of them: to make a program takes as long. How many
# epochs are to come must not matter, or a network's bits would depend on it.
FIRST_COMPILED_STEP = 8

# The epoch from which on the penalty is a program's, too, for the same reason: it is computed once an epoch.
_FIRST_COMPILED_PENALTY = 3

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

    Nothing waits for the device: read the trainers' figures when they are needed.

    Parameters
    ----------
    trainers : list of Trainer
        Of the same `chunks` and batch size.
    rates : list of sequence
        Of each, as of `Trainer.run_epoch`, which has the other parameters, too.
    """
    first = trainers[0]
    if first.network.n_networks == 1:
        order = order.reshape(-1)
    n_rows = order.shape[-1]
    rates = [iter(own) for own in rates]
    with torch.inference_mode():
        runs = split_into_batches(n_rows, first.batch_size, first.smallest_batch)
        for trainer in trainers:
            trainer.begin_epoch(runs)
        for parts in first.chunks.gather(runs, X, y, order, weights, sample_weight, twins):
            # Programs are made one after the other: between steps, Python would have to come from afar each time.
            steps = [trainer.steps_on(parts, watcher) for trainer in trainers]
            for trainer, (of_parts, are_programs), own in zip(trainers, steps, rates, strict=True):
                trainer.train_on(of_parts, are_programs, own, watcher)
        n_counted = n_rows if sample_weight is None else sample_weight[order].sum((-2, -1))
        for trainer in trainers:
            trainer.end_epoch(n_counted)


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
    programs : dict, default=None
        Where trainers of equal networks, updates and losses keep the patterns of their programs, of which each has to be made
        once. These share some memory, so the trainers must take turns.
    masks_from : Trainer, default=None
        On the same `chunks`, of a network with equal rates and seeds of dropout: whichever comes first draws for both.

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

    def __init__(self, network, update, loss, batch_size, chunks=None, n_epochs=0, programs=None, masks_from=None):
        self.network = network
        self._update = update
        self._loss = loss
        self._programs, self._masks_from = programs, masks_from
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
        run_epoch_together([self], X, y, order, [rates], weights, watcher, sample_weight=sample_weight, twins=twins)
        return self.loss

    def begin_epoch(self, runs):
        """Prepare for an epoch of some runs of batches, as `split_into_batches` returns them."""
        self._total = 0.0
        n_steps = (self.n_epochs + 1) * sum(n_batches for n_batches, _ in runs)
        self._is_compiled = n_steps >= FIRST_COMPILED_STEP and self._can_compile and torch.get_num_threads() == 1

    def steps_on(self, parts, watcher=None):
        """Prepare the steps on the batches that chunks have been filled with.

        Parameters
        ----------
        parts : list of (Chunk, int)
            Each chunk, and how many batches are in it.
        watcher : object, default=None

        Returns
        -------
        steps : list of (Chunk, _Steps, int)
        are_programs : bool
            Whether they are made by programs, which there then are.
        """
        steps = [(chunk, self._steps_on(chunk), count) for chunk, count in parts]
        return steps, self._is_compiled and all(own.has_programs(watcher) for _, own, _ in steps)

    def train_on(self, steps, are_programs, rates, watcher=None):
        """Train on the batches that chunks have been filled with.

        Parameters
        ----------
        steps, are_programs
            As `steps_on` has returned them.
        rates : iterator
            Gives the learning rate of each update. Who watches may change it from batch to batch.
        watcher : object, default=None
        """
        for _, own, count in steps:
            own.masks.draw(count)
        if not are_programs:
            for _, own, count in steps:
                own.run(count, rates, watcher)
            self._total = self._total + sum(chunk.sum_of_losses(count) for chunk, _, count in steps)
            return
        if watcher is None:
            numbers = self._update.next_coefficients(itertools.islice(rates, sum(count for *_, count in steps)))
        for _, own, count in steps:
            if watcher is None:
                own.run_programs(numbers[:count])
                numbers = numbers[count:]
            else:
                own.run_halves(count, rates, watcher)
        self._total += sum(chunk.sum_of_noted_losses(count) for chunk, _, count in steps)

    def end_epoch(self, n_counted):
        """Note what the losses of an epoch are divided by: a number, or a tensor of shape () or (n_networks,)."""
        self.n_epochs += 1
        self._n_counted = n_counted
        is_compiled = self._is_compiled and self.n_epochs >= _FIRST_COMPILED_PENALTY and self.network.is_penalized
        if is_compiled and self._noting is not None:
            self._noting([()])
            self._figures = self._noted
        else:
            self._figures = self._penalty_and_norms()

    def _penalty_and_norms(self):
        return self.network.penalty(), self.network.parameters.norms(self.network.parameters.data)

    @cached_property
    def _noted(self):
        return self.network.gradient.new_empty(2)

    @cached_property
    def _noting(self):
        """The program that writes the penalty and the norm of one network into `_noted`, or None."""
        places = self._noted.split(1)

        def note(i, numbers):
            for place, figure in zip(places, self._penalty_and_norms(), strict=True):
                place.copy_(figure)

        memory = [self.network.parameters.data, self._noted]
        return _make_once(self._programs, "figures", lambda: compile_steps(note, 1), memory)

    @property
    def loss(self):
        """The mean loss of the last epoch's rows, a tensor of shape (n_networks,); see `run_epoch`."""
        with torch.inference_mode():
            return (self.network.gradient.new_zeros(self.network.n_networks) + self._total) / self._n_counted

    def figures(self):
        """Return of each network the mean loss of the last epoch, and the penalty and the norm of all parameters after it."""
        figures = self._figures
        if self.network.n_networks > 1 or self.network.device.type != "cpu":
            with torch.inference_mode():
                return torch.stack([self.loss, *figures], 1).tolist()
        # Nothing waits for them, and to put them together takes longer.
        numbers = figures.tolist() if isinstance(figures, torch.Tensor) else [figure.item() for figure in figures]
        return [[float(self._total) / float(self._n_counted), *numbers]]

    def _steps_on(self, chunk):
        if chunk not in self._steps:
            leader = self._masks_from
            masks = _ChunkMasks(self.network, chunk) if leader is None else leader._steps_on(chunk).masks
            self._steps[chunk] = _Steps(self.network, self._update, self._loss, chunk, masks, self._programs)
        return self._steps[chunk]

    @cached_property
    def _can_compile(self):
        network = self.network
        return network.n_networks == 1 and can_be_compiled(network.plans, self._update.plans, self._loss, network.device)


def _make_once(patterns, key, make, memory):
    """Return a program over some memory, made by a function if there is no pattern of it, or None where it cannot be made."""
    if patterns is None:
        return make()
    if key not in patterns:
        program = make()
        patterns[key] = program and Pattern(program, memory)
    pattern = patterns[key]
    return pattern and pattern.over(memory)


class _ChunkMasks:
    """The dropout masks of a chunk's batches, drawn once each time that it is filled, whoever asks first.

    Parameters
    ----------
    network : Network
    chunk : Chunk
    """

    def __init__(self, network, chunk):
        self._layers = network.make_masks(chunk.n_batches, chunk.size)
        self._chunk, self._n_drawn = chunk, 0

    def draw(self, count):
        """Draw those of the first `count` batches."""
        if self._n_drawn == self._chunk.n_fillings:
            return
        self._n_drawn = self._chunk.n_fillings
        for masks in self._layers:
            masks.draw(count, self._chunk.twins)

    def of(self, i):
        """Return the masks of batch `i`."""
        return [masks.of(i) for masks in self._layers]

    def memory(self):
        """Return the tensors that they are in."""
        return [masks.values for masks in self._layers]


class _Steps:
    """The steps of a network, or of several in lockstep, on the batches of a chunk.

    Parameters
    ----------
    network : Network
    update : Update
    loss : Loss
    chunk : Chunk
    masks : _ChunkMasks
    programs : dict or None
        As of `Trainer`.

    Attributes
    ----------
    masks : _ChunkMasks
    """

    def __init__(self, network, update, loss, chunk, masks, programs):
        self._network, self._update, self._loss, self._chunk = network, update, loss, chunk
        self.masks, self._programs = masks, programs
        self._recorded = {}
        work = network.plans[0].n_products * chunk.size
        self._steps_a_call = max(1, _WORK_OF_CALL // work)

    def run(self, count, rates, watcher=None):
        """Make the steps of the first `count` batches one by one."""
        for i in range(count):
            self._tell(watcher, "batch_begins", i)
            self._differentiate(i)
            self._tell(watcher, "gradient_is_ready", i)
            self._update.step(next(rates))
            self._tell_end(watcher, i)

    def has_programs(self, watcher=None):
        """Whether there are programs for the steps, in one piece or, where somebody watches, in two."""
        return self._whole is not None if watcher is None else None not in self._halves

    def run_programs(self, numbers):
        """Do as `run` does by programs, with the numbers of each update, and note the losses."""
        for start in range(0, len(numbers), self._steps_a_call):
            self._whole(numbers[start : start + self._steps_a_call], start)
        self._update.n_updates += len(numbers)

    def run_halves(self, count, rates, watcher):
        """Do so where somebody watches."""
        differentiate, apply = self._halves
        for i in range(count):
            self._tell(watcher, "batch_begins", i)
            differentiate([()], i)
            self._tell(watcher, "gradient_is_ready", i)
            apply(self._update.next_coefficients([next(rates)]), i)
            self._update.n_updates += 1
            self._tell_end(watcher, i)

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
                self.masks.of(i),
            )
        return self._recorded[i]

    @cached_property
    def _whole(self):
        """The program of whole steps, or None."""

        def step(i, coefficients):
            self._differentiate_and_note(i)
            self._update.apply(coefficients)

        make = partial(self._compile, step, self._update.coefficients)
        return _make_once(self._programs, self._chunk.kind, make, self._memory())

    @cached_property
    def _halves(self):
        """The programs of the steps up to the gradient, and from there on."""
        return (
            self._compile(lambda i, _: self._differentiate_and_note(i)),
            self._compile(lambda i, coefficients: self._update.apply(coefficients), self._update.coefficients),
        )

    def _memory(self):
        """What steps work on that networks do not share: all else is of use within a step."""
        network = self._network
        own = network.parameters.data, network.statistics.data
        return [*own, *self._update.state_tensors(), *self.masks.memory(), *self._chunk.memory()]

    def _differentiate_and_note(self, i):
        self._differentiate(i)
        self._chunk.note_loss(i)

    def _compile(self, step, *coefficients):
        for i in range(min(2, self._chunk.n_batches)):
            self._calls_of(i)  # recording makes tensors, which is not part of a step
        self._chunk.note_loss(0)
        return compile_steps(step, self._chunk.n_batches, *coefficients)
