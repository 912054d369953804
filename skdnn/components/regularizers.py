"""Penalties on the kernels, added to the loss. Biases and batch-norm parameters are never penalised."""

from numbers import Real

import torch

from skdnn._validation import Interval
from skdnn.components._component import Component, resolve

_STRENGTH = [Interval(Real, 0.0, None, closed="left")]


class Regularizer(Component):
    """A penalty on a kernel, with its gradient.

    The methods take kernels of shape (..., n_out, n_in); leading axes are networks in lockstep.
    """

    def penalty(self, kernel):
        """Return the penalty of each network, a tensor of the leading shape."""
        raise NotImplementedError

    def add_gradient(self, kernel, gradient, scratch):
        """Add the penalty's gradient to `gradient` in place. `scratch` is a tensor of the same shape to work in."""
        raise NotImplementedError


class L1L2(Regularizer):
    """The elastic penalty ``l1 * sum |w| + l2 / 2 * sum w**2`` of each kernel, not divided by the number of rows.

    Parameters
    ----------
    l1 : float in [0.0, inf), default=1e-3
    l2 : float in [0.0, inf), default=1e-3

    References
    ----------
    Zou and Hastie, "Regularization and variable selection via the elastic net", JRSS B, 2005.

    Examples
    --------
    >>> from skdnn.components import L1L2
    >>> L1L2(l1=1e-4)
    L1L2(l1=0.0001)
    """

    _parameter_constraints = {"l1": _STRENGTH, "l2": _STRENGTH}

    def __init__(self, l1=1e-3, l2=1e-3):
        self.l1 = l1
        self.l2 = l2

    def penalty(self, kernel):
        return L1(_flat(self.l1)).penalty(kernel) + L2(_flat(self.l2)).penalty(kernel)

    def add_gradient(self, kernel, gradient, scratch):
        L1(self.l1).add_gradient(kernel, gradient, scratch)
        L2(self.l2).add_gradient(kernel, gradient, scratch)


class L1(Regularizer):
    """The penalty ``l1 * sum |w|`` of each kernel, which drives weights to exactly where they matter; others hover near 0.

    Its gradient is ``l1 * sign(w)``, 0 at 0. It is not divided by the number of rows.

    Parameters
    ----------
    l1 : float in [0.0, inf), default=1e-3

    References
    ----------
    Tibshirani, "Regression Shrinkage and Selection via the Lasso", JRSS B, 1996.

    Examples
    --------
    >>> from skdnn.components import L1
    >>> L1(0.01)
    L1(l1=0.01)
    """

    _parameter_constraints = {"l1": _STRENGTH}

    def __init__(self, l1=1e-3):
        self.l1 = l1

    def penalty(self, kernel):
        return _flat(self.l1) * torch.linalg.vector_norm(kernel, 1, dim=(-2, -1))

    def add_gradient(self, kernel, gradient, scratch):
        torch.sign(kernel, out=scratch)
        _add_scaled(gradient, scratch, self.l1)


class L2(Regularizer):
    """The penalty ``l2 / 2 * sum w**2`` of each kernel (ridge, weight decay under plain SGD).

    It is not divided by the number of rows: scikit-learn's ``alpha`` is ``L2(alpha / n)`` for batches of n rows.

    Parameters
    ----------
    l2 : float in [0.0, inf), default=1e-3

    References
    ----------
    Krogh and Hertz, "A Simple Weight Decay Can Improve Generalization", NIPS 1991.

    Examples
    --------
    >>> from skdnn.components import L2
    >>> L2()
    L2()
    """

    _parameter_constraints = {"l2": _STRENGTH}

    def __init__(self, l2=1e-3):
        self.l2 = l2

    def penalty(self, kernel):
        return torch.linalg.vector_norm(kernel, dim=(-2, -1)).square_().mul_(_flat(self.l2) / 2)

    def add_gradient(self, kernel, gradient, scratch):
        _add_scaled(gradient, kernel, self.l2)


def _flat(strength):
    """Strengths come as a number or with the kernel's axes, (K, 1, 1); a penalty has only the networks' axis."""
    return strength.flatten() if isinstance(strength, torch.Tensor) else strength


def _add_scaled(target, values, factor):
    """``target += factor * values`` for a factor that is a number or a tensor that broadcasts."""
    if isinstance(factor, torch.Tensor):
        target.addcmul_(values, factor)
    else:
        target.add_(values, alpha=factor)


REGULARIZERS = {"l1": L1, "l2": L2, "l1_l2": L1L2}


def resolve_regularizer(spec, parameter="regularizer"):
    """Return the regularizer that `spec` (None, a name or an object) stands for."""
    return resolve(REGULARIZERS, Regularizer, spec, parameter=parameter)
