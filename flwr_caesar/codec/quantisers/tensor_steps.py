"""Which tensors need another step than the rest, and how many bits a small model gets.

Equal steps give all tensors together the least squared error for their bits, and a
tensor whose values are far below the common step nothing at all: error feedback would
have to wait for ever. So a tensor has a step of its own where its scale is far from
that of the others, and only there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..contract.energy import energy
from ..contract.layout import Array

FINE_BITS = 6
_FREE = (8.0, 1 << 14), (4.0, 3 << 13)


def root_mean_square(x: Array) -> float:
    """Return ``sqrt(mean(x^2))``, computed in float64; 0 if there is no element."""
    if not x.size:
        return 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        return math.sqrt(energy(x) / x.size)


def offsets(scales: Sequence[float], sizes: Sequence[int]) -> tuple[float, list[int]]:
    """Return a scale for tensors, and by how many octaves each one's is off.

    Tensors whose scale is at least a quarter of that of all together (the root mean
    square of all elements) are a group, of the others those at least a quarter of
    theirs, and so on. The group of most elements has the offset 0.

    Parameters
    ----------
    scales : sequence of float
        Root mean squares, positive.
    sizes : sequence of int
        Elements.

    Returns
    -------
    tuple of float and list of int
        The scale of the group with the offset 0, and for each tensor the power of two
        nearest to the scale of its group over that.
    """
    rest = list(range(len(scales)))
    groups: list[tuple[int, float, list[int]]] = []
    while rest:
        scale = _of(rest, scales, sizes)
        members = [i for i in rest if 4 * scales[i] >= scale]
        rest = [i for i in rest if 4 * scales[i] < scale]
        own = _of(members, scales, sizes)
        groups.append((sum(sizes[i] for i in members), own, members))
    _, reference, _ = max(groups, key=lambda group: group[0])
    found = [0] * len(scales)
    for _, own, members in groups:
        for i in members:
            found[i] = round(math.log2(own / reference))
    return reference, found


def _of(members: Sequence[int], scales: Sequence[float], sizes: Sequence[int]) -> float:
    return together([scales[i] for i in members], [sizes[i] for i in members])


def together(scales: Sequence[float], sizes: Sequence[int]) -> float:
    """Return the root mean square of tensors together, of theirs and their elements."""
    total = math.fsum(n * scale**2 for scale, n in zip(scales, sizes, strict=True))
    return math.sqrt(total / sum(sizes))


def generous_rate(rate: float, n: int) -> float:
    """Return the bits an element for `n` elements: more than `rate` for a few.

    A message costs some kilobytes whatever is in it: records, names, headers, those of
    the transport. So two kilobytes of elements are free up to a byte for each, with
    which nothing is lost that matters, and three up to half a byte:
    ``max(rate, min(8, 16384 / n), min(4, 24576 / n))``.
    """
    n = max(n, 1)
    return max(rate, *(min(bits, free / n) for bits, free in _FREE))
