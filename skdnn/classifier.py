"""The classifier."""

from numbers import Real

import numpy as np
import scipy.sparse
import torch
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import column_or_1d

from skdnn._base import BaseMLPDeep
from skdnn._data import once
from skdnn._docs import share_docstring
from skdnn._validation import Interval, StrOptions
from skdnn.components.losses import BinaryCrossentropy, CategoricalCrossentropy, MultilabelCrossentropy
from skdnn.exceptions import InvalidParameterError


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

    class_weight : dict, "balanced", list of dict or None, default=None
        What rows of each class count in the loss, as a dict from labels to weights in [0.0, inf); a class that is left out
        counts 1. "balanced" gives all classes the same sum of weights. For multilabel targets a list with a dict from 0 and 1
        for each label, or "balanced". Weights are scaled to mean 1 over the training rows.

    label_smoothing : float in [0.0, 1.0), default=0.0
        The share of each row's target that is spread evenly over all classes, which keeps the network from growing surer than
        is right: with 0.1 and 10 classes the target is 0.91 for the row's class and 0.01 for the others.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels, sorted; for multilabel targets the columns' numbers.

    n_outputs_ : int
        Units of the output layer: 1 for two classes, else one a class or label.

    out_activation_ : str
        "softmax" for more than two classes, else "logistic".

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

    _parameter_constraints = {
        **BaseMLPDeep._parameter_constraints,
        "class_weight": [None, dict, list, StrOptions({"balanced"})],
        "label_smoothing": [Interval(Real, 0.0, 1.0, closed="left")],
    }

    # y may be an indicator matrix, which is told from other matrices once its values are known.
    _target_checks = {"multi_output": True}

    # Written out, for scikit-learn reads an estimator's parameters off this signature.
    def __init__(
        self,
        hidden_layer_sizes=(100,),
        activation="relu",
        *,
        initializer="auto",
        batch_norm=False,
        dropout=0.0,
        input_dropout=0.0,
        regularizer=None,
        max_norm=None,
        optimizer="adam",
        learning_rate_init=0.001,
        learning_rate="constant",
        gradient_clipping=None,
        batch_size="auto",
        max_iter=200,
        shuffle=True,
        early_stopping=False,
        validation_fraction=0.1,
        n_iter_no_change=10,
        tol=1e-4,
        monitor="auto",
        warm_start=False,
        device="auto",
        dtype="auto",
        callbacks=None,
        random_state=None,
        verbose=False,
        class_weight=None,
        label_smoothing=0.0,
    ):
        super().__init__(
            hidden_layer_sizes=hidden_layer_sizes,
            activation=activation,
            initializer=initializer,
            batch_norm=batch_norm,
            dropout=dropout,
            input_dropout=input_dropout,
            regularizer=regularizer,
            max_norm=max_norm,
            optimizer=optimizer,
            learning_rate_init=learning_rate_init,
            learning_rate=learning_rate,
            gradient_clipping=gradient_clipping,
            batch_size=batch_size,
            max_iter=max_iter,
            shuffle=shuffle,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            n_iter_no_change=n_iter_no_change,
            tol=tol,
            monitor=monitor,
            warm_start=warm_start,
            device=device,
            dtype=dtype,
            callbacks=callbacks,
            random_state=random_state,
            verbose=verbose,
        )
        self.class_weight = class_weight
        self.label_smoothing = label_smoothing

    def partial_fit(self, X, y, classes=None, sample_weight=None):
        """Train for one epoch on X and y, going on where the last call ended.

        The optimizer's state and the schedule's clock go on, too; after `fit`, after unpickling and after a change of the
        optimizer, or to or from bfloat16, they start anew. Nothing is set aside for `early_stopping`.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        y : array-like of shape (n_samples,) or (n_samples, n_labels)

        classes : array-like of shape (n_classes,), default=None
            All classes that any call will bring; for an indicator matrix the columns' numbers. The first call needs them,
            later calls may leave them out.

        sample_weight : array-like of shape (n_samples,), default=None
            How often a row counts, as in `fit`.

        Returns
        -------
        self : object
        """
        self._check_parameters()
        continues = self.__sklearn_is_fitted__()
        if classes is None and not continues:
            raise ValueError("classes must be given on the first call of partial_fit: y may not have all of them.")
        classes = None if classes is None else np.unique(classes)
        if continues and classes is not None and not np.array_equal(classes, self.classes_):
            raise ValueError(f"classes={classes.tolist()} are not those of the previous call, {self.classes_.tolist()}.")
        return self._train(X, y, sample_weight, continues=continues, n_epochs=1, classes=classes)

    def _encode_target(self, samples, loss, continues, classes):
        y = samples.y
        has_labels = _are_labels(y)
        kind = "multiclass" if has_labels else type_of_target(y, input_name="y")
        if kind not in ("binary", "multiclass"):
            check_classification_targets(y)
        is_multilabel = kind == "multilabel-indicator"
        if is_multilabel:
            encoded = (y.toarray() if scipy.sparse.issparse(y) else np.asarray(y)).astype(np.float64)
            if not np.isin(encoded, (0.0, 1.0)).all():
                raise ValueError(f"An indicator matrix y must hold 0 and 1 only, got {np.unique(encoded).tolist()}.")
            present = np.arange(y.shape[1])
        else:
            y = y if has_labels else column_or_1d(y, warn=True)
            labels, encoded = once(_number_labels, y)
            present = labels if samples.sample_weight is None else np.unique(y[samples.counted_rows])
            if has_labels and 2 * len(present) > len(y):
                check_classification_targets(y)  # warns of targets that look like numbers
        known = self.classes_ if continues else classes
        if known is None:
            known = present
        else:
            self._check_same_classes(present, known, is_multilabel, continues)
        if not is_multilabel:
            if len(known) < 2:
                counted = "" if samples.sample_weight is None else " with a sample_weight above 0"
                raise ValueError(
                    f"{type(self).__name__} needs samples{counted} of at least 2 classes, but y has only one class: "
                    f"{known.tolist()[0]!r}."
                )
            if known is not labels:
                # A row that does not count may be of a class that is not known; it is never looked at.
                encoded = np.minimum(np.searchsorted(known, y), len(known) - 1)
        self.classes_, self._is_multilabel = known.copy(), is_multilabel
        smoothing = float(self.label_smoothing)
        if is_multilabel:
            return encoded, MultilabelCrossentropy(smoothing), len(known)
        if len(known) == 2:
            return encoded, BinaryCrossentropy(smoothing), 1
        return encoded, CategoricalCrossentropy(smoothing), len(known)

    def _check_same_classes(self, present, known, is_multilabel, continues):
        """Refuse targets that are not of the classes that are known already."""
        before = self._is_multilabel if continues else is_multilabel
        if len(np.setdiff1d(present, known)) or (is_multilabel and len(present) != len(known)) or is_multilabel != before:
            kinds = "classes", "labels of an indicator matrix"
            raise ValueError(
                f"Training goes on with the {kinds[before]} of the previous fit, or those given as classes, {known.tolist()}. "
                f"y has the {kinds[is_multilabel]} {present.tolist()}."
            )

    def _learn_target_weights(self, samples, training_rows, is_stream):
        if self.class_weight is None:
            return None
        if self._is_multilabel != isinstance(self.class_weight, list) and self.class_weight != "balanced":
            raise InvalidParameterError(
                "class_weight must be 'balanced', a dict from classes to weights, or for multilabel targets a list with a dict "
                f"from 0 and 1 for each label. Got {self.class_weight!r}."
            )
        y = samples.encoded[training_rows]
        counts = None if samples.sample_weight is None else samples.sample_weight[training_rows]
        if not self._is_multilabel:
            of_class = _weights_of_classes(self.class_weight, self.classes_, y, counts, is_stream)
            return lambda y: of_class[y][:, np.newaxis]
        n_labels = len(self.classes_)
        each = [self.class_weight] * n_labels if self.class_weight == "balanced" else self.class_weight
        if len(each) != n_labels:
            raise InvalidParameterError(f"class_weight has {len(each)} entries, but y has {n_labels} labels.")
        off, on = np.transpose(
            [
                _weights_of_classes(weight, np.arange(2), y[:, k].astype(np.intp), counts, is_stream)
                for k, weight in enumerate(each)
            ]
        )
        return lambda y: np.where(y > 0.5, on, off)

    def _score_outputs(self, loss, outputs, y, sample_weight, weight):
        hits = loss.predict(outputs) == y
        if self._is_multilabel:  # a row is right or wrong as a whole, whatever its labels weigh
            hits, weight = hits.all(1), sample_weight
        if weight is None:
            return hits.double().mean().item()
        weight = weight[:, 0].double()
        return ((hits * weight).sum() / weight.sum().clamp(min=torch.finfo(torch.float64).tiny)).item()

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def decision_function(self, X):
        """Return the output layer's values, the logits.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        decision : ndarray of shape (n_samples,) or (n_samples, n_classes)
            For two classes the log-odds of ``classes_[1]``; for more one logit a class, of which the softmax is the
            probability; for multilabel targets the log-odds of each label.
        """
        outputs = self._outputs(X)
        return (outputs if outputs.shape[1] > 1 or self._is_multilabel else outputs[:, 0]).numpy()

    def predict(self, X):
        """Return the most probable class, or for multilabel targets all labels with a probability above one half.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        y : ndarray of shape (n_samples,) or (n_samples, n_labels)
            Of the labels given to `fit`, or an indicator matrix of int.
        """
        outputs = self._outputs(X)
        predicted = self._fitted_loss.predict(outputs).numpy()
        return predicted if self._is_multilabel else self.classes_[predicted]

    def score(self, X, y, sample_weight=None):
        """Return the share of rows that are predicted right, for multilabel targets in all labels.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        y : array-like of shape (n_samples,) or (n_samples, n_labels)

        sample_weight : array-like of shape (n_samples,), default=None
            How much a row counts.

        Returns
        -------
        score : float
            In [0.0, 1.0].
        """
        predicted = self.predict(X)
        if sample_weight is None and _are_such_labels(y, predicted):
            n_distinct = max(len(once(np.unique, y)), len(self.classes_))
            if 2 * n_distinct <= len(y):  # otherwise scikit-learn warns of targets that look like numbers
                return float(np.mean(y == predicted))
        return accuracy_score(y, predicted, sample_weight=sample_weight)

    def predict_proba(self, X):
        """Return the probability of each class.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_classes)
            In the order of ``classes_``; rows sum to 1, but for multilabel targets, where each label has its own.
        """
        outputs = self._outputs(X)
        return self._fitted_loss.probabilities(outputs).numpy()

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
        log_sigmoid = torch.nn.functional.logsigmoid
        if self._is_multilabel:
            return log_sigmoid(outputs).numpy()
        if outputs.shape[1] == 1:
            return torch.cat([log_sigmoid(-outputs), log_sigmoid(outputs)], 1).numpy()
        return torch.log_softmax(outputs, 1).numpy()


def _are_labels(y):
    """Whether y is of integers, bools or strings in one dimension, which can be nothing but labels.

    For scikit-learn to tell that, it looks at them all, which takes longer than a prediction.
    """
    return y.ndim == 1 and y.dtype.kind in "biuU"


def _number_labels(y):
    """Return the labels in y, sorted, and the number of each row's among them."""
    labels = np.unique(y)
    return labels, np.searchsorted(labels, y)


def _are_such_labels(y, predicted):
    """Whether y is an array of labels like those predicted, one a row."""
    is_alike = type(y) is np.ndarray and y.shape == predicted.shape and y.dtype.kind == predicted.dtype.kind
    return is_alike and _are_labels(y)


def _weights_of_classes(class_weight, classes, y, counts, is_stream):
    """Return what rows of each class weigh.

    The weights have mean 1 over all training rows, not over a batch: a batch of a class that hardly counts must hardly move
    the network. A stream does not know its rows beforehand: there the classes' weights themselves have mean 1.

    Parameters
    ----------
    class_weight : dict or "balanced"
    classes : ndarray of shape (n_classes,)
    y : ndarray of shape (n_rows,)
        Indices of classes of the training rows.
    counts : ndarray of shape (n_rows,) or None
        How often each row counts.
    is_stream : bool

    Returns
    -------
    of_class : ndarray of shape (n_classes,)
    """
    if is_stream and not isinstance(class_weight, dict):
        raise InvalidParameterError(
            "class_weight='balanced' needs to see all rows, which partial_fit does not. Pass a dict of weights, for example of "
            "sklearn.utils.class_weight.compute_class_weight('balanced', classes=..., y=...)."
        )
    sizes = np.bincount(y, counts, minlength=len(classes)).astype(np.float64)
    if isinstance(class_weight, dict):
        unknown = [label for label in class_weight if label not in classes]
        if unknown or not all(isinstance(weight, Real) and 0 <= weight < np.inf for weight in class_weight.values()):
            raise InvalidParameterError(
                f"class_weight must give weights in [0.0, inf) to classes of {classes.tolist()}. Got {class_weight!r}."
            )
        of_class = np.array([float(class_weight.get(label, 1.0)) for label in classes.tolist()])
    else:
        of_class = 1.0 / np.where(sizes > 0.0, sizes, np.inf)
    mean = of_class.mean() if is_stream else np.average(of_class, weights=sizes)
    if mean <= 0:
        raise InvalidParameterError(f"class_weight={class_weight!r} gives no training row a weight above 0.")
    return of_class / mean
