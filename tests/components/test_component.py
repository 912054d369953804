"""What holds for every component of every catalogue."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from naming import name_of
from sklearn.base import clone
from sklearn.model_selection import ParameterGrid

import skdnn.components
from skdnn.components import (
    ACTIVATIONS,
    CLIPPINGS,
    CONSTRAINTS,
    ELU,
    INITIALIZERS,
    L1,
    L1L2,
    L2,
    OPTIMIZERS,
    REGRESSION_LOSSES,
    REGULARIZERS,
    SCHEDULES,
    SGD,
    Activation,
    AdaGrad,
    Adam,
    Adamax,
    AdamW,
    Adaptive,
    AMSGrad,
    BatchNorm,
    ClipNorm,
    ClipValue,
    Component,
    Constant,
    Constraint,
    Cosine,
    Exponential,
    Glorot,
    GradientClipping,
    He,
    Huber,
    Initializer,
    InvScaling,
    LeakyReLU,
    LeCun,
    MaxNorm,
    Momentum,
    NAdam,
    Nesterov,
    Normal,
    OneCycle,
    Optimizer,
    Orthogonal,
    PiecewiseConstant,
    Power,
    Quantile,
    RegressionLoss,
    Regularizer,
    ReLU,
    RMSProp,
    Schedule,
    Tanh,
    Uniform,
    WarmUp,
)
from skdnn.components._component import resolve, stack
from skdnn.components.activations import resolve_activation
from skdnn.components.clipping import resolve_clipping
from skdnn.components.constraints import resolve_max_norm
from skdnn.components.initializers import resolve_initializer
from skdnn.components.losses import resolve_regression_loss
from skdnn.components.normalization import resolve_batch_norm
from skdnn.components.optimizers import resolve_optimizer
from skdnn.components.regularizers import resolve_regularizer
from skdnn.components.schedules import resolve_schedule
from skdnn.exceptions import InvalidParameterError


def resolve_initializer_of_relu(spec):
    return resolve_initializer(spec, ReLU())


# The parameter of the estimators, and: the catalogue, what its entries extend, the function that resolves, a misspelt name
# and the one that is meant.
CATALOGUES = {
    "activation": (ACTIVATIONS, Activation, resolve_activation, "relo", "relu"),
    "initializer": (INITIALIZERS, Initializer, resolve_initializer_of_relu, "he-normal", "he_normal"),
    "regularizer": (REGULARIZERS, Regularizer, resolve_regularizer, "l1l2", "l1_l2"),
    "max_norm": (CONSTRAINTS, Constraint, resolve_max_norm, "maxnorm", "max_norm"),
    "gradient_clipping": (CLIPPINGS, GradientClipping, resolve_clipping, "values", "value"),
    "optimizer": (OPTIMIZERS, Optimizer, resolve_optimizer, "AdamW", "adamw"),
    "learning_rate": (SCHEDULES, Schedule, resolve_schedule, "one cycle", "one_cycle"),
    "loss": (REGRESSION_LOSSES, RegressionLoss, resolve_regression_loss, "squared-error", "squared_error"),
}
DEFAULTS = [make() for table, *_ in CATALOGUES.values() for make in table.values()] + [BatchNorm()]

# Each class that has parameters, with none at its default.
VARIED = [
    LeakyReLU(0.2),
    ELU(0.5),
    Glorot("normal", gain="auto"),
    He("uniform", gain=2.0),
    LeCun("uniform", gain=0.5),
    Orthogonal(gain="auto"),
    Normal(0.1, 1.0),
    Uniform(-1.0, 2.0),
    L1(0.25),
    L2(0.0),
    L1L2(0.0, 1e-5),
    MaxNorm(3.0, axis="outgoing"),
    ClipNorm(5.0),
    ClipValue(0.5),
    Momentum(0.5),
    Nesterov(0.0),
    AdaGrad(0.1, 1e-7),
    RMSProp(0.99, 1e-7),
    Adam(0.8, 0.99, 1e-7),
    AdamW(0.8, 0.99, 1e-7, 0.1),
    AMSGrad(0.8, 0.99, 1e-7),
    NAdam(0.8, 0.99, 1e-7, 0.0),
    Adamax(0.8, 0.99, 1e-7),
    InvScaling(0.25),
    Adaptive(2.0, 1e-4),
    Exponential(0.5, 7, per="update"),
    Power(2.0, 7, per="update"),
    PiecewiseConstant((10, 20), (1.0, 0.1, 0.01), per="update"),
    Cosine(0.1, per="epoch"),
    OneCycle(0.5, 0.1, 0.01),
    WarmUp(Cosine(final_factor=0.1), warmup_time=2, initial_factor=0.5, per="update"),
    Huber(0.5),
    Quantile((0.1, 0.5, 0.9)),
    BatchNorm(0.99, 1e-3, output=True),
]

# What each numeric parameter may be; the other parameters are listed under them.
RANGES = {
    (LeakyReLU, "alpha"): "[0, 1)",
    (ELU, "alpha"): "(0, inf)",
    (Glorot, "gain"): "(0, inf)",
    (He, "gain"): "(0, inf)",
    (LeCun, "gain"): "(0, inf)",
    (Orthogonal, "gain"): "(0, inf)",
    (Normal, "stddev"): "(0, inf)",
    (Normal, "mean"): "(-inf, inf)",
    (Uniform, "minval"): "(-inf, inf)",
    (Uniform, "maxval"): "(-inf, inf)",
    (L1, "l1"): "[0, inf)",
    (L2, "l2"): "[0, inf)",
    (L1L2, "l1"): "[0, inf)",
    (L1L2, "l2"): "[0, inf)",
    (MaxNorm, "max_value"): "(0, inf)",
    (ClipNorm, "max_norm"): "(0, inf)",
    (ClipValue, "value"): "(0, inf)",
    (Momentum, "momentum"): "[0, 1)",
    (Nesterov, "momentum"): "[0, 1)",
    (AdaGrad, "initial_accumulator_value"): "[0, inf)",
    (AdaGrad, "epsilon"): "(0, inf)",
    (RMSProp, "rho"): "[0, 1)",
    (RMSProp, "epsilon"): "(0, inf)",
    **{(adam, beta): "[0, 1)" for adam in (Adam, AdamW, AMSGrad, NAdam, Adamax) for beta in ("beta_1", "beta_2")},
    **{(adam, "epsilon"): "(0, inf)" for adam in (Adam, AdamW, AMSGrad, NAdam, Adamax)},
    (AdamW, "weight_decay"): "[0, inf)",
    (NAdam, "momentum_decay"): "[0, inf)",
    (InvScaling, "power"): "[0, inf)",
    (Adaptive, "divisor"): "(1, inf)",
    (Adaptive, "min_learning_rate"): "(0, inf)",
    (Exponential, "decay_rate"): "(0, 1]",
    (Exponential, "decay_time"): "int [1, inf)",
    (Power, "power"): "[0, inf)",
    (Power, "decay_time"): "int [1, inf)",
    (Cosine, "final_factor"): "[0, 1]",
    (OneCycle, "warmup_fraction"): "(0, 1)",
    (OneCycle, "initial_factor"): "[0, 1]",
    (OneCycle, "final_factor"): "[0, 1]",
    (WarmUp, "warmup_time"): "int [1, inf)",
    (WarmUp, "initial_factor"): "[0, 1]",
    (Huber, "delta"): "(0, inf)",
    (BatchNorm, "momentum"): "[0, 1)",
    (BatchNorm, "epsilon"): "(0, inf)",
}
CHOICES = {
    **{(scaled, "distribution"): {"uniform", "normal"} for scaled in (Glorot, He, LeCun)},
    (MaxNorm, "axis"): {"incoming", "outgoing"},
    **{(schedule, "per"): {"epoch", "update"} for schedule in (Exponential, Power, PiecewiseConstant, Cosine, WarmUp)},
    (BatchNorm, "output"): {True, False},
}
# Checked in the tests of their own catalogue.
COMPOUND = {(PiecewiseConstant, "boundaries"), (PiecewiseConstant, "factors"), (WarmUp, "schedule"), (Quantile, "quantile")}


def parameters_of(components):
    return {(type(component), name) for component in components for name in component.get_params(deep=False)}


def resolve_any(component):
    if isinstance(component, BatchNorm):
        return resolve_batch_norm(component)
    resolve_one = next(one for _, base, one, *_ in CATALOGUES.values() if isinstance(component, base))
    return resolve_one(component)


def step_outside(interval):
    """The wrong values of an interval, and the right ones at its ends."""
    kind, _, bounds = interval.rpartition("int ")
    is_int = bool(kind) or interval.startswith("int")
    low, high = (float(end) for end in bounds[1:-1].split(","))
    wrong, right = [math.nan, math.inf, -math.inf, "1", None, [0.5]], []
    for end, outward, is_closed in ((low, -math.inf, bounds[0] == "["), (high, math.inf, bounds[-1] == "]")):
        if math.isinf(end):
            continue
        if is_closed:
            right.append(int(end) if is_int else end)
            wrong.append(int(end) - 1 if is_int else math.nextafter(end, outward))
        else:
            wrong.append(end)
            right.append(math.nextafter(end, -outward))
    if is_int:
        wrong.append(1.5)
    return wrong, right


def test_tables_of_this_file_know_every_component():
    assert {type(component) for component in DEFAULTS if component.get_params()} == {type(varied) for varied in VARIED}
    assert set(RANGES) | set(CHOICES) | COMPOUND == parameters_of(VARIED)
    for varied in VARIED:
        defaults = type(varied)().get_params(deep=False)
        assert all(defaults[name] != value for name, value in varied.get_params(deep=False).items())


def test_every_concrete_class_of_the_package_is_in_a_catalogue():
    public = {entry for entry in vars(skdnn.components).values() if isinstance(entry, type) and issubclass(entry, Component)}
    bases = {Component, *(base for _, base, *_ in CATALOGUES.values())}
    made_of_what_users_give = {
        skdnn.components.CallableActivation,
        skdnn.components.CallableInitializer,
        skdnn.components.TorchOptimizer,
    }
    assert public - bases - made_of_what_users_give == {type(component) for component in DEFAULTS}


@pytest.mark.parametrize("component", DEFAULTS + VARIED, ids=name_of)
def test_copies_are_equal_and_apart(component):
    for copied in (clone(component), copy.deepcopy(component), pickle.loads(pickle.dumps(component))):
        assert copied is not component
        assert copied == component
        assert hash(copied) == hash(component)
        assert repr(copied) == repr(component)


@pytest.mark.parametrize("component", DEFAULTS + VARIED, ids=name_of)
def test_repr_evaluates_to_an_equal_object(component):
    # What cv_results_ shows can be pasted back.
    assert eval(repr(component), dict(vars(skdnn.components))) == component


@pytest.mark.parametrize("varied", VARIED, ids=name_of)
def test_parameters_go_round_one_by_one(varied):
    component = type(varied)()
    for name, value in varied.get_params(deep=False).items():
        assert component != varied
        assert component.set_params(**{name: value}) is component
        assert component.get_params(deep=False)[name] is value
    assert component == varied


@pytest.mark.parametrize("varied", VARIED, ids=name_of)
def test_constructor_only_stores(varied):
    given = {name: object() for name in varied.get_params(deep=False)}
    component = type(varied)(**given)
    assert all(getattr(component, name) is value for name, value in given.items())


def test_nested_parameters_are_reached():
    schedule = WarmUp(Exponential(), warmup_time=3)
    assert schedule.get_params()["schedule__decay_rate"] == 0.1
    schedule.set_params(schedule__decay_rate=0.5)
    assert schedule == WarmUp(Exponential(0.5), warmup_time=3)


def test_unknown_parameter_is_named():
    with pytest.raises(ValueError, match=r"'beta'.*'alpha'"):
        ELU().set_params(beta=1.0)


def test_equality_needs_the_same_class():
    assert Adam() != AMSGrad()
    assert Adam() != "adam"
    assert L1(0.1) != L2(0.1)
    assert L1(0.1) != L1(0.2)


@pytest.mark.parametrize("other", [1.0, np.float64(1.0), np.int64(1), np.float32(1.0)], ids=name_of)
def test_equal_numbers_of_another_type_make_equal_components_with_equal_hashes(other):
    # A grid of np.logspace and one of literals must fall into the same group of a table of results.
    assert L1(other) == L1(1)
    assert hash(L1(other)) == hash(L1(1))


def test_arrays_and_tensors_are_compared_by_value():
    assert PiecewiseConstant(np.array([1, 2]), (1.0, 0.5, 0.1)) == PiecewiseConstant(np.array([1, 2]), (1.0, 0.5, 0.1))
    assert PiecewiseConstant(np.array([1, 2]), (1.0, 0.5, 0.1)) != PiecewiseConstant(np.array([1, 3]), (1.0, 0.5, 0.1))
    assert L1(torch.ones(2)) == L1(torch.ones(2))
    assert L1(torch.ones(2)) != L1(torch.zeros(2))


@pytest.mark.parametrize("component", DEFAULTS + VARIED, ids=name_of)
def test_valid_components_resolve_to_themselves(component):
    assert resolve_any(component) is component


@pytest.mark.parametrize(
    ("kind", "name", "interval"), [(*key, interval) for key, interval in RANGES.items()], ids=lambda value: str(value)
)
def test_numeric_parameters_are_checked(kind, name, interval):
    wrong, right = step_outside(interval)
    for value in wrong:
        with pytest.raises(ValueError, match=f"'{name}' parameter of {kind.__name__} must be"):
            resolve_any(kind(**{name: value}))
    for value in right:
        assert resolve_any(kind(**{name: value})) is not None


@pytest.mark.parametrize(("kind", "name", "choices"), [(*key, choices) for key, choices in CHOICES.items()])
def test_choices_are_checked(kind, name, choices):
    for value in ("sideways", None, 7, 0.5):
        with pytest.raises(ValueError, match=f"'{name}' parameter of {kind.__name__} must be"):
            resolve_any(kind(**{name: value}))
    for value in choices:
        assert resolve_any(kind(**{name: value})) is not None


@pytest.mark.parametrize("parameter", CATALOGUES)
def test_names_resolve_to_new_default_objects(parameter):
    table, base, resolve_one, *_ = CATALOGUES[parameter]
    for name, make in table.items():
        first, second = resolve_one(name), resolve_one(name)
        assert isinstance(first, base)
        assert first == make() == second
        assert first is not second
        assert resolve_one(np.str_(name)) == first  # what a grid over an array of names holds


@pytest.mark.parametrize("parameter", CATALOGUES)
def test_unknown_name_gets_the_nearest_and_all_others(parameter):
    table, _, resolve_one, misspelt, meant = CATALOGUES[parameter]
    with pytest.raises(ValueError, match=f"{parameter}='{misspelt}' is not known; did you mean '{meant}'\\?") as caught:
        resolve_one(misspelt)
    assert all(repr(name) in str(caught.value) for name in table)
    with pytest.raises(ValueError, match=f"{parameter}='\\?\\?' is not known\\. Known: "):
        resolve_one("??")


@pytest.mark.parametrize("parameter", CATALOGUES)
def test_class_instead_of_object_is_told_apart(parameter):
    table, _, resolve_one, *_ = CATALOGUES[parameter]
    classes = {type(make()) for make in table.values()}
    for kind in classes:
        with pytest.raises(ValueError, match=f"{parameter}={kind.__name__} is a class; .*{kind.__name__}\\(\\)"):
            resolve_one(kind)


@pytest.mark.parametrize("parameter", CATALOGUES)
@pytest.mark.parametrize("wrong", [True, [1], {"a": 1}, 1j, BatchNorm()], ids=name_of)
def test_wrong_type_is_named(parameter, wrong):
    with pytest.raises(ValueError, match=parameter) as caught:
        CATALOGUES[parameter][2](wrong)
    # Whoever expects scikit-learn's TypeError for a type catches it too.
    assert isinstance(caught.value, TypeError)


def test_resolve_takes_none_and_callables_only_where_documented():
    table = {"relu": ReLU}
    assert resolve(table, Activation, None, parameter="activation") is None
    from_callable = skdnn.components.CallableActivation
    with pytest.raises(InvalidParameterError, match="must be None, a name or a Activation"):
        resolve(table, Activation, torch.sin, parameter="activation")
    made = resolve(table, Activation, torch.sin, parameter="activation", from_callable=from_callable)
    assert made == from_callable(torch.sin)
    with pytest.raises(InvalidParameterError, match="a callable"):
        resolve(table, Activation, 3, parameter="activation", from_callable=from_callable)


@pytest.mark.parametrize("parameter", ["activation", "initializer", "optimizer", "learning_rate", "loss"])
def test_none_is_refused_where_a_network_cannot_do_without(parameter):
    with pytest.raises(ValueError, match=f"{parameter} must not be None"):
        CATALOGUES[parameter][2](None)


@pytest.mark.parametrize("parameter", ["regularizer", "max_norm", "gradient_clipping"])
def test_none_is_none_where_a_technique_is_optional(parameter):
    assert CATALOGUES[parameter][2](None) is None


def test_stack_keeps_what_agrees():
    components = [Adam(0.5), Adam(0.5), Adam(0.5)]
    assert stack(components, lambda values: values.view(-1, 1)) is components[0]


def test_stack_makes_tensors_of_numbers_that_differ():
    stacked = stack([AdamW(beta_1=0.5), AdamW(beta_1=np.float32(0.25)), AdamW(beta_1=0)], lambda values: values.view(-1, 1, 1))
    assert type(stacked) is AdamW
    assert stacked.beta_1.dtype == torch.float64
    assert stacked.beta_1.tolist() == [[[0.5]], [[0.25]], [[0.0]]]
    assert (stacked.beta_2, stacked.epsilon, stacked.weight_decay) == (0.999, 1e-8, 0.01)


@pytest.mark.parametrize(
    ("components", "message"),
    [
        ([Adam(), AMSGrad()], "one class each"),
        ([L1(), None], "one class each"),
        ([MaxNorm(1.0), MaxNorm(2.0, axis="outgoing")], "MaxNorm.axis"),
        # A switch is no number: half of it cannot be on.
        ([BatchNorm(output=True), BatchNorm(output=False)], "BatchNorm.output"),
    ],
    ids=repr,
)
def test_stack_refuses_what_cannot_run_in_lockstep(components, message):
    with pytest.raises(ValueError, match=message):
        stack(components, lambda values: values)


def test_components_are_values_of_a_grid():
    grid = list(ParameterGrid({"activation": ["relu", ELU(), LeakyReLU(0.2)], "optimizer": [SGD(), Momentum(0.5)]}))
    assert len(grid) == 6
    assert len({(point["activation"], point["optimizer"]) for point in grid}) == 6


def test_components_without_parameters_are_equal_by_class():
    assert Tanh() == Tanh()
    assert len({Tanh(), Tanh(), ReLU(), Constant()}) == 3


def test_components_sort_among_names_and_each_other():
    """As the parameter columns of a search's results are sorted to be grouped."""
    column = [skdnn.components.Momentum(0.9), "adam", skdnn.components.Adam(), skdnn.components.Momentum(0.5)]
    assert sorted(column) == sorted(column, key=lambda value: value if isinstance(value, str) else repr(value))
