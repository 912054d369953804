"""Scores of the validation rows while a network is in training."""

import copy
import math

from skdnn._fitted import attributes_of


class OwnScore:
    """The estimator's own score of its network's outputs.

    Parameters
    ----------
    estimator : BaseMLPDeep
    loss : Loss
    """

    def __init__(self, estimator, loss):
        self._estimator = estimator
        self._loss = loss

    def __call__(self, network, outputs, y, sample_weight, weight):
        return self._estimator._score_outputs(self._loss, outputs, y, sample_weight, weight)


class ScorerOnOutputs:
    """A scikit-learn scorer of an estimator in training.

    The scorer gets a copy of the estimator that is fitted with the network as it stands. The copy does not run the network
    again for the rows whose outputs are known.

    Parameters
    ----------
    estimator : BaseMLPDeep
        With all that it has learned but its network.
    loss : Loss
    scorer : callable
        ``scorer(estimator, X, y)``, which is given `sample_weight` as well where there are weights.
    X, y : array of shape (n_validation_samples, n_features), (n_validation_samples,) or (n_validation_samples, n_targets)
        Validation rows as the user gave them.
    """

    def __init__(self, estimator, loss, scorer, X, y):
        self._estimator = estimator
        self._loss = loss
        self._scorer = scorer
        self._X, self._y = X, y

    def __call__(self, network, outputs, y, sample_weight, weight):
        fitted = copy.copy(self._estimator)
        vars(fitted).update(attributes_of(network, self._loss))
        vars(fitted).pop("feature_names_in_", None)  # rows are arrays here
        run = fitted._outputs
        fitted._outputs = lambda X: outputs.cpu() if X is self._X else run(X)
        weights = {} if sample_weight is None else {"sample_weight": sample_weight[:, 0].cpu().numpy()}
        try:
            score = float(self._scorer(fitted, self._X, self._y, **weights))
        except TypeError as error:
            if "'sample_weight'" in str(error):
                raise ValueError(
                    f"monitor={self._estimator.monitor!r} takes no sample_weight, and the validation rows have weights. Choose "
                    "a scorer that does, or give X_val and y_val without sample_weight_val."
                ) from error
            raise
        if math.isnan(score):
            raise ValueError(
                f"monitor={self._estimator.monitor!r} gives nan for the {len(y)} validation rows, by which no epoch can be the "
                "best. Choose another scorer, or more validation rows."
            )
        return score
