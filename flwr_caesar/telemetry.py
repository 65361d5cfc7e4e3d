"""What a device measured of itself during one message, and how it travels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, fields
from typing import Any

from flwr_caesar.frozen import frozen

NODE_VARIABLE = "FLWR_CAESAR_NODE"
"""Where a process that ``flwr-caesar node`` started finds its ``node.toml``."""

LONGEST_TEXT = 120
MOST_KEYS = 32
_MOST = float(1 << 53)


class TelemetryError(ValueError):
    """What claims to be telemetry is none."""


@frozen
class Telemetry:
    """What a device measured from before it decoded a message until it replied.

    `None` and empty texts stand for what it cannot measure. It all belongs to the whole
    board: watts and joules are those of everything that runs on it.

    Parameters
    ----------
    seconds : float
        How long it measured.
    source : str
        ``"jtop"``, ``"tegrastats"`` or ``"sysfs"``; empty if it has no sensors.
    power_mode : str
        Name of the board's power mode when it began, such as ``"MAXN"``.
    watts_mean, watts_max : float, optional
        Of the board's input.
    joules : float, optional
        Watts over time.
    celsius_max : float, optional
        Of the hottest sensor.
    over_current : int, optional
        How often the board was throttled for too high a current meanwhile.
    gpu_load : float, optional
        Mean percent.
    bytes_written : int, optional
        That the process had written to the disk.
    steps_fraction : float, optional
        Part of the local steps it was asked for that it took; `None` for all.
    policy : str
        Why the device trained with fewer steps, or not at all; empty if it did as it
        was asked.
    """

    _: KW_ONLY
    seconds: float = 0.0
    source: str = ""
    power_mode: str = ""
    watts_mean: float | None = None
    watts_max: float | None = None
    joules: float | None = None
    celsius_max: float | None = None
    over_current: int | None = None
    gpu_load: float | None = None
    bytes_written: int | None = None
    steps_fraction: float | None = None
    policy: str = ""

    def to_mapping(self) -> dict[str, str | int | float]:
        """Return a flat mapping of what was measured, for a Flower ConfigRecord.

        At most twelve keys and 360 characters of text: below 1 kB.
        """
        told: dict[str, str | int | float] = {}
        for name, value in self.to_row().items():
            if value is None or value == "":
                continue
            told[name.replace("_", "-")] = (
                value[:LONGEST_TEXT] if isinstance(value, str) else value
            )
        return told

    def to_row(self) -> dict[str, Any]:
        """Return all fields by name, for a CSV file."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def of(cls, mapping: Mapping[str, Any]) -> Telemetry:
        """Read what `to_mapping` wrote; keys of later versions are passed over.

        Raises
        ------
        TelemetryError
            If a value is of another kind, not finite, out of range or too long, or
            there are more than 32 keys.
        """
        if len(mapping) > MOST_KEYS:
            raise TelemetryError(f"telemetry of {len(mapping)} keys")
        told: dict[str, Any] = {}
        for field in fields(cls):
            key = field.name.replace("_", "-")
            if key in mapping:
                told[field.name] = _checked(key, mapping[key], str(field.type))
        return cls(**told)


def _checked(key: str, value: Any, kind: str) -> str | int | float:
    if kind == "str":
        good = isinstance(value, str) and len(value) <= LONGEST_TEXT
        good = good and value.isprintable()
    elif kind.startswith("int"):
        good = type(value) is int and 0 <= value <= _MOST
    else:
        number = type(value) in (int, float)
        # The coldest place on earth is no reason to drop a reply.
        good = number and -100 <= value <= _MOST
        good = good and (value >= 0 or key == "celsius-max")
        good = good and (value <= 1 or key != "steps-fraction")
    if not good:
        raise TelemetryError(f"telemetry has {key} {value!r:.40}")
    return value if kind == "str" or kind.startswith("int") else float(value)
