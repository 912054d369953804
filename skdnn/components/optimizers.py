"""Update rules: a gradient in, a step of the parameters out.

A rule is data in, data out. It keeps nothing itself: its state is a dict of tensors that the engine holds. All tensors are
flat, one element a parameter; networks in lockstep for which all numbers are the same have a row each.
"""

import inspect
from numbers import Real

import numpy as np
import torch

from skdnn._validation import Interval
from skdnn.components._component import Component, resolve
from skdnn.exceptions import InvalidParameterError

_FRACTION = [Interval(Real, 0.0, 1.0, closed="left")]
_POSITIVE = [Interval(Real, 0.0, None, closed="neither")]
_NON_NEGATIVE = [Interval(Real, 0.0, None, closed="left")]


def _square_average(average, gradient, decay):
    """``average = decay * average + (1 - decay) * gradient**2`` in place."""
    return average.mul_(decay).addcmul_(gradient, gradient, value=1.0 - decay)


def _one_by_one(vectors):
    """The vectors of each network."""
    return [vectors] if vectors.dim() == 1 else vectors.unbind()


class Optimizer(Component):
    """An update rule."""

    _coefficients: tuple = ()
    """Names of parameters, all numbers, that `update` takes as coefficients."""

    @property
    def kind(self):
        """What rules have in common that differ in their coefficients only."""
        others = {name: value for name, value in self.get_params(deep=False).items() if name not in self._coefficients}
        return type(self), *others.items()

    def init_state(self, parameters):
        """Return the rule's state for `parameters`, a dict of tensors: tensors like them, and others of all networks."""
        return {}

    def coefficients(self, learning_rate, step):
        """Return the numbers that `update` takes and that may differ from step to step, or among rules of a kind.

        Parameters
        ----------
        learning_rate : float
        step : int
            The number of the update, from 1.

        Returns
        -------
        coefficients : tuple of float
        """
        return learning_rate, step, *(getattr(self, name) for name in self._coefficients)

    def table_of_coefficients(self, learning_rates, first):
        """Return the `coefficients` of updates from the `first` on, an array of shape (n_updates, n_coefficients).

        Parameters
        ----------
        learning_rates : iterable of float
        first : int
        """
        rates = list(learning_rates)
        steps = np.arange(first, first + len(rates))
        if type(self).coefficients is not Optimizer.coefficients:
            return np.array(list(map(self.coefficients, rates, steps.tolist())))
        table = np.empty((len(rates), 2 + len(self._coefficients)))  # without a call for each
        table[:, 0], table[:, 1] = rates, steps
        for number, name in enumerate(self._coefficients, 2):
            table[:, number] = getattr(self, name)
        return table

    def update(self, parameters, gradient, state, *coefficients):
        """Move `parameters` (and `state`) in place; `gradient` may be used as scratch.

        What it does with tensors must not depend on the coefficients: it is written down once and repeated with others.

        Parameters
        ----------
        parameters, gradient : Tensor of shape ([n_networks,] n_parameters)
        state : dict of Tensor
        *coefficients : float
            As `coefficients` returns them.
        """
        raise NotImplementedError


class SGD(Optimizer):
    """Stochastic gradient descent, ``theta <- theta - eta * g``.

    Examples
    --------
    >>> from skdnn.components import SGD
    >>> SGD()
    SGD()
    """

    def update(self, parameters, gradient, state, learning_rate, step):
        parameters.add_(gradient, alpha=-learning_rate)


class Momentum(Optimizer):
    """Momentum: ``m <- beta * m - eta * g``, ``theta <- theta + m``.

    The learning rate is inside the velocity, the chapter's equation, so a changed rate acts on new gradients only;
    `torch.optim.SGD` has it outside. At a constant rate they agree.

    Parameters
    ----------
    momentum : float in [0.0, 1.0), default=0.9
        The chapter's beta.

    References
    ----------
    Polyak, "Some methods of speeding up the convergence of iteration methods", 1964.

    Examples
    --------
    >>> from skdnn.components import Momentum
    >>> Momentum(0.5)
    Momentum(momentum=0.5)
    """

    _parameter_constraints = {"momentum": _FRACTION}
    _coefficients = ("momentum",)

    def __init__(self, momentum=0.9):
        self.momentum = momentum

    def init_state(self, parameters):
        return {"velocity": torch.zeros_like(parameters)}

    def update(self, parameters, gradient, state, learning_rate, step, momentum):
        velocity = state["velocity"].mul_(momentum).add_(gradient, alpha=-learning_rate)
        parameters.add_(velocity)


class Nesterov(Optimizer):
    """Nesterov's accelerated gradient: momentum with the gradient taken a step ahead, at ``theta + beta * m``.

    As in every library, the parameters held are the point ahead, ``theta + beta * m``, so that the gradient is taken where
    the network is; in this variable the chapter's equations read ``m <- beta * m - eta * g``,
    ``theta <- theta + beta * m - eta * g``.

    Parameters
    ----------
    momentum : float in [0.0, 1.0), default=0.9

    References
    ----------
    Nesterov, "A method for solving the convex programming problem with convergence rate O(1/k^2)", 1983; Sutskever et al.,
    "On the importance of initialization and momentum in deep learning", ICML 2013.

    Examples
    --------
    >>> from skdnn.components import Nesterov
    >>> Nesterov()
    Nesterov()
    """

    _parameter_constraints = {"momentum": _FRACTION}
    _coefficients = ("momentum",)

    def __init__(self, momentum=0.9):
        self.momentum = momentum

    def init_state(self, parameters):
        return {"velocity": torch.zeros_like(parameters)}

    def update(self, parameters, gradient, state, learning_rate, step, momentum):
        velocity = state["velocity"].mul_(momentum).add_(gradient, alpha=-learning_rate)
        parameters.add_(velocity, alpha=momentum)
        parameters.add_(gradient, alpha=-learning_rate)


class AdaGrad(Optimizer):
    """AdaGrad: each parameter's rate shrinks with the gradients it has seen.

    In formulas, ``s <- s + g**2``, ``theta <- theta - eta * g / (sqrt(s) + epsilon)``.

    Parameters
    ----------
    initial_accumulator_value : float in [0.0, inf), default=0.0
        What `s` starts at: 0 as in torch; Keras has 0.1.
    epsilon : float in (0.0, inf), default=1e-10

    References
    ----------
    Duchi, Hazan and Singer, "Adaptive Subgradient Methods for Online Learning and Stochastic Optimization", JMLR 2011.

    Examples
    --------
    >>> from skdnn.components import AdaGrad
    >>> AdaGrad()
    AdaGrad()
    """

    _parameter_constraints = {"initial_accumulator_value": _NON_NEGATIVE, "epsilon": _POSITIVE}

    def __init__(self, initial_accumulator_value=0.0, epsilon=1e-10):
        self.initial_accumulator_value = initial_accumulator_value
        self.epsilon = epsilon

    def init_state(self, parameters):
        squares = torch.zeros_like(parameters).add_(self.initial_accumulator_value)
        return {"squares": squares, "scratch": torch.empty_like(parameters)}

    def update(self, parameters, gradient, state, learning_rate, step):
        state["squares"].addcmul_(gradient, gradient)
        denominator = torch.sqrt(state["squares"], out=state["scratch"]).add_(self.epsilon)
        parameters.addcdiv_(gradient, denominator, value=-learning_rate)


class RMSProp(Optimizer):
    """RMSProp: AdaGrad that forgets.

    In formulas, ``s <- rho * s + (1 - rho) * g**2``, ``theta <- theta - eta * g / (sqrt(s) + epsilon)``.

    Parameters
    ----------
    rho : float in [0.0, 1.0), default=0.9
        How much of the past is kept: the chapter's and Keras' 0.9; torch calls it alpha and has 0.99.
    epsilon : float in (0.0, inf), default=1e-8

    References
    ----------
    Tieleman and Hinton, "Lecture 6.5: RMSProp", COURSERA: Neural Networks for Machine Learning, 2012.

    Examples
    --------
    >>> from skdnn.components import RMSProp
    >>> RMSProp(rho=0.99)
    RMSProp(rho=0.99)
    """

    _parameter_constraints = {"rho": _FRACTION, "epsilon": _POSITIVE}

    def __init__(self, rho=0.9, epsilon=1e-8):
        self.rho = rho
        self.epsilon = epsilon

    def init_state(self, parameters):
        return {"squares": torch.zeros_like(parameters), "scratch": torch.empty_like(parameters)}

    def update(self, parameters, gradient, state, learning_rate, step):
        squares = _square_average(state["squares"], gradient, self.rho)
        denominator = torch.sqrt(squares, out=state["scratch"]).add_(self.epsilon)
        parameters.addcdiv_(gradient, denominator, value=-learning_rate)


class Adam(Optimizer):
    """Adam: a moving average of the gradient over the root of a moving average of its square, both corrected for their start.

    Parameters
    ----------
    beta_1 : float in [0.0, 1.0), default=0.9
        Decay of the first moment.
    beta_2 : float in [0.0, 1.0), default=0.999
        Decay of the second moment.
    epsilon : float in (0.0, inf), default=1e-8

    References
    ----------
    Kingma and Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015.

    Examples
    --------
    >>> from skdnn.components import Adam
    >>> Adam(beta_2=0.99)
    Adam(beta_2=0.99)
    """

    _parameter_constraints = {"beta_1": _FRACTION, "beta_2": _FRACTION, "epsilon": _POSITIVE}
    _amsgrad = False

    def __init__(self, beta_1=0.9, beta_2=0.999, epsilon=1e-8):
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon

    def init_state(self, parameters):
        names = ["mean", "squares"] + (["largest"] if self._amsgrad else [])
        state = {name: torch.zeros_like(parameters) for name in names}
        state["step"] = torch.zeros((), dtype=torch.float32, device=parameters.device)  # as the fused kernel wants it
        return state

    def update(self, parameters, gradient, state, learning_rate, step):
        # One pass over memory: 3 to 4 times as fast as the formulas one by one where parameters outgrow the cache. It rounds
        # the elements of a last, incomplete vector in its own way, so that each network is given by itself.
        vectors = [_one_by_one(state[name]) for name in ("mean", "squares")]
        torch._fused_adam_(
            _one_by_one(parameters),
            _one_by_one(gradient),
            *vectors,
            _one_by_one(state["largest"]) if self._amsgrad else [],
            [state["step"].fill_(step)] * len(vectors[0]),
            lr=learning_rate,
            beta1=self.beta_1,
            beta2=self.beta_2,
            weight_decay=0.0,
            eps=self.epsilon,
            amsgrad=self._amsgrad,
            maximize=False,
        )


class AdamW(Adam):
    """Adam with decoupled weight decay, ``theta <- theta * (1 - eta * weight_decay)`` before the step.

    The decay acts on every parameter, biases included, as in `torch.optim.AdamW`. For a penalty on the kernels alone use
    ``regularizer="l2"``.

    Parameters
    ----------
    beta_1 : float in [0.0, 1.0), default=0.9
    beta_2 : float in [0.0, 1.0), default=0.999
    epsilon : float in (0.0, inf), default=1e-8
    weight_decay : float in [0.0, inf), default=0.01

    References
    ----------
    Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019.

    Examples
    --------
    >>> from skdnn.components import AdamW
    >>> AdamW(weight_decay=0.1)
    AdamW(weight_decay=0.1)
    """

    _parameter_constraints = {**Adam._parameter_constraints, "weight_decay": _NON_NEGATIVE}

    def __init__(self, beta_1=0.9, beta_2=0.999, epsilon=1e-8, weight_decay=0.01):
        super().__init__(beta_1, beta_2, epsilon)
        self.weight_decay = weight_decay

    def coefficients(self, learning_rate, step):
        return learning_rate, step, 1.0 - learning_rate * self.weight_decay

    def update(self, parameters, gradient, state, learning_rate, step, kept):
        parameters.mul_(kept)
        super().update(parameters, gradient, state, learning_rate, step)


class AMSGrad(Adam):
    """Adam whose second moment never shrinks: the largest seen so far is used.

    Parameters
    ----------
    beta_1 : float in [0.0, 1.0), default=0.9
    beta_2 : float in [0.0, 1.0), default=0.999
    epsilon : float in (0.0, inf), default=1e-8

    References
    ----------
    Reddi, Kale and Kumar, "On the Convergence of Adam and Beyond", ICLR 2018.

    Examples
    --------
    >>> from skdnn.components import AMSGrad
    >>> AMSGrad()
    AMSGrad()
    """

    _amsgrad = True


class NAdam(Optimizer):
    """Adam with Nesterov's momentum, whose weight grows along Dozat's schedule.

    Parameters
    ----------
    beta_1 : float in [0.0, 1.0), default=0.9
    beta_2 : float in [0.0, 1.0), default=0.999
    epsilon : float in (0.0, inf), default=1e-8
    momentum_decay : float in [0.0, inf), default=4e-3

    References
    ----------
    Dozat, "Incorporating Nesterov Momentum into Adam", ICLR 2016 workshop.

    Examples
    --------
    >>> from skdnn.components import NAdam
    >>> NAdam()
    NAdam()
    """

    _parameter_constraints = {**Adam._parameter_constraints, "momentum_decay": _NON_NEGATIVE}

    def __init__(self, beta_1=0.9, beta_2=0.999, epsilon=1e-8, momentum_decay=4e-3):
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.momentum_decay = momentum_decay

    def init_state(self, parameters):
        state = {name: torch.zeros_like(parameters) for name in ("mean", "squares", "scratch")}
        # The product of all momenta so far.
        state["product"] = parameters.new_ones(1)
        return state

    def coefficients(self, learning_rate, step):
        momentum = self._momentum(step)
        return learning_rate, (1.0 - self.beta_2**step) ** 0.5, momentum, 1.0 - momentum, self._momentum(step + 1)

    def update(self, parameters, gradient, state, learning_rate, root, momentum, new_share, following):
        product = state["product"].mul_(momentum)
        mean = state["mean"].lerp_(gradient, 1.0 - self.beta_1)
        squares = _square_average(state["squares"], gradient, self.beta_2)
        denominator = torch.sqrt(squares, out=state["scratch"])
        denominator.div_(root).add_(self.epsilon)
        ahead = gradient.mul_(new_share / (1.0 - product)).add_(mean * (following / (1.0 - product * following)))
        parameters.addcdiv_(ahead, denominator, value=-learning_rate)

    def _momentum(self, step):
        return self.beta_1 * (1.0 - 0.5 * 0.96 ** (step * self.momentum_decay))


class Adamax(Optimizer):
    """Adam with the largest gradient in place of the root mean square.

    Parameters
    ----------
    beta_1 : float in [0.0, 1.0), default=0.9
    beta_2 : float in [0.0, 1.0), default=0.999
    epsilon : float in (0.0, inf), default=1e-8

    References
    ----------
    Kingma and Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015, section 7.1.

    Examples
    --------
    >>> from skdnn.components import Adamax
    >>> Adamax()
    Adamax()
    """

    _parameter_constraints = Adam._parameter_constraints

    def __init__(self, beta_1=0.9, beta_2=0.999, epsilon=1e-8):
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon

    def init_state(self, parameters):
        return {name: torch.zeros_like(parameters) for name in ("mean", "largest", "scratch")}

    def coefficients(self, learning_rate, step):
        return (learning_rate / (1.0 - self.beta_1**step),)

    def update(self, parameters, gradient, state, rate):
        mean = state["mean"].lerp_(gradient, 1.0 - self.beta_1)
        magnitude = torch.abs(gradient, out=state["scratch"]).add_(self.epsilon)
        largest = torch.maximum(state["largest"].mul_(self.beta_2), magnitude, out=state["largest"])
        parameters.addcdiv_(mean, largest, value=-rate)


class TorchOptimizer(Component):
    """Any `torch.optim.Optimizer` class, with its keyword arguments.

    Estimators make one of a class that is given as ``optimizer``. The optimizer is made anew at every fit, over the layers'
    own tensors in the shapes that `torch.nn.Linear` has. The learning rate is the estimator's, through its schedule.

    Parameters
    ----------
    optimizer : type
        A subclass of `torch.optim.Optimizer` with an ``lr``, whose ``step`` needs no closure (so not `torch.optim.LBFGS`).
    **kwargs
        Its other arguments.

    Examples
    --------
    >>> import torch
    >>> from skdnn.components import TorchOptimizer
    >>> TorchOptimizer(torch.optim.RAdam, betas=(0.9, 0.99)).get_params()["betas"]
    (0.9, 0.99)
    """

    calls_users_code = True

    def __init__(self, optimizer, **kwargs):
        self.optimizer = optimizer
        self.kwargs = kwargs

    def get_params(self, deep=True):
        return {"optimizer": self.optimizer, **self.kwargs}

    def set_params(self, **params):
        self.optimizer = params.pop("optimizer", self.optimizer)
        self.kwargs = {**self.kwargs, **params}
        return self

    def validate(self):
        if not (inspect.isclass(self.optimizer) and issubclass(self.optimizer, torch.optim.Optimizer)):
            raise InvalidParameterError(f"TorchOptimizer needs a torch.optim.Optimizer class, got {self.optimizer!r}.")
        accepted = inspect.signature(self.optimizer).parameters
        if "lr" not in accepted:
            raise InvalidParameterError(f"optimizer={self.optimizer.__name__} takes no lr, so no schedule can drive it.")
        closure = inspect.signature(self.optimizer.step).parameters.get("closure")
        if closure is not None and closure.default is inspect.Parameter.empty:
            raise InvalidParameterError(
                f"optimizer={self.optimizer.__name__} evaluates the loss several times a step (it needs a closure), "
                "which training in mini-batches cannot offer. Choose a first-order optimizer, for example 'adam'."
            )
        unknown = [name for name in self.kwargs if name not in accepted or name == "params"]
        if unknown or "lr" in self.kwargs:
            wrong = ", ".join(unknown) or "lr: set learning_rate_init instead"
            raise InvalidParameterError(f"optimizer={self.optimizer.__name__} cannot be given {wrong}.")
        parameter = torch.zeros(1)
        parameter.grad = torch.ones(1)
        try:
            self.build([parameter]).step()
        except (TypeError, ValueError, RuntimeError) as error:
            raise InvalidParameterError(f"optimizer={self!r} cannot train a network's parameters: {error}") from error
        return self

    def build(self, parameters, learning_rate=1e-3):
        """Make the optimizer for a list of tensors."""
        return self.optimizer(parameters, lr=learning_rate, **self.kwargs)


OPTIMIZERS = {
    "sgd": SGD,
    "momentum": Momentum,
    "nesterov": Nesterov,
    "adagrad": AdaGrad,
    "rmsprop": RMSProp,
    "adam": Adam,
    "adamw": AdamW,
    "nadam": NAdam,
    "adamax": Adamax,
    "amsgrad": AMSGrad,
}


def resolve_optimizer(spec, parameter="optimizer"):
    """Return the optimizer that `spec` (a name, an object or a `torch.optim.Optimizer` class) stands for."""
    if spec is None:
        raise InvalidParameterError(f"{parameter} must not be None. Names: {', '.join(map(repr, OPTIMIZERS))}.")
    if isinstance(spec, TorchOptimizer):
        return spec.validate()
    if isinstance(spec, torch.optim.Optimizer):
        raise InvalidParameterError(
            f"{parameter}={type(spec).__name__}(...) is bound to parameters that fit has yet to make; pass the class, or "
            f"TorchOptimizer({type(spec).__name__}, ...) with its arguments."
        )
    from_class = None
    if inspect.isclass(spec) and issubclass(spec, torch.optim.Optimizer):
        from_class = TorchOptimizer
    return resolve(OPTIMIZERS, Optimizer, spec, parameter=parameter, from_callable=from_class)
