"""scikit-learn's conformance checks on more configurations, and those that its suite does not run by itself."""

import inspect
import re
import warnings

import numpy as np
import pytest
import sklearn.utils.estimator_checks as estimator_checks
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris
from sklearn.exceptions import SkipTestWarning
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_html_repr, get_tags
from sklearn.utils.estimator_checks import (
    check_all_zero_sample_weights_error,
    check_class_weight_balanced_classifiers,
    check_classifier_multioutput,
    check_classifiers_predictions,
    check_dataframe_column_names_consistency,
    check_estimators_data_not_an_array,
    check_param_validation,
    check_sample_weight_equivalence_on_dense_data,
    check_sample_weight_equivalence_on_sparse_data,
    check_sample_weights_list,
    check_sample_weights_not_an_array,
    check_sample_weights_not_overwritten,
    check_sample_weights_pandas_series,
    check_sample_weights_shape,
    estimator_checks_generator,
)

from skdnn import MLPDeepClassifier, MLPDeepRegressor
from skdnn.components import ELU, L1, L1L2, Adam, BatchNorm, ClipValue, MaxNorm, Momentum, Quantile, WarmUp

CLASSIFIER, REGRESSOR = MLPDeepClassifier, MLPDeepRegressor

# Made in the tests, so that a parameter that is not known fails there.
CONFIGURATIONS = {
    "classifier": (CLASSIFIER, {}),
    "regressor": (REGRESSOR, {}),
    "linear_classifier": (CLASSIFIER, {"hidden_layer_sizes": ()}),
    "linear_regressor": (REGRESSOR, {"hidden_layer_sizes": ()}),
    "small_batches": (CLASSIFIER, {"batch_size": 7, "shuffle": False}),
    "deep": (
        CLASSIFIER,
        {
            "hidden_layer_sizes": (8, 8, 8),
            "activation": ["elu", "selu", ELU(0.5)],
            "gradient_clipping": ClipValue(0.5),
            "learning_rate": WarmUp("cosine"),
            "optimizer": "nadam",
        },
    ),
    "regularised": (
        REGRESSOR,
        {
            "batch_norm": BatchNorm(output=True),
            "dropout": 0.2,
            "input_dropout": 0.1,
            "regularizer": L1L2(),
            "max_norm": MaxNorm(),
        },
    ),
    "label_smoothing": (CLASSIFIER, {"label_smoothing": 0.1}),
    "balanced": (CLASSIFIER, {"class_weight": "balanced"}),
    "absolute_error": (
        REGRESSOR,
        {"loss": "absolute_error", "gradient_clipping": 1.0, "optimizer": Momentum(0.8), "learning_rate": "one_cycle"},
    ),
    "huber": (REGRESSOR, {"loss": "huber", "standardize_target": False}),
    "quantile": (REGRESSOR, {"loss": Quantile(0.9)}),
    # Some checks have ten rows, and one row has no R2.
    "early_stopping": (REGRESSOR, {"early_stopping": True, "validation_fraction": 0.25}),
    "monitor_scorer": (REGRESSOR, {"early_stopping": True, "monitor": "neg_mean_absolute_error"}),
}

# Checks that train until a score is reached: a matter of settings. The suite runs them on the defaults.
LEARNING = {
    "check_class_weight_classifiers",
    "check_classifiers_classes",
    "check_classifiers_train",
    "check_regressors_train",
}
# Integer weights and repeated rows are the same only where a batch is all rows and nothing is drawn for a row or a split.
DRAWS = {"regularised", "small_batches", "early_stopping", "monitor_scorer"}
WEIGHTS_ARE_REPETITIONS = {"check_sample_weight_equivalence_on_dense_data", "check_sample_weight_equivalence_on_sparse_data"}
# partial_fit does not see the rows that "balanced" must count, and says so.
STREAMS = {"check_fit_score_takes_y", "check_n_features_in_after_fitting", "check_estimators_partial_fit_n_features"}

# What scikit-learn's module exports and is for estimators of another kind.
# Those of other array libraries are among them, for both estimators compute in torch and answer in NumPy.
OF_OTHER_KINDS = (
    r"check_(estimator|nonsquare_error|fit_non_negative|outlier\w*|cluster\w*|transformer\w*|\w+_transform(_pandas|_polars)?"
    r"|get_feature_names_out_error|class_weight_balanced_linear_classifier|classifier_not_supporting_multiclass"
    r"|sparsify_coefficients|array_api_(input_and_values|mixed_inputs|same_namespace)|clustering)$"
)
CALLED_ELSEWHERE = {"check_inplace_ensure_writeable"}

SAMPLE_WEIGHT_CHECKS = [
    check_all_zero_sample_weights_error,
    check_sample_weights_list,
    check_sample_weights_not_an_array,
    check_sample_weights_not_overwritten,
    check_sample_weights_pandas_series,
    check_sample_weights_shape,
    check_sample_weight_equivalence_on_dense_data,
    check_sample_weight_equivalence_on_sparse_data,
]


def make(name, **params):
    """Return a small estimator of a configuration that runs few epochs, all of them."""
    cls, settings = CONFIGURATIONS[name]
    return cls(**{"hidden_layer_sizes": (8,), "max_iter": 2, "n_iter_no_change": np.inf, "random_state": 0} | settings | params)


def name_of(check):
    return getattr(check, "func", check).__name__


def yielded(estimator):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SkipTestWarning)
        return [check for _, check in estimator_checks_generator(estimator)]


# the suite ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_every_configuration_keeps_the_contract(name):
    estimator = make(name)
    left_out = LEARNING | {"check_array_api_input"}  # which runs in a process of its own, in another file
    left_out |= WEIGHTS_ARE_REPETITIONS if name in DRAWS else set()
    left_out |= STREAMS if name == "balanced" else set()
    for check in yielded(estimator):
        if name_of(check) not in left_out:
            try:
                check(clone(estimator))
            except Exception as error:
                error.add_note(f"in {name_of(check)} of {name}")
                raise


@pytest.mark.parametrize("name", ["classifier", "regressor"])
def test_the_suite_knows_what_the_estimators_can_do(name):
    # scikit-learn leaves checks out silently where a parameter or a tag is missing.
    names = {name_of(check) for check in yielded(make(name))}
    assert {name_of(check) for check in SAMPLE_WEIGHT_CHECKS} <= names
    assert {"check_estimators_partial_fit_n_features", "check_supervised_y_2d", "check_readonly_memmap_input"} <= names
    tags = get_tags(make(name))
    assert tags.input_tags.sparse
    assert not tags.input_tags.allow_nan
    assert not tags.non_deterministic


def test_no_check_of_scikit_learn_is_forgotten():
    exported = {
        name for name, check in vars(estimator_checks).items() if re.match("check_", name) and inspect.isfunction(check)
    }
    own = {name for name in exported if vars(estimator_checks)[name].__module__ == estimator_checks.__name__}
    run = {name_of(check) for name in ("classifier", "regressor") for check in yielded(make(name))}
    called = {name for name in own if name in globals()}
    left = {name for name in own - run - called - CALLED_ELSEWHERE if not re.match(OF_OTHER_KINDS, name)}
    assert not left


# checks that the suite does not run ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("check", SAMPLE_WEIGHT_CHECKS)
@pytest.mark.parametrize(
    "name", ["classifier", "regressor", "deep", "huber", "balanced", "label_smoothing", "linear_regressor"]
)
def test_weights(name, check):
    # Longer than in the test above: what differs by rounding in the first epochs may differ by more later.
    check(CONFIGURATIONS[name][0].__name__, make(name, max_iter=30))


@pytest.mark.parametrize("params", [{}, {"early_stopping": True}, {"early_stopping": True, "batch_norm": True}])
@pytest.mark.parametrize("name", ["classifier", "regressor"])
def test_column_names_are_compared(name, params):
    # With early stopping, the estimator predicts within fit: no warning of rows without names may come of that.
    check_dataframe_column_names_consistency(CONFIGURATIONS[name][0].__name__, make(name, **params))


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_wrong_parameters_are_named(name):
    check_param_validation(CONFIGURATIONS[name][0].__name__, make(name))


@pytest.mark.parametrize("params", [{}, {"class_weight": "balanced"}, {"label_smoothing": 0.1}, {"batch_norm": True}])
def test_several_labels(params):
    check_classifier_multioutput("MLPDeepClassifier", make("classifier", **params))


@pytest.mark.parametrize("load", [load_breast_cancer, load_iris, load_digits])
@pytest.mark.parametrize("labels", ["numbers", "words", "negative"])
def test_predictions_follow_the_decision_function(load, labels):
    X, y = load(return_X_y=True)
    X, y = StandardScaler().fit_transform(X)[:300], y[:300]
    named = {"numbers": y, "words": np.array([f"class {k}" for k in range(10)])[y], "negative": -y - 1}[labels]
    check_classifiers_predictions(X, named, "MLPDeepClassifier", make("classifier"))


@pytest.mark.parametrize("container", ["NotAnArray", "PandasDataframe"])
@pytest.mark.parametrize("name", ["classifier", "regressor"])
def test_rows_need_not_be_an_array(name, container):
    X, y = (load_iris if name == "classifier" else load_diabetes)(return_X_y=True)
    check_estimators_data_not_an_array(CONFIGURATIONS[name][0].__name__, make(name), X, y, container)


def test_balanced_weights_find_the_rare_class():
    X, y = load_digits(return_X_y=True)
    X, y = StandardScaler().fit_transform(X), (y == 8).astype(int)
    rare = np.flatnonzero((y == 0) | (np.arange(len(y)) % 4 == 0))[:600]
    # The check sets max_iter=1000, of which patience leaves a few.
    clf = make("classifier", hidden_layer_sizes=(), n_iter_no_change=1, tol=0.1, learning_rate_init=0.01)
    check_class_weight_balanced_classifiers("MLPDeepClassifier", clf, X[rare], y[rare], X[900:], y[900:], None)


# every parameter ----------------------------------------------------------------------------------------------------------


def cases():
    return [
        pytest.param(cls, name, id=f"{cls.__name__}-{name}")
        for cls in (CLASSIFIER, REGRESSOR)
        for name in inspect.signature(cls).parameters
    ]


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
@pytest.mark.parametrize(("cls", "name"), cases())
def test_a_senseless_value_is_refused_by_its_parameters_name(cls, name, method):
    X, y = load_iris(return_X_y=True)
    estimator = cls(**{"max_iter": 1, "n_iter_no_change": 1, name: object()})
    arguments = {"classes": [0, 1, 2]} if method == "partial_fit" and cls is CLASSIFIER else {}
    with pytest.raises((ValueError, TypeError), match=rf"\b{name}\b"):
        getattr(estimator, method)(X, y, **arguments)
    assert not hasattr(estimator, "n_features_in_")


@pytest.mark.parametrize(("cls", "name"), cases())
def test_parameters_are_stored_as_they_are_given(cls, name):
    value = object()
    assert getattr(cls(**{name: value}), name) is value
    assert getattr(cls().set_params(**{name: value}), name) is value
    assert cls(**{name: value}).get_params(deep=False)[name] is value


@pytest.mark.parametrize("cls", [CLASSIFIER, REGRESSOR])
def test_an_unknown_parameter_is_refused(cls):
    for name in ("alpha", "solver", "optimizer_"):
        with pytest.raises(ValueError, match=f"Invalid parameter '{name}'"):
            cls().set_params(**{name: 1})
    with pytest.raises(ValueError, match="Invalid parameter 'beta_3' for estimator Adam"):
        cls(optimizer=Adam()).set_params(optimizer__beta_3=0.5)


@pytest.mark.parametrize("cls", [CLASSIFIER, REGRESSOR])
def test_arguments_come_in_scikit_learns_order(cls):
    # MLPClassifier().fit(X, y, weights) and the like pass weights by their place.
    assert list(inspect.signature(cls.fit).parameters) == [
        "self",
        "X",
        "y",
        "sample_weight",
        "X_val",
        "y_val",
        "sample_weight_val",
    ]
    classes = ["classes"] if cls is CLASSIFIER else []
    assert list(inspect.signature(cls.partial_fit).parameters) == ["self", "X", "y", *classes, "sample_weight"]
    assert list(inspect.signature(cls.score).parameters) == ["self", "X", "y", "sample_weight"]


# displays -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_fitted", [False, True])
@pytest.mark.parametrize("cls", [CLASSIFIER, REGRESSOR])
def test_the_display_of_a_notebook_shows_techniques(cls, is_fitted):
    estimator = cls((8,), optimizer=Momentum(0.5), regularizer=[L1(0.25), None], max_iter=1, n_iter_no_change=1)
    if is_fitted:
        estimator.fit(*load_iris(return_X_y=True))
    html = estimator_html_repr(estimator)
    for text in (cls.__name__, "Momentum(momentum=0.5)", "L1(l1=0.25)", "Fitted" if is_fitted else "Not fitted"):
        assert text in html, text
