"""scikit-learn's own tests of its searches, asked of skdnn's.

They are run as they stand in the installed scikit-learn, in copies of its test module in which some names mean other things:
first the searches alone, over scikit-learn's estimators and doubles, and then the estimators, too, as networks that have the
parameters of those they stand in for. Which tests say nothing about networks, or not about networks that train together, say
the tables below, with reasons.
"""

import ast
import functools
import importlib.util
import inspect
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from searches import counted

from skdnn import MLPDeepClassifier, MLPDeepRegressor
from skdnn.components import L2
from skdnn.model_selection import VectorizedGridSearchCV, VectorizedRandomizedSearchCV

PATH = Path(importlib.util.find_spec("sklearn.model_selection").submodule_search_locations[0]) / "tests" / "test_search.py"
if not PATH.exists():
    pytest.skip("scikit-learn's tests are not installed", allow_module_level=True)

# What scikit-learn's tests may warn of is up to scikit-learn.
pytestmark = pytest.mark.filterwarnings("ignore")


# networks that stand in for other estimators ------------------------------------------------------------------------------

# What they do not ask for themselves, they have of the estimator's defaults and these.
TRAINING = {"hidden_layer_sizes": (4,), "max_iter": 3, "n_iter_no_change": np.inf, "learning_rate_init": 0.1}


class _Network:
    """A small network with the parameters of other estimators in place of its own."""

    def __init__(
        self,
        C=1.0,
        *,
        alpha=1.0,
        kernel="rbf",
        gamma="scale",
        degree=3,
        max_depth=None,
        min_samples_split=2,
        max_iter=3,
        foo_param=0,
        parameter=None,
        parama=None,
        fail=False,
        check_X=None,
        check_y=None,
        methods_to_check=(),
        random_state=0,
    ):
        self.C = C
        self.alpha = alpha
        self.kernel = kernel
        self.gamma = gamma
        self.degree = degree
        self.max_depth = max_depth
        self.min_samples_split = min_samples_split
        self.max_iter = max_iter
        self.foo_param = foo_param
        self.parameter = parameter
        self.parama = parama
        self.fail = fail
        self.check_X = check_X
        self.check_y = check_y
        self.methods_to_check = methods_to_check
        self.random_state = random_state

    @property
    def regularizer(self):
        return L2(0.01 * self.alpha / self.C)

    @property
    def dropout(self):
        return 0.0 if self.max_depth is None else 0.1 * self.max_depth

    def fit(self, X, y, sample_weight=None):
        assert self.check_X is None or self.check_X(X)
        assert self.check_y is None or self.check_y(y)
        return super().fit(X, y, sample_weight=sample_weight)


for _name, _parameter in inspect.signature(MLPDeepClassifier).parameters.items():
    if not hasattr(_Network, _name):
        setattr(_Network, _name, TRAINING.get(_name, _parameter.default))


class Classifier(_Network, MLPDeepClassifier):
    pass


class Regressor(_Network, MLPDeepRegressor):
    loss = "squared_error"
    standardize_target = True


class MockClassifier(Classifier):
    """Its score is known beforehand, and it transforms."""

    def score(self, X=None, y=None):
        return float(self.foo_param > 1)

    def decision_function(self, X):
        return self.predict_log_proba(X)

    def transform(self, X):
        return X + self.foo_param

    def inverse_transform(self, X):
        return X - self.foo_param


class FailingClassifier(Classifier):
    """Cannot be fitted with one value of a parameter."""

    FAILING_PARAMETER = 2

    def fit(self, X, y, sample_weight=None):
        if self.parameter == self.FAILING_PARAMETER:
            raise ValueError("Failing classifier failed as required")
        return super().fit(X, y, sample_weight)


STAND_INS = {
    "BrokenClassifier": Classifier,
    "CheckingClassifier": MockClassifier,
    "DecisionTreeClassifier": type("DecisionTreeClassifier", (Classifier,), {}),
    "DecisionTreeRegressor": Regressor,
    "FailingClassifier": FailingClassifier,
    "HistGradientBoostingClassifier": Classifier,
    "LinearSVC": Classifier,
    "LogisticRegression": Classifier,
    "MaxIterEstimator": Regressor,
    "MinimalClassifier": Classifier,
    "MockClassifier": MockClassifier,
    "Ridge": Regressor,
    "SVC": functools.partial(Classifier, max_iter=30),  # some tests want a good fit
}
SEARCHES = {"GridSearchCV": VectorizedGridSearchCV, "RandomizedSearchCV": VectorizedRandomizedSearchCV}

# what is left out, and why ------------------------------------------------------------------------------------------------

NOT_APPLICABLE = {
    "test_array_api_search_cv_classifier": "is about arrays of other libraries, and skipped unless SciPy is told to take them",
}

# Of the searches of networks.
NOT_OF_NETWORKS = {
    "test_SearchCV_with_fit_params": "fit of a network takes weights and validation data, and nothing else",
    "test_custom_run_search": "asks for scores of the same bits, alone and together; see test_search.py",
    "test_grid_search_one_grid_point": "compares attributes of support vector machines",
    "test_grid_search_pipeline_steps": "takes steps of which one only can be a network; see test_search.py",
    "test_grid_search_precomputed_kernel": "a network knows no kernels",
    "test_grid_search_precomputed_kernel_error_nonsquare": "a network knows no kernels",
    "test_gridsearch_nd": "a network's rows have one dimension",
    "test_predict_proba_disabled": "a network always has probabilities",
    "test_search_cv_sample_weight_equivalence": "repeated rows are drawn into other batches, and have other initial draws",
    "test_search_html_repr": "hangs on a network that guesses no better than the most frequent class",
}

# Of them, in which no two networks may train together.
ALONE = {
    **dict.fromkeys(
        [
            "test_grid_search_groups",
            "test_grid_search_score_method",
            "test_multi_metric_search_forwards_metadata",
            "test_score_rejects_params_with_no_routing_enabled",
            "test_search_cv_timing",
            "test_search_cv_verbose_3",
            "test_search_estimator_param",
            "test_trivial_cv_results_attr",
        ],
        "one candidate, or one that can be fitted",
    ),
    **dict.fromkeys(
        [
            "test__custom_fit_no_run_search",
            "test_empty_cv_iterator_error",
            "test_grid_search_bad_param_grid",
            "test_grid_search_classifier_all_fits_fail",
            "test_grid_search_error",
        ],
        "nothing is fitted",
    ),
    "test_callable_multimetric_clf_all_fits_fail": "nothing is fitted",
    "test_cv_results_dtype_issue_29074": "the network is within another estimator",
    "test_cv_results_multi_size_array": "every candidate has a preprocessing of its own",
    "test_random_search_bad_cv": "the networks train in other processes",
    "test_search_callbacks_propagation": "somebody listens to each network",
    "test_search_callbacks_receive_search_instance": "is asked of scikit-learn's halving searches, too",
    "test_search_cv_score_samples_error": "their parameter is another dropout",
    "test_search_cv_using_minimal_compatible_estimator": "is asked of another estimator, too",
}

# They start processes, or fit many of scikit-learn's estimators.
SLOW = {
    "test_random_search_bad_cv",
    "test_search_with_2d_array",
}


SOURCE = PATH.read_text(encoding="utf-8")
THEIRS = {node.name: node for node in ast.parse(SOURCE).body if getattr(node, "name", "").startswith("test_")}
MENTION_A_NETWORK = {
    name for name, test in THEIRS.items() if any(getattr(node, "id", None) in STAND_INS for node in ast.walk(test))
}


def copy_tests(module, names, **meanings):
    """Return tests of these names in a copy of scikit-learn's module, in which some of its names have other meanings."""
    body = [node for node in ast.parse(SOURCE).body if getattr(node, "name", None) not in meanings]
    for node in body:
        if isinstance(node, ast.FunctionDef):  # a plugin's marker
            node.decorator_list = [what for what in node.decorator_list if ast.unparse(what) != "pytest.mark.thread_unsafe"]
    n_imports = max(i for i, node in enumerate(body) if isinstance(node, ast.Import | ast.ImportFrom)) + 1
    copy = types.ModuleType(module)
    sys.modules[module] = copy  # where pickle looks for its classes
    for part in (body[:n_imports], body[n_imports:]):
        exec(compile(ast.Module(part, []), PATH, "exec"), vars(copy))
        vars(copy).update(meanings)
    tests = {name: getattr(copy, name) for name in sorted(names)}  # in the same order in every process
    return {name: staticmethod(pytest.mark.slow(test) if name in SLOW else test) for name, test in tests.items()}


@pytest.mark.slow
class TestSearches:
    """Of scikit-learn's estimators, which are searched as scikit-learn does."""

    locals().update(copy_tests("sklearn_search_tests", THEIRS.keys() - NOT_APPLICABLE, **SEARCHES))


class TestSearchesOfNetworks:
    """Of networks in their place."""

    locals().update(
        copy_tests("sklearn_search_tests_of_networks", MENTION_A_NETWORK - NOT_OF_NETWORKS.keys(), **SEARCHES, **STAND_INS)
    )

    @pytest.fixture(autouse=True)
    def _trained_together(self, request):
        with counted() as counts:
            yield
        assert counts.populations or request.node.originalname in ALONE


def test_what_is_left_out_is_there():
    assert NOT_APPLICABLE.keys() | SLOW <= THEIRS.keys()
    assert NOT_OF_NETWORKS.keys() <= MENTION_A_NETWORK
    assert ALONE.keys() <= MENTION_A_NETWORK - NOT_OF_NETWORKS.keys()
