"""Training steps without Python or torch's dispatch between their kernels.

A step is the same kernels over the same memory each time, but for the batch and a few numbers. Where the kernels are small,
calling them takes longer than running them. `compile_steps` writes down the kernels of two steps, compares them, and turns them
into a program for `skdnn.engine._native`, which has a kernel of its own for each of torch's that occur. They round otherwise:
which of them makes a step must follow from what is trained and how far it has come, and from nothing else.

torch.compile was tried in its place: it takes seconds for each new shape. TorchScript's interpreter, which calls torch's own
kernels, takes three times as long on small networks.
"""

import itertools
import math
import struct

import numpy as np
import torch

from skdnn.engine.log import NotRepeatableError, write_down
from skdnn.engine.operations import Operation, follow_products, in_chains
from skdnn.engine.translation import CONSTANTS, TRANSLATIONS, VIEWS

try:
    from skdnn.engine import _native
except ImportError:  # built without a C compiler
    _native = None  # type: ignore[assignment]

# What the numbers of the two steps that are compared are made of: values that no technique has among its own.
_PROBES = ((0.0061803398875, 11), (0.0057721566490, 12))

# An operation, as in native/program.h: code, chain, rows, cols, depth; of ten operands data, step, row, col; five numbers, and
# what they are of the step's.
_LAYOUT = struct.Struct("=5q40q5d5q")
if _native is not None and _LAYOUT.size != _native.OPERATION_SIZE:
    raise ImportError("skdnn.engine._native was built from other sources than these; install skdnn anew.")
_NOWHERE = ((0, 0, 0, 0),) * 10
_ZEROS = (0,) * 5


def instruction_set():
    """Return the name of the vector instructions that programs use, or None where there can be no programs."""
    return None if _native is None else _native.INSTRUCTION_SETS[0][1]


def compile_steps(step, n_batches, coefficients=lambda rate, n: ()):
    """Return one call for the steps of several batches, or None where they must be made one by one.

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
    run : callable or None
        ``run(numbers, first=0)`` makes the steps of ``len(numbers)`` batches from a first one on, a tuple of numbers for each.
    """
    if _native is None:
        return None
    batches = (0, min(1, n_batches - 1))
    numbers = [coefficients(*probe) for probe in _PROBES]
    try:
        logs = [write_down(lambda i=i, given=given: step(i, given)) for i, given in zip(batches, numbers, strict=True)]
        return Program(logs, numbers).run
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
    """

    def __init__(self, logs, numbers, instructions=None):
        self._variables = {pair: number for number, pair in enumerate(zip(*numbers, strict=True), 1)}
        self._instructions = _native.INSTRUCTION_SETS[0][0] if instructions is None else instructions
        self._results = {}
        self._constants = set()
        self._filled = {}
        self._operations = []
        self._kept = [logs]  # tensors are known by their addresses
        self._dtype = None
        if [call.func for call in logs[0]] != [call.func for call in logs[1]]:
            raise NotRepeatableError
        for first, second in zip(*logs, strict=True):
            self._translate(first, second)
        itemsize = 8 if self._dtype is None else self._dtype.itemsize
        groups = in_chains(self._operations, itemsize, _is_elementwise, _native.MAX_CHAIN)
        groups = follow_products(groups, itemsize, _is_elementwise, _native.MAX_CHAIN)
        self.code = b"".join(
            _pack(operation, len(group) if k == 0 else 1) for group in groups for k, operation in enumerate(group)
        )

    def run(self, numbers, first=0):
        """Make the steps of ``len(numbers)`` batches from `first` on, a tuple of numbers for each."""
        table = np.array(numbers, np.float64)
        _native.run(self.code, table, first, len(table), self._dtype == torch.float64, self._instructions)

    def _translate(self, first, second):
        """Add what a call does."""
        name = first.schema.name
        if name in VIEWS or (name == "to" and first.result is first.args[0]):
            self._note_view(first, second)
        elif name in CONSTANTS:
            self._note_constant(first, second)
        elif name == "fill" and first.result.dim() == 0:
            self._filled[first.result.data_ptr()] = _pairs(first, second)["value"]
        elif name in TRANSLATIONS:
            TRANSLATIONS[name](self, _pairs(first, second), self._out(first, second))
        else:
            raise NotRepeatableError

    def _note_constant(self, first, second):
        """What is made of nothing that a step changes has the same values in all steps."""
        source = first.args[0]
        is_constant = first.schema.name != "repeat" or id(source) in self._constants
        if not (is_constant and torch.equal(first.result, second.result)):
            raise NotRepeatableError
        self._constants.add(id(first.result))
        self._results[id(first.result)] = self._results[id(second.result)] = first.result.clone()

    def _note_view(self, first, second):
        """A view is known by its address, unless it is of a result, which has a place of its own here."""
        of = first.args[0]
        if id(of) in self._results:
            offset = first.result.storage_offset() - of.storage_offset()
            view = self._results[id(of)].as_strided(first.result.shape, first.result.stride(), offset)
            self._results[id(first.result)] = self._results[id(second.result)] = view
        if id(of) in self._constants:
            self._constants.add(id(first.result))

    def _out(self, first, second):
        """Where a call's result goes: into an argument, or a place that is made for it."""
        is_given = first.schema.is_in_place or "out" in first.kwargs or "grad_input" in first.kwargs
        if is_given or not isinstance(first.result, torch.Tensor):
            return first.result, second.result
        place = torch.empty(first.result.shape, dtype=self._dtype or first.result.dtype)
        self._results[id(first.result)] = self._results[id(second.result)] = place
        return first.result, second.result

    def add(self, code, operands, numbers=(), shape=None, depth=0):
        """Add an operation.

        Parameters
        ----------
        code : str
        operands : list of (Tensor, Tensor), or None
            As they are in both steps; what is written comes first.
        numbers : sequence of (float, float)
        shape : tuple of int, default=None
            Rows and columns; by default the operation is elementwise on operands that broadcast to the first.
        depth : int
        """
        found = [None if operand is None else self._place(*operand) for operand in operands]
        if shape is None:
            shape, strides = _broadcast([tensor for tensor, _ in found])
        else:
            strides = [(0, 0) if operand is None else _matrix_strides(operand[0]) for operand in found]
        places = tuple(
            _NOWHERE[0] if operand is None else (operand[0].data_ptr(), operand[1], *stride)
            for operand, stride in zip(found, strides, strict=True)
        )
        constants, variables = zip(*map(self._number, numbers), strict=True) if numbers else ((), ())
        self._operations.append(
            Operation(
                code,
                *shape,
                depth,
                places + _NOWHERE[len(places) :],
                constants + _ZEROS[len(constants) :],
                variables + _ZEROS[len(variables) :],
            )
        )

    def _place(self, first, second):
        """The tensor that stands for an operand, and how many bytes further on it is in the next batch."""
        if not isinstance(first, torch.Tensor) or first.data_ptr() in self._filled:
            raise NotRepeatableError
        if id(first) in self._results:
            if self._results.get(id(second)) is not self._results[id(first)]:
                raise NotRepeatableError
            first, step = self._results[id(first)], 0
        elif first is second:
            step = 0
        else:
            step = second.data_ptr() - first.data_ptr()
            is_alike = first.shape == second.shape and first.stride() == second.stride() and first.dtype == second.dtype
            if not is_alike or first.untyped_storage().data_ptr() != second.untyped_storage().data_ptr():
                raise NotRepeatableError
        self._dtype = self._dtype or first.dtype
        if first.dtype != self._dtype or first.dtype not in (torch.float32, torch.float64):
            raise NotRepeatableError
        return first, step

    def _number(self, pair):
        """A number as a constant, or as the step's."""
        if any(isinstance(number, torch.Tensor) for number in pair):
            raise NotRepeatableError
        first, second = (float(number) for number in pair)
        if (first, second) in self._variables:
            return 0.0, self._variables[first, second]
        if (-first, -second) in self._variables:
            return 0.0, -self._variables[-first, -second]
        if first == second and math.isfinite(first):
            return first, 0
        raise NotRepeatableError

    def keep(self, tensor):
        """Keep a tensor as long as the program, and return it."""
        self._kept.append(tensor)
        return tensor

    def transposed(self, pair):
        """Return a matrix' transpose in both steps."""
        views = tuple(self.keep(tensor.mT) for tensor in pair)
        if id(pair[0]) in self._results:
            self._results[id(views[0])] = self._results[id(views[1])] = self._results[id(pair[0])].mT
        return views

    def filled(self, tensor):
        """Return the numbers that a tensor of no dimension was filled with, in both steps."""
        if tensor.data_ptr() not in self._filled:
            raise NotRepeatableError
        return self._filled[tensor.data_ptr()]


def _pairs(first, second):
    """What each argument was in two calls of a kernel."""
    others = second.arguments
    return {key: (value, others[key]) for key, value in first.arguments.items()}


def _broadcast(tensors):
    """The shape of an elementwise operation as rows and columns, and each operand's strides along them."""
    out, *others = tensors
    if out.is_contiguous() and all(
        other.numel() == 1 or (other.shape == out.shape and other.is_contiguous()) for other in others
    ):
        return (1, out.numel()), [(0, int(tensor.numel() > 1 or tensor is out)) for tensor in tensors]
    if out.dim() > 2 or (out.stride(-1) != 1 and out.shape[-1] > 1):
        raise NotRepeatableError
    try:
        strides = [_matrix_strides(tensor.expand(out.shape)) for tensor in tensors]
    except RuntimeError:
        raise NotRepeatableError from None
    rows, cols = (1, *out.shape)[-2:]
    return (rows, cols), strides


def _matrix_strides(tensor):
    """The strides of a tensor along rows and columns; a vector is a row."""
    if tensor.dim() > 2:
        raise NotRepeatableError
    return (0, 0, *tensor.stride())[-2:]


def _is_elementwise(code):
    return _native.CODES[code] < _native.N_ELEMENTWISE


def _pack(operation, chain):
    code, rows, cols, depth, places, numbers, variables = operation
    numbers = (*itertools.chain.from_iterable(places), *numbers, *variables)
    return _LAYOUT.pack(_native.CODES[code], chain, rows, cols, depth, *numbers)
