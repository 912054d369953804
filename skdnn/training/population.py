"""Fits that train together: one population of networks, and for each fit the harness it would have alone.

Networks whose steps are programs of skdnn's own kernels stay by themselves and take turns on batches that are gathered once for
all (`SideBySide`): nothing is faster on a processor than one network's step from its cache. Others become one network with an
axis more (`Stacked`), which saves the calls of all but one.
"""

from dataclasses import dataclass, field, replace
from functools import cached_property

import torch

from skdnn.components.optimizers import TorchOptimizer
from skdnn.engine import Chunks, Network, Trainer, Update, can_be_compiled, run_epoch_together
from skdnn.training.policy import uses_one_thread
from skdnn.training.session import Session

# Bytes of all parameters of networks whose programs are kept, which take as long to make as some tens of steps. They keep
# memory that steps need, about as much.
_MAX_BYTES_OF_PROGRAMS = 2**24

# Bytes of parameters as they were drawn that are kept for lanes on other rows.
_MAX_BYTES_OF_DRAWN = 2**24


@dataclass
class Kin:
    """What the lanes of a search need do only once.

    Attributes
    ----------
    drawn : dict
        What lanes begin with, their parameters and statistics, by what these are drawn from.
    programs : dict
        Of plans whose steps are one program, by what they have in common, where their trainers keep the patterns of it.
    n_bytes : int
        Of parameters of one network of each.
    gradients : dict
        Gradients by size, dtype and device: lanes take turns, and of a gradient nothing is left when a step is over.
    """

    drawn: dict = field(default_factory=dict)
    programs: dict = field(default_factory=dict)
    n_bytes: int = 0
    gradients: dict = field(default_factory=dict)

    def make_room(self):
        """Let go of what lanes begin with where it takes more memory than to draw it again is worth."""
        if sum(tensor.nbytes for snapshot in self.drawn.values() for tensor in snapshot) > _MAX_BYTES_OF_DRAWN:
            self.drawn.clear()

    def programs_of(self, form, network):
        """Return where trainers of networks of a form, of which one is given, keep patterns of programs."""
        n_bytes = network.parameters.data.nbytes
        if form not in self.programs:
            if self.n_bytes + n_bytes > _MAX_BYTES_OF_PROGRAMS:
                return {}
            self.programs[form] = {}
            self.n_bytes += n_bytes
        return self.programs[form]


class Lane(Session):
    """A session whose epochs are run by a population, which it joins with others before training begins.

    Parameters
    ----------
    plan, data, snapshot, n_epochs_before
        As of `Session`.
    kin : Kin, default=None
        Of the lanes that will train beside it, or after it.

    Attributes
    ----------
    kin : Kin
    """

    _stack = _chunks = _initial = None
    _shared: dict = {}

    def __init__(self, plan, data, snapshot=None, n_epochs_before=0, kin=None):
        self.kin = Kin() if kin is None else kin
        super().__init__(plan, data, snapshot, n_epochs_before)

    @property
    def _gradients(self):
        return self.kin.gradients

    def _draw_kernels(self):
        plan = self.plan
        layers = tuple(
            (layer.n_in, layer.n_out, layer.initializer, layer.gain, layer.batch_norm is None) for layer in plan.network.layers
        )
        key = layers, plan.seeds.kernels, plan.dtype, plan.device
        if any(layer.initializer.calls_users_code for layer in plan.network.layers):
            super()._draw_kernels()
            return
        drawn = self.kin.drawn
        if key in drawn:
            self.network.restore(drawn[key])
        else:
            super()._draw_kernels()
            drawn[key] = super().snapshot()
        self._initial = drawn[key]

    def join_stack(self, stack, k):
        """Become network `k` of a stack."""
        self._stack, self._k = stack, k

    def share_chunks(self, chunks, programs, masks_from):
        """Train on batches that others gather, too, with programs of theirs, and dropout masks of another's where given."""
        self._chunks, self._shared = chunks, {"programs": programs, "masks_from": masks_from}

    def share_order(self, other):
        """Take the rows of each epoch in the order that another lane draws for both, which has the same seed."""
        self._order = other._order

    @property
    def order_source(self):
        """What the lane's orders are drawn from. Lanes that share it train on the same batches, which one of them draws."""
        return self._order

    @cached_property
    def trainer(self):
        return self._make_trainer(self._chunks, **self._shared)

    def share_data(self, other):
        """Use the rows of another lane, which are the same, and let go of one's own."""
        self.data = replace(other.data, twins=self.data.twins)

    def begin_epoch(self, rates, watcher=None):
        self.next_rates = list(rates)

    def snapshot(self):
        if self._initial is not None and not self.n_epochs:
            return self._initial
        return super().snapshot() if self._stack is None else self._stack.network.snapshot([self._k])

    def settle(self, snapshot=None):
        if snapshot is None and self._stack is not None:
            snapshot = self.snapshot()
        super().settle(snapshot)

    def _figures(self):
        return super()._figures() if self._stack is None else self._stack.figures[self._k]

    def _validation_outputs(self, data, rows):
        if self._stack is None:
            return super()._validation_outputs(data, rows)
        self.settle()  # for scorers that look at more than the outputs
        return self._stack.validation_outputs(data, rows)[self._k]


def can_share_a_population(first, second):
    """Say whether two sessions make the same products over the same batches; what is done element by element may differ.

    Parameters
    ----------
    first, second : Session
    """
    # torch's own optimizers work on the tensors of one network.
    if any(isinstance(session.plan.update.optimizer, TorchOptimizer) for session in (first, second)):
        return False
    return _kernels_of(first.plan) == _kernels_of(second.plan) and _have_same_rows(first.data, second.data)


def _kernels_of(plan):
    """What must be equal for networks to train in lockstep."""
    return (
        [(layer.n_in, layer.n_out, layer.batch_norm is None) for layer in plan.network.layers],
        plan.network.rounds_products,
        plan.loss,
        plan.batch_size,
        plan.shuffle,
        plan.dtype,
        plan.device,
        is_compiled(plan),
    )


def _form_of(plan):
    """What must be equal for networks to share the programs of their steps."""
    network, update = plan.network, plan.update
    layers = tuple(
        (layer.n_in, layer.n_out, layer.activation, layer.batch_norm, layer.dropout, layer.regularizer, layer.constraint)
        for layer in network.layers
    )
    rule = update.optimizer.kind, update.clipping
    return layers, network.input_dropout, network.rounds_products, rule, plan.loss, plan.dtype


def is_compiled(plan):
    """Whether a plan's steps are programs of skdnn's own kernels.

    Parameters
    ----------
    plan : TrainingPlan
    """
    work = plan.network.n_products * plan.batch_size
    return uses_one_thread(work) and can_be_compiled([plan.network], [plan.update], plan.loss, plan.device)


def _have_same_rows(first, second):
    """Whether the data of two sessions are the same, in content if not in memory."""
    if first is second:
        return True
    if first is None or second is None:
        return False
    names = ("X", "y", "training_rows", "validation_rows", "weights", "sample_weight")
    return all(_same(getattr(first, name), getattr(second, name)) for name in names) and _have_same_rows(
        first.validation, second.validation
    )


def _same(a, b):
    if a is b:
        return True
    if not (isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor)):
        return a is not None and b is not None and not isinstance(a, torch.Tensor) and _same_sparse(a, b)
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return a.data_ptr() == b.data_ptr() or torch.equal(a, b)


def _same_sparse(a, b):
    return a.shape == b.shape and a.dtype == b.dtype and (a != b).nnz == 0


def _side_by_side(lanes):
    """Put lanes into an order in which those that are alike are neighbours, which kernels then take together."""

    def ranks(kind_of):
        """The number of each lane's kind, in the order in which kinds come up first."""
        kinds = {}
        return [kinds.setdefault(kind_of(lane.plan), len(kinds)) for lane in lanes]

    keys = zip(
        ranks(lambda plan: tuple(layer.activation for layer in plan.network.layers)),
        ranks(lambda plan: plan.update.optimizer),
        ranks(lambda plan: plan.learning_rate_init),
        ranks(lambda plan: type(plan.update.clipping)),
        ranks(lambda plan: tuple((type(layer.regularizer), type(layer.constraint)) for layer in plan.network.layers)),
        strict=True,
    )
    return [lane for _, lane in sorted(zip(keys, lanes, strict=True), key=lambda pair: pair[0])]


def make_population(lanes):
    """Return what trains lanes that can share a population, a `SideBySide` or a `Stacked`.

    Parameters
    ----------
    lanes : list of Lane
    """
    return (SideBySide if is_compiled(lanes[0].plan) else Stacked)(lanes)


class SideBySide:
    """Networks of several lanes, each by itself, that share the batches they are trained on.

    Parameters
    ----------
    lanes : list of Lane
        That can share a population.
    """

    def __init__(self, lanes):
        self._lanes = list(lanes)
        first, kin = lanes[0].plan, lanes[0].kin
        chunks, programs, leaders, drawing = Chunks(lanes[0].network, first.loss), {}, {}, {}
        for lane in lanes:
            form = _form_of(lane.plan)
            if form not in programs:
                programs[form] = kin.programs_of(form, lane.network)
            order = (lane.plan.seeds.order, lane.n_epochs) if lane.plan.shuffle else None
            rates = lane.plan.network.input_dropout, *(layer.dropout for layer in lane.plan.network.layers)
            masks = order, lane.plan.seeds.dropout, lane.n_epochs, rates
            lane.share_chunks(chunks, programs[form], drawing.get(masks))
            drawing.setdefault(masks, lane.trainer)
            lane.share_order(leaders.setdefault(order, lane))

    def train(self):
        """Run an epoch for all lanes, which have begun theirs."""
        data = self._lanes[0].data
        together = {}
        for lane in self._lanes:
            together.setdefault(lane.order_source, []).append(lane)
        twins = (lane.data.twins for lane in self._lanes)  # of those with dropout; they are the same for all
        twins = next((numbers for numbers in twins if numbers is not None), None)
        for lanes in together.values():
            run_epoch_together(
                [lane.trainer for lane in lanes],
                data.X,
                data.y,
                lanes[0].draw_order(),
                [lane.next_rates for lane in lanes],
                data.weights,
                sample_weight=data.sample_weight,
                twins=twins,
            )

    def leave(self, lanes):
        """Go on without some of the lanes."""
        self._lanes = [lane for lane in self._lanes if lane not in lanes]


class Stacked:
    """Networks of several lanes in lockstep, as one network with an axis more.

    Parameters
    ----------
    lanes : list of Lane
        That can share a population.

    Attributes
    ----------
    network : Network
    figures : list of tuple
        Loss, penalty and norm of each network after the last epoch.
    """

    def __init__(self, lanes):
        self._lanes = lanes = _side_by_side(lanes)
        plans = [lane.plan for lane in lanes]
        first = plans[0]
        seeds = [plan.seeds.dropout for plan in plans]
        self.network = Network([plan.network for plan in plans], first.dtype, first.device, seeds)
        for k, lane in enumerate(lanes):
            self.network.assign(k, lane.network.snapshot())
            lane.join_stack(self, k)
        self._update = Update(self.network, [plan.update for plan in plans])
        self._make_trainer()

    def _make_trainer(self):
        plan = self._lanes[0].plan
        self._trainer = Trainer(self.network, self._update, plan.loss, plan.batch_size)
        self._outputs = None

    def train(self):
        """Run an epoch for all lanes, which have begun theirs."""
        data = self._lanes[0].data
        orders = [lane.draw_order() for lane in self._lanes]
        is_shared = all(torch.equal(order, orders[0]) for order in orders[1:])
        order = orders[0] if is_shared else torch.stack(orders)
        self._outputs = None
        twins = (lane.data.twins for lane in self._lanes)  # of those with dropout; they are the same for all
        run_epoch_together(
            [self._trainer],
            data.X,
            data.y,
            order.to(data.y.device),
            [self._rates()],
            data.weights,
            sample_weight=data.sample_weight,
            twins=next((numbers for numbers in twins if numbers is not None), None),
        )
        self.figures = self._trainer.figures()

    def _rates(self):
        """The rates of each update: a number where all lanes have the same, and one tuple for as long as they stay."""
        known = {}
        for rates in zip(*(lane.next_rates for lane in self._lanes), strict=True):
            if rates not in known:
                known[rates] = rates[0] if len(set(rates)) == 1 else rates
            yield known[rates]

    def validation_outputs(self, data, rows):
        """Return the outputs of all networks for the validation rows, which are predicted once an epoch."""
        if self._outputs is None:
            outputs = self.network.predict(data.X, rows)
            self._outputs = outputs if self.network.n_networks > 1 else outputs.unsqueeze(0)
        return self._outputs

    def leave(self, lanes):
        """Go on without some of the lanes."""
        stay = [k for k, lane in enumerate(self._lanes) if lane not in lanes]
        self._lanes = [self._lanes[k] for k in stay]
        if not stay:
            return
        self.network = self.network.select(stay)
        self._update = self._update.select(self.network, [lane.plan.update for lane in self._lanes], stay)
        for k, lane in enumerate(self._lanes):
            lane.join_stack(self, k)
        self._make_trainer()
