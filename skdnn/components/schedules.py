"""Learning-rate schedules: a factor on ``learning_rate_init`` that changes as training goes on.

A schedule is a pure function of the moment it is asked about. Its ``interval`` says how often that is: before every update,
or at the start of every epoch. Where a schedule has a parameter `per`, that is both its interval and the unit of its time t.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from numbers import Integral, Real

from skdnn._validation import Interval, StrOptions
from skdnn.components._component import Component, resolve
from skdnn.exceptions import InvalidParameterError

_COUNT = [Interval(Integral, 1, None, closed="left")]
_PER = [StrOptions({"epoch", "update"})]
_FACTOR = [Interval(Real, 0.0, 1.0, closed="both")]
_POSITIVE = [Interval(Real, 0.0, None, closed="neither")]


@dataclass(frozen=True)
class Moment:
    """A point in a training run.

    Attributes
    ----------
    epoch : int
        Epochs that are over.
    update : int
        Updates that are done, in all epochs.
    updates_per_epoch : int
    max_iter : int
        Epochs that the run has at most.
    n_samples : int
        Training rows that have been seen, in all epochs.
    n_plateaus : int
        How often progress has stalled for ``n_iter_no_change`` epochs and training went on.
    """

    epoch: int = 0
    update: int = 0
    updates_per_epoch: int = 1
    max_iter: int = 1
    n_samples: int = 0
    n_plateaus: int = 0

    def time(self, per):
        """Time passed, in epochs or updates."""
        return self.epoch if per == "epoch" else self.update

    def end(self, per):
        """The time at which the run ends at the latest."""
        return self.max_iter if per == "epoch" else self.max_iter * self.updates_per_epoch


class Schedule(Component):
    """A learning-rate schedule."""

    per = "epoch"

    @property
    def interval(self):
        """How often the rate is set, "epoch" or "update"."""
        return self.per

    def factor(self, moment):
        """Return the factor on ``learning_rate_init`` at a `Moment`, a float."""
        raise NotImplementedError

    def outlasts_plateau(self, learning_rate_init, moment):
        """Say whether training goes on, at a lower rate, where it would stop for want of progress."""
        return False


class Constant(Schedule):
    """The learning rate stays at ``learning_rate_init``.

    Examples
    --------
    >>> from skdnn.components import Constant
    >>> Constant()
    Constant()
    """

    def factor(self, moment):
        return 1.0


class InvScaling(Schedule):
    """Inverse scaling as in `MLPClassifier`: ``1 / (t + 1)**power`` with `t` the number of rows seen, set once an epoch.

    Parameters
    ----------
    power : float in [0.0, inf), default=0.5
        `MLPClassifier`'s ``power_t``.

    Examples
    --------
    >>> from skdnn.components import InvScaling
    >>> InvScaling(0.25)
    InvScaling(power=0.25)
    """

    _parameter_constraints = {"power": [Interval(Real, 0.0, None, closed="left")]}

    def __init__(self, power=0.5):
        self.power = power

    def factor(self, moment):
        return 1.0 / (moment.n_samples + 1) ** self.power


class Adaptive(Schedule):
    """As in `MLPClassifier`: where training would stop for want of progress the rate is divided and training goes on.

    It does stop there once the rate is `min_learning_rate` or below.

    Parameters
    ----------
    divisor : float in (1.0, inf), default=5.0
    min_learning_rate : float in (0.0, inf), default=1e-6

    Examples
    --------
    >>> from skdnn.components import Adaptive
    >>> Adaptive(divisor=2.0)
    Adaptive(divisor=2.0)
    """

    _parameter_constraints = {
        "divisor": [Interval(Real, 1.0, None, closed="neither")],
        "min_learning_rate": _POSITIVE,
    }

    def __init__(self, divisor=5.0, min_learning_rate=1e-6):
        self.divisor = divisor
        self.min_learning_rate = min_learning_rate

    def factor(self, moment):
        return self.divisor**-moment.n_plateaus

    def outlasts_plateau(self, learning_rate_init, moment):
        return learning_rate_init * self.factor(moment) > self.min_learning_rate


class Exponential(Schedule):
    """Exponential decay: ``decay_rate ** (t / decay_time)``.

    Parameters
    ----------
    decay_rate : float in (0.0, 1.0], default=0.1
        The factor that every `decay_time` brings; the chapter's 1/10.
    decay_time : int in [1, inf), default=20
    per : {"epoch", "update"}, default="epoch"
        The unit of `decay_time`, and how often the rate is set. The chapter's run on MNIST is
        ``Exponential(0.1, 10_000, per="update")``.

    References
    ----------
    Senior et al., "An Empirical Study of Learning Rates in Deep Neural Networks for Speech Recognition", ICASSP 2013.

    Examples
    --------
    >>> from skdnn.components import Exponential
    >>> Exponential(decay_time=10)
    Exponential(decay_time=10)
    """

    _parameter_constraints = {
        "decay_rate": [Interval(Real, 0.0, 1.0, closed="right")],
        "decay_time": _COUNT,
        "per": _PER,
    }

    def __init__(self, decay_rate=0.1, decay_time=20, per="epoch"):
        self.decay_rate = decay_rate
        self.decay_time = decay_time
        self.per = per

    def factor(self, moment):
        return self.decay_rate ** (moment.time(self.per) / self.decay_time)


class Power(Schedule):
    """Power scheduling: ``(1 + t / decay_time) ** -power``.

    Parameters
    ----------
    power : float in [0.0, inf), default=1.0
    decay_time : int in [1, inf), default=20
        With the default `power` the rate is halved after this time, and a third after twice it.
    per : {"epoch", "update"}, default="epoch"
        The unit of `decay_time`, and how often the rate is set.

    References
    ----------
    Senior et al., "An Empirical Study of Learning Rates in Deep Neural Networks for Speech Recognition", ICASSP 2013.

    Examples
    --------
    >>> from skdnn.components import Power
    >>> Power(decay_time=5)
    Power(decay_time=5)
    """

    _parameter_constraints = {
        "power": [Interval(Real, 0.0, None, closed="left")],
        "decay_time": _COUNT,
        "per": _PER,
    }

    def __init__(self, power=1.0, decay_time=20, per="epoch"):
        self.power = power
        self.decay_time = decay_time
        self.per = per

    def factor(self, moment):
        return (1.0 + moment.time(self.per) / self.decay_time) ** -self.power


class PiecewiseConstant(Schedule):
    """A factor for each stretch of time.

    Parameters
    ----------
    boundaries : sequence of int, default=(50,)
        Ascending times at which the next factor starts to hold.
    factors : sequence of float in (0.0, inf), default=(1.0, 0.01)
        On ``learning_rate_init``, one more than there are boundaries. The default with ``learning_rate_init=0.1`` is the
        chapter's example: 0.1 for 50 epochs, then 0.001.
    per : {"epoch", "update"}, default="epoch"
        The unit of `boundaries`.

    Examples
    --------
    >>> from skdnn.components import PiecewiseConstant
    >>> PiecewiseConstant(boundaries=(10, 20), factors=(1.0, 0.1, 0.01))
    PiecewiseConstant(boundaries=(10, 20), factors=(1.0, 0.1, 0.01))
    """

    _parameter_constraints = {
        "boundaries": ["array-like"],
        "factors": ["array-like"],
        "per": _PER,
    }

    def __init__(self, boundaries=(50,), factors=(1.0, 0.01), per="epoch"):
        self.boundaries = boundaries
        self.factors = factors
        self.per = per

    def validate(self):
        super().validate()
        numbers = [*self.boundaries, *self.factors]
        if (
            not all(isinstance(number, Real) and math.isfinite(number) for number in numbers)
            or not all(a < b for a, b in pairwise(self.boundaries))
            or len(self.factors) != len(self.boundaries) + 1
            or not all(factor > 0 for factor in self.factors)
        ):
            raise InvalidParameterError(
                "PiecewiseConstant needs ascending boundaries and one more factor than boundaries, all positive. "
                f"Got boundaries={self.boundaries!r}, factors={self.factors!r}."
            )
        return self

    def factor(self, moment):
        time = moment.time(self.per)
        return float(self.factors[sum(time >= boundary for boundary in self.boundaries)])


class Cosine(Schedule):
    """Half a cosine from 1 to `final_factor` over the ``max_iter`` epochs of the fit.

    Parameters
    ----------
    final_factor : float in [0.0, 1.0], default=0.0
    per : {"epoch", "update"}, default="update"
        How often the rate is set.

    References
    ----------
    Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017.

    Examples
    --------
    >>> from skdnn.components import Cosine
    >>> Cosine(final_factor=0.1)
    Cosine(final_factor=0.1)
    """

    _parameter_constraints = {"final_factor": _FACTOR, "per": _PER}

    def __init__(self, final_factor=0.0, per="update"):
        self.final_factor = final_factor
        self.per = per

    def factor(self, moment):
        return _half_cosine(1.0, self.final_factor, moment.time(self.per) / moment.end(self.per))


class OneCycle(Schedule):
    """The one-cycle policy: up to ``learning_rate_init`` along half a cosine, then down along another.

    ``learning_rate_init`` is the peak. The cycle spans the ``max_iter`` epochs of the fit; the rate is set before every update.

    Parameters
    ----------
    warmup_fraction : float in (0.0, 1.0), default=0.3
        The share of all updates that the way up takes.
    initial_factor : float in [0.0, 1.0], default=0.04
        Where the way up starts.
    final_factor : float in [0.0, 1.0], default=4e-6
        Where the way down ends.

    References
    ----------
    Smith and Topin, "Super-Convergence: Very Fast Training of Neural Networks Using Large Learning Rates", 2018.

    Examples
    --------
    >>> from skdnn.components import OneCycle
    >>> OneCycle(warmup_fraction=0.5)
    OneCycle(warmup_fraction=0.5)
    """

    per = "update"
    _parameter_constraints = {
        "warmup_fraction": [Interval(Real, 0.0, 1.0, closed="neither")],
        "initial_factor": _FACTOR,
        "final_factor": _FACTOR,
    }

    def __init__(self, warmup_fraction=0.3, initial_factor=0.04, final_factor=4e-6):
        self.warmup_fraction = warmup_fraction
        self.initial_factor = initial_factor
        self.final_factor = final_factor

    def factor(self, moment):
        last = moment.end("update") - 1
        peak = self.warmup_fraction * (last + 1) - 1
        if moment.update <= peak:
            return _half_cosine(self.initial_factor, 1.0, moment.update / peak if peak else 1.0)
        return _half_cosine(1.0, self.final_factor, (moment.update - peak) / (last - peak))


class WarmUp(Schedule):
    """A linear warm-up, with any other schedule after it.

    During the warm-up the other schedule's factor is multiplied by one that rises linearly, before every update, from
    `initial_factor` to 1. Both run on the same clock, from the start of the fit.

    Parameters
    ----------
    schedule : str or Schedule, default="constant"
        What is warmed up.
    warmup_time : int in [1, inf), default=5
    initial_factor : float in [0.0, 1.0], default=0.0
        The first update is one step above it.
    per : {"epoch", "update"}, default="epoch"
        The unit of `warmup_time`.

    References
    ----------
    Goyal et al., "Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour", 2017.

    Examples
    --------
    >>> from skdnn.components import Cosine, WarmUp
    >>> WarmUp(Cosine(), warmup_time=2)
    WarmUp(schedule=Cosine(), warmup_time=2)
    """

    interval = "update"
    _parameter_constraints = {"warmup_time": _COUNT, "initial_factor": _FACTOR, "per": _PER, "schedule": "no_validation"}

    def __init__(self, schedule="constant", warmup_time=5, initial_factor=0.0, per="epoch"):
        self.schedule = schedule
        self.warmup_time = warmup_time
        self.initial_factor = initial_factor
        self.per = per

    def validate(self):
        super().validate()
        self._following()
        return self

    def _following(self):
        return resolve_schedule(self.schedule, parameter="WarmUp.schedule")

    def factor(self, moment):
        duration = self.warmup_time * (moment.updates_per_epoch if self.per == "epoch" else 1)
        share = min(1.0, (moment.update + 1) / duration)
        return (self.initial_factor + (1.0 - self.initial_factor) * share) * self._following().factor(moment)

    def outlasts_plateau(self, learning_rate_init, moment):
        return self._following().outlasts_plateau(learning_rate_init, moment)


def _half_cosine(start, end, share):
    return end + (start - end) * (1.0 + math.cos(math.pi * min(share, 1.0))) / 2.0


SCHEDULES = {
    "constant": Constant,
    "invscaling": InvScaling,
    "adaptive": Adaptive,
    "exponential": Exponential,
    "power": Power,
    "piecewise_constant": PiecewiseConstant,
    "cosine": Cosine,
    "one_cycle": OneCycle,
    "warm_up": WarmUp,
}


def resolve_schedule(spec, parameter="learning_rate"):
    """Return the schedule that `spec` (a name or an object) stands for."""
    if spec is None:
        raise InvalidParameterError(f"{parameter} must not be None; for a rate that stays write 'constant'.")
    if isinstance(spec, Real):
        raise InvalidParameterError(
            f"{parameter}={spec!r} is a number, but names the schedule; set learning_rate_init={spec!r} for the rate itself."
        )
    return resolve(SCHEDULES, Schedule, spec, parameter=parameter)
