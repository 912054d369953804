"""The picture of a learning-rate range test."""

import numpy as np

from skdnn.displays._axes import axes_for
from skdnn.model_selection import learning_rate_range_test
from skdnn.model_selection._preprocessing import last_step

# How far the picture reaches above the worst loss at the rates up to the best, in parts of the progress that the best has made.
_HEADROOM = 0.5


class LearningRateRangeDisplay:
    """Loss against learning rate, as `skdnn.model_selection.learning_rate_range_test` measures it.

    Parameters
    ----------
    learning_rates : ndarray of shape (n_rates,)
        In ascending order.

    losses : ndarray of shape (n_rates,)
        Those that are not finite have diverged.

    best_learning_rate : float, default=None
        Is marked.

    estimator_name : str, default=None
        For the legend.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
    figure_ : matplotlib.figure.Figure
    line_ : matplotlib.lines.Line2D
        The losses.
    diverged_ : matplotlib.lines.Line2D or None
        Crosses at the upper edge, for rates at which training diverged or ended with a loss beyond the picture.
    best_line_ : matplotlib.lines.Line2D or None

    See Also
    --------
    skdnn.model_selection.learning_rate_range_test : The figures.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skdnn import MLPDeepClassifier
    >>> from skdnn.displays import LearningRateRangeDisplay
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = MLPDeepClassifier((10,), batch_size=10, random_state=0)
    >>> display = LearningRateRangeDisplay.from_estimator(clf, X, y, learning_rates=[1e-3, 1e-2, 1e-1], max_iter=2)
    >>> display.ax_.get_xlabel()
    'learning rate'
    """

    def __init__(self, *, learning_rates, losses, best_learning_rate=None, estimator_name=None):
        self.learning_rates = learning_rates
        self.losses = losses
        self.best_learning_rate = best_learning_rate
        self.estimator_name = estimator_name

    @classmethod
    def from_estimator(
        cls, estimator, X, y, *, learning_rates=None, max_iter=None, sample_weight=None, name=None, ax=None, **kwargs
    ):
        """Run the test and draw it.

        Parameters
        ----------
        estimator, X, y, learning_rates, max_iter, sample_weight
            As of `skdnn.model_selection.learning_rate_range_test`.

        name : str, default=None
            For the legend, by default the class of the estimator, or of a pipeline's last step.

        ax : matplotlib.axes.Axes, default=None
            To draw on, by default new ones.

        **kwargs
            For the line of the losses, as of `matplotlib.axes.Axes.plot`.

        Returns
        -------
        display : LearningRateRangeDisplay
        """
        result = learning_rate_range_test(
            estimator, X, y, learning_rates=learning_rates, max_iter=max_iter, sample_weight=sample_weight
        )
        if name is None:
            name = type(last_step(estimator)).__name__
        return cls.from_result(result, name=name, ax=ax, **kwargs)

    @classmethod
    def from_result(cls, result, *, name=None, ax=None, **kwargs):
        """Draw a test that has been run.

        Parameters
        ----------
        result : LearningRateRangeResult

        name : str, default=None
            For the legend.

        ax : matplotlib.axes.Axes, default=None
            To draw on, by default new ones.

        **kwargs
            For the line of the losses, as of `matplotlib.axes.Axes.plot`.

        Returns
        -------
        display : LearningRateRangeDisplay
        """
        display = cls(
            learning_rates=result.learning_rates,
            losses=result.losses,
            best_learning_rate=result.best_learning_rate,
            estimator_name=name,
        )
        return display.plot(ax, **kwargs)

    def plot(self, ax=None, *, name=None, **kwargs):
        """Draw.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, default=None
            To draw on, by default new ones.

        name : str, default=None
            For the legend, by default `estimator_name`.

        **kwargs
            For the line of the losses, as of `matplotlib.axes.Axes.plot`.

        Returns
        -------
        display : LearningRateRangeDisplay
            Itself.

        Raises
        ------
        ImportError
            matplotlib is not installed.
        """
        ax = axes_for(self, ax, figsize=(6.4, 4.0))
        rates, losses = np.asarray(self.learning_rates), np.asarray(self.losses, dtype=np.float64)
        bottom, top = _limits(losses)
        is_shown = losses <= top
        name = self.estimator_name if name is None else name
        style = {"marker": "o", "markersize": 4, "label": "loss" if name is None else name} | kwargs
        (self.line_,) = ax.plot(rates, np.where(is_shown, losses, np.nan), **style)
        self.diverged_ = self.best_line_ = None
        ax.set_xscale("log")
        ax.set_xlim(rates[0] / 1.3, rates[-1] * 1.3)
        ax.set_ylim(bottom, top)
        if not is_shown.all():
            (self.diverged_,) = ax.plot(
                rates[~is_shown],
                np.full((~is_shown).sum(), 0.97),
                linestyle="none",
                marker="x",
                color=self.line_.get_color(),
                label="diverged, or far off",
                transform=ax.get_xaxis_transform(),
            )
        if self.best_learning_rate is not None and np.isfinite(self.best_learning_rate):
            label = f"suggested: {self.best_learning_rate:.2g}"
            self.best_line_ = ax.axvline(self.best_learning_rate, color="black", linestyle="--", linewidth=1, label=label)
        ax.set_xlabel("learning rate")
        ax.set_ylabel("training loss")
        ax.legend()
        self.ax_, self.figure_ = ax, ax.figure
        return self


def _limits(losses):
    """The lower and the upper edge: near the largest rates losses may be anything."""
    is_finite = np.isfinite(losses)
    if not is_finite.any():
        return 0.0, 1.0
    best = int(np.argmin(np.where(is_finite, losses, np.inf)))
    up_to_best = losses[: best + 1][is_finite[: best + 1]]
    least, worst = losses[best], up_to_best.max()
    if worst == least:
        worst = np.median(losses[is_finite])
    height = worst - least or abs(least) or 1.0
    return least - 0.08 * height, worst + _HEADROOM * height
