"""What becomes a program, and what it follows and keeps."""

import gc
import itertools
import threading

import pytest
import torch
from native_programs import both_dtypes, needs_kernels, programs_of

from skdnn.engine import program
from skdnn.engine.program import _LAYOUT, Pattern, compile_steps, multiplies_faster, multiply_add

# What is compiled, one step of which adds to `total`.


def rate_and_number(rate, n):
    return rate, float(n)


def compile_addition(step, total, n_batches=4):
    before = total.clone()
    with torch.inference_mode():
        run = compile_steps(step, n_batches, rate_and_number)
    assert torch.equal(total, before)
    return run


@needs_kernels
def test_a_program_follows_batch_rate_and_number():
    total, batches = torch.zeros(3), torch.arange(12.0).view(4, 3).unbind(0)

    def step(i, numbers):
        rate, n = numbers
        total.add_(batches[i], alpha=-rate)
        total.add_(n)

    run = compile_addition(step, total)
    numbers = [(0.5, 11.0), (2.0, 12.0), (1.0, 13.0), (0.25, 14.0)]
    run(numbers)
    expected = -(0.5 * batches[0] + 2.0 * batches[1] + batches[2] + 0.25 * batches[3]) + (11 + 12 + 13 + 14)
    torch.testing.assert_close(total, expected)
    total.zero_()
    for i, own in enumerate(numbers):
        run([own], i)
    torch.testing.assert_close(total, expected)
    total.zero_()
    run(numbers[:2], 2)
    torch.testing.assert_close(total, -(0.5 * batches[2] + 2.0 * batches[3]) + (11 + 12))


@needs_kernels
def test_a_program_follows_numbers_that_are_the_same_in_all_steps_of_a_call():
    total, batches = torch.zeros(3), torch.ones(4, 3).unbind(0)

    def step(i, numbers):
        rate, first, second = numbers
        total.mul_(first).add_(batches[i], alpha=rate).add_(0.5).mul_(second)

    with torch.inference_mode():
        run = compile_steps(step, 4, lambda rate, n: (rate, 0.5, 0.5))
    expected = 0.0
    for rate, first, second in [(0.1, 0.25, 1.0), (0.2, 0.5, 0.5), (0.3, 0.0, 2.0)]:
        run([(rate, first, second)])
        expected = (expected * first + rate + 0.5) * second
    torch.testing.assert_close(total, torch.full((3,), expected))


@needs_kernels
def test_steps_on_one_batch_are_a_program():
    total, (batch,) = torch.zeros(3), torch.ones(1, 3).unbind(0)
    run = compile_addition(lambda i, numbers: total.add_([batch][i], alpha=numbers[0]), total, n_batches=1)
    run([(0.5, 1.0)])
    assert torch.equal(total, torch.full((3,), 0.5))


@needs_kernels
def test_results_between_calls_have_places_of_their_own():
    total, batches = torch.ones(3), torch.arange(12.0).view(4, 3).unbind(0)
    run = compile_addition(lambda i, numbers: total.add_((batches[i] * 2.0 - total).abs() * numbers[0]), total)
    run([(0.5, 1.0), (0.25, 2.0)])
    expected = torch.ones(3)
    for i, rate in enumerate((0.5, 0.25)):
        expected.add_((batches[i] * 2.0 - expected).abs() * rate)
    torch.testing.assert_close(total, expected)


def of_a_decision(total):
    def step(i, numbers):
        if total.sum() > 0:
            total.zero_()
        total.add_(1.0)

    return step


def of_a_number_from_a_tensor(total):
    return lambda i, numbers: total.add_(total.sum().item() + 1.0)


def of_chance(total):
    generator = torch.Generator().manual_seed(0)
    return lambda i, numbers: total.add_(torch.empty(3).normal_(generator=generator))


def of_a_number_of_its_own(total):
    return lambda i, numbers: total.add_(2.0 ** numbers[1])


def of_a_number_that_counts(total):
    counter = itertools.count()
    return lambda i, numbers: total.add_(float(next(counter)))


def of_an_infinite_number(total):
    return lambda i, numbers: total.add_(torch.inf)


def of_memory_elsewhere(total):
    batches = [torch.ones(3), torch.ones(3), torch.ones(3), torch.ones(3)]
    return lambda i, numbers: total.add_(batches[i])


def of_tensors_made_anew(total):
    return lambda i, numbers: total.add_(torch.ones(3))


def of_other_kernels(total):
    return lambda i, numbers: total.add_(1.0) if i else total.mul_(2.0)


def of_more_kernels(total):
    return lambda i, numbers: [total.add_(1.0) for _ in range(i + 1)]


def of_other_shapes(total):
    rows = torch.ones(4, 3).unbind(0)
    one = rows[0].view(1, 3)
    return lambda i, numbers: total.add_(rows[1]) if i else total.view(1, 3).add_(one)


def of_a_kernel_that_is_not_known(total):
    return lambda i, numbers: total.add_(1.0).sin_()


def of_a_number_in_a_tensor(total):
    number = torch.zeros(())
    return lambda i, numbers: total.mul_(number.fill_(numbers[0]))


def of_a_constant_of_a_number(total):
    return lambda i, numbers: total.add_(torch.full_like(total, numbers[0]))


def of_integers(total):
    counts = torch.zeros(3, dtype=torch.int64)
    return lambda i, numbers: total.add_(counts.add_(1))


@pytest.mark.parametrize(
    "of",
    [
        of_a_decision,
        of_a_number_from_a_tensor,
        of_chance,
        of_a_number_of_its_own,
        of_a_number_that_counts,
        of_an_infinite_number,
        of_memory_elsewhere,
        of_tensors_made_anew,
        of_other_kernels,
        of_more_kernels,
        of_other_shapes,
        of_a_kernel_that_is_not_known,
        of_a_number_in_a_tensor,
        of_a_constant_of_a_number,
        of_integers,
    ],
)
def test_steps_that_are_more_than_kernels_over_static_memory_are_no_program(of):
    total = torch.zeros(3)
    assert compile_addition(of(total), total) is None


@needs_kernels
@pytest.mark.parametrize("fails_in", [0, 1])
def test_an_error_in_a_step_is_raised_and_leaves_nothing_behind(fails_in):
    total = torch.ones(3)

    def step(i, numbers):
        total.add_(1.0)
        if i == fails_in:
            raise RuntimeError("no step")

    with torch.inference_mode(), pytest.raises(RuntimeError, match="no step"):
        compile_steps(step, 4, rate_and_number)
    assert torch.equal(total, torch.ones(3))


def test_without_the_extension_there_are_no_programs(monkeypatch):
    monkeypatch.setattr(program, "_native", None)
    total = torch.zeros(3)
    assert program.instruction_set() is None
    assert compile_addition(lambda i, numbers: total.add_(1.0), total) is None


# patterns: programs for other memory ----------------------------------------------------------------------------------------


@needs_kernels
def test_a_pattern_gives_programs_for_other_memory():
    def make(n_batches, seed):
        batches = torch.randn(n_batches, 3, generator=torch.Generator().manual_seed(seed))
        return torch.zeros(3), batches

    shared, (total, batches), others = torch.ones(3), make(4, 0), make(9, 1)
    rows = batches.unbind(0)
    run = compile_addition(lambda i, numbers: shared.copy_(total.add_(rows[i], alpha=numbers[0])), total)
    numbers = [(0.5, 1.0)] * 4
    # Tensors may be named twice, and those without numbers have no address.
    pattern = Pattern(run, [total, batches, total, torch.empty(0)])
    for _ in range(2):
        others[0].zero_()
        pattern.over([others[0], others[1], others[0], torch.empty(0)])([(0.5, 1.0)] * 9)
    assert not total.any()
    torch.testing.assert_close(others[0], 0.5 * others[1].sum(0))
    assert torch.equal(shared, others[0])  # what is not named is shared
    before = others[0].clone()
    run(numbers)
    torch.testing.assert_close(total, 0.5 * batches.sum(0))
    assert torch.equal(others[0], before)


@needs_kernels
def test_a_program_of_a_pattern_keeps_its_memory():
    def make(to):
        total, scratch = torch.zeros(3), torch.zeros(3)
        run = compile_addition(lambda i, numbers: total.add_(torch.abs(total, out=scratch)).add_(1.0), total)
        return Pattern(run, [total]).over([to])

    to = torch.zeros(3)
    program = make(to)
    gc.collect()
    others = [torch.full((3,), torch.nan) for _ in range(200)]
    program([(0.0, 1.0)] * 2)
    assert to.tolist() == [3.0] * 3
    assert all(bool(other.isnan().all()) for other in others)


# chains -------------------------------------------------------------------------------------------------------------------


def lengths_of_chains(own):
    """The length of each chain of a program."""
    operations = [_LAYOUT.unpack_from(own.code, start) for start in range(0, len(own.code), _LAYOUT.size)]
    lengths, at = [], 0
    while at < len(operations):
        lengths.append(operations[at][1])
        at += lengths[-1]
    return lengths


@needs_kernels
def test_operations_on_equally_many_elements_are_one_chain():
    a, b = torch.ones(50), torch.ones(50)
    own, *_ = programs_of(lambda i, _: a.add_(b).mul_(2.0).sqrt_().add_(b))
    assert lengths_of_chains(own) == [4]


@needs_kernels
def test_chains_have_a_greatest_length():
    longest, a = program._native.MAX_CHAIN, torch.zeros(50)
    own, *_ = programs_of(lambda i, _: [a.add_(1.0) for _ in range(2 * longest + 3)])
    assert lengths_of_chains(own) == [longest, longest, 3]
    a.zero_()
    own([()])
    assert (a == 2 * longest + 3).all()


@needs_kernels
@pytest.mark.parametrize("shift", [-1, 1])
def test_what_is_shifted_against_what_is_written_is_in_another_chain(shift):
    memory, out = torch.zeros(5002), torch.zeros(5000)
    written, read = memory[1:5001], memory[1 + shift : 5001 + shift]

    def step(i, _):
        written.add_(1.0)
        out.copy_(read)
        out.mul_(2.0)

    for own in programs_of(step):
        assert lengths_of_chains(own) == [1, 2]
        memory.copy_(torch.arange(5002.0))
        expected = 2.0 * (read + (torch.arange(5000) + 1 + shift > 0) * (torch.arange(5000) + 1 + shift < 5001))
        own([()])
        assert torch.equal(out, expected)


@needs_kernels
def test_what_lies_side_by_side_is_one_chain():
    a, b = torch.zeros(100).split(50)
    own, *_ = programs_of(lambda i, _: (a.add_(1.0), b.add_(2.0)))
    assert lengths_of_chains(own) == [2]


def random_calls(generator, tensors, n_calls):
    """Calls on tensors that may lie in each other, of those that torch makes."""

    def pick(of):
        return of[int(torch.randint(len(of), (1,), generator=generator))]

    calls = []
    while len(calls) < n_calls:
        target, other = pick(tensors), pick(tensors)
        kind = pick(["add", "mul", "copy", "maximum", "number"])
        call = {
            "add": lambda a=target, b=other: a.add_(b, alpha=-0.5),
            "mul": lambda a=target, b=other: a.mul_(b),
            "copy": lambda a=target, b=other: a.copy_(b),
            "maximum": lambda a=target, b=other: torch.maximum(a, b, out=a),
            "number": lambda a=target: a.add_(0.25),
        }[kind]
        if target is not other and target.untyped_storage().data_ptr() == other.untyped_storage().data_ptr():
            call = lambda a=target, kind=kind: a.abs_() if kind == "copy" else a.mul_(0.75)  # noqa: E731
        calls.append(call)
    return calls


@needs_kernels
@both_dtypes
@pytest.mark.parametrize("seed", range(5))
def test_calls_in_any_order_on_tensors_that_lie_in_each_other(seed, dtype):
    generator = torch.Generator().manual_seed(seed)
    memory, other = (torch.rand(9000, generator=generator, dtype=torch.float64).to(dtype) for _ in range(2))
    shape = (3, 2500)  # rows are longer than a block
    starts = (0, 1, 700, 1500)
    tensors = [flat[start : start + 7500].view(shape) for flat in (memory, other) for start in starts]
    tensors += [other[8000:8003].view(3, 1), memory[4000:6500], other[100:2600].view(1, 2500)]
    calls = [call for call in random_calls(generator, tensors, 60) if is_made(call)]
    start = memory.clone(), other.clone()

    def step(i, _):
        for call in calls:
            call()

    step(0, ())
    expected = memory.clone(), other.clone()
    for own in programs_of(step):
        memory.copy_(start[0])
        other.copy_(start[1])
        own([()])
        torch.testing.assert_close((memory, other), expected)


def is_made(call):
    """Whether torch makes a call."""
    try:
        call()
    except RuntimeError:
        return False
    return True


# memory -------------------------------------------------------------------------------------------------------------------


@needs_kernels
def test_what_a_program_uses_stays_though_nobody_else_has_it():
    def make():
        total, batches = torch.zeros(7, 5), torch.ones(2, 7, 5).unbind(0)
        scratch, kernel, norm = torch.empty(7, 5), torch.eye(5), torch.empty(7, 1)

        def step(i, numbers):
            torch.mm(batches[i], kernel, out=scratch)
            torch.linalg.vector_norm(scratch, dim=-1, keepdim=True, out=norm)
            total.add_(scratch * 2.0, alpha=numbers[0])
            total.add_((norm.square() - 5.0).abs())
            total.add_(scratch.sum(-2, keepdim=True) - 7.0)

        return compile_addition(step, total), total

    run, total = make()
    gc.collect()
    others = [torch.full((size,), torch.nan) for size in (7, 35, 70, 25, 1) for _ in range(50)]
    run([(0.5, 1.0), (1.0, 2.0)])
    torch.testing.assert_close(total, torch.full((7, 5), 3.0))
    assert all(bool(other.isnan().all()) for other in others)


@needs_kernels
def test_programs_in_threads_at_the_same_time_do_as_they_do_alone():
    def make():
        total, factor = torch.eye(40, dtype=torch.float64), torch.linspace(-1.0, 1.0, 1600, dtype=torch.float64).view(40, 40)
        product = torch.empty_like(total)

        def step(i, numbers):
            torch.mm(total, factor, out=product)
            total.copy_(torch.softmax(product, -1)).add_(1e-3, alpha=1)

        return compile_addition(step, total), total

    alone, expected = make()
    numbers = [(0.1, 1.0)] * 4
    for _ in range(50):
        alone(numbers)
    programs = [make() for _ in range(4)]

    def run(own):
        for _ in range(50):
            own(numbers)

    threads = [threading.Thread(target=run, args=(own,)) for own, _ in programs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(total, expected) for _, total in programs)


# single products ----------------------------------------------------------------------------------------------------------


@needs_kernels
@pytest.mark.parametrize("sizes", [(1, 1, 1), (33, 784, 70), (300, 40, 64), (2000, 64, 100)], ids=str)
@pytest.mark.parametrize("is_turned", [False, True])
def test_a_product_is_torchs(sizes, is_turned):
    rows, depth, cols = sizes
    generator = torch.Generator().manual_seed(rows)
    bias, left, right = (torch.randn(shape, generator=generator) for shape in ((cols,), (rows, depth), (depth, cols)))
    if is_turned:
        left, right = left.mT.contiguous().mT, right.mT.contiguous().mT
    expected = torch.addmm(bias.double(), left.double(), right.double()).float()
    torch.testing.assert_close(multiply_add(bias, left, right), expected, rtol=1e-5, atol=1e-5 * depth**0.5)


@pytest.fixture
def _on_tiles(monkeypatch):
    monkeypatch.setattr(program, "instruction_set", lambda: "amx")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_on_tiles")
def test_tiles_take_large_products_of_plain_matrices():
    left, right = torch.zeros(200, 100), torch.zeros(100, 50)
    assert multiplies_faster(left, right)
    assert multiplies_faster(left.mT.contiguous().mT, right)
    assert not multiplies_faster(left.double(), right.double())
    assert not multiplies_faster(left.expand(2, 200, 100), right)
    assert not multiplies_faster(left[:20], right)
    assert not multiplies_faster(left[:, :31], right[:31])
    assert not multiplies_faster(left[::2, ::2], right[::2])
    assert not multiplies_faster(left[:100], right)


@pytest.mark.usefixtures("_on_tiles")
def test_threads_multiply_by_torch():
    left, right = torch.zeros(200, 100), torch.zeros(100, 50)
    torch.set_num_threads(2)
    assert not multiplies_faster(left, right)
