"""Searches over hyperparameters that train their candidates together, and what to make of their results."""

from skdnn.model_selection._effects import TechniqueEffect, TechniqueEffects, technique_effects
from skdnn.model_selection._halving import VectorizedHalvingGridSearchCV, VectorizedHalvingRandomSearchCV
from skdnn.model_selection._range_test import LearningRateRangeResult, learning_rate_range_test, suggest_learning_rate
from skdnn.model_selection._search import VectorizedGridSearchCV, VectorizedRandomizedSearchCV

__all__ = [
    "LearningRateRangeResult",
    "TechniqueEffect",
    "TechniqueEffects",
    "VectorizedGridSearchCV",
    "VectorizedHalvingGridSearchCV",
    "VectorizedHalvingRandomSearchCV",
    "VectorizedRandomizedSearchCV",
    "learning_rate_range_test",
    "suggest_learning_rate",
    "technique_effects",
]
