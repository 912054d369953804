import pickle

import numpy as np
import pytest
import torch
from naming import name_of
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_digits, make_multilabel_classification
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Perceptron
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import Callback

from skdnn import MLPDeepClassifier, MLPDeepRegressor
from skdnn.components import SGD, Momentum, OneCycle, WarmUp

DIGITS, DIGIT = load_digits(return_X_y=True)
DIGITS = DIGITS[:400] / 16
DIGIT = DIGIT[:400]
CLASSES = np.arange(10)
PATIENTS, PROGRESS = load_diabetes(return_X_y=True)
PATIENTS = StandardScaler().fit_transform(PATIENTS)

# All that has a state or a clock, or draws: what one fit of several epochs does, as many partial fits must do, too.
STATES = [
    {},
    {"shuffle": False},
    {"optimizer": Momentum(), "learning_rate": OneCycle()},
    {"learning_rate": WarmUp("cosine", 2)},
    {"learning_rate": "invscaling", "optimizer": "nadam"},
    {"dropout": 0.2, "batch_norm": True, "regularizer": "l1", "max_norm": 1.0},
]


def make(**params):
    return MLPDeepClassifier(**{"hidden_layer_sizes": (16,), "batch_size": 32, "random_state": 0} | params)


def assert_same_weights(a, b):
    for mine, theirs in zip(a.coefs_ + a.intercepts_, b.coefs_ + b.intercepts_, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("params", STATES, ids=name_of)
def test_partial_fits_of_the_same_rows_are_the_epochs_of_a_fit(params):
    whole = make(max_iter=4, n_iter_no_change=4, **params).fit(DIGITS, DIGIT)
    parts = make(max_iter=4, **params)
    for _ in range(4):
        assert parts.partial_fit(DIGITS, DIGIT, classes=CLASSES) is parts
    assert_same_weights(parts, whole)
    assert parts.loss_curve_ == whole.loss_curve_
    assert (parts.n_iter_, parts.t_) == (whole.n_iter_, whole.t_)
    np.testing.assert_array_equal(parts.predict_proba(DIGITS), whole.predict_proba(DIGITS))


def test_regressor_too():
    whole = MLPDeepRegressor((16,), max_iter=5, n_iter_no_change=5, random_state=0).fit(PATIENTS, PROGRESS)
    parts = MLPDeepRegressor((16,), max_iter=5, random_state=0)
    for _ in range(5):
        parts.partial_fit(PATIENTS, PROGRESS)
    assert_same_weights(parts, whole)
    np.testing.assert_array_equal(parts.predict(PATIENTS), whole.predict(PATIENTS))


def test_multilabel_too():
    X, y = make_multilabel_classification(n_samples=100, n_classes=3, random_state=0)
    whole = make(max_iter=3, n_iter_no_change=3).fit(X, y)
    parts = make()
    for _ in range(3):
        parts.partial_fit(X, y, classes=[0, 1, 2])
    assert_same_weights(parts, whole)


def test_a_stream_of_chunks_learns_what_no_chunk_holds_alone():
    # Sorted by class: no chunk has all classes, the first has one.
    order = np.argsort(DIGIT, kind="stable")
    chunks = np.array_split(order, 20)
    clf = make(optimizer=SGD(), learning_rate_init=0.05)
    for _ in range(40):
        for chunk in np.random.RandomState(0).permutation(20):
            clf.partial_fit(DIGITS[chunks[chunk]], DIGIT[chunks[chunk]], classes=CLASSES)
    assert clf.score(DIGITS, DIGIT) > 0.8
    assert clf.n_iter_ == len(clf.loss_curve_) == 800
    assert clf.t_ == 40 * len(DIGITS)


def test_the_first_call_needs_the_classes():
    with pytest.raises(ValueError, match="classes must be given on the first call"):
        make().partial_fit(DIGITS, DIGIT)


@pytest.mark.parametrize(("classes", "y"), [(np.arange(9), DIGIT), ([0, 1], DIGIT)])
def test_labels_outside_of_the_classes_are_refused(classes, y):
    clf = make()
    with pytest.raises(ValueError, match=r"y has the classes \[0, 1, 2, 3, 4, 5, 6, 7, 8, 9\]"):
        clf.partial_fit(DIGITS, y, classes=classes)
    assert not hasattr(clf, "coefs_")


def test_classes_may_not_change():
    clf = make().partial_fit(DIGITS, DIGIT, classes=CLASSES)
    expected = clf.predict(DIGITS)
    with pytest.raises(ValueError, match="not those of the previous call"):
        clf.partial_fit(DIGITS, DIGIT, classes=np.arange(11))
    with pytest.raises(ValueError, match="labels of an indicator matrix"):
        clf.partial_fit(DIGITS, np.eye(10, dtype=int)[DIGIT])
    np.testing.assert_array_equal(clf.predict(DIGITS), expected)


def test_classes_are_those_of_scikit_learn():
    names = np.array(list("jihgfedcba"))
    mine = make().partial_fit(DIGITS, names[DIGIT], classes=names)
    theirs = Perceptron().partial_fit(DIGITS, names[DIGIT], classes=names)
    np.testing.assert_array_equal(mine.classes_, theirs.classes_)


def test_one_class_is_refused():
    with pytest.raises(ValueError, match="at least 2 classes"):
        make().partial_fit(DIGITS[:3], np.zeros(3), classes=[0])


def test_goes_on_after_a_fit_and_a_fit_starts_anew():
    fitted = make(max_iter=2, n_iter_no_change=2).fit(DIGITS, DIGIT)
    longer = clone(fitted).fit(DIGITS, DIGIT).partial_fit(DIGITS, DIGIT)
    assert longer.loss_curve_[:2] == fitted.loss_curve_
    assert longer.loss_curve_[2] < fitted.loss_curve_[1]
    assert longer.n_iter_ == 3
    assert_same_weights(longer.fit(DIGITS, DIGIT), fitted)


def test_a_copy_goes_on_with_a_new_optimizer():
    clf = make(optimizer=SGD(), shuffle=False).partial_fit(DIGITS, DIGIT, classes=CLASSES)
    copy = pickle.loads(pickle.dumps(clf))  # plain SGD has no state to lose
    assert_same_weights(copy.partial_fit(DIGITS, DIGIT), clf.partial_fit(DIGITS, DIGIT))


def test_the_learning_rate_may_change_on_the_way_and_the_optimizer_keeps_its_state():
    clf = make(optimizer=Momentum(0.9), shuffle=False).partial_fit(DIGITS, DIGIT, classes=CLASSES)
    before = clf.coefs_[0].copy()
    clf.set_params(learning_rate_init=1e-12).partial_fit(DIGITS, DIGIT)
    assert np.abs(clf.coefs_[0] - before).max() > 1e-6  # by the velocity alone


def test_the_optimizer_may_change_on_the_way():
    clf = make(optimizer=Momentum(0.9), shuffle=False).partial_fit(DIGITS, DIGIT, classes=CLASSES)
    before = clf.coefs_[0].copy()
    clf.set_params(optimizer="sgd", learning_rate_init=1e-12).partial_fit(DIGITS, DIGIT)
    np.testing.assert_allclose(clf.coefs_[0], before, atol=1e-9)


def test_another_architecture_is_refused():
    clf = make().partial_fit(DIGITS, DIGIT, classes=CLASSES)
    with pytest.raises(ValueError, match="hidden_layer_sizes"):
        clf.set_params(hidden_layer_sizes=(17,)).partial_fit(DIGITS, DIGIT)


def test_no_rows_are_set_aside_and_none_are_kept():
    clf = make(early_stopping=True).partial_fit(DIGITS, DIGIT, classes=CLASSES)
    assert clf.t_ == len(DIGITS)
    assert clf.validation_scores_ is None
    assert clf._session.data is None


def test_chunks_may_be_of_any_size():
    clf = make(batch_norm=True)
    for n_rows in (64, 33, 2, 100):
        clf.partial_fit(DIGITS[:n_rows], DIGIT[:n_rows], classes=CLASSES)
    with pytest.raises(ValueError, match="at least 2 rows"):
        clf.partial_fit(DIGITS[:1], DIGIT[:1])
    assert clf.t_ == 199


def test_divergence_is_told_and_mended():
    clf = make(optimizer="sgd").partial_fit(DIGITS, DIGIT, classes=CLASSES)
    with pytest.warns(ConvergenceWarning, match="learning_rate_init"):
        clf.partial_fit(DIGITS * 1e200, DIGIT)
    assert all(np.isfinite(coef).all() for coef in clf.coefs_)
    assert clf.predict_proba(DIGITS).shape == (400, 10)


def test_the_loss_may_change_on_the_way():
    reg = MLPDeepRegressor((16,), optimizer="sgd", shuffle=False, random_state=0).partial_fit(PATIENTS, PROGRESS)
    other = MLPDeepRegressor((16,), optimizer="sgd", shuffle=False, warm_start=True, max_iter=1, random_state=0)
    other.set_params(n_iter_no_change=1).fit(PATIENTS, PROGRESS)
    assert_same_weights(reg, other)
    reg.set_params(loss="absolute_error").partial_fit(PATIENTS, PROGRESS)
    other.set_params(loss="absolute_error").fit(PATIENTS, PROGRESS)
    assert_same_weights(reg, other)


@pytest.mark.parametrize("optimizer", ["adam", torch.optim.Adam])
@pytest.mark.parametrize("scale", [1e300, 1e308])  # the squared gradients overflow, or the outputs themselves
def test_a_stream_recovers_from_a_divergence(optimizer, scale):
    """The moments of the optimizer are not finite after it: they must go, not only the weights be put back."""
    clf = make(optimizer=optimizer).partial_fit(DIGITS, DIGIT, classes=CLASSES)
    with pytest.warns(ConvergenceWarning, match="learning_rate_init"):
        clf.partial_fit(DIGITS * scale, DIGIT)
    for _ in range(20):
        clf.partial_fit(DIGITS, DIGIT)
    assert clf.score(DIGITS, DIGIT) > 0.8


def test_an_error_in_a_stream_leaves_the_weights():
    class Fail(Callback):
        def on_batch_end(self, net, **kwargs):
            raise ZeroDivisionError

    clf = make().partial_fit(DIGITS, DIGIT, classes=CLASSES)
    before = [coef.copy() for coef in clf.coefs_]
    with pytest.raises(ZeroDivisionError):
        clf.set_params(callbacks=[Fail()]).partial_fit(DIGITS, DIGIT)
    for mine, expected in zip(clf.coefs_, before, strict=True):
        np.testing.assert_array_equal(mine, expected)
    assert clf.n_iter_ == len(clf.loss_curve_) == 1
