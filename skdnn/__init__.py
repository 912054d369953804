"""Deep multilayer perceptrons for scikit-learn, with every technique of training deep networks as a hyperparameter."""

from skdnn.classifier import MLPDeepClassifier
from skdnn.regressor import MLPDeepRegressor

__all__ = ["MLPDeepClassifier", "MLPDeepRegressor"]
__version__ = "0.1.0"
