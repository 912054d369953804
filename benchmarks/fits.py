"""Fit times of all contestants on all workloads."""

import numpy as np
import torch

from benchmarks.contestants import CONTESTANTS
from benchmarks.limit import MatrixRates
from benchmarks.measure import in_turn, summary
from benchmarks.workloads import MISSING, WORKLOADS, Task
from skdnn.training import multiplies_bfloat16


def fit_times(contestants, workloads, quick=False, with_limit=True, log=print):
    """Fit in turn.

    Parameters
    ----------
    contestants, workloads : sequence of str
        Names.
    quick : bool
        Fewer rows, epochs and rounds.
    with_limit : bool
        Whether to measure matrix products beside.
    log : callable
        Is told what goes on, and what is left out.

    Returns
    -------
    results : dict
        From workload to ``{"contestants": {name: {"seconds", "accuracies", "n_cores"}}, "limit": ..., "steps": ...}``.
    """
    results = {}
    for name in workloads:
        workload = WORKLOADS[name].quickened() if quick else WORKLOADS[name]
        task = Task.of(workload)
        if task is None:
            log(f"{name}: left out, {MISSING[workload.data]}")
            continue
        if workload.dtype == "bfloat16" and not multiplies_bfloat16(torch.device("cpu")):
            log(f"{name}: left out, this CPU has no instructions for it")
            continue
        taking_part = [c for c in contestants if CONTESTANTS[c].can(workload)]
        rates = MatrixRates(task) if with_limit else None
        results[name] = fit_one(task, taking_part, rates)
        log(_line(name, results[name]))
    return results


def fit_one(task, contestants, rates=None):
    """Fit one task in turn, see `fit_times`."""
    runs = {name: {"seconds": [], "accuracies": [], "n_cores": []} for name in contestants}
    calls = {name: lambda seed, prepare=CONTESTANTS[name].prepare: prepare(task, seed) for name in contestants}
    if rates is not None:
        rates.measure()
    for name, predict, seconds, n_cores in in_turn(calls, task.workload.rounds):
        if rates is not None and name == contestants[0]:
            rates.measure()
        runs[name]["seconds"].append(seconds)
        runs[name]["accuracies"].append(float(np.mean(predict(task.X_test) == task.y_test)))
        runs[name]["n_cores"].append(n_cores)
    return {
        "contestants": runs,
        "steps": task.n_steps,
        "band": task.workload.band,
        "limit": None if rates is None else rates.summary(task),
    }


def _line(name, result):
    parts = [
        f"{contestant} {summary(run['seconds'])['median'] * 1e3:.1f} ms ({np.mean(run['accuracies']):.3f})"
        for contestant, run in result["contestants"].items()
    ]
    return f"{name}: " + ", ".join(parts)
