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
from skdnn.engine.program import multiplies_faster, multiply_add
from skdnn.engine.runs import part_of, runs_of
from skdnn.engine.storage import empty_for_each
from skdnn.engine.weighted_norm import WeightedNorm

# Multiplications from which a batched product gains nothing on one for each network, and loses where its result has gaps.
_LARGE_PRODUCT = 1_000_000

_batch_norm = kernel_of(torch.ops.aten.native_batch_norm.out)
_batch_norm_backward = kernel_of(torch.ops.aten.native_batch_norm_backward.out)


class Buffers(dict):
    """Tensors of shape ([K,] n_rows, n_units) by number of rows, made on first use."""

    def __init__(self, like, n_networks, n_units):
        super().__init__()
        self._like = like
        self._n_networks = n_networks
        self._n_units = n_units

    def __missing__(self, n_rows):
        with torch.inference_mode(False):
            buffer = empty_for_each(self._like, self._n_networks, n_rows, self._n_units)
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
        self._outputs = Buffers(kernel, n_networks, kernel.shape[-2])
        self._input_gradients = Buffers(kernel, n_networks, kernel.shape[-1])
        self._ones = {}

    def forward(self, x, out=None):
        self._x = x = self._for_each_network(x)
        out = self._outputs[x.shape[-2]] if out is None else out
        return out, self._product(torch.addmm, self._multiply_add, self._bias, x, self._kernel_t, out=out)

    def backward(self, gradient):
        input_gradient, calls = None, []
        if not self._is_first:
            input_gradient = self._input_gradients[gradient.shape[-2]]
            calls += self._product(torch.mm, self._multiply, gradient, self._kernel, out=input_gradient)
        # Last, so that a program can update the kernel while it makes its gradient.
        calls += self._product(torch.mm, self._multiply, gradient.mT, self._x, out=self._kernel_gradient)
        return input_gradient, calls + self._bias_calls(gradient)

    def infer(self, x):
        if self._n_networks == 1 and multiplies_faster(x, self._kernel_t):
            return multiply_add(self._bias, x, self._kernel_t)
        return self._multiply_add(self._bias, self._for_each_network(x), self._kernel_t)

    def _product(self, single, batched, *operands, out):
        """The calls of a product: one for all networks, or one for each where one for all gains nothing or rounds otherwise."""
        *_, left, right = operands
        is_large = left.shape[-2] * left.shape[-1] * right.shape[-1] > _LARGE_PRODUCT
        is_by_vector = self._kernel.shape[-2] == 1  # for one network torch has another kernel for it
        if self._n_networks == 1 or not (is_large or is_by_vector):
            return [partial(batched, *operands, out=out)]
        return [partial(single, *own, out=target) for *own, target in zip(*operands, out, strict=True)]

    def _for_each_network(self, x):
        """Give a batch that all networks share the networks' axis."""
        return x.expand(self._n_networks, *x.shape) if x.dim() < self._kernel.dim() else x

    def _bias_calls(self, gradient):
        return [self._bias_gradient.zero_] if self._is_normalized else self._sum_over_rows(gradient)

    def _sum_over_rows(self, gradient):
        """The bias' gradient: a product with ones, at half the cost of a sum, for each network, since none adds up alike."""
        n_rows = gradient.shape[-2]
        if n_rows not in self._ones:
            self._ones[n_rows] = gradient.new_ones(n_rows)
        ones = self._ones[n_rows]
        pairs = zip(*(self._each(tensor) for tensor in (gradient, self._bias_gradient)), strict=True)
        return [partial(torch.mv, own.mT, ones, out=out) for own, out in pairs]

    def _each(self, tensor):
        return [tensor] if self._n_networks == 1 else tensor.unbind()


class BatchNormalization:
    """Batch normalisation over the rows of one network, with running statistics.

    Parameters
    ----------
    scale, shift, scale_gradient, shift_gradient : Tensor of shape (n_units,)
    running_mean, running_variance : Tensor of shape (n_units,)
    batch_norm : BatchNorm

    Attributes
    ----------
    row_weights : tuple of Tensor or None
        Shares and count of the rows for the passes recorded next, see `WeightedNorm`; None where all rows count the same.
    """

    def __init__(self, scale, shift, scale_gradient, shift_gradient, running_mean, running_variance, batch_norm):
        self._tensors = scale, shift, scale_gradient, shift_gradient, running_mean, running_variance
        self._new_share = 1.0 - batch_norm.momentum
        self._epsilon = batch_norm.epsilon
        self._batch_mean, self._batch_inverse_std = torch.empty_like(scale), torch.empty_like(scale)
        self._outputs, self._normalized, self._scratch, self._input_gradients = (
            Buffers(scale, 1, len(scale)) for _ in range(4)
        )
        self.row_weights = None

    def forward(self, x, out=None):
        n_rows = len(x)
        scale, shift, _, _, mean, variance = self._tensors
        self._x = x
        if self.row_weights is not None:
            self._weighted = WeightedNorm(
                *self._tensors,
                self._new_share,
                self._epsilon,
                x=x,
                normalized=self._normalized[n_rows],
                scratch=self._scratch[n_rows],
                inverse_std=self._batch_inverse_std,
                shares=self.row_weights[0],
                count=self.row_weights[1],
            )
            out = self._outputs[n_rows] if out is None else out
            return out, self._weighted.forward(out)
        out = self._outputs[n_rows] if out is None else out
        call = partial(
            _batch_norm,
            x,
            scale,
            shift,
            mean,
            variance,
            True,
            self._new_share,
            self._epsilon,
            out=out,
            save_mean=self._batch_mean,
            save_invstd=self._batch_inverse_std,
        )
        return out, [call]

    def backward(self, gradient, out=None):
        input_gradient = self._input_gradients[len(gradient)] if out is None else out
        if self.row_weights is not None:
            return input_gradient, self._weighted.backward(gradient, input_gradient)
        scale, _, scale_gradient, shift_gradient, mean, variance = self._tensors
        call = partial(
            _batch_norm_backward,
            gradient,
            self._x,
            scale,
            mean,
            variance,
            self._batch_mean,
            self._batch_inverse_std,
            True,
            self._epsilon,
            [True, True, True],
            out0=input_gradient,
            out1=scale_gradient,
            out2=shift_gradient,
        )
        return input_gradient, [call]

    def infer(self, x):
        scale, shift, _, _, mean, variance = self._tensors
        normalized, _, _ = torch.native_batch_norm(x, scale, shift, mean, variance, False, 0.0, self._epsilon)
        return normalized


class OneByOne:
    """The layers of networks in lockstep for which no kernel serves all of them: what it returned would be rounded differently.

    Parameters
    ----------
    layers : sequence of BatchNormalization
        One a network.
    n_units : int
    like : Tensor
        Of the dtype and device to work in.

    Attributes
    ----------
    row_weights : tuple of Tensor or None
        As a layer has them, with an axis of 1 or all networks.
    """

    def __init__(self, layers, n_units, like):
        self._layers = layers
        self._outputs, self._input_gradients = (Buffers(like, len(layers), n_units) for _ in range(2))

    @property
    def row_weights(self):
        return [layer.row_weights for layer in self._layers]

    @row_weights.setter
    def row_weights(self, row_weights):
        for k, layer in enumerate(self._layers):
            layer.row_weights = row_weights and tuple(tensor[k % len(tensor)] for tensor in row_weights)

    def forward(self, x, out=None):
        out = self._outputs[x.shape[-2]] if out is None else out
        parts = zip(self._layers, x.unbind(), out.unbind(), strict=True)
        return out, [call for layer, own, target in parts for call in layer.forward(own, target)[1]]

    def backward(self, gradient):
        out = self._input_gradients[gradient.shape[-2]]
        parts = zip(self._layers, gradient.unbind(), out.unbind(), strict=True)
        return out, [call for layer, own, target in parts for call in layer.backward(own, target)[1]]

    def infer(self, x):
        return torch.stack([layer.infer(own) for layer, own in zip(self._layers, x.unbind(), strict=True)])


class Activate:
    """Activation functions, each over the networks that lie side by side and have it.

    Parameters
    ----------
    activations : sequence of Activation
        One a network.
    n_units : int
    like : Tensor
        Of the dtype and device to work in.
    """

    def __init__(self, activations, n_units, like):
        self._activations = activations
        self._runs = runs_of(activations)
        self._in_place = all(activation.uses_output for activation in activations)
        self._outputs = Buffers(like, len(activations), n_units)

    def forward(self, z, out=None):
        self._z, self._a = z, z if self._in_place else self._outputs[z.shape[-2]]
        return self._a, self._forward_calls(z, self._a)

    def backward(self, gradient):
        calls = []
        for run in self._runs_of(gradient):
            own, z, a = (self._part(tensor, run) for tensor in (gradient, self._z, self._a))
            calls.append(partial(self._activations[run.start].backward, own, z, a, own))
        return gradient, calls

    def infer(self, z):
        a = z if self._in_place else torch.empty_like(z)
        for call in self._forward_calls(z, a):
            call()
        return a

    def _forward_calls(self, z, a):
        calls = []
        for run in self._runs_of(z):
            own = self._part(z, run)
            calls.append(partial(self._activations[run.start].forward, own, own if a is z else self._part(a, run)))
        return calls

    def _runs_of(self, z):
        """Networks that one call serves: torch may have another kernel for a tensor with gaps than for each part of it."""
        return self._runs if z.is_contiguous() else runs_of(range(len(self._activations)))

    def _part(self, tensor, run):
        return part_of(tensor, run, len(self._activations))


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

    Attributes
    ----------
    mask : Tensor of shape ([n_networks,] n_rows, n_units)
        For the passes recorded next.

    References
    ----------
    Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting", JMLR 2014.
    """

    def __init__(self, rates, generators, n_units, like):
        self._rates = rates
        self._generators = generators
        self._n_units = n_units
        self._like = like
        self._outputs = Buffers(like, len(rates), n_units)

    def make_masks(self, n_batches, n_rows):
        """Return the `Masks` of `n_batches` batches."""
        leading = () if len(self._rates) == 1 else (len(self._rates),)
        with torch.inference_mode(False):
            return Masks(self._like.new_ones(n_batches, *leading, n_rows, self._n_units), self._rates, self._generators)

    def forward(self, x, out=None):
        self._mask = self.mask
        out = self._outputs[x.shape[-2]]
        return out, [partial(torch.mul, x, self._mask, out=out)]

    def backward(self, gradient):
        return gradient, [partial(gradient.mul_, self._mask)]

    def infer(self, x):
        return x


class Masks:
    """The masks of a dropout layer for some batches.

    Parameters
    ----------
    values : Tensor of shape (n_batches, [n_networks,] n_rows, n_units)
        Where they are.
    rates, generators : sequence
        As of `Dropout`.

    Attributes
    ----------
    values : Tensor
    """

    def __init__(self, values, rates, generators):
        self.values, self._rates, self._generators = values, rates, generators

    def of(self, i):
        """Return the mask of batch `i`, wherever it is drawn."""
        return self.values[i]

    def draw(self, n_batches, twins=None):
        """Draw the masks of the first batches, all at once: one call a network instead of one a batch.

        Parameters
        ----------
        n_batches : int
        twins : Tensor of int of shape (n_networks or 1, n_rows), default=None
            Rows of the same number share a mask.
        """
        masks = self.values[:n_batches]
        n_rows = masks.shape[-2] if twins is None else int(twins.max()) + 1
        for k, (rate, generator) in enumerate(zip(self._rates, self._generators, strict=True)):
            if rate > 0.0:
                mask = masks if len(self._rates) == 1 else masks[:, k]
                if twins is None:
                    _draw_mask(mask, rate, generator)
                else:
                    drawn = _draw_mask(masks.new_empty(n_batches, n_rows, mask.shape[-1]), rate, generator)
                    mask.copy_(drawn[:, twins[k % len(twins)]])


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
