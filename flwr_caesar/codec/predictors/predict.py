"""Predictors of a tensor from its own reconstructions of earlier rounds.

All are element-wise float32 operations on values both sides have, so that encoder and
decoder agree to the bit on any machine; every sum over elements is the encoder's alone
and reaches the decoder as a number in the frame.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from ..coding.integers import Integers
from ..contract.layout import Array
from ..contract.vector import Vector

EMA_RATE, EMA_REST = np.float32(0.625), np.float32(0.375)
MIN_KERNEL = 4
_MAX_GAIN = 65000.0
_PARALLEL = 1e-6

Gains = tuple[np.float32, np.float32]
CONSISTENCY = 0.75


class Mode(IntEnum):
    """How a tensor is predicted."""

    NONE = 0
    SCALED_PREVIOUS = 1
    OSCILLATION = 2
    KERNEL_SIGNS = 3
    RAW = 4
    PAPER_KERNELS = 5
    PAPER_OSCILLATION = 6


def advance(average: Vector, now: Vector) -> Vector:
    """Move an exponential average by one round: ``0.625 now + 0.375 A``."""
    moved = now * EMA_RATE
    moved += average * EMA_REST
    return moved


def normalised_magnitude(reconstruction: Vector, step: np.float32) -> Vector:
    """Return ``|xhat| / step``: magnitudes in units of the round's own quantiser.

    Averaged over rounds whatever their mode, once, on both sides from decoded values.
    The paper averages z-scores, on one side twice and from values the other lacks.

    Parameters
    ----------
    reconstruction : ndarray of float32
        Decoded values.
    step : float32
        Step that they were quantised with; 1 for a tensor that was sent raw.

    References
    ----------
    Ye et al. (2025), arXiv:2511.05770.
    """
    magnitude = np.abs(reconstruction)
    with np.errstate(over="ignore"):
        magnitude /= step
    return magnitude


def fit_pair(x: Vector, first: Vector, second: Vector) -> Gains:
    """Return the float16 pair that minimises ``||x - g first - h second||``.

    Where the two are nearly parallel, or all zero, `h` is 0.
    """
    aa, bb = _dot(first, first), _dot(second, second)
    ab = _dot(first, second)
    xa, xb = _dot(x, first), _dot(x, second)
    determinant = aa * bb - ab * ab
    if determinant <= _PARALLEL * aa * bb:
        return fit_gain(x, first), np.float32(0)
    g = (xa * bb - xb * ab) / determinant
    h = (xb * aa - xa * ab) / determinant
    return as_gain(g), as_gain(h)


def _dot(a: Vector, b: Vector) -> float:
    return float(np.multiply(a, b, dtype=np.float64).sum())


def as_gain(gain: float) -> np.float32:
    """Return a gain as float16 carries it; 0 for one that it cannot."""
    if not abs(gain) < _MAX_GAIN:
        return np.float32(0)
    return np.float32(np.float16(gain))


def fit_gain(x: Vector, shape: Vector) -> np.float32:
    """Return the float16 `g` that minimises ``||x - g shape||``."""
    energy = _dot(shape, shape)
    return as_gain(_dot(x, shape) / energy) if energy > 0 else np.float32(0)


def scaled_previous(previous: Vector, average: Vector, gains: Gains) -> Vector:
    """Return ``rho * xhat_(t-1) + sigma * A_(t-1)``, signed.

    `A` is the `advance` average of reconstructions: rounds before the last, whose
    noise it smooths.
    """
    prediction = previous * gains[0]
    if gains[1]:
        prediction += average * gains[1]
    return prediction


def oscillation_shape(previous: Vector, magnitude: Vector) -> Vector:
    """Average magnitude with the signs of the previous reconstruction.

    A negative gain predicts that all signs flip, as those of successive full-batch
    gradients do.
    """
    return np.copysign(magnitude, previous)


def kernel_signs(x: Vector) -> Integers:
    """Sign shared by at least 3/4 of the elements of each kernel, else 0.

    Parameters
    ----------
    x : ndarray of float32, shape (kernels, size)
        One convolution kernel a row, of at least 4 elements.

    Returns
    -------
    ndarray of int32, shape (kernels,)
        -1, 0 or 1.
    """
    size = x.shape[1]
    positive = (x > 0).sum(axis=1)
    negative = (x < 0).sum(axis=1)
    need = CONSISTENCY * size
    signs: Integers = (positive >= need).astype(np.int32)
    signs -= negative >= need
    return signs


def kernel_shape(signs: Array, magnitude: Vector) -> Vector:
    """Average magnitude with one sign a kernel; 0 in kernels without one.

    Parameters
    ----------
    signs : ndarray of int32, shape (kernels,)
        -1, 0 or 1.
    magnitude : ndarray of float32, shape (kernels, size)
        Average of `normalised_magnitude`.
    """
    return magnitude * signs.astype(np.float32)[:, None]
