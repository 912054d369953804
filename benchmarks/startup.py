"""What comes before training: the fixed cost of a fit, and the import."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np

from benchmarks.contestants import CONTESTANTS
from benchmarks.measure import seconds_of
from benchmarks.workloads import Task, Workload, synthetic

_SMALL = Workload("100 rows", "synthetic", (100,), 32, "adam", 0.001, epochs=1, band=0.0)
_MORE_EPOCHS = 20


def fixed_costs(contestants, quick=False, log=print):
    """Time fits of one epoch on 100 rows, and of 20 more epochs, whose share is the training itself.

    Returns
    -------
    results : dict
        From contestant to ``{"fit": seconds of each round, "epoch": seconds of an epoch, in each round}``.
    """
    X, y = synthetic(100)
    tasks = [Task.with_data(replace(_SMALL, epochs=n), X, y) for n in (1, 1 + _MORE_EPOCHS)]

    def fit(name, task):
        return CONTESTANTS[name].prepare(task, seed=0)

    calls = {(name, i): (lambda n=name, t=task: fit(n, t)()) for name in contestants for i, task in enumerate(tasks)}
    seconds = seconds_of(calls, n_rounds=5 if quick else 25, n_warm=2)
    results = {}
    for name in contestants:
        short, long = seconds[name, 0], seconds[name, 1]
        results[name] = {"fit": short, "epoch": [(b - a) / _MORE_EPOCHS for a, b in zip(short, long, strict=True)]}
        fixed = [a - b for a, b in zip(short, results[name]["epoch"], strict=True)]
        log(f"fixed cost of a fit, {name}: {np.median(fixed) * 1e3:.2f} ms")
    return results


_IMPORTS = {
    "torch, sklearn, skorch": "import torch, sklearn, skorch",
    "torch, sklearn, skorch, skdnn": "import torch, sklearn, skorch\nimport skdnn",
    "skdnn alone": "import skdnn",
    "sklearn.neural_network": "from sklearn.neural_network import MLPClassifier",
}


def import_times(quick=False, log=print):
    """Time imports in fresh processes, in turn.

    Returns
    -------
    results : dict
        From what is imported to the seconds of each round.
    """
    imports = dict(list(_IMPORTS.items())[:2]) if quick else _IMPORTS
    results = {name: [] for name in imports}
    for i in range(3 if quick else 10):
        for name, statement in imports.items():
            script = (
                f"import json, time\nstart = time.perf_counter()\n{statement}\nprint(json.dumps(time.perf_counter() - start))"
            )
            done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
            if i:  # the first round brings the files into memory
                results[name].append(json.loads(done.stdout))
    log("import: " + ", ".join(f"{name} {np.median(s):.2f} s" for name, s in results.items()))
    return results
