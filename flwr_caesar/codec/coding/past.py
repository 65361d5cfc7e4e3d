"""What both sides of a compact block know of its tensors from before."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from flwr_caesar.frozen import frozen

from ..contract.vector import Vector
from .contexts import Scales


@frozen
class Past:
    """What both sides know of the tensors from before.

    Parameters
    ----------
    previous : callable
        Given the number of a tensor, its last values in steps of this round, flat,
        float32.
    scales : sequence of ndarray of int16
        The scales of each tensor in the last round.
    """

    previous: Callable[[int], Vector]
    scales: Sequence[Scales]

    def at_hand(self) -> Past:
        """Return the same with all values in memory, for those who ask twice."""
        values = [self.previous(i) for i in range(len(self.scales))]
        return Past(values.__getitem__, self.scales)

    def only(self, kept: Sequence[int]) -> Past:
        """Return what is known of some of the tensors."""
        return Past(lambda i: self.previous(kept[i]), [self.scales[i] for i in kept])
