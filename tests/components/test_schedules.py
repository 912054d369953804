import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from naming import name_of
from sklearn.neural_network._stochastic_optimizers import SGDOptimizer
from torch.optim import lr_scheduler

from skdnn.components import (
    SCHEDULES,
    Adaptive,
    Constant,
    Cosine,
    Exponential,
    InvScaling,
    Moment,
    OneCycle,
    PiecewiseConstant,
    Power,
    WarmUp,
)
from skdnn.components.schedules import resolve_schedule

EPOCHS, UPDATES, BATCH = 12, 7, 32


def run(n_plateaus=0):
    """The moments before each update of a fit."""
    return [
        Moment(epoch, epoch * UPDATES + i, UPDATES, EPOCHS, epoch * UPDATES * BATCH, n_plateaus)
        for epoch in range(EPOCHS)
        for i in range(UPDATES)
    ]


def one_cycle(moment, warmup_fraction=0.3, initial_factor=0.04, final_factor=4e-6):
    peak, last = warmup_fraction * EPOCHS * UPDATES - 1, EPOCHS * UPDATES - 1
    if moment.update <= peak:
        return 1 + (initial_factor - 1) * (1 + math.cos(math.pi * moment.update / peak)) / 2
    return final_factor + (1 - final_factor) * (1 + math.cos(math.pi * (moment.update - peak) / (last - peak))) / 2


# The formula of each schedule at its defaults.
ORACLE = {
    "constant": lambda moment: 1.0,
    "invscaling": lambda moment: 1.0 / math.sqrt(moment.n_samples + 1),
    "adaptive": lambda moment: 1.0 / 5.0**moment.n_plateaus,
    "exponential": lambda moment: 10.0 ** (-moment.epoch / 20),
    "power": lambda moment: 1.0 / (1.0 + moment.epoch / 20),
    "piecewise_constant": lambda moment: 1.0 if moment.epoch < 50 else 0.01,
    "cosine": lambda moment: (1.0 + math.cos(math.pi * moment.update / (EPOCHS * UPDATES))) / 2.0,
    "one_cycle": one_cycle,
    "warm_up": lambda moment: min(1.0, (moment.update + 1) / (5 * UPDATES)),
}
INTERVALS = {"cosine": "update", "one_cycle": "update", "warm_up": "update"}

OTHER_SETTINGS = [
    (InvScaling(0.25), lambda moment: (moment.n_samples + 1) ** -0.25),
    (InvScaling(0.0), lambda moment: 1.0),
    (Adaptive(2.0), lambda moment: 0.5**moment.n_plateaus),
    (Exponential(0.5, 3), lambda moment: 0.5 ** (moment.epoch / 3)),
    (Exponential(0.5, 30, per="update"), lambda moment: 0.5 ** (moment.update / 30)),
    (Exponential(1.0, 1), lambda moment: 1.0),
    (Power(1.0, 5), lambda moment: 5 / (5 + moment.epoch)),
    (Power(2.0, 50, per="update"), lambda moment: (50 / (50 + moment.update)) ** 2),
    (PiecewiseConstant((3, 7), (1.0, 0.5, 2.0)), lambda moment: 1.0 if moment.epoch < 3 else 0.5 if moment.epoch < 7 else 2.0),
    (PiecewiseConstant([10], [0.5, 0.1], per="update"), lambda moment: 0.5 if moment.update < 10 else 0.1),
    (PiecewiseConstant(np.array([10]), np.array([0.5, 0.1])), lambda moment: 0.5 if moment.epoch < 10 else 0.1),
    (PiecewiseConstant((), (0.5,)), lambda moment: 0.5),
    (Cosine(0.1, per="epoch"), lambda moment: 0.1 + 0.9 * (1 + math.cos(math.pi * moment.epoch / EPOCHS)) / 2),
    (Cosine(1.0), lambda moment: 1.0),
    (OneCycle(0.5, 0.1, 0.01), lambda moment: one_cycle(moment, 0.5, 0.1, 0.01)),
]


def test_oracle_is_complete():
    assert set(ORACLE) == set(SCHEDULES)


@pytest.mark.parametrize("name", ORACLE)
def test_default_follows_its_formula(name):
    schedule = SCHEDULES[name]()
    for moment in [*run(), *run(n_plateaus=3), Moment(epoch=50, update=400, max_iter=100, updates_per_epoch=8)]:
        if moment.max_iter == EPOCHS or name not in ("cosine", "one_cycle", "warm_up"):
            factor = schedule.factor(moment)
            assert isinstance(factor, float)
            assert factor == pytest.approx(ORACLE[name](moment), rel=1e-12, abs=1e-15)


@pytest.mark.parametrize(("schedule", "formula"), OTHER_SETTINGS, ids=[repr(schedule) for schedule, _ in OTHER_SETTINGS])
def test_parameters_enter_the_formula(schedule, formula):
    resolve_schedule(schedule)
    for moment in [*run(), *run(n_plateaus=2)]:
        assert schedule.factor(moment) == pytest.approx(formula(moment), rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("name", SCHEDULES)
def test_interval_is_how_often_the_factor_may_change(name):
    schedule = SCHEDULES[name]()
    assert schedule.interval == INTERVALS.get(name, "epoch")
    if schedule.interval == "epoch":
        for moment in run():
            start = dataclasses.replace(moment, update=moment.epoch * UPDATES)
            assert schedule.factor(moment) == schedule.factor(start)


@pytest.mark.parametrize("make", [Exponential, Power, PiecewiseConstant, Cosine])
@pytest.mark.parametrize("per", ["epoch", "update"])
def test_per_is_the_interval(make, per):
    assert make(per=per).interval == per


# A schedule, torch's scheduler of the same course, and how often torch's is moved.
TORCH_SCHEDULERS = [
    (Constant(), lambda o: lr_scheduler.ConstantLR(o, factor=1.0), "epoch"),
    (Exponential(0.1, 20), lambda o: lr_scheduler.ExponentialLR(o, 0.1 ** (1 / 20)), "epoch"),
    (Exponential(0.1, 50, per="update"), lambda o: lr_scheduler.ExponentialLR(o, 0.1 ** (1 / 50)), "update"),
    (PiecewiseConstant((3, 7), (1.0, 0.1, 0.01)), lambda o: lr_scheduler.MultiStepLR(o, [3, 7], 0.1), "epoch"),
    (PiecewiseConstant((20,), (1.0, 0.5), per="update"), lambda o: lr_scheduler.MultiStepLR(o, [20], 0.5), "update"),
    (Cosine(0.1, per="epoch"), lambda o: lr_scheduler.CosineAnnealingLR(o, EPOCHS, eta_min=0.1), "epoch"),
    (Cosine(), lambda o: lr_scheduler.CosineAnnealingLR(o, EPOCHS * UPDATES), "update"),
    (
        OneCycle(),
        lambda o: lr_scheduler.OneCycleLR(o, max_lr=1.0, total_steps=EPOCHS * UPDATES, cycle_momentum=False),
        "update",
    ),
    (
        OneCycle(0.45, 0.1, 0.001),
        lambda o: lr_scheduler.OneCycleLR(
            o,
            max_lr=1.0,
            total_steps=EPOCHS * UPDATES,
            pct_start=0.45,
            div_factor=10.0,
            final_div_factor=100.0,
            cycle_momentum=False,
        ),
        "update",
    ),
    (WarmUp(), lambda o: warm_up_of_torch(o, 0.0, 5 * UPDATES), "update"),
    (WarmUp("constant", 20, 0.25, per="update"), lambda o: warm_up_of_torch(o, 0.25, 20), "update"),
]


def warm_up_of_torch(optimizer, initial_factor, duration):
    # Torch's starts at its start_factor, which may not be 0; skdnn's first update is one step above its initial_factor.
    first = initial_factor + (1.0 - initial_factor) / duration
    return lr_scheduler.LinearLR(optimizer, start_factor=first, total_iters=duration - 1)


@pytest.mark.parametrize(("schedule", "make", "per"), TORCH_SCHEDULERS, ids=[repr(case[0]) for case in TORCH_SCHEDULERS])
def test_course_is_torchs(schedule, make, per):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = make(optimizer)
    for moment in run():
        is_due = moment.update > 0 and (per == "update" or moment.update % UPDATES == 0)
        if is_due:
            optimizer.step()
            scheduler.step()
        assert schedule.factor(moment) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("power", [0.25, 0.5, 1.0])
def test_invscaling_is_mlpclassifiers(power):
    theirs = SGDOptimizer([np.zeros(1)], learning_rate_init=0.1, lr_schedule="invscaling", power_t=power)
    schedule = InvScaling(power)
    for epoch in range(1, EPOCHS):
        n_samples = epoch * UPDATES * BATCH  # MLPClassifier's t_
        theirs.iteration_ends(n_samples)
        assert 0.1 * schedule.factor(Moment(epoch=epoch, n_samples=n_samples)) == pytest.approx(theirs.learning_rate, rel=1e-12)


def test_adaptive_divides_as_mlpclassifier_does():
    theirs = SGDOptimizer([np.zeros(1)], learning_rate_init=0.1, lr_schedule="adaptive")
    schedule = Adaptive()
    for n_plateaus in range(1, 8):
        assert not theirs.trigger_stopping("", verbose=False)
        moment = Moment(n_plateaus=n_plateaus)
        assert 0.1 * schedule.factor(moment) == pytest.approx(theirs.learning_rate, rel=1e-12)
        assert schedule.outlasts_plateau(0.1, moment) == (theirs.learning_rate > 1e-6)


def test_adaptive_ends_where_the_rate_would_fall_to_its_minimum():
    schedule = Adaptive(divisor=2.0, min_learning_rate=0.125)
    outlasted = [schedule.outlasts_plateau(1.0, Moment(n_plateaus=n)) for n in range(5)]
    assert outlasted == [True, True, True, False, False]


@pytest.mark.parametrize("name", [name for name in SCHEDULES if name != "adaptive"])
def test_only_adaptive_outlasts_a_plateau(name):
    assert not SCHEDULES[name]().outlasts_plateau(1.0, Moment())


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize(
    ("warmup_time", "per", "duration"), [(1, "epoch", UPDATES), (3, "epoch", 3 * UPDATES), (10, "update", 10)]
)
def test_warm_up_goes_around_any_schedule(name, warmup_time, per, duration):
    inner = SCHEDULES[name]()
    for given in (name, inner):
        schedule = resolve_schedule(WarmUp(given, warmup_time=warmup_time, initial_factor=0.2, per=per))
        assert schedule.interval == "update"
        for moment in run(n_plateaus=1):
            share = min(1.0, (moment.update + 1) / duration)
            assert schedule.factor(moment) == pytest.approx((0.2 + 0.8 * share) * inner.factor(moment), rel=1e-12)
        assert schedule.outlasts_plateau(1.0, Moment()) == inner.outlasts_plateau(1.0, Moment())


@pytest.mark.parametrize("name", SCHEDULES)
def test_shortest_runs_have_a_rate(name):
    schedule = SCHEDULES[name]()
    for max_iter, updates_per_epoch in itertools.product([1, 2, 3], [1, 2, 10]):
        for update in range(max_iter * updates_per_epoch):
            factor = schedule.factor(Moment(update // updates_per_epoch, update, updates_per_epoch, max_iter, update * BATCH))
            assert 0.0 <= factor <= 1.0


def test_one_cycle_whose_peak_is_the_first_update():
    # A share of the updates that is one update: there is no way up.
    factors = [OneCycle(warmup_fraction=0.25).factor(Moment(update=update, max_iter=4)) for update in range(4)]
    assert factors[0] == 1.0
    assert factors == sorted(factors, reverse=True)


def test_moments_measure_time_in_both_units():
    moment = Moment(epoch=3, update=25, updates_per_epoch=8, max_iter=10)
    assert (moment.time("epoch"), moment.time("update")) == (3, 25)
    assert (moment.end("epoch"), moment.end("update")) == (10, 80)


@pytest.mark.parametrize(
    ("boundaries", "factors"),
    [
        ((10, 5), (1.0, 0.5, 0.1)),
        ((10, 10), (1.0, 0.5, 0.1)),
        ((10,), (1.0,)),
        ((10,), (1.0, 0.5, 0.1)),
        ((10,), (1.0, 0.0)),
        ((10,), (1.0, -0.5)),
        ((10,), (1.0, math.nan)),
        ((10,), (1.0, math.inf)),
        ((10,), ("a", "b")),
        (("a",), (1.0, 0.5)),
        ((math.nan,), (1.0, 0.5)),
        (10, (1.0, 0.5)),
        ((10,), 1.0),
        (None, None),
    ],
    ids=str,
)
def test_piecewise_constant_checks_its_sequences(boundaries, factors):
    with pytest.raises(ValueError, match=r"PiecewiseConstant.*(boundaries|factors)|(boundaries|factors).*PiecewiseConstant"):
        resolve_schedule(PiecewiseConstant(boundaries, factors))


@pytest.mark.parametrize("inner", ["expo", None, 0.1, Cosine, Exponential(2.0)], ids=str)
def test_warm_up_checks_what_it_warms_up(inner):
    with pytest.raises(ValueError, match=r"WarmUp\.schedule|'decay_rate' parameter of Exponential"):
        resolve_schedule(WarmUp(inner))


@pytest.mark.parametrize("number", [0.1, 1, np.float32(0.1)], ids=name_of)
def test_number_is_told_where_rates_go(number):
    with pytest.raises(ValueError, match=r"learning_rate=.*names the schedule; set learning_rate_init="):
        resolve_schedule(number)


def test_none_is_told_of_constant():
    with pytest.raises(ValueError, match=r"learning_rate must not be None; .*'constant'"):
        resolve_schedule(None)
