"""Samples of a board's sensors added up over time."""

from __future__ import annotations

from dataclasses import dataclass

from .sample import Sample


@dataclass
class Totals:
    """What samples come to.

    Attributes
    ----------
    joules, measured_seconds : float
        Energy by the trapezoidal rule, and the time that it covers.
    watts_max, celsius_max : float, optional
        Highest so far.
    power_mode : str
        The first that was told.
    """

    joules: float = 0.0
    measured_seconds: float = 0.0
    watts_max: float | None = None
    celsius_max: float | None = None
    power_mode: str = ""
    _last_power: tuple[float, float] | None = None
    _events: tuple[int, int] | None = None
    _loads: tuple[int, float] = (0, 0.0)

    def add(self, sample: Sample, now: float) -> None:
        """Take in a sample of a moment, in seconds."""
        self.watts_max = _highest(self.watts_max, sample.watts)
        self.celsius_max = _highest(self.celsius_max, sample.celsius)
        self.power_mode = self.power_mode or sample.power_mode
        if sample.watts is not None:
            if self._last_power is not None:
                then, before = self._last_power
                self.joules += (now - then) * (before + sample.watts) / 2
                self.measured_seconds += now - then
            self._last_power = now, sample.watts
        if sample.gpu_load is not None:
            count, total = self._loads
            self._loads = count + 1, total + sample.gpu_load
        if sample.over_current is not None:
            first = self._events[0] if self._events else sample.over_current
            self._events = first, sample.over_current

    @property
    def watts_mean(self) -> float | None:
        """Over time; of the only sample if there is one."""
        if self.measured_seconds > 0:
            return self.joules / self.measured_seconds
        return self._last_power[1] if self._last_power else None

    @property
    def gpu_load(self) -> float | None:
        """Mean of all samples."""
        count, total = self._loads
        return total / count if count else None

    @property
    def over_current(self) -> int | None:
        """Events since the first sample, or since the board started anew."""
        if self._events is None:
            return None
        first, last = self._events
        return last - first if last >= first else last


def _highest(known: float | None, new: float | None) -> float | None:
    if known is None or new is None:
        return new if known is None else known
    return max(known, new)
