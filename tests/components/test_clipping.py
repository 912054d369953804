import pytest
import torch
from naming import name_of

from skdnn.components import CLIPPINGS, ClipNorm, ClipValue
from skdnn.components.clipping import resolve_clipping

# A clipping of the catalogue and torch's function, for the same bound.
ORACLE = {
    "norm": (ClipNorm, lambda parameters, bound: torch.nn.utils.clip_grad_norm_(parameters, bound)),
    "value": (ClipValue, lambda parameters, bound: torch.nn.utils.clip_grad_value_(parameters, bound)),
}


def test_oracle_is_complete():
    assert {name: make for name, (make, _) in ORACLE.items()} == CLIPPINGS


@pytest.mark.parametrize("name", ORACLE)
@pytest.mark.parametrize("bound", [1e-3, 1.0, 1e6])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_clips_as_torch_does(name, bound, scale, dtype):
    make, torchs = ORACLE[name]
    gradient = scale * torch.randn(40, generator=torch.Generator().manual_seed(0), dtype=dtype)
    # Torch works on the tensors of the layers, skdnn on the flat gradient of all.
    parameters = [torch.zeros(size, dtype=dtype, requires_grad=True) for size in (30, 10)]
    for parameter, part in zip(parameters, gradient.split([30, 10]), strict=True):
        parameter.grad = part.clone()
    torchs(parameters, bound)
    make(bound).clip(gradient)
    # The norm of norms and the norm of all differ in their rounding.
    torch.testing.assert_close(
        gradient, torch.cat([parameter.grad for parameter in parameters]), rtol=4 * torch.finfo(dtype).eps, atol=0.0
    )


def test_short_gradient_stays_bit_for_bit():
    gradient = torch.randn(40, generator=torch.Generator().manual_seed(0))
    before = gradient.clone()
    ClipNorm(100.0).clip(gradient)
    ClipValue(100.0).clip(gradient)
    assert torch.equal(gradient, before)


@pytest.mark.parametrize("make", [ClipNorm, ClipValue])
def test_networks_in_lockstep_have_their_own_bound_and_norm(make):
    bounds = [0.5, 2.0, 1e6]
    gradients = torch.randn(3, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    together = gradients.clone()
    make(torch.tensor(bounds, dtype=torch.float64).view(3, 1)).clip(together)
    for k, bound in enumerate(bounds):
        make(bound).clip(gradients[k])
    assert torch.equal(together, gradients)


def test_number_is_a_global_norm():
    assert resolve_clipping(2) == ClipNorm(2.0)
    assert resolve_clipping(0.5) == ClipNorm(0.5)
    assert resolve_clipping(ClipValue(0.5)) == ClipValue(0.5)
    assert resolve_clipping("value") == ClipValue(1.0)
    assert resolve_clipping(float("inf")) is None


@pytest.mark.parametrize("wrong", [0.0, -1.0, float("nan"), True], ids=name_of)
def test_wrong_number_is_named(wrong):
    with pytest.raises(ValueError, match=r"gradient_clipping|max_norm"):
        resolve_clipping(wrong)
