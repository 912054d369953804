"""From gradient to parameters: penalties, clipping, the update rule, constraints."""

from functools import partial

import torch

from skdnn.components._component import stack
from skdnn.components.optimizers import TorchOptimizer


class Update:
    """The update of K networks in lockstep.

    Parameters
    ----------
    network : Network
    plans : sequence of UpdatePlan
        One a network, alike but for numbers.

    Attributes
    ----------
    n_updates : int
        Updates done so far.
    calls_users_code : bool
        Whether an update is more than known kernels.
    """

    def __init__(self, network, plans):
        self._storage = network.parameters
        clipping = self._stack([plan.clipping for plan in plans])
        optimizers = [plan.optimizer for plan in plans]
        if len({getattr(optimizer, "optimizer", type(optimizer)) for optimizer in optimizers}) > 1:
            raise ValueError(f"networks in lockstep need techniques of one class each, got {optimizers!r}.")
        if isinstance(optimizers[0], TorchOptimizer):
            self._rule = _TorchRule(network, optimizers)
        else:
            self._rule = _FlatRule(network, self._stack(optimizers))
        self.calls_users_code = any(plan.calls_users_code for plan in plans)
        self._before = network.record_penalty_gradients()
        if clipping is not None:
            self._before.append(partial(clipping.clip, network.gradient, self._norm))
        self._after = network.record_projections()
        self.n_updates = 0

    def _stack(self, components):
        if all(component is None for component in components):
            return None
        if any(component is None for component in components):
            raise ValueError(f"networks in lockstep need gradient clipping for all or for none, got {components!r}.")
        return stack(components, lambda values: self._storage.spread(values))

    def step(self, learning_rate):
        """Update the parameters by the network's gradient.

        Parameters
        ----------
        learning_rate : float or Tensor of shape (n_networks,)
        """
        self.n_updates += 1
        self.apply(learning_rate, self.n_updates)

    def apply(self, learning_rate, n):
        """Do as `step` does, as the `n`-th update."""
        for call in self._before:
            call()
        self._rule.step(learning_rate, n)
        for call in self._after:
            call()

    @property
    def state(self):
        """What an update changes beside the parameters and later ones depend on, tensors by name."""
        return self._rule.state

    def select(self, network, plans, indices):
        """Return the update of some of the networks, with their state.

        Parameters
        ----------
        network : Network
            These networks, in a storage of their own.
        plans : sequence of UpdatePlan
            Theirs.
        indices : list of int
        """
        chosen = Update(network, plans)
        chosen._rule.take_over(self._rule, indices)
        chosen.n_updates = self.n_updates
        return chosen

    def is_finite(self):
        """Say whether the rule's state is finite; weights can be while their moments have overflowed."""
        return all(bool(tensor.isfinite().all()) for tensor in self._rule.state_tensors())

    def _norm(self, flat):
        """Norms of the networks' parts of a flat tensor, in a shape that broadcasts against it."""
        norms = self._storage.norms(flat)
        return norms if len(norms) == 1 else self._storage.spread(norms)


class _FlatRule:
    """An update rule of the catalogue, on the flat parameters."""

    def __init__(self, network, optimizer):
        self._storage = network.parameters
        self.state = optimizer.init_state(network.parameters.data)
        self._update = partial(optimizer.update, network.parameters.data, network.gradient, self.state)
        self._rate = self._spread_rate = None

    def step(self, learning_rate, n_updates):
        if isinstance(learning_rate, torch.Tensor):
            learning_rate = self._spread(learning_rate)
        self._update(learning_rate, n_updates)

    def state_tensors(self):
        return [tensor for name, tensor in self.state.items() if name != "scratch"]

    def take_over(self, other, indices):
        """Go on with the state that some networks have in another rule."""
        for name, tensor in other.state.items():
            is_flat = tensor.shape == other._storage.data.shape
            self.state[name] = other._storage.select(indices, tensor) if is_flat else tensor.clone()

    def _spread(self, rates):
        """The rates of the networks at each parameter, made anew only when a schedule moved them."""
        if rates is not self._rate:
            self._rate, self._spread_rate = rates, self._storage.spread(rates)
        return self._spread_rate


class _TorchRule:
    """A `torch.optim.Optimizer` for each network, over the layers' own tensors."""

    def __init__(self, network, optimizers):
        self._optimizers = []
        for k, optimizer in enumerate(optimizers):
            tensors = network.parameters.network(k)
            for tensor, gradient in zip(tensors, network.parameters.network(k, network.gradient), strict=True):
                tensor.grad = gradient
            self._optimizers.append(optimizer.build(tensors))

    def step(self, learning_rate, n_updates):
        rates = learning_rate.tolist() if isinstance(learning_rate, torch.Tensor) else [learning_rate] * len(self._optimizers)
        with torch.inference_mode(False), torch.no_grad():  # its state outlives this call: no inference tensors
            for optimizer, rate in zip(self._optimizers, rates, strict=True):
                for group in optimizer.param_groups:
                    group["lr"] = rate
                optimizer.step()

    def state_tensors(self):
        states = [state for optimizer in self._optimizers for state in optimizer.state.values()]
        return [value for state in states for value in state.values() if isinstance(value, torch.Tensor)]
