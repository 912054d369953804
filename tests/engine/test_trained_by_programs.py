"""Trainers and fits by programs: what they come to, and that nothing else changes a bit of it."""

import gc
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from engine_plans import make_data, make_network, make_orders, plan_network
from native_programs import needs_kernels
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import Callback

from skdnn import MLPDeepClassifier, MLPDeepRegressor
from skdnn.components import L1, L1L2, L2, SGD, Adam, BatchNorm, CallableActivation, Exponential, Momentum, TorchOptimizer
from skdnn.components.losses import CategoricalCrossentropy
from skdnn.engine import Trainer, Update, UpdatePlan, program, run_epoch_together, trainer
from skdnn.engine.program import compile_steps
from skdnn.model_selection import VectorizedGridSearchCV
from skdnn.training.population import SideBySide, Stacked

# trainers -----------------------------------------------------------------------------------------------------------------

N_ROWS, BATCH_SIZE = 330, 8  # more full batches than a program waits for, and a last one of two rows


def train(plan, n_epochs=3, optimizer=None, seed=0, run=None, chunks=None):
    """The state of a network after each epoch."""
    X, y = make_data(N_ROWS, dtype=torch.float32)
    network = make_network(plan, dtype=torch.float32, seeds=[seed])
    own = Trainer(network, Update(network, [UpdatePlan(optimizer or Adam())]), CategoricalCrossentropy(), BATCH_SIZE, chunks)
    states = []
    for order in make_orders(n_epochs, n_rows=N_ROWS):
        rates = [0.01 / (1 + k) for k in range(own.n_updates(N_ROWS))]
        loss = own.run_epoch(X, y, order, rates) if run is None else run(own, X, y, order, rates)
        states.append(torch.cat([loss, *network.snapshot()]))
    return states


RICH = {"dropout": 0.3, "input_dropout": 0.1, "batch_norm": BatchNorm()}


@needs_kernels
@pytest.mark.parametrize("techniques", [{}, RICH], ids=["plain", "rich"])
def test_others_on_the_same_chunks_change_nothing(techniques, monkeypatch):
    monkeypatch.setattr(trainer, "FIRST_COMPILED_STEP", 60)  # the second epoch
    plans = [plan_network(**techniques), plan_network(**techniques), plan_network()]
    optimizers = [Adam(), SGD(), Momentum()]
    alone = [train(plan, optimizer=own, seed=seed) for seed, (plan, own) in enumerate(zip(plans, optimizers, strict=True))]
    X, y = make_data(N_ROWS, dtype=torch.float32)
    networks = [make_network(plan, dtype=torch.float32, seeds=[seed]) for seed, plan in enumerate(plans)]
    trainers = []
    for network, optimizer in zip(networks, optimizers, strict=True):
        chunks = trainers[0].chunks if trainers else None
        update = Update(network, [UpdatePlan(optimizer)])
        trainers.append(Trainer(network, update, CategoricalCrossentropy(), BATCH_SIZE, chunks))
    if not techniques:
        assert len({own.smallest_batch for own in trainers}) == 1
    for epoch, order in enumerate(make_orders(3, n_rows=N_ROWS)):
        rates = [[0.01 / (1 + k) for k in range(own.n_updates(N_ROWS))] for own in trainers]
        run_epoch_together(trainers, X, y, order, rates)
        for network, own, states in zip(networks, trainers, alone, strict=True):
            assert torch.equal(torch.cat([own.loss, *network.snapshot()]), states[epoch])


@needs_kernels
def test_programs_begin_with_an_epoch(monkeypatch):
    made, calls = [], []

    def compile_and_note(*args):
        made.append(compile_steps(*args))
        return lambda numbers, first=0: calls.append(len(numbers)) or made[-1](numbers, first)

    monkeypatch.setattr(trainer, "compile_steps", compile_and_note)
    monkeypatch.setattr(trainer, "FIRST_COMPILED_STEP", 2 * 41)
    train(plan_network(), n_epochs=1)
    assert not made
    train(plan_network(), n_epochs=3)
    assert len(made) == 2  # one for the last batch, which is of another size
    assert calls == [41, 1, 41, 1]


@needs_kernels
@pytest.mark.parametrize(
    ("techniques", "optimizer"),
    [({"activation": CallableActivation(torch.sin)}, SGD()), ({}, TorchOptimizer(torch.optim.RAdam))],
    ids=["activation", "torch optimizer"],
)
def test_what_users_wrote_is_called_for_every_step(techniques, optimizer, monkeypatch):
    def refuse(*args):
        raise AssertionError

    monkeypatch.setattr(trainer, "compile_steps", refuse)
    train(plan_network(**techniques), optimizer=optimizer)


class EveryOtherStep(SGD):
    """A rule that no comparison of two steps could know."""

    def update(self, parameters, gradient, state, learning_rate, step):
        if step % 2:
            super().update(parameters, gradient, state, learning_rate, step)


def test_a_rule_that_users_wrote_is_called_for_every_step(monkeypatch):
    monkeypatch.setattr(trainer, "FIRST_COMPILED_STEP", 1)
    states = train(plan_network(), optimizer=EveryOtherStep())
    monkeypatch.setattr(program, "_native", None)
    assert all(torch.equal(*pair) for pair in zip(states, train(plan_network(), optimizer=EveryOtherStep()), strict=True))


def test_steps_on_several_threads_are_torchs(monkeypatch):
    monkeypatch.setattr(trainer, "compile_steps", lambda *args: pytest.fail("a program of one thread"))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        train(plan_network())
    finally:
        torch.set_num_threads(before)


@needs_kernels
def test_a_program_outlives_its_network(monkeypatch):
    made = []
    monkeypatch.setattr(trainer, "compile_steps", lambda *args: made.append(compile_steps(*args)) or made[-1])
    monkeypatch.setattr(trainer, "FIRST_COMPILED_STEP", 1)
    train(plan_network(dropout=0.5, batch_norm=BatchNorm()), n_epochs=1)
    gc.collect()
    others = [torch.full((size,), torch.nan) for size in range(1, 200)]
    for run in made:
        run([(0.1, 5.0)])
    assert all(bool(other.isnan().all()) for other in others)


@needs_kernels
@pytest.mark.parametrize("techniques", [{}, RICH], ids=["plain", "rich"])
@pytest.mark.parametrize("n_rows", [N_ROWS, 18 * BATCH_SIZE + 2], ids=["same rows", "fewer rows"])
def test_programs_are_made_once_for_networks_that_are_alike_and_change_nothing(techniques, n_rows, monkeypatch):
    plan, made = plan_network(regularizer=L1L2(1e-3, 1e-2), **techniques), []
    monkeypatch.setattr(trainer, "compile_steps", lambda *args: made.append(compile_steps(*args)) or made[-1])
    X, y = make_data(N_ROWS, dtype=torch.float32)

    def run(seed, n_rows, programs=None):
        network = make_network(plan, dtype=torch.float32, seeds=[seed])
        update = Update(network, [UpdatePlan(Momentum())])
        own = Trainer(network, update, CategoricalCrossentropy(), BATCH_SIZE, programs=programs)
        figures = []
        for order in make_orders(4, n_rows=n_rows):
            own.run_epoch(X, y, order, [0.01] * own.n_updates(n_rows))
            figures += own.figures()
        return own, figures, torch.cat(network.snapshot())

    alone = run(1, n_rows)[1:]
    made.clear()
    programs = {}
    first, _, state = run(0, N_ROWS, programs)
    n_programs = len(made)
    assert n_programs == 3  # steps on batches of two sizes, and the penalty
    assert torch.equal(state, run(0, N_ROWS)[2])
    kept = state.clone()
    made.clear()
    _, *got = run(1, n_rows, programs)
    assert not made
    assert got[0] == alone[0]
    assert torch.equal(got[1], alone[1])
    assert torch.equal(torch.cat(first.network.snapshot()), kept)  # the first is as it was


@needs_kernels
def test_patterns_of_programs_keep_nothing_that_networks_have_for_themselves():
    X, y = make_data(N_ROWS, dtype=torch.float32)
    network, programs = make_network(plan_network(regularizer=L2(0.1), dropout=0.2), dtype=torch.float32), {}
    own = Trainer(network, Update(network, [UpdatePlan(Momentum())]), CategoricalCrossentropy(), BATCH_SIZE, programs=programs)
    for order in make_orders(4, n_rows=N_ROWS):
        own.run_epoch(X, y, order, [0.01] * own.n_updates(N_ROWS))
    kept = {tensor.untyped_storage().data_ptr() for pattern in programs.values() for tensor in pattern.memory}
    assert network.gradient.data_ptr() in kept
    assert network.parameters.data.data_ptr() not in kept
    assert not any(chunk.x.untyped_storage().data_ptr() in kept for chunk in own.chunks._chunks.values())


@needs_kernels
def test_a_program_for_one_batch_does_not_serve_more():
    X, y = make_data(4 * BATCH_SIZE, dtype=torch.float32)

    def run(programs=None, n_rows=BATCH_SIZE, n_epochs=9):
        network = make_network(plan_network(), dtype=torch.float32)
        own = Trainer(network, Update(network, [UpdatePlan(SGD())]), CategoricalCrossentropy(), BATCH_SIZE, programs=programs)
        for order in make_orders(n_epochs, n_rows=n_rows):
            own.run_epoch(X, y, order, [0.1] * own.n_updates(n_rows))
        return torch.cat(network.snapshot())

    programs = {}
    run(programs)
    assert torch.equal(run(programs, 4 * BATCH_SIZE), run(None, 4 * BATCH_SIZE))


# fits ---------------------------------------------------------------------------------------------------------------------

X = np.random.default_rng(0).normal(size=(200, 6)).astype(np.float32)
Y = (X[:, 0] * X[:, 1] > 0).astype(int)


def make(**params):
    settings = {"hidden_layer_sizes": (8,), "batch_size": 16, "max_iter": 8, "n_iter_no_change": 10, "random_state": 0}
    return MLPDeepClassifier(**settings | params)


def fit(**params):
    return make(**params).fit(X, Y)


def assert_same_fit(a, b):
    assert a.loss_curve_ == b.loss_curve_
    weights, others = (clf.coefs_ + clf.intercepts_ for clf in (a, b))
    assert all(np.array_equal(one, other) for one, other in zip(weights, others, strict=True))


@pytest.fixture
def n_made(monkeypatch):
    """How many programs have been made."""
    count = [0]

    def compile_and_count(*args):
        run = compile_steps(*args)
        count[0] += run is not None
        return run

    monkeypatch.setattr(trainer, "compile_steps", compile_and_count)
    return count


@needs_kernels
@pytest.mark.parametrize("regularizer", [L1(0.01), L2(0.1), L1L2(0.01, 0.1)], ids=["l1", "l2", "l1_l2"])
def test_the_penalty_in_the_history_is_that_of_the_weights(regularizer, n_made):
    for max_iter in (2, 3, 8):
        clf = fit(regularizer=regularizer, max_iter=max_iter)
        expected = sum(regularizer.penalty(torch.from_numpy(kernel.T)).item() for kernel in clf.coefs_)
        assert clf.history_[-1]["penalty"] == pytest.approx(expected, rel=1e-6)
        assert clf.loss_curve_[-1] == pytest.approx(clf.history_[-1]["base_loss"] + expected, rel=1e-6)
    assert n_made[0] == 2 + 3 + 3  # of batches of two sizes, and of the penalty from the third epoch on


# What a fit has beside the defaults.
FITS = {
    "plain": {},
    "rich": {"dropout": 0.2, "batch_norm": True, "optimizer": "adam", "early_stopping": True},
    "schedule": {"optimizer": "nadam", "learning_rate": Exponential(0.95, 2, per="update"), "max_norm": 1.0},
}
every_fit = pytest.mark.parametrize("params", FITS.values(), ids=FITS)


class Weights(Callback):
    """Keeps the weights after each epoch."""

    def initialize(self):
        self.epochs = []
        return self

    def on_epoch_end(self, net, **kwargs):
        self.epochs.append([tensor.detach().clone() for tensor in net.module_.parameters()])


class Batches(Callback):
    """Listens to every batch."""

    n_batches = 0

    def on_batch_end(self, net, training=False, **kwargs):
        self.n_batches += training


@needs_kernels
@every_fit
def test_the_first_epochs_do_not_depend_on_how_many_there_will_be(params, n_made):
    short, long = Weights(), Weights()
    few = fit(max_iter=3, callbacks=[short], **{**params, "n_iter_no_change": 3})
    assert n_made[0] > 0
    many = fit(max_iter=9, callbacks=[long], **{**params, "n_iter_no_change": 9})
    assert many.loss_curve_[:3] == few.loss_curve_
    for one, other in zip(short.epochs, long.epochs, strict=False):
        assert all(torch.equal(*pair) for pair in zip(one, other, strict=True))


@needs_kernels
@every_fit
def test_who_listens_to_batches_changes_nothing(params, n_made):
    alone = fit(**params)
    n_whole = n_made[0]
    listener = Batches()
    listened = fit(callbacks=[listener], **params)
    assert listener.n_batches == listened.n_iter_ * -(-(180 if listened.early_stopping else 200) // 16)
    assert n_whole > 0
    assert n_made[0] == 3 * n_whole  # the whole, and then two halves of each
    assert_same_fit(listened, alone)


@needs_kernels
@every_fit
def test_programs_come_to_what_torch_comes_to(params, n_made, monkeypatch):
    compiled = fit(dtype="float64", **params)
    assert n_made[0] > 0
    n_before = n_made[0]
    monkeypatch.setattr(program, "_native", None)
    plain = fit(dtype="float64", **params)
    assert n_made[0] == n_before
    np.testing.assert_allclose(compiled.loss_curve_, plain.loss_curve_, rtol=1e-10)
    for one, other in zip(compiled.coefs_, plain.coefs_, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)


@needs_kernels
def test_fits_in_threads_are_the_same_as_alone(n_made):
    params = FITS["rich"]
    expected = fit(**params)
    assert n_made[0] > 0
    fitted = [None] * 3

    def run(i):
        fitted[i] = fit(**params)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(fitted))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for other in fitted:
        assert_same_fit(other, expected)


@pytest.mark.parametrize("has_kernels", [pytest.param(True, marks=needs_kernels), False], ids=["programs", "torch"])
def test_searches_train_together_with_and_without_programs(has_kernels, n_made, monkeypatch):
    if not has_kernels:
        monkeypatch.setattr(program, "_native", None)
    kinds = set()
    for kind in (SideBySide, Stacked):

        def note(population, train=kind.train):
            kinds.add((type(population), len(population._lanes)))
            return train(population)

        monkeypatch.setattr(kind, "train", note)
    grid, settings = {"learning_rate_init": [0.1, 0.01, 0.001]}, {"cv": 2, "scoring": "neg_log_loss"}
    ours = VectorizedGridSearchCV(make(), grid, **settings).fit(X, Y)
    assert kinds == {(SideBySide if has_kernels else Stacked, 3)}
    assert (n_made[0] > 0) == has_kernels
    theirs = GridSearchCV(make(), grid, **settings).fit(X, Y)
    tolerance = 0.0 if has_kernels else 1e-5
    np.testing.assert_allclose(
        ours.cv_results_["mean_test_score"], theirs.cv_results_["mean_test_score"], rtol=tolerance, atol=0.0
    )
    assert_same_fit(ours.best_estimator_, theirs.best_estimator_)


@pytest.mark.parametrize("estimator", [MLPDeepClassifier, MLPDeepRegressor])
def test_estimators_fit_without_the_extension(estimator, monkeypatch):
    monkeypatch.setattr(program, "_native", None)
    fitted = estimator((8,), max_iter=40, n_iter_no_change=40, learning_rate_init=0.01, random_state=0).fit(X, X[:, 0] > 0)
    assert fitted.loss_curve_[-1] < 0.8 * fitted.loss_curve_[0]
    fitted.partial_fit(X, X[:, 0] > 0)


def test_programs_leave_torchs_compiler_where_it_is():
    code = """
import sys, warnings
import numpy as np
warnings.simplefilter("error")
from skdnn import MLPDeepClassifier
from skdnn.engine import trainer
trainer.FIRST_COMPILED_STEP = 1
X = np.eye(20, dtype=np.float32)
MLPDeepClassifier((4,), batch_size=4, max_iter=3, n_iter_no_change=3).fit(X, np.arange(20) % 2)
print(sorted({"torch._dynamo", "sympy"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
