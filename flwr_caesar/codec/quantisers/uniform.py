"""Levels for a tensor's values at a number of bits, and how many bits each gets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..contract.energy import energy
from ..contract.errors import CodecError
from ..contract.layout import Array
from ..contract.vector import Vector

MIN_BITS = 2
MAX_BITS = 8

Levels = np.ndarray[Any, np.dtype[np.int8]]


def require_mean_bits(codec_id: str, bits: float) -> None:
    """Check the parameter `bits`, the mean bits of a value.

    Raises
    ------
    CodecError
        If it is not from `MIN_BITS` to `MAX_BITS`.
    """
    if not MIN_BITS <= bits <= MAX_BITS:
        raise CodecError(
            f"{codec_id}: bits must be from {MIN_BITS} to {MAX_BITS}, not {bits}"
        )


def top_level(bits: int) -> int:
    """Return the largest level of `bits` bits, ``2^(bits-1) - 1``."""
    return (1 << (bits - 1)) - 1


def mean_square(x: Vector) -> float:
    """Return the mean of ``x^2`` of a vector of at least one element."""
    peak = float(np.abs(x).max())
    if peak == 0:
        return 0.0
    y = x / np.float32(peak)
    return energy(y) / len(x) * peak**2


def quantize_uniform(x: Vector, bits: int) -> tuple[Levels, np.float32]:
    """Quantise to equally spaced levels, symmetric about zero.

    ``q = round(x / step)`` with ``step = max|x| / top_level(bits)``, so that
    ``|x - q * step| <= step / 2`` to float32 rounding.

    Returns
    -------
    tuple of ndarray of int8 and float32
        The levels and the step; zeros where all of `x` is 0.
    """
    top = top_level(bits)
    step = np.float32(np.abs(x).max(initial=np.float32(0)) / np.float32(top))
    if step == 0:
        return np.zeros(len(x), np.int8), step
    with np.errstate(over="ignore"):
        if not np.isfinite(np.float32(top) * step):  # `step` was rounded up
            step = np.nextafter(step, np.float32(0))
    return np.clip(np.rint(x / step), -top, top).astype(np.int8), step


def dequantize_uniform(levels: Levels, step: np.float32, bits: int) -> Vector:
    """Return ``levels * step``."""
    return levels.astype(np.float32) * step


def quantize_power_of_two(x: Vector, bits: int) -> tuple[Levels, np.float32]:
    """Quantise to zero and the powers of two just below the largest magnitude.

    Level ``l > 0`` stands for ``peak * 2^(l - top)`` with ``top = top_level(bits)``
    and `peak` the power of two nearest to ``max|x|``; the nearest value is taken. The
    relative error is at most 1/3 from the smallest power up (1/2 for magnitudes that
    round to more than 2^127).

    Returns
    -------
    tuple of ndarray of int8 and float32
        The levels and the peak; zeros where all of `x` is 0.
    """
    top = top_level(bits)
    magnitudes = np.abs(x)
    largest = magnitudes.max(initial=np.float32(0))
    if largest == 0:
        return np.zeros(len(x), np.int8), largest
    peak = min(int(_nearest_exponent(largest)), 127)
    levels = np.clip(_nearest_exponent(magnitudes) - peak + top, 0, top)
    half_smallest = np.ldexp(np.float32(1), peak - top)
    levels[(levels == 0) & (magnitudes >= half_smallest)] = 1
    levels[x == 0] = 0
    np.negative(levels, out=levels, where=x < 0)
    return levels.astype(np.int8), np.ldexp(np.float32(1), peak)


def dequantize_power_of_two(levels: Levels, peak: np.float32, bits: int) -> Vector:
    """Return ``sign(l) * peak * 2^(|l| - top)``, 0 for level 0."""
    exponents = np.abs(levels.astype(np.int32)) - top_level(bits)
    values: Vector = np.sign(levels).astype(np.float32) * np.ldexp(peak, exponents)
    values[levels == 0] = 0  # of a peak of -0.0, too
    return values


def _nearest_exponent(magnitudes: Array) -> Array:
    mantissas, exponents = np.frexp(magnitudes)
    return exponents - (mantissas < 0.75)


def allocate_bits(
    sizes: Sequence[int], variances: Sequence[float], budget: int
) -> list[int]:
    """Share out bits between tensors by their variance: reverse water-filling.

    One bit more divides the error ``n * var * 4^-bits`` of a tensor by four and costs
    `n` bits, so bits go one at a time to the tensor of the largest
    ``var * 4^-bits`` that can still pay. The result follows
    ``mean + log2(var / geometric mean) / 2``, rounded and clipped, and never exceeds
    the budget. No tensor has fewer bits than one of smaller variance: where a large
    one cannot pay, those below it stay at its bits, and some of the budget is left.

    Parameters
    ----------
    sizes : sequence of int
        Elements of each tensor.
    variances : sequence of float
        Mean square of each tensor's elements.
    budget : int
        Most bits for all elements together; at least ``MIN_BITS * sum(sizes)``.

    Returns
    -------
    list of int
        Bits an element of each tensor, from `MIN_BITS` to `MAX_BITS`.

    References
    ----------
    Cover and Thomas, "Elements of Information Theory", 10.3.3.
    """
    bits = [MIN_BITS] * len(sizes)
    left = budget - MIN_BITS * sum(sizes)
    steps = [
        (variance * 4.0**-b, -i)
        for i, variance in enumerate(variances)
        for b in range(MIN_BITS, MAX_BITS)
        if variance > 0
    ]
    blocked: dict[int, float] = {}
    smallest = min(sizes, default=0)
    for _, minus_i in sorted(steps, reverse=True):
        if left < smallest:
            break
        i = -minus_i
        above = (bits[j] for j, v in blocked.items() if v > variances[i])
        if i in blocked or bits[i] >= min(above, default=MAX_BITS):
            continue
        if sizes[i] > left:
            blocked[i] = variances[i]
            continue
        bits[i] += 1
        left -= sizes[i]
    return bits
