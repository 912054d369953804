"""Exceptions and warnings that skdnn raises itself."""

import sys
import warnings


class InvalidParameterError(ValueError, TypeError):
    """A hyperparameter has a value that it cannot have.

    It is a `ValueError` and a `TypeError` at once, like the class that scikit-learn raises for its own parameters, so
    that either ``except`` clause catches it whether the value or its type was at fault.
    """


class ResumeWarning(UserWarning):
    """Something that a search has learned cannot be kept for another run, or what was kept cannot be used."""


def warn_caller(message, category):
    """Warn, pointing at the line that called skdnn: how many calls lie between is not for a warning to know."""
    frame, stacklevel = sys._getframe(1), 2
    while frame.f_back is not None and f"{frame.f_globals.get('__name__')}.".startswith(("skdnn.", "sklearn.callback.")):
        frame, stacklevel = frame.f_back, stacklevel + 1
    warnings.warn(message, category, stacklevel=stacklevel)
