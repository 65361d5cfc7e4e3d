"""Uniform quantisers: one that keeps an error bound, one with a dead zone."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..coding.blocks import blocks
from ..coding.integers import Integers
from ..contract.energy import energy
from ..contract.errors import CodecError
from ..contract.layout import Array
from ..contract.power import times_power
from ..contract.vector import Vector
from ..kernel import compiled, contiguous

MAX_INDEX = 1 << 30
_SLACK = 2.0**-12
_MIN_STEP = 2.0**-100
_MAX_STEP = 2.0**100
_NORMAL = -126, 127

Mask = np.ndarray[Any, np.dtype[np.bool_]]


def bounded_step(bound: float) -> np.float32:
    """Return the step whose half is `bound` less a slack for float32 rounding.

    Returns
    -------
    float32
        ``2 bound (1 - 2^-12)``; 0 where that is outside ``[2^-100, 2^100]``, for
        which float32 cannot carry indices and values must be sent as they are.
    """
    step = 2 * bound * (1 - _SLACK)
    return np.float32(step if _MIN_STEP <= step <= _MAX_STEP else 0)


def reconstruct(indices: Array, step: np.float32, prediction: Vector) -> Vector:
    """Return ``prediction + step * index``, each operation rounded to float32."""
    values = indices.astype(np.float32)
    values *= step
    values += prediction
    return values


def quantise_bounded(
    x: Vector, prediction: Vector, step: np.float32, bound: float
) -> tuple[Integers, Vector, Mask]:
    """Quantise ``x - prediction`` so that every reconstruction keeps the bound.

    Parameters
    ----------
    x, prediction : ndarray of float32, same shape
        Values, and what the decoder expects them to be.
    step : float32
        From `bounded_step`, not 0.
    bound : float
        Largest ``|x - xhat|`` allowed, with `xhat` as the float32 returned.

    Returns
    -------
    indices : ndarray of int32
        Round to nearest, or the neighbour where only that keeps the bound.
    xhat : ndarray of float32
        What `reconstruct` gives for the indices; `x` where `raw`.
    raw : ndarray of bool
        Elements that no index brings within the bound; their index is 0, and their
        values must be sent.
    """
    scaled = x - prediction
    scaled /= step
    np.rint(scaled, out=scaled)
    np.clip(scaled, -MAX_INDEX, MAX_INDEX, out=scaled)
    indices = scaled.astype(np.int32)
    del scaled
    xhat = reconstruct(indices, step, prediction)
    raw = _exceeds(x, xhat, bound)
    at = np.nonzero(raw)
    if len(at[0]):
        for nudge in (1, -1):
            trial = indices[at] + np.int32(nudge)
            value = reconstruct(trial, step, prediction[at])
            good = ~_exceeds(x[at], value, bound) & raw[at]
            indices[at] = np.where(good, trial, indices[at])
            xhat[at] = np.where(good, value, xhat[at])
            raw[at] &= ~good
        indices[raw] = 0
        xhat[raw] = x[raw]
    return indices, xhat, raw


def _exceeds(x: Vector, xhat: Vector, bound: float) -> Mask:
    error = np.abs(x - xhat)
    exceeds: Mask = ~(error <= np.float32(bound * (1 - 2.0**-20)))
    close = np.nonzero(exceeds)
    if len(close[0]):
        exact = np.abs(x[close].astype(np.float64) - xhat[close].astype(np.float64))
        exceeds[close] = ~(exact <= bound)
    return exceeds


def quantise_dead_zone(x: Vector, step: float, dead_zone: float) -> Integers:
    """Quantise to multiples of a step, rounding towards zero more than away.

    ``q = sign(x) floor(|x| / step + 1 - dead_zone)``: magnitudes below
    ``dead_zone * step`` become 0, and so on for every interval.

    Parameters
    ----------
    x : ndarray of float32
        Values.
    step : float
        Positive.
    dead_zone : float
        From 0.5, rounding to nearest, to 1, truncation.

    Raises
    ------
    CodecError
        If an index exceeds 2^30.
    """
    if (native := compiled()) is not None and x.dtype == np.float32:
        indices = np.empty(x.shape, np.int32)
        if not native.quantise(contiguous(x), step, 1 - dead_zone, indices):
            raise CodecError(too_small(step))
        return indices
    scaled = np.abs(x)
    with np.errstate(over="ignore"):
        scaled /= np.float32(step)
    scaled += np.float32(1 - dead_zone)
    if len(x) and not float(scaled.max()) < MAX_INDEX:
        raise CodecError(too_small(step))
    np.copysign(scaled, x, out=scaled)
    return scaled.astype(np.int32)


def squared_error(x: Vector, step: float, dead_zone: float) -> float:
    """Return ``||x - step q||^2`` of the indices of `quantise_dead_zone`.

    Raises
    ------
    CodecError
        If an index exceeds 2^30.
    """
    if (native := compiled()) is not None and x.dtype == np.float32:
        lost = native.lost(contiguous(x), step, 1 - dead_zone)
        if lost < 0:
            raise CodecError(too_small(step))
        return lost
    return energy(x - quantise_dead_zone(x, step, dead_zone) * np.float32(step))


def too_small(step: float) -> str:
    """Return that a step gives indices above 2^30."""
    return f"step {step} is too small for the largest element"


def lattice_values(indices: Integers, exponent: int, multiple: int) -> Vector:
    """Return ``(indices * 2^exponent) * multiple`` as float32, in their place.

    Each step is rounded, which changes nothing below 2^24 steps; a value beyond float32
    is infinite.

    Parameters
    ----------
    indices : ndarray of int32, shape (n,)
        Contiguous. The values take its memory.
    exponent, multiple : int
        The step is ``multiple * 2^exponent``.
    """
    values: Vector = indices.view(np.float32)
    if (native := compiled()) is not None and _NORMAL[0] <= exponent <= _NORMAL[1]:
        native.values(indices, 2.0**exponent, multiple)
        return values
    with np.errstate(over="ignore"):
        for at in blocks(len(indices)):
            piece = times_power(indices[at].astype(np.float32), exponent)
            np.multiply(piece, np.float32(multiple), out=values[at])
    return values
