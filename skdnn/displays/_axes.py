"""Axes to draw on."""


def axes_for(display, ax, **kwargs):
    """Return the given axes, or new ones in a figure of their own.

    Parameters
    ----------
    display : object
        That draws.
    ax : matplotlib.axes.Axes or None
    **kwargs
        Of `matplotlib.pyplot.subplots`, for new axes.

    Raises
    ------
    ImportError
        matplotlib is not installed.
    """
    if ax is not None:
        return ax
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            f"{type(display).__name__}.plot needs matplotlib: pip install matplotlib, or install skdnn as skdnn[plot]."
        ) from error
    return plt.subplots(layout="constrained", **kwargs)[1]
