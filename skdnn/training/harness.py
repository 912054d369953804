"""The skorch net that runs a fit: epochs, history, callbacks, validation, schedules and stopping around the engine."""

import math
import warnings

import torch
from sklearn.exceptions import ConvergenceWarning
from skorch import NeuralNet
from skorch.callbacks import Callback

from skdnn.components import Moment
from skdnn.engine import Network, Trainer, Update
from skdnn.training.plan import Outcome
from skdnn.training.policy import compute_policy
from skdnn.training.stopping import ProgressMonitor

# A fit whose last loss is this many times that of guessing has gone astray, although every number in it is finite.
_HOPELESS = 100.0


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
    """

    def __init__(self, plan, data, snapshot=None):
        self.plan = plan
        self.data = data
        self.network = Network([plan.network], plan.dtype, plan.device, [plan.seeds.dropout])
        if snapshot is None:
            self.network.initialize([plan.seeds.kernels])
        else:
            self.network.restore(snapshot)
        self._update = Update(self.network, [plan.update])
        self._trainer = Trainer(self.network, self._update, plan.loss, plan.batch_size)
        self._order = torch.Generator().manual_seed(plan.seeds.order)
        self.n_epochs = self.n_samples = 0

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

    def rates(self, n_plateaus):
        """Return the learning rate of each update of the next epoch."""
        plan = self.plan
        n_updates = self._trainer.n_updates(len(self.data.training_rows))
        n_moments = n_updates if plan.schedule.interval == "update" else 1
        rates = [
            plan.learning_rate_init
            * plan.schedule.factor(
                Moment(
                    epoch=self.n_epochs,
                    update=self._update.n_updates + i,
                    updates_per_epoch=n_updates,
                    max_iter=plan.max_iter,
                    n_samples=self.n_samples,
                    n_plateaus=n_plateaus,
                )
            )
            for i in range(n_moments)
        ]
        return rates if n_moments > 1 else rates * n_updates

    def train(self, rates, watcher=None):
        """Run an epoch of updates and return its mean loss, the penalty after it, and whether all is finite."""
        rows = self.data.training_rows
        if self.plan.shuffle:
            rows = rows[torch.randperm(len(rows), generator=self._order)]
        data = self.data
        loss = self._trainer.run_epoch(
            data.X,
            data.y,
            rows.to(data.y.device),
            rates,
            data.weights,
            watcher,
            sample_weight=data.sample_weight,
            twins=data.twins,
        )
        self.n_epochs += 1
        self.n_samples += len(rows)
        with torch.inference_mode():
            size = self.network.parameters.norms(self.network.parameters.data)
            loss, penalty, size = torch.cat([loss, self.network.penalty(), size]).tolist()
        return loss, penalty, math.isfinite(loss + penalty + size)

    def predicts(self):
        """Whether the network's outputs for the rows it trains on are finite."""
        return bool(self.network.predict(self.data.X).isfinite().all())

    def validate(self):
        """Return the loss and the score of the validation rows."""
        data, rows = self.data.validation_part()
        outputs = self.network.predict(data.X, rows).to(data.y.device)
        y, weights, sample_weight = (
            tensor if tensor is None or rows is None else tensor[rows.to(tensor.device)]
            for tensor in (data.y, data.weights, data.sample_weight)
        )
        weight = sample_weight if weights is None else weights if sample_weight is None else weights * sample_weight
        loss = self._loss_of(outputs, y, weight)
        score = self.plan.score
        return loss, -loss if score is None else score(self.network, outputs, y, sample_weight, weight)

    def _loss_of(self, outputs, y, weight):
        """Return the weighted mean of rows' losses."""
        loss = self.plan.loss
        with torch.inference_mode():
            total = len(y) if weight is None else weight.sum(0)
            # An output whose rows all count nothing adds nothing.
            share = 1.0 / total if weight is None else weight / total.masked_fill(total == 0.0, 1.0)
            targets = loss.prepare(y, self.network.n_outputs, share, self.network.dtype)
            return loss.value(outputs, targets, share).item()


class _BatchEvents:
    """Passes what the engine says of training batches on to skorch's callbacks.

    Parameters
    ----------
    net : TrainingNet
    """

    def __init__(self, net):
        self._net = net
        gradients = net.session.network.parameters.network(0, net.session.network.gradient)
        for parameter, gradient in zip(net.module_.parameters(), gradients, strict=True):
            parameter.grad = gradient

    def batch_begins(self, x, y):
        self._notify("on_batch_begin", x, y)

    def gradient_is_ready(self, x, y):
        self._notify("on_grad_computed", x, y, named_parameters=list(self._net.module_.named_parameters()))

    def batch_ends(self, x, y, outputs, loss):
        self._net.history.record_batch("train_loss", loss.item())
        self._net.history.record_batch("train_batch_size", len(x))
        self._notify("on_batch_end", x, y, y_pred=outputs, loss=loss.squeeze(0))

    def _notify(self, event, x, y, **tensors):
        # Callbacks get ordinary tensors of their own, for what they do is not inference and outlives the batch.
        with torch.inference_mode(False):
            own = {name: value.clone() if isinstance(value, torch.Tensor) else value for name, value in tensors.items()}
            batch = x.clone(), y.clone()
            self._net.notify(event, batch=batch, training=True, **own)


class TrainingNet(NeuralNet):
    """skorch's net with an epoch that is one call of the engine instead of a Python loop over a `DataLoader`.

    Made by estimators for one fit. Its ``module_`` is the live network; ``history`` has, for each epoch, `train_loss` (the
    total that is minimised), `base_loss` and `penalty` (its two parts), `learning_rate` (of the first update) and, with a
    validation set, `valid_loss` and `valid_score`.

    Parameters
    ----------
    module : torch.nn.Module
        Over the session's parameters.
    criterion : torch.nn.Module
    session : Session or None
        None for a net that has been trained.
    **kwargs
        Of `skorch.NeuralNet`.
    """

    def __init__(self, module, criterion, *, session=None, **kwargs):
        super().__init__(module, criterion, **kwargs)
        self.session = session

    @property
    def _default_callbacks(self):
        return []

    def initialize_optimizer(self, *args, **kwargs):
        """Make none: the engine updates the parameters."""
        return self

    def initialize_history(self):
        """Go on with a history that was given."""
        if self.history is None:
            super().initialize_history()
        return self

    def train(self, n_epochs=None):
        """Run the session's plan, leave its network with the weights to keep, and release the rest.

        Parameters
        ----------
        n_epochs : int, default=None
            Epochs at most, by default the plan's ``max_iter``.

        Returns
        -------
        outcome : Outcome

        Raises
        ------
        KeyboardInterrupt
            As it came; the network has the best weights so far, and `outcome_` says which.
        """
        session = self.session
        plan, data = session.plan, session.data
        self._monitor = ProgressMonitor(plan.tol, plan.n_iter_no_change, data.is_validated)
        self._best = initial = session.network.snapshot()
        self._reason = "max_iter" if n_epochs is None else "paused"
        self._n_epochs, n_epochs_before = 0, len(self.history or ())
        with compute_policy(plan.network.n_products * plan.batch_size, plan.dtype, plan.device):
            try:
                self.initialize()
                self.notify("on_train_begin", X=data.X, y=data.y)
                self.fit_loop(data.X, data.y, n_epochs or plan.max_iter)
            except KeyboardInterrupt:
                self._reason = "interrupted"
                raise
            except BaseException:
                self._reason, self._best = "interrupted", initial  # an error leaves nothing behind
                raise
            finally:
                del (self.history or [])[n_epochs_before + self._n_epochs :]  # the row of an epoch that was cut short
                self.outcome_ = self._conclude(session, initial)
                self.session = self._best = session.data = None
                self.module.zero_grad(set_to_none=True)
            self.notify("on_train_end", X=data.X, y=data.y)
        self._warn(plan)
        return self.outcome_

    def _conclude(self, session, initial):
        """Leave the weights to keep in the session's network and return the `Outcome`."""
        if session.data.is_validated or self._reason in ("diverged", "interrupted"):
            session.network.restore(self._best)
        best_epoch = self._monitor.best_epoch
        if self._has_gone_astray(session.plan) and not session.predicts():
            # Each weight is finite, but what they make of the rows is not.
            session.network.restore(initial)
            self._reason, best_epoch = "diverged", 0
        return Outcome(
            n_epochs=self._n_epochs,
            best_epoch=best_epoch,
            best_value=self._monitor.best_value,
            n_samples=self._n_epochs * len(session.data.training_rows),
            is_validated=session.data.is_validated,
            reason=self._reason,
        )

    def fit_loop(self, X, y=None, epochs=None, **fit_params):
        """Run epochs until the plan says stop."""
        session = self.session
        datasets = {"dataset_train": session.data, "dataset_valid": None}
        n_plateaus = 0
        for epoch in range(epochs):
            self.notify("on_epoch_begin", **datasets)
            self._rates = session.rates(n_plateaus)
            self.run_single_epoch(None, training=True, prefix="train", step_fn=None)
            if self._reason != "diverged" and session.data.is_validated:
                self.run_single_epoch(None, training=False, prefix="valid", step_fn=None)
            self._n_epochs = epoch + 1
            if self._reason != "diverged" and self._monitor.record(self._monitored(), epoch + 1):
                self._best = session.network.snapshot()
            self.notify("on_epoch_end", **datasets)
            if session.plan.verbose:
                self._print_epoch()
            if self._reason == "diverged":
                break
            if self._monitor.has_stalled:
                plan, now = session.plan, Moment(epoch=epoch + 1, n_plateaus=n_plateaus)
                if not plan.schedule.outlasts_plateau(plan.learning_rate_init, now):
                    self._reason = "no_progress"
                    break
                n_plateaus += 1
                self._monitor.be_patient_again()
        return self

    def run_single_epoch(self, iterator, training, prefix, step_fn, **fit_params):
        """Train on every row, or score the validation rows, in the engine; the arguments are skorch's and not used."""
        if training:
            watcher = _BatchEvents(self) if self._has_batch_hooks() else None
            loss, penalty, is_finite = self.session.train(self._rates, watcher)
            self.history[-1].update(train_loss=loss + penalty, base_loss=loss, penalty=penalty, learning_rate=self._rates[0])
            if not is_finite:
                self._reason = "diverged"
        else:
            loss, score = self.session.validate()
            self.history[-1].update(valid_loss=loss, valid_score=score)

    def _has_batch_hooks(self):
        """Whether a callback listens to batches: only then is Python called for every one of them."""
        events = ("on_batch_begin", "on_batch_end", "on_grad_computed")
        return any(
            getattr(type(callback), event, None) is not getattr(Callback, event)
            for _, callback in self.callbacks_
            for event in events
        )

    def _has_gone_astray(self, plan):
        """Whether the last loss is not finite, or worse than any that training could mean."""
        if not self._n_epochs:
            return False
        guessing = plan.loss.of_guessing(plan.network.layers[-1].n_out)
        return not self.history[-1]["base_loss"] <= _HOPELESS * guessing

    def _monitored(self):
        return self.history[-1]["valid_score" if self.session.data.is_validated else "train_loss"]

    def _print_epoch(self):
        row = self.history[-1]
        line = f"Epoch {row['epoch']}: loss = {row['train_loss']:.6f}"
        if "valid_score" in row:
            line += f", validation loss = {row['valid_loss']:.6f}, validation score = {row['valid_score']:.4f}"
        print(line)

    def _warn(self, plan):
        outcome = self.outcome_
        if outcome.reason == "diverged":
            kept = f"those of epoch {outcome.best_epoch}" if outcome.best_epoch else "the initial ones"
            warnings.warn(
                f"Training diverged in epoch {outcome.n_epochs}: the loss or a weight is no longer finite. The weights are "
                f"{kept}. Lower learning_rate_init={plan.learning_rate_init!r}, scale the features (for example with "
                "StandardScaler) or clip gradients (gradient_clipping=1.0).",
                ConvergenceWarning,
                stacklevel=4,
            )
        elif self._has_gone_astray(plan):
            guessing = plan.loss.of_guessing(plan.network.layers[-1].n_out)
            warnings.warn(
                f"Training ended with a loss of {self.history[-1]['base_loss']:.3g}, where guessing gives {guessing:.2f}. "
                f"Lower learning_rate_init={plan.learning_rate_init!r}, scale the features (for example with "
                "StandardScaler) or clip gradients (gradient_clipping=1.0).",
                ConvergenceWarning,
                stacklevel=4,
            )
        elif outcome.reason == "max_iter" and plan.n_iter_no_change < plan.max_iter:
            warnings.warn(
                f"Training reached max_iter={plan.max_iter} epochs before it stopped making progress. Raise max_iter, or set "
                "n_iter_no_change=max_iter to train for a fixed number of epochs.",
                ConvergenceWarning,
                stacklevel=4,
            )
