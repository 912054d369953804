"""The classifier."""

import numpy as np
import torch
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d

from skdnn._base import BaseMLPDeep
from skdnn.components.losses import BinaryCrossentropy, CategoricalCrossentropy


class MLPDeepClassifier(ClassifierMixin, BaseMLPDeep):
    """DOC"""

    def _encode_target(self, y):
        check_classification_targets(y)
        y = column_or_1d(y, warn=True)
        classes, encoded = np.unique(y, return_inverse=True)
        if len(classes) < 2:
            raise ValueError(
                f"{type(self).__name__} needs samples of at least 2 classes, but y contains only one class: {classes[0]!r}."
            )
        if self.warm_start and hasattr(self, "_network"):
            unknown = np.setdiff1d(classes, self.classes_)
            if len(unknown):
                raise ValueError(
                    "warm_start=True goes on with the classes of the previous fit. "
                    f"y has {unknown.tolist()}, which are not among {self.classes_.tolist()}."
                )
            return np.searchsorted(self.classes_, y)
        self.classes_ = classes
        return encoded

    def _loss(self):
        n_classes = len(self.classes_)
        return (BinaryCrossentropy(), 1) if n_classes == 2 else (CategoricalCrossentropy(), n_classes)

    def _score_outputs(self, outputs, y):
        return (_class_indices(outputs) == y).double().mean().item()

    def decision_function(self, X):
        """Return the output layer's values, the logits.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        decision : ndarray of shape (n_samples,) or (n_samples, n_classes)
            For two classes the log-odds of ``classes_[1]``; otherwise one logit a class, of which the softmax is the
            probability.
        """
        outputs = self._outputs(X)
        return (outputs[:, 0] if outputs.shape[1] == 1 else outputs).numpy()

    def predict(self, X):
        """Return the most probable class.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        y : ndarray of shape (n_samples,)
            Of the labels given to `fit`.
        """
        indices = _class_indices(self._outputs(X))
        return self.classes_[indices.numpy()]

    def predict_proba(self, X):
        """Return the probability of each class.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_classes)
            In the order of ``classes_``; rows sum to 1.
        """
        outputs = self._outputs(X)
        if outputs.shape[1] == 1:
            positive = torch.sigmoid(outputs)
            return torch.cat([1.0 - positive, positive], 1).numpy()
        return torch.softmax(outputs, 1).numpy()

    def predict_log_proba(self, X):
        """Return the logarithm of the probability of each class, exact where the probability itself rounds to 0.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        log_probabilities : ndarray of shape (n_samples, n_classes)
            In the order of ``classes_``.
        """
        outputs = self._outputs(X)
        if outputs.shape[1] == 1:
            log_sigmoid = torch.nn.functional.logsigmoid
            return torch.cat([log_sigmoid(-outputs), log_sigmoid(outputs)], 1).numpy()
        return torch.log_softmax(outputs, 1).numpy()


def _class_indices(outputs):
    """The class with the greatest output; of one output, the second class where it is positive."""
    return (outputs[:, 0] > 0).long() if outputs.shape[1] == 1 else outputs.argmax(1)
