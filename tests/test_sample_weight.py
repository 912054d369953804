"""Sample weights: what a row counts in the loss, in batch statistics, in what targets are scaled by, and in validation."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse
import sklearn
from naming import name_of
from sklearn.datasets import load_iris, make_multilabel_classification, make_regression
from sklearn.metrics import accuracy_score, d2_pinball_score, log_loss, r2_score
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from skdnn import MLPDeepClassifier, MLPDeepRegressor
from skdnn.components import OPTIMIZERS, REGRESSION_LOSSES, SGD, BatchNorm, Huber, Momentum, Poisson, Quantile
from skdnn.engine import run_epoch_together

X, Y = load_iris(return_X_y=True)
X, Y = StandardScaler().fit_transform(X)[::3], Y[::3]
ROWS, LABELS = make_multilabel_classification(n_samples=50, n_features=6, n_classes=3, random_state=0)
POINTS, HEIGHTS = make_regression(n_samples=50, n_features=4, n_targets=2, noise=10.0, random_state=0)
HEIGHTS = HEIGHTS / 10 + 3.0
COUNTS = np.random.RandomState(0).randint(0, 4, 50)  # some are 0
SHARES = np.random.RandomState(1).uniform(0.2, 4.0, 50)


def params_of(params):
    """One batch of all rows, however many: the same number of updates for weighted and for repeated rows."""
    return {
        "hidden_layer_sizes": (8, 6),
        "activation": "tanh",
        "batch_size": 1000,
        "max_iter": 12,
        "n_iter_no_change": 12,
        "random_state": 0,
    } | params


def classifier(**params):
    return MLPDeepClassifier(**params_of(params))


def regressor(**params):
    return MLPDeepRegressor(**params_of(params))


# A kind of targets: how to make the estimator, X, y.
KINDS = {
    "binary": (classifier, X, (Y == 1).astype(int)),
    "multiclass": (classifier, X, Y),
    "multilabel": (classifier, ROWS, LABELS),
    "number": (regressor, POINTS, HEIGHTS[:, 0]),
    "numbers": (regressor, POINTS, HEIGHTS),
}
kinds = pytest.mark.parametrize("kind", KINDS)


def outputs_of(model, X):
    return model.predict(X) if isinstance(model, MLPDeepRegressor) else model.decision_function(X)


def assert_same_fit(a, b, X, rtol=1e-7):
    assert a.n_iter_ == b.n_iter_
    np.testing.assert_allclose(a.loss_curve_, b.loss_curve_, rtol=rtol)
    scale = np.abs(outputs_of(b, X)).max()
    np.testing.assert_allclose(outputs_of(a, X), outputs_of(b, X), rtol=rtol, atol=rtol * scale)
    for mine, theirs in zip(a.coefs_ + a.intercepts_, b.coefs_ + b.intercepts_, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=rtol, atol=rtol * np.abs(theirs).max())


def assert_identical(a, b):
    assert a.loss_curve_ == b.loss_curve_
    assert a.validation_scores_ == b.validation_scores_
    for mine, theirs in zip(a.coefs_ + a.intercepts_, b.coefs_ + b.intercepts_, strict=True):
        np.testing.assert_array_equal(mine, theirs)


# integer weights are repeated rows ----------------------------------------------------------------------------------------

TECHNIQUES = [
    {},
    {"batch_norm": True},
    # The gradient of the output's shift is 0 but for rounding, which Adam would turn into a step.
    {"batch_norm": BatchNorm(momentum=0.5, output=True), "optimizer": "sgd", "learning_rate_init": 0.1},
    {"dropout": 0.4},
    {"dropout": [0.0, 0.5], "activation": "relu"},
    {"input_dropout": 0.3},
    {"input_dropout": 0.2, "dropout": 0.3, "batch_norm": True},
    {"shuffle": False, "dropout": 0.2},
    {"regularizer": "l1"},
    {"regularizer": "l2", "max_norm": 0.6, "gradient_clipping": 0.1},
    {"regularizer": "l1_l2", "max_norm": 1.0, "batch_norm": True, "dropout": 0.1, "activation": "elu"},
    {"learning_rate": "exponential", "optimizer": "nesterov", "learning_rate_init": 0.05},
]


@kinds
@pytest.mark.parametrize("params", TECHNIQUES, ids=name_of)
def test_integer_weights_are_repeated_rows(kind, params):
    make, X, y = KINDS[kind]
    weighted = make(**params).fit(X, y, COUNTS)
    repeated = make(**params).fit(X.repeat(COUNTS, 0), y.repeat(COUNTS, 0))
    assert_same_fit(weighted, repeated, X)
    plain = make(**params).fit(X, y)
    assert not np.allclose(plain.loss_curve_, repeated.loss_curve_, rtol=1e-3)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_by_every_optimizer(optimizer):
    weighted = classifier(optimizer=optimizer, learning_rate_init=0.01).fit(X, Y, COUNTS)
    repeated = classifier(optimizer=optimizer, learning_rate_init=0.01).fit(X.repeat(COUNTS, 0), Y.repeat(COUNTS))
    assert_same_fit(weighted, repeated, X)


@pytest.mark.parametrize("loss", [*REGRESSION_LOSSES, Huber(0.3), Quantile(0.9), Quantile((0.1, 0.5, 0.8))], ids=str)
@pytest.mark.parametrize("params", [{}, {"batch_norm": True, "dropout": 0.2}, {"standardize_target": False}], ids=name_of)
def test_by_every_regression_loss(loss, params):
    y = np.round(np.abs(HEIGHTS)) if loss == "poisson" else HEIGHTS
    weighted = regressor(loss=loss, **params).fit(POINTS, y, COUNTS)
    repeated = regressor(loss=loss, **params).fit(POINTS.repeat(COUNTS, 0), y.repeat(COUNTS, 0))
    assert_same_fit(weighted, repeated, POINTS)
    np.testing.assert_allclose(weighted.target_mean_, repeated.target_mean_, rtol=1e-12)
    np.testing.assert_allclose(weighted.target_scale_, repeated.target_scale_, rtol=1e-12)


@pytest.mark.parametrize("kind", ["binary", "multiclass", "multilabel"])
@pytest.mark.parametrize("class_weight", ["balanced", {0: 0.3, 1: 2.0}, {1: 0.0}], ids=str)
@pytest.mark.parametrize("batch_norm", [False, True])
def test_with_class_weights(kind, class_weight, batch_norm):
    _, X, y = KINDS[kind]
    if kind == "multilabel" and class_weight != "balanced":
        class_weight = [class_weight, {}, {0: 0.5}]
    weighted, repeated = (classifier(class_weight=class_weight, batch_norm=batch_norm) for _ in range(2))
    weighted.fit(X, y, COUNTS)
    assert_same_fit(weighted, repeated.fit(X.repeat(COUNTS, 0), y.repeat(COUNTS, 0)), X)


@pytest.mark.parametrize("smoothing", [0.1, 0.9])
@pytest.mark.parametrize("kind", ["binary", "multiclass", "multilabel"])
def test_with_smoothed_labels(kind, smoothing):
    _, X, y = KINDS[kind]
    weighted, repeated = (classifier(label_smoothing=smoothing, batch_norm=True) for _ in range(2))
    weighted.fit(X, y, COUNTS)
    assert_same_fit(weighted, repeated.fit(X.repeat(COUNTS, 0), y.repeat(COUNTS, 0)), X)


def test_rows_given_twice_have_one_weight_together():
    # Equal rows lose the same units, wherever they stand.
    counts = COUNTS + 1
    rows = np.random.RandomState(2).permutation(np.arange(50).repeat(counts))
    first, second = (classifier(dropout=0.5, input_dropout=0.3, batch_norm=True) for _ in range(2))
    halves = np.r_[np.ones(50), counts - 1.0]
    assert_same_fit(first.fit(np.r_[X, X], np.r_[Y, Y], halves), second.fit(X[rows], Y[rows]), X)


@pytest.mark.parametrize("form", [np.asarray, scipy.sparse.csr_array], ids=["dense", "sparse"])
def test_only_equal_rows_are_twins(monkeypatch, form):
    given = []

    def spy(*args, twins, **named):
        given.append(twins)
        run_epoch_together(*args, twins=twins, **named)

    monkeypatch.setattr("skdnn.training.session.run_epoch_together", spy)
    rows, y = np.r_[X, X[::-1]], np.r_[Y, Y[::-1]]
    params = {"max_iter": 1, "n_iter_no_change": 1}
    classifier(dropout=0.5, **params).fit(form(rows), y)
    pairs = given[0].numpy()[:, None] == given[0].numpy()
    np.testing.assert_array_equal(pairs, (rows[:, None] == rows).all(-1))
    assert given[0].min() == 0
    assert given[0].max() == len(np.unique(X, axis=0)) - 1
    # The training rows alone are numbered, without a gap.
    classifier(dropout=0.5, early_stopping=True, validation_fraction=0.5, **params).fit(form(rows), y)
    assert given[1].max() < 50
    # With several batches, or without dropout, there is nothing to share.
    classifier(dropout=0.5, batch_size=99, **params).fit(form(rows), y)
    classifier(batch_norm=True, **params).fit(form(rows), y)
    assert given[2:] == [None, None]


# rows of weight 0 are not there -------------------------------------------------------------------------------------------


@kinds
@pytest.mark.parametrize(
    "params",
    [
        {"batch_size": 8},
        {"batch_size": 8, "batch_norm": True, "dropout": 0.2},
        {"dropout": 0.2},
        {"batch_size": 8, "early_stopping": True, "validation_fraction": 0.3},
        {"batch_size": "auto"},
    ],
    ids=name_of,
)
@pytest.mark.parametrize("weight", [SHARES, np.ones(50)], ids=["fractional", "unit"])
def test_rows_of_weight_zero_are_left_out(kind, params, weight):
    make, X, y = KINDS[kind]
    weight = np.where(COUNTS > 0, weight, 0.0)
    kept = weight > 0
    far = np.where(kept[:, None], X, 1e3)  # whatever they hold
    a = make(**params).fit(far, y, weight)
    b = make(**params).fit(X[kept], y[kept], weight[kept])
    assert_same_fit(a, b, X, rtol=1e-9)
    assert a.t_ == b.t_ == a.n_iter_ * kept.sum() or "early_stopping" in params
    if "early_stopping" in params:
        np.testing.assert_allclose(a.validation_scores_, b.validation_scores_, rtol=1e-9)


def test_classes_of_weight_zero_are_no_classes():
    weight = np.where(Y == 1, 0.0, SHARES)
    clf = classifier().fit(X, Y, weight)
    assert clf.classes_.tolist() == [0, 2]
    assert clf.n_outputs_ == 1
    assert_same_fit(clf, classifier().fit(X[Y != 1], Y[Y != 1], weight[Y != 1]), X, rtol=1e-12)
    names = np.array(["b", "a", "c"])[Y]
    named = classifier().fit(X, names, np.where(Y == 2, 0.0, 1.0))
    assert named.classes_.tolist() == ["a", "b"]


def test_the_number_of_rows_that_count_decides_about_batches():
    weight = np.where(np.arange(50) < 20, SHARES, 0.0)
    clf = classifier(batch_size="auto").fit(X[COUNTS.argsort()], Y[COUNTS.argsort()], weight)
    assert clf.t_ == 12 * 20
    with pytest.raises(ValueError, match="batches of 1 row"):
        regressor(batch_norm=True).fit(POINTS, HEIGHTS, np.eye(50)[3])


@pytest.mark.parametrize("fit", ["fit", "partial_fit"])
def test_a_stream_may_hold_unknown_classes_that_do_not_count(fit):
    weight = np.where(Y == 1, 0.0, 1.0)
    clf = classifier().partial_fit(X[Y != 1], Y[Y != 1], classes=[0, 2])
    getattr(clf.set_params(warm_start=True), fit)(X, Y, sample_weight=weight)
    assert clf.classes_.tolist() == [0, 2]


def test_one_class_that_counts_is_too_few():
    with pytest.raises(ValueError, match=r"sample_weight above 0 of at least 2 classes, but y has only one class: 1"):
        classifier().fit(X, Y, (Y == 1).astype(float))


@kinds
@pytest.mark.parametrize("fit", ["fit", "partial_fit"])
def test_weights_that_are_all_zero_are_refused(kind, fit):
    make, X, y = KINDS[kind]
    classes = {"classes": np.unique(Y) if y.ndim > 1 else np.unique(y)} if make is classifier and fit != "fit" else {}
    with pytest.raises(ValueError, match=r"(?i)weight.*zero"):
        getattr(make(), fit)(X, y, sample_weight=np.zeros(50), **classes)
    with pytest.raises(ValueError, match=r"(?i)weight.*zero"):
        make().fit(X, y, X_val=X, y_val=y, sample_weight_val=np.zeros(50))


def test_targets_that_do_not_count_may_be_what_the_loss_refuses():
    y = np.round(np.abs(HEIGHTS[:, 0]))
    bad = np.where(COUNTS > 0, y, -5.0)
    assert_same_fit(
        regressor(loss="poisson").fit(POINTS, bad, COUNTS), regressor(loss="poisson").fit(POINTS, y, COUNTS), POINTS, 1e-12
    )
    with pytest.raises(ValueError, match="poisson"):
        regressor(loss="poisson").fit(POINTS, bad, COUNTS + 1)


# only ratios count --------------------------------------------------------------------------------------------------------


@kinds
@pytest.mark.parametrize("factor", [1e-300, 0.3, 7.0, 1e9, 1e300])
@pytest.mark.parametrize("params", [{"batch_size": 16}, {"dropout": 0.3, "regularizer": "l2"}], ids=name_of)
def test_a_factor_changes_nothing(kind, factor, params):
    make, X, y = KINDS[kind]
    a, b = (make(**params).fit(X, y, weight) for weight in (SHARES, factor * SHARES))
    assert_same_fit(a, b, X, rtol=1e-9)


@pytest.mark.parametrize("factor", [1e-300, 1e-5, 1e-3, 0.1])
def test_a_factor_that_makes_no_counts_of_weights_changes_nothing_with_batch_norm(factor):
    # Below 1 a weight is a ratio, not a count. So are the weights of mean 1.
    unit = SHARES / SHARES.mean()
    a, b = (classifier(batch_norm=True, batch_size=16).fit(X, Y, weight) for weight in (unit, factor * unit))
    assert_same_fit(a, b, X, rtol=1e-9)


def test_counts_of_mean_up_to_a_million_are_counts():
    """The running variance is unbiased by the number of rows that weights stand for."""
    times = 1000 * np.ones(50)
    a, b = (classifier(batch_norm=BatchNorm(momentum=0.0), max_iter=1, n_iter_no_change=1) for _ in range(2))
    a.fit(X, Y, times)
    b.fit(X.repeat(3, 0), Y.repeat(3), np.full(150, 1000.0 / 3.0))
    for mine, theirs in zip(a._network.statistics.views(), b._network.statistics.views(), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-9)


# what may be given --------------------------------------------------------------------------------------------------------


@kinds
@pytest.mark.parametrize(
    "params", [{"batch_size": 16}, {"batch_norm": True, "dropout": 0.2, "early_stopping": True}], ids=name_of
)
def test_unit_weights_are_none(kind, params):
    make, X, y = KINDS[kind]
    plain = make(**params).fit(X, y)
    units = (np.ones(50), np.ones(50, dtype=int), [1] * 50, 1.0, np.ones(50, dtype=bool))
    for unit in units if kind == "binary" else units[:1]:
        assert_identical(make(**params).fit(X, y, sample_weight=unit), plain)


WEIGHTS = np.linspace(0.5, 3.5, 50).astype(np.float32)
FORMS = {
    "list": WEIGHTS.tolist(),
    "tuple": tuple(WEIGHTS.tolist()),
    "float32": WEIGHTS,
    "float64": WEIGHTS.astype(np.float64),
    "strided": np.repeat(WEIGHTS, 2)[::2],
    "backwards": WEIGHTS[::-1].copy()[::-1],
    "pandas": pd.Series(WEIGHTS, index=np.arange(100, 150)),
    "polars": pl.Series(WEIGHTS),
    "object": WEIGHTS.astype(object),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms(form):
    assert_identical(classifier().fit(X, Y, FORMS[form]), classifier().fit(X, Y, WEIGHTS.astype(np.float64)))


@pytest.mark.parametrize("factor", [1.0, 1e-20])
def test_the_callers_array_is_not_touched_and_may_be_read_only(factor):
    weight = factor * np.where(COUNTS > 0, SHARES, 0.0)
    before = weight.copy()
    weight.flags.writeable = False
    clf = classifier(early_stopping=True).fit(X, Y, weight)
    clf.fit(X, Y, weight, X_val=X, y_val=Y, sample_weight_val=weight)
    clf.partial_fit(X, Y, sample_weight=weight)
    np.testing.assert_array_equal(weight, before)
    writeable = before.copy()
    classifier().fit(X, Y, writeable)
    np.testing.assert_array_equal(writeable, before)


def bad(value):
    weight = np.ones(50)
    weight[7] = value
    return weight


BAD = {
    "too_few": (np.ones(49), "sample_weight.shape"),
    "too_many": (np.ones(51), "sample_weight.shape"),
    "empty": (np.ones(0), "(?i)sample"),
    "negative": (bad(-1e-9), "(?i)negative.*sample_weight"),
    "nan": (bad(np.nan), "NaN"),
    "inf": (bad(np.inf), "infinity"),
    "minus_inf": (bad(-np.inf), "infinity"),
    "column": (np.ones((50, 1)), "1D|1d"),
    "matrix": (np.ones((50, 2)), "1D|1d"),
    "strings": (["much"] * 50, "convert"),
    "nan_float": (np.nan, "NaN|nan"),
    "inf_float": (np.inf, "(?i)inf"),
    "negative_float": (-1.0, "(?i)negative"),
    "zero_float": (0.0, "(?i)zero"),
}


@pytest.mark.parametrize("make", [classifier, regressor])
@pytest.mark.parametrize("case", BAD)
def test_bad_weights_are_refused(make, case):
    weight, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        make().fit(X, Y, weight)
    with pytest.raises(ValueError, match=message):
        make().fit(X, Y, X_val=X, y_val=Y, sample_weight_val=weight)
    model = make().fit(X, Y)
    before = outputs_of(model, X)
    with pytest.raises(ValueError, match=message):
        model.partial_fit(X, Y, sample_weight=weight)
    np.testing.assert_array_equal(outputs_of(model, X), before)


EXTREMES = {
    "tiny": np.full(50, 1e-300),
    "subnormal": np.full(50, 5e-324),
    "huge": np.full(50, 1e300),
    "largest": np.full(50, np.finfo(np.float64).max),
    "one_huge": np.where(np.arange(50) == 1, 1e300, 1.0),
    "one_tiny": np.where(np.arange(50) == 1, 1e-300, 1.0),
    "mixed": np.logspace(-60, 0, 50),
    "all_sizes": np.logspace(-300, 300, 50),
    "large_and_small": np.where(np.arange(50) % 2, 1e-60, 1.0),
}


@pytest.mark.parametrize("make", [classifier, regressor])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("params", [{"batch_size": 8, "batch_norm": True}, {"dropout": 0.2}], ids=name_of)
@pytest.mark.parametrize("case", EXTREMES)
def test_extreme_weights_stay_finite(make, case, params, dtype):
    model = make(max_iter=4, n_iter_no_change=4, **params).fit(X.astype(dtype), Y, EXTREMES[case])
    assert model.coefs_[0].dtype == dtype
    assert np.isfinite(model.loss_curve_).all()
    assert all(np.isfinite(kernel).all() for kernel in model.coefs_)
    assert np.isfinite(outputs_of(model, X.astype(dtype))).all()
    scored = make(max_iter=2, n_iter_no_change=2).fit(X.astype(dtype), Y, X_val=X, y_val=Y, sample_weight_val=EXTREMES[case])
    assert np.isfinite(scored.validation_scores_).all()
    assert np.isfinite(scored.history_[:, "valid_loss"]).all()


def test_a_row_that_hardly_counts_is_a_row_left_out():
    weight = np.where(COUNTS == 1, 1e-60, SHARES)
    for params in ({}, {"batch_norm": True}):
        a = classifier(**params).fit(X, Y, weight)
        b = classifier(**params).fit(X[COUNTS != 1], Y[COUNTS != 1], SHARES[COUNTS != 1])
        assert_same_fit(a, b, X)


# batches, streams and going on --------------------------------------------------------------------------------------------


def test_the_reported_loss_is_the_weighted_mean():
    clf = classifier(batch_size=7, max_iter=1, n_iter_no_change=1, learning_rate_init=1e-13)
    clf.fit(X, Y, SHARES)
    assert clf.loss_ == pytest.approx(log_loss(Y, clf.predict_proba(X), sample_weight=SHARES), rel=1e-9)
    reg = regressor(batch_size=7, max_iter=1, n_iter_no_change=1, learning_rate_init=1e-13).fit(POINTS, HEIGHTS, SHARES)
    residual = (HEIGHTS - reg.predict(POINTS)) / reg.target_scale_
    assert reg.loss_ == pytest.approx(np.average((residual**2 / 2).mean(1), weights=SHARES), rel=1e-9)
    np.testing.assert_allclose(reg.target_mean_, np.average(HEIGHTS, 0, SHARES), rtol=1e-12)
    np.testing.assert_allclose(reg.target_scale_**2, np.average((HEIGHTS - reg.target_mean_) ** 2, 0, SHARES), rtol=1e-12)


@kinds
@pytest.mark.parametrize(
    "params",
    [
        {"batch_size": 16},
        {"batch_norm": True, "dropout": 0.2, "optimizer": Momentum()},
        {"batch_size": 16, "batch_norm": True, "input_dropout": 0.2},
    ],
    ids=name_of,
)
def test_partial_fits_are_the_epochs_of_a_fit(kind, params):
    make, X, y = KINDS[kind]
    weight = np.where(COUNTS > 0, SHARES, 0.0)
    whole = make(**params | {"max_iter": 4, "n_iter_no_change": 4}).fit(X, y, weight)
    parts = make(**params)
    classes = {"classes": np.arange(y.shape[1]) if y.ndim > 1 else np.unique(y)} if make is classifier else {}
    for _ in range(4):
        parts.partial_fit(X, y, sample_weight=weight, **classes)
    assert_identical(parts, whole)


def test_a_stream_may_have_weights_now_and_then():
    parts = classifier(batch_norm=True, dropout=0.2, optimizer=SGD(), learning_rate_init=0.1)
    plain = classifier(batch_norm=True, dropout=0.2, optimizer=SGD(), learning_rate_init=0.1)
    for weight in (None, SHARES, None):
        parts.partial_fit(X, Y, classes=[0, 1, 2], sample_weight=weight)
        plain.partial_fit(X, Y, classes=[0, 1, 2])
    assert parts.loss_curve_[0] == plain.loss_curve_[0]
    assert parts.loss_curve_[1] != plain.loss_curve_[1]
    assert not np.allclose(parts.coefs_[0], plain.coefs_[0])


@kinds
def test_warm_start_weighs_too(kind):
    make, X, y = KINDS[kind]
    weighted, repeated = (make(warm_start=True, batch_norm=True).fit(X, y) for _ in range(2))
    weighted.fit(X, y, COUNTS)
    repeated.fit(X.repeat(COUNTS, 0), y.repeat(COUNTS, 0))
    assert_same_fit(weighted, repeated, X)


@pytest.mark.parametrize("params", [{}, {"dropout": 0.3}, {"optimizer": "sgd", "learning_rate_init": 0.1}], ids=name_of)
@pytest.mark.parametrize("with_counts", [False, True])
def test_class_weights_are_the_weights_of_their_rows(params, with_counts):
    # Of one batch of all rows, and of the loss alone: batch norm counts rows, not what they are worth.
    of_class, counts = np.array([0.5, 4.0, 1.5]), SHARES if with_counts else np.ones(50)
    a = classifier(class_weight=dict(enumerate(of_class)), **params).fit(X, Y, counts)
    b = classifier(**params).fit(X, Y, counts * of_class[Y])
    assert_same_fit(a, b, X, rtol=1e-8)


@pytest.mark.parametrize("batch_size", [16, 1000])
def test_balanced_classes_have_the_same_sum_of_weights(batch_size):
    sums = np.bincount(Y, SHARES)
    a = classifier(class_weight="balanced", batch_size=batch_size).fit(X, Y, SHARES)
    by_hand = dict(enumerate(SHARES.sum() / (3 * sums)))
    b = classifier(class_weight=by_hand, batch_size=batch_size).fit(X, Y, SHARES)
    assert_same_fit(a, b, X, rtol=1e-9)


# validation ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [SHARES[:20], 1e-200 * SHARES[:20], COUNTS[:20], COUNTS[:20] * 1e200, None], ids=name_of)
@pytest.mark.parametrize("kind", ["binary", "multiclass"])
def test_validation_is_scikit_learns(kind, weight):
    _, X, y = KINDS[kind]
    X_val, y_val = X[15:35] + 0.5, np.roll(y, 7)[15:35]
    clf = classifier(learning_rate_init=0.05)
    clf.fit(X, y, SHARES, X_val=X_val, y_val=y_val, sample_weight_val=weight)
    best = clf.history_[clf.best_epoch_ - 1]
    losses = log_loss(y_val, clf.predict_proba(X_val), sample_weight=weight, labels=np.unique(y))
    assert best["valid_loss"] == pytest.approx(losses, rel=1e-9)
    score = accuracy_score(y_val, clf.predict(X_val), sample_weight=weight)
    assert best["valid_score"] == clf.best_validation_score_ == pytest.approx(score, rel=1e-12)
    assert clf.score(X_val, y_val, sample_weight=weight) == pytest.approx(score, rel=1e-12)


@pytest.mark.parametrize("weight", [SHARES[:20], COUNTS[:20], COUNTS[:20] * 1e-200, None], ids=name_of)
@pytest.mark.parametrize("loss", ["squared_error", "huber", "quantile", "poisson"])
@pytest.mark.parametrize("n_targets", [1, 2])
def test_validation_of_a_regressor_is_scikit_learns(weight, loss, n_targets):
    y = np.abs(HEIGHTS[:, :n_targets])
    X_val, y_val = POINTS[15:35], np.roll(y, 1, 0)[15:35] + y[15:35]
    reg = regressor(loss=loss, learning_rate_init=0.05)
    reg.fit(POINTS, y, SHARES, X_val=X_val, y_val=y_val, sample_weight_val=weight)
    score = r2_score(y_val, reg.predict(X_val), sample_weight=weight)
    assert reg.best_validation_score_ == pytest.approx(score, rel=1e-9)
    assert reg.score(X_val, y_val, sample_weight=weight) == pytest.approx(score, rel=1e-12)


def test_validation_of_levels_is_weighted():
    levels, weight = (0.2, 0.7), COUNTS[:20]
    reg = regressor(loss=Quantile(levels)).fit(
        POINTS, HEIGHTS[:, 0], X_val=POINTS[:20], y_val=HEIGHTS[:20, 0], sample_weight_val=weight
    )
    repeated = regressor(loss=Quantile(levels))
    repeated.fit(POINTS, HEIGHTS[:, 0], X_val=POINTS[:20].repeat(weight, 0), y_val=HEIGHTS[:20, 0].repeat(weight))
    np.testing.assert_allclose(reg.validation_scores_, repeated.validation_scores_, rtol=1e-9)
    predicted = reg.predict(POINTS[:20])
    expected = [
        d2_pinball_score(HEIGHTS[:20, 0], predicted[:, i], sample_weight=weight, alpha=level) for i, level in enumerate(levels)
    ]
    assert reg.score(POINTS[:20], HEIGHTS[:20, 0], sample_weight=weight) == pytest.approx(np.mean(expected))


def test_class_weights_and_sample_weights_multiply_in_validation():
    of_class = np.array([0.5, 4.0, 1.5])
    clf = classifier(class_weight=dict(enumerate(of_class)))
    clf.fit(X, Y, X_val=X[:20], y_val=Y[:20], sample_weight_val=SHARES[:20])
    weight, best = SHARES[:20] * of_class[Y[:20]], clf.history_[clf.best_epoch_ - 1]
    assert best["valid_loss"] == pytest.approx(
        log_loss(Y[:20], clf.predict_proba(X[:20]), sample_weight=weight, labels=[0, 1, 2])
    )
    assert best["valid_score"] == pytest.approx(accuracy_score(Y[:20], clf.predict(X[:20]), sample_weight=weight))


def test_labels_have_one_weight_a_row_in_validation():
    weight = COUNTS[:20]
    a, b = (classifier(class_weight="balanced") for _ in range(2))
    a.fit(ROWS, LABELS, X_val=ROWS[:20], y_val=LABELS[:20], sample_weight_val=weight)
    b.fit(ROWS, LABELS, X_val=ROWS[:20].repeat(weight, 0), y_val=LABELS[:20].repeat(weight, 0))
    np.testing.assert_allclose(a.validation_scores_, b.validation_scores_, rtol=1e-12)
    np.testing.assert_allclose(a.history_[:, "valid_loss"], b.history_[:, "valid_loss"], rtol=1e-12)
    score = accuracy_score(LABELS[:20], a.predict(ROWS[:20]), sample_weight=weight)
    assert a.best_validation_score_ == pytest.approx(score)


@kinds
@pytest.mark.parametrize("monitor", ["auto", "loss"])
def test_rows_set_aside_keep_their_weights(kind, monitor):
    """A watcher in the guise of a scorer shows the rows; what is scored is recomputed from them."""
    make, X, y = KINDS[kind]
    seen = []

    def watch(estimator, X_val, y_val, sample_weight=None):
        seen.append((X_val, y_val, sample_weight))
        return 0.0

    params = {"early_stopping": True, "validation_fraction": 0.3, "batch_size": 8, "learning_rate_init": 0.02}
    make(monitor=watch, **params).fit(X, y, SHARES)
    X_val, y_val, weight = seen[0]
    assert len(X_val) == 15
    places = [
        int(np.flatnonzero((row == X).all(1) & np.isclose(SHARES, own))[0]) for row, own in zip(X_val, weight, strict=True)
    ]
    np.testing.assert_array_equal(y[places], y_val)
    np.testing.assert_allclose(weight, SHARES[places])
    model = make(monitor=monitor, **params).fit(X, y, SHARES)
    if monitor == "auto":
        assert model.best_validation_score_ == pytest.approx(model.score(X_val, y_val, sample_weight=weight), rel=1e-9)
    elif y.ndim == 1 and make is classifier:
        expected = log_loss(y_val, model.predict_proba(X_val), sample_weight=weight)
        assert model.best_validation_score_ == pytest.approx(-expected, rel=1e-9)
    others = [model.score(X_val, y_val), model.score(X, y)]
    assert make is classifier or not np.isclose(others, model.best_validation_score_, rtol=1e-6).any()


def test_validation_rows_that_do_not_count_may_be_anything_in_the_score():
    """Zero weights leave validation rows out, as they do training rows."""
    weight = np.where(COUNTS[:20] > 0, SHARES[:20], 0.0)
    kept = weight > 0
    far = np.where(kept[:, None], POINTS[:20], 50.0)
    y_val = np.where(kept, HEIGHTS[:20, 0], -1e6)
    for loss in ("squared_error", "huber"):
        a = regressor(loss=loss).fit(POINTS, HEIGHTS[:, 0], X_val=far, y_val=y_val, sample_weight_val=weight)
        b = regressor(loss=loss)
        b.fit(POINTS, HEIGHTS[:, 0], X_val=POINTS[:20][kept], y_val=HEIGHTS[:20, 0][kept], sample_weight_val=weight[kept])
        np.testing.assert_allclose(a.validation_scores_, b.validation_scores_, rtol=1e-9)
        np.testing.assert_allclose(a.history_[:, "valid_loss"], b.history_[:, "valid_loss"], rtol=1e-9)


def test_a_validation_target_that_varies_only_where_it_does_not_count():
    # r2_score: without a spread 1 if the target is met, else 0.
    y_val, weight = np.array([2.0, 2.0, 2.0, 9.0]), np.array([1.0, 1.0, 2.0, 0.0])
    reg = regressor().fit(POINTS, HEIGHTS[:, 0], X_val=POINTS[:4], y_val=y_val, sample_weight_val=weight)
    assert reg.best_validation_score_ == r2_score(y_val, reg.predict(POINTS[:4]), sample_weight=weight) == 0.0


def test_poisson_targets_of_validation_rows_that_do_not_count():
    y = np.abs(HEIGHTS[:, 0])
    weight = np.where(COUNTS[:20] > 0, SHARES[:20], 0.0)
    y_val = np.where(weight > 0, y[:20], -3.0)
    for monitor in ("auto", "loss"):
        reg = regressor(loss=Poisson(), monitor=monitor)
        reg.fit(POINTS, y, X_val=POINTS[:20], y_val=y_val, sample_weight_val=weight)
        assert np.isfinite(reg.history_[:, "valid_loss"]).all()


def test_unknown_classes_of_validation_rows_that_do_not_count():
    weight = np.r_[SHARES[:20], 0.0, 0.0]
    X_val, y_val = np.r_[X[15:35], X[:2]], np.r_[Y[15:35], 7, -7]
    for monitor in ("auto", "loss", "accuracy", "neg_log_loss"):
        a, b = (classifier(monitor=monitor) for _ in range(2))
        a.fit(X, Y, X_val=X_val, y_val=y_val, sample_weight_val=weight)
        b.fit(X, Y, X_val=X[15:35], y_val=Y[15:35], sample_weight_val=SHARES[:20])
        np.testing.assert_allclose(a.validation_scores_, b.validation_scores_, rtol=1e-12)


def test_weights_of_validation_rows_need_these_rows():
    with pytest.raises(ValueError, match="sample_weight_val needs X_val and y_val"):
        classifier(early_stopping=True).fit(X, Y, sample_weight_val=SHARES)


# scikit-learn's plumbing --------------------------------------------------------------------------------------------------


@pytest.fixture
def _routing():
    with sklearn.config_context(enable_metadata_routing=True):
        yield


@pytest.mark.usefixtures("_routing")
@pytest.mark.parametrize("kind", ["multiclass", "number"])
def test_routing_through_a_pipeline(kind):
    make, X, y = KINDS[kind]
    model = make(batch_size=16).set_fit_request(sample_weight=True, X_val=True, y_val=True, sample_weight_val=True)
    model.set_score_request(sample_weight=True)
    scaler = StandardScaler().set_fit_request(sample_weight=False)
    pipeline = Pipeline([("scaler", scaler), ("model", model)], transform_input=["X_val"])
    validation = {"X_val": X[:20] + 0.1, "y_val": y[:20], "sample_weight_val": COUNTS[:20]}
    pipeline.fit(X, y, sample_weight=SHARES, **validation)
    scaler = StandardScaler().fit(X)
    alone = make(batch_size=16)
    alone.fit(scaler.transform(X), y, SHARES, **validation | {"X_val": scaler.transform(validation["X_val"])})
    assert_identical(pipeline[-1], alone)
    score = pipeline.score(validation["X_val"], y[:20], sample_weight=COUNTS[:20])
    assert score == pytest.approx(alone.best_validation_score_, rel=1e-9)


@pytest.mark.usefixtures("_routing")
def test_routing_through_a_search():
    requests = {"sample_weight": True, "X_val": True, "y_val": True, "sample_weight_val": True}
    clf = classifier(batch_size=16).set_fit_request(**requests).set_score_request(sample_weight=True)
    grid = {"hidden_layer_sizes": [(3,), (8,)]}
    validation = {"X_val": X[:20], "y_val": Y[:20], "sample_weight_val": COUNTS[:20]}
    search = GridSearchCV(clf, grid, cv=3).fit(X, Y, sample_weight=SHARES, **validation)
    again = classifier(batch_size=16, **search.best_params_).fit(X, Y, SHARES, **validation)
    assert_identical(search.best_estimator_, again)
    train, test = next(StratifiedKFold(3).split(X, Y))
    for i, sizes in enumerate(grid["hidden_layer_sizes"]):
        own = classifier(batch_size=16, hidden_layer_sizes=sizes).fit(X[train], Y[train], SHARES[train], **validation)
        expected = own.score(X[test], Y[test], sample_weight=SHARES[test])
        assert search.cv_results_["split0_test_score"][i] == pytest.approx(expected)
