"""The harness: epochs, validation, stopping, schedules and callbacks around the engine, on skorch."""

from skdnn.training.harness import Session, TrainingNet
from skdnn.training.lockstep import Lockstep, train_in_lockstep
from skdnn.training.memory import MAX_GROUP, free_memory, group_size
from skdnn.training.plan import Outcome, Seeds, TrainingData, TrainingPlan
from skdnn.training.policy import compute_policy
from skdnn.training.population import Lane, can_share_a_population
from skdnn.training.progress import EpochListener

__all__ = [
    "MAX_GROUP",
    "EpochListener",
    "Lane",
    "Lockstep",
    "Outcome",
    "Seeds",
    "Session",
    "TrainingData",
    "TrainingNet",
    "TrainingPlan",
    "can_share_a_population",
    "compute_policy",
    "free_memory",
    "group_size",
    "train_in_lockstep",
]
