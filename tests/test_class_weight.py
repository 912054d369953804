import numpy as np
import pytest
import torch
from naming import name_of
from sklearn.datasets import load_iris, make_classification, make_multilabel_classification
from sklearn.metrics import recall_score

from skdnn import MLPDeepClassifier

X, Y = load_iris(return_X_y=True)
ROWS, LABELS = make_multilabel_classification(n_samples=60, n_classes=3, random_state=0)


def make(**params):
    # One batch of all rows, however many: the same number of updates for weighted and for repeated rows.
    return MLPDeepClassifier(
        **{"hidden_layer_sizes": (8,), "batch_size": 1000, "max_iter": 20, "n_iter_no_change": 20, "random_state": 0} | params
    )


@pytest.mark.parametrize("params", [{}, {"optimizer": "sgd", "learning_rate_init": 0.1}, {"regularizer": "l1"}], ids=name_of)
@pytest.mark.parametrize("n_classes", [2, 3])
def test_weights_are_repeated_rows(params, n_classes):
    X_, y = X[n_classes > Y], Y[n_classes > Y]
    times = np.array([3, 1, 2])[y]
    repeated = make(**params).fit(X_.repeat(times, axis=0), y.repeat(times))
    weighted = make(class_weight={0: 3, 2: 2} if n_classes == 3 else {0: 3}, **params).fit(X_, y)
    np.testing.assert_allclose(weighted.decision_function(X_), repeated.decision_function(X_), rtol=1e-7)
    np.testing.assert_allclose(weighted.loss_curve_, repeated.loss_curve_, rtol=1e-9)


def test_balanced_weights_are_those_of_equal_classes():
    rows = np.r_[0:10, 50:90, 100:125]
    balanced = make(class_weight="balanced").fit(X[rows], Y[rows])
    by_hand = make(class_weight={0: 75 / 30, 1: 75 / 120, 2: 75 / 75}).fit(X[rows], Y[rows])
    np.testing.assert_allclose(balanced.loss_curve_, by_hand.loss_curve_, rtol=1e-12)


def test_balanced_weights_raise_the_recall_of_a_rare_class():
    X_, y = make_classification(3000, weights=[0.97], class_sep=0.7, random_state=0)
    params = {"batch_size": 100, "max_iter": 15, "n_iter_no_change": 15}
    plain, balanced = (make(class_weight=weight, **params).fit(X_, y) for weight in (None, "balanced"))
    assert recall_score(y, balanced.predict(X_)) > recall_score(y, plain.predict(X_)) + 0.2


def test_only_the_ratio_of_weights_counts():
    a, b = (make(class_weight=dict.fromkeys(range(3), 1.0) | {1: 5.0 * f, 0: f, 2: f}).fit(X, Y) for f in (1.0, 1e3))
    np.testing.assert_allclose(a.coefs_[0], b.coefs_[0], rtol=1e-10)


def test_batches_are_not_weighed_each_by_itself():
    """A batch of a class that hardly counts hardly moves the network."""
    first = np.flatnonzero(Y != 2)
    clf = make(class_weight={0: 1e4, 1: 1e-6}, batch_size=50, shuffle=False, max_iter=1, n_iter_no_change=1, optimizer="sgd")
    only = make(batch_size=50, shuffle=False, max_iter=1, n_iter_no_change=1, optimizer="sgd", learning_rate_init=2e-3)
    clf.fit(X[first], Y[first])
    # The second batch has class 1 alone: leaving it out by a weight of nearly 0 is one update on class 0, of weight 2.
    reference = only.partial_fit(X[:50], Y[:50], classes=[0, 1])
    np.testing.assert_allclose(clf.predict_proba(X), reference.predict_proba(X), atol=1e-3)


def test_labels_have_weights_of_their_own():
    weights = [{0: 1.0, 1: 3.0}, {}, {1: 0.5}]
    a = make(class_weight=weights).fit(ROWS, LABELS)
    losses = torch.nn.functional.binary_cross_entropy_with_logits(
        torch.from_numpy(a.decision_function(ROWS)), torch.from_numpy(LABELS.astype(float)), reduction="none"
    ).numpy()
    each = np.column_stack([np.where(LABELS[:, k], weight.get(1, 1.0), weight.get(0, 1.0)) for k, weight in enumerate(weights)])
    expected = (losses * each / each.mean(axis=0)).sum(axis=1).mean()
    a.set_params(warm_start=True, max_iter=1, n_iter_no_change=1, learning_rate_init=1e-12).fit(ROWS, LABELS)
    assert a.loss_ == pytest.approx(expected, rel=1e-9)


def test_validation_loss_is_weighted():
    clf = make(class_weight="balanced", early_stopping=True, validation_fraction=0.3)
    clf.fit(X[40:], Y[40:])
    plain = make(early_stopping=True, validation_fraction=0.3).fit(X[40:], Y[40:])
    assert clf.history_[0]["valid_loss"] != plain.history_[0]["valid_loss"]


@pytest.mark.parametrize(
    ("weight", "y", "message"),
    [
        ({3: 1.0}, Y, r"classes of \[0, 1, 2\]"),
        ({0: -1.0}, Y, r"\[0.0, inf\)"),
        ({0: "much"}, Y, r"\[0.0, inf\)"),
        ({0: 0.0, 1: 0.0, 2: 0.0}, Y, "no training row"),
        ([{0: 1.0}], Y, "must be 'balanced', a dict"),
        ("balance", Y, "balanced"),
        (0.5, Y, "class_weight"),
        ({0: 1.0}, LABELS, "a list with a dict"),
        ([{0: 1.0}], LABELS, "1 entries, but y has 3 labels"),
    ],
)
def test_wrong_weights_are_named(weight, y, message):
    with pytest.raises(ValueError, match=message):
        make(class_weight=weight).fit((X if y is Y else ROWS), y)


def test_a_stream_takes_a_dict():
    # The classes of iris are equal in number: the mean over classes, which a stream takes, is that over rows.
    params = {"class_weight": {0: 3.0}, "optimizer": "sgd", "max_iter": 1, "n_iter_no_change": 1}
    stream, whole = make(**params).partial_fit(X, Y, classes=[0, 1, 2]), make(**params).fit(X, Y)
    np.testing.assert_allclose(stream.coefs_[0], whole.coefs_[0], rtol=1e-12)
    plain = make(**params | {"class_weight": None}).fit(X, Y)
    assert not np.allclose(stream.coefs_[0], plain.coefs_[0], rtol=1e-6)
    with pytest.raises(ValueError, match="compute_class_weight"):
        make(class_weight="balanced").partial_fit(X, Y, classes=[0, 1, 2])
