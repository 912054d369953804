"""A search that was interrupted goes on from its folder, and ends with what an undisturbed one ends with, to the last bit."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import safetensors.numpy
import scipy.sparse
import torch
from searches import TIMES, counted, run
from sklearn.datasets import load_diabetes, load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdnn import MLPDeepClassifier, MLPDeepRegressor
from skdnn.components import Adam, LeakyReLU, Momentum, TorchOptimizer
from skdnn.exceptions import InvalidParameterError
from skdnn.model_selection import VectorizedGridSearchCV, VectorizedRandomizedSearchCV, _candidates, _kept_groups
from skdnn.model_selection._candidates import last_step

X, Y = load_iris(return_X_y=True)
X = StandardScaler().fit_transform(X)
X_NUMBERS, Y_NUMBERS = (array[:100] for array in load_diabetes(return_X_y=True))
LABELS = np.stack([Y == 0, X[:, 0] > 0], 1).astype(int)
RATES = [0.05, 0.01]
GRID = {"learning_rate_init": RATES, "hidden_layer_sizes": [(8,), (6,)]}  # two groups of two
COMMON = {"batch_size": 32, "max_iter": 3, "n_iter_no_change": np.inf, "random_state": 0}
SETTINGS = {"cv": 2, "scoring": "neg_log_loss"}


def make(**params):
    return MLPDeepClassifier(**COMMON | params)


def search(folder, estimator=None, grid=None, X=X, y=Y, **settings):
    """Fit a search; return it or its error, what it said, and what it has trained in this process."""
    estimator = make() if estimator is None else estimator
    with counted() as counts:
        fitted, said = run(VectorizedGridSearchCV, estimator, grid or GRID, X, y, resume_from=folder, **SETTINGS | settings)
    return fitted, said, counts


def interrupt_training(patch, after):
    """Let training be interrupted after so many groups."""
    together, seen = _candidates.train_in_lockstep, []

    def train_in_lockstep(*args):
        if len(seen) == after:
            raise KeyboardInterrupt
        seen.append(args)
        return together(*args)

    patch.setattr(_candidates, "train_in_lockstep", train_in_lockstep)


def interrupted(folder, *args, after=1, **settings):
    with pytest.MonkeyPatch.context() as patch:
        interrupt_training(patch, after)
        with pytest.raises(KeyboardInterrupt):
            search(folder, *args, **settings)
    assert len(list(folder.glob("*.json"))) == after


def assert_equal(mine, other):
    """Hold a fitted search against another, to the last bit."""
    for result in (other, mine):
        if isinstance(result, Exception):
            raise result
    assert mine.cv_results_.keys() == other.cv_results_.keys()
    for name in mine.cv_results_.keys() - TIMES - {"params"}:
        np.testing.assert_array_equal(mine.cv_results_[name], other.cv_results_[name], err_msg=name)
    assert repr(mine.best_params_) == repr(other.best_params_)
    for name in ("coefs_", "intercepts_"):
        assert all(map(np.array_equal, *(getattr(last_step(each.best_estimator_), name) for each in (mine, other))))


# going on -----------------------------------------------------------------------------------------------------------------

STOPPING = {"early_stopping": True, "validation_fraction": 0.2, "max_iter": 12}
OF_NUMBERS = {"X": X_NUMBERS, "y": Y_NUMBERS, "scoring": None}
CASES = {
    "double": (make(), GRID, {}),
    "single": (make(), GRID, {"X": X.astype(np.float32)}),
    "dtype": (make(dtype="float32"), GRID, {}),
    "batch_norm": (make(batch_norm=True, dropout=0.2), GRID, {}),
    "early_stopping": (make(**STOPPING), {**GRID, "n_iter_no_change": [1, 3]}, {"return_train_score": True}),
    "scorer": (make(**STOPPING, monitor="f1_macro"), GRID, {}),
    "warnings": (make(n_iter_no_change=1), GRID, {}),
    "divergence": (
        make(optimizer="sgd"),
        {"learning_rate_init": [0.1, 1e30], "hidden_layer_sizes": [(8,), (6,)]},
        {"scoring": None},
    ),
    "techniques": (
        make(activation=LeakyReLU(0.2)),
        {"optimizer": [Momentum(), "adam", Adam(beta_1=0.5)], "regularizer": [None, "l1"]},
        {},
    ),
    "fitted_alone": (make(), {"optimizer": [TorchOptimizer(torch.optim.RAdam), torch.optim.SGD, "nadam"]}, {}),
    "pipeline": (
        make_pipeline(StandardScaler(), make()),
        {"mlpdeepclassifier__tol": [0.0, 0.1], "standardscaler__with_mean": [True, False]},
        {},
    ),
    "frame": (make(), GRID, {"X": pd.DataFrame(X, columns=list("abcd")), "y": np.array(["x", "y", "z"], dtype=object)[Y]}),
    "sparse": (make(), GRID, {"X": scipy.sparse.csr_array(X)}),
    "multilabel": (make(), GRID, {"y": LABELS, "scoring": None}),
    "class_weight": (make(class_weight={0: 2.0, 1: 1.0}), GRID, {}),
    "regressor": (MLPDeepRegressor(**COMMON), GRID, OF_NUMBERS),
    "huber": (MLPDeepRegressor(**COMMON, loss="huber", batch_norm=True), GRID, OF_NUMBERS),
    "generator": (make(random_state=np.random.RandomState(3)), GRID, {}),
}


@pytest.mark.parametrize("name", CASES)
def test_an_interrupted_search_goes_on_with_the_rest(name, tmp_path):
    estimator, grid, settings = CASES[name]
    undisturbed, said, counts = search(None, estimator, grid, **settings)
    interrupted(tmp_path, estimator, grid, **settings)
    resumed, said_again, rest = search(tmp_path, estimator, grid, **settings)
    assert_equal(resumed, undisturbed)
    assert said_again == said
    again, said_at_last, refit = search(tmp_path, estimator, grid, **settings)
    assert_equal(again, undisturbed)
    assert said_at_last == said
    assert counts.total > rest.total > refit.total == 1


def test_what_is_restored_is_fitted_like_what_was_trained(tmp_path):
    def look(estimator, X, y):
        attributes = {name: value for name, value in vars(estimator).items() if name.endswith("_") and name[0] != "_"}
        attributes["probabilities"] = estimator.predict_proba(X).tolist()
        attributes["weights"] = [kernel.tolist() for kernel in estimator.coefs_]
        seen.append({name: repr(value) for name, value in attributes.items()})
        assert len(estimator.net_.history) == estimator.n_iter_
        return 0.0

    runs = []
    for _ in range(2):
        seen = []
        search(tmp_path, make(**STOPPING, batch_norm=True), scoring=look)
        runs.append(seen)
    assert runs[0] == runs[1]
    assert len(runs[0]) == 8


def test_a_randomized_search(tmp_path):
    settings = {"n_iter": 4, "random_state": 1, "cv": 2, "resume_from": tmp_path}
    first = VectorizedRandomizedSearchCV(make(), GRID, **settings).fit(X, Y)
    with counted() as counts:
        assert_equal(VectorizedRandomizedSearchCV(make(), GRID, **settings).fit(X, Y), first)
    assert counts.total == 1


def test_two_processes_keep_and_take(tmp_path):
    undisturbed, *_ = search(None, n_jobs=2)
    fitted, *_ = search(str(tmp_path), n_jobs=2)
    assert_equal(fitted, undisturbed)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(written) == 4 + 4  # of each shape and fold
    fitted, *_ = search(str(tmp_path), n_jobs=2)
    assert_equal(fitted, undisturbed)
    alone, _, counts = search(tmp_path)
    assert counts.total == 1
    assert_equal(alone, undisturbed)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == written


def test_more_candidates_train_for_themselves(tmp_path):
    search(tmp_path)
    _, _, counts = search(tmp_path, grid={**GRID, "learning_rate_init": [*RATES, 0.02]})
    assert counts.total == 4 + 1


# killed -------------------------------------------------------------------------------------------------------------------

# Children are forked, so that a moment in a search is hit and not one of its imports.
KILLED = """
import os, random, signal, sys, tempfile, time
import numpy as np
from sklearn.datasets import load_iris
from skdnn import MLPDeepClassifier
from skdnn.model_selection import VectorizedGridSearchCV

X, y = load_iris(return_X_y=True)
clf = MLPDeepClassifier(max_iter=4, n_iter_no_change=np.inf, batch_norm=True, early_stopping=True, random_state=0)
grid = {"hidden_layer_sizes": [(n,) for n in range(4, 10)], "learning_rate_init": [0.1, 0.01], "dropout": [0.0, 0.2]}

def search(folder):
    search = VectorizedGridSearchCV(clf, grid, cv=2, scoring="neg_log_loss", resume_from=folder).fit(X, y)
    scores = [search.cv_results_[f"split{k}_test_score"].tobytes() for k in range(2)]
    return scores, search.best_params_, [kernel.tobytes() for kernel in search.best_estimator_.coefs_]

expected = search(None)
start = time.perf_counter()
with tempfile.TemporaryDirectory() as folder:
    assert search(folder) == expected
duration, n_found = time.perf_counter() - start, []
for _ in range(int(sys.argv[1])):
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(2):
            child = os.fork()
            if not child:
                search(folder)
                os._exit(0)
            time.sleep(random.uniform(0.0, 0.6 * duration))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        n_found.append(sum(name.endswith(".json") for name in os.listdir(folder)))
        assert search(folder) == expected
print(*n_found)
"""


def kill(n_times):
    """Run the script above, and return how many groups were found after each pair of kills."""
    environment = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", KILLED, str(n_times)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [int(number) for number in done.stdout.split()]


def test_a_killed_search_goes_on():
    assert len(kill(3)) == 3


@pytest.mark.parametrize("step", range(8))
def test_a_process_may_end_at_any_step_of_writing(step, tmp_path, monkeypatch):
    undisturbed, *_ = search(None)
    steps = iter(range(8))
    write, rename = Path.write_bytes, Path.replace

    def write_bytes(path, content):
        if next(steps, None) == step:  # while the file is written
            write(path, content[: len(content) // 2])
            raise KeyboardInterrupt
        return write(path, content)

    def replace(path, target):
        if next(steps, None) == step:  # before it has its name
            raise KeyboardInterrupt
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", write_bytes)
        patch.setattr(Path, "replace", replace)
        patch.setattr(Path, "unlink", lambda *args, **kwargs: None)
        with pytest.raises(KeyboardInterrupt):
            search(tmp_path)
    assert len(list(tmp_path.glob("*.part"))) == 1
    resumed, said, counts = search(tmp_path)
    assert_equal(resumed, undisturbed)
    assert (said, counts.total) == ([], 8 - 2 * (step // 4) + 1)


@pytest.mark.slow
def test_twenty_killed_searches_go_on():
    n_found = kill(20)
    assert len(n_found) == 20
    assert len(set(n_found)) > 3  # they were killed at different moments


# what is not taken --------------------------------------------------------------------------------------------------------


def test_other_rows_parameters_and_versions_are_other_searches(tmp_path, monkeypatch):
    search(tmp_path)
    n_files = len(list(tmp_path.iterdir()))
    others = [
        {"X": X * 1.01},
        {"y": np.roll(Y, 1)},
        {"estimator": make(random_state=1)},
        {"estimator": make(random_state=np.random.RandomState(0))},
        {"estimator": make(max_iter=4)},
        {"estimator": make(tol=1e-3)},
        {"estimator": make(batch_norm=True)},
        {"grid": {**GRID, "learning_rate_init": [0.04, 0.03]}},
        {"cv": 3},
    ]
    for k, other in enumerate(others, 1):
        *_, counts = search(tmp_path, refit=False, **other)
        assert counts.total == (12 if "cv" in other else 8)
        assert len(list(tmp_path.iterdir())) >= n_files + 8 * k
    monkeypatch.setitem(_kept_groups._SOFTWARE, "torch", "1.0")
    *_, counts = search(tmp_path, refit=False)
    assert counts.total == 8


def test_weights_of_rows_are_part_of_them(tmp_path):
    weights = np.linspace(0.5, 2.0, len(X))
    for given in ({}, {"sample_weight": weights}, {"sample_weight": weights[::-1].copy()}):
        with counted() as counts:
            VectorizedGridSearchCV(make(), GRID, cv=2, refit=False, resume_from=tmp_path).fit(X, Y, **given)
        assert counts.total == 8


def test_draws_of_their_own_are_not_kept(tmp_path):
    for _ in range(2):
        _, said, counts = search(tmp_path, make(random_state=None), refit=False)
        assert counts.total == 8
        ((category, text),) = said
        assert category == "ResumeWarning"
        assert "random_state=None" in text
    assert list(tmp_path.iterdir()) == []


def test_generators_are_known_by_their_state(tmp_path):
    generator = np.random.RandomState(0)
    clf = make(random_state=generator)
    search(tmp_path, clf, refit=False)
    *_, counts = search(tmp_path, make(random_state=np.random.RandomState(0)), refit=False)
    assert counts.total == 0
    generator.rand()
    *_, counts = search(tmp_path, clf, refit=False)
    assert counts.total == 8


def test_what_has_no_stable_text_is_not_kept(tmp_path):
    class Leaky(LeakyReLU):
        pass

    grid = {"activation": [Leaky(), "relu"], "learning_rate_init": RATES}
    search(tmp_path, grid=grid, refit=False)
    _, ((category, text),), counts = search(tmp_path, grid=grid, refit=False)
    assert (category, counts.total) == ("ResumeWarning", 4)
    assert "Leaky" in text


# files --------------------------------------------------------------------------------------------------------------------


def test_the_folder_can_be_read(tmp_path):
    search(tmp_path / "new" / "folder", make(**STOPPING))
    paths = sorted((tmp_path / "new" / "folder").iterdir())
    assert [path.suffix for path in paths] == [".json", ".safetensors"] * 4
    content = json.loads(paths[0].read_text())
    assert content["seconds"] > 0.0
    assert len(content["candidates"]) == 2
    for k, candidate in enumerate(content["candidates"]):
        assert candidate["of"]["parameters"]["learning_rate_init"] == repr(RATES[k])
        assert len(candidate["history"]["train_loss"]) == candidate["outcome"]["n_epochs"] == 12
    assert safetensors.numpy.load_file(paths[1]).keys() == {"0.parameters", "0.statistics", "1.parameters", "1.statistics"}
    assert paths[0].read_text().count("\n") < 150


def cut(path):
    path.write_bytes(path.read_bytes()[:-40])


def empty(path):
    path.write_bytes(b"")


def change_a_digit(path):
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"n_epochs": 3', b'"n_epochs": 2'))
    assert path.read_bytes() != content


def change_a_bit(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def put_another(path):
    path.write_text('{"some": "settings"}')


DAMAGES = {
    "cut": (cut, ".json"),
    "empty": (empty, ".json"),
    "changed": (change_a_digit, ".json"),
    "foreign": (put_another, ".json"),
    "a_list": (lambda path: path.write_text("[1]"), ".json"),
    "not_text": (lambda path: path.write_bytes(b"\xff\xfe"), ".json"),
    "weights_cut": (cut, ".safetensors"),
    "weights_empty": (empty, ".safetensors"),
    "weights_changed": (change_a_bit, ".safetensors"),
    "weights_gone": (Path.unlink, ".safetensors"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_files_are_named_and_not_believed(name, tmp_path):
    damage, suffix = DAMAGES[name]
    undisturbed, *_ = search(tmp_path)
    path = min(tmp_path.glob(f"*{suffix}"))
    damage(path)
    again, said, counts = search(tmp_path)
    assert_equal(again, undisturbed)
    assert counts.total == 2 + 1
    assert {category for category, _ in said} == {"ResumeWarning"}
    assert all(path.stem in text for _, text in said)
    again, said, counts = search(tmp_path)  # it has been written anew
    assert_equal(again, undisturbed)
    assert (said, counts.total) == ([], 1)


def test_what_is_left_of_a_killed_process_does_no_harm(tmp_path):
    search(tmp_path)
    (tmp_path / "0123.json.abc.part").write_bytes(b"{")
    (tmp_path / "0123.safetensors").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("mine")
    _, said, counts = search(tmp_path)
    assert (said, counts.total) == ([], 1)


@pytest.mark.parametrize("where", ["file", "below_a_file"])
def test_a_folder_that_cannot_be_written_is_refused(where, tmp_path):
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / "folder" if where == "below_a_file" else tmp_path / "file"
    error, *_ = search(folder)
    assert isinstance(error, InvalidParameterError)
    assert str(error).startswith(f"resume_from={str(folder)!r} cannot be written to")


def test_a_full_disk_is_said_and_costs_nothing_else(tmp_path, monkeypatch):
    def fail(*args):
        raise OSError(28, "No space left on device")

    undisturbed, *_ = search(None)
    monkeypatch.setattr(Path, "write_bytes", fail)
    fitted, said, _ = search(tmp_path)
    assert_equal(fitted, undisturbed)
    assert {category for category, _ in said} == {"ResumeWarning"}
    assert "No space left" in said[0][1]
    assert list(tmp_path.iterdir()) == []


# misuse -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [1, True, ["folder"]])
def test_what_is_no_folder_is_refused(value):
    error, *_ = search(value)
    assert "The 'resume_from' parameter of VectorizedGridSearchCV must be" in str(error)


def test_estimators_of_other_libraries_cannot_be_kept(tmp_path):
    error, *_ = search(tmp_path / "folder", LogisticRegression(), {"C": [0.1, 1.0]})
    assert isinstance(error, InvalidParameterError)
    assert "resume_from" in str(error)
    assert list(tmp_path.iterdir()) == []
