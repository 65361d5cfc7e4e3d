"""Weights at 1 to 8 bits: levels that survive being quantised again, to the bit."""

from __future__ import annotations

from typing import Any

import numpy as np

from .layout import Array
from .uniform import (
    dequantize_power_of_two,
    quantize_power_of_two,
    top_level,
)
from .values import mean_magnitude, signed
from .vector import Vector

WEIGHT_BITS = range(1, 9)
FLOAT_BITS = 32
WEIGHT_LEVELS = ("uniform", "power_of_two")

Codes = np.ndarray[Any, np.dtype[np.uint8]]


def quantize_weights(x: Vector, bits: int, levels: str) -> tuple[Codes, np.float32]:
    """Quantise the weights of one tensor to codes of `bits` bits and a scale.

    With ``top = 2^(bits-1) - 1``, symmetric and without the most negative code:

    - uniform: ``l = round(|x| / scale * top)``, signed as `x`, with
      ``scale = max|x|``;
    - power of two: as `uniform.quantize_power_of_two`, whose peak is the scale;
    - 1 bit: the sign, 0 counting as positive, with ``scale = mean|x|``.

    ``dequantize_weights(*quantize_weights(x))`` changes nothing a second time: each
    scale is a value that it decodes to, so it is found again exactly.

    Parameters
    ----------
    x : ndarray of float32, shape (n,)
        Finite values.
    bits : int
        1 to 8.
    levels : {"uniform", "power_of_two"}
        Spacing; of no effect at 1 bit.

    Returns
    -------
    tuple of ndarray of uint8 and float32
        Codes ``l + top``, or 1 for negative at 1 bit; and the scale.

    References
    ----------
    Rastegari et al. (2016), arXiv:1603.05279, for the scale at 1 bit.
    """
    if bits == 1:
        return (x < 0).astype(np.uint8), mean_magnitude(x)
    top = np.int8(top_level(bits))
    if levels == "power_of_two":
        quanta, scale = quantize_power_of_two(x, bits)
    else:
        scale = np.abs(x).max(initial=np.float32(0))
        relative: Array = x / scale if scale else np.zeros_like(x)
        quanta = np.rint(relative * np.float32(top)).astype(np.int8)
    return (quanta + top).view(np.uint8), scale


def dequantize_weights(
    codes: Codes, scale: np.float32, bits: int, levels: str
) -> Vector:
    """Return the weights that `quantize_weights` describes.

    ``l / top * scale`` for uniform levels, both steps rounded to float32.
    """
    if bits == 1:
        return signed(codes != 0, scale)
    quanta = codes.view(np.int8) - np.int8(top_level(bits))
    if levels == "power_of_two":
        return dequantize_power_of_two(quanta, scale, bits)
    values: Vector = quanta.astype(np.float32) / np.float32(top_level(bits))
    values *= scale
    return values
