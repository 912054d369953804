"""What a training step does, written down kernel by kernel."""

from dataclasses import dataclass

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class NotRepeatableError(Exception):
    """The calls of a step are more than known kernels over static memory."""


@dataclass(frozen=True, eq=False)
class Call:
    """A kernel's call.

    Attributes
    ----------
    func : torch._ops.OpOverload
    arguments : dict
        By the names of the kernel's schema, those that were left out included.
    result : Tensor, tuple or list of Tensor, or None
    """

    func: torch._ops.OpOverload
    arguments: dict
    result: object

    @property
    def name(self):
        """The kernel's name, without overload and the mark of those that work in place."""
        name = self.func._schema.name.split("::")[1]
        return name[:-1] if self.is_in_place and not name.startswith("_") else name

    @property
    def is_in_place(self):
        """Whether the result is the first argument."""
        return self.func._schema.name.endswith("_")


def write_down(step):
    """Run a step and return its calls, a list of `Call`.

    Parameters
    ----------
    step : callable
        Without arguments.
    """
    with _Log() as log:
        step()
    return log.calls


class _Log(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.calls = []

    @classmethod
    def _should_skip_dynamo(cls):
        return False  # to skip it, torch would import it, for two seconds

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        names = func._schema.arguments
        arguments = {argument.name: argument.default_value for argument in names[len(args) :] if argument.has_default_value()}
        arguments |= {argument.name: value for argument, value in zip(names, args, strict=False)}
        self.calls.append(Call(func, arguments | kwargs, result))
        return result
