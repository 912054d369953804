"""What is not looked at because it can be but one thing comes to what scikit-learn makes of it."""

import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.base import ClassifierMixin
from sklearn.datasets import load_iris
from sklearn.utils.validation import validate_data

from skdnn import MLPDeepClassifier, _data
from skdnn._data import validate_rows

X, Y = load_iris(return_X_y=True)
X, Y = np.ascontiguousarray(X[::2]), np.ascontiguousarray(Y[::2])
FLOATS = [np.float64, np.float32]
FRAME = pd.DataFrame(X, columns=list("abcd"))


def outcome(function, *args, **kwargs):
    """What a function returns, or the error it raises, and the warnings it gives."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = function(*args, **kwargs)
        except Exception as error:
            result = type(error), str(error)
    return result, [(warning.category, str(warning.message)) for warning in caught]


# rows ---------------------------------------------------------------------------------------------------------------------


def replaced(value):
    changed = X.copy()
    changed[3, 1] = value
    return changed


ROWS = {
    "plain": X,
    "float32": X.astype(np.float32),
    "largest": np.full_like(X, np.finfo(float).max),
    "one_row": X[:1],
    "fortran": np.asfortranarray(X),
    "strided": X[:, ::2],
    "integers": X.astype(int),
    "other_bytes": X.astype(">f8"),
    "list": X.tolist(),
    "frame": FRAME,
    "nan": replaced(np.nan),
    "infinite": replaced(-np.inf),
    "two_infinities": np.where(X > 3, np.inf, -np.inf),
    "empty": X[:0],
    "one_dimension": X[:, 0],
    "subclass": np.asmatrix(X),
    "nothing": None,
}
TARGETS = {
    "integers": Y,
    "bools": Y == 1,
    "small": Y.astype(np.uint8),
    "strided": np.repeat(Y, 2)[::2],
    "column": Y[:, np.newaxis],
    "texts": Y.astype(str),
    "floats": Y + 0.5,
    "nan": np.where(Y == 1, np.nan, Y),
    "list": Y.tolist(),
    "series": pd.Series(Y),
    "short": Y[1:],
    "nothing": None,
}


def check_like_scikit_learn(estimator, *rows, dtypes, **settings):
    return validate_data(estimator, *rows, dtype=dtypes, accept_sparse="csr", order="C", **settings)


def assert_same_check(X, *y, learned=None, dtypes=FLOATS):
    results, attributes = [], []
    settings = {"dtypes": dtypes, "reset": learned is None or bool(y)} | ({"multi_output": True} if y else {})
    for validate in (validate_rows, check_like_scikit_learn):
        estimator = MLPDeepClassifier()
        if learned is not None:
            validate_data(estimator, learned)
        results.append(outcome(validate, estimator, X, *y, **settings))
        attributes.append({name: np.array(value).tolist() for name, value in vars(estimator).items() if name.endswith("in_")})
    (mine, said), (theirs, expected) = results
    assert said == expected
    assert attributes[0] == attributes[1]
    if not isinstance(theirs, tuple) or isinstance(theirs[0], type):
        mine, theirs = (mine,), (theirs,)
    for a, b in zip(mine, theirs, strict=True):
        if not isinstance(b, np.ndarray):
            assert a == b
            continue
        assert (type(a), a.dtype, a.flags.c_contiguous) == (type(b), b.dtype, b.flags.c_contiguous)
        np.testing.assert_array_equal(a, b)


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # of np.matrix, one of the rows
@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
@pytest.mark.parametrize("dtypes", [FLOATS, FLOATS[1:]], ids=["floats", "float32"])
def test_rows(rows, dtypes):
    assert_same_check(rows, Y[: 0 if rows is None else len(rows)], dtypes=dtypes)
    for learned in (X, FRAME, X[:, :3]):
        assert_same_check(rows, learned=learned, dtypes=dtypes)


@pytest.mark.parametrize("y", TARGETS.values(), ids=TARGETS)
def test_targets(y):
    assert_same_check(X, y)
    assert_same_check(X, y, learned=FRAME)


def test_arrays_with_nothing_to_change_are_not_looked_at_twice(monkeypatch):
    monkeypatch.setattr(_data, "validate_data", None)
    estimator = MLPDeepClassifier()
    rows, y = validate_rows(estimator, X, Y, dtypes=FLOATS, reset=True)
    assert rows is X
    assert y is Y
    assert validate_rows(estimator, X, dtypes=FLOATS, reset=False) is X


# score --------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def classifiers():
    def fit(y):
        return MLPDeepClassifier((8,), max_iter=3, n_iter_no_change=3, batch_size=8, random_state=0).fit(X, y)

    return {"integers": fit(Y), "texts": fit(Y.astype(str)), "bools": fit(Y == 1), "labels": fit(np.eye(3, dtype=int)[Y])}


@pytest.mark.parametrize("name", ["integers", "texts", "bools", "labels"])
@pytest.mark.parametrize("y", [*TARGETS.values(), np.arange(len(Y)), np.eye(3, dtype=int)[Y]], ids=[*TARGETS, "many", "labels"])
def test_a_score_is_scikit_learns(classifiers, name, y):
    classifier = classifiers[name]
    for n_rows in (len(X), 4, 1, 0):
        rows, some = X[:n_rows], None if y is None else y[: min(n_rows, len(y))]
        for weight in (None, np.linspace(0.0, 1.0, n_rows)):
            mine = outcome(classifier.score, rows, some, sample_weight=weight)
            assert repr(mine) == repr(outcome(ClassifierMixin.score, classifier, rows, some, sample_weight=weight))
