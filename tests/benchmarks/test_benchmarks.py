"""The benchmarks run and their tables are complete. No time is asserted: what is fast is read in their report."""

import json
from dataclasses import replace

import joblib
import numpy as np
import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import measure, worker
from benchmarks.aims import aims
from benchmarks.company import BusyProcess, company_times
from benchmarks.contestants import CONTESTANTS
from benchmarks.fits import fit_one, fit_times
from benchmarks.limit import MatrixRates, Product, products_of
from benchmarks.machine import describe
from benchmarks.memory import memory_of_training
from benchmarks.prediction import prediction_times
from benchmarks.report import write_report
from benchmarks.scaling import scaling_times
from benchmarks.searches import OURS, SEARCHERS, SEARCHES, Search, process_times, search_one, search_times
from benchmarks.startup import fixed_costs
from benchmarks.workloads import DATA, WORKLOADS, Task, Techniques, load, synthetic

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")  # a few epochs are meant

FAST = ["skdnn", "MLPClassifier", "skorch", "PyTorch DataLoader", "PyTorch expert"]
SLOW = ["JAX scan", "Keras"]  # seconds to import and to compile
OURS_AND_THEIRS = ["skdnn", "MLPClassifier"]


def silent(line):
    """Say nothing."""


def small_task(**changes):
    """Return a task that takes milliseconds; its batches do not divide its rows."""
    settings = {"hidden": (20,), "batch_size": 30, "rate": 0.3, "epochs": 8, "rounds": 2} | changes
    return Task.with_data(replace(WORKLOADS["digits"], **settings), *synthetic(400, n_features=5, n_classes=3))


def small_search(names=tuple(SEARCHERS)):
    """Return a search that takes a second, and its task."""
    task = small_task(rounds=1)
    grid = {"learning_rate_init": [1e-4, 0.3], "momentum": [0.0, 0.5, 0.9], "alpha": [1e-3]}
    return Search(task.workload, grid, names), task


@pytest.fixture(scope="module")
def results():
    """Results of all parts, as the command gathers them, the slow parts made up."""
    with measure.quiet():
        return small_results(small_task())


def fits_with_keras(task):
    """Return fits of skdnn, which stand for Keras' too."""
    result = fit_one(task, ["skdnn"])
    result["contestants"]["Keras"] = result["contestants"]["skdnn"]
    return result


def small_results(task):
    return {
        "machine": describe(),
        "command": "the command",
        "minutes": 1.0,
        "quick": False,
        "fits": {"1": {"digits": fit_one(task, FAST, MatrixRates(task))}},
        "keras": {"torch": {"digits": fits_with_keras(task)}},
        "prediction": prediction_times(OURS_AND_THEIRS, n_rows=(1, 10), quick=True, log=silent)
        | {"1000000": {name: [2.0, 3.0] for name in OURS_AND_THEIRS}},
        "fixed": fixed_costs(["skdnn"], quick=True, log=silent),
        "import": {"torch, sklearn, skorch": [1.0, 2.0], "torch, sklearn, skorch, skdnn": [1.5, 2.0]},
        "company": {"digits": {"skdnn": {f"{n} {s}": [1.0, 1.1] for n in (1, 2) for s in ("alone", "busy")}}},
        "scaling": scaling_times(OURS_AND_THEIRS, {"n_rows": (64, 128)}, n_rounds=1, log=silent),
        "searches": {
            "in turn": {"digits": search_one(*small_search())},
            "processes": {
                "digits": {
                    "seconds": {"1": [2.0, 2.1], "2": [1.0, 1.1]},
                    "cold": 3.0,
                    "same_best": True,
                    "difference": 0.0,
                    "votes": 0,
                }
            },
        },
        "memory": {
            "training": {"skdnn": memory_of_training("skdnn", 0.004, log=silent)},
            "prediction": {"skdnn": {"beside": 1e6, "seconds": 1.0, "rows": 1000}},
        },
    }


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras beside NumPy 2
@pytest.mark.parametrize("techniques", [None, Techniques()], ids=["plain", "full"])
@pytest.mark.parametrize("name", [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_contestants_learn(name, techniques, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    contestant = CONTESTANTS[name]
    task = small_task(techniques=techniques)
    if not contestant.is_installed or not contestant.can(task.workload):
        pytest.skip("it takes no part")
    predict = contestant.prepare(task, seed=0)()
    assert np.mean(predict(task.X) == task.y) > 0.8


@pytest.mark.parametrize("name", [name for name in FAST if "float64" in CONTESTANTS[name].dtypes])
def test_float64_is_computed_in_float64(name):
    task = small_task(dtype="float64", epochs=1)
    assert task.X.dtype == np.float64
    assert CONTESTANTS[name].prepare(task, seed=0)()(task.X).shape == (400,)


@pytest.mark.parametrize("name", [name for name in FAST if "bfloat16" in CONTESTANTS[name].dtypes])
def test_bfloat16_is_of_products(name, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    task = small_task(dtype="bfloat16")
    assert task.X.dtype == np.float32
    predict = CONTESTANTS[name].prepare(task, seed=0)()
    assert np.mean(predict(task.X) == task.y) > 0.8


def test_bfloat16_is_left_out_where_the_cpu_has_it_not(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    monkeypatch.setitem(WORKLOADS, "small", replace(small_task().workload, dtype="bfloat16"))
    lines = []
    assert fit_times(FAST, ["small"], log=lines.append) == {}
    assert lines == ["small: left out, this CPU has no instructions for it"]


def test_tables_name_what_is_there():
    assert {workload.data for workload in WORKLOADS.values()} == set(DATA)
    assert all(callable(CONTESTANTS[name].prepare) for name in FAST)
    assert set(FAST + SLOW) == set(CONTESTANTS)
    for function in worker.JOBS.values():
        module, _, name = function.partition(":")
        assert callable(getattr(__import__(f"benchmarks.{module}", fromlist=[name]), name))


def test_arithmetic_is_that_of_the_products():
    task = small_task(hidden=(7, 6), epochs=2)
    flop_of_a_step = sum(Product(*product, torch.float32).flop for product in products_of(task))
    assert task.flop == pytest.approx(flop_of_a_step * 2 * 400 / 30)
    assert task.n_steps == 2 * 14


def test_in_turn():
    calls = []
    prepared = {name: lambda i, name=name: lambda: calls.append((name, i)) for name in "AB"}
    assert [name for name, *_ in measure.in_turn(prepared, n_rounds=2)] == ["A", "B", "A", "B"]
    assert calls == [("A", 0), ("B", 0), ("A", 0), ("B", 0), ("A", 1), ("B", 1)]


def test_missing_data_are_left_out(monkeypatch, tmp_path):
    monkeypatch.setenv("SKDNN_DATA", str(tmp_path))
    monkeypatch.setattr("benchmarks.workloads.__file__", str(tmp_path / "repository" / "benchmarks" / "workloads.py"))
    load.cache_clear()
    lines = []
    try:
        assert fit_times(FAST, ["MNIST b50"], log=lines.append) == {}
    finally:
        load.cache_clear()
    assert lines == ["MNIST b50: left out, mnist.npz is in neither $SKDNN_DATA nor ../shared/data"]


def test_company(monkeypatch):
    monkeypatch.setattr("benchmarks.company._SMALLER", {"digits": {"epochs": 1, "n_rows": 64}})
    times = company_times(["skdnn"], ["digits"], thread_counts=(1,), quick=True, log=silent)
    assert set(times["digits"]["skdnn"]) == {"1 alone", "1 busy"}
    assert torch.get_num_threads() == 1


def test_a_busy_process_ends():
    with BusyProcess() as busy, busy.beside():
        process = busy._process
        assert process.poll() is None
    assert process.poll() is not None


def test_searches_are_over_the_same_candidates(results):
    """All learn from them; searches in lockstep and one by one agree to a row."""
    result = results["searches"]["in turn"]["digits"]
    runs = result["contestants"]
    assert list(runs) == list(SEARCHERS)
    assert [run["n_given"] for run in runs.values()] == [6, 6, 6, 4]
    assert min(run["best_score"] for run in runs.values()) > 0.7  # of three classes
    compared = runs["GridSearchCV(MLPDeepClassifier)"]
    assert compared["same_best"]
    assert compared["votes"] <= 1
    assert set(runs[OURS]) == {"seconds", "n_cores", "n_given", "best_score"}


@pytest.mark.parametrize("name", SEARCHERS)
def test_searches_set_what_their_candidates_say(name):
    search, task = small_search()
    fitted = SEARCHERS[name].make(task, search.candidates[-1:]).fit(task.X, task.y)
    net = fitted.best_estimator_["net"]
    assert search.candidates[-1] == {"alpha": 1e-3, "learning_rate_init": 0.3, "momentum": 0.9}
    if name == "GridSearchCV(skorch)":
        found = net.lr, net.optimizer_.param_groups[0]["momentum"], net.optimizer_.param_groups[0]["weight_decay"]
        assert found == (0.3, 0.9, pytest.approx(1e-3 / 30))
    elif name == "GridSearchCV(MLPClassifier)":
        assert (net.learning_rate_init, net.momentum, net.alpha, net.nesterovs_momentum) == (0.3, 0.9, 1e-3, False)
    else:
        assert (net.learning_rate_init, net.optimizer.momentum) == (0.3, 0.9)
        assert net.regularizer.l2 == pytest.approx(1e-3 / 30)


def test_searches_have_as_many_candidates_as_their_aims_say():
    assert {len(search.candidates) for search in SEARCHES.values()} == {24}
    assert {name for search in SEARCHES.values() for name in search.contestants} == set(SEARCHERS)
    given = SEARCHERS["GridSearchCV(skorch)"].choose(SEARCHES["digits"].candidates)
    for name, values in SEARCHES["digits"].grid.items():
        assert {candidate[name] for candidate in given} >= {values[0], values[-1]}


def test_searches_of_missing_data_are_left_out(monkeypatch):
    monkeypatch.setattr("benchmarks.searches.load", lambda name: None)
    lines = []
    assert search_times(["MNIST, 10,000 rows"], log=lines.append) == {}
    assert lines == ["MNIST, 10,000 rows: left out, mnist.npz is in neither $SKDNN_DATA nor ../shared/data"]
    assert process_times("MNIST, 10,000 rows", log=lines.append) == {}


def test_search_processes(monkeypatch):
    search, task = small_search()
    monkeypatch.setitem(SEARCHES, "digits", search)
    monkeypatch.setattr("benchmarks.searches._task", lambda workload: task)
    with joblib.parallel_config("threading"):
        result = process_times(quick=True, log=silent)["digits"]
    assert {n: len(seconds) for n, seconds in result["seconds"].items()} == {"1": 1, "2": 1}
    assert result["same_best"]
    assert result["votes"] == 0
    assert result["cold"] > 0


def test_report(results, tmp_path):
    path = write_report(json.loads(json.dumps(results)), tmp_path)
    text = path.read_text(encoding="utf-8")
    for title in (
        "## Aims",
        "## Fits, 1 thread",
        "## Accuracy",
        "## Prediction",
        "## Memory",
        "## How the cost grows",
        "## Searches, 1",
    ):
        assert title in text
    assert all(name in text for name in FAST)
    figures = {figure.name for figure in (tmp_path / "figures").iterdir()}
    assert figures == {"fits.png", "limits.png", "scaling.png", "searches.png"}


def test_aims_are_told_whether_met_or_not(results):
    found = aims(results)
    assert {aim.is_met for aim in found} == {True, False, None}
    assert all((aim.measured == "not measured") == (aim.is_met is None) for aim in found)
    assert [aim.what for aim in aims({})][:12] == [aim.what for aim in found][:12]
    assert all(aim.is_met is None for aim in aims({}))


def test_command_measures_what_it_is_asked_to(monkeypatch, tmp_path):
    asked = []

    def measure(job, **arguments):
        asked.append((job, arguments))
        return {}

    monkeypatch.setattr(command, "measure", measure)
    command.main(["--only", "fits", "company", "--workloads", "digits", "--output", str(tmp_path)])
    assert [(job, arguments["n_threads"]) for job, arguments in asked] == [("fits", 1), ("company", 2)]
    assert asked[0][1]["workloads"] == ["digits", "digits float64"]
    assert {path.name for path in tmp_path.iterdir()} >= {"RESULTS.md", "results.json"}


@pytest.mark.slow
def test_a_process_of_its_own():
    measured = worker.measure("prediction memory", contestant="skdnn", n_rows=1000)
    assert set(measured) == {"beside", "seconds", "rows"}
