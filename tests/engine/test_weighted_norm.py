"""Batch normalisation of weighted rows is torch's batch normalisation of repeated rows."""

import pytest
import torch
from layer_step import draw, gradcheck, run_calls

from skdnn.components import BatchNorm
from skdnn.engine.layers import BatchNormalization, OneByOne

N_ROWS, N_UNITS = 6, 3
MOMENTUM, EPSILON = 0.7, 1e-3
COUNTS = torch.tensor([[3, 1, 2, 1, 5, 2], [1, 1, 1, 2, 1, 9], [4, 4, 1, 1, 1, 1]])

# One network; three that share the rows and their weights; three that have their own.
POPULATIONS = pytest.mark.parametrize(("n_networks", "is_own"), [(1, False), (3, False), (3, True)], ids=["1", "shared", "own"])


def weights_of(n_networks, is_own, counts=COUNTS):
    """Weights of shape ([1 or K,] n_rows, 1)."""
    weights = counts.double().unsqueeze(-1)
    return weights[0] if n_networks == 1 else weights if is_own else weights[:1]


def row_weights(weights):
    """What the layer is given for a batch: shares and count."""
    count = weights.sum(-2, keepdim=True)
    return weights / count, count


def make_layer(scale, shift, weights, n_networks=1):
    """A layer, and the tensors that it fills: gradients of scale and shift, running mean and variance."""
    filled = [torch.full_like(tensor, torch.nan) for tensor in (scale, shift)]
    filled += [torch.zeros_like(scale), torch.ones_like(scale)]
    tensors, norm = (scale, shift, *filled), BatchNorm(momentum=MOMENTUM, epsilon=EPSILON)
    if n_networks == 1:
        layer = BatchNormalization(*tensors, norm)
    else:
        layer = OneByOne([BatchNormalization(*own, norm) for own in zip(*tensors, strict=True)], N_UNITS, scale)
    layer.row_weights = None if weights is None else row_weights(weights)
    return layer, filled


def run_both(layer, x, gradient):
    """Outputs and input gradient of one batch; the layer may overwrite what it is given."""
    with torch.inference_mode():
        outputs = run_calls(layer.forward(x.clone())).clone()
        return outputs, run_calls(layer.backward(gradient.clone())).clone()


def torchs_norm(scale, shift):
    oracle = torch.nn.BatchNorm1d(N_UNITS, eps=EPSILON, momentum=1.0 - MOMENTUM, dtype=scale.dtype)
    with torch.no_grad():
        oracle.weight.copy_(scale)
        oracle.bias.copy_(shift)
    return oracle


@POPULATIONS
def test_gradients(n_networks, is_own):
    weights = weights_of(n_networks, is_own) * torch.tensor([0.3, 1.0, 1.7, 0.01, 2.5, 0.9], dtype=torch.float64).unsqueeze(-1)

    def run(inputs, gradient):
        x, scale, shift = inputs
        layer, (scale_gradient, shift_gradient, _, _) = make_layer(scale, shift, weights, n_networks)
        outputs = run_calls(layer.forward(x))
        return outputs if gradient is None else (run_calls(layer.backward(gradient)), scale_gradient, shift_gradient)

    assert gradcheck(run, draw(n_networks, N_ROWS, N_UNITS), draw(n_networks, N_UNITS), draw(n_networks, N_UNITS))


@POPULATIONS
def test_integer_weights_are_repeated_rows(n_networks, is_own):
    scale, shift = (draw(n_networks, N_UNITS, requires_grad=False) + offset for offset in (0.0, 1.0))
    layer, filled = make_layer(scale, shift, None, n_networks)
    oracles = [torchs_norm(scale.view(-1, N_UNITS)[k], shift.view(-1, N_UNITS)[k]) for k in range(n_networks)]
    for n_rows in (6, 4, 6):
        counts = COUNTS[:, :n_rows].flip(-1)
        layer.row_weights = row_weights(weights_of(n_networks, is_own, counts))
        x, gradient = (draw(n_networks, n_rows, N_UNITS, requires_grad=False) + 3.0 * offset for offset in (1, 0))
        outputs, input_gradient = run_both(layer, x, gradient)
        for k, oracle in enumerate(oracles):
            leaf = x.view(-1, n_rows, N_UNITS)[k].clone().requires_grad_()
            times = counts[k if is_own else 0]
            expected = oracle(leaf.repeat_interleave(times, 0))
            torch.testing.assert_close(outputs.view(-1, n_rows, N_UNITS)[k].repeat_interleave(times, 0), expected.detach())
            oracle.zero_grad()
            # Of a row's gradient each of its copies has an equal part.
            own = gradient.view(-1, n_rows, N_UNITS)[k] / times.unsqueeze(-1)
            expected.backward(own.repeat_interleave(times, 0))
            torch.testing.assert_close(input_gradient.view(-1, n_rows, N_UNITS)[k], leaf.grad)
            learned = oracle.weight.grad, oracle.bias.grad, oracle.running_mean, oracle.running_var
            for tensor, like in zip(filled, learned, strict=True):
                torch.testing.assert_close(tensor.view(-1, N_UNITS)[k], like)
    x = draw(1, 5, N_UNITS, requires_grad=False)
    with torch.inference_mode():
        outputs = layer.infer(x if n_networks == 1 else x.expand(n_networks, -1, -1)).view(-1, 5, N_UNITS)
    for own, oracle in zip(outputs, oracles, strict=True):
        torch.testing.assert_close(own, oracle.eval()(x))


@POPULATIONS
@pytest.mark.parametrize("weight", [1.0, 1e-3, 1e-30])
def test_equal_weights_are_none(n_networks, is_own, weight):
    # Weights that are no counts do not make a row less than one: so the running variance is that of n_rows rows.
    scale, shift = (draw(n_networks, N_UNITS, requires_grad=False) for _ in range(2))
    x, gradient = (draw(n_networks, N_ROWS, N_UNITS, requires_grad=False) + offset for offset in (2.0, 0.0))
    weights = weight * torch.ones_like(weights_of(n_networks, is_own))
    weighted, of_weighted = make_layer(scale, shift, weights, n_networks)
    plain, of_plain = make_layer(scale, shift, None, n_networks)
    torch.testing.assert_close(run_both(weighted, x, gradient), run_both(plain, x, gradient), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(of_weighted, of_plain, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("weights", [[0.3, 0.1], [0.6, 0.4], [1.0, 1e-30], [1e-30, 1e-30], [1e-12, 1.0], [1e6, 1e-30]])
def test_weights_that_sum_to_little_blow_nothing_up(weights, dtype):
    weights = torch.tensor(weights, dtype=dtype).view(-1, 1)
    x = torch.tensor([[1.0, -20.0, 3.0], [1.5, 30.0, 3.0]], dtype=dtype)
    scale, shift = torch.full((N_UNITS,), 2.0, dtype=dtype), torch.zeros(N_UNITS, dtype=dtype)
    layer, (*gradients, mean, variance) = make_layer(scale, shift, weights)
    outputs, input_gradient = run_both(layer, x, torch.ones_like(x))
    for tensor in (outputs, input_gradient, *gradients, mean, variance):
        assert tensor.isfinite().all()
    shares = weights / weights.sum()
    expected = (shares * (x - (shares * x).sum(0)).square()).sum(0)
    factor = max(weights.sum().item(), 2.0)
    new = (variance - MOMENTUM) / (1.0 - MOMENTUM)
    torch.testing.assert_close(new, expected * factor / (factor - 1.0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mean, (1.0 - MOMENTUM) * (shares * x).sum(0), rtol=1e-5, atol=1e-6)


def test_a_row_that_hardly_counts_is_a_row_left_out():
    scale, shift = draw(1, N_UNITS, requires_grad=False), draw(1, N_UNITS, requires_grad=False)
    x, gradient = draw(1, N_ROWS, N_UNITS, requires_grad=False), draw(1, N_ROWS, N_UNITS, requires_grad=False)
    weights = weights_of(1, False)
    weights[2] = 1e-30
    gradient[2] = 0.0  # its loss counts nothing, too
    kept = [0, 1, 3, 4, 5]
    whole, of_whole = make_layer(scale, shift, weights)
    part, of_part = make_layer(scale, shift, weights[kept])
    for mine, theirs in zip(run_both(whole, x, gradient), run_both(part, x[kept], gradient[kept]), strict=True):
        torch.testing.assert_close(mine[kept], theirs)
    torch.testing.assert_close(of_whole, of_part)


def test_recorded_passes_see_the_rows_and_weights_of_the_moment():
    scale, shift = draw(1, N_UNITS, requires_grad=False), draw(1, N_UNITS, requires_grad=False)
    x, gradient = draw(1, N_ROWS, N_UNITS, requires_grad=False), draw(1, N_ROWS, N_UNITS, requires_grad=False)
    layer, _ = make_layer(scale, shift, weights_of(1, False).flip(0))
    buffers = x + 5.0, gradient.clone()
    with torch.inference_mode():
        outputs, forward = layer.forward(buffers[0])
        input_gradient, backward = layer.backward(buffers[1])
        for call in forward + backward:
            call()
        for buffer, value in zip(
            (*buffers, *layer.row_weights), (x, gradient, *row_weights(weights_of(1, False))), strict=True
        ):
            buffer.copy_(value)
        for call in forward + backward:
            call()
    expected = run_both(make_layer(scale, shift, weights_of(1, False))[0], x, gradient)
    torch.testing.assert_close((outputs, input_gradient), expected)
