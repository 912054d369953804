"""The layer that rounds its factors: any CPU computes it, those without instructions for it more slowly."""

import itertools
from dataclasses import replace

import pytest
import torch
from engine_plans import make_data, make_network, make_orders, plan_network, train
from layer_step import run_calls
from native_programs import needs_kernels

from skdnn.components import SGD, Adam, BatchNorm, ReLU
from skdnn.engine import Network, UpdatePlan, rounded, trainer
from skdnn.engine.layers import Dense
from skdnn.engine.program import compile_steps
from skdnn.engine.rounded import RoundedDense

N_ROWS, N_IN, N_OUT = 100, 1280, 512
HALF_UNIT = 2.0**-8  # the most that rounding to bfloat16 changes, relative

networks = pytest.mark.parametrize("n_networks", [1, 3])


@pytest.fixture
def rounds_all(monkeypatch):
    monkeypatch.setattr(rounded, "_PRODUCTS_THAT_PAY", 1)
    monkeypatch.setattr(rounded, "_ROWS_THAT_PAY", 1)


def draw(n_networks, *shape):
    leading = () if n_networks == 1 else (n_networks,)
    return torch.randn(*leading, *shape, generator=torch.Generator().manual_seed(sum(shape)))


def make_layer(cls, n_networks, **places):
    kernel, bias = draw(n_networks, N_OUT, N_IN), draw(n_networks, N_OUT)
    gradients = torch.full_like(kernel, torch.nan), torch.full_like(bias, torch.nan)
    return cls(kernel, bias, *gradients, n_networks, **places), kernel, bias, *gradients


def product(left, right):
    """What the product of rounded factors is, exactly."""
    return left.bfloat16().double() @ right.bfloat16().double()


def assert_rounded_once(actual, exact, n_terms):
    """Whether sums in float32 and one rounding explain the difference."""
    assert actual.dtype == torch.float32
    sums = n_terms * torch.finfo(torch.float32).eps * exact.abs().max()
    assert bool(((actual.double() - exact).abs() <= 1.01 * HALF_UNIT * exact.abs() + sums).all())


@networks
@pytest.mark.parametrize("is_shared", [True, False], ids=["shared", "own"])
def test_products_are_of_rounded_factors(n_networks, is_shared):
    layer, kernel, bias, kernel_gradient, _ = make_layer(RoundedDense, n_networks)
    x, gradient = draw(1 if is_shared else n_networks, N_ROWS, N_IN), draw(n_networks, N_ROWS, N_OUT)
    exact = product(x, kernel.mT)
    with torch.inference_mode():
        # The bias is added to the sum without being rounded.
        assert_rounded_once(run_calls(layer.forward(x)) - bias.unsqueeze(-2), exact, N_IN)
        input_gradient = run_calls(layer.backward(gradient))
    assert_rounded_once(kernel_gradient, product(gradient.mT, x), N_ROWS)
    assert_rounded_once(input_gradient, product(gradient, kernel), N_OUT)
    assert not torch.equal(input_gradient, gradient @ kernel)


@networks
@pytest.mark.parametrize("is_normalized", [True, False])
def test_all_but_the_products_is_that_of_float32(n_networks, is_normalized):
    x, gradient = draw(n_networks, N_ROWS, N_IN), draw(n_networks, N_ROWS, N_OUT)
    inferred, biases = [], []
    for cls in (Dense, RoundedDense):
        layer, _, _, _, bias_gradient = make_layer(cls, n_networks, is_first=True, is_normalized=is_normalized)
        with torch.inference_mode():
            run_calls(layer.forward(x))
            assert run_calls(layer.backward(gradient.clone())) is None
            inferred.append(layer.infer(x))
        biases.append(bias_gradient)
    assert torch.equal(*inferred)
    assert torch.equal(*biases)


@pytest.mark.parametrize(("n_rows", "is_rounded"), [(N_ROWS, True), (N_ROWS - 1, False), (1, False)])
def test_what_does_not_pay_is_not_rounded(n_rows, is_rounded):
    x, gradient = draw(1, n_rows, N_IN), draw(1, n_rows, N_OUT)
    found = []
    for cls in (Dense, RoundedDense):
        layer, _, _, kernel_gradient, _ = make_layer(cls, 1)
        with torch.inference_mode():
            found.append([run_calls(layer.forward(x)), run_calls(layer.backward(gradient)), kernel_gradient])
    assert all(torch.equal(a, b) != is_rounded for a, b in zip(*found, strict=True))


def test_small_products_of_many_rows_are_not_rounded():
    layer = RoundedDense(torch.ones(10, 10), torch.ones(10), torch.ones(10, 10), torch.ones(10), 1)
    x = draw(1, 1000, 10)
    with torch.inference_mode():
        torch.testing.assert_close(run_calls(layer.forward(x)), layer.infer(x))


def make_rounded(*plans, seeds=None, **settings):
    plans = plans or [plan_network(**settings)]
    return make_network(*(replace(plan, rounds_products=True) for plan in plans), dtype=torch.float32, seeds=seeds)


@pytest.mark.usefixtures("rounds_all")
def test_steps_that_bfloat16_cannot_hold_add_up():
    network = make_rounded(activation=ReLU())
    network.parameters.data.fill_(1.0)
    X, y = make_data(dtype=torch.float32)
    before = network.snapshot()[0]
    train(network, X.abs(), y, make_orders(4, n_rows=40), [1e-4])
    moved = network.parameters.data - before
    assert network.parameters.data.dtype == torch.float32
    assert bool((moved != 0.0).any())
    assert float(moved.abs().max()) < HALF_UNIT  # in bfloat16 all would still be 1
    assert torch.equal(network.parameters.data.bfloat16().float(), before)


@pytest.mark.usefixtures("rounds_all")
@pytest.mark.parametrize("settings", [{}, {"batch_norm": BatchNorm(), "dropout": 0.2}], ids=["plain", "rich"])
@pytest.mark.parametrize("own_batches", [False, True])
@pytest.mark.parametrize("optimizer", [SGD(), Adam()], ids=repr)
def test_lockstep_ends_where_each_ends_alone(settings, own_batches, optimizer):
    sizes, rates, seeds = (20, 24, 17, 3), [0.01, 0.002, 0.03], [11, 5, 8]
    X, y = make_data(50, 20, dtype=torch.float32)
    orders = make_orders(2, *([3] if own_batches else []), n_rows=50)
    plan, updates = plan_network(sizes, **settings), [UpdatePlan(optimizer)] * 3
    together = make_rounded(plan, plan, plan, seeds=seeds)
    train(together, X, y, orders, rates, updates)
    for k in range(3):
        alone = make_rounded(plan, seeds=seeds[k : k + 1])
        own = [order[k] if own_batches else order for order in orders]
        train(alone, X, y, own, rates[k : k + 1], updates[:1])
        for mine, theirs in zip(together.parameters.network(k), alone.parameters.network(0), strict=True):
            assert torch.equal(mine, theirs)


def test_networks_of_other_products_are_not_put_together():
    plan = plan_network()
    with pytest.raises(ValueError, match="need the same products"):
        Network([plan, replace(plan, rounds_products=True)], torch.float32, torch.device("cpu"))


@needs_kernels
@pytest.mark.parametrize("is_large", [False, True], ids=["small", "large"])
def test_only_steps_of_products_that_are_rounded_are_torchs(is_large, request, monkeypatch):
    if is_large:
        request.getfixturevalue("rounds_all")
    made = []
    monkeypatch.setattr(trainer, "compile_steps", lambda *args: made.append(compile_steps(*args)) or made[-1])
    monkeypatch.setattr(trainer.torch, "get_num_threads", lambda: 1)
    X, y = make_data(dtype=torch.float32)
    train(make_rounded(), X, y, make_orders(2, n_rows=40), [0.1])
    assert [run is None for run in made] == [is_large]


@pytest.mark.usefixtures("rounds_all")
def test_training_comes_to_what_float32_comes_to():
    X, y = make_data(400, dtype=torch.float32)
    losses = []
    for network in (make_network(plan_network(), dtype=torch.float32), make_rounded()):
        losses.append(torch.cat(train(network, X, y, make_orders(10, n_rows=400), [0.5])))
    torch.testing.assert_close(*losses, rtol=0.01, atol=0.0)
    assert all(bool((a != b).all()) for a, b in itertools.pairwise(losses))
