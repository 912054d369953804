"""Deep multilayer perceptrons for scikit-learn, with every technique of training deep networks as a hyperparameter."""

from skdnn.classifier import MLPDeepClassifier

__all__ = ["MLPDeepClassifier"]
__version__ = "0.1.0"
