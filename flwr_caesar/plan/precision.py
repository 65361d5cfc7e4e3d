"""How fine uploads and published models are: what is left out of each, and when.

What a message leaves out goes along with a later one, so nothing is lost, and rounding
to nearest leaves out as much on one side as on the other, so that nothing is late on
the whole either. What remains is noise, and one share of it serves both ways: the
squared error of an upload is `ERROR` of its square, and that of a published model is
`ERROR` of the squared change since the model that devices mostly hold.

Nothing that devices say has a part in this, so none of them can change it.
"""

from __future__ import annotations

import math

ERROR = 0.2
"""Squared error of a message over the square of what it tells."""

_FREE = (8.0, 1 << 14), (4.0, 3 << 13)


def upload_error(elements: int) -> float:
    """Return the relative squared error that an upload may have.

    Parameters
    ----------
    elements : int
        Floating-point elements of the model. A message costs some kilobytes whatever
        is in it, so the first kilobytes of a small model are free: two of them up to a
        byte an element, and three up to half a byte.

    Returns
    -------
    float
        Above 0, at most `ERROR`.
    """
    free = max(min(bits, most / max(elements, 1)) for bits, most in _FREE)
    return float(min(ERROR, 4.0**-free))


STEP_SIGMAS = round(math.sqrt(12 * ERROR), 2)
"""Step of a published model in deviations of the change: its error is step^2 / 12."""
