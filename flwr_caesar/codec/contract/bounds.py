"""How far a decoded frame is from what was encoded, in units of the codec's bound."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from .layout import Array, Arrays


class Bounded(Protocol):
    """A codec, ours or another, that may promise a bound."""

    def error_bound(self, arrays: Arrays) -> Mapping[str, Array] | None:
        """See `flwr_caesar.codec.Codec.error_bound`."""


def error_over_bound(codec: Bounded, arrays: Arrays, decoded: Arrays) -> float | None:
    """Return the largest ``|x - decoded| / bound``, at most 1 if the codec kept it.

    Parameters
    ----------
    codec : Codec or another
        That encoded `arrays`.
    arrays, decoded : mapping of str to ndarray
        What went in and what came out, of the same names and shapes.

    Returns
    -------
    float or None
        In float64; infinity if an element of bound 0 differs, `None` if the codec
        states no bound.
    """
    bounds = codec.error_bound(arrays)
    if bounds is None:
        return None
    worst = 0.0
    for name, bound in bounds.items():
        wide = arrays[name].astype(np.float64)
        error = np.abs(wide - decoded[name].astype(np.float64))
        limit = np.broadcast_to(bound, error.shape)
        if (error[limit == 0] > 0).any():
            return float("inf")
        over = error[limit > 0] / limit[limit > 0]
        worst = max(worst, float(over.max(initial=0)))
    return worst
