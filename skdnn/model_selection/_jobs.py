"""Calls in other processes and on other machines, which may be lost there.

joblib runs them on whatever `joblib.parallel_config` names. A process that ends, or a worker of a cluster that is gone, takes
with it what it was computing and the only copy of data that others wait for; what is lost is then called again.
"""

import time
from pickle import PicklingError

import joblib
from sklearn.utils.parallel import Parallel, delayed

from skdnn.exceptions import warn_caller

# Seconds before the attempts that follow one which has failed. When all have failed without a single result between them, the
# cluster, or what it is to compute, is taken to be at fault. Workers are started anew in a few seconds.
_PAUSES = (0.5, 2.0, 5.0)


def run_jobs(function, shared, calls, backend, n_jobs):
    """Yield the numbers of calls of a function and what they return, in the order in which they end.

    Parameters
    ----------
    function : callable
        It should catch its own exceptions: what is raised is taken for a failure of the backend.
    shared : list
        What several calls take. A Dask cluster is sent each once, and its workers copy it from one another.
    calls : list of (tuple of int, tuple)
        The arguments of each: numbers of those that are shared, and the others, which come after them.
    backend : joblib.parallel.ParallelBackendBase
    n_jobs : int

    Raises
    ------
    Exception
        What the backend raised, after several attempts in a row without a result.
    """
    return_as = "generator_unordered" if backend.supports_return_generator else "list"
    # Calls are few and cut for the jobs: joblib, which likes to send some at a time, would give one worker too many.
    parallel = Parallel(n_jobs=n_jobs, backend=backend, return_as=return_as, batch_size=1)
    remaining, n_failures = dict(enumerate(calls)), 0
    while remaining:
        try:
            sent = _send(shared, backend)
            tasks = [
                delayed(_call)(i, function, [sent[number] for number in numbers], arguments)
                for i, (numbers, arguments) in remaining.items()
            ]
            for i, result in parallel(tasks):
                del remaining[i]
                n_failures = 0
                yield i, result
        except PicklingError:  # what cannot be sent cannot be sent later
            raise
        except Exception as error:
            if n_failures == len(_PAUSES):
                raise
            warn_caller(
                f"{type(backend).__name__} has lost {len(remaining)} of {len(calls)} tasks, which are run again: {error!r}",
                RuntimeWarning,
            )
            time.sleep(_PAUSES[n_failures])
            n_failures += 1


def has_lone_processes(backend):
    """Whether each of the workers has a process for itself, so that what one warns and prints is its own.

    Parameters
    ----------
    backend : joblib.parallel.ParallelBackendBase
    """
    known = (joblib.parallel.BACKENDS.get(name) for name in ("loky", "multiprocessing"))
    return isinstance(backend, tuple(cls for cls in known if cls is not None))


def _send(shared, backend):
    """Return what stands for shared arguments in calls."""
    if isinstance(backend, joblib.parallel.BACKENDS.get("dask", ())):
        # Not left to joblib, which would wait for ever if a worker ended while it was sent something. Keys are new each time:
        # those of lost data are not to come back.
        return backend.client.scatter(shared, hash=False)
    return shared


def _call(number, function, shared, arguments):
    return number, function(*shared, *arguments)
