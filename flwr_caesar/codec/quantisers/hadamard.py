"""The Walsh-Hadamard transform of power-of-two vectors, through matrix products."""

from __future__ import annotations

from functools import cache

import numpy as np

from ..contract.vector import Vector

_MAX_FACTOR_LOG2 = 6


@cache
def _matrix(log2: int) -> Vector:
    h = np.ones((1, 1), np.float32)
    for _ in range(log2):
        h = np.block([[h, h], [h, -h]])
    h.flags.writeable = False
    return h


def hadamard(x: Vector) -> Vector:
    """Return ``H x`` for the unnormalised Sylvester Hadamard matrix, ``H H = n I``.

    ``H[i, j] = (-1)^popcount(i & j)``. A Hadamard matrix of ``2^(a+b)`` is the
    Kronecker product of those of ``2^a`` and ``2^b``, so the transform is a few small
    matrix products, which BLAS does several times faster than numpy does butterflies.

    Parameters
    ----------
    x : ndarray of float32, shape (n,)
        `n` is a power of two.
    """
    n = len(x)
    left = n.bit_length() - 1
    inner = 1
    y = x
    while left:
        log2 = -(-left // -(-left // _MAX_FACTOR_LOG2))
        width = 1 << log2
        if inner == 1:
            y = np.matmul(y.reshape(-1, width), _matrix(log2))
        else:
            y = np.matmul(_matrix(log2), y.reshape(-1, width, inner))
        inner *= width
        left -= log2
    return y.reshape(n)
