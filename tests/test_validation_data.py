import numpy as np
import pytest
import sklearn
from sklearn.datasets import load_diabetes, load_digits, make_multilabel_classification
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from skdnn import MLPDeepClassifier, MLPDeepRegressor

X, X_VAL, Y, Y_VAL = train_test_split(*load_digits(return_X_y=True), test_size=0.3, random_state=0)
PATIENTS = train_test_split(*load_diabetes(return_X_y=True), random_state=0)


@pytest.fixture
def _routing():
    with sklearn.config_context(enable_metadata_routing=True):
        yield


def make(**params):
    return MLPDeepClassifier(**{"hidden_layer_sizes": (16,), "batch_size": 32, "random_state": 0} | params)


def test_the_best_epoch_on_the_own_rows_is_kept():
    clf = make(batch_norm=True, dropout=0.2).fit(X / 16, Y, X_val=X_VAL / 16, y_val=Y_VAL)
    assert clf.score(X_VAL / 16, Y_VAL) == pytest.approx(clf.best_validation_score_, abs=1e-12)
    assert clf.best_validation_score_ == max(clf.validation_scores_)
    assert clf.best_epoch_ == np.argmax(clf.validation_scores_) + 1 < clf.n_iter_
    assert clf.best_loss_ is None


def test_the_validation_loss_is_scikit_learns():
    clf = make(max_iter=1, n_iter_no_change=1).fit(X / 16, Y, X_val=X_VAL / 16, y_val=Y_VAL)
    assert clf.history_[0]["valid_loss"] == pytest.approx(log_loss(Y_VAL, clf.predict_proba(X_VAL / 16)), rel=1e-9)


def test_all_rows_are_trained_on():
    plain = make(max_iter=3, n_iter_no_change=3).fit(X, Y)
    for params in ({}, {"early_stopping": True}):  # own rows take the place of those that would be set aside
        clf = make(max_iter=3, n_iter_no_change=3, **params).fit(X, Y, X_val=X_VAL, y_val=Y_VAL)
        assert clf.t_ == 3 * len(X)
        assert clf.loss_curve_ == plain.loss_curve_


def test_regressor_scales_the_own_targets_like_the_others():
    X, X_val, y, y_val = PATIENTS
    reg = MLPDeepRegressor((16,), max_iter=30, n_iter_no_change=30, learning_rate_init=0.01, random_state=0)
    reg.fit(X, y, X_val=X_val, y_val=y_val)
    assert reg.score(X_val, y_val) == pytest.approx(reg.best_validation_score_, rel=1e-9)


def test_multilabel():
    X, y = make_multilabel_classification(n_samples=120, n_classes=3, random_state=0)
    clf = make(max_iter=20).fit(X[:80], y[:80], X_val=X[80:], y_val=y[80:])
    assert clf.score(X[80:], y[80:]) == pytest.approx(clf.best_validation_score_)


def test_an_own_set_may_lack_classes_but_not_bring_new_ones():
    few = np.flatnonzero(Y_VAL < 2)
    make(max_iter=2, n_iter_no_change=2).fit(X, Y, X_val=X_VAL[few], y_val=Y_VAL[few])
    with pytest.raises(ValueError, match=r"y has the classes \[10\]"):
        make().fit(X, Y, X_val=X_VAL[:1], y_val=[10])


@pytest.mark.parametrize(
    ("X_val", "y_val", "message"),
    [
        (X_VAL, None, "together"),
        (None, Y_VAL, "together"),
        (X_VAL[:, :5], Y_VAL, "features"),
        (X_VAL, Y_VAL[:-1], "inconsistent"),
        (np.full_like(X_VAL, np.nan), Y_VAL, "NaN"),
        (X_VAL[0], Y_VAL[:1], "2D array"),
    ],
)
def test_wrong_data_are_named(X_val, y_val, message):
    with pytest.raises(ValueError, match=message):
        make().fit(X, Y, X_val=X_val, y_val=y_val)


@pytest.mark.usefixtures("_routing")
def test_a_pipeline_scales_them_too():
    clf = make(max_iter=5, n_iter_no_change=5).set_fit_request(X_val=True, y_val=True)
    pipeline = Pipeline([("scaler", StandardScaler()), ("clf", clf)], transform_input=["X_val"])
    pipeline.fit(X, Y, X_val=X_VAL, y_val=Y_VAL)
    assert pipeline.score(X_VAL, Y_VAL) == pytest.approx(pipeline[-1].best_validation_score_, abs=1e-12)
    by_hand = StandardScaler().fit(X)
    alone = make(max_iter=5, n_iter_no_change=5)
    alone.fit(by_hand.transform(X), Y, X_val=by_hand.transform(X_VAL), y_val=Y_VAL)
    np.testing.assert_array_equal(pipeline[-1].coefs_[0], alone.coefs_[0])


@pytest.mark.usefixtures("_routing")
def test_a_search_hands_them_to_every_fit():
    clf = make(max_iter=3, n_iter_no_change=3).set_fit_request(X_val=True, y_val=True)
    search = GridSearchCV(clf, {"hidden_layer_sizes": [(8,), (16,)]}, cv=2).fit(X / 16, Y, X_val=X_VAL / 16, y_val=Y_VAL)
    assert search.best_estimator_.best_validation_score_ == pytest.approx(search.score(X_VAL / 16, Y_VAL), abs=1e-12)
