"""The dense layer of a training in bfloat16: its large products multiply rounded numbers, all else stays as it is."""

from functools import cached_property, partial

import torch

from skdnn.engine.layers import Buffers, Dense
from skdnn.engine.storage import empty_for_each

# Multiplications of a product, and rows of a batch, from which it pays to round its factors: steps with such products are not
# programs. How many times as fast fits are then, on one thread of a CPU with AMX, whose tiles programs use, too: 0.86 at 47
# million (200x784x300), 0.81 at 67 (64x1024x1024), 1.04 at 105 (100x1024x1024), 1.3 at 134 (512x512x512), 1.6 at 268
# (256x1024x1024). With few rows, rounding the kernel and its gradient takes what the products save.
_PRODUCTS_THAT_PAY = 64_000_000
_ROWS_THAT_PAY = 100


class RoundedDense(Dense):
    """`Dense` whose products in training are of numbers rounded to bfloat16, where these are large enough to be faster.

    A product is summed in float32 and rounded once, as under `torch.autocast`. Kernel, bias, gradients and what other layers
    see are of the network's own dtype, so that steps too small for bfloat16 add up. The bias' gradient and predictions
    (`infer`) are not rounded.

    Factors are converted here, and not by ``torch.backends.mkldnn.matmul.fp32_precision``: that is about as fast, but holds
    for the products of all threads, and for sums and statistics, too. Parameters are those of `Dense`.
    """

    def __init__(self, kernel, *others, **places):
        super().__init__(kernel, *others, **places)
        like = kernel.new_empty(0, dtype=torch.bfloat16)
        # Both serve the forward pass first: once sums are added up, and inputs multiplied with the gradient, they are free.
        self._rounded_outputs, self._rounded_inputs = (Buffers(like, self._n_networks, n) for n in kernel.shape[-2:])

    @cached_property
    def _rounded_kernels(self):
        """Room for kernel and gradient, which a network that only predicts does without."""
        like, shape = self._kernel.new_empty(0, dtype=torch.bfloat16), self._kernel.shape[-2:]
        with torch.inference_mode(False):
            return [empty_for_each(like, self._n_networks, *shape) for _ in range(2)]

    def forward(self, x, out=None):
        n_rows = x.shape[-2]
        if not self._pays(n_rows):
            return super().forward(x, out)
        out = self._outputs[n_rows] if out is None else out
        inputs, sums, (kernel, _) = self._rounded_inputs[n_rows], self._rounded_outputs[n_rows], self._rounded_kernels
        return out, [
            partial(inputs.copy_, self._for_each_network(x)),
            partial(kernel.copy_, self._kernel),
            *self._multiply_each(inputs, kernel.mT, sums),
            partial(torch.add, sums, self._bias, out=out),
        ]

    def backward(self, gradient):
        n_rows = gradient.shape[-2]
        if not self._pays(n_rows):
            return super().backward(gradient)
        inputs, own, (kernel, kernel_gradient) = (
            self._rounded_inputs[n_rows],
            self._rounded_outputs[n_rows],
            self._rounded_kernels,
        )
        calls = [
            partial(own.copy_, gradient),
            *self._multiply_each(own.mT, inputs, kernel_gradient),
            partial(self._kernel_gradient.copy_, kernel_gradient),
            *self._bias_calls(gradient),
        ]
        if self._is_first:
            return None, calls
        input_gradient = self._input_gradients[n_rows]
        calls += [*self._multiply_each(own, kernel, inputs), partial(input_gradient.copy_, inputs)]
        return input_gradient, calls

    def _pays(self, n_rows):
        """Whether a batch of so many rows is multiplied in bfloat16: by shape alone, so that it is the same in every run."""
        n_out, n_in = self._kernel.shape[-2:]
        return n_rows >= _ROWS_THAT_PAY and n_rows * n_in * n_out >= _PRODUCTS_THAT_PAY

    def _multiply_each(self, left, right, out):
        """The calls of a product, one for each network: a batched product rounds otherwise."""
        each = zip(*(self._each(tensor) for tensor in (left, right, out)), strict=True)
        return [partial(torch.mm, *factors, out=target) for *factors, target in each]
