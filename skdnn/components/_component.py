"""What all techniques have in common: parameters, value equality, a name in a catalogue, a stack of K of them."""

import inspect
from numbers import Real

import numpy as np
import torch
from sklearn.base import BaseEstimator

from skdnn._validation import CachedParameterNames, did_you_mean, validate_parameter_constraints
from skdnn.exceptions import InvalidParameterError

# Values that are equal exactly if their hashes are; others do not take part in a component's hash.
_HASHABLE = (Real, str)


class Component(CachedParameterNames, BaseEstimator):
    """A technique with its parameters.

    It only stores what it is given, has ``get_params`` and ``set_params`` (nested grids reach into it), compares by value
    and prints as the call that makes it. Its parameters are checked when an estimator resolves it, not before.
    """

    _parameter_constraints: dict = {}

    @property
    def calls_users_code(self):
        """Whether it is more than skdnn knows: what users wrote may do other things in the next step than in this one."""
        return not type(self).__module__.startswith("skdnn.")

    @property
    def form(self):
        """What components must have in common, beside numbers, to be stacked."""
        return type(self)

    def validate(self):
        """Check the parameters against their constraints.

        Returns
        -------
        self : Component

        Raises
        ------
        sklearn.utils._param_validation.InvalidParameterError
            A `ValueError` that names the parameter, what it must be and what it is.
        """
        validate_parameter_constraints(
            self._parameter_constraints, self.get_params(deep=False), caller_name=type(self).__name__
        )
        return self

    def __eq__(self, other):
        if type(self) is not type(other):
            return NotImplemented
        mine, theirs = self.get_params(deep=False), other.get_params(deep=False)
        return mine.keys() == theirs.keys() and all(_same(mine[name], theirs[name]) for name in mine)

    def __lt__(self, other):
        # Such tables are sorted by their parameter columns, too, which hold names beside objects.
        return repr(self) < (other if isinstance(other, str) else repr(other))

    def __gt__(self, other):
        return repr(self) > (other if isinstance(other, str) else repr(other))

    def __hash__(self):
        # Tables of search results group by their parameter columns, so a component must be hashable although it is mutable.
        values = self.get_params(deep=False).items()
        return hash((type(self), frozenset((name, value) for name, value in values if isinstance(value, _HASHABLE))))


def _same(a, b):
    if isinstance(a, np.ndarray | torch.Tensor) or isinstance(b, np.ndarray | torch.Tensor):
        return np.array_equal(np.asarray(a), np.asarray(b))
    return a is b or bool(a == b)


def resolve(table, base, spec, *, parameter, from_callable=None, also=()):
    """Turn what a user wrote for one technique into a checked component.

    Parameters
    ----------
    table : dict of str to callable
        The catalogue: a name, and the class (or a partial of it) that makes the component with its defaults.

    base : type
        The class that all entries of the catalogue extend.

    spec : str, component, callable or None
        A name of the catalogue, an instance, a callable where `from_callable` is given, or None for none.

    parameter : str
        The estimator's parameter, for the error message.

    from_callable : callable, default=None
        Makes a component of a callable that is not one.

    also : sequence of str, default=()
        What else the parameter takes, handled by the caller, for the error message.

    Returns
    -------
    component : Component or None

    Raises
    ------
    InvalidParameterError
        The name is not known (the message has the nearest one) or the type cannot be used.
    """
    if spec is None:
        return None
    if isinstance(spec, str):
        if spec not in table:
            raise InvalidParameterError(f"{parameter}={spec!r} is not known{did_you_mean(spec, table)}.")
        return table[spec]()
    if isinstance(spec, base):
        return spec.validate()
    if inspect.isclass(spec) and issubclass(spec, base):
        raise InvalidParameterError(f"{parameter}={spec.__name__} is a class; pass an object of it: {spec.__name__}().")
    if callable(spec) and from_callable is not None:
        return from_callable(spec).validate()
    kinds = ["None", *also, "a name", f"a {base.__name__}"] + (["a callable"] if from_callable is not None else [])
    raise InvalidParameterError(
        f"{parameter} must be {', '.join(kinds[:-1])} or {kinds[-1]}. Got {spec!r} of type {type(spec).__name__} instead. "
        f"Names: {', '.join(map(repr, table))}."
    )


def stack(components, expand):
    """Make one component of K of the same class, one for each network of a population.

    Parameters that agree stay as they are; numbers that differ become a tensor with one value a network, shaped by `expand`
    so that it broadcasts against what the component works on. The formulas are written so that they take either.

    Parameters
    ----------
    components : sequence of Component
    expand : callable
        From a tensor of shape (K,) to one that broadcasts.

    Returns
    -------
    component : Component

    Raises
    ------
    ValueError
        The components are of different classes, or differ in something that is not a number.
    """
    first = components[0]
    if all(component == first for component in components[1:]):
        return first
    if len({type(component) for component in components}) > 1:
        raise ValueError(f"networks in lockstep need techniques of one class each, got {components!r}.")
    parameters = {}
    for name, value in first.get_params(deep=False).items():
        values = [getattr(component, name) for component in components]
        if all(_same(value, other) for other in values):
            parameters[name] = value
        elif all(isinstance(other, Real) and not isinstance(other, bool) for other in values):
            parameters[name] = expand(torch.tensor([float(other) for other in values], dtype=torch.float64))
        else:
            raise ValueError(f"networks in lockstep cannot differ in {type(first).__name__}.{name}: got {values!r}.")
    return type(first)(**parameters)
