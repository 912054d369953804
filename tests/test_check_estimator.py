"""scikit-learn's own conformance suite and its checks that the suite does not run."""

import os
import subprocess
import sys

import pytest
from sklearn.utils.estimator_checks import (
    check_dataframe_column_names_consistency,
    check_inplace_ensure_writeable,
    check_param_validation,
    parametrize_with_checks,
)

from skdnn import MLPDeepClassifier, MLPDeepRegressor
from skdnn.components import L1L2, Adam

CONFIGURATIONS = {
    "default": {},
    "batch_norm": {"batch_norm": True, "dropout": 0.1, "optimizer": Adam(beta_2=0.99)},
    "elu": {"activation": "elu", "optimizer": "momentum", "regularizer": "l1", "max_norm": 2.0},
    "every_technique": {
        "hidden_layer_sizes": (64, 32),
        "activation": ["leaky_relu", "elu"],
        "initializer": "he_normal",
        "batch_norm": True,
        "dropout": 0.1,
        "input_dropout": 0.05,
        "regularizer": L1L2(1e-4, 1e-4),
        "max_norm": 3.0,
        "optimizer": "nadam",
        "learning_rate_init": 0.005,
        "learning_rate": "cosine",
        "gradient_clipping": 5.0,
    },
}
ESTIMATORS = {
    f"{cls.__name__}-{name}": cls(**params)
    for cls in (MLPDeepClassifier, MLPDeepRegressor)
    for name, params in CONFIGURATIONS.items()
}
# The default loss is among the configurations. Several quantile levels have no place here, for their predictions have another
# shape than y, nor has the Poisson loss: a check of several targets draws negative ones, whatever the tags say.
ESTIMATORS["MLPDeepRegressor-quantile"] = MLPDeepRegressor(loss="quantile")

# The checks that the suite leaves to scikit-learn's own tests.
MORE_CHECKS = [check_dataframe_column_names_consistency, check_inplace_ensure_writeable, check_param_validation]


ARRAY_API_SCRIPT = """
from sklearn.utils.estimator_checks import estimator_checks_generator
from skdnn import MLPDeepClassifier, MLPDeepRegressor
from skdnn.components import L1L2, Adam

for estimator in {estimators}:
    for estimator, check in estimator_checks_generator(estimator):
        if check.func.__name__ == "check_array_api_input":
            check(estimator)
            print("passed")
"""


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")  # the checks train for a few epochs only
@parametrize_with_checks(list(ESTIMATORS.values()))
def test_estimator_keeps_the_contract(estimator, check):
    check(estimator)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("check", MORE_CHECKS)
@pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS)
def test_estimator_passes_the_checks_beside_the_suite(estimator, check):
    check(type(estimator).__name__, estimator)


def test_array_api_check_passes():
    # scikit-learn skips the check unless the variable is set before SciPy is imported: hence a process of its own.
    completed = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ARRAY_API_SCRIPT.format(estimators=list(ESTIMATORS.values()))],
        env={**os.environ, "SCIPY_ARRAY_API": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.stdout.split() == ["passed"] * len(ESTIMATORS), completed.stderr
