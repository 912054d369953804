import math

import numpy as np
import pytest
import torch
from naming import name_of
from sklearn.metrics import (
    log_loss,
    mean_absolute_error,
    mean_pinball_loss,
    mean_poisson_deviance,
    mean_squared_error,
)
from torch.nn import functional as F  # noqa: N812

from skdnn.components import REGRESSION_LOSSES, AbsoluteError, Huber, Poisson, Quantile, RegressionLoss, SquaredError
from skdnn.components.losses import (
    BinaryCrossentropy,
    CategoricalCrossentropy,
    MultilabelCrossentropy,
    resolve_regression_loss,
)

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
    assert MultilabelCrossentropy.out_activation == "logistic"
    assert Poisson.out_activation == "exp"
    assert RegressionLoss.out_activation == "identity"


# losses of numbers: regression, and several labels a row ------------------------------------------------------------------


def numpy_huber(z, y, loss):
    size = np.abs(z - y)
    return np.where(size <= loss.delta, size**2 / 2, loss.delta * (size - loss.delta / 2)).mean()


def numpy_pinball(z, y, loss):
    # Of each target all levels, then of the next target.
    z = z.reshape(*y.shape, len(loss.levels))
    scores = [mean_pinball_loss(y, z[:, :, i], alpha=level) for i, level in enumerate(loss.levels)]
    return np.mean(scores)


def torch_poisson(z, y, loss):
    return F.poisson_nll_loss(z, y) + (torch.xlogy(y, y) - y).mean()


def torch_pinball(z, y, loss):
    level = torch.tensor(loss.levels, dtype=z.dtype)
    residual = y.unsqueeze(-1) - z.view(*y.shape, len(loss.levels))
    return torch.maximum(level * residual, (level - 1) * residual).mean()


# For each name objects to check, torch's function of outputs, plain targets and the loss, and scikit-learn's or NumPy's.
REGRESSION_ORACLE = {
    "squared_error": (
        [SquaredError()],
        lambda z, y, loss: F.mse_loss(z, y) / 2,
        lambda z, y, loss: mean_squared_error(y, z) / 2,
    ),
    "absolute_error": (
        [AbsoluteError()],
        lambda z, y, loss: F.l1_loss(z, y),
        lambda z, y, loss: mean_absolute_error(y, z),
    ),
    "huber": (
        [Huber(), Huber(0.25), Huber(np.float32(2.0)), Huber(3)],
        lambda z, y, loss: F.huber_loss(z, y, delta=float(loss.delta)),
        numpy_huber,
    ),
    "poisson": (
        [Poisson()],
        torch_poisson,
        # Its deviance is of one target only; rows and targets are averaged alike.
        lambda z, y, loss: mean_poisson_deviance(y.ravel(), np.exp(z).ravel()) / 2,
    ),
    "quantile": (
        [Quantile(), Quantile(0.9), Quantile((0.1, 0.5, 0.9)), Quantile([0.25]), Quantile(np.array([0.7, 0.2]))],
        torch_pinball,
        numpy_pinball,
    ),
}


def multilabel_log_loss(z, y, loss):
    probabilities = 1 / (1 + np.exp(-z))
    return sum(log_loss(y[:, i], probabilities[:, i], labels=[0, 1]) for i in range(y.shape[1]))


NUMERIC = [(loss, function, reference) for losses, function, reference in REGRESSION_ORACLE.values() for loss in losses] + [
    (
        MultilabelCrossentropy(),
        lambda z, y, loss: F.binary_cross_entropy_with_logits(z, y, reduction="sum") / len(y),
        multilabel_log_loss,
    )
]
each_numeric = pytest.mark.parametrize(
    ("loss", "function", "reference"), NUMERIC, ids=[name_of(repr(loss)) for loss, *_ in NUMERIC]
)
each_number_of_targets = pytest.mark.parametrize("n_targets", [1, 3])


def numbers(loss, n_targets, scale=1.0, dtype=torch.float64, leading=()):
    """Outputs, and targets that the loss has a meaning for."""
    generator = torch.Generator().manual_seed(1)
    shape = (N_ROWS, loss.n_outputs(n_targets))
    outputs = scale * torch.randn(*leading, *shape, generator=generator, dtype=torch.float64).to(dtype)
    if isinstance(loss, MultilabelCrossentropy):
        y = torch.randint(2, (N_ROWS, n_targets), generator=generator)
    elif isinstance(loss, Poisson):
        y = torch.poisson(torch.full((N_ROWS, n_targets), 1.5), generator=generator)  # among them zeros
    else:
        y = scale * torch.randn(N_ROWS, n_targets, generator=generator, dtype=torch.float64)
    return outputs, y.to(torch.float64)


def test_every_regression_loss_has_an_oracle():
    assert set(REGRESSION_ORACLE) == set(REGRESSION_LOSSES)
    for name, (losses, *_) in REGRESSION_ORACLE.items():
        assert {type(loss) for loss in losses} == {REGRESSION_LOSSES[name]}
        assert REGRESSION_LOSSES[name]() in losses


@each_numeric
@each_number_of_targets
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_value_and_gradient_of_numbers_are_the_oracles(loss, function, reference, n_targets, dtype, tolerance):
    outputs, y = numbers(loss, n_targets, dtype=dtype)
    before, untouched = outputs.clone(), y.clone()
    targets = loss.prepare(y, outputs.shape[-1], 1.0 / N_ROWS, dtype)
    assert (targets.shape, targets.dtype) == (outputs.shape, dtype)
    value, gradient = autograd(lambda z, t: function(z, t, loss), outputs, y.to(dtype))
    torch.testing.assert_close(loss.value(outputs, targets, 1.0 / N_ROWS), value, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(gradient_of(loss, outputs, targets, 1.0 / N_ROWS), gradient, rtol=tolerance, atol=tolerance)
    assert value.item() == pytest.approx(reference(outputs.double().numpy(), y.numpy(), loss), rel=tolerance)
    assert torch.equal(outputs, before)
    assert torch.equal(y, untouched)


@each_numeric
@each_number_of_targets
def test_module_of_numbers_computes_the_same_loss(loss, function, reference, n_targets):
    outputs, y = numbers(loss, n_targets)
    value = loss.value(outputs, loss.prepare(y, outputs.shape[-1], 1.0 / N_ROWS, torch.float64), 1.0 / N_ROWS)
    torch.testing.assert_close(loss.to_module()(outputs, y), value)


@each_numeric
@each_number_of_targets
@pytest.mark.parametrize("shares_batch", [True, False])
def test_networks_in_lockstep_have_their_own_loss_of_numbers(loss, function, reference, n_targets, shares_batch):
    outputs, y = numbers(loss, n_targets, leading=(4,))
    given = y if shares_batch else y + torch.arange(4.0, dtype=y.dtype).view(-1, 1, 1)
    if isinstance(loss, MultilabelCrossentropy):
        given = given % 2
    targets = loss.prepare(given, outputs.shape[-1], 1.0 / N_ROWS, torch.float64)
    values, gradients = loss.value(outputs, targets, 1.0 / N_ROWS), gradient_of(loss, outputs, targets, 1.0 / N_ROWS)
    assert values.shape == (4,)
    for k in range(4):
        value, gradient = autograd(lambda z, t: function(z, t, loss), outputs[k], given if shares_batch else given[k])
        torch.testing.assert_close(values[k], value)
        torch.testing.assert_close(gradients[k], gradient)


@each_numeric
@each_number_of_targets
def test_a_chunk_of_batches_of_numbers_is_prepared_at_once(loss, function, reference, n_targets):
    _, y = numbers(loss, n_targets)
    chunk_of_y = torch.stack([y, y.flip(0), y.roll(1, 0)])
    untouched = chunk_of_y.clone()
    n_outputs = loss.n_outputs(n_targets)
    chunk = loss.prepare(chunk_of_y, n_outputs, 1.0 / N_ROWS, torch.float32)
    assert (chunk.shape, chunk.dtype) == ((3, N_ROWS, n_outputs), torch.float32)
    for batch, own in zip(chunk, chunk_of_y, strict=True):
        assert torch.equal(batch, loss.prepare(own, n_outputs, 1.0 / N_ROWS, torch.float32))
    assert torch.equal(chunk_of_y, untouched)


@each_numeric
def test_row_weight_is_a_factor_of_numbers_too(loss, function, reference):
    outputs, y = numbers(loss, 2)
    value, gradient = autograd(lambda z, t: function(z, t, loss), outputs, y)
    targets = loss.prepare(y, outputs.shape[-1], 3.0 / N_ROWS, torch.float64)
    torch.testing.assert_close(loss.value(outputs, targets, 3.0 / N_ROWS), 3.0 * value)
    torch.testing.assert_close(gradient_of(loss, outputs, targets, 3.0 / N_ROWS), 3.0 * gradient)


@each_numeric
def test_outputs_of_numbers_that_are_not_numbers_are_no_small_loss(loss, function, reference):
    outputs, y = numbers(loss, 2)
    outputs[2, -1] = torch.nan
    targets = loss.prepare(y, outputs.shape[-1], 1.0 / N_ROWS, torch.float64)
    assert loss.value(outputs, targets, 1.0 / N_ROWS).isnan()


@each_numeric
@pytest.mark.parametrize(("dtype", "size"), [(torch.float32, 1e15), (torch.float64, 1e150)])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_extreme_outputs_of_numbers_stay_finite(loss, function, reference, dtype, size, sign):
    outputs, y = numbers(loss, 2, dtype=dtype)
    # The exponential of more than 88 is beyond float32; minus infinity stands for a rate of 0.
    outputs = torch.full_like(outputs, sign * (80.0 if isinstance(loss, Poisson) and sign > 0 else size))
    targets = loss.prepare(y, outputs.shape[-1], 1.0 / N_ROWS, dtype)
    expected_value, expected_gradient = autograd(lambda z, t: function(z, t, loss), outputs, y.to(dtype))
    value, gradient = loss.value(outputs, targets, 1.0 / N_ROWS), gradient_of(loss, outputs, targets, 1.0 / N_ROWS)
    assert value.isfinite()
    assert gradient.isfinite().all()
    torch.testing.assert_close(value, expected_value)
    torch.testing.assert_close(gradient, expected_gradient)


# where a loss has a kink --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", [SquaredError(), AbsoluteError(), Huber()], ids=repr)
def test_a_prediction_that_is_met_is_left_alone(loss):
    outputs = torch.tensor([[1.0], [-2.0]])
    assert loss.value(outputs, outputs.clone(), 0.5) == 0
    assert torch.equal(gradient_of(loss, outputs, outputs.clone(), 0.5), torch.zeros(2, 1))


def test_the_pinball_loss_takes_a_subgradient_where_it_is_met():
    loss = Quantile((0.1, 0.9))
    outputs = torch.tensor([[1.0, 1.0]])
    targets = loss.prepare(torch.tensor([[1.0]]), 2, 1.0, torch.float32)
    assert loss.value(outputs, targets, 1.0) == 0
    slopes = 2 * gradient_of(loss, outputs, targets, 1.0)[0]  # the mean of two outputs
    assert all(-q - 1e-6 <= slope <= 1 - q + 1e-6 for slope, q in zip(slopes.tolist(), loss.levels, strict=True))


def test_huber_is_the_squared_error_within_delta_and_straight_beyond():
    residuals = torch.tensor([[-3.0], [-2.0], [-1.0], [0.0], [1.0], [2.0], [5.0]])
    zeros = torch.zeros_like(residuals)
    slopes = gradient_of(Huber(2.0), residuals, zeros, 1.0)
    assert slopes.flatten().tolist() == [-2.0, -2.0, -1.0, 0.0, 1.0, 2.0, 2.0]
    inner = residuals[1:-1]
    torch.testing.assert_close(
        Huber(2.0).value(inner, torch.zeros_like(inner), 1.0), SquaredError().value(inner, torch.zeros_like(inner), 1.0)
    )


# several levels -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("quantile", "levels"),
    [
        (0.5, [0.5]),
        ((0.1, 0.9), [0.1, 0.9]),
        ([0.9, 0.1], [0.9, 0.1]),
        (np.array([0.25, 0.75]), [0.25, 0.75]),
        (np.float64(0.2), [0.2]),
    ],
    ids=name_of,
)
def test_levels_are_a_list_in_the_order_given(quantile, levels):
    loss = resolve_regression_loss(Quantile(quantile))
    assert loss.levels == levels
    assert all(type(level) is float for level in loss.levels)
    assert [loss.n_outputs(n) for n in (1, 2, 5)] == [n * len(levels) for n in (1, 2, 5)]


def test_levels_of_a_target_lie_side_by_side():
    targets = Quantile((0.1, 0.9)).prepare(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), 4, 1.0, torch.float64)
    assert targets.tolist() == [[1.0, 1.0, 2.0, 2.0], [3.0, 3.0, 4.0, 4.0]]


def test_several_levels_are_the_mean_of_each_alone():
    outputs, y = numbers(Quantile((0.1, 0.5, 0.9)), 2)
    together = Quantile((0.1, 0.5, 0.9))
    value = together.value(outputs, together.prepare(y, 6, 1.0, torch.float64), 1.0)
    alone = [Quantile(q).value(outputs[:, i::3], y, 1.0) for i, q in enumerate(together.levels)]
    torch.testing.assert_close(value, torch.stack(alone).mean())


@pytest.mark.parametrize("level", [0.1, 0.5, 0.8])
def test_the_pinball_loss_is_least_at_the_quantile(level):
    sample = torch.linspace(-1.0, 1.0, 101, dtype=torch.float64).view(-1, 1)
    guesses = torch.linspace(-1.5, 1.5, 301, dtype=torch.float64)
    values = [Quantile(level).value(guess.expand(101, 1), sample, 1.0).item() for guess in guesses]
    assert guesses[int(np.argmin(values))] == pytest.approx(np.quantile(sample.numpy(), level), abs=0.011)


@pytest.mark.parametrize(
    "quantile",
    [0.0, 1.0, -0.1, 2, math.nan, True, (), [], (0.5, 1.0), (0.5, math.nan), ("0.5",), "0.5", None, [[0.5, 0.6]], [None]],
    ids=name_of,
)
def test_levels_out_of_range_are_refused(quantile):
    with pytest.raises(ValueError, match="quantile"):
        resolve_regression_loss(Quantile(quantile))


@pytest.mark.parametrize("quantile", [np.array(0.5), np.array([[0.1], [0.9]]), {0.5: "median"}, {0.1, 0.9}], ids=name_of)
def test_levels_that_are_no_sequence_are_refused(quantile):
    # A set and a dict have no order that the columns of predictions could have.
    with pytest.raises(ValueError, match="quantile"):
        resolve_regression_loss(Quantile(quantile))


# smoothed labels ----------------------------------------------------------------------------------------------------------


def smoothed(loss, y, n_outputs):
    """Targets of one column a class, or a label."""
    share = loss.label_smoothing
    if isinstance(loss, CategoricalCrossentropy):
        return (1.0 - share) * F.one_hot(y, n_outputs).double() + share / n_outputs
    y = y.double() if isinstance(loss, MultilabelCrossentropy) else y.double().unsqueeze(-1)
    return (1.0 - share) * y + share / 2.0


def loss_of_smoothed(loss, z, y, weight):
    """By torch's losses, with the weight of each row, or of each output."""
    if isinstance(loss, CategoricalCrossentropy):
        losses = F.cross_entropy(z, y, reduction="none", label_smoothing=loss.label_smoothing).unsqueeze(-1)
        expected = -(smoothed(loss, y, z.shape[-1]) * torch.log_softmax(z, -1)).sum(-1, keepdim=True)
        torch.testing.assert_close(losses, expected)
    else:
        losses = F.binary_cross_entropy_with_logits(z, smoothed(loss, y, z.shape[-1]), reduction="none")
    return (weight * losses).sum()


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5, 0.99])
@pytest.mark.parametrize("make", [CategoricalCrossentropy, BinaryCrossentropy, MultilabelCrossentropy])
@pytest.mark.parametrize("n_weights", [0, 1, 3])
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_smoothed_labels_are_torchs(make, smoothing, n_weights, scale):
    loss = make(smoothing)
    n_outputs, n_classes = (1, 2) if make is BinaryCrossentropy else (3, 3)
    outputs, y = data(n_outputs, n_classes, scale)
    if make is MultilabelCrossentropy:
        y = torch.randint(2, (N_ROWS, 3), generator=torch.Generator().manual_seed(3))
    n_weights = min(n_weights, 1 if make is CategoricalCrossentropy else n_outputs)
    generator = torch.Generator().manual_seed(2)
    weight = torch.rand(N_ROWS, n_weights, generator=generator, dtype=torch.float64) if n_weights else 1.0 / N_ROWS
    before, untouched = y.clone(), outputs.clone()
    targets = loss.prepare(y, n_outputs, weight, torch.float64)
    value, gradient = autograd(lambda z, t: loss_of_smoothed(loss, z, t, weight), outputs, y)
    torch.testing.assert_close(loss.value(outputs, targets, weight), value, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(gradient_of(loss, outputs, targets, weight), gradient, rtol=1e-10, atol=1e-12)
    assert torch.equal(y, before)
    assert torch.equal(outputs, untouched)


@pytest.mark.parametrize("smoothing", [0.1, np.float32(0.1)])
@pytest.mark.parametrize("make", [CategoricalCrossentropy, BinaryCrossentropy, MultilabelCrossentropy])
def test_the_module_of_smoothed_labels_computes_the_same_loss(make, smoothing):
    loss = make(smoothing)
    n_outputs, n_classes = (1, 2) if make is BinaryCrossentropy else (3, 3)
    outputs, y = data(n_outputs, n_classes)
    if make is MultilabelCrossentropy:
        y = torch.randint(2, (N_ROWS, 3), generator=torch.Generator().manual_seed(3))
    expected = loss_of_smoothed(loss, outputs, y, 1.0 / N_ROWS)
    torch.testing.assert_close(loss.to_module()(outputs, y), expected)


@pytest.mark.parametrize("make", [CategoricalCrossentropy, BinaryCrossentropy])
def test_smoothed_labels_of_networks_in_lockstep(make):
    loss = make(0.2)
    n_outputs, n_classes = (1, 2) if make is BinaryCrossentropy else (3, 3)
    outputs, y = data(n_outputs, n_classes, leading=(4,))
    weight = torch.rand(1, N_ROWS, 1, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    targets = loss.prepare(y.view(1, -1), n_outputs, weight, torch.float64)
    values, gradients = loss.value(outputs, targets, weight), gradient_of(loss, outputs, targets, weight)
    for k in range(4):
        value, gradient = autograd(lambda z, t: loss_of_smoothed(loss, z, t, weight[0]), outputs[k], y)
        torch.testing.assert_close(values[k], value)
        torch.testing.assert_close(gradients[k], gradient)


@pytest.mark.parametrize("make", [CategoricalCrossentropy, BinaryCrossentropy, MultilabelCrossentropy])
@pytest.mark.parametrize("smoothing", [1.0, -0.1, math.nan, "0.1", None])
def test_smoothing_out_of_range_is_refused(make, smoothing):
    with pytest.raises(ValueError, match="label_smoothing"):
        make(smoothing).validate()


# what losses say of themselves --------------------------------------------------------------------------------------------


def test_guessing():
    # Without knowing a row each class, and each label, is as probable as its opposite.
    for loss, n_outputs, n_classes in [(CategoricalCrossentropy(), 4, 4), (BinaryCrossentropy(), 1, 2)]:
        y = torch.arange(n_classes)
        targets = loss.prepare(y, n_outputs, 1.0 / len(y), torch.float64)
        value = loss.value(torch.zeros(len(y), n_outputs, dtype=torch.float64), targets, 1.0 / len(y))
        assert loss.of_guessing(n_outputs) == pytest.approx(value.item())
    labels = torch.tensor([[0, 1, 1], [1, 0, 1]])
    loss = MultilabelCrossentropy()
    value = loss.value(torch.zeros(2, 3), loss.prepare(labels, 3, 0.5, torch.float32), 0.5)
    assert loss.of_guessing(3) == pytest.approx(value.item())


@pytest.mark.parametrize("n_labels", [1, 3])
@pytest.mark.parametrize("dtype", [torch.int64, torch.float32, torch.float64])
def test_labels_of_any_dtype_are_left_alone(n_labels, dtype):
    y = torch.ones(4, n_labels, dtype=dtype)
    prepared = MultilabelCrossentropy().prepare(y, n_labels, 0.25, torch.float64)
    assert prepared.dtype == torch.float64
    assert torch.equal(prepared, torch.full((4, n_labels), 0.25, dtype=torch.float64))
    assert torch.equal(y, torch.ones(4, n_labels, dtype=dtype))


@pytest.mark.parametrize("name", REGRESSION_LOSSES)
def test_which_targets_a_loss_takes(name):
    loss = REGRESSION_LOSSES[name]()
    assert loss.check(np.array([[0.0, 1.0], [2.5, 0.0]])) is None
    if name == "poisson":
        for y in ([[1.0], [-1e-9]], [[0.0], [0.0]]):
            with pytest.raises(ValueError, match="loss='poisson' needs targets >= 0, not all of them 0, got values from"):
                loss.check(np.array(y))
    else:
        assert loss.check(np.array([[-1.0], [0.0]])) is None


@pytest.mark.parametrize("name", REGRESSION_LOSSES)
@pytest.mark.parametrize("sample_weight", [None, [1.0, 0.0, 2.0, 3.0]])
def test_a_losss_common_scale(name, sample_weight):
    y = np.array([[1.0, 2.0], [5.0, 2.0], [0.0, 2.0], [3.0, 2.0]])
    counts = np.ones(4, dtype=int) if sample_weight is None else np.int64(sample_weight)
    repeated = np.repeat(y, counts, axis=0)
    mean, scale = REGRESSION_LOSSES[name]().standardization(y, sample_weight)
    if name == "poisson":
        np.testing.assert_allclose((mean, scale), (np.zeros(2), repeated.mean(0)), rtol=1e-14)
    else:
        np.testing.assert_allclose((mean, scale), (repeated.mean(0), [repeated[:, 0].std(), 1.0]), rtol=1e-14)


def test_predictions_are_in_the_unit_of_the_targets():
    outputs = torch.tensor([[-1.0, 0.0, 2.0]])
    for name, make in REGRESSION_LOSSES.items():
        expected = outputs.exp() if name == "poisson" else outputs
        assert torch.equal(make().predict(outputs), expected)
    assert torch.equal(outputs, torch.tensor([[-1.0, 0.0, 2.0]]))


def test_no_loss_is_refused_with_the_names():
    with pytest.raises(ValueError, match=r"loss must not be None.*'squared_error', 'absolute_error', 'huber'"):
        resolve_regression_loss(None)
