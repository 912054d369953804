"""Training steps without Python or torch's dispatch between their kernels.

A step is the same kernels over the same memory each time, but for the batch and a few numbers. Where the kernels are small,
calling them takes longer than running them. `compile_steps` writes down the kernels of two steps, compares them, and turns them
into a program for `skdnn.engine._native`, which has a kernel of its own for each of torch's that occur. They round otherwise
than torch's, so that a network is trained by the one or by the other from its first step to its last.

torch.compile was tried in its place: it takes seconds for each new shape. TorchScript's interpreter, which calls torch's own
kernels, takes three times as long on small networks.
"""

import math

import numpy as np
import torch

from skdnn.engine.log import NotRepeatableError, write_down

try:
    from skdnn.engine import _native
except ImportError:  # built without a C compiler
    _native = None

# What the numbers of the two steps that are compared are made of: values that no technique has among its own.
_PROBES = ((0.0061803398875, 11), (0.0057721566490, 12))


def is_available():
    """Whether there are kernels for this processor."""
    return _native is not None


def compile_steps(step, n_batches, states=(), coefficients=lambda rate, n: ()):
    """Return one call for the steps of several batches, or None where they must be made one by one.

    Parameters
    ----------
    step : callable
        ``step(i, numbers)`` makes the step of batch `i` with a tuple of numbers.
    n_batches : int
        Batches there are buffers for.
    states : sequence of dict of Tensor, default=()
        What steps change and later steps depend on, by name; it is what it was before when this returns.
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
    saved = [(tensor, tensor.clone()) for state in states for tensor in state.values()]
    numbers = [coefficients(*probe) for probe in _PROBES]
    try:
        logs = [write_down(lambda i=i, given=given: step(i, given)) for i, given in zip(batches, numbers, strict=True)]
        return Program(logs, numbers).run
    except NotRepeatableError:
        return None
    finally:
        for tensor, values in saved:
            tensor.copy_(values)


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
    """

    def __init__(self, logs, numbers, instructions=None):
        self._variables = {pair: number for number, pair in enumerate(zip(*numbers, strict=True), 1)}
        self._instructions = _native.INSTRUCTION_SETS[0][0] if instructions is None else instructions
        self._results = {}
        self._filled = {}
        self._operations = []
        self._kept = [logs]  # tensors are known by their addresses
        self._dtype = None
        if [call.func for call in logs[0]] != [call.func for call in logs[1]]:
            raise NotRepeatableError
        for first, second in zip(*logs, strict=True):
            self._translate(first, second)
        self._code = _chain(np.array(self._operations, _OPERATION)).tobytes()

    def run(self, numbers, first=0):
        """Make the steps of ``len(numbers)`` batches from `first` on, a tuple of numbers for each."""
        table = np.array(numbers, np.float64)
        _native.run(self._code, table, first, len(table), self._dtype == torch.float64, self._instructions)

    def _translate(self, first, second):
        """Add what a call does."""
        name = first.name
        arguments = {key: (value, second.arguments[key]) for key, value in first.arguments.items()}
        if name in _VIEWS:
            self._note_view(first, second)
        elif name in _CONSTANTS:
            self._results[id(first.result)] = self._results[id(second.result)] = first.result.clone()
        elif name == "fill" and first.result.dim() == 0:
            self._filled[first.result.data_ptr()] = arguments["value"]
        elif name in _TRANSLATIONS:
            _TRANSLATIONS[name](self, arguments, self._out(first, second))
        else:
            raise NotRepeatableError

    def _note_view(self, first, second):
        """A view is known by its address, unless it is of a result, which has a place of its own here."""
        of = first.arguments["self"]
        if id(of) in self._results:
            offset = first.result.storage_offset() - of.storage_offset()
            view = self._results[id(of)].as_strided(first.result.shape, first.result.stride(), offset)
            self._results[id(first.result)] = self._results[id(second.result)] = view

    def _out(self, first, second):
        """Where a call's result goes: into an argument, or a place that is made for it."""
        if first.is_in_place or not isinstance(first.result, torch.Tensor) or "out" in first.func._overloadname:
            return first.result, second.result
        if "grad_input" in first.arguments:
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
        places = [
            (0, 0, 0, 0) if operand is None else (operand[0].data_ptr(), operand[1], *stride)
            for operand, stride in zip(found, strides, strict=True)
        ]
        constants, variables = zip(*map(self._number, numbers), strict=True) if numbers else ((), ())
        self._operations.append(
            (
                _native.CODES[code],
                1,
                *shape,
                depth,
                places + [(0, 0, 0, 0)] * (_native.MAX_OPERANDS - len(places)),
                (*constants, *[0.0] * (_native.MAX_NUMBERS - len(constants))),
                (*variables, *[0] * (_native.MAX_NUMBERS - len(variables))),
            )
        )

    def _place(self, first, second):
        """The tensor that stands for an operand, and how many bytes further on it is in the next batch."""
        if not isinstance(first, torch.Tensor):
            raise NotRepeatableError
        if id(first) in self._results:
            if self._results.get(id(second)) is not self._results[id(first)]:
                raise NotRepeatableError
            first, step = self._results[id(first)], 0
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


_OPERAND = np.dtype([("data", "u8"), ("step", "i8"), ("row", "i8"), ("col", "i8")])
_OPERATION = np.dtype(
    [
        ("code", "i8"),
        ("chain", "i8"),
        ("rows", "i8"),
        ("cols", "i8"),
        ("depth", "i8"),
        ("x", _OPERAND, (10,)),
        ("number", "f8", (5,)),
        ("variable", "i8", (5,)),
    ]
)


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


def _chain(operations):
    """Note how many elementwise operations in a row can be made block by block: equally large, and none shifted against others."""
    start = 0
    while start < len(operations):
        end, places = start + 1, list(_extents(operations[start]))
        while end < len(operations) and end - start < _native.MAX_CHAIN and _continues(operations, start, end, places):
            places += _extents(operations[end])
            end += 1
        operations["chain"][start] = end - start
        start = end
    return operations


def _continues(operations, start, end, places):
    first, op = operations[start], operations[end]
    if max(first["code"], op["code"]) >= _native.N_ELEMENTWISE or (first["rows"], first["cols"]) != (op["rows"], op["cols"]):
        return False
    return all(
        where == other or not (is_written or other_is_written) or begin >= other_end or other_begin >= stop
        for where, is_written, begin, stop in _extents(op)
        for other, other_is_written, other_begin, other_end in places
    )


def _extents(op):
    """For each operand: its place, whether it is written, and the addresses that it covers, in the first batch."""
    for k, operand in enumerate(op["x"]):
        if operand["data"]:
            begin = int(operand["data"])
            size = (op["rows"] - 1) * operand["row"] + (op["cols"] - 1) * operand["col"] + 1
            yield operand.tolist(), k == 0, begin, begin + 8 * int(size)


# Calls whose result is the memory of their argument, and those that make a constant.
_VIEWS = {"mT", "detach", "t", "view", "unsqueeze", "expand", "alias"}
_CONSTANTS = {"full_like", "lift_fresh", "repeat"}


def _elementwise(code, operands, numbers=(), **required):
    """What adds an elementwise operation of the same operands and numbers, for some values of other arguments."""

    def translate(program, arguments, out):
        if any(arguments[name] != (value, value) for name, value in required.items()):
            raise NotRepeatableError
        program.add(code, [out, *(arguments[name] for name in operands)], [arguments[name] for name in numbers])

    return translate


def _with_number(code, code_of_number, sign=1):
    """What adds an operation on two tensors, or on a tensor and a number."""

    def translate(program, arguments, out):
        alpha = arguments.get("alpha", (1, 1))
        if isinstance(arguments["other"][0], torch.Tensor):
            program.add(code, [out, arguments["self"], arguments["other"]], [alpha])
        elif alpha == (1, 1):
            program.add(code_of_number, [out, arguments["self"]], [tuple(sign * value for value in arguments["other"])])
        else:
            raise NotRepeatableError

    return translate


def _clamp(program, arguments, out):
    source = arguments["self"]
    for name in ("min", "max"):
        if arguments[name] != (None, None):
            program.add(f"clamp_{name}", [out, source], [arguments[name]])
            source = out


def _product(program, arguments, out):
    left, right = (arguments[name] for name in (("mat1", "mat2") if "mat1" in arguments else _factors(arguments)))
    if any(arguments.get(name, (1, 1)) != (1, 1) for name in ("alpha", "beta")):
        raise NotRepeatableError
    (rows, depth), (_, cols) = left[0].shape, right[0].shape
    program.add("product", [out, left, right, arguments.get("self") if "mat1" in arguments else None], (), (rows, cols), depth)


def _factors(arguments):
    return ("self", "mat2") if "mat2" in arguments else ("self", "other")


def _column_sums(program, arguments, out):
    """A product of a transposed matrix and a vector."""
    matrix = program.transposed(arguments["self"])
    if matrix[0].stride(-1) != 1 and matrix[0].shape[-1] > 1:
        raise NotRepeatableError
    program.add("column_sums", [out, matrix, arguments["vec"]], (), matrix[0].shape)


def _sum(program, arguments, out):
    """A sum of all, or over rows, which is one with factors of 1."""
    source, dim = arguments["self"], list(arguments["dim"][0])
    if dim not in ([-2], [-2, -1]) or arguments["dtype"][0] is not None or not source[0].is_contiguous():
        raise NotRepeatableError
    if dim == [-2, -1]:
        program.add("total", [out, source], (), (1, source[0].numel()))
        return
    ones = program.keep(torch.ones(source[0].shape[-2], dtype=source[0].dtype))
    program.add("column_sums", [out, source, (ones, ones)], (), source[0].shape)


def _norm(program, arguments, out):
    source, dim = arguments["self"], arguments["dim"][0]
    is_plain = arguments["ord"] == (2, 2) and arguments["dtype"][0] is None and source[0].is_contiguous()
    if not is_plain or dim not in ([-1], [-2]):
        raise NotRepeatableError
    code = "row_norms" if dim == [-1] else "column_norms"
    program.add(code, [out, source], (), (1, *source[0].shape)[-2:])


def _softmax(program, arguments, out):
    tensors = *out, *arguments["self"]
    if arguments["dim"] != (-1, -1) or not all(tensor.is_contiguous() and tensor.dim() == 2 for tensor in tensors):
        raise NotRepeatableError
    program.add("softmax", [out, arguments["self"]], (), out[0].shape)


def _log_softmax(program, arguments, out):
    source = arguments["self"]
    if (
        arguments["dim"] != (-1, -1)
        or arguments["dtype"][0] is not None
        or not source[0].is_contiguous()
        or source[0].dim() != 2
    ):
        raise NotRepeatableError
    program.add("log_softmax", [out, source], (), source[0].shape)


def _adam(program, arguments, out):
    if arguments["maximize"] != (False, False) or arguments["weight_decay"] != (0.0, 0.0):
        raise NotRepeatableError
    lists = [arguments[name] for name in ("self", "exp_avgs", "exp_avg_sqs", "max_exp_avg_sqs", "grads")]
    if any(len(first) > 1 for first, _ in lists):
        raise NotRepeatableError
    operands = [(first[0], second[0]) if first else None for first, second in lists]
    if not all(operand is None or operand[0].is_contiguous() for operand in operands):
        raise NotRepeatableError
    numbers = [arguments["lr"], program.filled(arguments["state_steps"][0][0])]
    numbers += [arguments[name] for name in ("beta1", "beta2", "eps")]
    program.add("adam", operands, numbers, (1, operands[0][0].numel()))


def _batch_norm(program, arguments, out):
    x = arguments["input"]
    if arguments["training"] != (True, True) or not (x[0].is_contiguous() and arguments["out"][0].is_contiguous()):
        raise NotRepeatableError
    names = ("out", "input", "weight", "bias", "running_mean", "running_var", "save_mean", "save_invstd")
    numbers = [arguments["momentum"], arguments["eps"]]
    program.add("batch_norm", [arguments[name] for name in names], numbers, x[0].shape)


def _batch_norm_backward(program, arguments, out):
    x = arguments["input"]
    if arguments["train"] != (True, True) or not all(arguments[name][0].is_contiguous() for name in ("grad_out", "out0")):
        raise NotRepeatableError
    names = ("out0", "out1", "out2", "grad_out", "input", "weight", "save_mean", "save_invstd")
    program.add("batch_norm_backward", [arguments[name] for name in names], (), x[0].shape)


_BACKWARD = ("grad_output", "self")
_OF_OUTPUT = ("grad_output", "output")

# What is done for each of torch's kernels, by name.
_TRANSLATIONS = {
    "abs": _elementwise("abs", ["self"]),
    "add": _with_number("add", "add_number"),
    "addcdiv": _elementwise("addcdiv", ["self", "tensor1", "tensor2"], ["value"]),
    "addcmul": _elementwise("addcmul", ["self", "tensor1", "tensor2"], ["value"]),
    "addmm": _product,
    "clamp": _clamp,
    "copy": _elementwise("copy", ["src"]),
    "div": _with_number("div", "div_number"),
    "elu": _elementwise("elu", ["self"], ["alpha", "scale"], input_scale=1.0),
    "elu_backward": _elementwise(
        "elu_backward", ["grad_output", "self_or_result"], ["alpha", "scale"], input_scale=1.0, is_result=True
    ),
    "eq": _elementwise("equal", ["self"], ["other"]),
    "exp": _elementwise("exp", ["self"]),
    "fill": _elementwise("fill", [], ["value"]),
    "_fused_adam_": _adam,
    "gelu": _elementwise("gelu", ["self"], approximate="none"),
    "gelu_backward": _elementwise("gelu_backward", _BACKWARD, approximate="none"),
    "gt": _elementwise("greater", ["self"], ["other"]),
    "hardswish": _elementwise("hardswish", ["self"]),
    "hardswish_backward": _elementwise("hardswish_backward", _BACKWARD),
    "le": _elementwise("less_or_equal", ["self"], ["other"]),
    "leaky_relu": _elementwise("leaky_relu", ["self"], ["negative_slope"]),
    "leaky_relu_backward": _elementwise("leaky_relu_backward", _BACKWARD, ["negative_slope"]),
    "lerp": _elementwise("lerp", ["self", "end"], ["weight"]),
    "linalg_vector_norm": _norm,
    "log_softmax": _log_softmax,
    "masked_fill": _elementwise("masked_fill", ["self", "mask"], ["value"]),
    "matmul": _product,
    "maximum": _elementwise("maximum", ["self", "other"]),
    "mish": _elementwise("mish", ["self"]),
    "mish_backward": _elementwise("mish_backward", _BACKWARD),
    "mm": _product,
    "mul": _with_number("mul", "mul_number"),
    "mv": _column_sums,
    "native_batch_norm": _batch_norm,
    "native_batch_norm_backward": _batch_norm_backward,
    "neg": _elementwise("neg", ["self"]),
    "reciprocal": _elementwise("reciprocal", ["self"]),
    "relu": _elementwise("relu", ["self"]),
    "rsqrt": _elementwise("rsqrt", ["self"]),
    "rsub": _elementwise("subtract_from", ["self"], ["other"], alpha=1),
    "sigmoid": _elementwise("sigmoid", ["self"]),
    "sigmoid_backward": _elementwise("sigmoid_backward", _OF_OUTPUT),
    "sign": _elementwise("sign", ["self"]),
    "silu": _elementwise("silu", ["self"]),
    "silu_backward": _elementwise("silu_backward", _BACKWARD),
    "softmax": _softmax,
    "softplus": _elementwise("softplus", ["self"], ["threshold"], beta=1),
    "softplus_backward": _elementwise("softplus_backward", _BACKWARD, ["threshold"], beta=1),
    "sqrt": _elementwise("sqrt", ["self"]),
    "square": _elementwise("square", ["self"]),
    "sub": _with_number("sub", "add_number", sign=-1),
    "sum": _sum,
    "tanh": _elementwise("tanh", ["self"]),
    "tanh_backward": _elementwise("tanh_backward", _OF_OUTPUT),
    "threshold_backward": _elementwise("threshold_backward", _BACKWARD, ["threshold"]),
    "to": _elementwise("copy", ["self"]),
    "where": _elementwise("where", ["condition", "self", "other"]),
    "xlogy": _elementwise("xlogy", ["self", "other"]),
    "zero": _elementwise("fill", [], []),
}
