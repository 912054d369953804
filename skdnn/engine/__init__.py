"""The training engine. It knows tensors and components, neither scikit-learn's estimators nor skorch."""

from skdnn.engine.chunks import Chunks
from skdnn.engine.module import build_module
from skdnn.engine.network import Network
from skdnn.engine.plan import LayerPlan, NetworkPlan, UpdatePlan
from skdnn.engine.program import instruction_set
from skdnn.engine.trainer import Trainer, can_be_compiled, run_epoch_together, split_into_batches
from skdnn.engine.update import Update

__all__ = [
    "Chunks",
    "LayerPlan",
    "Network",
    "NetworkPlan",
    "Trainer",
    "Update",
    "UpdatePlan",
    "build_module",
    "can_be_compiled",
    "instruction_set",
    "run_epoch_together",
    "split_into_batches",
]
