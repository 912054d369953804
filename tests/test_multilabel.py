"""`MLPDeepClassifier` with an indicator matrix as y: one logistic output a label."""

import copy
import pickle

import numpy as np
import pytest
import scipy.sparse
import torch
from sklearn.base import clone
from sklearn.datasets import make_multilabel_classification
from sklearn.exceptions import DataConversionWarning
from sklearn.metrics import accuracy_score, log_loss
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MultiLabelBinarizer, StandardScaler
from skorch.callbacks import Callback

from skdnn import MLPDeepClassifier

X, Y = make_multilabel_classification(200, 10, n_classes=4, n_labels=2, random_state=0)
X = StandardScaler().fit_transform(X)
CLASSES = Y.sum(1).clip(0, 2)  # three classes for the same rows


def make(**params):
    common = {"hidden_layer_sizes": (16,), "max_iter": 5, "batch_size": 32, "learning_rate_init": 0.02, "random_state": 0}
    params = common | params
    return MLPDeepClassifier(**{"n_iter_no_change": params["max_iter"]} | params)


def assert_same_weights(a, b):
    for mine, theirs in zip(a.coefs_ + a.intercepts_, b.coefs_ + b.intercepts_, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize(
    "params", [{}, {"batch_norm": True, "dropout": 0.1}, {"early_stopping": True}, {"hidden_layer_sizes": ()}], ids=str
)
def test_learns(params):
    clf = make(max_iter=40, **params).fit(X, Y)
    assert (clf.predict(X) == Y).mean() > 0.75  # of the single labels, where 1 - Y.mean() would be guessed
    assert clf.score(X, Y) == accuracy_score(Y, clf.predict(X)) > 0.3
    assert clf.loss_curve_[-1] < 0.8 * clf.loss_curve_[0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_predictions_agree_with_each_other(dtype):
    rows = X.astype(dtype)
    clf = make(max_iter=20).fit(rows, Y)
    decision, probabilities = clf.decision_function(rows), clf.predict_proba(rows)
    assert decision.shape == probabilities.shape == Y.shape
    assert decision.dtype == probabilities.dtype == dtype
    tolerance = 1e-5 if dtype is np.float32 else 1e-10
    np.testing.assert_allclose(probabilities, 1 / (1 + np.exp(-decision)), rtol=tolerance)
    np.testing.assert_allclose(np.exp(clf.predict_log_proba(rows)), probabilities, rtol=tolerance)
    predicted = clf.predict(rows)
    assert np.issubdtype(predicted.dtype, np.integer)
    np.testing.assert_array_equal(predicted, probabilities > 0.5)
    np.testing.assert_array_equal(predicted, decision > 0)
    assert clf.predict(rows[:1]).shape == (1, 4)
    with torch.no_grad():
        np.testing.assert_allclose(clf.module_(torch.from_numpy(rows)), decision, rtol=tolerance, atol=tolerance)


def test_log_probabilities_are_exact_where_probabilities_are_zero():
    log_probabilities = make(max_iter=20).fit(X, Y).predict_log_proba(X * 1e4)
    assert np.isfinite(log_probabilities).all()
    assert log_probabilities.min() < -800  # the exponential of which is 0


def test_the_loss_is_the_sum_over_labels():
    clf = make(learning_rate_init=1e-300, batch_size=50).fit(X, Y)  # the weights do not move between the batches
    probabilities = clf.predict_proba(X)
    expected = sum(log_loss(Y[:, k], probabilities[:, k]) for k in range(4))
    assert clf.loss_curve_ == pytest.approx([expected] * 5)


def test_fitted_attributes_fit_together():
    clf = make(hidden_layer_sizes=(6,)).fit(X, Y)
    assert clf.classes_.tolist() == [0, 1, 2, 3]
    assert (clf.n_layers_, clf.n_outputs_, clf.out_activation_) == (3, 4, "logistic")
    assert [kernel.shape for kernel in clf.coefs_] == [(10, 6), (6, 4)]
    assert clf.t_ == 1000
    assert clf.__sklearn_tags__().classifier_tags.multi_label


# agreement with scikit-learn ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_labels", [2, 4])
@pytest.mark.parametrize("activation", ["logistic", "tanh", "relu"])
@pytest.mark.parametrize("optimizer", ["sgd", "nesterov"])
def test_same_training_as_scikit_learn(n_labels, activation, optimizer):
    y = Y[:, :n_labels]
    common = {"hidden_layer_sizes": (7, 5), "activation": activation, "shuffle": False, "batch_size": 30, "random_state": 0}
    unmoved = {"max_iter": 1, "learning_rate_init": 1e-300, "n_iter_no_change": 1}
    training = {"max_iter": 10, "learning_rate_init": 0.02, "n_iter_no_change": 10, "tol": 0.0}
    mlp = MLPClassifier(solver="sgd", alpha=0.0, momentum=0.0 if optimizer == "sgd" else 0.9, **common)
    with pytest.warns(UserWarning, match="Maximum iterations"):
        mlp.set_params(**unmoved).fit(X, y)
    clf = MLPDeepClassifier(optimizer=optimizer, **common).set_params(**unmoved).fit(X, y)
    for mine, theirs in zip(clf.coefs_ + clf.intercepts_, mlp.coefs_ + mlp.intercepts_, strict=True):
        mine[:] = theirs
    np.testing.assert_allclose(clf.predict_proba(X), mlp.predict_proba(X), rtol=1e-10)

    with pytest.warns(UserWarning, match="Maximum iterations"):
        mlp.set_params(**training).fit(X, y)
    clf.set_params(warm_start=True, **training).fit(X, y)
    np.testing.assert_allclose(clf.loss_curve_[1:], mlp.loss_curve_, rtol=1e-8)
    for mine, theirs in zip(clf.coefs_ + clf.intercepts_, mlp.coefs_ + mlp.intercepts_, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(clf.predict_proba(X), mlp.predict_proba(X), rtol=1e-8)
    np.testing.assert_array_equal(clf.predict(X), mlp.predict(X))
    np.testing.assert_array_equal(clf.classes_, np.arange(n_labels))
    for name in ("n_layers_", "n_outputs_", "out_activation_", "n_features_in_"):
        assert getattr(clf, name) == getattr(mlp, name), name


# kinds of y ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "y",
    [
        Y.astype(bool),
        Y.astype(np.float64),
        Y.astype(np.uint8),
        Y.tolist(),
        np.asfortranarray(Y),
        scipy.sparse.csr_array(Y),
        scipy.sparse.csr_matrix(Y),
        scipy.sparse.csc_array(Y),
        scipy.sparse.coo_array(Y.astype(np.float64)),
        scipy.sparse.csr_array(Y.astype(bool)),
    ],
    ids=lambda y: type(y).__name__,
)
def test_an_indicator_matrix_of_any_kind_is_the_same(y):
    expected = make().fit(X, Y)
    clf = make().fit(X, y)
    assert_same_weights(clf, expected)
    assert clf.score(X, y) == expected.score(X, Y)


def test_fit_leaves_the_indicator_matrix_as_it_was():
    for y in (Y.astype(np.float64), Y.copy()):
        before = y.copy()
        y.flags.writeable = False
        make(dtype="float64").fit(X, y)
        np.testing.assert_array_equal(y, before)


def test_data_frames_keep_the_columns_order():
    pd = pytest.importorskip("pandas")
    clf = make().fit(X, pd.DataFrame(Y, columns=list("dcba")))
    assert_same_weights(clf, make().fit(X, Y))
    assert clf.classes_.tolist() == [0, 1, 2, 3]  # as in MLPClassifier


def test_labels_that_all_rows_have_or_none_are_learned():
    y = Y.copy()
    y[:, 0], y[:, 1] = 0, 1
    clf = make(max_iter=40).fit(X, y)
    np.testing.assert_array_equal(clf.predict(X)[:, :2], y[:, :2])


def test_one_column_is_two_classes():
    with pytest.warns(DataConversionWarning, match="column-vector y was passed"):
        column = make().fit(X, Y[:, :1])
    vector = make().fit(X, Y[:, 0])
    assert_same_weights(column, vector)
    assert column.predict(X).shape == (200,)
    assert column.predict_proba(X).shape == (200, 2)


def test_one_sparse_column_is_refused():
    # It would be two classes, and these come as a dense vector.
    with pytest.raises(TypeError, match="Sparse data was passed for y"):
        make().fit(X, scipy.sparse.csr_array(Y[:, :1]))


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.column_stack([CLASSES, CLASSES]), "y should be a 1d array"),
        (np.random.RandomState(0).normal(size=(200, 3)), "[Uu]nknown label type"),
        ([["a", "b"]] * 200, "y should be a 1d array"),
    ],
    ids=["multiclass", "numbers", "strings"],
)
def test_other_matrices_are_refused(y, message):
    with pytest.raises(ValueError, match=message):
        make().fit(X, y)


@pytest.mark.parametrize("values", [(-1, 1), (1, 2), (0, 2)], ids=str)
def test_an_indicator_matrix_holds_zeros_and_ones(values):
    # scikit-learn's type_of_target takes any two numbers for one; the cross-entropy of a target of -1 has no meaning.
    y = np.where(Y == 1, values[1], values[0])
    with pytest.raises(ValueError, match="0 and 1"):
        make().fit(X, y)


# early stopping -----------------------------------------------------------------------------------------------------------


class Split(Callback):
    """Keeps the rows that training and validation use."""

    def on_epoch_begin(self, net, dataset_train=None, dataset_valid=None, **kwargs):
        self.training, self.validation = dataset_train.indices, dataset_valid.indices


def test_early_stopping_watches_the_subset_accuracy():
    split = Split()
    params = {"early_stopping": True, "validation_fraction": 0.3, "learning_rate_init": 0.3, "max_iter": 12}
    clf = make(callbacks=[split], **params).fit(X, Y)
    scores = clf.validation_scores_
    assert clf.best_epoch_ == 1 + int(np.argmax(scores)) < clf.n_iter_
    assert clf.best_validation_score_ == max(scores)
    assert clf.score(X[split.validation], Y[split.validation]) == pytest.approx(clf.best_validation_score_, rel=1e-12)
    assert_same_weights(clf, make(**params | {"max_iter": clf.best_epoch_}).fit(X, Y))
    assert sorted([*split.training, *split.validation]) == list(range(200))
    assert len(split.validation) == 60


def test_early_stopping_takes_a_label_of_a_single_row():
    # No split could be stratified by such labels: none is.
    y = Y.copy()
    y[:, 0] = 0
    y[3, 0] = 1
    assert np.isfinite(make(early_stopping=True).fit(X, y).loss_curve_).all()


# warm start ---------------------------------------------------------------------------------------------------------------


def test_warm_start_goes_on():
    common = {"optimizer": "sgd", "shuffle": False, "learning_rate_init": 0.05}
    clf = make(warm_start=True, max_iter=3, **common).fit(X, Y).fit(X, scipy.sparse.csr_array(Y))
    long = make(max_iter=6, **common).fit(X, Y)
    assert_same_weights(clf, long)
    assert clf.loss_curve_ == long.loss_curve_


@pytest.mark.parametrize(
    ("first", "then"),
    [(Y, Y[:, 0]), (Y[:, 0], Y[:, :2]), (Y, CLASSES), (CLASSES, Y[:, :3]), (Y[:, :2], Y), (Y, Y[:, :2])],
    ids=[
        "labels to two classes",
        "two classes to labels",
        "labels to classes",
        "classes to labels",
        "more labels",
        "fewer labels",
    ],
)
def test_warm_start_refuses_another_kind_of_target(first, then):
    clf = make(warm_start=True).fit(X, first)
    expected = clf.predict_proba(X)
    with pytest.raises(ValueError, match=r"(?s)of the previous fit.*y has the "):
        clf.fit(X, then)
    np.testing.assert_array_equal(clf.predict_proba(X), expected)


def test_fit_on_another_kind_of_target_forgets_the_first():
    clf = make().fit(X, Y).fit(X, CLASSES)
    assert_same_weights(clf, make().fit(X, CLASSES))
    assert clf.predict(X).shape == (200,)
    np.testing.assert_allclose(clf.predict_proba(X).sum(1), 1.0)
    clf.fit(X, Y)
    assert_same_weights(clf, make().fit(X, Y))
    assert clf.predict(X).shape == (200, 4)


# copies and company -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("copied_by", [lambda clf: pickle.loads(pickle.dumps(clf)), copy.deepcopy], ids=["pickle", "deepcopy"])
def test_a_copy_is_the_same_estimator(copied_by):
    clf = make(warm_start=True, batch_norm=True).fit(X, Y)
    copied = copied_by(clf)
    np.testing.assert_array_equal(copied.predict(X), clf.predict(X))
    np.testing.assert_array_equal(copied.predict_proba(X), clf.predict_proba(X))
    assert_same_weights(copied.fit(X, Y), clf.fit(X, Y))
    assert_same_weights(clone(clf).fit(X, Y), make(batch_norm=True).fit(X, Y))


@pytest.mark.parametrize(
    "wrap",
    [
        OneVsRestClassifier,
        MultiOutputClassifier,
        lambda clf: ClassifierChain(clf, order="random", random_state=0),
        lambda clf: make_pipeline(StandardScaler(), clf),
        lambda clf: GridSearchCV(clf, {"dropout": [0.0, 0.1]}, cv=2),
    ],
    ids=["one_vs_rest", "multi_output", "chain", "pipeline", "search"],
)
def test_it_works_within_other_estimators(wrap):
    model = wrap(make(max_iter=30)).fit(X, Y)
    predicted = np.asarray(model.predict(X))
    assert predicted.shape == Y.shape
    assert (predicted == Y).mean() > 0.75


def test_a_search_compares_candidates():
    grid = {"hidden_layer_sizes": [(2,), (16,)], "learning_rate_init": [1e-6, 0.02]}
    search = GridSearchCV(make(max_iter=20), grid, cv=2, scoring="f1_micro").fit(X, scipy.sparse.csr_array(Y))
    assert search.best_params_["learning_rate_init"] == 0.02
    assert search.best_score_ > 0.6


def test_cross_validated_probabilities():
    probabilities = cross_val_predict(make(max_iter=20), X, Y, cv=3, method="predict_proba")
    assert probabilities.shape == Y.shape
    assert ((probabilities > 0.5) == Y).mean() > 0.7


def test_tags_of_rows_by_way_of_a_binarizer():
    binarizer = MultiLabelBinarizer()
    names = np.array(["rain", "sun", "wind", "snow"])
    y = binarizer.fit_transform([set(names[row == 1]) for row in Y])
    clf = make(max_iter=20).fit(X, y)
    found = binarizer.inverse_transform(clf.predict(X))
    assert {name for tags in found for name in tags} <= set(names)
