"""Random numbers that depend on what they are for, not on when they are drawn."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from flwr_caesar.codec.quantisers.randomness import Words, mix64

from .columns import Floats


def uniforms(seed: int, *keys: ArrayLike) -> Floats:
    """Return numbers in [0, 1) that depend on the seed and the keys alone.

    Parameters
    ----------
    seed : int
        0 to 2^63 - 1.
    *keys : array of int
        Non-negative; they are broadcast together, and each combination has a draw of
        its own.

    Returns
    -------
    ndarray of float64
        Multiples of 2^-53, in the keys' common shape.
    """
    return _fractions(_words(seed, keys))


def normals(seed: int, *keys: ArrayLike) -> Floats:
    """Return standard normal numbers that depend on the seed and the keys alone.

    Parameters and shape are those of `uniforms`. By the Box-Muller transform.
    """
    first = _words(seed, keys)
    radius = np.sqrt(-2 * np.log1p(-_fractions(first)))
    angle = 2 * np.pi * _fractions(mix64(~first))
    return np.asarray(radius * np.cos(angle), np.float64)


def _words(seed: int, keys: tuple[ArrayLike, ...]) -> Words:
    words = mix64(np.array([seed], np.uint64))
    for key in np.broadcast_arrays(*keys):
        words = mix64(words ^ mix64(key.astype(np.uint64) + np.uint64(1)))
    return words


def _fractions(words: Words) -> Floats:
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53
