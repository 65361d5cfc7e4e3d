"""Where a falling function crosses 0, in as few evaluations as it takes."""

from __future__ import annotations

import math
from collections.abc import Callable

Point = tuple[float, float]


class Crossing:
    """What is known of a falling function, and where it may cross 0.

    Parameters
    ----------
    low, high : float
        Between which it is looked for.
    slope : float
        By how much the function may fall where it increases by 1; above 0.
    """

    def __init__(self, low: float, high: float, slope: float) -> None:
        self._low, self._high, self._slope = low, high, slope
        self._above: Point | None = None
        self._below: Point | None = None
        self._last: Point | None = None

    def add(self, at: float, value: float) -> None:
        """Learn a value."""
        above, below, last = self._above, self._below, self._last
        if last is not None and at != last[0]:
            slope = (last[1] - value) / (at - last[0])
            self._slope = slope if 0 < slope < math.inf else self._slope / 2
        self._last = at, value
        # Of an end that stays while the other one moves twice, half of the value is
        # believed from then on, so that both move (the Illinois method).
        if value > 0:
            if below and last is not None and last == above:
                self._below = below[0], below[1] / 2
            self._above = at, value
        else:
            if above and last is not None and last == below:
                self._above = above[0], above[1] / 2
            self._below = at, value

    def guess(self) -> float:
        """Return where the crossing may be: between two signs, or on from one."""
        if self._above and self._below:
            (low, up), (high, down) = self._above, self._below
            share = up / (up - down)
            return low + (share if 0 < share < 1 else 0.5) * (high - low)
        assert self._last is not None
        at, value = self._last
        return min(max(at + value / self._slope, self._low), self._high)


def integer_crossing(
    function: Callable[[int], float], guess: int, low: int, high: int, *, slope: float
) -> int:
    """Return the smallest integer above `low` at which a function is not above 0.

    Parameters
    ----------
    function : callable
        Falling; called for integers between `low` and `high` only, and at the result
        and the integer below it unless these are the ends.
    guess : int
        Where the crossing may be.
    low, high : int
        The function is taken to be above 0 at `low`, and not at `high`.
    slope : float
        See `Crossing`.
    """
    crossing = Crossing(low, high, slope)
    at = min(max(guess, low + 1), high - 1)
    while high - low > 1:
        value = function(at)
        crossing.add(at, value)
        low, high = (at, high) if value > 0 else (low, at)
        at = min(max(round(crossing.guess()), low + 1), high - 1)
    return high
