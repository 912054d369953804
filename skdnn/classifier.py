"""The classifier."""

import numpy as np
import torch
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d

from skdnn._base import BaseMLPDeep
from skdnn._docs import share_docstring
from skdnn.components.losses import BinaryCrossentropy, CategoricalCrossentropy


@share_docstring
class MLPDeepClassifier(ClassifierMixin, BaseMLPDeep):
    """A deep multilayer perceptron for classification, every technique of training deep networks a hyperparameter.

    It takes the place of `sklearn.neural_network.MLPClassifier`: parameters that both have keep their name and meaning. A
    technique is given by name with its defaults (``activation="leaky_relu"``) or as an object with parameters
    (``activation=LeakyReLU(alpha=0.2)``, from `skdnn.components`), whose parameters searches reach as
    ``activation__alpha``. All of them are checked in `fit`.

    Parameters
    ----------
    {parameters}

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels, sorted.

    n_outputs_ : int
        Units of the output layer: 1 for two classes, else one a class.

    out_activation_ : str
        "logistic" for two classes, else "softmax".

    {attributes}

    See Also
    --------
    sklearn.neural_network.MLPClassifier : What this takes the place of.

    References
    ----------
    A. Geron, "Hands-On Machine Learning with Scikit-Learn and TensorFlow", chapter 11: Training Deep Neural Networks,
    O'Reilly, 2017. Each technique's own paper is named in its class in `skdnn.components`.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.model_selection import train_test_split
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from skdnn import MLPDeepClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)
    >>> clf = MLPDeepClassifier((64, 32), activation="elu", batch_norm=True, max_norm=2.0, early_stopping=True, random_state=0)
    >>> model = make_pipeline(StandardScaler(), clf).fit(X_train, y_train)
    >>> model.score(X_test, y_test) > 0.95
    True
    """

    def _encode_target(self, y):
        check_classification_targets(y)
        y = column_or_1d(y, warn=True)
        classes, encoded = np.unique(y, return_inverse=True)
        if len(classes) < 2:
            raise ValueError(
                f"{type(self).__name__} needs samples of at least 2 classes, but y has only one class: {classes.tolist()[0]!r}."
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
