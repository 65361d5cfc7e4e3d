"""How many bytes each device sent and got, in memory until they are written down."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace

from .fleet import Fleet, Seen


@dataclass(frozen=True)
class Totals:
    """Bytes from devices and to them."""

    up: int = 0
    down: int = 0


class Traffic:
    """Counts the gate's bytes by device, in memory.

    Safe to use from several threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._unwritten: dict[bytes, Seen] = {}
        self._totals: dict[bytes, Totals] = {}
        self._others = Totals()
        self._answers: dict[int, int] = {}

    def add(
        self,
        key: bytes | None,
        *,
        up: int,
        down: int,
        flower_version: str = "",
        status: str = "",
    ) -> None:
        """Count one request.

        Parameters
        ----------
        key : bytes or None
            Of the device; None if it did not show who it is.
        up, down : int
            HTTP bytes of the request and of the answer.
        flower_version, status : str
            What it told of itself; empty if nothing.
        """
        with self._lock:
            if key is None:
                self._others = _sum(self._others, up, down)
                return
            self._totals[key] = _sum(self._totals.get(key, Totals()), up, down)
            before = self._unwritten.get(key, Seen(last_seen=0.0))
            self._unwritten[key] = replace(
                before,
                last_seen=time.time(),
                bytes_up=before.bytes_up + up,
                bytes_down=before.bytes_down + down,
                flower_version=flower_version or before.flower_version,
                status=status or before.status,
            )

    def answered(self, status: int) -> None:
        """Count an answer by its HTTP status."""
        with self._lock:
            self._answers[status] = self._answers.get(status, 0) + 1

    def write(self, fleet: Fleet) -> None:
        """Add what is not written yet to the fleet file."""
        with self._lock:
            unwritten, self._unwritten = self._unwritten, {}
        try:
            if unwritten:
                fleet.saw(unwritten)
        except BaseException:
            for key, seen in unwritten.items():
                self._put_back(key, seen)
            raise

    def _put_back(self, key: bytes, seen: Seen) -> None:
        with self._lock:
            later = self._unwritten.get(key, Seen(last_seen=0.0))
            self._unwritten[key] = Seen(
                last_seen=max(seen.last_seen, later.last_seen),
                bytes_up=seen.bytes_up + later.bytes_up,
                bytes_down=seen.bytes_down + later.bytes_down,
                flower_version=later.flower_version or seen.flower_version,
                status=later.status or seen.status,
            )

    def snapshot(self) -> tuple[dict[bytes, Totals], Totals, dict[int, int]]:
        """Return bytes by device, bytes of others, and answers by status."""
        with self._lock:
            return dict(self._totals), self._others, dict(self._answers)


def _sum(before: Totals, up: int, down: int) -> Totals:
    return Totals(before.up + up, before.down + down)
