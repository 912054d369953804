"""Initial kernels. Biases start at 0, batch norm's scale at 1.

An initializer fills one kernel of shape (n_out, n_in), torch's layout, from a generator that it is given. Draws are made in
float64 on the CPU whatever the network's dtype and device, so that the same seed starts the same network everywhere.
"""

import inspect
import math
import threading
from numbers import Real

import numpy as np
import torch

from skdnn._validation import Interval, StrOptions
from skdnn.components._component import Component, resolve
from skdnn.exceptions import InvalidParameterError

# torch's global generator belongs to one fit at a time, where fits run in threads.
_GLOBAL_GENERATOR = threading.Lock()


class Initializer(Component):
    """A distribution that a layer's kernel is drawn from."""

    def fill(self, kernel, generator, gain=1.0):
        """Fill `kernel` in place.

        Parameters
        ----------
        kernel : Tensor of shape (n_out, n_in)
        generator : torch.Generator
        gain : float
            What ``gain="auto"`` stands for: the gain of the layer's activation.
        """
        raise NotImplementedError


class _Scaled(Initializer):
    """An initializer with a `gain` that is a number, or "auto" for the activation's."""

    _parameter_constraints = {"gain": [Interval(Real, 0.0, None, closed="neither"), StrOptions({"auto"})]}

    def _gain(self, gain_of_activation):
        return gain_of_activation if self.gain == "auto" else self.gain


class _VarianceScaling(_Scaled):
    """Zero mean and the variance ``gain**2 / n``, where `n` counts the units of one side of the kernel or both."""

    _parameter_constraints = {**_Scaled._parameter_constraints, "distribution": [StrOptions({"uniform", "normal"})]}

    def _variance(self, n_in, n_out):
        raise NotImplementedError

    def fill(self, kernel, generator, gain=1.0):
        n_out, n_in = kernel.shape
        std = self._gain(gain) * math.sqrt(self._variance(n_in, n_out))
        if self.distribution == "uniform":
            limit = math.sqrt(3.0) * std
            kernel.uniform_(-limit, limit, generator=generator)
        else:
            kernel.normal_(0.0, std, generator=generator)


class Glorot(_VarianceScaling):
    """Glorot's (Xavier's) initialisation: variance ``gain**2 * 2 / (n_in + n_out)``.

    Parameters
    ----------
    distribution : {"uniform", "normal"}, default="uniform"
        Uniform on +-sqrt(6 / (n_in + n_out)), or normal with sigma = sqrt(2 / (n_in + n_out)), each times `gain`.

    gain : float in (0.0, inf) or "auto", default=1.0
        A factor on the limit or sigma. "auto" is the chapter's table by the layer's activation: logistic 1, tanh 4, ReLU and
        its variants sqrt(2). The literature disagrees with the 4 for tanh: Glorot and Bengio use 1, `torch.nn.init` 5/3; the
        4 belongs to the logistic function, whose slope at 0 is a quarter of tanh's.

    References
    ----------
    Glorot and Bengio, "Understanding the Difficulty of Training Deep Feedforward Neural Networks", AISTATS 2010.

    Examples
    --------
    >>> from skdnn.components import Glorot
    >>> Glorot("normal", gain="auto")
    Glorot(distribution='normal', gain='auto')
    """

    def __init__(self, distribution="uniform", gain=1.0):
        self.distribution = distribution
        self.gain = gain

    def _variance(self, n_in, n_out):
        return 2.0 / (n_in + n_out)


class He(_VarianceScaling):
    """He's initialisation, made for ReLU and its variants: variance ``gain**2 * 2 / n_in``.

    Parameters
    ----------
    distribution : {"uniform", "normal"}, default="normal"
    gain : float in (0.0, inf), default=1.0
        A factor on sigma. The ReLU's gain of sqrt(2) is already in the formula.

    References
    ----------
    He et al., "Delving Deep into Rectifiers", ICCV 2015.

    Examples
    --------
    >>> from skdnn.components import He
    >>> He()
    He()
    """

    _parameter_constraints = {
        **_VarianceScaling._parameter_constraints,
        "gain": [Interval(Real, 0.0, None, closed="neither")],
    }

    def __init__(self, distribution="normal", gain=1.0):
        self.distribution = distribution
        self.gain = gain

    def _variance(self, n_in, n_out):
        return 2.0 / n_in


class LeCun(_VarianceScaling):
    """LeCun's initialisation, which SELU asks for: variance ``gain**2 / n_in``.

    Parameters
    ----------
    distribution : {"uniform", "normal"}, default="normal"
    gain : float in (0.0, inf) or "auto", default=1.0
        A factor on sigma, "auto" as in `Glorot`.

    References
    ----------
    LeCun et al., "Efficient BackProp", 1998; Klambauer et al., "Self-Normalizing Neural Networks", NIPS 2017.

    Examples
    --------
    >>> from skdnn.components import LeCun
    >>> LeCun("uniform")
    LeCun(distribution='uniform')
    """

    def __init__(self, distribution="normal", gain=1.0):
        self.distribution = distribution
        self.gain = gain

    def _variance(self, n_in, n_out):
        return 1.0 / n_in


class Orthogonal(_Scaled):
    """A random matrix with orthonormal rows or columns, times `gain`.

    Parameters
    ----------
    gain : float in (0.0, inf) or "auto", default=1.0
        "auto" as in `Glorot`.

    References
    ----------
    Saxe, McClelland and Ganguli, "Exact solutions to the nonlinear dynamics of learning in deep linear neural networks",
    ICLR 2014.

    Examples
    --------
    >>> from skdnn.components import Orthogonal
    >>> Orthogonal(gain=2.0)
    Orthogonal(gain=2.0)
    """

    def __init__(self, gain=1.0):
        self.gain = gain

    def fill(self, kernel, generator, gain=1.0):
        torch.nn.init.orthogonal_(kernel, gain=self._gain(gain), generator=generator)


class Normal(Initializer):
    """A normal distribution with a fixed spread, whatever the layer's size.

    Parameters
    ----------
    stddev : float in (0.0, inf), default=0.05
    mean : float, default=0.0

    Examples
    --------
    >>> from skdnn.components import Normal
    >>> Normal(stddev=0.1)
    Normal(stddev=0.1)
    """

    _parameter_constraints = {
        "stddev": [Interval(Real, 0.0, None, closed="neither")],
        "mean": [Interval(Real, None, None, closed="neither")],
    }

    def __init__(self, stddev=0.05, mean=0.0):
        self.stddev = stddev
        self.mean = mean

    def fill(self, kernel, generator, gain=1.0):
        kernel.normal_(self.mean, self.stddev, generator=generator)


class Uniform(Initializer):
    """A uniform distribution with fixed limits, whatever the layer's size.

    Parameters
    ----------
    minval : float, default=-0.05
    maxval : float, default=0.05
        Greater than `minval`.

    Examples
    --------
    >>> from skdnn.components import Uniform
    >>> Uniform(-0.1, 0.1)
    Uniform(maxval=0.1, minval=-0.1)
    """

    _parameter_constraints = {
        "minval": [Interval(Real, None, None, closed="neither")],
        "maxval": [Interval(Real, None, None, closed="neither")],
    }

    def __init__(self, minval=-0.05, maxval=0.05):
        self.minval = minval
        self.maxval = maxval

    def validate(self):
        super().validate()
        if self.minval >= self.maxval:
            raise InvalidParameterError(f"minval must be less than maxval, got Uniform({self.minval}, {self.maxval}).")
        return self

    def fill(self, kernel, generator, gain=1.0):
        kernel.uniform_(self.minval, self.maxval, generator=generator)


class Zeros(Initializer):
    """All zeros, for the output layer: the first prediction is then the same for every class.

    Hidden units that all start at zero stay alike. Given as the estimator's one `initializer`, ``"zeros"`` therefore speaks
    of the output layer and leaves the hidden layers to "auto"; in a list with one entry a layer it is taken as it stands.

    Examples
    --------
    >>> from skdnn.components import Zeros
    >>> Zeros()
    Zeros()
    """

    def fill(self, kernel, generator, gain=1.0):
        kernel.zero_()


class CallableInitializer(Initializer):
    """Any function that fills or returns a kernel; estimators make one of a callable that is given as ``initializer``.

    Parameters
    ----------
    function : callable
        Called with a float64 tensor of shape (n_out, n_in), which it fills in place (`torch.nn.init.trunc_normal_`) or
        answers with an array or tensor of that shape. Where it takes a ``generator`` it is given the estimator's; otherwise
        torch's global generator is seeded for the call and put back.

    Examples
    --------
    >>> import torch
    >>> from skdnn.components import CallableInitializer
    >>> kernel = torch.empty(2, 3, dtype=torch.float64)
    >>> CallableInitializer(torch.nn.init.ones_).fill(kernel, torch.Generator())
    >>> kernel.tolist()
    [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
    """

    calls_users_code = True
    _parameter_constraints = {"function": [callable]}

    def __init__(self, function):
        self.function = function

    def fill(self, kernel, generator, gain=1.0):
        shape = kernel.shape
        if _takes_generator(self.function):
            values = self.function(kernel, generator=generator)
        else:
            with _GLOBAL_GENERATOR, torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(int(torch.randint(2**62, (), generator=generator)))
                values = self.function(kernel)
        if values is not None and values is not kernel:
            values = values if isinstance(values, torch.Tensor) else torch.from_numpy(np.array(values, dtype=np.float64))
            if values.shape != shape:
                raise InvalidParameterError(
                    f"initializer={self.function!r} must return an array of shape {tuple(shape)} (n_out, n_in), "
                    f"got {tuple(values.shape)}."
                )
            kernel.copy_(values)
        if not kernel.isfinite().all():
            raise InvalidParameterError(f"initializer={self.function!r} must give finite weights, got {kernel}.")


def _takes_generator(function):
    try:
        return "generator" in inspect.signature(function).parameters
    except (TypeError, ValueError):  # a built-in without a signature
        return False


def _glorot_normal():
    return Glorot("normal")


def _he_uniform():
    return He("uniform")


def _lecun_uniform():
    return LeCun("uniform")


INITIALIZERS = {
    "glorot_uniform": Glorot,
    "glorot_normal": _glorot_normal,
    "he_uniform": _he_uniform,
    "he_normal": He,
    "lecun_uniform": _lecun_uniform,
    "lecun_normal": LeCun,
    "orthogonal": Orthogonal,
    "normal": Normal,
    "uniform": Uniform,
    "zeros": Zeros,
}


def resolve_initializer(spec, activation, parameter="initializer"):
    """Return the initializer that `spec` (a name, "auto", an object or a callable) stands for.

    Parameters
    ----------
    spec : str, Initializer or callable
    activation : Activation or None
        The layer's activation, by which "auto" chooses: He for the ReLU family, LeCun for SELU, Glorot otherwise. None for
        the output layer.
    parameter : str
        The estimator's parameter, for the error message.

    Returns
    -------
    initializer : Initializer
    """
    if spec is None:
        raise InvalidParameterError(f"{parameter} must not be None; 'auto' picks one that suits the activation.")
    if isinstance(spec, str) and spec == "auto":
        return INITIALIZERS[activation.auto_initializer if activation is not None else "glorot_uniform"]()
    known = {"auto": None, **INITIALIZERS}
    return resolve(known, Initializer, spec, parameter=parameter, from_callable=CallableInitializer)
