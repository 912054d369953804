"""From the calls of two steps to the operations of a program."""

import math

import torch

from skdnn.engine.log import NotRepeatableError
from skdnn.engine.operations import N_NUMBERS, N_OPERANDS, NOWHERE, Operation
from skdnn.engine.translation import CONSTANTS, TRANSLATIONS, VIEWS

_ZEROS = (0,) * N_NUMBERS


class Draft:
    """Operations that stand for the calls of two steps, of neighbouring batches.

    Parameters
    ----------
    logs : list of list of Call
        Of each step.
    numbers : list of tuple of float
        Of each.

    Attributes
    ----------
    operations : list of Operation
    dtype : torch.dtype or None
        Of all numbers; None where there are no operations.
    memory : list of Tensor
        Where they are: what is to be kept as long as the operations.

    Raises
    ------
    NotRepeatableError
        The steps differ in more than where their operands are, and in these numbers.
    """

    def __init__(self, logs, numbers):
        self._variables = {pair: number for number, pair in enumerate(zip(*numbers, strict=True), 1)}
        self._results = {}
        self._constants = set()
        self._filled = {}
        self.operations, self.dtype, self.memory = [], None, []
        if [call.func for call in logs[0]] != [call.func for call in logs[1]]:
            raise NotRepeatableError
        for first, second in zip(*logs, strict=True):
            self._translate(first, second)

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
        place = torch.empty(first.result.shape, dtype=self.dtype or first.result.dtype)
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
            NOWHERE if operand is None else (operand[0].data_ptr(), operand[1], *stride)
            for operand, stride in zip(found, strides, strict=True)
        )
        constants, variables = zip(*map(self._number, numbers), strict=True) if numbers else ((), ())
        self.operations.append(
            Operation(
                code,
                *shape,
                depth,
                places + (NOWHERE,) * (N_OPERANDS - len(places)),
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
        self.memory.append(first)
        self.dtype = self.dtype or first.dtype
        if first.dtype != self.dtype or first.dtype not in (torch.float32, torch.float64):
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
        """Keep a tensor as long as the operations, and return it."""
        self.memory.append(tensor)
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
