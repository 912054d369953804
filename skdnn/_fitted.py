"""What a fitted estimator does with its network: predict, show it as a module, and keep it in a pickle."""

import numpy as np
import scipy.sparse
import torch
from sklearn.utils.validation import check_is_fitted

from skdnn._data import to_tensor, validate_rows
from skdnn.engine import build_module
from skdnn.training import TrainingNet, compute_policy


def attributes_of(network, loss):
    """Return the attributes that a network and what it was trained on give to a fitted estimator.

    Parameters
    ----------
    network : Network
    loss : Loss

    Returns
    -------
    attributes : dict
        Of those that hold the network in another form, made when they are asked for, None.
    """
    return {
        "_network": network,
        "_fitted_loss": loss,
        "_module": None,
        "_net": None,
        "_session": None,
        "n_layers_": len(network.plans[0].layers) + 1,
        "n_outputs_": network.n_outputs,
        "out_activation_": loss.out_activation,
    }


class FittedNetworkMixin:
    """An estimator with a trained network in `_network` and the loss it was trained on in `_fitted_loss`."""

    def __sklearn_is_fitted__(self):
        return hasattr(self, "_network")

    def _outputs(self, X):
        """Return the output layer's values for X, a tensor of shape (n_samples, n_outputs) on the CPU."""
        check_is_fitted(self)
        X = validate_rows(self, X, dtypes=[np.float64, np.float32], reset=False)
        network = self._network
        work = min(X.shape[0], network.block_size) * network.plans[0].n_products
        with compute_policy(work, network.dtype, network.device):
            outputs = network.predict(X if scipy.sparse.issparse(X) else to_tensor(X))
        if not np.isfinite(outputs.numpy()).all():  # torch takes six to sixteen times as long
            (row, *_) = torch.nonzero(~outputs.isfinite().all(1)).flatten().tolist()
            raise ValueError(
                f"Row {row} of X is beyond what the network can compute in {str(network.dtype).removeprefix('torch.')}: "
                "its outputs are not finite. Scale the features, for example with StandardScaler."
            )
        return outputs

    @property
    def module_(self):
        """The trained network, a `torch.nn.Sequential` in evaluation mode whose parameters are the estimator's own."""
        self._check_has_network("module_")
        if self._module is None:
            self._module = build_module(self._network)
        return self._module

    @property
    def net_(self):
        """The `skorch.NeuralNet` that ran the training, or one of the same network where no callback listened."""
        self._check_has_network("net_")
        if self._net is None:
            net = TrainingNet(self.module_, self._fitted_loss, history=self.history_, lr=self.learning_rate_init)
            self._net = net.initialize()
        return self._net

    @property
    def coefs_(self):
        """Kernels, a list of ndarray of shape (n_in, n_out), one a layer."""
        self._check_has_network("coefs_")
        return [module.weight.detach().T.cpu().numpy() for module in self.module_ if isinstance(module, torch.nn.Linear)]

    @property
    def intercepts_(self):
        """Biases, a list of ndarray of shape (n_out,), one a layer."""
        self._check_has_network("intercepts_")
        return [module.bias.detach().cpu().numpy() for module in self.module_ if isinstance(module, torch.nn.Linear)]

    def _check_has_network(self, name):
        if not self.__sklearn_is_fitted__():
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r} before it is fitted.")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def __getstate__(self):
        # Module and net hold the network's memory a second and a third time; both are made anew when they are asked for.
        state = dict(super().__getstate__())
        # The state of optimizers is not kept: training goes on with a new one.
        if "_network" in state:
            state["_module"] = state["_net"] = state["_session"] = None
        return state
