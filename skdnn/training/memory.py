"""How many networks train in lockstep: as long as it pays, and as they have room for."""

import os
from pathlib import Path

import torch

from skdnn.components import Optimizer
from skdnn.training.population import is_compiled

# Networks that train together at most: beyond it a network's share of a step hardly falls.
MAX_GROUP = 64

# Multiplications in one product of a batch with all kernels from which one network keeps a CPU as busy as many in lockstep do.
# Measured on two cores: at 0.2 million (64-100-10, batch 32) 16 networks train together in 0.65 of the time, at 0.95 million in
# 0.75; from 1.6 million on (64-256-128-10) in as much or a quarter more, for what they work on no longer stays in the cache.
# Networks side by side only share what is gathered and prepared, and lose nothing.
_WORK_ALONE = 1_000_000

# Where a system does not say what is free.
_UNKNOWN = 2**31

# Flat tensors of a network in training besides the optimizer's state: parameters, gradient and rates in the population, and a
# scratch for penalties; parameters and gradient of its own, which are fitted in the end; the first and the best snapshot.
_FLAT = 8

# Tensors of a batch and a layer: sums, outputs and the gradient, and with batch norm as many again.
_PER_ACTIVATION = 3

# Batches whose rows, masks and outputs are made at once.
_CHUNK_BATCHES = 64


def free_memory(device=None):
    """Return how many bytes can be used on a device, by default the CPU.

    Parameters
    ----------
    device : torch.device, default=None

    Returns
    -------
    n_bytes : int
    """
    if device is not None and device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return min([*_of_system(), *_of_container()], default=_UNKNOWN)


def _of_system():
    """What Linux calls available, which counts caches; elsewhere free pages."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                yield int(line.split()[1]) * 1024
                return
        yield os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return


def _of_container():
    """What a control group of Linux leaves, where it has a limit."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit, used = (int((folder / name).read_text()) for name in ("memory.max", "memory.current"))
        cache = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        yield max(0, limit - used + int(cache.get("inactive_file", 0)))
    except (OSError, ValueError):  # no such group, or "max"
        return


def group_size(session, max_bytes):
    """Return how many networks like that of a session are to train together.

    Parameters
    ----------
    session : Session
    max_bytes : int
        That all of them may take.

    Returns
    -------
    n_networks : int in [1, 64]
        1 where one network has enough to do.
    """
    plan = session.plan
    is_large = plan.network.n_products * plan.batch_size > _WORK_ALONE
    if plan.device.type == "cpu" and is_large and not is_compiled(plan):
        return 1
    return int(min(MAX_GROUP, max(1, max_bytes // _bytes_of_network(session))))


def _bytes_of_network(session):
    """An upper estimate of what one more network takes in a population."""
    plan, parameters = session.plan, session.network.parameters.data
    optimizer, layers = plan.update.optimizer, plan.network.layers
    state = optimizer.init_state(parameters[:1]) if isinstance(optimizer, Optimizer) else {}
    is_rounded = plan.network.rounds_products  # kernels, gradients and activations are there once more, in half the bytes
    flat = (_FLAT + len(state) + is_rounded) * parameters.numel()
    activations = sum(layer.n_out * (_PER_ACTIVATION + is_rounded) * (1 if layer.batch_norm is None else 2) for layer in layers)
    # Rows, where networks have batches of their own; outputs and targets.
    drawn = layers[0].n_in + 2 * layers[-1].n_out
    if plan.network.uses_dropout:
        drawn += sum(layer.n_in for layer in layers)
    batches = plan.batch_size * (activations + drawn * min(_CHUNK_BATCHES, session.n_updates_per_epoch))
    validation = session.data.n_validation_rows * layers[-1].n_out if session.data.is_validated else 0
    return (flat + batches + validation) * parameters.element_size()
