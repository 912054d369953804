import signal
import warnings

import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from skorch.callbacks import Callback

from skdnn.components import (
    L2,
    SGD,
    Adaptive,
    BatchNorm,
    Constant,
    Cosine,
    Exponential,
    Glorot,
    InvScaling,
    Moment,
    OneCycle,
    ReLU,
    WarmUp,
)
from skdnn.components.losses import CategoricalCrossentropy
from skdnn.engine import LayerPlan, NetworkPlan, UpdatePlan, build_module, run_epoch_together
from skdnn.training import Seeds, Session, TrainingData, TrainingNet, TrainingPlan

CPU = torch.device("cpu")
N_ROWS, N_TRAINING, BATCH_SIZE = 50, 40, 8


def accuracy(network, outputs, y, sample_weight, weight):
    return (outputs.argmax(1) == y).double().mean().item()


def make_session(validates=True, regularizer=None, batch_norm=None, **changes):
    hidden = LayerPlan(4, 6, Glorot(), activation=ReLU(), regularizer=regularizer, batch_norm=batch_norm)
    settings = {
        "network": NetworkPlan((hidden, LayerPlan(6, 3, Glorot(), regularizer=regularizer))),
        "update": UpdatePlan(SGD()),
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
        "seeds": Seeds(1, 2, 3),
    }
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(N_ROWS, 4, generator=generator, dtype=torch.float64)
    y = X[:, :3].argmax(1)
    rows = torch.arange(N_ROWS)
    data = TrainingData(X, y, rows[:N_TRAINING], rows[N_TRAINING:] if validates else None)
    return Session(TrainingPlan(**{**settings, **changes}), data)


def make_net(session, *callbacks):
    return TrainingNet(
        build_module(session.network),
        session.plan.loss,
        session=session,
        callbacks=list(callbacks),
    )


@pytest.fixture
def epochs(monkeypatch):
    """A list of what the engine is given for each epoch: order and rates."""
    seen = []

    def run(trainers, X, y, order, rates, *others, **named):
        rates = [list(own) for own in rates]
        seen.append((order, *rates))
        run_epoch_together(trainers, X, y, order, rates, *others, **named)

    monkeypatch.setattr("skdnn.training.session.run_epoch_together", run)
    return seen


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


@pytest.mark.parametrize("validates", [False, True])
def test_history(validates):
    session = make_session(validates, regularizer=L2(0.1))
    net = make_net(session)
    outcome = net.train()
    keys = {"train_loss", "base_loss", "penalty", "learning_rate"} | ({"valid_loss", "valid_score"} if validates else set())
    assert len(net.history) == 6
    for i, row in enumerate(net.history):
        assert row["epoch"] == i + 1
        assert keys <= row.keys()
        assert row["train_loss"] == pytest.approx(row["base_loss"] + row["penalty"])
        assert row["penalty"] > 0
    monitored = net.history[:, "valid_score" if validates else "train_loss"]
    best = max(monitored) if validates else min(monitored)
    assert (outcome.best_value, outcome.best_epoch) == (best, 1 + monitored.index(best))
    assert (outcome.n_epochs, outcome.n_samples, outcome.reason) == (6, 6 * N_TRAINING, "max_iter")


def test_validation_is_torchs_loss_and_the_plans_score():
    session = make_session(max_iter=1)
    net = make_net(session)
    data = session.data
    net.train()
    with torch.no_grad():
        outputs = net.module_(data.X[data.validation_rows])
    y = data.y[data.validation_rows]
    assert net.history[-1]["valid_loss"] == pytest.approx(torch.nn.functional.cross_entropy(outputs, y).item())
    assert net.history[-1]["valid_score"] == accuracy(None, outputs, y, None, None)


def test_the_network_keeps_the_weights_of_the_best_validation_score():
    scores = iter([0.1, 0.5, 0.3, 0.5, 0.2, 0.4])
    session = make_session(score=lambda *_: next(scores), batch_norm=BatchNorm())
    network, states = session.network, []

    class Keep(Callback):
        def on_epoch_end(self, net, **kwargs):
            states.append(network.snapshot())

    outcome = make_net(session, Keep()).train()
    assert outcome.best_epoch == 2
    assert torch.equal(network.parameters.data, states[1][0])
    assert torch.equal(network.statistics.data, states[1][1])


def test_the_network_keeps_the_last_weights_without_validation():
    session = make_session(validates=False, learning_rate_init=1.5)
    states = []

    class Keep(Callback):
        def on_epoch_end(self, net, **kwargs):
            states.append(session.network.snapshot()[0])

    make_net(session, Keep()).train()
    assert torch.equal(session.network.parameters.data, states[-1])


SCHEDULES = [
    Constant(),
    Exponential(0.5, 2),
    InvScaling(0.5),
    Cosine(),
    Exponential(0.5, 3, per="update"),
    OneCycle(),
    WarmUp(),
]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_schedules_reach_the_engine(schedule, epochs):
    net = make_net(make_session(schedule=schedule))
    net.train()
    n_updates = N_TRAINING // BATCH_SIZE
    for epoch, (_, rates) in enumerate(epochs):
        moments = [
            Moment(epoch, epoch * n_updates + i, n_updates, max_iter=6, n_samples=epoch * N_TRAINING) for i in range(n_updates)
        ]
        if schedule.interval == "epoch":
            moments = [moments[0]] * n_updates
        assert rates == pytest.approx([0.1 * schedule.factor(moment) for moment in moments])
    assert net.history[:, "learning_rate"] == [rates[0] for _, rates in epochs]


def test_a_schedule_by_update_with_one_update_an_epoch(epochs):
    make_net(make_session(schedule=Exponential(0.5, 1, per="update"), batch_size=N_TRAINING)).train()
    assert [rates for _, rates in epochs] == [[0.1 * 0.5**epoch] for epoch in range(6)]


def test_adaptive_goes_on_after_a_plateau_and_stops_at_the_least_rate():
    # No epoch brings tol, so a plateau is 3 epochs, the first one and 3 at the start. At a rate of at most 0.03 it is the last.
    schedule = Adaptive(divisor=2.0, min_learning_rate=0.03)
    session = make_session(schedule=schedule, score=lambda *_: 0.5, n_iter_no_change=2, max_iter=50)
    net = make_net(session)
    outcome = net.train()
    assert net.history[:, "learning_rate"] == [0.1] * 4 + [0.05] * 3 + [0.025] * 3
    assert (outcome.reason, outcome.n_epochs, outcome.best_epoch) == ("no_progress", 10, 1)


def test_other_schedules_stop_at_the_first_plateau():
    session = make_session(score=lambda *_: 0.5, n_iter_no_change=2, max_iter=50)
    outcome = make_net(session).train()
    assert (outcome.reason, outcome.n_epochs) == ("no_progress", 4)


def test_max_iter_before_a_plateau_warns_unless_it_was_asked_for():
    with pytest.warns(ConvergenceWarning, match="max_iter=6 epochs before it stopped making progress"):
        make_net(make_session(n_iter_no_change=5)).train()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_net(make_session(n_iter_no_change=6)).train()


@pytest.mark.parametrize("validates", [False, True])
def test_divergence_restores_the_best_weights_and_says_what_to_do(validates):
    session = make_session(validates)
    network, train = session.network, session.begin_epoch
    best = []

    def train_and_diverge(rates, watcher=None):
        # A rate that no float can bear from the third epoch on.
        if len(net.history) == 3:
            return train([1e200] * len(rates), watcher)
        result = train(rates, watcher)
        best.append(network.snapshot()[0])
        return result

    session.begin_epoch = train_and_diverge
    net = make_net(session)
    with pytest.warns(ConvergenceWarning, match=r"diverged in epoch 3: .*learning_rate_init=0\.1, scale the features"):
        outcome = net.train()
    assert (outcome.reason, outcome.n_epochs) == ("diverged", 3)
    assert outcome.best_epoch in (1, 2)
    assert torch.equal(network.parameters.data, best[outcome.best_epoch - 1])
    assert len(net.history) == 3


def test_divergence_in_the_first_epoch_restores_the_initial_weights():
    session = make_session(learning_rate_init=1e200)
    network, before = session.network, session.network.snapshot()
    with pytest.warns(ConvergenceWarning, match=r"The weights are the initial ones\. Lower learning_rate_init=1e\+200"):
        outcome = make_net(session).train()
    assert (outcome.reason, outcome.best_epoch) == ("diverged", 0)
    assert torch.equal(network.parameters.data, before[0])


class Interrupt(Callback):
    def __init__(self, event, epoch):
        def interrupt(net, **kwargs):
            if len(net.history) == epoch:
                signal.raise_signal(signal.SIGINT)

        setattr(self, event, interrupt)


def check_interrupted(session, net, n_epochs):
    network, states, train = session.network, [], session.begin_epoch
    session.begin_epoch = lambda *args: (train(*args), states.append(network.snapshot()[0]))[0]
    with pytest.raises(KeyboardInterrupt):
        net.train()
    assert net.outcome_.reason == "interrupted"
    assert net.outcome_.n_epochs == n_epochs == len(net.history)
    assert net.session is None
    assert torch.equal(network.parameters.data, states[net.outcome_.best_epoch - 1])
    assert all(parameter.grad is None for parameter in net.module_.parameters())


@pytest.mark.parametrize("validates", [False, True])
@pytest.mark.parametrize(("event", "n_epochs"), [("on_epoch_end", 3), ("on_epoch_begin", 2)])
def test_an_interrupt_while_a_callback_runs_is_raised_on_with_the_best_weights(event, n_epochs, validates):
    session = make_session(validates)
    check_interrupted(session, make_net(session, Interrupt(event, 3)), n_epochs)


def test_an_interrupt_in_an_epoch_is_raised_on_with_the_best_weights():
    session = make_session()
    network, train, states = session.network, session.begin_epoch, []

    def train_and_interrupt(rates, watcher=None):
        if len(net.history) == 3:
            network.parameters.data.fill_(7.0)
            raise KeyboardInterrupt
        result = train(rates, watcher)
        states.append(network.snapshot()[0])
        return result

    session.begin_epoch = train_and_interrupt
    net = make_net(session)
    with pytest.raises(KeyboardInterrupt):
        net.train()
    assert torch.equal(network.parameters.data, states[net.outcome_.best_epoch - 1])
    assert net.outcome_.reason == "interrupted"
    assert net.outcome_.n_epochs == len(net.history) == len(net.history[:, "train_loss"])


def test_an_interrupt_before_the_first_epoch_leaves_an_outcome():
    session = make_session()
    net = make_net(session, Interrupt("on_train_begin", 0))
    with pytest.raises(KeyboardInterrupt):
        net.train()
    assert net.outcome_.best_epoch == 0
    assert net.session is None


def test_another_exception_is_raised_on_and_the_session_released():
    session = make_session()

    class Fail(Callback):
        def on_epoch_end(self, net, **kwargs):
            raise OSError("disk full")

    net = make_net(session, Fail())
    with pytest.raises(OSError, match="disk full"):
        net.train()
    assert net.session is None


def test_the_session_is_released_after_training():
    net = make_net(make_session())
    net.train()
    assert net.session is None
    assert net._best is None
    assert not net.module_.training


class Recorder(Callback):
    def __init__(self):
        self.events = []

    def on_train_begin(self, net, X=None, y=None, **kwargs):
        self.events.append("train_begin")
        assert torch.is_tensor(X)
        assert torch.is_tensor(y)

    def on_train_end(self, net, X=None, y=None, **kwargs):
        self.events.append("train_end")

    def on_epoch_begin(self, net, dataset_train=None, **kwargs):
        self.events.append("epoch_begin")
        assert dataset_train is not None

    def on_epoch_end(self, net, **kwargs):
        self.events.append("epoch_end")
        assert "valid_loss" in net.history[-1]


def test_callbacks_get_the_epochs():
    recorder = Recorder()
    make_net(make_session(max_iter=2), recorder).train()
    assert recorder.events == ["train_begin", *["epoch_begin", "epoch_end"] * 2, "train_end"]


class BatchRecorder(Callback):
    def __init__(self):
        self.batches = []

    def on_batch_begin(self, net, batch=None, training=None, **kwargs):
        self.batches.append(("begin", *batch) if training else ("begin validation", *batch))

    def on_grad_computed(self, net, named_parameters, batch=None, **kwargs):
        self.batches.append(
            ("gradient", [(parameter.detach().clone(), parameter.grad.clone()) for _, parameter in named_parameters])
        )

    def on_batch_end(self, net, batch=None, training=None, loss=None, y_pred=None, **kwargs):
        self.batches.append(("end" if training else "end validation", batch[1], loss, y_pred))


def test_callbacks_get_the_batches_where_they_listen():
    recorder, quiet, session = BatchRecorder(), make_session(max_iter=2), make_session(max_iter=2)
    make_net(quiet).train()
    net = make_net(session, recorder)
    net.train()
    assert torch.equal(session.network.parameters.data, quiet.network.parameters.data)
    of_training = ["begin", "gradient", "end"] * (N_TRAINING // BATCH_SIZE)
    assert [batch[0] for batch in recorder.batches] == [*of_training, "begin validation", "end validation"] * 2
    (_, x, y), (_, parameters), (_, _, loss, outputs) = recorder.batches[:3]
    w1, b1, w2, b2 = (parameter.requires_grad_() for parameter, _ in parameters)
    expected = torch.nn.functional.cross_entropy(torch.relu(x @ w1.T + b1) @ w2.T + b2, y)
    torch.testing.assert_close(loss, expected.detach())
    for gradient, oracle in zip((g for _, g in parameters), torch.autograd.grad(expected, (w1, b1, w2, b2)), strict=True):
        torch.testing.assert_close(gradient, oracle)
    torch.testing.assert_close(torch.nn.functional.cross_entropy(outputs, y), loss)
    assert net.history[0, "batches", 0, "train_loss"] == pytest.approx(loss.item())
    _, y, loss, outputs = recorder.batches[-1]
    torch.testing.assert_close(torch.nn.functional.cross_entropy(outputs, y), loss)
    assert len(y) == N_ROWS - N_TRAINING
    assert net.history[-1, "batches", -1, "valid_loss"] == net.history[-1, "valid_loss"] == loss.item()


@pytest.mark.parametrize("shuffle", [True, False])
def test_rows_are_shuffled_on_demand_and_never_those_of_validation(shuffle, epochs):
    make_net(make_session(shuffle=shuffle)).train()
    orders, rows = [order for order, _ in epochs], torch.arange(N_TRAINING)
    assert all(torch.equal(order.sort().values, rows) for order in orders)
    assert all(torch.equal(order, rows) for order in orders) != shuffle
    assert torch.equal(orders[0], orders[1]) != shuffle


def test_the_same_seeds_are_the_same_training_and_the_global_generator_stays():
    before = torch.get_rng_state()
    networks = []
    for seeds in (Seeds(1, 2, 3), Seeds(1, 2, 3), Seeds(1, 4, 3)):
        session = make_session(seeds=seeds, dtype=torch.float64)
        make_net(session).train()
        networks.append(session.network.parameters.data)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(networks[0], networks[1])
    assert not torch.equal(networks[0], networks[2])


def test_a_session_goes_on_from_a_snapshot():
    first = make_session()
    snapshot = first.network.snapshot()
    snapshot[0].add_(0.5)
    session = Session(first.plan, first.data, snapshot)
    assert torch.equal(session.network.parameters.data, snapshot[0])
