"""Batch normalisation of rows that count differently: the statistics of a batch are weighted means."""

from functools import partial

import torch


class WeightedNorm:
    """The training passes of batch normalisation for one batch of weighted rows; torch's kernel takes no weights.

    A row of weight 2 gives the same as two rows: with shares p of the rows, which sum to 1, the mean is ``sum(p * x)`` and the
    variance ``sum(p * (x - mean)**2)``.

    Parameters
    ----------
    scale, shift, scale_gradient, shift_gradient, running_mean, running_variance : Tensor of shape ([K,] n_units)
    new_share : float
        What a batch's statistics are of the new running ones.
    epsilon : float
    x, normalized, scratch : Tensor of shape ([K,] n_rows, n_units)
        The buffer of the inputs, and two to work in; the first must last from the forward to the backward pass.
    inverse_std : Tensor of shape ([K,] n_units)
        For the inverse of the batch's standard deviation, which must last as long.
    shares : Tensor of shape ([1 or K,] n_rows, 1)
        What each row is of the batch; they sum to 1.
    count : Tensor of shape ([1 or K,] 1, 1)
        How many rows the batch counts as.
    """

    def __init__(
        self,
        scale,
        shift,
        scale_gradient,
        shift_gradient,
        running_mean,
        running_variance,
        new_share,
        epsilon,
        *,
        x,
        normalized,
        scratch,
        inverse_std,
        shares,
        count,
    ):
        self._scale, self._shift, self._mean, self._variance = (
            tensor.unsqueeze(-2) for tensor in (scale, shift, running_mean, running_variance)
        )
        self._scale_gradient, self._shift_gradient = scale_gradient.unsqueeze(-2), shift_gradient.unsqueeze(-2)
        self._new_share = new_share
        self._epsilon = epsilon
        self._x, self._normalized, self._scratch = x, normalized, scratch
        self._shares, self._count = shares, count
        self._inverse_std = inverse_std.unsqueeze(-2)

    def forward(self, out):
        """Return the calls that normalise the inputs into `out`."""
        return [partial(self._normalize, out)]

    def backward(self, gradient, out):
        """Return the calls that write the inputs' gradient into `out`."""
        return [partial(self._differentiate, gradient, out)]

    def _normalize(self, out):
        shares = self._shares.mT
        mean = shares @ self._x
        torch.sub(self._x, mean, out=self._normalized)
        variance = shares @ torch.mul(self._normalized, self._normalized, out=self._scratch)
        # The running variance is unbiased, as torch has it. Weights that are no counts do not make a row less than one.
        count = self._count.clamp(min=self._x.shape[-2])
        self._mean.lerp_(mean, self._new_share)
        self._variance.lerp_(variance * (count / (count - 1.0)), self._new_share)
        torch.rsqrt(variance.add_(self._epsilon), out=self._inverse_std)
        torch.addcmul(self._shift, self._normalized.mul_(self._inverse_std), self._scale, out=out)

    def _differentiate(self, gradient, out):
        torch.sum(gradient, -2, keepdim=True, out=self._shift_gradient)
        torch.mul(gradient, self._normalized, out=self._scratch)
        torch.sum(self._scratch, -2, keepdim=True, out=self._scale_gradient)
        # What the gradient loses to the mean and to the variance, which depend on every row by its share.
        torch.addcmul(self._shift_gradient, self._normalized, self._scale_gradient, out=self._scratch).mul_(self._shares)
        torch.sub(gradient, self._scratch, out=out).mul_(self._scale * self._inverse_std)
