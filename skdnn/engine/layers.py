"""Layers with closed-form derivatives, recorded as calls over static buffers.

A training step is the same sequence of kernels over the same memory every time, so it is not run through Python methods: a
layer answers ``forward`` and ``backward`` with the tensor that will hold the result and with the calls that fill it, each
bound to its arguments. They are recorded once and repeated for every batch, which halves the time of a small step, and is
the form that a CUDA graph needs. Batches are of shape (n_rows, n_units), or (K, n_rows, n_units) for K networks in lockstep.
``backward`` is recorded after ``forward``, for the same buffers, and its calls may overwrite the gradient they are given.
``infer`` is the forward pass of prediction: it runs at once and keeps nothing.
"""

from functools import partial

import torch

from skdnn.components.kernels import kernel_of
from skdnn.engine.weighted_norm import WeightedNorm

_batch_norm = kernel_of(torch.ops.aten.native_batch_norm.out)
_batch_norm_backward = kernel_of(torch.ops.aten.native_batch_norm_backward.out)


class _Buffers(dict):
    """Tensors of shape ([K,] n_rows, n_units) by number of rows, made on first use."""

    def __init__(self, like, n_networks, n_units):
        super().__init__()
        self._like = like
        self._leading = () if n_networks == 1 else (n_networks,)
        self._n_units = n_units

    def __missing__(self, n_rows):
        with torch.inference_mode(False):
            buffer = self._like.new_empty(*self._leading, n_rows, self._n_units)
        self[n_rows] = buffer
        return buffer


class Dense:
    """The affine layer ``z = x @ kernel.T + bias``.

    Parameters
    ----------
    kernel, kernel_gradient : Tensor of shape ([K,] n_out, n_in)
    bias, bias_gradient : Tensor of shape ([K,] n_out)
    n_networks : int
    is_first : bool, default=False
        Whether nothing before it needs a gradient.
    is_normalized : bool, default=False
        Whether batch norm follows, which takes the bias out again. The bias' gradient is 0 then, and is set to 0: computed, it
        would be rounding noise, which rules that divide by the size of gradients turn into steps.
    """

    def __init__(self, kernel, bias, kernel_gradient, bias_gradient, n_networks, *, is_first=False, is_normalized=False):
        self._kernel = kernel
        self._kernel_t = kernel.mT
        self._bias = bias.unsqueeze(-2) if n_networks > 1 else bias
        self._kernel_gradient = kernel_gradient
        self._bias_gradient = bias_gradient
        self._n_networks = n_networks
        self._is_first = is_first
        self._is_normalized = is_normalized
        self._multiply, self._multiply_add = (torch.mm, torch.addmm) if n_networks == 1 else (torch.bmm, torch.baddbmm)
        self._outputs = _Buffers(kernel, n_networks, kernel.shape[-2])
        self._input_gradients = _Buffers(kernel, n_networks, kernel.shape[-1])

    def forward(self, x, out=None):
        self._x = x = self._for_each_network(x)
        out = self._outputs[x.shape[-2]] if out is None else out
        return out, [partial(self._multiply_add, self._bias, x, self._kernel_t, out=out)]

    def backward(self, gradient):
        n_rows = gradient.shape[-2]
        calls = [partial(self._multiply, gradient.mT, self._x, out=self._kernel_gradient)]
        sum_over_rows = partial(torch.sum, gradient, -2, out=self._bias_gradient)
        calls.append(self._bias_gradient.zero_ if self._is_normalized else sum_over_rows)
        if self._is_first:
            return None, calls
        input_gradient = self._input_gradients[n_rows]
        return input_gradient, [*calls, partial(self._multiply, gradient, self._kernel, out=input_gradient)]

    def infer(self, x):
        return self._multiply_add(self._bias, self._for_each_network(x), self._kernel_t)

    def _for_each_network(self, x):
        """Give a batch that all networks share the networks' axis."""
        return x.expand(self._n_networks, *x.shape) if x.dim() < self._kernel.dim() else x


class BatchNormalization:
    """Batch normalisation over the rows, with running statistics.

    Parameters
    ----------
    scale, shift, scale_gradient, shift_gradient : Tensor of shape ([K,] n_units)
    running_mean, running_variance : Tensor of shape ([K,] n_units)
    n_networks : int
    batch_norm : BatchNorm

    Attributes
    ----------
    row_weights : tuple of Tensor or None
        Shares and count of the rows for the passes recorded next, see `WeightedNorm`; None where all rows count the same.
    """

    def __init__(self, scale, shift, scale_gradient, shift_gradient, running_mean, running_variance, n_networks, batch_norm):
        self._tensors = scale, shift, scale_gradient, shift_gradient, running_mean, running_variance
        # Units of all networks stand side by side: statistics are taken over rows, so K networks are K times as many units.
        self._scale, self._shift, self._scale_gradient, self._shift_gradient, self._mean, self._variance = (
            tensor.view(-1) for tensor in self._tensors
        )
        self._n_networks = n_networks
        self._new_share = 1.0 - batch_norm.momentum
        self._epsilon = batch_norm.epsilon
        self._batch_mean, self._batch_inverse_std = torch.empty_like(self._scale), torch.empty_like(self._scale)
        self._inputs, self._outputs, self._gradients, self._input_gradients = (
            _Buffers(scale, 1, len(self._scale)) for _ in range(4)
        )
        self.row_weights = None

    def forward(self, x, out=None):
        if self.row_weights is not None:
            return self._forward_weighted(x, out)
        self._x, calls = self._side_by_side(x, self._inputs)
        normalized = self._outputs[x.shape[-2]] if out is None or self._n_networks > 1 else out
        calls.append(
            partial(
                _batch_norm,
                self._x,
                self._scale,
                self._shift,
                self._mean,
                self._variance,
                True,
                self._new_share,
                self._epsilon,
                out=normalized,
                save_mean=self._batch_mean,
                save_invstd=self._batch_inverse_std,
            )
        )
        normalized = self._one_by_one(normalized)
        if out is None or self._n_networks == 1:
            return normalized, calls
        return out, [*calls, partial(out.copy_, normalized)]

    def _forward_weighted(self, x, out):
        n_rows = x.shape[-2]
        shares, count = self.row_weights
        self._weighted = WeightedNorm(
            *self._tensors,
            self._new_share,
            self._epsilon,
            x=x,
            normalized=self._one_by_one(self._inputs[n_rows]),
            scratch=self._one_by_one(self._gradients[n_rows]),
            shares=shares,
            count=count,
        )
        out = self._one_by_one(self._outputs[n_rows]) if out is None else out
        return out, self._weighted.forward(out)

    def backward(self, gradient):
        input_gradient = self._input_gradients[gradient.shape[-2]]
        if self.row_weights is not None:
            input_gradient = self._one_by_one(input_gradient)
            return input_gradient, self._weighted.backward(gradient, input_gradient)
        gradient, calls = self._side_by_side(gradient, self._gradients)
        calls.append(
            partial(
                _batch_norm_backward,
                gradient,
                self._x,
                self._scale,
                self._mean,
                self._variance,
                self._batch_mean,
                self._batch_inverse_std,
                True,
                self._epsilon,
                [True, True, True],
                out0=input_gradient,
                out1=self._scale_gradient,
                out2=self._shift_gradient,
            )
        )
        return self._one_by_one(input_gradient), calls

    def infer(self, x):
        side_by_side = x if self._n_networks == 1 else x.transpose(0, 1).reshape(x.shape[1], -1)
        normalized, _, _ = torch.native_batch_norm(
            side_by_side, self._scale, self._shift, self._mean, self._variance, False, 0.0, self._epsilon
        )
        return self._one_by_one(normalized)

    def _side_by_side(self, x, buffers):
        """From (K, n_rows, n_units) to (n_rows, K * n_units): the tensor, and the call that fills it where it is a copy."""
        if self._n_networks == 1:
            return x, []
        copy = buffers[x.shape[-2]]
        return copy, [partial(copy.view(x.shape[1], self._n_networks, -1).copy_, x.transpose(0, 1))]

    def _one_by_one(self, x):
        """A view of shape (K, n_rows, n_units), the inverse of `_side_by_side`."""
        return x if self._n_networks == 1 else x.view(x.shape[0], self._n_networks, -1).transpose(0, 1)


class Activate:
    """An activation function.

    Parameters
    ----------
    activation : Activation
    n_networks, n_units : int
    like : Tensor
        Of the dtype and device to work in.
    """

    def __init__(self, activation, n_networks, n_units, like):
        self._activation = activation
        self._in_place = activation.uses_output
        self._outputs = _Buffers(like, n_networks, n_units)

    def forward(self, z, out=None):
        self._z, self._a = z, z if self._in_place else self._outputs[z.shape[-2]]
        return self._a, [partial(self._activation.forward, z, self._a)]

    def backward(self, gradient):
        return gradient, [partial(self._activation.backward, gradient, self._z, self._a, gradient)]

    def infer(self, z):
        return self._activation.forward(z, z if self._in_place else torch.empty_like(z))


class Dropout:
    """Inverted dropout: units are set to 0 with probability `rate`, the others divided by ``1 - rate``.

    Parameters
    ----------
    rates : sequence of float in [0.0, 1.0)
        One a network.
    generators : sequence of torch.Generator
        One a network, on the device of `like`. A network draws from its own, and draws nothing where its rate is 0.
    n_units : int
    like : Tensor

    References
    ----------
    Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting", JMLR 2014.
    """

    def __init__(self, rates, generators, n_units, like):
        self._rates = rates
        self._generators = generators
        self._n_units = n_units
        self._like = like
        self._outputs = _Buffers(like, len(rates), n_units)

    def reserve_masks(self, n_batches, n_rows):
        """Make room for the masks of `n_batches` batches; the passes recorded next use them one after the other.

        Returns
        -------
        draw_masks : callable
            Draws the masks of the first batches, whose number it is given.
        """
        leading = () if len(self._rates) == 1 else (len(self._rates),)
        with torch.inference_mode(False):
            masks = self._like.new_ones(n_batches, *leading, n_rows, self._n_units)
        self._unrecorded = iter(masks.unbind(0))
        return partial(self._draw, masks)

    def _draw(self, masks, n_batches, twins=None):
        """Draw the masks of all batches at once: one call a network instead of one a batch."""
        masks = masks[:n_batches]
        n_rows = masks.shape[-2] if twins is None else int(twins.max()) + 1
        for k, (rate, generator) in enumerate(zip(self._rates, self._generators, strict=True)):
            if rate > 0.0:
                mask = masks if len(self._rates) == 1 else masks[:, k]
                if twins is None:
                    _draw_mask(mask, rate, generator)
                else:
                    drawn = _draw_mask(masks.new_empty(n_batches, n_rows, self._n_units), rate, generator)
                    mask.copy_(drawn[:, twins[k % len(twins)]])

    def forward(self, x, out=None):
        self._mask = next(self._unrecorded)
        out = self._outputs[x.shape[-2]]
        return out, [partial(torch.mul, x, self._mask, out=out)]

    def backward(self, gradient):
        return gradient, [partial(gradient.mul_, self._mask)]

    def infer(self, x):
        return x


def _draw_mask(mask, rate, generator):
    """Fill a mask with 0 at a share `rate` of its elements, drawn one by one, and the factor that keeps the mean elsewhere.

    Four elements share a random word of 64 bits, which is seven times as fast as torch's draw for each, and gives the same
    masks in every dtype. Rates are rounded to multiples of 2**-16, as the factor knows.
    """
    words = torch.empty(-(-mask.numel() // 4), dtype=torch.int64, device=mask.device)
    words.random_(-(2**63), None, generator=generator)
    n_kept = min(max(round((1.0 - rate) * 2**16), 1), 2**16)
    torch.le(words.view(torch.int16)[: mask.numel()].view(mask.shape), n_kept - 1 - 2**15, out=mask)
    return mask.mul_(2**16 / n_kept)
