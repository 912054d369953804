"""Effects of techniques against sums written out, and intervals against simulated truth."""

import itertools

import numpy as np
import pytest
from scipy import stats
from sklearn.datasets import load_iris
from sklearn.experimental import enable_halving_search_cv  # noqa: F401 (the next import needs it)
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV, ParameterGrid
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from skdnn import MLPDeepClassifier
from skdnn.components import ELU, L2, Momentum
from skdnn.exceptions import InvalidParameterError
from skdnn.model_selection import technique_effects
from skdnn.model_selection._intervals import mean_and_interval

GRID = {"a": [1, 2, 3], "b": ["x", "y"], "c": [False, True]}


def make_results(params, scores, metric="score", score_type="test"):
    """What a search would say of candidates with scores of shape (n_candidates, n_folds)."""
    return {
        "params": list(params),
        **{f"split{f}_{score_type}_{metric}": column for f, column in enumerate(np.transpose(scores))},
    }


def full_grid(n_folds=4, seed=0):
    params = list(ParameterGrid(GRID))
    return make_results(params, np.random.default_rng(seed).normal(size=(len(params), n_folds)))


def by_value(effects, parameter):
    return {effect.value: effect for effect in effects.of(parameter)}


def pairs(results, parameter, value, reference):
    """Differences of pairs by brute force, in any order."""
    folds = [np.asarray(column) for name, column in results.items() if name.startswith("split")]
    found = []
    for (i, p), (j, q) in itertools.product(enumerate(results["params"]), repeat=2):
        if p == q | {parameter: value} and q.get(parameter) == reference and p != q:
            found.append([column[i] - column[j] for column in folds])
    return np.array(found)


@pytest.mark.parametrize(("parameter", "value"), [("a", 2), ("a", 3), ("b", "y"), ("c", True)])
def test_effects_are_means_of_pairs(parameter, value):
    results = full_grid()
    effect = by_value(technique_effects(results), parameter)[str(value)]
    expected = pairs(results, parameter, value, GRID[parameter][0])
    assert effect.effect == pytest.approx(expected.mean(), abs=1e-12)
    np.testing.assert_allclose(np.sort(effect.differences, axis=0), np.sort(expected, axis=0), atol=1e-12)
    assert effect.n_pairs == len(expected) == 12 // len(GRID[parameter])
    assert effect.n_better == (expected.mean(1) > 0).sum()
    assert effect.n_worse == (expected.mean(1) < 0).sum()
    assert effect.reference == str(GRID[parameter][0])


def test_summaries_of_candidates():
    results = full_grid()
    effect = by_value(technique_effects(results), "b")["y"]
    means = [
        np.mean([results[f"split{f}_test_score"][i] for f in range(4)])
        for i, p in enumerate(results["params"])
        if p["b"] == "y"
    ]
    assert effect.n_candidates == len(means) == 6
    assert effect.mean_score == pytest.approx(np.mean(means))
    assert effect.median_score == pytest.approx(np.median(means))
    assert effect.best_score == pytest.approx(np.max(means))


def test_interval_is_that_of_two_way_random_effects():
    # Large deviations of settings and folds, so that no part is cut off.
    rng = np.random.default_rng(3)
    d = 0.3 + 2.0 * rng.normal(size=(7, 1)) + 3.0 * rng.normal(size=(1, 5)) + 0.5 * rng.normal(size=(7, 5))
    params = list(ParameterGrid({"s": range(7), "t": [0, 1]}))
    results = make_results(params, [d[p["s"]] * p["t"] for p in params])
    effect = by_value(technique_effects(results, confidence=0.9), "t")["1"]
    # The mean squares of the classical table.
    n_s, n_f = d.shape
    square_s = n_f * sum((d[s].mean() - d.mean()) ** 2 for s in range(n_s)) / (n_s - 1)
    square_f = n_s * sum((d[:, f].mean() - d.mean()) ** 2 for f in range(n_f)) / (n_f - 1)
    square_e = sum((d[s, f] - d[s].mean() - d[:, f].mean() + d.mean()) ** 2 for s in range(n_s) for f in range(n_f))
    square_e /= (n_s - 1) * (n_f - 1)
    variance = (square_s + square_f - square_e) / (n_s * n_f)
    parts = square_s**2 / (n_s - 1) + square_f**2 / (n_f - 1) + square_e**2 / ((n_s - 1) * (n_f - 1))
    degrees = (square_s + square_f - square_e) ** 2 / parts
    low, high = stats.t.interval(0.9, degrees, d.mean(), variance**0.5)
    assert (effect.effect, effect.low, effect.high) == pytest.approx((d.mean(), low, high), abs=1e-12)


@pytest.mark.parametrize("shape", [(6, 1), (1, 6)], ids=["one fold", "one setting"])
def test_interval_is_the_paired_t_test_where_only_settings_or_folds_vary(shape):
    d = np.random.default_rng(1).normal(size=shape)
    params = list(ParameterGrid({"s": range(shape[0]), "t": [0, 1]}))
    effect = by_value(technique_effects(make_results(params, [d[p["s"]] * p["t"] for p in params])), "t")["1"]
    expected = stats.ttest_1samp(d.ravel(), 0.0).confidence_interval(0.95)
    assert (effect.low, effect.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_a_single_difference_has_no_interval():
    effect = technique_effects(make_results([{"t": 0}, {"t": 1}], [[0.5], [0.75]])).of("t")[1]
    assert effect.effect == 0.25
    assert np.isnan([effect.low, effect.high]).all()


@pytest.mark.parametrize(
    ("of_settings", "of_folds", "rest"), [(1, 0, 0.3), (0, 1, 0.3), (0, 0, 1), (1, 1, 1), (1, 0.3, 0.3)], ids=str
)
@pytest.mark.parametrize(("n_settings", "n_folds"), [(12, 5), (8, 3)])
def test_intervals_cover_the_truth(of_settings, of_folds, rest, n_settings, n_folds):
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(1500):
        d = 0.2 + of_settings * rng.normal(size=(n_settings, 1)) + of_folds * rng.normal(size=(1, n_folds))
        _, low, high = mean_and_interval(d + rest * rng.normal(size=(n_settings, n_folds)), 0.95)
        covered.append(low <= 0.2 <= high)
    # Of 1,500 a share is certain to 0.02; where settings and folds do not vary, the interval is on the safe side.
    assert 0.93 <= np.mean(covered) <= (0.995 if of_settings or of_folds else 1.0)


def test_ignoring_folds_would_not_cover_the_truth():
    # An oracle for the test above: the t-interval over all differences as if they were independent.
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(300):
        d = 0.2 + rng.normal(size=(1, 5)) + 0.3 * rng.normal(size=(12, 5))
        interval = stats.ttest_1samp(d.ravel(), 0.0).confidence_interval(0.95)
        covered.append(interval.low <= 0.2 <= interval.high)
    assert np.mean(covered) < 0.6


def comparable(effects):
    numbers = ("effect", "low", "high", "n_pairs", "n_better", "n_worse", "mean_score")
    return {(e.parameter, e.value): [getattr(e, name) for name in numbers] for e in effects}


def assert_same(first, second):
    first, second = comparable(first), comparable(second)
    assert first.keys() == second.keys()
    for key in first:
        assert first[key] == pytest.approx(second[key], abs=1e-12), key


def test_order_of_candidates_and_folds_does_not_matter():
    results = full_grid()
    expected = technique_effects(results)
    order = np.random.default_rng(2).permutation(12)
    shuffled = {"params": [results["params"][i] for i in order]}
    shuffled |= {f"split{f}_test_score": results[f"split{3 - f}_test_score"][order] for f in range(4)}
    assert_same(expected, technique_effects(shuffled, references={"a": 1, "b": "x", "c": False}))


def test_what_pairs_share_does_not_matter():
    results = full_grid()
    shifted = dict(results)
    for f in range(4):
        of_setting = np.array([10.0 * (p["b"] == "y") + 5.0 * p["c"] for p in results["params"]])
        shifted[f"split{f}_test_score"] = results[f"split{f}_test_score"] + 100.0 * f + of_setting
    mine, others = by_value(technique_effects(results), "a"), by_value(technique_effects(shifted), "a")
    for value in ("2", "3"):
        assert mine[value].effect == pytest.approx(others[value].effect, abs=1e-10)
        assert mine[value].low == pytest.approx(others[value].low, abs=1e-10)


def test_reference_and_value_change_places():
    results = full_grid()
    forth = by_value(technique_effects(results), "a")["3"]
    back = by_value(technique_effects(results, references={"a": 3}), "a")["1"]
    assert (back.effect, back.low, back.high) == pytest.approx((-forth.effect, -forth.high, -forth.low), abs=1e-12)
    assert (back.n_better, back.n_worse) == (forth.n_worse, forth.n_better)


def test_the_reference_differs_in_nothing_from_itself():
    effect = technique_effects(full_grid()).of("a")[0]
    assert effect.is_reference
    assert (effect.effect, effect.low, effect.high, effect.n_better, effect.n_worse) == (0.0, 0.0, 0.0, 0, 0)


def test_failed_candidates_are_left_out():
    results = full_grid()
    whole = technique_effects(results)
    results["split2_test_score"] = results["split2_test_score"].copy()
    (failed,) = (i for i, p in enumerate(results["params"]) if p == {"a": 2, "b": "y", "c": True})
    results["split2_test_score"][failed] = np.nan
    effects = technique_effects(results)
    assert {v: e.n_pairs for v, e in by_value(effects, "a").items()} == {"1": 4, "2": 3, "3": 4}
    assert by_value(effects, "a")["3"].effect == by_value(whole, "a")["3"].effect
    assert by_value(effects, "a")["2"].n_candidates == 3
    assert by_value(effects, "c")["True"].n_pairs == 5
    assert all(np.isfinite(e.effect) for e in effects)


def test_where_all_have_failed_there_is_no_effect():
    results = make_results([{"t": 0}, {"t": 1}], [[0.5, 0.6], [np.nan, np.nan]])
    effect = technique_effects(results).of("t")[1]
    assert (effect.n_pairs, effect.n_candidates) == (0, 0)
    assert np.isnan([effect.effect, effect.low, effect.high, effect.mean_score]).all()


def test_lists_of_grids_pair_within_themselves():
    params = list(ParameterGrid([{"a": [0, 1], "b": [0, 1]}, {"c": [0, 1, 2]}, {"a": [1, 2]}]))
    scores = np.random.default_rng(5).normal(size=(len(params), 3))
    effects = technique_effects(make_results(params, scores))
    assert {(e.parameter, e.value): e.n_pairs for e in effects if not e.is_reference} == {
        ("a", "1"): 2,
        ("a", "2"): 0,
        ("b", "1"): 2,
        ("c", "1"): 1,
        ("c", "2"): 1,
    }
    assert by_value(effects, "a")["1"].n_candidates == 3
    last = by_value(technique_effects(make_results(params, scores), references={"a": 1}), "a")["2"]
    (i, j) = params.index({"a": 2}), params.index({"a": 1})
    assert last.effect == pytest.approx((scores[i] - scores[j]).mean())


def test_parameters_that_change_together_are_one():
    grids = [{"s": [0, 1], "optimizer": [o], "rate": [r]} for o, r in [(Momentum(), 0.1), ("adam", 0.01)]]
    params = list(ParameterGrid(grids))
    results = make_results(params, np.arange(8.0).reshape(4, 2))
    assert [e.n_pairs for e in technique_effects(results).of("optimizer") if not e.is_reference] == [0]
    effects = technique_effects(results, together=[("optimizer", "rate")])
    assert effects.parameters == ["optimizer, rate", "s"]
    effect = effects.of("optimizer, rate")[1]
    assert (effect.value, effect.reference) == ("adam, 0.01", "Momentum(), 0.1")
    assert (effect.n_pairs, effect.effect) == (2, 4.0)
    turned = technique_effects(results, together=[("optimizer", "rate")], references={"optimizer, rate": ("adam", 0.01)})
    assert turned.of("optimizer, rate")[0].effect == -4.0


def test_values_are_told_apart_and_named():
    def mine(x):
        return x

    values = ["None", None, ELU(), ELU(alpha=0.5), mine, np.float64(0.5), L2(0.1)]
    results = make_results([{"p": v} for v in values], np.zeros((7, 2)))
    assert len({e.value for e in technique_effects(results).of("p")}) == 7
    values = values[1:]
    results = make_results([{"p": v} for v in values], np.zeros((6, 2)))
    assert [e.value for e in technique_effects(results).of("p")] == [
        "None",
        "ELU()",
        "ELU(alpha=0.5)",
        "mine",
        "0.5",
        "L2(l2=0.1)",
    ]


def test_long_arrays_are_told_apart():
    first, second = np.zeros(2000), np.zeros(2000)
    second[1000] = 1.0
    results = make_results([{"p": first}, {"p": second}, {"p": first.copy()}], [[0.0], [1.0], [0.0]])
    effects = technique_effects(results).of("p")
    assert [effect.effect for effect in effects] == [0.0, 1.0]
    assert effects[0].value != effects[1].value


def test_equal_objects_are_one_value():
    params = [{"p": ELU(), "q": np.float64(1.0)}, {"p": ELU(), "q": 2.0}, {"p": "relu", "q": 1.0}, {"p": "relu", "q": 2.0}]
    effects = technique_effects(make_results(params, [[0.0], [1.0], [2.0], [5.0]]))
    assert [(e.value, e.n_pairs) for e in effects] == [("ELU()", 2), ("relu", 2), ("1.0", 2), ("2.0", 2)]


def test_metric_and_train_scores():
    X, y = load_iris(return_X_y=True)
    search = GridSearchCV(
        DecisionTreeClassifier(random_state=0),
        {"max_depth": [1, 2], "min_samples_leaf": [1, 30]},
        scoring=["accuracy", "neg_log_loss"],
        refit="neg_log_loss",
        return_train_score=True,
        cv=3,
    ).fit(X, y)
    assert technique_effects(search).metric == "neg_log_loss"
    results = search.cv_results_
    for metric, score_type in itertools.product(["accuracy", "neg_log_loss"], ["test", "train"]):
        effect = technique_effects(search, metric=metric, score_type=score_type).of("max_depth")[1]
        means = results[f"mean_{score_type}_{metric}"]
        expected = np.mean([m * (1 if p["max_depth"] == 2 else -1) for m, p in zip(means, results["params"], strict=True)]) * 2
        assert effect.effect == pytest.approx(expected, abs=1e-12)
    with pytest.raises(ValueError, match="several metrics: give one of 'accuracy', 'neg_log_loss'"):
        technique_effects(results)
    with pytest.raises(InvalidParameterError, match="did you mean 'accuracy'"):
        technique_effects(search, metric="acuracy")


def test_search_over_a_pipeline():
    X, y = load_iris(return_X_y=True)
    clf = MLPDeepClassifier((5,), max_iter=2, n_iter_no_change=2, random_state=0)
    grid = [
        {"mlp__activation": ["relu", ELU()], "mlp__batch_norm": [False, True]},
        {"scaler": ["passthrough", StandardScaler()]},
    ]
    search = GridSearchCV(Pipeline([("scaler", StandardScaler()), ("mlp", clf)]), grid, cv=2).fit(X, y)
    effects = technique_effects(search)
    assert [(e.parameter, e.value, e.n_pairs) for e in effects] == [
        ("mlp__activation", "relu", 2),
        ("mlp__activation", "ELU()", 2),
        ("mlp__batch_norm", "False", 2),
        ("mlp__batch_norm", "True", 2),
        ("scaler", "passthrough", 1),
        ("scaler", "StandardScaler()", 1),
    ]
    assert effects.metric == "score"


def test_halving_pairs_within_an_iteration():
    X, y = load_iris(return_X_y=True)
    grid = {"max_depth": [1, 2, 3], "min_samples_leaf": [1, 5, 10]}
    search = HalvingGridSearchCV(DecisionTreeClassifier(random_state=0), grid, cv=2, random_state=0).fit(X, y)
    results = search.cv_results_
    scores = np.transpose([results["split0_test_score"], results["split1_test_score"]])
    of = {
        (n, p["max_depth"], p["min_samples_leaf"]): s
        for n, p, s in zip(results["iter"], results["params"], scores, strict=True)
    }
    expected = [s - of[n, 1, leaf] for (n, depth, leaf), s in of.items() if depth == 2 and (n, 1, leaf) in of]
    effect = by_value(technique_effects(search), "max_depth")["2"]
    assert effect.n_pairs == len(expected) >= 3
    assert effect.effect == pytest.approx(np.mean(expected))


def test_frame():
    pd = pytest.importorskip("pandas")
    effects = technique_effects(full_grid())
    assert_same(effects, technique_effects(pd.DataFrame(full_grid())))
    frame = effects.to_frame()
    assert len(frame) == len(effects) == 7
    assert list(frame.columns[:3]) == ["parameter", "value", "reference"]
    assert "differences" not in frame
    assert isinstance(frame, pd.DataFrame)
    assert frame["effect"].tolist() == [effect.effect for effect in effects]
    assert technique_effects(make_results([{"t": 0}], [[0.5]])).to_frame().empty


def test_repr_says_what_there_is():
    assert repr(technique_effects(full_grid())) == "<TechniqueEffects on score: 7 values of a, b, c>"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"confidence": 1.0}, "confidence=1.0 must be a number in"),
        ({"confidence": True}, "confidence=True"),
        ({"score_type": "valid"}, "score_type must be 'test' or 'train'"),
        ({"score_type": "train"}, "return_train_score=True"),
        ({"metric": "accuracy"}, "metric='accuracy' is not known. Known: 'score'"),
        ({"together": [("a", "d")]}, "together has 'd'"),
        ({"together": [("a", "b"), ("b", "c")]}, "together has 'b' twice"),
        ({"references": {"d": 1}}, "references has 'd'"),
        ({"references": {"a": 7}}, "references has 7 for 'a', which was not tried. Tried: 1, 2, 3"),
    ],
    ids=str,
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(InvalidParameterError, match=message):
        technique_effects(full_grid(), **arguments)


@pytest.mark.parametrize("search", [GridSearchCV(DecisionTreeClassifier(), {}), {}, 3], ids=["not fitted", "empty", "number"])
def test_what_is_no_search_is_refused(search):
    with pytest.raises(InvalidParameterError, match="search must be a search that has been fitted"):
        technique_effects(search)
