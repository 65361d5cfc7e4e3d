"""What a device tells of itself with a request, for ``flwr-caesar fleet status``."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields

from flwr_caesar import __version__

HEADER = "flwr-caesar-device"
LONGEST = 1024
_SHOWN = 80


@dataclass(frozen=True, kw_only=True)
class DeviceStatus:
    """A device in a few words.

    Parameters
    ----------
    version : str
        Of flwr-caesar on the device.
    power_mode : str
        Such as ``MAXN``; empty if the device has none.
    state : str
        What it does or why it does not, such as ``waiting`` or ``too hot``.
    """

    version: str = __version__
    power_mode: str = ""
    state: str = ""

    def to_header(self) -> dict[str, str]:
        """Return the HTTP header that carries it."""
        text = json.dumps(asdict(self), separators=(",", ":"))
        return {HEADER: text if len(text) <= LONGEST else "{}"}

    @classmethod
    def from_header(cls, text: str) -> DeviceStatus:
        """Read a header; what cannot be read is empty, as devices may send anything."""
        try:
            told = json.loads(text) if len(text) <= LONGEST else {}
        except (ValueError, RecursionError):
            told = {}
        told = told if isinstance(told, dict) else {}
        known = {field.name: told.get(field.name, "") for field in fields(cls)}
        return cls(**{name: _printable(value) for name, value in known.items()})


def _printable(value: object) -> str:
    text = value if isinstance(value, str) else ""
    text = "".join(c for c in text if c.isprintable())
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
