"""What the server knows of each device's control variates."""

from __future__ import annotations

import struct

from flwr_caesar.frozen import frozen
from flwr_caesar.sync.sources import Sources

_FACTS = struct.Struct("<QI?")


@frozen
class ControlFacts:
    """What the server knows of a device's control variates.

    Parameters
    ----------
    epoch : int
        In which it knows it.
    moves : int
        How often they were moved.
    owes : bool
        Whether a model of the device was used and its variates were not moved since.
    """

    epoch: int = 0
    moves: int = 0
    owes: bool = False

    @classmethod
    def of(cls, data: bytes) -> ControlFacts:
        """Read what `pack` wrote; nothing is known of a device without facts."""
        return cls(*_FACTS.unpack(data)) if len(data) == _FACTS.size else cls()

    def pack(self) -> bytes:
        """Return the facts as the ledger keeps them."""
        return _FACTS.pack(self.epoch, self.moves, self.owes)

    def in_epoch(self, epoch: int) -> ControlFacts:
        """Return what is known in an epoch: nothing, if it is not that of the facts."""
        return self if self.epoch == epoch else ControlFacts(epoch)

    def paid(self) -> ControlFacts:
        """Return the facts after the device has moved its variates."""
        return ControlFacts(self.epoch, self.moves + self.owes)

    @property
    def report(self) -> dict[str, int]:
        """What such a device reports."""
        return {"epoch": self.epoch, "settled": self.moves}


def new_epoch(sources: Sources) -> int:
    """Return a random name for the time since all control variates were 0.

    All have 19 digits, so that plans of one kind have one length.
    """
    return (1 << 61) + (sources.new_id() >> 3)
