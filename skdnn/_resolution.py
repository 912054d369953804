"""From an estimator's parameters to the plans of the engine: names become components, one value becomes one a layer."""

import functools
import inspect
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.metrics import check_scoring, get_scorer_names
from skorch.callbacks import Callback

from skdnn._validation import did_you_mean
from skdnn.components import Zeros
from skdnn.components.activations import resolve_activation
from skdnn.components.clipping import resolve_clipping
from skdnn.components.constraints import resolve_max_norm
from skdnn.components.initializers import resolve_initializer
from skdnn.components.normalization import resolve_batch_norm
from skdnn.components.optimizers import resolve_optimizer
from skdnn.components.regularizers import resolve_regularizer
from skdnn.components.schedules import resolve_schedule
from skdnn.engine import LayerPlan, NetworkPlan, UpdatePlan
from skdnn.exceptions import InvalidParameterError
from skdnn.training import multiplies_bfloat16

# Types whose values are known again, and stay what they are.
PLAIN = frozenset({bool, int, float, str, type(None)})

# Values of `monitor` that are no scorers: the estimator's own score, and the validation loss.
_OWN_MONITORS = "auto", "loss"


class Techniques:
    """An estimator's techniques as components, checked, before anything is known of the data.

    Parameters
    ----------
    hidden_layer_sizes, activation, ..., callbacks
        The estimator's parameters of these names.

    Attributes
    ----------
    update : UpdatePlan
    schedule : Schedule
    callbacks : list
    """

    def __init__(
        self,
        *,
        hidden_layer_sizes,
        activation,
        initializer,
        batch_norm,
        dropout,
        input_dropout,
        regularizer,
        max_norm,
        optimizer,
        learning_rate,
        gradient_clipping,
        dtype,
        callbacks,
    ):
        self._sizes = resolve_hidden_layer_sizes(hidden_layer_sizes)
        n_hidden = len(self._sizes)
        of_hidden = {"hidden layer": n_hidden}
        of_all = {"hidden layer": n_hidden, "layer, the output layer included": n_hidden + 1}
        self._activations = [*_each(activation, "activation", resolve_activation, of_hidden)[:n_hidden], None]
        self._batch_norm = resolve_batch_norm(batch_norm)
        self._dropouts = [*_each(dropout, "dropout", _resolve_rate, of_hidden)[:n_hidden], 0.0]
        self._input_dropout = _resolve_rate(input_dropout, "input_dropout")
        self._regularizers = _each(regularizer, "regularizer", resolve_regularizer, of_all)
        self._constraints = _each(max_norm, "max_norm", resolve_max_norm, of_all)
        if not _is_list(max_norm):
            self._constraints[-1] = None  # one value speaks of the hidden layers
        self._initializers = _resolve_initializers(initializer, self._activations, of_all)
        self.update = UpdatePlan(resolve_optimizer(optimizer), resolve_clipping(gradient_clipping))
        self.schedule = resolve_schedule(learning_rate)
        self.callbacks = resolve_callbacks(callbacks)
        self._rounds_products = dtype == "bfloat16"

    def plan_network(self, n_features, n_outputs):
        """Return the `NetworkPlan` for so many inputs and outputs."""
        widths = [n_features, *self._sizes, n_outputs]
        layers = []
        for i, activation in enumerate(self._activations):
            is_output = activation is None
            has_batch_norm = self._batch_norm is not None and (self._batch_norm.output or not is_output)
            layers.append(
                LayerPlan(
                    n_in=widths[i],
                    n_out=widths[i + 1],
                    initializer=self._initializers[i],
                    gain=1.0 if is_output else activation.gain,
                    activation=activation,
                    batch_norm=self._batch_norm if has_batch_norm else None,
                    dropout=self._dropouts[i],
                    regularizer=self._regularizers[i],
                    constraint=self._constraints[i],
                )
            )
        return NetworkPlan(tuple(layers), self._input_dropout, self._rounds_products)


_TECHNIQUES = tuple(inspect.signature(Techniques).parameters)


def resolve_techniques(estimator):
    """Return an estimator's `Techniques`, those of names and numbers as they were made before."""
    values = [getattr(estimator, name) for name in _TECHNIQUES]
    return (_techniques_made_once if all(map(_never_changes, values)) else _make_techniques)(*values)


def _make_techniques(*values):
    return Techniques(**dict(zip(_TECHNIQUES, values, strict=True)))


# Some per cent of a short fit.
_techniques_made_once = functools.lru_cache(maxsize=256, typed=True)(_make_techniques)


def _never_changes(value):
    """Whether a value is plain, or a tuple of int; these are told from those of other types that are equal."""
    return type(value) in PLAIN or (type(value) is tuple and all(type(entry) is int for entry in value))


def resolve_hidden_layer_sizes(sizes):
    """Return the hidden layers' numbers of units as a list of int."""
    given = sizes
    sizes = list(sizes) if _is_list(sizes) else [sizes]
    if not all(isinstance(size, Integral) and not isinstance(size, bool) and size > 0 for size in sizes):
        raise InvalidParameterError(
            f"hidden_layer_sizes must be a sequence of int in [1, inf), one a hidden layer, or one int. Got {given!r} instead."
        )
    return [int(size) for size in sizes]


def resolve_callbacks(callbacks):
    """Return skorch callbacks as a list, once each is known to be one."""
    for callback in callbacks or ():
        given = callback[-1] if isinstance(callback, list | tuple) and len(callback) == 2 else callback
        if hasattr(given, "on_fit_task_end"):
            raise InvalidParameterError(
                f"callbacks are skorch callbacks. Set those of scikit-learn by set_callbacks(...). Got {callback!r}."
            )
        if not (isinstance(given, Callback) or (isinstance(given, type) and issubclass(given, Callback))):
            raise InvalidParameterError(
                f"callbacks must be skorch callbacks or (name, callback) pairs. Got {callback!r} instead."
            )
    return list(callbacks or ())


def resolve_monitor(monitor, estimator):
    """Return the scorer that `monitor` names, or None where it is one of skdnn's own words."""
    if isinstance(monitor, str):
        if monitor in _OWN_MONITORS:
            return None
        if monitor not in get_scorer_names():
            known = [*_OWN_MONITORS, *get_scorer_names()]
            raise InvalidParameterError(f"monitor={monitor!r} is not known{did_you_mean(monitor, known)}.")
    elif not callable(monitor):
        raise InvalidParameterError(f"monitor must be 'auto', 'loss', a scorer or its name. Got {monitor!r} instead.")
    return check_scoring(estimator, scoring=monitor)


def resolve_device(device):
    """Return the `torch.device` that "auto", a name or a device stands for, once it is known to work."""
    if isinstance(device, str) and device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        probe = torch.empty(1, device=torch.device(device))
        probe.cpu()
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        raise InvalidParameterError(
            f"device={device!r} cannot be used here ({str(error).splitlines()[0].rstrip('.')}). Available: 'auto', 'cpu'"
            + "".join(f", 'cuda:{i}'" for i in range(torch.cuda.device_count()))
            + (", 'mps'." if torch.backends.mps.is_available() else ".")
        ) from error
    return probe.device  # with its index: "cuda" is "cuda:0"


def resolve_dtype(dtype, X_dtype, device):
    """Return the `torch.dtype` to compute in: "auto" follows X on a CPU and is float32 elsewhere, "bfloat16" is of products."""
    if dtype == "auto":
        return torch.float64 if device.type == "cpu" and X_dtype == np.float64 else torch.float32
    return torch.float32 if dtype == "bfloat16" else getattr(torch, dtype)


def check_dtype(dtype, device):
    """Refuse bfloat16 on a device that would only be the slower for it."""
    if dtype == "bfloat16" and not multiplies_bfloat16(device):
        raise InvalidParameterError(
            "dtype='bfloat16' needs a CPU that multiplies such numbers (AVX512_BF16 or AMX), or a CUDA GPU that does (compute "
            f"capability 8.0); the device {str(device)!r} of this machine cannot. Use dtype='float32', which has the same "
            "weights and more exact products, or 'auto'."
        )


def _is_list(value):
    return isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.ndim > 0)


def _each(value, parameter, resolve_one, lengths):
    """Resolve one value for all layers, or a list with one a layer; a list of the hidden layers leaves the output None."""
    longest = max(lengths.values())
    if not _is_list(value):
        return [resolve_one(value, parameter) for _ in range(longest)] or [resolve_one(value, parameter)]
    if len(value) not in lengths.values():
        allowed = " or ".join(f"{length} (one a {kind})" for kind, length in lengths.items())
        raise InvalidParameterError(f"{parameter} has {len(value)} entries; a list must have {allowed}. Got {value!r}.")
    resolved = [resolve_one(entry, f"{parameter}[{i}]") for i, entry in enumerate(value)]
    return resolved + [None] * (longest - len(resolved))


def _resolve_rate(rate, parameter):
    if not isinstance(rate, Real) or isinstance(rate, bool) or not 0.0 <= rate < 1.0:
        raise InvalidParameterError(f"{parameter}={rate!r} must be a number in [0.0, 1.0).")
    return float(rate)


def _resolve_initializers(spec, activations, lengths):
    """One initializer a layer. Of one value, zeros are for the output layer alone; a list may leave that one out."""
    n_layers = len(activations)
    if _is_list(spec):
        entries = _each(spec, "initializer", lambda entry, _: entry, lengths)
        entries = [*entries[:-1], "auto"] if len(spec) < n_layers else entries
        return [
            resolve_initializer(entry, activation, f"initializer[{i}]")
            for i, (entry, activation) in enumerate(zip(entries, activations, strict=True))
        ]
    resolved = [resolve_initializer(spec, activation) for activation in activations]
    if isinstance(resolved[-1], Zeros):
        resolved[:-1] = [resolve_initializer("auto", activation) for activation in activations[:-1]]
    return resolved
