"""Updates of which most elements are as large as each other, at a rate below a bit.

The first step of Adam moves every element by its learning rate. No step and dead zone
then send some of them: it is all, at a bit and more each, or none. So the largest are
chosen, of equal ones the first; under error feedback the others are larger the next
time, and each is sent in its turn.
"""

from __future__ import annotations

from collections.abc import Iterator

_LEAST_USED, _MOST_ERROR = 0.5, 0.95
_ATTEMPTS, _LESS = 24, 0.85


def is_silent(bits: float, error: float, rate: float) -> bool:
    """Whether a quantiser sends next to nothing, and a finer one far too much.

    Parameters
    ----------
    bits : float
        That it takes an element.
    error : float
        Its normalised squared error.
    rate : float
        Bits an element that it may take.
    """
    return bits < _LEAST_USED * rate and error > _MOST_ERROR


def shares(rate: float) -> Iterator[float]:
    """Yield which shares of the elements may fit a rate, the largest first.

    Elements next to each other cost a bit each for their signs, and next to nothing for
    where they are; some that lie far apart cost many bits each.
    """
    for i in range(_ATTEMPTS):
        yield min(rate, 1.0) * _LESS**i
