import copy
import pickle

import pytest
import torch
from sklearn.base import clone

import skdnn.components
from skdnn.components import OPTIMIZERS, Momentum, Nesterov, RMSProp, TorchOptimizer
from skdnn.components.optimizers import resolve_optimizer

N_STEPS = 50
N = 23
START = torch.randn(N, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
# Of very different sizes, some exactly 0.
GRADIENTS = torch.randn(N_STEPS, N, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
GRADIENTS *= torch.logspace(-4, 2, N, dtype=torch.float64)
GRADIENTS[::7, ::3] = 0.0
CONSTANT = [0.01] * N_STEPS
DECAYING = [0.02 * 0.93**t for t in range(N_STEPS)]


def adam_kwargs(beta_1=0.9, beta_2=0.999, epsilon=1e-8, **others):
    return {"betas": (beta_1, beta_2), "eps": epsilon, **others}


# Torch's rule for a rule's own parameters.
ORACLE = {
    "sgd": lambda p: torch.optim.SGD(p, lr=1.0),
    "momentum": lambda p, momentum=0.9: torch.optim.SGD(p, lr=1.0, momentum=momentum),
    "nesterov": lambda p, momentum=0.9: torch.optim.SGD(p, lr=1.0, momentum=momentum, nesterov=momentum > 0),
    "adagrad": lambda p, initial_accumulator_value=0.0, epsilon=1e-10: torch.optim.Adagrad(
        p, eps=epsilon, initial_accumulator_value=initial_accumulator_value
    ),
    "rmsprop": lambda p, rho=0.9, epsilon=1e-8: torch.optim.RMSprop(p, alpha=rho, eps=epsilon),
    "adam": lambda p, **kwargs: torch.optim.Adam(p, **adam_kwargs(**kwargs)),
    "adamw": lambda p, weight_decay=0.01, **kwargs: torch.optim.AdamW(p, **adam_kwargs(**kwargs), weight_decay=weight_decay),
    "nadam": lambda p, momentum_decay=4e-3, **kwargs: torch.optim.NAdam(
        p, **adam_kwargs(**kwargs), momentum_decay=momentum_decay
    ),
    "adamax": lambda p, **kwargs: torch.optim.Adamax(p, **adam_kwargs(**kwargs)),
    "amsgrad": lambda p, **kwargs: torch.optim.Adam(p, **adam_kwargs(**kwargs), amsgrad=True),
}
# Two settings of each rule, other than its defaults, that differ in every number.
SETTINGS = {
    "sgd": [{}, {}],
    "momentum": [{"momentum": 0.0}, {"momentum": 0.99}],
    "nesterov": [{"momentum": 0.0}, {"momentum": 0.99}],
    "adagrad": [{"initial_accumulator_value": 0.1, "epsilon": 1e-7}, {"initial_accumulator_value": 0.0, "epsilon": 1e-3}],
    "rmsprop": [{"rho": 0.0, "epsilon": 1e-7}, {"rho": 0.99, "epsilon": 1e-3}],
    "adam": [{"beta_1": 0.0, "beta_2": 0.9, "epsilon": 1e-7}, {"beta_1": 0.5, "beta_2": 0.99, "epsilon": 1e-3}],
    "adamw": [
        {"beta_1": 0.8, "beta_2": 0.9, "epsilon": 1e-7, "weight_decay": 0.0},
        {"beta_1": 0.5, "beta_2": 0.99, "epsilon": 1e-3, "weight_decay": 0.3},
    ],
    "nadam": [
        {"beta_1": 0.8, "beta_2": 0.9, "epsilon": 1e-7, "momentum_decay": 0.0},
        {"beta_1": 0.5, "beta_2": 0.99, "epsilon": 1e-3, "momentum_decay": 0.1},
    ],
    "adamax": [{"beta_1": 0.0, "beta_2": 0.9, "epsilon": 1e-7}, {"beta_1": 0.5, "beta_2": 0.99, "epsilon": 1e-3}],
    "amsgrad": [{"beta_1": 0.0, "beta_2": 0.9, "epsilon": 1e-7}, {"beta_1": 0.5, "beta_2": 0.99, "epsilon": 1e-3}],
}
CASES = [(name, setting) for name, settings in SETTINGS.items() for setting in [{}, *settings]]


def make_step(rule, parameters, gradient, state, rate, step):
    rule.update(parameters, gradient.clone(), state, *rule.coefficients(rate, step))  # the gradient may be used as scratch


def trajectory(rule, rates):
    """The parameters after each step."""
    parameters = START.clone()
    state = rule.init_state(parameters)
    path = []
    for step, (gradient, rate) in enumerate(zip(GRADIENTS, rates, strict=True), start=1):
        make_step(rule, parameters, gradient, state, rate, step)
        path.append(parameters.clone())
    return torch.stack(path)


def torch_trajectory(make, rates):
    # Torch keeps NAdam's product of momenta in the default dtype; rounded to float32 it would be off by up to 1e-7.
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        return _torch_trajectory(make, rates)
    finally:
        torch.set_default_dtype(before)


def _torch_trajectory(make, rates):
    parameters = START.clone().requires_grad_()
    optimizer = make([parameters])
    path = []
    for gradient, rate in zip(GRADIENTS, rates, strict=True):
        parameters.grad = gradient.clone()
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
        path.append(parameters.detach().clone())
    return torch.stack(path)


def test_oracle_is_complete():
    assert set(ORACLE) == set(OPTIMIZERS) == set(SETTINGS)


@pytest.mark.parametrize(("name", "setting"), CASES)
def test_trajectory_is_torchs(name, setting):
    rule = OPTIMIZERS[name](**setting)
    attributes = dict(vars(rule))
    path = trajectory(rule, CONSTANT)
    torch.testing.assert_close(path, torch_trajectory(lambda p: ORACLE[name](p, **setting), CONSTANT), rtol=1e-10, atol=1e-10)
    assert vars(rule) == attributes  # the state is the engine's


@pytest.mark.parametrize(("name", "setting"), [case for case in CASES if case[0] not in ("momentum", "nesterov")])
def test_trajectory_is_torchs_at_a_changing_rate(name, setting):
    path = trajectory(OPTIMIZERS[name](**setting), DECAYING)
    torch.testing.assert_close(path, torch_trajectory(lambda p: ORACLE[name](p, **setting), DECAYING), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9])
def test_momentum_follows_the_chapter_at_a_changing_rate(beta):
    theta, m, path = START.clone(), torch.zeros(N, dtype=torch.float64), []
    for gradient, eta in zip(GRADIENTS, DECAYING, strict=True):
        m = beta * m - eta * gradient
        theta = theta + m
        path.append(theta)
    torch.testing.assert_close(trajectory(Momentum(beta), DECAYING), torch.stack(path), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9])
def test_nesterov_follows_the_chapter_on_a_function(beta):
    # The chapter holds theta and takes the gradient ahead of it; the rule holds the point ahead.
    matrix = torch.randn(N, N, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    def gradient_at(point):
        leaf = point.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(torch.log(torch.cosh(matrix @ leaf)).sum(), leaf)
        return gradient

    theta, m = START.clone(), torch.zeros(N, dtype=torch.float64)
    rule, held = Nesterov(beta), START.clone()
    state = rule.init_state(held)
    for step, eta in enumerate(DECAYING, start=1):
        m = beta * m - eta * gradient_at(theta + beta * m)
        theta = theta + m
        make_step(rule, held, gradient_at(held), state, eta, step)
        torch.testing.assert_close(held, theta + beta * m, rtol=1e-10, atol=1e-10)


def test_rho_is_torchs_alpha_and_defaults_to_the_chapters():
    assert RMSProp().rho == 0.9
    path = trajectory(RMSProp(rho=0.99), CONSTANT)
    torch.testing.assert_close(path, torch_trajectory(torch.optim.RMSprop, CONSTANT), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_networks_in_lockstep_end_where_each_ends_alone_bit_for_bit(name, dtype):
    rule, generator = OPTIMIZERS[name](), torch.Generator().manual_seed(0)
    together = torch.randn(3, 48, generator=generator, dtype=dtype)[:, :37]  # network by network, with a gap between
    alone = [row.clone() for row in together]
    state, states = rule.init_state(together), [rule.init_state(row) for row in alone]
    for step in range(1, 6):
        gradients = torch.randn(3, 37, generator=generator, dtype=dtype)
        for k in range(3):
            make_step(rule, alone[k], gradients[k], states[k], 0.1 / step, step)
        make_step(rule, together, gradients, state, 0.1 / step, step)
    assert torch.equal(together, torch.stack(alone))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_what_changes_from_step_to_step_is_a_tuple_of_numbers(name):
    coefficients = OPTIMIZERS[name]().coefficients(0.01, 3)
    assert isinstance(coefficients, tuple)
    assert all(isinstance(number, float | int) for number in coefficients)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_table_has_the_numbers_of_each_step(name):
    rule, rates = OPTIMIZERS[name](), [0.1, 0.02, 0.3]
    table = rule.table_of_coefficients(iter(rates), 5)
    assert table.tolist() == [list(rule.coefficients(rate, step)) for step, rate in enumerate(rates, 5)]


def test_rules_of_a_kind_differ_in_their_coefficients_only():
    assert Momentum(0.5).kind == Momentum(0.9).kind
    assert Momentum(0.5).kind != Nesterov(0.5).kind
    assert RMSProp(0.9).kind == RMSProp(0.9).kind
    assert RMSProp(0.9).kind != RMSProp(0.5).kind
    assert Momentum(0.5).coefficients(0.1, 3) == (0.1, 3, 0.5)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_update_works_under_inference_mode_on_ordinary_tensors(name):
    expected = trajectory(OPTIMIZERS[name](), CONSTANT)
    with torch.inference_mode():
        assert torch.equal(trajectory(OPTIMIZERS[name](), CONSTANT), expected)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_state_is_made_of_tensors_that_can_be_copied_in_the_middle(name):
    rule, parameters = OPTIMIZERS[name](), START.clone()
    state = rule.init_state(parameters)
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    for step in range(1, 11):
        make_step(rule, parameters, GRADIENTS[step - 1], state, 0.01, step)
    other, other_state = parameters.clone(), copy.deepcopy(state)
    for step in range(11, 21):
        make_step(rule, parameters, GRADIENTS[step - 1], state, 0.01, step)
        make_step(rule, other, GRADIENTS[step - 1], other_state, 0.01, step)
    assert torch.equal(other, parameters)


TORCH_OPTIMIZERS = [
    (torch.optim.RAdam, {}),
    (torch.optim.RAdam, {"betas": (0.8, 0.99), "weight_decay": 0.1}),
    (torch.optim.Adadelta, {"rho": 0.95}),
    (torch.optim.ASGD, {}),
    (torch.optim.Rprop, {"etas": (0.4, 1.3)}),
    (torch.optim.Adafactor, {}),
    (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    (torch.optim.Adam, {"fused": True}),
]


@pytest.mark.parametrize(("optimizer", "kwargs"), TORCH_OPTIMIZERS)
def test_torch_optimizer_builds_what_torch_would(optimizer, kwargs):
    rule = resolve_optimizer(TorchOptimizer(optimizer, **kwargs))
    path = torch_trajectory(lambda p: rule.build([{"params": p}], learning_rate=0.01), DECAYING)
    assert torch.equal(path, torch_trajectory(lambda p: optimizer(p, lr=0.01, **kwargs), DECAYING))


def test_torch_class_is_taken_as_it_is():
    assert resolve_optimizer(torch.optim.RAdam) == TorchOptimizer(torch.optim.RAdam)


class WithoutClosure(torch.optim.SGD):
    """A user's own optimizer; nothing forces its step to know closures."""

    def step(self):
        return super().step()


def test_users_own_optimizer_class_serves():
    assert resolve_optimizer(WithoutClosure) == TorchOptimizer(WithoutClosure)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (torch.optim.LBFGS, "optimizer=LBFGS .*closure"),
        (TorchOptimizer(torch.optim.LBFGS, history_size=5), "optimizer=LBFGS .*closure"),
        (TorchOptimizer(torch.optim.RAdam, beta=0.9), "optimizer=RAdam cannot be given beta"),
        (TorchOptimizer(torch.optim.RAdam, lr=0.1), "optimizer=RAdam cannot be given lr: set learning_rate_init"),
        (TorchOptimizer(torch.optim.RAdam, params=[]), "optimizer=RAdam cannot be given params"),
        (TorchOptimizer(torch.optim.RAdam, betas=(2.0, 0.9)), r"betas=\(2.0, 0.9\).*Invalid beta"),
        (TorchOptimizer(torch.optim.RAdam, betas=0.9), "betas=0.9"),
        (TorchOptimizer(torch.optim.SGD, nesterov=True), "nesterov=True.*Nesterov momentum requires"),
        (TorchOptimizer(torch.optim.Adam, fused=True, foreach=True), "(?s)foreach=True, fused=True.*cannot be"),
        (torch.optim.Muon, "2D"),
        # It takes sparse gradients alone, which no layer here has.
        (torch.optim.SparseAdam, "optimizer=.*SparseAdam"),
        (torch.optim.Optimizer, "optimizer=Optimizer takes no lr"),
        (torch.optim.RAdam([torch.zeros(1)]), r"RAdam\(\.\.\.\) is bound to parameters .* TorchOptimizer\(RAdam, \.\.\.\)"),
        (TorchOptimizer("adam"), "torch.optim.Optimizer class, got 'adam'"),
        (TorchOptimizer(torch.nn.Linear), "torch.optim.Optimizer class, got"),
        (torch.nn.Linear, "optimizer must be"),
        (TorchOptimizer, "optimizer"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_cannot_train_is_refused(given, message):
    with pytest.raises(ValueError, match=message) as caught:
        resolve_optimizer(given)
    assert isinstance(caught.value, TypeError)


def test_torch_optimizer_has_its_arguments_as_parameters():
    rule = TorchOptimizer(torch.optim.RAdam, betas=(0.9, 0.99))
    assert rule.get_params() == {"optimizer": torch.optim.RAdam, "betas": (0.9, 0.99)}
    assert rule.set_params(weight_decay=0.1) is rule
    assert rule.get_params() == {"optimizer": torch.optim.RAdam, "betas": (0.9, 0.99), "weight_decay": 0.1}
    rule.set_params(optimizer=torch.optim.NAdam, betas=(0.5, 0.9))
    assert rule == TorchOptimizer(torch.optim.NAdam, betas=(0.5, 0.9), weight_decay=0.1)


@pytest.mark.parametrize("duplicate", [clone, copy.deepcopy, lambda rule: pickle.loads(pickle.dumps(rule))])
def test_torch_optimizer_is_copied_by_value(duplicate):
    rule = TorchOptimizer(torch.optim.RAdam, betas=(0.9, 0.99), eps=1e-6)
    copied = duplicate(rule)
    assert copied == rule
    assert hash(copied) == hash(rule)
    copied.set_params(eps=1e-3)
    assert copied != rule
    assert rule.get_params()["eps"] == 1e-6


def test_torch_optimizer_equality_knows_no_order():
    one = TorchOptimizer(torch.optim.RAdam, eps=1e-6, weight_decay=0.1)
    other = TorchOptimizer(torch.optim.RAdam, weight_decay=0.1, eps=1e-6)
    assert one == other
    assert hash(one) == hash(other)
    assert one != TorchOptimizer(torch.optim.NAdam, eps=1e-6, weight_decay=0.1)
    assert one != TorchOptimizer(torch.optim.RAdam, eps=1e-6)


def test_torch_optimizer_prints_in_an_estimator_like_any_parameter():
    rule = TorchOptimizer(torch.optim.RAdam, betas=(0.9, 0.99))
    assert "optimizer=TorchOptimizer(betas=(0.9, 0.99)," in repr(skdnn.MLPDeepClassifier(optimizer=rule))
