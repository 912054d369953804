"""The regressor."""

import numpy as np
import torch
from sklearn.base import RegressorMixin, clone
from sklearn.metrics import d2_pinball_score, r2_score

from skdnn._base import BaseMLPDeep
from skdnn._data import to_tensor
from skdnn._docs import share_docstring
from skdnn.components.losses import Poisson, Quantile, resolve_regression_loss


@share_docstring
class MLPDeepRegressor(RegressorMixin, BaseMLPDeep):
    """A deep multilayer perceptron for regression, every technique of training deep networks a hyperparameter.

    It takes the place of `sklearn.neural_network.MLPRegressor`: parameters that both have keep their name and meaning. A
    technique is given by name with its defaults (``activation="leaky_relu"``) or as an object with parameters
    (``activation=LeakyReLU(alpha=0.2)``, from `skdnn.components`), whose parameters searches reach as
    ``activation__alpha``. All of them are checked in `fit`.

    Parameters
    ----------
    {parameters}

    loss : str or RegressionLoss, default="squared_error"
        What is minimised, averaged over the targets of a row: "squared_error" (half the square), "absolute_error", "huber",
        "poisson" (half the deviance, of targets >= 0), "quantile" (``Quantile((0.1, 0.5, 0.9))`` predicts several levels).

    standardize_target : bool, default=True
        Whether to train on targets of mean 0 and variance 1, so that `learning_rate_init` means the same whatever their unit.
        Predictions are in the targets' unit either way; losses and ``module_`` speak of the standardised ones. Targets of the
        Poisson loss are divided by their mean.

    Attributes
    ----------
    target_mean_ : ndarray of shape (n_targets,)
        What was taken from each target, 0 where targets are not standardised.

    target_scale_ : ndarray of shape (n_targets,)
        What each target was divided by, 1 where targets are not standardised.

    n_outputs_ : int
        Units of the output layer: one a target, or one a target and level of the quantile loss.

    out_activation_ : str
        "identity", or "exp" for the Poisson loss.

    {attributes}

    See Also
    --------
    sklearn.neural_network.MLPRegressor : What this takes the place of.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from sklearn.model_selection import train_test_split
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from skdnn import MLPDeepRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
    >>> reg = MLPDeepRegressor((32, 32), activation="elu", dropout=0.2, early_stopping=True, max_iter=100, random_state=0)
    >>> model = make_pipeline(StandardScaler(), reg).fit(X_train, y_train)
    >>> model.score(X_test, y_test) > 0.2
    True
    """

    _parameter_constraints = {
        **BaseMLPDeep._parameter_constraints,
        "loss": "no_validation",
        "standardize_target": ["boolean"],
    }
    _target_checks = {"multi_output": True, "y_numeric": True}

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
        loss="squared_error",
        standardize_target=True,
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
        self.loss = loss
        self.standardize_target = standardize_target

    def _resolve_loss(self):
        return clone(resolve_regression_loss(self.loss))  # what is set on the parameter later must not change a fitted model

    def partial_fit(self, X, y, sample_weight=None):
        """Train for one epoch on X and y, going on where the last call ended.

        The optimizer's state and the schedule's clock go on, too; after `fit`, after unpickling and after a change of the
        optimizer, or to or from bfloat16, they start anew. Targets are standardised as the first call found them. Nothing is
        set aside for `early_stopping`.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
        sample_weight : array-like of shape (n_samples,), default=None
            How often a row counts, as in `fit`.

        Returns
        -------
        self : object
        """
        self._check_parameters()
        return self._train(X, y, sample_weight, continues=self.__sklearn_is_fitted__(), n_epochs=1)

    def _check_validation(self, n_rows):
        if n_rows < 2 and self.monitor == "auto":
            raise ValueError(
                "The validation set is too small: R2 is not defined for one row. Raise validation_fraction, give more rows, or "
                "set monitor='loss'."
            )

    def _encode_target(self, samples, loss, continues, classes):
        y = np.asarray(samples.y, dtype=np.float64).reshape(len(samples.y), -1)
        loss.check(y[samples.counted_rows])
        if continues:
            if y.shape[1] != len(self.target_mean_):
                raise ValueError(
                    "Training goes on (warm_start=True or partial_fit) with the targets of the previous call, of which there "
                    f"were {len(self.target_mean_)}. y has {y.shape[1]}."
                )
        elif self.standardize_target:
            self.target_mean_, self.target_scale_ = loss.standardization(y, samples.sample_weight)
        else:
            self.target_mean_, self.target_scale_ = np.zeros(y.shape[1]), np.ones(y.shape[1])
        return (y - self.target_mean_) / self.target_scale_, loss, loss.n_outputs(y.shape[1])

    def _score_outputs(self, loss, outputs, y, sample_weight, weight):
        weight = torch.ones_like(y[:, :1]) if weight is None else weight
        share = weight.double() / weight.sum()
        if isinstance(loss, Quantile) and len(loss.levels) > 1:
            row_weight = share.to(outputs.dtype)
            return -loss.value(outputs, loss.prepare(y, outputs.shape[1], row_weight, outputs.dtype), row_weight).item()
        y, predicted = y.double(), loss.predict(outputs).double()
        residual = (share * (y - predicted).square()).sum(0)
        spread = (share * (y - (share * y).sum(0)).square()).sum(0)
        # As r2_score has it: a target that does not vary scores 1 if it is met, else 0.
        is_met = torch.isclose(y, predicted).all(0).double()
        return torch.where(y.amax(0) > y.amin(0), 1.0 - residual / spread, is_met).mean().item()

    def predict(self, X):
        """Predict the targets.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        y : ndarray of shape (n_samples,) or (n_samples, n_targets)
            In the targets' unit. With several levels of the quantile loss, of shape (n_samples, n_levels) or
            (n_samples, n_targets, n_levels).
        """
        outputs = self._outputs(X)
        loss = self._fitted_loss
        n_levels = len(loss.levels) if isinstance(loss, Quantile) else 1
        predicted = loss.predict(outputs).view(len(outputs), -1, n_levels)
        scale, mean = (to_tensor(array).to(outputs.dtype) for array in (self.target_scale_, self.target_mean_))
        predicted = predicted.mul(scale.view(-1, 1)).add_(mean.view(-1, 1)).numpy()
        if n_levels == 1:
            predicted = predicted[:, :, 0]
        return predicted[:, 0] if predicted.shape[1] == 1 else predicted

    def score(self, X, y, sample_weight=None):
        """Return the coefficient of determination R2, or with several quantile levels the mean of their D2 scores.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
        sample_weight : array-like of shape (n_samples,), default=None

        Returns
        -------
        score : float
            1 is perfect; 0 is what predicting the mean, or the quantile, of `y` would get.
        """
        predicted = self.predict(X)
        loss = self._fitted_loss
        if not isinstance(loss, Quantile) or len(loss.levels) == 1:
            return r2_score(y, predicted, sample_weight=sample_weight)
        scores = [
            d2_pinball_score(y, predicted[..., i], sample_weight=sample_weight, alpha=level)
            for i, level in enumerate(loss.levels)
        ]
        return float(np.mean(scores))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        tags.target_tags.positive_only = self.loss == "poisson" or isinstance(self.loss, Poisson)
        return tags
