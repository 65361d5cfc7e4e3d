"""Published models on a power-of-two lattice, and exact differences between any two.

``p_t = p_(t-1) + step round((w_t - p_(t-1)) / step)`` with `step` a power of two that
may change at any time: every point is an integer vector on the finest lattice used
so far, a coarser step moves it by multiples of itself, and the difference between two
points is an integer vector whatever happened between them. What is rounded away stays
in ``w - p`` and is published later.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from flwr_caesar.frozen import frozen

from ..coding.blocks import blocks
from ..coding.integers import Integers, compact
from ..coding.lattice_block import decode_block, encode_block, max_block_bytes
from ..contract.errors import CodecError, StateMismatchError
from ..contract.layout import Array, TensorSpec
from ..contract.power import times_power
from ..contract.vector import Vector

MIN_EXPONENT, MAX_EXPONENT = -100, 60
_MAX_INDEX = (1 << 31) - 1
_HEAD = struct.Struct("<hh8s8s")
_NO_BASE = bytes(8)

Indices = np.ndarray[Any, np.dtype[np.int16] | np.dtype[np.int32]]
_Wide = np.ndarray[Any, np.dtype[np.int64]]


@frozen
class LatticePoint:
    """A model as integers: ``indices * 2^exponent``.

    Parameters
    ----------
    indices : ndarray of int16 or int32, shape (n,)
        All lossy tensors, flattened in layout order (`vector.gather`).
    exponent : int
        Of the lattice.
    """

    indices: Indices
    exponent: int

    @cached_property
    def digest(self) -> bytes:
        """Eight bytes, CRC-32 then Adler-32 of the exponent and the indices."""
        head = struct.pack("<h", self.exponent)
        data = np.ascontiguousarray(self.indices, "<i4").view(np.uint8).data
        crc = zlib.crc32(data, zlib.crc32(head))
        return struct.pack("<II", crc, zlib.adler32(data, zlib.adler32(head)))

    def values(self) -> Vector:
        """Return the model as float32; exact below 2^24 steps of the lattice."""
        values = self.indices.astype(np.float32)
        return times_power(values, self.exponent, out=values)

    @property
    def largest(self) -> int:
        """Largest magnitude of an index."""
        return _largest(self.indices)

    def at_exponent(self, exponent: int, part: slice = slice(None)) -> _Wide:
        """Return the indices, or a part of them, on a lattice as fine or finer."""
        if exponent > self.exponent:
            raise CodecError(
                f"2^{self.exponent} is finer than the lattice 2^{exponent}"
            )
        return _shift(self.indices[part], self.exponent - exponent)


def _shift(indices: Indices, bits: int) -> _Wide:
    if bits > 31 and indices.any():
        raise CodecError(f"lattices 2^{bits} apart do not fit in 32 bits")
    return indices.astype(np.int64) << min(bits, 31)


def _largest(integers: Array) -> int:
    # Not the maximum of `abs`, which has no number for the least integer of a type.
    return max(int(integers.max(initial=0)), -int(integers.min(initial=0)))


def _checked(indices: _Wide, exponent: int) -> _Wide:
    if _largest(indices) > _MAX_INDEX:
        raise CodecError(f"model exceeds 2^31 steps of 2^{exponent}: coarsen the step")
    return indices


def publish(w: Vector, before: LatticePoint | None, exponent: int) -> LatticePoint:
    """Return the next published point for a model.

    Parameters
    ----------
    w : ndarray of float32, shape (n,)
        The model.
    before : LatticePoint or None
        Published last; `None` for the first.
    exponent : int
        The step is ``2^exponent``. The lattice of the result is the finer of this and
        that of `before`.

    Raises
    ------
    CodecError
        If an index would exceed 32 bits: the step is too small for the model.
    """
    if not MIN_EXPONENT <= exponent <= MAX_EXPONENT:
        raise CodecError(f"step 2^{exponent} is outside 2^-100 to 2^60")
    if before is None:
        before = _zero(exponent, len(w))
    finest = min(exponent, before.exponent)
    indices = np.empty(len(w), np.int32)
    for part in blocks(len(w)):
        gap = before.indices[part].astype(np.float64)
        times_power(gap, before.exponent, out=gap)
        np.subtract(w[part], gap, out=gap)
        moved = np.rint(times_power(gap, -exponent, out=gap), out=gap)
        if not np.ldexp(np.abs(moved).max(), exponent - finest) <= _MAX_INDEX:
            raise CodecError(
                f"model exceeds 2^31 steps of 2^{exponent}: coarsen the step"
            )
        total = moved.astype(np.int64) << (exponent - finest)
        total += before.at_exponent(finest, part)
        indices[part] = _checked(total, finest)
    return LatticePoint(compact(indices), finest)


def difference(new: LatticePoint, old: LatticePoint) -> tuple[Integers, int]:
    """Return integers `d` and an exponent with ``new - old = d * 2^exponent``, exactly.

    They are of int32.
    The exponent is the largest that keeps all of `d` integer, so a coarse step after
    fine ones costs no more bits than it would alone.
    """
    finest = min(new.exponent, old.exponent)
    together = 0
    for part in blocks(len(new.indices)):
        gap = new.at_exponent(finest, part) - old.at_exponent(finest, part)
        together |= int(np.bitwise_or.reduce(gap))
    common = (together & -together).bit_length() - 1 if together else 0
    found = np.empty(len(new.indices), np.int32)
    for part in blocks(len(found)):
        gap = new.at_exponent(finest, part) - old.at_exponent(finest, part)
        found[part] = _checked(gap >> common, finest + common)
    return found, finest + common


def encode_point(
    new: LatticePoint, old: LatticePoint | None, specs: Sequence[TensorSpec]
) -> bytes:
    """Encode a point, whole or as the exact difference from one the receiver holds.

    Parameters
    ----------
    new, old : LatticePoint
        Target and base; without a base the whole point is coded.
    specs : sequence of TensorSpec
        The lossy tensors, whose sizes sum to the points' length.

    Returns
    -------
    bytes
        Exponents of the target and of the difference (int16 each), digests of base
        (zeros if none) and target (8 bytes each), then a block (`lattice_block`).
    """
    base = old if old is not None else _zero(new.exponent, len(new.indices))
    gap, exponent = difference(new, base)
    head = _HEAD.pack(
        new.exponent, exponent, old.digest if old else _NO_BASE, new.digest
    )
    return head + encode_block(gap, specs)


def _zero(exponent: int, n: int) -> LatticePoint:
    return LatticePoint(np.broadcast_to(np.int16(0), n), exponent)


def max_point_bytes(specs: Sequence[TensorSpec]) -> int:
    """Return the most bytes that `encode_point` may write."""
    return _HEAD.size + max_block_bytes(specs)


def decode_point(
    data: bytes, old: LatticePoint | None, specs: Sequence[TensorSpec]
) -> LatticePoint:
    """Decode what `encode_point` wrote, to the bit.

    Raises
    ------
    StateMismatchError
        If the bytes are a difference from another point than `old`.
    CodecError
        If they are malformed, or lead to another point than they name.
    """
    if len(data) < _HEAD.size:
        raise CodecError("lattice point is truncated")
    target, exponent, base_digest, digest = _HEAD.unpack_from(data)
    if not MIN_EXPONENT <= target <= MAX_EXPONENT:
        raise CodecError("lattice point has a malformed exponent")
    n = sum(spec.size for spec in specs)
    if base_digest == _NO_BASE:
        old = _zero(target, n)
    elif old is None or old.digest != base_digest:
        raise StateMismatchError(
            f"difference from point {base_digest.hex()}, which this side does not hold"
        )
    elif len(old.indices) != n:
        raise CodecError("lattice point is of another layout")
    gap = decode_block(data[_HEAD.size :], specs)
    finest = min(target, old.exponent)
    if not finest <= exponent <= finest + 32:
        raise CodecError("lattice point has a malformed step")
    total = old.at_exponent(finest) + _shift(gap, exponent - finest)
    lost = target - finest
    if lost and bool((total & ((1 << lost) - 1)).any()):
        raise CodecError("lattice point is between the points of its lattice")
    indices = _checked(total >> lost, target).astype(np.int32)
    point = LatticePoint(compact(indices), target)
    if point.digest != digest:
        raise CodecError("lattice point differs from its digest")
    return point
