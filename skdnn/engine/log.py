"""What a training step does, written down kernel by kernel."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class NotRepeatableError(Exception):
    """The calls of a step are more than known kernels over static memory."""


@dataclass(frozen=True, eq=False)
class Schema:
    """What is known of a kernel without a call.

    Attributes
    ----------
    name : str
        Without overload and the mark of those that work in place.
    is_in_place : bool
        Whether the result is the first argument.
    returns : bool
        Whether there is a result.
    parameters, outputs : tuple of str
        Names of all, and of those that are written.
    defaults : dict
        Of parameters that have one.
    """

    name: str
    is_in_place: bool
    returns: bool
    parameters: tuple
    outputs: tuple
    defaults: dict


class Call(NamedTuple):
    """A kernel's call."""

    func: torch._ops.OpOverload
    schema: Schema
    args: tuple
    kwargs: dict
    result: object
    """Tensor, tuple or list of Tensor, or None"""

    @property
    def arguments(self):
        """All arguments by name, those that were left out included."""
        schema = self.schema
        return {**schema.defaults, **dict(zip(schema.parameters, self.args, strict=False)), **self.kwargs}


_SCHEMAS: dict[int, Schema] = {}  # by the overload's number: torch hashes overloads, which live for ever, by their names


def schema_of(func):
    """Return the `Schema` of an overload of ``torch.ops``."""
    known = _SCHEMAS.get(id(func))
    if known is None:
        name, parameters = func._schema.name.split("::")[1], func._schema.arguments
        is_in_place = name.endswith("_")
        known = _SCHEMAS[id(func)] = Schema(
            name=name[:-1] if is_in_place and not name.startswith("_") else name,
            is_in_place=is_in_place,
            returns=bool(func._schema.returns),
            parameters=tuple(parameter.name for parameter in parameters),
            outputs=tuple(parameter.name for parameter in parameters if parameter.is_out),
            defaults={parameter.name: parameter.default_value for parameter in parameters if parameter.has_default_value()},
        )
    return known


def write_down(step):
    """Return the calls of a step, a list of `Call`, without changing a tensor that there is.

    What writes into tensors that it is given is not called, so that what other kernels make of them means nothing.

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
        kwargs, schema = kwargs or {}, schema_of(func)
        if schema.is_in_place:
            result = args[0] if schema.returns else None
        elif schema.outputs:
            outputs = tuple(kwargs[name] for name in schema.outputs)
            result = outputs if len(outputs) > 1 else outputs[0]
        else:
            result = func(*args, **kwargs)
        self.calls.append(Call(func, schema, args, kwargs, result))
        return result
