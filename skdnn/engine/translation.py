"""What skdnn's own kernels are called for each of torch's.

A translation is a function of a `Draft`, a kernel's arguments by name, as pairs of what they were in two steps, and the pair
of its results. It adds operations to the draft, or raises `NotRepeatableError` where a call asks for more than they do.
"""

import torch

from skdnn.engine.log import NotRepeatableError

# Calls whose result is the memory of their argument, and those that make a constant.
VIEWS = {"mT", "detach", "t", "view", "unsqueeze", "expand", "alias"}
CONSTANTS = {"full_like", "lift_fresh", "repeat"}


def _elementwise(code, operands, numbers=(), **required):
    """What adds an elementwise operation of the same operands and numbers, for some values of other arguments."""

    def translate(draft, arguments, out):
        if any(arguments[name] != (value, value) for name, value in required.items()):
            raise NotRepeatableError
        draft.add(code, [out, *(arguments[name] for name in operands)], [arguments[name] for name in numbers])

    return translate


def _with_number(code, code_of_number, sign=1):
    """What adds an operation on two tensors, or on a tensor and a number."""

    def translate(draft, arguments, out):
        alpha = arguments.get("alpha", (1, 1))
        if arguments.get("rounding_mode", (None, None)) != (None, None):
            raise NotRepeatableError
        if isinstance(arguments["other"][0], torch.Tensor):
            draft.add(code, [out, arguments["self"], arguments["other"]], [alpha])
        elif alpha == (1, 1):
            draft.add(code_of_number, [out, arguments["self"]], [tuple(sign * value for value in arguments["other"])])
        else:
            raise NotRepeatableError

    return translate


def _clamp(draft, arguments, out):
    source = arguments["self"]
    for name in ("min", "max"):
        if arguments[name] != (None, None):
            draft.add(f"clamp_{name}", [out, source], [arguments[name]])
            source = out


def _product(draft, arguments, out):
    bias = None
    if "mat1" in arguments:
        bias, left, right = (arguments[name] for name in ("self", "mat1", "mat2"))
    else:
        left, right = arguments["self"], arguments["mat2" if "mat2" in arguments else "other"]
    is_plain = all(arguments.get(name, (1, 1)) == (1, 1) for name in ("alpha", "beta"))
    if not is_plain or left[0].dim() != 2 or right[0].dim() != 2 or not _lies_along_rows(out[0]):
        raise NotRepeatableError
    (rows, depth), (_, cols) = left[0].shape, right[0].shape
    if bias is not None and (bias[0].shape != (cols,) or not bias[0].is_contiguous()):
        raise NotRepeatableError
    draft.add("product", [out, left, right, bias], (), (rows, cols), depth)


def _lies_along_rows(tensor):
    return tensor.stride(-1) == 1 or tensor.shape[-1] == 1


def _column_sums(draft, arguments, out):
    """A product of a transposed matrix and a vector."""
    matrix = draft.transposed(arguments["self"])
    if not _lies_along_rows(matrix[0]) or not out[0].is_contiguous():
        raise NotRepeatableError
    draft.add("column_sums", [out, matrix, arguments["vec"]], (), matrix[0].shape)


def _sum(draft, arguments, out):
    """A sum of all, or over rows, which is one with factors of 1."""
    source, dim = arguments["self"], list(arguments.get("dim", ([-2, -1],))[0])
    are_plain = source[0].dim() == 2 and source[0].is_contiguous() and out[0].is_contiguous()
    if dim not in ([-2], [-2, -1]) or arguments["dtype"][0] is not None or not are_plain:
        raise NotRepeatableError
    if dim == [-2, -1]:
        draft.add("total", [out, source], (), (1, source[0].numel()))
        return
    ones = draft.keep(torch.ones(source[0].shape[-2], dtype=source[0].dtype))
    draft.add("column_sums", [out, source, (ones, ones)], (), source[0].shape)


# Kernels for norms, by the order in both steps and the axes; a sum of sizes is one of what `abs` has made of them.
_NORMS = {
    ((2, 2), (-1,)): "row_norms",
    ((2, 2), (-2,)): "column_norms",
    ((2, 2), (-2, -1)): "row_norms",
    ((1, 1), (-2, -1)): "total",
}


def _norm(draft, arguments, out):
    source, axes = arguments["self"], tuple(arguments["dim"][0] or ())
    code = _NORMS.get((arguments["ord"], axes))
    is_plain = arguments["dtype"][0] is None and source[0].is_contiguous() and out[0].is_contiguous()
    if code is None or not is_plain:
        raise NotRepeatableError
    shape = (1, *source[0].shape)[-2:] if len(axes) == 1 else (1, source[0].numel())
    if code == "total":
        sizes = draft.keep(torch.empty_like(source[0]))
        draft.add("abs", [(sizes, sizes), source])
        source = sizes, sizes
    draft.add(code, [out, source], (), shape)


def _softmax(draft, arguments, out):
    tensors = *out, *arguments["self"]
    if arguments["dim"] != (-1, -1) or not all(tensor.is_contiguous() and tensor.dim() == 2 for tensor in tensors):
        raise NotRepeatableError
    draft.add("softmax", [out, arguments["self"]], (), out[0].shape)


def _log_softmax(draft, arguments, out):
    source = arguments["self"]
    if (
        arguments["dim"] != (-1, -1)
        or arguments["dtype"][0] is not None
        or not source[0].is_contiguous()
        or source[0].dim() != 2
    ):
        raise NotRepeatableError
    draft.add("log_softmax", [out, source], (), source[0].shape)


def _adam(draft, arguments, out):
    if arguments["maximize"] != (False, False) or arguments["weight_decay"] != (0.0, 0.0):
        raise NotRepeatableError
    lists = [arguments[name] for name in ("self", "exp_avgs", "exp_avg_sqs", "max_exp_avg_sqs", "grads")]
    if any(len(first) > 1 for first, _ in lists):
        raise NotRepeatableError
    operands = [(first[0], second[0]) if first else None for first, second in lists]
    if not all(operand is None or operand[0].is_contiguous() for operand in operands):
        raise NotRepeatableError
    numbers = [arguments["lr"], draft.filled(arguments["state_steps"][0][0])]
    numbers += [arguments[name] for name in ("beta1", "beta2", "eps")]
    draft.add("adam", operands, numbers, (1, operands[0][0].numel()))


def _batch_norm(draft, arguments, out):
    x = arguments["input"]
    if arguments["training"] != (True, True) or not (x[0].is_contiguous() and arguments["out"][0].is_contiguous()):
        raise NotRepeatableError
    names = ("out", "input", "weight", "bias", "running_mean", "running_var", "save_mean", "save_invstd")
    numbers = [arguments["momentum"], arguments["eps"]]
    draft.add("batch_norm", [arguments[name] for name in names], numbers, x[0].shape)


def _batch_norm_backward(draft, arguments, out):
    x = arguments["input"]
    if arguments["train"] != (True, True) or not all(arguments[name][0].is_contiguous() for name in ("grad_out", "out0")):
        raise NotRepeatableError
    names = ("out0", "out1", "out2", "grad_out", "input", "weight", "save_mean", "save_invstd")
    draft.add("batch_norm_backward", [arguments[name] for name in names], (), x[0].shape)


_BACKWARD = ("grad_output", "self")
_OF_OUTPUT = ("grad_output", "output")

# What is done for each of torch's kernels, by name.
TRANSLATIONS = {
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
