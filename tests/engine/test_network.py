import pickle
from itertools import pairwise

import pytest
import torch
from engine_plans import CPU, SIZES, make_data, make_network, plan_network, run_pass

from skdnn.components import (
    ELU,
    GELU,
    INITIALIZERS,
    L1,
    L1L2,
    L2,
    BatchNorm,
    CallableActivation,
    CallableInitializer,
    Mish,
    ReLU,
    Tanh,
)
from skdnn.components.losses import BinaryCrossentropy, CategoricalCrossentropy
from skdnn.engine import Network, build_module
from skdnn.engine import network as network_file

DEEP = (5, 8, 7, 6, 5, 3)


def penalty_of(regularizer, kernel):
    l1 = getattr(regularizer, "l1", 0.0)
    l2 = getattr(regularizer, "l2", 0.0)
    return l1 * kernel.abs().sum() + l2 * kernel.square().sum() / 2


def oracle_gradients(network, k, X, y, criterion):
    """Autograd's gradients and the outputs of network `k` on one training batch, and the statistics after it."""
    module = build_module(network, k).train()
    outputs = module(X)
    total = criterion(outputs.squeeze(1), y.double()) if outputs.shape[1] == 1 else criterion(outputs, y)
    kernels = [parameter for parameter in module.parameters() if parameter.dim() == 2]
    for layer, kernel in zip(network.plans[k].layers, kernels, strict=True):
        total = total + penalty_of(layer.regularizer, kernel)
    return torch.autograd.grad(total, list(module.parameters())), outputs.detach()


DEEP_CASES = {
    "tanh": {"activation": Tanh()},
    "relu": {"activation": ReLU()},
    "gelu_l2": {"activation": GELU(), "regularizer": L2(0.05)},
    "callable": {"activation": CallableActivation(torch.sin)},  # one object in all layers, with the state of each
    "elu_norm_l1": {"activation": ELU(0.7), "batch_norm": BatchNorm(), "regularizer": L1(0.01)},
    "mish_norm_on_logits": {"activation": Mish(), "batch_norm": BatchNorm(output=True, epsilon=1e-3)},
    "callable_norm_l1_l2": {
        "activation": CallableActivation(torch.nn.Softsign),
        "batch_norm": BatchNorm(momentum=0.5),
        "regularizer": L1L2(0.02, 0.03),
    },
}


@pytest.mark.parametrize("case", DEEP_CASES.values(), ids=DEEP_CASES)
@pytest.mark.parametrize("n_networks", [1, 3])
@pytest.mark.parametrize("loss", [CategoricalCrossentropy(), BinaryCrossentropy()], ids=["multiclass", "binary"])
def test_gradient_is_autograds(case, n_networks, loss):
    is_binary = isinstance(loss, BinaryCrossentropy)
    plan = plan_network(sizes=(*DEEP[:-1], 1) if is_binary else DEEP, **case)
    network = make_network(*[plan] * n_networks)
    X, y = make_data(n_rows=12, n_classes=2 if is_binary else 3)
    before = network.snapshot()
    oracles = [oracle_gradients(network, k, X, y, loss.to_module()) for k in range(n_networks)]
    statistics = network.statistics.data.clone()  # the module has moved them: they are the network's own
    network.restore(before)
    network.gradient.fill_(torch.nan)
    outputs = run_pass(network, X, y, loss)
    for k, (gradients, expected) in enumerate(oracles):
        torch.testing.assert_close(outputs.view(n_networks, *expected.shape)[k], expected, rtol=1e-10, atol=1e-10)
        for gradient, oracle in zip(network.parameters.network(k, network.gradient), gradients, strict=True):
            torch.testing.assert_close(gradient, oracle, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(network.statistics.data, statistics, rtol=1e-10, atol=1e-10)


def test_mixed_penalties_in_lockstep_are_each_networks_own():
    regularizers = [L1(0.02), L2(0.03), L1L2(0.01, 0.04), None]
    network = make_network(*[plan_network(regularizer=regularizer) for regularizer in regularizers])
    X, y = make_data()
    oracles = [oracle_gradients(network, k, X, y, torch.nn.CrossEntropyLoss())[0] for k in range(4)]
    run_pass(network, X, y, CategoricalCrossentropy())
    for k, regularizer in enumerate(regularizers):
        for gradient, oracle in zip(network.parameters.network(k, network.gradient), oracles[k], strict=True):
            torch.testing.assert_close(gradient, oracle, rtol=1e-10, atol=1e-10)
        kernels = [tensor for tensor in network.parameters.network(k) if tensor.dim() == 2]
        expected = sum(penalty_of(regularizer, kernel) for kernel in kernels)
        torch.testing.assert_close(network.penalty()[k], torch.as_tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("n_networks", [1, 3])
@pytest.mark.parametrize("n_rows", [1, 7, 8, 23])
def test_prediction_in_blocks_is_prediction_at_once(monkeypatch, n_networks, n_rows):
    network = make_network(*[plan_network(batch_norm=BatchNorm(), dropout=0.5, input_dropout=0.3)] * n_networks)
    X, _ = make_data(n_rows)
    with torch.inference_mode():
        at_once = network.infer(X)
    monkeypatch.setattr(network_file, "_BLOCK_ELEMENTS", 8 * n_networks * max(a + b for a, b in pairwise(SIZES)))
    assert network.block_size == 8
    torch.testing.assert_close(network.predict(X), at_once, rtol=1e-12, atol=1e-12)


def test_a_block_has_at_least_a_row(monkeypatch):
    network = make_network(plan_network())
    monkeypatch.setattr(network_file, "_BLOCK_ELEMENTS", 1)
    X, _ = make_data(3)
    assert network.block_size == 1
    assert network.predict(X).shape == (3, 3)


def test_prediction_takes_any_dtype_and_leaves_x_alone():
    network = make_network(plan_network(), dtype=torch.float32)
    X, _ = make_data()
    before = X.clone()
    assert network.predict(X).dtype == torch.float32
    assert torch.equal(X, before)


@pytest.mark.parametrize("n_networks", [1, 3])
def test_pickle_round_trip(n_networks):
    network = make_network(*[plan_network(batch_norm=BatchNorm(), dropout=0.5)] * n_networks, dtype=torch.float32)
    network.statistics.data.add_(0.5)
    X, _ = make_data()
    again = pickle.loads(pickle.dumps(network))
    assert again.plans == network.plans
    assert again.dtype == torch.float32
    assert torch.equal(again.predict(X), network.predict(X))
    again.parameters.data.zero_()  # memory of its own, that layers see
    assert not torch.equal(again.predict(X), network.predict(X))


def test_restore_brings_parameters_and_statistics_back():
    network = make_network(plan_network(batch_norm=BatchNorm()))
    X, _ = make_data()
    snapshot, outputs = network.snapshot(), network.predict(X)
    network.parameters.data.add_(1.0)
    network.statistics.data.add_(1.0)
    network.restore(snapshot)
    assert torch.equal(network.predict(X), outputs)
    network.parameters.data.add_(1.0)
    assert not torch.equal(snapshot[0], network.parameters.data)


def initialized(plans, seeds, dtype=torch.float64):
    network = Network(plans, dtype, CPU)
    network.initialize(seeds)
    return network


@pytest.mark.parametrize("initializer", [make() for make in INITIALIZERS.values()], ids=INITIALIZERS)
def test_initial_kernels_follow_from_the_own_seed_alone(initializer):
    plan, other = plan_network(initializer=initializer), plan_network(initializer=INITIALIZERS["normal"](0.3))
    before = torch.get_rng_state()
    alone = initialized([plan], [5])
    among = initialized([other, plan, other], [1, 5, 2])
    assert torch.equal(torch.get_rng_state(), before)
    for tensor, same in zip(alone.parameters.network(0), among.parameters.network(1), strict=True):
        assert torch.equal(tensor, same)
    assert torch.equal(alone.parameters.data, initialized([plan], [5]).parameters.data)
    if initializer != INITIALIZERS["zeros"]():
        assert not torch.equal(alone.parameters.data, initialized([plan], [6]).parameters.data)


def test_initializing_with_a_callable_leaves_the_global_generator_alone():
    plan = plan_network(initializer=CallableInitializer(lambda kernel: torch.nn.init.normal_(kernel)))
    before = torch.get_rng_state()
    first, again = initialized([plan], [5]), initialized([plan], [5])
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.parameters.data, again.parameters.data)


def test_the_same_seed_starts_the_same_network_in_either_precision():
    double, single = (initialized([plan_network()], [5], dtype) for dtype in (torch.float64, torch.float32))
    assert torch.equal(double.parameters.data.float(), single.parameters.data)


def test_a_new_network_has_zero_biases_and_neutral_normalization():
    network = initialized([plan_network(batch_norm=BatchNorm())], [0])
    _, bias, scale, shift, *_ = network.parameters.network(0)
    mean, variance, *_ = network.statistics.network(0)
    assert bias.eq(0).all()
    assert scale.eq(1).all()
    assert shift.eq(0).all()
    assert mean.eq(0).all()
    assert variance.eq(1).all()


MISMATCHES = {
    "sizes": plan_network(sizes=(5, 7, 5, 3)),
    "depth": plan_network(sizes=(5, 7, 3)),
    "batch_norm": plan_network(batch_norm=BatchNorm()),
}


@pytest.mark.parametrize("plan", MISMATCHES.values(), ids=MISMATCHES)
def test_networks_of_other_shapes_are_refused(plan):
    with pytest.raises(ValueError, match="networks in lockstep need the same layer sizes, and batch norm in the same places"):
        Network([plan_network(), plan], torch.float32, CPU)
