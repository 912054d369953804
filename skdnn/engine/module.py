"""A network of the engine as an ordinary torch module."""

import torch


def build_module(network, k=0):
    """Return network `k` as a `torch.nn.Sequential` in evaluation mode.

    Its parameters and buffers are views of the network's storage: training the module changes the network, and the other
    way round.

    Parameters
    ----------
    network : Network
    k : int, default=0

    Returns
    -------
    module : torch.nn.Sequential
    """
    parameters = (torch.nn.Parameter(tensor) for tensor in network.parameters.network(k))
    statistics = iter(network.statistics.network(k))
    plan = network.plans[k]
    modules = [torch.nn.Dropout(plan.input_dropout)] if plan.input_dropout else []
    for layer in plan.layers:
        modules.append(_make_linear(layer, next(parameters), next(parameters)))
        if layer.batch_norm is not None:
            norm = torch.nn.BatchNorm1d(
                layer.n_out, eps=layer.batch_norm.epsilon, momentum=1.0 - layer.batch_norm.momentum, device=network.device
            )
            norm.weight, norm.bias = next(parameters), next(parameters)
            norm.running_mean, norm.running_var = next(statistics), next(statistics)
            modules.append(norm)
        if layer.activation is not None:
            modules.append(layer.activation.to_module())
        if layer.dropout:
            modules.append(torch.nn.Dropout(layer.dropout))
    return torch.nn.Sequential(*modules).eval()


def _make_linear(layer, weight, bias):
    """Return a `torch.nn.Linear` of given parameters; its own `__init__` would draw some first, for a tenth of a short fit."""
    linear = torch.nn.Linear.__new__(torch.nn.Linear)
    torch.nn.Module.__init__(linear)
    linear.in_features, linear.out_features = layer.n_in, layer.n_out
    linear.weight, linear.bias = weight, bias
    return linear
