"""Small plans and loops that the tests of the engine share."""

import itertools
from functools import partial

import torch

from skdnn.components import SGD, Glorot, Tanh
from skdnn.components.losses import CategoricalCrossentropy
from skdnn.engine import LayerPlan, Network, NetworkPlan, Trainer, Update, UpdatePlan

CPU = torch.device("cpu")
SIZES = (5, 7, 6, 3)


def plan_network(
    sizes=SIZES,
    activation=None,
    batch_norm=None,
    dropout=0.0,
    input_dropout=0.0,
    regularizer=None,
    constraint=None,
    initializer=None,
):
    """A plan with the same techniques on every hidden layer; penalties are on all layers, logits are normalised on demand."""
    layers = []
    for index, (n_in, n_out) in enumerate(itertools.pairwise(sizes)):
        is_hidden = index < len(sizes) - 2
        layers.append(
            LayerPlan(
                n_in,
                n_out,
                initializer or Glorot(),
                activation=(activation or Tanh()) if is_hidden else None,
                batch_norm=batch_norm if is_hidden or (batch_norm is not None and batch_norm.output) else None,
                dropout=dropout if is_hidden else 0.0,
                regularizer=regularizer,
                constraint=constraint if is_hidden else None,
            )
        )
    return NetworkPlan(tuple(layers), input_dropout)


def make_network(*plans, dtype=torch.float64, seeds=None):
    """A network whose every parameter, biases and batch norm's included, is away from where it starts by default."""
    seeds = list(range(len(plans))) if seeds is None else seeds
    network = Network(plans, dtype, CPU, seeds)
    network.initialize(seeds)
    for k, seed in enumerate(seeds):
        generator = torch.Generator().manual_seed(seed)
        for tensor in network.parameters.network(k):
            tensor.add_(0.1 * torch.randn(tensor.shape, generator=generator, dtype=torch.float64))
    return network


def make_data(n_rows=40, n_features=SIZES[0], n_classes=SIZES[-1], dtype=torch.float64):
    generator = torch.Generator().manual_seed(7)
    X = torch.randn(n_rows, n_features, generator=generator, dtype=torch.float64).to(dtype)
    return X, torch.randint(0, n_classes, (n_rows,), generator=generator)


def make_orders(n_epochs, *shape_before, n_rows, seed=3):
    """An order an epoch; with `shape_before` = (K,) one a network."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(*shape_before, n_rows, generator=generator).argsort(-1) for _ in range(n_epochs)]


def train(network, X, y, orders, rates, update_plans=None, loss=None, batch_size=8):
    """Run an epoch for each order and return their losses, one tensor of shape (K,) each."""
    update_plans = update_plans or [UpdatePlan(SGD())] * network.n_networks
    trainer = Trainer(network, Update(network, update_plans), loss or CategoricalCrossentropy(), batch_size)
    rate = rates[0] if network.n_networks == 1 else tuple(rates)
    return [trainer.run_epoch(X, y, order, [rate] * trainer.n_updates(order.shape[-1])) for order in orders]


def run_pass(network, x, y, loss):
    """Fill the network's gradient from one batch, penalties included, and return the outputs."""
    with torch.inference_mode():
        leading = () if network.n_networks == 1 else (network.n_networks,)
        outputs = torch.empty(*leading, y.shape[-1], network.n_outputs, dtype=network.dtype)
        output_gradient = torch.empty_like(outputs)
        weight = 1.0 / y.shape[-1]
        targets = loss.prepare(y, network.n_outputs, weight, network.dtype)
        masks = network.make_masks(1, y.shape[-1])
        for own in masks:
            own.draw(1)
        loss_gradient = partial(loss.gradient, outputs, targets, weight, output_gradient)
        calls = network.record(x, outputs, output_gradient, loss_gradient, masks=[own.of(0) for own in masks])
        for call in calls + network.record_penalty_gradients():
            call()
    return outputs
