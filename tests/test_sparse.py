"""Sparse rows: what dense rows give, without ever being dense as a whole."""

import tracemalloc
from functools import partial
from itertools import product

import numpy as np
import pytest
import scipy.sparse
from naming import name_of
from sklearn.datasets import make_classification, make_multilabel_classification
from sklearn.metrics import get_scorer
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, OneHotEncoder

from skdnn import MLPDeepClassifier, MLPDeepRegressor

X, Y = make_classification(120, 12, n_informative=6, n_classes=3, random_state=0)
X[np.abs(X) < 0.8] = 0.0
X[[5, 50]] = 0.0  # rows without an entry
X[:, 3] = 0.0  # and a column
X = np.round(X, 2)
NUMBERS = X @ np.linspace(-1.0, 1.0, 12) + 3.0
X_VAL, Y_VAL = X[::-2] + (X[::-2] != 0.0), Y[::2]
_, LABELS = make_multilabel_classification(120, n_classes=3, random_state=0)


def params_of(params):
    return {"hidden_layer_sizes": (8, 5), "batch_size": 16, "max_iter": 5, "n_iter_no_change": 5, "random_state": 0} | params


def classifier(**params):
    return MLPDeepClassifier(**params_of(params))


def regressor(**params):
    return MLPDeepRegressor(**params_of(params))


KINDS = {
    "multiclass": (classifier, Y),
    "binary": (classifier, Y == 1),
    "multilabel": (classifier, LABELS),
    "number": (regressor, NUMBERS),
    "numbers": (regressor, np.c_[NUMBERS, NUMBERS**2]),
}
kinds = pytest.mark.parametrize("kind", KINDS)


def with_parts(form, data=None, indices=None, indptr=None):
    given = form(X)
    parts = zip((data, indices, indptr), (given.data, given.indices, given.indptr), strict=True)
    return form(tuple(own if part is None else part for part, own in parts), shape=X.shape)


def long_indices(form):
    given = form(X)
    return with_parts(form, None, given.indices.astype(np.int64), given.indptr.astype(np.int64))


def unsorted(form):
    given = form(X)
    order = np.concatenate([np.arange(a, b)[::-1] for a, b in zip(given.indptr[:-1], given.indptr[1:], strict=True)])
    result = with_parts(form, given.data[order], given.indices[order])
    assert not result.has_sorted_indices
    return result


def in_halves(form):
    """Every entry twice, of half its value."""
    given = form(X)
    return with_parts(form, np.repeat(given.data / 2, 2), np.repeat(given.indices, 2), 2 * given.indptr)


def with_zeros(form):
    rows, columns = np.indices(X.shape)
    return form(scipy.sparse.coo_array((X.ravel(), (rows.ravel(), columns.ravel())), shape=X.shape))


def read_only(form):
    result = form(X)
    for part in (result.data, result.indices, result.indptr):
        part.flags.writeable = False
    return result


FORMS = {
    f"{name}_{kind}": partial(getattr(scipy.sparse, f"{name}_{kind}"), X)
    for name, kind in [*product(("csr", "csc", "coo"), ("array", "matrix")), ("lil", "array"), ("dok", "matrix")]
} | {
    f"{change.__name__}_{form.__name__}": partial(change, form)
    for change in (long_indices, unsorted, in_halves, with_zeros, read_only)
    for form in (scipy.sparse.csr_array, scipy.sparse.csc_matrix)
}


def outputs_of(model, X):
    return model.predict(X) if isinstance(model, MLPDeepRegressor) else model.decision_function(X)


def assert_identical(sparse, dense, rows):
    assert sparse.loss_curve_ == dense.loss_curve_
    assert sparse.validation_scores_ == dense.validation_scores_
    for mine, theirs in zip(sparse.coefs_ + sparse.intercepts_, dense.coefs_ + dense.intercepts_, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    np.testing.assert_array_equal(outputs_of(sparse, rows), outputs_of(dense, X))
    np.testing.assert_array_equal(outputs_of(sparse, X), outputs_of(dense, X))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("make", [classifier, regressor])
def test_every_form_is_the_dense_matrix_bit_for_bit(make, form):
    rows = FORMS[form]()
    assert scipy.sparse.issparse(rows)
    y = Y if make is classifier else NUMBERS
    assert_identical(make().fit(rows, y), make().fit(X, y), rows)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.int8, np.uint16, bool])
@pytest.mark.parametrize("setting", ["auto", "float32", "float64"])
def test_every_dtype_is_the_dense_matrix_bit_for_bit(dtype, setting):
    dense = np.abs(X * 10).astype(dtype)
    rows = scipy.sparse.csr_array(dense)
    a, b = (classifier(dtype=setting).fit(given, Y) for given in (rows, dense))
    assert a.coefs_[0].dtype == b.coefs_[0].dtype
    assert a.coefs_[0].dtype == (setting if setting != "auto" else np.float32 if dtype is np.float32 else np.float64)
    assert a.loss_curve_ == b.loss_curve_
    np.testing.assert_array_equal(a.predict_proba(rows), b.predict_proba(dense))


@kinds
@pytest.mark.parametrize(
    "params",
    [
        {"batch_norm": True, "dropout": 0.2, "input_dropout": 0.1},
        {"batch_size": 1000, "input_dropout": 0.2, "dropout": 0.2},
        {"early_stopping": True, "validation_fraction": 0.3},
        {"early_stopping": True, "monitor": "loss", "batch_norm": True},
        {"batch_size": 1, "shuffle": False, "max_iter": 2, "n_iter_no_change": 2},
    ],
    ids=name_of,
)
@pytest.mark.parametrize("weight", [None, np.linspace(0.0, 2.0, 120)], ids=["plain", "weighted"])
def test_techniques(kind, params, weight):
    make, y = KINDS[kind]
    rows = scipy.sparse.csr_array(X)
    assert_identical(make(**params).fit(rows, y, weight), make(**params).fit(X, y, weight), rows)


@kinds
def test_streams(kind):
    make, y = KINDS[kind]
    classes = {"classes": np.arange(y.shape[1]) if y.ndim > 1 else np.unique(y)} if make is classifier else {}
    dense, sparse, mixed = (make(batch_norm=True) for _ in range(3))
    for i, (form, other) in enumerate(
        [(scipy.sparse.csr_array, np.asarray), (scipy.sparse.csc_matrix, scipy.sparse.coo_array)] * 2
    ):
        part = slice(30 * i, 30 * (i + 1))
        sparse.partial_fit(form(X[part]), y[part], **classes)
        dense.partial_fit(X[part], y[part], **classes)
        mixed.partial_fit(other(X[part]), y[part], **classes)
    rows = scipy.sparse.csr_array(X)
    assert_identical(sparse, dense, rows)
    assert_identical(mixed, dense, rows)


@pytest.mark.parametrize("dtypes", [(np.float32, np.float64), (np.float64, np.float32)], ids=name_of)
def test_streams_go_on_in_the_dtype_of_their_first_rows(dtypes):
    dense, sparse = classifier(), classifier()
    for dtype in dtypes:
        dense.partial_fit(X.astype(dtype), Y, classes=[0, 1, 2])
        sparse.partial_fit(scipy.sparse.csr_array(X.astype(dtype)), Y, classes=[0, 1, 2])
    assert sparse.coefs_[0].dtype == dtypes[0]
    assert_identical(sparse, dense, scipy.sparse.csr_array(X))


@pytest.mark.parametrize(
    "forms", list(product([np.asarray, scipy.sparse.csr_array, scipy.sparse.csc_matrix], repeat=2)), ids=name_of
)
@pytest.mark.parametrize("monitor", ["auto", "loss", "f1_macro", "neg_log_loss"])
def test_own_validation_rows_may_be_of_either_kind(forms, monitor):
    form, form_val = forms
    a = classifier(monitor=monitor).fit(form(X), Y, X_val=form_val(X_VAL), y_val=Y_VAL)
    b = classifier(monitor=monitor).fit(X, Y, X_val=X_VAL, y_val=Y_VAL)
    assert_identical(a, b, form(X))


@pytest.mark.parametrize(
    "form", [scipy.sparse.csr_array, scipy.sparse.csr_matrix, scipy.sparse.csc_array, scipy.sparse.coo_matrix]
)
@pytest.mark.parametrize("monitor", ["auto", "loss", "f1_micro"])
def test_sparse_labels_of_sparse_rows(form, monitor):
    params = {"monitor": monitor, "early_stopping": True, "validation_fraction": 0.3}
    a = classifier(**params).fit(form(X), form(LABELS))
    assert_identical(a, classifier(**params).fit(X, LABELS), form(X))
    own = {"X_val": form(X[:40]), "y_val": form(LABELS[:40])}
    b = classifier(monitor=monitor).fit(form(X), form(LABELS), **own)
    assert_identical(b, classifier(monitor=monitor).fit(X, LABELS, X_val=X[:40], y_val=LABELS[:40]), form(X))


def test_warm_start_and_every_prediction():
    rows = scipy.sparse.csc_array(X)
    a, b = (classifier(warm_start=True).fit(given, Y).fit(given, Y) for given in (rows, X))
    for method in ("predict", "predict_proba", "predict_log_proba", "decision_function"):
        np.testing.assert_array_equal(getattr(a, method)(rows), getattr(b, method)(X))
    assert a.score(rows, Y, sample_weight=np.arange(120)) == b.score(X, Y, sample_weight=np.arange(120))
    assert a.predict_proba(rows[:1]).shape == (1, 3)


def test_a_pipeline_and_a_search():
    rows = scipy.sparse.csr_array(X)
    scores = [
        GridSearchCV(
            make_pipeline(MaxAbsScaler(), classifier()), {"mlpdeepclassifier__dropout": [0.0, 0.3]}, cv=2, error_score="raise"
        )
        .fit(given, Y)
        .cv_results_["mean_test_score"]
        for given in (rows, X)
    ]
    np.testing.assert_array_equal(*scores)
    words = np.array([["red", "small"], ["blue", "small"], ["red", "large"], ["blue", "large"]] * 5)
    model = make_pipeline(OneHotEncoder(), classifier(max_iter=60, n_iter_no_change=60, learning_rate_init=0.05))
    assert model.fit(words, words[:, 0]).score(words, words[:, 0]) == 1.0


def test_the_callers_matrix_is_left_as_it_is():
    for given in (unsorted(scipy.sparse.csr_array), in_halves(scipy.sparse.csr_matrix), unsorted(scipy.sparse.csc_array)):
        before = given.data.copy(), given.indices.copy(), given.indptr.copy(), given.dtype
        clf = classifier(early_stopping=True, dtype="float32").fit(given, Y)
        clf.partial_fit(given, Y).predict(given)
        for part, own in zip((given.data, given.indices, given.indptr), before, strict=False):
            np.testing.assert_array_equal(part, own)
        assert given.dtype == before[3]


def test_a_scorer_gets_the_sparse_rows():
    seen = []

    def spy(estimator, X, y):
        seen.append(X)
        np.testing.assert_array_equal(estimator.predict_proba(X[:4]), estimator.predict_proba(X)[:4])
        return get_scorer("accuracy")(estimator, X, y)

    classifier(monitor=spy, early_stopping=True).fit(scipy.sparse.csr_array(X), Y)
    assert scipy.sparse.issparse(seen[0])
    assert seen[0].shape == (12, 12)


# refused ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [scipy.sparse.csr_array, scipy.sparse.csc_matrix, scipy.sparse.coo_array])
@pytest.mark.parametrize("make", [classifier, regressor])
def test_what_is_wrong_is_named(make, form):
    y = Y if make is classifier else NUMBERS
    for value, message in ((np.nan, "NaN"), (np.inf, "infinity")):
        bad = form(np.where(X > 1.5, value, X))
        with pytest.raises(ValueError, match=message):
            make().fit(bad, y)
        with pytest.raises(ValueError, match=message):
            make().fit(X, y, X_val=bad, y_val=y)
        with pytest.raises(ValueError, match=message):
            make().fit(form(X), y).predict(bad)
    model = make().fit(form(X), y)
    for call in (model.predict, lambda rows: model.partial_fit(rows, y), lambda rows: make().fit(X, y, X_val=rows, y_val=y)):
        with pytest.raises(ValueError, match="11 features"):
            call(form(X[:, 1:]))
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        make().fit(form(X[1:]), y)
    with pytest.raises(ValueError, match="minimum of 1"):
        make().fit(form((0, 12)), y[:0])
    with pytest.raises(ValueError, match="Complex"):
        make().fit(form(X + 1j), y)


def test_a_row_beyond_the_dtype_is_named():
    clf = classifier(dtype="float32").fit(scipy.sparse.csr_array(X), Y)
    far = X.copy()
    far[7, 0] = 1e300
    with pytest.raises(ValueError, match="Row 7 of X is beyond"):
        clf.predict(scipy.sparse.csr_array(far))


# memory -------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def sizes(monkeypatch):
    """Elements of each block that was made dense."""
    sizes = []
    for form in (scipy.sparse.csr_array, scipy.sparse.csr_matrix, scipy.sparse.csc_array, scipy.sparse.csc_matrix):
        convert = form.toarray

        def toarray(self, *args, convert=convert, **named):
            sizes.append(self.shape[0] * self.shape[1])
            return convert(self, *args, **named)

        monkeypatch.setattr(form, "toarray", toarray)
    return sizes


@pytest.mark.parametrize("make", [classifier, regressor])
@pytest.mark.parametrize("form", [scipy.sparse.csr_array, scipy.sparse.csr_matrix])
def test_a_large_matrix_is_never_dense(sizes, make, form):
    n_rows, n_features = 200_000, 5_000
    random = np.random.RandomState(0)
    columns = random.randint(n_features, size=n_rows).astype(np.int32)
    rows = form((np.ones(n_rows, dtype=np.float32), columns, np.arange(n_rows + 1)), shape=(n_rows, n_features))
    weight = np.zeros(n_rows)
    weight[::100] = 1.0  # an epoch over a part of the rows, spread over all of them
    params = {"hidden_layer_sizes": (4,), "batch_size": 200, "max_iter": 1, "n_iter_no_change": 1, "early_stopping": True}
    tracemalloc.start()
    try:
        model = make(**params).fit(rows, columns % 2, weight)
        assert sum(sizes) == 2000 * n_features  # each row that counts, once
        n_training = len(sizes)
        predicted = model.predict(rows[:6_000])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert model.t_ == 1800
    assert len(predicted) == 6_000
    assert sum(sizes[n_training:]) == 6_000 * n_features
    # 2**21 elements a chunk of batches, 2**22 for a block of a prediction with all its activations.
    assert max(sizes) <= 2**22
    assert peak < 100e6  # the whole matrix is 4 GB


def test_dropout_in_one_batch_needs_no_more_than_the_batch(sizes):
    classifier(batch_size=1000, dropout=0.5).fit(scipy.sparse.csr_array(X), Y, np.r_[np.zeros(100), np.ones(20)])
    assert max(sizes) <= 20 * 12
