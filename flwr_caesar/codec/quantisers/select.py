"""Which elements of a tensor are kept."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..coding.positions import Positions
from ..contract.errors import CodecError
from ..contract.vector import Vector

Mask = np.ndarray[Any, np.dtype[np.bool_]]
_MAGNITUDE_BITS = np.uint32(0x7FFFFFFF)


def require_density(codec_id: str, density: float) -> None:
    """Check the parameter `density`, the fraction of elements kept.

    Raises
    ------
    CodecError
        If it is not in ``(0, 1]``.
    """
    if not 0 < density <= 1:
        raise CodecError(f"{codec_id}: density must be in (0, 1], not {density}")


def count_kept(n: int, density: float) -> int:
    """Return how many of `n` elements a density in ``(0, 1]`` keeps: ``ceil``."""
    return min(n, math.ceil(density * n))


def count_pruned(n: int, prune_rate: float) -> int:
    """Return how many of `n` elements a prune rate in ``[0, 1]`` drops: ``floor``."""
    return min(n, math.floor(prune_rate * n))


def top_k_mask(x: Vector, k: int) -> Mask:
    """Return which elements are the `k` largest magnitudes of a vector.

    Exactly ``min(k, n)`` are marked; of equal magnitudes the first ones. Over the
    concatenation of all tensors (`vector.gather`) this is a global top-k.

    Parameters
    ----------
    x : ndarray of float32, shape (n,)
        Finite values.
    k : int
        How many to mark.
    """
    n = len(x)
    if k >= n:
        return np.ones(n, bool)
    if k <= 0:
        return np.zeros(n, bool)
    # Magnitudes of floats are ordered as their bits are, and integers sort faster.
    keys = np.ascontiguousarray(x, np.float32).view(np.uint32) & _MAGNITUDE_BITS
    keys.partition(n - k)
    threshold = keys[n - k : n - k + 1].view(np.float32)[0]
    mask: Mask = x >= threshold
    mask |= x <= -threshold
    surplus = int(np.count_nonzero(mask)) - k
    if surplus:
        mask[np.flatnonzero(np.abs(x) == threshold)[-surplus:]] = False
    return mask


def top_k(x: Vector, k: int) -> Positions:
    """Return the increasing positions that `top_k_mask` marks."""
    return np.flatnonzero(top_k_mask(x, k))


def prune_mask(x: Vector, prune_rate: float) -> Mask:
    """Return which elements survive magnitude pruning.

    The ``floor(prune_rate * n)`` smallest magnitudes are pruned, exactly: of equal
    magnitudes the last ones, where a threshold would prune none or all of them. Zeros
    count among the pruned first and never survive.

    Parameters
    ----------
    x : ndarray of float32, shape (n,)
        All prunable tensors as one vector, so that the threshold is global.
    prune_rate : float
        Fraction pruned, in ``[0, 1]``.

    References
    ----------
    Grativol Ribeiro et al. (2023), arXiv:2310.14693.
    """
    mask = top_k_mask(x, len(x) - count_pruned(len(x), prune_rate))
    mask &= x != 0
    return mask
