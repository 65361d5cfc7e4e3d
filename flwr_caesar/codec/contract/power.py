"""Products with powers of two."""

from __future__ import annotations

import numpy as np

from .layout import Array

_NORMAL = (-126, 127)


def times_power(x: Array, exponent: int, out: Array | None = None) -> Array:
    """Return ``x 2^exponent``, to the bit what ``np.ldexp`` gives, in less time.

    Parameters
    ----------
    x : ndarray of float32 or float64
        Any shape.
    exponent : int
        One that float32 has as a normal number's is multiplied by; others are left to
        ``np.ldexp``, which calls a function for each element.
    out : ndarray, optional
        Where the product goes.
    """
    if not _NORMAL[0] <= exponent <= _NORMAL[1]:
        return np.asarray(np.ldexp(x, exponent, out=out))
    return np.asarray(np.multiply(x, x.dtype.type(2.0**exponent), out=out))
