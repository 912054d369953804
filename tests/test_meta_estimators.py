"""Within scikit-learn's meta-estimators both estimators do what those are for, on the data sets that come with scikit-learn.

Each test holds a result against the plain estimator, against the same steps by hand or against a bound of the data set.
"""

import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from scipy.stats import loguniform, uniform
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor, make_column_selector
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris, load_linnerud, load_wine
from sklearn.ensemble import (
    AdaBoostClassifier,
    AdaBoostRegressor,
    BaggingClassifier,
    BaggingRegressor,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.exceptions import NotFittedError, UnsetMetadataPassedError
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.feature_selection import RFE, RFECV, SelectFromModel, SequentialFeatureSelector
from sklearn.frozen import FrozenEstimator
from sklearn.inspection import partial_dependence, permutation_importance
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import balanced_accuracy_score, brier_score_loss, get_scorer, log_loss
from sklearn.model_selection import (
    FixedThresholdClassifier,
    GridSearchCV,
    HalvingGridSearchCV,
    KFold,
    RandomizedSearchCV,
    StratifiedKFold,
    TunedThresholdClassifierCV,
    cross_val_predict,
    cross_validate,
    learning_curve,
    train_test_split,
    validation_curve,
)
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier, OutputCodeClassifier
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier, MultiOutputRegressor, RegressorChain
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import KBinsDiscretizer, OneHotEncoder, StandardScaler
from sklearn.semi_supervised import SelfTrainingClassifier
from sklearn.tree import DecisionTreeClassifier

from skdnn import MLPDeepClassifier, MLPDeepRegressor
from skdnn.components import L2, Momentum


def split(load, n_rows=None, is_scaled=True):
    """Return training and test rows of a data set, features at one scale."""
    X, y = load(return_X_y=True)
    X, y = X[:n_rows], y[:n_rows]
    X, X_test, y, y_test = train_test_split(X, y, test_size=0.4, stratify=None if load is load_diabetes else y, random_state=0)
    if is_scaled:
        scaler = StandardScaler().fit(X)
        X, X_test = scaler.transform(X), scaler.transform(X_test)
    return X, X_test, y, y_test


IRIS = split(load_iris)
WINE = split(load_wine)
CANCER = split(load_breast_cancer)
DIABETES = split(load_diabetes)
DIGITS = split(load_digits, 700)
SPECIES = load_iris().target_names


def flip(y, share=0.2, random_state=0):
    """Return the labels with a share of them drawn anew: what a network can learn by heart but not predict."""
    random = np.random.RandomState(random_state)
    return np.where(random.uniform(size=len(y)) < share, random.choice(np.unique(y), len(y)), y)


def with_noise(X, n_columns, random_state=0):
    return np.hstack([X, np.random.RandomState(random_state).normal(size=(len(X), n_columns))])


# All epochs are run, whatever max_iter a meta-estimator sets.
COMMON = {
    "hidden_layer_sizes": (16,),
    "batch_size": 32,
    "learning_rate_init": 0.01,
    "random_state": 0,
    "n_iter_no_change": np.inf,
}


def make(**params):
    return MLPDeepClassifier(**COMMON | {"max_iter": 15} | params)


def make_regressor(**params):
    return MLPDeepRegressor(**COMMON | {"max_iter": 15} | params)


def assert_same_network(a, b):
    for mine, theirs in zip(a.coefs_ + a.intercepts_, b.coefs_ + b.intercepts_, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.fixture
def _routing():
    with sklearn.config_context(enable_metadata_routing=True):
        yield


# preprocessing ------------------------------------------------------------------------------------------------------------


def test_a_pipeline_is_its_steps_by_hand():
    X, X_test, y, y_test = split(load_wine, is_scaled=False)
    pipeline = make_pipeline(StandardScaler(), make()).fit(X, y)
    by_hand = make().fit(WINE[0], y)
    np.testing.assert_array_equal(pipeline.predict_proba(X_test), by_hand.predict_proba(WINE[1]))
    assert pipeline.score(X_test, y_test) > 0.95
    assert pipeline.score(X_test, y_test) > make().fit(X, y).score(X_test, y_test) + 0.1
    np.testing.assert_array_equal(pipeline.classes_, by_hand.classes_)
    assert pipeline.n_features_in_ == 13


def test_a_pipeline_reaches_into_techniques():
    pipeline = make_pipeline(StandardScaler(), make(optimizer=Momentum()))
    pipeline.set_params(mlpdeepclassifier__optimizer__momentum=0.5)
    assert pipeline[-1].optimizer == Momentum(0.5)
    assert clone(pipeline).get_params()["mlpdeepclassifier__optimizer__momentum"] == 0.5


def mixed_patients():
    """The diabetes data with sex as a word, and a target that depends on it, too."""
    frame, y = load_diabetes(return_X_y=True, as_frame=True)
    frame["sex"] = np.where(frame["sex"] > 0, "one", "other")
    return train_test_split(frame, y + 200 * (frame["sex"] == "one"), random_state=0)


def mixed_pipeline(**params):
    columns = ColumnTransformer(
        [
            ("numbers", StandardScaler(), make_column_selector(dtype_include=np.number)),
            ("words", OneHotEncoder(), make_column_selector(dtype_exclude=np.number)),
        ],
        **params,
    )
    return make_pipeline(columns, make_regressor(max_iter=60))


def test_a_column_transformer_brings_words_and_numbers_together():
    X, X_test, y, y_test = mixed_patients()
    model = mixed_pipeline(sparse_threshold=0).fit(X, y)
    assert model[-1].n_features_in_ == 11
    numbers = make_pipeline(StandardScaler(), make_regressor(max_iter=60)).fit(X.drop(columns="sex"), y)
    assert model.score(X_test, y_test) > numbers.score(X_test.drop(columns="sex"), y_test) + 0.2
    # Columns are found by their names, in any order.
    np.testing.assert_array_equal(model.predict(X_test[X_test.columns[::-1]]), model.predict(X_test))


def test_feature_names_go_through_a_pipeline():
    X, y = load_wine(return_X_y=True, as_frame=True)
    pipeline = make_pipeline(StandardScaler(), make(max_iter=2)).set_output(transform="pandas").fit(X, y)
    assert list(pipeline[-1].feature_names_in_) == list(X.columns)


def test_a_sparse_column_transformer_is_a_dense_one():
    X, X_test, y, _ = mixed_patients()
    dense, sparse = (mixed_pipeline(sparse_threshold=threshold).fit(X, y) for threshold in (0.0, 1.0))
    assert sparse[0].sparse_output_
    np.testing.assert_allclose(sparse.predict(X_test), dense.predict(X_test), rtol=1e-6)


def test_one_hot_bins_are_taken_as_they_come():
    X, X_test, y, y_test = IRIS
    bins = KBinsDiscretizer(5, quantile_method="averaged_inverted_cdf")
    sparse = make_pipeline(bins, make()).fit(X, y)  # of CSR, by default
    dense = make_pipeline(clone(bins).set_params(encode="onehot-dense"), make()).fit(X, y)
    np.testing.assert_allclose(sparse.predict_proba(X_test), dense.predict_proba(X_test), rtol=1e-6)
    assert sparse.score(X_test, y_test) > 0.9


# calibration --------------------------------------------------------------------------------------------------------------


def brier(y, probabilities):
    return brier_score_loss(y, probabilities[:, 1] if probabilities.shape[1] == 2 else probabilities)


@pytest.mark.parametrize("ensemble", [True, False])
@pytest.mark.parametrize("method", ["sigmoid", "isotonic", "temperature"])
@pytest.mark.parametrize("data", [CANCER, WINE], ids=["binary", "multiclass"])
def test_calibration_mends_overconfidence(data, method, ensemble):
    X, X_test, y, y_test = data
    y, y_test = flip(y, 0.3), flip(y_test, 0.3, random_state=1)
    overconfident = make(max_iter=60, hidden_layer_sizes=(64,))
    plain = clone(overconfident).fit(X, y).predict_proba(X_test)
    calibrated = CalibratedClassifierCV(overconfident, method=method, cv=3, ensemble=ensemble).fit(X, y).predict_proba(X_test)
    np.testing.assert_allclose(calibrated.sum(axis=1), 1.0, rtol=1e-6)
    assert brier(y_test, calibrated) < brier(y_test, plain)
    # The steps of an isotonic regression hold zeros, which a single row makes infinitely wrong.
    if method != "isotonic":
        assert log_loss(y_test, calibrated) < 0.75 * log_loss(y_test, plain)


def test_calibration_of_a_frozen_network_keeps_it():
    X, X_test, y, y_test = CANCER
    y, y_test = flip(y), flip(y_test, random_state=1)
    clf = make(max_iter=60, hidden_layer_sizes=(64,)).fit(X[:200], y[:200])
    before = clone(clf).fit(X[:200], y[:200])
    calibrated = CalibratedClassifierCV(FrozenEstimator(clf), method="temperature").fit(X[200:], y[200:])
    assert_same_network(clf, before)
    np.testing.assert_array_equal(calibrated.predict(X_test), clf.predict(X_test))  # a temperature keeps the order
    assert calibrated.calibrated_classifiers_[0].calibrators[0].beta_ < 0.9  # that is above one: it was overconfident
    assert log_loss(y_test, calibrated.predict_proba(X_test)) < log_loss(y_test, clf.predict_proba(X_test))


def test_calibration_takes_weights():
    X, X_test, y, y_test = CANCER
    noisy = flip(y, 0.6)
    trust = (noisy == y).astype(float)
    models = [CalibratedClassifierCV(make(), cv=3).fit(X, noisy, sample_weight=weight) for weight in (trust, None)]
    weighted, plain = (log_loss(y_test, model.predict_proba(X_test)) for model in models)
    assert weighted < 0.2 < plain


# ensembles ----------------------------------------------------------------------------------------------------------------


def test_bagging_steadies_a_classifier():
    X, X_test, y, y_test = CANCER
    y, y_test = flip(y), flip(y_test, random_state=1)
    single = make(max_iter=30).fit(X, y)
    bagging = BaggingClassifier(make(max_iter=30), n_estimators=20, oob_score=True, random_state=0).fit(X, y)
    assert bagging.score(X_test, y_test) > single.score(X_test, y_test) - 0.02
    assert log_loss(y_test, bagging.predict_proba(X_test)) < 0.97 * log_loss(y_test, single.predict_proba(X_test))
    assert bagging.oob_score_ == pytest.approx(bagging.score(X_test, y_test), abs=0.06)
    # Each network has a seed of its own; the same seed of the ensemble gives the same ensemble.
    assert len({clf.random_state for clf in bagging.estimators_}) == 20
    again = clone(bagging).fit(X, y)
    np.testing.assert_array_equal(again.predict_proba(X_test), bagging.predict_proba(X_test))


def test_bagging_steadies_a_regressor():
    X, X_test, y, y_test = DIABETES
    single = make_regressor(max_iter=100).fit(X, y)  # that is too long
    bagging = BaggingRegressor(make_regressor(max_iter=100), n_estimators=6, random_state=0).fit(X, y)
    assert bagging.score(X_test, y_test) > single.score(X_test, y_test) + 0.04
    assert bagging.score(X_test, y_test) > 0.2


def test_bagging_on_some_features():
    X, X_test, y, y_test = WINE
    bagging = BaggingClassifier(make(), n_estimators=5, max_features=0.5, bootstrap=False, random_state=0).fit(X, y)
    assert all(clf.n_features_in_ == 6 for clf in bagging.estimators_)
    assert bagging.score(X_test, y_test) > 0.93


def test_boosting_raises_weak_classifiers():
    X, X_test, y, y_test = DIGITS
    weak = make(hidden_layer_sizes=(4,), max_iter=10)
    boosted = AdaBoostClassifier(weak, n_estimators=12, random_state=0).fit(X, y)
    assert np.isfinite(boosted.estimator_weights_).all()
    assert (boosted.estimator_weights_ > 0).all()
    assert ((boosted.estimator_errors_ > 0) & (boosted.estimator_errors_ < 0.9)).all()
    assert len(boosted.estimators_) == 12
    assert boosted.score(X_test, y_test) > boosted.estimators_[0].score(X_test, y_test) + 0.05
    assert boosted.score(X_test, y_test) > 0.8


def test_boosting_looks_at_the_rows_that_went_wrong():
    X, _, y, _ = DIGITS
    boosted = AdaBoostClassifier(make(hidden_layer_sizes=(4,), max_iter=10), n_estimators=2, random_state=0).fit(X, y)
    first, second = boosted.estimators_
    wrong = first.predict(X) != y
    assert 0 < wrong.sum() < len(y) / 2
    assert second.score(X[wrong], y[wrong]) > 0.6


def test_boosting_raises_weak_regressors():
    X, X_test, y, y_test = DIABETES
    boosted = AdaBoostRegressor(make_regressor(hidden_layer_sizes=(4,)), n_estimators=10, random_state=0).fit(X, y)
    assert np.isfinite(boosted.estimator_weights_).all()
    assert boosted.score(X_test, y_test) > 0.4


@pytest.mark.parametrize("passthrough", [True, False])
def test_a_stack_is_no_worse_than_its_best_part(passthrough):
    X, X_test, y, y_test = DIGITS
    parts = [("net", make()), ("tree", DecisionTreeClassifier(max_depth=5, random_state=0))]
    stack = StackingClassifier(parts, LogisticRegression(max_iter=2000), cv=3, passthrough=passthrough).fit(X, y)
    assert stack.stack_method_ == ["predict_proba", "predict_proba"]
    net, tree = (clone(part).fit(X, y).score(X_test, y_test) for _, part in parts)
    assert tree < net - 0.1
    assert stack.score(X_test, y_test) > net - 0.02


def test_a_network_may_crown_a_stack():
    X, X_test, y, y_test = WINE
    parts = [("net", make(max_iter=10)), ("tree", DecisionTreeClassifier(max_depth=3, random_state=0))]
    stack = StackingClassifier(parts, make(max_iter=60), cv=3).fit(X, y)
    assert stack.final_estimator_.n_features_in_ == 6
    assert stack.score(X_test, y_test) > 0.93


def test_a_stack_of_frozen_networks():
    X, X_test, y, y_test = WINE
    parts = [(name, FrozenEstimator(make(activation=name).fit(X[:50], y[:50]))) for name in ("relu", "tanh")]
    stack = StackingClassifier(parts, cv="prefit").fit(X[50:], y[50:])
    assert_same_network(stack.named_estimators_["tanh"], parts[1][1])
    assert stack.score(X_test, y_test) > 0.93


def test_a_stack_of_regressors():
    X, X_test, y, y_test = DIABETES
    parts = [("net", make_regressor()), ("ridge", Ridge())]
    for final in (Ridge(), make_pipeline(StandardScaler(), make_regressor(hidden_layer_sizes=(), max_iter=60))):
        assert StackingRegressor(parts, final, cv=3).fit(X, y).score(X_test, y_test) > 0.37


@pytest.mark.parametrize("voting", ["soft", "hard"])
def test_votes_are_those_of_the_networks(voting):
    X, X_test, y, y_test = DIGITS
    parts = [(str(seed), make(random_state=seed, hidden_layer_sizes=(8,))) for seed in range(3)]
    committee = VotingClassifier(parts, voting=voting).fit(X, y)
    alone = [part.fit(X, y) for _, part in parts]
    if voting == "soft":
        expected = np.mean([clf.predict_proba(X_test) for clf in alone], axis=0)
        np.testing.assert_allclose(committee.predict_proba(X_test), expected, rtol=1e-12)
    else:
        votes = np.sum([clf.predict(X_test)[:, np.newaxis] == np.arange(10) for clf in alone], axis=0)
        np.testing.assert_array_equal(committee.predict(X_test), votes.argmax(axis=1))
    assert committee.score(X_test, y_test) > np.mean([clf.score(X_test, y_test) for clf in alone])


def test_votes_of_regressors_are_their_mean():
    X, X_test, y, y_test = DIABETES
    parts = [(str(seed), make_regressor(random_state=seed)) for seed in range(3)]
    committee = VotingRegressor(parts).fit(X, y)
    alone = [part.fit(X, y) for _, part in parts]
    np.testing.assert_allclose(committee.predict(X_test), np.mean([reg.predict(X_test) for reg in alone], axis=0), rtol=1e-12)
    assert committee.score(X_test, y_test) > np.mean([reg.score(X_test, y_test) for reg in alone])


@pytest.mark.parametrize("fit_params", [{}, {"sample_weight": 1}], ids=["plain", "weighted"])
def test_a_vote_takes_weights(fit_params):
    X, X_test, y, y_test = CANCER
    noisy = flip(y, 0.6)
    fit_params = {name: (noisy == y).astype(float) for name in fit_params}
    committee = VotingClassifier([("a", make()), ("b", make(random_state=1))], voting="soft").fit(X, noisy, **fit_params)
    loss = log_loss(y_test, committee.predict_proba(X_test))
    assert loss < 0.2 if fit_params else loss > 0.3


# several classes, several targets -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrap", "n_networks"),
    [
        (OneVsRestClassifier, 3),
        (OneVsOneClassifier, 3),
        (lambda clf: OutputCodeClassifier(clf, code_size=2, random_state=3), 6),
    ],
    ids=["one_vs_rest", "one_vs_one", "output_code"],
)
def test_many_binary_networks_are_as_good_as_one(wrap, n_networks):
    X, X_test, y, y_test = IRIS
    model = wrap(make(max_iter=30)).fit(X, SPECIES[y])
    assert len(model.estimators_) == n_networks
    assert all(clf.n_outputs_ == 1 for clf in model.estimators_)
    single = make(max_iter=30).fit(X, SPECIES[y])
    assert model.score(X_test, SPECIES[y_test]) >= single.score(X_test, SPECIES[y_test]) - 0.06
    np.testing.assert_array_equal(model.classes_, single.classes_)


def test_one_vs_rest_takes_labels_of_several_tags():
    X, X_test, y, y_test = DIGITS
    tags, tags_test = (np.column_stack([y % 2, y >= 5, y % 3 == 0]).astype(int) for y in (y, y_test))
    model = OneVsRestClassifier(make()).fit(X, tags)
    assert model.multilabel_
    np.testing.assert_array_equal(model.predict(X_test), (model.predict_proba(X_test) > 0.5).astype(int))
    assert model.score(X_test, tags_test) > 0.75


def test_each_output_has_a_network():
    X, X_test, y, y_test = DIGITS
    targets, targets_test = (np.column_stack([y // 4, y % 2]) for y in (y, y_test))  # three classes and two
    model = MultiOutputClassifier(make()).fit(X, targets)
    assert [clf.n_outputs_ for clf in model.estimators_] == [3, 1]
    assert model.score(X_test, targets_test) > 0.75
    for k, clf in enumerate(model.estimators_):
        assert_same_network(clf, make().fit(X, targets[:, k]))


def test_a_chain_knows_the_labels_before():
    X, X_test, y, y_test = DIGITS
    # What the first label says decides the second, which the rows alone show less well.
    labels, labels_test = (np.column_stack([y % 2, 1 - y % 2]) for y in (y, y_test))
    chain = ClassifierChain(make(), random_state=0).fit(X, labels)
    assert [clf.n_features_in_ for clf in chain.estimators_] == [64, 65]
    predicted = chain.predict(X_test)
    assert np.mean(predicted.sum(axis=1) == 1) > 0.98  # never both
    assert chain.score(X_test, labels_test) > 0.8
    assert ((chain.predict_proba(X_test) > 0.5) == predicted).all()


def test_linnerud_in_one_network_or_three():
    X, y = load_linnerud(return_X_y=True)
    X = StandardScaler().fit_transform(X)
    estimator = make_regressor(max_iter=150, learning_rate_init=0.03)
    one = clone(estimator).fit(X, y)
    assert one.predict(X).shape == y.shape
    assert one.score(X, y) > 0.8
    three = MultiOutputRegressor(estimator).fit(X, y)
    assert three.score(X, y) > 0.8
    for k, reg in enumerate(three.estimators_):
        np.testing.assert_array_equal(three.predict(X)[:, k], reg.predict(X))
    # The chain hands on targets in their own unit.
    chain = RegressorChain(make_pipeline(StandardScaler(), estimator)).fit(X, y)
    assert [pipeline.n_features_in_ for pipeline in chain.estimators_] == [3, 4, 5]
    assert chain.score(X, y) > 0.8


def test_a_transformed_target_is_the_transform_by_hand():
    X, X_test, y, y_test = DIABETES
    model = TransformedTargetRegressor(make_regressor(), func=np.log, inverse_func=np.exp).fit(X, y)
    np.testing.assert_allclose(model.predict(X_test), np.exp(make_regressor().fit(X, np.log(y)).predict(X_test)), rtol=1e-12)
    assert (model.predict(X_test) > 0).all()
    assert model.score(X_test, y_test) > 0.2


def test_a_transformed_scale_changes_nothing():
    # Targets are standardised anyway.
    X, X_test, y, _ = DIABETES
    model = TransformedTargetRegressor(make_regressor(), transformer=StandardScaler()).fit(X, y)
    np.testing.assert_allclose(model.predict(X_test), make_regressor().fit(X, y).predict(X_test), rtol=1e-6)


# what a network has learned -----------------------------------------------------------------------------------------------


def test_permutation_importance_tells_features_from_noise():
    X, X_test, y, y_test = IRIS
    clf = make(max_iter=30).fit(with_noise(X, 3), y)
    importance = permutation_importance(clf, with_noise(X_test, 3, 1), y_test, n_repeats=5, random_state=0).importances_mean
    petals, noise = importance[2:4], importance[4:]
    assert petals.min() > 0.1 > 2 * np.abs(noise).max()


def test_permutation_importance_of_a_regressor():
    X, X_test, y, y_test = DIABETES
    reg = make_regressor(regularizer=L2(0.3)).fit(with_noise(X, 2), y)
    importance = permutation_importance(reg, with_noise(X_test, 2, 1), y_test, n_repeats=5, random_state=0).importances_mean
    assert {2, 8} == set(np.argsort(importance)[-2:])  # the body mass index and a blood serum measurement
    assert np.abs(importance[-2:]).max() < 0.05


def test_partial_dependence_rises_with_the_body_mass_index():
    X, _, y, _ = DIABETES
    curve = partial_dependence(make_regressor().fit(X, y), X, features=[2], kind="average", grid_resolution=5)["average"][0]
    assert (np.diff(curve) > 0).all()


def test_forward_selection_finds_the_petals():
    X, _, y, _ = IRIS
    selector = SequentialFeatureSelector(make(max_iter=10), n_features_to_select=2, cv=2).fit(with_noise(X, 2), y)
    assert {2, 3} & set(selector.get_support(indices=True))
    assert not {4, 5} & set(selector.get_support(indices=True))


def reach(estimator):
    """How far each feature reaches into the first layer."""
    return np.linalg.norm(estimator.coefs_[0], axis=1)


@pytest.mark.parametrize(
    "make_selector",
    [
        lambda clf: RFE(clf, n_features_to_select=4, importance_getter=reach),
        lambda clf: RFECV(clf, min_features_to_select=2, step=2, cv=2, importance_getter=reach),
        lambda clf: SelectFromModel(clf, threshold=-np.inf, max_features=4, importance_getter=reach),
    ],
    ids=["RFE", "RFECV", "SelectFromModel"],
)
def test_selection_by_the_kernel_of_the_first_layer(make_selector):
    X, _, y, _ = IRIS
    selector = make_selector(make(max_iter=40, regularizer=L2(0.05))).fit(with_noise(X, 6), y)
    assert {2, 3} <= set(selector.get_support(indices=True))


# model selection ----------------------------------------------------------------------------------------------------------


def test_a_learning_curve_rises():
    X, _, y, _ = DIGITS
    sizes, train, test = learning_curve(make(), X, y, train_sizes=[40, 100, 250], cv=3, shuffle=True, random_state=0)
    np.testing.assert_array_equal(sizes, [40, 100, 250])
    mean = test.mean(axis=1)
    assert (np.diff(mean) > 0.03).all()
    assert mean[-1] > 0.85
    assert (train.mean(axis=1) > mean).all()


def test_a_learning_curve_by_partial_fit():
    X, _, y, _ = DIGITS
    sizes = np.linspace(0.1, 1.0, 10)
    for estimator, targets in ((make(), y), (make_regressor(), y.astype(float))):
        curve = learning_curve(estimator, X, targets, train_sizes=sizes, cv=2, exploit_incremental_learning=True)[2]
        mean = curve.mean(axis=1)
        assert mean[-1] > mean[0] + 0.2


@pytest.mark.parametrize(
    ("name", "values"),
    [("hidden_layer_sizes", [(1,), (4,), (32,)]), ("max_iter", [1, 4, 30]), ("learning_rate_init", [1e-5, 1e-3, 1e-2])],
)
def test_a_validation_curve_rises_with_what_a_network_is_given(name, values):
    X, _, y, _ = DIGITS
    train, test = validation_curve(make(), X, y, param_name=name, param_range=values, cv=2)
    assert (np.diff(train.mean(axis=1)) > 0).all()
    assert (np.diff(test.mean(axis=1)) > 0).all()


@pytest.mark.parametrize("is_regressor", [False, True])
def test_halving_spends_epochs(is_regressor):
    X, _, y, _ = DIABETES if is_regressor else DIGITS
    estimator = make_regressor() if is_regressor else make()
    search = HalvingGridSearchCV(
        estimator,
        {"learning_rate_init": [1e-7, 1e-6, 1e-5, 1e-4, 5e-3, 1e-2]},
        resource="max_iter",
        min_resources=2,
        max_resources=18,
        cv=2,
        random_state=0,
    ).fit(X, y)
    assert search.n_resources_ == [2, 6]
    assert search.n_candidates_ == [6, 2]
    assert search.best_params_["learning_rate_init"] >= 5e-3
    assert search.best_params_["max_iter"] == search.best_estimator_.n_iter_ == 6
    np.testing.assert_array_equal(search.cv_results_["param_max_iter"], [2] * 6 + [6] * 2)


def test_a_random_search_draws_from_distributions():
    X, X_test, y, y_test = WINE
    distributions = {
        "learning_rate_init": loguniform(1e-6, 1e-1),
        "optimizer__momentum": uniform(0.0, 0.95),
        "regularizer__l2": loguniform(1e-5, 1e-1),
        "hidden_layer_sizes": [(8,), (16, 8)],
    }
    estimator = make(optimizer=Momentum(), regularizer=L2())
    search = RandomizedSearchCV(estimator, distributions, n_iter=6, cv=2, random_state=0).fit(X, y)
    scores = search.cv_results_["mean_test_score"]
    assert search.best_score_ == scores.max() > scores.min() + 0.2
    best = search.best_estimator_
    assert best.optimizer == Momentum(search.best_params_["optimizer__momentum"])
    assert best.regularizer == L2(search.best_params_["regularizer__l2"])
    assert search.score(X_test, y_test) > 0.93
    assert (estimator.optimizer, estimator.regularizer) == (Momentum(), L2())  # as they were given


@pytest.mark.parametrize("method", ["predict_proba", "predict_log_proba", "decision_function", "predict"])
@pytest.mark.parametrize("data", [CANCER, WINE], ids=["binary", "multiclass"])
def test_cross_validated_predictions_are_those_of_the_folds(data, method):
    X, _, y, _ = data
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    predicted = cross_val_predict(make(), X, y, cv=folds, method=method)
    for train, test in folds.split(X, y):
        np.testing.assert_array_equal(predicted[test], getattr(make().fit(X[train], y[train]), method)(X[test]))
    if method == "predict_proba":
        assert log_loss(y, predicted) < 0.25


def test_cross_validated_predictions_of_a_regressor():
    X, _, y, _ = DIABETES
    predicted = cross_val_predict(make_regressor(), X, y, cv=KFold(3))
    for train, test in KFold(3).split(X):
        np.testing.assert_array_equal(predicted[test], make_regressor().fit(X[train], y[train]).predict(X[test]))


def test_several_scores_at_once():
    X, _, y, _ = CANCER
    scoring = ["accuracy", "roc_auc", "neg_log_loss", "neg_brier_score", "average_precision", "d2_log_loss_score"]
    results = cross_validate(make(), X, y, cv=3, scoring=scoring, return_train_score=True, return_estimator=True)
    assert results["test_roc_auc"].min() > 0.97
    assert results["test_d2_log_loss_score"].min() > 0.7
    assert (results["train_neg_log_loss"] > results["test_neg_log_loss"]).all()
    folds = StratifiedKFold(3).split(X, y)
    for (_, test), clf, accuracy in zip(folds, results["estimator"], results["test_accuracy"], strict=True):
        assert clf.score(X[test], y[test]) == accuracy


def test_a_tuned_threshold_serves_the_rare_class():
    X, X_test, y, y_test = DIGITS
    y, y_test = y == 8, y_test == 8
    plain = make(max_iter=3).fit(X, y)
    tuned = TunedThresholdClassifierCV(make(max_iter=3), scoring="balanced_accuracy", thresholds=30, cv=3, random_state=0).fit(
        X, y
    )
    assert tuned.best_threshold_ < 0.4
    before, after = (balanced_accuracy_score(y_test, model.predict(X_test)) for model in (plain, tuned))
    assert after > before + 0.02


@pytest.mark.parametrize("method", ["predict_proba", "decision_function"])
def test_a_fixed_threshold_is_held(method):
    X, X_test, y, _ = CANCER
    fixed = FixedThresholdClassifier(make(), threshold=0.9, response_method=method).fit(X, y)
    values = getattr(make().fit(X, y), method)(X_test)
    values = values[:, 1] if method == "predict_proba" else values
    np.testing.assert_array_equal(fixed.predict(X_test), (values >= 0.9).astype(int))


def test_self_training_uses_rows_without_labels():
    X, X_test, y, y_test = DIGITS
    labelled = np.arange(len(y)) < 60
    supervised = make(max_iter=40).fit(X[labelled], y[labelled])
    model = SelfTrainingClassifier(make(max_iter=40), threshold=0.95, max_iter=4).fit(X, np.where(labelled, y, -1))
    assert (model.labeled_iter_ > 0).sum() > 200
    found = model.labeled_iter_ > 0
    assert np.mean(model.transduction_[found] == y[found]) > 0.85
    assert model.score(X_test, y_test) > supervised.score(X_test, y_test)


@pytest.mark.parametrize("is_regressor", [False, True])
def test_what_is_monitored_is_a_hyperparameter(is_regressor):
    X, X_val, y, y_val = DIABETES if is_regressor else WINE
    estimator = make_regressor() if is_regressor else make()
    scorer = "neg_median_absolute_error" if is_regressor else "neg_log_loss"
    estimator.set_params(max_iter=10, early_stopping=True)
    search = GridSearchCV(estimator, {"monitor": ["auto", "loss", scorer]}, cv=2).fit(X, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    fitted = clone(estimator).set_params(monitor=scorer).fit(X, y, X_val=X_val, y_val=y_val)
    assert fitted.best_validation_score_ == pytest.approx(get_scorer(scorer)(fitted, X_val, y_val))
    fitted = clone(estimator).set_params(monitor="loss").fit(X, y, X_val=X_val, y_val=y_val)
    assert fitted.best_epoch_ == np.argmin(fitted.history_[:, "valid_loss"]) + 1


def test_smooth_labels_are_a_cure_of_overconfidence():
    X, X_test, y, y_test = WINE
    y, y_test = flip(y, 0.3), flip(y_test, 0.3, random_state=1)
    estimator = make(max_iter=60, hidden_layer_sizes=(64,))
    train, test = validation_curve(
        estimator, X, y, param_name="label_smoothing", param_range=[0.0, 0.3], scoring="neg_log_loss", cv=3
    )
    assert train.mean(axis=1)[0] > train.mean(axis=1)[1]  # less is learned by heart
    assert test.mean(axis=1)[0] < test.mean(axis=1)[1]
    plain, smooth = (clone(estimator).set_params(label_smoothing=share).fit(X, y) for share in (0.0, 0.3))
    assert log_loss(y_test, smooth.predict_proba(X_test)) < 0.7 * log_loss(y_test, plain.predict_proba(X_test))


# copies -------------------------------------------------------------------------------------------------------------------


def test_a_clone_is_unfitted_and_learns_the_same():
    X, X_test, y, _ = WINE
    model = GridSearchCV(make_pipeline(StandardScaler(), make()), {"mlpdeepclassifier__dropout": [0.0, 0.2]}, cv=2).fit(X, y)
    copied = clone(model)
    with pytest.raises(NotFittedError):
        copied.predict(X_test)
    np.testing.assert_array_equal(copied.fit(X, y).predict_proba(X_test), model.predict_proba(X_test))


@pytest.fixture
def _every_warning():
    """Let torch warn each time: it gives most of its warnings only once in a process, to whichever test comes first."""
    before = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    yield
    torch.set_warn_always(before)


def by_pickle(model, folder):
    return pickle.loads(pickle.dumps(model))


def by_joblib(model, folder):
    joblib.dump(model, folder / "model.joblib")
    return joblib.load(folder / "model.joblib")


def by_memory_map(model, folder):
    joblib.dump(model, folder / "model.joblib")
    return joblib.load(folder / "model.joblib", mmap_mode="r")


def by_compression(model, folder):
    joblib.dump(model, folder / "model.joblib.gz", compress=3)
    return joblib.load(folder / "model.joblib.gz")


def by_cloudpickle(model, folder):
    return pickle.loads(pytest.importorskip("cloudpickle").dumps(model))


@pytest.mark.usefixtures("_every_warning")
@pytest.mark.parametrize("copy", [by_pickle, by_joblib, by_memory_map, by_compression, by_cloudpickle])
@pytest.mark.parametrize(
    ("model", "data"),
    [
        (
            GridSearchCV(make_pipeline(StandardScaler(), make(max_iter=5)), {"mlpdeepclassifier__dropout": [0.0, 0.2]}, cv=2),
            WINE,
        ),
        (BaggingRegressor(make_regressor(max_iter=5), n_estimators=2, random_state=0), DIABETES),
        (CalibratedClassifierCV(make(max_iter=5), method="temperature", cv=2), WINE),
    ],
    ids=["search", "bagging", "calibration"],
)
def test_a_copied_model_predicts_and_learns_the_same(model, data, copy, tmp_path):
    X, X_test, y, _ = data
    model = clone(model).fit(X, y)
    copied = copy(model, tmp_path)
    expected = model.predict(X_test)
    np.testing.assert_array_equal(copied.predict(X_test), expected)
    np.testing.assert_array_equal(copied.fit(X, y).predict(X_test), expected)


@pytest.mark.usefixtures("_every_warning")
@pytest.mark.parametrize("copy", [by_pickle, by_memory_map])
@pytest.mark.parametrize("warm_start", [False, True])
@pytest.mark.parametrize(
    ("make_estimator", "data"), [(make, WINE), (make_regressor, DIABETES)], ids=["classifier", "regressor"]
)
def test_a_copy_goes_on(make_estimator, data, warm_start, copy, tmp_path):
    X, _, y, _ = data
    estimator = make_estimator(batch_norm=True, warm_start=True, optimizer="sgd").fit(X, y)
    copied = copy(estimator, tmp_path)
    for model in (estimator, copied):
        if warm_start:
            model.fit(X, y)
        else:
            model.partial_fit(X, y)
    assert_same_network(copied, estimator)
    assert copied.loss_curve_ == estimator.loss_curve_
    assert copied.loss_ < copied.loss_curve_[0]
    np.testing.assert_array_equal(copied.predict(X), estimator.predict(X))


# metadata routing ---------------------------------------------------------------------------------------------------------

METADATA = {
    "fit": {"sample_weight", "X_val", "y_val", "sample_weight_val"},
    "partial_fit": {"sample_weight"},
    "score": {"sample_weight"},
}


@pytest.mark.usefixtures("_routing")
@pytest.mark.parametrize("estimator", [make(), make_regressor()], ids=["classifier", "regressor"])
def test_metadata_that_can_be_asked_for(estimator):
    requests = estimator.get_metadata_routing()
    for method, names in METADATA.items():
        asked = getattr(requests, method).requests
        assert set(asked) - {"classes"} == names
        assert set(asked.values()) == {None}  # nobody asks before the user does
    assert ("classes" in requests.partial_fit.requests) == isinstance(estimator, MLPDeepClassifier)


@pytest.mark.usefixtures("_routing")
@pytest.mark.parametrize("name", ["sample_weight", "X_val"])
def test_metadata_that_nobody_asked_for_are_refused(name):
    X, X_test, y, _ = WINE
    value = np.ones(len(y)) if name == "sample_weight" else X_test
    search = GridSearchCV(make(), {"dropout": [0.0, 0.2]}, cv=2)
    with pytest.raises(UnsetMetadataPassedError, match=rf"\[{name}\] are passed but are not explicitly set as requested"):
        search.fit(X, y, **{name: value})


def weights_of(y):
    """Weights that leave out some rows and differ for the others."""
    return np.arange(len(y)) % 4 / 2.0


@pytest.mark.usefixtures("_routing")
@pytest.mark.parametrize("is_regressor", [False, True])
def test_all_metadata_reach_the_network_in_a_pipeline_in_a_search(is_regressor):
    X, X_val, y, y_val = split(load_diabetes if is_regressor else load_wine, is_scaled=False)
    params = {"batch_norm": True, "n_iter_no_change": 3, "max_iter": 3}
    net = (make_regressor if is_regressor else make)(**params)
    alone = clone(net)
    net.set_fit_request(sample_weight=True, X_val=True, y_val=True, sample_weight_val=True)
    net.set_score_request(sample_weight=True)
    pipeline = Pipeline(
        [("scale", StandardScaler().set_fit_request(sample_weight=False)), ("net", net)], transform_input=["X_val"]
    )
    folds = KFold(2, shuffle=True, random_state=0)
    search = GridSearchCV(pipeline, {"net__dropout": [0.0, 0.2]}, cv=folds)
    weight, weight_val = weights_of(y), weights_of(y_val)
    search.fit(X, y, sample_weight=weight, X_val=X_val, y_val=y_val, sample_weight_val=weight_val)

    def fit_by_hand(rows, dropout):
        scaler = StandardScaler().fit(X[rows])
        own = {"X_val": scaler.transform(X_val), "y_val": y_val, "sample_weight_val": weight_val}
        fitted = clone(alone).set_params(dropout=dropout)
        return scaler, fitted.fit(scaler.transform(X[rows]), y[rows], sample_weight=weight[rows], **own)

    _, best = fit_by_hand(np.arange(len(y)), search.best_params_["net__dropout"])
    assert_same_network(search.best_estimator_["net"], best)
    assert search.best_estimator_["net"].validation_scores_ == best.validation_scores_
    for k, (train, test) in enumerate(folds.split(X, y)):
        for candidate, dropout in enumerate([0.0, 0.2]):
            scaler, fitted = fit_by_hand(train, dropout)
            expected = fitted.score(scaler.transform(X[test]), y[test], sample_weight=weight[test])
            assert search.cv_results_[f"split{k}_test_score"][candidate] == pytest.approx(expected, rel=1e-12)
    # Each of the weights counts: those of the rows in what is learned, those of the own rows in what is kept.
    scaler = StandardScaler().fit(X)
    assert best.best_validation_score_ == pytest.approx(best.score(scaler.transform(X_val), y_val, sample_weight=weight_val))
    unweighted = clone(best).fit(scaler.transform(X), y, X_val=scaler.transform(X_val), y_val=y_val)
    assert (unweighted.coefs_[0] != best.coefs_[0]).any()
    assert unweighted.validation_scores_ != best.validation_scores_


@pytest.mark.usefixtures("_routing")
def test_weights_are_split_with_the_rows():
    X, _, y, _ = CANCER
    noisy = flip(y, 0.6)
    trust = (noisy == y).astype(float)
    clf = make().set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
    plain = cross_validate(make(), X, noisy, cv=3)["test_score"]
    weighted = cross_validate(clf, X, noisy, cv=3, params={"sample_weight": trust})["test_score"]
    assert plain.max() < 0.85 < 0.9 < weighted.min()


WEIGHTED = {
    "bagging": lambda clf: BaggingClassifier(clf, n_estimators=3, random_state=0),
    "calibration": lambda clf: CalibratedClassifierCV(clf, cv=2),
    "one_vs_rest": OneVsRestClassifier,
    "pipeline": lambda clf: Pipeline([("clf", clf)]),
    "stack": lambda clf: StackingClassifier([("clf", clf)], LogisticRegression().set_fit_request(sample_weight=True), cv=2),
    "threshold": lambda clf: FixedThresholdClassifier(clf),
    "vote": lambda clf: VotingClassifier([("a", clf), ("b", clone(clf).set_params(random_state=1))], voting="soft"),
}


@pytest.mark.usefixtures("_routing")
@pytest.mark.parametrize("wrap", WEIGHTED.values(), ids=WEIGHTED)
def test_weights_go_through_meta_estimators(wrap):
    X, X_test, y, y_test = CANCER
    noisy = flip(y, 0.6)
    trust = (noisy == y).astype(float)
    weighted = wrap(make(max_iter=30).set_fit_request(sample_weight=True)).fit(X, noisy, sample_weight=trust)
    unweighted = wrap(make(max_iter=30).set_fit_request(sample_weight=True)).fit(X, noisy)
    assert weighted.score(X_test, y_test) > 0.93
    assert log_loss(y_test, weighted.predict_proba(X_test)) < 0.5 * log_loss(y_test, unweighted.predict_proba(X_test))


@pytest.mark.usefixtures("_routing")
def test_own_validation_rows_go_through_meta_estimators():
    X, X_val, y, y_val = WINE
    clf = make(max_iter=5).set_fit_request(X_val=True, y_val=True)
    for wrap in (lambda clf: VotingClassifier([("clf", clf)]), lambda clf: BaggingClassifier(clf, 2, random_state=0)):
        model = wrap(clf).fit(X, y, X_val=X_val, y_val=y_val)
        for fitted in model.estimators_:
            assert fitted.best_validation_score_ == pytest.approx(fitted.score(X_val, y_val), abs=1e-12)


@pytest.mark.usefixtures("_routing")
def test_metadata_go_by_other_names_where_two_estimators_want_them():
    X, _, y, _ = WINE
    light, heavy = (make(max_iter=5).set_fit_request(sample_weight=name) for name in ("light", "heavy"))
    weights = {"light": weights_of(y), "heavy": weights_of(y[::-1])[::-1]}
    model = VotingClassifier([("light", light), ("heavy", heavy)]).fit(X, y, **weights)
    for name, fitted in model.named_estimators_.items():
        assert_same_network(fitted, make(max_iter=5).fit(X, y, sample_weight=weights[name]))


@pytest.mark.usefixtures("_routing")
def test_partial_fit_of_many_outputs_takes_weights():
    X, _, y, _ = DIGITS
    targets, weight = np.column_stack([y // 4, y % 2]), weights_of(y)
    clf = make().set_partial_fit_request(sample_weight=True)
    model = MultiOutputClassifier(clf)
    model.partial_fit(X, targets, classes=[np.arange(3), np.arange(2)], sample_weight=weight)
    model.partial_fit(X, targets, sample_weight=weight)
    for k, fitted in enumerate(model.estimators_):
        expected = make().partial_fit(X, targets[:, k], classes=np.unique(targets[:, k]), sample_weight=weight)
        assert_same_network(fitted, expected.partial_fit(X, targets[:, k], sample_weight=weight))


def test_early_stopping_within_an_ensemble_sets_its_own_rows_aside():
    X, X_test, y, y_test = DIGITS
    clf = make(early_stopping=True, n_iter_no_change=5, max_iter=200)
    bagging = BaggingClassifier(clf, n_estimators=3, random_state=0).fit(X, y)
    assert all(fitted.best_validation_score_ is not None and fitted.n_iter_ < 200 for fitted in bagging.estimators_)
    assert bagging.score(X_test, y_test) > 0.85


def test_frames_keep_their_names_through_meta_estimators():
    X, y = load_wine(return_X_y=True, as_frame=True)
    X = pd.DataFrame(StandardScaler().fit_transform(X), columns=X.columns)
    for model in (CalibratedClassifierCV(make(max_iter=3), cv=2), StackingClassifier([("clf", make(max_iter=3))], cv=2)):
        assert list(model.fit(X, y).feature_names_in_) == list(X.columns)
        model.predict(X)  # a warning would be an error
