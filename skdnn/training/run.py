"""The epochs of a fit: what is trained and validated, kept, noted and decided in each, and when it ends."""

from contextlib import ExitStack
from dataclasses import replace

from sklearn.exceptions import ConvergenceWarning
from skorch.history import History

from skdnn.components import Moment
from skdnn.exceptions import warn_caller
from skdnn.training.plan import Outcome
from skdnn.training.policy import compute_policy
from skdnn.training.progress import progress_listeners
from skdnn.training.session import Session
from skdnn.training.stopping import ProgressMonitor

# A fit whose last loss is this many times that of guessing has gone astray, although every number in it is finite.
_HOPELESS = 100.0


class TrainingRun:
    """The run of a session's plan, without anybody who listens to it but `EpochListener`.

    Its ``history`` has, for each epoch, `train_loss` (the total that is minimised), `base_loss` and `penalty` (its two parts),
    `learning_rate` (of the first update) and, with a validation set, `valid_loss` and `valid_score`. A run counts its epochs in
    ``n_epochs_``.

    Parameters
    ----------
    session : Session
    history : skorch.history.History, default=None
        To go on with.
    """

    def __init__(self, session, history=None):
        self.session = session
        self.history = History() if history is None else history
        self._rate = session.rate

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
        self._best = self._initial = session.snapshot()
        self._reason = "max_iter" if n_epochs is None else "paused"
        self.n_epochs_, n_epochs_before = 0, len(self.history or ())
        interrupt = None
        with ExitStack() as stack:
            listeners = [*progress_listeners(plan.verbose, n_epochs or plan.max_iter), *listeners]
            self._listeners = [stack.enter_context(listener) for listener in listeners]
            try:
                self._begin(stack)
                self.notify("on_train_begin", X=data.X, y=data.y)
                n_epochs_before = len(self.history)
                if self._changes_weights:  # to what an earlier fit had saved
                    self._best = session.snapshot()
                yield from self._run_epochs(n_epochs or plan.max_iter)
            except KeyboardInterrupt as error:
                self._reason, interrupt = "interrupted", error
            except BaseException:
                self._reason, self._best = "interrupted", self._initial  # an error leaves nothing behind
                raise
            finally:
                del (self.history or [])[n_epochs_before + self.n_epochs_ :]  # the row of an epoch that was cut short
                initial, self.outcome_ = self._initial, self._conclude(session)
                self.session = self._best = self._initial = self._listeners = session.data = None
                self._release()
            if self.n_epochs_:
                self._end_training(session, initial, data)
        if interrupt is not None:
            raise interrupt
        self._warn(plan)

    def take_over(self, snapshot, history, outcome):
        """End as a run of an equal session has ended, warnings included, without training.

        Parameters
        ----------
        snapshot : tuple of Tensor
            Parameters and statistics that it has left.
        history : list of dict
        outcome : Outcome
        """
        session, self.history = self.session, History(history)
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

    def _conclude(self, session):
        """Leave the weights to keep in the session's network and return the `Outcome`."""
        is_best_kept = session.data.is_validated or self._reason in ("diverged", "interrupted")
        session.settle(self._best if is_best_kept else None)
        best_epoch = self._monitor.best_epoch
        if self._has_gone_astray(session.plan) and not session.predicts():
            # Each weight is finite, but what they make of the rows is not.
            session.network.restore(self._initial)
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
        return self.session.snapshot() if self._best is None or not is_best_kept else self._best

    def as_if_over(self):
        """Return a run that has ended with the last epoch, as a fit with so many epochs would; this one can go on.

        Returns
        -------
        run : TrainingRun
        session : Session
            With the network that the fit would leave.
        """
        plan = replace(self.session.plan, max_iter=self.n_epochs_)
        session = Session(plan, self.session.data, self.session.snapshot())
        history = History(row for row in self.history if "train_loss" in row)  # without the epoch that begins
        run = TrainingRun(session, history)
        for name in ("n_epochs_", "_monitor", "_reason", "_best", "_initial"):
            setattr(run, name, getattr(self, name))
        run.outcome_ = run._conclude(session)
        run.session = run._best = run._initial = session.data = None
        return run, session

    def _run_epochs(self, n_epochs):
        """Run epochs until the plan, a callback or a listener says stop."""
        session = self.session
        datasets = self._event_data()
        n_plateaus = 0
        for epoch in range(n_epochs):
            self._begin_epoch(datasets)
            self._rates = session.rates(n_plateaus)
            yield from self._train_epoch()
            if self._reason != "diverged" and session.data.is_validated:
                self._validate_epoch()
            self.n_epochs_ = epoch + 1
            if self._reason != "diverged" and self._monitor.record(self._monitored(), epoch + 1):
                is_last = epoch + 1 == n_epochs and not self._changes_weights
                self._best = None if is_last else session.snapshot()  # None for the network as it will then be
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
        self._row.update(train_loss=loss + penalty, base_loss=loss, penalty=penalty, learning_rate=first)
        self._describe_batches(True, "train", is_watched)

    def _validate_epoch(self):
        """Score the validation rows."""
        is_watched, watcher = self._watch(training=False)
        loss, score = self.session.validate(watcher)
        self._row.update(valid_loss=loss, valid_score=score)
        self._describe_batches(False, "valid", is_watched)

    def _watch(self, training):
        """Return whether somebody listens to the batches of training, or of validation, and what tells them, or None."""
        return False, None

    def _has_gone_astray(self, plan):
        """Whether the last loss is not finite, or worse than any that training could mean."""
        if not self.n_epochs_:
            return False
        guessing = plan.loss.of_guessing(plan.network.layers[-1].n_out)
        return not self._row["base_loss"] <= _HOPELESS * guessing

    @property
    def _row(self):
        """The epoch's row in the history, without skorch's look at what is asked for."""
        return next(reversed(self.history))

    def _monitored(self):
        return self._row["valid_score" if self.session.data.is_validated else "train_loss"]

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

    _changes_weights = False
    """Whether somebody who is told of training may put other weights into the network."""

    def notify(self, method_name, **cb_kwargs):
        """Tell whoever listens. Nobody does, but an epoch has its row in the history."""
        if method_name == "on_epoch_begin":
            self.history.append({"batches": [], "epoch": len(self.history) + 1})

    def _begin(self, stack):
        """Prepare for epochs; what is to be undone after them goes to an `ExitStack`."""
        self._least = {}

    def _release(self):
        """Let go of what training alone needs."""

    def _event_data(self):
        """Return what events of epochs carry."""
        return {}

    def _describe_batches(self, training, prefix, is_watched):
        """Write of batches what listeners look for."""
