"""scikit-learn's callbacks (`sklearn.callback`): a fit is a task of theirs, and each of its epochs a task within it."""

from contextlib import contextmanager

from skorch.history import History

from skdnn._fitted import attributes_of
from skdnn.engine import Network
from skdnn.training import EpochListener


@contextmanager
def fit_task(estimator, X, y, sample_weight):
    """Make a call of `fit` the root task of the estimator's callbacks; nothing happens where it has none.

    Parameters
    ----------
    estimator : estimator
        One with `sklearn.callback.CallbackSupportMixin`, whose `fit` has the decorator `sklearn.callback.with_callbacks`.
    X, y, sample_weight : array-like
        As `fit` was given them.
    """
    if not hasattr(estimator, "_skl_callbacks"):
        yield
        return
    context = estimator._init_callback_context(max_subtasks=estimator.max_iter)
    data = {"estimator": estimator, **_data_of_task(X, y, sample_weight)}
    context.call_on_fit_task_begin(**data)
    yield
    context.call_on_fit_task_end(**data, reconstruction_attributes={})


def epoch_tasks(estimator, X, y, sample_weight):
    """Return the listeners that make epochs tasks of the current `fit_task`: one, or none where there is no such task."""
    context = getattr(estimator, "_callback_fit_ctx", None)
    return [] if context is None else [_EpochTasks(estimator, context, _data_of_task(X, y, sample_weight))]


def _data_of_task(X, y, sample_weight):
    return {"X": X, "y": y, "metadata": None if sample_weight is None else {"sample_weight": sample_weight}}


class _EpochTasks(EpochListener):
    """Makes each epoch a task.

    Parameters
    ----------
    estimator : estimator
    context : sklearn.callback.CallbackContext
        Of the fit.
    data : dict
        X, y and metadata for the callbacks.
    """

    def __init__(self, estimator, context, data):
        self._estimator = estimator
        self._context = context
        self._data = data

    def epoch_begins(self, net):
        self._epoch = self._context.subcontext(task_name="epoch")
        self._epoch.call_on_fit_task_begin(**self._arguments(net))

    def epoch_ends(self, net):
        return self._epoch.call_on_fit_task_end(**self._arguments(net))

    def _arguments(self, net):
        return {
            "estimator": self._estimator,
            "reconstruction_attributes": lambda: _attributes_as_if_over(net),
            **self._data,
        }


def _attributes_as_if_over(net):
    """Return the fitted attributes, those of prediction and of history, that the fit would leave if it ended now."""
    session = net.session
    network = Network(session.network.plans, session.network.dtype, session.network.device)
    network.restore(net.snapshot_to_keep())
    history = History(row for row in net.history if "train_loss" in row)  # without the epoch that begins
    return {
        **attributes_of(network, session.plan.loss),
        "history_": history,
        "loss_curve_": [row["train_loss"] for row in history],
        "n_iter_": net.n_epochs_,
    }
