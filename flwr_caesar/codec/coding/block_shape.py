"""What follows from the shapes of a block's tensors alone, kept from block to block."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from flwr_caesar.frozen import frozen

from ..contract.layout import Array, TensorSpec
from .blocks import Shape3
from .contexts import (
    Classes,
    Scales,
    as_channels,
    count_scales,
    scale_axes,
    scale_kinds,
)

_KEPT = 64


@frozen
class BlockShape:
    """Tensors of a block, one after another.

    Parameters
    ----------
    shapes : tuple of tuple of int
        (outputs, inputs, positions) of each tensor.
    parts : tuple of slice
        Where the elements of each are.
    scales : tuple of slice
        Where the scales of each are.
    kinds : ndarray of uint8
        What each scale belongs to (`contexts.scale_kinds`).
    rows : ndarray of int64, shape (tensors, 4)
        What the kernel has of that: the three lengths, and a bit for each axis with
        scales.
    """

    shapes: tuple[Shape3, ...]
    parts: tuple[slice, ...]
    scales: tuple[slice, ...]
    kinds: Classes
    rows: Array

    @classmethod
    def of(cls, specs: Sequence[TensorSpec]) -> BlockShape:
        """Return that of some tensors."""
        return _block_shape(tuple([spec.shape for spec in specs]))

    def split(self, scales: Scales) -> list[Scales]:
        """Return the scales of each tensor."""
        return [scales[part].copy() for part in self.scales]


@lru_cache(_KEPT)
def _block_shape(shapes: tuple[tuple[int, ...], ...]) -> BlockShape:
    seen = tuple(as_channels(shape) for shape in shapes)
    rows = [(*own, sum(1 << axis for axis in scale_axes(own))) for own in seen]
    kinds = np.concatenate([scale_kinds(own) for own in seen])
    table = np.array(rows, np.int64).reshape(-1, 4)
    for array in kinds, table:
        array.flags.writeable = False
    ends = np.cumsum([0, *(own[0] * own[1] * own[2] for own in seen)]).tolist()
    firsts = np.cumsum([0, *map(count_scales, seen)]).tolist()
    return BlockShape(seen, _between(ends), _between(firsts), kinds, table)


def _between(bounds: Sequence[int]) -> tuple[slice, ...]:
    return tuple(map(slice, bounds[:-1], bounds[1:]))
