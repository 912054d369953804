"""scikit-learn's callbacks see a fit as a task with an epoch each within it."""

import pickle

import joblib
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.callback import ProgressBar, ScoringMonitor
from sklearn.datasets import load_diabetes, load_iris
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import EpochScoring

from skdnn import MLPDeepClassifier, MLPDeepRegressor

X, Y = load_iris(return_X_y=True)
LABELS = np.array(["a", "b", "c"])[Y]
N_EPOCHS = 4


def make(*callbacks, **params):
    settings = {"hidden_layer_sizes": (8,), "batch_size": 32, "max_iter": N_EPOCHS, "random_state": 0}
    settings["n_iter_no_change"] = params.get("max_iter", N_EPOCHS)
    return MLPDeepClassifier(**settings | params).set_callbacks(*callbacks)


class Recorder:
    """Keeps the events; `at` is told of the end of each epoch, with a fitted estimator if it wants one."""

    def __init__(self, at=lambda **_: None):
        self.events = []
        self.at = at

    def setup(self, estimator, context):
        self.events.append("setup")

    def teardown(self, estimator, context):
        self.events.append("teardown")

    def on_fit_task_begin(self, estimator, context):
        self.events.append(f"begin {context.task_name}")

    def on_fit_task_end(self, estimator, context):
        self.events.append(f"end {context.task_name}")
        return context.task_name == "epoch" and self.at(estimator=estimator, context=context)


class Fitted(Recorder):
    """Asks for fitted estimators, at the beginning of tasks too."""

    def initialize(self):
        self.begun, self.ended = [], []
        return self

    def on_fit_task_begin(self, estimator, context, *, fitted_estimator):
        self.begun.append((context.task_name, fitted_estimator))

    def on_fit_task_end(self, estimator, context, *, X, y, metadata, fitted_estimator):
        self.ended.append((context.task_name, fitted_estimator))
        assert X is not None
        assert len(X) == len(y)


class PropagatedRecorder(Recorder):
    max_propagation_depth = None


EPOCH = ["begin epoch", "end epoch"]


def test_a_fit_is_a_task_with_an_epoch_each_within_it():
    recorder = Recorder()
    clf = make(recorder).fit(X, LABELS)
    assert recorder.events == ["setup", "begin fit", *EPOCH * N_EPOCHS, "end fit", "teardown"]
    assert not hasattr(clf, "_callback_fit_ctx")


@pytest.mark.parametrize("early_stopping", [False, True])
def test_epochs_carry_an_estimator_as_if_the_fit_had_ended_there(early_stopping):
    fitted = Fitted().initialize()
    clf = make(fitted, early_stopping=early_stopping, dropout=0.1).fit(X, LABELS)
    epochs = [estimator for name, estimator in fitted.ended if name == "epoch"]
    assert len(epochs) == N_EPOCHS
    for n_epochs, estimator in enumerate(epochs, 1):
        reference = make(max_iter=n_epochs, early_stopping=early_stopping, dropout=0.1).fit(X, LABELS)
        np.testing.assert_array_equal(estimator.predict_proba(X), reference.predict_proba(X))
        assert estimator.loss_curve_ == reference.loss_curve_
        assert estimator.n_iter_ == n_epochs
        assert list(estimator.predict(X[:1])) == list(reference.predict(X[:1]))
        assert len(estimator.history_) == len(estimator.net_.history) == n_epochs
    assert [name for name, _ in fitted.begun] == ["fit"] + ["epoch"] * N_EPOCHS
    for (_, begun), (_, ended) in zip(fitted.begun[2:], fitted.ended, strict=False):
        np.testing.assert_array_equal(begun.predict_proba(X), ended.predict_proba(X))
    np.testing.assert_array_equal(fitted.ended[-1][1].predict_proba(X), clf.predict_proba(X))


def test_a_copy_of_the_network_is_made_only_where_it_is_asked_for(monkeypatch):
    def refuse(net):
        raise AssertionError("a copy was made")

    monkeypatch.setattr("skdnn._fit_tasks._attributes_as_if_over", refuse)
    make(Recorder()).fit(X, LABELS)
    make().fit(X, LABELS)
    with pytest.raises(AssertionError, match="a copy was made"):
        make(Fitted().initialize()).fit(X, LABELS)


@pytest.mark.parametrize("params", [{}, {"early_stopping": True}, {"batch_norm": True}], ids=["plain", "stopping", "norm"])
def test_a_scoring_monitor_scores_as_the_estimator_does(params):
    monitor = ScoringMonitor(scoring=["accuracy", "neg_log_loss"])
    clf = make(monitor, learning_rate_init=0.03, **params).fit(X, LABELS)
    root, *epochs = monitor.get_logs().data
    assert [row["task_name"] for row in epochs] == ["epoch"] * N_EPOCHS
    assert root["accuracy"] == epochs[-1]["accuracy"] == clf.score(X, LABELS)
    assert len({row["neg_log_loss"] for row in epochs}) > 1


def test_a_scoring_monitor_of_a_regressor():
    rows, y = load_diabetes(return_X_y=True)
    monitor = ScoringMonitor(scoring="r2")
    reg = MLPDeepRegressor((8,), max_iter=3, n_iter_no_change=3, random_state=0).set_callbacks(monitor).fit(rows, y)
    assert monitor.get_logs().data[-1]["r2"] == reg.score(rows, y)


def test_a_callback_that_returns_true_stops_training():
    recorder = Recorder(at=lambda context, **_: context.task_id == 1)
    clf = make(recorder, max_iter=20).fit(X, LABELS)
    assert clf.n_iter_ == 2
    assert recorder.events == ["setup", "begin fit", *EPOCH * 2, "end fit", "teardown"]
    np.testing.assert_array_equal(clf.predict_proba(X), make(max_iter=2).fit(X, LABELS).predict_proba(X))


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_callbacks_are_torn_down_after_an_error(error):
    def fail(**_):
        raise error("stop here")

    recorder = Recorder(at=fail)
    clf = make(recorder)
    with pytest.raises(error, match="stop here"):
        clf.fit(X, LABELS)
    assert recorder.events == ["setup", "begin fit", *EPOCH, "teardown"]
    assert not hasattr(clf, "_callback_fit_ctx")
    recorder.at = lambda **_: None
    assert clf.fit(X, LABELS).n_iter_ == N_EPOCHS  # and it can be fitted again


def test_data_that_cannot_be_used_tear_callbacks_down():
    recorder = Recorder()
    with pytest.raises(ValueError, match="NaN"):
        make(recorder).fit(X * np.nan, LABELS)
    assert recorder.events == ["setup", "begin fit", "teardown"]


def test_a_warm_start_is_a_fit_and_partial_fit_is_not():
    recorder = Recorder()
    clf = make(recorder, warm_start=True).fit(X, LABELS).fit(X, LABELS)
    assert recorder.events.count("begin fit") == 2
    assert len(clf.history_) == 2 * N_EPOCHS
    clf.partial_fit(X, LABELS)
    assert recorder.events.count("begin epoch") == 2 * N_EPOCHS


def test_through_a_pipeline():
    recorder, monitor = PropagatedRecorder(), ScoringMonitor(scoring="accuracy")
    pipeline = make_pipeline(StandardScaler(), make(monitor)).set_callbacks(recorder).fit(X, LABELS)
    assert recorder.events.count("begin epoch") == recorder.events.count("end epoch") == N_EPOCHS
    assert recorder.events.count("setup") == recorder.events.count("teardown") == 1
    rows = [row for row in monitor.get_logs().data if row["task_name"] == "epoch"]
    assert rows[-1]["accuracy"] == pipeline.score(X, LABELS)
    assert len(rows[-1]["task_id_path"]) == 3  # pipeline, its last step, epoch


def test_through_a_search_in_processes():
    # skorch's callbacks go along: workers are slow to start.
    monitor = ScoringMonitor(scoring="accuracy")
    clf = make(monitor, early_stopping=True, callbacks=[EpochScoring("accuracy")])
    search = GridSearchCV(clf, {"hidden_layer_sizes": [(4,), (8,)]}, cv=2, n_jobs=2)
    recorder = PropagatedRecorder()
    search.set_callbacks(recorder).fit(X, LABELS)
    assert recorder.events.count("begin epoch") == N_EPOCHS  # of the refit; those of the workers went to copies
    rows = [row for row in monitor.get_logs().data if row["task_name"] == "epoch"]
    assert len(rows) == 5 * N_EPOCHS
    assert search.score(X, LABELS) in [row["accuracy"] for row in rows]
    assert len(search.best_estimator_.history_[:, "accuracy"]) == N_EPOCHS


def test_a_search_in_threads():
    recorder = PropagatedRecorder()
    search = GridSearchCV(make(), {"hidden_layer_sizes": [(4,), (8,)]}, cv=2, n_jobs=2).set_callbacks(recorder)
    with joblib.parallel_backend("threading"):
        search.fit(X, LABELS)
    assert recorder.events.count("end epoch") == 5 * N_EPOCHS
    assert not hasattr(search.best_estimator_, "_parent_callback_ctx")


def test_clones_and_pickles_keep_callbacks_as_scikit_learns_do():
    monitor = ScoringMonitor(scoring="accuracy")
    clf = make(monitor)
    assert clone(clf)._skl_callbacks == [monitor]
    assert "callbacks" in clf.get_params()  # skorch's; those of scikit-learn are no parameter
    assert clf.callbacks is None
    clf.fit(X, LABELS)
    copy = pickle.loads(pickle.dumps(clf))
    np.testing.assert_array_equal(copy.predict_proba(X), clf.predict_proba(X))
    copy.fit(X, LABELS)
    assert len(copy._skl_callbacks[0].get_logs("all")) == 2
    assert len(monitor.get_logs("all")) == 1
    assert not hasattr(clf.set_callbacks(), "_skl_callbacks")


def test_a_callback_of_the_other_kind_is_named():
    with pytest.raises(ValueError, match="set_callbacks"):
        make(callbacks=[ScoringMonitor(scoring="r2")]).fit(X, LABELS)
    with pytest.raises(TypeError, match="FitCallback"):
        make(EpochScoring("accuracy"))


def test_metadata_of_validation_go_with_it():
    X_train, X_val, y_train, y_val = train_test_split(X, LABELS, random_state=0)
    monitor = ScoringMonitor(scoring="accuracy")
    clf = make(monitor).fit(X_train, y_train, X_val=X_val, y_val=y_val)
    assert monitor.get_logs().data[-1]["accuracy"] == clf.score(X_train, y_train)


def test_callbacks_change_nothing():
    quiet, heard = make(dropout=0.2).fit(X, LABELS), make(Fitted().initialize(), dropout=0.2).fit(X, LABELS)
    np.testing.assert_array_equal(quiet.predict_proba(X), heard.predict_proba(X))


def test_progress_bar(capsys):
    pytest.importorskip("rich")
    make(ProgressBar(), max_iter=20).fit(X, LABELS)
    assert "MLPDeepClassifier - fit" in capsys.readouterr().out
    make_pipeline(make()).set_callbacks(ProgressBar()).fit(X, LABELS)
    assert "Pipeline - fit" in capsys.readouterr().out
