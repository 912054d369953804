"""Programs of a few of torch's calls, for the tests of what they are translated into."""

import pytest
import torch

from skdnn.engine import program
from skdnn.engine.log import write_down
from skdnn.engine.program import Program

SETS = () if program._native is None else program._native.INSTRUCTION_SETS

every_set = pytest.mark.parametrize("instructions", [number for number, _ in SETS], ids=[name for _, name in SETS])
needs_kernels = pytest.mark.skipif(program._native is None, reason="built without a C compiler")
both_dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])


def programs_of(step, numbers=((), ())):
    """The programs of a step for each set of instructions.

    `step` takes the index of a batch and a tuple of numbers.
    """
    with torch.inference_mode():
        logs = [write_down(lambda i=i, own=own: step(i, own)) for i, own in enumerate(numbers)]
        return [Program(logs, numbers, number) for number, _ in SETS]


def embed(tensor, fill=torch.nan):
    """A copy of a vector or a matrix with other numbers around it in memory: the copy, and all of it."""
    rows, cols = tensor.shape if tensor.dim() == 2 else (1, len(tensor))
    around = tensor.new_full((rows + 2, cols + 5), fill)
    inside = around[1:-1, 2:-3] if tensor.dim() == 2 else around[1, 2:-3]
    return inside.copy_(tensor), around


def assert_nothing_around(inside, around):
    """Whether all around what was written is as `embed` has filled it."""
    assert int(around.isnan().sum()) == around.numel() - inside.numel()
