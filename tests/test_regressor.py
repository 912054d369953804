"""What a user sees of `MLPDeepRegressor`: every loss learns, in the unit of the targets, and agrees with scikit-learn."""

import copy
import inspect
import pickle

import numpy as np
import pytest
import torch
from naming import name_of
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import load_diabetes, make_friedman1, make_regression
from sklearn.ensemble import BaggingRegressor, VotingRegressor
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.metrics import d2_pinball_score, mean_absolute_error, mean_pinball_loss, r2_score
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.multioutput import MultiOutputRegressor, RegressorChain
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from skorch import NeuralNet
from skorch.callbacks import Callback
from skorch.history import History

from skdnn import MLPDeepRegressor
from skdnn.components import REGRESSION_LOSSES, Adam, Huber, Poisson, Quantile

X, Y = make_friedman1(200, 5, noise=0.5, random_state=0)
X = StandardScaler().fit_transform(X)
Y2 = np.column_stack([Y, 100.0 - 3.0 * Y * X[:, 0]])  # targets of different units
PROBLEMS = {"one": (X, Y), "two": (X, Y2)}
LEVELS = (0.1, 0.5, 0.9)


def make(**params):
    common = {"hidden_layer_sizes": (16,), "max_iter": 5, "batch_size": 32, "learning_rate_init": 0.02, "random_state": 0}
    params = common | params
    return MLPDeepRegressor(**{"n_iter_no_change": params["max_iter"]} | params)


def state(reg):
    return {name: tensor.numpy().copy() for name, tensor in reg.module_.state_dict().items()}


def assert_same_state(a, b):
    a, b = state(a), state(b)
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


# every loss learns --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
@pytest.mark.parametrize("loss", [*REGRESSION_LOSSES, Huber(0.1), Quantile(0.4), Poisson()], ids=name_of)
def test_learns(problem, loss):
    rows, y = problem
    y = np.maximum(y, 0.0) if loss == "poisson" or isinstance(loss, Poisson) else y
    reg = make(loss=loss, max_iter=60).fit(rows, y)
    predicted = reg.predict(rows)
    assert predicted.shape == y.shape
    assert reg.score(rows, y) == r2_score(y, predicted) > 0.75
    assert reg.loss_curve_[-1] < 0.8 * reg.loss_curve_[0]


@pytest.mark.parametrize(
    "params",
    [
        {"batch_norm": True, "dropout": 0.1},
        {"activation": "elu", "optimizer": "momentum", "max_norm": 2.0},
        {"regularizer": "l2", "gradient_clipping": 1.0, "learning_rate": "cosine"},
        {"activation": torch.nn.Hardswish, "initializer": torch.nn.init.xavier_uniform_},
        {"hidden_layer_sizes": (16, 8), "early_stopping": True},
    ],
    ids=name_of,
)
def test_learns_with_techniques(params):
    assert make(max_iter=60, **params).fit(X, Y2).score(X, Y2) > 0.7


def test_default_settings_learn_diabetes():
    # Its targets go to 346: without standardising them, Adam's steps of 0.001 would take thousands of epochs.
    rows, y = load_diabetes(return_X_y=True)
    reg = MLPDeepRegressor(random_state=0, n_iter_no_change=200)
    assert make_pipeline(StandardScaler(), reg).fit(rows[::2], y[::2]).score(rows[1::2], y[1::2]) > 0.3


def test_without_hidden_layers_it_is_least_squares():
    rows, y = make_regression(100, 3, noise=5.0, random_state=0)
    reg = make(hidden_layer_sizes=(), optimizer="sgd", learning_rate_init=0.1, batch_size=100, max_iter=300).fit(rows, y)
    design = np.column_stack([rows, np.ones(100)])
    expected = design @ np.linalg.lstsq(design, y, rcond=None)[0]
    np.testing.assert_allclose(reg.predict(rows), expected, rtol=1e-8, atol=1e-8)


# agreement with scikit-learn ----------------------------------------------------------------------------------------------


def start_from(reg, mlp):
    """Put the weights of a fitted `MLPRegressor` into a fitted regressor, which goes on from them."""
    linears = [module for module in reg.module_ if isinstance(module, torch.nn.Linear)]
    with torch.no_grad():
        for linear, kernel, bias in zip(linears, mlp.coefs_, mlp.intercepts_, strict=True):
            linear.weight.copy_(torch.from_numpy(kernel.T))
            linear.bias.copy_(torch.from_numpy(bias))
    return reg.set_params(warm_start=True)


@pytest.mark.parametrize("loss", ["squared_error", "poisson"])
@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "nesterov"])
def test_same_training_as_scikit_learn(loss, activation, optimizer):
    y = np.abs(Y) / 10.0  # as they are, for neither side standardises them
    common = {
        "loss": loss,
        "hidden_layer_sizes": (7, 5),
        "activation": activation,
        "shuffle": False,
        "batch_size": 30,
        "random_state": 0,
    }
    unmoved = {"max_iter": 1, "learning_rate_init": 1e-300, "n_iter_no_change": 1}
    training = {"max_iter": 10, "learning_rate_init": 0.02, "n_iter_no_change": 10, "tol": 0.0}
    momentum = {"momentum": 0.0 if optimizer == "sgd" else 0.9, "nesterovs_momentum": optimizer == "nesterov"}
    mlp = MLPRegressor(solver="sgd", alpha=0.0, **common, **momentum)
    with pytest.warns(UserWarning, match="Maximum iterations"):
        mlp.set_params(**unmoved).fit(X, y)
    reg = MLPDeepRegressor(optimizer=optimizer, standardize_target=False, **common).set_params(**unmoved).fit(X, y)
    start_from(reg, mlp)
    np.testing.assert_allclose(reg.predict(X), mlp.predict(X), rtol=1e-10)

    with pytest.warns(UserWarning, match="Maximum iterations"):
        mlp.set_params(**training).fit(X, y)
    reg.set_params(**training).fit(X, y)
    np.testing.assert_allclose(reg.loss_curve_[1:], mlp.loss_curve_, rtol=1e-8)
    np.testing.assert_allclose(reg.predict(X), mlp.predict(X), rtol=1e-8)
    for mine, theirs in zip(reg.coefs_ + reg.intercepts_, mlp.coefs_ + mlp.intercepts_, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-8, atol=1e-8)
    for name in ("n_layers_", "n_outputs_", "out_activation_", "n_features_in_", "n_iter_"):
        assert getattr(reg, name) == getattr(mlp, name), name


def test_parameters_shared_with_scikit_learn_have_its_defaults():
    mine, theirs = (inspect.signature(cls).parameters for cls in (MLPDeepRegressor, MLPRegressor))
    shared = set(mine) & set(theirs)
    assert len(shared) >= 15
    assert "loss" in shared
    for name in shared:
        assert mine[name].default == theirs[name].default, name


# shapes of targets and predictions ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["squared_error", "poisson", "quantile"])
def test_a_column_is_a_target_like_a_vector(loss):
    y = np.abs(Y)
    column, vector = make(loss=loss).fit(X, y[:, np.newaxis]), make(loss=loss).fit(X, y)
    assert column.predict(X).shape == (200,)
    assert_same_state(column, vector)
    assert column.score(X, y[:, np.newaxis]) == vector.score(X, y)


@pytest.mark.parametrize("y", [Y.astype(int), Y.astype(np.float32), Y.astype(object), Y.tolist(), Y2.tolist()], ids=type)
def test_targets_of_any_type_are_numbers(y):
    expected = make().fit(X, np.asarray(y, dtype=np.float64)).predict(X)
    np.testing.assert_array_equal(make().fit(X, y).predict(X), expected)


def test_fit_leaves_the_targets_as_they_were():
    for y in (Y, Y2, np.abs(Y)):
        before = y.copy()
        make(loss="poisson" if y.min() >= 0 else "huber").fit(X, y)
        np.testing.assert_array_equal(y, before)
        y.flags.writeable = False  # a memory-mapped target is no trouble either
        make(standardize_target=False).fit(X, y)
        y.flags.writeable = True


@pytest.mark.parametrize("y", [["a"] * 200, np.full(200, np.nan), np.r_[np.inf, Y[1:]], Y[:-1], np.ones((200, 2, 2))], ids=type)
def test_targets_that_are_no_numbers_are_refused(y):
    reg = make()
    with pytest.raises(ValueError, match=r"y|could not convert|inconsistent|dim"):
        reg.fit(X, y)
    assert not hasattr(reg, "coefs_")


# the targets' unit --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("y", [Y, Y2], ids=["one", "two"])
@pytest.mark.parametrize("loss", ["squared_error", "absolute_error", "huber", "quantile", Quantile(LEVELS)], ids=name_of)
def test_the_unit_of_the_targets_does_not_matter(loss, y):
    params = {"loss": loss, "hidden_layer_sizes": (8,), "activation": "tanh", "dtype": "float64"}
    plain, scaled = make(**params).fit(X, y), make(**params).fit(X, 1000.0 * y + 5.0)
    np.testing.assert_allclose(scaled.predict(X), 1000.0 * plain.predict(X) + 5.0, rtol=1e-8)
    np.testing.assert_allclose(scaled.loss_curve_, plain.loss_curve_, rtol=1e-8)
    assert scaled.score(X, 1000.0 * y + 5.0) == pytest.approx(plain.score(X, y), rel=1e-8)


def test_mean_and_scale_are_those_of_each_target():
    reg = make().fit(X, Y2)
    np.testing.assert_allclose(reg.target_mean_, Y2.mean(0))
    np.testing.assert_allclose(reg.target_scale_, Y2.std(0))
    by_hand = make(standardize_target=False).fit(X, (Y2 - Y2.mean(0)) / Y2.std(0))
    np.testing.assert_allclose(reg.predict(X), by_hand.predict(X) * Y2.std(0) + Y2.mean(0), rtol=1e-8)
    assert by_hand.target_mean_.tolist() == [0.0, 0.0]
    assert by_hand.target_scale_.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("unit", [1e-3, 1e6])
def test_the_poisson_loss_means_the_same_in_any_unit(unit):
    y = np.abs(Y)
    reg = make(loss="poisson").fit(X, unit * y)
    assert (reg.target_mean_.tolist(), reg.target_scale_.tolist()) == ([0.0], [pytest.approx(unit * y.mean())])
    np.testing.assert_allclose(reg.predict(X), unit * make(loss="poisson").fit(X, y).predict(X), rtol=1e-10)
    scaled = make(loss="poisson", standardize_target=False).fit(X, y / y.mean())
    np.testing.assert_allclose(reg.predict(X), unit * y.mean() * scaled.predict(X), rtol=1e-10)


@pytest.mark.parametrize("value", [0.0, 7.0, 0.1, -1e-12, 1e12])
@pytest.mark.parametrize("early_stopping", [False, True])
def test_a_constant_target_is_learned(value, early_stopping):
    y = np.column_stack([np.full(200, value), Y])
    reg = make(max_iter=30, early_stopping=early_stopping).fit(X, y)
    assert reg.target_scale_[0] == 1.0
    np.testing.assert_allclose(reg.target_mean_[0], value, rtol=1e-12)
    # The network's own error remains, of an output whose targets are all 0.
    np.testing.assert_allclose(reg.predict(X)[:, 0], value, atol=1.0)
    assert np.isfinite(reg.loss_curve_).all()


def test_the_module_speaks_of_standardised_targets():
    reg = make(hidden_layer_sizes=(8, 4)).fit(X, Y2)
    with torch.no_grad():
        outputs = reg.module_(torch.from_numpy(X)).numpy()
    np.testing.assert_allclose(outputs * reg.target_scale_ + reg.target_mean_, reg.predict(X), rtol=1e-10)
    assert np.abs(outputs).max() < 10


@pytest.mark.parametrize("loss", [*REGRESSION_LOSSES, Quantile(LEVELS)], ids=name_of)
def test_the_losses_speak_of_standardised_targets(loss):
    y = np.abs(Y2)
    # The weights do not move between the batches, so that the mean over these is the loss of all rows.
    reg = make(loss=loss, learning_rate_init=1e-300, batch_size=50, shuffle=False).fit(X, y)
    component = REGRESSION_LOSSES[loss]() if isinstance(loss, str) else loss
    with torch.no_grad():
        outputs = reg.module_(torch.from_numpy(X))
    targets = torch.from_numpy((y - reg.target_mean_) / reg.target_scale_)
    expected = component.value(outputs, component.prepare(targets, outputs.shape[1], 1 / 200, torch.float64), 1 / 200)
    assert reg.loss_curve_ == pytest.approx([expected.item()] * 5)


@pytest.mark.parametrize("loss", ["squared_error", "poisson", Quantile(LEVELS)], ids=name_of)
def test_float32_stays_float32(loss):
    y = np.abs(Y2).astype(np.float32)
    reg = make(loss=loss).fit(X.astype(np.float32), y)
    assert reg.predict(X.astype(np.float32)).dtype == np.float32
    assert {array.dtype for array in reg.coefs_ + reg.intercepts_} == {np.dtype(np.float32)}
    double = make(loss=loss).fit(X, y)
    assert double.predict(X).dtype == np.float64
    # Targets follow X, not the other way round.
    assert make(loss=loss).fit(X.astype(np.float32), y.astype(np.float64)).predict(X).dtype == np.float32
    np.testing.assert_allclose(reg.predict(X), double.predict(X), rtol=1e-2, atol=1e-2)


# each loss' own -----------------------------------------------------------------------------------------------------------


def test_poisson_predictions_are_positive():
    random = np.random.RandomState(0)
    counts = random.poisson(np.exp(0.7 * X[:, 0] - 0.5))
    assert (counts == 0).any()
    reg = make(loss="poisson", max_iter=40).fit(X, counts)
    assert reg.out_activation_ == "exp"
    for rows in (X, 10.0 * X):
        assert (reg.predict(rows) > 0).all()
    with torch.no_grad():
        means = reg.module_(torch.from_numpy(X)).exp()[:, 0] * reg.target_scale_[0]
        np.testing.assert_allclose(means, reg.predict(X), rtol=1e-12)
    # The mean is met, as in a generalised linear model with its canonical link.
    assert reg.predict(X).mean() == pytest.approx(counts.mean(), rel=0.1)


@pytest.mark.parametrize("loss", ["poisson", Poisson()], ids=name_of)
@pytest.mark.parametrize("y", [Y - Y.mean(), np.zeros(200), -np.ones(200)], ids=["negative", "zeros", "all negative"])
def test_poisson_refuses_targets_that_are_no_counts(loss, y):
    reg = make(loss=loss).fit(X, np.abs(Y))
    expected = reg.predict(X)
    with pytest.raises(ValueError, match="loss='poisson' needs targets >= 0"):
        reg.fit(X, y)
    np.testing.assert_array_equal(reg.predict(X), expected)


@pytest.mark.parametrize(
    ("quantile", "y", "shape"),
    [
        (0.5, Y, (200,)),
        ([0.5], Y, (200,)),
        (0.5, Y2, (200, 2)),
        (LEVELS, Y, (200, 3)),
        (LEVELS, Y[:, None], (200, 3)),
        (LEVELS, Y2, (200, 2, 3)),
    ],
)
def test_shapes_of_quantiles(quantile, y, shape):
    reg = make(loss=Quantile(quantile)).fit(X, y)
    assert reg.predict(X).shape == shape
    assert reg.predict(X[:1]).shape == (1, *shape[1:])
    assert reg.n_outputs_ == np.prod(shape[1:])
    with torch.no_grad():
        outputs = reg.module_(torch.from_numpy(X)).numpy().reshape(200, len(reg.target_mean_), -1)
    expected = outputs * reg.target_scale_[:, None] + reg.target_mean_[:, None]
    np.testing.assert_allclose(reg.predict(X).ravel(), expected.ravel(), rtol=1e-10)


@pytest.mark.parametrize("n_targets", [1, 2])
def test_quantiles_cover_their_share(n_targets):
    random = np.random.RandomState(0)
    rows = random.normal(size=(1000, 2))
    spread = np.exp(0.5 * rows[:, :1])  # the quantiles are no shifted means
    y = 10.0 + rows[:, :1] + spread * random.normal(size=(1000, n_targets))
    y[:, 1:] *= -100.0
    reg = make(loss=Quantile(LEVELS), max_iter=40, batch_size=100, learning_rate_init=0.01).fit(rows, y)
    predicted = reg.predict(rows).reshape(1000, n_targets, 3)
    np.testing.assert_allclose((y[:, :, None] <= predicted).mean(0), np.tile(LEVELS, (n_targets, 1)), atol=0.05)
    width = (predicted[:, :, 2] - predicted[:, :, 0])[:, 0]
    assert np.corrcoef(width, spread[:, 0])[0, 1] > 0.8


@pytest.mark.parametrize("y", [Y, Y2], ids=["one", "two"])
@pytest.mark.parametrize("sample_weight", [None, np.arange(200.0)], ids=["unweighted", "weighted"])
def test_score_of_several_levels_is_their_mean_d2(y, sample_weight):
    reg = make(loss=Quantile(LEVELS), max_iter=20).fit(X, y)
    predicted = reg.predict(X)
    scores = [
        d2_pinball_score(y, predicted[..., i], alpha=level, sample_weight=sample_weight) for i, level in enumerate(LEVELS)
    ]
    assert reg.score(X, y, sample_weight) == pytest.approx(np.mean(scores))
    assert type(reg.score(X, y)) is float


def test_score_takes_weights():
    reg = make().fit(X, Y2)
    weights = np.arange(200.0)
    assert reg.score(X, Y2, weights) == pytest.approx(r2_score(Y2, reg.predict(X), sample_weight=weights))


# The outliers' share in the scale, of which the default delta is a multiple, makes that delta wide.
@pytest.mark.parametrize(("loss", "share"), [("huber", 0.9), ("absolute_error", 0.5), (Huber(0.2), 0.5)], ids=name_of)
def test_robust_losses_bear_outliers(loss, share):
    spoiled = Y.copy()
    spoiled[::10] += 300.0
    clean = np.arange(200) % 10 != 0
    errors = {}
    for name in (loss, "squared_error"):
        reg = make(loss=name, max_iter=40).fit(X, spoiled)
        errors[name] = mean_absolute_error(Y[clean], reg.predict(X[clean]))
    assert errors[loss] < share * errors["squared_error"]


def test_a_huge_delta_is_the_squared_error():
    wide, squares = make(loss=Huber(1e6)).fit(X, Y2), make(loss="squared_error").fit(X, Y2)
    assert_same_state(wide, squares)


def test_the_median_is_the_absolute_error():
    median, absolute = make(loss=Quantile(0.5)).fit(X, Y), make(loss="absolute_error").fit(X, Y)
    # Half of it; Adam does not see the factor but for its epsilon.
    np.testing.assert_allclose(2 * np.array(median.loss_curve_), absolute.loss_curve_, rtol=1e-4)


# early stopping -----------------------------------------------------------------------------------------------------------


class Split(Callback):
    """Keeps the rows that training and validation use."""

    def on_epoch_begin(self, net, dataset_train=None, dataset_valid=None, **kwargs):
        self.training, self.validation = dataset_train.indices, dataset_valid.indices


def restless(**params):
    # A rate that is too high: the score goes up and down, so that the last epoch is not the best.
    common = {"early_stopping": True, "validation_fraction": 0.3, "learning_rate_init": 0.3, "batch_norm": True, "max_iter": 15}
    return make(**common | params)


@pytest.mark.parametrize("loss", REGRESSION_LOSSES)
@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
def test_early_stopping_ends_with_the_best_epoch(loss, problem):
    rows, y = problem
    y = np.abs(y)
    split = Split()
    reg = restless(loss=loss, callbacks=[split], learning_rate_init=0.05 if loss == "poisson" else 0.3).fit(rows, y)
    scores = reg.validation_scores_
    assert reg.best_epoch_ == 1 + int(np.argmax(scores))
    assert reg.best_validation_score_ == max(scores)
    assert reg.best_loss_ is None
    expected = r2_score(y[split.validation], reg.predict(rows[split.validation]))
    assert reg.best_validation_score_ == pytest.approx(expected, rel=1e-10)
    assert sorted([*split.training, *split.validation]) == list(range(200))
    assert len(split.validation) == 60


def test_early_stopping_may_go_back():
    noise = np.random.RandomState(0).normal(size=200)  # which can only be learned by heart
    reg = restless().fit(X, noise)
    assert reg.best_epoch_ < reg.n_iter_
    assert_same_state(reg, restless(max_iter=reg.best_epoch_).fit(X, noise))


def test_validation_score_of_several_levels_is_minus_their_loss():
    split = Split()
    reg = restless(loss=Quantile(LEVELS), callbacks=[split]).fit(X, Y2)
    predicted = (reg.predict(X[split.validation]) - reg.target_mean_[:, None]) / reg.target_scale_[:, None]
    y = (Y2[split.validation] - reg.target_mean_) / reg.target_scale_
    losses = [mean_pinball_loss(y, predicted[:, :, i], alpha=level) for i, level in enumerate(LEVELS)]
    assert reg.best_validation_score_ == pytest.approx(-np.mean(losses), rel=1e-8)


def test_validation_targets_that_do_not_vary_score_as_in_scikit_learn():
    y = np.zeros(200)
    y[::100] = 1.0
    split = Split()
    reg = make(early_stopping=True, callbacks=[split], max_iter=2).fit(X, y)
    assert not y[split.validation].any()
    assert reg.best_validation_score_ == r2_score(y[split.validation], reg.predict(X[split.validation])) == 0.0


# warm start ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", [*REGRESSION_LOSSES, Quantile(LEVELS)], ids=name_of)
def test_warm_start_without_momentum_and_shuffling_equals_one_long_fit(loss):
    y = np.abs(Y2) / 100.0
    common = {"loss": loss, "optimizer": "sgd", "shuffle": False, "learning_rate_init": 0.02, "batch_norm": True}
    reg = make(warm_start=True, max_iter=3, **common).fit(X, y).fit(X, y)
    long = make(max_iter=6, **common).fit(X, y)
    assert_same_state(reg, long)
    assert reg.loss_curve_ == long.loss_curve_
    assert (reg.n_iter_, reg.t_, len(reg.history_)) == (3, 1200, 6)


def test_warm_start_keeps_the_unit_of_the_first_fit():
    reg = make(warm_start=True).fit(X, Y)
    mean, scale = reg.target_mean_, reg.target_scale_
    reg.set_params(standardize_target=False).fit(X, 2.0 * Y + 1.0)
    np.testing.assert_array_equal(reg.target_mean_, mean)
    np.testing.assert_array_equal(reg.target_scale_, scale)
    # What the network learned of the old targets is worth as much as before: it starts from there.
    before = make().fit(X, Y)
    np.testing.assert_allclose(
        make(warm_start=True).fit(X, Y).set_params(learning_rate_init=1e-300).fit(X, 2.0 * Y + 1.0).predict(X),
        before.predict(X),
        rtol=1e-10,
    )


@pytest.mark.parametrize(("first", "then"), [(Y, Y2), (Y2, Y)])
def test_warm_start_refuses_another_number_of_targets(first, then):
    reg = make(warm_start=True).fit(X, first)
    expected = reg.predict(X)
    n_first, n_then = first.reshape(200, -1).shape[1], then.reshape(200, -1).shape[1]
    with pytest.raises(ValueError, match=rf"goes on .* targets .* of which there were {n_first}\. y has {n_then}\."):
        reg.fit(X, then)
    np.testing.assert_array_equal(reg.predict(X), expected)


def test_warm_start_refuses_another_number_of_levels():
    reg = make(warm_start=True, loss=Quantile(0.5)).fit(X, Y)
    expected = reg.predict(X)
    with pytest.raises(ValueError, match=r"warm_start=True"):
        reg.set_params(loss=Quantile(LEVELS)).fit(X, Y)
    np.testing.assert_array_equal(reg.predict(X), expected)


@pytest.mark.parametrize("losses", [("squared_error", "poisson"), ("poisson", "squared_error")], ids="-".join)
def test_warm_start_refuses_a_loss_of_another_scale(losses):
    # One network's outputs are standardised targets, the other's are logarithms.
    y = np.abs(Y)
    first, then = losses
    reg = make(warm_start=True, loss=first).fit(X, y)
    expected = reg.predict(X)
    with pytest.raises(ValueError, match=r"warm_start=True.*loss"):
        reg.set_params(loss=then).fit(X, y)
    np.testing.assert_array_equal(reg.predict(X), expected)


@pytest.mark.parametrize(
    "changed", [{"loss": "huber"}, {"loss": Quantile(0.9)}, {"optimizer": "sgd"}, {"dropout": 0.2}], ids=str
)
def test_warm_start_takes_other_settings(changed):
    reg = make(warm_start=True).fit(X, Y).set_params(**changed).fit(X, Y)
    assert len(reg.loss_curve_) == 10
    assert np.isfinite(reg.predict(X)).all()


@pytest.mark.parametrize("changed", [{"hidden_layer_sizes": (8,)}, {"batch_norm": True}], ids=str)
def test_warm_start_refuses_another_architecture(changed):
    reg = make(warm_start=True).fit(X, Y)
    expected = reg.predict(X)
    with pytest.raises(ValueError, match="warm_start=True goes on with the fitted network"):
        reg.set_params(**changed).fit(X, 2.0 * Y)
    np.testing.assert_array_equal(reg.predict(X), expected)


# the fitted estimator stays as it is --------------------------------------------------------------------------------------


def test_a_fit_that_fails_leaves_the_fitted_regressor():
    reg = make().fit(X, Y)
    expected = reg.predict(X)
    with pytest.raises(ValueError, match="early_stopping=True cannot set aside"):
        reg.set_params(early_stopping=True, validation_fraction=0.01).fit(X[:1], 10.0 * Y[:1])
    np.testing.assert_array_equal(reg.predict(X), expected)


def test_parameters_that_are_set_after_fit_wait_for_the_next():
    reg = make(loss=Quantile(LEVELS)).fit(X, Y)
    expected, score = reg.predict(X), reg.score(X, Y)
    reg.set_params(loss__quantile=(0.4, 0.5, 0.6))
    assert reg.score(X, Y) == score
    reg.set_params(loss__quantile=0.5)
    np.testing.assert_array_equal(reg.predict(X), expected)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("loss", REGRESSION_LOSSES)
def test_divergence_ends_with_finite_weights(loss, dtype):
    reg = make(loss=loss, optimizer="sgd", learning_rate_init=1e6, max_iter=30)
    reg.fit((1e3 * X).astype(dtype), np.abs(Y))
    assert all(np.isfinite(array).all() for array in reg.coefs_ + reg.intercepts_)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_divergence_is_told_with_advice(dtype):
    reg = make(optimizer="sgd", learning_rate_init=1e6, max_iter=30)
    with pytest.warns(ConvergenceWarning, match=r"learning_rate_init=1000000\.0.*scale the features"):
        reg.fit((1e3 * X).astype(dtype), Y)
    assert np.isfinite(reg.predict(X)).all()


# fitted attributes --------------------------------------------------------------------------------------------------------

FITTED = {
    "target_mean_": np.ndarray,
    "target_scale_": np.ndarray,
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
    reg = make(early_stopping=early_stopping).fit(X, Y)
    assert {name: type(getattr(reg, name)) for name in types} == types
    assert isinstance(reg.net_, NeuralNet)
    assert not hasattr(reg, "classes_")


@pytest.mark.parametrize(
    ("loss", "y", "n_outputs", "out_activation"),
    [
        ("squared_error", Y, 1, "identity"),
        ("huber", Y2, 2, "identity"),
        ("poisson", np.abs(Y2), 2, "exp"),
        (Quantile(LEVELS), Y2, 6, "identity"),
    ],
    ids=name_of,
)
def test_fitted_attributes_fit_together(loss, y, n_outputs, out_activation):
    reg = make(loss=loss, hidden_layer_sizes=(6, 4)).fit(X, y)
    assert [kernel.shape for kernel in reg.coefs_] == [(5, 6), (6, 4), (4, n_outputs)]
    assert (reg.n_layers_, reg.n_outputs_, reg.out_activation_) == (4, n_outputs, out_activation)
    assert reg.target_mean_.shape == reg.target_scale_.shape == (1 if y.ndim == 1 else 2,)
    assert reg.n_iter_ == len(reg.loss_curve_) == len(reg.history_) == 5
    assert reg.t_ == 1000
    assert reg.best_loss_ == min(reg.loss_curve_)
    assert reg.net_.module_ is reg.module_
    assert reg.net_.history is reg.history_


def test_fit_on_other_data_forgets_the_first():
    reg = make(loss=Quantile(LEVELS)).fit(X, Y2).set_params(loss="squared_error").fit(X[:, :3], Y)
    fresh = make().fit(X[:, :3], Y)
    assert_same_state(reg, fresh)
    np.testing.assert_array_equal(reg.predict(X[:, :3]), fresh.predict(X[:, :3]))


@pytest.mark.parametrize("method", ["predict", "score"])
def test_prediction_before_fit_is_refused(method):
    with pytest.raises(NotFittedError, match="not fitted yet"):
        getattr(make(), method)(*(X, Y)[: 1 + (method == "score")])


@pytest.mark.parametrize("name", ["target_mean_", "target_scale_", "coefs_", "module_", "net_", "loss_"])
def test_fitted_attributes_are_missing_before_fit(name):
    assert not hasattr(make(), name)


# copies and company -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("copied_by", [lambda reg: pickle.loads(pickle.dumps(reg)), copy.deepcopy], ids=["pickle", "deepcopy"])
@pytest.mark.parametrize("loss", [*REGRESSION_LOSSES, Huber(0.3), Quantile(LEVELS)], ids=name_of)
def test_a_copy_is_the_same_estimator(copied_by, loss):
    y = np.abs(Y2)
    reg = make(loss=loss, warm_start=True, early_stopping=True).fit(X, y)
    copied = copied_by(reg)
    np.testing.assert_array_equal(copied.predict(X), reg.predict(X))
    assert copied.get_params(deep=False) == reg.get_params(deep=False)
    assert copied.score(X, y) == reg.score(X, y)
    assert copied.net_.history[:, "train_loss"] == reg.loss_curve_
    # Both go on alike.
    assert_same_state(copied.fit(X, y), reg.fit(X, y))


def test_clone_keeps_every_setting():
    reg = make(loss=Huber(0.3), standardize_target=False, optimizer=Adam(beta_2=0.9))
    copied = clone(reg.fit(X, Y))
    assert copied.get_params(deep=False) == reg.get_params(deep=False)
    assert copied.get_params()["loss__delta"] == 0.3
    assert copied.loss is not reg.loss
    assert not hasattr(copied, "coefs_")
    assert_same_state(copied.fit(X, Y), reg)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("params", [{"dropout": 0.2, "batch_norm": True}, {"early_stopping": True}, {"loss": Quantile(LEVELS)}])
def test_the_same_seed_gives_the_same_bits(params, dtype):
    rows = X.astype(dtype)
    first, second = (make(**params).fit(rows, Y2) for _ in range(2))
    assert first.predict(rows).tobytes() == second.predict(rows).tobytes()
    assert first.loss_curve_ == second.loss_curve_
    assert make(**params, random_state=1).fit(rows, Y2).predict(rows).tobytes() != first.predict(rows).tobytes()


def test_a_grid_reaches_into_the_loss():
    pipeline = make_pipeline(StandardScaler(), make(loss=Huber()))
    grid = [
        {"mlpdeepregressor__loss__delta": [0.01, 1.0, 100.0]},
        {"mlpdeepregressor__loss": [Quantile()], "mlpdeepregressor__loss__quantile": [0.1, 0.5]},
        {"mlpdeepregressor__loss": [*REGRESSION_LOSSES], "mlpdeepregressor__standardize_target": [True]},
    ]
    search = GridSearchCV(pipeline, grid, cv=2).fit(X, np.abs(Y))
    assert len(search.cv_results_["params"]) == 10
    assert len(set(search.cv_results_["mean_test_score"][:5])) == 5
    best = search.best_estimator_[-1]
    for name, value in search.best_params_.items():
        assert best.get_params()[name.removeprefix("mlpdeepregressor__")] == value


def test_a_parameter_of_a_loss_needs_an_object():
    reg = make(loss=Huber()).set_params(loss__delta=0.5)
    assert reg.loss == Huber(0.5)
    with pytest.raises(ValueError, match=r"loss__delta cannot be set, for loss='huber' is a name"):
        make(loss="huber").set_params(loss__delta=0.5)
    assert_same_state(make(loss="huber").fit(X, Y), make(loss=Huber()).fit(X, Y))


def test_it_is_a_regressor():
    assert is_regressor(MLPDeepRegressor())
    assert not is_classifier(MLPDeepRegressor())
    tags = MLPDeepRegressor().__sklearn_tags__().target_tags
    assert (tags.required, tags.multi_output, tags.positive_only) == (True, True, False)
    for loss in ("poisson", Poisson()):
        assert MLPDeepRegressor(loss=loss).__sklearn_tags__().target_tags.positive_only
    np.testing.assert_array_equal(cross_val_score(make(), X, Y, cv=3), cross_val_score(make(), X, Y, cv=KFold(3)))


COMPANY = {
    "pipeline": lambda reg: make_pipeline(StandardScaler(), reg),
    "transformed": lambda reg: TransformedTargetRegressor(reg, func=np.log1p, inverse_func=np.expm1),
    "transformer": lambda reg: TransformedTargetRegressor(reg, transformer=StandardScaler()),
    "transformer_of_nothing": lambda reg: TransformedTargetRegressor(reg, transformer=FunctionTransformer()),
    "voting": lambda reg: VotingRegressor([("a", reg), ("b", clone(reg).set_params(activation="elu"))]),
    "bagging": lambda reg: BaggingRegressor(reg, n_estimators=2, random_state=0),
    "search": lambda reg: GridSearchCV(reg, {"dropout": [0.0, 0.1]}, cv=2),
}


@pytest.mark.parametrize("wrap", COMPANY.values(), ids=COMPANY)
def test_it_works_within_other_estimators(wrap):
    y = np.abs(Y)
    model = wrap(make(max_iter=30)).fit(X, y)
    assert model.predict(X).shape == (200,)
    assert model.score(X, y) > 0.7


@pytest.mark.parametrize("wrap", [MultiOutputRegressor, RegressorChain, COMPANY["transformer"], COMPANY["bagging"]])
def test_several_targets_work_within_other_estimators(wrap):
    model = wrap(make(max_iter=30)).fit(X, Y2)
    assert model.predict(X).shape == (200, 2)
    assert model.score(X, Y2) > 0.7


def test_repr_shows_what_was_changed():
    assert repr(MLPDeepRegressor((5,), loss=Huber(2.0))) == "MLPDeepRegressor(hidden_layer_sizes=(5,), loss=Huber(delta=2.0))"


# messages -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"loss": "mse"}, r"loss='mse' is not known.*'squared_error', 'absolute_error', 'huber', 'poisson', 'quantile'"),
        ({"loss": "Squared-Error"}, "did you mean 'squared_error'"),
        ({"loss": None}, "loss must not be None. Names: 'squared_error'"),
        ({"loss": Huber}, r"loss=Huber is a class; pass an object of it: Huber\(\)"),
        ({"loss": Adam()}, "loss must be .*RegressionLoss"),
        ({"loss": torch.nn.MSELoss()}, "loss must be .*RegressionLoss"),
        ({"loss": Huber(-1.0)}, r"'delta' parameter of Huber must be .*\(0\.0, inf\)"),
        (
            {"loss": Quantile((0.1, 1.1))},
            r"'quantile' parameter of Quantile must be one or several numbers in \(0\.0, 1\.0\)\. Got \(0\.1, 1\.1\)",
        ),
        ({"standardize_target": "yes"}, "'standardize_target' parameter of MLPDeepRegressor must be .*bool"),
    ],
    ids=name_of,
)
def test_message_says_what_to_do(params, message):
    with pytest.raises(ValueError, match=message):
        make(**params).fit(X, Y)
