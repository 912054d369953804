"""Pictures, in the manner of scikit-learn's displays: one class a picture; matplotlib is loaded when one is drawn."""

from skdnn.displays._learning_rate_range import LearningRateRangeDisplay
from skdnn.displays._technique_comparison import TechniqueComparisonDisplay

__all__ = ["LearningRateRangeDisplay", "TechniqueComparisonDisplay"]
