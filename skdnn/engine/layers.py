"""Layers with closed-form derivatives.

``forward`` and ``backward`` are called in pairs, under inference mode, on batches of shape (n_rows, n_units), or
(K, n_rows, n_units) for K networks in lockstep. They write into buffers that are kept for each number of rows, so a step
allocates next to nothing; ``backward`` overwrites the gradient it is given. ``infer`` is the forward pass of prediction: it
keeps nothing.
"""

import torch

_aten = torch.ops.aten


class _Buffers(dict):
    """Tensors by number of rows, made on first use."""

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
    is_first : bool
        Whether nothing before it needs a gradient.
    """

    def __init__(self, kernel, bias, kernel_gradient, bias_gradient, n_networks, is_first):
        self.kernel = kernel
        self._kernel_t = kernel.mT
        self._bias_row = bias.unsqueeze(-2) if n_networks > 1 else bias
        self._kernel_gradient = kernel_gradient
        self._bias_gradient = bias_gradient
        self._n_networks = n_networks
        self._is_first = is_first
        self._multiply, self._multiply_add = (torch.mm, torch.addmm) if n_networks == 1 else (torch.bmm, torch.baddbmm)
        self._outputs = _Buffers(kernel, n_networks, kernel.shape[-2])
        self._input_gradients = _Buffers(kernel, n_networks, kernel.shape[-1])

    def forward(self, x, out=None):
        if x.dim() < self.kernel.dim():  # a batch that all networks share
            x = x.expand(self._n_networks, *x.shape)
        self._x = x
        return self._multiply_add(self._bias_row, x, self._kernel_t, out=self._outputs[x.shape[-2]] if out is None else out)

    def backward(self, gradient):
        self._multiply(gradient.mT, self._x, out=self._kernel_gradient)
        torch.sum(gradient, -2, out=self._bias_gradient)
        if self._is_first:
            return None
        return self._multiply(gradient, self.kernel, out=self._input_gradients[gradient.shape[-2]])

    def infer(self, x):
        if x.dim() < self.kernel.dim():
            x = x.expand(self._n_networks, *x.shape)
        return self._multiply_add(self._bias_row, x, self._kernel_t)


class BatchNormalization:
    """Batch normalisation over the rows, with running statistics.

    Parameters
    ----------
    scale, shift, scale_gradient, shift_gradient : Tensor of shape ([K,] n_units)
    running_mean, running_variance : Tensor of shape ([K,] n_units)
    n_networks : int
    batch_norm : BatchNorm
    """

    def __init__(self, scale, shift, scale_gradient, shift_gradient, running_mean, running_variance, n_networks, batch_norm):
        # Units of all networks stand side by side: statistics are taken over rows, so K networks are K times as many units.
        self._scale, self._shift = scale.view(-1), shift.view(-1)
        self._scale_gradient, self._shift_gradient = scale_gradient.view(-1), shift_gradient.view(-1)
        self._mean, self._variance = running_mean.view(-1), running_variance.view(-1)
        self._n_networks = n_networks
        self._new_share = 1.0 - batch_norm.momentum
        self._epsilon = batch_norm.epsilon

    def forward(self, x, out=None):
        self._x = self._side_by_side(x)
        normalized, self._batch_mean, self._batch_inverse_std = torch.native_batch_norm(
            self._x, self._scale, self._shift, self._mean, self._variance, True, self._new_share, self._epsilon
        )
        normalized = self._one_by_one(normalized)
        return normalized if out is None else out.copy_(normalized)

    def backward(self, gradient):
        input_gradient, scale_gradient, shift_gradient = _aten.native_batch_norm_backward(
            self._side_by_side(gradient),
            self._x,
            self._scale,
            self._mean,
            self._variance,
            self._batch_mean,
            self._batch_inverse_std,
            True,
            self._epsilon,
            [True, True, True],
        )
        self._scale_gradient.copy_(scale_gradient)
        self._shift_gradient.copy_(shift_gradient)
        return self._one_by_one(input_gradient)

    def infer(self, x):
        normalized, _, _ = torch.native_batch_norm(
            self._side_by_side(x), self._scale, self._shift, self._mean, self._variance, False, 0.0, self._epsilon
        )
        return self._one_by_one(normalized)

    def _side_by_side(self, x):
        """From (K, n_rows, n_units) to (n_rows, K * n_units)."""
        return x if self._n_networks == 1 else x.transpose(0, 1).reshape(x.shape[1], -1)

    def _one_by_one(self, x):
        """The inverse of `_side_by_side`."""
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
        self._z = z
        self._a = self._activation.forward(z, z if self._in_place else self._outputs[z.shape[-2]])
        return self._a

    def backward(self, gradient):
        return self._activation.backward(gradient, self._z, self._a, gradient)

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

    def begin_chunk(self, n_batches, n_rows):
        """Draw the masks of the next `n_batches` batches at once: one call a network instead of one a batch."""
        shape = (n_batches, n_rows, self._n_units)
        masks = []
        for rate, generator in zip(self._rates, self._generators, strict=True):
            mask = self._like.new_empty(shape)
            if rate > 0.0:
                mask.bernoulli_(1.0 - rate, generator=generator).div_(1.0 - rate)
            else:
                mask.fill_(1.0)
            masks.append(mask)
        self._masks = iter((masks[0] if len(masks) == 1 else torch.stack(masks, 1)).unbind(0))

    def forward(self, x, out=None):
        self._mask = next(self._masks)
        return torch.mul(x, self._mask, out=self._outputs[x.shape[-2]])

    def backward(self, gradient):
        return gradient.mul_(self._mask)

    def infer(self, x):
        return x
