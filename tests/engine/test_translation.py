"""Programs do what torch's kernels do: call by call, and for every technique of the catalogues."""

from functools import partial

import pytest
import torch
from engine_plans import make_data, make_network, make_orders, plan_network
from native_programs import SETS, both_dtypes, needs_kernels, programs_of

from skdnn.components import (
    ACTIVATIONS,
    CLIPPINGS,
    ELU,
    L1L2,
    OPTIMIZERS,
    REGRESSION_LOSSES,
    REGULARIZERS,
    SGD,
    Adam,
    BatchNorm,
    ClipNorm,
    ClipValue,
    MaxNorm,
    Momentum,
    Quantile,
    Tanh,
)
from skdnn.components.losses import BinaryCrossentropy, CategoricalCrossentropy, MultilabelCrossentropy
from skdnn.engine import Trainer, Update, UpdatePlan, program, trainer
from skdnn.engine.log import NotRepeatableError, write_down
from skdnn.engine.translation import TRANSLATIONS

pytestmark = needs_kernels
aten = torch.ops.aten

# torch's calls --------------------------------------------------------------------------------------------------------------


def draw(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


class Operands:
    """Tensors to call kernels on, the same each time they are made."""

    def __init__(self, dtype):
        self.x, self.y, self.z, self.g = (draw(6, 5, dtype=dtype, seed=seed) for seed in range(4))
        self.positive = self.x.abs() + 0.1
        self.kernel, self.bias = draw(4, 5, dtype=dtype), draw(4, dtype=dtype)
        self.ones = torch.ones(6, dtype=dtype)
        self.out, self.product = torch.zeros(6, 5, dtype=dtype), torch.zeros(6, 4, dtype=dtype)
        self.row, self.column, self.scalar = (torch.zeros(shape, dtype=dtype) for shape in ((5,), (6, 1), ()))
        self.scale, self.shift, self.mean, self.variance = (draw(5, dtype=dtype, seed=seed).abs() for seed in range(4, 8))
        self.save_mean, self.save_inverse_std, self.scale_gradient, self.shift_gradient = (
            torch.zeros(5, dtype=dtype) for _ in range(4)
        )
        self.moments = [draw(30, dtype=dtype, seed=seed).abs() for seed in range(8, 13)]
        self.step = torch.zeros(())

    def tensors(self):
        return [*(tensor for name, tensor in vars(self).items() if name not in ("moments", "step")), *self.moments]


def adam(o, amsgrad=False):
    torch._fused_adam_(
        *([moment] for moment in o.moments[:4]),
        [o.moments[4]] if amsgrad else [],
        [o.step.fill_(7.0)],
        lr=0.01,
        beta1=0.9,
        beta2=0.99,
        weight_decay=0.0,
        eps=1e-3,
        amsgrad=amsgrad,
        maximize=False,
    )


def batch_norm(o):
    aten.native_batch_norm.out(
        o.x,
        o.scale,
        o.shift,
        o.mean,
        o.variance,
        True,
        0.3,
        1e-3,
        out=o.out,
        save_mean=o.save_mean,
        save_invstd=o.save_inverse_std,
    )


def batch_norm_backward(o):
    batch_norm(o)
    aten.native_batch_norm_backward.out(
        o.g,
        o.x,
        o.scale,
        o.mean,
        o.variance,
        o.save_mean,
        o.save_inverse_std,
        True,
        1e-3,
        [True, True, True],
        out0=o.out,
        out1=o.scale_gradient,
        out2=o.shift_gradient,
    )


# For each translation what calls the kernel, in one way or several.
CALLS = {
    "abs": [lambda o: o.x.abs_(), lambda o: torch.abs(o.x, out=o.out)],
    "add": [
        lambda o: o.x.add_(o.y),
        lambda o: o.x.add_(o.y, alpha=-0.5),
        lambda o: o.x.add_(2.0),
        lambda o: o.y.add_(o.x.sum()),
        lambda o: torch.add(o.x, o.y, out=o.out),
    ],
    "addcdiv": [lambda o: o.x.addcdiv_(o.y, o.positive, value=-0.1)],
    "addcmul": [lambda o: o.x.addcmul_(o.y, o.z, value=0.3), lambda o: torch.addcmul(o.scale, o.y, o.shift, out=o.out)],
    "addmm": [lambda o: torch.addmm(o.bias, o.x, o.kernel.mT, out=o.product)],
    "clamp": [
        lambda o: o.x.clamp_(-0.5, 0.5),
        lambda o: o.x.clamp_(min=-0.5),
        lambda o: torch.clamp(o.x, max=0.5, out=o.out),
    ],
    "copy": [lambda o: o.x.copy_(o.y), lambda o: o.x.copy_(o.scale)],
    "div": [lambda o: o.x.div_(o.positive), lambda o: o.x.div_(3.0), lambda o: torch.div(o.x, o.scale, out=o.out)],
    "elu": [lambda o: aten.elu.out(o.x, 0.5, 1.25, 1, out=o.out)],
    "elu_backward": [lambda o: aten.elu_backward.grad_input(o.g, 0.5, 1.25, 1, True, o.y.clamp_(min=-0.5), grad_input=o.out)],
    "eq": [lambda o: o.x.masked_fill_(torch.eq(o.y.clamp_(min=0.0), 0.0), 5.0)],
    "exp": [lambda o: o.x.exp_()],
    "fill": [lambda o: o.x.fill_(3.5)],
    "_fused_adam_": [adam, partial(adam, amsgrad=True)],
    "gelu": [lambda o: aten.gelu.out(o.x, out=o.out)],
    "gelu_backward": [lambda o: aten.gelu_backward.grad_input(o.g, o.x, grad_input=o.out)],
    "gt": [lambda o: o.x.masked_fill_(torch.gt(o.y.add_(0.1), 0.2), 5.0)],
    "hardswish": [lambda o: aten.hardswish.out(o.x.mul_(3.0), out=o.out)],
    "hardswish_backward": [lambda o: aten.hardswish_backward.out(o.g, o.x.mul_(3.0), out=o.out)],
    "le": [lambda o: o.x.masked_fill_(torch.le(o.y.add_(0.1), 0.2), 5.0)],
    "leaky_relu": [lambda o: aten.leaky_relu.out(o.x, 0.1, out=o.out)],
    "leaky_relu_backward": [lambda o: aten.leaky_relu_backward.grad_input(o.g, o.x, 0.1, True, grad_input=o.out)],
    "lerp": [lambda o: o.x.lerp_(o.y, 0.25)],
    "linalg_vector_norm": [
        lambda o: torch.linalg.vector_norm(o.x, dim=-1, keepdim=True, out=o.column),
        lambda o: torch.linalg.vector_norm(o.x, dim=-2, out=o.row),
        lambda o: torch.linalg.vector_norm(o.x, dim=(-2, -1), out=o.scalar),
        lambda o: torch.linalg.vector_norm(o.x, 1, dim=(-2, -1), out=o.scalar),
    ],
    "log_softmax": [lambda o: o.out.copy_(torch.log_softmax(o.x, -1))],
    "masked_fill": [lambda o: o.x.masked_fill_(torch.gt(o.x.mul_(2.0), 0.0), 1.0)],
    "matmul": [lambda o: o.product.copy_(torch.matmul(o.x, o.kernel.mT)), lambda o: o.product.copy_(o.x @ o.kernel.mT)],
    "maximum": [lambda o: torch.maximum(o.x, o.y, out=o.out)],
    "mish": [lambda o: aten.mish.out(o.x, out=o.out)],
    "mish_backward": [lambda o: o.out.copy_(aten.mish_backward(o.g, o.x))],
    "mm": [lambda o: torch.mm(o.x, o.kernel.mT, out=o.product)],
    "mul": [
        lambda o: o.x.mul_(o.y),
        lambda o: o.x.mul_(3.0),
        lambda o: o.x.mul_(o.scale),
        lambda o: o.x.mul_(o.column.add_(2.0)),
    ],
    "mv": [lambda o: torch.mv(o.x.mT, o.ones, out=o.row)],
    "native_batch_norm": [batch_norm],
    "native_batch_norm_backward": [batch_norm_backward],
    "neg": [lambda o: o.x.neg_(), lambda o: o.x.copy_(-o.y)],
    "reciprocal": [lambda o: o.positive.reciprocal_()],
    "relu": [lambda o: o.x.relu_()],
    "rsqrt": [lambda o: torch.rsqrt(o.positive, out=o.out)],
    "rsub": [lambda o: o.out.copy_(1.5 - o.x)],
    "sigmoid": [lambda o: torch.sigmoid(o.x, out=o.out)],
    "sigmoid_backward": [lambda o: aten.sigmoid_backward.grad_input(o.g, o.x, grad_input=o.out)],
    "sign": [lambda o: torch.sign(o.x, out=o.out), lambda o: o.x.clamp_(min=0.0).sign_()],
    "silu": [lambda o: aten.silu.out(o.x, out=o.out)],
    "silu_backward": [lambda o: aten.silu_backward.grad_input(o.g, o.x, grad_input=o.out)],
    "softmax": [lambda o: torch.softmax(o.x, -1, out=o.out)],
    "softplus": [lambda o: aten.softplus.out(o.x.mul_(20.0), 1, 20, out=o.out)],
    "softplus_backward": [lambda o: aten.softplus_backward.grad_input(o.g, o.x.mul_(20.0), 1, 20, grad_input=o.out)],
    "sqrt": [lambda o: torch.sqrt(o.positive, out=o.out)],
    "square": [lambda o: o.out.copy_(o.x.square())],
    "sub": [lambda o: o.x.sub_(o.y), lambda o: o.x.sub_(0.5), lambda o: torch.sub(o.x, o.scale, alpha=2.0, out=o.out)],
    "sum": [
        lambda o: torch.sum(o.x, -2, out=o.row),
        lambda o: o.scalar.copy_(o.x.sum((-2, -1))),
        lambda o: o.scalar.copy_(o.x.sum()),
    ],
    "tanh": [lambda o: torch.tanh(o.x, out=o.out)],
    "tanh_backward": [lambda o: aten.tanh_backward.grad_input(o.g, o.x, grad_input=o.out)],
    "threshold_backward": [lambda o: aten.threshold_backward.grad_input(o.g, o.x, 0.1, grad_input=o.out)],
    "to": [lambda o: o.x.copy_((o.y.mul_(2.0) > 0.0).to(o.x.dtype)), lambda o: o.x.to(o.x.dtype).add_(1.0)],
    "where": [lambda o: o.x.copy_(torch.where(o.y.mul_(2.0) > 0.0, o.x, o.z))],
    "xlogy": [lambda o: o.out.copy_(torch.xlogy(o.x.clamp_(min=0.0), o.positive))],
    "zero": [lambda o: o.x.zero_()],
}


def test_every_translation_has_a_call():
    assert CALLS.keys() == TRANSLATIONS.keys()


@both_dtypes
@pytest.mark.parametrize("name", CALLS)
def test_a_program_does_what_torch_does(name, dtype):
    for call in CALLS[name]:
        expected, own = Operands(dtype), Operands(dtype)
        with torch.inference_mode():
            assert name in [one.schema.name for one in write_down(lambda call=call, o=own: call(o))]
            call(expected)
        kept = [tensor.clone() for tensor in own.tensors()]
        for made in programs_of(lambda i, _, call=call, o=own: call(o)):
            for tensor, values in zip(own.tensors(), kept, strict=True):
                tensor.copy_(values)
            made([()])
            torch.testing.assert_close(own.tensors(), expected.tensors())


# What other arguments a kernel may have, which programs know nothing of.
REFUSED = {
    "a softmax over columns": lambda o: torch.softmax(o.x, 0, out=o.out),
    "a logarithm of it over columns": lambda o: o.out.copy_(torch.log_softmax(o.x, 0)),
    "a sum over columns": lambda o: torch.sum(o.x, -1, keepdim=True, out=o.column),
    "another norm": lambda o: torch.linalg.vector_norm(o.x, 1, dim=-1, keepdim=True, out=o.column),
    "a norm of all": lambda o: torch.linalg.vector_norm(o.x, out=o.scalar),
    "an approximation of gelu": lambda o: aten.gelu.out(o.x, approximate="tanh", out=o.out),
    "a scaled product": lambda o: torch.addmm(o.bias, o.x, o.kernel.mT, alpha=2.0, out=o.product),
    "a product that adds a matrix": lambda o: torch.addmm(o.product, o.x, o.kernel.mT, out=o.product),
    "a product that adds a number": lambda o: torch.addmm(o.scalar, o.x, o.kernel.mT, out=o.product),
    "a product that is written by columns": lambda o: torch.mm(o.kernel, o.x.mT, out=o.product.mT),
    "a rounded quotient": lambda o: o.x.div_(3.0, rounding_mode="floor"),
    "a scaled number": lambda o: o.x.add_(2.0, alpha=0.5),
    "an integer": lambda o: o.x.copy_(o.x.to(torch.int64)),
    "another dtype": lambda o: o.x.copy_(o.y.to(torch.bfloat16)),
    "statistics of inference": lambda o: aten.native_batch_norm.out(
        o.x,
        o.scale,
        o.shift,
        o.mean,
        o.variance,
        False,
        0.3,
        1e-3,
        out=o.out,
        save_mean=o.save_mean,
        save_invstd=o.save_inverse_std,
    ),
    "a number in a tensor": lambda o: o.x.lerp_(o.y, o.scalar),
    "a bound in a tensor": lambda o: o.x.clamp_(max=o.scalar),
    "a comparison with a tensor": lambda o: o.x.masked_fill_(o.x.mul_(2.0) > o.scalar, 1.0),
    "a value in a tensor": lambda o: o.x.masked_fill_(o.x.mul_(2.0) > 0.0, o.scalar),
    "a repeated tensor that may change": lambda o: o.x.copy_(o.row.repeat(6, 1)),
    "a part of a tensor": lambda o: o.x[:3].add_(1.0),
    "an index": lambda o: o.x.index_fill_(0, torch.tensor([1]), 1.0),
    "no kernel of its own": lambda o: o.x.sin_(),
    "three axes": lambda o: o.x.view(2, 3, 5).add_(o.y.view(2, 3, 5)[:, :1]),
    "chance": lambda o: o.x.normal_(),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_understood_is_refused(case):
    own = Operands(torch.float64)
    with pytest.raises(NotRepeatableError):
        programs_of(lambda i, _: REFUSED[case](own))


# techniques -----------------------------------------------------------------------------------------------------------------

N_ROWS, BATCH_SIZE = 43, 8
RATES = [0.02, 0.01, 0.03, 0.005, 0.02, 0.04]  # of an epoch's five full batches and the last one of three rows
TOLERANCES = {torch.float32: 2e-5, torch.float64: 1e-12}


class Watcher:
    """Looks on, which has each step made in two halves."""

    def batch_begins(self, x, y):
        pass

    gradient_is_ready = batch_begins

    def batch_ends(self, x, y, outputs, loss):
        pass


@pytest.fixture
def made(monkeypatch):
    """A list of the programs that are made, None for each that could not be."""
    programs = []

    def compile_steps(*args, **kwargs):
        programs.append(program.compile_steps(*args, **kwargs))
        return programs[-1]

    monkeypatch.setattr(trainer, "compile_steps", compile_steps)
    # Whatever can follow a product does, in whole steps; in halves of them nothing can.
    monkeypatch.setattr("skdnn.engine.operations._LEAST_FOLLOWED", 1)
    return programs


def train(plan, update_plan, loss, y, first_compiled_step, patch, dtype, *, n_epochs=2, watcher=None, **weights):
    """Losses, parameters, statistics and the rule's state after some epochs."""
    patch.setattr(trainer, "FIRST_COMPILED_STEP", first_compiled_step)
    network = make_network(plan, dtype=dtype)
    update = Update(network, [update_plan])
    X, _ = make_data(N_ROWS, dtype=dtype)
    own = Trainer(network, update, loss, BATCH_SIZE)
    orders = make_orders(n_epochs, n_rows=N_ROWS)
    losses = [own.run_epoch(X, y, order, RATES[: own.n_updates(N_ROWS)], watcher=watcher, **weights) for order in orders]
    assert update.n_updates == n_epochs * own.n_updates(N_ROWS)
    # What is used within a step only, and the step's number, which programs have as a number, are no state.
    state = [tensor for rule in update._rules for name, tensor in rule.state.items() if name not in ("scratch", "step")]
    return [*losses, network.parameters.data, network.statistics.data, *state]


def assert_programs_end_where_torch_ends(made, monkeypatch, dtype, plan=None, update_plan=None, loss=None, y=None, **weights):
    plan, update_plan, loss = plan or plan_network(), update_plan or UpdatePlan(SGD()), loss or CategoricalCrossentropy()
    y = make_data(N_ROWS)[1] if y is None else y
    weights = {name: tensor.to(dtype) for name, tensor in weights.items()}
    run = partial(train, plan, update_plan, loss, y, patch=monkeypatch, dtype=dtype, **weights)
    expected = run(10**9)
    assert not made
    for number, _ in SETS:
        monkeypatch.setattr(program, "Program", partial(Program, instructions=number))
        got = run(1)
        assert None not in made
        assert made
        torch.testing.assert_close(got, expected, rtol=TOLERANCES[dtype], atol=TOLERANCES[dtype])
        made.clear()
        watched = run(1, watcher=Watcher())
        assert None not in made
        assert all(torch.equal(a, b) for a, b in zip(got, watched, strict=True))
        made.clear()


Program = program.Program


@both_dtypes
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name, dtype, made, monkeypatch):
    assert_programs_end_where_torch_ends(made, monkeypatch, dtype, plan_network(activation=ACTIVATIONS[name]()))


@both_dtypes
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers(name, dtype, made, monkeypatch):
    assert_programs_end_where_torch_ends(made, monkeypatch, dtype, update_plan=UpdatePlan(OPTIMIZERS[name]()))


TECHNIQUES = {
    **{name: {"regularizer": make(1e-2)} for name, make in REGULARIZERS.items()},
    "max_norm": {"constraint": MaxNorm(0.5)},
    "max_norm_outgoing": {"constraint": MaxNorm(0.5, axis="outgoing")},
    "dropout": {"dropout": 0.5, "input_dropout": 0.25},
    "batch_norm": {"batch_norm": BatchNorm()},
    "batch_norm_of_logits": {"batch_norm": BatchNorm(0.7, 1e-3, output=True)},
    "one_unit": {"sizes": (5, 1, 3)},
    "no_hidden_layer": {"sizes": (5, 3)},
    "wide": {"sizes": (5, 50, 33, 3)},
    "all": {
        "activation": ELU(),
        "batch_norm": BatchNorm(),
        "dropout": 0.25,
        "input_dropout": 0.1,
        "regularizer": L1L2(1e-3, 1e-3),
        "constraint": MaxNorm(0.7),
    },
}


@both_dtypes
@pytest.mark.parametrize("name", TECHNIQUES)
def test_techniques(name, dtype, made, monkeypatch):
    assert_programs_end_where_torch_ends(made, monkeypatch, dtype, plan_network(**TECHNIQUES[name]), UpdatePlan(Momentum()))


@both_dtypes
@pytest.mark.parametrize("clipping", [*(make() for make in CLIPPINGS.values()), ClipNorm(0.1), ClipValue(0.01)], ids=repr)
def test_clippings(clipping, dtype, made, monkeypatch):
    assert_programs_end_where_torch_ends(made, monkeypatch, dtype, update_plan=UpdatePlan(Momentum(), clipping))


def labels(*shape, n_classes=2):
    return torch.randint(0, n_classes, (N_ROWS, *shape), generator=torch.Generator().manual_seed(1))


# Losses, their outputs and their targets.
LOSSES = {
    "categorical": (CategoricalCrossentropy(), 3, labels(n_classes=3)),
    "categorical_smoothed": (CategoricalCrossentropy(0.1), 3, labels(n_classes=3)),
    "binary": (BinaryCrossentropy(), 1, labels()),
    "binary_smoothed": (BinaryCrossentropy(0.1), 1, labels()),
    "multilabel": (MultilabelCrossentropy(), 3, labels(3).double()),
    "multilabel_smoothed": (MultilabelCrossentropy(0.1), 3, labels(3).double()),
    **{name: (make(), 2, labels(2, n_classes=4).double() / 2) for name, make in REGRESSION_LOSSES.items()},
    "one_target": (REGRESSION_LOSSES["squared_error"](), 1, labels(1, n_classes=4).double() / 2),
    "quantiles": (Quantile((0.1, 0.5, 0.9)), 6, labels(2, n_classes=4).double() / 2),
}
WEIGHTS = torch.linspace(0.5, 2.0, N_ROWS).view(-1, 1)
COUNTS = torch.arange(N_ROWS).view(-1, 1) % 3 + 1.0


@both_dtypes
@pytest.mark.parametrize("name", LOSSES)
def test_losses(name, dtype, made, monkeypatch):
    loss, n_outputs, y = LOSSES[name]
    y = y.to(dtype) if y.is_floating_point() else y
    plan = plan_network((5, 7, n_outputs))
    assert_programs_end_where_torch_ends(made, monkeypatch, dtype, plan, loss=loss, y=y)
    assert_programs_end_where_torch_ends(made, monkeypatch, dtype, plan, loss=loss, y=y, weights=WEIGHTS)


@both_dtypes
@pytest.mark.parametrize("norm", [None, BatchNorm(output=True)], ids=["plain", "batch_norm"])
@pytest.mark.parametrize("name", ["categorical", "multilabel", "squared_error", "quantile"])
def test_weights_of_rows(name, norm, dtype, made, monkeypatch):
    loss, n_outputs, y = LOSSES[name]
    y = y.to(dtype) if y.is_floating_point() else y
    plan = plan_network((5, 7, n_outputs), batch_norm=norm)
    each = torch.linspace(0.5, 1.5, N_ROWS * n_outputs).view(N_ROWS, -1)
    weights = each if name == "multilabel" else WEIGHTS
    assert_programs_end_where_torch_ends(made, monkeypatch, dtype, plan, loss=loss, y=y, sample_weight=COUNTS)
    assert_programs_end_where_torch_ends(made, monkeypatch, dtype, plan, loss=loss, y=y, sample_weight=COUNTS, weights=weights)


def test_a_technique_with_the_learning_rates_value_stays_what_it_is(made, monkeypatch):
    plan = plan_network(regularizer=REGULARIZERS["l2"](RATES[0]))
    assert_programs_end_where_torch_ends(made, monkeypatch, torch.float64, plan, UpdatePlan(Momentum(RATES[0])))


def test_adam_on_all_techniques(made, monkeypatch):
    plan = plan_network(**TECHNIQUES["all"] | {"activation": Tanh()})
    assert_programs_end_where_torch_ends(made, monkeypatch, torch.float64, plan, UpdatePlan(Adam(), ClipNorm(1.0)))
