"""What is sent for an element: narrower floats, signs, and one magnitude for many."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..contract.errors import CodecError
from ..contract.layout import Array
from ..contract.vector import Vector

Half = np.ndarray[Any, np.dtype[np.float16]]
Bits16 = np.ndarray[Any, np.dtype[np.uint16]]

_LARGEST_HALF, _SMALL_HALF = 65504.0, 2.0**-10
_ROOM = (2 - 2.0**-10) * 2.0**14  # the largest float16 below 2^15
_EXPONENT = np.uint32(0x7F800000)


def to_float16(x: Vector) -> Half:
    """Round to the nearest float16.

    Relative error at most 2^-11, absolute error at most 2^-25 below 2^-14.

    Raises
    ------
    CodecError
        If a magnitude rounds to more than 65,504.
    """
    with np.errstate(over="ignore", under="ignore"):
        narrow: Half = x.astype("<f2")
    if not np.isfinite(narrow).all():
        raise CodecError("an element exceeds the range of float16, 65504")
    return narrow


def half_exponents(x: Vector, owners: Array, tensors: int) -> Array:
    """Return the power of two with which each tensor's values fit into float16.

    0 where the largest magnitude is from 2^-10 to 65,504, so that what is a sixteenth
    of it has all the bits of a float16; elsewhere it is scaled to below 2^15.

    Parameters
    ----------
    x : ndarray of float32, shape (k,)
        Values of all tensors.
    owners : ndarray of int, shape (k,)
        To which tensor each belongs.
    tensors : int
        How many there are.

    Returns
    -------
    ndarray of int8, shape (tensors,)
        From -127 to 127.
    """
    largest = np.zeros(tensors, np.float32)
    np.maximum.at(largest, owners, np.abs(x))
    far = (largest > _LARGEST_HALF) | ((largest < _SMALL_HALF) & (largest > 0))
    exponents = np.clip(np.frexp(largest)[1] - 15, -127, 127)
    return np.where(far, exponents, 0).astype(np.int8)


def to_half(x: Vector, exponents: Array) -> Half:
    """Return ``x / 2^exponent`` as float16, so that what comes back is finite."""
    scaled = np.ldexp(x, -exponents.astype(np.int32))
    half: Half = np.where(exponents == 0, scaled, np.clip(scaled, -_ROOM, _ROOM))
    return half.astype("<f2")


def from_half(values: Half, exponents: Array) -> Vector:
    """Return ``value * 2^exponent`` as float32; infinite where it is out of range."""
    with np.errstate(over="ignore", invalid="ignore"):
        wide: Vector = np.ldexp(values.astype(np.float32), exponents.astype(np.int32))
    return wide


def to_bfloat16(x: Vector) -> Bits16:
    """Round to the nearest bfloat16, ties to even; return its bits.

    The upper half of the float32 bits after rounding. Relative error at most 2^-8,
    absolute error at most 2^-134 below 2^-126.

    Raises
    ------
    CodecError
        If a magnitude rounds to more than the largest bfloat16, about 3.39e38.
    """
    bits = x.view(np.uint32)
    rounded = (bits >> np.uint32(16)) & np.uint32(1)
    rounded += np.uint32(0x7FFF)
    rounded += bits
    if ((rounded & _EXPONENT) == _EXPONENT).any():
        raise CodecError("an element exceeds the range of bfloat16, 3.39e38")
    rounded >>= np.uint32(16)
    return rounded.astype("<u2")


def from_bfloat16(bits: Array) -> Vector:
    """Return the float32 values of bfloat16 bits."""
    wide: Array = bits.astype(np.uint32)
    wide <<= np.uint32(16)
    return wide.view(np.float32)


def mean_magnitude(x: Vector) -> np.float32:
    """Return the mean of ``|x|``, 0 for an empty vector.

    Over the elements of a scaled sign it is the least-squares magnitude; over the
    elements kept by sparse ternary compression, the paper's.
    """
    if len(x) == 0:
        return np.float32(0)
    return np.float32(np.abs(x).mean(dtype=np.float64))


def magnitude_bounds(x: Vector) -> tuple[np.float32, np.float32]:
    """Return the mean and the largest of ``|x|``, zeros for an empty vector."""
    return mean_magnitude(x), np.abs(x).max(initial=np.float32(0))


def pack_signs(x: Vector) -> bytes:
    """Return one bit an element, 1 if negative, most significant bit first.

    The sign of zero, of either sign, is positive.
    """
    return np.packbits(x < 0).tobytes()


def unpack_signs(data: bytes, count: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return which of `count` elements `pack_signs` saw as negative.

    Raises
    ------
    CodecError
        If `data` is not exactly ``ceil(count / 8)`` bytes long.
    """
    if len(data) != (count + 7) // 8:
        raise CodecError("packed signs have the wrong length")
    return np.unpackbits(np.frombuffer(data, np.uint8), count=count).view(bool)


def signed(negative: Array, magnitude: np.float32 | Vector) -> Vector:
    """Return `magnitude`, negated where `negative`."""
    vector: Vector = np.where(negative, -magnitude, magnitude)
    return vector


def read_magnitudes(data: bytes) -> Vector:
    """Read float32 magnitudes from the wire.

    Raises
    ------
    CodecError
        If one is negative, NaN or infinite.
    """
    magnitudes = np.frombuffer(data, "<f4")
    if not (np.isfinite(magnitudes).all() and (magnitudes >= 0).all()):
        raise CodecError("a magnitude is negative or not finite")
    return magnitudes
