"""When to stop, and which epoch was best."""

import math


class ProgressMonitor:
    """Follows one value over the epochs, as `MLPClassifier` does.

    Parameters
    ----------
    tol : float
        An epoch makes progress if it is better than the best one before it by at least `tol`, an absolute amount.
    patience : float
        Epochs without progress, one after the other, that are borne.
    greater_is_better : bool

    Attributes
    ----------
    best_value : float
    best_epoch : int
        Counted from 1, 0 as long as there is none.
    """

    def __init__(self, tol, patience, greater_is_better):
        self._tol = tol
        self._patience = patience
        self._greater_is_better = greater_is_better
        self.best_value = -math.inf if greater_is_better else math.inf
        self.best_epoch = 0
        self._n_without_progress = 0

    def record(self, value, epoch):
        """Take the value of an epoch and say whether it is the best so far."""
        gain = value - self.best_value if self._greater_is_better else self.best_value - value
        self._n_without_progress = 0 if gain >= self._tol else self._n_without_progress + 1
        if gain > 0 or not self.best_epoch:  # the first is the best so far even if it is the worst there can be
            self.best_value, self.best_epoch = value, epoch
            return True
        return False

    @property
    def has_stalled(self):
        """Whether there has been no progress for more epochs than are borne."""
        return self._n_without_progress > self._patience

    def be_patient_again(self):
        """Count epochs without progress from zero."""
        self._n_without_progress = 0
