"""The same seed gives the same bits everywhere, and a fit leaves the process as it found it."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import warnings

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import Callback

from skdnn import MLPDeepClassifier

X, Y = load_iris(return_X_y=True)

# Everything that draws random numbers: weights, order, masks of both kinds, the validation split, users' callables.
NOISY = {
    "dropout": {"dropout": 0.2, "input_dropout": 0.1, "batch_norm": True},
    "early_stopping": {"early_stopping": True, "validation_fraction": 0.2},
    "callables": {"activation": torch.nn.functional.hardtanh, "initializer": torch.nn.init.trunc_normal_},
    "callable_without_generator": {"initializer": [lambda kernel: kernel.normal_(), "orthogonal"]},
    "torch_optimizer": {"optimizer": torch.optim.RAdam, "activation": "elu"},
}


def make(**params):
    common = {"hidden_layer_sizes": (8,), "max_iter": 3, "n_iter_no_change": 3, "batch_size": 32, "random_state": 0}
    return MLPDeepClassifier(**common | params)


def weights(clf):
    return np.concatenate([array.ravel() for array in clf.coefs_ + clf.intercepts_])


def digest(clf):
    return joblib.hash(weights(clf))


# the same seed ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("params", NOISY.values(), ids=NOISY)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_same_seed_gives_the_same_bits(params, dtype):
    first, second = (make(**params).fit(X.astype(dtype), Y) for _ in range(2))
    assert weights(first).tobytes() == weights(second).tobytes()
    assert first.loss_curve_ == second.loss_curve_
    assert first.validation_scores_ == second.validation_scores_
    assert weights(make(**params, random_state=1).fit(X.astype(dtype), Y)).tobytes() != weights(first).tobytes()


@pytest.mark.parametrize("name", ["dropout", "early_stopping"])
def test_each_use_of_randomness_has_a_seed_of_its_own(name):
    # Switching one technique on does not move the draws of the others: candidates of a search stay comparable.
    params = {**NOISY[name], "learning_rate_init": 1e-300}  # so small a rate leaves the weights as they were drawn
    np.testing.assert_array_equal(make(**params).fit(X, Y).coefs_[0], make(learning_rate_init=1e-300).fit(X, Y).coefs_[0])


def test_a_fresh_process_gives_the_same_bits():
    script = """
import json, joblib, sys
import numpy as np, torch
from sklearn.datasets import load_iris
from skdnn import MLPDeepClassifier

torch.manual_seed(99), np.random.seed(99)
for params in json.loads(sys.argv[1]):
    clf = MLPDeepClassifier((8,), **params).fit(*load_iris(return_X_y=True))
    print(joblib.hash(np.concatenate([array.ravel() for array in clf.coefs_ + clf.intercepts_])))
"""
    common = {"max_iter": 3, "n_iter_no_change": 3, "batch_size": 32, "random_state": 0}
    cases = [NOISY["dropout"], NOISY["early_stopping"]]
    completed = subprocess.run(
        [sys.executable, "-c", script, json.dumps([common | params for params in cases])],
        env={**os.environ, "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.stdout.split() == [digest(make(**params).fit(X, Y)) for params in cases], completed.stderr


def test_a_search_gives_the_same_bits_for_any_number_of_jobs():
    grid = {"activation": ["relu", "elu"], "dropout": [0.0, 0.3]}
    searches = [GridSearchCV(make(batch_norm=True), grid, cv=2, n_jobs=n_jobs).fit(X, Y) for n_jobs in (1, 2)]
    with joblib.parallel_backend("threading"):
        searches.append(GridSearchCV(make(batch_norm=True), grid, cv=2, n_jobs=2).fit(X, Y))
    one, *others = searches
    for other in others:
        assert other.cv_results_["params"] == one.cv_results_["params"]
        for key in ("split0_test_score", "split1_test_score", "mean_test_score", "rank_test_score"):
            np.testing.assert_array_equal(other.cv_results_[key], one.cv_results_[key])
        assert weights(other.best_estimator_).tobytes() == weights(one.best_estimator_).tobytes()


def test_fits_in_threads_do_not_disturb_each_other():
    estimators = [make(**params) for params in NOISY.values() if "initializer" not in params] * 2
    alone = [digest(clone(clf).fit(X, Y)) for clf in estimators]
    with joblib.parallel_backend("threading"):
        fitted = joblib.Parallel(n_jobs=4)(joblib.delayed(clf.fit)(X, Y) for clf in estimators)
    assert [digest(clf) for clf in fitted] == alone


def test_initializers_that_draw_globally_do_not_disturb_each_other():
    # A callable that takes no generator draws from torch's global one, which two fits must not use at once.
    def slow(kernel):
        time.sleep(0.02)  # lets the other thread in, unless it has to wait
        kernel.normal_()

    estimators = [make(initializer=[slow, "auto"], random_state=seed) for seed in range(2)]
    alone = [digest(clone(clf).fit(X, Y)) for clf in estimators]
    before = torch.get_rng_state()
    threads = [threading.Thread(target=clf.fit, args=(X, Y)) for clf in estimators]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [digest(clf) for clf in estimators] == alone
    assert torch.equal(torch.get_rng_state(), before)


# what random_state may be -------------------------------------------------------------------------------------------------


def test_a_generator_instance_moves_on_from_fit_to_fit():
    clf = make(random_state=np.random.RandomState(3))
    first, second = digest(clf.fit(X, Y)), digest(clf.fit(X, Y))
    assert first != second
    again = make(random_state=np.random.RandomState(3))
    assert [digest(again.fit(X, Y)) for _ in range(2)] == [first, second]


def test_numpy_integers_are_seeds_like_python_integers():
    assert digest(make(random_state=np.int64(7)).fit(X, Y)) == digest(make(random_state=7).fit(X, Y))


# the global generators ----------------------------------------------------------------------------------------------------


def global_generators():
    return random.getstate(), joblib.hash(np.random.get_state()), torch.get_rng_state().tolist()  # noqa: NPY002


def use(clf):
    """Fit, predict and touch whatever is made on demand."""
    clf.fit(X, Y).predict_proba(X)
    clf.module_(torch.zeros(1, 4, dtype=torch.float64))
    assert clf.net_ is not None
    clf.__setstate__(clf.__getstate__())  # both are made anew after that
    assert clf.module_ is not None
    assert clf.net_ is not None
    assert len(clf.coefs_) == 2


@pytest.mark.parametrize("random_state", [None, 0])
@pytest.mark.parametrize("params", NOISY.values(), ids=NOISY)
def test_global_generators_are_not_moved(params, random_state):
    before = global_generators()
    use(make(**params, random_state=random_state))
    assert global_generators() == before


@pytest.mark.parametrize("params", NOISY.values(), ids=NOISY)
def test_global_generators_are_not_read(params):
    digests = set()
    for seed in range(2):
        with torch.random.fork_rng(devices=[]):
            state = random.getstate(), np.random.get_state()  # noqa: NPY002
            random.seed(seed), np.random.seed(seed), torch.manual_seed(seed)  # noqa: NPY002
            digests.add(digest(make(**params).fit(X, Y)))
            random.setstate(state[0]), np.random.set_state(state[1])  # noqa: NPY002
    assert len(digests) == 1


def test_no_seed_means_another_network_each_time():
    # Also where the global generators stand at the same place: they are not where the entropy comes from.
    before = torch.get_rng_state()
    first = make(random_state=None).fit(X, Y)
    assert torch.equal(torch.get_rng_state(), before)
    assert digest(first) != digest(make(random_state=None).fit(X, Y))


# process-wide settings ----------------------------------------------------------------------------------------------------


def settings():
    return {
        "threads": torch.get_num_threads(),
        "onednn": torch.backends.mkldnn.matmul.fp32_precision,
        "precision": torch.get_float32_matmul_precision(),
        "grad": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "dtype": torch.get_default_dtype(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "filters": list(warnings.filters),
        "errors": np.geterr(),
        "environment": dict(os.environ),
    }


@pytest.fixture
def two_threads():
    """More than one thread, so that a fit of a small network changes the setting."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def fail(error):
    """Raise an error, the one of Ctrl-C by way of the keyboard: of a callback's own skorch has it that training ends."""
    if error is KeyboardInterrupt:
        signal.raise_signal(signal.SIGINT)
    raise error("stop here")


class Raise(Callback):
    """Raises in the second epoch, at one event."""

    def __init__(self, error, event):
        self.error = error
        self.event = event

    def _raise(self, net, event):
        if event == self.event and len(net.history) == 2:
            fail(self.error)

    def on_epoch_begin(self, net, **kwargs):
        self._raise(net, "on_epoch_begin")

    def on_batch_end(self, net, **kwargs):
        self._raise(net, "on_batch_end")

    def on_epoch_end(self, net, **kwargs):
        self._raise(net, "on_epoch_end")


def tired_activation():
    """An activation that fails in the middle of training."""
    calls = iter(range(7))

    def activation(z):
        if next(calls, None) is None:
            raise RuntimeError("stop here")
        return torch.tanh(z)

    return activation


# Small networks set the number of threads, large ones in float32 the matrix product.
SIZES = {"small": ((8,), np.float64), "large": ((1500,) * 2, np.float32)}


@pytest.mark.parametrize(("sizes", "dtype"), SIZES.values(), ids=SIZES)
@pytest.mark.usefixtures("two_threads")
def test_settings_are_as_before_after_a_fit(sizes, dtype):
    before = settings()
    clf = make(hidden_layer_sizes=sizes, max_iter=1, n_iter_no_change=1).fit(X.astype(dtype), Y)
    assert settings() == before
    clf.predict(X.astype(dtype))
    assert settings() == before


@pytest.mark.parametrize(
    ("params", "error"),
    [
        ({"activation": tired_activation()}, RuntimeError),
        ({"callbacks": [Raise(KeyboardInterrupt, "on_epoch_end")]}, KeyboardInterrupt),
        ({"callbacks": [Raise(ZeroDivisionError, "on_epoch_begin")]}, ZeroDivisionError),
        ({"initializer": lambda kernel: 1 / 0}, ZeroDivisionError),
        ({"activation": lambda z: z[:1]}, ValueError),
    ],
    ids=["activation", "interrupt", "callback", "initializer", "shape"],
)
@pytest.mark.usefixtures("two_threads")
def test_settings_are_as_before_after_a_fit_that_raised(params, error):
    before, generators = settings(), global_generators()
    with pytest.raises(error):
        make(**params).fit(X, Y)
    assert settings() == before
    assert global_generators() == generators


@pytest.mark.usefixtures("two_threads")
def test_settings_are_as_before_after_fits_in_threads():
    before = settings()
    with joblib.parallel_backend("threading"):
        joblib.Parallel(n_jobs=4)(joblib.delayed(make().fit)(X, Y) for _ in range(8))
    assert settings() == before


@pytest.mark.usefixtures("two_threads")
def test_fits_that_overlap_in_threads_leave_each_its_threads():
    # torch keeps the number of threads for each thread of Python: who comes first may leave first, or last.
    class Meet(Callback):
        def __init__(self, arrived, wait_for):
            self.arrived = arrived
            self.wait_for = wait_for

        def on_train_begin(self, net, **kwargs):
            self.n_threads = torch.get_num_threads()
            self.arrived.set()
            assert self.wait_for.wait(20)

    ready, mine, others, over = (threading.Event() for _ in range(4))
    inside, after = [], []

    def fit_beside():
        after.append(torch.get_num_threads())  # a thread takes over the number when it first asks
        ready.set()
        assert mine.wait(20)
        ear = Meet(others, over)
        make(callbacks=[ear]).fit(X, Y)
        inside.append(ear.n_threads)
        after.append(torch.get_num_threads())

    thread = threading.Thread(target=fit_beside)
    thread.start()
    assert ready.wait(20)
    ear = Meet(mine, others)
    make(callbacks=[ear]).fit(X, Y)
    after.append(torch.get_num_threads())
    over.set()
    thread.join()
    assert [ear.n_threads, *inside] == [1, 1]
    assert [*after, torch.get_num_threads()] == [2, 2, 2, 2]


@pytest.mark.usefixtures("two_threads")
def test_a_small_fit_runs_on_one_thread():
    # An oracle for the tests above: what is never changed is always as before.
    class Ear(Callback):
        def on_epoch_end(self, net, **kwargs):
            self.heard = torch.get_num_threads()

    ear = Ear()
    make(callbacks=[ear]).fit(X, Y)
    assert ear.heard == 1


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_the_mode_of_the_caller_does_not_matter(mode):
    with mode():
        clf = make(activation=torch.nn.functional.hardtanh, batch_norm=True).fit(X, Y)
        inside = clf.predict_proba(X)
    assert digest(clf) == digest(make(activation=torch.nn.functional.hardtanh, batch_norm=True).fit(X, Y))
    np.testing.assert_array_equal(clf.predict_proba(X), inside)
    # The network that was made in that mode can still be differentiated through.
    clf.module_(torch.from_numpy(X)).sum().backward()
    assert all(parameter.grad is not None for parameter in clf.module_.parameters())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_default_dtype_of_torch_does_not_matter(dtype):
    expected = digest(make(**NOISY["dropout"]).fit(X.astype(dtype), Y))
    before = torch.get_default_dtype()
    other = torch.float64 if dtype is np.float32 else torch.float16
    torch.set_default_dtype(other)
    try:
        clf = make(**NOISY["dropout"]).fit(X.astype(dtype), Y)
        assert clf.predict_proba(X.astype(dtype)).dtype == dtype
        assert torch.get_default_dtype() == other
    finally:
        torch.set_default_dtype(before)
    assert digest(clf) == expected


# interruption -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("event", ["on_epoch_end", "on_epoch_begin", "on_batch_end"])
@pytest.mark.parametrize("early_stopping", [False, True])
def test_an_interrupted_fit_raises_and_keeps_the_best_weights(event, early_stopping):
    clf = make(callbacks=[Raise(KeyboardInterrupt, event)], early_stopping=early_stopping)
    with pytest.raises(KeyboardInterrupt):
        clf.fit(X, Y)
    n_epochs = 2 if event == "on_epoch_end" else 1  # that are over
    assert np.isfinite(clf.predict_proba(X)).all()
    assert len(clf.loss_curve_) == n_epochs
    assert clf.best_epoch_ in range(1, n_epochs + 1)
    reference = make(early_stopping=early_stopping, max_iter=clf.best_epoch_, n_iter_no_change=3)
    assert digest(reference.fit(X, Y)) == digest(clf)


def test_a_fit_interrupted_before_its_first_epoch_is_over_leaves_no_fit():
    class Now(Callback):
        def on_epoch_begin(self, net, **kwargs):
            fail(KeyboardInterrupt)

    clf = make(callbacks=[Now()])
    with pytest.raises(KeyboardInterrupt):
        clf.fit(X, Y)
    assert not hasattr(clf, "coefs_")


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_training_goes_on_after_a_warm_start_that_was_stopped(error):
    class OnlyOnce(Callback):
        def __init__(self):
            self.is_armed = False

        def on_epoch_begin(self, net, **kwargs):
            if self.is_armed:
                self.is_armed = False
                fail(error)

    stop = OnlyOnce()
    clf = make(warm_start=True, callbacks=[stop]).fit(X, Y)
    kept = digest(clf)
    stop.is_armed = True
    with pytest.raises(error):
        clf.fit(X, Y)
    assert digest(clf) == kept
    assert np.isfinite(clf.predict_proba(X)).all()
    assert len(clf.history_) == len(clf.loss_curve_) == 3
    clf.fit(X, Y)
    assert len(clf.history_) == len(clf.loss_curve_) == 6


def test_an_interrupted_search_is_interrupted():
    # skorch's partial_fit swallows the interrupt, so that Ctrl-C would end one fit of a search and not the search.
    search = GridSearchCV(make(callbacks=[Raise(KeyboardInterrupt, "on_epoch_end")]), {"dropout": [0.0, 0.1]}, cv=2)
    with pytest.raises(KeyboardInterrupt):
        search.fit(X, Y)
