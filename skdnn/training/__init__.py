"""The harness: epochs, validation, stopping, schedules and callbacks around the engine, on skorch."""

from skdnn.training.lockstep import Lockstep, train_in_lockstep
from skdnn.training.memory import MAX_GROUP, free_memory, group_size
from skdnn.training.net import TrainingNet
from skdnn.training.plan import Outcome, Seeds, TrainingData, TrainingPlan
from skdnn.training.policy import compute_policy, multiplies_bfloat16
from skdnn.training.population import Kin, Lane, can_share_a_population
from skdnn.training.progress import EpochListener
from skdnn.training.run import TrainingRun
from skdnn.training.session import Session

__all__ = [
    "MAX_GROUP",
    "EpochListener",
    "Kin",
    "Lane",
    "Lockstep",
    "Outcome",
    "Seeds",
    "Session",
    "TrainingData",
    "TrainingNet",
    "TrainingPlan",
    "TrainingRun",
    "can_share_a_population",
    "compute_policy",
    "free_memory",
    "group_size",
    "multiplies_bfloat16",
    "train_in_lockstep",
]
