"""The rows of a fit between the estimator and the harness: checked arrays, and the tensors that become of them."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from skdnn._data import number_equal_rows, to_rows, to_tensor
from skdnn.training import TrainingData


@dataclass(frozen=True)
class Samples:
    """Rows as they were given, checked.

    Attributes
    ----------
    X, y : arrays or sparse matrices of shape (n_samples, ...)
        As `validate_data` leaves them.
    sample_weight : ndarray of shape (n_samples,) or None
    encoded : ndarray of shape (n_samples,) or (n_samples, n_targets)
        Targets as numbers for the loss, once the estimator has encoded them.
    """

    X: Any
    y: Any
    sample_weight: np.ndarray | None
    encoded: np.ndarray | None = None

    @property
    def counted_rows(self):
        """Indices of the rows that count."""
        return np.arange(self.X.shape[0]) if self.sample_weight is None else np.flatnonzero(self.sample_weight)


def to_training_data(samples, rows, plan, weigh=None, validation=None):
    """Hand samples over as tensors on the plan's device.

    Parameters
    ----------
    samples : Samples
    rows : tuple of ndarray
        Indices of training rows, and of validation rows or None.
    plan : TrainingPlan
    weigh : callable, default=None
        From encoded targets to weights of their losses.
    validation : Samples, default=None
        Data of their own to validate with.

    Returns
    -------
    data : TrainingData
    """
    data = _to_tensors(samples, weigh, plan, *rows)
    twins = None
    if plan.network.uses_dropout and plan.batch_size >= len(rows[0]):
        # All rows make one batch. Integer weights then are what repeated rows are, if these lose the same units.
        twins = torch.zeros(len(samples.encoded), dtype=torch.int64)
        twins[data.training_rows] = torch.from_numpy(number_equal_rows(samples.X, rows[0]))
        twins = twins.to(plan.device)
    if validation is not None:
        counted = None if validation.sample_weight is None else validation.counted_rows
        validation = _to_tensors(validation, weigh, plan, None, counted)
    return replace(data, twins=twins, validation=validation)


def _to_tensors(samples, weigh, plan, training_rows=None, validation_rows=None):
    def column(weights):
        return None if weights is None else torch.from_numpy(weights).to(plan.device, plan.dtype)

    sample_weight = samples.sample_weight
    return TrainingData(
        to_rows(samples.X, plan.device, plan.dtype),
        to_tensor(samples.encoded).to(plan.device),
        *(rows if rows is None else torch.from_numpy(rows) for rows in (training_rows, validation_rows)),
        weights=None if weigh is None else column(weigh(samples.encoded)),
        sample_weight=None if sample_weight is None else column(sample_weight[:, np.newaxis]),
    )
