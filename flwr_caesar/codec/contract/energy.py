"""The sum of squares, the same on every machine."""

from __future__ import annotations

import numpy as np

from ..kernel import compiled
from .layout import Array

_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def energy(x: Array) -> float:
    """Return ``||x||^2``, in numpy's order of summation.

    Not by ``np.dot``: its order is that of the machine's BLAS, which wakes threads for
    a sum that is over before they run.
    """
    native = compiled()
    plain = x.dtype in _FLOATS and x.flags.c_contiguous and x.flags.aligned
    if native is not None and plain:
        # Files' types name their byte order; the kernel wants the machine's own type.
        return native.energy(x.view(x.dtype.type))
    return float(np.square(x, dtype=np.float64).sum())
