"""Fit times of `MLPDeepClassifier` beside scikit-learn's `MLPClassifier`.

Both are fitted in turn, in one process, on one thread, on the same float32 data with the same architecture, optimizer, batch
size and number of epochs. What is printed are medians over the rounds, the ratio of the two in each round as a median with
its range, and the accuracy that each reached, which shows that both learned.

    python benchmarks/fit_speed.py [--rounds 7] [--workloads digits iris]
"""

import argparse
import os
import platform
import statistics
import time
import warnings
from pathlib import Path

import numpy as np
import sklearn
import torch
from sklearn.datasets import load_digits, load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits

import skdnn
from skdnn import MLPDeepClassifier


def _digits():
    X, y = load_digits(return_X_y=True)
    return (X / 16).astype(np.float32), y


def _iris():
    X, y = load_iris(return_X_y=True)
    return X.astype(np.float32), y


def _mnist(n_rows=20_000):
    folders = [os.environ.get("SKDNN_DATA"), Path(__file__).resolve().parents[2] / "shared" / "data"]
    for folder in folders:
        if folder and (path := Path(folder) / "mnist.npz").exists():
            with np.load(path) as file:
                return (file["X_train"][:n_rows] / 255).reshape(n_rows, -1).astype(np.float32), file["y_train"][:n_rows]
    return None


# Name: data, parameters of both, MLPClassifier's own, MLPDeepClassifier's own.
_SGD = {"solver": "sgd", "momentum": 0.0, "alpha": 0.0}
WORKLOADS = {
    "digits 64-100-10, batch 32, SGD, 30 epochs": (
        _digits,
        {"hidden_layer_sizes": (100,), "batch_size": 32, "learning_rate_init": 0.1, "max_iter": 30, "n_iter_no_change": 30},
        _SGD,
        {"optimizer": "sgd"},
    ),
    "MNIST 784-300-100-10, batch 50, SGD, 2 epochs of 20,000 rows": (
        _mnist,
        {"hidden_layer_sizes": (300, 100), "batch_size": 50, "learning_rate_init": 0.1, "max_iter": 2, "n_iter_no_change": 2},
        _SGD,
        {"optimizer": "sgd"},
    ),
    "iris, defaults, 100 epochs": (_iris, {"max_iter": 100, "n_iter_no_change": 100}, {}, {}),
}


def measure(data, shared, own_sklearn, own_skdnn, n_rounds):
    """Fit both in turn and return their times and last accuracies."""
    X, y = data
    contestants = {"MLPClassifier": (MLPClassifier, own_sklearn), "MLPDeepClassifier": (MLPDeepClassifier, own_skdnn)}
    times, accuracies = {name: [] for name in contestants}, {}
    for i in range(n_rounds + 1):
        for name, (estimator_class, own) in contestants.items():
            estimator = estimator_class(**shared, **own, random_state=i)
            start = time.perf_counter()
            estimator.fit(X, y)
            if i:  # the first round warms up
                times[name].append(time.perf_counter() - start)
            accuracies[name] = estimator.score(X, y)
    return times, accuracies


def main():
    """Run the workloads and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--workloads", nargs="*", default=[""], help="parts of names (default: all)")
    options = parser.parse_args()
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, one thread; Python {platform.python_version()}, "
        f"torch {torch.__version__}, "
        f"scikit-learn {sklearn.__version__}, skdnn {skdnn.__version__}\n"
    )
    print(f"{'workload':<62}{'MLPClassifier':>15}{'skdnn':>12}{'times as fast':>22}{'accuracies':>16}")
    warnings.simplefilter("ignore", ConvergenceWarning)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            for name, (load, shared, own_sklearn, own_skdnn) in WORKLOADS.items():
                if not any(part.lower() in name.lower() for part in options.workloads):
                    continue
                data = load()
                if data is None:
                    print(f"{name:<62}left out: mnist.npz is in neither $SKDNN_DATA nor ../shared/data")
                    continue
                times, accuracies = measure(data, shared, own_sklearn, own_skdnn, options.rounds)
                theirs, ours = times.values()
                ratios = [a / b for a, b in zip(theirs, ours, strict=True)]
                ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
                print(
                    f"{name:<62}{statistics.median(theirs):>13.3f} s{statistics.median(ours):>10.3f} s{ratio:>22}"
                    f"{accuracies['MLPClassifier']:>9.3f}{accuracies['MLPDeepClassifier']:>7.3f}",
                    flush=True,
                )
    finally:
        torch.set_num_threads(threads)


if __name__ == "__main__":
    main()
