"""The tests of `MLPClassifier` and `MLPRegressor`, asked of `MLPDeepClassifier` and `MLPDeepRegressor`.

The model is scikit-learn's ``sklearn/neural_network/tests/test_mlp.py`` (version 1.9). A test that has its counterpart there
has its name, its data and its settings, translated as a user would who comes from there:

==================================================  ======================================================================
scikit-learn                                        here
==================================================  ======================================================================
``alpha=a``                                         ``regularizer=L2(a / batch_size)``; where the default 1e-4 plays no part,
                                                    it is left out
``solver="sgd"``                                    ``optimizer="nesterov"``; "momentum" with ``nesterovs_momentum=False``,
                                                    "sgd" with ``momentum=0``
``solver="lbfgs"``                                  none; where a test only wants a good fit, "adam" at a higher rate
``learning_rate="invscaling", power_t=p``           ``learning_rate=InvScaling(p)``
``_optimizer.learning_rate``                        ``history_[:, "learning_rate"]``
``verbose=True``, ``verbose=10``                    ``verbose=2``; ``verbose=1`` is a progress bar
==================================================  ======================================================================

A random state is set everywhere, for a test must not fail by chance. Which of scikit-learn's tests go by another name here,
which are answered differently, and which do not apply, say the three tables at the foot of this file, with reasons.
"""

import ast
import importlib.util
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris, make_classification, make_multilabel_classification, make_regression
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import PoissonRegressor
from sklearn.metrics import roc_auc_score
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.preprocessing import MinMaxScaler, scale

from skdnn import MLPDeepClassifier, MLPDeepRegressor
from skdnn.components import L2, Adam, InvScaling

ACTIVATION_TYPES = ["identity", "logistic", "tanh", "relu"]
ESTIMATORS = [MLPDeepClassifier, MLPDeepRegressor]

X_digits_multi, y_digits_multi = (array[:200] for array in load_digits(n_class=3, return_X_y=True))
X_digits_multi = MinMaxScaler().fit_transform(X_digits_multi)
X_digits, y_digits = load_digits(n_class=2, return_X_y=True)
X_digits_binary, y_digits_binary = MinMaxScaler().fit_transform(X_digits[:200]), y_digits[:200]
X_reg, y_reg = make_regression(n_samples=200, n_features=10, bias=20.0, noise=100.0, random_state=7)
y_reg = scale(y_reg)
X_iris, y_iris = load_iris(return_X_y=True)
X_labels, y_labels = make_multilabel_classification(n_samples=50, random_state=0, return_indicator=True)

classification_datasets = pytest.mark.parametrize(
    ("X", "y"), [(X_digits_multi, y_digits_multi), (X_digits_binary, y_digits_binary)], ids=["multiclass", "binary"]
)
both_estimators = pytest.mark.parametrize("Estimator", ESTIMATORS)
all_activations = pytest.mark.parametrize("activation", ACTIVATION_TYPES)
few_epochs = pytest.mark.filterwarnings("ignore:Training reached max_iter:sklearn.exceptions.ConvergenceWarning")


def set_weights(model, coefs, intercepts):
    """Write kernels and biases into a fitted network."""
    linears = [module for module in model.module_ if isinstance(module, torch.nn.Linear)]
    with torch.no_grad():
        for linear, coef, intercept in zip(linears, coefs, intercepts, strict=True):
            linear.weight.copy_(torch.as_tensor(coef).T)
            linear.bias.copy_(torch.as_tensor(intercept))
    return model


def get_weights(model):
    return [array.copy() for array in model.coefs_], [array.copy() for array in model.intercepts_]


def epochs_without_progress(loss_curve, tol):
    """How many epochs at the end have not brought `tol`, as scikit-learn counts them."""
    count, best = 0, np.inf
    for loss in loss_curve:
        count = count + 1 if loss > best - tol else 0
        best = min(best, loss)
    return count


def learning_rates(model):
    return model.history_[:, "learning_rate"]


# what is computed ---------------------------------------------------------------------------------------------------------


def test_fit():
    # scikit-learn's example, worked out by hand: an update by plain gradient descent with alpha=0.1, of a network of 3, 2 and
    # 1 units with logistic activation.
    X, y = np.array([[0.6, 0.8, 0.7]]), np.array([0])
    mlp = MLPDeepClassifier(2, "logistic", optimizer="sgd", learning_rate_init=0.1, regularizer=L2(0.1 / len(X)))
    mlp.partial_fit(X, y, classes=[0, 1])
    coefs = [np.array([[0.1, 0.2], [0.3, 0.1], [0.5, 0.0]]), np.array([[0.1], [0.2]])]
    set_weights(mlp, coefs, [np.array([0.1, 0.1]), np.array([1.0])]).partial_fit(X, y)
    np.testing.assert_allclose(mlp.coefs_[0], [[0.098, 0.195756], [0.2956664, 0.096008], [0.4939998, -0.002244]], atol=1e-3)
    np.testing.assert_allclose(mlp.coefs_[1], [[0.04706], [0.154089]], atol=1e-3)
    np.testing.assert_allclose(mlp.intercepts_[0], [0.098333, 0.09626], atol=1e-3)
    np.testing.assert_allclose(mlp.intercepts_[1], [0.9235], atol=1e-3)
    assert mlp.predict_proba(X)[0, 1] == pytest.approx(0.739, abs=1e-3)


@all_activations
@pytest.mark.parametrize("n_labels", [2, 3])
def test_gradient(activation, n_labels):
    # An update by plain gradient descent at the rate 1 takes away the gradient; predictions alone say what it must be.
    n_samples, n_features, strength = 5, 10, 0.1
    X = np.random.RandomState(seed=42).rand(n_samples, n_features)
    y = 1 + np.mod(np.arange(n_samples) + 1, n_labels)
    mlp = MLPDeepClassifier(10, activation, optimizer="sgd", learning_rate_init=1.0, regularizer=L2(strength), random_state=1)
    mlp.partial_fit(X, y, classes=np.unique(y))
    coefs, intercepts = get_weights(mlp)
    mlp.partial_fit(X, y)
    after = mlp.coefs_ + mlp.intercepts_
    gradient = [before - now for before, now in zip(coefs + intercepts, after, strict=True)]

    def loss():
        log_proba = set_weights(mlp, coefs, intercepts).predict_log_proba(X)[np.arange(n_samples), y - 1]
        return -log_proba.mean() + strength / 2 * sum((coef**2).sum() for coef in coefs)

    epsilon = 1e-5
    for array, expected in zip(coefs + intercepts, gradient, strict=True):
        for i in np.ndindex((*array.shape[:-1], min(array.shape[-1], 3))):  # the other units are no different
            value = array[i]
            array[i] = value + epsilon
            above = loss()
            array[i] = value - epsilon
            below = loss()
            array[i] = value
            assert (above - below) / (2 * epsilon) == pytest.approx(expected[i], abs=1e-7)


# An optimizer, and scikit-learn's settings for it. Adam's epsilon is added before or after the correction of the bias: all but
# without it both are the same.
SOLVERS = {
    "sgd": ("sgd", {"solver": "sgd", "momentum": 0.0}),
    "momentum": ("momentum", {"solver": "sgd", "nesterovs_momentum": False}),
    "nesterov": ("nesterov", {"solver": "sgd"}),
    "adam": (Adam(epsilon=1e-14), {"solver": "adam", "epsilon": 1e-14}),
}

# Rows that count differently; scikit-learn divides alpha by their sum, so it is set to their number.
WEIGHTS = np.random.RandomState(0).uniform(0.5, 1.5, 200)
WEIGHTS /= WEIGHTS.mean()

TASKS = {
    "multiclass": (MLPDeepClassifier(), MLPClassifier(), X_digits_multi, y_digits_multi),
    "binary": (MLPDeepClassifier(), MLPClassifier(), X_digits_binary, y_digits_binary),
    "regression": (MLPDeepRegressor(standardize_target=False), MLPRegressor(), X_reg, y_reg),
}


@pytest.mark.parametrize(("optimizer", "solver"), SOLVERS.values(), ids=SOLVERS)
@pytest.mark.parametrize(
    ("alpha", "weighing"),
    [(20.0, {}), (0.0, {"sample_weight": WEIGHTS}), (20.0, {"sample_weight": WEIGHTS})],
    ids=["alpha", "weighted", "alpha-weighted"],
)
@pytest.mark.parametrize(("mine", "theirs", "X", "y"), TASKS.values(), ids=TASKS)
def test_translated_settings_train_the_same_network(mine, theirs, X, y, alpha, weighing, optimizer, solver):
    common = {"hidden_layer_sizes": (7, 5), "activation": "tanh", "batch_size": len(X), "warm_start": True, "random_state": 0}
    mine = clone(mine).set_params(regularizer=L2(alpha / len(X)), optimizer=optimizer, **common)
    theirs = clone(theirs).set_params(alpha=alpha, **solver, **common)
    unmoved = {"max_iter": 1, "learning_rate_init": 1e-300}
    training = {"max_iter": 10, "learning_rate_init": 0.02}
    mine.set_params(n_iter_no_change=1, **unmoved).fit(X, y)
    with pytest.warns(ConvergenceWarning, match="Maximum iterations"):
        theirs.set_params(**unmoved).fit(X, y)
    set_weights(mine, theirs.coefs_, theirs.intercepts_)
    mine.set_params(n_iter_no_change=10, **training).fit(X, y, **weighing)
    with pytest.warns(ConvergenceWarning, match="Maximum iterations"):
        theirs.set_params(**training).fit(X, y, **weighing)
    for my_array, their_array in zip(mine.coefs_ + mine.intercepts_, theirs.coefs_ + theirs.intercepts_, strict=True):
        np.testing.assert_allclose(my_array, their_array, rtol=1e-5, atol=1e-6)
    if not alpha:  # the penalty in a loss is here that of the epoch's end, there that before each update
        np.testing.assert_allclose(mine.loss_curve_[1:], theirs.loss_curve_[1:], rtol=1e-5)


@few_epochs
def test_alpha():
    # Larger alpha yields weights closer to zero.
    X, y = X_digits_binary[:100], y_digits_binary[:100]

    def size_of_weights(alpha):
        mlp = MLPDeepClassifier(10, regularizer=L2(alpha / len(X)), random_state=1).fit(X, y)
        return np.array([np.abs(coef).sum() for coef in mlp.coefs_])

    assert (size_of_weights(0.0) > size_of_weights(1.0)).all()


@pytest.mark.parametrize("seed", [0, 1, 42])
def test_mlp_vs_poisson_glm_equivalent(seed):
    # An MLP with Poisson loss and no hidden layer is the generalised linear model.
    rng = np.random.default_rng(seed)
    X = np.linspace(0, 1, 100)
    y = rng.poisson(np.exp(X + 1))
    X = X.reshape(-1, 1)
    glm = PoissonRegressor(alpha=0, tol=1e-7).fit(X, y)
    params = {"hidden_layer_sizes": (), "optimizer": "nesterov", "learning_rate_init": 0.05, "random_state": seed}
    params |= {"max_iter": 300, "n_iter_no_change": 300}
    mlp = MLPDeepRegressor(loss="poisson", **params).fit(X, y)
    np.testing.assert_allclose(mlp.predict(X), glm.predict(X), rtol=1e-4)
    # The squared error knows no exponential.
    mlp = MLPDeepRegressor(loss="squared_error", **params).fit(X, y)
    assert not np.allclose(mlp.predict(X), glm.predict(X), rtol=1e-4)


# what is learned ----------------------------------------------------------------------------------------------------------


@few_epochs
@classification_datasets
@all_activations
def test_classification(X, y, activation):
    X_train, y_train, X_test = X[:150], y[:150], X[150:]
    mlp = MLPDeepClassifier(50, activation, learning_rate_init=0.01, max_iter=150, random_state=1).fit(X_train, y_train)
    y_predict = mlp.predict(X_test)
    assert mlp.score(X_train, y_train) > 0.95
    assert (y_predict.shape[0], y_predict.dtype.kind) == (X_test.shape[0], y_train.dtype.kind)


@few_epochs
@all_activations
def test_regression(activation):
    mlp = MLPDeepRegressor(50, activation, learning_rate_init=0.1, max_iter=400, tol=1e-5, random_state=1).fit(X_reg, y_reg)
    # Units that are not linear do much better than a linear bottleneck.
    assert mlp.score(X_reg, y_reg) > (0.80 if activation == "identity" else 0.98)


@few_epochs
def test_multilabel_classification():
    params = {"hidden_layer_sizes": 50, "activation": "logistic", "regularizer": L2(1e-5 / 50), "random_state": 0}
    mlp = MLPDeepClassifier(learning_rate_init=0.05, max_iter=150, **params).fit(X_labels, y_labels)
    assert mlp.score(X_labels, y_labels) > 0.97

    mlp = MLPDeepClassifier(optimizer="nesterov", learning_rate_init=0.2, **params)
    for _ in range(100):
        mlp.partial_fit(X_labels, y_labels, classes=[0, 1, 2, 3, 4])
    assert mlp.score(X_labels, y_labels) > 0.9

    # A split for early stopping cannot be stratified here.
    mlp = MLPDeepClassifier(early_stopping=True, random_state=0).fit(X_labels, y_labels)
    assert mlp.predict(X_labels).shape == y_labels.shape


@few_epochs
def test_multioutput_regression():
    X, y = make_regression(n_samples=200, n_targets=5, random_state=11)
    mlp = MLPDeepRegressor(50, learning_rate_init=0.01, random_state=1).fit(X, y)
    assert mlp.predict(X).shape == y.shape
    assert mlp.score(X, y) > 0.9


@few_epochs
def test_shuffle():
    X, y = make_regression(n_samples=50, n_features=5, n_targets=1, random_state=0)

    def kernel(shuffle):
        return MLPDeepRegressor(1, max_iter=1, batch_size=1, random_state=0, shuffle=shuffle).fit(X, y).coefs_[0]

    for shuffle in (True, False):
        np.testing.assert_array_equal(kernel(shuffle), kernel(shuffle))
    assert not np.array_equal(kernel(True), kernel(False))


# probabilities ------------------------------------------------------------------------------------------------------------


def check_probabilities(clf, X, n_classes):
    y_proba, y_log_proba = clf.predict_proba(X), clf.predict_log_proba(X)
    assert y_proba.shape == y_log_proba.shape == (len(X), n_classes)
    np.testing.assert_array_equal(y_proba.argmax(axis=1), y_log_proba.argmax(axis=1))
    np.testing.assert_allclose(y_log_proba, np.log(y_proba), atol=1e-12)  # beside 1 a probability has no more digits
    return y_proba


@few_epochs
def test_predict_proba_binary():
    X, y = X_digits_binary[:50], y_digits_binary[:50]
    y_proba = check_probabilities(MLPDeepClassifier(5, "logistic", random_state=1).fit(X, y), X, 2)
    assert roc_auc_score(y, y_proba[:, 1]) == 1.0


@few_epochs
def test_predict_proba_multiclass():
    X, y = X_digits_multi[:10], y_digits_multi[:10]
    y_proba = check_probabilities(MLPDeepClassifier(5, random_state=0).fit(X, y), X, np.unique(y).size)
    np.testing.assert_allclose(y_proba.sum(axis=1), 1.0)


@few_epochs
def test_predict_proba_multilabel():
    # No softmax over labels, which would make probabilities sum to 1.
    clf = MLPDeepClassifier(30, learning_rate_init=0.02, random_state=0).fit(X_labels, y_labels)
    y_proba = check_probabilities(clf, X_labels, y_labels.shape[1])
    np.testing.assert_array_equal(y_proba > 0.5, y_labels)
    assert ((y_proba.sum(axis=1) - 1) ** 2).sum() > 1e-10


# partial_fit --------------------------------------------------------------------------------------------------------------


def test_partial_fit_classes_error():
    clf = MLPDeepClassifier(optimizer="nesterov", random_state=0).partial_fit([[3, 2]], [0], classes=[0, 1])
    with pytest.raises(ValueError, match=r"classes=\[1, 2\] are not those of the previous call"):
        clf.partial_fit([[3, 2]], [0], classes=[1, 2])


@few_epochs
@classification_datasets
def test_partial_fit_classification(X, y):
    params = {"optimizer": "nesterov", "random_state": 1, "regularizer": L2(1e-5 / 200), "learning_rate_init": 0.2}
    whole = MLPDeepClassifier(max_iter=100, tol=0.0, **params).fit(X, y)
    parts = MLPDeepClassifier(**params)
    for _ in range(100):
        parts.partial_fit(X, y, classes=np.unique(y))
    np.testing.assert_array_equal(parts.predict(X), whole.predict(X))
    assert parts.score(X, y) > 0.95


def test_partial_fit_unseen_classes():
    # scikit-learn's issue 6994: labels that come later.
    clf = MLPDeepClassifier(random_state=0)
    clf.partial_fit([[1], [2], [3]], ["a", "b", "c"], classes=["a", "b", "c", "d"])
    clf.partial_fit([[4]], ["d"])
    assert clf.classes_.tolist() == ["a", "b", "c", "d"]
    assert clf.score([[1], [2], [3], [4]], ["a", "b", "c", "d"]) > 0


@few_epochs
@pytest.mark.parametrize("optimizer", ["sgd", "nesterov"])
def test_partial_fit_regression(optimizer):
    params = {"optimizer": optimizer, "random_state": 1, "learning_rate_init": 0.01, "batch_size": len(X_reg)}
    # scikit-learn's run of 100 epochs does not stall; this one may, by another start, so it is told not to stop.
    whole = MLPDeepRegressor(max_iter=100, n_iter_no_change=100, **params).fit(X_reg, y_reg)
    parts = MLPDeepRegressor(**params)
    for _ in range(100):
        parts.partial_fit(X_reg, y_reg)
    np.testing.assert_allclose(parts.predict(X_reg), whole.predict(X_reg))
    assert parts.score(X_reg, y_reg) > 0.65


def test_partial_fit_errors():
    X, y = [[3, 2], [1, 6]], [1, 0]
    with pytest.raises(ValueError, match="classes must be given on the first call"):
        MLPDeepClassifier().partial_fit(X, y)
    with pytest.raises(ValueError, match=r"y has the classes \[0, 1\]"):
        MLPDeepClassifier().partial_fit(X, y, classes=[2, 3])
    with pytest.raises(ValueError, match=r"given as classes, \[2\]"):
        MLPDeepClassifier().partial_fit(X, y, classes=[2])


@few_epochs
@both_estimators
def test_mlp_partial_fit_after_fit(Estimator):
    # scikit-learn refuses partial_fit with early_stopping=True; here it is an epoch over all rows.
    mlp = Estimator(early_stopping=True, random_state=0).fit(X_iris, y_iris)
    n_rows, n_epochs = mlp.t_, len(mlp.loss_curve_)
    mlp.partial_fit(X_iris, y_iris)
    assert (mlp.t_ - n_rows, len(mlp.loss_curve_) - n_epochs) == (len(X_iris), 1)


@few_epochs
def test_mlp_loading_from_joblib_partial_fit(tmp_path):
    # scikit-learn's issue 19626: training must go on with the weights that were loaded.
    mlp = MLPDeepRegressor((42,), random_state=42, learning_rate_init=0.01, max_iter=200).fit([[2]], [4])
    joblib.dump(mlp, tmp_path / "mlp.pkl")
    loaded = joblib.load(tmp_path / "mlp.pkl")
    np.testing.assert_array_equal(loaded.predict([[2]]), mlp.predict([[2]]))
    for _ in range(200):
        loaded.partial_fit([[2]], [1])
    np.testing.assert_allclose(loaded.predict([[2]]), [1], rtol=1e-4)


# warm start ---------------------------------------------------------------------------------------------------------------


@few_epochs
@pytest.mark.parametrize("learning_rate", ["constant", InvScaling(0.25)], ids=str)
def test_learning_rate_warmstart(learning_rate):
    # As with scikit-learn the clock of the schedule goes on in a stream. With warm_start=True it starts anew.
    X, y = [[3, 2], [1, 6], [5, 6], [-2, -4]], [1, 1, 1, 0]
    params = {"hidden_layer_sizes": 4, "optimizer": "nesterov", "learning_rate": learning_rate, "random_state": 0}
    stream = MLPDeepClassifier(**params)
    for _ in range(3):
        stream.partial_fit(X, y, classes=[0, 1])
    later = 1 if learning_rate == "constant" else np.array([1, 4 + 1, 8 + 1]) ** 0.25
    np.testing.assert_allclose(learning_rates(stream), stream.learning_rate_init / later * np.ones(3))
    warm = MLPDeepClassifier(max_iter=1, warm_start=True, **params).fit(X, y).fit(X, y)
    assert learning_rates(warm) == [warm.learning_rate_init] * 2


@few_epochs
def test_warm_start():
    params = {"hidden_layer_sizes": 2, "warm_start": True, "random_state": 42, "tol": 1e-2}
    fewer_classes = np.repeat([0, 1], 75)
    same_classes = np.repeat([0, 1, 2], [40, 40, 70])
    other_classes = [np.repeat([0, 1, 3], 50), np.repeat([0, 1, 2, 3], [37, 37, 38, 38]), np.repeat([0, 1, 2, 3, 4], 30)]

    clf = MLPDeepClassifier(**params).fit(X_iris, y_iris)
    clf.fit(X_iris, y_iris)
    clf.fit(X_iris, same_classes)
    clf.fit(X_iris, fewer_classes)  # which scikit-learn refuses; here a sample may lack a class
    assert clf.classes_.tolist() == [0, 1, 2]

    for y in other_classes:
        clf = MLPDeepClassifier(**params).fit(X_iris, y_iris)
        message = rf"classes of the previous fit.*\[0, 1, 2\].*y has the classes \[{', '.join(map(str, np.unique(y)))}\]"
        with pytest.raises(ValueError, match=message):
            clf.fit(X_iris, y)


@few_epochs
@both_estimators
def test_warm_start_full_iteration(Estimator):
    # scikit-learn's issue 16812
    mlp = Estimator(2, optimizer="nesterov", warm_start=True, max_iter=3, random_state=0)
    for _ in range(2):
        assert mlp.fit(X_iris, y_iris).n_iter_ == 3


@few_epochs
@both_estimators
def test_mlp_warm_start_with_early_stopping(Estimator):
    mlp = Estimator(max_iter=10, random_state=0, warm_start=True, early_stopping=True).fit(X_iris, y_iris)
    n_validation_scores = len(mlp.validation_scores_)
    mlp.set_params(max_iter=20).fit(X_iris, y_iris)
    assert len(mlp.validation_scores_) > n_validation_scores


@both_estimators
@pytest.mark.parametrize("optimizer", ["nesterov", "adam"])
def test_mlp_warm_start_no_convergence(Estimator, optimizer):
    # scikit-learn's issue 24764
    model = Estimator(optimizer=optimizer, warm_start=True, random_state=0)
    for max_iter in (10, 20):
        # One epoch of patience less than would make the number of epochs fixed.
        model.set_params(max_iter=max_iter, n_iter_no_change=max_iter - 1)
        with pytest.warns(ConvergenceWarning, match=f"max_iter={max_iter} epochs"):
            model.fit(X_iris, y_iris)
        assert model.n_iter_ == max_iter
        # Who asks for all epochs need not be warned that there was no reason to stop before.
        assert model.set_params(n_iter_no_change=np.inf).fit(X_iris, y_iris).n_iter_ == max_iter


# when training stops ------------------------------------------------------------------------------------------------------


def test_tolerance():
    clf = MLPDeepClassifier(tol=0.5, max_iter=3000, optimizer="nesterov", random_state=0).fit([[3, 2], [1, 6]], [1, 0])
    assert clf.max_iter > clf.n_iter_


@both_estimators
def test_early_stopping(Estimator):
    X, y, tol = X_digits_binary[:100], y_digits_binary[:100], 0.2
    mlp = Estimator(tol=tol, max_iter=3000, optimizer="nesterov", early_stopping=True, random_state=0).fit(X, y)
    assert mlp.max_iter > mlp.n_iter_
    assert mlp.best_loss_ is None
    assert isinstance(mlp.validation_scores_, list)
    assert max(mlp.validation_scores_) == mlp.best_validation_score_
    assert mlp.best_validation_score_ + tol > mlp.validation_scores_[-2]
    assert mlp.best_validation_score_ + tol > mlp.validation_scores_[-1]

    mlp.set_params(early_stopping=False).fit(X, y)
    assert mlp.validation_scores_ is None
    assert mlp.best_validation_score_ is None
    assert mlp.best_loss_ == min(mlp.loss_curve_)


def test_adaptive_learning_rate():
    X, y = [[3, 2], [1, 6]], [1, 0]
    clf = MLPDeepClassifier(tol=0.5, max_iter=3000, optimizer="nesterov", learning_rate="adaptive", random_state=0).fit(X, y)
    assert clf.max_iter > clf.n_iter_
    assert learning_rates(clf)[-1] < 1e-6


@pytest.mark.parametrize("n_iter_no_change", [2, 5, 10, 50, 100])
def test_n_iter_no_change(n_iter_no_change):
    params = {"tol": 0.01, "max_iter": 3000, "optimizer": "nesterov", "n_iter_no_change": n_iter_no_change}
    clf = MLPDeepClassifier(random_state=0, **params).fit(X_digits_binary[:100], y_digits_binary[:100])
    assert epochs_without_progress(clf.loss_curve_, clf.tol) == n_iter_no_change + 1
    assert clf.max_iter > clf.n_iter_


def test_n_iter_no_change_inf():
    params = {"tol": 1e9, "max_iter": 1000, "optimizer": "nesterov", "n_iter_no_change": np.inf}  # no epoch brings that
    clf = MLPDeepClassifier(random_state=0, **params).fit(X_digits_binary[:100], y_digits_binary[:100])
    assert clf.n_iter_ == clf.max_iter
    assert epochs_without_progress(clf.loss_curve_, clf.tol) == clf.n_iter_ - 1


def test_early_stopping_stratified():
    X, y = [[1, 2], [2, 3], [3, 4], [4, 5]], [0, 0, 0, 1]
    with pytest.raises(ValueError, match=r"The least populated classes in y have only 1 member.*\[1\]"):
        MLPDeepClassifier(early_stopping=True).fit(X, y)


@few_epochs
def test_mlp_early_stopping_string_labels():
    # scikit-learn's issue 33760
    X, y = make_classification(n_samples=200, n_features=10, n_classes=3, n_informative=5, random_state=42)
    y = np.array(["class_a", "class_b", "class_c"], dtype=object)[y]
    mlp = MLPDeepClassifier(early_stopping=True, max_iter=50, random_state=42).fit(X, y)
    assert len(mlp.validation_scores_) == mlp.n_iter_
    assert np.isfinite(mlp.validation_scores_).all()
    assert set(mlp.predict(X)) <= set(y)


def test_minimum_input_sample_size():
    # A score of one row means nothing.
    X, y = make_regression(n_samples=2, n_features=5, random_state=0)
    with pytest.raises(ValueError, match="validation"):
        MLPDeepRegressor(early_stopping=True, random_state=0).fit(X, y)


# numbers that overflow ----------------------------------------------------------------------------------------------------


def test_nonfinite_params():
    # scikit-learn raises at the end of the fit. Here it warns, keeps finite weights, and predictions are refused.
    rng = np.random.RandomState(0)
    X = np.finfo(np.float64).max * rng.uniform(size=(10, 2))
    y = rng.standard_normal(size=10)
    reg = MLPDeepRegressor(random_state=0)
    with pytest.warns(ConvergenceWarning, match="Training diverged in epoch 1.*scale the features"):
        reg.fit(X, y)
    assert all(np.isfinite(array).all() for array in reg.coefs_ + reg.intercepts_)
    with pytest.raises(ValueError, match="outputs are not finite"):
        reg.predict(X)


def test_mlp_diverging_loss():
    # scikit-learn's issue 29504: a divergence is no error with early stopping, and its score is the float nan.
    mlp = MLPDeepRegressor(
        100, "identity", optimizer="nesterov", learning_rate_init=1, max_iter=20, early_stopping=True, random_state=0
    )
    with pytest.warns(ConvergenceWarning, match="Training diverged.*weights are those of epoch"):
        mlp.fit(X_iris, y_iris)
    assert all(np.isfinite(array).all() for array in mlp.coefs_ + mlp.intercepts_)
    assert len(mlp.validation_scores_) == mlp.n_iter_ == len(mlp.loss_curve_)
    assert isinstance(mlp.validation_scores_[-1], float)
    assert np.isnan(mlp.validation_scores_[-1])


# input: layouts, dtypes, names, weights -----------------------------------------------------------------------------------

SPARSE_CONTAINERS = [scipy.sparse.csr_array, scipy.sparse.csc_matrix]
SPARSE_DATASETS = {
    "binary": (MLPDeepClassifier, X_digits_binary[:50], y_digits_binary[:50]),
    "multiclass": (MLPDeepClassifier, X_digits_multi[:50], y_digits_multi[:50]),
    "multilabel": (MLPDeepClassifier, X_labels, y_labels),
    "regression": (MLPDeepRegressor, X_digits_multi[:50], y_digits_multi[:50] + 0.5),
}


@few_epochs
@pytest.mark.parametrize("container", SPARSE_CONTAINERS)
@pytest.mark.parametrize(("Estimator", "X", "y"), SPARSE_DATASETS.values(), ids=SPARSE_DATASETS)
def test_sparse_matrices(container, Estimator, X, y):
    # Sparse and dense input have the same result.
    outputs = Estimator.predict if Estimator is MLPDeepRegressor else Estimator.predict_proba
    params = {"hidden_layer_sizes": 15, "learning_rate_init": 0.01, "max_iter": 20, "batch_size": 20, "random_state": 1}
    dense = Estimator(**params).fit(X, y)
    sparse = Estimator(**params).fit(container(X), y)
    for rows in (X, container(X)):  # either is served, whichever was trained on
        np.testing.assert_allclose(outputs(sparse, rows), outputs(dense, X), rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(outputs(dense, rows), outputs(dense, X), rtol=1e-6, atol=1e-9)
        assert sparse.score(rows, y) == pytest.approx(dense.score(X, y))


@both_estimators
@pytest.mark.parametrize("container", SPARSE_CONTAINERS)
def test_partial_fit_of_sparse_matrices(Estimator, container):
    params = {"hidden_layer_sizes": 15, "learning_rate_init": 0.01, "batch_size": 20, "random_state": 1}
    classes = {"classes": [0, 1, 2]} if Estimator is MLPDeepClassifier else {}
    dense, sparse = Estimator(**params), Estimator(**params)
    for rows in np.array_split(np.arange(200), 4):
        dense.partial_fit(X_digits_multi[rows], y_digits_multi[rows], **classes)
        sparse.partial_fit(container(X_digits_multi[rows]), y_digits_multi[rows], **classes)
    for mine, theirs in zip(sparse.coefs_, dense.coefs_, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-6, atol=1e-9)


@few_epochs
@pytest.mark.parametrize("container", [np.asarray, scipy.sparse.csr_array], ids=["dense", "sparse"])
def test_early_stopping_of_sparse_and_dense_rows(container):
    params = {"hidden_layer_sizes": 15, "early_stopping": True, "max_iter": 20, "random_state": 1}
    expected = MLPDeepClassifier(**params).fit(X_digits_multi, y_digits_multi)
    clf = MLPDeepClassifier(**params).fit(container(X_digits_multi), y_digits_multi)
    np.testing.assert_allclose(clf.validation_scores_, expected.validation_scores_)
    np.testing.assert_allclose(clf.loss_curve_, expected.loss_curve_, rtol=1e-6)


@few_epochs
def test_mlp_classifier_dtypes_casting():
    params = {"hidden_layer_sizes": (5, 3), "regularizer": L2(1e-5 / 200), "random_state": 1, "max_iter": 100, "tol": 1e-1}
    mlp_64 = MLPDeepClassifier(**params).fit(X_digits[:300], y_digits[:300])
    mlp_32 = MLPDeepClassifier(**params).fit(X_digits[:300].astype(np.float32), y_digits[:300])
    rows = X_digits[300:]
    np.testing.assert_array_equal(mlp_64.predict(rows), mlp_32.predict(rows.astype(np.float32)))
    np.testing.assert_allclose(mlp_64.predict_proba(rows), mlp_32.predict_proba(rows.astype(np.float32)), rtol=1e-2)


@few_epochs
def test_mlp_regressor_dtypes_casting():
    params = {"hidden_layer_sizes": (5, 3), "regularizer": L2(1e-5 / 200), "random_state": 1, "max_iter": 150, "tol": 1e-3}
    mlp_64 = MLPDeepRegressor(**params).fit(X_digits[:300], y_digits[:300])
    mlp_32 = MLPDeepRegressor(**params).fit(X_digits[:300].astype(np.float32), y_digits[:300])
    rows = X_digits[300:]
    np.testing.assert_allclose(mlp_64.predict(rows), mlp_32.predict(rows.astype(np.float32)), rtol=5e-4, atol=1e-5)


@few_epochs
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@both_estimators
def test_mlp_param_dtypes(dtype, Estimator):
    # Parameters and predictions have the dtype of the input.
    X = X_digits.astype(dtype)
    mlp = Estimator((5, 3), random_state=1, max_iter=50, tol=1e-1, device="cpu").fit(X[:300], y_digits[:300])
    assert all(array.dtype == dtype for array in mlp.coefs_ + mlp.intercepts_)
    outputs = mlp.predict(X[300:]) if Estimator is MLPDeepRegressor else mlp.predict_proba(X[300:])
    assert outputs.dtype == dtype


@few_epochs
@both_estimators
def test_preserve_feature_names(Estimator):
    # scikit-learn's issue 24846: names that get lost on the way to validation are warned of, and warnings are errors here.
    X = pd.DataFrame(data=np.random.RandomState(0).randn(10, 2), columns=["colname_a", "colname_b"])
    y = pd.Series(data=np.arange(10) % 2, name="colname_y")
    model = Estimator(early_stopping=True, validation_fraction=0.2, random_state=0).fit(X, y)
    assert model.feature_names_in_.tolist() == ["colname_a", "colname_b"]
    model.predict(X)


@few_epochs
@both_estimators
def test_mlp_sample_weight_with_early_stopping(Estimator):
    X, y = make_regression(n_samples=100, n_features=2, n_informative=2, random_state=42)
    y = y > 0 if Estimator is MLPDeepClassifier else y
    params = {"early_stopping": True, "tol": 1e-2, "learning_rate_init": 0.01, "batch_size": 10, "random_state": 42}
    weighted = Estimator(10, **params).fit(X, y, sample_weight=np.ones(100))
    plain = Estimator(10, **params).fit(X, y, sample_weight=None)
    np.testing.assert_allclose(weighted.loss_curve_, plain.loss_curve_)
    np.testing.assert_allclose(weighted.validation_scores_, plain.validation_scores_)
    np.testing.assert_allclose(weighted.predict(X), plain.predict(X))


@both_estimators
def test_partial_fit_with_sample_weight(Estimator):
    params = {"hidden_layer_sizes": 15, "optimizer": "nesterov", "random_state": 1}
    classes = {"classes": [0, 1, 2]} if Estimator is MLPDeepClassifier else {}
    unit, plain, uneven = (Estimator(**params) for _ in range(3))
    for _ in range(3):
        plain.partial_fit(X_iris, y_iris, **classes)
        unit.partial_fit(X_iris, y_iris, **classes, sample_weight=np.ones(150))
        uneven.partial_fit(X_iris, y_iris, **classes, sample_weight=np.repeat([0.1, 1.0, 1.9], 50))
    np.testing.assert_allclose(unit.coefs_[0], plain.coefs_[0])
    assert not np.allclose(uneven.coefs_[0], plain.coefs_[0])


# what is printed ----------------------------------------------------------------------------------------------------------


def fit_twice(Estimator, **params):
    """Two epochs of a fit, and one of a stream."""
    model = Estimator(2, optimizer="nesterov", max_iter=2, n_iter_no_change=2, random_state=0, **params)
    model.fit([[3, 2], [1, 6]], [1, 0]).partial_fit([[3, 2], [1, 6]], [1, 0])


@both_estimators
@pytest.mark.parametrize("verbose", [2, 10])
def test_verbose_sgd(Estimator, verbose, capsys):
    fit_twice(Estimator, verbose=verbose)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert all("loss = " in line for line in lines)
    assert [line.split(":")[0] for line in lines] == ["Epoch 1", "Epoch 2", "Epoch 3"]


@both_estimators
@pytest.mark.parametrize("verbose", [1, True])
def test_a_progress_bar_is_shown_on_the_error_stream(Estimator, verbose, capsys):
    fit_twice(Estimator, verbose=verbose)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "2/2" in printed.err


@both_estimators
@pytest.mark.parametrize("verbose", [0, False])
def test_nothing_is_printed_unasked(Estimator, verbose, capsys):
    fit_twice(Estimator, verbose=verbose)
    assert capsys.readouterr() == ("", "")


# scikit-learn's tests that are not above under their own names ------------------------------------------------------------

# By another name, for the solver is not the subject.
RENAMED = {
    "test_lbfgs_classification": "test_classification",
    "test_lbfgs_regression": "test_regression",
}

# Under their own names, but with another answer than scikit-learn's, and what it is.
ANSWERED_DIFFERENTLY = {
    "test_learning_rate_warmstart": "warm_start=True starts the schedule anew; only partial_fit goes on with it",
    "test_mlp_diverging_loss": "training stops at the divergence, with a ConvergenceWarning and the weights of the best epoch",
    "test_mlp_partial_fit_after_fit": "partial_fit takes early_stopping=True, and trains on all rows",
    "test_mlp_warm_start_no_convergence": "n_iter_no_change >= max_iter asks for all epochs, which is no reason to warn",
    "test_n_iter_no_change_inf": "no ConvergenceWarning, for the same reason",
    "test_nonfinite_params": "a ConvergenceWarning and finite weights, and a ValueError from predict, not from fit",
    "test_preserve_feature_names": "y has two classes, for the classifier refuses targets of one class",
    "test_verbose_sgd": "a line begins with 'Epoch', and takes verbose=2: verbose=1 is a progress bar",
    "test_warm_start": "y may lack classes of the previous fit, but not bring new ones",
}

NOT_APPLICABLE = {
    "test_lbfgs_classification_maxfun": "max_fun bounds the evaluations of solver='lbfgs', which has no counterpart",
    "test_lbfgs_regression_maxfun": "max_fun bounds the evaluations of solver='lbfgs', which has no counterpart",
}


def test_every_test_of_scikit_learn_is_accounted_for():
    package = importlib.util.find_spec("sklearn.neural_network")
    path = Path(package.submodule_search_locations[0]) / "tests" / "test_mlp.py"
    if not path.exists():
        pytest.skip("scikit-learn's tests are not installed")
    theirs = {
        node.name
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }
    mine = {name for name, value in globals().items() if name.startswith("test_") and callable(value)}
    assert set(RENAMED.values()) <= mine
    assert set(ANSWERED_DIFFERENTLY) <= mine & theirs
    elsewhere = set(RENAMED) | set(NOT_APPLICABLE)
    assert not set(RENAMED) & set(NOT_APPLICABLE)
    assert not elsewhere & mine
    assert theirs == (mine & theirs) | elsewhere  # an entry that scikit-learn has not, or no more, is wrong, too
