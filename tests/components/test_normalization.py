import numpy as np
import pytest
from naming import name_of

from skdnn.components import BatchNorm
from skdnn.components.normalization import resolve_batch_norm


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, None),
        (False, None),
        (True, BatchNorm(momentum=0.9, epsilon=1e-5, output=False)),
        # What a grid over an array of bools holds.
        (np.True_, BatchNorm()),
        (np.False_, None),
        (BatchNorm(0.99, output=True), BatchNorm(0.99, output=True)),
    ],
)
def test_bools_and_objects_resolve(given, expected):
    assert resolve_batch_norm(given) == expected


@pytest.mark.parametrize("wrong", [1, 0, 0.9, "true", BatchNorm, [True]], ids=name_of)
def test_anything_else_is_refused(wrong):
    with pytest.raises(ValueError, match="batch_norm must be a bool or a BatchNorm"):
        resolve_batch_norm(wrong)


def test_parameters_are_checked_when_resolved():
    with pytest.raises(ValueError, match="'momentum' parameter of BatchNorm"):
        resolve_batch_norm(BatchNorm(momentum=1.0))
