"""The harness: epochs, validation, stopping, schedules and callbacks around the engine, on skorch."""

from skdnn.training.harness import Session, TrainingNet
from skdnn.training.plan import Outcome, Seeds, TrainingData, TrainingPlan
from skdnn.training.policy import compute_policy

__all__ = ["Outcome", "Seeds", "Session", "TrainingData", "TrainingNet", "TrainingPlan", "compute_policy"]
