"""The learning-rate range test: one network a rate, all trained in lockstep."""

import warnings
from dataclasses import dataclass, replace
from numbers import Integral

import numpy as np
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import Pipeline

from skdnn._base import BaseMLPDeep
from skdnn.exceptions import InvalidParameterError, warn_caller
from skdnn.model_selection._preprocessing import last_step
from skdnn.training import Lane, Session, can_share_a_population, free_memory, group_size, train_in_lockstep

# Updates after which rates can be told apart; a fit that makes fewer in an epoch is given more epochs.
_N_UPDATES = 100

# Rates are as good as the best if they have made this share of its progress.
_AS_GOOD = 0.9


@dataclass(frozen=True, eq=False)
class LearningRateRangeResult:
    """What `learning_rate_range_test` has measured.

    Attributes
    ----------
    learning_rates : ndarray of shape (n_rates,)
        In ascending order, each once.
    losses : ndarray of shape (n_rates,)
        The mean training loss of the last epoch at each rate; inf where training diverged.
    loss_curves : ndarray of shape (n_rates, n_epochs)
        The mean training loss of each epoch; inf from the epoch on that diverged.
    best_learning_rate : float
        The suggestion, see `suggest_learning_rate`; nan where training diverged at every rate.
    """

    learning_rates: np.ndarray
    losses: np.ndarray
    loss_curves: np.ndarray
    best_learning_rate: float


def learning_rate_range_test(estimator, X, y, *, learning_rates=None, max_iter=None, sample_weight=None):
    """Train briefly at each of many learning rates, and suggest one.

    Each rate has a network of its own. All start from the same weights, see the same batches in the same order and lose the
    same units to dropout, so what differs at the end is what the rate has done. They train in lockstep, as one population,
    which takes less time than as many fits.

    The test of [1]_ has one network, whose rate rises from batch to batch: what it loses at a rate depends on what it had
    learned at all rates before, the loss lags behind the rate, and the network must be brought back to where it began before
    training. None of this is needed where each rate has its own network: losses are those of separate fits, and the least of
    them is the least, not a turning point that has been passed already.

    Parameters
    ----------
    estimator : MLPDeepClassifier, MLPDeepRegressor or Pipeline
        A pipeline ends with one of the two; its other steps are fitted once. The estimator itself stays as it is. The rate is
        constant, all rows are trained on and nothing is printed, whatever `learning_rate`, `early_stopping`,
        `n_iter_no_change`, `callbacks` and `verbose` say.

    X : {array-like, sparse matrix} of shape (n_samples, n_features)
        Rows to train on.

    y : array-like of shape (n_samples,) or (n_samples, n_targets)
        Targets.

    learning_rates : array-like of shape (n_rates,), default=None
        Rates to try, in (0.0, inf), best in even powers; by default 25 from 1e-5 to 10, four a decade.

    max_iter : int, default=None
        Epochs, in [1, inf). By default as many as it takes to make 100 updates: one where there are 100 batches or more.

    sample_weight : array-like of shape (n_samples,), default=None
        Weights of the rows for the last step.

    Returns
    -------
    result : LearningRateRangeResult

    Raises
    ------
    ValueError
        Rates, epochs, data or a parameter of the estimator cannot be used.

    TypeError
        `estimator` is neither one of skdnn nor a pipeline that ends with one.

    Warns
    -----
    ConvergenceWarning
        Once, if training diverged at every rate. That it diverges at the largest of them is what the test is for.

    See Also
    --------
    skdnn.displays.LearningRateRangeDisplay : Draws the result.

    References
    ----------
    .. [1] L. N. Smith, "Cyclical learning rates for training neural networks", WACV 2017.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from skdnn import MLPDeepClassifier
    >>> from skdnn.model_selection import learning_rate_range_test
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = make_pipeline(StandardScaler(), MLPDeepClassifier((10,), optimizer="sgd", batch_size=10, random_state=0))
    >>> result = learning_rate_range_test(clf, X, y, learning_rates=[1e-3, 1e-2, 1e-1, 1.0])
    >>> result.losses.shape, result.loss_curves.shape
    ((4,), (4, 7))
    >>> 0.01 < result.best_learning_rate <= 1.0
    True
    """
    rates = _check_rates(learning_rates)
    if max_iter is not None and (not isinstance(max_iter, Integral) or isinstance(max_iter, bool) or max_iter < 1):
        raise InvalidParameterError(f"max_iter must be None or an int in [1, inf). Got {max_iter!r} instead.")
    preprocessing, final = _split_pipeline(estimator)
    final.set_params(
        learning_rate="constant",
        early_stopping=False,
        monitor="auto",
        n_iter_no_change=np.inf,
        max_iter=1,
        warm_start=False,
        callbacks=None,
        verbose=0,
    )
    final._check_parameters()
    if preprocessing is not None:
        X = preprocessing.fit_transform(X, y)
    session = final._prepare((X, y, sample_weight), session_type=Lane).session
    n_epochs = int(max_iter or -(-_N_UPDATES // session.n_updates_per_epoch))
    plan = replace(session.plan, max_iter=n_epochs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        size = group_size(session, free_memory(plan.device) // 2)
        parts = (rates[i : i + size] for i in range(0, len(rates), size))
        curves = np.array([curve for part in parts for curve in _train(final, plan, session, part)])
    losses = curves[:, -1]
    if not np.isfinite(losses).any():
        warn_caller(
            f"Training diverged at every learning rate from {rates[0]:g} to {rates[-1]:g}. Try lower ones, or scale the "
            "features.",
            ConvergenceWarning,
        )
    return LearningRateRangeResult(rates, losses, curves, suggest_learning_rate(rates, losses))


def suggest_learning_rate(learning_rates, losses):
    """Return the middle of the rates that are as good as the best, and never more than the best.

    Progress at a rate is how far its loss lies below the worst one at the rates up to that of the least loss, which learn too
    slowly. Rates around the best with at least nine tenths of its progress are as good: which of them has the least loss is a
    matter of chance, and after more epochs may be another. Their geometric middle hardly depends on that, and is far from the
    edge behind which training diverges. Losses of all signs and scales are the same to this rule.

    Parameters
    ----------
    learning_rates : ndarray of shape (n_rates,)
        In (0.0, inf), ascending.
    losses : ndarray of shape (n_rates,)
        Those that are not finite have diverged.

    Returns
    -------
    learning_rate : float
        nan where no loss is finite.

    Examples
    --------
    >>> import numpy as np
    >>> rates = np.array([1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0])
    >>> round(suggest_learning_rate(rates, np.array([2.3, 1.9, 0.6, 0.3, 1.4, np.inf])), 4)
    0.1
    >>> round(suggest_learning_rate(rates, np.array([2.3, 0.4, 0.35, 0.3, 1.4, np.inf])), 4)
    0.01
    """
    is_finite = np.isfinite(losses)
    if not is_finite.any():
        return float("nan")
    best = int(np.argmin(np.where(is_finite, losses, np.inf)))
    least = losses[best]
    slowest = np.max(losses[: best + 1][is_finite[: best + 1]])
    is_as_good = is_finite & (losses <= slowest - _AS_GOOD * (slowest - least))
    first = last = best
    while first > 0 and is_as_good[first - 1]:
        first -= 1
    while last < len(losses) - 1 and is_as_good[last + 1]:
        last += 1
    middle = learning_rates[first] * np.sqrt(learning_rates[last] / learning_rates[first])
    return float(min(middle, learning_rates[best]))


def _check_rates(learning_rates):
    """Return rates in ascending order, each once."""
    if learning_rates is None:
        return np.geomspace(1e-5, 10.0, 25)
    try:
        rates = np.asarray(learning_rates, dtype=np.float64)
    except (TypeError, ValueError):
        rates = np.empty(0)
    if rates.ndim != 1 or rates.size == 0 or not (np.isfinite(rates) & (rates > 0.0)).all():
        raise InvalidParameterError(f"learning_rates must be a list of numbers in (0.0, inf). Got {learning_rates!r} instead.")
    return np.unique(rates)


def _split_pipeline(estimator):
    """Return clones of what stands before the last step, None if nothing does, and of the last step."""
    final = last_step(estimator)
    if not isinstance(final, BaseMLPDeep):
        raise TypeError(
            "estimator must be an MLPDeepClassifier or MLPDeepRegressor, or a Pipeline that ends with one. "
            f"Got {estimator!r} instead."
        )
    return (clone(estimator[:-1]) if isinstance(estimator, Pipeline) and len(estimator) > 1 else None), clone(final)


def _train(estimator, plan, session, rates):
    """Train a network a rate and yield its losses, one an epoch."""
    plans = [replace(plan, learning_rate_init=float(rate)) for rate in rates]
    start = session.network.snapshot()

    def make_net(plan, session_type):
        return estimator._make_net(session_type(plan, session.data, start), callbacks=None)

    trained = []
    if can_share_a_population(session, session):
        nets = [make_net(plan, Lane) for plan in plans]
        trained = train_in_lockstep(nets)
    for k, plan in enumerate(plans):
        if trained and nets[k] in trained:
            yield _curve(nets[k], plan.max_iter)
        else:  # optimizers of torch work on one network
            net = make_net(plan, Session)
            net.train()
            yield _curve(net, plan.max_iter)


def _curve(net, n_epochs):
    """The losses of a net that has been trained; inf from the epoch on in which it diverged."""
    losses = [row["train_loss"] for row in net.history]
    if net.outcome_.reason == "diverged":
        losses[-1] = np.inf
    return np.array(losses + [np.inf] * (n_epochs - len(losses)))
