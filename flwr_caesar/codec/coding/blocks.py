"""Long arrays in pieces, so that what is computed on the way stays small."""

from __future__ import annotations

import math
from collections.abc import Iterator

BLOCK = 1 << 16

Shape3 = tuple[int, int, int]
Index3 = tuple[slice, slice, slice]


def blocks(n: int, size: int = BLOCK) -> Iterator[slice]:
    """Yield consecutive slices of `size` elements, the last one shorter, up to `n`."""
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))


def long_axis(shape: Shape3) -> int:
    """Return the first axis that is longer than 1, or 0."""
    return next((axis for axis in range(3) if shape[axis] > 1), 0)


def tensor_blocks(shape: Shape3) -> Iterator[tuple[Index3, slice]]:
    """Yield pieces of about `BLOCK` elements, or one step along the first long axis.

    Yields
    ------
    tuple of slices, and slice
        The piece as an index of the tensor, and as the elements that it is in C order.
    """
    axis = long_axis(shape)
    inner = math.prod(shape[axis + 1 :])
    for part in blocks(shape[axis], max(BLOCK // max(inner, 1), 1)):
        yield along(axis, part), slice(part.start * inner, part.stop * inner)


def along(axis: int, part: slice) -> Index3:
    """Return an index that takes `part` of one axis and all of the others."""
    a, b, c = (part if i == axis else slice(None) for i in range(3))
    return a, b, c
