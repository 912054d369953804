"""The one place where skdnn leans on parts of scikit-learn that come without promises.

scikit-learn checks its own hyperparameters by a table of constraints, and sample weights by a function, that it calls private.
Every skdnn module takes these names from here, so a change over there is a change of this file only.
"""

import difflib

from sklearn.utils._param_validation import (
    HasMethods,
    Hidden,
    Interval,
    Options,
    StrOptions,
    validate_parameter_constraints,
)
from sklearn.utils.validation import _check_sample_weight as check_sample_weight

__all__ = [
    "HasMethods",
    "Hidden",
    "Interval",
    "Options",
    "StrOptions",
    "check_sample_weight",
    "did_you_mean",
    "validate_parameter_constraints",
]


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
