"""Prediction times: one row, a thousand, a million."""

import numpy as np

from benchmarks.contestants import CONTESTANTS
from benchmarks.measure import seconds_of
from benchmarks.workloads import Task, Workload, synthetic

_MODEL = Workload("prediction", "synthetic", (100,), 256, "adam", 0.001, epochs=1, band=0.0)


def prediction_times(contestants, n_rows=(1, 1_000, 1_000_000), quick=False, log=print):
    """Time ``predict`` of a 64-100-10 network in turn.

    Returns
    -------
    results : dict
        From the number of rows to ``{contestant: seconds of each round}``, each the mean over some calls where these are short.
    """
    results = {}
    task = Task.with_data(_MODEL, *synthetic(5_000))
    predictors = {name: CONTESTANTS[name].prepare(task, seed=0)() for name in contestants}
    for n in n_rows:
        X = np.ascontiguousarray(np.resize(task.X, (n, task.X.shape[1])))
        n_calls = max(1, 300 // n)
        calls = {name: _repeated(predict, X, n_calls) for name, predict in predictors.items()}
        seconds = seconds_of(calls, n_rounds=2 if quick else 3 if n >= 1_000_000 else 15)
        results[str(n)] = {name: [s / n_calls for s in each] for name, each in seconds.items()}
        log(f"predict {n} rows: " + ", ".join(f"{name} {np.median(s) * 1e6:,.0f} us" for name, s in results[str(n)].items()))
    return results


def _repeated(predict, X, n_calls):
    def call():
        for _ in range(n_calls):
            predict(X)

    return call
