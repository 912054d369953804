"""Every wrong parameter is refused in `fit`, by an error that names it, its value and what would be right."""

import re

import numpy as np
import pytest
import torch
from naming import name_of
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.preprocessing import StandardScaler

from skdnn import MLPDeepClassifier, MLPDeepRegressor, components
from skdnn._resolution import Techniques
from skdnn.components import (
    ELU,
    L1,
    L1L2,
    SGD,
    Adam,
    BatchNorm,
    ClipNorm,
    ClipValue,
    Cosine,
    Exponential,
    Glorot,
    He,
    Huber,
    LeakyReLU,
    MaxNorm,
    Momentum,
    Normal,
    PiecewiseConstant,
    Poisson,
    Quantile,
    TorchOptimizer,
    Uniform,
    WarmUp,
)

RANDOM = np.random.RandomState(0)
X = RANDOM.normal(size=(40, 3))
Y = (X[:, 0] > 0).astype(int)

CATALOGUES = {
    "activation": ("relo", "relu", components.ACTIVATIONS),
    "initializer": ("he_norml", "he_normal", components.INITIALIZERS),
    "regularizer": ("l1l2", "l1_l2", components.REGULARIZERS),
    "max_norm": ("maxnorm", "max_norm", components.CONSTRAINTS),
    "optimizer": ("nesterow", "nesterov", components.OPTIMIZERS),
    "learning_rate": ("exponental", "exponential", components.SCHEDULES),
    "gradient_clipping": ("norn", "norm", components.CLIPPINGS),
}
CATALOGUES_OF = {
    MLPDeepClassifier: CATALOGUES,
    MLPDeepRegressor: CATALOGUES | {"loss": ("squared_eror", "squared_error", components.REGRESSION_LOSSES)},
}

# For each parameter, values that it cannot have: of a wrong type, out of range, and what looks right but is not.
BAD = {
    "hidden_layer_sizes": [0, -1, (10, 0), (10, 2.5), 3.0, "100", None, True, (True,), ((10,), 10), {10: 10}, (10, None)],
    "activation": [None, 1, ELU, Adam(), ELU(alpha=0.0), LeakyReLU(alpha=1.0), LeakyReLU("0.1"), torch.nn.PReLU()],
    "initializer": [
        None,
        0.1,
        He,
        ELU(),
        He(gain=0.0),
        Glorot("gaussian"),
        Glorot(gain="relu"),
        Normal(-1.0),
        Uniform(1.0, 0.0),
    ],
    "batch_norm": ["yes", 1, 0.9, BatchNorm, BatchNorm(momentum=1.0), BatchNorm(momentum=-0.1), BatchNorm(epsilon=0.0)],
    "dropout": [-0.1, 1.0, 1, 2, np.nan, "0.5", None, True, {0.5}],
    "input_dropout": [-0.1, 1.0, np.nan, "0.5", None, True, (0.5,)],
    "regularizer": [0.01, L1, Adam(), L1(-1.0), L1("1"), L1L2(l2=-1e-3), L1(np.nan), True],
    "max_norm": [0, 0.0, -1.0, np.nan, True, MaxNorm, MaxNorm(0.0), MaxNorm(axis="rows"), MaxNorm(np.nan), L1()],
    "optimizer": [
        None,
        1,
        Adam,
        ELU(),
        Momentum(1.0),
        Momentum(-0.5),
        Momentum("0.9"),
        Adam(beta_1=1.0),
        torch.optim.LBFGS,
        torch.optim.SGD([torch.zeros(1)], lr=0.1),
        TorchOptimizer(torch.optim.SGD, lr=0.1),
        TorchOptimizer(torch.optim.SGD, momentun=0.9),
        TorchOptimizer(torch.optim.Adam, betas=(2.0, 0.9)),
        TorchOptimizer("adam"),
        torch.nn.Linear,
    ],
    "learning_rate_init": [0, 0.0, -0.1, np.nan, np.inf, "0.1", None, "constant"],
    "learning_rate": [
        None,
        0.01,
        1,
        Cosine,
        Exponential(decay_rate=0.0),
        Exponential(per="step"),
        WarmUp("cosin"),
        Adam(),
        PiecewiseConstant(boundaries=(2, 1), factors=(1.0, 0.5, 0.1)),
        PiecewiseConstant(boundaries=(2,), factors=(1.0,)),
    ],
    "gradient_clipping": [0, 0.0, -1.0, np.nan, True, ClipNorm, ClipNorm(0.0), ClipValue(-1.0), Adam()],
    "batch_size": [0, -1, 2.5, 32.0, "full", None, np.nan],
    "max_iter": [0, -1, 2.5, "10", None, np.inf],
    "shuffle": ["yes", 2, None],
    "early_stopping": ["yes", 2, None, 0.1],
    "validation_fraction": [0.0, 1.0, -0.1, 2, "0.1", None, np.nan],
    "n_iter_no_change": [0, -1, 2.5, "10", None, np.nan],
    "tol": [-1e-4, "0", None, np.nan, np.inf],
    "monitor": ["accurate", None, 1.0, ["accuracy"], True],
    "warm_start": ["yes", 2, None],
    "device": ["cuda:99", "gpu", "tpu0", 1.5, None, [], "meta"],
    "dtype": ["float16", "double", np.float32, torch.float32, None, 32],
    "callbacks": ["print", 3, print, [3], ["print"]],
    "random_state": ["seed", -1, 1.5, [1, 2]],
    "verbose": ["yes", -1, None, 1.5],
}
BAD_OF = {
    MLPDeepClassifier: BAD
    | {
        "label_smoothing": [1.0, -0.1, "0.1", None, np.nan],
        "class_weight": [
            "balance",
            1.0,
            True,
            (1.0, 2.0),
            {0: -1.0},
            {0: np.nan},
            {1: np.inf},
            {0: "2"},
            {2: 1.0},
            {0: 0.0, 1: 0},
            [{0: 1.0, 1: 2.0}],
        ],
    },
    MLPDeepRegressor: BAD
    | {
        "loss": [
            None,
            1,
            True,
            Huber,
            Adam(),
            ["huber"],
            Huber(0.0),
            Huber(np.inf),
            Huber("1"),
            Quantile(0.0),
            Quantile(1),
            Quantile(()),
            Quantile((0.5, 1.0)),
            Quantile("0.5"),
            components.RegressionLoss,
            torch.nn.MSELoss(),
            torch.nn.functional.mse_loss,
        ],
        "standardize_target": ["yes", 2, None, 1.0, StandardScaler()],
    },
}

# Values at the edge of what is allowed, and unusual types of right values.
GOOD = {
    "hidden_layer_sizes": [(), [], 5, [5], np.array([5, 4]), np.int64(5), (1,)],
    "activation": [torch.sin, torch.nn.Tanh, torch.nn.Hardtanh(), ["relu"], ("elu",), np.array(["tanh"])],
    "initializer": ["zeros", ["zeros"], ["he_normal", "zeros"], torch.nn.init.ones_, Glorot(gain="auto")],
    "batch_norm": [True, BatchNorm(momentum=0.0), BatchNorm(output=True), np.True_],
    "dropout": [0, 0.0, [0.5], (0,), np.float32(0.5), np.array([0.5])],
    "input_dropout": [0, 0.0, 0.9, np.float64(0.1)],
    "regularizer": [None, L1(0.0), [None], ["l1", None], [None, L1L2()]],
    "max_norm": [None, 1, np.inf, "max_norm", [1.0], [None, 1.0], MaxNorm(axis="outgoing"), np.float32(1.0)],
    "optimizer": [Momentum(0.0), torch.optim.SGD, TorchOptimizer(torch.optim.SGD, momentum=0.9, nesterov=True)],
    "learning_rate_init": [1, 1e-300, np.float32(0.1)],
    "learning_rate": [WarmUp(Cosine(), warmup_time=100), PiecewiseConstant([1], [1, 0.5])],
    "gradient_clipping": [None, 1, "norm", "value", ClipValue(), np.float32(1.0)],
    "batch_size": ["auto", 1, 10_000, np.int64(7)],
    "max_iter": [1, np.int64(1)],
    "shuffle": [False, np.False_],
    "early_stopping": [True, np.True_],
    "validation_fraction": [0.5, np.float32(0.5)],
    "n_iter_no_change": [1, np.inf, 10_000],
    "tol": [0, 0.0],
    "monitor": ["auto", "loss", np.str_("loss")],
    "warm_start": [True, np.True_],
    "device": ["auto", "cpu", torch.device("cpu")],
    "dtype": ["auto", "float32", "float64"],
    "callbacks": [None, [], ()],
    "random_state": [None, 0, 2**32 - 1, np.random.RandomState(0)],
    "verbose": [0, 1, True],
}
GOOD_OF = {
    MLPDeepClassifier: GOOD
    | {
        "label_smoothing": [0, 0.5, np.float32(0.1)],
        "class_weight": [None, "balanced", {}, {0: 2}, {0: 0, 1: np.float32(0.5)}],
    },
    MLPDeepRegressor: GOOD
    | {
        "loss": [
            np.str_("huber"),
            Huber(1),
            Huber(np.float32(0.5)),
            Poisson(),
            Quantile(np.float32(0.5)),
            Quantile([0.5]),
            Quantile(np.array([0.1, 0.9])),
        ],
        "standardize_target": [False, np.True_],
    },
}


def make(cls=MLPDeepClassifier, /, **params):
    return cls(**{"hidden_layer_sizes": (5,), "max_iter": 1, "n_iter_no_change": 1, **params})


def predictions(estimator):
    return (estimator.predict_proba if isinstance(estimator, MLPDeepClassifier) else estimator.predict)(X)


def cases(tables):
    return [
        pytest.param(cls, name, value, id=f"{cls.__name__}-{name}-{name_of(repr(value))}")
        for cls, table in tables.items()
        for name, values in table.items()
        for value in values
    ]


@pytest.mark.parametrize("cls", BAD_OF)
def test_every_parameter_has_its_cases(cls):
    assert set(BAD_OF[cls]) == set(GOOD_OF[cls]) == set(cls().get_params(deep=False))


@pytest.mark.parametrize(("cls", "name", "value"), cases(BAD_OF))
def test_bad_value_is_refused(cls, name, value):
    estimator = make(cls, **{name: value})  # __init__ only stores
    with pytest.raises((ValueError, TypeError)) as caught:
        estimator.fit(X, Y)
    message = str(caught.value)
    # A component's own parameter is named by the component: "The 'alpha' parameter of ELU must be ...".
    owner = type(value).__name__
    assert name in message or owner in message, message
    assert len(message) > 30
    assert not hasattr(estimator, "coefs_")


@pytest.mark.parametrize(("cls", "name", "value"), cases(GOOD_OF))
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_good_value_is_taken(cls, name, value):
    estimator = make(cls, **{name: value}).fit(X, Y)
    assert np.isfinite(predictions(estimator)).all()
    assert estimator.get_params(deep=False)[name] is value  # and left as it was given


@pytest.mark.parametrize(
    ("cls", "name", "catalogue"),
    [(cls, name, catalogue) for cls, table in CATALOGUES_OF.items() for name, catalogue in table.items()],
)
def test_unknown_name_gets_the_nearest_one_and_all_others(cls, name, catalogue):
    wrong, nearest, table = catalogue
    with pytest.raises(ValueError, match=re.escape(f"{name}={wrong!r} is not known; did you mean {nearest!r}?")) as caught:
        make(cls, **{name: wrong}).fit(X, Y)
    assert all(repr(known) in str(caught.value) for known in table)


@pytest.mark.parametrize("name", CATALOGUES_OF[MLPDeepRegressor])
def test_name_with_nothing_near_is_refused_without_a_guess(name):
    cls = MLPDeepClassifier if name in CATALOGUES else MLPDeepRegressor
    with pytest.raises(ValueError, match=f"{name}='qqqqqqqq' is not known. Known: '"):
        make(cls, **{name: "qqqqqqqq"}).fit(X, Y)


@pytest.mark.parametrize(("wrong", "nearest"), [("ReLU", "relu"), ("Leaky-ReLU", "leaky_relu"), ("leaky relu", "leaky_relu")])
def test_other_spellings_of_a_name_are_understood_in_the_hint(wrong, nearest):
    with pytest.raises(ValueError, match=f"did you mean '{nearest}'"):
        make(activation=wrong).fit(X, Y)


@pytest.mark.parametrize(
    ("name", "cls"),
    [
        ("activation", ELU),
        ("initializer", He),
        ("regularizer", L1),
        ("max_norm", MaxNorm),
        ("optimizer", SGD),
        ("learning_rate", Cosine),
        ("gradient_clipping", ClipNorm),
        ("batch_norm", BatchNorm),
        ("loss", Huber),
    ],
)
def test_a_class_in_place_of_an_object_is_told_apart(name, cls):
    estimator = make(MLPDeepRegressor, **{name: cls})
    with pytest.raises(ValueError, match=rf"{name}.*{cls.__name__}"):
        estimator.fit(X, Y)
    if name != "batch_norm":
        with pytest.raises(ValueError, match=rf"{name}={cls.__name__} is a class; pass an object of it: {cls.__name__}\(\)"):
            estimator.fit(X, Y)


# one a layer --------------------------------------------------------------------------------------------------------------

PER_LAYER = {"activation": "relu", "dropout": 0.1, "initializer": "auto", "regularizer": "l1", "max_norm": 1.0}
TAKES_OUTPUT_LAYER = {"initializer", "regularizer", "max_norm"}


@pytest.mark.parametrize(("name", "entry"), PER_LAYER.items())
@pytest.mark.parametrize("n_hidden", [0, 1, 3])
def test_lists_have_one_entry_a_layer(name, entry, n_hidden):
    for length in range(6):
        clf = make(hidden_layer_sizes=(4,) * n_hidden, **{name: [entry] * length})
        if length == n_hidden or (length == n_hidden + 1 and name in TAKES_OUTPUT_LAYER):
            assert np.isfinite(clf.fit(X, Y).predict_proba(X)).all()
        else:
            with pytest.raises(ValueError, match=rf"{name} has {length} entr.* must have {n_hidden} \(one a hidden layer\)"):
                clf.fit(X, Y)


@pytest.mark.parametrize("name", PER_LAYER)
def test_a_bad_entry_of_a_list_is_named_by_its_place(name):
    bad = [PER_LAYER[name], "nonsense"]
    with pytest.raises(ValueError, match=re.escape(f"{name}[1]")):
        make(hidden_layer_sizes=(4, 4), **{name: bad}).fit(X, Y)


# messages that say what to do ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"learning_rate": 0.01}, "set learning_rate_init=0.01"),
        ({"device": "cuda:99"}, r"device='cuda:99' cannot be used here.* Available: 'auto', 'cpu'"),
        ({"optimizer": torch.optim.Adam([torch.zeros(1)])}, "pass the class, or TorchOptimizer"),
        ({"optimizer": torch.optim.LBFGS}, "LBFGS.*closure"),
        ({"optimizer": TorchOptimizer(torch.optim.SGD, lr=1.0)}, "learning_rate_init"),
        ({"activation": None}, "'identity'"),
        ({"activation": torch.nn.PReLU()}, "parameters of its own"),
        ({"activation": torch.sum}, "must keep the shape"),
        ({"initializer": lambda kernel: np.zeros(3)}, r"must return an array of shape \(5, 3\)"),
        ({"learning_rate": None}, "'constant'"),
        ({"batch_size": 1, "batch_norm": True}, "batch_norm needs batches of at least 2 rows, but batch_size=1"),
        ({"hidden_layer_sizes": (10, 0)}, r"hidden_layer_sizes .*\[1, inf\).*Got \(10, 0\)"),
    ],
)
def test_message_says_what_to_do(params, message):
    with pytest.raises(ValueError, match=message):
        make(**params).fit(X, Y)


def test_validation_rows_that_cannot_be_had_are_explained():
    with pytest.raises(ValueError, match=r"early_stopping=True cannot set aside validation_fraction=0\.9 of 2 rows"):
        make(early_stopping=True, validation_fraction=0.9).fit(X[:2], [0, 1])


@pytest.mark.parametrize("method", ["predict", "predict_proba", "predict_log_proba", "decision_function"])
def test_prediction_before_fit_is_refused(method):
    with pytest.raises(NotFittedError, match="not fitted yet"):
        getattr(make(), method)(X)


def test_fitted_attributes_are_missing_before_fit():
    clf = make()
    for name in ("coefs_", "intercepts_", "module_", "net_", "loss_", "classes_", "n_iter_"):
        assert not hasattr(clf, name)
        with pytest.raises(AttributeError, match=name):
            getattr(clf, name)


@pytest.mark.parametrize(
    ("cls", "name", "value"), [(cls, name, values[0]) for cls, table in BAD_OF.items() for name, values in table.items()]
)
def test_a_refused_parameter_leaves_the_fitted_network(cls, name, value):
    estimator = make(cls, random_state=0).fit(X, Y)
    expected = predictions(estimator)
    with pytest.raises((ValueError, TypeError)):
        estimator.set_params(**{name: value}).fit(X + 1.0, 3 * Y[::-1])
    np.testing.assert_array_equal(predictions(estimator), expected)


# batches of one row -------------------------------------------------------------------------------------------------------


def test_one_row_under_batch_norm_is_refused():
    with pytest.raises(ValueError, match=r"1 sample|only one class"):
        make(batch_norm=True).fit(X[:1], Y[:1])


@pytest.mark.parametrize("optimizer", ["adam", torch.optim.Adam])
@pytest.mark.parametrize(("batch_size", "n_rows"), [(2, 5), (13, 40), (39, 40), (3, 4)])
def test_a_last_batch_of_one_row_joins_the_one_before(batch_size, n_rows, optimizer):
    assert n_rows % batch_size == 1
    clf = make(batch_norm=True, batch_size=batch_size, max_iter=3, n_iter_no_change=3, optimizer=optimizer)
    clf.fit(X[:n_rows], np.arange(n_rows) % 2)
    assert np.isfinite(clf.predict_proba(X)).all()
    assert clf.t_ == 3 * n_rows


@pytest.mark.parametrize("batch_size", [1, 13])
def test_batches_of_one_row_are_fine_without_batch_norm(batch_size):
    assert np.isfinite(make(batch_size=batch_size).fit(X, Y).predict_proba(X)).all()


# divergence ---------------------------------------------------------------------------------------------------------------

DIVERGENT = {
    "rate": ({"optimizer": "sgd", "learning_rate_init": 1e6}, 1e3),
    "rate_deep": ({"optimizer": "sgd", "learning_rate_init": 1e6, "hidden_layer_sizes": (10,) * 4}, 1e3),
    "momentum": ({"optimizer": "momentum", "learning_rate_init": 1e6}, 1.0),
    "features_sgd": ({"optimizer": "sgd"}, 1e30),
    "features_adam": ({}, 1e30),
    "features_early_stopping": ({"early_stopping": True, "validation_fraction": 0.25}, 1e30),
    "penalty": ({"optimizer": "sgd", "regularizer": L1L2(l2=1e4), "learning_rate_init": 1e6}, 1.0),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("params", "scale"), DIVERGENT.values(), ids=DIVERGENT)
def test_divergence_ends_with_finite_weights_and_advice(params, scale, dtype):
    rows = (X * scale).astype(dtype)
    clf = make(max_iter=30, n_iter_no_change=30, random_state=0).set_params(**params)
    with pytest.warns(ConvergenceWarning, match=r"learning_rate_init=[\d.e+]+.*[Ss]cal") as caught:
        clf.fit(rows, Y)
    assert len(caught) == 1
    assert all(np.isfinite(array).all() for array in clf.coefs_ + clf.intercepts_)
    assert all(torch.isfinite(tensor).all() for tensor in clf.module_.state_dict().values())
    for predicted in (clf.predict_proba(rows), clf.predict_proba(X.astype(dtype)), clf.decision_function(rows)):
        assert not np.isnan(predicted).any()


def test_batch_norm_takes_features_of_any_size():
    rows = X * 1e30
    clf = make(batch_norm=True, optimizer="sgd", learning_rate_init=0.1, max_iter=30, n_iter_no_change=30, random_state=0)
    losses = clf.fit(rows, Y).loss_curve_
    assert losses[-1] < 0.95 * losses[0]
    assert np.isfinite(clf.predict_log_proba(rows)).all()


def test_divergence_keeps_the_best_epoch_and_says_which():
    class Burst(components.Schedule):
        """A rate that explodes in the fourth epoch."""

        def factor(self, moment):
            return 1e300 if moment.epoch == 3 else 1.0

    clf = make(max_iter=10, n_iter_no_change=10, optimizer="sgd", learning_rate=Burst(), random_state=0)
    with pytest.warns(ConvergenceWarning, match="diverged in epoch 4.*those of epoch 3"):
        clf.fit(X, Y)
    assert (clf.n_iter_, clf.best_epoch_) == (4, 3)
    assert clf.loss_ == clf.loss_curve_[2]
    expected = clone(clf).set_params(max_iter=3, n_iter_no_change=3).fit(X, Y)
    for array, other in zip(clf.coefs_, expected.coefs_, strict=True):
        np.testing.assert_array_equal(array, other)


def test_scaled_features_and_a_sound_rate_give_no_warning():
    # Warnings are errors here: this is the oracle that the warnings above are not given to everyone.
    make(max_iter=30, n_iter_no_change=30, optimizer="sgd", learning_rate_init=0.1).fit(StandardScaler().fit_transform(X), Y)


def test_an_early_end_is_told_with_a_remedy():
    with pytest.warns(ConvergenceWarning, match="max_iter=2 .*Raise max_iter, or set n_iter_no_change=max_iter"):
        make(max_iter=2).fit(X, Y)


class OfOtherDefaults(MLPDeepClassifier):
    """A user's class, with parameters and defaults of its own."""

    def __init__(self, n_units=4, max_iter=0):
        super().__init__((n_units,), max_iter=max_iter)
        self.n_units = n_units


def test_defaults_of_a_users_class_are_checked():
    for _ in range(2):
        with pytest.raises(ValueError, match="max_iter"):
            OfOtherDefaults().fit(X, Y)
    assert OfOtherDefaults(max_iter=1).fit(X, Y).n_iter_ == 1


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_value_that_is_equal_to_a_sound_one_is_checked_all_the_same():
    sound = {"max_iter": 1, "shuffle": True, "hidden_layer_sizes": (2,), "dropout": 0.0, "batch_norm": True}
    MLPDeepClassifier(**sound).fit(X, Y)
    MLPDeepClassifier(**sound | {"hidden_layer_sizes": (1, 2), "batch_norm": False}).fit(X, Y)
    others = [
        ("max_iter", 1.0),
        ("shuffle", 1.0),
        ("hidden_layer_sizes", (2.0,)),
        ("hidden_layer_sizes", (True, 2)),
        ("dropout", False),
        ("batch_norm", 1),
    ]
    for name, value in others:
        with pytest.raises(ValueError, match=name):
            MLPDeepClassifier(**sound | {name: value}).fit(X, Y)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_techniques_of_names_are_made_once(monkeypatch):
    made, make = [], Techniques.__init__
    monkeypatch.setattr(Techniques, "__init__", lambda own, **params: made.append(params) or make(own, **params))
    params = {"hidden_layer_sizes": (3, 7), "activation": "mish", "max_iter": 1}
    coefs = [MLPDeepClassifier(**params, random_state=seed).fit(X, Y).coefs_ for seed in (0, 1, 0)]
    assert len(made) == 1
    assert all(np.array_equal(*pair) for pair in zip(coefs[0], coefs[2], strict=True))
    for _ in range(2):  # an object may change in the meantime
        MLPDeepClassifier(**params, optimizer=SGD()).fit(X, Y)
    assert len(made) == 3
