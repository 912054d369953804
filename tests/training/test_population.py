"""Nets trained in lockstep end where each ends alone, with the history, the outcome and the warnings that it has alone.

Side by side they do so bit for bit. Stacked networks of such sizes do but for rounding, see tests/engine/test_lockstep.py.
"""

import warnings
from dataclasses import replace

import pytest
import scipy.sparse
import torch
from sklearn.exceptions import ConvergenceWarning

from skdnn.components import (
    ELU,
    L1,
    L1L2,
    L2,
    SGD,
    Adam,
    Adaptive,
    BatchNorm,
    CallableActivation,
    CallableInitializer,
    ClipNorm,
    ClipValue,
    Constant,
    Cosine,
    Exponential,
    Glorot,
    He,
    MaxNorm,
    Momentum,
    NAdam,
    Nesterov,
    OneCycle,
    Orthogonal,
    ReLU,
    Tanh,
    TorchOptimizer,
)
from skdnn.components.losses import CategoricalCrossentropy
from skdnn.engine import LayerPlan, Network, NetworkPlan, UpdatePlan, build_module, run_epoch_together
from skdnn.engine.layers import _draw_mask
from skdnn.engine.program import compile_steps
from skdnn.training import (
    Kin,
    Lane,
    Seeds,
    Session,
    TrainingData,
    TrainingNet,
    TrainingPlan,
    can_share_a_population,
    train_in_lockstep,
)
from skdnn.training.population import SideBySide, Stacked, is_compiled, make_population

pytestmark = pytest.mark.usefixtures("kind")

CPU = torch.device("cpu")
N_ROWS, N_TRAINING, BATCH_SIZE = 50, 40, 8


def accuracy(network, outputs, y, sample_weight, weight):
    return (outputs.argmax(1) == y).double().mean().item()


def plan_layers(
    activation=None,
    n_hidden=6,
    batch_norm=None,
    dropout=0.0,
    input_dropout=0.0,
    regularizer=None,
    constraint=None,
    initializer=None,
):
    initializer = initializer or Glorot()
    hidden = LayerPlan(
        4,
        n_hidden,
        initializer,
        activation=activation or Tanh(),
        batch_norm=batch_norm,
        dropout=dropout,
        regularizer=regularizer,
        constraint=constraint,
    )
    return NetworkPlan((hidden, LayerPlan(n_hidden, 3, initializer, regularizer=regularizer)), input_dropout)


def make_plan(layers=None, optimizer=None, clipping=None, seeds=(1, 2, 3), **changes):
    settings = {
        "network": plan_layers(**layers or {}),
        "update": UpdatePlan(optimizer or SGD(), clipping),
        "schedule": Constant(),
        "learning_rate_init": 0.1,
        "loss": CategoricalCrossentropy(),
        "score": accuracy,
        "batch_size": BATCH_SIZE,
        "max_iter": 6,
        "shuffle": True,
        "tol": 1e-4,
        "n_iter_no_change": float("inf"),
        "dtype": torch.float64,
        "device": CPU,
        "seeds": Seeds(*seeds),
    }
    return TrainingPlan(**{**settings, **changes})


PLAN = make_plan()


def make_rows(n_rows=N_ROWS, seed=0):
    X = torch.randn(n_rows, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return X, X[:, :3].argmax(1)


def make_data(validates=True, n_training=N_TRAINING, is_sparse=False, twins=None, **weights):
    X, y = make_rows()
    rows = torch.arange(N_ROWS)
    return TrainingData(
        scipy.sparse.csr_array(X.numpy()) if is_sparse else X,
        y,
        rows[:n_training],
        rows[N_TRAINING:] if validates else None,
        twins=twins,
        **weights,
    )


def random_weights(n_columns=1, seed=1):
    return torch.rand(N_ROWS, n_columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.5


def make_net(plan, data, session_type=Lane):
    session = session_type(plan, data)
    return TrainingNet(build_module(session.network), plan.loss, session=session)


def state_of(network):
    return torch.cat([network.parameters.data, network.statistics.data])


def assert_same_outcome(mine, theirs):
    for name in ("n_epochs", "best_epoch", "n_samples", "is_validated", "reason"):
        assert getattr(mine, name) == getattr(theirs, name), name
    assert mine.best_value == pytest.approx(theirs.best_value, rel=1e-9, nan_ok=True)


def assert_same_history(mine, theirs):
    assert len(mine) == len(theirs)
    for row, expected in zip(mine, theirs, strict=True):
        assert row.keys() == expected.keys()
        for name, value in expected.items():
            if name not in ("batches", "dur"):
                assert row[name] == pytest.approx(value, rel=1e-9, nan_ok=True), name


def noted(train):
    """Call a function and return what it returns, and the warnings it gives, sorted."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = train()
    return result, sorted((warning.category.__name__, str(warning.message)) for warning in caught)


def assert_same_state(plan, network, reference):
    """Networks whose steps are programs are the same bit for bit, stacked ones but for rounding."""
    mine, own = state_of(network), state_of(reference)
    if is_compiled(plan):
        assert torch.equal(mine, own)
    assert float((mine - own).norm() / own.norm()) <= 1e-10


def assert_each_ends_where_it_ends_alone(plans, data=None):
    """Train plans together and each alone, on data of its own that is the same, and return the nets of lockstep."""
    make = data or make_data
    nets, alone = ([make_net(plan, make(), kind) for plan in plans] for kind in (Lane, Session))
    networks = [[net.session.network for net in group] for group in (nets, alone)]
    assert all(can_share_a_population(nets[0].session, net.session) for net in nets)
    trained, said = noted(lambda: train_in_lockstep(nets))
    assert trained == nets
    _, expected = noted(lambda: [net.train() for net in alone])
    assert said == expected
    for plan, net, own, network, reference in zip(plans, nets, alone, *networks, strict=True):
        assert_same_outcome(net.outcome_, own.outcome_)
        assert_same_history(net.history, own.history)
        assert_same_state(plan, network, reference)
        with torch.no_grad():
            X, _ = make_rows()
            torch.testing.assert_close(net.module_(X), own.module_(X), rtol=1e-8, atol=1e-8)
        assert not net.module_.training
        assert net.session is net._best is None
        assert all(parameter.grad is None for parameter in net.module_.parameters())
    return nets


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


@pytest.fixture
def sizes(monkeypatch):
    """The sizes of the population, epoch by epoch."""
    seen = []
    for kind in (SideBySide, Stacked):

        def note(population, train=kind.train):
            seen.append(len(population._lanes))
            return train(population)

        monkeypatch.setattr(kind, "train", note)
    return seen


TECHNIQUES = [
    {
        "dropout": 0.5,
        "input_dropout": 0.2,
        "regularizer": L1(0.01),
        "constraint": MaxNorm(0.8),
        "initializer": Orthogonal(),
    },
    {"dropout": 0.2, "regularizer": L1L2(0.01, 0.02), "initializer": He("normal")},
    {"input_dropout": 0.3, "regularizer": L2(0.03), "constraint": MaxNorm(1.5)},
    {},
]
TWINS = torch.arange(N_ROWS) // 2

# What differs between networks, and their data where it is not the ordinary one.
CASES = {
    "rates": ([make_plan(learning_rate_init=rate) for rate in (0.1, 0.5, 0.01)], {}),
    "without_validation": ([make_plan(learning_rate_init=rate) for rate in (0.1, 0.5, 0.01)], {"validates": False}),
    "own_orders": ([make_plan(seeds=(seed, seed + 1, 3), layers={"dropout": 0.3}) for seed in range(3)], {}),
    "unshuffled": ([make_plan(shuffle=False, optimizer=Momentum(beta)) for beta in (0.0, 0.5, 0.9)], {}),
    "techniques": ([make_plan(layers) for layers in TECHNIQUES], {}),
    "techniques_and_batch_norm": ([make_plan({**layers, "batch_norm": BatchNorm()}) for layers in TECHNIQUES], {}),
    "a_tail_of_one_row": (
        [make_plan({**layers, "batch_norm": BatchNorm()}) for layers in TECHNIQUES],
        {"n_training": N_TRAINING - 7},
    ),
    "own_dropout": ([make_plan(layers, seeds=(1, 2, seed)) for seed, layers in enumerate(TECHNIQUES)], {}),
    "clipping": ([make_plan(clipping=ClipNorm(bound), learning_rate_init=0.5) for bound in (0.01, 0.1, 1.0)], {}),
    "max_iter": ([make_plan(max_iter=n) for n in (1, 6, 3, 3)], {}),
    "early_stopping": (
        [make_plan(max_iter=40, n_iter_no_change=n, learning_rate_init=rate) for n, rate in ((1, 0.5), (3, 0.1), (2, 1.0))],
        {},
    ),
    "loss_stopping": (
        [make_plan(max_iter=40, n_iter_no_change=2, tol=tol) for tol in (0.1, 0.01, 0.02)],
        {"validates": False},
    ),
    "plateaus": (
        [
            make_plan(
                schedule=Adaptive(divisor=divisor, min_learning_rate=0.01), n_iter_no_change=1, max_iter=40, tol=tol, score=None
            )
            for divisor, tol in ((2.0, 0.05), (5.0, 0.1), (3.0, 0.01))
        ],
        {},
    ),
    "schedules": ([make_plan(schedule=schedule) for schedule in (Constant(), Exponential(0.5, 2), Cosine(), OneCycle())], {}),
    "schedules_by_update": ([make_plan(schedule=Exponential(0.5, steps, per="update")) for steps in (3, 7)], {}),
    "sample_weight": (
        [make_plan(layers, optimizer=Momentum()) for layers in TECHNIQUES],
        {"sample_weight": random_weights()},
    ),
    "weights": ([make_plan(layers, optimizer=Nesterov()) for layers in TECHNIQUES], {"weights": random_weights()}),
    "both_weights": (
        [make_plan({**layers, "batch_norm": BatchNorm()}) for layers in TECHNIQUES],
        {"sample_weight": random_weights(), "weights": random_weights(seed=2)},
    ),
    "twins": ([make_plan(layers, batch_size=N_TRAINING) for layers in TECHNIQUES[:3]], {"twins": TWINS}),
    "sparse": ([make_plan(learning_rate_init=rate) for rate in (0.1, 0.5)], {"is_sparse": True}),
    "validation_loss": ([make_plan(score=None, learning_rate_init=rate) for rate in (0.1, 0.5)], {}),
    "adam": (
        [
            make_plan(optimizer=Adam(beta, epsilon=1e-3), learning_rate_init=0.01, max_iter=n)
            for beta, n in ((0.9, 6), (0.5, 3))
        ],
        {},
    ),
    "nadam": (
        [
            make_plan(optimizer=NAdam(beta, epsilon=1e-3), learning_rate_init=0.01, max_iter=n)
            for beta, n in ((0.9, 6), (0.5, 3))
        ],
        {},
    ),
    "activations": ([make_plan({"activation": activation}) for activation in (Tanh(), ReLU(), ELU(0.5), ReLU(), Tanh())], {}),
    "rules": (
        [
            make_plan(optimizer=optimizer, learning_rate_init=0.01, max_iter=n, clipping=clipping)
            for optimizer, n, clipping in (
                (SGD(), 6, None),
                (Adam(epsilon=1e-3), 3, ClipNorm(0.1)),
                (SGD(), 2, ClipValue(0.01)),
                (Adam(epsilon=1e-3), 6, None),
                (Momentum(), 4, ClipNorm(0.5)),
            )
        ],
        {},
    ),
    "batch_norm": ([make_plan({"batch_norm": BatchNorm(*numbers)}) for numbers in ((0.9, 1e-5), (0.5, 1e-3))], {}),
    "axes": ([make_plan({"constraint": MaxNorm(0.5, axis)}) for axis in ("incoming", "outgoing", "incoming")], {}),
    "one": ([make_plan(TECHNIQUES[0], optimizer=Momentum())], {}),
}


@pytest.mark.parametrize("case", CASES)
def test_each_net_ends_where_it_ends_alone(case):
    plans, data = CASES[case]
    assert_each_ends_where_it_ends_alone(plans, lambda: make_data(**data))


def test_validation_data_of_its_own():
    def data():
        X, y = make_rows(20, seed=5)
        validation = TrainingData(X, y, None, torch.arange(3, 20), sample_weight=random_weights()[:20])
        return replace(make_data(validates=False), validation=validation)

    plans = [make_plan(learning_rate_init=rate, n_iter_no_change=2, max_iter=20) for rate in (0.1, 0.5)]
    assert_each_ends_where_it_ends_alone(plans, data)


def test_networks_leave_as_they_stop(sizes):
    nets = assert_each_ends_where_it_ends_alone([make_plan(max_iter=n) for n in (2, 5, 5, 1)])
    assert [net.outcome_.n_epochs for net in nets] == [2, 5, 5, 1]
    assert sizes == [4, 3, 2, 2, 2]


def test_early_stopping_is_each_nets_own(sizes):
    nets = assert_each_ends_where_it_ends_alone(CASES["early_stopping"][0])
    n_epochs = [net.outcome_.n_epochs for net in nets]
    assert len(set(n_epochs)) > 1
    assert sizes == [sum(n > epoch for n in n_epochs) for epoch in range(max(n_epochs))]


@pytest.mark.parametrize("validates", [False, True])
def test_one_that_diverges_costs_only_itself(validates, sizes):
    plans = [make_plan(learning_rate_init=rate) for rate in (0.1, 1e200, 0.5)]
    nets = assert_each_ends_where_it_ends_alone(plans, lambda: make_data(validates))
    assert [net.outcome_.reason for net in nets] == ["max_iter", "diverged", "max_iter"]
    assert sizes[0] == 3
    assert sizes[-1] == 2


def test_one_that_goes_astray_has_its_initial_weights():
    def run(session_type):
        plans = [make_plan(learning_rate_init=rate, dtype=torch.float32) for rate in (0.1, 1e30)]
        nets = [make_net(plan, cast(make_data()), session_type) for plan in plans]
        networks = [net.session.network for net in nets]
        initial = networks[1].parameters.data.clone()
        _, said = noted(lambda: train_in_lockstep(nets) if session_type is Lane else [net.train() for net in nets])
        return nets[1].outcome_.reason, torch.equal(networks[1].parameters.data, initial), said

    def cast(data):
        return replace(data, X=data.X.float())

    assert run(Lane) == run(Session)
    assert run(Lane)[:2] == ("diverged", True)


def test_one_lane_is_the_ordinary_fit_bit_for_bit():
    plan = make_plan(TECHNIQUES[0], optimizer=Adam())
    networks = []
    for session_type in (Lane, Session):
        net = make_net(plan, make_data(), session_type)
        networks.append(net.session.network)
        train_in_lockstep([net]) if session_type is Lane else net.train()
    assert torch.equal(*(network.parameters.data for network in networks))


@pytest.mark.parametrize("seeds", [(1, 1, 1), (1, 2, 3)], ids=["shared", "own"])
def test_an_order_is_given_once_where_all_have_it(seeds, kind, monkeypatch):
    given = []

    def note(trainers, X, y, order, *others, **named):
        given.append((len(trainers), tuple(order.shape)))
        return run_epoch_together(trainers, X, y, order, *others, **named)

    monkeypatch.setattr("skdnn.engine.trainer.run_epoch_together", note)
    monkeypatch.setattr("skdnn.training.population.run_epoch_together", note)
    train_in_lockstep([make_net(make_plan(seeds=(1, seed, 3)), make_data()) for seed in seeds])
    is_shared = len(set(seeds)) == 1
    if kind == "stacked":
        assert given == [(1, (N_TRAINING,) if is_shared else (3, N_TRAINING))] * 6
    else:
        assert given == ([(3, (N_TRAINING,))] * 6 if is_shared else [(1, (N_TRAINING,))] * 18)


def test_validation_rows_are_predicted_once_an_epoch(kind, monkeypatch):
    calls, predict = [], Network.predict

    def note(network, X, rows=None):
        calls.append(network.n_networks)
        return predict(network, X, rows)

    monkeypatch.setattr(Network, "predict", note)
    train_in_lockstep([make_net(make_plan(max_iter=n), make_data()) for n in (2, 2, 4)])
    assert calls == ([3, 3, 1, 1] if kind == "stacked" else [1] * (3 + 3 + 1 + 1))


def test_scores_get_the_network_that_made_the_outputs():
    data, seen = make_data(), []

    def look(network, outputs, y, sample_weight, weight):
        assert network.n_networks == 1
        torch.testing.assert_close(network.predict(data.X, data.validation_rows), outputs, rtol=1e-10, atol=1e-10)
        seen.append(network.parameters.data.clone())
        return -float(len(seen))  # the first epoch is the best

    nets = [make_net(make_plan(score=look, learning_rate_init=rate), make_data()) for rate in (0.1, 0.5)]
    networks = [net.session.network for net in nets]
    train_in_lockstep(nets)
    assert len(seen) == 12
    for network, first in zip(networks, seen[:2], strict=True):
        assert torch.equal(network.parameters.data, first)


class BrokenError(Exception):
    pass


def break_in(epoch, error):
    """A score that raises an error in an epoch."""
    scores = []

    def score(*given):
        scores.append(accuracy(*given))
        if len(scores) == epoch:
            raise error
        return scores[-1]

    return score


@pytest.mark.parametrize("epoch", [1, 3, 6])
def test_one_that_raises_leaves_the_others_as_they_are_alone(epoch):
    plans = [make_plan(learning_rate_init=rate) for rate in (0.1, 0.2, 0.5)]
    nets = [
        make_net(replace(plan, score=break_in(epoch, BrokenError())) if k == 1 else plan, make_data())
        for k, plan in enumerate(plans)
    ]
    networks = [net.session.network for net in nets]
    initial = networks[1].parameters.data.clone()
    assert train_in_lockstep(nets) == [nets[0], nets[2]]
    assert all(net.session is None for net in nets)
    assert torch.equal(networks[1].parameters.data, initial)  # an error leaves nothing behind
    for k in (0, 2):
        alone = make_net(plans[k], make_data(), Session)
        network = alone.session.network
        alone.train()
        assert_same_state(plans[k], networks[k], network)
        assert_same_history(nets[k].history, alone.history)


def test_all_may_raise():
    nets = [make_net(make_plan(score=break_in(epoch, BrokenError())), make_data()) for epoch in (2, 1, 2)]
    assert train_in_lockstep(nets) == []
    assert all(net.session is None for net in nets)


def test_a_warning_that_is_an_error_is_its_own_nets():
    plans = [make_plan(n_iter_no_change=patience) for patience in (6, 5, 6)]  # the second did not converge
    nets = [make_net(plan, make_data()) for plan in plans]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert train_in_lockstep(nets) == [nets[0], nets[2]]


def assert_all_closed(nets, networks, initial):
    for net, network, before in zip(nets, networks, initial, strict=True):
        assert net.session is None
        assert network.parameters.data.isfinite().all()
        if net.outcome_.reason == "interrupted" and not net.outcome_.best_epoch:
            assert torch.equal(network.parameters.data, before)
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("k", range(3))
def test_an_interrupt_in_a_net_is_raised_on_and_closes_all(k):
    plans = [make_plan(learning_rate_init=rate) for rate in (0.1, 0.2, 0.5)]
    plans[k] = replace(plans[k], score=break_in(3, KeyboardInterrupt()))
    nets = [make_net(plan, make_data()) for plan in plans]
    networks = [net.session.network for net in nets]
    initial = [network.parameters.data.clone() for network in networks]
    with pytest.raises(KeyboardInterrupt):
        train_in_lockstep(nets)
    assert_all_closed(nets, networks, initial)
    assert {net.outcome_.reason for net in nets} == {"interrupted"}


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError()], ids=lambda error: type(error).__name__)
def test_an_error_in_an_epoch_is_raised_on_and_closes_all(error, monkeypatch):
    calls = []

    def fail(*given, **named):
        calls.append(1)
        if len(calls) == 3:
            raise error
        return run_epoch_together(*given, **named)

    monkeypatch.setattr("skdnn.engine.trainer.run_epoch_together", fail)
    monkeypatch.setattr("skdnn.training.population.run_epoch_together", fail)
    nets = [make_net(make_plan(learning_rate_init=rate), make_data()) for rate in (0.1, 0.2, 0.5)]
    networks = [net.session.network for net in nets]
    initial = [network.parameters.data.clone() for network in networks]
    with pytest.raises(type(error)):
        train_in_lockstep(nets)
    assert_all_closed(nets, networks, initial)


def test_threads_are_set_for_the_training_alone():
    seen = []

    def look(*given):
        seen.append(torch.get_num_threads())
        return accuracy(*given)

    train_in_lockstep([make_net(make_plan(score=look), make_data()) for _ in range(2)])
    assert set(seen) == {1}  # and two again after it, which the fixture asserts


def test_the_global_generator_stays():
    before = torch.get_rng_state()
    train_in_lockstep([make_net(make_plan(layers), make_data()) for layers in TECHNIQUES])
    assert torch.equal(torch.get_rng_state(), before)


def test_two_runs_are_the_same_bit_for_bit():
    def run():
        nets = [make_net(make_plan(layers), make_data()) for layers in TECHNIQUES]
        networks = [net.session.network for net in nets]
        train_in_lockstep(nets)
        return torch.cat([network.parameters.data for network in networks])

    assert torch.equal(run(), run())


def test_networks_are_stacked_where_their_steps_are_no_programs(kind):
    def kind_of(*plans):
        return type(make_population([Lane(plan, make_data()) for plan in plans]))

    assert kind_of(PLAN, PLAN) is (Stacked if kind == "stacked" else SideBySide)
    assert kind_of(*[make_plan({"activation": CallableActivation(torch.sin)})] * 2) is Stacked


def test_steps_side_by_side_are_programs(kind, monkeypatch):
    made = []

    def compile_and_note(step, n_batches, *coefficients):
        program = compile_steps(step, n_batches, *coefficients)
        if coefficients:  # others are of penalties
            made.append(program)
        return program

    monkeypatch.setattr("skdnn.engine.trainer.compile_steps", compile_and_note)
    for n_epochs in (2, 3):  # they begin with the third epoch
        assert not made
        train_in_lockstep([make_net(make_plan(layers, max_iter=n_epochs), make_data()) for layers in TECHNIQUES])
    assert len(made) == (0 if kind == "stacked" else len(TECHNIQUES))
    assert None not in made


def train_lanes(plans, kin=None, **rows):
    """The snapshots of lanes that have trained together."""
    sessions = [Lane(plan, make_data(**rows), kin=kin) for plan in plans]
    networks = [session.network for session in sessions]
    train_in_lockstep([TrainingNet(build_module(own.network), own.plan.loss, session=own) for own in sessions])
    return [torch.cat(network.snapshot()) for network in networks]


def test_lanes_that_differ_in_numbers_of_the_update_and_in_how_they_begin_have_one_program(kind, monkeypatch):
    made = []
    monkeypatch.setattr("skdnn.engine.trainer.compile_steps", lambda *args: made.append(compile_steps(*args)) or made[-1])
    for rule in (Momentum, Nesterov):
        plans = [
            make_plan({"initializer": initializer}, rule(momentum))
            for initializer, momentum in [(He(), 0.0), (He(), 0.5), (Glorot(), 0.5), (Glorot("normal"), 0.9)]
        ]
        alone = [train_lanes([plan])[0] for plan in plans]
        made.clear()
        together = train_lanes(plans)
        assert len(made) == (0 if kind == "stacked" else 1)
        if kind != "stacked":
            assert all(map(torch.equal, together, alone))
        assert len({tuple(parameters.tolist()) for parameters in together}) == len(plans)


def test_lanes_of_equal_plans_have_one_program_which_serves_on_other_rows_too(kind, monkeypatch):
    made, kin = [], Kin()
    monkeypatch.setattr("skdnn.engine.trainer.compile_steps", lambda *args: made.append(compile_steps(*args)) or made[-1])
    plans = [make_plan(seeds=(k, k, k), learning_rate_init=0.1 / (k + 1)) for k in range(3)]
    for rows, n_programs in (({}, 1), ({"n_training": 32}, 0)):
        alone = [train_lanes([plan], **rows) for plan in plans]
        made.clear()
        together = train_lanes(plans, kin, **rows)
        assert len(made) == (0 if kind == "stacked" else n_programs)
        if kind != "stacked":
            assert all(torch.equal(one, other) for one, (other,) in zip(together, alone, strict=True))
    train_lanes([make_plan(optimizer=Momentum(0.5))], kin)
    assert len(made) == (0 if kind == "stacked" else 1)


def test_programs_are_kept_within_limits(kind, monkeypatch):
    monkeypatch.setattr("skdnn.training.population._MAX_BYTES_OF_PROGRAMS", 1)
    kin = Kin()
    train_lanes([PLAN, PLAN], kin)
    assert not kin.programs


DROPS = {"dropout": 0.3}


@pytest.mark.parametrize(
    ("seeds", "layers", "n_drawing"),
    [
        ([(1, 2, 3)] * 3, [DROPS] * 3, 1),
        ([(1, 2, 3), (4, 2, 3), (5, 2, 3)], [DROPS] * 3, 1),
        ([(1, 2, 3), (1, 2, 4), (1, 2, 3)], [DROPS] * 3, 2),
        ([(1, 2, 3), (1, 4, 3), (1, 4, 3)], [DROPS] * 3, 2),
        ([(1, 2, 3)] * 3, [DROPS, {"dropout": 0.1}, DROPS], 2),
    ],
    ids=["alike", "own_kernels", "own_masks", "own_orders", "own_rates"],
)
def test_masks_that_are_drawn_alike_are_drawn_once(seeds, layers, n_drawing, kind, monkeypatch):
    plans = [make_plan(own, seeds=seed, max_iter=2 + k) for k, (own, seed) in enumerate(zip(layers, seeds, strict=True))]
    alone = [train_lanes([plan]) for plan in plans]
    drawn, draw = [], _draw_mask
    monkeypatch.setattr("skdnn.engine.layers._draw_mask", lambda *args: drawn.append(args) or draw(*args))
    train_lanes(plans[:1])
    n_of_one = len(drawn) / plans[0].max_iter
    drawn.clear()
    together = train_lanes(plans)
    if kind == "side by side":
        assert all(torch.equal(one, other) for one, (other,) in zip(together, alone, strict=True))
        n_epochs = {}  # of those that draw together, those of the last to leave
        for plan in plans:
            alike = plan.seeds.order, plan.seeds.dropout, plan.network
            n_epochs[alike] = max(plan.max_iter, n_epochs.get(alike, 0))
        assert len(n_epochs) == n_drawing
        assert len(drawn) == n_of_one * sum(n_epochs.values())


def test_kernels_that_are_drawn_alike_are_drawn_once(monkeypatch):
    drawn, initialize = [], Network.initialize
    monkeypatch.setattr(Network, "initialize", lambda network, seeds: drawn.append(seeds) or initialize(network, seeds))
    users = CallableInitializer(torch.nn.init.zeros_)
    cases = [
        ({}, (1, 2, 3), True),
        ({}, (1, 8, 9), False),
        ({}, (2, 2, 3), True),
        ({"initializer": He()}, (1, 2, 3), True),
        ({"initializer": Glorot(), "activation": ReLU()}, (1, 2, 3), False),
        ({"batch_norm": BatchNorm()}, (1, 2, 3), True),
        ({"batch_norm": BatchNorm(0.5)}, (1, 2, 3), False),
        ({"initializer": users}, (1, 2, 3), True),
        ({"initializer": users}, (1, 2, 3), True),
    ]
    kin = Kin()
    for layers, seeds, is_drawn in cases:
        plan, n_before = make_plan(layers, seeds=seeds), len(drawn)
        network = Lane(plan, make_data(), kin=kin).network
        assert len(drawn) - n_before == is_drawn
        assert torch.equal(network.parameters.data, Session(plan, make_data()).network.parameters.data)


def test_draws_are_kept_for_other_rows_within_limits(monkeypatch):
    kin = Kin()
    lane = Lane(PLAN, make_data(), kin=kin)
    n_bytes = sum(tensor.nbytes for tensor in lane.network.snapshot())
    for limit, n_kept in ((n_bytes, 1), (n_bytes - 1, 0)):
        monkeypatch.setattr("skdnn.training.population._MAX_BYTES_OF_DRAWN", limit)
        kin.make_room()
        assert len(kin.drawn) == n_kept
    assert all(torch.equal(*pair) for pair in zip(lane.snapshot(), Session(PLAN, make_data()).snapshot(), strict=True))


def test_lanes_of_a_kin_share_gradients():
    kin = Kin()
    first, second = (Lane(make_plan(seeds=(k, k, k)), make_data(), kin=kin).network for k in range(2))
    of_other_kin = Lane(PLAN, make_data()).network
    wider = Lane(make_plan({"batch_norm": BatchNorm()}), make_data(), kin=kin).network
    assert first.gradient is second.gradient
    assert of_other_kin.gradient is not first.gradient
    assert wider.gradient.shape == wider.parameters.data.shape


def test_networks_side_by_side_share_their_chunks(kind):
    lanes = [Lane(make_plan(learning_rate_init=rate), make_data()) for rate in (0.1, 0.2)]
    make_population(lanes)
    assert (lanes[0].trainer.chunks is lanes[1].trainer.chunks) == (kind != "stacked")


def test_users_functions_keep_networks_from_those_whose_steps_are_programs(kind):
    users = make_plan({"activation": CallableActivation(torch.sin)})
    assert can_share(users, users)
    assert can_share(users, PLAN) == (kind == "stacked")


def test_users_functions_are_stacked_and_end_where_each_ends_alone():
    plans = [
        make_plan({**layers, "activation": CallableActivation(function)})
        for layers, function in zip(TECHNIQUES, (torch.sin, torch.tanh, torch.sin, torch.cos), strict=True)
    ]
    assert_each_ends_where_it_ends_alone(plans)


def test_lanes_share_data_and_keep_their_twins():
    first, second = (Lane(make_plan(), make_data(twins=twins)) for twins in (None, TWINS))
    second.share_data(first)
    assert second.data.X is first.data.X
    assert second.data.twins is TWINS
    assert first.data.twins is None


# who can be with whom -----------------------------------------------------------------------------------------------------

# What a second plan has in place of the first's, where the two can train together.
FREE = {
    "nothing": {},
    "rate": {"learning_rate_init": 0.2},
    "schedule": {"schedule": Cosine()},
    "schedule_by_update": {"schedule": OneCycle()},
    "score": {"score": None},
    "max_iter": {"max_iter": 3},
    "tol": {"tol": 0.1},
    "patience": {"n_iter_no_change": 2},
    "seeds": {"seeds": (4, 5, 6)},
    "verbose": {"verbose": 2},
    "momentum": {"optimizer": Momentum(0.5)},
    "initializer": {"layers": {"initializer": Orthogonal()}},
    "dropout": {"layers": {"dropout": 0.5}},
    "input_dropout": {"layers": {"input_dropout": 0.5}},
    "l1": {"layers": {"regularizer": L1()}},
    "max_norm": {"layers": {"constraint": MaxNorm(0.5)}},
    "equal_activation": {"layers": {"activation": Tanh()}},
    "activation": {"layers": {"activation": ReLU()}},
    "activation_number": {"layers": {"activation": ELU(0.5)}},
    "axis": {"layers": {"constraint": MaxNorm(0.5, axis="outgoing")}},
    "optimizer": {"optimizer": Nesterov()},
    "clipping": {"clipping": ClipNorm()},
}
BOUND = {
    "width": {"layers": {"n_hidden": 7}},
    "batch_norm": {"layers": {"batch_norm": BatchNorm()}},
    "torch_optimizer": {"optimizer": TorchOptimizer(torch.optim.SGD)},
    "loss": {"loss": CategoricalCrossentropy(label_smoothing=0.1)},
    "batch_size": {"batch_size": 4},
    "shuffle": {"shuffle": False},
    "dtype": {"dtype": torch.float32},
}


def can_share(first, second, data=None, other_data=None):
    sessions = Lane(first, data or make_data()), Lane(second, other_data or make_data())
    answer = can_share_a_population(*sessions)
    assert can_share_a_population(*reversed(sessions)) == answer
    return answer


@pytest.mark.parametrize("changes", FREE.values(), ids=FREE)
def test_plans_that_can_share(changes):
    assert can_share(make_plan(optimizer=Momentum()), make_plan(**{"optimizer": Momentum(), **changes}))


@pytest.mark.parametrize("changes", BOUND.values(), ids=BOUND)
def test_plans_that_cannot_share(changes):
    assert not can_share(make_plan(optimizer=Momentum()), make_plan(**{"optimizer": Momentum(), **changes}))


def test_more_pairs_of_plans():
    assert not can_share(*[make_plan(optimizer=TorchOptimizer(torch.optim.SGD))] * 2)
    assert can_share(make_plan(clipping=ClipNorm()), make_plan(clipping=ClipValue()))
    assert can_share(make_plan(clipping=ClipNorm(1.0)), make_plan(clipping=ClipNorm(2.0)))
    assert can_share(*(make_plan({"constraint": MaxNorm(r, axis="outgoing")}) for r in (1.0, 2.0)))
    assert can_share(*(make_plan({"batch_norm": BatchNorm()}) for _ in range(2)))
    assert can_share(*(make_plan({"batch_norm": BatchNorm(momentum)}) for momentum in (0.9, 0.5)))
    assert can_share(*(make_plan({"activation": ELU(alpha)}) for alpha in (1.0, 0.5)))


def change(data, name, row=0):
    """The same data but for one number."""
    changed = getattr(data, name).clone()
    changed[row] = changed[row] + 1
    return replace(data, **{name: changed})


WEIGHTED = {"weights": random_weights(), "sample_weight": random_weights(seed=2)}
DATA = {
    "equal": (make_data(), make_data(), True),
    "equal_sparse": (make_data(is_sparse=True), make_data(is_sparse=True), True),
    "equal_weights": (make_data(**WEIGHTED), make_data(**{name: w.clone() for name, w in WEIGHTED.items()}), True),
    "twins": (make_data(), make_data(twins=TWINS), True),
    "X": (make_data(), change(make_data(), "X"), False),
    "y": (make_data(), change(make_data(), "y"), False),
    "training_rows": (make_data(), change(make_data(), "training_rows"), False),
    "fewer_training_rows": (make_data(), make_data(n_training=30), False),
    "validation_rows": (make_data(), change(make_data(), "validation_rows", -2), False),
    "no_validation": (make_data(), make_data(validates=False), False),
    "weights": (make_data(**WEIGHTED), change(make_data(**WEIGHTED), "weights"), False),
    "sample_weight": (make_data(**WEIGHTED), change(make_data(**WEIGHTED), "sample_weight"), False),
    "no_weights": (make_data(**WEIGHTED), make_data(sample_weight=WEIGHTED["sample_weight"]), False),
    "no_sample_weight": (make_data(**WEIGHTED), make_data(weights=WEIGHTED["weights"]), False),
    "sparse_and_dense": (make_data(), make_data(is_sparse=True), False),
    "precision": (make_data(), replace(make_data(), X=make_data().X.float()), False),
    "validation": (make_data(), replace(make_data(), validation=make_data()), False),
    "equal_validation": (*[replace(make_data(), validation=make_data())] * 2, True),
    "other_validation": (
        replace(make_data(), validation=make_data()),
        replace(make_data(), validation=change(make_data(), "y")),
        False,
    ),
}


@pytest.mark.parametrize("case", DATA)
def test_data_that_can_and_that_cannot_be_shared(case):
    first, second, answer = DATA[case]
    assert can_share(make_plan(), make_plan(), first, second) is answer


def test_sparse_data_that_differs():
    first = make_data(is_sparse=True)
    X = first.X.copy()
    X.data[0] += 1.0
    assert not can_share(make_plan(), make_plan(), first, replace(first, X=X))


@pytest.mark.filterwarnings("always")
def test_warnings_name_each_net():
    nets = [make_net(make_plan(n_iter_no_change=5, max_iter=n), make_data()) for n in (6, 7)]
    with pytest.warns(ConvergenceWarning) as caught:
        train_in_lockstep(nets)
    assert [str(warning.message)[:27] for warning in caught] == [f"Training reached max_iter={n}"[:27] for n in (6, 7)]
