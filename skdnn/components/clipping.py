"""Gradient clipping, against gradients that explode."""

import math
from numbers import Real

import torch

from skdnn._validation import Interval
from skdnn.components._component import Component, resolve
from skdnn.exceptions import InvalidParameterError

# What torch.nn.utils.clip_grad_norm_ adds to the norm before it divides by it.
_NORM_EPSILON = 1e-6


class GradientClipping(Component):
    """A bound on the gradient, applied after the penalties are added and before the optimizer sees it."""

    def clip(self, gradient):
        """Change the gradient in place.

        Parameters
        ----------
        gradient : Tensor of shape ([n_networks,] n_parameters)
            Where several networks are in lockstep, numbers that differ between them are tensors of shape (n_networks, 1).
        """
        raise NotImplementedError


class ClipNorm(GradientClipping):
    """Scale the whole gradient down to the norm `max_norm` if it is longer; its direction is kept.

    Parameters
    ----------
    max_norm : float in (0.0, inf), default=1.0

    References
    ----------
    Pascanu, Mikolov and Bengio, "On the difficulty of training recurrent neural networks", ICML 2013.

    Examples
    --------
    >>> from skdnn.components import ClipNorm
    >>> ClipNorm(5.0)
    ClipNorm(max_norm=5.0)
    """

    _parameter_constraints = {"max_norm": [Interval(Real, 0.0, None, closed="neither")]}

    def __init__(self, max_norm=1.0):
        self.max_norm = max_norm

    def clip(self, gradient):
        norm = torch.linalg.vector_norm(gradient, dim=-1, keepdim=True)
        # As torch divides a number by a tensor, so that a bound is rounded in the same way as a number and in a tensor.
        gradient.mul_(norm.add_(_NORM_EPSILON).reciprocal_().mul_(self.max_norm).clamp_(max=1.0))


class ClipValue(GradientClipping):
    """Cut each component of the gradient to [-value, value], as the chapter does.

    Parameters
    ----------
    value : float in (0.0, inf), default=1.0

    References
    ----------
    Mikolov, "Statistical Language Models Based on Neural Networks", PhD thesis, 2012.

    Examples
    --------
    >>> from skdnn.components import ClipValue
    >>> ClipValue()
    ClipValue()
    """

    _parameter_constraints = {"value": [Interval(Real, 0.0, None, closed="neither")]}

    def __init__(self, value=1.0):
        self.value = value

    def clip(self, gradient):
        gradient.clamp_(-self.value, self.value)


CLIPPINGS = {"norm": ClipNorm, "value": ClipValue}


def resolve_clipping(spec, parameter="gradient_clipping"):
    """Return the clipping that `spec` (None, a global norm, a name or an object) stands for."""
    if isinstance(spec, Real) and not isinstance(spec, bool):
        if not spec > 0:
            raise InvalidParameterError(
                f"{parameter}={spec!r} must be None, a number in (0.0, inf), a ClipNorm or a ClipValue."
            )
        return ClipNorm(float(spec)).validate() if math.isfinite(spec) else None
    return resolve(CLIPPINGS, GradientClipping, spec, parameter=parameter, also=["a number in (0.0, inf)"])
