"""dtype="bfloat16", whatever the CPU: it is told that it has the instructions, and then computes the same without them."""

import contextlib
import pickle
import threading

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_digits
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import Callback

from skdnn import MLPDeepClassifier, MLPDeepRegressor
from skdnn.engine import rounded
from skdnn.exceptions import InvalidParameterError

DIGITS, DIGIT = load_digits(return_X_y=True)
DIGITS, DIGIT = (DIGITS[:400] / 16).astype(np.float32), DIGIT[:400]
PATIENTS, PROGRESS = load_diabetes(return_X_y=True)
PATIENTS = StandardScaler().fit_transform(PATIENTS).astype(np.float32)
RICH = {"batch_norm": True, "dropout": 0.2, "early_stopping": True, "regularizer": "l2", "max_norm": 2.0}


@pytest.fixture(autouse=True)
def cpu_has_it(monkeypatch):
    """Makes networks that are small enough for a test round all of their products, too."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    monkeypatch.setattr(rounded, "_PRODUCTS_THAT_PAY", 1)
    monkeypatch.setattr(rounded, "_ROWS_THAT_PAY", 1)


def make(dtype="bfloat16", cls=MLPDeepClassifier, **params):
    settings = {"hidden_layer_sizes": (32,), "batch_size": 32, "max_iter": 6, "n_iter_no_change": 6, "random_state": 0}
    return cls(**settings | params, device="cpu", dtype=dtype)


def weights(estimator):
    return np.concatenate([array.ravel() for array in estimator.coefs_ + estimator.intercepts_])


def assert_same(a, b):
    np.testing.assert_array_equal(weights(a), weights(b))
    assert a.loss_curve_ == b.loss_curve_


@pytest.mark.parametrize("params", [{}, RICH], ids=["plain", "rich"])
@pytest.mark.parametrize(
    ("cls", "X", "y"), [(MLPDeepClassifier, DIGITS, DIGIT), (MLPDeepRegressor, PATIENTS, PROGRESS)], ids=["classes", "numbers"]
)
def test_learns_what_float32_learns(cls, X, y, params):
    single, half = (make(dtype, cls, **params).fit(X, y) for dtype in ("float32", "bfloat16"))
    assert not np.array_equal(weights(half), weights(single))
    np.testing.assert_allclose(half.loss_curve_, single.loss_curve_, rtol=0.03)
    assert half.score(X, y) == pytest.approx(single.score(X, y), abs=0.02)


@pytest.mark.parametrize("given", [np.float32, np.float64, np.int64])
def test_everything_but_the_factors_is_float32(given):
    X = (16 * DIGITS).astype(given)
    clf = make(optimizer="sgd", learning_rate_init=1e-4).fit(X, DIGIT)
    assert {array.dtype for array in clf.coefs_ + clf.intercepts_} == {np.dtype(np.float32)}
    hidden = np.maximum(X.astype(np.float32) @ clf.coefs_[0] + clf.intercepts_[0], 0.0)
    expected = hidden @ clf.coefs_[1] + clf.intercepts_[1]
    assert clf.decision_function(X).dtype == np.float32
    np.testing.assert_allclose(clf.decision_function(X), expected, rtol=1e-4, atol=1e-4)


def test_the_same_to_the_last_bit_each_time():
    assert_same(make(**RICH).fit(DIGITS, DIGIT), make(**RICH).fit(DIGITS, DIGIT))


def test_partial_fits_are_the_epochs_of_a_fit():
    whole, parts = make().fit(DIGITS, DIGIT), make()
    for _ in range(6):
        parts.partial_fit(DIGITS, DIGIT, classes=np.arange(10))
    assert_same(parts, whole)


@pytest.mark.parametrize("before", ["float32", "float64"])
def test_a_stream_may_change_to_it_and_back(before):
    clf = make(before).partial_fit(DIGITS, DIGIT, classes=np.arange(10))
    restored = pickle.loads(pickle.dumps(clf))  # whose optimizer starts anew
    assert_same(*(each.set_params(dtype="bfloat16").partial_fit(DIGITS, DIGIT) for each in (clf, restored)))
    assert clf.coefs_[0].dtype == np.float32
    clf.set_params(dtype="float32").partial_fit(DIGITS, DIGIT)
    assert clf.loss_curve_ == sorted(clf.loss_curve_, reverse=True)
    assert clf.n_iter_ == 3


def test_warm_start_goes_on():
    clf = make(warm_start=True, max_iter=2, n_iter_no_change=2)
    losses = [clf.set_params(dtype=dtype).fit(DIGITS, DIGIT).loss_curve_[-1] for dtype in ("float64", "bfloat16", "auto")]
    assert losses == sorted(losses, reverse=True)
    assert len(clf.loss_curve_) == 6


def test_clones_and_pickles():
    clf = make().fit(DIGITS, DIGIT)
    assert clone(clf).dtype == "bfloat16"
    assert_same(clone(clf).fit(DIGITS, DIGIT), clf)
    restored = pickle.loads(pickle.dumps(clf))
    np.testing.assert_array_equal(restored.predict_proba(DIGITS), clf.predict_proba(DIGITS))
    assert_same(restored.set_params(warm_start=True).fit(DIGITS, DIGIT), clf.set_params(warm_start=True).fit(DIGITS, DIGIT))


class Settings(Callback):
    """Notes torch's global settings of products in training, and ends it with an error."""

    def __init__(self, error=None):
        self.error = error
        self.seen = []

    def on_batch_end(self, net, **kwargs):
        self.seen.append(settings())
        if self.error is not None:
            raise self.error


def settings():
    matmul = torch.backends.mkldnn.matmul
    return (
        matmul.fp32_precision,
        torch.get_float32_matmul_precision(),
        torch.is_autocast_enabled("cpu"),
        torch.get_default_dtype(),
    )


@pytest.mark.parametrize("error", [None, RuntimeError("stopped"), KeyboardInterrupt()], ids=repr)
def test_nothing_is_set_that_others_could_meet(error):
    before, callback = settings(), Settings(error)
    with contextlib.suppress(RuntimeError):  # an interrupt by a callback ends training, as skorch has it
        make(callbacks=[callback]).fit(DIGITS, DIGIT)
    assert {*callback.seen, settings()} == {before}


def test_callbacks_change_nothing():
    assert_same(make(callbacks=[Settings()]).fit(DIGITS, DIGIT), make().fit(DIGITS, DIGIT))


def test_fits_in_threads_do_not_meet():
    alone = {dtype: make(dtype).fit(DIGITS, DIGIT) for dtype in ("float32", "bfloat16")}
    together = [make(dtype) for dtype in ("float32", "bfloat16") * 2]
    start = threading.Barrier(len(together))

    def fit(estimator):
        start.wait(timeout=20)
        estimator.fit(DIGITS, DIGIT)

    threads = [threading.Thread(target=fit, args=(estimator,)) for estimator in together]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for estimator in together:
        assert_same(estimator, alone[estimator.dtype])


@pytest.mark.parametrize("fit", ["fit", "partial_fit"])
@pytest.mark.parametrize("cls", [MLPDeepClassifier, MLPDeepRegressor])
def test_a_cpu_without_it_refuses(cls, fit, monkeypatch):
    estimator = make("float32", cls).fit(DIGITS, DIGIT)
    before = weights(estimator)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False, "amx_bf16": False})
    with pytest.raises(InvalidParameterError, match=r"dtype='bfloat16' needs .*AMX.*'cpu'.* Use dtype='float32'"):
        getattr(estimator.set_params(dtype="bfloat16"), fit)(DIGITS, DIGIT)
    np.testing.assert_array_equal(weights(estimator), before)


def test_a_cpu_without_it_predicts(monkeypatch):
    clf = make().fit(DIGITS, DIGIT)
    expected = clf.predict_proba(DIGITS)
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(clf)).predict_proba(DIGITS), expected)
