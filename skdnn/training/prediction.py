"""How the live network answers skorch's callbacks: as an estimator of the targets that the engine trains on."""

import numpy as np
import torch
from sklearn.metrics import accuracy_score, r2_score
from sklearn.utils import ClassifierTags, RegressorTags
from skorch.utils import is_skorch_dataset, to_numpy, to_tensor

from skdnn.training.callbacks import RowBatches


class LivePredictionMixin:
    """A skorch net over encoded targets: class indices, or numbers as the estimator has standardised them.

    Its `loss` says what outputs mean.
    """

    def get_iterator(self, dataset, training=False):
        """Return batches of the rows in their order."""
        if is_skorch_dataset(dataset):
            return RowBatches(dataset, self.batch_size)
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
