"""What each value of each hyperparameter has done in a search, all else equal."""

import inspect
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from numbers import Real

import joblib
import numpy as np

from skdnn._validation import did_you_mean
from skdnn.exceptions import InvalidParameterError
from skdnn.model_selection._intervals import mean_and_interval


@dataclass(frozen=True)
class TechniqueEffect:
    """What a value of a hyperparameter does to the score, beside the value that it is compared with.

    Attributes
    ----------
    parameter : str
        The hyperparameter, or several that are one, joined by ", ".
    value : str
        A name as it is; the repr of anything else.
    reference : str
        The value that it is compared with.
    n_candidates : int
        Candidates with the value.
    mean_score, median_score, best_score : float
        Of these candidates' scores, each a mean over the folds.
    n_pairs : int
        Settings of all other hyperparameters that were tried both with the value and with the reference.
    effect : float
        The mean difference of the two scores over these settings and the folds; nan where there is no pair.
    low, high : float
        Confidence interval of the effect; nan where a single difference does not show how much they vary.
    n_better, n_worse : int
        Settings in which the value was better, or worse, than the reference on the mean of the folds.
    differences : ndarray of shape (n_pairs, n_folds)
        Score with the value minus score with the reference.
    """

    parameter: str
    value: str
    reference: str
    n_candidates: int
    mean_score: float
    median_score: float
    best_score: float
    n_pairs: int
    effect: float
    low: float
    high: float
    n_better: int
    n_worse: int
    differences: np.ndarray = field(repr=False, compare=False)

    @property
    def is_reference(self):
        """Whether it is the value that the others of its hyperparameter are compared with."""
        return self.value == self.reference


class TechniqueEffects(Sequence):
    """The effects of all values of all hyperparameters of a search, as a sequence.

    Parameters
    ----------
    effects : iterable of TechniqueEffect
    metric : str, default="score"
        What the scores are: the name of the scorer if it has one, "score" for the estimator's own.
    confidence : float in (0.0, 1.0), default=0.95
        Of the intervals.

    Examples
    --------
    >>> from skdnn.model_selection import technique_effects
    >>> effects = technique_effects({"params": [{"l2": 0.0}, {"l2": 0.1}], "split0_test_score": [0.5, 0.75]})
    >>> effects
    <TechniqueEffects on score: 2 values of l2>
    >>> effects[1].value, effects[1].effect
    ('0.1', 0.25)
    >>> effects.to_frame()[["parameter", "value", "reference", "effect"]]
      parameter value reference  effect
    0        l2   0.0       0.0    0.00
    1        l2   0.1       0.0    0.25
    """

    def __init__(self, effects, metric="score", confidence=0.95):
        self._effects = tuple(effects)
        self.metric = metric
        self.confidence = confidence

    def __getitem__(self, index):
        return self._effects[index]

    def __len__(self):
        return len(self._effects)

    def __repr__(self):
        return f"<{type(self).__name__} on {self.metric}: {len(self)} values of {', '.join(self.parameters)}>"

    @property
    def parameters(self):
        """The hyperparameters, in the order of the effects, as a list of str."""
        return list(dict.fromkeys(effect.parameter for effect in self))

    def of(self, parameter):
        """Return the effects of the values of one hyperparameter.

        Parameters
        ----------
        parameter : str

        Returns
        -------
        effects : list of TechniqueEffect
        """
        return [effect for effect in self if effect.parameter == parameter]

    def to_frame(self):
        """Return the effects as a table.

        Returns
        -------
        frame : pandas.DataFrame
            One row a value; the columns are the attributes of `TechniqueEffect` without `differences`.

        Raises
        ------
        ImportError
            pandas is not installed.
        """
        import pandas as pd

        names = [column.name for column in fields(TechniqueEffect) if column.name != "differences"]
        return pd.DataFrame([{name: getattr(effect, name) for name in names} for effect in self], columns=names)


def technique_effects(search, *, metric=None, score_type="test", confidence=0.95, together=(), references=None):
    """Return what each value of each hyperparameter has done in a search, all else equal.

    Two candidates that differ in one hyperparameter only are a pair: scored on the same folds, they share all luck of the split
    (and of the initial weights, if `random_state` is an int). An effect is the mean difference of such pairs, over all settings
    of the other hyperparameters and over the folds. Comparing the means of all candidates with one value or the other would
    be the same in a full grid, but not where values met different company, and would say nothing of the uncertainty.

    The interval is Student's. The difference of setting s in fold f is taken as effect + a_s + b_f + e_sf with independent
    normal deviations of the settings, the folds and the rest: it speaks of other settings like those of the grid and of
    other data like these. The variance of the mean is estimated as in a two-way layout with random effects, from the means of
    settings and of folds and from the rest, and the degrees of freedom after [1]_. With one setting it is the paired t-interval
    over the folds, with one fold that over the settings. The folds of a cross-validation share training rows, so they are
    not quite independent, and intervals are somewhat too narrow [2]_; with many values, some will seem to matter by chance.

    Parameters
    ----------
    search : search, dict or DataFrame
        A fitted `GridSearchCV`, `VectorizedGridSearchCV` or their like, or its ``cv_results_``. In a randomised search few
        candidates have a partner that differs in one hyperparameter only. Of a halving search, candidates are compared within
        an iteration.

    metric : str, default=None
        Whose scores to take where the search has several; by default the one that `refit` names.

    score_type : {"test", "train"}, default="test"
        Scores of the rows that were set aside, or of those that were trained on (``return_train_score=True``).

    confidence : float, default=0.95
        That of the intervals, in (0.0, 1.0).

    together : list of tuple of str, default=()
        Hyperparameters that are one, because they change together: ``[("optimizer", "learning_rate_init")]`` if each optimizer
        has come with its own rate. Otherwise neither would be found to differ alone.

    references : dict, default=None
        From names of hyperparameters to the values that the others are compared with; by default the first that was tried. For
        those in `together` the name is that of the result, "optimizer, learning_rate_init", and the value a tuple.

    Returns
    -------
    effects : TechniqueEffects
        One for each value of each hyperparameter with at least two, the reference included. Candidates with a score that is
        not finite are left out. A candidate without a hyperparameter, where a search goes through several grids, takes no
        part in its effects.

    Raises
    ------
    ValueError
        There are no such results, metric, hyperparameters or values.

    See Also
    --------
    skdnn.displays.TechniqueComparisonDisplay : Draws the effects.

    References
    ----------
    .. [1] F. E. Satterthwaite, "An approximate distribution of estimates of variance components", Biometrics Bulletin 2, 1946.
    .. [2] C. Nadeau and Y. Bengio, "Inference for the generalization error", Machine Learning 52, 2003.

    Examples
    --------
    >>> from skdnn.model_selection import technique_effects
    >>> results = {
    ...     "params": [{"batch_norm": False, "l2": 0.0}, {"batch_norm": True, "l2": 0.0},
    ...                {"batch_norm": False, "l2": 0.1}, {"batch_norm": True, "l2": 0.1}],
    ...     "split0_test_score": [0.80, 0.84, 0.82, 0.85],
    ...     "split1_test_score": [0.78, 0.83, 0.81, 0.84],
    ... }
    >>> effects = technique_effects(results)
    >>> for effect in effects.of("batch_norm"):
    ...     print(f"{effect.value}: {effect.effect:+.4f} in [{effect.low:+.3f}, {effect.high:+.3f}], {effect.n_pairs} pairs")
    False: +0.0000 in [+0.000, +0.000], 2 pairs
    True: +0.0375 in [-0.058, +0.133], 2 pairs
    """
    if not isinstance(confidence, Real) or isinstance(confidence, bool) or not 0.0 < confidence < 1.0:
        raise InvalidParameterError(f"confidence={confidence!r} must be a number in (0.0, 1.0).")
    results = _results_of(search)
    metric = _choose_metric(search, results, metric, score_type)
    scores = _scores_of_folds(results, metric, score_type)
    candidates = [_Candidate(params, rung) for params, rung in zip(results["params"], _rungs(results), strict=True)]
    groups = _group(candidates, together)
    values = {", ".join(names): _values_of(candidates, names) for names in groups}
    references = _check_references(references, values)
    # A candidate that has failed on a fold says nothing that could be compared.
    finite = [(candidate, row) for candidate, row in zip(candidates, scores, strict=True) if np.isfinite(row).all()]
    effects = []
    for names, (parameter, labels) in zip(groups, values.items(), strict=True):
        if len(labels) < 2:
            continue
        tables = {key: {} for key in labels}
        for candidate, row in finite:
            key = candidate.value(names)
            if key is not None:
                tables[key].setdefault(candidate.others(names), row)
        reference = references.get(parameter, next(iter(labels)))
        for key, label in labels.items():
            effects.append(_effect(parameter, label, labels[reference], tables[key], tables[reference], confidence))
    scoring = getattr(search, "scoring", None)
    name = scoring if metric == "score" and isinstance(scoring, str) else metric
    return TechniqueEffects(effects, name, float(confidence))


class _Candidate:
    """A candidate's parameters, by keys that are equal for equal values.

    Parameters
    ----------
    params : dict
    rung : object
        What else candidates must share to be compared.
    """

    def __init__(self, params, rung):
        self.params = params
        self.keys = {name: _key(value) for name, value in params.items()}
        self._rung = rung

    def value(self, names):
        """The keys of some parameters, None if it lacks one of them."""
        return tuple(self.keys[name] for name in names) if all(name in self.keys for name in names) else None

    def others(self, names):
        """All but these parameters."""
        return self._rung, frozenset((name, key) for name, key in self.keys.items() if name not in names)


def _results_of(search):
    """The results of a search, or what are some: a dict or a data frame."""
    results = search if hasattr(search, "keys") else getattr(search, "cv_results_", None)
    if results is None or "params" not in results:
        raise InvalidParameterError(
            f"search must be a search that has been fitted, or its cv_results_. Got {type(search).__name__} without results."
        )
    return results


def _choose_metric(search, results, metric, score_type):
    """The name of the metric to take."""
    if score_type not in ("test", "train"):
        raise InvalidParameterError(f"score_type must be 'test' or 'train'. Got {score_type!r} instead.")
    matches = (re.fullmatch(rf"split\d+_{score_type}_(.+)", name) for name in results)
    known = list(dict.fromkeys(match[1] for match in matches if match))
    if not known:
        hint = " Search with return_train_score=True." if score_type == "train" else ""
        raise InvalidParameterError(f"The results have no {score_type} scores of folds.{hint}")
    if metric is None:
        refit = getattr(search, "refit", None)
        metric = known[0] if len(known) == 1 else refit if isinstance(refit, str) and refit in known else None
        if metric is None:
            raise InvalidParameterError(f"The search has several metrics: give one of {', '.join(map(repr, known))} as metric.")
    elif metric not in known:
        raise InvalidParameterError(f"metric={metric!r} is not known{did_you_mean(str(metric), known)}.")
    return metric


def _scores_of_folds(results, metric, score_type):
    """Scores of shape (n_candidates, n_folds)."""
    names = [name for name in results if re.fullmatch(rf"split\d+_{score_type}_{re.escape(metric)}", name)]
    return np.array([np.asarray(results[name], dtype=np.float64) for name in names]).T


def _rungs(results):
    """The iteration of each candidate of a halving search, in which the same candidate comes back with more resources."""
    return results["iter"] if "iter" in results else [None] * len(results["params"])


def _group(candidates, together):
    """The names of all hyperparameters as tuples, those that are one in one tuple where the first of them would stand."""
    names = list(dict.fromkeys(name for candidate in candidates for name in candidate.params))
    of_name = {}
    for group in together:
        group = (group,) if isinstance(group, str) else tuple(group)
        for name in group:
            if name not in names:
                raise InvalidParameterError(f"together has {name!r}, which the search has not{did_you_mean(str(name), names)}.")
            if name in of_name:
                raise InvalidParameterError(f"together has {name!r} twice.")
            of_name[name] = group
    return list(dict.fromkeys(of_name.get(name, (name,)) for name in names))


def _values_of(candidates, names):
    """The values of some parameters as a dict from keys to labels, in the order in which they were tried."""
    given = {}
    for candidate in candidates:
        key = candidate.value(names)
        if key is not None:
            given.setdefault(key, tuple(candidate.params[name] for name in names))
    labels = {key: ", ".join(map(_label, values)) for key, values in given.items()}
    if len(set(labels.values())) < len(labels):  # the name "None" beside None, functions of the same name
        labels = {key: ", ".join(map(repr, values)) for key, values in given.items()}
    counts = Counter(labels.values())  # long arrays of the same ends
    return {key: label if counts[label] == 1 else f"{label} ({i + 1})" for i, (key, label) in enumerate(labels.items())}


def _check_references(references, values):
    """Return the keys of the values to compare with, by parameter."""
    keys = {}
    for parameter, value in (references or {}).items():
        if parameter not in values:
            known = list(values)
            raise InvalidParameterError(
                f"references has {parameter!r}, which is not known{did_you_mean(str(parameter), known)}."
            )
        labels = values[parameter]
        of_several = any(len(key) > 1 for key in labels)
        key = tuple(map(_key, value)) if of_several and isinstance(value, Sequence) else (_key(value),)
        if key not in labels:
            raise InvalidParameterError(
                f"references has {value!r} for {parameter!r}, which was not tried. Tried: {', '.join(labels.values())}."
            )
        keys[parameter] = key
    return keys


def _plain(value):
    """A number of NumPy as one of Python."""
    return value.item() if isinstance(value, np.generic) else value


def _key(value):
    """What is equal for values that are, and can be hashed."""
    value = _plain(value)
    # NumPy leaves out the middle of long arrays.
    return type(value).__qualname__, joblib.hash(value) if isinstance(value, np.ndarray) else repr(value)


def _label(value):
    """How to call a value in tables and pictures."""
    value = _plain(value)
    if isinstance(value, str):
        return value
    if inspect.isroutine(value) or inspect.isclass(value):
        return getattr(value, "__name__", repr(value))
    return " ".join(repr(value).split())


def _effect(parameter, label, reference, table, table_of_reference, confidence):
    """Compare the scores with a value and with its reference, both dicts from the other settings to scores of folds."""
    means = np.array([scores.mean() for scores in table.values()])
    shared = [setting for setting in table if setting in table_of_reference]
    n_folds = len(next(iter(table.values()))) if table else 0
    differences = np.array([table[setting] - table_of_reference[setting] for setting in shared]).reshape(len(shared), n_folds)
    effect, low, high = mean_and_interval(differences, confidence)
    of_settings = differences.mean(1) if differences.size else np.empty(0)
    return TechniqueEffect(
        parameter=parameter,
        value=label,
        reference=reference,
        n_candidates=len(table),
        mean_score=float(means.mean()) if len(means) else float("nan"),
        median_score=float(np.median(means)) if len(means) else float("nan"),
        best_score=float(means.max()) if len(means) else float("nan"),
        n_pairs=len(shared),
        effect=effect,
        low=low,
        high=high,
        n_better=int((of_settings > 0.0).sum()),
        n_worse=int((of_settings < 0.0).sum()),
        differences=differences,
    )
