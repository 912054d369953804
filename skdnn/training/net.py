"""The skorch net of a fit with callbacks."""

from skdnn.exceptions import InvalidParameterError
from skdnn.training.callbacks import BatchEvents, InterruptWatch, MovableRate, event_datasets, listens_to_batches
from skdnn.training.live import LiveNet
from skdnn.training.run import TrainingRun

# Rows that callbacks' predictions take at a time: enough that a batch costs arithmetic and not calls.
_PREDICTION_ROWS = 4096


class TrainingNet(LiveNet, TrainingRun):
    """skorch's net with an epoch that is one call of the engine instead of a Python loop over a `DataLoader`.

    Made by estimators for one fit whose epochs callbacks listen to; others are a `TrainingRun`. Its ``module_`` is the live
    network. For callbacks there are batches, too: an epoch whose batches none of them listens to is one.

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

    _changes_weights = True

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
        released = dict.fromkeys(("session", "_best", "_initial", "_listeners"))
        return super().__getstate__() | released | {"_interrupts": InterruptWatch()}

    def _begin(self, stack):
        super()._begin(stack)
        if self.callbacks:
            stack.enter_context(self._interrupts)
        self.initialize()

    def _release(self):
        self.module.eval().zero_grad(set_to_none=True)

    def _event_data(self):
        return event_datasets(self.session.data) if self.callbacks_ else {}

    def _begin_epoch(self, datasets):
        super()._begin_epoch(datasets)
        if self.callbacks_ and not all(parameter.requires_grad for parameter in self.module_.parameters()):
            raise InvalidParameterError(
                "A callback has frozen parameters of the network (requires_grad=False). skdnn trains all of them: leave "
                "Freezer and its like out of callbacks."
            )

    def _watch(self, training):
        is_watched = any(listens_to_batches(callback, training) for _, callback in self.callbacks_)
        return is_watched, BatchEvents(self) if is_watched else None
