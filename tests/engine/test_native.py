"""The kernels: what they compute, how exactly, and that they touch nothing else."""

import itertools
import math

import numpy as np
import pytest
import torch
from native_programs import SETS, assert_nothing_around, both_dtypes, embed, needs_kernels, programs_of

from skdnn.engine import program
from skdnn.engine.operations import N_NUMBERS, N_OPERANDS
from skdnn.engine.program import _LAYOUT

pytestmark = needs_kernels
aten = torch.ops.aten


def draw(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


# products -----------------------------------------------------------------------------------------------------------------

SIZES = (1, 2, 3, 15, 16, 17, 18, 31, 32, 33, 34, 47, 48, 49, 50, 100)

# Rows, columns and depth: all of those, and some that are long in one direction.
PRODUCTS = [
    *itertools.product(SIZES, repeat=3),
    # Of which a tile's rows are packed, too, where they are far apart along the depth.
    (270, 210, 20),
    (257, 400, 9),
    (129, 48, 7),
    (300, 64, 33),
    (131, 50, 20),
    (48, 129, 7),
    (64, 300, 33),
    (5, 6, 999),
    # For tiles: whole ones and parts of them, one factor or the other the larger, in several stretches, rows and depth.
    (64, 128, 96),
    (33, 500, 35),
    (500, 33, 35),
    (32, 130, 161),
    (130, 32, 161),
    (50, 300, 784),
    (96, 97, 1030),
    (320, 352, 512),
    (289, 301, 515),
    (40, 64, 2100),
]

# What an affine layer multiplies, of shapes (rows, depth) and (depth, cols): the operands' shapes as they lie in memory, the
# call, and the factors and the bias.
LAYOUTS = {
    "x @ W.T + bias": (
        lambda rows, cols, depth: ((rows, depth), (cols, depth), (cols,)),
        lambda x, kernel, bias, out: torch.addmm(bias, x, kernel.mT, out=out),
        lambda x, kernel, bias: (x, kernel.T, bias),
    ),
    "G.T @ X": (
        lambda rows, cols, depth: ((depth, rows), (depth, cols)),
        lambda gradient, x, out: torch.mm(gradient.mT, x, out=out),
        lambda gradient, x: (gradient.T, x, 0.0),
    ),
    "G @ W": (
        lambda rows, cols, depth: ((rows, depth), (depth, cols)),
        lambda gradient, kernel, out: torch.mm(gradient, kernel, out=out),
        lambda gradient, kernel: (gradient, kernel, 0.0),
    ),
}


@both_dtypes
@pytest.mark.parametrize("layout", LAYOUTS)
def test_products_of_every_size(layout, dtype):
    shapes_of, call, factors_of = LAYOUTS[layout]
    numbers, starts = draw(250_000, dtype=dtype), itertools.cycle(range(0, 10_000, 7))
    cases = []
    for sizes in PRODUCTS:
        operands = []
        for shape in shapes_of(*sizes):
            start = next(starts)
            operands.append(embed(numbers[start : start + math.prod(shape)].view(shape))[0])
        left, right, bias = factors_of(*(operand.double().numpy() for operand in operands))
        # Of a sum of n products each is rounded n times at most, here and in the reference.
        bound = 2 * (sizes[2] + 2) * torch.finfo(dtype).eps * (np.abs(left) @ np.abs(right) + np.abs(bias))
        out, around = embed(torch.empty(sizes[:2], dtype=dtype))
        cases.append((operands, out, around, left @ right + bias, bound))

    def step(i, _):
        for operands, out, *_ in cases:
            call(*operands, out=out)

    for own in programs_of(step):
        for _, _, around, *_ in cases:
            around.fill_(torch.nan)
        own([()])
        for _, out, around, expected, bound in cases:
            assert (np.abs(out.numpy() - expected) <= bound).all()
            assert_nothing_around(out, around)


@both_dtypes
def test_products_are_the_same_bit_for_bit_wherever_their_rows_are(dtype):
    x, kernel, bias = draw(50, 33, dtype=dtype), draw(20, 33, dtype=dtype, seed=1), draw(20, dtype=dtype, seed=2)
    tight = torch.empty(50, 20, dtype=dtype)
    (apart, _), (loose, _) = embed(x), embed(tight)

    def step(i, _):
        torch.addmm(bias, x, kernel.mT, out=tight)
        torch.addmm(bias, apart, kernel.mT, out=loose)

    for own in programs_of(step):
        own([()])
        assert torch.equal(tight, loose)


@pytest.mark.parametrize("spread", [0, 30], ids=["alike", "of_all_sizes"])
def test_a_product_in_float32_is_as_exact_as_torchs(spread):
    x, kernel = draw(70, 300, dtype=torch.float32), draw(90, 300, dtype=torch.float32, seed=1)
    x *= torch.exp2(spread * draw(70, 1, dtype=torch.float32, seed=2).clamp(-2, 2))
    kernel *= torch.exp2(spread * draw(300, dtype=torch.float32, seed=3).clamp(-2, 2))
    exact, size = x.double() @ kernel.double().mT, x.abs().double() @ kernel.abs().double().mT

    def error(product):
        return float(((product - exact) / size).square().mean().sqrt())

    out = torch.empty(70, 90)
    for own in programs_of(lambda i, _: torch.mm(x, kernel.mT, out=out)):
        own([()])
        assert error(out) <= 1.05 * error(x @ kernel.mT)


@both_dtypes
@pytest.mark.parametrize("sizes", [(18, 35, 17), (50, 300, 784)], ids=["small", "large"])
def test_nan_and_inf_go_where_they_go_in_a_product(sizes, dtype):
    rows, cols, depth = sizes
    x, kernel = draw(rows, depth, dtype=dtype), draw(cols, depth, dtype=dtype, seed=1)
    x[3, 5], x[7, 0], kernel[20, 16] = torch.nan, torch.inf, torch.nan
    out = torch.empty(rows, cols, dtype=dtype)
    for own in programs_of(lambda i, _: torch.mm(x, kernel.mT, out=out)):
        own([()])
        assert torch.equal(out.isfinite(), (x @ kernel.mT).isfinite())
        assert out[3].isnan().all()
        assert out[:, 20].isnan().all()


@both_dtypes
def test_logarithms_of_normal_numbers(dtype):
    x = wide_range(dtype)
    x = x[(x >= torch.finfo(dtype).smallest_normal) | (x == 0.0) | x.isnan()]
    factor, out = draw(len(x), dtype=dtype), torch.empty_like(x)
    factor[x == 0.0] = 0.0  # 0 * log(0) is 0
    exact = torch.xlogy(factor.double(), x.double())
    for own in programs_of(lambda i, _: out.copy_(torch.xlogy(factor, x))):
        own([()])
        bound = 3 * torch.finfo(dtype).eps * (exact.abs() + factor.abs())
        assert (((out.double() - exact).abs() <= bound) | (out == exact) | (out.isnan() & exact.isnan())).all()


# element by element -------------------------------------------------------------------------------------------------------


def wide_range(dtype):
    """Numbers of all sizes and both signs, those of special kinds, and many where the functions bend."""
    info = torch.finfo(dtype)
    exponents = torch.linspace(math.log2(info.smallest_normal) - 20, math.log2(info.max) - 0.01, 1001, dtype=torch.float64)
    sizes = torch.cat([exponents.exp2(), torch.linspace(0.0, 40.0, 4001, dtype=torch.float64)])
    special = torch.tensor([0.0, -0.0, torch.inf, -torch.inf, torch.nan, info.max, info.min, info.tiny], dtype=torch.float64)
    return torch.cat([sizes, -sizes, special]).to(dtype)


# A function of x, or of the gradient 1 and x; the units of eps that its error may have; and what these are of beside the
# result, where parts of either sign are added up.
FUNCTIONS = {
    "exp": (lambda g, x: torch.exp(x), 2, None),
    "tanh": (lambda g, x: torch.tanh(x), 3, None),
    "sigmoid": (lambda g, x: torch.sigmoid(x), 3, None),
    "silu": (lambda g, x: torch.nn.functional.silu(x), 4, None),
    "silu_backward": (aten.silu_backward, 4, lambda x: 1.0 + x.abs() * torch.sigmoid(x)),
    "gelu": (lambda g, x: torch.nn.functional.gelu(x), 2, torch.abs),
    "gelu_backward": (aten.gelu_backward, 3, torch.ones_like),
    "mish": (lambda g, x: torch.nn.functional.mish(x), 5, None),
    "mish_backward": (aten.mish_backward, 4, lambda x: 1.0 + x.abs() * torch.sigmoid(x)),
    "softplus": (lambda g, x: torch.nn.functional.softplus(x), 3, None),
    "softplus_backward": (lambda g, x: aten.softplus_backward(g, x, 1, 20), 3, None),
    "elu": (lambda g, x: torch.nn.functional.elu(x, 0.75), 2, torch.ones_like),
    "elu_backward": (lambda g, x: aten.elu_backward(g, 0.75, 1, 1, True, x), 2, torch.ones_like),
    "hardswish": (lambda g, x: torch.nn.functional.hardswish(x), 3, torch.abs),
    "hardswish_backward": (aten.hardswish_backward, 3, torch.ones_like),
    "relu": (lambda g, x: torch.relu(x), 0, None),
    "leaky_relu": (lambda g, x: torch.nn.functional.leaky_relu(x, 0.25), 1, None),
    "sqrt": (lambda g, x: torch.sqrt(x), 1, None),
    "rsqrt": (lambda g, x: torch.rsqrt(x), 2, None),
    "reciprocal": (lambda g, x: torch.reciprocal(x), 1, None),
    "square": (lambda g, x: torch.square(x), 1, None),
}
# They have what exp(x) is below the range of normal numbers, and 0 where exp(-x) is inf.
BY_WAY_OF_EXP = {"sigmoid", "silu", "silu_backward", "softplus_backward", "mish"}


@both_dtypes
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_over_a_wide_range(name, dtype):
    function, units, scale = FUNCTIONS[name]
    x = wide_range(dtype)
    gradient, out = torch.ones_like(x), torch.empty_like(x)
    exact = function(gradient.double(), x.double()).masked_fill_(x.isnan(), torch.nan)  # torch has another slope there
    scales = exact.abs() if scale is None else exact.abs() + scale(x.double())
    info = torch.finfo(dtype)
    bound = units * info.eps * scales + info.smallest_normal * (1.0 if name in BY_WAY_OF_EXP else info.eps)
    for own in programs_of(lambda i, _: out.copy_(function(gradient, x))):
        own([()])
        got = out.double()
        assert torch.equal(got.isnan(), exact.isnan())
        is_right = ((got - exact).abs() <= bound) | (got == exact.to(dtype)) | got.isnan()
        assert is_right.all(), torch.stack([x, got, exact], 1)[~is_right][:5]


@both_dtypes
def test_nan_stays_nan(dtype):
    """Divergence is seen by it. A comparison has no third answer, so that which of two is taken is as in torch."""
    x = torch.full((37,), torch.nan, dtype=dtype)
    y, out = torch.ones_like(x), torch.empty_like(x)
    calls = {
        "add": lambda: torch.add(x, y),
        "sub": lambda: torch.sub(y, x),
        "mul": lambda: torch.mul(x, y),
        "mul by 0": lambda: torch.mul(x, 0.0),
        "div": lambda: torch.div(y, x),
        "maximum": lambda: torch.maximum(x, y),
        "maximum, second": lambda: torch.maximum(y, x),
        "clamp": lambda: torch.clamp(x, -1.0, 1.0),
        "abs": lambda: torch.abs(x),
        "neg": lambda: torch.neg(x),
        "lerp": lambda: torch.lerp(y, x, 0.5),
        "addcmul": lambda: torch.addcmul(y, x, y),
        "addcdiv": lambda: torch.addcdiv(y, x, y),
        "threshold_backward": lambda: aten.threshold_backward(x, y, 0),
        "leaky_relu_backward": lambda: aten.leaky_relu_backward(x, y, 0.1, True),
        "elu_backward": lambda: aten.elu_backward(x, 1.0, 1.0, 1.0, True, y),
        "tanh_backward": lambda: aten.tanh_backward(y, x),
        "sigmoid_backward": lambda: aten.sigmoid_backward(y, x),
    }
    for name, call in calls.items():
        for own in programs_of(lambda i, _, call=call: out.copy_(call())):
            out.fill_(0.0)
            own([()])
            assert out.isnan().all(), name


# over rows and columns ----------------------------------------------------------------------------------------------------

SHAPES = [(1, 1), (1, 10), (3, 2), (7, 3), (16, 10), (33, 17), (50, 4), (64, 100)]


@both_dtypes
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("function", [torch.softmax, torch.log_softmax], ids=["softmax", "log_softmax"])
def test_softmax(function, shape, dtype):
    x = 20.0 * draw(*shape, dtype=dtype)
    x[0, 0], x[-1] = 300.0, -1e4  # one that leaves nothing to the others, and a row of equals far away
    around = torch.full((shape[0] + 2, shape[1]), torch.nan, dtype=dtype)
    out = around[1:-1]
    exact = function(x.double(), -1)
    for own in programs_of(lambda i, _: function(x, -1, out=out)):
        around.fill_(torch.nan)
        own([()])
        eps = torch.finfo(dtype).eps
        # Differences are rounded; what they are is the error of the logarithm, and the relative one of the exponential.
        size = 1.0 + (x.double() - x.double().amax(-1, keepdim=True)).abs()
        bound = 2 * (shape[1] + 4) * eps * (size if function is torch.log_softmax else size * exact) + torch.finfo(dtype).tiny
        assert ((out.double() - exact).abs() <= bound).all()
        assert around[0].isnan().all()
        assert around[-1].isnan().all()


@both_dtypes
@pytest.mark.parametrize("function", [torch.softmax, torch.log_softmax], ids=["softmax", "log_softmax"])
def test_softmax_of_what_is_not_finite(function, dtype):
    x = draw(9, 5, dtype=dtype)
    x[1, 2], x[3, 0], x[5] = torch.nan, torch.inf, -torch.inf
    x[7, 1:] = -torch.inf
    out = torch.empty_like(x)
    expected = function(x, -1)
    for own in programs_of(lambda i, _: function(x, -1, out=out)):
        own([()])
        torch.testing.assert_close(out, expected, equal_nan=True)


REDUCTIONS = {
    "row_norms": (lambda x, out: torch.linalg.vector_norm(x, dim=-1, keepdim=True, out=out), lambda rows, cols: (rows, 1)),
    "column_norms": (lambda x, out: torch.linalg.vector_norm(x, dim=-2, keepdim=True, out=out), lambda rows, cols: (1, cols)),
    "column_sums": (lambda x, out: torch.sum(x, -2, keepdim=True, out=out), lambda rows, cols: (1, cols)),
    "total": (lambda x, out: torch.sum(x, (-2, -1), out=out), lambda rows, cols: ()),
}


@both_dtypes
@pytest.mark.parametrize("shape", [*SHAPES, (5, 1000)], ids=str)
@pytest.mark.parametrize("name", REDUCTIONS)
def test_sums_and_norms(name, shape, dtype):
    call, shape_of = REDUCTIONS[name]
    x = draw(*shape, dtype=dtype)
    around = torch.full((2 + math.prod(shape_of(*shape)),), torch.nan, dtype=dtype)
    out = around[1:-1].view(shape_of(*shape))
    exact = call(x.double(), None)
    n_terms = x.numel() // out.numel()
    bound = n_terms * torch.finfo(dtype).eps * (call(x.double().abs(), None))
    for own in programs_of(lambda i, _: call(x, out)):
        around.fill_(torch.nan)
        own([()])
        assert ((out.double() - exact).abs() <= bound).all()
        assert around[0].isnan()
        assert around[-1].isnan()
        assert not out.isnan().any()


@both_dtypes
def test_column_sums_by_factors(dtype):
    for n_rows, n_cols in SHAPES:
        x, factors = draw(n_rows, n_cols, dtype=dtype), draw(n_rows, dtype=dtype, seed=1)
        around = torch.full((n_cols + 2,), torch.nan, dtype=dtype)
        out = around[1:-1]
        bound = (n_rows + 1) * torch.finfo(dtype).eps * (x.double().abs().mT @ factors.double().abs())
        for own in programs_of(lambda i, _, x=x, factors=factors, out=out: torch.mv(x.mT, factors, out=out)):
            out.fill_(torch.nan)
            own([()])
            assert ((out.double() - x.double().mT @ factors.double()).abs() <= bound).all()
            assert_nothing_around(out, around)


# broadcasting and what is around ------------------------------------------------------------------------------------------

OTHERS = {
    "alike": lambda other: other,
    "row": lambda other: other[:1],
    "column": lambda other: other[:, :1],
    "vector": lambda other: other[0],
    "scalar": lambda other: other[0, 0],
    "one": lambda other: other[:1, :1],
    "transposed": lambda other: other.mT.contiguous().mT,
    "apart": lambda other: embed(other)[0],
}


@both_dtypes
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (7, 1), (1, 33), (4, 5000)], ids=str)
@pytest.mark.parametrize("kind", OTHERS)
def test_operands_broadcast(kind, shape, dtype):
    x = draw(*shape, dtype=dtype)
    other = OTHERS[kind](draw(*shape, dtype=dtype, seed=1))
    out, around = embed(torch.empty_like(x))
    expected = (x + 0.5 * other) * other
    for own in programs_of(lambda i, _: torch.add(x, other, alpha=0.5, out=out).mul_(other)):
        around.fill_(torch.nan)
        own([()])
        torch.testing.assert_close(out, expected)
        assert_nothing_around(out, around)


@both_dtypes
def test_a_product_with_ones_of_any_form_changes_nothing_in_place_and_copies_elsewhere(dtype):
    x, out = draw(5, 70, dtype=dtype), torch.empty(5, 70, dtype=dtype)
    factors = torch.ones(5, 1, dtype=dtype)
    factors[3] = 2.0
    kept, expected = x.clone(), x * factors
    for own in programs_of(lambda i, _: torch.mul(x, factors, out=out)):
        own([()])
        assert torch.equal(out, expected)
    for own in programs_of(lambda i, _: x.mul_(factors)):
        x.copy_(kept)
        own([()])
        assert torch.equal(x, expected)


# the module ---------------------------------------------------------------------------------------------------------------


def test_operations_are_laid_out_as_the_module_has_them():
    native = program._native
    assert _LAYOUT.size == native.OPERATION_SIZE
    fields = len(_LAYOUT.unpack(bytes(_LAYOUT.size)))
    assert fields == 5 + 4 * native.MAX_OPERANDS + 2 * native.MAX_NUMBERS
    assert native.MAX_OPERANDS == N_OPERANDS
    assert native.MAX_NUMBERS == N_NUMBERS
    assert sorted(native.CODES.values()) == list(range(len(native.CODES)))
    assert 0 < native.N_ELEMENTWISE < len(native.CODES)


def test_every_processor_has_the_baseline():
    assert SETS[-1][1] == "baseline"
    assert len({number for number, _ in SETS}) == len(SETS)


@pytest.mark.parametrize("number", [-1, 99])
def test_other_sets_of_instructions_are_refused(number):
    with pytest.raises(ValueError, match="not a program for this processor"):
        program._native.run(b"", np.empty((1, 0)), 0, 1, False, number)


def test_half_an_operation_is_refused():
    with pytest.raises(ValueError, match="not a program for this processor"):
        program._native.run(bytes(_LAYOUT.size // 2), np.empty((1, 0)), 0, 1, False, SETS[-1][0])


def test_no_steps_are_no_work():
    total = torch.zeros(3)
    for own in programs_of(lambda i, _: total.add_(1.0)):
        total.fill_(0.0)
        own([])
        assert torch.equal(total, torch.zeros(3))
