import pytest
import torch
from layer_step import draw, gradcheck, run_calls

from skdnn.components import ACTIVATIONS, ELU, BatchNorm, CallableActivation, LeakyReLU
from skdnn.engine.layers import Activate, BatchNormalization, Dense, Dropout, OneByOne, _draw_mask

N_ROWS, N_IN, N_OUT = 6, 4, 3

networks = pytest.mark.parametrize("n_networks", [1, 3])


def dense_run(n_networks, is_first):
    def run(inputs, gradient):
        x, kernel, bias = inputs
        kernel_gradient, bias_gradient = torch.full_like(kernel, torch.nan), torch.full_like(bias, torch.nan)
        layer = Dense(kernel, bias, kernel_gradient, bias_gradient, n_networks, is_first=is_first)
        outputs = run_calls(layer.forward(x))
        return outputs if gradient is None else (run_calls(layer.backward(gradient)), kernel_gradient, bias_gradient)

    return run


@networks
def test_dense_gradients(n_networks):
    inputs = draw(n_networks, N_ROWS, N_IN), draw(n_networks, N_OUT, N_IN), draw(n_networks, N_OUT)
    assert gradcheck(dense_run(n_networks, is_first=False), *inputs)


@networks
@pytest.mark.parametrize("is_shared", [True, False], ids=["shared", "own"])
def test_first_dense_gradients(n_networks, is_shared):
    x = draw(1 if is_shared else n_networks, N_ROWS, N_IN, requires_grad=False)
    assert gradcheck(dense_run(n_networks, is_first=True), x, draw(n_networks, N_OUT, N_IN), draw(n_networks, N_OUT))


@networks
def test_dense_writes_where_it_is_told_and_infers_the_same(n_networks):
    x, kernel, bias = draw(1, N_ROWS, N_IN), draw(n_networks, N_OUT, N_IN), draw(n_networks, N_OUT)
    with torch.inference_mode():
        layer = Dense(kernel.detach(), bias.detach(), None, None, n_networks, is_first=True)
        out = torch.empty_like(draw(n_networks, N_ROWS, N_OUT))
        assert run_calls(layer.forward(x, out)) is out
        torch.testing.assert_close(layer.infer(x), out)
        torch.testing.assert_close(out, x @ kernel.mT + bias.unsqueeze(-2))


def normalization(n_networks, scale, shift, scale_gradient=None, shift_gradient=None, **settings):
    scale_gradient = torch.full_like(scale, torch.nan) if scale_gradient is None else scale_gradient
    shift_gradient = torch.full_like(shift, torch.nan) if shift_gradient is None else shift_gradient
    mean, variance = torch.zeros_like(scale), torch.ones_like(scale)
    tensors = scale, shift, scale_gradient, shift_gradient, mean, variance
    if n_networks == 1:
        return BatchNormalization(*tensors, BatchNorm(**settings)), mean, variance
    layers = [BatchNormalization(*own, BatchNorm(**settings)) for own in zip(*tensors, strict=True)]
    return OneByOne(layers, N_OUT, scale), mean, variance


@networks
def test_batch_normalization_gradients(n_networks):
    def run(inputs, gradient):
        x, scale, shift = inputs
        scale_gradient, shift_gradient = torch.full_like(scale, torch.nan), torch.full_like(shift, torch.nan)
        layer, _, _ = normalization(n_networks, scale, shift, scale_gradient, shift_gradient)
        outputs = run_calls(layer.forward(x))
        return outputs if gradient is None else (run_calls(layer.backward(gradient)), scale_gradient, shift_gradient)

    assert gradcheck(run, draw(n_networks, N_ROWS, N_OUT), draw(n_networks, N_OUT), draw(n_networks, N_OUT))


@networks
def test_batch_normalization_is_torchs_with_momentum_turned_round(n_networks):
    scale, shift = draw(n_networks, N_OUT, requires_grad=False), draw(n_networks, N_OUT, requires_grad=False)
    layer, mean, variance = normalization(n_networks, scale, shift, momentum=0.7, epsilon=1e-3)
    oracles = []
    for k in range(n_networks):
        oracle = torch.nn.BatchNorm1d(N_OUT, eps=1e-3, momentum=0.3, dtype=torch.float64)
        oracle.load_state_dict(
            {"weight": scale.view(-1, N_OUT)[k], "bias": shift.view(-1, N_OUT)[k]}
            | {"running_mean": torch.zeros(N_OUT), "running_var": torch.ones(N_OUT), "num_batches_tracked": torch.tensor(0)}
        )
        oracles.append(oracle)
    for n_rows in (6, 6, 3):
        x = draw(n_networks, n_rows, N_OUT, requires_grad=False)
        with torch.inference_mode():
            outputs = run_calls(layer.forward(x))
        for k, oracle in enumerate(oracles):
            torch.testing.assert_close(outputs.view(-1, n_rows, N_OUT)[k], oracle(x.view(-1, n_rows, N_OUT)[k]))
    x = draw(1, 5, N_OUT, requires_grad=False)
    with torch.inference_mode():
        outputs = layer.infer(x if n_networks == 1 else x.expand(n_networks, -1, -1))
    for k, oracle in enumerate(oracles):
        torch.testing.assert_close(mean.view(-1, N_OUT)[k], oracle.running_mean)
        torch.testing.assert_close(variance.view(-1, N_OUT)[k], oracle.running_var)
        torch.testing.assert_close(outputs.view(-1, 5, N_OUT)[k], oracle.eval()(x))


ACTIVATION_CASES = {
    **{name: make() for name, make in ACTIVATIONS.items()},
    "steep_leaky_relu": LeakyReLU(alpha=0.4),
    "scaled_elu": ELU(alpha=0.6),
    "callable": CallableActivation(torch.sin),
    "module_class": CallableActivation(torch.nn.Softsign),
}


def away_from_kinks(n_networks):
    """Values on both sides of 0 and beyond -3 and 3, where the pieces of some functions meet, but near none of them."""
    z = torch.linspace(-4.03, 4.11, n_networks * N_ROWS * N_OUT, dtype=torch.float64)
    assert min((z - kink).abs().min() for kink in (-3, 0, 3)) > 1e-3
    return z.view(*(() if n_networks == 1 else (n_networks,)), N_ROWS, N_OUT).requires_grad_()


@networks
@pytest.mark.parametrize("activation", ACTIVATION_CASES.values(), ids=ACTIVATION_CASES)
def test_activation_gradients(activation, n_networks):
    def run(inputs, gradient):
        layer = Activate([activation] * n_networks, N_OUT, inputs[0])
        outputs = run_calls(layer.forward(inputs[0]))
        return outputs if gradient is None else (run_calls(layer.backward(gradient)),)

    assert gradcheck(run, away_from_kinks(n_networks))


@pytest.mark.parametrize("activation", ACTIVATION_CASES.values(), ids=ACTIVATION_CASES)
def test_activation_is_its_modules_function_in_training_and_prediction(activation):
    z = away_from_kinks(3).detach()
    expected = activation.to_module()(z)
    with torch.inference_mode():
        layer = Activate([activation] * 3, N_OUT, z)
        torch.testing.assert_close(run_calls(layer.forward(z.clone())), expected)
        torch.testing.assert_close(layer.infer(z.clone()), expected)


def dropout_layer(rates, like, seed=0):
    generators = [torch.Generator().manual_seed(seed + k) for k in range(len(rates))]
    return Dropout(rates, generators, like.shape[-1], like), generators


@pytest.mark.parametrize("rates", [(0.5,), (0.5, 0.0, 0.2)], ids=["one", "three"])
def test_dropout_gradients_with_its_mask_fixed(rates):
    def run(inputs, gradient):
        layer, _ = dropout_layer(rates, inputs[0])
        masks = layer.make_masks(1, N_ROWS)
        masks.draw(1)
        layer.mask = masks.of(0)
        outputs = run_calls(layer.forward(inputs[0]))
        return outputs if gradient is None else (run_calls(layer.backward(gradient)),)

    assert gradcheck(run, draw(len(rates), N_ROWS, N_OUT))


def test_dropout_masks_have_the_share_of_zeros_and_the_mean_of_one():
    ones = torch.ones(4000, 5, dtype=torch.float64)
    rates = (0.5, 0.0, 0.2)
    layer, generators = dropout_layer(rates, ones)
    untouched = generators[1].get_state()
    with torch.inference_mode():
        masks = layer.make_masks(2, len(ones))
        masks.draw(2)
        recorded = []
        for i in range(2):
            layer.mask = masks.of(i)
            recorded.append(layer.forward(ones))
        first, second = (run_calls(pass_).clone() for pass_ in recorded)
        masks.draw(2)
        again = run_calls(recorded[0]).clone()
    assert not torch.equal(first[0], second[0])
    assert not torch.equal(first[0], again[0])  # a recorded pass sees the masks drawn last
    for own, rate in zip(first, rates, strict=True):
        # 20,000 draws: five standard deviations of their share are at most 0.018.
        assert abs((own == 0.0).double().mean() - rate) < 0.018
        factor = own.max().item()
        assert set(own.unique().tolist()) <= {0.0, factor}
        assert factor == pytest.approx(1.0 / (1.0 - rate), rel=2**-16)  # rates are rounded to multiples of 2**-16
    assert torch.equal(generators[1].get_state(), untouched)
    assert torch.equal(layer.infer(ones), ones)


@pytest.mark.parametrize("rate", [1e-9, 0.1, 0.5, 0.77, 1.0 - 1e-9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_masks_keep_the_mean_and_are_the_same_in_every_dtype(rate, dtype):
    mask, again = (torch.empty(401, 1001, dtype=kind) for kind in (dtype, torch.float64))
    for each in (mask, again):
        _draw_mask(each, rate, torch.Generator().manual_seed(0))
    share = (mask == 0.0).double().mean().item()
    assert share == pytest.approx(rate, abs=5 * (rate * (1.0 - rate) / mask.numel()) ** 0.5 + 2**-15)
    assert mask.max().item() == pytest.approx(1.0 if rate < 0.01 else 1.0 / (1.0 - rate) if rate < 0.99 else 2**16, rel=2**-15)
    assert torch.equal(mask.double(), again) or torch.allclose(mask.double(), again, rtol=1e-7)


def test_elements_of_a_mask_are_independent():
    mask = _draw_mask(torch.empty(2**20), 0.25, torch.Generator().manual_seed(0)) == 0.0
    for lag in range(1, 9):  # neighbours share a random word
        both = (mask[:-lag] & mask[lag:]).double().mean().item()
        assert both == pytest.approx(0.0625, abs=5 * (0.0625 / 2**20) ** 0.5)


def test_buffers_are_kept_for_each_number_of_rows():
    x = draw(1, N_ROWS, N_IN, requires_grad=False)
    layer = Dense(torch.ones(N_OUT, N_IN).double(), torch.zeros(N_OUT).double(), None, None, 1, is_first=True)
    with torch.inference_mode():
        full, tail, again = run_calls(layer.forward(x)), run_calls(layer.forward(x[:2])), run_calls(layer.forward(x))
    assert full.data_ptr() == again.data_ptr() != tail.data_ptr()
    assert not full.is_inference()
