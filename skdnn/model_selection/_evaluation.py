"""scikit-learn's tasks of a search, of which those that find their candidate trained only have scores left to compute."""

import functools
import time
import warnings
from numbers import Number

import numpy as np
from sklearn.dummy import DummyClassifier
from sklearn.metrics import check_scoring
from sklearn.pipeline import Pipeline

from skdnn._base import BaseMLPDeep
from skdnn._data import looked_at_once
from skdnn._validation import split_safely
from skdnn.model_selection._preprocessing import last_step

# What a task comes to.
_RESULT = {"fit_error", "test_scores", "n_test_samples", "fit_time", "score_time"}


class Evaluation:
    """Runs tasks in this process, each the fit of a candidate on a fold and its scores.

    The first task of a fold and of what stands before the last step is scikit-learn's own function, whose fit has all
    candidates trained. Other tasks would split, transform and check the same rows once more, to be handed what has been
    learned: of them only the scores are computed, by scikit-learn's scorers, which see no difference between a pipeline and its
    last step with transformed rows; that they see none, the first task shows. Whatever is unusual, such as a scorer or a `fit`
    of one's own, a warning, an error or a score that is no number, is left to scikit-learn's function.

    Parameters
    ----------
    candidates : Candidates
    memory : FittedOnce
        Of their pipelines.
    is_heard : bool, default=False
        Whether someone listens to every fit.
    """

    def __init__(self, candidates, memory, is_heard=False):
        self._candidates = candidates
        self._memory = memory
        self._is_heard = is_heard
        self._places = {}  # from fold and setting to (rows, keys of transformers, the first result)

    def run(self, tasks, n_folds):
        """Run tasks, those of a candidate on all folds one after the other, and yield their results in order.

        Parameters
        ----------
        tasks : list of (callable, tuple, dict)
            Functions that fit and score an estimator, their arguments by place, the estimator first, and those by name. They
            are taken out of the list.
        n_folds : int
        """
        ahead = {}  # results of turns that are still to come
        for turn in range(len(tasks)):
            task, tasks[turn] = tasks[turn], None  # it holds what it fits
            number, fold = divmod(turn, n_folds)
            n_places, place = len(self._places), self._place_of(number, fold)
            result = ahead.pop(turn) if turn in ahead else self._score(task, number, place)
            result = self._finish(task, turn, number, place, result)
            if len(self._places) > n_places:
                # The others of the fold are scored at once: what they have learned can go then, and the rows are near.
                ahead |= self._score_others(tasks, turn, n_folds)
            yield result

    def _score_others(self, tasks, turn, n_folds):
        """Return the results by turns of those that can be scored now that one has been run, None of the rest."""
        number, fold = divmod(turn, n_folds)
        place, results = self._place_of(number, fold), {}
        for later in range(turn + n_folds, len(tasks), n_folds):
            other = later // n_folds
            if self._place_of(other, fold) == place:
                results[later] = self._score(tasks[later], other, place)
        return results

    def run_one(self, task, turn, number, fold=0):
        """Run one task.

        Parameters
        ----------
        task : (callable, tuple, dict)
        turn : int
            Its number in the search.
        number : int
            That of the candidate.
        fold : int, default=0

        Returns
        -------
        result : dict
            What the function returns.
        """
        place = self._place_of(number, fold)
        return self._finish(task, turn, number, place, self._score(task, number, place))

    def _place_of(self, number, fold):
        return fold, self._candidates.setting_of(number)

    def _finish(self, task, turn, number, place, result):
        """Return what a task comes to: a result that is known, or what scikit-learn's function returns where it is None."""
        self._candidates.turn = turn
        if result is None:
            return self._call(task, place)
        self._candidates.pass_by(number, self._places[place][0])
        return result

    def _call(self, task, place):
        function, args, named = task
        with self._memory.noted() as keys:
            result = function(*args, **named)
        rows, estimator, fitted = self._candidates.rows, args[0], last_step(args[0])
        if self._is_heard or rows is None or None in (place[1], *keys) or not _is_usual(named):
            return result
        is_known = isinstance(estimator, BaseMLPDeep) or _has_all_steps_in(self._memory, estimator, len(keys))
        if is_known and type(fitted).fit is BaseMLPDeep.fit and result.keys() == _RESULT and result["fit_error"] is None:
            # Scored both ways, the first must come to the same.
            scores = self._scores_of(fitted, task, place, keys)
            if scores is not None and scores == result["test_scores"]:
                self._places[place] = rows, keys, result
                if self._candidates.are_all_trained(rows):
                    self._memory.drop(keys)
        return result

    def _score(self, task, number, place):
        """Return the result of a task whose candidate is trained, or None where scikit-learn has to look into it."""
        if place not in self._places:
            return None
        begin, (rows, keys, first) = time.time(), self._places[place]
        fitted = self._candidates.trained(number, rows)
        scores = None if fitted is None else self._scores_of(fitted, task, place, keys)
        if scores is None:
            return None
        self._candidates.forget(number, rows)
        return first | {"test_scores": scores, "fit_time": 0.0, "score_time": time.time() - begin}

    def _scores_of(self, fitted, task, place, keys):
        """Return the scores of a last step, or None where there is more to tell than numbers."""
        _, args, named = task
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            try:
                X, y, known = self._memory.transform_once(place, keys, lambda: (*_rows_to_score(*args, **named), {}))
                with looked_at_once(known):
                    scores = _plain(named["scorer"](fitted, X, y))
            except Exception:
                return None
        return None if said else scores


def _is_usual(named):
    """Whether a task prints nothing and only scores rows to test, by scorers of scikit-learn that are given nothing more."""
    is_plain = named["verbose"] <= 1 and not named["return_train_score"] and not named["score_params"]
    return is_plain and _asks_for_outputs_only(named["scorer"])


def _asks_for_outputs_only(scorer):
    """Whether a scorer asks an estimator for its outputs or its score and for nothing else, as scikit-learn's own do."""
    own_score, metric, several = _types_of_scorers()
    parts = scorer._scorers.values() if type(scorer) is several else [scorer]
    return all(type(part) in (own_score, metric) for part in parts)


@functools.cache
def _types_of_scorers():
    """What scikit-learn makes of no scoring, of a metric and of several."""
    return [type(check_scoring(DummyClassifier(), scoring)) for scoring in (None, "accuracy", ["accuracy"])]


def _has_all_steps_in(memory, estimator, n_transformers):
    """Whether an estimator is scikit-learn's pipeline that has fitted so many transformers by way of a memory, no others."""
    if type(estimator) is not Pipeline or estimator.memory is not memory:
        return False
    steps = [step for _, step in estimator.steps[:-1] if step is not None and step != "passthrough"]
    return len(steps) == n_transformers and getattr(estimator, "transform_input", None) is None


def _rows_to_score(estimator, X, y, *, train, test, **others):
    return split_safely(estimator, X, y, np.asarray(test), np.asarray(train))


def _plain(scores):
    """Return scores as numbers of Python."""
    return {name: _number(score) for name, score in scores.items()} if isinstance(scores, dict) else _number(scores)


def _number(score):
    number = score.item() if hasattr(score, "item") else score
    if not isinstance(number, Number):
        raise TypeError
    return number
