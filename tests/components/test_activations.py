import copy
import pickle

import numpy as np
import pytest
import torch
from naming import name_of
from torch.nn import functional as F  # noqa: N812

from skdnn.components import ACTIVATIONS, ELU, CallableActivation, Identity, LeakyReLU
from skdnn.components.activations import resolve_activation

ORACLE = {
    "identity": lambda z: z * 1.0,
    "logistic": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": F.relu,
    "leaky_relu": lambda z: F.leaky_relu(z, 0.01),
    "elu": F.elu,
    "selu": F.selu,
    "gelu": F.gelu,
    "silu": F.silu,
    "softplus": F.softplus,
    "mish": F.mish,
    "hard_swish": F.hardswish,
}
VARIANTS = [
    *((make(), ORACLE[name]) for name, make in ACTIVATIONS.items()),
    (LeakyReLU(0.0), F.relu),
    (LeakyReLU(0.2), lambda z: F.leaky_relu(z, 0.2)),
    (LeakyReLU(0.99), lambda z: F.leaky_relu(z, 0.99)),
    (ELU(0.1), lambda z: F.elu(z, 0.1)),
    (ELU(3.0), lambda z: F.elu(z, 3.0)),
]
IDS = [repr(activation) for activation, _ in VARIANTS]


def inputs(dtype=torch.float64):
    """The places where pieces meet, both zeros, far out on both sides, and some in between."""
    corners = [0.0, -0.0, 3.0, -3.0, 20.0, -20.0, 1e-3, -1e-3, 1e-300, -1e-300, 60.0, -60.0, 800.0, -800.0, 1e4, -1e4]
    between = 3.0 * torch.randn(104, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return torch.cat([torch.tensor(corners, dtype=torch.float64), between]).view(8, 15).to(dtype)


def expected(function, z, grad):
    leaf = z.clone().requires_grad_()
    a = function(leaf)
    (derivative,) = torch.autograd.grad(a, leaf, grad)
    return a.detach(), derivative


def as_the_layer_does(activation, z, grad):
    """One tensor for z and a where that is allowed, one for both gradients, under inference mode."""
    with torch.inference_mode():
        z, grad = z.clone(), grad.clone()
        out = z if activation.uses_output else torch.empty_like(z)
        a = activation.forward(z, out)
        assert a is out
        derivative = activation.backward(grad, z, a, grad)
        assert derivative is grad
        return a.clone(), derivative.clone()


def test_oracle_is_complete():
    assert set(ORACLE) == set(ACTIVATIONS)


@pytest.mark.parametrize(("activation", "function"), VARIANTS, ids=IDS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_value_and_derivative_are_torchs(activation, function, dtype, tolerance):
    z = inputs(dtype)
    grad = torch.randn(z.shape, generator=torch.Generator().manual_seed(1), dtype=dtype)
    a, derivative = as_the_layer_does(activation, z, grad)
    expected_a, expected_derivative = expected(function, z, grad)
    torch.testing.assert_close(a, expected_a, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(derivative, expected_derivative, rtol=tolerance, atol=tolerance)
    assert a.isfinite().all()
    assert derivative.isfinite().all()


@pytest.mark.parametrize(("activation", "function"), VARIANTS, ids=IDS)
def test_bfloat16_works(activation, function):
    z, grad = inputs(torch.bfloat16), torch.ones(8, 15, dtype=torch.bfloat16)
    a, derivative = as_the_layer_does(activation, z, grad)
    expected_a, expected_derivative = expected(function, z.double(), grad.double())
    # Eight bits of mantissa, and where the derivative comes from the rounded output that error once more.
    torch.testing.assert_close(a.double(), expected_a, rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(derivative.double(), expected_derivative, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize(("activation", "function"), VARIANTS, ids=IDS)
def test_separate_tensors_leave_the_inputs_alone(activation, function):
    z = inputs()
    grad = torch.randn(z.shape, generator=torch.Generator().manual_seed(1), dtype=z.dtype)
    z_before, grad_before = z.clone(), grad.clone()
    a = activation.forward(z, torch.empty_like(z))
    derivative = activation.backward(grad, z, a, torch.empty_like(z))
    torch.testing.assert_close(derivative, expected(function, z, grad)[1], rtol=1e-12, atol=1e-12)
    assert torch.equal(z, z_before)
    assert torch.equal(grad, grad_before)


@pytest.mark.parametrize(("activation", "function"), VARIANTS, ids=IDS)
def test_lockstep_axis_changes_nothing(activation, function):
    z = inputs().view(2, 4, 15)
    a, derivative = as_the_layer_does(activation, z, torch.ones_like(z))
    alone_a, alone_derivative = as_the_layer_does(activation, z[1].clone(), torch.ones(4, 15, dtype=z.dtype))
    # Not bit for bit: torch takes another formula for the last elements, which do not fill a vector register.
    torch.testing.assert_close(a[1], alone_a, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(derivative[1], alone_derivative, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("activation", "function"), VARIANTS, ids=IDS)
def test_module_computes_the_same(activation, function):
    module = activation.to_module()
    assert isinstance(module, torch.nn.Module)
    torch.testing.assert_close(module(inputs()), function(inputs()), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("make", [LeakyReLU, ELU])
@pytest.mark.parametrize("number", [np.float64(0.5), np.float32(0.5), np.float16(0.5)], ids=name_of)
def test_alpha_may_be_a_numpy_number(make, number):
    # What a grid over an array holds; the constraints let it pass, so the formulas must take it.
    activation = resolve_activation(make(number))
    a, derivative = as_the_layer_does(activation, inputs(), torch.ones(8, 15, dtype=torch.float64))
    expected_a, expected_derivative = as_the_layer_does(make(0.5), inputs(), torch.ones(8, 15, dtype=torch.float64))
    assert torch.equal(a, expected_a)
    assert torch.equal(derivative, expected_derivative)
    assert torch.equal(activation.to_module()(inputs()), make(0.5).to_module()(inputs()))


def swish_of_two(z):
    return z * torch.sigmoid(2.0 * z)


CALLABLES = [
    (torch.sin, torch.sin),
    (F.hardtanh, F.hardtanh),
    (swish_of_two, swish_of_two),
    (lambda z: z, lambda z: z * 1.0),
    (torch.nn.Softsign(), F.softsign),
    (torch.nn.CELU(0.5), lambda z: F.celu(z, 0.5)),
    (torch.nn.Sequential(torch.nn.Tanh(), torch.nn.Softsign()), lambda z: F.softsign(torch.tanh(z))),
    (torch.nn.Tanhshrink, F.tanhshrink),
    (torch.nn.ReLU6, F.relu6),
    # These write over their input, which autograd allows everywhere but on a leaf.
    (torch.nn.ReLU(inplace=True), F.relu),
    (torch.relu_, F.relu),
]


@pytest.mark.parametrize(("given", "function"), CALLABLES, ids=lambda value: getattr(value, "__name__", str(value)))
def test_any_torch_callable_serves(given, function):
    activation = resolve_activation(given)
    z = inputs()
    grad = torch.randn(z.shape, generator=torch.Generator().manual_seed(1), dtype=z.dtype)
    a, derivative = as_the_layer_does(activation, z, grad)
    expected_a, expected_derivative = expected(function, z, grad)
    torch.testing.assert_close(a, expected_a, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(derivative, expected_derivative, rtol=1e-12, atol=1e-12)
    module = activation.to_module()
    assert isinstance(module, torch.nn.Module)
    torch.testing.assert_close(module(z.clone()), expected_a, rtol=1e-12, atol=1e-12)


def test_callable_does_not_write_over_z():
    z = torch.tensor([[-1.0, 2.0]])
    CallableActivation(torch.sin).forward(z, torch.empty_like(z))
    assert z.tolist() == [[-1.0, 2.0]]


def test_one_callable_object_serves_several_layers():
    # A component that an estimator is given stands at every hidden layer: forward, forward, backward, backward.
    activation = CallableActivation(torch.sin)
    first, second = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    a_first = activation.forward(first, torch.empty_like(first))
    a_second = activation.forward(second, torch.empty_like(second))
    ones = torch.ones_like(first)
    torch.testing.assert_close(activation.backward(ones, second, a_second, torch.empty_like(ones)), second.cos())
    torch.testing.assert_close(activation.backward(ones, first, a_first, torch.empty_like(ones)), first.cos())


def test_callable_can_be_copied_after_a_prediction():
    # A prediction is a forward pass that no backward pass follows; the object is the user's, and part of the estimator.
    activation = CallableActivation(torch.sin)
    activation.forward(torch.ones(2, 3), torch.empty(2, 3))
    assert copy.deepcopy(activation) == activation
    assert pickle.loads(pickle.dumps(activation)) == activation


@pytest.mark.parametrize("given", [torch.nn.PReLU(), torch.nn.PReLU, torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3)], ids=str)
def test_module_with_parameters_is_refused(given):
    with pytest.raises(ValueError, match=r"activation=.* has parameters of its own"):
        resolve_activation(given)


@pytest.mark.parametrize("given", [torch.nn.Threshold, torch.nn.Linear], ids=str)
def test_class_that_needs_arguments_is_refused(given):
    with pytest.raises(ValueError, match="activation="):
        resolve_activation(given)


@pytest.mark.parametrize("function", [torch.sum, lambda z: z[:, :1], lambda z: z.T, lambda z: z.unsqueeze(0)])
def test_callable_of_another_shape_is_refused(function):
    for refuse in (resolve_activation, lambda given: CallableActivation(given).forward(torch.ones(4, 3), torch.empty(4, 3))):
        with pytest.raises(ValueError, match=r"activation=.* must keep the shape"):
            refuse(function)


@pytest.mark.parametrize("function", [lambda z: 0.0, len, np.tanh, torch.ones_like, torch.Tensor.detach])
def test_callable_without_a_derivative_is_refused(function):
    with pytest.raises(ValueError, match=r"activation=.* must be an element-wise torch function"):
        resolve_activation(function)


@pytest.mark.parametrize("function", [None, "sin", 3])
def test_callable_activation_needs_a_callable(function):
    with pytest.raises(ValueError, match="'function' parameter of CallableActivation"):
        CallableActivation(function).validate()


def test_none_is_told_to_write_identity():
    with pytest.raises(ValueError, match=r"activation must not be None; .*'identity'"):
        resolve_activation(None)
    with pytest.raises(ValueError, match=r"activation\[1\]='sinus'"):
        resolve_activation("sinus", "activation[1]")


def test_identity_copies_where_it_must():
    z = torch.ones(2, 3)
    assert Identity().forward(z, z) is z
    out = torch.zeros(2, 3)
    assert Identity().forward(z, out) is out
    assert torch.equal(out, z)
