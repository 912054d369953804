"""Estimators that are trained together: a fit within `trained_by` takes over what a group has learned in lockstep.

A search knows beforehand which candidates it is going to fit on the same rows. It trains them together when the first of them
is fitted, and each later fit finds itself done: whatever calls `fit` need not know.
"""

import contextlib
import contextvars

_current = contextvars.ContextVar("skdnn_group", default=None)


@contextlib.contextmanager
def trained_by(group):
    """Let fits in this context ask a group first.

    Parameters
    ----------
    group : object
        With a method ``take(estimator, X, y, sample_weight, validation)``, which returns a fitted estimator of the same
        parameters, that nobody else has, or None.
    """
    token = _current.set(group)
    try:
        yield group
    finally:
        _current.reset(token)


def learned_together(estimator, X, y, sample_weight, validation):
    """Return the attributes that a fit of `estimator` sets, where the current group has them, or None."""
    group = _current.get()
    if group is None:
        return None
    with trained_by(None):  # what the group fits is not asked for again
        fitted = group.take(estimator, X, y, sample_weight, validation)
    if fitted is None:
        return None
    parameters = fitted.get_params(deep=False)
    return {name: value for name, value in vars(fitted).items() if name not in parameters}
