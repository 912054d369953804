"""The picture of a comparison of techniques."""

import numpy as np

from skdnn.displays._axes import axes_for
from skdnn.model_selection import technique_effects

# The scale is linear near 0 and logarithmic beyond where the largest difference is this many times the median one.
_WIDE = 20.0

# Dots of a row are spread by multiples of the golden ratio: evenly, without chance.
_GOLDEN = (5**0.5 - 1) / 2


class TechniqueComparisonDisplay:
    """Effects of the values of hyperparameters, with intervals, as `skdnn.model_selection.technique_effects` finds them.

    A row is a value, a block a hyperparameter. The black point and its line are effect and confidence interval; a dot is the
    difference that the value makes in one setting of all other hyperparameters. A ring is what a block is compared with.

    Parameters
    ----------
    effects : TechniqueEffects

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
    figure_ : matplotlib.figure.Figure
    intervals_ : dict of (str, str) to matplotlib.container.ErrorbarContainer
        By hyperparameter and value, without the references.
    dots_ : dict of (str, str) to matplotlib.collections.PathCollection
        Likewise.

    See Also
    --------
    skdnn.model_selection.technique_effects : The figures.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skdnn import MLPDeepClassifier
    >>> from skdnn.displays import TechniqueComparisonDisplay
    >>> from skdnn.model_selection import VectorizedGridSearchCV
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = MLPDeepClassifier((10,), max_iter=5, n_iter_no_change=5, random_state=0)
    >>> search = VectorizedGridSearchCV(clf, {"activation": ["relu", "elu"], "batch_norm": [False, True]}).fit(X, y)
    >>> display = TechniqueComparisonDisplay.from_search(search)
    >>> [label.get_text() for label in display.ax_.get_yticklabels()]
    ['relu', 'elu', 'False', 'True']
    """

    def __init__(self, *, effects):
        self.effects = effects

    @classmethod
    def from_search(
        cls, search, *, metric=None, score_type="test", confidence=0.95, together=(), references=None, ax=None, **kwargs
    ):
        """Find the effects and draw them.

        Parameters
        ----------
        search, metric, score_type, confidence, together, references
            As of `skdnn.model_selection.technique_effects`.

        ax : matplotlib.axes.Axes, default=None
            To draw on, by default new ones.

        **kwargs
            As of `plot`.

        Returns
        -------
        display : TechniqueComparisonDisplay
        """
        effects = technique_effects(
            search, metric=metric, score_type=score_type, confidence=confidence, together=together, references=references
        )
        return cls(effects=effects).plot(ax, **kwargs)

    def plot(self, ax=None, *, xscale="auto"):
        """Draw.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, default=None
            To draw on, by default new ones.

        xscale : {"auto", "linear", "symlog"}, default="auto"
            "symlog" is linear around 0 and logarithmic beyond, "auto" chooses it where effects are of very different size.

        Returns
        -------
        display : TechniqueComparisonDisplay
            Itself.

        Raises
        ------
        ImportError
            matplotlib is not installed.
        """
        effects = self.effects
        n_rows = len(effects) + len(effects.parameters)
        ax = axes_for(self, ax, figsize=(8.0, 1.3 + 0.27 * n_rows))
        self.intervals_, self.dots_ = {}, {}
        short, ticks, labels, row = _short_names(effects.parameters), [], [], 0.0
        text = {"fontsize": 9, "va": "center", "transform": ax.get_yaxis_transform()}
        for parameter in effects.parameters:
            ax.text(0.01, row, short[parameter], weight="bold", **text)
            for effect in effects.of(parameter):
                row += 1.0
                ticks.append(row)
                labels.append(effect.value)
                self._draw_row(ax, row, effect)
                if not effect.is_reference:
                    ax.text(1.01, row, _in_words(effect), **text)
            row += 1.0
        ax.set_yticks(ticks, labels, fontsize=9)
        ax.tick_params(axis="y", length=0)
        ax.set_ylim(row - 0.4, -0.6)
        ax.axvline(0.0, color="0.6", linewidth=1, zorder=0)
        ax.grid(axis="x", color="0.92")
        ax.set_axisbelow(True)
        ax.spines[["top", "right", "left"]].set_visible(False)
        _scale(ax, effects, xscale)
        ax.set_xlabel(
            f"difference of {effects.metric} to the value with a ring, all else equal\n"
            f"black: mean and {effects.confidence:.0%} interval; dots: settings of the others"
        )
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _draw_row(self, ax, row, effect):
        """Draw the ring of a reference, or interval and dots."""
        if effect.is_reference:
            ax.plot([0.0], [row], marker="o", markersize=6, color="black", markerfacecolor="white", linestyle="none")
            return
        key = effect.parameter, effect.value
        differences = np.asarray(effect.differences).mean(1) if effect.n_pairs else np.empty(0)
        offsets = np.arange(len(differences)) * _GOLDEN % 1.0 - 0.5
        self.dots_[key] = ax.scatter(differences, row + 0.5 * offsets, s=12, alpha=0.35, color="C0", linewidths=0)
        half = effect.high - effect.effect
        self.intervals_[key] = ax.errorbar(
            effect.effect, row, xerr=half if np.isfinite(half) else None, fmt="o", color="black", markersize=5, capsize=3
        )


def _in_words(effect):
    """What stands at the end of a row."""
    if not effect.n_pairs:
        return "no pairs"
    return f"{effect.effect:+.3g}, better in {effect.n_better} of {effect.n_pairs}"


def _short_names(parameters):
    """Names without what all of them begin with: the step of a pipeline."""
    parts = [name for parameter in parameters for name in parameter.split(", ")]
    prefixes = {name.rpartition("__")[0].split("__")[0] for name in parts}
    prefix = f"{next(iter(prefixes))}__" if len(prefixes) == 1 and prefixes != {""} else ""
    return {parameter: ", ".join(name.removeprefix(prefix) for name in parameter.split(", ")) for parameter in parameters}


def _scale(ax, effects, xscale):
    """Set the scale, for effects that may be of very different size."""
    if xscale not in ("auto", "linear", "symlog"):
        raise ValueError(f"xscale must be 'auto', 'linear' or 'symlog'. Got {xscale!r} instead.")
    shown = [effect for effect in effects if effect.n_pairs and not effect.is_reference]
    differences = np.concatenate([np.asarray(effect.differences).mean(1) for effect in shown] or [np.zeros(0)])
    sizes = np.abs(differences[differences != 0.0])
    if not sizes.size or xscale == "linear" or (xscale == "auto" and sizes.max() <= _WIDE * np.median(sizes)):
        return
    threshold = 10.0 ** np.round(np.log10(np.median(sizes)))
    ends = np.nan_to_num([end for effect in shown for end in (effect.low, effect.high)])
    low, high = min(0.0, differences.min(), ends.min()), max(0.0, differences.max(), ends.max())
    powers = threshold * 10.0 ** np.arange(np.ceil(np.log10(max(-low, high) / threshold)) + 1)
    ax.set_xscale("symlog", linthresh=threshold)
    ax.set_xticks([*-powers[::-1], 0.0, *powers])
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:+g}" if value else "0")
    ax.minorticks_off()
    ax.set_xlim(1.3 * low - 0.5 * threshold, 1.3 * high + 0.5 * threshold)
