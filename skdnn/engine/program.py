"""Training steps without Python or torch's dispatch between their kernels.

A step is the same kernels over the same memory each time, but for the batch and a few numbers. Where the kernels are small,
calling them takes longer than running them. `compile_steps` writes down the kernels of two steps, compares them, and turns them
into a program for `skdnn.engine._native`, which has a kernel of its own for each of torch's that occur. They round otherwise:
which of them makes a step must follow from what is trained and how far it has come, and from nothing else.

torch.compile was tried in its place: it takes seconds for each new shape. TorchScript's interpreter, which calls torch's own
kernels, takes three times as long on small networks.
"""

import copy
import itertools
import struct

import numpy as np
import torch

from skdnn.engine.draft import Draft
from skdnn.engine.log import NotRepeatableError, write_down
from skdnn.engine.operations import N_NUMBERS, N_OPERANDS, NOWHERE, Operation, follow_products, in_chains, join_softmaxes

try:
    from skdnn.engine import _native
except ImportError:  # built without a C compiler
    _native = None  # type: ignore[assignment]

# What the numbers of the two steps that are compared are made of, and what stands for those that are the same in both: values
# that no technique has among its own.
_PROBES = ((0.0061803398875, 11), (0.0057721566490, 12))
_UNCHANGED = (0.0026149721284, 0.0015163266492)

# Numbers along each side of a product, and multiplications, from which tiles make it faster than torch does.
_LEAST_SIDE, _LEAST_PRODUCT = 32, 2**19

# An operation, as in native/program.h: code, chain, rows, cols, depth; of the operands data, step, row, col; numbers, and what
# they are of the step's.
_LAYOUT = struct.Struct(f"=5q{4 * N_OPERANDS}q{N_NUMBERS}d{N_NUMBERS}q")
# Where the operands' addresses are in it.
_ADDRESSES = slice(5, 5 + 4 * N_OPERANDS, 4)
if _native is not None and _LAYOUT.size != _native.OPERATION_SIZE:
    raise ImportError("skdnn.engine._native was built from other sources than these; install skdnn anew.")


def instruction_set():
    """Return the name of the vector instructions that programs use, or None where there can be no programs."""
    return None if _native is None else _native.INSTRUCTION_SETS[0][1]


def compile_steps(step, n_batches, coefficients=lambda rate, n: ()):
    """Return a program for the steps of several batches, or None where they must be made one by one.

    Parameters
    ----------
    step : callable
        ``step(i, numbers)`` makes the step of batch `i` with a tuple of numbers. It is only written down, and changes nothing.
    n_batches : int
        Batches there are buffers for.
    coefficients : callable, default=None
        From a learning rate and the number of an update, from 1, to the step's numbers; none by default.

    Returns
    -------
    program : Program or None
    """
    if _native is None:
        return None
    batches = (0, min(1, n_batches - 1))
    pairs = enumerate(zip(*(coefficients(*probe) for probe in _PROBES), strict=True), 1)
    pairs = [pair if pair[0] != pair[1] else tuple(k * number for number in _UNCHANGED) for k, pair in pairs]
    numbers = [tuple(pair[step] for pair in pairs) for step in (0, 1)]
    try:
        logs = [write_down(lambda i=i, given=given: step(i, given)) for i, given in zip(batches, numbers, strict=True)]
        return Program(logs, numbers)
    except NotRepeatableError:
        return None


class Program:
    """Kernels of the native module for those that two steps have called.

    Parameters
    ----------
    logs : list of list of Call
        Of two steps, of neighbouring batches.
    numbers : list of tuple of float
        Of each.
    instructions : int, default=None
        The number of a set of vector instructions, by default the best that there is.

    Attributes
    ----------
    code : bytes
        The operations.
    memory : list of Tensor
        What they work on, kept as long as they are.
    """

    def __init__(self, logs, numbers, instructions=None):
        draft = Draft(logs, numbers)
        itemsize = 8 if draft.dtype is None else draft.dtype.itemsize
        groups = in_chains(join_softmaxes(draft.operations, itemsize), itemsize, _is_elementwise, _native.MAX_CHAIN)
        groups = follow_products(groups, itemsize, _is_elementwise, _native.MAX_CHAIN)
        self.code = b"".join(
            _pack(operation, len(group) if k == 0 else 1) for group in groups for k, operation in enumerate(group)
        )
        self._is_double = draft.dtype == torch.float64
        self._instructions = _native.INSTRUCTION_SETS[0][0] if instructions is None else instructions
        self.memory = draft.memory

    def __call__(self, numbers, first=0):
        """Make the steps of ``len(numbers)`` batches from `first` on, a tuple of numbers for each."""
        table = np.asarray(numbers, np.float64)
        _native.run(self.code, table, first, len(table), self._is_double, self._instructions)


class Pattern:
    """A program that can be made for other memory; what is not named it shares with those, which must take turns.

    Parameters
    ----------
    program : Program
    memory : list of Tensor
        Contiguous tensors of the program's, apart or the same.

    Attributes
    ----------
    memory : list of Tensor
        The program's others, which are kept.
    """

    def __init__(self, program, memory):
        begins = np.array([0, *(tensor.data_ptr() for tensor in memory)])  # nothing is at 0
        ends = begins + np.array([0, *(tensor.nbytes for tensor in memory)])
        order = np.lexsort((ends, begins))

        def place_of(addresses):
            """The number of the tensor that each address is in, from 1 on, and 0 of those that are elsewhere."""
            found = order[np.searchsorted(begins, addresses, side="right", sorter=order) - 1]
            return np.where(addresses < ends[found], found, 0)

        self._operations = np.frombuffer(program.code, np.int64).reshape(-1, _LAYOUT.size // 8).copy()
        self._places = place_of(self._operations[:, _ADDRESSES])
        self._operations[:, _ADDRESSES] -= begins[self._places]
        self._program = copy.copy(program)
        self._program.code = None
        others = place_of([tensor.data_ptr() for tensor in program.memory]) == 0
        self._program.memory = self.memory = list(itertools.compress(program.memory, others))

    def over(self, memory):
        """Return the program for other tensors in place of those that were named, which may have more rows or fewer.

        Parameters
        ----------
        memory : list of Tensor
            Contiguous.
        """
        program, operations = copy.copy(self._program), self._operations.copy()
        begins = np.array([0, *(tensor.data_ptr() for tensor in memory)])
        operations[:, _ADDRESSES] += begins[self._places]
        program.code, program.memory = operations.tobytes(), [*self.memory, *memory]
        return program


def multiplies_faster(left, right):
    """Say whether `multiply_add` takes less time than torch does: on one thread, of matrices that processors with tiles like.

    Parameters
    ----------
    left, right : Tensor
    """
    if instruction_set() != "amx" or left.dim() != 2 or not left.dtype == right.dtype == torch.float32:
        return False
    (rows, depth), cols = left.shape, right.shape[1]
    is_large = min(rows, cols, depth) >= _LEAST_SIDE and rows * cols * depth >= _LEAST_PRODUCT
    is_here = left.device.type == "cpu" and torch.get_num_threads() == 1
    return is_large and is_here and 1 in left.stride() and 1 in right.stride()


def multiply_add(bias, left, right):
    """Return ``left @ right + bias``, like `torch.addmm`.

    Parameters
    ----------
    bias : Tensor of shape (cols,)
        Contiguous.
    left : Tensor of shape (rows, depth)
    right : Tensor of shape (depth, cols)
        Each with numbers that lie one after the other along one of its axes.
    """
    (rows, depth), cols = left.shape, right.shape[1]
    out = left.new_empty(rows, cols)
    places = [(tensor.data_ptr(), 0, *tensor.stride()) for tensor in (out, left, right)]
    places += [(bias.data_ptr(), 0, 0, 1)] + [NOWHERE] * (N_OPERANDS - 4)
    code = _pack(Operation("product", rows, cols, depth, places, (0.0,) * N_NUMBERS, (0,) * N_NUMBERS), 1)
    _native.run(code, np.empty((1, 0)), 0, 1, False, _native.INSTRUCTION_SETS[0][0])
    return out


def _is_elementwise(code):
    return _native.CODES[code] < _native.N_ELEMENTWISE


def _pack(operation, chain):
    code, rows, cols, depth, places, numbers, variables = operation
    numbers = (*itertools.chain.from_iterable(places), *numbers, *variables)
    return _LAYOUT.pack(_native.CODES[code], chain, rows, cols, depth, *numbers)
