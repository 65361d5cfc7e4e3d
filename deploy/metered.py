"""When and how much a device may use a link that costs money by the byte."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import Any

from .toml_table import NodeFileError, Table

_WINDOW = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]|24):([0-5]\d)")
_INTERFACE = re.compile(r"[A-Za-z0-9_.@-]{1,15}")
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?(B|kB|MB|GB|TB)")
_UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_WRITE_SIZE = 'write bytes, such as 50_000_000 or "50 MB"'
# Flower asks for work every 3 s and cannot be told otherwise: measured, 539 B/s.
IDLE_BYTES_PER_SECOND = 539


@dataclass(frozen=True)
class Window:
    """A part of the day, by the device's own clock on the wall.

    Parameters
    ----------
    start, end : int
        Minutes since midnight; one that ends before it starts goes past midnight.
    """

    start: int
    end: int

    @classmethod
    def parse(cls, text: str) -> Window:
        """Read ``"22:00-06:00"``.

        Raises
        ------
        NodeFileError
            If it is something else, or nothing.
        """
        found = _WINDOW.fullmatch(text)
        start, end = 0, 0
        if found:
            h1, m1, h2, m2 = map(int, found.groups())
            start, end = 60 * h1 + m1, 60 * h2 + m2
        if start == end or end > 1440:
            raise NodeFileError(
                f"[metered] windows has {text!r:.40}; write from-to by the 24-hour "
                'clock, such as "22:00-06:00"; for the whole day leave windows out'
            )
        return cls(start, end)

    def __str__(self) -> str:
        ends = (f"{m // 60:02}:{m % 60:02}" for m in (self.start, self.end))
        return "-".join(ends)

    @property
    def minutes(self) -> int:
        """How long it is."""
        return (self.end - self.start) % 1440 or 1440

    def holds(self, now: datetime) -> bool:
        """Whether a moment is in it."""
        minute = 60 * now.hour + now.minute
        return (minute - self.start) % 1440 < self.minutes

    def next_start(self, now: datetime) -> datetime:
        """Return when it starts next, after `now`."""
        today = datetime.combine(now.date(), time(), tzinfo=now.tzinfo)
        start = today + timedelta(minutes=self.start)
        return start if start > now else start + timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class Metered:
    """The ``[metered]`` table of ``node.toml``.

    Parameters
    ----------
    windows : tuple of Window
        When the device is to be online; empty for always.
    bytes_a_day, bytes_a_month : int
        How much may pass through the interface, both ways; 0 for any amount. A day
        and a month begin at midnight by the device's clock.
    interface : str
        Whose bytes count; empty for the one of the default route.
    """

    windows: tuple[Window, ...] = ()
    bytes_a_day: int = 0
    bytes_a_month: int = 0
    interface: str = ""

    @classmethod
    def of(cls, table: Table) -> Metered:
        """Read the table.

        Raises
        ------
        NodeFileError
            If a key is unknown or a value cannot be right.
        """
        windows = table.texts("windows", 'write a list, such as ["22:00-06:00"]')
        interface = table.text("interface", 'write a name, such as "wwan0"', default="")
        if interface and not _INTERFACE.fullmatch(interface):
            raise NodeFileError(
                f"[metered] interface is {interface!r:.40}; write the name that "
                '`ip link` shows, such as "wwan0"'
            )
        read = cls(
            windows=tuple(map(Window.parse, windows)),
            bytes_a_day=_size(table, "bytes-a-day"),
            bytes_a_month=_size(table, "bytes-a-month"),
            interface=interface,
        )
        table.end()
        return read

    def to_table(self) -> dict[str, Any]:
        """Return what `of` reads, without what has its default."""
        table = {
            "windows": [str(window) for window in self.windows],
            "bytes-a-day": self.bytes_a_day,
            "bytes-a-month": self.bytes_a_month,
            "interface": self.interface,
        }
        return {key: value for key, value in table.items() if value}

    def is_open(self, now: datetime) -> bool:
        """Whether the device is to be online."""
        return not self.windows or any(window.holds(now) for window in self.windows)

    def opens(self, now: datetime) -> datetime:
        """Return when the device is to be online next; `now` if it is already."""
        if self.is_open(now):
            return now
        return min(window.next_start(now) for window in self.windows)

    @property
    def idle_bytes_a_month(self) -> float:
        """Bytes that Flower's polling costs in 30 days of these windows."""
        hours = _minutes_open(self.windows) / 60
        return 30 * hours * 3600 * IDLE_BYTES_PER_SECOND


def _minutes_open(windows: tuple[Window, ...]) -> int:
    if not windows:
        return 1440
    minutes: set[int] = set()
    for window in windows:
        minutes |= {(window.start + i) % 1440 for i in range(window.minutes)}
    return len(minutes)


def parse_size(text: str) -> int:
    """Return the bytes of ``"50 MB"``; units are powers of 1,000.

    Raises
    ------
    ValueError
        If it is something else.
    """
    found = _SIZE.fullmatch(text)
    if not found:
        raise ValueError(f"{text!r:.40} is no size")
    return round(float(found[1]) * _UNITS[found[2]])


def _size(table: Table, key: str) -> int:
    if isinstance(table.values.get(key), str):
        try:
            return parse_size(table.text(key, _WRITE_SIZE))
        except ValueError as err:
            raise NodeFileError(f"[metered] {key}: {err}; {_WRITE_SIZE}") from None
    size = table.integer(key, _WRITE_SIZE, default=0)
    if size < 0:
        raise NodeFileError(f"[metered] {key} is {size}; {_WRITE_SIZE}")
    return size
