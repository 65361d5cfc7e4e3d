"""Which elements of a tensor are kept."""

from __future__ import annotations

import math

import numpy as np

from .layout import Array
from .positions import Positions


def count_kept(n: int, density: float) -> int:
    """Return how many of `n` elements a density in ``(0, 1]`` keeps: ``ceil``."""
    return min(n, math.ceil(density * n))


def top_k(x: Array, k: int) -> Positions:
    """Return the increasing positions of the `k` largest magnitudes of a vector.

    Exactly `k` are returned; which of equal magnitudes are kept is arbitrary.
    """
    if k >= len(x):
        return np.arange(len(x))
    if k == 0:
        return np.empty(0, np.int64)
    kept = np.argpartition(np.abs(x), len(x) - k)[len(x) - k :]
    kept.sort()
    return kept
