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

from .layout import Array

FINE_BITS = 6
_FREE = (8.0, 1 << 14), (4.0, 3 << 13)


def root_mean_square(x: Array) -> float:
    """Return ``sqrt(mean(x^2))``, computed in float64; 0 if there is no element."""
    if not x.size:
        return 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        return math.sqrt(float(np.square(x, dtype=np.float64).mean()))


def pooled(scales: Sequence[float], sizes: Sequence[int]) -> float:
    """Return the root mean square of tensors together, of theirs."""
    total = math.fsum(n * scale**2 for scale, n in zip(scales, sizes, strict=True))
    return math.sqrt(total / max(sum(sizes), 1))


def octaves_below(scale: float, reference: float) -> int:
    """Return by how many octaves a tensor's step is finer than that of a reference.

    None where its scale is at most four times below: one step for both is the better
    bargain. All of them where it is further below.

    Parameters
    ----------
    scale, reference : float
        Root mean squares of the tensor and of all; 0 for the tensor gives 0.
    """
    if not 0 < scale < reference / 4:
        return 0
    return round(math.log2(reference / scale))


def generous_rate(rate: float, n: int) -> float:
    """Return the bits an element for `n` elements: more than `rate` for a few.

    A message costs some kilobytes whatever is in it: records, names, headers, those of
    the transport. So two kilobytes of elements are free up to a byte for each, with
    which nothing is lost that matters, and three up to half a byte:
    ``max(rate, min(8, 16384 / n), min(4, 24576 / n))``.
    """
    n = max(n, 1)
    return max(rate, *(min(bits, free / n) for bits, free in _FREE))
