"""What follows a product: that it is made with its result, in every order that may matter, and nothing else changes."""

from functools import partial

import pytest
import torch
from native_programs import both_dtypes, needs_kernels, programs_of

from skdnn.engine import operations
from skdnn.engine.program import _LAYOUT, _native

pytestmark = needs_kernels


def codes_of(own):
    """The codes of each group of a program."""
    names = {number: code for code, number in _native.CODES.items()}
    unpacked = [_LAYOUT.unpack_from(own.code, start) for start in range(0, len(own.code), _LAYOUT.size)]
    groups, at = [], 0
    while at < len(unpacked):
        length = unpacked[at][1]
        groups.append([names[one[0]] for one in unpacked[at : at + length]])
        at += length
    return groups


class Step:
    """A kernel of a flat vector of parameters, its gradient, and what makes that."""

    def __init__(self, dtype, rows=7, cols=5, depth=4, before=3, after=6):
        def draw(*shape):
            return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

        generator = torch.Generator().manual_seed(rows * cols * depth)
        n, own = before + rows * cols + after, slice(before, before + rows * cols)
        self.parameters, self.gradient, self.squares = (draw(n) for _ in range(3))
        states = draw(n + 1)
        self.state, self.next_states = states[:-1], states[1:]
        self.squares.square_()
        factors = draw(max(n, depth * cols))
        self.slopes, self.x, self.vector_of_x = draw(depth, rows), factors[: depth * cols].view(depth, cols), factors[:n]
        self.kernel, self.result = (flat[own].view(rows, cols) for flat in (self.parameters, self.gradient))
        self.kernel_t, self.number = self.kernel.mT, torch.zeros((), dtype=dtype)
        self.memory = [self.parameters, self.gradient, states, self.squares, self.slopes, factors]
        self.flat = [self.parameters, self.gradient, self.state, self.squares]
        self.inputs = draw(depth, cols)
        self.shorter, self.longer, self.halves = (
            [flat[part] for flat in (self.parameters, self.gradient)] for part in (slice(n - 1), slice(1, None), slice(n // 2))
        )

    def multiply(self):
        torch.mm(self.slopes.mT, self.x, out=self.result)

    def outcome_of(self, run):
        """What a call makes of all memory, which is as before then."""
        before = [tensor.clone() for tensor in self.memory]
        run()
        after = [tensor.clone() for tensor in self.memory]
        for tensor, old in zip(self.memory, before, strict=True):
            tensor.copy_(old)
        return after


def descend(own):
    own.multiply()
    own.parameters.add_(own.gradient, alpha=-0.1)


def descend_with_momentum(own):
    own.multiply()
    own.state.mul_(0.9).add_(own.gradient)
    own.parameters.sub_(own.state, alpha=0.1)


def descend_on_penalties(own):
    own.multiply()
    own.result.add_(own.kernel.sign(), alpha=0.01)
    own.result.add_(own.kernel, alpha=0.02)
    own.parameters.add_(own.gradient, alpha=-0.1)


def go_on(own):
    own.state.mul_(0.9).add_(own.gradient)
    own.parameters.add_(own.state, alpha=-0.1)


def go_on_descending(own):
    own.multiply()
    go_on(own)


def go_on_with_sparsity(own):
    own.multiply()
    own.result.add_(own.kernel.sign(), alpha=0.01)
    go_on(own)


def go_on_with_decay(own):
    own.multiply()
    own.result.add_(own.kernel, alpha=0.02)
    go_on(own)


def penalize(own):
    own.multiply()
    own.result.add_(own.kernel.sign(), alpha=0.01)
    own.parameters.add_(own.gradient.clamp_(-1.0, 1.0), alpha=-0.1)


def descend_by_adam(own):
    own.multiply()
    own.number.fill_(3.0)
    numbers = {"lr": 0.01, "beta1": 0.9, "beta2": 0.99, "weight_decay": 0.0, "eps": 1e-8}
    flat = [own.parameters], [own.gradient], [own.state], [own.squares]
    torch._fused_adam_(*flat, [], [own.number], **numbers, amsgrad=False, maximize=False)


GOES_ON = ["mul_number", "add", "add"]
FOLLOWED = {
    descend: [["product", "add"], ["add"], ["add"]],
    descend_with_momentum: [["product", "mul_number", "add", "sub"], *2 * [["mul_number", "add", "sub"]]],
    descend_on_penalties: [["product", "sign", "add", "add", "add"], ["add"], ["add"]],
    go_on_descending: [["product", *GOES_ON], *2 * [GOES_ON]],
    go_on_with_sparsity: [["product", "sign", "add", *GOES_ON], *2 * [GOES_ON]],
    go_on_with_decay: [["product", "add", *GOES_ON], *2 * [GOES_ON]],
    descend_by_adam: [["product", "adam"], ["adam"], ["adam"]],
    penalize: [["product", "sign", "add", "clamp_min", "clamp_max", "add"], *2 * [["clamp_min", "clamp_max", "add"]]],
}


@pytest.fixture
def both_programs(monkeypatch):
    """What makes a step's programs, those in which nothing follows a product and those in which all does that can."""

    def make(step):
        both = []
        for least in (10**9, 1):
            monkeypatch.setattr(operations, "_LEAST_FOLLOWED", least)
            both.append(programs_of(lambda i, _: step()))
        assert all(len(codes) == 1 for codes in codes_of(both[0][0]) if codes[0] == "product")
        return both

    return make


def _check(own, plain, followed, products=()):
    """Whether programs do the same bit for bit, but for results of products that are nowhere written."""
    for one, other in zip(plain, followed, strict=True):
        expected, got = own.outcome_of(lambda one=one: one([()])), own.outcome_of(lambda other=other: other([()]))
        for result in products:  # and what penalties have made of them
            begin = result.storage_offset()
            expected[1][begin : begin + result.numel()] = own.gradient[begin : begin + result.numel()]
        assert all(torch.equal(*pair) for pair in zip(got, expected, strict=True))


# Rows, columns and depth: small, in several blocks, for tiles, and just above what these take.
SIZES = [(7, 5, 4), (1, 40, 3), (130, 300, 20), (300, 784, 50), (65, 530, 33), (70, 200, 513)]


@both_dtypes
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("step", FOLLOWED, ids=lambda step: step.__name__)
def test_what_follows_a_product_is_made_with_it(step, sizes, dtype, both_programs):
    own = Step(dtype, *sizes)
    plain, followed = both_programs(partial(step, own))
    assert codes_of(followed[0]) == FOLLOWED[step]
    _check(own, plain, followed, [own.result])


def use_the_kernel_afterwards(own):
    own.multiply()
    torch.mm(own.x, own.kernel_t, out=own.slopes)
    own.parameters.add_(own.gradient, alpha=-0.1)


def clip_the_norm(own):
    own.multiply()
    norm = torch.linalg.vector_norm(own.gradient.view(1, -1), dim=-1, keepdim=True)
    own.parameters.addcmul_(own.gradient, norm.view(1).expand(len(own.gradient)), value=-0.1)


def keep_a_copy(own):
    own.state.copy_(own.gradient)
    own.multiply()
    own.parameters.add_(own.gradient, alpha=-0.1)


def use_it_twice_shifted(own):
    own.multiply()
    own.shorter[0].add_(own.longer[1], alpha=-0.1)
    own.parameters.add_(own.gradient, alpha=-0.1)


def use_half_of_it(own):
    own.multiply()
    own.halves[0].add_(own.halves[1], alpha=-0.1)


def change_what_is_multiplied(own):
    own.multiply()
    own.gradient.add_(own.vector_of_x, alpha=0.5)
    own.vector_of_x.add_(own.gradient, alpha=0.5)


def follow_what_is_shifted(own):
    own.multiply()
    own.state.add_(own.gradient)
    own.number.add_(1.0)  # in between, and on fewer numbers: what follows is another chain
    own.squares.add_(own.gradient).add_(own.next_states)


def do_much(own):
    own.multiply()
    for _ in range(40):
        own.parameters.add_(own.gradient, alpha=-0.1)


@pytest.mark.parametrize(
    "step",
    [
        use_the_kernel_afterwards,
        clip_the_norm,
        keep_a_copy,
        use_it_twice_shifted,
        use_half_of_it,
        change_what_is_multiplied,
        follow_what_is_shifted,
        do_much,
    ],
    ids=lambda step: step.__name__,
)
def test_what_cannot_follow_comes_later(step, both_programs):
    own = Step(torch.float32, 70, 60, 4, before=0, after=0)
    plain, followed = both_programs(partial(step, own))
    assert ["product"] in codes_of(followed[0])
    _check(own, plain, followed)


def test_two_products_are_followed_by_their_parts_of_one_chain(both_programs):
    own = Step(torch.float32, 6, 5, 4, before=40, after=3)
    first = own.gradient[2:38].view(4, 9)
    factors = torch.randn(3, 4).mT, torch.randn(3, 9)

    def step():
        own.multiply()
        torch.mm(factors[0], factors[1], out=first)
        own.parameters.add_(own.gradient, alpha=-0.1)

    plain, followed = both_programs(step)
    assert codes_of(followed[0]) == [*2 * [["product", "add"]], *3 * [["add"]]]
    _check(own, plain, followed, [own.result, first])


@pytest.mark.parametrize("seed", range(40))
def test_random_steps_do_the_same(seed, both_programs):
    generator = torch.Generator().manual_seed(seed)
    own = Step(torch.float64)

    def pick(n):
        return int(torch.randint(n, (1,), generator=generator))

    calls = []
    for _ in range(2 + pick(4)):
        kind, begin = pick(4), pick(3)
        out, source = (own.flat[pick(4)] for _ in range(2))
        if kind < 2:
            calls.append(lambda out=out, source=source: out.add_(source, alpha=0.5))
        elif kind == 2:
            out, source = (tensor[begin : len(tensor) - begin] for tensor in (out, source))
            calls.append(lambda out=out, source=source: out.sub_(source, alpha=0.25))
        else:
            calls.append(lambda: torch.mm(own.inputs, own.kernel_t, out=own.slopes))
    calls.insert(pick(3), own.multiply)

    def step():
        for call in calls:
            call()

    plain, followed = both_programs(step)
    is_followed = any(codes[0] == "product" and len(codes) > 1 for codes in codes_of(followed[0]))
    _check(own, plain, followed, [own.result] if is_followed else [])


# softmaxes -----------------------------------------------------------------------------------------------------------------


def softmax_step(between=lambda x, out, log: None, shape=(9, 5)):
    """A softmax, something else, and the logarithm of a softmax of the same numbers."""

    def make(dtype):
        x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
        out, copy = torch.empty_like(x), torch.empty_like(x)

        def step(i, _):
            torch.softmax(x, -1, out=out)
            between(x, out, copy)
            copy.copy_(torch.log_softmax(x, -1))

        return step, (x, out, copy)

    return make


@both_dtypes
@pytest.mark.parametrize(
    ("between", "is_joined"),
    [
        (lambda x, out, copy: None, True),
        (lambda x, out, copy: out.mul_(2.0), True),  # the softmax is used up before the logarithm is asked for
        (lambda x, out, copy: copy.copy_(x), True),
        (lambda x, out, copy: x.mul_(0.5), False),
    ],
    ids=["nothing", "its result changes", "its numbers are read", "its numbers change"],
)
def test_a_softmax_and_its_logarithm_are_made_at_once_where_their_numbers_are_the_same(between, is_joined, dtype):
    make = softmax_step(between)
    step, expected = make(dtype)
    step(0, ())
    step, got = make(dtype)
    kept = [tensor.clone() for tensor in got]
    for own in programs_of(step):
        for tensor, values in zip(got, kept, strict=True):
            tensor.copy_(values)
        own([()])
        torch.testing.assert_close(got, expected)
        assert any("log_softmax" in group for group in codes_of(own)) != is_joined


def test_softmaxes_of_different_numbers_stay_apart():
    x, y = torch.randn(4, 3), torch.randn(4, 3)
    out, copy = torch.empty(4, 3), torch.empty(4, 3)

    def step(i, _):
        torch.softmax(x, -1, out=out)
        copy.copy_(torch.log_softmax(y, -1))

    for own in programs_of(step):
        own([()])
        torch.testing.assert_close((out, copy), (torch.softmax(x, -1), torch.log_softmax(y, -1)))
