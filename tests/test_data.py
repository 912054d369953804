"""Every layout of X and y gives the same network, no caller's array is changed, and none is copied without need."""

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from sklearn.datasets import load_iris
from sklearn.exceptions import DataConversionWarning
from skorch.callbacks import Callback

from skdnn import MLPDeepClassifier
from skdnn._data import _has_finite_sum, _is_plain, looked_at_once

X, Y = load_iris(return_X_y=True)
X, Y = np.ascontiguousarray(X[::2]), Y[::2]  # in double steps: the rows are sorted by class


def fitted(X=X, y=Y, **params):
    return MLPDeepClassifier((8,), max_iter=4, n_iter_no_change=4, batch_size=16, random_state=0, **params).fit(X, y)


def assert_same_network(a, b):
    for left, right in zip(a.coefs_ + a.intercepts_, b.coefs_ + b.intercepts_, strict=True):
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right)


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def strided(array):
    wide = np.full((2 * array.shape[0], 3 * array.shape[1]), np.nan, array.dtype)
    wide[::2, 1::3] = array
    return wide[::2, 1::3]


LAYOUTS = {
    "list": np.ndarray.tolist,
    "list_of_rows": list,
    "fortran": np.asfortranarray,
    "negative_strides": lambda X: np.ascontiguousarray(X[::-1, ::-1])[::-1, ::-1],
    "strided": strided,
    "read_only": read_only,
    "read_only_fortran": lambda X: np.asfortranarray(read_only(X)),
    "big_endian": lambda X: X.astype(X.dtype.newbyteorder(">")),
    "object": lambda X: X.astype(object),
    "pandas": lambda X: pd.DataFrame(X, columns=list("abcd")),
    "pandas_nullable": lambda X: pd.DataFrame(X, columns=list("abcd"), dtype="Float64"),
    "polars": lambda X: pl.DataFrame(X, schema=list("abcd")),
    "subclass": lambda X: np.ma.MaskedArray(X),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_layout_of_rows_does_not_matter(layout):
    plain = fitted()
    clf = fitted(layout(X))
    assert_same_network(clf, plain)
    np.testing.assert_array_equal(clf.predict_proba(layout(X)), plain.predict_proba(X))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_layouts_of_float_arrays_keep_their_dtype(dtype):
    plain = fitted(X.astype(dtype))
    assert plain.coefs_[0].dtype == dtype
    for name in ("fortran", "negative_strides", "strided", "read_only", "pandas"):  # polars is float64 to scikit-learn
        assert_same_network(fitted(LAYOUTS[name](X.astype(dtype))), plain)


@pytest.mark.parametrize("dtype", [np.float16, np.int8, np.int32, np.int64, np.uint8, bool])
def test_other_numbers_are_computed_in_float64(dtype):
    numbers = X.round() > 3 if dtype is bool else X.astype(dtype)
    clf = fitted(numbers)
    assert_same_network(clf, fitted(numbers.astype(np.float64)))
    np.testing.assert_array_equal(clf.predict_proba(numbers), clf.predict_proba(numbers.astype(np.float64)))


@pytest.mark.parametrize("convert", [pd.DataFrame, lambda X: pl.DataFrame(X, strict=False)], ids=["pandas", "polars"])
def test_a_frame_of_several_dtypes_is_computed_in_float64(convert):
    columns = {"a": X[:, 0], "b": X[:, 1].astype(np.float32), "c": X[:, 2].astype(np.int64), "d": X[:, 3] > 1}
    assert_same_network(fitted(convert(columns)), fitted(np.column_stack(list(columns.values()))))


@pytest.mark.parametrize("convert", [pd.DataFrame, pl.DataFrame], ids=["pandas", "polars"])
def test_feature_names_are_kept_and_checked(convert):
    names = ["petal length", "b", "c", "d"]
    clf = fitted(convert(dict(zip(names, X.T, strict=True))))
    assert clf.feature_names_in_.tolist() == names
    assert clf.n_features_in_ == 4
    with pytest.raises(ValueError, match="same order"):
        clf.predict(convert(dict(zip(names[::-1], X.T, strict=True))))
    with pytest.warns(UserWarning, match="valid feature names"):
        clf.predict(X)


def test_arrays_have_no_feature_names():
    assert not hasattr(fitted(), "feature_names_in_")


# dtype --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "dtype", "computed"),
    [
        (np.float32, "auto", np.float32),
        (np.float64, "auto", np.float64),
        (np.int64, "auto", np.float64),
        (np.float32, "float64", np.float64),
        (np.float64, "float32", np.float32),
    ],
)
def test_computed_dtype(given, dtype, computed):
    clf = fitted(X.astype(given), dtype=dtype)
    assert {array.dtype for array in clf.coefs_ + clf.intercepts_} == {np.dtype(computed)}
    assert {str(p.dtype) for p in clf.module_.parameters()} == {f"torch.{np.dtype(computed)}"}
    for X_predicted in (X.astype(given), X.astype(np.float32), X):
        assert clf.predict_proba(X_predicted).dtype == computed
        assert clf.predict_log_proba(X_predicted).dtype == computed
        assert clf.decision_function(X_predicted).dtype == computed


def test_dtypes_agree_on_the_result():
    np.testing.assert_allclose(
        fitted(X.astype(np.float32)).predict_proba(X), fitted(dtype="float64").predict_proba(X), rtol=1e-4
    )


# no copy, no write --------------------------------------------------------------------------------------------------------


class Eavesdropper(Callback):
    """Keeps the tensor that training runs on."""

    def on_train_begin(self, net, X=None, y=None, **kwargs):
        self.X = X


def memory_map(array, folder):
    joblib.dump(array, folder / "X.pkl")
    mapped = joblib.load(folder / "X.pkl", mmap_mode="r")
    assert isinstance(mapped, np.memmap)
    assert not mapped.flags.writeable
    return mapped


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("make", [lambda X, _: X, lambda X, _: read_only(X), memory_map], ids=["plain", "read_only", "memmap"])
def test_contiguous_floats_are_used_where_they_lie(dtype, make, tmp_path):
    rows = make(X.astype(dtype), tmp_path)
    ear = Eavesdropper()
    clf = fitted(rows, callbacks=[ear])
    assert isinstance(ear.X, torch.Tensor)
    assert ear.X.data_ptr() == rows.ctypes.data
    assert_same_network(clf, fitted(X.astype(dtype)))
    np.testing.assert_array_equal(clf.predict(rows), clf.predict(X.astype(dtype)))


@pytest.mark.parametrize("layout", ["fortran", "strided", "negative_strides", "big_endian", "object", "pandas", "read_only"])
@pytest.mark.parametrize(
    "params", [{}, {"early_stopping": True, "validation_fraction": 0.2, "batch_norm": True, "dropout": 0.3}]
)
def test_arrays_of_the_caller_are_not_changed(layout, params):
    rows, labels = LAYOUTS[layout](X), read_only(Y)
    before = joblib.hash(rows)
    clf = fitted(rows, labels, **params)
    for method in (clf.predict, clf.predict_proba, clf.predict_log_proba, clf.decision_function):
        method(rows)
    assert joblib.hash(rows) == before
    np.testing.assert_array_equal(labels, Y)


def test_an_activation_in_place_does_not_reach_the_rows():
    # Without a hidden layer the output layer works on X itself; with identity a layer may hand on what it was given.
    rows = X.copy()
    for sizes in ((), (4,)):
        MLPDeepClassifier(sizes, "identity", max_iter=2, n_iter_no_change=2, random_state=0).fit(rows, Y).predict(rows)
    np.testing.assert_array_equal(rows, X)


def test_predictions_do_not_alias_each_other():
    clf = fitted()
    first = clf.decision_function(X)
    kept = first.copy()
    clf.decision_function(X[::-1])
    np.testing.assert_array_equal(first, kept)
    first[:] = 0.0  # a result is the caller's to change
    np.testing.assert_array_equal(clf.decision_function(X), kept)


# rows beside each other ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize(("dtype", "rtol"), [(np.float32, 1e-4), (np.float64, 1e-7)])
def test_a_row_is_predicted_alike_whatever_stands_beside_it(dtype, rtol, batch_norm):
    rows = X.astype(dtype)
    clf = fitted(rows, batch_norm=batch_norm, dropout=0.2)
    together = clf.predict_proba(rows)
    one_by_one = np.concatenate([clf.predict_proba(rows[i : i + 1]) for i in range(len(rows))])
    in_sevens = np.concatenate([clf.predict_proba(rows[i : i + 7]) for i in range(0, len(rows), 7)])
    order = np.random.RandomState(0).permutation(len(rows))
    for other in (one_by_one, in_sevens, clf.predict_proba(rows[order])[np.argsort(order)]):
        np.testing.assert_allclose(other, together, rtol=rtol, atol=1e-7)


def test_predictions_in_blocks_equal_those_of_a_single_block():
    # A width at which one block cannot hold all rows: only there is the result put together from parts.
    clf = MLPDeepClassifier((3000,), max_iter=1, n_iter_no_change=1, random_state=0).fit(X, Y)
    many = np.tile(X, (40, 1))
    assert len(many) > clf._network.block_size
    np.testing.assert_allclose(clf.decision_function(many), np.tile(clf.decision_function(X), (40, 1)), rtol=1e-7, atol=1e-9)


# y ------------------------------------------------------------------------------------------------------------------------

LABELS = {
    "strings": np.array(["setosa", "versicolor", "virginica"]),
    "objects": np.array(["a", "bb", "ccc"], dtype=object),
    "negative_integers": np.array([-7, -1, 3]),
    "uint8": np.array([0, 5, 255], dtype=np.uint8),
    "floats": np.array([-1.0, 0.0, 2.0]),
    "booleans": np.array([False, True, True]),
}


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_labels_of_any_kind(labels):
    y = labels[Y]
    clf = fitted(X, y)
    np.testing.assert_array_equal(clf.classes_, np.unique(y))
    assert clf.classes_.dtype == y.dtype
    predicted = clf.predict(X)
    assert predicted.dtype == y.dtype
    assert set(predicted.tolist()) <= set(y.tolist())
    # The names of the classes mean nothing to the network.
    plain = fitted(X, np.unique(y, return_inverse=True)[1])
    assert_same_network(clf, plain)
    np.testing.assert_array_equal(predicted, clf.classes_[plain.predict(X)])


WRAPPED = {
    "list": list,
    "pandas": pd.Series,
    "pandas_of_another_index": lambda y: pd.Series(y, index=np.arange(len(y))[::-1] * 10),
    "pandas_categorical": lambda y: pd.Series(y, dtype="category"),
    "pandas_string": lambda y: pd.Series(y, dtype="string"),
    "polars": pl.Series,
    "object": lambda y: y.astype(object),
    "read_only": read_only,
    "strided": lambda y: np.repeat(y, 2)[::2],
}


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
def test_containers_of_labels(wrap):
    y = LABELS["strings"][Y]
    clf = fitted(X, wrap(y))
    assert clf.classes_.tolist() == ["setosa", "versicolor", "virginica"]
    assert_same_network(clf, fitted(X, y))
    np.testing.assert_array_equal(clf.predict(X), fitted(X, y).predict(X))


def test_a_column_of_labels_is_flattened_with_a_warning():
    with pytest.warns(DataConversionWarning, match="column-vector"):
        clf = fitted(X, Y[:, None])
    assert_same_network(clf, fitted())
    assert clf.predict(X).shape == Y.shape


# what cannot be used ------------------------------------------------------------------------------------------------------

BAD_X = {
    "nan": (np.where(X[3, 1] == X, np.nan, X), "NaN"),
    "infinite": (np.where(X[3, 1] == X, np.inf, X), "infinity"),
    "empty": (X[:0], "0 sample"),
    "no_features": (X[:, :0], "0 feature"),
    "one_dimensional": (X[:, 0], "Reshape your data"),
    "three_dimensional": (X[:, :, None], "dim"),
    "complex": (X + 1j, "Complex data not supported"),
    "strings": (np.full(X.shape, "one"), "could not convert string|Unable to convert"),
    "other_length": (X[1:], "inconsistent numbers of samples"),
}


@pytest.mark.parametrize(("rows", "message"), BAD_X.values(), ids=BAD_X)
@pytest.mark.parametrize("dtype", ["auto", "float32"])
def test_bad_rows_are_refused_by_fit(rows, message, dtype):
    with pytest.raises((ValueError, TypeError), match=message):
        fitted(rows, dtype=dtype)


@pytest.mark.parametrize("method", ["predict", "predict_proba", "predict_log_proba", "decision_function"])
def test_bad_rows_are_refused_by_predictions(method):
    predict = getattr(fitted(), method)
    for name, (rows, message) in BAD_X.items():
        if name not in ("other_length", "no_features"):
            with pytest.raises((ValueError, TypeError), match=message):
                predict(rows)
    with pytest.raises(ValueError, match="X has 3 features, but MLPDeepClassifier is expecting 4"):
        predict(X[:, :3])


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_numbers_beyond_float32_are_not_predicted_as_nan():
    clf = fitted(X.astype(np.float32))
    try:
        probabilities = clf.predict_proba(X * 1e300)
    except ValueError as error:
        assert "float32" in str(error)  # noqa: PT017 - refusing is as good as predicting
    else:
        assert np.isfinite(probabilities).all()


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.zeros(len(X)), "one class"),
        (np.full(len(X), "only"), "only one class: .*only"),
        (np.where(Y == 1, np.nan, Y), "NaN"),
        (Y + 0.5, "continuous|Unknown label type"),
        (None, "requires y to be passed"),
        (np.column_stack([Y, Y]), "y should be a 1d array|multioutput|shape"),
        (np.array([b"x", b"y", b"z"])[Y], "bytes"),
        (np.array(["a", 1] * len(X), dtype=object)[: len(X)], "str|mix|label"),
    ],
    ids=["one_class", "one_string", "nan", "continuous", "none", "two_columns", "bytes", "mixed"],
)
def test_bad_y_is_refused(y, message):
    with pytest.raises((ValueError, TypeError), match=message):
        fitted(X, y)


def test_arrays_are_looked_through_once_within_a_context(monkeypatch):
    looked, look = [], _has_finite_sum
    monkeypatch.setattr("skdnn._data._has_finite_sum", lambda X: looked.append(X) or look(X))
    rows, equal_rows = np.ones((4, 3)), np.ones((4, 3))
    spoiled = np.full((4, 3), np.nan)
    with looked_at_once():
        assert [_is_plain(array, [np.float64]) for array in (rows, rows, equal_rows, spoiled, spoiled)] == [True] * 3 + [
            False
        ] * 2
    assert len(looked) == 3
    assert _is_plain(rows, [np.float64])
    assert len(looked) == 4


def test_classes_of_estimators_are_their_own():
    with looked_at_once():
        first, second = fitted(X, Y), fitted(X, Y)
    first.classes_[:] = -1
    np.testing.assert_array_equal(second.classes_, np.unique(Y))
    np.testing.assert_array_equal(fitted(X, Y).predict(X), second.predict(X))
