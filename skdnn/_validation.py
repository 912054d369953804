"""The one place where skdnn leans on parts of scikit-learn that come without promises.

scikit-learn checks its own hyperparameters by a table of constraints, weights by a function, and cuts data and metadata by the
rows of a fold by two others, all of which it calls private; and it reads the names of parameters from a signature each time.
Every skdnn module takes these names from here, so a change over there is a change of this file only.
"""

import difflib
import functools

from sklearn.utils._param_validation import (
    HasMethods,
    Hidden,
    Interval,
    Options,
    StrOptions,
    validate_parameter_constraints,
)
from sklearn.utils.metaestimators import _safe_split as split_safely
from sklearn.utils.validation import _check_method_params as check_method_params
from sklearn.utils.validation import _check_sample_weight as check_sample_weight

__all__ = [
    "CachedParameterNames",
    "HasMethods",
    "Hidden",
    "Interval",
    "Options",
    "StrOptions",
    "check_method_params",
    "check_sample_weight",
    "did_you_mean",
    "split_safely",
    "validate_parameter_constraints",
]


class CachedParameterNames:
    """A base, before `BaseEstimator`, of classes whose signature is read once: searches ask some hundred times a second."""

    @classmethod
    @functools.cache
    def _get_param_names(cls):
        return super()._get_param_names()


def did_you_mean(name, known):
    """Say which of the `known` names is meant by `name`, as the middle of an error message.

    Examples
    --------
    >>> did_you_mean("relo", ["relu", "tanh"])
    "; did you mean 'relu'? Known: 'relu', 'tanh'"
    >>> did_you_mean("xyz", ["relu", "tanh"])
    ". Known: 'relu', 'tanh'"
    """
    lowered = name.lower().replace("-", "_").replace(" ", "_")
    nearest = difflib.get_close_matches(lowered, known, n=1)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else "."
    return f"{hint} Known: {', '.join(map(repr, known))}"
