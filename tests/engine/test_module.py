import pytest
import torch
from engine_plans import make_data, make_network, plan_network

from skdnn.components import ELU, BatchNorm, CallableActivation
from skdnn.engine import build_module

PLANS = {
    "plain": plan_network(),
    "batch_norm": plan_network(activation=ELU(0.5), batch_norm=BatchNorm(momentum=0.8, epsilon=1e-3)),
    "batch_norm_on_logits": plan_network(batch_norm=BatchNorm(output=True)),
    "dropout": plan_network(dropout=0.5, input_dropout=0.2),
    "callable": plan_network(activation=CallableActivation(torch.sin)),
}


def with_statistics(network):
    network.statistics.data.copy_(torch.linspace(0.5, 2.0, len(network.statistics.data)))
    return network


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
@pytest.mark.parametrize("n_networks", [1, 3])
def test_module_predicts_what_the_network_predicts(plan, n_networks):
    network = with_statistics(make_network(*[plan] * n_networks))
    X, _ = make_data()
    outputs = network.predict(X).view(n_networks, len(X), -1)
    for k in range(n_networks):
        module = build_module(network, k)
        assert isinstance(module, torch.nn.Sequential)
        assert not any(part.training for part in module.modules())
        with torch.no_grad():
            torch.testing.assert_close(module(X), outputs[k], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("n_networks", [1, 3])
def test_module_and_network_are_one_memory(n_networks):
    network = make_network(*[PLANS["batch_norm"]] * n_networks)
    for k in range(n_networks):
        module = build_module(network, k)
        parameters = list(module.parameters())
        assert all(parameter.requires_grad for parameter in parameters)
        for parameter, tensor in zip(parameters, network.parameters.network(k), strict=True):
            assert parameter.data_ptr() == tensor.data_ptr()
            assert parameter.shape == tensor.shape
        running = [buffer for name, buffer in module.named_buffers() if "running" in name]
        for buffer, tensor in zip(running, network.statistics.network(k), strict=True):
            assert buffer.data_ptr() == tensor.data_ptr()


def test_training_the_module_trains_the_network():
    network = make_network(PLANS["batch_norm"])
    X, y = make_data()
    module = build_module(network).train()
    before = network.snapshot()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    torch.nn.functional.cross_entropy(module(X), y).backward()
    optimizer.step()
    assert not torch.equal(network.parameters.data, before[0])
    assert not torch.equal(network.statistics.data, before[1])
    with torch.no_grad():
        torch.testing.assert_close(module.eval()(X), network.predict(X), rtol=1e-12, atol=1e-12)


def test_building_draws_nothing():
    network = make_network(plan_network(dropout=0.5, input_dropout=0.2, batch_norm=BatchNorm()))
    before = torch.get_rng_state()
    build_module(network)
    assert torch.equal(torch.get_rng_state(), before)


def test_dropout_rates_are_those_of_the_network_asked_for():
    network = make_network(plan_network(dropout=0.5), plan_network(), plan_network(dropout=0.2, input_dropout=0.1))
    rates = [[part.p for part in build_module(network, k) if isinstance(part, torch.nn.Dropout)] for k in range(3)]
    assert rates == [[0.5, 0.5], [], [0.1, 0.2, 0.2]]


def test_module_can_be_built_under_inference_mode_and_trained_after():
    network = make_network(PLANS["plain"])
    X, y = make_data()
    with torch.inference_mode():
        network.infer(X)
    module = build_module(network).train()
    torch.nn.functional.cross_entropy(module(X), y).backward()
    assert all(parameter.grad is not None for parameter in module.parameters())
