"""The machines of devices: who holds which state, and the disks that some have."""

from __future__ import annotations

from pathlib import Path

from .chance import Chance
from .disks import Disk
from .law import Holder, Law
from .tampering import Operator


class Machines:
    """Devices between two durable states; each has its state from its `Holder`.

    Parameters
    ----------
    count : int
        How many devices there are.
    chance : Chance
        Decides what fails.
    law : Law
        By which they are judged.
    folder : Path
        For the disks.
    one_disk_in : int
        One device in so many keeps its state on a disk.

    Attributes
    ----------
    holders : list of Holder
        The devices.
    operator : Operator
        Who tampers with them.
    events : int
        Durable writes, and acts of the operator.
    """

    def __init__(
        self, count: int, chance: Chance, law: Law, folder: Path, *, one_disk_in: int
    ) -> None:
        self.holders = [Holder(number, chance.new_id()) for number in range(count)]
        self.operator = Operator(chance, self.holders, law)
        self.events = 0
        self._chance = chance
        self._law = law
        self._disks = {
            number: Disk(folder / f"device-{number}", chance)
            for number in range(0, count, one_disk_in)
        }
