"""What a fit shows: nothing, a bar, or a line an epoch."""

import re
import signal
import sys

import pytest
import tqdm.auto
from sklearn.datasets import load_iris
from skorch.callbacks import Callback, EarlyStopping

from skdnn import MLPDeepClassifier

X, Y = load_iris(return_X_y=True)


def make(verbose, **params):
    settings = {"hidden_layer_sizes": (8,), "batch_size": 32, "max_iter": 4, "random_state": 0}
    settings["n_iter_no_change"] = params.get("max_iter", 4)
    return MLPDeepClassifier(verbose=verbose, **settings | params)


class At(Callback):
    """Calls a function at the end of the second epoch."""

    def __init__(self, function):
        self.function = function

    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == 2:
            self.function()


@pytest.fixture
def bars(monkeypatch):
    """The bars that fits make, each with how often it was closed."""
    made = []

    class Bar(tqdm.auto.tqdm):
        n_closed = 0

        def __init__(self, *args, **kwargs):
            made.append(self)
            super().__init__(*args, **kwargs)

        def close(self):
            self.n_closed += not self.disable
            super().close()

    monkeypatch.setattr(tqdm.auto, "tqdm", Bar)
    return made


@pytest.mark.parametrize("verbose", [False, 0])
def test_silence(verbose, capsys, bars):
    make(verbose, early_stopping=True).fit(X, Y)
    assert capsys.readouterr() == ("", "")
    assert not bars


@pytest.mark.parametrize("verbose", [True, 1])
def test_a_bar_counts_epochs_and_shows_the_last_ones_figures(verbose, capsys, bars):
    clf = make(verbose, early_stopping=True).fit(X, Y)
    (bar,) = bars
    assert (bar.n, bar.total, bar.n_closed) == (4, 4, 1)
    out, err = capsys.readouterr()
    assert out == ""
    assert "4/4" in err
    row = clf.history_[-1]
    for name in ("train_loss", "valid_loss", "valid_score"):
        assert f"{name}={row[name]:.4g}" in err


def test_a_bar_without_validation(capsys):
    make(1).fit(X, Y)
    err = capsys.readouterr().err
    assert "train_loss=" in err
    assert "valid" not in err


def test_a_bar_of_a_fit_that_stops_early(bars):
    make(1, max_iter=50, n_iter_no_change=2, tol=1e10).fit(X, Y)
    make(1, max_iter=50, callbacks=[EarlyStopping("train_loss", patience=1, threshold=10.0, sink=list)]).fit(X, Y)
    assert [(bar.total, bar.n_closed) for bar in bars] == [(50, 1), (50, 1)]
    assert [bar.n for bar in bars] == [4, 2]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_bar_is_closed_after_an_error(error, bars):
    def fail():
        if error is KeyboardInterrupt:
            signal.raise_signal(signal.SIGINT)
        raise error

    with pytest.raises(error):
        make(1, callbacks=[At(fail)]).fit(X, Y)
    (bar,) = bars
    assert (bar.n, bar.n_closed) == (1, 1)


@pytest.mark.parametrize("verbose", [2, 5])
def test_lines(verbose, capsys, bars):
    make(verbose, early_stopping=True).fit(X, Y)
    out, err = capsys.readouterr()
    number = r"\d+\.\d+"
    line = rf"Epoch \d: loss = {number}, validation loss = {number}, validation score = {number}"
    assert len(out.splitlines()) == 4
    assert all(re.fullmatch(line, printed) for printed in out.splitlines())
    assert err == ""
    assert not bars
    make(verbose).fit(X, Y)
    assert re.fullmatch(rf"Epoch 1: loss = {number}", capsys.readouterr().out.splitlines()[0])


def test_a_call_of_partial_fit_is_one_epoch(capsys, bars):
    make(1).partial_fit(X, Y, classes=[0, 1, 2])
    assert [(bar.n, bar.total) for bar in bars] == [(1, 1)]
    make(2).partial_fit(X, Y, classes=[0, 1, 2])
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_a_bar_changes_nothing():
    assert make(1).fit(X, Y).loss_curve_ == make(0).fit(X, Y).loss_curve_


def test_tqdm_is_loaded_when_a_bar_is_wanted(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    make(0).fit(X, Y)
    make(2).fit(X, Y)
    with pytest.raises(ImportError):
        make(1).fit(X, Y)
