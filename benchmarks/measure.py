"""How things are measured: contestants in turn, medians with their spread, ratios within rounds."""

import contextlib
import gc
import statistics
import time
import warnings

import torch
from threadpoolctl import threadpool_limits


@contextlib.contextmanager
def threads(n):
    """Give the block `n` threads, in torch and in the libraries of NumPy and SciPy."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        with threadpool_limits(n):
            yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def quiet():
    """Silence warnings: a few epochs end before anything converges, and that is meant."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def timed(function):
    """Return what a function returns, the seconds it took, and the cores that it kept busy on average."""
    gc.collect(1)  # the young generations: what the contestant before has left
    cpu, start = time.process_time(), time.perf_counter()
    result = function()
    seconds = time.perf_counter() - start
    return result, seconds, (time.process_time() - cpu) / seconds


def summary(values):
    """Return the median and the range of some numbers."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def ratios(theirs, ours):
    """Summarise how many times as long they took, round by round, so that what slows a round down slows both."""
    return summary([a / b for a, b in zip(theirs, ours, strict=True)])


def in_turn(calls, n_rounds, n_warm=1):
    """Time functions in turn, A B C A B C ...

    Parameters
    ----------
    calls : dict
        From names to functions of a round's number that return what to time.
    n_rounds : int
    n_warm : int, default=1
        Rounds before these, which are not counted.

    Yields
    ------
    name, result, seconds, n_cores
        Of each call that counts, and what it returned.
    """
    for i in range(-n_warm, n_rounds):
        for name, prepare in calls.items():
            call = prepare(max(i, 0))
            outcome = timed(call)
            if i >= 0:
                yield name, *outcome


def seconds_of(calls, n_rounds, n_warm=1):
    """Return the seconds of each function in each round, as a dict of lists; see `in_turn`."""
    seconds = {name: [] for name in calls}
    for name, _, duration, _ in in_turn({name: lambda _, call=call: call for name, call in calls.items()}, n_rounds, n_warm):
        seconds[name].append(duration)
    return seconds
