"""Losses on the output layer, with their gradients in closed form.

A loss is prepared once for a chunk of batches: the targets become tensors that already carry each row's weight, so that a
batch costs no more than its gradient. Rows are the last axis but one; leading axes are networks or batches.
"""

import math

import torch

from skdnn.components.kernels import kernel_of

_log_softmax_backward = kernel_of(torch.ops.aten._log_softmax_backward_data.out)


class Loss:
    """What the output layer is trained on."""

    out_activation = "identity"
    """The name of the function from the output layer to a prediction, as `MLPClassifier.out_activation_` has it."""

    def of_guessing(self, n_outputs):
        """Return the loss of predictions that know nothing of a row, a float."""
        raise NotImplementedError

    def prepare(self, y, n_outputs, row_weight, dtype):
        """Return the targets of some rows.

        Parameters
        ----------
        y : Tensor of shape (..., n_rows)
        n_outputs : int
        row_weight : float
            The weight of each row in its batch's loss, 1 / n_rows of a batch.
        dtype : torch.dtype

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
        raise NotImplementedError

    def value(self, outputs, targets, row_weight):
        """Return the weighted loss, summed over rows and outputs."""
        raise NotImplementedError


class CategoricalCrossentropy(Loss):
    """Cross-entropy of the softmax over K > 2 classes, ``-log softmax(z)[y]``."""

    out_activation = "softmax"

    def of_guessing(self, n_outputs):
        return math.log(n_outputs)

    def prepare(self, y, n_outputs, row_weight, dtype):
        # Minus the weighted one-hot rows: the gradient that log_softmax receives.
        targets = torch.zeros(*y.shape, n_outputs, dtype=dtype, device=y.device)
        return targets.scatter_(-1, y.unsqueeze(-1), -row_weight)

    def gradient(self, outputs, targets, row_weight, out):
        log_probabilities = torch.log_softmax(outputs, -1)
        if targets.shape != outputs.shape:  # networks in lockstep that share the batch
            targets = targets.expand_as(outputs)
        return _log_softmax_backward(targets, log_probabilities, -1, outputs.dtype, out=out)

    def value(self, outputs, targets, row_weight):
        # A class that is not the row's counts nothing, even where its log-probability is -inf.
        return torch.log_softmax(outputs, -1).masked_fill_(targets == 0, 0.0).mul_(targets).sum((-2, -1))

    def to_module(self):
        return torch.nn.CrossEntropyLoss()


class BinaryCrossentropy(Loss):
    """Cross-entropy of the logistic function over two classes, one output: ``log(1 + exp(z)) - y * z``."""

    out_activation = "logistic"

    def of_guessing(self, n_outputs):
        return math.log(2.0)

    def prepare(self, y, n_outputs, row_weight, dtype):
        return y.unsqueeze(-1).to(dtype).mul_(row_weight)

    def gradient(self, outputs, targets, row_weight, out):
        return torch.sigmoid(outputs, out=out).mul_(row_weight).sub_(targets)

    def value(self, outputs, targets, row_weight):
        # -log(p) = softplus(-z) and -log(1 - p) = softplus(z): neither loses digits where the network is sure.
        softplus = torch.nn.functional.softplus
        return (softplus(-outputs) * targets + softplus(outputs) * (row_weight - targets)).sum((-2, -1))

    def to_module(self):
        return torch.nn.BCEWithLogitsLoss()
