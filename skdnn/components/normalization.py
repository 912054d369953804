"""Batch normalisation, as a setting of the estimator. The layer itself is the engine's."""

from numbers import Real

import numpy as np

from skdnn._validation import Interval
from skdnn.components._component import Component
from skdnn.exceptions import InvalidParameterError


class BatchNorm(Component):
    """Batch normalisation before the activation of each hidden layer.

    Each unit's input is centred and scaled by the batch's mean and variance, then by a scale and a shift that are learned.
    Predictions use running averages of both, which are part of the estimator's state but not trained.

    Parameters
    ----------
    momentum : float in [0.0, 1.0), default=0.9
        Of the running averages, per update: ``running = running * momentum + batch * (1 - momentum)``. This is the chapter's
        and Keras' convention; torch's ``momentum`` is one minus it.

    epsilon : float in (0.0, inf), default=1e-5
        Added to the variance.

    output : bool, default=False
        Normalise the output layer's logits too, as the chapter does.

    References
    ----------
    Ioffe and Szegedy, "Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate Shift",
    ICML 2015.

    Examples
    --------
    >>> from skdnn.components import BatchNorm
    >>> BatchNorm(momentum=0.99)
    BatchNorm(momentum=0.99)
    """

    _parameter_constraints = {
        "momentum": [Interval(Real, 0.0, 1.0, closed="left")],
        "epsilon": [Interval(Real, 0.0, None, closed="neither")],
        "output": ["boolean"],
    }

    def __init__(self, momentum=0.9, epsilon=1e-5, output=False):
        self.momentum = momentum
        self.epsilon = epsilon
        self.output = output


def resolve_batch_norm(spec):
    """Return the `BatchNorm` that `spec` (a bool, None or an object) stands for, or None."""
    if isinstance(spec, BatchNorm):
        return spec.validate()
    if spec is None:
        return None
    if isinstance(spec, bool | np.bool_):
        return BatchNorm() if spec else None
    raise InvalidParameterError(f"batch_norm must be a bool or a BatchNorm. Got {spec!r} instead.")
