import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from skdnn.components.losses import BinaryCrossentropy, CategoricalCrossentropy

# The loss, torch's function of outputs and labels that averages over rows, and the numbers of outputs and classes.
ORACLE = [
    (CategoricalCrossentropy(), F.cross_entropy, 3, 3),
    (CategoricalCrossentropy(), F.cross_entropy, 10, 10),
    (BinaryCrossentropy(), lambda z, y: F.binary_cross_entropy_with_logits(z, y.unsqueeze(-1).to(z)), 1, 2),
]
IDS = ["3 classes", "10 classes", "2 classes"]
N_ROWS = 8


def data(n_outputs, n_classes, scale=1.0, dtype=torch.float64, leading=()):
    generator = torch.Generator().manual_seed(0)
    outputs = scale * torch.randn(*leading, N_ROWS, n_outputs, generator=generator, dtype=torch.float64).to(dtype)
    return outputs, torch.randint(n_classes, (N_ROWS,), generator=generator)


def gradient_of(loss, outputs, targets, row_weight):
    out = torch.full_like(outputs, torch.nan)
    assert loss.gradient(outputs, targets, row_weight, out) is out
    return out


def autograd(function, outputs, y):
    leaf = outputs.clone().requires_grad_()
    value = function(leaf, y)
    value.backward()
    return value.detach(), leaf.grad


@pytest.mark.parametrize(("loss", "function", "n_outputs", "n_classes"), ORACLE, ids=IDS)
@pytest.mark.parametrize("scale", [1.0, 15.0, 1e4])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-8), (torch.float32, 1e-5)])
def test_value_and_gradient_are_torchs(loss, function, n_outputs, n_classes, scale, dtype, tolerance):
    outputs, y = data(n_outputs, n_classes, scale, dtype)
    before = outputs.clone()
    targets = loss.prepare(y, n_outputs, 1.0 / N_ROWS, dtype)
    value, gradient = autograd(function, outputs, y)
    torch.testing.assert_close(loss.value(outputs, targets, 1.0 / N_ROWS), value, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(gradient_of(loss, outputs, targets, 1.0 / N_ROWS), gradient, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(loss.to_module()(outputs, targets_of_module(loss, y, dtype)), value)
    assert torch.equal(outputs, before)


def targets_of_module(loss, y, dtype):
    return y.unsqueeze(-1).to(dtype) if isinstance(loss, BinaryCrossentropy) else y


@pytest.mark.parametrize(("loss", "function", "n_outputs", "n_classes"), ORACLE, ids=IDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_extreme_outputs_stay_finite(loss, function, n_outputs, n_classes, dtype, sign):
    # Every class in turn is off by 1e4, rightly and wrongly.
    y = torch.arange(n_classes).repeat(n_classes)
    outputs = torch.zeros(len(y), n_outputs, dtype=dtype)
    outputs[torch.arange(len(y)), torch.arange(len(y)) // n_classes % n_outputs] = sign * 1e4
    targets = loss.prepare(y, n_outputs, 1.0, dtype)
    value, gradient = loss.value(outputs, targets, 1.0), gradient_of(loss, outputs, targets, 1.0)
    expected_value, expected_gradient = autograd(lambda z, y: function(z, y) * len(y), outputs, y)
    assert value.isfinite()
    assert gradient.isfinite().all()
    torch.testing.assert_close(value, expected_value)
    torch.testing.assert_close(gradient, expected_gradient)


@pytest.mark.parametrize(("loss", "function", "n_outputs", "n_classes"), ORACLE, ids=IDS)
def test_outputs_that_are_not_numbers_are_no_small_loss(loss, function, n_outputs, n_classes):
    # A diverged network must not look like a perfect one.
    outputs, y = data(n_outputs, n_classes)
    outputs[2] = torch.nan
    targets = loss.prepare(y, n_outputs, 1.0 / N_ROWS, torch.float64)
    assert loss.value(outputs, targets, 1.0 / N_ROWS).isnan()


def test_impossible_class_that_is_not_the_rows_costs_nothing():
    outputs = torch.tensor([[0.0, 1.0, -torch.inf]])
    loss = CategoricalCrossentropy()
    value = loss.value(outputs, loss.prepare(torch.tensor([1]), 3, 1.0, torch.float32), 1.0)
    torch.testing.assert_close(value, F.cross_entropy(outputs, torch.tensor([1])))


@pytest.mark.parametrize(("loss", "function", "n_outputs", "n_classes"), ORACLE, ids=IDS)
@pytest.mark.parametrize("shares_batch", [True, False])
def test_networks_in_lockstep_have_their_own_loss(loss, function, n_outputs, n_classes, shares_batch):
    outputs, y = data(n_outputs, n_classes, leading=(4,))
    targets = loss.prepare(y if shares_batch else y.expand(4, -1), n_outputs, 1.0 / N_ROWS, torch.float64)
    values, gradients = loss.value(outputs, targets, 1.0 / N_ROWS), gradient_of(loss, outputs, targets, 1.0 / N_ROWS)
    assert values.shape == (4,)
    for k in range(4):
        value, gradient = autograd(function, outputs[k], y)
        torch.testing.assert_close(values[k], value)
        torch.testing.assert_close(gradients[k], gradient)


@pytest.mark.parametrize(("loss", "function", "n_outputs", "n_classes"), ORACLE, ids=IDS)
def test_a_chunk_of_batches_is_prepared_at_once(loss, function, n_outputs, n_classes):
    y = torch.randint(n_classes, (5, N_ROWS), generator=torch.Generator().manual_seed(0))
    untouched = y.clone()
    chunk = loss.prepare(y, n_outputs, 1.0 / N_ROWS, torch.float32)
    assert chunk.shape == (5, N_ROWS, n_outputs)
    assert chunk.dtype == torch.float32
    for batch, own in zip(chunk, y, strict=True):
        assert torch.equal(batch, loss.prepare(own, n_outputs, 1.0 / N_ROWS, torch.float32))
    assert torch.equal(y, untouched)


@pytest.mark.parametrize(("loss", "function", "n_outputs", "n_classes"), ORACLE, ids=IDS)
def test_row_weight_is_a_factor(loss, function, n_outputs, n_classes):
    outputs, y = data(n_outputs, n_classes)
    value, gradient = autograd(function, outputs, y)
    targets = loss.prepare(y, n_outputs, 3.0 / N_ROWS, torch.float64)
    torch.testing.assert_close(loss.value(outputs, targets, 3.0 / N_ROWS), 3.0 * value)
    torch.testing.assert_close(gradient_of(loss, outputs, targets, 3.0 / N_ROWS), 3.0 * gradient)


def test_output_activations_have_scikit_learns_names():
    assert CategoricalCrossentropy.out_activation == "softmax"
    assert BinaryCrossentropy.out_activation == "logistic"
