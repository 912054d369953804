"""Exceptions and warnings that skdnn raises itself."""


class InvalidParameterError(ValueError, TypeError):
    """A hyperparameter has a value that it cannot have.

    It is a `ValueError` and a `TypeError` at once, like the class that scikit-learn raises for its own parameters, so
    that either ``except`` clause catches it whether the value or its type was at fault.
    """
