"""Texts of parameters by which settings know each other again: in another process, on another day."""

import functools
import hashlib
import sys
import types

import numpy as np
import torch

# Types whose `repr` says all there is.
_PLAIN = (type(None), bool, int, float, complex, str, bytes)

# What comes from these is known by its name, for their versions are compared, or Python's own.
_KNOWN_PACKAGES = {"skdnn", "torch", "numpy", "sklearn"} | sys.stdlib_module_names - {"__main__"}


class NoStableTextError(Exception):
    """There is no text for a value that other processes would come to as well."""


def text_of(value):
    """Return a text that is the same for values that mean the same, whatever the process, and else another.

    Objects are described by what they are made of, arrays by a hash, a user's own functions and classes by their names and a
    hash of their code. Code that these call is not looked at.

    Parameters
    ----------
    value : object
        A parameter of an estimator.

    Returns
    -------
    text : str

    Raises
    ------
    NoStableTextError
        The value is a generator of its process, a class of a function's making, or the like.

    Examples
    --------
    >>> from skdnn.components import Momentum
    >>> text_of(Momentum(0.5)), text_of([0.1, None])
    ('skdnn.components.optimizers.Momentum(momentum=0.5)', '[0.1, None]')
    """
    try:
        return _describe(value)
    except NoStableTextError:
        raise
    except Exception as error:  # of what users have written, or because something holds itself
        raise NoStableTextError(f"{type(value).__name__}: {error}") from error


def _describe(value):
    if type(value) in _PLAIN or isinstance(value, np.generic):
        return repr(value)
    if type(value) in (list, tuple, dict, set, frozenset):
        return _describe_collection(value)
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            return f"array({_describe(value.tolist())})"
        return f"array(shape={value.shape}, dtype={value.dtype.str}, sha256={_digest(np.ascontiguousarray(value).tobytes())})"
    if isinstance(value, torch.Tensor):
        return f"tensor({_describe(value.detach().cpu().numpy())})"
    if isinstance(value, type):
        return _describe_class(value)
    if isinstance(value, types.FunctionType):
        return _describe_function(value)
    if isinstance(value, functools.partial):
        return f"partial({_describe([value.func, value.args, value.keywords])})"
    if hasattr(value, "get_params"):
        parameters = sorted(value.get_params(deep=False).items())
        return f"{_describe(type(value))}({', '.join(f'{name}={_describe(entry)}' for name, entry in parameters)})"
    made_of = value.__reduce_ex__(4)
    if isinstance(made_of, str):
        return f"{value.__module__}.{made_of}"
    make, arguments, *state = made_of
    return f"{_describe(make)}{_describe(arguments)}{[_describe(_plain(part)) for part in state if part is not None]}"


def _plain(part):
    """Items of a collection come as iterators."""
    return part if isinstance(part, tuple | dict) else list(part) if hasattr(part, "__next__") else part


def _describe_collection(value):
    if isinstance(value, dict):
        return "{" + ", ".join(sorted(f"{_describe(key)}: {_describe(entry)}" for key, entry in value.items())) + "}"
    texts = [_describe(entry) for entry in value]
    if isinstance(value, set | frozenset):
        return f"{type(value).__name__}({', '.join(sorted(texts))})"
    inner = ", ".join(texts)
    return f"[{inner}]" if isinstance(value, list) else f"({inner},)" if len(texts) == 1 else f"({inner})"


def _name(value):
    return f"{value.__module__}.{value.__qualname__}"


def _is_known(value):
    return value.__module__.split(".")[0] in _KNOWN_PACKAGES


def _describe_class(cls):
    """Name a class, with the code of its own methods and those of its bases where they are users'."""
    if _is_known(cls):
        return _name(cls)
    own = [base for base in cls.__mro__ if not _is_known(base)]
    if any("<locals>" in base.__qualname__ for base in own):
        raise NoStableTextError(f"{_name(cls)} is a class that a function has made")
    members = [
        [name, _describe(_without_descriptor(member))]
        for base in own
        for name, member in sorted(vars(base).items())
        if name != "_abc_impl" and (isinstance(member, types.FunctionType) or not name.startswith("__"))
    ]
    return f"{_name(cls)}<{_digest(repr(members).encode())}>"


def _without_descriptor(member):
    """The functions of a method or property."""
    if isinstance(member, classmethod | staticmethod):
        return member.__func__
    if isinstance(member, property):
        return [member.fget, member.fset]
    return member


def _describe_function(function):
    """Name a function, with its code, its defaults and what it has closed over where it is a user's."""
    if _is_known(function) and "<locals>" not in function.__qualname__:
        return _name(function)
    code, cells = function.__code__, function.__closure__ or ()
    # The class that a method belongs to is described already.
    closed_over = [cell.cell_contents for name, cell in zip(code.co_freevars, cells, strict=True) if name != "__class__"]
    parts = [_describe_code(code), function.__defaults__, function.__kwdefaults__, closed_over]
    return f"{_name(function)}<{_digest(_describe(parts).encode())}>"


def _describe_code(code):
    constants = [_describe_code(part) if isinstance(part, types.CodeType) else _describe(part) for part in code.co_consts]
    return repr([code.co_code, code.co_names, code.co_varnames, code.co_freevars, constants])


def _digest(content):
    return hashlib.sha256(content).hexdigest()[:16]
