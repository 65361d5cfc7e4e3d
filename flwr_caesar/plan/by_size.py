"""What a default is for a model of a size: small models are given more an element.

A message costs its records, names and headers whatever is in it, and a round its
waiting: a model of some thousand parameters saves nothing worth having by half a byte
an element, and learns nothing without it. Large models have elements to spare.
"""

from __future__ import annotations

SMALL, LARGE = 50_000, 80_000


def by_size(elements: int, *, small: float, usual: float) -> float:
    """Return a default for a model.

    Parameters
    ----------
    elements : int
        Floating-point elements of the model.
    small : float
        Value up to `SMALL` elements.
    usual : float
        Value from `LARGE` elements on; between the two it is interpolated.
    """
    share = min(max((LARGE - elements) / (LARGE - SMALL), 0.0), 1.0)
    return round(usual + (small - usual) * share, 4)
