"""Searches on a cluster of Dask end with what they end with in this process, whatever becomes of the workers."""

import os
import signal
import threading
import time
import warnings

import joblib
import numpy as np
import pytest
from searches import GRID, assert_same_error, assert_same_results, compare, counted
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from skdnn import MLPDeepClassifier
from skdnn.model_selection import VectorizedGridSearchCV, _jobs

distributed = pytest.importorskip("distributed")
dask = pytest.importorskip("dask")
cloudpickle = pytest.importorskip("cloudpickle")

X, Y = load_digits(return_X_y=True)
COMMON = {"hidden_layer_sizes": (16,), "batch_size": 50, "max_iter": 4, "n_iter_no_change": np.inf, "random_state": 0}
N_FOLDS = 2
TIMEOUT = 60.0  # seconds; a worker takes several to start


@pytest.fixture(scope="module")
def client():
    # A worker that is killed twice within this time would not be started again.
    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": "10 minutes"}),
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0") as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.fixture
def _on_dask(client):
    with joblib.parallel_config(backend="dask"):
        yield


def make(**params):
    return MLPDeepClassifier(**COMMON | params)


def wait_until(condition):
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.usefixtures("_on_dask")
def test_both_searches_run_on_the_workers():
    grid = {"mlp__learning_rate_init": [0.01, 0.1, -1.0], "scaler__with_mean": [True, False]}
    pipe = Pipeline([("scaler", StandardScaler()), ("mlp", make())])
    # scikit-learn's search runs on the cluster, too.
    ours, theirs, counts = compare(pipe, grid, X[:300], Y[:300], cv=N_FOLDS)
    assert (counts.populations, counts.alone) == ([], 1)  # all on the workers, but the best once more
    with joblib.parallel_config(backend="sequential"):
        here = GridSearchCV(pipe, grid, cv=N_FOLDS, error_score=np.nan)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of fits that fail
            here.fit(X[:300], Y[:300])
    for search in (ours, theirs):
        assert_same_results(search.cv_results_, here.cv_results_, tolerance=1e-9)


@pytest.mark.usefixtures("_on_dask")
def test_an_error_of_a_candidate_is_raised_as_it_is_in_this_process():
    grid = {"learning_rate_init": [0.01, 0.1, -1.0]}
    error = assert_same_error(make(), grid, X[:100], Y[:100], cv=N_FOLDS, error_score="raise", classes=GRID)
    assert "learning_rate_init" in str(error)


@pytest.mark.usefixtures("_on_dask")
def test_a_search_within_cross_validation():
    scores = [cross_val_score(cls(make(), {"dropout": [0.0, 0.1]}, cv=N_FOLDS), X[:200], Y[:200], cv=2) for cls in GRID]
    np.testing.assert_array_equal(*scores)


@pytest.mark.usefixtures("_on_dask")
def test_data_are_sent_once(client, monkeypatch):
    scattered, submitted = [], []
    scatter, submit = client.scatter, client.submit

    def count_scattered(data, **kwargs):
        scattered.append(len(cloudpickle.dumps(data)))
        return scatter(data, **kwargs)

    def count_submitted(function, **kwargs):
        submitted.append(len(cloudpickle.dumps(kwargs["tasks"])))
        return submit(function, **kwargs)

    monkeypatch.setattr(client, "scatter", count_scattered)
    monkeypatch.setattr(client, "submit", count_submitted)
    search = VectorizedGridSearchCV(make(max_iter=1), {"dropout": [0.0, 0.1, 0.2, 0.3]}, cv=4, refit=False)
    with counted() as counts:
        search.fit(X, Y, sample_weight=np.ones(len(X)))
    assert counts.total == 0
    (n_bytes,) = scattered
    assert X.nbytes < n_bytes < 1.2 * X.nbytes
    assert len(submitted) == 4  # whole groups, two folds for each worker
    assert max(submitted) < 2_000


@pytest.mark.slow
@pytest.mark.usefixtures("_on_dask")
def test_an_interrupt_leaves_the_cluster_idle(client, monkeypatch):
    interrupter = threading.Thread(target=interrupt_when, args=(lambda: any(client.processing().values()),))
    interrupter.start()
    with pytest.raises(KeyboardInterrupt):
        VectorizedGridSearchCV(make(max_iter=100), {"dropout": list(np.linspace(0.0, 0.5, 8))}, cv=4).fit(X, Y)
    interrupter.join()
    with joblib.parallel_config(backend="dask"):  # another backend: the tasks of the first are nobody's
        search = VectorizedGridSearchCV(make(max_iter=1), {"dropout": [0.0, 0.1]}, cv=N_FOLDS, refit=False).fit(X, Y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def interrupt_when(condition):
    wait_until(condition)
    signal.raise_signal(signal.SIGINT)


# workers that are killed ------------------------------------------------------------------------------------------------------

LONG_GRID = {"learning_rate_init": list(np.geomspace(1e-3, 1e-1, 6)), "batch_size": [30, 50]}


@pytest.fixture(scope="module")
def undisturbed():
    return VectorizedGridSearchCV(make(max_iter=120), LONG_GRID, cv=3).fit(X, Y)


def pids_of_workers(client):
    """The processes of both workers, once the cluster has taken notice of those that were killed before."""
    found = []

    def is_whole():
        try:
            found[:] = client.run(os.getpid).values()
        except OSError:  # one of them is gone
            return False
        return len(found) == 2

    wait_until(is_whole)
    return found


class Killer(threading.Thread):
    """Kills workers, one after the other, each some seconds after the search has begun to send data, or the last was killed.

    Parameters
    ----------
    client : distributed.Client
    pauses : list of float
    """

    def __init__(self, client, pauses):
        super().__init__()
        self.pids = pids_of_workers(client)
        self.pauses = pauses
        self.has_begun = threading.Event()

    def run(self):
        assert self.has_begun.wait(TIMEOUT)
        for pid, pause in zip(self.pids, self.pauses, strict=False):
            time.sleep(pause)
            os.kill(pid, signal.SIGKILL)


def search_and_kill(client, undisturbed, pauses, monkeypatch):
    """Search while workers are killed, hold the results against those of an undisturbed search, and return the warnings."""
    killer, send = Killer(client, pauses), _jobs._send

    def send_and_tell(*args):
        sent = send(*args)
        killer.has_begun.set()
        return sent

    monkeypatch.setattr(_jobs, "_send", send_and_tell)
    killer.start()
    with joblib.parallel_config(backend="dask"), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        search = VectorizedGridSearchCV(make(max_iter=120), LONG_GRID, cv=3).fit(X, Y)
    killer.join()
    assert_same_results(search.cv_results_, undisturbed.cv_results_, tolerance=1e-9)
    assert search.best_params_ == undisturbed.best_params_
    return caught


def test_a_search_survives_a_killed_worker(client, undisturbed, monkeypatch):
    caught = search_and_kill(client, undisturbed, [0.3], monkeypatch)
    assert all("run again" in str(warning.message) for warning in caught)


@pytest.mark.slow
def test_a_search_survives_the_loss_of_all_workers_and_their_data(client, undisturbed, monkeypatch):
    caught = search_and_kill(client, undisturbed, [0.0, 0.0], monkeypatch)
    assert any("run again" in str(warning.message) for warning in caught)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_a_search_survives_workers_killed_at_any_moment(client, undisturbed, seed, monkeypatch):
    generator = np.random.default_rng(seed)
    search_and_kill(client, undisturbed, list(generator.uniform(0.0, 1.5, 1 + seed % 2)), monkeypatch)
