"""Operations of a program, what memory they touch, and how they are put together."""

from typing import NamedTuple

# Operands and numbers of an operation; fewer are followed by these.
N_OPERANDS, N_NUMBERS = 10, 5
NOWHERE = (0, 0, 0, 0)

# The address of an operand that is nowhere but in scratch memory: the result of a product that is followed.
SCRATCH = 1

# A product is followed rows by rows if it has at least so many numbers (fewer stay in the nearest cache anyway), and its right
# factor, which is read again for each block of rows, at most so many (which stay in the second one).
_LEAST_FOLLOWED = 2**14
_MOST_READ_AGAIN = 2**17


class Operation(NamedTuple):
    """One kernel's call, as in native/program.h.

    Attributes
    ----------
    code : str
    rows, cols, depth : int
    places : tuple of (int, int, int, int)
        Of each operand: its address in the first batch, how many bytes further on it is in the next one, and its strides along
        rows and columns. What is written comes first; an operand that is left out is at 0.
    numbers, variables : tuple
        Constants, and for each which of the step's numbers it is instead.
    """

    code: str
    rows: int
    cols: int
    depth: int
    places: tuple
    numbers: tuple
    variables: tuple


# Operands that are written, by code, and shapes of operands, where these are not the first one and all of one shape.
_WRITTEN = {"softmax": {0, 2}, "adam": {0, 1, 2, 3}, "batch_norm": {0, 4, 5, 6, 7}, "batch_norm_backward": {0, 1, 2}}
_SHAPES = {
    "product": lambda rows, cols, depth: ((rows, cols), (rows, depth), (depth, cols), (1, cols)),
    "column_sums": lambda rows, cols, depth: ((1, cols), (rows, cols), (1, rows)),
    "row_norms": lambda rows, cols, depth: ((1, rows), (rows, cols)),
    "column_norms": lambda rows, cols, depth: ((1, cols), (rows, cols)),
    "total": lambda rows, cols, depth: ((1, 1), (1, cols)),
}


class Extent(NamedTuple):
    """Addresses that an operand covers in the first batch."""

    place: tuple
    is_written: bool
    begin: int
    end: int


def extents_of(operation, itemsize):
    """Return an `Extent` for each operand of an operation."""
    code, rows, cols, depth, places, _, _ = operation
    written = _WRITTEN.get(code, (0,))
    shapes = _SHAPES[code](rows, cols, depth) if code in _SHAPES else ((rows, cols),) * len(places)
    return [
        Extent(place, k in written, place[0], place[0] + itemsize * ((n_rows - 1) * place[2] + (n_cols - 1) * place[3] + 1))
        for k, (place, (n_rows, n_cols)) in enumerate(zip(places, shapes, strict=False))
        if place[0] > SCRATCH
    ]


def _overlap(one, other):
    return one.begin < other.end and other.begin < one.end


def join_softmaxes(operations, itemsize):
    """Let what makes a softmax make its logarithm, too, where that is asked for later: most of the work is the same.

    Parameters
    ----------
    operations : list of Operation
    itemsize : int
        Bytes of a number.

    Returns
    -------
    operations : list of Operation
    """
    joined, last = [], None
    for one in operations:
        first = None if last is None else joined[last]
        if one.code == "softmax":
            last = len(joined)
        elif one.code == "log_softmax" and first is not None and (first[1:3], first.places[1]) == (one[1:3], one.places[1]):
            result, source = extents_of(one, itemsize)
            between = [extent for other in joined[last + 1 :] for extent in extents_of(other, itemsize)]
            if _are_apart([source], between) and _are_apart([result], [*between, *extents_of(first, itemsize)]):
                joined[last] = first._replace(places=(*first.places[:2], result.place, *first.places[3:]))
                last = None
                continue
        joined.append(one)
    return joined


def in_chains(operations, itemsize, is_elementwise, longest):
    """Put operations into groups that are made block by block, a list of lists.

    In a chain are elementwise operations on equally many elements, none of which is shifted against what another writes.

    Parameters
    ----------
    operations : list of Operation
    itemsize : int
        Bytes of a number.
    is_elementwise : callable
        Tells it of a code.
    longest : int
        Operations of a chain at most.
    """
    groups = []
    start = 0
    while start < len(operations):
        end, extents, first = start + 1, None, operations[start]
        while end < len(operations) and end - start < longest and is_elementwise(first.code):
            one = operations[end]
            if not is_elementwise(one.code) or one[1:3] != first[1:3]:
                break
            extents, own = extents or extents_of(first, itemsize), extents_of(one, itemsize)
            if not _are_at_the_same_places(own, extents):
                break
            extents += own
            end += 1
        groups.append(operations[start:end])
        start = end
    return groups


def _are_at_the_same_places(some, others):
    """Whether what one of them writes, and another reads or writes, is at the same place for both, or elsewhere."""
    return all(
        one.place == other.place or not (one.is_written or other.is_written) or not _overlap(one, other)
        for one in some
        for other in others
    )


def follow_products(groups, itemsize, is_elementwise, longest):
    """Let products that are large be followed by what is done with their results, if nothing else needs these.

    Such a product is made some rows at a time, into scratch memory, and what follows it then takes these rows: a gradient is
    never written as a whole, and a kernel is updated while its gradient is made. In a chain, or an update by Adam, over all
    parameters, that is done apart with the part that is the product's.

    Parameters
    ----------
    groups : list of list of Operation
        As `in_chains` returns them.
    itemsize, is_elementwise, longest
        As there; no more operations follow a product than a chain has.

    Returns
    -------
    groups : list of list of Operation
        A product comes first in a group with those that follow it.
    """
    p = 0
    while p < len(groups):
        if _is_worth_following(groups[p][0]):
            groups = _with_followers(groups, p, itemsize, is_elementwise, longest)
        p += 1
    return groups


def _is_worth_following(one):
    is_large = one.code == "product" and one.rows * one.cols >= _LEAST_FOLLOWED
    return is_large and one.depth * one.cols <= _MOST_READ_AGAIN


def _with_followers(groups, p, itemsize, is_elementwise, longest):
    """Return the groups with those that could follow the product that is group `p` behind it, or as they are."""
    (product,) = groups[p]
    result, *passed = extents_of(product, itemsize)
    _, step, row, col = result.place
    if step or row != product.cols or col != 1:
        return groups
    followers, touched, rest = [], [], []
    for k, group in enumerate(groups):
        extents = [extent for one in group for extent in extents_of(one, itemsize)]
        parts = [group]
        if k != p and any(_overlap(one, result) for one in extents):
            # Who reads or writes the result must come later, but not depend on what is between.
            before, own, after = _split(group, result, itemsize, is_elementwise) if k > p else ([], [], [])
            own_extents = [extent for one in own for extent in extents_of(one, itemsize)]
            if not own or not _are_apart(own_extents, passed) or not _are_at_the_same_places(own_extents, touched):
                return groups
            followers += [_in_scratch(one, result) for one in own]
            touched += own_extents
            parts = [part for part in (before, after) if part]
            extents = [extent for part in parts for one in part for extent in extents_of(one, itemsize)]
        if k > p:
            rest += parts
            passed += extents
    if not 0 < len(followers) <= longest:
        return groups
    product = product._replace(places=((SCRATCH, 0, row, col), *product.places[1:]))
    return [*groups[:p], [product, *followers], *rest]


def _are_apart(some, others):
    """Whether nothing that one of them writes overlaps what another reads or writes."""
    return not any((one.is_written or other.is_written) and _overlap(one, other) for one in some for other in others)


def _split(group, result, itemsize, is_elementwise):
    """Split a group on vectors into what it does before the numbers at `result`, with them, and after them.

    Without what it does with them, where it cannot be split so.
    """
    n_all, n_own = group[0].cols, (result.end - result.begin) // itemsize
    starts = {
        (result.begin - extent.begin) // itemsize if extent.place[3] == 1 else -1
        for one in group
        for extent in extents_of(one, itemsize)
        if _overlap(extent, result)
    }
    start = min(starts)
    can_be_split = all(
        (is_elementwise(one.code) or one.code == "adam")
        and one.rows == 1
        and all(not step and col in (0, 1) for _, step, _, col in one.places)
        for one in group
    )
    if not can_be_split or len(starts) > 1 or start < 0 or start + n_own > n_all:
        return [], [], []
    limits = (0, start), (start, start + n_own), (start + n_own, n_all)
    return [[_part(one, begin, end, itemsize) for one in group] if begin < end else [] for begin, end in limits]


def _part(operation, begin, end, itemsize):
    """The operation on some numbers of its vectors."""
    places = tuple((data + begin * col * itemsize if data else 0, step, row, col) for data, step, row, col in operation.places)
    return operation._replace(cols=end - begin, places=places)


def _in_scratch(operation, result):
    """The operation with what was at `result` in scratch memory."""
    places = tuple((SCRATCH, *place[1:]) if place[0] == result.begin else place for place in operation.places)
    return operation._replace(places=places)
