"""Losses on the output layer, with their gradients in closed form.

A loss is prepared once for a chunk of batches: the targets become tensors that already carry each row's weight, so that a
batch costs no more than its gradient. Rows are the last axis but one; leading axes are networks or batches.
"""

import math
from numbers import Real

import numpy as np
import torch

from skdnn._validation import Interval
from skdnn.components._component import Component, resolve
from skdnn.exceptions import InvalidParameterError


class Loss(Component):
    """What the output layer is trained on."""

    out_activation = "identity"
    """The name of the function from the output layer to a prediction, as `MLPClassifier.out_activation_` has it."""

    def n_outputs(self, n_targets):
        """Return how many units the output layer needs."""
        return n_targets

    def of_guessing(self, n_outputs):
        """Return the loss of predictions that know nothing of a row, a float; inf where that depends on the data."""
        return math.inf

    def prepare(self, y, n_outputs, row_weight, dtype, out=None):
        """Return the targets of some rows.

        Parameters
        ----------
        y : Tensor of shape (..., n_rows) or (..., n_rows, n_targets)
            Class indices, or a number a target.
        n_outputs : int
        row_weight : float or Tensor of shape (..., n_rows, 1) or (..., n_rows, n_outputs)
            What each row counts in its batch's loss: 1 / n_rows, times its weight if it has one.
        dtype : torch.dtype
        out : Tensor like `targets`, default=None
            Where to write them; by default a new one.

        Returns
        -------
        targets : Tensor of shape (..., n_rows, n_outputs)
            What `gradient` and `value` take.
        """
        raise NotImplementedError

    def gradient(self, outputs, targets, row_weight, out):
        """Write the gradient of the weighted loss with respect to `outputs` into `out`, of their shape, and return it."""
        raise NotImplementedError

    def to_module(self):
        """Return the `torch.nn.Module` that computes the same loss from outputs and plain targets."""
        return _LossModule(self)

    def value(self, outputs, targets, row_weight):
        """Return the weighted loss, summed over rows and outputs."""
        raise NotImplementedError

    def n_classes(self, n_outputs):
        """Return how many classes, or labels, so many outputs tell apart; None where they are numbers."""
        return

    def predict(self, outputs):
        """Return what the outputs predict, in the unit of the targets: class indices, or numbers."""
        return outputs

    def probabilities(self, outputs):
        """Return the probability of each class or label; where there are none, what `predict` returns."""
        return self.predict(outputs)


class _LossModule(torch.nn.Module):
    """The mean loss of outputs and plain targets."""

    def __init__(self, loss):
        super().__init__()
        self.loss = loss

    def forward(self, outputs, y):
        targets = self.loss.prepare(y, outputs.shape[-1], 1.0 / len(y), outputs.dtype)
        return self.loss.value(outputs, targets, 1.0 / len(y))


class _BinaryLossModule(torch.nn.BCEWithLogitsLoss):
    """torch's loss for targets that have no axis for the one output."""

    def forward(self, outputs, y):
        return super().forward(outputs, y.to(outputs.dtype).view_as(outputs))


class _Crossentropy(Loss):
    """A cross-entropy, possibly with smoothed labels.

    Parameters
    ----------
    label_smoothing : float in [0.0, 1.0), default=0.0
        The share of a row's target that is spread evenly over all classes (over 0 and 1 where an output is one label).

    References
    ----------
    Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", CVPR 2016.
    """

    _parameter_constraints = {"label_smoothing": [Interval(Real, 0.0, 1.0, closed="left")]}

    def __init__(self, label_smoothing=0.0):
        self.label_smoothing = label_smoothing


class CategoricalCrossentropy(_Crossentropy):
    """Cross-entropy of the softmax over K > 2 classes, ``-log softmax(z)[y]``."""

    out_activation = "softmax"

    def of_guessing(self, n_outputs):
        return math.log(n_outputs)

    def prepare(self, y, n_outputs, row_weight, dtype, out=None):
        # Minus the weighted one-hot rows: the gradient of the log-probabilities.
        targets = torch.zeros(*y.shape, n_outputs, dtype=dtype, device=y.device) if out is None else out.zero_()
        if not self.label_smoothing:
            return targets.scatter_(-1, y.unsqueeze(-1), -row_weight)
        targets.scatter_(-1, y.unsqueeze(-1), self.label_smoothing - 1.0)
        return targets.sub_(self.label_smoothing / n_outputs).mul_(row_weight)

    def gradient(self, outputs, targets, row_weight, out):
        torch.softmax(outputs, -1, out=out)
        if isinstance(row_weight, float):
            return torch.add(targets, out, alpha=row_weight, out=out)
        return torch.addcmul(targets, out, row_weight, out=out)

    def value(self, outputs, targets, row_weight):
        # A class that is not the row's counts nothing, even where its log-probability is -inf.
        return torch.log_softmax(outputs, -1).masked_fill_(targets == 0, 0.0).mul_(targets).sum((-2, -1))

    def to_module(self):
        return torch.nn.CrossEntropyLoss(label_smoothing=self.label_smoothing)

    def n_classes(self, n_outputs):
        return n_outputs

    def predict(self, outputs):
        return outputs.argmax(-1)

    def probabilities(self, outputs):
        return torch.softmax(outputs, -1)


class BinaryCrossentropy(_Crossentropy):
    """Cross-entropy of the logistic function over two classes, one output: ``log(1 + exp(z)) - y * z``."""

    out_activation = "logistic"

    def of_guessing(self, n_outputs):
        return math.log(2.0)

    def prepare(self, y, n_outputs, row_weight, dtype, out=None):
        return torch.mul(self._smooth(y.unsqueeze(-1).to(dtype)), row_weight, out=out)

    def gradient(self, outputs, targets, row_weight, out):
        return torch.sigmoid(outputs, out=out).mul_(row_weight).sub_(targets)

    def value(self, outputs, targets, row_weight):
        # -log(p) = softplus(-z) and -log(1 - p) = softplus(z): neither loses digits where the network is sure.
        softplus = torch.nn.functional.softplus
        return (softplus(-outputs) * targets + softplus(outputs) * (row_weight - targets)).sum((-2, -1))

    def _smooth(self, y):
        """Move targets away from 0 and 1."""
        return y * (1.0 - self.label_smoothing) + self.label_smoothing / 2.0 if self.label_smoothing else y

    def to_module(self):
        return _LossModule(self) if self.label_smoothing else _BinaryLossModule()

    def n_classes(self, n_outputs):
        return 2

    def predict(self, outputs):
        return (outputs[..., 0] > 0).long()

    def probabilities(self, outputs):
        positive = torch.sigmoid(outputs)
        return torch.cat([1.0 - positive, positive], -1)


class MultilabelCrossentropy(BinaryCrossentropy):
    """Cross-entropy of a logistic function for each label, summed over the labels."""

    def of_guessing(self, n_outputs):
        return n_outputs * math.log(2.0)

    def prepare(self, y, n_outputs, row_weight, dtype, out=None):
        return torch.mul(self._smooth(y.to(dtype)), row_weight, out=out)

    def to_module(self):
        return _LossModule(self)

    def n_classes(self, n_outputs):
        return n_outputs

    def predict(self, outputs):
        return (outputs > 0).long()

    def probabilities(self, outputs):
        return torch.sigmoid(outputs)


class RegressionLoss(Loss):
    """A loss of the residual ``z - t``, averaged over the targets of a row."""

    def standardization(self, y, sample_weight):
        """Return how targets are brought to a common scale, on which the loss changes nothing but its unit.

        Parameters
        ----------
        y : ndarray of shape (n_samples, n_targets)
        sample_weight : ndarray of shape (n_samples,) or None

        Returns
        -------
        mean, scale : ndarray of shape (n_targets,)
            What to take from the targets, and then to divide them by.
        """
        mean = np.average(y, axis=0, weights=sample_weight)
        scale = np.sqrt(np.average((y - mean) ** 2, axis=0, weights=sample_weight))
        # A target that is the same for all rows, but for rounding, has no scale of its own.
        is_constant = scale <= 10 * np.finfo(np.float64).eps * np.abs(mean)
        return mean, np.where(is_constant, 1.0, scale)

    def prepare(self, y, n_outputs, row_weight, dtype, out=None):
        return y.to(dtype) if out is None else out.copy_(y)

    def gradient(self, outputs, targets, row_weight, out):
        if targets.shape != outputs.shape:  # networks in lockstep that share the batch
            targets = targets.expand_as(outputs)
        return self._slope(torch.sub(outputs, targets, out=out)).mul_(row_weight / outputs.shape[-1])

    def value(self, outputs, targets, row_weight):
        return self._height(outputs - targets).mul_(row_weight / outputs.shape[-1]).sum((-2, -1))

    def _slope(self, residual):
        """Turn residuals into the derivative of their losses, in place."""
        raise NotImplementedError

    def _height(self, residual):
        """Return the losses of residuals."""
        raise NotImplementedError

    def check(self, y):
        """Refuse targets that the loss has no meaning for."""


class SquaredError(RegressionLoss):
    """Half the squared error, ``(z - t)**2 / 2``; it predicts the mean.

    Examples
    --------
    >>> from skdnn.components import SquaredError
    >>> SquaredError()
    SquaredError()
    """

    def _slope(self, residual):
        return residual

    def _height(self, residual):
        return residual.square() / 2


class AbsoluteError(RegressionLoss):
    """The absolute error, ``|z - t|``; it predicts the median.

    Examples
    --------
    >>> from skdnn.components import AbsoluteError
    >>> AbsoluteError()
    AbsoluteError()
    """

    def _slope(self, residual):
        return residual.sign_()

    def _height(self, residual):
        return residual.abs()

    def to_module(self):
        return torch.nn.L1Loss()


class Huber(RegressionLoss):
    """The Huber loss: half the squared error up to `delta`, and a straight line beyond.

    Parameters
    ----------
    delta : float in (0.0, inf), default=1.35
        Residuals beyond it count as outliers. Its unit is the standard deviation of the target where targets are
        standardised. 1.35 keeps 95 % of the efficiency of least squares for normal errors.

    References
    ----------
    Huber, "Robust Estimation of a Location Parameter", Annals of Mathematical Statistics, 1964.

    Examples
    --------
    >>> from skdnn.components import Huber
    >>> Huber(delta=1.0)
    Huber(delta=1.0)
    """

    _parameter_constraints = {"delta": [Interval(Real, 0.0, None, closed="neither")]}

    def __init__(self, delta=1.35):
        self.delta = delta

    def _slope(self, residual):
        return residual.clamp_(-self.delta, self.delta)

    def _height(self, residual):
        size = residual.abs()
        return torch.where(size <= self.delta, size.square() / 2, self.delta * (size - self.delta / 2))

    def to_module(self):
        return torch.nn.HuberLoss(delta=float(self.delta))


class Poisson(RegressionLoss):
    """Half the Poisson deviance of ``exp(z)``, for counts and other targets that are not negative.

    The output layer is the logarithm of the prediction. Standardised targets have mean 1 and keep their zero: the deviance of
    multiples is the multiple of the deviance.

    Examples
    --------
    >>> from skdnn.components import Poisson
    >>> Poisson()
    Poisson()
    """

    out_activation = "exp"

    def standardization(self, y, sample_weight):
        scale = np.average(y, axis=0, weights=sample_weight)
        return np.zeros_like(scale), np.where(scale > 0.0, scale, 1.0)

    def gradient(self, outputs, targets, row_weight, out):
        return torch.exp(outputs, out=out).sub_(targets).mul_(row_weight / outputs.shape[-1])

    def value(self, outputs, targets, row_weight):
        losses = torch.xlogy(targets, targets) - targets * outputs + torch.exp(outputs) - targets
        return losses.mul_(row_weight / outputs.shape[-1]).sum((-2, -1))

    def predict(self, outputs):
        return torch.exp(outputs)

    def check(self, y):
        if y.min() < 0 or y.max() <= 0:
            raise ValueError(f"loss='poisson' needs targets >= 0, not all of them 0, got values from {y.min()} to {y.max()}.")


class Quantile(RegressionLoss):
    """The pinball loss, ``max(q * (t - z), (q - 1) * (t - z))``; it predicts quantiles.

    Parameters
    ----------
    quantile : float in (0.0, 1.0), or sequence of float, default=0.5
        A level, or several that one network predicts side by side. Nothing keeps them from crossing.

    References
    ----------
    Koenker and Bassett, "Regression Quantiles", Econometrica, 1978.

    Examples
    --------
    >>> from skdnn.components import Quantile
    >>> Quantile((0.1, 0.5, 0.9)).n_outputs(n_targets=2)
    6
    """

    _parameter_constraints = {"quantile": "no_validation"}

    def __init__(self, quantile=0.5):
        self.quantile = quantile

    @property
    def levels(self):
        """The levels as a list."""
        return [float(level) for level in ([self.quantile] if isinstance(self.quantile, Real) else self.quantile)]

    def validate(self):
        is_sequence = isinstance(self.quantile, list | tuple) or (
            isinstance(self.quantile, np.ndarray) and self.quantile.ndim == 1
        )
        given = list(self.quantile) if is_sequence else [self.quantile]
        if not given or not all(isinstance(level, Real) and 0.0 < level < 1.0 for level in given):
            raise InvalidParameterError(
                "The 'quantile' parameter of Quantile must be one or several numbers in (0.0, 1.0). "
                f"Got {self.quantile!r} instead."
            )
        return self

    def n_outputs(self, n_targets):
        return n_targets * len(self.levels)

    def prepare(self, y, n_outputs, row_weight, dtype, out=None):
        targets = y.to(dtype).repeat_interleave(len(self.levels), -1)
        return targets if out is None else out.copy_(targets)

    def _slope(self, residual):
        return residual.copy_((residual > 0).to(residual.dtype) - self._level_of_each(residual))

    def _height(self, residual):
        level = self._level_of_each(residual)
        return torch.maximum(-level * residual, (1.0 - level) * residual)

    def _level_of_each(self, residual):
        """The level of each output: all levels of the first target, then of the second."""
        return residual.new_tensor(self.levels).repeat(residual.shape[-1] // len(self.levels))


REGRESSION_LOSSES = {
    "squared_error": SquaredError,
    "absolute_error": AbsoluteError,
    "huber": Huber,
    "poisson": Poisson,
    "quantile": Quantile,
}


def resolve_regression_loss(spec, parameter="loss"):
    """Return the loss that `spec` (a name or an object) stands for."""
    if spec is None:
        raise InvalidParameterError(f"{parameter} must not be None. Names: {', '.join(map(repr, REGRESSION_LOSSES))}.")
    return resolve(REGRESSION_LOSSES, RegressionLoss, spec, parameter=parameter)
