"""Whether a device trains now: fully, with fewer steps, or not, and why."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from .metered import Metered
from .toml_table import NodeFileError, Table

FEWER_STEPS = 0.5
# How close to a limit a device trains with fewer steps.
NEAR_DEGREES = 10.0
NEAR_PERCENT = 15.0

GPU_CHOICES = ("preferred", "required", "never")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The ``[policy]`` table of ``node.toml``.

    Parameters
    ----------
    temperature : float
        Degrees Celsius of the hottest sensor at which the device declines. In the ten
        degrees below it trains with half the steps.
    battery : float
        Percent at which a device that is not on mains declines. In the fifteen
        percent above it trains with half the steps.
    threads : int
        Threads that the app is to use; 0 leaves it to the app.
    gpu : {"preferred", "required", "never"}
        Whether the app is to use one. Without one, ``"required"`` is an error,
        ``"preferred"`` is said in the log.
    """

    temperature: float = 85.0
    battery: float = 20.0
    threads: int = 0
    gpu: str = "preferred"

    def __post_init__(self) -> None:
        if not 0 < self.temperature <= 125:
            raise NodeFileError(
                f"[policy] temperature is {self.temperature}; write degrees Celsius "
                "above 0 and up to 125"
            )
        if not 0 <= self.battery <= 100:
            raise NodeFileError(
                f"[policy] battery is {self.battery}; write percent from 0 to 100"
            )
        if not 0 <= self.threads <= 1024:
            raise NodeFileError(
                f"[policy] threads is {self.threads}; write a number from 1, or 0 to "
                "leave it to the app"
            )
        if self.gpu not in GPU_CHOICES:
            raise NodeFileError(
                f"[policy] gpu is {self.gpu!r:.40}; write one of: "
                + ", ".join(f'"{choice}"' for choice in GPU_CHOICES)
            )

    @classmethod
    def of(cls, table: Table) -> Limits:
        """Read the table.

        Raises
        ------
        NodeFileError
            If a key is unknown or a value cannot be right.
        """
        degrees, percent = "write degrees Celsius", "write percent"
        read = cls(
            temperature=table.number("temperature", degrees, default=cls.temperature),
            battery=table.number("battery", percent, default=cls.battery),
            threads=table.integer("threads", "write a number", default=cls.threads),
            gpu=table.text("gpu", f"write one of {GPU_CHOICES}", default=cls.gpu),
        )
        table.end()
        return read

    def to_table(self) -> dict[str, Any]:
        """Return what `of` reads, without what has its default."""
        return {
            name: value
            for name in ("temperature", "battery", "threads", "gpu")
            if (value := getattr(self, name)) != getattr(Limits, name)
        }


@dataclass(frozen=True, kw_only=True)
class Readings:
    """What a device knows of itself when a message arrives; `None`: it cannot tell.

    Parameters
    ----------
    temperature : float, optional
        Degrees Celsius of its hottest sensor.
    battery : float, optional
        Percent that its battery holds, if it runs on one.
    on_mains : bool
        Whether it is being charged or has no battery.
    bytes_today, bytes_this_month : int
        That passed through its metered interface.
    """

    temperature: float | None = None
    battery: float | None = None
    on_mains: bool = True
    bytes_today: int = 0
    bytes_this_month: int = 0


class Kind(StrEnum):
    """What a device does with a message."""

    FULL = "full"
    FEWER = "fewer steps"
    DECLINED = "declined"


@dataclass(frozen=True)
class Decision:
    """What a device does with a message, and why.

    Parameters
    ----------
    kind : Kind
        What it does.
    steps : float
        Fraction of the steps it was asked for, in ``[0, 1]``.
    reason : str
        In words; empty for ``full``.
    """

    kind: Kind = Kind.FULL
    steps: float = 1.0
    reason: str = ""


def decide(
    readings: Readings, limits: Limits, metered: Metered | None, now: datetime
) -> Decision:
    """Return what a device does with a message that asks it to train.

    A reason to decline comes before one to train less. What cannot be read is no
    reason for either.

    Parameters
    ----------
    readings : Readings
        What the device knows of itself.
    limits : Limits
        Of its ``node.toml``.
    metered : Metered, optional
        Of its ``node.toml``; `None` for a link that costs nothing.
    now : datetime
        By the clock on the wall.
    """
    declined = (
        _too_hot(readings, limits)
        or _too_low(readings, limits)
        or (metered and link_reason(readings, metered, now))
    )
    if declined:
        return Decision(Kind.DECLINED, 0.0, declined)
    fewer = _warm(readings, limits) or _low(readings, limits)
    if fewer:
        return Decision(Kind.FEWER, FEWER_STEPS, fewer)
    return Decision()


def link_reason(readings: Readings, metered: Metered, now: datetime) -> str:
    """Return why a device is to be off its metered link; empty if it may be on."""
    day, month = metered.bytes_a_day, metered.bytes_a_month
    if not metered.is_open(now):
        return f"outside its hours, back at {metered.opens(now):%H:%M}"
    if day and readings.bytes_today >= day:
        return f"the {_mb(day)} of today are used"
    if month and readings.bytes_this_month >= month:
        return f"the {_mb(month)} of this month are used"
    return ""


def _too_hot(readings: Readings, limits: Limits) -> str:
    hot = readings.temperature
    if hot is None or hot < limits.temperature:
        return ""
    return f"{hot:.0f} °C, the limit is {limits.temperature:.0f} °C"


def _warm(readings: Readings, limits: Limits) -> str:
    hot = readings.temperature
    if hot is None or hot < limits.temperature - NEAR_DEGREES:
        return ""
    return f"{hot:.0f} °C, close to the limit of {limits.temperature:.0f} °C"


def _too_low(readings: Readings, limits: Limits) -> str:
    charge = readings.battery
    if readings.on_mains or charge is None or charge > limits.battery:
        return ""
    return f"battery at {charge:.0f} %, the limit is {limits.battery:.0f} %"


def _low(readings: Readings, limits: Limits) -> str:
    charge = readings.battery
    near = limits.battery + NEAR_PERCENT
    if readings.on_mains or charge is None or charge > near:
        return ""
    return f"battery at {charge:.0f} %, close to the limit of {limits.battery:.0f} %"


def _mb(count: int) -> str:
    return f"{count / 1e6:.1f} MB"
