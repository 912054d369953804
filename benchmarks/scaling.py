"""How the cost of a fit grows with rows, width, depth and batch size."""

import numpy as np

from benchmarks.contestants import CONTESTANTS
from benchmarks.measure import seconds_of
from benchmarks.workloads import Task, Workload, synthetic

_BASE = {"n_rows": 4_096, "width": 128, "depth": 2, "batch_size": 64}
AXES = {
    "n_rows": (512, 1_024, 2_048, 4_096, 8_192, 16_384, 32_768),
    "width": (16, 32, 64, 128, 256, 512, 1_024),
    "depth": (1, 2, 4, 8, 16),
    "batch_size": (8, 16, 32, 64, 128, 256, 512, 1_024),
}
LABELS = {"n_rows": "rows", "width": "units of each hidden layer", "depth": "hidden layers", "batch_size": "batch size"}


def scaling_times(contestants, axes=AXES, n_rounds=3, quick=False, log=print):
    """Time one epoch of fits that differ from a base case (4,096 rows, 64-128-128-10, batch 64) in one number.

    Returns
    -------
    results : dict
        From axis to ``{"values": [...], contestant: [seconds of each round, one list a value]}``.
    """
    results = {}
    for axis, values in axes.items():
        values = values[1:-1:2] if quick else values
        results[axis] = {"values": list(values)} | {name: [] for name in contestants}
        for value in values:
            task = _task(**_BASE | {axis: value})
            calls = {name: _fit(name, task) for name in contestants}
            for name, seconds in seconds_of(calls, 2 if quick else n_rounds).items():
                results[axis][name].append(seconds)
        ours = [np.median(seconds) for seconds in results[axis][contestants[0]]]
        log(f"{LABELS[axis]} {list(values)}: {contestants[0]} {', '.join(f'{s * 1e3:.1f}' for s in ours)} ms")
    return results


def _task(n_rows, width, depth, batch_size):
    workload = Workload("scaling", "synthetic", (width,) * depth, batch_size, "sgd", 0.01, epochs=1, band=0.0)
    return Task.with_data(workload, *synthetic(n_rows))


def _fit(name, task):
    def call():
        CONTESTANTS[name].prepare(task, seed=0)()

    return call
