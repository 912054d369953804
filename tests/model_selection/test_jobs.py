"""Tasks that a backend of joblib loses are run again; here one of threads loses them."""

import pickle
import threading

import pytest
from joblib.parallel import BACKENDS

from skdnn.model_selection import _jobs
from skdnn.model_selection._jobs import run_jobs

SHARED = [10, 20]
CALLS = [((0,), (1,)), ((0, 1), ()), ((1,), (2,))]


@pytest.fixture(params=["generator", "list"])
def backend(request, monkeypatch):
    """One that hands results over as they come, and one that returns them all at the end."""
    monkeypatch.setattr(_jobs, "_PAUSES", (0.0, 0.0))
    backend = BACKENDS["threading"](nesting_level=0)
    if request.param == "list":
        monkeypatch.setattr(type(backend), "supports_return_generator", False)
    return backend


def test_calls_return(backend):
    assert sorted(run_jobs(lambda a, b: (a, b), SHARED, CALLS, backend, 2)) == [(0, (10, 1)), (1, (10, 20)), (2, (20, 2))]


def test_what_is_lost_is_run_again(backend):
    attempts = []
    lock = threading.Lock()

    def add(a, b):
        with lock:
            attempts.append((a, b))
            if attempts.count((20, 2)) in (1, 2) and (a, b) == (20, 2):
                raise OSError("gone")
        return a + b

    with pytest.warns(RuntimeWarning, match=r"of 3 tasks, which are run again: OSError\('gone'\)") as caught:
        assert sorted(run_jobs(add, SHARED, CALLS, backend, 2)) == [(0, 11), (1, 30), (2, 22)]
    assert len(caught) == 2
    assert caught[0].filename == __file__


def test_a_backend_that_brings_nothing_is_given_up(backend):
    attempts = []

    def fail(a, b):
        attempts.append((a, b))
        raise OSError("gone")

    with pytest.warns(RuntimeWarning, match="lost 1 of 1 tasks") as caught, pytest.raises(OSError, match="gone"):
        list(run_jobs(fail, SHARED, CALLS[:1], backend, 2))
    assert len(attempts) == 3
    assert len(caught) == 2


def test_an_interrupt_is_not_a_loss(backend):
    def interrupt(a, b):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(run_jobs(interrupt, SHARED, CALLS, backend, 2))


def test_what_cannot_be_sent_is_not_sent_again(backend):
    attempts = []

    def refuse(a, b):
        attempts.append((a, b))
        raise pickle.PicklingError("a lock")

    with pytest.raises(pickle.PicklingError, match="a lock"):
        list(run_jobs(refuse, SHARED, CALLS[:1], backend, 2))
    assert len(attempts) == 1
