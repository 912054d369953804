"""Activation functions of the hidden layers, with their derivatives in closed form.

An activation has two methods that write into a given tensor: ``forward(z, out)`` and ``backward(grad, z, a, out)``, which
turns the gradient with respect to its output `a` into that with respect to its input `z`. Where ``uses_output`` is true
the derivative is taken from `a` alone, so that the layer can overwrite `z` and hold one tensor instead of two.
"""

import copy
import inspect
import math
from numbers import Real

import torch

from skdnn._validation import Interval
from skdnn.components._component import Component, resolve
from skdnn.components.kernels import kernel_of
from skdnn.exceptions import InvalidParameterError

_aten = torch.ops.aten
_elu = kernel_of(_aten.elu.out)
_elu_backward = kernel_of(_aten.elu_backward.grad_input)
_gelu = kernel_of(_aten.gelu.out)
_gelu_backward = kernel_of(_aten.gelu_backward.grad_input)
_hardswish = kernel_of(_aten.hardswish.out)
_hardswish_backward = kernel_of(_aten.hardswish_backward.out)
_leaky_relu = kernel_of(_aten.leaky_relu.out)
_leaky_relu_backward = kernel_of(_aten.leaky_relu_backward.grad_input)
_mish = kernel_of(_aten.mish.out)
_mish_backward = kernel_of(_aten.mish_backward.default)
_sigmoid_backward = kernel_of(_aten.sigmoid_backward.grad_input)
_silu = kernel_of(_aten.silu.out)
_silu_backward = kernel_of(_aten.silu_backward.grad_input)
_softplus = kernel_of(_aten.softplus.out)
_softplus_backward = kernel_of(_aten.softplus_backward.grad_input)
_tanh_backward = kernel_of(_aten.tanh_backward.grad_input)
_threshold_backward = kernel_of(_aten.threshold_backward.grad_input)

# The scale and slope that make activations converge to mean 0 and variance 1 (Klambauer et al. 2017, with the digits that
# torch uses).
_SELU_ALPHA = 1.6732632423543772848170429916717
_SELU_SCALE = 1.0507009873554804934193349852946


class Activation(Component):
    """An element-wise activation function.

    Attributes
    ----------
    gain : float
        The factor that an initializer with ``gain="auto"`` takes for a layer with this activation: the chapter's table
        (logistic 1, tanh 4, ReLU and its variants sqrt(2)), 1 for what the table does not know.

    auto_initializer : str
        The initializer that ``initializer="auto"`` picks.

    uses_output : bool
        Whether ``backward`` needs only the output.
    """

    gain = math.sqrt(2.0)
    auto_initializer = "he_normal"
    uses_output = True

    def forward(self, z, out):
        """Write the activation of `z` into `out` (which may be `z` where ``uses_output`` is true) and return it."""
        raise NotImplementedError

    def backward(self, grad, z, a, out):
        """Write the gradient with respect to `z` into `out` (which may be `grad`) and return it."""
        raise NotImplementedError

    def to_module(self):
        """Return the `torch.nn.Module` that computes the same function."""
        raise NotImplementedError


class Identity(Activation):
    """The identity, ``a = z``: a linear layer.

    Examples
    --------
    >>> from skdnn.components import Identity
    >>> Identity()
    Identity()
    """

    gain = 1.0
    auto_initializer = "glorot_uniform"

    def forward(self, z, out):
        return z if out is z else out.copy_(z)

    def backward(self, grad, z, a, out):
        return grad if out is grad else out.copy_(grad)

    def to_module(self):
        return torch.nn.Identity()


class Logistic(Activation):
    """The logistic function, ``a = 1 / (1 + exp(-z))``. It saturates: deep networks learn slowly with it.

    Examples
    --------
    >>> from skdnn.components import Logistic
    >>> Logistic()
    Logistic()
    """

    gain = 1.0
    auto_initializer = "glorot_uniform"

    def forward(self, z, out):
        return torch.sigmoid(z, out=out)

    def backward(self, grad, z, a, out):
        return _sigmoid_backward(grad, a, grad_input=out)

    def to_module(self):
        return torch.nn.Sigmoid()


class Tanh(Activation):
    """The hyperbolic tangent, ``a = tanh(z)``.

    Examples
    --------
    >>> from skdnn.components import Tanh
    >>> Tanh().gain
    4.0
    """

    gain = 4.0
    auto_initializer = "glorot_uniform"

    def forward(self, z, out):
        return torch.tanh(z, out=out)

    def backward(self, grad, z, a, out):
        return _tanh_backward(grad, a, grad_input=out)

    def to_module(self):
        return torch.nn.Tanh()


class ReLU(Activation):
    """The rectified linear unit, ``a = max(0, z)``. A unit whose inputs are all negative is dead: its gradient is 0.

    References
    ----------
    Nair and Hinton, "Rectified Linear Units Improve Restricted Boltzmann Machines", ICML 2010.

    Examples
    --------
    >>> from skdnn.components import ReLU
    >>> ReLU()
    ReLU()
    """

    def forward(self, z, out):
        return torch.relu_(z) if out is z else torch.clamp_min(z, 0, out=out)

    def backward(self, grad, z, a, out):
        return _threshold_backward(grad, a, 0, grad_input=out)

    def to_module(self):
        return torch.nn.ReLU()


class LeakyReLU(Activation):
    """The leaky ReLU, ``a = max(alpha * z, z)``, which keeps a gradient below zero, so that units cannot die.

    Parameters
    ----------
    alpha : float in [0.0, 1.0), default=0.01
        The slope below zero.

    References
    ----------
    Maas, Hannun and Ng, "Rectifier Nonlinearities Improve Neural Network Acoustic Models", ICML 2013.
    Xu et al., "Empirical Evaluation of Rectified Activations in Convolution Network", 2015 (alpha around 0.2 did best).

    Examples
    --------
    >>> from skdnn.components import LeakyReLU
    >>> LeakyReLU(alpha=0.2)
    LeakyReLU(alpha=0.2)
    """

    _parameter_constraints = {"alpha": [Interval(Real, 0.0, 1.0, closed="left")]}

    def __init__(self, alpha=0.01):
        self.alpha = alpha

    def forward(self, z, out):
        return _leaky_relu(z, float(self.alpha), out=out)

    def backward(self, grad, z, a, out):
        return _leaky_relu_backward(grad, a, float(self.alpha), True, grad_input=out)

    def to_module(self):
        return torch.nn.LeakyReLU(float(self.alpha))


class ELU(Activation):
    """The exponential linear unit, ``a = alpha * (exp(z) - 1)`` below zero and ``z`` above.

    Parameters
    ----------
    alpha : float in (0.0, inf), default=1.0
        Minus the value that the unit approaches for very negative inputs. With 1.0 the function is smooth everywhere.

    References
    ----------
    Clevert, Unterthiner and Hochreiter, "Fast and Accurate Deep Network Learning by Exponential Linear Units (ELUs)",
    ICLR 2016.

    Examples
    --------
    >>> from skdnn.components import ELU
    >>> ELU()
    ELU()
    """

    _parameter_constraints = {"alpha": [Interval(Real, 0.0, None, closed="neither")]}

    def __init__(self, alpha=1.0):
        self.alpha = alpha

    def forward(self, z, out):
        return _elu(z, float(self.alpha), 1.0, 1.0, out=out)

    def backward(self, grad, z, a, out):
        return _elu_backward(grad, float(self.alpha), 1.0, 1.0, True, a, grad_input=out)

    def to_module(self):
        return torch.nn.ELU(float(self.alpha))


class SELU(Activation):
    """The scaled ELU, which keeps mean 0 and variance 1 from layer to layer.

    It does so for standardised inputs, LeCun initialisation (what ``initializer="auto"`` takes) and no batch norm.

    References
    ----------
    Klambauer et al., "Self-Normalizing Neural Networks", NIPS 2017.

    Examples
    --------
    >>> from skdnn.components import SELU
    >>> SELU().auto_initializer
    'lecun_normal'
    """

    gain = 1.0
    auto_initializer = "lecun_normal"

    def forward(self, z, out):
        return _elu(z, _SELU_ALPHA, _SELU_SCALE, 1.0, out=out)

    def backward(self, grad, z, a, out):
        return _elu_backward(grad, _SELU_ALPHA, _SELU_SCALE, 1.0, True, a, grad_input=out)

    def to_module(self):
        return torch.nn.SELU()


class GELU(Activation):
    """The Gaussian error linear unit, ``a = z * Phi(z)`` with the standard normal distribution function Phi.

    References
    ----------
    Hendrycks and Gimpel, "Gaussian Error Linear Units (GELUs)", 2016.

    Examples
    --------
    >>> from skdnn.components import GELU
    >>> GELU()
    GELU()
    """

    uses_output = False

    def forward(self, z, out):
        return _gelu(z, out=out)

    def backward(self, grad, z, a, out):
        return _gelu_backward(grad, z, grad_input=out)

    def to_module(self):
        return torch.nn.GELU()


class SiLU(Activation):
    """The sigmoid linear unit or swish, ``a = z / (1 + exp(-z))``.

    References
    ----------
    Elfwing, Uchibe and Doya, "Sigmoid-weighted Linear Units for Neural Network Function Approximation in Reinforcement
    Learning", 2017; Ramachandran, Zoph and Le, "Searching for Activation Functions", 2017.

    Examples
    --------
    >>> from skdnn.components import SiLU
    >>> SiLU()
    SiLU()
    """

    uses_output = False

    def forward(self, z, out):
        return _silu(z, out=out)

    def backward(self, grad, z, a, out):
        return _silu_backward(grad, z, grad_input=out)

    def to_module(self):
        return torch.nn.SiLU()


class Softplus(Activation):
    """The soft plus, ``a = log(1 + exp(z))``: a smooth ReLU. Above 20 it is taken as `z`, as torch does.

    References
    ----------
    Glorot, Bordes and Bengio, "Deep Sparse Rectifier Neural Networks", AISTATS 2011.

    Examples
    --------
    >>> from skdnn.components import Softplus
    >>> Softplus()
    Softplus()
    """

    uses_output = False

    def forward(self, z, out):
        return _softplus(z, 1, 20, out=out)

    def backward(self, grad, z, a, out):
        return _softplus_backward(grad, z, 1, 20, grad_input=out)

    def to_module(self):
        return torch.nn.Softplus()


class Mish(Activation):
    """The mish function, ``a = z * tanh(softplus(z))``.

    References
    ----------
    Misra, "Mish: A Self Regularized Non-Monotonic Activation Function", BMVC 2020.

    Examples
    --------
    >>> from skdnn.components import Mish
    >>> Mish()
    Mish()
    """

    uses_output = False

    def forward(self, z, out):
        return _mish(z, out=out)

    def backward(self, grad, z, a, out):
        return out.copy_(_mish_backward(grad, z))  # the one derivative here without a variant that takes `out`

    def to_module(self):
        return torch.nn.Mish()


class HardSwish(Activation):
    """The hard swish, ``a = z * min(max(z + 3, 0), 6) / 6``: a swish of straight pieces.

    References
    ----------
    Howard et al., "Searching for MobileNetV3", ICCV 2019.

    Examples
    --------
    >>> from skdnn.components import HardSwish
    >>> HardSwish()
    HardSwish()
    """

    uses_output = False

    def forward(self, z, out):
        return _hardswish(z, out=out)

    def backward(self, grad, z, a, out):
        return _hardswish_backward(grad, z, out=out)

    def to_module(self):
        return torch.nn.Hardswish()


class CallableActivation(Activation):
    """Any element-wise torch function, with its derivative from autograd.

    Estimators make one of a callable that is given as ``activation``.

    Parameters
    ----------
    function : callable
        From a tensor of shape (n_samples, n_units) to one of the same shape, element by element: a function
        (``torch.sin``), a `torch.nn.Module` without parameters of its own, or the class of one.

    Examples
    --------
    >>> import torch
    >>> from skdnn.components import CallableActivation
    >>> CallableActivation(torch.nn.functional.hardtanh).validate().gain
    1.0
    """

    gain = 1.0
    auto_initializer = "glorot_uniform"
    uses_output = False
    calls_users_code = True
    _parameter_constraints = {"function": [callable]}

    def __init__(self, function):
        self.function = function

    def validate(self):
        super().validate()
        try:
            module = self.to_module()
        except TypeError as error:
            raise InvalidParameterError(
                f"activation={self.function!r} cannot be made without arguments; pass an object of it: {error}"
            ) from error
        if next(module.parameters(), None) is not None:
            raise InvalidParameterError(
                f"activation={self.function!r} has parameters of its own, which would not be trained. "
                "Pass a function or a module without parameters."
            )
        self._try_out()
        return self

    def _try_out(self):
        """Refuse now, with a clear message, what would fail in the middle of training."""
        z = torch.linspace(-1.0, 1.0, 6).view(3, 2)
        try:
            a = self.forward(z, torch.empty_like(z))
            self.backward(torch.ones_like(z), z, a, torch.empty_like(z))
        except InvalidParameterError:
            raise
        except Exception as error:
            raise InvalidParameterError(
                f"activation={self.function!r} must be an element-wise torch function that autograd can differentiate: {error}"
            ) from error

    def forward(self, z, out):
        # The function gets a copy, for it may work in place and the derivative is taken from z.
        with torch.inference_mode(False), torch.no_grad():
            a = self._function()(z.clone())
        if a.shape != z.shape:
            raise InvalidParameterError(
                f"activation={self.function!r} must keep the shape of its input, got {tuple(a.shape)} for {tuple(z.shape)}."
            )
        return out.copy_(a)

    def backward(self, grad, z, a, out):
        # Evaluated once more instead of kept from `forward`: one object may serve several layers.
        with torch.inference_mode(False), torch.enable_grad():
            z = z.clone().requires_grad_()
            # Of a scalar: to check the shape of a gradient it is given, autograd would import SymPy, which takes a second and
            # changes the process' warnings filters.
            (derivative,) = torch.autograd.grad((self._function()(z.clone()) * grad.clone()).sum(), z)
        return out.copy_(derivative)

    def _function(self):
        # The class of a module stands for the module; a module is called, not its forward, so that hooks run.
        return self.function() if inspect.isclass(self.function) else self.function

    def to_module(self):
        function = self._function()
        # A copy, for a module in a network is switched between training and evaluation.
        return copy.deepcopy(function) if isinstance(function, torch.nn.Module) else _FunctionModule(function)


class _FunctionModule(torch.nn.Module):
    """A function as a layer of a `torch.nn.Sequential`."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, z):
        return self.function(z)

    def extra_repr(self):
        return getattr(self.function, "__name__", repr(self.function))


ACTIVATIONS = {
    "identity": Identity,
    "logistic": Logistic,
    "tanh": Tanh,
    "relu": ReLU,
    "leaky_relu": LeakyReLU,
    "elu": ELU,
    "selu": SELU,
    "gelu": GELU,
    "silu": SiLU,
    "softplus": Softplus,
    "mish": Mish,
    "hard_swish": HardSwish,
}


def resolve_activation(spec, parameter="activation"):
    """Return the activation that `spec` (a name, an object or a torch callable) stands for."""
    if spec is None:
        raise InvalidParameterError(f"{parameter} must not be None; for a linear layer write 'identity'.")
    return resolve(ACTIVATIONS, Activation, spec, parameter=parameter, from_callable=CallableActivation)
