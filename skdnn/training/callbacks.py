"""What skorch's callbacks meet: the data of the events, batches, an optimizer, and a way to stop."""

import signal
import threading

import scipy.sparse
import torch
from skorch.callbacks import Callback, EpochScoring
from skorch.callbacks.scoring import ScoringBase
from skorch.dataset import Dataset
from skorch.utils import data_from_dataset

from skdnn.engine.rows import take_rows

_BATCH_EVENTS = ("on_batch_begin", "on_batch_end", "on_grad_computed")


def listens_to_batches(callback, training):
    """Say whether a callback has a hook for the batches of training, or for the validation rows.

    skorch's scores have one for both, and use it for the one that their ``on_train`` names; scores of epochs use it only
    to cache predictions.
    """
    if isinstance(callback, ScoringBase) and callback.on_train != training:
        return False
    if getattr(type(callback), "on_batch_end", None) is EpochScoring.on_batch_end and not callback.use_caching:
        return False
    return any(getattr(type(callback), event, None) is not getattr(Callback, event) for event in _BATCH_EVENTS)


def event_datasets(data):
    """Return the datasets that skorch's epoch events carry, over the memory of the fit.

    Parameters
    ----------
    data : TrainingData

    Returns
    -------
    datasets : dict
        ``dataset_train`` and ``dataset_valid``, the latter None where nothing is validated; parts of a split are subsets.
    """
    training, validation = _dataset(data, data.training_rows), None
    if data.is_validated:
        validation = _dataset(*data.validation_part())
    return {"dataset_train": training, "dataset_valid": validation}


def _dataset(data, rows):
    whole = Dataset(data.X, data.y, length=len(data.y))
    return whole if rows is None or len(rows) == len(data.y) else torch.utils.data.Subset(whole, rows.cpu().numpy())


class RowBatches:
    """Iterates over the rows of a skorch dataset, a batch at a time and in their order.

    It gives what a `torch.utils.data.DataLoader` does, without a Python call for each row.

    Parameters
    ----------
    dataset : skorch.dataset.Dataset, or a Subset of one
    batch_size : int
    """

    def __init__(self, dataset, batch_size):
        self.dataset = dataset
        self.batch_size = batch_size

    def __len__(self):
        return -(-len(self.dataset) // self.batch_size)

    def __iter__(self):
        X, y = data_from_dataset(self.dataset)
        for start in range(0, len(self.dataset), self.batch_size):
            rows = slice(start, start + self.batch_size)
            # Rows without targets get zeros, as skorch's datasets have it.
            some = X[rows].toarray() if scipy.sparse.issparse(X) else X[rows]
            yield torch.as_tensor(some), torch.zeros(len(some)) if y is None else torch.as_tensor(y[rows])


class BatchEvents:
    """Passes what the engine says of batches on to skorch's callbacks.

    Parameters
    ----------
    net : TrainingNet
    """

    def __init__(self, net):
        self._net = net
        gradients = net.session.network.parameters.network(0, net.session.network.gradient)
        for parameter, gradient in zip(net.module_.parameters(), gradients, strict=True):
            parameter.grad = gradient

    def batch_begins(self, x, y, training=True):
        self._notify("on_batch_begin", x, y, training)

    def gradient_is_ready(self, x, y):
        self._notify("on_grad_computed", x, y, True, named_parameters=list(self._net.module_.named_parameters()))

    def batch_ends(self, x, y, outputs, loss):
        """Report a batch, with the loss that is minimised: penalties are part of it, as they are of an epoch's."""
        self._end("train", x, y, outputs, loss + self._net.session.network.penalty())

    def rows_are_validated(self, X, rows, y, outputs, loss):
        """Report the validation rows, which are one batch."""
        x = take_rows(X, slice(None) if rows is None else rows)
        self.batch_begins(x, y, training=False)
        self._end("valid", x, y, outputs, loss.reshape(1))

    def _end(self, prefix, x, y, outputs, loss):
        self._net.history.record_batch(f"{prefix}_loss", loss.item())
        self._net.history.record_batch(f"{prefix}_batch_size", len(x))
        self._notify("on_batch_end", x, y, prefix == "train", y_pred=outputs, loss=loss.squeeze(0))

    def _notify(self, event, x, y, training, **tensors):
        # Callbacks get ordinary tensors of their own, for what they do is not inference and outlives the batch.
        with torch.inference_mode(False):
            own = {name: value.clone() if isinstance(value, torch.Tensor) else value for name, value in tensors.items()}
            batch = x.clone(), y.clone()
            self._net.notify(event, batch=batch, training=training, **own)


class EngineOptimizer(torch.optim.Optimizer):
    """The engine's update as callbacks see it: a learning rate that they may move.

    It steps nothing, and its state is the rate alone.

    Parameters
    ----------
    parameters : iterable of torch.nn.Parameter
    lr : float
    """

    def __init__(self, parameters, lr):
        # torch's schedulers go on from `initial_lr` where a history is continued.
        super().__init__(parameters, {"lr": lr, "initial_lr": lr})

    def step(self, closure=None):
        """Do nothing: torch's schedulers only want to know that updates were made before they move the rate."""


class MovableRate:
    """The learning rate as callbacks move it: by way of an optimizer, which is made when one of them asks for it.

    Parameters
    ----------
    lr : float
        Before anyone moves it.
    """

    def __init__(self, lr):
        self._lr = lr
        self._optimizer = None

    def as_optimizer(self, parameters):
        """Return the optimizer whose rate counts."""
        if self._optimizer is None:
            self._optimizer = EngineOptimizer(parameters, self._lr)
        return self._optimizer

    def scale(self, rates):
        """Return the rates of a schedule in proportion to the optimizer's own, as it is when each of them is needed."""
        return rates if self._optimizer is None else self._scale(rates)

    def _scale(self, rates):
        self._optimizer.step()
        (group,) = self._optimizer.param_groups
        for rate in rates:
            yield rate * (float(group["lr"]) / self._lr)


class InterruptWatch:
    """Tells a Ctrl-C from the `KeyboardInterrupt` by which a callback ends training, while its context lasts."""

    def __enter__(self):
        self._interrupt = self._handler = None
        handler = signal.getsignal(signal.SIGINT)
        # Python delivers signals to the main thread alone.
        if callable(handler) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self._handle)
            self._handler = handler
        return self

    def __exit__(self, *error):
        if self._handler is not None:
            signal.signal(signal.SIGINT, self._handler)
        self._interrupt = self._handler = None

    def _handle(self, signum, frame):
        try:
            self._handler(signum, frame)
        except KeyboardInterrupt as interrupt:
            self._interrupt = interrupt
            raise

    def has_seen(self, interrupt):
        """Say whether an exception came from the keyboard."""
        return interrupt is self._interrupt
