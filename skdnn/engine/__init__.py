"""The training engine. It knows tensors and components, neither scikit-learn's estimators nor skorch."""

from skdnn.engine.module import build_module
from skdnn.engine.network import Network
from skdnn.engine.plan import LayerPlan, NetworkPlan, UpdatePlan
from skdnn.engine.trainer import Trainer, split_into_batches
from skdnn.engine.update import Update

__all__ = [
    "LayerPlan",
    "Network",
    "NetworkPlan",
    "Trainer",
    "Update",
    "UpdatePlan",
    "build_module",
    "split_into_batches",
]
