"""The net in training as skorch's callbacks see it: events, an estimator, an optimizer and a history with flags."""

import math

import numpy as np
import torch
from sklearn.metrics import accuracy_score, r2_score
from sklearn.utils import ClassifierTags, RegressorTags
from skorch import NeuralNet
from skorch.utils import is_skorch_dataset, to_numpy, to_tensor

from skdnn.exceptions import InvalidParameterError
from skdnn.training.callbacks import RowBatches


class LiveNet(NeuralNet):
    """What callbacks ask of a skorch net, where the engine trains the network.

    It is an estimator of encoded targets: class indices, or numbers as the estimator has standardised them. Its `loss` says
    what outputs mean.
    """

    def notify(self, method_name, **cb_kwargs):
        """Tell every callback; one that raises `KeyboardInterrupt` in an epoch ends training with it, as skorch has it."""
        getattr(self, method_name)(self, **cb_kwargs)
        for _, callback in self.callbacks_:
            try:
                getattr(callback, method_name)(self, **cb_kwargs)
            except KeyboardInterrupt as interrupt:
                if "train" in method_name or self._interrupts.has_seen(interrupt):
                    raise
                self._stop()

    def on_epoch_end(self, net, dataset_train=None, dataset_valid=None, **kwargs):
        """Flag the figures that are better than all before them in the fit: skorch's own callbacks look for these flags."""
        if not self.callbacks_:
            return
        row = self.history[-1]
        for name, sign in (("train_loss", 1.0), ("valid_loss", 1.0), ("valid_score", -1.0)):
            if name in row:
                row[f"{name}_best"] = is_best = sign * row[name] < self._least.get(name, math.inf)
                if is_best:
                    self._least[name] = sign * row[name]

    def _describe_batches(self, training, prefix, is_watched):
        """Write what skorch's callbacks look for beside the figures: the number of batches, and at least one of them."""
        if not self.callbacks_:
            return
        row, data = self.history[-1], self.session.data
        row[f"{prefix}_batch_count"] = len(self._rates) if training else 1
        if not is_watched:
            n_rows = len(data.training_rows) if training else data.n_validation_rows
            row["batches"].append({f"{prefix}_loss": row[f"{prefix}_loss"], f"{prefix}_batch_size": n_rows})

    def initialize_optimizer(self, *args, **kwargs):
        """Make none: the engine updates the parameters."""
        return self

    @property
    def optimizer_(self):
        """The engine's update as an optimizer, of which only the learning rate is there to be moved."""
        return self._rate.as_optimizer(self.module_.parameters())

    def set_params(self, **params):
        """Set the learning rate, or a parameter of a callback; the network is the estimator's to decide."""
        rates = [params.pop(name) for name in ("lr", "optimizer__lr") if name in params]
        for rate in rates:
            self.optimizer_.param_groups[0]["lr"] = rate
        for name in params:
            if name.split("__")[0] in ("module", "criterion", "optimizer"):
                raise InvalidParameterError(
                    f"A callback has set {name!r} of the net. skdnn makes the network, its loss and its optimizer from the "
                    "estimator's parameters, and its inputs from X: set hidden_layer_sizes, optimizer and the like there."
                )
        return super().set_params(**params)

    def get_iterator(self, dataset, training=False):
        """Return batches of the rows in their order."""
        if is_skorch_dataset(dataset):
            return RowBatches(dataset, self.batch_size if training else self.iterator_valid__batch_size)
        return super().get_iterator(dataset, training)

    def infer(self, x, **fit_params):
        """Return the outputs for a batch of any dtype."""
        return self.module_(to_tensor(x, device=self.device).to(next(self.module_.parameters()).dtype))

    @property
    def classes_(self):
        """The indices of the classes."""
        n_classes = self._n_classes
        if n_classes is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute 'classes_': it was trained for regression.")
        return np.arange(n_classes)

    @property
    def _n_classes(self):
        *_, last = (module for module in self.module.modules() if isinstance(module, torch.nn.Linear))
        return self.loss.n_classes(last.out_features)

    def predict_proba(self, X):
        """Return the probability of each class, or what a regressor predicts."""
        return to_numpy(self.loss.probabilities(self.forward(X)))

    def predict(self, X):
        """Return class indices, an indicator matrix of labels, or numbers."""
        return to_numpy(self.loss.predict(self.forward(X)))

    def score(self, X, y):
        """Return the accuracy, or R2."""
        metric = r2_score if self._n_classes is None else accuracy_score
        return metric(to_numpy(y), self.predict(X))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        if self._n_classes is None:
            tags.estimator_type, tags.regressor_tags = "regressor", RegressorTags()
        else:
            tags.estimator_type, tags.classifier_tags = "classifier", ClassifierTags()
        return tags
