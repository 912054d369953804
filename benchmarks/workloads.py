"""What is trained: data, architectures, optimizers and epochs, the same for every contestant."""

import functools
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.datasets import load_digits, load_iris, make_classification
from sklearn.model_selection import train_test_split


@dataclass(frozen=True)
class Techniques:
    """What the "full" workloads switch on beside ELU: batch norm, dropout, max norm and an l1 penalty.

    Attributes
    ----------
    dropout : float
        Rate after each hidden activation.
    max_norm : float
        Radius for the incoming weights of each hidden unit.
    l1 : float
        Strength of the penalty on all kernels.
    """

    dropout: float = 0.2
    max_norm: float = 2.0
    l1: float = 1e-5


@dataclass(frozen=True)
class Workload:
    """One training task.

    Attributes
    ----------
    name : str
    data : str
        A name in `DATA`.
    hidden : tuple of int
    batch_size : int
    optimizer : {"sgd", "adam"}
    rate : float
        Learning rate.
    epochs : int
    band : float
        Accuracy below which a contestant did not really learn.
    techniques : Techniques or None
        None for a plain ReLU network.
    dtype : {"float32", "float64", "bfloat16"}
        In "bfloat16" only factors of products are: arrays and weights are float32.
    n_rows : int or None
        Training rows, where not all of the data's.
    rounds : int
        Fits of each contestant.
    n_threads : tuple of int
        Thread counts at which the fit table measures it.
    quick : bool
        Whether the quick run has it, with fewer epochs and rounds.
    """

    name: str
    data: str
    hidden: tuple
    batch_size: int
    optimizer: str
    rate: float
    epochs: int
    band: float
    techniques: Techniques | None = None
    dtype: str = "float32"
    n_rows: int | None = None
    rounds: int = 5
    n_threads: tuple = (1,)
    quick: bool = False

    @property
    def array_dtype(self):
        """The dtype of arrays and weights."""
        return "float32" if self.dtype == "bfloat16" else self.dtype

    def quickened(self):
        """Return the same task with fewer rows, epochs and rounds."""
        n_rows = None if self.n_rows is None else min(self.n_rows, 5_000)
        return replace(self, n_rows=n_rows, epochs=max(1, self.epochs // 2), rounds=3)


_MNIST = {"data": "mnist", "hidden": (300, 100), "epochs": 1, "n_rows": 20_000, "band": 0.85}
_SGD = {"optimizer": "sgd", "rate": 0.1}
_ADAM = {"optimizer": "adam", "rate": 0.001}
_WIDE = {
    "data": "mnist",
    "hidden": (1024,) * 3,
    "batch_size": 256,
    "epochs": 1,
    "n_rows": 10_240,
    "band": 0.6,
    "rounds": 3,
    **_SGD,
}

WORKLOADS = {
    workload.name: workload
    for workload in [
        Workload("iris", "iris", (100,), 150, **_ADAM, epochs=200, band=0.8, rounds=9, quick=True),
        Workload("digits", "digits", (100,), 32, **_SGD, epochs=20, band=0.93, rounds=9, quick=True),
        Workload("digits float64", "digits", (100,), 32, **_SGD, epochs=20, band=0.93, dtype="float64"),
        Workload("MNIST b50", batch_size=50, **_SGD, **_MNIST, rounds=7, n_threads=(1, 2), quick=True),
        Workload("MNIST b50 float64", batch_size=50, **_SGD, **_MNIST, dtype="float64"),
        Workload("MNIST b50 Adam", batch_size=50, **_ADAM, **_MNIST),
        Workload("MNIST b50 full", batch_size=50, **_SGD, **_MNIST, techniques=Techniques()),
        Workload("MNIST b50 Adam full", batch_size=50, **_ADAM, **_MNIST, techniques=Techniques(), quick=True),
        Workload("MNIST b200", batch_size=200, **_SGD, **_MNIST | {"band": 0.75}, n_threads=(1, 2)),
        Workload("MNIST b200 Adam", batch_size=200, **_ADAM, **_MNIST | {"band": 0.75}),
        Workload("MNIST b200 full", batch_size=200, **_SGD, **_MNIST, techniques=Techniques()),
        Workload("MNIST b200 Adam full", batch_size=200, **_ADAM, **_MNIST, techniques=Techniques()),
        Workload("wide b256", **_WIDE, n_threads=(1, 2)),
        Workload("wide b256 bfloat16", **_WIDE, dtype="bfloat16"),
        Workload("tabular b256", "tabular", (256, 256), 256, **_ADAM, epochs=1, n_rows=50_000, band=0.7, n_threads=(1, 2)),
    ]
}


class Data(NamedTuple):
    """Rows to train on and rows to score with, as float64 or float32 arrays and class indices."""

    X: np.ndarray
    y: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray


def _load_iris():
    X, y = load_iris(return_X_y=True)
    X = (X - X.mean(0)) / X.std(0)
    return Data(X, y, X, y)  # 150 rows are too few to set some aside: its accuracy is that on the training rows


def _load_digits():
    X, y = load_digits(return_X_y=True)
    X, X_test, y, y_test = train_test_split(X / 16, y, test_size=0.2, random_state=0, stratify=y)
    return Data(X, y, X_test, y_test)


def _load_mnist():
    for folder in [os.environ.get("SKDNN_DATA"), Path(__file__).resolve().parents[2] / "shared" / "data"]:
        if folder and (path := Path(folder) / "mnist.npz").is_file():
            with np.load(path) as file:
                X, X_test = ((file[name] / np.float32(255)).reshape(-1, 784) for name in ("X_train", "X_test"))
                return Data(X.astype(np.float32), file["y_train"], X_test.astype(np.float32), file["y_test"])
    return None


def _load_tabular(n_rows=50_000, n_test=10_000):
    X, y = make_classification(
        n_rows + n_test, 50, n_informative=20, n_redundant=10, n_classes=4, n_clusters_per_class=2, random_state=0
    )
    X = (X - X.mean(0)) / X.std(0)
    return Data(X[:n_rows], y[:n_rows], X[n_rows:], y[n_rows:])


DATA = {"iris": _load_iris, "digits": _load_digits, "mnist": _load_mnist, "tabular": _load_tabular}
MISSING = {"mnist": "mnist.npz is in neither $SKDNN_DATA nor ../shared/data"}


@functools.cache
def load(name):
    """Return the `Data` of a name, or None where they are not on this machine (`MISSING` says what)."""
    return DATA[name]()


@dataclass(frozen=True)
class Task:
    """A workload with its arrays.

    Attributes
    ----------
    workload : Workload
    X, X_test : ndarray of shape (n_rows, n_features)
        Of the workload's `array_dtype`, C-contiguous.
    y, y_test : ndarray of shape (n_rows,), int64
        Class indices.
    """

    workload: Workload
    X: np.ndarray
    y: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray

    @classmethod
    def of(cls, workload):
        """Return the task of a workload, or None where its data are missing."""
        data = load(workload.data)
        return None if data is None else cls.with_data(workload, *data)

    @classmethod
    def with_data(cls, workload, X, y, X_test=None, y_test=None):
        """Return a task of given arrays; by default it is scored on its training rows."""
        rows = slice(workload.n_rows)
        X, y = np.ascontiguousarray(X[rows], workload.array_dtype), y[rows].astype(np.int64)
        if X_test is None:
            X_test, y_test = X, y
        return cls(workload, X, y, np.ascontiguousarray(X_test, workload.array_dtype), y_test.astype(np.int64))

    @property
    def n_classes(self):
        """Units of the output layer."""
        return int(self.y.max()) + 1

    @property
    def widths(self):
        """Units of all layers, from the features to the classes."""
        return (self.X.shape[1], *self.workload.hidden, self.n_classes)

    @property
    def n_steps(self):
        """Updates of a fit."""
        return self.workload.epochs * -(-len(self.X) // self.workload.batch_size)

    @property
    def flop(self):
        """Floating-point operations of the products that a fit cannot do without.

        Two an element of each kernel and row, for the outputs, the kernels' gradients and the inputs' gradients; the first
        layer's inputs need no gradient.
        """
        kernels = [n_in * n_out for n_in, n_out in zip(self.widths, self.widths[1:], strict=False)]
        return 2 * (3 * sum(kernels) - kernels[0]) * len(self.X) * self.workload.epochs


def synthetic(n_rows, n_features=64, n_classes=10, seed=0):
    """Return rows of normal numbers, as float32, and classes that a linear rule gives them."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n_rows, n_features), dtype=np.float32)
    rule = rng.standard_normal((n_features, n_classes), dtype=np.float32)
    return X, (X @ rule).argmax(1)
