"""The law of control variates: over all devices they sum to zero."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from flwr_caesar.clients.method import extras
from flwr_caesar.sync.state import DeviceState

from .law import Law

Vector = np.ndarray[Any, np.dtype[np.float64]]

_PREFIX = "control/"
_COUNTS = "control-counts"
_TOLERANCE = 1e-3


class ControlLaw:
    """Adds up what the devices' durable states have, epoch by epoch.

    What a device loses by an operator's act, or by giving its state up for a copy, is
    lost to the sum until the server finds out and begins a new epoch. It is written
    down here, so that nothing else can hide behind it.

    Parameters
    ----------
    law : Law
        Makes vectors of arrays.

    Attributes
    ----------
    moved : int
        Checks so far that found control variates other than zero.
    """

    def __init__(self, law: Law) -> None:
        self._law = law
        self._epoch = 0
        self._lost = law.zeros()
        self._rebased = False
        self.moved = 0

    def opened(self, epoch: int, states: Iterable[DeviceState | None]) -> None:
        """Learn the epoch that the server names in its newest requests."""
        if epoch == self._epoch and not self._rebased:
            return
        self._epoch, self._lost = epoch, self._law.zeros()
        if self._rebased:
            self._lost = -self._total(states)[0]
        self._rebased = False

    def server_restored(self) -> None:
        """Learn that the server's next epoch is one that some devices have left."""
        self._rebased = True

    def lost(self, before: DeviceState | None, after: DeviceState | None) -> None:
        """Learn that a device has another state, and not by settling."""
        self._lost += self._of(before) - self._of(after)

    def sum_is_zero(
        self, states: Iterable[DeviceState | None], *, excuse: bool = True
    ) -> bool:
        """Whether the control variates of the epoch sum to zero, to rounding.

        Parameters
        ----------
        states : iterable of DeviceState
            Of all devices.
        excuse : bool
            Whether what is known to be lost counts as if it were there.
        """
        total, largest = self._total(states)
        self.moved += largest > _TOLERANCE
        if excuse:
            total = total + self._lost
        return bool(np.abs(total).max() <= _TOLERANCE * max(1.0, largest))

    def _total(self, states: Iterable[DeviceState | None]) -> tuple[Vector, float]:
        total, largest = self._law.zeros(), 0.0
        for state in states:
            own = self._of(state)
            total += own
            largest = max(largest, float(np.abs(own).max()))
        return total, largest

    def _of(self, state: DeviceState | None) -> Vector:
        counts = None if state is None else state.extras.get(_COUNTS)
        if state is None or counts is None or int(counts[0]) != self._epoch:
            return self._law.zeros()
        return self._law.vector(extras(state, _PREFIX))
