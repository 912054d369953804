"""What the harness is asked to run, and what it answers."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from skdnn.components import Schedule
from skdnn.components.losses import Loss
from skdnn.engine import NetworkPlan, UpdatePlan


@dataclass(frozen=True)
class Seeds:
    """A seed for each use of randomness, so that changing one use does not move another.

    Attributes
    ----------
    kernels, order, dropout : int
    """

    kernels: int
    order: int
    dropout: int


@dataclass(frozen=True)
class TrainingPlan:
    """All that a fit has decided before it starts.

    Attributes
    ----------
    network : NetworkPlan
    update : UpdatePlan
    schedule : Schedule
    learning_rate_init : float
    loss : Loss
    score : callable or None
        From the network, its outputs of shape (n_rows, n_outputs), targets of shape (n_rows,), sample weights of shape
        (n_rows, 1) or None, and their products with the weights of targets, of shape (n_rows, 1) or (n_rows, n_outputs) or
        None, to the validation score, a float; greater is better. None for minus the validation loss.
    batch_size : int
    max_iter : int
        Epochs at most.
    shuffle : bool
        Whether rows are put into a new order at each epoch.
    tol : float
        What an epoch must bring to count as progress.
    n_iter_no_change : float
        Epochs without progress that are borne, possibly inf.
    dtype : torch.dtype
    device : torch.device
    seeds : Seeds
    verbose : int
        0 is silent, 1 shows a progress bar, 2 and more print a line an epoch.
    """

    network: NetworkPlan
    update: UpdatePlan
    schedule: Schedule
    learning_rate_init: float
    loss: Loss
    score: Callable | None
    batch_size: int
    max_iter: int
    shuffle: bool
    tol: float
    n_iter_no_change: float
    dtype: torch.dtype
    device: torch.device
    seeds: Seeds
    verbose: int = 0


@dataclass(frozen=True)
class TrainingData:
    """The rows of a fit, which are held once: both parts of a split are indices. Validation data of its own come beside.

    Attributes
    ----------
    X : Tensor of shape (n_samples, n_features), or scipy CSR array or matrix of that shape
    y : Tensor of shape (n_samples,) or (n_samples, n_targets)
    training_rows : Tensor of shape (n_training_rows,) or None
        None where all rows are to validate with.
    validation_rows : Tensor of shape (n_validation_rows,) or None
    weights : Tensor of shape (n_samples, 1) or (n_samples, n_outputs) or None
        What the loss of a row, or of each of its outputs, is multiplied with; of mean 1 over the training rows.
    sample_weight : Tensor of shape (n_samples, 1) or None
        How often a row counts; above 0 for training rows.
    twins : Tensor of int of shape (n_samples,) or None
        Rows with the same number share their dropout masks, see `skdnn.engine.Trainer.run_epoch`.
    validation : TrainingData or None
        Data to validate with, instead of rows of these: its own `validation_rows`, or all where these are None.
    """

    X: Any
    y: torch.Tensor
    training_rows: torch.Tensor | None
    validation_rows: torch.Tensor | None = None
    weights: torch.Tensor | None = None
    sample_weight: torch.Tensor | None = None
    twins: torch.Tensor | None = None
    validation: "TrainingData | None" = None

    @cached_property
    def are_rows_in_order(self):
        """Whether the training rows are the first ones of all, in their order."""
        return torch.equal(self.training_rows, torch.arange(len(self.training_rows)))

    @property
    def is_validated(self):
        """Whether there is anything to validate with."""
        return self.validation is not None or self.validation_rows is not None

    @property
    def n_validation_rows(self):
        """How many rows there are to validate with."""
        data, rows = self.validation_part()
        return len(data.y if rows is None else rows)

    def validation_part(self):
        """Return the data that has the rows to validate with, and their indices, None for all."""
        data = self if self.validation is None else self.validation
        return data, data.validation_rows


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes
    ----------
    n_epochs : int
        Epochs that were run, the one that diverged included.
    best_epoch : int
        The epoch with the best monitored value, counted from 1; 0 if there was none.
    best_value : float
        That value: the validation score where there are validation rows, else the training loss.
    n_samples : int
        Training rows seen.
    is_validated : bool
        Whether there were validation rows.
    reason : {"max_iter", "paused", "no_progress", "stopped", "diverged", "interrupted"}
        "paused" after the epochs that were asked for, where these are not all; "stopped" by a callback.
    """

    n_epochs: int
    best_epoch: int
    best_value: float
    n_samples: int
    is_validated: bool
    reason: str
