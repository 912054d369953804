import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from engine_plans import make_data, make_network, make_orders, plan_network

from skdnn import MLPDeepClassifier
from skdnn.components import (
    ACTIVATIONS,
    ELU,
    L1,
    L1L2,
    L2,
    OPTIMIZERS,
    SGD,
    Adam,
    BatchNorm,
    CallableActivation,
    ClipNorm,
    ClipValue,
    MaxNorm,
    Momentum,
    TorchOptimizer,
)
from skdnn.components.losses import CategoricalCrossentropy, SquaredError
from skdnn.engine import Trainer, Update, UpdatePlan, script, trainer

RATE = 0.02

# Rules whose numbers change from step to step in ways that a script does not know.
OF_PYTHON = {"adamw", "nadam", "adamax"}


@pytest.fixture
def scripts(monkeypatch):
    """Scripts from the first step on, and a list of those that were made."""
    made = []

    def compile_steps(*args):
        made.append(script.compile_steps(*args))
        return made[-1]

    monkeypatch.setattr(trainer, "_STEPS_BEFORE_SCRIPT", 1)
    monkeypatch.setattr(trainer, "compile_steps", compile_steps)
    return made


def train(is_scripted, plan, update_plan, monkeypatch, loss=None, dtype=torch.float32, rates=None, n_rows=43, **kwargs):
    """Losses, weights, statistics and the rule's state after some epochs."""
    with monkeypatch.context() as patch:
        if not is_scripted:
            patch.setattr(trainer, "_STEPS_BEFORE_SCRIPT", 10**9)
        network = make_network(plan, dtype=dtype)
        update = Update(network, [update_plan])
        X, y = make_data(n_rows=n_rows, dtype=dtype)
        if isinstance(loss, SquaredError):
            y = torch.stack([y, y + 1, y * 2], 1).to(dtype)
        own = Trainer(network, update, loss or CategoricalCrossentropy(), 8)
        losses = []
        for order in make_orders(4, n_rows=n_rows):
            n = own.n_updates(n_rows)
            losses.append(own.run_epoch(X, y, order, rates or [RATE] * n, **kwargs))
    return [*losses, network.parameters.data, network.statistics.data, *update.state_tensors()], update.n_updates


def assert_same(plan, update_plan, monkeypatch, **kwargs):
    expected, n_expected = train(False, plan, update_plan, monkeypatch, **kwargs)
    got, n_got = train(True, plan, update_plan, monkeypatch, **kwargs)
    assert n_got == n_expected
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_a_script_makes_the_steps_of_every_optimizer_to_the_bit(name, dtype, scripts, monkeypatch):
    assert_same(plan_network(), UpdatePlan(OPTIMIZERS[name]()), monkeypatch, dtype=dtype)
    assert any(scripts) == (name not in OF_PYTHON)


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_a_script_makes_the_steps_of_every_activation_to_the_bit(name, scripts, monkeypatch):
    assert_same(plan_network(activation=ACTIVATIONS[name]()), UpdatePlan(Momentum()), monkeypatch)
    assert all(scripts)


@pytest.mark.parametrize(
    ("techniques", "update_plan"),
    [
        ({"batch_norm": BatchNorm(output=True)}, UpdatePlan(Adam())),
        ({"dropout": 0.5, "input_dropout": 0.25}, UpdatePlan(SGD())),
        ({"regularizer": L1(1e-2)}, UpdatePlan(SGD())),
        ({"regularizer": L2(1e-2)}, UpdatePlan(SGD())),
        ({"regularizer": L1L2(1e-2, 1e-2)}, UpdatePlan(SGD())),
        ({"constraint": MaxNorm(0.5)}, UpdatePlan(SGD())),
        ({"constraint": MaxNorm(0.5, axis="outgoing")}, UpdatePlan(SGD())),
        ({}, UpdatePlan(SGD(), ClipNorm(0.1))),
        ({}, UpdatePlan(SGD(), ClipValue(0.01))),
        (
            {
                "activation": ELU(),
                "batch_norm": BatchNorm(),
                "dropout": 0.25,
                "regularizer": L1L2(1e-3, 1e-3),
                "constraint": MaxNorm(),
            },
            UpdatePlan(Adam(), ClipNorm(1.0)),
        ),
    ],
    ids=str,
)
def test_a_script_makes_the_steps_of_every_technique_to_the_bit(techniques, update_plan, scripts, monkeypatch):
    assert_same(plan_network(**techniques), update_plan, monkeypatch)
    assert len(scripts) == 2  # of full batches and of the last one
    assert all(scripts)


def test_rates_that_move_with_every_update_are_followed(scripts, monkeypatch):
    assert_same(plan_network(), UpdatePlan(Momentum()), monkeypatch, rates=[0.1, 0.05, 0.02, 0.01, 0.3, 0.2])
    assert all(scripts)


def test_a_technique_with_the_learning_rate_s_value_stays_what_it_is(scripts, monkeypatch):
    assert_same(plan_network(regularizer=L2(RATE)), UpdatePlan(Momentum(RATE)), monkeypatch, rates=[0.1, RATE] * 3)
    assert all(scripts)


@pytest.mark.parametrize("batch_norm", [None, BatchNorm()])
def test_weights_of_rows_are_followed(batch_norm, scripts, monkeypatch):
    weights = torch.linspace(0.5, 2.0, 43).view(-1, 1)
    plan = plan_network(batch_norm=batch_norm)
    assert_same(plan, UpdatePlan(SGD()), monkeypatch, weights=weights, sample_weight=weights.flip(0))
    assert all(scripts)


def test_targets_of_a_regression_are_followed(scripts, monkeypatch):
    assert_same(plan_network(), UpdatePlan(SGD()), monkeypatch, loss=SquaredError())
    assert all(scripts)


def test_epochs_of_one_batch_are_followed(scripts, monkeypatch):
    assert_same(plan_network(), UpdatePlan(Adam()), monkeypatch, n_rows=8)
    assert len(scripts) == 1
    assert all(scripts)


class EveryOtherStep(SGD):
    """A rule that no comparison of two steps could know."""

    def update(self, parameters, gradient, state, learning_rate, step):
        if step % 5:
            super().update(parameters, gradient, state, learning_rate, step)


@pytest.mark.parametrize(
    ("techniques", "update_plan"),
    [
        ({"activation": CallableActivation(torch.sin)}, UpdatePlan(SGD())),
        ({}, UpdatePlan(TorchOptimizer(torch.optim.RAdam))),
        ({}, UpdatePlan(EveryOtherStep())),
    ],
    ids=["activation", "torch optimizer", "own rule"],
)
def test_what_users_wrote_is_called_for_every_step(techniques, update_plan, scripts, monkeypatch):
    expected, _ = train(False, plan_network(**techniques), update_plan, monkeypatch)
    got, _ = train(True, plan_network(**techniques), update_plan, monkeypatch)
    assert not scripts
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


def test_large_networks_are_left_to_python(scripts, monkeypatch):
    monkeypatch.setattr(trainer, "_SCRIPT_PARAMETERS", 10)
    train(True, plan_network(), UpdatePlan(SGD()), monkeypatch)
    assert not scripts


# What is compiled, one step of which adds to `total`.


def compile_addition(step, total):
    before = total.clone()
    with torch.inference_mode():
        run = script.compile_steps(step, 4, [{"total": total}], 10)
    assert torch.equal(total, before)
    return run


def test_a_script_follows_batch_rate_and_number():
    total, batches = torch.zeros(3), torch.arange(12.0).view(4, 3).unbind(0)

    def step(i, rate, n):
        total.add_(batches[i], alpha=-rate)
        total.add_(n)

    run = compile_addition(step, total)
    with torch.inference_mode():
        run([0.5, 2.0, 1.0, 0.25], 10)
    expected = -(0.5 * batches[0] + 2.0 * batches[1] + batches[2] + 0.25 * batches[3]) + (11 + 12 + 13 + 14)
    torch.testing.assert_close(total, expected)


def of_a_decision(total):
    def step(i, rate, n):
        if total.sum() > 0:
            total.zero_()
        total.add_(1.0)

    return step


def of_chance(total):
    generator = torch.Generator().manual_seed(0)
    return lambda i, rate, n: total.add_(torch.empty(3).normal_(generator=generator))


def of_a_number_of_its_own(total):
    return lambda i, rate, n: total.add_(2.0**n)


def of_memory_elsewhere(total):
    batches = [torch.ones(3), torch.ones(3), torch.ones(3), torch.ones(3)]
    return lambda i, rate, n: total.add_(batches[i])


def of_other_kernels(total):
    return lambda i, rate, n: total.add_(1.0) if i else total.mul_(2.0)


@pytest.mark.parametrize("of", [of_a_decision, of_chance, of_a_number_of_its_own, of_memory_elsewhere, of_other_kernels])
def test_steps_that_are_more_than_kernels_over_static_memory_have_no_script(of):
    total = torch.zeros(3)
    assert compile_addition(of(total), total) is None


def test_a_script_that_would_do_something_else_is_not_used(monkeypatch):
    monkeypatch.setattr(script, "_compile", lambda source: lambda shared, lists, batches, rates, n: shared[0].add_(1e-3))
    total = torch.zeros(3)
    assert compile_addition(lambda i, rate, n: total.add_(1.0), total) is None


def test_a_torch_without_scripts_trains_in_python(monkeypatch):
    script._compile.cache_clear()
    monkeypatch.delattr(torch.jit, "CompilationUnit")
    total = torch.zeros(3)
    assert compile_addition(lambda i, rate, n: total.add_(1.0), total) is None


# Fits.

X = np.random.default_rng(0).normal(size=(200, 6)).astype(np.float32)
Y = (X[:, 0] * X[:, 1] > 0).astype(int)


def fit(**params):
    params = {"hidden_layer_sizes": (8,), "batch_size": 16, "max_iter": 10, "n_iter_no_change": 10, "random_state": 0} | params
    return MLPDeepClassifier(**params).fit(X, Y)


def test_fits_are_the_same_with_and_without_scripts(scripts, monkeypatch):
    scripted = fit(early_stopping=True, learning_rate="exponential")
    assert all(scripts)
    monkeypatch.setattr(trainer, "_STEPS_BEFORE_SCRIPT", 10**9)
    plain = fit(early_stopping=True, learning_rate="exponential")
    assert scripted.loss_curve_ == plain.loss_curve_
    assert all(np.array_equal(a, b) for a, b in zip(scripted.coefs_, plain.coefs_, strict=True))


def test_threads_share_scripts(scripts):
    expected = fit()
    fitted = [None] * 4

    def run(i):
        fitted[i] = fit()

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(fitted))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for other in fitted:
        assert all(np.array_equal(a, b) for a, b in zip(other.coefs_, expected.coefs_, strict=True))


def test_scripts_leave_torch_s_compiler_where_it_is():
    code = """
import sys, warnings
import numpy as np
warnings.simplefilter("error")
from skdnn import MLPDeepClassifier
from skdnn.engine import trainer
trainer._STEPS_BEFORE_SCRIPT = 1
X = np.eye(20, dtype=np.float32)
MLPDeepClassifier((4,), batch_size=4, max_iter=3, n_iter_no_change=3).fit(X, np.arange(20) % 2)
print(sorted({"torch._dynamo", "sympy"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
