"""One thread and two, alone and beside a process that keeps one core busy."""

import contextlib
import os
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np

from benchmarks.contestants import CONTESTANTS
from benchmarks.measure import in_turn, threads
from benchmarks.workloads import WORKLOADS, Task

# Fewer rows and epochs than in the fit table: beside a busy process some contestants take a hundred times as long.
_SMALLER = {
    "digits": {"epochs": 2},
    "MNIST b50": {"n_rows": 5_000},
    "MNIST b200": {"n_rows": 5_000},
    "wide b256": {"n_rows": 2_560},
    "tabular b256": {"n_rows": 10_240},
}


class BusyProcess:
    """A process that keeps one core busy between `run` and `rest`."""

    def __enter__(self):
        self._process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        self.rest()
        return self

    def __exit__(self, *exception):
        self._process.kill()
        self._process.wait()

    @contextlib.contextmanager
    def beside(self):
        """Keep a core busy during the block."""
        self._signal(signal.SIGCONT)
        try:
            yield
        finally:
            self.rest()

    def rest(self):
        """Stop, until further notice."""
        self._signal(signal.SIGSTOP)

    def _signal(self, number):
        os.kill(self._process.pid, number)


def company_times(contestants, workloads=tuple(_SMALLER), thread_counts=(1, 2), n_rounds=5, quick=False, log=print):
    """Fit in turn with each number of threads, alone and in company.

    Returns
    -------
    results : dict
        From workload to ``{contestant: {"1 alone": seconds of each round, "1 busy": ..., "2 alone": ..., "2 busy": ...}}``.
    """
    results = {}
    with BusyProcess() as busy:
        for name in workloads:
            task = Task.of(replace(WORKLOADS[name], **_SMALLER[name] | ({"epochs": 1} if quick else {})))
            if task is None:
                continue
            calls = {
                (contestant, n, state): _in_company(task, contestant, n, busy if state == "busy" else None)
                for n in thread_counts
                for state in ("alone", "busy")
                for contestant in contestants
            }
            times = {contestant: {} for contestant in contestants}
            for (contestant, n, state), _, seconds, _ in in_turn(calls, 2 if quick else n_rounds):
                times[contestant].setdefault(f"{n} {state}", []).append(seconds)
            results[name] = times
            log(f"{name}: " + ", ".join(f"{c} {_line(t)}" for c, t in times.items()))
    return results


def _in_company(task, contestant, n_threads, busy):
    """Return what `in_turn` takes: a function that prepares a fit with so many threads, beside the busy process or alone."""

    def prepare(seed):
        with threads(n_threads):
            train = CONTESTANTS[contestant].prepare(task, seed)

        def call():
            with threads(n_threads), busy.beside() if busy else contextlib.nullcontext():
                train()

        return call

    return prepare


def _line(times):
    return " / ".join(f"{case} {np.median(seconds) * 1e3:.0f} ms" for case, seconds in times.items())
