"""Search hyperparameters on a cluster of Dask: two worker processes of this machine, or a scheduler elsewhere.

    python examples/search_on_dask.py [tcp://address:8786]

Candidates that can train together are divided among the workers, fold by fold; the data are sent to the cluster once. Workers
that are lost are made up for: what they were training is trained by others.
"""

import argparse
import contextlib
import sys
import time

import joblib
import numpy as np
from distributed import Client, LocalCluster
from sklearn.datasets import load_digits
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from skdnn import MLPDeepClassifier
from skdnn.components import Momentum
from skdnn.model_selection import VectorizedGridSearchCV

GRID = {
    "mlp__learning_rate_init": [0.003, 0.01, 0.03, 0.1],
    "mlp__optimizer__momentum": [0.5, 0.9],
    "mlp__max_norm": [None, 1.0],
    "mlp__dropout": [0.0, 0.2],
}


@contextlib.contextmanager
def connect(address=None):
    """Yield a client of the scheduler at an address, or of two worker processes that end with it."""
    if address is not None:
        with Client(address) as client:
            yield client
        return
    # One thread each: a group of candidates keeps a core busy.
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster, Client(cluster) as client:
        yield client


def search(max_iter, folds):
    """Return the fitted search, whose candidates have been trained by the cluster of the current client."""
    X, y = load_digits(return_X_y=True)
    mlp = MLPDeepClassifier((50, 50), optimizer=Momentum(), max_iter=max_iter, n_iter_no_change=np.inf, random_state=0)
    pipe = Pipeline([("scaler", StandardScaler()), ("mlp", mlp)])
    with joblib.parallel_config(backend="dask"):
        return VectorizedGridSearchCV(pipe, GRID, cv=folds).fit(X.astype(np.float32), y)


def parse_arguments(arguments=None):
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("address", nargs="?", help="of a scheduler (default: two worker processes are started here)")
    parser.add_argument("--folds", type=int, default=3, help="folds of the cross-validation (default: 3)")
    parser.add_argument("--max-iter", type=int, default=20, help="epochs of each fit (default: 20)")
    return parser.parse_args(arguments)


def main(arguments=None):
    """Run the search; return 0, or 130 after Ctrl-C."""
    options = parse_arguments(arguments)
    try:
        with connect(options.address) as client:
            n_workers = len(client.ncores())
            start = time.perf_counter()
            fitted = search(options.max_iter, options.folds)
            seconds = time.perf_counter() - start
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130
    n_fits = len(fitted.cv_results_["params"]) * options.folds
    print(f"{n_fits} fits on {n_workers} workers in {seconds:.1f} s")
    print(f"best accuracy {fitted.best_score_:.4f}")
    for name, value in fitted.best_params_.items():
        print(f"  {name} = {value}")
    return 0


# Worker processes import this file: they must not start a search of their own.
if __name__ == "__main__":
    sys.exit(main())
