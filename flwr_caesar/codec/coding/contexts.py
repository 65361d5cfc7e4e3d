"""Contexts of quantiser indices: separable scales and last round's magnitudes.

A tensor is seen as (output channel, input channel, position). The expected magnitude
of an index is ``2^(L/4)`` with ``L`` the sum of one integer for the tensor and one for
each channel and position; these are sent, so the decoder rebuilds every context with
integer additions before it reads the first index.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from flwr_caesar.frozen import frozen

from ..contract.errors import CodecError
from ..contract.layout import Array
from ..contract.vector import Vector
from ..kernel import compiled, contiguous
from .blocks import Index3, Shape3, tensor_blocks
from .counts import count_symbols, entropy_bits
from .integers import count_raw_bits, to_symbols
from .slices import Slices

CLASSES = 96
HISTORIES = 3
_LOWEST = -32
MAX_SCALE = 255
_MIN_SLICE = 48
_NEAR, _FAR = -2, 4
_BITS_PER_CODE = 4
_SHRINK = 0.5
_UNITS = (50, 4), (200, 2)
_ALL = slice(None), slice(None), slice(None)
_HEAD = struct.Struct("<BBBB")
_SUMMED = np.float32, np.int32
_NO_SCALES = np.empty(0, np.int16)

Classes = np.ndarray[Any, np.dtype[np.uint8]]
Scales = np.ndarray[Any, np.dtype[np.int16]]


def as_channels(shape: Sequence[int]) -> Shape3:
    """Return the shape as (output channels, input channels, positions).

    The first two axes are channels and the others positions; a vector is all
    positions.
    """
    if len(shape) < 2:
        return 1, 1, math.prod(shape)
    return shape[0], shape[1], math.prod(shape[2:])


def scale_axes(shape: Shape3) -> list[int]:
    """Return the axes that have scales: longer than 1, 48 elements or more a slice."""
    size = math.prod(shape)
    return [
        axis
        for axis, length in enumerate(shape)
        if length > 1 and size >= _MIN_SLICE * length
    ]


def count_scales(shape: Shape3) -> int:
    """Return how many scales a tensor has: one, and one a slice of each axis."""
    return 1 + sum(shape[axis] for axis in scale_axes(shape))


def scale_kinds(shape: Shape3) -> Classes:
    """Return what each scale belongs to: 0 the tensor, 1 to 3 the axes."""
    kinds = [np.zeros(1, np.uint8)]
    kinds += [np.full(shape[axis], axis + 1, np.uint8) for axis in scale_axes(shape)]
    return np.concatenate(kinds)


def fit_scales(residual: Vector, step: np.float32) -> Scales:
    """Fit scales to a residual, in quarters of an octave.

    The scale of a slice is its mean magnitude over the tensor's.

    Parameters
    ----------
    residual : ndarray of float32, shape (outputs, inputs, positions)
        What is quantised.
    step : float32
        Quantiser step.

    Returns
    -------
    ndarray of int16, shape (count_scales(shape),)
        The tensor's scale, then those of each axis in order.
    """
    shape = residual.shape[0], residual.shape[1], residual.shape[2]
    sums = SliceSums(shape)
    for at, _ in tensor_blocks(shape):
        sums.add(at, residual[at])
    return sums.scales(step)


class SliceSums:
    """Magnitudes of a residual, summed over slices and collected piece by piece.

    Parameters
    ----------
    shape : tuple of int
        (outputs, inputs, positions) of the tensor.
    """

    def __init__(self, shape: Shape3) -> None:
        self._size = max(math.prod(shape), 1)
        self._total = 0.0
        self._axes = {axis: np.zeros(shape[axis]) for axis in scale_axes(shape)}

    def set(self, sums: Array) -> None:
        """Take the sum of all magnitudes, and those of the slices of each axis."""
        self._total = float(sums[0])
        start = 1
        for axis, own in self._axes.items():
            self._axes[axis] = sums[start : start + len(own)]
            start += len(own)

    def add(self, at: Index3, residual: Array) -> None:
        """Add the piece of the residual, or of integers, that stands at an index."""
        slices = _slice_sums(residual)
        self._total += float(slices[0].sum())
        for axis, sums in self._axes.items():
            sums[at[axis]] += slices[axis]

    def scales(self, step: np.float32) -> Scales:
        """Return what `fit_scales` does for the whole residual."""
        mean = self._total / self._size
        parts = [np.array([mean / float(step)])]
        for sums in self._axes.values():
            slices = sums * (len(sums) / self._size)
            parts.append(slices / mean if mean else np.ones_like(slices))
        return _quarters(np.concatenate(parts))

    def slices(self) -> Slices:
        """Return what each scale is of, in the order of the scales."""
        sums = [np.array([self._total]), *self._axes.values()]
        sizes = [np.full(len(each), self._size / len(each)) for each in sums]
        together = np.concatenate(sums)
        none = np.zeros(len(together), np.int64)
        mean = np.array([self._total / self._size])
        return Slices(together, np.concatenate(sizes), none, mean)

    def coarse_scales(self, active: int) -> tuple[Scales, list[int]]:
        """Return the scales of integers, of which few are not 0, in few bits.

        A slice of `k` integers that are not 0 tells its scale to about
        ``1 / sqrt(k)``, and what is finer costs more bits than it saves: scales are
        whole octaves for fewer than 50 a slice, half octaves for fewer than 200. They
        are shrunk towards the tensor's by half a unit, without which a slice of zeros
        would be infinitely far from it.

        Parameters
        ----------
        active : int
            How many of all integers are not 0.

        Returns
        -------
        tuple of ndarray and list of int
            The scales, and for each axis that has some the quarters of an octave that
            they are multiples of.
        """
        scales = [_quarters(np.array([self._total / self._size]))]
        units = [_unit(active / len(sums)) for sums in self._axes.values()]
        for sums, unit in zip(self._axes.values(), units, strict=True):
            expected = self._total / len(sums)
            ratios = (sums + _SHRINK) / (expected + _SHRINK)
            scales.append(unit * _quarters(ratios, unit))
        return np.concatenate(scales), units


def _unit(active: float) -> int:
    """Return the quarters of an octave that scales are multiples of."""
    return next((unit for least, unit in _UNITS if active < least), 1)


def _quarters(ratios: Array, unit: int = 1) -> Scales:
    """Return ratios in so many quarters of an octave."""
    logs = np.log2(np.maximum(ratios, 2.0**-16))
    quarters = np.rint(4 * logs / unit)
    scales: Scales = np.minimum(np.maximum(quarters, -64), 127).astype(np.int16)
    return scales


def _slice_sums(residual: Array) -> tuple[Array, Array, Array]:
    """Return the sums of ``|residual|`` over the slices of each axis.

    Integers become float32 first.
    """
    residual = contiguous(residual)  # additions have an order
    native = compiled()
    if native is not None and residual.size and residual.dtype in _SUMMED:
        outputs, inputs, positions = map(np.empty, residual.shape)
        native.sums(residual, outputs, inputs, positions)
        return outputs, inputs, positions
    if residual.dtype == np.int32:
        residual = residual.astype(np.float32)
    magnitude = np.abs(residual).astype(np.float64)
    inner = magnitude.sum(axis=0)
    return magnitude.sum(axis=(1, 2)), inner.sum(axis=1), inner.sum(axis=0)


def check_scales(scales: Array) -> Scales:
    """Return decoded scales as int16.

    Raises
    ------
    CodecError
        If one is outside -255 to 255.
    """
    if len(scales) and int(np.abs(scales).max()) > MAX_SCALE:
        raise CodecError("a scale is out of range")
    return scales.astype(np.int16)


def scale_classes(scales: Scales, shape: Shape3, at: Index3 = _ALL) -> Classes:
    """Return ``min(max(L + 32, 0), 95)`` of each element of the tensor, or of a part.

    Parameters
    ----------
    scales : ndarray of int16, shape (count_scales(shape),)
        From `fit_scales`.
    shape : tuple of int
        (outputs, inputs, positions) of the tensor.
    at : tuple of slice
        The part.
    """
    base = scales[0] - np.int16(_LOWEST)
    parts = {}
    start = 1
    for axis in scale_axes(shape):
        parts[axis] = scales[start : start + shape[axis]][at[axis]]
        start += shape[axis]
    sizes = [len(range(*index.indices(n))) for index, n in zip(at, shape, strict=True)]
    if (native := compiled()) is not None and all(sizes):
        found = np.empty(sizes, np.uint8)
        own = [parts.get(axis, _NO_SCALES) for axis in range(3)]
        first, second, third = (contiguous(part, np.int16) for part in own)
        native.classes(
            int(base), first, second, third, sizes[0], sizes[1], sizes[2], found
        )
        return found
    total = np.full((1, 1, 1), base, np.int16)
    for axis, part in parts.items():
        total = total + np.expand_dims(part, [i for i in range(3) if i != axis])
    classes: Classes = np.clip(total, 0, CLASSES - 1).astype(np.uint8)
    return np.broadcast_to(classes, sizes)


def history_classes(previous: Vector, step: np.float32, classes: Classes) -> Classes:
    """Compare last round's magnitudes with what the scale expects of this round's.

    With ``a = |previous| / step`` in float32, ``h = (bits(a) >> 21) - 508`` is its
    logarithm in quarter octaves; the class is 0 if ``h - L < -2``, 2 if ``h - L >= 4``,
    else 1, with `L` as clipped by `scale_classes`.

    Parameters
    ----------
    previous : ndarray of float32
        Reconstruction of the last round.
    step : float32
        Quantiser step of this round.
    classes : ndarray of uint8, same shape
        From `scale_classes`.
    """
    relative = np.abs(previous)
    with np.errstate(over="ignore"):
        relative /= step
    log = (relative.view(np.int32) >> 21).astype(np.int16)
    log -= classes
    log -= np.int16(508 + _LOWEST)
    return (log >= _NEAR).astype(np.uint8) + (log >= _FAR)


def element_classes(
    scales: Scales, shape: Shape3, previous: Vector | None, step: np.float32
) -> Iterator[tuple[slice, Classes, Classes | None]]:
    """Yield a tensor's scale and history classes, piece by piece.

    Parameters
    ----------
    scales : ndarray of int16, shape (count_scales(shape),)
        From `fit_scales`.
    shape : tuple of int
        (outputs, inputs, positions).
    previous : ndarray of float32, shape `shape`, optional
        Reconstruction of the last round; without it there are no history classes.
    step : float32
        Quantiser step of this round.

    Yields
    ------
    slice, ndarray of uint8, ndarray of uint8 or None
        Elements in C order, and their two classes.
    """
    for at, flat in tensor_blocks(shape):
        classes = scale_classes(scales, shape, at)
        seen = None
        if previous is not None:
            seen = history_classes(previous[at], step, classes).reshape(-1)
        yield flat, classes.reshape(-1), seen


@frozen
class ContextMap:
    """How scale and history classes are merged into contexts.

    A context is ``(class >> shift) - first``, clipped to ``[0, width)``, plus `width`
    times the history class if `use_history`.
    """

    shift: int
    first: int
    width: int
    use_history: bool

    @property
    def size(self) -> int:
        """Number of contexts."""
        return self.width * (HISTORIES if self.use_history else 1)

    def contexts(self, classes: Classes, histories: Classes | None) -> Classes:
        """Return the context of each element."""
        index = self._merged(classes)
        if self.use_history and histories is not None:
            index += histories * np.uint8(self.width)
        return index

    def _merged(self, classes: Classes) -> Classes:
        last = self.first + self.width - 1
        if (native := compiled()) is not None:
            merged = np.empty(classes.shape, np.uint8)
            kept = contiguous(classes)
            native.merge(kept, self.shift, self.first, last, merged)
            return merged
        index: Classes = np.clip(classes >> self.shift, self.first, last)
        index -= np.uint8(self.first)
        return index

    def to_bytes(self) -> bytes:
        """Serialise: shift, first, width, use_history, a byte each."""
        return _HEAD.pack(self.shift, self.first, self.width, self.use_history)

    @classmethod
    def from_bytes(cls, data: bytes) -> tuple[ContextMap, bytes]:
        """Parse a map; return it and the bytes behind it.

        Raises
        ------
        CodecError
            If the bytes are no map of 1 to 256 contexts.
        """
        if len(data) < _HEAD.size:
            raise CodecError("context map is truncated")
        shift, first, width, use_history = _HEAD.unpack_from(data)
        found = cls(shift, first, width, use_history == 1)
        if shift > 7 or use_history > 1:
            raise CodecError("context map is malformed")
        found.check()
        return found, data[_HEAD.size :]

    def check(self) -> None:
        """Refuse a map that is none of 1 to 256 contexts.

        Raises
        ------
        CodecError
            If it is not.
        """
        if not 1 <= self.size <= 256 or self.first + self.width > CLASSES:
            raise CodecError("context map is malformed")


def context_bits(indices: Array, classes: Classes) -> float:
    """Return about how many bits indices take given half-octave scale classes."""
    counts = count_symbols(
        to_symbols(indices.reshape(-1)), classes.reshape(-1) >> 1, CLASSES // 2
    )
    return counted_bits(counts)


def counted_bits(counts: Array) -> float:
    """Return about how many bits symbols take that occur so often in each class."""
    codes = _BITS_PER_CODE * float(np.count_nonzero(counts))
    return entropy_bits(counts) + codes + count_raw_bits(counts.sum(axis=0))
