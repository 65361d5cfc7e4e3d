"""Which devices are told how long an update may be, as theirs was refused for it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from flwr_caesar.sync.protocol import DownloadHeader

from .phase import Phase

_IN_ORDER = 0.25


class TooLong:
    """Remembers devices until they have sent an update of an ordinary length.

    A server that starts anew has forgotten them; it refuses one update of each more.
    """

    def __init__(self) -> None:
        self._devices: set[str] = set()

    def told(self, header: DownloadHeader, longest: float) -> DownloadHeader:
        """Return a header that says what is believed, if its device is to know.

        Parameters
        ----------
        header : DownloadHeader
            Of a request for an update.
        longest : float
            Length of the longest update that is believed; 0 if that is not known.
        """
        if header.device not in self._devices:
            return header
        with np.errstate(over="ignore", under="ignore"):
            short = float(np.float32(longest))
        return replace(header, longest=short if 0 < short < math.inf else 0.0)

    def note(self, phase: Phase, devices: Mapping[int, str]) -> None:
        """Learn what became of a phase's updates.

        Parameters
        ----------
        phase : Phase
            Before it is committed.
        devices : mapping of int to str
            Id of the device at each node whose update was used, or refused.
        """
        for node_id, device in devices.items():
            if node_id in phase.too_long:
                self._devices.add(device)
            elif phase.replies[node_id].length <= _IN_ORDER * phase.longest:
                self._devices.discard(device)
