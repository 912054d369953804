"""A layer as autograd sees it, for the tests of layers."""

import torch


class LayerStep(torch.autograd.Function):
    """A layer as autograd sees it.

    `run(inputs, gradient)` makes a new layer over the inputs; it returns the outputs, or with a gradient those of the inputs.
    Layers reuse and overwrite what they are given and what they return, so everything is cloned on its way in and out.
    """

    @staticmethod
    def forward(ctx, run, *inputs):
        ctx.run = run
        ctx.save_for_backward(*inputs)
        with torch.inference_mode():
            outputs = run([tensor.clone() for tensor in inputs], None)
        return outputs.clone()

    @staticmethod
    def backward(ctx, gradient):
        with torch.inference_mode():
            gradients = ctx.run([tensor.clone() for tensor in ctx.saved_tensors], gradient.clone())
        return None, *(None if tensor is None else tensor.clone() for tensor in gradients)


def run_calls(recorded):
    """Make the calls that a layer recorded, and return the tensor that they fill."""
    result, calls = recorded
    for call in calls:
        call()
    return result


def gradcheck(run, *inputs):
    return torch.autograd.gradcheck(lambda *tensors: LayerStep.apply(run, *tensors), inputs)


def draw(n_networks, *shape, requires_grad=True):
    leading = () if n_networks == 1 else (n_networks,)
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*leading, *shape, generator=generator, dtype=torch.float64).requires_grad_(requires_grad)
