"""Results as figures."""

import statistics

import numpy as np
from matplotlib import pyplot as plt

from benchmarks.measure import ratios
from benchmarks.scaling import LABELS
from benchmarks.tables import OURS

_COLORS = {
    "skdnn": "#0b6e4f",
    "MLPClassifier": "#f29e4c",
    "PyTorch expert": "#d1495b",
    "PyTorch DataLoader": "#edae49",
    "skorch": "#8d6b94",
    "JAX scan": "#3d6fb6",
}
_OTHERS = "#b8b8b8"


def _save(figure, path):
    figure.savefig(path, dpi=90, bbox_inches="tight")
    plt.close(figure)
    return path


def draw_fits(fits, folder):
    """Draw how many times as long as skdnn each contestant takes, a group of bars a workload."""
    names = [name for name in _COLORS if name != OURS and any(name in result["contestants"] for result in fits.values())]
    height = 0.8 / max(1, len(names))
    figure, ax = plt.subplots(figsize=(8, 0.6 + 0.62 * len(fits)), layout="constrained")
    for i, name in enumerate(names):
        for row, result in enumerate(fits.values()):
            if name in (runs := result["contestants"]):
                ratio = ratios(runs[name]["seconds"], runs[OURS]["seconds"])
                error = [[ratio["median"] - ratio["min"]], [ratio["max"] - ratio["median"]]]
                y = row + (i - (len(names) - 1) / 2) * height
                label = name if not ax.get_legend_handles_labels()[1].count(name) else None
                ax.barh(y, ratio["median"], height, color=_COLORS[name], xerr=error, label=label, error_kw={"lw": 0.8})
    ax.axvline(1, color=_COLORS[OURS], lw=2, label=OURS)
    ax.set(xscale="log", xlabel="fit time, times that of skdnn (median and range of the rounds)")
    low, high = ax.get_xlim()
    ticks = [tick for tick in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if low <= tick <= high]
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
    ax.set_yticks(range(len(fits)), fits)
    ax.invert_yaxis()
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return _save(figure, folder / "fits.png")


def draw_limits(fits, folder):
    """Draw what share of the matrix rate the fits reach."""
    names = [OURS, "PyTorch expert", "JAX scan"]
    figure, ax = plt.subplots(figsize=(8, 0.6 + 0.4 * len(fits)), layout="constrained")
    for i, name in enumerate(names):
        found = [(row, r) for row, r in enumerate(fits.values()) if name in r["contestants"]]
        shares = [r["limit"]["seconds"] / statistics.median(r["contestants"][name]["seconds"]) for _, r in found]
        ax.barh([row + (i - 1) * 0.26 for row, _ in found], shares, 0.26, color=_COLORS[name], label=name)
    ax.axvline(1, color="black", lw=0.8)
    ax.set_xlabel("share of the matrix rate measured in the same run")
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    ax.set_yticks(range(len(fits)), fits)
    ax.invert_yaxis()
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return _save(figure, folder / "limits.png")


def draw_searches(results, folder):
    """Draw what a candidate and fold takes, a panel a search."""
    n_bars = [len(result["contestants"]) for result in results.values()]
    layout = {"height_ratios": [n + 1 for n in n_bars]}
    size = 8, 0.4 * sum(n_bars) + 0.9 * len(n_bars)
    figure, axes = plt.subplots(len(n_bars), 1, figsize=size, gridspec_kw=layout, layout="constrained")
    for ax, (name, result) in zip(np.atleast_1d(axes), results.items(), strict=True):
        n_fits = result["n_candidates"] * result["n_folds"]
        seconds = [np.array(run["seconds"]) / n_fits * 1e3 for run in result["contestants"].values()]
        medians = np.array([np.median(s) for s in seconds])
        error = [medians - [s.min() for s in seconds], [s.max() for s in seconds] - medians]
        colors = [_COLORS[OURS], *[_OTHERS] * (len(seconds) - 1)]
        bars = ax.barh(list(result["contestants"]), medians, color=colors, xerr=error, error_kw={"lw": 0.8})
        ax.bar_label(bars, [f"{median:.3g} ms" for median in medians], padding=6)
        ax.set_title(name, loc="left", fontsize=10)
        ax.margins(x=0.15)
        ax.invert_yaxis()
    ax.set_xlabel("a candidate and fold, ms (median and range of the rounds)")
    return _save(figure, folder / "searches.png")


def draw_scaling(results, folder):
    """Draw how the cost grows, log-log, a panel an axis."""
    figure, axes = plt.subplots(1, len(results), figsize=(3.4 * len(results), 3.4), sharey=True, layout="constrained")
    for ax, (axis, result) in zip(np.atleast_1d(axes), results.items(), strict=True):
        for name in (name for name in result if name != "values"):
            seconds = np.array(result[name]) * 1e3
            ax.plot(result["values"], np.median(seconds, 1), "o-", ms=3.5, color=_COLORS[name], label=name)
            ax.fill_between(result["values"], seconds.min(1), seconds.max(1), color=_COLORS[name], alpha=0.2, lw=0)
        ax.set(xscale="log", yscale="log", xlabel=LABELS[axis])
        ax.set_xticks(result["values"], [f"{v:,}" for v in result["values"]], rotation=60, fontsize=8)
        ax.tick_params("x", which="minor", bottom=False)
        ax.yaxis.set_major_formatter("{x:g}")
        ax.grid(alpha=0.3)
    np.atleast_1d(axes)[0].set_ylabel("an epoch and a fit's fixed cost, ms")
    np.atleast_1d(axes)[0].legend(frameon=False)
    return _save(figure, folder / "scaling.png")
