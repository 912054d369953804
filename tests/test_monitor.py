"""What decides when to stop, and which epoch is best: the own score, the loss, or any scorer."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import sklearn
from naming import name_of
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris, make_multilabel_classification
from sklearn.metrics import accuracy_score, f1_score, get_scorer, log_loss, make_scorer, mean_absolute_error
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.preprocessing import StandardScaler

from skdnn import MLPDeepClassifier, MLPDeepRegressor
from skdnn.engine import Network


def halves(X, y, n_rows=150):
    X = StandardScaler().fit_transform(X)
    return train_test_split(X, y, train_size=n_rows // 2, test_size=n_rows // 2, random_state=1)


# X, X_val, y, y_val.
BINARY = halves(*load_breast_cancer(return_X_y=True))
FLOWERS = halves(*load_iris(return_X_y=True))
LABELS = halves(*make_multilabel_classification(200, n_features=8, n_classes=3, random_state=0))
PATIENTS = halves(*load_diabetes(return_X_y=True))
WEIGHTS = np.random.RandomState(0).uniform(0.1, 3.0, 75)


def params_of(params):
    return {
        "hidden_layer_sizes": (6,),
        "batch_size": 16,
        "max_iter": 8,
        "n_iter_no_change": 8,
        "learning_rate_init": 0.02,
        "random_state": 0,
    } | params


def classifier(**params):
    return MLPDeepClassifier(**params_of(params))


def regressor(**params):
    return MLPDeepRegressor(**params_of(params))


SCORERS = {
    "binary": (
        classifier,
        BINARY,
        ["roc_auc", "f1", "average_precision", "neg_log_loss", "neg_brier_score", "balanced_accuracy", "accuracy", "recall"],
    ),
    "multiclass": (classifier, FLOWERS, ["f1_macro", "neg_log_loss", "roc_auc_ovr", "roc_auc_ovo_weighted", "accuracy"]),
    "multilabel": (classifier, LABELS, ["f1_micro", "roc_auc", "accuracy", "average_precision"]),
    "numbers": (
        regressor,
        PATIENTS,
        ["neg_mean_absolute_error", "neg_root_mean_squared_error", "r2", "explained_variance", "neg_median_absolute_error"],
    ),
}
CASES = [(kind, name) for kind, (_, _, names) in SCORERS.items() for name in names]


def report_mean_error(estimator, X, y, sample_weight=None):
    """A scorer that a pickle can name."""
    return -mean_absolute_error(y, estimator.predict(X), sample_weight=sample_weight)


@pytest.mark.parametrize(("kind", "name"), CASES)
@pytest.mark.parametrize("is_weighted", [False, True], ids=["plain", "weighted"])
def test_a_named_scorer_is_scikit_learns(kind, name, is_weighted):
    make, (X, X_val, y, y_val), _ = SCORERS[kind]
    is_weighted = is_weighted and name != "roc_auc_ovo_weighted"  # it takes no weights
    weights = {"sample_weight": WEIGHTS} if is_weighted else {}
    own = {"sample_weight_val": WEIGHTS} if is_weighted else {}
    model = make(monitor=name).fit(X, y, X_val=X_val, y_val=y_val, **own)
    score = get_scorer(name)(model, X_val, y_val, **weights)
    assert model.best_validation_score_ == max(model.validation_scores_) == pytest.approx(score, rel=1e-12)
    assert model.best_epoch_ == np.argmax(model.validation_scores_) + 1
    assert model.validation_scores_ == model.history_[:, "valid_score"]
    assert model.best_loss_ is None
    # A stream of epochs goes the same way; what stands after each of them is scored.
    stream = make()
    classes = {"classes": np.arange(y.shape[1]) if y.ndim > 1 else np.unique(y)} if make is classifier else {}
    for expected in model.validation_scores_:
        stream.partial_fit(X, y, **classes)
        assert get_scorer(name)(stream, X_val, y_val, **weights) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("kind", SCORERS)
def test_a_scorer_as_an_object_or_as_a_function_is_its_name(kind):
    make, (X, X_val, y, y_val), (name, *_) = SCORERS[kind]
    scorer = get_scorer(name)

    def function(estimator, X, y):
        return scorer(estimator, X, y)

    curves = [
        make(monitor=monitor).fit(X, y, X_val=X_val, y_val=y_val).validation_scores_ for monitor in (name, scorer, function)
    ]
    assert curves[0] == curves[1] == curves[2]


@pytest.mark.parametrize("kind", SCORERS)
def test_the_loss_is_minus_the_validation_loss(kind):
    make, (X, X_val, y, y_val), _ = SCORERS[kind]
    model = make(monitor="loss").fit(X, y, X_val=X_val, y_val=y_val)
    losses = model.history_[:, "valid_loss"]
    assert model.validation_scores_ == [-loss for loss in losses]
    assert model.best_epoch_ == np.argmin(losses) + 1
    assert model.best_validation_score_ == -min(losses) < 0
    auto = make().fit(X, y, X_val=X_val, y_val=y_val)
    assert auto.history_[:, "valid_loss"] == losses
    if kind == "multiclass":
        assert -model.best_validation_score_ == pytest.approx(log_loss(y_val, model.predict_proba(X_val)), rel=1e-9)


def test_the_loss_of_the_training_rows_decides_without_validation_rows():
    X, _, y, _ = FLOWERS
    a, b = classifier(monitor="loss").fit(X, y), classifier().fit(X, y)
    assert a.loss_curve_ == b.loss_curve_
    assert a.validation_scores_ is None
    assert a.best_loss_ == b.best_loss_


@pytest.mark.parametrize("kind", SCORERS)
def test_rows_set_aside_are_scored(kind):
    make, (X, _, y, _), (name, *_) = SCORERS[kind]
    seen = []

    def spy(estimator, X_val, y_val):
        seen.append((X_val, y_val))
        return get_scorer(name)(estimator, X_val, y_val)

    params = {"early_stopping": True, "validation_fraction": 0.4}
    model = make(monitor=spy, **params).fit(X, y)
    X_val, y_val = seen[0]
    assert len(seen) == 8
    assert all(rows is X_val and targets is y_val for rows, targets in seen)
    assert len(X_val) == 30
    places = [int(np.flatnonzero((row == X).all(1))[0]) for row in X_val]
    np.testing.assert_array_equal(y[places], y_val)
    assert model.best_validation_score_ == pytest.approx(get_scorer(name)(model, X_val, y_val), rel=1e-12)
    named = make(monitor=name, **params).fit(X, y)
    assert named.validation_scores_ == model.validation_scores_
    assert named.best_epoch_ == model.best_epoch_
    for mine, theirs in zip(named.coefs_, model.coefs_, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_own_rows_take_the_place_of_those_set_aside():
    X, X_val, y, y_val = FLOWERS
    a, b = (classifier(monitor="f1_macro", early_stopping=stops).fit(X, y, X_val=X_val, y_val=y_val) for stops in (True, False))
    assert a.validation_scores_ == b.validation_scores_


# tol, and what is best ----------------------------------------------------------------------------------------------------


class Scripted:
    """A scorer that gives what it was told to, whatever it sees."""

    def __init__(self, *scores):
        self.scores = iter(scores)

    def __deepcopy__(self, memo):
        return self

    def __call__(self, estimator, X, y):
        return next(self.scores)


SCRIPTS = [
    # Scores, tol, epochs that are run with n_iter_no_change=2, and the best one.
    ([-5.0, -4.0, -4.0, -4.5, -4.0, 0.0], 1e-4, 5, 2),
    ([-5.0, -4.95, -4.9, -4.85, -4.8, 0.0], 0.1, 4, 4),
    ([-5.0, -4.99, -4.98, -4.97, -4.96, 0.0], 0.1, 4, 4),
    ([-1e6, -9e5, -8e5, -8e5 + 10, -8e5 + 20, -8e5 + 30], 100.0, 6, 6),
    ([3.0, 2.0, 1.0, 0.0], 0.0, 4, 1),
    ([-1.0, -1.0, -1.0, -1.0], 0.0, 6, 1),
    ([-0.3, -0.2, -0.2 + 1e-5, -0.2 + 2e-5, -0.2 + 3e-5], 1e-4, 5, 5),
]


@pytest.mark.parametrize(("scores", "tol", "n_iter", "best"), SCRIPTS, ids=name_of)
@pytest.mark.parametrize("make", [classifier, regressor])
def test_tol_is_an_amount_of_the_score(make, scores, tol, n_iter, best):
    X, X_val, y, y_val = FLOWERS
    scores = (scores + [scores[-1]] * 6)[:6]
    model = make(monitor=Scripted(*scores), tol=tol, n_iter_no_change=2, max_iter=6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(X, y, X_val=X_val, y_val=y_val)
    assert model.n_iter_ == n_iter
    assert model.best_epoch_ == best
    assert model.validation_scores_ == scores[:n_iter]
    assert model.best_validation_score_ == scores[best - 1]
    kept = make(max_iter=best, n_iter_no_change=best).fit(X, y)
    for mine, theirs in zip(model.coefs_, kept.coefs_, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_scores_are_in_the_unit_of_the_targets():
    X, X_val, y, y_val = PATIENTS
    a, b = (
        regressor(monitor="neg_mean_absolute_error").fit(X, unit * y + 5.0, X_val=X_val, y_val=unit * y_val + 5.0)
        for unit in (1.0, 1000.0)
    )
    np.testing.assert_allclose(np.multiply(1000.0, a.validation_scores_), b.validation_scores_, rtol=1e-9)
    assert a.best_validation_score_ < -1.0


def test_the_estimator_is_scored_on_labels_as_given():
    X, X_val, y, y_val = BINARY
    names = np.array(["sick", "well"])
    sick = make_scorer(f1_score, pos_label="sick")
    clf = classifier(monitor=sick).fit(X, names[y], X_val=X_val, y_val=names[y_val])
    assert clf.best_validation_score_ == pytest.approx(f1_score(names[y_val], clf.predict(X_val), pos_label="sick"))
    auc = classifier(monitor="roc_auc").fit(X, names[y], X_val=X_val, y_val=names[y_val])
    plain = classifier(monitor="roc_auc").fit(X, y, X_val=X_val, y_val=y_val)
    assert auc.validation_scores_ == plain.validation_scores_


# the estimator that a scorer is given -------------------------------------------------------------------------------------


def watch(make, data, look, **params):
    """Fit one epoch, and return the estimator and what `look` says of the one that the scorer was given."""
    X, X_val, y, y_val = data
    seen = []

    def scorer(estimator, X, y):
        seen.append(look(estimator, X, y))
        return 0.0

    model = make(monitor=scorer, max_iter=1, n_iter_no_change=1, **params).fit(X, y, X_val=X_val, y_val=y_val)
    return model, seen[0]


@pytest.mark.parametrize("kind", SCORERS)
@pytest.mark.parametrize("params", [{}, {"batch_norm": True, "dropout": 0.3}], ids=name_of)
def test_it_predicts_other_rows_too(kind, params):
    make, data, _ = SCORERS[kind]
    X, X_val, *_ = data
    methods = ["predict", "predict_proba", "decision_function"] if make is classifier else ["predict"]
    others = [X, X_val[3:9], X_val[::-1], X_val.copy(), X_val.tolist(), scipy.sparse.csr_array(X_val)]

    def look(estimator, rows, _):
        return [getattr(estimator, method)(some) for method in methods for some in [rows, *others]]

    model, seen = watch(make, data, look, **params)
    expected = [getattr(model, method)(some) for method in methods for some in [X_val, *others]]
    for mine, theirs in zip(seen, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-12)


def test_it_refuses_what_a_fitted_one_refuses():
    def look(estimator, X, y):
        with pytest.raises(ValueError, match="features"):
            estimator.predict(X[:, :2])

    watch(classifier, FLOWERS, look)


@pytest.mark.parametrize(
    "name", ["coefs_", "intercepts_", "module_", "classes_", "n_features_in_", "n_outputs_", "out_activation_", "n_layers_"]
)
def test_it_has_the_attributes_of_a_fitted_one(name):
    model, seen = watch(classifier, FLOWERS, lambda estimator, X, y: np.copy(str(getattr(estimator, name))))
    assert seen == str(getattr(model, name))


def test_it_is_a_copy():
    def look(estimator, X, y):
        estimator.note, estimator.max_iter = "mine", 99
        return estimator.get_params(), clone(estimator)

    model, (params, unfitted) = watch(classifier, FLOWERS, look)
    assert not hasattr(model, "note")
    assert model.max_iter == 1
    assert params["hidden_layer_sizes"] == unfitted.hidden_layer_sizes == (6,)
    assert "_outputs" not in vars(model)


@pytest.mark.parametrize("name", ["roc_auc", "neg_log_loss", "f1"])
def test_validation_rows_pass_through_the_network_once_an_epoch(monkeypatch, name):
    X, X_val, y, y_val = BINARY
    calls, predict = [], Network.predict
    monkeypatch.setattr(Network, "predict", lambda self, X, rows=None: (calls.append(len(X)), predict(self, X, rows))[1])

    def greedy(estimator, X, y):
        estimator.predict_proba(X)
        estimator.predict(X)
        return get_scorer(name)(estimator, X, y)

    for monitor in (name, greedy):
        for data in ({"X_val": X_val, "y_val": y_val}, {}):
            calls.clear()
            clf = classifier(monitor=monitor, early_stopping=True).fit(X, y, **data)
            assert len(calls) == clf.n_iter_ == 8


def test_names_of_features_are_known_to_it():
    frames = [pd.DataFrame(rows, columns=list("abcd")) for rows in FLOWERS[:2]]
    X, X_val, y, y_val = *frames, *FLOWERS[2:]
    clf = classifier(monitor="f1_macro").fit(X, y, X_val=X_val, y_val=y_val)
    bare = classifier(monitor="f1_macro").fit(*FLOWERS[::2], X_val=FLOWERS[1], y_val=y_val)
    assert clf.validation_scores_ == bare.validation_scores_
    assert classifier(monitor="f1_macro", early_stopping=True).fit(X, y).n_iter_ == 8


def test_a_part_of_the_rows_it_is_given_can_be_predicted_after_a_fit_with_names():
    """Rows that come from the estimator itself cause no warning that their names are missing."""
    names = list("abcd")
    X, X_val, y, y_val = FLOWERS
    clf = classifier(monitor=lambda estimator, X, y: estimator.score(X[:10], y[:10]))
    clf.fit(pd.DataFrame(X, columns=names), y, X_val=pd.DataFrame(X_val, columns=names), y_val=y_val)
    assert clf.best_validation_score_ == clf.score(pd.DataFrame(X_val[:10], columns=names), y_val[:10])


# going on, keeping, searching ---------------------------------------------------------------------------------------------


def test_warm_start_scores_the_network_that_goes_on():
    X, X_val, y, y_val = FLOWERS
    clf = classifier(monitor="neg_log_loss", warm_start=True)
    first = list(clf.fit(X, y, X_val=X_val, y_val=y_val).validation_scores_)
    clf.fit(X, y, X_val=X_val, y_val=y_val)
    assert clf.validation_scores_[:8] == first
    assert len(clf.validation_scores_) == 16
    assert clf.best_validation_score_ == max(clf.validation_scores_[8:])
    assert clf.best_validation_score_ == pytest.approx(-log_loss(y_val, clf.predict_proba(X_val)), rel=1e-12)
    assert clf.best_epoch_ == 9 + np.argmax(clf.validation_scores_[8:])


def test_a_stream_validates_nothing_and_takes_any_monitor():
    X, _, y, _ = FLOWERS
    clf = classifier(monitor="f1_macro").partial_fit(X, y, classes=[0, 1, 2])
    assert clf.validation_scores_ is None
    with pytest.raises(ValueError, match="did you mean 'f1_macro'"):
        classifier(monitor="f1_makro").partial_fit(X, y, classes=[0, 1, 2])


@pytest.mark.parametrize(
    "monitor", [report_mean_error, get_scorer("neg_mean_absolute_error"), "neg_mean_absolute_error", "loss"], ids=name_of
)
def test_pickles_and_clones(monitor):
    X, X_val, y, y_val = PATIENTS
    reg = regressor(monitor=monitor, warm_start=True)
    assert repr(clone(reg)) == repr(reg)
    reg.fit(X, y, X_val=X_val, y_val=y_val)
    again = clone(reg).fit(X, y, X_val=X_val, y_val=y_val)
    assert again.validation_scores_ == reg.validation_scores_
    loaded = pickle.loads(pickle.dumps(reg))
    np.testing.assert_array_equal(loaded.predict(X_val), reg.predict(X_val))
    assert loaded.validation_scores_ == reg.validation_scores_
    for model in (loaded, reg):
        model.fit(X, y, X_val=X_val, y_val=y_val)
    assert loaded.validation_scores_ == reg.validation_scores_


def test_a_search_over_monitors():
    X, _, y, _ = BINARY
    monitors = ["auto", "loss", "roc_auc", get_scorer("f1")]
    search = GridSearchCV(classifier(early_stopping=True), {"monitor": monitors}, cv=2, scoring="roc_auc", error_score="raise")
    search.fit(X, y)
    assert len(search.cv_results_["mean_test_score"]) == 4
    best = clone(search.best_estimator_).fit(X, y)
    assert best.validation_scores_ == search.best_estimator_.validation_scores_


def test_with_metadata_routing():
    X, X_val, y, y_val = BINARY
    plain = classifier(monitor="roc_auc").fit(X, y, WEIGHTS, X_val, y_val, WEIGHTS)
    with sklearn.config_context(enable_metadata_routing=True):
        routed = classifier(monitor="roc_auc").fit(X, y, WEIGHTS, X_val, y_val, WEIGHTS)
    assert routed.validation_scores_ == plain.validation_scores_


# refused ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "monitor", ["roc_auc", get_scorer("roc_auc"), lambda estimator, X, y: 0.0], ids=["name", "scorer", "function"]
)
def test_scores_need_validation_rows(monitor):
    X, _, y, _ = BINARY
    with pytest.raises(ValueError, match=r"monitor=.* early_stopping=True, or give X_val and y_val"):
        classifier(monitor=monitor).fit(X, y)


@pytest.mark.parametrize(
    ("monitor", "message"),
    [
        ("roc_auk", "monitor='roc_auk' is not known; did you mean 'roc_auc'"),
        ("los", "did you mean 'loss'"),
        ("neg_logloss", "did you mean 'neg_log_loss'"),
        (3, "must be 'auto', 'loss', a scorer or its name. Got 3"),
        (accuracy_score, "make_scorer"),
    ],
)
def test_wrong_monitors_are_named(monitor, message):
    X, _, y, _ = BINARY
    with pytest.raises((ValueError, TypeError), match=message):
        classifier(monitor=monitor, early_stopping=True).fit(X, y)


def test_a_score_that_is_not_a_number_is_an_error():
    X, X_val, y, y_val = FLOWERS
    clf = classifier(monitor=Scripted(0.1, 0.2, np.nan))
    with pytest.raises(ValueError, match=r"monitor=.* gives nan for the 75 validation rows"):
        clf.fit(X, y, X_val=X_val, y_val=y_val)
    assert not hasattr(clf, "coefs_")
    clf = classifier().fit(X, y)
    before = clf.predict_proba(X)
    with pytest.raises(ValueError, match="gives nan"):
        clf.set_params(monitor=Scripted(0.1, np.nan)).fit(X, y, X_val=X_val, y_val=y_val)
    np.testing.assert_array_equal(clf.predict_proba(X), before)


@pytest.mark.parametrize("is_own", [True, False], ids=["scorer", "loss"])
def test_scores_of_minus_infinity_do_not_leave_the_network_untrained_in_silence(is_own):
    """An error, or an epoch that is kept; not the weights that the fit began with."""
    X, X_val, y, y_val = FLOWERS
    if is_own:
        model, validation = classifier(monitor=Scripted(*[-np.inf] * 8)), (X_val, y_val)
    else:  # the rate of a row that lies far out is beyond the dtype
        X, y = X.astype(np.float32), y + 1.0
        model, validation = regressor(monitor="loss", loss="poisson", activation="identity"), (1e6 * X_val, y_val)
    try:
        model.fit(X, y, X_val=validation[0], y_val=validation[1])
    except ValueError:
        return
    assert model.best_epoch_ > 0


@pytest.mark.filterwarnings("ignore:R\\^2 score is not well-defined")
def test_r2_of_one_row_is_refused():
    X, X_val, y, y_val = PATIENTS
    for monitor, message in (("auto", "R2 is not defined for one row"), ("r2", "gives nan")):
        with pytest.raises(ValueError, match=message):
            regressor(monitor=monitor).fit(X, y, X_val=X_val[:1], y_val=y_val[:1])
    for monitor in ("loss", "neg_mean_absolute_error"):
        assert regressor(monitor=monitor).fit(X, y, X_val=X_val[:1], y_val=y_val[:1]).best_epoch_ > 0
    with pytest.raises(ValueError, match="R2 is not defined for one row"):
        regressor().fit(X, y, X_val=X_val[:2], y_val=y_val[:2], sample_weight_val=[0.0, 1.0])


def test_what_a_scorer_raises_is_raised_and_nothing_is_changed():
    X, X_val, y, y_val = FLOWERS

    def broken(estimator, X, y):
        raise RuntimeError("broken scorer")

    clf = classifier(monitor=broken)
    with pytest.raises(RuntimeError, match="broken scorer"):
        clf.fit(X, y, X_val=X_val, y_val=y_val)
    assert not hasattr(clf, "classes_")


@pytest.mark.parametrize(
    "monitor", ["neg_max_error", lambda estimator, X, y: -np.abs(estimator.predict(X) - y).max()], ids=["name", "function"]
)
def test_a_scorer_that_takes_no_weights_says_so(monitor):
    """What cannot be weighted is refused by an error that speaks of the monitor and of the weights."""
    X, X_val, y, y_val = PATIENTS
    with pytest.raises((ValueError, TypeError), match=r"(?s)monitor.*sample_weight|sample_weight.*monitor"):
        regressor(monitor=monitor).fit(X, y, X_val=X_val, y_val=y_val, sample_weight_val=WEIGHTS)


# stratified, where there are rows enough ----------------------------------------------------------------------------------


def classes_set_aside(y, fraction):
    seen = []

    def spy(estimator, X, y):
        seen.append(y)
        return 0.0

    X = np.random.RandomState(0).normal(size=(len(y), 3))
    classifier(monitor=spy, early_stopping=True, validation_fraction=fraction, max_iter=1, n_iter_no_change=1).fit(X, y)
    return np.bincount(seen[0], minlength=max(y) + 1)


def test_validation_rows_are_stratified_if_there_are_as_many_as_classes():
    y = np.arange(5).repeat(20)
    assert classes_set_aside(y, 0.05).tolist() == [1] * 5
    assert classes_set_aside(y, 0.5).tolist() == [10] * 5
    assert classes_set_aside(y, 0.03).sum() == 3


def test_a_class_of_one_row_is_refused_with_the_split():
    for fraction in (0.1, 0.5):
        with pytest.raises(ValueError, match=r"cannot set aside .* stratified by class"):
            classes_set_aside(np.r_[np.arange(3).repeat(20), 3], fraction)
