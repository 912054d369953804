"""Constraints that kernels are put back onto after every update."""

import math
from numbers import Real

import torch

from skdnn._validation import Interval, StrOptions
from skdnn.components._component import Component, resolve
from skdnn.exceptions import InvalidParameterError

# Units in the last place that a computed norm may be off by.
_ROUNDINGS = 4


class Constraint(Component):
    """A set that a kernel of shape (..., n_out, n_in) is projected onto; leading axes are networks in lockstep."""

    def project(self, kernel):
        """Change `kernel` in place to the nearest point of the set."""
        raise NotImplementedError


class MaxNorm(Constraint):
    """Max norm: each unit's weight vector is scaled back onto the ball of radius `max_value` if an update left it.

    It is a constraint, not a penalty: what is inside the ball stays as it was, bit for bit.

    Parameters
    ----------
    max_value : float in (0.0, inf), default=1.0
        The radius of the ball in the Euclidean norm.

    axis : {"incoming", "outgoing"}, default="incoming"
        "incoming" bounds the weights that enter a unit, as the chapter's text and the paper define it; "outgoing" those that
        leave a unit or feature, as the chapter's code does, which clips over axis 1 of an (in, out) kernel.

    References
    ----------
    Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting", JMLR 2014, section 5.1.

    Examples
    --------
    >>> from skdnn.components import MaxNorm
    >>> MaxNorm(2.0)
    MaxNorm(max_value=2.0)
    """

    _parameter_constraints = {
        "max_value": [Interval(Real, 0.0, None, closed="neither")],
        "axis": [StrOptions({"incoming", "outgoing"})],
    }

    def __init__(self, max_value=1.0, axis="incoming"):
        self.max_value = max_value
        self.axis = axis

    @property
    def form(self):
        return type(self), self.axis

    def project(self, kernel):
        dim = -1 if self.axis == "incoming" else -2
        norm = torch.linalg.vector_norm(kernel, dim=dim, keepdim=True)
        # A number divided by a tensor is a product with the reciprocal in torch, which can miss 1; a true quotient cannot.
        radius = self.max_value if isinstance(self.max_value, torch.Tensor) else torch.full_like(norm, self.max_value)
        factor = torch.div(radius, norm)  # inf for a vector of norm 0
        # The norm itself is rounded: what is outside by less than its error counts as inside, and is multiplied by exactly 1.
        inside = factor > 1.0 - _ROUNDINGS * torch.finfo(kernel.dtype).eps
        kernel.mul_(factor.masked_fill_(inside, 1.0))


CONSTRAINTS = {"max_norm": MaxNorm}


def resolve_max_norm(spec, parameter="max_norm"):
    """Return the constraint that `spec` (None, a radius or an object) stands for."""
    if isinstance(spec, Real) and not isinstance(spec, bool):
        if not spec > 0:
            raise InvalidParameterError(f"{parameter}={spec!r} must be None, a number in (0.0, inf) or a MaxNorm.")
        return MaxNorm(float(spec)).validate() if math.isfinite(spec) else None
    return resolve(CONSTRAINTS, Constraint, spec, parameter=parameter, also=["a number in (0.0, inf)"])
