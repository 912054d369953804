"""K networks in lockstep end where K separate fits end.

They do so bit for bit on one thread, whatever their neighbours do: each number goes through the same instructions as where a
network is alone. Products of less than some hundred multiplications apart, for which torch has a kernel of its own; those of
the tests that allow for rounding are that small.
"""

import pytest
import scipy.sparse
import torch
from engine_plans import make_data, make_network, make_orders, plan_network, train

from skdnn.components import (
    ACTIVATIONS,
    ELU,
    L1,
    L1L2,
    L2,
    OPTIMIZERS,
    SGD,
    AdaGrad,
    Adam,
    Adamax,
    AdamW,
    AMSGrad,
    BatchNorm,
    ClipNorm,
    ClipValue,
    Glorot,
    He,
    MaxNorm,
    Momentum,
    NAdam,
    Nesterov,
    Normal,
    Orthogonal,
    RMSProp,
    TorchOptimizer,
)
from skdnn.components.losses import BinaryCrossentropy, CategoricalCrossentropy
from skdnn.engine import Trainer, Update, UpdatePlan

RATES = [0.01, 0.002, 0.03]
SEEDS = [11, 5, 8]

# The same rule three times, with other numbers. Epsilons are larger than by default: before batch norm the gradient of a bias
# is 0 but for rounding, and rules that divide by the gradient's own size would make visible steps of that rounding.
POPULATIONS = {
    "sgd": [SGD(), SGD(), SGD()],
    "momentum": [Momentum(0.9), Momentum(0.5), Momentum(0.0)],
    "nesterov": [Nesterov(0.9), Nesterov(0.5), Nesterov(0.0)],
    "adagrad": [AdaGrad(0.0, 1e-3), AdaGrad(0.1, 1e-3), AdaGrad(0.01, 1e-4)],
    "rmsprop": [RMSProp(0.9, 1e-3), RMSProp(0.99, 1e-3), RMSProp(0.5, 1e-4)],
    "adam": [Adam(0.9, 0.999, 1e-3), Adam(0.8, 0.99, 1e-3), Adam(0.5, 0.9, 1e-4)],
    "adamw": [AdamW(0.9, 0.999, 1e-3), AdamW(0.8, 0.99, 1e-3, 0.1), AdamW(0.5, 0.9, 1e-4, 0.0)],
    "nadam": [NAdam(0.9, 0.999, 1e-3), NAdam(0.8, 0.99, 1e-3, 0.01), NAdam(0.5, 0.9, 1e-4, 0.0)],
    "adamax": [Adamax(0.9, 0.999, 1e-3), Adamax(0.8, 0.99, 1e-3), Adamax(0.5, 0.9, 1e-4)],
    "amsgrad": [AMSGrad(0.9, 0.999, 1e-3), AMSGrad(0.8, 0.99, 1e-3), AMSGrad(0.5, 0.9, 1e-4)],
    "torch": [
        TorchOptimizer(torch.optim.RAdam, betas=betas, eps=eps)
        for betas, eps in (((0.9, 0.999), 1e-3), ((0.8, 0.99), 1e-3), ((0.5, 0.9), 1e-4))
    ],
}

DTYPES = {torch.float64: 1e-10, torch.float32: 1e-5}
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=str)


@pytest.fixture(autouse=True)
def torch_kernels(monkeypatch):
    """Networks are stacked where steps are no programs."""
    monkeypatch.setattr("skdnn.engine.trainer.can_be_compiled", lambda *given: False)


def state_of(network, k):
    return torch.cat([tensor.flatten() for tensor in network.parameters.network(k) + network.statistics.network(k)])


def assert_ends_where_separate_fits_end(plans, update_plans, orders, dtype, rates=RATES, loss=None, n_rows=35, n_classes=3):
    X, y = make_data(n_rows, n_classes=n_classes, dtype=dtype)
    seeds = SEEDS + list(range(len(plans) - len(SEEDS)))
    population = make_network(*plans, dtype=dtype, seeds=seeds[: len(plans)])
    losses = train(population, X, y, orders, rates, update_plans, loss)
    tolerance = DTYPES[dtype]
    for k, plan in enumerate(plans):
        alone = make_network(plan, dtype=dtype, seeds=[seeds[k]])
        own_orders = [order if order.dim() == 1 else order[k] for order in orders]
        own_losses = train(alone, X, y, own_orders, [rates[k]], [update_plans[k]], loss)
        assert torch.isfinite(state_of(alone, 0)).all()
        error = (state_of(population, k) - state_of(alone, 0)).norm() / state_of(alone, 0).norm()
        assert float(error) <= tolerance
        together = torch.stack([epoch[k] for epoch in losses])
        torch.testing.assert_close(together, torch.cat(own_losses), rtol=tolerance, atol=0.0)


def test_every_optimizer_has_a_population():
    assert POPULATIONS.keys() == {*OPTIMIZERS, "torch"}


@dtypes
@pytest.mark.parametrize("is_own", [False, True], ids=["shared", "own"])
@pytest.mark.parametrize("name", POPULATIONS)
def test_optimizers(name, is_own, dtype):
    # 35 rows in batches of 8: the last one has 3.
    orders = make_orders(3, *([3] if is_own else []), n_rows=35)
    updates = [UpdatePlan(optimizer) for optimizer in POPULATIONS[name]]
    assert_ends_where_separate_fits_end([plan_network()] * 3, updates, orders, dtype)


@pytest.mark.parametrize("is_own", [False, True], ids=["shared", "own"])
@pytest.mark.parametrize("name", POPULATIONS)
def test_optimizers_with_batch_norm(name, is_own):
    # In float64 only: in float32 the rounding in the gradient of a bias before batch norm, which is 0, reaches epsilon.
    orders = make_orders(3, *([3] if is_own else []), n_rows=33)  # a last batch of 9: the tail of 1 has joined
    updates = [UpdatePlan(optimizer) for optimizer in POPULATIONS[name]]
    plan = plan_network(batch_norm=BatchNorm(momentum=0.7, output=True))
    assert_ends_where_separate_fits_end([plan] * 3, updates, orders, torch.float64, n_rows=33)


@pytest.mark.parametrize("name", ["sgd", "momentum", "nesterov"])
def test_batch_norm_in_float32(name):
    # Rules that are linear in the gradient leave the rounding in it as small as it is.
    updates = [UpdatePlan(optimizer) for optimizer in POPULATIONS[name]]
    plan = plan_network(batch_norm=BatchNorm())
    assert_ends_where_separate_fits_end([plan] * 3, updates, make_orders(3, n_rows=33), torch.float32, n_rows=33)


EVERYTHING = [
    {
        "regularizer": L1(0.01),
        "constraint": MaxNorm(0.8),
        "dropout": 0.5,
        "input_dropout": 0.1,
        "initializer": Glorot("normal"),
    },
    {"regularizer": L2(0.02), "constraint": None, "dropout": 0.0, "input_dropout": 0.0, "initializer": He("uniform")},
    {"regularizer": L1L2(0.01, 0.03), "constraint": MaxNorm(1.2), "dropout": 0.2, "initializer": Orthogonal()},
    {"regularizer": None, "constraint": MaxNorm(0.5), "input_dropout": 0.3, "initializer": Normal(0.3)},
]


@dtypes
@pytest.mark.parametrize("is_own", [False, True], ids=["shared", "own"])
@pytest.mark.parametrize("clippings", [None, (ClipNorm, 0.2, 0.5, 1.0, 0.1), (ClipValue, 0.02, 0.1, 1.0, 0.05)])
@pytest.mark.parametrize("is_binary", [False, True], ids=["multiclass", "binary"])
def test_all_numbers_at_once(clippings, is_own, is_binary, dtype):
    sizes = (5, 7, 6, 1 if is_binary else 3)
    plans = [plan_network(sizes, ELU(), **techniques) for techniques in EVERYTHING]
    make, *bounds = clippings or (lambda bound: None, *range(4))
    updates = [UpdatePlan(Momentum(beta), make(bound)) for beta, bound in zip((0.9, 0.5, 0.0, 0.7), bounds, strict=True)]
    orders = make_orders(3, *([4] if is_own else []), n_rows=35)
    loss = BinaryCrossentropy() if is_binary else CategoricalCrossentropy()
    rates = [*RATES, 0.05]
    assert_ends_where_separate_fits_end(plans, updates, orders, dtype, rates, loss, n_classes=2 if is_binary else 3)


@pytest.mark.parametrize("norm", [None, BatchNorm()], ids=["plain", "batch_norm"])
def test_penalties_constraints_and_dropout_with_batch_norm(norm):
    plans = [plan_network(activation=ELU(), batch_norm=norm, **techniques) for techniques in EVERYTHING]
    orders = make_orders(2, n_rows=35)
    updates = [UpdatePlan(SGD())] * 4
    assert_ends_where_separate_fits_end(plans, updates, orders, torch.float64, [*RATES, 0.05])


def test_orders_may_be_shared_in_one_epoch_and_own_in_the_next():
    plans = [plan_network(dropout=rate) for rate in (0.5, 0.2, 0.0)]
    (first, third), (second,) = make_orders(2, n_rows=35), make_orders(1, 3, n_rows=35)
    assert_ends_where_separate_fits_end(plans, [UpdatePlan(SGD())] * 3, [first, second, third], torch.float64)


def test_more_batches_than_a_chunk_holds():
    plans = [plan_network(dropout=rate) for rate in (0.5, 0.2, 0.0)]
    orders = make_orders(2, 3, n_rows=35 * 8)
    assert_ends_where_separate_fits_end(plans, [UpdatePlan(SGD())] * 3, orders, torch.float64, n_rows=35 * 8)


@dtypes
@pytest.mark.parametrize("name", POPULATIONS)
def test_an_update_by_the_same_numbers_is_the_same(name, dtype):
    optimizer = POPULATIONS[name][1]
    population = make_network(*[plan_network()] * 3, dtype=dtype)
    together = Update(population, [UpdatePlan(optimizer)] * 3)
    alone = [make_network(plan_network(), dtype=dtype, seeds=[k]) for k in range(3)]
    updates = [Update(network, [UpdatePlan(optimizer)]) for network in alone]
    for seed in range(3):
        for k, network in enumerate(alone):
            network.gradient.copy_(torch.randn(network.gradient.shape, generator=torch.Generator().manual_seed(seed + 10 * k)))
            own = population.parameters.network(k, population.gradient)
            for target, source in zip(own, network.parameters.network(0, network.gradient), strict=True):
                target.copy_(source)
        with torch.inference_mode():
            for update in (together, *updates):
                update.step(0.01)
    for k, network in enumerate(alone):
        assert torch.equal(state_of(population, k), state_of(network, 0))


def assert_ends_where_separate_fits_end_bit_for_bit(plans, update_plans, rates, dtype, is_own=False):
    n_networks, n_rows = len(plans), 67  # four batches of 16, and one of 3
    X, y = make_data(n_rows, plans[0].layers[0].n_in, WIDE[-1], dtype)
    orders = make_orders(3, *([n_networks] if is_own else []), n_rows=n_rows)
    population = make_network(*plans, dtype=dtype)
    losses = train(population, X, y, orders, rates, update_plans, batch_size=16)
    for k, plan in enumerate(plans):
        alone = make_network(plan, dtype=dtype, seeds=[k])
        own_orders = [order if order.dim() == 1 else order[k] for order in orders]
        own_losses = train(alone, X, y, own_orders, [rates[k]], [update_plans[k]], batch_size=16)
        assert torch.isfinite(state_of(alone, 0)).all()
        assert torch.equal(state_of(population, k), state_of(alone, 0))
        assert torch.equal(torch.stack([epoch[k] for epoch in losses]), torch.cat(own_losses))


WIDE = (20, 37, 24, 10)


@dtypes
@pytest.mark.parametrize("is_own", [False, True], ids=["shared", "own"])
@pytest.mark.parametrize("name", POPULATIONS)
def test_optimizers_bit_for_bit(name, is_own, dtype):
    updates = [UpdatePlan(optimizer) for optimizer in POPULATIONS[name]]
    assert_ends_where_separate_fits_end_bit_for_bit([plan_network(WIDE)] * 3, updates, RATES, dtype, is_own)


@dtypes
@pytest.mark.parametrize("norm", [None, BatchNorm()], ids=["plain", "batch_norm"])
def test_techniques_bit_for_bit(norm, dtype):
    plans = [plan_network(WIDE, ELU(), batch_norm=norm, **techniques) for techniques in EVERYTHING]
    updates = [UpdatePlan(Momentum(), ClipNorm(bound)) for bound in (0.2, 0.5, 1.0, 0.5)]
    assert_ends_where_separate_fits_end_bit_for_bit(plans, updates, [*RATES, 0.05], dtype)


@dtypes
def test_products_of_every_size_bit_for_bit(dtype):
    plans = [plan_network((200, 400, 24, 10), dropout=rate) for rate in (0.0, 0.2)]
    assert_ends_where_separate_fits_end_bit_for_bit(plans, [UpdatePlan(Adam())] * 2, RATES[:2], dtype)


@dtypes
def test_activations_and_rules_of_several_classes_bit_for_bit(dtype):
    plans = [plan_network(WIDE, ACTIVATIONS[name]()) for name in ACTIVATIONS] * 2
    updates = [UpdatePlan(SGD() if k % 3 else Adam()) for k in range(len(plans))]
    assert_ends_where_separate_fits_end_bit_for_bit(plans, updates, [0.01 * (1 + k % 2) for k in range(len(plans))], dtype)


@dtypes
def test_batch_norm_of_several_numbers_bit_for_bit(dtype):
    plans = [plan_network(WIDE, batch_norm=BatchNorm(momentum, epsilon)) for momentum, epsilon in ((0.9, 1e-5), (0.5, 1e-3))]
    assert_ends_where_separate_fits_end_bit_for_bit(plans, [UpdatePlan(SGD())] * 2, RATES[:2], dtype)


@pytest.mark.parametrize("norm", [None, BatchNorm()], ids=["plain", "batch_norm"])
@pytest.mark.parametrize("name", POPULATIONS)
def test_a_network_that_diverges_leaves_its_neighbours_as_they_were_bit_for_bit(name, norm):
    X, y = make_data(35, dtype=torch.float32)
    orders = make_orders(3, n_rows=35)
    plans = [plan_network(activation=ELU(), batch_norm=norm, **EVERYTHING[k]) for k in (0, 2, 1)]
    updates = [UpdatePlan(optimizer, ClipNorm(bound)) for optimizer, bound in zip(POPULATIONS[name], (1, 2, 3), strict=True)]
    states, losses = [], []
    for middle in (0.01, 1e37):
        network = make_network(*plans, dtype=torch.float32)
        losses.append(torch.stack(train(network, X, y, orders, [0.01, middle, 0.03], updates)))
        states.append([state_of(network, k) for k in range(3)])
    assert not torch.isfinite(states[1][1]).all()
    for k in (0, 2):
        assert torch.isfinite(states[0][k]).all()
        assert torch.equal(states[0][k], states[1][k])
        assert torch.equal(losses[0][:, k], losses[1][:, k])


def assert_weighted_epochs_end_where_separate_ones_end(plans, orders, batch_size, n_rows, with_factors, twins=None, wrap=None):
    X, y = make_data(n_rows)
    given = X if wrap is None else wrap(X)
    generator = torch.Generator().manual_seed(1)
    sample_weight = torch.rand(n_rows, 1, generator=generator, dtype=torch.float64) * 4.0 + 0.1
    weights = torch.rand(n_rows, 1, generator=generator, dtype=torch.float64) + 0.5 if with_factors else None

    def run(network, orders, rates):
        trainer = Trainer(
            network, Update(network, [UpdatePlan(Momentum())] * network.n_networks), CategoricalCrossentropy(), batch_size
        )
        return [
            trainer.run_epoch(
                given,
                y,
                order,
                [rates] * trainer.n_updates(order.shape[-1]),
                weights,
                sample_weight=sample_weight,
                twins=twins,
            )
            for order in orders
        ]

    population = make_network(*plans, seeds=SEEDS)
    losses = torch.stack(run(population, orders, tuple(RATES)))
    for k, plan in enumerate(plans):
        alone = make_network(plan, seeds=[SEEDS[k]])
        own = torch.cat(run(alone, [order if order.dim() == 1 else order[k] for order in orders], RATES[k]))
        torch.testing.assert_close(losses[:, k], own, rtol=1e-10, atol=0.0)
        error = (state_of(population, k) - state_of(alone, 0)).norm() / state_of(alone, 0).norm()
        assert float(error) <= 1e-10


@pytest.mark.parametrize("is_own", [False, True], ids=["shared", "own"])
@pytest.mark.parametrize("with_factors", [False, True], ids=["counts", "counts_and_factors"])
@pytest.mark.parametrize("norm", [None, BatchNorm(momentum=0.7, output=True)], ids=["plain", "batch_norm"])
def test_weighted_rows(norm, with_factors, is_own):
    plans = [plan_network(batch_norm=norm, dropout=rate, regularizer=L2(0.01)) for rate in (0.5, 0.2, 0.0)]
    orders = make_orders(3, *([3] if is_own else []), n_rows=33)  # a tail of one row
    assert_weighted_epochs_end_where_separate_ones_end(plans, orders, 8, 33, with_factors)


@pytest.mark.parametrize("is_own", [False, True], ids=["shared", "own"])
def test_twins(is_own):
    plans = [plan_network(dropout=rate, input_dropout=other) for rate, other in ((0.5, 0.2), (0.2, 0.0), (0.0, 0.3))]
    orders = make_orders(3, *([3] if is_own else []), n_rows=30)
    assert_weighted_epochs_end_where_separate_ones_end(plans, orders, 30, 30, False, twins=torch.arange(30) // 3)


@pytest.mark.parametrize("is_own", [False, True], ids=["shared", "own"])
def test_sparse_rows(is_own):
    orders = make_orders(2, *([3] if is_own else []), n_rows=35)
    plans = [plan_network(batch_norm=BatchNorm())] * 3
    assert_weighted_epochs_end_where_separate_ones_end(
        plans, orders, 8, 35, True, wrap=lambda X: scipy.sparse.csr_array(X.numpy())
    )
