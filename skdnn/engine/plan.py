"""What the engine is asked to build: the layers of one network and the rule that updates them."""

from dataclasses import dataclass

from skdnn.components import Activation, BatchNorm, Constraint, GradientClipping, Initializer, Optimizer, Regularizer
from skdnn.components.optimizers import TorchOptimizer


@dataclass(frozen=True)
class LayerPlan:
    """A dense layer and what surrounds it: kernel, batch norm, activation, dropout, in this order.

    Attributes
    ----------
    n_in, n_out : int
    initializer : Initializer
    gain : float
        What the initializer's ``gain="auto"`` stands for.
    activation : Activation or None
        None for the output layer, whose activation belongs to the loss.
    batch_norm : BatchNorm or None
    dropout : float in [0.0, 1.0)
        The share of the layer's outputs that is set to 0 in training.
    regularizer : Regularizer or None
    constraint : Constraint or None
    """

    n_in: int
    n_out: int
    initializer: Initializer
    gain: float = 1.0
    activation: Activation | None = None
    batch_norm: BatchNorm | None = None
    dropout: float = 0.0
    regularizer: Regularizer | None = None
    constraint: Constraint | None = None


@dataclass(frozen=True)
class NetworkPlan:
    """The layers of one network, from input to output.

    Attributes
    ----------
    layers : tuple of LayerPlan
    input_dropout : float in [0.0, 1.0)
        The share of the inputs that is set to 0 in training.
    rounds_products : bool
        Whether the products of training are of numbers rounded to bfloat16.
    """

    layers: tuple[LayerPlan, ...]
    input_dropout: float = 0.0
    rounds_products: bool = False

    @property
    def uses_batch_norm(self):
        """Whether any layer is normalised over the batch, which then needs two rows."""
        return any(layer.batch_norm is not None for layer in self.layers)

    @property
    def smallest_batch(self):
        """The fewest rows that a batch can have."""
        return 2 if self.uses_batch_norm else 1

    @property
    def uses_dropout(self):
        """Whether training draws masks."""
        return self.input_dropout > 0.0 or any(layer.dropout > 0.0 for layer in self.layers)

    @property
    def calls_users_code(self):
        """Whether a step of training is more than known kernels."""
        techniques = [
            technique
            for layer in self.layers
            for technique in (layer.activation, layer.batch_norm, layer.regularizer, layer.constraint)
        ]
        return any(technique is not None and technique.calls_users_code for technique in techniques)

    @property
    def n_products(self):
        """Multiplications and additions that one row costs in one product with every kernel, the measure of a step's size."""
        return sum(layer.n_in * layer.n_out for layer in self.layers)


@dataclass(frozen=True)
class UpdatePlan:
    """How gradients become updates.

    Attributes
    ----------
    optimizer : Optimizer or TorchOptimizer
    clipping : GradientClipping or None
    """

    optimizer: Optimizer | TorchOptimizer
    clipping: GradientClipping | None = None

    @property
    def calls_users_code(self):
        """Whether an update is more than known kernels."""
        return self.optimizer.calls_users_code or (self.clipping is not None and self.clipping.calls_users_code)
