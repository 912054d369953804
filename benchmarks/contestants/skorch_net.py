"""skorch, as its documentation shows it; penalty and constraint by the ways it documents for them."""

import torch
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback

from benchmarks.contestants.pytorch import build_module, kernels_of, l1_penalty, optimizer_of, project


class _PenalizedNet(NeuralNetClassifier):
    """A net whose loss has an l1 penalty."""

    def __init__(self, *args, l1, **kwargs):
        self.l1 = l1
        super().__init__(*args, **kwargs)

    def get_loss(self, y_pred, y_true, *args, **kwargs):
        loss = super().get_loss(y_pred, y_true, *args, **kwargs)
        return loss + l1_penalty(kernels_of(self.module_), self.l1)


class _MaxNorm(Callback):
    """Puts kernels back onto the ball after each batch."""

    def __init__(self, radius):
        self.radius = radius

    def on_batch_end(self, net, training=False, **kwargs):
        if training:
            project(kernels_of(net.module_)[:-1], self.radius)


def make_skorch(task, seed):
    """Return skorch's classifier of a task, with its network's initial weights drawn."""
    workload, techniques = task.workload, task.workload.techniques
    settings = {
        "criterion": torch.nn.CrossEntropyLoss,
        "optimizer": optimizer_of(workload),
        "lr": workload.rate,
        "batch_size": workload.batch_size,
        "max_epochs": workload.epochs,
        "iterator_train__shuffle": True,
        "train_split": None,
        "verbose": 0,
    }
    torch.manual_seed(seed)
    module = build_module(task)
    if techniques is None:
        return NeuralNetClassifier(module, **settings)
    return _PenalizedNet(module, l1=techniques.l1, callbacks=[("max_norm", _MaxNorm(techniques.max_norm))], **settings)


def prepare_skorch(task, seed):
    """Prepare skorch's classifier."""

    def train():
        return make_skorch(task, seed).fit(task.X, task.y).predict

    return train
