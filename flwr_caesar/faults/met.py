"""Which guard met which fault of the sessions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from flwr_caesar.sync.device import Received

from .wire import SentMessage

_HELD = {
    "disk-moved": "identity is the token",
    "app-killed-with-child": "the lock ends with its process",
}


class Met:
    """Counts for each fault what it met, where it met anything.

    A message that was struck meets whatever refuses it; an upload that was lost, late
    or doubled meets the settling of the device that sent it.
    """

    def __init__(self) -> None:
        self._counts: dict[str, Counter[str]] = {}
        self._befell: dict[tuple[bytes, int], str] = {}

    def add(self, guard: str, fault: str) -> None:
        """Count a fault, if it is one, that a guard met."""
        if fault:
            self._counts.setdefault(guard, Counter())[fault] += 1

    def by_reply(self, message: SentMessage, reason: str) -> None:
        """Count what a struck reply met at the server; no reason: it was used."""
        guard = _without_numbers(reason)[:60]
        self.add(f"server: {guard}" if guard else "used", message.fault)

    def refused_by_store(self, fault: str, why: str) -> None:
        """Count a request that a device refuses, as it cannot use its disk."""
        read = "cannot be read now" in why
        self.add("left as it is" if read else "refused before it counts", fault)

    def held(self, fault: str) -> None:
        """Count a fault of a disk in spite of which a device went on."""
        self.add(_HELD.get(fault, "nothing was read or written then"), fault)

    def befell(self, token: bytes, upload_id: int, fault: str) -> None:
        """Learn what befell an upload on its way, to judge it when it is settled."""
        if fault and upload_id:
            self._befell[token, upload_id] = fault

    def settled(self, token: bytes, received: Received) -> None:
        """Learn how a device judges its uploads."""
        self._settle("upload returns to the residual", token, received.returned)
        self._settle("upload counts, once", token, received.applied)

    def _settle(self, guard: str, token: bytes, uploads: Iterable[int]) -> None:
        for upload_id in uploads:
            self.add(guard, self._befell.pop((token, upload_id), ""))

    def report(self) -> dict[str, dict[str, int]]:
        """Return how often each guard met each fault."""
        return {
            guard: dict(kinds.most_common())
            for guard, kinds in sorted(self._counts.items())
        }


def kind_of(reason: str) -> str:
    """Return a reason without what is different each time."""
    return _without_numbers(": ".join(reason.split(": ")[:2]))[:70]


def _without_numbers(reason: str) -> str:
    return re.sub(r"[0-9a-f]*\d[0-9a-f]*", "#", reason)
