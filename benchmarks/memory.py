"""Peaks of memory, each measured in a process of its own: anonymous pages, without those that map files."""

import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from benchmarks.contestants import CONTESTANTS
from benchmarks.workloads import Task, Workload, synthetic

_N_FEATURES = 1_000
_CHUNK = 16_384  # rows written at a time


def anonymous_bytes():
    """Return the process' resident anonymous memory."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status does not tell RssAnon.")


class PeakMemory:
    """Samples the memory in a thread during a block.

    Attributes
    ----------
    start, peak : int
        Bytes when the block began, and at most during it.
    """

    def __enter__(self):
        self.start = self.peak = anonymous_bytes()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()
        return self

    def __exit__(self, *exception):
        self._is_over.set()
        self._thread.join()

    def _sample(self):
        while not self._is_over.wait(0.002):
            self.peak = max(self.peak, anonymous_bytes())


def memory_of_training(contestant, gigabytes, log=print):
    """Train for an epoch from a memory-mapped float32 file of random rows, which is removed afterwards.

    Returns
    -------
    result : dict
        ``above_imports`` in bytes, ``file`` in bytes and ``seconds``.
    """
    n_rows = int(gigabytes * 1e9) // (4 * _N_FEATURES)
    workload = Workload("file", "file", (64,), 512, "sgd", 0.01, epochs=1, band=0.0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "X.dat"
        y = _write(path, n_rows)
        X = np.memmap(path, np.float32, "r", shape=(n_rows, _N_FEATURES))
        _warm_up(contestant)
        train = CONTESTANTS[contestant].prepare(Task(workload, X, y, X[:1], y[:1]), seed=0)
        start = time.perf_counter()
        with PeakMemory() as memory:
            train()
        seconds = time.perf_counter() - start
    result = {"above_imports": memory.peak - memory.start, "file": n_rows * _N_FEATURES * 4, "seconds": seconds}
    log(f"training of {contestant} from a file of {gigabytes} GB: {result['above_imports'] / 1e6:.0f} MB above imports")
    return result


def _write(path, n_rows):
    """Write rows of normal numbers and return classes that they determine."""
    rng = np.random.default_rng(0)
    labels = []
    with path.open("wb") as file:
        for start in range(0, n_rows, _CHUNK):
            rows = rng.standard_normal((min(_CHUNK, n_rows - start), _N_FEATURES), dtype=np.float32)
            rows.tofile(file)
            labels.append(rows[:, :10].argmax(1))
    return np.concatenate(labels)


def _warm_up(contestant):
    """Fit a few rows: what a first fit loads belongs to the imports."""
    task = Task.with_data(Workload("few", "few", (4,), 32, "sgd", 0.01, epochs=1, band=0.0), *synthetic(100))
    predict = CONTESTANTS[contestant].prepare(task, seed=0)()
    predict(task.X)


def memory_of_prediction(contestant, n_rows, log=print):
    """Predict many rows of 64 features with a network of 256 units.

    Returns
    -------
    result : dict
        ``beside``: bytes at most beside the input and what ``predict`` returns; ``seconds`` and ``rows``.
    """
    workload = Workload("wide", "few", (256,), 256, "sgd", 0.01, epochs=1, band=0.0)
    predict = CONTESTANTS[contestant].prepare(Task.with_data(workload, *synthetic(1_000)), seed=0)()
    X, _ = synthetic(n_rows)
    predict(X[:1_000])
    start = time.perf_counter()
    with PeakMemory() as memory:
        output = predict(X)
    seconds = time.perf_counter() - start
    beside = memory.peak - memory.start - output.nbytes
    log(f"prediction of {n_rows} rows by {contestant}: {beside / 1e6:.0f} MB beside input and output")
    return {"beside": beside, "seconds": seconds, "rows": n_rows}
