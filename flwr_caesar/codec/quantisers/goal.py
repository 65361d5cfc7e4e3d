"""A rate or an error that a quantiser has to meet."""

from __future__ import annotations

import math

from flwr_caesar.frozen import frozen

GAUSSIAN_BITS = 2.05
"""Entropy of a normal variable in steps of its deviation."""

_MOST_EXCESS = 4.0

Measured = tuple[float, float]
"""Bits an element and normalised squared error."""


@frozen
class Goal:
    """What a search is for.

    Parameters
    ----------
    target : float
        Bits an element, or a normalised squared error.
    is_rate : bool
        Which: the least error at no more than so many bits, or the fewest bits at no
        more than this error.
    """

    target: float
    is_rate: bool

    def excess(self, measured: Measured) -> float:
        """Return by how many octaves a quantiser is finer than it has to be.

        It falls as steps and dead zones grow; 2 at the most and -2 at the least, as
        what is further away says little of where the goal is.
        """
        bits, error = measured
        ratio = bits / self.target
        if not self.is_rate:
            ratio = self.target / error if error else _MOST_EXCESS
        return math.log2(min(max(ratio, 1 / _MOST_EXCESS), _MOST_EXCESS))

    def is_met(self, excess: float) -> bool:
        """Whether a quantiser of this excess will do."""
        return excess <= 0 if self.is_rate else excess >= 0

    def cost(self, measured: Measured) -> float:
        """Return what is to be least: the error at a rate, or the bits at an error."""
        bits, error = measured
        return error if self.is_rate else bits

    @property
    def quarters(self) -> int:
        """About how many quarter octaves its step is above the scale of the values."""
        if self.is_rate:
            return round(4 * (GAUSSIAN_BITS - self.target))
        return round(2 * math.log2(12 * self.target))
