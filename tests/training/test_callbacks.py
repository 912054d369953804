"""skorch's own callbacks do in a fit what their documentation says."""

import io
import pickle
import re
import signal
import sys
from pathlib import Path
from types import ModuleType

import joblib
import numpy as np
import pytest
import skorch.callbacks
import torch
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_iris, make_multilabel_classification
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import f1_score, log_loss, make_scorer, roc_auc_score
from sklearn.model_selection import train_test_split
from skorch.callbacks import (
    BatchScoring,
    Callback,
    Checkpoint,
    EarlyStopping,
    EpochScoring,
    EpochTimer,
    Freezer,
    GradientNormClipping,
    Initializer,
    InputShapeSetter,
    LoadInitState,
    LRScheduler,
    MlflowLogger,
    NeptuneLogger,
    ParamMapper,
    PassthroughScoring,
    PrintLog,
    ProgressBar,
    SacredLogger,
    TensorBoard,
    TrainEndCheckpoint,
    Unfreezer,
    WandbLogger,
)
from skorch.dataset import Dataset
from skorch.utils import data_from_dataset, is_skorch_dataset

from skdnn import MLPDeepClassifier, MLPDeepRegressor
from skdnn.components import L2, SGD, ClipNorm, Exponential

X, Y = load_iris(return_X_y=True)
LABELS = np.array(["a", "b", "c"])[Y]
X_TRAIN, X_VAL, Y_TRAIN, Y_VAL = train_test_split(X, LABELS, test_size=0.3, random_state=0)
OWN = {"X_val": X_VAL, "y_val": Y_VAL}
N_EPOCHS = 4


def make(*callbacks, **params):
    settings = {"hidden_layer_sizes": (8,), "batch_size": 32, "max_iter": N_EPOCHS, "random_state": 0}
    settings["n_iter_no_change"] = params.get("max_iter", N_EPOCHS)
    return MLPDeepClassifier(**settings | params, callbacks=list(callbacks))


def weights(estimator):
    return [parameter.detach().clone() for parameter in estimator.module_.parameters()]


def same(some, others):
    return all(torch.equal(one, other) for one, other in zip(some, others, strict=True))


class Record(Callback):
    """Calls a function on the live net at the end of each epoch, and keeps what it returns."""

    def __init__(self, function):
        self.function = function

    def initialize(self):
        self.seen = []
        return self

    def on_epoch_end(self, net, **kwargs):
        self.seen.append(self.function(net, **kwargs))


# the live net -------------------------------------------------------------------------------------------------------------


def test_the_live_net_predicts_what_the_estimator_will():
    record = Record(lambda net, **_: (net.predict(X), net.predict_proba(X.astype(np.float32)), net.score(X, Y)))
    clf = make(record).fit(X, LABELS)
    indices, probabilities, score = record.seen[-1]
    np.testing.assert_array_equal(clf.classes_[indices], clf.predict(X))
    np.testing.assert_allclose(probabilities, clf.predict_proba(X), rtol=1e-5)
    assert score == clf.score(X, LABELS)
    assert not np.array_equal(record.seen[0][1], probabilities)


def test_the_net_of_a_fitted_estimator_predicts_too():
    fitted = make().fit(X, LABELS)
    for clf in (fitted, pickle.loads(pickle.dumps(fitted))):
        np.testing.assert_allclose(clf.net_.predict_proba(X), clf.predict_proba(X), rtol=1e-12)
        np.testing.assert_array_equal(clf.net_.classes_, [0, 1, 2])
        assert clf.net_.score(X, Y) == clf.score(X, LABELS)
        assert torch.equal(clf.net_.forward(X).softmax(1), torch.from_numpy(clf.predict_proba(X)))


def test_two_classes_and_labels():
    record = Record(lambda net, **_: (net.predict(X[:100]), net.predict_proba(X[:100])))
    clf = make(record).fit(X[:100], LABELS[:100])
    np.testing.assert_array_equal(clf.classes_[record.seen[-1][0]], clf.predict(X[:100]))
    np.testing.assert_allclose(record.seen[-1][1], clf.predict_proba(X[:100]))

    rows, labels = make_multilabel_classification(n_classes=3, random_state=0)
    record = Record(lambda net, **_: (net.predict(rows), net.predict_proba(rows), net.score(rows, labels)))
    clf = make(record).fit(rows, labels)
    np.testing.assert_array_equal(record.seen[-1][0], clf.predict(rows))
    np.testing.assert_allclose(record.seen[-1][1], clf.predict_proba(rows))
    assert record.seen[-1][2] == clf.score(rows, labels)


@pytest.mark.parametrize("loss", ["squared_error", "poisson"])
def test_the_net_of_a_regressor_is_one(loss):
    rows, y = load_diabetes(return_X_y=True)
    score = EpochScoring("r2", on_train=True, use_caching=False)
    reg = MLPDeepRegressor((8,), loss=loss, max_iter=3, n_iter_no_change=3, random_state=0, callbacks=[score]).fit(rows, y)
    assert reg.history_[-1, "r2"] == pytest.approx(reg.score(rows, y), rel=1e-9)
    predicted = reg.net_.predict(rows)[:, 0] * reg.target_scale_ + reg.target_mean_
    np.testing.assert_allclose(predicted, reg.predict(rows))
    with pytest.raises(AttributeError, match="trained for regression"):
        _ = reg.net_.classes_


def test_events_carry_skorch_datasets():
    record = Record(lambda net, dataset_train, dataset_valid: (dataset_train, dataset_valid))
    make(record).fit(X, LABELS)
    training, validation = record.seen[0]
    assert validation is None
    assert isinstance(training, Dataset)
    np.testing.assert_array_equal(training.X, X)
    np.testing.assert_array_equal(training.y, Y)

    make(record, early_stopping=True, validation_fraction=0.2).fit(X, LABELS)
    parts = record.seen[0]
    assert [len(part) for part in parts] == [120, 30]
    assert all(is_skorch_dataset(part) for part in parts)
    assert sorted([*parts[0].indices, *parts[1].indices]) == list(range(150))
    np.testing.assert_array_equal(data_from_dataset(parts[1])[1], Y[parts[1].indices])

    make(record).fit(X_TRAIN, Y_TRAIN, **OWN)
    np.testing.assert_array_equal(record.seen[0][1].X, X_VAL)


def test_an_iterator_gives_the_rows_in_their_order():
    def iterate(net, dataset_train, dataset_valid):
        return [list(net.get_iterator(dataset_train, training=True)), list(net.get_iterator(dataset_valid))]

    record = Record(iterate)
    make(record).fit(X_TRAIN, Y_TRAIN, **OWN)
    training, validation = record.seen[0]
    assert [len(x) for x, _ in training] == [32, 32, 32, 9]
    np.testing.assert_array_equal(torch.cat([x for x, _ in training]), X_TRAIN)
    np.testing.assert_array_equal(torch.cat([y for _, y in validation]), np.searchsorted(["a", "b", "c"], Y_VAL))


def test_a_dataset_of_another_kind_can_be_predicted():
    rows = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))
    clf = make().fit(X, LABELS)
    np.testing.assert_allclose(clf.net_.predict_proba(rows), clf.predict_proba(X))


# scores -------------------------------------------------------------------------------------------------------------------


def macro_f1(net, X, y):
    return f1_score(y, net.predict(X), average="macro")


@pytest.mark.parametrize("use_caching", [True, False])
def test_epoch_scores_of_validation_rows_are_the_estimators(use_caching):
    names = {"accuracy": "accuracy", "f1": macro_f1, "loss": "neg_log_loss", "auc": "roc_auc_ovr", "default": None}
    scores = [
        EpochScoring(scoring, name=name, lower_is_better=False, use_caching=use_caching) for name, scoring in names.items()
    ]
    clf = make(*scores).fit(X_TRAIN, Y_TRAIN, **OWN)
    row = clf.history_[clf.best_epoch_ - 1]  # whose weights are kept
    probabilities = clf.predict_proba(X_VAL)
    assert row["accuracy"] == row["default"] == row["valid_score"] == clf.score(X_VAL, Y_VAL)
    assert row["f1"] == pytest.approx(f1_score(Y_VAL, clf.predict(X_VAL), average="macro"))
    assert -row["loss"] == pytest.approx(log_loss(Y_VAL, probabilities))
    assert row["auc"] == pytest.approx(roc_auc_score(Y_VAL, probabilities, multi_class="ovr"))
    for name in names:
        values = clf.history_[:, name]
        flags = clf.history_[:, f"{name}_best"]
        assert flags == [value > max(values[:i], default=-np.inf) for i, value in enumerate(values)]


def test_epoch_scores_of_training_rows_are_the_estimators():
    scorer = make_scorer(f1_score, average="macro")
    scores = [
        EpochScoring(score, name=name, on_train=True, use_caching=False) for name, score in (("f1", scorer), ("own", None))
    ]
    clf = make(*scores).fit(X, LABELS)
    assert clf.history_[-1, "own"] == clf.score(X, LABELS)
    assert clf.history_[-1, "f1"] == pytest.approx(scorer(clf, X, LABELS))


def test_caching_on_training_rows_scores_the_outputs_of_training():
    scores = [EpochScoring("neg_log_loss", name="loss", on_train=True), BatchScoring("neg_log_loss", name="b", on_train=True)]
    clf = make(*scores).fit(X, LABELS)
    for row in clf.history_:
        assert -row["loss"] == pytest.approx(row["base_loss"])
        assert -row["b"] == pytest.approx(row["base_loss"])


def test_scores_of_a_split_and_without_validation():
    clf = make(EpochScoring("accuracy", lower_is_better=False), early_stopping=True).fit(X, LABELS)
    assert clf.history_[:, "accuracy"] == clf.validation_scores_
    clf = make(EpochScoring("accuracy")).fit(X, LABELS)
    assert np.isnan([row.get("accuracy", np.nan) for row in clf.history_]).all()


@pytest.mark.parametrize("listener", [(), (BatchScoring("accuracy", on_train=True),)], ids=["quiet", "batches"])
def test_scores_of_the_history_are_passed_through(listener):
    callbacks = [*listener, PassthroughScoring("valid_loss"), PassthroughScoring("train_loss", on_train=True)]
    clf = make(*callbacks, regularizer=L2(0.0)).fit(X_TRAIN, Y_TRAIN, **OWN)
    plain = make(regularizer=L2(0.0)).fit(X_TRAIN, Y_TRAIN, **OWN)
    for name in ("train_loss", "valid_loss"):
        np.testing.assert_allclose(clf.history_[:, name], plain.history_[:, name])


def test_a_score_of_validation_rows_costs_nothing_in_training():
    class Count(EpochScoring):
        def on_batch_end(self, net, training, **kwargs):
            self.phases = [*getattr(self, "phases", []), training]
            super().on_batch_end(net, training=training, **kwargs)

    count = Count("accuracy")
    make(count).fit(X_TRAIN, Y_TRAIN, **OWN)
    assert count.phases == [False] * N_EPOCHS


# checkpoints --------------------------------------------------------------------------------------------------------------


def test_a_checkpoint_keeps_the_weights_of_the_best_epoch(tmp_path):
    record = Record(lambda net, **_: [parameter.detach().clone() for parameter in net.module_.parameters()])
    clf = make(Checkpoint(dirname=str(tmp_path)), record).fit(X_TRAIN, Y_TRAIN, **OWN)
    losses = clf.history_[:, "valid_loss"]
    assert clf.history_[:, "event_cp"] == [loss == min(losses[: i + 1]) for i, loss in enumerate(losses)]
    saved = torch.load(tmp_path / "params.pt", weights_only=True)
    assert same(saved.values(), record.seen[int(np.argmin(losses))])
    history = skorch.history.History.from_file(str(tmp_path / "history.json"))
    assert history[:, "train_loss"] == clf.loss_curve_[: len(history)]
    assert (tmp_path / "optimizer.pt").exists()


@pytest.mark.parametrize(("monitor", "epoch"), [("least", 2), (lambda net: len(net.history) == 3, 3)], ids=["name", "callable"])
def test_a_checkpoint_loads_the_best_weights_at_the_end(tmp_path, monitor, epoch):
    figure = iter([3.0, 1.0, 4.0, 2.0])
    score = EpochScoring(lambda *_: next(figure), name="least", on_train=True, use_caching=False)
    record = Record(lambda net, **_: [parameter.detach().clone() for parameter in net.module_.parameters()])
    monitor = "least_best" if monitor == "least" else monitor
    last = Checkpoint(monitor=monitor, load_best=True, dirname=str(tmp_path), f_params="at_{last_epoch[epoch]}.pt")
    clf = make(score, record, last).fit(X, LABELS)
    assert same(weights(clf), record.seen[epoch - 1])
    assert (tmp_path / f"at_{epoch}.pt").exists()


def test_a_checkpoint_pickles_the_live_net(tmp_path):
    pickles = Checkpoint(monitor=None, f_pickle="net.pkl", dirname=str(tmp_path))
    clf = make(pickles).fit(X, LABELS)
    net = pickle.loads((tmp_path / "net.pkl").read_bytes())
    np.testing.assert_allclose(net.predict_proba(X), clf.predict_proba(X))


def test_training_goes_on_from_the_end_of_another(tmp_path):
    def run():
        end = TrainEndCheckpoint(dirname=str(tmp_path))
        return make(end, LoadInitState(end)).fit(X, LABELS)

    first, second = run(), run()
    assert len(first.history_) == N_EPOCHS
    assert len(second.history_) == len(second.loss_curve_) == 2 * N_EPOCHS
    assert second.history_[:N_EPOCHS, "train_loss"] == first.loss_curve_
    assert second.n_iter_ == N_EPOCHS
    assert second.loss_ < first.loss_
    assert second.loss_curve_[N_EPOCHS] < first.loss_curve_[0]
    saved = torch.load(tmp_path / "train_end_params.pt", weights_only=True)
    assert same(saved.values(), weights(second))


def test_a_checkpoint_without_its_score_says_so():
    with pytest.raises(skorch.exceptions.SkorchException, match="validation data"):
        make(Checkpoint(f_params=None, f_history=None, f_optimizer=None, f_criterion=None)).fit(X, LABELS)


def test_parameters_are_saved_to_a_file_object():
    buffer = io.BytesIO()
    clf = make(TrainEndCheckpoint(f_params=buffer, f_history=None, f_optimizer=None, f_criterion=None)).fit(X, LABELS)
    buffer.seek(0)
    assert same(torch.load(buffer, weights_only=True).values(), weights(clf))


# stopping -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("load_best", [False, True])
def test_early_stopping_ends_the_fit(load_best, capsys):
    figures = iter([3.0, 1.0, 4.0, 2.0])
    score = EpochScoring(lambda *_: next(figures), name="figure", on_train=True, use_caching=False)
    stop = EarlyStopping("figure", patience=2, load_best=load_best)
    clf = make(score, stop, max_iter=20, tol=0.0).fit(X, LABELS)
    assert clf.n_iter_ == len(clf.loss_curve_) == len(clf.history_) == 4
    assert "Stopping since figure has not improved in the last 2 epochs" in capsys.readouterr().out
    reference = make(max_iter=2 if load_best else 4).fit(X, LABELS)
    assert same(weights(clf), weights(reference))


def test_early_stopping_with_validation_rows_keeps_the_best_epoch():
    clf = make(EarlyStopping(patience=1, threshold=10.0, sink=list), max_iter=20).fit(X_TRAIN, Y_TRAIN, **OWN)
    assert clf.n_iter_ == 2
    assert clf.score(X_VAL, Y_VAL) == clf.best_validation_score_


class Stop(Callback):
    def __init__(self, event, epoch=2, how="raise"):
        self.event = event
        self.epoch = epoch
        self.how = how

    def _stop(self, net, event):
        if event == self.event and len(net.history) == self.epoch:
            if self.how == "keyboard":
                signal.raise_signal(signal.SIGINT)
            raise KeyboardInterrupt

    def on_epoch_begin(self, net, **kwargs):
        self._stop(net, "on_epoch_begin")

    def on_epoch_end(self, net, **kwargs):
        self._stop(net, "on_epoch_end")

    def on_batch_end(self, net, **kwargs):
        self._stop(net, "on_batch_end")


EVENTS = ["on_epoch_begin", "on_batch_end", "on_epoch_end"]


class Witness(Callback):
    def initialize(self):
        self.n_epochs = self.n_ends = 0
        return self

    def on_epoch_end(self, net, **kwargs):
        self.n_epochs += 1

    def on_train_end(self, net, **kwargs):
        self.n_ends += 1


@pytest.mark.parametrize("event", EVENTS)
def test_a_callback_that_stops_does_so_with_the_epoch_and_the_others_hear_of_it(event):
    witness = Witness()
    clf = make(Stop(event), witness, max_iter=20).fit(X, LABELS)
    assert clf.n_iter_ == witness.n_epochs == 2
    assert witness.n_ends == 1
    assert same(weights(clf), weights(make(max_iter=2).fit(X, LABELS)))


def test_a_fit_that_diverges_has_diverged_whatever_a_callback_says():
    clf = make(Stop("on_epoch_end", epoch=1), optimizer="sgd", learning_rate_init=1e300)
    with pytest.warns(ConvergenceWarning, match="diverged in epoch 1"):
        clf.fit(X, LABELS)
    assert np.isfinite(clf.predict_proba(X)).all()


def test_ctrl_c_at_the_end_leaves_a_fitted_estimator():
    class Last(Callback):
        def on_train_end(self, net, **kwargs):
            signal.raise_signal(signal.SIGINT)

    clf = make(Last())
    with pytest.raises(KeyboardInterrupt):
        clf.fit(X, LABELS)
    assert same(weights(clf), weights(make().fit(X, LABELS)))


@pytest.mark.parametrize("event", EVENTS)
def test_ctrl_c_in_a_callback_reaches_the_caller(event):
    witness, handler = Witness(), signal.getsignal(signal.SIGINT)
    clf = make(Stop(event, how="keyboard"), witness)
    with pytest.raises(KeyboardInterrupt):
        clf.fit(X, LABELS)
    assert clf.n_iter_ == witness.n_epochs + (event == "on_epoch_end")
    assert witness.n_ends == 1
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_stop_after_an_ignored_signal_is_no_ctrl_c():
    class Signal(Callback):
        def on_epoch_begin(self, net, **kwargs):
            signal.raise_signal(signal.SIGINT)

    heard, handler = [], signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, lambda *_: heard.append(1))
    try:
        clf = make(Signal(), Stop("on_epoch_end")).fit(X, LABELS)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert clf.n_iter_ == len(heard) == 2


def test_fits_in_threads_may_be_stopped():
    clf, *_ = joblib.Parallel(2, backend="threading")(
        joblib.delayed(make(Stop("on_epoch_end")).fit)(X, LABELS) for _ in range(2)
    )
    assert clf.n_iter_ == 2


@pytest.mark.parametrize("event", ["on_train_begin", "on_epoch_begin", "on_batch_begin", "on_grad_computed", "on_train_end"])
def test_an_error_of_a_callback_leaves_the_estimator_as_it_was(event):
    class Fail(Callback):
        is_armed = False

    def fail(self, *args, **kwargs):
        if self.is_armed:
            raise OSError("disk full")

    setattr(Fail, event, fail)
    callback = Fail()
    for clf in (make(callback), make(callback).partial_fit(X, LABELS, classes=["a", "b", "c"])):
        before, is_fitted = clf.__sklearn_is_fitted__() and weights(clf), clf.__sklearn_is_fitted__()
        callback.is_armed = True
        with pytest.raises(OSError, match="disk full"):
            clf.partial_fit(X, LABELS, classes=["a", "b", "c"])
        callback.is_armed = False
        assert clf.__sklearn_is_fitted__() == is_fitted
        assert not is_fitted or same(weights(clf), before)


# learning rates -----------------------------------------------------------------------------------------------------------


def reference_rates(policy, n_steps, lr=0.001, **kwargs):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    scheduler, rates = policy(optimizer, **kwargs), []
    for _ in range(n_steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


SCHEDULERS = {
    "class": (torch.optim.lr_scheduler.ExponentialLR, torch.optim.lr_scheduler.ExponentialLR, {"gamma": 0.5}),
    "name": ("StepLR", torch.optim.lr_scheduler.StepLR, {"step_size": 2}),
    "lambda": ("LambdaLR", torch.optim.lr_scheduler.LambdaLR, {"lr_lambda": lambda epoch: 1 / (1 + epoch)}),
    "cosine": ("CosineAnnealingLR", torch.optim.lr_scheduler.CosineAnnealingLR, {"T_max": 4}),
    "default": ("WarmRestartLR", skorch.callbacks.lr_scheduler.WarmRestartLR, {"max_lr": 0.1}),
}


@pytest.mark.parametrize(("policy", "reference", "kwargs"), SCHEDULERS.values(), ids=SCHEDULERS)
def test_a_scheduler_moves_the_rate(policy, reference, kwargs):
    clf = make(LRScheduler(policy, **kwargs)).fit(X, LABELS)
    expected = reference_rates(reference, N_EPOCHS, **kwargs)
    assert clf.history_[:, "learning_rate"] == pytest.approx(expected)
    assert clf.history_[:, "event_lr"] == pytest.approx(expected)


@pytest.mark.parametrize("optimizer", [SGD(), torch.optim.SGD], ids=["catalogue", "torch"])
def test_a_scheduler_is_the_schedule_of_the_same_formula(optimizer):
    params = {"optimizer": optimizer, "learning_rate_init": 0.1}
    clf = make(LRScheduler("ExponentialLR", gamma=0.5), **params).fit(X, LABELS)
    reference = make(learning_rate=Exponential(0.5, 1), **params).fit(X, LABELS)
    for one, other in zip(weights(clf), weights(reference), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_a_scheduler_steps_by_batch():
    class Rates(Callback):
        seen = ()

        def on_batch_end(self, net, training, **kwargs):
            self.seen = [*self.seen, net.optimizer_.param_groups[0]["lr"]]

    rates = Rates()
    params = {"optimizer": "sgd", "learning_rate_init": 0.1}
    clf = make(rates, LRScheduler("ExponentialLR", gamma=0.9, step_every="batch"), **params).fit(X, LABELS)
    n_batches = 5 * N_EPOCHS
    expected = reference_rates(torch.optim.lr_scheduler.ExponentialLR, n_batches, lr=0.1, gamma=0.9)
    assert rates.seen == pytest.approx(expected)
    assert clf.history_[:, "learning_rate"] == pytest.approx(expected[::5])
    reference = make(learning_rate=Exponential(0.9, 1, per="update"), **params).fit(X, LABELS)
    for one, other in zip(weights(clf), weights(reference), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_a_plateau_lowers_the_rate():
    clf = make(LRScheduler("ReduceLROnPlateau", monitor=lambda net: 1.0, patience=0, factor=0.5)).fit(X, LABELS)
    assert clf.history_[:, "learning_rate"] == pytest.approx([0.001, 0.001, 0.0005, 0.00025])
    make(LRScheduler("ReduceLROnPlateau", monitor="valid_loss")).fit(X_TRAIN, Y_TRAIN, **OWN)


def test_a_scheduler_multiplies_the_schedule():
    clf = make(LRScheduler("ExponentialLR", gamma=0.5), learning_rate=Exponential(0.1, 1)).fit(X, LABELS)
    assert clf.history_[:, "learning_rate"] == pytest.approx([0.001 * 0.05**epoch for epoch in range(N_EPOCHS)])


def test_a_scheduler_goes_on_in_a_stream():
    clf = make(LRScheduler("ExponentialLR", gamma=0.5))
    for _ in range(N_EPOCHS):
        clf.partial_fit(X, LABELS, classes=["a", "b", "c"])
    assert clf.history_[:, "learning_rate"] == pytest.approx([0.001 * 0.5**epoch for epoch in range(N_EPOCHS)])


def test_a_scheduler_starts_anew_with_a_warm_start():
    clf = make(LRScheduler("ExponentialLR", gamma=0.5), warm_start=True).fit(X, LABELS).fit(X, LABELS)
    assert clf.history_[:, "learning_rate"] == pytest.approx([0.001 * 0.5**epoch for epoch in range(N_EPOCHS)] * 2)


def test_a_callback_sets_the_rate_of_the_net():
    record = Record(lambda net, **_: net.set_params(lr=net.optimizer_.param_groups[0]["lr"] / 10))
    clf = make(record).fit(X, LABELS)
    assert clf.history_[:, "learning_rate"] == pytest.approx([0.001 * 0.1**epoch for epoch in range(N_EPOCHS)])


# gradients and parameters -------------------------------------------------------------------------------------------------


def test_the_norm_of_gradients_is_clipped():
    params = {"optimizer": "sgd", "learning_rate_init": 0.5}
    clf = make(GradientNormClipping(0.1), **params).fit(X, LABELS)
    reference = make(gradient_clipping=ClipNorm(0.1), **params).fit(X, LABELS)
    for one, other in zip(weights(clf), weights(reference), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
    assert not same(weights(clf), weights(make(**params).fit(X, LABELS)))


def test_parameters_are_initialized_by_a_callback():
    record = Record(lambda net, **_: None)
    record.on_epoch_begin = lambda net, **_: record.seen.append(net.module_[0].weight.detach().clone())
    clf = make(Initializer("0.weight", fn=torch.nn.init.ones_), record, max_iter=1, learning_rate_init=1e-9).fit(X, LABELS)
    assert torch.equal(record.seen[0], torch.ones(8, 4, dtype=torch.float64))
    np.testing.assert_allclose(clf.coefs_[0], 1.0, atol=1e-6)


def test_parameters_are_mapped_and_unfrozen():
    shrink = ParamMapper("*.bias", at=3, fn=lambda parameter: parameter.data.zero_())
    make(shrink, Unfreezer("*")).fit(X, LABELS)


def test_frozen_parameters_are_refused():
    with pytest.raises(ValueError, match="Freezer"):
        make(Freezer("0.*")).fit(X, LABELS)


def test_a_net_that_is_to_be_rebuilt_is_refused():
    with pytest.raises(ValueError, match="'module__input_dim' of the net"):
        make(InputShapeSetter()).fit(X, LABELS)


# loggers ------------------------------------------------------------------------------------------------------------------


def test_prints(capsys):
    clf = make(PrintLog, EpochTimer(), EpochScoring("accuracy", lower_is_better=False)).fit(X_TRAIN, Y_TRAIN, **OWN)
    header, rule, *lines = capsys.readouterr().out.splitlines()
    assert {"epoch", "train_loss", "valid_loss", "accuracy", "dur"} <= set(header.split())
    assert set(rule) <= set("- ")
    assert len(lines) == N_EPOCHS
    assert all(duration >= 0 for duration in clf.history_[:, "dur"])


def test_a_progress_bar_of_batches():
    counts = []

    class Bar(ProgressBar):
        def on_epoch_end(self, net, **kwargs):
            counts.append((self.pbar_.n, self.pbar_.total))
            super().on_epoch_end(net, **kwargs)

    make(Bar()).fit(X, LABELS)
    make(Bar(), max_iter=1).fit(X_TRAIN, Y_TRAIN, **OWN)
    make(Bar(batches_per_epoch="count"), max_iter=2).fit(X_TRAIN, Y_TRAIN, **OWN)
    assert counts == [(5, 5)] * N_EPOCHS + [(5, 5)] + [(5, None), (5, 5)]  # the validation rows are one batch


class Writer:
    """Stands in for a `torch.utils.tensorboard.SummaryWriter` and for the runs and clients of experiment trackers."""

    info = type("Info", (), {"run_id": "7"})

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **kwargs: self.calls.append((name, args, kwargs)) or self

    def __setitem__(self, key, value):
        self.calls.append(("set", key, value))

    def __getitem__(self, key):
        return self

    def of(self, name):
        return [call[1:] for call in self.calls if call[0] == name]


def test_tensorboard():
    writer = Writer()
    clf = make(TensorBoard(writer, keys_ignored="penalty")).fit(X_TRAIN, Y_TRAIN, **OWN)
    scalars = [call for _, call in writer.of("add_scalar")]
    losses = [(call["global_step"], call["scalar_value"]) for call in scalars if call["tag"] == "Loss/train_loss"]
    assert losses == list(enumerate(clf.loss_curve_, 1))
    assert "Loss/valid_score" in {call["tag"] for call in scalars}
    assert len(writer.of("close")) == 1


def test_sacred_and_wandb(tmp_path):
    experiment, run = Writer(), Writer()
    run.dir = str(tmp_path)
    callbacks = [SacredLogger(experiment, log_on_batch_end=True), WandbLogger(run)]
    clf = make(*callbacks).fit(X_TRAIN, Y_TRAIN, **OWN)
    logged = [arguments for arguments, _ in experiment.of("log_scalar")]
    assert [value for name, value, *_ in logged if name == "train_loss_epoch"] == clf.loss_curve_
    assert sum(name == "train_loss_batch" for name, *_ in logged) >= 4 * N_EPOCHS
    assert [row["valid_loss"] for (row,), _ in run.of("log")] == clf.history_[:, "valid_loss"]
    ((module,), _), *_ = run.of("watch")
    assert module is clf.module_
    assert torch.load(tmp_path / "best_model.pth", weights_only=True).keys() == clf.module_.state_dict().keys()


def test_mlflow():
    client = Writer()
    clf = make(MlflowLogger(Writer(), client)).fit(X, LABELS)
    metrics = [(arguments[2], call["step"]) for arguments, call in client.of("log_metric") if arguments[1] == "train_loss"]
    assert metrics == list(zip(clf.loss_curve_, range(1, N_EPOCHS + 1), strict=True))
    names = [arguments[1].name for arguments, _ in client.of("log_artifact")]
    assert names == ["params.pth", "optimizer.pth", "criterion.pth", "history.json"]


def test_neptune(monkeypatch):
    handler, types = ModuleType("neptune.handler"), ModuleType("neptune.types")
    handler.Handler, types.File = str, Writer()
    for module in (ModuleType("neptune"), handler, types):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    run = Writer()
    clf = make(NeptuneLogger(run, log_on_batch_end=True)).fit(X, LABELS)
    config = dict(run.of("set"))
    assert config["config/lr"] == clf.learning_rate_init
    assert config["config/optimizer"] == "EngineOptimizer"
    assert (clf.loss_curve_[-1],) in [arguments for arguments, _ in run.of("append")]
    assert len(run.of("stop")) == 1


# callbacks as a parameter -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [EpochTimer, EpochTimer(), ("timer", EpochTimer()), ["timer", EpochTimer]])
def test_ways_to_give_a_callback(given):
    clf = make(given).fit(X, LABELS)
    assert len(clf.history_[:, "dur"]) == N_EPOCHS


def test_names_must_differ():
    with pytest.raises(ValueError, match="duplicate"):
        make(("a", EpochTimer()), ("a", EpochTimer())).fit(X, LABELS)


def test_a_callback_serves_several_fits():
    stop = EarlyStopping("train_loss", patience=1, threshold=10.0, sink=list)
    score = EpochScoring("accuracy", on_train=True, lower_is_better=False)
    clf = make(stop, score)
    histories = [[row["accuracy"] for row in clf.fit(X, LABELS).history_] for _ in range(2)]
    assert histories[0] == histories[1]
    assert len(histories[0]) == 2


def test_a_clone_has_callbacks_of_its_own():
    clf = make(EarlyStopping("train_loss"), ("score", EpochScoring("accuracy", on_train=True))).fit(X, LABELS)
    copy = clone(clf)
    assert copy.callbacks[0] is not clf.callbacks[0]
    assert copy.callbacks[1][1] is not clf.callbacks[1][1]
    assert copy.fit(X, LABELS).loss_curve_ == clf.loss_curve_


def test_a_fitted_estimator_with_callbacks_is_pickled(tmp_path):
    callbacks = [EpochScoring("accuracy", on_train=True), LRScheduler("StepLR", step_size=2), EarlyStopping("train_loss")]
    clf = make(*callbacks, ProgressBar(), Checkpoint("train_loss_best", dirname=str(tmp_path))).fit(X, LABELS)
    copy = pickle.loads(pickle.dumps(clf))
    np.testing.assert_array_equal(copy.predict_proba(X), clf.predict_proba(X))
    assert copy.history_ == clf.history_
    assert copy.fit(X, LABELS).loss_curve_ == clf.loss_curve_


def test_callbacks_change_nothing():
    quiet = make(dropout=0.2, early_stopping=True).fit(X, LABELS)
    heard = make(
        EpochScoring("accuracy"), BatchScoring("accuracy", on_train=True), PrintLog(sink=list), dropout=0.2, early_stopping=True
    ).fit(X, LABELS)
    assert same(weights(heard), weights(quiet))
    assert heard.loss_curve_ == quiet.loss_curve_


def test_every_callback_of_skorch_has_its_test():
    source = Path(__file__).read_text(encoding="utf-8")
    names = {name for name in skorch.callbacks.__all__ if issubclass(getattr(skorch.callbacks, name), Callback)}
    assert {name for name in names if len(re.findall(rf"\b{name}\b", source)) < 2} == set()
