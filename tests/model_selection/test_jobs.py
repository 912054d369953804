"""Tasks that a backend of joblib loses are run again; here one of threads loses them."""

import threading
import warnings

import pytest
from joblib.parallel import BACKENDS

from skdnn.model_selection._jobs import run_jobs

SHARED = [10, 20]
CALLS = [((0,), (1,)), ((0, 1), ()), ((1,), (2,))]


@pytest.fixture(params=["threading", "multiprocessing"], ids=["generator", "list"])
def backend(request, monkeypatch):
    """One that hands results over as they come, and one that returns them all at the end."""
    backend = BACKENDS["threading"](nesting_level=0)
    if request.param == "multiprocessing":
        monkeypatch.setattr(type(backend), "supports_return_generator", False)
    return backend


def test_calls_return(backend):
    assert sorted(run_jobs(lambda a, b: (a, b), SHARED, CALLS, backend, 2)) == [(10, 1), (10, 20), (20, 2)]


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
        assert sorted(run_jobs(add, SHARED, CALLS, backend, 2)) == [11, 22, 30]
    assert len(caught) == 2
    assert caught[0].filename == __file__


def test_a_backend_that_brings_nothing_is_given_up(backend):
    attempts = []

    def fail(a, b):
        attempts.append((a, b))
        raise OSError("gone")

    with warnings.catch_warnings(record=True) as caught, pytest.raises(OSError, match="gone"):
        warnings.simplefilter("always")
        list(run_jobs(fail, SHARED, CALLS[:1], backend, 2))
    assert len(attempts) == 3
    assert len(caught) == 2


def test_an_interrupt_is_not_a_loss(backend):
    def interrupt(a, b):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(run_jobs(interrupt, SHARED, CALLS, backend, 2))
