"""The harness: epochs, validation, stopping, schedules and callbacks around the engine, on skorch."""

from skdnn.training.harness import Session, TrainingNet
from skdnn.training.plan import Outcome, Seeds, TrainingData, TrainingPlan
from skdnn.training.policy import compute_policy
from skdnn.training.progress import EpochListener

__all__ = ["EpochListener", "Outcome", "Seeds", "Session", "TrainingData", "TrainingNet", "TrainingPlan", "compute_policy"]
