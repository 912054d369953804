"""Networks in lockstep that are alike and lie side by side."""

from itertools import groupby

from skdnn.components._component import stack


def runs_of(values):
    """Cut a sequence where neighbours differ.

    Parameters
    ----------
    values : sequence
        One a network.

    Returns
    -------
    runs : list of slice

    Examples
    --------
    >>> runs_of("aab")
    [slice(0, 2, None), slice(2, 3, None)]
    """
    runs, start = [], 0
    for _, group in groupby(values):
        end = start + len(list(group))
        runs.append(slice(start, end))
        start = end
    return runs


def stacked_runs(components, n_axes, like):
    """Stack the components of neighbours of one form; networks without a component are left out.

    Parameters
    ----------
    components : sequence of Component or None
        One a network.
    n_axes : int
        Of what the components work on, without the axis of the networks.
    like : Tensor
        Of the dtype and device of numbers that differ.

    Returns
    -------
    stacks : list of (slice, Component)
    """

    def expand(values):
        return values.to(like).view(-1, *[1] * n_axes)

    runs = runs_of([None if component is None else component.form for component in components])
    return [(run, stack(components[run], expand)) for run in runs if components[run.start] is not None]


def part_of(tensor, run, n_networks):
    """Return the part of some networks in a tensor, which has an axis for them only where there are several."""
    return tensor if n_networks == 1 else tensor[run]
