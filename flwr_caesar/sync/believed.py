"""What a device does when the server refused its update for its length.

The server then says the length of the longest update that it believes
(`DownloadHeader.longest`). Two things can have made an update longer than that. One
training did, for instance as it diverged: then that is given up, as the server would
refuse it again and again, and everything that is computed later with it. Or many
ordinary trainings did, of which nothing was applied for long: then they are sent in
parts, and nothing is lost.
"""

from __future__ import annotations

import math

import numpy as np

from flwr_caesar.codec.contract.layout import FLOAT_DTYPES, Array, Arrays
from flwr_caesar.codec.contract.update import length

# Longest part, in what is believed: that gets shorter while a model converges.
_PART = 0.5


def share_of(update_length: float, total: Arrays) -> float:
    """Return the length of a training's update, in that of what is encoded with it.

    Parameters
    ----------
    update_length : float
        Length of the update alone.
    total : mapping of str to ndarray
        The update and what was left of earlier ones.
    """
    whole = length(total)
    if not 0 < whole < math.inf:
        return 1.0
    return min(update_length / whole, 1.0)


def part_to_send(
    total: Arrays, sent: Arrays, *, share: float, longest: float
) -> dict[str, Array] | None:
    """Return a part of an update that is believed; `None` to send it as it is.

    Each element is the same part of what it was, by a power of two.

    Parameters
    ----------
    total : mapping of str to ndarray
        The update and what was left of earlier ones; not changed.
    sent : mapping of str to ndarray
        What a codec makes of it.
    share : float
        Of the training in it, see `share_of`.
    longest : float
        Length that is believed; 0 if the server said nothing of it.
    """
    if not longest:
        return None
    whole = length(sent)
    # A training that is too long by itself is not made shorter: it is refused.
    if whole <= _PART * longest or share * whole > longest or whole == math.inf:
        return None
    # By a power of two, so that the part and the rest are what there was, to the bit.
    factor = math.ldexp(1.0, math.floor(math.log2(_PART * longest / whole)))
    return {
        name: np.asarray(array * array.dtype.type(factor))
        if array.dtype.name in FLOAT_DTYPES
        else array
        for name, array in total.items()
    }
