"""Smoothed labels in a classifier."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris, make_multilabel_classification
from sklearn.preprocessing import StandardScaler

from skdnn import MLPDeepClassifier

X, Y = load_iris(return_X_y=True)
X = StandardScaler().fit_transform(X)
ROWS, LABELS = make_multilabel_classification(150, n_features=6, n_classes=3, random_state=0)
WEIGHTS = np.random.RandomState(0).uniform(0.1, 3.0, 150)

KINDS = {"binary": (X, (Y == 1).astype(int)), "multiclass": (X, Y), "multilabel": (ROWS, LABELS)}
kinds = pytest.mark.parametrize("kind", KINDS)


def make(**params):
    return MLPDeepClassifier(
        **{"hidden_layer_sizes": (8,), "batch_size": 32, "max_iter": 6, "n_iter_no_change": 6, "random_state": 0} | params
    )


def smoothed_losses(clf, X, y, smoothing):
    """The loss of each row, from log-probabilities and targets of one column a class."""
    if y.ndim == 1:
        n_classes = len(clf.classes_)
        targets = (1.0 - smoothing) * np.eye(n_classes)[y] + smoothing / n_classes
        return -(targets * clf.predict_log_proba(X)).sum(1)
    targets, logits = (1.0 - smoothing) * y + smoothing / 2, clf.decision_function(X)
    return (targets * np.logaddexp(0.0, -logits) + (1.0 - targets) * np.logaddexp(0.0, logits)).sum(1)


@kinds
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.6])
@pytest.mark.parametrize("weight", [None, WEIGHTS], ids=["plain", "weighted"])
@pytest.mark.parametrize("is_balanced", [False, True], ids=["", "balanced"])
def test_the_loss_is_that_of_smoothed_targets(kind, smoothing, weight, is_balanced):
    X, y = KINDS[kind]
    factors = np.ones(150)
    params = {"label_smoothing": smoothing}
    if is_balanced and kind != "multilabel":
        of_class = np.array([0.5, 2.0, 3.0])[: y.max() + 1]
        factors = of_class[y] / np.average(of_class[y], weights=weight)
        params["class_weight"] = dict(enumerate(of_class))
    clf = make(**params, max_iter=1, n_iter_no_change=1, learning_rate_init=1e-13)
    clf.fit(X, y, weight, X_val=X[:50], y_val=y[:50], sample_weight_val=None if weight is None else weight[:50])
    losses = smoothed_losses(clf, X, y, smoothing)
    assert clf.loss_ == pytest.approx(np.average(factors * losses, weights=weight), rel=1e-9)
    own = factors[:50] * (1.0 if weight is None else weight[:50])
    assert clf.history_[0]["valid_loss"] == pytest.approx(np.average(losses[:50], weights=own), rel=1e-9)


@pytest.mark.parametrize("smoothing", [0.1, 0.5])
def test_training_is_torchs(smoothing):
    clf = make(label_smoothing=smoothing, batch_size=150, shuffle=False, optimizer="sgd", learning_rate_init=0.5)
    start = make(batch_size=150, max_iter=1, n_iter_no_change=1, optimizer="sgd", learning_rate_init=1e-300).fit(X, Y)
    module, losses = start.module_.train(), []
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
    criterion = torch.nn.CrossEntropyLoss(label_smoothing=smoothing)
    for _ in range(6):
        optimizer.zero_grad()
        loss = criterion(module(torch.from_numpy(X)), torch.from_numpy(Y))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    clf.fit(X, Y)
    np.testing.assert_allclose(clf.loss_curve_, losses, rtol=1e-9)
    expected = module(torch.from_numpy(X)).softmax(1).detach().numpy()
    np.testing.assert_allclose(clf.predict_proba(X), expected, rtol=1e-9)


@kinds
def test_the_network_is_less_sure(kind):
    X, y = KINDS[kind]
    sure = []
    for smoothing in (0.0, 0.1, 0.4):
        clf = make(label_smoothing=smoothing, max_iter=150, n_iter_no_change=150, learning_rate_init=0.02).fit(X, y)
        probabilities = clf.predict_proba(X)
        sure.append(np.maximum(probabilities, 1.0 - probabilities).mean() if y.ndim > 1 else probabilities.max(1).mean())
    assert sure[0] > sure[1] + 0.01
    assert sure[1] > sure[2] + 0.05


def test_none_is_the_default_bit_for_bit():
    assert make(label_smoothing=0.0).fit(X, Y).loss_curve_ == make(label_smoothing=0).fit(X, Y).loss_curve_
    assert make().fit(X, Y).loss_curve_ == make(label_smoothing=0.0).fit(X, Y).loss_curve_


@pytest.mark.parametrize("value", [np.float32(0.25), np.float64(0.25), 0.25])
def test_numbers_of_numpy(value):
    clf = make(label_smoothing=value).fit(X, Y)
    assert clf.loss_curve_ == make(label_smoothing=0.25).fit(X, Y).loss_curve_
    assert clf.net_.criterion_ is not None


@pytest.mark.parametrize("value", [-0.1, 1.0, 1.5, np.nan, np.inf, None, "0.1", [0.1]])
def test_values_out_of_range_are_refused(value):
    with pytest.raises(ValueError, match="label_smoothing"):
        make(label_smoothing=value).fit(X, Y)


def test_a_stream_may_change_it():
    clf = make(label_smoothing=0.1)
    for smoothing in (0.1, 0.4, 0.0):
        clf.set_params(label_smoothing=smoothing).partial_fit(X, Y, classes=[0, 1, 2])
    assert np.isfinite(clf.loss_curve_).all()
    assert clf.loss_curve_[1] > clf.loss_curve_[2]


@kinds
def test_the_nets_criterion_is_the_loss(kind):
    X, y = KINDS[kind]
    clf = make(label_smoothing=0.3).fit(X, y)
    with torch.no_grad():
        outputs = clf.module_(torch.from_numpy(X))
    loss = clf.net_.criterion_(outputs, torch.from_numpy(y))
    assert loss.item() == pytest.approx(smoothed_losses(clf, X, y, 0.3).mean(), rel=1e-9)
