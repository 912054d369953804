"""What a user sees of `MLPDeepClassifier`: it learns with every technique, and its fitted attributes fit together."""

import copy
import inspect
import io
import pickle

import cloudpickle
import joblib
import numpy as np
import pytest
import torch
from naming import name_of
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_digits, load_iris, make_classification
from sklearn.ensemble import BaggingClassifier, VotingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score, train_test_split
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNet
from skorch.callbacks import Callback
from skorch.history import History

from skdnn import MLPDeepClassifier
from skdnn.components import (
    ACTIVATIONS,
    CLIPPINGS,
    ELU,
    INITIALIZERS,
    L1,
    L1L2,
    L2,
    OPTIMIZERS,
    REGULARIZERS,
    SCHEDULES,
    Adam,
    BatchNorm,
    ClipValue,
    Exponential,
    Glorot,
    He,
    LeakyReLU,
    MaxNorm,
    Momentum,
    Nesterov,
    PiecewiseConstant,
    TorchOptimizer,
    WarmUp,
)

X, Y = load_iris(return_X_y=True)
X = StandardScaler().fit_transform(X)
X2, Y2 = make_classification(200, 8, n_informative=4, random_state=0)
PROBLEMS = {"multiclass": (X, Y), "binary": (X2, Y2)}


def make(**params):
    common = {"hidden_layer_sizes": (16,), "max_iter": 5, "batch_size": 32, "random_state": 0}
    params = common | params
    return MLPDeepClassifier(**{"n_iter_no_change": params["max_iter"]} | params)


def state(clf):
    """All that a fit learns for predictions: kernels, biases, batch norm's parameters and running statistics."""
    return {name: tensor.numpy().copy() for name, tensor in clf.module_.state_dict().items()}


def assert_same_state(a, b):
    a, b = state(a), state(b)
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


# every technique learns ---------------------------------------------------------------------------------------------------

# Rates that suit a rule on these data; the others take Adam's.
RATES = {"sgd": 0.1, "momentum": 0.05, "nesterov": 0.05, "adagrad": 0.1}

BY_NAME = (
    [{"activation": name} for name in ACTIVATIONS]
    + [{"initializer": name} for name in ["auto", *INITIALIZERS]]
    + [{"optimizer": name, "learning_rate_init": RATES.get(name, 0.02)} for name in OPTIMIZERS]
    + [{"regularizer": name} for name in REGULARIZERS]
    + [{"gradient_clipping": name} for name in CLIPPINGS]
    # The rate of "invscaling" falls with the rows seen, to a hundredth within these epochs.
    + [{"learning_rate": name, "learning_rate_init": 0.2 if name == "invscaling" else 0.02} for name in SCHEDULES]
)

OBJECTS = [
    {"activation": ELU(alpha=0.5)},
    {"activation": torch.nn.Hardswish},
    {"activation": torch.nn.functional.hardtanh},
    {"activation": [LeakyReLU(0.2), "tanh"], "hidden_layer_sizes": (16, 8)},
    {"initializer": [Glorot(gain="auto"), "zeros"]},
    {"initializer": torch.nn.init.xavier_uniform_},
    {"batch_norm": True},
    {"batch_norm": BatchNorm(momentum=0.5, output=True)},
    {"dropout": 0.2, "input_dropout": 0.1},
    {"dropout": [0.3, 0.0], "hidden_layer_sizes": (16, 8)},
    {"regularizer": [L1(1e-3), L1L2(), L2(1e-2)], "hidden_layer_sizes": (16, 8)},
    {"max_norm": [2.0, None, MaxNorm(1.0, axis="outgoing")], "hidden_layer_sizes": (16, 8)},
    {"optimizer": torch.optim.RAdam},
    {"optimizer": TorchOptimizer(torch.optim.SGD, momentum=0.9, nesterov=True)},
    {"learning_rate": WarmUp(Exponential(0.1, 100, per="update"), 10, per="update")},
    {"gradient_clipping": 0.5},
    {"gradient_clipping": ClipValue(0.1)},
    {"hidden_layer_sizes": ()},
    {"hidden_layer_sizes": 16},
    {"batch_size": 1, "max_iter": 5, "learning_rate_init": 0.002},
    {"shuffle": False, "batch_size": 150},
    {"early_stopping": True},
]


@pytest.mark.parametrize("params", BY_NAME + OBJECTS, ids=lambda params: name_of("-".join(map(str, params.values()))))
def test_learns(params):
    clf = make(**{"max_iter": 25, "learning_rate_init": 0.02} | params).fit(X, Y)
    assert clf.score(X, Y) > 0.85
    assert clf.loss_curve_[-1] < 0.8 * clf.loss_curve_[0]


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
def test_default_settings_learn(problem):
    clf = MLPDeepClassifier(random_state=0, n_iter_no_change=200).fit(*problem)
    assert clf.score(*problem) > 0.85


def test_a_deep_network_learns_digits():
    rows, labels = load_digits(return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(rows, labels, stratify=labels, random_state=0)
    clf = MLPDeepClassifier(
        (50,) * 4,
        activation="elu",
        batch_norm=True,
        max_norm=2.0,
        optimizer="momentum",
        learning_rate_init=0.05,
        learning_rate="exponential",
        max_iter=12,
        batch_size=50,
        early_stopping=True,
        n_iter_no_change=12,
        random_state=42,
    )
    assert make_pipeline(StandardScaler(), clf).fit(X_train, y_train).score(X_test, y_test) > 0.94


def test_max_norm_holds_in_the_hidden_layers():
    clf = make(max_norm=0.5, hidden_layer_sizes=(16, 8), learning_rate_init=0.1).fit(X, Y)
    *hidden, output = (np.linalg.norm(kernel, axis=0) for kernel in clf.coefs_)
    assert max(norms.max() for norms in hidden) <= 0.5 + 1e-12
    assert output.max() > 0.5  # one value speaks of the hidden layers


def test_l1_makes_small_weights():
    plain, lasso = (make(regularizer=regularizer, max_iter=25).fit(X, Y) for regularizer in (None, L1(0.05)))
    assert np.abs(lasso.coefs_[0]).sum() < 0.9 * np.abs(plain.coefs_[0]).sum()
    assert lasso.loss_ == pytest.approx(lasso.history_[-1]["base_loss"] + lasso.history_[-1]["penalty"])
    assert lasso.history_[-1]["penalty"] == pytest.approx(0.05 * sum(np.abs(kernel).sum() for kernel in lasso.coefs_))


# agreement with scikit-learn ----------------------------------------------------------------------------------------------


def start_from(clf, mlp):
    """Put the weights of a fitted `MLPClassifier` into a fitted classifier, which goes on from them."""
    linears = [module for module in clf.module_ if isinstance(module, torch.nn.Linear)]
    with torch.no_grad():
        for linear, kernel, bias in zip(linears, mlp.coefs_, mlp.intercepts_, strict=True):
            linear.weight.copy_(torch.from_numpy(kernel.T))
            linear.bias.copy_(torch.from_numpy(bias))
    return clf.set_params(warm_start=True)


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "nesterov"])
def test_same_training_as_scikit_learn(problem, activation, optimizer):
    common = {"hidden_layer_sizes": (7, 5), "activation": activation, "shuffle": False, "batch_size": 30, "random_state": 0}
    unmoved = {"max_iter": 1, "learning_rate_init": 1e-300, "n_iter_no_change": 1}
    training = {"max_iter": 10, "learning_rate_init": 0.02, "n_iter_no_change": 10, "tol": 0.0}
    momentum = {"momentum": 0.0 if optimizer == "sgd" else 0.9, "nesterovs_momentum": optimizer == "nesterov"}
    mlp = MLPClassifier(solver="sgd", alpha=0.0, **common, **momentum)
    with pytest.warns(UserWarning, match="Maximum iterations"):
        mlp.set_params(**unmoved).fit(*problem)
    clf = MLPDeepClassifier(optimizer=optimizer, **common).set_params(**unmoved).fit(*problem)
    start_from(clf, mlp)
    np.testing.assert_allclose(clf.predict_proba(problem[0]), mlp.predict_proba(problem[0]), rtol=1e-10)

    with pytest.warns(UserWarning, match="Maximum iterations"):
        mlp.set_params(**training).fit(*problem)
    clf.set_params(**training).fit(*problem)
    np.testing.assert_allclose(clf.loss_curve_[1:], mlp.loss_curve_, rtol=1e-8)
    for mine, theirs in zip(clf.coefs_ + clf.intercepts_, mlp.coefs_ + mlp.intercepts_, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-8, atol=1e-8)
    for name in ("n_layers_", "n_outputs_", "out_activation_", "n_features_in_", "n_iter_"):
        assert getattr(clf, name) == getattr(mlp, name), name


def test_parameters_shared_with_scikit_learn_have_its_defaults():
    mine, theirs = (inspect.signature(cls).parameters for cls in (MLPDeepClassifier, MLPClassifier))
    shared = set(mine) & set(theirs)
    assert len(shared) >= 14
    for name in shared:
        assert mine[name].default == theirs[name].default, name


# parameters as objects ----------------------------------------------------------------------------------------------------

RICH = {
    "hidden_layer_sizes": [8, 4],
    "activation": ["relu", LeakyReLU(0.1)],
    "initializer": He("uniform"),
    "batch_norm": BatchNorm(momentum=0.8),
    "dropout": [0.1, 0.2],
    "input_dropout": 0.05,
    "regularizer": L1L2(1e-4, 1e-3),
    "max_norm": MaxNorm(2.0),
    "optimizer": Nesterov(0.8),
    "learning_rate": PiecewiseConstant([2], [1.0, 0.1]),
    "gradient_clipping": ClipValue(0.5),
}


def test_clone_keeps_every_setting():
    clf = make(**RICH, device="cpu", dtype="float32", verbose=0, warm_start=False)
    copied = clone(clf)
    assert copied.get_params(deep=False) == clf.get_params(deep=False)
    assert copied.get_params()["optimizer__momentum"] == 0.8
    assert copied.optimizer is not clf.optimizer
    assert_same_state(copied.fit(X, Y), clf.fit(X, Y))


def test_fit_changes_no_parameter():
    clf = make(**RICH)
    before = {name: (value, repr(value)) for name, value in clf.get_params().items()}
    clf.fit(X, Y).predict(X)
    after = clf.get_params()
    for name, (value, text) in before.items():
        assert after[name] is value or after[name] == value
        assert repr(after[name]) == text


def test_fit_leaves_a_module_that_is_a_parameter_as_it_was():
    activation = torch.nn.Hardtanh()
    clf = make(activation=activation, hidden_layer_sizes=(4, 4)).fit(X, Y)
    clf.predict(X)
    assert activation.training  # module_ is in evaluation mode
    assert not clf.module_.training
    assert not activation._forward_hooks


def test_parameters_of_techniques_are_set_from_outside():
    clf = make(optimizer=Momentum(0.9), learning_rate=WarmUp(Exponential()))
    clf.set_params(optimizer__momentum=0.5, learning_rate__schedule__decay_rate=0.3)
    assert clf.optimizer == Momentum(0.5)
    assert clf.learning_rate == WarmUp(Exponential(0.3))
    assert_same_state(clf.fit(X, Y), make(optimizer=Momentum(0.5), learning_rate=WarmUp(Exponential(0.3))).fit(X, Y))
    with pytest.raises(ValueError, match="Invalid parameter 'momentun'"):
        clf.set_params(optimizer__momentun=0.5)


def test_a_name_stands_for_the_object_with_its_defaults():
    by_name = make(activation="elu", optimizer="momentum", regularizer="l1", max_norm="max_norm", initializer="he_normal")
    by_object = make(activation=ELU(), optimizer=Momentum(), regularizer=L1(), max_norm=1.0, initializer=He())
    assert_same_state(by_name.fit(X, Y), by_object.fit(X, Y))


def test_settings_reach_the_network():
    clf = make(**RICH).fit(X, Y)
    kinds = [type(module).__name__ for module in clf.module_]
    hidden = ["Linear", "BatchNorm1d", "ReLU", "Dropout", "Linear", "BatchNorm1d", "LeakyReLU", "Dropout"]
    assert kinds == ["Dropout", *hidden, "Linear"]
    assert [module.p for module in clf.module_ if isinstance(module, torch.nn.Dropout)] == [0.05, 0.1, 0.2]
    assert clf.module_[2].momentum == pytest.approx(0.2)  # torch's convention is one minus ours
    assert clf.history_[:, "learning_rate"] == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4, 1e-4])


def test_a_grid_reaches_into_techniques():
    pipeline = make_pipeline(StandardScaler(), make(optimizer=Momentum()))
    grid = [
        {"mlpdeepclassifier__activation": ["relu", LeakyReLU(0.15)], "mlpdeepclassifier__max_norm": [None, 1.0]},
        {
            "mlpdeepclassifier__optimizer": [Momentum(), Nesterov()],
            "mlpdeepclassifier__optimizer__momentum": [0.5, 0.9],
            "mlpdeepclassifier__learning_rate_init": [0.05],
        },
    ]
    search = GridSearchCV(pipeline, grid, cv=2).fit(X, Y)
    assert len(search.cv_results_["params"]) == 8
    assert search.cv_results_["mean_test_score"].max() > 0.8
    best = search.best_estimator_[-1]
    for name, value in search.best_params_.items():
        assert best.get_params()[name.removeprefix("mlpdeepclassifier__")] == value
    # Candidates that differ in a nested parameter alone are trained apart: it is not set on an object that they share.
    assert len({tuple(row) for row in zip(*(search.cv_results_[f"split{i}_test_score"] for i in range(2)), strict=True)}) > 3


# fitted attributes --------------------------------------------------------------------------------------------------------

FITTED = {
    "classes_": np.ndarray,
    "loss_": float,
    "best_loss_": float,
    "loss_curve_": list,
    "validation_scores_": type(None),
    "best_validation_score_": type(None),
    "best_epoch_": int,
    "n_iter_": int,
    "t_": int,
    "n_layers_": int,
    "n_outputs_": int,
    "out_activation_": str,
    "coefs_": list,
    "intercepts_": list,
    "history_": History,
    "module_": torch.nn.Sequential,
    "n_features_in_": int,
}
FITTED_EARLY = FITTED | {"best_loss_": type(None), "validation_scores_": list, "best_validation_score_": float}


@pytest.mark.parametrize(("early_stopping", "types"), [(False, FITTED), (True, FITTED_EARLY)])
def test_fitted_attributes_have_their_types(early_stopping, types):
    clf = make(early_stopping=early_stopping).fit(X, Y)
    assert {name: type(getattr(clf, name)) for name in types} == types
    assert isinstance(clf.net_, NeuralNet)
    assert {type(value) for value in clf.loss_curve_ + (clf.validation_scores_ or [])} == {float}


@pytest.mark.parametrize(("problem", "n_outputs", "out_activation"), [("multiclass", 3, "softmax"), ("binary", 1, "logistic")])
def test_fitted_attributes_fit_together(problem, n_outputs, out_activation):
    rows, labels = PROBLEMS[problem]
    clf = make(hidden_layer_sizes=(6, 4)).fit(rows, labels)
    n_features = rows.shape[1]
    np.testing.assert_array_equal(clf.classes_, np.unique(labels))
    assert [kernel.shape for kernel in clf.coefs_] == [(n_features, 6), (6, 4), (4, n_outputs)]
    assert [bias.shape for bias in clf.intercepts_] == [(6,), (4,), (n_outputs,)]
    assert (clf.n_layers_, clf.n_outputs_, clf.out_activation_) == (4, n_outputs, out_activation)
    assert clf.n_features_in_ == n_features
    assert clf.n_iter_ == len(clf.loss_curve_) == len(clf.history_) == 5
    assert clf.t_ == 5 * len(rows)
    assert clf.loss_ == clf.loss_curve_[-1]
    assert clf.best_loss_ == min(clf.loss_curve_)
    assert clf.best_epoch_ == 1 + int(np.argmin(clf.loss_curve_))
    assert clf.net_.module_ is clf.module_
    assert clf.net_.history is clf.history_


def test_the_loss_is_the_cross_entropy():
    clf = make(learning_rate_init=1e-300).fit(X, Y)  # the weights do not move between the batches
    expected = -clf.predict_log_proba(X)[np.arange(len(X)), Y].mean()
    assert clf.loss_curve_ == pytest.approx([expected] * 5)


def test_n_iter_no_change_stops_as_in_scikit_learn():
    # One epoch makes progress, then `n_iter_no_change` epochs without any are borne.
    clf = make(tol=1e10, n_iter_no_change=3, max_iter=50).fit(X, Y)
    assert clf.n_iter_ == 5


# predictions --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_predictions_agree_with_each_other(problem, dtype):
    rows, labels = problem[0].astype(dtype), problem[1]
    clf = make(max_iter=20).fit(rows, labels)
    decision, probabilities = clf.decision_function(rows), clf.predict_proba(rows)
    n_classes = len(clf.classes_)
    assert decision.shape == ((len(rows),) if n_classes == 2 else (len(rows), n_classes))
    assert probabilities.shape == (len(rows), n_classes)
    np.testing.assert_allclose(probabilities.sum(1), 1.0, rtol=1e-6)
    tolerance = 1e-5 if dtype is np.float32 else 1e-10
    np.testing.assert_allclose(np.exp(clf.predict_log_proba(rows)), probabilities, rtol=tolerance)
    chosen = (decision > 0).astype(int) if n_classes == 2 else decision.argmax(1)
    np.testing.assert_array_equal(clf.predict(rows), clf.classes_[chosen])
    np.testing.assert_array_equal(clf.predict(rows), clf.classes_[probabilities.argmax(1)])
    odds = decision if n_classes == 2 else decision[:, 1] - decision[:, 0]  # of class 1 against class 0
    np.testing.assert_allclose(odds, np.log(probabilities[:, 1] / probabilities[:, 0]), rtol=1e-3, atol=1e-4)
    assert clf.score(rows, labels) == np.mean(clf.predict(rows) == labels)


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
def test_log_probabilities_are_exact_where_probabilities_are_zero(problem):
    rows, labels = problem
    clf = make(max_iter=20).fit(rows, labels)
    log_probabilities = clf.predict_log_proba(rows * 1e4)
    assert np.isfinite(log_probabilities).all()
    assert log_probabilities.min() < -800  # the exponential of which is 0


def test_predictions_use_running_statistics_and_no_dropout():
    clf = make(batch_norm=True, dropout=0.5, input_dropout=0.5).fit(X, Y)
    before = state(clf)
    np.testing.assert_array_equal(clf.predict_proba(X), clf.predict_proba(X))
    np.testing.assert_allclose(clf.predict_proba(X[:1]), clf.predict_proba(X)[:1], rtol=1e-10)
    after = state(clf)
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_predictions_in_threads_do_not_disturb_each_other():
    clf = make(batch_norm=True, activation=torch.nn.functional.hardtanh).fit(X, Y)
    parts = [X[i : i + 50] for i in range(0, 100, 5)]
    with joblib.parallel_backend("threading"):
        together = joblib.Parallel(n_jobs=4)(joblib.delayed(clf.predict_proba)(rows) for rows in parts)
    for rows, predicted in zip(parts, together, strict=True):
        np.testing.assert_array_equal(predicted, clf.predict_proba(rows))


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
@pytest.mark.parametrize("params", [{}, {"batch_norm": BatchNorm(output=True), "dropout": 0.3, "activation": [torch.sin]}])
def test_module_is_the_same_network(problem, params):
    rows, labels = problem
    clf = make(**params).fit(rows, labels)
    with torch.no_grad():
        outputs = clf.module_(torch.from_numpy(rows)).numpy()
    np.testing.assert_allclose(outputs.squeeze(), clf.decision_function(rows), rtol=1e-10, atol=1e-12)
    assert not clf.module_.training
    assert len(list(clf.module_.parameters())) == len(clf.coefs_) * 2 + (4 if params else 0)


def test_module_and_coefs_share_the_memory_of_the_estimator():
    clf = make().fit(X, Y)
    with torch.no_grad():
        clf.module_[-1].bias[0] = 1e3
    assert clf.intercepts_[-1][0] == 1e3
    assert set(clf.predict(X)) == {clf.classes_[0]}
    clf.coefs_[-1][:] = 0.0
    clf.intercepts_[-1][:] = [0.0, 5.0, 0.0]
    assert set(clf.predict(X)) == {clf.classes_[1]}
    np.testing.assert_allclose(clf.predict_proba(X[:1]), torch.softmax(torch.tensor([[0.0, 5.0, 0.0]]), 1), rtol=1e-6)


def test_module_can_be_trained_by_torch():
    clf = make().fit(X, Y)
    optimizer = torch.optim.Adam(clf.module_.parameters(), lr=0.02)
    for _ in range(50):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(clf.module_(torch.from_numpy(X)), torch.from_numpy(Y)).backward()
        optimizer.step()
    assert clf.score(X, Y) > 0.9


# early stopping -----------------------------------------------------------------------------------------------------------


class Split(Callback):
    """Keeps the rows that training and validation use."""

    def on_epoch_begin(self, net, dataset_train=None, dataset_valid=None, **kwargs):
        self.training, self.validation = dataset_train.indices, dataset_valid.indices


# A rate that is too high: the score goes up and down, so that the last epoch is not the best.
RESTLESS = {"early_stopping": True, "validation_fraction": 0.3, "learning_rate_init": 0.3, "batch_norm": True, "batch_size": 8}


def restless(**params):
    return make(**RESTLESS | {"max_iter": 12} | params)


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
def test_early_stopping_ends_with_the_best_epoch(problem):
    rows, labels = problem
    split = Split()
    clf = restless(callbacks=[split]).fit(rows, labels)
    scores = clf.validation_scores_
    assert clf.best_epoch_ == 1 + int(np.argmax(scores)) < clf.n_iter_
    assert scores[-1] < max(scores) == clf.best_validation_score_
    # The very rows that were set aside get the very score, and the running statistics are those of that epoch too.
    assert clf.score(rows[split.validation], labels[split.validation]) == clf.best_validation_score_
    assert_same_state(clf, restless(max_iter=clf.best_epoch_).fit(rows, labels))
    assert len(scores) == clf.n_iter_ == len(clf.loss_curve_)


def test_validation_rows_are_a_stratified_share_of_the_rows():
    labels = np.repeat(["a", "b", "c"], [100, 40, 10])
    split = Split()
    make(early_stopping=True, validation_fraction=0.2, callbacks=[split]).fit(X, labels)
    assert sorted([*split.training, *split.validation]) == list(range(150))
    assert np.unique(labels[split.validation], return_counts=True)[1].tolist() == [20, 8, 2]
    again, other = Split(), Split()
    make(early_stopping=True, validation_fraction=0.2, callbacks=[again]).fit(X, labels)
    make(early_stopping=True, validation_fraction=0.2, callbacks=[other], random_state=1).fit(X, labels)
    np.testing.assert_array_equal(again.validation, split.validation)
    assert set(other.validation) != set(split.validation)


def test_early_stopping_stops_early():
    clf = make(early_stopping=True, max_iter=200, n_iter_no_change=3, learning_rate_init=0.02).fit(X, Y)
    assert clf.n_iter_ < 200
    best = np.maximum.accumulate(clf.validation_scores_)
    assert best[-1] - best[-5] < clf.tol  # four epochs without progress: one more than are borne


def test_early_stopping_trains_on_the_other_rows_only():
    poisoned = X.copy()
    split = Split()
    make(early_stopping=True, callbacks=[split]).fit(X, Y)
    poisoned[split.validation] += 100.0
    # All epochs' weights in turn: the score on spoiled rows may choose another epoch.
    for max_iter in (1, 2):
        clean, spoiled = (make(early_stopping=True, max_iter=max_iter).fit(rows, Y) for rows in (X, poisoned))
        assert clean.loss_curve_ == spoiled.loss_curve_


# fit again ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("params", [{}, {"batch_norm": True, "dropout": 0.2}, {"early_stopping": True}])
def test_fit_twice_is_fit_once(params):
    once, twice = make(**params).fit(X, Y), make(**params).fit(X, Y).fit(X, Y)
    assert_same_state(twice, once)
    assert (twice.n_iter_, twice.t_, twice.loss_curve_) == (once.n_iter_, once.t_, once.loss_curve_)
    assert len(twice.history_) == len(once.history_)


def test_fit_on_other_data_forgets_the_first():
    clf = make(early_stopping=True).fit(X, Y).set_params(early_stopping=False, hidden_layer_sizes=(4, 3))
    clf.fit(X2.astype(np.float32), Y2.astype(str))
    fresh = make(hidden_layer_sizes=(4, 3)).fit(X2.astype(np.float32), Y2.astype(str))
    assert_same_state(clf, fresh)
    assert clf.classes_.tolist() == ["0", "1"]
    assert clf.n_features_in_ == 8
    for name in ("validation_scores_", "best_validation_score_", "loss_curve_", "n_outputs_", "t_", "out_activation_"):
        assert getattr(clf, name) == getattr(fresh, name)


def test_a_fit_does_not_reach_back_into_an_earlier_one():
    clf = make(warm_start=True).fit(X, Y)
    coefs, history, module = clf.coefs_, clf.history_, clf.module_
    kept = [kernel.copy() for kernel in coefs]
    clf.set_params(warm_start=False).fit(X, Y[::-1])
    assert clf.history_ is not history
    assert clf.module_ is not module
    for kernel, before in zip(coefs, kept, strict=True):
        np.testing.assert_array_equal(kernel, before)


# warm start ---------------------------------------------------------------------------------------------------------------


def test_warm_start_goes_on():
    clf = make(warm_start=True, max_iter=3).fit(X, Y)
    first = state(clf)
    losses = clf.loss_curve_
    clf.fit(X, Y)
    assert clf.loss_curve_[:3] == losses
    assert clf.loss_curve_[3] < losses[-1]
    assert any(not np.array_equal(first[name], after) for name, after in state(clf).items())
    assert len(clf.loss_curve_) == len(clf.history_) == 6
    assert clf.history_[:, "epoch"] == [1, 2, 3, 4, 5, 6]
    assert clf.n_iter_ == 3  # of the last call, as in scikit-learn
    assert clf.t_ == 6 * len(X)


def test_warm_start_without_momentum_and_shuffling_equals_one_long_fit():
    common = {"optimizer": "sgd", "shuffle": False, "learning_rate_init": 0.05, "batch_norm": True}
    clf = make(warm_start=True, max_iter=3, **common).fit(X, Y).fit(X, Y)
    long = make(max_iter=6, **common).fit(X, Y)
    assert_same_state(clf, long)
    assert clf.loss_curve_ == long.loss_curve_


def test_warm_start_sees_the_rows_in_another_order():
    class Orders(Callback):
        def __init__(self):
            self.seen = []

        def on_batch_begin(self, net, batch=None, **kwargs):
            self.seen.append(np.asarray(batch[0])[:, 0].copy())

    orders = Orders()
    rows = X + np.arange(len(X))[:, None] * 1e-9  # each row is known by its first number
    clf = make(warm_start=True, max_iter=2, batch_size=150, callbacks=[orders]).fit(rows, Y)
    clf.fit(rows, Y)
    assert len(orders.seen) == 4
    assert len({tuple(order) for order in orders.seen}) == 4


def test_warm_start_with_early_stopping_keeps_the_split():
    splits = []
    clf = make(warm_start=True, early_stopping=True)
    for _ in range(2):
        clf.set_params(callbacks=[Split()]).fit(X, Y)
        splits.append(clf.callbacks[0].validation)
    np.testing.assert_array_equal(*splits)  # otherwise rows that were trained on would be scored
    assert len(clf.validation_scores_) == 10
    assert clf.best_epoch_ > 5
    assert clf.validation_scores_[clf.best_epoch_ - 1] == clf.best_validation_score_


def test_warm_start_refuses_other_classes():
    clf = make(warm_start=True).fit(X, Y)
    expected = clf.predict_proba(X)
    with pytest.raises(ValueError, match=r"classes of the previous fit.*\[0, 1, 2\].*\[0, 1, 7\]"):
        clf.fit(X, np.where(Y == 2, 7, Y))
    np.testing.assert_array_equal(clf.predict_proba(X), expected)
    clf.fit(X[Y < 2], Y[Y < 2])  # a part of the classes is no other class
    assert clf.classes_.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "changed", [{"hidden_layer_sizes": (8,)}, {"hidden_layer_sizes": (16, 16)}, {"batch_norm": True}], ids=str
)
def test_warm_start_refuses_another_architecture(changed):
    clf = make(warm_start=True).fit(X, Y)
    expected = clf.predict_proba(X)
    with pytest.raises(ValueError, match="warm_start=True goes on with the fitted network"):
        clf.set_params(**changed).fit(X, Y)
    np.testing.assert_array_equal(clf.predict_proba(X), expected)


def test_warm_start_refuses_other_features():
    clf = make(warm_start=True).fit(X, Y)
    with pytest.raises(ValueError, match="X has 3 features, but MLPDeepClassifier is expecting 4"):
        clf.fit(X[:, :3], Y)


@pytest.mark.parametrize(
    "changed", [{"optimizer": "sgd"}, {"dropout": 0.2}, {"activation": "tanh"}, {"max_norm": 0.1}], ids=str
)
def test_warm_start_takes_other_settings(changed):
    clf = make(warm_start=True).fit(X, Y).set_params(**changed).fit(X, Y)
    assert len(clf.loss_curve_) == 10
    if "max_norm" in changed:
        assert np.linalg.norm(clf.coefs_[0], axis=0).max() <= 0.1 + 1e-12


@pytest.mark.parametrize("dtypes", [(np.float32, np.float64), (np.float64, np.float32)])
def test_warm_start_goes_on_in_the_dtype_of_the_new_rows(dtypes):
    clf = make(warm_start=True)
    for dtype in dtypes:
        clf.fit(X.astype(dtype), Y)
        assert clf.coefs_[0].dtype == dtype
    assert clf.loss_curve_[5] < clf.loss_curve_[0]


def test_warm_start_of_a_fresh_estimator_is_a_fit():
    assert_same_state(make(warm_start=True).fit(X, Y), make().fit(X, Y))


# copies and files ---------------------------------------------------------------------------------------------------------


def joblib_round_trip(clf, folder, mmap_mode=None):
    joblib.dump(clf, folder / "clf.joblib")
    return joblib.load(folder / "clf.joblib", mmap_mode=mmap_mode)


ROUND_TRIPS = {
    "pickle": lambda clf, _: pickle.loads(pickle.dumps(clf)),
    "pickle_2": lambda clf, _: pickle.loads(pickle.dumps(clf, protocol=2)),
    "cloudpickle": lambda clf, _: pickle.loads(cloudpickle.dumps(clf)),
    "deepcopy": lambda clf, _: copy.deepcopy(clf),
    "joblib": joblib_round_trip,
    "joblib_mmap": lambda clf, folder: joblib_round_trip(clf, folder, "r"),
}


@pytest.mark.parametrize("round_trip", ROUND_TRIPS.values(), ids=ROUND_TRIPS)
@pytest.mark.parametrize("is_touched", [False, True])  # whether module and net were asked for before
def test_a_copy_is_the_same_estimator(round_trip, is_touched, tmp_path):
    clf = make(batch_norm=True, dropout=0.2, activation=ELU(0.5), warm_start=True, early_stopping=True).fit(X, Y)
    if is_touched:
        assert clf.module_ is not None
        assert clf.net_ is not None
    copied = round_trip(clf, tmp_path)
    assert_same_state(copied, clf)
    np.testing.assert_array_equal(copied.predict_proba(X), clf.predict_proba(X))
    for name in ("loss_curve_", "best_epoch_", "n_iter_", "t_", "best_validation_score_", "validation_scores_"):
        assert getattr(copied, name) == getattr(clf, name)
    assert copied.net_.history[:, "train_loss"] == clf.loss_curve_
    # Both go on alike, and apart.
    clf.fit(X, Y)
    assert len(copied.loss_curve_) == len(copied.history_) == 5
    assert_same_state(copied.fit(X, Y), clf)


@pytest.mark.parametrize("activation", [torch.sin, torch.nn.Tanh, torch.nn.Hardtanh()])
@pytest.mark.parametrize("round_trip", [ROUND_TRIPS["pickle"], ROUND_TRIPS["deepcopy"]], ids=["pickle", "deepcopy"])
def test_a_callable_is_copied_without_the_rows_it_last_saw(activation, round_trip):
    clf = make(activation=activation).fit(X, Y)
    size = len(pickle.dumps(clf))
    expected = clf.predict_proba(np.tile(X, (100, 1)))[: len(X)]
    assert len(pickle.dumps(clf)) == size
    np.testing.assert_allclose(round_trip(clf, None).predict_proba(X), expected, rtol=1e-10)


def test_a_lambda_is_copied_by_cloudpickle():
    clf = make(activation=lambda z: z.clamp(-1, 1)).fit(X, Y)
    np.testing.assert_array_equal(pickle.loads(cloudpickle.dumps(clf)).predict_proba(X), clf.predict_proba(X))


def test_a_copy_does_not_share_memory():
    clf = make().fit(X, Y)
    copied = copy.deepcopy(clf)
    copied.intercepts_[-1][:] = 7.0
    assert not np.any(clf.intercepts_[-1] == 7.0)


def test_an_unfitted_estimator_can_be_copied():
    copied = pickle.loads(pickle.dumps(make(**RICH)))
    assert copied.get_params(deep=False) == make(**RICH).get_params(deep=False)
    assert not hasattr(copied, "coefs_")


def test_a_pickle_holds_the_weights_once_and_neither_optimizer_nor_data():
    rows = np.random.RandomState(0).normal(size=(1000, 784)).astype(np.float32)
    clf = MLPDeepClassifier((300, 100), max_iter=1, n_iter_no_change=1, optimizer="adam").fit(rows, np.arange(1000) % 10)
    weights = sum(array.nbytes for array in clf.coefs_ + clf.intercepts_)
    assert clf.module_ is not None
    assert clf.net_ is not None
    assert weights < len(pickle.dumps(clf)) < min(1_300_000, weights + 20_000)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_fitted_estimator_holds_no_data():
    marker = np.full((50, 4), 123456.789)
    marker[::2] *= 1.5
    clf = make(learning_rate_init=1e-300).fit(marker, np.arange(50) % 2)
    stream = io.BytesIO()
    torch.save(clf.module_, stream)
    for dump in (pickle.dumps(clf), cloudpickle.dumps(clf), stream.getvalue()):
        assert np.float64(123456.789).tobytes() not in dump
    assert clf.net_.session is None


# in scikit-learn's company ------------------------------------------------------------------------------------------------


def test_it_is_a_classifier():
    clf = MLPDeepClassifier()
    assert is_classifier(clf)
    assert not is_regressor(clf)
    assert clf.__sklearn_tags__().target_tags.required
    # Searches therefore stratify its folds: with the sorted rows of iris they would otherwise miss a class.
    np.testing.assert_array_equal(cross_val_score(make(), X, Y, cv=3), cross_val_score(make(), X, Y, cv=StratifiedKFold(3)))


COMPANY = {
    "pipeline": lambda clf: make_pipeline(StandardScaler(), clf),
    "calibrated": lambda clf: CalibratedClassifierCV(clf, method="temperature", cv=2),
    "calibrated_sigmoid": lambda clf: CalibratedClassifierCV(clf, cv=2, ensemble=False),
    "voting": lambda clf: VotingClassifier([("a", clf), ("b", clone(clf).set_params(activation="elu"))], voting="soft"),
    "bagging": lambda clf: BaggingClassifier(clf, n_estimators=2, random_state=0),
    "one_vs_rest": OneVsRestClassifier,
    "search": lambda clf: GridSearchCV(clf, {"dropout": [0.0, 0.2]}, cv=2),
}


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
@pytest.mark.parametrize("wrap", COMPANY.values(), ids=COMPANY)
def test_it_works_within_other_estimators(wrap, problem):
    rows, labels = problem
    clf = wrap(make(max_iter=12, learning_rate_init=0.02))
    names = np.array(["zero", "one", "two"])[labels]
    assert clf.fit(rows, names).score(rows, names) > 0.8
    assert clf.predict_proba(rows).shape == (len(rows), len(np.unique(names)))


def test_a_frozen_estimator_stays_as_it_is():
    clf = make().fit(X, Y)
    before = state(clf)
    frozen = FrozenEstimator(clf).fit(X2, Y2)
    calibrated = CalibratedClassifierCV(frozen, method="temperature").fit(X, Y)
    assert calibrated.predict_proba(X).shape == (150, 3)
    assert all(np.array_equal(before[name], after) for name, after in state(clf).items())


def test_repr_shows_what_was_changed():
    assert repr(MLPDeepClassifier((5,), optimizer=Adam(beta_2=0.9))) == (
        "MLPDeepClassifier(hidden_layer_sizes=(5,), optimizer=Adam(beta_2=0.9))"
    )


def test_skorch_callbacks_are_told():
    class Log(Callback):
        def __init__(self):
            self.events = []

        def on_train_begin(self, net, **kwargs):
            self.events.append("train")

        def on_epoch_end(self, net, **kwargs):
            self.events.append(net.history[-1, "train_loss"])

        def on_train_end(self, net, **kwargs):
            self.events.append("end")

    log = Log()
    clf = make(callbacks=[("log", log)]).fit(X, Y)
    assert log.events == ["train", *clf.loss_curve_, "end"]
    assert_same_state(clf, make().fit(X, Y))  # who listens changes nothing


def test_warnings_point_at_the_callers_line():
    with pytest.warns(ConvergenceWarning) as caught:
        MLPDeepClassifier(max_iter=2, n_iter_no_change=1).fit(X, Y)
    assert caught[0].filename == __file__
