"""How long a device took to start, to decode, to train and to encode."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flwr_caesar.telemetry import Telemetry
from flwr_caesar.transport import DeviceReport


class _Startup:
    """Seconds that this process took to start, told once.

    Flower starts a process for each message and fetches the message meanwhile, before
    it loads the app, and this module with it. So what came before counts in seconds of
    the processor and, where Linux tells, of waiting for it: these do not pass while it
    waits for the network. They are those of this thread: Flower fetches in others, of
    which a large message takes seconds. What came since counts by the clock.
    """

    def __init__(self) -> None:
        self._before: float | None = time.thread_time() + _seconds_queued()
        self._loaded = time.monotonic()

    def take(self) -> float:
        before, self._before = self._before, None
        return 0.0 if before is None else before + time.monotonic() - self._loaded


def _seconds_queued() -> float:
    try:
        return (
            int(Path("/proc/thread-self/schedstat").read_text("utf-8").split()[1]) / 1e9
        )
    except (OSError, ValueError, IndexError):
        return 0.0


_STARTUP = _Startup()


class Stopwatch:
    """Times the handling of one message, from its construction on."""

    def __init__(self) -> None:
        self._start = _STARTUP.take()
        self._times = [time.monotonic()] * 3
        self._spared = 0.0

    def spared(self, seconds: float) -> None:
        """Count seconds of decoding that another device of this process spent."""
        self._spared += seconds

    def decoded(self) -> None:
        """Note that the download is decoded."""
        self._times[1:] = [time.monotonic()] * 2

    def trained(self) -> None:
        """Note that the app is done."""
        self._times[2] = time.monotonic()

    def report(
        self,
        *,
        part: Mapping[str, Any],
        labels: tuple[int, ...] = (),
        telemetry: Telemetry | None = None,
    ) -> DeviceReport:
        """Return the report of the device, with the times so far."""
        start, decoded, trained = self._times
        return DeviceReport(
            train=trained - decoded,
            encode=time.monotonic() - trained,
            decode=decoded - start + self._spared,
            start=self._start,
            labels=labels,
            part=part,
            telemetry=telemetry,
        )
