import pytest
import torch

from skdnn.components import L1, L1L2, L2, REGULARIZERS

# Each penalty written down once more, for autograd to differentiate.
ORACLE = {
    "l1": lambda kernel, l1=1e-3: l1 * kernel.abs().sum(),
    "l2": lambda kernel, l2=1e-3: l2 * (kernel**2).sum() / 2,
    "l1_l2": lambda kernel, l1=1e-3, l2=1e-3: l1 * kernel.abs().sum() + l2 * (kernel**2).sum() / 2,
}
SETTINGS = {
    "l1": [{}, {"l1": 0.0}, {"l1": 2.5}],
    "l2": [{}, {"l2": 0.0}, {"l2": 2.5}],
    "l1_l2": [{}, {"l1": 0.0}, {"l2": 0.0}, {"l1": 0.5, "l2": 1.5}],
}
CASES = [(name, setting) for name, settings in SETTINGS.items() for setting in settings]


def kernels(*shape):
    kernel = torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    kernel[..., 0, :2] = torch.tensor([0.0, -0.0])  # the corner of |w|, where the gradient is taken as 0
    return kernel


def gradient_of(regularizer, kernel):
    """The penalty's part of a gradient that held something before."""
    before = torch.full_like(kernel, 0.25)
    gradient, untouched = before.clone(), kernel.clone()
    regularizer.add_gradient(kernel, gradient, torch.empty_like(kernel))
    assert torch.equal(kernel, untouched)
    return gradient - before


def test_oracle_is_complete():
    assert set(ORACLE) == set(REGULARIZERS) == set(SETTINGS)


@pytest.mark.parametrize(("name", "setting"), CASES)
def test_penalty_and_gradient_of_one_kernel(name, setting):
    kernel = kernels(5, 7)
    regularizer = REGULARIZERS[name](**setting)
    leaf = kernel.clone().requires_grad_()
    penalty = ORACLE[name](leaf, **setting)
    penalty.backward()
    torch.testing.assert_close(regularizer.penalty(kernel), penalty.detach(), rtol=1e-12, atol=0.0)
    torch.testing.assert_close(gradient_of(regularizer, kernel), leaf.grad, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(("name", "setting"), CASES)
def test_networks_in_lockstep_are_penalised_one_by_one(name, setting):
    kernel = kernels(3, 5, 7)
    regularizer = REGULARIZERS[name](**setting)
    penalties, gradient = regularizer.penalty(kernel), gradient_of(regularizer, kernel)
    assert penalties.shape == (3,)
    for k in range(3):
        torch.testing.assert_close(penalties[k], regularizer.penalty(kernel[k]), rtol=1e-12, atol=0.0)
        torch.testing.assert_close(gradient[k], gradient_of(regularizer, kernel[k]), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    ("make", "strengths"),
    [
        (L1, {"l1": [0.0, 1e-3, 2.0]}),
        (L2, {"l2": [0.0, 1e-3, 2.0]}),
        (L1L2, {"l1": [0.0, 1e-3, 2.0], "l2": [1.0, 0.0, 0.5]}),
        (L1L2, {"l1": [0.0, 1e-3, 2.0], "l2": 0.5}),
        (L1L2, {"l1": 0.5, "l2": [1.0, 0.0, 0.5]}),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_strengths_may_differ_by_network(make, strengths, dtype):
    kernel = kernels(3, 5, 7).to(dtype)
    stacked = make(
        **{
            name: torch.tensor(values, dtype=dtype).view(3, 1, 1) if isinstance(values, list) else values
            for name, values in strengths.items()
        }
    )
    penalties, gradient = stacked.penalty(kernel), gradient_of(stacked, kernel)
    assert penalties.shape == (3,)
    assert penalties.dtype == gradient.dtype == dtype
    for k in range(3):
        own = make(**{name: values[k] if isinstance(values, list) else values for name, values in strengths.items()})
        torch.testing.assert_close(penalties[k], own.penalty(kernel[k]))
        torch.testing.assert_close(gradient[k], gradient_of(own, kernel[k]))


@pytest.mark.parametrize("name", REGULARIZERS)
def test_works_under_inference_mode(name):
    expected = gradient_of(REGULARIZERS[name](), kernels(5, 7))
    with torch.inference_mode():
        assert torch.equal(gradient_of(REGULARIZERS[name](), kernels(5, 7)), expected)
