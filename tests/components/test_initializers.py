import math
import random

import numpy as np
import pytest
import torch
from naming import name_of

from skdnn.components import (
    ACTIVATIONS,
    INITIALIZERS,
    CallableActivation,
    CallableInitializer,
    Glorot,
    He,
    LeCun,
    Normal,
    Orthogonal,
    ReLU,
    Tanh,
    Uniform,
    Zeros,
)
from skdnn.components.activations import resolve_activation
from skdnn.components.initializers import resolve_initializer

N_OUT, N_IN = 300, 500

# The standard deviation for (n_in, n_out), and the fourth moment over the squared second: 9/5 is uniform, 3 is normal.
ORACLE = {
    "glorot_uniform": (lambda n_in, n_out: math.sqrt(6.0 / (n_in + n_out)) / math.sqrt(3.0), 1.8),
    "glorot_normal": (lambda n_in, n_out: math.sqrt(2.0 / (n_in + n_out)), 3.0),
    "he_uniform": (lambda n_in, n_out: math.sqrt(6.0 / n_in) / math.sqrt(3.0), 1.8),
    "he_normal": (lambda n_in, n_out: math.sqrt(2.0 / n_in), 3.0),
    "lecun_uniform": (lambda n_in, n_out: math.sqrt(3.0 / n_in) / math.sqrt(3.0), 1.8),
    "lecun_normal": (lambda n_in, n_out: math.sqrt(1.0 / n_in), 3.0),
    "orthogonal": (lambda n_in, n_out: 1.0 / math.sqrt(max(n_in, n_out)), 3.0),
    "normal": (lambda n_in, n_out: 0.05, 3.0),
    "uniform": (lambda n_in, n_out: 0.05 / math.sqrt(3.0), 1.8),
    "zeros": (lambda n_in, n_out: 0.0, None),
}
# The gain of "auto" by activation, and the initializer of "auto".
OF_ACTIVATION = {
    "identity": (1.0, Glorot("uniform")),
    "logistic": (1.0, Glorot("uniform")),
    "tanh": (4.0, Glorot("uniform")),
    "relu": (math.sqrt(2.0), He("normal")),
    "leaky_relu": (math.sqrt(2.0), He("normal")),
    "elu": (math.sqrt(2.0), He("normal")),
    "selu": (1.0, LeCun("normal")),
    "gelu": (math.sqrt(2.0), He("normal")),
    "silu": (math.sqrt(2.0), He("normal")),
    "softplus": (math.sqrt(2.0), He("normal")),
    "mish": (math.sqrt(2.0), He("normal")),
    "hard_swish": (math.sqrt(2.0), He("normal")),
}


def drawn(initializer, shape=(N_OUT, N_IN), seed=0, gain=1.0):
    kernel = torch.full(shape, torch.nan, dtype=torch.float64)
    assert initializer.fill(kernel, torch.Generator().manual_seed(seed), gain) is None
    return kernel


def test_oracles_are_complete():
    assert set(ORACLE) == set(INITIALIZERS)
    assert set(OF_ACTIVATION) == set(ACTIVATIONS)


@pytest.mark.parametrize("name", ORACLE)
@pytest.mark.parametrize("shape", [(N_OUT, N_IN), (N_IN, N_OUT)])
def test_distribution_is_that_of_the_formula(name, shape):
    n_out, n_in = shape
    std_of, kurtosis = ORACLE[name]
    std = std_of(n_in, n_out)
    kernel = drawn(INITIALIZERS[name](), shape)
    if std == 0.0:
        assert not kernel.any()
        return
    # With 150,000 draws the standard error of the mean is std / 387, that of the deviation below std / 540.
    assert abs(kernel.mean()) < std * 4 / 387
    assert kernel.std() == pytest.approx(std, rel=4 / 540)
    assert (kernel / std).pow(4).mean() == pytest.approx(kurtosis, abs=0.06)
    if kurtosis == 1.8:
        limit = math.sqrt(3.0) * std
        assert limit * 0.9998 < kernel.abs().max() <= limit


@pytest.mark.parametrize("make", [Glorot, LeCun, He])
@pytest.mark.parametrize("distribution", ["uniform", "normal"])
def test_gain_is_a_factor(make, distribution):
    plain = drawn(make(distribution))
    torch.testing.assert_close(drawn(make(distribution, gain=0.5)), 0.5 * plain, rtol=1e-12, atol=0.0)
    # A gain that is a number is not multiplied by the activation's.
    torch.testing.assert_close(drawn(make(distribution), gain=4.0), plain, rtol=0.0, atol=0.0)


@pytest.mark.parametrize("name", OF_ACTIVATION)
def test_auto_gain_is_the_chapters_table(name):
    gain, _ = OF_ACTIVATION[name]
    activation = ACTIVATIONS[name]()
    assert activation.gain == pytest.approx(gain, rel=1e-15)
    for make in (Glorot, LeCun, Orthogonal):
        automatic = drawn(make(gain="auto"), (20, 30), gain=activation.gain)
        torch.testing.assert_close(automatic, gain * drawn(make(), (20, 30)), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", OF_ACTIVATION)
def test_auto_initializer_suits_the_activation(name):
    assert resolve_initializer("auto", ACTIVATIONS[name]()) == OF_ACTIVATION[name][1]


def test_auto_initializer_of_what_no_table_knows():
    assert resolve_initializer("auto", None) == Glorot("uniform")
    assert resolve_initializer("auto", resolve_activation(torch.sin)) == Glorot("uniform")
    assert CallableActivation(torch.sin).gain == 1.0


def test_he_has_no_automatic_gain():
    # Its formula holds ReLU's already.
    with pytest.raises(ValueError, match="'gain' parameter of He"):
        resolve_initializer(He(gain="auto"), ReLU())


@pytest.mark.parametrize("gain", [1.0, 2.5])
@pytest.mark.parametrize("shape", [(40, 40), (30, 50), (50, 30), (1, 7), (7, 1)])
def test_orthogonal_has_orthonormal_rows_or_columns(shape, gain):
    kernel = drawn(Orthogonal(gain), shape)
    product = kernel @ kernel.T if shape[0] <= shape[1] else kernel.T @ kernel
    torch.testing.assert_close(product, gain**2 * torch.eye(min(shape), dtype=torch.float64), rtol=1e-12, atol=1e-12)


def test_own_numbers_are_used():
    assert drawn(Normal(stddev=0.1, mean=2.0)).mean() == pytest.approx(2.0, abs=0.002)
    assert drawn(Normal(stddev=0.1, mean=2.0)).std() == pytest.approx(0.1, rel=0.01)
    kernel = drawn(Uniform(1.0, 3.0))
    assert 1.0 <= kernel.min() < 1.001
    assert 2.999 < kernel.max() <= 3.0


@pytest.mark.parametrize(("minval", "maxval"), [(0.0, 0.0), (1.0, -1.0)])
def test_uniform_limits_must_ascend(minval, maxval):
    with pytest.raises(ValueError, match="minval must be less than maxval"):
        resolve_initializer(Uniform(minval, maxval), ReLU())


def takes_generator(kernel, generator):
    return kernel.normal_(generator=generator)


# Functions that draw, with and without a generator, in place and not.
DRAWING = [
    torch.nn.init.xavier_uniform_,
    torch.nn.init.trunc_normal_,
    takes_generator,
    lambda kernel: torch.randn_like(kernel),
    lambda kernel: torch.nn.init.kaiming_uniform_(kernel, nonlinearity="relu"),
    lambda kernel: torch.rand(kernel.shape, dtype=torch.float32),
    torch.Tensor.normal_,
]
DRAWN = [make() for name, make in INITIALIZERS.items() if name != "zeros"] + [CallableInitializer(draw) for draw in DRAWING]


@pytest.mark.parametrize("initializer", DRAWN, ids=name_of)
def test_draws_depend_on_the_generator_alone(initializer):
    first = drawn(initializer, (20, 30), seed=1)
    torch.rand(3)  # a moved global generator makes no difference
    assert torch.equal(drawn(initializer, (20, 30), seed=1), first)
    assert not torch.equal(drawn(initializer, (20, 30), seed=2), first)
    generator = torch.Generator().manual_seed(1)
    layers = torch.empty(2, 20, 30, dtype=torch.float64)
    for kernel in layers:
        initializer.fill(kernel, generator)
    assert torch.equal(layers[0], first)
    assert not torch.equal(layers[1], first)


@pytest.mark.parametrize("initializer", [*DRAWN, Zeros()], ids=name_of)
def test_global_generators_do_not_move(initializer):
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    drawn(initializer, (20, 30))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    assert random.getstate() == before[2]


def test_global_generator_is_put_back_when_the_function_raises():
    def fails(kernel):
        torch.rand(3)
        raise RuntimeError("no kernel today")

    before = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="no kernel today"):
        drawn(CallableInitializer(fails), (2, 3))
    assert torch.equal(torch.get_rng_state(), before)


def test_torchs_own_functions_draw_from_the_given_generator():
    expected = torch.empty(20, 30, dtype=torch.float64)
    torch.nn.init.xavier_uniform_(expected, generator=torch.Generator().manual_seed(3))
    assert torch.equal(drawn(CallableInitializer(torch.nn.init.xavier_uniform_), (20, 30), seed=3), expected)


VALUES = np.arange(6.0).reshape(2, 3)


def fills(kernel):
    kernel.copy_(torch.from_numpy(VALUES))


@pytest.mark.parametrize(
    "function",
    [
        lambda kernel: VALUES,
        lambda kernel: VALUES.astype(np.float32),
        lambda kernel: VALUES.astype(int),
        lambda kernel: VALUES.tolist(),
        lambda kernel: torch.from_numpy(VALUES),
        lambda kernel: kernel.copy_(torch.from_numpy(VALUES)),
        fills,
        lambda kernel: np.asfortranarray(VALUES),
        lambda kernel: VALUES[::-1, ::-1].copy()[::-1, ::-1],  # negative strides
        lambda kernel: np.broadcast_to(VALUES, (2, 3)),  # read-only
        lambda kernel: torch.nn.Parameter(torch.from_numpy(VALUES)),
    ],
    ids=[
        *("float64", "float32", "int", "list", "tensor", "in place", "in place, nothing returned", "Fortran"),
        *("negative strides", "read-only", "parameter"),
    ],
)
def test_callable_may_return_any_array(function):
    kernel = torch.empty(2, 3, dtype=torch.float64)
    with torch.no_grad():  # as the network calls it
        CallableInitializer(function).fill(kernel, torch.Generator())
    assert np.array_equal(kernel.numpy(), VALUES)
    assert not kernel.requires_grad


@pytest.mark.parametrize("shape", [(3, 2), (1, 3), (2, 1), (3,), (), (2, 3, 1)])
def test_callable_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"initializer=.* must return an array of shape \(2, 3\) \(n_out, n_in\), got \("):
        drawn(CallableInitializer(lambda kernel: np.ones(shape)), (2, 3))


def test_callable_is_taken_as_it_is():
    assert resolve_initializer(torch.nn.init.ones_, Tanh()) == CallableInitializer(torch.nn.init.ones_)


def test_none_is_told_of_auto():
    with pytest.raises(ValueError, match="initializer must not be None; 'auto'"):
        resolve_initializer(None, ReLU())
    with pytest.raises(ValueError, match=r"initializer\[1\]='Auto' is not known; did you mean 'auto'"):
        resolve_initializer("Auto", ReLU(), "initializer[1]")
