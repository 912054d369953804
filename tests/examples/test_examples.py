"""The examples run from end to end with small arguments, and write what they promise."""

import csv
import functools
import importlib
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.model_selection import ParameterGrid

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(autouse=True)
def _examples_on_path(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)


@pytest.fixture
def compare(_examples_on_path):
    return importlib.import_module("compare_techniques")


@pytest.fixture
def chapter(_examples_on_path):
    return importlib.import_module("chapter_mnist")


@pytest.fixture
def no_mnist(_examples_on_path, monkeypatch, tmp_path):
    """Neither a file nor a network."""
    mnist = importlib.import_module("_mnist")

    def download():
        raise OSError("no network")

    monkeypatch.setattr(mnist, "_download", download)
    monkeypatch.setattr(mnist, "__file__", str(tmp_path / "repository" / "examples" / "_mnist.py"))
    monkeypatch.setenv("SKDNN_DATA", str(tmp_path))


@pytest.fixture
def small_mnist(monkeypatch, tmp_path):
    """A file like MNIST's, whose 5,200 training images are enlarged digits."""
    X, y = load_digits(return_X_y=True)
    X = np.pad(X.reshape(-1, 8, 8).repeat(3, 1).repeat(3, 2), ((0, 0), (2, 2), (2, 2))) * (255 / 16)
    X, y = X.reshape(-1, 784).astype(np.uint8), y.astype(np.uint8)
    rows = np.arange(5_200) % len(X)
    np.savez(tmp_path / "mnist.npz", X_train=X[rows], y_train=y[rows], X_test=X[:300], y_test=y[:300])
    monkeypatch.setenv("SKDNN_DATA", str(tmp_path))


def read_csv(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_compare_writes_a_table_a_figure_and_a_csv(compare, monkeypatch, tmp_path, capsys):
    few = {"initializer": ["he_normal"], "regularizer": [None], "max_norm": [None]}
    monkeypatch.setattr(compare, "TECHNIQUES", compare.TECHNIQUES | few)
    arguments = ["--n-samples", "120", "--folds", "2", "--max-iter", "1", "--n-jobs", "1", "--out", str(tmp_path)]
    assert compare.main(arguments) == 0
    rows = read_csv(tmp_path / "compare_techniques_digits.csv")
    assert len(rows) == len(ParameterGrid(compare.make_grid()))
    accuracies = [float(row["mean_accuracy"]) for row in rows]
    assert accuracies == sorted(accuracies, reverse=True)
    assert {row["activation"] for row in rows} == {"logistic", "relu", "ELU()"}
    assert (tmp_path / "compare_techniques_digits.png").read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr()
    assert "accuracy" in printed.out
    assert "better in" in printed.out
    assert f"{2 * len(rows)}/{2 * len(rows)}" in printed.err  # epochs of both folds


def test_compare_takes_an_optimizer_and_its_rate_as_one(compare, monkeypatch):
    monkeypatch.setattr(compare, "TECHNIQUES", {"batch_norm": [False, True]})
    X, y, scaler, _ = compare.load_data("digits", 100)
    candidates, effects = compare.search(X, y, scaler, 2, 1, 1)
    assert [(effect.parameter, effect.n_pairs) for effect in effects] == [
        ("mlp__batch_norm", 2),
        ("mlp__batch_norm", 2),
        ("mlp__optimizer, mlp__learning_rate_init", 2),
        ("mlp__optimizer, mlp__learning_rate_init", 2),
    ]
    means = {(c["batch_norm"], c["optimizer"]): c["mean"] for c in candidates}
    changes = [means["True", optimizer] - means["False", optimizer] for optimizer in ("Momentum()", "adam")]
    assert effects[1].effect == pytest.approx(np.mean(changes))


def test_compare_draws_from_mnist(compare, small_mnist):
    X, y, scaler, name = compare.load_data("mnist", 200)
    assert X.shape == (200, 784)
    assert X.dtype == np.float32
    assert X.max() <= 1.0
    assert np.bincount(y).min() >= 15
    assert scaler.with_std is False
    assert name == "MNIST"


def test_compare_falls_back_to_digits_and_says_so(compare, no_mnist, capsys):
    X, _, _, name = compare.load_data("mnist")
    assert X.shape == (1797, 64)
    assert name == "digits"
    assert "digits instead" in capsys.readouterr().err


def test_compare_ends_quietly_when_interrupted(compare, monkeypatch, capsys):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(compare, "search", interrupt)
    assert compare.main([]) == 130
    assert "Interrupted" in capsys.readouterr().err


def test_chapter_prints_epochs_and_writes_a_csv(chapter, small_mnist, tmp_path, capsys):
    assert chapter.main(["--experiments", "all", "--epochs", "1", "--out", str(tmp_path)]) == 0
    rows = read_csv(tmp_path / "chapter_mnist.csv")
    epochs = {name: [int(row["epoch"]) for row in rows if row["experiment"] == name] for name in chapter.EXPERIMENTS}
    assert epochs == {name: [0, 1] if name == "batch_norm" else [0] for name in chapter.EXPERIMENTS}
    assert all(0.0 <= float(row["accuracy"]) <= 1.0 for row in rows)
    assert rows[0]["chapter"] == "0.9044"
    assert "Summary" in capsys.readouterr().out


def test_chapter_scores_the_last_epoch_as_the_classifier_would(chapter, small_mnist):
    from _mnist import load_mnist

    data = load_mnist()
    callback = chapter.EpochAccuracy(data.X_test, data.y_test, {})
    parameters = chapter.EXPERIMENTS["batch_norm"].parameters
    classifier = chapter.MLPDeepClassifier(**parameters, max_iter=2, n_iter_no_change=2, callbacks=[callback], random_state=0)
    classifier.fit(data.X_train[5_000:], data.y_train[5_000:])
    assert len(callback.accuracies) == 2
    assert callback.accuracies[-1] == pytest.approx(classifier.score(data.X_test, data.y_test))


def test_chapter_says_when_a_target_is_missed(chapter, capsys):
    assert chapter.summarise({"l1": ([0.0] * 19 + [0.9036], 1.0)})
    assert not chapter.summarise({"l1": ([0.0] * 19 + [0.9035], 1.0)})
    assert "NO" in capsys.readouterr().out


def test_chapter_targets_and_figures_belong_to_epochs_that_are_run(chapter):
    for name, experiment in chapter.EXPERIMENTS.items():
        assert max([*experiment.targets, *chapter.CHAPTER.get(name, {})], default=0) < sum(experiment.fits)


def test_chapter_stops_without_mnist(chapter, no_mnist, capsys):
    assert chapter.main([]) == 2
    assert "MNIST was not found" in capsys.readouterr().err


@pytest.fixture
def on_dask(_examples_on_path):
    pytest.importorskip("distributed")
    return importlib.import_module("search_on_dask")


def test_dask_searches_on_workers_of_its_own(on_dask, monkeypatch, capsys):
    # The workers of the example are processes, which take seconds to start; the searches' own tests have such.
    cluster = functools.partial(on_dask.LocalCluster, processes=False)
    monkeypatch.setattr(on_dask, "LocalCluster", cluster)
    monkeypatch.setattr(on_dask, "GRID", {"mlp__dropout": [0.0, 0.2], "mlp__learning_rate_init": [1e-6, 0.1]})
    assert on_dask.main(["--folds", "2", "--max-iter", "2"]) == 0
    printed = capsys.readouterr().out
    assert "8 fits on 2 workers" in printed
    assert "mlp__learning_rate_init = 0.1" in printed


def test_dask_searches_on_the_workers_of_a_scheduler(on_dask, monkeypatch):
    searches = []
    monkeypatch.setattr(on_dask, "search", lambda *options: searches.append(options) or on_dask.sys.exit("searched"))
    with on_dask.LocalCluster(n_workers=1, processes=False, dashboard_address=":0", protocol="tcp") as cluster:
        with pytest.raises(SystemExit, match="searched"):
            on_dask.main([cluster.scheduler_address])
        assert len(cluster.scheduler.workers) == 1  # and they live on
    assert searches == [(20, 3)]


def test_dask_ends_quietly_when_interrupted(on_dask, monkeypatch, capsys):
    def interrupt(address):
        raise KeyboardInterrupt

    monkeypatch.setattr(on_dask, "connect", interrupt)
    assert on_dask.main([]) == 130
    assert "Interrupted" in capsys.readouterr().err


@pytest.mark.parametrize("script", ["compare_techniques.py", "chapter_mnist.py"])
def test_scripts_explain_themselves(script, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [script, "--help"])
    with pytest.raises(SystemExit) as exit_of_script:
        runpy.run_path(str(EXAMPLES / script), run_name="__main__")
    assert exit_of_script.value.code == 0
    assert "--out" in capsys.readouterr().out


@pytest.mark.slow
def test_the_chapter_reaches_its_targets(chapter, tmp_path):
    mnist = importlib.import_module("_mnist")
    try:
        mnist.load_mnist()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    assert chapter.main(["--out", str(tmp_path)]) == 0
