"""Weights at 1 to 8 bits: levels that survive being quantised again, to the bit."""

from __future__ import annotations

import numpy as np

from ..coding.integers import Integers
from ..coding.values import mean_magnitude
from ..contract.layout import Array
from ..contract.vector import Vector
from .uniform import dequantize_power_of_two, quantize_power_of_two, top_level

WEIGHT_BITS = range(1, 9)
FLOAT_BITS = 32
WEIGHT_LEVELS = ("uniform", "power_of_two")


def largest_level(bits: int) -> int:
    """Return the largest level of `bits` bits: 1 at 1 bit, else ``2^(bits-1) - 1``."""
    return max(top_level(bits), 1)


def quantize_weights(x: Vector, bits: int, levels: str) -> tuple[Integers, np.float32]:
    """Quantise the weights of one tensor to signed levels and a scale.

    With ``top = 2^(bits-1) - 1``, symmetric about zero:

    - uniform: ``round(x / scale * top)`` with ``scale = max|x|``;
    - power of two: as `uniform.quantize_power_of_two`, whose peak is the scale;
    - 1 bit: the sign, and `scale` the mean of ``|x|`` over all ``x != 0``: what is
      pruned stays 0.

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
    tuple of ndarray of int32 and float32
        The levels, at most `largest_level` in magnitude, and the scale.

    References
    ----------
    Rastegari et al. (2016), arXiv:1603.05279, for the scale at 1 bit.
    """
    if bits == 1:
        return np.sign(x).astype(np.int32), mean_magnitude(x[x != 0])
    if levels == "power_of_two":
        quanta, scale = quantize_power_of_two(x, bits)
        return quanta.astype(np.int32), scale
    scale = np.abs(x).max(initial=np.float32(0))
    relative: Array = x / scale if scale else np.zeros_like(x)
    return np.rint(relative * np.float32(top_level(bits))).astype(np.int32), scale


def dequantize_weights(
    found: Integers, scale: np.float32, bits: int, levels: str
) -> Vector:
    """Return the weights that `quantize_weights` describes; level 0 is 0.

    At 1 bit and for uniform levels ``level / largest * scale``, both steps rounded to
    float32.
    """
    if bits > 1 and levels == "power_of_two":
        return dequantize_power_of_two(found.astype(np.int8), scale, bits)
    values: Vector = found.astype(np.float32) / np.float32(largest_level(bits))
    values *= scale
    return values
