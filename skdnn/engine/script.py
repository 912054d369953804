"""Small training steps without Python between their kernels.

A step is the same kernels over the same memory each time, but for the batch, the learning rate and the number of the update.
Where the kernels are small, calling them from Python takes as long as running them. `compile_steps` writes down the kernels of
two steps, compares them, and lets TorchScript's interpreter, which calls the same kernels from C++, run a loop over them.
Whatever it does not understand, or would not repeat to the bit, it leaves to Python. torch.compile was tried in its place: it
takes seconds for each new shape, and the kernels it fuses round differently.
"""

import functools
import math

import torch
from torch.utils._python_dispatch import TorchDispatchMode

# TorchScript's numbers of dtypes (c10::ScalarType), as far as the kernels of a step are given any.
_DTYPE_NUMBERS = {torch.float32: 6, torch.float64: 7}

# Learning rates of the two steps that are compared: numbers that no technique has among its own. Further ones are near them.
_PROBE_RATES = (0.0061803398875, 0.0057721566490)
_NEAR = 0.0027182818285


class _NotScriptableError(Exception):
    """The calls of a step are more than kernels over static memory."""


def compile_steps(steps, n_batches, states, n_updates, pattern=None):
    """Return one call for the steps of several batches, or None where they must be made one by one.

    Parameters
    ----------
    steps : callable
        ``steps(i, learning_rate, n)`` makes the step of batch `i`, which is the `n`-th update.
    n_batches : int
        Batches there are buffers for.
    states : list of dict of Tensor
        What steps change and later steps depend on, by name; it is what it was before when this returns.
    n_updates : int
        Updates done so far.
    pattern : tuple of int, default=None
        For learning rates that are a tuple, which of them are equal; see `pattern_of`.

    Returns
    -------
    run : callable or None
        ``run(learning_rates, n_updates)`` makes the steps of the first ``len(learning_rates)`` batches, to the bit as `steps`
        would, after `n_updates` updates. All its rates must have the pattern.
    """
    batches = (0, min(1, n_batches - 1))
    before = _save(states)
    rates = [_probe_of(rate, pattern) for rate in _PROBE_RATES]
    try:
        logs = [_log(steps, i, rate, n_updates + 1 + k) for k, (i, rate) in enumerate(zip(batches, rates, strict=True))]
        expected = _save(states)
        numbers = [(*_distinct(rate), n_updates + 1 + k) for k, rate in enumerate(rates)]
        run = _Script(logs, numbers).bind(n_batches)
        _restore(states, before)
        if n_batches > 1:
            run(rates, n_updates)
        else:
            run(rates[:1], n_updates)
            run(rates[1:], n_updates + 1)
        return run if _are_same(states, expected) else None
    except (_NotScriptableError, AttributeError, RuntimeError):
        return None
    finally:
        _restore(states, before)


def pattern_of(learning_rate):
    """Return for each of a tuple of rates the number of its value, in the order in which values come up; None for a number.

    Examples
    --------
    >>> from skdnn.engine.script import pattern_of
    >>> pattern_of((0.1, 0.5, 0.1, 0.2))
    (0, 1, 0, 2)
    """
    if not isinstance(learning_rate, tuple):
        return None
    numbers = {rate: i for i, rate in enumerate(_distinct(learning_rate))}
    return tuple(numbers[rate] for rate in learning_rate)


def _distinct(learning_rate):
    return list(dict.fromkeys(learning_rate)) if isinstance(learning_rate, tuple) else [learning_rate]


def _probe_of(rate, pattern):
    return rate if pattern is None else tuple(rate * (1.0 + _NEAR * number) for number in pattern)


def _save(states):
    """The tensors themselves, for a step may put others into their places, and what they hold."""
    return [{name: (tensor, tensor.clone()) for name, tensor in state.items()} for state in states]


def _restore(states, saved):
    for state, tensors in zip(states, saved, strict=True):
        state.update({name: tensor.copy_(values) for name, (tensor, values) in tensors.items()})


def _are_same(states, saved):
    """Whether the bits are those that were saved, in what is more than a place to work in."""
    return all(
        torch.equal(state[name].reshape(-1).view(torch.uint8), values.reshape(-1).view(torch.uint8))
        for state, tensors in zip(states, saved, strict=True)
        for name, (_, values) in tensors.items()
        if name != "scratch"
    )


class _Log(TorchDispatchMode):
    """Writes down the kernels that are called."""

    def __init__(self):
        super().__init__()
        self.calls = []

    @classmethod
    def _should_skip_dynamo(cls):
        return False  # to skip it, torch would import it, for two seconds

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, result))
        return result


def _log(steps, i, rate, n):
    with _Log() as log:
        steps(i, rate, n)
    return log.calls


class _Script:
    """The source of a loop over steps, and the tensors it works on.

    Parameters
    ----------
    logs : list of list
        Kernels of two steps.
    numbers : list of tuple
        Learning rates of each, and its number.
    """

    def __init__(self, logs, numbers):
        first, second = logs
        *rates, n = zip(*numbers, strict=True)
        self._variables = {n: "n"}
        for k, (a, b) in enumerate(rates):
            self._variables |= {(a, b): f"rate[{k}]", (-a, -b): f"-rate[{k}]"}
        self._shared, self._batch, self._results, self._lists = {}, {}, {}, []
        if [call[0] for call in first] != [call[0] for call in second]:
            raise _NotScriptableError
        lines = [self._line(i, *calls) for i, calls in enumerate(zip(first, second, strict=True))]
        shared = [f"    s{i} = shared[{i}]" for i in range(len(self._shared))]
        batch = ["        batch = batches[i]"] + [f"        b{i} = batch[{i}]" for i in range(len(self._batch))]
        self.source = "\n".join(
            [
                "def run(shared: List[Tensor], lists: List[List[Tensor]], batches: List[List[Tensor]],",
                "        rates: List[List[float]], n_updates: int):",
                *shared,
                "    for i in range(len(rates)):",
                *batch,
                "        rate = rates[i]",
                "        n = n_updates + 1 + i",
                *lines,
                "",
            ]
        )

    def bind(self, n_batches):
        """Return the compiled loop with its tensors."""
        shared = [tensor for tensor, _ in self._shared.values()]
        batches = [
            [
                first.as_strided(first.shape, first.stride(), first.storage_offset() + i * step)
                for first, step in self._batch.values()
            ]
            for i in range(n_batches)
        ]
        run = _compile(self.source)

        def steps(learning_rates, n_updates):
            with torch.jit.optimized_execution(False):  # it changes nothing but the first runs' time
                run(shared, self._lists, batches, list(map(_distinct, learning_rates)), n_updates)

        return steps

    def _line(self, i, first, second):
        """One kernel's line, from its calls in both steps."""
        func, args, kwargs, result = first
        _, args_2, kwargs_2, result_2 = second
        if torch.Tag.nondeterministic_seeded in func.tags or not _is_of_tensors(result):
            raise _NotScriptableError
        if len(args) != len(args_2) or kwargs.keys() != kwargs_2.keys():
            raise _NotScriptableError
        given = [self._value(a, b) for a, b in zip(args, args_2, strict=True)]
        given += [f"{name}={self._value(value, kwargs_2[name])}" for name, value in kwargs.items()]
        call = f"torch.ops.{func.namespace}.{func._schema.name.split('::')[1]}({', '.join(given)})"
        if not isinstance(result, torch.Tensor) or self._is_known(result):
            return f"        {call}"
        self._results[id(result)], self._results[id(result_2)] = f"v{i}", f"v{i}"
        return f"        v{i} = {call}"

    def _is_known(self, tensor):
        return id(tensor) in self._results or any(
            tensor is known for known, _ in [*self._shared.values(), *self._batch.values()]
        )

    def _value(self, a, b):
        """An argument of a kernel as it stands in the source."""
        if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
            return self._tensor(a, b)
        if isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
            if all(isinstance(value, torch.Tensor) for value in a):
                return self._list(a, b)
            return "[" + ", ".join(map(self._value, a, b)) + "]"
        if type(a) is not type(b):
            raise _NotScriptableError
        if a is None or isinstance(a, bool):
            if a is not b:
                raise _NotScriptableError
            return repr(a)
        if isinstance(a, torch.dtype) and a == b and a in _DTYPE_NUMBERS:
            return repr(_DTYPE_NUMBERS[a])
        if isinstance(a, int | float):
            if (a, b) in self._variables:
                return self._variables[a, b]
            if a == b and math.isfinite(a):
                return repr(a)
        raise _NotScriptableError

    def _tensor(self, a, b):
        """A tensor's name: a result of the step, one of both steps, or one of the batch."""
        if id(a) in self._results:
            if self._results.get(id(b)) != self._results[id(a)]:
                raise _NotScriptableError
            return self._results[id(a)]
        key = _place(a), _place(b)
        if key[0] == key[1]:
            return f"s{list(self._shared).index(key)}" if key in self._shared else self._add("s", self._shared, key, a, 0)
        if key in self._batch:
            return f"b{list(self._batch).index(key)}"
        is_alike = a.shape == b.shape and a.stride() == b.stride() and a.dtype == b.dtype
        if not is_alike or a.untyped_storage().data_ptr() != b.untyped_storage().data_ptr():
            raise _NotScriptableError
        return self._add("b", self._batch, key, a, b.storage_offset() - a.storage_offset())

    def _list(self, a, b):
        """A list of tensors' name. Made in the script, it would hide from TorchScript that its tensors are changed."""
        if list(map(_place, a)) != list(map(_place, b)):
            raise _NotScriptableError
        self._lists.append(list(a))
        return f"lists[{len(self._lists) - 1}]"

    @staticmethod
    def _add(prefix, tensors, key, tensor, step):
        tensors[key] = tensor, step
        return f"{prefix}{len(tensors) - 1}"


def _is_of_tensors(result):
    """Whether a kernel's result is of tensors: with a number, Python could have taken a decision."""
    return result is None or all(isinstance(part, torch.Tensor) for part in (result if isinstance(result, tuple) else [result]))


def _place(tensor):
    """What tells two tensors apart: their memory and how it is read."""
    return tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype


@functools.lru_cache(maxsize=64)
def _compile(source):
    return torch.jit.CompilationUnit(source).run
