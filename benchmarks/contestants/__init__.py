"""Who is compared. Each contestant is a function ``prepare(task, seed)`` that returns ``train``.

``train()`` is what is timed: it trains a network from new weights, as the task's workload says, and returns ``predict``, a
function from rows to class indices. Compiling is not timed: what every fit compiles anew is compiled in ``prepare``, and the
first round of every contestant does not count.
"""

import importlib
import importlib.util
from dataclasses import dataclass


@dataclass(frozen=True)
class Contestant:
    """One way to train a network.

    Attributes
    ----------
    name : str
    function : str
        Its ``prepare``, as "module:function" below this package, imported when it is first asked for.
    needs : str
        The package without which it is left out.
    description : str
    has_techniques : bool
        Whether it can do batch norm, dropout, max norm and l1.
    dtypes : tuple of str
    """

    name: str
    function: str
    needs: str
    description: str
    has_techniques: bool = True
    dtypes: tuple = ("float32", "float64")

    @property
    def is_installed(self):
        """Whether the package that it needs is there."""
        return importlib.util.find_spec(self.needs) is not None

    @property
    def prepare(self):
        """The function ``prepare(task, seed)``."""
        module, _, name = self.function.partition(":")
        return getattr(importlib.import_module(f"{__name__}.{module}"), name)

    def can(self, workload):
        """Say whether it can do what a workload asks for."""
        return workload.dtype in self.dtypes and (self.has_techniques or workload.techniques is None)


_WITH_BFLOAT16 = "float32", "float64", "bfloat16"

CONTESTANTS = {
    contestant.name: contestant
    for contestant in [
        Contestant("skdnn", "estimators:prepare_skdnn", "skdnn", "`MLPDeepClassifier`", dtypes=_WITH_BFLOAT16),
        Contestant("MLPClassifier", "estimators:prepare_mlp_classifier", "sklearn", "scikit-learn's own", has_techniques=False),
        Contestant(
            "skorch",
            "skorch_net:prepare_skorch",
            "skorch",
            "`NeuralNetClassifier` as its documentation shows it: default callbacks, `iterator_train__shuffle=True`, "
            "no validation split, so that it trains on all rows as the others do",
        ),
        Contestant(
            "PyTorch DataLoader",
            "pytorch:prepare_data_loader",
            "torch",
            "the loop of PyTorch's tutorials: `DataLoader`, default optimizer, `loss.item()` a batch",
        ),
        Contestant(
            "PyTorch expert",
            "pytorch:prepare_expert",
            "torch",
            "autograd with tensors indexed by hand, fused optimizer, `set_to_none=True`, the loss read once an epoch; "
            "`torch.autocast` in bfloat16",
            dtypes=_WITH_BFLOAT16,
        ),
        Contestant(
            "JAX scan",
            "jax_scan:prepare_jax",
            "jax",
            "one jitted `lax.scan` an epoch, parameters donated, rows gathered inside; compiling is not counted",
        ),
        Contestant(
            "Keras",
            "keras_model:prepare_keras",
            "keras",
            "`Sequential.fit`, on the backend that is named; compiling is not counted",
            dtypes=("float32",),
        ),
    ]
}

# Keras' backend is fixed when it is imported: it has processes of its own, with skdnn beside it.
IN_ONE_PROCESS = tuple(name for name in CONTESTANTS if name != "Keras")
