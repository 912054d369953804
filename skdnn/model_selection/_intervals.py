"""Confidence intervals of differences over settings and folds."""

import numpy as np
from scipy import stats


def mean_and_interval(differences, confidence):
    """Return the mean of differences of settings in folds, and its confidence interval.

    Parameters
    ----------
    differences : ndarray of shape (n_settings, n_folds)
    confidence : float in (0.0, 1.0)

    Returns
    -------
    mean, low, high : float
    """
    n_settings, n_folds = differences.shape
    if differences.size == 0:
        return (float("nan"),) * 3
    mean = differences.mean()
    if differences.size == 1:
        return float(mean), float("nan"), float("nan")
    # Each part is an estimate of a variance of the mean, with its degrees of freedom: as if only settings varied, as if only
    # folds did, and what both have in common, the rest.
    of_settings, of_folds = differences.mean(1), differences.mean(0)
    parts = [(of_settings.var(ddof=1) / n_settings, n_settings - 1)] if n_settings > 1 else []
    parts += [(of_folds.var(ddof=1) / n_folds, n_folds - 1)] if n_folds > 1 else []
    variance, degrees = max(parts)
    if len(parts) == 2:
        rest = differences - of_settings[:, np.newaxis] - of_folds + mean
        freedom = (n_settings - 1) * (n_folds - 1)
        common = (rest**2).sum() / freedom / (n_settings * n_folds)
        total = parts[0][0] + parts[1][0] - common
        if total > variance:  # else one of the parts is no more than the rest
            variance = total
            degrees = total**2 / sum(part**2 / n for part, n in [*parts, (common, freedom)])
    half = stats.t.ppf(0.5 + confidence / 2, degrees) * np.sqrt(variance)
    return float(mean), float(mean - half), float(mean + half)
