"""The skorch net that runs a fit: epochs, history, callbacks, validation, schedules and stopping around the engine."""

import math
from contextlib import ExitStack
from functools import cached_property

import torch
from sklearn.exceptions import ConvergenceWarning
from skorch.history import History

from skdnn.components import Moment
from skdnn.engine import Network, Trainer, Update, split_into_batches
from skdnn.exceptions import InvalidParameterError, warn_caller
from skdnn.training.callbacks import BatchEvents, InterruptWatch, MovableRate, event_datasets, listens_to_batches
from skdnn.training.live import LiveNet
from skdnn.training.plan import Outcome
from skdnn.training.policy import compute_policy
from skdnn.training.progress import progress_listeners
from skdnn.training.stopping import ProgressMonitor

# A fit whose last loss is this many times that of guessing has gone astray, although every number in it is finite.
_HOPELESS = 100.0

# Rows that callbacks' predictions take at a time: enough that a batch costs arithmetic and not calls.
_PREDICTION_ROWS = 4096


class Session:
    """A network in training: what the harness needs for an epoch, and drops when the fit is over.

    A stream of fits (``partial_fit``) keeps it: the optimizer's state and the schedule's clock go on.

    Parameters
    ----------
    plan : TrainingPlan
    data : TrainingData
    snapshot : tuple of Tensor, default=None
        Parameters and statistics to go on from; by default kernels are drawn.

    Attributes
    ----------
    network : Network
    rate : MovableRate
        What callbacks have made of the learning rate.
    """

    def __init__(self, plan, data, snapshot=None):
        self.plan = plan
        self.data = data
        self.rate = MovableRate(plan.learning_rate_init)
        self.network = Network([plan.network], plan.dtype, plan.device, [plan.seeds.dropout])
        if snapshot is None:
            self.network.initialize([plan.seeds.kernels])
        else:
            self.network.restore(snapshot)
        self._order = torch.Generator().manual_seed(plan.seeds.order)
        self.n_epochs = self.n_samples = self.n_updates = 0

    @cached_property
    def _update(self):
        return Update(self.network, [self.plan.update])

    @cached_property
    def _trainer(self):
        return Trainer(self.network, self._update, self.plan.loss, self.plan.batch_size)

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
        self._trainer.batch_size = plan.batch_size

    @property
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
        self._loss = self._trainer.run_epoch(
            data.X,
            data.y,
            self.draw_order().to(data.y.device),
            rates,
            data.weights,
            watcher,
            sample_weight=data.sample_weight,
            twins=data.twins,
        )

    def draw_order(self):
        """Return the indices of the training rows in the order of the next epoch."""
        rows = self.data.training_rows
        return rows[torch.randperm(len(rows), generator=self._order)] if self.plan.shuffle else rows

    def end_epoch(self):
        """Return the mean loss of the epoch, the penalty after it, and whether all is finite."""
        self.n_epochs += 1
        self.n_samples += len(self.data.training_rows)
        self.n_updates += self.n_updates_per_epoch
        loss, penalty, size = self._figures()
        return loss, penalty, math.isfinite(loss + penalty + size)

    def _figures(self):
        """The epoch's mean loss, the penalty and the norm of all parameters."""
        with torch.inference_mode():
            size = self.network.parameters.norms(self.network.parameters.data)
            return torch.cat([self._loss, self.network.penalty(), size]).tolist()

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


class TrainingNet(LiveNet):
    """skorch's net with an epoch that is one call of the engine instead of a Python loop over a `DataLoader`.

    Made by estimators for one fit. Its ``module_`` is the live network; ``history`` has, for each epoch, `train_loss` (the
    total that is minimised), `base_loss` and `penalty` (its two parts), `learning_rate` (of the first update) and, with a
    validation set, `valid_loss` and `valid_score`. For callbacks there are batches, too: an epoch whose batches none of them
    listens to is one. A run counts its epochs in ``n_epochs_``.

    Parameters
    ----------
    module : torch.nn.Module
        Over the session's parameters.
    loss : Loss
    session : Session or None
        None for a net that has been trained.
    **kwargs
        Of `skorch.NeuralNet`.
    """

    def __init__(self, module, loss, *, session=None, **kwargs):
        # Callbacks that print are asked to: the estimator's `verbose` speaks of what skdnn itself shows.
        super().__init__(
            module, loss.to_module(), train_split=None, verbose=1, iterator_valid__batch_size=_PREDICTION_ROWS, **kwargs
        )
        self.loss = loss
        self.session = session
        self._rate = MovableRate(self.lr) if session is None else session.rate
        self._interrupts = InterruptWatch()

    @property
    def _default_callbacks(self):
        return []

    def initialize_history(self):
        """Go on with a history that was given."""
        if self.history is None:
            super().initialize_history()
        return self

    def __getstate__(self):
        # A net that is saved in training predicts; it does not train on, and does not take the data along.
        return super().__getstate__() | {"session": None, "_best": None, "_listeners": None, "_interrupts": InterruptWatch()}

    def train(self, n_epochs=None, listeners=()):
        """Run the session's plan, leave its network with the weights to keep, and release the rest.

        Parameters
        ----------
        n_epochs : int, default=None
            Epochs at most, by default the plan's ``max_iter``.
        listeners : iterable of EpochListener, default=()
            Told of the epochs beside those that the plan's ``verbose`` asks for.

        Returns
        -------
        outcome : Outcome

        Raises
        ------
        KeyboardInterrupt
            From the keyboard, as it came; the network has the best weights so far, and `outcome_` says which. One that a
            callback raises in an epoch ends training with that epoch, as skorch has it.
        """
        plan = self.session.plan
        with compute_policy(plan.network.n_products * plan.batch_size, plan.dtype, plan.device):
            for _ in self.epochs(n_epochs, listeners):
                pass
        return self.outcome_

    def epochs(self, n_epochs=None, listeners=()):
        """Do as `train` does, as a generator that yields once an epoch, between asking the session to train and its answer."""
        session = self.session
        plan, data = session.plan, session.data
        self._monitor = ProgressMonitor(plan.tol, plan.n_iter_no_change, data.is_validated)
        self._best = initial = session.snapshot()
        self._reason = "max_iter" if n_epochs is None else "paused"
        self.n_epochs_, n_epochs_before = 0, len(self.history or ())
        self._least = {}
        interrupt = None
        with ExitStack() as stack:
            listeners = [*progress_listeners(plan.verbose, n_epochs or plan.max_iter), *listeners]
            self._listeners = [stack.enter_context(listener) for listener in listeners]
            if self.callbacks:
                stack.enter_context(self._interrupts)
            try:
                self.initialize()
                self.notify("on_train_begin", X=data.X, y=data.y)
                # A callback may have loaded what an earlier fit had saved.
                self._best, n_epochs_before = session.snapshot(), len(self.history)
                yield from self._run_epochs(n_epochs or plan.max_iter)
            except KeyboardInterrupt as error:
                self._reason, interrupt = "interrupted", error
            except BaseException:
                self._reason, self._best = "interrupted", initial  # an error leaves nothing behind
                raise
            finally:
                del (self.history or [])[n_epochs_before + self.n_epochs_ :]  # the row of an epoch that was cut short
                self.outcome_ = self._conclude(session, initial)
                self.session = self._best = self._listeners = session.data = None
                self.module.eval().zero_grad(set_to_none=True)
            if self.n_epochs_:
                self._end_training(session, initial, data)
        if interrupt is not None:
            raise interrupt
        self._warn(plan)

    def take_over(self, snapshot, history, outcome):
        """End as a net of an equal session has ended, warnings included, without training.

        Parameters
        ----------
        snapshot : tuple of Tensor
            Parameters and statistics that it has left.
        history : list of dict
        outcome : Outcome
        """
        session, self.history = self.session, History(history)
        self.initialize()
        session.network.restore(snapshot)
        self.n_epochs_, self.outcome_ = outcome.n_epochs, outcome
        self.session = session.data = None
        self._warn(session.plan)

    def _end_training(self, session, initial, data):
        """Tell callbacks that training is over; they may put other weights into the network."""
        try:
            self.notify("on_train_end", X=data.X, y=data.y)
        except Exception:
            session.network.restore(initial)
            raise

    def _conclude(self, session, initial):
        """Leave the weights to keep in the session's network and return the `Outcome`."""
        is_best_kept = session.data.is_validated or self._reason in ("diverged", "interrupted")
        session.settle(self._best if is_best_kept else None)
        best_epoch = self._monitor.best_epoch
        if self._has_gone_astray(session.plan) and not session.predicts():
            # Each weight is finite, but what they make of the rows is not.
            session.network.restore(initial)
            self._reason, best_epoch = "diverged", 0
        return Outcome(
            n_epochs=self.n_epochs_,
            best_epoch=best_epoch,
            best_value=self._monitor.best_value,
            n_samples=self.n_epochs_ * len(session.data.training_rows),
            is_validated=session.data.is_validated,
            reason=self._reason,
        )

    def snapshot_to_keep(self):
        """Return the parameters and statistics that the fit would end with, were the last epoch its last."""
        is_best_kept = self.session.data.is_validated or self._reason == "diverged"
        return self._best if is_best_kept else self.session.snapshot()

    def _run_epochs(self, n_epochs):
        """Run epochs until the plan, a callback or a listener says stop."""
        session = self.session
        datasets = event_datasets(session.data) if self.callbacks_ else {}
        n_plateaus = 0
        for epoch in range(n_epochs):
            self._begin_epoch(datasets)
            self._rates = session.rates(n_plateaus)
            yield from self._train_epoch()
            if self._reason != "diverged" and session.data.is_validated:
                self._validate_epoch()
            self.n_epochs_ = epoch + 1
            if self._reason != "diverged" and self._monitor.record(self._monitored(), epoch + 1):
                self._best = session.snapshot()
            self._end_epoch(datasets)
            if self._reason in ("diverged", "stopped"):
                break
            if self._monitor.has_stalled:
                plan, now = session.plan, Moment(epoch=epoch + 1, n_plateaus=n_plateaus)
                if not plan.schedule.outlasts_plateau(plan.learning_rate_init, now):
                    self._reason = "no_progress"
                    break
                n_plateaus += 1
                self._monitor.be_patient_again()

    def _begin_epoch(self, datasets):
        self.notify("on_epoch_begin", **datasets)
        for listener in self._listeners:
            listener.epoch_begins(self)
        if self.callbacks_ and not all(parameter.requires_grad for parameter in self.module_.parameters()):
            raise InvalidParameterError(
                "A callback has frozen parameters of the network (requires_grad=False). skdnn trains all of them: leave "
                "Freezer and its like out of callbacks."
            )

    def _end_epoch(self, datasets):
        self.notify("on_epoch_end", **datasets)
        for listener in self._listeners:
            if listener.epoch_ends(self):
                self._stop()

    def _stop(self):
        """End training with the epoch."""
        if self._reason != "diverged":
            self._reason = "stopped"

    def _train_epoch(self):
        """Train on every row, and note the epoch's figures."""
        is_watched, watcher = self._watch(training=True)
        (first,) = self._rate.scale(self._rates[:1])
        self.session.begin_epoch(self._rate.scale(self._rates), watcher)
        yield
        loss, penalty, is_finite = self.session.end_epoch()
        if not is_finite:
            self._reason = "diverged"
        self.history[-1].update(train_loss=loss + penalty, base_loss=loss, penalty=penalty, learning_rate=first)
        if self.callbacks_:
            self._describe_batches(True, "train", is_watched)

    def _validate_epoch(self):
        """Score the validation rows."""
        is_watched, watcher = self._watch(training=False)
        loss, score = self.session.validate(watcher)
        self.history[-1].update(valid_loss=loss, valid_score=score)
        if self.callbacks_:
            self._describe_batches(False, "valid", is_watched)

    def _watch(self, training):
        """Return whether a callback listens to batches, and what tells them, or None."""
        is_watched = any(listens_to_batches(callback, training) for _, callback in self.callbacks_)
        return is_watched, BatchEvents(self) if is_watched else None

    def _has_gone_astray(self, plan):
        """Whether the last loss is not finite, or worse than any that training could mean."""
        if not self.n_epochs_:
            return False
        guessing = plan.loss.of_guessing(plan.network.layers[-1].n_out)
        return not self.history[-1]["base_loss"] <= _HOPELESS * guessing

    def _monitored(self):
        return self.history[-1]["valid_score" if self.session.data.is_validated else "train_loss"]

    def _warn(self, plan):
        outcome = self.outcome_
        if outcome.reason == "diverged":
            kept = f"those of epoch {outcome.best_epoch}" if outcome.best_epoch else "the initial ones"
            warn_caller(
                f"Training diverged in epoch {outcome.n_epochs}: the loss or a weight is no longer finite. The weights are "
                f"{kept}. Lower learning_rate_init={plan.learning_rate_init!r}, scale the features (for example with "
                "StandardScaler) or clip gradients (gradient_clipping=1.0).",
                ConvergenceWarning,
            )
        elif self._has_gone_astray(plan):
            guessing = plan.loss.of_guessing(plan.network.layers[-1].n_out)
            warn_caller(
                f"Training ended with a loss of {self.history[-1]['base_loss']:.3g}, where guessing gives {guessing:.2f}. "
                f"Lower learning_rate_init={plan.learning_rate_init!r}, scale the features (for example with "
                "StandardScaler) or clip gradients (gradient_clipping=1.0).",
                ConvergenceWarning,
            )
        elif outcome.reason == "max_iter" and plan.n_iter_no_change < plan.max_iter:
            warn_caller(
                f"Training reached max_iter={plan.max_iter} epochs before it stopped making progress. Raise max_iter, or set "
                "n_iter_no_change=max_iter to train for a fixed number of epochs.",
                ConvergenceWarning,
            )
