"""A network in training: what a run needs of the engine for an epoch."""

import math
from functools import cached_property

import torch

from skdnn.components import Moment
from skdnn.engine import Network, Trainer, Update, run_epoch_together, split_into_batches
from skdnn.training.callbacks import MovableRate


class Session:
    """A network in training: what the harness needs for an epoch, and drops when the fit is over.

    A stream of fits (``partial_fit``) keeps it: the optimizer's state and the schedule's clock go on.

    Parameters
    ----------
    plan : TrainingPlan
    data : TrainingData
    snapshot : tuple of Tensor, default=None
        Parameters and statistics to go on from; by default kernels are drawn.
    n_epochs_before : int, default=0
        Epochs that these come from.

    Attributes
    ----------
    network : Network
    rate : MovableRate
        What callbacks have made of the learning rate.
    """

    _gradients: dict | None = None
    """Those of networks that take turns with this one."""

    def __init__(self, plan, data, snapshot=None, n_epochs_before=0):
        self.plan = plan
        self.data = data
        self.rate = MovableRate(plan.learning_rate_init)
        self.network = Network([plan.network], plan.dtype, plan.device, [plan.seeds.dropout], gradients=self._gradients)
        if snapshot is None:
            self._draw_kernels()
        else:
            self.network.restore(snapshot)
        self._order = torch.Generator().manual_seed(plan.seeds.order)
        self._n_epochs_before = n_epochs_before
        self.n_epochs = self.n_samples = self.n_updates = 0

    def _draw_kernels(self):
        self.network.initialize([self.plan.seeds.kernels])

    @cached_property
    def _update(self):
        return Update(self.network, [self.plan.update])

    @cached_property
    def trainer(self):
        """The `Trainer` of the network."""
        return self._make_trainer()

    def _make_trainer(self, chunks=None, **shared):
        plan = self.plan
        return Trainer(self.network, self._update, plan.loss, plan.batch_size, chunks, self._n_epochs_before, **shared)

    def can_go_on(self, plan):
        """Whether `feed` takes a plan: it must be of the same network, loss and update, on the same device."""
        mine = self.plan
        return (mine.network, mine.loss, mine.update, mine.device) == (plan.network, plan.loss, plan.update, plan.device)

    @property
    def has_sound_optimizer(self):
        """Whether the optimizer's state is finite."""
        return self._update.is_finite()

    def feed(self, plan, data):
        """Go on with other data, and a plan that may have another schedule, rate or batch size."""
        self.plan, self.data = plan, data
        self.trainer.batch_size = plan.batch_size
        vars(self).pop("n_updates_per_epoch", None)

    @cached_property
    def n_updates_per_epoch(self):
        """How many updates an epoch makes."""
        plan = self.plan
        batches = split_into_batches(len(self.data.training_rows), plan.batch_size, plan.network.smallest_batch)
        return sum(n_batches for n_batches, _ in batches)

    def rates(self, n_plateaus):
        """Return the learning rate of each update of the next epoch."""
        plan = self.plan
        n_updates = self.n_updates_per_epoch
        n_moments = n_updates if plan.schedule.interval == "update" else 1
        rates = [
            plan.learning_rate_init
            * plan.schedule.factor(
                Moment(
                    epoch=self.n_epochs,
                    update=self.n_updates + i,
                    updates_per_epoch=n_updates,
                    max_iter=plan.max_iter,
                    n_samples=self.n_samples,
                    n_plateaus=n_plateaus,
                )
            )
            for i in range(n_moments)
        ]
        return rates if n_moments > 1 else rates * n_updates

    def begin_epoch(self, rates, watcher=None):
        """Run an epoch of updates."""
        data = self.data
        run_epoch_together(
            [self.trainer],
            data.X,
            data.y,
            self.draw_order().to(data.y.device),
            [rates],
            data.weights,
            watcher,
            sample_weight=data.sample_weight,
            twins=data.twins,
        )

    def draw_order(self):
        """Return the indices of the training rows in the order of the next epoch."""
        rows = self.data.training_rows
        if not self.plan.shuffle:
            return rows
        order = torch.randperm(len(rows), generator=self._order)
        return order if self.data.are_rows_in_order else rows[order]

    def end_epoch(self):
        """Return the mean loss of the epoch, the penalty after it, and whether all is finite."""
        self.n_epochs += 1
        self.n_samples += len(self.data.training_rows)
        self.n_updates += self.n_updates_per_epoch
        loss, penalty, size = self._figures()
        return loss, penalty, math.isfinite(loss + penalty + size)

    def _figures(self):
        """The epoch's mean loss, the penalty and the norm of all parameters."""
        (figures,) = self.trainer.figures()
        return figures

    def snapshot(self):
        """Return a copy of the network's parameters and statistics."""
        return self.network.snapshot()

    def settle(self, snapshot=None):
        """Leave a snapshot in the network, by default what training has come to."""
        if snapshot is not None:
            self.network.restore(snapshot)

    def predicts(self):
        """Whether the network's outputs for the rows it trains on are finite."""
        return bool(self.network.predict(self.data.X).isfinite().all())

    def validate(self, watcher=None):
        """Return the loss and the score of the validation rows."""
        data, rows = self.data.validation_part()
        outputs = self._validation_outputs(data, rows).to(data.y.device)
        y, weights, sample_weight = (
            tensor if tensor is None or rows is None else tensor[rows.to(tensor.device)]
            for tensor in (data.y, data.weights, data.sample_weight)
        )
        weight = sample_weight if weights is None else weights if sample_weight is None else weights * sample_weight
        loss = self._loss_of(outputs, y, weight)
        if watcher is not None:
            watcher.rows_are_validated(data.X, rows, y, outputs, loss)
        loss, score = loss.item(), self.plan.score
        return loss, -loss if score is None else score(self.network, outputs, y, sample_weight, weight)

    def _validation_outputs(self, data, rows):
        return self.network.predict(data.X, rows)

    def _loss_of(self, outputs, y, weight):
        """Return the weighted mean of rows' losses."""
        loss = self.plan.loss
        with torch.inference_mode():
            total = len(y) if weight is None else weight.sum(0)
            # An output whose rows all count nothing adds nothing.
            share = 1.0 / total if weight is None else weight / total.masked_fill(total == 0.0, 1.0)
            targets = loss.prepare(y, self.network.n_outputs, share, self.network.dtype)
            return loss.value(outputs, targets, share)
