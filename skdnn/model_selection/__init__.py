"""Searches over hyperparameters that train their candidates together."""

from skdnn.model_selection._search import VectorizedGridSearchCV, VectorizedRandomizedSearchCV

__all__ = ["VectorizedGridSearchCV", "VectorizedRandomizedSearchCV"]
