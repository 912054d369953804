"""Deep multilayer perceptrons for scikit-learn, with every technique of training deep networks as a hyperparameter."""

from skdnn._versions import show_versions
from skdnn.classifier import MLPDeepClassifier
from skdnn.regressor import MLPDeepRegressor

__all__ = ["MLPDeepClassifier", "MLPDeepRegressor", "show_versions"]
__version__ = "0.1.0"
