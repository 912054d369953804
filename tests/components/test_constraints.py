import math
from fractions import Fraction

import pytest
import torch
from naming import name_of

from skdnn.components import CONSTRAINTS, MaxNorm
from skdnn.components._component import stack
from skdnn.components.constraints import resolve_max_norm

DTYPES = [torch.float32, torch.float64]
RADII = [0.1, 0.3, 1.0, 1 / 3, 3.0, 49.0, 1e-3, 1e3, *(10.0 ** torch.linspace(-2, 2, 9).tolist()[k] for k in (1, 3, 6))]
# Integers whose squares add up to a square, so that norm and radius are exact in either precision.
EXACT = [((3, 4, 0), 5), ((2, 3, 6), 7), ((14, 21, 42), 49), ((1, 2, 2), 3), ((20, 21, 0), 29), ((0, 0, 8), 8)]


def random_kernel(shape, dtype, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def oriented(kernel, axis):
    """A kernel whose bounded vectors are the rows of `kernel`."""
    return kernel if axis == "incoming" else kernel.mT.contiguous()


def with_norms(norms, n_in, dtype):
    kernel = random_kernel((len(norms), n_in), torch.float64)
    return (kernel / kernel.norm(dim=1, keepdim=True) * torch.as_tensor(norms, dtype=torch.float64).view(-1, 1)).to(dtype)


def exact_square(vector):
    return sum(Fraction(weight) ** 2 for weight in vector.tolist())


def test_catalogue():
    assert set(CONSTRAINTS) == {"max_norm"}
    assert CONSTRAINTS["max_norm"] is MaxNorm


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("axis", ["incoming", "outgoing"])
@pytest.mark.parametrize("radius", RADII)
def test_inside_stays_bit_for_bit_and_outside_comes_to_the_sphere(radius, axis, dtype):
    shares = torch.cat([torch.linspace(0.0, 0.99999, 50), torch.linspace(1.00001, 1e4, 50)]).double()
    rows = with_norms(radius * shares, 33, dtype)
    kernel = oriented(rows, axis).clone()
    MaxNorm(radius, axis=axis).project(kernel)
    after = oriented(kernel, axis)
    assert torch.equal(after[:50], rows[:50])
    norms = after[50:].double().norm(dim=1)
    assert (norms <= radius * (1 + 1e-6)).all()
    assert (norms >= radius * (1 - 1e-6)).all()
    directions = rows[50:].double() / rows[50:].double().norm(dim=1, keepdim=True)
    torch.testing.assert_close(after[50:].double() / norms.view(-1, 1), directions, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("axis", ["incoming", "outgoing"])
@pytest.mark.parametrize(("vector", "radius"), EXACT)
def test_exactly_on_the_sphere_stays_bit_for_bit(vector, radius, axis, dtype):
    kernel = oriented(torch.tensor([vector, [-weight for weight in vector]], dtype=dtype), axis)
    before = kernel.clone()
    MaxNorm(radius, axis=axis).project(kernel)
    assert torch.equal(kernel, before)


@pytest.mark.parametrize("dtype", DTYPES)
def test_single_weight_on_the_sphere_stays_bit_for_bit(dtype):
    for radius in [*RADII, *torch.rand(200, generator=torch.Generator().manual_seed(1)).tolist()]:
        kernel = torch.diag(torch.full((3,), radius, dtype=dtype))
        before = kernel.clone()
        MaxNorm(radius).project(kernel)
        assert torch.equal(kernel, before)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("radius", [0.5, 3.0, 49.0])
def test_a_rounding_error_inside_the_sphere_stays_bit_for_bit(radius, dtype):
    # The norm is rounded too: it must not put outside what is, in exact arithmetic, inside.
    rows = with_norms(torch.full((400,), radius), 7, dtype)
    inside = torch.tensor([exact_square(row) <= Fraction(radius) ** 2 for row in rows])
    assert inside.sum() > 50
    kernel = rows.clone()
    MaxNorm(radius).project(kernel)
    assert torch.equal(kernel[inside], rows[inside])
    assert (kernel.double().norm(dim=1) <= radius * (1 + 1e-6)).all()


@pytest.mark.parametrize("axis", ["incoming", "outgoing"])
def test_axis_is_that_of_the_vectors_it_names(axis):
    kernel = random_kernel((6, 9), torch.float64)
    expected = torch.renorm(kernel, p=2, dim=0 if axis == "incoming" else 1, maxnorm=1.5)
    MaxNorm(1.5, axis=axis).project(kernel)
    torch.testing.assert_close(kernel, expected, rtol=1e-6, atol=0.0)  # torch.renorm adds an epsilon to the norm


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("axis", ["incoming", "outgoing"])
def test_zero_vectors_stay_zero(axis, dtype):
    kernel = torch.zeros(4, 5, dtype=dtype)
    kernel[1, 2] = 7.0
    MaxNorm(2.0, axis=axis).project(kernel)
    expected = torch.zeros(4, 5, dtype=dtype)
    expected[1, 2] = 2.0
    assert torch.equal(kernel, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("axis", ["incoming", "outgoing"])
def test_radii_may_differ_by_network_and_be_infinite(axis, dtype):
    kernel = 3.0 * random_kernel((4, 6, 9), dtype)
    kernel[2, 0] = 0.0
    before = kernel.clone()
    constraints = [MaxNorm(0.1, axis), MaxNorm(3.0, axis), MaxNorm(49.0, axis), MaxNorm(math.inf, axis)]
    # As the network expands them: in the kernel's dtype, one a network.
    stack(constraints, lambda values: values.to(kernel).view(-1, 1, 1)).project(kernel)
    assert kernel.dtype == dtype
    assert torch.equal(kernel[3], before[3])
    for own, projected, given in zip(constraints[:3], kernel, before, strict=False):
        own.project(given)
        torch.testing.assert_close(projected, given, rtol=4 * torch.finfo(dtype).eps, atol=0.0)


def test_a_network_with_nothing_to_project_keeps_its_bits_beside_others():
    kernel = torch.stack([with_norms([0.05, 0.1 - 1e-9], 5, torch.float64), with_norms([7.0, 8.0], 5, torch.float64)])
    before = kernel.clone()
    MaxNorm(torch.tensor([0.1, 1.0], dtype=torch.float64).view(2, 1, 1)).project(kernel)
    assert torch.equal(kernel[0], before[0])
    torch.testing.assert_close(kernel[1].norm(dim=1), torch.ones(2, dtype=torch.float64), rtol=1e-12, atol=0.0)


def test_number_is_a_radius():
    assert resolve_max_norm(2) == MaxNorm(2.0, axis="incoming")
    assert resolve_max_norm(0.5) == MaxNorm(0.5)
    assert resolve_max_norm(float("inf")) is None
    assert resolve_max_norm("max_norm") == MaxNorm(1.0)


@pytest.mark.parametrize("wrong", [0, 0.0, -1.0, float("nan"), True], ids=name_of)
def test_wrong_number_is_named(wrong):
    with pytest.raises(ValueError, match="max_norm"):
        resolve_max_norm(wrong)
