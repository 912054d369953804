"""The learning-rate range test against fits that are made one by one."""

import warnings

import numpy as np
import pytest
import scipy.sparse
import torch
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.datasets import load_diabetes, load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_random_state

from skdnn import MLPDeepClassifier, MLPDeepRegressor
from skdnn.components import Exponential, TorchOptimizer
from skdnn.exceptions import InvalidParameterError
from skdnn.model_selection import learning_rate_range_test, suggest_learning_rate

RATES = [1e-4, 1e-2, 0.1, 1.0]


@pytest.fixture(scope="module")
def iris():
    X, y = load_iris(return_X_y=True)
    return StandardScaler().fit_transform(X), y


def separate_curves(estimator, X, y, rates, max_iter, **fit_params):
    """Loss curves of fits with the rates, one after the other."""
    curves = []
    for rate in rates:
        fit = clone(estimator).set_params(learning_rate_init=rate, max_iter=max_iter, n_iter_no_change=np.inf)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            curves.append(fit.fit(X, y, **fit_params).loss_curve_)
    return np.array(curves)


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"optimizer": "momentum", "batch_size": 16},
        {"optimizer": "nadam", "batch_norm": True, "regularizer": "l2"},
        {"dropout": 0.3, "max_norm": 1.0, "hidden_layer_sizes": (8, 6), "batch_size": 50},
        {"optimizer": "sgd", "gradient_clipping": 1.0, "class_weight": "balanced"},
        {"optimizer": TorchOptimizer(torch.optim.Adagrad)},
    ],
    ids=str,
)
def test_losses_are_those_of_separate_fits(iris, parameters):
    X, y = iris
    clf = MLPDeepClassifier(**{"hidden_layer_sizes": (7,), "batch_size": 32, "random_state": 3} | parameters)
    result = learning_rate_range_test(clf, X, y, learning_rates=RATES, max_iter=3)
    np.testing.assert_allclose(result.loss_curves, separate_curves(clf, X, y, RATES, 3), rtol=1e-9)
    np.testing.assert_array_equal(result.losses, result.loss_curves[:, -1])
    np.testing.assert_array_equal(result.learning_rates, RATES)


def test_weights_are_passed_on(iris):
    X, y = iris
    weight = np.random.default_rng(0).integers(0, 3, len(y))
    clf = MLPDeepClassifier((5,), batch_size=30, random_state=0)
    result = learning_rate_range_test(clf, X, y, learning_rates=RATES, max_iter=2, sample_weight=weight)
    np.testing.assert_allclose(result.loss_curves, separate_curves(clf, X, y, RATES, 2, sample_weight=weight), rtol=1e-9)


def test_regressor_and_sparse_rows():
    X, y = load_diabetes(return_X_y=True)
    reg = MLPDeepRegressor((5,), batch_size=64, random_state=0)
    expected = separate_curves(reg, X, y, RATES, 2)
    result = learning_rate_range_test(reg, scipy.sparse.csr_array(X), y, learning_rates=RATES, max_iter=2)
    np.testing.assert_allclose(result.loss_curves, expected, rtol=1e-9)


class CountingScaler(TransformerMixin, BaseEstimator):
    fits = 0

    def fit(self, X, y=None):
        type(self).fits += 1
        self.scale_ = np.abs(X).max()
        return self

    def transform(self, X):
        return X / self.scale_


def test_preprocessing_is_fitted_once_and_left_alone():
    X, y = load_iris(return_X_y=True)
    CountingScaler.fits = 0
    clf = MLPDeepClassifier((5,), batch_size=32, random_state=0)
    pipeline = Pipeline([("scaler", CountingScaler()), ("none", "passthrough"), ("mlp", clf)])
    result = learning_rate_range_test(pipeline, X, y, learning_rates=RATES, max_iter=2)
    assert CountingScaler.fits == 1
    assert not hasattr(pipeline["scaler"], "scale_")
    assert not hasattr(clf, "loss_")
    np.testing.assert_allclose(result.loss_curves, separate_curves(clf, X / X.max(), y, RATES, 2), rtol=1e-9)
    alone = learning_rate_range_test(make_pipeline(clf), X / X.max(), y, learning_rates=RATES, max_iter=2)
    np.testing.assert_array_equal(alone.losses, result.losses)


def test_a_rate_that_diverges_is_silent_and_costs_only_itself(iris):
    X, _ = iris
    reg = MLPDeepRegressor((5,), optimizer="sgd", activation="identity", batch_size=10, random_state=0)
    rates = [1e-3, 1e-2, 1e6, 1e8]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = learning_rate_range_test(reg, X, X[:, 0], learning_rates=rates, max_iter=3)
    assert np.isfinite(result.losses).tolist() == [True, True, False, False]
    assert np.isposinf(result.losses[2:]).all()
    np.testing.assert_allclose(result.loss_curves[:2], separate_curves(reg, X, X[:, 0], rates[:2], 3), rtol=1e-9)
    assert result.best_learning_rate <= 1e-2


def test_one_warning_where_all_diverge(iris):
    X, _ = iris
    reg = MLPDeepRegressor((5,), optimizer="sgd", activation="identity", batch_size=10, random_state=0)
    with pytest.warns(ConvergenceWarning, match="diverged at every learning rate from 1e\\+06 to 1e\\+08") as record:
        result = learning_rate_range_test(reg, X, X[:, 0], learning_rates=[1e6, 1e7, 1e8])
    assert len(record) == 1
    assert np.isnan(result.best_learning_rate)


def test_what_would_end_or_slow_training_is_left_aside(iris):
    X, y = iris
    clf = MLPDeepClassifier((5,), batch_size=32, random_state=0)
    busy = MLPDeepClassifier(
        (5,),
        batch_size=32,
        random_state=0,
        early_stopping=True,
        monitor="f1_macro",
        learning_rate=Exponential(),
        n_iter_no_change=1,
        tol=1e9,
        max_iter=1,
        verbose=2,
    )
    expected = learning_rate_range_test(clf, X, y, learning_rates=RATES, max_iter=4)
    result = learning_rate_range_test(busy, X, y, learning_rates=RATES, max_iter=4)
    np.testing.assert_array_equal(result.loss_curves, expected.loss_curves)
    assert busy.get_params()["early_stopping"] is True


def test_default_rates_and_epochs(iris):
    X, y = iris
    result = learning_rate_range_test(MLPDeepClassifier((5,), batch_size=25), X, y)
    np.testing.assert_allclose(result.learning_rates, 10.0 ** np.linspace(-5, 1, 25))
    assert result.loss_curves.shape == (25, 17)  # 6 batches an epoch, at least 100
    assert 1e-3 < result.best_learning_rate < 1.0
    assert learning_rate_range_test(MLPDeepClassifier((5,), batch_size=1), X, y, learning_rates=[0.1]).loss_curves.shape == (
        1,
        1,
    )


def test_rates_are_sorted_and_each_taken_once(iris):
    X, y = iris
    clf = MLPDeepClassifier((5,), random_state=0)
    first = learning_rate_range_test(clf, X, y, learning_rates=[1e-1, 1e-3, 1e-1], max_iter=2)
    second = learning_rate_range_test(clf, X, y, learning_rates=np.array([1e-3, 1e-1], dtype=np.float32), max_iter=2)
    assert first.learning_rates.tolist() == [1e-3, 1e-1]
    np.testing.assert_allclose(first.losses, second.losses, rtol=1e-6)


def test_more_rates_than_a_group_holds(iris, monkeypatch):
    from skdnn.training import memory

    X, y = iris
    clf = MLPDeepClassifier((5,), batch_size=50, random_state=0)
    rates = np.geomspace(1e-4, 1.0, 7)
    whole = learning_rate_range_test(clf, X, y, learning_rates=rates, max_iter=2)
    monkeypatch.setattr(memory, "MAX_GROUP", 3)
    parts = learning_rate_range_test(clf, X, y, learning_rates=rates, max_iter=2)
    np.testing.assert_allclose(parts.loss_curves, whole.loss_curves, rtol=1e-9)


@pytest.mark.parametrize("random_state", [None, np.random.RandomState(0)], ids=["None", "RandomState"])
def test_all_networks_start_alike_and_no_generator_is_moved(iris, random_state):
    X, y = iris
    clf = MLPDeepClassifier((5,), optimizer="sgd", random_state=random_state)
    states = [check_random_state(None).get_state()[1].copy(), np.random.RandomState(0).get_state()[1]]
    result = learning_rate_range_test(clf, X, y, learning_rates=[1e-12, 2e-12], max_iter=1)
    assert result.losses[0] == pytest.approx(result.losses[1], rel=1e-9)
    np.testing.assert_array_equal(check_random_state(None).get_state()[1], states[0])
    if random_state is not None:
        np.testing.assert_array_equal(random_state.get_state()[1], states[1])


@pytest.mark.parametrize("rates", [[], [0.0, 1.0], [-1.0], [np.inf], [np.nan], [[1.0]], "fast", 0.1, [None]], ids=str)
def test_wrong_rates_are_refused(iris, rates):
    with pytest.raises(InvalidParameterError, match="learning_rates must be a list of numbers in"):
        learning_rate_range_test(MLPDeepClassifier(), *iris, learning_rates=rates)


@pytest.mark.parametrize("max_iter", [0, -1, 1.5, True, "2"])
def test_wrong_epochs_are_refused(iris, max_iter):
    with pytest.raises(InvalidParameterError, match="max_iter must be None or an int in"):
        learning_rate_range_test(MLPDeepClassifier(), *iris, max_iter=max_iter)


@pytest.mark.parametrize("estimator", [StandardScaler(), make_pipeline(MLPDeepClassifier(), "passthrough"), None], ids=str)
def test_other_estimators_are_refused(iris, estimator):
    with pytest.raises(TypeError, match="MLPDeepClassifier or MLPDeepRegressor, or a Pipeline"):
        learning_rate_range_test(estimator, *iris)


def test_wrong_parameters_of_the_estimator_are_named(iris):
    with pytest.raises(ValueError, match="did you mean 'relu'"):
        learning_rate_range_test(MLPDeepClassifier(activation="relo"), *iris)
    with pytest.raises(ValueError, match="batch_size"):
        learning_rate_range_test(MLPDeepClassifier(batch_size=0), *iris)


RANGE = np.geomspace(1e-5, 10, 25)


def valley(rates, bottom=0.01, cliff=0.3):
    """A loss that falls up to a rate, rises slowly after it, and is lost beyond another."""
    losses = 2.3 / (1 + (rates / bottom) ** 1.5) + 0.1 * np.maximum(np.log10(rates / bottom), 0.0)
    return np.where(rates > cliff, np.inf, losses)


def test_suggestion_lies_in_the_valley():
    assert 0.01 < suggest_learning_rate(RANGE, valley(RANGE)) < 0.3


@pytest.mark.parametrize(("factor", "shift"), [(3.0, 0.0), (1.0, 7.0), (0.01, -5.0)])
def test_suggestion_does_not_depend_on_the_scale_of_losses(factor, shift):
    expected = suggest_learning_rate(RANGE, valley(RANGE))
    assert suggest_learning_rate(RANGE, factor * valley(RANGE) + shift) == pytest.approx(expected)


def test_suggestion_moves_with_the_rates():
    assert suggest_learning_rate(7.0 * RANGE, valley(RANGE)) == pytest.approx(7.0 * suggest_learning_rate(RANGE, valley(RANGE)))


def test_suggestion_is_robust_to_noise():
    rng = np.random.default_rng(0)
    clean = np.log10(suggest_learning_rate(RANGE, valley(RANGE)))
    suggested = [suggest_learning_rate(RANGE, valley(RANGE) + 0.03 * rng.normal(size=25)) for _ in range(200)]
    assert np.abs(np.log10(suggested) - clean).max() < 0.5


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([np.inf, np.nan, np.inf], np.nan),
        ([np.inf, 1.0, np.nan], 2.0),
        ([1.0, 2.0, 3.0], 1.0),
        ([3.0, 2.0, 1.0], 3.0),
        ([1.0, 1.0, 1.0], 1.0),
        ([3.0, 1.0, 1.0], 2.0),
    ],
    ids=str,
)
def test_suggestion_at_the_edges(losses, expected):
    np.testing.assert_equal(suggest_learning_rate(np.array([1.0, 2.0, 3.0]), np.array(losses)), expected)
