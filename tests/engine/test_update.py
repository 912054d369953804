import pytest
import torch
from engine_plans import make_network, plan_network

from skdnn.components import L1, L2, OPTIMIZERS, SGD, Adam, AMSGrad, ClipNorm, ClipValue, MaxNorm, Momentum, TorchOptimizer
from skdnn.engine import Update, UpdatePlan


def set_gradient(network, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    network.gradient.copy_(scale * torch.randn(network.gradient.shape, generator=generator, dtype=torch.float64))


def step(update, rate):
    with torch.inference_mode():
        update.step(rate)


@pytest.mark.parametrize("clipping", [None, ClipNorm(0.5), ClipValue(0.1)], ids=repr)
@pytest.mark.parametrize("max_norm", [None, 0.4])
@pytest.mark.parametrize("regularizer", [None, L1(0.3), L2(0.3)], ids=repr)
def test_penalty_then_clipping_then_rule_then_projection(clipping, max_norm, regularizer):
    constraint = None if max_norm is None else MaxNorm(max_norm)
    network = make_network(plan_network(regularizer=regularizer, constraint=constraint))
    set_gradient(network)
    parameters = [tensor.clone().requires_grad_() for tensor in network.parameters.network(0)]
    for parameter, gradient in zip(parameters, network.parameters.network(0, network.gradient), strict=True):
        parameter.grad = gradient.clone()
        if parameter.dim() == 2 and regularizer is not None:
            if isinstance(regularizer, L1):
                (0.3 * parameter.abs().sum()).backward()
            else:
                (0.15 * parameter.square().sum()).backward()
    if isinstance(clipping, ClipNorm):
        torch.nn.utils.clip_grad_norm_(parameters, clipping.max_norm)
    elif clipping is not None:
        torch.nn.utils.clip_grad_value_(parameters, clipping.value)
    torch.optim.SGD(parameters, lr=0.1).step()
    update = Update(network, [UpdatePlan(SGD(), clipping)])
    step(update, 0.1)
    assert update.n_updates == 1
    for index, (tensor, expected) in enumerate(zip(network.parameters.network(0), parameters, strict=True)):
        expected = expected.detach()
        if max_norm is not None and index in (0, 2):  # the hidden kernels
            expected = expected * (max_norm / expected.norm(dim=1, keepdim=True)).clamp(max=1.0)
        torch.testing.assert_close(tensor, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("optimizer", [Momentum(), Adam(), TorchOptimizer(torch.optim.RMSprop)], ids=repr)
def test_rates_that_differ_and_change_reach_each_network(optimizer):
    population = make_network(*[plan_network()] * 3)
    alone = [make_network(plan_network(), seeds=[k]) for k in range(3)]
    update = Update(population, [UpdatePlan(optimizer)] * 3)
    updates = [Update(network, [UpdatePlan(optimizer)]) for network in alone]
    shared = (0.1, 0.1, 0.3)
    schedule = [0.02, shared, shared, (0.3, 0.1, 0.0), 0.05, shared]
    for n, rates in enumerate(schedule):
        set_gradient(population, seed=n)
        for k, network in enumerate(alone):
            own = population.parameters.network(k, population.gradient)
            for target, source in zip(network.parameters.network(0, network.gradient), own, strict=True):
                target.copy_(source)
            step(updates[k], rates[k] if isinstance(rates, tuple) else rates)
        step(update, rates)
    for k, network in enumerate(alone):
        for tensor, expected in zip(population.parameters.network(k), network.parameters.network(0), strict=True):
            assert torch.equal(tensor, expected)


# Techniques that differ in class, or that only some networks have.
MIXED = {
    "optimizers": [UpdatePlan(optimizer) for optimizer in (SGD(), Adam(), Adam(0.5), SGD(), AMSGrad())],
    "torch": [UpdatePlan(SGD()), UpdatePlan(TorchOptimizer(torch.optim.Adagrad)), UpdatePlan(TorchOptimizer(torch.optim.SGD))],
    "clippings": [UpdatePlan(SGD(), clipping) for clipping in (ClipNorm(0.5), ClipNorm(2.0), None, ClipValue(0.1), ClipNorm())],
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("plans", MIXED.values(), ids=MIXED)
def test_techniques_of_several_classes_update_each_network_as_it_is_alone_bit_for_bit(plans, dtype):
    n_networks, rates = len(plans), (0.1, 0.1, 0.2, 0.2, 0.1)[: len(plans)]
    techniques = [{}, {"regularizer": L1(0.1)}, {"regularizer": L2(0.2), "constraint": MaxNorm(0.5)}, {"constraint": MaxNorm()}]
    networks = [plan_network(**techniques[k % 4]) for k in range(n_networks)]
    population = make_network(*networks, dtype=dtype)
    alone = [make_network(network, dtype=dtype, seeds=[k]) for k, network in enumerate(networks)]
    update = Update(population, plans)
    updates = [Update(network, [plan]) for network, plan in zip(alone, plans, strict=True)]
    for n in range(4):
        set_gradient(population, seed=n)
        for k, network in enumerate(alone):
            network.gradient.copy_(population.parameters.rows(slice(k, k + 1), population.gradient))
            step(updates[k], rates[k])
        step(update, rates)
    for k, network in enumerate(alone):
        for tensor, expected in zip(population.parameters.network(k), network.parameters.network(0), strict=True):
            assert torch.equal(tensor, expected)


@pytest.mark.parametrize("first_has_it", [True, False])
def test_an_argument_that_one_torch_optimizer_has_does_not_reach_its_neighbours(first_has_it):
    plain, heavy = TorchOptimizer(torch.optim.SGD), TorchOptimizer(torch.optim.SGD, weight_decay=0.5)
    optimizers = [heavy, plain] if first_has_it else [plain, heavy]
    population = make_network(*[plan_network()] * 2)
    before = [[tensor.clone() for tensor in population.parameters.network(k)] for k in range(2)]
    population.gradient.zero_()
    step(Update(population, [UpdatePlan(optimizer) for optimizer in optimizers]), 0.1)
    for k, optimizer in enumerate(optimizers):
        factor = 0.95 if optimizer is heavy else 1.0
        for tensor, start in zip(population.parameters.network(k), before[k], strict=True):
            torch.testing.assert_close(tensor, start * factor)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_updates_with_the_numbers_of_the_next_ones_are_steps(name):
    rates = [0.1, 0.02, 0.3]
    plan = plan_network(regularizer=L2(0.1), constraint=MaxNorm(0.8))
    networks = [make_network(plan) for _ in range(2)]
    updates = [Update(network, [UpdatePlan(OPTIMIZERS[name](), ClipNorm(0.5))]) for network in networks]
    for network, update in zip(networks, updates, strict=True):
        set_gradient(network)
        step(update, 0.1)
    numbers = updates[0].next_coefficients(rates).tolist()
    assert updates[0].n_updates == 1
    assert numbers == [list(updates[0].coefficients(rate, n)) for n, rate in enumerate(rates, 2)]
    for seed, (rate, own) in enumerate(zip(rates, numbers, strict=True)):
        for network in networks:
            set_gradient(network, seed)
        with torch.inference_mode():
            updates[0].apply(own)
        step(updates[1], rate)
        assert torch.equal(*(network.parameters.data for network in networks))
