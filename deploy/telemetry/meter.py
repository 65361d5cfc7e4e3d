"""Measuring a board while something happens on it."""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path

from flwr_caesar.deploy.board import read_text
from flwr_caesar.telemetry import Telemetry

from .sample import Sample
from .source import Source, open_source
from .totals import Totals

INTERVAL = 1.0


class Meter:
    """Measures a board from now on, once a second, until `stop`.

    What cannot be measured is left out; nothing here raises, as no reply is to be lost
    for a sensor.

    Parameters
    ----------
    root : Path
        Where the machine's file system begins.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._began = time.monotonic()
        self._written = _bytes_written(root)
        self._totals = Totals()
        self._done = threading.Event()
        self._source: Source | None = None
        self._name = ""
        with contextlib.suppress(Exception):
            self._name, self._source = open_source(root)
        self._take()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(
        self, *, policy: str = "", steps_fraction: float | None = None
    ) -> Telemetry:
        """End, and return what was measured.

        Parameters
        ----------
        policy, steps_fraction
            Why the device did less than it was asked, and how much; see `Telemetry`.
        """
        self._done.set()
        self._thread.join()
        self._take()
        if self._source is not None:
            with contextlib.suppress(Exception):
                self._source.close()
        totals = self._totals
        before, after = self._written, _bytes_written(self._root)
        written = None
        if before is not None and after is not None:
            written = max(after - before, 0)
        return Telemetry(
            seconds=time.monotonic() - self._began,
            source=self._name,
            power_mode=totals.power_mode,
            watts_mean=totals.watts_mean,
            watts_max=totals.watts_max,
            joules=totals.joules if totals.measured_seconds > 0 else None,
            celsius_max=totals.celsius_max,
            over_current=totals.over_current,
            gpu_load=totals.gpu_load,
            bytes_written=written,
            steps_fraction=steps_fraction,
            policy=policy,
        )

    def _run(self) -> None:
        while not self._done.wait(INTERVAL):
            self._take()

    def _take(self) -> None:
        sample = Sample()
        if self._source is not None:
            with contextlib.suppress(Exception):
                sample = self._source.read()
        self._totals.add(sample, time.monotonic())


def _bytes_written(root: Path) -> int | None:
    """Return the bytes that this process caused to be written to a disk."""
    for line in read_text(root / "proc/self/io").splitlines():
        key, _, value = line.partition(":")
        if key == "write_bytes" and value.strip().isdecimal():
            return int(value)
    return None
