"""PyTorch with a loop of one's own: as its tutorials write it, and as an expert does."""

import contextlib

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

# Shuffled data of up to this many bytes are gathered once an epoch, larger ones batch by batch: whichever is faster.
_GATHERED_AT_ONCE = 2**22


def build_module(task):
    """Return the network of a task, with the initial weights that skdnn draws too."""
    techniques = task.workload.techniques
    layers = []
    for i, (n_in, n_out) in enumerate(zip(task.widths, task.widths[1:], strict=False)):
        linear = nn.Linear(n_in, n_out)
        nn.init.zeros_(linear.bias)
        layers.append(linear)
        if i == len(task.widths) - 2:
            nn.init.xavier_uniform_(linear.weight)
            break
        nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
        if techniques is None:
            layers.append(nn.ReLU())
        else:
            layers += [nn.BatchNorm1d(n_out), nn.ELU(), nn.Dropout(techniques.dropout)]
    return nn.Sequential(*layers).to(getattr(torch, task.workload.array_dtype))


def kernels_of(module):
    """Return the weight matrices of a module, the output layer's last."""
    return [layer.weight for layer in module.modules() if isinstance(layer, nn.Linear)]


def optimizer_of(workload):
    """Return the class of a workload's optimizer."""
    return {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[workload.optimizer]


def l1_penalty(kernels, strength):
    """Return the penalty as a term of the loss."""
    return strength * sum(kernel.abs().sum() for kernel in kernels)


@torch.no_grad()
def project(kernels, radius):
    """Put the incoming weights of every unit back onto the ball."""
    for kernel in kernels:
        norms = torch.linalg.vector_norm(kernel, dim=1, keepdim=True)
        kernel.mul_(torch.clamp(radius / norms, max=1.0))


def _tensors(task):
    return torch.from_numpy(task.X), torch.from_numpy(task.y)


def _predictor(module):
    def predict(X):
        module.eval()
        with torch.inference_mode():
            return module(torch.from_numpy(X)).argmax(1).numpy()

    return predict


def prepare_data_loader(task, seed):
    """Prepare the loop of the tutorials."""
    workload, techniques = task.workload, task.workload.techniques

    def train():
        torch.manual_seed(seed)
        module = build_module(task)
        loader = DataLoader(TensorDataset(*_tensors(task)), workload.batch_size, shuffle=True)
        optimizer = optimizer_of(workload)(module.parameters(), lr=workload.rate)
        criterion = nn.CrossEntropyLoss()
        for _ in range(workload.epochs):
            total = 0.0
            for x, y in loader:
                optimizer.zero_grad()
                loss = criterion(module(x), y)
                if techniques is not None:
                    loss = loss + l1_penalty(kernels_of(module), techniques.l1)
                loss.backward()
                optimizer.step()
                if techniques is not None:
                    project(kernels_of(module)[:-1], techniques.max_norm)
                total += loss.item() * len(x)
        return _predictor(module)

    return train


def _shuffled_batches(X, y, batch_size):
    order = torch.randperm(len(X))
    if X.nbytes <= _GATHERED_AT_ONCE:
        return zip(X[order].split(batch_size), y[order].split(batch_size), strict=True)
    return ((X[rows], y[rows]) for rows in order.split(batch_size))


def _precision(workload):
    return torch.autocast("cpu", torch.bfloat16) if workload.dtype == "bfloat16" else contextlib.nullcontext()


def prepare_expert(task, seed):
    """Prepare a loop without anything that costs time and can be left out while autograd does the gradients."""
    workload, techniques = task.workload, task.workload.techniques

    def train():
        torch.manual_seed(seed)
        module, (X, y) = build_module(task), _tensors(task)
        kernels = kernels_of(module)
        optimizer = optimizer_of(workload)(module.parameters(), lr=workload.rate, fused=True)
        for _ in range(workload.epochs):
            total = torch.zeros(())
            for x, target in _shuffled_batches(X, y, workload.batch_size):
                with _precision(workload):
                    loss = F.cross_entropy(module(x), target)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                if techniques is not None:  # the penalty's gradient without its graph
                    gradients = [kernel.grad for kernel in kernels]
                    torch._foreach_add_(gradients, torch._foreach_sign([k.detach() for k in kernels]), alpha=techniques.l1)
                optimizer.step()
                if techniques is not None:
                    project(kernels[:-1], techniques.max_norm)
                total += loss.detach()
            total.item()
        return _predictor(module)

    return train
