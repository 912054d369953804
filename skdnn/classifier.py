"""The classifier."""

import numpy as np
import torch
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d

from skdnn._base import BaseMLPDeep
from skdnn.components.losses import BinaryCrossentropy, CategoricalCrossentropy


class MLPDeepClassifier(ClassifierMixin, BaseMLPDeep):
    """A deep multilayer perceptron for classification, every technique of training deep networks a hyperparameter.

    It takes the place of `sklearn.neural_network.MLPClassifier`: parameters that both have keep their name and meaning. A
    technique is given by name with its defaults (``activation="leaky_relu"``) or as an object with parameters
    (``activation=LeakyReLU(alpha=0.2)``, from `skdnn.components`), whose parameters searches reach as
    ``activation__alpha``. All of them are checked in `fit`.

    Parameters
    ----------
    hidden_layer_sizes : array-like of int in [1, inf), or int, default=(100,)
        Units of each hidden layer. An empty sequence is multinomial logistic regression.

    activation : str, Activation, callable, or list of them, default="relu"
        Activation of the hidden layers, a list has one a hidden layer. Names: "identity", "logistic", "tanh", "relu",
        "leaky_relu", "elu", "selu", "gelu", "silu", "softplus", "mish", "hard_swish". A callable is any element-wise torch
        function; autograd supplies its derivative.

    initializer : str, Initializer, callable, or list of them, default="auto"
        How kernels are drawn; biases start at 0. "auto" is He for the ReLU family, LeCun for SELU, Glorot otherwise and for
        the output layer. Names: "glorot_uniform", "glorot_normal", "he_uniform", "he_normal", "lecun_uniform",
        "lecun_normal", "orthogonal", "normal", "uniform", and "zeros", which as the one value speaks of the output layer
        only. A list has one a hidden layer, or one a layer with the output layer last.

    batch_norm : bool or BatchNorm, default=False
        Batch normalisation before the activation of each hidden layer, with ``BatchNorm(output=True)`` of the logits too.

    dropout : float in [0.0, 1.0), or list of float, default=0.0
        Share of each hidden layer's outputs that is set to 0 in training, a list has one a hidden layer.

    input_dropout : float in [0.0, 1.0), default=0.0
        The same for the inputs.

    regularizer : str, Regularizer, None, or list of them, default=None
        Penalty on the kernels of all layers, added to the loss: "l1", "l2", "l1_l2". A list has one a hidden layer, or one a
        layer. `MLPClassifier`'s ``alpha`` is ``L2(alpha / batch_size)``.

    max_norm : float in (0.0, inf), MaxNorm, None, or list of them, default=None
        Largest Euclidean norm of a unit's incoming weights, restored after every update. One value holds for the hidden
        layers; a list has one a hidden layer, or one a layer.

    optimizer : str, Optimizer, or type, default="adam"
        Update rule: "sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw", "nadam", "adamax", "amsgrad"; any
        `torch.optim.Optimizer` class, or ``TorchOptimizer(cls, **kwargs)`` with its arguments.

    learning_rate_init : float in (0.0, inf), default=0.001
        The learning rate that the schedule starts from.

    learning_rate : str or Schedule, default="constant"
        Schedule of the learning rate: "constant", "invscaling", "adaptive" (these as in `MLPClassifier`, but for every
        optimizer), "exponential", "power", "piecewise_constant", "cosine", "one_cycle", "warm_up".

    gradient_clipping : float in (0.0, inf), GradientClipping, str or None, default=None
        Bound on the gradient: a float is the largest global norm, ``ClipValue(1.0)`` or "value" cuts each component.

    batch_size : int in [1, inf) or "auto", default="auto"
        Rows of a batch, at most all of them; "auto" is ``min(200, n_samples)``.

    max_iter : int in [1, inf), default=200
        Epochs at most.

    shuffle : bool, default=True
        Whether to put the rows into a new order at each epoch.

    early_stopping : bool, default=False
        Whether to set aside `validation_fraction` of the rows, stratified by class, watch their accuracy instead of the
        training loss, and keep the weights (running statistics included) of the best epoch.

    validation_fraction : float in (0.0, 1.0), default=0.1
        Share of the rows for early stopping.

    n_iter_no_change : int in [1, inf) or inf, default=10
        Training stops when this many epochs, and one more, have not brought `tol`. With ``n_iter_no_change=max_iter`` all
        epochs are run, and no warning is given at the end.

    tol : float in [0.0, inf), default=1e-4
        What an epoch must bring, in the loss or the score, to count as progress; an absolute amount.

    warm_start : bool, default=False
        Whether `fit` goes on with the fitted weights for `max_iter` more epochs. The optimizer's state and the schedule start
        anew, so that a pickled estimator goes on like the one it was made of.

    device : str or torch.device, default="auto"
        Where to train and predict: "auto" (a CUDA GPU if there is one, else the CPU), "cpu", "cuda:1", "mps", ...

    dtype : {"auto", "float32", "float64"}, default="auto"
        What to compute in. "auto" follows X on the CPU (float32 for float32, else float64), and is float32 on a GPU.

    callbacks : list of skorch.callbacks.Callback, default=None
        Told of epochs and batches by `net_`. Callbacks that listen to batches cost a call for each.

    random_state : int, RandomState instance or None, default=None
        Seed of initial weights, order of rows, dropout and the validation split. Global random generators are neither read
        nor moved; None takes fresh entropy.

    verbose : bool or int, default=False
        Whether to print a line an epoch.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels, sorted.

    loss_ : float
        Training loss, penalties included, of the last epoch; after a divergence, of the epoch whose weights were kept.

    best_loss_ : float or None
        Least training loss of the fit's epochs; None with ``early_stopping=True``.

    loss_curve_ : list of float
        Training loss of each epoch, penalties included: the mean over its batches, each before its update.

    validation_scores_ : list of float or None
        Accuracy of the validation rows after each epoch; None without ``early_stopping``.

    best_validation_score_ : float or None
        The best of them in this fit.

    best_epoch_ : int
        The epoch with the best score or, without ``early_stopping``, the least loss, counted from 1.

    n_iter_ : int
        Epochs that the last call of `fit` ran.

    t_ : int
        Training rows seen, in all epochs.

    n_layers_ : int
        Layers, input and output included.

    n_outputs_ : int
        Units of the output layer: 1 for two classes, else one a class.

    out_activation_ : str
        "logistic" for two classes, else "softmax".

    coefs_ : list of ndarray of shape (n_in, n_out)
        Kernels, one a layer; of the estimator's own memory.

    intercepts_ : list of ndarray of shape (n_out,)
        Biases, one a layer.

    history_ : skorch.history.History
        Of each epoch: ``train_loss`` and its parts ``base_loss`` and ``penalty``, ``learning_rate``, and with early stopping
        ``valid_loss`` and ``valid_score``.

    module_ : torch.nn.Sequential
        The network as torch knows it. Its parameters are the estimator's own: training it changes predictions.

    net_ : skorch.NeuralNet
        The net that ran the training.

    n_features_in_ : int
        Features seen in `fit`.

    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names, where X had any that are all strings.

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
