"""Predictors of a tensor from its own reconstructions of earlier rounds.

All are element-wise float32 operations on values both sides have, so that encoder and
decoder agree to the bit on any machine; every sum over elements is the encoder's alone
and reaches the decoder as a number in the frame.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from .integers import Integers
from .layout import Array
from .vector import Vector

EMA_RATE = np.float32(0.25)
MIN_KERNEL = 4
_MAX_GAIN = 65000.0
CONSISTENCY = 0.75


class Mode(IntEnum):
    """How a tensor is predicted."""

    NONE = 0
    SCALED_PREVIOUS = 1
    OSCILLATION = 2
    KERNEL_SIGNS = 3
    RAW = 4


def advance_magnitude(
    magnitude: Vector | None, reconstruction: Vector, step: np.float32
) -> Vector:
    """Move the average of normalised magnitudes by one round.

    ``M <- M + (|xhat| / step - M) / 4`` and ``M = |xhat| / step`` at first, from the
    reconstruction and the quantiser step of the round, whatever its mode. The paper
    advances the average on one side twice, and from values the other side lacks.

    Parameters
    ----------
    magnitude : ndarray of float32 or None
        Average so far.
    reconstruction : ndarray of float32
        Decoded values.
    step : float32
        Step that they were quantised with; 1 for a tensor that was sent raw.

    References
    ----------
    Ye et al. (2025), arXiv:2511.05770.
    """
    now = np.abs(reconstruction)
    now /= step
    if magnitude is None:
        return now
    now -= magnitude
    now *= EMA_RATE
    now += magnitude
    return now


def fit_gain(x: Vector, shape: Vector) -> np.float32:
    """Return the float16 `g` that minimises ``||x - g shape||``."""
    energy = float(np.square(shape).sum(dtype=np.float64))
    common = float(np.multiply(x, shape).sum(dtype=np.float64))
    gain = common / energy if energy > 0 else 0.0
    if not abs(gain) < _MAX_GAIN:
        return np.float32(0)
    return np.float32(np.float16(gain))


def scaled_previous(previous: Vector, gain: np.float32) -> Vector:
    """Signed multiple of the previous reconstruction, ``rho * xhat_(t-1)``."""
    return previous * gain


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
    return (positive >= need).astype(np.int32) - (negative >= need).astype(np.int32)


def kernel_shape(signs: Array, magnitude: Vector) -> Vector:
    """Average magnitude with one sign a kernel; 0 in kernels without one.

    Parameters
    ----------
    signs : ndarray of int32, shape (kernels,)
        -1, 0 or 1.
    magnitude : ndarray of float32, shape (kernels, size)
        From `advance_magnitude`.
    """
    return magnitude * signs.astype(np.float32)[:, None]
