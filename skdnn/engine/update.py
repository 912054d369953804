"""From gradient to parameters: penalties, clipping, the update rule, constraints."""

from functools import partial

import torch

from skdnn.components.optimizers import TorchOptimizer
from skdnn.engine.runs import runs_of, stacked_runs


class Update:
    """The update of K networks in lockstep.

    Networks side by side that have equal optimizers and rates are updated as one; each rounds as it does alone.

    Parameters
    ----------
    network : Network
    plans : sequence of UpdatePlan
        One a network.
    rules : list of _FlatRule, default=None
        To go on with; new ones by default.

    Attributes
    ----------
    n_updates : int
        Updates done so far.
    plans : tuple of UpdatePlan
    """

    def __init__(self, network, plans, rules=None):
        storage = network.parameters
        optimizers = [plan.optimizer for plan in plans]
        self._rules = rules or [_make_rule(network, optimizers[run.start], run) for run in _alike(optimizers)]
        self._rates = None
        self.plans = tuple(plans)
        clippings = stacked_runs([plan.clipping for plan in plans], 1, storage.data)
        self._before = network.record_penalty_gradients()
        self._before += [partial(clipping.clip, storage.rows(run, network.gradient)) for run, clipping in clippings]
        self._after = network.record_projections()
        self.n_updates = 0

    def step(self, learning_rate):
        """Update the parameters by the network's gradient.

        Parameters
        ----------
        learning_rate : float or tuple of float
            A tuple has one a network.
        """
        self.n_updates += 1
        self._adapt_to(learning_rate)
        for call in self._before:
            call()
        for rule in self._rules:
            rule.step(learning_rate[rule.run.start] if isinstance(learning_rate, tuple) else learning_rate, self.n_updates)
        for call in self._after:
            call()

    def coefficients(self, learning_rate, n):
        """Return the numbers of the one network's `n`-th update, for `apply`."""
        return self._rules[0].coefficients(learning_rate, n)

    def next_coefficients(self, learning_rates):
        """Return the numbers of the one network's next updates, an array of shape (n_updates, n_numbers)."""
        return self._rules[0].table_of_coefficients(learning_rates, self.n_updates + 1)

    def apply(self, coefficients):
        """Update the one network by its gradient, with the numbers of an update."""
        for call in self._before:
            call()
        self._rules[0].apply(*coefficients)
        for call in self._after:
            call()

    def _adapt_to(self, learning_rate):
        """Give networks of different rates rules of their own, with states of their own."""
        if isinstance(learning_rate, tuple) and learning_rate is not self._rates:
            self._rates = learning_rate
            self._rules = [part for rule in self._rules for part in rule.split(learning_rate)]

    def select(self, network, plans, indices):
        """Return the update of some of the networks, with their state.

        Parameters
        ----------
        network : Network
            These networks, in a storage of their own.
        plans : sequence of UpdatePlan
            Theirs.
        indices : list of int
            In ascending order.
        """
        rules, start = [], 0
        for rule in self._rules:
            own = [k - rule.run.start for k in indices if rule.run.start <= k < rule.run.stop]
            if own:
                rules.append(rule.select(network, slice(start, start + len(own)), own))
                start += len(own)
        chosen = Update(network, plans, rules)
        chosen.n_updates = self.n_updates
        return chosen

    def is_finite(self):
        """Say whether the rules' state is finite; weights can be while their moments have overflowed."""
        return all(bool(tensor.isfinite().all()) for tensor in self.state_tensors())

    def state_tensors(self):
        """Return the tensors that the rules keep between updates."""
        return [tensor for rule in self._rules for tensor in rule.state_tensors()]


def _alike(optimizers):
    """Runs of networks that one rule updates; torch's optimizers work on the tensors of one network."""
    if any(isinstance(optimizer, TorchOptimizer) for optimizer in optimizers):
        return runs_of(range(len(optimizers)))
    return runs_of(optimizers)


def _make_rule(network, optimizer, run):
    if isinstance(optimizer, TorchOptimizer):
        return _TorchRule(network, optimizer, run)
    return _FlatRule(network, optimizer, run)


class _FlatRule:
    """An update rule of the catalogue, on the flat parameters of networks side by side.

    Parameters
    ----------
    network : Network
    optimizer : Optimizer
    run : slice
        The networks.
    state : dict of Tensor, default=None
        To go on with.
    """

    def __init__(self, network, optimizer, run, state=None):
        self.run = run
        self._network, self._optimizer = network, optimizer
        parameters, gradient = (network.parameters.rows(run, flat) for flat in (network.parameters.data, network.gradient))
        self.state = optimizer.init_state(parameters) if state is None else state
        self.coefficients, self.table_of_coefficients = optimizer.coefficients, optimizer.table_of_coefficients
        self.apply = partial(optimizer.update, parameters, gradient, self.state)

    def step(self, learning_rate, n_updates):
        self.apply(*self.coefficients(learning_rate, n_updates))

    def split(self, rates):
        """Return rules for networks that have one rate each."""
        start = self.run.start
        runs = runs_of(rates[self.run])
        if len(runs) == 1:
            return [self]
        shifted = [slice(start + run.start, start + run.stop) for run in runs]
        return [
            self.select(self._network, networks, list(range(run.start, run.stop)))
            for networks, run in zip(shifted, runs, strict=True)
        ]

    def select(self, network, run, indices):
        """Return the rule of some of its networks, which are `run` in `network`, with their state."""
        n_networks = self.run.stop - self.run.start

        def own(tensor):
            """What has an axis of the networks is theirs in part, the rest is of all."""
            if n_networks == 1 or tensor.dim() < 2:
                return tensor.clone()
            return tensor[indices[0]].clone() if len(indices) == 1 else tensor[indices]

        return _FlatRule(network, self._optimizer, run, {name: own(tensor) for name, tensor in self.state.items()})

    def state_tensors(self):
        return [tensor for name, tensor in self.state.items() if name != "scratch"]


class _TorchRule:
    """A `torch.optim.Optimizer` over the tensors of one network's layers."""

    def __init__(self, network, optimizer, run):
        self.run = run
        tensors, gradients = (network.parameters.network(run.start, flat) for flat in (None, network.gradient))
        for tensor, gradient in zip(tensors, gradients, strict=True):
            tensor.grad = gradient
        self._optimizer = optimizer.build(tensors)

    def step(self, learning_rate, n_updates):
        with torch.inference_mode(False), torch.no_grad():  # its state outlives this call: no inference tensors
            for group in self._optimizer.param_groups:
                group["lr"] = learning_rate
            self._optimizer.step()

    def split(self, rates):
        return [self]

    def state_tensors(self):
        values = [value for state in self._optimizer.state.values() for value in state.values()]
        return [value for value in values if isinstance(value, torch.Tensor)]
