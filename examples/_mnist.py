"""MNIST for the examples: from a local ``mnist.npz`` where there is one, else from OpenML."""

import importlib.util
import os
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.datasets import fetch_openml


class Mnist(NamedTuple):
    """The data in their original order, and where they were found.

    Attributes
    ----------
    X_train, X_test : ndarray of shape (60000, 784) and (10000, 784), float32
        Pixels in [0, 1].
    y_train, y_test : ndarray of shape (60000,) and (10000,), int64
    source : str
    """

    X_train: np.ndarray
    y_train: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray
    source: str


def load_mnist():
    """Return MNIST from the folder ``$SKDNN_DATA``, from ``../shared/data`` beside the repository, or from OpenML.

    Returns
    -------
    data : Mnist

    Raises
    ------
    FileNotFoundError
        It is in neither folder and cannot be downloaded; the message says what was tried.
    """
    folders = [Path(__file__).resolve().parents[2] / "shared" / "data"]
    if os.environ.get("SKDNN_DATA"):
        folders.insert(0, Path(os.environ["SKDNN_DATA"]))
    for folder in folders:
        path = folder / "mnist.npz"
        if path.is_file():
            with np.load(path) as file:
                arrays = [file[name] for name in ("X_train", "y_train", "X_test", "y_test")]
            return _prepare(*arrays, source=str(path))
    try:
        X, y = _download()
    except OSError as error:
        raise FileNotFoundError(
            "MNIST was not found: there is no mnist.npz in $SKDNN_DATA or ../shared/data, "
            f"and it could not be downloaded from OpenML ({error})."
        ) from error
    return _prepare(X[:60_000], y[:60_000], X[60_000:], y[60_000:], source="OpenML, mnist_784")


def _download():
    # The other parser needs a minute, but no pandas.
    parser = "pandas" if importlib.util.find_spec("pandas") else "liac-arff"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="A network error occurred")
        return fetch_openml("mnist_784", version=1, return_X_y=True, as_frame=False, parser=parser, n_retries=1)


def _prepare(X_train, y_train, X_test, y_test, source):
    pixels = [np.asarray(X, dtype=np.float32).reshape(len(X), -1) / np.float32(255) for X in (X_train, X_test)]
    return Mnist(pixels[0], np.asarray(y_train).astype(np.int64), pixels[1], np.asarray(y_test).astype(np.int64), source)
