"""Nets that train in lockstep can be suspended, looked at and left, and the others go on as if nothing had been."""

import pytest
import torch
from test_population import accuracy, assert_same_history, assert_same_outcome, make_data, make_net, make_plan, state_of

from skdnn.components import Adam, BatchNorm
from skdnn.training import Lockstep, Session, TrainingRun, train_in_lockstep

pytestmark = pytest.mark.usefixtures("kind")


def make_plans(**changes):
    layers = {"batch_norm": BatchNorm(), "dropout": 0.2}
    return [
        make_plan(layers, Adam(), seeds=(k, 2, k), learning_rate_init=rate, **changes)
        for k, rate in enumerate((0.1, 0.2, 0.05))
    ]


def make_nets(plans, validates=True):
    nets = [make_net(plan, make_data(validates)) for plan in plans]
    return nets, [net.session.network for net in nets]


def test_with_pauses_or_without_is_the_same():
    nets, networks = make_nets(make_plans())
    paused, paused_networks = make_nets(make_plans())
    assert train_in_lockstep(nets) == nets
    together = Lockstep(paused)
    for n_epochs in (1, 1, 3, 2, 6, 9):
        together.train(n_epochs)
        assert together.n_epochs == min(max(n_epochs, together.n_epochs), 6)
        assert len(together.running) == (3 if n_epochs < 6 else 0)
    assert together.ended == paused
    for mine, other in zip(paused, nets, strict=True):
        assert_same_history(mine.history, other.history)
    assert all(torch.equal(state_of(a), state_of(b)) for a, b in zip(networks, paused_networks, strict=True))


@pytest.mark.parametrize("validates", [True, False])
def test_a_net_as_if_over_is_that_of_a_fit_of_so_many_epochs(validates):
    nets, _ = make_nets(make_plans(max_iter=9), validates)
    together = Lockstep(nets)
    for n_epochs in (2, 5):
        together.train(n_epochs)
        for net, plan in zip(nets, make_plans(max_iter=n_epochs), strict=True):
            alone = make_net(plan, make_data(validates), Session)
            network = alone.session.network
            alone.train()
            over, session = net.as_if_over()
            assert_same_outcome(over.outcome_, alone.outcome_)
            assert_same_history(over.history, alone.history)
            torch.testing.assert_close(state_of(session.network), state_of(network), rtol=1e-9, atol=1e-12)
            assert over.session is over._best is over._initial is None
            assert session.data is None


def test_a_net_as_if_over_that_has_gone_astray_has_its_initial_weights(monkeypatch):
    (net, *_), (network, *_) = make_nets(make_plans())
    initial = state_of(network).clone()
    together = Lockstep([net])
    together.train(2)
    monkeypatch.setattr(TrainingRun, "_has_gone_astray", lambda net, plan: True)
    monkeypatch.setattr(Session, "predicts", lambda session: False)
    over, session = net.as_if_over()
    assert (over.outcome_.reason, over.outcome_.best_epoch) == ("diverged", 0)
    assert torch.equal(state_of(session.network), initial)
    monkeypatch.undo()
    together.train()
    assert net.outcome_.reason == "max_iter"


def test_those_who_leave_do_not_touch_the_others():
    reference, networks = make_nets(make_plans())
    train_in_lockstep(reference)
    nets, own = make_nets(make_plans())
    together = Lockstep(nets)
    together.train(2)
    together.leave([])
    together.leave([nets[1]])
    together.train()
    assert together.ended == [nets[0], nets[2]]
    assert nets[1].outcome_.reason == "interrupted"
    assert nets[1].session is None
    for k in (0, 2):
        torch.testing.assert_close(state_of(own[k]), state_of(networks[k]), rtol=1e-12, atol=1e-14)


def test_one_that_raises_is_neither_running_nor_ended():
    calls = []

    def fail(*given):
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("no score")
        return accuracy(*given)

    nets, _ = make_nets([make_plans(score=fail)[0], *make_plans()[1:]])
    together = Lockstep(nets)
    together.train(3)
    assert together.running == nets[1:]
    together.train()
    assert together.ended == nets[1:]


def test_threads_are_as_they_were_while_nets_are_suspended():
    nets, _ = make_nets(make_plans())
    torch.set_num_threads(2)
    try:
        Lockstep(nets).train(1)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
